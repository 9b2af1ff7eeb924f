"""The fleet: which processes there are, and what each has read.

Each process keeps a row for each config model that it reads: written when what it holds changes,
and every half minute to say that it is alive. Everything is by the clock of the database, so that
the clocks of the hosts need not agree.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from math import inf
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django.apps import apps
from django.db import connections, router, transaction
from django.db.models.functions import Now

from siteconfig.backoff import Backoff
from siteconfig.conf import conf
from siteconfig.config_manager import ConfigManager
from siteconfig.connections import close, own_connection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

    from siteconfig.models import ConfigModel, ConfigProcess
    from siteconfig.snapshot import Snapshot

log = logging.getLogger("siteconfig.fleet")

#: Seconds between two signs of life.
BEAT = 30.0

#: Seconds between two notes of a process, on average, and how many of them may come at once before:
#: a person's quick changes are shown as soon as they are made, and a stream of them costs little.
NOTE_GAP, AT_ONCE = 1.0, 5

#: How many times as long as others the pauses after failures may become, here: for who may only
#: read, or has not migrated, fails each time.
LONGEST_PAUSE = 20

#: Seconds that a note waits for somebody's lock. The settings wait meanwhile.
LOCK_PATIENCE = 0.1

#: No connections.
NOTHING: Mapping[str, BaseDatabaseWrapper] = {}

#: Seconds without one after which a process counts as dead.
LIFE = timedelta(seconds=3 * BEAT + 5)


def process_model() -> type[ConfigProcess]:
    model: type[ConfigProcess] = apps.get_model("siteconfig.ConfigProcess")
    return model


def database() -> str:
    """The alias of the database in which the processes are noted."""
    return router.db_for_write(process_model())


def obstacle() -> str | None:
    """Why the processes are not noted; None: they are."""
    if not conf.FLEET:
        return "SITECONFIG['FLEET'] is False."
    alias = database()
    mode = connections.settings[alias]["OPTIONS"].get("transaction_mode") or "DEFERRED"
    if connections[alias].vendor == "sqlite" and mode.upper() == "DEFERRED":
        # A transaction that has read cannot turn writer once somebody else has written, however
        # long it would wait. Nobody is to meet that because of a sign of life.
        return (
            f"On SQLite that needs 'transaction_mode': 'IMMEDIATE' in the OPTIONS of "
            f"DATABASES[{alias!r}]: with 'DEFERRED', Django's default, the notes could fail "
            f"transactions that read and then write."
        )
    return None


class Member:
    """This process, as its watcher notes it.

    Attributes:
        size: how many processes there were at the last sign of life.
    """

    def __init__(self) -> None:
        self.token = uuid4().hex
        self.size = 1
        self._noted: dict[ConfigManager, Snapshot] = {}
        self._beat_at = -inf
        #: Each note costs ``NOTE_GAP``; until when those that there were are paid for.
        self._paid_until = -inf
        self._backoff = Backoff(LONGEST_PAUSE)
        self._own: BaseDatabaseWrapper | None = None
        self._obstacle: str | None = None

    def tend(
        self, managers: list[ConfigManager], lent: Mapping[str, BaseDatabaseWrapper] = NOTHING
    ) -> float:
        """Note what is due; never raises an Exception.

        Args:
            managers: those whose rows this process reads.
            lent: connections by alias that may be used; where there is none, our own is.

        Returns:
            When to come again if nothing changes, by the clock ``monotonic``.
        """
        if not managers or self._is_off():
            return inf
        if not self._backoff.is_over():
            return self._backoff.until
        now = monotonic()
        is_beat = now >= self._beat_at
        held = {manager: manager._state.committed for manager in managers}
        news = {
            manager: snapshot
            for manager, snapshot in held.items()
            if snapshot is not None and (is_beat or snapshot is not self._noted.get(manager))
        }
        if news and now < (due_at := self._paid_until - (AT_ONCE - 1) * NOTE_GAP):
            return due_at
        try:
            if news:
                self._paid_until = max(self._paid_until, now) + NOTE_GAP
                self._note(news, lent, is_beat=is_beat)
        except Exception as error:  # noqa: BLE001 - it is for show; the settings do not depend on it
            # Of the second failure: a lock would soon be gone, and of an outage, which ends all
            # attempts until it is over, the settings tell.
            if self._backoff.failures == 1:
                log.info("This process is not noted in the fleet view: %s", error)
            self._backoff.failed()
            self.close()
            return self._backoff.until
        self._backoff.reset()
        if is_beat:
            self._beat_at = now + BEAT
        return self._beat_at

    def _is_off(self) -> bool:
        why = obstacle()
        if why is not None and why != self._obstacle and conf.FLEET:
            # No more: the status tells it, too, and on SQLite each command would say it.
            log.debug("This process is not noted in the fleet view. %s", why)
        self._obstacle = why
        return why is not None

    def _note(
        self,
        news: dict[ConfigManager, Snapshot],
        lent: Mapping[str, BaseDatabaseWrapper],
        *,
        is_beat: bool,
    ) -> None:
        with _impatient(self._connect(lent)):
            for manager, held in news.items():
                self._write(manager._label(), held)
            if is_beat:
                self.size = max(1, living().values("process").distinct().count())
        self._noted |= news

    def leave(self, lent: Mapping[str, BaseDatabaseWrapper] = NOTHING) -> None:
        """Say good-bye, and close what is our own. ``lent`` is as in ``tend``."""
        try:
            if self._noted:
                with _impatient(self._connect(lent)):
                    _delete(process_model().objects.using(database()).filter(process=self.token))
        finally:
            self.close()

    def before_fork(self) -> None:
        """Close a connection to SQLite, which takes a child for its parent."""
        if self._own is not None and self._own.vendor == "sqlite":
            self.close()

    def close(self) -> None:
        """Close our own connection, if there is one; the next note makes another."""
        own, self._own = self._own, None
        if own is not None:
            with suppress(Exception):
                close(own)

    def _connect(self, lent: Mapping[str, BaseDatabaseWrapper]) -> BaseDatabaseWrapper:
        """Let the ORM use a connection in this thread that does not wait without end."""
        alias = database()
        if alias in lent:
            self.close()
            connections[alias] = lent[alias]
        else:
            self._own = self._own or own_connection(alias)
            connections[alias] = self._own
        return connections[alias]

    def _write(self, label: str, held: Snapshot) -> None:
        rows = process_model().objects.using(database())
        state = {"version": held.version, "content": content(held), "seen_at": Now()}
        if not rows.filter(process=self.token, model=label).update(**state):
            # One comes: a good moment to sweep away those who have gone without a word.
            _delete(rows.filter(seen_at__lt=Now() - LIFE))
            one = process_model()(
                process=self.token,
                model=label,
                host=socket.gethostname()[:255],
                pid=os.getpid(),
                **state,
            )
            rows.bulk_create([one])  # which sends no post_save to the project's receivers


def _delete(rows: Any) -> None:
    """Delete rows that nothing refers to, by one statement.

    Not by ``delete()``, which reads each of them first if the project has a receiver of every
    model's ``post_delete``, and sends it.
    """
    rows._raw_delete(rows.db)


@contextmanager
def _impatient(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """A transaction in which no lock is waited for for longer than ``LOCK_PATIENCE``.

    Where the database has a limit for that. What fails by it leaves the connection as good as
    it was; the limit that ends a connection that does not answer is for dead ones.
    """
    milliseconds = int(LOCK_PATIENCE * 1000)
    before = None
    if connection.vendor == "sqlite":
        ((before,),) = _pragma(connection, "busy_timeout")
        _pragma(connection, f"busy_timeout = {milliseconds}")
    try:
        with transaction.atomic(using=connection.alias):
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute(f"SET LOCAL lock_timeout = {milliseconds}")
            yield
    finally:
        if before is not None:
            _pragma(connection, f"busy_timeout = {before}")


def _pragma(connection: BaseDatabaseWrapper, text: str) -> Any:
    with connection.cursor() as cursor:
        return cursor.execute(f"PRAGMA {text}").fetchall()


def living() -> Any:
    """The rows of the processes that are alive."""
    return process_model().objects.using(database()).filter(seen_at__gte=Now() - LIFE)


def content(snapshot: Snapshot) -> str:
    """A short name of what is stored, the same in each process that reads the same columns.

    Beside the version, which raw SQL leaves as it is. Two parts: of the number of columns and of
    what they hold; for releases that know other columns can be compared by the version only.
    """
    stored = snapshot._stored or ()
    return f"{len(stored)}.{blake2b(repr(stored).encode(), digest_size=8).hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process and what it has read."""

    host: str
    pid: int
    version: int
    seen_at: datetime
    """When it last gave a sign of life, or read something new."""
    is_live: bool
    """It has read what the row holds now."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The processes that are alive, as of now."""

    model: str
    """The config model, ``"app_label.ModelName"``."""
    version: int
    """The version of the row."""
    processes: tuple[Process, ...]
    obstacle: str | None = None
    """Why no process is noted; None: they are."""

    @property
    def live(self) -> int:
        """How many have read what the row holds now."""
        return sum(process.is_live for process in self.processes)

    @property
    def behind(self) -> tuple[Process, ...]:
        """The others."""
        return tuple(process for process in self.processes if not process.is_live)


