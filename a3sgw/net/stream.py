"""
A non-blocking socket as a reactor descriptor.

What is written during an event is sent once at its end, straight to the kernel; only what the kernel does not take waits for the reactor.
Who writes too much is told at once (`stream_congested`) and again when all is sent (`stream_drained`), so at most one read's worth of data
waits here. Callbacks into the receiver are always the last thing a method does.

Long because a socket has one state, and reading, writing and ending it are not to be told apart.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger
from zope.interface import implementer

from a3sgw.interfaces import IReceiver
from a3sgw.net.deadline import NEVER, Deadlines
from a3sgw.net.reactor import FlushQueue
from a3sgw.net.valve import pauser_names

__all__ = ["Stream", "prepare_tcp"]

_RECEIVE_BYTES: Final = 131072
_JOIN_LIMIT: Final = 16384
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_CLOSING: Final = 1 << 30
_UNSENT_BYTES: Final = 131072
_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", None)

_KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
        if hasattr(socket, name)
    ),
)


def prepare_tcp(sock: socket.socket) -> None:
    """
    Set the options that every TCP connection of the gateway has.

    No delay: what is written belongs to finished thoughts. And a bound on what the kernel keeps unsent (by default megabytes), so that a
    slow peer shows at once and a deadline on progress means what it says.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if _TCP_NOTSENT_LOWAT is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


