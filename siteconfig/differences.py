"""Changes of settings as people read them: what a setting was, and what it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import ndiff
from typing import TYPE_CHECKING, Any

from django.db import models
from django.utils import formats
from django.utils.text import capfirst
from django.utils.translation import gettext

from siteconfig.fields import SecretField
from siteconfig.history import decoded
from siteconfig.snapshot import EXTRA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from siteconfig.models import ConfigModel

#: How ``ndiff`` marks a line, and what that means.
MARKS = {"+": "added", "-": "removed", " ": "same"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a text of several lines."""

    mark: str
    """``"added"``, ``"removed"`` or ``"same"``."""
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One setting of a change."""

    name: str
    label: str
    unit: str
    old: str | None
    """As people read it; None: there was nothing, or it is not shown."""
    new: str | None
    absent: str
    """What to say where one of them is None."""
    is_secret: bool
    lines: tuple[Line, ...] = ()
    """Where one of the two has several lines, both line by line."""

    @property
    def summary(self) -> str:
        """In one short line."""
        if self.old is None and self.new is None:
            return self.label
        old, new = (self.absent if one is None else _clipped(one) for one in (self.old, self.new))
        return f"{self.label} {old} → {new}"


#: Characters of a value in a line.
LONGEST = 40


def _clipped(text: str) -> str:
    if not text:
        return gettext("empty")
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def differences(
    model: type[ConfigModel], changes: Mapping[str, Mapping[str, Any]]
) -> list[Difference]:
    """The ``changes`` of a record, or of a form, for people to read."""
    fields = model.setting_fields()
    order = {name: position for position, name in enumerate(fields)}
    names = sorted(changes, key=lambda name: (order.get(name, len(order)), name))
    return [_difference(model, fields.get(name), name, changes[name]) for name in names]


def _difference(
    model: type[ConfigModel],
    field: models.Field[Any, Any] | None,
    name: str,
    change: Mapping[str, Any],
) -> Difference:
    old, new = (shown(field, change[side]) if side in change else None for side in ("old", "new"))
    is_long = any(text is not None and "\n" in text for text in (old, new))
    return Difference(
        name=name,
        label=label_of(field, name),
        unit=str(model.units.get(name, "")),
        old=old,
        new=new,
        absent=gettext("not set") if name.startswith(f"{EXTRA}.") else gettext("not on record"),
        is_secret=isinstance(field, SecretField),
        lines=_lines(old or "", new or "") if is_long else (),
    )


def _lines(old: str, new: str) -> tuple[Line, ...]:
    marked = ndiff(old.splitlines(), new.splitlines())
    return tuple(Line(MARKS[line[0]], line[2:]) for line in marked if line[0] in MARKS)


def label_of(field: models.Field[Any, Any] | None, name: str) -> str:
    """What people call a setting."""
    if field is None:
        return name.removeprefix(f"{EXTRA}.")  # no field, or one that is gone
    return str(capfirst(field.verbose_name))


def shown(field: models.Field[Any, Any] | None, value: Any) -> str:
    """A recorded value as text; empty for nothing."""
    if value is None:
        return ""
    if field is None or isinstance(field, models.JSONField):
        text = json.dumps(value, ensure_ascii=False, indent=2)
        return value if isinstance(value, str) and field is None else text
    if field.flatchoices:
        return str(dict(field.flatchoices).get(value, value))
    if isinstance(value, bool):
        return gettext("yes") if value else gettext("no")
    if isinstance(field, models.ForeignKey):
        return _object(field, value)
    if isinstance(field, models.DateField | models.TimeField):
        try:
            return str(formats.localize(decoded(field, value)))
        except Exception:  # noqa: BLE001 - of a type that the field no longer has
            return str(value)
    return str(value)


def _object(field: Any, key: Any) -> str:
    """The object that a foreign key names, if it is still there."""
    objects = field.remote_field.model._base_manager
    found = objects.filter(**{field.target_field.attname: key}).first()
    return str(key) if found is None else str(found)
