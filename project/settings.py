"""Settings of the reference site, for a machine of one's own: it listens on loopback only.

Environment: ``DJANGO_DEBUG=1`` turns debug pages on, ``DJANGO_SECRET_KEY`` gives the key,
``SITECONFIG_SECRET_KEYS`` those of secret settings. ``SITECONFIG_DEMO_DB`` and
``SITECONFIG_DEMO_LOG`` put the database and the log file elsewhere. The database may also be a
PostgreSQL, ``postgresql://user:password@host:port/name``, and ``SITECONFIG_DEMO_REDIS`` names a
Redis or Valkey by which to tell other processes of changes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from project.database import database
from project.secret_key import fernet_key, secret_key

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("DJANGO_DEBUG") == "1"
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or secret_key(BASE_DIR / ".secret-key")
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

INSTALLED_APPS = [
    "project",
    "siteconfig",
    "solo",  # for the templates of its admin pages
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "project.middleware.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "siteconfig.middleware.ConfigMiddleware",
    # Asks request.config and request.user, so it stands below those who set them.
    "project.middleware.MaintenanceMiddleware",
]

ROOT_URLCONF = "project.urls"
WSGI_APPLICATION = "project.wsgi.application"
ASGI_APPLICATION = "project.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "siteconfig.context_processors.config",
            ],
        },
    },
]

DATABASES: dict[str, dict[str, Any]] = {
    "default": database(os.environ.get("SITECONFIG_DEMO_DB") or str(BASE_DIR / "db.sqlite3"))
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
FIXTURE_DIRS = [BASE_DIR / "fixtures"]

SITECONFIG: dict[str, Any] = {
    "LOG_FILE": os.environ.get("SITECONFIG_DEMO_LOG") or str(BASE_DIR / "site.log"),
}
if "SITECONFIG_SECRET_KEYS" not in os.environ:
    SITECONFIG["SECRET_KEYS"] = [secret_key(BASE_DIR / ".fernet-key", fernet_key)]
if redis_url := os.environ.get("SITECONFIG_DEMO_REDIS"):
    SITECONFIG |= {"TRANSPORT": "redis", "REDIS_URL": redis_url}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler", "level": "WARNING"}},
    "root": {"handlers": ["console"]},
    # Django's own arrangement is silent when DEBUG is off: it would mail errors to ADMINS.
    "loggers": {"django": {"handlers": [], "level": "INFO"}},
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "admin:login"

# Cookies go without "Secure": the site is served by plain HTTP, on loopback.
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
