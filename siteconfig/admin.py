"""The settings page in Django's admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from django.contrib import admin
from django.core.checks import CheckMessage, Error
from django.core.exceptions import PermissionDenied
from django.db import DataError, IntegrityError, models, router
from django.db import Error as DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import translation
from django.utils.text import capfirst
from django.utils.timezone import now
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from solo.admin import SingletonModelAdmin

from siteconfig import history
from siteconfig.config_manager import ConfigManager
from siteconfig.differences import differences_of_each, label_of
from siteconfig.fields import ROW_ID
from siteconfig.fleet import report
from siteconfig.forms import REASON, SEEN, ConfigForm, about
from siteconfig.history import How, attributed_to
from siteconfig.models import SiteConfiguration
from siteconfig.secret import Secret
from siteconfig.snapshot import EXTRA
from siteconfig.storable import CONTROL, NOT_IN_A_LINE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from siteconfig.differences import Difference
    from siteconfig.fleet import Report
    from siteconfig.forms import About
    from siteconfig.models import ConfigChange, ConfigModel
    from siteconfig.pins import Pin
    from siteconfig.snapshot import Snapshot

#: What the page is asked to begin with: to undo one change, or to go back to what was after it.
UNDO, RESTORE = "_undo", "_restore"

#: Digits of the key of a record at most: more are none that a database has.
LONGEST_KEY = 18

#: Changes on one page of the history.
PAGE = 20

#: Characters of a reason.
LONGEST_REASON = 500

#: Digits of a record's key, and characters of a setting's name, that the history is asked for.
LONGEST_KEY, LONGEST_NAME = 18, 255


class Row(NamedTuple):
    """A line of the page: a setting, or whatever else the project shows between them."""

    field: Any
    """Django's ``AdminField`` or ``AdminReadonlyField``."""
    about: About | None
    """None: it is no setting."""


class Section(NamedTuple):
    """A fieldset of the page."""

    fieldset: Any
    rows: list[Row]


