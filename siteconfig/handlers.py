"""LogFileHandler: a log file that many processes write, from which no line is lost."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from siteconfig.formatters import one_line
from siteconfig.redaction import Redactor

try:
    import fcntl
except ImportError:  # pragma: no cover - not on Windows, where the file is not rotated
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator

CAN_ROTATE = fcntl is not None

#: What the file is made with, less the umask: others than owner and group cannot read it.
MODE = 0o640

#: Not through a symbolic link: somebody else may have laid it. Not into child programs.
FLAGS = (
    os.O_WRONLY
    | os.O_APPEND
    | os.O_CREAT
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
)

redacted = Redactor()

#: Seconds between two lines on stderr that say the file cannot be written.
COMPLAIN_INTERVAL = 60.0


class LogFileHandler(logging.Handler):
    """Append each record to a file, as one line, by one unbuffered write.

    Any number of processes and threads may write the same file: the system appends each write
    as a whole, and nothing waits in a buffer for a process that is killed, or for a lock that
    was held when it forked. It can be used in any ``LOGGING``, by its dotted path.

    The file may be renamed (logrotate), deleted or replaced at any time: each record goes to the
    file that is at the path then. What cannot be written, because the disk is full or the folder
    gone, is counted, and the first line that can be written says how many it were. Nothing is
    raised to the caller, and no half line stays in the file.

    Args:
        filename: path of the file. Opened, and made if need be, with the first record.
        max_bytes: rotate before the file grows larger, in bytes; 0: never. Needs ``fcntl``.
        backups: how many rotated files to keep, ``filename.1`` the newest; 0: none.
    """

    def __init__(self, filename: str | Path, max_bytes: int = 0, backups: int = 5) -> None:
        super().__init__()
        self.path = os.path.abspath(filename)  # noqa: PTH100 - without following links
        self.max_bytes = max_bytes if CAN_ROTATE else 0
        self.backups = backups
        self.dropped = 0
        self._complained: float | None = None
        self._descriptor: int | None = None
        self._opened: tuple[int, int, int] | None = None
        """Which file is open, in which process: device, inode, pid."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one physical line, whatever it holds."""
        try:
            text = super().format(record)
        except Exception as error:  # noqa: BLE001 - arguments that do not fit are still news
            message = f"{record.msg!r} with {record.args!r} (not formatted: {error})"
            text = super().format(_plain(record, message))
        return one_line(redacted(text))

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; never raises an Exception."""
        try:
            line = _encoded(self.format(record))
            if self.dropped:
                line = _encoded(self.format(self._report(record))) + line
            self._write(line)
            self.dropped = 0
        except RecursionError:
            raise  # as logging's own handlers do: hiding it would hide the loop
        except Exception as error:  # noqa: BLE001 - logging must not fail what it reports on
            self.dropped += 1
            self._complain(f"misses {self.dropped} lines that could not be written", error)

    def close(self) -> None:
        """Close the file; a later record opens it again."""
        self.acquire()
        try:
            self._forget()
        finally:
            self.release()
        super().close()

    def _write(self, line: bytes) -> None:
        descriptor, size = self._current()
        if self.max_bytes and size and size + len(line) > self.max_bytes:
            try:
                self._rotate(descriptor)
            except OSError as error:
                # The line is worth more than the size.
                self._complain("could not be rotated", error)
            descriptor, size = self._current()
        written = os.write(descriptor, line)
        if written < len(line):
            self._take_back(descriptor, written)
            raise OSError(f"only {written} of {len(line)} bytes could be written")

    def _current(self) -> tuple[int, int]:
        """A descriptor of the file that is at the path now, and the file's size in bytes."""
        try:
            there = os.stat(self.path, follow_symlinks=False)  # noqa: PTH116 - the faster spelling
        except FileNotFoundError:
            there = None
        # A child must not share its parent's descriptor: with it they would share its position.
        if there is None or self._opened != (there.st_dev, there.st_ino, os.getpid()):
            self._forget()
            self._descriptor = os.open(self.path, FLAGS, MODE)
            there = os.fstat(self._descriptor)
            self._opened = (there.st_dev, there.st_ino, os.getpid())
        assert self._descriptor is not None  # noqa: S101 - for type checkers
        return self._descriptor, there.st_size

    def _forget(self) -> None:
        descriptor, self._descriptor, self._opened = self._descriptor, None, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _rotate(self, descriptor: int) -> None:
        """Rename the file, unless somebody else has just done so or is doing it."""
        with _exclusively(descriptor) as locked:
            if not locked or not _same_file(descriptor, self.path):
                return
            if not self.backups:
                Path(self.path).unlink()
                return
            # Move up what is in the way, as far as the first number that is free.
            number = 1
            while number < self.backups and Path(f"{self.path}.{number}").exists():
                number += 1
            for free in range(number, 1, -1):
                Path(f"{self.path}.{free - 1}").replace(f"{self.path}.{free}")
            Path(self.path).replace(f"{self.path}.1")

    def _take_back(self, descriptor: int, written: int) -> None:
        """Cut a half line off the end of the file, if it is still the end."""
        end = os.lseek(descriptor, 0, os.SEEK_CUR)
        if os.fstat(descriptor).st_size == end:
            os.ftruncate(descriptor, end - written)

    def _report(self, record: logging.LogRecord) -> logging.LogRecord:
        lines = "1 line" if self.dropped == 1 else f"{self.dropped} lines"
        return _plain(record, f"{lines} before this could not be written", logging.WARNING)

    def _complain(self, problem: str, error: Exception) -> None:
        """Say on stderr, at most once a minute, what is wrong with the file."""
        now = monotonic()
        if self._complained is not None and now - self._complained < COMPLAIN_INTERVAL:
            return
        self._complained = now
        with contextlib.suppress(Exception):
            text = f"siteconfig: {self.path} {problem}: {type(error).__name__}: {error}"
            sys.stderr.write(f"{one_line(redacted(text))}\n")


@contextlib.contextmanager
def _exclusively(descriptor: int) -> Iterator[bool]:
    """Hold the file's lock, if it is to be had at once.

    Never wait for it: a process that was stopped while it held it would stop all others. And give
    it back by name: a child forked meanwhile has a copy of the descriptor, which would keep it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _same_file(descriptor: int, path: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))  # noqa: PTH116
    return False


def _plain(record: logging.LogRecord, message: str, level: int | None = None) -> logging.LogRecord:
    """A record like ``record``, with another message and nothing else to format."""
    values = {**record.__dict__, "msg": message, "args": None}
    if level is not None:
        name = logging.getLevelName(level)
        values |= {"levelno": level, "levelname": name, "exc_info": None, "exc_text": None}
    return logging.makeLogRecord(values)


def _encoded(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace") + b"\n"
