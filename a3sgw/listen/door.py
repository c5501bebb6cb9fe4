"""
A listening socket and the connections that came through it.

A door outlives generations: a reload that keeps its address keeps its socket, and only hands it another `Entrypoint` to serve. Whoever is
turned away at the door is told why in as few bytes as possible, and counted.

Long because a listening socket has one life, from its binding to the end of its last connection.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.logger import Logger

from a3sgw.address import AddressSet, pack_address
from a3sgw.errors import AssemblyError, Outcome
from a3sgw.interfaces import IBeginning, IConnection, IConnectionGate
from a3sgw.middleware.gates import ask_gates, tell_gates
from a3sgw.net.caller import Caller
from a3sgw.net.deadline import Deadlines
from a3sgw.net.reactor import FlushQueue
from a3sgw.net.stream import Stream, prepare_tcp
from a3sgw.policy.shared_slots import SharedCount
from a3sgw.proxy.entrypoint import Entrypoint
from a3sgw.proxy.tcp_entrypoint import TcpEntrypoint
from a3sgw.wire.proxyprotocol import endpoint_of

__all__ = ["Door", "DoorTally", "Gates", "bind"]

_BACKLOG: Final = 4096
_ACCEPTS_PER_EVENT: Final = 64
_ACCEPTS_AMONG_SEVERAL: Final = 1
# The others may be gone, so it must be enough for one alone.
_ACCEPTS_LEFT: Final = 8
_OUT_OF_RESOURCES: Final = frozenset([errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])


def bind(name: str, host: str, port: int) -> socket.socket:
    """
    Return a listening socket; an empty `host` is every address of the machine, IPv6 and IPv4.

    Raises `AssemblyError` with the entrypoint, the address and the reason.
    """
    shown = f"{f'[{host}]' if ':' in host else host}:{port}"
    try:
        if host:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            # IPv4 first where a name has both: that is what `localhost:8080` is expected to answer on.
            family, _, _, _, address = min(found, key=lambda row: row[0] != socket.AF_INET)
        else:
            family, address = (socket.AF_INET6, ("::", port)) if socket.has_dualstack_ipv6() else (socket.AF_INET, ("0.0.0.0", port))
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise AssemblyError(f'entrypoint "{name}" cannot listen on {shown}: {error.strerror}') from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if host else 0)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        remedy = "; stop the process that uses it, or choose another port" if error.errno == errno.EADDRINUSE else ""
        raise AssemblyError(f'entrypoint "{name}" cannot listen on {shown}: {error.strerror}{remedy}') from error
    return sock


@attrs.frozen(slots=True)
class Gates:
    """
    Who may come in: `allowed` addresses (`None` is everybody), how many connections at a time (`None` is any number), and whom the
    middlewares of the entrypoint let in. Of the peers among `speakers` it is judged later, when it is known whom they speak for.
    Several workers count together in `shared`.
    """

    allowed: AddressSet | None = None
    max_connections: int | None = None
    hooks: tuple[IConnectionGate, ...] = ()
    speakers: AddressSet | None = None
    shared: SharedCount | None = None


class DoorTally:
    """
    Connections since start, per entrypoint: accepted, and turned away by reason. It outlives doors.

    `faults` counts what HTTP/2 clients were told to have done wrong, by entrypoint, by what it cost them (`stream` or `connection`), and by
    the name of the error.
    """

    def __init__(self) -> None:
        self.accepted: dict[str, int] = {}
        self.refused: dict[tuple[str, str], int] = {}
        self.faults: dict[tuple[str, str, str], int] = {}

    def count_refused(self, entrypoint: str, outcome: Outcome) -> None:
        """
        Count one connection that was turned away, or that did not get past its beginning.
        """
        key = (entrypoint, outcome.word)
        self.refused[key] = self.refused.get(key, 0) + 1


class Door:
    """
    One listening socket, as a reactor descriptor.

    `entrypoint`, `gates` and `beginning`, the first step of a connection, are what holds now; `connections` are those that are open, and
    those that still begin. `is_draining` says that connections end with their exchange. `idle` is called whenever the last connection of a
    draining door has ended.
    """

    RETRY_SECONDS: Final = 0.5
    TURN_SECONDS: Final = 0.005
    # For the first request of somebody who has just been greeted, though the door is closed already.
    GRACE_SECONDS: Final = 1.0
    _log = Logger()

    def __init__(
        self,
        sock: socket.socket,
        address: tuple[str, int],
        entrypoint: Entrypoint | TcpEntrypoint,
        gates: Gates,
        beginning: IBeginning,
        tally: DoorTally,
        reactor: Any,
        flushes: FlushQueue,
        deadlines: Deadlines,
    ) -> None:
        self._socket: socket.socket | None = sock
        self.address = address
        self.port: int = sock.getsockname()[1]
        self.entrypoint = entrypoint
        self.gates = gates
        self.beginning = beginning
        self.connections: set[IConnection] = set()
        # Who was let in by middlewares, which are told of the end even if a reload has put others in their place.
        self._let_in: dict[IConnection, tuple[tuple[IConnectionGate, ...], bytes]] = {}
        self.is_draining = False
        self.idle: Callable[[], None] | None = None
        self._local_port = b"%d" % self.port
        self._tally = tally
        self._reactor = reactor
        self._flushes = flushes
        self._deadlines = deadlines
        self._is_reading = False
        self._pause: Any = None

    def __repr__(self) -> str:
        return f"<Door {self.entrypoint.name} on port {self.port}, {len(self.connections)} connections>"

    @property
    def is_tcp(self) -> bool:
        """
        Whether connections are passed on as they are.
        """
        return isinstance(self.entrypoint, TcpEntrypoint)

    @property
    def listening(self) -> socket.socket | None:
        """
        The listening socket, as long as there is one.
        """
        return self._socket

    def open(self) -> None:
        """
        Begin to accept.
        """
        if self._socket is not None and not self._is_reading:
            self._is_reading = True
            self._reactor.addReader(self)

    def close(self) -> None:
        """
        Stop listening. Connections go on.
        """
        self._end_pause()
        sock = self._socket
        if sock is not None:
            if self._is_reading:
                self._reactor.removeReader(self)
            self._socket = None
            sock.close()

    def drain(self) -> None:
        """
        Stop listening, and end each connection when its exchange has ended.
        """
        self._end_pause()
        # What the kernel has accepted for us is not dropped.
        for _ in range(_BACKLOG // _ACCEPTS_PER_EVENT):
            self._accept(_ACCEPTS_PER_EVENT)
            if self._pause is not None:
                # Out of descriptors, and no better if asked again at once.
                break
        self.is_draining = True
        self.close()
        for connection in list(self.connections):
            connection.drain()
        self._flushes.run()

    def abort(self) -> int:
        """
        Break off every connection that is left; return how many exchanges that cost.
        """
        connections = list(self.connections)
        busy = sum(connection.exchange_count() for connection in connections)
        for connection in connections:
            connection.stop()
        self._flushes.run()
        return busy

    def hand_over(self, connection: IConnection, beginning: IBeginning, stream: Any, caller: Caller, data: bytes) -> None:
        """
        Let the next step take the place of `connection`, whose part is done. `data` is what has arrived for it already.

        Called last: what takes over may deal with `data`, or end the connection, before this returns.
        """
        successor = beginning.begin(self, stream, caller)
        self.connections.discard(connection)
        self.connections.add(successor)
        if self._let_in and connection in self._let_in:
            self._let_in[successor] = self._let_in.pop(connection)
        if self.is_draining:
            stream.deadline = stream.now() + self.GRACE_SECONDS
        if data:
            stream.receiver.data_received(data)

    def let_in(self, connection: IConnection, packed: bytes) -> Outcome | None:
        """
        Let in the client at the address `packed`, for whom `connection` speaks, or say why not; then it is counted, and must be sent away.
        """
        gates = self.gates
        outcome = None
        if gates.allowed is not None and not gates.allowed.contains(packed):
            outcome = Outcome.ADDRESS_REFUSED
        elif gates.hooks:
            outcome = ask_gates(gates.hooks, packed)
        if outcome is not None:
            self.count_refused(outcome)
        elif gates.hooks:
            self._let_in[connection] = (gates.hooks, packed)
        return outcome

    def count_fault(self, error: str, *, is_fatal: bool) -> None:
        """
        Count an error of an HTTP/2 client.
        """
        key = (self.entrypoint.name, "connection" if is_fatal else "stream", error)
        self._tally.faults[key] = self._tally.faults.get(key, 0) + 1

    def count_refused(self, outcome: Outcome) -> None:
        """
        Count a connection that was sent away after it had come in.
        """
        self._tally.count_refused(self.entrypoint.name, outcome)

    def connection_ended(self, connection: IConnection) -> None:
        """
        A connection is gone.
        """
        self.connections.discard(connection)
        self.count_shared()
        if self._let_in:
            tell_gates(*self._let_in.pop(connection, ((), b"")))
        if self.is_draining and not self.connections and self.idle is not None:
            self.idle()

    # -- accepting

    def doRead(self) -> None:
        """
        The reactor says there are connections to accept.
        """
        if self.gates.shared is None:
            # Most common case first.
            self._accept(_ACCEPTS_PER_EVENT)
        elif self.gates.shared.has_more_than_its_share:
            self._wait(self.TURN_SECONDS, self._take_turn)
        else:
            self._accept(_ACCEPTS_AMONG_SEVERAL)

    def _take_turn(self) -> None:
        """
        What the other workers have left is for this one, whatever it has already.
        """
        self._resume()
        self._accept(_ACCEPTS_LEFT)

    def _accept(self, most: int) -> None:
        for _ in range(most):
            listening = self._socket
            if listening is None:
                return
            try:
                sock, address = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._accept_failed(error)
                return
            try:
                self._admit(sock, address)
            except Exception:
                self._log.failure("a connection from {address} could not be taken", address=address)
                sock.close()

    def _accept_failed(self, error: OSError) -> None:
        if error.errno not in _OUT_OF_RESOURCES:
            self._log.warn("accepting on entrypoint {name} failed: {reason}", name=self.entrypoint.name, reason=error.strerror)
            return
        # The connection stays in the backlog and the descriptor readable: without a pause this would be a busy loop.
        self._log.error(
            "entrypoint {name} cannot accept: {reason}; raise the limit of open files", name=self.entrypoint.name, reason=error.strerror
        )
        self._wait(self.RETRY_SECONDS, self._resume)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._is_reading = False
        self._reactor.removeReader(self)
        self._pause = self._reactor.callLater(seconds, then)

    def _end_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def _resume(self) -> None:
        self._pause = None
        self.open()

    def _admit(self, sock: socket.socket, address: Any) -> None:
        text = address[0].partition("%")[0]
        packed = pack_address(text)
        if len(packed) == 4 and ":" in text:
            text = socket.inet_ntop(socket.AF_INET, packed)
        name = self.entrypoint.name
        tally = self._tally
        gates = self.gates
        tally.accepted[name] = tally.accepted.get(name, 0) + 1
        if gates.speakers is not None and gates.speakers.contains(packed):
            gates = Gates(max_connections=gates.max_connections, shared=gates.shared)
        if gates.allowed is not None and not gates.allowed.contains(packed):
            self._turn_away(sock, Outcome.ADDRESS_REFUSED)
        elif gates.max_connections is not None and not self._has_room(gates, gates.max_connections):
            self._turn_away(sock, Outcome.CONNECTION_LIMIT)
        elif gates.hooks and (outcome := ask_gates(gates.hooks, packed)) is not None:
            self._turn_away(sock, outcome)
        else:
            try:
                stream = self._begin_connection(sock, Caller(text.encode("ascii"), packed, self._local_port, port=address[1]), gates.hooks)
            except Exception:
                # Whoever has counted this connection must not count it for ever.
                tell_gates(gates.hooks, packed)
                self.count_shared()
                raise
            stream.start()

    def _has_room(self, gates: Gates, limit: int) -> bool:
        return len(self.connections) < limit if gates.shared is None else gates.shared.take(limit)

    def count_shared(self) -> None:
        """
        Tell the other workers, if there are any, how many connections this one has.
        """
        if self.gates.shared is not None:
            self.gates.shared.set(len(self.connections))

    def _begin_connection(self, sock: socket.socket, caller: Caller, hooks: tuple[IConnectionGate, ...]) -> Stream:
        sock.setblocking(False)
        prepare_tcp(sock)
        stream = Stream(sock, self._reactor, self._flushes, self._deadlines)
        if self.is_tcp:
            here = sock.getsockname()
            caller = attrs.evolve(caller, destination=endpoint_of(here[0], here[1]))
        connection = self.beginning.begin(self, stream, caller)
        self.connections.add(connection)
        self.count_shared()
        if hooks:
            self._let_in[connection] = (hooks, caller.packed)
        return stream

    def _turn_away(self, sock: socket.socket, outcome: Outcome) -> None:
        self.count_shared()
        self._tally.count_refused(self.entrypoint.name, outcome)
        sock.setblocking(False)
        try:
            sock.send(self.beginning.goodbye(outcome))
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        sock.close()

    # -- what the reactor calls

    def connectionLost(self, reason: Any) -> None:
        """
        The reactor gave the descriptor up.
        """
        self._is_reading = False
        self.close()

    def fileno(self) -> int:
        """
        Return the descriptor, or -1 when closed.
        """
        return self._socket.fileno() if self._socket is not None else -1

    def logPrefix(self) -> str:
        """
        Twisted asks for this when it logs.
        """
        return "door"
