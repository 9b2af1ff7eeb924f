"""Faults that the suite must find: each is put into a copy of the app, and some test must fail.

Run it with ``make mutants``; it takes half an hour and is no part of ``make test``. A fault whose
text is no longer found stops the run: bring it up to date with the code.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Mutant(NamedTuple):
    """A fault, as the text of a module that is replaced by another one.

    Attributes:
        tests: the modules of tests that find it; none: those that are ``USUAL`` for the module.
    """

    fault: str
    module: str
    found: str
    replaced: str
    tests: tuple[str, ...] = ()

    def tests_to_run(self) -> list[str]:
        """Their files, in the repository."""
        return [f"tests/{module}.py" for module in self.tests or USUAL[self.module]]


FAILPOINTS = ("test_failpoints",)
CORE = (
    *("test_config_manager", "test_transactions", "test_receivers", "test_models", "test_async"),
    *("test_snapshot", "test_testing", "test_state_machine"),
)
LOGGING = ("test_handlers", "test_logger", "test_redaction", "test_formatters")
SECRETS = (
    *("test_secret_field", "test_secret_form", "test_secrets", "test_crypto", "test_sealing"),
    "test_redaction",
)

#: The modules of tests that find most faults, by the module that a fault is put into.
USUAL = {
    **dict.fromkeys(("config_manager", "connections", "models", "row", "snapshot"), CORE),
    **dict.fromkeys(("handlers", "redaction"), LOGGING),
    **dict.fromkeys(("admin", "crypto", "fields", "secret", "widgets"), SECRETS),
    "fleet": ("test_fleet",),
}


MUTANTS = [
    Mutant(
        "two managers for the default model",
        "config_manager",
        "return None if label == conf.model_label().lower() else label",
        "return label",
    ),
    Mutant(
        "every first reader loads",
        "config_manager",
        "if not given_up and (others is None or monotonic() >= deadline):",
        "if not given_up:",
    ),
    Mutant(
        "an uncommitted value is held for all",
        "config_manager",
        "        write = PendingWrite(connection, transaction, self._after_commit)\n",
        "        write = PendingWrite(connection, transaction, self._after_commit)\n"
        "        self._publish(self._read_row(None, connection), state.generation)\n",
    ),
    Mutant(
        "a load inside a transaction uses its connection",
        "config_manager",
        "if transaction is not None or orm_refuses() or not is_ours(connections[alias]):",
        "if orm_refuses() or not is_ours(connections[alias]):",
    ),
    Mutant(
        "own writes are not seen",
        "config_manager",
        "return own[-1] if own else None",
        "return None",
    ),
    Mutant(
        "everybody sees anybody's writes",
        "config_manager",
        "                if write.connection is connection or write.transaction is awaited\n",
        "",
    ),
    Mutant(
        "a transaction's view is read once",
        "config_manager",
        "if write.view is None or write.view_at != now:",
        "if write.view is None:",
    ),
    Mutant(
        "a transaction's view is read each time",
        "config_manager",
        "if write.view is None or write.view_at != now:",
        "if True:",
    ),
    Mutant(
        "rolled-back writes go on standing",
        "connections",
        'return any(getattr(hook[1], "__self__", None) is self for hook in hooks)',
        "return bool(list(hooks))",
    ),
    Mutant(
        "rollbacks to a savepoint are not noticed",
        "connections",
        "self.rollbacks += 1",
        "pass",
    ),
    Mutant(
        "an ended transaction is taken for a rolled-back savepoint",
        "config_manager",
        "if all(write.transaction.goes_on() for write in ended):",
        "if True:",
    ),
    Mutant(
        "what is read again does not count as stored",
        "models",
        "        self._remember(fields)\n",
        "",
    ),
    Mutant(
        "what a signal handler has put into force is replaced by what is older",
        "config_manager",
        "        while turn != state.settled:\n",
        "        while turn is None:\n",
        ("test_config_manager",),
    ),
    Mutant(
        "a signal handler may publish in the middle of a publication",
        "config_manager",
        "            loaded_at, seen_at = datetime.now(UTC), monotonic()\n"
        "            if state.generation != generation:\n                return False\n",
        "            if state.generation != generation:\n                return False\n"
        "            loaded_at, seen_at = datetime.now(UTC), monotonic()\n",
        ("test_config_manager",),
    ),
    Mutant(
        "a signal handler waits for the read of its own thread",
        "config_manager",
        "with self._reading():\n                    snapshot = self._read(transaction)\n",
        "if True:\n                    snapshot = self._read(transaction)\n",
        ("test_config_manager",),
    ),
    Mutant(
        "a fork inside another leaves the watcher locked",
        "watcher",
        "            self._forkers.pop()\n",
        "            self._forkers.clear()\n",
        ("test_config_manager",),
    ),
    Mutant(
        "locks stay locked in a child",
        "config_manager",
        "        state.lock, state.reading = RLock(), local()\n",
        "        state.reading = local()\n",
    ),
    Mutant(
        "one savepoint is like another",
        "connections",
        "if savepoint in still_open]",
        "if False]",
    ),
    Mutant(
        "on_commit of the default database",
        "config_manager",
        "        connection = connections[self._alias()]\n        return connection if",
        '        connection = connections["default"]\n        return connection if',
        ("test_databases",),
    ),
    Mutant(
        "on_commit with autocommit off",
        "connections",
        "if connection.in_atomic_block:\n            connection.on_commit",
        "if True:\n            connection.on_commit",
    ),
    Mutant(
        "an old load is published",
        "config_manager",
        "if state.generation != generation:",
        "if False:",
    ),
    Mutant(
        "publishing does not outdate loads under way",
        "config_manager",
        "            state.generation += 1\n            state.committed, state.fresh",
        "            state.committed, state.fresh",
    ),
    Mutant(
        "a failed load raises",
        "config_manager",
        "                return self._fall_back()\n            finally:",
        "                raise\n            finally:",
    ),
    Mutant(
        "code inside of a read is given the defaults",
        "config_manager",
        "        if state.committed is not None:\n            return state.committed\n",
        "",
    ),
    Mutant(
        "a database that is down is asked at each read",
        "config_manager",
        "state.retry_at = now + pause",
        "state.retry_at = 0",
    ),
    Mutant(
        "a warning at each failed read",
        "config_manager",
        "if log_it := last is None or now - last >= REMIND_INTERVAL:",
        "if log_it := True:",
    ),
    Mutant(
        "reading makes the row",
        "row",
        "        if stored is None:\n",
        "        if stored is None:\n            self.model.objects.create()\n",
    ),
    Mutant(
        "reads go where reads of models go",
        "config_manager",
        "return router.db_for_write(self._model())",
        "return router.db_for_read(self._model())",
        ("test_databases",),
    ),
    Mutant(
        "snapshots are not frozen",
        "snapshot",
        "frozen = {name: freeze(value) for name, value in values.items()}",
        "frozen = dict(values)",
    ),
    Mutant(
        "receivers are told before the commit",
        "config_manager",
        "            self._enlist(transaction)\n        else:\n            with self._state.lock:",
        "            self._tell_inside(self._enlist(transaction))\n"
        "        else:\n            with self._state.lock:",
    ),
    Mutant(
        "the first change of a process is not told",
        "config_manager",
        "if state.told is None and using == self._alias():",
        "if False:",
    ),
    Mutant(
        "receivers are told under the lock",
        "config_manager",
        "while (change := self._next_change()) is not None:\n                self._send(*change)",
        "while (change := self._next_change()) is not None:\n"
        "                with state.lock:\n                    self._send(*change)",
    ),
    Mutant(
        "a receiver's own change is told inside the one before",
        "config_manager",
        "            if state.telling:\n                return\n",
        "",
    ),
    Mutant(
        "a receiver's error goes to the writer",
        "config_manager",
        "config_changed.send_robust(",
        "config_changed.send(",
    ),
    Mutant(
        "an executed callback publishes",
        "config_manager",
        "        if connection is not None and connection.in_atomic_block:\n"
        "            self._tell_inside(write)\n            return\n",
        "",
    ),
    Mutant(
        "update() is not announced",
        "models",
        "        bulk_write_done.send(self.model, using=self.db)\n",
        "",
    ),
    Mutant(
        "an override belongs to its thread",
        "config_manager",
        "            self._state.overrides += (layer,)\n            self._settle()\n"
        "        return layer",
        "            self._state.overrides += (layer,)\n            self._settle()\n"
        "            object.__setattr__(self, '__dict__', {})\n"
        "            self._state.by_name.names = {}\n"
        "            from threading import current_thread\n"
        "            everybodys, own = ConfigManager._overridden, current_thread()\n"
        "            ConfigManager._overridden = lambda self: (\n"
        "                everybodys(self) if current_thread() is own else {}\n"
        "            )\n"
        "        return layer",
    ),
    Mutant(
        "an override asks the database",
        "config_manager",
        "            state.by_name.names = by_name(overridden)\n            return\n",
        "            state.by_name.names = by_name({})\n            return\n",
    ),
    Mutant(
        "validators do not run",
        "models",
        "            self.full_clean(exclude=",
        "            self.__str__() if True else self.full_clean(exclude=",
    ),
    Mutant(
        "writers do not wait for each other",
        "models",
        "        if not can_lock:\n            cls._lock_row(using)\n",
        "",
    ),
    Mutant(
        "an instance saves every column",
        "models",
        'return {"update_fields": self._changed_fields()}',
        "return {}",
    ),
    Mutant(
        "a new instance resets the row",
        "models",
        "if row_exists and self._state.adding:",
        "if False:",
    ),
    Mutant(
        "one bad value fails the row",
        "row",
        "            except Exception:  # noqa: BLE001 - a converter meets",
        "            except KeyboardInterrupt:  #",
    ),
    Mutant(
        "what replaces served defaults is not told",
        "config_manager",
        "                state.told = view\n        return view",
        "                pass\n        return view",
    ),
    Mutant(
        "one value that the driver cannot read fails the row",
        "row",
        "isinstance(error, DataError | ValueError)",
        "False",
        FAILPOINTS,
    ),
    Mutant(
        "one text that is not UTF-8 fails the row",
        "row",
        ' or "Could not decode to UTF-8" in str(error)',
        "",
    ),
    Mutant(
        "what a driver says of a value is shown",
        "config_manager",
        'said = "" if is_about_a_value(error) else str(error).strip()',
        "said = str(error).strip()",
    ),
    Mutant(
        "a column is asked for as a text that is none",
        "row",
        '"blob" if connection.vendor == "sqlite" else "text"',
        '"text"',
    ),
    Mutant(
        "a child writes through its parent's descriptor",
        "handlers",
        "        handler._forget()\n\n\nif hasattr",
        "        handler\n\n\nif hasattr",
    ),
    Mutant(
        "a renamed file is written on",
        "handlers",
        "if there.st_ino != self._inode or there.st_dev != self._device:",
        "if self._descriptor == CLOSED:",
    ),
    Mutant(
        "everybody who finds the file full renames it",
        "handlers",
        "if not locked or not _same_file(self._descriptor, self.path):",
        "if not locked:",
    ),
    Mutant(
        "a lock that is held is waited for",
        "handlers",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_EX",
    ),
    Mutant(
        "a half line stays",
        "handlers",
        "            self._take_back(written)\n",
        "",
    ),
    Mutant(
        "a half line is cut off with what others have written",
        "handlers",
        "if os.fstat(self._descriptor).st_size == end:",
        "if True:",
    ),
    Mutant(
        "a failed write is raised",
        "handlers",
        "        except Exception as error:  # noqa: BLE001 - logging must not",
        "        except KeyboardInterrupt as error:  # noqa: BLE001 - logging must not",
    ),
    Mutant(
        "stderr gets a line for each record",
        "handlers",
        "if self._complained is not None and now - self._complained < COMPLAIN_INTERVAL:",
        "if False:",
    ),
    Mutant(
        "control characters are written",
        "handlers",
        "return text if text.isprintable() else one_line(text)",
        "return text",
    ),
    Mutant(
        "secrets are written",
        "handlers",
        "        text = redacted(text)\n",
        "",
    ),
    Mutant(
        "a changed secret is written",
        "redaction",
        "if self._seen is not Held.mark:",
        "if self._seen is None:",
    ),
    Mutant(
        "a symbolic link is followed",
        "handlers",
        '    | getattr(os, "O_NOFOLLOW", 0)\n',
        "",
    ),
    Mutant(
        "a second row is possible",
        "fields",
        'return f"{connection.ops.quote_name(str(self.column))} = {ROW_ID}"',
        'return f"{connection.ops.quote_name(str(self.column))} > 0"',
        ("test_models",),
    ),
    Mutant(
        "a connection to a database in memory is the parent's",
        "connections",
        "        if each.connection is not None and not is_in_memory:\n",
        "        if each.connection is not None:\n",
        ("test_users_suites",),
    ),
    Mutant(
        "a test listens to the database of the site",
        "watcher",
        "        if transports.under_test_runner() and direct is not None:\n",
        "        if False:\n",
        ("test_transports",),
    ),
    Mutant(
        "each 503 is mailed to ADMINS",
        "views",
        "    response._has_been_logged = True",
        "    response._has_been_logged = False",
        ("test_health",),
    ),
    Mutant(
        "changes arrive, says the status of an outage",
        "watcher",
        '        self._show(f"The database {self.alias!r} cannot be read.")\n',
        "",
        ("test_outages",),
    ),
    Mutant(
        "a refused LISTEN is never tried again",
        "transports/postgres",
        "            self._backoff.failed()\n            self.give_up(",
        "            self.give_up(",
        ("test_outages",),
    ),
    Mutant(
        "a backup beside SQLite's log of writes is not noticed",
        "transports/polling",
        "        return there.st_dev, there.st_ino, index\n",
        "        return there.st_dev, there.st_ino, 0\n",
        ("test_outages",),
    ),
    Mutant(
        "a connection to SQLite is always of use",
        "watcher",
        "            if not _is_usable(connection):\n",
        "            if not connection.is_usable():\n",
        FAILPOINTS,
    ),
    Mutant(
        "a broken way past the pooler takes the other connection along",
        "watcher",
        "            self._connect(own_connection(self.alias, direct), listen=True)\n",
        "            self.close()\n"
        "            self._connect(own_connection(self.alias, direct), listen=True)\n",
        FAILPOINTS,
    ),
    Mutant(
        "another failure than the one that was said is not said",
        "transports/base",
        "if what == self._standing or monotonic()",
        "if self._standing is not None or monotonic()",
        ("test_transports",),
    ),
    Mutant(
        "the way past the pooler is tried once",
        "watcher",
        "        is_due = is_down or monotonic() >= self._detour.retry_at()\n",
        "        is_due = is_down\n",
        FAILPOINTS,
    ),
    Mutant(
        "the watcher reads first, and listens then",
        "watcher",
        "            if listen:\n"
        "                self.transport.open(connection)\n"
        "        except BaseException:\n"
        "            self.transport.close()\n"
        "            with suppress(Exception):\n"
        "                close(connection)\n"
        "            raise\n"
        "        former, self._connection = self._connection, connection\n"
        "        self._raw = connection.connection\n"
        "        connections[self.alias] = connection  # for this thread's use of the ORM\n"
        "        if former is not None:\n"
        "            with suppress(Exception):\n"
        "                close(former)\n"
        "        self._hint_at = inf\n"
        "        # Nobody has kept for us what was said meanwhile.\n"
        "        for subject in self.subjects.values():\n"
        "            subject.start_anew()\n",
        "            for subject in self.subjects.values():\n"
        "                subject.start_anew()\n"
        "                subject.look(connection)\n"
        "            if listen:\n"
        "                self.transport.open(connection)\n"
        "        except BaseException:\n"
        "            self.transport.close()\n"
        "            with suppress(Exception):\n"
        "                close(connection)\n"
        "            raise\n"
        "        former, self._connection = self._connection, connection\n"
        "        self._raw = connection.connection\n"
        "        connections[self.alias] = connection  # for this thread's use of the ORM\n"
        "        if former is not None:\n"
        "            with suppress(Exception):\n"
        "                close(former)\n"
        "        self._hint_at = inf\n",
        FAILPOINTS,
    ),
    Mutant(
        "a new connection begins without a look",
        "watcher",
        "return may_have_changed or self._reader is None or not state.fresh or bool(state.error)",
        "return may_have_changed",
        FAILPOINTS,
    ),
    Mutant(
        "there is no poll",
        "watcher",
        "            self._poll_at = now + self._interval\n",
        "            self._poll_at = inf\n",
        FAILPOINTS,
    ),
    Mutant(
        "the thread is awake all through an outage",
        "watcher",
        "return self._backoff.until if self._backoff.failures else self._poll_at",
        "return self._poll_at",
        FAILPOINTS,
    ),
    Mutant(
        "a dead connection is found by the next poll only",
        "watcher",
        "return min(self._hint_at, self.transport.due_at(), self._detour.retry_at(), *subjects)",
        "return min(self._hint_at, self._detour.retry_at(), *subjects)",
        FAILPOINTS,
    ),
    Mutant(
        "a connection that Django has reopened is taken for the link's",
        "watcher",
        "return connection if connection and connection.connection is self._raw else None",
        "return connection",
        FAILPOINTS,
    ),
    Mutant(
        "each hint is worth a look",
        "watcher",
        "self._hint_at = max(monotonic() + spread, self._looked_at + SHORTEST_GAP)",
        "self._hint_at = -inf",
        FAILPOINTS,
    ),
    Mutant(
        "a wake of long ago ends each wait",
        "watcher",
        "if any(key.fd == self._out.fileno() for key, _events in ready):",
        "if ready and not self._bell.locked():",
        FAILPOINTS,
    ),
    Mutant(
        "an error that nobody has thought of ends the watcher",
        "watcher",
        "            except BaseException:\n                # Nobody",
        "            except OSError:\n                # Nobody",
        FAILPOINTS,
    ),
    Mutant(
        "an error of the question whether to go on ends the watcher",
        "watcher",
        "        while not waker.is_end:\n"
        "            try:\n"
        "                if not transports.in_use():\n"
        "                    break\n",
        "        while not waker.is_end and transports.in_use():\n            try:\n",
        FAILPOINTS,
    ),
    Mutant(
        "a watcher that could not be started is never started",
        "config_manager",
        "        if any(answer is False for _receiver, answer in answers):\n",
        "        if not answers:\n",
        ("test_transports",),
    ),
    Mutant(
        "each slow read tries to start the watcher",
        "watcher",
        "            elif not self._backoff.is_over():\n                return False\n",
        "",
        ("test_transports",),
    ),
    Mutant(
        "who comes while the watcher is started takes it for started",
        "watcher",
        "        if not self._lock.acquire(blocking=False):\n            return False\n",
        "        if not self._lock.acquire(blocking=False):\n            return True\n",
        ("test_transports",),
    ),
    Mutant(
        "others are told after the commit only",
        "transports/postgres",
        "    def announce_write(cls, label: str, using: str) -> None:",
        "    def announce_commit(cls, label: str, using: str) -> None:",
        FAILPOINTS,
    ),
    Mutant(
        "a server without NOTIFY fails who writes",
        "transports/postgres",
        "with nullcontext() if using in cls._takers else transaction.atomic(using=using):",
        "with nullcontext():",
        FAILPOINTS,
    ),
    Mutant(
        "others are told before the commit",
        "receivers",
        "transports.announce_write(sender._meta.label_lower, using)",
        "transports.announce_commit(sender._meta.label_lower, using)",
        FAILPOINTS,
    ),
    Mutant(
        "others are not told of own writes",
        "receivers",
        "        transports.announce_write(sender._meta.label_lower, using)\n",
        "        pass\n",
        FAILPOINTS,
    ),
    Mutant(
        "nobody publishes in Redis",
        "receivers",
        "        transports.announce_commit(sender._meta.label_lower, using)\n",
        "        pass\n",
        FAILPOINTS,
    ),
    Mutant(
        "others are told the values",
        "receivers",
        "transports.announce_write(sender._meta.label_lower, using)",
        "transports.announce_write(str(vars(kwargs.get('instance', sender)))[:7000], using)",
        FAILPOINTS,
    ),
    Mutant(
        "a hint that comes with an answer waits for the next one",
        "transports/postgres",
        "        return bool(self._notified)\n",
        "        return False\n",
        FAILPOINTS,
    ),
    Mutant(
        "a pooler that swallows notifications is not noticed",
        "transports/postgres",
        "is_pooled = _backend_pid(connection) != raw.info.backend_pid",
        "is_pooled = False",
        FAILPOINTS,
    ),
    Mutant(
        "a pooler is found out by a LISTEN, which stays",
        "transports/postgres",
        "if is_pooled and self._is_shared(connection):",
        "if False:",
        FAILPOINTS,
    ),
    Mutant(
        "no look after a new subscription",
        "transports/redis",
        "        self.take_up()\n        return True\n",
        "        self.take_up()\n        return False\n",
        FAILPOINTS,
    ),
    Mutant(
        "a Redis that does not answer is never given up",
        "transports/redis",
        "if self._pinged_at is not None and now - self._pinged_at >= PING_AFTER:",
        "if False:",
        FAILPOINTS,
    ),
    Mutant(
        "a file in the database's place is not noticed",
        "transports/polling",
        "if self._which_file() != self._file:",
        "if False:",
        FAILPOINTS,
    ),
    Mutant(
        "higher versions win",
        "config_manager",
        "if state.generation != generation:",
        "if state.generation != generation or (\n"
        "                state.committed and snapshot.version < state.committed.version\n"
        "            ):",
        FAILPOINTS,
    ),
    Mutant(
        "what was read before a commit is published after it",
        "config_manager",
        "            if self._publish(snapshot, generation):\n",
        "            if self._publish(snapshot, state.generation):\n",
        FAILPOINTS,
    ),
    Mutant(
        "an equal row is published",
        "config_manager",
        "if current is not None and same(current._stored, stored):",
        "if False:",
        FAILPOINTS,
    ),
    Mutant(
        "receivers hold up the watcher",
        "config_manager",
        "self._follow_up(aside=True)",
        "self._follow_up()",
        FAILPOINTS,
    ),
    Mutant(
        "what no thread could be had for is told with the next change",
        "watcher",
        "        self.manager._tell_left()\n",
        "        pass\n",
        FAILPOINTS,
    ),
    Mutant(
        "the watcher tells what a writer is about to",
        "config_manager",
        "        if self._state.untold:\n",
        "        if self._state.changes and not self._state.telling:\n",
        FAILPOINTS,
    ),
    Mutant(
        "of two writes of the file that cross the later one stays",
        "config_manager",
        "                if state.committed is snapshot:\n",
        "                if True:\n",
        ("test_last_known_good",),
    ),
    Mutant(
        "what a full disk has refused is kept with the next change",
        "watcher",
        "        return self._keep_backoff.until if self.manager._state.unkept else inf\n",
        "        return inf\n",
        ("test_last_known_good",),
    ),
    Mutant(
        "a full disk is tried without a pause",
        "watcher",
        "                self._keep_backoff.failed()\n",
        "                pass\n",
        ("test_last_known_good",),
    ),
    Mutant(
        "a child does not watch",
        "config_manager",
        "        state.telling, state.watch, state.asked = False, None, False\n",
        "        state.telling = False\n",
        FAILPOINTS,
    ),
    Mutant(
        "a child reads through its parent's connection",
        "connections",
        "return raw is not None and not any(raw is one for one in _inherited)",
        "return raw is not None",
        FAILPOINTS,
    ),
    Mutant(
        "a connection that is half open is waited for",
        "connections",
        '    if vendor == "postgresql":\n        _limit_waiting(connection)\n',
        "",
        FAILPOINTS,
    ),
    Mutant(
        "a connection whose answer was not waited for is used on",
        "connections",
        "                pgconn.finish()\n",
        "",
        FAILPOINTS,
    ),
    Mutant(
        "the watcher's transaction stays open",
        "connections",
        '"AUTOCOMMIT": True',
        '"AUTOCOMMIT": False',
        FAILPOINTS,
    ),
    Mutant(
        "no pause after a failure",
        "backoff",
        "self.until = monotonic() + random.uniform(0, longest)",
        "self.until = monotonic()",
        FAILPOINTS,
    ),
    Mutant(
        "the fleet view does without whoever has failed once",
        "fleet",
        "            self._backoff.failed()\n            self.close()\n",
        "            self._backoff.until = inf\n            self.close()\n",
        FAILPOINTS,
    ),
    Mutant(
        "a fleet in another database is waited for without end",
        "fleet",
        "            connections[alias] = self._own\n",
        "",
        FAILPOINTS,
    ),
    Mutant(
        "each change is worth a note",
        "fleet",
        "        if news and now < (due_at",
        "        if not news and now < (due_at",
    ),
    Mutant(
        "half of the row is read later than the other half",
        "row",
        "        rows = self._cursor.fetchall()\n",
        "        rows = self._cursor.fetchall()\n"
        "        rest = self._cursor.execute(self._sql, self._params).fetchall()\n"
        "        rows = [(*rows[0][:4], *rest[0][4:])] if rows and rest else rows\n",
        ("test_history",),
    ),
    Mutant(
        "the watcher does not look where a write has failed to tell",
        "watcher",
        "may_have_changed = is_hint or (is_poll and self.transport.may_have_changed())",
        "may_have_changed = is_hint",
        ("test_quiet",),
    ),
    Mutant(
        "a secret shows itself",
        "secret",
        'return "<Secret: set>" if self else "<Secret: not set>"',
        "return str.__repr__(self)",
    ),
    Mutant(
        "an empty secret matches nothing given",
        "secret",
        "if not self or given is None:",
        "if given is None:",
    ),
    Mutant(
        "without a key a secret is stored in plain",
        "crypto",
        "        raise SecretKeyError(why)\n",
        "        return str(secret)\n",
    ),
    Mutant(
        "a wrong key loses the secret",
        "fields",
        "return Secret.unreadable(str(text)) if plain is None",
        "return Secret() if plain is None",
    ),
    Mutant(
        "an unchanged secret is sealed anew",
        "fields",
        "        if is_same_again(held, value):\n            value = held\n",
        "",
    ),
    Mutant(
        "an empty input clears the secret",
        "widgets",
        "if not text and not given.is_cleared and is_held(initial):",
        "if False:",
    ),
    Mutant(
        "a viewer sees the secret",
        "admin",
        "setattr(obj, name, secret.described())",
        "pass",
    ),
    Mutant(
        "an error report shows what was to be stored",
        "config_manager",
        "        values = self._model().masked({name: value})\n"
        "        del value  # which an error report would show\n"
        "        self.set_settings(**values)\n",
        "        self.set_settings(**{name: value})\n",
        ("test_secrets",),
    ),
    Mutant(
        "text with control characters is stored",
        "storable",
        "if not is_storable_text(text) or (not is_secret and CONTROL.search(text)):",
        "if not is_storable_text(text):",
        ("test_input",),
    ),
    Mutant(
        "a line may turn its direction",
        "storable",
        '\\u202a-\\u202e\\u2066-\\u2069]")',
        ']")',
        ("test_input",),
    ),
    Mutant(
        "digits of any script are read",
        "storable",
        '    if "_" in text or any(one.isnumeric() and not one.isascii() for one in text):\n',
        '    if "_" in text:\n',
        ("test_input",),
    ),
    Mutant(
        "underscores are read",
        "storable",
        '    if "_" in text or any(',
        "    if any(",
        ("test_input",),
    ),
    Mutant(
        "SQLite takes any integer",
        "storable",
        "    if not low <= value <= high:\n",
        "    if False:\n",
        ("test_input",),
    ),
    Mutant(
        "decimals lose digits on SQLite",
        "storable",
        "if len(digits) > MOST_DIGITS or abs(int(exponent)) > MOST_DIGITS:",
        "if abs(int(exponent)) > MOST_DIGITS:",
        ("test_input",),
    ),
    Mutant(
        "a moment is none in another time zone",
        "storable",
        "    models.DateTimeField: check_moment,\n",
        "",
        ("test_input",),
    ),
    Mutant(
        "a duration overflows SQLite's integer",
        "storable",
        "    models.DurationField: check_duration,\n",
        "",
        ("test_input",),
    ),
    Mutant(
        "a float in JSON comes back as an integer",
        "storable",
        "if isinstance(value, float) and LARGEST_JSON_FLOAT <= abs(value) < math.inf:",
        "if False:",
        ("test_input",),
    ),
    Mutant(
        "JSON without end",
        "storable",
        "    if depth > DEEPEST:\n",
        "    if False:\n",
        ("test_input",),
    ),
    Mutant(
        "a text of any size",
        "storable",
        'if len(text) > LARGEST or len(text.encode(errors="replace")) > LARGEST:',
        "if False:",
        ("test_input",),
    ),
    Mutant(
        "NULL where it may not be",
        "storable",
        "        if not field.null:\n",
        "        if False:\n",
        ("test_input",),
    ),
    Mutant(
        "the form does not look at what it is given",
        "forms",
        "        if isinstance(part, str):\n",
        "        if False:\n",
        ("test_input",),
    ),
    Mutant(
        "the form does not look at what it makes of it",
        "forms",
        "        check_storable(setting, value)\n",
        "        pass\n",
        ("test_input",),
    ),
    Mutant(
        "the manager does not look at what it is given",
        "models",
        "    check_given(field, value)\n",
        "",
        ("test_input",),
    ),
    Mutant(
        "what is monstrous crashes the page that shows it again",
        "forms",
        "        except (ValueError, RecursionError):  # JSON",
        "        except KeyError:  # JSON",
        ("test_input",),
    ),
    Mutant(
        "what the database refuses crashes the page",
        "admin",
        "        except (DataError, IntegrityError) as error:",
        "        except KeyError as error:",
        ("test_input", "test_page"),
    ),
    Mutant(
        "one public address is enough",
        "public_urls",
        "if not all(map(is_public, addresses(host))):",
        "if not any(map(is_public, addresses(host))):",
        ("test_public_urls",),
    ),
    Mutant(
        "an IPv4 address hides in an IPv6 one",
        "public_urls",
        "            return is_public(inner)\n",
        "            return True\n",
        ("test_public_urls",),
    ),
    Mutant(
        "a user name in a URL",
        "public_urls",
        '    if "@" in parts.netloc:\n',
        "    if False:\n",
        ("test_public_urls",),
    ),
    Mutant(
        "a host that cannot be found is taken for a public one",
        "public_urls",
        "    if not found:\n",
        "    if False:\n",
        ("test_public_urls",),
    ),
    Mutant(
        "other settings wait for a name server",
        "fields",
        "value not in self.empty_values and value != stored",
        "value not in self.empty_values",
        ("test_public_urls",),
    ),
    Mutant(
        "an upload of the same name is lost",
        "models",
        '    if isinstance(value, File) and not getattr(value, "_committed", False):\n',
        "    if False:\n",
        ("test_kinds",),
    ),
    Mutant(
        "the key of another table is taken",
        "models",
        " or not isinstance(related, field.related_model):",
        ":",
        ("test_kinds",),
    ),
    Mutant(
        "a save and its record are two transactions",
        "models",
        "    if connection.in_atomic_block or not connection.get_autocommit():\n        yield\n",
        "    if True:\n        yield\n",
        ("test_changes",),
    ),
    Mutant(
        "what was changed past Django is put down to the next writer",
        "history",
        "    last = record_outside(model, using, before)\n",
        "    last = newest(model, using)\n",
        ("test_changes",),
    ),
    Mutant(
        "every save is recorded",
        "history",
        "    if not changed and (recorded is None or",
        "    if False and (recorded is None or",
        ("test_changes",),
    ),
    Mutant(
        "a secret is on record",
        "history",
        "            found[name] = Entry({}, _digest_of_secret(values[name]))\n",
        '            found[name] = Entry({"value": str(values[name])}, "x")\n',
        ("test_changes",),
    ),
    Mutant(
        "a secret sealed anew is a change",
        "history",
        "        if not is_same_secret(before.get(name), after.get(name))\n",
        "",
        ("test_changes",),
    ),
    Mutant(
        "records can be deleted one by one",
        "models",
        "    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:\n",
        "    def _delete(self, *args: Any, **kwargs: Any) -> NoReturn:\n",
        ("test_changes",),
    ),
    Mutant(
        "records can be deleted together",
        "models",
        "    def delete(self) -> NoReturn:\n        raise AppendOnlyError\n\n    def bulk_update",
        "    def bulk_update",
        ("test_changes",),
    ),
    Mutant(
        "a write fails before migrate",
        "history",
        "        if change_model()._meta.db_table not in connection",
        "        if False and change_model()._meta.db_table not in connection",
        ("test_changes",),
    ),
    Mutant(
        "who has changed a setting is forgotten by the next change",
        "history",
        "record.pk if origin == 0 else origin",
        "record.pk",
        ("test_changes",),
    ),
    Mutant(
        "the watcher does not look at the history",
        "watcher",
        "            subject.check_history(self.alias, fleet_size)\n",
        "",
        ("test_changes",),
    ),
    Mutant(
        "everything to a moment takes the newest old values",
        "history",
        "            first.setdefault(name, one)\n",
        "            first[name] = one\n",
        ("test_changes",),
    ),
    Mutant(
        "the second editor wins silently",
        "forms",
        "        return their == was or self._choose(name, theirs, mine)\n",
        "        return True\n",
        ("test_page",),
    ),
    Mutant(
        "what others have changed is written over",
        "forms",
        "            if not (field.name in self._given or self._is_touched(field.name)):\n",
        "            if False:\n",
        ("test_page",),
    ),
    Mutant(
        "a choice about one value holds for another",
        "forms",
        "        if choice in {THEIRS, their}:\n            return choice == their\n",
        '        if choice != "None":\n            return choice != THEIRS\n',
        ("test_page",),
    ),
    Mutant(
        "a forged field is saved",
        "admin",
        "        if form.edited & {*self._forbidden(request), *self._pins()}:\n",
        "        if False:\n",
        ("test_page",),
    ),
    Mutant(
        "whoever may change may go back",
        "admin",
        "        if not self.has_revert_permission(request):\n            raise PermissionDenied\n",
        "",
        ("test_page",),
    ),
    Mutant(
        "whoever may look sees the history",
        "admin",
        "        if not self.has_history_permission(request):\n",
        "        if False:\n",
        ("test_page",),
    ),
    Mutant(
        "a review saves",
        "forms",
        "        return super().is_valid() and not self.is_preview\n",
        "        return super().is_valid()\n",
        ("test_page",),
    ),
    Mutant(
        "a reset is held to what was entered",
        "forms",
        "                self.errors.pop(field.name, None)\n",
        "",
        ("test_page",),
    ),
    Mutant(
        "a pin is a default only",
        "config_manager",
        "        values = self._pinned()\n        for layer",
        "        values: dict[str, Any] = {}\n        for layer",
        ("test_pins",),
    ),
    Mutant(
        "a pinned setting can be set",
        "models",
        "                if (pin := pinned.get(name if name in fields else EXTRA)) is not None:\n",
        "                if (pin := None) is not None:\n",
        ("test_pins",),
    ),
    Mutant(
        "a reset keeps the pins of the environment before",
        "config_manager",
        "        self.committed = self.defaults = self.told = self.pins = None\n",
        "        self.committed = self.defaults = self.told = None\n",
        ("test_pins",),
    ),
    Mutant(
        "pins that ended while they were looked up are kept",
        "config_manager",
        "                if state.generation == generation:  # else they may have",
        "                if True:  # else they may have",
        ("test_pins",),
    ),
    Mutant(
        "the settings module wins over the environment",
        "pins",
        "            pins[name] = Pin(_value(model, name, one), one.origin)\n",
        "            pins.setdefault(name, Pin(_value(model, name, one), one.origin))\n",
        ("test_pins",),
    ),
    Mutant(
        "receivers hear of what a pin hides",
        "config_manager",
        "            old, new = old.replaced(pinned), new.replaced(pinned)\n",
        "            pass\n",
        ("test_pins",),
    ),
]


def survives(mutant: Mutant) -> str | None:
    """Why this fault was not found, or None."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory, "copy")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "*.sqlite3*", "*.log"))
        file = copy / "siteconfig" / f"{mutant.module}.py"
        source = file.read_text()
        if source.count(mutant.found) != 1:
            return f"its text is in {mutant.module}.py {source.count(mutant.found)} times, not once"
        file.write_text(source.replace(mutant.found, mutant.replaced))
        tests = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        tests += mutant.tests_to_run()
        try:
            ran = subprocess.run(  # noqa: S603 - our own tests
                tests, cwd=copy, capture_output=True, text=True, timeout=300, check=False
            )
        except subprocess.TimeoutExpired:
            return None  # it hangs, which nobody overlooks
        found = ran.returncode == 1
        return None if found else f"pytest ended with {ran.returncode}:\n{ran.stdout[-2000:]}"


def main(words: list[str]) -> int:
    chosen = [one for one in MUTANTS if all(word in f"{one.module}: {one.fault}" for word in words)]
    alive = 0
    with ThreadPoolExecutor(2) as pool:
        for mutant, why in zip(chosen, pool.map(survives, chosen), strict=True):
            alive += why is not None
            sys.stdout.write(f"{'found' if why is None else 'MISSED'}  {mutant.fault}\n")
            if why is not None:
                sys.stdout.write(f"  {why}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - alive} of {len(chosen)} faults found\n")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
