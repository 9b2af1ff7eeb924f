"""Every test starts with managers that have read nothing, and leaves no override behind."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from siteconfig import config_manager
from siteconfig.logger import HANDLER_NAME, LOGGER_NAME, Logger
from siteconfig.signals import config_changed
from tests.concurrency import Changes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["siteconfig.pytest_plugin", "tests.fixtures", "tests.browsers"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked ``sqlite`` store what no other database would take."""
    if item.get_closest_marker("sqlite") and "SITECONFIG_TEST_DATABASE" in os.environ:
        pytest.skip("only SQLite stores such a value")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``long`` come first, lest one process is at them when the others have ended."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """pytest-django's; at the end close what coroutines have opened in asgiref's own thread."""
    yield
    asyncio.run(sync_to_async(connections.close_all)())


@pytest.fixture(autouse=True)
def _fresh_managers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Not for tests marked ``warm``, which are about what is left behind."""
    if request.node.get_closest_marker("warm") is None:
        for manager in config_manager._managers.values():
            manager.reset()
    yield
    for manager in config_manager._managers.values():
        assert manager._state.overrides == ()
        assert manager._state.telling is False


@pytest.fixture(autouse=True)
def _fresh_logger() -> Iterator[None]:
    """A Logger made in a test ends with it, and so does its level."""
    logger = logging.getLogger(LOGGER_NAME)
    level = logger.level
    yield
    logger.setLevel(level)
    Logger._instance = None
    for handler in [one for one in logger.handlers if one.get_name() == HANDLER_NAME]:
        logger.removeHandler(handler)
        handler.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """With -v: what the tests of faults and of histories have measured."""
    if terminalreporter.verbosity > 0:
        reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
        measured = [dict(report.user_properties) for report in reports]
        if lines := sorted(str(one["summary"]) for one in measured if "summary" in one):
            terminalreporter.section("measured")
            terminalreporter.write("".join(f"{line}\n" for line in lines))


@pytest.fixture
def changes() -> Iterator[Changes]:
    """What a receiver of ``config_changed`` is told during the test."""
    told = Changes()
    config_changed.connect(told)
    yield told
    config_changed.disconnect(told)
