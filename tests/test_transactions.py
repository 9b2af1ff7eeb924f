"""Committed only (G2), own writes (G3), visible on return (G4)."""

from __future__ import annotations

import gc
from threading import Barrier, Event, Thread
from typing import Any
from weakref import ref

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test import TestCase

from siteconfig import ConfigManager, config, history
from siteconfig.models import SiteConfiguration
from tests.concurrency import PATIENCE, Started, in_thread
from tests.testapp.models import Note


def set_timeout(value: int) -> None:
    config.set_setting("timeout", value)


def save_timeout(value: int) -> None:
    row = SiteConfiguration.objects.get()
    row.timeout = value
    row.save()


def update_timeout(value: int) -> None:
    SiteConfiguration.objects.update(timeout=value)


def bulk_update_timeout(value: int) -> None:
    row = SiteConfiguration.objects.get()
    row.timeout = value
    SiteConfiguration.objects.bulk_update([row], ["timeout"])


def replace_row(value: int) -> None:
    SiteConfiguration.objects.all().delete()
    SiteConfiguration.objects.create(timeout=value)


def bulk_create_row(value: int) -> None:
    SiteConfiguration.objects.all().delete()
    SiteConfiguration.objects.bulk_create([SiteConfiguration(timeout=value)])


def upsert_row(value: int) -> None:
    SiteConfiguration.objects.bulk_create(
        [SiteConfiguration(timeout=value)],
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=["timeout"],
    )


def update_or_create_row(value: int) -> None:
    SiteConfiguration.objects.update_or_create(pk=1, defaults={"timeout": value})


WRITES = [
    set_timeout,
    save_timeout,
    update_timeout,
    bulk_update_timeout,
    replace_row,
    bulk_create_row,
    upsert_row,
    update_or_create_row,
]

every_write = pytest.mark.parametrize("write", WRITES)


def others() -> int:
    """What another thread reads."""
    return in_thread(lambda: config.timeout)


class RollBackError(Exception):
    """Raised by a test to leave a transaction."""


@pytest.mark.django_db(transaction=True)
class TestG2CommittedOnly:
    @every_write
    def test_others_see_a_write_after_its_commit_only(self, write: Any) -> None:
        """Warm or cold before the write makes no difference."""
        with transaction.atomic():
            write(45)
            assert others() == 30
        assert others() == 45

    @every_write
    def test_others_never_see_what_is_rolled_back(self, write: Any) -> None:
        """Neither before the rollback nor after it."""
        with pytest.raises(RollBackError), transaction.atomic():
            write(45)
            assert others() == 30
            raise RollBackError
        assert others() == 30
        assert config.timeout == 30

    def test_a_thread_that_reads_all_along_sees_30_until_the_commit_returns(self) -> None:
        """One reader, stepping with the writer from save to commit and beyond."""
        step = Barrier(2)

        def read() -> list[int]:
            seen = []
            for _ in range(4):
                step.wait(PATIENCE)
                seen.append(config.timeout)
                step.wait(PATIENCE)
            return seen

        reader = Started(read)
        meet = [lambda: step.wait(PATIENCE)] * 2
        for wait in meet:
            wait()  # before
        with transaction.atomic():
            save_timeout(45)
            for wait in meet:
                wait()  # between save and commit
        for wait in meet:
            wait()  # after the commit
        with pytest.raises(RollBackError), transaction.atomic():
            save_timeout(50)
            raise RollBackError
        for wait in meet:
            wait()  # after a rollback
        assert reader.result() == [30, 30, 45, 45]

    def test_a_first_read_during_somebodys_write_gives_the_committed_value(self) -> None:
        """Nothing uncommitted is ever held for all."""
        with transaction.atomic():
            save_timeout(45)
            config.reset()
            assert others() == 30
            assert config.timeout == 45
            assert others() == 30

    def test_a_transactions_unannounced_write_is_not_published_by_its_reads(self) -> None:
        """A cold read inside a transaction that wrote by raw SQL reads outside it."""
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("UPDATE siteconfig_siteconfiguration SET timeout = 45")
            assert config.timeout == 30
            assert others() == 30
            transaction.set_rollback(True)
        assert config.timeout == 30


