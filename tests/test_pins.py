"""Pins: what a deployment fixes, whatever the row says."""

from __future__ import annotations

import logging
from datetime import date
from decimal import Decimal
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from django.core import checks
from django.core.exceptions import ValidationError

from siteconfig import ConfigManager, config
from siteconfig.checks import check_pins
from siteconfig.models import SiteConfiguration
from siteconfig.testing import override_config
from tests.concurrency import Changes
from tests.testapp.models import ShopConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOP = "testapp.ShopConfig"


@pytest.fixture
def pinned(settings: Any) -> Any:
    """Pin settings as a settings module does."""

    def pin(**values: Any) -> None:
        settings.SITECONFIG = {"PINNED": values}

    return pin


@pytest.fixture
def pinned_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Pin settings as the environment does, in which a process starts."""

    def pin(**texts: str) -> None:
        for name, text in texts.items():
            monkeypatch.setenv(f"SITECONFIG_PIN_{name}", text)
        start_anew()

    def start_anew() -> None:
        for manager in (config, ConfigManager(ShopConfig)):
            manager.reset()

    yield pin
    monkeypatch.undo()
    start_anew()


class TestReading:
    @pytest.mark.django_db
    def test_wins_over_the_row(self, pinned: Any) -> None:
        """In every way of reading, and by any name."""
        config.set_setting("timeout", 45)
        pinned(TIMEOUT=5)
        assert config.timeout == 5
        assert config.get_setting("TIMEOUT") == config.settings["timeout"] == 5
        assert config.snapshot().timeout == SiteConfiguration.current().timeout == 5
        assert config.status().pinned == ("timeout",)

    @pytest.mark.django_db
    def test_is_as_fast_as_any_setting(self, pinned: Any, django_assert_num_queries: Any) -> None:
        """It lies where all the others lie."""
        pinned(timeout=5)
        assert config.timeout == 5
        assert vars(config)["timeout"] == 5
        with django_assert_num_queries(0):
            assert config.retry_count == 3

    @pytest.mark.django_db
    def test_in_a_transaction_that_writes(self, pinned: Any) -> None:
        """TestCase is such a transaction."""
        pinned(timeout=5)
        SiteConfiguration.objects.update(timeout=45, retry_count=4)
        assert (config.timeout, config.retry_count) == (5, 4)

    def test_needs_no_database(self, pinned: Any) -> None:
        """Reading none, the defaults are pinned, too."""
        pinned(timeout=5)
        assert (config.timeout, config.retry_count) == (5, 3)

    def test_tests_win_over_it(self, pinned: Any) -> None:
        """And leave it as it was."""
        pinned(timeout=5)
        with override_config(timeout=6):
            assert config.timeout == 6
        assert config.timeout == 5

    def test_ends_with_the_setting_that_pins(self, settings: Any, pinned: Any) -> None:
        """It is read live, like every key of SITECONFIG."""
        pinned(timeout=5)
        assert config.timeout == 5
        settings.SITECONFIG = {}
        assert config.timeout == 30

    def test_is_the_same_in_other_threads(self, pinned: Any) -> None:
        """Whoever reads first."""
        pinned(timeout=5)
        seen: list[int] = []
        thread = Thread(target=lambda: seen.append(config.timeout))
        thread.start()
        thread.join()
        assert seen == [5]

    def test_what_ends_while_it_is_looked_up_is_not_kept(
        self, settings: Any, pinned: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By a thread of the test before, as that of a live server."""
        original, lookups = SiteConfiguration.pins, 0

        def pins() -> Any:
            nonlocal lookups
            found = original()
            lookups += 1
            if lookups == 1:
                settings.SITECONFIG = {}
            return found

        pinned(timeout=5)
        monkeypatch.setattr(SiteConfiguration, "pins", pins)
        assert config.timeout == 30
        assert lookups == 2

    def test_of_another_model(self, pinned: Any) -> None:
        """By its label; a bare name is one of the default model."""
        pinned(**{f"{SHOP}.currency": "USD", "low": 5})
        shop = ConfigManager(ShopConfig)
        assert (shop.currency, shop.low) == ("USD", 1)

    @pytest.mark.django_db(transaction=True)
    def test_changes_below_it_are_nobodys_business(self, pinned: Any, changes: Changes) -> None:
        """Receivers are told what readers see."""
        pinned(timeout=5)
        assert config.timeout == 5
        row = SiteConfiguration.objects.get()
        row.timeout = 45
        row.save()
        assert changes == []
        row.retry_count = 4
        row.save()
        assert [change["changed"] for change in changes] == [{"retry_count"}]


