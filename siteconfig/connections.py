"""Through which database connection a reader reads, and whose transaction that puts it in."""

from __future__ import annotations

import asyncio
import os
import selectors
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import ref

from django.db import OperationalError, connections, transaction
from django.db.utils import load_backend

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

    from siteconfig.snapshot import Snapshot

    T = TypeVar("T")
    Read = Callable[[BaseDatabaseWrapper], T]

#: How long, in seconds, a reader waits for a read that another thread makes for it. Without an
#: end, a reader whose own transaction holds the table would wait for a thread that waits for it.
WAIT = 2.0

# A coroutine has no connection: the ORM runs in a thread for it. asgiref carries context variables
# from that thread back to the coroutine, and so it carries whose transaction wrote for it.
_awaited: ContextVar[Mapping[str, OpenTransaction]] = ContextVar("siteconfig_awaited")


class OpenTransaction:
    """A transaction that has written settings: what its writes have in common.

    It is on the connection's ``execute_wrappers`` as long as one of its writes stands.

    Attributes:
        rollbacks: how many rollbacks to a savepoint it has seen. What was read before one may
            have been undone by it.
        told: what receivers were last told from inside it.
    """

    __slots__ = ("__weakref__", "_block", "_connection", "rollbacks", "told")

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        # Weakly: the connection of a thread that has died must be closed, whatever it left open.
        self._connection = ref(connection)
        self._block = connection.atomic_blocks[0] if connection.atomic_blocks else None
        self.rollbacks = 0
        self.told: Snapshot | None = None
        # First: Django's own way to remove one, pop(), takes the last.
        connection.execute_wrappers.insert(0, self)

    @property
    def connection(self) -> BaseDatabaseWrapper | None:
        return self._connection()

    def __call__(self, execute: Any, sql: Any, *arguments: Any) -> Any:
        """Django calls this in place of ``execute``, with each statement of the connection."""
        try:
            return execute(sql, *arguments)
        finally:
            if isinstance(sql, str) and sql[:11].upper() == "ROLLBACK TO":
                self.rollbacks += 1

    def goes_on(self) -> bool:
        """Whether it is certain that the transaction has not ended.

        By the outermost ``atomic`` block. A decorator's block is one object for all its calls;
        but between two calls comes an end, and one that our hook did not hear of leaves Django's
        flag that commit hooks are due.
        """
        connection = self.connection
        return (
            connection is not None
            and self._block is not None
            and connection.atomic_blocks[:1] == [self._block]
            and not connection.run_commit_hooks_on_set_autocommit_on
        )

    def close(self) -> None:
        if (connection := self.connection) is not None:
            with suppress(ValueError):
                connection.execute_wrappers.remove(self)


class PendingWrite:
    """A write in a transaction that has not ended.

    It stands exactly while its hook is in ``connection.run_on_commit``. Django takes the hook
    out at the rollback of its savepoint or transaction, which no signal tells, and at the commit.

    Attributes:
        transaction: the transaction that made the write.
        savepoints: the savepoints that were open when it was made.
        view: the settings as this transaction saw them last; None: not read yet.
        view_at: the state in which ``view`` was read; in another it must be read again.
    """

    __slots__ = ("on_commit", "savepoints", "transaction", "view", "view_at")

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        transaction: OpenTransaction,
        on_commit: Callable[[PendingWrite], None],
    ) -> None:
        self.transaction = transaction
        self.on_commit = on_commit
        self.savepoints = open_savepoints(connection)
        self.view: Snapshot | None = None
        self.view_at: object = None
        if connection.in_atomic_block:
            connection.on_commit(self.committed, robust=True)
        else:
            # With autocommit off Django's on_commit() refuses, but keeps to this list all the
            # same: rollback() empties it, and the hooks run when autocommit is turned on again.
            hook: Any = (set(self.savepoints), self.committed, True)  # as on_commit() makes them
            connection.run_on_commit.append(hook)

    @property
    def connection(self) -> BaseDatabaseWrapper | None:
        return self.transaction.connection

    def committed(self) -> None:
        """The hook."""
        self.on_commit(self)

    def stands(self) -> bool:
        """Whether the write is neither committed nor rolled back."""
        connection = self.connection
        hooks = reversed(connection.run_on_commit) if connection is not None else ()
        return any(getattr(hook[1], "__self__", None) is self for hook in hooks)

    def fate(self) -> list[str]:
        """The savepoints whose rollback would undo the write, outermost first.

        Those that have been released are none of them any more: the write is their parent's.
        """
        connection = self.connection
        still_open = open_savepoints(connection) if connection is not None else []
        return [savepoint for savepoint in self.savepoints if savepoint in still_open]


