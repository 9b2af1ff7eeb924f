"""The keyring: seals and opens secrets. The package cryptography is imported here only.

The keys are ``SITECONFIG["SECRET_KEYS"]``, or else those in the environment variable
``SITECONFIG_SECRET_KEYS``, with commas between them: the newest first, which seals; all of them
open. They have nothing to do with Django's ``SECRET_KEY``.

No function here keeps a key or a plain text in a variable while it may raise: error reports show
the variables of each function on the way.
"""

from __future__ import annotations

import os
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from siteconfig.conf import conf
from siteconfig.exceptions import SecretKeyError
from siteconfig.secret import to_bytes

fernet: Any
try:
    from cryptography import fernet
except ImportError:  # the extra siteconfig[secrets]
    fernet = None

if TYPE_CHECKING:
    from siteconfig.secret import Secret

ENVIRONMENT_VARIABLE = "SITECONFIG_SECRET_KEYS"

#: The command that makes a key.
MAKE_A_KEY = (
    'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
)

INSTALL = "pip install 'siteconfig[secrets]'"

#: What to do about a key that is missing.
HOW_TO_GIVE_A_KEY = (
    f'Make a key with: {MAKE_A_KEY} and put it first in SITECONFIG["SECRET_KEYS"], a list, or in '
    f"the environment variable {ENVIRONMENT_VARIABLE}."
)


@dataclass(frozen=True)
class Keyring:
    """The keys, ready to use. Its repr shows none of them."""

    all: Any
    """A MultiFernet of those that are good; None: there is none."""
    newest: Any
    """The Fernet of the first key; None: it is not good, or there is none."""
    bad: tuple[int, ...]
    """The positions of those that are not good, from 1."""


def is_available() -> bool:
    """Whether the package cryptography is installed."""
    return fernet is not None


def has_keys() -> bool:
    """Whether any key is given, good or not."""
    return bool(_given())


def keyring() -> Keyring:
    """The keys as the settings or the environment give them now."""
    return _keyring(_given())


def bad_keys() -> list[str]:
    """What is to be said of the keys that are none, by their positions."""
    where = f"of {len(_given())} in {_source()}"
    return [f"Key {n} {where} is no key." for n in keyring().bad]


def obstacle() -> str:
    """Why nothing can be sealed, with what to do about it; empty: it can."""
    if not is_available():
        return f"The package cryptography is not installed. Run: {INSTALL}"
    if not has_keys():
        return f"There is no key to seal it with. {HOW_TO_GIVE_A_KEY}"
    if keyring().newest is None:
        return f"The first key, which seals, cannot be used. {HOW_TO_GIVE_A_KEY}"
    return ""


def seal(secret: Secret) -> str:
    """What to store in place of ``secret``: each time another text.

    Raises:
        SecretKeyError: there is no key, or it cannot be used.
    """
    if why := obstacle():
        raise SecretKeyError(why)
    token: bytes = keyring().newest.encrypt(to_bytes(secret))
    return token.decode("ascii")


def opened(token: str) -> str | None:
    """The plain text of what ``seal`` gave; None: no key opens it."""
    keys = keyring().all
    if keys is None:
        return None
    try:
        text: str = keys.decrypt(token).decode("utf-8", "surrogatepass")
    except (fernet.InvalidToken, UnicodeDecodeError):
        return None
    return text


def is_newest(token: str) -> bool:
    """Whether it was the first key that sealed ``token``."""
    key = keyring().newest
    if key is None:
        return False
    try:
        key.extract_timestamp(token)
    except fernet.InvalidToken:
        return False
    return True


# How Fernet's tokens begin for some hundred years: a version, and a time with zeros in front.
_TOKEN = re.compile(r"gAAAA[\w-]+={0,2}", re.ASCII)

#: The bytes of a token beside what is sealed, and the size of its blocks.
_FRAME, _BLOCK = 57, 16


def is_sealed(text: str) -> bool:
    """Whether ``text`` has the form of what ``seal`` gives, whether or not a key opens it.

    By form alone, also where the package is not installed: what is sealed must never be taken
    for a plain text and be sealed a second time, or be sent to somebody as the secret.
    """
    if len(text) % 4 or not _TOKEN.fullmatch(text):
        return False
    sealed = len(urlsafe_b64decode(text)) - _FRAME
    return sealed > 0 and sealed % _BLOCK == 0


def _given() -> tuple[str, ...]:
    """The keys as they are given; one that is no text is an empty one."""
    keys: Any = conf.SECRET_KEYS
    if keys is None:
        keys = [key for key in os.environ.get(ENVIRONMENT_VARIABLE, "").split(",") if key.strip()]
    # Anything else than a list is reported by a check, and gives no key.
    return tuple(map(_as_text, keys)) if isinstance(keys, list | tuple) else ()


def _as_text(key: object) -> str:
    if isinstance(key, bytes):
        return key.decode("ascii", "replace").strip()
    return key.strip() if isinstance(key, str) else ""


# By the keys themselves, so that it needs no emptying: other keys are another keyring.
@lru_cache(maxsize=1)
def _keyring(keys: tuple[str, ...]) -> Keyring:
    made = [_fernet(key) for key in keys]
    good = [one for one in made if one is not None]
    return Keyring(
        all=fernet.MultiFernet(good) if good else None,
        newest=made[0] if made else None,
        bad=tuple(n for n, one in enumerate(made, 1) if one is None),
    )


def _fernet(key: str) -> Any:
    """The key, ready to use; None: it is no key, or there is no package to use it with."""
    if fernet is None:
        return None
    try:
        return fernet.Fernet(key)
    except ValueError:
        return None


def _source() -> str:
    if conf.SECRET_KEYS is None:
        return f"the environment variable {ENVIRONMENT_VARIABLE}"
    return 'SITECONFIG["SECRET_KEYS"]'
