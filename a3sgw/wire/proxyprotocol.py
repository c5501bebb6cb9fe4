"""
Read and write the PROXY protocol, by which a proxy says whom it speaks for before anything else on a connection.

Version 1 is a line of text, version 2 a binary header; both are those of HAProxy's `proxy-protocol.txt` (2.8). The reader is strict:
whoever is trusted to say who the client is must say it in exactly the form agreed on. Where no client is named (`UNKNOWN`, `LOCAL`, as
health checks do) the connection itself counts. Everything is bounded before it is read: 107 bytes in version 1, 4 KiB in version 2.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, NamedTuple

from a3sgw.address import pack_address

__all__ = [
    "MAX_HEADER_BYTES",
    "Endpoint",
    "ProxyHeader",
    "ProxyProtocolError",
    "encode_v1",
    "encode_v2",
    "endpoint_of",
    "read_proxy_header",
]

_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_MAX_V1_BYTES: Final = 107
_V2_PREFIX: Final = struct.Struct("!12sBBH")
_MAPPED: Final = bytes(10) + b"\xff\xff"
_TLV_CRC32C: Final = 0x03

MAX_HEADER_BYTES: Final = 4096
"""No header is longer than this; a longer one is refused from its length alone."""

_ADDRESS_BYTES: Final = {0: 0, 1: 12, 2: 36, 3: 216}
"""Size of the address block for each address family of version 2: none, IPv4, IPv6, Unix."""


class ProxyProtocolError(ValueError):
    """
    What came is no PROXY header; the text says why.
    """


class Endpoint(NamedTuple):
    """
    One end of a connection: an address of 4 or 16 bytes, and a port.
    """

    packed: bytes
    port: int


class ProxyHeader(NamedTuple):
    """
    What a header says: its `version`, from where the client connected and to where, both `None` if it names no client.
    """

    version: int
    source: Endpoint | None = None
    destination: Endpoint | None = None


def read_proxy_header(data: bytes) -> tuple[ProxyHeader, int] | None:
    """
    Return the header at the beginning of `data` with its length, or `None` if more must come.

    Raises `ProxyProtocolError` as soon as it is certain that there is none.
    """
    if data[:1] == _V2[:1]:
        return _read_v2(data)
    if data[: len(_V1)] != _V1[: len(data)]:
        raise ProxyProtocolError("no PROXY header")
    end = data.find(b"\r\n", 0, _MAX_V1_BYTES)
    if end < 0:
        if len(data) >= _MAX_V1_BYTES:
            raise ProxyProtocolError(f"a PROXY line of more than {_MAX_V1_BYTES} bytes")
        return None
    return _read_v1(data[len(_V1) : end]), end + 2


# -- version 1 ------------------------------------------------------------------------------------------------------------------------


def _read_v1(line: bytes) -> ProxyHeader:
    words = line.split(b" ")
    if words[0] == b"UNKNOWN":
        # What follows is to be ignored.
        return ProxyHeader(1)
    size = {b"TCP4": 4, b"TCP6": 16}.get(words[0])
    if size is None or len(words) != 5:
        raise ProxyProtocolError("a PROXY line that is neither UNKNOWN nor a family with two addresses and two ports")
    return ProxyHeader(1, _read_endpoint(words[1], words[3], size), _read_endpoint(words[2], words[4], size))


def _read_endpoint(address: bytes, port: bytes, size: int) -> Endpoint:
    try:
        packed = socket.inet_pton(socket.AF_INET if size == 4 else socket.AF_INET6, address.decode("ascii"))
    except (OSError, ValueError):
        raise ProxyProtocolError("a PROXY line with a malformed address") from None
    if not port.isdigit() or len(port) > 5 or int(port) > 65535 or (port[:1] == b"0" and port != b"0"):
        raise ProxyProtocolError("a PROXY line with a malformed port")
    return _endpoint(packed, int(port))


def _endpoint(packed: bytes, port: int) -> Endpoint:
    """
    Return an endpoint; as everywhere, an IPv4-mapped address is an IPv4 address.
    """
    return Endpoint(packed[12:] if len(packed) == 16 and packed.startswith(_MAPPED) else packed, port)


# -- version 2 ------------------------------------------------------------------------------------------------------------------------


def _read_v2(data: bytes) -> tuple[ProxyHeader, int] | None:
    if data[: len(_V2)] != _V2[: len(data)]:
        raise ProxyProtocolError("no PROXY header")
    if len(data) < _V2_PREFIX.size:
        return None
    _, command, family, length = _V2_PREFIX.unpack_from(data)
    total = _V2_PREFIX.size + length
    if command not in (0x20, 0x21):
        raise ProxyProtocolError("a PROXY header whose version or command is unknown")
    if family >> 4 not in _ADDRESS_BYTES or family & 15 > 2:
        raise ProxyProtocolError("a PROXY header of an unknown family")
    if total > MAX_HEADER_BYTES:
        raise ProxyProtocolError(f"a PROXY header of more than {MAX_HEADER_BYTES} bytes")
    # A connection that the proxy made for itself says nothing in its address block, whatever the family.
    size = _ADDRESS_BYTES[family >> 4] if command == 0x21 else 0
    if length < size:
        raise ProxyProtocolError("a PROXY header too short for its addresses")
    if len(data) < total:
        return None
    if command == 0x20:
        return ProxyHeader(2), total
    header = data[:total]
    _check_extensions(header, _V2_PREFIX.size + size)
    return _addresses(header, family >> 4), total


def _addresses(header: bytes, family: int) -> ProxyHeader:
    if family not in (1, 2):
        return ProxyHeader(2)
    source, destination, source_port, destination_port = struct.unpack_from("!4s4sHH" if family == 1 else "!16s16sHH", header, 16)
    return ProxyHeader(2, _endpoint(source, source_port), _endpoint(destination, destination_port))


def _check_extensions(header: bytes, at: int) -> None:
    """
    Walk over what follows the addresses: pieces of a type, a length and a value. Only the checksum means something here.
    """
    while at < len(header):
        if at + 3 > len(header):
            raise ProxyProtocolError("a PROXY header with a broken extension")
        kind, length = struct.unpack_from("!BH", header, at)
        value = at + 3
        at = value + length
        if at > len(header):
            raise ProxyProtocolError("a PROXY header with a broken extension")
        # Computed with zeros in its own place.
        if kind == _TLV_CRC32C and header[value:at] != _crc32c(header[:value] + bytes(length) + header[at:]).to_bytes(4, "big"):
            raise ProxyProtocolError("a PROXY header whose checksum is wrong")


def _make_crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_CRC_TABLE: Final = _make_crc_table()


def _crc32c(data: bytes) -> int:
    """
    Return the Castagnoli checksum (RFC 4960 appendix B).
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


