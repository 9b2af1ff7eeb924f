"""Logger: the file logger beside the settings."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, final

from django.core.exceptions import AppRegistryNotReady, ImproperlyConfigured

from siteconfig.conf import conf
from siteconfig.config_manager import config
from siteconfig.exceptions import LogFileConflictError

#: The branch of the ``logging`` tree that Logger writes to; the app's own messages are on it too.
LOGGER_NAME = "siteconfig"
HANDLER_NAME = "siteconfig.file"
FORMAT = "%(asctime)s %(levelname)s %(message)s"


@final
class Logger:
    """The one file logger of the process, at the level that the setting ``log_level`` names.

    Records go through the standard ``logging`` tree, as logger ``siteconfig``: to the file, and
    to whatever handlers the project's ``LOGGING`` puts there or further up.

    Args:
        log_file: path of the file, honoured the first time one is named. Left out:
            ``SITECONFIG["LOG_FILE"]``; with neither, Logger adds no file of its own.

    Raises:
        LogFileConflictError: another file is asked for than the one in use.
    """

    _instance: ClassVar[Logger | None] = None
    _lock: ClassVar[Lock] = Lock()
    _logger: ClassVar[logging.Logger] = logging.getLogger(LOGGER_NAME)

    def __new__(cls, log_file: str | Path | None = None) -> Logger:
        with cls._lock:
            cls._open(log_file)
            if cls._instance is None:
                cls._instance = super().__new__(cls)
            return cls._instance

    @classmethod
    def _open(cls, log_file: str | Path | None) -> None:
        """Attach the file's handler, once: it outlives a reload of this module."""
        handler = cls._handler()
        asked = log_file if handler is not None else log_file or conf.LOG_FILE
        if asked is None:
            return
        path = str(Path(asked).absolute())
        if handler is None:
            handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
            handler.set_name(HANDLER_NAME)
            handler.setFormatter(logging.Formatter(FORMAT))
            cls._logger.addHandler(handler)
        elif handler.baseFilename != path:
            raise LogFileConflictError(handler.baseFilename, path)

    @classmethod
    def _handler(cls) -> logging.FileHandler | None:
        for handler in cls._logger.handlers:
            if handler.get_name() == HANDLER_NAME and isinstance(handler, logging.FileHandler):
                return handler
        return None

    @classmethod
    def follow_level(cls) -> None:
        """Give the logger the level that ``log_level`` names, if there is such a setting."""
        try:
            level = config.get_setting("log_level")
        except (AppRegistryNotReady, ImproperlyConfigured):
            return  # logging while Django starts
        number = logging.getLevelNamesMapping().get(level)
        if number is not None and number != cls._logger.level:
            cls._logger.setLevel(number)

    def log(self, message: object, *args: object, **kwargs: Any) -> None:
        """Write ``message`` at level INFO; arguments as for ``logging.Logger.info``."""
        self._write(logging.INFO, message, args, kwargs)

    def debug(self, message: object, *args: object, **kwargs: Any) -> None:
        self._write(logging.DEBUG, message, args, kwargs)

    def info(self, message: object, *args: object, **kwargs: Any) -> None:
        self._write(logging.INFO, message, args, kwargs)

    def warning(self, message: object, *args: object, **kwargs: Any) -> None:
        self._write(logging.WARNING, message, args, kwargs)

    def error(self, message: object, *args: object, **kwargs: Any) -> None:
        self._write(logging.ERROR, message, args, kwargs)

    def exception(self, message: object, *args: object, **kwargs: Any) -> None:
        """Write ``message`` at level ERROR with the traceback of the exception being handled."""
        self._write(logging.ERROR, message, args, {"exc_info": True, **kwargs})

    def _write(
        self, level: int, message: object, args: tuple[object, ...], kwargs: dict[str, Any]
    ) -> None:
        # Asked each time, for the price of an attribute: so it is right from the first line on,
        # and in tests, where nothing commits and nobody is told of a change.
        self.follow_level()
        # As for logging's own methods, 1 is the caller: two calls up from here.
        stacklevel = kwargs.pop("stacklevel", 1) + 2
        self._logger.log(level, message, *args, stacklevel=stacklevel, **kwargs)
