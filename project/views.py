"""The pages of the reference site: reading settings, and setting them over HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_permission_codename
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db.models import BooleanField
from django.http import JsonResponse
from django.shortcuts import render
from django.utils.text import get_text_list
from django.views.decorators.http import require_POST, require_safe

from siteconfig import ConfigManager, Logger
from siteconfig.conf import get_model
from siteconfig.exceptions import did_you_mean, near_names
from siteconfig.fields import SecretField
from siteconfig.snapshot import EXTRA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from django.db.models import Field
    from django.http import HttpRequest, HttpResponse

    from project.http import SiteRequest
    from siteconfig.snapshot import Snapshot

#: Parameters of a refusal that do not repeat the value.
HARMLESS: tuple[str, ...] = ("limit_value", "why")


@require_safe
def home(request: SiteRequest) -> HttpResponse:
    """Every setting as this request sees it, and where it comes from."""
    context = {
        "rows": list(_rows(request.config)),
        "status": ConfigManager().status(),
        "may_change": _may_change(request),
    }
    return render(request, "project/home.html", context)


@require_safe
def my_view(request: HttpRequest) -> JsonResponse:
    """A view as one writes it: settings are read like attributes, and lines are logged."""
    config = ConfigManager()
    timeout, retry_count = config.timeout, config.retry_count
    Logger().info("my_view read timeout %s and retry_count %s", timeout, retry_count)
    return JsonResponse({"timeout": timeout, "retry_count": retry_count})


@require_safe
async def my_async_view(request: HttpRequest) -> JsonResponse:
    """The same in a coroutine: reading takes no ``await``."""
    config = ConfigManager()
    timeout, retry_count = config.timeout, config.retry_count
    Logger().info("my_async_view read timeout %s and retry_count %s", timeout, retry_count)
    return JsonResponse({"timeout": timeout, "retry_count": retry_count})


@require_POST
def update_config(request: SiteRequest) -> JsonResponse:
    """Set the settings that are posted, as form fields or as a JSON object: all or none.

    Answers ``{"set": [names], "version": number}``, or ``{"errors": {name: [why]}}`` with status
    400, or 403. No answer repeats a value that was sent: it may be a secret.
    """
    if not _may_change(request):
        # No redirect to the login page: the body would be lost on the way, and a program would
        # take the page it ends up at for success.
        return _refusal(403, "Log in as a member of staff who may change the site configuration.")
    try:
        values = _posted(request)
        _refuse_unknown(values)
        ConfigManager().set_settings(**values)
    except ValidationError as error:
        return JsonResponse({"errors": _messages(error)}, status=400)
    names = sorted(get_model().setting_name(name) for name in values)
    Logger().info("update_config: user %s set %s", request.user.pk, ", ".join(names))
    return JsonResponse({"set": names, "version": ConfigManager().snapshot().version})


def _rows(config: Snapshot) -> Iterator[dict[str, Any]]:
    fields = get_model().setting_fields()
    for name in sorted(fields, key=EXTRA.__eq__):  # that one last, the others as they are
        field, value = fields[name], config[name]
        if isinstance(field, SecretField):
            # Not even its end, as the admin does: the page is open to everybody.
            shown = "set" if value else "not set"
        elif name == EXTRA:
            # Code decides what is in there, so only the names are for everyone's eyes.
            shown = ", ".join(sorted(value))
        elif isinstance(field, BooleanField):
            shown = "on" if value else "off"
        else:
            shown = str(value)
        yield {"name": name, "shown": shown, "help": field.help_text}


def _may_change(request: SiteRequest) -> bool:
    opts = get_model()._meta
    permission = f"{opts.app_label}.{get_permission_codename('change', opts)}"
    user = request.user
    return user.is_active and user.is_staff and user.has_perm(permission)


def _posted(request: HttpRequest) -> dict[str, Any]:
    """What was sent, by name.

    Raises:
        ValidationError: it cannot be understood.
    """
    if request.content_type == "application/json":
        values = _json_object(request.body)
    else:
        # A file is no value, but not to be passed over in silence either.
        lists: dict[str, list[Any]] = {**dict(request.POST.lists()), **dict(request.FILES.lists())}
        lists.pop("csrfmiddlewaretoken", None)
        if twice := [name for name, given in lists.items() if len(given) != 1]:
            raise ValidationError(dict.fromkeys(twice, "Given twice."))
        values = {name: given[0] for name, given in lists.items()}
    if not values:
        raise ValidationError("Give at least one setting, as a form field or in a JSON object.")
    return values


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body, object_pairs_hook=_unique, parse_constant=_no_constant)
        # "\ud800" is JSON, but half a character, which no database stores.
        json.dumps(values, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValidationError(
            f"The body is no valid JSON: {error.msg}, line {error.lineno}, column {error.colno}."
        ) from error
    except (ValueError, RecursionError) as error:
        # Their texts may repeat a part of the body.
        raise ValidationError("The body is no valid JSON.") from error
    if not isinstance(values, dict):
        raise ValidationError('The body must be a JSON object: {"name": value, …}.')
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValidationError("The JSON gives the same name twice in one object.")
    return values


def _no_constant(name: str) -> None:
    # NaN and Infinity are Python's own extension of JSON.
    raise ValueError(name)


def _refuse_unknown(values: Mapping[str, Any]) -> None:
    """Take fields only, where ``set_settings`` would put other names into ``extra``."""
    model = get_model()
    known = model.setting_fields()
    if unknown := [name for name in values if model.setting_name(name) not in known]:
        raise ValidationError(
            {
                name: f"There is no such setting.{did_you_mean(near_names(name, known))}"
                for name in unknown
            }
        )


def _messages(error: ValidationError) -> dict[str, list[str]]:
    if not hasattr(error, "error_dict"):
        return {NON_FIELD_ERRORS: [_message(one, None) for one in error.error_list]}
    fields = get_model().setting_fields()
    return {
        name: [_message(one, fields.get(name)) for one in errors]
        for name, errors in error.error_dict.items()
    }


def _message(error: ValidationError, field: Field[Any, Any] | None) -> str:
    """Why a value is refused, in Django's words unless they repeat the value."""
    if not error.params:
        return str(error.message)
    told = {name: error.params[name] for name in HARMLESS if name in error.params}
    if error.code in ("max_length", "min_length"):
        told["show_value"] = error.params["show_value"]  # a length here; elsewhere the value
    try:
        return str(error.message % told)
    except KeyError:
        return _what_is_valid(field)


def _what_is_valid(field: Field[Any, Any] | None) -> str:
    if field is None:
        return "The value is not valid."
    if field.choices:
        choices = [str(value) for value, _label in field.flatchoices]
        return f"The value is not valid. Choose {get_text_list(choices, 'or')}."
    if isinstance(field, BooleanField):
        return "The value is not valid. Choose true or false."
    return f"The value is not valid. {field.help_text}".strip()


def _refusal(status: int, why: str) -> JsonResponse:
    return JsonResponse({"errors": {NON_FIELD_ERRORS: [why]}}, status=status)
