"""The one background thread of a process, which keeps its managers up to date.

It waits for whichever comes first, a hint of the transport or the next poll; then it looks at the
row through a connection of its own, and hands what differs to the manager. It is started by the
first read, and again in a child process by the child's first read.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import selectors
import socket
from contextlib import suppress
from math import inf
from threading import Lock, RLock, Thread, get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from django.db import Error as DatabaseError
from django.db import connections, router

from siteconfig import config_manager, transports
from siteconfig.backoff import Backoff
from siteconfig.conf import conf, get_model
from siteconfig.config_manager import REMIND_INTERVAL, Watch
from siteconfig.connections import Selector, close, own_connection
from siteconfig.fleet import Member
from siteconfig.signals import change_noticed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager

    from django.db.backends.base.base import BaseDatabaseWrapper

    from siteconfig.config_manager import ConfigManager
    from siteconfig.models import ConfigModel
    from siteconfig.row import RowReader
    from siteconfig.snapshot import Snapshot
    from siteconfig.transports.base import Transport

log = logging.getLogger("siteconfig.watcher")

#: Seconds between two looks at the row that hints ask for, however many there are. A look costs a
#: tenth of that, and a writer takes longer for a change; so only a storm of hints meets it.
SHORTEST_GAP = 0.002

#: Seconds between two polls at the least, whatever ``SITECONFIG`` says.
SHORTEST_POLL = 0.01

#: Seconds, per process of the fleet, over which the looks that one hint asks for are spread: what
#: one look costs the database (benchmarks/propagation.py), so that it has one to answer at a time.
SPREAD = 0.0002

#: Seconds that a selector rounds a wait up to. To wait for less would take longer.
RESOLUTION = 0.001

#: Seconds of the longest wait; a selector takes no number without end.
LONGEST_WAIT = 60.0

#: Seconds within which the history is looked at after changes that seem to be recorded, once for
#: all of them, and by about how many processes of a fleet: one would do, and a writer looks, too.
CHECK_WITHIN, CHECKERS = 30.0, 8

#: Seconds for which a process only polls, where there is nothing else to do.
LONGEST_DOZE = 30.0

#: Seconds to wait for the thread when the interpreter ends.
EXIT_PATIENCE = 0.25

#: Seconds that a fork waits for the thread to come to a halt. It is at work for that long only if a
#: server does not answer; and while it waits for that, it locks nothing that a child may need.
FORK_PATIENCE = 0.2


class Waker:
    """Ends a wait of the thread."""

    def __init__(self) -> None:
        self.is_end = False
        self._bell = Lock()  # free: somebody has rung
        self._bell.acquire()
        self._in, self._out = socket.socketpair()
        self._in.setblocking(False)
        self._out.setblocking(False)

    def wake(self) -> None:
        with suppress(RuntimeError):  # somebody has rung before
            self._bell.release()
        with suppress(OSError):  # full: it will wake; closed: it has ended
            self._in.send(b"!")

    def end(self) -> None:
        self.is_end = True
        self.wake()

    def wait(self, seconds: float, others: Collection[int] = ()) -> bool:
        """Until the time is over, somebody wakes it, or one of ``others`` is readable.

        Returns:
            Whether somebody has woken it.
        """
        if others:
            self._select(seconds, others)
            return self._bell.acquire(blocking=False)
        return self._bell.acquire(timeout=seconds)  # a fifth of the system calls

    def _select(self, seconds: float, others: Collection[int]) -> None:
        # A new one each time: the number of a closed socket may by now be another one's.
        with Selector() as selector:
            for descriptor in (self._out.fileno(), *others):
                selector.register(descriptor, selectors.EVENT_READ)
            ready = selector.select(seconds)
        # Also if it was woken before, while there was nothing else to wait for.
        if any(key.fd == self._out.fileno() for key, _events in ready):
            with suppress(BlockingIOError):
                while self._out.recv(64):
                    pass

    def close(self) -> None:
        self._in.close()
        self._out.close()


class Link:
    """One database: the connection to it, and the managers whose rows are read through it.

    Attributes:
        is_sqlite: the database is a file, and its library part of this process.
    """

    def __init__(
        self, alias: str, transport: Transport, wake: Callable[[], object] | None = None
    ) -> None:
        self.alias = alias
        self.is_sqlite = connections[alias].vendor == "sqlite"
        self.transport = transport
        self.watch = Watch(transport.name, wake=wake)
        self.subjects: dict[ConfigManager, Subject] = {}
        self._connection: BaseDatabaseWrapper | None = None
        self._raw: Any = None
        self._backoff = Backoff()
        self._detour = Backoff()  # of the way past the pooler; meanwhile polls go through it
        self._interval = 0.0
        self._poll_at = self._looked_at = -inf
        self._hint_at = inf  # there is none

    def adopt(self, manager: ConfigManager) -> None:
        """Keep ``manager`` up to date from now on."""
        if manager not in self.subjects:
            self.subjects[manager] = Subject(manager)
            manager._watched_by(self.watch)

    @property
    def connection(self) -> BaseDatabaseWrapper | None:
        """The one to the database; None: it is down.

        Or a failed transaction has put another one in its place, as Django does in the end of
        ``atomic``: that one listens to nothing.
        """
        connection = self._connection
        return connection if connection and connection.connection is self._raw else None

    def fileno(self) -> int | None:
        """What becomes readable when there may be a hint."""
        return None if self.connection is None else self.transport.fileno()

    @property
    def poll_at(self) -> float:
        """When to poll next, by the clock ``monotonic``: not before a pause after failures ends."""
        return self._backoff.until if self._backoff.failures else self._poll_at

    def due_at(self) -> float:
        """When there is something to do, unless a hint comes before; by the same clock."""
        return min(self.poll_at, self.due_beside_polls_at())

    def due_beside_polls_at(self) -> float:
        """The same, but for polls that find nothing."""
        if self._backoff.failures:
            return self._backoff.until
        if self.connection is None or self.transport.is_pending():
            return -inf
        subjects = (subject.due_at() for subject in self.subjects.values())
        return min(self._hint_at, self.transport.due_at(), self._detour.retry_at(), *subjects)

    def tend(self, fleet_size: int) -> None:
        """Do what is due. Never raises, and outlives whatever happens to the connection."""
        if monotonic() < self._backoff.until:
            return
        try:
            self._tend(self._connected(), fleet_size)
            self._backoff.reset()
            self._show(self.transport.error)
        except BaseException as error:  # noqa: BLE001 - nobody else would start the thread again
            self._lose(error)

    def _show(self, error: str | None) -> None:
        self.watch.error = error
        self.watch.transport = self.transport.name if error is None else "poll"

    def close(self) -> None:
        with suppress(Exception):
            self.transport.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                close(connection)

    def pause(self) -> None:
        """Close, to open again when the thread comes by next, which is to be soon."""
        self.close()
        self._poll_at = -inf

    def _connected(self) -> BaseDatabaseWrapper:
        if is_down := self.connection is None:
            self.close()
        is_due = is_down or monotonic() >= self._detour.retry_at()
        if is_due and not self._connect_past_pooler() and is_down:
            self._connect(own_connection(self.alias), listen=not self._detour.failures)
        return cast("BaseDatabaseWrapper", self._connection)

    def _direct_alias(self) -> str | None:
        """What ``LISTEN_DATABASE`` names, if it leads to this database: the default model's."""
        direct = conf.LISTEN_DATABASE
        if self.transport.name != "postgres" or self.alias != router.db_for_write(get_model()):
            return None
        if transports.under_test_runner() and direct is not None:
            # The test database has another name; the direct entry may still have the site's own.
            names = {connections.settings[alias]["NAME"] for alias in (self.alias, direct)}
            return direct if len(names) == 1 else None
        return direct

    def _connect_past_pooler(self) -> bool:
        """False: there is no such way, or it is closed; the connection that there is stays."""
        if (direct := self._direct_alias()) is None:
            self._detour.reset()
            return False
        try:
            self._connect(own_connection(self.alias, direct), listen=True)
        except DatabaseError as error:
            self._detour.failed()
            self.transport.give_up(f"The database {direct!r} cannot be reached: {error}")
            return False
        self._detour.reset()
        return True

    def _connect(self, connection: BaseDatabaseWrapper, *, listen: bool) -> None:
        """Open ``connection``, and use it from now on.

        Raises:
            Exception: it is of no use; the one that there is stays.
        """
        try:
            connection.ensure_connection()
            if listen:
                self.transport.open(connection)
        except BaseException:
            self.transport.close()
            with suppress(Exception):
                close(connection)
            raise
        former, self._connection = self._connection, connection
        self._raw = connection.connection
        connections[self.alias] = connection  # for this thread's use of the ORM
        if former is not None:
            with suppress(Exception):
                close(former)
        self._hint_at = inf
        # Nobody has kept for us what was said meanwhile.
        for subject in self.subjects.values():
            subject.start_anew()

    def poll(self, until: float) -> bool:
        """Poll; False: there is something to do by ``tend``, or it is time. Never raises."""
        now = monotonic()
        if now >= until:
            return False
        try:
            if self.connection is None or self.transport.may_have_changed():
                self._hint_at = -inf
                return False
            for subject in self.subjects.values():
                if not subject.is_current(now):
                    return False
        except BaseException as error:  # noqa: BLE001 - as in tend()
            self._lose(error)
            return False
        self._poll_at = now + self._interval
        return True

    def _lose(self, error: BaseException) -> None:
        self._backoff.failed()
        log.debug("The connection to the database %r is given up", self.alias, exc_info=error)
        for subject in self.subjects.values():
            subject.manager._note_failure(error, pause=inf)
        self.close()
        self._show(f"The database {self.alias!r} cannot be read.")

    def _tend(self, connection: BaseDatabaseWrapper, fleet_size: int) -> None:
        if self.transport.heard() and self._hint_at == inf:
            spread = random.uniform(0, SPREAD * fleet_size)  # noqa: S311 - guards nothing
            spread = spread if spread >= RESOLUTION else 0.0
            self._hint_at = max(monotonic() + spread, self._looked_at + SHORTEST_GAP)
        now = monotonic()
        is_poll, is_hint = now >= self._poll_at, now >= self._hint_at
        if is_poll:
            interval = conf.POLL_INTERVAL or self.transport.interval()
            self._interval = max(SHORTEST_POLL, interval)
            self._poll_at = now + self._interval
        if is_hint:
            self._hint_at = inf
        if is_hint or is_poll:
            self._looked_at = now
        may_have_changed = is_hint or (is_poll and self.transport.may_have_changed())
        for subject in self.subjects.values():
            if subject.is_due(is_hint=is_hint, may_have_changed=may_have_changed):
                subject.look(connection)
            elif is_poll:
                subject.is_current(now)
            subject.check_history(self.alias, fleet_size)


