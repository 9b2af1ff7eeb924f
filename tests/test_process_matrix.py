"""The watcher in every kind of process that a site consists of (G5, G6; H53-H69)."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from psycopg import sql

from tests.processes import ROOT, Process, environment_for
from tests.servers import Proxy, free_port
from tests.serving import (
    PATIENCE,
    SEE,
    SEE_ASYNC,
    USER,
    Browser,
    Readers,
    Running,
    Script,
    eventually,
    gone_back,
    serving,
)
from tests.settings import INSTALLED_APPS
from tests.site import BROKER, READS_FIRST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery.result import AsyncResult

    from tests.servers import Postgres, Redis

pytestmark = pytest.mark.long

#: A poll so rare that only the notification can bring what the tests wait for.
BY_NOTIFICATION = {"POLL_INTERVAL": 600}


class Database:
    """A database of a test's own, migrated, with somebody who may log in to the admin.

    Attributes:
        settings: those of a process that uses it.
    """

    def __init__(self, entry: dict[str, Any], siteconfig: dict[str, Any]) -> None:
        self.settings: dict[str, Any] = {
            "DATABASES": {"default": entry},
            "ROOT_URLCONF": "tests.site.urls",
            "SITECONFIG": siteconfig,
        }


class OnPostgres(Database):
    """One of a PostgreSQL; only notifications bring changes."""

    def __init__(self, server: Postgres, name: str) -> None:
        super().__init__(server.django(name), BY_NOTIFICATION)
        self.server = server
        self.name = name

    def at(self, port: int) -> dict[str, Any]:
        """The settings of a process that looks for the server at another port."""
        entry = {**self.settings["DATABASES"]["default"], "PORT": port}
        return {**self.settings, "DATABASES": {"default": entry}}

    @contextmanager
    def through_a_proxy(self) -> Iterator[tuple[Proxy, dict[str, Any]]]:
        """A proxy before the server, and the settings of a process that uses it."""
        with Proxy(self.server.host, self.server.port) as proxy:
            yield proxy, self.at(proxy.port)

    def write(self, timeout: int) -> None:
        """Change the setting as somebody does who is no process of the site."""
        statement = "UPDATE siteconfig_siteconfiguration SET timeout = %s, version = version + 1"
        self.server.execute(statement, [timeout], self.name)
        self.server.execute("NOTIFY siteconfig", database=self.name)

    def sessions(self) -> list[int]:
        """The pids of the connections that there are to it."""
        return [pid for pid, _, _ in self._activity()]

    def expect_sessions(self, number: int) -> None:
        """Each request closes its own; so those that stay are the watchers'."""
        eventually(lambda: len(self.sessions()) == number, self._activity)

    def _activity(self) -> list[Any]:
        statement = (
            "SELECT pid, state, query FROM pg_stat_activity"
            " WHERE datname = %s AND backend_type = 'client backend' ORDER BY pid"
        )
        return self.server.execute(statement, [self.name])


class OnSQLite(Database):
    """A file, which is polled."""

    def __init__(self, path: Path) -> None:
        options = {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        }
        engine = "django.db.backends.sqlite3"
        super().__init__({"ENGINE": engine, "NAME": str(path), "OPTIONS": options}, {})


MIGRATE = f"""
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("migrate", verbosity=0)
User.objects.create_superuser(**{USER})
connection.close()
"""


@pytest.fixture(scope="module")
def new_postgres(postgres: Postgres) -> Iterator[Callable[[], OnPostgres]]:
    """Makes databases on PostgreSQL."""
    names = [f"matrix_{secrets.token_hex(8)}"]
    postgres.create_database(names[0])
    template = OnPostgres(postgres, names[0])
    with Process(template.settings) as process:
        process.run(MIGRATE)
        assert process.leave() == 0

    def new() -> OnPostgres:
        names.append(f"{names[0]}_{len(names)}")
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        postgres.execute(copy.format(sql.Identifier(names[-1]), sql.Identifier(names[0])))
        return OnPostgres(postgres, names[-1])

    yield new
    for name in reversed(names):
        postgres.drop_database(name)


