"""Keep the values of secret settings out of text that people and files get to see."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from siteconfig.config_manager import Held, held_values
from siteconfig.secret import Secret
from siteconfig.snapshot import EXTRA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: A setting that is no SecretField is secret if one of the words of its name is one of these.
SECRET_WORDS = frozenset(
    (
        *("apikey", "auth", "authorization", "credential", "credentials", "dsn", "key", "pass"),
        *("passphrase", "passwd", "password", "private", "pwd", "secret", "signature", "token"),
    )
)

#: Shorter values are left: to take "on" or "abc" out of every line would spoil the lines.
SHORTEST = 4


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name holds a secret, as far as a name can tell."""
    return not SECRET_WORDS.isdisjoint(re.split(r"[\W_]+", name.lower()))


class Redactor:
    """Replaces the secret values that this process holds now by the names of their settings.

    As they are, and as they look quoted in a URL, in JSON and in a ``repr``. It looks at what the
    managers hold and reads nothing: a log line must not wait for a database.
    """

    def __init__(self) -> None:
        self._seen: object = None
        self._pattern: re.Pattern[str] | None = None
        self._names: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        if self._seen is not Held.mark:
            self._learn()
        if self._pattern is None:
            return text
        names = self._names
        return self._pattern.sub(lambda found: f"[{names.get(found[0], 'secret')}]", text)

    def _learn(self) -> None:
        seen = Held.mark
        names = {
            form: name
            for values in held_values()
            for name, value in secrets(values)
            for form in forms(value)
        }
        # The longest first: one secret may begin like another.
        longest_first = sorted(names, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first))
        self._names = names
        self._pattern = re.compile(pattern) if pattern else None
        self._seen = seen


def secrets(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The secret settings in ``values``, by their type or their name, fields and extra."""
    extra = values.get(EXTRA)
    for name, value in [*values.items(), *(extra.items() if isinstance(extra, dict) else ())]:
        if not isinstance(value, str) or len(value) < SHORTEST:
            continue
        if isinstance(value, Secret) or is_secret_name(name):
            yield name, str(value)


def forms(value: str) -> set[str]:
    """How a text may look in a line."""
    try:
        quoted = {quote(value), quote(value, safe=""), quote_plus(value)}
    except UnicodeEncodeError:
        quoted = set()  # half a surrogate pair cannot be in a URL
    shown = {value, repr(value)[1:-1], *quoted}
    # Each of these may be inside a JSON text in turn.
    return shown | {
        json.dumps(form, ensure_ascii=ascii_only)[1:-1]
        for form in shown
        for ascii_only in (True, False)
    }
