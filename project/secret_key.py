"""The keys of a site that was given none: each made once, kept in a file."""

from __future__ import annotations

import base64
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from django.core.management.utils import get_random_secret_key

if TYPE_CHECKING:
    from collections.abc import Callable


def fernet_key() -> str:
    """A key for secret settings, as ``Fernet.generate_key()`` makes it."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def secret_key(path: Path, make: Callable[[], str] = get_random_secret_key) -> str:
    """The key in the file ``path``, which is made, for its owner's eyes only, if need be."""
    with suppress(FileNotFoundError):
        return path.read_text()
    # mkstemp makes a file of mode 0600. Linked to its name when it is complete: of several
    # processes that start at once one wins, and none reads half a key.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(make())
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
    return path.read_text()
