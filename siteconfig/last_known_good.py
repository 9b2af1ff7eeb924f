"""The last-known-good file: the settings for a process that starts while the database is away.

The file is a fixture of one object, as ``dumpdata`` writes it, so that each field stores its value
in the form that is safe to store.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import tempfile
from contextlib import suppress
from datetime import datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core import serializers
from django.core.serializers.json import DjangoJSONEncoder

from siteconfig.conf import conf, model_label
from siteconfig.secret import UNREADABLE, unreadable_secrets
from siteconfig.snapshot import Snapshot

if TYPE_CHECKING:
    from siteconfig.models import ConfigModel

log = logging.getLogger("siteconfig.last_known_good")

# Files that could not be written, and about which that has been said.
_complained: set[Path] = set()


def path_of(model: type[ConfigModel]) -> Path | None:
    """The file of ``model``; None: none is kept.

    ``SITECONFIG["LAST_KNOWN_GOOD"]`` names that of the default model. Any other model's stands
    beside it, under the model's label: processes that use different models do not undo each other.
    """
    if not conf.LAST_KNOWN_GOOD:
        return None
    path = Path(conf.LAST_KNOWN_GOOD)
    label = model._meta.label_lower
    return path if label == model_label().lower() else path.with_name(f"{path.name}.{label}")


def keep(model: type[ConfigModel], snapshot: Snapshot) -> bool:
    """Write what is now known to be good, unless the file says so already; never raises.

    A row that is missing, or that a field could not read, is not: the file stays as it is. A
    secret that no key opens is as good as any: the file has it as it is stored.

    Returns:
        Whether the file is as it should be, or none is kept; False: it could not be written.
    """
    path = path_of(model)
    if path is None or snapshot._source != "row" or {*snapshot._unreadable.values()} - {UNREADABLE}:
        return True
    try:
        content = _dumped(model, snapshot)
        if _present(path) != content:
            _write(path, content)
        _complained.discard(path)
    except Exception as error:  # noqa: BLE001 - it is kept for bad times; the good go on without
        if path not in _complained:
            _complained.add(path)
            log.warning("The last known good settings cannot be written to %s: %s", path, error)
        return False
    return True


def recall(model: type[ConfigModel]) -> Snapshot | None:
    """What the file says; None if there is none, or none that can be trusted. Never raises."""
    path = path_of(model)
    if path is None:
        return None
    try:
        return _loaded(model, _read(path))
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - whatever is in the file, the defaults are left
        log.warning("The last known good settings in %s are not used: %s", path, error)
        return None


def _dumped(model: type[ConfigModel], snapshot: Snapshot) -> str:
    row = model._from_snapshot(snapshot, using=None)
    return str(serializers.serialize("json", [row], cls=ExactEncoder, indent=1))


class ExactEncoder(DjangoJSONEncoder):
    """Django's, which cuts times down to milliseconds; this one does not."""

    def default(self, o: Any) -> Any:
        return o.isoformat() if isinstance(o, datetime | time) else super().default(o)


def _present(path: Path) -> str | None:
    with suppress(OSError, ValueError):  # there is none, or it is somebody else's: it is replaced
        return path.read_text("utf-8")
    return None


def _write(path: Path, content: str) -> None:
    """Replace the file as a whole, so that nobody reads half of it, not even after a power cut."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(path: Path) -> str:
    """The file's text, if nobody else can have written it.

    Raises:
        PermissionError: it belongs to somebody else, or others may write it.
    """
    with path.open(encoding="utf-8") as file:
        about = os.fstat(file.fileno())
        if hasattr(os, "geteuid") and about.st_uid not in {0, os.geteuid()}:
            raise PermissionError("The file belongs to another user.")
        if os.name == "posix" and about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError("Others may write the file; make it chmod 600.")
        return file.read()


def _loaded(model: type[ConfigModel], content: str) -> Snapshot:
    """The settings in ``content``.

    Raises:
        ValueError: it is of another model, or has other fields than the model has now.
    """
    (entry,) = json.loads(content)
    if entry["model"] != model._meta.label_lower:
        raise ValueError(f"It is of the model {entry['model']}, not {model._meta.label_lower}.")
    fields: Any = model._meta.concrete_fields
    names = {field.name for field in fields if field.serialize}
    if other := sorted(names ^ set(entry["fields"])):
        raise ValueError(f"It was written by another release: the fields differ in {other}.")
    (loaded,) = serializers.deserialize("json", content)
    row: Any = loaded.object
    # From __dict__: the descriptor of a file field would wrap the name that is stored.
    values = {
        name: field.to_python(row.__dict__[name]) for name, field in model.setting_fields().items()
    }
    return Snapshot(
        model._meta.label,
        values,
        version=row.version,
        source="file",
        unreadable=unreadable_secrets(values),
    )
