"""
TLS at the beginning of a connection.

The ClientHello is read first, by us: it says whom the client wants, which decides what it is shown, and it is what keeps garbage from ever
reaching OpenSSL. Then TLS takes the stream over, and when both sides agree, what the client chose by ALPN serves the connection.

A client that cannot be greeted is told why in an alert, counted by reason, and named in the log for debugging, where it belongs: anybody
can fail at this.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs
from OpenSSL import SSL
from twisted.logger import Logger
from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import IBeginning, IConnection, IReceiver
from a3sgw.listen.certificates import Certificates
from a3sgw.net.caller import Caller, TlsFacts
from a3sgw.net.tls_stream import TlsStream
from a3sgw.wire.clienthello import ClientHello, ClientHelloError, NotTlsError, read_client_hello

__all__ = ["Greeting", "TlsBeginning"]

_ACCESS_DENIED: Final = 49
_INTERNAL_ERROR: Final = 80
_UNRECOGNIZED_NAME: Final = 112
_NO_APPLICATION_PROTOCOL: Final = 120

_HTTP: Final = re.compile(rb"[A-Z]{1,20}(?: |$)").match

# What OpenSSL says, and what that is called here; the first that fits.
_REASONS: Final = (
    ("without a tls farewell", Outcome.TLS_CLOSED),
    ("unsupported protocol", Outcome.TLS_VERSION_REFUSED),
    ("no shared cipher", Outcome.TLS_CIPHER_REFUSED),
    ("no suitable signature algorithm", Outcome.TLS_CIPHER_REFUSED),
    ("did not return a certificate", Outcome.TLS_CLIENT_CERTIFICATE_MISSING),
    ("certificate verify failed", Outcome.TLS_CLIENT_CERTIFICATE_REFUSED),
    ("alert", Outcome.TLS_REFUSED_BY_CLIENT),
)


def _alert(number: int) -> bytes:
    return b"\x15\x03\x01\x00\x02\x02%c" % number


def _outcome(reason: str) -> Outcome:
    lowered = reason.lower()
    return next((outcome for text, outcome in _REASONS if text in lowered), Outcome.TLS_MALFORMED)


@implementer(IBeginning)
class TlsBeginning:
    """
    The step that begins TLS.

    `following` are the next steps by the protocol of ALPN, best first; that of `b""` is for clients that choose none. If it is the only
    one, nothing is chosen, whatever clients offer. A handshake takes at most `timeout` seconds. `tells_subject` says that what follows
    wants to know who the client's certificate is for.
    """

    def __init__(
        self, certificates: Certificates, following: Mapping[bytes, IBeginning], timeout: float = 10.0, *, tells_subject: bool = False
    ) -> None:
        self.certificates = certificates
        self.following = following
        self.protocols = tuple(protocol for protocol in following if protocol)
        self.timeout = timeout
        self.tells_subject = tells_subject

    def begin(self, door: Any, stream: Any, caller: Caller) -> Greeting:
        """
        Wait for a ClientHello.
        """
        stream.receiver = connection = Greeting(self, door, stream, caller)
        return connection

    def goodbye(self, outcome: Outcome) -> bytes:
        """
        Return an alert.
        """
        return _alert(_ACCESS_DENIED if outcome is Outcome.ADDRESS_REFUSED else _INTERNAL_ERROR)


@implementer(IConnection, IReceiver)
class Greeting:
    """
    A connection on which both sides have yet to agree on TLS.
    """

    __slots__ = ("_beginning", "_buffer", "_caller", "_door", "_hello", "_stream", "_tls")

    _log = Logger()

    def __init__(self, beginning: TlsBeginning, door: Any, stream: Any, caller: Caller) -> None:
        self._beginning = beginning
        self._door = door
        self._stream = stream
        self._caller = caller
        self._buffer = b""
        self._hello: ClientHello | None = None
        self._tls: tuple[TlsStream, SSL.Connection] | None = None
        stream.deadline = stream.now() + beginning.timeout

    def __repr__(self) -> str:
        return f"<Greeting of {self._caller.address.decode()} on {self._stream!r}>"

    # -- before TLS

    def data_received(self, data: bytes) -> None:
        """
        The client sent a part of its ClientHello.
        """
        self._buffer = buffer = self._buffer + data if self._buffer else data
        try:
            hello = read_client_hello(buffer)
        except NotTlsError as error:
            words = self._beginning.following[b""].goodbye(Outcome.PLAIN_HTTP_ON_TLS) if _HTTP(buffer) else b""
            self._refuse(Outcome.PLAIN_HTTP_ON_TLS if words else Outcome.TLS_MALFORMED, str(error), words or error.last_words)
        except ClientHelloError as error:
            self._refuse(Outcome.TLS_MALFORMED, str(error), error.last_words)
        else:
            if hello is not None:
                self._buffer = b""
                self._answer(hello, buffer)

    def _answer(self, hello: ClientHello, data: bytes) -> None:
        beginning = self._beginning
        protocols = beginning.protocols
        if protocols and hello.alpn and not any(protocol in protocols for protocol in hello.alpn):
            # RFC 7301 section 3.2.
            self._refuse(Outcome.TLS_PROTOCOL_REFUSED, f"none of {hello.alpn} is spoken here", _alert(_NO_APPLICATION_PROTOCOL))
            return
        credential = beginning.certificates.choose(hello)
        if credential is None:
            self._refuse(Outcome.TLS_NAME_REFUSED, f"no certificate for {hello.server_name!r}", _alert(_UNRECOGNIZED_NAME))
            return
        connection = SSL.Connection(credential.context, None)
        connection.set_accept_state()
        self._hello = hello
        stream = TlsStream(self._stream, connection, _no_objection, self._secured, lingers=True)
        stream.receiver = self
        self._tls = (stream, connection)
        stream.data_received(data)

    def _refuse(self, outcome: Outcome, detail: str, last_words: bytes) -> None:
        self._failed(outcome, detail)
        self._stream.write(last_words)
        self._stream.close(linger=True)

    # -- under TLS

    def _secured(self) -> None:
        assert self._tls is not None
        assert self._hello is not None
        stream, connection = self._tls
        hello = self._hello
        beginning = self._beginning
        protocol = connection.get_alpn_proto_negotiated() if beginning.protocols else b""
        subject = _subject(connection) if beginning.tells_subject else None
        facts = TlsFacts(hello.server_name, hello.alpn, protocol, subject)
        caller = attrs.evolve(self._caller, scheme=b"https", tls=facts)
        self._door.hand_over(self, beginning.following[protocol], stream, caller, b"")

    def _failed(self, outcome: Outcome, detail: str) -> None:
        self._door.count_refused(outcome)
        self._log.debug(
            "no TLS with {peer} on entrypoint {name}: {detail}",
            peer=self._caller.address.decode("ascii"),
            name=self._door.entrypoint.name,
            detail=detail,
        )

    # -- what the stream tells, plain or under TLS

    def eof_received(self) -> None:
        """
        The client leaves before it has said anything that can be answered.
        """
        if self._buffer:
            self._failed(Outcome.TLS_CLOSED, "the client left within its ClientHello")
        self._stream.close()

    def stream_lost(self, error: BaseException | None) -> None:
        """
        The connection is gone, or the handshake has failed.
        """
        if error is not None and (self._tls is not None or self._buffer):
            self._failed(Outcome.TLS_CLOSED if self._tls is None else _outcome(str(error)), str(error))
        self._door.connection_ended(self)

    def stream_congested(self) -> None:
        """
        The client will take our part of the handshake, or the deadline will come.
        """

    def stream_drained(self) -> None:
        """
        As `stream_congested`.
        """

    def deadline_passed(self) -> None:
        """
        The handshake takes too long.
        """
        self._failed(Outcome.TLS_TIMEOUT, f"the handshake took longer than {self._beginning.timeout:g} s")
        self._stream.close()

    # -- what the door calls

    def exchange_count(self) -> int:
        """
        Return 0.
        """
        return 0

    def drain(self) -> None:
        """
        Let a client that has begun finish, and serve what it asks for, as it may not know of another place to go; and wait no longer than
        a moment for one that has not.
        """
        if self._tls is None and not self._buffer:
            # A ClientHello may have arrived that the reactor has not shown us yet.
            self._stream.poll()
            if self._tls is None and not self._buffer:
                self._stream.deadline = min(self._stream.deadline, self._stream.now() + self._door.GRACE_SECONDS)

    def stop(self) -> None:
        """
        End the connection now.
        """
        self._stream.close()


def _no_objection(connection: SSL.Connection) -> None:
    """
    What there is to verify about a client OpenSSL has verified.
    """


# RFC 4514 section 2.4 lets any byte be written as two hexadecimal digits; those that header fields cannot hold must be.
_UNPRINTABLE: Final = re.compile(rb"[^ -~]")


def _subject(connection: SSL.Connection) -> bytes | None:
    """
    Return whom the client's certificate is for, as in RFC 4514, in ASCII; `None` if it showed none.
    """
    certificate = connection.get_peer_certificate(as_cryptography=True)
    if certificate is None:
        return None
    text = certificate.subject.rfc4514_string().encode("utf-8", "replace")
    return _UNPRINTABLE.sub(lambda match: b"\\%02X" % match[0][0], text)
