"""The form field of a secret setting, and its widget: they take a value and never show one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from siteconfig.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping


class Given(NamedTuple):
    """What a form was given for a secret."""

    text: Secret
    """The new value; empty: there is none."""
    is_cleared: bool
    """The box to clear it is ticked."""

    @classmethod
    def of(cls, data: Any) -> Self:
        """``data`` of ``SecretInput``, or of any other widget that a project has chosen."""
        return data if isinstance(data, cls) else cls(Secret("" if data is None else data), False)


class SecretInput(forms.PasswordInput):
    """An input that is always empty, what is stored in words, and a box to clear it.

    Attributes:
        held: the stored secret, of which the words tell; the form field sets it.
        label: the field's own, by which the box is told from those of other secrets.
    """

    template_name = "siteconfig/widgets/secret.html"

    held: Secret | None = None
    label: str | None = None
    _is_cleared = False

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        # A browser that fills in a password by itself would replace the secret at the next save.
        defaults = {"autocomplete": "new-password", "autocapitalize": "none", "spellcheck": "false"}
        super().__init__({**defaults, **(attrs or {})}, render_value=False)

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        widget, held = context["widget"], Secret() if self.held is None else self.held
        box = self._box(name)
        input_id = widget["attrs"].get("id")
        is_set = bool(held) or held.is_unreadable
        widget |= {
            "state": held.described(),
            "how_to_keep": gettext("Leave empty to keep it.") if is_set else "",
            "state_id": f"{input_id}_state" if input_id else None,
            "box_name": box if is_set and not self.is_required else None,
            "box_id": f"{input_id}_clear" if input_id else f"id_{box}",
            "box_text": gettext("Clear"),
            "box_label": gettext("Clear %(setting)s") % {"setting": self.label or name},
            "is_cleared": self._is_cleared,
        }
        if widget["state_id"]:
            described_by = [widget["attrs"].get("aria-describedby"), widget["state_id"]]
            widget["attrs"]["aria-describedby"] = " ".join(filter(None, described_by))
        return context

    def value_from_datadict(self, data: Mapping[str, Any], files: Any, name: str) -> Given:
        text = Secret(super().value_from_datadict(data, files, name) or "")
        box = forms.CheckboxInput().value_from_datadict(data, files, self._box(name))
        self._is_cleared = bool(box)
        return Given(text, self._is_cleared)

    def value_omitted_from_data(self, data: Mapping[str, Any], files: Any, name: str) -> bool:
        return name not in data and self._box(name) not in data

    def use_required_attribute(self, initial: Any) -> bool:
        # What is stored counts as given.
        return super().use_required_attribute(initial) and not is_held(initial)

    @staticmethod
    def _box(name: str) -> str:
        return f"{name}-clear"


class SecretFormField(forms.CharField):
    """Takes a new secret; nothing keeps the one there is, and a ticked box clears it."""

    widget = SecretInput
    default_error_messages = {
        "contradiction": _("Give a new value, or tick the box to clear the old one, not both."),
    }

    def prepare_value(self, value: Any) -> str:
        return ""  # whatever widget shows it

    def get_bound_field(self, form: Any, field_name: str) -> Any:
        bound = super().get_bound_field(form, field_name)
        widget: Any = self.widget
        if isinstance(widget, SecretInput):  # a project may have put another in its place
            widget.held = bound.initial if isinstance(bound.initial, Secret) else None
            widget.label = str(bound.label)
        return bound

    def _clean_bound_field(self, bound: Any) -> Any:
        """Django asks this of each field, where it has both what was given and what there is."""
        if self.disabled:
            return bound.initial
        return self.clean(bound.data, bound.initial)

    def clean(self, value: Any, initial: Any = None) -> Any:
        """The secret to store; ``initial`` itself if it is to be kept.

        Raises:
            ValidationError: both a value and the box were given, or the value is not valid.
        """
        given = Given.of(value)
        text = Secret(self.to_python(given.text) or "")
        if text and given.is_cleared:
            raise ValidationError(self.error_messages["contradiction"], code="contradiction")
        if not text and not given.is_cleared and is_held(initial):
            return initial
        self.validate(text)
        self.run_validators(text)
        return text

    def has_changed(self, initial: Any, data: Any) -> bool:
        given = Given.of(data)
        if self.disabled:
            return False
        if given.is_cleared:
            return is_held(initial)
        text = self.to_python(given.text)
        return bool(text) and text != initial


def is_held(initial: Any) -> bool:
    """Whether there is a secret to keep, readable or not."""
    return bool(initial) or (isinstance(initial, Secret) and initial.is_unreadable)