# -- writing --------------------------------------------------------------------------------------------------------------------------


def _same_family(source: Endpoint, destination: Endpoint) -> tuple[bytes, bytes]:
    if len(source.packed) == len(destination.packed):
        return source.packed, destination.packed
    # Both must be of one family, and every IPv4 address can be written as an IPv6 one.
    return _as_ipv6(source.packed), _as_ipv6(destination.packed)


def _as_ipv6(packed: bytes) -> bytes:
    return packed if len(packed) == 16 else _MAPPED + packed


def encode_v1(source: Endpoint | None, destination: Endpoint | None) -> bytes:
    """
    Return the line that says a connection came from `source` to `destination`; without them, that nobody knows.
    """
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n"
    here, there = _same_family(source, destination)
    family = socket.AF_INET if len(here) == 4 else socket.AF_INET6
    words = (socket.inet_ntop(family, here), socket.inet_ntop(family, there), source.port, destination.port)
    return f"PROXY {'TCP4' if len(here) == 4 else 'TCP6'} {' '.join(map(str, words))}\r\n".encode("ascii")


def encode_v2(source: Endpoint | None, destination: Endpoint | None) -> bytes:
    """
    Return the binary header that says the same as `encode_v1`, with no extensions.
    """
    if source is None or destination is None:
        return _V2_PREFIX.pack(_V2, 0x21, 0x00, 0)
    here, there = _same_family(source, destination)
    block = here + there + struct.pack("!HH", source.port, destination.port)
    return _V2_PREFIX.pack(_V2, 0x21, 0x11 if len(here) == 4 else 0x21, len(block)) + block


def endpoint_of(address: str, port: int) -> Endpoint:
    """
    Return the endpoint for an address as text. Raises `ValueError` for what is no address.
    """
    return Endpoint(pack_address(address), port)