@pytest.fixture(scope="module")
def new_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], OnSQLite]:
    """Makes databases on SQLite."""
    template = tmp_path_factory.mktemp("template") / "db.sqlite3"
    with Process(OnSQLite(template).settings) as process:
        process.run(MIGRATE)
        assert process.leave() == 0

    def new() -> OnSQLite:
        folder = tmp_path_factory.mktemp("database")
        return OnSQLite(Path(shutil.copy(template, folder)))

    return new


@pytest.fixture
def on_postgres(new_postgres: Callable[[], OnPostgres]) -> OnPostgres:
    """A database on PostgreSQL."""
    return new_postgres()


@pytest.fixture
def on_sqlite(new_sqlite: Callable[[], OnSQLite]) -> OnSQLite:
    """A database on SQLite."""
    return new_sqlite()


# Servers


def show_edits(port: int, processes: int, path: str = SEE) -> None:
    """Edit twice in the admin while clients read: every process is to serve what was saved."""
    browser = Browser(port)
    with Readers(port, path) as readers:
        pids = readers.wait_for(30, processes)
        for timeout in (31, 32):
            browser.edit(timeout=timeout)
            assert readers.wait_for(timeout, processes) == pids
    assert readers.errors == []
    assert gone_back(readers.sights) == []
    assert {sight["watchers"] for sight in readers.sights if sight["timeout"] == 32} == {1}


def test_what_counts_as_going_back() -> None:
    """A read that began after another's end, in the same process, and gave an older value."""

    def sight(pid: int, timeout: int, began: float, ended: float) -> dict[str, Any]:
        return {"pid": pid, "timeout": timeout, "began": began, "ended": ended}

    old, new = sight(1, 30, 1, 2), sight(1, 31, 3, 4)
    at_once, elsewhere = sight(1, 30, 3.5, 5), sight(2, 30, 6, 7)
    back = sight(1, 30, 6, 7)
    assert gone_back([new, old, elsewhere, at_once]) == []
    assert gone_back([back, elsewhere, at_once, new, old]) == [(new, back)]


@contextmanager
def gunicorn(
    database: Database, args: Sequence[str], log: Path, **environment: str
) -> Iterator[tuple[Running, int]]:
    """gunicorn with four workers; it and its port."""
    port = free_port()
    command = [
        *["-m", "gunicorn", "tests.site.wsgi", "--workers=4", f"--bind=127.0.0.1:{port}"],
        *["--no-control-socket", *args],
    ]
    with Running(database.settings, command, log, **environment) as server:
        server.wait_for(lambda: serving(port))
        yield server, port
        assert server.stop() == 0
    assert "Traceback" not in server.output


class TestGunicorn:
    """Edited through the admin's form while clients read (H53, H57)."""

    @pytest.mark.parametrize("threads", [[], ["--worker-class=gthread", "--threads=4"]])
    @pytest.mark.parametrize("is_preloaded", [False, True])
    def test_every_worker_serves_what_was_saved(
        self, on_postgres: OnPostgres, tmp_path: Path, threads: list[str], *, is_preloaded: bool
    ) -> None:
        """Each has a watcher, whether or not the site was imported before the fork."""
        args = [*threads, *["--preload"] * is_preloaded]
        with gunicorn(on_postgres, args, tmp_path / "log") as (_, port):
            show_edits(port, 4)
            on_postgres.expect_sessions(4)
        on_postgres.expect_sessions(0)

    @pytest.mark.parametrize("threads", [[], ["--worker-class=gthread", "--threads=4"]])
    def test_the_master_has_read_before_it_forks(
        self, on_postgres: OnPostgres, tmp_path: Path, threads: list[str]
    ) -> None:
        """Its watcher is its own, and each worker has another one."""
        args = [*threads, "--preload"]
        with gunicorn(on_postgres, args, tmp_path / "log", **{READS_FIRST: "1"}) as (_, port):
            show_edits(port, 4)
            on_postgres.expect_sessions(5)
        on_postgres.expect_sessions(0)

    def test_on_sqlite(self, on_sqlite: OnSQLite, tmp_path: Path) -> None:
        """The poll does it there."""
        args = ["--preload", "--worker-class=gthread", "--threads=4"]
        with gunicorn(on_sqlite, args, tmp_path / "log", **{READS_FIRST: "1"}) as (_, port):
            show_edits(port, 4)


