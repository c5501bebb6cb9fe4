"""
One end of an HTTP/2 connection (RFC 9113), for either role: bytes in, bytes out, and a listener that hears what they mean.

libnghttp2 does the framing, HPACK and the checks of the protocol, through `ngh2`; this module is the only one that knows it. What is added
here is what a gateway owes to both sides: received bytes are credited only when somebody took them, so that a window closes like a valve;
what waits to be sent is measured, stream by stream; and a peer that makes work without making progress is sent away. Nothing that a peer
sends raises out of a session. No socket, no clock.

Long because a connection has one state, and both roles are the same but for two methods.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, Final, Protocol

import attrs
import ngh2
from ngh2 import ErrorCode, Setting

__all__ = ["PREFACE", "ErrorCode", "Fields", "Session", "SessionLimits", "SessionListener", "error_name"]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client says first (RFC 9113 section 3.4)."""

Fields = Sequence[tuple[bytes, bytes]]
"""Names in lower case and values, pseudo-header fields first."""



def error_name(code: int) -> str:
    """
    Return what RFC 9113 section 7 calls an error.
    """
    try:
        return ErrorCode(code).name
    except ValueError:
        return f"0x{code:x}"


_PING: Final = b"a3sgwbye"
_FRAME_HEADER: Final = 9
_HEADERS: Final = 1
_PRIORITY: Final = 2
_GOAWAY: Final = 7
_CONTINUATION: Final = 9
_LOOKED_AT: Final = frozenset([_HEADERS, _PRIORITY])
_CLOSED: Final = (ngh2.StreamProtocolError, ngh2.ConnectionStateError, ngh2.ConnectionClosingError)
# So much data makes one frame that brings nothing forward itself, WINDOW_UPDATE mostly, seem reasonable.
_BYTES_PER_FRAME: Final = 512


@attrs.frozen(slots=True)
class SessionLimits:
    """
    What one connection may cost. Sizes in bytes.

    `stream_window` and `connection_window` bound what was received and not taken yet, by stream and in all. `send_mark` is how much may
    wait to be sent on a stream before its sender is asked to stop. A block of header fields may have `max_header_count` fields, and
    `max_header_bytes` with 32 more for each field (RFC 9113 section 6.5.2), pseudo-header fields included. A larger one costs the
    connection, so whoever wants to refuse one politely sets these higher than its own limits, and `advertised_header_bytes` to those.

    A peer may send `idle_frames` that bring nothing forward (PING, SETTINGS, PRIORITY_UPDATE, WINDOW_UPDATE, empty DATA) and `resets` of
    streams at once; each grows back with time and with progress.
    """

    max_concurrent_streams: int = 250
    stream_window: int = 262144
    connection_window: int = 1 << 20
    send_mark: int = 65536
    max_header_bytes: int = 131072
    max_header_count: int = 1024
    advertised_header_bytes: int = 65536
    header_table_bytes: int = 4096
    allows_extended_connect: bool = False
    idle_frames: int = 1000
    idle_frames_per_second: float = 50.0
    resets: int = 250
    resets_per_second: float = 33.0


class SessionListener(Protocol):
    """
    Whoever hears what a session means. It may call the session back, except for `feed` and `collect`.
    """

    def head_received(self, stream_id: int, fields: Fields, ended: bool) -> None:
        """
        A request, or a final response, arrived; `ended` if it has no body.
        """

    def interim_received(self, stream_id: int, fields: Fields) -> None:
        """
        A 1xx response arrived.
        """

    def data_received(self, stream_id: int, piece: bytes, ended: bool) -> None:
        """
        The next piece of a body arrived, possibly an empty one at its end. It counts against the windows until it is credited.
        """

    def trailers_received(self, stream_id: int, fields: Fields) -> None:
        """
        The body ended, with trailers.
        """

    def stream_closed(self, stream_id: int, code: int) -> None:
        """
        A stream is gone: both messages have ended (`NO_ERROR`), or either side has reset it. Called once for each stream whose head
        was received, or that was opened.
        """

    def stream_congested(self, stream_id: int) -> None:
        """
        More than the mark waits to be sent on a stream. Followed by `stream_drained`, unless it is closed before.
        """

    def stream_drained(self, stream_id: int) -> None:
        """
        Less than half of the mark waits.
        """

    def settings_received(self) -> None:
        """
        The peer's settings arrived, or changed.
        """

    def going_away(self, last_stream_id: int, code: int) -> None:
        """
        The peer takes no further streams. Those of ours above `last_stream_id` are closed with `REFUSED_STREAM`.
        """

    def pong_received(self) -> None:
        """
        The answer to `ping` arrived, and with it all that the peer had sent before.
        """

    def fault_found(self, code: int, reason: str, *, is_fatal: bool) -> None:
        """
        The peer broke the protocol: on one stream, which is reset with `code`, or so that the connection ends.
        """

    def session_closed(self, code: int) -> None:
        """
        The connection is over, and every stream that is left with it, without further reports. `collect` gives its last words.
        """


