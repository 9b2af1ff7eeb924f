"""Pins: settings that this deployment fixes, whatever the row says.

``SITECONFIG["PINNED"]`` names them, ``{"timeout": 5, "shop.ShopConfig.currency": "USD"}``, and so
do variables of the environment, ``SITECONFIG_PIN_TIMEOUT=5`` or
``SITECONFIG_PIN_SHOP_SHOPCONFIG_CURRENCY=USD``; of two for one setting the environment wins. A name
without a model is that of a setting of the default model.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext

from siteconfig.conf import conf, model_label
from siteconfig.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from siteconfig.models import ConfigModel

#: What the name of a variable that pins a setting begins with.
PREFIX = "SITECONFIG_PIN_"


@dataclass(frozen=True, slots=True)
class Pin:
    """The value of a setting in this deployment."""

    value: Any = field(repr=False)
    origin: str
    """Where it is given, in words: the key of ``SITECONFIG`` or the variable."""


class Given(NamedTuple):
    """A pin as it is written."""

    origin: str
    label: str
    """The config model, in lower case: ``"app_label.modelname"``; empty: not told."""
    name: str
    """The setting; for a variable perhaps with the model before it."""
    value: Any
    is_text: bool
    """The value is the text of a variable."""


def given() -> Iterator[Given]:
    """Every pin there is, for whatever model; the later of two for one setting wins."""
    pinned = conf.PINNED
    for key, value in pinned.items() if isinstance(pinned, dict) else ():
        label, _, name = str(key).rpartition(".")
        yield Given(f'SITECONFIG["PINNED"][{key!r}]', label.lower(), name, value, is_text=False)
    for variable, text in sorted(os.environ.items()):
        if variable.startswith(PREFIX):
            name = variable.removeprefix(PREFIX)
            yield Given(f"the environment variable {variable}", "", name, text, is_text=True)


def setting_of(pin: Given, model: type[ConfigModel]) -> str | None:
    """The setting of ``model`` that is pinned, by the name of its attribute; None: none is."""
    own_label = model._meta.label_lower
    is_default = own_label == model_label().lower()
    name = pin.name.lower()
    prefix = own_label.replace(".", "_") + "_"
    if pin.is_text and not is_default and name.startswith(prefix):
        name = name.removeprefix(prefix)
    elif pin.label != own_label and not (is_default and not pin.label):
        return None
    attribute = model.setting_name(name)
    return attribute if attribute in model.setting_fields() else None


def pins_of(model: type[ConfigModel]) -> tuple[dict[str, Pin], dict[str, ValidationError]]:
    """The pins of ``model``, by setting, and why others are refused, by origin."""
    pins: dict[str, Pin] = {}
    refused: dict[str, ValidationError] = {}
    for one in given():
        if (name := setting_of(one, model)) is None:
            continue
        try:
            pins[name] = Pin(_value(model, name, one), one.origin)
        except ValidationError as error:
            refused[one.origin] = error
    return pins, refused


def _value(model: type[ConfigModel], name: str, pin: Given) -> Any:
    setting = model.setting_fields()[name]
    # As a Secret first, so that no error report shows it.
    value = model.masked({name: pin.value})[name]
    if pin.is_text and not isinstance(value, Secret):
        value = _from_text(setting, pin.value)
    return model.checked_setting(name, value)


#: How a variable says yes and no.
WORDS = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def _from_text(setting: models.Field[Any, Any], text: str) -> Any:
    """What a field is to make its value of; the text itself unless that would not be enough."""
    if not text and setting.null:
        return None
    if isinstance(setting, models.BooleanField):
        if text.lower() not in WORDS:
            words = ", ".join(WORDS)
            raise ValidationError(gettext("It must be one of %(words)s."), "word", {"words": words})
        return WORDS[text.lower()]
    if isinstance(setting, models.JSONField):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValidationError(gettext("It must be JSON."), "not_json") from error
    return text