class TestUvicorn:
    """The same over ASGI."""

    @pytest.mark.parametrize("workers", [1, 2])
    def test_every_process_serves_what_was_saved(
        self, on_postgres: OnPostgres, tmp_path: Path, workers: int
    ) -> None:
        """Coroutines read there; the parent of several workers has no watcher."""
        port = free_port()
        command = ["-m", "uvicorn", "tests.site.asgi:application", f"--port={port}"]
        log = tmp_path / "log"
        with Running(on_postgres.settings, [*command, f"--workers={workers}"], log) as server:
            server.wait_for(lambda: serving(port))
            show_edits(port, workers, SEE_ASYNC)
            on_postgres.expect_sessions(workers)
            server.stop()
        assert "Traceback" not in server.output
        on_postgres.expect_sessions(0)


class TestRunserver:
    """Django's own server (H61)."""

    def test_it_restarts_when_code_changes(self, on_postgres: OnPostgres, tmp_path: Path) -> None:
        """The reloader has no watcher, the server has one, and so has the next server."""
        port = free_port()
        (tmp_path / "touched").mkdir()
        code = tmp_path / "touched" / "__init__.py"
        code.write_text("")
        settings = {**on_postgres.settings, "INSTALLED_APPS": [*INSTALLED_APPS, "touched"]}
        command = ["manage.py", "runserver", str(port)]
        with Running(settings, command, tmp_path / "log", PYTHONPATH=str(tmp_path)) as server:
            server.wait_for(lambda: serving(port))
            show_edits(port, 1)
            on_postgres.expect_sessions(1)
            before = serving(port)
            assert before != server.process.pid
            later = time.time() + 60
            os.utime(code, (later, later))
            server.wait_for(lambda: serving(port) not in (None, before))
            with Readers(port) as readers:
                readers.wait_for(32, 1)
                Browser(port).edit(timeout=33)
                readers.wait_for(33, 1)
            on_postgres.expect_sessions(1)
            if (tasks := Path(f"/proc/{server.process.pid}/task")).exists():
                assert len(list(tasks.iterdir())) == 1

    def test_it_does_not_restart(self, on_postgres: OnPostgres, tmp_path: Path) -> None:
        """One process, one watcher."""
        port = free_port()
        command = ["manage.py", "runserver", "--noreload", str(port)]
        with Running(on_postgres.settings, command, tmp_path / "log") as server:
            server.wait_for(lambda: serving(port))
            show_edits(port, 1)
            assert serving(port) == server.process.pid
            on_postgres.expect_sessions(1)


@contextmanager
def celery(
    settings: dict[str, Any], broker: Redis, log: Path
) -> Iterator[Callable[[int], set[int]]]:
    """A Celery worker with three children; what waits for a value in each of them."""
    queue = f"queue-{secrets.token_hex(8)}"  # of its own, to share the broker with others
    command = [
        *["-m", "celery", "--app=tests.site.celery", "worker", "--concurrency=3"],
        *[f"--queues={queue}", "--loglevel=INFO"],
        *["--without-gossip", "--without-mingle", "--without-heartbeat"],
    ]
    environment = {BROKER: broker.url, READS_FIRST: "1"}
    with (
        Celery(broker=broker.url, backend=broker.url) as app,
        Running(settings, command, log, **environment) as worker,
    ):
        yield partial(seen_by_tasks, partial(app.send_task, "see", queue=queue), worker)
        assert worker.stop() == 0
    assert "Timed out waiting for UP" not in worker.output
    assert "Traceback" not in worker.output


