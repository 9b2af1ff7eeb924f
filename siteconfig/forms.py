"""ConfigForm: edits the settings of a config model, and knows what its reader saw."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.core.files import File
from django.db import models
from django.utils.functional import cached_property
from django.utils.timesince import timesince
from django.utils.timezone import now
from django.utils.translation import gettext

from siteconfig.differences import Difference, differences, label_of, shown
from siteconfig.fields import ExtraField, SecretField
from siteconfig.history import (
    Entry,
    changes_between,
    digest_of,
    entries,
    hash_of,
    is_same_secret,
    last_changes,
)
from siteconfig.models import as_stored, default_of
from siteconfig.secret import Secret
from siteconfig.snapshot import EXTRA
from siteconfig.storable import check_given, check_storable
from siteconfig.widgets import Given

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from siteconfig.history import Origin, Proposal
    from siteconfig.models import ConfigModel
    from siteconfig.pins import Pin

    ConfigModelForm = forms.ModelForm[ConfigModel]
else:
    ConfigModelForm = forms.ModelForm

#: What the page sends beside the settings. No setting has such a name: they begin with no "_".
SEEN, REASON, PREVIEW = "_seen", "_reason", "_preview"
RESET, CHOICE, PENDING, DROP = "_reset-", "_conflict-", "_pending", "_drop-"

#: In place of a digest: of what is given now, and stored nowhere.
NEW = "new"

#: What is sent to let the other's value be. To put one's own in its place the digest of theirs is
#: sent, so that it is that value which is replaced, and no third one.
THEIRS = "theirs"


class ConfigBoundField(forms.BoundField):
    """Shows again what was given, whatever it is."""

    def value(self) -> Any:
        try:
            shown = super().value()
        except (ValueError, RecursionError):  # JSON that Python does not read
            shown = self.data
        return list(map(displayable, shown)) if isinstance(shown, list) else displayable(shown)

    def _has_changed(self) -> bool:
        try:
            return bool(super()._has_changed())  # type: ignore[misc] # missing in the stubs
        except (ValueError, ArithmeticError, RecursionError):
            return True


def displayable(value: Any) -> Any:
    """``value`` without half surrogate pairs, which no page can hold; JSON has them like this."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    return value


@dataclass(frozen=True, slots=True)
class Conflict:
    """A setting that somebody else has changed since the page was made."""

    difference: Difference
    """From their value to one's own."""
    origin: Origin | None
    """Who they are, if that is recorded."""
    choice_name: str
    mine: str
    theirs: str = THEIRS


