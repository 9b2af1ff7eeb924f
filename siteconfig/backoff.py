"""Backoff: when to try again what has failed."""

from __future__ import annotations

import random
from math import inf
from time import monotonic

#: Seconds of the first pause at most, and of the longest.
FIRST, LONGEST = 0.1, 30.0


class Backoff:
    """Pauses of random length, whose greatest length doubles with each failure, up to 30 s.

    From nothing to the greatest ("full jitter"), so that processes that lost the same server at
    the same moment do not come back together. After an outage the pause left is, on average,
    half as long as the outage was.

    Args:
        patience: how many times 30 s the longest pause is.

    Attributes:
        failures: how many there were since the last success.
        until: the end of the pause, by the clock ``monotonic``.
    """

    def __init__(self, patience: float = 1) -> None:
        self.patience = patience
        self.reset()

    def is_over(self) -> bool:
        """Whether it is time to try."""
        return monotonic() >= self.until

    def retry_at(self) -> float:
        """When to try again, by the same clock; without end if nothing has failed."""
        return self.until if self.failures else inf

    def failed(self) -> None:
        """It has failed again: pause."""
        longest = min(self.patience * LONGEST, FIRST * 2 ** min(self.failures, 20))
        self.until = monotonic() + random.uniform(0, longest)  # noqa: S311 - guards nothing
        self.failures += 1

    def reset(self) -> None:
        """It has succeeded."""
        self.failures, self.until = 0, -inf
