"""ConfigManager: the settings of one config model, in memory, at the cost of an attribute.

How a read is fast and still right. The committed values lie in the manager's own ``__dict__``, so
``config.timeout`` is an ordinary attribute read, and nothing is checked on the way. Python calls
``__getattr__`` only for what ``__dict__`` lacks; so whoever changes something replaces the whole
``__dict__`` in one assignment, and every reader is in one of two modes:

* fast: ``__dict__`` holds the committed values;
* slow: readers must be told apart (a transaction has written and not ended) or nothing is known
  (nothing read yet, a change announced): ``__dict__`` holds only what is the same for all, the
  test overrides, and ``__getattr__`` finds out what this reader is to see.

docs/design.md tells the whole story.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from math import inf
from threading import Event, Lock, RLock, local
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, cast, final

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from django.db import InterfaceError, connections, router

from siteconfig import conf
from siteconfig.connections import (
    WAIT,
    OpenTransaction,
    PendingWrite,
    awaited_transaction,
    in_transaction,
    is_ours,
    orm_refuses,
    read_inside,
    read_outside,
    remember_transaction,
    run_in_thread,
)
from siteconfig.exceptions import UnknownSettingError
from siteconfig.row import is_about_a_value
from siteconfig.secret import UNREADABLE
from siteconfig.signals import config_changed, settings_read, write_committed
from siteconfig.snapshot import HOW_TO_SET, Snapshot, by_name, freeze, same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

    from siteconfig.models import ConfigModel
    from siteconfig.pins import Pin
    from siteconfig.row import RowReader

log = logging.getLogger("siteconfig.config_manager")

#: Seconds after a database error in which readers do not try again.
RETRY_INTERVAL = 1.0

#: Seconds after a line about a row that cannot be read in which there is no second one.
REMIND_INTERVAL = 60.0


#: How log lines call what is held while the row cannot be read, by its source.
KINDS = {
    "row": "last known values",
    "file": "values of the last-known-good file",
    "default": "defaults",
}


@dataclass(slots=True)
class Watch:
    """What keeps a manager up to date. The watcher writes it, ``status()`` shows it."""

    transport: str
    """How changes arrive now: ``"poll"``, ``"postgres"`` or ``"redis"``."""
    error: str | None = None
    """Why they do not arrive as they should; None: they do."""
    wake: Callable[[], object] | None = None
    """To be called when this process has published something by itself."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What a manager holds and how it came by it, for health pages. No setting's value."""

    model: str
    """The config model, ``"app_label.ModelName"``."""
    version: int | None
    """The version of the snapshot held; None: nothing has been read yet."""
    loaded_at: datetime | None
    """When that snapshot was read, in UTC."""
    source: str | None
    """``"row"``; ``"file"``: it could not be read, the last-known-good file could; ``"default"``:
    there is no row, or neither could be read; None: nothing asked yet."""
    fresh: bool
    """Nothing is known to have changed since ``loaded_at``."""
    age: float | None
    """Seconds since the row was last seen to be as it is held; None: it never was."""
    transport: str
    """How changes made by other processes arrive: ``"postgres"``, ``"redis"``, ``"poll"``;
    ``"none"``: they do not, or nothing has been read yet."""
    transport_error: str | None
    """Why they do not arrive as fast as they should; None: they do."""
    last_error: str | None
    """Why the last read of the row failed; None: it did not."""
    unreadable: tuple[str, ...]
    """Settings whose stored value their field cannot read."""
    overridden: tuple[str, ...]
    """Settings that ``override_config`` replaces at the moment."""
    pinned: tuple[str, ...]
    """Settings that this deployment fixes."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One setting's value and where it comes from."""

    name: str
    value: Any = field(repr=False)
    source: str
    """``"row"``, ``"file"``, ``"default"``, ``"pin"``, ``"override"``; for a stored value that its
    field cannot read ``"last known good"`` or ``"default"``, and for a secret that no key opens
    ``"unreadable"``: it is empty."""
    pinned_by: str | None = None
    """Where this deployment fixes the setting, in words; None: it does not."""
    shadowed: Any = field(default=None, repr=False)
    """What the setting would be without pins and overrides; None: there are none for it."""
    who: str | None = None
    """The user who changed it last; None: nobody, or not recorded."""
    how: str | None = None
    """By which way: ``"admin"``, ``"code"``, ``"command"``, ``"fixture"`` or ``"outside"``, past
    Django; None: not recorded."""
    when: datetime | None = None
    """When it was changed last; None: not recorded."""


