"""ConfigModel: one row (issue: a second is impossible), whole and checked writes (G11)."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.core import serializers
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, models, transaction
from django.db.models import F
from django.db.models.functions import Now

from siteconfig import ConfigManager, config, history
from siteconfig.exceptions import RowExistsError
from siteconfig.models import ConfigModel, SiteConfiguration, default_of
from tests.concurrency import Changes, Started, in_thread
from tests.factories import SiteConfigurationFactory
from tests.testapp.models import ShopConfig, ShopProxy, Warehouse


def refused(**values: Any) -> dict[str, list[str]]:
    """The messages with which these settings are refused; nothing may have changed."""
    before = dict(config.snapshot())
    with pytest.raises(ValidationError) as caught:
        config.set_settings(**values)
    assert dict(config.reload()) == before
    return caught.value.message_dict


@pytest.mark.django_db
class TestOneRow:
    def test_a_second_row_is_refused_by_the_database(self) -> None:
        """By bulk_create and by loaddata with another key."""
        with pytest.raises(IntegrityError), transaction.atomic():
            SiteConfiguration.objects.bulk_create([SiteConfiguration(id=2)])
        fixture = '[{"model": "siteconfig.siteconfiguration", "pk": 2, "fields": {}}]'
        with pytest.raises(IntegrityError), transaction.atomic():
            for one in serializers.deserialize("json", fixture):
                one.save()
        assert SiteConfiguration.objects.count() == 1

    def test_also_where_the_model_has_a_meta_of_its_own(self) -> None:
        """The check belongs to the key, which no subclass can lose."""
        with pytest.raises(IntegrityError), transaction.atomic():
            ShopConfig.objects.bulk_create([ShopConfig(id=2)])

    def test_a_new_instance_over_the_row_is_refused(self) -> None:
        """It would reset every setting it does not name."""
        config.set_setting("retry_count", 7)
        for save in (SiteConfiguration(timeout=45).save, create):
            with pytest.raises(RowExistsError, match="would reset every setting"):
                save()
        assert (config.timeout, config.retry_count) == (30, 7)

    def test_it_is_an_integrity_error(self) -> None:
        """So get_or_create and update_or_create treat it as they must."""
        assert SiteConfiguration.objects.get_or_create(pk=1)[1] is False
        SiteConfiguration.objects.update_or_create(pk=1, defaults={"timeout": 45})
        assert config.timeout == 45
        assert issubclass(RowExistsError, IntegrityError)

    def test_solos_get_solo_works_as_before(self) -> None:
        """For code that uses it."""
        assert SiteConfiguration.get_solo().timeout == 30

    def test_without_a_row_a_new_instance_is_saved(self) -> None:
        """As it is with any model."""
        SiteConfiguration.objects.all().delete()
        SiteConfiguration(timeout=45).save()
        assert config.timeout == 45

    @pytest.mark.django_db(databases=["default", "other"])
    def test_no_pending_model_changes_and_no_warnings(self) -> None:
        """Migrations are complete; a subclass gets no models.W042."""
        from django.core.checks import run_checks
        from django.core.management import call_command

        call_command("makemigrations", "siteconfig", check=True, dry_run=True, verbosity=0)
        assert run_checks() == []


def create() -> None:
    SiteConfiguration.objects.create(timeout=45)


@pytest.mark.django_db
class TestSavingAnInstance:
    def test_two_instances_that_change_different_settings_both_win(self) -> None:
        """Only what was changed is saved (H17)."""
        one, other = SiteConfiguration.objects.get(), SiteConfiguration.objects.get()
        one.timeout = 45
        one.save()
        other.retry_count = 7
        other.save()
        assert (config.timeout, config.retry_count) == (45, 7)

    def test_an_instance_can_be_saved_again_and_again(self) -> None:
        """Each time with what has changed since."""
        row = SiteConfiguration.objects.get()
        for value in (40, 41, 30):
            row.timeout = value
            row.save()
            assert config.timeout == value

    def test_changes_inside_json_are_saved(self) -> None:
        """Though the attribute is still the same object."""
        row = SiteConfiguration.objects.get()
        row.extra["a"] = {"b": [1]}
        row.save()
        row.extra["a"]["b"].append(2)
        row.save()
        assert config.get_setting("a") == {"b": [1, 2]}

    def test_true_in_place_of_one_is_a_change(self) -> None:
        """Python calls them equal."""
        config.set_setting("flag", 1)
        row = SiteConfiguration.objects.get()
        row.extra["flag"] = True
        row.save()
        assert config.reload().get_setting("flag") is True

    def test_expressions_are_saved(self) -> None:
        """As with any model."""
        row = SiteConfiguration.objects.get()
        row.timeout = F("timeout") + 1
        row.save()
        assert config.timeout == 31

    def test_auto_now_is_kept_up(self) -> None:
        """Fields that change by themselves are saved with the others."""
        row = ShopConfig.objects.get()
        row.currency = "CHF"
        row.save()
        first = ConfigManager(ShopConfig).changed
        row.save()
        assert ConfigManager(ShopConfig).changed > first

    def test_update_fields_is_respected(self) -> None:
        """And counted as a write."""
        row = SiteConfiguration.objects.get()
        row.timeout, row.retry_count = 45, 7
        row.save(update_fields=["timeout"])
        assert (config.timeout, config.retry_count) == (45, 3)
        assert config.snapshot().version == 1
        row.save(update_fields=[])
        assert config.snapshot().version == 1

    def test_a_deferred_instance_saves_what_it_has(self) -> None:
        """Without loading the rest."""
        row = SiteConfiguration.objects.only("timeout").get()
        row.timeout = 45
        row.save()
        assert (config.timeout, config.retry_count) == (45, 3)

    def test_saving_after_the_row_was_deleted_makes_it_anew(self) -> None:
        """With everything the instance holds."""
        row = SiteConfiguration.objects.get()
        row.timeout = 45
        SiteConfiguration.objects.all().delete()
        row.save()
        assert config.timeout == 45

    def test_deleting_the_instance_and_saving_it(self) -> None:
        """delete() means the defaults until then."""
        config.set_setting("timeout", 45)
        row = SiteConfiguration.objects.get()
        row.delete()
        assert config.timeout == 30
        row.save()
        assert config.timeout == 45

    def test_what_is_read_again_counts_as_stored(self) -> None:
        """refresh_from_db(), of all fields or of some, and deferred ones."""
        row = SiteConfiguration.objects.get()
        SiteConfiguration.objects.update(timeout=50)
        row.refresh_from_db()
        row.timeout = 30
        row.save()
        assert config.timeout == 30
        row.timeout = 31
        row.refresh_from_db(fields=["retry_count"])
        row.save()
        assert config.timeout == 31
        deferred = SiteConfiguration.objects.only("site_name").get()
        assert deferred.timeout == 31
        SiteConfiguration.objects.update(timeout=60)
        deferred.site_name = "Other"
        deferred.save()
        assert (config.timeout, config.site_name) == (60, "Other")

    def test_force_insert_of_a_loaded_row_is_an_integrity_error(self) -> None:
        """As with any model."""
        row = SiteConfiguration.objects.get()
        with pytest.raises(IntegrityError), transaction.atomic():
            row.save(force_insert=True)

    def test_force_update_saves_every_column(self) -> None:
        """Whoever asks for it gets it."""
        row = SiteConfiguration.objects.get()
        config.set_setting("retry_count", 7)
        row.save(force_update=True)
        assert config.retry_count == 3

    def test_factories_work(self) -> None:
        """factory_boy needs no more than a few lines (tests/factories.py)."""
        SiteConfigurationFactory(timeout=45)
        SiteConfigurationFactory(retry_count=7)
        assert (config.timeout, config.retry_count) == (45, 7)


@pytest.mark.django_db
class TestVersion:
    def test_each_write_through_django_counts(self) -> None:
        """set_setting, save, update."""
        config.set_setting("timeout", 40)
        SiteConfiguration.objects.update(timeout=41)
        row = SiteConfiguration.objects.get()
        row.timeout = 42
        row.save()
        assert row.version == config.snapshot().version == 3

    def test_a_stale_instance_does_not_lower_it(self) -> None:
        """The database adds the one (H21)."""
        stale = SiteConfiguration.objects.get()
        config.set_setting("timeout", 40)
        config.set_setting("timeout", 41)
        stale.retry_count = 5
        stale.save()
        assert config.snapshot().version == 3

    def test_a_fixture_sets_it(self) -> None:
        """A dump is restored as it was."""
        config.set_setting("timeout", 40)
        dump = serializers.serialize("json", SiteConfiguration.objects.all())
        config.set_setting("timeout", 41)
        for one in serializers.deserialize("json", dump):
            one.save()
        assert (config.timeout, config.snapshot().version) == (40, 1)


@pytest.mark.django_db
class TestG11WholeAndChecked:
    def test_validators_run(self) -> None:
        """Bounds, choices, formats: each error at its name."""
        errors = refused(timeout=301, retry_count=-1, log_level="LOUD", support_email="nobody")
        assert set(errors) == {"timeout", "retry_count", "log_level", "support_email"}
        assert errors["timeout"] == ["Ensure this value is less than or equal to 300."]

    def test_one_bad_value_refuses_all(self) -> None:
        """All or nothing."""
        assert set(refused(timeout=45, retry_count=99)) == {"retry_count"}

    def test_clean_runs(self) -> None:
        """What the model says of several settings together."""
        shop = ConfigManager(ShopConfig)
        with pytest.raises(ValidationError) as caught:
            shop.set_setting("low", 11)
        assert caught.value.message_dict == {"low": ["Not above high."]}
        shop.set_settings(low=11, high=12)
        assert (shop.low, shop.high) == (11, 12)

    @pytest.mark.parametrize(
        "value",
        [
            None,
            "",
            "abc",
            True,
            [],
            {},
            object,
            4.5,
            Decimal("4.5"),
            math.inf,
            math.nan,
            "9" * 5000,
        ],
        ids=lambda value: repr(value)[:12],
    )
    def test_no_wrong_value_gets_into_a_number(self, value: Any) -> None:
        """Nor is one made of it by leaving something out."""
        assert set(refused(timeout=value)) == {"timeout"}

    @pytest.mark.parametrize("value", ["45", 45, 45.0, Decimal(45)], ids=repr)
    def test_what_means_the_same_is_converted(self, value: Any) -> None:
        """A form or a command gives text."""
        config.set_setting("timeout", value)
        assert config.timeout == 45
        assert type(config.timeout) is int

    @pytest.mark.parametrize("value", [None, "maybe", 5])
    def test_no_wrong_value_gets_into_a_boolean(self, value: Any) -> None:
        """None would be NULL."""
        assert set(refused(maintenance_mode=value)) == {"maintenance_mode"}

    @pytest.mark.parametrize(
        "value", [["x"], {}, b"x", object(), "a\0b", "\ud800"], ids=lambda value: repr(value)[:9]
    )
    def test_nothing_but_text_gets_into_a_text(self, value: Any) -> None:
        """str() would make text of anything; and some text no database stores."""
        assert set(refused(api_key=value)) == {"api_key"}

    def test_numbers_become_text(self) -> None:
        """As their digits."""
        config.set_setting("api_key", 12345)
        assert config.api_key == "12345"

    @pytest.mark.parametrize("value", [object(), {1, 2}, math.nan, [math.inf], b"x"])
    def test_extra_settings_hold_what_json_holds(self, value: Any) -> None:
        """The error is at the setting's own name."""
        assert set(refused(new_setting=value)) == {"new_setting"}

    def test_endless_structures_are_refused(self) -> None:
        """Not with a RecursionError."""
        endless: list[Any] = []
        endless.append(endless)
        assert set(refused(new_setting=endless)) == {"new_setting"}

    @pytest.mark.parametrize("value", [[], "text", 5, None])
    def test_extra_itself_is_an_object(self, value: Any) -> None:
        """Names and values, nothing else."""
        assert set(refused(extra=value)) == {"extra"}

    def test_extra_and_single_extra_settings_may_be_given_together(self) -> None:
        """The single ones are put into it."""
        config.set_settings(extra={"a": 1}, b=2)
        assert config.extra == {"a": 1, "b": 2}

    @pytest.mark.parametrize("value", ["a\0b", "\ud800", {"a\0": 1}, [[["\0"]]]], ids=ascii)
    def test_json_that_not_every_database_stores_is_refused(self, value: Any) -> None:
        """In extra settings and in every JSON field."""
        assert set(refused(new_setting=value)) == {"new_setting"}
        with pytest.raises(ValidationError):
            ConfigManager(ShopConfig).set_setting("tags", [value])
        with pytest.raises(ValidationError):
            ConfigManager(ShopConfig).set_setting("tags", [math.nan])

    def test_json_may_be_100_levels_deep(self) -> None:
        """And no deeper: parsers give up somewhere."""
        deep: Any = 1
        for _ in range(98):
            deep = [deep]
        config.set_setting("deep", deep)
        assert config.get_setting("deep") == deep
        for _ in range(10):
            deep = [deep]
        assert set(refused(deeper=deep)) == {"deeper"}

    @pytest.mark.parametrize("name", ["", "  "])
    def test_a_setting_needs_a_name(self, name: str) -> None:
        """Nobody could ask for it."""
        assert set(refused(**{name: 1})) == {name}

    def test_a_name_given_twice_is_refused(self) -> None:
        """Which of the two should win?"""
        assert set(refused(timeout=40, TIMEOUT=50)) == {"timeout"}

    def test_strict_refuses_unknown_names(self, settings: Any) -> None:
        """And says what may have been meant, at the name."""
        settings.SITECONFIG = {"STRICT": True}
        errors = refused(timeuot=45)
        assert "Did you mean 'timeout'?" in errors["timeuot"][0]

    def test_extra_settings_are_added_to_those_there_are(self) -> None:
        """In any case, as they are read."""
        config.set_settings(FIRST=1, timeout=45)
        config.set_setting("second", [1, {"a": None}])
        config.set_setting("First", 2)
        assert config.extra == {"first": 2, "second": [1, {"a": None}]}

    def test_an_extra_setting_may_have_the_name_of_an_inner_column(self) -> None:
        """version and id are no settings, so they are free."""
        config.set_settings(version="1.2", id=5)
        assert (config.get_setting("VERSION"), config.get_setting("id")) == ("1.2", 5)
        assert config.snapshot().version == 1

    def test_a_stored_value_that_is_invalid_does_not_block_the_others(self) -> None:
        """Only what is given is checked."""
        SiteConfiguration.objects.update(timeout=1000)
        config.set_setting("retry_count", 5)
        assert (config.timeout, config.retry_count) == (1000, 5)

    def test_every_type_round_trips(self) -> None:
        """The value read is the value set, in its type."""
        shop = ConfigManager(ShopConfig)
        values = {
            "currency": "CHF",
            "tax": Decimal("7.70"),
            "opening": datetime.timedelta(minutes=90),
            "opened": datetime.date(2020, 2, 29),
            "tags": ["a", {"b": None}],
        }
        shop.set_settings(**values)
        assert {name: shop.settings[name] for name in values} == values
        shop.set_setting("opened", None)
        assert shop.opened is None

    def test_a_foreign_key_is_set_by_either_name_and_validated(self) -> None:
        """By its object or its key; a key of nothing is refused."""
        shop = ConfigManager(ShopConfig)
        warehouse = Warehouse.objects.create(name="North")
        shop.set_setting("warehouse", warehouse)
        assert shop.warehouse_id == warehouse.pk
        with pytest.raises(ValidationError) as caught:
            shop.set_setting("warehouse_id", 4711)
        assert set(caught.value.message_dict) == {"warehouse"}
        shop.set_setting("WAREHOUSE_ID", None)
        assert shop.warehouse_id is None

    def test_without_a_row_the_first_write_makes_it(self) -> None:
        """With the defaults for the rest."""
        SiteConfiguration.objects.all().delete()
        config.set_setting("timeout", 45)
        assert (config.timeout, config.retry_count) == (45, 3)

    def test_signals_are_sent_with_the_instance(self) -> None:
        """A project's own post_save receivers go on working."""
        seen: list[Any] = []

        def receive(instance: SiteConfiguration, update_fields: Any, **kwargs: Any) -> None:
            seen.append((instance.timeout, update_fields))

        models.signals.post_save.connect(receive, sender=SiteConfiguration)
        config.set_setting("timeout", 45)
        models.signals.post_save.disconnect(receive, sender=SiteConfiguration)
        assert seen == [(45, frozenset({"timeout", "version"}))]

    def test_a_write_is_one_transaction_of_few_statements(
        self, django_assert_max_num_queries: Any
    ) -> None:
        """Lock and read, update, read, and the last record and a new one; and the savepoint."""
        assert history.is_kept("default")
        with django_assert_max_num_queries(8):
            config.set_setting("timeout", 45)