def seen_by_tasks(ask: Callable[[], AsyncResult], worker: Running, timeout: int) -> set[int]:
    """The pids of the three children, once each has run a task that read this value."""
    seen: set[int] = set()

    def have_all() -> bool:
        results = [ask() for _ in range(6)]
        sights = [result.get(PATIENCE) for result in results]
        assert {sight["watchers"] for sight in sights} == {1}
        seen.update(sight["pid"] for sight in sights if sight["timeout"] == timeout)
        return len(seen) >= 3

    worker.wait_for(have_all)
    assert len(seen) == 3
    return seen


class TestCelery:
    """Children of a worker, which only tasks read in (H59)."""

    def test_every_child_sees_what_was_saved(
        self, on_postgres: OnPostgres, redis_server: Redis, tmp_path: Path
    ) -> None:
        """The worker itself has read before it forked them."""
        with celery(on_postgres.settings, redis_server, tmp_path / "log") as see:
            pids = see(30)
            for timeout in (31, 32):
                on_postgres.write(timeout)
                assert see(timeout) == pids
            # The worker, and its children.
            on_postgres.expect_sessions(4)

    def test_the_database_is_away_at_the_start(
        self, on_postgres: OnPostgres, redis_server: Redis, tmp_path: Path
    ) -> None:
        """It does not even refuse: tasks run with the defaults, and recover by themselves."""
        on_postgres.write(31)
        with on_postgres.through_a_proxy() as (proxy, settings):
            proxy.refuse()
            silent = socket.create_server((proxy.host, proxy.port))
            with celery(settings, redis_server, tmp_path / "log") as see:
                first = see(30)
                # Celery gives the child that it starts in the place of a lost one four seconds.
                os.kill(min(first), signal.SIGKILL)
                pids = see(30)
                assert len(pids & first) == 2
                silent.close()
                proxy.accept()
                assert see(31) == pids
                on_postgres.write(32)
                assert see(32) == pids


# Other processes


@contextmanager
def family(settings: dict[str, Any]) -> Iterator[Process]:
    """A process that may start others, which are ended with it."""
    with Process(settings) as parent:
        parent.run("os.setpgid(0, 0)")
        try:
            yield parent
            assert parent.leave() == 0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)


class TestMultiprocessing:
    """Processes that a process of the site starts (H53, H54)."""

    @pytest.mark.parametrize("kind", ["fork", "spawn", "executor"])
    def test_parent_and_children_see_what_any_of_them_saves(
        self, on_postgres: OnPostgres, kind: str
    ) -> None:
        """Each child has a watcher of its own, and the parent keeps its one."""
        with family(on_postgres.settings) as parent:
            parent.run("wait_for(30)")
            on_postgres.expect_sessions(1)
            before = on_postgres.sessions()
            parent.run("from tests.site.pools import Pool")
            parent.run(f"pool = Pool({kind!r})")
            pids = parent.run("pool.wait_for(30)")
            assert parent.pid not in pids
            parent.run("config.set_setting('timeout', 31); connection.close()")
            assert parent.run("pool.wait_for(31)") == pids
            parent.run("pool.write(32)")
            assert parent.run("pool.wait_for(32)") == pids
            parent.run("wait_for(32)")
            on_postgres.write(33)
            assert parent.run("pool.wait_for(33)") == pids
            parent.run("pool.end()")
            on_postgres.expect_sessions(1)
            assert on_postgres.sessions() == before
            on_postgres.write(34)
            parent.run("wait_for(34)")


