"""The pages in a real browser: what staff see, click and type, and what must never run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.hashers import make_password

from siteconfig import config
from tests.browsers import ADMIN_POLICY
from tests.factories import AdminFactory, SiteConfigurationFactory, StaffFactory
from tests.serving import ADMIN_PAGE, eventually

if TYPE_CHECKING:
    from tests.browsers import Browse

pytestmark = pytest.mark.long

#: As it would be written by somebody who wants to act as the one that looks at it.
CANARY = '"><svg onload="window.canary=1">'

#: The settings that can hold it; a log level is shorter.
TEXTS = ("site_name", "support_email", "api_key")

#: All that can be typed into or pressed.
INPUTS = ":is(input, select, textarea, button):visible"

#: Scripts that do what a page must not, and what is noted of each.
WRONGS = {
    "console.error('told')": "told",
    "setTimeout(() => { throw new Error('thrown') })": "thrown",
    "Promise.reject(new Error('refused'))": "refused",
    "fetch('/nowhere/')": "404",
    "document.body.innerHTML = '<p style=\"color: red\">'": "inline style",
    "document.body.innerHTML = '<svg onload=\"alert(1)\">'": "inline event handler",
    "document.body.innerHTML = '<img src=\"data:image/gif;base64,R0lGODlhAQABAAAAACw=\">'": "data:",
}


class TestTheSettingsPage:
    def test_a_change_is_on_the_home_page(self, browse: Browse, expect: Any) -> None:
        """From the login to the visitor who sees it."""
        AdminFactory.create(username="ada", password=make_password("made up"))
        page = browse()
        page.goto(ADMIN_PAGE)
        page.get_by_label("Username:").fill("ada")
        page.get_by_label("Password:").fill("made up")
        page.get_by_role("button", name="Log in").click()
        page.get_by_label("Site name:").fill("Harbour Books")
        page.get_by_role("button", name="Save").click()
        expect(page.locator(".messagelist")).to_contain_text("in force")
        assert config.site_name == "Harbour Books"
        visitor = browse()
        visitor.goto("/")
        expect(visitor).to_have_title("Harbour Books")
        expect(visitor.locator("#setting-site_name .value")).to_have_text("Harbour Books")

    def test_a_viewer_sees_values_and_no_input(self, browse: Browse, expect: Any) -> None:
        """Somebody who may change them does, on the same page."""
        SiteConfigurationFactory.create(site_name="Harbour Books")
        page = browse(StaffFactory.create(permissions=["view_siteconfiguration"]))
        page.goto(ADMIN_PAGE)
        expect(page.locator(".field-site_name")).to_contain_text("Harbour Books")
        expect(page.locator("fieldset").locator(INPUTS)).to_have_count(0)
        editor = browse(StaffFactory.create(permissions=["change_siteconfiguration"]))
        editor.goto(ADMIN_PAGE)
        expect(editor.get_by_label("Site name:")).to_have_value("Harbour Books")

    @pytest.mark.parametrize("may", ["view", "change"])
    def test_no_text_is_run(self, browse: Browse, expect: Any, may: str) -> None:
        """A setting is text for whoever looks at it, though no form would have taken it."""
        SiteConfigurationFactory.create(**dict.fromkeys(TEXTS, CANARY), extra={CANARY: CANARY})
        page = browse(StaffFactory.create(permissions=[f"{may}_siteconfiguration"]))
        for path, told in (
            (ADMIN_PAGE, page.locator(".field-site_name")),
            ("/", page.locator("h1")),
        ):
            page.goto(path)
            expect(told).to_be_visible()
            assert page.evaluate("window.canary") is None
            expect(page.locator("svg[onload]")).to_have_count(0)
        expect(page.locator("#setting-site_name .value")).to_have_text(CANARY)
        expect(page.locator("#setting-support_email .value")).to_have_text(CANARY)
        expect(page.locator("#setting-extra .value")).to_have_text(CANARY)


class TestTheHomePage:
    def test_fits_a_telephone(self, browse: Browse, expect: Any) -> None:
        """Nothing is cut off at the side."""
        page = browse(narrow=True)
        page.goto("/")
        expect(page.locator("#setting-site_name")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 390


class TestTheWatch:
    """What goes wrong on a page does not go unnoticed."""

    def test_each_is_noted(self, browse: Browse) -> None:
        """The policy of the admin's pages allows nothing but files, which Django's own keep to."""
        page = browse(AdminFactory.create())
        response = page.goto("/admin/")
        assert response is not None
        assert response.headers["content-security-policy"] == ADMIN_POLICY
        browse.settle()
        assert browse.errors == []
        for script, error in WRONGS.items():
            page.evaluate(f"() => {{ {script} }}")
            eventually(partial(has_noted, browse, error), partial(repr, browse.errors))
        browse.errors.clear()


def has_noted(browse: Browse, error: str) -> bool:
    browse.settle()
    return any(error in one for one in browse.errors)
