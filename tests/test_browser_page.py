"""The settings page and its history in a real browser, as people use them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.utils.timezone import now

from siteconfig import ConfigManager, config
from siteconfig.admin import SiteConfigurationAdmin
from siteconfig.history import How, attributed_to, changes_of
from siteconfig.models import ConfigChange, SiteConfiguration
from tests.browsers import NARROW
from tests.factories import AdminFactory, SiteConfigurationFactory, StaffFactory
from tests.serving import ADMIN_PAGE
from tests.test_browser import CANARY, INPUTS
from tests.testapp.models import EveryKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Dialog, Locator, Page

    from tests.browsers import Browse

pytestmark = pytest.mark.long

HISTORY = f"{ADMIN_PAGE}history/"
EVERY_KIND = "/admin/testapp/everykind/"

#: What somebody needs who edits, looks up and goes back.
EDITOR = ["change_siteconfiguration", "view_configchange", "revert_configchange"]

#: What is found by a name, a label, two words of a help text, a secret's help, and folded away.
FOUND = {
    "retry_count": {"retry_count"},
    "E-Mail": {"support_email"},
    "visitors page": {"maintenance_mode"},
    "none is sent": {"api_key"},
    "more settings that": {"extra"},
}

#: A value without a place at which a line could end.
LONG = "x" * 90


@pytest.fixture
def anna(browse: Browse) -> Any:
    return StaffFactory.create(username="anna", permissions=EDITOR)


@pytest.fixture
def ben(browse: Browse) -> Any:
    return StaffFactory.create(username="ben", permissions=EDITOR)


@pytest.fixture
def open_page(browse: Browse) -> Callable[..., Page]:
    """``open_page(user)``: a window with the settings page."""

    def open_page(user: Any, path: str = ADMIN_PAGE, **options: Any) -> Page:
        page = browse(user, **options)
        page.goto(path)
        return page

    return open_page


def row_of(page: Page, name: str) -> Locator:
    return page.locator(f'.siteconfig-row[data-setting="{name}"]')


def names_shown(page: Page) -> set[str]:
    rows = page.locator(".siteconfig-row:visible")
    return set(rows.evaluate_all("(rows) => rows.map((row) => row.dataset.setting)"))


def save(page: Page) -> None:
    page.locator(".siteconfig-bar").get_by_role("button", name="Save").click()


def review(page: Page) -> Locator:
    """The dialog with the changes."""
    page.get_by_role("button", name="Review changes").click()
    return page.get_by_role("dialog")


def dialogs_of(page: Page) -> list[str]:
    """The kinds of the browser's own dialogs that the page has opened; each is agreed to."""
    kinds: list[str] = []

    def agree(dialog: Dialog) -> None:
        kinds.append(dialog.type)
        dialog.accept()

    page.on("dialog", agree)
    return kinds


def cells(table: Locator) -> list[list[str]]:
    """The texts of its rows, once it is there."""
    table.locator("tbody tr").first.wait_for()
    found: list[list[str]] = table.locator("tbody tr").evaluate_all(
        "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"
    )
    return found


def newest() -> ConfigChange:
    change: ConfigChange = changes_of(SiteConfiguration).first()
    return change


def change_by(user: Any, reason: str = "", **values: Any) -> ConfigChange:
    """A change that somebody has made on the page, elsewhere."""
    with attributed_to(user, how=How.ADMIN, reason=reason):
        config.set_settings(**values)
    return newest()


