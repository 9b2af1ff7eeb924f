"""The parent of the test servers: it ends them, and removes their files, once the tests are gone.

A script of its own, because only another process outlives a test process that is killed. As the
servers' parent it knows their pids without a doubt. It reads requests from its standard input, one
a line, and answers each with a line. It needs nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

#: Seconds a process has to end by itself; PostgreSQL takes 5 to give up on its own children.
PATIENCE = 8

#: Free bytes of a file system in memory from which on it is used: PostgreSQL's log may take a GB.
ROOM = 4 << 30


def open_to_all(place: Path) -> bool:
    """Whether any user can go through ``place`` and the folders above it."""
    try:
        return all(one.stat().st_mode & stat.S_IXOTH for one in (place, *place.resolve().parents))
    except OSError:
        return False


def make_folder(*places: str) -> Path:
    """A new folder in the first of ``places`` where every user the servers may run as can go."""
    place = next((one for one in places if open_to_all(Path(one))), places[0])
    folder = Path(tempfile.mkdtemp(prefix="siteconfig-servers-", dir=place))
    if os.geteuid() == 0:
        folder.chmod(0o711)
    return folder


def make_folders() -> list[Path]:
    """A new folder on the disk, and one in memory, where PostgreSQL starts in half the time.

    Where memory cannot be had or is small, as in many a container, both are the one on the disk.
    """
    disk = make_folder(tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108 - mkdtemp
    memory = Path("/dev/shm")  # noqa: S108 - mkdtemp
    if not open_to_all(memory) or shutil.disk_usage(memory).free < ROOM:
        return [disk, disk]
    return [disk, make_folder(str(memory))]


class Children:
    """The processes that were started, each with the signal that ends it at once."""

    def __init__(self) -> None:
        self._all: dict[int, tuple[subprocess.Popen[bytes], int]] = {}

    def start(self, args: list[str], log: str, end: int, **options: Any) -> int:
        """Start a process; its pid."""
        with Path(log).open("ab") as file:
            child = subprocess.Popen(  # noqa: S603 - what the tests ask for
                args, stdin=subprocess.DEVNULL, stdout=file, stderr=file, **options
            )
        self._all[child.pid] = (child, end)
        return child.pid

    def poll(self, pid: int) -> int | None:
        """The exit status of a process; None while it runs."""
        return self._all[pid][0].poll()

    def signal(self, pid: int, number: int) -> None:
        """Send a signal, unless the process has ended."""
        self._all[pid][0].send_signal(number)

    def end(self) -> None:
        """End all, and wait until they have."""
        for child, number in self._all.values():
            child.send_signal(number)
        deadline = time.monotonic() + PATIENCE
        for child, _ in self._all.values():
            try:
                child.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def remove(folder: Path) -> None:
    """Remove a folder, though a server's children may still be about to end and write to it."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def serve(children: Children) -> None:
    """Answer requests until there are no more."""
    for line in sys.stdin:
        name, arguments = json.loads(line)
        if name == "quit":
            return
        try:
            answer = {"result": getattr(children, name)(**arguments)}
        except OSError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer


def main() -> None:
    """Serve one test process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    folders = make_folders()
    children = Children()
    try:
        print(json.dumps({"result": [str(one) for one in folders]}), flush=True)  # noqa: T201
        serve(children)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        children.end()
        for folder in folders:
            remove(folder)


if __name__ == "__main__":
    main()