def open_savepoints(connection: BaseDatabaseWrapper) -> list[str]:
    """The savepoints of ``connection``'s transaction, outermost first."""
    # Django notes the blocks that were entered without one, too: as None.
    return [savepoint for savepoint in connection.savepoint_ids if savepoint]


def in_event_loop() -> bool:
    """Whether this is code of a coroutine."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def orm_refuses() -> bool:
    """Whether Django refuses to use a connection here; its ``async_unsafe`` decides the same."""
    return in_event_loop() and not os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")


def is_ours(connection: BaseDatabaseWrapper) -> bool:
    """Whether ``connection`` is open, and was opened by this process.

    Not by the one that this process was forked from: both would talk through the same socket.
    """
    raw = connection.connection
    return raw is not None and not any(raw is one for one in _inherited)


def in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Whether ``connection`` may see what is not committed, or not see what is."""
    if not is_ours(connection):
        return False
    return connection.in_atomic_block or not connection.autocommit


def remember_transaction(transaction: OpenTransaction, alias: str) -> None:
    """Let the coroutine that awaits this write be taken for a part of its transaction."""
    _awaited.set({**_awaited.get({}), alias: transaction})


def awaited_transaction(alias: str) -> OpenTransaction | None:
    """The transaction in which the caller, a coroutine, has awaited a write."""
    return _awaited.get({}).get(alias) if in_event_loop() else None


def read_inside(connection: BaseDatabaseWrapper, read: Read[T]) -> T:
    """Read as ``connection``'s open transaction sees it, and leave that transaction unharmed."""
    if connections[connection.alias] is not connection:
        # The caller is a coroutine; the thread that owns the connection waits for it meanwhile.
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
    try:
        return result.result(WAIT)
    except TimeoutError:
        if result.done():
            raise  # the call's own
        raise TimeoutError(f"The database did not answer within {WAIT:g} seconds.") from None


def _lend(connection: BaseDatabaseWrapper, read: Read[T]) -> T:
    connection.inc_thread_sharing()
    try:
        return read(connection)
    finally:
        connection.dec_thread_sharing()


def _with_own_connection(alias: str, read: Read[T]) -> T:
    # Made in the thread that uses it, which Django insists on.
    connection = own_connection(alias)
    try:
        return read(connection)
    finally:
        close(connection)


def own_connection(alias: str, settings_alias: str | None = None) -> BaseDatabaseWrapper:
    """A connection to the database ``alias`` that is nobody else's, not open yet.

    It commits each statement, belongs to no pool, and gives up on a database that does not
    answer. It makes no SQLite file, and logs no statements: Django does with ``DEBUG``, and there
    is no end of them in a background thread.

    Args:
        alias: what the connection is to be called.
        settings_alias: the entry of ``DATABASES`` that says how to connect; None: ``alias``.
    """
    settings: dict[str, Any] = {**connections.settings[settings_alias or alias]}
    backend: Any = load_backend(settings["ENGINE"])
    options = {key: value for key, value in settings["OPTIONS"].items() if key != "pool"}
    vendor = backend.DatabaseWrapper.vendor
    if vendor == "postgresql":
        options = {**POSTGRES_OPTIONS, **options}
    elif vendor == "sqlite":
        options["timeout"] = min(options.get("timeout", DEADLINE), DEADLINE)
        settings["NAME"] = _of_existing_file(settings["NAME"])
    settings |= {"OPTIONS": options, "AUTOCOMMIT": True, "ATOMIC_REQUESTS": False}
    connection: BaseDatabaseWrapper = _silent(backend.DatabaseWrapper)(settings, alias)
    if vendor == "postgresql":
        _limit_waiting(connection)
    return connection


