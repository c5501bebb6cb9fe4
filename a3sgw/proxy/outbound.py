"""
Small requests of the gateway's own: to an authentication service, for keys, for an error page.

A destination is asked by errands. That of a URL has a pool of its own; that of a service uses those of the service.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred
from zope.interface import implementer

from a3sgw.config.address import ServerAddress, parse_server_url, split_http_url
from a3sgw.interfaces import IDestination, IOutbound
from a3sgw.message import Field, LocalResponse, make_field
from a3sgw.net.connect import Dialer
from a3sgw.net.deadline import NEVER
from a3sgw.proxy.errand import Errand, make_head
from a3sgw.proxy.http2_pool import equip
from a3sgw.proxy.lessee import Choice
from a3sgw.proxy.pool import Pool, PoolSettings
from a3sgw.service.backend import Backend, BackendAddress
from a3sgw.service.service import Service, ServiceSettings
from a3sgw.wire.grpc import GRPC

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from a3sgw.proxy.outbound_tls import Terms

__all__ = ["Destination", "Outbound"]


class _OnlyServer:
    """
    The server of a URL, in the place of a service.
    """

    def __init__(self, backend: Backend) -> None:
        self.settings = ServiceSettings()
        self.retries = 0
        self._backend = backend

    def choose(self, exchange: Any, tried: Sequence[Backend]) -> Backend | None:
        return None if tried else self._backend


@implementer(IDestination)
class Destination:
    """
    Sends errands to one of the servers of `service`. `pools` are closed with it; a service's own pools are not.
    """

    def __init__(self, service: Choice, later: Callable[..., Any], pools: Sequence[Pool] = ()) -> None:
        self._service = service
        self._later = later
        self._pools = pools

    def fetch(
        self, method: bytes, target: bytes, fields: Sequence[Field], *, body: bytes, timeout: float, max_body_bytes: int
    ) -> Deferred[LocalResponse]:
        """
        Ask for `target` and give the whole answer. `ValueError` if the request would not be well-formed.
        """
        errand = Errand(self._service, make_head(method, target, fields, len(body)), body, max_body_bytes)
        return errand.start(self._later, timeout)

    def ask(self, method: bytes, target: bytes, fields: Sequence[Field], *, timeout: float, max_body_bytes: int) -> Deferred[int]:
        """
        As `fetch`, but what counts is the status: a body is waited for, because a server that does not come to its end is not well, but
        it is dropped, and cut off after `max_body_bytes`. The connection may take the whole time too.
        """
        errand = Errand(self._service, make_head(method, target, fields, 0), b"", max_body_bytes, cuts=True)
        errand.connect_timeout = NEVER
        return errand.start(self._later, timeout).addCallback(attrgetter("status"))

    def call(
        self, target: bytes, fields: Sequence[Field], message: bytes, *, timeout: float, max_body_bytes: int
    ) -> Deferred[LocalResponse]:
        """
        Call a gRPC method with one message, which has its length before it. The trailers of the answer are among its fields.
        """
        said = [make_field(b"Content-Type", GRPC), make_field(b"grpc-timeout", b"%dm" % max(1, int(timeout * 1000))), *fields]
        head = make_head(b"POST", target, said, len(message))
        head.grpc = GRPC
        errand = Errand(self._service, head, message, max_body_bytes)
        errand.connect_timeout = NEVER

        def with_trailers(response: LocalResponse) -> LocalResponse:
            response.fields += errand.trailers
            return response

        return errand.start(self._later, timeout).addCallback(with_trailers)

    def close(self) -> None:
        """
        Close what is idle.
        """
        for pool in self._pools:
            pool.retire()


@implementer(IOutbound)
class Outbound:
    """
    The gateway's own way out.

    `authorities` are the certificates to which those of `https` servers must lead, instead of the ones that the system trusts. `pooling`
    bounds the connections to each destination that is opened.
    """

    def __init__(
        self,
        dialer: Dialer,
        reactor: Any,
        authorities: Sequence[Certificate] | None = None,
        pooling: PoolSettings | None = None,
    ) -> None:
        self._dialer = dialer
        self._reactor = reactor
        self._authorities = authorities
        self._pooling = PoolSettings() if pooling is None else pooling

    def open(self, url: str, host: bytes | None = None, terms: Terms | None = None) -> Destination:
        """
        Return a destination for the server of an `http://`, `https://` or `h2c://` URL, or behind a socket: `unix:/path`.

        `host` is what requests say in `Host`, unless it is the URL's. `terms` are those for TLS with this server, unless the usual.
        """
        address = parse_server_url(url) if url.startswith(("unix:", "h2c:")) else split_http_url(url)
        where = _backend_address(address)
        # As the URL may have it, but without path and query, which may hold secrets.
        name = f"unix:{where.path}" if where.path else f"{address.scheme}://{where.authority.decode('ascii')}"
        backend = Backend("", name, where if host is None else attrs.evolve(where, authority=host), 1)
        equip(backend, self._pooling, self._dialer, lambda protocols: self._tls_dialer(address.host, terms, protocols))
        if where.scheme == "https":
            # Small requests now and then gain nothing from sharing a connection.
            backend.pool = backend.pools[0]
        return Destination(_OnlyServer(backend), self._reactor.callLater, backend.pools)

    def open_service(self, service: Service) -> Destination:
        """
        Return a destination that asks `service`.
        """
        return Destination(service, self._reactor.callLater)

    def _tls_dialer(self, host: str, terms: Terms | None, protocols: Sequence[bytes]) -> Any:
        # Only here, so that whoever asks nobody over TLS runs without OpenSSL.
        from a3sgw.proxy.outbound_tls import Terms, TlsDialer

        return TlsDialer(self._dialer, host, Terms(self._authorities) if terms is None else terms, protocols)


def _backend_address(address: ServerAddress) -> BackendAddress:
    """
    Return where `address` leads. Its path is left out: errands have whole targets.
    """
    if address.scheme == "unix":
        return BackendAddress("http", "", 0, address.path, b"", b"localhost")
    host = f"[{address.host}]" if ":" in address.host else address.host
    is_default = address.port == (443 if address.scheme == "https" else 80)
    authority = host if is_default else f"{host}:{address.port}"
    return BackendAddress(address.scheme, address.host, address.port, "", b"", authority.encode("ascii"))
