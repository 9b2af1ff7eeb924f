"""The SECRET_KEY of a site that was given none: made once, kept in a file."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from django.core.management.utils import get_random_secret_key


def secret_key(path: Path) -> str:
    """The key in the file ``path``, which is made, for its owner's eyes only, if need be."""
    with suppress(FileNotFoundError):
        return path.read_text()
    # mkstemp makes a file of mode 0600. Linked to its name when it is complete: of several
    # processes that start at once one wins, and none reads half a key.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(get_random_secret_key())
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
    return path.read_text()
