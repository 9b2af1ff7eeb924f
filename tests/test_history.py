"""Processes write, read, are killed and cut off; nobody sees what is not, or no more, so."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import stress
from tests.fixtures import needed
from tests.history import START, Seen, check, recall
from tests.processes import Process
from tests.servers import PostgresServer, RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.long

#: Seconds for which each transport's processes write; ``make soak`` asks for more.
SECONDS = float(os.environ.get("SITECONFIG_TEST_STRESS", "6"))

READERS = WRITERS = 3

#: Seconds between two polls, and of the longest pause after failures.
POLL, LONGEST = 0.1, 1.0

#: Seconds for a slow machine to do what takes milliseconds.
ROOM = 5.0

# Of the checker


def seen(*tokens: str, who: str = "reader", least: str | None = None) -> Seen:
    return Seen(who, 0.0, tokens, least)


LEDGER = ["a", "b", "c"]

GOOD = [
    seen(START, START),
    seen("a", "a"),
    seen("a", "a", who="other"),
    seen("c", "c"),  # b was passed over
    seen("c", "c"),
    seen("b", "b", who="other", least="b"),
    seen("c", "c", who="other", least="b"),
]


class TestCheck:
    def test_a_right_history(self) -> None:
        """States may be passed over, and each reader is in another one."""
        verdict = check(LEDGER, GOOD, ["reader", "other"])
        assert not verdict
        assert str(verdict) == ""

    @pytest.mark.parametrize(
        ("wrong", "kind"),
        [
            (seen("c", "a"), "torn"),
            (seen("c", ""), "torn"),
            (seen("z", "z"), "uncommitted"),
            (seen("b", "b"), "backwards"),
            (seen(START, START), "backwards"),
            (seen("a", "a", who="writer", least="b"), "forgotten"),
            (seen(START, START, who="writer", least="a"), "forgotten"),
        ],
    )
    def test_a_wrong_history(self, wrong: Seen, kind: str) -> None:
        """What is wrong is found, whatever comes after it, and nothing else is said to be."""
        verdict = check(LEDGER, [*GOOD, wrong, seen("c", "c"), seen("c", "c")], ["reader"])
        assert {name for name, found in vars(verdict).items() if found} == {kind}
        assert kind in str(verdict)

    def test_who_is_behind(self) -> None:
        """Whoever has seen another state last, or nothing at all, or nothing that is right."""
        history = [seen("c", "c", who="a"), seen("b", "b", who="b"), seen("c", "b", who="c")]
        assert check(LEDGER, history, "abcd").behind == ["b", "c", "d"]
        assert check([], [seen(START, who="a")], "ab").behind == ["b"]

    def test_what_a_killed_process_has_noted(self, tmp_path: Path) -> None:
        """The half of a line is none."""
        Path(tmp_path, "one.seen").write_text('["w", 1.5, ["a", ""], "b"]\n["w", 2.')
        assert recall(tmp_path) == [Seen("one, w", 1.5, ("a", ""), "b")]


# Of the app


class Stage:
    """The database that the processes use, and what can happen to it while they do."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        raise NotImplementedError

    def settings(self, name: str) -> dict[str, Any]:
        """Of a process."""
        raise NotImplementedError

    def ledger(self) -> list[str]:
        raise NotImplementedError

    def mishaps(self) -> list[Callable[[], object]]:
        return []


LEDGER_IN_ORDER = "SELECT token FROM ledger ORDER BY serial"


