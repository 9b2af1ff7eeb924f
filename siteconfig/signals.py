"""The signals of this app."""

from __future__ import annotations

from django.dispatch import Signal

#: Sent once per change in each process, after the commit, in the order of the commits.
#: ``sender``: the config model. ``old``, ``new``: Snapshots. ``changed``: frozenset of names.
#: A receiver may read and write settings and may raise: its error is logged, the others still run.
config_changed = Signal()

#: Internal: sent around the writes that Django announces by no signal of its own (``update``,
#: ``bulk_create``). ``sender``: the config model. ``using``: the database alias.
bulk_write_starts = Signal()
bulk_write_done = Signal()

#: Internal: sent by a manager of which a reader has asked something, while nothing keeps it up to
#: date. ``sender``: the config model. A receiver that returns False is to be asked again.
settings_read = Signal()

#: Internal: sent after a write of this process has been committed. ``sender``: the config model.
#: ``using``: the database alias.
write_committed = Signal()

#: Internal: sent in the watcher's thread, through whose connection the database may be asked, when
#: the row may have been changed past Django. ``sender``: the config model. ``using``: the database
#: alias. ``held``, ``known``: the Snapshot that is held, and one held before.
change_noticed = Signal()
