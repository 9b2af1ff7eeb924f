"""RowReader: the one row of a config model, as it is stored and as its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import DataError, models

from siteconfig.fields import ROW_ID, ExtraField, SecretField
from siteconfig.secret import Secret, unreadable_secrets
from siteconfig.snapshot import Snapshot, freeze, same

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.utils import CursorWrapper

    from siteconfig.models import ConfigModel

    #: What the database gives for each column, before any field has looked at it. None: no row.
    Stored = tuple[Any, ...] | None


class Undecoded(str):
    """What is stored, as the database writes it or in hex: the driver makes no value of it."""

    __slots__ = ()


def is_about_a_value(error: BaseException) -> bool:
    """Whether a driver could not make a value of what is stored: its text may show that.

    On SQLite that is an OperationalError, as a lock is, of a text that is not UTF-8; and of what
    Django itself makes values for the driver, such as dates, a ValueError.
    """
    return isinstance(error, DataError | ValueError) or "Could not decode to UTF-8" in str(error)


class RowReader:
    """Reads the row of ``model`` through ``connection``, each column by itself.

    Not by the ORM, where one value that its field cannot read would fail the whole row. The
    query is compiled once, and can then be made as often as the row is to be looked at.

    Args:
        for_update: lock the row until the transaction ends, where the database can.
    """

    def __init__(
        self, model: type[ConfigModel], connection: BaseDatabaseWrapper, *, for_update: bool = False
    ) -> None:
        self.model = model
        self.connection = connection
        self._cursor: CursorWrapper | None = None
        rows = model._base_manager.filter(pk=ROW_ID)
        rows = rows.select_for_update() if for_update else rows
        compiler = rows.query.get_compiler(connection=connection)
        self._sql, self._params = compiler.as_sql()
        self._names = [sql for _expression, (sql, _params), _alias in compiler.select]
        self._columns: list[Any] = [expression for expression, _sql, _alias in compiler.select]
        self._converters = compiler.get_converters(self._columns)
        # SQLite's driver does not take every text that is stored for one.
        self._readable_type = "blob" if connection.vendor == "sqlite" else "text"
        # The columns that are asked for as such, and what there was at the last look that did.
        self._texts: list[int] = []
        self._then: Stored = None

    def stored(self) -> Stored:
        """The row as the database gives it; None if there is none.

        A value that the driver cannot read, as psycopg an infinite date and sqlite3 a text that is
        not UTF-8, is an ``Undecoded``. It is asked for as such, and not as a value again, until the
        row changes.

        Raises:
            django.db.Error: the database, the table or a column is not there.
        """
        try:
            if self._texts and same(now := self._fetch(self._as_texts()), self._then):
                return now
            self._texts = []
            return self._fetch(self._sql)
        except Exception as error:
            if not is_about_a_value(error):
                raise
        # Out of the handler: of an error in the following this one would else be the context,
        # which tracebacks show.
        self._texts = [n for n in range(len(self._names)) if not self._is_decodable(n)]
        self._then = self._fetch(self._as_texts())
        return self._then

    def _fetch(self, sql: str) -> Stored:
        if self._cursor is None:
            self._cursor = self.connection.cursor()
        self._cursor.execute(sql, self._params)
        # To the end: an SQLite statement that is not at its end goes on holding the database.
        rows = self._cursor.fetchall()
        if not rows:
            return None
        row = [freeze(value) for value in rows[0]]
        for n in self._texts:
            given = row[n].hex() if isinstance(row[n], bytes) else row[n]
            row[n] = None if given is None else Undecoded(given)
        return tuple(row)

    def _as_texts(self) -> str:
        """The query that asks for the columns ``_texts`` as such; the whole row at one moment."""
        return self._select(
            f"CAST({name} AS {self._readable_type})" if n in self._texts else name
            for n, name in enumerate(self._names)
        )

    def _is_decodable(self, n: int) -> bool:
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(self._select([self._names[n]]), self._params)
                cursor.fetchall()
        except Exception as error:
            if not is_about_a_value(error):
                raise
            return False
        return True

    def _select(self, columns: Iterable[str]) -> str:
        """The query with other columns."""
        rest = self._sql.removeprefix(f"SELECT {', '.join(self._names)}")
        return f"SELECT {', '.join(columns)}{rest}"

    def close(self) -> None:
        """Give back what the database keeps for the query; only needed if the connection stays."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            cursor.close()

    def snapshot(self, stored: Stored, previous: Snapshot | None = None) -> Snapshot:
        """The settings that a stored row says.

        A stored value that its field cannot read leaves that setting as it was in ``previous``,
        else as it was last known to be, else at its default. But a secret that no key opens is
        empty, and is to be written back as it is stored.
        """
        if stored is None:
            return self.model.default_snapshot()
        values: dict[str, Any] = {}
        unreadable: dict[str, str] = {}
        fallback = previous
        unchanged = self._unchanged(stored, previous)
        for position, (column, given) in enumerate(zip(self._columns, stored, strict=True)):
            field = column.target
            if field.attname in unchanged:
                values[field.attname] = unchanged[field.attname]
                continue
            try:
                value = given
                for convert in self._converters.get(position, ([], None))[0]:
                    value = convert(value, column, self.connection)
                values[field.attname] = checked(field, given, value)
            except Exception:  # noqa: BLE001 - a converter meets whatever raw SQL has stored
                fallback = fallback or self.model.fallback_snapshot()
                name = field.attname
                held = "default" if fallback._source == "default" else "last known good"
                unreadable[name] = fallback._unreadable.get(name, held)
                values[name] = fallback.get(name)
        unreadable |= unreadable_secrets(values)
        del values["id"]
        version = values.pop("version")
        return Snapshot(
            self.model._meta.label,
            values,
            version=version or 0,
            unreadable=unreadable,
            stored=stored,
        )

    def _unchanged(self, stored: tuple[Any, ...], previous: Snapshot | None) -> dict[str, Any]:
        """The settings of ``previous`` that are stored as they were then.

        But for secrets: the keys may be others by now.
        """
        if previous is None or previous._stored is None:
            return {}
        columns = zip(self._columns, previous._stored, stored, strict=True)
        names = {column.target.attname for column, then, now in columns if same(then, now)}
        return {
            name: value
            for name, value in previous.items()
            if name in names and name not in previous._unreadable and not isinstance(value, Secret)
        }


#: The kinds of fields that hold text.
TEXTS = (models.CharField, models.TextField, SecretField)


def checked(field: models.Field[Any, Any], stored: Any, value: Any) -> Any:
    """``value``, which Django made of what the database has ``stored``, if it fits its field.

    Raises:
        Exception: it does not.
    """
    is_json = isinstance(field, models.JSONField)
    if isinstance(stored, Undecoded):
        raise ValueError("The column holds what the driver cannot read.")
    if isinstance(stored, bytes) and isinstance(field, TEXTS):
        raise TypeError("The column of a text holds bytes.")
    if value is None and not field.null and not (is_json and stored is not None):
        raise ValueError("The column holds NULL.")
    if value is None and stored is not None and not is_json:
        raise ValueError("The stored value says nothing.")
    if isinstance(field, ExtraField) and not isinstance(value, dict):
        raise TypeError("The column holds no JSON object.")
    return field.to_python(value)
