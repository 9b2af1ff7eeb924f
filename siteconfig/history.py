"""The history: which setting was changed from what to what, when, by whom, and how.

Each write that goes through Django adds a ``ConfigChange`` in its own transaction. A record also
holds a digest of every setting as it was then: what differs from it later, and has no record, was
changed past Django. Whoever notices that, the next writer or a watcher, adds a record of it.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections import deque
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from weakref import WeakKeyDictionary

from django.apps import apps
from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connections, models, router, transaction
from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _

from siteconfig.conf import conf
from siteconfig.connections import orm_refuses, read_outside
from siteconfig.exceptions import AppendOnlyError
from siteconfig.fields import SecretField
from siteconfig.secret import Secret
from siteconfig.snapshot import EXTRA, same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from django.db.backends.base.base import BaseDatabaseWrapper

    from siteconfig.models import ConfigChange, ConfigModel
    from siteconfig.snapshot import Snapshot


class How(TextChoices):
    """By which way a change was made."""

    ADMIN = "admin", _("admin")
    CODE = "code", _("code")
    COMMAND = "command", _("command")
    FIXTURE = "fixture", _("fixture")
    OUTSIDE = "outside", _("outside")


log = logging.getLogger("siteconfig.history")

#: Characters of a user's name, or key, that are kept.
NAME_LENGTH = 255


# Who


@dataclass(frozen=True, slots=True)
class Attribution:
    """To whom, and to what, the writes of a block are put down."""

    user: Any = None
    """A user, a function that gives one, or None."""
    how: str = How.CODE
    reason: str = ""

    def who(self) -> tuple[str, str]:
        """The user's name and key, both as text and both empty for nobody."""
        try:
            user = self.user() if callable(self.user) else self.user
            if user is None or not getattr(user, "is_authenticated", False):
                return "", ""
            return str(user.get_username())[:NAME_LENGTH], str(user.pk)[:NAME_LENGTH]
        except Exception:
            log.exception("Who changes settings cannot be told")  # they are changed all the same
            return "", ""


_attribution: ContextVar[Attribution] = ContextVar(
    "siteconfig_attribution",
    default=Attribution(),  # noqa: B039 - it cannot change
)


@contextmanager
def attributed_to(
    user: Any = None, *, reason: str | None = None, how: str | None = None
) -> Iterator[None]:
    """Put the writes in this block, also an async one, down to ``user`` in the history.

    What is not given is as in the block around it.

    Args:
        user: a user, or a function without arguments that gives one when a write is recorded.
        reason: why the writes are made, for people to read.
        how: one of ``How``; only for code that is itself a way of editing settings.

    Raises:
        ValueError: ``how`` is none of them.
    """
    if how is not None and how not in How.values:
        raise ValueError(f"how is {how!r}; it must be one of {', '.join(How.values)}.")
    given = {"user": user, "reason": reason, "how": how}
    given = {name: value for name, value in given.items() if value is not None}
    token = _attribution.set(replace(_attribution.get(), **given))
    try:
        yield
    finally:
        _attribution.reset(token)


# What a record says of each setting


class Entry(NamedTuple):
    """A setting at one moment, as records have it."""

    shown: dict[str, Any]
    """``{"value": …}``, in JSON; empty for what a record does not show: a secret, or what its
    field could not read."""
    digest: str
    """A short name of what is stored."""


def entries(
    model: type[ConfigModel], values: Mapping[str, Any], unreadable: Mapping[str, Any] | None = None
) -> dict[str, Entry]:
    """Every setting in ``values``; one that is no field is called ``"extra.its_name"``.

    Not what notes the time of each save by itself.

    Args:
        model: the config model.
        values: by the settings' own names, as a Snapshot has them.
        unreadable: what is stored of those settings that their fields cannot read.
    """
    unreadable = unreadable or {}
    # Only to ask the fields; its __init__ may be the project's, and may open files.
    row = model.__new__(model)
    row.__dict__.update(values)
    found: dict[str, Entry] = {}
    for name, field in model.setting_fields().items():
        if name not in values or getattr(field, "auto_now", False):
            continue
        if isinstance(field, SecretField):
            found[name] = Entry({}, _digest_of_secret(values[name]))
        elif name in unreadable:
            found[name] = Entry({}, _digest(field, repr(unreadable[name])))
        elif name == EXTRA:
            for key, value in values[name].items():
                found[f"{EXTRA}.{key}"] = Entry({"value": in_json(value)}, _digest(field, value))
        else:
            value = in_json(encoded(field, row))
            found[name] = Entry({"value": value}, _digest(field, value))
    return found


