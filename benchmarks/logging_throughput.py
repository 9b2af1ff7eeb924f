"""Lines per second of log files, side by side in one run: one process, and 8 with rotation.

Run ``python benchmarks/logging_throughput.py`` from the repository's root. Each subject writes the
same lines through the standard ``logging`` tree; every line is then looked for. The rounds of the
subjects take turns, and the best of each counts. The exit code is 1 if a promised ratio is missed
or LogFileHandler has lost or torn a line.
"""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import platform
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from concurrent_log_handler import ConcurrentRotatingFileHandler

from siteconfig.formatters import TEXT, TextFormatter
from siteconfig.handlers import LogFileHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[str, int], logging.Handler]

PADDING = "x" * 60
PROCESSES = 8
LINES = 20_000
MAX_BYTES = 100_000
BACKUPS = 1_000
ROUNDS = 9


def ours(path: str, max_bytes: int) -> logging.Handler:
    """As Logger sets it up."""
    handler = LogFileHandler(path, max_bytes=max_bytes, backups=BACKUPS)
    handler.setFormatter(TextFormatter())
    return handler


def formatted(handler: logging.Handler) -> logging.Handler:
    """The same lines, made by logging's own formatter."""
    handler.setFormatter(logging.Formatter(TEXT))
    return handler


def concurrent(path: str, max_bytes: int) -> logging.Handler:
    return formatted(ConcurrentRotatingFileHandler(path, maxBytes=max_bytes, backupCount=BACKUPS))


def rotating(path: str, max_bytes: int) -> logging.Handler:
    return formatted(
        logging.handlers.RotatingFileHandler(path, maxBytes=max_bytes, backupCount=BACKUPS)
    )


def plain(path: str, max_bytes: int) -> logging.Handler:
    return formatted(logging.FileHandler(path))


def write(make: Make, path: str, name: str, max_bytes: int) -> None:
    handler = make(path, max_bytes)
    logger = logging.getLogger(f"benchmark.{name}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    for number in range(LINES):
        logger.info("%s %d %s", name, number, PADDING)
    logger.removeHandler(handler)
    handler.close()


def started(barrier: Any, *arguments: Any) -> None:
    barrier.wait()
    write(*arguments)


def one_process(make: Make) -> float:
    """Lines per second."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        write(make, str(Path(folder, "x.log")), "p0", 0)
        return LINES / (time.perf_counter() - began)


def many_processes(make: Make) -> tuple[float, int, int, int]:
    """Lines per second; lost and torn lines; rotated files."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.log")
        barrier = context.Barrier(PROCESSES + 1)
        processes = [
            context.Process(target=started, args=(barrier, make, str(path), f"p{n}", MAX_BYTES))
            for n in range(PROCESSES)
        ]
        for process in processes:
            process.start()
        barrier.wait()
        began = time.perf_counter()
        for process in processes:
            process.join()
        took = time.perf_counter() - began
        files = list(Path(folder).glob("x.log*"))
        found = Counter(
            line.partition(" INFO ")[2] for file in files for line in file.read_text().splitlines()
        )
        expected = {f"p{n} {line} {PADDING}" for n in range(PROCESSES) for line in range(LINES)}
        lost = len(expected - found.keys())
        torn = sum(count for line, count in found.items() if line not in expected)
        return PROCESSES * LINES / took, lost, torn, len(files) - 1


def main() -> int:
    logging.raiseExceptions = False  # RotatingFileHandler's errors would fill the screen
    singles: dict[str, Make] = {
        "logging.FileHandler": plain,
        "concurrent-log-handler": concurrent,
        "siteconfig LogFileHandler": ours,
    }
    speed = dict.fromkeys(singles, 0.0)
    for _ in range(ROUNDS):
        for name, make in singles.items():
            speed[name] = max(speed[name], one_process(make))
    print(f"{platform.python_implementation()} {platform.python_version()}, lines per second\n")
    print(f"one process, {LINES:,} lines, no rotation")
    for name, lines in speed.items():
        print(f"  {name:30}{lines:10,.0f}")
    slower = speed["logging.FileHandler"] / speed["siteconfig LogFileHandler"]
    kept = "yes" if slower <= 1.3 else "NO"
    print(f"  FileHandler is {slower:.2f} times as fast; at most 1.3: {kept}")

    manies = {
        "logging RotatingFileHandler": rotating,
        "concurrent-log-handler": concurrent,
        "siteconfig LogFileHandler": ours,
    }
    results: dict[str, list[tuple[float, int, int, int]]] = {name: [] for name in manies}
    for _ in range(ROUNDS // 3):
        for name, make in manies.items():
            results[name].append(many_processes(make))
    print(f"\n{PROCESSES} processes, {LINES:,} lines each, rotation at {MAX_BYTES:,} bytes")
    print(f"  {'':30}{'lines/s':>10}{'lost':>10}{'torn':>8}{'rotations':>11}")
    for name, rounds in results.items():
        fastest = max(one[0] for one in rounds)
        lost, torn, rotations = (max(one[n] for one in rounds) for n in (1, 2, 3))
        print(f"  {name:30}{fastest:10,.0f}{lost:10,}{torn:8,}{rotations:11,}")
    best = {name: max(one[0] for one in rounds) for name, rounds in results.items()}
    faster = best["siteconfig LogFileHandler"] / best["concurrent-log-handler"]
    whole = all(one[1] == one[2] == 0 for one in results["siteconfig LogFileHandler"])
    print(
        f"  {faster:.2f} times as fast as concurrent-log-handler; at least 1.5: "
        f"{'yes' if faster >= 1.5 else 'NO'}; nothing lost or torn: {'yes' if whole else 'NO'}"
    )
    return 0 if slower <= 1.3 and faster >= 1.5 and whole else 1


if __name__ == "__main__":
    sys.exit(main())
