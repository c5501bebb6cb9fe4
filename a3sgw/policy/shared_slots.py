"""
Places that the processes of one gateway give out together, and what is counted of all of them.

Each worker counts what it has itself in a cell of its own, so that what a worker had is free again when it is gone. The sum is taken, and a
place with it, under a lock: there are never more than the limit. Places to wait in are counted the same way. Who waits, waits in its own
worker, and is let in by those who leave there; that a place has come free in another worker is found out by looking, `POLL_SECONDS` later
at most. So nobody overtakes anybody in one worker, but a newcomer in another may be quicker.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Protocol, TypeVar

from a3sgw.policy.arena import Arena, Cells, Region
from a3sgw.policy.slots import Admission, Slots

__all__ = ["POLL_SECONDS", "Counter", "KeyCounter", "SharedCount", "SharedSlots", "SharedTally", "Uncounted"]

POLL_SECONDS: Final = 0.01

_Token = TypeVar("_Token", bound=Hashable)
_PLACES: Final = 8
_KEY: Final = 16


class Counter(Protocol):
    """
    A number that all workers add to.
    """

    def take(self, limit: int) -> bool:
        """
        Count one more of this worker's, if all workers together have fewer than `limit`.
        """

    def give(self) -> None:
        """
        Count one of this worker's less.
        """


class Uncounted:
    """
    A counter where there is no limit, or no place at all.
    """

    def take(self, limit: int) -> bool:
        """
        Say whether there is any place.
        """
        return limit > 0

    def give(self) -> None:
        """
        Do nothing.
        """


class SharedCount:
    """
    One counter, in the region of `arena` that is called `name`.
    """

    __slots__ = ("_cells", "_region", "_slot")

    def __init__(self, arena: Arena, name: object) -> None:
        size = 4 * arena.workers
        self._region = region = arena.take(name, size, Cells(0, size, 1))
        self._cells = region.view(0, size, "I")
        self._slot = arena.slot

    def __repr__(self) -> str:
        return f"<SharedCount {list(self._cells)}>"

    @property
    def total(self) -> int:
        """
        What all workers have.
        """
        return int(sum(self._cells))

    @property
    def others(self) -> int:
        """
        What all other workers have.
        """
        return self.total - int(self._cells[self._slot])

    @property
    def has_more_than_its_share(self) -> bool:
        """
        Whether this worker has more than the others have on average: by more than one, and by more than an eighth.
        """
        cells = self._cells
        mean = sum(cells) / len(cells)
        return bool(cells[self._slot] > mean * 1.125 + 1)

    def take(self, limit: int) -> bool:
        """
        Count one more, unless there are `limit`.
        """
        cells = self._cells
        if sum(cells) >= limit:
            return False
        self._region.lock()
        try:
            if sum(cells) >= limit:
                return False
            cells[self._slot] += 1
            return True
        finally:
            self._region.unlock()

    def give(self) -> None:
        """
        Count one less. Only this worker writes its cell, so no lock is needed.
        """
        self._cells[self._slot] -= 1

    def set(self, count: int) -> None:
        """
        Say how many this worker has.
        """
        self._cells[self._slot] = count


class SharedTally:
    """
    A counter for each of many keys, of which at most `MANY` are above 0 at a time. What comes beyond that is not counted.
    """

    MANY: Final = 1 << 15

    def __init__(self, arena: Arena, name: object) -> None:
        workers = arena.workers
        self.slot = arena.slot
        self._width = width = 4 * workers
        self._sets = self.MANY // _PLACES
        cells = self.MANY * _KEY
        self._region: Region = arena.take(name, cells + self.MANY * width, Cells(cells, width, self.MANY))
        self._cells = self._region.view(cells, self.MANY * width, "I")
        self._keys_at = self._region.offset
        self._workers = workers

    def __repr__(self) -> str:
        return f"<SharedTally of {self._workers} workers>"

    def take(self, key: bytes, limit: int) -> int | None:
        """
        Count one more for `key`, 16 bytes, if all workers together have fewer than `limit`; return where, or `None` if they have not. -1
        stands for one that is admitted and not counted.
        """
        number = hash(key) % self._sets
        self._region.lock(number % 64)
        try:
            place = self._find(key, number)
            if place < 0:
                return -1
            first = place * self._workers
            if sum(self._cells[first : first + self._workers]) >= limit:
                return None
            self._cells[first + self.slot] += 1
            return place
        finally:
            self._region.unlock(number % 64)

    def give(self, place: int) -> None:
        """
        Count one less at a place that `take` has returned.
        """
        if place >= 0:
            self._cells[place * self._workers + self.slot] -= 1

    def _find(self, key: bytes, number: int) -> int:
        memory, workers = self._region.memory, self._workers
        begin = self._keys_at + number * _PLACES * _KEY
        keys = memory[begin : begin + _PLACES * _KEY]
        at = keys.find(key)
        while at > 0 and at % _KEY:
            at = keys.find(key, at + 1)
        if at >= 0:
            return number * _PLACES + at // _KEY
        for place in range(number * _PLACES, (number + 1) * _PLACES):
            if not any(self._cells[place * workers : (place + 1) * workers]):
                begin = self._keys_at + place * _KEY
                memory[begin : begin + _KEY] = key
                return place
        return -1


class KeyCounter:
    """
    The counter of one key of a tally.
    """

    __slots__ = ("_key", "_places", "_tally")

    def __init__(self, tally: SharedTally, key: bytes) -> None:
        self._tally = tally
        self._key = key
        self._places: list[int] = []

    def take(self, limit: int) -> bool:
        """
        Count one more, unless there are `limit`.
        """
        place = self._tally.take(self._key, limit)
        if place is None:
            return False
        self._places.append(place)
        return True

    def give(self) -> None:
        """
        Count one less.
        """
        self._tally.give(self._places.pop())


class SharedSlots(Slots[_Token]):
    """
    `Slots` whose places, counted by `counter`, and whose queue, counted by `queue`, are those of all workers. `in_use` and `waiting` are
    what this worker has.

    While anybody waits, `resize` must be called every `POLL_SECONDS`, with the same limit if it has not changed.
    """

    __slots__ = ("_counter", "_queue")

    def __init__(self, limit: int, counter: Counter, queue: Counter, *, max_waiting: int = 0, patience: float = 0.0) -> None:
        super().__init__(limit, max_waiting=max_waiting, patience=patience)
        self._counter = counter
        self._queue = queue

    def acquire(self, token: _Token, now: float) -> Admission:
        """
        Take a place, or else one in the queue, or neither if the queue is full. Nobody overtakes those who wait in this worker.
        """
        if not self._waiting and self._counter.take(self.limit):
            self.in_use += 1
            return Admission.ACQUIRED
        if token in self._waiting:
            raise ValueError(f"{token!r} waits already")
        if not self.max_waiting or not self._queue.take(self.max_waiting):
            return Admission.FULL
        self._waiting[token] = now + self.patience
        return Admission.QUEUED

    def release(self) -> _Token | None:
        """
        Give back a place; return the token that has it now, or `None`.
        """
        if not self.in_use:
            raise RuntimeError(f"{self!r}: a place was given back that nobody had")
        self.in_use -= 1
        self._counter.give()
        return self._admit_next()

    def leave(self, token: _Token) -> bool:
        """
        Take a token out of the queue; tell whether it was there.
        """
        was_there = super().leave(token)
        if was_there:
            self._queue.give()
        return was_there

    def expired(self, now: float) -> list[_Token]:
        """
        Take those out of the queue whose time is over, and return them, the first come first.
        """
        return self._left(super().expired(now))

    def drain(self) -> list[_Token]:
        """
        Empty the queue and return who waited, the first come first.
        """
        return self._left(super().drain())

    def _left(self, tokens: list[_Token]) -> list[_Token]:
        for _ in tokens:
            self._queue.give()
        return tokens

    def _admit_next(self) -> _Token | None:
        if not self._waiting or not self._counter.take(self.limit):
            return None
        token, _ = self._waiting.popitem(last=False)
        self._queue.give()
        self.in_use += 1
        return token
