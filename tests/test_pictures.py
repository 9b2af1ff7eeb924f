"""The pictures of the documentation: what they show is there, and with them it is taken anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db.models import QuerySet
from django.utils import timezone

from siteconfig import config
from siteconfig.history import How, attributed_to, changes_of
from siteconfig.models import ConfigChange, SiteConfiguration
from tests.factories import StaffFactory
from tests.serving import ADMIN_PAGE

if TYPE_CHECKING:
    from tests.browsers import Browse

pytestmark = pytest.mark.long

#: The changes before the pictures: who, how, why, and what.
CHANGES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("anna", How.ADMIN, "", {"site_name": "Harbour Books", "support_email": "help@example.org"}),
    ("ben", How.ADMIN, "New account at the carrier", {"api_key": "sk-0123456789abcdef"}),
    ("", How.COMMAND, "", {"extra": {"banner": "Closed on Monday"}}),
    ("anna", How.ADMIN, "The carrier is slow in December", {"timeout": 45, "retry_count": 5}),
]

PERMISSIONS = ["change_siteconfiguration", "view_configchange", "revert_configchange"]

#: When the last of them was made; the others, each a day before.
LAST = datetime(2026, 3, 12, 9, 41, tzinfo=UTC)

WHEN = "March 12, 2026, 9:41 a.m."

#: The window in the pictures.
HEIGHT = 900


@pytest.fixture
def people(browse: Browse) -> dict[str, Any]:
    """Who has made the changes, and may look at them, and at no other page."""
    people = {
        name: StaffFactory.create(username=name, permissions=PERMISSIONS)
        for name in ("anna", "ben")
    }
    for who, how, reason, values in CHANGES:
        with attributed_to(people.get(who), how=how, reason=reason):
            config.set_settings(**values)
    return people


def date_changes(last: datetime) -> list[int]:
    """Say when the changes were made; their keys, the newest first."""
    keys: list[int] = list(changes_of(SiteConfiguration).values_list("pk", flat=True))
    for days, key in enumerate(keys):
        made = last - timedelta(days=days)
        QuerySet(ConfigChange).filter(pk=key).update(at=made)  # its own refuses
    return keys


class TestThePictures:
    def test_picture_of_the_settings(self, people: Any, browse: Browse, screenshot: Any) -> None:
        """One has been edited, others were changed before; all is in one window."""
        date_changes(timezone.now() - timedelta(days=2, minutes=5))
        page = browse(people["ben"], height=HEIGHT)
        page.goto(ADMIN_PAGE)
        page.get_by_label("Support e-mail:").fill("orders@example.org")
        page.get_by_label("Reason").fill("One address for everything")
        screenshot("settings", page)

    def test_picture_of_the_review(
        self, people: Any, browse: Browse, screenshot: Any, expect: Any
    ) -> None:
        """What would be saved, before it is."""
        date_changes(timezone.now() - timedelta(days=2, minutes=5))
        page = browse(people["ben"], height=HEIGHT)
        page.goto(ADMIN_PAGE)
        page.get_by_label("Support e-mail:").fill("orders@example.org")
        page.get_by_label("Maintenance mode").check()
        page.get_by_label("Timeout:").fill("30")
        page.get_by_label("API key:").fill("sk-fedcba9876543210")
        page.get_by_role("button", name="Review changes").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        dialog.get_by_label("Reason").fill("December is over")
        screenshot("review", page)

    def test_picture_of_the_history(
        self, people: Any, browse: Browse, screenshot: Any, expect: Any
    ) -> None:
        """Who changed what, when, how and why."""
        keys = date_changes(LAST)
        page = browse(people["ben"], height=HEIGHT)
        page.goto(ADMIN_PAGE)
        page.get_by_role("link", name="History").click()
        expect(page.locator(".siteconfig-change")).to_have_count(len(CHANGES))
        texts = {
            f"#change-{key} header .siteconfig-quiet": f"change {number}, version {number + 1}"
            for number, key in enumerate(reversed(keys), 1)
        }
        screenshot("history", page, texts)

    def test_picture_of_a_conflict(
        self, people: Any, browse: Browse, screenshot: Any, expect: Any
    ) -> None:
        """Two people, one setting."""
        date_changes(timezone.now() - timedelta(days=2, minutes=5))
        page = browse(people["ben"], height=HEIGHT)
        page.goto(ADMIN_PAGE)
        page.get_by_label("Timeout:").fill("90")
        with attributed_to(people["anna"], how=How.ADMIN):
            config.set_setting("timeout", 60)
        page.get_by_role("button", name="Save").click()
        conflict = page.locator(".siteconfig-conflict")
        expect(conflict).to_contain_text("anna")
        screenshot("conflict", page, {".siteconfig-conflict .siteconfig-quiet": f"(anna, {WHEN})"})

    def test_picture_on_a_telephone(self, people: Any, browse: Browse, screenshot: Any) -> None:
        """In the dark."""
        date_changes(timezone.now() - timedelta(days=2, minutes=5))
        page = browse(people["ben"], narrow=True, dark=True)
        page.goto(ADMIN_PAGE)
        page.get_by_label("Site name:").fill("Harbour Books & Maps")
        screenshot("settings-dark-narrow", page)