class _Patience:
    """
    How much more of something will be put up with.
    """

    __slots__ = ("_burst", "_left", "_now", "_rate")

    def __init__(self, burst: int, rate: float, now: float) -> None:
        self._burst = self._left = float(burst)
        self._rate = rate
        self._now = now

    def earn(self, amount: float) -> None:
        self._left = min(self._burst, self._left + amount)

    def spend(self, now: float) -> bool:
        """
        Take one; return whether there was one left.
        """
        if now > self._now:
            self.earn((now - self._now) * self._rate)
            self._now = now
        self._left -= 1.0
        return self._left >= 0.0


def _connect(limits: SessionLimits, *, is_server: bool) -> ngh2.Connection:
    """
    Return a connection that has its first frames ready.
    """
    connection = ngh2.Connection(
        ngh2.Role.SERVER if is_server else ngh2.Role.CLIENT,
        ngh2.Configuration(
            auto_window_update=False,
            max_deflate_dynamic_table_size=limits.header_table_bytes,
            max_inbound_header_list_size=limits.max_header_bytes,
            max_inbound_header_count=limits.max_header_count,
            max_continuations=8 + limits.max_header_bytes // 16384,
            max_send_header_block_length=1 << 24,
        ),
    )
    settings: dict[Setting, int] = {
        Setting.INITIAL_WINDOW_SIZE: limits.stream_window,
        Setting.MAX_HEADER_LIST_SIZE: limits.advertised_header_bytes,
        Setting.HEADER_TABLE_SIZE: limits.header_table_bytes,
    }
    if is_server:
        settings[Setting.MAX_CONCURRENT_STREAMS] = limits.max_concurrent_streams
        settings[Setting.NO_RFC7540_PRIORITIES] = 1
        if limits.allows_extended_connect:
            settings[Setting.ENABLE_CONNECT_PROTOCOL] = 1
    else:
        settings[Setting.ENABLE_PUSH] = 0
    connection.initiate_connection(settings)
    connection.set_local_window_size(limits.connection_window)
    return connection


