"""
One WebSocket of `ws-mux`.

What the client sends is read by `websockets.protocol.Protocol`, which knows masks, fragments, control frames and sizes (RFC 6455 section 5)
and does no I/O. What it gets are mostly finished frames that the hub makes once for all subscribers.

A client that does not keep up is not read any more, and what is published meanwhile is kept for it within bounds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side, State
from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import IReceiver
from a3sgw.middleware.mux_hub import Hub, MuxTally
from a3sgw.wire.mux import BAD_CHANNEL, BAD_MESSAGE, PONG, Verb, is_channel, read_message, tell_channels
from a3sgw.wire.websocket import text_frame

__all__ = ["Bounds", "MuxConnection"]

_CLIENT_SLOW: Final = 1
"""As in `net.valve`, which is upstairs; a test says that they are the same."""


@attrs.frozen(kw_only=True)
class Bounds:
    """
    What one connection may have, and how it is treated; the names are those of the configuration.
    """

    max_channels: int
    buffer_messages: int
    buffer_bytes: int
    closes_slow: bool
    max_message_bytes: int
    ping_interval: float
    echo: bool


@implementer(IReceiver)
class MuxConnection:
    """
    A client's WebSocket, and the channels it is subscribed to.
    """

    def __init__(self, stream: Any, hub: Hub, bounds: Bounds, tally: MuxTally, ended: Callable[[int, int, Outcome], None]) -> None:
        self._stream = stream
        self._hub = hub
        self._bounds = bounds
        self._tally = tally
        self._ended: Callable[[int, int, Outcome], None] | None = ended
        self._protocol = Protocol(Side.SERVER, max_size=bounds.max_message_bytes)
        self._channels: dict[str, None] = {}
        self._pieces: list[bytes] = []
        self._kept: dict[str, deque[tuple[int, bytes]]] = {}
        self._kept_bytes = 0
        self._number = 0
        self._received = self._sent = 0
        self._was_heard = True
        self._unsent = 0
        self._outcome: Outcome | None = None

    def __repr__(self) -> str:
        return f"<MuxConnection in {self._hub!r}, {len(self._channels)} channels, on {self._stream!r}>"

    def start(self, data: bytes) -> None:
        """
        Take the stream over, of which `data` was read already.
        """
        stream = self._stream
        stream.receiver = self
        stream.deadline = stream.now() + self._bounds.ping_interval
        self._tally.connections += 1
        self._hub.enter(self)
        if stream.is_congested:
            self.stream_congested()
        if data:
            self.data_received(data)

    # -- what the client says

    def data_received(self, data: bytes) -> None:
        """
        The client sent `data`.
        """
        self._received += len(data)
        self._was_heard = True
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame) and self._outcome is None:
                self._frame_received(event)
        if protocol.close_rcvd is not None and self._outcome is None:
            self._leave(Outcome.COMPLETED)
        self._send_what_is_due()

    def _frame_received(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            self._end(CloseCode.UNSUPPORTED_DATA, "text only", Outcome.WEBSOCKET_BROKEN)
        elif frame.opcode in (Opcode.TEXT, Opcode.CONT):
            self._pieces.append(bytes(frame.data))
            if frame.fin:
                message = b"".join(self._pieces)
                self._pieces.clear()
                self._message_received(message)

    def _message_received(self, message: bytes) -> None:
        try:
            text = message.decode()
        except UnicodeDecodeError:
            self._end(CloseCode.INVALID_DATA, "", Outcome.WEBSOCKET_BROKEN)
            return
        self._tally.received += 1
        verb, channel, payload = read_message(text)
        if verb is Verb.PUBLISH:
            if channel in self._channels:
                self._hub.publish(channel, payload, None if self._bounds.echo else self)
            return
        if verb is Verb.PING:
            answer = PONG
        elif verb is Verb.LIST:
            answer = tell_channels(self._channels)
        elif verb is Verb.SUBSCRIBE:
            answer = self._subscribe(channel)
        elif verb is Verb.UNSUBSCRIBE:
            answer = self._unsubscribe(channel)
        else:
            answer = BAD_MESSAGE
        self._write(text_frame(answer.encode()))

    def _subscribe(self, channel: str) -> str:
        if not is_channel(channel):
            return BAD_CHANNEL
        if channel in self._channels:
            return f"_ok:already subscribed to {channel}"
        if len(self._channels) >= self._bounds.max_channels:
            return f"_error:max channels ({self._bounds.max_channels}) reached"
        self._channels[channel] = None
        self._hub.subscribe(self, channel)
        return f"_ok:subscribed to {channel}"

    def _unsubscribe(self, channel: str) -> str:
        if channel not in self._channels:
            return f"_ok:not subscribed to {channel}" if is_channel(channel) else BAD_CHANNEL
        del self._channels[channel]
        self._hub.unsubscribe(self, channel)
        for _, frame in self._kept.pop(channel, ()):
            self._kept_bytes -= len(frame)
        return f"_ok:unsubscribed from {channel}"

    # -- what it gets

    def deliver(self, channel: str, frame: bytes) -> None:
        """
        Send a message, or keep it until the client has taken those before.
        """
        if self._outcome is not None:
            return
        if self._stream.is_congested:
            self._keep(channel, frame)
        else:
            self._tally.sent += 1
            self._write(frame)

    def _keep(self, channel: str, frame: bytes) -> None:
        bounds = self._bounds
        kept = self._kept.setdefault(channel, deque())
        self._number += 1
        kept.append((self._number, frame))
        self._kept_bytes += len(frame)
        while len(kept) > bounds.buffer_messages or self._kept_bytes > bounds.buffer_bytes:
            self._tally.dropped += 1
            if bounds.closes_slow:
                self._end(CloseCode.TRY_AGAIN_LATER, "too slow", Outcome.CLIENT_STALLED)
                return
            # Of the channel with too many, or else of all.
            oldest = channel if len(kept) > bounds.buffer_messages else min(self._kept, key=lambda name: self._kept[name][0][0])
            _, dropped = self._kept[oldest].popleft()
            self._kept_bytes -= len(dropped)
            if not self._kept[oldest]:
                del self._kept[oldest]
                if oldest == channel:
                    return

    def _write(self, data: bytes) -> None:
        self._sent += len(data)
        self._stream.write(data)

    def _send_what_is_due(self) -> None:
        """
        Send what the protocol itself has to say: pongs, and farewells, behind which nothing follows.
        """
        for data in self._protocol.data_to_send():
            if data:
                self._write(data)
            else:
                if self._outcome is None:
                    self._leave(Outcome.WEBSOCKET_BROKEN)
                self._stream.close(linger=True)
                return

    # -- the end

    def stop(self) -> None:
        """
        The gateway stops.
        """
        self._end(CloseCode.GOING_AWAY, "", Outcome.SHUTTING_DOWN)

    def dismiss(self) -> None:
        """
        The hub is no more: the client may come back to another.
        """
        self._end(CloseCode.SERVICE_RESTART, "", Outcome.SHUTTING_DOWN)

    def _end(self, code: CloseCode, reason: str, outcome: Outcome) -> None:
        """
        Say farewell and close. The client's is not waited for: it has nothing to add.
        """
        if self._outcome is None:
            self._leave(outcome)
            if self._protocol.state is State.OPEN:
                # Else it has said farewell itself, because of something that came later in the same piece.
                self._protocol.send_close(code, reason)
            for data in self._protocol.data_to_send():
                if data:
                    self._write(data)
            self._stream.close(linger=True)

    def _leave(self, outcome: Outcome) -> None:
        self._outcome = outcome
        channels, self._channels = list(self._channels), {}
        self._kept.clear()
        self._tally.connections -= 1
        self._hub.leave(self, channels)

    def eof_received(self) -> None:
        """
        The client ends without a farewell.
        """
        if self._outcome is None:
            self._leave(Outcome.CLIENT_CLOSED)
        self._stream.close()

    def stream_lost(self, error: BaseException | None) -> None:
        """
        The connection is gone.
        """
        if self._outcome is None:
            self._leave(Outcome.CLIENT_CLOSED)
        ended, self._ended = self._ended, None
        if ended is not None:
            assert self._outcome is not None
            ended(self._received, self._sent, self._outcome)

    def stream_congested(self) -> None:
        """
        The client does not keep up: it is not read until it does.
        """
        self._unsent = self._stream.unsent
        self._stream.hold(_CLIENT_SLOW)

    def stream_drained(self) -> None:
        """
        The client has taken everything, and gets what was kept for it, in the order in which it was published.
        """
        kept, self._kept = self._kept, {}
        self._kept_bytes = 0
        frames = sorted(row for rows in kept.values() for row in rows)
        if frames:
            self._tally.sent += len(frames)
            self._write(b"".join([frame for _, frame in frames]))
        self._stream.free(_CLIENT_SLOW)

    def deadline_passed(self) -> None:
        """
        Ask the client for a sign of life; one that gave none since the last time, or takes nothing of what waits for it, is gone.
        """
        stream = self._stream
        if self._outcome is not None:
            # It had its time to take the farewell.
            stream.abort()
            return
        if stream.is_congested:
            is_gone = stream.unsent == self._unsent
            self._unsent = stream.unsent
        else:
            is_gone = not self._was_heard
        if is_gone:
            self._leave(Outcome.CLIENT_STALLED if stream.is_congested else Outcome.TUNNEL_IDLE)
            stream.abort()
            return
        self._was_heard = False
        self._protocol.send_ping(b"")
        self._send_what_is_due()
        stream.deadline = stream.now() + self._bounds.ping_interval