class TestFromTheLoginToTheHistory:
    @pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
    def test_a_change(self, browse: Browse, expect: Any, scripts: bool) -> None:
        """Found, made, reviewed, given a reason, saved, seen by visitors, and on record."""
        StaffFactory.create(username="anna", password=make_password("made up"), permissions=EDITOR)
        page = browse(scripts=scripts)
        page.goto(ADMIN_PAGE)
        page.get_by_label("Username:").fill("anna")
        page.get_by_label("Password:").fill("made up")
        page.get_by_role("button", name="Log in").click()
        if scripts:
            page.get_by_label("Find a setting").fill("name shown in the title")
        else:
            expect(page.get_by_label("Find a setting")).to_be_hidden()
        page.get_by_label("Site name:").fill("Harbour Books")
        dialog = review(page)
        changes = dialog if scripts else page.locator("#siteconfig-changes")
        expect(changes).to_contain_text("Nothing is saved yet.")
        assert cells(changes) == [["Site name", "My site", "Harbour Books"]]
        assert config.site_name == "My site"
        (dialog if scripts else page).get_by_label("Reason").fill("The shop has a name")
        (dialog if scripts else page).get_by_role("button", name="Save").click()
        expect(page.locator(".messagelist")).to_have_text(
            "Saved, and in force: Site name My site → Harbour Books."
        )
        expect(row_of(page, "site_name")).to_contain_text("by anna, just now")
        visitor = browse()
        visitor.goto("/")
        expect(visitor.locator("#setting-site_name .value")).to_have_text("Harbour Books")
        page.get_by_role("link", name="History").click()
        change = page.locator(".siteconfig-change")
        expect(change.locator("header")).to_contain_text("anna, admin")
        expect(change.locator(".siteconfig-why")).to_have_text("The shop has a name")
        assert cells(change) == [["Site name", "My site", "Harbour Books"]]

    def test_undo(self, ben: Any, anna: Any, open_page: Any, expect: Any) -> None:
        """What it changed is shown as it was; nothing is saved before Save."""
        change_by(anna, site_name="Harbour Books")
        change = change_by(anna, timeout=45, retry_count=5)
        change_by(anna, maintenance_mode=True)
        page = open_page(ben, HISTORY)
        page.locator(f"#change-{change.pk}").get_by_role("link", name="Undo this change…").click()
        changes = page.locator("#siteconfig-changes")
        expect(changes).to_contain_text(f"Undo change {change.pk}")
        assert cells(changes) == [["Timeout (seconds)", "45", "30"], ["Retry count", "5", "3"]]
        expect(page.get_by_label("Timeout:")).to_have_value("30")
        expect(page.get_by_label("Reason")).to_have_value(f"Undoes change {change.pk}")
        expect(page.locator(".siteconfig-count")).to_have_text("2 settings edited")
        assert config.timeout == 45
        page.get_by_label("Retry count:").fill("4")
        dialog = review(page)
        expect(dialog).to_contain_text("Nothing is saved yet.")
        assert cells(dialog) == [["Timeout (seconds)", "45", "30"], ["Retry count", "5", "4"]]
        dialog.get_by_role("button", name="Save").click()
        expect(page.locator(".messagelist")).to_contain_text("Retry count 5 → 4")
        assert (config.timeout, config.retry_count, config.maintenance_mode) == (30, 4, True)
        assert (newest().who, newest().reason) == ("ben", f"Undoes change {change.pk}")

    def test_back_to_what_was(self, ben: Any, anna: Any, open_page: Any, expect: Any) -> None:
        """Everything as right after a change; the last one offers it not: it is so."""
        change = change_by(anna, timeout=45)
        change_by(anna, timeout=60)
        change_by(anna, retry_count=5)
        page = open_page(ben, HISTORY)
        link = "Set everything as it was then…"
        expect(page.get_by_role("link", name=link)).to_have_count(2)
        page.locator(f"#change-{change.pk}").get_by_role("link", name=link).click()
        changes = page.locator("#siteconfig-changes")
        assert cells(changes) == [["Timeout (seconds)", "60", "45"], ["Retry count", "5", "3"]]
        save(page)
        expect(page.locator(".messagelist")).to_contain_text("in force")
        assert (config.timeout, config.retry_count) == (45, 3)
        assert newest().reason == f"Back to change {change.pk}"

    def test_undo_of_what_is_folded_away(self, anna: Any, open_page: Any, expect: Any) -> None:
        """It is unfolded: what is about to be saved can be seen."""
        change = change_by(anna, extra={"banner": "Closed"})
        page = open_page(anna, f"{ADMIN_PAGE}?_undo={change.pk}")
        expect(page.get_by_label("More settings:")).to_have_value("{}")
        expect(page.get_by_label("More settings:")).to_be_visible()
        expect(page.locator("#siteconfig-changes tbody tr")).to_contain_text("not set")

    def test_the_changes_of_one_setting(self, anna: Any, open_page: Any, expect: Any) -> None:
        """The note of who changed it last leads there."""
        change_by(anna, timeout=45)
        change_by(anna, site_name="Harbour Books")
        page = open_page(anna)
        row_of(page, "timeout").get_by_role("link", name="by anna").click()
        expect(page.locator("#content-main")).to_contain_text("Only changes of Timeout.")
        expect(page.locator(".siteconfig-change")).to_have_count(1)
        page.get_by_role("link", name="Show all").click()
        expect(page.locator(".siteconfig-change")).to_have_count(2)


