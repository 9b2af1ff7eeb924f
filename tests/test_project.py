"""The reference site: its pages, the view that sets settings, maintenance, fixtures, the demo."""

from __future__ import annotations

import json
import logging
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from cryptography.fernet import Fernet
from django.contrib.auth import authenticate, get_user_model
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from project.secret_key import fernet_key, secret_key
from siteconfig import config
from siteconfig.models import SiteConfiguration
from siteconfig.testing import override_config
from tests.factories import AdminFactory, StaffFactory, UserFactory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SETTINGS_PAGE = "/admin/siteconfig/siteconfiguration/"
CANARY = "canary-5e1f"

pytestmark = pytest.mark.django_db


@pytest.fixture
def editor(client: Client) -> Client:
    """The client of a member of staff who may change the settings, and no more than that."""
    client.force_login(StaffFactory.create(permissions=["change_siteconfiguration"]))
    return client


@pytest.fixture(params=["sync", "async"])
def get(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Get a page, as ``user`` if one is given, through the WSGI or the ASGI handler."""

    def get_sync(path: str, user: Any = None) -> Any:
        client = Client()
        if user:
            client.force_login(user)
        return client.get(path)

    @async_to_sync
    async def get_async(path: str, user: Any = None) -> Any:
        client = AsyncClient()
        if user:
            await client.aforce_login(user)
        return await client.get(path)

    return get_sync if request.param == "sync" else get_async


def post_json(client: Client, body: Any) -> Any:
    """Post ``body`` to the view that sets settings: as JSON, unless it is raw bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body)
    return client.post("/update-config/", data, content_type="application/json")


def row_of(response: Any, name: str) -> list[str]:
    """The texts in the home page's row of a setting: name, value, meaning."""
    row = re.search(rf'id="setting-{name}".*?</tr>', response.content.decode(), re.DOTALL)
    assert row is not None
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row[0], re.DOTALL)
    return [re.sub(r"<[^>]+>", "", cell).strip() for cell in cells]


