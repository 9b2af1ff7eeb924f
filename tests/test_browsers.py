"""What ``tests.browsers`` promises to the tests that have no browser."""

from __future__ import annotations

import asyncio
import os
import shutil

import pytest
from django.core.exceptions import SynchronousOnlyOperation

from siteconfig.connections import in_event_loop
from siteconfig.models import SiteConfiguration
from tests.browsers import chromium_program, running_chromium
from tests.fixtures import needed
from tests.servers import Missing

pytestmark = pytest.mark.long


async def one() -> int:
    """A coroutine."""
    return 1


@pytest.mark.django_db
def test_a_browser_leaves_no_event_loop() -> None:
    """While it is there Django has to be told; afterwards coroutines and queries work again."""
    with needed():
        chromium_program()
    with running_chromium() as browser:
        assert in_event_loop()
        assert SiteConfiguration.objects.count() <= 1
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("DJANGO_ALLOW_ASYNC_UNSAFE")
            with pytest.raises(SynchronousOnlyOperation):
                SiteConfiguration.objects.count()
        page = browser.new_page()
        page.goto("about:blank")
    assert not in_event_loop()
    assert asyncio.run(one()) == 1
    assert "DJANGO_ALLOW_ASYNC_UNSAFE" not in os.environ
    assert SiteConfiguration.objects.count() <= 1


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install; the test is skipped, and fails in continuous integration."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(Missing, match="apt-get install chromium"):
        chromium_program()
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="There is no browser"), needed():
        chromium_program()
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="There is no browser"), needed():
        chromium_program()
