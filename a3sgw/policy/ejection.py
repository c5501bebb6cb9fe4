"""
Set backends aside for a while when real requests to them fail.

The passive verdict needs its own way back: a backend that is set aside gets no requests, so none can speak for it. After its time it is
therefore half-open, and a few trial requests decide. And it needs a bound: when everything fails, the fault is rarely in the backends,
and taking them all out would make it certain.

The rules follow Envoy's outlier detection: ejections that grow longer, and `max_ejection_percent`.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import attrs

from a3sgw.policy.verdict import Change, ProbeVerdict, Transition, Verdicts, counted

__all__ = ["Ejection", "EjectionGroup", "EjectionSettings", "EjectionState"]


class EjectionState(enum.Enum):
    """
    Where a backend stands in the passive verdict.
    """

    IN_SERVICE = "in service"
    EJECTED = "ejected"
    HALF_OPEN = "half-open"


_STATES: Final = (EjectionState.IN_SERVICE, EjectionState.EJECTED, EjectionState.HALF_OPEN)


@attrs.frozen(slots=True)
class EjectionSettings:
    """
    When passive judgement strikes, and for how long. Times in seconds.

    `consecutive_errors` failures in a row eject, however far apart, and so do `error_threshold` failures within `window`; 0 switches
    either off. The first ejection lasts `base`, each further one twice as long as the one before, but never longer than `maximum` (or
    `base`, if that is more). `trials` is how many requests at a time may try a backend that comes back.
    """

    consecutive_errors: int = 5
    error_threshold: int = 5
    window: float = 30.0
    base: float = 30.0
    maximum: float = 300.0
    trials: int = 1

    def __attrs_post_init__(self) -> None:
        if self.consecutive_errors < 0 or self.error_threshold < 0 or self.trials < 1 or self.window <= 0 or self.base <= 0:
            raise ValueError(f"{self} makes no sense; times and trials must be positive and counts not negative")


class _RecentFailures:
    """
    How many failures there were in the last `window` seconds.

    Failures less than a 64th of the window apart share one entry, under the time of the first, so that memory is bounded however many
    there are. The price: some are forgotten by at most that much too early.
    """

    __slots__ = ("_entries", "_total", "_window")

    _PARTS: Final = 64

    def __init__(self, window: float) -> None:
        self._window = window
        # Pairs of a time and a count.
        self._entries: deque[tuple[float, int]] = deque()
        self._total = 0

    def add(self, now: float) -> int:
        """
        Count one more failure and return how many there are.
        """
        entries = self._entries
        while entries and now - entries[0][0] > self._window:
            self._total -= entries.popleft()[1]
        if entries and (now - entries[-1][0]) * self._PARTS < self._window:
            first, count = entries[-1]
            entries[-1] = (first, count + 1)
        else:
            entries.append((now, 1))
        self._total += 1
        return self._total

    def clear(self) -> None:
        """
        Forget them all.
        """
        self._entries.clear()
        self._total = 0

    def remembered(self) -> list[float]:
        """
        Return all that it remembers, as so many numbers every time, for `remember`.
        """
        flat = [number for entry in self._entries for number in entry]
        return [self._total, len(flat), *flat, *[0.0] * (2 * self._PARTS + 4 - len(flat))]

    def remember(self, numbers: Sequence[float]) -> None:
        """
        Go on from what another remembered.
        """
        total, size, *flat = numbers
        self._total = int(total)
        self._entries = deque((flat[at], int(flat[at + 1])) for at in range(0, int(size), 2))


def _nobody_objects() -> str:
    return ""


class Ejection:
    """
    The passive verdict on one backend.

    Every request gets a ticket from `begin` when it is sent to the backend and hands it back exactly once: with `succeeded` or `failed`
    as soon as it is known which (a stream succeeds with its head), else with `abandoned`. A ticket of an earlier state says nothing about
    the present one and is ignored, so answers that come late neither eject twice nor restore. That includes requests sent to an ejected
    backend, as they are in a panic.

    In service, failures are counted. Too many eject, unless `refusal` returns a reason not to, which is then reported, but not more often
    than every `base` seconds. Once `until` has passed, `wake` makes the backend half-open: it may be chosen for a few trial requests, of
    which the first success restores it and a failure ejects it again, at once and for longer. A half-open backend that is never chosen
    stays half-open. Ejections are forgotten step by step: each time the backend has served for as long as the last one it still bears
    lasted, the next one is one step shorter.
    """

    __slots__ = (
        "_failures",
        "_in_a_row",
        "_level",
        "_on_trial",
        "_refusal",
        "_since",
        "_ticket",
        "_told_until",
        "settings",
        "state",
        "until",
    )

    def __init__(self, settings: EjectionSettings, refusal: Callable[[], str] = _nobody_objects) -> None:
        self.settings = settings
        self.state = EjectionState.IN_SERVICE
        self.until: float | None = None
        self._refusal = refusal
        self._ticket = 0
        self._in_a_row = 0
        self._failures = _RecentFailures(settings.window)
        self._level = 0
        self._since = 0.0
        self._on_trial = 0
        self._told_until = float("-inf")

    def __repr__(self) -> str:
        return f"<Ejection {self.state.value}, level {self._level}, {self._in_a_row} failures in a row>"

    @property
    def is_in_service(self) -> bool:
        """
        Whether the backend takes its full share of requests.
        """
        return self.state is EjectionState.IN_SERVICE

    @property
    def may_choose(self) -> bool:
        """
        Whether this verdict lets the backend be chosen now: it is in service, or half-open with a trial to spare.
        """
        state = self.state
        if state is EjectionState.IN_SERVICE:
            return True
        return state is EjectionState.HALF_OPEN and self._on_trial < self.settings.trials

    def begin(self) -> int:
        """
        Return the ticket of a request that is now sent to the backend; if it is half-open, the request takes a trial.
        """
        if self.state is EjectionState.HALF_OPEN:
            self._on_trial += 1
        return self._ticket

    def succeeded(self, ticket: int, now: float) -> Transition | None:
        """
        Count a request that went well.
        """
        if ticket != self._ticket or self.state is EjectionState.EJECTED:
            return None
        self._in_a_row = 0
        if self.state is EjectionState.IN_SERVICE:
            return None
        self._since = now
        self._enter(EjectionState.IN_SERVICE)
        return Transition(Change.RESTORED, "a trial request succeeded")

    def failed(self, ticket: int, now: float, why: str) -> Transition | None:
        """
        Count a request that failed by the backend's fault; `why` goes into the reason.
        """
        if ticket != self._ticket or self.state is EjectionState.EJECTED:
            return None
        if self.state is EjectionState.HALF_OPEN:
            # It already counts as ejected, so the group has nothing to decide.
            return self._eject(now, f"a trial request failed: {why}")
        settings = self.settings
        self._in_a_row += 1
        recent = self._failures.add(now)
        if settings.consecutive_errors and self._in_a_row >= settings.consecutive_errors:
            reason = f"{counted(self._in_a_row, 'request')} in a row failed, at last: {why}"
        elif settings.error_threshold and recent >= settings.error_threshold:
            reason = f"{counted(recent, 'request')} failed within {settings.window:g} s, at last: {why}"
        else:
            return None
        # Counted anew after a refusal too, so that the group is not asked again with every failure.
        self._in_a_row = 0
        self._failures.clear()
        refusal = self._refusal()
        if refusal:
            return self._refused(now, f"{reason}; not ejected, because {refusal}")
        self._forgive(now)
        return self._eject(now, reason)

    def abandoned(self, ticket: int) -> None:
        """
        Take back the ticket of a request that says nothing about the backend, because the client left or no attempt was made.
        """
        if ticket == self._ticket and self.state is EjectionState.HALF_OPEN:
            self._on_trial -= 1

    def wake(self, now: float) -> Transition | None:
        """
        Make the backend half-open if its time is over; to be called at `until`.
        """
        if self.until is None or now < self.until:
            return None
        self._enter(EjectionState.HALF_OPEN)
        return Transition(Change.HALF_OPEN, "the time of its ejection is over")

    def remembered(self) -> list[float]:
        """
        Return all that it remembers, as so many numbers every time, for `remember`. All zeros is one that remembers nothing.
        """
        until = 0.0 if self.until is None else self.until
        told_until = max(self._told_until, 0.0)
        state = _STATES.index(self.state)
        counts = [self._ticket, self._in_a_row, self._level, self._since, self._on_trial, told_until]
        return [state, until, *counts, *self._failures.remembered()]

    def remember(self, numbers: Sequence[float]) -> None:
        """
        Go on from what another remembered.
        """
        state, until, ticket, in_a_row, level, self._since, on_trial, told_until, *failures = numbers
        self.state = _STATES[int(state)]
        self.until = until or None
        self._ticket, self._in_a_row, self._level, self._on_trial = int(ticket), int(in_a_row), int(level), int(on_trial)
        self._told_until = told_until or float("-inf")
        self._failures.remember(failures)

    def _refused(self, now: float, reason: str) -> Transition | None:
        if now < self._told_until:
            return None
        self._told_until = now + self.settings.base
        return Transition(Change.EJECTION_REFUSED, reason)

    def _eject(self, now: float, reason: str) -> Transition:
        seconds = self._seconds(self._level)
        if seconds < self.settings.maximum:
            self._level += 1
        self._enter(EjectionState.EJECTED)
        self.until = now + seconds
        return Transition(Change.EJECTED, f"for {seconds:g} s: {reason}")

    def _enter(self, state: EjectionState) -> None:
        self.state = state
        self.until = None
        self._ticket += 1
        self._on_trial = 0

    def _seconds(self, level: int) -> float:
        settings = self.settings
        return max(settings.base, min(settings.maximum, settings.base * 2.0**level))

    def _forgive(self, now: float) -> None:
        while self._level and now - self._since >= self._seconds(self._level - 1):
            self._level -= 1
            self._since += self._seconds(self._level)


def _make_ejection(settings: EjectionSettings, refusal: Callable[[], str], name: object) -> Ejection:
    return Ejection(settings, refusal)


class EjectionGroup:
    """
    The passive verdicts on all backends of a service.

    At most `max_ejection_percent` of the backends are out at a time, rounded down but at least one, and never the last sound one: a
    service with a single backend never loses it to passive judgement. At 0 nothing is ejected and all that would be is reported. Half-open
    backends count as ejected, draining ones do not count at all. `make` makes the verdict on a backend.
    """

    __slots__ = ("_members", "make", "max_ejection_percent", "settings")

    def __init__(
        self,
        settings: EjectionSettings,
        *,
        max_ejection_percent: int = 50,
        make: Callable[[EjectionSettings, Callable[[], str], object], Ejection] = _make_ejection,
    ) -> None:
        if not 0 <= max_ejection_percent <= 100:
            raise ValueError(f"max_ejection_percent must be from 0 to 100, not {max_ejection_percent}")
        self.settings = settings
        self.max_ejection_percent = max_ejection_percent
        self.make = make
        self._members: list[Verdicts] = []

    def __repr__(self) -> str:
        return f"<EjectionGroup {self._members}>"

    def add(self, probe: ProbeVerdict | None = None, name: object = None) -> Verdicts:
        """
        Return the verdicts on a new backend, which begins in service, or as others know it by its `name`.
        """
        verdicts = Verdicts(probe)
        verdicts.ejection = self.make(self.settings, partial(self._refusal, verdicts), name)
        self._members.append(verdicts)
        return verdicts

    def remove(self, verdicts: Verdicts) -> None:
        """
        Forget a backend that the service no longer has.
        """
        self._members.remove(verdicts)

    def _refusal(self, candidate: Verdicts) -> str:
        percent = self.max_ejection_percent
        if not percent:
            return "max_ejection_percent is 0"
        members = [member for member in self._members if not member.is_draining]
        ejected = sum(member.ejection is not None and not member.ejection.is_in_service for member in members)
        if ejected >= max(1, len(members) * percent // 100):
            return f"{ejected} of {counted(len(members), 'backend')} ejected already and max_ejection_percent is {percent}"
        if not any(member.is_sound for member in members if member is not candidate):
            return "no other backend is sound"
        return ""
