"""
`retry`: try again, on another server if there is one, when a server fails.

Which server is next, and whether the request is still whole, is the exchange's matter; here it is decided whether another attempt helps and
may be made. The budget is what keeps retries from feeding an outage; see `a3sgw.policy.budget`.

Costs under CPython 3.11: 0.2 µs for a request that goes well.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Final

import attrs
from zope.interface import implementer

from a3sgw.config.kinds import FLAG, Integer, Number
from a3sgw.config.setting import label, setting
from a3sgw.errors import Outcome
from a3sgw.interfaces import IAttemptHook, IRequestHook, IStateSource
from a3sgw.message import IDEMPOTENT
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.statuses import statuses_of, statuses_setting
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.policy.backoff import Backoff
from a3sgw.policy.budget import RetryBudget

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["Retry", "RetryConfig", "factory"]

_DEFAULT_GROWTH: Final = 10
_JITTER: Final = 0.5
_MOST_RETRIES: Final = 100
_LONGEST_MS: Final = 3_600_000
# With so much of a budget even the most retries fit.
_BOUNDLESS_PERCENT: Final = 100.0 * _MOST_RETRIES


@attrs.frozen(kw_only=True)
class RetryConfig:
    """
    Try again, on another server if there is one, when a server fails.

    A request of which nothing has reached a server is tried again whatever it is. One that a server may have seen is repeated only if its
    method says that this does no harm (GET, HEAD, OPTIONS, TRACE, PUT, DELETE): after one of `status_codes`, and when the connection is
    lost, or the answer does not come in time or makes no sense. Nothing is repeated once a byte of an answer has been sent to the client,
    nor if the request's body is larger than the service's `max_replay_bytes`. A `Retry-After` in the answer is not waited for.

    Pauses double from `retry_interval_ms` to `max_interval_ms`, and up to a half of each is left to chance, so that those who failed
    together do not come back together. After a server that cannot be connected to there is no pause: the others are tried at once, as they
    are without this middleware, and count as attempts.

    When everything fails, repeating everything makes it worse. Therefore retries have a budget: of the requests of the last 10 seconds
    `budget_percent` may be repeated, and `budget_min_per_sec` a second besides. Beyond that a failure is passed on to the client at once.
    """

    type: ClassVar[str] = "retry"
    example: ClassVar[str] = """
        middlewares "again" {
          type               = "retry"
          max_retries        = 2
          retry_interval_ms  = 50
          per_try_timeout_ms = 3000
          status_codes       = [502, 503, 504]
        }
        """

    name: str = label()
    max_retries: int = setting(Integer(minimum=1, maximum=_MOST_RETRIES), "How many more attempts.", default=3)
    retry_interval_ms: int = setting(Integer(maximum=_LONGEST_MS, unit="milliseconds"), "The first pause.", default=100)
    max_interval_ms: int | None = setting(
        Integer(maximum=_LONGEST_MS, unit="milliseconds"),
        f"The longest pause; without it, {_DEFAULT_GROWTH} times the first.",
        default=None,
    )
    per_try_timeout_ms: int | None = setting(
        Integer(minimum=1, maximum=_LONGEST_MS, unit="milliseconds"),
        "How long each attempt may take until its answer begins, if that is shorter than the service's `timeouts.response_header`. It is "
        "looked at twice a second, so it may strike half a second late.",
        default=None,
    )
    status_codes: tuple[str, ...] = statuses_setting("The answers after which a request is tried again.", ("502", "503", "504"))
    retry_non_idempotent: bool = setting(
        FLAG, "Repeat every method, also POST and PATCH. A server may then do twice what was asked for once.", default=False
    )
    budget_percent: float = setting(
        Number(maximum=_BOUNDLESS_PERCENT),
        "How many of a hundred requests may be repeated. To have no such bound, set it to 100 times `max_retries`.",
        default=20.0,
    )
    budget_min_per_sec: float = setting(
        Number(maximum=1_000_000.0), "How many may be repeated each second besides, however few requests there are.", default=10.0
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Give what is wrong, by attribute.
        """
        if self.max_interval_ms is not None and self.max_interval_ms < self.retry_interval_ms:
            text = f"has a max_interval_ms of {self.max_interval_ms}, which is shorter than its retry_interval_ms, {self.retry_interval_ms}"
            yield "max_interval_ms", text
        if not self.budget_percent and not self.budget_min_per_sec:
            yield "budget_percent", "has a budget that allows no retry at all; raise budget_percent or budget_min_per_sec"


@implementer(IRequestHook, IAttemptHook, IStateSource)
class Retry:
    """
    The retries of one router or entrypoint.
    """

    def __init__(self, config: RetryConfig, surroundings: Surroundings) -> None:
        self._max_retries = config.max_retries
        longest = _DEFAULT_GROWTH * config.retry_interval_ms if config.max_interval_ms is None else config.max_interval_ms
        self._backoff = Backoff(config.retry_interval_ms / 1000, longest / 1000, jitter=_JITTER)
        self._per_try_timeout = float("inf") if config.per_try_timeout_ms is None else config.per_try_timeout_ms / 1000
        self._statuses = statuses_of(config.status_codes)
        self._repeats_all = config.retry_non_idempotent
        self._budget = RetryBudget(config.budget_percent, config.budget_min_per_sec)
        self._seconds = surroundings.seconds
        self._chance = surroundings.chance
        self._retries = 0
        self._refused = 0

    def __repr__(self) -> str:
        return f"<Retry up to {self._max_retries} times, {self._budget!r}, {self._refused} refused>"

    def on_request(self, exchange: Exchange) -> None:
        """
        Count the request, and bound the time of its attempts.
        """
        if self._per_try_timeout < exchange.response_header_timeout:
            exchange.response_header_timeout = self._per_try_timeout
        self._budget.request(self._seconds())

    def on_attempt_failed(self, exchange: Exchange, outcome: Outcome, status: int) -> float | None:
        """
        Return the pause before another attempt, if it helps, may be made, and is paid for.
        """
        if not (status in self._statuses if status else outcome.retryable):
            return None
        head = exchange.head
        assert head is not None
        if outcome.was_sent and head.method not in IDEMPOTENT and not self._repeats_all:
            return None
        # What became of a kept connection says nothing about the server, and is not counted.
        if exchange.attempts - exchange.stale_retried > self._max_retries:
            return None
        if not self._budget.try_spend(self._seconds()):
            self._refused += 1
            return None
        self._retries += 1
        retry = exchange.notes[self] = exchange.notes.get(self, 0) + 1
        return self._backoff.delay(retry, self._chance)

    def describe(self) -> Mapping[str, str | int | float]:
        """
        Return how many retries there were, and how many more there would have been but for the budget.
        """
        return {"retries": self._retries, "refused_by_budget": self._refused}


factory = MiddlewareFactory(RetryConfig, Retry)
