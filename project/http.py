"""What type checkers are to know of this site's requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpRequest

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User

    from siteconfig.snapshot import Snapshot


class SiteRequest(HttpRequest):
    """A request after the site's middleware. Only named in annotations, never made."""

    config: Snapshot
    user: User | AnonymousUser
