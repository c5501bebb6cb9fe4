"""
`circuit-breaker`: stop asking a service, or one of its servers, that keeps failing, and try again after a while.

When it opens and closes is in `a3sgw.policy.breaker`. Here is decided what counts as a failure, and when that is known: usually at the end
of an exchange, so that an answer which breaks off is a failure. But a trial of a half-open circuit is judged by the head of its answer:
everybody else is refused until it is over, and a stream may go on for hours.

Costs under CPython 3.11 while all circuits are closed: 0.6 µs an exchange by router, 0.9 µs by backend.

Hot path: see docs/hot-path.md.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, ClassVar, Final
from weakref import WeakKeyDictionary

import attrs
from zope.interface import implementer

from a3sgw.config.kinds import Integer, Number, Word
from a3sgw.config.setting import label, setting
from a3sgw.errors import Outcome
from a3sgw.interfaces import IBackendHook, ICompletionHook, IRequestHook, IResponseHook, IStateSource
from a3sgw.message import LocalResponse, ResponseHead, make_field, set_field
from a3sgw.middleware.circuit import NO_TRIAL, Circuit, has_failed
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.statuses import statuses_of, statuses_setting
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.policy.arena import Arena
from a3sgw.policy.breaker import Breaker, BreakerState
from a3sgw.policy.shared_breaker import SharedBreaker
from a3sgw.refusal import refusal

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange
    from a3sgw.service.backend import Backend

__all__ = ["BackendCircuitBreaker", "CircuitBreaker", "CircuitBreakerConfig", "factory"]

_AT_LEAST_ONE: Final = Integer(minimum=1, maximum=2**32 - 1)
_SECONDS_AT_LEAST_ONE: Final = Integer(minimum=1, maximum=366 * 86400, unit="seconds")
_DEFAULT_WINDOW: Final = 10
_DEFAULT_MIN_REQUESTS: Final = 20
_BADNESS: Final = (BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED)


@attrs.frozen(kw_only=True)
class CircuitBreakerConfig:
    """
    Stop asking a service that keeps failing, and try again after a while.

    A closed circuit lets everything pass. When `failure_threshold` requests in a row have failed it opens: requests are answered 503 at
    once, with `Retry-After`. After `cooldown_secs` it is half-open and admits `success_threshold` requests at a time as trials; when so
    many have gone well it closes, and when one fails it opens again. A trial that takes longer than `cooldown_secs` makes room for another.
    With `failure_ratio` it opens by the share of failures instead.

    A request has failed if its answer has one of `status_codes`, if the server could not be reached, did not answer in time, or answered
    nonsense, and if the answer broke off. What middlewares answer, clients that leave before they have an answer, and requests for which
    there was no server to choose say nothing. With `retry` a request is judged by its last attempt.

    There is one circuit for each service, whichever routers lead to it; with `scope = "router"` each router, or entrypoint, that lists the
    middleware has one of its own. With `scope = "backend"` it has one for each server: one that fails is passed over, every attempt
    counts, and nobody is refused while a server remains, or the service's `failover` can step in. `gateway_circuit_state` shows how they
    stand; changes are logged.
    """

    type: ClassVar[str] = "circuit-breaker"
    example: ClassVar[str] = """
        middlewares "trip" {
          type          = "circuit-breaker"
          failure_ratio = 0.5
          window_secs   = 30
          min_requests  = 20
          cooldown_secs = 15
        }
        """

    name: str = label()
    failure_threshold: int = setting(
        _AT_LEAST_ONE, "How many failures in a row open the circuit; not looked at if there is a `failure_ratio`.", default=5
    )
    cooldown_secs: int = setting(_SECONDS_AT_LEAST_ONE, "How long it stays open.", default=30)
    success_threshold: int = setting(
        _AT_LEAST_ONE, "How many successes close it again, and how many trials there are at a time.", default=1
    )
    failure_ratio: float | None = setting(
        Number(excludes_minimum=True, maximum=1.0), "The share of requests that opens the circuit when they fail.", default=None
    )
    window_secs: int | None = setting(
        _SECONDS_AT_LEAST_ONE, f"Of which time the share is taken; without it, {_DEFAULT_WINDOW}.", default=None
    )
    min_requests: int | None = setting(
        _AT_LEAST_ONE, f"From how many requests in that time on a share means anything; without it, {_DEFAULT_MIN_REQUESTS}.", default=None
    )
    status_codes: tuple[str, ...] = statuses_setting("The answers that are failures.", ("500-599",))
    scope: str = setting(
        Word(("service", "router", "backend")),
        "Whether there is one circuit for each service, for each router or entrypoint, or for each server.",
        default="service",
    )

    @property
    def is_per_service(self) -> bool:
        """
        Whether routers that lead to the same service share what is built.
        """
        return self.scope == "service"

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Give what is wrong, by attribute.
        """
        if self.failure_ratio is None:
            for key in ("window_secs", "min_requests"):
                if getattr(self, key) is not None:
                    yield key, f"has {key} but no failure_ratio, which it belongs to; give failure_ratio too, or remove it"


