"""
A UDP socket and the sessions of those who send to it.

Like a `Door` it outlives generations: a reload that keeps its address keeps the socket, and every session whose way is still the same. What
cannot be passed on is dropped and counted by reason; nobody is answered by the gateway itself.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from typing import Any, Final

from twisted.logger import Logger

from a3sgw.address import pack_address
from a3sgw.errors import Outcome
from a3sgw.message import RequestHead
from a3sgw.net.datagram import DatagramPort
from a3sgw.net.deadline import Deadlines
from a3sgw.proxy.udp_entrypoint import UdpEntrypoint
from a3sgw.proxy.udp_session import UdpSession
from a3sgw.route.match import ConnectionFacts

__all__ = ["UdpDoor", "UdpTally"]

_MAX_KEPT_BYTES: Final = 16 << 20
"""So much of all clients of a door waits at most for names to be looked up."""


class UdpTally:
    """
    Since start, per entrypoint: sessions begun, and datagrams dropped by reason. It outlives doors.
    """

    def __init__(self) -> None:
        self.begun: dict[str, int] = {}
        self.dropped: dict[tuple[str, str], int] = {}


class UdpDoor:
    """
    One UDP socket.

    `entrypoint` is what holds now; `sessions` are the clients that are known, by where they send from. While `is_draining` no new ones are
    let in, and those that rest are forgotten soon. When the last has ended it closes, unless it `is_wanted`, and calls `idle`.
    """

    SCAN_SECONDS: Final = 0.1
    """Whether anybody can be forgotten for a new client is looked at this often, and not for each of a flood."""
    REST_SECONDS: Final = 2.0
    """Who has been silent for so long has nothing under way."""

    _log = Logger()

    def __init__(
        self,
        sock: socket.socket,
        address: tuple[str, int],
        entrypoint: UdpEntrypoint,
        tally: UdpTally,
        reactor: Any,
        deadlines: Deadlines,
    ) -> None:
        self.address = address
        self.port: int = sock.getsockname()[1]
        self.entrypoint = entrypoint
        self.sessions: dict[Any, UdpSession] = {}
        self.is_draining = False
        self.is_wanted = False
        self.idle: Callable[[], None] | None = None
        self._tally = tally
        self._reactor = reactor
        self._deadlines = deadlines
        self._next_scan = 0.0
        self._kept_bytes = 0
        self._rest_call: Any = None
        self._datagrams = DatagramPort(sock, reactor, self._received)

    def __repr__(self) -> str:
        return f"<UdpDoor {self.entrypoint.name} on port {self.port}, {len(self.sessions)} sessions>"

    @property
    def listening(self) -> socket.socket | None:
        """
        The socket, as long as it is open.
        """
        return self._datagrams.sock

    @property
    def connections(self) -> Collection[UdpSession]:
        """
        The sessions, as a door of connections would call them.
        """
        return self.sessions.values()

    def open(self) -> None:
        """
        Begin to listen, or go on after `drain`.
        """
        self.is_draining = False
        self._end_rest_call()
        self._datagrams.start()

    def serve(self, entrypoint: UdpEntrypoint) -> None:
        """
        Go on under another configuration. Sessions whose client is led to the same service go on; others end.
        """
        self.entrypoint = entrypoint
        for session in list(self.sessions.values()):
            packed = session.head.client_packed
            route = entrypoint.table.match(ConnectionFacts(client_packed=packed))
            if route is None:
                session.end(Outcome.NO_ROUTE)
            elif entrypoint.allowed is not None and not entrypoint.allowed.contains(packed):
                session.end(Outcome.ADDRESS_REFUSED)
            else:
                session.serve_under(entrypoint, route)
                session.deadline = min(session.deadline, session.touched + entrypoint.session_timeout)

    # -- what arrives

    def _received(self, data: memoryview, origin: Any) -> None:
        session = self.sessions.get(origin)
        if session is not None:
            session.take(data)
            return
        try:
            outcome = self._begin(data, origin)
        except Exception:
            self._log.failure("a datagram from {origin!r} could not be taken", origin=origin)
            outcome = Outcome.INTERNAL_ERROR
        if outcome is not None:
            self.count_dropped(outcome.word)

    def _begin(self, data: memoryview, origin: Any) -> Outcome | None:
        """
        Begin a session with the datagram of somebody who is not known; return why there is none, or `None`.
        """
        entrypoint = self.entrypoint
        if self.is_draining:
            return Outcome.SHUTTING_DOWN
        text = self._datagrams.peer_of(origin)[0].partition("%")[0]
        packed = pack_address(text)
        if entrypoint.allowed is not None and not entrypoint.allowed.contains(packed):
            return Outcome.ADDRESS_REFUSED
        route = entrypoint.table.match(ConnectionFacts(client_packed=packed))
        if route is None:
            return Outcome.NO_ROUTE
        if len(self.sessions) >= entrypoint.max_sessions and not self._make_room():
            return Outcome.SESSION_LIMIT
        if len(packed) == 4 and ":" in text:
            text = socket.inet_ntop(socket.AF_INET, packed)
        head = RequestHead(b"UDP", b"/")
        head.client = text.encode("ascii")
        head.client_packed = packed
        way = self._datagrams.way_back(origin)
        session = UdpSession(self, entrypoint, route, head, origin, self._datagrams.send, way, self._deadlines.seconds)
        self.sessions[origin] = session
        try:
            outcome = session.begin(data)
        except BaseException:
            # Whoever has counted it must not count it for ever.
            session.end(Outcome.INTERNAL_ERROR)
            raise
        if outcome is not None:
            del self.sessions[origin]
            return outcome
        self._deadlines.add(session)
        name = entrypoint.name
        self._tally.begun[name] = self._tally.begun.get(name, 0) + 1
        return None

    def _make_room(self) -> bool:
        """
        Forget whoever has been silent for too long and is still here; tell whether there is room now.
        """
        now = self._deadlines.seconds()
        if now < self._next_scan:
            return False
        self._next_scan = now + self.SCAN_SECONDS
        for session in [each for each in self.sessions.values() if each.is_expired(now)]:
            session.deadline_passed()
        return len(self.sessions) < self.entrypoint.max_sessions

    # -- what sessions tell

    def session_ended(self, session: UdpSession) -> None:
        """
        A client is forgotten.
        """
        self._deadlines.discard(session)
        self.sessions.pop(session.key, None)
        if self.is_draining and not self.sessions:
            self._drained()

    def count_dropped(self, reason: str, count: int = 1) -> None:
        """
        Count datagrams that went nowhere.
        """
        key = (self.entrypoint.name, reason)
        dropped = self._tally.dropped
        dropped[key] = dropped.get(key, 0) + count

    def may_keep(self, size: int) -> bool:
        """
        Say whether so many bytes more may wait, and count them.
        """
        if self._kept_bytes + size > _MAX_KEPT_BYTES:
            return False
        self._kept_bytes += size
        return True

    def kept_no_more(self, size: int) -> None:
        """
        So many bytes wait no longer.
        """
        self._kept_bytes -= size

    # -- the end

    def pass_on(self) -> None:
        """
        Another process hears what comes from now on. Those who are here are still answered through the socket.
        """
        self._datagrams.stop()

    def drain(self) -> None:
        """
        Let nobody new in, and forget whoever has nothing under way.
        """
        self.is_draining = True
        self._forget_resting()

    def release(self) -> None:
        """
        Nobody wants the door any more, which is draining.
        """
        self.is_wanted = False
        if not self.sessions:
            self._drained()

    def _forget_resting(self) -> None:
        self._rest_call = None
        now = self._deadlines.seconds()
        for session in [each for each in self.sessions.values() if now - each.touched >= self.REST_SECONDS]:
            session.end(Outcome.COMPLETED)
        if self.sessions:
            self._rest_call = self._reactor.callLater(self.REST_SECONDS / 4, self._forget_resting)
        else:
            self._drained()

    def _drained(self) -> None:
        """
        Nobody is left.
        """
        if not self.is_closed and not self.is_wanted:
            self.close()
            if self.idle is not None:
                self.idle()

    def abort(self) -> int:
        """
        Forget everybody, and close; return how many that were.
        """
        sessions = list(self.sessions.values())
        for session in sessions:
            session.end(Outcome.SHUTTING_DOWN)
        self.close()
        return len(sessions)

    def close(self) -> None:
        """
        Close the socket.
        """
        self._end_rest_call()
        self._datagrams.close()

    @property
    def is_closed(self) -> bool:
        """
        Whether the socket is closed.
        """
        return self._datagrams.fileno() < 0

    def _end_rest_call(self) -> None:
        if self._rest_call is not None:
            self._rest_call.cancel()
            self._rest_call = None