class TestFinding:
    def test_by_words(self, anna: Any, open_page: Any, expect: Any) -> None:
        """Of the name, the label and the help, in any case; what is folded away is unfolded."""
        page = open_page(anna)
        every = names_shown(page)
        assert "extra" not in every
        query = page.get_by_label("Find a setting")
        for typed, names in FOUND.items():
            query.press_sequentially(typed)
            assert names_shown(page) == names
            query.press("Escape")
            expect(query).to_have_value("")
            assert names_shown(page) == every

    def test_by_keys(self, anna: Any, open_page: Any, expect: Any) -> None:
        """A slash begins, Enter goes to the first that is found and saves nothing."""
        page = open_page(anna)
        page.keyboard.press("/")
        query = page.get_by_label("Find a setting")
        expect(query).to_be_focused()
        expect(query).to_have_value("")
        page.keyboard.type("times")
        page.keyboard.press("Enter")
        field = page.get_by_label("Retry count:")
        expect(field).to_be_focused()
        page.keyboard.press("/")  # is typed, in a field
        expect(field).to_be_focused()
        assert page.url.endswith(ADMIN_PAGE)

    def test_nothing(self, anna: Any, open_page: Any, expect: Any) -> None:
        """Is said."""
        page = open_page(anna)
        page.get_by_label("Find a setting").fill("no such thing")
        expect(page.locator(".siteconfig-found")).to_have_text("No setting matches.")
        assert names_shown(page) == set()
        page.get_by_label("Find a setting").press("Enter")
        assert not page.locator(".messagelist").is_visible()

    def test_only_what_differs(self, anna: Any, open_page: Any) -> None:
        """From the default, or from what is stored: what is being edited stays."""
        change_by(anna, timeout=45)
        page = open_page(anna)
        page.get_by_label("Site name:").fill("Harbour Books")
        page.get_by_label("Only changed from the default").check()
        assert names_shown(page) == {"timeout", "site_name"}
        page.get_by_label("Find a setting").fill("seconds")
        assert names_shown(page) == {"timeout"}


