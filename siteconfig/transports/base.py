"""Transport: what hints that the settings may have changed, on top of the poll."""

from __future__ import annotations

import logging
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.backends.base.base import BaseDatabaseWrapper

log = logging.getLogger("siteconfig.transports")

#: The channel of PostgreSQL and of Redis on which changes are announced. What is said there is
#: the label of the model whose row was written, and no value.
CHANNEL = "siteconfig"


#: Seconds between two log lines that say the same.
REMIND_INTERVAL = 60.0


class Complaint:
    """Whether to log that something fails: once, and once a minute if it comes and goes."""

    def __init__(self) -> None:
        self._said_at: dict[str, float] = {}
        self._standing: str | None = None

    def is_due(self, what: str = "") -> bool:
        """Whether to log it now; it stands then until ``is_over``, or until something else fails.

        Args:
            what: which failure it is of those that there may be.
        """
        if what == self._standing or monotonic() - self._said_at.get(what, -inf) < REMIND_INTERVAL:
            return False
        self._standing, self._said_at[what] = what, monotonic()
        return True

    def is_over(self) -> bool:
        """Nothing fails any more: whether to log that."""
        stood, self._standing = self._standing, None
        return stood is not None


class Transport:
    """One way to learn of changes by other processes sooner than the next poll tells.

    A transport gives hints. Whatever becomes of one, the row is looked at once each interval; so
    none is asked to be reliable. Made and used by the watcher's thread alone, but for the
    announcements, which are made by whoever writes.
    """

    name: ClassVar[str]
    """What ``SITECONFIG["TRANSPORT"]`` calls it."""

    error: str | None = None
    """Why it gives no hints at the moment; None: it does what it can."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._complaint = Complaint()

    @classmethod
    def problems(cls, alias: str) -> Iterator[tuple[str, str]]:
        """Why it cannot work with the database ``alias``: what is wrong, and what to do."""
        yield from ()

    def open(self, connection: BaseDatabaseWrapper) -> None:
        """Begin to listen; ``connection`` has just been opened to read the row by.

        The row is read after this, never before: what is written in between is then seen.
        """

    def fileno(self) -> int | None:
        """What becomes readable when there may be a hint; None: there is nothing to wait for."""
        return None

    def heard(self) -> bool:
        """Take in what has arrived, and say whether the row is to be looked at now.

        Raises:
            Exception: the connection that was given to ``open`` is of no use any more.
        """
        return False

    def is_pending(self) -> bool:
        """Whether ``heard`` is to be asked at once, though there may be nothing more to wait for.

        As when a hint has come together with the answer to a query.
        """
        return False

    def due_at(self) -> float:
        """When ``heard`` is to be asked even if nothing comes, by the clock ``monotonic``.

        As when it is time to find out whether the other end is still there, or is back.
        """
        return inf

    def may_have_changed(self) -> bool:
        """Whether the poll needs to look at the row."""
        return True

    def interval(self) -> float:
        """Seconds between two polls, if ``SITECONFIG`` does not say."""
        return 1.0

    def give_up(self, reason: str) -> None:
        """Leave it to the poll for the time being, and say so unless it has been said.

        Args:
            reason: what is wrong, and after a colon what may be worded differently each time.
        """
        if self._complaint.is_due(reason.partition(":")[0]):
            log.warning("Changes wait for the poll. %s", reason)
        self.error = reason

    def take_up(self) -> None:
        """Hints arrive, or do so again."""
        if self._complaint.is_over():
            log.info("Changes arrive at once again.")
        self.error = None

    def close(self) -> None:
        """Stop listening. The connection to the database is closed by its owner."""

    @classmethod
    def announce_write(cls, label: str, using: str) -> None:
        """The row of ``label`` has been written, and its transaction may still be open."""

    @classmethod
    def announce_commit(cls, label: str, using: str) -> None:
        """A write of the row of ``label`` has been committed. Never raises an Exception."""