class TestHome:
    def test_shows_every_setting_with_its_value_and_meaning(self, client):
        """The home page is a table of what is in force."""
        config.set_settings(timeout=45, maintenance_mode=False, site_name="Tea & Co")
        response = client.get("/")
        assert response.status_code == 200
        assert row_of(response, "timeout") == [
            "timeout",
            "45",
            "Seconds to wait for the external service before giving up. 1 to 300.",
        ]
        assert row_of(response, "site_name")[1] == "Tea &amp; Co"
        assert row_of(response, "maintenance_mode")[1] == "off"
        assert row_of(response, "support_email")[1] == "empty"
        shown = re.findall(r'id="setting-(\w+)"', response.content.decode())
        assert sorted(shown) == sorted(SiteConfiguration.setting_fields())

    def test_shows_a_change_on_the_next_request(self, client):
        """A saved setting is on the page at once."""
        client.get("/")
        config.set_setting("timeout", 99)
        assert row_of(client.get("/"), "timeout")[1] == "99"

    def test_says_only_whether_the_api_key_is_set(self, client):
        """A secret's value is on no page."""
        assert row_of(client.get("/"), "api_key")[1] == "not set"
        config.set_setting("api_key", CANARY)
        assert row_of(client.get("/"), "api_key")[1] == "set"

    def test_names_the_settings_that_are_no_fields_and_hides_their_values(self, client):
        """What is in extra is decided by code, and may be secret."""
        config.set_settings(page_size=7, service_token=CANARY)
        response = client.get("/")
        assert row_of(response, "extra")[1] == "page_size, service_token"
        assert CANARY not in response.content.decode()

    def test_says_which_snapshot_it_read(self, client):
        """Version, time and source of the values are on the page."""
        config.set_setting("timeout", 45)
        config.reload()
        page = client.get("/").content.decode()
        assert f'<dd id="version">{config.snapshot().version}</dd>' in page
        assert '<dd id="loaded">' in page
        assert '<dd id="source">the row in the database</dd>' in page

    def test_shows_the_defaults_when_there_is_no_row(self, client):
        """Reading makes no row, and the page says where the values come from."""
        SiteConfiguration.objects.all().delete()
        response = client.get("/")
        assert row_of(response, "timeout")[1] == "30"
        assert '<dd id="version">0</dd>' in response.content.decode()
        assert not SiteConfiguration.objects.exists()

    def test_makes_no_query_once_warm(self, client, django_assert_num_queries):
        """Settings, and all else a visitor sees, come from memory."""
        client.get("/")
        with django_assert_num_queries(0):
            client.get("/")

    def test_makes_no_query_for_the_settings_when_logged_in(self, editor):
        """Staff cost the queries of their session and their rights, and none for a setting."""
        editor.get("/")
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert editor.get("/").status_code == 200
        assert len(queries) > 0
        assert not [one for one in queries if SiteConfiguration._meta.db_table in one["sql"]]

    @pytest.mark.parametrize("name", ["my_view", "my_async_view"])
    def test_links_to_the_other_views(self, client, name):
        """The home page leads to everything there is to see."""
        assert f'href="{reverse(name)}"' in client.get("/").content.decode()

    def test_links_to_the_settings_page_of_the_admin(self, client):
        """Where to change a setting is one click away."""
        assert f'href="{SETTINGS_PAGE}"' in client.get("/").content.decode()

    def test_mentions_update_config_to_those_who_may_use_it(self, client, editor):
        """Visitors are not told of what they cannot do."""
        assert "/update-config/" in editor.get("/").content.decode()
        assert "/update-config/" not in Client().get("/").content.decode()

    def test_shows_the_error_of_a_failed_read_to_staff_only(self, editor, monkeypatch):
        """An error text can name hosts and files; a visitor learns only that there was one."""

        def read(*args: object) -> None:
            raise DatabaseError(CANARY)

        monkeypatch.setattr(SiteConfiguration, "read", read)
        assert '<dd id="failed">failed</dd>' in Client().get("/").content.decode()
        assert f"failed: DatabaseError: {CANARY}" in editor.get("/").content.decode()

    def test_refuses_to_be_posted_to(self, client):
        """The page only shows."""
        assert client.post("/").status_code == 405


class TestMyViews:
    @pytest.mark.parametrize("path", ["/my-view/", "/my-async-view/"])
    def test_answer_with_what_they_read(self, get, path):
        """A view reads settings like attributes, with no await, and sees a change at once."""
        config.set_settings(timeout=45, retry_count=5)
        assert get(path).json() == {"timeout": 45, "retry_count": 5}
        config.set_setting("timeout", 46)
        assert get(path).json() == {"timeout": 46, "retry_count": 5}

    @pytest.mark.parametrize("name", ["my_view", "my_async_view"])
    def test_log_one_line(self, get, name, caplog):
        """Logger writes to the logger ``siteconfig``."""
        get(reverse(name))
        assert caplog.record_tuples == [
            ("siteconfig", logging.INFO, f"{name} read timeout 30 and retry_count 3")
        ]

    @pytest.mark.parametrize("name", ["my_view", "my_async_view"])
    def test_follow_the_log_level(self, get, name, caplog):
        """The level is a setting too."""
        config.set_setting("log_level", "ERROR")
        get(reverse(name))
        assert caplog.record_tuples == []


