"""What ``manage.py`` can do for the settings."""

from __future__ import annotations
