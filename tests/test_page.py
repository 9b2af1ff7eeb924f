"""The settings page for several people: what was seen, what has changed, who may do what."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError, connection, models
from django.forms import MultiWidget
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from siteconfig import ConfigManager, config, history
from siteconfig.admin import SiteConfigurationAdmin
from siteconfig.forms import shown_as_sent
from siteconfig.history import attributed_to
from siteconfig.models import ConfigChange, SiteConfiguration
from tests.factories import AdminFactory, StaffFactory, UserFactory
from tests.keys import NOT_UTF8, column
from tests.test_admin import URL, browser, filled_in
from tests.test_kinds import GIVEN
from tests.testapp.models import EveryKind, ShopConfig, Warehouse

HISTORY = f"{URL}history/"

pytestmark = pytest.mark.django_db


def opened(client: Any, url: str = URL) -> dict[str, Any]:
    """What a browser would send back of the page, as it is now."""
    data = filled_in(client, url)
    page = client.get(url).content.decode()
    for name in ("_seen", "_undo", "_restore", "_reason"):
        if found := re.search(rf'name="{name}" value="([^"]*)"', page):
            data[name] = found[1].replace("&quot;", '"')
    return data


def changed_by_another(**values: Any) -> None:
    with attributed_to(UserFactory.create(username=f"anna{ConfigChange.objects.count()}")):
        config.set_settings(**values)


def said(response: Any) -> list[str]:
    return [str(message) for message in get_messages(response.wsgi_request)]


def save(client: Any, data: dict[str, Any], **changes: Any) -> Any:
    return client.post(URL, {**data, **changes})


class TestSaving:
    def test_says_what_was_saved(self) -> None:
        """And only if something was."""
        client = browser(AdminFactory.create())
        data = opened(client)
        response = save(client, data, timeout="45", site_name="Shop")
        assert said(response) == ["Saved, and in force: Site name My site → Shop; Timeout 30 → 45."]
        response = save(client, opened(client))
        assert said(response)[-1:] == ["Nothing was changed."]
        assert [entry.change_message for entry in LogEntry.objects.all()] == [
            '[{"changed": {"fields": ["Site name", "Timeout"]}}]'
        ]
        assert ConfigChange.objects.count() == 1

    def test_is_put_down_to_the_user_with_the_reason(self) -> None:
        """And to the admin."""
        client = browser(AdminFactory.create(username="ada"))
        save(client, opened(client), timeout="45", _reason=" as agreed ")
        change = ConfigChange.objects.get()
        assert (change.who, change.how, change.reason) == ("ada", "admin", "as agreed")
        assert (config.explain("timeout").who, config.explain("timeout").how) == ("ada", "admin")

    def test_of_a_default_that_is_asked_for(self) -> None:
        """Whatever else is in the field."""
        config.set_settings(timeout=45, site_name="Shop")
        client = browser(AdminFactory.create())
        save(client, opened(client), timeout="x", **{"_reset-timeout": "on"})
        assert (config.timeout, config.site_name) == (30, "Shop")

    def test_is_of_few_statements_in_one_transaction(self) -> None:
        """Session, user and the savepoint of the test aside."""
        client = browser(AdminFactory.create())
        data = opened(client)
        with CaptureQueriesContext(connection) as captured:
            save(client, data, timeout="45", site_name="Shop", retry_count="5")
        statements = [query["sql"] for query in captured.captured_queries]
        inside = [
            sql
            for sql in statements
            if not re.search(r"SAVEPOINT|django_session|FROM .auth_user", sql)
        ]
        assert len(inside) <= 7, inside  # and the reload after the commit
        assert sum("ROLLBACK" in sql for sql in statements) == 0

    def test_what_the_database_refuses_is_an_error_of_the_form(self, monkeypatch: Any) -> None:
        """Such as a constraint that only it knows."""
        client = browser(AdminFactory.create())
        data = opened(client)

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise IntegrityError("CHECK constraint failed: odd\nDETAIL: (1, secret)")

        monkeypatch.setattr(models.Model, "save_base", refuse)
        response = save(client, data, timeout="45")
        monkeypatch.undo()
        assert response.status_code == 200
        page = response.content.decode()
        assert "The database refuses this: CHECK constraint failed: odd" in page
        assert "DETAIL" not in page
        assert said(response) == []
        assert config.reload().timeout == 30


class TestPreview:
    def test_shows_the_difference_and_saves_nothing(self) -> None:
        """With what was entered still there."""
        client = browser(AdminFactory.create())
        response = save(client, opened(client), timeout="45", _preview="1", _reason="why")
        page = response.content.decode()
        assert (
            '<th scope="row">Timeout <span class="siteconfig-quiet">(seconds)</span></th>' in page
        )
        assert "<del>30</del>" in page
        assert "<ins>45</ins>" in page
        assert 'value="45"' in page
        assert 'value="why"' in page
        assert config.timeout == 30
        assert ConfigChange.objects.count() == 0

    def test_of_nothing_says_so(self) -> None:
        """Instead of an empty table."""
        client = browser(AdminFactory.create())
        page = save(client, opened(client), _preview="1").content.decode()
        assert "There is nothing to save" in page

    def test_shows_no_secret(self) -> None:
        """Neither the old nor the new one."""
        config.set_setting("api_key", "s3cret-number-one")
        client = browser(AdminFactory.create())
        response = save(client, opened(client), api_key="s3cret-number-two", _preview="1")
        page = response.content.decode()
        assert "what a secret is, or was, is not recorded" in page
        assert "s3cret" not in page


class TestTwoEditors:
    def test_of_different_settings_both_win(self) -> None:
        """The second need not even notice."""
        client = browser(AdminFactory.create())
        data = opened(client)
        changed_by_another(timeout=45, banner="Hello")
        assert save(client, data, site_name="Shop").status_code == 302
        assert (config.timeout, config.site_name, config.get_setting("banner")) == (
            45,
            "Shop",
            "Hello",
        )
        assert list(ConfigChange.objects.latest("pk").changes) == ["site_name"]

    def test_of_the_same_setting_the_second_is_asked(self) -> None:
        """Shown the other's value, name and time beside the own one."""
        client = browser(AdminFactory.create())
        data = opened(client)
        changed_by_another(timeout=45)
        response = save(client, data, timeout="60", site_name="Shop")
        assert response.status_code == 200
        page = response.content.decode()
        assert "anna0 has changed Timeout while you were editing" in page
        (conflict,) = response.context["adminform"].form.conflicts.values()
        assert (conflict.difference.old, conflict.difference.new) == ("45", "60")
        assert conflict.origin.who == "anna0"
        assert (config.timeout, config.site_name) == (45, "My site")

    @pytest.mark.parametrize(("choice", "value"), [("theirs", 45), ("mine", 60)])
    def test_the_choice_is_done(self, choice: str, value: int) -> None:
        """With all else that was entered."""
        client = browser(AdminFactory.create())
        data = opened(client)
        changed_by_another(timeout=45)
        form = save(client, data, timeout="60", site_name="Shop").context["adminform"].form
        conflict = form.conflicts["timeout"]
        chosen = {conflict.choice_name: getattr(conflict, choice)}
        response = save(client, data, timeout="60", site_name="Shop", **chosen)
        assert response.status_code == 302
        assert (config.timeout, config.site_name) == (value, "Shop")

    def test_a_third_change_is_asked_about_again(self) -> None:
        """The choice was about another value."""
        client = browser(AdminFactory.create())
        data = opened(client)
        changed_by_another(timeout=45)
        conflict = save(client, data, timeout="60").context["adminform"].form.conflicts["timeout"]
        changed_by_another(timeout=46)
        response = save(client, data, timeout="60", **{conflict.choice_name: conflict.mine})
        assert response.status_code == 200
        (conflict,) = response.context["adminform"].form.conflicts.values()
        assert (conflict.difference.old, conflict.origin.who) == ("46", "anna1")

    def test_who_agree_are_not_asked(self) -> None:
        """Both have set the same."""
        client = browser(AdminFactory.create())
        data = opened(client)
        changed_by_another(timeout=45)
        assert said(save(client, data, timeout="45")) == ["Nothing was changed."]

    def test_of_settings_that_are_no_fields(self) -> None:
        """Each key of the JSON by itself."""
        config.set_settings(banner="Hello", color="red")
        client = browser(AdminFactory.create())
        data = opened(client)
        changed_by_another(color="blue")
        mine = '{"banner": "Bye", "color": "red", "size": 1}'
        assert save(client, data, extra=mine).status_code == 302
        assert config.settings["extra"] == {"banner": "Bye", "color": "blue", "size": 1}
        response = save(client, data, extra='{"color": "green"}')
        assert sorted(response.context["adminform"].form.conflicts) == [
            "extra.banner",
            "extra.color",
        ]

    def test_of_a_secret(self) -> None:
        """Neither is shown the other's."""
        client = browser(AdminFactory.create())
        data = opened(client)
        changed_by_another(api_key="s3cret-number-one")
        response = save(client, data, api_key="s3cret-number-two")
        assert list(response.context["adminform"].form.conflicts) == ["api_key"]
        assert "s3cret" not in response.content.decode()
        assert save(client, data, timeout="45").status_code == 302
        assert config.api_key == "s3cret-number-one"

    def test_a_script_that_has_seen_nothing_writes_over_what_there_is(self) -> None:
        """As it always did."""
        client = browser(AdminFactory.create())
        data = opened(client)
        del data["_seen"]
        changed_by_another(timeout=45)
        assert save(client, data, timeout="60").status_code == 302
        assert config.timeout == 60

    @pytest.mark.parametrize(
        "seen",
        [
            *("", "null", "[]", "{", '{"timeout": 1}', "x" * 10_000, "[" * 100_000, "[1, 2]"),
            *('[{"timeout": []}, {}]', '[{"timeout": "x"}, {"timeout": {}}]', "[{}, {}, {}]"),
        ],
    )
    def test_nonsense_as_what_was_seen(self, seen: str) -> None:
        """Is no more than nothing seen, or asked about."""
        client = browser(AdminFactory.create())
        response = save(client, opened(client), timeout="60", _seen=seen)
        assert response.status_code in {200, 302}

    @pytest.mark.sqlite
    def test_an_unreadable_value_is_left_alone(self) -> None:
        """Unless it is what is saved, or reset."""
        with connection.cursor() as cursor:
            cursor.execute("UPDATE siteconfig_siteconfiguration SET timeout = 'soon'")
        client = browser(AdminFactory.create())
        assert "unreadable" in client.get(URL).content.decode()
        save(client, opened(client), site_name="Shop")
        stored = SiteConfiguration.objects.values_list("timeout").query
        with connection.cursor() as cursor:
            cursor.execute(str(stored))
            assert cursor.fetchone() == ("soon",)
        save(client, opened(client), **{"_reset-timeout": "on"})
        assert config.timeout == 30
        assert config.status().unreadable == ()

    @pytest.mark.sqlite
    @pytest.mark.parametrize("name", ["site_name", "api_key"])
    def test_a_text_that_is_not_utf8_is_left_alone(self, name: str) -> None:
        """The page shows that there is one, and not what it is."""
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE siteconfig_siteconfiguration SET {name} = {NOT_UTF8}")
        client = browser(AdminFactory.create())
        page = client.get(URL)
        assert page.status_code == 200
        assert "unreadable" in page.content.decode()
        assert "canary" not in page.content.decode()
        assert save(client, opened(client), timeout="45").status_code == 302
        assert config.timeout == 45
        assert column(f"hex({name})") == b"canary\xff".hex().upper()
        assert "canary" not in client.get(HISTORY).content.decode()
        save(client, opened(client), **{f"_reset-{name}": "on"})
        assert config.settings[name] == SiteConfiguration.setting_fields()[name].get_default()
        assert config.status().unreadable == ()


