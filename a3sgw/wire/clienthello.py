"""
Read the first message of a TLS connection.

A ClientHello says, before anything is encrypted, whom the client wants to reach and what it can speak (RFC 8446 section 4.1.2, RFC 5246
section 7.4.1.2). That decides which certificate is shown, or where a connection goes that is passed on unopened, so it is read here and
not by the TLS library, which would only tell when it has begun to answer.

What arrives is looked at as a whole each time, from its first byte: a ClientHello fits one segment nearly always, and nothing must be kept
but the bytes themselves, which somebody else will want to read again. Length fields are obeyed or refused, never guessed at: whoever passes
the bytes on must not see another name in them than the server behind.
"""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple

__all__ = ["MAX_CLIENT_HELLO_BYTES", "TLS12", "TLS13", "ClientHello", "ClientHelloError", "NotTlsError", "read_client_hello"]

MAX_CLIENT_HELLO_BYTES: Final = 65536
"""How much may arrive before the ClientHello is whole. Those of browsers have 2 KiB, with all that is announced for them fewer than 8."""

TLS12: Final = 0x0303
TLS13: Final = 0x0304

# Each record costs a round of a loop, each time that the message is looked at.
_MOST_RECORDS: Final = 2048
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_RECORD_BYTES: Final = 16384

_SERVER_NAME: Final = 0
_SIGNATURE_ALGORITHMS: Final = 13
_ALPN: Final = 16
_SUPPORTED_VERSIONS: Final = 43

# RFC 6066 section 3 wants a host name in ASCII. Addresses are no such names, but some send them; they match no name, and that is all.
_NAME: Final = re.compile(rb"[!-~]{1,255}").fullmatch

_HEAD: Final = struct.Struct(">HH").unpack_from

_UNEXPECTED_MESSAGE: Final = 10
_RECORD_OVERFLOW: Final = 22
_ILLEGAL_PARAMETER: Final = 47
_DECODE_ERROR: Final = 50
_PROTOCOL_VERSION: Final = 70


class ClientHelloError(ValueError):
    """
    What arrived is not, and cannot become, a ClientHello. `alert` is the TLS alert to answer with (RFC 8446 section 6).
    """

    def __init__(self, reason: str, alert: int = _DECODE_ERROR) -> None:
        super().__init__(reason)
        self.alert = alert

    @property
    def last_words(self) -> bytes:
        """
        The record that tells the client.
        """
        return b"\x15\x03\x01\x00\x02\x02%c" % self.alert


class NotTlsError(ClientHelloError):
    """
    What arrived is not even the beginning of a TLS record: somebody speaks another protocol.
    """

    def __init__(self) -> None:
        super().__init__("not TLS", _UNEXPECTED_MESSAGE)


class ClientHello(NamedTuple):
    """
    What a client asks for.

    `server_name` is in lower case without a dot at its end, `None` if the client names nobody. `alpn` are the protocols it would speak,
    best first. `versions`, `cipher_suites` and `signature_schemes` are the numbers of IANA's registries, in the client's order.
    """

    server_name: bytes | None
    alpn: tuple[bytes, ...]
    versions: tuple[int, ...]
    cipher_suites: tuple[int, ...]
    signature_schemes: tuple[int, ...]


def read_client_hello(data: bytes) -> ClientHello | None:
    """
    Return the ClientHello with which `data` begins, or `None` if there must be more of it. What follows it is not looked at.

    Raises `NotTlsError` at the first byte that says so, and `ClientHelloError` for what is malformed, or does not end within
    `MAX_CLIENT_HELLO_BYTES`.
    """
    message = _message(data)
    if message is None:
        if len(data) >= MAX_CLIENT_HELLO_BYTES:
            raise ClientHelloError("a ClientHello that is too long")
        return None
    return _read(_Cursor(message))


def _message(data: bytes) -> bytes | None:
    """
    Return the body of the handshake message, put together from its records.
    """
    if not b"\x16\x03".startswith(data[:2]):
        raise NotTlsError
    missing = 4
    size = -1
    message = b""
    position = records = 0
    while missing > 0:
        if len(data) < position + 5:
            if data[position : position + 1] not in (b"", b"\x16"):
                raise ClientHelloError("another record within a ClientHello", _UNEXPECTED_MESSAGE)
            return None
        end = position + 5 + _check_record(data, position)
        message += data[position + 5 : end]
        if size < 0 and len(message) >= 4:
            size = _message_size(message)
        if len(data) < end or len(data) < size + 9:
            # The second is for whoever sends it in drops, and would have us walk through it for each.
            return None
        records += 1
        if records > _MOST_RECORDS:
            raise ClientHelloError("a ClientHello in too many records")
        missing = (4 if size < 0 else 4 + size) - len(message)
        position = end
    return message[4 : 4 + size]


