"""What a setting may be: what every database stores, and gives back as it was.

The rules are the same on every database, so that a value which one site accepts does not fail on
another. ``check_given`` looks at what somebody gave, ``check_storable`` at what a field made of it.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.files import File
from django.db import models
from django.db.backends.base.operations import BaseDatabaseOperations
from django.utils.functional import Promise
from django.utils.translation import gettext

from siteconfig.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    Field = models.Field[Any, Any]

#: The largest text or JSON, in bytes. Each process reads the whole row at every change.
LARGEST = 1024 * 1024

#: How deep lists and objects may be nested. Python's own parser gives up at some thousand.
DEEPEST = 100

#: SQLite stores decimals as floating-point numbers, which have no more digits than these.
MOST_DIGITS = 15

#: Integers in JSON beyond it and floats that look like them are not told apart by PostgreSQL.
LARGEST_JSON_FLOAT = 1e16

#: Microseconds: SQLite stores a duration as an integer of 64 bits.
LONGEST_DURATION = datetime.timedelta(microseconds=2**63 - 1)

#: In any time zone such a moment is one that Python knows.
FIRST_MOMENT = datetime.datetime(1, 1, 3)  # noqa: DTZ001 - compared with times of no zone
LAST_MOMENT = datetime.datetime(9999, 12, 29)  # noqa: DTZ001 - the same

#: The fields whose value may be given in digits.
IN_DIGITS = (
    models.IntegerField,
    models.FloatField,
    models.DecimalField,
    models.DateField,
    models.TimeField,
    models.DurationField,
    models.UUIDField,
)

#: Control characters but for tab and the ends of lines, with which other programs end or hide text.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

#: Ends of lines, and what makes the rest of a line read otherwise than it is stored.
NOT_IN_A_LINE = re.compile(r"[\t\n\r\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def check_given(field: Field, value: Any) -> None:
    """Refuse what ``field`` would crash on, or take for something else.

    Raises:
        ValidationError: with the reason, and without the value.
    """
    field = value_field(field)
    if isinstance(value, Secret):
        check_text(field, value)
    elif isinstance(value, str | Promise):
        text = str(value)
        check_size(text)
        if isinstance(field, IN_DIGITS):
            check_digits(text)
        if not isinstance(field, models.JSONField):
            check_text(field, text.strip())
    elif isinstance(value, bytes | bytearray | memoryview):
        if not isinstance(field, models.BinaryField):
            raise refused(gettext("This is no valid value."), "bytes")
    elif isinstance(field, models.IntegerField):
        check_whole(value)


def check_storable(field: Field, value: Any) -> None:
    """Refuse what not every database stores, or gives back as it was.

    Args:
        value: of the field's own type.

    Raises:
        ValidationError: with the reason, and without the value.
    """
    if value is None:
        if not field.null:
            raise ValidationError(field.error_messages["null"], code="null")
    elif isinstance(field, models.JSONField):
        validate_json(value)
    elif isinstance(value, str):
        check_text(field, value)
    else:
        field = value_field(field)
        for kind, check in CHECKS.items():
            if isinstance(field, kind):
                check(field, value)


def value_field(field: Field) -> Field:
    """The field that tells how ``field``'s values are stored: of a key, that to which it points."""
    return field.target_field if isinstance(field, models.ForeignKey) else field


def refused(message: str, code: str, **params: Any) -> ValidationError:
    return ValidationError(message, code=code, params=params)


# Text


def check_size(text: str) -> None:
    if len(text) > LARGEST or len(text.encode(errors="replace")) > LARGEST:
        raise refused(
            gettext("This is larger than %(limit)s KiB, which is the limit."),
            "too_large",
            limit=LARGEST // 1024,
        )


def check_text(field: Field, text: str) -> None:
    """A secret, which nobody is shown, may hold anything; a text field lines; all else one line."""
    check_size(text)
    is_secret = isinstance(text, Secret)
    if not is_storable_text(text) or (not is_secret and CONTROL.search(text)):
        raise refused(gettext("This text holds a character that is not allowed."), "character")
    if field.get_internal_type() != "TextField" and NOT_IN_A_LINE.search(text):
        raise refused(
            gettext("Only one line of text is allowed, without marks that turn its direction."),
            "lines",
        )
    # Of other fields Django checks it.
    if isinstance(field, models.FileField) and len(text) > (limit := field.max_length or math.inf):
        raise refused(gettext("Use at most %(limit)s characters."), "max_length", limit=limit)


