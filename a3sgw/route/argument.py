"""
Read what stands in a matcher's parentheses.

Each reader takes the text of one argument and returns what `match` compares, or raises `ValueError` with a sentence that says what to
write instead. An argument that no request could ever meet is refused, because such a rule would look right and do nothing.

Patterns are RE2's, whose time is linear in the text: whoever may write a rule cannot make the gateway hang by it. Size is bounded too,
because linear still means pattern size times text size.
"""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import attrs
import re2

from a3sgw.address import AddressSet, pack_address

__all__ = [
    "HostPattern",
    "quote",
    "read_field_name",
    "read_field_value",
    "read_host",
    "read_method",
    "read_network",
    "read_path",
    "read_path_prefix",
    "read_path_segments",
    "read_pattern",
    "read_protocol",
    "read_query_part",
    "read_server_name",
]

MAX_PATTERN_CHARACTERS = 1000
MAX_PATTERN_MEMORY = 1 << 20
MAX_PATTERN_INSTRUCTIONS = 2500

_LONGEST_SHOWN = 80
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_LABEL = re.compile(r"[a-z0-9_-]{1,63}").fullmatch
_UNRESERVED = re.compile(r"[A-Za-z0-9\-._~]").fullmatch
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search

# Taken out of the head before a rule sees it: they are about one connection, or about where the body ends.
_UNSEEN_FIELDS = frozenset(
    [
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    ]
)


def quote(text: str) -> str:
    """
    Return `text` in double quotes, on one line and not longer than a line should be.
    """
    return json.dumps(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…", ensure_ascii=False)


# -- hosts ----------------------------------------------------------------------------------------------------------------------------


@attrs.frozen(slots=True)
class HostPattern:
    """
    One argument of `Host` or `HostSNI`.

    `name` is in lower case, as A-labels, without trailing dot; an IPv6 literal keeps its brackets. With `is_wildcard` it is the parent
    of the one label that may be anything; an empty wildcard is everything, no name included (``HostSNI(`*`)``). `port` is `b":8080"`
    if the argument names a port, else empty.
    """

    name: bytes
    is_wildcard: bool = False
    port: bytes = b""

    @property
    def is_everything(self) -> bool:
        return self.is_wildcard and not self.name

    def admits(self, host: bytes) -> bool:
        """
        Tell whether `host` (lower case, no port) is meant, whatever the port.
        """
        if not self.is_wildcard:
            return host == self.name
        label, _, parent = host.partition(b".")
        return not self.name or (label != b"" and parent == self.name)


def read_host(text: str) -> HostPattern:
    """
    Read `a.test`, `*.a.test`, `a.test:8080`, `192.0.2.7` or `[2001:db8::1]:8080`.
    """
    if "://" in text or "/" in text:
        raise ValueError(f"{quote(text)} is not a host; write the name alone, and the path in a Path or PathPrefix matcher")
    name, port = _split_port(text)
    if name == "*":
        raise ValueError("Host(`*`) would be every host; leave the Host matcher out instead")
    return attrs.evolve(_read_name(name, text), port=port)


def read_server_name(text: str) -> HostPattern:
    """
    Read `a.test`, `*.a.test`, or `*` for every connection, with or without a server name.
    """
    if text == "*":
        return HostPattern(b"", is_wildcard=True)
    if ":" in text or "/" in text:
        raise ValueError(f"{quote(text)} is not a server name; write a name like `a.test`, without scheme, port and path")
    return _read_name(text, text)


def _split_port(text: str) -> tuple[str, bytes]:
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text, b""
    if ":" in name and not (name.startswith("[") and name.endswith("]")):
        raise ValueError(f"{quote(text)} is not a host; write an IPv6 address in brackets, as in `[::1]` or `[::1]:8080`")
    if not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= 65535):
        raise ValueError(f"{quote(text)} has a bad port; write a number from 1 to 65535 after the colon, or no colon")
    return name, b":%d" % int(port)


def _read_name(name: str, text: str) -> HostPattern:
    if name.startswith("["):
        return HostPattern(_read_literal(name, text))
    is_wildcard = name.startswith("*.")
    bare = _to_ascii(name[2:] if is_wildcard else name, text).lower().removesuffix(".")
    if "*" in bare:
        raise ValueError(f"{quote(text)} has a misplaced star; it may only be the whole first label, as in `*.a.test`; or use a pattern")
    if not all(map(_LABEL, bare.split("."))) or len(bare) > 253:
        raise ValueError(f"{quote(text)} is not a host name; write labels of letters, digits, - and _ joined by dots, as in `www.a.test`")
    return HostPattern(bare.encode(), is_wildcard)


def _read_literal(name: str, text: str) -> bytes:
    address = name[1:-1]
    if not name.endswith("]") or ":" not in address:
        raise ValueError(f"{quote(text)} is not a host; only an IPv6 address stands in brackets, as in `[::1]`")
    try:
        packed = pack_address(address)
    except ValueError:
        raise ValueError(f"{quote(text)} is not a host: there is no IPv6 address in the brackets") from None
    if "%" in address:
        raise ValueError(f"{quote(text)} has a zone; write the address without it")
    if len(packed) == 4:
        packed = bytes(10) + b"\xff\xff" + packed
    # As clients write it (RFC 5952), because hosts are compared as text.
    return f"[{socket.inet_ntop(socket.AF_INET6, packed)}]".encode()


