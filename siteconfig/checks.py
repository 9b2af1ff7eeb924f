"""System checks: what is wrong with the settings or a config model, and the line to write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast, get_args, get_origin

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning
from django.core.checks import register as register_check
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from django.db import connections, router, transaction
from django.utils.text import capfirst
from solo import settings as solo_settings

from siteconfig import conf, crypto, pins, transports
from siteconfig.config_manager import ConfigManager
from siteconfig.exceptions import did_you_mean, near_names
from siteconfig.fields import SecretField
from siteconfig.handlers import CAN_ROTATE
from siteconfig.logger import FORMATTERS
from siteconfig.models import ConfigChange, ConfigModel, ConfigQuerySet, config_models
from siteconfig.sealing import State, states
from siteconfig.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django.db import models


def register() -> None:
    """Hand the checks to Django; doing it twice is harmless."""
    for check in (
        check_settings,
        check_model_setting,
        check_solo_cache,
        check_transport,
        check_pins,
        check_intervals,
    ):
        register_check(Tags.compatibility)(check)
    register_check(Tags.security)(check_secret_keys)
    register_check(Tags.models)(check_config_models)
    register_check(Tags.database)(check_stored_secrets)


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """``SITECONFIG`` is a dict of known keys, each with a value of its type."""
    given = getattr(settings, "SITECONFIG", {})
    if not isinstance(given, dict):
        return [
            Error(
                f"SITECONFIG is of type {type(given).__name__}; it must be a dict.",
                hint='Write, for example: SITECONFIG = {"LOG_FILE": "site.log"}.',
                id="siteconfig.E001",
            )
        ]
    known = conf.known_settings()
    return [
        message for key, value in given.items() for message in check_setting(str(key), value, known)
    ]


def check_setting(key: str, value: object, known: dict[str, Any]) -> list[CheckMessage]:
    if key not in known:
        near = did_you_mean([name.upper() for name in near_names(key, map(str.lower, known))])
        return [
            Warning(
                f"SITECONFIG has no setting {key!r}; its value is not used.{near}",
                hint=f"Its settings are {', '.join(sorted(known))}.",
                id="siteconfig.W002",
            )
        ]
    types = [get_origin(one) or one for one in get_args(known[key]) or (known[key],)]
    if isinstance(value, tuple(types)) and (bool in types or not isinstance(value, bool)):
        return check_setting_value(key, value)
    names = " or ".join("None" if one is type(None) else one.__name__ for one in types)
    return [
        Error(
            f"SITECONFIG[{key!r}] is of type {type(value).__name__}; it must be {names}.",
            hint=f'Write, for example: SITECONFIG = {{"{key}": {EXAMPLES[key]}}}.',
            id="siteconfig.E003",
        )
    ]


#: Values to write for each setting, in Python.
EXAMPLES = {
    "FLEET": "False",
    "HISTORY": "False",
    "LAST_KNOWN_GOOD": '"/var/lib/site/settings.json"',
    "LISTEN_DATABASE": '"direct"',
    "LOG_BACKUPS": "5",
    "LOG_FILE": '"site.log"',
    "LOG_FORMAT": '"json"',
    "LOG_MAX_BYTES": "10_000_000",
    "MAX_STALENESS": "60.0",
    "PINNED": '{"timeout": 5}',
    "POLL_INTERVAL": "1.0",
    "REDIS_URL": '"redis://127.0.0.1:6379/0"',
    "SECRET_KEYS": '[os.environ["SITE_SECRET_KEY"]]',
    "STRICT": "True",
    "TRANSPORT": '"auto"',
}


def check_setting_value(key: str, value: Any) -> list[CheckMessage]:
    """What a value of the right type may still be wrong in."""
    if key == "LOG_FORMAT" and value not in FORMATTERS:
        formats = " or ".join(map(repr, sorted(FORMATTERS)))
        problem = f"is {value!r}; it must be {formats}."
    elif key in {"LOG_BACKUPS", "LOG_MAX_BYTES"} and value < 0:
        problem = f"is {value}; it must be 0 or more."
    elif key in {"MAX_STALENESS", "POLL_INTERVAL"} and value is not None and not value > 0:
        problem = f"is {value}; it must be more than 0 seconds."
    elif key == "TRANSPORT" and value not in transports.NAMES:
        names = " or ".join(map(repr, sorted(transports.NAMES)))
        problem = f"is {value!r}; it must be {names}."
    elif key == "LISTEN_DATABASE" and value is not None and value not in connections:
        problem = f"is {value!r}; it must be an alias in DATABASES."
    elif key == "LOG_MAX_BYTES" and value and not CAN_ROTATE:
        text = "SITECONFIG['LOG_MAX_BYTES'] has no effect: this system has no fcntl.flock."
        hint = "Remove it, and let another program rotate the file."
        return [Warning(text, hint=hint, id="siteconfig.W011")]
    else:
        return []
    hint = f'Write, for example: SITECONFIG = {{"{key}": {EXAMPLES[key]}}}.'
    return [Error(f"SITECONFIG[{key!r}] {problem}", hint=hint, id="siteconfig.E010")]


def check_model_setting(**kwargs: Any) -> list[CheckMessage]:
    """``SITECONFIG_MODEL`` names an installed config model."""
    hint = 'Write SITECONFIG_MODEL = "app_label.ModelName", or leave it out for the shipped model.'
    try:
        model: type[models.Model] = conf.get_model()
    except ImproperlyConfigured as error:
        return [Error(str(error), hint=hint, id="siteconfig.E004")]
    if not issubclass(model, ConfigModel):
        text = f"SITECONFIG_MODEL names {model._meta.label}, which is no ConfigModel."
        hint = f"Write class {model.__name__}(siteconfig.models.ConfigModel)."
        return [Error(text, hint=hint, id="siteconfig.E005")]
    return []


def check_solo_cache(**kwargs: Any) -> list[CheckMessage]:
    """django-solo's cache is off: it serves values of rolled-back transactions for minutes."""
    cache = getattr(settings, "SOLO_CACHE", solo_settings.SOLO_CACHE)
    if not cache:
        return []
    return [
        Error(
            f"SOLO_CACHE is {cache!r}. django-solo fills that cache before the commit, so it "
            f"goes on serving what was rolled back.",
            hint="Remove SOLO_CACHE: ConfigManager reads from memory without it.",
            id="siteconfig.E006",
        )
    ]


