"""
Probe one server again and again.

A probe asks its question, waits for the answer, pauses, and asks again, so there is never more than one question under way. What a number
of answers in a row mean is for `policy.verdict.ProbeVerdict` to say.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from a3sgw.errors import Outcome
from a3sgw.health.question import Question
from a3sgw.policy.verdict import ProbeVerdict

__all__ = ["Probe"]


class Probe:
    """
    The probes of one server, and what is thought of it.

    `question` is what is asked from the next time on. `interval` is the mean pause between the end of one question and the begin of the
    next, in seconds; `chance` spreads it. `changed` is called with the probe when the `verdict` has become another one, and `reason` says
    why then.
    """

    JITTER: Final = 0.1
    """By how much of the interval a pause may be shorter or longer, so that many probes do not fall into step."""

    _log = Logger()

    def __init__(
        self,
        question: Question,
        interval: float,
        verdict: ProbeVerdict,
        changed: Callable[[Probe], None],
        later: Callable[..., Any],
        chance: random.Random,
    ) -> None:
        self.verdict = verdict
        self.reason = ""
        self.question = question
        self._interval = interval
        self._changed = changed
        self._later = later
        self._chance = chance
        self._pause: Any = None
        self._asked: Deferred[str] | None = None

    def __repr__(self) -> str:
        state = "asking" if self._asked is not None else "stopped" if self._pause is None else "pausing"
        return f"<Probe {self.question!r}, {self.verdict!r}, {state}>"

    def start(self, delay: float) -> None:
        """
        Ask for the first time after `delay` seconds.
        """
        self._pause = self._later(delay, self._ask)

    def stop(self) -> None:
        """
        Ask no more, and give up a question that is under way.
        """
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.cancel()
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.cancel()

    def _ask(self) -> None:
        self._pause = None
        self._asked = maybeDeferred(self.question.ask)
        self._asked.addErrback(self._puzzled).addCallback(self._answered).addErrback(self._broken)

    def _puzzled(self, failure: Failure) -> str:
        """
        A question that cannot even be asked is no good sign, and must not be the last one.
        """
        if failure.check(CancelledError) is not None:
            failure.raiseException()
        self._log.failure("bug in a health check: {probe!r}", failure=failure, probe=self)
        return Outcome.INTERNAL_ERROR.word

    def _answered(self, objection: str) -> None:
        self._asked = None
        change = self.verdict.failed(objection) if objection else self.verdict.succeeded()
        factor = 1.0 - self.JITTER + 2.0 * self.JITTER * self._chance.random()
        self._pause = self._later(self._interval * factor, self._ask)
        if change is not None:
            self.reason = change.reason
            self._changed(self)

    def _broken(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("bug in what follows from a health check: {probe!r}", failure=failure, probe=self)
