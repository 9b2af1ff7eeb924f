"""Processes of a site for tests: each does what it is told, and says what it sees.

``python -m tests.processes`` is such a process: it runs the statements, and evaluates the
expressions, that come in on its standard input.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from math import inf
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent

#: Seconds after which a process that does not answer has failed the test.
PATIENCE = 60


class Process:
    """A Python process with Django set up.

    Args:
        settings: what its settings have beside, or instead of, the tests' own.
    """

    def __init__(self, settings: dict[str, Any], args: Sequence[str] = (), **environment: str):
        self.process = subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, *args, "-m", "tests.processes"],
            cwd=ROOT,
            env=environment_for(settings) | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def begin(self, code: str) -> None:
        """Let it evaluate an expression, or run statements; ``end`` takes the answer."""
        assert self.process.stdin
        print(json.dumps(code), file=self.process.stdin, flush=True)

    def end(self, patience: float = PATIENCE) -> Any:
        """What it answers to the code that was begun."""
        assert self.process.stdout
        if not select([self.process.stdout], [], [], patience)[0]:
            raise AssertionError(f"Process {self.pid} has not answered for {patience} seconds.")
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"Process {self.pid} ended with {self.process.wait(PATIENCE)}.")
        answer = json.loads(line)
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer["value"]

    def run(self, code: str) -> Any:
        """What an expression gives there; statements give None."""
        self.begin(code)
        return self.end()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self._close_pipes()

    def leave(self) -> int:
        """Let it end by itself; its exit status."""
        assert self.process.stdin
        with suppress(OSError):
            self.process.stdin.close()
        try:
            return self.process.wait(PATIENCE)
        finally:
            self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                self.signal(signal.SIGCONT)
            self.kill()
        else:
            self._close_pipes()


def environment_for(settings: dict[str, Any]) -> dict[str, str]:
    """The environment of a process with these settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    return kept | {
        "DJANGO_SETTINGS_MODULE": "tests.settings_process",
        "SITECONFIG_TEST_PROCESS": json.dumps(settings, default=str),
    }


def manage(settings: dict[str, Any], *args: str) -> str:
    """What ``manage.py`` prints with these settings; its errors fail the test."""
    ran = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "manage.py", *args],
        cwd=ROOT,
        env=environment_for(settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


# In the process


def wait_for(value: Any, name: str = "timeout", patience: float = 30.0) -> float:
    """When a setting has this value, by the clock that all processes of a machine share."""
    from siteconfig import config

    deadline = time.monotonic() + patience
    while getattr(config, name) != value:
        if time.monotonic() > deadline:
            raise AssertionError(
                f"{name} is {getattr(config, name)}, not {value}; {config.status()}"
            )
        time.sleep(0.0005)
    return time.monotonic()


def write(value: Any, name: str = "timeout", patience: float = 30.0) -> float:
    """Save a setting as soon as the database lets it; when it was committed, by the same clock."""
    from django.db import Error, connection

    from siteconfig import config

    deadline = time.monotonic() + patience
    while True:
        try:
            config.set_setting(name, value)
            return time.monotonic()
        except Error:
            if time.monotonic() > deadline:
                raise
            connection.close()
            time.sleep(0.01)


def tune(**siteconfig: Any) -> None:
    """Change keys of SITECONFIG, among them POLL_INTERVAL, and poll accordingly from now on."""
    from django.conf import settings

    from siteconfig.models import SiteConfiguration
    from siteconfig.watcher import watcher

    settings.SITECONFIG = {**settings.SITECONFIG, **siteconfig}
    tuned_at = time.monotonic()
    for link in watcher.links.values():
        # Until the watcher has begun an interval of the new length.
        while not tuned_at <= link._poll_at <= time.monotonic() + siteconfig["POLL_INTERVAL"]:
            link._poll_at = -inf
            watcher.ensure(SiteConfiguration)
            time.sleep(0.01)


class Errors(logging.Handler):
    """Keeps what the app reports as a fault of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


def main() -> None:
    import django

    django.setup()
    from django.db import connection, transaction

    from siteconfig import ConfigManager, config
    from siteconfig.models import SiteConfiguration

    namespace: dict[str, Any] = {
        **{"ConfigManager": ConfigManager, "SiteConfiguration": SiteConfiguration, "os": os},
        **{"config": config, "connection": connection, "transaction": transaction},
        **{"time": time, "wait_for": wait_for, "write": write, "tune": tune, "errors": Errors()},
    }
    logging.getLogger("siteconfig").addHandler(namespace["errors"])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the code prints is for the reader of the test's output
    for line in sys.stdin:
        try:
            answer = {"value": evaluate(json.loads(line), namespace)}
        except BaseException:  # noqa: BLE001 - the test is to see it
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer, default=str), file=answers, flush=True)


def evaluate(code: str, namespace: dict[str, Any]) -> Any:
    try:
        expression = compile(code, "<told>", "eval")
    except SyntaxError:
        exec(compile(code, "<told>", "exec"), namespace)  # noqa: S102 - our own tests' code
        return None
    return eval(expression, namespace)  # noqa: S307 - the same


if __name__ == "__main__":
    main()
