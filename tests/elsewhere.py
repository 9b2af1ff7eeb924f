"""Other processes, as plain connections: they write to the settings' row, and tell of it or not."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.db.utils import ConnectionHandler

from siteconfig.transports.base import CHANNEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from siteconfig.watcher import Link
    from tests.servers import Postgres, Redis

TABLE = "siteconfig_siteconfiguration"
LABEL = "siteconfig.siteconfiguration"


@contextmanager
def default_database(entry: dict[str, Any]) -> Iterator[None]:
    """Let ``default`` be another database in this process, for threads that have not used it."""
    old_settings, old = connections.settings["default"], connections["default"]
    connections.settings["default"] = ConnectionHandler({"default": entry}).settings["default"]
    del connections["default"]
    try:
        yield
    finally:
        connections["default"].close()
        connections.settings["default"] = old_settings
        connections["default"] = old


class Elsewhere:
    """Another process that writes to the row, by raw SQL; it commits each statement.

    Attributes:
        settings: what is in SITECONFIG for the watcher to work with it.
    """

    settings: dict[str, Any]
    mark = "?"

    def execute(self, statement: str, *params: Any) -> Any:
        raise NotImplementedError

    def write(self, timeout: int) -> None:
        """Commit, and tell nobody."""
        self.execute(f"UPDATE {TABLE} SET timeout = {self.mark}", timeout)

    def announce(self) -> None:
        """Tell of a commit, as this app does in other processes."""

    def commit(self, timeout: int) -> None:
        self.write(timeout)
        self.announce()

    def disconnect(self, link: Link) -> None:
        """End the connection by which ``link`` is told; the server has done so on return."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class ElsewhereOnSQLite(Elsewhere):
    settings = {"TRANSPORT": "poll"}

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def execute(self, statement: str, *params: Any) -> Any:
        return self.connection.execute(statement, params).fetchall()

    def close(self) -> None:
        self.connection.close()


class ElsewhereOnPostgres(Elsewhere):
    """With the poll, unless a subclass says otherwise."""

    settings = {"TRANSPORT": "poll"}
    mark = "%s"

    def __init__(self, server: Postgres, database: str) -> None:
        self.server = server
        self.connection = server.connect(database)

    def execute(self, statement: str, *params: Any) -> Any:
        cursor = self.connection.execute(statement.encode(), params)
        return cursor.fetchall() if cursor.description else []

    def disconnect(self, link: Link) -> None:
        assert self.server.terminate_backends("pid = %s", [backend_pid(link)]) == 1

    def close(self) -> None:
        self.connection.close()


class ElsewhereByNotify(ElsewhereOnPostgres):
    settings = {"TRANSPORT": "postgres"}

    def announce(self) -> None:
        self.execute(f"SELECT pg_notify('{CHANNEL}', '{LABEL}')")


class ElsewhereByRedis(ElsewhereOnPostgres):
    def __init__(self, server: Postgres, database: str, redis: Redis) -> None:
        super().__init__(server, database)
        self.redis, self.client = redis, redis.client()
        self.settings = {"TRANSPORT": "redis", "REDIS_URL": redis.url}

    def announce(self) -> None:
        self.client.publish(CHANNEL, LABEL)

    def disconnect(self, link: Link) -> None:
        assert self.client.client_kill_filter(_type="pubsub") == 1

    def close(self) -> None:
        super().close()
        self.client.close()


def backend_pid(link: Link) -> int:
    """The server's process that serves the connection of a link to PostgreSQL."""
    assert link._connection is not None
    raw: Any = link._connection.connection
    return raw.info.backend_pid