class TestEditing:
    def test_the_count(self, anna: Any, open_page: Any, expect: Any) -> None:
        """Goes up, and down again with what is taken back."""
        page = open_page(anna)
        count = page.locator(".siteconfig-count")
        expect(count).to_have_text("")
        page.get_by_label("Timeout:").fill("45")
        expect(count).to_have_text("1 setting edited")
        page.get_by_label("Log level:").select_option("DEBUG")
        page.get_by_label("Maintenance mode").check()
        expect(count).to_have_text("3 settings edited")
        page.get_by_label("Maintenance mode").uncheck()
        page.get_by_label("Log level:").select_option("INFO")
        page.get_by_label("Timeout:").fill("30")
        expect(count).to_have_text("")

    def test_save_by_keys(self, anna: Any, open_page: Any, expect: Any) -> None:
        """Ctrl+S, from within a field."""
        page = open_page(anna)
        page.get_by_label("Timeout:").fill("45")
        page.keyboard.press("Control+s")
        expect(page.locator(".messagelist")).to_contain_text("Timeout 30 → 45")

    @pytest.mark.parametrize("edited", [True, False])
    def test_leaving(self, anna: Any, open_page: Any, edited: bool) -> None:
        """Warns whoever has edited, and nobody else."""
        page = open_page(anna)
        asked = dialogs_of(page)
        page.get_by_label("Site name:").click()
        if edited:
            page.keyboard.type("!")
        page.get_by_role("link", name="Home").click()
        page.wait_for_url("**/admin/")
        assert asked == ["beforeunload"] * edited

    def test_leaving_after_a_save(self, anna: Any, open_page: Any, expect: Any) -> None:
        """Neither the save warns, nor what comes after it."""
        page = open_page(anna)
        asked = dialogs_of(page)
        page.get_by_label("Site name:").click()
        page.keyboard.type("!")
        save(page)
        expect(page.locator(".messagelist")).to_contain_text("in force")
        page.get_by_label("Site name:").click()
        page.get_by_role("link", name="Home").click()
        page.wait_for_url("**/admin/")
        assert asked == []

    def test_leaving_with_what_was_refused(self, anna: Any, open_page: Any, expect: Any) -> None:
        """It is an edit still."""
        page = open_page(anna)
        asked = dialogs_of(page)
        page.get_by_label("Support e-mail:").fill("nobody")
        save(page)
        error = row_of(page, "support_email").locator(".errorlist")
        expect(error).to_be_visible()
        expect(page.get_by_label("Support e-mail:")).to_be_focused()
        expect(page.locator(".siteconfig-count")).to_have_text("1 setting edited")
        page.get_by_label("Support e-mail:").click()
        page.get_by_role("link", name="Home").click()
        page.wait_for_url("**/admin/")
        assert asked == ["beforeunload"]

    def test_review_of_nothing(self, anna: Any, open_page: Any, expect: Any) -> None:
        """Says so."""
        page = open_page(anna)
        expect(review(page)).to_contain_text("There is nothing to save")

    def test_review_of_what_is_wrong(self, anna: Any, open_page: Any, expect: Any) -> None:
        """Shows it at its field, where it can be put right; nothing is lost."""
        page = open_page(anna)
        page.get_by_label("Support e-mail:").fill("nobody")
        page.get_by_label("Reason").fill("A new one")
        page.get_by_role("button", name="Review changes").click()
        expect(row_of(page, "support_email").locator(".errorlist")).to_be_visible()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_label("Reason")).to_have_value("A new one")
        page.get_by_label("Support e-mail:").fill("help@example.org")
        dialog = review(page)
        assert cells(dialog) == [["Support e-mail", "empty", "help@example.org"]]

    def test_review_of_a_secret_and_of_lines(self, anna: Any, open_page: Any, expect: Any) -> None:
        """The one is told of, the other shown line by line."""
        change_by(anna, extra={"banner": "Closed", "color": "red"})
        page = open_page(anna)
        page.get_by_label("API key:").fill("sk-0123456789abcdef")
        page.get_by_role("heading", name="More settings").click()
        page.get_by_label("More settings:").fill('{"banner": "Open", "size": [1, 2]}')
        dialog = review(page)
        expect(dialog).to_contain_text("changed; what a secret is, or was, is not recorded")
        assert "sk-0123" not in dialog.inner_html()
        expect(dialog.locator("tr", has_text="banner")).to_contain_text("Open")
        expect(dialog.locator("tr", has_text="color")).to_contain_text("not set")
        expect(dialog.locator("tr", has_text="size").locator("ins")).to_have_count(4)


