"""The form of a secret takes one and shows none: in any form, and on the admin page."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django import forms
from django.contrib import admin
from django.test import Client, RequestFactory
from django.utils import translation

from siteconfig import ConfigManager, config
from siteconfig.admin import ConfigAdmin
from siteconfig.fields import SecretField
from siteconfig.models import SiteConfiguration
from siteconfig.secret import Secret
from siteconfig.widgets import Given, SecretFormField, SecretInput
from tests.factories import AdminFactory, StaffFactory
from tests.keys import OTHER_KEY, column, opened, sealed, set_column
from tests.test_admin import URL, browser, filled_in
from tests.testapp.models import ShopConfig

CANARY = "canary-5e1f-0123456789"


class KeyForm(forms.ModelForm):  # type: ignore[type-arg] # not at run time
    """As any project makes one."""

    class Meta:
        model = SiteConfiguration
        fields = ["api_key", "timeout"]


def bound(row: Any, **data: Any) -> KeyForm:
    return KeyForm({"timeout": "30", **data}, instance=row)


@pytest.fixture
def row() -> SiteConfiguration:
    """An instance as it comes from the database."""
    return SiteConfiguration(api_key=Secret(CANARY, stored=sealed(CANARY)))


class TestWhatIsShown:
    def test_nothing_of_the_value_but_its_end(self, row: SiteConfiguration) -> None:
        """In the page, in the value that is rendered, in the hidden form of the field."""
        form = KeyForm(instance=row)
        for shown in (form.as_p(), form.as_table(), form["api_key"].as_hidden()):
            assert CANARY[:-4] not in shown
        assert form["api_key"].value() == ""
        assert 'type="password"' in str(form["api_key"])
        assert "value=" not in str(form["api_key"])

    @pytest.mark.parametrize(
        ("secret", "text", "has_box"),
        [
            (Secret(), "not set", False),
            (Secret("0123456789a"), "set. Leave empty to keep it.", True),
            (Secret("0123456789ab"), "set, ends in …89ab. Leave empty to keep it.", True),
            (
                Secret.unreadable("gAAAA"),
                "set, but no key opens it. Leave empty to keep it.",
                True,
            ),
        ],
        ids=repr,
    )
    def test_what_is_stored_is_said_in_words(
        self, secret: Secret, text: str, has_box: bool
    ) -> None:
        """And there is a box to clear it if there is something to clear."""
        page = str(KeyForm(instance=SiteConfiguration(api_key=secret))["api_key"])
        assert re.search(r'<span class="help" id="id_api_key_state">(.*?)</span>', page)[1] == text  # type: ignore[index] # it is there
        assert ('name="api_key-clear"' in page) == has_box

    def test_everything_has_a_label(self, row: SiteConfiguration) -> None:
        """For those who do not see the page: which box clears what, and what is stored."""
        page = KeyForm(instance=row).as_p()
        assert '<label for="id_api_key">API key:</label>' in page
        assert '<label for="id_api_key_clear">' in page
        assert 'aria-label="Clear API key"' in page
        assert 'aria-describedby="id_api_key_helptext id_api_key_state"' in page

    def test_ids_and_names_are_those_of_the_form(self, row: SiteConfiguration) -> None:
        """With a prefix, and without ids."""
        page = str(KeyForm(instance=row, prefix="a")["api_key"])
        assert 'name="a-api_key-clear" id="id_a-api_key_clear"' in page
        page = str(KeyForm(instance=row, auto_id=False)["api_key"])
        assert 'name="api_key-clear" id="id_api_key-clear"' in page
        assert "_state" not in page

    def test_nothing_in_it_is_inline(self, row: SiteConfiguration) -> None:
        """A strict content security policy lets it through."""
        assert not re.search(r"<style|<script|\sstyle=|\son\w+=", KeyForm(instance=row).as_p())

    def test_the_end_is_escaped(self) -> None:
        """It may be anything."""
        row = SiteConfiguration(api_key=f"{CANARY}<b>&")
        assert "ends in …&lt;b&gt;&amp;" in KeyForm(instance=row).as_p()

    def test_browsers_are_asked_to_fill_in_nothing(self, row: SiteConfiguration) -> None:
        """A password that they remember would replace the secret."""
        assert 'autocomplete="new-password"' in KeyForm(instance=row).as_p()

    def test_it_is_translatable(self, row: SiteConfiguration) -> None:
        """Its words go through gettext when the page is made."""
        with translation.override("en-gb"):
            assert "Leave empty to keep it." in KeyForm(instance=row).as_p()


class TestWhatIsTaken:
    def test_nothing_keeps_it(self, row: SiteConfiguration) -> None:
        """The very secret, sealed as it is; the form has not changed."""
        before = row.api_key
        form = bound(row, api_key="")
        assert form.is_valid()
        assert form.cleaned_data["api_key"] is before
        assert form.instance.api_key is before
        assert "api_key" not in form.changed_data

    def test_also_one_that_no_key_opens(self) -> None:
        """It reads as empty, and is not."""
        secret = Secret.unreadable("gAAAA")
        form = bound(SiteConfiguration(api_key=secret), api_key="")
        assert form.is_valid()
        assert form.instance.api_key is secret

    def test_a_value_replaces_it(self, row: SiteConfiguration) -> None:
        """Without the space around it that copying brings along."""
        form = bound(row, api_key=" other-key \n")
        assert form.is_valid()
        assert form.instance.api_key == "other-key"
        assert repr(form.cleaned_data["api_key"]) == "<Secret: set>"
        assert "api_key" in form.changed_data

    def test_the_same_value_is_no_change(self, row: SiteConfiguration) -> None:
        """Nothing is sealed anew."""
        before = row.api_key
        form = bound(row, api_key=CANARY)
        assert form.is_valid()
        assert form.instance.api_key is before
        assert "api_key" not in form.changed_data

    @pytest.mark.parametrize("secret", [Secret(CANARY), Secret.unreadable("gAAAA")], ids=repr)
    def test_the_box_clears_it(self, secret: Secret) -> None:
        """Which an empty input does not."""
        form = bound(SiteConfiguration(api_key=secret), **{"api_key-clear": "on"})
        assert form.is_valid()
        assert repr(form.instance.api_key) == "<Secret: not set>"
        assert "api_key" in form.changed_data

    def test_both_at_once_are_an_error(self, row: SiteConfiguration) -> None:
        """Which of the two should win? The page has the box as it was, and not the value."""
        form = bound(row, **{"api_key": "other-key", "api_key-clear": "on"})
        assert form.errors == {
            "api_key": ["Give a new value, or tick the box to clear the old one, not both."]
        }
        page = form.as_p()
        assert "other-key" not in page
        assert " checked" in page
        assert "set, ends in …6789" in page

    def test_what_is_refused_is_not_shown_again(self, row: SiteConfiguration) -> None:
        """Nor repeated by the error."""
        form = bound(row, api_key=f"{CANARY}\0")
        assert form.errors == {"api_key": ["Null characters are not allowed."]}
        form = bound(row, api_key=CANARY * 20)
        assert not form.is_valid()
        assert CANARY not in form.as_p() + repr(form.errors.as_data())

    def test_without_a_key_there_is_no_new_one(
        self, row: SiteConfiguration, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error is at the field; nothing, and a box, are taken as ever."""
        monkeypatch.delenv("SITECONFIG_SECRET_KEYS")
        assert bound(row, api_key="").is_valid()
        assert bound(row, **{"api_key-clear": "on"}).is_valid()
        form = bound(row, api_key="other-key")
        assert "SITECONFIG_SECRET_KEYS" in form.errors["api_key"][0]

    def test_a_form_without_an_instance(self) -> None:
        """There is nothing to keep."""
        form = KeyForm({"timeout": "30"})
        assert form.is_valid()
        assert form.instance.api_key == ""


