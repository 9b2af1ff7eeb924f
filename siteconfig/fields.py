"""The columns that every config model has: the key, the version, the settings without a field."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import F
from django.forms.fields import InvalidJSONInput
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models.expressions import Combinable

#: The primary key of the one row, as django-solo has it.
ROW_ID = 1


class SingleRowKey(models.PositiveSmallIntegerField):  # type: ignore[type-arg] # not at run time
    """A primary key that can only be 1.

    The database itself refuses any other, by a check that belongs to the column. A constraint in
    the model's Meta would be lost by every subclass that writes a Meta of its own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.update(primary_key=True, default=ROW_ID, editable=False)
        super().__init__(*args, **kwargs)

    def db_check(self, connection: BaseDatabaseWrapper) -> str:
        return f"{connection.ops.quote_name(str(self.column))} = {ROW_ID}"


class VersionField(models.PositiveBigIntegerField):  # type: ignore[type-arg] # not at run time
    """Counts the writes of its row.

    The database adds the one, so that the order of the numbers is the order in which writers
    held the row, whatever a stale instance remembers. The instance reads it back when asked.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.update(default=0, editable=False)
        super().__init__(*args, **kwargs)

    def pre_save(self, model_instance: models.Model, add: bool) -> int | Combinable:
        if add:
            version: int = model_instance.__dict__.setdefault(self.attname, 0)
            return version
        model_instance.__dict__.pop(self.attname, None)  # now deferred
        return F(self.attname) + 1


class ExtraField(models.JSONField):
    """The settings that are no fields: a JSON object of names and values."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.update(default=dict, blank=True)
        super().__init__(*args, **kwargs)

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        validate_json_object(value)  # Django does not validate what is empty, such as []
        return super().clean(value, model_instance)

    def formfield(self, **kwargs: Any) -> Any:
        return super().formfield(**{"form_class": ExtraFormField, **kwargs})


class ExtraFormField(forms.JSONField):
    """Takes a JSON object; nothing at all means an empty one."""

    def to_python(self, value: Any) -> Any:
        try:
            value = super().to_python(value.strip() if isinstance(value, str) else value)
        except (ValueError, RecursionError) as error:  # a number or a nesting without end
            message = self.error_messages["invalid"]
            raise ValidationError(message, code="invalid", params={"value": "…"}) from error
        value = {} if value is None else value
        validate_json_object(value)
        return value

    def bound_data(self, data: Any, initial: Any) -> Any:
        """What the form shows again."""
        try:
            return super().bound_data(data, initial)
        except (ValueError, RecursionError):
            return InvalidJSONInput(data)


def validate_json_object(value: Any) -> None:
    """Refuse what is no JSON object."""
    if not isinstance(value, dict):
        raise ValidationError(_('Enter a JSON object: {"name": value, …}.'), code="not_an_object")
    validate_json(value)


def validate_json(value: Any) -> None:
    """Refuse what not every database can store as JSON, or not as it is.

    That is: what JSON does not know, NaN and the infinities, text that no database stores, and
    structures deeper than ``DEEPEST``.
    """
    try:
        json.dumps(value, allow_nan=False)
        _check_json(value, 0)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(
            gettext("This cannot be stored as JSON: %(problem)s."),
            code="not_json",
            params={"problem": error},
        ) from error


#: How deep lists and objects may be nested. Python's own parser gives up at some thousand.
DEEPEST = 100


def _check_json(value: Any, depth: int) -> None:
    if isinstance(value, str) and not is_storable_text(value):
        raise ValueError("a NUL or half a surrogate pair in a text")
    if depth > DEEPEST:
        raise ValueError(f"more than {DEEPEST} levels deep")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_json(key, depth + 1)
            _check_json(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_json(item, depth + 1)


def is_storable_text(text: str) -> bool:
    """Whether every database can store it: PostgreSQL stores no NUL, none half a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= one <= "\udfff" for one in text)