class Subject:
    """One manager, as its link looks after it."""

    def __init__(self, manager: ConfigManager) -> None:
        self.manager = manager
        self._reader: RowReader | None = None
        self._backoff = Backoff()
        # What was held when the history was last asked, what is held, and when to ask again.
        self._checked: Snapshot | None = None
        self._held: Snapshot | None = None
        self._check_at = inf
        self._check_backoff = Backoff()
        self._keep_backoff = Backoff()

    def start_anew(self) -> None:
        """There is a new connection, and anything may have happened since the last one's end."""
        self._reader = None

    def due_at(self) -> float:
        """When there is something to do for it, though nobody hints at it."""
        if self._backoff.failures:
            return min(self._backoff.until, self.make_up_at())
        return min(self._check_at, self.make_up_at()) if self._reader is not None else -inf

    def make_up_at(self) -> float:
        """When to try again what the disk has refused."""
        return self._keep_backoff.until if self.manager._state.unkept else inf

    def is_due(self, *, is_hint: bool, may_have_changed: bool) -> bool:
        state = self.manager._state
        if self._backoff.failures:
            return is_hint or monotonic() >= self._backoff.until
        return may_have_changed or self._reader is None or not state.fresh or bool(state.error)

    def look(self, connection: BaseDatabaseWrapper) -> None:
        """Compare the row with what the manager holds.

        Raises:
            BaseException: it cannot be read, for the connection is of no use any more.
        """
        try:
            if self._reader is None:
                self._reader = self.manager._model().reader(connection)
            self.manager._compare(self._reader)
            self._backoff.reset()
        except BaseException:
            # Or the table is missing, before migrate, or a column, while a new release comes.
            self._backoff.failed()
            if not _is_usable(connection):
                raise

    def check_history(self, alias: str, fleet_size: int) -> None:
        """See to it that what has changed past Django is recorded: soon after it is noticed.

        At once where the row's version has not risen, as it does with every write through Django;
        else later, and by some of the processes, for such a write may hide another.
        """
        held, now = self.manager._state.committed, monotonic()
        if held is not self._held and held is not None:
            may_be_outside = self._held is not None and held.version <= self._held.version
            self._checked, self._held = self._checked or held, held
            if may_be_outside:
                self._check_at = now
            elif random.random() * fleet_size < CHECKERS:  # noqa: S311 - guards nothing
                self._check_at = min(self._check_at, now + random.uniform(0, CHECK_WITHIN))  # noqa: S311
        if now < self._check_at:
            return
        try:
            change_noticed.send(
                self.manager._model(), using=alias, known=self._checked, held=self._held
            )
        except Exception as error:
            log.debug("The history of %s was not checked", self.manager._label(), exc_info=error)
            self._check_backoff.failed()
            self._check_at = self._check_backoff.until
        else:
            self._check_backoff.reset()
            self._checked, self._check_at = self._held, inf

    def make_up(self) -> None:
        """Do what could not be done when it was due; it asks no database."""
        self.manager._tell_left()
        state = self.manager._state
        if state.unkept and self._keep_backoff.is_over():
            self.manager._keep()
            if state.unkept:
                self._keep_backoff.failed()
        if not state.unkept:
            self._keep_backoff.reset()

    def is_current(self, now: float) -> bool:
        """Whether no look is due, nothing having been written."""
        if self._backoff.failures:
            return now < self._backoff.until
        state = self.manager._state
        if self._reader is None or not state.fresh or state.error:
            return False
        state.seen_at = now
        return True


