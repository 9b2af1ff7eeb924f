"""Logger: one per process, through the standard logging tree, at the level of log_level."""

from __future__ import annotations

import importlib
import logging
import re
import time
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest

import siteconfig.logger
from siteconfig import Logger, config
from siteconfig.exceptions import LogFileConflictError
from siteconfig.logger import HANDLER_NAME, LOGGER_NAME
from siteconfig.testing import override_config
from tests.concurrency import PATIENCE, Started
from tests.test_receivers import receiving

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    """A log file that is not there yet."""
    return tmp_path / "app.log"


@pytest.fixture
def logger(log_file: Path) -> Logger:
    """The Logger of this test, with a file of its own."""
    with override_config(log_level="INFO"):
        return Logger(log_file=str(log_file))


def handlers() -> list[logging.Handler]:
    tree = logging.getLogger(LOGGER_NAME)
    return [one for one in tree.handlers if one.get_name() == HANDLER_NAME]


@pytest.mark.usefixtures("logger")
class TestOne:
    def test_it_is_one(self) -> None:
        """Whoever asks."""
        assert Logger() is Logger()

    def test_64_threads_make_one_with_one_handler(self, log_file: Path) -> None:
        """Also at the same moment."""
        barrier = Barrier(64)

        def make() -> Logger:
            barrier.wait(PATIENCE)
            return Logger(log_file=str(log_file))

        threads = [Started(make) for _ in range(64)]
        assert len({id(thread.result()) for thread in threads}) == 1
        assert len(handlers()) == 1

    def test_the_same_file_may_be_named_again(self, log_file: Path) -> None:
        """Also by another spelling of its path."""
        assert Logger(log_file=log_file) is Logger(str(log_file.parent / "x" / ".." / "app.log"))

    def test_another_file_is_an_error(self, log_file: Path) -> None:
        """It names both and says what to do."""
        with pytest.raises(LogFileConflictError, match="already writes to") as caught:
            Logger(log_file="other.log")
        assert caught.value.current == str(log_file)
        assert caught.value.requested.endswith("other.log")
        assert "SITECONFIG" in str(caught.value)

    def test_a_reload_of_the_code_attaches_nothing_twice(self, log_file: Path) -> None:
        """As the development server does."""
        try:
            reloaded = importlib.reload(siteconfig.logger).Logger
            reloaded(log_file=str(log_file)).log("once")
            assert len(handlers()) == 1
            assert log_file.read_text().count("once") == 1
            with pytest.raises(LogFileConflictError):
                reloaded(log_file="other.log")
        finally:
            siteconfig.logger.Logger = Logger  # type: ignore[misc]


class TestItsFile:
    def test_the_setting_names_it(self, settings: Any, log_file: Path) -> None:
        """Nothing else need be said."""
        settings.SITECONFIG = {"LOG_FILE": str(log_file)}
        with override_config(log_level="INFO"):
            Logger().log("hello")
        assert "hello" in log_file.read_text()

    def test_an_argument_wins_over_the_setting(self, settings: Any, log_file: Path) -> None:
        """The first time one is named."""
        settings.SITECONFIG = {"LOG_FILE": "never.log"}
        with override_config(log_level="INFO"):
            Logger(log_file=log_file).log("hello")
            Logger().log("again")
        assert len(log_file.read_text().splitlines()) == 2

    def test_without_any_the_records_go_up_the_tree(self, caplog: pytest.LogCaptureFixture) -> None:
        """And a file may still be named later."""
        with override_config(log_level="INFO"), caplog.at_level("INFO"):
            Logger().log("hello")
        assert handlers() == []
        assert caplog.messages == ["hello"]

    def test_a_file_may_be_named_later_if_there_is_none(self, log_file: Path) -> None:
        """No other was in use."""
        with override_config(log_level="INFO"):
            logger = Logger()
            assert Logger(log_file=log_file) is logger
            logger.log("hello")
        assert "hello" in log_file.read_text()


