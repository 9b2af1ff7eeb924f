"""How a process learns that another one has changed the settings: which way, and whether at all."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from django.db import connections

from siteconfig.conf import conf
from siteconfig.transports.polling import Polling, SQLitePolling
from siteconfig.transports.postgres import Postgres
from siteconfig.transports.redis import Redis

if TYPE_CHECKING:
    from siteconfig.transports.base import Transport

TRANSPORTS: dict[str, type[Transport]] = {
    transport.name: transport for transport in (Polling, Postgres, Redis)
}

#: All that ``SITECONFIG["TRANSPORT"]`` may be.
NAMES = ("auto", *TRANSPORTS, "none")


class Asked:
    """Whether a test has asked for what is otherwise off under a test runner."""

    by_a_test: bool = False


def in_use() -> bool:
    """Whether this process is to watch for changes, and to tell others of its own."""
    return conf.TRANSPORT != "none" and (Asked.by_a_test or not under_test_runner())


def under_test_runner() -> bool:
    """Whether tests run in this process.

    There nothing is to happen by itself: a connection would keep the test database from being
    dropped, and a statement more would be in the way of who counts them.
    """
    return (
        # Django's runner and pytest-django's: between setup_ and teardown_test_environment(). By
        # their own mark, for mail.outbox is there on any site with the locmem backend.
        hasattr(getattr(sys.modules.get("django.test.utils"), "_TestState", None), "saved_data")
        # The time before: manage.py test imports the project, pytest collects.
        or sys.argv[1:2] == ["test"]
        or "siteconfig.pytest_plugin" in sys.modules
    )


def choose(alias: str) -> type[Transport] | None:
    """The transport for the settings in the database ``alias``; None: nothing can be noticed."""
    connection: Any = connections[alias]
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        return None  # each connection has a database of its own there
    name = conf.TRANSPORT
    if name == "auto":
        name = Postgres.name
    chosen = TRANSPORTS.get(name, Polling)
    if chosen is not Polling and not list(chosen.problems(alias)):
        return chosen
    return SQLitePolling if connection.vendor == "sqlite" else Polling


def problem(alias: str) -> str | None:
    """Why the transport that is asked for by its name is not used; None: it is, or none is."""
    name = conf.TRANSPORT
    if name not in NAMES:
        return f"SITECONFIG['TRANSPORT'] is {name!r}, which is no transport."
    if name not in TRANSPORTS:
        return None
    for problem, _what_to_do in TRANSPORTS[name].problems(alias):
        return f"SITECONFIG['TRANSPORT'] is {name!r}, and {problem}"
    return None


def announce_write(label: str, using: str) -> None:
    """The row of the model ``label`` has been written; its transaction may still be open."""
    if (transport := choose(using)) is not None:
        transport.announce_write(label, using)


def announce_commit(label: str, using: str) -> None:
    """A write of the row of the model ``label`` has been committed. Raises no Exception."""
    if (transport := choose(using)) is not None:
        transport.announce_commit(label, using)
