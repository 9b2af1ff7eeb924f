"""Secret: the plain value of a secret setting, which shows itself to nobody who has not asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Self

from django.utils.crypto import constant_time_compare
from django.utils.translation import gettext

if TYPE_CHECKING:
    from collections.abc import Mapping

    #: What a column holds. Bytes: SQLite keeps them in a column of text, too.
    Column = str | bytes

#: Where the value held for a secret that no key opens is from, in place of "row" or "default".
UNREADABLE = "unreadable"

#: Of a shorter secret not even the end is told, and of a longer one only so much.
SHORTEST_WITH_END, END = 12, 4


class Secret(str):
    """A text that is masked wherever Python shows values by itself.

    ``repr``, ``%r``, ``pprint``, tracebacks, error reports and containers that are printed show
    ``<Secret: set>``. Code that asks gets the text: ``str(secret)``, ``f"{secret}"``, ``"%s"``,
    JSON; and what is made of it, a slice say, is an ordinary text again. ``copy`` and
    ``deepcopy`` give the secret itself; it is not pickled.

    Compare what a client sends with ``matches``, not with ``==``.

    Attributes:
        stored: what the column or the fixture holds, which is written back as it is if it is
            sealed; None: the secret comes from code or a form.
        is_unreadable: no key opens what is stored. The text is then empty.
        is_stored_in_plain: what is stored is the text itself.
    """

    __slots__ = ("_is_unreadable", "_stored")

    _stored: Column | None
    _is_unreadable: bool

    def __new__(cls, plain: str = "", *, stored: Column | None = None) -> Self:
        secret = super().__new__(cls, plain)
        secret._stored = stored
        secret._is_unreadable = False
        return secret

    @classmethod
    def unreadable(cls, stored: Column) -> Self:
        """What stands for a stored secret that no key opens."""
        secret = cls(stored=stored)
        secret._is_unreadable = True
        return secret

    @property
    def stored(self) -> Column | None:
        return self._stored

    @property
    def is_unreadable(self) -> bool:
        return self._is_unreadable

    @property
    def is_stored_in_plain(self) -> bool:
        return bool(self) and self._stored == self

    def matches(self, given: str | None) -> bool:
        """Whether ``given`` is this secret, in a time that does not tell how much of it is.

        An empty secret, and one that cannot be read, is matched by nothing.
        """
        if not self or given is None:
            return False
        return constant_time_compare(to_bytes(self), to_bytes(given))

    def described(self) -> str:
        """What a person may be told of it."""
        if self.is_unreadable:
            return gettext("set, but no key opens it")
        if not self:
            return gettext("not set")
        if len(self) < SHORTEST_WITH_END:
            return gettext("set")
        return gettext("set, ends in …%(end)s") % {"end": self[-END:]}

    def __repr__(self) -> str:
        if self.is_unreadable:
            return "<Secret: unreadable>"
        return "<Secret: set>" if self else "<Secret: not set>"

    def __copy__(self) -> Self:
        return self  # it cannot change

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "A secret is not pickled: the pickle would hold it in plain. Read the setting where "
            "it is used, or pass on str(secret) if that is meant."
        )


def to_bytes(text: str) -> bytes:
    """Any text of Python as bytes, half a surrogate pair too."""
    return text.encode("utf-8", "surrogatepass")


def unreadable_secrets(values: Mapping[str, Any]) -> dict[str, str]:
    """The settings in ``values`` that no key opens, as ``Snapshot`` takes them."""
    return {
        name: UNREADABLE
        for name, value in values.items()
        if isinstance(value, Secret) and value.is_unreadable
    }