class TestARequiredSecret:
    @pytest.fixture
    def field(self) -> Any:
        return SecretField(max_length=50).formfield()

    def test_cannot_be_left_out_or_cleared(self, field: Any) -> None:
        """Neither the first time nor later, box or not."""
        for data, initial in ((Given(Secret(), False), ""), (Given(Secret(), True), Secret("a"))):
            with pytest.raises(forms.ValidationError, match="required"):
                field.clean(data, initial)
        assert field.clean(Given(Secret(), False), Secret("a")) == "a"

    def test_is_asked_for_by_the_browser_only_if_there_is_none(self, field: Any) -> None:
        """What is stored counts as given."""

        class Plain(forms.Form):
            word = field

        assert " required" in str(Plain()["word"])
        for secret in (Secret("a"), Secret.unreadable("gAAAA")):
            page = str(Plain(initial={"word": secret})["word"])
            assert " required" not in page
            assert "-clear" not in page


class TestOtherWidgets:
    def test_a_project_may_choose_one(self) -> None:
        """It shows no value either, and nothing typed in keeps what there is."""

        class OwnForm(KeyForm):
            class Meta(KeyForm.Meta):
                widgets = {"api_key": forms.Textarea}

        row = SiteConfiguration(api_key=CANARY)
        assert CANARY not in str(OwnForm(instance=row)["api_key"])
        form = OwnForm({"timeout": "30", "api_key": ""}, instance=row)
        assert form.is_valid()
        assert form.instance.api_key == CANARY
        form = OwnForm({"timeout": "30", "api_key": "other"}, instance=row)
        assert form.is_valid()
        assert form.instance.api_key == "other"

    def test_a_disabled_field_takes_nothing(self) -> None:
        """Whatever is posted."""
        form = bound(SiteConfiguration(api_key=CANARY), **{"api_key": "x", "api_key-clear": "on"})
        form.fields["api_key"].disabled = True
        assert form.is_valid()
        assert form.instance.api_key == CANARY
        assert form.changed_data == []
        assert str(form["api_key"]).count(" disabled") == 2

    def test_the_field_and_widget_are_those_of_the_model_field(self) -> None:
        """Also where the default of the model field is a callable."""
        field: Any = SecretField(default=str).formfield()
        assert (type(field), type(field.widget)) == (SecretFormField, SecretInput)
        assert not field.show_hidden_initial


