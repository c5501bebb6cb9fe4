"""
Bring one client's connection to a server, and carry what they say.

A `TcpConnection` waits for the client's first bytes only if a rule needs them, and at most for the time that the entrypoint allows; what
they say of the server's name and protocols (TLS, RFC 6066 and RFC 7301) decides the route. Then it asks one server after the other until
one can be connected to, while a little of what the client sends is kept. From there on a `Tunnel` carries the bytes, and nobody looks at
them. A client of PostgreSQL asks before it begins TLS: it is told yes, and the server is asked in its turn. However it ends, the connection
finishes exactly once: what it held is given back, and it is counted and logged.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import IConnection, IReceiver
from a3sgw.message import RequestHead
from a3sgw.middleware.gates import ask_gates, tell_gates
from a3sgw.net.caller import Caller
from a3sgw.net.deadline import NEVER
from a3sgw.net.valve import WAITING_ROOM
from a3sgw.policy.slots import Admission
from a3sgw.proxy.agreement import Agreement
from a3sgw.proxy.lessee import Lessee
from a3sgw.proxy.tcp_entrypoint import TcpEntrypoint, TcpRoute
from a3sgw.proxy.tunnel import Tunnel
from a3sgw.route.match import ConnectionFacts
from a3sgw.service.waiting import WaitingRoom
from a3sgw.wire.opening import Opening
from a3sgw.wire.proxyprotocol import Endpoint, encode_v1, encode_v2

if TYPE_CHECKING:
    from a3sgw.interfaces import IConnectionGate
    from a3sgw.service.backend import Backend

__all__ = ["Keeper", "TcpConnection"]

_WAITING_BYTES: Final = 65536
_ENCODERS: Final = {"v1": encode_v1, "v2": encode_v2}


class Keeper(Protocol):
    """
    Whoever let the connection in, and counts: a door.
    """

    def connection_ended(self, connection: Any) -> None: ...

    def count_refused(self, outcome: Outcome) -> None: ...


@implementer(IReceiver, IConnection)
class TcpConnection(Lessee):
    """
    One client's connection over a tcp entrypoint; also its record.

    Whoever makes it makes it the receiver of `stream`, and has `begin` called soon after.
    """

    __slots__ = (
        "_agreement",
        "_began",
        "_caller",
        "_client_has_ended",
        "_has_begun",
        "_is_decided",
        "_is_over",
        "_keeper",
        "_let_in",
        "_opening",
        "_place",
        "_queue",
        "_stream",
        "_tunnel",
        "_verdict",
    )

    service: Any
    entrypoint: TcpEntrypoint
    head: RequestHead
    route: TcpRoute | None

    def __init__(self, stream: Any, keeper: Keeper, entrypoint: TcpEntrypoint, caller: Caller) -> None:
        head = RequestHead(b"TCP", b"/")
        head.client = caller.address
        head.client_packed = caller.packed
        super().__init__(None, head, may_be_sent_twice=True)
        self.entrypoint = entrypoint
        self.peer = caller.address
        self.scheme = b"tcp" if caller.tls is None else b"tls"
        self.protocol = b"TCP"
        self.started = monotonic()
        self._stream = stream
        self._keeper = keeper
        self._caller = caller
        self._opening = Opening(asked=caller.has_asked_for_tls and caller.tls is None)
        self._has_begun = self._is_decided = False
        self._agreement: Agreement | None = None
        self._client_has_ended = False
        self._is_over = False
        self._let_in: tuple[IConnectionGate, ...] = ()
        self._place: WaitingRoom | None = None
        self._queue: WaitingRoom | None = None
        self._tunnel: Tunnel | None = None
        self._verdict: Outcome | None = None

    def __repr__(self) -> str:
        where = self._tunnel or (self.route if self._is_decided else "unrouted")
        return f"<TcpConnection {self.peer.decode()} over {self.entrypoint.name}: {where!r}>"

    # -- the route

    def begin(self) -> None:
        """
        Find the route: at once if the client need not say anything for that. It may have said something already, or be gone.
        """
        if self._is_decided:
            return
        self._has_begun = True
        tls = self._caller.tls
        if tls is not None:
            self._decide(tls.server_name, tls.offered)
            return
        route, is_certain = self.entrypoint.table.match_early(self._caller.packed)
        if is_certain:
            self._take(route)
        else:
            self._stream.deadline = self._stream.now() + self.entrypoint.hello_timeout
            if self._opening.pending:
                already, self._opening.pending = self._opening.pending, b""
                self.data_received(already)
            if self._client_has_ended and not self._is_decided:
                self._decide()

    def _decide(self, server_name: bytes | None = None, protocols: tuple[bytes, ...] = ()) -> None:
        facts = ConnectionFacts(server_name, protocols, self._caller.packed)
        self.head.authority = self.head.host = facts.server_name or b""
        self._take(self.entrypoint.table.match(facts))

    def _take(self, route: TcpRoute | None) -> None:
        self._is_decided = True
        self._stream.deadline = NEVER
        if route is None:
            self._end(Outcome.NO_ROUTE)
            return
        self.route = route
        outcome = ask_gates(route.hooks, self._caller.packed)
        if outcome is not None:
            self._keeper.count_refused(outcome)
            self._end(outcome)
            return
        self._let_in = route.hooks
        self.be_served_by(route.service, route.settings)
        self._choose_and_try(Outcome.NO_BACKEND)

    # -- the server

    def _choose_and_try(self, otherwise: Outcome) -> None:
        room = self.service.traits.room
        if room is None or self._place is room or self._has_place(room):
            super()._choose_and_try(otherwise)

    def _has_place(self, room: WaitingRoom) -> bool:
        """
        Take a place in the waiting room of the service; if there is none, go elsewhere, or begin to wait, or give up.
        """
        if not room.has_place and self._fails_over():
            return False
        admission = room.enter(self)
        if admission is Admission.ACQUIRED:
            self._place = room
            return True
        if admission is Admission.QUEUED:
            self._queue = room
        elif room.waiting:
            self._end(Outcome.BUFFER_FULL)
        else:
            self._end(Outcome.CONCURRENCY_LIMIT if self.service.can_serve else Outcome.NO_BACKEND)
        return False

    def place_given(self) -> None:
        """
        A place in the waiting room came free.
        """
        self._place, self._queue = self._queue, None
        self._choose_and_try(Outcome.NO_BACKEND)

    def waited_in_vain(self, outcome: Outcome) -> None:
        """
        No place came free in time.
        """
        self._queue = None
        self._end(outcome)

    def _fails_over(self) -> bool:
        """
        Go on with the service that steps in, if there is one that can serve; tell whether there is.
        """
        other = self.service.next_to_serve()
        if other is None:
            return False
        self.service.failovers += 1
        self._leave_place()
        self.be_served_by(other)
        self._choose_and_try(Outcome.NO_BACKEND)
        return True

    def _fail(self, outcome: Outcome, detail: str) -> None:
        if outcome is Outcome.INTERNAL_ERROR or not self._fails_over():
            self._end(outcome)

    def _try(self, backend: Backend, *, fresh: bool) -> None:
        self._began = monotonic()
        super()._try(backend, fresh=True)

    def _send(self, upstream: Any) -> None:
        backend = self.backend
        assert backend is not None
        ticket, self._ticket = self._ticket, -1
        if ticket >= 0 and backend.watch is not None:
            # Whoever accepts connections does its work, as far as can be told from here.
            backend.watch.end(ticket, Outcome.COMPLETED, 0, self.leased - self._began)
        stream = upstream.stream
        version = self.settings.proxy_protocol
        if version is not None:
            caller = self._caller
            stream.write(_ENCODERS[version](Endpoint(caller.packed, caller.port), caller.destination))
        if self._opening.asked:
            self._agreement = Agreement(stream, self.settings.connect_timeout, self._agreed)
        else:
            self._join(stream)

    def _agreed(self, outcome: Outcome | None) -> None:
        """
        The server has been told what the client has been promised.
        """
        self._agreement = None
        if outcome is None:
            self._join(self._upstream.stream)
        else:
            self._end(outcome)

    def _join(self, stream: Any) -> None:
        # Nothing may move for as long as it likes, but whoever vanishes must be noticed.
        self._stream.keep_alive()
        stream.keep_alive()
        idle = self.entrypoint.idle_timeout
        tunnel = Tunnel(self._stream, stream, self._tunnel_ended, idle_timeout=NEVER if idle is None else idle)
        pending, self._opening.pending = self._opening.pending, b""
        self._tunnel = tunnel
        self._stream.free(WAITING_ROOM)
        tunnel.start(pending)
        if self._client_has_ended:
            tunnel.client.eof_received()

    # -- what the client's stream reports, until there is a tunnel

    def data_received(self, data: bytes) -> None:
        """
        Keep what the client sends: until its route is known to find it, and then for the server.
        """
        opening = self._opening
        if self._is_decided or not self._has_begun:
            opening.pending += data
            if len(opening.pending) >= _WAITING_BYTES:
                self._stream.hold(WAITING_ROOM)
            return
        answer = opening.take(data)
        if answer:
            self._stream.write(answer)
        self._look()

    def _look(self) -> None:
        """
        See whether the client has said enough.
        """
        found = self._opening.read()
        if found is not None:
            self._decide(*found)

    def eof_received(self) -> None:
        """
        The client will send nothing more, but may well wait for an answer.
        """
        self._client_has_ended = True
        if self._is_decided or not self._has_begun:
            return
        if self._opening.pending:
            self._decide()
        else:
            # It only wanted to know whether there is anybody.
            self._end(Outcome.CLIENT_CLOSED)

    def stream_lost(self, error: BaseException | None) -> None:
        """
        The client is gone, or was sent away.
        """
        outcome = self._verdict or Outcome.CLIENT_CLOSED
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.leave(self)
        self._finish(outcome)

    def stream_congested(self) -> None:
        """
        Nothing is written before there is a tunnel.
        """

    def stream_drained(self) -> None:
        """
        Nothing is written before there is a tunnel.
        """

    def deadline_passed(self) -> None:
        """
        The client has had its time to name a server.
        """
        self._decide()

    # -- what the door calls

    def exchange_count(self) -> int:
        """
        Return 1 if something is lost when the connection is broken off, else 0.
        """
        return int(self._is_decided and not self._is_over)

    def drain(self) -> None:
        """
        The door is closing: who has not got anywhere yet is sent away.
        """
        if not self._is_decided:
            self._end(Outcome.SHUTTING_DOWN)

    def stop(self) -> None:
        """
        Break everything off.
        """
        if self._tunnel is not None:
            self._tunnel.abort(Outcome.SHUTTING_DOWN)
        else:
            self._verdict = self._verdict or Outcome.SHUTTING_DOWN
            self._stream.abort()

    # -- the end

    def _end(self, outcome: Outcome) -> None:
        """
        Send the client away.
        """
        self._is_decided = True
        self._verdict = outcome
        self._stream.close()

    def _tunnel_ended(self, tunnel: Tunnel, outcome: Outcome) -> None:
        self.bytes_received = tunnel.bytes_received
        self.bytes_sent = tunnel.bytes_sent
        self._finish(outcome)

    def _leave_place(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.give_back()

    def _finish(self, outcome: Outcome) -> None:
        """
        Give everything back, once, and tell of it.
        """
        if self._is_over:
            return
        self._is_over = self._is_decided = True
        self.outcome = outcome
        self.ended = monotonic()
        backend = self.backend or (self._tried[-1] if self._tried else None)
        if self._agreement is not None:
            self._agreement.cancel()
        self._let_go(outcome)
        # For the record.
        self.backend = backend
        tell_gates(self._let_in, self._caller.packed)
        self.entrypoint.observers.exchange_ended(self)
        # These two may call back, or serve others.
        self._leave_place()
        self._keeper.connection_ended(self)
