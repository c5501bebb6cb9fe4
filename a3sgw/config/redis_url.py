"""
Read the URL of a Redis: where it is, and who we are there.

    redis://[[user]:password@]host[:port][/db]
    rediss://…                                       the same over TLS
    unix://[[user]:password@]/path/of/the/socket[?db=number]

These are the forms that redis-cli and the clients of most languages read. User and password may be percent-encoded, and must be where they
hold one of `:/?#@%`. A reason why a URL cannot be used never repeats any of it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import attrs

from a3sgw.config.address import parse_server_url

__all__ = ["RedisAddress", "parse_redis_url"]

_DEFAULT_PORT = 6379
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII).fullmatch
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})").search


@attrs.frozen
class RedisAddress:
    """
    A Redis in its parts: `host` and `port`, or the `path` of a socket. `user` is empty where the password alone says who we are. Shows
    itself without user and password.
    """

    host: str
    port: int
    path: str
    is_tls: bool
    db: int
    user: bytes = attrs.field(repr=False)
    password: bytes = attrs.field(repr=False)

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.is_tls else 'redis'}://{host}:{self.port}"


def parse_redis_url(text: str) -> RedisAddress:
    """
    Return the parts of `text`. Raises `ValueError` with a reason that begins with a relative pronoun.
    """
    scheme, separator, rest = text.strip().partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in ("redis", "rediss", "unix"):
        raise ValueError("which does not begin with redis://, rediss:// or unix://")
    if "#" in rest:
        raise ValueError('which holds "#"; write it as %23')
    rest, question, query = rest.partition("?")
    if question and not query.startswith("db="):
        raise ValueError("whose query is something other than ?db=number")
    db = query[3:]
    credentials, at, place = rest.rpartition("@")
    user, password = _credentials(credentials) if at else (b"", b"")
    if scheme == "unix":
        path = _socket_path(place)
        return RedisAddress("", 0, path, False, _db(db), user, password)
    authority, _, path_db = place.partition("/")
    if question and path_db:
        raise ValueError("which names a database twice")
    host, port = _place(authority)
    return RedisAddress(host, port, "", scheme == "rediss", _db(path_db or db), user, password)


def _credentials(text: str) -> tuple[bytes, bytes]:
    user, colon, password = text.partition(":")
    if not colon or not password:
        raise ValueError('which names a user without a password; write user:password@ or, for a password alone, ":password@"')
    if "/" in text or "@" in text:
        raise ValueError('whose password holds "/" or "@"; write them as %2F and %40')
    if _BAD_ESCAPE(text):
        raise ValueError('whose password holds "%"; write it as %25')
    return unquote_to_bytes(user), unquote_to_bytes(password)


def _place(authority: str) -> tuple[str, int]:
    if not authority:
        raise ValueError("which names no host")
    has_port = ("]:" if authority.startswith("[") else ":") in authority
    address = parse_server_url(f"http://{authority}" if has_port else f"http://{authority}:{_DEFAULT_PORT}")
    return address.host, address.port


def _socket_path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("which names no absolute socket path, as in unix:///run/redis/redis.sock")
    return parse_server_url(f"unix:{path}").path


def _db(text: str) -> int:
    if not text:
        return 0
    if _NUMBER(text) is None:
        raise ValueError("whose database is no number")
    return int(text)
