"""
The token buckets of several processes: `bucket.Buckets`, in memory that all of them see.

The same algorithm decides, so `rate` tokens a second are `rate` tokens a second, however many workers there are. A bucket is a key of 16
bytes and the moment at which it will be full again. Its place is one of eight that its hash names. Whoever is refused has only looked:
a moment only moves on, so what was too early then was rightly refused. Whoever is admitted looks again, and takes its token, under a lock.

There is room for twice as many keys as are to be remembered, so that few find their eight places taken; then the fullest of the eight is
forgotten, and what `bucket` says of forgetting holds here as well. Nobody can choose keys that share a place, because hashes are seeded;
all workers have the same seed, by `PYTHONHASHSEED`.

Costs under CPython 3.11: 2.5 µs for a known key that is admitted, 0.5 for one that is refused; 48 bytes of memory a key, of all workers
together.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import math
from typing import Final

from a3sgw.policy.arena import Arena, fit_key

__all__ = ["SharedBuckets"]

_ROUNDING: Final = 1e-6
_PLACES: Final = 8
_KEY: Final = 16
_SET: Final = _PLACES * _KEY
_LOCKS: Final = 64


class SharedBuckets:
    """
    Buckets as `bucket.Buckets` has them, for keys of bytes, in the region of `arena` that is called `name`.
    """

    __slots__ = ("_allowed_debt", "_full_at", "_keys_at", "_memory", "_region", "_secret", "_sets", "_used", "burst", "max_keys", "rate")

    def __init__(self, rate: float, burst: int, max_keys: int, arena: Arena, name: object) -> None:
        if not (rate > 0 and math.isfinite(rate)):
            raise ValueError(f"a rate of {rate} tokens per second; give a number above 0")
        if burst < 1:
            raise ValueError(f"a burst of {burst} tokens, with which nobody is ever admitted; give at least 1")
        if max_keys < 1:
            raise ValueError(f"room for {max_keys} keys; give at least 1")
        self.rate = float(rate)
        self.burst = burst
        self.max_keys = max_keys
        self._allowed_debt = burst - 1 + _ROUNDING
        self._sets = sets = -(-2 * max_keys // _PLACES)
        moments = 64
        keys = moments + sets * _PLACES * 8
        self._region = region = arena.take(name, keys + sets * _SET)
        # How many places were ever taken.
        self._used = region.view(0, 8, "Q")
        self._full_at = region.view(moments, sets * _PLACES * 8, "d")
        self._memory = region.memory
        self._keys_at = region.offset + keys
        self._secret = arena.secret

    def __len__(self) -> int:
        return int(self._used[0])

    def __repr__(self) -> str:
        return f"<SharedBuckets {self.rate:g}/s, burst {self.burst}, {len(self)} of {self.max_keys} keys>"

    def take(self, key: bytes, now: float) -> float:
        """
        Take a token and return 0.0, or return the seconds until there will be one. Who is refused has taken nothing.
        """
        key = fit_key(key, self._secret)
        number = hash(key) % self._sets
        poured = now * self.rate
        found = self._find(key, number)
        if found >= 0:
            debt = self._full_at[found] - poured
            if debt > self._allowed_debt:
                return float((debt - (self.burst - 1)) / self.rate)
        region = self._region
        which = number % _LOCKS
        region.lock(which)
        try:
            found = self._find(key, number)
            if found < 0:
                self._make_room(key, number, poured)
                return 0.0
            full_at = self._full_at[found]
            debt = full_at - poured
            if debt > self._allowed_debt:
                return float((debt - (self.burst - 1)) / self.rate)
            self._full_at[found] = (full_at if debt > 0.0 else poured) + 1.0
            return 0.0
        finally:
            region.unlock(which)

    def remaining(self, key: bytes, now: float) -> int:
        """
        Return how many could be admitted at once now.
        """
        return int(self.burst - self._debt(key, now) + _ROUNDING)

    def reset(self, key: bytes, now: float) -> float:
        """
        Return the seconds until the bucket is full, if nobody takes from it.
        """
        return self._debt(key, now) / self.rate

    def _debt(self, key: bytes, now: float) -> float:
        key = fit_key(key, self._secret)
        found = self._find(key, hash(key) % self._sets)
        return 0.0 if found < 0 else max(self._full_at[found] - now * self.rate, 0.0)

    def _find(self, key: bytes, number: int) -> int:
        """
        Return the place of `key`, or -1.
        """
        begin = self._keys_at + number * _SET
        keys = self._memory[begin : begin + _SET]
        at = keys.find(key)
        while at > 0 and at % _KEY:
            at = keys.find(key, at + 1)
        return -1 if at < 0 else number * _PLACES + at // _KEY

    def _make_room(self, key: bytes, number: int, poured: float) -> None:
        """
        Give `key` the fullest of its places, which is one that nobody has had if there is any.
        """
        moments = self._full_at
        first = number * _PLACES
        place = min(range(first, first + _PLACES), key=moments.__getitem__)
        if not moments[place]:
            self._used[0] += 1
        # In this order: whoever looks without the lock sees no key with the debts of another.
        moments[place] = poured + 1.0
        begin = self._keys_at + place * _KEY
        self._memory[begin : begin + _KEY] = key