@pytest.mark.django_db(transaction=True)
class TestG3OwnWrites:
    @every_write
    def test_the_transaction_that_wrote_sees_the_write(self, write: Any) -> None:
        """At once, by every spelling."""
        with transaction.atomic():
            write(45)
            assert (
                config.timeout == config.get_setting("TIMEOUT") == config.snapshot().timeout == 45
            )
            write(50)
            assert config.timeout == 50

    @every_write
    def test_after_its_rollback_it_does_not(self, write: Any) -> None:
        """The thread is back at what is committed."""
        with pytest.raises(RollBackError), transaction.atomic():
            write(45)
            raise RollBackError
        assert config.timeout == 30

    def test_nested_savepoints(self) -> None:
        """Each rollback takes back what was written since its savepoint, and no more."""
        with transaction.atomic():
            set_timeout(40)
            with pytest.raises(RollBackError), transaction.atomic():
                set_timeout(41)
                with transaction.atomic():
                    set_timeout(42)
                assert config.timeout == 42
                with pytest.raises(RollBackError), transaction.atomic():
                    set_timeout(43)
                    assert config.timeout == 43
                    raise RollBackError
                assert config.timeout == 42
                raise RollBackError
            assert config.timeout == 40
            assert others() == 30
        assert others() == config.timeout == 40

    def test_a_savepoints_rollback_with_nothing_else_written(self) -> None:
        """The transaction goes on as one that has written nothing."""
        with transaction.atomic():
            with pytest.raises(RollBackError), transaction.atomic():
                set_timeout(41)
                raise RollBackError
            assert config.timeout == 30
        assert others() == 30

    def test_a_users_hook_is_not_taken_for_a_write(self, django_assert_num_queries: Any) -> None:
        """It outlives the write that was rolled back, and the committed values do again."""
        with transaction.atomic():
            transaction.on_commit(Note.objects.count)
            with pytest.raises(RollBackError), transaction.atomic():
                set_timeout(41)
                raise RollBackError
            with django_assert_num_queries(0):
                assert config.timeout == 30

    def test_manual_savepoints(self) -> None:
        """savepoint_rollback() is a rollback like any, though Django prunes no hook for it."""
        with transaction.atomic():
            # Django 6.1 has another name for it.
            savepoint = getattr(transaction, "savepoint_create", transaction.savepoint)()
            set_timeout(41)
            assert config.timeout == 41
            transaction.savepoint_rollback(savepoint)
            assert config.timeout == 30

    def test_what_a_savepoint_saw_is_not_kept_beyond_its_rollback(self) -> None:
        """Also what nobody announced, such as raw SQL between two reads."""
        with transaction.atomic():
            set_timeout(40)
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute("UPDATE siteconfig_siteconfiguration SET timeout = 77")
                assert config.timeout == 77
                transaction.set_rollback(True)
            assert config.timeout == 40

    def test_nothing_is_left_on_the_connection(self) -> None:
        """However the transaction ended."""
        for rollback in (True, False):
            with transaction.atomic():
                set_timeout(40)
                assert len(connection.execute_wrappers) == 1
                transaction.set_rollback(rollback)
            _ = config.timeout
            assert connection.execute_wrappers == []
            assert config._state.pending == []

    # CPython 3.13 warns of the connection that is closed by nobody, which is the point here.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.filterwarnings("ignore::ResourceWarning")
    def test_a_thread_that_dies_in_a_transaction_takes_it_along(self) -> None:
        """Its connection is not kept open, or the row would stay locked."""

        def write_and_die() -> None:
            transaction.set_autocommit(False)
            save_timeout(45)
            died.append(ref(connections["default"]))

        died: list[Any] = []
        thread = Thread(target=write_and_die)
        thread.start()
        thread.join()
        gc.collect()
        assert died[0]() is None
        assert config.timeout == 30

    def test_an_inner_block_without_savepoint_takes_the_whole_transaction_back(self) -> None:
        """Django then rolls back without an error (H05)."""
        with transaction.atomic():
            set_timeout(40)
            try:
                with transaction.atomic(savepoint=False):
                    raise RollBackError
            except RollBackError:
                pass
        assert config.timeout == others() == 30

    def test_reads_in_the_transaction_cost_one_query_per_write(
        self, django_assert_num_queries: Any
    ) -> None:
        """Its view is kept until it writes again (savepoint, query, release)."""
        with transaction.atomic():
            set_timeout(40)
            with django_assert_num_queries(3):
                _ = (config.timeout, config.retry_count, config.timeout)

    def test_autocommit_switched_off(self) -> None:
        """Writes work, are seen by their thread, and by all once autocommit is back (H08)."""
        transaction.set_autocommit(False)
        try:
            save_timeout(45)
            assert config.timeout == 45
            assert others() == 30
            transaction.rollback()
            assert config.timeout == 30
            save_timeout(46)
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
        assert config.timeout == others() == 46

    def test_another_threads_transaction_is_not_mine(self) -> None:
        """Two threads with open transactions each see what they should."""
        wrote, done = Event(), Event()

        def write() -> int:
            with transaction.atomic():
                set_timeout(45)
                wrote.set()
                assert done.wait(PATIENCE)
                return config.timeout

        with transaction.atomic():
            writer = Started(write)
            assert wrote.wait(PATIENCE)
            assert config.timeout == 30
            done.set()
        assert writer.result() == 45
        assert config.timeout == 45


