"""G14: the plain value of a secret is in memory and where code asks for it, and nowhere else.

A canary is planted as the secret, and looked for everywhere that things come out.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import pickle
import pprint
import re
import sys
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.contrib import admin
from django.core.management import call_command
from django.db import connection
from django.db.models.signals import pre_save
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.urls import include, path
from django.utils.log import AdminEmailHandler
from django.views.debug import ExceptionReporter

from siteconfig import ConfigManager, Logger, config, transports
from siteconfig.exceptions import SecretKeyError
from siteconfig.models import SiteConfiguration
from siteconfig.redaction import Redactor
from siteconfig.testing import override_config
from tests.factories import AdminFactory, StaffFactory
from tests.keys import OTHER_KEY, SECRETS_KEY, column, set_column
from tests.test_admin import URL, browser, filled_in
from tests.testapp.models import ShopConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

# In pieces: error reports quote the lines of the source that are on the way.
CANARY = "-".join(["canary", "5e1f", "0123456789"])
MARK = CANARY[:11]

pytestmark = pytest.mark.django_db(transaction=True)


def broken(request: Any) -> HttpResponse:
    """A view that fails with everything in its variables."""
    value, by_name = config.api_key, config.get_setting("API_KEY")
    manager, snapshot, current = config, config.snapshot(), SiteConfiguration.current()
    mapping, items = dict(config.settings), list(config.settings.items())
    row = SiteConfiguration.objects.get()
    rows = list(SiteConfiguration.objects.values())
    attributes = [vars(row), vars(snapshot), vars(manager)]
    explanation, status = config.explain("api_key"), config.status()
    told = {"old": snapshot, "new": current, "changed": frozenset({"api_key"})}
    everything = [value, by_name, mapping, items, rows, attributes, explanation, status, told]
    raise LookupError(len(everything))


def setting(request: Any) -> HttpResponse:
    """A view that stores what it is sent."""
    config.set_setting("api_key", request.headers["X-Canary"])
    return HttpResponse()


async def asetting(request: Any) -> HttpResponse:
    await config.aset_setting("api_key", request.headers["X-Canary"])
    return HttpResponse()


urlpatterns = [
    path("broken/", broken),
    path("setting/", setting),
    path("asetting/", asetting),
    path("siteconfig/", include("siteconfig.urls")),
    path("admin/", admin.site.urls),
]


@pytest.fixture
def planted(settings: Any) -> None:
    """The canary is the secret of both models."""
    settings.ROOT_URLCONF = __name__
    config.set_setting("api_key", CANARY)
    ConfigManager(ShopConfig).set_setting("voucher", CANARY)
    assert config.api_key == ConfigManager(ShopConfig).voucher == CANARY


@pytest.fixture
def failing(planted: None) -> Iterator[None]:
    """Every save of the settings fails, as it does when the database is away."""

    def fail(**kwargs: Any) -> None:
        raise LookupError

    pre_save.connect(fail, sender=SiteConfiguration, weak=False)
    yield
    pre_save.disconnect(fail, sender=SiteConfiguration)


class Mailed(AdminEmailHandler):
    """What Django would mail to the admins, text and HTML."""

    def __init__(self) -> None:
        super().__init__(include_html=True)
        self.text = ""

    def send_mail(self, subject: Any, message: Any, *args: Any, **kwargs: Any) -> None:
        self.text += f"{subject}\n{message}\n{kwargs['html_message']}"


@pytest.fixture
def mailed() -> Iterator[Mailed]:
    """Errors are mailed, with all their details."""
    handler = Mailed()
    logging.getLogger("django.request").addHandler(handler)
    yield handler
    logging.getLogger("django.request").removeHandler(handler)


@pytest.mark.usefixtures("planted")
class TestStored:
    @pytest.mark.sqlite
    def test_in_the_database(self) -> None:
        """Not in any byte of its files, of any table: neither now nor after a change."""
        file = Path(connection.settings_dict["NAME"])
        # One of its own: pages that are free again still say what other tests have stored.
        canary = f"canary-{uuid4()}"
        config.set_setting("api_key", f"{canary}-2")
        config.set_setting("api_key", "")
        config.set_setting("api_key", canary)
        stored = b"".join(one.read_bytes() for one in (file, Path(f"{file}-wal")) if one.exists())
        assert column().encode() in stored  # we look in the right place
        assert canary.encode() not in stored

    @pytest.mark.parametrize("kind", ["json", "jsonl", "xml", "yaml"])
    def test_in_a_dump(self, kind: str) -> None:
        """In whatever format."""
        if kind == "yaml" and not importlib.util.find_spec("yaml"):
            pytest.skip("PyYAML is not installed.")
        out = StringIO()
        call_command("dumpdata", format=kind, stdout=out)
        assert column() in out.getvalue()
        assert MARK not in out.getvalue()

    def test_in_the_last_known_good_file(self, settings: Any, tmp_path: Path) -> None:
        """Of either model."""
        settings.SITECONFIG = {"LAST_KNOWN_GOOD": tmp_path / "settings.json"}
        config.reload()
        ConfigManager(ShopConfig).reload()
        texts = [file.read_text() for file in tmp_path.iterdir()]
        assert len(texts) == 2
        assert MARK not in "".join(texts)

    def test_between_processes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is announced is which row was written."""
        said: list[Any] = []
        monkeypatch.setattr(transports, "in_use", lambda: True)
        for announce in ("announce_write", "announce_commit"):
            monkeypatch.setattr(transports, announce, lambda *args: said.append(args))
        config.set_setting("api_key", f"{CANARY}-2")
        assert said == [("siteconfig.siteconfiguration", "default")] * 2