class Watcher:
    """The thread, and all that it holds on to.

    Attributes:
        links: by the alias of the database.
        member: this process's part in the fleet.
    """

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self.member = Member()
        self._lock = Lock()
        self._thread: Thread | None = None
        self._waker: Waker | None = None
        self._is_exit = self._has_complained = False
        self._backoff = Backoff()  # of the attempts to start the thread
        self._inherited: list[tuple[dict[str, Link], Member]] = []
        # Held while the thread is at work, and while somebody forks.
        self._use = RLock()
        # Who forks and holds it: more than once if a signal handler forks in the middle of a fork.
        self._forkers: list[int] = []

    def ensure(self, sender: type[ConfigModel], **kwargs: Any) -> bool:
        """Have the settings of the model ``sender`` kept up to date, if they are to be.

        Returns:
            Whether that is done; False: ask again.
        """
        if self._is_exit or not transports.in_use():
            return True
        # Whoever comes while somebody is at it, a signal handler in the same thread even, goes on.
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._thread is not None and self._thread.is_alive() and self._waker is not None:
                self._waker.wake()
            elif not self._backoff.is_over():
                return False
            elif transports.choose(router.db_for_write(sender)) is not None:
                self._start()
                self._backoff.reset()
        except Exception as error:  # noqa: BLE001 - a read of a setting never fails
            # There is no thread or no descriptor to be had, or no more: the interpreter ends.
            self._backoff.failed()
            if not self._has_complained:
                self._has_complained = True
                log.warning("Changes by other processes are not noticed: %s", error)
            return False
        finally:
            self._lock.release()
        return True

    def _start(self) -> None:
        self.links, self.member, waker = {}, Member(), Waker()
        thread = Thread(
            target=_run,
            args=(self.links, self.member, waker, self._use),
            name="siteconfig-watcher",
            daemon=True,
        )
        try:
            thread.start()
        except BaseException:
            waker.close()
            raise
        self._thread, self._waker = thread, waker

    def stop(self, patience: float = EXIT_PATIENCE) -> None:
        """End the thread, and wait for its end, but no more than ``patience`` seconds."""
        thread, waker = self._thread, self._waker
        self._thread = self._waker = None
        if thread is not None and waker is not None:
            waker.end()
            thread.join(patience)

    def stop_at_exit(self) -> None:
        self._is_exit = True
        self.stop()

    def before_fork(self) -> None:
        """Let the thread come to a halt, and leave no connection to SQLite open.

        A child has the locks of C libraries as they were: one that OpenSSL holds while a connection
        is made is held there for ever. And SQLite takes a child for the parent: for the owner of
        its locks on the file, which the system has given to no child.
        """
        if self._use.acquire(timeout=FORK_PATIENCE):
            self._forkers.append(get_ident())
            for link in list(self.links.values()):
                if link.is_sqlite:
                    link.pause()
            self.member.before_fork()

    def after_fork_in_parent(self) -> None:
        if self._forkers[-1:] == [get_ident()]:
            self._forkers.pop()
            self._use.release()
            if self._waker is not None:
                self._waker.wake()

    def after_fork(self) -> None:
        """In a child process, which has no such thread, and no right to its connections."""
        self._lock, self._use, self._forkers = Lock(), RLock(), []
        self._backoff = Backoff()
        if self._waker is not None:
            self._waker.close()
        self._thread = self._waker = None
        # Kept, so that nothing closes them: that would end the parent's.
        self._inherited.append((self.links, self.member))
        self.links, self.member = {}, Member()