def check_transport(**kwargs: Any) -> list[CheckMessage]:
    """The transport that is asked for can work here."""
    transport = transports.TRANSPORTS.get(conf.conf.TRANSPORT)
    if transport is None:
        return []
    try:
        alias = router.db_for_write(conf.get_model())
    except ImproperlyConfigured:
        return []  # reported by check_model_setting
    return [
        Error(
            f"SITECONFIG['TRANSPORT'] is {transport.name!r}, and {problem} Until then the row is "
            f"polled.",
            hint=hint,
            id="siteconfig.E013",
        )
        for problem, hint in transport.problems(alias)
    ]


def check_pins(**kwargs: Any) -> list[CheckMessage]:
    """Every pin names a setting, and gives it a value that its field takes."""
    messages: list[CheckMessage] = []
    unknown = {pin.origin: pin for pin in pins.given()}
    for model in config_models():
        unknown = {
            origin: pin for origin, pin in unknown.items() if pins.setting_of(pin, model) is None
        }
        messages += [
            Error(
                f"{capfirst(origin)} is refused: {' '.join(error.messages)} Until it is mended, "
                f"the setting is as the row says.",
                hint="Give a value that the settings page would take, or remove it.",
                id="siteconfig.E019",
            )
            for origin, error in pins.pins_of(model)[1].items()
        ]
    try:
        names = list(conf.get_model().setting_fields())
    except ImproperlyConfigured:
        names = []  # reported by check_model_setting
    return messages + [
        Error(
            f"{capfirst(origin)} pins nothing: there is no such setting."
            f"{did_you_mean(near_names(pin.name, names))}",
            hint="A setting of the default model is pinned by its name, any other by "
            '"app_label.ModelName.name". Only fields can be pinned.',
            id="siteconfig.E020",
        )
        for origin, pin in unknown.items()
    ]


