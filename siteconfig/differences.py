"""Changes of settings as people read them: what a setting was, and what it is."""

from __future__ import annotations

import json
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from django.db import models, router, transaction
from django.utils import formats
from django.utils.text import capfirst
from django.utils.translation import gettext, ngettext

from siteconfig.fields import SecretField
from siteconfig.history import Encoder, decoded
from siteconfig.snapshot import EXTRA
from siteconfig.storable import check_storable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from siteconfig.models import ConfigModel

# A value may have a megabyte, and a page has many: what is shown of one is bounded, and so is the
# time to find it.

#: Characters of a value in a summary, of one in a table, of one of its lines, and of a label.
LONGEST, LONGEST_VALUE, LONGEST_LINE, LONGEST_LABEL = 40, 2_000, 300, 255

#: Characters of what is the same, before the first difference of two long values.
BEFORE = 100

#: Characters of JSON that is laid out in lines. Each of them may be indented by hundreds of spaces.
LONGEST_LAID_OUT = 20_000

#: Lines of each side that are compared, in time that grows with the square.
MOST_COMPARED = 300

#: Lines shown in all, of one block that was removed or added, and around it of what is the same.
MOST_LINES, MOST_IN_BLOCK, CONTEXT = 200, 90, 3


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a text of several lines, or a note of some that are left out."""

    mark: str
    """``"added"``, ``"removed"``, ``"same"`` or ``"left out"``."""
    text: str
    count: int = 1
    """The lines for which it stands."""


@dataclass(frozen=True)
class Difference:
    """One setting of a change. Texts are made when they are asked for."""

    name: str
    label: str
    unit: str
    absent: str
    """What to say where ``old`` or ``new`` is None."""
    is_secret: bool
    field: models.Field[Any, Any] | None
    """None: it is no field, or one that is gone."""
    change: Mapping[str, Any]
    """As recorded."""
    objects: Objects

    @property
    def old(self) -> str | None:
        """As people read it, clipped; None: there was nothing, or it is not shown."""
        return self._clipped("old")

    @property
    def new(self) -> str | None:
        return self._clipped("new")

    @property
    def summary(self) -> str:
        """In one short line."""
        if not self._texts:
            return self.label
        old, new = (
            self.absent if side not in self._texts else _in_short(self._texts[side])
            for side in ("old", "new")
        )
        return f"{self.label} {old} → {new}"

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """Where one of the two has several lines, what differs line by line."""
        if not any("\n" in text for text in self._texts.values()):
            return ()
        return _lines(self._texts.get("old", ""), self._texts.get("new", ""))

    @cached_property
    def _texts(self) -> dict[str, str]:
        """``"old"`` and ``"new"`` in full, as far as they may be shown."""
        if self.is_secret:
            return {}  # it may not have been one when it was recorded
        return {side: _text(self.field, value, self.objects) for side, value in self.change.items()}

    def _clipped(self, side: str) -> str | None:
        if side not in self._texts:
            return None
        # Where they begin to differ: long ones would else be shown by beginnings that are the same.
        first = _first_difference(self._texts.get("old", ""), self._texts.get("new", ""))
        return clipped(self._texts[side], LONGEST_VALUE, max(0, first - BEFORE))


def differences(
    model: type[ConfigModel], changes: Mapping[str, Mapping[str, Any]]
) -> list[Difference]:
    """The ``changes`` of a record, or of a form, for people to read."""
    return differences_of_each(model, [changes])[0]


def differences_of_each(
    model: type[ConfigModel], records: Sequence[Mapping[str, Mapping[str, Any]]]
) -> list[list[Difference]]:
    """The changes of each record, with one query for each foreign key in all of them."""
    objects = Objects(records)
    fields = model.setting_fields()
    order = {name: position for position, name in enumerate(fields)}

    def place(name: str) -> tuple[int, str]:
        return order.get(name, len(order)), name

    return [
        [
            _difference(model, objects, fields.get(name), name, one[name])
            for name in sorted(one, key=place)
        ]
        for one in records
    ]


def _difference(
    model: type[ConfigModel],
    objects: Objects,
    field: models.Field[Any, Any] | None,
    name: str,
    change: Mapping[str, Any],
) -> Difference:
    return Difference(
        name=name,
        label=label_of(field, name),
        unit=str(model.units.get(name, "")),
        absent=gettext("not set") if name.startswith(f"{EXTRA}.") else gettext("not on record"),
        is_secret=isinstance(field, SecretField),
        field=field,
        change=change,
        objects=objects,
    )


class Objects:
    """What foreign keys in ``records`` point to, as texts; asked for when the first is needed."""

    def __init__(self, records: Sequence[Mapping[str, Mapping[str, Any]]]) -> None:
        self._records = records
        self._texts: dict[str, dict[Any, str]] = {}

    def text(self, field: models.ForeignKey[Any, Any], key: Any) -> str:
        """Raises KeyError if the object is gone, and anything if this is no key of one."""
        if field.attname not in self._texts:
            self._texts[field.attname] = {}  # should it fail, it is not tried again
            self._texts[field.attname] = self._found(field)
        return self._texts[field.attname][_key(field, key)]

    def _found(self, field: models.ForeignKey[Any, Any]) -> dict[Any, str]:
        changes = [record[field.attname] for record in self._records if field.attname in record]
        keys: set[Any] = set()
        for value in (value for change in changes for value in change.values()):
            with suppress(Exception):  # of a type that the keys no longer have
                keys.add(_key(field, value))
        # Where the settings are, unless a router says otherwise.
        row = field.model()
        row._state.db = router.db_for_write(field.model)
        manager = field.remote_field.model._base_manager.db_manager(hints={"instance": row})
        target = field.target_field.attname
        objects = manager.filter(**{f"{target}__in": keys})
        texts = {}
        # In a savepoint, should there be a transaction, which must not suffer.
        with transaction.atomic(using=objects.db):
            for one in objects:
                with suppress(Exception):  # the project's own code
                    texts[getattr(one, target)] = str(one)
        return texts


def _key(field: models.ForeignKey[Any, Any], value: Any) -> Any:
    """A recorded key as the objects have it. Raises anything if it is none."""
    key = field.target_field.to_python(value)
    check_storable(field, key)
    return key


# Texts


def clipped(text: str, longest: int, start: int = 0) -> str:
    """``text``, or ``longest`` characters of it from ``start`` on and how many there are."""
    if len(text) > longest:
        before = "…" if start else ""
        count = formats.number_format(len(text), use_l10n=True, force_grouping=True)
        after = gettext("… (%(count)s characters)") % {"count": count}
        text = f"{before}{text[start : start + longest]}{after}"
    return text.encode(errors="backslashreplace").decode()  # a page holds no half surrogate pair


def _in_short(text: str) -> str:
    if not text:
        return gettext("empty")
    short = clipped(" ".join(text[: LONGEST * 10].split()), LONGEST * 10)
    is_whole = len(short) <= LONGEST and len(text) <= LONGEST * 10
    return short if is_whole else f"{short[:LONGEST]}…"


def _first_difference(old: str, new: str) -> int:
    sizes = range(min(len(old), len(new)))
    return bisect_left(sizes, True, key=lambda size: old[: size + 1] != new[: size + 1])


# Lines


def _lines(old: str, new: str) -> tuple[Line, ...]:
    runs = list(_runs(old.split("\n"), new.split("\n")))
    last = len(runs) - 1
    lines = [
        line
        for position, (mark, run) in enumerate(runs)
        for line in _shortened(mark, run, is_first=position == 0, is_last=position == last)
    ]
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = [_left_out(sum(line.count for line in lines[MOST_LINES:]))]
    return tuple(lines)


def _shortened(mark: str, run: list[str], *, is_first: bool, is_last: bool) -> list[Line]:
    """The lines of ``run`` that are shown, with a note in the place of the others."""
    if mark == "same":
        head, tail = 0 if is_first else CONTEXT, 0 if is_last else CONTEXT
    else:
        head, tail = MOST_IN_BLOCK, 0
    count = len(run) - head - tail
    if count <= 1:  # a note in the place of one line would save nothing
        return _clipped_lines(mark, run)
    end = _clipped_lines(mark, run[len(run) - tail :])
    return [*_clipped_lines(mark, run[:head]), _left_out(count), *end]


def _clipped_lines(mark: str, run: list[str]) -> list[Line]:
    return [Line(mark, clipped(text, LONGEST_LINE)) for text in run]


def _left_out(count: int) -> Line:
    text = ngettext("… (%(count)s line)", "… (%(count)s lines)", count)
    number = formats.number_format(count, use_l10n=True, force_grouping=True)
    return Line("left out", text % {"count": number}, count)


def _runs(old: list[str], new: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The lines of both by their marks, in order."""
    start = _count_same(old, new)
    same, old, new = old[:start], old[start:], new[start:]
    end = _count_same(old[::-1], new[::-1])
    between = old[: len(old) - end], new[: len(new) - end]
    yield "same", same
    if max(map(len, between)) > MOST_COMPARED:
        yield from zip(("removed", "added"), between, strict=True)
    else:
        for mark, lines in groupby(_compared(*between), key=lambda one: one[0]):
            yield mark, [text for _, text in lines]
    yield "same", old[len(old) - end :]