# In the thread


def _is_usable(connection: BaseDatabaseWrapper) -> bool:
    """Whether a failed read was not for want of a connection."""
    if connection.vendor != "sqlite":
        return connection.is_usable()
    # Django takes each of them for usable. One whose files have been replaced reads nothing more.
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM sqlite_master")
    except DatabaseError:
        return False
    return True


def _run(
    links: dict[str, Link], member: Member, waker: Waker, use: AbstractContextManager[object]
) -> None:
    complained_at = -inf
    try:
        while not waker.is_end:
            try:
                if not transports.in_use():
                    break
                _round(links, member, waker, use)
            except BaseException:
                # Nobody would start the thread again, so even what follows must not end it. It
                # is a fault of ours, to be reported.
                with suppress(BaseException):
                    if monotonic() - complained_at >= REMIND_INTERVAL:
                        complained_at = monotonic()
                        log.exception("The watcher failed, and goes on")
                with suppress(BaseException):
                    waker.wait(1.0)
    finally:
        with use:
            _leave(links, member)
        waker.close()


def _round(
    links: dict[str, Link], member: Member, waker: Waker, use: AbstractContextManager[object]
) -> None:
    """Do what is due, and wait for what comes next."""
    with use:
        _adopt(links, waker)
        for link in links.values():
            link.tend(member.size)
            for subject in link.subjects.values():
                subject.make_up()
        # Of a link that is down nothing is known to be current.
        managers = [
            manager for link in links.values() if link.connection for manager in link.subjects
        ]
        note_at = member.tend(managers, _up(links))
        due_at = min([note_at, *(link.due_at() for link in links.values())])
        hints = [descriptor for link in links.values() if (descriptor := link.fileno()) is not None]
        # The one link that there is, if all that it does is to poll.
        (poller,) = links.values() if len(links) == 1 and not hints else (None,)
        until = min(note_at, poller.due_beside_polls_at()) if poller else -inf
    if waker.is_end:
        return
    if poller:
        _doze(poller, waker, use, min(until, monotonic() + LONGEST_DOZE))
    else:
        waker.wait(min(LONGEST_WAIT, max(0.0, due_at - monotonic())), hints)


