"""LogFileHandler: nothing lost, nothing torn, whoever writes and whatever happens to the file."""

from __future__ import annotations

import errno
import importlib
import logging
import logging.config
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from siteconfig import handlers
from siteconfig.formatters import TextFormatter
from siteconfig.handlers import LogFileHandler
from tests.concurrency import ROOT, Started, in_child

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITER = """
import logging, sys
from siteconfig.handlers import LogFileHandler
path, name, count, max_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
handler = LogFileHandler(path, max_bytes=max_bytes, backups=100_000)
handler.setFormatter(logging.Formatter("%(message)s"))
logger = logging.getLogger("writer")
logger.propagate = False
logger.setLevel("INFO")
logger.addHandler(handler)
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    logger.info("%s %d %s", name, number, "x" * 60)
    if count > 1_000_000:
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
"""


def writer(path: Path, name: str, count: int, max_bytes: int = 0) -> subprocess.Popen[str]:
    """A process that waits for a line on its standard input and then writes ``count`` lines."""
    process = subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", WRITER, str(path), name, str(count), str(max_bytes)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}*"))


def lines(path: Path) -> list[str]:
    """The lines of the file and of all its rotated ones; each must have its end."""
    found: list[str] = []
    for file in files(path):
        text = file.read_text()
        assert text.endswith("\n") or not text
        found += text.splitlines()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log is to be."""
    return tmp_path / "site.log"


@pytest.fixture
def handler(path: Path) -> Iterator[LogFileHandler]:
    """A handler of this test, with the text format."""
    made = LogFileHandler(path)
    made.setFormatter(logging.Formatter("%(message)s"))
    yield made
    made.close()


def record(message: object, *args: object, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("shop", logging.INFO, "views.py", 1, str(message), args, None)
    made.__dict__.update(extra)
    return made


@pytest.mark.long
class TestManyProcesses:
    def test_8_processes_with_rotation_lose_nothing(self, path: Path) -> None:
        """160,000 lines, each once and whole, over at least 100 rotations."""
        count, max_bytes = 20_000, 50_000
        processes = [writer(path, f"p{number}", count, max_bytes) for number in range(8)]
        go(*processes)
        assert [process.wait(120) for process in processes] == [0] * 8
        for process in processes:
            process.communicate()
        assert len(files(path)) > 100
        expected = {f"p{n} {number} {'x' * 60}" for n in range(8) for number in range(count)}
        found = Counter(lines(path))
        assert found.keys() == expected
        assert set(found.values()) == {1}

    def test_kill_loses_no_line_whose_call_had_returned(self, path: Path) -> None:
        """Two writers, killed at 20 random moments each pair."""
        for attempt in range(20):
            target = path.with_name(f"{attempt}.log")
            processes = [writer(target, f"p{number}", 10_000_000) for number in range(2)]
            go(*processes)
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "0\n"  # its first call has returned
            time.sleep(0.01 * (attempt % 5))
            for process in processes:
                process.kill()
            for number, process in enumerate(processes):
                said, _errors = process.communicate()
                returned = 1 + said.count("\n")
                written = [one for one in lines(target) if one.startswith(f"p{number} ")]
                numbers = [int(one.split(" ")[1]) for one in written]
                assert numbers == list(range(len(numbers)))
                assert len(numbers) >= returned

    def test_500_forks_while_4_threads_log(self, path: Path) -> None:
        """No child hangs, and each writes its line."""
        handler = LogFileHandler(path, max_bytes=50_000, backups=100_000)
        handler.setFormatter(TextFormatter())
        logger = logging.getLogger("tests.forks")
        logger.propagate = False
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        stop = Event()

        def chatter() -> None:
            while not stop.is_set():
                logger.info("parent")

        threads = [Started(chatter) for _ in range(4)]
        try:
            for number in range(500):
                fork_and_log(logger, number)
        finally:
            stop.set()
            for thread in threads:
                thread.result()
            logger.removeHandler(handler)
            handler.close()
        children = {line.split(" ")[-1] for line in lines(path) if " child " in line}
        assert children == {str(number) for number in range(500)}


def fork_and_log(logger: logging.Logger, number: int) -> None:
    def log() -> None:
        logger.info("child %d", number)

    assert in_child(log) == 0


class TestTheFile:
    def test_others_cannot_read_it(self, path: Path, handler: LogFileHandler) -> None:
        """Whatever the umask lets through."""
        before = os.umask(0)
        try:
            handler.emit(record("one"))
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == 0o640

    def test_a_symbolic_link_is_not_followed(self, path: Path, capfd: Any) -> None:
        """Somebody else may have laid it."""
        target = path.with_name("target")
        path.symlink_to(target)
        handler = LogFileHandler(path)
        handler.emit(record("one"))
        assert not target.exists()
        assert "misses 1 lines" in capfd.readouterr().err

    def test_nothing_is_opened_before_the_first_record(self, path: Path) -> None:
        """A process that logs nothing makes no file."""
        LogFileHandler(path).close()
        assert not path.exists()

    def test_a_renamed_file_is_followed_by_a_new_one(
        self, path: Path, handler: LogFileHandler
    ) -> None:
        """As logrotate renames it."""
        handler.emit(record("one"))
        path.rename(path.with_name("old"))
        handler.emit(record("two"))
        assert path.with_name("old").read_text() == "one\n"
        assert path.read_text() == "two\n"

    def test_a_deleted_file_is_made_anew(self, path: Path, handler: LogFileHandler) -> None:
        """And so is one that was replaced."""
        handler.emit(record("one"))
        path.unlink()
        handler.emit(record("two"))
        assert path.read_text() == "two\n"
        path.unlink()
        path.write_text("other\n")
        handler.emit(record("three"))
        assert path.read_text() == "other\nthree\n"

    def test_a_closed_handler_opens_again(self, path: Path, handler: LogFileHandler) -> None:
        """logging.shutdown() may come before the last record."""
        handler.emit(record("one"))
        handler.close()
        handler.emit(record("two"))
        assert path.read_text() == "one\ntwo\n"

    def test_it_works_from_a_projects_logging(self, path: Path) -> None:
        """By its dotted path, with its arguments."""
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "formatters": {"json": {"()": "siteconfig.formatters.JsonFormatter"}},
                "handlers": {
                    "file": {
                        "class": "siteconfig.handlers.LogFileHandler",
                        "filename": str(path),
                        "max_bytes": 1_000_000,
                        "backups": 2,
                        "formatter": "json",
                    }
                },
                "loggers": {"tests.project": {"handlers": ["file"], "level": "INFO"}},
            }
        )
        logger = logging.getLogger("tests.project")
        logger.info("hello")
        assert '"message": "hello"' in path.read_text()
        for one in list(logger.handlers):
            logger.removeHandler(one)
            one.close()


class TestRotation:
    def test_the_newest_rotated_file_is_number_1(self, path: Path) -> None:
        """And the oldest are gone."""
        handler = LogFileHandler(path, max_bytes=4, backups=2)
        handler.setFormatter(logging.Formatter("%(message)s"))
        for number in range(5):
            handler.emit(record(f"n{number}"))
        handler.close()
        assert path.read_text() == "n4\n"
        assert [file.name for file in files(path)] == ["site.log", "site.log.1", "site.log.2"]
        assert path.with_name("site.log.1").read_text() == "n3\n"
        assert path.with_name("site.log.2").read_text() == "n2\n"

    def test_no_backups_means_none(self, path: Path) -> None:
        """The file begins anew."""
        handler = LogFileHandler(path, max_bytes=4, backups=0)
        handler.setFormatter(logging.Formatter("%(message)s"))
        for number in range(3):
            handler.emit(record(f"n{number}"))
        handler.close()
        assert [file.read_text() for file in files(path)] == ["n2\n"]

    def test_a_line_longer_than_the_limit_is_written_whole(self, path: Path) -> None:
        """In a file of its own."""
        handler = LogFileHandler(path, max_bytes=4)
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.emit(record("x" * 100))
        handler.emit(record("y" * 100))
        handler.close()
        assert path.read_text() == f"{'y' * 100}\n"

    def test_a_lock_that_is_held_is_not_waited_for(self, path: Path) -> None:
        """Its holder may be stopped; the file grows meanwhile."""
        import fcntl

        handler = LogFileHandler(path, max_bytes=4)
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.emit(record("one"))
        with path.open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            handler.emit(record("two"))
        handler.emit(record("three"))
        handler.close()
        assert path.with_name("site.log.1").read_text() == "one\ntwo\n"
        assert path.read_text() == "three\n"

    def test_a_file_that_cannot_be_renamed_is_written_on(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
    ) -> None:
        """The lines are worth more than the size."""
        handler = LogFileHandler(path, max_bytes=4)
        handler.setFormatter(logging.Formatter("%(message)s"))
        monkeypatch.setattr(os, "replace", failing(PermissionError(errno.EPERM, "no")))
        for number in range(3):
            handler.emit(record(f"n{number}"))
        handler.close()
        assert path.read_text() == "n0\nn1\nn2\n"
        assert capfd.readouterr().err.count("could not be rotated") == 1

    def test_without_fcntl_it_does_not_rotate(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on Windows; a check says so."""
        monkeypatch.setitem(sys.modules, "fcntl", None)
        try:
            without = importlib.reload(handlers).LogFileHandler(path, max_bytes=4)
            for _ in range(3):
                without.emit(record("line"))
            without.close()
            assert len(files(path)) == 1
            assert not handlers.CAN_ROTATE
        finally:
            monkeypatch.undo()
            importlib.reload(handlers)


