"""The fleet: who reads the settings, and who has read what; in the command and on the page."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import timedelta
from time import monotonic
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, connections
from django.db.models.signals import post_delete, post_save
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now

from project.database import database
from siteconfig import ConfigManager, backoff, config, fleet
from siteconfig.fleet import Member, report
from siteconfig.models import ConfigProcess, SiteConfiguration
from tests.concurrency import Started
from tests.factories import AdminFactory
from tests.processes import Process, manage
from tests.testapp.models import ShopConfig

URL = "/admin/siteconfig/siteconfiguration/"

# With real commits: what a process notes is what it holds for all.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _immediate(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the reference site has it: else no process is noted on SQLite."""
    options = connections.settings["default"]["OPTIONS"]
    if connection.vendor == "sqlite":
        monkeypatch.setitem(options, "transaction_mode", "IMMEDIATE")


def tend(one: Member, *managers: ConfigManager) -> float:
    """Let it do what is due, through this thread's own connection."""
    return one.tend(list(managers), {"default": connections["default"]})


def member(pid: int) -> Member:
    """Another process that has read what this one holds."""
    one = Member()
    _ = config.timeout
    tend(one, config)
    ConfigProcess.objects.filter(process=one.token).update(host=f"web{pid}", pid=pid)
    return one


def age(one: Member, seconds: float) -> None:
    ConfigProcess.objects.filter(process=one.token).update(
        seen_at=now() - timedelta(seconds=seconds)
    )


