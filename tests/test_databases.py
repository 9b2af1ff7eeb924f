"""Two databases, processes without a database, imports that read (G8, H07, H60)."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connections, transaction
from django.test import override_settings

from siteconfig import config
from siteconfig.connections import own_connection
from siteconfig.models import SiteConfiguration
from tests.concurrency import in_thread, python

if TYPE_CHECKING:
    from pathlib import Path


class OtherRouter:
    """The settings live in the database called other; reads of models go astray on purpose."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "default" if issubclass(model, SiteConfiguration) else None

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "other" if issubclass(model, SiteConfiguration) else None


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
class TestTwoDatabases:
    @pytest.fixture(autouse=True)
    def _routed(self) -> Any:
        with override_settings(DATABASE_ROUTERS=["tests.test_databases.OtherRouter"]):
            SiteConfiguration.objects.using("other").get_or_create(pk=1)
            config.reset()
            yield
        config.reset()

    def test_reads_go_where_writes_go(self) -> None:
        """Never to a replica, which may lag behind (H51)."""
        config.set_setting("timeout", 45)
        assert SiteConfiguration.objects.using("other").get().timeout == 45
        assert SiteConfiguration.objects.using("default").get().timeout == 30
        assert config.timeout == 45

    def test_a_transaction_on_the_other_database(self) -> None:
        """Its rollback and its commit are the ones that count (H07)."""
        with transaction.atomic(using="other"):
            config.set_setting("timeout", 45)
            assert config.timeout == 45
            assert in_thread(lambda: config.timeout) == 30
            transaction.set_rollback(True, using="other")
        assert config.timeout == 30

    def test_a_transaction_on_the_default_database_is_nothing_to_it(self) -> None:
        """A write to the other one is committed at once, whatever becomes of this."""
        with transaction.atomic(using="default"):
            config.set_setting("timeout", 45)
            assert in_thread(lambda: config.timeout) == 45
            transaction.set_rollback(True)
        assert config.timeout == 45

    def test_a_row_elsewhere_is_not_the_settings(self) -> None:
        """Writing it announces nothing."""
        _ = config.timeout
        SiteConfiguration.objects.using("default").update(timeout=99)
        row = SiteConfiguration.objects.using("default").get()
        row.retry_count = 9
        row.save(using="default")
        assert (config.timeout, config.retry_count) == (30, 3)

    def test_an_instance_can_be_copied_to_another_database(self) -> None:
        """With all it holds."""
        config.set_setting("timeout", 45)
        SiteConfiguration.objects.using("other").get().save(using="default")
        assert SiteConfiguration.objects.using("default").get().timeout == 45


IMPORTS = """
import sys
from siteconfig import ConfigManager, Logger, config
ConfigManager()
assert "django.db.backends.sqlite3.base" not in sys.modules
from django.conf import settings
assert not settings.configured
import django
django.setup()
from django.db import connections
assert all(connection.connection is None for connection in connections.all())
print("quiet")
"""

READ_THEN_MIGRATE = """
import logging
logging.basicConfig()
import django
django.setup()
from siteconfig import config
from siteconfig.connections import own_connection
TIMEOUT = config.timeout
assert TIMEOUT == 30
assert config.status().source == "default"
from django.core.management import call_command
call_command("migrate", verbosity=0)
assert config.status().source == "row", config.status()
assert config.status().last_error is None
config.set_setting("timeout", 45)
assert config.timeout == 45
print("healed")
"""

STOPPED = """
import logging
logging.basicConfig()
import django
django.setup()
from siteconfig import config
from siteconfig.connections import own_connection
assert [config.timeout, config.get_setting("RETRY_COUNT"), config.snapshot().site_name] == [
    30, 3, "My site"]
assert "unable to open database file" in config.status().last_error
import asyncio
async def read():
    return config.timeout
assert asyncio.run(read()) == 30
print("served")
"""

