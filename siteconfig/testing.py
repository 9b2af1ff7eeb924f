"""What tests of code that reads settings need."""

from __future__ import annotations

import inspect
import unittest
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.test.utils import TestContextDecorator

from siteconfig.config_manager import ConfigManager, watch_again
from siteconfig.transports import Asked
from siteconfig.watcher import watcher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from siteconfig.models import ConfigModel


class override_config(TestContextDecorator):  # noqa: N801 - named as override_settings is
    """Replace settings for the time of a block, a test function (also async) or a test class.

    In memory only: it needs no database and stores nothing, and is seen by every thread. Nests;
    ends however the block ends. It wins over what is saved meanwhile, and checks no value, so
    that a test can try what a form would refuse.

    Args:
        model: the config model; the default one if left out.
        settings: the values by name, in any case. A name that is no field is an extra setting.
    """

    def __init__(self, model: type[ConfigModel] | None = None, /, **settings: Any) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.layers: list[Mapping[str, Any]] = []

    def enable(self) -> None:
        self.layers.append(ConfigManager(self.model)._override(self.settings))

    def disable(self) -> None:
        ConfigManager(self.model)._restore(self.layers.pop())

    def decorate_class(self, cls: type) -> type:
        if issubclass(cls, unittest.TestCase):
            return super().decorate_class(cls)  # type: ignore[arg-type] # takes any TestCase
        # A plain class of tests, as pytest collects them.
        for name in dir(cls):
            member = inspect.getattr_static(cls, name)
            if name.startswith("test") and inspect.isfunction(member):
                setattr(cls, name, self.decorate_callable(member))
        return cls


@contextmanager
def run_watcher() -> Iterator[None]:
    """Let this process notice changes by others, and announce its own, during a block.

    Under a test runner it else does neither: the watcher's connection keeps a test database from
    being dropped. What has been read is watched from now on, else the next read starts the
    watcher; the end of the block ends it, and waits for that. For tests that commit: it sees
    nothing of a ``TestCase``'s open transaction. For an SQLite database in memory there is none.
    """
    before, Asked.by_a_test = Asked.by_a_test, True
    try:
        watch_again()
        yield
    finally:
        Asked.by_a_test = before
        if not before:
            watcher.stop(patience=30)
