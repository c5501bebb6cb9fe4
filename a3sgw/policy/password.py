"""
Tell whether a user's name and password are good.

The hashes are those of Apache's htpasswd: bcrypt, apr1 (MD5), SHA-1, and the SHA-256 and SHA-512 schemes of crypt(3). A plain password
is only ever one that was written into the configuration as such.

A password comes from a stranger, so none of them raises: what a scheme cannot take is wrong. bcrypt looks at 72 bytes, and a longer
password is refused instead of cut, since all that begin alike would be good. The schemes of crypt(3) are given 255, the most that htpasswd
takes itself, because their cost grows with the length. C programs end a password at a NUL; one that holds a NUL is refused, as it would
stand for its beginning.

Nobody learns from the time an answer takes whether a user exists. An unknown name is checked against the password of one of the users,
chosen by a keyed hash of the name, and refused whatever comes out: it takes as long as some user, and always as long as the same one, in
other processes and after a restart too. A password that was found good is remembered for a while under a keyed digest, so that a slow
hash is not paid for each request; one that was found bad never is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import bcrypt

from a3sgw.policy.memo import Memo

__all__ = ["Credentials", "PasswordHash", "PlainPassword", "parse_htpasswd", "read_basic", "read_hash"]

_LONGEST_BCRYPT: Final = 72
_LONGEST_CRYPT: Final = 255

# Beyond these one check takes several seconds, and a few guesses would keep every thread busy.
_DEAREST_BCRYPT: Final = 16
_MOST_ROUNDS: Final = 5_000_000

# The libraries get nothing but whole hashes, so that no request finds one damaged. The last character of bcrypt's salt holds two bits.
_BCRYPT: Final = re.compile(r"\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII)
_ROUNDS: Final = r"(?:rounds=([1-9]\d{3,8})\$)?"
_CRYPT: Final = {
    "$apr1$": ("apr_md5_crypt", re.compile(r"\$apr1\$()[./A-Za-z0-9]{0,8}\$[./A-Za-z0-9]{22}", re.ASCII)),
    "$5$": ("sha256_crypt", re.compile(rf"\$5\${_ROUNDS}[./A-Za-z0-9]{{0,16}}\$[./A-Za-z0-9]{{43}}", re.ASCII)),
    "$6$": ("sha512_crypt", re.compile(rf"\$6\${_ROUNDS}[./A-Za-z0-9]{{0,16}}\$[./A-Za-z0-9]{{86}}", re.ASCII)),
}
# What is recognised only to be refused by its name.
_REFUSED: Final = (
    (re.compile(r"\$2[aby]\$"), "is a damaged bcrypt hash"),
    (re.compile(r"\$2x?\$"), "is hashed by an early, faulty bcrypt"),
    (re.compile(r"\$1\$"), "is hashed by MD5 crypt ($1$), which is not taken"),
    (re.compile(r"\$g?y\$"), "is hashed by yescrypt, which is not taken"),
    (re.compile(r"\$7\$|\$scrypt\$"), "is hashed by scrypt, which is not taken"),
    (re.compile(r"\$argon2"), "is hashed by Argon2, which is not taken"),
    (re.compile(r"\$pbkdf2"), "is hashed by PBKDF2, which is not taken"),
    (re.compile(r"\{SSHA\}"), "is hashed by salted SHA-1 ({SSHA}), which is not taken"),
    (re.compile(r"[./A-Za-z0-9]{13}\Z", re.ASCII), "is hashed by the old crypt, good for eight characters only, or not at all"),
)
_REMEDY: Final = "make it anew with htpasswd -B"


class PasswordHash:
    """
    One stored password. `is_slow` says that checking it takes so long that it belongs into a thread and should be remembered.

    `stored` is what is kept of it; it is as secret as the password.
    """

    is_slow: ClassVar[bool] = False

    def __init__(self, stored: bytes) -> None:
        self.stored = stored

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def verify(self, password: bytes) -> bool:
        """
        Tell whether `password` is the one. Never raises, whatever it is given, changes nothing, and may run in any thread.
        """
        raise NotImplementedError


class PlainPassword(PasswordHash):
    """
    A password that was written down as it is.

    Only its digest is kept, equally long whatever the password: the comparison tells nothing of its length.
    """

    def __init__(self, password: bytes) -> None:
        super().__init__(hashlib.sha256(password).digest())

    def verify(self, password: bytes) -> bool:
        """
        Compare in a time that does not depend on where they differ.
        """
        return hmac.compare_digest(self.stored, hashlib.sha256(password).digest())


class _Sha1(PasswordHash):
    """
    `{SHA}` and the digest in base64, without salt.
    """

    def verify(self, password: bytes) -> bool:
        """
        Compare the digests.
        """
        return hmac.compare_digest(self.stored, hashlib.sha1(password, usedforsecurity=False).digest())


class _Bcrypt(PasswordHash):
    """
    bcrypt, which looks at 72 bytes: a longer password is never the one.
    """

    is_slow = True

    def verify(self, password: bytes) -> bool:
        """
        Hash and compare.
        """
        return len(password) <= _LONGEST_BCRYPT and b"\0" not in password and bcrypt.checkpw(password, self.stored)


class _Crypt(PasswordHash):
    """
    A scheme that passlib knows. Slow, all three: even apr1 takes some tenths of a millisecond, more than the rest of a request.
    """

    is_slow = True

    def __init__(self, scheme: str, text: str) -> None:
        super().__init__(text.encode("ascii"))
        # Imported by who needs it: it takes a while.
        from passlib import hash as schemes

        self._scheme: Any = getattr(schemes, scheme)

    def verify(self, password: bytes) -> bool:
        """
        Hash and compare.
        """
        return len(password) <= _LONGEST_CRYPT and b"\0" not in password and bool(self._scheme.verify(password, self.stored))


def read_hash(text: str) -> PasswordHash:
    """
    Return the hash that `text` is. Raises `ValueError` with a reason that does not repeat it, and continues "a password which …".
    """
    match = _BCRYPT.fullmatch(text)
    if match is not None:
        if int(match[1]) > _DEAREST_BCRYPT:
            raise ValueError(f"asks for 2 to the power of {int(match[1])} rounds; use at most {_DEAREST_BCRYPT}")
        return _Bcrypt(text.encode("ascii"))
    for prefix, (scheme, form) in _CRYPT.items():
        if text.startswith(prefix):
            match = form.fullmatch(text)
            if match is None:
                raise ValueError(f"is cut off or damaged; {_REMEDY}")
            if int(match[1] or 0) > _MOST_ROUNDS:
                raise ValueError(f"asks for {match[1]} rounds; use at most {_MOST_ROUNDS}")
            return _Crypt(scheme, text)
    if text.startswith("{SHA}"):
        digest = _read_base64(text[5:].encode("utf-8", "replace"))
        if digest is None or len(digest) != 20:
            raise ValueError(f"is no SHA-1 digest; {_REMEDY}")
        return _Sha1(digest)
    for mark, reason in _REFUSED:
        if mark.match(text):
            raise ValueError(f"{reason}; {_REMEDY}")
    raise ValueError("is not hashed in a way known here; make it with htpasswd -B")


def _read_base64(text: bytes) -> bytes | None:
    """
    Return what is encoded, unless another text would be the usual one for the same bytes.
    """
    try:
        found = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return None
    return found if base64.b64encode(found) == text else None


def parse_htpasswd(text: str) -> dict[str, PasswordHash]:
    """
    Return the users of a file as htpasswd writes it: a name, a colon and a hash on each line.

    What follows another colon is a comment, as it is for Apache and nginx. Raises `ValueError` with the line and what is wrong with it;
    no hash is shown.
    """
    users: dict[str, PasswordHash] = {}
    # Not `splitlines`: editors count other lines than those.
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, rest = line.partition(":")
        hashed = rest.partition(":")[0].rstrip()
        if not colon or not name or not hashed:
            raise ValueError(f'line {number} is not "name:hash"')
        if not name.isprintable():
            raise ValueError(f"line {number} has a user whose name cannot be printed")
        if name in users:
            raise ValueError(f'line {number} has the user "{name}" for the second time')
        try:
            users[name] = read_hash(hashed)
        except ValueError as error:
            raise ValueError(f'line {number}: user "{name}" has a password which {error}') from None
    if not users:
        raise ValueError("it has no users")
    return users


class Credentials:
    """
    The users and their passwords.

    `recall` and `verify` are apart because the second may belong into a thread: `is_slow` says so. `recall` and `remember` take `now`, in
    seconds of a monotonic clock, and stay in one thread. `key`, of at most 64 bytes, is random unless given. Raises `ValueError` without
    users.
    """

    REMEMBERED: Final = 4096
    SECONDS: Final = 300.0

    def __init__(self, users: Mapping[str, PasswordHash], key: bytes | None = None) -> None:
        if not users:
            raise ValueError("there are no users, so that nobody could pass")
        self._users = {name.encode("utf-8", "surrogatepass"): hashed for name, hashed in users.items()}
        self.is_slow = any(hashed.is_slow for hashed in users.values())
        self._decoys = [self._users[name] for name in sorted(self._users)]
        self._decoy_key = hashlib.sha256(b"\0".join(hashed.stored for hashed in self._decoys)).digest()
        self._key = os.urandom(32) if key is None else key
        self._good: Memo[bool] = Memo(self.REMEMBERED)

    def __repr__(self) -> str:
        return f"<Credentials of {len(self._users)} users>"

    def _digest(self, name: bytes, password: bytes) -> bytes:
        return hashlib.blake2b(b"%d:%b%b" % (len(name), name, password), key=self._key, digest_size=32).digest()

    def _decoy_for(self, name: bytes) -> PasswordHash:
        choice = hashlib.blake2b(name, key=self._decoy_key, digest_size=8).digest()
        return self._decoys[int.from_bytes(choice, "big") % len(self._decoys)]

    def recall(self, name: bytes, password: bytes, now: float) -> bool:
        """
        Tell whether this pair was found good lately.
        """
        return self._good.get(self._digest(name, password), now) is not None

    def verify(self, name: bytes, password: bytes) -> bool:
        """
        Tell whether the pair is good; takes as long for a name that does not exist. May be called in a thread.
        """
        # Both always, so that the look-ups cost the same too.
        decoy = self._decoy_for(name)
        hashed = self._users.get(name)
        is_good = (decoy if hashed is None else hashed).verify(password)
        return is_good and hashed is not None

    def remember(self, name: bytes, password: bytes, now: float) -> None:
        """
        The pair was found good.
        """
        self._good.put(self._digest(name, password), True, now, now + self.SECONDS)


_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


def read_basic(value: bytes) -> tuple[bytes, bytes] | None:
    """
    Return name and password of an `Authorization` value, or `None` if it is not exactly that (RFC 7617).

    The base64 is what an encoder would have written, the first colon ends the name, and neither part holds control characters. Both are
    left as bytes; configured names are compared as UTF-8.
    """
    scheme, _, rest = value.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    pair = _read_base64(rest.strip(b" "))
    if pair is None or _CONTROL.search(pair):
        return None
    name, colon, password = pair.partition(b":")
    return (name, password) if colon else None
