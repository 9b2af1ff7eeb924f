"""One write, then silence: whatever fails at that moment, every process has it within the bound.

Silence, because in a stream of writes a lost one does not show: the next heals it. For each way by
which changes arrive there is a site of its own, with servers of its own, and all run at once; a
round strikes one fault, and writes once, each at a random moment of the same 60 ms.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import count
from math import ceil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pytest

from siteconfig import fleet
from tests.elsewhere import TABLE
from tests.fixtures import needed
from tests.processes import Process
from tests.servers import PostgresServer, Proxy, RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.long

#: How often each fault is to strike a reader; ``make soak`` asks for more.
TRIALS = int(os.environ.get("SITECONFIG_TEST_TRIALS", "10"))

READERS = 4

#: Seconds between two polls: when one is to heal, and when none may.
POLL, NEVER = 0.2, 1000.0

#: Seconds of the first pause after a failure at most, so that writes fall into it, and of the
#: longest one, in the readers: with the half minute that a site
#: has, a bound could not be told from no bound.
FIRST, LONGEST = 0.2, 1.0

#: Seconds that the readers give a database, and a silent Redis, instead of 5 and twice 4.
DEADLINE, PING_AFTER = 0.5, 0.25

#: Seconds for a slow machine, with some 20 processes on two cores, to do what takes milliseconds.
ROOM = 5.0

#: Seconds for which a reader is stopped.
STOP = 2.0


class Fault(NamedTuple):
    """What fails, how often the readers poll then, and within which time they have the value.

    By the clock from when it has been committed, and the fault is over.
    """

    strike: str
    poll: float
    bound: float


#: Nobody says that something was written: it is seen by the next poll.
SILENT = Fault("say_nothing", POLL, POLL + ROOM)

#: It goes on where it was, by what has arrived in its sockets meanwhile, or by the next poll.
STOPPED = Fault("stop", NEVER, ROOM)
STOPPED_AND_POLLED = Fault("stop", POLL, POLL + ROOM)

#: The end of a connection to be told by shows at once, and its successor begins with a look, after
#: pauses of up to LONGEST; the poll finds out about one that is only read through.
KILLED = Fault("kill", NEVER, LONGEST + ROOM)
KILLED_AND_POLLED = Fault("kill", POLL, POLL + LONGEST + ROOM)

#: The same; and who connects just before the server goes is heard by nobody any more, which libpq
#: is given 5 s to find out.
RESTARTED = Fault("restart", NEVER, 5 + LONGEST + ROOM)
RESTARTED_AND_POLLED = Fault("restart", POLL, POLL + 5 + LONGEST + ROOM)

#: The poll's look gets no answer for DEADLINE, nor does what else was under way; or, if it was to
#: connect, within the 5 s that libpq is given for that. Then comes another connection.
FROZEN = Fault("freeze", POLL, POLL + 5 + LONGEST + ROOM)

#: Redis is not what the row is read through: a poll sees the value.
REDIS_KILLED = Fault("kill_redis", POLL, POLL + ROOM)
REDIS_RESTARTED = Fault("restart_redis", POLL, POLL + ROOM)
REDIS_FROZEN = Fault("freeze_redis", POLL, POLL + ROOM)

#: With the figures that a site has: found out, and put right, within 10 s.
FROZEN_ON_A_SITE = Fault("freeze_as_on_a_site", 1.0, 10.0)

#: Which file there is is looked at once a second.
REPLACED = Fault("replace", POLL, 1 + POLL + LONGEST + ROOM)

FAULTS: dict[str, dict[str, Fault]] = {
    "postgres": {
        "silent": SILENT,
        "stopped": STOPPED,
        "killed": KILLED,
        "restarted": RESTARTED,
        "frozen": FROZEN,
        "frozen as on a site": FROZEN_ON_A_SITE,
    },
    "redis": {
        "silent": SILENT,
        "stopped": STOPPED,
        "killed": REDIS_KILLED,
        "restarted": REDIS_RESTARTED,
        "frozen": REDIS_FROZEN,
        "frozen as on a site": FROZEN_ON_A_SITE,
        "database killed": KILLED,
        "database restarted": RESTARTED,
        "database frozen": FROZEN,
    },
    "poll": {
        "silent": SILENT,
        "stopped": STOPPED_AND_POLLED,
        "killed": KILLED_AND_POLLED,
        "restarted": RESTARTED_AND_POLLED,
        "frozen": FROZEN,
        "frozen as on a site": FROZEN_ON_A_SITE,
    },
    "sqlite": {
        "silent": SILENT,
        "stopped": STOPPED_AND_POLLED,
        "replaced": REPLACED,
    },
}


class Outcome:
    """What a fault's rounds have shown.

    Attributes:
        latencies: seconds from the commit, or the end of the fault, to each struck reader's sight
            of the value.
        failures: what was not as it should be.
    """

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.rounds = 0
        self.latencies: list[float] = []
        self.failures: list[str] = []

    def __str__(self) -> str:
        low, high = median(self.latencies or [0]), max(self.latencies, default=0)
        return (
            f"{len(self.latencies)} faults in {self.rounds} rounds: median {low * 1000:.0f} ms,"
            f" worst {high * 1000:.0f} ms, bound {self.fault.bound * 1000:.0f} ms"
        )


LIVE = "[one.pid for one in report(SiteConfiguration).processes if one.is_live]"


class Site:
    """The processes and servers of one site, and what can befall them."""

    transport = "poll"

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self.numbers = count(1)
        self.value = ""
        self.readers: list[Process] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.start(stack)
            self.writer = stack.enter_context(Process(self.settings()))
            self.writer.run(
                "from django.core.management import call_command\n"
                "call_command('migrate', 'siteconfig', verbosity=0)"
            )
            for number in range(READERS):
                process = Process(self.settings(number))
                self.readers.append(stack.enter_context(process))
            for reader in self.readers:
                reader.begin(
                    "from siteconfig import backoff, connections\n"
                    "from siteconfig.transports import redis\n"
                    "defaults = connections.DEADLINE, redis.PING_AFTER\n"
                    f"backoff.FIRST, backoff.LONGEST = {FIRST}, {LONGEST}\n"
                    "_ = config.timeout"
                )
            for reader in self.readers:
                reader.end()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    # What differs from site to site

    def start(self, stack: ExitStack) -> None:
        """Start the servers."""
        raise NotImplementedError

    def settings(self, number: int | None = None) -> dict[str, Any]:
        """Of a reader's process; None: the writer's."""
        raise NotImplementedError

    def execute(self, statement: str) -> None:
        """Commit raw SQL."""
        raise NotImplementedError

    # A round

    def prepare(self, fault: Fault) -> None:
        """Let the readers be as they are to be when this fault strikes."""
        is_as_on_a_site = fault is FROZEN_ON_A_SITE
        limits = "defaults" if is_as_on_a_site else f"{DEADLINE}, {PING_AFTER}"
        for reader in self.readers:
            reader.run(f"connections.DEADLINE, redis.PING_AFTER = {limits}")
            reader.run(f"tune(POLL_INTERVAL={fault.poll})")

    def round(self, fault: Fault, outcome: Outcome) -> None:
        """Strike once, write once, and note who has seen it when."""
        outcome.rounds += 1
        self.value = f"{fault.strike} {next(self.numbers)}"
        for reader in self.readers:
            reader.begin(f"wait_for({self.value!r}, 'site_name', {fault.bound + 3 * ROOM})")
        with ThreadPoolExecutor(2) as pool:
            strike = pool.submit(self.strike, fault)
            # One time as it strikes, the other time while its victims pick themselves up.
            is_after = fault is FROZEN_ON_A_SITE or self.random.random() < 0.5
            write = pool.submit(self.write, fault, strike if is_after else None)
            errors = [error for one in (strike, write) if (error := one.exception())]
        outcome.failures += [f"{self.value!r}: {error}" for error in errors]
        for number, reader in enumerate(self.readers):
            try:
                seen = reader.end(fault.bound + 4 * ROOM)
            except AssertionError as error:
                outcome.failures.append(f"{self.value!r}: {error}")
                continue
            if errors:
                continue
            over = strike.result()
            latency = max(0.0, seen - max(write.result(), over.get(number, 0.0)))
            if latency > fault.bound:
                outcome.failures.append(f"{self.value!r}: seen after {latency:.3f} s")
            if number in over:
                outcome.latencies.append(latency)

    def strike(self, fault: Fault) -> dict[int, float]:
        """Let it happen; the readers that it has happened to, and when it was over for each."""
        number = READERS if fault.strike == "stop" else self.random.randint(1, READERS)
        struck = self.random.sample(range(READERS), number)
        time.sleep(self.random.uniform(0, 0.06))
        numbers = getattr(self, fault.strike)(struck)
        return dict.fromkeys(range(READERS) if numbers is None else numbers, time.monotonic())

    def write(self, fault: Fault, strike: Future[Any] | None) -> float:
        """Write the value; when that was committed."""
        if fault in (SILENT, REPLACED):
            return 0.0  # the fault does it
        if strike and fault.strike != "stop":
            strike.exception()  # once it has ended
        time.sleep(self.random.uniform(0, 0.06))
        written: float = self.writer.run(f"write({self.value!r}, 'site_name')")
        return written

    def recover(self) -> None:
        """After each round: nothing stays in the way of the next one."""

    def remains(self) -> list[str]:
        """What is not as it should be when all is over."""
        faults = [text for reader in self.readers for text in reader.run("errors.texts")]
        self.writer.run("from siteconfig.fleet import report")
        pids = {process.pid for process in (self.writer, *self.readers)}
        # Who could not note itself tries again, after pauses that may become longer than others.
        deadline = time.monotonic() + fleet.LONGEST_PAUSE * LONGEST + ROOM
        while missing := pids - set(self.writer.run(LIVE)):
            if time.monotonic() > deadline:
                faults.append(f"{missing} are not in the fleet view")
                break
            time.sleep(0.05)
        return faults

    # Faults

    def say_nothing(self, struck: list[int]) -> None:
        """Nobody is told of the write."""
        self.execute(f"UPDATE {TABLE} SET site_name = '{self.value}'")

    def stop(self, struck: list[int]) -> list[int]:
        """Readers do not run for a while."""
        for number in struck:
            self.readers[number].signal(signal.SIGSTOP)
        time.sleep(STOP)
        for number in struck:
            self.readers[number].signal(signal.SIGCONT)
        return struck


class PostgresSite(Site):
    def start(self, stack: ExitStack) -> None:
        self.server = stack.enter_context(PostgresServer())
        self.proxy = stack.enter_context(Proxy(self.server.host, self.server.port))

    def settings(self, number: int | None = None) -> dict[str, Any]:
        database = self.server.django(application_name=f"reader {number}")
        if number is not None:
            database |= {"HOST": self.proxy.host, "PORT": self.proxy.port}
        return {
            "DATABASES": {"default": database},
            "SITECONFIG": {"POLL_INTERVAL": POLL, "TRANSPORT": self.transport},
        }

    def execute(self, statement: str) -> None:
        self.server.execute(statement)

    def recover(self) -> None:
        self.proxy.thaw()

    def kill(self, struck: list[int]) -> list[int]:
        """The server ends readers' connections."""
        names = [f"reader {number}" for number in struck]
        self.server.terminate_backends("application_name = ANY(%s)", [names])
        return struck

    def restart(self, struck: list[int]) -> None:
        """The server is restarted, in order or as after a crash."""
        self.server.restart(self.random.choice(["fast", "immediate"]))

    def freeze(self, struck: list[int]) -> None:
        """The readers' connections carry nothing any more."""
        self.proxy.freeze()

    freeze_as_on_a_site = freeze


