"""Settings in templates: ``{{ config.site_name }}``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siteconfig.config_manager import config as manager
from siteconfig.snapshot import Snapshot

if TYPE_CHECKING:
    from django.http import HttpRequest


def config(request: HttpRequest) -> dict[str, Snapshot]:
    """The request's snapshot if ``ConfigMiddleware`` has set one, else the present one."""
    pinned = getattr(request, "config", None)
    return {"config": pinned if isinstance(pinned, Snapshot) else manager.snapshot()}
