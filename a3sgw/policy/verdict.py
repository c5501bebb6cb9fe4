"""
Lay the verdicts on a backend side by side.

Three of them, which know nothing of each other: the active one counts probes in a row (`ProbeVerdict`), the passive one watches real
requests (`a3sgw.policy.ejection`), and the operator may wish a backend to drain. A backend is usable while none of them objects, so that
a recovery which one of them sees never hides what another sees.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from a3sgw.policy.ejection import Ejection

__all__ = ["Change", "ProbeVerdict", "Transition", "Verdicts", "counted", "is_panic", "usable_of"]

_Backend = TypeVar("_Backend")


def counted(count: int, noun: str) -> str:
    """
    Return `1 probe`, `2 probes` and so on.
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class Change(enum.Enum):
    """
    What became of a backend; the values are the words for logs.
    """

    UNHEALTHY = "unhealthy"
    HEALTHY = "healthy"
    EJECTED = "ejected"
    EJECTION_REFUSED = "ejection refused"
    HALF_OPEN = "half-open"
    RESTORED = "restored"


class Transition(NamedTuple):
    """
    One change of a verdict, with a reason for people to read.

    After `EJECTION_REFUSED` the verdict is what it was: the backend goes on serving although it fails.
    """

    change: Change
    reason: str

    def __str__(self) -> str:
        return f"{self.change.value}: {self.reason}"


class ProbeVerdict:
    """
    The active verdict: healthy until `unhealthy_threshold` probes fail in a row, and again once `healthy_threshold` succeed in a row.

    It starts healthy, so that a gateway serves before its first round of probes is over.
    """

    __slots__ = ("_against", "healthy_threshold", "is_healthy", "unhealthy_threshold")

    def __init__(self, unhealthy_threshold: int = 3, healthy_threshold: int = 1) -> None:
        if unhealthy_threshold < 1 or healthy_threshold < 1:
            raise ValueError(f"thresholds must be at least 1, not {unhealthy_threshold} and {healthy_threshold}")
        self.unhealthy_threshold = unhealthy_threshold
        self.healthy_threshold = healthy_threshold
        self.is_healthy = True
        # How many of the latest probes in a row speak against the verdict.
        self._against = 0

    def __repr__(self) -> str:
        return f"<ProbeVerdict {'healthy' if self.is_healthy else 'unhealthy'}, {self._against} against>"

    def succeeded(self) -> Transition | None:
        """
        Count a probe that was answered well.
        """
        if self.is_healthy:
            self._against = 0
            return None
        self._against += 1
        if self._against < self.healthy_threshold:
            return None
        self.is_healthy = True
        self._against = 0
        return Transition(Change.HEALTHY, f"{counted(self.healthy_threshold, 'probe')} in a row succeeded")

    def failed(self, why: str) -> Transition | None:
        """
        Count a probe that failed; `why` goes into the reason.
        """
        if not self.is_healthy:
            self._against = 0
            return None
        self._against += 1
        if self._against < self.unhealthy_threshold:
            return None
        self.is_healthy = False
        self._against = 0
        return Transition(Change.UNHEALTHY, f"{counted(self.unhealthy_threshold, 'probe')} in a row failed, at last: {why}")


class Verdicts:
    """
    All that is thought of one backend. `is_draining` is set by whoever wants it to get no new requests, `reason` by whoever follows the
    changes: why the last one came about.
    """

    __slots__ = ("ejection", "is_draining", "probe", "reason")

    def __init__(self, probe: ProbeVerdict | None = None, ejection: Ejection | None = None) -> None:
        self.probe = probe
        self.ejection = ejection
        self.is_draining = False
        self.reason = ""

    def __repr__(self) -> str:
        return f"<Verdicts {self.words}>"

    @property
    def is_sound(self) -> bool:
        """
        Whether the backend takes its full share of requests.
        """
        return self._is_wanted and (self.ejection is None or self.ejection.is_in_service)

    @property
    def is_usable(self) -> bool:
        """
        Whether the next request may go to the backend: it is sound, or half-open with a trial to spare.
        """
        return self._is_wanted and (self.ejection is None or self.ejection.may_choose)

    @property
    def may_continue(self) -> bool:
        """
        Whether the backend could serve if it were not draining: those who are bound to it stay.
        """
        return (self.probe is None or self.probe.is_healthy) and (self.ejection is None or self.ejection.may_choose)

    @property
    def _is_wanted(self) -> bool:
        return not self.is_draining and (self.probe is None or self.probe.is_healthy)

    @property
    def words(self) -> str:
        """
        Every objection to the backend, for dashboards and logs; `usable` if there is none.
        """
        found = []
        if self.is_draining:
            found.append("draining")
        if self.probe is not None and not self.probe.is_healthy:
            found.append("unhealthy")
        if self.ejection is not None and not self.ejection.is_in_service:
            found.append(self.ejection.state.value)
        return ", ".join(found) or "usable"


def is_panic(sound: int, total: int, panic_threshold: float) -> bool:
    """
    Tell whether so few of `total` backends are sound that the verdicts are to be disregarded: less than `panic_threshold` percent.

    0 never panics. That is the default here, where Envoy's is 50: in a panic requests also go to backends that are known to be dead, and
    neither the failover nor the waiting room of a service ever gets its turn.
    """
    return sound * 100 < panic_threshold * total


def usable_of(backends: Mapping[_Backend, Verdicts], panic_threshold: float = 0.0) -> list[_Backend]:
    """
    Return the backends that the next request may go to, in the order given: the usable ones, or in a panic all but the draining ones.
    """
    kept = {backend: verdicts for backend, verdicts in backends.items() if not verdicts.is_draining}
    sound = sum(verdicts.is_sound for verdicts in kept.values())
    if is_panic(sound, len(kept), panic_threshold):
        return list(kept)
    return [backend for backend, verdicts in kept.items() if verdicts.is_usable]
