"""A database or a Redis that is away, at the start or later: reads go on, and it heals (G8)."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.processes import Process, manage
from tests.servers import PostgresServer, Proxy, RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.long

#: Keeps what the app logs, in the process.
KEEP_LOG = """
import logging
class Keep(logging.Handler):
    lines = []
    def emit(self, record):
        Keep.lines.append(f"{record.levelname}: {record.getMessage()}")
logging.getLogger("siteconfig").addHandler(Keep())
logging.getLogger("siteconfig").setLevel("INFO")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        server.create_database("site")
        manage({"DATABASES": {"default": server.django("site")}}, "migrate", "-v0")
        yield server


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as redis:
        yield redis


@pytest.fixture(autouse=True)
def _servers_run(server: PostgresServer, redis: RedisServer) -> Iterator[None]:
    yield
    for one in (server, redis):
        if not one.is_running:
            one.start()


@pytest.fixture
def start(server: PostgresServer) -> Iterator[Callable[..., Process]]:
    """Start a process of the site with these keys in SITECONFIG."""
    started: list[Process] = []

    def start(**siteconfig: Any) -> Process:
        settings = {
            "DATABASES": {"default": server.django("site")},
            "SITECONFIG": {"POLL_INTERVAL": 0.2, **siteconfig},
            "ROOT_URLCONF": "siteconfig.urls",
            "ALLOWED_HOSTS": ["testserver"],
        }
        process = Process(settings)
        process.run(KEEP_LOG)
        started.append(process)
        return process

    yield start
    for process in started:
        process.__exit__()


def until(process: Process, condition: str, patience: float = 30) -> None:
    """Wait until an expression is true in the process."""
    deadline = time.monotonic() + patience
    while not process.run(condition):
        assert time.monotonic() < deadline, process.run("config.status()")
        time.sleep(0.02)


def health(process: Process) -> tuple[int, dict[str, Any]]:
    """What ``health/`` answers there."""
    process.run("from django.test import Client")
    process.run("answer = Client().get('/health/')")
    return process.run("answer.status_code"), process.run("answer.json()")


def test_away_at_the_start(start: Any, server: PostgresServer) -> None:
    """The defaults are served, and the row as soon as it can be read; nobody restarts anything."""
    server.execute("UPDATE siteconfig_siteconfiguration SET timeout = 77", database="site")
    server.stop()
    process = start()
    assert process.run("config.timeout") == 30
    assert process.run("config.status().source") == "default"
    status, content = health(process)
    assert (status, content["status"], content["age"]) == (503, "stale", None)
    assert content["last_error"] == "OperationalError"
    server.start()
    until(process, "config.timeout == 77")
    assert health(process)[0] == 200
    assert [line.partition(":")[0] for line in process.run("Keep.lines")] == ["WARNING", "INFO"]


def test_away_at_the_start_with_a_last_known_good_file(
    start: Any, server: PostgresServer, tmp_path: Path
) -> None:
    """What the last process knew is served."""
    server.execute("UPDATE siteconfig_siteconfiguration SET timeout = 78", database="site")
    file = str(tmp_path / "settings.json")
    assert start(LAST_KNOWN_GOOD=file).run("config.timeout") == 78
    server.stop()
    process = start(LAST_KNOWN_GOOD=file)
    assert process.run("config.timeout") == 78
    assert process.run("config.status().source") == "file"
    assert health(process)[0] == 503
    server.start()
    until(process, "config.status().source == 'row'")


def test_away_later(start: Any, server: PostgresServer) -> None:
    """The last known values are served without a query; the status tells how old they are."""
    process = start(MAX_STALENESS=0.5)
    assert process.run("config.set_setting('timeout', 50) or config.timeout") == 50
    until(process, "config.status().transport == 'postgres'")
    assert health(process)[0] == 200
    server.stop("immediate")
    until(process, "config.status().last_error")
    until(process, "config.status().age > 0.5")
    status, content = health(process)
    assert (status, content["source"], content["fresh"]) == (503, "row", False)
    assert content["transport_error"] == "The database 'default' cannot be read."
    begun = time.monotonic()
    assert process.run("[config.timeout for _ in range(100_000)][-1]") == 50
    assert time.monotonic() - begun < 5
    server.start()
    server.execute("UPDATE siteconfig_siteconfiguration SET timeout = 51", database="site")
    until(process, "config.timeout == 51")
    until(process, "config.status().age < 0.5")
    until(process, "config.status().transport_error is None")
    lines = process.run("Keep.lines")
    assert [line.partition(":")[0] for line in lines] == ["WARNING", "INFO"], lines


def test_a_write_while_it_is_back_but_not_noticed_yet(start: Any, server: PostgresServer) -> None:
    """A commit is visible when it returns, however long the watcher still pauses (G4)."""
    process = start()
    _ = process.run("config.timeout")
    until(process, "config.status().transport == 'postgres'")
    process.run("from siteconfig import backoff; backoff.FIRST = 1000; backoff.LONGEST = 1000")
    process.run("import random; random.uniform = lambda a, b: b")
    server.restart("immediate")
    until(process, "config.status().last_error")
    process.run("connection.close()")
    assert process.run("config.set_setting('timeout', 61) or config.timeout") == 61
    assert process.run("config.status().last_error") is None


