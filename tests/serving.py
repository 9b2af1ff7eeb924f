"""Servers of ``tests.site``, the clients that read there, and the browser that edits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from html.parser import HTMLParser
from http.client import HTTPConnection, HTTPException
from http.cookies import SimpleCookie
from select import select
from tempfile import TemporaryFile
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

from tests.processes import ROOT, environment_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: Seconds after which what has not happened has failed the test.
PATIENCE = 30

#: The page that ``tests.site`` adds.
SEE, SEE_ASYNC = "/see/", "/see-async/"

ADMIN_PAGE = "/admin/siteconfig/siteconfiguration/"

#: Who may log in.
USER = {"username": "admin", "password": "made up"}


def eventually(check: Callable[[], object], what: Callable[[], object]) -> None:
    """Return once ``check`` is true; ``what`` tells how it is if it never is."""
    deadline = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < deadline, what()
        time.sleep(0.01)


class Running:
    """A program, with what it prints in a file; it and its children end with the block.

    Args:
        settings: what its settings have beside, or instead of, the tests' own.
        args: what Python is to run.
        log: the file.
    """

    def __init__(
        self, settings: dict[str, Any], args: Sequence[str], log: Path, **environment: str
    ) -> None:
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(  # noqa: S603 - our own code
                [sys.executable, *args],
                cwd=ROOT,
                env=environment_for(settings) | {"PYTHONUNBUFFERED": "1"} | environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,  # a group of its own, by which its children are ended too
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, check: Callable[[], object]) -> None:
        """Return once ``check`` is true; fail with what was printed if it ends before."""

        def is_over() -> bool:
            assert self.process.poll() is None, self.output
            return bool(check())

        eventually(is_over, lambda: self.output)

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"It does not end.\n{self.output}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # Its children are the group's, and may outlive it.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


class Script:
    """A Python process that says things, one a line, and may wait until it is told to go on.

    Args:
        settings: what its settings have beside, or instead of, the tests' own.
        args: what Python is to run.
    """

    def __init__(self, settings: dict[str, Any], args: Sequence[str], **environment: str) -> None:
        self._errors = TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__
        self.process = subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, *args],
            cwd=ROOT,
            env=environment_for(settings) | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        self._said = b""

    def says(self, patience: float = PATIENCE) -> Any:
        """What it says next."""
        assert self.process.stdout
        deadline = time.monotonic() + patience
        while b"\n" not in self._said:
            left = deadline - time.monotonic()
            ready = left > 0 and select([self.process.stdout], [], [], left)[0]
            more = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            assert more, self.errors()
            self._said += more
        line, _, self._said = self._said.partition(b"\n")
        return json.loads(line)

    def go_on(self) -> None:
        """Let it, and all that it has forked, go on."""
        assert self.process.stdin
        self.process.stdin.close()

    def end(self) -> tuple[int, float]:
        """How it ends, and when."""
        return self.process.wait(PATIENCE), time.monotonic()

    def errors(self) -> str:
        """What it has written to its standard error."""
        self._errors.seek(0)
        return self._errors.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with self.process, self._errors:  # closes the pipes, and the file
            pass


def request(
    port: int, path: str, form: dict[str, str] | None = None, **headers: str
) -> tuple[int, list[str], str]:
    """Status, cookies and body of the answer to a request of its own connection."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        if form is None:
            connection.request("GET", path, headers=headers)
        else:
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", path, urlencode(form), kind | headers)
        response = connection.getresponse()
        cookies = response.headers.get_all("Set-Cookie") or []
        return response.status, cookies, response.read().decode()
    finally:
        connection.close()


def serving(port: int) -> int | None:
    """The pid of the process that serves there; None: nobody answers."""
    try:
        status, _, body = request(port, SEE)
        return int(json.loads(body)["pid"]) if status == 200 else None
    except (OSError, HTTPException, ValueError):  # or it ended in the middle of an answer
        return None