@pytest.mark.django_db
class TestTheAdminPage:
    def test_keeps_clears_and_replaces(self) -> None:
        """As any form does; and it says which setting was changed."""
        config.set_setting("api_key", CANARY)
        before = column()
        client = browser(AdminFactory())
        client.post(URL, filled_in(client, timeout="45"))
        assert (column(), config.timeout) == (before, 45)
        client.post(URL, filled_in(client, api_key="other-key"))
        assert opened(column()) == "other-key"
        client.post(URL, filled_in(client, **{"api_key-clear": "on"}))
        assert column() == ""

    def test_saves_other_settings_under_a_wrong_key(self, settings: Any) -> None:
        """And leaves the secret as it is, byte for byte."""
        config.set_setting("api_key", CANARY)
        before = column()
        settings.SITECONFIG = {"SECRET_KEYS": [OTHER_KEY]}
        client = browser(AdminFactory())
        assert "set, but no key opens it" in client.get(URL).content.decode()
        assert client.post(URL, filled_in(client, timeout="45")).status_code == 302
        assert (column(), config.timeout) == (before, 45)
        settings.SITECONFIG = {}
        assert config.reload().api_key == CANARY

    def test_saves_other_settings_without_a_key(self, settings: Any) -> None:
        """Also where the secret is still in plain, from before."""
        set_column(CANARY)
        settings.SITECONFIG = {"SECRET_KEYS": []}
        client = browser(AdminFactory())
        assert client.post(URL, filled_in(client, timeout="45")).status_code == 302
        assert (column(), config.reload().timeout) == (CANARY, 45)
        response = client.post(URL, filled_in(client, api_key="other-key"))
        assert "Make a key with" in response.context["adminform"].form.errors["api_key"][0]
        assert column() == CANARY

    def test_has_the_input_for_secrets(self) -> None:
        """Not the admin's own for texts, which would show the value."""
        page = browser(AdminFactory()).get(URL).content.decode()
        assert re.search(r'<input type="password" name="api_key"', page)

    @pytest.mark.parametrize("page", ["viewer", "read-only field"])
    def test_read_only_it_is_told_in_words(self, page: str) -> None:
        """To viewers, and where the project makes it read-only for all."""
        config.set_setting("api_key", CANARY)
        if page == "viewer":
            client = browser(StaffFactory(permissions=["view_siteconfiguration"]))
            shown = client.get(URL).content.decode()
        else:

            class Page(ConfigAdmin):
                readonly_fields = ["api_key"]

            request = RequestFactory().get(URL)
            request.user = AdminFactory()  # type: ignore[assignment] # it gives a User
            response: Any = Page(SiteConfiguration, admin.site).change_view(request, "1")
            shown = response.rendered_content
        assert re.search(r'<div class="readonly">set, ends in …6789</div>', shown)
        assert CANARY[:-4] not in shown

    def test_a_read_only_secret_survives_a_save_beside_it(self) -> None:
        """What is shown in its place is never stored."""

        class Page(ConfigAdmin):
            readonly_fields = ["api_key"]

        config.set_setting("api_key", CANARY)
        for timeout in ("999", "45"):  # the first is refused, and shown again
            request = RequestFactory().post(
                URL,
                {"site_name": "x", "timeout": timeout, "retry_count": "3", "log_level": "INFO"},
            )
            request.user = AdminFactory()  # type: ignore[assignment] # it gives a User
            request._messages = type("Messages", (), {"add": lambda *args: None})()  # type: ignore[attr-defined] # as the middleware does
            request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined] # no browser here
            Page(SiteConfiguration, admin.site).change_view(request, "1")
        assert config.timeout == 45
        assert opened(column()) == CANARY

    def test_another_models_page_does_the_same(self) -> None:
        """From the same two lines as ever."""
        url = "/admin/testapp/shopconfig/"
        client = browser(AdminFactory())
        client.post(url, filled_in(client, url, opening="8:00:00", voucher=CANARY))
        assert ConfigManager(ShopConfig).voucher == CANARY
        assert "set, ends in …6789" in client.get(url).content.decode()

    def test_nobody_else_sees_even_the_end(self) -> None:
        """The page is closed to them."""
        config.set_setting("api_key", CANARY)
        for client in (Client(), browser(StaffFactory())):
            assert "6789" not in client.get(URL, follow=True).content.decode()