def _check_record(data: bytes, position: int) -> int:
    """
    Return the length of the record whose header stands at `position`.
    """
    if data[position] != _HANDSHAKE:
        raise ClientHelloError("another record within a ClientHello", _UNEXPECTED_MESSAGE)
    if data[position + 1] != 3:
        raise ClientHelloError("a record of an unknown version", _PROTOCOL_VERSION)
    size = int.from_bytes(data[position + 3 : position + 5], "big")
    if size > _RECORD_BYTES:
        raise ClientHelloError("a record that is too long", _RECORD_OVERFLOW)
    if not size:
        # RFC 8446 section 5.1.
        raise ClientHelloError("an empty record", _UNEXPECTED_MESSAGE)
    return size


def _message_size(head: bytes) -> int:
    if head[0] != _CLIENT_HELLO:
        raise ClientHelloError("another message than a ClientHello", _UNEXPECTED_MESSAGE)
    size = int.from_bytes(head[1:4], "big")
    if size > MAX_CLIENT_HELLO_BYTES:
        raise ClientHelloError("a ClientHello that is too long")
    return size


class _Cursor:
    """
    Takes the fields of a structure one after the other.
    """

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def is_at_end(self) -> bool:
        return self._position == len(self._data)

    def take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._data):
            raise ClientHelloError("a field that is longer than what holds it")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        """
        Take a field that is preceded by its length, a number of `width` bytes.
        """
        return self.take(self.number(width))

    def end(self) -> None:
        if not self.is_at_end():
            raise ClientHelloError("bytes after the last field")


def _read(cursor: _Cursor) -> ClientHello:
    legacy_version = cursor.number(2)
    if legacy_version < 0x0300:
        raise ClientHelloError("an unknown version", _PROTOCOL_VERSION)
    cursor.take(32)
    if len(cursor.vector(1)) > 32:
        raise ClientHelloError("a session id that is too long")
    cipher_suites = _numbers(cursor.vector(2))
    if not cursor.vector(1):
        raise ClientHelloError("no compression method")
    extensions = {} if cursor.is_at_end() else _extensions(cursor.vector(2))
    cursor.end()
    name = extensions.get(_SERVER_NAME)
    protocols = extensions.get(_ALPN)
    versions = extensions.get(_SUPPORTED_VERSIONS)
    schemes = extensions.get(_SIGNATURE_ALGORITHMS)
    return ClientHello(
        server_name=None if name is None else _server_name(name),
        alpn=() if protocols is None else _protocols(protocols),
        versions=(legacy_version,) if versions is None else _numbers(_only_vector(versions, 1)),
        cipher_suites=cipher_suites,
        signature_schemes=() if schemes is None else _numbers(_only_vector(schemes, 2)),
    )


def _extensions(block: bytes) -> dict[int, bytes]:
    # Without a cursor: there are a dozen, and this is a third of the work.
    extensions: dict[int, bytes] = {}
    position, end = 0, len(block)
    while position < end:
        start = position + 4
        if start > end:
            raise ClientHelloError("half an extension")
        kind, size = _HEAD(block, position)
        if kind in extensions:
            # RFC 8446 section 4.2.
            raise ClientHelloError("an extension that stands twice", _ILLEGAL_PARAMETER)
        position = start + size
        if position > end:
            raise ClientHelloError("an extension that is longer than what holds it")
        extensions[kind] = block[start:position]
    return extensions


def _only_vector(body: bytes, width: int) -> bytes:
    cursor = _Cursor(body)
    taken = cursor.vector(width)
    cursor.end()
    return taken


def _numbers(body: bytes) -> tuple[int, ...]:
    """
    Return the two-byte numbers of a list that must not be empty.
    """
    if not body or len(body) % 2:
        raise ClientHelloError("a list of numbers that is empty or ends within one")
    return struct.unpack(f">{len(body) // 2}H", body)


def _server_name(body: bytes) -> bytes | None:
    """
    Return the name in the extension of RFC 6066 section 3, which may hold names of other types, too.
    """
    cursor = _Cursor(_only_vector(body, 2))
    if cursor.is_at_end():
        raise ClientHelloError("a list of names that is empty")
    found: bytes | None = None
    while not cursor.is_at_end():
        kind = cursor.number(1)
        name = cursor.vector(2)
        if kind:
            continue
        if found is not None or _NAME(name) is None:
            raise ClientHelloError("a server name that is malformed or stands twice", _ILLEGAL_PARAMETER)
        found = name.lower().removesuffix(b".")
    return found or None


def _protocols(body: bytes) -> tuple[bytes, ...]:
    """
    Return the names in the extension of RFC 7301 section 3.1.
    """
    cursor = _Cursor(_only_vector(body, 2))
    names = []
    while not cursor.is_at_end():
        names.append(cursor.vector(1))
    if not names or not all(names):
        raise ClientHelloError("an empty name, or none, in the list of protocols")
    return tuple(names)
