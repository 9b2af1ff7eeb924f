"""The settings page in the admin, as a browser meets it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client, RequestFactory
from django.urls import reverse

from siteconfig import ConfigManager, config
from siteconfig.models import SiteConfiguration
from tests.factories import AdminFactory, StaffFactory, UserFactory
from tests.testapp.models import ShopConfig

URL = "/admin/siteconfig/siteconfiguration/"

pytestmark = pytest.mark.django_db


def browser(user: Any) -> Client:
    """A logged-in browser, held to CSRF as a real one is."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    return client


def filled_in(client: Client, url: str = URL, **changes: Any) -> dict[str, Any]:
    """The page's form as it is shown, with some fields changed."""
    response = client.get(url)
    form = response.context["adminform"].form
    data = {name: form[name].value() for name in form.fields}
    data = {name: value for name, value in data.items() if value not in (None, False)}
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', response.content.decode())
    assert token is not None
    return {**data, "csrfmiddlewaretoken": token[1], **changes}


class TestThePage:
    def test_is_where_it_is_said_to_be(self) -> None:
        """One page, no list."""
        assert reverse("admin:siteconfig_siteconfiguration_change") == URL
        assert reverse("admin:siteconfig_siteconfiguration_changelist") == URL

    def test_shows_every_setting_with_help_in_groups(self) -> None:
        """Help texts say unit and effect."""
        page = browser(AdminFactory()).get(URL).content.decode()
        for name, field in SiteConfiguration.setting_fields().items():
            assert f'name="{name}"' in page
            assert str(field.help_text).split(". ")[0].replace('"', "&quot;") in page
        for heading in ("Site", "External service", "Logging", "More settings"):
            assert re.search(rf">\s*{heading}\s*<", page)

    def test_save_puts_the_change_into_force_and_stays(self) -> None:
        """The next read has it; the message says so."""
        client = browser(AdminFactory())
        response = client.post(URL, filled_in(client, timeout="45"), follow=True)
        assert response.redirect_chain == [(URL, 302)]
        assert "in force" in response.content.decode()
        assert config.timeout == 45

    def test_offers_one_way_to_save(self) -> None:
        """No other rows to go on to, nothing to add or delete."""
        page = browser(AdminFactory()).get(URL).content.decode()
        assert 'name="_save"' in page
        for button in ("_continue", "_addanother", "_saveasnew"):
            assert f'name="{button}"' not in page
        assert "deletelink" not in page

    def test_errors_are_at_their_fields_and_nothing_is_saved(self) -> None:
        """All of them at once."""
        client = browser(AdminFactory())
        data = filled_in(client, timeout="301", retry_count="x", support_email="nobody")
        response = client.post(URL, data)
        assert response.status_code == 200
        errors = response.context["adminform"].form.errors
        assert set(errors) == {"timeout", "retry_count", "support_email"}
        assert config.timeout == 30

    def test_a_look_makes_no_row(self) -> None:
        """Only Save writes."""
        SiteConfiguration.objects.all().delete()
        client = browser(AdminFactory())
        data = filled_in(client, timeout="45")
        assert not SiteConfiguration.objects.exists()
        client.post(URL, data)
        assert config.timeout == 45

    @pytest.mark.parametrize("empty", ["", "  ", "null", "{}"])
    def test_more_settings_may_be_cleared(self, empty: str) -> None:
        """Nothing is an empty object."""
        config.set_setting("new", 1)
        client = browser(AdminFactory())
        assert client.post(URL, filled_in(client, extra=empty)).status_code == 302
        assert config.extra == {}

    @pytest.mark.parametrize(
        "bad",
        ["[]", "[1]", '"text"', "5", "{", '{"a": NaN}', '{"a": 1e400}', '{"a": "\\u0000"}'],
    )
    def test_more_settings_are_an_object_of_plain_json(self, bad: str) -> None:
        """Anything else is an error at the field."""
        client = browser(AdminFactory())
        response = client.post(URL, filled_in(client, extra=bad))
        assert set(response.context["adminform"].form.errors) == {"extra"}
        assert config.extra == {}

    @pytest.mark.parametrize(
        "bad",
        ["[" * 100_000, '{"a": ' * 1500 + "1" + "}" * 1500, '{"a": ' + "9" * 5000 + "}"],
        ids=["never closed", "deep", "long number"],
    )
    def test_monstrous_json_is_an_error_too(self, bad: str) -> None:
        """Not a 500 (H80)."""
        client = browser(AdminFactory())
        response = client.post(URL, filled_in(client, extra=bad))
        assert set(response.context["adminform"].form.errors) == {"extra"}

    def test_there_is_no_page_of_another_row(self) -> None:
        """Nor one to add or delete."""
        client = browser(AdminFactory())
        assert client.get(f"{URL}2/change/").status_code == 302
        assert client.get(f"{URL}add/").status_code == 403
        assert client.get(f"{URL}1/delete/").status_code == 403

    def test_history_is_there(self) -> None:
        """Django's own, with who and when."""
        admin = AdminFactory()
        client = browser(admin)
        client.post(URL, filled_in(client, timeout="45"))
        page = client.get(f"{URL}history/").content.decode()
        assert str(admin) in page


