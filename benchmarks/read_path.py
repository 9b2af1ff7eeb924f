"""What reading a setting costs, side by side in one run, with 10, 100 and 1,000 settings.

Run ``python benchmarks/read_path.py`` from the repository's root. All subjects are measured in
turn, several rounds, and the best round of each counts, so that noise from other processes hits
none of them alone. The exit code is 1 if one of the ratios that the project promises is missed.
"""

from __future__ import annotations

import platform
import sys
import tempfile
import timeit
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import django
from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import Callable

DIRECTORY = tempfile.TemporaryDirectory()
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": Path(DIRECTORY.name, "db.sqlite3"),
        }
    },
    INSTALLED_APPS=["siteconfig"],
    USE_TZ=True,
    X=30,
)
django.setup()

from django.core.cache import cache
from django.db import connection, models
from django.test.utils import CaptureQueriesContext

from siteconfig import ConfigManager
from siteconfig.models import ConfigModel

ROUNDS = 15
UNROLLED = 100


class Plain:
    """The cheapest a read can be."""

    def __init__(self) -> None:
        self.timeout = 30


class PlainWithGetattr(Plain):
    """What CPython 3.11 makes of a class that has ``__getattr__``: it does not specialise it."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


class PlainMethod:
    """The cheapest a read by name can be."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def get(self, name: str) -> Any:
        return self.values[name]


def config_model(count: int) -> Any:
    """A config model with ``count`` settings, its table and its row."""
    attributes: dict[str, Any] = {
        f"setting_{number}": models.IntegerField(default=number) for number in range(count - 1)
    }
    attributes |= {
        "timeout": models.IntegerField(default=30),
        "__module__": "siteconfig.models",
        "Meta": type("Meta", (), {"app_label": "siteconfig"}),
    }
    model: Any = type(f"Config{count}", (ConfigModel,), attributes)
    with connection.schema_editor() as editor:
        editor.create_model(model)
    model.objects.bulk_create([model()])
    return model


def best(subjects: dict[str, tuple[str, Any, int]]) -> dict[str, float]:
    """Nanoseconds per read of each subject: its statement, the object ``o`` in it, how often."""
    timers: dict[str, Callable[[], float]] = {}
    for name, (statement, subject, number) in subjects.items():
        unrolled = UNROLLED if number > UNROLLED else 1
        timer = timeit.Timer("\n".join([statement] * unrolled), globals={"o": subject})
        times = max(1, number // unrolled)
        timers[name] = lambda timer=timer, times=times, reads=times * unrolled: (  # type: ignore[misc]
            timer.timeit(times) / reads * 1e9
        )
    rounds = [{name: timer() for name, timer in timers.items()} for _ in range(ROUNDS)]
    return {name: min(one[name] for one in rounds) for name in timers}


def measure(count: int) -> dict[str, float]:
    model = config_model(count)
    manager = ConfigManager(model)
    snapshot = manager.snapshot()
    with CaptureQueriesContext(connection) as queries:
        calls = count_cache_calls(lambda: (manager.timeout, manager.get_setting("TIMEOUT")))
    assert len(queries) == 0, "a warm read made a query"
    assert calls == 0, "a warm read called the cache"
    by_name = PlainMethod({f"SETTING_{n}": n for n in range(count)} | {"TIMEOUT": 30})
    return best(
        {
            "plain attribute": ("o.timeout", Plain(), 200_000),
            "plain attribute, class with __getattr__": ("o.timeout", PlainWithGetattr(), 200_000),
            "config.timeout": ("o.timeout", manager, 200_000),
            "snapshot.timeout": ("o.timeout", snapshot, 200_000),
            "plain method with a dict look-up": ("o.get('TIMEOUT')", by_name, 100_000),
            "config.get_setting('TIMEOUT')": ("o.get_setting('TIMEOUT')", manager, 100_000),
            "django.conf.settings.X": ("o.X", settings, 50_000),
            "SiteConfiguration.get_solo().timeout": ("o.get_solo().timeout", model, 20),
        }
    )


def count_cache_calls(read: Callable[[], object]) -> int:
    calls = 0
    original = type(cache).__getattr__

    def counted(self: Any, name: str) -> Any:
        nonlocal calls
        calls += 1
        return original(self, name)

    type(cache).__getattr__ = counted  # type: ignore[method-assign]
    try:
        read()
    finally:
        type(cache).__getattr__ = original  # type: ignore[method-assign]
    return calls


def main() -> int:
    counts = [10, 100, 1000]
    results = {count: measure(count) for count in counts}
    python = f"{platform.python_implementation()} {platform.python_version()}"
    print(f"{python}, Django {django.__version__}; nanoseconds per read, best of {ROUNDS} rounds\n")
    print(f"{'settings in the model':42}" + "".join(f"{count:>12,}" for count in counts))
    for name in results[10]:
        print(f"{name:42}" + "".join(f"{results[count][name]:12,.1f}" for count in counts))
    specialised = sys.version_info >= (3, 12)
    baseline = "plain attribute" + ("" if specialised else ", class with __getattr__")
    promises: list[tuple[str, Callable[[dict[str, float]], float], str, float]] = [
        (
            f"config.timeout / {baseline}",
            lambda one: one["config.timeout"] / one[baseline],
            "at most",
            1.5,
        ),
        (
            "django.conf.settings.X / config.timeout",
            lambda one: one["django.conf.settings.X"] / one["config.timeout"],
            "at least",
            8,
        ),
        (
            "config.get_setting / plain method",
            lambda one: (
                one["config.get_setting('TIMEOUT')"] / one["plain method with a dict look-up"]
            ),
            "at most",
            2.5,
        ),
    ]
    print("\nratios; a warm read made no query and no cache call")
    kept = True
    for name, ratio, direction, bound in promises:
        ratios = [ratio(results[count]) for count in counts]
        good = all(one <= bound if direction == "at most" else one >= bound for one in ratios)
        kept &= good
        shown = "".join(f"{one:12.2f}" for one in ratios)
        print(f"{name:42.42}{shown}   {direction} {bound}: {'yes' if good else 'NO'}")
    growth = results[1000]["config.timeout"] / results[10]["config.timeout"]
    print(f"config.timeout with 1,000 settings / with 10: {growth:.2f}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