class ListeningSite(PostgresSite):
    transport = "postgres"


class RedisSite(PostgresSite):
    transport = "redis"

    def start(self, stack: ExitStack) -> None:
        super().start(stack)
        self.redis = stack.enter_context(RedisServer())
        self.redis_proxy = stack.enter_context(Proxy(self.redis.host, self.redis.port))

    def settings(self, number: int | None = None) -> dict[str, Any]:
        settings = super().settings(number)
        url = self.redis.url
        if number is not None:
            url = url.replace(str(self.redis.port), str(self.redis_proxy.port))
        settings["SITECONFIG"]["REDIS_URL"] = f"{url}?client_name=reader-{number}"
        return settings

    def recover(self) -> None:
        super().recover()
        self.redis_proxy.thaw()

    def subscribers(self) -> list[set[str]]:
        """For each reader the connections by which it has subscribed, as the server counts them."""
        with self.redis.client(socket_timeout=ROOM * 6) as client:  # a machine may be busy
            clients = client.client_list(_type="pubsub")
        return [
            {client["id"] for client in clients if client["name"] == f"reader-{number}"}
            for number in range(READERS)
        ]

    def kill_redis(self, struck: list[int]) -> list[int]:
        """Redis ends readers' connections."""
        subscribers = self.subscribers()
        with self.redis.client() as client:
            for number in struck:
                for one in subscribers[number]:
                    client.client_kill_filter(_id=one)
        return struck

    def restart_redis(self, struck: list[int]) -> None:
        """Redis is restarted, in order or as after a crash."""
        self.redis.restart(self.random.choice(["fast", "immediate"]))

    def freeze_redis(self, struck: list[int]) -> None:
        """The readers' connections to Redis carry nothing any more."""
        self.redis_proxy.freeze()

    def freeze_as_on_a_site(self, struck: list[int]) -> None:
        """The same, and each has noticed, and subscribed by another connection, in time."""
        before = self.subscribers()
        frozen_at = time.monotonic()
        self.redis_proxy.freeze()
        while not all(self.subscribers()[number] - before[number] for number in range(READERS)):
            assert time.monotonic() < frozen_at + FROZEN_ON_A_SITE.bound, "It was not noticed."
            time.sleep(0.05)