class TestWhoMayUpdate:
    def test_getting_is_refused(self, editor):
        """Nothing is set by following a link."""
        response = editor.get("/update-config/", {"timeout": "45"})
        assert response.status_code == 405
        assert response["Allow"] == "POST"
        assert config.timeout == 30

    def test_a_visitor_is_refused(self, client):
        """The answer is a status that a program understands, and no login page."""
        response = post_json(client, {"timeout": 45})
        assert response.status_code == 403
        assert response.json() == {
            "errors": {
                "__all__": ["Log in as a member of staff who may change the site configuration."]
            }
        }
        assert config.timeout == 30

    @pytest.mark.parametrize(
        "attributes",
        [
            pytest.param({"is_staff": True}, id="staff-without-permission"),
            pytest.param({"permissions": ["change_siteconfiguration"]}, id="permission-not-staff"),
            pytest.param(
                {"is_staff": True, "permissions": ["view_siteconfiguration"]}, id="view-only"
            ),
        ],
    )
    def test_a_user_without_the_right_is_refused(self, client, attributes):
        """It takes what the admin page takes: staff, and the permission to change."""
        client.force_login(UserFactory.create(**attributes))
        assert post_json(client, {"timeout": 45}).status_code == 403
        assert config.timeout == 30

    def test_a_post_without_csrf_token_is_refused(self):
        """Another site's page cannot set anything through the browser of staff."""
        client = Client(enforce_csrf_checks=True)
        client.force_login(AdminFactory.create())
        assert client.post("/update-config/", {"timeout": "45"}).status_code == 403
        assert config.timeout == 30

    def test_a_post_with_csrf_token_is_taken(self):
        """The token comes with any page that has a form."""
        client = Client(enforce_csrf_checks=True)
        client.force_login(AdminFactory.create())
        client.get(SETTINGS_PAGE)
        token = client.cookies["csrftoken"].value
        posted = {"timeout": "45", "csrfmiddlewaretoken": token}
        assert client.post("/update-config/", posted).json()["set"] == ["timeout"]
        response = client.post("/update-config/", {"timeout": "46"}, headers={"X-CSRFToken": token})
        assert response.json()["set"] == ["timeout"]
        assert config.timeout == 46