@cache
def _silent(wrapper: type[BaseDatabaseWrapper]) -> type[BaseDatabaseWrapper]:
    # A property of Django's, which no instance can have otherwise.
    return type(wrapper.__name__, (wrapper,), {"queries_logged": False})


def _of_existing_file(name: Any) -> str:
    """The name by which SQLite opens a database if it is there, and makes none.

    Where the file has been moved away, an empty one in its place would be in the way of it.
    """
    text = str(name)
    if text.startswith("file:") or text == ":memory:":
        return text
    return f"{Path(text).absolute().as_uri()}?mode=rw"


#: Seconds that a database is given to answer. A half-open connection, whose other end is gone
#: without a word, would else be waited for without end.
DEADLINE = 5.0

#: What libpq can notice of a dead peer by itself, in seconds but for the last, in milliseconds.
POSTGRES_OPTIONS = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}


#: A selector that is no file, to be opened and closed each time.
Selector = getattr(selectors, "PollSelector", selectors.DefaultSelector)


def _limit_waiting(connection: Any) -> None:
    """Let each statement on ``connection`` fail that gets no answer within ``DEADLINE``.

    libpq notices a dead host, but not a proxy that acknowledges and does not forward. psycopg 3
    waits in one method, which is replaced here; psycopg 2 waits within libpq.
    """
    connect = connection.get_new_connection

    def get_new_connection(parameters: Any) -> Any:
        raw = connect(parameters)
        if hasattr(raw, "wait"):
            raw.wait = lambda steps, *args, **kwargs: _wait(raw.pgconn, steps)
        return raw

    connection.get_new_connection = get_new_connection


def _wait(pgconn: Any, steps: Generator[int, int, T]) -> T:
    """Go through psycopg's ``steps``, each of which says what it waits for on the socket.

    Raises:
        OperationalError: the time is up, and the connection closed.
    """
    deadline = monotonic() + DEADLINE
    try:
        events = next(steps)
        while True:
            # What psycopg gives and takes are the numbers of selectors: 1 to read, 2 to write.
            with Selector() as selector:
                selector.register(pgconn.socket, int(events))
                # Twice, for the time may be up because this process was stopped.
                ready = selector.select(max(0.0, deadline - monotonic())) or selector.select(0)
            if not ready:
                # The answer that may still come would be in the way of all that follows.
                pgconn.finish()
                raise OperationalError(f"The database did not answer within {DEADLINE} seconds.")
            events = steps.send(ready[0][1])
    except StopIteration as end:
        return cast("T", end.value)


def run_in_thread(call: Callable[[], None]) -> None:
    """Run ``call`` in a thread of its own, do not wait, and close what it opened."""

    def run() -> None:
        try:
            call()
        finally:
            for connection in connections.all(initialized_only=True):
                close(connection)

    Thread(target=run, name="siteconfig-call", daemon=True).start()


def close(connection: BaseDatabaseWrapper) -> None:
    """Close a connection for good."""
    if connection.connection is None:
        return
    # Not connection.close(): it keeps a connection to an in-memory SQLite database open. Nor
    # connection.connection.close(), by which a pool would lose one.
    connection._close()  # type: ignore[attr-defined] # missing in the stubs
    connection.connection = None


#: Connections that the process has from the one it was forked from. They are kept, and neither
#: used nor closed: what is said through one, a good-bye too, is said in the parent's name.
_inherited: list[Any] = []


def _after_fork() -> None:
    each: Any
    for each in connections.all(initialized_only=True):
        # A database in memory is the child's own, as all its memory is: tests run in such a child.
        is_in_memory = each.vendor == "sqlite" and each.is_in_memory_db()
        if each.connection is not None and not is_in_memory:
            _inherited.append(each.connection)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