class TestWriting:
    def test_a_line_is_time_level_and_message(self, logger: Logger, log_file: Path) -> None:
        """In this order."""
        with override_config(log_level="INFO"):
            logger.log("value is %s", 5)
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO value is 5\n", log_file.read_text()
        )

    @pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
    def test_each_level_has_its_method(self, logger: Logger, log_file: Path, level: str) -> None:
        """Under its standard name."""
        with override_config(log_level="DEBUG"):
            getattr(logger, level)("message")
        assert f" {level.upper()} message\n" in log_file.read_text()

    def test_exception_adds_the_traceback(self, logger: Logger, log_file: Path) -> None:
        """At level ERROR."""
        try:
            1 / 0  # noqa: B018 - raises
        except ZeroDivisionError:
            with override_config(log_level="INFO"):
                logger.exception("failed")
        assert " ERROR failed\\nTraceback" in log_file.read_text()
        assert "ZeroDivisionError" in log_file.read_text()

    def test_records_name_their_caller(
        self, logger: Logger, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not a line of Logger's own."""
        with override_config(log_level="INFO"), caplog.at_level("INFO"):
            logger.log("one", extra={"user": "ann"})
            logger.warning("two", stacklevel=1)
        assert {record.filename for record in caplog.records} == {"test_logger.py"}
        assert caplog.records[0].user == "ann"  # type: ignore[attr-defined]

    def test_threads_write_whole_lines(self, logger: Logger, log_file: Path) -> None:
        """Each line once."""

        def write(number: int) -> Any:
            def lines() -> None:
                for line in range(100):
                    logger.log("line %d.%d", number, line)

            return lines

        with override_config(log_level="INFO"):
            for thread in [Started(write(number)) for number in range(8)]:
                thread.result()
        lines = {line.partition(" INFO ")[2] for line in log_file.read_text().splitlines()}
        assert lines == {f"line {n}.{line}" for n in range(8) for line in range(100)}


class TestLevel:
    @pytest.mark.django_db(transaction=True)
    def test_it_follows_the_setting_as_soon_as_it_is_saved(
        self, logger: Logger, log_file: Path
    ) -> None:
        """From the first line on, and for direct users of the logging tree too."""
        config.set_setting("log_level", "WARNING")
        config.reset()
        logger.log("not this")
        logger.warning("this")
        config.set_setting("log_level", "DEBUG")
        assert logging.getLogger(LOGGER_NAME).level == logging.DEBUG
        logging.getLogger("siteconfig.anything").debug("and this")
        lines = [line.split(" ", 3)[3] for line in log_file.read_text().splitlines()]
        assert lines == ["this", "and this"]

    @pytest.mark.django_db
    def test_it_follows_in_a_transaction_that_never_commits(
        self, logger: Logger, log_file: Path
    ) -> None:
        """As in users' tests."""
        config.set_setting("log_level", "ERROR")
        logger.warning("not this")
        config.set_setting("log_level", "DEBUG")
        logger.debug("this")
        assert "this" in log_file.read_text()
        assert "not" not in log_file.read_text()

    def test_other_loggers_keep_theirs(self, logger: Logger) -> None:
        """Only the branch that is ours is touched."""
        root, other = logging.getLogger(), logging.getLogger("django")
        before = root.level, other.level
        with override_config(log_level="CRITICAL"):
            logger.log("nothing")
        assert (root.level, other.level) == before

    def test_an_unknown_name_changes_nothing(self, logger: Logger, log_file: Path) -> None:
        """A model may have no such setting, raw SQL may store anything."""
        with override_config(log_level="WARNING"):
            logger.warning("one")
        with override_config(log_level="LOUD"):
            logger.log("two")
            logger.warning("three")
        assert "two" not in log_file.read_text()
        assert "three" in log_file.read_text()

    def test_logging_while_django_starts_works(
        self, logger: Logger, log_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There is no setting to ask yet."""
        monkeypatch.setattr(config._state, "model", None)
        monkeypatch.setattr("django.apps.apps.models_ready", False)
        monkeypatch.setattr("siteconfig.conf.DEFAULT_MODEL", "notyet.Config")
        logger.warning("early")
        assert "early" in log_file.read_text()


class TestManyThreads:
    @pytest.mark.django_db(transaction=True)
    def test_the_level_changes_while_8_threads_log(self, logger: Logger, log_file: Path) -> None:
        """For 10 seconds; nobody waits for anybody for ever (H107)."""
        end = time.monotonic() + 10

        def chatter() -> int:
            lines = 0
            while time.monotonic() < end:
                logger.error("line")
                logger.debug("perhaps")
                lines += 1
            return lines

        threads = [Started(chatter) for _ in range(8)]
        while time.monotonic() < end:
            for level in ("DEBUG", "WARNING"):
                config.set_setting("log_level", level)
        written = sum(thread.result() for thread in threads)
        assert log_file.read_text().count("ERROR line\n") == written > 100

    @pytest.mark.django_db(transaction=True)
    def test_receivers_and_the_manager_may_log(self, logger: Logger, log_file: Path) -> None:
        """A receiver logs the change of the level itself; the manager logs that it cannot read."""

        def receive(new: Any, **told: Any) -> None:
            logger.warning("now %s", new.log_level)

        with receiving(receive):
            config.set_setting("log_level", "WARNING")
            config.set_setting("log_level", "DEBUG")
        config._note_failure(RuntimeError("on purpose"))
        config.reload()
        lines = [line.split(" ", 3)[3] for line in log_file.read_text().splitlines()]
        assert lines[:2] == ["now WARNING", "now DEBUG"]
        assert lines[2].endswith("RuntimeError: on purpose")
        assert lines[3].endswith("can be read again.")
