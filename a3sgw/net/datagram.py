"""
UDP sockets as reactor descriptors.

A `DatagramPort` hears everybody, a `DatagramLink` one peer. Both read as many datagrams for one event as have lately been there, within a
bound, so that neither a flood keeps the reactor from everybody else nor a trickle costs a system call more than it must. All read into
one piece of memory: a receiver copies what it wants to keep.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger

from a3sgw.errors import AssemblyError

__all__ = ["MAX_DATAGRAM", "DatagramLink", "DatagramPort", "adopt_datagrams", "bind_datagrams"]

MAX_DATAGRAM: Final = 65535
"""No UDP datagram is larger, whatever carries it."""

_VIEW: Final = memoryview(bytearray(MAX_DATAGRAM))
_AT_ONCE: Final = 64
"""So many datagrams are read for one event at most."""
_PATIENCE: Final = 8
"""After so many events in a row that had as many datagrams as were read, there may be more."""

_RECEIVE_BUFFER: Final = 4 << 20
_SO_RCVBUFFORCE: Final = getattr(socket, "SO_RCVBUFFORCE", 33)
_IP_PKTINFO: Final = getattr(socket, "IP_PKTINFO", 8)
_TELLS_LOCAL: Final = sys.platform == "linux"
_PACKET4: Final = struct.Struct("=I4s4s")
_PACKET6: Final = struct.Struct("=16sI")
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_PACKET6.size) if hasattr(socket, "CMSG_SPACE") else 0
_MAPPED: Final = bytes(10) + b"\xff\xff"


def bind_datagrams(name: str, host: str, port: int, *, shares: bool = False) -> socket.socket:
    """
    Return a UDP socket; an empty `host` is every address of the machine, IPv6 and IPv4.

    With `shares`, several processes of one gateway may have the port: the kernel gives each client to one of them. Raises `AssemblyError`
    with the entrypoint, the address and the reason.
    """
    shown = f"{f'[{host}]' if ':' in host else host}:{port}/udp"
    try:
        if host:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
            # As for TCP: IPv4 first where a name has both.
            family, _, _, _, address = min(found, key=lambda row: row[0] != socket.AF_INET)
        else:
            family, address = (socket.AF_INET6, ("::", port)) if socket.has_dualstack_ipv6() else (socket.AF_INET, ("0.0.0.0", port))
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise AssemblyError(f'entrypoint "{name}" cannot listen on {shown}: {error.strerror}') from error
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if host else 0)
        if shares:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        _widen(sock)
    except OSError as error:
        sock.close()
        remedy = "; stop the process that uses it, or choose another port" if error.errno == errno.EADDRINUSE else ""
        raise AssemblyError(f'entrypoint "{name}" cannot listen on {shown}: {error.strerror}{remedy}') from error
    return sock


def adopt_datagrams(sock: socket.socket, room: int = _RECEIVE_BUFFER) -> socket.socket:
    """
    Return `sock`, a UDP socket that somebody else has bound, as `bind_datagrams` would have made it. Whoever gave it more than `room` bytes
    for what arrives knows why.
    """
    sock.setblocking(False)
    # The kernel tells twice what was asked for.
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < 2 * room:
        _widen(sock, room)
    return sock


def _widen(sock: socket.socket, room: int = _RECEIVE_BUFFER) -> None:
    """
    Have the kernel keep more for us while we are busy: by default it is a few hundred datagrams.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, room)
    except OSError:
        # Without the privilege, as much as the system allows (net.core.rmem_max).
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)


class _Descriptor:
    """
    What both kinds have in common.

    `_limit` is how many datagrams are read for the next event, `_full` how many events in a row had as many.
    """

    __slots__ = ("_full", "_is_reading", "_limit", "_reactor", "_socket")

    _log = Logger()

    def __init__(self, sock: socket.socket, reactor: Any) -> None:
        self._socket: socket.socket | None = sock
        self._reactor = reactor
        self._limit = 1
        self._full = 0
        self._is_reading = False

    def start(self) -> None:
        """
        Begin to read.
        """
        if self._socket is not None and not self._is_reading:
            self._is_reading = True
            self._reactor.addReader(self)

    def stop(self) -> None:
        """
        Read no more. The socket stays open.
        """
        if self._is_reading:
            self._is_reading = False
            self._reactor.removeReader(self)

    def close(self) -> None:
        """
        Close the socket. May be called at any time, and again.
        """
        # Before the descriptor is gone, by which the reactor knows us.
        self.stop()
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    @property
    def sock(self) -> socket.socket | None:
        """
        The socket, as long as it is open.
        """
        return self._socket

    def _had_all(self) -> None:
        self._full += 1
        if self._full >= _PATIENCE:
            self._full = 0
            self._limit = min(self._limit * 2, _AT_ONCE)

    def _had_only(self, count: int) -> None:
        self._full = 0
        self._limit = count or 1

    def receive(self) -> None:
        """
        The reactor says that there is something to read.
        """
        raise NotImplementedError

    def deliver(self, data: Any) -> None:
        """
        Everything was dealt with in `receive`.
        """

    def doRead(self) -> None:
        """
        The same, from a reactor that knows no `receive`.
        """
        self.receive()

    def fileno(self) -> int:
        """
        Return the descriptor, or -1 when closed.
        """
        return self._socket.fileno() if self._socket is not None else -1

    def logPrefix(self) -> str:
        """
        Twisted asks for this when it logs.
        """
        return "datagrams"


