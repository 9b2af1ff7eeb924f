"""manage.py siteconfig <verb>."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import Error as DatabaseError
from django.utils.timezone import now

from siteconfig import fleet
from siteconfig.exceptions import SecretKeyError
from siteconfig.history import How, attributed_to
from siteconfig.models import config_models
from siteconfig.sealing import State, seal_anew

if TYPE_CHECKING:
    from django.core.management.base import CommandParser


class Command(BaseCommand):
    help = "Look after the settings that are edited in the admin."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", metavar="verb", required=True)
        status = verbs.add_parser(
            "status", help="Show which processes read the settings, and what each has read."
        )
        status.add_argument(
            "--json", dest="as_json", action="store_true", help="as one JSON object a model"
        )
        verbs.add_parser(
            "rotate-keys", help="Seal every stored secret with the newest key, the first one."
        )

    def handle(self, *args: Any, verb: str, **options: Any) -> None:
        {"status": self.status, "rotate-keys": self.rotate_keys}[verb](**options)

    def status(self, *, as_json: bool, **options: Any) -> None:
        """Print the fleet of each config model. Exits with 1 if a process is behind."""
        try:
            reports = [fleet.report(model) for model in config_models()]
        except DatabaseError as error:
            raise CommandError(f"The database cannot be asked: {error}") from error
        for report in reports:
            self.stdout.write(_as_json(report) if as_json else "\n".join(_as_text(report)))
        if any(report.behind for report in reports):
            raise CommandError("Not every process has read the settings as they are.", returncode=1)

    def rotate_keys(self, **options: Any) -> None:
        """Seal every secret anew. Exits with 1 if no key opens one; that one is left as it is."""
        left = False
        for model in config_models():
            try:
                with attributed_to(how=How.COMMAND, reason="rotate-keys"):
                    before = seal_anew(model)
            except (SecretKeyError, DatabaseError) as error:
                raise CommandError(f"{model._meta.label}: {error}") from error
            for name, state in before.items():
                self.stdout.write(f"{model._meta.label}: {name} {OUTCOMES[state]}")
                left |= state is State.UNREADABLE
        if left:
            raise CommandError(
                "Put the keys that sealed what was left back into SITECONFIG['SECRET_KEYS'], after "
                "the newest, and run this again.",
                returncode=1,
            )


#: What has become of a secret that was sealed so.
OUTCOMES = {
    State.EMPTY: "is not set",
    State.NEWEST: "was sealed with the newest key already",
    State.OLDER: "is now sealed with the newest key",
    State.PLAIN: "was stored in plain and is now sealed",
    State.UNREADABLE: "was left as it is: no key opens it",
}


def _as_json(report: fleet.Report) -> str:
    content = asdict(report) | {"live": report.live}
    return json.dumps(content, cls=DjangoJSONEncoder)


def _as_text(report: fleet.Report) -> list[str]:
    if report.obstacle:
        return [
            f"{report.model}: version {report.version}. Processes are not noted. {report.obstacle}"
        ]
    of = len(report.processes)
    lines = [
        f"{report.model}: version {report.version}, live in {report.live} of {of} "
        f"process{'' if of == 1 else 'es'}"
    ]
    rows = [
        (
            process.host,
            str(process.pid),
            str(process.version),
            f"{(now() - process.seen_at).total_seconds():.0f} s ago",
            "" if process.is_live else "behind",
        )
        for process in report.processes
    ]
    if rows:
        rows.insert(0, ("host", "process", "version", "last heard of", ""))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return lines
