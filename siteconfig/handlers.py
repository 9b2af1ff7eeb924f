"""LogFileHandler: a log file that many processes write, from which no line is lost."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakSet

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

DEFAULT = logging.Formatter()

#: In place of a descriptor, a device or an inode: there is none.
CLOSED = -1

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
        # The open file, and which one it is.
        self._descriptor: int = CLOSED
        self._inode: int = CLOSED
        self._device: int = CLOSED
        _handlers.add(self)

    def format(self, record: logging.LogRecord) -> str:
        """The record as one physical line, whatever it holds."""
        try:
            text = (self.formatter or DEFAULT).format(record)
        except Exception as error:  # noqa: BLE001 - arguments that do not fit are still news
            message = f"{record.msg!r} with {record.args!r} (not formatted: {error})"
            text = (self.formatter or DEFAULT).format(_plain(record, message))
        text = redacted(text)
        # Most lines are harmless, which this asks for less.
        return text if text.isprintable() else one_line(text)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; never raises an Exception."""
        try:
            text = f"{self.format(record)}\n"
            if self.dropped:
                text = f"{self.format(self._report(record))}\n{text}"
            self._write(text.encode("utf-8", "backslashreplace"))
            self.dropped = 0
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

    def _write(self, data: bytes) -> None:
        try:
            there = os.lstat(self.path)
            if there.st_ino != self._inode or there.st_dev != self._device:
                there = self._open()
        except FileNotFoundError:
            there = self._open()
        if self.max_bytes and there.st_size and there.st_size + len(data) > self.max_bytes:
            self._rotate()
        written = os.write(self._descriptor, data)
        if written < len(data):
            self._take_back(written)
            raise OSError(f"only {written} of {len(data)} bytes could be written")

    def _open(self) -> os.stat_result:
        """Open the file that is at the path now, or make it."""
        self._forget()
        self._descriptor = os.open(self.path, FLAGS, MODE)
        there = os.fstat(self._descriptor)
        self._inode, self._device = there.st_ino, there.st_dev
        return there

    def _forget(self) -> None:
        descriptor = self._descriptor
        self._descriptor = self._inode = self._device = CLOSED
        if descriptor != CLOSED:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _rotate(self) -> None:
        """Make room: rename the file, and open the one that is at the path then."""
        try:
            self._rename()
        except OSError as error:
            # The line is worth more than the size.
            self._complain("could not be rotated", error)
        self._open()

    def _rename(self) -> None:
        """Rename the file, unless somebody else has just done so or is doing it."""
        with _exclusively(self._descriptor) as locked:
            if not locked or not _same_file(self._descriptor, self.path):
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

    def _take_back(self, written: int) -> None:
        """Cut a half line off the end of the file, if it is still the end."""
        end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        if os.fstat(self._descriptor).st_size == end:
            os.ftruncate(self._descriptor, end - written)

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
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    return False


def _plain(record: logging.LogRecord, message: str, level: int | None = None) -> logging.LogRecord:
    """A record like ``record``, with another message and nothing else to format."""
    values = {**record.__dict__, "msg": message, "args": None}
    if level is not None:
        name = logging.getLevelName(level)
        values |= {"levelno": level, "levelname": name, "exc_info": None, "exc_text": None}
    return logging.makeLogRecord(values)


#: Every handler of the process.
_handlers: WeakSet[LogFileHandler] = WeakSet()


def _after_fork() -> None:
    """In a child process: no descriptor is shared with the parent, nor then its position."""
    for handler in list(_handlers):
        handler._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