@pytest.mark.django_db(transaction=True)
class TestWritersAtOnce:
    def test_two_writers_of_different_settings_both_win(self) -> None:
        """They wait for each other at the row."""

        def write(name: str, value: int) -> Any:
            def ten_times() -> None:
                for _ in range(10):
                    config.set_setting(name, value)

            return ten_times

        for writer in [Started(write("timeout", 45)), Started(write("retry_count", 7))]:
            writer.result()
        assert (config.timeout, config.retry_count) == (45, 7)
        assert config.snapshot().version == 20

    def test_two_writers_of_different_extra_settings_both_win(self) -> None:
        """Though they share a column."""
        for writer in [Started(partial(config.set_setting, f"n{n}", n)) for n in range(8)]:
            writer.result()
        assert config.extra == {f"n{n}": n for n in range(8)}

    def test_a_refused_write_leaves_no_trace(self, changes: Changes) -> None:
        """No change is told, and the version stays."""
        refused(timeout=0)
        assert changes == []
        assert config.snapshot().version == 0

    def test_current_is_the_snapshot(self) -> None:
        """Typed as the model, made by the manager."""
        current: object = SiteConfiguration.current()
        assert current is config.snapshot()
        assert in_thread(lambda: ShopConfig.current().currency) == "EUR"


