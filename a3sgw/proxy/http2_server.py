"""
A client's connection over HTTP/2: many exchanges at a time, each on a stream of its own.

The connection owns what its streams share: the session, the socket, and time. Everything that is to be sent is collected once, at the end
of the group of events that caused it. While the client does not read, nothing is collected, and all exchanges are held.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from twisted.logger import Logger
from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import IConnection, IReceiver
from a3sgw.message import Field
from a3sgw.net.caller import Caller
from a3sgw.net.deadline import NEVER
from a3sgw.net.stream import Stream
from a3sgw.proxy.entrypoint import Entrypoint
from a3sgw.proxy.forwarding import Forwarding, forwarding_for, judge_forwarding
from a3sgw.proxy.http2_listener import QUEUED_BYTES, Http2Listener
from a3sgw.proxy.http2_stream import CONNECTION_FULL, CONNECTION_SLOW, Http2Stream
from a3sgw.wire.http2 import ErrorCode, Session, error_name

__all__ = ["Http2Server"]

_VERSION: Final = b"2.0"


class _Door(Protocol):
    """
    What a connection needs of the door it came through.
    """

    entrypoint: Entrypoint
    is_draining: bool
    GRACE_SECONDS: float

    def connection_ended(self, connection: Any) -> None: ...

    def count_fault(self, error: str, *, is_fatal: bool) -> None: ...


@implementer(IReceiver, IConnection)
class Http2Server:
    """
    One client connection.
    """

    __slots__ = (
        "_door",
        "_entrypoint",
        "_head_deadline",
        "_idle_deadline",
        "_is_dirty",
        "_is_draining",
        "_is_full",
        "_is_slow",
        "_patience",
        "_stream",
        "_streams",
        "_unsent",
        "_write_deadline",
        "caller",
        "forwarding",
        "is_trusted",
        "now",
        "session",
    )

    _log = Logger()

    def __init__(self, stream: Stream, door: _Door, caller: Caller) -> None:
        self._stream = stream
        self._door = door
        self.caller = caller
        self.forwarding = forwarding_for(caller, _VERSION)
        self.now: Callable[[], float] = stream.now
        # Streams that were answered, but are not closed yet.
        self._unsent: set[Http2Stream] = set()
        self._is_dirty = self._is_draining = self._is_full = self._is_slow = False
        self._use_entrypoint(door.entrypoint)
        listener = Http2Listener(self)
        self._streams = listener.streams
        self.session = Session(listener, is_server=True, limits=door.entrypoint.http2, now=stream.now())
        self._head_deadline = self._write_deadline = NEVER
        # For a connection without streams.
        self._idle_deadline = stream.deadline = stream.now() + self._entrypoint.timeouts.idle
        # Until when the first request of a client that has just come is waited for, though the door closes.
        self._patience = stream.now() + door.GRACE_SECONDS

    def __repr__(self) -> str:
        return f"<Http2Server {self.caller.address.decode()} with {list(self._streams.values())} on {self._stream!r}>"

    def _use_entrypoint(self, entrypoint: Entrypoint) -> None:
        self._entrypoint = entrypoint
        self.is_trusted = entrypoint.trusted is not None and entrypoint.trusted.contains(self.caller.packed)

    def current_entrypoint(self) -> Entrypoint:
        """
        Return the terms for the next request: those of the door's current generation.
        """
        entrypoint = self._door.entrypoint
        if entrypoint is not self._entrypoint:
            self._use_entrypoint(entrypoint)
        return entrypoint

    def judge_forwarding(self, forwarded: Sequence[Field]) -> Forwarding:
        """
        Return the forwarding for a request that came with forwarding fields.
        """
        entrypoint = self._entrypoint
        return judge_forwarding(
            self.caller, _VERSION, entrypoint.trusted if self.is_trusted else None, entrypoint.forwardings, forwarded
        )

    # -- what the stream reports

    def data_received(self, data: bytes) -> None:
        """
        The client sent `data`.
        """
        try:
            happened = self.session.feed(data, self.now())
        except Exception:
            self._log.failure("bug on a connection of {peer}", peer=self.caller.address)
            self._stream.abort()
            return
        if happened:
            self._head_deadline = NEVER
        elif not self._streams and self._head_deadline is NEVER:
            # A part of something.
            self._head_deadline = self.now() + self._entrypoint.timeouts.request_header
            self.watch(self._head_deadline)
        self.touch()

    def eof_received(self) -> None:
        """
        The client will send nothing more: that ends its connection, and what was in progress with it.
        """
        self._end_streams(Outcome.CLIENT_CLOSED)
        self.session.forget()
        self._stream.close()

    def stream_lost(self, error: BaseException | None) -> None:
        """
        The connection is gone.
        """
        self._end_streams(Outcome.CLIENT_CLOSED)
        self.session.forget()
        self._door.connection_ended(self)

    def stream_congested(self) -> None:
        """
        The client does not read what was sent.
        """
        self._write_deadline = self.now() + self._entrypoint.timeouts.write
        self.watch(self._write_deadline)
        self._is_slow = True
        self._slow_all(CONNECTION_SLOW)

    def stream_drained(self) -> None:
        """
        The client has taken everything that was sent.
        """
        self._write_deadline = NEVER
        self.touch()

    def _slow_all(self, reason: int) -> None:
        for stream in list(self._streams.values()):
            stream.slow(reason)

    def _all_drained(self, reason: int) -> None:
        for stream in list(self._streams.values()):
            stream.drained(reason)

    def _end_streams(self, outcome: Outcome) -> None:
        streams = list(self._streams.values())
        self._streams.clear()
        self._unsent.clear()
        for stream in streams:
            stream.lost(outcome)

    # -- time

    def watch(self, moment: float) -> None:
        """
        Look at the time at `moment`, or before.
        """
        if moment < self._stream.deadline:
            self._stream.deadline = moment

    def deadline_passed(self) -> None:
        """
        Somebody may have taken too long.
        """
        now = self.now()
        if self._write_deadline <= now:
            self._end_streams(Outcome.CLIENT_STALLED)
            self._stream.abort()
            return
        if self._head_deadline <= now:
            self._head_deadline = NEVER
            self.session.terminate(ErrorCode.PROTOCOL_ERROR)
            self.touch()
        moment = min(self._write_deadline, self._head_deadline)
        if not self._streams:
            if self._idle_deadline <= now or self._door.is_draining:
                self.session.go_away()
                self.touch()
            else:
                moment = min(moment, self._idle_deadline)
        for stream in list(self._streams.values()):
            self.guard(stream, stream.check_time, now)
            moment = min(moment, stream.body_deadline, stream.write_deadline)
        self.watch(moment)

    # -- what streams ask for

    def touch(self) -> None:
        """
        Something is to be sent: collect it at the end of this group of events.
        """
        if not self._is_dirty:
            self._is_dirty = True
            self._stream.flush_later(self)

    def response_ended(self, stream: Http2Stream) -> None:
        """
        All of a response was sent, as far as its stream is concerned.
        """
        self._unsent.add(stream)

    def flush(self) -> None:
        """
        Send what is to be sent; called by the flush queue, and never raises.
        """
        self._is_dirty = False
        try:
            self._flush()
        except Exception:
            self._log.failure("bug on a connection of {peer}", peer=self.caller.address)
            self._stream.abort()

    def _flush(self) -> None:
        stream = self._stream
        session = self.session
        if stream.is_congested:
            # Streams that have begun since, too.
            self._is_slow = True
            self._slow_all(CONNECTION_SLOW)
            return
        data = session.collect()
        if data:
            stream.write(data)
        if session.is_over:
            stream.close(linger=True)
            return
        if self._is_slow:
            self._is_slow = False
            self._all_drained(CONNECTION_SLOW)
        if session.waiting:
            for stream_id in session.waiting:
                self._streams[stream_id].expect_progress()
            if session.queued > QUEUED_BYTES:
                self._is_full = True
                self._slow_all(CONNECTION_FULL)
        if self._is_full and session.queued < QUEUED_BYTES // 2:
            self._is_full = False
            self._all_drained(CONNECTION_FULL)
        if self._unsent:
            for each in self._unsent:
                each.expect_progress()

    # -- what the session reports

    def stream_closed(self, stream: Http2Stream, code: int) -> None:
        """
        A stream is gone.
        """
        self._unsent.discard(stream)
        self._patience = 0.0
        self.guard(stream, stream.closed, code)
        if not self._streams:
            if self._is_draining or self._door.is_draining:
                self.session.go_away()
                self.touch()
            else:
                self._idle_deadline = self.now() + self._entrypoint.timeouts.idle
                self.watch(self._idle_deadline)

    def fault_found(self, code: int, reason: str, *, is_fatal: bool) -> None:
        """
        The client broke the protocol.
        """
        error = error_name(code)
        self._door.count_fault(error, is_fatal=is_fatal)
        self._log.debug("HTTP/2 {error} by {peer}: {reason}", error=error, peer=self.caller.address, reason=reason)

    def session_closed(self) -> None:
        """
        The session is over, and with it whatever was under way.
        """
        self._end_streams(Outcome.CLIENT_CLOSED)
        self.touch()

    def guard(self, stream: Http2Stream, call: Callable[..., None], *arguments: Any) -> None:
        """
        Let a bug cost one exchange, and not the connection.
        """
        try:
            call(*arguments)
        except Exception:
            self._log.failure("bug in an exchange of {peer}", peer=self.caller.address)
            if stream.exchange is not None:
                stream.exchange.request_refused(Outcome.INTERNAL_ERROR, "bug")
            else:
                self.session.reset(stream.stream_id, ErrorCode.INTERNAL_ERROR)
            self.touch()

    # -- what the door calls

    def exchange_count(self) -> int:
        """
        Return how many exchanges are under way.
        """
        return sum(stream.exchange is not None for stream in self._streams.values())

    def drain(self) -> None:
        """
        Let the client open no further streams, and end the connection with the last.

        The client is told twice, because a request may be under way while it is told (RFC 9113 section 6.8): first that the end comes,
        and when it must have heard that, which request was the last. One that came a moment ago and has not asked yet is told nothing
        before it has: what would it do with a connection that it may not use?
        """
        if not self._streams:
            # A request may have arrived that the reactor has not shown us yet.
            self._stream.poll()
        self._is_draining = True
        now = self.now()
        if not self._streams:
            # The end of somebody who does not answer.
            self.watch(self._patience if now < self._patience else now + self._door.GRACE_SECONDS)
            if now < self._patience:
                return
        self.session.announce_end()
        self.touch()

    def stop(self) -> None:
        """
        End the connection now: exchanges that have not been answered are told why, those that have are broken off.
        """
        for stream in list(self._streams.values()):
            self.guard(stream, stream.stop)
        answers = self.session.collect()
        self.session.terminate(ErrorCode.NO_ERROR)
        self._stream.write(answers + self.session.collect())
        self._stream.close()
