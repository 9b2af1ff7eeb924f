"""How soon other processes have a change, side by side with the raw mechanism in the same run.

Run ``python benchmarks/propagation.py`` from the repository's root; it starts a PostgreSQL and a
Valkey of its own. Latency is from the moment before the writer's COMMIT, or before a bare NOTIFY or
PUBLISH, to the moment at which the other process holds the value, or the message. Each trial is one
change and then silence; the poll is out of the way of the transports that push, so that a lost
notification would be seen. The exit code is 1 if one of the figures that the project promises is
missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import django

from tests.processes import Process, manage
from tests.servers import PostgresServer, RedisServer

#: Seconds after which a change counts as lost.
LOST = 5.0

#: Seconds between two polls where the poll is what is measured.
INTERVAL = 0.1

#: Seconds after its first change, or read, by which a process has looked at the history once.
LOOKED_BACK = 32

#: So long that the poll brings nothing.
NEVER = 100_000

#: In the reader: note when a snapshot has been published, without disturbing what publishes it.
OBSERVE = """
import threading
from siteconfig.config_manager import ConfigManager as Manager
seen = {}
published = threading.Condition()
publish = Manager._publish
def observed(self, snapshot, generation):
    result = publish(self, snapshot, generation)
    if result:
        moment = time.monotonic()
        with published:
            seen[snapshot.timeout] = moment
            published.notify()
    return result
Manager._publish = observed
def when(value, patience):
    with published:
        published.wait_for(lambda: value in seen, patience)
        return seen.pop(value, None)
_ = config.timeout
"""

#: In the writer.
COMMIT = """
def change(value):
    with transaction.atomic():
        config.set_setting("timeout", value)
        moment = time.monotonic()
    return moment
"""

#: A round of the raw mechanism: the one process says something, the other hears it and answers,
#: the first hears that. ``tell`` gives the moments of saying and of hearing the answer.
BARE_POSTGRES = """
import select, psycopg
connection = psycopg.connect(os.environ["BARE"], autocommit=True)
arrived = []  # along with the answer to a statement
connection.add_notify_handler(arrived.append)
def listen(channel):
    connection.execute(f"LISTEN {channel}")
def say(channel):
    connection.execute("SELECT pg_notify(%s, 'x')", [channel])
def hear():
    while not (arrived or connection.pgconn.notifies()):
        select.select([connection.pgconn.socket], [], [], 5)
        connection.pgconn.consume_input()
    arrived.clear()
    return time.monotonic()
"""
BARE_REDIS = """
import redis
client = redis.Redis.from_url(os.environ["BARE"])
subscriber = client.pubsub(ignore_subscribe_messages=True)
def listen(channel):
    subscriber.subscribe(channel)
    subscriber.get_message(timeout=1)
def say(channel):
    client.publish(channel, "x")
def hear():
    while not subscriber.get_message(timeout=5):
        pass
    return time.monotonic()
"""
#: What an idle process does on SQLite, without this app.
BARE_SQLITE = """
import sqlite3, threading
def ask():
    connection = sqlite3.connect(connection_name)
    connection.execute("SELECT * FROM siteconfig_siteconfiguration").fetchall()
    bell = threading.Lock()
    bell.acquire()
    while not bell.acquire(timeout=0.1):
        connection.execute("PRAGMA data_version").fetchall()
connection_name = connection.settings_dict["NAME"]
threading.Thread(target=ask, daemon=True).start()
"""
ANSWER = """
def answer():
    heard = hear()
    say("first")
    return heard
listen("second")
"""
TELL = """
def tell():
    moment = time.monotonic()
    say("second")
    return moment, hear()
