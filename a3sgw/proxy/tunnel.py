"""
Carry bytes both ways between two streams, and look at none of them.

A `Tunnel` owns a client's stream and a backend's. What arrives on one is written to the other; a side that does not keep up holds its
opposite; a side that has nothing more to say has that passed on behind everything it said, while the other may go on. A side that breaks
off breaks the other off. The tunnel is over when both streams are gone, whoever ended it and however, and says so once.

What is carried may be anything: TCP, or what HTTP/1.1 was upgraded to. A `Side` that wants to see what passes overrides `data_received`.

Hot path: see docs/hot-path.md. A read costs a count, a stamp and a write; timeouts are worked out when the sweep asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import IReceiver
from a3sgw.net.valve import CLIENT_SLOW, UPSTREAM_SLOW

__all__ = ["Side", "Tunnel"]

_NEVER: Final = float("inf")


@implementer(IReceiver)
class Side:
    """
    One end of a tunnel: receives from `stream` and writes to the stream opposite.

    `received` counts bytes; `moved` is when the last of them came; `has_ended` says that none will come any more.
    """

    __slots__ = ("_blame", "_now", "_pauser", "_tunnel", "_write", "has_ended", "is_gone", "moved", "opposite", "received", "stream")

    def __init__(self, tunnel: Tunnel, stream: Any, opposite: Any, pauser: int, blame: Outcome) -> None:
        self._tunnel = tunnel
        self._now = stream.now
        self._write = opposite.write
        self._pauser = pauser
        self._blame = blame
        self.stream = stream
        self.opposite = opposite
        self.received = 0
        self.moved = 0.0
        self.has_ended = False
        self.is_gone = False

    def data_received(self, data: bytes) -> None:
        """
        Pass `data` on.
        """
        self.received += len(data)
        self.moved = self._now()
        self._write(data)

    def eof_received(self) -> None:
        """
        Pass on that nothing more will come.
        """
        self.has_ended = True
        self._tunnel._side_ended(self)

    def stream_lost(self, error: BaseException | None) -> None:
        """
        The stream is gone: by our doing, or because its peer broke off.
        """
        self.is_gone = True
        self._tunnel._side_lost(self._blame if error is not None else None)

    def stream_congested(self) -> None:
        """
        The peer does not keep up with what comes from the other side.
        """
        self._tunnel._note_unsent()
        self.opposite.hold(self._pauser)

    def stream_drained(self) -> None:
        """
        The peer has taken everything.
        """
        self.moved = self._now()
        self.opposite.free(self._pauser)

    def deadline_passed(self) -> None:
        """
        The tunnel keeps its time on the client's stream.
        """
        self._tunnel._look_at_the_clock()


class Tunnel:
    """
    A client's stream and a backend's, joined.

    `idle_timeout` seconds may pass without a byte in either direction, `half_closed_timeout` if one side has ended already, and
    `total_timeout` in all; each strikes up to half a second late. `ended` is called exactly once, with the tunnel and the outcome:
    `COMPLETED` if both sides ended by themselves, `CLIENT_CLOSED` or `BACKEND_CLOSED` if that side broke off, `TUNNEL_IDLE`,
    `TUNNEL_TIMEOUT`, or what was given to `abort` or `close`. Both streams are gone then, or only linger.

    Nothing moves before `start`.
    """

    __slots__ = ("_ended", "_expires", "_half_closed_timeout", "_idle_timeout", "_outcome", "_unsent", "backend", "client")

    def __init__(
        self,
        client: Any,
        backend: Any,
        ended: Callable[[Tunnel, Outcome], None],
        *,
        idle_timeout: float = _NEVER,
        half_closed_timeout: float = _NEVER,
        total_timeout: float = _NEVER,
        side: type[Side] = Side,
    ) -> None:
        self.client = side(self, client, backend, CLIENT_SLOW, Outcome.CLIENT_CLOSED)
        self.backend = side(self, backend, client, UPSTREAM_SLOW, Outcome.BACKEND_CLOSED)
        self._ended: Callable[[Tunnel, Outcome], None] | None = ended
        self._idle_timeout = idle_timeout
        self._half_closed_timeout = min(idle_timeout, half_closed_timeout)
        self._expires = client.now() + total_timeout
        self._outcome: Outcome | None = None
        self._unsent = 0

    def __repr__(self) -> str:
        return f"<Tunnel {self.client.received} bytes from {self.client.stream!r}, {self.backend.received} from {self.backend.stream!r}>"

    @property
    def bytes_received(self) -> int:
        """
        How many bytes the client sent into the tunnel.
        """
        return self.client.received

    @property
    def bytes_sent(self) -> int:
        """
        How many bytes the backend sent to the client.
        """
        return self.backend.received

    def start(self, client_data: bytes = b"", backend_data: bytes = b"") -> None:
        """
        Take both streams over. `client_data` and `backend_data` were read from the client and the backend already, and go first.
        """
        client, backend = self.client, self.backend
        client.moved = client.stream.now()
        client.stream.receiver = client
        backend.stream.receiver = backend
        backend.stream.deadline = _NEVER
        self._set_deadline(client.moved)
        for side, data in ((client, client_data), (backend, backend_data)):
            if data:
                side.data_received(data)
            if side.stream.is_congested:
                side.stream_congested()

    def abort(self, outcome: Outcome) -> None:
        """
        Break both connections off.
        """
        if self._outcome is None:
            self._outcome = outcome
        # The first may report both gone before it returns.
        client, backend = self.client.stream, self.backend.stream
        client.abort()
        backend.abort()

    def close(self, outcome: Outcome, to_client: bytes = b"", to_backend: bytes = b"") -> None:
        """
        Say these last words and close both connections when they have been taken.
        """
        if self._outcome is not None:
            return
        self._outcome = outcome
        client, backend = self.client.stream, self.backend.stream
        for stream, words in ((client, to_client), (backend, to_backend)):
            if words:
                stream.write(words)
            # What the peer still sends must not make the kernel destroy our last words.
            stream.close(linger=bool(words))

    # -- what the sides report

    def _side_ended(self, side: Side) -> None:
        client, backend = self.client, self.backend
        if not (client.has_ended and backend.has_ended):
            side.moved = side.stream.now()
            self._set_deadline(side.moved)
            side.opposite.end_writing()
        elif self._outcome is None:
            self._outcome = Outcome.COMPLETED
            # In this order the last bytes are on their way before the side that waits for nothing is closed.
            side.opposite.close()
            side.stream.close()

    def _side_lost(self, blame: Outcome | None) -> None:
        client, backend = self.client, self.backend
        if blame is not None and (self._outcome is None or self._outcome is Outcome.COMPLETED):
            # Also while the last bytes were on their way.
            self._outcome = blame
        if blame is not None or self._outcome is None:
            for side in (client, backend):
                if not side.is_gone:
                    side.stream.abort()
        if client.is_gone and backend.is_gone and self._ended is not None:
            ended, self._ended = self._ended, None
            ended(self, self._outcome or Outcome.INTERNAL_ERROR)

    # -- time

    def _note_unsent(self) -> None:
        self._unsent = self.client.stream.unsent + self.backend.stream.unsent

    def _set_deadline(self, moved: float) -> None:
        timeout = self._half_closed_timeout if self.client.has_ended or self.backend.has_ended else self._idle_timeout
        self.client.stream.deadline = min(moved + timeout, self._expires)

    def _look_at_the_clock(self) -> None:
        """
        The moment may have come at which the tunnel ends; or something has moved since it was set, and there is a later one.
        """
        client, backend = self.client, self.backend
        if client.stream.now() >= self._expires:
            self.abort(Outcome.TUNNEL_TIMEOUT)
            return
        unsent = self._unsent
        self._note_unsent()
        if self._unsent != unsent:
            # A slow peer took a part of what waits for it.
            client.moved = client.stream.now()
        self._set_deadline(max(client.moved, backend.moved))
        if client.stream.deadline <= client.stream.now():
            self.abort(Outcome.TUNNEL_IDLE)
