"""Which transport is chosen, what is wrong with one, and when none is used at all."""

from __future__ import annotations

import sys
from math import inf
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from django.core import mail
from django.core.checks import run_checks
from django.db import connections
from django.test.utils import CaptureQueriesContext, _TestState

from siteconfig import checks, config, transports
from siteconfig.backoff import FIRST, LONGEST, Backoff
from siteconfig.testing import run_watcher
from siteconfig.transports.polling import Polling, SQLitePolling
from siteconfig.transports.postgres import Postgres
from siteconfig.transports.redis import Redis
from siteconfig.watcher import Link, watcher
from tests.concurrency import in_thread, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def is_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database says that it is a PostgreSQL."""
    monkeypatch.setattr(connections["default"], "vendor", "postgresql", raising=False)


class TestChoice:
    def test_the_poll_is_for_every_database(self) -> None:
        """On SQLite its cheaper kind."""
        assert transports.choose("default") is SQLitePolling

    def test_auto_listens_on_postgresql(self, is_postgres: None) -> None:
        """Where psycopg 3 is there."""
        assert transports.choose("default") is Postgres

    def test_poll_can_be_asked_for(self, is_postgres: None, settings: Any) -> None:
        """On PostgreSQL too."""
        settings.SITECONFIG = {"TRANSPORT": "poll"}
        assert transports.choose("default") is Polling

    def test_redis_is_to_be_asked_for(self, settings: Any) -> None:
        """On any database."""
        settings.SITECONFIG = {"TRANSPORT": "redis", "REDIS_URL": "redis://127.0.0.1"}
        assert transports.choose("default") is Redis

    @pytest.mark.parametrize("name", ["postgres", "redis", "carrier pigeon"])
    def test_what_cannot_work_leaves_the_poll(self, settings: Any, name: str) -> None:
        """A check says so; the site goes on."""
        settings.SITECONFIG = {"TRANSPORT": name}
        assert transports.choose("default") is SQLitePolling

    def test_in_memory_databases_cannot_be_watched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another connection would see another one."""
        monkeypatch.setitem(connections["default"].settings_dict, "NAME", ":memory:")
        assert transports.choose("default") is None


