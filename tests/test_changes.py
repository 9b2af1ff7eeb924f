"""The history: each change, once, with what it changed, by whom and how."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.management import call_command
from django.db import DatabaseError, connection, models, transaction
from django.db.models.signals import pre_save
from django.test import RequestFactory
from django.test.utils import isolate_apps

from siteconfig import ConfigManager, config, history
from siteconfig.exceptions import AppendOnlyError
from siteconfig.history import attributed_to
from siteconfig.middleware import ConfigMiddleware
from siteconfig.models import ConfigChange, ConfigModel, SiteConfiguration
from siteconfig.testing import run_watcher
from siteconfig.watcher import watcher
from tests.concurrency import Started, wait_until
from tests.factories import UserFactory
from tests.keys import NOT_UTF8, sealed, set_column
from tests.testapp.models import ShopConfig, ShopProxy, Warehouse

pytestmark = pytest.mark.django_db


def recorded(model: Any = SiteConfiguration) -> list[tuple[str, dict[str, Any]]]:
    """How each change was made, and what it changed, the oldest first."""
    return [(one.how, one.changes) for one in history.changes_of(model).reverse()]


def past_django(**values: Any) -> None:
    """Write columns as psql does."""
    with connection.cursor() as cursor:
        for name, value in values.items():
            cursor.execute(f"UPDATE siteconfig_siteconfiguration SET {name} = %s", [value])


def subjects() -> list[Any]:
    """What the watcher looks after."""
    links = list(watcher.links.values())
    return [subject for link in links for subject in list(link.subjects.values())]


class TestEveryWay:
    def test_set_settings_is_one_record(self) -> None:
        """Of only what has changed."""
        config.set_settings(timeout=45, retry_count=3, site_name="Shop")
        change = {
            "timeout": {"old": 30, "new": 45},
            "site_name": {"old": "My site", "new": "Shop"},
        }
        assert recorded() == [("code", change)]
        assert ConfigChange.objects.get().version == config.snapshot().version

    def test_saving_an_instance(self) -> None:
        """As any code does."""
        row = SiteConfiguration.objects.get()
        row.timeout = 45
        row.save()
        assert recorded() == [("code", {"timeout": {"old": 30, "new": 45}})]

    def test_update_and_bulk_update(self) -> None:
        """For which Django sends no signal."""
        SiteConfiguration.objects.update(timeout=45)
        row = SiteConfiguration.objects.get()
        row.timeout = 46
        SiteConfiguration.objects.bulk_update([row], ["timeout"])
        assert recorded() == [
            ("code", {"timeout": {"old": 30, "new": 45}}),
            ("code", {"timeout": {"old": 45, "new": 46}}),
        ]

    def test_deleting_the_row(self) -> None:
        """Everything is as the fields say."""
        config.set_setting("timeout", 45)
        SiteConfiguration.objects.all().delete()
        assert recorded()[1:] == [("code", {"timeout": {"old": 45, "new": 30}})]

    def test_a_fixture(self) -> None:
        """Whatever it is loaded by."""
        config.set_settings(timeout=45)
        call_command("loaddata", "initial", verbosity=0)
        how, change = recorded()[-1]
        assert how == "fixture"
        assert change["timeout"] == {"old": 45, "new": 30}

    def test_settings_that_are_no_fields(self) -> None:
        """Each by itself, not the column as a whole."""
        config.set_settings(banner="Hello", colors=["red"])
        config.set_setting("colors", ["red", None])
        assert recorded() == [
            ("code", {"extra.banner": {"new": "Hello"}, "extra.colors": {"new": ["red"]}}),
            ("code", {"extra.colors": {"old": ["red"], "new": ["red", None]}}),
        ]

    def test_of_every_kind_of_value(self) -> None:
        """In JSON, of which their fields make them again."""
        warehouse = Warehouse.objects.create(name="North")
        shop = ConfigManager(ShopConfig)
        shop.set_settings(
            tax="7.50", opening="02:00:00", opened="2026-02-01", tags=[1], warehouse=warehouse
        )
        (_, change) = recorded(ShopConfig)[0]
        assert {name: one["new"] for name, one in change.items()} == {
            "tax": "7.50",
            "opening": "02:00:00",
            "opened": "2026-02-01",
            "tags": [1],
            "warehouse_id": warehouse.pk,
        }
        values = {name: getattr(shop, name) for name in change}
        fields = ShopConfig.setting_fields()
        assert {name: history.decoded(fields[name], change[name]["new"]) for name in change} == (
            values
        )

    def test_a_proxy_writes_the_same_history(self) -> None:
        """It is the same row."""
        ShopProxy.objects.update(currency="USD")
        for model in (ShopConfig, ShopProxy):
            assert recorded(model)[0][1]["currency"] == {"old": "EUR", "new": "USD"}

    @isolate_apps("tests.testapp")
    def test_no_file_is_opened(self) -> None:
        """It may be gone, or not stored yet; its field would ask it for its size."""

        class Picture(ConfigModel):
            image = models.ImageField(width_field="width", blank=True, default="")
            width = models.IntegerField(null=True)

            class Meta:
                app_label = "testapp"

        found = history.entries(Picture, {"image": "gone.png", "width": None})
        assert found["image"].shown == {"value": "gone.png"}

    def test_no_change_is_no_record(self) -> None:
        """Whoever saves it."""
        config.set_settings(timeout=30)
        SiteConfiguration.objects.get().save()
        assert recorded() == []

    def test_secrets_are_only_said_to_have_changed(self) -> None:
        """Nothing of them is on record."""
        config.set_setting("api_key", "s3cret-number-one")
        config.set_setting("api_key", "s3cret-number-two")
        config.set_setting("api_key", "s3cret-number-two")
        assert recorded() == [("code", {"api_key": {}})] * 2
        rows = json.dumps(list(ConfigChange.objects.values()), default=str)
        assert "s3cret" not in rows

    def test_sealing_anew_changes_no_setting(self) -> None:
        """And what follows is not taken for a change past Django."""
        config.set_setting("api_key", "s3cret-number-one")
        SiteConfiguration.objects.update(api_key="s3cret-number-one")  # sealed anew each time
        config.set_setting("timeout", 45)
        assert [how for how, _ in recorded()] == ["code", "code", "code"]
        assert [sorted(change) for _, change in recorded()] == [["api_key"], [], ["timeout"]]

    def test_can_be_turned_off(self, settings: Any) -> None:
        """By one line."""
        settings.SITECONFIG = {"HISTORY": False}
        config.set_setting("timeout", 45)
        assert recorded() == []


class TestInTheTransaction:
    def test_a_rollback_takes_it_along(self) -> None:
        """Also one to a savepoint."""
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            config.set_setting("timeout", 45)
            assert len(recorded()) == 1
            raise ZeroDivisionError
        assert recorded() == []

    @pytest.mark.django_db(transaction=True)
    def test_an_autocommit_save_and_its_record_are_one(self, monkeypatch: Any) -> None:
        """Neither is there without the other."""

        def fail(*args: Any, **kwargs: Any) -> None:
            raise DatabaseError("no room")

        monkeypatch.setattr(history, "record", fail)
        row = SiteConfiguration.objects.get()
        row.timeout = 45
        for write in (row.save, lambda: SiteConfiguration.objects.update(timeout=45)):
            with pytest.raises(DatabaseError, match="no room"):
                write()
        assert SiteConfiguration.objects.get().timeout == config.timeout == 30

    @pytest.mark.django_db(transaction=True)
    def test_writers_at_once_each_leave_theirs(self) -> None:
        """A chain: what one made is what the next found."""

        def write(first: int) -> Any:
            def ten_times() -> None:
                for value in range(first, first + 10):
                    config.set_setting("timeout", value)

            return ten_times

        for writer in [Started(write(100)), Started(write(200))]:
            writer.result()
        chain = [change["timeout"] for _, change in recorded()]
        assert len(chain) == 20
        assert [one["old"] for one in chain[1:]] == [one["new"] for one in chain[:-1]]

    def test_before_migrate_settings_can_be_written(self, monkeypatch: Any) -> None:
        """A release that comes before its migration."""
        monkeypatch.setattr(history, "_have_table", set())
        monkeypatch.setattr(connection.introspection, "table_names", lambda: [])
        config.set_setting("timeout", 45)
        assert config.timeout == 45
        monkeypatch.undo()
        assert recorded() == []


class TestWritersAtOnce:
    """Plain saves, which lock nothing by themselves."""

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("way", ["update", "save"])
    def test_each_finds_what_the_other_left(self, way: str) -> None:
        """Nobody fails, and nobody is taken for the other."""

        def write(name: str, who: str) -> Any:
            def many_times() -> None:
                for value in range(1, 16):
                    with attributed_to(reason=who):
                        if way == "update":
                            SiteConfiguration.objects.update(**{name: 10 + value})
                        else:
                            row = SiteConfiguration.objects.get()
                            setattr(row, name, 10 + value)
                            row.save()

            return many_times

        for writer in [Started(write("timeout", "a")), Started(write("log_level", "b"))]:
            writer.result()
        found = ConfigChange.objects.values_list("how", "reason", "changes")
        assert {(how, reason, *change) for how, reason, change in found} == {
            ("code", "a", "timeout"),
            ("code", "b", "log_level"),
        }
        assert len(found) == 30

    def test_one_within_another(self) -> None:
        """A receiver that writes settings as they are saved."""

        def write_more(sender: Any, **kwargs: Any) -> None:
            pre_save.disconnect(write_more, sender=SiteConfiguration)
            config.set_setting("retry_count", 9)

        row = SiteConfiguration.objects.get()
        row.timeout = 42
        pre_save.connect(write_more, sender=SiteConfiguration)
        row.save()
        assert recorded() == [
            ("code", {"retry_count": {"old": 3, "new": 9}}),
            ("code", {"timeout": {"old": 30, "new": 42}}),
        ]

    def test_one_between_the_lock_and_the_save(self) -> None:
        """As an admin's save_model may do."""
        row = SiteConfiguration.locked_row("default")
        config.set_setting("retry_count", 9)
        row.timeout = 42
        row.save()
        assert [how for how, _ in recorded()] == ["code", "code"]


