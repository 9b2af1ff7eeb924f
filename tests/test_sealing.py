"""Keys are rotated, columns from before are sealed, and checks say what is left to do."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import isolate_apps

from siteconfig import ConfigManager, checks, config, crypto
from siteconfig.fields import SecretField
from siteconfig.models import ConfigModel, SiteConfiguration
from siteconfig.sealing import State, states
from tests.concurrency import Changes
from tests.keys import OTHER_KEY, SECRETS_KEY, THIRD_KEY, column, opened, sealed, set_column
from tests.testapp.models import ShopConfig

CANARY = "canary-5e1f-0123456789"
SHOP = ShopConfig._meta.db_table


def rotate() -> list[str]:
    out = StringIO()
    call_command("siteconfig", "rotate-keys", stdout=out)
    return out.getvalue().splitlines()


@pytest.fixture
def new_key(settings: Any) -> None:
    """A new key, beside the one that has sealed so far."""
    config.set_setting("api_key", CANARY)
    settings.SITECONFIG = {"SECRET_KEYS": [OTHER_KEY, SECRETS_KEY]}


@pytest.mark.django_db
class TestRotateKeys:
    def test_seals_every_secret_with_the_newest_key(self, new_key: None) -> None:
        """Of every config model, and says so; then the old key may go."""
        set_column(sealed("voucher-1"), "voucher", SHOP)
        assert rotate() == [
            "siteconfig.SiteConfiguration: api_key is now sealed with the newest key",
            "testapp.ShopConfig: voucher is now sealed with the newest key",
        ]
        assert opened(column(), OTHER_KEY) == CANARY
        assert opened(column("voucher", SHOP), OTHER_KEY) == "voucher-1"
        assert (config.api_key, ConfigManager(ShopConfig).voucher) == (CANARY, "voucher-1")

    def test_leaves_what_needs_nothing(self, new_key: None) -> None:
        """A second time it writes nothing."""
        rotate()
        before, version = column(), config.snapshot().version
        assert rotate() == [
            "siteconfig.SiteConfiguration: api_key was sealed with the newest key already",
            "testapp.ShopConfig: voucher is not set",
        ]
        assert (column(), config.snapshot().version) == (before, version)

    def test_seals_what_is_in_plain(self) -> None:
        """From before the field was a SecretField."""
        set_column(CANARY)
        assert "siteconfig.SiteConfiguration: api_key was stored in plain and is now sealed" in (
            rotate()
        )
        assert opened(column()) == CANARY

    def test_leaves_what_no_key_opens_and_fails(self, new_key: None) -> None:
        """The others are sealed all the same."""
        lost = sealed("voucher-1", THIRD_KEY)
        set_column(lost, "voucher", SHOP)
        out = StringIO()
        with pytest.raises(CommandError, match="Put the keys that sealed") as caught:
            call_command("siteconfig", "rotate-keys", stdout=out)
        assert caught.value.returncode == 1
        assert "voucher was left as it is: no key opens it" in out.getvalue()
        assert column("voucher", SHOP) == lost
        assert opened(column(), OTHER_KEY) == CANARY

    def test_without_a_key_it_says_what_is_missing(self, settings: Any) -> None:
        """If there is something to seal."""
        settings.SITECONFIG = {"SECRET_KEYS": []}
        assert len(rotate()) == 2
        set_column(CANARY)
        with pytest.raises(CommandError, match="Make a key with"):
            rotate()
        assert column() == CANARY

    def test_without_a_row_there_is_nothing_to_do(self) -> None:
        """And none is made."""
        SiteConfiguration.objects.all().delete()
        assert rotate() == ["testapp.ShopConfig: voucher is not set"]
        assert not SiteConfiguration.objects.exists()

    @pytest.mark.django_db(transaction=True)
    def test_is_no_change_of_a_setting(self, new_key: None, changes: Changes) -> None:
        """Nobody is told; the row has been written, and its version says so."""
        _ = config.timeout
        version = config.snapshot().version
        rotate()
        assert changes == []
        assert config.snapshot().version == version + 1

    def test_without_a_table_it_fails_with_the_reason(self) -> None:
        """Before migrate."""
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {SHOP} RENAME TO elsewhere")
        with pytest.raises(CommandError, match=r"^testapp\.ShopConfig: "):
            rotate()


@pytest.mark.django_db(transaction=True)
class TestTheMigration:
    @pytest.fixture(autouse=True)
    def at_the_end(self) -> Any:
        yield
        config.reset()
        call_command("migrate", "siteconfig", verbosity=0)

    def back(self) -> None:
        call_command("migrate", "siteconfig", "0002", verbosity=0)

    def forth(self) -> None:
        call_command("migrate", "siteconfig", "0003", verbosity=0)
        config.reload()

    def test_seals_what_is_stored_in_plain(self) -> None:
        """An upgrade keeps the secret, and the plain text is gone."""
        self.back()
        set_column(CANARY)
        self.forth()
        assert opened(column()) == CANARY
        assert config.api_key == CANARY

    def test_without_a_key_it_leaves_it(self, settings: Any) -> None:
        """The site works on as before; a check asks for a key."""
        settings.SITECONFIG = {"SECRET_KEYS": []}
        self.back()
        set_column(CANARY)
        self.forth()
        assert column() == CANARY
        assert config.api_key == CANARY
        assert states(SiteConfiguration) == {"api_key": State.PLAIN}

    def test_leaves_what_is_sealed(self) -> None:
        """A backup of a later release, perhaps."""
        token = sealed(CANARY)
        self.back()
        set_column(token)
        self.forth()
        assert column() == token

    def test_works_without_a_row(self) -> None:
        """And on one where no key is set."""
        self.back()
        self.forth()
        assert config.api_key == ""

    def test_back_again_it_is_plain(self) -> None:
        """As the release before reads it."""
        config.set_setting("api_key", CANARY)
        self.back()
        assert column() == CANARY

    def test_there_is_no_way_back_for_what_no_key_opens(self) -> None:
        """The release before would take it for the secret."""
        token = sealed(CANARY, OTHER_KEY)
        set_column(token)
        with pytest.raises(ValueError, match="No key opens the stored api_key"):
            self.back()
        assert column() == token
        set_column("")


@pytest.mark.django_db(databases=["default", "other"])
class TestChecks:
    def messages(self, **options: Any) -> dict[str | None, Any]:
        return {message.id: message for message in run_checks(**options)}

    def test_all_is_well(self, new_key: None) -> None:
        """With keys, and every secret sealed with the newest."""
        assert self.messages() == {}
        rotate()
        assert self.messages(databases=["default"]) == {}

    @pytest.mark.parametrize("keys", [[], None])
    def test_no_key(self, settings: Any, monkeypatch: pytest.MonkeyPatch, keys: Any) -> None:
        """The hint says how to make one, and where to put it."""
        monkeypatch.delenv("SITECONFIG_SECRET_KEYS")
        settings.SITECONFIG = {"SECRET_KEYS": keys}
        (message,) = self.messages().values()
        assert message.id == "siteconfig.W018"
        assert message.msg == (
            "siteconfig.SiteConfiguration and testapp.ShopConfig can store no secret: there is no "
            "key to seal it with, and none is stored in plain."
        )
        assert message.hint == crypto.HOW_TO_GIVE_A_KEY

    def test_no_key_and_no_package(self, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The hint says what to install first."""
        settings.SITECONFIG = {"SECRET_KEYS": []}
        monkeypatch.setattr(crypto, "fernet", None)
        assert str(self.messages()["siteconfig.W018"].hint).startswith("Run: pip install")

    def test_no_secret_needs_no_key(self, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A project whose own model has none is not bothered."""
        settings.SITECONFIG = {"SECRET_KEYS": []}
        monkeypatch.setattr(ConfigModel, "secret_fields", classmethod(lambda _cls: {}))
        assert checks.check_secret_keys() == []

    def test_keys_without_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They open nothing."""
        monkeypatch.setattr(crypto, "fernet", None)
        crypto._keyring.cache_clear()
        (message,) = checks.check_secret_keys()
        assert message.id == "siteconfig.E014"
        assert message.hint == "Run: pip install 'siteconfig[secrets]'"
        monkeypatch.undo()
        crypto._keyring.cache_clear()

    def test_a_bad_key(self, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which one, and where; never its text."""
        settings.SITECONFIG = {"SECRET_KEYS": [SECRETS_KEY, "canary-1", "canary-2"]}
        messages = checks.check_secret_keys()
        assert [message.msg for message in messages] == [
            f'Key {n} of 3 in SITECONFIG["SECRET_KEYS"] is no key. What it sealed reads as empty.'
            for n in (2, 3)
        ]
        assert {message.id for message in messages} == {"siteconfig.E014"}
        assert all(message.hint and "canary" not in str(message) for message in messages)
        settings.SITECONFIG = {}
        monkeypatch.setenv("SITECONFIG_SECRET_KEYS", "canary-1")
        (message,) = checks.check_secret_keys()
        assert "Key 1 of 1 in the environment variable SITECONFIG_SECRET_KEYS" in message.msg

    def test_keys_that_are_no_list(self, settings: Any) -> None:
        """By their type, like any setting."""
        settings.SITECONFIG = {"SECRET_KEYS": "canary"}
        messages = self.messages()
        assert set(messages) == {"siteconfig.E003", "siteconfig.W018"}
        assert "canary" not in str(messages)

    def test_a_row_that_no_key_opens(self) -> None:
        """At the field. No error: a copy of the database, without the keys, can be migrated."""
        set_column(sealed(CANARY, OTHER_KEY))
        (message,) = self.messages(databases=["default"]).values()
        assert message.id == "siteconfig.W016"
        assert message.obj is SiteConfiguration._meta.get_field("api_key")
        assert message.msg == "The secret is opened by no key, and so it reads as empty."
        assert "Put the key that sealed it back" in str(message.hint)

    def test_a_row_that_an_older_key_opens(self, new_key: None) -> None:
        """A reminder to rotate before the old key goes."""
        (message,) = self.messages(databases=["default"]).values()
        assert message.id == "siteconfig.W015"
        assert message.msg == "The secret is sealed with an older key."
        assert message.hint == "Run: manage.py siteconfig rotate-keys"

    def test_a_row_in_plain(self, settings: Any) -> None:
        """With what to do next: a key first, if there is none."""
        set_column(CANARY)
        (message,) = self.messages(databases=["default"]).values()
        assert message.id == "siteconfig.W015"
        assert message.msg == "The secret is stored in plain."
        settings.SITECONFIG = {"SECRET_KEYS": []}
        message = self.messages(databases=["default"])["siteconfig.W015"]
        assert "Make a key with" in str(message.hint)
        assert "canary" not in str(message)

    def test_the_database_is_asked_only_if_that_is_asked_for(
        self, django_assert_num_queries: Any
    ) -> None:
        """manage.py check makes no query, unless --database names one."""
        set_column(CANARY)
        with django_assert_num_queries(0):
            assert self.messages() == {}
            assert checks.check_stored_secrets(databases=["other"]) == []

    def test_before_migrate_there_is_nothing_to_say(self) -> None:
        """The table is missing, or a column."""
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {SHOP} DROP COLUMN voucher")
        assert self.messages(databases=["default"]) == {}

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, []),
            ({"default": ""}, []),
            ({"null": True, "default": None}, []),
            ({"default": CANARY}, ["default"]),
            ({"default": str}, ["default"]),
            ({"db_default": CANARY}, ["db_default"]),
            ({"choices": [(CANARY, "a")]}, ["choices"]),
            ({"unique": True}, ["unique"]),
            ({"db_index": True}, ["db_index"]),
        ],
        ids=str,
    )
    @isolate_apps("tests.testapp")
    def test_options_that_are_not_for_secrets(self, options: Any, expected: Any) -> None:
        """Each is named, with the reason."""
        meta = type("Meta", (), {"app_label": "testapp"})
        attributes = {"__module__": __name__, "Meta": meta, "word": SecretField(**options)}
        model: Any = type("Config", (ConfigModel,), attributes)
        messages = list(checks.check_config_model(model))
        assert [message.id for message in messages] == ["siteconfig.E017"] * len(expected)
        for message, option in zip(messages, expected, strict=True):
            assert f"cannot have the option {option}:" in message.msg
            assert f"Remove {option}=..." in str(message.hint)
            assert "canary" not in str(message)
