"""health/, for load balancers and monitoring."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from django.contrib.auth.decorators import login_not_required
from django.db import connections, transaction
from django.http import JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from siteconfig.conf import conf
from siteconfig.config_manager import ConfigManager

if TYPE_CHECKING:
    from django.http import HttpRequest


@login_not_required
@never_cache
@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """The status of the default manager as JSON; no setting's value, and no query once warm.

    Answers 200 while the row has been seen within ``SITECONFIG["MAX_STALENESS"]`` seconds, else
    503. Errors are given by their kind only: the page is open to everybody, and a driver's text
    names hosts and users.
    """
    config = ConfigManager()
    config.snapshot()  # the first read of the process, if there has been none
    status = config.status()
    # Where nothing is to notice changes, the values are as fresh as they are to be.
    limit = None if conf.TRANSPORT == "none" else conf.MAX_STALENESS
    is_fresh = limit is None or (status.age is not None and status.age <= limit)
    content = asdict(status) | {"status": "fresh" if is_fresh else "stale", "fresh": is_fresh}
    for name in ("last_error", "transport_error"):
        content[name] = content[name] and content[name].partition(":")[0]
    response = JsonResponse(content, status=200 if is_fresh else 503)
    # Else Django would mail each 503 to ADMINS, at every probe; the outage has lines of its own.
    response._has_been_logged = True  # type: ignore[attr-defined] # Django's undocumented mark
    return response


# With ATOMIC_REQUESTS Django would open a transaction first, and fail where the database is away.
for alias in connections:
    health = transaction.non_atomic_requests(using=alias)(health)
