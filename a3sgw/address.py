"""
Tell whether an IP address belongs to a set of networks.

Addresses travel as 4 or 16 network-order bytes, so that a look-up is one bisect over byte strings and never parses text. An
IPv4-mapped IPv6 address is an IPv4 address everywhere here: a dual-stack socket must not be a way around a rule. The families are
otherwise apart: `::/0` holds no IPv4 address.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import socket
from bisect import bisect_right
from collections.abc import Iterable

__all__ = ["AddressSet", "pack_address"]

_MAPPED = bytes(10) + b"\xff\xff"
_MAPPED_BITS = 96


def pack_address(text: str) -> bytes:
    """
    Return the 4 or 16 bytes of an IP address. A zone (`%eth0`) is dropped: it is true on one machine only.

    Raises `ValueError` for what is no address.
    """
    bare, percent, zone = text.partition("%")
    packed = _pack(bare)
    # Only an IPv6 address has a zone, and a zone has a name.
    if packed is None or (percent and (":" not in bare or not zone)):
        raise ValueError(f'"{text[:64]}" is not an IP address')
    return packed[12:] if packed.startswith(_MAPPED) and len(packed) == 16 else packed


def _pack(text: str) -> bytes | None:
    try:
        # Neither call accepts the short, octal and hexadecimal forms that `inet_aton` does.
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        return None


def _read_range(text: str) -> tuple[bytes, bytes]:
    """
    Return the first and last address of a network; a single address is a network of one.
    """
    address, slash, length = text.strip().partition("/")
    packed = _pack(address)
    if packed is None:
        remedy = "write it without its zone" if "%" in address else 'write one like "10.0.0.0/8", "192.0.2.7" or "2001:db8::/32"'
        raise ValueError(f'"{text[:64]}" is not an IP address or network; {remedy}')
    bits = len(packed) * 8
    kept = bits
    if slash:
        if not (length.isascii() and length.isdecimal() and len(length) <= 3 and int(length) <= bits):
            raise ValueError(f'"{text[:64]}" has a bad prefix length; write a number from 0 to {bits} after the slash')
        kept = int(length)
    if bits == 128 and packed.startswith(_MAPPED) and kept >= _MAPPED_BITS:
        packed, bits, kept = packed[12:], 32, kept - _MAPPED_BITS
    host_mask = (1 << (bits - kept)) - 1
    number = int.from_bytes(packed, "big")
    size = bits // 8
    return (number & ~host_mask).to_bytes(size, "big"), (number | host_mask).to_bytes(size, "big")


def _merge(ranges: list[tuple[bytes, bytes]]) -> tuple[list[bytes], list[bytes]]:
    """
    Return starts and ends of disjoint ranges that cover the same addresses, both ascending.
    """
    starts: list[bytes] = []
    ends: list[bytes] = []
    for start, end in sorted(ranges):
        if ends and start <= ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(start)
            ends.append(end)
    return starts, ends


class AddressSet:
    """
    The addresses of some networks, given as texts: `10.0.0.0/8`, `192.0.2.7`, `2001:db8::/32`.

    Surrounding blanks are ignored and host bits are masked (`10.0.0.1/8` is `10.0.0.0/8`). Raises `ValueError` with the text at fault.
    `sources` keeps the texts, for those who print a configuration.
    """

    __slots__ = ("_ends4", "_ends6", "_starts4", "_starts6", "sources")

    def __init__(self, networks: Iterable[str]) -> None:
        self.sources = tuple(networks)
        ranges = [_read_range(text) for text in self.sources]
        self._starts4, self._ends4 = _merge([pair for pair in ranges if len(pair[0]) == 4])
        self._starts6, self._ends6 = _merge([pair for pair in ranges if len(pair[0]) == 16])

    def __repr__(self) -> str:
        return f"<AddressSet {', '.join(self.sources)}>"

    def contains(self, packed: bytes) -> bool:
        """
        Tell whether the address of 4 or 16 bytes is in the set. What is neither (an unknown client is no bytes) never is.
        """
        # Most common case first.
        if len(packed) == 4:
            at = bisect_right(self._starts4, packed)
            return at > 0 and packed <= self._ends4[at - 1]
        if len(packed) == 16:
            if packed.startswith(_MAPPED):
                return self.contains(packed[12:])
            at = bisect_right(self._starts6, packed)
            return at > 0 and packed <= self._ends6[at - 1]
        return False