SWAPPED = """
import django
django.setup()
from django.core.management import call_command
call_command("migrate", run_syncdb=True, verbosity=0)
from django.db import connection
tables = connection.introspection.table_names()
assert "siteconfig_siteconfiguration" not in tables, tables
assert "testapp_shopconfig" in tables
from siteconfig import ConfigManager, config
from siteconfig.models import SiteConfiguration
from tests.testapp.models import ShopConfig
assert ConfigManager(ShopConfig) is config
config.set_setting("currency", "CHF")
assert config.currency == "CHF"
try:
    ConfigManager(SiteConfiguration)
except Exception as error:
    print(error)
call_command("check")
"""


def settings_module(tmp_path: Path, name: str, lines: str = "") -> dict[str, str]:
    """A settings module with a database at ``name``, and the environment that finds it."""
    (tmp_path / "own_settings.py").write_text(
        "from tests.settings import *\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', "
        f"'NAME': {str(tmp_path / name)!r}}}}}\n{lines}\n"
    )
    return {"settings": "own_settings", "PYTHONPATH": str(tmp_path)}


class TestWithoutADatabase:
    def test_importing_the_package_touches_nothing(self) -> None:
        """No settings, no database, no model; nor does setting Django up."""
        assert python(IMPORTS) == "quiet\n"

    def test_a_read_at_import_time_and_then_migrate(self, tmp_path: Path) -> None:
        """On an empty database: the defaults, then the row, in the same process."""
        assert python(READ_THEN_MIGRATE, **settings_module(tmp_path, "new.sqlite3")) == "healed\n"

    def test_the_database_is_stopped(self, tmp_path: Path) -> None:
        """It cannot even be opened."""
        assert python(STOPPED, **settings_module(tmp_path, "no/such/place")) == "served\n"

    @pytest.mark.parametrize(
        "command",
        ["check", "makemigrations --check", "migrate --plan", "sqlmigrate siteconfig 0001"],
    )
    def test_commands_work_on_an_empty_database_where_urls_read(
        self, tmp_path: Path, command: str
    ) -> None:
        """A project whose URLs read a setting at import can still be migrated (C#610)."""
        (tmp_path / "own_urls.py").write_text(
            "from siteconfig import config\nurlpatterns = []\nTIMEOUT = config.timeout\n"
        )
        code = (
            "import django; django.setup()\n"
            "from django.core.management import execute_from_command_line\n"
            f"execute_from_command_line(['manage.py', *{command.split()!r}])\n"
        )
        python(code, **settings_module(tmp_path, "new.sqlite3", "ROOT_URLCONF = 'own_urls'"))

    def test_a_projects_own_model_takes_the_place_of_the_shipped_one(self, tmp_path: Path) -> None:
        """Whose table is then not created."""
        lines = "SITECONFIG_MODEL = 'testapp.ShopConfig'"
        printed = python(SWAPPED, **settings_module(tmp_path, "new.sqlite3", lines))
        assert "SITECONFIG_MODEL replaces it by testapp.ShopConfig" in printed


@pytest.mark.django_db(transaction=True)
def test_our_own_connections_log_no_statements(settings: Any, caplog: Any) -> None:
    """With DEBUG Django would log all that the background thread asks."""
    settings.DEBUG = True
    with caplog.at_level("DEBUG", "django.db.backends"), closing(own_connection("default")) as own:
        with own.cursor() as cursor:
            cursor.execute("SELECT 1")
        own.set_autocommit(False)
        own.commit()
    assert (caplog.records, list(own.queries_log)) == ([], [])


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_died_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without requests has nobody else to do it (H62)."""

    def read() -> list[str | None]:
        connection = connections["default"]
        connection.ensure_connection()
        config.reload()
        errors = [config.status().last_error]
        monkeypatch.setattr(type(connection), "is_usable", lambda self: False)
        connection.connection.close()
        for _ in range(2):
            config.reload()
            errors.append(config.status().last_error)
        return errors

    before, failed, after = in_thread(read)
    assert (before, after) == (None, None)
    assert "closed" in failed
    assert config.timeout == 30
