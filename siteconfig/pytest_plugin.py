"""The pytest plugin, which pytest loads by itself wherever siteconfig is installed.

It imports nothing of Django, and nothing of this app, before a test has done so: pytest also runs
in projects that use neither. That it is loaded tells the app that tests run in this process.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Forget what was read in a test that has committed; its database is emptied by now."""
    try:
        return (yield)
    finally:
        module = sys.modules.get("siteconfig.config_manager")
        if module is not None and _is_transactional(item):
            for manager in list(module._managers.values()):
                manager.reset()


def _is_transactional(item: pytest.Item) -> bool:
    """Whether the test's writes are committed, and then removed without a signal."""
    marker = item.get_closest_marker("django_db")
    if marker is not None and marker.kwargs.get("transaction", bool(marker.args[:1])):
        return True
    if not {"transactional_db", "live_server"}.isdisjoint(getattr(item, "fixturenames", ())):
        return True
    cases: Any = sys.modules.get("django.test")
    cls = getattr(item, "cls", None)
    return bool(
        cases
        and cls
        and issubclass(cls, cases.TransactionTestCase)
        # Which TestCase, whose writes are rolled back, is a kind of.
        and not issubclass(cls, cases.TestCase)
    )


@pytest.fixture
def siteconfig_override() -> Iterator[Callable[..., None]]:
    """Replace settings until the end of the test: ``siteconfig_override(timeout=5)``.

    The arguments are those of ``siteconfig.testing.override_config``.
    """
    from siteconfig.testing import override_config

    with ExitStack() as stack:

        def override(*model: Any, **settings: Any) -> None:
            stack.enter_context(override_config(*model, **settings))

        yield override


@pytest.fixture
def siteconfig_watcher() -> Iterator[None]:
    """Let the watcher run during the test, as ``siteconfig.testing.run_watcher`` does."""
    from siteconfig.testing import run_watcher

    with run_watcher():
        yield