def _to_ascii(name: str, text: str) -> str:
    if name.isascii():
        return name
    # Imported when needed: its tables take 10 ms to load, and most configurations are plain ASCII.
    import idna

    try:
        return idna.encode(name, uts46=True).decode()
    except idna.IDNAError as error:
        raise ValueError(f"{quote(text)} is not an internationalised host name: {error}") from None


# -- paths ----------------------------------------------------------------------------------------------------------------------------


def read_path(text: str) -> bytes:
    """
    Read a whole path in its canonical form.
    """
    path = _read_any_path(text)
    _check_segments(text, text.split("/"))
    return path


def read_path_prefix(text: str) -> bytes:
    """
    Read the beginning of a path. Its last segment is part of one, so it may be `.` or `..` (``PathPrefix(`/.`)``).
    """
    path = _read_any_path(text)
    _check_segments(text, text.split("/")[:-1])
    return path


def read_path_segments(text: str) -> bytes:
    """
    Read whole leading segments. A trailing slash says nothing and is dropped; `/` is the empty prefix.
    """
    return read_path(text).rstrip(b"/")


def _read_any_path(text: str) -> bytes:
    if not text.startswith("/"):
        raise ValueError(f"{quote(text)} is not a path; it must begin with a slash")
    for mark, remedy in (("?", "use the Query matcher for what follows it"), ("#", "requests have no fragment; leave it out")):
        if mark in text:
            raise ValueError(f"{quote(text)} can never match: a path ends before {quote(mark)}; {remedy}")
    for character in text:
        if not "!" <= character <= "~":
            escape = "".join(f"%{code:02X}" for code in character.encode())
            raise ValueError(f"{quote(text)} can never match: {quote(character)} does not occur in a path; write {escape}")
    for match in _ESCAPE.finditer(text):
        _check_escape(text, match[0])
    return text.encode()


def _check_escape(text: str, escape: str) -> None:
    if len(escape) < 3:
        raise ValueError(f"{quote(text)} can never match: % needs two hexadecimal digits; for a percent sign write %25")
    character = chr(int(escape[1:], 16))
    if _UNRESERVED(character):
        raise ValueError(f"{quote(text)} can never match: requests are compared with {escape} decoded; write {character}")
    if escape != escape.upper():
        raise ValueError(f"{quote(text)} can never match: escapes are compared in upper case; write {escape.upper()}")


def _check_segments(text: str, segments: list[str]) -> None:
    for segment in segments:
        if segment in (".", ".."):
            raise ValueError(f'{quote(text)} can never match: requests are compared with "." and ".." resolved; write the resolved path')


# -- the rest -------------------------------------------------------------------------------------------------------------------------


def read_pattern(text: str) -> Any:
    """
    Compile an RE2 pattern (the syntax of Go's `regexp`). Its `search` takes bytes; like Go's `MatchString` it is not anchored.
    """
    if len(text) > MAX_PATTERN_CHARACTERS:
        raise ValueError(f"the pattern is {len(text)} characters long; at most {MAX_PATTERN_CHARACTERS} are allowed")
    options = re2.Options()
    options.max_mem = MAX_PATTERN_MEMORY
    options.log_errors = False
    try:
        pattern = re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if error.args and isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"{quote(text)} is not an RE2 pattern: {reason}") from None
    if pattern.programsize > MAX_PATTERN_INSTRUCTIONS:
        raise ValueError(
            f"{quote(text)} is too costly a pattern: {pattern.programsize} instructions, at most {MAX_PATTERN_INSTRUCTIONS} are allowed;"
            " write smaller repetition counts"
        )
    return pattern


def read_method(text: str) -> bytes:
    """
    Read a method; methods are compared in upper case.
    """
    if not _TOKEN(text):
        raise ValueError(f"{quote(text)} is not a method; write one like `GET`")
    return text.upper().encode()


def read_field_name(text: str) -> bytes:
    """
    Read the name of a request field, in lower case.
    """
    if not _TOKEN(text):
        raise ValueError(f"{quote(text)} is not a header name; write one like `X-Tenant`")
    name = text.lower().encode()
    if name in _UNSEEN_FIELDS:
        raise ValueError(f"the header {quote(text)} can never match: it belongs to the connection and is taken out before rules are tried")
    return name


def read_field_value(text: str) -> bytes:
    """
    Read a whole field value, which has no blanks around it and no control characters.
    """
    if text != text.strip(" \t"):
        raise ValueError(f"{quote(text)} can never match: header values are compared without the blanks around them; leave them out")
    if _CONTROL(text):
        raise ValueError(f"{quote(text)} can never match: a header value has no control characters")
    return text.encode()


def read_query_part(text: str) -> bytes:
    """
    Read a query's key or value as it is after decoding.
    """
    return text.encode()


def read_network(text: str) -> str:
    """
    Read an address or network; `match` puts all of a matcher's together into one set.
    """
    return AddressSet([text]).sources[0].strip()


def read_protocol(text: str) -> bytes:
    """
    Read an ALPN protocol name (RFC 7301: 1 to 255 bytes).
    """
    protocol = text.encode()
    if not 1 <= len(protocol) <= 255:
        raise ValueError(f"{quote(text)} is not an ALPN protocol; write one like `h2` or `http/1.1`")
    return protocol
