"""
The server to which something about the request belongs: same client, same header, same path, same server.

Keys and servers lie on a ring (`a3sgw.service.hash_ring`). A key goes to the next server that is usable and has room. Room is what bounds
the load: with `m` exchanges in flight, a server may have its share of `m + 1` times `max_load`, rounded up, so that a popular key cannot
ruin its server (V. Mirrokni, M. Thorup and M. Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018). While a server warms up it
takes that part of its keys that its slow start allows, always the same keys; each moves to it once and stays.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from math import log
from typing import TYPE_CHECKING, Any, Final

from zope.interface import implementer

from a3sgw.interfaces import IBalancer
from a3sgw.service.backend import Backend
from a3sgw.service.balance_random import Random
from a3sgw.service.follow import follow
from a3sgw.service.hash_ring import build_ring, hash_key
from a3sgw.service.least import FEW
from a3sgw.service.request_key import make_key_reader
from a3sgw.service.roster import BalancerSettings, Clockwork, Roster, Standing

if TYPE_CHECKING:
    from a3sgw.observe.record import Record

__all__ = ["ConsistentHash"]

_MOST_STEPS: Final = 96
"""How many points are looked at, before the few that are usable, or not full, or all of weight 0, are found in another way."""

_ODD: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1
_WHOLE: Final = 1 << 64


class _Total:
    """
    How many exchanges are in flight to all of some backends; few are counted anew each time, many report changes.
    """

    __slots__ = ("__weakref__", "_backends", "_known", "_total")

    def __init__(self, backends: Sequence[Backend], *, is_followed: bool) -> None:
        self._backends = backends
        self._known = {backend: backend.in_flight for backend in backends} if is_followed else None
        self._total = sum(self._known.values()) if self._known is not None else 0
        if is_followed:
            follow(backends, self)

    def load_changed(self, backend: Backend) -> None:
        known = self._known
        assert known is not None
        self._total += backend.in_flight - known[backend]
        known[backend] = backend.in_flight

    def get(self) -> int:
        if self._known is not None:
            return self._total
        total = 0
        for backend in self._backends:
            total += backend.in_flight
        return total


class _Places:
    """
    The ring as it is for a roster: for the number of each server the backend, its room and the part of its keys that it takes, or `None`.
    """

    __slots__ = ("_owners", "_points", "_servers", "_total", "_weight")

    def __init__(
        self,
        ring: tuple[Sequence[int], Sequence[int]],
        numbers: Mapping[Backend, int],
        roster: Roster,
        max_load: float,
        *,
        is_followed: bool,
    ) -> None:
        self._points, self._owners = ring
        self._weight = sum(roster.weights)
        self._total = _Total(roster.members, is_followed=is_followed)
        servers: list[tuple[Backend, float, int | None] | None] = [None] * len(numbers)
        # Only who is newer than the others need take less.
        most = max(roster.factors, default=1.0)
        for place, backend in enumerate(roster.members):
            part = roster.factors[place] / most if roster.factors else 1.0
            servers[numbers[backend]] = (backend, roster.weights[place] * max_load, None if part >= 1.0 else int(part * _WHOLE))
        self._servers = servers

    def choose(self, key: int) -> Backend:
        """
        Return the backend for `key`, 64 bits.
        """
        servers = self._servers
        owners = self._owners
        at = bisect_right(self._points, key)
        room = -1.0
        for _ in range(min(_MOST_STEPS, len(owners))):
            if at >= len(owners):
                at = 0
            number = owners[at]
            server = servers[number]
            at += 1
            if server is None:
                continue
            backend, share, part = server
            in_flight = backend.in_flight
            if in_flight:
                if room < 0:
                    room = (self._total.get() + 1) / self._weight
                if in_flight >= room * share:
                    continue
            if part is None or _mix(key, number) < part:
                return backend
        return self._choose_far(key)

    def _choose_far(self, key: int) -> Backend:
        """
        Let each member with room draw a number from the key and its own, and take the highest; weights as in the weighted rendezvous
        method (J. Resch, 2015).
        """
        room = (self._total.get() + 1) / self._weight
        best: Backend | None = None
        most = 0.0
        for number, server in enumerate(self._servers):
            if server is not None and server[0].in_flight < room * server[1]:
                drawn = (_mix(key, number) + 1) / (_WHOLE + 1)
                score = server[1] / -log(drawn) if drawn < 1.0 else server[1] * _WHOLE
                if score > most:
                    most = score
                    best = server[0]
        # Not everybody can have more than the average.
        assert best is not None
        return best


def _mix(key: int, number: int) -> int:
    """
    Return 64 bits that depend on both in no obvious way (the finalizer of splitmix64).
    """
    mixed = (key + (number + 1) * _ODD) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)


@implementer(IBalancer)
class ConsistentHash:
    """
    A request with a key goes where its key belongs, any other to anybody.
    """

    __slots__ = ("_anybody", "_max_load", "_numbers", "_read_key", "_ring", "_standing")

    def __init__(self, backends: Sequence[Backend], settings: BalancerSettings, clockwork: Clockwork) -> None:
        self._ring = build_ring([backend.url for backend in backends], [backend.weight for backend in backends])
        self._numbers = {backend: number for number, backend in enumerate(backends)}
        self._max_load = settings.max_load
        self._read_key = make_key_reader(settings.hash_source, settings.hash_name)
        self._anybody = Random(backends, settings, clockwork)
        self._standing = Standing(self._build, settings.slow_start, clockwork.seconds, self._build_once)

    def choose(self, candidates: Sequence[Backend], record: Record) -> Backend | None:
        """
        Return the candidate to which the request of `record` belongs.
        """
        # A record need not be filled in yet.
        head: Any = getattr(record, "head", None)
        key = None if head is None else self._read_key(head)
        if not key:
            return self._anybody.choose(candidates, record)
        return self._standing.get(candidates).choose(hash_key(key))

    def _build(self, roster: Roster) -> _Places:
        return _Places(self._ring, self._numbers, roster, self._max_load, is_followed=len(roster.members) > FEW)

    def _build_once(self, roster: Roster) -> _Places:
        return _Places(self._ring, self._numbers, roster, self._max_load, is_followed=False)
