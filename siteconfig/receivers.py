"""Every signal handler: the one place where writes, managers and the logger meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django.apps import apps
from django.core.signals import setting_changed
from django.db import DEFAULT_DB_ALIAS, connections, models, router
from django.db.models.signals import post_delete, post_migrate, post_save, pre_delete, pre_save

from siteconfig import config_manager, history, transports
from siteconfig.config_manager import ConfigManager
from siteconfig.fields import ROW_ID
from siteconfig.logger import Logger
from siteconfig.signals import (
    bulk_write_done,
    bulk_write_starts,
    change_noticed,
    config_changed,
    settings_read,
    write_committed,
)
from siteconfig.watcher import watcher

if TYPE_CHECKING:
    from django.apps import AppConfig

    from siteconfig.models import ConfigChange, ConfigModel
    from siteconfig.snapshot import Snapshot


def connect() -> None:
    """Connect the handlers that belong to no model; doing it twice is harmless."""
    post_migrate.connect(make_rows, dispatch_uid="siteconfig")
    config_changed.connect(follow_logging_settings, dispatch_uid="siteconfig")
    setting_changed.connect(follow_settings, dispatch_uid="siteconfig")
    settings_read.connect(watcher.ensure, dispatch_uid="siteconfig")
    write_committed.connect(announce_commit, dispatch_uid="siteconfig")
    change_noticed.connect(record_what_was_noticed, dispatch_uid="siteconfig")
    pre_save.connect(keep_records, sender=history.change_model(), dispatch_uid="siteconfig")


def watch(model: type[ConfigModel]) -> None:
    """Connect the handlers of one config model.

    Sender by sender: a receiver of every model's deletions would cost the whole project Django's
    fast deletes.
    """
    for signal in (pre_save, pre_delete, bulk_write_starts):
        signal.connect(before_write, sender=model, dispatch_uid="siteconfig")
    for signal in (post_save, post_delete, bulk_write_done):
        signal.connect(after_write, sender=model, dispatch_uid="siteconfig")


def before_write(
    sender: type[ConfigModel], *, using: str, instance: ConfigModel | None = None, **kwargs: Any
) -> None:
    # First, for it locks the row.
    if using == router.db_for_write(sender) and history.is_kept(using):
        history.begin(_concrete(sender), using, instance)
    ConfigManager(sender)._before_write(using)


def after_write(sender: type[ConfigModel], *, using: str, raw: bool = False, **kwargs: Any) -> None:
    if using == router.db_for_write(sender) and history.is_kept(using):
        history.end(_concrete(sender), using, is_raw=raw)
    if transports.in_use() and using == router.db_for_write(sender):
        transports.announce_write(sender._meta.label_lower, using)
    ConfigManager(sender)._after_write(using)


def _concrete(model: type[ConfigModel]) -> type[ConfigModel]:
    return cast("type[ConfigModel]", model._meta.concrete_model)


def record_what_was_noticed(
    sender: type[ConfigModel], *, using: str, held: Snapshot, known: Snapshot, **kwargs: Any
) -> None:
    history.notice(_concrete(sender), using, held, known)


def keep_records(
    sender: type[ConfigChange], *, instance: ConfigChange, raw: bool, **kwargs: Any
) -> None:
    """A fixture may bring records of the history, and none in the place of others."""
    if raw:
        history.refuse_another(instance, **kwargs)


def announce_commit(sender: type[ConfigModel], *, using: str, **kwargs: Any) -> None:
    if transports.in_use():
        transports.announce_commit(sender._meta.label_lower, using)


def make_rows(
    app_config: AppConfig, *, using: str = DEFAULT_DB_ALIAS, apps: Any = apps, **kwargs: Any
) -> None:
    """Make the row of each of the app's config models, so that no later save has to race for it.

    With the models as the migrations that have run know them, not as the code does: the table
    may lack the columns of later ones.
    """
    for model in app_config.get_models():
        if not hasattr(model, "setting_fields") or model._meta.proxy:
            continue
        if router.db_for_write(model) != using:
            continue
        try:
            migrated = apps.get_model(model._meta.label)
        except LookupError:
            continue  # its migration has not run yet
        # An app without migrations has no table before migrate --run-syncdb.
        if migrated._meta.db_table in connections[using].introspection.table_names():
            # Not by the model's own QuerySet: nobody has changed anything.
            rows: models.QuerySet[Any] = models.QuerySet(migrated, using=using)
            if not rows.filter(pk=ROW_ID).exists():
                rows.bulk_create([migrated(pk=ROW_ID)], ignore_conflicts=True)
            ConfigManager(cast("type[ConfigModel]", model))._after_write(using)


def follow_logging_settings(sender: type[ConfigModel], *, new: Snapshot, **kwargs: Any) -> None:
    if sender is ConfigManager()._model():
        Logger.follow_settings()


def follow_settings(*, setting: str, **kwargs: Any) -> None:
    if setting == "SITECONFIG_MODEL":
        ConfigManager()._rebind()
    elif setting == "SITECONFIG":
        for manager in list(config_manager._managers.values()):
            manager._forget_pins()
