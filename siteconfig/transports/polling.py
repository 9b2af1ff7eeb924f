"""The poll: looking at the row once each interval, on any database."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from siteconfig.transports.base import Transport

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper


#: Seconds between two looks at which file is there.
FILE_INTERVAL = 1.0


class Polling(Transport):
    """No hints: the poll alone."""

    name: ClassVar[str] = "poll"


class SQLitePolling(Polling):
    """The poll of an SQLite file: the row is looked at only if anything has been written.

    Whether it has is a question to the library, not to the file, and takes some microseconds; so
    it can be asked ten times as often.
    """

    def open(self, connection: BaseDatabaseWrapper) -> None:
        raw: Any = connection.connection
        ((_number, _name, path),) = raw.execute("PRAGMA database_list").fetchall()[:1]
        self._path, self._index_path = Path(path), Path(f"{path}-shm")
        # Of this one connection all along: each counts the writes of all others from its own start.
        # Past Django's cursor, which takes ten times as long.
        self._cursor = raw.cursor()
        self._data_version = self._ask()  # first: it makes the index of the log
        self._file = self._which_file()
        self._look_at_file_at = monotonic() + FILE_INTERVAL

    def interval(self) -> float:
        return 0.1

    def may_have_changed(self) -> bool:
        """See ``Transport``.

        Raises:
            OSError: the file has been replaced; the connection still reads the old one.
        """
        if (now := monotonic()) >= self._look_at_file_at:
            self._look_at_file_at = now + FILE_INTERVAL
            if self._which_file() != self._file:
                raise OSError(f"The database {self._path} has been replaced by another file.")
        before, self._data_version = self._data_version, self._ask()
        return before != self._data_version

    def _which_file(self) -> tuple[int, int, int]:
        """Of the database, and of the index of its write-ahead log, which a connection maps.

        Who puts a backup in the place of the first removes the second. Another one's writes would
        be in a log and an index that this connection does not know.
        """
        there = self._path.stat()
        try:
            index = self._index_path.stat().st_ino
        except FileNotFoundError:
            index = 0  # there is no such log
        return there.st_dev, there.st_ino, index

    def _ask(self) -> list[tuple[int]]:
        # To the end at once: while a statement is open, its connection sees nothing new.
        answer: list[tuple[int]] = self._cursor.execute("PRAGMA data_version").fetchall()
        return answer