def is_storable_text(text: str) -> bool:
    """Whether every database can store it: PostgreSQL stores no NUL, none half a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= one <= "\udfff" for one in text)


# Numbers


def check_digits(text: str) -> None:
    """Python reads digits of any script, and underscores between them; people may not."""
    if "_" in text or any(one.isnumeric() and not one.isascii() for one in text):
        raise refused(gettext("Write numbers with the digits 0 to 9 only."), "digits")


def check_whole(value: Any) -> None:
    """int() would make 1 of True, 4 of 4.5, and a number of a billion digits of a short Decimal."""
    is_fraction = isinstance(value, float | Decimal) and (
        not is_finite(value) or not -(2**63) < value < 2**63 or value != int(value)
    )
    if isinstance(value, bool) or is_fraction:
        raise refused(gettext("Enter a whole number."), "invalid")


def is_finite(value: float | Decimal) -> bool:
    return value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)


def check_integer(field: Field, value: int) -> None:
    """Django has SQLite's range, of 64 bits, for every kind of integer there."""
    ranges: dict[str, tuple[int, int]] = BaseDatabaseOperations.integer_field_ranges
    low, high = ranges.get(field.get_internal_type(), ranges["BigIntegerField"])
    if not low <= value <= high:
        message = gettext("Enter a whole number from %(low)s to %(high)s.")
        raise refused(message, "out_of_range", low=low, high=high)


def check_finite(field: Field, value: float | Decimal) -> None:
    if not is_finite(value):
        raise refused(gettext("Enter a finite number."), "not_finite")


def check_decimal(field: Field, value: Decimal) -> None:
    check_finite(field, value)
    _sign, digits, exponent = value.as_tuple()
    # Not normalize(), which rounds. Zeros behind the point count: columns keep them, and so does
    # an exponent, of which a short text makes a number of a billion digits.
    if len(digits) > MOST_DIGITS or abs(int(exponent)) > MOST_DIGITS:
        message = gettext("Enter a number of at most %(limit)s digits.")
        raise refused(message, "too_many_digits", limit=MOST_DIGITS)


# Times


def check_moment(field: Field, value: datetime.datetime) -> None:
    if value.tzinfo is not None and not settings.USE_TZ:
        raise refused(gettext("A time has no time zone here."), "time_zone")
    if not FIRST_MOMENT <= value.replace(tzinfo=None) <= LAST_MOMENT:
        message = gettext("Enter a time between %(first)s and %(last)s.")
        first, last = FIRST_MOMENT.date().isoformat(), LAST_MOMENT.date().isoformat()
        raise refused(message, "out_of_range", first=first, last=last)


def check_time(field: Field, value: datetime.time) -> None:
    if value.tzinfo is not None:
        raise refused(gettext("A time of day has no time zone."), "time_zone")


def check_duration(field: Field, value: datetime.timedelta) -> None:
    if not -LONGEST_DURATION <= value <= LONGEST_DURATION:
        message = gettext("Enter a duration of at most %(limit)s days.")
        raise refused(message, "out_of_range", limit=LONGEST_DURATION.days)


# Files and bytes


def check_file(field: Field, value: Any) -> None:
    """The database stores its name."""
    if not isinstance(value, File):
        raise refused(gettext("This is no valid value."), "invalid")
    check_text(field, str(value.name or ""))


def check_bytes(field: Field, value: Any) -> None:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise refused(gettext("This is no valid value."), "invalid")


# JSON


def validate_json_object(value: Any) -> None:
    """Refuse what is no JSON object."""
    if not isinstance(value, dict):
        raise refused(gettext('Enter a JSON object: {"name": value, …}.'), "not_an_object")
    validate_json(value)


def validate_json(value: Any) -> None:
    """Refuse what not every database can store as JSON, or not as it is.

    That is: what JSON does not know, NaN and the infinities, text that no database stores,
    structures deeper than ``DEEPEST``, and what is larger than ``LARGEST``.
    """
    try:
        _check_json(value, 0)
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        message = gettext("This cannot be stored as JSON: %(problem)s.")
        raise ValidationError(message, code="not_json", params={"problem": error}) from error
    check_size(text)


def _check_json(value: Any, depth: int) -> None:
    if isinstance(value, Secret):
        raise ValueError("a secret, which is stored in a SecretField only")
    if isinstance(value, str) and not is_storable_text(value):
        raise ValueError("a NUL or half a surrogate pair in a text")
    if isinstance(value, float) and LARGEST_JSON_FLOAT <= abs(value) < math.inf:
        raise ValueError(f"{value}, which not every database keeps as it is; write it out")
    if depth > DEEPEST:
        raise ValueError(f"more than {DEEPEST} levels deep")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError("a name in an object that is no text")
            _check_json(key, depth + 1)
            _check_json(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_json(item, depth + 1)


CHECKS: dict[type[Field], Callable[[Any, Any], None]] = {
    models.IntegerField: check_integer,
    models.FloatField: check_finite,
    models.DecimalField: check_decimal,
    models.DateTimeField: check_moment,
    models.TimeField: check_time,
    models.DurationField: check_duration,
    models.FileField: check_file,
    models.BinaryField: check_bytes,
}