class TestResetting:
    def test_a_text(self, anna: Any, open_page: Any, expect: Any) -> None:
        """One box, no need to know the default; it counts as an edit."""
        change_by(anna, site_name="Harbour Books")
        page = open_page(anna)
        row_of(page, "site_name").get_by_label("Reset to the default: My site").check()
        expect(page.locator(".siteconfig-count")).to_have_text("1 setting edited")
        dialog = review(page)
        assert cells(dialog) == [["Site name", "Harbour Books", "My site"]]
        dialog.get_by_role("button", name="Save").click()
        expect(page.locator(".messagelist")).to_contain_text("Site name Harbour Books → My site")
        expect(row_of(page, "site_name").get_by_text("default", exact=True)).to_be_visible()
        expect(row_of(page, "site_name").get_by_role("checkbox")).to_have_count(0)

    def test_a_file(self, browse: Browse, open_page: Any, expect: Any) -> None:
        """Uploaded, and replaced by another."""
        page = open_page(AdminFactory.create(), EVERY_KIND)
        for name in ("terms", "rules"):
            file = {"name": f"{name}.txt", "mimeType": "text/plain", "buffer": b"Be kind."}
            page.get_by_label("Document:").set_input_files(file)
            expect(page.locator(".siteconfig-count")).to_have_text("1 setting edited")
            save(page)
            expect(page.locator(".messagelist")).to_contain_text(f"→ {name}")
            assert re.fullmatch(rf"{name}\w*\.txt", ConfigManager(EveryKind).document)
        assert row_of(page, "document").get_by_label("Reset to the default: empty").is_visible()

    def test_a_file_to_the_default(self, browse: Browse, open_page: Any, expect: Any) -> None:
        """It is taken away."""
        ConfigManager(EveryKind).set_setting("document", "terms.txt")
        page = open_page(AdminFactory.create(), EVERY_KIND)
        row_of(page, "document").get_by_label("Reset to the default: empty").check()
        save(page)
        expect(page.locator(".messagelist")).to_contain_text("Document terms.txt → empty")
        assert ConfigManager(EveryKind).document == ""

    def test_no_file(self, browse: Browse, open_page: Any) -> None:
        """Where there was none is no change."""
        page = open_page(AdminFactory.create(), EVERY_KIND)
        save(page)
        page.locator(".messagelist").wait_for()
        assert page.locator(".messagelist").inner_text() == "Nothing was changed."


class TestTwoPeople:
    def test_other_settings(self, anna: Any, ben: Any, open_page: Any, expect: Any) -> None:
        """Both win."""
        page, other = open_page(ben), open_page(anna)
        page.get_by_label("Timeout:").fill("45")
        other.get_by_label("Retry count:").fill("5")
        save(other)
        expect(other.locator(".messagelist")).to_contain_text("Retry count 3 → 5")
        save(page)
        expect(page.locator(".messagelist")).to_have_text("Saved, and in force: Timeout 30 → 45.")
        assert (config.timeout, config.retry_count) == (45, 5)

    @pytest.mark.parametrize(
        ("choice", "timeout"), [("Keep theirs: 60", 60), ("Save mine: 90", 90)]
    )
    @pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
    def test_one_setting(
        self,
        anna: Any,
        ben: Any,
        open_page: Any,
        expect: Any,
        choice: str,
        timeout: int,
        scripts: bool,
    ) -> None:
        """Whoever saves later sees both values, and chooses; the rest is saved as well."""
        page = open_page(ben, scripts=scripts)
        page.get_by_label("Timeout:").fill("90")
        page.get_by_label("Retry count:").fill("5")
        change_by(anna, timeout=60)
        save(page)
        conflict = page.locator(".siteconfig-conflict")
        expect(conflict).to_contain_text("Keep theirs: 60 (anna, ")
        expect(conflict).to_contain_text(f" {now().year}, ")
        expect(conflict).to_contain_text("Save mine: 90")
        expect(row_of(page, "timeout").locator(".errorlist")).to_have_text(
            "anna has changed Timeout while you were editing. Choose below what is to be."
        )
        assert (config.timeout, config.retry_count) == (60, 3)
        if scripts:
            expect(page.locator(".siteconfig-count")).to_have_text("2 settings edited")
        conflict.get_by_label(choice).check()
        save(page)
        expect(page.locator(".messagelist")).to_contain_text("Retry count 3 → 5")
        assert (config.timeout, config.retry_count) == (timeout, 5)

    def test_a_third_value(self, anna: Any, ben: Any, open_page: Any, expect: Any) -> None:
        """Is not what was chosen to be replaced."""
        page = open_page(ben)
        page.get_by_label("Timeout:").fill("90")
        change_by(anna, timeout=60)
        save(page)
        page.get_by_label("Save mine: 90").check()
        change_by(anna, timeout=70)
        save(page)
        expect(page.locator(".siteconfig-conflict")).to_contain_text("Keep theirs: 70 (anna, ")
        assert config.timeout == 70
        page.get_by_label("Save mine: 90").check()
        save(page)
        expect(page.locator(".messagelist")).to_contain_text("Timeout 70 → 90")

    def test_review(self, anna: Any, ben: Any, open_page: Any, expect: Any) -> None:
        """Asks as well, before anything is saved."""
        page = open_page(ben)
        page.get_by_label("Timeout:").fill("90")
        change_by(anna, timeout=60)
        page.get_by_role("button", name="Review changes").click()
        page.get_by_label("Save mine: 90").check()
        dialog = review(page)
        assert cells(dialog) == [["Timeout (seconds)", "60", "90"]]
        dialog.get_by_role("button", name="Save").click()
        expect(page.locator(".messagelist")).to_contain_text("Timeout 60 → 90")


