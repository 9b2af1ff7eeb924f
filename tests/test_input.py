"""Bad input: an error at its field, or saved and read back as it was; the same on every database.

Environment: ``SITECONFIG_TEST_EXAMPLES``, how many made-up inputs are tried for each kind of field.
"""

from __future__ import annotations

import datetime
import json
import math
import os
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db import connection, models, transaction
from django.test import Client, RequestFactory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.provisional import urls

from siteconfig import ConfigManager, storable
from siteconfig.models import converted
from siteconfig.snapshot import freeze
from tests.concurrency import in_thread
from tests.factories import AdminFactory
from tests.test_kinds import GIVEN, URL, form_data
from tests.testapp.models import EveryKind, Note, Warehouse

EXAMPLES = int(os.environ.get("SITECONFIG_TEST_EXAMPLES", "20"))

pytestmark = [pytest.mark.django_db, pytest.mark.long]

TEXTS = ("line", "text", "slug", "email", "url", "color", "address", "uuid")
INTEGERS = ("size", "small", "integer", "big", "positive_small", "positive", "positive_big")
NUMBERS = (*INTEGERS, "maybe_integer", "number", "decimal")
TIMES = ("date", "time", "moment", "duration")
JSONS = ("data", "maybe_data")
KEYS = ("warehouse", "note")

TWO_MB = 2_000_000


def refused_inputs() -> dict[str, tuple[str, str]]:
    """A name for each, the setting, and what the form is given."""
    return {
        **{f"NUL in {name}": (name, "a\0b") for name in (*TEXTS, *NUMBERS, *TIMES, *KEYS)},
        **{f"2 MB in {name}": (name, "1" * TWO_MB) for name in (*TEXTS, *NUMBERS, *TIMES, *KEYS)},
        **{f"2 MB in {name}": (name, json.dumps("x" * TWO_MB)) for name in JSONS},
        **{f"full-width digits in {name}": (name, "\uff11\uff12") for name in (*NUMBERS, *KEYS)},
        **{f"Arabic digits in {name}": (name, "٣") for name in (*NUMBERS, *KEYS)},
        **{f"underscore in {name}": (name, "1_0") for name in (*NUMBERS, *KEYS)},
        **{f"5,000 digits in {name}": (name, "9" * 5000) for name in (*NUMBERS, *TIMES, *KEYS)},
        **{f"NaN in {name}": (name, "NaN") for name in (*NUMBERS, *TIMES, *JSONS)},
        **{f"1e400 in {name}": (name, "1e400") for name in (*NUMBERS, *JSONS)},
        **{f"exponent in {name}": (name, "1e1000000") for name in (*NUMBERS, *JSONS)},
        **{f"levels in {name}": (name, "[" * 100_000 + "]" * 100_000) for name in JSONS},
        **{f"objects in {name}": (name, '{"a":' * 100_000 + "1" + "}" * 100_000) for name in JSONS},
        **{f"1,500 levels in {name}": (name, "[" * 1500 + "]" * 1500) for name in JSONS},
        **{f"101 levels in {name}": (name, "[" * 102 + "]" * 102) for name in JSONS},
        **{f"5,000 digits in {name}": (name, "[" + "9" * 5000 + "]") for name in JSONS},
        **{f"half a pair in {name}": (name, '["\\ud800"]') for name in JSONS},
        **{f"nested NUL in {name}": (name, '[{"a": "\\u0000"}]') for name in JSONS},
        **{f"NUL in a name of {name}": (name, '{"\\u0000": 1}') for name in JSONS},
        **{f"a float like an integer in {name}": (name, "[1e23]") for name in JSONS},
        **{f"escape in {name}": (name, "a\x1bb") for name in ("line", "text")},
        **{f"C1 in {name}": (name, "a\x9bb") for name in ("line", "text")},
        **{f"direction in {name}": (name, "a\u202eb") for name in ("line", "slug", "email")},
        **{f"line in {name}": (name, "a\nb") for name in ("line", "slug")},
        **{f"nothing in {name}": (name, "") for name in ("data", "small", "number", "date")},
        "null": ("data", "null"),
        "line of Unicode": ("line", "a\u2028b"),
        "newline in a URL": ("url", "https://example\n.com/"),
        "full-width digits in a date": ("date", "\uff12\uff10\uff12\uff14-01-01"),
        "full-width digits in a UUID": ("uuid", "\uff112345678123456781234567812345678"),
        "underscore in a UUID": ("uuid", "1_345678123456781234567812345678"),
        "too large for PostgreSQL": ("integer", "2147483648"),
        "too small for PostgreSQL": ("integer", "-2147483649"),
        "too large, small": ("small", "32768"),
        "too large, positive": ("positive", "2147483648"),
        "too large, positive small": ("positive_small", "32768"),
        "negative": ("positive_big", "-1"),
        "more digits than SQLite keeps": ("decimal", "1234567890123.4567"),
        "zero with an exponent": ("decimal", "0e1000000"),
        "signaling NaN": ("decimal", "sNaN"),
        "infinite": ("number", "Infinity"),
        "year 1": ("moment", "0001-01-01 00:00:00"),
        "year 9999": ("moment", "9999-12-31 23:59:59"),
        "year 0": ("date", "0000-01-01"),
        "year 10000": ("date", "10000-01-01"),
        "long": ("duration", "999999999 00:00:00"),
        "longer": ("duration", "9" * 300),
        "no such object": ("warehouse", "9999999999999999999999"),
    }