class TestUntouched:
    """What the reader has not touched is not saved, whatever a browser makes of it."""

    PAGE = "/admin/testapp/everykind/"

    def sent(self, client: Any) -> dict[str, Any]:
        """As a browser sends the page, without having touched it."""
        response = client.get(self.PAGE)
        form = response.context["adminform"].form
        data: dict[str, Any] = {"_seen": form.seen}
        for bound in form:
            value = shown_as_sent(bound)
            if isinstance(bound.field.widget, MultiWidget):
                data |= {f"{bound.html_name}_{part}": one for part, one in enumerate(value)}
            elif isinstance(value, str):
                data[bound.html_name] = value.replace("\n", "\r\n")
            elif value:
                data[bound.html_name] = value
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', response.content.decode())
        assert token is not None
        return {**data, "csrfmiddlewaretoken": token[1]}

    @pytest.fixture
    def client(self) -> Any:
        return browser(AdminFactory.create())

    @pytest.fixture
    def kinds(self) -> ConfigManager:
        return ConfigManager(EveryKind)

    @pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/New_York"])
    def test_is_nothing_that_cannot_be_typed(
        self, client: Any, kinds: Any, settings: Any, zone: str
    ) -> None:
        """Parts of seconds, ends of lines, outer spaces, an hour that there is twice."""
        settings.TIME_ZONE = zone
        with timezone.override(zone):
            kinds.set_settings(
                text=" a\nb\n",
                line=" outer ",
                moment=datetime(2025, 11, 2, 5, 30, 15, 500, tzinfo=UTC),
                time=time(8, 30, 0, 7),
                decimal=Decimal("1.5"),
            )
            before = dict(kinds.settings)
            response = client.post(self.PAGE, self.sent(client))
            assert response.status_code == 302, response.context["adminform"].form.errors
            assert said(response) == ["Nothing was changed."]
            data = self.sent(client) | {"integer": "9", "decimal": "1.50"}
            response = client.post(self.PAGE, data)
        assert said(response)[-1:] == ["Saved, and in force: Integer 1 → 9."]
        assert dict(kinds.settings) == before | {"integer": 9}

    def test_is_no_conflict(self, client: Any, kinds: Any) -> None:
        """Though somebody else has changed all of it meanwhile."""
        data = self.sent(client)
        values = {name: read for name, (_given, read) in GIVEN.items() if name != "integer"}
        kinds.set_settings(**values)
        response = client.post(self.PAGE, data | {"integer": "9"})
        assert response.status_code == 302, response.context["adminform"].form.errors
        assert {name: kinds.settings[name] for name in values} == values
        assert kinds.integer == 9


