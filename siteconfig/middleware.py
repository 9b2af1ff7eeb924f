"""ConfigMiddleware: one snapshot for the whole request."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction
from django.utils.decorators import sync_and_async_middleware

from siteconfig.config_manager import config
from siteconfig.history import attributed_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest


@sync_and_async_middleware
def ConfigMiddleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:  # noqa: N802 - named like Django's
    """Set ``request.config`` to a Snapshot: frozen, so that one request sees one state.

    What the request writes is put down in the history to its user.
    """
    if iscoroutinefunction(get_response):

        async def amiddleware(request: HttpRequest) -> Any:
            request.config = config.snapshot()  # type: ignore[attr-defined]
            with attributed_to(partial(getattr, request, "user", None)):
                return await get_response(request)

        return amiddleware

    def middleware(request: HttpRequest) -> Any:
        request.config = config.snapshot()  # type: ignore[attr-defined]
        with attributed_to(partial(getattr, request, "user", None)):
            return get_response(request)

    return middleware