class ConfigForm(ConfigModelForm):
    """The form of a config model.

    It takes what every database stores, and refuses all else. Of what it is given it keeps what its
    reader has changed; what others have changed meanwhile stays theirs. Where both have changed the
    same setting, the reader is asked.

    Attributes:
        proposal: values to begin with in place of the stored ones.
        refusal: why the database has refused what was given.
        changes: what would be saved, as a record of the history has it.
        edited: the fields that the reader has changed.
        conflicts: by setting, where the reader is to choose.
        row: what is stored. If it is to be saved what ``locked_row()`` has read, in the same
            transaction: what somebody else saves in between would else go unnoticed.
    """

    bound_field_class = ConfigBoundField
    proposal: ClassVar[Proposal | None] = None
    refusal: ClassVar[str | None] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.changes: dict[str, dict[str, Any]] = {}
        self.edited: set[str] = set()
        self.conflicts: dict[str, Conflict] = {}
        self.model: type[ConfigModel] = self._meta.model
        self.row = self.instance.read_as()
        # Fields that were given otherwise than by their inputs, and settings to be written anyhow.
        self._given: set[str] = set()
        self._forced: set[str] = set()
        for setting in self.model._meta.concrete_fields:
            if setting.name in self.fields:
                field = self.fields[setting.name]
                # The field is this form's own copy.
                field.clean = partial(cleaned, setting, field.clean)  # type: ignore[method-assign]
        if self.proposal is not None and not self.is_bound:
            self._propose(self.proposal)

    @property
    def is_preview(self) -> bool:
        """The reader wants to see what would be saved."""
        return PREVIEW in self.data

    def is_valid(self) -> bool:
        return super().is_valid() and not self.is_preview

    @property
    def seen(self) -> str:
        """What the page is to send back as ``SEEN``, to tell later what its reader has touched.

        Digests of each setting as it is stored, and of what a browser sends of it untouched.
        """
        if self.is_bound and SEEN in self.data:
            return str(self.data[SEEN])
        stored = self._entries({name: self.row[name] for name in self._settings()})
        proposed = self.proposal.values if self.proposal else {}
        sent = {
            field.name: hash_of_sent(shown_as_sent(self[field.name]))
            for name, field in self._settings().items()
            if name not in proposed  # which the reader is to save
        }
        return json.dumps([{name: one.digest for name, one in stored.items()}, sent])

    def _propose(self, proposal: Proposal) -> None:
        """Show these values in place of the stored ones, as what might be saved."""
        settings = self._settings()
        values = {name: value for name, value in proposal.values.items() if name in settings}
        for name, value in values.items():
            setattr(self.instance, name, value)
        self.initial = forms.model_to_dict(self.instance, list(self.fields))
        stored = self._entries({name: self.row[name] for name in values})
        self.changes = changes_between(stored, self._entries(values))

    def left_out(self) -> list[str]:
        """The settings of the proposal that are left as they are: not known, or not for here."""
        if self.proposal is None:
            return []
        return [*self.proposal.lost, *sorted(self.proposal.values.keys() - self._settings().keys())]

    def differences(self) -> list[Difference]:
        """What would be saved, for people to read."""
        return differences(self.model, self.changes)

    def clean(self) -> Any:
        if self.refusal is not None:
            message = gettext("The database refuses this: %(problem)s")
            self.add_error(
                None, ValidationError(message, code="database", params={"problem": self.refusal})
            )
        return super().clean()

    def _settings(self) -> dict[str, models.Field[Any, Any]]:
        """The settings that can be edited here, by the names of their attributes."""
        fields = self.model.setting_fields().items()
        return {name: field for name, field in fields if field.name in self.fields}

    def _entries(self, values: Mapping[str, Any]) -> dict[str, Entry]:
        return entries(self.model, values)

    # Cleaning

    def _clean_fields(self) -> None:
        super()._clean_fields()  # type: ignore[misc] # missing in the stubs
        self._bring_files_back()
        self._reset()
        self._merge()
        self._ask_again()

    def _post_clean(self) -> None:
        # Django leaves a field as it is that was not sent and is to be empty now, by a reset.
        for field in self._settings().values():
            if field.name in self.edited and not isinstance(field, models.FileField):
                field.save_form_data(self.instance, self.cleaned_data.get(field.name))
        super()._post_clean()  # type: ignore[misc] # missing in the stubs
        self._compare()

    def _compare(self) -> None:
        """Find out what would be saved: also what ``clean()`` of the form or the model has set."""
        fields = self.model.setting_fields()
        held = self.instance.__dict__
        values = {
            name: as_stored(field, plain(field, held[name])) for name, field in fields.items()
        }
        mine, theirs = self._entries(values), self._entries(self.row)
        new = {
            name for name in fields if is_new(held[name], self.row[name]) or name in self._forced
        }
        kept = {name for name in fields if is_same_secret(self.row[name], held[name])}
        names = new | changes_between(theirs, mine).keys()
        self.changes = changes_between(theirs, mine, sorted(names - kept))

    def _bring_files_back(self) -> None:
        """Take proposed files, which no browser can send, unless there is an upload."""
        values = self.proposal.values if self.proposal else {}
        for name, field in self._settings().items():
            if isinstance(field, models.FileField) and name in values:
                given = self.cleaned_data.get(field.name)
                if given is not False and not is_new_file(given):
                    self.cleaned_data[field.name] = values[name] or False  # which clears it
                    self._given.add(field.name)

    def _reset(self) -> None:
        """Put the defaults in the place of what was given, where a box says so."""
        for name, field in self._settings().items():
            if RESET + field.name in self.data:
                self.errors.pop(field.name, None)
                self.cleaned_data[field.name] = default_object(field)
                self._given.add(field.name)
                if name in self.row._unreadable:
                    self._forced.add(name)  # to be replaced, whatever is stored

    def _ask_again(self) -> None:
        """Refuse to lose a secret or a file that was given to a page which cannot send it again."""
        for name in self._asked_for():
            if not self._is_touched(name):
                message = gettext("Give it again, or tick the box to leave it as it is.")
                self.add_error(name, ValidationError(message, code="again"))

    def _asked_for(self) -> list[str]:
        sent = self.data.getlist(PENDING) if hasattr(self.data, "getlist") else ()
        return [name for name in sent if name in self.fields and DROP + name not in self.data]

    @property
    def pending(self) -> set[str]:
        """The fields of which the page cannot send what was given once more."""
        if not self.is_bound:
            return set()
        kinds = models.FileField | SecretField
        fields = [one for one in self._settings().values() if isinstance(one, kinds)]
        touched = {one.name for one in fields if self._is_touched(one.name) and self._holds(one)}
        return touched | set(self._asked_for())

    def _holds(self, field: models.Field[Any, Any]) -> bool:
        """Whether something was given, and not only a box ticked."""
        data = self[field.name].data
        return bool(data.text if isinstance(data, Given) else data)

    def _is_touched(self, name: str) -> bool:
        """Whether a field is not as a browser sends it that has only shown it."""
        bound = self[name]
        if bound.field.disabled:
            return False
        if isinstance(bound.data, Given):
            return bool(bound.data.text) or bound.data.is_cleared
        if isinstance(bound.field.widget, forms.FileInput):
            return bool(bound.data) or bound.data is False
        seen = self._seen[1].get(name) or hash_of_sent(shown_as_sent(bound))
        return name in self._given or hash_of_sent(as_sent(bound.field.widget, bound.data)) != seen

    def _merge(self) -> None:
        """Let be what the reader has not touched; where somebody else has changed it, too, ask."""
        given: dict[str, Any] = {}
        for name, field in self._settings().items():
            if not (field.name in self._given or self._is_touched(field.name)):
                self._leave(name, field)
            elif field.name in self.cleaned_data:
                value = plain(field, self.cleaned_data[field.name])
                given[name] = as_stored(field, value)
        stored = {name: self.row[name] for name in given}
        mine, theirs = self._entries(given), self._entries(stored)
        extra = dict(given.get(EXTRA) or {})
        for name in sorted(mine.keys() | theirs.keys()):
            if self._is_mine(name, mine, theirs, stored):
                self.edited.add(self._field_of(name))
            elif name in given:
                self._leave(name, self.model.setting_fields()[name])
            elif name in theirs:
                extra[name.removeprefix(f"{EXTRA}.")] = theirs[name].shown["value"]
            else:
                del extra[name.removeprefix(f"{EXTRA}.")]
        if EXTRA in given:
            self.cleaned_data[EXTRA] = extra

    def _is_mine(
        self,
        name: str,
        mine: Mapping[str, Entry],
        theirs: Mapping[str, Entry],
        stored: Mapping[str, Any],
    ) -> bool:
        """Whether the reader's own value is to be saved."""
        my, their = digest_of(mine, name), digest_of(theirs, name)
        # Without SEEN, from a script, what is stored now is taken for what was seen.
        was = self._seen[0].get(name) if self._seen[0] else their
        if name in stored and is_new(self.cleaned_data.get(self._field_of(name)), stored[name]):
            my = NEW
        if name in self._forced:
            return True
        if my in {their, was}:
            return False
        return their == was or self._choose(name, theirs, mine)

    def _leave(self, name: str, field: models.Field[Any, Any]) -> None:
        """Leave a setting as it is stored, whatever was made of what was sent."""
        if not self.conflicts.get(name):
            self.errors.pop(field.name, None)
        sent = self.cleaned_data.get(field.name)
        if not isinstance(sent, models.Model) or plain(field, sent) != self.row[name]:
            self.cleaned_data[field.name] = getattr(self.instance, field.name)

    def _field_of(self, name: str) -> str:
        key = EXTRA if name.startswith(f"{EXTRA}.") else name
        return self.model.setting_fields()[key].name

    @cached_property
    def _seen(self) -> tuple[dict[str, str], dict[str, str]]:
        """What was sent as ``SEEN``; two empty ones if nothing was, or nonsense."""
        try:
            stored, sent = json.loads(self.data.get(SEEN, ""))
            if all(isinstance(one, str) for part in (stored, sent) for one in part.values()):
                return stored, sent
        except (ValueError, TypeError, AttributeError, RecursionError):
            pass
        return {}, {}

    def _choose(self, name: str, theirs: Mapping[str, Entry], mine: Mapping[str, Entry]) -> bool:
        """Whether the reader's own value is to replace one that somebody else has set meanwhile."""
        choice, their = str(self.data.get(CHOICE + name)), digest_of(theirs, name) or "none"
        if choice in {THEIRS, their}:
            return choice == their
        change = changes_between(theirs, mine, [name])[name]
        (difference,) = differences(self.model, {name: change})
        origin = last_changes(self.model, self.instance._state.db).get(name)
        self.conflicts[name] = Conflict(difference, origin, CHOICE + name, their)
        self.add_error(
            self._field_of(name), ValidationError(self._said(difference, origin), code="conflict")
        )
        return False

    def _said(self, difference: Difference, origin: Origin | None) -> str:
        who = origin.who if origin and origin.who else gettext("Somebody")
        return gettext(
            "%(who)s has changed %(setting)s while you were editing. Choose below what is to be."
        ) % {"who": who, "setting": difference.label}


