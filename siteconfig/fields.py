"""The two columns by which a table holds one row and counts how often it was written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import F

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