class DatagramPort(_Descriptor):
    """
    A socket to which anybody sends.

    `received` is called with a view of each datagram and its origin, which is a key: the same for everything from one sender to one of
    our addresses. It must not raise. `send(data, way_back(origin))` answers from the address that was spoken to; it raises what a socket
    does. A socket for every address of the machine has to be told from which, at some cost; any other has only one.
    """

    __slots__ = ("_received", "_tells_local", "send")

    def __init__(self, sock: socket.socket, reactor: Any, received: Callable[[memoryview, Any], None]) -> None:
        super().__init__(sock, reactor)
        self._received = received
        self.send: Callable[[Any, Any], int] = sock.sendto
        self._tells_local = _TELLS_LOCAL and sock.getsockname()[0] in ("::", "0.0.0.0")
        if self._tells_local:
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            self.send = self._send_from

    def __repr__(self) -> str:
        return f"<DatagramPort {self.fileno()}>"

    def receive(self) -> None:
        """
        Read what is there, within bounds.
        """
        count = 0
        limit = self._limit
        received = self._received
        view = _VIEW
        sock = self._socket
        if sock is None:
            return
        try:
            if self._tells_local:
                while count < limit:
                    size, origin = _read_with_local(sock)
                    count += 1
                    received(view[:size], origin)
            else:
                # Nothing between the kernel and the receiver.
                read = sock.recvfrom_into
                while count < limit:
                    size, origin = read(view)
                    count += 1
                    received(view[:size], origin)
            self._had_all()
        except BlockingIOError:
            self._had_only(count)
        except OSError as error:
            if self._socket is not None:
                self._log.warn("reading datagrams failed: {reason}", reason=error.strerror)
        except Exception:
            self._log.failure("bug in the receiver of datagrams {port!r}", port=self)

    def way_back(self, origin: Any) -> Any:
        """
        Return the second argument of `send` for answers to `origin`.
        """
        return (origin[0], _reply_from(origin[1])) if self._tells_local else origin

    def peer_of(self, origin: Any) -> tuple[str, int]:
        """
        Return the address and the port of whoever sends from `origin`.
        """
        peer = origin[0] if self._tells_local else origin
        return peer[0], peer[1]

    def _send_from(self, data: Any, way: Any) -> int:
        assert self._socket is not None
        peer, ancillary = way
        return self._socket.sendmsg((data,), ancillary, 0, peer)

    def connectionLost(self, reason: Any) -> None:
        """
        The reactor saw an error, and nothing to read: some answer found nobody. That is no reason to stop.
        """
        self._is_reading = False
        if self._socket is not None:
            self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.start()


def _read_with_local(sock: socket.socket) -> tuple[int, tuple[Any, bytes]]:
    """
    Return the size of the next datagram, who has sent it, and which of our addresses was spoken to.
    """
    size, ancillary, _, peer = sock.recvmsg_into([_VIEW], _ANCILLARY_BYTES)
    for level, _, packet in ancillary:
        # Of two IPv4 addresses, the one to answer from: what was spoken to may be that of many.
        return size, (peer, packet[4:8] if level == socket.IPPROTO_IP else packet[:16])
    return size, (peer, b"")


def _reply_from(local: bytes) -> tuple[tuple[int, int, bytes], ...]:
    """
    Return the ancillary data that has a datagram sent from the address `local`. What was sent to many cannot be answered from there.
    """
    if len(local) == 4:
        return ((socket.IPPROTO_IP, _IP_PKTINFO, _PACKET4.pack(0, local, bytes(4))),)
    is_to_many = local[:1] == b"\xff" or (local[:12] == _MAPPED and local[12] >= 224)
    if len(local) != 16 or is_to_many:
        return ()
    return ((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PACKET6.pack(local, 0)),)


class DatagramLink(_Descriptor):
    """
    A socket connected to one peer, and so deaf to everybody else.

    `received` is called with a view of each datagram, and must not raise; `failed` with the number of the error when the kernel reports
    one, most often that the peer has nobody at its port. `send` raises what a socket does.
    """

    __slots__ = ("_failed", "_received", "send")

    def __init__(
        self, sock: socket.socket, reactor: Any, received: Callable[[memoryview], None], failed: Callable[[int], None]
    ) -> None:
        super().__init__(sock, reactor)
        self._received = received
        self._failed = failed
        self.send: Callable[[Any], int] = sock.send

    def __repr__(self) -> str:
        return f"<DatagramLink {self.fileno()}>"

    def receive(self) -> None:
        """
        Read what is there, within bounds.
        """
        count = 0
        limit = self._limit
        received = self._received
        view = _VIEW
        sock = self._socket
        if sock is None:
            return
        try:
            read = sock.recv_into
            while count < limit:
                size = read(view)
                count += 1
                received(view[:size])
            self._had_all()
        except BlockingIOError:
            self._had_only(count)
        except OSError as error:
            if self._socket is not None:
                self._failed(error.errno or errno.EIO)
        except Exception:
            self._log.failure("bug in the receiver of datagrams {link!r}", link=self)

    def connectionLost(self, reason: Any) -> None:
        """
        The reactor saw an error, and nothing to read; the socket knows which.
        """
        self._is_reading = False
        if self._socket is None:
            return
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._failed(code)
        else:
            # It has been told already, by an attempt to send.
            self.start()
