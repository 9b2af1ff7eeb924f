"""SecretField: sealed in the column, plain for code, and never lost (G15)."""

from __future__ import annotations

import importlib.util
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from django.core import serializers
from django.core.exceptions import FieldError, ValidationError
from django.core.management import CommandError, call_command
from django.db import connection, models, transaction
from django.db.models import F, Value
from django.db.models.functions import Upper
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from siteconfig import ConfigManager, config
from siteconfig.exceptions import SecretKeyError
from siteconfig.fields import SecretField
from siteconfig.models import ConfigModel, SiteConfiguration
from siteconfig.secret import Secret
from siteconfig.testing import override_config
from tests.concurrency import Changes, python
from tests.keys import OTHER_KEY, SECRETS_KEY, column, opened, sealed, set_column
from tests.testapp.models import ShopConfig

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary-5e1f-0123456789"

FORMATS = ["json", "jsonl", "xml", "python"]
if importlib.util.find_spec("yaml"):
    FORMATS.append("yaml")

#: Every way to store a secret.
WRITES = {
    "set_setting": lambda plain: config.set_setting("API_KEY", plain),
    "save": lambda plain: changed(api_key=plain).save(),
    "update_fields": lambda plain: changed(api_key=plain).save(update_fields=["api_key"]),
    "force_update": lambda plain: changed(api_key=plain).save(force_update=True),
    "update": lambda plain: SiteConfiguration.objects.update(api_key=plain),
    "bulk_update": lambda plain: SiteConfiguration.objects.bulk_update(
        [changed(api_key=plain)], ["api_key"]
    ),
    "bulk_create": lambda plain: created(SiteConfiguration(api_key=plain)),
    "save of a new row": lambda plain: created(SiteConfiguration(api_key=plain), anew=True),
    "a value in an expression": lambda plain: SiteConfiguration.objects.update(
        api_key=Value(plain, output_field=SecretField())
    ),
}

#: Every way to store something else.
OTHER_WRITES = {
    "set_setting": lambda: config.set_setting("timeout", 45),
    "save": lambda: changed(timeout=45).save(),
    "update_fields": lambda: changed(timeout=45).save(update_fields=["timeout"]),
    "update": lambda: SiteConfiguration.objects.update(timeout=45),
    "bulk_update": lambda: SiteConfiguration.objects.bulk_update(
        [changed(timeout=45)], ["timeout"]
    ),
}

#: And those that write the secret along with it.
WHOLE_WRITES = {
    "force_update": lambda: changed(timeout=45).save(force_update=True),
    "bulk_update of all": lambda: SiteConfiguration.objects.bulk_update(
        [changed(timeout=45)], ["timeout", "api_key"]
    ),
    "deleted and saved anew": lambda: deleted(changed(timeout=45)).save(),
    "set_setting of itself": lambda: config.set_settings(timeout=45, api_key=config.api_key),
    "a dump that is loaded": lambda: load(
        "json", serializers.serialize("json", [changed(timeout=45)])
    ),
}


