"""Through which database connection a reader reads, and whose transaction that puts it in."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextvars import ContextVar
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import connections, transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

    from siteconfig.snapshot import Snapshot

    T = TypeVar("T")
    Read = Callable[[BaseDatabaseWrapper], T]

#: How long, in seconds, a reader waits for a read that another thread makes for it. Without an
#: end, a reader whose own transaction holds the table would wait for a thread that waits for it.
WAIT = 2.0

# A coroutine has no connection: the ORM runs in a thread for it. asgiref carries context variables
# from that thread back to the coroutine, and so it carries which connection wrote for it.
_written_through: ContextVar[Mapping[str, BaseDatabaseWrapper]] = ContextVar(
    "siteconfig_written_through"
)


class PendingWrite:
    """A write in a transaction that has not ended.

    It stands exactly while its hook is in ``connection.run_on_commit``. Django takes the hook
    out at the rollback of its savepoint or transaction, which no signal tells, and at the commit.

    Attributes:
        connection: the connection whose transaction made the write.
        savepoints: the savepoints that were open when it was made.
        view: the settings as this transaction saw them last; None: not read yet.
        view_base: the committed snapshot at the time ``view`` was read.
        current: nothing has been written since ``view`` was read.
        told: what receivers were last told from inside this transaction.
    """

    __slots__ = ("connection", "current", "on_commit", "savepoints", "told", "view", "view_base")

    def __init__(
        self, connection: BaseDatabaseWrapper, on_commit: Callable[[PendingWrite], None]
    ) -> None:
        self.connection = connection
        self.on_commit = on_commit
        self.savepoints = open_savepoints(connection)
        self.view: Snapshot | None = None
        self.view_base: Snapshot | None = None
        self.current = False
        self.told: Snapshot | None = None
        if connection.in_atomic_block:
            connection.on_commit(self.committed, robust=True)
        else:
            # With autocommit off Django's on_commit() refuses, but keeps to this list all the
            # same: rollback() empties it, and the hooks run when autocommit is turned on again.
            hook: Any = (set(self.savepoints), self.committed, True)  # as on_commit() makes them
            connection.run_on_commit.append(hook)

    def committed(self) -> None:
        """The hook."""
        self.on_commit(self)

    def stands(self) -> bool:
        """Whether the write is neither committed nor rolled back."""
        hooks = (hook[1] for hook in self.connection.run_on_commit)
        return any(getattr(hook, "__self__", None) is self for hook in hooks)

    def fate(self) -> list[str]:
        """The savepoints whose rollback would undo the write, outermost first.

        Those that have been released are none of them any more: the write is their parent's.
        """
        still_open = open_savepoints(self.connection)
        return [savepoint for savepoint in self.savepoints if savepoint in still_open]


def open_savepoints(connection: BaseDatabaseWrapper) -> list[str]:
    """The savepoints of ``connection``'s transaction, outermost first."""
    # Django notes the blocks that were entered without one, too: as None.
    return [savepoint for savepoint in connection.savepoint_ids if savepoint]


def in_event_loop() -> bool:
    """Whether this is code of a coroutine, where Django's ORM refuses to work."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Whether ``connection`` may see what is not committed, or not see what is."""
    connected = connection.connection is not None
    return connection.in_atomic_block or (connected and not connection.autocommit)


def readers_connection(alias: str) -> BaseDatabaseWrapper | None:
    """The connection whose transaction the caller is in, as far as settings go."""
    if in_event_loop():
        return _written_through.get({}).get(alias)
    return connections[alias]


def remember_writer(connection: BaseDatabaseWrapper) -> None:
    """Let the coroutine that awaits this write be taken for a part of its transaction."""
    _written_through.set({**_written_through.get({}), connection.alias: connection})


def read_inside(connection: BaseDatabaseWrapper, read: Read[T]) -> T:
    """Read as ``connection``'s open transaction sees it, and leave that transaction unharmed."""
    if in_event_loop():
        # The thread that owns the connection waits for this coroutine meanwhile.
        return _in_thread(partial(_lend, connection, read))
    # In a savepoint: on PostgreSQL a failed statement would spoil the caller's transaction.
    with transaction.atomic(using=connection.alias):
        return read(connection)


def read_outside(alias: str, read: Read[T]) -> T:
    """Read what is committed, in a thread with a connection of its own.

    Raises:
        TimeoutError: the read took longer than ``WAIT``.
        Exception: whatever ``read`` raised.
    """
    return _in_thread(partial(_with_own_connection, alias, read))


def _in_thread(call: Callable[[], T]) -> T:
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            result.set_exception(error)

    Thread(target=run, name="siteconfig-read", daemon=True).start()
    return result.result(WAIT)


def _lend(connection: BaseDatabaseWrapper, read: Read[T]) -> T:
    connection.inc_thread_sharing()
    try:
        return read(connection)
    finally:
        connection.dec_thread_sharing()


def _with_own_connection(alias: str, read: Read[T]) -> T:
    # Made in the thread that uses it, which Django insists on.
    connection = connections.create_connection(alias)
    try:
        return read(connection)
    finally:
        _close(connection)


def run_in_thread(call: Callable[[], None]) -> None:
    """Run ``call`` in a thread of its own, do not wait, and close what it opened."""

    def run() -> None:
        try:
            call()
        finally:
            for connection in connections.all(initialized_only=True):
                _close(connection)

    Thread(target=run, name="siteconfig-call", daemon=True).start()


def _close(connection: BaseDatabaseWrapper) -> None:
    # Not connection.close(): it keeps a connection to an in-memory SQLite database open.
    if connection.connection is not None:
        connection.connection.close()
        connection.connection = None
