"""
Name a server in a cookie that only gateways with the key can write or read.

Nothing is remembered about clients: what binds one to a server is in its own cookie, so bindings outlive restarts and reloads, and several
gateways that share a key agree. A server is called by a hash of its URL. The hash alone would give the URL away to whoever guesses (private
networks have few addresses), so it is not only signed but hidden, in the way of RFC 5297: the signature of the contents, under one key,
is the nonce that encrypts them under another. Both keys are derived from the given one and the service, and so the cookie of one service
means nothing to another.

A token is 36 bytes in base64url: a signature of 15 (120 bits), then server (8), revision (8) and end (5) under the mask.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, NamedTuple

__all__ = ["NO_REVISION", "TOKEN_BYTES", "Binding", "StickySigner", "name_revision", "name_server"]

TOKEN_BYTES: Final = 48
"""The length of every token."""

_NAME_BYTES: Final = 8
_EXPIRES_BYTES: Final = 5
_TAG_BYTES: Final = 15
_BODY_BYTES: Final = 2 * _NAME_BYTES + _EXPIRES_BYTES
_MIN_KEY_BYTES: Final = 16

NO_REVISION: Final = bytes(_NAME_BYTES)
"""The name of the revision of a service that has none."""

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def name_server(service: str, url: str) -> bytes:
    """
    Return the 8 bytes that name the server of that URL, spelt as configured, in tokens of the service.
    """
    return _name(b"server", service, url)


def name_revision(service: str, revision: str) -> bytes:
    """
    Return the 8 bytes that name the revision in tokens of the service.
    """
    return _name(b"revision", service, revision)


def _name(kind: bytes, service: str, text: str) -> bytes:
    # No configured name has a NUL in it.
    return blake2b(f"{service}\0{text}".encode(), digest_size=_NAME_BYTES, person=b"a3sgw-" + kind).digest()


class Binding(NamedTuple):
    """
    What a token says. `expires` is in seconds since 1970, 0 for never; `is_current` tells that the first key signed it.
    """

    server: bytes
    revision: bytes
    expires: int
    is_current: bool

    def is_due(self, now: float, ttl: float) -> bool:
        """
        Tell whether to send the client a new token of `ttl` seconds: a tenth of the time is over, or the key is an old one.

        That keeps a client bound while it comes back, without a `Set-Cookie` in every response.
        """
        return not self.is_current or (self.expires != 0 and self.expires - now < ttl * 0.9)


class _Key:
    """
    The two keys derived from a given one, as hashes that were fed nothing yet.
    """

    __slots__ = ("_masking", "_signing")

    def __init__(self, key: bytes, service: str) -> None:
        # Hashed first, because BLAKE2 takes no more than 64 bytes of key.
        root = blake2b(key).digest()
        scope = service.encode()
        signing = blake2b(scope, key=root, person=b"a3sgw-sticky-tag").digest()
        masking = blake2b(scope, key=root, person=b"a3sgw-sticky-enc").digest()
        self._signing = blake2b(key=signing, digest_size=_TAG_BYTES)
        self._masking = blake2b(key=masking, digest_size=_BODY_BYTES)

    def tag(self, body: bytes) -> bytes:
        """
        Return the signature of `body`.
        """
        signing = self._signing.copy()
        signing.update(body)
        return signing.digest()

    def mask(self, tag: bytes, body: bytes) -> bytes:
        """
        Hide `body`, or show it again, under the mask that belongs to `tag`.
        """
        masking = self._masking.copy()
        masking.update(tag)
        mask = int.from_bytes(masking.digest(), "big")
        return (int.from_bytes(body, "big") ^ mask).to_bytes(_BODY_BYTES, "big")


class StickySigner:
    """
    Writes and reads the tokens of one service.

    The first of `keys` signs, all of them verify. To replace a key, give every gateway the new one in second place, then move it to the
    first, and drop the old one once the cookies it signed have run out. A key is at least 16 bytes, and they should be random.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Sequence[bytes], service: str) -> None:
        if not keys:
            raise ValueError("no key to sign sticky cookies with; give at least one of 16 random bytes")
        for position, key in enumerate(keys, 1):
            if len(key) < _MIN_KEY_BYTES:
                raise ValueError(f"key {position} for sticky cookies has {len(key)} bytes; give at least {_MIN_KEY_BYTES} random ones")
        self._keys = tuple(_Key(key, service) for key in keys)

    def __repr__(self) -> str:
        return f"<StickySigner {len(self._keys)} keys>"

    def sign(self, server: bytes, *, revision: bytes = NO_REVISION, expires: int = 0) -> bytes:
        """
        Return a token for the server of that name, good before `expires` (whole seconds since 1970; 0 means for ever).
        """
        if len(server) != _NAME_BYTES or len(revision) != _NAME_BYTES:
            raise ValueError(f"names have {_NAME_BYTES} bytes, not {len(server)} and {len(revision)}; make them with name_server")
        body = server + revision + expires.to_bytes(_EXPIRES_BYTES, "big")
        key = self._keys[0]
        tag = key.tag(body)
        return urlsafe_b64encode(tag + key.mask(tag, body))

    def verify(self, token: bytes, now: float) -> Binding | None:
        """
        Return what a client's token says, or `None` unless one of the keys signed it and its time is not over at `now`.

        How long it takes tells no more than which of the keys signed.
        """
        # The decoder passes over strange bytes, and every binding is to have one spelling.
        if len(token) != TOKEN_BYTES or token.translate(None, _ALPHABET):
            return None
        sealed = urlsafe_b64decode(token)
        tag = sealed[:_TAG_BYTES]
        for key in self._keys:
            body = key.mask(tag, sealed[_TAG_BYTES:])
            if compare_digest(tag, key.tag(body)):
                break
        else:
            return None
        expires = int.from_bytes(body[2 * _NAME_BYTES :], "big")
        if expires and expires <= now:
            return None
        return Binding(body[:_NAME_BYTES], body[_NAME_BYTES : 2 * _NAME_BYTES], expires, key is self._keys[0])
