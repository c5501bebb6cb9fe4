"""
The server that is likely to answer soonest.

What a server costs is how long its answers have taken lately, times the exchanges that would share it. "Lately" is Finagle's peak EWMA: a
slower answer counts at once, faster ones by and by, and an estimate that nobody renews fades, so that a server is tried again some time
after it was slow. As all estimates fade alike, their order does not change by itself: the logarithm of the cost now is a sum of what was
learnt, of the load, and of the time, which is the same for all and left out. So costs can be kept in an index.

A server of which nothing is known is tried with one exchange at once, and until that is answered it gets another only when nobody is known.
Exchanges that it had when it became unknown do not count as tries: they may be streams that last for days.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from math import exp, log
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from zope.interface import implementer

from a3sgw.interfaces import IBalancer
from a3sgw.service.backend import Backend
from a3sgw.service.least import Field, Scan, make_field
from a3sgw.service.roster import BalancerSettings, Clockwork, Roster, Standing, Turn

if TYPE_CHECKING:
    from a3sgw.observe.record import Record

__all__ = ["Latency", "LeastTime"]

_FADING: Final = 10.0
"""After so many seconds without an answer an estimate has fallen to 1/e; at that pace newer answers outweigh older ones, too."""

_SHORTEST: Final = 0.0001
"""Seconds; differences below this are noise, and zero has no logarithm."""

_FAILURE: Final = 1.0
_LONGEST: Final = 60.0
"""Seconds. A failure counts as a slow answer, of a second at least and twice what was expected, or to refuse at once would be the best."""

_FORGOTTEN_AFTER: Final = 60.0
"""Seconds. Whoever comes back after that long is unknown; what has faded for so long would win whatever the load."""

_UNKNOWN: Final = 1e9
"""Beyond the logarithm of any cost."""


class Latency:
    """
    How long a backend takes to answer.

    `level` is the logarithm of the estimate in seconds plus the time at which it was made in units of fading, or `None` if nothing is
    known; `stamp` is that time. `others` is how many exchanges were in flight when it became unknown.
    """

    __slots__ = ("level", "others", "stamp")

    def __init__(self, others: int) -> None:
        self.level: float | None = None
        self.stamp = 0.0
        self.others = others

    def estimate(self, now: float) -> float:
        """
        Return the estimate in seconds as it is `now`, or 0.0 if nothing is known.
        """
        return 0.0 if self.level is None else exp(self.level - now / _FADING)

    def answered(self, seconds: float, now: float) -> None:
        """
        Take an answer after `seconds` into account.
        """
        faded = self.estimate(now)
        if seconds < faded:
            seconds = faded + seconds * (1.0 - exp((self.stamp - now) / _FADING))
        self.level = log(max(seconds, _SHORTEST)) + now / _FADING
        self.stamp = now

    def failed(self, seconds: float, now: float) -> None:
        """
        Take a failure after `seconds` into account.
        """
        self.answered(max(seconds, _FAILURE, min(2.0 * self.estimate(now), _LONGEST)), now)

    def forget(self, others: int, now: float) -> None:
        """
        Know nothing if what is known is old. `others` is how many exchanges are in flight.
        """
        if self.level is not None and now - self.stamp > _FORGOTTEN_AFTER:
            self.level = None
            self.others = others


# What is known of a backend is worth keeping for as long as the backend, whichever balancer comes after a reload.
_LATENCIES: MutableMapping[Backend, Latency] = WeakKeyDictionary()


class _Timed:
    """
    A backend whose load is the logarithm of its cost, but for the time.
    """

    __slots__ = ("_latency", "_weight", "backend")

    def __init__(self, backend: Backend, latency: Latency, weight: float) -> None:
        self.backend = backend
        self._latency = latency
        self._weight = weight

    def load(self, more: int) -> float:
        latency = self._latency
        level = latency.level
        if level is not None:
            return level + log((self.backend.in_flight + more) / self._weight)
        tries = self.backend.in_flight + more - 1 - latency.others
        return _UNKNOWN + log(tries / self._weight) if tries > 0 else -_UNKNOWN


@implementer(IBalancer)
class LeastTime:
    """
    Least time to answer, in proportion to weights; it has to be told of attempts.
    """

    __slots__ = ("_latencies", "_standing", "_turn")

    def __init__(self, backends: Sequence[Backend], settings: BalancerSettings, clockwork: Clockwork) -> None:
        self._turn = Turn(backends)
        self._latencies = {backend: _LATENCIES.setdefault(backend, Latency(backend.in_flight)) for backend in backends}
        self._standing: Standing[Field] = Standing(self._build, settings.slow_start, clockwork.seconds, self._build_once)

    def choose(self, candidates: Sequence[Backend], record: Record) -> Backend | None:
        """
        Return the candidate that costs least.
        """
        return self._standing.get(candidates).choose()

    def attempt_ended(self, backend: Any, seconds: float, is_failure: bool, now: float) -> None:
        """
        Learn from an attempt that was answered, or failed, after `seconds`.
        """
        latency = self._latencies[backend]
        if is_failure:
            latency.failed(seconds, now)
        else:
            latency.answered(seconds, now)
        backend.load_changed()

    def _build(self, roster: Roster) -> Field:
        for backend in roster.members:
            self._latencies[backend].forget(backend.in_flight, roster.now)
        return make_field(self._contenders(roster), self._turn)

    def _build_once(self, roster: Roster) -> Field:
        return Scan(self._contenders(roster), self._turn)

    def _contenders(self, roster: Roster) -> list[_Timed]:
        latencies = self._latencies
        return [_Timed(backend, latencies[backend], weight) for backend, weight in zip(roster.members, roster.weights, strict=True)]
