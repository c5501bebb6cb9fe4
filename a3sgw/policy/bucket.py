"""
Limit how often something may happen, per key: token buckets in bounded memory.

A bucket holds at most `burst` tokens, starts full and is refilled continuously with `rate` tokens a second; whoever is admitted takes one.
This is the Generic Cell Rate Algorithm (ITU-T I.371): instead of a level and a time, one number per key is kept, the moment at which the
bucket will be full again. That moment is not counted in seconds but in tokens poured since the clock's zero, `rate * now`, so that taking
a token adds exactly 1 and a burst is never one off. Counts are exact while `rate * now` is below 2**53: at a rate of 10**8 for three
years of a clock that began at the machine's start.

What is remembered is bounded by `max_keys`. A full bucket equals one never seen and is forgotten for nothing: each new key has two others
looked at, so the table keeps about as many keys as were active within the time a bucket takes to fill. Only if more than `max_keys` are
below full at the same time must one that is not full be forgotten. What holds then:

- Nobody is locked out. A forgotten bucket is a full one, and a new key is always remembered, so an error is in the favour of its key, and
  nobody can cause another one's refusal.
- An empty bucket is not made full cheaply. The one forgotten is the fullest of eight drawn at random. If a share `s` of `n` keys has taken
  as much as a given key or more, a new key displaces it with a chance below `8 / n * s**7`. New keys have taken a single token and go
  first. To raise `s`, an attacker must keep that many other buckets as low all the time, `s * n * rate` requests a second.
- An attacker with any number of keys is admitted with all of them: that is in the nature of a limit per key, and why `prefix_key` makes one
  key of a network.

Keys are kept as given. Who makes them of what a client sends must bound their length, by a hash if need be.

Costs under CPython 3.11: 0.1 µs for a known key, 0.4 if it is one of 100,000 in use and the caches are cold; 5 µs for a new key that
displaces another; 160 bytes a key. Once in more newcomers than it holds keys, a dict is laid out anew in one step: 5 ms at 100,000 keys,
50 ms at 1,000,000.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from random import Random
from typing import Final

__all__ = ["Buckets", "prefix_key"]

_ROUNDING: Final = 1e-6
"""In tokens. Who waits as long as told is admitted, although `rate * now` is rounded."""
_LOOKED_AT: Final = 2
"""How many old keys a new one has looked at; more than one, so that the full ones are forgotten faster than keys come."""
_DRAWN: Final = 8


class Buckets:
    """
    A bucket of `burst` tokens per key, refilled with `rate` tokens a second; at most `max_keys` are remembered.

    `now` is in seconds of a monotonic clock. `chance` draws those among whom one is forgotten; it decides nothing below `max_keys`. Raises
    `ValueError` for a limit that could admit nobody or is no number.
    """

    __slots__ = ("_allowed_debt", "_chance", "_full_at", "_hand", "_keys", "burst", "max_keys", "rate")

    def __init__(self, rate: float, burst: int, max_keys: int, chance: Random | None = None) -> None:
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
        self._full_at: dict[Hashable, float] = {}
        # The same keys in no order, so that one can be drawn at random.
        self._keys: list[Hashable] = []
        self._hand = 0
        self._chance = (Random() if chance is None else chance).random

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"<Buckets {self.rate:g}/s, burst {self.burst}, {len(self)} of {self.max_keys} keys>"

    def take(self, key: Hashable, now: float) -> float:
        """
        Take a token and return 0.0, or return the seconds until there will be one. Who is refused has taken nothing.
        """
        poured = now * self.rate
        full_at = self._full_at.get(key)
        if full_at is None:
            self._make_room(poured)
            self._keys.append(key)
            self._full_at[key] = poured + 1.0
            return 0.0
        debt = full_at - poured
        if debt > self._allowed_debt:
            return (debt - (self.burst - 1)) / self.rate
        self._full_at[key] = (full_at if debt > 0.0 else poured) + 1.0
        return 0.0

    def remaining(self, key: Hashable, now: float) -> int:
        """
        Return how many could be admitted at once now.
        """
        return int(self.burst - self._debt(key, now) + _ROUNDING)

    def reset(self, key: Hashable, now: float) -> float:
        """
        Return the seconds until the bucket is full, if nobody takes from it.
        """
        return self._debt(key, now) / self.rate

    def _debt(self, key: Hashable, now: float) -> float:
        """
        Return how many tokens are missing.
        """
        full_at = self._full_at.get(key)
        return 0.0 if full_at is None else max(0.0, full_at - now * self.rate)

    def _make_room(self, poured: float) -> None:
        """
        Forget what is full among the next few keys, and one of the fuller keys if there is no room otherwise.
        """
        keys, full_at = self._keys, self._full_at
        for _ in range(min(_LOOKED_AT, len(keys))):
            # Downwards: what `_forget` moves into the gap has been looked at in this round.
            self._hand -= 1
            if self._hand < 0:
                self._hand = len(keys) - 1
            if full_at[keys[self._hand]] <= poured:
                self._forget(self._hand)
        count = len(keys)
        if count >= self.max_keys:
            drawn = [int(self._chance() * count) for _ in range(_DRAWN)]
            filled = [full_at[keys[at]] for at in drawn]
            self._forget(drawn[filled.index(min(filled))])

    def _forget(self, at: int) -> None:
        keys = self._keys
        last = keys.pop()
        if at == len(keys):
            del self._full_at[last]
        else:
            del self._full_at[keys[at]]
            keys[at] = last


# -- keys of networks -----------------------------------------------------------------------------------------------------------------

_MAPPED: Final = bytes(10) + b"\xff\xff"
_HALF: Final = bytes(8)


def prefix_key(packed: bytes, ipv4_bits: int, ipv6_bits: int) -> bytes:
    """
    Return the network of a packed address: its first bits kept, the others 0. An IPv6 client usually owns the last 64 at least, so that
    a limit per address would not limit it (RFC 6177).

    The families stay apart, as the key is as long as the address; an IPv4-mapped IPv6 address is an IPv4 address. What is neither 4 nor
    16 bytes (an unknown client is no bytes) is returned as it is. The numbers of bits are from 0 to 32 and from 0 to 128.
    """
    # Most common cases first.
    if len(packed) == 4:
        return packed if ipv4_bits == 32 else _mask(packed, ipv4_bits)
    if len(packed) == 16:
        if packed.startswith(_MAPPED):
            return prefix_key(packed[12:], ipv4_bits, ipv6_bits)
        return packed[:8] + _HALF if ipv6_bits == 64 else _mask(packed, ipv6_bits)
    return packed


def _mask(packed: bytes, bits: int) -> bytes:
    size = len(packed)
    dropped = size * 8 - bits
    return (int.from_bytes(packed, "big") >> dropped << dropped).to_bytes(size, "big")
