"""
One end of a pair of connected Unix sockets, for frames between two processes; descriptors can be sent along.

What is sent waits in memory until the kernel takes it: the two processes belong together, and whoever asks for much waits for the answer
before it asks again.
"""

from __future__ import annotations

import array
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from a3sgw.wire.frame import Frame, FrameReader, encode_frame

__all__ = ["Channel"]

_PIECE: Final = 1 << 18
_MOST_DESCRIPTORS: Final = 250
"""Linux passes at most 253 with one message."""


class Channel:
    """
    Frames over `sock`, which becomes the channel's own.

    `received` is called with each frame and its descriptors, which are the receiver's to close; `lost` once, when the other end is gone or
    after `close`.
    """

    def __init__(
        self, sock: socket.socket, reactor: Any, received: Callable[[Frame, list[int]], None], lost: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._socket: socket.socket | None = sock
        self._reactor = reactor
        self._received = received
        self._lost = lost
        self._reader = FrameReader()
        self._descriptors: deque[int] = deque()
        # Bytes, and copies of the descriptors that go with the first of them.
        self._waiting: deque[tuple[memoryview, list[int]]] = deque()

    def __repr__(self) -> str:
        return f"<Channel {'closed' if self._socket is None else self._socket.fileno()}, {len(self._waiting)} waiting>"

    def start(self) -> None:
        """
        Begin to read.
        """
        self._reactor.addReader(self)

    @property
    def backlog(self) -> int:
        """
        How many frames the other end has not taken yet.
        """
        return len(self._waiting)

    def send(self, message: Any, blob: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """
        Send a frame. `descriptors` stay the caller's. Does nothing once the channel is lost.
        """
        if self._socket is None:
            return
        data = memoryview(encode_frame(message, blob, len(descriptors)))
        copies = [os.dup(descriptor) for descriptor in descriptors]
        while len(copies) > _MOST_DESCRIPTORS:
            # The other end counts them and not the bytes that they come with.
            self._waiting.append((data[:1], copies[:_MOST_DESCRIPTORS]))
            data, copies = data[1:], copies[_MOST_DESCRIPTORS:]
        self._waiting.append((data, copies))
        self._write()

    def close(self) -> None:
        """
        Close this end. What still waits is not sent.
        """
        sock = self._socket
        if sock is None:
            return
        self._socket = None
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        sock.close()
        for _, copies in self._waiting:
            _close_all(copies)
        self._waiting.clear()
        _close_all(self._descriptors)
        self._lost()

    def _write(self) -> None:
        while self._waiting:
            sock = self._socket
            if sock is None:
                return
            data, copies = self._waiting[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", copies))] if copies else []
            try:
                sent = sock.sendmsg([data[:_PIECE]], rights)
            except BlockingIOError:
                self._reactor.addWriter(self)
                return
            except OSError:
                self.close()
                return
            _close_all(copies)
            if sent == len(data):
                self._waiting.popleft()
            else:
                self._waiting[0] = (data[sent:], [])
        self._reactor.removeWriter(self)

    # -- what the reactor calls

    def doRead(self) -> None:
        """
        The reactor says that something has arrived.
        """
        sock = self._socket
        if sock is None:
            return
        try:
            data, descriptors, _, _ = socket.recv_fds(sock, _PIECE, 256, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self.close()
            return
        self._descriptors.extend(descriptors)
        for frame in self._reader.feed(data):
            if self._socket is None:
                return
            self._received(frame, [self._descriptors.popleft() for _ in range(frame.descriptors)])

    def doWrite(self) -> None:
        """
        The reactor says that there is room.
        """
        self._write()

    def connectionLost(self, reason: Any) -> None:
        """
        The reactor gave the descriptor up.
        """
        self.close()

    def fileno(self) -> int:
        """
        Return the descriptor, or -1 when closed.
        """
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """
        Twisted asks for this when it logs.
        """
        return "channel"


def _close_all(descriptors: Any) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
    descriptors.clear()
