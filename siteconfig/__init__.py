"""Settings that change while the site runs: edited in the admin, read like attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from siteconfig.config_manager import ConfigManager, config
    from siteconfig.logger import Logger

__all__ = ["ConfigManager", "Logger", "config"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported when asked for: pytest loads this package's plugin in projects that use no Django.
    if name in {"ConfigManager", "config"}:
        from siteconfig import config_manager as module
    elif name == "Logger":
        from siteconfig import logger as module  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
