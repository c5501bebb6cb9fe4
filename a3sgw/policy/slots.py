"""
Give out a limited number of places, first come, first served.

`Slots` knows nothing of what takes a place: a token is any hashable object but `None`, usually the exchange itself. A place is taken when
a request is admitted and given back on every way out, and each place that comes free wakes exactly one of those who wait. A waking is a
return value, so the caller finishes its own work before the next one runs.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Admission", "Slots"]

_Token = TypeVar("_Token", bound=Hashable)


class Admission(enum.Enum):
    """
    What came of asking for a place.
    """

    ACQUIRED = "acquired"
    QUEUED = "queued"
    FULL = "full"


class Slots(Generic[_Token]):
    """
    `limit` places and a queue of at most `max_waiting` tokens, each of which waits for at most `patience` seconds.

    A limit of 0 is no place at all: everybody waits until `resize` makes some. Nobody waits while a place is free.

    A token is known here only while it waits. Once it was told `ACQUIRED`, or was returned by `release` or `resize`, its owner has a
    place and must `release` it exactly once; `leave` does not do that. Every operation takes constant time, whoever leaves; those that
    return several tokens take as long as these are many.
    """

    __slots__ = ("_waiting", "in_use", "limit", "max_waiting", "patience")

    def __init__(self, limit: int, *, max_waiting: int = 0, patience: float = 0.0) -> None:
        if limit < 0 or max_waiting < 0 or patience < 0:
            raise ValueError(f"limit, max_waiting and patience must not be negative, but are {limit}, {max_waiting} and {patience:g}")
        self.limit = limit
        self.max_waiting = max_waiting
        self.patience = patience
        self.in_use = 0
        # Tokens and their deadlines. A plain dict would search for its first item through all that were deleted before it.
        self._waiting: OrderedDict[_Token, float] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Slots {self.in_use} of {self.limit} in use, {len(self._waiting)} of {self.max_waiting} waiting>"

    @property
    def waiting(self) -> int:
        """
        How many tokens wait.
        """
        return len(self._waiting)

    @property
    def deadline(self) -> float | None:
        """
        When the first in the queue has waited long enough, or `None` if nobody waits.
        """
        return next(iter(self._waiting.values()), None)

    def acquire(self, token: _Token, now: float) -> Admission:
        """
        Take a place, or else one in the queue, or neither if the queue is full.
        """
        # Most common case first.
        if self.in_use < self.limit:
            self.in_use += 1
            return Admission.ACQUIRED
        if len(self._waiting) >= self.max_waiting:
            return Admission.FULL
        if token in self._waiting:
            raise ValueError(f"{token!r} waits already")
        self._waiting[token] = now + self.patience
        return Admission.QUEUED

    def release(self) -> _Token | None:
        """
        Give back a place; return the token that has it now, or `None` if nobody waits.

        The queue is not looked through for those whose time is over: the place may go to one that `expired` has not returned yet.
        """
        if not self.in_use:
            raise RuntimeError(f"{self!r}: a place was given back that nobody had")
        self.in_use -= 1
        return self._admit_next()

    def leave(self, token: _Token) -> bool:
        """
        Take a token out of the queue; tell whether it was there. If it was not, it may have been given a place, and must release that.
        """
        return self._waiting.pop(token, None) is not None

    def expired(self, now: float) -> list[_Token]:
        """
        Take those out of the queue whose time is over, and return them, the first come first.
        """
        late = []
        waiting = self._waiting
        # A deadline never lies before that of one who came earlier, as long as `patience` is not shortened; then the earlier one is
        # waited for.
        while waiting:
            token, deadline = next(iter(waiting.items()))
            if now < deadline:
                break
            del waiting[token]
            late.append(token)
        return late

    def resize(self, limit: int) -> list[_Token]:
        """
        Change the limit; return the tokens that have a place now because it rose. Nobody loses a place because it fell.
        """
        if limit < 0:
            raise ValueError(f"limit must not be negative, but is {limit}")
        self.limit = limit
        admitted = []
        while (token := self._admit_next()) is not None:
            admitted.append(token)
        return admitted

    def tokens(self) -> list[_Token]:
        """
        Return who waits, the first come first.
        """
        return list(self._waiting)

    def drain(self) -> list[_Token]:
        """
        Empty the queue and return who waited, the first come first. Who has a place keeps it.
        """
        left = list(self._waiting)
        self._waiting.clear()
        return left

    def _admit_next(self) -> _Token | None:
        if self.in_use >= self.limit or not self._waiting:
            return None
        token, _ = self._waiting.popitem(last=False)
        self.in_use += 1
        return token
