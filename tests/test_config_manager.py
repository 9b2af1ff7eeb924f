"""ConfigManager: one per model (G1), whole (G7), never failing (G8), bad values alone (G15)."""

from __future__ import annotations

import copy
import logging
import pickle
import threading
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from threading import Barrier, Event
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import AppRegistryNotReady, ImproperlyConfigured
from django.db import DataError, OperationalError, connection, transaction
from django.test import override_settings

import siteconfig
from siteconfig import ConfigManager, Logger, config, config_manager
from siteconfig.connections import is_ours
from siteconfig.exceptions import UnknownSettingError
from siteconfig.models import ConfigModel, SiteConfiguration
from siteconfig.snapshot import Snapshot
from siteconfig.testing import override_config
from siteconfig.watcher import Watcher
from tests.concurrency import (
    PATIENCE,
    Changes,
    Failpoint,
    Started,
    after_each_read,
    in_child,
    in_thread,
)
from tests.keys import NOT_UTF8
from tests.testapp.models import Note, ShopConfig

if TYPE_CHECKING:
    pass

ROW = SiteConfiguration._meta.db_table


def fast(manager: ConfigManager = config) -> bool:
    """Whether reads are plain attribute reads now."""
    return "_snapshot" in vars(manager)


def raw_sql(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.fixture
def no_database(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The database is down; gives the list of attempts to reach it."""
    attempts: list[int] = []

    def read(*args: Any) -> None:
        attempts.append(1)
        raise OperationalError("connection refused")

    monkeypatch.setattr(ConfigModel, "read", read)
    return attempts


class TestG1One:
    def test_the_default_manager_is_one(self) -> None:
        """Whoever asks gets the same object, under each of its names."""
        assert ConfigManager() is ConfigManager()
        assert ConfigManager() is config is siteconfig.config
        assert ConfigManager(SiteConfiguration) is config

    def test_each_model_has_its_own(self) -> None:
        """A second config model has a second manager."""
        assert ConfigManager(ShopConfig) is ConfigManager(ShopConfig)
        assert ConfigManager(ShopConfig) is not config

    def test_copies_are_the_same_manager(self) -> None:
        """copy and pickle cannot make a second one."""
        for manager in (config, ConfigManager(ShopConfig)):
            assert copy.copy(manager) is copy.deepcopy(manager) is manager
            assert pickle.loads(pickle.dumps(manager)) is manager

    def test_64_threads_make_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also when they ask at the same moment."""
        monkeypatch.setattr(config_manager, "_managers", {})
        barrier = Barrier(64)

        def ask() -> ConfigManager:
            barrier.wait()
            return ConfigManager(ShopConfig)

        threads = [Started(ask) for _ in range(64)]
        assert len({id(thread.result()) for thread in threads}) == 1

    @pytest.mark.django_db(transaction=True)
    def test_64_threads_reading_first_at_once_cause_one_load(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The others wait for the one that reads."""
        monkeypatch.setattr(config_manager, "WAIT", 20)  # however slow the machine is
        barrier = Barrier(64)
        loads: list[int] = []

        def read() -> int:
            barrier.wait()
            return config.timeout

        with after_each_read(lambda: loads.append(1)):
            threads = [Started(read) for _ in range(64)]
            assert {thread.result() for thread in threads} == {30}
        assert len(loads) == 1

    @pytest.mark.parametrize("wrong", [Note, ConfigModel, "shop.ShopConfig", object()])
    def test_anything_but_a_config_model_is_refused(self, wrong: Any) -> None:
        """The error says what is taken."""
        with pytest.raises(TypeError, match="takes a subclass of siteconfig"):
            ConfigManager(wrong)


@pytest.mark.django_db
class TestReading:
    def test_every_spelling_gives_the_value(self) -> None:
        """Attribute, name, mapping, snapshot, typed snapshot."""
        assert config.timeout == 30
        assert config.get_setting("TIMEOUT") == config.get_setting("timeout") == 30
        assert config.settings["timeout"] == 30
        assert config.snapshot().timeout == 30
        assert SiteConfiguration.current().timeout == 30

    def test_get_setting_of_an_unknown_name_gives_the_default(self) -> None:
        """As a dict does."""
        assert config.get_setting("NOPE") is None
        assert config.get_setting("NOPE", default=7) == 7

    def test_settings_is_read_only(self) -> None:
        """A mapping of field names to values, which nobody can change."""
        assert set(config.settings) == set(SiteConfiguration.setting_fields())
        with pytest.raises(TypeError):
            config.settings["timeout"] = 5  # type: ignore[index]

    def test_an_unknown_attribute_lists_near_names(self) -> None:
        """The error is an AttributeError that knows what was meant."""
        with pytest.raises(AttributeError, match=r"no setting 'timout'. Did you mean 'timeout'\?"):
            _ = config.timout
        with pytest.raises(UnknownSettingError) as caught:
            _ = config.retry_counts
        assert caught.value.near[0] == "retry_count"
        assert not hasattr(config, "no_such_thing_at_all")

    def test_attributes_cannot_be_set_or_deleted(self) -> None:
        """Assignment would look as if it saved."""
        with pytest.raises(AttributeError, match="set_setting"):
            config.timeout = 5
        with pytest.raises(AttributeError, match="was not deleted"):
            del config.timeout

    def test_the_second_read_makes_no_query(self, django_assert_num_queries: Any) -> None:
        """Warm reads of every kind are free of the database (G8)."""
        _ = config.timeout
        with django_assert_num_queries(0):
            _ = (config.timeout, config.snapshot(), config.settings, config.get_setting("x"))

    def test_dir_and_repr_help_in_a_shell(self) -> None:
        """Completion knows the settings; repr shows no value."""
        assert {"timeout", "set_setting"} <= set(dir(config))
        assert repr(config) == "<ConfigManager of siteconfig.SiteConfiguration>"

    def test_a_manager_of_another_model_reads_its_own_row(self) -> None:
        """Two models share nothing."""
        shop = ConfigManager(ShopConfig)
        shop.set_setting("currency", "CHF")
        assert shop.currency == "CHF"
        assert not hasattr(config, "currency")


@pytest.mark.django_db(transaction=True)
class TestFastPath:
    def test_a_committed_snapshot_lies_in_the_managers_dict(self) -> None:
        """So that a read is an ordinary attribute read."""
        assert not fast()
        _ = config.timeout
        assert fast()
        assert vars(config)["timeout"] == 30

    def test_a_first_read_costs_one_query(self, django_assert_num_queries: Any) -> None:
        """And no write."""
        with django_assert_num_queries(1) as captured:
            _ = config.timeout
        assert captured.captured_queries[0]["sql"].startswith("SELECT")

    def test_a_commit_leaves_readers_on_the_fast_path(self) -> None:
        """Whoever changes pays, never the reader."""
        config.set_setting("timeout", 45)
        assert fast()
        assert vars(config)["timeout"] == 45

    def test_an_open_write_takes_everybody_off_it_until_it_ends(self) -> None:
        """Readers must be told apart meanwhile; afterwards they need not be."""
        _ = config.timeout
        with transaction.atomic():
            config.set_setting("timeout", 45)
            assert not fast()
        assert fast()


class TestG6NoGoingBack:
    @pytest.mark.django_db(transaction=True)
    def test_a_load_that_began_before_a_commit_is_not_published_after_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The loader has read 30 when 45 is committed; from then on nobody sees 30."""
        monkeypatch.setattr("siteconfig.connections.WAIT", PATIENCE)
        point = Failpoint()
        with after_each_read(point):
            loader = Started(lambda: config.timeout)
            assert point.reached.wait(20)
            SiteConfiguration.objects.update(timeout=45)
            assert config.timeout == 45
            point.released.set()
            assert loader.result() == 45
        assert config.timeout == 45

    @pytest.mark.django_db(transaction=True)
    def test_the_later_of_two_loads_is_not_undone_by_the_earlier(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also where another process has committed in between, and nothing was announced."""
        monkeypatch.setattr(config_manager, "WAIT", 0)  # let loads overlap
        point = Failpoint()
        with after_each_read(point):
            early = Started(lambda: config.timeout)
            assert point.reached.wait(20)
            raw_sql(f"UPDATE {ROW} SET timeout = 45")
            assert in_thread(lambda: config.timeout) == 45
            point.released.set()
            early.result()
        assert config.timeout == 45

    @pytest.mark.django_db(transaction=True)
    def test_a_reader_with_an_old_view_of_the_database_is_not_taken_back(self) -> None:
        """Inside a transaction that began earlier, the committed state is read outside it."""
        assert config.timeout == 30
        with transaction.atomic():
            Note.objects.count()  # from here on this transaction sees the old row
            in_thread(lambda: config.set_setting("timeout", 45))
            assert config.timeout == 45
            in_thread(write_and_roll_back)
            assert config.timeout == 45


def write_and_roll_back() -> None:
    with transaction.atomic():
        config.set_setting("timeout", 99)
        transaction.set_rollback(True)


class TestG7Whole:
    @pytest.mark.django_db(transaction=True)
    def test_a_snapshot_never_mixes_two_commits(self) -> None:
        """A writer keeps two settings equal; no snapshot ever has them differ."""
        config.set_settings(timeout=1, retry_count=1)
        stop = threading.Event()

        def read() -> int:
            torn = 0
            while not stop.is_set():
                snapshot = config.snapshot()
                torn += snapshot.timeout != snapshot.retry_count
            return torn

        readers = [Started(read) for _ in range(2)]
        for value in range(1, 11):
            config.set_settings(timeout=value, retry_count=value)
        stop.set()
        assert [reader.result() for reader in readers] == [0, 0]

    @pytest.mark.django_db
    def test_a_snapshot_stays_as_it_was(self) -> None:
        """Later changes are in later snapshots."""
        before = config.snapshot()
        config.set_setting("timeout", 45)
        assert (before.timeout, config.timeout) == (30, 45)


class TestG8NeverFails:
    @pytest.mark.django_db(transaction=True)
    def test_a_database_that_does_not_answer_is_said_to(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An error without a word would tell nobody what to look for."""
        monkeypatch.setattr("siteconfig.connections.WAIT", 0.01)
        answers = Event()
        connection.close()  # so that another one, in a thread of its own, reads

        def wait() -> None:
            assert answers.wait(PATIENCE)

        with after_each_read(wait):
            assert config.timeout == 30
            said = config.status().last_error
            answers.set()
        assert said == "TimeoutError: The database did not answer within 0.01 seconds."

    def test_no_database_gives_the_defaults_and_one_warning(
        self, no_database: list[int], caplog: pytest.LogCaptureFixture
    ) -> None:
        """The status says what is served and why."""
        with caplog.at_level(logging.INFO, logger="siteconfig"):
            assert config.timeout == 30
            assert config.get_setting("site_name") == "My site"
            assert config.snapshot().retry_count == 3
        assert len(caplog.records) == 1
        assert caplog.records[0].levelname == "WARNING"
        status = config.status()
        assert status.source == "default"
        assert status.age is None
        assert status.last_error == "OperationalError: connection refused"
        assert not status.fresh

    @pytest.mark.django_db(transaction=True)
    def test_a_lost_database_leaves_the_last_known_good_values(self, monkeypatch: Any) -> None:
        """Not the defaults: what was read last."""
        config.set_setting("timeout", 45)
        monkeypatch.setattr(ConfigModel, "read", failing_read)
        config.reload()
        assert config.timeout == 45
        assert config.status().source == "row"
        assert config.status().last_error == "OperationalError: server closed the connection"

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("is_served", [True, False])
    def test_what_replaces_the_defaults_is_told_if_they_were_served(
        self, monkeypatch: pytest.MonkeyPatch, changes: Changes, *, is_served: bool
    ) -> None:
        """Receivers may have acted on them, as those that configure something at the start."""
        raw_sql("UPDATE siteconfig_siteconfiguration SET timeout = 45")
        with monkeypatch.context() as away:
            away.setattr(ConfigModel, "read", failing_read)
            if is_served:
                assert config.timeout == 30
            else:
                config._note_failure(OperationalError())  # as the watcher does, for the log
        config.reload()
        assert changes.timeouts == ([(30, 45)] if is_served else [])

    def test_while_the_database_is_down_it_is_not_asked_at_each_read(
        self,
        no_database: list[int],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Only again after a pause; and one warning is enough."""
        now = [1000.0]
        monkeypatch.setattr(config_manager, "monotonic", lambda: now[0])
        for _ in range(5):
            _ = config.timeout
        assert len(no_database) == 1
        now[0] += config_manager.RETRY_INTERVAL + 0.1
        _ = config.timeout
        assert len(no_database) == 2
        assert len(caplog.records) == 1

    @pytest.mark.parametrize(
        "error",
        [
            DataError("timestamp too large: 'canary'"),
            OperationalError("Could not decode to UTF-8 column 'api_key' with text 'canary'"),
            ValueError("could not convert string to float: 'canary'"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_what_cannot_be_read_is_not_quoted(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
    ) -> None:
        """A driver's text shows the value, which may be a secret."""

        def read(*args: Any) -> None:
            raise error

        monkeypatch.setattr(ConfigModel, "read", read)
        assert config.timeout == 30
        assert config.status().last_error == type(error).__name__
        assert "canary" not in caplog.text

    @pytest.mark.django_db(transaction=True)
    def test_a_failed_read_of_a_reader_shuts_out_readers_for_a_moment_only(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However far away the watcher's next look is: it knows nothing of the failure."""
        now = [1000.0]
        monkeypatch.setattr(config_manager, "monotonic", lambda: now[0])
        config._watched_by(config_manager.Watch("poll"))
        with monkeypatch.context() as down:
            down.setattr(ConfigModel, "read", failing_read)
            config.reload()
        raw_sql(f"UPDATE {ROW} SET timeout = 45")
        now[0] += config_manager.RETRY_INTERVAL + 0.1
        assert config.timeout == 45
        config._watched_by(None)

    def test_a_long_outage_is_mentioned_once_a_minute(
        self,
        no_database: list[int],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Ten minutes of it, read all the time, are ten lines (H108)."""
        now = [1000.0]
        monkeypatch.setattr(config_manager, "monotonic", lambda: now[0])
        for _ in range(600):
            _ = config.timeout
            now[0] += 1.0
        assert len(no_database) >= 300
        assert len(caplog.records) == 10

    @pytest.mark.django_db(transaction=True)
    def test_a_database_that_comes_and_goes_is_mentioned_once_a_minute(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """And the last line tells how it is."""
        now = [1000.0]
        monkeypatch.setattr(config_manager, "monotonic", lambda: now[0])
        with caplog.at_level(logging.INFO, logger="siteconfig"):
            for _ in range(30):
                with monkeypatch.context() as down:
                    down.setattr(ConfigModel, "read", failing_read)
                    config.reload()
                config.reload()
                now[0] += 1.0
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]

    @pytest.mark.django_db(transaction=True)
    def test_it_heals_by_itself(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The first read after the pause finds the database back, and says so once."""
        SiteConfiguration.objects.update(timeout=45)
        config.reset()
        now = [1000.0]
        monkeypatch.setattr(config_manager, "monotonic", lambda: now[0])
        with monkeypatch.context() as down:
            down.setattr(ConfigModel, "read", failing_read)
            assert config.timeout == 30
        now[0] += config_manager.RETRY_INTERVAL + 0.1
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="siteconfig"):
            assert config.timeout == 45
        assert [record.levelname for record in caplog.records] == ["INFO"]
        assert config.status().last_error is None
        assert fast()

    @pytest.mark.django_db(transaction=True)
    def test_a_missing_row_means_the_defaults_and_makes_none(self) -> None:
        """Reading never writes."""
        SiteConfiguration.objects.all().delete()
        config.reset()
        assert config.timeout == 30
        assert fast()
        assert config.status().source == "default"
        assert not SiteConfiguration.objects.exists()

    @pytest.mark.django_db(transaction=True)
    def test_a_missing_table_means_the_defaults_until_it_is_there(self) -> None:
        """As before migrate."""
        with connection.schema_editor() as editor:
            editor.delete_model(SiteConfiguration)
        try:
            config.reset()
            assert config.timeout == 30
            told = config.status().last_error or ""
            assert "no such table" in told or "does not exist" in told
        finally:
            with connection.schema_editor() as editor:
                editor.create_model(SiteConfiguration)
            SiteConfiguration.objects.create(timeout=45)
        assert config.timeout == 45

    def test_reading_where_the_test_runner_forbids_the_database_gives_the_defaults(self) -> None:
        """Unit tests of code that reads settings need no database; the next test is not misled."""
        assert config.timeout == 30
        assert config._state.retry_at == 0

    @pytest.mark.django_db(transaction=True)
    def test_a_read_inside_a_broken_transaction_gives_what_was_known(self) -> None:
        """The ORM refuses every query there."""
        _ = config.timeout
        with transaction.atomic():
            config.set_setting("timeout", 45)
            transaction.get_connection().needs_rollback = True
            assert config.timeout == 30
        assert config.timeout == 30

    @pytest.mark.django_db(transaction=True)
    def test_code_that_runs_inside_a_load_may_read(self) -> None:
        """A receiver of connection_created, a log handler: they get what was known before."""
        seen: list[int] = []
        connection.ensure_connection()
        with after_each_read(lambda: None), connection.execute_wrapper(reading_wrapper(seen)):
            assert config.timeout == 30
        assert seen == [30]

    @pytest.mark.django_db(transaction=True)
    def test_what_it_gets_is_no_default(self) -> None:
        """But what was read before."""
        config.set_setting("timeout", 45)
        assert config.timeout == 45
        seen: list[int] = []
        with after_each_read(lambda: seen.append(config.timeout)):
            config.reload()
        assert seen == [45]

    @pytest.mark.django_db(transaction=True)
    def test_a_reader_does_not_wait_for_ever_for_another_ones_load(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The load may be waiting for a lock that this reader holds."""
        monkeypatch.setattr(config_manager, "WAIT", 0.05)
        point = Failpoint()
        with after_each_read(point):
            stuck = Started(lambda: config.timeout)
            assert point.reached.wait(20)
            assert config.timeout == 30
            point.released.set()
            stuck.result()

    @pytest.mark.django_db(transaction=True)
    def test_settings_announced_faster_than_read_are_served_unpublished(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No reader turns in circles: what it has read is committed."""
        monkeypatch.setattr(config_manager, "WAIT", 0)

        def announce() -> None:
            with config._state.lock:
                config._announce()

        with after_each_read(announce):
            assert config.timeout == 30
        assert not fast()


@pytest.mark.django_db(transaction=True)
class TestSignalHandlers:
    """Of the operating system: they run in the main thread, in the middle of anything."""

    def reload(self, stack: ExitStack) -> None:
        raw_sql(f"UPDATE {ROW} SET timeout = 99")
        config.reload()

    def override(self, stack: ExitStack) -> None:
        stack.enter_context(override_config(timeout=99))

    @pytest.mark.parametrize("handler", ["reload", "override"])
    def test_one_that_changes_what_readers_see_while_that_is_put_into_force(
        self, monkeypatch: pytest.MonkeyPatch, handler: str
    ) -> None:
        """What it has changed is newer, and stays."""
        replaced, calls = Snapshot.replaced, [getattr(self, handler)]
        _ = config.timeout
        with ExitStack() as stack:

            def interrupted(snapshot: Snapshot, values: Any) -> Snapshot:
                if snapshot.timeout == 41 and calls:
                    calls.pop()(stack)
                return replaced(snapshot, values)

            stack.enter_context(override_config(retry_count=9))
            monkeypatch.setattr(Snapshot, "replaced", interrupted)
            config.set_setting("timeout", 41)
            assert not calls
            assert [config.timeout, config.get_setting("timeout")] == [99, 99]
            assert config.snapshot().timeout == 99

    def test_one_that_reads_anew_while_what_was_read_is_published(
        self, monkeypatch: pytest.MonkeyPatch, changes: Changes
    ) -> None:
        """What it has read is newer: it stays, and is what receivers are told last."""
        calls = [self.reload]

        class Clock:
            @staticmethod
            def now(zone: Any) -> datetime:
                if calls:
                    calls.pop()(ExitStack())
                return datetime.now(zone)

        _ = config.timeout
        monkeypatch.setattr(config_manager, "datetime", Clock)
        config.set_setting("timeout", 41)
        assert not calls
        assert config.timeout == 99
        assert changes.timeouts[-1][1] == 99

    def test_one_that_reads_while_its_thread_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is given what was known before, and does not wait for its own thread."""
        seen: list[int] = []
        waits: list[float | None] = []

        class Noted(Event):
            def wait(self, timeout: float | None = None) -> bool:
                waits.append(timeout)
                return super().wait(timeout)

        def interrupted(one: Any) -> bool:
            if not seen:
                seen.append(0)
                seen[:] = [config.timeout]
            return is_ours(one)

        _ = config.timeout
        raw_sql(f"UPDATE {ROW} SET timeout = 45")
        monkeypatch.setattr(config_manager, "Event", Noted)
        monkeypatch.setattr(config_manager, "is_ours", interrupted)
        assert config.reload().timeout == 45
        assert (seen, waits) == ([30], [])


class TestForks:
    def test_a_child_is_not_held_up_by_a_lock_of_its_parent(self) -> None:
        """Held by a thread that the child does not have (H54)."""
        held, release = Event(), Event()

        def hold() -> None:
            with config._state.lock, config_manager._managers_lock, Logger._lock:
                held.set()
                assert release.wait(20)

        holder = Started(hold)
        assert held.wait(20)
        status = in_child(lambda: [ConfigManager(), config.get_setting("timeout"), Logger()])
        release.set()
        holder.result()
        assert status == 0

    def test_one_inside_another_leaves_nothing_locked(self) -> None:
        """As a signal handler may fork. The watcher halts until the outer one has ended."""
        one = Watcher()

        def can_work() -> bool:
            return bool(in_thread(partial(one._use.acquire, blocking=False)))

        one.before_fork()
        one.before_fork()
        one.after_fork_in_parent()
        assert not can_work()
        one.after_fork_in_parent()
        assert can_work()


def failing_read(*args: Any) -> None:
    raise OperationalError("server closed the connection")


def reading_wrapper(seen: list[int]) -> Any:
    def wrapper(execute: Any, *args: Any) -> Any:
        seen.append(config.timeout)
        return execute(*args)

    return wrapper


class TestImportTime:
    def test_a_read_while_models_are_imported_says_where_to_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There is no model yet, so there are not even defaults."""
        monkeypatch.setattr(config._state, "model", None)
        monkeypatch.setattr("django.apps.apps.models_ready", False)
        monkeypatch.setattr("siteconfig.conf.DEFAULT_MODEL", "notyet.Config")
        with pytest.raises(AppRegistryNotReady, match=r"Read it where it is used"):
            _ = config.timeout

    def test_a_wrong_model_setting_says_what_to_write(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The label, the reason and the line."""
        settings.SITECONFIG_MODEL = "nowhere.Config"
        with pytest.raises(ImproperlyConfigured, match=r"SITECONFIG_MODEL is 'nowhere.Config'"):
            _ = config.timeout

    @pytest.mark.django_db
    def test_another_model_setting_is_followed(self) -> None:
        """override_settings works, as for every setting."""
        with override_settings(SITECONFIG_MODEL="testapp.ShopConfig"):
            assert ConfigManager().currency == "EUR"
            assert ConfigManager(ShopConfig) is ConfigManager()
        assert ConfigManager().timeout == 30


@pytest.mark.sqlite
@pytest.mark.django_db
class TestG15OneBadValue:
    @pytest.mark.parametrize(
        ("column", "stored", "default"),
        [
            ("timeout", "'abc'", 30),
            ("extra", "'[1]'", {}),
            ("site_name", "x'ff00'", "My site"),
            ("site_name", NOT_UTF8, "My site"),
            ("api_key", NOT_UTF8, ""),
            ("timeout", NOT_UTF8, 30),
        ],
    )
    def test_a_bad_value_spoils_itself_only(self, column: str, stored: str, default: Any) -> None:
        """Before anything was read its setting is at the default; the others are current."""
        raw_sql(f"UPDATE {ROW} SET {column} = {stored}, retry_count = 7")
        config.reload()
        assert config.settings[column] == default
        assert config.retry_count == 7
        assert config.status().unreadable == (column,)

    def test_it_keeps_the_last_known_good_value(self) -> None:
        """If there is one, and explain() says so."""
        config.set_setting("timeout", 45)
        config.reload()
        raw_sql(f"UPDATE {ROW} SET timeout = 'abc', retry_count = 7")
        config.reload()
        assert (config.timeout, config.retry_count) == (45, 7)

    def test_it_is_reported_once(self, caplog: pytest.LogCaptureFixture) -> None:
        """By its name, never by its value."""
        raw_sql(f"UPDATE {ROW} SET api_key = x'733363726574', timeout = 'abc'")
        with transaction.atomic(), caplog.at_level(logging.WARNING, logger="siteconfig"):
            config.reload()
            config.reload()
        assert config.status().unreadable == ("api_key", "timeout")

    def test_other_settings_can_still_be_written(self) -> None:
        """And the bad value stays as it is, for whoever can read it."""
        raw_sql(f"UPDATE {ROW} SET timeout = 'abc'")
        config.reload()
        config.set_setting("retry_count", 5)
        assert (config.retry_count, config.timeout) == (5, 30)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT timeout FROM {ROW}")
            assert cursor.fetchone() == ("abc",)

    def test_saving_it_anew_heals_it(self) -> None:
        """The setting is readable again."""
        raw_sql(f"UPDATE {ROW} SET timeout = 'abc'")
        config.reload()
        config.set_setting("timeout", 50)
        assert config.timeout == 50
        assert config.status().unreadable == ()


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
class TestG15Reports:
    def test_a_warning_is_logged_once(self, caplog: pytest.LogCaptureFixture) -> None:
        """At the first load that meets the value, by name."""
        _ = config.timeout
        raw_sql(f"UPDATE {ROW} SET timeout = 'abc'")
        with caplog.at_level(logging.WARNING, logger="siteconfig"):
            config.reload()
            config.reload()
        assert len(caplog.records) == 1
        assert "timeout" in caplog.text
        assert "abc" not in caplog.text

    @pytest.mark.parametrize("column", ["site_name", "api_key"])
    def test_a_text_that_is_not_utf8_is_shown_nowhere(
        self, column: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As the driver's error would. The last known value stays, and the others are read."""
        config.set_setting(column, "known")
        raw_sql(f"UPDATE {ROW} SET {column} = {NOT_UTF8}, timeout = 45")
        with caplog.at_level(logging.DEBUG, logger="siteconfig"):
            config.reload()
        assert (config.timeout, config.settings[column]) == (45, "known")
        status = config.status()
        assert (status.unreadable, status.last_error) == ((column,), None)
        assert column in caplog.text
        assert "canary" not in f"{caplog.text} {status} {config.snapshot()!r}"

    def test_explain_tells_where_the_value_is_from(self) -> None:
        """And goes on telling it at later loads."""
        config.set_setting("timeout", 45)
        raw_sql(f"UPDATE {ROW} SET timeout = 'abc'")
        for _ in range(2):
            config.reload()
            assert config.explain("timeout").source == "last known good"
            assert config.explain("timeout").value == 45


@pytest.mark.django_db
class TestStatusAndExplain:
    def test_nothing_read_yet(self, django_assert_num_queries: Any) -> None:
        """status() reads nothing itself."""
        with django_assert_num_queries(0):
            status = config.status()
        assert status.model == "siteconfig.SiteConfiguration"
        assert (status.version, status.loaded_at, status.source) == (None, None, None)
        assert status.last_error is None
        assert not status.fresh

    def test_after_a_load(self) -> None:
        """Version, time and source of what is held."""
        in_thread(lambda: config.timeout)
        status = config.status()
        assert (status.version, status.source, status.fresh) == (0, "row", True)
        assert status.loaded_at is not None
        assert status.loaded_at.tzinfo is not None
        assert status.transport == "none"

    def test_explain_tells_value_and_source(self) -> None:
        """Of fields and extra settings, in any case."""
        config.set_setting("new", 1)
        assert config.explain("TIMEOUT").value == 30
        assert config.explain("TIMEOUT").name == "timeout"
        assert config.explain("timeout").source == "row"
        assert config.explain("NEW").value == 1

    def test_explain_shows_no_value_in_its_repr(self) -> None:
        """It may be a secret."""
        config.set_setting("api_key", "s3cret")
        assert "s3cret" not in repr(config.explain("api_key"))

    def test_explain_of_an_unknown_name_is_an_error(self) -> None:
        """Unlike get_setting, which has a default to give."""
        with pytest.raises(UnknownSettingError):
            config.explain("nope")

    def test_explain_without_a_row(self) -> None:
        """Everything is at its default."""
        SiteConfiguration.objects.all().delete()
        assert config.explain("timeout").source == "default"


@pytest.mark.django_db(transaction=True)
class TestReloadAndReset:
    def test_reload_sees_raw_sql(self) -> None:
        """What Django did not write, it did not announce."""
        _ = config.timeout
        raw_sql(f"UPDATE {ROW} SET timeout = 45")
        assert config.timeout == 30
        assert config.reload().timeout == 45
        assert config.timeout == 45

    def test_reload_inside_a_transaction_is_for_that_transaction(self) -> None:
        """What it has written by raw SQL is seen by it, by others after the commit."""
        _ = config.timeout
        with transaction.atomic():
            raw_sql(f"UPDATE {ROW} SET timeout = 45")
            assert config.reload().timeout == 45
            assert config.timeout == 45
            assert in_thread(lambda: config.timeout) == 30
        assert in_thread(lambda: config.timeout) == 45

    def test_a_lower_version_is_adopted(self) -> None:
        """A restored backup counts: versions name states, they do not order them."""
        config.set_setting("timeout", 45)
        config.set_setting("timeout", 46)
        assert config.snapshot().version == 2
        raw_sql(f"UPDATE {ROW} SET timeout = 44, version = 1")
        config.reload()
        assert (config.timeout, config.snapshot().version) == (44, 1)

    def test_reset_forgets_what_was_read(self) -> None:
        """The next read is a first read."""
        _ = config.timeout
        config.reset()
        assert not fast()
        assert config.status().version is None
        assert config.timeout == 30

    def test_reset_leaves_an_open_transaction_its_own_writes(self) -> None:
        """They are facts, not memories."""
        with transaction.atomic():
            config.set_setting("timeout", 45)
            config.reset()
            assert config.timeout == 45
            transaction.set_rollback(True)
        assert config.timeout == 30

    def test_reset_during_a_load_discards_it(self) -> None:
        """What was asked before is not remembered after."""
        point = Failpoint()
        with after_each_read(point):
            loader = Started(lambda: config.timeout)
            assert point.reached.wait(20)
            config.reset()
            raw_sql(f"UPDATE {ROW} SET timeout = 45")
            point.released.set()
            assert loader.result() == 45
