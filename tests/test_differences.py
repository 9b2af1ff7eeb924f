"""What has changed, as people read it: whatever was recorded, and in bounded time."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import translation
from django.utils.translation import gettext_lazy

from siteconfig import ConfigManager, config, history
from siteconfig.differences import Difference, differences, differences_of_each, shown
from siteconfig.history import changes_of
from siteconfig.models import ConfigChange, SiteConfiguration
from siteconfig.storable import DEEPEST
from tests.factories import AdminFactory
from tests.test_admin import browser
from tests.test_page import HISTORY, opened, said, save
from tests.testapp.models import EveryKind, Note, ShopConfig, Warehouse

MEGABYTE = 1024 * 1024


def difference(name: str, old: Any, new: Any, model: Any = EveryKind) -> Difference:
    (found,) = differences(model, {name: {"old": old, "new": new}})
    return found


def marked(old: str, new: str) -> list[str]:
    """The lines of the difference between two texts, each after its mark."""
    signs = {"same": " ", "removed": "-", "added": "+", "left out": "~"}
    return [signs[line.mark] + line.text for line in difference("text", old, new).lines]


def numbered(count: int, **others: str) -> str:
    """A text of ``count`` lines, of which those called ``line1``, ``line2`` … are ``others``."""
    return "\n".join(others.get(f"line{at}", f"line {at}") for at in range(1, count + 1))


def nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


class TestLines:
    def test_what_differs_and_what_is_around_it(self) -> None:
        """With a note of what is left out."""
        old, new = numbered(20), numbered(20, line10="ten")
        assert marked(old, new) == [
            "~… (6 lines)",
            " line 7",
            " line 8",
            " line 9",
            "-line 10",
            "+ten",
            " line 11",
            " line 12",
            " line 13",
            "~… (7 lines)",
        ]

    def test_of_two_places(self) -> None:
        """All between them is shown if it is short."""
        old = numbered(20)
        near = numbered(20, line1="one", line9="nine")
        assert [line for line in marked(old, near) if line[0] == "~"] == ["~… (8 lines)"]
        far = numbered(20, line1="one", line20="twenty")
        assert marked(old, far)[5:6] == ["~… (12 lines)"]
        assert marked(old, far)[-2:] == ["-line 20", "+twenty"]

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            ("", "a\nb", ["-", "+a", "+b"]),
            ("a\nb", "a\nb\n", [" a", " b", "+"]),
            ("a\nb\nc", "a\nc", [" a", "-b", " c"]),
            ("a\nb\nc\nd", "b\nx\nd\ne", ["-a", " b", "-c", "+x", " d", "+e"]),
            ("a\na", "a\na\na", [" a", " a", "+a"]),
        ],
    )
    def test_keeps_what_can_be_kept(self, old: str, new: str, expected: list[str]) -> None:
        """And the end of the last line counts."""
        assert marked(old, new) == expected

    def test_of_many_lines(self) -> None:
        """Those of a block are not all shown."""
        lines = marked(numbered(1000), "\n".join("xyz" for _ in range(2000)))
        assert lines[:2] == ["-line 1", "-line 2"]
        assert lines[90:92] == ["~… (910 lines)", "+xyz"]
        assert lines[-1] == "~… (1,910 lines)"

    def test_ends_with_how_many_more_there_are(self) -> None:
        """Where even the shortened ones are many."""
        old = numbered(140)
        lines = marked(old, "\n".join(f"{line}\nx" for line in old.split("\n")))
        assert len(lines) == 201
        assert lines[-1] == "~… (80 lines)"

    def test_a_long_line_is_clipped(self) -> None:
        """It would else be as long as the value."""
        assert marked("a\n" + "b" * 5000, "a")[1] == "-" + "b" * 300 + "… (5,000 characters)"


class TestLongValues:
    def test_are_clipped(self) -> None:
        """And their size is told."""
        found = difference("text", "a", "b" * 12_345)
        assert found.new == "b" * 2000 + "… (12,345 characters)"
        assert found.old == "a"

    def test_are_shown_from_where_they_differ(self) -> None:
        """Their beginnings may be the same."""
        found = difference("text", "a" * 9000 + "b", "a" * 9000 + "c")
        assert found.old == "…" + "a" * 100 + "b… (9,001 characters)"
        assert found.new == "…" + "a" * 100 + "c… (9,001 characters)"

    def test_a_summary_is_short_and_compares_nothing(self, monkeypatch: Any) -> None:
        """It is made while somebody waits for the answer to a save."""
        monkeypatch.setattr("siteconfig.differences._lines", None)
        found = difference("text", numbered(9), numbered(MEGABYTE // 10))
        assert found.summary == (
            "Text line 1 line 2 line 3 line 4 line 5 line … → "
            "line 1 line 2 line 3 line 4 line 5 line …"
        )
        assert difference("text", "a" * 40, "").summary == f"Text {'a' * 40} → empty"

    def test_of_a_name(self) -> None:
        """A setting that is no field may be called anything."""
        name = "extra." + "n" * 1000
        found = difference(name, 1, 2, SiteConfiguration)
        assert found.label == "n" * 255 + "… (1,000 characters)"

    def test_half_a_surrogate_pair_can_be_shown(self) -> None:
        """Which no page can hold; it was written past Django."""
        assert difference("data", "\ud800", "").old == '"\\ud800"'
        assert difference("text", "\ud800\na", "").lines[0].text == "\\ud800"


def unlike_lines(size: int) -> tuple[str, str]:
    """A megabyte each, and no two alike."""
    numbers = [str(at).zfill(size - 2) for at in range(MEGABYTE // size)]
    return "a\n".join(numbers), "b\n".join(numbers)


def repeated_lines() -> tuple[str, str]:
    """The worst case of difflib."""
    return "\n".join(["x"] * 299 + ["z"]), "\n".join("yx"[at % 2] for at in range(300))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        pytest.param("text", *unlike_lines(61), id="lines"),
        pytest.param("text", *unlike_lines(8), id="short lines"),
        pytest.param("text", "\n" * MEGABYTE, "\n" * (MEGABYTE - 1) + "a", id="empty lines"),
        pytest.param("text", *repeated_lines(), id="repeated lines"),
        pytest.param("text", "a" * MEGABYTE, "a" * MEGABYTE + "b", id="one line"),
        pytest.param("data", [0] * 349_000, [1] * 349_000, id="JSON"),
        pytest.param("data", nested([0] * 6000, DEEPEST), nested([1] * 6000, DEEPEST), id="deep"),
        pytest.param("data", "a\n" * 500_000, "b\n" * 500_000, id="JSON text"),
    ],
)
def test_takes_bounded_time(name: str, old: Any, new: Any) -> None:
    """However large the values are, and however little they have in common."""
    started = time.process_time()
    found = difference(name, old, new)
    shown = [found.summary, found.old, found.new, *(line.text for line in found.lines)]
    assert time.process_time() - started < 0.5
    assert sum(len(text or "") for text in shown) < 100_000


class TestOfAnotherType:
    @pytest.mark.parametrize(
        ("name", "recorded", "text"),
        [
            ("color", ["red", "blue"], '[\n  "red",\n  "blue"\n]'),
            ("size", {"a": 1}, '{\n  "a": 1\n}'),
            ("size", "large", "large"),
            ("line", {"é": None}, '{\n  "é": null\n}'),
            ("integer", "many", "many"),
            ("date", 17, "17"),
            ("moment", [], "[]"),
            ("moment", "yesterday", "yesterday"),
            ("data", nested(0, 9_000), "…"),
            ("gone", nested(0, 9_000), "…"),
            ("line", nested(0, 9_000), "…"),
        ],
    )
    def test_is_shown_as_recorded(self, name: str, recorded: Any, text: str) -> None:
        """The type of a field may change, and what is recorded does not."""
        assert difference(name, recorded, None).old == text

    def test_the_fields_own_code_may_fail(self, monkeypatch: Any) -> None:
        """It was not written for old values."""
        field: Any = EveryKind.setting_fields()["line"]
        monkeypatch.setattr(type(field), "flatchoices", property(lambda self: 1 / 0))
        assert shown(field, "red") == "red"


@pytest.mark.django_db
class TestObjects:
    def test_that_is_gone(self) -> None:
        """Its key is all that is left."""
        assert difference("warehouse_id", 7, None).old == "7"

    @pytest.mark.parametrize("key", ["8c5d7a10-0000-4000-8000-000000000000", [], {}, "x\0", 2**70])
    def test_of_another_type(self, key: Any) -> None:
        """Such as a UUID, where keys are integers now."""
        found = difference("warehouse_id", key, None).old
        assert found == (key if isinstance(key, str) else json.dumps(key))
        assert list(Warehouse.objects.all()) == []  # the transaction has not failed

    def test_that_cannot_be_said(self, monkeypatch: Any) -> None:
        """Which is the project's own code."""
        key = Warehouse.objects.create(name="Harbour").pk
        monkeypatch.setattr(Warehouse, "__str__", lambda self: 1 / 0)
        assert difference("warehouse_id", key, None).old == str(key)

    def test_of_a_whole_page_by_one_query_for_each_field(self) -> None:
        """Whatever else is among the keys. And one that cannot be asked for is asked for once."""
        EveryKind.objects.get_or_create(pk=1)
        for at in range(6):
            EveryKind.objects.update(
                warehouse=Warehouse.objects.create(name=f"Hall {at}"),
                note=Note.objects.create(text=f"Note {at}"),
            )
        changes = [one.changes for one in changes_of(EveryKind)]
        changes.append({"warehouse_id": {"old": "x", "new": 2**70}})
        with CaptureQueriesContext(connection) as captured:
            found = differences_of_each(EveryKind, changes)
            texts = [(one.old, one.new) for record in found for one in record]
        assert ("Hall 3", "Hall 4") in texts
        assert texts[-1] == ("x", str(2**70))
        assert len([one for one in captured if one["sql"].startswith("SELECT")]) == 2

    def test_where_the_table_is_missing(self, monkeypatch: Any) -> None:
        """The transaction goes on, and each field is tried once."""
        list(Warehouse.objects.all())  # Django keeps the columns that are first asked for
        monkeypatch.setattr(Warehouse._meta, "db_table", "missing")
        changes = [{"warehouse_id": {"old": 1, "new": 2}}, {"warehouse_id": {"old": 2, "new": 3}}]
        with CaptureQueriesContext(connection) as captured:
            found = differences_of_each(EveryKind, changes)
            assert [one.summary for (one,) in found] == ["Warehouse 1 → 2", "Warehouse 2 → 3"]
        assert len([one for one in captured if one["sql"].startswith("SELECT")]) <= 1
        assert Note.objects.count() == 0