@pytest.mark.django_db
class TestWritesThatDjangoMakesByItself:
    def test_a_deleted_object_that_a_setting_points_to(self) -> None:
        """SET_NULL is an update like any other."""
        shop = ConfigManager(ShopConfig)
        warehouse = Warehouse.objects.create(name="North")
        shop.set_setting("warehouse", warehouse)
        warehouse.delete()
        assert shop.warehouse_id is None

    def test_a_proxy_is_the_same_row(self) -> None:
        """By save() and by update(), and it has no manager of its own."""
        shop = ConfigManager(ShopConfig)
        row = ShopProxy.objects.get()
        row.currency = "CHF"
        row.save()
        assert shop.currency == "CHF"
        ShopProxy.objects.update(currency="USD")
        assert shop.currency == "USD"
        assert ConfigManager(ShopProxy) is shop


class TestDefaults:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            (models.IntegerField(default=5), 5),
            (models.IntegerField(default="5"), 5),
            (models.IntegerField(db_default=5), 5),
            (models.IntegerField(null=True), None),
            (models.CharField(), ""),
            (models.JSONField(default=dict), {}),
            (models.DurationField(default="00:05:00"), datetime.timedelta(minutes=5)),
            (models.DateTimeField(db_default=Now()), None),
        ],
    )
    def test_default_of_is_what_its_field_would_read(self, field: Any, value: Any) -> None:
        """In the field's type; what only the database knows is None."""
        assert default_of(field) == value
        assert type(default_of(field)) is type(value)

    def test_choices_are_plain_text(self) -> None:
        """As they come back from the database."""
        assert type(SiteConfiguration.default_snapshot().log_level) is str

    def test_every_shipped_setting_has_help_and_default(self) -> None:
        """The page explains itself."""
        for name, field in SiteConfiguration.setting_fields().items():
            assert field.help_text, name
            assert field.has_default(), name

    def test_str_is_for_people(self) -> None:
        """The admin shows it in its messages and histories."""
        assert str(SiteConfiguration()) == "Site configuration"
        assert ConfigModel._meta.abstract

    def test_the_table_check_names_the_key(self) -> None:
        """What the database is told."""
        check = SiteConfiguration._meta.pk.db_check(connection)
        assert check == '"id" = 1'
