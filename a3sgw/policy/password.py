"""
Tell whether a user's name and password are good.

The hashes are those of Apache's htpasswd: bcrypt, apr1 (MD5), SHA-1, and the SHA-256 and SHA-512 schemes of crypt(3). A plain password
is only ever one that was written into the configuration as such.

Nobody learns from the time an answer takes whether a user exists: an unknown name is checked against a hash of the same kind as the known
ones. A password that was found good is remembered for a while under a keyed digest, so that a slow hash is not paid for each request; one
that was found bad never is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from typing import Any, Final

import bcrypt

__all__ = ["Credentials", "PasswordHash", "parse_htpasswd", "read_basic"]

_LONGEST_PASSWORD: Final = 1024
_LONGEST_BCRYPT: Final = 72
_BCRYPT: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
_DEAREST_BCRYPT: Final = 20
_CRYPT: Final = {"$apr1$": "apr_md5_crypt", "$5$": "sha256_crypt", "$6$": "sha512_crypt"}
_DES: Final = re.compile(r"[./A-Za-z0-9]{13}", re.ASCII)


class PasswordHash:
    """
    One stored password. `is_slow` says that checking it takes so long that it belongs into a thread.
    """

    is_slow = False

    def verify(self, password: bytes) -> bool:
        """
        Tell whether `password` is the one. Never raises, whatever it is given.
        """
        raise AssertionError


class PlainPassword(PasswordHash):
    """
    A password that was written down as it is.
    """

    def __init__(self, password: bytes) -> None:
        self._password = password

    def verify(self, password: bytes) -> bool:
        """
        Compare in a time that does not depend on where they differ.
        """
        return hmac.compare_digest(hashlib.sha256(self._password).digest(), hashlib.sha256(password).digest())


class _Sha1(PasswordHash):
    """
    `{SHA}` and the digest in base64, without salt.
    """

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    def verify(self, password: bytes) -> bool:
        """
        Compare the digests.
        """
        return hmac.compare_digest(self._digest, hashlib.sha1(password, usedforsecurity=False).digest())


class _Bcrypt(PasswordHash):
    """
    bcrypt, which looks at 72 bytes: a longer password is never the one.
    """

    is_slow = True

    def __init__(self, text: str) -> None:
        # PHP and Apache write 2y for what others call 2b.
        self._hash = text.replace("$2y$", "$2b$", 1).encode("ascii")

    def verify(self, password: bytes) -> bool:
        """
        Hash and compare.
        """
        if len(password) > _LONGEST_BCRYPT or b"\0" in password:
            return False
        return bcrypt.checkpw(password, self._hash)


class _Crypt(PasswordHash):
    """
    A scheme that passlib knows.
    """

    def __init__(self, scheme: str, text: str) -> None:
        # Imported by who needs it: it takes a while.
        from passlib import hash as schemes

        self._scheme: Any = getattr(schemes, scheme)
        self._text = text
        self.is_slow = scheme != "apr_md5_crypt"
        try:
            # A hash that cannot be read shows itself here and not with the first request.
            self._scheme.verify(b"", text)
        except ValueError:
            raise ValueError("which is cut off or damaged") from None

    def verify(self, password: bytes) -> bool:
        """
        Hash and compare.
        """
        if b"\0" in password or len(password) > _LONGEST_PASSWORD:
            return False
        try:
            return bool(self._scheme.verify(password, self._text))
        except ValueError:
            return False


def read_hash(text: str) -> PasswordHash:
    """
    Return the hash that `text` is. Raises `ValueError` with a reason that does not repeat it.
    """
    match = _BCRYPT.fullmatch(text)
    if match is not None:
        if not 4 <= int(match[1]) <= _DEAREST_BCRYPT:
            raise ValueError(f"which asks for 2 to the power of {int(match[1])} rounds; use at most {_DEAREST_BCRYPT}")
        return _Bcrypt(text)
    for prefix, scheme in _CRYPT.items():
        if text.startswith(prefix):
            return _Crypt(scheme, text)
    if text.startswith("{SHA}"):
        try:
            digest = base64.b64decode(text[5:], validate=True)
        except (binascii.Error, ValueError):
            digest = b""
        if len(digest) != 20:
            raise ValueError("which is no SHA-1 digest")
        return _Sha1(digest)
    if text.startswith("$2"):
        raise ValueError("which is a damaged bcrypt hash")
    if _DES.fullmatch(text):
        raise ValueError("which is hashed by the old crypt, good for eight characters only; make it anew with htpasswd -B")
    raise ValueError("which is not hashed in a way known here; make it with htpasswd -B")


def parse_htpasswd(text: str) -> dict[str, PasswordHash]:
    """
    Return the users of a file as htpasswd writes it: a name, a colon and a hash on each line.

    Raises `ValueError` with the line and what is wrong with it; no hash is shown.
    """
    users: dict[str, PasswordHash] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, hashed = line.partition(":")
        if not colon or not name or not hashed:
            raise ValueError(f'line {number} is not "name:hash"')
        if name in users:
            raise ValueError(f'line {number} has the user "{name}" for the second time')
        try:
            users[name] = read_hash(hashed)
        except ValueError as error:
            raise ValueError(f'line {number}: user "{name}" has a password {error}') from None
    if not users:
        raise ValueError("it has no users")
    return users


class Credentials:
    """
    The users and their passwords.

    `recall` and `verify` are apart because the second may belong into a thread: `is_slow` says so. Both take `now`, in seconds of a
    monotonic clock.
    """

    REMEMBERED: Final = 4096
    SECONDS: Final = 300.0

    def __init__(self, users: Mapping[str, PasswordHash]) -> None:
        self._users = {name.encode("utf-8", "surrogatepass"): hashed for name, hashed in users.items()}
        self.is_slow = any(hashed.is_slow for hashed in users.values())
        # For names that nobody has: as slow as the slowest.
        self._nobody = next((hashed for hashed in users.values() if hashed.is_slow), next(iter(users.values())))
        self._key = os.urandom(32)
        self._good: dict[bytes, float] = {}

    def _digest(self, name: bytes, password: bytes) -> bytes:
        return hashlib.blake2b(b"%d:%b%b" % (len(name), name, password), key=self._key, digest_size=32).digest()

    def recall(self, name: bytes, password: bytes, now: float) -> bool:
        """
        Tell whether this pair was found good lately.
        """
        return self._good.get(self._digest(name, password), 0.0) > now

    def verify(self, name: bytes, password: bytes) -> bool:
        """
        Tell whether the pair is good; takes as long for a name that does not exist. May be called in a thread.
        """
        hashed = self._users.get(name)
        is_good = (self._nobody if hashed is None else hashed).verify(password)
        return is_good and hashed is not None

    def remember(self, name: bytes, password: bytes, now: float) -> None:
        """
        The pair was found good.
        """
        if len(self._good) >= self.REMEMBERED:
            self._good.clear()
        self._good[self._digest(name, password)] = now + self.SECONDS


def read_basic(value: bytes) -> tuple[bytes, bytes] | None:
    """
    Return name and password of an `Authorization` value, or `None` if it is not exactly that (RFC 7617).
    """
    scheme, _, rest = value.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        pair = base64.b64decode(rest.strip(b" "), validate=True)
    except (binascii.Error, ValueError):
        return None
    name, colon, password = pair.partition(b":")
    return (name, password) if colon else None
