"""URLs of public hosts only."""

from __future__ import annotations

import socket
from threading import Event
from time import monotonic
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import models

from siteconfig import ConfigManager, public_urls
from siteconfig.fields import PublicURLField
from siteconfig.public_urls import check_public_url
from tests.factories import AdminFactory
from tests.test_admin import browser, filled_in
from tests.testapp.models import ShopConfig

#: What the name servers of these tests say.
HOSTS = {
    "example.com": ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
    "xn--bcher-kva.example": ["93.184.215.14"],
    "nat64.example.com": ["64:ff9b::5db8:d70e"],
    "loopback.example.com": ["127.0.0.1"],
    "private.example.com": ["10.0.0.1"],
    "half.example.com": ["93.184.215.14", "192.168.1.1"],
    "metadata.example.com": ["169.254.169.254"],
    "shared.example.com": ["100.64.0.1"],
    "v6.example.com": ["fe80::1%eth0"],
    "mapped.example.com": ["::ffff:10.0.0.1"],
    "localhost": ["93.184.215.14"],
    "printer.local": ["93.184.215.14"],
    "db.internal": ["93.184.215.14"],
    "a.localhost": ["93.184.215.14"],
    "router.home.arpa": ["93.184.215.14"],
}

PUBLIC = [
    "https://example.com",
    "https://example.com/",
    "https://example.com:8443/path?query=@#fragment",
    "https://EXAMPLE.com/",
    "https://xn--bcher-kva.example/",
    "https://nat64.example.com/",
    "https://93.184.215.14/",
    "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/",
    "https://[::ffff:93.184.215.14]/",
    "https://[64:ff9b::5db8:d70e]/",
    "https://[2002:5db8:d70e::1]/",
    "https://example.com/stra\u00dfe",
]

REFUSED = [
    # Another scheme, and other ways to write a URL
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "//example.com/",
    "https:example.com",
    "https://example.com\n.private.example.com/",
    "https://example.com\\@private.example.com/",
    "https://",
    # User names and passwords
    "https://user@example.com/",
    "https://user:word@example.com/",
    "https://example.com@127.0.0.1/",
    "https://:@example.com/",
    # Names
    "https://localhost/",
    "https://LOCALHOST/",
    "https://a.localhost/",
    "https://printer.local/",
    "https://db.internal/",
    "https://router.home.arpa/",
    "https://example.com./",
    "https://localhost./",
    "https://intranet/",
    "https://missing.example.com/",
    # Characters that are taken for dots, digits and letters
    "https://127\u30020\u30020\u30021/",
    "https://127\uff0e0\uff0e0\uff0e1/",
    "https://\uff11\uff12\uff17.0.0.1/",
    "https://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/",
    "https://b\u00fccher.example/",
    # What the names lead to
    "https://loopback.example.com/",
    "https://private.example.com/",
    "https://half.example.com/",
    "https://metadata.example.com/",
    "https://shared.example.com/",
    "https://v6.example.com/",
    "https://mapped.example.com/",
    # IPv4 addresses
    "https://127.0.0.1/",
    "https://10.1.2.3/",
    "https://172.16.0.1/",
    "https://192.168.0.1/",
    "https://169.254.169.254/",
    "https://100.64.0.1/",
    "https://224.0.0.1/",
    "https://239.255.255.250/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://0.0.0.0/",
    "https://192.0.2.1/",
    "https://198.18.0.1/",
    # The same, written otherwise
    "https://2130706433/",
    "https://017700000001/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://127.1/",
    "https://127.0.1/",
    "https://0177.0.0.1/",
    "https://0x7f.0x0.0x0.0x1/",
    "https://127.0.0.1./",
    # IPv6 addresses
    "https://[::]/",
    "https://[::1]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fc00::1]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[2001:db8::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:a00:1]/",
    "https://[::127.0.0.1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a00:1::1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::a00:1]/",
    "https://[64:ff9b:1::5db8:d70e]/",
    "https://[2001:0:5db8:d70e::1]/",
]


@pytest.fixture(autouse=True)
def name_servers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts that were asked for."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: object) -> list[Any]:
        asked.append(host)
        if host not in HOSTS:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (address, 0)) for address in HOSTS[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


class TestCheck:
    @pytest.mark.parametrize("url", PUBLIC)
    def test_takes_what_is_public(self, url: str) -> None:
        """By name or by address."""
        check_public_url(url)

    @pytest.mark.parametrize("url", REFUSED, ids=ascii)
    def test_refuses_what_may_lead_inside(self, url: str) -> None:
        """However it is written."""
        with pytest.raises(ValidationError):
            check_public_url(url)

    def test_takes_http_if_it_is_asked_to(self) -> None:
        """And still looks at the host."""
        check_public_url("http://example.com/", schemes=["http", "https"])
        with pytest.raises(ValidationError):
            check_public_url("http://127.0.0.1/", schemes=["http", "https"])

    def test_waits_for_no_name_server(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that does not answer says nothing, and nothing is not public."""
        answers = Event()

        def getaddrinfo(*args: object) -> list[Any]:
            answers.wait(60)
            return []

        monkeypatch.setattr(public_urls, "DEADLINE", 0.05)
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        start = monotonic()
        with pytest.raises(ValidationError, match="cannot be found"):
            check_public_url("https://example.com/")
        answers.set()
        assert monotonic() - start < 10

    def test_says_why_and_shows_no_address(self) -> None:
        """It would tell about the inner network."""
        with pytest.raises(ValidationError) as caught:
            check_public_url("https://private.example.com/")
        assert caught.value.messages == ["This host is not public."]


@pytest.mark.django_db
class TestField:
    @pytest.fixture
    def shop(self) -> ConfigManager:
        """The manager of a model that has one: ``hook``."""
        return ConfigManager(ShopConfig)

    def test_is_checked_when_it_is_changed(
        self, shop: ConfigManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And not when other settings are, which needs no name server then."""
        shop.set_setting("hook", "https://example.com/")
        with pytest.raises(ValidationError):
            shop.set_setting("hook", "https://private.example.com/")
        assert shop.hook == "https://example.com/"
        monkeypatch.delitem(HOSTS, "example.com")
        url = "/admin/testapp/shopconfig/"
        client = browser(AdminFactory())
        data = filled_in(client, url, currency="CHF", opening="8:00:00")
        assert client.post(url, data).status_code == 302
        assert shop.currency == "CHF"
        response = client.post(url, {**data, "hook": "https://127.0.0.1/"})
        assert set(response.context["adminform"].form.errors) == {"hook"}

    def test_may_be_empty(self, shop: ConfigManager, name_servers: list[str]) -> None:
        """If it may be blank."""
        shop.set_setting("hook", "")
        assert name_servers == []

    def test_its_form_takes_a_host_for_https(self) -> None:
        """As people write it."""
        assert PublicURLField().formfield().clean("example.com") == "https://example.com"

    def test_migrations_keep_its_schemes(self) -> None:
        """If they are others than https."""
        field = PublicURLField(schemes=["http", "https"])
        assert field.deconstruct()[3]["schemes"] == ("http", "https")
        assert "schemes" not in PublicURLField().deconstruct()[3]
        assert isinstance(field.clone(), models.URLField)
        assert field.clone().schemes == ("http", "https")