class Session:
    """
    One connection.

    `is_over` says that nothing more comes of it, `has_peer_left` that the peer takes no further streams. `peer_max_streams` is how many
    streams the peer lets us have open, `peer_allows_extended_connect` whether it is ready for RFC 8441.
    """

    __slots__ = (
        "_ahead",
        "_blocked",
        "_connection",
        "_gaps",
        "_handlers",
        "_idle_frames",
        "_is_announcing",
        "_is_ending",
        "_is_server",
        "_last_stream_id",
        "_last_words",
        "_limits",
        "_listener",
        "_next_stream_id",
        "_now",
        "_open",
        "_owed",
        "_part",
        "_reset_here",
        "_reset_there",
        "_resets",
        "_resetting",
        "_written",
        "has_peer_left",
        "is_over",
        "peer_allows_extended_connect",
        "peer_max_streams",
    )

    def __init__(self, listener: SessionListener, *, is_server: bool, limits: SessionLimits, now: float) -> None:
        self._listener = listener
        self._is_server = is_server
        self._limits = limits
        self._now = now
        self._idle_frames = _Patience(limits.idle_frames, limits.idle_frames_per_second, now)
        self._resets = _Patience(limits.resets, limits.resets_per_second, now)
        self._open: set[int] = set()
        # Bytes received and not credited, by stream.
        self._owed: dict[int, int] = {}
        # Streams on which something waits to be sent, or may; those of them whose sender was asked to stop; those to reset after that.
        self._written: set[int] = set()
        self._blocked: set[int] = set()
        self._resetting: dict[int, int] = {}
        # Streams that we reset, and the one that the peer reset last: what else is reset is the peer's fault.
        self._reset_here: set[int] = set()
        # Where the next frame begins, from here, and what is there of its header; and which streams were passed over lately.
        self._ahead = len(PREFACE) if is_server else 0
        self._part = self._last_words = b""
        self._next_stream_id = 1
        self._gaps: deque[tuple[int, int]] | None = None
        self._last_stream_id = self._reset_there = 0
        self._is_announcing = self._is_ending = False
        self.has_peer_left = self.is_over = self.peer_allows_extended_connect = False
        self.peer_max_streams = 100
        self._connection = _connect(limits, is_server=is_server)
        self._handlers: _Handlers = _HANDLERS

    def __repr__(self) -> str:
        state = "over" if self.is_over else "ending" if self._is_ending else "open"
        return f"<Session of a {'server' if self._is_server else 'client'}, {state}, {len(self._open)} streams>"

    @property
    def stream_count(self) -> int:
        """
        How many streams are open.
        """
        return len(self._open)

    # -- bytes

    def feed(self, data: bytes, now: float) -> bool:
        """
        Take what the peer sent; return whether it made anything happen, or was only a part of something.
        """
        if self.is_over:
            return False
        self._now = now
        end = self._scan(data)
        try:
            self._connection.receive_data(data if end == len(data) else data[:end])
        except ngh2.ConnectionStateError:
            # Ended by us; nobody listens any more.
            return False
        except (ngh2.NGH2Error, ValueError) as error:
            # What came before it in `data` still counts.
            happened = self._dispatch()
            is_flood = isinstance(error, (ngh2.DenialOfServiceError, ValueError))
            self._break(ErrorCode.ENHANCE_YOUR_CALM if is_flood else ErrorCode.PROTOCOL_ERROR, str(error))
            return happened
        happened = self._dispatch()
        if end < len(data) and not self.is_over:
            self._listener.fault_found(ErrorCode.PROTOCOL_ERROR, "a frame on a stream where none may be", is_fatal=True)
            self.terminate(ErrorCode.PROTOCOL_ERROR)
        return happened

    def _scan(self, data: bytes) -> int:
        """
        Look at the headers of the frames in `data`, for what the library does not mind, or does not tell: return where a frame begins that
        must be refused, or the length of `data`.
        """
        size = len(data)
        at = self._ahead
        if at >= size:
            self._ahead = at - size
            return size
        begun = len(self._part)
        if begun:
            # A frame's header that came in pieces.
            data = self._part + data
        end = len(data)
        while end - at >= _FRAME_HEADER:
            kind = data[at + 3]
            if kind in _LOOKED_AT or kind > _CONTINUATION:
                stream_id = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
                if kind != _HEADERS:
                    self._idled(None)
                    if kind == _PRIORITY and not stream_id:
                        # RFC 9113 section 6.3.
                        return max(at - begun, 0)
                elif self._is_server and not self._may_begin(stream_id):
                    return max(at - begun, 0)
            at += _FRAME_HEADER + int.from_bytes(data[at : at + 3], "big")
        self._part = data[at:] if at < end else b""
        self._ahead = max(at - end, 0)
        return size

    def _may_begin(self, stream_id: int) -> bool:
        """
        Return whether there may be HEADERS on a stream: not if one with a higher number was opened before it (RFC 9113 section 5.1.1).
        """
        expected = self._next_stream_id
        if stream_id == expected:
            # Most common case first.
            self._next_stream_id = expected + 2
            return True
        if stream_id > expected:
            if self._gaps is None:
                self._gaps = deque(maxlen=64)
            self._gaps.append((expected, stream_id - 2))
            self._next_stream_id = stream_id + 2
            return True
        return self._gaps is None or not any(first <= stream_id <= last for first, last in self._gaps)

    def collect(self) -> bytes:
        """
        Return what is to be sent now: everything that the peer's windows let through.
        """
        if self._last_words:
            data, self._last_words = self._last_words, b""
            return data
        connection = self._connection
        if self.is_over:
            return b""
        try:
            data = connection.data_to_send()
        except ngh2.NGH2Error as error:
            self._break(ErrorCode.INTERNAL_ERROR, str(error))
            data, self._last_words = self._last_words, b""
            return data
        if data:
            self._idle_frames.earn(len(data) / _BYTES_PER_FRAME)
        if self._written:
            self._measure(connection)
        if self._resetting and self._reset_what_is_sent(connection):
            data += connection.data_to_send()
        if self._is_announcing:
            # Not before, because a PING overtakes what else is to be sent.
            self._is_announcing = False
            self.ping()
            data += connection.data_to_send()
        self._dispatch()
        return data

    def _measure(self, connection: ngh2.Connection) -> None:
        """
        Look how much is left on the streams that were written to, and tell their senders.
        """
        mark = self._limits.send_mark
        blocked = self._blocked
        congested = []
        drained = []
        for stream_id in list(self._written):
            queued = connection.queued_body_size(stream_id)
            if not queued:
                self._written.discard(stream_id)
            if stream_id in blocked:
                if queued < mark // 2:
                    blocked.discard(stream_id)
                    drained.append(stream_id)
            elif queued > mark:
                blocked.add(stream_id)
                congested.append(stream_id)
        for stream_id in congested:
            self._listener.stream_congested(stream_id)
        for stream_id in drained:
            self._listener.stream_drained(stream_id)

    def _reset_what_is_sent(self, connection: ngh2.Connection) -> bool:
        """
        Reset the streams that wait for that; return whether there was one.
        """
        sent = []
        for stream_id in self._resetting:
            try:
                if not connection.queued_body_size(stream_id) and connection.stream_remote_window_size(stream_id) > 0:
                    sent.append(stream_id)
            except _CLOSED:
                sent.append(stream_id)
        for stream_id in sent:
            self.reset(stream_id, self._resetting.pop(stream_id))
        return bool(sent) and not self.is_over

    @property
    def waiting(self) -> Set[int]:
        """
        The streams on which something could not be sent yet, or was written since the last `collect`.
        """
        return self._written

    @property
    def queued(self) -> int:
        """
        How many bytes of bodies wait to be sent.
        """
        return 0 if self.is_over else self._connection.queued_body_size()

    def queued_on(self, stream_id: int) -> int:
        """
        How many bytes of the body wait to be sent on a stream.
        """
        return 0 if self.is_over else self._connection.queued_body_size(stream_id)

    # -- what is sent

    @property
    def can_open(self) -> bool:
        """
        Whether a client may open another stream now.
        """
        return (
            not (self.is_over or self._is_ending or self.has_peer_left)
            and len(self._open) < self.peer_max_streams
            and self._connection.can_send_request
        )

    def open_stream(self, fields: Fields, ended: bool) -> int:
        """
        Send a request; return the number of its stream, or 0 if none can be opened. For clients.
        """
        try:
            stream_id = self._connection.send_request(fields, end_stream=ended)
        except (*_CLOSED, ngh2.NoAvailableStreamIDError):
            return 0
        self._open.add(stream_id)
        return stream_id

    def send_interim(self, stream_id: int, fields: Fields) -> None:
        """
        Send a 1xx response. For servers; like all of these, it does nothing if the stream is closed.
        """
        try:
            self._connection.send_informational_response(stream_id, fields)
        except _CLOSED:
            pass

    def send_head(self, stream_id: int, fields: Fields, ended: bool) -> None:
        """
        Send the final response's head; `ended` if it has no body. For servers.
        """
        try:
            self._connection.send_response(stream_id, fields, end_stream=ended)
        except _CLOSED:
            pass

    def send_data(self, stream_id: int, piece: bytes, ended: bool) -> None:
        """
        Send the next piece of a body.
        """
        try:
            self._connection.send_data(stream_id, piece, end_stream=ended)
        except _CLOSED:
            return
        self._written.add(stream_id)

    def send_trailers(self, stream_id: int, fields: Fields) -> None:
        """
        End a body with trailers.
        """
        try:
            self._connection.send_trailers(stream_id, fields)
        except _CLOSED:
            pass

    def reset(self, stream_id: int, code: int) -> None:
        """
        Break a stream off. `stream_closed` follows, if it is still there.
        """
        try:
            self._connection.reset_stream(stream_id, code)
        except _CLOSED:
            return
        self._resetting.pop(stream_id, None)
        self._reset_here.add(stream_id)

    def reset_when_sent(self, stream_id: int, code: int) -> None:
        """
        Reset a stream as soon as everything that was sent on it, its end included, is on its way.
        """
        self._resetting[stream_id] = code

    def credit(self, stream_id: int, amount: int) -> None:
        """
        Somebody took `amount` bytes that were received on the stream: the peer may send as many more.
        """
        owed = self._owed.get(stream_id, 0)
        amount = min(amount, owed)
        if not amount:
            return
        if amount == owed:
            del self._owed[stream_id]
        else:
            self._owed[stream_id] = owed - amount
        try:
            self._connection.acknowledge_received_data(amount, stream_id)
        except _CLOSED:
            pass

    def ping(self) -> None:
        """
        Ask for a sign of life; `pong_received` follows.
        """
        try:
            self._connection.ping(_PING)
        except _CLOSED:
            pass

    def announce_end(self) -> None:
        """
        Tell the client not to open any more streams, and take those that it opened before it could know: `pong_received` says that there
        will be no more of these, and is the time for `go_away`. For servers.
        """
        try:
            self._connection.send_shutdown_notice()
        except _CLOSED:
            return
        self._is_announcing = True

    def go_away(self, code: int = ErrorCode.NO_ERROR) -> None:
        """
        Take no further streams; those there are go on, and the session ends with the last of them.
        """
        self._is_ending = True
        try:
            self._connection.send_goaway(code)
        except _CLOSED:
            pass

    def terminate(self, code: int) -> None:
        """
        End the connection, and every stream with it.
        """
        if self.is_over:
            return
        self._is_ending = True
        # What else it has sent is not looked at any more.
        self._handlers = _LAST_HANDLERS
        try:
            self._connection.terminate_connection(code)
        except _CLOSED:
            pass

    def forget(self) -> None:
        """
        Let go of everything: the connection under the session is gone. The listener hears nothing more.
        """
        self.is_over = True
        self._handlers = {}
        self._owed.clear()

    # -- what is received

    def _dispatch(self) -> bool:
        happened = False
        while events := self._connection.events():
            happened = True
            for event in events:
                # No handler: extensions that nobody asked for, and sessions that were let go of while they told.
                handler = self._handlers.get(event.__class__)
                if handler is not None:
                    handler(self, event)
                if self.is_over:
                    return True
        return happened

    def _head_received(self, event: ngh2.RequestReceived | ngh2.ResponseReceived) -> None:
        stream_id = event.stream_id
        if self._is_server:
            self._open.add(stream_id)
            self._last_stream_id = stream_id
        self._idle_frames.earn(4)
        self._listener.head_received(stream_id, event.headers, event.end_stream)

    def _interim_received(self, event: ngh2.InformationalResponseReceived) -> None:
        self._idled(event)
        self._listener.interim_received(event.stream_id, event.headers)

    def _data_received(self, event: ngh2.DataReceived) -> None:
        piece = event.data
        if piece:
            stream_id = event.stream_id
            self._owed[stream_id] = self._owed.get(stream_id, 0) + len(piece)
            self._idle_frames.earn(len(piece) / _BYTES_PER_FRAME)
        elif not event.end_stream:
            self._idled(event)
            return
        self._listener.data_received(event.stream_id, piece, event.end_stream)

    def _trailers_received(self, event: ngh2.TrailersReceived) -> None:
        self._listener.trailers_received(event.stream_id, event.headers)

    def _stream_closed(self, event: ngh2.StreamClosed) -> None:
        stream_id = event.stream_id
        code = event.error_code
        self.credit(stream_id, 1 << 31)
        self._written.discard(stream_id)
        self._blocked.discard(stream_id)
        self._resetting.pop(stream_id, None)
        is_ours = stream_id in self._reset_here
        self._reset_here.discard(stream_id)
        if stream_id == self._reset_there:
            pass
        elif not code:
            self._resets.earn(1)
        elif not is_ours and code != ErrorCode.REFUSED_STREAM:
            self._listener.fault_found(code, "on a stream", is_fatal=False)
            # A peer that has us reset its streams saves itself only the trouble of doing so.
            self._reset_received(event)
        if stream_id in self._open:
            self._open.remove(stream_id)
            self._listener.stream_closed(stream_id, code)

    def _reset_received(self, event: ngh2.StreamReset | ngh2.StreamClosed) -> None:
        self._reset_there = event.stream_id
        if self._is_server and not self._resets.spend(self._now):
            self._send_away("too many streams were reset")

    def _settings_received(self, event: ngh2.SettingsReceived) -> None:
        self._idled(event)
        settings = event.settings
        self.peer_max_streams = settings.get(Setting.MAX_CONCURRENT_STREAMS, self.peer_max_streams)
        self.peer_allows_extended_connect = bool(settings.get(Setting.ENABLE_CONNECT_PROTOCOL, self.peer_allows_extended_connect))
        self._listener.settings_received()

    def _idled(self, event: object) -> None:
        """
        Take a frame that brings nothing forward.
        """
        if not self._idle_frames.spend(self._now):
            self._send_away("too many frames that bring nothing forward")

    def _pong_received(self, event: ngh2.PingAcknowledged) -> None:
        if event.opaque_data == _PING:
            self._listener.pong_received()
        else:
            self._idled(event)

    def _goaway_received(self, event: ngh2.GoAwayReceived) -> None:
        self.has_peer_left = True
        self._listener.going_away(event.last_stream_id, event.error_code)

    def _connection_closed(self, event: ngh2.ConnectionClosed) -> None:
        code = event.error_code
        if code and not self.has_peer_left:
            self._listener.fault_found(code, event.debug_data.decode("ascii", "replace"), is_fatal=True)
        self._end(code)

    def _terminated(self, event: ngh2.ConnectionClosed) -> None:
        self._end(event.error_code)

    def _send_away(self, reason: str) -> None:
        """
        Have no more patience with the peer.
        """
        self._listener.fault_found(ErrorCode.ENHANCE_YOUR_CALM, reason, is_fatal=True)
        self.terminate(ErrorCode.ENHANCE_YOUR_CALM)

    def _break(self, code: int, reason: str) -> None:
        """
        The library has given the connection up, without a word to the peer.
        """
        payload = self._last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big")
        self._last_words = len(payload).to_bytes(3, "big") + bytes([_GOAWAY, 0, 0, 0, 0, 0]) + payload
        self._listener.fault_found(code, reason, is_fatal=True)
        self._end(code)

    def _end(self, code: int) -> None:
        self.is_over = True
        self._open.clear()
        self._handlers = {}
        self._listener.session_closed(code)


# One table for all sessions, and another for those that hear nothing any more but their end.
_Handlers = Mapping[type, Callable[[Session, Any], None]]
_HANDLERS: Final[_Handlers] = {
    ngh2.RequestReceived: Session._head_received,
    ngh2.ResponseReceived: Session._head_received,
    ngh2.DataReceived: Session._data_received,
    ngh2.StreamClosed: Session._stream_closed,
    ngh2.WindowUpdated: Session._idled,
    ngh2.TrailersReceived: Session._trailers_received,
    ngh2.InformationalResponseReceived: Session._interim_received,
    ngh2.StreamReset: Session._reset_received,
    ngh2.SettingsReceived: Session._settings_received,
    ngh2.PingReceived: Session._idled,
    ngh2.PingAcknowledged: Session._pong_received,
    ngh2.PriorityUpdateReceived: Session._idled,
    ngh2.GoAwayReceived: Session._goaway_received,
    ngh2.ConnectionClosed: Session._connection_closed,
}
_LAST_HANDLERS: Final[_Handlers] = {ngh2.ConnectionClosed: Session._terminated}