class SQLiteSite(Site):
    def start(self, stack: ExitStack) -> None:
        self.path = Path(stack.enter_context(TemporaryDirectory()), "site.sqlite3")

    def settings(self, number: int | None = None) -> dict[str, Any]:
        database = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(self.path),
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL",
            },
        }
        return {"DATABASES": {"default": database}, "SITECONFIG": {"POLL_INTERVAL": POLL}}

    def execute(self, statement: str) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute(statement)

    def replace(self, struck: list[int]) -> None:
        """Another file takes the database's place, as when a backup is restored; then the write."""
        self.writer.run("connection.close()")
        backup = self.path.with_name("backup")
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("VACUUM INTO ?", [str(backup)])
        for ending in ("-wal", "-shm"):  # what belongs to the old file
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        backup.rename(self.path)
        time.sleep(self.random.uniform(0, 0.06))
        self.say_nothing(struck)


SITES = {
    "postgres": ListeningSite,
    "redis": RedisSite,
    "poll": PostgresSite,
    "sqlite": SQLiteSite,
}


class Campaign:
    """All rounds of the faults that tests ask for, the sites at the same time."""

    def __init__(self, wanted: dict[str, list[str]], seed: int) -> None:
        self.seed = seed
        self.is_over = False
        self.outcomes: dict[tuple[str, str], Future[Outcome]] = {
            (transport, name): Future() for transport in wanted for name in wanted[transport]
        }
        self.remains: dict[str, Future[list[str]]] = {transport: Future() for transport in wanted}

    def run(self, transport: str, names: list[str]) -> None:
        futures = [self.outcomes[transport, name] for name in names]
        remains = self.remains[transport]
        try:
            with SITES[transport](f"{self.seed} {transport}") as site:
                for name, future in zip(names, futures, strict=True):
                    future.set_result(self.befall(site, FAULTS[transport][name]))
                remains.set_result(site.remains())
        except BaseException as error:  # noqa: BLE001 - each test that waits is to see it
            waited_for: list[Future[Any]] = [*futures, remains]
            for one in waited_for:
                if not one.done():
                    one.set_exception(error)

    def befall(self, site: Site, fault: Fault) -> Outcome:
        """Let a fault strike until it has struck often enough, or shown something."""
        outcome = Outcome(fault)
        trials = ceil(TRIALS / 100) if fault is FROZEN_ON_A_SITE else TRIALS
        site.prepare(fault)
        while len(outcome.latencies) < trials and not outcome.failures:
            if self.is_over:
                raise AssertionError("The tests have ended before.")
            site.round(fault, outcome)
            site.recover()
        return outcome


