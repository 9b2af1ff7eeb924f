"""ConfigMiddleware: one snapshot for the whole request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction
from django.utils.decorators import sync_and_async_middleware

from siteconfig.config_manager import config

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest


@sync_and_async_middleware
def ConfigMiddleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:  # noqa: N802 - named like Django's
    """Set ``request.config`` to a Snapshot: frozen, so that one request sees one state."""
    if iscoroutinefunction(get_response):

        async def amiddleware(request: HttpRequest) -> Any:
            request.config = config.snapshot()  # type: ignore[attr-defined]
            return await get_response(request)

        return amiddleware

    def middleware(request: HttpRequest) -> Any:
        request.config = config.snapshot()  # type: ignore[attr-defined]
        return get_response(request)

    return middleware