class TestGivenAgain:
    """A page cannot send a secret or a file a second time."""

    def test_a_secret_is_asked_for_again(self) -> None:
        """Not lost, and nothing said to be saved that is not."""
        client = browser(AdminFactory.create())
        data = opened(client)
        shown = save(client, data, api_key="s3cret-number-one", _preview="1").content.decode()
        assert '<input type="hidden" name="_pending" value="api_key">' in shown
        response = save(client, data, _pending="api_key", timeout="45")
        assert list(response.context["adminform"].form.errors) == ["api_key"]
        assert 'name="_pending" value="api_key"' in response.content.decode()
        assert config.timeout == 30
        save(client, data, _pending="api_key", timeout="45", **{"_drop-api_key": "on"})
        assert (config.timeout, config.api_key) == (45, "")
        save(client, opened(client), _pending="api_key", api_key="s3cret-number-one")
        assert config.api_key == "s3cret-number-one"

    def test_so_is_a_file(self) -> None:
        """As it was chosen on another page."""
        client = browser(AdminFactory.create())
        page = TestUntouched()
        data = page.sent(client)
        upload = SimpleUploadedFile("a.txt", b"text")
        shown = client.post(page.PAGE, data | {"document": upload, "_preview": "1"})
        assert 'name="_pending" value="document"' in shown.content.decode()
        response = client.post(page.PAGE, data | {"_pending": "document"})
        assert list(response.context["adminform"].form.errors) == ["document"]

    def test_mine_is_not_kept_without_it(self) -> None:
        """In a conflict about the secret itself."""
        client = browser(AdminFactory.create())
        data = opened(client)
        changed_by_another(api_key="s3cret-number-one")
        response = save(client, data, api_key="s3cret-number-two")
        conflict = response.context["adminform"].form.conflicts["api_key"]
        mine = {conflict.choice_name: conflict.mine, "_pending": "api_key"}
        assert save(client, data, **mine).status_code == 200
        assert save(client, data, api_key="s3cret-number-two", **mine).status_code == 302
        assert config.api_key == "s3cret-number-two"