class TestUpdate:
    def test_sets_form_fields(self, editor):
        """Form fields are texts, and become what the settings are."""
        before = config.snapshot().version
        response = editor.post(
            "/update-config/", {"timeout": "45", "maintenance_mode": "False", "site_name": "Tea"}
        )
        assert response.status_code == 200
        assert response.json() == {
            "set": ["maintenance_mode", "site_name", "timeout"],
            "version": before + 1,
        }
        assert (config.timeout, config.maintenance_mode, config.site_name) == (45, False, "Tea")

    def test_sets_what_a_json_object_holds(self, editor):
        """JSON has types of its own."""
        response = post_json(editor, {"retry_count": 0, "extra": {"page_size": 7}})
        assert response.status_code == 200
        assert response.json()["set"] == ["extra", "retry_count"]
        assert config.retry_count == 0
        assert config.get_setting("page_size") == 7

    def test_takes_names_in_any_case(self, editor):
        """As ``set_setting`` does."""
        assert post_json(editor, {"TIMEOUT": 45}).json()["set"] == ["timeout"]
        assert config.timeout == 45

    def test_logs_who_set_what_without_the_values(self, editor, caplog):
        """The log can be read by people who may not know the key."""
        user = get_user_model().objects.get()
        post_json(editor, {"api_key": CANARY, "timeout": 45})
        assert caplog.messages == [f"update_config: user {user.pk} set api_key, timeout"]

    def test_reports_every_refused_setting_and_changes_nothing(self, editor):
        """All or none, with every reason at once."""
        response = post_json(editor, {"timeout": 0, "support_email": "nobody", "retry_count": 5})
        assert response.status_code == 400
        assert response.json() == {
            "errors": {
                "timeout": ["Ensure this value is greater than or equal to 1."],
                "support_email": ["Enter a valid email address."],
            }
        }
        assert config.retry_count == 3

    def test_refuses_a_name_that_is_no_field(self, editor):
        """This view makes no new settings, and a slip of the pen is told apart from one."""
        response = post_json(editor, {"timeuot": 45, "retry_count": 5})
        assert response.status_code == 400
        assert response.json() == {
            "errors": {"timeuot": ["There is no such setting. Did you mean 'timeout'?"]}
        }
        assert config.get_setting("timeuot") is None
        assert config.retry_count == 3

    @pytest.mark.parametrize("name", ["id", "pk", "version", "self"])
    def test_refuses_a_name_that_is_no_setting(self, editor, name):
        """The row's own columns are not for setting."""
        response = post_json(editor, {name: 2})
        assert response.status_code == 400
        assert list(response.json()["errors"]) == [name]

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b" ", "The body is no valid JSON: Expecting value, line 1, column 2."),
            (b'{"timeout": }', "The body is no valid JSON: Expecting value, line 1, column 13."),
            (b'{"site_name": "\xff"}', "The body is no valid JSON."),
            (b'{"site_name": "\\ud800"}', "The body is no valid JSON."),
            (b'{"timeout": NaN}', "The body is no valid JSON."),
            (b'{"timeout": ' + b"9" * 5000 + b"}", "The body is no valid JSON."),
            (b"[" * 200_000, "The body is no valid JSON."),
            (b"[45]", 'The body must be a JSON object: {"name": value, …}.'),
            (b"{}", "Give at least one setting, as a form field or in a JSON object."),
            (
                b'{"timeout": 45, "timeout": 46}',
                "The JSON gives the same name twice in one object.",
            ),
        ],
        ids=[
            "empty",
            "cut-off",
            "no-utf-8",
            "half-a-character",
            "not-a-number",
            "endless-number",
            "endless-nesting",
            "no-object",
            "nothing-set",
            "name-twice",
        ],
    )
    def test_explains_a_body_it_cannot_use(self, editor, body, message):
        """Every mistake has its answer, and none is a server error."""
        response = post_json(editor, body)
        assert response.status_code == 400
        assert response.json() == {"errors": {"__all__": [message]}}
        assert config.timeout == 30

    def test_refuses_a_form_field_given_twice(self, editor):
        """Which of the two would be a guess."""
        response = editor.post("/update-config/", {"timeout": ["45", "46"]})
        assert response.status_code == 400
        assert response.json() == {"errors": {"timeout": ["Given twice."]}}

    def test_refuses_a_name_given_twice_in_two_cases(self, editor):
        """Two spellings are one setting."""
        response = post_json(editor, {"timeout": 45, "TIMEOUT": 46})
        assert response.json() == {"errors": {"timeout": ["Given twice."]}}
        assert config.timeout == 30

    def test_refuses_an_empty_form(self, editor):
        """Nothing to set is a mistake of the sender's."""
        assert editor.post("/update-config/").status_code == 400

    def test_refuses_a_file(self, editor):
        """A file is no setting, and is not passed over in silence."""
        file = SimpleUploadedFile("key.txt", CANARY.encode())
        response = editor.post("/update-config/", {"key_file": file, "timeout": "45"})
        assert response.status_code == 400
        assert list(response.json()["errors"]) == ["key_file"]
        assert config.timeout == 30

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            (
                "timeout",
                CANARY,
                "The value is not valid. Seconds to wait for the external service before giving "
                "up. 1 to 300.",
            ),
            ("maintenance_mode", CANARY, "The value is not valid. Choose true or false."),
            (
                "log_level",
                CANARY[:8],
                "The value is not valid. Choose DEBUG, INFO, WARNING, ERROR or CRITICAL.",
            ),
            ("support_email", CANARY, "Enter a valid email address."),
            (
                "api_key",
                CANARY * 20,
                "Ensure this value has at most 200 characters (it has 220).",
            ),
            ("api_key", None, "This field cannot be null."),
            ("extra", CANARY, 'Enter a JSON object: {"name": value, …}.'),
            ("api_kee", CANARY, "There is no such setting. Did you mean 'api_key'?"),
        ],
        ids=["number", "boolean", "choice", "email", "long", "null", "extra", "unknown"],
    )
    def test_never_repeats_a_value(self, editor, caplog, name, value, message):
        """What was refused may be a secret, put into the wrong field or the right one."""
        response = post_json(editor, {name: value})
        assert response.status_code == 400
        assert response.json() == {"errors": {name: [message]}}
        assert CANARY[:8] not in response.content.decode() + caplog.text

    def test_says_what_a_secret_needs(self, editor, settings):
        """A key, and how to make one; without the value."""
        settings.SITECONFIG = {"SECRET_KEYS": []}
        response = post_json(editor, {"api_key": CANARY})
        assert response.status_code == 400
        assert "Make a key with: python -c" in response.json()["errors"]["api_key"][0]
        assert CANARY not in response.content.decode()