@dataclass(slots=True)
class _State:
    """Everything one manager knows. ``lock`` guards all but ``model`` and ``reading``.

    The lock is held for a few assignments at a time: never while a database is asked, a signal
    sent or a log line written. It may be taken twice: a signal handler of the operating system,
    or a ``__del__``, may read a setting in the middle of them.
    """

    model: type[ConfigModel] | None
    by_name: _ByName
    lock: AbstractContextManager[bool] = field(default_factory=RLock)
    committed: Snapshot | None = None
    """The newest committed snapshot read."""
    fresh: bool = False
    """Nothing is known to have been committed since ``committed`` was read."""
    generation: int = 0
    """Moves with every announced change and every publication: what a reader read before the
    move may be older than what is held, and is not published."""
    settled: int = 0
    """How often ``_settle`` has put into force what this says."""
    pending: list[PendingWrite] = field(default_factory=list)
    overrides: tuple[Mapping[str, Any], ...] = ()
    pins: Mapping[str, Pin] | None = None
    """What this deployment fixes; None: not looked up yet."""
    read_under_way: Event | None = None
    """Set when the one read that others wait for has ended."""
    reading: local = field(default_factory=local)
    """Marks the threads that are reading the row for this manager."""
    loaded_at: datetime | None = None
    seen_at: float | None = None
    """When the row was last seen to be as ``committed``, as the clock ``monotonic`` counts."""
    error: str | None = None
    retry_at: float = 0.0
    """Until when readers do not try again, by the same clock."""
    asked: bool = False
    """Somebody has read. Before, there is no fast mode: the first reader starts the watcher, or
    the next one, where it could not be started."""
    watch: Watch | None = None
    """What keeps this manager up to date; None: nothing does."""
    complained_at: float | None = None
    """When a log line last said that the row cannot be read."""
    complaining: bool = False
    """That line has not been followed yet by one that it can be read again."""
    defaults: Snapshot | None = None
    """What there is as long as nothing has been read: of the file, or the fields' defaults."""
    told: Snapshot | None = None
    """What the receivers of ``config_changed`` take for the state; None: nobody has been told, or
    given, anything."""
    changes: deque[tuple[Snapshot, Snapshot]] = field(default_factory=deque)
    """Published, and not told yet: (old, new)."""
    telling: bool = False
    unkept: bool = False
    """``committed`` could not be kept in the last-known-good file: the watcher tries again."""
    untold: bool = False
    """There was no thread to tell them in, or it was interrupted: the watcher is to see to it."""

    def forget(self) -> None:
        self.generation += 1
        self.committed = self.defaults = self.told = self.pins = None
        self.loaded_at = self.seen_at = self.error = self.complained_at = None
        self.retry_at = 0.0
        self.fresh = self.complaining = self.asked = self.unkept = self.untold = False
        self.changes.clear()
        for write in self.pending:
            write.view = None


_managers: dict[str | None, ConfigManager] = {}
_managers_lock = Lock()


