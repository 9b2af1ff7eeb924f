"""A real browser, the machine's own Chromium, on pages that a thread of the tests' process serves.

Not by pytest-playwright, which keeps Playwright, and with it an event loop that counts as running,
until the session ends: every test after the first one with a browser would find itself inside of
a coroutine, where ``asyncio.run`` fails and Django refuses queries. Here both last for a module.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings
from django.test import Client, override_settings
from django.urls import reverse
from PIL import Image

from tests.fixtures import needed
from tests.servers import Missing
from tests.serving import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from django.http import HttpRequest, HttpResponseBase
    from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize
    from pytest_django.live_server_helper import LiveServer

#: The names that Chromium goes by.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

#: Nothing is drawn by a graphics card, and nothing is asked of the network.
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

#: A window on a desk, and a telephone held upright.
WIDE: ViewportSize = {"width": 1280, "height": 800}
NARROW: ViewportSize = {"width": 390, "height": 844}

#: All that the pages of Django's own admin need; ours may need no more.
ADMIN_POLICY = "default-src 'self'"

SCREENSHOTS_VARIABLE = "SITECONFIG_SCREENSHOTS"
IMAGES = Path(__file__).parent.parent / "docs" / "images"

#: Colours of a picture.
COLORS = 128


def chromium_program() -> str:
    """The path of the machine's Chromium.

    Raises:
        Missing: there is none.
    """
    for name in PROGRAMS:
        if path := shutil.which(name):
            return path
    raise Missing(
        f"There is no browser: none of {', '.join(PROGRAMS)} is in the PATH. Install Chromium, on "
        "Debian with: apt-get install chromium"
    )


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Chromium with no window, an empty profile, and no trace of it afterwards.

    During the block an event loop counts as running in this thread, though what is called in it is
    no coroutine. So Django is told to let it use the database.
    """
    program = chromium_program()
    from playwright.sync_api import expect, sync_playwright  # not where no test has a browser

    expect.set_options(timeout=PATIENCE * 1000)
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        browser = playwright.chromium.launch(
            executable_path=program,
            args=FLAGS,
            chromium_sandbox=os.geteuid() != 0,  # it does not work for root
            timeout=PATIENCE * 1000,
        )
        with browser:
            yield browser


class AdminPolicyMiddleware:
    """Give the admin's pages a policy that is stricter than the reference site's."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if request.path.startswith(reverse("admin:index")):
            response.headers["Content-Security-Policy"] = ADMIN_POLICY
        return response


@pytest.fixture(scope="module")
def live_server(django_db_setup: None) -> Iterator[LiveServer]:
    """pytest-django's, for a module: what forks later finds no thread of a server."""
    from pytest_django.live_server_helper import LiveServer

    ours = f"{AdminPolicyMiddleware.__module__}.{AdminPolicyMiddleware.__qualname__}"
    with override_settings(MIDDLEWARE=[ours, *settings.MIDDLEWARE]):  # read as the server starts
        server = LiveServer("127.0.0.1")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def chromium(live_server: LiveServer) -> Iterator[Browser]:
    """The browser; it ends before the server does, to which it keeps connections."""
    with needed():
        chromium_program()
    with running_chromium() as browser:
        yield browser


class Browse:
    """Opens windows of people, and notes what goes wrong in them.

    Attributes:
        errors: what has been written to the consoles as an error, which a content that the policy
            forbids is too, and what no script has caught. They fail the test: one that provokes
            some removes them.
    """

    def __init__(self, chromium: Browser, address: str) -> None:
        self.errors: list[str] = []
        self._chromium = chromium
        self._address = address
        self._contexts: list[BrowserContext] = []
        self._scripted: list[BrowserContext] = []

    def __call__(
        self,
        user: Any = None,
        *,
        narrow: bool = False,
        dark: bool = False,
        scripts: bool = True,
        height: int | None = None,
    ) -> Page:
        """A window of somebody who shares no cookies with those before.

        Args:
            user: who is logged in.
            narrow: on a telephone.
            dark: by somebody who likes dark pages.
            scripts: by somebody whose browser runs JavaScript.
            height: of the window, where it matters.
        """
        size = NARROW if narrow else WIDE
        context = self._chromium.new_context(
            base_url=self._address,
            viewport={**size, "height": height or size["height"]},
            is_mobile=narrow,
            has_touch=narrow,
            color_scheme="dark" if dark else "light",
            device_scale_factor=2,
            locale="en-GB",
            timezone_id="UTC",
            java_script_enabled=scripts,
        )
        self._contexts.append(context)
        if scripts:
            self._scripted.append(context)
        context.on("console", self._note_message)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        if user is not None:
            context.add_cookies(
                [
                    {"name": name, "value": value, "url": self._address}
                    for name, value in log_in(user)
                ]
            )
        return context.new_page()

    def _note_message(self, message: Any) -> None:
        source = message.location["url"]
        # Django's admin names no icon, and so this is asked for.
        if message.type == "error" and not source.endswith("/favicon.ico"):
            self.errors.append(f"{message.text} ({source})")

    def settle(self) -> None:
        """Return once all that has gone wrong so far is in ``errors``."""
        for context in self._scripted:
            for page in context.pages:
                page.evaluate("new Promise(requestAnimationFrame)")

    def close(self) -> None:
        """Close the windows."""
        for context in self._contexts:
            context.close()


def log_in(user: Any) -> list[tuple[str, str]]:
    """The names and values of the cookies of a new session of this user."""
    client = Client()
    client.force_login(user)
    return [(name, morsel.value) for name, morsel in client.cookies.items()]


@pytest.fixture
def browse(chromium: Browser, live_server: LiveServer, transactional_db: None) -> Iterator[Browse]:
    """Open windows: ``page = browse(user)``; an error on a page fails the test."""
    browse = Browse(chromium, live_server.url)
    yield browse
    browse.settle()
    browse.close()
    assert browse.errors == []


@pytest.fixture(scope="module")
def expect(chromium: Browser) -> Callable[..., Any]:
    """Playwright's ``assert``, which waits for what it is told."""
    from playwright.sync_api import expect

    return expect


@pytest.fixture
def screenshot() -> Callable[..., None]:
    """Write ``docs/images/<name>.png`` if ``SITECONFIG_SCREENSHOTS`` is 1, as often the same.

    ``screenshot("home", page, {"#version": "7"})`` shows what is in the window, with 7 as the text
    of the elements that the selector names: for numbers and times that differ from run to run.
    """

    def take(name: str, page: Page, texts: Mapping[str, str] | None = None) -> None:
        if os.environ.get(SCREENSHOTS_VARIABLE) != "1":
            return
        for selector, text in (texts or {}).items():
            page.locator(selector).evaluate_all(
                "(found, text) => found.forEach((one) => { one.textContent = text; })", text
            )
        taken = page.screenshot(animations="disabled", caret="hide")
        # A page has few colours: with a palette it is a third as large.
        picture = (
            Image.open(BytesIO(taken)).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
        )
        picture.save(IMAGES / f"{name}.png", optimize=True)

    return take
