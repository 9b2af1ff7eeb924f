"""Logger: the file logger beside the settings."""

from __future__ import annotations

import logging
import os
from threading import Lock
from typing import Any, ClassVar, cast, final

from django.core.exceptions import AppRegistryNotReady, ImproperlyConfigured

from siteconfig.conf import conf
from siteconfig.config_manager import config
from siteconfig.exceptions import LogFileConflictError
from siteconfig.formatters import JsonFormatter, TextFormatter
from siteconfig.handlers import LogFileHandler

#: The branch of the ``logging`` tree that Logger writes to; the app's own messages are on it too.
LOGGER_NAME = "siteconfig"
HANDLER_NAME = "siteconfig.file"

FORMATTERS = {"text": TextFormatter(), "json": JsonFormatter()}


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

    def __new__(cls, log_file: str | os.PathLike[str] | None = None) -> Logger:
        with cls._lock:
            cls._open(log_file)
            if cls._instance is None:
                cls._instance = super().__new__(cls)
            return cls._instance

    @classmethod
    def _open(cls, log_file: str | os.PathLike[str] | None) -> None:
        """Attach the file's handler, once: it outlives a reload of this module."""
        handler = cls._handler()
        asked = log_file if handler is not None else log_file or conf.LOG_FILE
        if asked is None:
            return
        path = os.path.abspath(asked)  # noqa: PTH100 - without following links
        if handler is None:
            handler = LogFileHandler(path, conf.LOG_MAX_BYTES, conf.LOG_BACKUPS)
            handler.set_name(HANDLER_NAME)
            handler.setFormatter(FORMATTERS["text"])
            cls._logger.addHandler(handler)
        elif handler.path != path:
            raise LogFileConflictError(handler.path, path)

    @classmethod
    def _handler(cls) -> LogFileHandler | None:
        # By its name: after a reload of the code it is of a class that is no longer ours.
        named = (one for one in cls._logger.handlers if one.get_name() == HANDLER_NAME)
        return cast("LogFileHandler | None", next(named, None))

    @classmethod
    def follow_settings(cls) -> None:
        """Give our logger the level that ``log_level`` names, our file the format of LOG_FORMAT."""
        level = logging.getLevelNamesMapping().get(_log_level())
        if level is not None and level != cls._logger.level:
            cls._logger.setLevel(level)
        formatter = FORMATTERS.get(conf.LOG_FORMAT)
        handler = cls._handler()
        if handler is not None and formatter is not None and formatter is not handler.formatter:
            handler.setFormatter(formatter)

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
        self.follow_settings()
        # As for logging's own methods, 1 is the caller: two calls up from here.
        stacklevel = kwargs.pop("stacklevel", 1) + 2
        self._logger.log(level, message, *args, stacklevel=stacklevel, **kwargs)


def _log_level() -> Any:
    try:
        return config.get_setting("log_level")
    except (AppRegistryNotReady, ImproperlyConfigured):
        return None  # logging while Django starts


def _after_fork() -> None:
    Logger._lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
