"""Keys of secrets for tests, and sealing without the app's own code."""

from __future__ import annotations

from typing import Any

from cryptography.fernet import Fernet
from django.db import connection

from siteconfig.models import SiteConfiguration
from tests.settings import SECRETS_KEY as SECRETS_KEY

OTHER_KEY = "YW5vdGhlci1rZXktYW5vdGhlci1rZXktYW5vdGhlci0="
THIRD_KEY = "dGhlLXRoaXJkLWtleS10aGUtdGhpcmQta2V5LXRoZS0="

TABLE = SiteConfiguration._meta.db_table

#: A text in SQL that SQLite stores, and of which sqlite3 makes no text of Python.
NOT_UTF8 = "CAST(x'63616e617279ff' AS TEXT)"


def sealed(plain: str, key: str = SECRETS_KEY) -> str:
    """``plain`` as a token of Fernet."""
    return Fernet(key).encrypt(plain.encode()).decode()


def opened(token: str, key: str = SECRETS_KEY) -> str:
    """What a token of Fernet holds."""
    return Fernet(key).decrypt(token).decode()


def column(name: str = "api_key", table: str = TABLE) -> Any:
    """What the database holds, past every field."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {name} FROM {table}")
        return cursor.fetchone()[0]


def set_column(value: Any, name: str = "api_key", table: str = TABLE) -> None:
    """Put ``value`` there, past every field."""
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {name} = %s", [value])
