"""The addresses of the reference site."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import include, path

from project import views

urlpatterns = [
    path("", views.home, name="home"),
    path("my-view/", views.my_view, name="my_view"),
    path("my-async-view/", views.my_async_view, name="my_async_view"),
    path("update-config/", views.update_config, name="update_config"),
    path("siteconfig/", include("siteconfig.urls")),
    path("admin/", admin.site.urls),
    # "Insecure" is how Django calls serving static files itself when DEBUG is off. This site is
    # for one's own machine, and has no other server to do it.
    path(f"{settings.STATIC_URL.lstrip('/')}<path:path>", serve, {"insecure": True}),
]