def in_json(value: Any) -> Any:
    """``value``, or its text where it is no JSON for a database: raw SQL may store infinities."""
    try:
        json.dumps(value, allow_nan=False, cls=Encoder)
    except ValueError:
        return json.dumps(value, cls=Encoder)
    return value


def entries_of(model: type[ConfigModel], snapshot: Snapshot) -> dict[str, Entry]:
    """Every setting as it is stored."""
    columns = [field.attname for field in model._meta.concrete_fields]
    stored = dict(zip(columns, snapshot._stored or (), strict=False))
    unreadable = {name: stored.get(name) for name in snapshot._unreadable}
    return entries(model, snapshot, unreadable)


def encoded(field: models.Field[Any, Any], row: models.Model) -> Any:
    """The value of ``field`` in ``row`` as JSON, of which ``field.to_python`` makes it again."""
    value = row.__dict__[field.attname]  # a file's descriptor would give no name
    if value is None or isinstance(field, models.JSONField):
        return value
    if isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value)):
        return value
    return field.value_to_string(row)


def decoded(field: models.Field[Any, Any], value: Any) -> Any:
    """The other way round."""
    if value is None or isinstance(field, models.JSONField):
        return value
    return field.to_python(value)


class Encoder(DjangoJSONEncoder):
    """Writes a text for what JSON does not know: a record must not fail the write."""

    def default(self, o: Any) -> Any:
        try:
            return super().default(o)
        except TypeError:
            return str(o)


#: Characters at the beginning of a digest that tell the kind of the field. A field that becomes one
#: of another kind, in a new release, has not been changed by anybody.
KIND = 2


def _digest(field: models.Field[Any, Any], value: Any) -> str:
    kind = f"{field.get_internal_type()} {getattr(field, 'decimal_places', '')}"
    # Sorted: PostgreSQL keeps no order of keys.
    text = json.dumps(value, sort_keys=True, cls=Encoder)
    return hash_of(kind)[:KIND] + hash_of(text)


def hash_of(text: str) -> str:
    """A short name of a text."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def _digest_of_secret(secret: Secret | None) -> str:
    """Of what is stored, which tells nothing of the secret; of a plain text that would."""
    if secret is None or secret.stored is None or secret.is_stored_in_plain:
        return "secret: set" if secret else "secret: not set"
    return "se" + hash_of(repr(secret.stored))


# Recording

#: What the row said before each write that is under way, by connection and model.
_before: WeakKeyDictionary[BaseDatabaseWrapper, dict[type[ConfigModel], deque[Snapshot]]]
_before = WeakKeyDictionary()

#: What was read of a row when it was locked, and in which transaction; by connection and model.
_locked: WeakKeyDictionary[BaseDatabaseWrapper, dict[type[ConfigModel], tuple[Snapshot, Any]]]
_locked = WeakKeyDictionary()

#: How many writes may be nested, in receivers that write themselves; more are writes that failed.
DEEPEST = 8


def note_locked(model: type[ConfigModel], using: str, snapshot: Snapshot) -> None:
    """The row was locked and read: it says so until this transaction writes it."""
    connection = connections[using]
    _locked.setdefault(connection, {})[model] = snapshot, connection.atomic_blocks[0]


def begin(model: type[ConfigModel], using: str, row: ConfigModel | None) -> None:
    """A write is about to be made, of the instance ``row`` if of one.

    The row is locked before it is read: of two writers the second is to find what the first left.
    """
    connection = connections[using]
    snapshot, block = _locked.get(connection, {}).pop(model, (None, None))
    is_known = row is not None and row._read is snapshot and block in connection.atomic_blocks[:1]
    before = snapshot if is_known and snapshot else model.read_locked(using)
    writes = _before.setdefault(connection, {}).setdefault(model, deque(maxlen=DEEPEST))
    writes.append(before)


def end(model: type[ConfigModel], using: str, *, is_raw: bool) -> None:
    """The write that began last has been made."""
    connection = connections[using]
    _locked.get(connection, {}).pop(model, None)
    if writes := _before.get(connection, {}).get(model):
        before = writes.pop()
        after = model.read(connection, before)
        record(model, using, before, after, is_raw=is_raw)
        # Those around it, of receivers that write, go on from here.
        for position in range(len(writes)):
            writes[position] = after


def refuse_another(record: ConfigChange, *, using: str, **kwargs: Any) -> None:
    """See to it that ``record``, of a fixture, replaces none that says something else.

    Raises:
        AppendOnlyError: it would.
    """
    there = change_model()._default_manager.using(using).filter(pk=record.pk).first()
    # But for its time, of which a fixture keeps the milliseconds.
    fields = [field.attname for field in record._meta.concrete_fields if field.name != "at"]
    if there is not None and any(getattr(there, name) != getattr(record, name) for name in fields):
        raise AppendOnlyError


def change_model() -> type[ConfigChange]:
    model: type[ConfigChange] = apps.get_model("siteconfig.ConfigChange")
    return model


#: The databases, by alias and name, that are known to have the table.
_have_table: set[tuple[str, str]] = set()


def is_kept(using: str) -> bool:
    """Whether changes are recorded in the database ``using``: not before its ``migrate``."""
    return conf.HISTORY and has_table(using)


def has_table(using: str) -> bool:
    """Whether there may be records in the database ``using``."""
    connection = connections[using]
    key = (using, str(connection.settings_dict["NAME"]))
    if key not in _have_table:
        if change_model()._meta.db_table not in connection.introspection.table_names():
            return False
        _have_table.add(key)
    return True


def newest(model: type[ConfigModel], using: str) -> ConfigChange | None:
    """The last record of ``model``, of which the changes, which may be long, are not loaded."""
    last: ConfigChange | None = changes_of(model, using).defer("changes").first()
    return last


def changes_of(model: type[ConfigModel], using: str | None = None) -> Any:
    """Every record of ``model``, the newest first."""
    records = change_model()._default_manager.using(using or router.db_for_write(model))
    return records.filter(model=label_of(model)).order_by("-pk")


def label_of(model: type[ConfigModel]) -> str:
    """What records call ``model``: a proxy's row is that of its model."""
    label: str = cast("Any", model._meta.concrete_model)._meta.label
    return label