class TestWhoSeesWhat:
    def test_a_viewer(self, anna: Any, open_page: Any, expect: Any) -> None:
        """All values, nothing to enter or to press, and not who has done what."""
        change_by(anna, site_name="Harbour Books")
        viewer = StaffFactory.create(permissions=["view_siteconfiguration"])
        page = open_page(viewer)
        expect(row_of(page, "site_name")).to_contain_text("Harbour Books")
        expect(page.locator("fieldset").locator(INPUTS)).to_have_count(0)
        expect(page.locator(".siteconfig-bar, .siteconfig-dialog")).to_have_count(0)
        expect(page.get_by_role("link", name="History")).to_have_count(0)
        expect(page.get_by_text("by anna")).to_have_count(0)
        page.get_by_label("Find a setting").fill("severe")
        assert names_shown(page) == {"log_level"}

    def test_a_viewer_of_the_history(self, anna: Any, open_page: Any, expect: Any) -> None:
        """Sees it, and no way back."""
        change_by(anna, timeout=45)
        names = ["view_siteconfiguration", "view_configchange"]
        page = open_page(StaffFactory.create(permissions=names))
        expect(row_of(page, "timeout")).to_contain_text("by anna, just now")
        page.get_by_role("link", name="History").click()
        expect(page.locator(".siteconfig-change")).to_contain_text("anna")
        expect(page.locator(".siteconfig-ways")).to_have_count(0)

    def test_the_permission_of_a_setting(
        self, open_page: Any, expect: Any, monkeypatch: pytest.MonkeyPatch, browse: Browse
    ) -> None:
        """Without it the setting is shown, and the others are edited."""
        needed = {"api_key": "siteconfig.change_api_key"}
        monkeypatch.setattr(SiteConfigurationAdmin, "field_permissions", needed)
        Permission.objects.create(
            codename="change_api_key",
            content_type=ContentType.objects.get_for_model(SiteConfiguration),
        )
        SiteConfigurationFactory.create(api_key="sk-0123456789abcdef")
        page = open_page(StaffFactory.create(permissions=EDITOR))
        row = row_of(page, "api_key")
        expect(row.locator(".readonly")).to_have_text("set, ends in …cdef")
        expect(row.locator(INPUTS)).to_have_count(0)
        page.get_by_label("Timeout:").fill("45")
        save(page)
        expect(page.locator(".messagelist")).to_contain_text("Timeout 30 → 45")
        assert config.api_key == "sk-0123456789abcdef"
        page = open_page(StaffFactory.create(permissions=[*EDITOR, "change_api_key"]))
        expect(row_of(page, "api_key").locator("input[type=password]")).to_be_visible()

    def test_a_pinned_setting(self, anna: Any, open_page: Any, expect: Any, settings: Any) -> None:
        """Is read-only, and says what fixes it and what it hides."""
        change_by(anna, timeout=45)
        settings.SITECONFIG = {**settings.SITECONFIG, "PINNED": {"timeout": 7}}
        page = open_page(anna)
        row = row_of(page, "timeout")
        expect(row.locator(".readonly")).to_have_text("7")
        expect(row.locator(INPUTS)).to_have_count(0)
        expect(row).to_contain_text("by SITECONFIG[\"PINNED\"]['timeout']")
        expect(row).to_contain_text("hides the stored value: 45")
        page.get_by_label("Retry count:").fill("5")
        save(page)
        expect(page.locator(".messagelist")).to_contain_text("Retry count 3 → 5")
        assert SiteConfiguration.objects.get().timeout == 45