def _make_circuit(config: CircuitBreakerConfig, owner: str, make: Callable[..., Breaker] = Breaker) -> Circuit:
    window = config.window_secs or _DEFAULT_WINDOW
    breaker = make(
        config.failure_threshold,
        float(config.cooldown_secs),
        config.success_threshold,
        failure_ratio=config.failure_ratio,
        window=float(window),
        min_requests=config.min_requests or _DEFAULT_MIN_REQUESTS,
    )
    if config.failure_ratio is None:
        reason = f"{config.failure_threshold} in a row failed"
    else:
        reason = f"{config.failure_ratio:.0%} or more of those of the last {window} s failed"
    return Circuit(breaker, f'circuit breaker "{config.name}" of {owner}', reason)


def _whole_seconds(wait: float) -> bytes:
    return b"%d" % max(ceil(wait), 1)


@implementer(IRequestHook, IResponseHook, ICompletionHook, IStateSource)
class CircuitBreaker:
    """
    The one circuit of a service, router or entrypoint.
    """

    def __init__(self, config: CircuitBreakerConfig, surroundings: Surroundings) -> None:
        make: Callable[..., Breaker] = Breaker
        if surroundings.arena is not None:
            make = partial(SharedBreaker, arena=surroundings.arena, name=("circuit", surroundings.owner, config))
        self._circuit = _make_circuit(config, surroundings.owner, make)
        self._failures = statuses_of(config.status_codes)
        self._seconds = surroundings.seconds
        self._refused = 0

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self._circuit!r}, {self._refused} refused>"

    def on_request(self, exchange: Exchange) -> LocalResponse | None:
        """
        Refuse, unless the circuit lets the request pass.
        """
        if self in exchange.notes:
            # The entrypoint lists it too.
            return None
        now = self._seconds()
        ticket = self._circuit.admit(exchange, now)
        if ticket is not None:
            exchange.notes[self] = ticket
            return None
        self._refused += 1
        head = exchange.head
        assert head is not None
        wait = self._circuit.retry_after(now)
        return refusal(Outcome.CIRCUIT_OPEN, head.request_id, (make_field(b"Retry-After", _whole_seconds(wait)),))

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        """
        Judge a trial by the head of its answer.
        """
        trial = self._circuit.trial
        # Most common case first.
        if trial != NO_TRIAL and exchange.notes.get(self) == trial and head.status == exchange.upstream_status:
            self._judge(exchange, exchange.notes.pop(self), Outcome.COMPLETED)

    def on_complete(self, exchange: Exchange) -> None:
        """
        Judge everything else by its end.
        """
        ticket = exchange.notes.pop(self, None)
        if ticket is not None:
            assert exchange.outcome is not None
            self._judge(exchange, ticket, exchange.outcome)

    def describe(self) -> Mapping[str, str | int | float]:
        """
        Return the state, how often the circuit has opened, and how many requests were refused.
        """
        return {"circuit": self._circuit.state(self._seconds()).value, "opened": self._circuit.opened, "refused": self._refused}

    def _judge(self, exchange: Exchange, ticket: int, outcome: Outcome) -> None:
        status = exchange.upstream_status
        is_failure = has_failed(exchange, outcome, status, self._failures)
        self._circuit.report(exchange, ticket, is_failure, self._seconds(), outcome, status)