class TestWho:
    def test_that_cannot_be_told_fails_no_write(self, caplog: Any) -> None:
        """A session store that is down, for example."""

        def fail() -> Any:
            raise RuntimeError("no sessions")

        with attributed_to(fail):
            config.set_setting("timeout", 45)
        assert config.timeout == 45
        assert "no sessions" in caplog.text
        with pytest.raises(ValueError, match="must be one of"), attributed_to(how="celery"):
            pass

    def test_a_block_says(self) -> None:
        """The inner one, where both say something."""
        user = UserFactory.create(username="anna")
        with attributed_to(user, reason="as agreed"):
            config.set_setting("timeout", 45)
            with attributed_to(reason="or rather"):
                config.set_setting("timeout", 46)
        config.set_setting("timeout", 47)
        rows = ConfigChange.objects.order_by("pk").values_list("who", "who_key", "reason")
        key = str(user.pk)
        assert list(rows) == [("anna", key, "as agreed"), ("anna", key, "or rather"), ("", "", "")]

    def test_a_request_says(self) -> None:
        """Of what its view writes."""
        request = RequestFactory().get("/?timeout=45")
        request.user = UserFactory.create(username="anna")
        view = ConfigMiddleware(lambda request: config.set_settings(**request.GET.dict()))
        view(request)
        for nobody in ({}, {"user": AnonymousUser()}):
            request = RequestFactory().get(f"/?timeout={46 + len(nobody)}")
            vars(request).update(nobody)
            view(request)
        assert list(ConfigChange.objects.order_by("pk").values_list("who", flat=True)) == [
            "anna",
            "",
            "",
        ]

    @pytest.mark.django_db(transaction=True)
    def test_a_coroutine_says(self) -> None:
        """Though another thread writes for it."""

        async def write() -> None:
            with attributed_to(reason="later"):
                await config.aset_setting("timeout", 45)

        asyncio.run(write())
        assert ConfigChange.objects.get().reason == "later"

    def test_a_command_says(self) -> None:
        """That it was one, and which."""
        config.set_setting("timeout", 45)
        set_column("stored in plain")
        call_command("siteconfig", "rotate-keys", stdout=io.StringIO())
        assert [how for how, _ in recorded()] == ["code", "outside", "command"]
        assert ConfigChange.objects.latest("pk").reason == "rotate-keys"


