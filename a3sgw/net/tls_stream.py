"""
TLS over a stream, for a client.

`TlsStream` stands between a plain stream and its receiver and looks to either like the other. It knows nothing of certificates: whoever
makes the connection says what must be verified, and what the server's name is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL
from zope.interface import implementer

from a3sgw.interfaces import IReceiver
from a3sgw.net.stream import Stream

__all__ = ["TlsStream"]

_PIECE: Final = 65536


def describe_error(error: SSL.Error) -> str:
    """
    Return the reasons that OpenSSL gives.
    """
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return "; ".join(reason for _, _, reason in reasons if reason) or type(error).__name__


@implementer(IReceiver)
class TlsStream:
    """
    A client's TLS over a plain stream, for a receiver to which it looks like one.

    `objection` is asked, when the handshake is over, why the peer should not be believed (`None` if it should); then `secured` is called,
    once. Until then nothing may be written. Failures are told to `receiver` as a loss at any time.
    """

    __slots__ = ("_connection", "_has_ended", "_is_half", "_is_secured", "_objection", "_raw", "_secured", "now", "receiver")

    def __init__(
        self,
        raw: Stream,
        connection: SSL.Connection,
        objection: Callable[[SSL.Connection], str | None],
        secured: Callable[[], None],
    ) -> None:
        self._raw = raw
        self._connection: SSL.Connection | None = connection
        self._objection = objection
        self._secured = secured
        self._is_secured = False
        self._has_ended = False
        self._is_half = False
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
        connection = self._connection
        if connection is not None and not self._is_half:
            connection.sendall(data)
            self._flush(connection)

    @property
    def unsent(self) -> int:
        """
        How many bytes, under TLS, were written which the kernel has not taken yet.
        """
        return self._raw.unsent

    def end_writing(self) -> None:
        """
        Tell the peer, behind everything written so far, that nothing more will come (RFC 8446 section 6.1). Reading goes on.
        """
        connection = self._connection
        if connection is not None and self._is_secured and not self._is_half:
            self._is_half = True
            self._say_farewell(connection)

    def close(self, *, linger: bool = False) -> None:
        """
        Close when everything written has been sent, as a plain stream does. The peer's answer to our farewell is not waited for.
        """
        connection, self._connection = self._connection, None
        if connection is not None and self._is_secured and not self._is_half:
            self._say_farewell(connection)
        self._raw.close(linger=linger)

    def _say_farewell(self, connection: SSL.Connection) -> None:
        try:
            connection.shutdown()
        except SSL.Error:
            # Where no farewell can be said any more, the end of the connection says it.
            pass
        self._flush(connection)

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
            self._flush(connection)
            return
        except SSL.Error as error:
            # The peer is told why, if OpenSSL has words for it.
            self._flush(connection)
            self._fail(describe_error(error))
            return
        reason = self._objection(connection)
        if reason is not None:
            self._fail(reason)
            return
        self._is_secured = True
        self._flush(connection)
        self._secured()

    def _flush(self, connection: SSL.Connection) -> None:
        pieces = []
        try:
            while True:
                pieces.append(connection.bio_read(_PIECE))
        except SSL.WantReadError:
            pass
        if pieces:
            self._raw.write(b"".join(pieces))

    def _fail(self, reason: str) -> None:
        self._connection = None
        receiver, self.receiver = self.receiver, None
        self._raw.close()
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
        while self._connection is not None:
            # The receiver may have closed the stream at the last piece.
            try:
                piece = connection.recv(_PIECE)
            except SSL.WantReadError:
                self._flush(connection)
                return
            except SSL.ZeroReturnError:
                # A farewell, and nothing behind it counts.
                self._has_ended = True
                self.receiver.eof_received()
                return
            except SSL.Error as error:
                self._flush(connection)
                self._fail(describe_error(error))
                return
            self.receiver.data_received(piece)

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