def each(ways: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("write", ways.values(), ids=ways.keys())


def changed(**values: Any) -> SiteConfiguration:
    row = SiteConfiguration.objects.get()
    for name, value in values.items():
        setattr(row, name, value)
    return row


def deleted(row: SiteConfiguration) -> SiteConfiguration:
    SiteConfiguration.objects.all().delete()
    return row


def created(row: SiteConfiguration, *, anew: bool = False) -> None:
    SiteConfiguration.objects.all().delete()
    if anew:
        row.save()
    else:
        SiteConfiguration.objects.bulk_create([row])


@pytest.fixture
def wrong_key(settings: Any) -> Any:
    """Call it, and the keys are others from then on."""

    def change() -> None:
        settings.SITECONFIG = {"SECRET_KEYS": [OTHER_KEY]}
        config.reload()

    return change


@pytest.fixture
def right_key(settings: Any) -> Any:
    """Call it, and the keys are those that they were."""

    def change() -> None:
        settings.SITECONFIG = {}
        config.reload()

    return change


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it, and there is no key from then on."""

    def remove() -> None:
        monkeypatch.delenv("SITECONFIG_SECRET_KEYS")
        config.reload()

    return remove


@pytest.mark.django_db
class TestStoring:
    @each(WRITES)
    def test_the_column_holds_what_only_the_key_opens(self, write: Any) -> None:
        """By whatever way it came."""
        write(CANARY)
        assert opened(column()) == CANARY
        assert "canary" not in column()
        assert config.api_key == CANARY
        assert type(config.api_key) is Secret

    def test_an_empty_one_is_empty(self) -> None:
        """There is nothing to hide, and it needs no key."""
        config.set_setting("api_key", CANARY)
        config.set_setting("api_key", "")
        assert column() == ""
        assert config.api_key == ""

    @hypothesis_settings(max_examples=100, deadline=None)
    @given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200))
    def test_it_comes_back_as_it_was(self, plain: str) -> None:
        """Any text that the manager takes."""
        config.set_setting("api_key", plain)
        assert config.api_key == config.reload().api_key == plain
        assert not plain or opened(column()) == plain

    def test_what_no_database_stores_as_text_is_stored_sealed(self) -> None:
        """An instance may hold it; the manager refuses it, as in any text."""
        changed(api_key="a\0b\ud800").save()
        assert config.reload().api_key == "a\0b\ud800"

    def test_what_looks_sealed_is_a_plain_text_if_code_gives_it(self) -> None:
        """It is sealed like any other, and read as it was given."""
        token = sealed("inner")
        for write in (WRITES["set_setting"], WRITES["save"], WRITES["update"]):
            write(token)
            assert config.reload().api_key == token
            assert opened(column()) == token

    def test_numbers_and_lazy_texts_are_texts(self) -> None:
        """As in any text field."""
        config.set_setting("api_key", 12345)
        assert config.api_key == "12345"
        SiteConfiguration.objects.update(api_key=12345)
        assert config.api_key == "12345"
        config.set_setting("api_key", gettext_lazy("none"))
        assert config.api_key == "none"

    def test_max_length_is_that_of_the_plain_text(self) -> None:
        """The sealed one is longer."""
        config.set_setting("api_key", "x" * 200)
        assert len(column()) > 200
        with pytest.raises(ValidationError, match="at most 200 characters"):
            config.set_setting("api_key", "x" * 201)
        assert len(config.api_key) == 200

    def test_an_instance_masks_it_too(self) -> None:
        """As soon as it is assigned, and as it is read."""
        row = SiteConfiguration(api_key=CANARY)
        assert repr(row.api_key) == "<Secret: set>"
        row.api_key = "other"
        assert repr(row.api_key) == "<Secret: set>"
        config.set_setting("api_key", CANARY)
        for (value,) in SiteConfiguration.objects.values_list("api_key"):
            assert (repr(value), str(value)) == ("<Secret: set>", CANARY)
        assert SiteConfiguration.objects.defer("api_key").get().api_key == CANARY

    def test_an_override_is_one_too(self) -> None:
        """So that what reads it can compare it as ever."""
        with override_config(API_KEY=CANARY):
            assert config.api_key.matches(CANARY)
            assert repr(config.settings["api_key"]) == "<Secret: set>"

    def test_the_default_is_one_too(self) -> None:
        """Of a setting that nobody has set."""
        assert not SiteConfiguration.default_snapshot().api_key.matches("")

    def test_null_is_null(self) -> None:
        """In a field that allows it."""
        field: Any = SecretField(**{"null": True})  # as its types do not have it
        assert field.to_python(None) is None
        assert field.from_db_value(None, None, connection) is None
        assert field.get_db_prep_value(None, connection) is None

    def test_a_migration_names_it(self) -> None:
        """By the path that stays."""
        _name, path, _args, kwargs = SecretField(max_length=9).deconstruct()
        assert (path, kwargs) == ("siteconfig.fields.SecretField", {"max_length": 9})


@pytest.mark.django_db
class TestWhatTheDatabaseCannotDo:
    @pytest.mark.parametrize("lookup", ["", "__exact", "__contains", "__in", "__startswith"])
    def test_look_into_it(self, lookup: str) -> None:
        """An answer would always be that nothing is found."""
        with pytest.raises(FieldError, match="is sealed"):
            SiteConfiguration.objects.filter(**{f"api_key{lookup}": CANARY}).exists()

    def test_only_whether_it_is_null(self) -> None:
        """Which is not sealed."""
        assert not SiteConfiguration.objects.filter(api_key__isnull=True).exists()

    @pytest.mark.parametrize("expression", [Value(CANARY), F("site_name"), Upper(Value(CANARY))])
    def test_seal_what_an_expression_gives(self, expression: Any) -> None:
        """It would be stored in plain. The error does not repeat it."""
        refusal = pytest.raises(FieldError, match="api_key was given an expression")
        with refusal as caught, transaction.atomic():
            SiteConfiguration.objects.update(api_key=expression)
        assert "canary" not in str(caught.value)
        with pytest.raises(FieldError), transaction.atomic():
            changed(api_key=expression).save()
        assert column() == ""

    def test_but_copy_what_is_sealed(self) -> None:
        """From one column to another, or to itself."""
        config.set_setting("api_key", CANARY)
        before = column()
        SiteConfiguration.objects.update(api_key=F("api_key"))
        assert column() == before


@pytest.mark.django_db
class TestAnUnchangedSecret:
    @each(OTHER_WRITES | WHOLE_WRITES)
    def test_is_not_sealed_anew(self, write: Any) -> None:
        """The text would differ each time."""
        config.set_setting("api_key", CANARY)
        before = column()
        write()
        assert config.reload().timeout == 45
        assert column() == before

    @pytest.mark.parametrize("way", ["set_setting", "save", "update_fields", "force_update"])
    def test_nor_if_the_same_is_given_again(self, way: str) -> None:
        """To tell of no change where there is none."""
        config.set_setting("api_key", CANARY)
        before = column()
        WRITES[way](CANARY)
        assert column() == before

    @pytest.mark.django_db(transaction=True)
    def test_is_not_told_as_changed(self, changes: Changes) -> None:
        """Not even if it was sealed anew; and a changed one is told, by its name."""
        config.set_setting("api_key", CANARY)
        assert [one["changed"] for one in changes] == [{"api_key"}]
        SiteConfiguration.objects.update(api_key=CANARY, timeout=45)
        assert changes[-1]["changed"] == {"timeout"}
        SiteConfiguration.objects.update(api_key=CANARY)
        assert len(changes) == 2
        config.set_setting("api_key", "other")
        assert changes[-1]["changed"] == {"api_key"}
        assert (changes[-1]["old"].api_key, changes[-1]["new"].api_key) == (CANARY, "other")


@pytest.mark.django_db
class TestUnderAWrongKey:
    @pytest.fixture(autouse=True)
    def stored(self, wrong_key: Any) -> str:
        """What the column holds, before and after."""
        config.set_setting("api_key", CANARY)
        before: str = column()
        wrong_key()
        return before

    def test_it_reads_as_empty(self) -> None:
        """Not as what it was last known to be: who removes a key means it."""
        assert config.api_key == ""
        assert SiteConfiguration.objects.get().api_key == ""
        assert config.timeout == 30

    def test_it_is_reported(self) -> None:
        """status() and explain() name it."""
        assert config.status().unreadable == ("api_key",)
        assert config.explain("api_key").source == "unreadable"
        assert config.explain("timeout").source == "row"

    @each(OTHER_WRITES | WHOLE_WRITES)
    def test_every_write_leaves_it_as_it_is(self, write: Any, stored: str, right_key: Any) -> None:
        """Byte for byte, so that the right key brings it back."""
        write()
        assert config.reload().timeout == 45
        assert column() == stored
        right_key()
        assert config.api_key == CANARY
        assert config.status().unreadable == ()

    def test_it_can_be_set_anew(self) -> None:
        """With the key that there is."""
        config.set_setting("api_key", "other")
        assert config.api_key == "other"
        assert opened(column(), OTHER_KEY) == "other"
        assert config.status().unreadable == ()

    @pytest.mark.parametrize("way", ["set_setting", "save", "update", "bulk_update"])
    def test_it_can_be_cleared(self, way: str) -> None:
        """Though it reads as empty already."""
        WRITES[way]("")
        assert column() == ""
        assert config.reload().api_key == ""
        assert config.status().unreadable == ()

    def test_a_missing_key_is_the_same(self, stored: str, settings: Any) -> None:
        """Nothing else is written, either."""
        settings.SITECONFIG = {"SECRET_KEYS": []}
        config.reload()
        assert config.status().unreadable == ("api_key",)
        config.set_setting("timeout", 45)
        changed(retry_count=1).save(force_update=True)
        assert column() == stored

    def test_a_field_that_may_not_be_empty_is_no_obstacle(self) -> None:
        """What is stored is something."""
        field: Any = SecretField(max_length=3)
        unreadable = Secret.unreadable(sealed(CANARY))
        assert field.clean(unreadable, None) is unreadable
        with pytest.raises(ValidationError, match="cannot be blank"):
            field.clean(Secret(), None)


@pytest.mark.django_db(transaction=True)
def test_a_wrong_key_is_logged_once(wrong_key: Any, caplog: pytest.LogCaptureFixture) -> None:
    """With the name and the next step."""
    config.set_setting("api_key", CANARY)
    with caplog.at_level(logging.WARNING, logger="siteconfig"):
        wrong_key()
        config.reload()
    assert caplog.messages == [
        "No key opens the stored secrets api_key in siteconfig.SiteConfiguration; until one does "
        "they are empty. Put the key that sealed them back into SITECONFIG['SECRET_KEYS']."
    ]


@pytest.mark.django_db
class TestWithoutAKey:
    @each(WRITES)
    def test_none_is_stored(self, write: Any, no_key: Any) -> None:
        """Never in plain. The error says what to do, and does not repeat the secret."""
        no_key()
        before = column()
        with pytest.raises((SecretKeyError, ValidationError)) as caught, transaction.atomic():
            write(CANARY)
        assert "SITECONFIG_SECRET_KEYS" in str(caught.value)
        assert "canary" not in repr(caught.value)
        assert column() == before
        assert config.reload().api_key == ""

    def test_the_refusal_names_the_setting(self, no_key: Any) -> None:
        """As that of any other value."""
        no_key()
        with pytest.raises(ValidationError) as caught:
            config.set_settings(api_key=CANARY, timeout=45)
        assert list(caught.value.message_dict) == ["api_key"]
        assert config.timeout == 30

    @each(OTHER_WRITES | WHOLE_WRITES)
    def test_other_settings_are_stored(self, write: Any, no_key: Any) -> None:
        """And so is an empty secret."""
        no_key()
        write()
        config.set_setting("api_key", "")
        assert config.reload().timeout == 45


WITHOUT = """
import os, sys
sys.modules["cryptography"] = None
from django.conf import settings
settings.DATABASES["default"]["NAME"] = os.environ["SITECONFIG_TEST_DB"]
import django
django.setup()
from django.core.management import call_command
call_command("migrate", run_syncdb=True, verbosity=0)
from siteconfig import config
from siteconfig.models import SiteConfiguration
from django.db import connection
cursor = connection.cursor()
config.set_setting("timeout", 45)
assert config.timeout == 45
token = "gAAAA" + "A" * 93 + "=="
cursor.execute("UPDATE siteconfig_siteconfiguration SET api_key = %s", [token])
assert config.reload().api_key == ""
assert config.status().unreadable == ("api_key",)
row = SiteConfiguration.objects.get()
row.timeout = 46
row.save()
cursor.execute("SELECT api_key FROM siteconfig_siteconfiguration")
assert cursor.fetchone()[0] == token
try:
    config.set_setting("api_key", "canary")
except Exception as error:
    assert "pip install" in str(error), error
    print("works")
"""


def test_everything_else_works_without_the_package(tmp_path: Path) -> None:
    """Migrations, reads, writes, the command; what is sealed stays."""
    environment = {"SITECONFIG_TEST_DB": str(tmp_path / "db.sqlite3")}
    assert python(WITHOUT, SITECONFIG_TEST_DATABASE="", **environment) == "works\n"


@pytest.mark.django_db
class TestAPlainTextInTheColumn:
    """From before the field was a SecretField, or written by raw SQL."""

    @pytest.fixture(autouse=True)
    def plain(self) -> None:
        set_column(CANARY)
        config.reload()

    def test_it_is_read_as_it_is(self) -> None:
        """Nobody's secret is lost by an upgrade; and it is masked from then on."""
        assert config.api_key == CANARY
        assert repr(config.api_key) == "<Secret: set>"
        assert config.status().unreadable == ()

    @each(OTHER_WRITES)
    def test_it_stands_in_the_way_of_no_other_setting(self, write: Any, no_key: Any) -> None:
        """Without a key it can only be left."""
        no_key()
        write()
        assert column() == CANARY
        assert config.reload().api_key == CANARY

    @each(WHOLE_WRITES)
    def test_it_is_sealed_as_soon_as_it_is_written(self, write: Any) -> None:
        """Its value stays."""
        write()
        assert opened(column()) == CANARY
        assert config.reload().api_key == CANARY

    @each(WHOLE_WRITES)
    def test_it_is_not_written_in_plain_again(self, write: Any, no_key: Any) -> None:
        """Not even where it is so already."""
        no_key()
        with pytest.raises((SecretKeyError, ValidationError)), transaction.atomic():
            write()
        assert config.reload().timeout == 30

    def test_a_dump_has_it_sealed(self) -> None:
        """Or there is none."""
        (entry,) = json.loads(serializers.serialize("json", SiteConfiguration.objects.all()))
        assert opened(entry["fields"]["api_key"]) == CANARY

    def test_no_dump_has_it_in_plain(self, no_key: Any) -> None:
        """The error says what is missing."""
        no_key()
        with pytest.raises(CommandError, match="never stored in plain"):
            call_command("dumpdata", "siteconfig")

    @pytest.mark.sqlite
    def test_bytes_are_no_secret(self) -> None:
        """SQLite keeps them in a column of text. They are unreadable, and in no dump."""
        set_column(CANARY.encode())
        config.reload()
        assert config.status().unreadable == ("api_key",)
        row = SiteConfiguration.objects.get()
        assert row.api_key == ""
        assert "canary" not in serializers.serialize("json", [row])
        row.save(force_update=True)
        assert column() == CANARY.encode()


def fixture_of(kind: str, api_key: str) -> Any:
    """A fixture of the row, in a format."""
    row = SiteConfiguration(timeout=45)
    row.api_key = Secret.unreadable("@@@")  # which is written as it is
    text = serializers.serialize(kind, [row])
    if kind == "python":
        text[0]["fields"]["api_key"] = api_key
        return text
    return text.replace("@@@", api_key)


def load(kind: str, fixture: Any) -> None:
    for one in serializers.deserialize(kind, fixture):
        one.save()
    config.reload()


@pytest.mark.django_db
@pytest.mark.parametrize("kind", FORMATS)
class TestFixtures:
    def test_a_dump_is_sealed_and_loads_back(self, kind: str) -> None:
        """Byte for byte."""
        config.set_setting("api_key", CANARY)
        before = column()
        dump = serializers.serialize(kind, SiteConfiguration.objects.all())
        assert "canary" not in str(dump)
        assert before in str(dump)
        SiteConfiguration.objects.all().delete()
        load(kind, dump)
        assert column() == before
        assert config.api_key == CANARY

    def test_a_plain_text_is_sealed_when_it_is_loaded(self, kind: str) -> None:
        """As somebody writes it by hand."""
        load(kind, fixture_of(kind, CANARY))
        assert opened(column()) == CANARY
        assert (config.api_key, config.timeout) == (CANARY, 45)

    @pytest.mark.parametrize("key", [SECRETS_KEY, OTHER_KEY], ids=["opened", "not opened"])
    def test_a_sealed_text_is_stored_as_it_is(self, kind: str, key: str) -> None:
        """Whether a key opens it or not."""
        token = sealed(CANARY, key)
        load(kind, fixture_of(kind, token))
        assert column() == token
        assert config.api_key == (CANARY if key == SECRETS_KEY else "")

    def test_without_a_key_a_plain_text_is_not_loaded(self, kind: str, no_key: Any) -> None:
        """Nor anything else of that object."""
        no_key()
        with pytest.raises(SecretKeyError), transaction.atomic():
            load(kind, fixture_of(kind, CANARY))
        assert config.reload().timeout == 30

    def test_what_no_key_opens_is_dumped_as_it_is(self, kind: str, wrong_key: Any) -> None:
        """A backup is one, whoever makes it."""
        config.set_setting("api_key", CANARY)
        before = column()
        wrong_key()
        assert before in str(serializers.serialize(kind, SiteConfiguration.objects.all()))


@pytest.mark.django_db(transaction=True)
class TestTheLastKnownGoodFile:
    @pytest.fixture
    def file(self, tmp_path: Any, settings: Any) -> Any:
        path = tmp_path / "settings.json"
        settings.SITECONFIG = {"LAST_KNOWN_GOOD": path, "SECRET_KEYS": [SECRETS_KEY]}
        return path

    def recalled(self) -> Any:
        config.reset()
        return SiteConfiguration.fallback_snapshot()

    def test_holds_what_the_column_holds(self, file: Any) -> None:
        """And gives the secret back to whoever has the key."""
        config.set_setting("api_key", CANARY)
        assert json.loads(file.read_text())[0]["fields"]["api_key"] == column()
        assert "canary" not in file.read_text()
        assert self.recalled().api_key == CANARY

    def test_gives_nothing_to_whoever_has_not(self, file: Any, settings: Any) -> None:
        """The setting is empty, and reported."""
        config.set_setting("api_key", CANARY)
        settings.SITECONFIG["SECRET_KEYS"][:] = [OTHER_KEY]
        snapshot = self.recalled()
        assert snapshot.api_key == ""
        assert snapshot._unreadable == {"api_key": "unreadable"}

    def test_is_kept_up_under_a_wrong_key(self, file: Any, settings: Any) -> None:
        """With the secret as it is stored; the other settings are as good as ever."""
        config.set_setting("api_key", CANARY)
        settings.SITECONFIG["SECRET_KEYS"][:] = [OTHER_KEY]
        config.reload()
        config.set_setting("timeout", 45)
        kept = json.loads(file.read_text())[0]["fields"]
        assert (kept["timeout"], kept["api_key"]) == (45, column())

    def test_has_no_plain_text(self, file: Any, settings: Any, caplog: Any) -> None:
        """Without a key it is not written at all."""
        settings.SITECONFIG["SECRET_KEYS"].clear()
        set_column(CANARY)
        config.reload()
        assert config.api_key == CANARY
        assert not file.exists()
        assert "canary" not in caplog.text


@pytest.mark.django_db
class TestOtherModels:
    def test_any_config_model_may_have_secrets(self) -> None:
        """Under any name."""
        shop = ConfigManager(ShopConfig)
        shop.set_setting("voucher", CANARY)
        assert shop.voucher.matches(CANARY)
        assert opened(column("voucher", ShopConfig._meta.db_table)) == CANARY

    def test_secret_fields_are_known(self) -> None:
        """By their names."""
        assert list(SiteConfiguration.secret_fields()) == ["api_key"]
        assert list(ShopConfig.secret_fields()) == ["voucher"]

    def test_a_secret_of_one_model_goes_to_another(self) -> None:
        """Sealed as it is; one in plain is sealed on the way."""
        config.set_setting("api_key", CANARY)
        ConfigManager(ShopConfig).set_setting("voucher", config.api_key)
        assert column("voucher", ShopConfig._meta.db_table) == column()
        set_column(CANARY)
        ConfigManager(ShopConfig).set_setting("voucher", config.reload().api_key)
        assert opened(column("voucher", ShopConfig._meta.db_table)) == CANARY

    def test_a_secret_does_not_go_into_what_is_no_secret_field(self) -> None:
        """There it would be stored in plain. Whoever means it passes str() of it."""
        config.set_setting("api_key", CANARY)
        for name, value in {
            "site_name": config.api_key,
            "new_setting": config.api_key,
            "extra": {"a": [config.api_key]},
        }.items():
            with pytest.raises(ValidationError, match="secret"):
                config.set_setting(name, value)
        config.set_setting("site_name", str(config.api_key))
        assert config.site_name == CANARY

    def test_masked_leaves_the_rest_alone(self) -> None:
        """Only texts for secret settings are masked, in any spelling."""
        given = {"API_KEY": "a", "api_key": 5, "timeout": "45", "Other": "b", "x": None}
        masked: Any = ConfigModel.masked.__func__(SiteConfiguration, given)  # type: ignore[attr-defined] # a classmethod's
        assert repr(masked) == (
            "{'API_KEY': <Secret: set>, 'api_key': <Secret: set>, 'timeout': '45', "
            "'Other': 'b', 'x': None}"
        )


def test_the_field_is_a_text_for_the_database() -> None:
    """Whatever its max_length."""
    assert SecretField(max_length=5).db_type(connection) == models.TextField().db_type(connection)
