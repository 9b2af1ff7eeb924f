"""The addresses of the reference site, and one more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import JsonResponse
from django.urls import path

from project.urls import urlpatterns as pages_of_the_project
from tests.site import sight

if TYPE_CHECKING:
    from django.http import HttpRequest


def see(request: HttpRequest) -> JsonResponse:
    """What the process that serves this request sees."""
    return JsonResponse(sight())


async def see_async(request: HttpRequest) -> JsonResponse:
    """The same in a coroutine."""
    return JsonResponse(sight())


urlpatterns = [
    path("see/", see),
    path("see-async/", see_async),
    *pages_of_the_project,
]