class TestTheProjectsOwnCode:
    def test_what_clean_sets_is_saved_and_said(self, monkeypatch: Any) -> None:
        """Of the form, of the model, and of save_model()."""

        def clean_form(self: Any) -> Any:
            self.cleaned_data["site_name"] = "from the form"
            return self.cleaned_data

        monkeypatch.setattr(SiteConfigurationAdmin.form, "clean", clean_form)
        monkeypatch.setattr(
            SiteConfiguration, "clean", lambda self: setattr(self, "retry_count", 9)
        )
        save_model = SiteConfigurationAdmin.save_model

        def set_more(self: Any, request: Any, obj: Any, form: Any, change: bool) -> None:
            obj.support_email = "code@example.com"
            save_model(self, request, obj, form, change)

        monkeypatch.setattr(SiteConfigurationAdmin, "save_model", set_more)
        client = browser(AdminFactory.create())
        response = save(client, opened(client), timeout="45", site_name="x")
        assert said(response) == [
            "Saved, and in force: Site name My site → from the form; Timeout 30 → 45; "
            "Retry count 3 → 9."
        ]
        assert (config.site_name, config.retry_count) == ("from the form", 9)
        assert config.support_email == "code@example.com"

    def test_times_of_saving_are_noted(self) -> None:
        """By auto_now."""
        shop = ConfigManager(ShopConfig)
        before = shop.changed
        client = browser(AdminFactory.create())
        url = "/admin/testapp/shopconfig/"
        client.post(url, {**opened(client, url), "currency": "USD"})
        assert shop.currency == "USD"
        assert shop.changed != before


