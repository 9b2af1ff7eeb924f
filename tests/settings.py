"""The reference site's settings with databases and models of the tests' own.

Environment: ``SITECONFIG_TEST_DATABASE``, the address of a PostgreSQL to run the tests on; without
it they run on SQLite.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

#: The key that seals secrets in tests, and in the processes that they start.
SECRETS_KEY = "dGVzdHMtb25seS10ZXN0cy1vbmx5LXRlc3RzLW9ubHk="
# In the environment, so that a test can replace SITECONFIG without being left without a key.
os.environ["SITECONFIG_SECRET_KEYS"] = SECRETS_KEY

from project.database import database  # noqa: E402 - after the key
from project.settings import *  # noqa: E402, F403 - a settings module takes all of another

_DIRECTORY = Path(tempfile.gettempdir())


def _database(name: str) -> dict[str, object]:
    """A file, as on a site: threads see each other's commits, and only those."""
    file = _DIRECTORY / f"siteconfig-tests-{os.getpid()}-{name}.sqlite3"
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": file,
        "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF"},
        "TEST": {"NAME": file},
    }


if url := os.environ.get("SITECONFIG_TEST_DATABASE"):
    DATABASES = {
        "default": {**database(url), "TEST": {"NAME": f"siteconfig-{os.getpid()}"}},
        "other": {**database(url), "TEST": {"NAME": f"siteconfig-{os.getpid()}-other"}},
    }
else:
    DATABASES = {"default": _database("default"), "other": _database("other")}

SECRET_KEY = "only-for-tests"
DEBUG = False
INSTALLED_APPS = [*INSTALLED_APPS, "tests.testapp"]  # noqa: F405 - from the star above
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
SITECONFIG = {"STRICT": False}
