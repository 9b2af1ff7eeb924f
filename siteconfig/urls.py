"""The addresses of the app: ``path("siteconfig/", include("siteconfig.urls"))``."""

from __future__ import annotations

from django.urls import path

from siteconfig import views

app_name = "siteconfig"

urlpatterns = [path("health/", views.health, name="health")]
