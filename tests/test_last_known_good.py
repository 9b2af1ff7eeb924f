"""The last-known-good file: written as a whole, private, and trusted only if it fits."""

from __future__ import annotations

import json
import logging
import os
import stat
from contextlib import contextmanager
from decimal import Decimal
from errno import ENOSPC
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection

from siteconfig import ConfigManager, config, last_known_good
from siteconfig.backoff import FIRST
from siteconfig.models import ConfigModel, SiteConfiguration
from siteconfig.watcher import Subject
from tests.concurrency import PATIENCE, Failpoint, Started, in_thread, wait_until
from tests.testapp.models import ShopConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.concurrency import Changes


@pytest.fixture
def file(tmp_path: Path, settings: Any) -> Path:
    """Where the file is to be."""
    path = tmp_path / "settings.json"
    settings.SITECONFIG = {"LAST_KNOWN_GOOD": path}
    return path


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it, and the database is away from then on, for a process that has read nothing."""

    def leave() -> None:
        def read(*args: Any) -> None:
            raise OperationalError("connection refused")

        monkeypatch.setattr(ConfigModel, "read", read)
        for manager in (config, ConfigManager(ShopConfig)):
            manager.reset()

    return leave


@pytest.mark.django_db(transaction=True)
class TestKeeping:
    def test_a_start_without_the_database_has_the_values_of_the_last_one(
        self, file: Path, away: Any
    ) -> None:
        """And says from where."""
        config.set_settings(timeout=45, site_name="Tea", page_size=7)
        away()
        assert (config.timeout, config.site_name) == (45, "Tea")
        assert config.get_setting("page_size") == 7
        assert config.status().source == "file"
        assert config.explain("timeout").source == "file"
        assert config.snapshot().version == 1

    def test_every_kind_of_field_comes_back_as_it_was(self, file: Path, away: Any) -> None:
        """Decimal, duration, date, JSON, foreign key, date and time."""
        shop = ConfigManager(ShopConfig)
        shop.set_settings(tax="7.50", tags=["a", {"b": None}], opened="2026-01-02")
        before = dict(shop.snapshot())
        assert before["tax"] == Decimal("7.50")
        away()
        assert dict(shop.snapshot()) == before
        assert shop.status().source == "file"

    def test_only_its_owner_may_read_it(self, file: Path) -> None:
        """Whatever the umask is: there may be secrets in it."""
        before = os.umask(0)
        try:
            config.set_setting("timeout", 45)
        finally:
            os.umask(before)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_it_is_replaced_as_a_whole_and_only_if_it_changes(self, file: Path) -> None:
        """Whoever reads it has the old one or the new one; nothing is left beside it."""
        config.set_setting("timeout", 45)
        first = file.stat().st_ino
        config.reload()
        assert file.stat().st_ino == first
        config.set_setting("timeout", 46)
        assert file.stat().st_ino != first
        assert os.listdir(file.parent) == [file.name]  # noqa: PTH208 - names are wanted

    def test_the_first_read_writes_it(self, file: Path) -> None:
        """Not only a change."""
        _ = config.timeout
        assert json.loads(file.read_text())[0]["fields"]["timeout"] == 30

    def test_it_is_a_fixture(self, file: Path) -> None:
        """As dumpdata writes it: whatever form a field stores itself in, it is that one."""
        config.set_setting("timeout", 45)
        SiteConfiguration.objects.update(timeout=46)
        saved = file.with_name("saved.json")
        saved.write_text(file.read_text().replace("46", "44"))
        call_command("loaddata", str(saved), verbosity=0)
        assert config.timeout == 44

    def test_another_models_file_stands_beside_it(self, file: Path) -> None:
        """Under its label."""
        ConfigManager(ShopConfig).set_setting("currency", "CHF")
        beside = file.with_name("settings.json.testapp.shopconfig")
        assert json.loads(beside.read_text())[0]["fields"]["currency"] == "CHF"
        assert not file.exists()

    @pytest.mark.sqlite
    def test_what_is_not_known_to_be_good_does_not_replace_it(self, file: Path) -> None:
        """A missing row, an unreadable value."""
        config.set_setting("timeout", 45)
        kept = file.read_text()
        with connection.cursor() as cursor:
            cursor.execute("UPDATE siteconfig_siteconfiguration SET timeout = 'x'")
        config.reload()
        assert config.status().unreadable == ("timeout",)
        SiteConfiguration.objects.all().delete()
        config.reload()
        assert config.status().source == "default"
        assert file.read_text() == kept

    def test_a_file_that_cannot_be_read_is_replaced(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As one that root has made in migrate."""
        file.write_text("somebody else's")

        def fail(*args: Any) -> None:
            raise PermissionError

        monkeypatch.setattr("pathlib.Path.read_text", fail)
        config.set_setting("timeout", 45)
        monkeypatch.undo()
        assert json.loads(file.read_text())[0]["fields"]["timeout"] == 45

    def test_a_file_that_cannot_be_written_is_reported_once(
        self, file: Path, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """And nothing else happens."""
        settings.SITECONFIG = {"LAST_KNOWN_GOOD": file / "no" / "such" / "folder"}
        config.set_setting("timeout", 45)
        config.set_setting("timeout", 46)
        assert config.timeout == 46
        assert [record.levelname for record in caplog.records] == ["WARNING"]

    @pytest.mark.sqlite
    def test_an_unreadable_value_falls_back_to_it(self, file: Path) -> None:
        """In a process that has read nothing yet."""
        config.set_setting("timeout", 45)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE siteconfig_siteconfiguration SET timeout = 'x', retry_count = 5")
        config.reset()
        assert (config.timeout, config.retry_count) == (45, 5)
        assert config.explain("timeout").source == "last known good"


@contextmanager
def full_disk() -> Iterator[list[Path]]:
    """Meanwhile no file can be written; gives the attempts at it."""
    attempts: list[Path] = []

    def write(path: Path, content: str) -> None:
        attempts.append(path)
        raise OSError(ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as context:
        context.setattr(last_known_good, "_write", write)
        yield attempts


def timeout_in(file: Path) -> int:
    """What the file says."""
    (entry,) = json.loads(file.read_text())
    timeout: int = entry["fields"]["timeout"]
    return timeout


def is_unkept() -> bool:
    """Whether the file is to be written again."""
    return config._state.unkept


@pytest.mark.django_db(transaction=True)
class TestKeepingUp:
    """The file comes to say what is held, whatever goes wrong or crosses on the way."""

    def test_two_writes_that_cross(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The one that is stopped on its way sees at its end that there is something newer."""
        pause, write = Failpoint(), last_known_good._write

        def stopped_write(path: Path, content: str) -> None:
            if '"timeout": 45' in content:
                pause()
            write(path, content)

        monkeypatch.setattr(last_known_good, "_write", stopped_write)
        writer = Started(lambda: config.set_setting("timeout", 45))
        assert pause.reached.wait(PATIENCE)
        config.set_setting("timeout", 46)
        assert timeout_in(file) == 46
        pause.released.set()
        writer.result()
        assert (config.timeout, timeout_in(file)) == (46, 46)

    def test_a_write_that_failed_is_made_up_for(
        self, file: Path, settings: Any, siteconfig_watcher: None
    ) -> None:
        """By the watcher, though nothing changes, and it has nothing else to do than to poll."""
        settings.SITECONFIG = {"LAST_KNOWN_GOOD": file, "FLEET": False}
        assert config.timeout == 30
        wait_until(lambda: config.status().transport != "none")
        with full_disk() as attempts:
            config.set_setting("timeout", 45)
            # By the writer, by the watcher that it wakes, and by the watcher after a pause.
            wait_until(lambda: len(attempts) > 2)
            assert timeout_in(file) == 30
        wait_until(lambda: timeout_in(file) == 45)

    def test_it_is_tried_again_after_pauses(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That grow, and begin anew after a success, whoever has it."""
        clock = [1000.0]
        monkeypatch.setattr("siteconfig.backoff.monotonic", lambda: clock[0])
        monkeypatch.setattr("random.uniform", lambda least, most: most)
        subject = Subject(config)
        with full_disk() as attempts:
            config.set_setting("timeout", 45)
            for pause in (FIRST, 2 * FIRST):
                made = len(attempts)
                subject.make_up()
                subject.make_up()  # too early: it does nothing
                assert len(attempts) == made + 1
                assert subject.make_up_at() == pytest.approx(clock[0] + pause)
                clock[0] = subject.make_up_at()
        config.reload()
        assert timeout_in(file) == 45
        subject.make_up()
        assert subject.make_up_at() == inf
        with full_disk():
            config.set_setting("timeout", 46)
            assert subject.make_up_at() == -inf

    def test_nothing_is_left_to_make_up_for(self, file: Path, settings: Any) -> None:
        """Where none is kept, or what is held is not to be; or everything is forgotten."""
        with full_disk():
            config.set_setting("timeout", 45)
            assert is_unkept()
            SiteConfiguration.objects.all().delete()
            assert not is_unkept()
            config.set_setting("timeout", 46)
            assert is_unkept()
            config.reset()
            assert not is_unkept()
            settings.SITECONFIG = {}
            config.set_setting("timeout", 47)
            assert not is_unkept()


@pytest.mark.django_db(transaction=True)
class TestTrust:
    @pytest.fixture(autouse=True)
    def _kept(self, file: Path) -> None:
        config.set_setting("timeout", 45)

    def is_used(self, away: Any, caplog: pytest.LogCaptureFixture) -> bool:
        away()
        used = config.timeout == 45
        assert config.status().source == ("file" if used else "default")
        told = [one for one in caplog.records if one.name == "siteconfig.last_known_good"]
        assert used or len(told) == 1
        return used

    def test_as_it_was_written(self, away: Any, caplog: Any) -> None:
        """It is used."""
        assert self.is_used(away, caplog)

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(lambda entry: entry["fields"].pop("timeout"), id="a-field-less"),
            pytest.param(lambda entry: entry["fields"].update(more=1), id="a-field-more"),
            pytest.param(lambda entry: entry.update(model="testapp.shopconfig"), id="a-model"),
            pytest.param(lambda entry: entry["fields"].update(timeout="soon"), id="a-type"),
            pytest.param(lambda entry: entry.clear(), id="nothing"),
        ],
    )
    def test_another_set_of_fields_is_refused(
        self, file: Path, away: Any, caplog: Any, content: Any
    ) -> None:
        """It was written by another release, or for something else."""
        (entry,) = json.loads(file.read_text())
        content(entry)
        file.write_text(json.dumps([entry]))
        assert not self.is_used(away, caplog)

    @pytest.mark.parametrize("text", ["", "{", "[]", "\0", '[{"model": 5}]', "[" * 100_000])
    def test_a_broken_file_is_refused(self, file: Path, away: Any, caplog: Any, text: str) -> None:
        """Half a file, somebody's edit: the defaults are left."""
        file.write_text(text)
        assert not self.is_used(away, caplog)

    def test_a_file_that_others_may_write_is_refused(
        self, file: Path, away: Any, caplog: Any
    ) -> None:
        """They would set this site's settings by it."""
        file.chmod(0o666)
        assert not self.is_used(away, caplog)

    def test_somebody_elses_file_is_refused(
        self, away: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever it is, but root."""
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        monkeypatch.setattr(
            os, "fstat", lambda fd: os.stat_result([0o100600, 0, 0, 0, 777, *[0] * 5])
        )
        assert not self.is_used(away, caplog)

    def test_the_row_wins_as_soon_as_it_can_be_read(
        self, away: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The file is for the time without a database."""
        SiteConfiguration.objects.update(timeout=46)
        with monkeypatch.context() as context:

            def fail(*args: Any) -> None:
                raise OperationalError

            context.setattr(ConfigModel, "read", fail)
            config.reset()
            assert in_thread(lambda: config.timeout) == 46
            assert config.status().source == "file"
        config.reload()
        assert config.status().source == "row"

    def test_the_row_is_told_if_it_says_other_than_what_was_served(
        self, monkeypatch: pytest.MonkeyPatch, changes: Changes
    ) -> None:
        """Whoever has read the file's value, or acted on it, hears of the new one."""
        with connection.cursor() as cursor:  # which the file does not hear of
            cursor.execute("UPDATE siteconfig_siteconfiguration SET timeout = 46")
        with monkeypatch.context() as context:

            def fail(*args: Any) -> None:
                raise OperationalError

            context.setattr(ConfigModel, "read", fail)
            config.reset()
            assert config.timeout == 45
        config.reload()
        assert (config.timeout, changes.timeouts[-1:]) == (46, [(45, 46)])

    def test_the_log_says_what_is_served(self, away: Any, caplog: Any) -> None:
        """The values of the file, not the defaults."""
        away()
        with caplog.at_level(logging.WARNING, "siteconfig"):
            _ = config.timeout
        assert "values of the last-known-good file" in caplog.text
