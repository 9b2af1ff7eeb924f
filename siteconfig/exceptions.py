"""One class for each thing that can go wrong, carrying what a caller needs to react."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable


class SiteConfigError(Exception):
    """The root of this app's errors. Do not raise directly."""


class UnknownSettingError(SiteConfigError, AttributeError):
    """No setting has this name.

    Attributes:
        model_label: the config model that was asked, ``"app_label.ModelName"``.
        setting: the name that was asked for.
        near: the settings with the most similar names, best first.
    """

    def __init__(self, model_label: str, setting: str, known: Iterable[str]) -> None:
        self.model_label = model_label
        self.setting = setting
        self.near = near_names(setting, known)
        super().__init__(f"{model_label} has no setting {setting!r}.{did_you_mean(self.near)}")


class RowExistsError(SiteConfigError, IntegrityError):
    """A new instance was saved over the one row that holds the settings.

    It would have set every setting that was not given back to its default.

    Attributes:
        model_label: the config model, ``"app_label.ModelName"``.
    """

    def __init__(self, model_label: str) -> None:
        self.model_label = model_label
        name = model_label.rpartition(".")[2]
        super().__init__(
            f"{model_label} has its one row already, and saving a new instance over it would "
            f"reset every setting that was not given. Change single settings with "
            f"ConfigManager({name}).set_settings(...), or load the row with "
            f"{name}.objects.get(), change it and save it."
        )


class SecretKeyError(SiteConfigError, ImproperlyConfigured):
    """A secret is to be stored, and there is no key to seal it with.

    Attributes:
        problem: what is missing, and the next step.
    """

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(f"A secret is never stored in plain, and cannot be sealed. {problem}")


class AppendOnlyError(SiteConfigError, TypeError):
    """A record of the history was to be changed or deleted."""

    def __init__(self) -> None:
        super().__init__(
            "The history is only ever added to: its records are neither changed nor deleted. To "
            "undo a change, set the settings anew, or revert it on the page History."
        )


class LogFileConflictError(SiteConfigError):
    """``Logger`` was asked for another file than the one it writes to.

    Attributes:
        current: absolute path of the file in use.
        requested: absolute path that was asked for.
    """

    def __init__(self, current: str, requested: str) -> None:
        self.current = current
        self.requested = requested
        super().__init__(
            f"Logger already writes to {current!r} and was now asked for {requested!r}. There is "
            f'one Logger per process: name its file once, best in SITECONFIG["LOG_FILE"], and '
            f"call Logger() without a file everywhere else."
        )


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """The known names most like ``name``, best first, any case; at most three."""
    return get_close_matches(name.lower(), sorted(known), n=3)


def did_you_mean(near: list[str]) -> str:
    """The half sentence that offers ``near``, with its leading space; empty for none."""
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
