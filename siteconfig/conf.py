"""The app's own settings: one dict, ``SITECONFIG``, read live, so that overriding it works."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any, get_type_hints

from django.apps import apps
from django.conf import settings
from django.core.exceptions import AppRegistryNotReady, ImproperlyConfigured

if TYPE_CHECKING:
    from siteconfig.models import ConfigModel

DEFAULT_MODEL = "siteconfig.SiteConfiguration"


class Conf:
    """Every key of ``SITECONFIG``, its type and its default."""

    FLEET: bool = True
    """Note in the database which processes there are, and what each has read; on SQLite only where
    transactions begin as ``IMMEDIATE`` or ``EXCLUSIVE``."""

    HISTORY: bool = True
    """Record who changed which setting, when, from what to what."""

    LAST_KNOWN_GOOD: str | PathLike[str] | None = None
    """Path of a file that keeps the settings for a start without a database; None: no file."""

    LISTEN_DATABASE: str | None = None
    """Alias of a database entry that reaches PostgreSQL past a pooler; None: the settings' own."""

    LOG_FILE: str | PathLike[str] | None = None
    """Path of the file that ``Logger`` writes; None: it adds no file of its own."""

    LOG_FORMAT: str = "text"
    """``"text"``: time, level, message; ``"json"``: one object a line, with more in it."""

    LOG_MAX_BYTES: int = 0
    """Rotate the file of ``Logger`` before it grows larger, in bytes; 0: never."""

    LOG_BACKUPS: int = 5
    """How many rotated files to keep; 0: none."""

    MAX_STALENESS: int | float | None = 60.0
    """Seconds without a look at the row after which ``health/`` answers 503; None: never."""

    PINNED: dict[str, Any] | None = None
    """Settings that this deployment fixes whatever the row says, by name; of another model than
    the default one by ``"app_label.ModelName.name"``."""

    POLL_INTERVAL: int | float | None = None
    """Seconds between two looks at the row; None: 1, or 0.1 on SQLite."""

    REDIS_URL: str | None = None
    """The Redis or Valkey server of the transport ``"redis"``, ``"redis://host:6379/0"``."""

    SECRET_KEYS: list[str | bytes] | tuple[str | bytes, ...] | None = None
    """The keys of secret settings, newest first, each as ``Fernet.generate_key()`` makes it; None:
    those in the environment variable ``SITECONFIG_SECRET_KEYS``, with commas between them."""

    STRICT: bool = False
    """Refuse to set a name that is no field, instead of keeping it in the column ``extra``."""

    TRANSPORT: str = "auto"
    """How changes by other processes are noticed: ``"poll"``, ``"postgres"``, ``"redis"``;
    ``"none"``: not at all; ``"auto"``: LISTEN on PostgreSQL with psycopg 3, else the poll."""

    def __getattribute__(self, name: str) -> Any:
        default = object.__getattribute__(self, name)
        given = getattr(settings, "SITECONFIG", {})
        # A SITECONFIG that is no dict is reported by a check; reads go on with the defaults.
        return given.get(name, default) if isinstance(given, dict) else default


conf = Conf()


def known_settings() -> dict[str, Any]:
    """Key of ``SITECONFIG`` → the type its value must have."""
    return get_type_hints(Conf)


def model_label() -> str:
    """The label of the model behind ``ConfigManager()``, as ``SITECONFIG_MODEL`` spells it."""
    return getattr(settings, "SITECONFIG_MODEL", None) or DEFAULT_MODEL


def get_model() -> type[ConfigModel]:
    """The model behind ``ConfigManager()``.

    Raises:
        AppRegistryNotReady: asked while Django is still importing the models.
        ImproperlyConfigured: ``SITECONFIG_MODEL`` names no installed model.
    """
    label = model_label()
    try:
        return apps.get_model(label, require_ready=False)
    except (LookupError, ValueError) as error:
        if not apps.models_ready:
            raise AppRegistryNotReady(
                f"A setting was read while Django was still importing the models, before {label} "
                f"was there. Read it where it is used: inside a function, or in "
                f"AppConfig.ready()."
            ) from error
        raise ImproperlyConfigured(
            f"SITECONFIG_MODEL is {label!r}, which is no installed model: {error} Set it to "
            f'"app_label.ModelName" of a subclass of siteconfig.models.ConfigModel, and put '
            f"that app into INSTALLED_APPS."
        ) from error
