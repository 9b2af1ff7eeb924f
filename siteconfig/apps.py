"""The app as Django sees it."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SiteConfigAppConfig(AppConfig):
    name = "siteconfig"
    verbose_name = _("Site settings")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from siteconfig import checks, receivers

        checks.register()
        receivers.connect()