class TestGoingBack:
    def test_undoing_is_shown_before_it_is_done(self) -> None:
        """The page is filled in, and nothing saved by looking."""
        config.set_settings(timeout=45, banner="Hello")
        change = ConfigChange.objects.get()
        config.set_settings(site_name="Shop")
        client = browser(AdminFactory.create())
        url = f"{URL}?_undo={change.pk}"
        page = client.get(url).content.decode()
        assert "<del>45</del>" in page
        assert f"Undoes change {change.pk}" in page
        assert config.timeout == 45
        save(client, opened(client, url))
        assert (config.timeout, config.site_name, config.get_setting("banner")) == (
            30,
            "Shop",
            None,
        )
        assert ConfigChange.objects.latest("pk").reason == f"Undoes change {change.pk}"

    def test_everything_to_a_moment(self) -> None:
        """Except what is not on record."""
        config.set_settings(timeout=45)
        change = ConfigChange.objects.get()
        config.set_settings(timeout=50, site_name="Shop", api_key="s3cret-number-one")
        client = browser(AdminFactory.create())
        url = f"{URL}?_restore={change.pk}"
        assert "left as they are: API key." in client.get(url).content.decode()
        save(client, opened(client, url))
        assert (config.timeout, config.site_name) == (45, "My site")
        assert config.api_key == "s3cret-number-one"

    def test_is_validated_like_any_write(self) -> None:
        """What is no longer allowed is an error at its field."""
        SiteConfiguration.objects.update(timeout=1000)
        config.set_settings(timeout=45)
        change = ConfigChange.objects.latest("pk")
        client = browser(AdminFactory.create())
        response = save(client, opened(client, f"{URL}?_undo={change.pk}"))
        assert response.status_code == 200
        assert list(response.context["adminform"].form.errors) == ["timeout"]

    def test_what_is_gone_or_not_for_here_is_named(self) -> None:
        """An object that was deleted; what no form has."""
        kinds, warehouse = ConfigManager(EveryKind), Warehouse.objects.create(name="North")
        kinds.set_settings(warehouse=warehouse, blob=b"1")
        kinds.set_settings(warehouse=None, blob=b"2", integer=9)
        warehouse.delete()
        change = history.changes_of(EveryKind).first()
        page = browser(AdminFactory.create()).get(f"{TestUntouched.PAGE}?_undo={change.pk}")
        (left,) = re.findall(r"left as they are: ([^<]*?)\.", page.content.decode())
        assert left == "Warehouse, Blob"
        assert kinds.integer == 9

    @pytest.mark.parametrize("key", ["0", "-1", "x", "1' OR 1", "9" * 30, "9" * 5000, "१", "²"])
    def test_to_no_change(self, key: str) -> None:
        """Is not found, whatever it is."""
        client = browser(AdminFactory.create())
        assert client.get(f"{URL}?_undo={key}").status_code == 404


