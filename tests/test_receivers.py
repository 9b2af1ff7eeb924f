"""Told after commit (G12), and what the receivers keep in step with the row."""

from __future__ import annotations

import logging
from threading import Event
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import TestCase

from siteconfig import ConfigManager, config
from siteconfig.models import SiteConfiguration
from siteconfig.receivers import after_write, connect
from siteconfig.signals import config_changed
from tests.concurrency import PATIENCE, Changes, Started, in_thread, wait_until
from tests.test_transactions import RollBackError, every_write, set_timeout, update_timeout
from tests.testapp.models import Note, ShopConfig


@pytest.mark.django_db(transaction=True)
class TestG12ToldAfterCommit:
    @every_write
    def test_each_kind_of_write_is_told_once_with_old_and_new(
        self, write: Any, changes: Changes
    ) -> None:
        """Also the first write of a process that has read nothing yet."""
        with transaction.atomic():
            write(45)
            assert changes == []
        assert changes.timeouts == [(30, 45)]
        assert changes[0]["sender"] is SiteConfiguration
        assert "timeout" in changes[0]["changed"]
        assert isinstance(changes[0]["changed"], frozenset)

    @pytest.mark.parametrize("write", [set_timeout, update_timeout])
    def test_autocommit_writes_are_told_before_they_return(
        self, write: Any, changes: Changes
    ) -> None:
        """Nothing is left for later."""
        write(45)
        write(46)
        assert changes.timeouts == [(30, 45), (45, 46)]

    def test_what_is_rolled_back_is_not_told(self, changes: Changes) -> None:
        """Neither at the rollback nor at the read after it."""
        with pytest.raises(RollBackError), transaction.atomic():
            set_timeout(45)
            raise RollBackError
        assert config.timeout == 30
        assert changes == []

    def test_several_writes_in_one_transaction_are_one_change(self, changes: Changes) -> None:
        """Receivers hear of states that were committed."""
        with transaction.atomic():
            set_timeout(45)
            with transaction.atomic():
                set_timeout(46)
            set_timeout(47)
        assert changes.timeouts == [(30, 47)]

    def test_a_write_that_changes_nothing_is_not_told(self, changes: Changes) -> None:
        """Nor is a reload of an equal row."""
        set_timeout(30)
        for _ in range(100):
            config.reload()
        assert changes == []

    def test_what_others_wrote_is_told_when_it_is_noticed(self, changes: Changes) -> None:
        """Here by reload()."""
        _ = config.timeout
        with connection.cursor() as cursor:
            cursor.execute("UPDATE siteconfig_siteconfiguration SET timeout = 45")
        config.reload()
        assert changes.timeouts == [(30, 45)]

    def test_the_first_load_of_a_process_is_no_change(self, changes: Changes) -> None:
        """Nobody has been told anything else before."""
        SiteConfiguration.objects.update(timeout=45)
        changes.clear()
        config.reset()
        assert config.timeout == 45
        assert changes == []

    def test_a_failing_hook_before_ours_delays_the_telling_only(self, changes: Changes) -> None:
        """Whoever notices the commit tells of it."""

        def fail() -> None:
            raise RollBackError

        with pytest.raises(RollBackError), transaction.atomic():
            transaction.on_commit(fail)
            set_timeout(45)
        assert config.timeout == 45
        assert changes.timeouts == [(30, 45)]


@pytest.mark.django_db(transaction=True)
class TestReceiversMayDoAnything:
    def test_read(self) -> None:
        """They see the new state."""
        seen: list[int] = []

        def receive(**told: Any) -> None:
            seen.extend([config.timeout, in_thread(lambda: config.timeout)])

        with receiving(receive):
            set_timeout(45)
        assert seen == [45, 45]

    def test_write(self, changes: Changes) -> None:
        """What they write is told too, after everybody has heard of what came before."""
        order: list[tuple[str, int]] = []

        def first(new: Any, **told: Any) -> None:
            order.append(("first", new.timeout))
            if new.timeout == 45:
                set_timeout(50)
                order.append(("wrote", config.timeout))

        def second(new: Any, **told: Any) -> None:
            order.append(("second", new.timeout))

        with receiving(first, second):
            set_timeout(45)
        assert order == [
            ("first", 45),
            ("wrote", 50),
            ("second", 45),
            ("first", 50),
            ("second", 50),
        ]
        assert config.timeout == 50

    def test_raise(self, caplog: pytest.LogCaptureFixture) -> None:
        """The error is logged; the others are told; the change stays."""

        def receive(**told: Any) -> None:
            raise RollBackError("receiver")

        changes = Changes()
        with receiving(receive, changes), caplog.at_level(logging.ERROR):
            set_timeout(45)
        assert config.timeout == 45
        assert changes.timeouts == [(30, 45)]
        assert "receiver" in caplog.text

    def test_be_interrupted(self, changes: Changes) -> None:
        """A KeyboardInterrupt goes through, and the next change is told all the same."""

        def receive(new: Any, **told: Any) -> None:
            if new.timeout == 45:
                raise KeyboardInterrupt

        with receiving(receive), pytest.raises(KeyboardInterrupt):
            config._state.told = config.snapshot()
            set_timeout(45)
        set_timeout(46)
        assert changes.timeouts[-1] == (45, 46)

    def test_be_interrupted_with_more_to_come(self, changes: Changes) -> None:
        """What was queued behind it is told by the watcher, which asks for what is left."""

        def receive(new: Any, **told: Any) -> None:
            if new.timeout == 45:
                set_timeout(46)
                raise KeyboardInterrupt

        with receiving(receive), pytest.raises(KeyboardInterrupt):
            config._state.told = config.snapshot()
            set_timeout(45)
        config._tell_left()
        wait_until(lambda: changes.timeouts[-1:] == [(45, 46)])
        wait_until(lambda: not config._state.telling)

    def test_be_slow(self) -> None:
        """Meanwhile others read and write without waiting, and theirs is told afterwards."""
        entered, leave = Event(), Event()
        told: list[int] = []

        def receive(new: Any, **kwargs: Any) -> None:
            told.append(new.timeout)
            entered.set()
            assert leave.wait(PATIENCE)

        with receiving(receive):
            writer = Started(lambda: set_timeout(45))
            assert entered.wait(PATIENCE)
            assert config.timeout == 45
            set_timeout(46)
            assert config.timeout == 46
            assert told == [45]
            leave.set()
            writer.result()
        assert told == [45, 46]

    def test_use_the_database_when_a_coroutine_notices_the_change(self) -> None:
        """They are not called inside the event loop, where the ORM refuses."""
        import asyncio

        done = Event()
        counted: list[int] = []

        def receive(**told: Any) -> None:
            counted.append(Note.objects.count())
            done.set()

        _ = config.timeout
        with connection.cursor() as cursor:
            cursor.execute("UPDATE siteconfig_siteconfiguration SET timeout = 45")
        with config._state.lock:
            config._announce()

        async def read() -> int:
            return config.timeout

        with receiving(receive):
            assert asyncio.run(read()) == 45
            assert done.wait(PATIENCE)
        assert counted == [0]


