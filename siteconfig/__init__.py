"""Settings that change while the site runs: edited in the admin, read like attributes."""

from __future__ import annotations

from siteconfig.config_manager import ConfigManager, config
from siteconfig.logger import Logger

__all__ = ["ConfigManager", "Logger", "config"]

__version__ = "0.1.0"