class TestChecks:
    @pytest.mark.parametrize(
        ("given", "expected", "text"),
        [
            ({"TRANSPORT": "pigeon"}, "siteconfig.E010", "it must be 'auto' or 'none' or 'poll'"),
            ({"TRANSPORT": "postgres"}, "siteconfig.E013", "which is no PostgreSQL"),
            ({"TRANSPORT": "redis"}, "siteconfig.E013", "no server is named"),
            ({"POLL_INTERVAL": 0}, "siteconfig.E010", "more than 0 seconds"),
            ({"POLL_INTERVAL": "1"}, "siteconfig.E003", "must be int or float or None"),
            ({"MAX_STALENESS": -1}, "siteconfig.E010", "more than 0 seconds"),
            (
                {"POLL_INTERVAL": 120},
                "siteconfig.W021",
                "more than SITECONFIG['MAX_STALENESS'], 60.0",
            ),
            ({"LISTEN_DATABASE": "nowhere"}, "siteconfig.E010", "must be an alias in DATABASES"),
        ],
    )
    @pytest.mark.django_db(databases=["default", "other"])
    def test_what_is_wrong(self, settings: Any, given: Any, expected: str, text: str) -> None:
        """The id, the reason, and what to write."""
        settings.SITECONFIG = given
        (message,) = run_checks()
        assert (message.id, bool(message.hint)) == (expected, True)
        assert text in message.msg

    def test_an_address_is_not_repeated(self, settings: Any) -> None:
        """There may be a password in it."""
        settings.SITECONFIG = {"TRANSPORT": "redis", "REDIS_URL": "http://:canary@127.0.0.1"}
        (message,) = checks.check_transport()
        assert "is no address" in message.msg
        assert "canary" not in message.msg + str(message.hint)

    @pytest.mark.parametrize(
        ("version", "expected"), [("3.2.3", True), ("3.2.4", False), ("3.10.0.dev1", False)]
    )
    def test_a_psycopg_that_loses_notifications(
        self, is_postgres: None, monkeypatch: pytest.MonkeyPatch, version: str, expected: bool
    ) -> None:
        """Is refused, and the poll used instead."""
        monkeypatch.setattr("siteconfig.transports.postgres.psycopg.__version__", version)
        assert bool(list(Postgres.problems("default"))) is expected
        assert (transports.choose("default") is Polling) is expected

    def test_a_library_that_is_missing(
        self, is_postgres: None, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The hint is the command to type."""
        monkeypatch.setattr("siteconfig.transports.postgres.psycopg", None)
        monkeypatch.setattr("siteconfig.transports.redis.redis", None)
        settings.SITECONFIG = {"REDIS_URL": "redis://127.0.0.1"}
        hints = [hint for one in (Postgres, Redis) for _text, hint in one.problems("default")]
        assert hints == [
            "Run: pip install 'siteconfig[postgres]'",
            "Run: pip install 'siteconfig[redis]'",
        ]


class TestUse:
    def test_not_under_a_test_runner(self) -> None:
        """A read starts no thread, and a write announces nothing."""
        assert not transports.in_use()
        assert config.timeout == 30
        assert vars(watcher)["_thread"] is None
        assert config.status().transport == "none"

    def test_unless_a_test_asks(self, siteconfig_watcher: None) -> None:
        """By the fixture, or run_watcher()."""
        assert transports.in_use()

    @pytest.mark.parametrize("sign", ["environment", "command", "plugin"])
    def test_each_sign_of_a_test_runner_is_enough(
        self, monkeypatch: pytest.MonkeyPatch, sign: str
    ) -> None:
        """Django's test environment, manage.py test, pytest with the plugin."""
        monkeypatch.delattr(_TestState, "saved_data", raising=False)
        mail.outbox = []  # which any site may have that uses the locmem backend
        monkeypatch.setattr(sys, "argv", ["manage.py", "runserver"])
        monkeypatch.delitem(sys.modules, "siteconfig.pytest_plugin")
        assert not transports.under_test_runner()
        if sign == "environment":
            monkeypatch.setattr(_TestState, "saved_data", None, raising=False)
        elif sign == "command":
            monkeypatch.setattr(sys, "argv", ["manage.py", "test"])
        else:
            monkeypatch.setitem(sys.modules, "siteconfig.pytest_plugin", sys)
        assert transports.under_test_runner()

    def test_none_is_none(self, settings: Any) -> None:
        """Also for a test that asks."""
        settings.SITECONFIG = {"TRANSPORT": "none"}
        with run_watcher():
            assert not transports.in_use()

    @pytest.mark.django_db(transaction=True)
    def test_the_first_read_starts_it_and_the_block_ends_it(self) -> None:
        """Also a read after a write, which finds everything in memory."""
        with run_watcher():
            config._after_write("default")
            assert config.timeout == 30
            thread = vars(watcher)["_thread"]
            assert (thread.name, thread.daemon) == ("siteconfig-watcher", True)
            _ = in_thread(lambda: config.timeout)
            assert vars(watcher)["_thread"] is thread
        assert not thread.is_alive()
        assert config.status().transport == "none"

    @pytest.mark.django_db(transaction=True)
    def test_what_is_in_memory_is_watched_as_well(self) -> None:
        """Also if it was read before the block, and no read asks for anything."""
        assert config.timeout == 30
        with run_watcher():
            wait_until(lambda: config.status().transport != "none")

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize(
        ("name", "why"), [("redis", "no server is named"), ("pigeon", "which is no transport")]
    )
    def test_the_status_says_why_another_one_is_used(
        self, settings: Any, name: str, why: str
    ) -> None:
        """Than the one that is asked for, where that cannot work."""
        settings.SITECONFIG = {"TRANSPORT": name}
        with run_watcher():
            assert config.timeout == 30
            wait_until(lambda: config.status().transport == "poll")
            wait_until(lambda: why in str(config.status().transport_error))


class TestFaultsOfTheStart:
    @pytest.fixture
    def backoff(self, monkeypatch: pytest.MonkeyPatch) -> Backoff:
        """The watcher's, of which the test tells when a pause is over."""
        one = Backoff()
        monkeypatch.setattr(watcher, "_backoff", one)
        monkeypatch.setattr(watcher, "_has_complained", False)
        return one

    @pytest.fixture
    def attempts(self, backoff: Backoff) -> Iterator[list[str]]:
        """No thread can be started, as where there are no descriptors left: the attempts at it."""
        made = list[str]()

        def fail(*args: Any) -> None:
            made.append("here")
            raise OSError("Too many open files")

        with pytest.MonkeyPatch.context() as context:
            context.setattr("siteconfig.watcher.Waker", fail)
            yield made

    @pytest.mark.django_db(transaction=True)
    def test_a_thread_that_cannot_be_started_is_no_readers_trouble(
        self, siteconfig_watcher: None, attempts: list[str], backoff: Backoff, caplog: Any
    ) -> None:
        """It is said once, and tried again after a pause; reads are right, and make no query."""
        assert config.timeout == 30
        assert (len(attempts), backoff.failures) == (1, 1)
        with CaptureQueriesContext(connections["default"]) as queries:
            for number in range(3):
                backoff.until = inf
                assert (config.timeout, len(attempts)) == (30, number + 1)
                backoff.until = -inf
                assert (config.timeout, len(attempts)) == (30, number + 2)
        assert len(queries) == 0
        config.set_setting("timeout", 45)
        assert (config.timeout, config.get_setting("timeout")) == (45, 45)
        assert [record.levelname for record in caplog.records] == ["WARNING"]

    @pytest.mark.django_db(transaction=True)
    def test_the_next_read_starts_it_when_it_can_be_started(
        self, siteconfig_watcher: None, backoff: Backoff, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And all is as if it had been at once."""
        with monkeypatch.context() as context:
            context.setattr("siteconfig.watcher.Waker", None)
            assert config.timeout == 30
        backoff.until = -inf
        assert config.timeout == 30
        wait_until(lambda: config.status().transport != "none")
        assert backoff.failures == 0
        _ = config.timeout
        assert "timeout" in vars(config)

    @pytest.mark.django_db(transaction=True)
    def test_who_comes_while_it_is_started_asks_again(
        self, siteconfig_watcher: None, backoff: Backoff
    ) -> None:
        """For the start may fail."""
        with vars(watcher)["_lock"]:
            assert config.timeout == 30
        assert vars(watcher)["_thread"] is None
        assert config.timeout == 30
        wait_until(lambda: config.status().transport != "none")

    @pytest.mark.django_db(transaction=True)
    def test_what_was_read_before_asks_again_as_well(self, attempts: list[str]) -> None:
        """Though nobody reads when run_watcher() has it watched."""
        assert config.timeout == 30
        assert "timeout" in vars(config)
        with run_watcher():
            assert (len(attempts), "timeout" in vars(config)) == (1, False)

    def test_a_way_past_the_pooler_is_for_the_default_models_database(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another one's rows are not there. Nor, in a test, is it for the site's own database."""
        settings.SITECONFIG = {"LISTEN_DATABASE": "other"}
        assert Link("default", Postgres("default"))._direct_alias() is None
        name = connections.settings["default"]["NAME"]
        monkeypatch.setitem(connections.settings["other"], "NAME", name)
        assert Link("default", Postgres("default"))._direct_alias() == "other"
        assert Link("other", Postgres("other"))._direct_alias() is None
        assert Link("default", Polling("default"))._direct_alias() is None


class TestComplaint:
    def test_one_line_a_minute_about_what_comes_and_goes(
        self, monkeypatch: pytest.MonkeyPatch, caplog: Any
    ) -> None:
        """And one when that has ended; a long failure is said even if it began unsaid."""
        clock = [1000.0]
        for module in ("transports.base", "transports.redis", "backoff"):
            monkeypatch.setattr(f"siteconfig.{module}.monotonic", lambda: clock[0])
        subscribes = [True]

        class Subscription:
            def subscribe(self, channel: str) -> None:
                if not subscribes[0]:
                    raise OSError("refused")

            def get_message(self, timeout: float) -> dict[str, str]:
                return {"type": "subscribe"}

            def close(self) -> None:
                pass

        client = SimpleNamespace(pubsub=Subscription)
        monkeypatch.setattr("siteconfig.transports.redis._client", lambda: client)
        transport = Redis("default")
        with caplog.at_level("INFO", "siteconfig.transports"):
            for second in range(120):
                clock[0] = 1000.0 + second
                subscribes[0] = second % 4 > 1  # away for two seconds, there for two
                transport._tend()
        levels = [record.levelname for record in caplog.records]
        assert levels == ["WARNING", "INFO", "WARNING", "INFO"]

    def test_each_failure_is_said(self, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
        """One that follows another, too, but each once a minute at the most."""
        clock = [1000.0]
        monkeypatch.setattr("siteconfig.transports.base.monotonic", lambda: clock[0])
        transport = Polling("default")
        with caplog.at_level("INFO", "siteconfig.transports"):
            for second in range(90):
                clock[0] = 1000.0 + second
                transport.give_up(f"The one is wrong: {second}")
                transport.give_up("The other is wrong.")
        lines = [record.getMessage() for record in caplog.records]
        assert [line.removeprefix("Changes wait for the poll. ") for line in lines] == [
            "The one is wrong: 0",
            "The other is wrong.",
            "The one is wrong: 60",
            "The other is wrong.",
        ]


class TestBackoff:
    def test_pauses_grow_up_to_the_longest_and_end_with_a_success(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of random length, from none at all, so that a fleet does not come back as one."""
        longest: list[float] = []

        def uniform(low: float, high: float) -> float:
            longest.append(high)
            return high if low == 0 else -1

        monkeypatch.setattr("random.uniform", uniform)
        backoff: Any = Backoff()
        is_over = [backoff.is_over()]
        for _ in range(2000):
            backoff.failed()
        is_over.append(backoff.is_over())
        backoff.reset()
        assert longest[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
        assert longest[-1] == LONGEST
        assert [*is_over, backoff.is_over()] == [True, False, True]