class receiving:  # noqa: N801 - reads as a statement
    """Connects receivers for the time of a block."""

    def __init__(self, *receivers: Any) -> None:
        self.receivers = receivers

    def __enter__(self) -> None:
        for receiver in self.receivers:
            config_changed.connect(receiver, weak=False)

    def __exit__(self, *exc: object) -> None:
        for receiver in self.receivers:
            config_changed.disconnect(receiver)


class CapturedCallbacks(TestCase):
    """What users test of their receivers inside TestCase."""

    def setUp(self) -> None:
        self.changes = Changes()
        config_changed.connect(self.changes)
        self.addCleanup(config_changed.disconnect, self.changes)

    def test_executed_callbacks_tell_receivers(self) -> None:
        """Each captured block tells what it changed, once."""
        with self.captureOnCommitCallbacks(execute=True):
            set_timeout(45)
        with self.captureOnCommitCallbacks(execute=True):
            set_timeout(46)
        self.assertEqual(self.changes.timeouts, [(30, 45), (45, 46)])

    def test_several_writes_in_one_block_are_told_once(self) -> None:
        """Though each has a callback."""
        with self.captureOnCommitCallbacks(execute=True):
            for value in (40, 50, 60):
                set_timeout(value)
        self.assertEqual(self.changes.timeouts, [(30, 60)])

    def test_without_it_nobody_is_told(self) -> None:
        """Nothing has been committed."""
        set_timeout(45)
        self.assertEqual(self.changes, [])


@pytest.mark.django_db(transaction=True)
class TestWiring:
    def test_connecting_twice_is_harmless(self, changes: Changes) -> None:
        """One handler per signal and model."""
        connect()
        set_timeout(45)
        assert len(changes) == 1

    def test_a_models_own_post_save_receiver_sees_the_new_value(self) -> None:
        """Ours is connected when the class is made, before any in the project can be."""
        from django.db.models.signals import post_save

        watching = [one[1]() for one in post_save.receivers if one[0][1] == id(ShopConfig)]
        assert watching[0] is after_write
        seen: list[int] = []

        def receive(**kwargs: Any) -> None:
            seen.append(config.timeout)

        post_save.connect(receive, sender=SiteConfiguration)
        with transaction.atomic():
            set_timeout(45)
        set_timeout(46)
        post_save.disconnect(receive, sender=SiteConfiguration)
        assert seen == [45, 46]

    def test_other_models_are_not_listened_to(self) -> None:
        """Their deletions keep Django's fast path."""
        from django.db.models.signals import post_delete, post_save

        assert not post_delete.has_listeners(Note)
        assert not post_save.has_listeners(Note)
        assert post_delete.has_listeners(ShopConfig)

    def test_each_model_tells_of_itself(self, changes: Changes) -> None:
        """The sender says which."""
        ConfigManager(ShopConfig).set_setting("currency", "CHF")
        assert [one["sender"] for one in changes] == [ShopConfig]
        assert changes[0]["changed"] == {"currency", "changed"}

    def test_migrate_makes_the_row_of_every_config_model(self) -> None:
        """As the end of each transactional test shows, which empties the tables."""
        assert SiteConfiguration.objects.count() == 1
        assert ShopConfig.objects.count() == 1

    def test_making_the_row_heals_a_manager_that_found_no_table(self) -> None:
        """A read before migrate, in the same process."""
        from django.core.management import call_command

        SiteConfiguration.objects.all().delete()
        config._note_failure(RuntimeError("no such table"), pause=True)
        call_command("migrate", verbosity=0)
        assert config.status().last_error is None
        assert config.status().source == "row"