class TestPastDjango:
    def test_the_next_writer_records_it_first(self) -> None:
        """And is not taken for who did it."""
        config.set_setting("timeout", 45)
        past_django(timeout=46, retry_count=5)
        config.set_setting("timeout", 47)
        assert recorded()[1:] == [
            ("outside", {"retry_count": {"new": 5}, "timeout": {"old": 45, "new": 46}}),
            ("code", {"timeout": {"old": 46, "new": 47}}),
        ]

    def test_is_recorded_once(self) -> None:
        """However many come by."""
        config.set_setting("timeout", 45)
        past_django(timeout=46)
        config.set_setting("retry_count", 4)
        config.set_setting("retry_count", 5)
        assert [how for how, _ in recorded()] == ["code", "outside", "code", "code"]

    def test_the_first_record_of_all_takes_the_row_as_it_is(self) -> None:
        """Nothing is known of what was before."""
        past_django(timeout=46)
        config.set_setting("retry_count", 4)
        assert recorded() == [("code", {"retry_count": {"old": 3, "new": 4}})]

    def test_another_sealed_text_is_a_change(self) -> None:
        """Whatever it says."""
        config.set_setting("api_key", "s3cret-number-one")
        set_column(sealed("s3cret-number-two"))
        config.set_setting("timeout", 45)
        assert recorded()[1] == ("outside", {"api_key": {}})

    def test_a_field_of_another_kind_is_no_change(self) -> None:
        """A new release has made a number of it."""
        config.set_setting("retry_count", 4)
        last = ConfigChange.objects.get()
        state = last.state | {"timeout": ["xx0123456789ab", None], "gone": ["yy01", last.pk]}
        models.QuerySet(ConfigChange).filter(pk=last.pk).update(state=state)
        config.set_setting("retry_count", 5)
        assert [how for how, _ in recorded()] == ["code", "code"]
        # What another release knows is passed on to it.
        assert ConfigChange.objects.latest("pk").state["gone"] == ["yy01", last.pk]

    def test_infinities_in_json_fail_no_write(self) -> None:
        """Which SQLite stores, and no JSON is."""
        config.set_settings(banner=1)
        if connection.vendor == "sqlite":
            past_django(extra='{"banner": 1e999}')
            config.set_setting("timeout", 45)
            assert recorded()[1] == (
                "outside",
                {"extra.banner": {"old": 1, "new": "Infinity"}},
            )

    @pytest.mark.django_db(transaction=True)
    def test_the_rows_end_is_recorded(self, settings: Any) -> None:
        """By the watcher, though there is nothing left to lock."""
        settings.SITECONFIG = {"POLL_INTERVAL": 0.02}
        config.set_setting("timeout", 45)
        with run_watcher():
            assert config.timeout == 45
            wait_until(lambda: any(one._held for one in subjects()))
            with connection.cursor() as cursor:
                cursor.execute("DELETE FROM siteconfig_siteconfiguration")
            wait_until(lambda: len(recorded()) == 2)
        assert recorded()[1] == ("outside", {"timeout": {"old": 45, "new": 30}})

    @pytest.mark.sqlite
    def test_a_value_that_no_field_reads(self) -> None:
        """Is on record as a change, without the value; and so is its repair."""
        config.set_setting("timeout", 45)
        past_django(timeout="soon")
        config.set_setting("timeout", 46)
        assert recorded()[1:] == [
            ("outside", {"timeout": {"old": 45}}),
            ("code", {"timeout": {"new": 46}}),
        ]

    @pytest.mark.sqlite
    def test_a_text_that_is_not_utf8(self) -> None:
        """Neither; also as the driver's error would show it."""
        config.set_settings(site_name="Shop", api_key="known")
        with connection.cursor() as cursor:
            for name in ("site_name", "api_key"):
                cursor.execute(f"UPDATE siteconfig_siteconfiguration SET {name} = {NOT_UTF8}")
        config.set_setting("timeout", 45)
        config.set_setting("site_name", "Shop")
        assert recorded()[1:] == [
            ("outside", {"api_key": {}, "site_name": {"old": "Shop"}}),
            ("code", {"timeout": {"old": 30, "new": 45}}),
            ("code", {"site_name": {"new": "Shop"}}),
        ]

    @pytest.mark.django_db(transaction=True)
    def test_a_watcher_records_it_when_it_notices(self, settings: Any) -> None:
        """With what was before, which it has in memory."""
        settings.SITECONFIG = {"POLL_INTERVAL": 0.02}
        with run_watcher():
            assert config.timeout == 30
            wait_until(lambda: any(one._held for one in subjects()))
            config.set_setting("site_name", "Shop")
            wait_until(lambda: any(one._held is config.snapshot() for one in subjects()))
            past_django(timeout=46)
            wait_until(lambda: config.timeout == 46)
            wait_until(lambda: len(recorded()) == 2)
            past_django(timeout=30)
            wait_until(lambda: len(recorded()) == 3)
        assert recorded()[1:] == [
            ("outside", {"timeout": {"old": 30, "new": 46}}),
            ("outside", {"timeout": {"old": 46, "new": 30}}),
        ]


