"""
Stop asking what keeps failing, and find out with a few requests when it works again.

    state        requests are             becomes
    closed       admitted                 open, when too many have failed
    open         refused                  half-open, `cooldown` seconds later
    half-open    admitted as probes,      closed, after `success_threshold` successes;
                 few at a time            open, after one failure

Every admitted request holds a ticket of the turn in which it was admitted; a turn ends with each change of state. To tickets of an earlier
turn nobody listens: a slow failure from before the circuit opened must not open it once more, nor a slow success close it.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import Final

from a3sgw.policy.window import SlidingCount

__all__ = ["Breaker", "BreakerState"]

_SOON: Final = 1.0
_ROUNDING: Final = 1e-9


class BreakerState(enum.Enum):
    """
    Where a circuit breaker stands.
    """

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


_STATES: Final = (BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN)


class _FailureRatio:
    """
    Whether of what ended lately too large a part has failed.
    """

    __slots__ = ("_ended", "_failed", "min_requests", "ratio")

    def __init__(self, ratio: float, window: float, min_requests: int) -> None:
        if not 0 < ratio <= 1:
            raise ValueError(f"a failure ratio of {ratio}; give a number above 0, and 1 at most")
        if min_requests < 1:
            raise ValueError(f"a ratio of at least {min_requests} requests; give at least 1")
        self.ratio = ratio
        self.min_requests = min_requests
        self._ended = SlidingCount(window)
        self._failed = SlidingCount(window)

    def is_reached(self, is_failure: bool, now: float) -> bool:
        """
        Count a request that has ended, and tell whether the ratio is now reached.
        """
        ended = self._ended.add(now)
        failed = self._failed.add(now) if is_failure else self._failed.total(now)
        return ended >= self.min_requests and failed + _ROUNDING >= self.ratio * ended

    def clear(self) -> None:
        """
        Forget all that ended.
        """
        self._ended.clear()
        self._failed.clear()

    def remembered(self) -> list[float]:
        """
        Return all that it remembers.
        """
        return [*self._ended.remembered(), *self._failed.remembered()]

    def remember(self, numbers: Sequence[float]) -> None:
        """
        Go on from what another remembered.
        """
        half = len(numbers) // 2
        self._ended.remember(numbers[:half])
        self._failed.remember(numbers[half:])


class Breaker:
    """
    The circuit breaker of one service.

    What opens it: `failure_threshold` failures in a row, between which any success begins the count anew. Or, if `failure_ratio` is given,
    that alone: of what ended within the last `window` seconds (or up to a tenth more), `min_requests` or more, at least this part failed.
    Their defaults are those of Hystrix.

    A ticket from `admit` is handed back exactly once, with `report` as soon as it is known how the request went, or with `withdraw` if that
    will never be known. A probe that does neither holds its place for ever. Tickets are plain numbers, so that a request costs the
    closed circuit next to nothing.

    `epoch` grows with every change of state, by which a caller knows that there is one to tell about. All times are in seconds.
    """

    __slots__ = (
        "_failures",
        "_open_until",
        "_probing",
        "_ratio",
        "_state",
        "_successes",
        "cooldown",
        "epoch",
        "failure_threshold",
        "is_own",
        "success_threshold",
    )

    def __init__(
        self,
        failure_threshold: int,
        cooldown: float,
        success_threshold: int = 1,
        *,
        failure_ratio: float | None = None,
        window: float = 10.0,
        min_requests: int = 20,
    ) -> None:
        if failure_threshold < 1 or success_threshold < 1:
            raise ValueError(f"thresholds of {failure_threshold} failures and {success_threshold} successes; give at least 1 for each")
        if not (cooldown > 0 and math.isfinite(cooldown)):
            raise ValueError(f"a cooldown of {cooldown} seconds; give a time above 0")
        self.failure_threshold = failure_threshold
        self.cooldown = cooldown
        self.success_threshold = success_threshold
        self.epoch = 0
        # Whether the last change was made by this object, and not by another that shares its memory.
        self.is_own = True
        self._ratio = None if failure_ratio is None else _FailureRatio(failure_ratio, window, min_requests)
        self._state = BreakerState.CLOSED
        self._failures = 0
        self._open_until = 0.0
        self._probing = 0
        self._successes = 0

    def __repr__(self) -> str:
        if self._state is BreakerState.HALF_OPEN:
            counts = f", {self._probing} probing, {self._successes} of {self.success_threshold} successes"
        elif self._state is BreakerState.CLOSED and self._ratio is None:
            counts = f", {self._failures} of {self.failure_threshold} failures"
        else:
            counts = ""
        return f"<Breaker {self._state.value}{counts}>"

    def state(self, now: float) -> BreakerState:
        """
        Return the state. This and `admit` are where an open circuit whose time is over becomes half-open.
        """
        if self._state is BreakerState.OPEN and now >= self._open_until:
            self._enter(BreakerState.HALF_OPEN)
        return self._state

    def admit(self, now: float) -> int | None:
        """
        Return the ticket of a request that may be sent, or `None` to refuse it.
        """
        # Most common case first.
        if self._state is BreakerState.CLOSED:
            return self.epoch
        if self.state(now) is BreakerState.OPEN or self._probing >= self.success_threshold:
            return None
        self._probing += 1
        return self.epoch

    def report(self, ticket: int, is_failure: bool, now: float) -> bool:
        """
        Take back the ticket of a request that has ended well or badly, and tell whether that changed the state.
        """
        if ticket != self.epoch:
            return False
        if self._state is BreakerState.CLOSED:
            if self._is_too_much(is_failure, now):
                self._open(now)
        else:
            self._probe_ended(is_failure, now)
        return ticket != self.epoch

    def withdraw(self, ticket: int) -> None:
        """
        Take back the ticket of a request that says nothing, because the client left or no attempt was made.
        """
        if ticket == self.epoch and self._state is BreakerState.HALF_OPEN:
            self._probing -= 1

    def retry_after(self, now: float) -> float:
        """
        Return the seconds for which there is no point in coming again, 0.0 if one would be admitted.

        While probes are under way nobody knows; it is then one second.
        """
        state = self.state(now)
        if state is BreakerState.OPEN:
            return self._open_until - now
        return _SOON if state is BreakerState.HALF_OPEN and self._probing >= self.success_threshold else 0.0

    def remembered(self) -> list[float]:
        """
        Return all that it remembers, as so many numbers every time, for `remember`. All zeros is one that remembers nothing.
        """
        ratio = [] if self._ratio is None else self._ratio.remembered()
        state = _STATES.index(self._state)
        return [state, self._failures, self._open_until, self._probing, self._successes, self.epoch, *ratio]

    def remember(self, numbers: Sequence[float]) -> None:
        """
        Go on from what another remembered that was made like this one.
        """
        state, failures, self._open_until, probing, successes, epoch, *ratio = numbers
        self._state = _STATES[int(state)]
        self._failures, self._probing, self._successes, self.epoch = int(failures), int(probing), int(successes), int(epoch)
        if self._ratio is not None:
            self._ratio.remember(ratio)

    def _is_too_much(self, is_failure: bool, now: float) -> bool:
        if self._ratio is not None:
            return self._ratio.is_reached(is_failure, now)
        self._failures = self._failures + 1 if is_failure else 0
        return self._failures >= self.failure_threshold

    def _probe_ended(self, is_failure: bool, now: float) -> None:
        self._probing -= 1
        if is_failure:
            self._open(now)
            return
        self._successes += 1
        if self._successes >= self.success_threshold:
            self._enter(BreakerState.CLOSED)

    def _open(self, now: float) -> None:
        self._enter(BreakerState.OPEN)
        self._open_until = now + self.cooldown

    def _enter(self, state: BreakerState) -> None:
        self._state = state
        self.epoch += 1
        self._failures = self._probing = self._successes = 0
        if self._ratio is not None:
            self._ratio.clear()
