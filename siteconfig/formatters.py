"""How a log record becomes one line: as text or as JSON."""

from __future__ import annotations

import json
import logging
import re
import time
from datetime import UTC, datetime
from typing import Any

TEXT = "%(asctime)s %(levelname)s %(message)s"

#: What would begin a new line, or make a terminal or an editor show another text than is there:
#: the C0 and C1 controls, line and paragraph separator, and the marks that turn text around.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

#: The attributes that every record has; what else one has came by ``extra``.
STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def one_line(text: str) -> str:
    """``text`` with every control and separator character escaped as in a string of Python.

    Above ASCII the escapes are those of JSON too, so that a line of JSON stays one.
    """
    return UNSAFE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character in SHORT:
        return SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}"


class TextFormatter(logging.Formatter):
    """Time, level and message."""

    def __init__(self) -> None:
        super().__init__(TEXT)
        self._second: tuple[int, str] = (-1, "")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """As logging's own, which makes most of it anew for each line of the same second."""
        second, text = self._second
        if int(record.created) != second:
            second = int(record.created)
            text = time.strftime(self.default_time_format, self.converter(second))
            self._second = (second, text)
        return f"{text},{int(record.msecs):03}"


class JsonFormatter(logging.Formatter):
    """One JSON object: time (ISO 8601, UTC), level, message, logger, pid, thread.

    ``extra`` adds its fields beside them, ``request_id`` among them where a filter sets it; one
    that has the name of a field above gets an underscore in front. ``exception`` and ``stack``
    are there when the record has them. What JSON cannot hold is given as its ``repr``.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
            "pid": record.process,
            "thread": record.threadName,
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            entry["stack"] = self.formatStack(record.stack_info)
        for name, value in record.__dict__.items():
            if name not in STANDARD:
                entry[f"_{name}" if name in entry else name] = value
        return _json(entry)


def _json(entry: dict[str, Any]) -> str:
    try:
        return json.dumps(entry, ensure_ascii=False, allow_nan=False, default=_shown)
    except (TypeError, ValueError, RecursionError):
        # A key that is no text, NaN, or a structure that holds itself: somewhere in an extra.
        plain = {
            name: value if _is_plain(value) else _shown(value) for name, value in entry.items()
        }
        return json.dumps(plain, ensure_ascii=False)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | int)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - a repr may do anything
        return f"<{type(value).__name__}, whose repr failed: {type(error).__name__}>"
