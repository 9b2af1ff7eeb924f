"""The site of the tests of servers: the reference site, and a page that tells what it sees."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

#: The variable of the environment that lets the site read a setting as soon as it is imported.
READS_FIRST = "SITE_READS_FIRST"

#: The variable that names the broker of the site's tasks.
BROKER = "SITE_BROKER"


def sight() -> dict[str, Any]:
    """What this process sees, and when, by the clock that all processes of a machine share."""
    from siteconfig import config

    began = time.monotonic()
    timeout = config.timeout
    return {
        "pid": os.getpid(),
        "timeout": timeout,
        "began": began,
        "ended": time.monotonic(),
        "watchers": len(watchers()),
    }


def watchers() -> list[threading.Thread]:
    """The threads of this process that watch for changes."""
    return [one for one in threading.enumerate() if one.name == "siteconfig-watcher"]


def read_first() -> None:
    """Read a setting, if the site is told to read at once."""
    if READS_FIRST in os.environ:
        from siteconfig import config

        _ = config.timeout
