"""The two lines of a project that registers its own config model."""

from __future__ import annotations

from django.contrib import admin

from siteconfig.admin import ConfigAdmin
from tests.testapp.models import EveryKind, ShopConfig


@admin.register(ShopConfig)
class ShopConfigAdmin(ConfigAdmin):
    pass


@admin.register(EveryKind)
class EveryKindAdmin(ConfigAdmin):
    pass
