"""
An epoll reactor that does less per event.

Twisted's own loop wraps every event in a log context and asks the kernel for as many events as there are descriptors. Here the common
event, bytes to read, calls `doRead` straight; everything else goes the stock way. After each event the streams that were written to are
flushed once, which joins a head and its body into one system call and keeps writing free of re-entrancy. On any other reactor the
gateway works the same, only slower.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import errno
import sys
from typing import Any, Protocol

from twisted.python import log

__all__ = ["FlushQueue", "flush_queue", "install"]

_MAX_EVENTS = 512


class _Flushable(Protocol):
    def flush(self) -> None: ...


class FlushQueue(list[_Flushable]):
    """
    Streams to flush at the end of the current event.
    """

    __slots__ = ()

    def run(self) -> None:
        """
        Flush them; a flush may add more. One that fails is reported and costs its neighbours nothing.
        """
        for stream in self:
            try:
                stream.flush()
            except Exception:
                log.err()
        self.clear()


class _ScheduledFlushQueue(FlushQueue):
    """
    The same on a reactor that does not know of it: the queue runs in the reactor's next turn.
    """

    __slots__ = ("_reactor",)

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self._reactor = reactor

    def append(self, stream: _Flushable) -> None:
        if not self:
            self._reactor.callLater(0, self.run)
        super().append(stream)


def flush_queue(reactor: Any) -> FlushQueue:
    """
    Return the queue to which streams on `reactor` append themselves when they were written to.
    """
    queue = getattr(reactor, "flushes", None)
    if queue is None:
        queue = reactor.flushes = _ScheduledFlushQueue(reactor)
    assert isinstance(queue, FlushQueue)
    return queue


try:
    from twisted.internet.epollreactor import EPollReactor as _EPollReactor
except ImportError:  # no epoll on this platform
    _EPollReactor = None  # type: ignore[assignment, misc]

if _EPollReactor is not None:

    class GatewayReactor(_EPollReactor):
        """
        `EPollReactor` with a short way for readable descriptors and a flush after each event.
        """

        def __init__(self) -> None:
            self.flushes = FlushQueue()
            super().__init__()  # type: ignore[no-untyped-call]

        def doPoll(self, timeout: float | None) -> None:
            """
            Wait for events, at most `timeout` seconds, and dispatch them.
            """
            flushes = self.flushes
            if flushes:
                # Written by a timed call or from a thread since the last event.
                flushes.run()
            try:
                events = self._poller.poll(-1 if timeout is None else timeout, _MAX_EVENTS)
            except OSError as error:
                if error.errno == errno.EINTR:
                    return
                raise
            selectables = self._selectables
            for descriptor, event in events:
                selectable = selectables.get(descriptor)
                if selectable is None:
                    continue
                if event == 1:  # EPOLLIN and nothing else
                    try:
                        why = selectable.doRead()
                    except BaseException:
                        log.err()
                        why = sys.exc_info()[1]
                    if why:
                        self._disconnectSelectable(selectable, why, True)  # type: ignore[no-untyped-call]
                else:
                    log.callWithLogger(selectable, self._doReadOrWrite, selectable, descriptor, event)
                if flushes:
                    # Not `run`: a call less per event. A flush does not raise.
                    for stream in flushes:
                        stream.flush()
                    flushes.clear()

        doIteration = doPoll


def install() -> None:
    """
    Install the gateway's reactor as the global one, or Twisted's default where there is no epoll.

    Must run before anything imports `twisted.internet.reactor`.
    """
    if _EPollReactor is None:
        from twisted.internet import default

        default.install()
        return
    from twisted.internet.main import installReactor

    installReactor(GatewayReactor())
