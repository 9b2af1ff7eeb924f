"""The keyring, and the text that masks itself."""

from __future__ import annotations

import copy
import json
import pickle
import pprint
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from siteconfig import crypto
from siteconfig.exceptions import SecretKeyError
from siteconfig.secret import Secret
from tests.keys import OTHER_KEY, SECRETS_KEY, THIRD_KEY, opened, sealed

CANARY = "canary-5e1f-0123456789"

quickly = hypothesis_settings(max_examples=500, deadline=None)


def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SITECONFIG_SECRET_KEYS")


class TestSealing:
    @quickly
    @given(st.text(st.characters(codec=None), min_size=1))
    def test_what_is_sealed_is_opened_again(self, plain: str) -> None:
        """Any text of Python, NUL and half surrogate pairs too, and never the same twice."""
        first, second = crypto.seal(Secret(plain)), crypto.seal(Secret(plain))
        assert crypto.opened(first) == crypto.opened(second) == plain
        assert first != second
        assert plain not in first or len(plain) < 5
        assert crypto.is_sealed(first)

    def test_it_is_what_fernet_makes(self) -> None:
        """So that anybody with the key can open it, without this app."""
        assert opened(crypto.seal(Secret(CANARY))) == CANARY
        assert crypto.opened(sealed(CANARY)) == CANARY

    def test_another_key_does_not_open_it(self) -> None:
        """Nor does one that was changed, or cut."""
        assert crypto.opened(sealed(CANARY, OTHER_KEY)) is None
        token = sealed(CANARY)
        assert crypto.opened(f"{token[:30]}{'A' if token[30] != 'A' else 'B'}{token[31:]}") is None
        assert crypto.opened(token[:-4]) is None

    def test_what_is_no_text_of_ours_is_not_opened(self) -> None:
        """Bytes that are no UTF-8, sealed by somebody else with the same key."""
        assert crypto.opened(Fernet(SECRETS_KEY).encrypt(b"\xff\xfe").decode()) is None