def failing(error: Exception) -> Any:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    return fail


class TestTrouble:
    def test_a_missing_folder(self, tmp_path: Path, capfd: Any) -> None:
        """Counted, said once, resumed by itself."""
        path = tmp_path / "folder" / "site.log"
        handler = LogFileHandler(path)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        for number in range(100):
            handler.emit(record(number))
        assert handler.dropped == 100
        path.parent.mkdir()
        handler.emit(record("back"))
        handler.emit(record("more"))
        handler.close()
        assert path.read_text() == (
            "WARNING 100 lines before this could not be written\nINFO back\nINFO more\n"
        )
        assert capfd.readouterr().err.count("\n") == 1

    def test_stderr_gets_a_line_a_minute(
        self, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not one for each record."""
        now = [1000.0]
        monkeypatch.setattr(handlers, "monotonic", lambda: now[0])
        handler = LogFileHandler(tmp_path / "no" / "site.log")
        for _ in range(3):
            for _ in range(50):
                handler.emit(record("x"))
            now[0] += handlers.COMPLAIN_INTERVAL
        assert capfd.readouterr().err.count("\n") == 3

    def test_without_stderr_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A daemon may have closed it."""
        monkeypatch.setattr(sys, "stderr", None)
        LogFileHandler(tmp_path / "no" / "site.log").emit(record("x"))

    def test_a_full_disk_leaves_no_half_line(self, path: Path, handler: LogFileHandler) -> None:
        """By the limit on a file's size, at which writes stop half way as on a full disk."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler.emit(record("0123456789" * 10))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            for number in range(50):
                handler.emit(record(f"{number:02} {'x' * 96}"))
            full = path.read_text()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert full.endswith("\n")
        assert {len(line) for line in full.splitlines()} <= {100, 99}
        written = len(full.splitlines()) - 1
        assert handler.dropped == 50 - written > 0
        handler.emit(record("back"))
        assert (
            path.read_text()
            == f"{full}{50 - written} lines before this could not be written\nback\n"
        )

    def test_a_full_tmpfs(self, tmp_path: Path) -> None:
        """The same on a real disk of 64 KiB, where mounting one is allowed."""
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:  # noqa: S603
            pytest.skip("mounting a tmpfs is not allowed here")
        try:
            fill_and_empty(disk)
        finally:
            subprocess.run(["umount", str(disk)], check=True)  # noqa: S603, S607

    def test_a_failed_write_that_others_followed_is_left(
        self, path: Path, handler: LogFileHandler, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """To cut there would cut their line."""
        handler.emit(record("one"))
        write = os.write

        def half(descriptor: int, data: bytes) -> int:
            written = write(descriptor, data[:3])
            with path.open("ab") as other:
                other.write(b"other\n")
            return written

        with monkeypatch.context() as patched:
            patched.setattr(os, "write", half)
            handler.emit(record("two and more"))
        assert path.read_text() == "one\ntwoother\n"

    def test_arguments_that_do_not_fit_are_written_as_they_are(
        self, path: Path, handler: LogFileHandler
    ) -> None:
        """A mistake in a log call is no reason to lose what it says."""
        handler.emit(record("%d apples", "ten"))
        text = path.read_text()
        assert "'%d apples' with ('ten',) (not formatted:" in text

    def test_whatever_goes_wrong_is_kept_from_the_caller(self, path: Path) -> None:
        """Also an argument that calls itself without end."""

        class Endless:
            def __str__(self) -> str:
                return str(self)

            __repr__ = __str__

        handler = LogFileHandler(path)
        handler.emit(record("%s", Endless()))
        assert handler.dropped == 1
        handler.emit(record("next"))
        handler.close()
        assert path.read_text() == "1 line before this could not be written\nnext\n"


def fill_and_empty(disk: Path) -> None:
    path, ballast = disk / "site.log", disk / "ballast"
    handler = LogFileHandler(path)
    handler.setFormatter(logging.Formatter("%(message)s"))
    ballast.write_bytes(b"x" * 40_000)
    for number in range(2000):
        handler.emit(record(f"{number:04} {'x' * 60}"))
    full = path.read_text()
    written = full.splitlines()
    assert full.endswith("\n")
    assert written == [f"{number:04} {'x' * 60}" for number in range(len(written))]
    assert handler.dropped == 2000 - len(written) > 0
    ballast.unlink()
    handler.emit(record("back"))
    handler.close()
    dropped = 2000 - len(written)
    assert path.read_text() == f"{full}{dropped} lines before this could not be written\nback\n"
