"""
Sets of origins: which sites a configuration means, and whether a request comes from one of them.

An origin is what browsers send in `Origin` (RFC 6454 section 6.1): scheme, host in lower case as A-labels, and the port unless it is the
scheme's own. Nobody but a browser is bound by it, so what is compared here is what browsers send and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import attrs

from a3sgw.middleware.target import DEFAULT_PORTS
from a3sgw.route.argument import read_host, read_pattern

__all__ = ["OriginSet", "read_origin"]

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*", re.ASCII).fullmatch
_ORIGIN: Final = re.compile(rb"([a-z][a-z0-9+.-]*)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?").fullmatch
_LABEL: Final = re.compile(rb"[a-z0-9_-]+").fullmatch


@attrs.frozen(slots=True)
class _Site:
    """
    One origin of a configuration. With `is_wildcard`, `host` is the parent of the one label that may be anything; `port` is `b":8080"`,
    empty for the scheme's own, and `None` for any.
    """

    scheme: bytes
    host: bytes
    is_wildcard: bool
    port: bytes | None


def read_origin(text: str) -> _Site:
    """
    Read `https://app.example.com`, `https://*.example.com:8443` or `http://localhost:*`.

    Raises `ValueError`, with a reason that begins with a relative pronoun and does not repeat the value.
    """
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or not _SCHEME(scheme):
        raise ValueError('which is neither "*" nor an origin like "https://app.example.com"')
    if any(mark in rest for mark in "/?#"):
        raise ValueError("which has a path; an origin has none, not even a slash at the end")
    has_any_port = rest.endswith(":*")
    bare = rest.removesuffix(":*")
    if bare == "*" or bare.startswith("*:"):
        raise ValueError('which is every site there is; write "*" for that, or the sites you mean')
    try:
        host = read_host(bare)
    except ValueError:
        raise ValueError(
            'whose host is none; write one like "app.example.com" or "[2001:db8::1]", with a port from 1 to 65535 or "*" if need be; a star'
            " may also be the whole first label"
        ) from None
    port = host.port
    if port[1:] == DEFAULT_PORTS.get(scheme.encode("ascii")):
        port = b""
    return _Site(scheme.encode("ascii"), host.name, host.is_wildcard, None if has_any_port else port)


class OriginSet:
    """
    Some sites, and patterns that sites have to match from beginning to end.
    """

    __slots__ = ("_exact", "_patterns", "_sites", "_wildcards")

    def __init__(self, origins: Iterable[str], patterns: Iterable[str] = ()) -> None:
        exact = set()
        # By scheme and host: the ports, `None` for any.
        self._sites: dict[tuple[bytes, bytes], set[bytes | None]] = {}
        self._wildcards: dict[tuple[bytes, bytes], set[bytes | None]] = {}
        for text in origins:
            if text == "null":
                exact.add(b"null")
                continue
            site = read_origin(text)
            if site.is_wildcard or site.port is None:
                kind = self._wildcards if site.is_wildcard else self._sites
                kind.setdefault((site.scheme, site.host), set()).add(site.port)
            else:
                exact.add(b"%b://%b%b" % (site.scheme, site.host, site.port))
        self._exact: Final = frozenset(exact)
        self._patterns: Final = tuple(read_pattern(pattern).fullmatch for pattern in patterns)

    def __contains__(self, origin: bytes) -> bool:
        if origin in self._exact:
            return True
        if (self._sites or self._wildcards) and self._is_meant(_ORIGIN(origin)):
            return True
        return any(matches(origin) is not None for matches in self._patterns)

    def _is_meant(self, match: Any) -> bool:
        if match is None:
            return False
        scheme, host, port = match.groups(b"")
        if (scheme, host) in self._sites:
            return True
        label, _, parent = host.partition(b".")
        ports = self._wildcards.get((scheme, parent), ())
        return bool(_LABEL(label)) and (port in ports or None in ports)
