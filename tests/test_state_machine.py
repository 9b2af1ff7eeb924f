"""Any order of writes, transactions and rollbacks, against a simple model (G2, G3, G4, G12)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from siteconfig import config
from siteconfig.models import SiteConfiguration
from siteconfig.signals import config_changed
from tests.concurrency import Changes, in_thread
from tests.test_transactions import (
    RollBackError,
    bulk_update_timeout,
    save_timeout,
    set_timeout,
    update_timeout,
)

DEFAULT = 30
values = st.integers(1, 300)

Timeout = int | Literal["no row"]


def fail() -> None:
    raise RollBackError


class Machine(RuleBasedStateMachine):
    """The model: the committed timeout, the present one, and one to go back to per savepoint."""

    @initialize()
    def start(self) -> None:
        SiteConfiguration.objects.all().delete()
        SiteConfiguration.objects.create(timeout=DEFAULT)
        config.reset()
        self.committed: Timeout = DEFAULT
        self.present: Timeout = DEFAULT
        self.hook_fails = False
        self.blocks: list[tuple[Any, Timeout, bool]] = []
        self.stale: SiteConfiguration | None = None
        self.changes = Changes()
        config_changed.connect(self.changes)

    def teardown(self) -> None:
        if hasattr(self, "blocks"):
            while self.blocks:
                self.roll_back()
            config_changed.disconnect(self.changes)

    def wrote(self, value: Timeout) -> None:
        self.present = value
        if not self.blocks:
            self.committed = value

    @rule(value=values)
    def set_setting(self, value: int) -> None:
        set_timeout(value)
        self.wrote(value)

    @precondition(lambda self: self.present != "no row")
    @rule(value=values, write=st.sampled_from([save_timeout, update_timeout, bulk_update_timeout]))
    def write(self, value: int, write: Any) -> None:
        write(value)
        self.wrote(value)

    @rule()
    def load_an_instance(self) -> None:
        self.stale = SiteConfiguration.objects.first()

    @precondition(lambda self: self.stale is not None)
    @rule(value=values)
    def save_the_instance(self, value: int) -> None:
        assert self.stale is not None
        self.stale.timeout = value
        with suppress(SiteConfiguration.DoesNotExist):
            self.stale.save(update_fields=["timeout"] if self.present != "no row" else None)
        self.wrote(value)
        self.stale = None

    @rule()
    def delete(self) -> None:
        SiteConfiguration.objects.all().delete()
        self.wrote("no row")

    @rule(value=values)
    def refused(self, value: int) -> None:
        with suppress(ValueError, Exception):
            config.set_settings(timeout=value, retry_count=99)

    @precondition(lambda self: len(self.blocks) < 4)
    @rule()
    def begin(self) -> None:
        block = transaction.atomic()
        block.__enter__()
        self.blocks.append((block, self.present, self.hook_fails))

    @precondition(lambda self: self.blocks)
    @rule()
    def commit(self) -> None:
        block, _before, _failed = self.blocks.pop()
        if self.blocks:
            block.__exit__(None, None, None)
            return
        if self.hook_fails:
            with pytest.raises(RollBackError):
                block.__exit__(None, None, None)
        else:
            block.__exit__(None, None, None)
        self.committed, self.hook_fails = self.present, False

    @precondition(lambda self: self.blocks)
    @rule()
    def roll_back(self) -> None:
        block, self.present, self.hook_fails = self.blocks.pop()
        block.__exit__(RollBackError, RollBackError(), None)

    @precondition(lambda self: self.blocks)
    @rule()
    def let_a_hook_fail(self) -> None:
        transaction.on_commit(fail)
        self.hook_fails = True

    @rule()
    def reset(self) -> None:
        config.reset()

    @rule()
    def reload(self) -> None:
        config.reload()

    @rule()
    def begin_and_roll_back_elsewhere(self) -> None:
        if not self.blocks:
            in_thread(self._write_and_roll_back)

    def _write_and_roll_back(self) -> None:
        with transaction.atomic():
            set_timeout(299)
            transaction.set_rollback(True)

    @invariant()
    def readers_see_what_they_should(self) -> None:
        if not hasattr(self, "present"):
            return
        assert config.timeout == shown(self.present)
        assert config.snapshot().timeout == config.get_setting("TIMEOUT") == shown(self.present)
        assert in_thread(lambda: config.timeout) == shown(self.committed)

    @invariant()
    def receivers_are_told_of_committed_states_one_after_the_other(self) -> None:
        if not hasattr(self, "changes"):
            return
        for (_old, new), (old, _new) in zip(
            self.changes.timeouts, self.changes.timeouts[1:], strict=False
        ):
            assert new == old
        if self.changes:
            assert self.changes.timeouts[-1][1] == shown(self.committed)


def shown(timeout: Timeout) -> int:
    return DEFAULT if timeout == "no row" else timeout


@pytest.mark.django_db(transaction=True)
def test_any_order_of_writes_and_rollbacks() -> None:
    """Writers see their own state, others the committed one, receivers each commit once."""
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=200,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert not connection.in_atomic_block