class ConfigAdmin(SingletonModelAdmin):
    """The page of one config model; a project registers its own model with it.

    It goes together with other ModelAdmins, such as those that bring a look of their own, in either
    order::

        class ShopConfigAdmin(ConfigAdmin, unfold.admin.ModelAdmin): ...

    Their widgets, ``formfield_overrides``, ``readonly_fields`` and inlines are taken; inlines are
    saved with the settings, but neither reviewed nor in the history. What is about a list, such as
    ``list_display``, is of no use: there is none. A ``form`` must be a ConfigForm.

    Attributes:
        field_permissions: setting → the permission, ``"app_label.codename"``, without which it is
            only shown.
    """

    form = ConfigForm
    change_form_template = "siteconfig/admin/change_form.html"
    object_history_template = "siteconfig/admin/history.html"
    field_permissions: ClassVar[Mapping[str, str]] = {}

    class Media:
        css = {"all": ["siteconfig/admin.css"]}
        js = ["siteconfig/admin.js"]

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        return [*super().check(**kwargs), *self._check_own()]

    def _check_own(self) -> Iterator[CheckMessage]:
        if not issubclass(self.form, ConfigForm):
            yield Error(
                "The form of a ConfigAdmin must be a ConfigForm: a stock ModelForm overwrites "
                "what others have changed meanwhile.",
                hint=f"Write class {self.form.__name__}(siteconfig.forms.ConfigForm).",
                obj=type(self),
                id="siteconfig.E021",
            )
        names = {field.name for field in self.model.setting_fields().values()}
        for name, permission in self.field_permissions.items():
            if name not in names or permission.count(".") != 1:
                yield Error(
                    f"field_permissions has {name!r}: {permission!r}; it must be a setting's name "
                    f"and a permission.",
                    hint='Write, for example: {"api_key": "siteconfig.change_api_key"}.',
                    obj=type(self),
                    id="siteconfig.E022",
                )

    # Who may do what

    def has_history_permission(self, request: HttpRequest) -> bool:
        """Whether the history, and who has changed what, is shown to this user."""
        permission = "siteconfig.view_configchange"
        return self.has_view_or_change_permission(request) and request.user.has_perm(permission)

    def has_revert_permission(self, request: HttpRequest) -> bool:
        """Whether this user is offered to go back. Each setting needs its own permission, too."""
        permission = "siteconfig.revert_configchange"
        return (
            self.has_history_permission(request)
            and self.has_change_permission(request)
            and request.user.has_perm(permission)
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        """The project's, what is pinned, and what this user may not change."""
        readonly = super().get_readonly_fields(request, obj)
        return [*dict.fromkeys([*readonly, *self._pins(), *self._forbidden(request)])]

    def _pins(self) -> dict[str, Pin]:
        """What is pinned, by the names of the fields."""
        fields = self.model.setting_fields()
        pins = ConfigManager(self.model)._pins()
        return {fields[name].name: pin for name, pin in pins.items()}

    def _forbidden(self, request: HttpRequest) -> set[str]:
        permissions = self.field_permissions.items()
        return {name for name, permission in permissions if not request.user.has_perm(permission)}

    # The page

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Django's, with the settings that are no fields last and folded away."""
        if self.fieldsets or self.fields:
            return super().get_fieldsets(request, obj)
        names = list(self.get_fields(request, obj))
        if EXTRA not in names:
            return [(None, {"fields": names})]
        names.remove(EXTRA)
        return [(None, {"fields": names}), MORE_SETTINGS]

    def formfield_for_dbfield(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        if isinstance(db_field, models.URLField):
            kwargs.setdefault("assume_scheme", "https")  # as Django 6 does by itself
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> ConfigModel | None:
        """The row; locked, if it may be about to be written."""
        if object_id != str(ROW_ID):
            return None
        using = router.db_for_write(self.model)
        if request.method == "POST" and self.has_change_permission(request):
            row: ConfigModel = self.model.locked_row(using)
        else:
            row = self.model.readable_row(using)
        return row

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if obj is None:
            return form
        known = {"refusal": getattr(request, "siteconfig_refusal", None)}
        if (change_to := self._change_to_go_back_to(request)) is not None:
            record, way = change_to
            known["proposal"] = GOING_BACK[way](record, obj.read_as(), self.model)
        return type(form.__name__, (form,), known)

    def _change_to_go_back_to(self, request: HttpRequest) -> tuple[ConfigChange, str] | None:
        """The record that the request names, and whether it is to be undone or restored.

        Raises:
            PermissionDenied: this user may not go back.
            Http404: there is no such record.
        """
        asked = request.POST if request.method == "POST" else request.GET
        way = next((way for way in GOING_BACK if asked.get(way)), None)
        if way is None:
            return None
        if not self.has_revert_permission(request):
            raise PermissionDenied
        key = asked[way]
        is_key = key.isascii() and key.isdigit() and len(key) <= LONGEST_KEY
        record = _records(self.model).filter(pk=key).first() if is_key else None
        if record is None:
            raise Http404(gettext("There is no such change."))
        return record, way

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if request.method == "POST":
            self._hide_posted_secrets(request)
        context = {
            "title": capfirst(self.opts.verbose_name),
            "subtitle": None,
            "skip_object_list_page": True,
            # There is nothing else to go on to: one button, and it stays on the page.
            "show_save_and_continue": False,
            **(extra_context or {}),
        }
        with attributed_to(request.user, how=How.ADMIN, reason=_reason_in(request)):
            # Not solo's, which makes the row when the page is only looked at.
            return super(SingletonModelAdmin, self).change_view(
                request, object_id, form_url, context
            )

    def changeform_view(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        """Django's. What the database refuses is an error of the form, and of the same page."""
        try:
            response = super().changeform_view(request, *args, **kwargs)
        except (DataError, IntegrityError) as error:
            if request.method != "POST":
                raise
            # Only the first line: others may quote the whole row.
            problem = next(iter(str(error).splitlines()), type(error).__name__)
            request.siteconfig_refusal = problem
            response = super().changeform_view(request, *args, **kwargs)
        # Not before the commit.
        if (saved := getattr(request, "siteconfig_saved", None)) is not None:
            self.message_user(request, *_said_after(saved))
        return response

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
        """Django's, with what the page tells of each setting.

        Read-only fields, which is all that those see who may only view, show an instance's value
        without asking a form field or a widget. So each secret is described in place of its value,
        and each pinned setting has its pin's. Nothing is saved any more when a page is made.
        """
        form = context["adminform"].form
        may_see_history = self.has_history_permission(request)
        change_to = self._change_to_go_back_to(request)
        context |= {
            "sections": self._sections(context["adminform"], may_see_history),
            "differences": form.differences(),
            "is_preview": form.is_preview,
            "lost": [self._label(name) for name in form.left_out()],
            "going_back": change_to,
            "seen_name": SEEN,
            "reason_name": REASON,
            "reason": _reason_in(request) or _reason_of(change_to),
            "can_edit": bool(form.fields),
            "history_url": self._url("history") if may_see_history else None,
            "fleet": self._fleet(form.row),
        }
        for name, pin in ConfigManager(self.model)._pins().items():
            setattr(obj, name, pin.value)
        for name in self.model.secret_fields():
            secret = getattr(obj, name, None)
            if isinstance(secret, Secret):
                setattr(obj, name, secret.described())
        return super().render_change_form(request, context, add, change, form_url, obj)

    def _sections(self, adminform: Any, may_see_history: bool) -> list[Section]:
        origins = history.last_changes(self.model) if may_see_history else {}
        told = about(adminform.form, origins, ConfigManager(self.model)._pins())

        def row(field: Any) -> Row:
            name = field.field["name"] if field.is_readonly else field.field.name
            return Row(field, told.get(name))

        return [
            Section(fieldset, [row(field) for line in fieldset for field in line])
            for fieldset in adminform
        ]

    def _label(self, name: str) -> str:
        return label_of(self.model.setting_fields().get(name), name)

    def _url(self, page: str) -> str:
        name = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_{page}"
        return reverse(name)

    # Saving

    def save_model(self, request: Any, obj: Any, form: Any, change: bool) -> None:
        """Write what has been changed, and only that; nothing if nothing has.

        Raises:
            PermissionDenied: some of it this user may not change, whatever the form has offered.
        """
        if form.edited & {*self._forbidden(request), *self._pins()}:
            raise PermissionDenied
        # Beside what the reader has changed, what the project's own code has.
        columns = form.edited | (obj._changed_fields() if form.changes else set())
        if columns:
            try:
                obj.save(update_fields=columns)
            except (OverflowError, ValueError) as error:  # which drivers raise as well
                raise DataError(str(error)) from error
        request.siteconfig_saved = form.differences()

    def construct_change_message(
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> Any:
        # Django's, of which the first part is of the form itself.
        message = super().construct_change_message(request, form, formsets, add)
        of_others = [one for one in message if "name" in one.get("changed", {"name": ""})]
        with translation.override(None):  # as Django does: each reader has a language
            labels = [difference.label for difference in form.differences()]
        return [*([{"changed": {"fields": labels}}] if labels else []), *of_others]

    def log_change(self, request: Any, obj: Any, message: Any) -> Any:
        request.siteconfig_saved = request.siteconfig_saved or bool(message)
        return super().log_change(request, obj, message) if message else None

    def response_change(self, request: Any, obj: Any) -> HttpResponseRedirect:
        return HttpResponseRedirect(request.path)

    # The history

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Every change, the newest first, and from there the ways back."""
        if not self.has_history_permission(request):
            raise PermissionDenied
        before, setting = _filters(request)
        records = _records(self.model)
        newest = records.values_list("pk", flat=True).first()
        if before is not None:
            records = records.filter(pk__lt=before)
        if setting:
            records = records.filter(changes__has_key=setting)
        page = list(records.defer("state")[: PAGE + 1])
        shown = page[:PAGE]
        shown_differences = differences_of_each(self.model, [one.changes for one in shown])
        context = {
            **self.admin_site.each_context(request),
            "title": gettext("History: %(page)s") % {"page": capfirst(self.opts.verbose_name)},
            "opts": self.opts,
            "model_name": capfirst(self.opts.verbose_name),
            "changes": list(zip(shown, shown_differences, strict=True)),
            "newest": newest,
            "older": page[PAGE - 1].pk if len(page) > PAGE else None,
            "setting": setting,
            "setting_label": self._label(setting),
            "may_revert": self.has_revert_permission(request),
            "page_url": self._url("change"),
            "history_url": self._url("history"),
            "media": self.media,
            "undo": UNDO,
            "restore": RESTORE,
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, self.object_history_template, context)

    def _fleet(self, row: Snapshot) -> Report | None:
        """Which processes have read the settings as they are; None: it cannot be told."""
        # Right after a change the others are about to read it, too: a page that then names most
        # of them as being behind would be of no use.
        age = self._held_for()
        patience = FLEET_PATIENCE if age is not None and age < JUST_NOW else 0.0
        try:
            return report(self.model, patience, row)
        except DatabaseError:
            return None  # the table may be missing, before migrate

    def _held_for(self) -> float | None:
        """Seconds since this process took over the values that it holds."""
        loaded_at = ConfigManager(self.model).status().loaded_at
        return None if loaded_at is None else (now() - loaded_at).total_seconds()


#: Seconds after a change for which the page waits, if need be, for other processes; and for how
#: long it does. Push transports need some milliseconds, the poll of SQLite a tenth of a second.
JUST_NOW, FLEET_PATIENCE = 2.0, 0.5

#: What each way back proposes.
GOING_BACK = {UNDO: history.without, RESTORE: history.as_after}

#: Settings named in the message after a save.
NAMED = 5

MORE_SETTINGS: Any = (_("More settings"), {"fields": [EXTRA], "classes": ["collapse"]})


def _said_after(saved: list[Difference] | bool) -> tuple[str, str]:
    """The message after a save, and its level.

    Args:
        saved: the settings that were saved; or whether something else was.
    """
    if saved is True:
        return gettext("Saved."), "SUCCESS"
    if not saved:
        return gettext("Nothing was changed."), "INFO"
    parts = [difference.summary for difference in saved[:NAMED]]
    if left := len(saved[NAMED:]):
        text = ngettext("%(count)s more setting", "%(count)s more settings", left)
        parts.append(text % {"count": left})
    text = gettext("Saved, and in force: %(changes)s.")
    return text % {"changes": "; ".join(parts)}, "SUCCESS"


def _reason_in(request: HttpRequest) -> str:
    """The reason that was given: one line of text, and no longer than the page allows."""
    line = NOT_IN_A_LINE.sub(" ", request.POST.get(REASON, ""))
    return CONTROL.sub("", line).strip()[:LONGEST_REASON]


def _reason_of(change_to: tuple[ConfigChange, str] | None) -> str:
    """What is proposed as the reason of going back."""
    if change_to is None:
        return ""
    record, way = change_to
    if way == UNDO:
        return gettext("Undoes change %(key)s") % {"key": record.pk}
    return gettext("Back to change %(key)s") % {"key": record.pk}


def _filters(request: HttpRequest) -> tuple[int | None, str]:
    """Before which change, and of which setting, the history is to be shown; nonsense is nothing.

    Numbers of more digits are no keys, and the longest of them Python does not read.
    """
    before, setting = request.GET.get("before", ""), request.GET.get("setting", "")
    is_key = before.isascii() and before.isdigit() and len(before) <= LONGEST_KEY
    is_name = setting.isprintable() and len(setting) <= LONGEST_NAME
    return int(before) if is_key else None, setting if is_name else ""


def _records(model: type[ConfigModel]) -> Any:
    """Every record of ``model``; none where there is no table of them, before ``migrate``."""
    records = history.changes_of(model)
    # Also where it is turned off: there may still be some.
    return records if history.has_table(records.db) else records.none()


class SiteConfigurationAdmin(ConfigAdmin):
    fieldsets = [
        (_("Site"), {"fields": ["site_name", "support_email", "maintenance_mode"]}),
        (_("External service"), {"fields": ["api_key", "timeout", "retry_count"]}),
        (_("Logging"), {"fields": ["log_level"]}),
        MORE_SETTINGS,
    ]


if not SiteConfiguration._meta.swapped:
    admin.site.register(SiteConfiguration, SiteConfigurationAdmin)
