"""Every text of the pages can be translated: in a language of its own, each is in brackets."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client
from django.utils.translation import trans_real

from siteconfig import config
from siteconfig.history import How, attributed_to, changes_of
from siteconfig.models import SiteConfiguration
from tests.factories import StaffFactory
from tests.serving import ADMIN_PAGE

pytestmark = pytest.mark.django_db

#: Attributes that people read or hear.
READ = {"alt", "aria-label", "placeholder", "title"}

#: Those of our own elements that the script shows.
SHOWN = {"data-none", "data-one", "data-many", "data-close"}

#: What is no text of the page: values, and names of people.
VALUES = ("anna", "ben", "Harbour", "help@example.org", "banner", "My site")


def bracketed(text: str) -> str:
    return f"⟦{text.rpartition(trans_real.CONTEXT_SEPARATOR)[2]}⟧"


@pytest.fixture
def _brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that gettext is asked for comes back in brackets, and the values within them as well."""
    language = trans_real.DjangoTranslation
    monkeypatch.setattr(language, "gettext", lambda self, text: bracketed(text))
    monkeypatch.setattr(
        language, "ngettext", lambda self, one, many, n: bracketed(one if n == 1 else many)
    )


class Texts(HTMLParser):
    """The texts of a page, those in attributes too."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._is_code = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._is_code = tag in {"script", "style", "textarea"}
        is_button = tag == "input" and given.get("type") in {"submit", "button"}
        read = READ | SHOWN | ({"value"} if is_button else set())
        self.texts += [text for name, text in given.items() if name in read]

    def handle_endtag(self, tag: str) -> None:
        self._is_code = False

    def handle_data(self, data: str) -> None:
        if not self._is_code:
            self.texts.append(data)


def untranslated(page: str) -> list[str]:
    """The texts with words outside of brackets that are no values."""
    found = []
    for text in Texts(page).texts:
        left, size = text, len(text) + 1
        while len(left) < size:  # from the innermost brackets outwards
            size = len(left)
            left = re.sub(r"⟦[^⟦⟧]*⟧", "", left)
        for value in VALUES:
            left = left.replace(value, "")
        if re.search(r"[^\W\d_]{2}", left):
            found.append(text.strip())
    return found


@pytest.fixture
def client(_brackets: None) -> Client:
    """ben's."""
    anna = StaffFactory.create(username="anna")
    with attributed_to(anna, how=How.ADMIN, reason="W-12"):
        config.set_settings(site_name="Harbour", api_key="W-12", extra={"banner": "W-12"})
        config.set_settings(timeout=45)
    names = ["change_siteconfiguration", "view_configchange", "revert_configchange"]
    client = Client()
    client.force_login(StaffFactory.create(username="ben", permissions=names))
    return client


def filled_in(client: Client, **changes: Any) -> dict[str, Any]:
    form = client.get(ADMIN_PAGE).context["adminform"].form
    data = {name: form[name].value() for name in form.fields}
    data["_seen"] = form.seen
    return {name: value for name, value in data.items() if value not in (None, False)} | changes


def test_a_text_that_is_not_translated_is_found() -> None:
    """In an element or in an attribute, beside one that is."""
    page = '<p title="Nor this">⟦Yes, of ⟦May⟧⟧ 1</p><p>⟦Yes⟧ and no</p><script>no.no</script>'
    assert untranslated(page) == ["Nor this", "⟦Yes⟧ and no"]


class TestEveryText:
    def test_of_the_page(self, client: Client) -> None:
        """Marks, boxes, buttons, the bar and what the script says."""
        page = client.get(ADMIN_PAGE).content.decode()
        assert "⟦Review changes⟧" in page
        assert "⟦%s settings edited⟧" in page
        assert untranslated(page) == []

    def test_of_the_review(self, client: Client) -> None:
        """What would be saved; nothing; and what is wrong."""
        for changes, told in (
            ({"timeout": 30, "api_key": "W-12W-12", "maintenance_mode": "on"}, "⟦Before⟧"),
            ({}, "⟦There is nothing to save: everything is so already.⟧"),
            ({"timeout": ""}, "⟦Some of what was entered cannot be saved.⟧"),
        ):
            page = client.post(ADMIN_PAGE, filled_in(client, _preview="1", **changes))
            assert told in page.content.decode()
            assert untranslated(page.content.decode()) == []

    def test_of_a_conflict(self, client: Client) -> None:
        """The question and both answers."""
        data = filled_in(client, timeout=60)
        config.set_setting("timeout", 50)
        page = client.post(ADMIN_PAGE, data).content.decode()
        assert "⟦Save mine:⟧" in page
        assert untranslated(page) == []

    def test_of_the_message(self, client: Client) -> None:
        """After a save."""
        page = client.post(ADMIN_PAGE, filled_in(client, timeout=60), follow=True)
        assert "⟦Saved, and in force:" in page.content.decode()
        assert untranslated(page.content.decode()) == []

    def test_of_the_history(self, client: Client) -> None:
        """Of all changes, of one setting's, and of the way back."""
        key = changes_of(SiteConfiguration).first().pk
        for path in ("history/", "history/?setting=timeout", f"?_undo={key}", f"?_restore={key}"):
            page = client.get(f"{ADMIN_PAGE}{path}").content.decode()
            assert untranslated(page) == []

    def test_of_what_is_pinned(self, client: Client, settings: Any) -> None:
        """And of what cannot be read."""
        settings.SITECONFIG = {**settings.SITECONFIG, "PINNED": {"timeout": 7}}
        SiteConfiguration.objects.update(log_level="W-12")
        page = client.get(ADMIN_PAGE).content.decode()
        assert "⟦pinned⟧" in page
        assert untranslated(page) == []
