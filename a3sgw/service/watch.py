"""
Learn from every attempt at a backend.

A backend whose service wants to know has a watch: it is told when an attempt begins and how it ends, and passes that on to the passive
verdict, to a balancer that goes by latency, and to the estimate that hedging goes by. Other backends have none, and cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from a3sgw.errors import Outcome
from a3sgw.policy.verdict import Transition
from a3sgw.service.backend import Backend

__all__ = ["AttemptListener", "Watch"]


_REFUSALS: Final = frozenset([502, 503, 504])


class AttemptListener(Protocol):
    """
    Somebody who wants to know how long backends take.
    """

    def attempt_ended(self, backend: Backend, seconds: float, is_failure: bool, now: float) -> None:
        """
        An attempt has been answered, or has failed, `seconds` after it had its connection. `now` is the monotonic clock.
        """


class Watch:
    """
    What is done with the attempts at one backend.

    `statuses` are the answers that count as errors, `seconds` is the monotonic clock. `changed` is called with the backend and each
    transition of its passive verdict, and with `None` when a trial of a half-open backend begins or ends, which changes who may be chosen.
    """

    __slots__ = ("_backend", "_listeners", "_seconds", "_statuses", "changed")

    def __init__(
        self,
        backend: Backend,
        statuses: frozenset[int],
        listeners: Sequence[AttemptListener],
        seconds: Callable[[], float],
        changed: Callable[[Backend, Transition | None], None],
    ) -> None:
        self._seconds = seconds
        self._backend = backend
        self._statuses = statuses
        self._listeners = tuple(listeners)
        self.changed = changed

    def __repr__(self) -> str:
        return f"<Watch on {self._backend!r}>"

    def begin(self) -> int:
        """
        Return the ticket of an attempt that begins.
        """
        ejection = self._backend.verdicts.ejection
        if ejection is None:
            return 0
        ticket = ejection.begin()
        if not ejection.is_in_service:
            self.changed(self._backend, None)
        return ticket

    def end(self, ticket: int, outcome: Outcome, status: int, seconds: float) -> None:
        """
        Take the end of an attempt. `status` is that of the answer, or 0 if there was none, as there is none to a connection, which is well
        when it is made; `seconds` is 0.0 if it never had a connection.
        """
        now = self._seconds()
        is_failure = outcome.is_backend_fault or status in self._statuses
        is_success = not is_failure and (status != 0 or outcome is Outcome.COMPLETED)
        if (is_failure or is_success) and seconds > 0:
            for listener in self._listeners:
                # A server that refuses quickly is not a quick one.
                listener.attempt_ended(self._backend, seconds, is_failure or status in _REFUSALS, now)
        ejection = self._backend.verdicts.ejection
        if ejection is None:
            return
        was_in_service = ejection.is_in_service
        if is_failure:
            change = ejection.failed(ticket, now, f"status {status}" if status else outcome.word)
        elif is_success:
            change = ejection.succeeded(ticket, now)
        else:
            ejection.abandoned(ticket)
            change = None
        if change is not None or not was_in_service:
            self.changed(self._backend, change)
