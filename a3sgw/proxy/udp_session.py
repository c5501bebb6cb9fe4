"""
What one client says to a server over UDP, and what it is answered.

There is no connection, so a session is made of what is known: where datagrams come from, and that something has moved lately, either way.
A session has a socket of its own towards its server, so answers find their client. When the kernel tells that the server has nobody at its
port, the next datagram goes to another server. Nothing is kept but what a client sends while the name of its server is looked up.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger

from a3sgw.errors import Outcome
from a3sgw.message import RequestHead
from a3sgw.net.connect import Address
from a3sgw.net.datagram import DatagramLink
from a3sgw.observe.record import Record
from a3sgw.proxy.admission import Admission
from a3sgw.proxy.udp_entrypoint import UdpEntrypoint, UdpRoute
from a3sgw.proxy.udp_pool import UdpPool
from a3sgw.proxy.udp_waiting import Keeper, Waiting
from a3sgw.service.backend import Backend
from a3sgw.service.service import Service

__all__ = ["UdpSession"]

_OUT_OF_RESOURCES: Final = frozenset([errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])


class UdpSession(Record):
    """
    One client of a udp entrypoint; also its record.

    `begin` comes first and may come to nothing, then `take` with each datagram of the client, then `end`. `answer(data, way)` sends to the
    client. `touched` is when something last moved. Datagrams are counted like bytes, as the gateway sees them: received from clients, sent
    to them.
    """

    __slots__ = (
        "_admission",
        "_answer",
        "_holds",
        "_keeper",
        "_link",
        "_seconds",
        "_send",
        "_service",
        "_ticket",
        "_tried",
        "_trouble",
        "_waiting",
        "_way",
        "binding",
        "bound_service",
        "datagrams_received",
        "datagrams_sent",
        "deadline",
        "is_over",
        "key",
        "settings",
        "touched",
    )

    _log = Logger()

    entrypoint: UdpEntrypoint
    route: UdpRoute
    head: RequestHead

    def __init__(
        self,
        keeper: Keeper,
        entrypoint: UdpEntrypoint,
        route: UdpRoute,
        head: RequestHead,
        key: Any,
        answer: Callable[[Any, Any], int],
        way: Any,
        seconds: Callable[[], float],
    ) -> None:
        self.entrypoint = entrypoint
        self.route = route
        self.head = head
        self.peer = head.client
        self.scheme = b"udp"
        self.protocol = b"UDP"
        self.backend = self.outcome = self.answered_by = self.revision = self.binding = self.bound_service = None
        self.attempts = self.passed = self.status = self.upstream_status = self.bytes_received = self.bytes_sent = 0
        self.datagrams_received = self.datagrams_sent = 0
        self.leased = self.first_byte = self.ended = 0.0
        self.started = self.touched = now = seconds()
        self.deadline = now + entrypoint.session_timeout
        self.key = key
        self.is_over = False
        self._keeper = keeper
        self._answer = answer
        self._way = way
        self._seconds = seconds
        self._service: Service = route.service
        self.settings = route.service.settings
        self._link: DatagramLink | None = None
        self._send: Callable[[Any], int] | None = None
        # Whether the backend counts this session, and the attempt whose end nobody has been told of.
        self._holds, self._ticket = False, -1
        self._tried: list[Backend] = []
        self._trouble: Outcome | None = None
        self._admission = Admission(head.client_packed)
        self._waiting: Waiting | None = None

    def __repr__(self) -> str:
        return f"<UdpSession {self.peer.decode()} over {self.entrypoint.name} to {self.backend!r}>"

    # -- the client

    def begin(self, data: memoryview) -> Outcome | None:
        """
        Find a server for the client and send it its first datagram. Return why there is nobody who would take it, and then this session
        has never been, or `None`.
        """
        outcome = self._admission.ask((*self.entrypoint.hooks, *self.route.hooks))
        if outcome is None and not self._choose(anew=True):
            outcome = Outcome.NO_BACKEND
        if outcome is not None:
            self._admission.end()
            return outcome
        self.take(data)
        return None

    def take(self, data: memoryview) -> None:
        """
        Pass on a datagram of the client.
        """
        self.touched = self._seconds()
        self.datagrams_received += 1
        self.bytes_received += len(data)
        send = self._send
        if send is not None:
            # Most common case first.
            try:
                send(data)
            except OSError as error:
                if self._has_no_server(error):
                    # The error is about an earlier datagram; this one has not been sent, and goes to another server.
                    self._keep(data)
        else:
            self._keep(data)

    def _has_no_server(self, error: OSError) -> bool:
        """
        Take an error of sending; tell whether it says that the server is not there.
        """
        if isinstance(error, BlockingIOError) or error.errno in _OUT_OF_RESOURCES:
            self._keeper.count_dropped("upstream-congested")
        elif error.errno == errno.EMSGSIZE:
            self._keeper.count_dropped("too-large")
        else:
            self._link_failed(error.errno or 0)
            return True
        return False

    def _keep(self, data: memoryview) -> None:
        """
        Keep a datagram until there is a way to a server, and begin to look for one if nobody does.
        """
        if self._waiting is not None:
            if not self._waiting.add(data):
                self._keeper.count_dropped(Outcome.BUFFER_FULL.word)
            return
        if not self._holds and not self._choose(anew=True):
            self._keeper.count_dropped(Outcome.NO_BACKEND.word)
            return
        self._waiting = Waiting(self._keeper)
        if not self._waiting.add(data):
            self._keeper.count_dropped(Outcome.BUFFER_FULL.word)
        self._find()

    def _take_waiting(self) -> list[bytes]:
        waiting, self._waiting = self._waiting, None
        return [] if waiting is None else waiting.take()

    # -- the server

    def _choose(self, *, anew: bool) -> bool:
        """
        Choose a server: one that has not failed this client since it was last answered, of the service or of the one that steps in, or with
        `anew` any. Tell whether there is one.
        """
        try:
            backend = self._service.choose(self, self._tried)  # type: ignore[arg-type]
            if backend is None:
                other = self._service.next_to_serve()
                if other is not None:
                    backend = other.choose(self, self._tried)  # type: ignore[arg-type]
                    if backend is not None:
                        self._service.failovers += 1
                        self._be_served_by(other)
            if backend is None and anew and self._tried:
                # All have failed this client, but that may be long ago.
                self._tried.clear()
                self._be_served_by(self.route.service)
                backend = self._service.choose(self, ())  # type: ignore[arg-type]
        except Exception:
            # It may be a plugin's.
            self._log.failure("bug in the choice of a server for {session!r}", session=self)
            return False
        if backend is None:
            return False
        if self._tried:
            self._service.retries += 1
        self.backend = backend
        self.attempts += 1
        self.leased, self._holds = self._seconds(), True
        backend.acquire()
        if backend.watch is not None:
            self._ticket = backend.watch.begin()
        return True

    def _be_served_by(self, service: Service) -> None:
        self._service, self.settings, self.revision = service, service.settings, None

    def _find(self) -> None:
        backend, attempt = self.backend, self.attempts
        assert backend is not None

        def found(addresses: list[Address]) -> None:
            # Only for the server that is still chosen.
            if self._holds and attempt == self.attempts and self._link is None and not self.is_over:
                self._found(backend.pool, addresses)

        backend.pool.find(found)

    def _found(self, pool: UdpPool, addresses: list[Address]) -> None:
        if not addresses:
            self._server_failed(Outcome.DNS_ERROR)
            self._try_next()
            return
        try:
            link = pool.link(addresses, self._answered, self._link_failed)
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                # Not the server's fault.
                self._keeper.count_dropped("out-of-descriptors", len(self._take_waiting()))
                self._let_go(Outcome.INTERNAL_ERROR)
            else:
                self._server_failed(Outcome.CONNECT_FAILED)
                self._try_next()
            return
        self._link = link
        self._send = link.send
        kept = self._take_waiting()
        for number, data in enumerate(kept):
            try:
                link.send(data)
            except OSError as error:
                if self._has_no_server(error):
                    # Nothing was sent before, so there is no way to it at all.
                    self._keeper.count_dropped("no-way", len(kept) - number)
                    return
        link.start()

    def _try_next(self) -> None:
        """
        Have what is kept sent to another server, once to each.
        """
        kept = self._take_waiting()
        if kept and self._choose(anew=False):
            self._waiting = Waiting(self._keeper)
            for data in kept:
                self._waiting.add(data)
            self._find()
        elif kept:
            self._keeper.count_dropped((self._trouble or Outcome.NO_BACKEND).word, len(kept))

    def _answered(self, data: memoryview) -> None:
        """
        Pass on a datagram of the server.
        """
        self.touched = self._seconds()
        if not self.first_byte or self._ticket >= 0:
            self._server_is_well()
        try:
            self._answer(data, self._way)
        except OSError as error:
            is_full = isinstance(error, BlockingIOError) or error.errno in _OUT_OF_RESOURCES
            self._keeper.count_dropped("client-congested" if is_full else "client-unreachable")
        else:
            self.datagrams_sent += 1
            self.bytes_sent += len(data)

    def _server_is_well(self) -> None:
        if not self.first_byte:
            self.first_byte = self.touched
        self._trouble = None
        self._tried.clear()
        self._end_watch(Outcome.COMPLETED)

    def _link_failed(self, code: int) -> None:
        self._server_failed(Outcome.CONNECT_REFUSED if code == errno.ECONNREFUSED else Outcome.CONNECT_FAILED)

    def _server_failed(self, outcome: Outcome) -> None:
        """
        Let go of the server, which is not there; whoever watches it hears of that.
        """
        backend = self.backend
        assert backend is not None
        if self._ticket < 0 and backend.watch is not None:
            # It was well before.
            self._ticket = backend.watch.begin()
            self.leased = self._seconds()
        self._trouble = outcome
        self._tried.append(backend)
        backend.pool.doubt()
        self._let_go(outcome)

    def _let_go(self, outcome: Outcome) -> None:
        link, self._link = self._link, None
        self._send = None
        backend = self.backend
        if backend is None or not self._holds:
            return
        self._holds = False
        if link is not None:
            backend.pool.give_back(link)
        backend.release()
        self._end_watch(outcome)

    def _end_watch(self, outcome: Outcome) -> None:
        ticket, self._ticket = self._ticket, -1
        backend = self.backend
        if ticket >= 0 and backend is not None and backend.watch is not None:
            answered = self.first_byte >= self.leased or outcome.is_backend_fault
            backend.watch.end(ticket, outcome, 0, max(self._seconds() - self.leased, 1e-6) if answered else 0.0)

    # -- reload

    def serve_under(self, entrypoint: UdpEntrypoint, route: UdpRoute) -> None:
        """
        Go on under another configuration: with the same server if that belongs to the route's service, or to one that steps in for it.
        """
        self.entrypoint = entrypoint
        self.route = route
        service: Service | None = route.service
        while service is not None and self.backend not in service.backends:
            service = service.failover
        if service is not None:
            self._service, self.settings = service, service.settings
        else:
            self.leave_server()
            self._be_served_by(route.service)

    def leave_server(self) -> None:
        """
        Choose anew with the next datagram.
        """
        dropped = self._take_waiting()
        if dropped:
            self._keeper.count_dropped(Outcome.NO_BACKEND.word, len(dropped))
        self._tried.clear()
        self._let_go(Outcome.CLIENT_CLOSED)

    # -- the end

    def is_expired(self, now: float) -> bool:
        """
        Tell whether nothing has moved for too long.
        """
        return now - self.touched >= self.entrypoint.session_timeout

    def deadline_passed(self) -> None:
        """
        Called by the sweep: see whether anything has moved.
        """
        if self.is_expired(self._seconds()):
            self.end(self._trouble or Outcome.COMPLETED)
        else:
            self.deadline = self.touched + self.entrypoint.session_timeout

    def end(self, outcome: Outcome) -> None:
        """
        Give everything back, once, and tell of it.
        """
        if self.is_over:
            return
        self.is_over = True
        self.outcome = outcome
        self.ended = self._seconds()
        dropped = self._take_waiting()
        if dropped:
            self._keeper.count_dropped(outcome.word, len(dropped))
        # A server that nobody complained about is well, as far as can be told: many are never meant to answer.
        self._let_go(Outcome.COMPLETED if self._link is not None else Outcome.CLIENT_CLOSED)
        self._admission.end()
        self.entrypoint.observers.exchange_ended(self)
        self._keeper.session_ended(self)
