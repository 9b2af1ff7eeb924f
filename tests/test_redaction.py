"""Secrets that the process holds stay out of the log, by whatever way they come."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from django.db import transaction

from siteconfig import Logger, config
from siteconfig.formatters import JsonFormatter
from siteconfig.handlers import LogFileHandler
from siteconfig.redaction import Redactor, is_secret_name
from siteconfig.testing import override_config

if TYPE_CHECKING:
    from pathlib import Path

SECRET = 'sk-live/"Ünsafe" & 7\\x'


class TestNames:
    @pytest.mark.parametrize(
        "name",
        ["api_key", "API_KEY", "smtp_password", "SMTP_PWD", "db_dsn", "token", "apikey", "x-auth"],
    )
    def test_secret(self, name: str) -> None:
        """One of the words says so (H85)."""
        assert is_secret_name(name)

    @pytest.mark.parametrize("name", ["keyboard", "author", "passenger", "timeout", "monkeys"])
    def test_not_secret(self, name: str) -> None:
        """Only whole words count."""
        assert not is_secret_name(name)


class TestEveryWayIntoALine:
    @pytest.fixture(params=["text", "json"])
    def write(self, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
        """Writes a record through a handler of each format and gives what is in the file."""
        path = tmp_path / "x.log"
        handler = LogFileHandler(path)
        if request.param == "json":
            handler.setFormatter(JsonFormatter())
        logger = logging.getLogger("tests.redaction")
        logger.propagate = False
        logger.addHandler(handler)

        def write(*args: Any, **kwargs: Any) -> str:
            logger.warning(*args, **kwargs)
            text = path.read_text()
            if request.param == "json":
                json.loads(text)
            return text

        yield write
        logger.removeHandler(handler)
        handler.close()

    @pytest.mark.parametrize("secret", ["sk-live-0123456789", SECRET], ids=["plain", "awkward"])
    @pytest.mark.parametrize(
        "way", ["message", "argument", "extra", "traceback", "chained", "url", "repr", "container"]
    )
    def test_it_is_replaced_by_its_settings_name(self, write: Any, secret: str, way: str) -> None:
        """Message, arguments, extra, traceback and its causes, URLs, containers (H106)."""
        with override_config(api_key=secret):
            if way == "message":
                text = write(secret.replace("%", "%%"))
            elif way == "argument":
                text = write("key is %s", secret)
            elif way == "extra":
                text = write("x", extra={"sent": secret})
            elif way == "url":
                text = write("GET https://example.org/?key=%s", quote(secret, safe=""))
            elif way == "repr":
                text = write("key is %r", secret)
            elif way == "container":
                text = write("sent %s", {"headers": [secret]}, extra={"sent": {"a": [secret]}})
            else:
                text = write("x", exc_info=raised(secret, chained=way == "chained"))
        assert "[api_key]" in text or way == "extra"
        for form in (secret, quote(secret, safe=""), repr(secret)[1:-1], json.dumps(secret)[1:-1]):
            assert form not in text

    def test_short_values_are_left(self, write: Any) -> None:
        """To take "on" out of every line would spoil the lines."""
        with override_config(api_key="on"):
            assert "one" in write("one")


def raised(secret: str, *, chained: bool) -> Any:
    try:
        try:
            raise ValueError(secret)
        except ValueError as error:
            if chained:
                raise RuntimeError("outer") from error
            raise
    except Exception:  # noqa: BLE001 - whichever
        return sys.exc_info()


@pytest.mark.django_db(transaction=True)
class TestWhatIsHeld:
    def test_the_committed_one_at_once_after_a_change(self) -> None:
        """And extra settings with such names, too."""
        redacted = Redactor()
        assert redacted("first-key other-token") == "first-key other-token"
        config.set_settings(api_key="first-key", shop_token="other-token")
        assert redacted("first-key other-token") == "[api_key] [shop_token]"
        config.set_setting("api_key", "second-key")
        assert redacted("second-key") == "[api_key]"

    def test_one_that_is_not_committed_yet(self) -> None:
        """Its transaction may log it."""
        redacted = Redactor()
        with transaction.atomic():
            config.set_setting("api_key", "first-key")
            _ = config.api_key
            assert redacted("first-key") == "[api_key]"

    def test_of_two_secrets_that_begin_alike_the_longer(self) -> None:
        """Nothing of it is left over."""
        config.set_settings(api_key="abcd", shop_token="abcdefgh")
        assert Redactor()("abcdefgh") == "[shop_token]"

    def test_nothing_is_read_for_it(self, django_assert_num_queries: Any) -> None:
        """A log line must not wait for a database."""
        config.reset()
        with django_assert_num_queries(0):
            assert Redactor()("text") == "text"

    def test_logger_redacts(self, tmp_path: Path) -> None:
        """The whole way."""
        config.set_setting("api_key", "first-key")
        Logger(tmp_path / "x.log").log("sending %s", "first-key")
        assert "first-key" not in (tmp_path / "x.log").read_text()
