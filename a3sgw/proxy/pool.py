"""
Lend connections to one backend.

All decisions are made here, synchronously: `lease` gives an idle connection, or begins a new one, or puts the caller in the queue.
Connections come back through `release` when they can be used again and through `discard` when they are gone, and either may serve the next
in the queue.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

import attrs

from a3sgw.errors import Outcome
from a3sgw.net.connect import Address, Connecting, Dialer
from a3sgw.proxy.http1_client import Http1Client
from a3sgw.service.backend import Backend

__all__ = ["Pool", "PoolSettings"]


@attrs.frozen(slots=True)
class PoolSettings:
    """
    The bounds of one backend's pool; the names are those of the configuration. Times in seconds; 0 connections means no limit.
    """

    max_connections: int = 0
    max_idle_connections: int = 100
    idle_timeout: float = 90.0


class _Lessee(Protocol):
    connect_timeout: float

    def upstream_leased(self, upstream: Http1Client) -> None: ...

    def lease_failed(self, outcome: Outcome) -> None: ...


class _Waiter:
    """
    A lessee in the queue, with its deadline for the sweep.
    """

    __slots__ = ("deadline", "lessee", "pool")

    def __init__(self, pool: Pool, lessee: _Lessee, deadline: float) -> None:
        self.pool = pool
        self.lessee = lessee
        self.deadline = deadline

    def deadline_passed(self) -> None:
        """
        Called by the sweep.
        """
        self.pool._drop_waiter(self)
        self.lessee.lease_failed(Outcome.POOL_EXHAUSTED)


class _Resolving:
    """
    A lessee that waits for its backend's name to be resolved, with its deadline for the sweep.
    """

    __slots__ = ("deadline", "lessee", "pool")

    def __init__(self, pool: Pool, lessee: _Lessee, deadline: float) -> None:
        self.pool = pool
        self.lessee = lessee
        self.deadline = deadline
        pool._deadlines.add(self)

    def cancel(self) -> None:
        """
        Wait no longer.
        """
        self.pool._deadlines.discard(self)

    def deadline_passed(self) -> None:
        """
        Called by the sweep.
        """
        self.pool._connected(self.lessee, None, Outcome.CONNECT_TIMEOUT)


class Pool:
    """
    The connections to one backend. `make` is given each new stream and the pool, and returns what is lent.

    `leased` counts those in use, `connecting` those being made. `is_retired` says that the backend is not in the configuration any more.
    """

    __slots__ = (
        "_addresses",
        "_addresses_until",
        "_attempts",
        "_deadlines",
        "_dialer",
        "_idle",
        "_make",
        "_queue",
        "backend",
        "connecting",
        "is_retired",
        "leased",
        "settings",
    )

    ADDRESSES_KEPT_SECONDS: Final = 10.0

    def __init__(self, backend: Backend, settings: PoolSettings, dialer: Dialer, make: Callable[[Any, Pool], Any] = Http1Client) -> None:
        self.backend = backend
        self.settings = settings
        self.leased = 0
        self.connecting = 0
        self._make = make
        self._dialer = dialer
        self._deadlines = dialer.deadlines
        self._idle: list[Http1Client] = []
        self._queue: deque[_Waiter] = deque()
        self._attempts: dict[_Lessee, Connecting | _Resolving] = {}
        self._addresses: list[Address] = []
        self._addresses_until = 0.0
        self.is_retired = False

    @property
    def idle(self) -> int:
        """
        How many connections wait to be used again.
        """
        return len(self._idle)

    def __repr__(self) -> str:
        counts = f"{self.leased} leased, {len(self._idle)} idle, {self.connecting} connecting, {len(self._queue)} waiting"
        return f"<Pool {self.backend.url}: {counts}>"

    # -- leasing

    def lease(self, lessee: _Lessee, *, fresh: bool = False) -> Http1Client | None:
        """
        Return a connection, or `None` if `lessee` will hear later: `upstream_leased` or `lease_failed`, unless it calls `cancel` first.

        With `fresh` only a new connection will do.
        """
        idle = self._idle
        while idle and not fresh:
            # Newest first: a backend closes its oldest idle connections, and we would rather not race it to them.
            upstream = idle.pop()
            if upstream.is_spoilt():
                # What arrived before the request must not be taken for its response.
                continue
            self.leased += 1
            return upstream
        limit = self.settings.max_connections
        if limit and self.leased + self.connecting + len(idle) >= limit:
            if idle:
                # Room for a fresh one is made by an idle one.
                idle.pop(0).close()
            else:
                waiter = _Waiter(self, lessee, self._deadlines.seconds() + lessee.connect_timeout)
                self._queue.append(waiter)
                self._deadlines.add(waiter)
                return None
        self._connect(lessee)
        return None

    def cancel(self, lessee: _Lessee) -> None:
        """
        Forget a lessee that still waits.
        """
        if lessee in self._attempts:
            self.connecting -= 1
            self._attempts.pop(lessee).cancel()
            self._serve_next()
            return
        for waiter in self._queue:
            if waiter.lessee is lessee:
                self._drop_waiter(waiter)
                return

    def release(self, upstream: Http1Client) -> None:
        """
        Take back a connection whose response has ended and which can carry another.
        """
        self.leased -= 1
        if self._queue:
            waiter = self._queue.popleft()
            self._deadlines.discard(waiter)
            self.leased += 1
            waiter.lessee.upstream_leased(upstream)
        elif self.is_retired or len(self._idle) >= self.settings.max_idle_connections:
            upstream.close()
        else:
            upstream.rest(self.settings.idle_timeout)
            self._idle.append(upstream)

    def discard(self, upstream: Http1Client) -> None:
        """
        Strike off a leased connection that cannot be used again. The caller closes it.
        """
        self.leased -= 1
        if self._queue:
            self._serve_next()

    def idle_lost(self, upstream: Http1Client) -> None:
        """
        An idle connection is gone.
        """
        try:
            self._idle.remove(upstream)
        except ValueError:
            pass

    def retire(self) -> None:
        """
        Close what is idle, and from now on whatever comes back: the backend is not in the configuration any more.
        """
        self.is_retired = True
        idle, self._idle = self._idle, []
        for upstream in idle:
            upstream.close()

    # -- connecting

    def _serve_next(self) -> None:
        limit = self.settings.max_connections
        while self._queue and (not limit or self.leased + self.connecting + len(self._idle) < limit):
            waiter = self._queue.popleft()
            self._deadlines.discard(waiter)
            self._connect(waiter.lessee)

    def _drop_waiter(self, waiter: _Waiter) -> None:
        self._deadlines.discard(waiter)
        self._queue.remove(waiter)

    def _connect(self, lessee: _Lessee) -> None:
        self.connecting += 1
        deadline = self._deadlines.seconds() + lessee.connect_timeout
        address = self.backend.address
        if address.path:
            self._connect_to([self._dialer.unix_address(address.path)], lessee, deadline)
        elif self._addresses and self._deadlines.seconds() < self._addresses_until:
            self._connect_to(self._addresses, lessee, deadline)
        else:
            self._attempts[lessee] = _Resolving(self, lessee, deadline)
            self._dialer.resolve(address.host, address.port, lambda found: self._resolved(found, lessee, deadline))

    def _resolved(self, found: list[Address], lessee: _Lessee, deadline: float) -> None:
        if found:
            self._addresses = found
            self._addresses_until = self._deadlines.seconds() + self.ADDRESSES_KEPT_SECONDS
        attempt = self._attempts.get(lessee)
        if not isinstance(attempt, _Resolving):
            return
        if found:
            attempt.cancel()
            self._connect_to(found, lessee, deadline)
        else:
            self._dialer.later(self._connected, lessee, None, Outcome.DNS_ERROR)

    def _connect_to(self, addresses: list[Address], lessee: _Lessee, deadline: float) -> None:
        self._attempts[lessee] = self._dialer.connect(addresses, deadline, lambda sock, outcome: self._connected(lessee, sock, outcome))

    def _connected(self, lessee: _Lessee, sock: socket.socket | None, outcome: Outcome | None) -> None:
        attempt = self._attempts.pop(lessee, None)
        if attempt is None:
            return
        if isinstance(attempt, _Resolving):
            attempt.cancel()
        self.connecting -= 1
        if sock is None:
            # The name may have moved.
            self._addresses_until = 0.0
            assert outcome is not None
            self._serve_next()
            lessee.lease_failed(outcome)
            return
        self._established(lessee, self._dialer.stream(sock))

    def _established(self, lessee: _Lessee, stream: Any) -> None:
        """
        There is a connection for `lessee`.
        """
        upstream = self._make(stream, self)
        stream.receiver = upstream
        stream.start()
        self.leased += 1
        lessee.upstream_leased(upstream)