def _doze(link: Link, waker: Waker, use: AbstractContextManager[object], until: float) -> None:
    """Wait until a wake or something is due, and poll meanwhile as long as that finds nothing.

    This is what an idle process does all the time, ten times a second on SQLite; so each turn is
    kept to a few steps. What changes without a word is looked at by a round, now and then.
    """
    while not waker.wait(max(0.0, min(until, link.poll_at) - monotonic())):
        with use:
            if not link.poll(until):
                return


def _up(links: dict[str, Link]) -> dict[str, BaseDatabaseWrapper]:
    """The connections that there are, by alias."""
    return {link.alias: link.connection for link in links.values() if link.connection is not None}


def _adopt(links: dict[str, Link], waker: Waker) -> None:
    """Take on the managers that have been read since the last time."""
    for manager in list(config_manager._managers.values()):
        state = manager._state
        if state.watch is None and (state.committed or state.defaults) is not None:
            alias = manager._alias()
            if alias not in links:
                transport = transports.choose(alias)
                if transport is None:
                    continue
                links[alias] = Link(alias, transport(alias), waker.wake)
                if (why := transports.problem(alias)) is not None:
                    links[alias].transport.give_up(why)
            links[alias].adopt(manager)


def _leave(links: dict[str, Link], member: Member) -> None:
    for link in links.values():
        for manager in link.subjects:
            manager._watched_by(None)
    with suppress(Exception):
        member.leave(_up(links))
    for link in links.values():
        link.close()
    for connection in connections.all(initialized_only=True):
        with suppress(Exception):
            close(connection)


watcher = Watcher()
atexit.register(watcher.stop_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=watcher.before_fork,
        after_in_parent=watcher.after_fork_in_parent,
        after_in_child=watcher.after_fork,
    )
