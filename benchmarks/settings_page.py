"""What the settings page costs the server, with 20 and with 200 settings, beside a stock page.

Run ``python benchmarks/settings_page.py`` from the repository's root. Each page is asked for in
turn, logged in, several rounds, and the median counts. The exit code is 1 if a figure that the
project promises is missed: at most 8 queries, and under 300 ms with 200 settings; and for a save at
most 8 statements in one transaction, session, user, BEGIN and COMMIT aside.
"""

from __future__ import annotations

import platform
import re
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import django
from django.conf import settings

DIRECTORY = tempfile.TemporaryDirectory()
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path(DIRECTORY.name, "db.sqlite3"),
        }
    },
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "django.contrib.staticfiles",
        "solo",
        "siteconfig",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of no use",  # noqa: S106 - it guards nothing
    STATIC_URL="static/",
    USE_TZ=True,
)
django.setup()

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection, models
from django.test import Client
from django.test.utils import (
    CaptureQueriesContext,
    setup_test_environment,
    teardown_test_environment,
)
from django.urls import path

from siteconfig import ConfigManager
from siteconfig.admin import ConfigAdmin
from siteconfig.models import ConfigModel

COUNTS = (20, 200)
ROUNDS = 20
CHANGES = 30

urlpatterns: list[Any] = []


class StockAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """The same form as Django shows it, for comparison."""


def config_model(count: int) -> Any:
    attributes: dict[str, Any] = {f"setting_{number}": field(number) for number in range(count)}
    attributes |= {
        "__module__": "siteconfig.models",
        "Meta": type("Meta", (), {"app_label": "siteconfig"}),
    }
    model: Any = type(f"Config{count}", (ConfigModel,), attributes)
    with connection.schema_editor() as editor:
        editor.create_model(model)
    model.objects.bulk_create([model()])
    return model


def field(number: int) -> models.Field[Any, Any]:
    """Of several kinds, each with a help text."""
    text = f"What setting {number} is for, in one sentence of the usual length."
    kinds = (
        lambda: models.IntegerField(default=number, help_text=text),
        lambda: models.CharField(max_length=100, default="some text", help_text=text),
        lambda: models.BooleanField(default=False, help_text=text),
        lambda: models.CharField(
            max_length=9, choices=[("a", "One"), ("b", "Two")], default="a", help_text=text
        ),
    )
    return kinds[number % len(kinds)]()


def serve(models_: list[Any]) -> None:
    ours, stock = admin.AdminSite("ours"), admin.AdminSite("stock")
    for model in models_:
        ours.register(model, ConfigAdmin)
        stock.register(model, StockAdmin)
    urlpatterns.extend([path("ours/", ours.urls), path("stock/", stock.urls)])
    # Pages link to the site that is called "admin".
    urlpatterns.append(path("admin/", admin.site.urls))


def asked(client: Client, url: str) -> tuple[float, int, int]:
    """Milliseconds, queries and bytes of one page."""
    with CaptureQueriesContext(connection) as captured:
        began = perf_counter()
        response = client.get(url)
        took = perf_counter() - began
    assert response.status_code == 200, response.status_code
    return took * 1000, len(captured), len(response.content)


def saved(client: Client, model: Any, url: str) -> list[str]:
    """The statements of a save of three settings."""
    form = client.get(url).context["adminform"].form
    data = {name: form[name].value() for name in form.fields}
    data = {name: value for name, value in data.items() if value not in (None, False)}
    data |= {"_seen": form.seen, "setting_0": "7", "setting_1": "other", "setting_3": "b"}
    with CaptureQueriesContext(connection) as captured:
        response = client.post(url, data)
    assert response.status_code == 302, response.context["adminform"].form.errors
    assert ConfigManager(model).setting_1 == "other"
    return [query["sql"] for query in captured.captured_queries]


def main() -> int:
    call_command("migrate", verbosity=0)
    every = {count: config_model(count) for count in COUNTS}
    serve(list(every.values()))
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("admin"))
    missed = 0
    print(
        f"CPython {platform.python_version()}, Django {django.__version__}, SQLite; median of "
        f"{ROUNDS}, after {CHANGES} changes"
    )
    for count, model in every.items():
        for number in range(CHANGES):
            ConfigManager(model).set_settings(setting_0=number + 100, setting_1=f"text {number}")
        name = model._meta.model_name
        urls = {
            "ours": f"/ours/siteconfig/{name}/",
            "stock": f"/stock/siteconfig/{name}/1/change/",
        }
        results: dict[str, list[tuple[float, int, int]]] = {site: [] for site in urls}
        for _ in range(ROUNDS):
            for site, url in urls.items():
                results[site].append(asked(client, url))
        for site, found in results.items():
            took, queries, size = (median(column) for column in zip(*found, strict=True))
            cost = f"{took:6.1f} ms, {queries:.0f} queries, {size / 1000:.0f} kB"
            print(f"{count:>4} settings, {site:<5}: {cost}")
            if site == "ours":
                missed += queries > 8 or took > 300
        setup_test_environment()  # so that the client has the form that was shown
        statements = saved(client, model, urls["ours"])
        teardown_test_environment()
        aside = re.compile(r"django_session|FROM .auth_user|^BEGIN|^COMMIT")
        own = [sql for sql in statements if not aside.search(sql)]
        begun = sum(sql.startswith("BEGIN") for sql in statements)
        print(f"{count:>4} settings, a save: {len(own)} statements, {begun} transaction")
        missed += len(own) > 8 or begun > 1
    return min(1, missed)


if __name__ == "__main__":
    sys.exit(main())
