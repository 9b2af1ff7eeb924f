"""Pools of two processes each, of which both take part in whatever they are asked."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import django

from tests.site import sight

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

SIZE = 2

#: Seconds after which a pool that does not see a value has failed the test.
PATIENCE = 30


class Pool:
    """A pool of a kind: ``"fork"``, ``"spawn"`` or ``"executor"``, which is that of futures."""

    def __init__(self, kind: str) -> None:
        context: Any = multiprocessing.get_context("fork" if kind == "executor" else kind)
        given = (context.Barrier(SIZE),)
        self._pool: Any
        if kind == "executor":
            self._pool = ProcessPoolExecutor(SIZE, context, begin, given)
        else:
            self._pool = context.Pool(SIZE, begin, given)

    def wait_for(self, timeout: int) -> list[int]:
        """The pids of the workers, once each has seen this value."""
        deadline = time.monotonic() + PATIENCE
        while True:
            sights = list(self._pool.map(look, range(SIZE)))
            assert len({one["pid"] for one in sights}) == SIZE
            assert {one["watchers"] for one in sights} == {1}, sights
            if {one["timeout"] for one in sights} == {timeout}:
                return sorted(one["pid"] for one in sights)
            assert time.monotonic() < deadline, sights

    def write(self, timeout: int) -> None:
        """Change the setting in each of the workers."""
        list(self._pool.map(write, [timeout] * SIZE))

    def end(self) -> None:
        """Let the workers end by themselves, and wait for that."""
        if isinstance(self._pool, ProcessPoolExecutor):
            self._pool.shutdown()
        else:
            self._pool.close()
            self._pool.join()


# In the workers

_together: Barrier


def begin(together: Barrier) -> None:
    """Before all else; a forked one has been set up in its parent."""
    global _together
    _together = together
    django.setup()


def look(_number: int) -> dict[str, Any]:
    """What this worker sees, while the other one looks, too."""
    _together.wait(PATIENCE)
    return sight()


def write(timeout: int) -> None:
    """Change the setting."""
    from siteconfig import config

    config.set_setting("timeout", timeout)