class TestTheLook:
    @pytest.mark.parametrize("narrow", [True, False], ids=["narrow", "wide"])
    @pytest.mark.parametrize("dark", [True, False], ids=["dark", "light"])
    def test_nothing_is_cut_off(
        self, anna: Any, ben: Any, open_page: Any, expect: Any, narrow: bool, dark: bool
    ) -> None:
        """On the page, in the dialog, in a conflict, and in the history."""
        change_by(anna, LONG * 3, site_name=LONG, extra={LONG: LONG, "lines": [LONG, {LONG: 1}]})
        page = open_page(ben, narrow=narrow, dark=dark)
        assert fits(page)
        for edge in ("0", "document.scrollingElement.scrollHeight"):
            page.evaluate(f"window.scrollTo(0, {edge})")
            expect(page.locator(".siteconfig-bar")).to_be_in_viewport(ratio=1)
        page.get_by_label("Site name:").fill("y" * 90)
        dialog = review(page)
        expect(dialog).to_be_visible()
        expect(dialog).to_be_in_viewport(ratio=1)
        assert dialog.evaluate("(dialog) => dialog.scrollWidth <= dialog.clientWidth")
        dialog.get_by_role("button", name="Back to editing").click()
        change_by(anna, site_name="z" * 90)
        save(page)
        expect(page.locator(".siteconfig-conflict")).to_be_in_viewport()
        assert fits(page)
        page.evaluate("window.onbeforeunload = null")
        page.locator(".siteconfig-conflict").get_by_label("Keep theirs").check()
        save(page)
        expect(page.locator(".messagelist")).to_be_visible()
        page.goto(HISTORY)
        expect(page.locator(".siteconfig-change")).to_have_count(2)
        assert fits(page)

    def test_other_pages_are_left_alone(self, browse: Browse, open_page: Any, expect: Any) -> None:
        """Django's own have nothing of ours."""
        page = open_page(AdminFactory.create(), "/admin/auth/user/")
        expect(page.locator("#result_list")).to_be_visible()
        expect(page.locator("[href*='siteconfig/admin'], [src*='siteconfig/']")).to_have_count(0)
        page.goto(ADMIN_PAGE)
        expect(page.locator("[href*='siteconfig/admin.css']")).to_have_count(1)


def fits(page: Page) -> bool:
    """Whether nothing is to the right of the window. A telephone would make it wider."""
    width = (page.viewport_size or NARROW)["width"]
    sizes = page.evaluate("[window.innerWidth, document.scrollingElement.scrollWidth]")
    return bool(sizes == [width, width])


class TestTextsAreTexts:
    def test_nowhere_is_one_run(
        self, browse: Browse, open_page: Any, expect: Any, scripts_run: Callable[..., None]
    ) -> None:
        """Settings, names of settings, reasons and names of users, wherever they are shown."""
        anna = StaffFactory.create(username=f"a{CANARY}", permissions=EDITOR)
        ben = StaffFactory.create(username=f"b{CANARY}", permissions=EDITOR)
        texts = {"site_name": CANARY, "support_email": CANARY, "api_key": CANARY}
        with attributed_to(anna, how=How.ADMIN, reason=CANARY):
            SiteConfigurationFactory.create(**texts, extra={CANARY: CANARY, "b": f"{CANARY}\n1"})
        first = newest()
        page = open_page(ben)
        scripts_run(page, row_of(page, "site_name"))
        page.get_by_label("Support e-mail:").fill("")
        page.get_by_label("Site name:").fill(f"1{CANARY}")
        page.get_by_role("heading", name="More settings").click()
        page.get_by_label("More settings:").fill("{}")
        page.get_by_label("Reason").fill(CANARY)
        dialog = review(page)
        scripts_run(page, dialog)
        expect(dialog.locator("tr", has_text="Site name")).to_contain_text(f"1{CANARY}")
        dialog.get_by_role("button", name="Back to editing").click()
        change_by(anna, CANARY, site_name=f"2{CANARY}", extra={CANARY: f"3{CANARY}"})
        save(page)
        scripts_run(page, page.locator(".siteconfig-conflict").first)
        expect(page.locator(".siteconfig-conflict").first).to_contain_text(f"2{CANARY}")
        for conflict in page.locator(".siteconfig-conflict").all():
            conflict.get_by_label("Save mine").check()
        save(page)
        scripts_run(page, page.locator(".messagelist"))
        expect(page.locator(".messagelist")).to_contain_text(f"1{CANARY}"[:30])
        page.get_by_role("link", name="History").click()
        scripts_run(page, page.locator(f"#change-{first.pk}"))
        expect(page.locator(f"#change-{first.pk} .siteconfig-why")).to_have_text(CANARY)
        page.goto(f"{HISTORY}?setting={CANARY.replace('=', '%3D')}")
        scripts_run(page, page.locator("#content-main"))
        page.goto(f"{ADMIN_PAGE}?_undo={newest().pk}")
        scripts_run(page, page.locator("#siteconfig-changes"))


