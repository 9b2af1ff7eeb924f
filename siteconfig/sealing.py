"""How the stored secrets of a config model are sealed, and sealing them anew."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from django.db import connections, router, transaction

from siteconfig import crypto
from siteconfig.fields import ROW_ID
from siteconfig.secret import Secret

if TYPE_CHECKING:
    from siteconfig.models import ConfigModel
    from siteconfig.snapshot import Snapshot


class State(Enum):
    """How a stored secret is sealed, in words that follow its name."""

    EMPTY = "is not set"
    NEWEST = "is sealed with the newest key"
    OLDER = "is sealed with an older key"
    PLAIN = "is stored in plain"
    UNREADABLE = "is opened by no key"

    @property
    def is_outdated(self) -> bool:
        """It can be sealed anew, and should be."""
        return self in {State.OLDER, State.PLAIN}


def states(model: type[ConfigModel]) -> dict[str, State]:
    """How each secret in the row of ``model`` is sealed.

    Raises:
        django.db.Error: the row cannot be read.
    """
    return _states(model, model.read(connections[router.db_for_write(model)]))


def seal_anew(model: type[ConfigModel]) -> dict[str, State]:
    """Seal with the newest key what is not, unless no key opens it; how each secret was before.

    Raises:
        SecretKeyError: there is no key to seal with.
        django.db.Error: the row cannot be read or written.
    """
    using = router.db_for_write(model)
    with transaction.atomic(using=using):
        if not model._lock_row(using):
            return {}
        row = model.read(connections[using])
        before = _states(model, row)
        # New secrets, so that they are sealed and not written back as they are stored.
        anew = {name: Secret(row[name]) for name, state in before.items() if state.is_outdated}
        if anew:
            model._default_manager.using(using).filter(pk=ROW_ID).update(**anew)
    return before


def _states(model: type[ConfigModel], row: Snapshot) -> dict[str, State]:
    return {name: _state(row, name) for name in model.secret_fields()}


def _state(row: Snapshot, name: str) -> State:
    secret = row[name]
    if name in row._unreadable:
        return State.UNREADABLE
    if not secret:
        return State.EMPTY
    if secret.is_stored_in_plain:
        return State.PLAIN
    return State.NEWEST if crypto.is_newest(secret.stored) else State.OLDER
