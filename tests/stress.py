"""Readers and writers that make a history, for ``tests.history`` to check; run in processes."""

from __future__ import annotations

import faulthandler
import json
import os
import random
import signal
import time
import traceback
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, ClassVar

from django.db import Error, connection, transaction

from siteconfig import config
from siteconfig.config_manager import ConfigManager
from siteconfig.models import SiteConfiguration
from tests.elsewhere import TABLE
from tests.history import START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from siteconfig.snapshot import Snapshot

#: Seconds after which a writer that does not end when it is over hangs.
PATIENCE = 30

LEDGER = {
    "postgresql": "CREATE TABLE ledger (serial bigserial PRIMARY KEY, token text UNIQUE NOT NULL)",
    "sqlite": "CREATE TABLE ledger (serial integer PRIMARY KEY AUTOINCREMENT, token text UNIQUE)",
}


def begin() -> None:
    """Make the tables, and the first state."""
    from django.core.management import call_command

    call_command("migrate", "siteconfig", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute(LEDGER[connection.vendor])
    SiteConfiguration.objects.update(**settings_of(START))
    connection.close()


def settings_of(token: str) -> dict[str, Any]:
    """The settings that are equal to a token."""
    return {
        "site_name": token,
        "api_key": token,
        "support_email": f"{token}@history.example",
        "extra": {"token": token},
    }


def tokens_of(snapshot: Snapshot) -> list[str]:
    """What should be one token, several times."""
    email, extra = snapshot.support_email, snapshot.get_setting("token", "")
    return [snapshot.site_name, snapshot.api_key, email.partition("@")[0], extra]


class Notes:
    """What this process has seen, in a file of its own: a line each, written at once."""

    def __init__(self, folder: str, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.descriptor = os.open(Path(folder, f"{name}.seen"), flags)
        self.done = os.open(Path(folder, f"{name}.done"), flags)
        self.is_begun = False

    def see(self, who: str, snapshot: Snapshot, least: str | None = None) -> None:
        # Who starts while the database is away has the defaults, but nobody has them later.
        self.is_begun |= snapshot._source == "row"
        if not self.is_begun:
            return
        line = json.dumps([who, time.monotonic(), tokens_of(snapshot), least])
        os.write(self.descriptor, f"{line}\n".encode())

    def do(self, what: str) -> None:
        os.write(self.done, f"{what}\n".encode())


# Readers


class Reader:
    """Threads that read all the time, and what the manager adopts."""

    def __init__(self, folder: str, name: str, threads: int = 2) -> None:
        self.notes = Notes(folder, name)
        self.is_over = Event()
        self.note_adoptions()
        self.threads = [Thread(target=self.read, args=(f"thread {n}",)) for n in range(threads)]
        for thread in self.threads:
            thread.start()

    def note_adoptions(self) -> None:
        # Called under the manager's lock with each publication, so that the order is right.
        settle, adopted = ConfigManager._settle, list[Any]([None])

        def note_and_settle(manager: ConfigManager) -> None:
            settle(manager)
            state = manager._state
            if state.fresh and state.committed and state.committed is not adopted[0]:
                adopted[0] = state.committed
                self.notes.see("adopted", state.committed)

        ConfigManager._settle = note_and_settle  # type: ignore[assignment, method-assign]

    def read(self, who: str) -> None:
        last = None
        while True:
            is_over = self.is_over.is_set()  # asked first: what is read then is the end
            for _ in range(20):
                snapshot = config.snapshot()
                if snapshot is not last:
                    self.notes.see(who, snapshot)
                    last = snapshot
            if is_over:
                return
            time.sleep(0.0005)

    def end(self, token: str, patience: float) -> float:
        """Wait until ``token`` has been seen, but no longer than ``patience``; how long it took."""
        begun = time.monotonic()
        while config.site_name != token and time.monotonic() < begun + patience:
            time.sleep(0.001)
        took = time.monotonic() - begun
        self.is_over.set()
        for thread in self.threads:
            thread.join()
        return took


# Writers


def write(folder: str, name: str, seed: str, seconds: float) -> list[str]:
    """Let children write, one after another: each is killed at some time; what went wrong."""
    deadline = time.monotonic() + seconds
    chance = random.Random(seed)
    faults = []
    for incarnation in count():
        child = os.fork()
        if child == 0:
            faulthandler.enable()
            os._exit(Writer(folder, f"{name}.{incarnation}", chance.random(), deadline).run())
        killed_at = time.monotonic() + chance.uniform(0.2, 1.5)
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            time.sleep(0.005)
            if killed_at <= time.monotonic() < deadline:
                os.kill(child, signal.SIGKILL)
            elif time.monotonic() > deadline + PATIENCE:
                os.kill(child, signal.SIGABRT)  # which tells where it hangs
        status = os.waitstatus_to_exitcode(ended[1])
        if status not in (0, -signal.SIGKILL):
            faults.append(f"{name}.{incarnation} ended with {status}")
        if time.monotonic() >= deadline:
            return faults
    raise AssertionError


class Writer:
    """A process that writes until it is over, or killed."""

    def __init__(self, folder: str, name: str, seed: float, deadline: float) -> None:
        self.name = name
        self.notes = Notes(folder, name)
        self.random = random.Random(seed)
        self.deadline = deadline
        self.numbers = count(1)
        self.committed: str | None = None

    def run(self) -> int:
        """The exit status."""
        ways = self.ways()
        try:
            while time.monotonic() < self.deadline:
                way = next(ways)
                token = f"{self.name}.{next(self.numbers)}"
                try:
                    way(self, token)
                    self.notes.do(way.__name__)
                except Error:  # a server that is restarted
                    connection.close()
                    self.notes.do("failed")
                self.look()
                time.sleep(self.random.uniform(0, 0.01))
            connection.close()
        except BaseException:  # noqa: BLE001 - the test is to see it
            traceback.print_exc()
            return 1
        return 0

    def look(self) -> None:
        """Note what is seen, which is at least what has been committed here.

        Unless the database has gone away right after the commit: then last known values are.
        """
        is_away = config.status().last_error
        snapshot = config.snapshot()
        is_away = is_away or config.status().last_error
        self.notes.see("writer", snapshot, None if is_away else self.committed)

    def enter(self, token: str) -> None:
        """Into the ledger; the row has been written, so that nobody else can be at it."""
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO ledger (token) VALUES (%s)", [token])

    def set(self, token: str) -> None:
        settings = settings_of(token)
        config.set_settings(**settings.pop("extra"), **settings)

    # Ways to write

    def commit(self, token: str) -> None:
        with transaction.atomic():
            self.set(token)
            self.enter(token)
            own = tokens_of(config.snapshot())
        # After the commit: without a connection even an own write is not seen.
        assert set(own) == {token}, f"{own} was seen inside the transaction that wrote {token}"
        self.committed = token

    def commit_twice(self, token: str) -> None:
        """In one transaction: nobody else may see the first of both."""
        with transaction.atomic():
            self.set(f"{token}.first")
            _ = config.site_name
            self.set(token)
            self.enter(token)
        self.committed = token

    def update(self, token: str) -> None:
        with transaction.atomic():
            SiteConfiguration.objects.update(**settings_of(token))
            self.enter(token)
        self.committed = token

    def write_raw(self, token: str) -> None:
        """Past Django's models; now and then with the version of a restored backup."""
        settings = settings_of(token)
        settings["extra"] = json.dumps(settings["extra"])
        if self.random.random() < 0.3:
            settings["version"] = 1
        with transaction.atomic(), connection.cursor() as cursor:
            columns = ", ".join(f"{name} = %s" for name in settings)
            cursor.execute(f"UPDATE {TABLE} SET {columns}", list(settings.values()))
            self.enter(token)

    def roll_back(self, token: str) -> None:
        with transaction.atomic():
            self.set(token)
            self.enter(token)
            _ = config.site_name
            transaction.set_rollback(True)

    def roll_back_to_savepoint(self, token: str) -> None:
        """Before or after a write that stands."""
        is_first = self.random.random() < 0.5
        with transaction.atomic():
            if is_first:
                self.set(token)
                self.enter(token)
            with transaction.atomic():
                self.set(f"{token}.undone")
                self.enter(f"{token}.undone")
                _ = config.site_name
                transaction.set_rollback(True)
            if not is_first:
                self.set(token)
                self.enter(token)
        self.committed = token

    def die_before(self, token: str) -> None:
        """With all said but the word to commit."""
        self.commit_by(self.die, token)

    def die_after(self, token: str) -> None:
        """Before anything that follows a commit in this process, such as telling others."""
        commit = connection._commit  # type: ignore[attr-defined] # missing in the stubs

        def commit_and_die() -> None:
            commit()
            self.die()

        self.commit_by(commit_and_die, token)

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def commit_by(self, commit: Callable[[], object], token: str) -> None:
        connection._commit = commit  # type: ignore[attr-defined]
        try:
            self.commit(token)
        finally:
            del connection._commit  # type: ignore[attr-defined]

    def ways(self) -> Iterator[Callable[[Writer, str], None]]:
        """First each that it outlives, for it may be killed soon; then whichever, without end."""
        first = [way for way, weight in self.WAYS.items() if weight > 1]
        yield from self.random.sample(first, len(first))
        while True:
            yield from self.random.choices(list(self.WAYS), list(self.WAYS.values()))

    #: How often each is chosen; the least often those that end it.
    WAYS: ClassVar[dict[Callable[[Writer, str], None], int]] = {
        commit: 40,
        commit_twice: 8,
        update: 12,
        write_raw: 12,
        roll_back: 12,
        roll_back_to_savepoint: 12,
        die_before: 1,
        die_after: 1,
    }
