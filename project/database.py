"""The database entry for a path or an address."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit


def database(where: str) -> dict[str, Any]:
    """The settings of the database at ``where``.

    Args:
        where: the path of an SQLite file, or ``postgresql://user:password@host:port/name``.
    """
    url = urlsplit(where)
    if url.scheme in {"postgresql", "postgres"}:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(url.path.removeprefix("/")),
            "USER": unquote(url.username or ""),
            "PASSWORD": unquote(url.password or ""),
            "HOST": url.hostname or "",
            "PORT": str(url.port or ""),
        }
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": where,
        "OPTIONS": {
            # A transaction that begins as a reader fails at once when it turns writer while
            # another writes; one that begins as a writer waits its turn.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,  # seconds a writer waits
            # Readers and the writer do not block each other.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
