"""The maintenance page, and the content security policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import add_never_cache_headers
from django.utils.decorators import sync_and_async_middleware

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
    from django.http import HttpRequest, HttpResponse, HttpResponseBase

    from project.http import SiteRequest

    GetResponse = Callable[[HttpRequest], Any]

#: Seconds after which a client is told to ask again. A guess: nobody says how long it will take.
RETRY_AFTER = 120

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)


@sync_and_async_middleware
def MaintenanceMiddleware(get_response: GetResponse) -> GetResponse:  # noqa: N802 - named like Django's
    """Answer visitors with the maintenance page while ``maintenance_mode`` is on.

    Staff see the site. The admin stays open, where the mode is turned off again, and so do the
    static files, without which neither page has its looks, and the health page.
    """
    if iscoroutinefunction(get_response):

        async def amiddleware(request: SiteRequest) -> HttpResponseBase:
            # The user costs a query: asked for only if it matters.
            if _is_closed(request) and not _is_staff(await request.auser()):
                return _maintenance_page(request)
            return cast("HttpResponseBase", await get_response(request))

        return cast("GetResponse", amiddleware)

    def middleware(request: SiteRequest) -> HttpResponseBase:
        if _is_closed(request) and not _is_staff(request.user):
            return _maintenance_page(request)
        return cast("HttpResponseBase", get_response(request))

    return cast("GetResponse", middleware)


def _is_closed(request: SiteRequest) -> bool:
    if not request.config["maintenance_mode"]:
        return False
    # A load balancer asks for the health of the process, not for whether visitors are let in.
    open_ones = (reverse("admin:index"), settings.STATIC_URL, reverse("siteconfig:health"))
    return not request.path.startswith(open_ones)


def _is_staff(user: AbstractBaseUser | AnonymousUser) -> bool:
    return user.is_active and getattr(user, "is_staff", False)


def _maintenance_page(request: HttpRequest) -> HttpResponse:
    response = render(request, "project/maintenance.html", status=503)
    response.headers["Retry-After"] = str(RETRY_AFTER)
    add_never_cache_headers(response)
    return response


@sync_and_async_middleware
def ContentSecurityPolicyMiddleware(get_response: GetResponse) -> GetResponse:  # noqa: N802 - named like Django's
    """Forbid pages to run or show anything that is not from this site's own files."""
    if iscoroutinefunction(get_response):

        async def amiddleware(request: HttpRequest) -> HttpResponseBase:
            return _with_policy(await get_response(request))

        return amiddleware

    def middleware(request: HttpRequest) -> HttpResponseBase:
        return _with_policy(get_response(request))

    return middleware


def _with_policy(response: HttpResponseBase) -> HttpResponseBase:
    # Django's debug pages bring their style and script within the page.
    if not settings.DEBUG:
        response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    return response