class TestMaintenance:
    def test_visitors_get_the_maintenance_page(self, get):
        """503 tells caches and search engines that the site will be back."""
        config.set_settings(maintenance_mode=True, support_email="help@example.org")
        response = get("/")
        page = response.content.decode()
        assert response.status_code == 503
        assert response["Retry-After"] == "120"
        assert "no-store" in response["Cache-Control"]
        assert "closed for maintenance" in page
        assert 'href="mailto:help@example.org"' in page

    def test_the_page_shows_no_address_when_there_is_none(self, get):
        """The setting may be empty."""
        config.set_setting("maintenance_mode", True)
        assert "mailto:" not in get("/").content.decode()

    @pytest.mark.parametrize("path", ["/my-view/", "/my-async-view/", "/nowhere/", "/administer/"])
    def test_every_page_is_closed(self, get, path):
        """Not only the home page."""
        config.set_setting("maintenance_mode", True)
        assert get(path).status_code == 503

    @pytest.mark.parametrize("path", ["/admin/login/", "/static/project/site.css"])
    def test_the_admin_and_the_static_files_stay_open(self, get, path):
        """Or nobody could end it, and the page would be bare."""
        config.set_setting("maintenance_mode", True)
        response = get(path)
        assert response.status_code == 200
        response.close()  # the file that it streams

    def test_staff_see_the_site_and_a_banner(self, get):
        """Who maintains the site has to see it."""
        config.set_setting("maintenance_mode", True)
        response = get("/", StaffFactory.create())
        assert response.status_code == 200
        assert "Maintenance mode is on." in response.content.decode()

    def test_users_who_are_not_staff_are_visitors(self, get):
        """Being logged in is not enough."""
        config.set_setting("maintenance_mode", True)
        assert get("/", UserFactory.create()).status_code == 503

    def test_the_site_is_open_when_it_is_off(self, get):
        """And without a banner."""
        response = get("/", StaffFactory.create())
        assert response.status_code == 200
        assert "Maintenance mode" not in response.content.decode()

    def test_staff_end_it_through_update_config(self, editor):
        """The next visitor is let in."""
        config.set_setting("maintenance_mode", True)
        post_json(editor, {"maintenance_mode": False})
        assert Client().get("/").status_code == 200

    def test_it_makes_no_query_for_a_visitor(self, client, django_assert_num_queries):
        """A closed site is often one whose database has enough to do."""
        with override_config(maintenance_mode=True):
            client.get("/")
            with django_assert_num_queries(0):
                assert client.get("/").status_code == 503


class TestPages:
    def test_no_page_shows_the_api_key(self, get):
        """Neither to visitors nor, outside the admin, to those who may change it."""
        admin = AdminFactory.create()
        config.set_setting("api_key", CANARY)
        for closed in (False, True):
            config.set_setting("maintenance_mode", closed)
            for user in (None, admin):
                for path in ("/", "/my-view/", "/my-async-view/", "/update-config/"):
                    assert CANARY not in get(path, user).content.decode()

    def test_pages_forbid_foreign_and_inline_content(self, get):
        """The policy is on every page, the admin's too."""
        for path in ("/", "/my-view/", "/admin/login/", "/nowhere/"):
            policy = get(path)["Content-Security-Policy"]
            assert policy.startswith("default-src 'self';")
            assert "unsafe" not in policy

    def test_pages_hold_no_inline_script_or_style(self, get):
        """What the policy forbids is not there in the first place."""
        pages = get("/", AdminFactory.create()).content.decode()
        with override_config(maintenance_mode=True):
            pages += get("/").content.decode()
        assert not re.search(r"<style|<script|\sstyle=|\son\w+=", pages)

    def test_values_are_escaped(self, get):
        """A setting is text, whatever it looks like."""
        config.set_setting("site_name", "<script>alert(1)</script>")
        assert "<script>" not in get("/").content.decode()

    def test_debug_pages_keep_their_looks(self, client, settings):
        """Django's debug pages bring style and script within the page."""
        settings.DEBUG = True
        assert "Content-Security-Policy" not in client.get("/")