class TestExplain:
    def test_tells_who_changed_it_last_and_when(self) -> None:
        """Of a field, and of one that is none."""
        user = UserFactory.create(username="anna")
        with attributed_to(user):
            config.set_settings(timeout=45, banner="Hello")
        config.set_setting("retry_count", 5)
        for name in ("TIMEOUT", "banner"):
            told = config.explain(name)
            assert (told.who, told.how) == ("anna", "code")
            assert told.when == ConfigChange.objects.order_by("pk")[0].at
        assert (config.explain("retry_count").who, config.explain("retry_count").how) == (
            None,
            "code",
        )
        assert config.explain("site_name").when is None

    @pytest.mark.django_db(transaction=True)
    def test_in_a_coroutine(self) -> None:
        """Where the ORM refuses."""
        with attributed_to(UserFactory.create(username="anna")):
            config.set_setting("timeout", 45)

        async def ask() -> Any:
            return config.explain("timeout")

        assert asyncio.run(ask()).who == "anna"


class TestAppendOnly:
    def test_records_are_neither_changed_nor_deleted(self) -> None:
        """By no way of the ORM."""
        config.set_setting("timeout", 45)
        change = ConfigChange.objects.get()
        change.who = "somebody else"
        for attempt in (
            change.save,
            change.delete,
            lambda: ConfigChange.objects.update(who="x"),
            ConfigChange.objects.all().delete,
            lambda: ConfigChange.objects.bulk_update([change], ["who"]),
            lambda: ConfigChange._base_manager.all().delete(),
            lambda: ConfigChange.objects.update_or_create({"who": "x"}, pk=change.pk),
            lambda: ConfigChange.objects.bulk_create(
                [change], update_conflicts=True, update_fields=["who"], unique_fields=["id"]
            ),
        ):
            with pytest.raises(AppendOnlyError):
                attempt()
        assert ConfigChange.objects.get().who == ""

    def test_a_fixture_replaces_none(self, tmp_path: Any) -> None:
        """It brings back what is gone, and what is there as it is."""
        config.set_setting("timeout", 45)
        dump = io.StringIO()
        call_command("dumpdata", "siteconfig.ConfigChange", stdout=dump)
        fixture = tmp_path / "changes.json"
        fixture.write_text(dump.getvalue())
        call_command("loaddata", str(fixture), verbosity=0)
        fixture.write_text(dump.getvalue().replace('"who": ""', '"who": "mallory"'))
        with pytest.raises(AppendOnlyError):
            call_command("loaddata", str(fixture), verbosity=0)
        assert ConfigChange.objects.get().who == ""


class TestGoingBack:
    def test_without_one_change(self) -> None:
        """What came after it stays."""
        config.set_settings(timeout=45, retry_count=5, banner="Hello")
        change = ConfigChange.objects.get()
        config.set_settings(retry_count=6, site_name="Shop")
        row = config.snapshot()
        proposal = history.without(change, row, SiteConfiguration)
        assert proposal == ({"timeout": 30, "retry_count": 3, "extra": {}}, [])

    def test_everything_as_after_one(self) -> None:
        """However often it has changed since."""
        config.set_settings(timeout=45, banner="Hello")
        change = ConfigChange.objects.get()
        config.set_settings(timeout=46, banner="Bye", retry_count=5)
        config.set_settings(timeout=47, api_key="s3cret-number-one")
        proposal = history.as_after(change, config.snapshot(), SiteConfiguration)
        values = {"timeout": 45, "retry_count": 3, "extra": {"banner": "Hello"}}
        assert proposal == (values, ["api_key"])

    def test_what_is_so_already_is_not_proposed(self) -> None:
        """There is nothing to do."""
        config.set_setting("timeout", 45)
        change = ConfigChange.objects.get()
        config.set_setting("timeout", 30)
        assert history.without(change, config.snapshot(), SiteConfiguration).values == {}