class TestForm:
    @quickly
    @given(st.text())
    def test_no_text_is_taken_for_a_sealed_one(self, text: str) -> None:
        """Also if it begins like one."""
        assert not crypto.is_sealed(text)
        assert not crypto.is_sealed(f"gAAAA{text}")

    @quickly
    @given(st.binary(max_size=200))
    def test_a_sealed_one_is_told_without_the_key(self, plain: bytes) -> None:
        """By its form alone."""
        assert crypto.is_sealed(Fernet(Fernet.generate_key()).encrypt(plain).decode())

    def test_a_part_of_a_sealed_one_is_none(self) -> None:
        """Its length would not be right."""
        token = sealed(CANARY)
        assert not any(crypto.is_sealed(token[:length]) for length in range(len(token)))

    def test_it_is_told_without_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It must not be taken for a plain text where nothing can be opened."""
        monkeypatch.setattr(crypto, "fernet", None)
        assert crypto.is_sealed(sealed(CANARY))


class TestKeys:
    def test_the_newest_seals_and_all_open(self, settings: Any) -> None:
        """The first is the newest."""
        settings.SITECONFIG = {"SECRET_KEYS": [OTHER_KEY, SECRETS_KEY]}
        token = crypto.seal(Secret(CANARY))
        assert opened(token, OTHER_KEY) == CANARY
        assert crypto.is_newest(token)
        old = sealed(CANARY, SECRETS_KEY)
        assert crypto.opened(old) == CANARY
        assert not crypto.is_newest(old)

    def test_they_are_read_live(self, settings: Any) -> None:
        """Each override counts at once, and its end."""
        token = sealed(CANARY, OTHER_KEY)
        assert crypto.opened(token) is None
        settings.SITECONFIG = {"SECRET_KEYS": [OTHER_KEY]}
        assert crypto.opened(token) == CANARY
        settings.SITECONFIG["SECRET_KEYS"][:] = [THIRD_KEY]
        assert crypto.opened(token) is None
        settings.SITECONFIG = {}
        assert crypto.opened(sealed(CANARY)) == CANARY

    def test_the_environment_may_hold_several(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With commas between them, and spaces around."""
        monkeypatch.setenv("SITECONFIG_SECRET_KEYS", f" {OTHER_KEY} ,{SECRETS_KEY},\n")
        assert crypto.opened(crypto.seal(Secret(CANARY))) == CANARY
        assert opened(crypto.seal(Secret(CANARY)), OTHER_KEY) == CANARY
        assert crypto.opened(sealed(CANARY)) == CANARY

    def test_the_setting_comes_before_the_environment(self, settings: Any) -> None:
        """Also if it says that there are none."""
        settings.SITECONFIG = {"SECRET_KEYS": []}
        assert not crypto.has_keys()
        settings.SITECONFIG = {"SECRET_KEYS": None}
        assert crypto.has_keys()

    def test_they_may_be_bytes(self, settings: Any) -> None:
        """As Fernet.generate_key() gives them."""
        settings.SITECONFIG = {"SECRET_KEYS": (OTHER_KEY.encode(),)}
        assert opened(crypto.seal(Secret(CANARY)), OTHER_KEY) == CANARY

    @pytest.mark.parametrize("bad", ["", "short", "ü" * 43, OTHER_KEY[:-4], 5, None, b"\xff", []])
    def test_a_bad_one_is_passed_over_but_does_not_seal(self, settings: Any, bad: Any) -> None:
        """A key that seals in its place would be another than the one that is asked for."""
        settings.SITECONFIG = {"SECRET_KEYS": [bad, SECRETS_KEY]}
        assert crypto.opened(sealed(CANARY)) == CANARY
        with pytest.raises(SecretKeyError, match="The first key, which seals, cannot be used"):
            crypto.seal(Secret(CANARY))
        settings.SITECONFIG = {"SECRET_KEYS": [SECRETS_KEY, bad]}
        assert crypto.opened(crypto.seal(Secret(CANARY))) == CANARY
        assert crypto.bad_keys() == ['Key 2 of 2 in SITECONFIG["SECRET_KEYS"] is no key.']

    @pytest.mark.parametrize("keys", ["a text", 5, {"a": 1}])
    def test_what_is_no_list_is_no_key(self, settings: Any, keys: Any) -> None:
        """A check reports it."""
        settings.SITECONFIG = {"SECRET_KEYS": keys}
        assert not crypto.has_keys()

    def test_without_a_key_nothing_is_sealed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says how to make one, and where to put it."""
        no_keys(monkeypatch)
        with pytest.raises(SecretKeyError) as caught:
            crypto.seal(Secret(CANARY))
        assert str(caught.value) == (
            "A secret is never stored in plain, and cannot be sealed. There is no key to seal it "
            'with. Make a key with: python -c "from cryptography.fernet import Fernet; '
            'print(Fernet.generate_key().decode())" and put it first in SITECONFIG["SECRET_KEYS"], '
            "a list, or in the environment variable SITECONFIG_SECRET_KEYS."
        )
        assert isinstance(caught.value, ImproperlyConfigured)
        assert crypto.opened(sealed(CANARY)) is None
        assert not crypto.is_newest(sealed(CANARY))

    def test_without_the_package_nothing_is_sealed_or_opened(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error says what to install."""
        crypto._keyring.cache_clear()
        monkeypatch.setattr(crypto, "fernet", None)
        with pytest.raises(SecretKeyError, match=r"pip install 'siteconfig\[secrets\]'"):
            crypto.seal(Secret(CANARY))
        assert crypto.opened(sealed(CANARY)) is None
        monkeypatch.undo()
        crypto._keyring.cache_clear()

    def test_the_command_that_makes_a_key_makes_one(self) -> None:
        """As it stands in the message."""
        _python, *words = shlex.split(crypto.MAKE_A_KEY)
        ran = subprocess.run(  # noqa: S603 - our own text
            [sys.executable, *words], capture_output=True, text=True, check=True
        )
        Fernet(ran.stdout.strip())

    def test_no_repr_shows_a_key(self) -> None:
        """Nor do the problems."""
        assert SECRETS_KEY not in repr(crypto.keyring()) + repr(vars(crypto.keyring()))

    def test_the_package_is_imported_in_one_place(self) -> None:
        """Where it may be missing."""
        files = Path(crypto.__file__).parent.rglob("*.py")
        lines = re.compile("^ *(from|import) cryptography", re.MULTILINE)
        assert [file.name for file in files if lines.search(file.read_text())] == ["crypto.py"]