@pytest.fixture
def scripts_run(expect: Any) -> Callable[..., None]:
    """Fail if the page, once this is visible, has run or holds one of the canary's."""

    def check(page: Page, shown: Locator) -> None:
        expect(shown).to_be_visible()
        assert page.evaluate("window.canary") is None
        expect(page.locator("svg[onload]")).to_have_count(0)

    return check


#: What can have the focus in the form, in the order of the page.
FOCUSABLE = """() => [
    ...document.querySelectorAll("#content form :is(a[href], input, select, textarea, summary)")
].filter((one) => one.type !== "hidden" && one.checkVisibility())"""


class TestByKeysAlone:
    def test_every_control_is_reached(self, anna: Any, open_page: Any) -> None:
        """In the order of the page, and none of them below the bar."""
        change_by(anna, timeout=45, api_key="sk-0123456789abcdef")
        page = open_page(anna)
        page.keyboard.press("/")
        page.evaluate(f"() => {{ window.controls = ({FOCUSABLE})() }}")
        number = page.evaluate("window.controls.length")
        assert number > 12
        for position in range(number):
            assert page.evaluate("window.controls.indexOf(document.activeElement)") == position
            assert page.evaluate(IS_UNCOVERED), page.evaluate("document.activeElement.outerHTML")
            page.keyboard.press("Tab")

    def test_the_dialog_keeps_the_focus(self, anna: Any, open_page: Any, expect: Any) -> None:
        """Escape closes it, and goes back to where it was opened."""
        page = open_page(anna)
        page.get_by_label("Timeout:").fill("45")
        page.get_by_role("button", name="Review changes").focus()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        expect(dialog.get_by_label("Reason")).to_be_focused()
        reached = set()
        for _ in range(8):
            page.keyboard.press("Tab")
            at = page.evaluate("""() => {
                const at = document.activeElement;
                return at.closest("dialog") ? at.value : at.tagName;
            }""")
            reached.add(at)
        assert reached <= {"", "Back to editing", "Save", "BODY"}  # the body: the browser's bars
        assert reached >= {"", "Back to editing", "Save"}
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("button", name="Review changes")).to_be_focused()
        expect(page.get_by_label("Timeout:")).to_have_value("45")

    @pytest.mark.parametrize("key", ["Enter", "Control+s"])
    def test_the_dialog_saves(self, anna: Any, open_page: Any, expect: Any, key: str) -> None:
        """With the reason that was given in it."""
        page = open_page(anna)
        page.get_by_label("Timeout:").fill("45")
        dialog = review(page)
        dialog.get_by_label("Reason").fill("It is slow")
        page.keyboard.press(key)
        expect(page.locator(".messagelist")).to_contain_text("Timeout 30 → 45")
        assert newest().reason == "It is slow"


#: Whether what has the focus can be seen.
IS_UNCOVERED = """() => {
    const at = document.activeElement;
    const box = at.getBoundingClientRect();
    const found = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    return at.contains(found) || found?.closest("label")?.contains(at);
}"""