def report(model: type[ConfigModel], patience: float = 0.0, row: Snapshot | None = None) -> Report:
    """Which processes read the settings of ``model``, and which of them are up to date.

    Args:
        model: the config model.
        patience: seconds to wait for those that are not.
        row: what the row says, if the caller has just read it.

    Raises:
        django.db.Error: the database cannot be asked.
    """
    if (why := obstacle()) is not None:
        version = ConfigManager(model).snapshot().version
        return Report(model=model._meta.label, version=version, processes=(), obstacle=why)
    connection = connections[router.db_for_write(model)]
    with ExitStack() as savepoints:
        aliases = {connection.alias, database()}
        inside = [alias for alias in aliases if connections[alias].in_atomic_block]
        for alias in inside:
            # On PostgreSQL a table that is missing would else spoil the transaction.
            savepoints.enter_context(transaction.atomic(using=alias))
        if inside:
            # There is no waiting in a transaction, which may not see what others write, and on
            # SQLite keeps them from writing.
            return _report(model, row or model.read(connection))
    deadline = monotonic() + patience
    while (now := _report(model, row or model.read(connection))).behind and monotonic() < deadline:
        row = None
        sleep(0.02)
    return now


def _report(model: type[ConfigModel], row: Snapshot) -> Report:
    right = content(row)
    return Report(
        model=model._meta.label,
        version=row.version,
        processes=tuple(
            Process(
                host=one.host,
                pid=one.pid,
                version=one.version,
                seen_at=one.seen_at,
                is_live=one.version == row.version
                and (one.content == right or _columns(one.content) != _columns(right)),
            )
            for one in living().filter(model=model._meta.label).order_by("host", "pid")
        ),
    )


def _columns(content: str) -> str:
    return content.partition(".")[0]