def plain(field: models.Field[Any, Any], value: Any) -> Any:
    """What a form field gives, as the settings have it: ids and names of files."""
    if isinstance(field, models.FileField):
        return str(getattr(value, "name", value) or "")
    if isinstance(field, models.ForeignKey) and isinstance(value, models.Model):
        return getattr(value, field.target_field.attname)
    return value


def shown_as_sent(bound: forms.BoundField) -> Any:
    """What a browser sends of a field that it has only shown."""
    shown = bound.field.prepare_value(bound.initial)
    return as_sent(bound.field.widget, shown, is_shown=True)


#: The kinds of inputs from which a browser takes outer spaces.
TRIMMED = {"email", "number", "url"}


def as_sent(widget: forms.Widget, value: Any, *, is_shown: bool = False) -> Any:
    """What is sent of ``value``, as texts, whose lines end as they do here.

    Args:
        widget: what shows it.
        value: what was sent; or, if ``is_shown``, what the widget is given to show.
    """
    if isinstance(widget, forms.MultiWidget):
        parts = value if isinstance(value, list | tuple) else widget.decompress(value) or ()
        pairs = zip(widget.widgets, parts, strict=False)
        return [as_sent(one, part, is_shown=is_shown) for one, part in pairs]
    if isinstance(widget, forms.CheckboxInput):
        return bool(widget.check_test(value))
    found = widget.format_value(value)
    if isinstance(found, list | tuple):
        return [str(one) for one in found if one not in ("", None)]
    text = ("" if found is None else str(found)).replace("\r\n", "\n").replace("\r", "\n")
    if is_shown and not isinstance(widget, forms.Textarea):
        text = text.replace("\n", "")  # an input has one line
        text = text.strip() if getattr(widget, "input_type", "") in TRIMMED else text
    return text


