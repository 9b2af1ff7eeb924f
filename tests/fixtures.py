"""Servers for the whole session, each started when a test first asks for it.

Where there is none, the test is skipped with what to install, and fails in continuous integration.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.servers import (
    POSTGRES_VARIABLE,
    REDIS_VARIABLE,
    Missing,
    PgBouncer,
    Postgres,
    PostgresServer,
    Redis,
    RedisServer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def needed() -> Iterator[None]:
    """Skip what needs a server that is missing; fail it in continuous integration."""
    try:
        yield
    except Missing as missing:
        if "CI" in os.environ:
            pytest.fail(str(missing))
        pytest.skip(str(missing))


def named_postgres() -> Postgres | None:
    """The PostgreSQL that the environment names."""
    url = os.environ.get(POSTGRES_VARIABLE)
    return Postgres.from_url(url) if url else None


def named_redis() -> Redis | None:
    """The Valkey or Redis that the environment names."""
    url = os.environ.get(REDIS_VARIABLE)
    return Redis(url) if url else None


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Postgres:
    """The PostgreSQL that the environment names, or else one of our own."""
    return named_postgres() or request.getfixturevalue("own_postgres")


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that tests may restart, and leave running."""
    with needed():
        server = PostgresServer()
    with server:
        yield server


@pytest.fixture(scope="session")
def redis_server(request: pytest.FixtureRequest) -> Redis:
    """The Valkey or Redis that the environment names, or else one of our own."""
    return named_redis() or request.getfixturevalue("own_redis")


@pytest.fixture(scope="session")
def own_redis() -> Iterator[RedisServer]:
    """A Valkey or Redis that tests may restart, and leave running."""
    with needed():
        server = RedisServer()
    with server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    """A PgBouncer before ``postgres``, which hands out connections for a transaction each."""
    with needed():
        bouncer = PgBouncer(postgres)
    with bouncer:
        yield bouncer