class TestEnvironment:
    @pytest.mark.parametrize(
        ("model", "variable", "text", "value"),
        [
            (SiteConfiguration, "TIMEOUT", "5", 5),
            (SiteConfiguration, "MAINTENANCE_MODE", "on", True),
            (SiteConfiguration, "MAINTENANCE_MODE", "False", False),
            (SiteConfiguration, "SITE_NAME", "Bücher & mehr", "Bücher & mehr"),
            (ShopConfig, "TESTAPP_SHOPCONFIG_TAX", "7.50", Decimal("7.50")),
            (ShopConfig, "TESTAPP_SHOPCONFIG_TAGS", '["a", "b"]', ["a", "b"]),
            (ShopConfig, "TESTAPP_SHOPCONFIG_OPENED", "2026-02-01", date(2026, 2, 1)),
            (ShopConfig, "TESTAPP_SHOPCONFIG_OPENED", "", None),
            (ShopConfig, "TESTAPP_SHOPCONFIG_WAREHOUSE_ID", "7", 7),
            (ShopConfig, "TESTAPP_SHOPCONFIG_WAREHOUSE", "7", 7),
        ],
    )
    def test_says_every_kind_of_value(
        self, model: Any, variable: str, text: str, value: Any, pinned_outside: Any
    ) -> None:
        """Each as a text that its field reads."""
        pinned_outside(**{variable: text})
        name = variable.removeprefix("TESTAPP_SHOPCONFIG_").lower()
        pin = ConfigManager(model)._pins()[model.setting_name(name)]
        assert pin.value == value
        assert type(pin.value) is type(value)

    def test_is_read_once_and_at_a_reset(
        self, pinned_outside: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A reset is to a manager what the start is to a process."""
        pinned_outside(TIMEOUT="6")
        assert config.timeout == 6
        monkeypatch.delenv("SITECONFIG_PIN_TIMEOUT")
        assert config.timeout == 6
        config.reset()
        assert config.status().pinned == ()

    def test_wins_over_the_settings_module(self, pinned: Any, pinned_outside: Any) -> None:
        """It is nearer to the deployment."""
        pinned(timeout=5)
        pinned_outside(TIMEOUT="6")
        assert config.timeout == 6

    @pytest.mark.parametrize("text", ["", "maybe", "2", "[]"])
    def test_a_switch_takes_words_only(self, text: str, pinned_outside: Any) -> None:
        """And whoever means something else is told which."""
        pinned_outside(MAINTENANCE_MODE=text)
        (message,) = check_pins()
        assert "true, yes, on, 1" in message.msg

    def test_a_secret_needs_no_key(self, settings: Any, pinned_outside: Any) -> None:
        """It is stored nowhere."""
        settings.SITECONFIG = {"SECRET_KEYS": []}
        pinned_outside(API_KEY="s3cret-of-the-environment")
        assert config.api_key == "s3cret-of-the-environment"
        assert "s3cret" not in f"{config.explain('api_key')} {config._pins()}"


class TestWrongPins:
    @pytest.mark.parametrize(
        ("name", "value"),
        [("timeout", 301), ("timeout", "soon"), ("log_level", "LOUD"), ("site_name", None)],
    )
    def test_are_reported_and_not_used(
        self, name: str, value: Any, pinned: Any, caplog: Any
    ) -> None:
        """A server that runs no checks serves the row, and logs why."""
        pinned(**{name: value})
        (message,) = check_pins()
        assert message.id == "siteconfig.E019"
        assert f"[\"PINNED\"]['{name}'] is refused: " in message.msg
        with caplog.at_level(logging.ERROR):
            assert config.get_setting(name) == getattr(SiteConfiguration(), name)
        assert "is not used" in caplog.text

    def test_of_no_setting_are_reported(self, pinned: Any, monkeypatch: Any) -> None:
        """With the name that may be meant."""
        pinned(timeuot=5, **{f"{SHOP}.nope": 1, "nowhere.Model.timeout": 1})
        monkeypatch.setenv("SITECONFIG_PIN_RETRYCOUNT", "5")
        found = check_pins()
        assert [message.id for message in found] == ["siteconfig.E020"] * 4
        assert "Did you mean 'timeout'?" in found[0].msg
        assert "the environment variable SITECONFIG_PIN_RETRYCOUNT" in found[3].msg.lower().replace(
            "siteconfig_pin_retrycount", "SITECONFIG_PIN_RETRYCOUNT"
        )
        assert "Did you mean 'retry_count'?" in found[3].msg

    def test_the_checks_run(self, pinned: Any) -> None:
        """As manage.py runs them."""
        pinned(timeout=0)
        assert [one.id for one in checks.run_checks()] == ["siteconfig.E019"]

    def test_no_value_of_a_secret_is_shown(self, pinned: Any) -> None:
        """Not even of one that is refused."""
        pinned(api_key="s3cret" * 50)
        assert "s3cret" not in str(check_pins())


@pytest.mark.django_db
class TestWriting:
    def test_is_refused_and_says_where_it_is_pinned(self, pinned: Any) -> None:
        """And nothing else of the same call is written."""
        pinned(timeout=5)
        with pytest.raises(ValidationError) as caught:
            config.set_settings(timeout=6, retry_count=4)
        assert caught.value.message_dict == {
            "timeout": [
                "It is pinned by SITECONFIG[\"PINNED\"]['timeout'], and so cannot be set here: "
                "change or remove it there."
            ]
        }
        assert config.retry_count == 3

    def test_of_other_settings_leaves_the_row_below_as_it_is(self, pinned: Any) -> None:
        """The pinned value is not stored."""
        config.set_setting("timeout", 45)
        pinned(timeout=5)
        config.set_setting("retry_count", 4)
        assert SiteConfiguration.objects.values_list("timeout", "retry_count").get() == (45, 4)


@pytest.mark.django_db
class TestExplain:
    def test_tells_it_all(self, pinned: Any) -> None:
        """Where it is pinned, and what it hides."""
        config.set_setting("timeout", 45)
        pinned(timeout=5)
        told = config.explain("TIMEOUT")
        assert (told.value, told.source, told.shadowed) == (5, "pin", 45)
        assert told.pinned_by == "SITECONFIG[\"PINNED\"]['timeout']"
        with override_config(timeout=6):
            told = config.explain("timeout")
            assert (told.value, told.source, told.shadowed) == (6, "override", 45)
        told = config.explain("retry_count")
        assert (told.source, told.pinned_by, told.shadowed) == ("row", None, None)
