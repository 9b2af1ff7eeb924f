"""A config model with a setting of every kind of field."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone
from PIL import Image

from siteconfig import ConfigManager, history
from siteconfig.exceptions import UnknownSettingError
from siteconfig.testing import override_config
from tests.factories import AdminFactory
from tests.keys import NOT_UTF8, set_column
from tests.test_admin import browser, filled_in
from tests.testapp.models import EveryKind, Note, ShopConfig, Warehouse

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_django import DjangoAssertNumQueries

URL = "/admin/testapp/everykind/"

pytestmark = pytest.mark.django_db

#: Other values than the defaults, as the form is given them and as they are read.
GIVEN: dict[str, tuple[Any, Any]] = {
    "line": ("Zeile ‏ü", "Zeile ‏ü"),
    "text": ("a\r\n\tb", "a\r\n\tb"),
    "slug": ("other-slug", "other-slug"),
    "email": ("b@example.org", "b@example.org"),
    "url": ("http://example.org/x?y=1", "http://example.org/x?y=1"),
    "color": ("blue", "blue"),
    "size": ("2", 2),
    "small": ("-32768", -32768),
    "integer": ("2147483647", 2147483647),
    "big": ("-9223372036854775808", -(2**63)),
    "positive_small": ("32767", 32767),
    "positive": ("2147483647", 2147483647),
    "positive_big": ("9223372036854775807", 2**63 - 1),
    "maybe_integer": ("7", 7),
    "number": ("1e-300", 1e-300),
    "decimal": ("12345678901.2345", Decimal("12345678901.2345")),
    "flag": ("on", True),
    "maybe_flag": ("false", False),
    "date": ("0001-01-01", datetime.date(1, 1, 1)),
    "time": ("23:59:59.999", datetime.time(23, 59, 59, 999000)),
    "moment": ("2000-01-01 00:00:01", datetime.datetime(2000, 1, 1, 0, 0, 1, tzinfo=datetime.UTC)),
    "duration": ("-1 00:00:01", datetime.timedelta(days=-1, seconds=1)),
    "data": ('{"a": [null, "ü", 1.0]}', {"a": [None, "ü", 1.0]}),
    "maybe_data": ('"text"', "text"),
    "address": ("2001:DB8:0::1", "2001:db8::1"),
    "uuid": ("00000000-0000-0000-0000-000000000001", uuid.UUID(int=1)),
}


@pytest.fixture
def kinds() -> ConfigManager:
    """The manager of the model."""
    return ConfigManager(EveryKind)


@pytest.fixture
def page() -> Client:
    """A browser of somebody who may change the settings."""
    return browser(AdminFactory())


def form_data(page: Client, at: str = URL, **changes: Any) -> dict[str, Any]:
    """The form as it is shown, with some changes; a moment is given as day and time of day."""
    data = filled_in(page, at)
    moment = data.pop("moment")
    data |= {"moment_0": f"{moment:%Y-%m-%d}", "moment_1": f"{moment:%H:%M:%S}"}
    for name in ("document", "image"):
        data.pop(name, None)
    if "moment" in changes:
        changes["moment_0"], _, changes["moment_1"] = changes.pop("moment").partition(" ")
    return {**data, **changes}


def png(width: int = 1) -> SimpleUploadedFile:
    """An image."""
    content = BytesIO()
    Image.new("RGB", (width, 1)).save(content, "PNG")
    return SimpleUploadedFile("image.png", content.getvalue(), "image/png")


class TestEveryKind:
    def test_the_page_takes_another_value_of_each(self, page: Client, kinds: ConfigManager) -> None:
        """Through the real form, and read back."""
        changes = {name: given for name, (given, _read) in GIVEN.items()}
        response = page.post(URL, form_data(page, **changes))
        assert response.status_code == 302, response.context["adminform"].form.errors
        kinds.reset()
        read = {name: kinds.settings[name] for name in GIVEN}
        assert read == {name: read for name, (_given, read) in GIVEN.items()}

    def test_saving_the_page_as_it_is_changes_nothing(
        self, page: Client, kinds: ConfigManager
    ) -> None:
        """Every default comes back from its input as it was."""
        before = dict(kinds.settings)
        assert page.post(URL, form_data(page)).status_code == 302
        kinds.reset()
        assert dict(kinds.settings) == before

    def test_the_manager_takes_what_it_gives(self, kinds: ConfigManager) -> None:
        """Every value that was read can be set."""
        values = {name: read for name, (_given, read) in GIVEN.items()}
        values["blob"] = b"\x00\x01"
        kinds.set_settings(**values)
        kinds.reset()
        assert {name: kinds.settings[name] for name in values} == values

    def test_the_history_has_each_and_brings_it_back(
        self, page: Client, kinds: ConfigManager
    ) -> None:
        """Files and objects too; and nothing of it seems to have been changed past Django."""
        warehouse, note = Warehouse.objects.create(name="North"), Note.objects.create(text="a")
        kinds.set_settings(document="old.txt", blob=b"\x00", warehouse=warehouse)
        before = dict(kinds.settings)
        changes: dict[str, Any] = {name: given for name, (given, _read) in GIVEN.items()}
        changes |= {"note": str(note.pk), "warehouse": "", "image": png()}
        changes |= {"document": SimpleUploadedFile("new.txt", b"new")}
        assert page.post(URL, form_data(page, **changes)).status_code == 302
        after = dict(kinds.settings)
        assert [name for name in before if before[name] == after[name]] == ["extra", "blob"]
        kinds.set_setting("blob", b"\x01")
        change = history.changes_of(EveryKind)[1]
        assert set(change.changes) == {name for name in before if name not in {"extra", "blob"}}
        url = f"{URL}?_undo={change.pk}"
        undone = {**form_data(page, at=url), "_undo": str(change.pk)}
        response = page.post(URL, undone)
        assert response.status_code == 302, response.context["adminform"].form.errors
        assert dict(kinds.settings) == before | {"blob": b"\x01"}
        assert {one.how for one in history.changes_of(EveryKind)} == {"admin", "code"}
        assert default_storage.exists(after["document"])

    def test_the_page_resets_each(self, page: Client, kinds: ConfigManager) -> None:
        """Files and objects too, and also where nothing is sent of the field."""
        defaults = dict(kinds.settings)
        kinds.set_settings(**{name: read for name, (_given, read) in GIVEN.items()})
        kinds.set_settings(document="old.txt", image="old.png")
        kinds.set_settings(warehouse=Warehouse.objects.create(name="North"))
        names = [*GIVEN, "document", "image", "warehouse"]
        data = form_data(page) | {f"_reset-{name}": "on" for name in names}
        del data["line"], data["data"]
        response = page.post(URL, data)
        assert response.status_code == 302, response.context["adminform"].form.errors
        assert dict(kinds.settings) == defaults

    def test_a_fixture_carries_all_of_it(self, kinds: ConfigManager, tmp_path: Path) -> None:
        """dumpdata and loaddata."""
        values = {name: read for name, (_given, read) in GIVEN.items()}
        warehouse = Warehouse.objects.create(name="North")
        kinds.set_settings(**values, blob=b"\x00\x01", warehouse=warehouse, document="a.txt")
        before = dict(kinds.settings)
        fixture = tmp_path / "kinds.json"
        call_command("dumpdata", "testapp.EveryKind", output=str(fixture), stdout=StringIO())
        EveryKind.objects.all().delete()
        assert kinds.line == "line"
        call_command("loaddata", str(fixture), verbosity=0)
        assert dict(kinds.settings) == before

    def test_an_instance_is_loaded_and_saved(self, kinds: ConfigManager) -> None:
        """By the ORM, with only what was changed."""
        row = EveryKind.objects.get()
        assert row._changed_fields() == {"version"}
        row.blob, row.line = b"\x07", "other"
        row.save()
        assert (kinds.blob, kinds.line) == (b"\x07", "other")
        assert EveryKind.objects.get()._changed_fields() == {"version"}

    @pytest.mark.parametrize(
        "value", [b"x", bytearray(b"x"), memoryview(b"x"), "eA=="], ids=range(4)
    )
    def test_bytes_may_be_given_in_any_form(self, kinds: ConfigManager, value: Any) -> None:
        """A text is base64, as in a fixture."""
        kinds.set_setting("blob", value)
        assert kinds.blob == b"x"
        row = EveryKind.objects.get()
        row.blob = value if isinstance(value, bytes) else memoryview(b"x")
        assert row._changed_fields() == {"version"}

    def test_a_moment_without_zone_is_of_the_current_one(self, kinds: ConfigManager) -> None:
        """As in the form."""
        noon = datetime.datetime(2024, 7, 1, 10, tzinfo=datetime.UTC)
        midnight = datetime.datetime(2024, 6, 30, 22, tzinfo=datetime.UTC)
        naive = datetime.datetime(2024, 7, 1, 12)  # noqa: DTZ001 - on purpose
        with timezone.override("Europe/Berlin"):
            for given, read in (
                ("2024-07-01 12:00", noon),
                (naive, noon),
                (datetime.date(2024, 7, 1), midnight),
            ):
                kinds.set_setting("moment", given)
                assert kinds.moment == read
            with pytest.raises(ValidationError):
                kinds.set_setting("moment", "2024-03-31 02:30")  # the clock skips it

    def test_a_moment_at_a_change_of_the_clock_comes_back(self, kinds: ConfigManager) -> None:
        """As the same instant, of the two or none that there are by that clock."""
        adak = ZoneInfo("America/Adak")
        for moment in (
            datetime.datetime(2016, 3, 13, 2, 0, tzinfo=adak),
            datetime.datetime(2016, 11, 6, 1, 30, tzinfo=adak),
            datetime.datetime(2016, 11, 6, 1, 30, tzinfo=adak, fold=1),
        ):
            kinds.set_setting("moment", moment)
            assert kinds.moment.timestamp() == moment.timestamp()

    def test_without_time_zones_a_moment_has_none(
        self, kinds: ConfigManager, settings: Any
    ) -> None:
        """SQLite would not store it."""
        settings.USE_TZ = False
        with pytest.raises(ValidationError):
            kinds.set_setting("moment", datetime.datetime(2024, 7, 1, tzinfo=datetime.UTC))


@pytest.mark.sqlite
class TestUnreadable:
    @pytest.mark.parametrize(
        ("column", "stored"),
        [
            *[(name, NOT_UTF8) for name in ("line", "integer", "number", "date", "time", "blob")],
            ("date", "'2024-13-45'"),
            ("moment", "'2024-01-01 25:00:00'"),
        ],
    )
    def test_what_sqlites_driver_cannot_read_spoils_itself_only(
        self, kinds: ConfigManager, column: str, stored: str
    ) -> None:
        """Of some kinds the driver makes the values, so that its error comes with the whole row."""
        before = dict(kinds.settings)
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE testapp_everykind SET {column} = {stored}, small = 7")
        kinds.reload()
        assert dict(kinds.settings) == before | {"small": 7}
        assert kinds.status().unreadable == (column,)
        assert kinds.status().last_error is None

    def test_which_columns_they_are_is_found_out_once(self, kinds: ConfigManager) -> None:
        """A row that stays as it is costs one query a look; one that is mended is read."""
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE testapp_everykind SET line = {NOT_UTF8}")
        reader, queries = EveryKind.reader(connection), []

        def noted(execute: Any, sql: str, *args: Any) -> Any:
            queries.append(sql)
            return execute(sql, *args)

        first = reader.stored()
        with connection.execute_wrapper(noted):
            assert [reader.stored() for _ in range(3)] == [first] * 3
        assert len(queries) == 3
        set_column("mended", "line", "testapp_everykind")
        assert reader.snapshot(reader.stored()).line == "mended"


class TestFiles:
    def test_a_new_upload_replaces_the_name_and_leaves_the_old_file(
        self, page: Client, kinds: ConfigManager
    ) -> None:
        """A restored backup may want it back."""
        first = SimpleUploadedFile("a.txt", b"first")
        assert page.post(URL, form_data(page, document=first, image=png())).status_code == 302
        name = kinds.document
        assert default_storage.open(name).read() == b"first"
        assert kinds.image.endswith(".png")
        second = SimpleUploadedFile("b.txt", b"second")
        assert page.post(URL, form_data(page, document=second)).status_code == 302
        assert default_storage.open(kinds.document).read() == b"second"
        assert default_storage.exists(name)

    def test_an_upload_of_the_same_name_is_stored(self, page: Client, kinds: ConfigManager) -> None:
        """Though the name seems to say that nothing has changed."""
        for content in (b"first", b"second", b"third"):
            name = kinds.document or "c.txt"
            upload = SimpleUploadedFile(name, content)
            assert page.post(URL, form_data(page, document=upload)).status_code == 302
            assert default_storage.open(kinds.document).read() == content
        kinds.set_setting("document", SimpleUploadedFile(kinds.document, b"fourth"))
        assert default_storage.open(kinds.document).read() == b"fourth"

    @pytest.mark.parametrize(
        "name",
        ["a\0b.txt", "a\u202etxt.exe", "../../etc/passwd", "x" * 300 + ".txt", "..", "ü\n.txt"],
        ids=ascii,
    )
    def test_a_bad_name_is_an_error_or_made_a_good_one(
        self, page: Client, kinds: ConfigManager, name: str
    ) -> None:
        """Never one outside of the storage, nor a crash."""
        upload = SimpleUploadedFile("good.txt", b"content")
        upload._name = name  # type: ignore[attr-defined] # as a browser may send it
        response = page.post(URL, form_data(page, document=upload))
        if response.status_code == 302:
            kinds.reset()
            assert "/" not in kinds.document
            assert "\u202e" not in kinds.document
        else:
            assert set(response.context["adminform"].form.errors) == {"document"}
            assert kinds.document == ""

    def test_other_settings_are_saved_beside_an_upload_that_waits(self) -> None:
        """It is stored with the save that is of it."""
        row = EveryKind.objects.get()
        row.document = SimpleUploadedFile("d.txt", b"waits")
        row.save(update_fields=["line"])
        row.save()
        assert default_storage.open(ConfigManager(EveryKind).document).read() == b"waits"

    def test_the_box_clears_it(self, page: Client, kinds: ConfigManager) -> None:
        """The setting is then empty."""
        page.post(URL, form_data(page, document=SimpleUploadedFile("e.txt", b"x")))
        assert kinds.document
        page.post(URL, form_data(page, **{"document-clear": "on"}))
        assert kinds.document == ""


class TestForeignKey:
    def test_the_id_costs_nothing_and_the_object_one_query(
        self, kinds: ConfigManager, django_assert_num_queries: DjangoAssertNumQueries
    ) -> None:
        """On the manager and on a snapshot."""
        warehouse = Warehouse.objects.create(name="North")
        kinds.set_setting("warehouse", warehouse)
        kinds.reload()
        snapshot = kinds.snapshot()
        with django_assert_num_queries(0):
            assert kinds.warehouse_id == snapshot.warehouse_id == warehouse.pk
        for one in (kinds, snapshot):
            with django_assert_num_queries(1):
                assert one.warehouse == warehouse

    def test_the_object_is_that_of_the_id(self, kinds: ConfigManager) -> None:
        """Never one that was read before; a snapshot keeps its own."""
        first, second = (Warehouse.objects.create(name=name) for name in ("first", "second"))
        kinds.set_setting("warehouse", first)
        assert kinds.warehouse == first
        before = kinds.snapshot()
        kinds.set_setting("warehouse_id", second.pk)
        assert kinds.warehouse == second
        assert before.warehouse == first
        Warehouse.objects.filter(pk=second.pk).update(name="renamed")
        assert kinds.warehouse.name == "renamed"
        for override in ({"warehouse_id": first.pk}, {"warehouse": first}):
            with override_config(EveryKind, **override):
                assert (kinds.warehouse, kinds.warehouse_id) == (first, first.pk)
        second.delete()
        assert (kinds.warehouse, kinds.warehouse_id) == (None, None)

    def test_nothing_is_nothing(self, kinds: ConfigManager) -> None:
        """No query is needed for it, and other names stay unknown."""
        assert kinds.warehouse is None
        assert kinds.note is None
        for name in ("groups", "config_ptr", "pk", "id"):
            with pytest.raises(UnknownSettingError):
                getattr(kinds, name)

    def test_only_a_saved_object_of_its_model_is_taken(self, kinds: ConfigManager) -> None:
        """A key of another table would point to something else."""
        warehouse = Warehouse.objects.create(name="North")
        note = Note.objects.create(text="n")
        for name, value in (("warehouse", note), ("warehouse", Warehouse()), ("integer", note)):
            with pytest.raises(ValidationError):
                kinds.set_setting(name, value)
        kinds.set_setting("warehouse", warehouse)
        assert kinds.warehouse == warehouse

    def test_works_where_it_is_of_another_model(self) -> None:
        """And by its object or key in the form."""
        shop = ConfigManager(ShopConfig)
        warehouse = Warehouse.objects.create(name="North")
        shop.set_setting("warehouse", warehouse.pk)
        assert shop.warehouse == warehouse