ROLES = {
    "anonymous": lambda: Client(),
    "staff": lambda: browser(StaffFactory()),
    "viewer": lambda: browser(
        StaffFactory(permissions=["view_siteconfiguration", "view_shopconfig"])
    ),
    "changer": lambda: browser(
        StaffFactory(permissions=["change_siteconfiguration", "change_shopconfig"])
    ),
    "superuser": lambda: browser(AdminFactory()),
}


def admin_pages() -> list[str]:
    """Every address of the admin that needs no more than the key of a row."""
    pages = ["/admin/", "/admin/login/", "/admin/password_change/", "/admin/jsi18n/"]
    for model in admin.site._registry:
        base = f"/admin/{model._meta.app_label}/"
        page = f"{base}{model._meta.model_name}/"
        ends = ("", "history/", "add/", "1/change/", "1/history/", "1/delete/")
        pages += [base, *(f"{page}{end}" for end in ends)]
    return sorted(set(pages))


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("role", ROLES)
class TestAdminPages:
    def test_to_look_at(self, role: str) -> None:
        """Every page there is; the end of the secret is all that is told, to those who may look."""
        client = ROLES[role]()
        shown = {page: client.get(page, follow=True).content.decode() for page in admin_pages()}
        assert URL in shown
        assert not [page for page, text in shown.items() if MARK in text]
        assert (f"ends in …{CANARY[-4:]}" in shown[URL]) == (role not in {"anonymous", "staff"})

    def test_refused_and_shown_again(self, role: str) -> None:
        """Neither what is stored nor what was typed in."""
        client = ROLES[role]()
        may = role in {"changer", "superuser"}
        for url, name in ((URL, "api_key"), ("/admin/testapp/shopconfig/", "voucher")):
            data = filled_in(client, url) if may else {}
            wrong = {"timeout": "999", "opening": "never"}
            response = client.post(url, {**data, **wrong, name: f"{CANARY}-new"})
            assert response.status_code == 200 if may else response.status_code in {302, 403}
            assert MARK not in response.content.decode()


@pytest.mark.usefixtures("planted")
class TestPages:
    def test_health(self, client: Client) -> None:
        """It is open to everybody."""
        assert MARK not in client.get("/siteconfig/health/").content.decode()

    def test_status_and_explain(self) -> None:
        """What is printed of them, and what is made of them."""
        shown = [config.status(), config.explain("api_key"), config, config.snapshot()]
        assert MARK not in f"{shown} {vars(config.explain('api_key'))}"
        assert config.explain("api_key").value == CANARY  # for code that asks


