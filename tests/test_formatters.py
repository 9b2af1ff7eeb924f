"""One physical line per record, whatever it holds."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from siteconfig.formatters import TEXT, JsonFormatter, TextFormatter, one_line
from siteconfig.handlers import LogFileHandler

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "\r\n\x00\x1b[31m\x85\u2028\u2029\u202e\u2066\ud800\x7f\t\x0b\x0c\x1c\x1d\x1e"

hostile_text = st.text(
    st.one_of(st.characters(exclude_categories=()), st.sampled_from(HOSTILE)), max_size=40
)


def record(message: Any, *args: Any, exc_info: Any = None, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("shop", logging.INFO, "views.py", 1, message, args, exc_info)
    made.__dict__.update(extra)
    return made


def traceback_of(text: str) -> Any:
    try:
        raise ValueError(text)
    except ValueError:
        return sys.exc_info()


@pytest.fixture(scope="module")
def handlers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LogFileHandler]:
    """A handler for each format."""
    folder = tmp_path_factory.mktemp("logs")
    made = {}
    for name, formatter in {"text": TextFormatter(), "json": JsonFormatter()}.items():
        made[name] = LogFileHandler(folder / f"{name}.log")
        made[name].setFormatter(formatter)
    return made


def added(handler: LogFileHandler, one: logging.LogRecord) -> str:
    """What the record adds to the file."""
    from pathlib import Path

    path = Path(handler.path)
    before = path.stat().st_size if path.exists() else 0
    handler.emit(one)
    assert handler.dropped == 0
    return path.read_bytes()[before:].decode()


@pytest.mark.parametrize("form", ["text", "json"])
@given(message=hostile_text, argument=hostile_text, extra=hostile_text, error=hostile_text)
@example(message=HOSTILE, argument=HOSTILE, extra=HOSTILE, error=HOSTILE)
@settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_text_anywhere_is_one_line(
    handlers: dict[str, LogFileHandler],
    form: str,
    message: str,
    argument: str,
    extra: str,
    error: str,
) -> None:
    """Message, arguments, extra, traceback; and JSON gives it all back."""
    given_record = record(
        f"{message.replace('%', '%%')}%s", argument, exc_info=traceback_of(error), user=extra
    )
    line = added(handlers[form], given_record)
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert one_line(line[:-1]) == line[:-1]
    if form == "json":
        entry = json.loads(line)
        assert entry["message"] == message + argument
        assert entry["user"] == extra
        assert entry["exception"].endswith(f"ValueError: {error}" if error else "ValueError")


class TestText:
    def test_escapes_are_pythons(self) -> None:
        """As a string literal shows them; ordinary text is left."""
        assert one_line("a\nb\tc\x1b[0m é 漢\u2028\u202e") == "a\\nb\\tc\\x1b[0m é 漢\\u2028\\u202e"

    @pytest.mark.parametrize("created", [0.0, 0.999, 1.0, 1795000000.1234, 1795000000.9999, 5.5])
    def test_the_time_is_loggings_own(self, created: float) -> None:
        """Though it is not made anew for each line."""
        formatter = self.formatter
        one = record("x")
        one.created, one.msecs = created, created % 1 * 1000
        assert formatter.format(one) == logging.Formatter(TEXT).format(one)

    formatter = TextFormatter()

    def test_a_forged_line_stays_in_its_line(self) -> None:
        """The classic attack (H103)."""
        forged = "bob\n2026-01-01 00:00:00,000 INFO admin logged in"
        assert "\n" not in one_line(TextFormatter().format(record("%s failed", forged)))


class TestJson:
    def entry(self, one: logging.LogRecord) -> dict[str, Any]:
        return json.loads(JsonFormatter().format(one))

    def test_the_fields(self) -> None:
        """Time with zone, level, message, logger, pid, thread."""
        one = record("hello %s", "you")
        one.created = 0.5
        entry = self.entry(one)
        assert entry == {
            "time": "1970-01-01T00:00:00.500+00:00",
            "level": "INFO",
            "message": "hello you",
            "logger": "shop",
            "pid": one.process,
            "thread": "MainThread",
        }

    def test_extra_fields_and_the_request_id(self) -> None:
        """Beside the others, as what they are."""
        entry = self.entry(record("x", request_id="abc", count=3, tags=["a"], ok=None))
        assert (entry["request_id"], entry["count"], entry["tags"]) == ("abc", 3, ["a"])
        assert entry["ok"] is None

    def test_an_extra_with_a_taken_name_gets_an_underscore(self) -> None:
        """It neither hides the field nor is lost."""
        entry = self.entry(record("x", time="noon", level=9))
        assert (entry["_time"], entry["_level"], entry["level"]) == ("noon", 9, "INFO")

    def test_exception_and_stack(self) -> None:
        """As text, each in a field."""
        one = record("x", exc_info=traceback_of("broken"))
        one.stack_info = "Stack (most recent call last): …"
        entry = self.entry(one)
        assert entry["exception"].startswith("Traceback")
        assert entry["exception"].endswith("ValueError: broken")
        assert entry["stack"].startswith("Stack")

    @pytest.mark.parametrize("value", [float("nan"), {1, 2}, object(), {(1, 2): 3}, b"x"])
    def test_what_json_cannot_hold_is_shown(self, value: Any) -> None:
        """By its repr; the line is valid JSON all the same."""
        entry = self.entry(record("x", value=value, other=1))
        assert isinstance(entry["value"], str)
        assert entry["other"] == 1

    def test_an_endless_extra_is_shown(self) -> None:
        """Not followed for ever."""
        endless: list[Any] = []
        endless.append(endless)
        assert self.entry(record("x", value=endless))["value"] == "[[...]]"

    def test_a_broken_repr_is_named(self) -> None:
        """It spoils its own field only."""

        class Broken:
            def __repr__(self) -> str:
                raise RuntimeError

        shown = self.entry(record("x", value=Broken()))["value"]
        assert shown == "<Broken, whose repr failed: RuntimeError>"


def test_ids_of_hostile_text(tmp_path: Path) -> None:
    """A lone surrogate, which UTF-8 cannot hold, is written as its escape (H104)."""
    handler = LogFileHandler(tmp_path / "x.log")
    handler.emit(record("a\ud800b"))
    handler.close()
    assert (tmp_path / "x.log").read_bytes() == b"a\\ud800b\n"
