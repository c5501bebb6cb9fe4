"""
Where exchanges wait for a server that has room for them.

A service that limits how many requests each server serves at a time, or lets requests wait while no server can be used, has a waiting room.
Each exchange needs a place before a server is chosen and gives it back when it ends, so nobody overtakes anybody, and each place that
comes free wakes exactly one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from a3sgw.errors import Outcome
from a3sgw.policy.shared_slots import POLL_SECONDS, Counter, SharedSlots
from a3sgw.policy.slots import Admission, Slots

__all__ = ["Guest", "WaitingRoom"]


class Guest(Protocol):
    """
    An exchange, as a waiting room sees it.
    """

    service: Any

    def __hash__(self) -> int: ...

    def place_given(self) -> None:
        """
        A place is there; it must be given back exactly once.
        """

    def waited_in_vain(self, outcome: Outcome) -> None:
        """
        There will be none.
        """


class WaitingRoom:
    """
    The places of one service. It outlives reloads that change other things about the service.

    `seconds` is the clock, `later` begins a timed call as `callLater` of a reactor does. `per_backend` is how many requests one server
    serves at a time, 0 for any number. Where there are several workers, `counters`
    count places and those who wait for all of them.
    """

    __slots__ = ("_later", "_poll", "_seconds", "_slots", "_timer", "per_backend")

    MANY = 1 << 40
    """The limit where there is none."""

    def __init__(
        self,
        per_backend: int,
        max_waiting: int,
        patience: float,
        seconds: Callable[[], float],
        later: Callable[..., Any],
        counters: tuple[Counter, Counter] | None = None,
    ) -> None:
        self.per_backend = per_backend
        self._slots: Slots[Guest]
        if counters is None:
            self._slots = Slots(0, max_waiting=max_waiting, patience=patience)
        else:
            self._slots = SharedSlots(0, *counters, max_waiting=max_waiting, patience=patience)
        self._poll: Any = None
        self._seconds = seconds
        self._later = later
        self._timer: Any = None

    def __repr__(self) -> str:
        return f"<WaitingRoom {self._slots!r}>"

    @property
    def waiting(self) -> int:
        """
        How many wait.
        """
        return self._slots.waiting

    @property
    def in_use(self) -> int:
        """
        How many have a place.
        """
        return self._slots.in_use

    @property
    def has_place(self) -> bool:
        """
        Whether `enter` would give a place now.
        """
        return self._slots.in_use < self._slots.limit

    def enter(self, guest: Guest) -> Admission:
        """
        Give `guest` a place, or let it wait, or neither.
        """
        admission = self._slots.acquire(guest, self._seconds())
        if admission is Admission.QUEUED:
            if self._timer is None:
                self._set_timer()
            self._look_later()
        return admission

    def leave(self, guest: Guest) -> None:
        """
        Take a guest that waits off the list.
        """
        self._slots.leave(guest)

    def give_back(self) -> None:
        """
        Take a place back and give it to the next who waits.
        """
        guest = self._slots.release()
        if guest is not None:
            guest.place_given()

    def fit(self, usable: int) -> None:
        """
        Have as many places as `usable` servers have room for.
        """
        limit = usable * self.per_backend if self.per_backend else (self.MANY if usable else 0)
        for guest in self._slots.resize(limit):
            guest.place_given()

    def hand_over(self, service: Any) -> None:
        """
        Let everybody who waits be served by `service`, which a reload has put in the place of the one they came for.
        """
        for guest in self._slots.tokens():
            guest.service = service

    def close(self) -> None:
        """
        Send everybody away: the service is gone.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
        for guest in self._slots.drain():
            guest.waited_in_vain(Outcome.NO_BACKEND)

    def _look_later(self) -> None:
        if self._poll is None and self._slots.waiting and isinstance(self._slots, SharedSlots):
            self._poll = self._later(POLL_SECONDS, self._look)

    def _look(self) -> None:
        """
        See whether places have come free in other workers.
        """
        self._poll = None
        admitted = self._slots.resize(self._slots.limit)
        self._look_later()
        for guest in admitted:
            guest.place_given()

    def _set_timer(self) -> None:
        deadline = self._slots.deadline
        self._timer = None if deadline is None else self._later(max(deadline - self._seconds(), 0.0), self._time_over)

    def _time_over(self) -> None:
        late = self._slots.expired(self._seconds())
        self._set_timer()
        for guest in late:
            guest.waited_in_vain(Outcome.BUFFER_TIMEOUT)