class OnSQLite(Stage):
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.path = folder / "site.sqlite3"

    def settings(self, name: str) -> dict[str, Any]:
        options = {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF"}
        engine = "django.db.backends.sqlite3"
        database = {"ENGINE": engine, "NAME": str(self.path), "OPTIONS": options}
        return {"DATABASES": {"default": database}, "SITECONFIG": {"POLL_INTERVAL": POLL}}

    def ledger(self) -> list[str]:
        with closing(sqlite3.connect(self.path)) as connection:
            return [token for (token,) in connection.execute(LEDGER_IN_ORDER)]


class OnPostgres(Stage):
    transport = "postgres"

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.server = stack.enter_context(PostgresServer())

    def settings(self, name: str) -> dict[str, Any]:
        database = self.server.django(application_name=name)
        siteconfig = {"POLL_INTERVAL": POLL, "TRANSPORT": self.transport}
        return {"DATABASES": {"default": database}, "SITECONFIG": siteconfig}

    def ledger(self) -> list[str]:
        return [token for (token,) in self.server.execute(LEDGER_IN_ORDER)]

    def mishaps(self) -> list[Callable[[], object]]:
        return [
            lambda: self.server.restart("fast"),
            lambda: self.server.restart("immediate"),
            lambda: self.server.terminate_backends("application_name LIKE 'reader%%'"),
        ]


class PollingPostgres(OnPostgres):
    transport = "poll"


class OnRedis(OnPostgres):
    transport = "redis"

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        super().__init__(folder, stack)
        self.redis = stack.enter_context(RedisServer())

    def settings(self, name: str) -> dict[str, Any]:
        settings = super().settings(name)
        settings["SITECONFIG"]["REDIS_URL"] = self.redis.url
        return settings

    def mishaps(self) -> list[Callable[[], object]]:
        return [*super().mishaps(), self.redis.restart, lambda: self.redis.restart("immediate")]


STAGES = {"postgres": OnPostgres, "redis": OnRedis, "poll": PollingPostgres, "sqlite": OnSQLite}


@pytest.mark.parametrize("transport", STAGES)
def test_history(
    transport: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    """Committed only, never backwards, never torn; all come to the same end."""
    seed = request.config.getoption("randomly_seed", 0)
    chance = random.Random(f"{seed} {transport}")
    with ExitStack() as stack:
        with needed():
            stage = STAGES[transport](tmp_path, stack)
        readers, writers = (
            {
                name: stack.enter_context(Process(stage.settings(name)))
                for name in (f"{kind}-{number}" for number in range(how_many))
            }
            for kind, how_many in (("reader", READERS), ("writer", WRITERS))
        )
        for process in (*readers.values(), *writers.values()):
            process.run("from siteconfig import backoff; from tests import stress")
            process.run(f"backoff.LONGEST = {LONGEST}")
        writers["writer-0"].run("stress.begin()")
        for name, reader in readers.items():
            reader.run(f"reader = stress.Reader({str(tmp_path)!r}, {name!r})")
        for name, writer in writers.items():
            words = (str(tmp_path), name, f"{seed} {transport} {name}", SECONDS)
            writer.begin(f"stress.write{words!r}")
        mishaps = befall(stage, chance, time.monotonic() + SECONDS)
        faults = [
            fault
            for writer in writers.values()
            for fault in writer.end(SECONDS + 2 * stress.PATIENCE)
        ]
        ledger = stage.ledger()
        for reader in readers.values():
            reader.begin(f"reader.end({ledger[-1]!r}, {POLL + LONGEST + ROOM})")
        slowest = max(reader.end() for reader in readers.values())
        faults += [fault for reader in readers.values() for fault in reader.run("errors.texts")]
    history = recall(tmp_path)
    eyes = ("adopted", "thread 0", "thread 1")
    verdict = check(ledger, history, [f"{name}, {eye}" for name in readers for eye in eyes])
    done = Counter(word for file in tmp_path.glob("*.done") for word in file.read_text().split())
    killed = len(list(tmp_path.glob("writer-*.done"))) - WRITERS
    record_property(
        "summary",
        f"{transport}: {len(ledger)} commits, {killed} writers killed, {mishaps} mishaps,"
        f" {len(history)} states seen, the last one {slowest * 1000:.0f} ms after the end",
    )
    assert not verdict, f"{verdict}; with --randomly-seed={seed}"
    assert faults == []
    # There was something to check.
    assert {way.__name__ for way in stress.Writer.WAYS} - set(done) <= {"die_before", "die_after"}
    assert killed > 0
    assert len(ledger) > 5 * SECONDS
    assert Counter(one.who for one in history)["reader-0, adopted"] > 2 * SECONDS


def befall(stage: Stage, chance: random.Random, until: float) -> int:
    """Let something happen every now and then; how often it has."""
    times = 0
    mishaps = stage.mishaps()
    while mishaps and until - time.monotonic() > 1.5:
        time.sleep(chance.uniform(0.2, 1.5))
        chance.choice(mishaps)()
        times += 1
    return times
