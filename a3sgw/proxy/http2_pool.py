"""
Lend streams of HTTP/2 connections to one backend.

To whoever leases, it is a pool like any other. What it counts as leased are streams; `max_connections` and `max_idle_connections` bound
connections. As long as one has room, no other is made, and whoever comes while the first is being made waits for it.

Where a backend may decline, over TLS, what it prefers is remembered for a while, and requests go to `plain`, the pool of its HTTP/1.1
connections, which are counted apart. Requests to change the protocol always do.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from a3sgw.errors import Outcome
from a3sgw.interfaces import IUpstream
from a3sgw.message import IDEMPOTENT
from a3sgw.net.connect import Dialer
from a3sgw.proxy.http1_client import Http1Client
from a3sgw.proxy.pool import Pool, PoolSettings
from a3sgw.service.backend import Backend

if TYPE_CHECKING:
    from a3sgw.proxy.http2_client import Http2Client

__all__ = ["Http2Pool", "equip"]

HTTP1: Final = (b"http/1.1",)
HTTP2_OR_1: Final = (b"h2", b"http/1.1")
"""What a backend may choose from (RFC 7301)."""

_UNKNOWN_CAPACITY: Final = 100


def equip(backend: Backend, settings: PoolSettings, dialer: Any, tls_dialer: Callable[[Sequence[bytes]], Any]) -> None:
    """
    Give `backend` its pools, by its scheme: gRPC is HTTP/2 whichever it is. `tls_dialer` returns one that offers the given protocols.
    """
    scheme = backend.address.scheme
    is_secure = scheme == "https"
    plain = Pool(backend, settings, tls_dialer(HTTP1) if is_secure else dialer, Http1Client)
    backend.grpc_pool = Http2Pool(backend, settings, tls_dialer(HTTP2_OR_1) if is_secure else dialer, plain, negotiates=is_secure)
    backend.pool = plain if scheme == "http" else backend.grpc_pool
    backend.pools = (plain, backend.grpc_pool)


class _Opening:
    """
    A connection that is being made for nobody in particular.
    """

    __slots__ = ("_pool", "connect_timeout")

    def __init__(self, pool: Http2Pool, connect_timeout: float) -> None:
        self._pool = pool
        self.connect_timeout = connect_timeout

    def upstream_leased(self, upstream: Any) -> None:
        """
        Never called.
        """

    def lease_failed(self, outcome: Outcome) -> None:
        """
        It could not be made.
        """
        self._pool._opening_failed(outcome)


class _Waiter:
    """
    A lessee that waits for a stream, with its deadline for the sweep. `fresh` says that only a new connection will do.
    """

    __slots__ = ("deadline", "fresh", "lessee", "pool")

    def __init__(self, pool: Http2Pool, lessee: Any, deadline: float, fresh: bool) -> None:
        self.pool = pool
        self.lessee = lessee
        self.deadline = deadline
        self.fresh = fresh

    def deadline_passed(self) -> None:
        """
        Called by the sweep.
        """
        outcome = Outcome.CONNECT_TIMEOUT if self.pool.connecting else Outcome.POOL_EXHAUSTED
        self.pool._forget(self)
        self.lessee.lease_failed(outcome)


class Http2Pool(Pool):
    """
    The HTTP/2 connections to one backend.

    `last_capacity` is how many streams the backend allowed on a connection the last time; 1 if that is not known, because whoever opens too
    many before the backend could say so may lose them all. `negotiates` says that the dialer's connections are under TLS and that the
    backend chooses the protocol on each.
    """

    __slots__ = ("_capacity", "_connections", "_http1_until", "_negotiates", "_waiting", "last_capacity", "plain")

    HTTP1_KEPT_SECONDS: Final = 600.0
    """How long it is remembered that a backend prefers HTTP/1.1."""

    def __init__(self, backend: Backend, settings: PoolSettings, dialer: Dialer, plain: Pool, *, negotiates: bool) -> None:
        super().__init__(backend, settings, dialer, Http1Client)
        self.plain = plain
        self._negotiates = negotiates
        self._connections: list[Http2Client] = []
        self._waiting: deque[_Waiter] = deque()
        self._capacity = _UNKNOWN_CAPACITY
        self.last_capacity = 1
        self._http1_until = 0.0

    @property
    def idle(self) -> int:
        """
        How many connections wait to be used again.
        """
        return sum(not connection.in_use for connection in self._connections)

    def __repr__(self) -> str:
        made = f"{self.leased} streams of {len(self._connections)} connections"
        counts = f"{made}, {self.connecting} connecting, {len(self._waiting)} waiting"
        return f"<Http2Pool {self.backend.url}: {counts}>"

    def later(self, call: Any) -> None:
        """
        Make a call in the next turn of the reactor.
        """
        self._dialer.later(call)

    # -- leasing

    def lease(self, lessee: Any, *, fresh: bool = False) -> Any:
        """
        Return a stream, or `None` if `lessee` will hear later; see `Pool.lease`.
        """
        head = lessee.head
        if (head is not None and head.upgrade) or self._prefers_http1:
            return self.plain.lease(lessee, fresh=fresh)
        if not fresh:
            upstream = self._lend(is_repeatable=head is None or head.method in IDEMPOTENT)
            if upstream is not None:
                return upstream
        waiter = _Waiter(self, lessee, self._deadlines.seconds() + lessee.connect_timeout, fresh)
        self._waiting.append(waiter)
        self._deadlines.add(waiter)
        self._open_more()
        return None

    @property
    def _prefers_http1(self) -> bool:
        return self._http1_until > 0.0 and self._deadlines.seconds() < self._http1_until

    def _lend(self, *, is_repeatable: bool) -> IUpstream | None:
        for connection in self._connections:
            if not connection.in_use and not is_repeatable:
                # This request must not be sent twice, so make sure of the connection before it is sent once.
                connection.look()
                if connection.is_leaving:
                    return self._lend(is_repeatable=is_repeatable)
            if connection.has_room:
                self.leased += 1
                return connection.lend()
        return None

    def cancel(self, lessee: Any) -> None:
        """
        Forget a lessee that still waits.
        """
        for waiter in self._waiting:
            if waiter.lessee is lessee:
                self._forget(waiter)
                return
        self.plain.cancel(lessee)

    def _forget(self, waiter: _Waiter) -> None:
        self._waiting.remove(waiter)
        self._deadlines.discard(waiter)
        if not self._waiting and self.connecting:
            # Nobody wants what is being made.
            attempts, self._attempts = self._attempts, {}
            self.connecting = 0
            for attempt in attempts.values():
                attempt.cancel()

    def retire(self) -> None:
        """
        Close what is idle, and from now on whatever becomes idle.
        """
        self.is_retired = True
        for connection in [each for each in self._connections if not each.in_use]:
            self._connections.remove(connection)
            connection.close()

    # -- what connections report

    def stream_ended(self, connection: Http2Client) -> None:
        """
        A stream that was lent is not used any more.
        """
        self.leased -= 1
        if self._waiting:
            self._serve(connection, is_new=False)
        if not connection.in_use and connection in self._connections:
            self._rest(connection)

    def _rest(self, connection: Http2Client) -> None:
        others = sum(not each.in_use for each in self._connections) - 1
        if connection.is_leaving or self.is_retired or others >= self.settings.max_idle_connections:
            self._connections.remove(connection)
            connection.close()
            self._open_more()
        else:
            connection.rest(self.settings.idle_timeout)

    def room_found(self, connection: Http2Client) -> None:
        """
        A stream is over, or the backend has shown that it is alive.
        """
        if self._waiting:
            self._serve(connection, is_new=False)

    def settled(self, connection: Http2Client) -> None:
        """
        The backend has said how many streams it takes.
        """
        self.last_capacity = self._capacity = max(1, connection.capacity)
        if self._waiting:
            self._serve(connection, is_new=True)
            self._open_more()

    def leaving(self, connection: Http2Client) -> None:
        """
        The backend takes no new streams on a connection.
        """
        if not connection.in_use and connection in self._connections:
            self._rest(connection)
        self._open_more()

    def connection_lost(self, connection: Http2Client, streams: int) -> None:
        """
        A connection has ended, and `streams` that were lent with it.
        """
        self.leased -= streams
        if connection in self._connections:
            self._connections.remove(connection)
        self._open_more()

    def prefers_http1(self) -> None:
        """
        The backend wants HTTP/1.1: so it will have it for a while.
        """
        self._http1_until = self._deadlines.seconds() + self.HTTP1_KEPT_SECONDS

    # -- connecting

    def _serve(self, connection: Http2Client, *, is_new: bool) -> None:
        while self._waiting and connection.has_room:
            waiter = next((each for each in self._waiting if is_new or not each.fresh), None)
            if waiter is None:
                return
            self._waiting.remove(waiter)
            self._deadlines.discard(waiter)
            self.leased += 1
            waiter.lessee.upstream_leased(connection.lend())

    def _open_more(self) -> None:
        """
        Make as many connections as those who wait need, within the limit.
        """
        limit = self.settings.max_connections
        expected = sum(connection.expected for connection in self._connections)
        while len(self._waiting) > expected + self.connecting * self._capacity:
            if limit and self.connecting + len(self._connections) >= limit and not self._make_room():
                return
            self._connect(_Opening(self, self._waiting[0].lessee.connect_timeout))

    def _make_room(self) -> bool:
        """
        Close an idle connection that cannot be used for those who wait; return whether there was one.
        """
        for connection in self._connections:
            if not connection.in_use:
                self._connections.remove(connection)
                connection.close()
                return True
        return False

    def _serve_next(self) -> None:
        """
        Done by `_opening_failed`.
        """

    def _opening_failed(self, outcome: Outcome) -> None:
        if self.connecting or self._connections:
            # There are others to wait for.
            return
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            self._deadlines.discard(waiter)
        for waiter in waiting:
            waiter.lessee.lease_failed(outcome)

    def _established(self, lessee: Any, stream: Any) -> None:
        if self._negotiates and stream.protocol != b"h2":
            self._http1_established(stream)
            return
        # Only here, so that whoever speaks HTTP/1.1 with everybody runs without the library.
        from a3sgw.proxy.http2_client import Http2Client

        self._http1_until = 0.0
        connection = Http2Client(stream, self, self._deadlines)
        stream.receiver = connection
        self._connections.append(connection)
        connection.start()
        self._serve(connection, is_new=True)
        if not connection.in_use and connection in self._connections:
            self._rest(connection)

    def _http1_established(self, stream: Any) -> None:
        """
        The backend chose HTTP/1.1: all who wait go to its other pool, and the first has this connection.
        """
        self.prefers_http1()
        self.plain._addresses, self.plain._addresses_until = self._addresses, self._addresses_until
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            self._deadlines.discard(waiter)
        if not waiting:
            stream.receiver = None
            stream.close()
            return
        self.plain._established(waiting.popleft().lessee, stream)
        for waiter in waiting:
            upstream = self.plain.lease(waiter.lessee, fresh=waiter.fresh)
            if upstream is not None:
                waiter.lessee.upstream_leased(upstream)
