"""request.config: one snapshot for the whole request (G7)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.template import Context, RequestContext, Template
from django.test import RequestFactory

from siteconfig import config
from siteconfig.context_processors import config as context_processor
from siteconfig.middleware import ConfigMiddleware
from siteconfig.snapshot import Snapshot

pytestmark = pytest.mark.django_db


class TestMiddleware:
    def test_a_request_has_the_snapshot_of_its_start(self) -> None:
        """What is saved meanwhile is for the next request."""

        def view(request: Any) -> HttpResponse:
            before = request.config.timeout
            config.set_setting("timeout", 45)
            return HttpResponse(f"{before} {request.config.timeout} {config.timeout}")

        handle = ConfigMiddleware(view)
        assert handle(RequestFactory().get("/")).content == b"30 30 45"
        assert handle(RequestFactory().get("/")).content == b"45 45 45"

    def test_it_works_without_leaving_the_event_loop(self) -> None:
        """An async view gets a coroutine function around it."""

        async def view(request: Any) -> HttpResponse:
            return HttpResponse(f"{request.config.timeout}")

        handle = ConfigMiddleware(view)
        assert asyncio.iscoroutinefunction(handle)
        assert asyncio.run(handle(RequestFactory().get("/"))).content == b"30"


class TestContextProcessor:
    def test_templates_read_settings(self) -> None:
        """By name, and extra settings through extra."""
        config.set_setting("banner", "Hello")
        context = Context(context_processor(RequestFactory().get("/")))
        template = Template("{{ config.site_name }} {{ config.timeout }} {{ config.extra.banner }}")
        assert template.render(context) == "My site 30 Hello"

    def test_they_see_the_snapshot_of_the_request(self) -> None:
        """The same that the view saw."""
        request = RequestFactory().get("/")
        ConfigMiddleware(lambda request: HttpResponse())(request)
        config.set_setting("timeout", 45)
        assert Template("{{ config.timeout }}").render(RequestContext(request)) == "30"

    @pytest.mark.parametrize("other", ["something else's", None])
    def test_a_foreign_request_config_is_left_alone(self, other: Any) -> None:
        """The name may be taken by another app."""
        request = HttpRequest()
        request.config = other  # type: ignore[attr-defined]
        assert isinstance(context_processor(request)["config"], Snapshot)
