"""
One circuit of a `circuit-breaker`: its breaker, its trials, and what the log is told.

When a circuit opens and closes is in `a3sgw.policy.breaker`. What is added here are the things that a breaker cannot know: who has which
ticket, and that a trial may never end. A client that sends its request slowly enough could keep a circuit half-open, and so everybody else
out, for as long as it likes; after a while a trial therefore makes room for another, and nobody listens to it any more.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from a3sgw.errors import Outcome
from a3sgw.policy.breaker import Breaker, BreakerState

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["NO_TRIAL", "Circuit", "has_failed"]

NO_TRIAL: Final = -1
"""The ticket that nobody has."""

_COMPLETED: Final = Outcome.COMPLETED


def has_failed(exchange: Exchange, outcome: Outcome, status: int, failures: frozenset[int]) -> bool | None:
    """
    Tell whether an exchange, or an attempt, that ended so has failed; `None` if that says nothing. `status` is that of the server's answer,
    or 0, and `failures` are those that are failures.
    """
    if status in failures or (outcome is not _COMPLETED and outcome.is_backend_fault):
        return True
    if status:
        return False
    # The time for all of it is over, and the server had had the whole request.
    return True if outcome is Outcome.EXCHANGE_TIMEOUT and exchange.attempts and exchange.request_ended else None


def _name_of(outcome: Outcome, status: int) -> str:
    return outcome.word if outcome.is_backend_fault or not status else f"status {status}"


class Circuit:
    """
    One breaker, and the exchanges that are its trials.

    `subject` is what the circuit is called in the log, `reason` what it means that too many have failed. `trial` is the ticket of exchanges
    that are trials now, or `NO_TRIAL`. `opened` says how often it has opened.
    """

    __slots__ = ("_breaker", "_epoch", "_reason", "_subject", "_trials", "opened", "trial")

    _log = Logger()

    def __init__(self, breaker: Breaker, subject: str, reason: str) -> None:
        self._breaker = breaker
        self._epoch = breaker.epoch
        self._subject = subject
        self._reason = reason
        # When each began, the oldest first.
        self._trials: dict[Exchange, float] = {}
        self.trial = NO_TRIAL
        self.opened = 0

    def __repr__(self) -> str:
        return f"<Circuit {self._subject}: {self._breaker!r}>"

    def admit(self, exchange: Exchange, now: float) -> int | None:
        """
        Return the ticket of an exchange that may go on, or `None` to refuse it.
        """
        breaker = self._breaker
        ticket = breaker.admit(now)
        if breaker.epoch != self._epoch:
            self._follow(now)
        if self.trial == NO_TRIAL:
            # Most common case first.
            return ticket
        if ticket is None and self._is_overdue(now):
            del self._trials[next(iter(self._trials))]
            breaker.withdraw(self.trial)
            ticket = breaker.admit(now)
        if ticket is not None:
            self._trials[exchange] = now
        return ticket

    def state(self, now: float) -> BreakerState:
        """
        Return the state.
        """
        state = self._breaker.state(now)
        if self._breaker.epoch != self._epoch:
            self._follow(now)
        return state

    def retry_after(self, now: float) -> float:
        """
        Return the seconds for which there is no point in coming again, 0.0 if one would be admitted.
        """
        wait = self._breaker.retry_after(now)
        if self._breaker.epoch != self._epoch:
            self._follow(now)
        return 0.0 if wait and self._is_overdue(now) else wait

    def report(self, exchange: Exchange, ticket: int, is_failure: bool | None, now: float, outcome: Outcome, status: int) -> bool:
        """
        Take a ticket back, with what became of the exchange (`None` if that says nothing); tell whether it changed the state.
        """
        breaker = self._breaker
        if ticket == self.trial and self._trials.pop(exchange, None) is None:
            return False
        if is_failure is None:
            breaker.withdraw(ticket)
            return False
        if not breaker.report(ticket, is_failure, now):
            return False
        if breaker.state(now) is BreakerState.OPEN:
            self._open(_name_of(outcome, status) if is_failure else "")
        else:
            self._close()
        return True

    def _is_overdue(self, now: float) -> bool:
        """
        Tell whether the oldest trial has had its time.
        """
        return bool(self._trials) and now - next(iter(self._trials.values())) >= self._breaker.cooldown

    # -- changes

    def _turn(self, trial: int) -> bool:
        """
        Begin a turn, and tell whether the one before was half-open.
        """
        self._epoch = self._breaker.epoch
        self._trials.clear()
        was_half_open = self.trial != NO_TRIAL
        self.trial = trial
        return was_half_open

    def _follow(self, now: float) -> None:
        """
        The state has changed without a report to this circuit: because of the time, or by another worker, who tells the log of it.
        """
        if self._breaker.state(now) is not BreakerState.HALF_OPEN:
            self._turn(NO_TRIAL)
            return
        self._turn(self._breaker.epoch)
        if not self._breaker.is_own:
            return
        count = self._breaker.success_threshold
        self._log.info("{subject} is {state}; trials at a time: {count}", subject=self._subject, state="half-open", count=count)

    def _open(self, last: str) -> None:
        self.opened += 1
        reason = "a trial failed" if self._turn(NO_TRIAL) else self._reason
        if last:
            reason = f"{reason} ({last})"
        text = "{subject} is {state} for {seconds:g} s: {reason}"
        self._log.warn(text, subject=self._subject, state="open", seconds=self._breaker.cooldown, reason=reason)

    def _close(self) -> None:
        self._turn(NO_TRIAL)
        count = self._breaker.success_threshold
        self._log.info("{subject} is {state}; trials that went well: {count}", subject=self._subject, state="closed", count=count)