class Stream:
    """
    One connected socket.

    `receiver` gets what happens; it may be replaced at any time. `deadline` is a stamp for the sweep, in the clock of `deadlines`.
    `has_arrived` says that something was received which the receiver has not been told of yet.
    """

    __slots__ = (
        "_deadlines",
        "_descriptor",
        "_flushes",
        "_is_dirty",
        "_is_ending",
        "_is_reading",
        "_is_writing",
        "_keeps_reading",
        "_lingers",
        "_out",
        "_pausers",
        "_reactor",
        "_receive",
        "_send",
        "_socket",
        "deadline",
        "has_arrived",
        "is_congested",
        "is_open",
        "now",
        "receiver",
    )

    LINGER_SECONDS: Final = 5.0
    LAST_WORDS_SECONDS: Final = 60.0
    _log = Logger()

    def __init__(self, sock: socket.socket, reactor: Any, flushes: FlushQueue, deadlines: Deadlines) -> None:
        self._socket = sock
        self._descriptor = sock.fileno()
        self._receive = sock.recv
        self._send = sock.send
        self._reactor = reactor
        self._flushes = flushes
        self._deadlines = deadlines
        self.now = deadlines.seconds
        self._out: list[bytes] = []
        self._pausers = 0
        self._is_dirty = False
        self._is_ending = False
        self._is_reading = False
        self._is_writing = False
        self._keeps_reading = False
        self._lingers = False
        self.has_arrived = False
        self.is_congested = False
        self.is_open = True
        self.deadline = NEVER
        self.receiver: Any = None
        deadlines.add(self)

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<Stream {self._descriptor} {state} held by {pauser_names(self._pausers)}, {sum(map(len, self._out))} bytes waiting>"

    def keep_alive(self) -> None:
        """
        Have the kernel ask, when nothing moves, whether the peer is still there; if not, the stream is lost within two minutes.
        """
        for level, option, value in _KEEP_ALIVE:
            try:
                self._socket.setsockopt(level, option, value)
            except OSError:
                # A Unix domain socket, whose peer cannot vanish.
                return

    # -- reading

    def start(self) -> None:
        """
        Begin to read. `receiver` must be set.
        """
        self._update_reading()

    def hold(self, pauser: int) -> None:
        """
        Stop reading on behalf of `pauser`.
        """
        if not self._pausers & pauser:
            self._pausers |= pauser
            self._update_reading()

    def free(self, pauser: int) -> None:
        """
        Withdraw `pauser`; reading goes on if it was the last.
        """
        if self._pausers & pauser:
            self._pausers &= ~pauser
            self._update_reading()

    def _update_reading(self) -> None:
        wanted = self.is_open and not self._pausers
        if wanted != self._is_reading:
            self._is_reading = wanted
            if wanted:
                self._reactor.addReader(self)
            else:
                self._reactor.removeReader(self)

    def doRead(self) -> None:
        """
        The reactor says there is something to read.
        """
        data = self.receive()
        if data is not None:
            self.deliver(data)

    def receive(self) -> bytes | OSError | None:
        """
        Take from the kernel what there is: data, nothing more to come (`b""`), an error, or nothing yet (`None`). Never calls out.
        """
        try:
            data: bytes | OSError = self._receive(_RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            data = error
        self.has_arrived = True
        return data

    def deliver(self, data: bytes | OSError) -> None:
        """
        Pass on what `receive` took. The stream may have been closed in between, or held: what was received before still counts.
        """
        self.has_arrived = False
        if not self.is_open:
            return
        if data.__class__ is not bytes:
            self._lost(data)  # type: ignore[arg-type]
            return
        try:
            if data:
                self.receiver.data_received(data)
            else:
                self._is_reading = False
                self._reactor.removeReader(self)
                self._pausers = -1
                self.receiver.eof_received()
        except Exception as error:
            # As in `_tell`, without its call.
            self._log.failure("bug on {stream!r}", stream=self)
            self._lost(error)

    def poll(self) -> None:
        """
        Read once although the reactor did not say so: what has already arrived is not overlooked.
        """
        if self.is_open and self._is_reading:
            self.doRead()

    def is_stale(self) -> bool:
        """
        Ask the kernel whether the peer has closed, or sent something, since the last read.
        """
        if self.has_arrived:
            return True
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    # -- writing

    def write(self, data: bytes) -> None:
        """
        Send `data` at the end of the current event. Ignored once the stream is closing.
        """
        if self._is_ending or not self.is_open:
            return
        self._out.append(data)
        if not self._is_dirty and not self._is_writing:
            self._is_dirty = True
            self._flushes.append(self)

    def flush_later(self, other: Any) -> None:
        """
        Call `flush` of `other` at the end of the current event, before what it writes here is sent.
        """
        self._flushes.append(other)

    def flush(self) -> None:
        """
        Give the kernel what was written; called by the flush queue.
        """
        self._is_dirty = False
        out = self._out
        if not out:
            if self._is_ending:
                self._end()
            return
        try:
            if len(out) == 1:
                size = len(out[0])
                sent = self._send(out[0])
            elif len(out) == 2 and len(out[1]) > _JOIN_LIMIT:
                # A head and a large piece: copying the piece would cost more than the vectored call.
                size = len(out[0]) + len(out[1])
                sent = self._socket.sendmsg(out)
            else:
                out[:] = [b"".join(out)]
                size = len(out[0])
                sent = self._send(out[0])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lost(error)
            return
        if sent == size:
            out.clear()
            if self._is_ending:
                self._end()
            return
        out[:] = [b"".join(out)[sent:]]
        self._is_writing = True
        self.is_congested = True
        self._reactor.addWriter(self)
        self._tell(self.receiver.stream_congested)

    def doWrite(self) -> None:
        """
        The reactor says the kernel takes more.
        """
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lost(error)
            return
        if sent < len(data):
            out.append(data[sent:])
            if self._is_ending and sent and not self._keeps_reading:
                self.deadline = self.now() + self.LAST_WORDS_SECONDS
            return
        self._is_writing = False
        self.is_congested = False
        self._reactor.removeWriter(self)
        if self._is_ending:
            self._end()
        else:
            self._tell(self.receiver.stream_drained)

    @property
    def unsent(self) -> int:
        """
        How many bytes were written which the kernel has not taken yet.
        """
        return sum(map(len, self._out))

    # -- ending

    def end_writing(self) -> None:
        """
        Tell the peer, behind everything written so far, that nothing more will come. Reading goes on, and the stream has yet to be closed.
        """
        if self._is_ending or not self.is_open:
            return
        self._is_ending = self._keeps_reading = True
        if not self._out and not self._is_dirty:
            self._end()

    def close(self, *, linger: bool = False) -> None:
        """
        Close when everything written has been sent.

        With `linger`, what the peer still sends is read and dropped for a while after that: closing a socket with unread data in it makes
        the kernel reset the connection, and the peer might never see our last words (RFC 9112 section 9.6). The receiver learns of the
        end when it comes, or at once if nothing is left to send.
        """
        if self._keeps_reading:
            self._keeps_reading = False
        elif self._is_ending:
            return
        if not self.is_open:
            return
        self._is_ending = True
        self._lingers = linger
        if not linger:
            self.hold(_CLOSING)
        if self._out:
            self.deadline = self.now() + self.LAST_WORDS_SECONDS
        elif not self._is_dirty:
            self._end()

    def abort(self) -> None:
        """
        Break the connection so that the peer notices: unsent data is dropped and the connection reset.
        """
        if self.is_open:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            except OSError:
                pass
            self._lost(None)

    def _end(self) -> None:
        if self._keeps_reading:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError as error:
                self._lost(error)
            return
        if not self._lingers or not self.is_open:
            self._lost(None)
            return
        receiver = self.receiver
        self.receiver = _Lingerer(self)
        self.deadline = self.now() + self.LINGER_SECONDS
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._lost(None)
        else:
            self._pausers = 0
            self._update_reading()
        self._tell(receiver.stream_lost, None)

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        """
        Call out to a receiver. Receivers guard their own work; this is the last fence between one connection's bug and all the others.
        """
        try:
            call(*arguments)
        except Exception as error:
            self._log.failure("bug on {stream!r}", stream=self)
            self._lost(error)

    def _lost(self, error: BaseException | None) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self.deadline = NEVER
        self._deadlines.discard(self)
        if self._is_reading:
            self._is_reading = False
            self._reactor.removeReader(self)
        if self._is_writing:
            self._is_writing = False
            self._reactor.removeWriter(self)
        self._out.clear()
        self._socket.close()
        receiver = self.receiver
        self.receiver = None
        if receiver is not None:
            self._tell(receiver.stream_lost, error)

    # -- what the reactor and the sweep call

    def deadline_passed(self) -> None:
        """
        Called by the sweep.
        """
        if self._is_ending and not self._keeps_reading:
            # The peer had its time to take our last words, which begins anew whenever it takes some.
            self._lost(None)
        elif self.receiver is not None:
            self._tell(self.receiver.deadline_passed)

    def connectionLost(self, reason: Any) -> None:
        """
        The reactor gave the descriptor up.
        """
        self._lost(getattr(reason, "value", None))

    def readConnectionLost(self, reason: Any) -> None:
        """
        As `connectionLost`.
        """
        self._lost(getattr(reason, "value", None))

    def fileno(self) -> int:
        """
        Return the descriptor, or -1 when closed.
        """
        return self._descriptor if self.is_open else -1

    def logPrefix(self) -> str:
        """
        Twisted asks for this when it logs.
        """
        return "stream"


@implementer(IReceiver)
class _Lingerer:
    """
    Drops what still arrives on a stream whose conversation is over.
    """

    __slots__ = ("_left", "_stream")

    MAX_BYTES: Final = 1 << 20

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = self.MAX_BYTES

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._stream._lost(None)

    def eof_received(self) -> None:
        self._stream._lost(None)

    def stream_lost(self, error: BaseException | None) -> None:
        pass

    def stream_congested(self) -> None:
        pass

    def stream_drained(self) -> None:
        pass

    def deadline_passed(self) -> None:
        self._stream._lost(None)
