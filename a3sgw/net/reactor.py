"""
An epoll reactor that does less per event.

Twisted's own loop wraps every event in a log context and asks the kernel for as many events as there are descriptors. Here the common
event, bytes to read on a stream, is taken in groups: first everything is received, then dealt with, then the streams that were written to
are flushed, each once, which joins a head and its body into one system call and keeps writing free of re-entrancy. Everything else goes
the stock way. On any other reactor the gateway works the same, only slower.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from twisted.python import log

__all__ = ["FlushQueue", "flush_queue", "install"]

_MAX_EVENTS = 512
# Bounds what is received before any of it is dealt with, and how long an answer waits for others.
_GROUP = 32
# What is larger is sent on at once, while it is still in the cache.
_LARGE = 16384


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
        `EPollReactor` with a short way for readable streams and a flush after each group of events.

        A stream is any descriptor with `receive() -> data | None` and `deliver(data)`, which together do what `doRead` does.
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
            if len(events) <= _GROUP:
                self._dispatch(events)
            else:
                for start in range(0, len(events), _GROUP):
                    self._dispatch(events[start : start + _GROUP])

        def _dispatch(self, events: Sequence[tuple[int, int]]) -> None:
            """
            Deal with one group of events in three phases: receive everywhere, then decide, then send everywhere.

            Going back and forth between the kernel and the interpreter for each event costs a sixth more: each finds its caches cold.
            """
            find = self._selectables.get
            flushes = self.flushes
            arrived: list[tuple[Any, Any]] = []
            others = []
            for descriptor, event in events:
                selectable: Any = find(descriptor)
                if event == 1:  # EPOLLIN and nothing else
                    receive = getattr(selectable, "receive", None)
                    if receive is not None:
                        data = receive()
                        if data.__class__ is bytes and len(data) > _LARGE:
                            selectable.deliver(data)
                            for stream in flushes:
                                stream.flush()
                            flushes.clear()
                        elif data is not None:
                            arrived.append((selectable, data))
                        continue
                if selectable is not None:
                    others.append((descriptor, event))
            for stream, data in arrived:
                stream.deliver(data)
            for descriptor, event in others:
                # Looked up again: an earlier one may have taken it away.
                selectable = find(descriptor)
                if selectable is not None:
                    self._dispatch_other(selectable, descriptor, event)
            if flushes:
                # Not `run`: a call less. A stream's flush does not raise.
                for stream in flushes:
                    stream.flush()
                flushes.clear()

        def _dispatch_other(self, selectable: Any, descriptor: int, event: int) -> None:
            if event != 1:
                log.callWithLogger(selectable, self._doReadOrWrite, selectable, descriptor, event)
                return
            try:
                why = selectable.doRead()
            except BaseException:
                log.err()
                why = sys.exc_info()[1]
            if why:
                self._disconnectSelectable(selectable, why, True)  # type: ignore[no-untyped-call]

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
