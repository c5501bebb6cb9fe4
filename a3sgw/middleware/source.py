"""
Tell apart those whom a limit is for: by client address, by a header's value, by host, or not at all.

A middleware with a limit declares the four attributes of `SourceSettings` with the functions here, in its own order, yields
`source_problems(self)` among its problems, and asks `key_reader` once for the function that makes a key of each request.

Keys are bytes, and bounded however long a client's text is. They say nothing about which source they came from, but no value of a header
can be made to look like an address: who has no such header has a key of his own.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any, Final, Protocol

from a3sgw.config.kinds import HEADER_NAME, Integer, Word
from a3sgw.config.setting import setting
from a3sgw.message import RequestHead, get_field
from a3sgw.policy.bucket import prefix_key
from a3sgw.wire.fields import REFERER, REQUEST_KINDS, USER_AGENT

__all__ = [
    "SourceSettings",
    "ipv4_prefix_setting",
    "ipv6_prefix_setting",
    "key_reader",
    "source_header_setting",
    "source_problems",
    "source_setting",
]

_LONGEST_KEY: Final = 64
"""Bytes of a client's text that are kept as they are; of longer ones a hash is."""
_BY_ADDRESS: Final = b"@"
_BY_VALUE: Final = b"="


class SourceSettings(Protocol):
    """
    What `key_reader` wants to know of a configuration.
    """

    @property
    def source(self) -> str: ...

    @property
    def header(self) -> str | None: ...

    @property
    def ipv4_prefix(self) -> int: ...

    @property
    def ipv6_prefix(self) -> int: ...


def source_setting(*, default: str = "client-ip") -> Any:
    """
    Declare `source: str`.
    """
    return setting(
        Word(("client-ip", "header", "host", "router")),
        "Who has a limit of his own: each client address, each value of `header`, or each host; with `router` all share one.",
        default=default,
    )


def source_header_setting() -> Any:
    """
    Declare `header: str | None`.
    """
    return setting(
        HEADER_NAME,
        'The header whose values are told apart where `source` is `"header"`; requests without it are told apart by client address.',
        default=None,
    )


def ipv4_prefix_setting() -> Any:
    """
    Declare `ipv4_prefix: int`.
    """
    return setting(Integer(maximum=32, unit="bits"), "How much of an IPv4 address counts as one client.", default=32)


def ipv6_prefix_setting() -> Any:
    """
    Declare `ipv6_prefix: int`.
    """
    return setting(
        Integer(maximum=128, unit="bits"),
        "How much of an IPv6 address counts as one client; whoever has one address usually has the whole /64.",
        default=64,
    )


def source_problems(config: SourceSettings) -> Iterator[tuple[str, str]]:
    """
    Give what is wrong with the source, by attribute.
    """
    header = config.header
    if config.source != "header":
        if header is not None:
            yield "header", f'has a header but its source is "{config.source}"; give source = "header" or remove the header'
    elif header is None:
        yield "source", 'has source = "header" but names none; give header = "X-…"'
    elif REQUEST_KINDS.get(header.lower().encode("ascii"), USER_AGENT) not in (USER_AGENT, REFERER):
        yield "header", f"tells clients apart by {header}, which the gateway does not leave among a request's headers; choose another"


def key_reader(config: SourceSettings) -> Callable[[RequestHead], bytes]:
    """
    Return the function that makes a key of a request.
    """
    if config.source == "router":
        return lambda head: b""
    if config.source == "host":
        return lambda head: _bounded(head.host)
    key_of_address = _address_reader(config.ipv4_prefix, config.ipv6_prefix)
    if config.source == "client-ip":
        return key_of_address
    assert config.header is not None
    name = config.header.lower().encode("ascii")

    def key_of_header(head: RequestHead) -> bytes:
        value = get_field(head.fields, name)
        return _BY_ADDRESS + key_of_address(head) if value is None else _BY_VALUE + _bounded(value)

    return key_of_header


def _address_reader(ipv4_bits: int, ipv6_bits: int) -> Callable[[RequestHead], bytes]:
    def key_of_address(head: RequestHead) -> bytes:
        return prefix_key(head.client_packed, ipv4_bits, ipv6_bits)

    def key_of_whole_ipv4(head: RequestHead) -> bytes:
        # Most common case first: a call less.
        packed = head.client_packed
        return packed if len(packed) == 4 else prefix_key(packed, 32, ipv6_bits)

    return key_of_whole_ipv4 if ipv4_bits == 32 else key_of_address


def _bounded(text: bytes) -> bytes:
    return text if len(text) <= _LONGEST_KEY else blake2b(text, digest_size=_LONGEST_KEY - 1).digest()
