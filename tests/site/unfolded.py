"""The addresses of a site whose admin has the look that unfold brings."""

from __future__ import annotations

from django.contrib.admin import register
from django.urls import path
from unfold.admin import ModelAdmin  # type: ignore[import-untyped]
from unfold.sites import UnfoldAdminSite  # type: ignore[import-untyped]

from siteconfig.admin import ConfigAdmin
from tests.testapp.models import ShopConfig

site, other_site = UnfoldAdminSite(name="unfolded"), UnfoldAdminSite(name="otherwise")


@register(ShopConfig, site=site)
class ShopConfigAdmin(ConfigAdmin, ModelAdmin):  # type: ignore[misc] # unfold has no types
    warn_unsaved_form = True


@register(ShopConfig, site=other_site)
class OtherShopConfigAdmin(ModelAdmin, ConfigAdmin):  # type: ignore[misc] # unfold has no types
    """The other way round."""


urlpatterns = [path("admin/", site.urls), path("otherwise/", other_site.urls)]
