"""The columns that every config model has, and fields for secrets and for URLs of public hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import FieldError, ValidationError
from django.core.validators import MaxLengthValidator
from django.db import models
from django.db.models import F
from django.db.models.expressions import DatabaseDefault
from django.db.models.query_utils import DeferredAttribute
from django.forms.fields import InvalidJSONInput
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from siteconfig import crypto
from siteconfig.public_urls import check_public_url
from siteconfig.secret import Secret
from siteconfig.storable import validate_json_object
from siteconfig.widgets import SecretFormField

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models.expressions import Combinable

    from siteconfig.secret import Column

    SecretFieldBase = models.Field[str | Combinable, Secret]
else:
    SecretFieldBase = models.Field

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


class PublicURLField(models.URLField):  # type: ignore[type-arg] # not at run time
    """A URL of a public host, for what the site itself is to request; see ``check_public_url``.

    It is checked when it is changed. Check it again before each request: names lead elsewhere
    later. What is unchanged is not, so that other settings can be saved while no name server
    answers.

    Args:
        schemes: those that are allowed.
    """

    def __init__(self, *args: Any, schemes: Sequence[str] = ("https",), **kwargs: Any) -> None:
        self.schemes = tuple(schemes)
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        if self.schemes != ("https",):
            kwargs["schemes"] = self.schemes
        return name, path, args, kwargs

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        value = super().clean(value, model_instance)
        stored = getattr(model_instance, "_stored", {}).get(self.attname)
        if value not in self.empty_values and value != stored:
            check_public_url(value, self.schemes)
        return value

    def formfield(self, **kwargs: Any) -> Any:
        return super().formfield(**{"assume_scheme": self.schemes[0], **kwargs})


class SecretAttribute(DeferredAttribute):
    """An instance's attribute: what text is assigned becomes a ``Secret``, and so is masked."""

    field: SecretField

    def __set__(self, instance: models.Model, value: Any) -> None:
        held = instance.__dict__.get(self.field.attname)
        if isinstance(value, str) and not isinstance(value, Secret):
            value = Secret(value)
        if is_same_again(held, value):
            value = held
        instance.__dict__[self.field.attname] = value


def is_same_again(held: Any, given: Any) -> bool:
    """Whether ``given`` is the plain text of what is held sealed already.

    To seal it anew would give another text each time, for no change.
    """
    return (
        isinstance(held, Secret)
        and held.stored is not None
        and not held.is_unreadable
        and isinstance(given, Secret)
        and given.stored is None
        and held == given
    )


class SecretField(SecretFieldBase):
    """A text that is sealed in the database, in dumps and in files; needs ``siteconfig[secrets]``.

    Its value is a ``Secret``: a text that is masked wherever Python shows values by itself. What
    no key opens reads as empty, is reported, and is written back byte for byte. A plain text in
    the column, from before it was a SecretField, reads as what it is; checks ask to seal it.

    What code and forms give is a plain text, whatever it looks like. A fixture may hold either:
    what has the form of a sealed text is stored as it is, and a plain text is sealed.

    Args:
        max_length: of the plain text; None: any.
    """

    description = _("Secret text")
    descriptor_class = SecretAttribute

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.max_length is not None:
            self.validators.append(MaxLengthValidator(self.max_length))

    def get_internal_type(self) -> str:
        return "TextField"

    # From the database, a fixture, code

    def from_db_value(self, value: Column | None, *args: Any) -> Secret | None:
        if isinstance(value, bytes):
            # SQLite keeps them in a column of text, too. Nobody has sealed those.
            return Secret.unreadable(value)
        secret = self.to_python(value)
        return Secret(secret, stored=value) if secret and secret.stored is None else secret

    def to_python(self, value: Any) -> Secret | None:
        # Whatever it is: an error of a fixture would show the value.
        if value is None or isinstance(value, Secret):
            return value
        text = Secret(str(value))
        if not crypto.is_sealed(text):
            return text
        plain = crypto.opened(text)
        return Secret.unreadable(str(text)) if plain is None else Secret(plain, stored=str(text))

    def clean(self, value: Any, model_instance: models.Model | None) -> Any:
        if isinstance(value, Secret) and value.is_unreadable:
            return value  # stands for what it is not: not too short, nor missing
        return super().clean(value, model_instance)

    def validate(self, value: Any, model_instance: models.Model | None) -> None:
        super().validate(value, model_instance)
        if value and value.stored is None and (why := crypto.obstacle()):
            raise ValidationError(
                gettext("A secret is never stored in plain, and cannot be sealed. %(why)s"),
                code="no_key",
                params={"why": why},
            )

    # To the database, a fixture

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        if value is None or isinstance(value, Secret) or hasattr(value, "resolve_expression"):
            return value
        return Secret(str(value))

    def get_db_prep_value(
        self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False
    ) -> Column | None:
        return sealed(self.get_prep_value(value))

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        """What is stored.

        Raises:
            SecretKeyError: there is no key to seal it with.
            FieldError: it is an expression, by which a plain text might be stored.
        """
        if not hasattr(value, "as_sql") or isinstance(value, DatabaseDefault):
            return super().get_db_prep_save(value, connection)
        # As bulk_update makes them, and F() of this field or another secret one.
        if not isinstance(value.output_field, SecretField):
            raise FieldError(
                f"{self} was given an expression, which the database cannot seal. Give the text "
                f"itself."
            )
        return value

    def value_to_string(self, obj: models.Model) -> str:
        stored = sealed(self.get_prep_value(self.value_from_object(obj)))
        # Bytes are nothing that was sealed, and may say anything.
        return stored if isinstance(stored, str) else ""

    def get_lookup(self, lookup_name: str) -> Any:
        if lookup_name == "isnull":
            return super().get_lookup(lookup_name)
        raise FieldError(
            f"The database cannot look into {self}, which is sealed, as {lookup_name!r} would "
            f"need. Read the setting, and compare it with its matches()."
        )

    def formfield(self, **kwargs: Any) -> Any:
        defaults = {"form_class": SecretFormField, "max_length": self.max_length}
        # The default of a callable would else be put into the page, too.
        return super().formfield(**{**defaults, "show_hidden_initial": False, **kwargs})


def sealed(secret: Secret | None) -> Column | None:
    """What to store, in a column or a fixture.

    Raises:
        SecretKeyError: there is no key to seal it with.
    """
    if secret is None:
        return None
    if secret.stored is not None and not secret.is_stored_in_plain:
        return secret.stored
    return crypto.seal(secret) if secret else ""
