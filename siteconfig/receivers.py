"""Every signal handler: the one place where writes, managers and the logger meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.signals import setting_changed
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db.models.signals import post_delete, post_migrate, post_save, pre_delete, pre_save

from siteconfig.config_manager import ConfigManager
from siteconfig.fields import ROW_ID
from siteconfig.logger import Logger
from siteconfig.models import ConfigModel
from siteconfig.signals import bulk_write_done, bulk_write_starts, config_changed

if TYPE_CHECKING:
    from django.apps import AppConfig

    from siteconfig.snapshot import Snapshot


def connect() -> None:
    """Connect every handler; doing it twice is harmless."""
    for model in config_models():
        # Sender by sender: a receiver of every model's deletions would cost the whole project
        # Django's fast deletes.
        for signal in (pre_save, pre_delete, bulk_write_starts):
            signal.connect(before_write, sender=model, dispatch_uid="siteconfig")
        for signal in (post_save, post_delete, bulk_write_done):
            signal.connect(after_write, sender=model, dispatch_uid="siteconfig")
    post_migrate.connect(make_rows, dispatch_uid="siteconfig")
    config_changed.connect(follow_log_level, dispatch_uid="siteconfig")
    setting_changed.connect(follow_model_setting, dispatch_uid="siteconfig")


def config_models() -> list[type[ConfigModel]]:
    """Every config model that has a table."""
    return [
        model
        for model in apps.get_models()
        if issubclass(model, ConfigModel) and not model._meta.proxy
    ]


def before_write(sender: type[ConfigModel], *, using: str, **kwargs: Any) -> None:
    ConfigManager(sender)._before_write(using)


def after_write(sender: type[ConfigModel], *, using: str, **kwargs: Any) -> None:
    ConfigManager(sender)._after_write(using)


def make_rows(
    app_config: AppConfig, *, using: str = DEFAULT_DB_ALIAS, apps: Any = apps, **kwargs: Any
) -> None:
    """Make the row of each of the app's config models, so that no later save has to race for it.

    With the models as the migrations that have run know them, not as the code does: the table
    may lack the columns of later ones.
    """
    for model in config_models():
        if model._meta.app_config is not app_config or router.db_for_write(model) != using:
            continue
        try:
            migrated = apps.get_model(model._meta.label)
        except LookupError:
            continue  # its migration has not run yet
        # An app without migrations has no table before migrate --run-syncdb.
        if migrated._meta.db_table in connections[using].introspection.table_names():
            rows = migrated._base_manager.using(using)
            if not rows.filter(pk=ROW_ID).exists():
                rows.bulk_create([migrated(pk=ROW_ID)], ignore_conflicts=True)
            ConfigManager(model)._after_write(using)


def follow_log_level(sender: type[ConfigModel], *, new: Snapshot, **kwargs: Any) -> None:
    if sender is ConfigManager()._model():
        Logger.follow_level()


def follow_model_setting(*, setting: str, **kwargs: Any) -> None:
    if setting == "SITECONFIG_MODEL":
        ConfigManager()._rebind()
