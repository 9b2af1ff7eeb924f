"""Threads, processes and failpoints for tests: they meet at barriers, never by luck."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from django.db import connections

from siteconfig.models import ConfigModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parent.parent

#: Seconds after which a test gives up waiting; nothing takes nearly as long.
PATIENCE = 20


class Changes(list[dict[str, Any]]):
    """A receiver that keeps what it is told."""

    def __call__(self, **told: Any) -> None:
        self.append(told)

    __hash__ = object.__hash__  # type: ignore[assignment]

    @property
    def timeouts(self) -> list[tuple[int, int]]:
        return [(one["old"].timeout, one["new"].timeout) for one in self]


class Started:
    """A thread that runs ``call``; it closes the connections it opened."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.future: Future[Any] = Future()
        self.thread = Thread(target=self._run, args=(call,), daemon=True)
        self.thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self.future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            self.future.set_exception(error)
        finally:
            connections.close_all()

    def result(self) -> Any:
        result = self.future.result(PATIENCE)
        self.thread.join(PATIENCE)
        return result


def in_thread(call: Callable[[], Any]) -> Any:
    """What ``call`` returns in another thread."""
    return Started(call).result()


def in_child(call: Callable[[], object]) -> int:
    """Run ``call`` in a forked child; the child's exit status, 0 if it ended well and in time."""
    with warnings.catch_warnings():
        # CPython 3.12 warns of a fork beside threads, which is what such a test is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(PATIENCE)  # ends a child that hangs
            call()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


class Failpoint:
    """Stops the first thread that comes to a point until it is let go."""

    def __init__(self) -> None:
        self.reached = Event()
        self.released = Event()
        self.used = False

    def __call__(self) -> None:
        if not self.used:
            self.used = True
            self.reached.set()
            assert self.released.wait(PATIENCE)


def wait_until(condition: Callable[[], object]) -> None:
    """Fail if the condition does not come true in time."""
    deadline = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < deadline
        sleep(0.001)


@contextmanager
def after_each_read(call: Callable[[], None]) -> Iterator[None]:
    """Run ``call`` whenever the row has been read, before anybody is given what was read."""
    original = ConfigModel.__dict__["read"]

    @classmethod  # type: ignore[misc]
    def read(cls: type[ConfigModel], *args: Any) -> Any:
        snapshot = original.__func__(cls, *args)
        call()
        return snapshot

    ConfigModel.read = read  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ConfigModel.read = original  # type: ignore[method-assign]


def python(code: str, *, settings: str = "tests.settings", **environment: str) -> str:
    """What a new Python process with this code prints; its errors fail the test."""
    ran = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": settings, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