@pytest.mark.django_db(transaction=True)
class TestG4VisibleOnReturn:
    @every_write
    def test_an_autocommit_write_is_seen_by_all_when_it_returns(self, write: Any) -> None:
        """By this thread and by any other."""
        write(45)
        assert config.timeout == others() == 45

    def test_a_users_earlier_hook_sees_the_new_value(self) -> None:
        """on_commit hooks run in their order; one registered before the save runs before ours."""
        seen: list[int] = []
        with transaction.atomic():
            transaction.on_commit(lambda: seen.append(config.timeout))
            transaction.on_commit(lambda: seen.append(others()))
            set_timeout(45)
        assert seen == [45, 45]

    def test_somebodys_failing_hook_does_not_keep_the_change_from_anybody(self) -> None:
        """Django then runs no later hook, ours included (H06)."""

        def fail() -> None:
            raise RollBackError

        with pytest.raises(RollBackError), transaction.atomic():
            transaction.on_commit(fail)
            set_timeout(45)
        assert others() == 45
        assert config.timeout == 45

    def test_the_same_where_the_next_reader_is_inside_a_transaction(self) -> None:
        """It cannot know whether that write was rolled back or committed; it asks."""

        def fail() -> None:
            raise RollBackError

        with pytest.raises(RollBackError), transaction.atomic():
            transaction.on_commit(fail)
            set_timeout(45)
        with transaction.atomic():
            Note.objects.create()
            assert config.timeout == 45

    def test_a_first_read_inside_a_transaction_makes_no_query_in_it(
        self, django_assert_num_queries: Any
    ) -> None:
        """As under ATOMIC_REQUESTS: the row is read outside, once, and shared."""
        with transaction.atomic():
            assert connection.in_atomic_block
            with django_assert_num_queries(0):
                assert config.timeout == config.timeout == 30
        assert "timeout" in vars(config)

    def test_many_writes_in_one_transaction_are_one_reload(
        self, django_assert_num_queries: Any
    ) -> None:
        """A script that writes a hundred times pays for the history, and once at the commit."""
        _ = config.timeout
        assert history.is_kept("default")
        # The row before and after, the last record, a new one; and a lock, where SELECT has none.
        of_history = 100 * (4 if connection.features.has_select_for_update else 5)
        at_the_end = 2 + 1  # BEGIN, COMMIT, reload
        with django_assert_num_queries(100 + of_history + at_the_end), transaction.atomic():
            for value in range(1, 101):
                update_timeout(value)
            assert len(config._state.pending) == 1
        assert config.timeout == 100

    def test_loaddata_is_seen_by_a_warm_manager(self) -> None:
        """Though it saves raw and closes the connection (H11)."""
        set_timeout(45)
        call_command("loaddata", "initial", verbosity=0)
        assert config.timeout == others() == 30


