"""
Who is at the other end of a client's connection.

What is known grows while a connection begins: the kernel knows the peer, a proxy in front may tell whom it speaks for, and TLS may prove
who that is. Each step makes a new `Caller` with `attrs.evolve`, and the last is what serves the connection.
"""

from __future__ import annotations

import attrs

from a3sgw.wire.proxyprotocol import Endpoint

__all__ = ["Caller", "TlsFacts"]


@attrs.frozen(slots=True)
class TlsFacts:
    """
    What both sides agreed on under TLS.

    `server_name` is whom the client asked for, in lower case, `offered` are the protocols it would have spoken, and `protocol` the one that
    was chosen, empty if none was. `subject` is whom the client's certificate is for, as in RFC 4514, where somebody wants to know, and
    `None` if it showed none.
    """

    server_name: bytes | None
    offered: tuple[bytes, ...]
    protocol: bytes
    subject: bytes | None = None


@attrs.frozen(slots=True)
class Caller:
    """
    The facts about one connection that hold for everything which comes over it.

    `address` is that of the client as text, `packed` the same packed (see `a3sgw.address`), `local_port` the port it came to, in digits.
    `scheme` is `https` behind TLS, else `http`. `port` is the client's, `destination` what it connected to, where somebody wants to know.
    `has_asked_for_tls` says that a client of PostgreSQL has been told that it may begin TLS.
    `tls` is there where TLS ends here.
    """

    address: bytes
    packed: bytes
    local_port: bytes
    scheme: bytes = b"http"
    port: int = 0
    destination: Endpoint | None = None
    has_asked_for_tls: bool = False
    tls: TlsFacts | None = None