ALL = [(transport, name) for transport, faults in FAULTS.items() for name in faults]


@pytest.fixture(scope="module")
def campaign(request: pytest.FixtureRequest) -> Iterator[Campaign]:
    """It has begun with the first of its tests."""
    asked = {
        (item.callspec.params["transport"], item.callspec.params.get("name"))
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
    }
    wanted = {
        transport: [name for name in faults if (transport, name) in asked]
        for transport, faults in FAULTS.items()
        if any(transport == one for one, _name in asked)
    }
    campaign = Campaign(wanted, request.config.getoption("randomly_seed", 0))
    with ThreadPoolExecutor(len(wanted)) as pool:
        for transport, names in wanted.items():
            pool.submit(campaign.run, transport, names)
        yield campaign
        campaign.is_over = True


@pytest.mark.parametrize(("transport", "name"), ALL)
def test_one_write(
    campaign: Campaign,
    transport: str,
    name: str,
    record_property: Callable[[str, object], None],
) -> None:
    """Every process has it within the bound, whether the fault strikes before or after it."""
    with needed():
        outcome = campaign.outcomes[transport, name].result()
    record_property("summary", f"{transport}, {name}: {outcome}")
    assert outcome.failures == [], f"{outcome}; with --randomly-seed={campaign.seed}"


@pytest.mark.parametrize("transport", FAULTS)
def test_afterwards(campaign: Campaign, transport: str) -> None:
    """No process has reported a fault of its own, and the fleet view has all, up to date."""
    with needed():
        assert campaign.remains[transport].result() == []