class TestMember:
    def test_notes_itself_when_it_has_read_and_when_that_changes(
        self, django_assert_num_queries: Any
    ) -> None:
        """With one write each; nothing in between."""
        one = member(1)
        with django_assert_num_queries(0):
            tend(one, config)
        config.set_setting("timeout", 45)
        with CaptureQueriesContext(connection) as queries:
            tend(one, config)
        words = [query["sql"].split()[0] for query in queries.captured_queries]
        assert [word for word in words if word not in {"PRAGMA", "SET", "BEGIN", "COMMIT"}] == [
            "UPDATE"
        ]

    def test_gives_a_sign_of_life_every_half_minute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the monotonic clock."""
        clock = [1000.0]
        monkeypatch.setattr(fleet, "monotonic", lambda: clock[0])
        one = member(1)
        assert tend(one, config) == 1000 + fleet.BEAT
        age(one, 60)
        clock[0] += fleet.BEAT
        tend(one, config)
        assert ConfigProcess.objects.get().seen_at > now() - timedelta(seconds=10)

    def test_a_stream_of_changes_is_noted_once_a_second(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After the first few; the last state always is."""
        clock = [1000.0]
        monkeypatch.setattr(fleet, "monotonic", lambda: clock[0])
        one = member(1)
        notes = []
        monkeypatch.setattr(one, "_write", lambda label, held: notes.append(held.version))
        for value in range(100):
            config.set_setting("timeout", 100 + value)
            due_at = tend(one, config)
            clock[0] += 0.1
        assert len(notes) <= 10 + fleet.AT_ONCE
        assert due_at <= clock[0] + fleet.NOTE_GAP
        clock[0] = max(due_at, clock[0])
        assert tend(one, config) > clock[0] + 1
        assert notes[-1] == config.snapshot().version == 100

    def test_says_good_bye(self) -> None:
        """Who ends in order is not missed."""
        one, other = member(1), member(2)
        one.leave({"default": connections["default"]})
        assert [process.pid for process in report(SiteConfiguration).processes] == [2]
        other.leave({"default": connections["default"]})
        assert not ConfigProcess.objects.exists()

    def test_knows_how_many_there_are(self) -> None:
        """As of its last note."""
        assert member(1).size == 1
        assert member(2).size == 2

    def test_sweeps_the_dead_away_when_it_comes(self) -> None:
        """Otherwise nobody would."""
        age(member(1), 600)
        member(2)
        assert [process.pid for process in ConfigProcess.objects.all()] == [2]

    def test_sends_no_signal_to_receivers_of_every_model(self) -> None:
        """It is no object of the project's."""
        told: list[Any] = []

        def hear(sender: Any, **kwargs: Any) -> None:
            told.append(sender)

        for signal in (post_save, post_delete):
            signal.connect(hear)
        try:
            age(member(1), 600)
            member(2).leave({"default": connections["default"]})
        finally:
            for signal in (post_save, post_delete):
                signal.disconnect(hear)
        assert told == []
        assert not ConfigProcess.objects.exists()

    def test_a_refusal_is_met_ever_more_rarely(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As that of a role that may only read: every few minutes in the end."""
        clock, pauses = [1000.0], list[float]()
        for module in (fleet, backoff):
            monkeypatch.setattr(module, "monotonic", lambda: clock[0])
        monkeypatch.setattr("random.uniform", lambda least, most: most)
        _ = config.timeout
        one = Member()

        def refuse(*args: Any) -> None:
            raise DatabaseError("permission denied")

        monkeypatch.setattr(one, "_write", refuse)
        for _try in range(20):
            pauses.append(tend(one, config) - clock[0])
            clock[0] += pauses[-1]
        assert pauses[0] == pytest.approx(backoff.FIRST)
        assert pauses[-1] == pytest.approx(600)

    def test_has_a_row_for_each_model(self) -> None:
        """A process may read some of them only."""
        shop = ConfigManager(ShopConfig)
        _ = (config.timeout, shop.currency)
        tend(Member(), config, shop)
        assert len(report(SiteConfiguration).processes) == 1
        assert len(report(ShopConfig).processes) == 1

    def test_can_be_switched_off(self, settings: Any, django_assert_num_queries: Any) -> None:
        """Then nothing is written."""
        settings.SITECONFIG = {"FLEET": False}
        _ = config.timeout
        one = Member()
        with django_assert_num_queries(0):
            assert tend(one, config) == float("inf")

    @pytest.mark.sqlite
    def test_not_on_sqlite_where_it_could_hurt(
        self, monkeypatch: pytest.MonkeyPatch, caplog: Any, django_assert_num_queries: Any
    ) -> None:
        """A transaction that has read could not write any more; the log says it once."""
        monkeypatch.delitem(connections.settings["default"]["OPTIONS"], "transaction_mode")
        _ = config.timeout
        one = Member()
        with caplog.at_level("DEBUG", "siteconfig.fleet"), django_assert_num_queries(0):
            for _ in range(3):
                assert tend(one, config) == float("inf")
        (line,) = [record.getMessage() for record in caplog.records]
        assert "needs 'transaction_mode': 'IMMEDIATE'" in line

    def test_a_table_that_is_missing_is_no_trouble(self, caplog: Any) -> None:
        """After an upgrade, before migrate: it tries again now and then, and says so once."""
        with connection.schema_editor() as editor:
            editor.delete_model(ConfigProcess)
        one = Member()
        try:
            _ = config.timeout
            with caplog.at_level("INFO", "siteconfig.fleet"):
                while tend(one, config) < monotonic() or len(caplog.records) < 1:
                    pass
            assert len(caplog.records) == 1
        finally:
            with connection.schema_editor() as editor:
                editor.create_model(ConfigProcess)
        while tend(one, config) < monotonic() + 10:
            pass
        assert ConfigProcess.objects.count() == 1

    def test_one_failure_alone_is_not_worth_a_line(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Of a lock that is soon gone, or of an outage, which the settings tell of."""
        monkeypatch.setattr(backoff, "FIRST", 0)
        monkeypatch.setattr(fleet, "AT_ONCE", 9)
        one, original, attempts = Member(), Member._write, 0

        def write(*args: Any) -> None:
            nonlocal attempts
            attempts += 1
            if attempts in {1, 3, 4, 5}:
                raise DatabaseError("server closed the connection")
            original(*args)

        monkeypatch.setattr(Member, "_write", write)
        _ = config.timeout
        lines = []
        with caplog.at_level("INFO", "siteconfig.fleet"):
            for _ in range(6):
                tend(one, config)
                lines.append(len(caplog.records))
                one._beat_at = 0
        assert attempts == 6
        assert lines == [0, 0, 0, 1, 1, 1]

    @pytest.mark.sqlite
    def test_does_not_wait_for_a_lock_on_sqlite(self) -> None:
        """Somebody else's transaction writes: it comes again later."""
        _ = config.timeout
        one = Member()
        with closing(connections["default"].copy()) as other, connection.cursor() as cursor:
            before = cursor.execute("PRAGMA busy_timeout").fetchall()
            with other.cursor() as writing:
                writing.execute("BEGIN IMMEDIATE")
                begun = monotonic()
                tend(one, config)
                assert monotonic() - begun < before[0][0] / 1000 / 2
            assert cursor.execute("PRAGMA busy_timeout").fetchall() == before
        while tend(one, config) < monotonic() + fleet.BEAT / 2:
            pass
        assert ConfigProcess.objects.count() == 1


class TestReport:
    def test_names_who_is_behind(self) -> None:
        """By version."""
        member(1)
        config.set_setting("timeout", 45)
        member(2)
        now_ = report(SiteConfiguration)
        assert (now_.live, [process.pid for process in now_.behind]) == (1, [1])
        assert now_.version == 1

    def test_sees_writes_that_leave_the_version_alone(self) -> None:
        """Raw SQL: the content differs."""
        member(1)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE siteconfig_siteconfiguration SET timeout = 45")
        assert report(SiteConfiguration).live == 0

    def test_takes_the_version_for_releases_with_other_columns(self) -> None:
        """What they have read cannot be compared otherwise."""
        one = member(1)
        ConfigProcess.objects.filter(process=one.token).update(content="99.0123456789abcdef")
        assert report(SiteConfiguration).live == 1

    def test_leaves_the_dead_out(self) -> None:
        """Who has not been heard of for a while is not behind, but gone."""
        age(member(1), fleet.LIFE.total_seconds() + 1)
        assert report(SiteConfiguration).processes == ()

    def test_says_nothing_of_values(self) -> None:
        """The content is a digest."""
        config.set_setting("site_name", "canary")
        one = member(1)
        assert "canary" not in str(ConfigProcess.objects.filter(process=one.token).values())

    def test_asks_nothing_where_nothing_is_noted(
        self, settings: Any, django_assert_num_queries: Any
    ) -> None:
        """But says why."""
        settings.SITECONFIG = {"FLEET": False}
        _ = config.timeout
        with django_assert_num_queries(0):
            told = report(SiteConfiguration, patience=20)
        assert (told.version, told.processes) == (0, ())
        assert told.obstacle == "SITECONFIG['FLEET'] is False."

    def test_waits_for_those_who_are_about_to_read(self) -> None:
        """For as long as it is told."""
        one = member(1)
        config.set_setting("timeout", 45)
        waiting = Started(lambda: report(SiteConfiguration, patience=20))
        tend(one, config)
        assert waiting.result().live == 1


class TestCommand:
    def test_shows_each_process(self, capsys: Any) -> None:
        """And how long ago it was heard of."""
        age(member(12), 3)
        call_command("siteconfig", "status")
        assert capsys.readouterr().out.splitlines() == [
            "siteconfig.SiteConfiguration: version 0, live in 1 of 1 process",
            "  host   process  version  last heard of",
            "  web12  12       0        3 s ago",
            "testapp.ShopConfig: version 0, live in 0 of 0 processes",
            "testapp.EveryKind: version 0, live in 0 of 0 processes",
        ]

    def test_says_why_there_are_none(self, settings: Any, capsys: Any) -> None:
        """In place of a number that would be wrong."""
        settings.SITECONFIG = {"FLEET": False}
        call_command("siteconfig", "status")
        assert capsys.readouterr().out.splitlines()[0] == (
            "siteconfig.SiteConfiguration: version 0. Processes are not noted. "
            "SITECONFIG['FLEET'] is False."
        )

    def test_fails_if_one_is_behind(self, capsys: Any) -> None:
        """So that a deployment can wait for it."""
        member(1)
        config.set_setting("timeout", 45)
        with pytest.raises(CommandError) as caught:
            call_command("siteconfig", "status")
        assert caught.value.returncode == 1
        assert "live in 0 of 1 process\n" in (out := capsys.readouterr().out)
        assert "behind" in out

    def test_as_json(self, capsys: Any) -> None:
        """For programs."""
        member(1)
        call_command("siteconfig", "status", "--json")
        first = json.loads(capsys.readouterr().out.splitlines()[0])
        assert (first["model"], first["live"]) == ("siteconfig.SiteConfiguration", 1)
        assert first["processes"][0]["host"] == "web1"


class TestPage:
    def shown(self) -> str:
        client = Client()
        client.force_login(AdminFactory.create())
        return " ".join(client.get(URL).content.decode().split())

    def test_says_how_many_have_the_settings(self) -> None:
        """All of them, mostly."""
        member(1), member(2)
        assert "Live in 2 of 2 processes." in self.shown()

    def test_names_the_laggard(self) -> None:
        """With host, process and what it still has."""
        one = member(1)
        config.set_setting("timeout", 45)
        member(2)
        age(one, 61)
        page = self.shown()
        assert "Live in 1 of 2 processes." in page
        assert "web1, process 1, still has version 0; last heard of 1 minute ago." in page

    def test_says_nothing_where_nothing_is_known(self) -> None:
        """As when no watcher runs."""
        assert "Live in" not in self.shown()

    def test_shows_a_change_as_live_on_the_next_page(self, tmp_path: Any) -> None:
        """Right after Save, on SQLite, where the process that shows the page notes itself, too."""
        settings = site_on_sqlite(tmp_path)
        manage(settings, "migrate", "-v0")
        with Process(settings) as process:
            process.run("from tests.factories import AdminFactory")
            process.run("from django.test import Client; client = Client()")
            process.run("client.force_login(AdminFactory.create())")
            process.run("_ = config.timeout")
            for value in (41, 42, 43):
                process.run(f"config.set_setting('timeout', {value})")
                process.run(f"page = client.get({URL!r}).content.decode()")
                assert process.run("'Live in 1 of 1 process.' in ' '.join(page.split())")


def site_on_sqlite(folder: Any) -> dict[str, Any]:
    """The reference site's own database settings, on a file in ``folder``."""
    default = database(str(folder / "db.sqlite3"))
    return {"DATABASES": {"default": default}, "ALLOWED_HOSTS": ["testserver"]}
