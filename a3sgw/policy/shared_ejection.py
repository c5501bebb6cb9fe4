"""
The passive verdict of several processes: `ejection.Ejection`, as a `shared_machine`.

Failures are counted, and backends set aside, by all workers together. A backend that is well costs a worker nothing but a look at the
version. Whoever changes a verdict tells the others to look, because with it changes who may be chosen.

A worker may die with a trial under way, and nobody hears of that trial again. So a half-open backend has an `until` too while it is being
tried: if the trials have not ended by then, others may take their place.
"""

from __future__ import annotations

from collections.abc import Callable

from a3sgw.policy.arena import Arena
from a3sgw.policy.ejection import Ejection, EjectionSettings, EjectionState
from a3sgw.policy.shared_machine import Lock, SharedMachine
from a3sgw.policy.verdict import Transition

__all__ = ["SharedEjection"]


class SharedEjection(Ejection, SharedMachine):
    """
    The verdict in the region of `arena` that is called `name`. Those of one group have one `lock`, because they look at each other.

    `seconds` is the monotonic clock.
    """

    def __init__(
        self,
        settings: EjectionSettings,
        refusal: Callable[[], str],
        name: object,
        *,
        arena: Arena,
        lock: Lock,
        seconds: Callable[[], float],
    ) -> None:
        Ejection.__init__(self, settings, refusal)
        self._clock = seconds
        self._share(arena, name, lock)

    @property
    def is_in_service(self) -> bool:
        """
        Whether the backend takes its full share of requests.
        """
        self._refresh()
        return self.state is EjectionState.IN_SERVICE

    @property
    def may_choose(self) -> bool:
        """
        Whether this verdict lets the backend be chosen now.
        """
        self._refresh()
        return super().may_choose

    def begin(self) -> int:
        """
        Return the ticket of a request that is now sent to the backend.
        """
        self._refresh()
        # Most common case first.
        return self._within(self._begin_trial) if self.state is EjectionState.HALF_OPEN else self._ticket

    def _begin_trial(self) -> int:
        if self.state is EjectionState.HALF_OPEN:
            self.until = self._clock() + self.settings.base
        return Ejection.begin(self)

    def succeeded(self, ticket: int, now: float) -> Transition | None:
        """
        Count a request that went well.
        """
        self._refresh()
        if ticket != self._ticket or (self.state is EjectionState.IN_SERVICE and not self._in_a_row):
            # Most common case.
            return None
        return self._within(lambda: Ejection.succeeded(self, ticket, now))

    def failed(self, ticket: int, now: float, why: str) -> Transition | None:
        """
        Count a request that failed by the backend's fault.
        """
        return self._within(lambda: Ejection.failed(self, ticket, now, why))

    def abandoned(self, ticket: int) -> None:
        """
        Take back the ticket of a request that says nothing about the backend.
        """
        self._refresh()
        if ticket == self._ticket and self.state is EjectionState.HALF_OPEN:
            self._within(lambda: Ejection.abandoned(self, ticket))

    def wake(self, now: float) -> Transition | None:
        """
        Make the backend half-open if its time is over, or ready for other trials.
        """
        self._refresh()
        return None if self.until is None or now < self.until else self._within(lambda: self._wake(now))

    def _wake(self, now: float) -> Transition | None:
        if self.state is not EjectionState.HALF_OPEN:
            return Ejection.wake(self, now)
        if self.until is not None and now >= self.until:
            self._enter(EjectionState.HALF_OPEN)
        return None
