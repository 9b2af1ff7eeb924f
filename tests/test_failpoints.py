"""Interleavings of load, install, notify, commit, fork and disconnect, each made to happen.

The watcher runs in this process, with a poll so rare that nothing is found by it, unless a test is
about the poll. "Elsewhere" is a plain connection, or a forked child.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from math import inf
from pathlib import Path
from select import select
from threading import Event, current_thread
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, ProgrammingError, connection, connections, transaction
from django.db.utils import ConnectionHandler
from django.test.utils import CaptureQueriesContext

from siteconfig import backoff, config, transports
from siteconfig import connections as own_connections
from siteconfig import watcher as watcher_module
from siteconfig.config_manager import ConfigManager
from siteconfig.fleet import Member, report
from siteconfig.models import ConfigProcess, SiteConfiguration
from siteconfig.row import RowReader
from siteconfig.testing import run_watcher
from siteconfig.transports import postgres as postgres_transport
from siteconfig.transports import redis as redis_transport
from siteconfig.transports.base import CHANNEL
from siteconfig.transports.polling import SQLitePolling
from siteconfig.transports.postgres import Postgres as PostgresTransport
from siteconfig.transports.redis import Redis as RedisTransport
from siteconfig.watcher import Link, watcher
from tests.concurrency import PATIENCE, Failpoint, Started, in_child, in_thread, wait_until
from tests.elsewhere import (
    LABEL,
    TABLE,
    Elsewhere,
    ElsewhereByNotify,
    ElsewhereByRedis,
    ElsewhereOnPostgres,
    ElsewhereOnSQLite,
    backend_pid,
    default_database,
)
from tests.fixtures import needed
from tests.servers import PgBouncer, Proxy
from tests.test_receivers import receiving
from tests.testapp.models import ShopConfig, Warehouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_django.fixtures import Settings
    from pytest_django.plugin import DjangoDbBlocker

    from tests.concurrency import Changes
    from tests.servers import Postgres

pytestmark = pytest.mark.long

#: Seconds between two polls when nothing is to be found by one.
NEVER = 1000

DATABASE = f"failpoints_{os.getpid()}"

ON_SQLITE = pytest.param("sqlite", marks=pytest.mark.django_db(transaction=True))


@pytest.fixture(scope="module")
def database(postgres: Postgres, django_db_blocker: DjangoDbBlocker) -> Iterator[Postgres]:
    """A server with a database for these tests."""
    postgres.create_database(DATABASE)
    with django_db_blocker.unblock(), default_database(postgres.django(DATABASE)):
        call_command("migrate", "siteconfig", verbosity=0)
    yield postgres
    postgres.drop_database(DATABASE)


@pytest.fixture
def on_postgres(database: Postgres, django_db_blocker: DjangoDbBlocker) -> Iterator[Postgres]:
    """The settings are in PostgreSQL, and at their defaults."""
    with django_db_blocker.unblock(), default_database(database.django(DATABASE)):
        SiteConfiguration.objects.all().delete()
        SiteConfiguration.objects.bulk_create([SiteConfiguration()])
        config.reset()
        yield database
        config.reset()


@pytest.fixture
def elsewhere(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Elsewhere]:
    """Where the transport that the test names leads to; the settings are at their defaults."""
    one: Elsewhere
    if request.param == "sqlite":
        one = ElsewhereOnSQLite(str(connection.settings_dict["NAME"]))
    else:
        server: Postgres = request.getfixturevalue("on_postgres")
        if request.param == "poll":
            one = ElsewhereOnPostgres(server, DATABASE)
        elif request.param == "postgres":
            one = ElsewhereByNotify(server, DATABASE)
        else:
            one = ElsewhereByRedis(server, DATABASE, request.getfixturevalue("redis_server"))
    settings.SITECONFIG = {"POLL_INTERVAL": NEVER, "FLEET": False, **one.settings}
    with closing(one):
        yield one
    wait_until(lambda: not config._state.telling)


def through(*names: Any) -> pytest.MarkDecorator:
    """Run a test with each of these transports."""
    return pytest.mark.parametrize("elsewhere", names, indirect=True)


def held() -> int | None:
    """What readers are given, without a read that would look for itself."""
    committed = config._state.committed
    return committed.timeout if committed else None


def look_at(link: Link) -> None:
    """Let the poll be due now, and wait for nothing."""
    link._poll_at = -inf
    watcher.ensure(SiteConfiguration)  # wakes it


def arrives(value: int) -> None:
    """Wait until the watcher has adopted this value."""
    wait_until(lambda: held() == value)


def arrives_by_a_poll(link: Link, value: int) -> None:
    """The same, with one poll after the other."""

    def is_held() -> bool:
        look_at(link)
        return held() == value

    wait_until(is_held)


@contextmanager
def around(
    owner: Any,  # a class or a module
    name: str,
    *,
    before: Callable[[], object] = int,
    after: Callable[[], object] = int,
) -> Iterator[list[str]]:
    """A failpoint: the first call of a method is preceded and followed by these.

    Gives a list that gets an item, the name of the thread, with each call.
    """
    original = owner.__dict__[name]
    calls: list[str] = []

    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(current_thread().name)
        is_first = len(calls) == 1
        if is_first:
            before()
        result = original(self, *args, **kwargs)
        if is_first:
            after()
        return result

    setattr(owner, name, wrapper)
    try:
        yield calls
    finally:
        setattr(owner, name, original)


class Stepped:
    """A link of the watcher that moves when the test says so, in a thread of its own."""

    def __init__(self) -> None:
        transport = transports.choose("default")
        assert transport is not None
        self.link = Link("default", transport("default"))
        self.link.adopt(config)

    def step(self) -> None:
        """Do once what is due; a pause after a failure is slept through."""
        sleep(max(0.0, self.link._backoff.until - monotonic()))
        self.do(partial(self.link.tend, 1))

    def settle(self) -> None:
        """Do all that is due at once."""
        deadline = monotonic() + PATIENCE
        self.step()
        while (left := self.link.due_at() - monotonic()) < 1:
            assert monotonic() < deadline
            sleep(max(0.0, left))
            self.step()

    def do(self, call: Callable[[], Any]) -> Any:
        """What a call returns in the thread."""
        return self._pool.submit(call).result(PATIENCE)

    def __enter__(self) -> Stepped:
        self._pool = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *error: object) -> None:
        config._watched_by(None)
        self.do(self.link.close)
        self.do(connections.close_all)
        self._pool.shutdown()


@pytest.fixture
def stepped(elsewhere: Elsewhere) -> Iterator[Stepped]:
    """A link that has not begun yet."""
    with Stepped() as one:
        yield one


@pytest.fixture
def link(elsewhere: Elsewhere) -> Iterator[Link]:
    """The link of the watcher, which runs in its thread, and has looked at the row."""
    with run_watcher():
        yield begin()


def begin() -> Link:
    """Start the watcher by a read; its link, once it listens and has looked at the row."""
    _ = config.timeout
    wait_until(lambda: "default" in watcher.links and watches(watcher.links["default"]))
    return watcher.links["default"]


def watches(link: Link) -> bool:
    """Whether it listens, and has looked at the row since it began to."""
    looked_at, seen_at = link._looked_at, config._state.seen_at
    return link.transport.error is None and seen_at is not None and seen_at > looked_at > -inf


@contextmanager
def heard_by(elsewhere: Elsewhere) -> Iterator[Callable[[], str]]:
    """What another listener hears: a call gives the next message."""
    if isinstance(elsewhere, ElsewhereByRedis):
        with elsewhere.client.pubsub(ignore_subscribe_messages=True) as pubsub:
            pubsub.subscribe(CHANNEL)
            pubsub.get_message(timeout=PATIENCE)  # that it has subscribed

            def hear() -> str:
                message = pubsub.get_message(timeout=PATIENCE)
                assert message
                return message["data"].decode()

            yield hear
    else:
        assert isinstance(elsewhere, ElsewhereByNotify)
        with elsewhere.server.connect(DATABASE) as listener:
            listener.execute(f"LISTEN {CHANNEL}")
            yield lambda: next(listener.notifies(timeout=PATIENCE, stop_after=1)).payload


def say(elsewhere: Elsewhere, text: str) -> str:
    """Tell all listeners something."""
    if isinstance(elsewhere, ElsewhereByRedis):
        elsewhere.client.publish(CHANNEL, text)
    else:
        elsewhere.execute(f"SELECT pg_notify('{CHANNEL}', %s)", text)
    return text


class TestListenAndRead:
    """Whatever is committed while the watcher begins to listen is seen, with no poll."""

    @through("postgres", "redis", ON_SQLITE)
    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_a_commit_as_it_begins(
        self, elsewhere: Elsewhere, stepped: Stepped, moment: str
    ) -> None:
        """Before it listens, or between that and the first look: nobody will tell of it again."""
        transport = type(stepped.link.transport)
        assert config.timeout == 30
        with around(transport, "open", **{moment: lambda: elsewhere.commit(45)}):
            stepped.step()
        assert held() == 45

    @through("postgres", "redis")
    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_a_commit_as_it_begins_again(
        self, elsewhere: Elsewhere, stepped: Stepped, moment: str
    ) -> None:
        """The same with a connection that replaces one that was lost."""
        stepped.settle()
        elsewhere.disconnect(stepped.link)
        stepped.step()
        listen = "open"
        if isinstance(stepped.link.transport, RedisTransport):
            listen = "_tend"
            sleep(max(0.0, stepped.link.transport._backoff.until - monotonic()))
        commit = {moment: lambda: elsewhere.commit(45)}
        with around(type(stepped.link.transport), listen, **commit) as calls:
            stepped.settle()
        assert (held(), len(calls)) == (45, 1)

    @through("postgres", "redis")
    @pytest.mark.parametrize("order", ["told, then cut off", "cut off, then told"])
    def test_a_hint_as_the_connection_ends(
        self, elsewhere: Elsewhere, link: Link, order: str
    ) -> None:
        """What was said before the end, and not listened to yet, is as good as what came after."""
        pause = Failpoint()
        with around(Link, "tend", before=pause):
            watcher.ensure(SiteConfiguration)  # wakes it
            assert pause.reached.wait(PATIENCE)
            if order.startswith("told"):
                elsewhere.commit(45)
            elsewhere.disconnect(link)
            if order.endswith("told"):
                elsewhere.commit(45)
            pause.released.set()
            arrives(45)

    @through("postgres")
    def test_a_hint_that_comes_with_the_answer_of_a_look(
        self, elsewhere: Elsewhere, link: Link, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The socket is silent then, and the commit may be of a moment after the look's."""
        # Nothing else is to bring the thread by, seconds later.
        monkeypatch.setattr(link.transport, "_ask_at", inf)
        monkeypatch.setattr(link.subjects[config], "_check_at", inf)

        def tell() -> None:
            elsewhere.announce()
            descriptor = link.fileno()
            assert descriptor is not None
            assert select([descriptor], [], [], PATIENCE)[0]

        with around(RowReader, "stored", before=tell, after=lambda: elsewhere.write(45)) as looks:
            elsewhere.announce()
            arrives(45)
        assert len(looks) == 2

    @through("postgres", "redis")
    def test_a_hint_while_the_row_is_looked_at(self, elsewhere: Elsewhere, link: Link) -> None:
        """A commit after the look, told before the look's end, is looked at next."""
        with around(RowReader, "stored", after=lambda: elsewhere.commit(45)):
            elsewhere.announce()
            arrives(45)

    @through("postgres", "redis")
    def test_a_thousand_hints(
        self, elsewhere: Elsewhere, link: Link, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They are worth a few looks, and the last one sees the last value."""
        monkeypatch.setattr(watcher_module, "SHORTEST_GAP", 0.02)
        begun = monotonic()
        with around(ConfigManager, "_compare") as looks:
            for number in range(1000):
                if number % 100 == 0:
                    elsewhere.write(50 + number // 100)
                elsewhere.announce()
            elsewhere.commit(99)
            arrives(99)
            took = monotonic() - begun
        assert len(looks) <= took / (0.02 - watcher_module.RESOLUTION) + 2

    @through("redis")
    def test_a_subscription_lasts(self, elsewhere: Elsewhere, stepped: Stepped) -> None:
        """It is not closed with the client that made it, to be made anew later: in between is a
        time of which nobody tells."""
        transport = stepped.link.transport
        assert isinstance(transport, RedisTransport)
        assert stepped.do(transport._tend)
        assert transport.fileno() is not None

    @through("redis")
    def test_redis_is_back_before_the_next_poll(
        self, elsewhere: Elsewhere, stepped: Stepped
    ) -> None:
        """The row is looked at as soon as the watcher has subscribed again."""
        stepped.settle()
        elsewhere.disconnect(stepped.link)
        stepped.step()
        assert config.status().transport_error
        elsewhere.commit(45)  # which nobody hears
        transport = stepped.link.transport
        assert isinstance(transport, RedisTransport)
        sleep(max(0.0, transport._backoff.until - monotonic()))
        stepped.settle()
        assert held() == 45


class TestPoll:
    @through("postgres", "redis", "poll", ON_SQLITE)
    def test_a_commit_that_nobody_tells_of(self, elsewhere: Elsewhere, settings: Settings) -> None:
        """As by raw SQL, or by one who is killed right after the commit: it is seen."""
        settings.SITECONFIG = {**settings.SITECONFIG, "POLL_INTERVAL": 0.05}
        with run_watcher():
            begin()
            for value in (45, 46):
                elsewhere.write(value)
                arrives(value)

    @through("poll")
    def test_a_write_of_this_process_is_noted_at_once(
        self, elsewhere: Elsewhere, settings: Settings
    ) -> None:
        """In the fleet view, though the watcher learns nothing new by it."""
        settings.SITECONFIG = {**settings.SITECONFIG, "FLEET": True}
        with run_watcher():
            begin()
            wait_until(lambda: report(SiteConfiguration).live == 1)
            config.set_setting("timeout", 45)
            wait_until(lambda: report(SiteConfiguration).live == 1)

    @through(ON_SQLITE)
    def test_polls_that_find_nothing(self, elsewhere: Elsewhere, settings: Settings) -> None:
        """They ask whether anything was written, and do no more; what is read stays current."""
        settings.SITECONFIG = {**settings.SITECONFIG, "POLL_INTERVAL": 0.02}
        with run_watcher():
            begin()
            with (
                around(SQLitePolling, "may_have_changed") as polls,
                around(watcher_module, "_round") as rounds,
            ):
                wait_until(lambda: len(polls) > 20)
                assert len(rounds) <= 2
            age = config.status().age
            assert age is not None
            assert age < 1
            elsewhere.write(45)
            arrives(45)


class TestUndecoded:
    """What psycopg cannot make a value of spoils its own setting only (G15)."""

    @pytest.fixture
    def shop(self, on_postgres: Postgres) -> Iterator[ConfigManager]:
        """A model with a date and a time, in that database."""
        with connection.schema_editor() as editor:
            editor.create_model(Warehouse)
            editor.create_model(ShopConfig)
        ShopConfig.objects.bulk_create([ShopConfig()])
        manager = ConfigManager(ShopConfig)
        manager.reset()
        yield manager
        manager.reset()
        with connection.schema_editor() as editor:
            editor.delete_model(ShopConfig)
            editor.delete_model(Warehouse)

    def change(self, elsewhere: Elsewhere, **values: str | None) -> None:
        columns = ", ".join(f"{name} = %s" for name in values)
        elsewhere.execute(f"UPDATE testapp_shopconfig SET {columns}", *values.values())
        elsewhere.announce()

    def sells_in(self, shop: ConfigManager, currency: str) -> bool:
        return bool(shop.currency == currency)

    @through("postgres")
    def test_to_a_read(self, elsewhere: Elsewhere, shop: ConfigManager) -> None:
        """It is reported, and stays at the last known value; a save leaves it as it is stored."""
        shop.set_setting("opened", "2026-01-02")
        self.change(elsewhere, opened="infinity", changed="-infinity", currency="CHF")
        shop.reload()
        assert (shop.currency, str(shop.opened)) == ("CHF", "2026-01-02")
        assert shop.status().unreadable == ("changed", "opened")
        assert shop.status().last_error is None
        shop.set_setting("low", 2)
        assert elsewhere.execute("SELECT opened::text FROM testapp_shopconfig") == [("infinity",)]

    @through("postgres")
    def test_to_many_looks(self, elsewhere: Elsewhere, shop: ConfigManager) -> None:
        """Which columns they are is found out once: a row that stays as it is costs one query."""
        self.change(elsewhere, opened="infinity")
        reader = ShopConfig.reader(connection)
        first = reader.stored()
        with around(RowReader, "_fetch") as queries:
            assert [reader.stored() for _ in range(3)] == [first] * 3
        assert len(queries) == 3

    @through("postgres")
    def test_to_the_watcher(self, elsewhere: Elsewhere, shop: ConfigManager) -> None:
        """It goes on looking, and sees when the value is mended."""
        with run_watcher():
            begin()
            _ = shop.currency
            wait_until(lambda: shop.status().age is not None)
            for currency in ("CHF", "USD"):
                self.change(elsewhere, opened="infinity", currency=currency)
                wait_until(partial(self.sells_in, shop, currency))
                assert shop.status().unreadable == ("opened",)
                assert shop.status().last_error is None
            self.change(elsewhere, opened="2026-01-02")
            wait_until(lambda: str(shop.opened) == "2026-01-02")
            assert shop.status().unreadable == ()
            self.change(elsewhere, opened=None, changed="infinity")
            wait_until(lambda: shop.opened is None)
            assert shop.status().unreadable == ("changed",)


class TestLoadAndPublish:
    """What was read before something newer is not published after it."""

    @through(ON_SQLITE, "postgres")
    def test_a_look_that_began_before_a_commit_of_this_process(
        self, elsewhere: Elsewhere, link: Link, changes: Changes
    ) -> None:
        """It has read what is old by the time that it would publish it."""
        pause, ended = Failpoint(), Event()
        elsewhere.write(44)
        with (
            around(ConfigManager, "_compare", after=ended.set),
            around(RowReader, "stored", after=pause),
            around(ConfigManager, "_publish") as tries,
        ):
            look_at(link)
            assert pause.reached.wait(PATIENCE)
            config.set_setting("timeout", 45)
            assert held() == 45
            pause.released.set()
            assert ended.wait(PATIENCE)
        assert sorted(tries) == ["MainThread", "siteconfig-watcher"]
        assert (held(), changes.timeouts) == (45, [(30, 45)])

    @through(ON_SQLITE, "postgres")
    def test_a_commit_of_this_process_that_began_before_a_look(
        self, elsewhere: Elsewhere, link: Link, changes: Changes
    ) -> None:
        """It has been committed; the watcher sees it first; then the commit's own load ends."""
        pause = Failpoint()
        with around(ConfigManager, "_committed", before=pause):
            writer = Started(lambda: config.set_setting("timeout", 45))
            assert pause.reached.wait(PATIENCE)
            look_at(link)
            arrives(45)
            pause.released.set()
            writer.result()
        assert config.timeout == 45
        wait_until(lambda: changes.timeouts == [(30, 45)])

    @through(ON_SQLITE, "postgres")
    def test_a_readers_load_that_began_before_a_look(
        self, elsewhere: Elsewhere, link: Link, changes: Changes
    ) -> None:
        """The reader has read the old row, and the watcher publishes the new one meanwhile."""
        pause = Failpoint()
        with around(RowReader, "stored", after=pause):
            reader = Started(lambda: config.reload().timeout)
            assert pause.reached.wait(PATIENCE)
            elsewhere.write(45)
            look_at(link)
            arrives(45)
            pause.released.set()
            assert reader.result() == 45
        wait_until(lambda: changes.timeouts == [(30, 45)])
        assert config.timeout == 45

    @through(ON_SQLITE, "postgres")
    def test_a_look_inside_an_open_transaction_of_this_process(
        self, elsewhere: Elsewhere, link: Link
    ) -> None:
        """Others see what was committed elsewhere; the transaction sees its own until it ends."""
        elsewhere.write(45)
        with transaction.atomic():
            config.set_setting("retry_count", 5)
            look_at(link)
            arrives(45)
            assert in_thread(lambda: (config.timeout, config.retry_count)) == (45, 3)
            assert config.retry_count == 5
            transaction.set_rollback(True)
        assert (config.timeout, config.retry_count) == (45, 3)

    @through(ON_SQLITE, "postgres")
    def test_a_lower_version(self, elsewhere: Elsewhere, link: Link) -> None:
        """A restored backup has one, and is adopted all the same."""
        for value in (45, 46, 47):
            config.set_setting("timeout", value)
        elsewhere.execute(f"UPDATE {TABLE} SET timeout = 20, version = 1")
        look_at(link)
        arrives(20)
        assert config.snapshot().version == 1

    @through(ON_SQLITE, "postgres", "redis")
    def test_an_equal_row(self, elsewhere: Elsewhere, stepped: Stepped, changes: Changes) -> None:
        """A hundred looks at it publish nothing, and tell nobody."""
        stepped.settle()
        before = config.snapshot()
        elsewhere.execute("CREATE TABLE noise (number int)")
        try:
            with around(RowReader, "stored") as looks:
                for _ in range(100):
                    stepped.link._poll_at = -inf
                    elsewhere.execute("INSERT INTO noise VALUES (1)")
                    stepped.step()
        finally:
            elsewhere.execute("DROP TABLE noise")
        assert len(looks) == 100
        assert config.snapshot() is before
        assert changes == []


class TestReceivers:
    """Of ``config_changed``: the watcher does not wait for them."""

    @through("postgres")
    def test_one_that_raises(
        self, elsewhere: Elsewhere, link: Link, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is logged; the others are told, and so are the changes after."""
        told: list[int] = []

        def fail(**kwargs: Any) -> None:
            raise ValueError("a receiver's own")

        with receiving(fail, lambda new, **kwargs: told.append(new.timeout)):
            elsewhere.commit(45)
            wait_until(lambda: told == [45])
            elsewhere.commit(46)
            wait_until(lambda: told == [45, 46])
        assert "a receiver's own" in caplog.text

    @through("postgres")
    def test_one_that_blocks(self, elsewhere: Elsewhere, link: Link) -> None:
        """Changes are adopted meanwhile, and told when it has come to its end, in their order."""
        pause, told = Failpoint(), list[tuple[int, str]]()

        def receive(new: Any, **kwargs: Any) -> None:
            pause()
            told.append((new.timeout, current_thread().name))

        with receiving(receive):
            elsewhere.commit(45)
            assert pause.reached.wait(PATIENCE)
            for value in (46, 47):
                elsewhere.commit(value)
                arrives(value)
            assert told == []
            pause.released.set()
            wait_until(lambda: len(told) == 3)
        assert [value for value, _thread in told] == [45, 46, 47]
        assert "siteconfig-watcher" not in {thread for _value, thread in told}

    @through("postgres", "redis")
    def test_one_that_writes(self, elsewhere: Elsewhere, link: Link, changes: Changes) -> None:
        """Its own change is told after the one it was told of, and the watcher goes on."""

        def receive(new: Any, **kwargs: Any) -> None:
            if new.retry_count == 3:
                config.set_setting("retry_count", 4)

        with receiving(receive):
            elsewhere.commit(45)
            wait_until(lambda: len(changes) == 2)
            assert [one["changed"] for one in changes] == [{"timeout"}, {"retry_count"}]
            elsewhere.commit(46)
            arrives(46)
        wait_until(lambda: not config._state.telling)

    @through(ON_SQLITE)
    def test_no_thread_to_be_told_in(
        self,
        elsewhere: Elsewhere,
        link: Link,
        changes: Changes,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """They are told by the watcher's next round: the next change may be a year away."""
        refused = list[str]()

        def refuse(*args: Any) -> None:
            refused.append("here")
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as context:
            context.setattr("siteconfig.config_manager.run_in_thread", refuse)
            elsewhere.write(45)
            arrives_by_a_poll(link, 45)
            wait_until(lambda: refused)
            assert changes == []
        assert link.watch.wake
        link.watch.wake()
        wait_until(lambda: changes.timeouts == [(30, 45)])

    @through(ON_SQLITE)
    def test_what_a_writer_is_about_to_tell(self, elsewhere: Elsewhere, link: Link) -> None:
        """Is left to it: when its write returns, they have run, in its thread."""
        told = list[str]()

        def let_the_watcher_pass() -> None:
            with around(watcher_module, "_round") as rounds:

                def has_passed() -> bool:
                    watcher.ensure(SiteConfiguration)  # wakes it
                    return len(rounds) > 1

                wait_until(has_passed)

        with (
            receiving(lambda **kwargs: told.append(current_thread().name)),
            around(ConfigManager, "_tell", before=let_the_watcher_pass),
        ):
            config.set_setting("timeout", 45)
            assert told == [current_thread().name]


class TestAnnounce:
    """What a commit of this process says to others, and when."""

    @through("postgres", "redis")
    def test_at_the_commit(self, elsewhere: Elsewhere, link: Link) -> None:
        """Not before, though others are told of other things; by then the row can be read."""
        with heard_by(elsewhere) as hear:
            with transaction.atomic():
                config.set_setting("timeout", 45)
                assert say(elsewhere, "a marker") == hear()
            assert hear() == LABEL
            assert elsewhere.execute(f"SELECT timeout FROM {TABLE}") == [(45,)]

    @through("postgres", "redis")
    def test_a_rollback(self, elsewhere: Elsewhere, link: Link) -> None:
        """Nothing is said of it, nor of what was rolled back to a savepoint."""
        with heard_by(elsewhere) as hear:
            for _ in range(2):
                with transaction.atomic():
                    config.set_setting("timeout", 45)
                    transaction.set_rollback(True)
                with transaction.atomic():
                    with transaction.atomic():
                        config.set_setting("timeout", 46)
                        transaction.set_rollback(True)
                    _ = config.timeout
            assert say(elsewhere, "a marker") == hear()

    @through("postgres", "redis")
    def test_each_way_of_writing(self, elsewhere: Elsewhere, link: Link) -> None:
        """Instances, QuerySets, deletion: all that Django knows of."""

        def save() -> None:
            row = SiteConfiguration.objects.get()
            row.timeout = 47
            row.save()

        def delete() -> None:
            SiteConfiguration.objects.get().delete()

        def create() -> None:
            SiteConfiguration.objects.bulk_create([SiteConfiguration()])

        def update() -> None:
            SiteConfiguration.objects.update(timeout=46)

        with heard_by(elsewhere) as hear:
            for write in (lambda: config.set_setting("timeout", 45), update, save, delete, create):
                write()
                assert hear() == LABEL

    @through("postgres")
    def test_though_another_hook_fails(self, elsewhere: Elsewhere, link: Link) -> None:
        """Somebody else's, before ours: the commit tells all the same."""
        with heard_by(elsewhere) as hear:
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                transaction.on_commit(lambda: [1 / 0])
                config.set_setting("timeout", 45)
            assert hear() == LABEL

    @pytest.fixture
    def nobody_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is not known yet whether the server takes notifications."""
        monkeypatch.setattr(PostgresTransport, "_takers", set())
        monkeypatch.setattr(PostgresTransport, "_refusals", {})

    @through("postgres")
    def test_to_a_server_without_notify(
        self,
        elsewhere: Elsewhere,
        link: Link,
        nobody_asked: None,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The writer does not notice, in a transaction or not; it is said once, and tried again."""
        monkeypatch.setattr(backoff, "FIRST", 0)
        with monkeypatch.context() as without:
            without.setattr(
                postgres_transport,
                "_notify",
                lambda connection, label: postgres_transport._execute(connection, "SELECT none()"),
            )
            for timeout in (45, 46):
                config.set_setting("timeout", timeout)
                with transaction.atomic():
                    config.set_setting("retry_count", 5)
                    SiteConfiguration.objects.update(site_name=f"Tea {timeout}")
        stored = elsewhere.execute(f"SELECT timeout, retry_count, site_name FROM {TABLE}")
        assert stored == [(46, 5, "Tea 46")]
        lines = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
        assert len(lines) == 1
        assert "takes no NOTIFY" in lines[0]
        with heard_by(elsewhere) as hear:
            config.set_setting("timeout", 47)
            assert hear() == LABEL

    @through("postgres")
    def test_costs_one_statement(self, elsewhere: Elsewhere, link: Link) -> None:
        """Once the server has taken a notification."""
        config.set_setting("timeout", 45)
        with transaction.atomic(), CaptureQueriesContext(connection) as queries:
            transports.announce_write(LABEL, "default")
        assert len(queries) == 1

    @through("postgres")
    def test_that_fails_later(
        self, elsewhere: Elsewhere, link: Link, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A transaction that is spoilt says so; a write that is committed does not."""
        monkeypatch.setattr(PostgresTransport, "_takers", {"default"})
        monkeypatch.setattr(PostgresTransport, "_refusals", {})
        with monkeypatch.context() as without:
            without.setattr(
                postgres_transport,
                "_notify",
                lambda connection, label: postgres_transport._execute(connection, "SELECT none()"),
            )
            with pytest.raises(ProgrammingError), transaction.atomic():
                transports.announce_write(LABEL, "default")
            monkeypatch.setattr(PostgresTransport, "_takers", {"default"})
            transports.announce_write(LABEL, "default")
        assert connection.is_usable()

    @through("postgres", "redis")
    def test_no_value(self, elsewhere: Elsewhere, link: Link) -> None:
        """Not even the old one."""
        with heard_by(elsewhere) as hear:
            for value in ("canary-1", "canary-2"):
                config.set_settings(api_key=value, site_name=value, extra_thing=value)
                assert "canary" not in hear()

    @through("postgres", "redis")
    def test_a_large_row(self, elsewhere: Elsewhere, link: Link) -> None:
        """One of a megabyte is saved, and arrives."""
        large = "x" * 1_000_000
        config.set_setting("page", large)
        assert config.get_setting("page") == large
        elsewhere.commit(45)
        arrives(45)
        assert config.get_setting("page") == large


class TestDisconnect:
    """The watcher's connection ends at the worst moment."""

    @through("postgres", "poll", "redis")
    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_in_a_look(self, elsewhere: Elsewhere, link: Link, moment: str) -> None:
        """Before the row's SELECT, or between it and the publication: it arrives once."""
        assert isinstance(elsewhere, ElsewhereOnPostgres)
        kill = partial(ElsewhereOnPostgres.disconnect, elsewhere, link)
        elsewhere.write(45)
        with around(RowReader, "stored", **{moment: kill}):
            look_at(link)
            arrives(45)
        wait_until(lambda: config.status().last_error is None and watches(link))
        elsewhere.write(46)
        look_at(link)
        arrives(46)

    @through("postgres", "poll")
    def test_while_it_notes_itself(
        self,
        elsewhere: Elsewhere,
        settings: Settings,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """In the fleet view: that is no fault of the watcher, which looks at the row again."""
        settings.SITECONFIG = {**settings.SITECONFIG, "FLEET": True}
        with run_watcher():
            link = begin()
            wait_until(lambda: report(SiteConfiguration).live == 1)
            kill = partial(elsewhere.disconnect, link)
            with around(Member, "_write", before=kill):
                elsewhere.commit(45)
                look_unless_told(elsewhere, link)
                arrives(45)
                elsewhere.write(46)  # and tell nobody
                look_unless_told(elsewhere, link)
                arrives(46)
            wait_until(lambda: report(SiteConfiguration).live == 1)
        assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []

    @through("postgres")
    def test_a_lock_on_the_fleets_table(
        self, elsewhere: Elsewhere, on_postgres: Postgres, settings: Settings
    ) -> None:
        """As of VACUUM FULL: the settings do not wait for its end, and keep their connection."""
        settings.SITECONFIG = {**settings.SITECONFIG, "FLEET": True}
        with run_watcher(), on_postgres.connect(DATABASE) as locking:
            link = begin()
            wait_until(lambda: report(SiteConfiguration).live == 1)
            old = backend_pid(link)
            locking.execute("BEGIN")
            locking.execute("LOCK TABLE siteconfig_configprocess IN ACCESS EXCLUSIVE MODE")
            for value in (45, 46):
                elsewhere.commit(value)
                arrives(value)
            wait_until(lambda: watcher.member._backoff.failures)
            locking.execute("ROLLBACK")
            wait_until(lambda: report(SiteConfiguration).live == 1)
            assert backend_pid(link) == old


class TestHalfOpen:
    """A connection whose other end is gone without a word."""

    @through("postgres")
    def test_while_it_notes_itself(
        self,
        elsewhere: Elsewhere,
        on_postgres: Postgres,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What was given up then is of no use for hints either, and is replaced."""
        monkeypatch.setattr(own_connections, "DEADLINE", 0.3)
        settings.SITECONFIG = {**settings.SITECONFIG, "FLEET": True}
        with Proxy(on_postgres.host, on_postgres.port) as proxy, ExitStack() as stack:
            entry = {**on_postgres.django(DATABASE), "HOST": proxy.host, "PORT": proxy.port}
            stack.enter_context(default_database(entry))
            stack.enter_context(run_watcher())
            begin()
            wait_until(lambda: report(SiteConfiguration).live == 1)
            noting = Failpoint()
            with around(Member, "_write", before=noting):
                elsewhere.commit(45)
                assert noting.reached.wait(PATIENCE)
                proxy.freeze()
                noting.released.set()
                elsewhere.commit(46)
                arrives(46)
            proxy.thaw()

    def test_an_answer_that_nobody_waits_for(
        self, on_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is not taken for that of the next statement: its connection takes none any more."""
        monkeypatch.setattr(own_connections, "DEADLINE", 0.1)
        with closing(own_connections.own_connection("default")) as one:
            with pytest.raises(OperationalError, match="did not answer"), one.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(1)")
            assert one.connection.closed

    @pytest.mark.parametrize("elsewhere", ["postgres", "poll"], indirect=True)
    def test_postgres(
        self,
        elsewhere: Elsewhere,
        on_postgres: Postgres,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It is given up after the deadline, and the row read by a new one; readers never wait."""
        monkeypatch.setattr(own_connections, "DEADLINE", 0.3)
        with Proxy(on_postgres.host, on_postgres.port) as proxy, ExitStack() as stack:
            entry = {**on_postgres.django(DATABASE), "HOST": proxy.host, "PORT": proxy.port}
            stack.enter_context(default_database(entry))
            stack.enter_context(run_watcher())
            link = begin()
            proxy.freeze()
            elsewhere.write(45)
            begun = monotonic()
            look_at(link)
            assert config.timeout == 30
            arrives(45)
            # A deadline for each of: the look, asking whether the connection is of use, and room.
            assert monotonic() - begun < 2 * 0.3 + backoff.FIRST + 5
            proxy.thaw()

    @through("postgres")
    def test_postgres_without_a_poll(
        self, elsewhere: Elsewhere, on_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While nothing else is asked, the server is asked whether it is there."""
        monkeypatch.setattr(own_connections, "DEADLINE", 0.3)
        monkeypatch.setattr(postgres_transport, "ASK_AFTER", 0.1)
        with Proxy(on_postgres.host, on_postgres.port) as proxy, ExitStack() as stack:
            entry = {**on_postgres.django(DATABASE), "HOST": proxy.host, "PORT": proxy.port}
            stack.enter_context(default_database(entry))
            stack.enter_context(run_watcher())
            begin()
            proxy.freeze()
            elsewhere.commit(45)  # which nobody hears
            arrives(45)
            proxy.thaw()

    @through("postgres")
    def test_a_poll_asks_enough(
        self, elsewhere: Elsewhere, stepped: Stepped, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever looks at the row each second need not ask whether the server is there."""
        stepped.settle()
        monkeypatch.setattr(postgres_transport, "ASK_AFTER", NEVER)
        stepped.link._poll_at = -inf
        stepped.step()
        assert stepped.link.transport.due_at() > monotonic() + NEVER / 2

    @through("redis")
    @pytest.mark.parametrize("poll", [0.05, NEVER])
    def test_redis(
        self,
        elsewhere: Elsewhere,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
        poll: float,
    ) -> None:
        """It is asked whether it is there, given up, and subscribed to anew by a new one."""
        monkeypatch.setattr(redis_transport, "PING_AFTER", 0.1)
        assert isinstance(elsewhere, ElsewhereByRedis)
        address = elsewhere.client.get_connection_kwargs()
        with Proxy(address["host"], address["port"]) as proxy:
            url = elsewhere.settings["REDIS_URL"].replace(str(address["port"]), str(proxy.port))
            settings.SITECONFIG = {**settings.SITECONFIG, "REDIS_URL": url, "POLL_INTERVAL": poll}
            with run_watcher():
                transport: Any = begin().transport
                old = transport._pubsub
                proxy.freeze()
                elsewhere.commit(45)
                arrives(45)
                wait_until(lambda: transport._pubsub not in (None, old))
            proxy.thaw()


class FleetRouter:
    """The processes are noted in a database of their own."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "fleet" if model is ConfigProcess else None

    db_for_read = db_for_write


class TestFleetElsewhere:
    """The processes are noted in another database than the settings'."""

    @pytest.fixture
    def proxy(
        self,
        elsewhere: Elsewhere,
        on_postgres: Postgres,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Iterator[Proxy]:
        """Before that database."""
        monkeypatch.setattr(own_connections, "DEADLINE", 0.3)
        settings.SITECONFIG = {**settings.SITECONFIG, "FLEET": True}
        settings.DATABASE_ROUTERS = ["tests.test_failpoints.FleetRouter"]
        elsewhere.execute("DELETE FROM siteconfig_configprocess")
        with Proxy(on_postgres.host, on_postgres.port) as proxy:
            entry = on_postgres.django(DATABASE, application_name="fleet")
            entry |= {"HOST": proxy.host, "PORT": proxy.port}
            connections.settings["fleet"] = ConnectionHandler({"default": entry}).settings[
                "default"
            ]
            try:
                yield proxy
            finally:
                del connections.settings["fleet"]

    def noted(self, elsewhere: Elsewhere) -> list[int]:
        """The processes that are."""
        return [pid for (pid,) in elsewhere.execute("SELECT pid FROM siteconfig_configprocess")]

    def sessions(self, elsewhere: Elsewhere) -> list[int]:
        """The server's, by which they are."""
        statement = "SELECT pid FROM pg_stat_activity WHERE application_name = 'fleet'"
        return [pid for (pid,) in elsewhere.execute(statement)]

    @through("postgres")
    def test_half_open(self, elsewhere: Elsewhere, proxy: Proxy) -> None:
        """The connection to it is given up, and replaced; the settings go on arriving."""
        with run_watcher():
            begin()
            wait_until(lambda: self.noted(elsewhere) == [os.getpid()])
            proxy.freeze()
            for value in (45, 46):
                elsewhere.commit(value)
                arrives(value)
            proxy.thaw()
            elsewhere.execute("DELETE FROM siteconfig_configprocess")
            elsewhere.commit(47)
            wait_until(lambda: self.noted(elsewhere) == [os.getpid()])
        assert self.noted(elsewhere) == []
        wait_until(lambda: self.sessions(elsewhere) == [])

    @through("postgres")
    def test_a_table_that_is_missing(self, elsewhere: Elsewhere, proxy: Proxy) -> None:
        """Who asks in a transaction, as under ATOMIC_REQUESTS, can go on with it."""
        elsewhere.execute("ALTER TABLE siteconfig_configprocess RENAME TO moved")
        try:
            with transaction.atomic(), transaction.atomic(using="fleet"):
                with pytest.raises(ProgrammingError):
                    report(SiteConfiguration)
                for alias in ("default", "fleet"):
                    with connections[alias].cursor() as cursor:
                        cursor.execute("SELECT 1")
        finally:
            elsewhere.execute("ALTER TABLE moved RENAME TO siteconfig_configprocess")
            connections["fleet"].close()

    @through("postgres")
    def test_a_child_leaves_the_connection_alone(self, elsewhere: Elsewhere, proxy: Proxy) -> None:
        """It ends without a word through it, and makes its own."""
        with run_watcher():
            begin()
            wait_until(lambda: self.noted(elsewhere) == [os.getpid()])
            before = self.sessions(elsewhere)

            def child() -> None:
                own = reopened(elsewhere)
                begin()
                wait_until(lambda: os.getpid() in self.noted(own))
                assert len(self.sessions(own)) == 2
                watcher.stop(PATIENCE)
                wait_until(lambda: self.sessions(own) == before)

            assert in_child(child) == 0
            assert self.sessions(elsewhere) == before
            elsewhere.commit(45)
            last_note = "SELECT seen_at FROM siteconfig_configprocess"
            noted_at = elsewhere.execute(last_note)
            elsewhere.commit(46)
            wait_until(lambda: elsewhere.execute(last_note) > noted_at)
            assert self.sessions(elsewhere) == before


class TestOutage:
    @through("postgres")
    def test_pauses_grow(
        self,
        elsewhere: Elsewhere,
        stepped: Stepped,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Each up to twice as long as the one before, up to half a minute; one line is logged."""
        clock = [1000.0]
        for module in (watcher_module, backoff):
            monkeypatch.setattr(module, "monotonic", lambda: clock[0])
        monkeypatch.setattr("random.uniform", lambda least, most: most)
        stepped.do(partial(stepped.link.tend, 1))
        assert config.timeout == 30

        def refuse(*args: Any) -> Any:
            raise OperationalError("nobody is there")

        pauses: list[float] = []
        with monkeypatch.context() as away:
            away.setattr(watcher_module, "own_connection", refuse)
            elsewhere.disconnect(stepped.link)
            elsewhere.write(45)
            look_at(stepped.link)
            for _ in range(12):
                stepped.do(partial(stepped.link.tend, 1))
                pauses.append(stepped.link.due_at() - clock[0])
                stepped.do(partial(stepped.link.tend, 1))  # too early: it does nothing
                assert stepped.link.due_at() - clock[0] == pauses[-1]
                clock[0] += pauses[-1]
        assert pauses == [pytest.approx(min(30, 0.1 * 2**failures)) for failures in range(12)]
        assert [one.levelname for one in caplog.records if one.levelno > logging.DEBUG] == [
            "WARNING"
        ]
        stepped.do(partial(stepped.link.tend, 1))
        assert (held(), config.status().last_error) == (45, None)

    @through("poll", "postgres", "redis", ON_SQLITE)
    def test_a_pause_is_slept_through(
        self,
        elsewhere: Elsewhere,
        link: Link,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Though the poll is due all the time: a site whose database is away has other work."""
        settings.SITECONFIG = {**settings.SITECONFIG, "POLL_INTERVAL": 0.01}
        monkeypatch.setattr("random.uniform", lambda least, most: most)
        monkeypatch.setattr(backoff, "FIRST", 0.02)

        def refuse(*args: Any) -> Any:
            raise OperationalError("nobody is there")

        with around(watcher_module, "_round") as rounds, monkeypatch.context() as away:
            away.setattr(watcher_module, "own_connection", refuse)
            away.setattr(link.transport, "may_have_changed", refuse)
            look_at(link)
            wait_until(lambda: link._backoff.failures == 5)  # after a third of a second
            assert len(rounds) < 20
        elsewhere.write(45)
        arrives(45)

    @through("postgres", ON_SQLITE)
    def test_a_table_that_is_away(self, elsewhere: Elsewhere, link: Link) -> None:
        """As while a migration rebuilds it: the connection stays, and the row is read again."""
        old = link._connection
        elsewhere.execute(f"ALTER TABLE {TABLE} RENAME TO moved")
        try:
            look_at(link)
            wait_until(lambda: config.status().last_error)
            assert config.timeout == 30
        finally:
            elsewhere.execute(f"ALTER TABLE moved RENAME TO {TABLE}")
        elsewhere.write(45)
        arrives(45)
        assert link._connection is old

    @through("postgres")
    def test_an_error_of_our_own(
        self, elsewhere: Elsewhere, link: Link, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One that nobody has thought of is logged, and the watcher goes on."""

        def fail() -> None:
            raise SystemExit("not thought of")

        with around(watcher_module, "_adopt", before=fail):
            elsewhere.commit(45)
            arrives(45)
        assert "goes on" in caplog.text

    @through(ON_SQLITE)
    def test_an_error_of_the_question_whether_to_go_on(
        self,
        elsewhere: Elsewhere,
        link: Link,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """As where there is no memory left: the same thread goes on."""
        thread, in_use, failed = watcher._thread, transports.in_use, list[str]()

        def fail_once() -> bool:
            if current_thread() is thread and not failed:
                failed.append("here")
                raise MemoryError
            return in_use()

        monkeypatch.setattr(transports, "in_use", fail_once)
        assert link.watch.wake
        link.watch.wake()
        wait_until(lambda: failed)
        elsewhere.write(45)
        arrives_by_a_poll(link, 45)
        assert watcher._thread is thread
        assert "goes on" in caplog.text

    def test_wakes_are_not_kept(self) -> None:
        """One of a time without a connection does not end each wait for the next one's hints."""
        waker = watcher_module.Waker()
        waker.wake()
        waker.wait(PATIENCE)  # there is nothing but it to wait for
        reader, writer = os.pipe()
        begun = monotonic()
        for _ in range(3):
            waker.wait(0.1, [reader])
        assert monotonic() - begun > 0.15
        waker.close()
        os.close(reader)
        os.close(writer)

    @through("postgres")
    def test_no_transaction_stays_open(self, elsewhere: Elsewhere, link: Link) -> None:
        """One would hold back the server's queue of notifications, and its vacuum (H35)."""
        elsewhere.commit(45)
        arrives(45)
        state = (
            "SELECT state, xact_start IS NULL FROM pg_stat_activity"
            f" WHERE pid = {backend_pid(link)}"
        )
        wait_until(lambda: elsewhere.execute(state) == [("idle", True)])

    @through(ON_SQLITE)
    def test_another_file(
        self,
        elsewhere: Elsewhere,
        link: Link,
        tmp_path: Path,
    ) -> None:
        """In the place of the database: the connection, which reads on in the old, is replaced."""
        path = Path(str(connection.settings_dict["NAME"]))
        backup = tmp_path / "backup"
        elsewhere.execute("VACUUM INTO ?", str(backup))
        with closing(ElsewhereOnSQLite(str(backup))) as restored:
            restored.write(45)
        with ExitStack() as stack:
            for file in path.parent.glob(f"{path.name}*"):  # with its write-ahead log
                stack.callback(file.rename(tmp_path / file.name).rename, file)
            backup.rename(path)
            arrives_by_a_poll(link, 45)
        arrives_by_a_poll(link, 30)

    @through(ON_SQLITE)
    def test_a_connection_that_reads_nothing_more(self, elsewhere: Elsewhere, link: Link) -> None:
        """As one whose log of writes has been removed: Django takes it for usable all the same."""
        old = link.connection
        assert old is not None

        def fail(*args: Any) -> Any:
            raise OperationalError("disk I/O error")

        old.execute_wrappers.append(fail)
        elsewhere.write(45)
        arrives_by_a_poll(link, 45)
        assert link.connection is not old

    @through(ON_SQLITE)
    def test_no_file(self, elsewhere: Elsewhere, link: Link, tmp_path: Path) -> None:
        """It has been moved away: none is made in its place, and it is found when it is back."""
        path = Path(str(connection.settings_dict["NAME"]))
        with ExitStack() as stack:
            for file in path.parent.glob(f"{path.name}*"):
                stack.callback(file.rename(tmp_path / file.name).rename, file)
            link.transport._look_at_file_at = -inf  # type: ignore[attr-defined]
            look_at(link)
            wait_until(lambda: "unable to open" in str(config.status().last_error))
            assert not path.exists()
        elsewhere.write(45)
        arrives_by_a_poll(link, 45)


class TestFork:
    """A child has neither its parent's watcher, nor a right to its connection."""

    @through("postgres", "redis", ON_SQLITE)
    def test_child_and_parent_watch(self, elsewhere: Elsewhere, link: Link) -> None:
        """Each by a connection of its own; the end of the child's is nothing to the parent's."""
        old = link._connection

        def child() -> None:
            # Nothing but its first read starts it, and that is a new one.
            elsewhere_in_child = reopened(elsewhere)
            elsewhere_in_child.write(45)
            assert config.timeout == 45
            own = begin()
            assert own is not link
            assert own._connection is not old
            if isinstance(elsewhere, ElsewhereOnPostgres):
                assert backend_pid(own) != parents
            elsewhere_in_child.commit(46)
            look_unless_told(elsewhere, own)
            arrives(46)

        parents = backend_pid(link) if isinstance(elsewhere, ElsewhereOnPostgres) else None
        assert in_child(child) == 0
        look_unless_told(elsewhere, link)
        arrives(46)
        elsewhere.commit(47)
        look_unless_told(elsewhere, link)
        arrives(47)
        # That to SQLite is closed for each fork.
        assert (link._connection is old) is not link.is_sqlite

    @through("postgres", ON_SQLITE)
    @pytest.mark.parametrize("method", ["_compare", "_publish", "_settle"])
    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_in_the_middle_of_a_look(
        self, elsewhere: Elsewhere, link: Link, method: str, moment: str
    ) -> None:
        """The parent's watcher stands anywhere, with a lock even; the child reads and watches."""
        pause = Failpoint()
        elsewhere.write(45)
        with around(ConfigManager, method, **{moment: pause}):
            look_at(link)
            assert pause.reached.wait(PATIENCE)

            def child() -> None:
                assert config.timeout == 45
                own = begin()
                reopened(elsewhere).commit(46)
                look_unless_told(elsewhere, own)
                arrives(46)

            assert in_child(child) == 0
            pause.released.set()
            look_unless_told(elsewhere, link)
            arrives(46)

    @through("postgres")
    def test_as_it_begins_to_listen(self, elsewhere: Elsewhere) -> None:
        """The parent has a connection, and no more: the child makes its own."""
        pause = Failpoint()
        with run_watcher(), around(PostgresTransport, "open", before=pause):
            _ = config.timeout
            assert pause.reached.wait(PATIENCE)

            def child() -> None:
                own = begin()
                reopened(elsewhere).commit(45)
                arrives(45)
                assert own is watcher.links["default"]

            assert in_child(child) == 0
            pause.released.set()
            arrives(45)

    @through("postgres", ON_SQLITE)
    def test_in_an_open_transaction(self, elsewhere: Elsewhere, link: Link) -> None:
        """What the parent has not committed is nothing to the child until it has."""
        committed, seen = os.pipe(), os.pipe()

        def child() -> None:
            assert config.timeout == 30
            own = begin()
            os.write(seen[1], b"!")
            assert os.read(committed[0], 1)
            look_unless_told(elsewhere, own)
            arrives(45)

        with transaction.atomic():
            config.set_setting("timeout", 45)
            forked = Started(lambda: in_child(child))
            assert os.read(seen[0], 1)
            assert in_thread(lambda: config.timeout) == 30
        os.write(committed[1], b"!")
        assert forked.result() == 0
        for descriptor in committed + seen:
            os.close(descriptor)

    @through("postgres")
    def test_an_open_connection_of_the_parent(self, elsewhere: Elsewhere, link: Link) -> None:
        """The child's reads do not go through it: both would talk through one socket."""
        elsewhere.commit(45)
        arrives(45)
        assert SiteConfiguration.objects.get().timeout == 45  # opens this thread's connection

        def child() -> None:
            def refuse(*args: Any) -> Any:
                os._exit(7)

            with connection.execute_wrapper(refuse):
                assert config.timeout == 45
                begin()

        assert in_child(child) == 0
        assert SiteConfiguration.objects.get().timeout == 45


def reopened(elsewhere: Elsewhere) -> Elsewhere:
    """The same with a connection of this process, a child; it ends with the child."""
    if isinstance(elsewhere, ElsewhereOnSQLite):
        return ElsewhereOnSQLite(str(connection.settings_dict["NAME"]))
    assert isinstance(elsewhere, ElsewhereOnPostgres)
    elsewhere.connection = elsewhere.server.connect(DATABASE)
    if isinstance(elsewhere, ElsewhereByRedis):
        elsewhere.client = elsewhere.redis.client()
    return elsewhere


def look_unless_told(elsewhere: Elsewhere, link: Link) -> None:
    """Let the poll be due, with a transport that has no hints."""
    if elsewhere.settings["TRANSPORT"] == "poll":
        look_at(link)


class TestPooler:
    """PgBouncer between the watcher and PostgreSQL."""

    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(postgres_transport, "SELF_CHECK_PATIENCE", 0.3)

    @through("postgres")
    def test_for_transactions(
        self,
        elsewhere: Elsewhere,
        pgbouncer: PgBouncer,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """It swallows notifications: that is noticed, said once, and the poll goes on."""
        with default_database(pgbouncer.django(DATABASE)), run_watcher():
            _ = config.timeout
            wait_until(lambda: config.status().transport_error)
            assert config.status().transport == "poll"
            link = watcher.links["default"]
            assert link.fileno() is None
            for value in (45, 46):
                elsewhere.commit(value)
                look_at(link)
                arrives(value)
                # With a new connection it is not found out, and said, again.
                pgbouncer.console(f'KILL "{DATABASE}"')
                pgbouncer.console(f'RESUME "{DATABASE}"')
            look_at(link)
            elsewhere.commit(47)
            arrives(47)
        lines = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
        assert len([line for line in lines if "pooler" in line]) == 1

    @through("postgres")
    def test_it_leaves_no_listen_in_sessions_of_others(
        self, elsewhere: Elsewhere, pgbouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever is lent one later would be sent notifications that it knows nothing of."""
        execute, said = postgres_transport._execute, list[str]()

        def note(connection: Any, statement: str) -> Any:
            said.append(statement)
            return execute(connection, statement)

        monkeypatch.setattr(postgres_transport, "_execute", note)
        with default_database(pgbouncer.django(DATABASE)), run_watcher():
            _ = config.timeout
            wait_until(lambda: config.status().transport_error)
        assert set(said) == {"SELECT pg_backend_pid()"}

    @pytest.fixture
    def way_past_it(self, pgbouncer: PgBouncer, settings: Settings) -> Iterator[Proxy]:
        """An entry of DATABASES, which LISTEN_DATABASE names; and the pooler is the default."""
        server = pgbouncer.server
        settings.SITECONFIG = {**settings.SITECONFIG, "LISTEN_DATABASE": "direct"}
        with Proxy(server.host, server.port) as way:
            entry = {**server.django(DATABASE), "HOST": way.host, "PORT": way.port}
            direct = ConnectionHandler({"default": {}, "direct": entry})
            connections.settings["direct"] = direct.settings["direct"]
            try:
                with default_database(pgbouncer.django(DATABASE)):
                    yield way
            finally:
                del connections.settings["direct"]

    @through("postgres")
    def test_with_a_way_past_it(self, elsewhere: Elsewhere, way_past_it: Proxy) -> None:
        """Changes arrive at once."""
        with run_watcher():
            begin()
            elsewhere.commit(45)
            arrives(45)
            assert config.status().transport == "postgres"

    @through("postgres")
    def test_a_way_past_it_that_is_closed_for_a_while(
        self,
        elsewhere: Elsewhere,
        way_past_it: Proxy,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Polls go on through the pooler, and changes arrive at once when it is open again."""
        monkeypatch.setattr("siteconfig.backoff.LONGEST", 0.5)
        values = iter(range(31, 99))

        def polls_by_the_pooler() -> None:
            wait_until(lambda: config.status().transport_error)
            assert config.status().transport == "poll"
            link = watcher.links["default"]
            elsewhere.commit(value := next(values))
            look_at(link)
            arrives(value)
            raw, failures = link._raw, link._detour.failures
            wait_until(lambda: link._detour.failures > failures + 1)
            assert link._raw is raw  # an attempt leaves the connection that there is

        def hears() -> None:
            wait_until(lambda: config.status().transport == "postgres")
            assert config.status().transport_error is None
            elsewhere.commit(value := next(values))
            arrives(value)

        way_past_it.refuse()
        with caplog.at_level(logging.INFO, "siteconfig.transports"), run_watcher():
            _ = config.timeout
            polls_by_the_pooler()
            way_past_it.accept()
            hears()
            way_past_it.refuse()
            way_past_it.drop()
            polls_by_the_pooler()
            way_past_it.accept()
            hears()
        records = [one for one in caplog.records if one.name == "siteconfig.transports"]
        lines = [f"{one.levelname} {one.getMessage()}" for one in records]
        # One about each change of state, but for what comes within a minute of another.
        lost, found = lines
        assert lost.startswith("WARNING Changes wait for the poll. The database 'direct' cannot be")
        assert found == "INFO Changes arrive at once again."

    @through("postgres")
    def test_a_way_past_it_that_breaks_at_once(
        self, elsewhere: Elsewhere, way_past_it: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is as good as closed: the connection to the pooler is neither lost nor forgotten."""
        monkeypatch.setattr("siteconfig.backoff.LONGEST", 0.5)
        original, is_broken, attempts = PostgresTransport.open, True, 0

        def listen(self: PostgresTransport, connection: Any) -> None:
            nonlocal attempts
            attempts += 1
            if is_broken:
                raise OperationalError("server closed the connection")
            original(self, connection)

        monkeypatch.setattr(PostgresTransport, "open", listen)
        with run_watcher():
            _ = config.timeout
            wait_until(lambda: config.status().transport_error)
            link = watcher.links["default"]
            kept, seen = link.connection, attempts
            wait_until(lambda: attempts > seen + 2)
            elsewhere.commit(45)
            arrives_by_a_poll(link, 45)
            assert link.connection is kept is not None
            is_broken = False
            wait_until(lambda: config.status().transport == "postgres")
            elsewhere.commit(46)
            arrives(46)

    @through("postgres")
    def test_one_that_has_no_second_connection_for_a_while(
        self, elsewhere: Elsewhere, on_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whether it swallows notifications cannot be found out then: polls go on meanwhile."""
        monkeypatch.setattr(own_connections, "DEADLINE", 0.5)
        monkeypatch.setattr("siteconfig.backoff.LONGEST", 0.5)
        with needed():
            pooler = PgBouncer(on_postgres, "session", default_pool_size=1)
        with pooler, default_database(pooler.django(DATABASE)), run_watcher():
            _ = config.timeout
            wait_until(lambda: config.status().transport_error)
            link = watcher.links["default"]
            elsewhere.commit(45)
            arrives_by_a_poll(link, 45)
            assert config.status().transport == "poll"
            pooler.console("SET default_pool_size = 5")
            wait_until(lambda: config.status().transport == "postgres")
            elsewhere.commit(46)
            arrives(46)

    @through("postgres")
    def test_for_sessions(self, elsewhere: Elsewhere, on_postgres: Postgres) -> None:
        """One that gives each client a server of its own is no hindrance."""
        with needed():
            pooler = PgBouncer(on_postgres, "session")
        with pooler, ExitStack() as stack:
            stack.enter_context(default_database(pooler.django(DATABASE)))
            stack.enter_context(run_watcher())
            begin()
            elsewhere.commit(45)
            arrives(45)
            assert config.status().transport == "postgres"