def hash_of_sent(sent: Any) -> str:
    """A short name of what is sent."""
    if isinstance(sent, list) and len(sent) < 2:
        sent = sent[0] if sent else ""  # one choice of a list, or none
    return hash_of(json.dumps(sent))


def is_new(value: Any, stored: Any) -> bool:
    """Whether a form field gives what no digest could tell from what is stored."""
    if isinstance(value, Secret):
        is_kept = value is stored or is_same_secret(value, stored)
        return not is_kept and bool(value)
    return is_new_file(value)


def is_new_file(value: Any) -> bool:
    """An upload; its name may be that of the file before it."""
    return isinstance(value, File) and not getattr(value, "_committed", False)


def default_object(field: models.Field[Any, Any]) -> Any:
    """The default of a setting, as its form field would give it."""
    value = default_of(field)
    if isinstance(field, models.ForeignKey) and value is not None:
        objects = field.related_model._base_manager
        return objects.filter(**{field.target_field.attname: value}).first()
    if isinstance(field, models.FileField):
        return value or False  # which clears it
    return value


def cleaned(
    setting: models.Field[Any, Any], clean: Callable[..., Any], given: Any, *initial: Any
) -> Any:
    """What ``clean`` of a form field makes of what was given for ``setting``.

    Raises:
        ValidationError: the field does not accept it, or not every database would store it.
    """
    # A date and its time of day come as two.
    for part in given if isinstance(given, list) else [given]:
        if isinstance(part, str):
            check_given(setting, part)
    try:
        value = clean(given, *initial)
    except (ValueError, ArithmeticError, RecursionError) as error:
        # A number or a nesting without end.
        raise ValidationError(gettext("This is no valid value."), code="invalid") from error
    # Of a file nothing stands for the one there is, and False for none any more.
    is_no_upload = isinstance(setting, models.FileField) and not value
    if not is_no_upload and not isinstance(value, models.Model):
        check_storable(setting, value)
    return value