@final
class ConfigManager:
    """The one manager of a config model's settings in this process.

    ``ConfigManager()`` is the manager of the model that ``SITECONFIG_MODEL`` names,
    ``ConfigManager(ShopConfig)`` that of another ``ConfigModel``. Each exists once, whoever asks,
    and lives as long as the process. Making one reads nothing.

    Every field of the model is an attribute: ``config.timeout`` is the committed value; inside
    a transaction that has written settings it is that transaction's own. Reading never writes,
    makes no query once warm, needs no ``await``, and never fails for want of a database: then it
    gives the last known good values, else the fields' defaults, and ``status()`` says so.

    Of a foreign key the setting is the id, ``config.group_id``. ``config.group`` is the object to
    which it points, by a query each time: so it is never older than the id, and needs a database.

    Raises:
        UnknownSettingError: on reading an attribute that is no setting; an AttributeError.
    """

    __slots__ = ("__dict__", "__weakref__", "_state", "get_setting")

    get_setting: GetSetting
    """The value of a setting by its name in any case, field or extra; else ``default``.

    In a slot, and bound to a class of its own, because both are found faster than a method.
    """
    _state: _State
    _snapshot: Snapshot
    """In ``__dict__`` in fast mode; else found by ``__getattr__``."""

    def __new__(cls, model: type[ConfigModel] | None = None) -> ConfigManager:
        key = _registry_key(model)
        with _managers_lock:
            if key not in _managers:
                manager = super().__new__(cls)
                names = _ByName(manager)
                concrete = cast("type[ConfigModel]", model._meta.concrete_model) if model else None
                object.__setattr__(manager, "get_setting", names.get_setting)
                object.__setattr__(manager, "_state", _State(concrete if key else None, names))
                _managers[key] = manager
            return _managers[key]

    # Reading

    def snapshot(self) -> Snapshot:
        """All settings as this reader sees them now; what is returned never changes."""
        return self._snapshot

    @property
    def settings(self) -> Mapping[str, Any]:
        """All settings as a read-only mapping of field name to value."""
        return self._snapshot

    def explain(self, name: str) -> Explanation:
        """The value of a setting, where it comes from, and who changed it last: asks the history.

        Raises:
            UnknownSettingError: there is no setting of this name.
        """
        snapshot, row = self.snapshot(), self._row_view()
        name = self._model().setting_name(name)
        missing = object()
        value = snapshot.get_setting(name, missing)
        if value is missing:
            raise UnknownSettingError(self._label(), name, snapshot)
        pin = self._pins().get(name)
        is_overridden = any(name in layer for layer in self._state.overrides)
        if is_overridden:
            source = "override"
        elif pin is not None:
            source = "pin"
        else:
            source = row._unreadable.get(name, row._source)
        change = self._model().last_change(name)
        return Explanation(
            name=name,
            value=value,
            source=source,
            who=(change.who or None) if change else None,
            how=change.how if change else None,
            when=change.at if change else None,
            pinned_by=pin.origin if pin else None,
            shadowed=row.get_setting(name) if pin or is_overridden else None,
        )

    def status(self) -> Status:
        """What is held and how it came here; reads nothing."""
        state = self._state
        label = self._label()
        pins = self._pins()
        write = self._own_write()
        with state.lock:
            held = (write and write.view) or state.committed or state.defaults
            return Status(
                model=label,
                version=held.version if held else None,
                loaded_at=state.loaded_at,
                source=held._source if held else None,
                fresh=state.fresh,
                age=None if state.seen_at is None else monotonic() - state.seen_at,
                transport=state.watch.transport if state.watch else "none",
                transport_error=state.watch.error if state.watch else None,
                last_error=state.error,
                unreadable=tuple(sorted(held._unreadable)) if held else (),
                overridden=tuple(sorted({name for layer in state.overrides for name in layer})),
                pinned=tuple(sorted(pins)),
            )

    # Writing

    def set_setting(self, name: str, value: Any) -> None:
        """Validate a value and save it to the row; every later read sees it.

        A name that is no field is kept in the row's column ``extra``, from where ``get_setting``
        reads it, unless ``SITECONFIG["STRICT"]`` refuses it. Inside a transaction the value is
        seen by that transaction at once and by others after its commit.

        Args:
            name: the setting, in any case.
            value: what its field accepts; for an extra setting anything JSON can hold.

        Raises:
            ValidationError: the value is refused; nothing has changed.
        """
        values = self._model().masked({name: value})
        del value  # which an error report would show
        self.set_settings(**values)

    def set_settings(self, /, **values: Any) -> None:
        """Validate several values and save them to the row in one transaction: all or nothing.

        Raises:
            ValidationError: with each refused setting and why; nothing has changed.
        """
        values = self._model().masked(values)
        self._model().write(values)

    async def aset_setting(self, name: str, value: Any) -> None:
        """Like ``set_setting``, from a coroutine."""
        values = self._model().masked({name: value})
        del value  # as in set_setting
        await self.aset_settings(**values)

    async def aset_settings(self, /, **values: Any) -> None:
        """Like ``set_settings``, from a coroutine."""
        values = self._model().masked(values)
        # Bound first: asgiref has arguments of its own, and a setting may have any name.
        await sync_to_async(partial(self.set_settings, **values))()

    def reload(self) -> Snapshot:
        """Read the row now, and return what this reader sees then.

        Only needed after a write that Django did not make, such as raw SQL. Inside a transaction
        the row is read as that transaction sees it, for its own readers only until it commits.
        """
        state = self._state
        if (transaction := self._transaction()) is not None:
            self._enlist(transaction)
        else:
            with state.lock:
                self._announce()
        return self.snapshot()

    async def areload(self) -> Snapshot:
        """Like ``reload``, from a coroutine."""
        await sync_to_async(self.reload)()
        return self.snapshot()

    def reset(self) -> None:
        """Forget everything read and told, as if the process had just started. For tests.

        What this deployment pins is looked up again, too, in ``SITECONFIG`` and the environment.
        Writes of transactions that are still open, and overrides that are still active, stay:
        they end with their transaction and their ``override_config``.
        """
        state = self._state
        with state.lock:
            state.forget()
            self._settle()

    # The slow path

    def __getattr__(self, name: str) -> Any:
        if name == "_snapshot":
            return self._view()
        if name.startswith("_"):
            # copy, pickle and inspect probe for such names; they are nobody's setting.
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        view = self._view()
        try:
            return view[name]
        except KeyError:
            pass
        return view._pointed_to(name)

    def _view(self) -> Snapshot:
        """The snapshot that this reader is to see."""
        self._state.asked = True
        self._pins()
        view = self._row_view()
        if self._state.watch is None:
            self._ask_for_watch()
        overridden = self._overridden()
        return view.replaced(overridden) if overridden else view

    def _ask_for_watch(self) -> None:
        """Say that somebody has read; if nothing can watch now, the next reader says so again."""
        answers: list[tuple[Any, Any]] = settings_read.send(self._model())
        if any(answer is False for _receiver, answer in answers):
            state = self._state
            with state.lock:
                # In slow mode, for fast reads say nothing. What is held stays good.
                state.asked = False
                self._settle()

    def _row_view(self) -> Snapshot:
        """The same, before pins and overrides."""
        if getattr(self._state.reading, "active", False):
            # Code that runs inside a read of ours (a log handler, a receiver of
            # connection_created) gets what was known before it.
            return self._last_known()
        write = self._own_write()
        return self._committed() if write is None else self._transaction_view(write)

    def _own_write(self) -> PendingWrite | None:
        """The newest standing write of the transaction that this reader is in."""
        state = self._state
        if not state.pending:
            return None
        alias = self._alias()
        connection, awaited = connections[alias], awaited_transaction(alias)
        with state.lock:
            self._forget_ended_writes()
            own = [
                write
                for write in state.pending
                if write.connection is connection or write.transaction is awaited
            ]
        return own[-1] if own else None

    def _transaction_view(self, write: PendingWrite) -> Snapshot:
        """The settings as the transaction that made ``write`` sees them."""
        base = self._state.committed
        # Read again after a rollback to a savepoint, and once somebody else has committed, which
        # may be visible inside, too.
        now = (base, write.transaction.rollbacks)
        if write.view is None or write.view_at != now:
            previous = write.view or base
            try:
                if (connection := write.connection) is None:
                    raise InterfaceError("the connection that wrote is gone")
                with self._reading():
                    view = read_inside(connection, partial(self._read_row, previous))
            except Exception as error:  # noqa: BLE001 - a read of a setting never fails
                if previous is None:
                    self._note_failure(error)
                return previous or self._fall_back()
            write.view, write.view_at = view, now
            Held.mark = object()
        return write.view

    def _committed(self) -> Snapshot:
        """The newest committed snapshot, read now unless what is held is still good."""
        state = self._state
        transaction = self._transaction()
        deadline = monotonic() + WAIT
        while True:
            with state.lock:
                self._forget_ended_writes()
                if state.fresh and state.committed is not None:
                    if not state.pending:
                        self._settle()
                    return state.committed
                given_up = monotonic() < state.retry_at and transaction is None
                others = state.read_under_way
                if not given_up and (others is None or monotonic() >= deadline):
                    others = None
                    own = state.read_under_way = Event()
                    generation = state.generation
            if given_up:
                return self._fall_back()
            if others is not None:
                others.wait(deadline - monotonic())
                continue
            try:
                # Marked: a signal handler that reads would wait for this thread, its own.
                with self._reading():
                    snapshot = self._read(transaction)
                published = self._publish(snapshot, generation)
            except Exception as error:  # noqa: BLE001 - a read of a setting never fails
                if transaction is not None:
                    # Its own connection may still read, if only for itself.
                    return self._transaction_view(self._enlist(transaction))
                if state.generation == generation:  # else somebody knows better by now
                    is_away = isinstance(error, DatabaseError | TimeoutError)
                    self._note_failure(error, pause=RETRY_INTERVAL if is_away else 0.0)
                return self._fall_back()
            finally:
                with state.lock:
                    if state.read_under_way is own:
                        state.read_under_way = None
                own.set()
            if published:
                self._follow_up()
                return snapshot
            if monotonic() >= deadline and not state.fresh:
                # Changes come faster than the row can be read. What was read is committed, and
                # newer than all that had been published when the read began.
                return snapshot

    def _read(self, transaction: BaseDatabaseWrapper | None) -> Snapshot:
        """Read the committed row, whatever the caller's own transaction sees."""
        alias = self._alias()
        read_row = partial(self._read_row, self._state.committed)
        # Through the caller's connection if it has one. It is not opened for a read: a process
        # that forks workers would hand it on to them. And not in a coroutine, where Django
        # refuses.
        if transaction is not None or orm_refuses() or not is_ours(connections[alias]):
            return read_outside(alias, read_row)
        connection = connections[alias]
        try:
            return read_row(connection)
        except DatabaseError:
            # Django does this between requests; a process without requests would stay stuck.
            with suppress(Exception):
                connection.close_if_unusable_or_obsolete()
            raise

    def _read_row(self, previous: Snapshot | None, connection: BaseDatabaseWrapper) -> Snapshot:
        with self._reading():
            snapshot = self._model().read(connection, previous)
        self._report_unreadable(snapshot, previous)
        return snapshot

    def _report_unreadable(self, snapshot: Snapshot, previous: Snapshot | None) -> None:
        known = previous._unreadable if previous else {}
        new = sorted(snapshot._unreadable.keys() - known)
        secret = [name for name in new if snapshot._unreadable[name] == UNREADABLE]
        if secret:
            log.warning(
                "No key opens the stored secrets %s in %s; until one does they are empty. Put the "
                "key that sealed them back into SITECONFIG['SECRET_KEYS'].",
                ", ".join(secret),
                self._label(),
            )
        if other := [name for name in new if name not in secret]:
            log.warning(
                "The stored values of %s in %s cannot be read by their fields; these settings "
                "keep their last known or default values. Save them anew.",
                ", ".join(other),
                self._label(),
            )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Mark this thread as reading the row, so that reads inside do not begin another."""
        reading = self._state.reading
        before = getattr(reading, "active", False)
        reading.active = True
        try:
            yield
        finally:
            reading.active = before

    def _fall_back(self) -> Snapshot:
        """What a reader is given while the row cannot be read; what replaces it will be told."""
        state = self._state
        view = self._last_known()
        with state.lock:
            if state.committed is not None:
                return state.committed
            if state.told is None:
                state.told = view
        return view

    def _last_known(self) -> Snapshot:
        state = self._state
        if state.committed is not None:
            return state.committed
        if state.defaults is None:
            state.defaults = self._model().fallback_snapshot()
        return state.defaults

    def _note_failure(self, error: BaseException, *, pause: float = 0.0) -> None:
        """Remember why the row could not be read, and log it: once, then once a minute.

        Args:
            pause: seconds in which readers do not try again.
        """
        state = self._state
        # What a driver says of a value it cannot read shows the value.
        said = "" if is_about_a_value(error) else str(error).strip()
        text = f"{type(error).__name__}: {said}" if said else type(error).__name__
        now = monotonic()
        with state.lock:
            state.error = text
            if pause:
                state.retry_at = now + pause
            last = state.complained_at
            if log_it := last is None or now - last >= REMIND_INTERVAL:
                state.complained_at, state.complaining = now, True
        if log_it:
            log.warning(
                "The settings %s cannot be read and stay at their %s until they can: %s",
                self._label(),
                KINDS[self._last_known()._source],
                text,
            )

    # State changes; the lock is held where a docstring says so

    def _announce(self) -> None:
        """What is held may be outdated: let the next reader read. Under the lock."""
        state = self._state
        state.generation += 1
        state.fresh = False
        state.retry_at = 0.0
        # A read that is under way may miss the change: nobody is to wait for it.
        state.read_under_way = None
        self._settle()

    def _forget_ended_writes(self) -> None:
        """Drop the writes that no longer stand. Under the lock.

        One that no longer stands in a transaction that goes on was rolled back, and nothing has
        changed. Any other was rolled back too, or committed, and then perhaps somebody else's
        failing hook kept ours from running: reading the row again is right in both cases.
        """
        state = self._state
        ended = [write for write in state.pending if not write.stands()]
        if not ended:
            return
        state.pending = [write for write in state.pending if write not in ended]
        still_written = {write.transaction for write in state.pending}
        for transaction in {write.transaction for write in ended} - still_written:
            transaction.close()
        if all(write.transaction.goes_on() for write in ended):
            self._settle()
        else:
            self._announce()

    def _settle(self) -> None:
        """Put into ``__dict__`` what every reader is to see the same. Under the lock.

        Anew, if a signal handler has done so in the middle of it: what that has put there is
        newer, and may have been replaced by what was looked up before.
        """
        state = self._state
        turn = None
        while turn != state.settled:
            turn = state.settled = state.settled + 1
            self._settle_once()

    def _settle_once(self) -> None:
        state = self._state
        overridden = self._overridden()
        fields = self._model().setting_fields() if overridden else {}
        slow = {name: value for name, value in overridden.items() if name in fields}
        # First of all, so that nobody reads an old value here after a new one by name.
        object.__setattr__(self, "__dict__", slow)
        Held.mark = object()
        is_known = state.fresh and state.committed is not None and state.pins is not None
        if not (is_known and state.asked) or state.pending:
            state.by_name.names = by_name(overridden)
            return
        snapshot = cast("Snapshot", state.committed)
        snapshot = snapshot.replaced(overridden) if overridden else snapshot
        state.by_name.names = snapshot._by_name
        object.__setattr__(self, "__dict__", {"_snapshot": snapshot, **snapshot})

    def _publish(self, snapshot: Snapshot, generation: int) -> bool:
        """Hold ``snapshot`` for all readers, unless something has changed since ``generation``."""
        state = self._state
        with state.lock:
            loaded_at, seen_at = datetime.now(UTC), monotonic()
            if state.generation != generation:
                return False
            # Until the change is in its queue nothing is called: so no signal handler, which may
            # publish what is newer, comes in between.
            recovered, state.complaining = state.complaining, False
            state.generation += 1
            state.committed, state.fresh = snapshot, True
            state.loaded_at, state.seen_at = loaded_at, seen_at
            state.error, state.retry_at = None, 0.0
            told, state.told = state.told, snapshot
            if told is not None:
                state.changes.append((told, snapshot))
            self._settle()
        if recovered:
            log.info("The settings %s can be read again.", self._label())
        return True

    def _follow_up(self, *, aside: bool = False) -> None:
        """What is to be done once something new is held for all."""
        self._keep()
        watch = self._state.watch
        if not aside and watch is not None and watch.wake is not None:
            watch.wake()
        self._tell(aside=aside)

    def _keep(self) -> None:
        """Have the model keep what is committed, for a start without the database.

        Until that is what it has kept: another thread may have kept something newer meanwhile. So
        whoever replaces the file last has seen the newest, and no lock is held for it.
        """
        state = self._state
        while (snapshot := state.committed) is not None:
            # A model's own method may return nothing.
            has_failed = self._model().keep(snapshot) is False
            with state.lock:
                if state.committed is snapshot:
                    state.unkept = has_failed
                    return

    # Called by watcher.py

    def _watched_by(self, watch: Watch | None) -> None:
        """Something begins, or ends, to keep this manager up to date."""
        state = self._state
        with state.lock:
            state.watch = watch
            if watch is None:
                state.retry_at = 0.0

    def _compare(self, reader: RowReader) -> None:
        """Look at the row, and take over what differs from what is held.

        The row itself is compared, as it is stored: that shows every kind of write, whoever
        made it and whatever it did to ``version``.

        Raises:
            Exception: the row cannot be read; what is held stays.
        """
        state = self._state
        while True:
            with state.lock:
                generation, held = state.generation, state.committed
                current = held if state.fresh and state.error is None else None
            try:
                with self._reading():
                    stored = reader.stored()
                    if current is not None and same(current._stored, stored):
                        state.seen_at = monotonic()
                        return
                    snapshot = reader.snapshot(stored, held)
            except BaseException as error:
                # The watcher tries again by itself, and so spares the readers.
                self._note_failure(error, pause=inf)
                raise
            if self._publish(snapshot, generation):
                self._report_unreadable(snapshot, held)
                self._follow_up(aside=True)
                return

    def _tell_left(self) -> None:
        """Tell what was left, for want of a thread say, and nothing that a writer is about to."""
        if self._state.untold:
            self._state.untold = False
            self._tell(aside=True)

    # Called by receivers.py and testing.py

    def _before_write(self, using: str) -> None:
        """The row is about to be written: learn what receivers will be told is the old state."""
        state = self._state
        if state.told is None and using == self._alias():
            view = self._row_view()
            with state.lock:
                if state.told is None:
                    state.told = view

    def _after_write(self, using: str) -> None:
        """The row has been written through this thread's connection to ``using``."""
        if using != self._alias():
            return
        if (transaction := self._transaction()) is not None:
            self._enlist(transaction)
        else:
            with self._state.lock:
                self._announce()
            write_committed.send(self._model(), using=using)
            self._committed()

    def _enlist(self, connection: BaseDatabaseWrapper) -> PendingWrite:
        """Let ``connection``'s transaction see the row as it has written it, and only it."""
        state = self._state
        with state.lock:
            self._forget_ended_writes()
            own = [write for write in state.pending if write.connection is connection]
        transaction = own[-1].transaction if own else OpenTransaction(connection)
        write = PendingWrite(connection, transaction, self._after_commit)
        write.view = own[-1].view if own else None  # to fall back on; it is read again
        remember_transaction(transaction, connection.alias)
        with state.lock:
            # Of those that one and the same rollback would undo, the newest is enough.
            fate = write.fate()
            state.pending = [one for one in state.pending if one not in own or one.fate() != fate]
            state.pending.append(write)
            self._settle()
        return write

    def _after_commit(self, write: PendingWrite) -> None:
        """Django runs this when the transaction of ``write`` has committed."""
        connection = write.connection
        if connection is not None and connection.in_atomic_block:
            self._tell_inside(write)
            return
        with self._state.lock:
            self._forget_ended_writes()
        # First, so that others need not wait for this process's own look at the row.
        write_committed.send(self._model(), using=self._alias())
        self._committed()

    def _override(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Let every reader see these values until ``_restore``, which takes what is returned."""
        model = self._model()
        values = model.by_setting(model.masked(values))
        layer = {name: freeze(value) for name, value in values.items()}
        with self._state.lock:
            self._state.overrides += (layer,)
            self._settle()
        return layer

    def _restore(self, layer: Mapping[str, Any]) -> None:
        state = self._state
        with state.lock:
            state.overrides = tuple(one for one in state.overrides if one is not layer)
            self._settle()

    def _overridden(self) -> dict[str, Any]:
        """What is not to be as the row says: by pins, and by overrides, which win."""
        values = self._pinned()
        for layer in self._state.overrides:
            values.update(layer)
        return values

    def _pinned(self) -> dict[str, Any]:
        return {name: pin.value for name, pin in (self._state.pins or {}).items()}

    def _pins(self) -> Mapping[str, Pin]:
        """What this deployment fixes, looked up by the first who asks."""
        state = self._state
        while (pins := state.pins) is None:
            generation = state.generation
            found = self._model().pins()
            with state.lock:
                if state.generation == generation:  # else they may have been forgotten meanwhile
                    state.pins = found
                    self._settle()
        return pins

    def _forget_pins(self) -> None:
        """They may be others by now: a test has replaced ``SITECONFIG``."""
        state = self._state
        with state.lock:
            state.generation += 1
            state.pins = None
            self._settle()

    # Telling receivers

    def _tell(self, *, aside: bool) -> None:
        """Send ``config_changed`` for what has been published, where receivers may use the ORM.

        Args:
            aside: do not wait for the receivers; they may take their time.
        """
        if self._state.changes:
            if aside or orm_refuses() or self._transaction() is not None:
                # Not in a coroutine, nor inside a transaction that is none of theirs.
                try:
                    run_in_thread(self._tell_all)
                except RuntimeError:  # no new thread to be had, as at exit
                    self._state.untold = True
            else:
                self._tell_all()

    def _tell_all(self) -> None:
        """Send the changes in their order, one thread at a time.

        A receiver that writes settings adds to the queue, and so does another thread: both
        return at once, and this loop sends theirs when every receiver has had the change before.
        """
        state = self._state
        with state.lock:
            if state.telling:
                return
            state.telling = True
        try:
            while (change := self._next_change()) is not None:
                self._send(*change)
        except BaseException:
            with state.lock:
                state.telling, state.untold = False, True
            raise

    def _next_change(self) -> tuple[Snapshot, Snapshot] | None:
        state = self._state
        with state.lock:
            state.telling = bool(state.changes)
            return state.changes.popleft() if state.changes else None

    def _tell_inside(self, write: PendingWrite) -> None:
        """Tell receivers of a write whose transaction is still open.

        ``captureOnCommitCallbacks(execute=True)`` runs our hook there, to let a test see what
        would follow the commit. Nobody outside the transaction is to see the values.
        """
        state, transaction = self._state, write.transaction
        newest = [one for one in state.pending if one.transaction is transaction][-1:]
        old = transaction.told or state.told
        transaction.told = new = self._transaction_view(newest[0] if newest else write)
        if old is not None:
            self._send(old, new)

    def _send(self, old: Snapshot, new: Snapshot) -> None:
        if pinned := self._pinned():
            # They have not changed, whatever the row says now.
            old, new = old.replaced(pinned), new.replaced(pinned)
        if changed := new.changed_from(old):
            config_changed.send_robust(self._model(), old=old, new=new, changed=changed)

    # Where things are

    def _model(self) -> type[ConfigModel]:
        state = self._state
        if state.model is None:
            state.model = conf.get_model()
        return state.model

    def _label(self) -> str:
        model = self._state.model
        return model._meta.label if model else conf.model_label()

    def _alias(self) -> str:
        # Never a replica, which may lag behind the commit that is being announced.
        return router.db_for_write(self._model())

    def _transaction(self) -> BaseDatabaseWrapper | None:
        """The caller's own connection if it is inside a transaction."""
        connection = connections[self._alias()]
        return connection if in_transaction(connection) else None

    def _rebind(self) -> None:
        """Look the model up again, and forget what was read from the one before."""
        self._state.model = None
        self.reset()

    # What Python asks of any object

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"{name!r} was not set: reading is by attribute, writing is not. {HOW_TO_SET} "
            f"In tests use siteconfig.testing.override_config({name}=...)."
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name!r} was not deleted: settings cannot be. {HOW_TO_SET}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._model().setting_fields()})

    def __repr__(self) -> str:
        return f"<ConfigManager of {self._label()}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # copy and pickle give the one manager of the process they run in.
        model = self._state.model
        default = _registry_key(model) is None
        return ConfigManager, () if default else (model,)


