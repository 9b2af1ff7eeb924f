"""ConfigForm: what is wrong with a setting is an error at its field, and never one of the page."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, models, router, transaction
from django.utils.translation import gettext

from siteconfig.fields import ROW_ID
from siteconfig.storable import check_given, check_storable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from siteconfig.models import ConfigModel

    ConfigModelForm = forms.ModelForm[ConfigModel]
else:
    ConfigModelForm = forms.ModelForm


class ConfigBoundField(forms.BoundField):
    """Shows again what was given, whatever it is."""

    def value(self) -> Any:
        try:
            shown = super().value()
        except (ValueError, RecursionError):  # JSON that Python does not read
            shown = self.data
        if isinstance(shown, str):
            # A page cannot hold half a surrogate pair. In JSON this is how it was written.
            shown = shown.encode(errors="backslashreplace").decode()
        return shown

    def _has_changed(self) -> bool:
        try:
            return bool(super()._has_changed())  # type: ignore[misc] # missing in the stubs
        except (ValueError, ArithmeticError, RecursionError):
            return True


class ConfigForm(ConfigModelForm):
    """The form of a config model: takes what every database stores, and refuses all else."""

    bound_field_class = ConfigBoundField

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for setting in self._meta.model._meta.concrete_fields:
            if setting.name in self.fields:
                field = self.fields[setting.name]
                # The field is this form's own copy.
                field.clean = partial(cleaned, setting, field.clean)  # type: ignore[method-assign]

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc] # missing in the stubs
        if not self.errors and not self.instance._state.adding:
            try:
                self._try_to_store()
            except ValidationError as error:
                self.add_error(None, error)

    def _try_to_store(self) -> None:
        """Find out whether the database takes it, while the form can still show an error.

        Raises:
            ValidationError: it does not.
        """
        row = self.instance
        using = router.db_for_write(type(row))
        changed = row._changed_fields()
        values = {
            name: getattr(row, name)
            for name, field in row.setting_fields().items()
            # A file has no name before it is stored.
            if field.name in changed and not isinstance(field, models.FileField)
        }
        # Not by the model's own QuerySet, which would announce it.
        rows: Any = models.QuerySet(type(row), using=using)
        with refusals(using):
            rows.filter(pk=ROW_ID).update(**values)
            transaction.set_rollback(True, using)


@contextmanager
def refusals(using: str) -> Iterator[None]:
    """A savepoint in which what the database refuses is a ``ValidationError``.

    Args:
        using: the alias of the database.
    """
    try:
        with transaction.atomic(using):
            yield
    except (DataError, IntegrityError, OverflowError, ValueError) as error:
        # ValueError: drivers raise it, too. The first line: others may quote the whole row.
        problem = next(iter(str(error).splitlines()), type(error).__name__)
        message = gettext("The database refuses this: %(problem)s")
        raise ValidationError(message, code="database", params={"problem": problem}) from error


def cleaned(
    setting: models.Field[Any, Any], clean: Callable[..., Any], given: Any, *initial: Any
) -> Any:
    """What ``clean`` of a form field makes of what was given for ``setting``.

    Raises:
        ValidationError: the field does not accept it, or not every database would store it.
    """
    # A date and its time of day come as two.
    for part in given if isinstance(given, list) else [given]:
        if isinstance(part, str):
            check_given(setting, part)
    try:
        value = clean(given, *initial)
    except (ValueError, ArithmeticError, RecursionError) as error:
        # A number or a nesting without end.
        raise ValidationError(gettext("This is no valid value."), code="invalid") from error
    is_file_kept = value is None and isinstance(setting, models.FileField)
    if not is_file_kept and not isinstance(value, models.Model):
        check_storable(setting, value)
    return value
