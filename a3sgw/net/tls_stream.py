"""
TLS over a stream, for either side.

`TlsStream` stands between a plain stream and its receiver and looks to either like the other. It knows nothing of certificates: whoever
makes the connection says which is shown, what must be verified, and what the server's name is.

What is written during an event is encrypted once at its end, so that a head and its body share records; what has arrived is passed on once
as well. Each call into OpenSSL that only says "nothing more" costs an exception, 2 µs: where it can be told beforehand, it is left out.

Long because it has the whole face of a stream and that of a receiver, and one state between them.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL
from twisted.logger import Logger
from zope.interface import implementer

from a3sgw.interfaces import IReceiver
from a3sgw.net.stream import Stream

__all__ = ["TlsStream"]

_PIECE: Final = 65536
# What OpenSSL gives at a time (RFC 8446 section 5.1).
_RECORD: Final = 16384
# For alerts that refuse what a peer tries again and again, such as a renegotiation, 31 bytes each.
_MOST_UNASKED: Final = 16384
_APPLICATION_DATA: Final = b"\x17\x03\x03"


def describe_error(error: SSL.Error) -> str:
    """
    Return the reasons that OpenSSL gives.
    """
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(reason for _, _, reason in reasons if reason) or type(error).__name__


@implementer(IReceiver)
class TlsStream:
    """
    TLS over a plain stream, for a receiver to which it looks like one. Which side it is, `connection` says.

    `objection` is asked, when the handshake is over, why the peer should not be believed (`None` if it should); then `secured` is called,
    once. Until then nothing may be written. Failures are told to `receiver` as a loss at any time. With `lingers`, which is for servers,
    the plain stream is closed then so that what the peer sends on does not destroy the alert with the reason.
    """

    __slots__ = (
        "_connection",
        "_has_ended",
        "_is_dirty",
        "_is_half",
        "_is_secured",
        "_lingers",
        "_objection",
        "_out",
        "_raw",
        "_secured",
        "_unasked",
        "now",
        "receiver",
    )

    _log = Logger()

    def __init__(
        self,
        raw: Stream,
        connection: SSL.Connection,
        objection: Callable[[SSL.Connection], str | None],
        secured: Callable[[], None],
        *,
        lingers: bool = False,
    ) -> None:
        self._raw = raw
        self._connection: SSL.Connection | None = connection
        self._objection: Callable[[SSL.Connection], str | None] | None = objection
        self._secured: Callable[[], None] | None = secured
        self._is_secured = False
        self._has_ended = False
        self._is_dirty = False
        self._is_half = False
        self._lingers = lingers
        self._out: list[bytes] = []
        self._unasked = 0
        self.now = raw.now
        self.receiver: Any = None
        raw.receiver = self

    def __repr__(self) -> str:
        return f"<TlsStream on {self._raw!r}>"

    # -- as a stream

    @property
    def deadline(self) -> float:
        """
        As that of the plain stream.
        """
        return self._raw.deadline

    @deadline.setter
    def deadline(self, moment: float) -> None:
        self._raw.deadline = moment

    @property
    def has_arrived(self) -> bool:
        """
        Say whether something was received which nobody has looked at yet.
        """
        return self._raw.has_arrived

    @property
    def is_open(self) -> bool:
        """
        Say whether there is a connection that has not been closed.
        """
        return self._connection is not None and self._raw.is_open

    @property
    def is_congested(self) -> bool:
        """
        Say whether the peer does not take what was written.
        """
        return self._raw.is_congested

    def is_stale(self) -> bool:
        """
        Ask the kernel whether the peer has closed, or sent something, since the last read.
        """
        return self._raw.is_stale()

    def start(self) -> None:
        """
        Nothing to do: the handshake had to begin to read.
        """

    @property
    def protocol(self) -> bytes:
        """
        What was agreed on to be spoken (RFC 7301), or nothing.
        """
        return b"" if self._connection is None else self._connection.get_alpn_proto_negotiated()

    def poll(self) -> None:
        """
        Read once although the reactor did not say so.
        """
        self._raw.poll()

    def keep_alive(self) -> None:
        """
        Have the kernel ask, when nothing moves, whether the peer is still there.
        """
        self._raw.keep_alive()

    def hold(self, pauser: int) -> None:
        """
        Stop reading on behalf of `pauser`.
        """
        self._raw.hold(pauser)

    def free(self, pauser: int) -> None:
        """
        Withdraw `pauser`.
        """
        self._raw.free(pauser)

    def write(self, data: bytes) -> None:
        """
        Send `data` at the end of the current event. Ignored once the stream is closing.
        """
        if self._connection is None or self._is_half:
            return
        self._out.append(data)
        if not self._is_dirty:
            self._is_dirty = True
            self._raw.flush_later(self)

    def flush_later(self, other: Any) -> None:
        """
        Have `other` flushed at the end of the current event.
        """
        self._raw.flush_later(other)

    def flush(self) -> None:
        """
        Encrypt what was written; called by the flush queue, and never raises.
        """
        self._is_dirty = False
        connection = self._connection
        if connection is not None and self._out:
            try:
                self._encrypt(connection)
            except Exception as error:
                self._log.failure("bug on {stream!r}", stream=self)
                self._raw._tell(self.stream_lost, error)
                self._raw.abort()

    def _encrypt(self, connection: SSL.Connection) -> None:
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        try:
            connection.sendall(data)
        except SSL.Error as error:
            self._fail(describe_error(error))
        else:
            self._pass_on(connection)

    @property
    def unsent(self) -> int:
        """
        How many bytes were written, or what became of them under TLS, which the kernel has not taken yet.
        """
        return sum(map(len, self._out)) + self._raw.unsent

    def end_writing(self) -> None:
        """
        Tell the peer, behind everything written so far, that nothing more will come (RFC 8446 section 6.1). Reading goes on.
        """
        connection = self._connection
        if connection is not None and self._is_secured and not self._is_half:
            self._say_farewell(connection)
            self._is_half = True

    def close(self, *, linger: bool = False) -> None:
        """
        Close when everything written has been sent, as a plain stream does. The peer's answer to our farewell is not waited for.
        """
        connection = self._connection
        if connection is not None and self._is_secured and not self._is_half:
            self._say_farewell(connection)
        self._connection = None
        self._raw.close(linger=linger)

    def _say_farewell(self, connection: SSL.Connection) -> None:
        try:
            if self._out:
                connection.sendall(b"".join(self._out))
                self._out.clear()
            connection.shutdown()
        except SSL.Error:
            # Where no farewell can be said any more, the end of the connection says it.
            pass
        self._pass_on(connection)

    def abort(self) -> None:
        """
        Break the connection so that the peer notices.
        """
        self._connection = None
        self._raw.abort()

    # -- the handshake

    def shake_hands(self) -> None:
        """
        Begin the handshake, or go on with it.
        """
        connection = self._connection
        assert connection is not None
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            self._pass_on(connection)
            return
        except SSL.Error as error:
            # The peer is told why, if OpenSSL has words for it.
            self._pass_on(connection)
            self._fail(describe_error(error))
            return
        objection, secured = self._objection, self._secured
        assert objection is not None
        assert secured is not None
        reason = objection(connection)
        if reason is not None:
            self._fail(reason)
            return
        self._is_secured = True
        # Asked once, and whoever they belong to may have no more to do with the stream.
        self._objection = self._secured = None
        self._pass_on(connection)
        secured()

    def _pass_on(self, connection: SSL.Connection) -> int:
        """
        Give the plain stream what OpenSSL wants to be sent; return how much it was.
        """
        size = 0
        try:
            piece = connection.bio_read(_PIECE)
            self._raw.write(piece)
            while len(piece) == _PIECE:
                size += _PIECE
                piece = connection.bio_read(_PIECE)
                self._raw.write(piece)
        except SSL.WantReadError:
            return size
        return size + len(piece)

    def _fail(self, reason: str) -> None:
        self._connection = None
        receiver, self.receiver = self.receiver, None
        self._raw.close(linger=self._lingers)
        if receiver is not None:
            receiver.stream_lost(ConnectionError(reason))

    # -- what the plain stream calls

    def data_received(self, data: bytes) -> None:
        """
        The peer sent `data`, of which a part, all or nothing may be for the receiver.
        """
        connection = self._connection
        if connection is None or self._has_ended:
            return
        connection.bio_write(data)
        if not self._is_secured:
            self.shake_hands()
            if not self._is_secured:
                return
        elif data.startswith(_APPLICATION_DATA) and int.from_bytes(data[3:5], "big") == len(data) - 5:
            # One whole record, as most requests and small answers are. Should there be half of another before it, the peer has been at
            # pains to make it look so, and keeps itself waiting.
            try:
                piece = connection.recv(_RECORD)
            except SSL.Error as error:
                self._decrypted(connection, [], error)
            else:
                self.receiver.data_received(piece)
            return
        pieces: list[bytes] = []
        try:
            while True:
                pieces.append(connection.recv(_RECORD))
        except SSL.Error as error:
            self._decrypted(connection, pieces, error)

    def _decrypted(self, connection: SSL.Connection, pieces: list[bytes], error: SSL.Error) -> None:
        """
        Deal with what has arrived, and with what OpenSSL says instead of more of it.
        """
        if pieces:
            self.receiver.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._connection is None:
            # The receiver has closed the stream, and hears nothing more of it.
            return
        if isinstance(error, SSL.WantReadError):
            self._unasked += self._pass_on(connection)
            if self._unasked > _MOST_UNASKED:
                self._fail("the peer provokes one alert after the other")
        elif isinstance(error, SSL.ZeroReturnError):
            # A farewell, and nothing behind it counts.
            self._has_ended = True
            self.receiver.eof_received()
        else:
            self._pass_on(connection)
            self._fail(describe_error(error))

    def eof_received(self) -> None:
        """
        The peer will send nothing more. If it has not said so under TLS, somebody else may have cut the connection.
        """
        if not self._has_ended:
            self._fail("the connection ended without a TLS farewell")

    def stream_lost(self, error: BaseException | None) -> None:
        """
        The plain stream is gone.
        """
        self._connection = None
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.stream_lost(error)

    def stream_congested(self) -> None:
        """
        The peer does not keep up.
        """
        if self.receiver is not None:
            self.receiver.stream_congested()

    def stream_drained(self) -> None:
        """
        Everything that was waiting has been sent.
        """
        if self.receiver is not None:
            self.receiver.stream_drained()

    def deadline_passed(self) -> None:
        """
        The receiver's moment has come.
        """
        if self.receiver is not None:
            self.receiver.deadline_passed()