def _after_fork() -> None:
    """In a child process: its only thread holds no lock, whoever held one in the parent.

    And nothing tells it of changes, until its first read, which is to be a new one, starts that.
    """
    global _managers_lock
    _managers_lock = Lock()
    for manager in _managers.values():
        state = manager._state
        state.lock, state.reading = RLock(), local()
        state.telling, state.watch, state.asked = False, None, False
        # The transactions that made these are the parent's.
        state.pending = []
        with state.lock:
            manager._announce()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def watch_again() -> None:
    """Have the managers that somebody has read kept up to date, where nothing does so yet.

    Else the next read would, but one of a value that is in memory asks for nothing.
    """
    for manager in list(_managers.values()):
        if manager._state.asked and manager._state.watch is None:
            manager._ask_for_watch()


class Held:
    """Tells whether ``held_values`` would give something new: ``mark`` is then another object."""

    mark: ClassVar[object] = object()


def held_values() -> list[Mapping[str, Any]]:
    """What the managers of this process hold now, by name: snapshots and overrides; no read."""
    held: list[Mapping[str, Any]] = []
    for manager in list(_managers.values()):
        state = manager._state
        views = [state.committed, *(write.view for write in state.pending)]
        held += [view for view in views if view is not None]
        held += [manager._pinned(), *state.overrides]
    return held


