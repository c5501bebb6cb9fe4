"""
Ask one server of a service after the other until one has a connection.

What every request that is not a client's own exchange has in common: it is counted at the server it is at, whoever watches the server hears
of it, and a server that cannot be connected to is passed over, because nothing was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any, Protocol

from twisted.logger import Logger

from a3sgw.errors import Outcome
from a3sgw.interfaces import IUpstream
from a3sgw.message import RequestHead, ResponseHead
from a3sgw.net.deadline import NEVER
from a3sgw.observe.record import Record
from a3sgw.service.backend import Backend
from a3sgw.service.service import ServiceSettings

__all__ = ["Choice", "Lessee"]


class Choice(Protocol):
    """
    Where a request may go: a service, or the only server of a URL.
    """

    retries: int

    @property
    def settings(self) -> ServiceSettings: ...

    def choose(self, exchange: Any, tried: Sequence[Backend]) -> Backend | None: ...


class Lessee(Record):
    """
    The part of an `ILessee` that concerns servers and connections. A `Record` because balancers read one.

    Whoever inherits says what is done with a connection (`_send`) and without one (`_fail`), and calls `_let_go` at the end.
    `_may_be_sent_twice` says that a connection need not be made sure of before the request is sent on it. Who does not know its `service`
    yet gives `None`, and calls `be_served_by` first.
    """

    __slots__ = (
        "_is_waiting",
        "_may_be_sent_twice",
        "_pool",
        "_ticket",
        "_tried",
        "_upstream",
        "binding",
        "bound_service",
        "connect_timeout",
        "response_header_timeout",
        "service",
        "settings",
    )

    _log = Logger()

    service: Choice
    settings: ServiceSettings

    def __init__(self, service: Choice | None, head: RequestHead, *, may_be_sent_twice: bool) -> None:
        self.entrypoint = self.route = self.backend = self.outcome = self.answered_by = None
        self.peer = b""
        self.scheme = b"http"
        self.protocol = b"HTTP/1.1"
        self.attempts = self.passed = self.status = self.upstream_status = self.bytes_received = self.bytes_sent = 0
        self.started = self.leased = self.first_byte = self.ended = 0.0
        self.head = head
        self._tried: list[Backend] = []
        if service is not None:
            self.be_served_by(service)
        # There is one time limit for everything.
        self.response_header_timeout = NEVER
        self.revision = self.binding = self.bound_service = None
        self._may_be_sent_twice = may_be_sent_twice
        self._upstream: Any = None
        self._is_waiting = False
        self._ticket = -1

    def be_served_by(self, service: Choice, settings: ServiceSettings | None = None) -> None:
        """
        Ask the servers of `service` from now on, with its settings unless others are given.
        """
        self.service = service
        self.settings = service.settings if settings is None else settings
        self.connect_timeout = self.settings.connect_timeout
        self.revision = None
        self._tried = []

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} {self.head!r} to {self.backend!r}, attempt {self.attempts}>"

    # -- for whoever inherits

    def _send(self, upstream: IUpstream) -> None:
        """
        There is a connection: send the request.
        """
        raise NotImplementedError

    def _fail(self, outcome: Outcome, detail: str) -> None:
        """
        There is no server left to try, or a bug.
        """
        raise NotImplementedError

    # -- attempts

    def _choose_and_try(self, otherwise: Outcome) -> None:
        """
        Try the next server; if there is none, `otherwise` says why not.
        """
        try:
            backend = self.service.choose(self, self._tried)
        except Exception:
            # A balancer may be a plugin, and we are called by a pool that cannot be expected to know.
            self._log.failure("bug in the choice of a server for {lessee!r}", lessee=self)
            self._fail(Outcome.INTERNAL_ERROR, "bug")
            return
        if backend is None:
            self._fail(otherwise, "")
            return
        if self._tried:
            self.service.retries += 1
        self._try(backend, fresh=False)

    def _try(self, backend: Backend, *, fresh: bool) -> None:
        self.backend = backend
        self.attempts += 1
        self.leased = 0.0
        backend.acquire()
        if backend.watch is not None:
            self._ticket = backend.watch.begin()
        self._pool = pool = backend.pool_for(self.head)
        upstream = pool.lease(self, fresh=fresh)
        while upstream is not None and not self._may_be_sent_twice and upstream.was_used and upstream.is_stale():
            # This request must not be sent twice, so make sure of the connection before it is sent once.
            upstream.abort()
            upstream = pool.lease(self)
        if upstream is None:
            self._is_waiting = True
        else:
            self.upstream_leased(upstream)

    # -- what the pool and the upstream report

    def upstream_leased(self, upstream: IUpstream) -> None:
        """
        There is a connection.
        """
        self._is_waiting = False
        self._upstream = upstream
        self.leased = monotonic()
        self._send(upstream)

    def lease_failed(self, outcome: Outcome) -> None:
        """
        There is no connection. Nothing was sent, so another server may be tried whatever the request is.
        """
        self._is_waiting = False
        assert self.backend is not None
        self._tried.append(self.backend)
        self._let_go_of_backend(outcome)
        self._choose_and_try(outcome)

    def interim_received(self, head: ResponseHead) -> None:
        """
        Not what was asked for.
        """

    # -- the end

    def _let_go(self, outcome: Outcome) -> None:
        """
        Give back the server and the connection, or the place in the queue for one; neither pool nor upstream will report any more.
        """
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
        elif self._is_waiting:
            self._is_waiting = False
            assert self.backend is not None
            self._pool.cancel(self)
        self._let_go_of_backend(outcome)

    def _let_go_of_backend(self, outcome: Outcome) -> None:
        backend, self.backend = self.backend, None
        if backend is not None:
            backend.release()
            self._end_watch(backend, outcome)

    def _end_watch(self, backend: Backend, outcome: Outcome) -> None:
        """
        Tell whoever watches the server how it did. One whose answer nobody wants any more says nothing about it.
        """
        ticket, self._ticket = self._ticket, -1
        if ticket >= 0 and backend.watch is not None:
            backend.watch.end(ticket, outcome, self.upstream_status, monotonic() - self.leased if self.leased else 0.0)
