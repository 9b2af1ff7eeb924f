"""Suites of projects that use the app: nothing starts in them, and nothing stays (H66, H67)."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from threading import Timer
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import Postgres

pytestmark = pytest.mark.long

#: Seconds after which a suite that has not ended has failed the test.
PATIENCE = 150

FILES = {
    "settings.py": """
import json, os, threading

DATABASES = {"default": json.loads(os.environ["USER_DATABASE"])}
INSTALLED_APPS = ["solo", "siteconfig", "shop"]
MIDDLEWARE = ["siteconfig.middleware.ConfigMiddleware"]
ROOT_URLCONF = "shop.urls"
SECRET_KEY = "made up"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
STATIC_URL = "static/"

# Every thread that any of the processes starts is written down.
start = threading.Thread.start

def start_and_tell(thread):
    with open(os.environ["USER_THREADS"], "a") as file:
        print(thread.name, file=file)
    start(thread)

threading.Thread.start = start_and_tell
""",
    "manage.py": """
import os, sys
from django.core.management import execute_from_command_line

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
execute_from_command_line(sys.argv)
""",
    "pytest.ini": """
[pytest]
DJANGO_SETTINGS_MODULE = settings
python_files = tests.py test_*.py
faulthandler_timeout = 60
""",
    "shop/__init__.py": "",
    "shop/urls.py": """
from django.http import HttpResponse
from django.urls import path
from siteconfig import config

def show(request):
    return HttpResponse(f"{request.config.timeout} {config.timeout}")

def change(request, timeout):
    config.set_setting("timeout", timeout)
    return HttpResponse()

urlpatterns = [path("show/", show), path("change/<int:timeout>/", change)]
""",
    "shop/tests.py": """
import os, time
from django.db import connection
from django.test import TestCase, TransactionTestCase
from siteconfig import config

if "USER_READS_AT_IMPORT" in os.environ:
    assert config.timeout == 30

class Alone:
    def tearDown(self):
        # Nobody but this test is connected to its database.
        if connection.vendor != "postgresql":
            return
        deadline = time.monotonic() + 20
        while True:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_stat_clear_snapshot()")  # of this transaction
                cursor.execute(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                )
                sessions = cursor.fetchall()
            if len(sessions) == 1:
                return
            assert time.monotonic() < deadline, sessions
            time.sleep(0.01)

class Changes:
    def test_changes(self):
        assert config.timeout == 30
        config.set_setting("timeout", 31)
        assert config.timeout == 31

    def test_changes_too(self):
        assert config.timeout == 30
        config.set_settings(timeout=32, retry_count=5)
        assert (config.timeout, config.retry_count) == (32, 5)

    def test_reads(self):
        assert (config.timeout, config.retry_count) == (30, 3)

class RolledBack(Alone, Changes, TestCase):
    pass

class RolledBackToo(Alone, Changes, TestCase):
    pass

class Committed(Alone, Changes, TransactionTestCase):
    pass

class CommittedToo(Alone, Changes, TransactionTestCase):
    pass
""",
    "shop/test_live.py": """
from urllib.request import urlopen
import pytest
from siteconfig import config

@pytest.mark.parametrize("timeout", [41, 42])
def test_server_and_test_see_each_others_changes(live_server, timeout):
    assert urlopen(f"{live_server.url}/show/").read() == b"30 30"
    config.set_setting("timeout", timeout)
    assert urlopen(f"{live_server.url}/show/").read() == b"%d %d" % (timeout, timeout)
    urlopen(f"{live_server.url}/change/{timeout + 10}/").read()
    assert config.timeout == timeout + 10

@pytest.mark.django_db
def test_changes():
    assert config.timeout == 30
    config.set_setting("timeout", 31)
    assert config.timeout == 31

@pytest.mark.django_db(transaction=True)
def test_commits():
    assert config.timeout == 30
    config.set_setting("timeout", 31)
    assert config.timeout == 31
""",
    "shop/test_plugin.py": """
from siteconfig import config

def test_override(siteconfig_override):
    siteconfig_override(timeout=5)
    assert config.timeout == 5