class TestForks:
    """Children beside threads that hold whatever lock there is (H54, H55, H57)."""

    def test_200_children_read_log_and_leave_their_parent_its_connections(
        self, on_postgres: OnPostgres, tmp_path: Path
    ) -> None:
        """None hangs; every tenth ends as an interpreter does, the others at once."""
        log = tmp_path / "site.log"
        siteconfig = {**on_postgres.settings["SITECONFIG"], "LOG_FILE": str(log)}
        settings = {**on_postgres.settings, "SITECONFIG": siteconfig}
        with Script(settings, ["-m", "tests.site.forks"]) as script:
            assert script.says() == "ready"
            on_postgres.expect_sessions(2)
            before = on_postgres.sessions()
            script.go_on()
            assert script.says(patience=120) == {"0": 200}
            on_postgres.expect_sessions(2)
            assert on_postgres.sessions() == before
            on_postgres.write(31)
            assert script.says() == "heard"
            assert script.process.wait(PATIENCE) == 0
            assert script.errors() == ""
        assert log.read_text().count("Child") == 200

    def test_children_write_to_sqlite(self, on_sqlite: OnSQLite) -> None:
        """They inherit no connection, with which its library would take them for their parent."""
        path = on_sqlite.settings["DATABASES"]["default"]["NAME"]
        settings = {**on_sqlite.settings, "SITECONFIG": {"POLL_INTERVAL": 0.02}}
        with Process(settings) as parent:
            parent.run("wait_for(30)")
            parent.run("from tests.site.forks import open_files, write_in_children")
            parent.run(f"while not open_files({path!r}): time.sleep(0.001)")
            assert parent.run(f"write_in_children(10, {path!r})") == [0] * 10
            assert parent.leave() == 0


STRICT = ["-W", "error"]

READ_AND_EXIT = """
import django, json, time
django.setup()
from siteconfig import config
assert config.timeout == 30
print(json.dumps(time.monotonic()), flush=True)
"""


@contextmanager
def exits(settings: dict[str, Any], number: int, *more: str) -> Iterator[Script]:
    """A script that lets children read and exit."""
    args = [*STRICT, "-m", "tests.site.exits", str(number), *more]
    with Script(settings, args) as script:
        yield script
        assert script.end()[0] == 0


def check_exits(script: Script, number: int) -> None:
    """Its children are to end well and within a second; some less soon on a busy machine."""
    ends = [script.says() for _ in range(number)]
    assert {status for status, _ in ends} == {0}, script.errors()
    assert median(took for _, took in ends) < 1
    assert max(took for _, took in ends) < 4


class TestExit:
    """The end of an interpreter whose watcher runs (H65)."""

    @pytest.mark.parametrize("kind", ["on_postgres", "on_sqlite"])
    def test_python_reads_and_exits(self, request: pytest.FixtureRequest, kind: str) -> None:
        """At once, and without a word."""
        settings = request.getfixturevalue(kind).settings
        with Script(settings, [*STRICT, "-c", READ_AND_EXIT]) as script:
            ended = script.says()
            status, at = script.end()
            assert (status, script.errors()) == (0, "")
            assert at - ended < 1

    def test_at_whatever_moment_of_the_start_of_the_watcher(
        self, on_postgres: OnPostgres, on_sqlite: OnSQLite
    ) -> None:
        """The same, thirty times on each database."""
        with exits(on_postgres.settings, 30) as one, exits(on_sqlite.settings, 30) as other:
            check_exits(one, 30)
            check_exits(other, 30)
            assert one.errors() == other.errors() == ""

    def test_the_database_hangs(self, on_postgres: OnPostgres) -> None:
        """Nobody waits for it to take note of the watcher's good-bye."""
        with (
            on_postgres.through_a_proxy() as (proxy, settings),
            exits(settings, 4, "at-once") as script,
        ):
            assert {script.says() for _ in range(4)} == {"read"}
            on_postgres.expect_sessions(4)
            proxy.freeze()
            script.go_on()
            check_exits(script, 4)
            assert script.errors() == ""

    def test_the_database_has_never_answered(self, on_postgres: OnPostgres) -> None:
        """Not even the read was answered, which says so and gave the default."""
        with (
            socket.create_server(("127.0.0.1", 0)) as silent,
            exits(on_postgres.at(silent.getsockname()[1]), 4, "at-once") as script,
        ):
            assert {script.says() for _ in range(4)} == {"read"}
            script.go_on()
            check_exits(script, 4)
            complaints = script.errors().splitlines()
        assert [line.startswith("The settings siteconfig.") for line in complaints] == [True] * 4


