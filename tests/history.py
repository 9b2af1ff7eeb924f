"""A history of what several processes have seen of the settings, and what must be true of any.

The writers keep several settings equal to one token, which none uses twice. The token of each
committed write is in a ledger, in the order of the commits: it goes there in the same transaction,
once that holds the lock on the row. ``tests.stress`` makes such histories.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

#: What the settings are before the first write.
START = "start"


@dataclass(frozen=True)
class Seen:
    """What somebody has seen: the settings that are to be equal."""

    who: str
    """In whose order this is: a thread's, or that in which a process adopts what it reads."""
    at: float
    """By the clock that all processes of a machine share."""
    tokens: tuple[str, ...]
    least: str | None = None
    """What the same process had committed before it looked; None: nothing, or not known."""


@dataclass
class Verdict:
    """What is wrong with a history, by kind."""

    torn: list[Seen] = field(default_factory=list)
    """Settings of two states at once."""
    uncommitted: list[Seen] = field(default_factory=list)
    """Of a transaction that was rolled back, or had not ended, or of its middle."""
    backwards: list[tuple[Seen, Seen]] = field(default_factory=list)
    """An older state after a newer one."""
    forgotten: list[Seen] = field(default_factory=list)
    """A state older than what the same process had committed."""
    behind: list[str] = field(default_factory=list)
    """Who was there in the end, and had not seen the last state."""

    def __bool__(self) -> bool:
        return any(getattr(self, kind.name) for kind in fields(self))

    def __str__(self) -> str:
        found = ((kind.name, getattr(self, kind.name)) for kind in fields(self))
        return "; ".join(f"{name}: {len(them)}, {them[:2]}" for name, them in found if them)


def check(ledger: Sequence[str], history: Iterable[Seen], present: Iterable[str]) -> Verdict:
    """Compare what was seen with what was committed.

    Args:
        ledger: the tokens in the order of their commits.
        history: what everybody has seen, that of each in their order.
        present: who was there in the end.
    """
    order = {token: number for number, token in enumerate([START, *ledger])}
    verdict = Verdict()
    last: dict[str, Seen] = {}
    for seen in history:
        token = seen.tokens[0]
        if len(set(seen.tokens)) != 1:
            verdict.torn.append(seen)
        elif token not in order:
            verdict.uncommitted.append(seen)
        else:
            before = last.get(seen.who)
            if before and order[token] < order[before.tokens[0]]:
                verdict.backwards.append((before, seen))
            if seen.least is not None and order[token] < order[seen.least]:
                verdict.forgotten.append(seen)
            last[seen.who] = seen
    newest = ledger[-1] if ledger else START
    verdict.behind = [who for who in present if who not in last or last[who].tokens[0] != newest]
    return verdict


def recall(folder: Path) -> list[Seen]:
    """What processes have noted in ``folder``; the last line of one that was killed may be half."""
    return [
        Seen(f"{file.stem}, {who}", at, tuple(tokens), least)
        for file in sorted(folder.glob("*.seen"))
        for line in file.read_text().splitlines(keepends=True)
        if line.endswith("\n")
        for who, at, tokens, least in [json.loads(line)]
    ]