def record(
    model: type[ConfigModel], using: str, before: Snapshot, after: Snapshot, *, is_raw: bool = False
) -> None:
    """Note what a write through Django has made of the settings, in its transaction.

    Args:
        model: the config model.
        using: the alias of the database.
        before: what the row said just before the write.
        after: what it says now.
        is_raw: it was a fixture that was loaded.
    """
    now_stored = entries_of(model, after)
    changed = {
        name: change
        for name, change in changes_between(entries_of(model, before), now_stored).items()
        if not is_same_secret(before.get(name), after.get(name))
    }
    last = record_outside(model, using, before)
    # Also what is no change, if it would else be taken for one later: a secret sealed anew.
    recorded = _recorded(model, last, None)
    if not changed and (recorded is None or not _differing(recorded, now_stored)):
        return
    attribution = _attribution.get()
    how = How.FIXTURE if is_raw and attribution.how == How.CODE else attribution.how
    who, who_key = attribution.who()
    change_model()._default_manager.using(using).create(
        model=label_of(model),
        who=who,
        who_key=who_key,
        how=how,
        reason=attribution.reason,
        version=after.version,
        changes=changed,
        state=_state(now_stored, last, changed),
    )


def record_outside(
    model: type[ConfigModel], using: str, row: Snapshot, known: Snapshot | None = None
) -> ConfigChange | None:
    """Note in what ``row`` differs from what is recorded; the last record there is then.

    Args:
        model: the config model.
        using: the alias of the database.
        row: what the row says now.
        known: what it said before, as far as this process knows.
    """
    last = newest(model, using)
    recorded = _recorded(model, last, known)
    stored = entries_of(model, row)
    names = [] if recorded is None else _differing(recorded, stored)
    if recorded is None or not names:
        return last
    earlier = {} if known is None else entries_of(model, known)
    old = {} if last is None else _recorded_values(last, names, using)
    for name in names:
        if name in earlier and earlier[name].digest == recorded.get(name):
            old.setdefault(name, earlier[name].shown)
    changed = {name: old_to_new(old.get(name, {}), stored.get(name)) for name in names}
    created: ConfigChange = (
        change_model()
        ._default_manager.using(using)
        .create(
            model=label_of(model),
            how=How.OUTSIDE,
            version=row.version,
            changes=changed,
            state=_state(stored, last, changed),
        )
    )
    return created