COMMANDS = """
import json, sys, threading
started = []
start = threading.Thread.start
def start_and_tell(thread):
    started.append(thread.name)
    start(thread)
threading.Thread.start = start_and_tell
from django.core.management import execute_from_command_line
for command in json.loads(sys.argv[1]):
    sys.argv = ["manage.py", *command]
    try:
        execute_from_command_line(sys.argv)
        end = None
    except (Exception, SystemExit) as error:
        end = repr(error)
    print("\\n" + json.dumps([end, started]), flush=True)
    started.clear()
"""

IDLE = [
    ["check"],
    ["makemigrations", "--check", "--dry-run"],
    ["collectstatic", "--dry-run", "--noinput", "--verbosity=0"],
    ["migrate", "--verbosity=0"],
]

READING = ["shell", "--command", "from siteconfig import config; config.timeout"]


class TestManagementCommands:
    """They read no settings, and so start nothing (H60, H61)."""

    @pytest.mark.parametrize("exists", [True, False])
    def test_only_a_command_that_reads_starts_a_watcher(
        self, postgres: Postgres, tmp_path: Path, *, exists: bool
    ) -> None:
        """Whether the database is empty or not even there, and with warnings as errors."""
        name = f"matrix_{secrets.token_hex(8)}"
        settings = {
            "DATABASES": {"default": postgres.django(name)},
            "STATIC_ROOT": str(tmp_path),
        }
        if exists:
            postgres.create_database(name)
        try:
            ran = subprocess.run(  # noqa: S603 - our own code
                [sys.executable, *STRICT, "-c", COMMANDS, json.dumps([*IDLE, READING])],
                cwd=ROOT,
                env=environment_for(settings),
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=True,
            )
        finally:
            postgres.drop_database(name)
        told = [json.loads(line) for line in ran.stdout.splitlines() if line[:1] == "["]
        ends = [end for end, _ in told]
        # Django's own: without the database it can neither migrate, nor check what has been.
        assert [end and end.partition("(")[0] for end in ends] == (
            [None] * 5 if exists else [None, "RuntimeWarning", None, "OperationalError", None]
        )
        assert [started for _, started in told[:-1]] == [[]] * len(IDLE)
        assert told[-1][1].count("siteconfig-watcher") == 1
        # That what was read is not to be had, without the database.
        assert len(ran.stderr.splitlines()) == (0 if exists else 1)


@pytest.fixture(scope="module")
def faulty(new_postgres: Callable[[], OnPostgres]) -> Iterator[Process]:
    """A process that polls often and pauses briefly, so that its watcher soon does each thing."""
    settings = new_postgres().settings
    with Process({**settings, "SITECONFIG": {"POLL_INTERVAL": 0.05}}) as process:
        process.run("from siteconfig import backoff; backoff.FIRST = 0.01")
        process.run("from tests.site import faults")
        yield process


class TestTheThread:
    """It outlives whatever happens in it (H62, H69)."""

    @pytest.mark.parametrize(
        "step",
        [
            *["own_connection", "open", "heard", "may_have_changed"],
            *["stored", "snapshot", "tend", "wait"],
        ],
    )
    def test_errors_at_a_step(self, faulty: Process, step: str) -> None:
        """The same thread goes on, and the next change arrives."""
        faulty.run(f"faults.survive({step!r})")

    def test_there_is_one(self, faulty: Process) -> None:
        """However many first readers want one to be started."""
        faulty.run("config.timeout")
        faulty.run("for _ in range(3): faults.watcher.ensure(SiteConfiguration)")
        assert faulty.run("len(faults.watchers())") == 1

    def test_a_fork_waits_for_it_to_connect(self, faulty: Process) -> None:
        """Else the child has for ever the locks that the TLS library holds meanwhile."""
        faulty.run("faults.let_a_fork_wait_for_a_connection()")

    def test_a_fork_does_not_wait_for_a_server(self, faulty: Process) -> None:
        """Not for long: one that does not answer keeps no worker from being started."""
        faulty.run("faults.let_no_fork_wait_for_a_server()")

    def test_no_descriptors_are_left(self, faulty: Process) -> None:
        """It goes on when there are some again."""
        faulty.run("faults.survive_without_descriptors()")