def test_a_standby_that_becomes_the_primary() -> None:
    """It takes no LISTEN before, and keeps its connections: the poll goes on, then LISTEN works."""
    with PostgresServer() as server:
        server.create_database("site")
        settings = {
            "DATABASES": {"default": server.django("site")},
            "SITECONFIG": {"POLL_INTERVAL": 0.2, "FLEET": False},
        }
        manage(settings, "migrate", "-v0")
        server.stop()
        (server.folder / "data" / "standby.signal").touch()
        server.start()
        with Process(settings) as process:
            process.run("from siteconfig import backoff; backoff.LONGEST = 1")
            assert process.run("config.timeout") == 30
            until(process, "config.status().transport_error")
            assert "recovery" in process.run("config.status().transport_error")
            backend = "SELECT pid FROM pg_stat_activity WHERE datname = 'site'"
            before = server.execute(backend)
            assert server.execute("SELECT pg_promote()") == [(True,)]
            until(process, "config.status().transport == 'postgres'")
            assert server.execute(backend) == before
            server.execute("UPDATE siteconfig_siteconfiguration SET timeout = 45", database="site")
            process.run("wait_for(45)")


def test_a_backup_put_in_place_while_sqlite_logs_its_writes(tmp_path: Path) -> None:
    """The file stays the same one, and its write-ahead log goes: it is seen, then and later."""
    path, backup = tmp_path / "site.sqlite3", tmp_path / "backup"
    entry = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL"},
    }
    settings = {"DATABASES": {"default": entry}}
    manage(settings, "migrate", "-v0")
    with closing(sqlite3.connect(path, isolation_level=None)) as site:
        site.execute("VACUUM INTO ?", [str(backup)])
        site.execute("UPDATE siteconfig_siteconfiguration SET timeout = 40")
    with Process(settings) as process:
        process.run("wait_for(40); from django.utils.timezone import now")
        # A poll has looked since it was read: the watcher's connection is there.
        until(process, "(now() - config.status().loaded_at).total_seconds() > 1")
        until(process, "config.status().age < 0.5")
        for log in list(tmp_path.glob(f"{path.name}-*")):
            log.unlink()
        path.write_bytes(backup.read_bytes())
        process.run("wait_for(30)")
        with closing(sqlite3.connect(path, isolation_level=None)) as site:
            site.execute("UPDATE siteconfig_siteconfiguration SET timeout = 55")
        process.run("wait_for(55)")


@pytest.mark.parametrize("is_away_at_start", [True, False])
def test_redis_away(start: Any, redis: RedisServer, is_away_at_start: bool) -> None:
    """The poll goes on, the status says so, and messages arrive again once it is back."""
    if is_away_at_start:
        redis.stop()
    reader, writer = (start(TRANSPORT="redis", REDIS_URL=redis.url) for _ in range(2))
    _ = (reader.run("config.timeout"), writer.run("config.timeout"))
    if not is_away_at_start:
        until(reader, "config.status().transport == 'redis'")
        redis.stop()
    until(reader, "config.status().transport_error")
    assert reader.run("config.status().transport") == "poll"
    assert reader.run("config.status().last_error") is None
    value = 70 + is_away_at_start
    begun = time.monotonic()
    writer.run(f"config.set_setting('timeout', {value})")
    assert time.monotonic() - begun < 5
    reader.run(f"wait_for({value})")
    redis.start()
    until(reader, "config.status().transport == 'redis'")
    assert reader.run("config.status().transport_error") is None
    lines = reader.run("Keep.lines")
    assert [line.partition(":")[0] for line in lines] == ["WARNING", "INFO"], lines
    # The writer's own pause after its failed attempt must be over for it to publish again.
    reader.run("import siteconfig.conf; siteconfig.conf.Conf.POLL_INTERVAL = 1000")
    until(writer, "config.status().transport == 'redis'")


def test_a_redis_that_does_not_answer_at_all(start: Any, redis: RedisServer) -> None:
    """A commit is held up for half a second at most, and not again each time."""
    with Proxy("127.0.0.1", redis.port) as proxy:
        url = redis.url.replace(str(redis.port), str(proxy.port))
        process = start(TRANSPORT="redis", REDIS_URL=url)
        process.run("config.set_setting('timeout', 80)")
        proxy.freeze()
        process.run("from siteconfig import backoff; backoff.FIRST = 1000; backoff.LONGEST = 1000")
        process.run("import random; random.uniform = lambda a, b: b")
        begun = time.monotonic()
        for value in range(81, 91):
            process.run(f"config.set_setting('timeout', {value})")
        assert time.monotonic() - begun < 4
        assert process.run("config.timeout") == 90