class TestHistoryPage:
    def test_shows_who_did_what_and_why(self) -> None:
        """The newest first."""
        with attributed_to(UserFactory.create(username="anna"), reason="as agreed"):
            config.set_settings(timeout=45)
        config.set_settings(api_key="s3cret-number-one", banner={"text": "Hello"})
        page = browser(AdminFactory.create()).get(HISTORY).content.decode()
        assert page.index("banner") < page.index("anna")
        for text in ("as agreed", "<del>30</del>", "<ins>45</ins>", "API key"):
            assert text in page
        assert "s3cret" not in page

    def test_of_one_setting(self) -> None:
        """Linked from it on the page."""
        config.set_settings(timeout=45)
        config.set_settings(site_name="Shop")
        client = browser(AdminFactory.create())
        assert f'href="{HISTORY}?setting=timeout"' in client.get(URL).content.decode()
        page = client.get(f"{HISTORY}?setting=timeout").content.decode()
        assert "<ins>45</ins>" in page
        assert "<ins>Shop</ins>" not in page

    def test_goes_on_to_older_ones(self, django_assert_max_num_queries: Any) -> None:
        """Page by page, each by a few queries."""
        for value in range(1, 46):
            config.set_setting("timeout", value + 100)
        client = browser(AdminFactory.create())
        client.get(HISTORY)
        seen = []
        url = HISTORY
        while url:
            with django_assert_max_num_queries(4):
                page = client.get(url).content.decode()
            seen += re.findall(r"<ins>(\d+)</ins>", page)
            older = re.search(r'href="(\?before=\d+)"', page)
            url = HISTORY + older[1] if older else ""
        assert seen == [str(value + 100) for value in range(45, 0, -1)]

    @pytest.mark.parametrize(
        "query", ["before=x", "before=" + "9" * 40, "setting=%00", "setting=x"]
    )
    def test_nonsense_finds_nothing(self, query: str) -> None:
        """And is no error."""
        assert browser(AdminFactory.create()).get(f"{HISTORY}?{query}").status_code == 200

    def test_records_cannot_be_changed_there(self) -> None:
        """There is no page of theirs, and a POST is a look."""
        config.set_setting("timeout", 45)
        client = browser(AdminFactory.create())
        assert client.get("/admin/siteconfig/configchange/").status_code == 404
        assert client.post(HISTORY).status_code in {200, 403, 405}
        assert ConfigChange.objects.count() == 1


class TestPermissions:
    @pytest.fixture(autouse=True)
    def _guarded(self, monkeypatch: Any) -> None:
        guard = {"api_key": "auth.add_user", "timeout": "auth.change_user"}
        monkeypatch.setattr(SiteConfigurationAdmin, "field_permissions", guard)

    def test_a_field_needs_its_own(self) -> None:
        """Without it, it is shown and no more; a forged POST changes nothing of it."""
        user = StaffFactory.create(permissions=["change_siteconfiguration", "change_user"])
        client = browser(user)
        page = client.get(URL).content.decode()
        assert 'name="timeout"' in page
        assert 'name="api_key"' not in page
        data = {**opened(client), "api_key": "forged-key-0123", "_reset-api_key": "on"}
        assert save(client, data, timeout="45").status_code == 302
        assert (config.timeout, config.api_key) == (45, "")

    def test_is_enforced_at_save_too(self, monkeypatch: Any) -> None:
        """Where a project's own code offers the field all the same."""
        monkeypatch.setattr(SiteConfigurationAdmin, "get_readonly_fields", lambda *args: [])
        user = StaffFactory.create(permissions=["change_siteconfiguration"])
        client = browser(user)
        assert save(client, opened(client), timeout="45").status_code == 403
        assert config.timeout == 30
        assert save(client, opened(client), site_name="Shop").status_code == 302

    @pytest.mark.parametrize(
        ("permissions", "sees", "reverts"),
        [
            (["change_siteconfiguration"], False, False),
            (["change_siteconfiguration", "view_configchange"], True, False),
            (["view_siteconfiguration", "view_configchange", "revert_configchange"], True, False),
            (["view_configchange", "revert_configchange"], False, False),
            (["change_siteconfiguration", "view_configchange", "revert_configchange"], True, True),
        ],
    )
    def test_of_the_history(self, permissions: list[str], sees: bool, reverts: bool) -> None:
        """To see it, and to go back, are permissions of their own."""
        changed_by_another(site_name="Shop")
        change = ConfigChange.objects.get()
        client = browser(StaffFactory.create(permissions=permissions))
        page = client.get(URL)
        if page.status_code == 200:
            assert ("anna0" in page.content.decode()) is sees
            assert (HISTORY in page.content.decode()) is sees
        response = client.get(HISTORY)
        assert response.status_code == (200 if sees else 403)
        if sees:
            assert ("Undo this change" in response.content.decode()) is reverts
        assert client.get(f"{URL}?_undo={change.pk}").status_code == (200 if reverts else 403)
        if page.status_code == 200 and "change_siteconfiguration" in permissions:
            data = {**opened(client), "_undo": str(change.pk)}
            assert save(client, data).status_code == (302 if reverts else 403)

    def test_going_back_is_held_to_those_of_the_fields(self) -> None:
        """What this user may not change stays."""
        config.set_settings(timeout=45, site_name="Shop")
        change = ConfigChange.objects.get()
        permissions = ["change_siteconfiguration", "view_configchange", "revert_configchange"]
        client = browser(StaffFactory.create(permissions=permissions))
        save(client, opened(client, f"{URL}?_undo={change.pk}"))
        assert (config.timeout, config.site_name) == (45, "My site")

    def test_a_viewer_can_do_nothing(self) -> None:
        """And has no bar to save with."""
        client = browser(StaffFactory.create(permissions=["view_siteconfiguration"]))
        page = client.get(URL).content.decode()
        assert 'name="_save"' not in page
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert token is not None
        data = {"csrfmiddlewaretoken": token[1], "timeout": "45", "_reset-site_name": "on"}
        assert save(client, data).status_code == 403
        assert config.timeout == 30


