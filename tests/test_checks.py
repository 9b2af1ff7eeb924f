"""System checks: each says what is wrong and the line to write."""

from __future__ import annotations

import datetime
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks
from django.db import models
from django.test.utils import isolate_apps

from siteconfig import checks
from siteconfig.conf import conf, known_settings
from siteconfig.models import ConfigModel

# Django 6.1 asks the database what it can do.
pytestmark = pytest.mark.django_db(databases=["default", "other"])


def ids(messages: Any) -> list[str]:
    return [message.id for message in messages]


class TestSettings:
    @pytest.mark.parametrize(
        ("given", "expected", "text"),
        [
            (["STRICT"], "siteconfig.E001", "must be a dict"),
            ({"STRIKT": True}, "siteconfig.W002", "Did you mean 'STRICT'?"),
            ({5: True}, "siteconfig.W002", "no setting '5'"),
            ({"STRICT": "yes"}, "siteconfig.E003", "of type str; it must be bool"),
            ({"LOG_MAX_BYTES": True}, "siteconfig.E003", "of type bool; it must be int"),
            ({"LOG_MAX_BYTES": -1}, "siteconfig.E010", "is -1; it must be 0 or more"),
            ({"LOG_FORMAT": "xml"}, "siteconfig.E010", "it must be 'json' or 'text'"),
            ({"LOG_FILE": 5}, "siteconfig.E003", "it must be str or PathLike or None"),
        ],
    )
    def test_what_is_wrong(self, settings: Any, given: Any, expected: str, text: str) -> None:
        """The id, the reason and a hint."""
        settings.SITECONFIG = given
        (message,) = run_checks()
        assert message.id == expected
        assert text in message.msg
        assert message.hint

    def test_the_hint_is_the_line_to_write(self, settings: Any) -> None:
        """It can be pasted."""
        settings.SITECONFIG = {"STRICT": "yes"}
        (message,) = run_checks()
        assert message.hint == 'Write, for example: SITECONFIG = {"STRICT": True}.'

    def test_rotation_where_it_cannot_be(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on Windows."""
        monkeypatch.setattr(checks, "CAN_ROTATE", False)
        settings.SITECONFIG = {"LOG_MAX_BYTES": 10}
        assert ids(run_checks()) == ["siteconfig.W011"]

    def test_every_setting_has_an_example(self) -> None:
        """For every key, with a value of another type."""
        for key in known_settings():
            assert checks.check_setting(key, object(), known_settings())

    def test_nothing_is_wrong_with_what_is_right(self, settings: Any) -> None:
        """Nor without any."""
        settings.SITECONFIG = {"STRICT": True, "LOG_FILE": None, "LOG_MAX_BYTES": 10}
        assert run_checks() == []
        settings.SITECONFIG = {"LOG_FILE": Path("site.log"), "LOG_FORMAT": "json"}
        assert run_checks() == []
        del settings.SITECONFIG
        assert run_checks() == []

    def test_reads_survive_a_wrong_dict(self, settings: Any) -> None:
        """The check reports it; the defaults hold."""
        settings.SITECONFIG = "nonsense"
        assert conf.STRICT is False


class TestModelSetting:
    def test_a_name_that_is_no_model(self, settings: Any) -> None:
        """The reason is in the message."""
        settings.SITECONFIG_MODEL = "nowhere.Config"
        assert "siteconfig.E004" in ids(checks.check_model_setting())

    def test_a_model_that_is_no_config_model(self, settings: Any) -> None:
        """The hint is the line to write."""
        settings.SITECONFIG_MODEL = "testapp.Note"
        (message,) = checks.check_model_setting()
        assert message.id == "siteconfig.E005"
        assert message.hint == "Write class Note(siteconfig.models.ConfigModel)."

    def test_none_means_the_shipped_model(self, settings: Any) -> None:
        """As if it were not there."""
        settings.SITECONFIG_MODEL = None
        assert checks.check_model_setting() == []

    def test_a_config_model(self, settings: Any) -> None:
        """Is right."""
        settings.SITECONFIG_MODEL = "testapp.ShopConfig"
        assert checks.check_model_setting() == []


def test_solos_cache_is_refused(settings: Any) -> None:
    """It serves rolled-back values (H02)."""
    settings.SOLO_CACHE = "default"
    (message,) = checks.check_solo_cache()
    assert message.id == "siteconfig.E006"
    assert "Remove SOLO_CACHE" in str(message.hint)


class TestFields:
    @pytest.mark.parametrize(
        ("field", "expected"),
        [
            ({"snapshot": models.IntegerField(default=1)}, "siteconfig.E007"),
            ({"settings": models.IntegerField(default=1)}, "siteconfig.E007"),
            ({"items": models.JSONField(default=list)}, "siteconfig.E007"),
            (
                {"status": models.ForeignKey("self", models.CASCADE, null=True)},
                "siteconfig.E007",
            ),
            ({"limit": models.IntegerField()}, "siteconfig.E008"),
            ({"pause": models.DurationField(default="00:05:00")}, "siteconfig.E009"),
            ({"limit": models.IntegerField(default="many")}, "siteconfig.E009"),
            ({"text": models.CharField(max_length=9)}, None),
            ({"limit": models.IntegerField(null=True)}, None),
            ({"from_database": models.IntegerField(db_default=5)}, None),
            ({"pause": models.DurationField(default=datetime.timedelta(minutes=5))}, None),
            ({"until": models.DateField(default=datetime.date.today)}, None),
            ({"tags": models.JSONField(default=list)}, None),
            ({"rate": models.FloatField(default=1)}, None),
            ({"price": models.DecimalField(max_digits=5, decimal_places=2, default=0)}, None),
            ({"unique_key": models.UUIDField(default=uuid.uuid4)}, None),
            ({"objects": models.Manager()}, "siteconfig.E012"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else str(value),
    )
    @isolate_apps("tests.testapp")
    def test_each_field_of_a_config_model(self, field: Any, expected: str | None) -> None:
        """Its name and its default."""
        meta = type("Meta", (), {"app_label": "testapp"})
        attributes = {"__module__": __name__, "Meta": meta, **field}
        model: Any = type("Config", (ConfigModel,), attributes)
        messages = list(checks.check_config_model(model))
        assert ids(messages) == ([expected] if expected else [])
        assert all(message.hint and message.obj for message in messages)

    def test_the_models_here_are_right(self) -> None:
        """Those of the app and of the tests."""
        assert checks.check_config_models() == []


def test_every_id_is_used_once() -> None:
    """An id names one kind of problem."""
    source = Path(checks.__file__).read_text()
    found = re.findall(r'"(siteconfig\.[EW]\d+)"', source)
    assert sorted(found) == sorted(set(found))
    assert found
