"""override_config: needs no database, nests, survives errors, is seen by threads (G13)."""

from __future__ import annotations

import asyncio
import unittest
from typing import Any

import pytest
from django.test import LiveServerTestCase, SimpleTestCase, TestCase

from siteconfig import ConfigManager, config
from siteconfig.models import ConfigModel, SiteConfiguration
from siteconfig.testing import override_config
from tests.concurrency import in_thread
from tests.testapp.models import ShopConfig


class DatabaseAsked(BaseException):
    """The row was read. No Exception: those a read survives."""


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the row is an error that nothing swallows."""

    def read(*args: Any) -> None:
        raise DatabaseAsked

    monkeypatch.setattr(ConfigModel, "read", read)


@pytest.mark.usefixtures("forbidden")
class TestG13NeedsNoDatabase:
    def test_reads_of_overridden_settings_ask_nobody(self) -> None:
        """By attribute and by name, fields and extra settings."""
        with override_config(timeout=5, NEW_SETTING="x"):
            assert config.timeout == 5
            assert config.get_setting("TIMEOUT") == config.get_setting("Timeout") == 5
            assert config.get_setting("new_setting") == "x"

    def test_nothing_is_left_afterwards(self) -> None:
        """Not even a value to read."""
        with override_config(timeout=5):
            pass
        assert "timeout" not in vars(config)


@pytest.mark.django_db
class TestG13:
    def test_other_settings_are_read_as_ever(self) -> None:
        """From the row, with the same snapshot for all."""
        config.set_setting("retry_count", 7)
        with override_config(timeout=5):
            assert (config.timeout, config.retry_count) == (5, 7)
            assert dict(config.snapshot())["timeout"] == 5
            assert config.snapshot().retry_count == config.get_setting("retry_count") == 7
            assert config.get_setting("nope", 1) == 1
            assert config.explain("timeout").source == "override"
            assert config.status().overridden == ("timeout",)
        assert config.timeout == 30

    def test_it_nests(self) -> None:
        """The innermost wins, and each gives back what the one around it said."""
        with override_config(timeout=5, retry_count=1):
            with override_config(timeout=6):
                assert (config.timeout, config.retry_count) == (6, 1)
            assert (config.timeout, config.retry_count) == (5, 1)
        assert (config.timeout, config.retry_count) == (30, 3)

    def test_one_instance_may_be_used_again_inside_itself(self) -> None:
        """As a recursive decorated function does."""
        override = override_config(timeout=5)
        with override:
            with override:
                assert config.timeout == 5
            assert config.timeout == 5
        assert config.timeout == 30

    def test_it_survives_exceptions(self) -> None:
        """The override ends with the block."""
        with pytest.raises(ZeroDivisionError), override_config(timeout=5):
            1 / 0  # noqa: B018 - raises
        assert config.timeout == 30

    def test_threads_see_it(self) -> None:
        """Those started inside, and those of a server."""
        with override_config(timeout=5):
            assert in_thread(lambda: config.timeout) == 5

    def test_it_wins_over_what_is_saved_meanwhile(self) -> None:
        """The row is written all the same."""
        with override_config(timeout=5):
            config.set_setting("timeout", 45)
            assert config.timeout == 5
        assert config.timeout == 45

    def test_it_takes_what_a_form_would_refuse(self) -> None:
        """To test how code behaves then."""
        with override_config(timeout=10_000):
            assert config.timeout == 10_000

    def test_containers_are_frozen_as_ever(self) -> None:
        """A test does not hide that a view changes a list in place."""
        with override_config(new=[1]), pytest.raises(TypeError):
            config.get_setting("new").append(2)

    def test_extra_settings_are_in_extra_too(self) -> None:
        """Where the row has them."""
        with override_config(new=1):
            assert config.extra == {"new": 1}

    def test_reset_leaves_it(self) -> None:
        """It belongs to its block."""
        with override_config(timeout=5):
            config.reset()
            assert config.timeout == 5

    def test_another_model(self) -> None:
        """Named first."""
        with override_config(ShopConfig, currency="CHF"):
            assert ConfigManager(ShopConfig).currency == "CHF"
            assert config.timeout == 30

    def test_current_is_overridden_too(self) -> None:
        """It is the same snapshot."""
        with override_config(timeout=5):
            assert SiteConfiguration.current().timeout == 5

    @override_config(timeout=5)
    def test_decorates_functions(self) -> None:
        """For the time of each call."""
        assert config.timeout == 5

    def test_decorates_async_functions(self) -> None:
        """Until the coroutine ends, not until it is made."""

        @override_config(timeout=5)
        async def read() -> tuple[int, int]:
            before = config.timeout
            await asyncio.sleep(0)
            return before, config.timeout

        assert asyncio.run(read()) == (5, 5)
        assert config.timeout == 30

    def test_decorated_functions_return_what_they_return(self) -> None:
        """And take their arguments."""

        @override_config(timeout=5)
        def add(one: int, other: int = 0) -> int:
            return one + other + config.timeout

        assert add(1, other=2) == 8


@override_config(timeout=5)
class TestPlainClass:
    """A class of tests as pytest collects them."""

    value = 3

    def test_each_test_is_overridden(self) -> None:
        """The class is decorated as a whole."""
        assert config.timeout == 5

    def test_other_attributes_are_left_alone(self) -> None:
        """Only tests are wrapped."""
        assert self.value == 3


class Inherited:
    """Tests that a class inherits."""

    def test_inherited_tests_are_overridden(self) -> None:
        """In the decorated class."""
        assert config.timeout == 5

    @staticmethod
    def test_of_the_class_itself() -> None:
        """A static method stays one; it is not decorated."""


@override_config(timeout=5)
class TestHeir(Inherited):
    """A decorated heir."""


@override_config(timeout=5)
class UnitTest(unittest.TestCase):
    """The standard library's."""

    def setUp(self) -> None:
        self.at_set_up = config.timeout

    def test_each_test_is_overridden(self) -> None:
        """From setUp on."""
        self.assertEqual((self.at_set_up, config.timeout), (5, 5))


@override_config(timeout=5)
class AsyncTests(SimpleTestCase):
    """Django's, without database."""

    async def test_async_tests_are_overridden(self) -> None:
        """As the others."""
        self.assertEqual(config.timeout, 5)


class DatabaseTests(TestCase):
    """Django's, with database."""

    @classmethod
    def setUpTestData(cls) -> None:
        config.set_setting("retry_count", 7)

    @override_config(timeout=5)
    def test_class_data_is_seen(self) -> None:
        """What setUpTestData wrote is in a transaction around the test's."""
        self.assertEqual((config.timeout, config.retry_count), (5, 7))

    def test_a_test_may_change_it(self) -> None:
        """For itself; in whichever order the tests run."""
        self.assertEqual(config.retry_count, 7)
        config.set_setting("retry_count", 8)
        self.assertEqual(config.retry_count, 8)


class LiveServerTests(LiveServerTestCase):
    """A live server's threads read the same settings."""

    def test_a_live_server_sees_the_override(self) -> None:
        """Its page shows the overridden name."""
        from urllib.request import urlopen

        with override_config(site_name="Overridden in a test"):
            page = urlopen(f"{self.live_server_url}/").read().decode()  # noqa: S310 - loopback
        self.assertIn("Overridden in a test", page)
