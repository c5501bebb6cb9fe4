"""
Reach `https` servers.

`TlsDialer` takes the place of a dialer before a pool. Its connection attempts end when the server has proved who it is, and its streams
look like plain ones to what reads and writes HTTP, so the strict reading, the pool and the errand are the same with TLS and without.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.logger import Logger
from zope.interface import implementer

from a3sgw.address import pack_address
from a3sgw.errors import Outcome
from a3sgw.interfaces import IReceiver
from a3sgw.net.connect import Address, Connecting, Dialer
from a3sgw.net.deadline import NEVER
from a3sgw.net.pem import read_certificates, read_key
from a3sgw.net.tls_stream import TlsStream

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["Terms", "TlsDialer", "make_context", "read_terms"]


@attrs.frozen(eq=False)
class Terms:
    """
    How the gateway meets `https` servers.

    A server's certificate must lead to one of `authorities`, or without them to one that the system trusts; `is_trusting` says that any
    will do. `server_name` is whom to ask for and to expect instead of the URL's host. `chain` and `key` are the gateway's own certificate,
    leaf first, for servers that ask for one.
    """

    authorities: Sequence[Certificate] | None = None
    chain: Sequence[Certificate] = ()
    key: Any = None
    server_name: str | None = None
    is_trusting: bool = False


def read_terms(
    ca_file: str | None, cert_file: str | None, key_file: str | None, server_name: str | None, *, is_trusting: bool
) -> Terms:
    """
    Return the terms that these PEM files describe. Raises `PemError`.
    """
    chain = () if cert_file is None else read_certificates("cert_file", cert_file)
    key = None if key_file is None else read_key("key_file", key_file, chain)
    authorities = None if ca_file is None else read_certificates("ca_file", ca_file)
    return Terms(authorities, chain, key, server_name, is_trusting)


def make_context(terms: Terms, protocols: Sequence[bytes] = (b"http/1.1",)) -> SSL.Context:
    """
    Return the settings for connections on these terms, in one of these protocols; without any, no protocol is named.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # A renegotiation would make writing wait for reading.
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    if protocols:
        context.set_alpn_protos(list(protocols))
    context.set_verify(SSL.VERIFY_NONE if terms.is_trusting else SSL.VERIFY_PEER)
    if terms.authorities is None:
        context.set_default_verify_paths()
    else:
        store = context.get_cert_store()
        assert store is not None
        for authority in terms.authorities:
            store.add_cert(X509.from_cryptography(authority))
    if terms.chain and terms.key is not None:
        context.use_certificate(terms.chain[0])
        for link in terms.chain[1:]:
            context.add_extra_chain_cert(link)
        context.use_privatekey(terms.key)
    return context


class _Server:
    """
    Who must be at the other end: the host of a URL, or who is named instead.
    """

    def __init__(self, host: str, terms: Terms, protocols: Sequence[bytes]) -> None:
        host = terms.server_name or host
        self._host = host.rstrip(".")
        self._context = make_context(terms, protocols)
        self._is_trusting = terms.is_trusting
        try:
            pack_address(host)
        except ValueError:
            self._verify: Callable[[SSL.Connection, str], None] = verify_hostname
            self._name: bytes | None = self._host.encode("ascii")
        else:
            self._verify = verify_ip_address
            # RFC 6066 section 3: an address is no name to be called by.
            self._name = None

    def connection(self) -> SSL.Connection:
        """
        Return a new TLS connection to it that has yet to shake hands.
        """
        connection = SSL.Connection(self._context, None)
        if self._name is not None:
            connection.set_tlsext_host_name(self._name)
        connection.set_connect_state()
        return connection

    def objection(self, connection: SSL.Connection) -> str | None:
        """
        Return why the certificate, which leads to somebody we trust, is not the server's; `None` if it is.
        """
        if self._is_trusting:
            return None
        try:
            self._verify(connection, self._host)
        except Exception as error:
            # Whatever it stumbles over, it is no proof.
            return f"the certificate is not one for {self._host} ({type(error).__name__})"
        return None


@implementer(IReceiver)
class _Securing:
    """
    An attempt to connect that is over when the server has proved who it is.

    As `net.connect.Connecting`, but it calls `done` with a `TlsStream`.
    """

    def __init__(
        self, dialer: TlsDialer, addresses: Sequence[Address], deadline: float, done: Callable[[Any, Outcome | None], None]
    ) -> None:
        self._dialer = dialer
        self._deadline = deadline
        self._done = done
        self._stream: TlsStream | None = None
        self._connecting: Connecting = dialer.plain.connect(addresses, deadline, self._connected)

    def cancel(self) -> None:
        """
        Give up without a report.
        """
        stream = self._stream
        if stream is None:
            self._connecting.cancel()
        else:
            stream.receiver = None
            stream.abort()

    def _connected(self, sock: socket.socket | None, outcome: Outcome | None) -> None:
        if sock is None:
            self._done(None, outcome)
            return
        raw = self._dialer.plain.stream(sock)
        server = self._dialer.server
        self._stream = stream = TlsStream(raw, server.connection(), server.objection, self._secured)
        stream.receiver = self
        stream.deadline = self._deadline
        raw.start()
        stream.shake_hands()

    def _secured(self) -> None:
        stream = self._stream
        assert stream is not None
        stream.deadline = NEVER
        self._dialer.report("")
        self._done(stream, None)

    # -- what the stream calls

    def data_received(self, data: bytes) -> None:
        """
        Never called: what arrives before the stream has its real receiver is the handshake.
        """

    def eof_received(self) -> None:
        """
        As `data_received`.
        """

    def stream_lost(self, error: BaseException | None) -> None:
        """
        The server does not agree, or is not the one it should be.
        """
        self._dialer.report(str(error))
        self._done(None, Outcome.CONNECT_FAILED)

    def stream_congested(self) -> None:
        """
        The server will read its part of the handshake, or the deadline will come.
        """

    def stream_drained(self) -> None:
        """
        As `stream_congested`.
        """

    def deadline_passed(self) -> None:
        """
        The handshake takes too long.
        """
        self.cancel()
        self._done(None, Outcome.CONNECT_TIMEOUT)


class TlsDialer:
    """
    Takes the place of a `net.connect.Dialer` before the pool of one server, `host`.

    `terms` say whom to trust, `protocols` what may be spoken. `plain` is the dialer that makes the connections.
    """

    _log = Logger()

    def __init__(self, plain: Dialer, host: str, terms: Terms, protocols: Sequence[bytes] = (b"http/1.1",)) -> None:
        self.plain = plain
        self.server = _Server(host, terms, protocols)
        self.deadlines = plain.deadlines
        self.resolve = plain.resolve
        self.unix_address = plain.unix_address
        self.later = plain.later
        self._host = host
        self._last_failure = ""

    def connect(self, addresses: Sequence[Address], deadline: float, done: Callable[[Any, Outcome | None], None]) -> _Securing:
        """
        Begin to connect to the first of `addresses` that answers, and to agree with it on TLS, before `deadline`.
        """
        return _Securing(self, addresses, deadline, done)

    def stream(self, stream: TlsStream) -> TlsStream:
        """
        Return what a connection attempt reported.
        """
        return stream

    def report(self, failure: str) -> None:
        """
        Log why TLS fails, once and not with every request. Empty means that it did not.
        """
        if failure and failure != self._last_failure:
            self._log.warn("no TLS connection to {host}: {failure}", host=self._host, failure=failure)
        self._last_failure = failure