class TestWhoMayWhat:
    def test_a_viewer_sees_it_read_only(self) -> None:
        """No field, no button, and a forged form is refused."""
        client = browser(StaffFactory(permissions=["view_siteconfiguration"]))
        response = client.get(URL)
        page = response.content.decode()
        assert "My site" in page
        assert 'name="timeout"' not in page
        assert 'name="_save"' not in page
        token = client.cookies["csrftoken"].value if "csrftoken" in client.cookies else ""
        data = {"csrfmiddlewaretoken": token, "timeout": "45"}
        assert client.post(URL, data).status_code == 403
        assert config.timeout == 30

    def test_a_changer_may_save(self) -> None:
        """Without being a superuser."""
        client = browser(StaffFactory(permissions=["change_siteconfiguration"]))
        client.post(URL, filled_in(client, timeout="45"))
        assert config.timeout == 45

    def test_staff_without_permission_and_visitors_see_nothing(self) -> None:
        """Forbidden, or sent to log in."""
        assert browser(StaffFactory()).get(URL).status_code == 403
        assert browser(UserFactory()).get(URL).status_code == 302
        assert Client().get(URL).status_code == 302

    def test_a_post_without_token_is_refused(self) -> None:
        """CSRF."""
        client = browser(AdminFactory())
        assert client.post(URL, {"timeout": "45"}).status_code == 403
        assert config.timeout == 30

    def test_only_the_permissions_that_mean_something_exist(self) -> None:
        """The row is neither added nor deleted by a person."""
        from django.contrib.auth.models import Permission

        names = Permission.objects.filter(content_type__model="siteconfiguration")
        assert {one.codename for one in names} == {
            "change_siteconfiguration",
            "view_siteconfiguration",
        }


class TestAProjectsOwnModel:
    def test_has_a_page_from_two_lines(self) -> None:
        """Every field, the unnamed settings last."""
        client = browser(AdminFactory())
        url = reverse("admin:testapp_shopconfig_change")
        response = client.get(url)
        names = [
            name
            for _heading, options in response.context["adminform"].fieldsets
            for name in options["fields"]
        ]
        assert names[0] == "currency"
        assert names[-1] == "extra"
        client.post(url, filled_in(client, url, currency="CHF", opening="8:00:00"))
        assert ConfigManager(ShopConfig).currency == "CHF"

    def test_its_clean_is_asked(self) -> None:
        """The error is at the field that clean() names."""
        client = browser(AdminFactory())
        url = reverse("admin:testapp_shopconfig_change")
        response = client.post(url, filled_in(client, url, low="11", opening="8:00:00"))
        assert response.context["adminform"].form.errors == {"low": ["Not above high."]}

    def test_may_be_another_model_admin_as_well(self) -> None:
        """Widgets and read-only fields are that one's, and of a list nobody asks."""
        from django import forms
        from django.contrib import admin
        from django.db import models

        from siteconfig.admin import ConfigAdmin

        class OurAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # not at run time
            list_display = ["currency"]
            formfield_overrides = {models.CharField: {"widget": forms.Textarea}}
            readonly_fields = ["tax"]
            save_on_top = True

        class Page(ConfigAdmin, OurAdmin):
            pass

        page = Page(ShopConfig, admin.site)
        assert page.check() == []
        request = RequestFactory().get("/")
        request.user = AdminFactory()  # type: ignore[assignment] # it gives a User
        response: Any = page.change_view(request, "1")
        text = response.render().content.decode()
        assert '<textarea name="currency"' in text
        assert 'name="tax"' not in text
        assert "siteconfig-bar" in text

    def test_more_settings_may_be_left_out(self) -> None:
        """exclude is Django's."""
        from django.contrib import admin

        from siteconfig.admin import ConfigAdmin

        class Page(ConfigAdmin):
            exclude = ["extra"]

        request = RequestFactory().get("/")
        request.user = AdminFactory()  # type: ignore[assignment] # it gives a User
        ((_heading, options),) = Page(ShopConfig, admin.site).get_fieldsets(request)
        assert "extra" not in options["fields"]

    def test_declared_fields_are_left_as_they_are(self) -> None:
        """A project may order its page."""
        from django.contrib import admin

        from siteconfig.admin import ConfigAdmin

        page = ConfigAdmin(ShopConfig, admin.site)
        page.fields = ["tax"]  # type: ignore[misc] # as a class of a project says it
        assert page.get_fieldsets(None) == [(None, {"fields": ["tax"]})]  # type: ignore[arg-type]
