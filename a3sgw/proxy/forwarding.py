"""
Tell the backend who is really asking.

A client's word about its own address counts only if its peer is a trusted proxy; from anybody else the forwarding fields are dropped
and replaced by what the gateway itself knows. For most connections all of that is the same for every request, so it is formatted once
per connection.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import re
import socket
from collections.abc import MutableMapping, Sequence
from typing import Final

from a3sgw.address import AddressSet, pack_address
from a3sgw.message import Field, RequestHead, get_field
from a3sgw.net.caller import Caller
from a3sgw.service.backend import BackendAddress
from a3sgw.wire.grpc import GRPC

__all__ = [
    "Forwarding",
    "forwarded_addresses",
    "forwarding_for",
    "framing_fields",
    "judge_forwarding",
    "pseudo_fields",
    "request_fields",
    "request_lines",
    "resolve_forwarding",
]

PSEUDONYM: Final = b"a3s-gateway"
_SERVER_NAME: Final = re.sub(rb"[^A-Za-z0-9.-]", b"-", socket.gethostname().encode("ascii", "replace")) or b"localhost"
# A parameter of `Forwarded` (RFC 7239 section 4), or a quoted string that stands where none belongs: what is quoted is never looked into.
_PARAMETER: Final = re.compile(rb'([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^;,\s"]*))|"(?:[^"\\]|\\.)*"?')
_PORT: Final = re.compile(rb"[1-9][0-9]{0,4}")
_SAFE_HOST: Final = re.compile(rb"[A-Za-z0-9_.:\[\]-]{1,255}")
_SCHEMES: Final = {b"http": b"http", b"ws": b"http", b"https": b"https", b"wss": b"https"}
_VARIANTS: Final = 16
_REMEMBERED: Final = 1024


class Forwarding:
    """
    What is said to backends about where a request came from.

    `client` is the resolved client address as text, `client_packed` the same packed (see `a3sgw.address`). `block` holds the finished
    header lines, joined by CRLF, all but `X-Forwarded-Host`: `host` is what that says, or `None` for the request's own authority. `scheme`
    is what the client used, `http` or `https`, also for WebSockets; `prefix` is what was cut off the path so far, by trusted proxies and by
    the gateway. `version` is that of the client's HTTP.

    Nothing of this changes: a middleware that wants something else to be said puts a variant in the place of the exchange's.
    """

    __slots__ = ("_pairs", "_variants", "block", "client", "client_packed", "host", "is_forwarded", "prefix", "scheme")

    def __init__(
        self,
        client: bytes,
        client_packed: bytes,
        chain: bytes,
        proto: bytes,
        port: bytes,
        extra: Sequence[Field] = (),
        host: bytes | None = None,
        *,
        is_forwarded: bool = False,
        version: bytes = b"1.1",
    ) -> None:
        self.client = client
        self.client_packed = client_packed
        self.host = host
        self.is_forwarded = is_forwarded
        self.scheme: bytes = _SCHEMES[proto]
        self.prefix: bytes = get_field(extra, b"x-forwarded-prefix") or b""
        self._variants: dict[tuple[tuple[bytes, bytes], ...], Forwarding] | None = None
        self._pairs: list[tuple[bytes, bytes]] | None = None
        self.block = b"\r\n".join(
            [
                b"X-Forwarded-For: " + chain,
                b"X-Forwarded-Proto: " + proto,
                b"X-Forwarded-Port: " + port,
                b"X-Forwarded-Server: " + _SERVER_NAME,
                b"X-Real-Ip: " + client,
                *[field.line for field in extra],
                b"Via: %b %b" % (version, PSEUDONYM),
            ]
        )

    def block_for_http10(self) -> bytes:
        """
        Return `block` for a request that came over HTTP/1.0, which `Via` has to say (RFC 9110 section 7.6.3).
        """
        return self.block[: -len(b"1.1 " + PSEUDONYM)] + b"1.0 " + PSEUDONYM

    def pairs(self, *, is_http10: bool) -> list[tuple[bytes, bytes]]:
        """
        Return what `block` says as HTTP/2 has it, for a request that came over HTTP/1.0 or not.
        """
        if is_http10:
            return _pairs(self.block_for_http10())
        known = self._pairs
        if known is None:
            known = self._pairs = _pairs(self.block)
        return known

    def replaced(self, changes: tuple[tuple[bytes, bytes], ...]) -> Forwarding:
        """
        Return the forwarding that says `changes`, names and values, instead of what this one says under these names.

        An empty value leaves the line out, which `X-Forwarded-Host` cannot be, nor `Via` be changed. Variants are remembered, because
        mostly the same are asked for again and again.
        """
        known = self._variants
        if known is None:
            known = self._variants = {}
        found = known.get(changes)
        if found is None:
            if len(known) >= _VARIANTS:
                known.clear()
            found = known[changes] = self._variant(changes)
        return found

    def prefixed(self, prefix: bytes) -> Forwarding:
        """
        Return the forwarding of a request that `prefix` was cut off too.
        """
        return self.replaced(((b"X-Forwarded-Prefix", self.prefix.rstrip(b"/") + prefix),))

    def _variant(self, changes: tuple[tuple[bytes, bytes], ...]) -> Forwarding:
        changed = {name.lower(): value for name, value in changes}
        variant: Forwarding = Forwarding.__new__(Forwarding)
        variant.client = self.client
        variant.client_packed = self.client_packed
        variant.is_forwarded = self.is_forwarded
        variant.host = changed.pop(b"x-forwarded-host", self.host)
        variant.scheme = _SCHEMES.get(changed.get(b"x-forwarded-proto", b""), self.scheme)
        variant.prefix = changed.get(b"x-forwarded-prefix", self.prefix)
        variant._variants = variant._pairs = None
        *lines, via = self.block.split(b"\r\n")
        kept = [line for line in lines if line.partition(b":")[0].lower() not in changed]
        said = [b"%b: %b" % (name, value) for name, value in changes if value and name.lower() in changed]
        variant.block = b"\r\n".join([*kept, *said, via])
        return variant


def request_lines(head: RequestHead, forwarding: Forwarding, address: BackendAddress, *, pass_host_header: bool) -> list[bytes]:
    """
    Return a client's request as HTTP/1 lines for the server at `address`, all but the framing of its body.
    """
    block = forwarding.block_for_http10() if head.is_http10 else forwarding.block
    authority = head.authority if pass_host_header and head.authority else address.authority
    prefix = address.prefix if head.target != b"*" else b""
    lines = [b"%b %b%b HTTP/1.1\r\nHost: %b" % (head.method, prefix, head.target, authority)]
    lines += [field[2] for field in head.fields]
    host = forwarding.host or head.authority or authority
    lines.append(b"%b\r\nX-Forwarded-Host: %b\r\nX-Request-Id: %b" % (block, host, head.request_id))
    return lines


def _pairs(block: bytes) -> list[tuple[bytes, bytes]]:
    lines = [line.partition(b": ") for line in block.split(b"\r\n")]
    return [(name.lower(), value) for name, _, value in lines]


def request_fields(
    head: RequestHead, forwarding: Forwarding, address: BackendAddress, *, pass_host_header: bool
) -> list[tuple[bytes, bytes]]:
    """
    Return a client's request as HTTP/2 header fields for the server at `address`.
    """
    authority = head.authority if pass_host_header and head.authority else address.authority
    fields = pseudo_fields(head, address, authority)
    fields += [(field[0], field[1]) for field in head.fields]
    fields += forwarding.pairs(is_http10=head.is_http10)
    fields.append((b"x-forwarded-host", forwarding.host or head.authority or authority))
    fields.append((b"x-request-id", head.request_id))
    fields += framing_fields(head)
    return fields


def pseudo_fields(head: RequestHead, address: BackendAddress, authority: bytes) -> list[tuple[bytes, bytes]]:
    """
    Return what stands before the fields of a request over HTTP/2 (RFC 9113 section 8.3.1).
    """
    prefix = address.prefix if head.target != b"*" else b""
    return [
        (b":method", head.method),
        (b":scheme", b"https" if address.scheme == "https" else b"http"),
        (b":authority", authority),
        (b":path", prefix + head.target),
    ]


def framing_fields(head: RequestHead) -> list[tuple[bytes, bytes]]:
    """
    Return the fields of a request over HTTP/2 that concern its body and trailers. gRPC servers may insist on `TE`.
    """
    fields = [(b"content-length", b"%d" % head.length)] if head.has_length else []
    if head.accepts_trailers or head.grpc == GRPC:
        fields.append((b"te", b"trailers"))
    return fields


def forwarded_addresses(fields: Sequence[Field]) -> list[bytes]:
    """
    Return the addresses a proxy reported, nearest last: those of `X-Forwarded-For`, or where it is missing those of `Forwarded`.
    """
    chain = [part.strip() for field in fields if field.name == b"x-forwarded-for" for part in field.value.split(b",")]
    if not chain:
        chain = [
            quoted or plain
            for field in fields
            if field.name == b"forwarded"
            for name, quoted, plain in _PARAMETER.findall(field.value)
            if name.lower() == b"for"
        ]
    return [part for part in chain if part]


def _pack(text: bytes) -> bytes | None:
    """
    Pack one element of a chain, which may have brackets and a port; `None` if it is no address.
    """
    address = text.decode("latin-1")
    if address.startswith("["):
        address = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        address = address.partition(":")[0]
    try:
        return pack_address(address)
    except ValueError:
        return None


def _text(packed: bytes) -> bytes:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed).encode("ascii")


def resolve_forwarding(
    peer: bytes,
    peer_packed: bytes,
    scheme: bytes,
    port: bytes,
    trusted: AddressSet,
    fields: Sequence[Field],
    version: bytes = b"1.1",
) -> Forwarding:
    """
    Return the forwarding for one request through a trusted proxy.

    The client is the nearest address in the chain that is not itself a trusted proxy; an element that is no address ends the search,
    because nothing beyond it can be believed.
    """
    chain = forwarded_addresses(fields)
    client_packed = peer_packed
    believed: list[bytes] = []
    for element in reversed(chain):
        packed = _pack(element)
        if packed is None:
            break
        believed.append(_text(packed))
        client_packed = packed
        if not trusted.contains(packed):
            break
    proto = get_field(fields, b"x-forwarded-proto")
    given_port = get_field(fields, b"x-forwarded-port")
    host = get_field(fields, b"x-forwarded-host")
    prefix = [field for field in fields if field.name == b"x-forwarded-prefix"][:1]
    return Forwarding(
        client=_text(client_packed) if client_packed else peer,
        client_packed=client_packed,
        chain=b", ".join([*reversed(believed), peer]),
        proto=proto if proto in (b"http", b"https", b"ws", b"wss") else scheme,
        port=given_port if given_port and _PORT.fullmatch(given_port) and int(given_port) < 65536 else port,
        extra=prefix,
        host=host if host and _SAFE_HOST.fullmatch(host) else None,
        # Even a chain that names nobody says that there is a proxy.
        is_forwarded=any(field.name in (b"x-forwarded-for", b"forwarded") for field in fields),
        version=version,
    )


def forwarding_for(caller: Caller, version: bytes, *, is_forwarded: bool = False) -> Forwarding:
    """
    Return what is said of the requests of somebody who speaks for nobody else, or is not believed.
    """
    return Forwarding(
        client=caller.address,
        client_packed=caller.packed,
        chain=caller.address,
        proto=caller.scheme,
        port=caller.local_port,
        is_forwarded=is_forwarded,
        version=version,
    )


def judge_forwarding(
    caller: Caller,
    version: bytes,
    trusted: AddressSet | None,
    known: MutableMapping[tuple[bytes, ...], Forwarding],
    forwarded: Sequence[Field],
) -> Forwarding:
    """
    Return the forwarding for a request that came with forwarding fields. `trusted` is `None` if the caller is not one of the proxies that
    are. `known` is what they said lately, and is added to.
    """
    if trusted is None:
        # Not believed; only the fact that there is a proxy is remembered.
        return forwarding_for(
            caller, version, is_forwarded=any(field.name in (b"x-forwarded-for", b"forwarded") for field in forwarded)
        )
    key = (version, caller.scheme, caller.address, caller.local_port, *[field[2] for field in forwarded])
    forwarding = known.get(key)
    if forwarding is None:
        forwarding = resolve_forwarding(
            caller.address, caller.packed, caller.scheme, caller.local_port, trusted, forwarded, version
        )
        if len(known) >= _REMEMBERED:
            known.clear()
        known[key] = forwarding
    return forwarding