def check_intervals(**kwargs: Any) -> list[CheckMessage]:
    """The row is looked at more often than ``health/`` asks for."""
    poll, limit = conf.conf.POLL_INTERVAL, conf.conf.MAX_STALENESS
    if not (isinstance(poll, int | float) and isinstance(limit, int | float) and poll > limit):
        return []
    return [
        Warning(
            f"SITECONFIG['POLL_INTERVAL'] is {poll}, and more than SITECONFIG['MAX_STALENESS'], "
            f"{limit}: between two polls health/ answers 503, though all is well.",
            hint="Make MAX_STALENESS several times as long as POLL_INTERVAL, or None.",
            id="siteconfig.W021",
        )
    ]


def check_secret_keys(**kwargs: Any) -> list[CheckMessage]:
    """Secrets can be sealed and opened, if a config model has any."""
    if crypto.has_keys():
        return list(check_given_keys())
    models = " and ".join(model._meta.label for model in secret_models())
    if not models:
        return []
    install = "" if crypto.is_available() else f"Run: {crypto.INSTALL} "
    return [
        Warning(
            f"{models} can store no secret: there is no key to seal it with, and none is stored "
            f"in plain.",
            hint=f"{install}{crypto.HOW_TO_GIVE_A_KEY}",
            id="siteconfig.W018",
        )
    ]


def check_given_keys() -> Iterator[CheckMessage]:
    """The keys that are given can be used. None is shown."""
    problems = [f"{problem} What it sealed reads as empty." for problem in crypto.bad_keys()]
    hint = f"Mend or remove it. {crypto.HOW_TO_GIVE_A_KEY}"
    if not crypto.is_available():
        problems = ["There are keys for secrets, but the package cryptography is not installed."]
        hint = f"Run: {crypto.INSTALL}"
    for problem in problems:
        yield Error(problem, hint=hint, id="siteconfig.E014")