class GetSetting(Protocol):
    """What ``ConfigManager.get_setting`` takes and gives."""

    def __call__(self, name: str, default: Any = None) -> Any: ...


class _ByName:
    """Finds settings by name, for one manager, in a dict that it replaces at every change.

    Attributes:
        names: the committed settings in fast mode, else the overridden ones.
    """

    __slots__ = ("manager", "names")

    def __init__(self, manager: ConfigManager) -> None:
        self.manager = manager
        self.names: Mapping[str, Any] = {}

    def get_setting(self, name: str, default: Any = None) -> Any:
        """The value of a setting by its name in any case, field or extra; else ``default``."""
        try:
            return self.names[name]
        except KeyError:
            pass
        if (lower := name.lower()) in self.names:
            return self.names[lower]
        return self.manager.snapshot().get_setting(lower, default)


def _registry_key(model: type[ConfigModel] | None) -> str | None:
    """None stands for the default model, which is not known before Django is set up."""
    if model is None:
        return None
    if not hasattr(model, "setting_fields") or model._meta.abstract:
        raise TypeError(
            f"ConfigManager takes a subclass of siteconfig.models.ConfigModel that is not "
            f"abstract, or nothing for the default one; it was given {model!r}."
        )
    if model._meta.swapped:
        raise ImproperlyConfigured(
            f"{model._meta.label} is not in use: SITECONFIG_MODEL replaces it by "
            f"{model._meta.swapped}. Ask for ConfigManager() to get whichever is in use."
        )
    # A proxy is another class for the same row.
    label = cast("type[ConfigModel]", model._meta.concrete_model)._meta.label_lower
    return None if label == conf.model_label().lower() else label


config = ConfigManager()
