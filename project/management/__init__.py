"""The management commands of the reference site."""

from __future__ import annotations