class TestSecret:
    secret = Secret(CANARY, stored="gAAAA")

    def test_is_the_text_for_code_that_asks(self) -> None:
        """str(), format, joining, slicing, JSON, comparison, the key of a dict."""
        assert str(self.secret) == CANARY
        assert type(str(self.secret)) is str
        assert f"{self.secret}" == "%s" % self.secret == CANARY  # noqa: UP031 - tried as well
        assert f"{self.secret:>30}" == CANARY.rjust(30)
        assert "".join([self.secret, "!"]) == f"{CANARY}!"
        assert self.secret[:6] == "canary"
        assert json.loads(json.dumps({"key": self.secret})) == {"key": CANARY}
        assert self.secret == CANARY
        assert {CANARY: 1}[self.secret] == 1

    @pytest.mark.parametrize(
        "show",
        [repr, ascii, pprint.pformat, "%r".__mod__, "{!r}".format, "{!a}".format],
        ids=["repr", "ascii", "pformat", "%r", "{!r}", "{!a}"],
    )
    def test_is_masked_wherever_python_shows_it(self, show: Any) -> None:
        """By itself, and in whatever holds it."""
        for held in (self.secret, [self.secret], {"a": (self.secret,)}, {self.secret: 1}):
            assert "canary" not in str(show(held))
        assert repr(self.secret) == "<Secret: set>"

    def test_repr_tells_whether_there_is_one(self) -> None:
        """And nothing else, such as its length."""
        assert repr(Secret()) == "<Secret: not set>"
        assert repr(Secret.unreadable("gAAAA")) == "<Secret: unreadable>"

    def test_copies_are_the_secret_itself(self) -> None:
        """It cannot change."""
        assert copy.copy(self.secret) is self.secret
        assert copy.deepcopy([self.secret])[0] is self.secret
        with pytest.raises(AttributeError):
            self.secret.stored = "x"  # type: ignore[misc] # that is the point
        with pytest.raises(AttributeError):
            self.secret.other = "x"  # type: ignore[attr-defined] # the same

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_is_not_pickled(self, protocol: int) -> None:
        """Pickles lie in caches and queues."""
        with pytest.raises(TypeError, match="A secret is not pickled"):
            pickle.dumps({"a": [self.secret]}, protocol)

    def test_matches_what_is_the_same(self) -> None:
        """In constant time, with any text."""
        assert self.secret.matches(CANARY)
        assert Secret("ü\ud800").matches("ü\ud800")
        assert not self.secret.matches(CANARY[:-1])
        assert not self.secret.matches("ü")
        assert not self.secret.matches(None)

    def test_an_empty_one_is_matched_by_nothing(self) -> None:
        """Whoever sends no token must not come in where none is set, or none can be read."""
        assert not Secret().matches("")
        assert not Secret.unreadable("gAAAA").matches("")

    @pytest.mark.parametrize(
        ("secret", "text"),
        [
            (Secret(), "not set"),
            (Secret("0123456789a"), "set"),
            (Secret("0123456789ab"), "set, ends in …89ab"),
            (Secret.unreadable("gAAAA"), "set, but no key opens it"),
        ],
        ids=repr,
    )
    def test_a_person_is_told_little(self, secret: Secret, text: str) -> None:
        """The end of a long one, to tell it from others."""
        assert secret.described() == text
