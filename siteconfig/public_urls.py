"""Whether a URL leads to a public host: one that is not of the site's own network."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import URLValidator
from django.utils.translation import gettext

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Seconds to wait for a name server. The settings' row is locked meanwhile.
DEADLINE = 2.0

#: Names that are never public, whatever a name server says.
PRIVATE_NAMES = (".localhost", ".local", ".localdomain", ".internal", ".home.arpa")

#: All public IPv6 addresses, but for those of the next network.
PUBLIC_IPV6 = IPv6Network("2000::/3")

#: The addresses by which a host that has only IPv6 reaches IPv4. They end in an IPv4 address.
NAT64 = IPv6Network("64:ff9b::/96")


def check_public_url(url: str, schemes: Sequence[str] = ("https",)) -> None:
    """Refuse a URL that may lead into the site's own network.

    Call it before each request, too: names lead elsewhere later. Not covered are a name server
    that answers the client of that request otherwise than it answered here, and redirects: do
    not follow them, or check each.

    Args:
        schemes: those that are allowed.

    Raises:
        ValidationError: with the reason.
    """
    URLValidator(schemes=schemes)(url)
    parts = urlsplit(url)
    host = parts.hostname or ""
    if "@" in parts.netloc:
        raise refused(gettext("A URL with a user name or a password is not allowed."), "user_info")
    if not parts.netloc.isascii():
        # Whoever resolves the name may take other characters for dots and digits.
        raise refused(gettext("Write the host in ASCII, as xn--…."), "not_ascii")
    if host.endswith(".") or f".{host}".endswith(PRIVATE_NAMES):
        raise not_public()
    if not all(map(is_public, addresses(host))):
        raise not_public()


def not_public() -> ValidationError:
    # The address is not shown: it would tell about the inner network.
    return refused(gettext("This host is not public."), "not_public")


def refused(message: str, code: str) -> ValidationError:
    return ValidationError(message, code=code)


def addresses(host: str) -> list[IPv4Address | IPv6Address]:
    """All addresses of a host.

    Raises:
        ValidationError: it has none, or no name server has answered in time.
    """
    try:
        return [ip_address(host)]
    except ValueError:
        pass
    found = resolved(host)
    if not found:
        message = gettext("This host cannot be found, so it cannot be told whether it is public.")
        raise refused(message, "not_found")
    return [ip_address(address) for address in found]


def resolved(host: str) -> list[str]:
    """What the name servers say; none if they do not in time. They cannot be told to hurry."""
    answers: SimpleQueue[list[str]] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put([str(one[4][0]) for one in socket.getaddrinfo(host, None)])
        except (OSError, UnicodeError):
            answers.put([])

    Thread(target=ask, name="siteconfig-resolver", daemon=True).start()
    try:
        return answers.get(timeout=DEADLINE)
    except Empty:
        return []


def is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        if inner := address.ipv4_mapped:
            return is_public(inner)
        if address in NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if (inner := address.sixtofour) and not is_public(inner):
            return False
        if address not in PUBLIC_IPV6:
            return False
    return address.is_global and not address.is_multicast
