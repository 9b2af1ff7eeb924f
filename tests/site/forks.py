"""Processes that fork, and then say how their children ended."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from threading import Barrier, Event, Thread

import django

#: How many children there are, and how many at a time.
FORKS, AT_A_TIME = 200, 4

#: Seconds that a child may take.
PATIENCE = 20


def write_in_children(number: int, database: str) -> list[int]:
    """Let children write to a database of SQLite, one after the other; their exit statuses."""
    from siteconfig import config
    from tests.processes import wait_for

    ends = []
    for timeout in range(31, 31 + number):
        if not (pid := os.fork()):
            status = 1
            try:
                assert open_files(database) == []
                config.set_setting("timeout", timeout)
                status = 0
            except BaseException:  # noqa: BLE001 - for the reader of the test's output
                traceback.print_exc()
            finally:
                os._exit(status)
        ends.append(end_of(pid))
        if ends[-1] != 0:
            break
        wait_for(timeout)
    return ends


def end_of(pid: int) -> int:
    """The exit status of a child, which is killed if it hangs."""
    deadline = time.monotonic() + PATIENCE
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)
    return ended[1]


def open_files(path: str) -> list[str]:
    """Which files whose paths begin so are open in this process; on Linux."""
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        return []
    names = []
    for descriptor in descriptors.iterdir():
        with suppress(FileNotFoundError):  # the folder itself
            names.append(str(descriptor.readlink()))
    return [name for name in names if name.startswith(path)]


def main() -> None:
    """Fork while threads read and log."""
    django.setup()
    from django.db import connection

    from siteconfig import Logger, config
    from tests.processes import wait_for

    over, together = Event(), Barrier(5, timeout=PATIENCE)

    def read_and_log() -> None:
        """What is in memory."""
        together.wait()
        while not over.wait(0.001):
            Logger().info("The parent sees %s", config.timeout)

    def reload_and_log() -> None:
        """What is in the database: under every lock there is."""
        # Through a connection of its own. While one is made, OpenSSL holds locks that a child would
        # find held for ever: that is between the threads and the forks of a program.
        connection.ensure_connection()
        together.wait()
        while not over.is_set():
            Logger().info("The parent reads %s", config.reload().timeout)
        connection.close()

    def child(number: int) -> None:
        assert config.timeout == 30
        Logger().info("Child %s", number)
        if number % 10:
            os._exit(0)
        sys.exit(0)  # as an interpreter ends by itself, which takes longer

    # A connection of the main thread's, which each child has a copy of.
    connection.ensure_connection()
    wait_for(30)
    sys.setswitchinterval(1e-6)  # so that threads are often stopped while they hold a lock
    gc.freeze()  # what a child's last collection looks at would have to be copied for it
    say("ready")
    sys.stdin.readline()
    threads = [Thread(target=target) for target in (read_and_log, reload_and_log) for _ in "12"]
    for thread in threads:
        thread.start()
    together.wait()
    ends: Counter[int] = Counter()
    for first in range(0, FORKS, AT_A_TIME):
        children = []
        for number in range(first, first + AT_A_TIME):
            if not (pid := os.fork()):
                return child(number)
            children.append(pid)
        ends.update(map(end_of, children))
        if set(ends) != {0}:
            break  # it is known now, and those that hang take their time
    over.set()
    for thread in threads:
        thread.join()
    say(ends)
    wait_for(31)
    connection.cursor().execute("SELECT 1")
    say("heard")


def say(what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201 - to the test


if __name__ == "__main__":
    # CPython 3.12 warns of a fork beside threads, which is what this is about.
    warnings.simplefilter("ignore", DeprecationWarning)
    main()
