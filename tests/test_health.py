"""health/: 200 while the row has been seen lately, 503 otherwise, and no setting's value."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from django.test import Client

from siteconfig import config, config_manager
from siteconfig.models import ConfigModel

URL = "/siteconfig/health/"


def ask() -> tuple[int, dict[str, Any]]:
    response = Client().get(URL)
    assert response["Cache-Control"].startswith("max-age=0, no-cache, no-store")
    return response.status_code, response.json()


@pytest.mark.django_db
class TestHealth:
    def test_a_process_that_has_read_nothing_reads(self) -> None:
        """The first question is not answered by 503."""
        status, content = ask()
        assert (status, content["status"], content["source"]) == (200, "fresh", "row")
        assert content["model"] == "siteconfig.SiteConfiguration"

    @pytest.mark.parametrize(
        ("age", "limit", "expected"),
        [(59, 60, 200), (61, 60, 503), (61, 100.0, 200), (9e9, None, 200)],
    )
    def test_it_goes_by_the_age(
        self,
        settings: Any,
        monkeypatch: pytest.MonkeyPatch,
        age: float,
        limit: float | None,
        expected: int,
    ) -> None:
        """On the monotonic clock, against SITECONFIG["MAX_STALENESS"]."""
        settings.SITECONFIG = {"MAX_STALENESS": limit}
        now = [1000.0]
        monkeypatch.setattr(config_manager, "monotonic", lambda: now[0])
        _ = config.timeout
        now[0] += age
        status, content = ask()
        assert status == expected
        assert content["age"] == pytest.approx(age)

    def test_no_value_and_no_text_of_an_error_is_in_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is open to everybody; a driver's text names hosts and users."""
        config.set_settings(site_name="canary", api_key="canary-key")
        assert "canary" not in str(ask())

        def read(*args: Any) -> None:
            raise OperationalError('connection to "canary-host", user "canary" refused')

        monkeypatch.setattr(ConfigModel, "read", read)
        config.reset()
        status, content = ask()
        assert (status, content["last_error"]) == (503, "OperationalError")
        assert content["fresh"] is False
        assert "canary" not in str(content)

    def test_no_answer_is_mailed_to_anybody(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As Django's own log of a 503 would be, at each probe; the outage has its own line."""

        def read(*args: Any) -> None:
            raise OperationalError("connection refused")

        monkeypatch.setattr(ConfigModel, "read", read)
        assert [ask()[0] for _ in range(3)] == [503] * 3
        assert [record.name for record in caplog.records] == ["siteconfig.config_manager"]

    def test_a_warm_process_answers_without_a_query(self, django_assert_num_queries: Any) -> None:
        """However often it is asked."""
        ask()
        with django_assert_num_queries(0):
            ask()

    def test_with_atomic_requests_it_needs_no_database(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Django would open a transaction first, and fail."""
        ask()
        monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
        with monkeypatch.context() as away:

            def fail(*args: Any) -> None:
                raise OperationalError

            away.setattr(transaction.Atomic, "__enter__", fail)
            assert ask()[0] == 200

    def test_where_nothing_is_to_notice_changes_nothing_is_stale(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the transport "none"."""
        settings.SITECONFIG = {"TRANSPORT": "none", "MAX_STALENESS": 1}
        now = [1000.0]
        monkeypatch.setattr(config_manager, "monotonic", lambda: now[0])
        ask()
        now[0] += 1000
        assert ask()[0] == 200

    def test_only_reading_methods(self) -> None:
        """It changes nothing."""
        assert Client().post(URL).status_code == 405
        assert Client().head(URL).status_code == 200

    def test_it_stays_open_in_maintenance_mode(self) -> None:
        """The process is well; a load balancer is to keep it."""
        config.set_setting("maintenance_mode", True)
        assert ask()[0] == 200
