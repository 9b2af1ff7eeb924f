"""LISTEN and NOTIFY of PostgreSQL, through psycopg 3."""

from __future__ import annotations

import logging
import selectors
from contextlib import nullcontext
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, cast
from uuid import uuid4

from django.db import Error as DatabaseError
from django.db import connections, transaction

from siteconfig.backoff import Backoff
from siteconfig.connections import close, in_transaction, own_connection
from siteconfig.transports.base import CHANNEL, Transport

psycopg: Any
try:
    import psycopg
except ImportError:  # the extra siteconfig[postgres]
    psycopg = None

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

log = logging.getLogger("siteconfig.transports")

#: Before 3.2.4 a notification that came between two looks was lost (psycopg issue 962).
OLDEST_PSYCOPG = (3, 2, 4)

#: Seconds after which the server is asked whether it is still there, if no poll does that before.
#: With the time that it is given to answer, a dead connection is given up within 10 s.
ASK_AFTER = 4.0

#: Seconds that a notification of our own is given to come back.
SELF_CHECK_PATIENCE = 2.0


class Postgres(Transport):
    """The writer notifies inside its transaction: PostgreSQL delivers it at the commit, if any."""

    name: ClassVar[str] = "postgres"

    #: The databases, by alias, that have taken a notification of this process, and those that
    #: have refused one.
    _takers: ClassVar[set[str]] = set()
    _refusals: ClassVar[dict[str, Backoff]] = {}

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self._connection: BaseDatabaseWrapper | None = None
        self._raw: Any = None
        """What listens; None: nothing does."""
        self._notified: list[str] = []
        self._is_deaf = False
        self._backoff = Backoff()
        self._ask_at = 0.0

    @classmethod
    def problems(cls, alias: str) -> Iterator[tuple[str, str]]:
        if connections[alias].vendor != "postgresql":
            yield (
                f"the settings are in the database {alias!r}, which is no PostgreSQL.",
                'Write TRANSPORT: "auto", or leave it out.',
            )
        elif psycopg is None or not _is_psycopg3():
            yield "psycopg 3 is not installed.", "Run: pip install 'siteconfig[postgres]'"
        elif _version(psycopg.__version__) < OLDEST_PSYCOPG:
            yield (
                f"psycopg {psycopg.__version__} is installed, which loses notifications.",
                "Run: pip install 'psycopg>=3.2.4'",
            )

    def open(self, connection: BaseDatabaseWrapper) -> None:
        self._connection, self._raw = connection, None
        if self._is_deaf:
            return  # it was found out before, and would take seconds again
        connection.ensure_connection()
        raw: Any = connection.connection
        raw.add_notify_handler(lambda notification: self._notified.append(notification.payload))
        self._try_to_listen(connection)

    def _try_to_listen(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether it listens now. If not, it is tried again: a standby may become the primary."""
        try:
            self._listen(connection)
        except DatabaseError as error:
            if not connection.is_usable():
                raise
            self._backoff.failed()
            self.give_up(f"The server takes no LISTEN: {error}")
        else:
            self._backoff.reset()
        return self._raw is not None

    def _listen(self, connection: BaseDatabaseWrapper) -> None:
        raw: Any = connection.connection
        is_pooled = _backend_pid(connection) != raw.info.backend_pid
        if is_pooled and self._is_shared(connection):
            self._give_up_for_good()
            return
        _execute(connection, f"LISTEN {CHANNEL}")
        try:
            is_heard = not is_pooled or self._hears_itself(raw)
        except DatabaseError:
            _execute(connection, f"UNLISTEN {CHANNEL}")
            raise
        if is_heard:
            self._raw, self._ask_at = raw, monotonic() + ASK_AFTER
            self.take_up()
        else:
            self._give_up_for_good()
            _execute(connection, f"UNLISTEN {CHANNEL}")

    def _is_shared(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether a pooler lends the server's session of ``connection`` to others in between.

        Asked before a LISTEN, which would stay in a session that is lent to others later. It is
        certain if so; if not, there may have been other sessions to lend.
        """
        ours = _backend_pid(connection)
        other = own_connection(self.alias)
        try:
            other.set_autocommit(False)  # keeps the session that it is lent
            return _backend_pid(other) == ours or _backend_pid(connection) != ours
        finally:
            close(other)

    def _give_up_for_good(self) -> None:
        self._is_deaf = True
        self.give_up(
            "A connection pooler swallows the notifications. Name a database entry that "
            "reaches PostgreSQL directly in SITECONFIG['LISTEN_DATABASE']"
        )

    def fileno(self) -> int | None:
        # A connection that was lost in a query has none.
        return None if self._raw is None or self._raw.closed else self._raw.pgconn.socket

    def heard(self) -> bool:
        if self._raw is None:
            is_due = self._connection is not None and monotonic() >= self._backoff.retry_at()
            return is_due and self._try_to_listen(cast("BaseDatabaseWrapper", self._connection))
        if monotonic() >= self._ask_at:
            self._ask_at = monotonic() + ASK_AFTER
            self._raw.execute("SELECT 1")
        self._raw.pgconn.consume_input()
        self._take(self._raw)
        heard, self._notified[:] = bool(self._notified), []
        return heard

    def is_pending(self) -> bool:
        if self._raw is None:
            return False
        if self._raw.closed:
            return True  # heard() is to find that out
        self._take(self._raw)
        return bool(self._notified)

    def due_at(self) -> float:
        return self._backoff.retry_at() if self._raw is None else self._ask_at

    def may_have_changed(self) -> bool:
        self._ask_at = monotonic() + ASK_AFTER  # the look that follows asks the same
        return True

    def _take(self, raw: Any) -> None:
        """Take what has been read from the socket.

        What came along with the answer to a statement has been handed to the handler, or is still
        to be taken, though the socket is silent.
        """
        while (notification := raw.pgconn.notifies()) is not None:
            self._notified.append(notification.extra.decode(errors="replace"))

    def close(self) -> None:
        self._connection = self._raw = None

    def _hears_itself(self, raw: Any) -> bool:
        """Whether a notification that another session sends arrives while this one is idle."""
        token = f"self-check {uuid4()}"
        other = own_connection(self.alias)  # the way that writers take
        try:
            _notify(other, token)
        finally:
            close(other)
        pgconn = raw.pgconn
        deadline = monotonic() + SELF_CHECK_PATIENCE
        with selectors.DefaultSelector() as selector:
            selector.register(pgconn.socket, selectors.EVENT_READ)
            while (left := deadline - monotonic()) > 0:
                selector.select(left)
                pgconn.consume_input()
                self._take(raw)
                if token in self._notified:
                    return True
        return False

    @classmethod
    def announce_write(cls, label: str, using: str) -> None:
        """See ``Transport``.

        The first time in a savepoint, for a server may have no NOTIFY, and the statement's error
        would spoil the writer's transaction. Not each time: that is two statements more.

        Raises:
            django.db.Error: the transaction that has written cannot go on.
        """
        connection, backoff = connections[using], cls._refusals.get(using)
        if backoff is not None and not backoff.is_over():
            return
        try:
            with nullcontext() if using in cls._takers else transaction.atomic(using=using):
                _notify(connection, label)
        except DatabaseError as error:
            is_spoilt = using in cls._takers and in_transaction(connection)
            cls._takers.discard(using)
            if is_spoilt or connection.needs_rollback:
                raise
            cls._refusals.setdefault(using, Backoff()).failed()
            if backoff is None:
                log.warning("The server takes no NOTIFY, so others poll for changes: %s", error)
        else:
            cls._takers.add(using)
            cls._refusals.pop(using, None)


def _notify(connection: BaseDatabaseWrapper, payload: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, payload])


def _execute(connection: BaseDatabaseWrapper, statement: str) -> Any:
    """The first row of the answer, if there is one."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone() if cursor.description else None


def _backend_pid(connection: BaseDatabaseWrapper) -> int:
    """The number of the server's process that answers.

    A pooler answers in the server's place when a connection is made, and under a number of its
    own. Behind one that gives each client a server for the whole session notifications arrive.
    """
    (pid,) = _execute(connection, "SELECT pg_backend_pid()")
    return int(pid)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit())


def _is_psycopg3() -> bool:
    # Imported late: it fails without any driver.
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return bool(is_psycopg3)