def _count_same(old: list[str], new: list[str]) -> int:
    """How many lines at the beginning are the same."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(old), len(new)))


def _compared(old: list[str], new: list[str]) -> Iterator[tuple[str, str]]:
    """Every line and its mark, as few as can be of them removed and added.

    Not by difflib, whose time grows with the cube when lines repeat.
    """
    # common[i][j]: how many lines old[i:] and new[j:] can have in common.
    common = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i in reversed(range(len(old))):
        row, below = common[i], common[i + 1]
        for j in reversed(range(len(new))):
            row[j] = below[j + 1] + 1 if old[i] == new[j] else max(below[j], row[j + 1])
    i = j = 0
    while i < len(old) and j < len(new):
        if old[i] == new[j]:
            yield "same", old[i]
            i, j = i + 1, j + 1
        elif common[i + 1][j] >= common[i][j + 1]:
            yield "removed", old[i]
            i += 1
        else:
            yield "added", new[j]
            j += 1
    yield from (("removed", text) for text in old[i:])
    yield from (("added", text) for text in new[j:])


# Values


def label_of(field: models.Field[Any, Any] | None, name: str) -> str:
    """What people call a setting."""
    if field is None:  # no field, or one that is gone
        return clipped(name.removeprefix(f"{EXTRA}."), LONGEST_LABEL)
    return str(capfirst(field.verbose_name))


def shown(field: models.Field[Any, Any] | None, value: Any) -> str:
    """A recorded value as people read it, clipped; empty for nothing."""
    objects = Objects([{field.attname: {"new": value}}] if field else [])
    return clipped(_text(field, value, objects), LONGEST_VALUE)


def _text(field: models.Field[Any, Any] | None, value: Any, objects: Objects) -> str:
    if value is None:
        return ""
    try:
        return _read(field, value, objects)
    except Exception:  # noqa: BLE001 - of a type that the field no longer has, or in its own code
        return _as_recorded(value)


def _read(field: models.Field[Any, Any] | None, value: Any, objects: Objects) -> str:
    """What people call a value of ``field``. Raises anything."""
    if isinstance(field, models.JSONField):
        return _json(value)
    if field is None:
        return _as_recorded(value)
    if field.flatchoices:
        value = dict(field.flatchoices).get(value, value)
        return _as_recorded(value) if isinstance(value, dict | list) else str(value)
    if isinstance(value, bool):
        return gettext("yes") if value else gettext("no")
    if isinstance(field, models.ForeignKey):
        return objects.text(field, value)
    if isinstance(field, models.DateField | models.TimeField):
        return str(formats.localize(decoded(field, value)))
    return _as_recorded(value)


def _as_recorded(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, cls=Encoder)
        if len(text) > LONGEST_LAID_OUT:
            return text
        return json.dumps(value, ensure_ascii=False, cls=Encoder, indent=2)
    except (RecursionError, TypeError, ValueError):  # deeper than Python writes, or not from JSON
        return "…"