class OnOther:
    """The settings live in the database called other, and of their objects nothing is said."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "other" if model is EveryKind else None


@pytest.mark.django_db(databases=["default", "other"])
def test_objects_are_looked_for_where_the_settings_are(settings: Any) -> None:
    """As Django itself does."""
    settings.DATABASE_ROUTERS = ["tests.test_differences.OnOther"]
    Warehouse.objects.create(pk=1, name="Wrong")
    Warehouse.objects.using("other").create(pk=1, name="Right")
    assert difference("warehouse_id", 1, None).old == "Right"
    assert shown(EveryKind.setting_fields()["warehouse_id"], 1) == "Right"


@pytest.mark.django_db
class TestHistoryPage:
    def test_is_of_few_queries(self, django_assert_max_num_queries: Any) -> None:
        """Of twenty changes of a foreign key: session, user, records, newest and objects."""
        for at in range(20):
            hall = Warehouse.objects.create(name=f"Hall {at}")
            ConfigManager(ShopConfig).set_setting("warehouse_id", hall.pk)
        client = browser(AdminFactory.create())
        url = reverse("admin:testapp_shopconfig_history")
        client.get(url)
        with django_assert_max_num_queries(7):  # two for a savepoint
            page = client.get(url).content.decode()
        assert "<del>Hall 3</del>" in page
        assert "<ins>Hall 4</ins>" in page

    @pytest.mark.parametrize(
        "query",
        [
            "before=²",
            "before=१",
            "before=-1",
            "before=" + "9" * 19,
            "before=" + "9" * 5000,
            "setting=" + "x" * 256,
            "setting=time%0Aout",
        ],
    )
    def test_nonsense_is_as_if_nothing_was_asked(self, query: str) -> None:
        """Everything is shown, and said to be."""
        config.set_setting("timeout", 45)
        response = browser(AdminFactory.create()).get(f"{HISTORY}?{query}")
        assert response.status_code == 200
        page = response.content.decode()
        assert "<ins>45</ins>" in page
        assert "Only changes of" not in page

    @pytest.mark.parametrize("query", ["before=0", "setting=" + "x" * 255, "setting=%22%5D.$'"])
    def test_what_there_is_not(self, query: str) -> None:
        """Can be asked for, whatever is in the name."""
        config.set_setting("timeout", 45)
        response = browser(AdminFactory.create()).get(f"{HISTORY}?{query}")
        assert response.status_code == 200
        assert "No change has been recorded yet." in response.content.decode()

    def test_reads_no_more_than_it_shows(self) -> None:
        """A record also has what all settings were then."""
        config.set_setting("timeout", 45)
        client = browser(AdminFactory.create())
        with CaptureQueriesContext(connection) as captured:
            client.get(HISTORY)
        asked = [one["sql"] for one in captured if "siteconfig_configchange" in one["sql"]]
        assert len(asked) == 2
        assert not any('"state"' in sql for sql in asked)

    def test_of_one_change_of_many_settings(self) -> None:
        """Each is a row of a table; settings that are no fields may be tens of thousands."""
        config.set_settings(extra={f"name{at:03}": at for at in range(103)})
        page = browser(AdminFactory.create()).get(HISTORY).content.decode()
        assert "name099" in page
        assert "name100" not in page
        assert "and 3 more settings" in page

    def test_before_migrate(self, monkeypatch: Any) -> None:
        """Nothing is recorded, which is no error."""
        monkeypatch.setattr(connection.introspection, "table_names", lambda: [])
        monkeypatch.setattr(history, "_have_table", set())
        page = browser(AdminFactory.create()).get(HISTORY)
        assert page.status_code == 200
        assert "No change has been recorded yet." in page.content.decode()

    def test_where_it_was_turned_off(self, settings: Any) -> None:
        """What was recorded before is still there."""
        config.set_setting("timeout", 45)
        settings.SITECONFIG = {**settings.SITECONFIG, "HISTORY": False}
        config.set_setting("timeout", 60)
        page = browser(AdminFactory.create()).get(HISTORY).content.decode()
        assert re.findall(r"<ins>(\d+)</ins>", page) == ["45"]


@pytest.mark.django_db
class TestReason:
    def given(self, reason: str) -> str:
        """What is recorded of it."""
        client = browser(AdminFactory.create())
        save(client, opened(client), timeout="45", _reason=reason)
        return ConfigChange.objects.get().reason

    def test_is_one_line_without_control_characters(self) -> None:
        """Nor with those that turn its direction: it is shown to others."""
        assert self.given(" as\x1b[31m agreed\x00\nby\u202eall\t ") == "as[31m agreed by all"

    def test_is_no_longer_than_the_page_allows(self) -> None:
        """Whoever sends it."""
        assert self.given("x" * 100_000) == "x" * 500


@pytest.mark.django_db
def test_the_admins_log_is_in_no_language(monkeypatch: Any) -> None:
    """Django translates it for each reader; the message is for the editor alone."""
    field = SiteConfiguration.setting_fields()["timeout"]
    monkeypatch.setattr(field, "verbose_name", gettext_lazy("username"))
    client = browser(AdminFactory.create())
    data = opened(client)
    with translation.override("de"):
        response = save(client, data, timeout="45")
        assert "Benutzername 30 → 45" in said(response)[0]
    assert LogEntry.objects.get().change_message == '[{"changed": {"fields": ["Username"]}}]'
