"""``manage.py demo``: make the site ready to be looked at, and say where."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import transaction
from django.urls import reverse

from siteconfig.models import SiteConfiguration

if TYPE_CHECKING:
    from argparse import ArgumentParser

USERNAME = "admin"


class Command(BaseCommand):
    """The first run makes the demo's settings and its user; later runs keep what is there."""

    help = (
        "Migrate the database; the first time, also load the demo's settings and make the user "
        "admin, whose password is printed this once. Print the addresses to open."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--port", type=int, default=8000, help="The port the site will be served on."
        )

    def handle(self, *args: Any, port: int, **options: Any) -> None:
        call_command("migrate", verbosity=0)
        password = self.prepare()
        site = f"http://127.0.0.1:{port}"
        self.stdout.write(f"site:     {site}{reverse('home')}")
        page = reverse("admin:siteconfig_siteconfiguration_change")
        self.stdout.write(f"settings: {site}{page}")
        if password is not None:
            self.stdout.write(f"user: {USERNAME}\npassword: {password}")

    @transaction.atomic
    def prepare(self) -> str | None:
        """Load the settings and make the user unless it exists; its password if it was made."""
        users = get_user_model()._default_manager
        if users.filter(**{users.model.USERNAME_FIELD: USERNAME}).exists():
            return None
        # Settings that somebody has changed before are not the demo's to replace.
        if not SiteConfiguration.objects.filter(version__gt=0).exists():
            call_command("loaddata", "demo", verbosity=0)
        password = secrets.token_urlsafe(12)
        users.create_superuser(USERNAME, password=password)
        return password