@pytest.mark.usefixtures("planted")
class TestObjects:
    def test_in_whatever_is_printed(self, changes: Any) -> None:
        """The manager, a snapshot, what receivers are told, an instance, and all that they hold."""
        config.set_settings(api_key=f"{CANARY}-2", timeout=45)
        row = SiteConfiguration.objects.get()
        (told,) = changes
        shown = [config, config.snapshot(), config.settings, told, row, row.api_key]
        shown += [vars(config), vars(config.snapshot()), vars(row), dict(config.settings)]
        shown += [vars(told["old"]), list(SiteConfiguration.objects.values_list())]
        shown += [config.get_setting.__self__.names]  # type: ignore[attr-defined] # a bound method
        text = repr(shown) + pprint.pformat(shown) + str(shown) + f"{shown!r}"
        assert "<Secret: set>" in text
        assert MARK not in text

    def test_in_a_pickle(self) -> None:
        """The manager's names it only; what holds values is refused."""
        assert MARK.encode() not in pickle.dumps(config)
        row = SiteConfiguration.objects.get()
        for held in (config.snapshot(), config.api_key, row, dict(config.settings)):
            with pytest.raises(TypeError, match="not pickled"):
                pickle.dumps(held)

    def test_copies_are_masked_as_well(self) -> None:
        """Deep ones, too."""
        held = copy.deepcopy(dict(config.settings))
        assert MARK not in repr([held, copy.copy(held["api_key"])])

    def test_an_override_is_masked_as_well(self) -> None:
        """Tests have error reports, too."""
        with override_config(api_key=f"{CANARY}-3"):
            assert MARK not in repr([config.api_key, config.snapshot(), vars(config)])


@pytest.mark.usefixtures("planted")
class TestLogs:
    def test_everything_at_debug(self, settings: Any, tmp_path: Path) -> None:
        """Django's own lines too, with each statement and its values. Nothing redacts here."""
        file = tmp_path / "all.log"
        handler = logging.FileHandler(file)
        root, level = logging.getLogger(), logging.getLogger().level
        database = logging.getLogger("django.db.backends")
        levels = (root.level, database.level)
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        database.setLevel(logging.DEBUG)
        settings.DEBUG = True
        try:
            self.use()
        finally:
            root.removeHandler(handler)
            handler.close()
            root.setLevel(levels[0])
            database.setLevel(levels[1])
        assert level == root.level
        assert "UPDATE" in file.read_text()
        assert MARK not in file.read_text()

    def use(self) -> None:
        """Do with the secret all that there is to do."""
        config.reload()
        config.set_setting("api_key", f"{CANARY}-4")
        set_column("x")
        config.reload()
        SiteConfiguration.objects.update(api_key=f"{CANARY}-5")
        row = SiteConfiguration.objects.get()
        row.api_key = f"{CANARY}-6"
        row.save()
        SiteConfiguration.objects.bulk_update([row], ["api_key"])
        client = browser(AdminFactory())
        client.post(URL, filled_in(client, api_key=f"{CANARY}-7"))
        assert config.api_key == f"{CANARY}-7"
        call_command("siteconfig", "rotate-keys", stdout=StringIO())

    def test_the_statements_that_django_keeps(self, settings: Any) -> None:
        """Debug toolbars show them."""
        settings.DEBUG = True
        connection.queries_log.clear()
        self.use()
        assert connection.queries
        assert MARK not in repr(connection.queries)

    def test_our_own_log_redacts_it_by_its_type(self, tmp_path: Path) -> None:
        """Whatever the setting is called, and even if somebody logs it on purpose."""
        Logger(tmp_path / "x.log").log("sending %s", str(ConfigManager(ShopConfig).voucher))
        assert MARK not in (tmp_path / "x.log").read_text()
        config.set_setting("api_key", "")
        assert Redactor()(f"sending {CANARY}") == "sending [voucher]"


