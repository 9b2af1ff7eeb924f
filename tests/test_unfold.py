"""ConfigAdmin together with the ModelAdmin of another admin: unfold, in a site of its own."""

from __future__ import annotations

import re
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings

from tests.browsers import Browse
from tests.processes import Process, manage
from tests.serving import Running, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.long

PAGE, OTHER_PAGE = "/admin/testapp/shopconfig/", "/otherwise/testapp/shopconfig/"

PREPARE = """
from django.contrib.auth.models import User
from siteconfig import ConfigManager
from siteconfig.history import attributed_to
from tests.testapp.models import ShopConfig

anna, ben = [User.objects.create_superuser(name, password="made up") for name in ("anna", "ben")]

def change(**values):
    with attributed_to(anna, how="admin", reason="Asked for"):
        ConfigManager(ShopConfig).set_settings(**values)
"""


class Site:
    """The site, and a process that changes and reads its settings."""

    def __init__(self, address: str, process: Process) -> None:
        self.address = address
        self._process = process

    def change(self, **values: Any) -> None:
        """By anna."""
        self._process.run(f"change(**{values!r})")

    def stored(self, name: str) -> Any:
        """As text."""
        return self._process.run(f"str(ShopConfig.objects.get().{name})")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("unfold")
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "db.sqlite3")}
    unlike_ours = "ContentSecurityPolicyMiddleware"  # unfold's scripts need more than it allows
    ours = {
        "DATABASES": {"default": database},
        "INSTALLED_APPS": ["unfold", *settings.INSTALLED_APPS],
        "MIDDLEWARE": [one for one in settings.MIDDLEWARE if not one.endswith(unlike_ours)],
        "ROOT_URLCONF": "tests.site.unfolded",
    }
    manage(ours, "migrate", "--run-syncdb", "-v0")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["manage.py", "runserver", "--noreload", "--insecure", f"127.0.0.1:{port}"]
    with Process(ours) as process, Running(ours, command, folder / "log") as server:
        process.run(PREPARE)
        server.wait_for(partial(answers, port))
        yield Site(f"http://127.0.0.1:{port}", process)


def answers(port: int) -> bool:
    try:
        return request(port, "/admin/login/")[0] == 200
    except OSError:
        return False


@pytest.fixture
def page(site: Site, chromium: Browser) -> Iterator[Page]:
    """The settings page, of ben."""
    browse = Browse(chromium, site.address)
    page = browse()
    page.goto(PAGE)
    page.locator("[name=username]").fill("ben")
    page.locator("[name=password]").fill("made up")
    page.locator("[type=submit]").click()
    page.locator(".siteconfig-row").first.wait_for()
    yield page
    browse.close()
    assert browse.errors == []


class TestThePage:
    def test_describes_every_setting(self, site: Site, page: Page, expect: Any) -> None:
        """As it does in Django's own admin, and within the window."""
        site.change(currency="CHF")
        page.goto(PAGE)
        names = page.locator(".siteconfig-row").evaluate_all(
            "(rows) => rows.map((row) => row.dataset.setting).filter(Boolean)"
        )
        assert {"currency", "tax", "warehouse_id", "voucher", "extra"} <= {*names}
        row = page.locator("[data-setting=currency]")
        expect(row).to_contain_text("changed")
        expect(row).to_contain_text("by anna, just now")
        expect(row.get_by_label("Reset to the default: EUR")).to_be_visible()
        expect(page.locator(".siteconfig-bar")).to_be_in_viewport(ratio=1)
        assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
        page.get_by_label("Find a setting").fill("vouch")
        expect(page.locator(".siteconfig-row:visible")).to_have_count(1)

    @pytest.mark.parametrize("path", [PAGE, OTHER_PAGE], ids=["ConfigAdmin first", "unfold first"])
    def test_saves_what_was_reviewed(self, site: Site, page: Page, expect: Any, path: str) -> None:
        """With the reason that was given, from controls outside of unfold's form."""
        site.change(low=2)
        page.goto(path)
        page.get_by_label("Low").fill("3")
        expect(page.locator(".siteconfig-count")).to_have_text("1 setting edited")
        page.get_by_role("button", name="Review changes").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.locator("tbody tr")).to_have_text(re.compile(r"Low\s+2\s+3"))
        dialog.get_by_label("Reason").fill("Stock is low")
        dialog.get_by_role("button", name="Save").click()
        expect(page.get_by_text("Saved, and in force: Low 2 → 3.")).to_be_visible()
        assert site.stored("low") == "3"
        page.goto(f"{path}history/")
        change = page.locator(".siteconfig-change").first
        expect(change).to_contain_text("ben")
        expect(change).to_contain_text("Stock is low")

    def test_asks_about_a_conflict(self, site: Site, page: Page, expect: Any) -> None:
        """And takes the answer."""
        page.goto(PAGE)
        page.get_by_label("High").fill("20")
        site.change(high=30)
        save = page.locator(".siteconfig-bar").get_by_role("button", name="Save")
        save.click()
        conflict = page.locator(".siteconfig-conflict")
        expect(conflict).to_be_in_viewport()
        expect(conflict).to_contain_text("Keep theirs: 30 (anna, ")
        assert site.stored("high") == "30"
        conflict.get_by_label("Save mine: 20").check()
        save.click()
        expect(page.get_by_text("Saved, and in force: High 30 → 20.")).to_be_visible()

    def test_undoes_a_change(self, site: Site, page: Page, expect: Any) -> None:
        """From the history, after a look at what that does."""
        site.change(tax="7.00")
        page.goto(PAGE)
        page.get_by_role("link", name="History").click()
        page.get_by_role("link", name="Undo this change…").first.click()
        changes = page.locator("#siteconfig-changes")
        expect(changes.locator("tbody tr")).to_have_text(re.compile(r"Tax\s+7.00\s+19.00"))
        assert site.stored("tax") == "7.00"
        page.locator(".siteconfig-bar").get_by_role("button", name="Save").click()
        expect(page.get_by_text("Saved, and in force: Tax 7.00 → 19.00.")).to_be_visible()
