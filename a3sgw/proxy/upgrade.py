"""
What follows when a backend, or a middleware, agrees to another protocol: a WebSocket, mostly.

An `Upgrade` stands between an exchange and its client from the moment the backend answers 101. Middlewares see that answer like any other
and may put another in its place. If it goes out, both connections become a tunnel, and the exchange ends when the tunnel does: until then
it holds its server, its place and its counters.

A middleware that answers 101 itself (`message.SwitchingResponse`) takes the client's connection over: that is a `Takeover`.

Of what passes through a WebSocket only the heads of frames are looked at, to know whether one is under way: between two frames the gateway
can say that it goes away.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import Logger
from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import IDownstream
from a3sgw.message import Field, ResponseHead, SwitchingResponse
from a3sgw.net.caller import Caller
from a3sgw.proxy.tunnel import Side, Tunnel
from a3sgw.wire.handshake import WEBSOCKET
from a3sgw.wire.websocket import FrameBounds, going_away

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange
    from a3sgw.proxy.http1_client import Http1Client

__all__ = ["FrameSide", "Switch", "Takeover", "Upgrade"]

_HALF_CLOSED_SECONDS: Final = 10.0


class FrameSide(Side):
    """
    A side of a WebSocket, which knows whether its peer is in the middle of a frame.
    """

    __slots__ = ("bounds",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.bounds = FrameBounds()

    def data_received(self, data: bytes) -> None:
        """
        Pass `data` on, and note where its last frame ends.
        """
        self.bounds.feed(data)
        super().data_received(data)


@implementer(IDownstream)
class Switch:
    """
    The client's side of an exchange whose answer is a 101. `downstream` is the client's connection so far.

    Subclasses say what follows in `_begin`.
    """

    __slots__ = ("_downstream", "_exchange")

    _log = Logger()

    def __init__(self, exchange: Exchange, downstream: Any) -> None:
        self._exchange = exchange
        self._downstream = downstream

    # -- what the exchange calls

    @property
    def caller(self) -> Caller:
        """
        Who is at the other end.
        """
        caller: Caller = self._downstream.caller
        return caller

    def send_interim(self, head: ResponseHead) -> None:
        """
        Never called: 101 is the last thing that is said in HTTP.
        """

    def send_head(self, head: ResponseHead, piece: bytes, ended: bool) -> None:
        """
        Change the protocol, or send what a middleware put in the place of the 101.
        """
        if head.status != 101:
            self._downstream.send_head(head, piece, ended)
            return
        self._exchange.tunnel_begun()
        stream, ahead = self._downstream.hand_over(head, self)
        try:
            self._begin(stream, ahead)
        except Exception:
            self._log.failure("bug at the beginning of {switch!r}", switch=self)
            self._exchange.request_refused(Outcome.INTERNAL_ERROR, "bug")

    def send_body(self, piece: bytes, ended: bool) -> None:
        """
        Send the next piece of what a middleware put in the place of the 101.
        """
        self._downstream.send_body(piece, ended)

    def send_end(self, trailers: Sequence[Field]) -> None:
        """
        As `send_body`.
        """
        self._downstream.send_end(trailers)

    def abort(self) -> None:
        """
        Break off.
        """
        self._downstream.abort()

    def hold_request(self, pauser: int) -> None:
        """
        Never of any effect: the request has no body.
        """

    def free_request(self, pauser: int) -> None:
        """
        As `hold_request`.
        """

    # -- what follows

    def stop(self) -> None:
        """
        End what follows the 101 now.
        """
        raise NotImplementedError

    def _begin(self, stream: Any, ahead: bytes) -> None:
        raise NotImplementedError

    def _ended(self, received: int, sent: int, outcome: Outcome) -> None:
        self._exchange.tunnel_ended(received, sent, outcome)
        self._downstream.tunnel_ended()


class Upgrade(Switch):
    """
    A 101 of the backend, whose connection is `upstream`: both connections become a tunnel.
    """

    __slots__ = ("_tunnel", "_upstream")

    def __init__(self, exchange: Exchange, downstream: Any, upstream: Http1Client) -> None:
        super().__init__(exchange, downstream)
        self._upstream = upstream
        self._tunnel: Tunnel | None = None

    def __repr__(self) -> str:
        return f"<Upgrade of {self._exchange!r} with {self._tunnel!r}>"

    def _begin(self, stream: Any, ahead: bytes) -> None:
        exchange = self._exchange
        request = exchange.head
        assert request is not None
        backend, early = self._upstream.hand_over()
        # From here on it ends in `_tunnel_ended`, whatever happens.
        self._tunnel = Tunnel(
            stream,
            backend,
            self._tunnel_ended,
            idle_timeout=exchange.settings.tunnel_idle_timeout,
            half_closed_timeout=_HALF_CLOSED_SECONDS,
            side=FrameSide if request.upgrade == WEBSOCKET else Side,
        )
        self._tunnel.start(ahead, early)

    def stop(self) -> None:
        """
        End the tunnel now. Either side of a WebSocket is told why (RFC 6455 section 7.4.1), unless it would be in the middle of a frame.
        """
        tunnel = self._tunnel
        assert tunnel is not None
        to_client = to_backend = b""
        client, backend = tunnel.client, tunnel.backend
        if isinstance(client, FrameSide) and isinstance(backend, FrameSide):
            if backend.bounds.is_between:
                to_client = going_away()
            if client.bounds.is_between:
                to_backend = going_away(os.urandom(4))
        tunnel.close(Outcome.SHUTTING_DOWN, to_client, to_backend)

    def _tunnel_ended(self, tunnel: Tunnel, outcome: Outcome) -> None:
        self._tunnel = None
        self._upstream.tunnel_ended()
        self._ended(tunnel.bytes_received, tunnel.bytes_sent, outcome)


class Takeover(Switch):
    """
    A 101 of a middleware, which speaks the other protocol itself.
    """

    __slots__ = ("_response", "_speaker")

    def __init__(self, exchange: Exchange, downstream: Any, response: SwitchingResponse) -> None:
        super().__init__(exchange, downstream)
        self._response = response
        self._speaker: Any = None

    def __repr__(self) -> str:
        return f"<Takeover of {self._exchange!r} by {self._speaker!r}>"

    def _begin(self, stream: Any, ahead: bytes) -> None:
        self._speaker = self._response.begin(stream, ahead, self._ended)

    def stop(self) -> None:
        """
        Tell the middleware that the gateway stops.
        """
        self._speaker.stop()