REFUSED = refused_inputs()

#: What looks bad and is not: the setting, what the form is given, what is read.
ACCEPTED: dict[str, tuple[str, str, Any]] = {
    "spaces around a number": ("integer", " 12 ", 12),
    "control characters in JSON": ("data", '"\\u0001\\u202e"', "\x01\u202e"),
    "100 levels": ("data", "[" * 101 + "]" * 101, json.loads("[" * 101 + "]" * 101)),
    "4,000 digits": ("data", "9" * 4000, int("9" * 4000)),
    "null, where it may be": ("maybe_data", "null", None),
    "nothing, where it may be": ("maybe_integer", "", None),
    "emoji of several characters": ("line", "👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧"),
    "a large text": ("text", "x" * 2**20, "x" * 2**20),
    "a text that turns its direction": ("text", "a\u202eb", "a\u202eb"),
    "15 digits": ("decimal", "12345678901.2345", Decimal("12345678901.2345")),
    "the longest duration": (
        "duration",
        "106751991 04:00:54.775807",
        datetime.timedelta(microseconds=2**63 - 1),
    ),
    "the last moment": (
        "moment",
        "9999-12-28 23:59:59",
        datetime.datetime(9999, 12, 28, 23, 59, 59, tzinfo=datetime.UTC),
    ),
    "the last date": ("date", "9999-12-31", datetime.date.max),
    "the least float": ("number", "5e-324", 5e-324),
}


#: Values of Python's own types that not every database keeps.
BAD_VALUES: list[tuple[str, Any]] = [
    ("line", "\ud800"),
    ("line", b"bytes"),
    ("integer", Decimal("Infinity")),
    ("integer", Decimal("sNaN")),
    ("integer", Decimal("1e1000000")),
    ("integer", 1e300),
    ("integer", True),
    ("integer", b"12"),
    ("number", 10**400),
    ("number", -math.inf),
    ("decimal", Decimal("-Infinity")),
    ("decimal", 10**400),
    ("time", datetime.time(1, tzinfo=datetime.UTC)),
    ("moment", datetime.datetime.max),  # noqa: DTZ901 - on purpose
    ("moment", datetime.datetime.min.replace(tzinfo=datetime.UTC)),
    ("duration", datetime.timedelta.max),
    ("data", {1: "a name that is no text"}),
    ("data", [1e16]),
    ("data", 10**5000),
    ("data", "x" * 2**20),
    ("warehouse", 10**400),
    ("blob", 5),
    ("document", 5),
    ("document", "a" * 101),
]


SHOWN: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _objects(db: None) -> None:
    """To which a key would point that is written in other digits."""
    for key in (1, 3, 10, 12):
        Warehouse.objects.create(pk=key, name="North")
        Note.objects.create(pk=key, text="note")


@pytest.fixture
def page() -> Client:
    """A browser of somebody who may change the settings, which shows what the server raises."""
    client = Client()
    client.force_login(AdminFactory.create())
    return client


@pytest.fixture
def data(page: Client) -> dict[str, Any]:
    """The form as it is shown: once for all, for each test finds the row as the first did."""
    if not SHOWN:
        SHOWN.update(form_data(page))
    return SHOWN


def kinds() -> ConfigManager:
    """The manager, which has to read anew."""
    manager = ConfigManager(EveryKind)
    manager.reset()
    return manager