class TestPins:
    def test_are_shown_with_what_they_hide(self, settings: Any) -> None:
        """Read-only, with the source."""
        config.set_settings(timeout=45)
        settings.SITECONFIG = {"PINNED": {"timeout": 5}}
        client = browser(AdminFactory.create())
        page = client.get(URL).content.decode()
        assert 'name="timeout"' not in page
        assert "SITECONFIG[&quot;PINNED&quot;][&#x27;timeout&#x27;]" in page
        row = page[page.index('data-setting="timeout"') :]
        assert '<div class="readonly">5</div>' in row
        assert re.search(r"hides the stored value:\s*45", row)
        save(client, opened(client), timeout="60", site_name="Shop")
        settings.SITECONFIG = {}
        assert (config.timeout, config.site_name) == (45, "Shop")

    def test_a_pinned_secret_is_not_shown(self, settings: Any) -> None:
        """Only that it is one."""
        settings.SITECONFIG = {"PINNED": {"api_key": "s3cret-of-the-deployment"}}
        page = browser(AdminFactory.create()).get(URL).content.decode()
        assert "s3cret-of" not in page


class TestCost:
    def test_the_page_is_of_few_queries(self) -> None:
        """All of them: session, user, row, history, fleet."""
        for value in range(1, 20):
            changed_by_another(timeout=100 + value, site_name=f"Shop {value}")
        client = browser(AdminFactory.create())
        client.get(URL)
        with CaptureQueriesContext(connection) as captured:
            client.get(URL)
        queries = [one["sql"] for one in captured.captured_queries if "SAVEPOINT" not in one["sql"]]
        assert len(queries) <= 8, queries
        permissions = ["change_siteconfiguration", "view_configchange"]
        client = browser(StaffFactory.create(permissions=permissions))
        client.get(URL)
        with CaptureQueriesContext(connection) as captured:
            client.get(URL)
        queries = [one["sql"] for one in captured.captured_queries if "SAVEPOINT" not in one["sql"]]
        assert len(queries) <= 8, queries


class TestChecks:
    def test_of_the_admin(self, monkeypatch: Any) -> None:
        """A stock form, and permissions of no field."""
        from django.contrib import admin
        from django.forms import ModelForm

        page = admin.site.get_model_admin(SiteConfiguration)
        assert page.check() == []
        monkeypatch.setattr(type(page), "form", ModelForm)
        monkeypatch.setattr(type(page), "field_permissions", {"nope": "a.b", "timeout": "nope"})
        found = [message.id for message in page.check()]
        assert found == ["siteconfig.E021", "siteconfig.E022", "siteconfig.E022"]
