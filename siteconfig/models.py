"""ConfigModel, whose one row holds the settings, and the one that ships ready to use."""

from __future__ import annotations

import copy
import logging
from contextlib import closing, contextmanager, suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, TypeVar, cast

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.files import File
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, router, transaction
from django.db.models import F
from django.db.models.expressions import DatabaseDefault
from django.forms.utils import from_current_timezone
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from solo.models import SingletonModel

from siteconfig import history, last_known_good, pins, receivers
from siteconfig.conf import conf
from siteconfig.config_manager import ConfigManager
from siteconfig.exceptions import AppendOnlyError, RowExistsError, did_you_mean, near_names
from siteconfig.fields import (
    ROW_ID,
    ExtraField,
    SecretField,
    SingleRowKey,
    VersionField,
)
from siteconfig.row import TEXTS, RowReader
from siteconfig.secret import Secret
from siteconfig.signals import bulk_write_done, bulk_write_starts
from siteconfig.snapshot import EXTRA, Snapshot, same
from siteconfig.storable import (
    check_given,
    check_storable,
    validate_json,
    validate_json_object,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.utils.functional import _StrOrPromise as StrOrPromise


log = logging.getLogger("siteconfig.models")

M = TypeVar("M", bound="ConfigModel")


class ConfigQuerySet(models.QuerySet[M]):
    """A QuerySet that announces the writes for which Django sends no signal."""

    def update(self, **values: Any) -> int:
        rows: int = self._announced(super().update, **{"version": F("version") + 1, **values})
        return rows

    def bulk_create(self, *args: Any, **kwargs: Any) -> list[M]:
        rows: list[M] = self._announced(super().bulk_create, *args, **kwargs)
        return rows

    update.alters_data = True  # type: ignore[attr-defined]
    bulk_create.alters_data = True  # type: ignore[attr-defined]

    def _announced(self, write: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._for_write = True
        with in_transaction(self.db):
            bulk_write_starts.send(self.model, using=self.db)
            result = write(*args, **kwargs)
            bulk_write_done.send(self.model, using=self.db)
        return result


@contextmanager
def in_transaction(using: str) -> Iterator[None]:
    """A transaction for a write and the record of it: the one there is, else a new one."""
    connection = transaction.get_connection(using)
    if connection.in_atomic_block or not connection.get_autocommit():
        yield
    else:
        with transaction.atomic(using=using):
            yield


class ConfigModel(SingletonModel):
    """The base of every config model: each field is a setting, its default the value at first.

    The table holds one row, which the database itself ensures. ``migrate`` makes the row;
    while there is none, readers get the defaults.
    """

    id = SingleRowKey()
    version = VersionField()
    extra = ExtraField(
        _("more settings"),
        help_text=_(
            "Settings that are no fields of their own, as a JSON object of name and value. Code "
            'reads them with get_setting("name").'
        ),
    )

    objects: ClassVar[models.Manager[Self]] = ConfigQuerySet.as_manager()

    units: ClassVar[Mapping[str, StrOrPromise]] = {}
    """Setting → what its number counts, ``{"timeout": _("seconds")}``, for the settings page."""

    _read: Snapshot | None = None
    """What was read of the row when the instance was made of it; None: the ORM made it."""

    class Meta:
        abstract = True
        # So that what Django writes by itself, such as SET_NULL, is announced too.
        base_manager_name = "objects"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Before any handler of the project's own, which may read the settings.
        receivers.watch(cls)

    def __str__(self) -> str:
        return str(self._meta.verbose_name).capitalize()

    @classmethod
    def current(cls) -> Self:
        """The settings as ``ConfigManager`` gives them, for type checkers: no query, no row.

        What is returned is a ``Snapshot``: it has the fields, and none of the model's methods.
        """
        return cast("Self", ConfigManager(cls).snapshot())

    # What ConfigManager asks of its model

    @classmethod
    def last_change(cls, name: str) -> history.Origin | None:
        """Who changed this setting last; None: it is not recorded. Never raises."""
        return history.last_change(cls, name)

    @classmethod
    def setting_fields(cls) -> dict[str, models.Field[Any, Any]]:
        """Every setting's attribute name and field."""
        return {
            field.attname: field
            for field in cls._meta.concrete_fields
            if not field.primary_key and not isinstance(field, VersionField)
        }

    @classmethod
    def setting_name(cls, name: str) -> str:
        """How the setting that is called ``name`` in any case is spelled here."""
        lower = name.lower()
        for attribute, field in cls.setting_fields().items():
            if lower in {attribute.lower(), field.name.lower()}:
                return attribute
        return lower

    @classmethod
    def secret_fields(cls) -> dict[str, SecretField]:
        """The same, of the secret settings only."""
        fields = cls.setting_fields().items()
        return {name: field for name, field in fields if isinstance(field, SecretField)}

    @classmethod
    def masked(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """``values``, by name in any case, with each text for a secret setting as a ``Secret``.

        So that no error report shows it as the variable of a function here.
        """
        return {
            name: Secret(str(value))
            if cls._is_plain(value) and cls.setting_name(name) in cls.secret_fields()
            else value
            for name, value in values.items()
        }

    @classmethod
    def by_setting(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """``values``, by name in any case, by the settings' own names; of each object its key."""
        fields = cls.setting_fields()
        named = {cls.setting_name(name): value for name, value in values.items()}
        return {
            name: key_of(fields[name], value)
            if name in fields and isinstance(value, models.Model)
            else value
            for name, value in named.items()
        }

    @staticmethod
    def _is_plain(value: Any) -> bool:
        return isinstance(value, str | int | float | Decimal) and not isinstance(value, Secret)

    @classmethod
    def default_snapshot(cls) -> Snapshot:
        """The settings as long as there is no row."""
        values = {name: default_of(field) for name, field in cls.setting_fields().items()}
        return Snapshot(cls._meta.label, values, source="default")

    @classmethod
    def fallback_snapshot(cls) -> Snapshot:
        """The settings as long as the row cannot be read: as in the last-known-good file."""
        return last_known_good.recall(cls) or cls.default_snapshot()

    @classmethod
    def keep(cls, snapshot: Snapshot) -> bool:
        """Note in the last-known-good file what has been read; False: it is to be tried again."""
        return last_known_good.keep(cls, snapshot)

    @classmethod
    def pins(cls) -> dict[str, pins.Pin]:
        """The settings that this deployment fixes. Those it gives wrongly are not, and logged."""
        fixed, refused = pins.pins_of(cls)
        for origin, error in refused.items():
            log.error("%s is not used: %s", capfirst(origin), " ".join(error.messages))
        return fixed

    @classmethod
    def checked_setting(cls, name: str, value: Any) -> Any:
        """``value`` as the field ``name`` takes it, validated without asking a database.

        Raises:
            ValidationError: it is refused, and why.
        """
        field = cls.setting_fields()[name]
        value = converted(field, value)
        # The one would ask for the object, the other for a key to store the secret with.
        if not isinstance(field, models.ForeignKey | SecretField):
            field.validate(value, None)
        field.run_validators(value)
        return value

    @classmethod
    def reader(cls, connection: BaseDatabaseWrapper) -> RowReader:
        """What reads the row through ``connection``."""
        return RowReader(cls, connection)

    @classmethod
    def read(cls, connection: BaseDatabaseWrapper, previous: Snapshot | None = None) -> Snapshot:
        """Read the row through ``connection``, once.

        Raises:
            django.db.Error: the database, the table or a column is not there.
        """
        with closing(cls.reader(connection)) as reader:
            return reader.snapshot(reader.stored(), previous)

    @classmethod
    def write(cls, values: Mapping[str, Any]) -> None:
        """Validate settings and save them to the row, in one transaction: all or nothing.

        Only the columns that are given are written, under a lock on the row, so that writers of
        different settings do not undo each other.

        Args:
            values: by name in any case; a name that is no field goes into ``extra``.

        Raises:
            ValidationError: with each refused setting and why.
        """
        using = router.db_for_write(cls)
        with transaction.atomic(using=using):
            row = cls.locked_row(using)
            assigned = row._assign(cls.masked(values))
            # What is assigned is written even if it seems to be stored already: a value that
            # could not be read stands for another.
            row.save(using=using, update_fields=assigned | row._changed_fields())

    @classmethod
    def locked_row(cls, using: str) -> Self:
        """The row, which other writers wait for until this transaction ends; made if missing.

        What is unreadable in it is as the settings have it.
        """
        snapshot = cls.read_locked(using)
        if snapshot._stored is None:
            cls._make_and_lock_row(using)
            snapshot = cls.read_locked(using)
        history.note_locked(cls, using, snapshot)
        return cls._from_snapshot(snapshot, using)

    @classmethod
    def read_locked(cls, using: str) -> Snapshot:
        """Lock the row if there is one, and read it. The first statement of a transaction.

        On SQLite one that begins as a reader may not become a writer.
        """
        connection = transaction.get_connection(using)
        can_lock = connection.features.has_select_for_update and connection.in_atomic_block
        if not can_lock:
            cls._lock_row(using)
        with closing(RowReader(cls, connection, for_update=can_lock)) as reader:
            return reader.snapshot(reader.stored())

    @classmethod
    def readable_row(cls, using: str) -> Self:
        """The row, or the defaults while there is none.

        Not by the ORM, which one unreadable value stops: it is then as the settings have it.
        """
        return cls._from_snapshot(cls.read(transaction.get_connection(using)), using)

    def read_as(self) -> Snapshot:
        """What the row said when this instance was made of it."""
        if self._read is None:
            values = {name: self.__dict__[name] for name in self.setting_fields()}
            self._read = Snapshot(self._meta.label, values)
        return self._read

    @classmethod
    def _lock_row(cls, using: str) -> bool:
        """Make other writers wait until this transaction ends; whether there is a row.

        By an UPDATE that changes nothing: unlike ``select_for_update`` it locks on SQLite too,
        where it also spares the transaction from starting as a reader that cannot become a
        writer.
        """
        # Not by the model's own QuerySet, which would announce it.
        rows: models.QuerySet[Any] = models.QuerySet(cls, using=using)
        return bool(rows.filter(pk=ROW_ID).update(version=F("version")))

    @classmethod
    def _make_and_lock_row(cls, using: str) -> None:
        if not cls._lock_row(using):
            rows: models.QuerySet[Any] = models.QuerySet(cls, using=using)
            rows.bulk_create([cls()], ignore_conflicts=True)
            cls._lock_row(using)

    @classmethod
    def _from_snapshot(cls, snapshot: Snapshot, using: str | None) -> Self:
        """An instance of the stored row. Not by the ORM, which one unreadable value stops."""
        # deepcopy: in a snapshot lists and dicts are frozen.
        row = cls(**copy.deepcopy(dict(snapshot)), version=snapshot.version)
        row._state.adding = False
        row._state.db = using
        row._read = snapshot
        row._remember()
        return row

    def _assign(self, values: Mapping[str, Any]) -> set[str]:
        """Set and validate these settings, and return the names of their fields.

        Raises:
            ValidationError: with each refused setting and why.
        """
        fields, pinned = self.setting_fields(), ConfigManager(type(self))._pins()
        errors: dict[str, Any] = {}
        assigned: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for given, value in values.items():
            name = self.setting_name(given)
            try:
                if (pin := pinned.get(name if name in fields else EXTRA)) is not None:
                    raise ValidationError(
                        gettext(
                            "It is pinned by %(origin)s, and so cannot be set here: change or "
                            "remove it there."
                        ),
                        code="pinned",
                        params={"origin": pin.origin},
                    )
                if name in assigned or name in extra or name in errors:
                    raise ValidationError(gettext("Given twice."), code="twice")
                if name in fields:
                    assigned[name] = converted(fields[name], value)
                else:
                    extra[name] = self._storable(name, value)
            except ValidationError as error:
                errors[name] = error.error_list
        if extra:
            assigned[EXTRA] = {**assigned.get(EXTRA, self.extra), **extra}
        for name, value in assigned.items():
            setattr(self, name, value)
        names = {fields[name].name for name in assigned}
        try:
            # What is not given is not looked at: it may be invalid, and is not made worse.
            self.full_clean(exclude={field.name for field in self._meta.concrete_fields} - names)
        except ValidationError as error:
            errors = error.update_error_dict(errors)
        if errors:
            raise ValidationError(errors)
        return names

    def _storable(self, name: str, value: Any) -> Any:
        """``value`` if it can be an extra setting."""
        if conf.STRICT:
            near = did_you_mean(near_names(name, self.setting_fields()))
            raise ValidationError(
                f"There is no such setting.{near} SITECONFIG['STRICT'] allows none that is no "
                f"field of {self._meta.label}.",
                code="unknown",
            )
        if not name.strip():
            raise ValidationError(gettext("A setting needs a name."), code="unnamed")
        validate_json({name: value})
        return value

    # Saving an instance

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> Self:
        instance = super().from_db(*args, **kwargs)
        instance._remember()
        return instance

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        super().refresh_from_db(*args, **kwargs)
        fields = kwargs.get("fields", args[1] if len(args) > 1 else None)
        self._remember(fields)

    def save(self, **options: Any) -> None:
        """Save what was changed since the instance was loaded, and only that.

        So two instances that change different settings do not undo each other.

        Args:
            options: as for any model; with ``update_fields`` those are saved.

        Raises:
            RowExistsError: the instance is new, and the row exists.
        """
        options = {name: given for name, given in options.items() if given not in (None, False)}
        options["using"] = using = options.get("using") or router.db_for_write(
            type(self), instance=self
        )
        names = options.get("update_fields")
        if names is not None:
            # None at all means nothing to do, as for any model.
            options["update_fields"] = {*names, "version"} if names else names
        elif not (
            options.get("force_update")
            or self._state.db not in (None, using)
            or (options.get("force_insert") and not self._state.adding)
        ):
            options |= self._what_to_save(using)
        with in_transaction(using):
            super().save(**options)
        self._remember()

    def _what_to_save(self, using: str) -> dict[str, Any]:
        """The options with which to save an instance for which none are given.

        Raises:
            RowExistsError: the instance is new, and the row exists.
        """
        row_exists = type(self)._base_manager.using(using).filter(pk=ROW_ID).exists()
        if row_exists and self._state.adding:
            raise RowExistsError(self._meta.label)
        if row_exists:
            return {"update_fields": self._changed_fields()}
        # Also where it has been deleted since: saving makes it anew, as with any model.
        return {"force_insert": True}

    def _changed_fields(self) -> set[str]:
        changed = {"version"}
        for name, field in self.setting_fields().items():
            if name in self.__dict__ and (
                getattr(field, "auto_now", False)
                or name not in self._stored
                or not same(self._stored[name], _stored_value(field, self.__dict__[name]))
            ):
                changed.add(field.name)
        return changed

    def _remember(self, names: Iterable[str] | None = None) -> None:
        """Note what is stored in these fields, or in all, to tell later what has been changed."""
        self._stored = self.__dict__.get("_stored", {}) | {
            attribute: copy.deepcopy(_stored_value(field, self.__dict__[attribute]))
            for attribute, field in self.setting_fields().items()
            if attribute in self.__dict__
            and (names is None or attribute in names or field.name in names)
        }


def config_models() -> list[type[ConfigModel]]:
    """Every config model of the project that has a table of its own."""
    return [
        model
        for model in apps.get_models()
        if issubclass(model, ConfigModel) and not model._meta.proxy and not model._meta.swapped
    ]


def default_of(field: models.Field[Any, Any]) -> Any:
    """The value of a setting that is stored nowhere, in the type that its field reads."""
    value = field.get_default()
    if isinstance(value, DatabaseDefault):
        # Known without asking the database if it is a plain value.
        expression = value.expression  # type: ignore[attr-defined] # missing in the stubs
        value = getattr(expression, "value", None)
    if isinstance(value, Enum):
        value = value.value  # as it comes back from the database
    return value if value is None else as_stored(field, field.to_python(value))


def as_stored(field: models.Field[Any, Any], value: Any) -> Any:
    """``value``, of the field's own type, as it comes back from the database."""
    if isinstance(field, models.DateTimeField):
        return with_zone(field, value)
    if isinstance(field, models.DecimalField) and isinstance(value, Decimal) and value.is_finite():
        with suppress(ArithmeticError):  # too many digits, which validation says
            return value.quantize(Decimal(1).scaleb(-field.decimal_places))
    return value


def converted(field: models.Field[Any, Any], value: Any) -> Any:
    """``value`` in the type of ``field``.

    Raises:
        ValidationError: it cannot be converted or stored, or something would be lost.
    """
    invalid = field.error_messages.get("invalid") or _("This is no valid value.")
    refused = ValidationError(invalid, code="invalid", params={"value": value})
    if isinstance(value, models.Model):
        value = key_of(field, value)
    if isinstance(value, Secret) and not isinstance(field, SecretField):
        # It may have come here by mistake; str() of it says that it has not.
        raise ValidationError(gettext("This is a secret, which is not stored in plain."), "secret")
    if value is None and not field.null:
        raise ValidationError(field.error_messages["null"], code="null")
    check_given(field, value)
    if isinstance(field, TEXTS) and not is_text(value):
        raise refused
    if isinstance(field, ExtraField):
        validate_json_object(value)  # a field that may be blank does not validate []
    try:
        value = with_zone(field, field.to_python(with_zone(field, value)))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise refused from error
    check_storable(field, value)
    return value


def with_zone(field: models.Field[Any, Any], value: Any) -> Any:
    """``value``, in UTC if it is a moment; one that says no time zone is of the current one.

    In UTC, for Python takes no moment at a change of the clock for equal to one of another zone.

    Raises:
        ValidationError: in the current time zone there is no such moment, or there are two.
    """
    if not isinstance(field, models.DateTimeField) or not isinstance(value, date):
        return value
    moment = value if isinstance(value, datetime) else datetime.combine(value, time.min)
    moment = from_current_timezone(moment)  # as a form does
    return moment.astimezone(UTC) if settings.USE_TZ else moment


def key_of(field: models.Field[Any, Any], related: models.Model) -> Any:
    """What ``field`` stores to point to ``related``.

    Raises:
        ValidationError: it cannot point to it.
    """
    if not isinstance(field, models.ForeignKey) or not isinstance(related, field.related_model):
        raise ValidationError(gettext("This setting cannot be such an object."), code="object")
    key = getattr(related, field.target_field.attname)
    if key is None:
        raise ValidationError(gettext("This object has not been saved."), code="unsaved")
    return key


def is_text(value: Any) -> bool:
    """Whether ``value`` says a text. str() would make one of anything: "['a']" of a list."""
    return value is None or isinstance(value, str | Promise | int | float | Decimal)


def _stored_value(field: models.Field[Any, Any], value: Any) -> Any:
    """By what the values of two moments are to be compared."""
    if isinstance(value, File) and not getattr(value, "_committed", False):
        return object()  # an upload, which its name does not tell from another
    try:
        value = field.get_prep_value(value)
    except (TypeError, ValueError):
        return value  # an expression, or what the database will refuse
    if isinstance(value, Secret) and value.is_unreadable:
        return value.stored  # differs from an empty one, which clears it
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


class LogLevel(models.TextChoices):
    """The names of the standard levels of ``logging``."""

    DEBUG = "DEBUG", _("Debug: everything")
    INFO = "INFO", _("Info: what happens")
    WARNING = "WARNING", _("Warning: what needs a look")
    ERROR = "ERROR", _("Error: what failed")
    CRITICAL = "CRITICAL", _("Critical: what stops the site")


class SiteConfiguration(ConfigModel):
    """The settings that ship ready to use; ``SITECONFIG_MODEL`` puts others in their place."""

    site_name = models.CharField(
        _("site name"),
        max_length=100,
        default="My site",
        help_text=_("The name shown in the title of every page. 1 to 100 characters."),
    )
    maintenance_mode = models.BooleanField(
        _("maintenance mode"),
        default=False,
        help_text=_("While this is on, visitors see a maintenance page; the admin stays open."),
    )
    support_email = models.EmailField(
        _("support e-mail"),
        blank=True,
        default="",
        help_text=_("Where visitors can write to. Empty: no address is shown."),
    )
    api_key = SecretField(
        _("API key"),
        max_length=200,
        blank=True,
        default="",
        help_text=_("The key sent with requests to the external service. Not set: none is sent."),
    )
    timeout = models.PositiveIntegerField(
        _("timeout"),
        default=30,
        validators=[MinValueValidator(1), MaxValueValidator(300)],
        help_text=_("Seconds to wait for the external service before giving up. 1 to 300."),
    )
    retry_count = models.PositiveIntegerField(
        _("retry count"),
        default=3,
        validators=[MinValueValidator(0), MaxValueValidator(10)],
        help_text=_("How many times a failed request is tried again. 0 to 10; 0: never."),
    )
    log_level = models.CharField(
        _("log level"),
        max_length=8,
        choices=LogLevel.choices,
        default=LogLevel.INFO,
        help_text=_("The least severe messages that Logger writes. In force as soon as saved."),
    )

    units = {"timeout": _("seconds")}

    class Meta:
        verbose_name = _("site configuration")
        verbose_name_plural = _("site configuration")
        swappable = "SITECONFIG_MODEL"
        # The row is never added or deleted by a person.
        default_permissions = ("change", "view")


class ChangeQuerySet(models.QuerySet["ConfigChange"]):
    """A QuerySet that can add and read."""

    def bulk_create(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("update_conflicts"):
            raise AppendOnlyError
        return super().bulk_create(*args, **kwargs)

    def update(self, **values: Any) -> NoReturn:
        raise AppendOnlyError

    def delete(self) -> NoReturn:
        raise AppendOnlyError

    def bulk_update(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnlyError

    def _raw_delete(self, using: str | None) -> NoReturn:
        raise AppendOnlyError


class ConfigChange(models.Model):
    """One write of a config model's settings, or one change that was found afterwards.

    Records are only ever added.
    """

    model = models.CharField(max_length=255)
    """The config model, ``"app_label.ModelName"``."""
    at = models.DateTimeField(default=timezone.now)
    who = models.CharField(max_length=255, blank=True, default="")
    """The user's name as it was then; empty: not known."""
    who_key = models.CharField(max_length=255, blank=True, default="")
    """The user's primary key, as text."""
    how = models.CharField(max_length=8, choices=history.How.choices)
    reason = models.TextField(blank=True, default="")
    version = models.BigIntegerField()
    """The row's version after the change."""
    changes = models.JSONField(encoder=history.Encoder)
    """Setting → ``{"old": …, "new": …}``; a side that is missing was not there, or is not shown. A
    setting that is no field is called ``"extra.its_name"``."""
    state = models.JSONField()
    """Every setting as it was then: see history.py."""

    objects = ChangeQuerySet.as_manager()

    class Meta:
        verbose_name = _("settings change")
        verbose_name_plural = _("settings changes")
        default_permissions = ("view",)
        permissions = [("revert_configchange", "Can revert settings changes")]
        base_manager_name = "objects"
        indexes = [models.Index(fields=["model", "-id"], name="siteconfig_newest_of_model")]

    def __str__(self) -> str:
        return f"{self.model}, {self.at:%Y-%m-%d %H:%M}: {', '.join(self.changes)}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnlyError
        super().save(*args, **{**kwargs, "force_insert": True})

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnlyError


class ConfigProcess(models.Model):
    """A process that reads the settings of a config model, and what it has read of them."""

    process = models.CharField(max_length=32)
    host = models.CharField(max_length=255)
    pid = models.PositiveIntegerField()
    model = models.CharField(max_length=255)
    version = models.BigIntegerField()
    content = models.CharField(max_length=32)
    seen_at = models.DateTimeField(db_index=True)

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["process", "model"], name="siteconfig_one_row_a_process_and_model"
            )
        ]

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}"