# What the page tells of each setting


@dataclass(frozen=True, slots=True)
class About:
    """One setting, as the page describes it."""

    name: str
    label: str
    unit: str
    default: str
    """As people read it; empty for nothing."""
    is_default: bool
    is_changed: bool
    """It is among what would be saved."""
    is_unreadable: bool
    """Its field cannot read what is stored."""
    reset_name: str | None
    """Of the box that puts the default back; None: there is none."""
    is_reset: bool
    is_pending: bool
    """What was given is not in the page any more."""
    last_change: str
    """Who changed it last, and when; empty: nobody, or the reader is not to know."""
    conflicts: list[Conflict]
    pin: Pin | None
    """What fixes it in this deployment."""
    stored: str
    """What the pin hides, as people read it; of a secret nothing."""


def about(
    form: ConfigForm, origins: Mapping[str, Origin], pins: Mapping[str, Pin]
) -> dict[str, About]:
    """What the page tells of each setting, by the name of its field.

    Args:
        form: the page's.
        origins: who changed each setting last, as far as the reader is to know.
        pins: what is pinned.
    """
    model, fields = form.model, form.model.setting_fields()
    defaults = entries(model, {name: default_of(field) for name, field in fields.items()})
    stored = entries(model, form.row)
    conflicts = [(name.partition(".")[0], one) for name, one in form.conflicts.items()]
    changed = {name.partition(".")[0] for name in form.changes}
    pending = form.pending
    extra = {name for name in stored if name.startswith(f"{EXTRA}.")}
    return {
        field.name: About(
            name=name,
            label=label_of(field, name),
            unit=str(model.units.get(name, "")),
            default=_shown(field, defaults.get(name)),
            is_default=not extra
            if name == EXTRA
            else digest_of(defaults, name) == digest_of(stored, name),
            is_changed=name in changed,
            is_unreadable=name in form.row._unreadable,
            reset_name=RESET + field.name if _can_be_reset(form, field) else None,
            is_reset=RESET + field.name in form.data,
            is_pending=field.name in pending,
            last_change=_said_of(origins[name]) if name in origins else "",
            conflicts=[one for setting, one in conflicts if setting == name],
            pin=pins.get(name),
            stored=_shown(field, stored.get(name)) if name in pins else "",
        )
        for name, field in fields.items()
    }


def _can_be_reset(form: ConfigForm, field: models.Field[Any, Any]) -> bool:
    # A secret has a box of its own, to clear it; of what is no field there is no default.
    return field.name in form.fields and not isinstance(field, SecretField | ExtraField)


def _said_of(origin: Origin) -> str:
    said = {"who": origin.by, "age": timesince(origin.at, depth=1)}
    if now() - origin.at < timedelta(minutes=1):
        return gettext("by %(who)s, just now") % said
    return gettext("by %(who)s, %(age)s ago") % said


def _shown(field: models.Field[Any, Any], entry: Entry | None) -> str:
    return shown(field, entry.shown.get("value")) if entry else ""