class UsersOwnTests(TestCase):
    """The examples a user would write, in Django's TestCase, where nothing ever commits."""

    def test_one_object(self) -> None:
        """As documented."""
        self.assertIs(ConfigManager(), ConfigManager())

    def test_set_on_one_reference_and_get_on_another(self) -> None:
        """A setting that is no field, too."""
        one, other = ConfigManager(), ConfigManager()
        one.set_setting("NEW_SETTING", "value")
        self.assertEqual(other.get_setting("NEW_SETTING"), "value")

    async def test_async_writes_are_seen_by_the_coroutine(self) -> None:
        """Through the manager and through the model."""
        await config.aset_setting("TIMEOUT", 45)
        self.assertEqual(config.timeout, 45)
        self.assertEqual((await config.areload()).timeout, 45)
        await SiteConfiguration.objects.aupdate(timeout=46)
        self.assertEqual(config.timeout, 46)
        row = await SiteConfiguration.objects.aget()
        row.timeout = 47
        await row.asave()
        self.assertEqual(config.timeout, 47)

    def test_on_commit_callbacks_that_are_executed_publish_nothing(self) -> None:
        """captureOnCommitCallbacks runs our hook while the transaction is still open."""
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            config.set_setting("timeout", 45)
        self.assertEqual(len(callbacks), 1)
        self.assertEqual(config.timeout, 45)
        self.assertEqual(others(), 30)

    def test_a_write_before_the_captured_block_hides_none_in_it(self) -> None:
        """Each write has a hook of its own."""
        save_timeout(44)
        with self.captureOnCommitCallbacks() as callbacks:
            save_timeout(45)
        self.assertEqual(len(callbacks), 1)

    def test_refused_writes_change_nothing(self) -> None:
        """Nor do they break the test's transaction."""
        with self.assertRaises(ValidationError):
            config.set_settings(timeout=1000, retry_count=5)
        self.assertEqual((config.timeout, config.retry_count), (30, 3))


class QueriesOfTests(TestCase):
    """A user's assertNumQueries counts the same whichever tests ran before."""

    def test_reads_make_none_on_the_tests_connection(self) -> None:
        """Neither cold nor after a savepoint's rollback."""
        with self.assertNumQueries(0):
            _ = config.timeout
        with transaction.atomic():
            set_timeout(45)
            transaction.set_rollback(True)
        with self.assertNumQueries(0):
            _ = config.timeout


@pytest.mark.warm
class TestsThatFollowEachOther:
    """Nothing is reset in between: what one leaves, the next would meet, in any order."""

    @pytest.mark.django_db
    @pytest.mark.parametrize("value", [41, 42, 43, 44])
    def test_each_starts_from_what_is_committed(self, value: int) -> None:
        """Though the one before wrote and was rolled back."""
        assert config.timeout == 30
        set_timeout(value)
        config.set_setting("NEW_SETTING", value)
        assert config.timeout == config.get_setting("new_setting") == value

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("value", [45, 46])
    def test_each_starts_anew_after_a_flush_too(self, value: int) -> None:
        """A transactional test commits, and its end empties the tables."""
        assert config.timeout == 30
        assert config.get_setting("NEW_SETTING") is None
        set_timeout(value)
        config.set_setting("NEW_SETTING", value)
