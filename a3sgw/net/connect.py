"""
Connect a socket without waiting.

A `Connecting` is watched for writability and reports once: a connected socket, or an `Outcome`. Names are resolved by the reactor's
resolver off the reactor thread; the addresses of a name are tried in the order given until one connects, within one time limit.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IResolutionReceiver
from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.net.datagram import DatagramLink
from a3sgw.net.deadline import NEVER, Deadlines
from a3sgw.net.reactor import FlushQueue
from a3sgw.net.stream import Stream, prepare_tcp

__all__ = ["Address", "Connecting", "Dialer"]

Address = tuple[int, Any]
"""An address family and what `socket.connect` takes."""

_OUTCOMES: Final = {
    errno.ECONNREFUSED: Outcome.CONNECT_REFUSED,
    errno.ENOENT: Outcome.CONNECT_REFUSED,
    errno.ETIMEDOUT: Outcome.CONNECT_TIMEOUT,
}


class Connecting:
    """
    One attempt to connect to the first of `addresses` that answers.

    Calls `done(socket, None)` or `done(None, outcome)` exactly once, never before `start` has returned, unless `cancel` came first.
    """

    __slots__ = ("_addresses", "_deadlines", "_done", "_last", "_reactor", "_socket", "deadline")

    def __init__(
        self,
        addresses: Sequence[Address],
        deadline: float,
        reactor: Any,
        deadlines: Deadlines,
        done: Callable[[socket.socket | None, Outcome | None], None],
    ) -> None:
        self._addresses = list(addresses)
        self._reactor = reactor
        self._deadlines = deadlines
        self._done: Callable[[socket.socket | None, Outcome | None], None] | None = done
        self._socket: socket.socket | None = None
        self._last = Outcome.CONNECT_FAILED
        self.deadline = deadline

    def start(self) -> None:
        """
        Begin.
        """
        self._deadlines.add(self)
        self._next()

    def cancel(self) -> None:
        """
        Give up without a report.
        """
        self._done = None
        self._close()
        self._deadlines.discard(self)

    def _next(self) -> None:
        while self._addresses:
            family, address = self._addresses.pop(0)
            try:
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            except OSError as error:
                self._last = _OUTCOMES.get(error.errno or 0, Outcome.CONNECT_FAILED)
                continue
            if family != socket.AF_UNIX:
                prepare_tcp(sock)
            try:
                code = sock.connect_ex(address)
            except OSError:
                # An address that Python cannot even write down, such as too long a path.
                code = errno.EINVAL
            if code in (0, errno.EINPROGRESS):
                self._socket = sock
                self._reactor.addWriter(self)
                return
            sock.close()
            self._last = _OUTCOMES.get(code, Outcome.CONNECT_FAILED)
        # Reported from the next turn, so that no caller of `start` is called back while it is still starting.
        self._reactor.callLater(0, self._finish, None, self._last)

    def _close(self) -> None:
        sock = self._socket
        if sock is not None:
            self._reactor.removeWriter(self)
            self._socket = None
            sock.close()

    def _finish(self, sock: socket.socket | None, outcome: Outcome | None) -> None:
        self._deadlines.discard(self)
        self.deadline = NEVER
        done = self._done
        self._done = None
        if done is not None:
            done(sock, outcome)

    # -- what the reactor and the sweep call

    def doWrite(self) -> None:
        """
        The connection was made, or refused.
        """
        sock = self._socket
        assert sock is not None
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._refused(code)
            return
        try:
            sock.getpeername()
        except OSError:
            # Not yet: the event was for a socket that had this number before.
            return
        self._reactor.removeWriter(self)
        self._socket = None
        self._finish(sock, None)

    def doRead(self) -> None:
        """
        The event was for a socket that had this number before.
        """

    def deadline_passed(self) -> None:
        """
        Called by the sweep.
        """
        self._close()
        self._finish(None, Outcome.CONNECT_TIMEOUT)

    def connectionLost(self, reason: Any) -> None:
        """
        The reactor saw an error instead of writability; the socket knows which.
        """
        if self._socket is not None:
            self._refused(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _refused(self, code: int) -> None:
        self._last = _OUTCOMES.get(code, Outcome.CONNECT_FAILED)
        self._close()
        self._next()

    def fileno(self) -> int:
        """
        Return the descriptor, or -1.
        """
        return self._socket.fileno() if self._socket is not None else -1

    def logPrefix(self) -> str:
        """
        Twisted asks for this when it logs.
        """
        return "connecting"

    def __repr__(self) -> str:
        return f"<Connecting {self.fileno()}, {len(self._addresses)} addresses left>"


@implementer(IResolutionReceiver)
class _Addresses:
    """
    Collects what the resolver finds.
    """

    def __init__(self, port: int, done: Callable[[list[Address]], None]) -> None:
        self._port = port
        self._done = done
        self._found: list[Address] = []

    def resolutionBegan(self, resolutionInProgress: Any) -> None:
        """
        Nothing to do yet.
        """

    def addressResolved(self, address: Any) -> None:
        """
        Keep one address.
        """
        if address.type != "TCP":
            return
        if ":" in address.host:
            self._found.append((socket.AF_INET6, (address.host, self._port, 0, 0)))
        else:
            self._found.append((socket.AF_INET, (address.host, self._port)))

    def resolutionComplete(self) -> None:
        """
        Report.
        """
        self._done(self._found)


class Dialer:
    """
    Everything a pool needs to reach the network. Tests have another one.
    """

    def __init__(self, reactor: Any, flushes: FlushQueue, deadlines: Deadlines) -> None:
        self._reactor = reactor
        self._flushes = flushes
        self.deadlines = deadlines

    def resolve(self, host: str, port: int, done: Callable[[list[Address]], None]) -> None:
        """
        Find the addresses of `host` and give them to `done`, an empty list if there are none. A literal address is reported at once.
        """
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                socket.inet_pton(family, host)
            except OSError:
                continue
            done([(family, (host, port) if family == socket.AF_INET else (host, port, 0, 0))])
            return
        self._reactor.nameResolver.resolveHostName(_Addresses(port, done), host, port)

    def unix_address(self, path: str) -> Address:
        """
        Return the address of a Unix domain socket.
        """
        return (socket.AF_UNIX, path)

    def connect(self, addresses: Sequence[Address], deadline: float, done: Callable[[Any, Outcome | None], None]) -> Connecting:
        """
        Begin to connect to the first of `addresses` that answers before `deadline`; `done(socket, outcome)` is called later.
        """
        connecting = Connecting(addresses, deadline, self._reactor, self.deadlines, done)
        connecting.start()
        return connecting

    def link(
        self, addresses: Sequence[Address], received: Callable[[memoryview], None], failed: Callable[[int], None]
    ) -> DatagramLink:
        """
        Return a UDP link, not started, to the first of `addresses` to which there is a way. Raises `OSError` if there is none.
        """
        refusal = OSError(errno.EADDRNOTAVAIL, "no address")
        for family, address in addresses:
            try:
                sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            except OSError as error:
                refusal = error
                continue
            try:
                sock.connect(address)
            except OSError as error:
                sock.close()
                refusal = error
                continue
            return DatagramLink(sock, self._reactor, received, failed)
        raise refusal

    def stream(self, sock: Any) -> Stream:
        """
        Return a stream on a connected socket.
        """
        return Stream(sock, self._reactor, self._flushes, self.deadlines)

    def later(self, call: Callable[..., None], *arguments: object) -> None:
        """
        Call `call` in the reactor's next turn.
        """
        self._reactor.callLater(0, call, *arguments)