""",
}

#: How many tests Django's runner finds, how many pytest does, and how many need the plugin.
DJANGO, PYTEST, PLUGIN = 12, 17, 1


class Ended(NamedTuple):
    """How a suite has ended."""

    status: int
    output: str
    threads: list[str]


class Project:
    """A project of somebody who has installed the app."""

    def __init__(self, folder: Path, installed: Path, postgres: Postgres) -> None:
        self.folder = folder
        self.installed = installed
        self.postgres = postgres
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    def run(self, *args: str, reads_at_import: bool = True, on_sqlite: bool = False) -> Ended:
        """Let Python run something there, with a database of its own that does not exist."""
        name = f"user_{secrets.token_hex(8)}"
        threads = self.folder / f"{name}.threads"
        database = self.postgres.django(name)
        if on_sqlite:
            file = str(self.folder / f"{name}.sqlite3")
            database = {"ENGINE": "django.db.backends.sqlite3", "NAME": file}
        environment = {
            "PYTHONPATH": str(self.installed),
            "USER_DATABASE": json.dumps(database),
            "USER_THREADS": str(threads),
        }
        if reads_at_import:
            environment["USER_READS_AT_IMPORT"] = "1"
        try:
            status, output = run(self.folder, environment, *args)
        finally:
            left = self.postgres.execute(
                "SELECT datname FROM pg_database WHERE strpos(datname, %s) > 0", [name]
            )
            for (database,) in left:
                self.postgres.drop_database(database)
        assert left == [], output
        names = threads.read_text().splitlines() if threads.exists() else []
        return Ended(status, output, names)


def run(folder: Path, environment: dict[str, str], *args: str) -> tuple[int, str]:
    """Run Python in a folder, outside of this project and its settings: status and output."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "DJANGO", "COV_"))
    }
    with subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, *args],
        cwd=folder,
        env=kept | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        ends = Timer(PATIENCE, os.killpg, [process.pid, signal.SIGKILL])  # with its workers
        ends.start()
        try:
            output, _ = process.communicate()
        finally:
            ends.cancel()
    return process.returncode, output


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as it is installed: with its metadata, which name the plugin."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "siteconfig").symlink_to(ROOT / "siteconfig")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    metadata = folder / "siteconfig-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: siteconfig\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in named.items())
            for group, named in project["entry-points"].items()
        )
    )
    return folder


@pytest.fixture
def project(tmp_path: Path, installed: Path, postgres: Postgres) -> Project:
    """A project with tests of every kind."""
    return Project(tmp_path, installed, postgres)


TEST = ["manage.py", "test"]
# Plugins that came with others' packages, and that the suites are not about, cost time.
PYTEST_COMMAND = ["-m", "pytest", "-p", "no:valkey", "-p", "no:faker", "-p", "no:hypothesispytest"]


def check(ended: Ended, passes: str) -> None:
    """All tests are to have passed, and no thread of ours is to have been started."""
    assert ended.status == 0, ended.output
    assert re.search(passes, ended.output), ended.output
    assert "accessed by other users" not in ended.output
    assert "siteconfig-watcher" not in ended.threads


def check_in_two_orders(project: Project, passes: str, *args: str, order: str) -> None:
    """Run the suite twice at once."""
    with ThreadPoolExecutor(2) as pool:
        for ended in pool.map(lambda seed: project.run(*args, f"{order}={seed}"), (1, 2)):
            check(ended, passes)


class TestSuites:
    """On PostgreSQL, which does not drop a database that somebody is connected to."""

    @pytest.mark.parametrize("parallel", [[], ["--parallel=2"]])
    def test_djangos_runner(self, project: Project, parallel: list[str]) -> None:
        """It has no plugin."""
        passes = rf"Ran {DJANGO} tests in .*\n\nOK"
        check_in_two_orders(project, passes, *TEST, *parallel, order="--shuffle")

    def test_djangos_runner_on_sqlite(self, project: Project) -> None:
        """Whose database is in memory: the workers have it, and its connection, from the parent."""
        ended = project.run(*TEST, "--parallel=2", on_sqlite=True)
        check(ended, rf"Ran {DJANGO} tests in .*\n\nOK")

    @pytest.mark.parametrize("parallel", [[], ["-n2"]])
    def test_pytest(self, project: Project, parallel: list[str]) -> None:
        """The plugin is found by itself."""
        command = [*PYTEST_COMMAND, *parallel]
        check_in_two_orders(project, rf"\b{PYTEST} passed", *command, order="--randomly-seed")

    @pytest.mark.parametrize("parallel", [[], ["-n2"]])
    def test_pytest_without_the_plugin(self, project: Project, parallel: list[str]) -> None:
        """What it provides is missing, and all else is as with it."""
        without = ["-p", "no:siteconfig", "--ignore=shop/test_plugin.py"]
        ended = project.run(*PYTEST_COMMAND, *parallel, *without, reads_at_import=False)
        check(ended, rf"\b{PYTEST - PLUGIN} passed")

    def test_threads_are_written_down(self, project: Project) -> None:
        """Outside of tests, where the project's first read starts the watcher."""
        code = "from siteconfig import config; config.timeout"
        assert project.run("manage.py", "shell", "-c", code).threads == [
            "siteconfig-read",
            "siteconfig-watcher",
        ]


def test_a_project_without_django(tmp_path: Path, installed: Path) -> None:
    """The plugin is loaded there, too, and imports nothing of Django."""
    (tmp_path / "test_nothing.py").write_text(
        "import sys\n"
        "def test_nothing():\n"
        "    assert 'siteconfig.pytest_plugin' in sys.modules\n"
        "    assert not [name for name in sys.modules if name.split('.')[0] == 'django']\n"
    )
    # These import it by themselves.
    command = [*PYTEST_COMMAND, "-p", "no:django", "-p", "no:randomly"]
    status, output = run(tmp_path, {"PYTHONPATH": str(installed)}, *command)
    assert status == 0, output
