"""The core's own tests once more, on PostgreSQL: transactions, reads, coroutines, the page."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.processes import ROOT
from tests.servers import Postgres

MODULES = (
    *("transactions", "models", "config_manager", "receivers", "async", "last_known_good"),
    *("admin", "fleet", "middleware", "kinds", "input", "changes", "page", "pins", "differences"),
)


@pytest.mark.long
def test_the_core_on_postgresql(postgres: Postgres) -> None:
    """In a process of its own, with test databases that it makes and drops itself."""
    postgres.create_database("core")
    try:
        ran = subprocess.run(  # noqa: S603 - our own tests
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2"),
                *(f"tests/test_{module}.py" for module in MODULES),
            ],
            cwd=ROOT,
            env={
                **os.environ,
                "SITECONFIG_TEST_DATABASE": postgres.url("core"),
                "SITECONFIG_TEST_EXAMPLES": os.environ.get("SITECONFIG_TEST_EXAMPLES", "5"),
            },
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout[-10_000:] + ran.stderr[-2000:]
        left = postgres.execute("SELECT datname FROM pg_database WHERE datname ~ '^siteconfig-'")
        assert left == []
    finally:
        postgres.drop_database("core")
