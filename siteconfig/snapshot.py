"""Snapshot: the frozen values of all settings at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from django.apps import apps

from siteconfig.exceptions import UnknownSettingError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The column that holds the settings which are no fields.
EXTRA = "extra"


class Snapshot(Mapping[str, Any]):
    """The values of one config model's settings at one moment. Nothing in it can change.

    Each setting is an attribute (``snapshot.timeout``) and an item (``snapshot["timeout"]``);
    iteration gives the field names. Lists, dicts and sets are frozen all the way down;
    ``copy.deepcopy`` of one gives an ordinary one to work on. The setting of a foreign key is its
    id; ``snapshot.group`` asks the database for the object to which ``group_id`` points.

    Attributes:
        version: how often the row had been written through Django; 0 when there is no row. It
            names a state, it does not order states: a fixture or a backup may lower it.
    """

    __slots__ = (
        "__dict__",
        "_by_name",
        "_model_label",
        "_source",
        "_stored",
        "_unreadable",
        "_values",
    )

    version: int
    _values: dict[str, Any]
    _by_name: dict[str, Any]
    _model_label: str
    _source: str
    """``"row"``, ``"file"`` or ``"default"``."""
    _stored: tuple[Any, ...] | None
    """The row that says these values, as the database gave it; None: there is none that does."""
    _unreadable: Mapping[str, str]
    """Settings whose stored value could not be read, and where the value held is from."""

    def __init__(
        self,
        model_label: str,
        values: Mapping[str, Any],
        *,
        version: int = 0,
        source: str = "row",
        unreadable: Mapping[str, str] = MappingProxyType({}),
        stored: tuple[Any, ...] | None = None,
    ) -> None:
        frozen = {name: freeze(value) for name, value in values.items()}
        for name, value in (
            ("_model_label", model_label),
            ("_source", source),
            ("_stored", stored),
            ("_unreadable", unreadable),
            ("_values", frozen),
            ("_by_name", _names(frozen)),
            ("__dict__", {**frozen, "version": version}),
        ):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self._pointed_to(name)

    def _pointed_to(self, name: str) -> Any:
        """The object of a foreign key, whose setting is its id; asks the database each time.

        Raises:
            UnknownSettingError: there is no foreign key of this name.
        """
        with suppress(LookupError):
            model = apps.get_model(self._model_label)
            for field in model._meta.concrete_fields:
                if field.is_relation and field.name == name:
                    return getattr(model(**{field.attname: self._values[field.attname]}), name)
        raise UnknownSettingError(self._model_label, name, self._values)

    def __copy__(self) -> Snapshot:
        return self  # it cannot change

    def __deepcopy__(self, memo: Any) -> Snapshot:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("A snapshot may hold secrets and is not pickled. Pickle what is needed.")

    def get_setting(self, name: str, default: Any = None) -> Any:
        """The setting of this name in any case, field or not; ``default`` if there is none."""
        try:
            return self._by_name[name]
        except KeyError:
            return self._by_name.get(name.lower(), default)

    def replaced(self, values: Mapping[str, Any]) -> Snapshot:
        """A snapshot with other values for some settings; names that are no fields go to extra."""
        fields = {name: value for name, value in values.items() if name in self._values}
        extra = {name: value for name, value in values.items() if name not in fields}
        if extra:
            fields[EXTRA] = {**(fields.get(EXTRA) or self._values.get(EXTRA) or {}), **extra}
        return Snapshot(
            self._model_label,
            {**self._values, **fields},
            version=self.version,
            source=self._source,
            unreadable={
                name: source for name, source in self._unreadable.items() if name not in fields
            },
        )

    def changed_from(self, old: Snapshot) -> frozenset[str]:
        """The names of the fields whose values differ from ``old``'s."""
        missing = object()
        names = self._values.keys() | old._values.keys()
        return frozenset(
            name
            for name in names
            if not same(old._values.get(name, missing), self._values.get(name, missing))
        )

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise TypeError(f"A snapshot cannot change, so {name!r} was not set. {HOW_TO_SET}")

    def __delattr__(self, name: str) -> NoReturn:
        raise TypeError(f"A snapshot cannot change, so {name!r} was not deleted. {HOW_TO_SET}")

    def __repr__(self) -> str:
        # No values: a repr ends up in logs and error reports, and settings hold secrets.
        return f"<Snapshot of {self._model_label}, version {self.version}>"


HOW_TO_SET = "Settings are written with ConfigManager().set_setting(name, value)."


def freeze(value: Any) -> Any:
    """``value`` with every list, dict, set and buffer in it replaced by one that cannot change."""
    if isinstance(value, FrozenDict | FrozenList):
        return value
    if isinstance(value, dict):
        return FrozenDict((key, freeze(item)) for key, item in value.items())
    if isinstance(value, list):
        return FrozenList(freeze(item) for item in value)
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(freeze(item) for item in value)
    if isinstance(value, set):
        return frozenset(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return value


def _refuse(self: object, *args: object, **kwargs: object) -> NoReturn:
    raise TypeError(
        "A value read from the settings cannot be changed in place: every reader shares it. "
        f"Change a copy.deepcopy() of it. {HOW_TO_SET}"
    )


class FrozenDict(dict[Any, Any]):
    """A dict that cannot change; equal to, and serialized like, the plain one."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        # copy.deepcopy and pickle give the plain dict, which the caller may change.
        return dict, (dict(self),)


class FrozenList(list[Any]):
    """A list that cannot change; equal to, and serialized like, the plain one."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = _refuse
    remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


def by_name(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` under their names in lower and in upper case."""
    lower = {name.lower(): value for name, value in values.items()}
    return lower | {name.upper(): value for name, value in lower.items()}


def _names(values: Mapping[str, Any]) -> dict[str, Any]:
    """All settings by name; a field beats an extra setting of the same name."""
    extra = values.get(EXTRA)
    return by_name(extra or {}) | by_name(values)


def same(old: Any, new: Any) -> bool:
    """Equal, and of the same types all the way down: True is not 1, nor 1 the same as 1.0."""
    if type(old) is not type(new):
        return False
    if isinstance(old, dict):
        return old.keys() == new.keys() and all(same(old[key], new[key]) for key in old)
    if isinstance(old, list | tuple):
        return len(old) == len(new) and all(map(same, old, new))
    return bool(old == new or (old != old and new != new))  # NaN is not equal to itself
