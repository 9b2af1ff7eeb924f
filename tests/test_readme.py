"""The README's Python runs as it stands there, from the first example to the last."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.contrib import admin
from django.test.utils import isolate_apps

from siteconfig.signals import config_changed
from tests.factories import AdminFactory

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.django_db
@isolate_apps("siteconfig")
def test_the_examples_run() -> None:
    """One after the other, as a reader would type them."""
    namespace: dict[str, object] = {"MIDDLEWARE": [], "INSTALLED_APPS": [], "SITECONFIG": {}}
    namespace["DATABASES"] = {"default": {}}
    namespace["request"] = SimpleNamespace(user=AdminFactory.create())
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) > 5
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)  # noqa: S102 - our own text
    admin.site.unregister(namespace["ShopConfig"])  # type: ignore[arg-type]
    config_changed.disconnect(namespace["tell"])  # type: ignore[arg-type]