@pytest.mark.usefixtures("planted")
class TestErrorReports:
    @pytest.mark.parametrize("debug", [True, False])
    def test_html_and_text(self, settings: Any, debug: bool) -> None:
        """All variables of all functions on the way are in them, masked."""
        settings.DEBUG = debug
        try:
            broken(None)
        except LookupError:
            reporter = ExceptionReporter(RequestFactory().get("/broken/"), *sys.exc_info())
        html, text = reporter.get_traceback_html(), reporter.get_traceback_text()
        assert html.count("&lt;Secret: set&gt;") > 8
        assert "LookupError" in text
        assert MARK not in html + text
        assert SECRETS_KEY not in html + text

    @pytest.mark.parametrize("debug", [True, False])
    def test_of_a_page(self, settings: Any, mailed: Mailed, debug: bool) -> None:
        """The page that Django shows, and the mail that it sends."""
        settings.DEBUG = debug
        response = Client(raise_request_exception=False).get("/broken/")
        assert response.status_code == 500
        assert MARK not in response.content.decode()
        assert "&lt;Secret: set&gt;" in mailed.text
        assert MARK not in mailed.text

    @pytest.mark.parametrize("debug", [True, False])
    @pytest.mark.parametrize("view", ["setting", "asetting"])
    @pytest.mark.usefixtures("failing")
    def test_of_a_write_that_fails(
        self, settings: Any, mailed: Mailed, debug: bool, view: str
    ) -> None:
        """What was to be stored is masked in each function of this app."""
        settings.DEBUG = debug
        response = Client(raise_request_exception=False).get(
            f"/{view}/", headers={"X-Canary": f"{CANARY}-8"}
        )
        assert response.status_code == 500
        # The header itself is in there.
        sent = re.compile(r"HTTP_X_CANARY.{0,60}?5e1f-0123456789-8", re.DOTALL)
        assert MARK not in sent.sub("", response.content.decode() + mailed.text)

    @pytest.mark.parametrize("debug", [True, False])
    @pytest.mark.usefixtures("failing")
    def test_of_the_admin_page(self, settings: Any, mailed: Mailed, debug: bool) -> None:
        """What was typed in is among the variables, and in the list of what was posted."""
        settings.DEBUG = debug
        client = browser(AdminFactory())
        client.raise_request_exception = False
        response = client.post(URL, filled_in(client, api_key=f"{CANARY}-9"))
        assert response.status_code == 500
        shown = response.content.decode() + mailed.text
        assert MARK not in shown
        assert "LookupError" in shown

    @pytest.mark.parametrize("debug", [True, False])
    def test_of_a_missing_key(self, settings: Any, debug: bool) -> None:
        """What could not be sealed, and the keys that do not seal."""
        settings.DEBUG = debug
        settings.SITECONFIG = {"SECRET_KEYS": [OTHER_KEY[:-4], OTHER_KEY]}
        row = SiteConfiguration.objects.get()
        try:
            row.api_key = f"{CANARY}-10"
            row.save()
        except SecretKeyError:
            reporter = ExceptionReporter(RequestFactory().get("/"), *sys.exc_info())
        shown = reporter.get_traceback_html() + reporter.get_traceback_text()
        assert "SecretKeyError" in shown
        assert not [word for word in (MARK, OTHER_KEY[:-4]) if word in shown]


def test_the_canary_would_be_found(client: Client, settings: Any) -> None:
    """A plain text in the same place is: these tests look where they say."""
    settings.ROOT_URLCONF = __name__
    config.set_settings(api_key=CANARY, site_name=CANARY)
    out = StringIO()
    call_command("dumpdata", "siteconfig", stdout=out)
    assert json.loads(out.getvalue())[0]["fields"]["site_name"] == CANARY
    assert MARK in browser(AdminFactory()).get(URL).content.decode()
    settings.DEBUG = True
    page = Client(raise_request_exception=False).get("/broken/").content.decode()
    assert MARK in page