INITIAL = {
    "site_name": "My site",
    "maintenance_mode": False,
    "support_email": "",
    "api_key": "",
    "timeout": 30,
    "retry_count": 3,
    "log_level": "INFO",
    "extra": {},
}
DEMO = {
    "site_name": "Harbour Books",
    "maintenance_mode": False,
    "support_email": "help@example.org",
    "api_key": "",
    "timeout": 20,
    "retry_count": 5,
    "log_level": "DEBUG",
    "extra": {"items_per_page": 20},
}


class TestFixtures:
    @pytest.mark.parametrize(("name", "expected"), [("initial", INITIAL), ("demo", DEMO)])
    @pytest.mark.parametrize("used", [True, False], ids=["used", "empty"])
    def test_a_warm_manager_sees_a_loaded_fixture_at_once(self, name, expected, used):
        """Each fixture stands by itself, and replaces every setting."""
        if used:
            config.set_settings(timeout=99, api_key=CANARY, more=1)
            assert config.timeout == 99
        else:
            SiteConfiguration.objects.all().delete()
            assert config.timeout == 30
        call_command("loaddata", name, verbosity=0)
        assert dict(config.snapshot()) == expected
        assert SiteConfiguration.objects.count() == 1

    def test_the_initial_fixture_is_the_row_as_first_installed(self):
        """The model's defaults and the fixture agree."""
        assert dict(SiteConfiguration.default_snapshot()) == INITIAL


class TestDemo:
    def run(self, **options: Any) -> str:
        out = StringIO()
        call_command("demo", stdout=out, **options)
        return out.getvalue()

    def test_the_first_run_makes_the_settings_and_the_user(self):
        """What is printed is what is needed to log in."""
        lines = self.run(port=8123).splitlines()
        password = lines[3].removeprefix("password: ")
        assert lines == [
            "site:     http://127.0.0.1:8123/",
            f"settings: http://127.0.0.1:8123{SETTINGS_PAGE}",
            "user: admin",
            f"password: {password}",
        ]
        user = authenticate(username="admin", password=password)
        assert user is not None
        assert user.is_superuser
        assert dict(config.snapshot()) == DEMO

    def test_later_runs_keep_the_data_and_print_no_password(self):
        """Only the addresses are said again."""
        self.run()
        hashed = get_user_model().objects.get().password
        config.set_setting("timeout", 77)
        lines = self.run().splitlines()
        assert [line.partition(":")[0] for line in lines] == ["site", "settings"]
        assert config.timeout == 77
        assert get_user_model().objects.get().password == hashed

    def test_two_sites_have_two_passwords(self):
        """It is random, and nobody's default."""
        first = self.run()
        get_user_model().objects.all().delete()
        assert self.run().splitlines()[3] != first.splitlines()[3]

    def test_settings_that_were_changed_before_are_kept(self):
        """A user that is missing is no reason to undo somebody's work."""
        config.set_setting("timeout", 77)
        assert "password: " in self.run()
        assert config.timeout == 77


class TestSecretKey:
    def test_is_made_once_for_its_owners_eyes(self, tmp_path: Path):
        """Sessions outlive a restart, and nobody else can forge one."""
        path = tmp_path / ".secret-key"
        key = secret_key(path)
        assert len(key) >= 50
        assert secret_key(path) == key
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [path]

    def test_the_key_of_secret_settings_is_made_in_the_same_way(self, tmp_path: Path):
        """What is sealed today is opened tomorrow."""
        key = secret_key(tmp_path / "key", fernet_key)
        Fernet(key)
        assert secret_key(tmp_path / "key", fernet_key) == key

    def test_processes_that_start_at_once_get_the_same(self, tmp_path: Path):
        """One wins, and the others read what it wrote."""
        with ThreadPoolExecutor(16) as pool:
            keys = set(pool.map(lambda _: secret_key(tmp_path / "key"), range(64)))
        assert len(keys) == 1