class Form(HTMLParser):
    """The fields of a page's last form, as a browser would send them back."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self._name = ""  # of the element whose text, or choices, come now
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        name = given.get("name", self._name)
        if tag == "form":
            self.fields = {}
        elif tag == "input" and given.get("type") == "checkbox":
            if "checked" in given:
                self.fields[name] = given.get("value", "on")
        elif tag == "input" and name and given.get("type") != "submit":
            self.fields[name] = given.get("value", "")
        elif tag in ("select", "textarea"):
            self._name = name
        elif tag == "option" and ("selected" in given or name not in self.fields):
            self.fields[name] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("select", "textarea"):
            self.fields.setdefault(self._name, "")
            self._name = ""

    def handle_data(self, data: str) -> None:
        if self._name and self.lasttag == "textarea":
            # The first line break belongs to the markup.
            self.fields[self._name] = data.removeprefix("\r\n").removeprefix("\n")


class Browser:
    """Somebody who is logged in to the admin, and edits there."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._cookies: dict[str, str] = {}
        self.submit("/admin/login/", **USER)

    def submit(self, path: str, **changes: object) -> None:
        """Fill in the form of a page, and send it."""
        status, page = self._ask(path)
        assert status == 200, page
        fields = Form(page).fields
        assert fields.keys() >= changes.keys() | {"csrfmiddlewaretoken"}, page
        status, page = self._ask(path, fields | {name: str(one) for name, one in changes.items()})
        assert status == 302, [line for line in page.splitlines() if "errorlist" in line]

    def edit(self, **changes: object) -> None:
        """Change settings on their page."""
        self.submit(ADMIN_PAGE, **changes)

    def _ask(self, path: str, form: dict[str, str] | None = None) -> tuple[int, str]:
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        status, set_cookies, page = request(self.port, path, form, Cookie=cookies)
        for cookie in set_cookies:
            self._cookies |= {name: one.value for name, one in SimpleCookie(cookie).items()}
        return status, page


class Readers:
    """Clients that ask a page over and over, and keep what they are told.

    Attributes:
        sights: what ``tests.site.sight`` said, each time.
        errors: the answers that were none.
    """

    def __init__(self, port: int, path: str = SEE, number: int = 3) -> None:
        self.sights: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._port, self._path = port, path
        self._changed = Condition()
        self._is_over = Event()
        self._threads = [Thread(target=self._read, daemon=True) for _ in range(number)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def wait_for(self, timeout: int, processes: int) -> set[int]:
        """The pids of so many processes, once each has been seen to serve this value."""

        def pids() -> set[int]:
            return {sight["pid"] for sight in self.sights if sight["timeout"] == timeout}

        with self._changed:
            self._changed.wait_for(lambda: len(pids()) >= processes or self.errors, PATIENCE)
            assert not self.errors
            assert len(pids()) == processes, (timeout, {one["pid"]: one for one in self.sights})
            return pids()

    def _read(self) -> None:
        while not self._is_over.is_set():
            try:
                status, _, body = request(self._port, self._path)
                sight = json.loads(body) if status == 200 else None
                error = "" if sight else f"{status}: {body}"
            except Exception as failure:  # noqa: BLE001 - any is one too many
                sight, error = None, repr(failure)
            with self._changed:
                if sight:
                    self.sights.append(sight)
                else:
                    self.errors.append(error)
                self._changed.notify_all()
            if error:
                return


def gone_back(sights: Sequence[dict[str, Any]]) -> list[tuple[Any, Any]]:
    """The pairs of reads, in one process, of which the later gave the older value.

    The later is the one that began when the other one had ended. The values grow.
    """
    pairs = []
    for pid in {sight["pid"] for sight in sights}:
        own = [sight for sight in sights if sight["pid"] == pid]
        by_end = sorted(own, key=lambda sight: float(sight["ended"]))
        newest, ended = None, 0
        for sight in sorted(own, key=lambda sight: float(sight["began"])):
            while by_end[ended]["ended"] < sight["began"]:
                if newest is None or by_end[ended]["timeout"] > newest["timeout"]:
                    newest = by_end[ended]
                ended += 1
            if newest is not None and sight["timeout"] < newest["timeout"]:
                pairs.append((newest, sight))
    return pairs
