"""The same in async: the plain value, with no await, warm or cold (G9)."""

from __future__ import annotations

import asyncio
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections, transaction
from django.test import TestCase

from siteconfig import config
from tests.concurrency import PATIENCE, in_thread

if TYPE_CHECKING:
    from tests.concurrency import Changes


async def read() -> int:
    return config.timeout


@pytest.mark.django_db(transaction=True)
class TestG9:
    def test_a_cold_read_in_a_coroutine(self) -> None:
        """The first read of the process, where the ORM refuses: a helper thread loads."""
        in_thread(lambda: config.set_setting("timeout", 45))
        config.reset()
        assert asyncio.run(read()) == 45
        assert vars(config)["timeout"] == 45

    def test_a_warm_read_in_a_coroutine(self, django_assert_num_queries: Any) -> None:
        """A plain attribute, as everywhere."""
        _ = config.timeout
        with django_assert_num_queries(0):
            value = asyncio.run(read())
        assert value == 30
        assert type(value) is int

    def test_writes(self, changes: Changes) -> None:
        """aset_setting and aset_settings are the awaited twins."""

        async def write() -> tuple[int, int]:
            await config.aset_setting("TIMEOUT", 45)
            first = config.timeout
            await config.aset_settings(timeout=46, retry_count=7)
            return first, config.timeout

        assert asyncio.run(write()) == (45, 46)
        assert (config.timeout, config.retry_count) == (46, 7)
        assert changes.timeouts == [(30, 45), (45, 46)]

    def test_a_setting_may_have_any_name(self) -> None:
        """Also one that some function on the way takes for an argument of its own."""
        names = ["self", "name", "value", "values", "func", "loop", "args", "using", "cls"]
        asyncio.run(config.aset_settings(**dict.fromkeys(names, 1)))
        assert config.extra == dict.fromkeys(names, 1)

    def test_areload(self) -> None:
        """Reads the row now."""
        assert asyncio.run(config.areload()).timeout == 30

    def test_tasks_side_by_side(self) -> None:
        """Many coroutines reading first at once."""

        async def all_at_once() -> set[int]:
            return set(await asyncio.gather(*(read() for _ in range(50))))

        assert asyncio.run(all_at_once()) == {30}

    def test_a_coroutine_called_from_a_transaction_sees_its_writes(self) -> None:
        """It runs in another thread, but for this one."""
        with transaction.atomic():
            config.set_setting("timeout", 45)
            assert async_to_sync(read)() == 45
            assert in_thread(lambda: config.timeout) == 30
            transaction.set_rollback(True)
        assert async_to_sync(read)() == 30

    def test_a_coroutine_that_has_nothing_to_do_with_a_transaction_does_not(self) -> None:
        """Only who awaited the write belongs to it."""
        with transaction.atomic():
            config.set_setting("timeout", 45)
            assert in_thread(lambda: asyncio.run(read())) == 30

    def test_a_transaction_that_a_coroutine_awaited_has_ended(self) -> None:
        """What it remembers of the writer's connection does no harm later."""

        def write_and_roll_back() -> None:
            with transaction.atomic():
                config.set_setting("timeout", 45)
                transaction.set_rollback(True)

        async def write() -> int:
            await sync_to_async(write_and_roll_back)()
            return config.timeout

        assert async_to_sync(write)() == 30

    def test_a_coroutine_does_not_see_another_tasks_open_transaction(self) -> None:
        """Though both wrote through the same thread and its connection, one after the other."""
        entered, leave = Event(), Event()

        @transaction.atomic
        def write(value: int) -> None:
            config.set_setting("timeout", value)

        @transaction.atomic
        def write_slowly(value: int) -> None:
            config.set_setting("timeout", value)
            _ = config.timeout
            entered.set()
            assert leave.wait(PATIENCE)

        async def tasks() -> int:
            await sync_to_async(write)(50)
            slow = asyncio.create_task(sync_to_async(write_slowly)(99))
            while not entered.is_set():
                await asyncio.sleep(0)
            seen: int = config.timeout
            leave.set()
            await slow
            assert config.timeout == 99
            return seen

        assert asyncio.run(tasks()) == 50

    def test_where_the_orm_is_allowed_in_the_event_loop(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in a notebook: writes there are announced, too."""
        monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")

        async def write() -> list[int]:
            config.set_setting("timeout", 50)
            seen = [config.timeout]
            with transaction.atomic():
                config.set_setting("timeout", 60)
                seen.append(config.timeout)
                transaction.set_rollback(True)
            seen.append(config.timeout)
            connections["default"].close()  # it is the event loop's own
            return seen

        assert asyncio.run(write()) == [50, 60, 50]


class AsyncTestCase(TestCase):
    """Users' own async tests, inside the transaction of TestCase."""

    async def test_a_read_before_anything(self) -> None:
        """Cold, in a coroutine."""
        self.assertEqual(config.timeout, 30)

    async def test_many_writes(self) -> None:
        """Each is seen at once."""
        for value in (40, 41, 42):
            await config.aset_setting("timeout", value)
            self.assertEqual(config.timeout, value)
            self.assertEqual(await sync_to_async(lambda: config.timeout)(), value)
