"""A process that forks children which read and exit; then it says how, and how fast, they ended.

Each is an interpreter that ends as any does. Beside them stands what they cannot do: be started
by ``python -c`` some hundred times, within the time that a suite may take.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time

import django


def main(number: int, *, at_once: bool) -> None:
    """Fork ``number`` children: one after the other, or all at once to wait for a word.

    One after the other, each reads a moment longer than the one before, so that the moment of
    the exit moves through the start of the watcher and its first look at the row.
    """
    django.setup()
    from siteconfig import config

    gc.freeze()  # what a child's last collection looks at would have to be copied for it

    children = []
    for turn in range(number):
        receive, send = os.pipe()
        if not (pid := os.fork()):
            assert config.timeout == 30
            if at_once:
                os.write(1, b'"read"\n')  # at one go, for they share the pipe
                os.read(0, 1)
            else:
                time.sleep(0.002 * turn)
            os.write(send, str(time.monotonic()).encode())
            sys.exit()
        children.append((pid, receive))
        if not at_once:
            tell(*children.pop())
    for pid, receive in children:
        tell(pid, receive)


def tell(pid: int, receive: int) -> None:
    """Say a child's exit status, and how long it took once its main thread had ended."""
    status = os.waitpid(pid, 0)[1]
    took = time.monotonic() - float(os.read(receive, 100) or 0)
    print(json.dumps([status, took]), flush=True)  # noqa: T201 - to the test


if __name__ == "__main__":
    main(int(sys.argv[1]), at_once="at-once" in sys.argv)