def check_stored_secrets(
    *, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Every stored secret is sealed with the newest key."""
    return [
        message
        for model in secret_models()
        if router.db_for_write(model) in (databases or ())
        for message in check_secrets_of(model)
    ]


def check_secrets_of(model: type[ConfigModel]) -> Iterator[CheckMessage]:
    try:
        # In a savepoint, should there be a transaction: on PostgreSQL it would else be spoilt.
        with transaction.atomic(using=router.db_for_write(model)):
            found = states(model)
    except DatabaseError:
        return  # before migrate, the table or a column is missing
    for name, state in found.items():
        if state is State.UNREADABLE:
            # No error, which would keep a copy of the database without its keys from migrate.
            yield Warning(
                f"The secret {state.value}, and so it reads as empty.",
                hint='Put the key that sealed it back into SITECONFIG["SECRET_KEYS"], or, if it '
                "is lost, set the setting anew.",
                obj=model.secret_fields()[name],
                id="siteconfig.W016",
            )
        elif state.is_outdated:
            yield Warning(
                f"The secret {state.value}.",
                hint=crypto.obstacle() or "Run: manage.py siteconfig rotate-keys",
                obj=model.secret_fields()[name],
                id="siteconfig.W015",
            )


def secret_models() -> list[type[ConfigModel]]:
    """The config models that have secret settings."""
    return [model for model in config_models() if model.secret_fields()]


def check_config_models(*, app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Every field of every config model can be a setting."""
    configs = apps.get_app_configs() if app_configs is None else app_configs
    return [
        message
        for app_config in configs
        for model in app_config.get_models()
        if issubclass(model, ConfigModel)
        for message in check_config_model(cast("type[ConfigModel]", model))
    ]


def check_config_model(model: type[ConfigModel]) -> Iterator[CheckMessage]:
    if not isinstance(model._default_manager.all(), ConfigQuerySet):
        yield Error(
            "The default manager of a config model must use ConfigQuerySet: what update() and "
            "bulk_create() write would else not be noticed.",
            hint="Write objects = ConfigQuerySet.as_manager(), or a subclass of it, from "
            "siteconfig.models.",
            obj=model,
            id="siteconfig.E012",
        )
    for many in model._meta.local_many_to_many:
        yield Error(
            "A ManyToManyField cannot be a setting: it is no column of the row.",
            hint="Use a JSONField with the keys, or a ForeignKey.",
            obj=many,
            id="siteconfig.E023",
        )
    using = router.db_for_write(model)
    if conf.conf.HISTORY and not router.allow_migrate_model(using, ConfigChange):
        yield Warning(
            f"Changes of these settings are not recorded: the database {using!r} has no table for "
            f"siteconfig.ConfigChange.",
            hint="Let your router's allow_migrate() allow the app siteconfig there.",
            obj=model,
            id="siteconfig.W024",
        )
    for field in model.setting_fields().values():
        yield from check_field(field)


RESERVED = {*dir(ConfigManager), *dir(Snapshot), "version"}


def check_field(field: models.Field[Any, Any]) -> Iterator[CheckMessage]:
    if isinstance(field, SecretField):
        yield from check_secret_field(field)
    for name in {field.attname, field.name} & RESERVED:
        yield Error(
            f"A setting cannot be called {name!r}: ConfigManager and Snapshot have an "
            f"attribute of that name.",
            hint=f"Rename the field, for example to '{name}_setting'.",
            obj=field,
            id="siteconfig.E007",
        )
    if not (
        field.null or field.has_default() or field.has_db_default() or field.get_default() == ""
    ):
        yield Error(
            "A setting needs a default: the value in force before anybody sets one.",
            hint="Give the field a default=..., or null=True.",
            obj=field,
            id="siteconfig.E008",
        )
        return
    if not field.has_default():
        return
    try:
        default = field.get_default()
        value = field.to_python(default)
    except Exception as error:  # noqa: BLE001 - whatever the project's default or field raises
        yield wrong_default(field, f"cannot be used: {error}")
        return
    if value != default:
        kinds = f"of type {type(default).__name__}; the field holds {type(value).__name__}"
        yield wrong_default(field, f"is {kinds}")


#: The options that a SecretField cannot have, and why.
NOT_FOR_SECRETS = {
    "default": "the secret would be in the source code.",
    "db_default": "the secret would be in the source code, and in plain in the table.",
    "choices": "the secret would be in the source code, and in the form.",
    "unique": "each time a secret is sealed the text is another.",
    "db_index": "each time a secret is sealed the text is another.",
}


def check_secret_field(field: SecretField) -> Iterator[CheckMessage]:
    """None of its options gives the secret away, or asks of the database what it cannot do."""
    has_default = field.has_default() and field.default not in ("", None)
    given = {
        "default": has_default,
        "db_default": field.has_db_default(),
        "choices": field.choices is not None,
        "unique": field.unique,
        "db_index": field.db_index,  # type: ignore[attr-defined] # missing in the stubs
    }
    for option, why in NOT_FOR_SECRETS.items():
        if given[option]:
            yield Error(
                f"A SecretField cannot have the option {option}: {why}",
                hint=f"Remove {option}=..., and set the setting itself.",
                obj=field,
                id="siteconfig.E017",
            )


def wrong_default(field: models.Field[Any, Any], problem: str) -> CheckMessage:
    return Error(
        f"The default of this setting {problem}.",
        hint="Give it a default of the field's own type, for example "
        "default=datetime.timedelta(minutes=5) for a DurationField.",
        obj=field,
        id="siteconfig.E009",
    )