@implementer(IBackendHook, IResponseHook, IStateSource)
class BackendCircuitBreaker:
    """
    The circuits of all servers that the requests of a router or entrypoint are sent to.
    """

    refusal: Outcome = Outcome.CIRCUIT_OPEN

    def __init__(self, config: CircuitBreakerConfig, surroundings: Surroundings) -> None:
        self._config = config
        self._owner = surroundings.owner
        self._failures = statuses_of(config.status_codes)
        self._seconds: Callable[[], float] = surroundings.seconds
        # By the server itself, so that its circuit goes with it, and survives a reload as it does.
        self._circuits: WeakKeyDictionary[Backend, Circuit] = WeakKeyDictionary()
        self._all_closed = True
        self._refused = 0

    def __repr__(self) -> str:
        return f"<BackendCircuitBreaker {self._config.name} of {self._owner}, {dict(self.describe())}>"

    def may_use(self, exchange: Exchange, backend: Backend) -> bool:
        """
        Say whether the circuit of `backend` would let a request pass.
        """
        # Most common case first.
        return self._all_closed or not self._wait_for(backend)

    def on_attempt_begun(self, exchange: Exchange, backend: Backend) -> None:
        """
        Take a ticket.
        """
        circuit = self._circuits.get(backend) or self._make_circuit(backend)
        ticket = circuit.admit(exchange, self._seconds())
        if ticket is not None:
            exchange.notes[self, backend] = (circuit, ticket)

    def on_attempt_ended(self, exchange: Exchange, backend: Backend, outcome: Outcome, status: int) -> None:
        """
        Judge the attempt, unless that has been done.
        """
        if (self, backend) in exchange.notes:
            self._judge(exchange, backend, outcome, status)

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        """
        Judge a trial by the head of its answer. If there was no server left to ask, tell when there will be.
        """
        if self._all_closed:
            # Most common case first.
            return
        if head.status == exchange.upstream_status:
            backend = exchange.backend
            note = exchange.notes.get((self, backend))
            if backend is not None and note is not None and note[1] == note[0].trial:
                self._judge(exchange, backend, Outcome.COMPLETED, head.status)
        elif head.status == 503:
            wait = min(map(self._wait_for, exchange.service.usable), default=0.0)
            if wait:
                self._refused += 1
                set_field(head.fields, b"Retry-After", _whole_seconds(wait))

    def describe(self) -> Mapping[str, str | int | float]:
        """
        Return the worst state of all servers, how many are in a bad one and how often that began, and how many requests were refused.
        """
        now = self._seconds()
        # Connections may keep servers in memory, whose circuits are of no interest any more.
        circuits = [circuit for backend, circuit in self._circuits.items() if not backend.pool.is_retired]
        states = [circuit.state(now) for circuit in circuits]
        worst = next((state for state in _BADNESS if state in states), BreakerState.CLOSED)
        return {
            "circuit": worst.value,
            "open_backends": states.count(BreakerState.OPEN),
            "half_open_backends": states.count(BreakerState.HALF_OPEN),
            "opened": sum(circuit.opened for circuit in circuits),
            "refused": self._refused,
        }

    def _make_circuit(self, backend: Backend) -> Circuit:
        circuit = self._circuits[backend] = _make_circuit(self._config, f"{self._owner} for {backend.url}")
        return circuit

    def _wait_for(self, backend: Backend) -> float:
        circuit = self._circuits.get(backend)
        return 0.0 if circuit is None else circuit.retry_after(self._seconds())

    def _judge(self, exchange: Exchange, backend: Backend, outcome: Outcome, status: int) -> None:
        circuit, ticket = exchange.notes.pop((self, backend))
        now = self._seconds()
        is_failure = has_failed(exchange, outcome, status, self._failures)
        if circuit.report(exchange, ticket, is_failure, now, outcome, status):
            self._all_closed = all(each.state(now) is BreakerState.CLOSED for each in self._circuits.values())


class SharedBackendCircuitBreaker(BackendCircuitBreaker):
    """
    The same of several workers, in their `arena`: what one learns of a server all know.
    """

    def __init__(self, config: CircuitBreakerConfig, surroundings: Surroundings, arena: Arena) -> None:
        self._arena = arena
        self._name = ("circuits", surroundings.owner, config)
        self._region = arena.take(self._name, 8)
        # How many circuits are not closed: only then does anybody have to look at them.
        self._bad = self._region.view(0, 8, "q")
        super().__init__(config, surroundings)

    @property
    def _all_closed(self) -> bool:
        return bool(self._bad[0] <= 0)

    @_all_closed.setter
    def _all_closed(self, value: bool) -> None:
        """
        The circuits count themselves.
        """

    def _make_circuit(self, backend: Backend) -> Circuit:
        name = (*self._name, backend.service_name, backend.revision, backend.url)
        make = partial(SharedBreaker, arena=self._arena, name=name, changed=self._state_changed)
        circuit = self._circuits[backend] = _make_circuit(self._config, f"{self._owner} for {backend.url}", make)
        return circuit

    def _wait_for(self, backend: Backend) -> float:
        circuit = self._circuits.get(backend) or self._make_circuit(backend)
        return circuit.retry_after(self._seconds())

    def _state_changed(self, before: BreakerState, after: BreakerState) -> None:
        change = (after is not BreakerState.CLOSED) - (before is not BreakerState.CLOSED)
        if change:
            self._region.lock()
            try:
                self._bad[0] += change
            finally:
                self._region.unlock()


def _build(config: CircuitBreakerConfig, surroundings: Surroundings) -> CircuitBreaker | BackendCircuitBreaker:
    if config.scope != "backend":
        return CircuitBreaker(config, surroundings)
    if surroundings.arena is not None:
        return SharedBackendCircuitBreaker(config, surroundings, surroundings.arena)
    return BackendCircuitBreaker(config, surroundings)


factory = MiddlewareFactory(CircuitBreakerConfig, _build)
