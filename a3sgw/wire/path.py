"""
Give every path one canonical spelling, or refuse it.

What a rule sees is what the backend gets, so the two can never disagree about which resource is meant: escapes of unreserved
characters are decoded, dot segments resolved (RFC 3986 sections 5.2.4 and 6.2.2), repeated slashes merged. What different servers decode
differently (an encoded slash, backslash or NUL, a malformed escape) is refused unless the entrypoint allows it; a dot segment that not
all servers see (`/..;/`, or `..%2F` where encoded slashes are allowed) is refused always. The query is never touched.
"""

from __future__ import annotations

import re

import attrs

from a3sgw.errors import Outcome, ProtocolError

__all__ = ["PathPolicy", "canonical_path"]


@attrs.frozen(slots=True)
class PathPolicy:
    """
    What an entrypoint allows in paths; the names are those of its configuration.
    """

    merge_slashes: bool = True
    allow_encoded_slash: bool = False
    allow_encoded_backslash: bool = False
    allow_encoded_null_character: bool = False
    allow_malformed_escapes: bool = False


_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_HEX = b"0123456789ABCDEFabcdef"
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_SLASHES = re.compile(rb"//+")
# A dot segment for some servers and none for others: with a parameter (servlet containers drop it and climb), cut off by a NUL, or
# bounded by a slash or backslash in disguise. Escapes are canonical here.
_DISGUISED_DOTS = re.compile(
    rb"/\.\.?(?:\\|;|%2F|%3B|%5C|%00)|"
    rb"(?:\\|%2F|%5C)\.\.?(?:/|\\|;|%2F|%3B|%5C|%00|\Z)"
)
# One table for all 22 * 22 ways to write an escape: its canonical form.
_DECODED = {
    bytes([high, low]): (bytes([code]) if code in _UNRESERVED else b"%%%02X" % code)
    for high in _HEX
    for low in _HEX
    for code in [int(bytes([high, low]), 16)]
}


def _refuse(path: bytes, why: str) -> ProtocolError:
    return ProtocolError(Outcome.PATH_REFUSED, f"{why} in {path[:128]!r}")


def _decode_escapes(path: bytes, policy: PathPolicy) -> bytes:
    def replace(match: re.Match[bytes]) -> bytes:
        decoded = _DECODED.get(match.group(1))
        if decoded is None:
            if policy.allow_malformed_escapes:
                # Spelt out, so that what follows cannot join it into a new escape.
                return b"%25"
            raise _refuse(path, "malformed escape")
        if decoded == b"%2F" and not policy.allow_encoded_slash:
            raise _refuse(path, "encoded slash")
        if decoded == b"%5C" and not policy.allow_encoded_backslash:
            raise _refuse(path, "encoded backslash")
        if decoded == b"%00" and not policy.allow_encoded_null_character:
            raise _refuse(path, "encoded NUL")
        return decoded

    return _ESCAPE.sub(replace, path)


def _resolve_dots(path: bytes) -> bytes:
    segments: list[bytes] = []
    parts = path.split(b"/")[1:]
    for part in parts:
        if part == b"..":
            if segments:
                segments.pop()
        elif part != b".":
            segments.append(part)
    if parts[-1] in (b".", b".."):
        # The last segment named a directory.
        segments.append(b"")
    return b"/" + b"/".join(segments)


def canonical_path(path: bytes, policy: PathPolicy) -> bytes:
    """
    Return the canonical form of an absolute `path` (it begins with a slash). Raises `ProtocolError` if it is refused.

    The result is a fixed point: it is its own canonical form.
    """
    if b"\\" in path and not policy.allow_encoded_backslash:
        raise _refuse(path, "backslash")
    if b"%" in path:
        path = _decode_escapes(path, policy)
    if b"." in path and _DISGUISED_DOTS.search(path) is not None:
        raise _refuse(path, "ambiguous dot segment")
    if policy.merge_slashes and b"//" in path:
        path = _SLASHES.sub(b"/", path)
    if b"/." in path:
        path = _resolve_dots(path)
    return path