def posted(name: str, value: str) -> dict[str, str]:
    """What a browser sends for ``value`` of the setting ``name``."""
    if name != "moment":
        return {name: value}
    day, _, time_of_day = value.partition(" ")
    return {"moment_0": day, "moment_1": time_of_day}


class TestTheForm:
    @pytest.mark.parametrize(("name", "value"), REFUSED.values(), ids=REFUSED)
    def test_bad_input_is_an_error_at_its_field(
        self, page: Client, data: dict[str, Any], name: str, value: str
    ) -> None:
        """The page comes back with it, and nothing is saved."""
        before = dict(kinds().settings)
        response = page.post(URL, {**data, **posted(name, value)})
        assert response.status_code == 200
        assert set(response.context["adminform"].form.errors) == {name}
        assert dict(kinds().settings) == before

    @pytest.mark.parametrize(("name", "value", "read"), ACCEPTED.values(), ids=ACCEPTED)
    def test_what_is_only_strange_is_saved(
        self, page: Client, data: dict[str, Any], name: str, value: str, read: Any
    ) -> None:
        """And read back as it was, and shown again."""
        response = page.post(URL, {**data, **posted(name, value)})
        assert response.status_code == 302, response.context["adminform"].form.errors
        assert kinds().settings[name] == read
        assert page.get(URL).status_code == 200

    def test_what_the_database_refuses_is_an_error_of_the_form(
        self, page: Client, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such as by a constraint or a trigger that Django does not know of."""
        monkeypatch.setattr(EveryKind, "validate_constraints", lambda *args, **kwargs: None)
        response = page.post(URL, {**data, "positive": "13"})
        assert response.status_code == 200
        assert "not_13" in str(response.context["adminform"].form.errors)

    def test_stored_json_that_no_page_can_hold_is_shown(self, page: Client) -> None:
        """As it would be written in JSON."""
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute("""UPDATE testapp_everykind SET data = '["\\ud800"]'""")
            assert "\\ud800" in page.get(URL).content.decode()


class TestTheManager:
    @pytest.mark.parametrize(
        ("name", "value"),
        [one for one in REFUSED.values() if one[0] not in JSONS],
        ids=[name for name, one in REFUSED.items() if one[0] not in JSONS],
    )
    def test_refuses_what_the_form_refuses(self, name: str, value: str) -> None:
        """Code may be given it by somebody, too."""
        before = dict(kinds().settings)
        with pytest.raises(ValidationError):
            kinds().set_setting(name, value)
        assert dict(kinds().settings) == before

    @pytest.mark.parametrize(("name", "value"), BAD_VALUES, ids=range(len(BAD_VALUES)))
    def test_refuses_bad_values_of_any_type(self, name: str, value: Any) -> None:
        """Code may give anything."""
        with pytest.raises(ValidationError):
            kinds().set_setting(name, value)

    def test_no_error_shows_what_was_given(self) -> None:
        """It may be large, or a secret at the wrong place."""
        with pytest.raises(ValidationError) as caught:
            kinds().set_setting("text", "canary" * storable.LARGEST)
        assert "canary" not in str(caught.value)


@pytest.mark.django_db(transaction=True)
def test_everything_is_read_back_in_another_thread() -> None:
    """Through a connection of its own, from what is committed."""
    values = {name: read for name, (_given, read) in GIVEN.items()}
    for strange in ({}, *({name: read} for name, _given, read in ACCEPTED.values())):
        kinds().set_settings(**{**values, **strange})
        read = in_thread(lambda: dict(kinds().settings))
        assert {name: read[name] for name in values} == {**values, **strange}


# Made-up input

any_text = st.text(st.characters(), max_size=80)
figures = st.one_of(
    st.integers().map(str),
    st.sampled_from([2**15, 2**31, 2**63, 10**15]).flatmap(
        lambda edge: st.integers(edge - 2, edge + 2).flatmap(
            lambda number: st.sampled_from([str(number), str(-number)])
        )
    ),
    st.floats().map(str),
    st.decimals().map(str),
    st.text("0123456789.eE+-_ \u0661\uff11²½\u00a0", max_size=30),
    st.builds("{}e{}".format, st.integers(-99, 99), st.integers(-(10**7), 10**7)),
)
any_json: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=10,
)
json_texts = st.one_of(
    any_json.map(json.dumps),
    st.integers(1, 3000).map(lambda depth: "[" * depth + "]" * depth),
    st.integers(4200, 4400).map(lambda digits: "9" * digits),
)
numbers = st.integers(-(2**70), 2**70) | st.floats() | st.decimals()
anything = st.one_of(
    *(any_text, numbers, any_json, st.binary(max_size=9), st.booleans(), st.uuids()),
    *(st.datetimes(), st.datetimes(timezones=st.timezones()), st.dates()),
    *(st.times(), st.times(timezones=st.just(datetime.UTC)), st.timedeltas()),
)

#: What is likely to come near to what each kind of field accepts.
LIKELY: dict[str, st.SearchStrategy[str]] = {
    **dict.fromkeys((*NUMBERS, *KEYS), figures),
    **dict.fromkeys(JSONS, json_texts),
    "line": any_text,
    "text": any_text,
    "slug": st.text("abcXYZ019-_ü١\n", max_size=55),
    "email": st.emails() | st.text("ab.@-_ü\n", max_size=30),
    "url": urls() | st.builds("{}://{}".format, st.sampled_from(["http", "https"]), any_text),
    "color": st.sampled_from(["red", "blue", "green", ""]),
    "flag": st.sampled_from(["on", "true", "false", "0", ""]),
    "maybe_flag": st.sampled_from(["true", "false", "unknown", "2", ""]),
    "date": st.dates().map(str) | st.text("0123456789-/. \uff11", max_size=12),
    "time": st.times().map(str) | st.text("0123456789:. \uff11", max_size=16),
    "moment": st.datetimes().map(str) | st.text("0123456789-: \uff11", max_size=20),
    "duration": st.timedeltas().map(str) | st.text("0123456789PTDHMS:.,-+ \uff11", max_size=30),
    "address": st.ip_addresses().map(str) | st.text("0123456789abcdef:.%/", max_size=45),
    "uuid": st.uuids().map(str) | st.text("0123456789abcdef-_{}urn:\uff11", min_size=28),
}

tried = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class UndoneError(Exception):
    """Ends the transaction of one example."""


def plain(value: Any) -> Any:
    """What is stored for what a form or a field has made of the input."""
    return value.pk if isinstance(value, models.Model) else value


def assert_same(read: Any, expected: Any) -> None:
    """Equal; in JSON all the way down, where 1 is not 1.0."""
    assert read == expected
    if isinstance(read, list | dict):
        assert json.dumps(read, sort_keys=True) == json.dumps(expected, sort_keys=True)


class TestMadeUpInput:
    @pytest.mark.parametrize("name", LIKELY)
    def test_of_the_form(self, name: str) -> None:
        """Refused with an error, or saved and read back as it was."""
        field: Any = EveryKind._meta.get_field(name)
        page = admin.site.get_model_admin(EveryKind)
        request = RequestFactory().get(URL)
        request.user = AdminFactory()  # type: ignore[assignment] # it gives a User
        form_class: Any = page.get_form(request, change=True, fields=[name])

        @tried
        @given(st.one_of(LIKELY[name], LIKELY[name], any_text))
        def try_one(value: str) -> None:
            with suppress(UndoneError), transaction.atomic():
                row = EveryKind.objects.get()
                form = form_class(posted(name, value), {}, instance=row)
                if form.is_valid():
                    form.save()
                    assert_same(kinds().settings[field.attname], plain(form.cleaned_data[name]))
                str(form).encode()
                raise UndoneError

        try_one()

    @pytest.mark.parametrize("name", [*LIKELY, "blob", "document", "image"])
    def test_of_the_manager(self, name: str) -> None:
        """The same, of values of every type."""
        field: Any = EveryKind._meta.get_field(name)

        @tried
        @given(st.one_of(LIKELY.get(name, any_text), anything))
        def try_one(value: Any) -> None:
            with suppress(UndoneError), transaction.atomic():
                with suppress(ValidationError):
                    kinds().set_setting(name, value)
                    assert_same(kinds().settings[field.attname], freeze(converted(field, value)))
                raise UndoneError

        try_one()


def test_every_kind_is_tried() -> None:
    """Of those that a form shows; files have tests of their own."""
    names = {
        field.name
        for field in EveryKind.setting_fields().values()
        if field.editable and not isinstance(field, models.FileField)
    }
    assert names == {*LIKELY, "extra"}
