"""Faults within the watcher's thread, each at a step of its work, twice in a row."""

from __future__ import annotations

import os
import resource
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import connection

from siteconfig import config, fleet, row
from siteconfig import watcher as module
from siteconfig.models import SiteConfiguration
from siteconfig.transports.base import CHANNEL
from siteconfig.transports.postgres import Postgres
from siteconfig.watcher import watcher
from tests.concurrency import wait_until
from tests.elsewhere import TABLE
from tests.processes import wait_for
from tests.site import watchers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds after which something has failed the test.
PATIENCE = 20

#: The steps, by the name of the function that makes each; and where that is.
STEPS: dict[str, Any] = {
    "own_connection": module,
    "open": Postgres,
    "heard": Postgres,
    "may_have_changed": Postgres,
    "stored": row.RowReader,
    "snapshot": row.RowReader,
    "tend": fleet.Member,
    "wait": module.Waker,
}

#: Those of them that only a new connection asks for.
CONNECTING = {"own_connection", "open"}

ERRORS: list[BaseException] = [
    MemoryError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "made up"),
    SystemExit(),
    KeyboardInterrupt(),
    ValueError(),
]


def survive(step: str) -> None:
    """Fail unless the same thread goes on after each of the errors at a step."""
    _ = config.timeout
    (thread,) = watchers()
    for error in ERRORS:
        with failing_twice(step, error) as raised:
            if step in CONNECTING:
                end_other_sessions()
            write(config.timeout + 1)
            while not raised.wait(0.01):
                watcher.ensure(SiteConfiguration)  # ends the pause after an error
            go_on()
        assert watchers() == [thread], (step, error)


def survive_without_descriptors() -> None:
    """Fail unless the same thread goes on after a time in which it could open nothing."""
    _ = config.timeout
    (thread,) = watchers()
    connection.ensure_connection()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        end_other_sessions()
        wait_until(lambda: config.status().last_error)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    go_on()
    assert watchers() == [thread]


def let_a_fork_wait_for_a_connection() -> None:
    """Fail if this process forks while its watcher is making a connection."""
    patience, module.FORK_PATIENCE = module.FORK_PATIENCE, PATIENCE
    forked = threading.Event()
    try:
        with connecting() as released:
            threading.Thread(target=lambda: forked.set() if fork() == 0 else None).start()
            assert not forked.wait(0.2)
            released.set()
            assert forked.wait(PATIENCE)
    finally:
        module.FORK_PATIENCE = patience
    go_on()


def let_no_fork_wait_for_a_server() -> None:
    """Fail if a fork waits until the watcher has made its connection, however long that takes."""
    with connecting() as released:
        assert fork() == 0
        assert not released.is_set()
        released.set()
    go_on()


def fork() -> int:
    """The exit status of a child that does nothing."""
    if not (pid := os.fork()):
        os._exit(0)
    return os.waitpid(pid, 0)[1]


@contextmanager
def connecting() -> Iterator[threading.Event]:
    """Let the watcher be about to connect, until the event is set, but not for ever."""
    reached, released = threading.Event(), threading.Event()

    def hold(original: Callable[..., Any], *args: Any) -> Any:
        reached.set()
        released.wait(PATIENCE)
        released.set()
        return original(*args)

    with replaced(module, "own_connection", hold):
        _ = config.timeout
        while not reached.wait(0.05):
            end_other_sessions()
        yield released


def go_on() -> None:
    """Wait until what is written is seen, and what is written next."""
    watcher.ensure(SiteConfiguration)  # as above
    wait_for(stored())
    write(stored() + 1)
    wait_for(stored())


@contextmanager
def failing_twice(step: str, error: BaseException) -> Iterator[threading.Event]:
    """Let the watcher's thread meet ``error`` the next two times that it comes to a step."""
    raised = threading.Event()
    left = [error, error]

    def fail(original: Callable[..., Any], *args: Any) -> Any:
        if left and threading.current_thread() in watchers():
            one = left.pop()
            if not left:
                raised.set()
            raise one
        return original(*args)

    with replaced(STEPS[step], step, fail):
        yield raised


@contextmanager
def replaced(owner: Any, name: str, replacement: Callable[..., Any]) -> Iterator[None]:
    """Let ``replacement`` be called in a function's place, and be given it first."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *args: replacement(original, *args))
    try:
        yield
    finally:
        setattr(owner, name, original)


def write(timeout: int) -> None:
    """Change the setting by raw SQL, which this process learns from its watcher alone."""
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {TABLE} SET timeout = %s", [timeout])
        cursor.execute(f"NOTIFY {CHANNEL}")


def stored() -> int:
    """The setting as the database has it."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT timeout FROM {TABLE}")
        (timeout,) = cursor.fetchone()
    return int(timeout)


def end_other_sessions() -> None:
    """Close this process's other connections from the server's side."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