def changes_between(
    old: Mapping[str, Entry], new: Mapping[str, Entry], names: Iterable[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Name → ``{"old": …, "new": …}`` of each setting that differs, or of these ``names``.

    Each side is left out where there was nothing, or nothing that may be shown.
    """
    if names is None:
        every = sorted(old.keys() | new.keys())
        names = [name for name in every if digest_of(old, name) != digest_of(new, name)]
    return {
        name: old_to_new(old[name].shown if name in old else {}, new.get(name)) for name in names
    }


def digest_of(found: Mapping[str, Entry], name: str) -> str | None:
    return found[name].digest if name in found else None


def is_same_secret(old: Any, new: Any) -> bool:
    """Sealed anew, perhaps, and still the same text."""
    return (
        isinstance(old, Secret)
        and isinstance(new, Secret)
        and not (old.is_unreadable or new.is_unreadable)
        and same(old, new)
    )


def old_to_new(old: Mapping[str, Any], new: Entry | None) -> dict[str, Any]:
    change = {"old": old["value"]} if "value" in old else {}
    if new is not None and "value" in new.shown:
        change["new"] = new.shown["value"]
    return change


def _differing(recorded: Mapping[str, str], stored: Mapping[str, Entry]) -> list[str]:
    """The settings that are not as recorded. Not a field that has come or gone since."""
    names = recorded.keys() & stored.keys()
    names |= {name for name in recorded.keys() ^ stored.keys() if name.startswith(f"{EXTRA}.")}
    return sorted(
        name
        for name in names
        if name not in recorded
        or name not in stored
        or _differs(recorded[name], stored[name].digest)
    )


def _differs(recorded: str | None, stored: str | None) -> bool:
    if recorded is None or stored is None:
        return recorded != stored
    return recorded != stored and recorded[:KIND] == stored[:KIND]


# A record's ``state``: name → [digest, the key of the record that changed it last; 0: this one;
# None: there is none].


def _state(
    stored: Mapping[str, Entry], last: ConfigChange | None, changed: Mapping[str, Any]
) -> dict[str, list[Any]]:
    origins = {} if last is None else origins_of(last)
    # Fields that this release does not know, or no more, are left as another one has noted them.
    unknown = {
        name: [digest, origins[name]]
        for name, (digest, _) in (last.state if last else {}).items()
        if name not in stored and not name.startswith(f"{EXTRA}.")
    }
    return unknown | {
        name: [entry.digest, 0 if name in changed else origins.get(name)]
        for name, entry in stored.items()
    }


def origins_of(record: ConfigChange) -> dict[str, int | None]:
    """Name → the key of the record that changed the setting last, as of ``record``."""
    state: dict[str, list[Any]] = record.state
    return {name: record.pk if origin == 0 else origin for name, (_, origin) in state.items()}


def _recorded_values(last: ConfigChange, names: list[str], using: str) -> dict[str, Any]:
    """Name → ``{"value": …}`` of the settings whose recorded value is on record."""
    origins = origins_of(last)
    keys = {key for name in names if (key := origins.get(name)) is not None}
    found = change_model()._default_manager.using(using).in_bulk(keys)
    values: dict[str, Any] = {}
    for name in names:
        origin = found.get(origins.get(name) or 0)
        if origin is not None and "new" in origin.changes.get(name, {}):
            values[name] = {"value": origin.changes[name]["new"]}
    return values


#: Milliseconds to wait for a lock on the row, in the watcher's thread: it has other work.
LOCK_TIMEOUT = 500


def notice(model: type[ConfigModel], using: str, held: Snapshot, known: Snapshot) -> None:
    """Record what has been changed past Django, unless somebody has done so. For the watcher.

    Args:
        model: the config model.
        using: the alias of the database.
        held: what the row says, as this process has it.
        known: what it said before.

    Raises:
        django.db.Error: it cannot be now.
    """
    if not is_kept(using):
        return
    # The one query that is made of most changes, which are recorded as they should be.
    recorded = _recorded(model, newest(model, using), known)
    if recorded is None or not _differing(recorded, entries_of(model, held)):
        return
    connection = connections[using]
    with transaction.atomic(using=using):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
        # Of all the processes that have noticed it, the first records it.
        if not model._lock_row(using) and connection.vendor == "postgresql":
            with connection.cursor() as cursor:  # there is no row to lock
                key = zlib.crc32(label_of(model).encode())
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key])
        record_outside(model, using, model.read(connection), known)


def _recorded(
    model: type[ConfigModel], last: ConfigChange | None, known: Snapshot | None
) -> dict[str, str] | None:
    """The digests of all settings as they should be; None: nothing tells."""
    if last is not None:
        return {name: digest for name, (digest, _) in last.state.items()}
    if known is not None:
        return {name: entry.digest for name, entry in entries_of(model, known).items()}
    return None


# Asking


@dataclass(frozen=True, slots=True)
class Origin:
    """The change that made a setting what it is."""

    key: int
    who: str
    how: str
    at: datetime

    @property
    def by(self) -> str:
        """Who made it; where that is not known, by which way it was made."""
        return self.who or str(How(self.how).label)


def last_changes(model: type[ConfigModel], using: str | None = None) -> dict[str, Origin]:
    """Who changed each setting last, and when, as far as it is recorded. Two queries at most."""
    using = using or router.db_for_write(model)
    if not is_kept(using) or (last := newest(model, using)) is None:
        return {}
    origins = origins_of(last)
    keys = {key for key in origins.values() if key is not None}
    records = changes_of(model, using).filter(pk__in=keys).values_list("pk", "who", "how", "at")
    found = {pk: Origin(pk, who, how, at) for pk, who, how, at in records}
    return {name: found[key] for name, key in origins.items() if key in found}


def last_change(model: type[ConfigModel], name: str) -> Origin | None:
    """Who changed this setting last; None: it is not recorded, or cannot be asked. Never raises."""
    name = name if name in model.setting_fields() else f"{EXTRA}.{name}"
    using = router.db_for_write(model)
    ask = partial(_last_changes_in_savepoint, model, using)
    try:
        found = read_outside(using, partial(_through, using, ask)) if orm_refuses() else ask()
    except Exception:  # noqa: BLE001 - the value is told all the same
        return None
    origin: Origin | None = found.get(name)
    return origin


def _last_changes_in_savepoint(model: type[ConfigModel], using: str) -> dict[str, Origin]:
    # In a savepoint, should there be a transaction, which must not suffer.
    with transaction.atomic(using=using):
        return last_changes(model, using)


def _through(using: str, call: Callable[[], Any], connection: BaseDatabaseWrapper) -> Any:
    """``call``, in a thread of its own whose connection this is."""
    connections[using] = connection
    return call()


# Going back


class Proposal(NamedTuple):
    """Values to go back to."""

    values: dict[str, Any]
    """By the settings' own names, only those that differ from the row's."""
    lost: list[str]
    """Settings that cannot be brought back: what they were is not on record."""


def without(change: ConfigChange, row: Snapshot, model: type[ConfigModel]) -> Proposal:
    """What to set so that ``change`` is undone: each setting it changed, as before it."""
    return _proposal(change.changes, row, model)


def as_after(change: ConfigChange, row: Snapshot, model: type[ConfigModel]) -> Proposal:
    """What to set so that everything is as it was right after ``change``."""
    later = changes_of(model).filter(pk__gt=change.pk).order_by("pk")
    first: dict[str, Any] = {}
    for changes in later.values_list("changes", flat=True).iterator():
        for name, one in changes.items():
            first.setdefault(name, one)
    return _proposal(first, row, model)


def _proposal(
    changes: Mapping[str, Mapping[str, Any]], row: Snapshot, model: type[ConfigModel]
) -> Proposal:
    fields = model.setting_fields()
    values: dict[str, Any] = {}
    extra = dict(row.get(EXTRA) or {})
    lost: list[str] = []
    for name, change in changes.items():
        prefix, _, key = name.partition(".")
        if prefix == EXTRA and key:
            if "old" in change:
                extra[key] = change["old"]
            else:
                extra.pop(key, None)
        elif name in fields and "old" in change:
            try:
                values[name] = decoded(fields[name], change["old"])
                if not _is_there(fields[name], values[name]):
                    lost.append(name)
                    del values[name]
            except (ValidationError, ValueError, TypeError):
                lost.append(name)  # of a type that the field no longer has
        else:
            lost.append(name)
    if EXTRA in fields:
        values[EXTRA] = extra
    values = {name: value for name, value in values.items() if not same_value(row, name, value)}
    return Proposal(values, sorted(lost))


def _is_there(field: models.Field[Any, Any], value: Any) -> bool:
    """Whether the object that a foreign key would point to still is."""
    if value is None or not isinstance(field, models.ForeignKey):
        return True
    objects = field.related_model._base_manager
    return objects.filter(**{field.target_field.attname: value}).exists()


def same_value(row: Snapshot, name: str, value: Any) -> bool:
    """Whether the setting is so already."""
    return name in row and name not in row._unreadable and bool(row[name] == value)
