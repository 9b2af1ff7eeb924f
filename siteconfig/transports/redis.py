"""Publish and subscribe of Redis, or of Valkey."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from siteconfig.backoff import Backoff
from siteconfig.conf import conf
from siteconfig.transports.base import CHANNEL, Complaint, Transport

redis: Any
try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError:  # the extra siteconfig[redis]
    redis = None

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

log = logging.getLogger("siteconfig.transports")

#: Seconds that the server is given to answer. The poll waits meanwhile, and so may a commit.
PATIENCE = 0.5

#: Seconds of silence after which the server is asked whether it is still there, and again as many
#: until it is given up.
PING_AFTER = 3.0


class Redis(Transport):
    """The writer publishes after its commit; a message that is lost costs one poll."""

    name: ClassVar[str] = "redis"

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self._pubsub: Any = None
        # Kept as long as the subscription: at its end it closes all connections that it has made.
        self._client: Any = None
        self._backoff = Backoff()
        self._heard_at = 0.0
        self._pinged_at: float | None = None

    @classmethod
    def problems(cls, alias: str) -> Iterator[tuple[str, str]]:
        if redis is None:
            yield "redis-py is not installed.", "Run: pip install 'siteconfig[redis]'"
        if not conf.REDIS_URL:
            yield (
                "no server is named.",
                'Write, for example: SITECONFIG = {"REDIS_URL": "redis://127.0.0.1:6379/0"}.',
            )
            return
        try:
            if redis is not None:
                redis.connection.parse_url(conf.REDIS_URL)
        except ValueError:
            # Not what was found: there may be a password in it.
            yield (
                "SITECONFIG['REDIS_URL'] is no address of a Redis server.",
                "Write redis://, rediss:// (with TLS) or unix://, and host, port and database.",
            )

    def open(self, connection: BaseDatabaseWrapper) -> None:
        self._tend()

    def fileno(self) -> int | None:
        connection = self._pubsub and self._pubsub.connection
        # No public name leads to the socket.
        return connection._sock.fileno() if connection and connection._sock else None

    def heard(self) -> bool:
        """Also after each new subscription: nobody has kept what was published before."""
        if self._pubsub is None:
            return self._tend()
        try:
            return self._drain()
        except Exception as error:  # noqa: BLE001 - the poll goes on, whatever Redis does
            self._lose(error)
            return False

    def due_at(self) -> float:
        if self._pubsub is None:
            return self._backoff.until
        return (self._pinged_at or self._heard_at) + PING_AFTER

    def close(self) -> None:
        if self._pubsub is not None:
            pubsub, self._pubsub, self._client = self._pubsub, None, None
            with suppress(Exception):
                pubsub.close()
                pubsub.connection_pool.disconnect()

    def _tend(self) -> bool:
        """Subscribe, if it is time to try; whether that has succeeded."""
        if not self._backoff.is_over():
            return False
        client = _client()  # whose errors come out: after each the row is read again
        pubsub = client.pubsub()
        try:
            pubsub.subscribe(CHANNEL)
            # The answer tells that the subscription stands: what is published from now on arrives.
            if pubsub.get_message(timeout=PATIENCE) is None:
                raise TimeoutError(f"Redis did not answer within {PATIENCE} seconds.")
        except Exception as error:  # noqa: BLE001 - as above
            with suppress(Exception):
                pubsub.close()
            self._lose(error)
            return False
        self._client, self._pubsub = client, pubsub
        self._heard_at, self._pinged_at = monotonic(), None
        self._backoff.reset()
        self.take_up()
        return True

    def _lose(self, error: Exception) -> None:
        self.close()
        self._backoff.failed()
        self.give_up(f"Redis cannot be reached: {type(error).__name__}: {error}".strip())

    def _drain(self) -> bool:
        published = False
        while (message := self._pubsub.get_message(timeout=0)) is not None:
            self._heard_at, self._pinged_at = monotonic(), None
            published |= message["type"] == "message"
        if self.fileno() is None:
            raise ConnectionError("Redis has closed the connection.")
        now = monotonic()
        if self._pinged_at is None and now - self._heard_at >= PING_AFTER:
            self._pubsub.ping()
            self._pinged_at = now
        # From the question on, for this process may itself have been stopped before.
        if self._pinged_at is not None and now - self._pinged_at >= PING_AFTER:
            raise TimeoutError(f"Redis has not answered for {now - self._heard_at:.0f} seconds.")
        return published

    @classmethod
    def announce_commit(cls, label: str, using: str) -> None:
        publisher = Publisher.of_this_process()
        publisher.publish(label)


class Publisher:
    """Publishes for this process; while the server does not answer it is left alone."""

    _instance: ClassVar[Publisher | None] = None

    def __init__(self, url: str) -> None:
        self.url = url
        self.pid = os.getpid()
        # Once more, for a connection that has been idle for long may be dead without a word.
        self.client = _client(retries=1)
        self.backoff, self.complaint = Backoff(), Complaint()

    @classmethod
    def of_this_process(cls) -> Publisher:
        one = cls._instance
        if one is None or one.pid != os.getpid() or one.url != conf.REDIS_URL:
            one = cls._instance = Publisher(conf.REDIS_URL or "")
        return one

    def publish(self, label: str) -> None:
        """Never raises an Exception: what it is about has been committed."""
        if not self.backoff.is_over():
            return
        try:
            self.client.publish(CHANNEL, label)
            self.backoff.reset()
            self.complaint.is_over()
        except Exception as error:  # noqa: BLE001 - as above
            self.backoff.failed()
            if self.complaint.is_due():
                log.warning("A change could not be published, so others poll for it: %s", error)


def _client(retries: int = 0) -> Any:
    return redis.Redis.from_url(
        conf.REDIS_URL or "",
        socket_timeout=PATIENCE,
        socket_connect_timeout=PATIENCE,
        retry=Retry(NoBackoff(), retries),
    )
