"""Each module here is one command of ``manage.py``."""

from __future__ import annotations
