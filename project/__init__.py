"""The reference site: a small Django project that uses siteconfig."""

from __future__ import annotations
