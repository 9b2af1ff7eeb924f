"""The settings page in Django's admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import SimpleLazyObject
from django.utils.text import capfirst
from django.utils.timezone import now
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from solo.admin import SingletonModelAdmin

from siteconfig.config_manager import ConfigManager
from siteconfig.fields import ROW_ID
from siteconfig.fleet import report
from siteconfig.forms import ConfigForm
from siteconfig.models import SiteConfiguration
from siteconfig.secret import Secret
from siteconfig.snapshot import EXTRA

if TYPE_CHECKING:
    from siteconfig.fleet import Report
    from siteconfig.models import ConfigModel


class ConfigAdmin(SingletonModelAdmin):
    """The page of one config model; a project registers its own model with it."""

    form = ConfigForm
    change_form_template = "admin/siteconfig/change_form.html"

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Django's, with the settings that are no fields last and folded away."""
        if self.fieldsets or self.fields:
            return super().get_fieldsets(request, obj)
        names = list(self.get_fields(request, obj))
        if EXTRA not in names:
            return [(None, {"fields": names})]
        names.remove(EXTRA)
        return [(None, {"fields": names}), MORE_SETTINGS]

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> ConfigModel | None:
        """The row, or, while there is none, one with the defaults that Save will store."""
        row = super().get_object(request, object_id, from_field)
        return self.model() if row is None and object_id == str(ROW_ID) else row

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if request.method == "POST":
            self._hide_posted_secrets(request)
        # Not solo's, which makes the row when the page is only looked at.
        context = {
            "title": capfirst(self.opts.verbose_name),
            "subtitle": None,
            "skip_object_list_page": True,
            # There is nothing else to go on to: one button, and it stays on the page.
            "show_save_and_continue": False,
            "fleet": SimpleLazyObject(self._fleet),  # not asked for after a save
            **(extra_context or {}),
        }
        return admin.ModelAdmin.change_view(self, request, object_id, form_url, context)

    def _hide_posted_secrets(self, request: Any) -> None:
        """Keep what was typed in out of the error report, should there be one."""
        names = [field.name for field in self.model.secret_fields().values()]
        posted = request.POST.copy()
        for name in posted.keys() & names:
            posted.setlist(name, map(Secret, posted.getlist(name)))
        posted._mutable = False
        request.POST = posted

    def render_change_form(
        self,
        request: HttpRequest,
        context: Any,
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> Any:
        """Django's, with each secret described, in place of a value that a page might show.

        Read-only fields, which is all that those see who may only view, show an instance's value
        without asking a form field or a widget. Nothing is saved any more when a page is made.
        """
        for name in self.model.secret_fields():
            secret = getattr(obj, name, None)
            if isinstance(secret, Secret):
                setattr(obj, name, secret.described())
        return super().render_change_form(request, context, add, change, form_url, obj)

    def _fleet(self) -> Report | None:
        """Which processes have read the settings as they are; None: it cannot be told."""
        # Right after a change the others are about to read it, too: a page that then names most
        # of them as being behind would be of no use.
        age = self._held_for()
        patience = FLEET_PATIENCE if age is not None and age < JUST_NOW else 0.0
        try:
            return report(self.model, patience)
        except DatabaseError:
            return None  # the table may be missing, before migrate

    def _held_for(self) -> float | None:
        """Seconds since this process took over the values that it holds."""
        loaded_at = ConfigManager(self.model).status().loaded_at
        return None if loaded_at is None else (now() - loaded_at).total_seconds()

    def response_change(self, request: HttpRequest, obj: Any) -> HttpResponseRedirect:
        self.message_user(
            request, gettext("The settings were saved and are in force."), level="SUCCESS"
        )
        return HttpResponseRedirect(request.path)


#: Seconds after a change for which the page waits, if need be, for other processes; and for how
#: long it does. Push transports need some milliseconds, the poll of SQLite a tenth of a second.
JUST_NOW, FLEET_PATIENCE = 2.0, 0.5

MORE_SETTINGS: Any = (_("More settings"), {"fields": [EXTRA], "classes": ["collapse"]})


class SiteConfigurationAdmin(ConfigAdmin):
    fieldsets = [
        (_("Site"), {"fields": ["site_name", "support_email", "maintenance_mode"]}),
        (_("External service"), {"fields": ["api_key", "timeout", "retry_count"]}),
        (_("Logging"), {"fields": ["log_level"]}),
        MORE_SETTINGS,
    ]


if not SiteConfiguration._meta.swapped:
    admin.site.register(SiteConfiguration, SiteConfigurationAdmin)