listen("first")
"""


class Bench:
    def __init__(self, stack: ExitStack, trials: int) -> None:
        self.stack, self.trials = stack, trials
        self.server = stack.enter_context(PostgresServer())
        self.redis = stack.enter_context(RedisServer())
        self.kept = True
        self.server.create_database("site")
        self.postgres = {"default": self.server.django("site")}
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        self.sqlite = {
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": f"{folder}/db.sqlite3",
                "OPTIONS": {
                    "transaction_mode": "IMMEDIATE",
                    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
                },
            }
        }
        for databases in (self.postgres, self.sqlite):
            manage({"DATABASES": databases}, "migrate", "-v0")

    def process(self, databases: Any, **siteconfig: Any) -> Process:
        settings = {"DATABASES": databases, "SITECONFIG": siteconfig}
        return self.stack.enter_context(Process(settings))

    # Latency

    def bare(self, url: str, mechanism: str) -> tuple[list[float], list[float]]:
        """Milliseconds from one process to another without this app: one way, and rounds."""
        with ExitStack() as stack:
            second, first = (
                stack.enter_context(Process({"DATABASES": self.sqlite}, BARE=url)) for _ in range(2)
            )
            for process, part in ((second, ANSWER), (first, TELL)):
                process.run(mechanism)
                process.run(part)
            ways, rounds = [], []
            for _ in range(self.trials):
                second.begin("answer()")
                time.sleep(random.uniform(0.001, 0.025))  # noqa: S311 - guards nothing
                told, answered = first.run("tell()")
                ways.append((second.end() - told) * 1000)
                rounds.append((answered - told) * 1000)
        return ways, rounds

    def ours(self, databases: Any, **siteconfig: Any) -> list[float | None]:
        """Milliseconds of each change from one process to another; None: it was lost."""
        with ExitStack() as stack:
            settings = {"DATABASES": databases, "SITECONFIG": siteconfig}
            reader, writer = (stack.enter_context(Process(settings)) for _ in range(2))
            reader.run(OBSERVE)
            writer.run(COMMIT)
            time.sleep(1)  # the watcher subscribes, and looks once more
            rounds: list[float | None] = []
            for number in range(self.trials):
                value = 1 + number % 300
                reader.run(f"seen.pop({value}, None)")
                reader.begin(f"when({value}, {LOST})")
                time.sleep(random.uniform(0.001, 0.025))  # noqa: S311 - the end of the last one
                told = writer.run(f"change({value})")
                seen = reader.end()
                rounds.append(None if seen is None else (seen - told) * 1000)
                if seen is None:
                    reader.run("config.reload() and None")
        return rounds

    def report(self, name: str, rounds: list[Any], bare: list[float] | None = None) -> float:
        there = sorted(one for one in rounds if one is not None)
        lost = len(rounds) - len(there)
        median = statistics.median(there)
        p99 = there[int(len(there) * 0.99)]
        line = f"{name:34}{median:9.2f}{p99:9.2f}{there[-1]:9.2f}{lost:6}"
        if bare is not None:
            ratio = median / statistics.median(bare)
            line += f"   {ratio:.1f} of a bare round (promised: 3)"
            self.promise(ratio <= 3 and p99 < 50 and not lost)
        print(line, flush=True)
        return median

    def promise(self, kept: bool) -> None:
        self.kept &= kept

    def latency(self) -> None:
        print(f"\nmilliseconds, {self.trials} quiet trials each")
        print(f"{'':34}{'median':>9}{'p99':>9}{'max':>9}{'lost':>6}")
        for name, url, mechanism, siteconfig in (
            ("LISTEN/NOTIFY", self.server.url("site"), BARE_POSTGRES, {"TRANSPORT": "postgres"}),
            (
                *("Redis pub/sub", self.redis.url, BARE_REDIS),
                {"TRANSPORT": "redis", "REDIS_URL": self.redis.url},
            ),
        ):
            ways, rounds = self.bare(url, mechanism)
            self.report(f"bare {name}, one way", ways)
            self.report(f"bare {name}, a round", rounds)
            changes = self.ours(self.postgres, POLL_INTERVAL=NEVER, **siteconfig)
            self.report(f"transport {siteconfig['TRANSPORT']!r}", changes, rounds)
        for name, databases in (("PostgreSQL", self.postgres), ("SQLite", self.sqlite)):
            rounds = self.ours(databases, TRANSPORT="poll", POLL_INTERVAL=INTERVAL)
            self.report(f"poll, each {INTERVAL * 1000:.0f} ms, {name}", rounds)
            longest = max(LOST * 1000 if one is None else one for one in rounds)
            self.promise(longest <= 1.2 * INTERVAL * 1000)
            print(f"{'':34}longest: {longest / INTERVAL / 1000:.2f} intervals (promised: 1.2)")

    # What it costs

    def idle(self) -> None:
        print("\nan idle process, 20 s, half a minute after its first read")
        for name, databases in (("PostgreSQL", self.postgres), ("SQLite", self.sqlite)):
            process = self.process(databases)
            process.run("_ = config.timeout")
            time.sleep(LOOKED_BACK)
            self.report_share(name, process)
            if databases is self.postgres:
                connections = self.connections()
                self.promise(connections == 1)
                print(f"{'':34}{connections:9} connection")
                self.server.stop()
                time.sleep(LOOKED_BACK)
                self.report_share("PostgreSQL, which is away", process)
                self.server.start()
            process.kill()
            self.settle(0)
        process = self.process(self.sqlite)
        process.run(BARE_SQLITE)
        self.report_share("a thread that only asks SQLite", process, promised=False)
        process.kill()

    def report_share(self, name: str, process: Process, *, promised: bool = True) -> None:
        before = cpu_seconds(process.pid)
        time.sleep(20)
        share = (cpu_seconds(process.pid) - before) / 20
        print(
            f"{name:34}{share:9.3%} of a core{' (promised: 0.2 %)' if promised else ''}", flush=True
        )
        self.promise(share < 0.002 or not promised)

    def database_cost(self) -> None:
        print("\nwhat one change costs PostgreSQL, transport postgres, by the number of processes")
        print(f"{'':34}{'CPU ms':>9}{'and fleet':>11}{'the last has it, ms':>21}")
        costs = {}
        for count in (1, 10, 50):
            costs[count], latest = self.cost_of_a_change(count, FLEET=False)
            with_fleet, _latest = self.cost_of_a_change(count, FLEET=True)
            print(f"{count:34}{costs[count]:9.2f}{with_fleet:11.2f}{latest:21.1f}", flush=True)
        one = (costs[50] - costs[1]) / 49
        print(f"one process more: {one:.3f} ms of the database's CPU time; so, by arithmetic,")
        for count in (100, 1_000, 10_000):
            print(f"{count:34,}{one * count:9.0f}   a change, and about as much each poll")

    def cost_of_a_change(self, count: int, **siteconfig: Any) -> tuple[float, float]:
        """The server's CPU milliseconds per change, and the median until the last one has it."""
        changes = 20
        common = {"POLL_INTERVAL": NEVER, **siteconfig}
        with ExitStack() as stack:
            settings = {"DATABASES": self.postgres, "SITECONFIG": common}
            writer, *readers = (stack.enter_context(Process(settings)) for _ in range(count + 1))
            for reader in readers:
                reader.begin(OBSERVE)
            for reader in readers:
                reader.end()
            writer.run(COMMIT)
            writer.run("_ = config.timeout")
            self.settle(count + 1)
            writer.run("change(100)")
            time.sleep(LOOKED_BACK)
            before, latest = self.server_cpu(), []
            for value in range(101, 101 + changes):
                told = writer.run(f"change({value})")
                for reader in readers:
                    reader.begin(f"when({value}, {LOST})")
                latest.append(max(reader.end() or LOST for reader in readers) - told)
            time.sleep(0.5)
            cost = (self.server_cpu() - before) / changes
        self.settle(0)
        return cost * 1000, statistics.median(latest) * 1000

    def server_cpu(self) -> float:
        """Seconds of CPU time that the server's processes have had."""
        rows = self.server.execute("SELECT pid FROM pg_stat_activity")
        return sum(cpu_seconds(pid) for (pid,) in rows)

    def connections(self) -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'site'"
        return int(self.server.execute(query)[0][0])

    def settle(self, connections: int) -> None:
        """Wait until there are that many connections, or only so many are left."""
        deadline = time.monotonic() + 30
        before = -1
        while (now := self.connections()) != before or (connections and now < connections):
            before = now
            if time.monotonic() > deadline:
                raise SystemExit(f"There are {now} connections, not {connections}.")
            time.sleep(1)


def cpu_seconds(pid: int) -> float:
    """By the scheduler's nanoseconds where the system tells them, else by its ticks."""
    try:
        threads = list(Path(f"/proc/{pid}/task").glob("*/schedstat"))
        if nanoseconds := sum(int(one.read_text().split()[0]) for one in threads):
            return nanoseconds / 1e9
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    print(
        f"CPython {platform.python_version()}, Django {django.__version__}, {os.cpu_count()} cores"
    )
    with ExitStack() as stack:
        bench = Bench(stack, trials)
        bench.latency()
        bench.idle()
        bench.database_cost()
        print(f"\nevery promise was kept: {'yes' if bench.kept else 'NO'}")
        return 0 if bench.kept else 1


if __name__ == "__main__":
    sys.exit(main())
