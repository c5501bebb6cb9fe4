"""
Choosing a server, by every strategy, among 10 and among 1,000.

As a gateway does it: three requests for each server are under way, each choice takes a place at the server it falls on, and another request
ends, at random and after a time of its own. So what a strategy does to keep its order when loads change is in the figure; what the places
alone cost is taken off.
"""

from __future__ import annotations

import random
from typing import Any

from .piece import INPUTS, Piece, Prepared

__all__ = ["BALANCE_PIECES"]

_UNDER_WAY = 3
_STRATEGIES = ("round-robin", "weighted", "least-connections", "random", "p2c", "least-time", "consistent-hash")


def _choose(strategy: str | None, servers: int) -> Prepared:
    """
    Prepare choices among `servers` by `strategy`; by none, they are given.
    """
    from a3sgw.message import RequestHead
    from a3sgw.observe.record import Record
    from a3sgw.service.backend import Backend, BackendAddress
    from a3sgw.service.balance import STRATEGIES
    from a3sgw.service.roster import BalancerSettings

    chance = random.Random(3)
    address = BackendAddress("http", "192.0.2.1", 80, "", b"", b"bench.test")
    backends = tuple(Backend("app", f"http://192.0.2.1:{number}", address, 1 + number % 3) for number in range(1, servers + 1))
    record = Record()
    record.head = head = RequestHead(b"GET", b"/")
    balancer: Any = None
    if strategy is not None:
        balancer = STRATEGIES[strategy].build(backends, BalancerSettings())
    ended = getattr(balancer, "attempt_ended", None)
    turns = iter(lambda: chance.randrange(servers), -1)
    now = 1000.0

    def place() -> Any:
        return backends[next(turns)] if balancer is None else balancer.choose(backends, record)

    under_way = []
    for _ in range(_UNDER_WAY * servers):
        head.client_packed = chance.randbytes(4)
        under_way.append(place())
        under_way[-1].acquire()
    given = [
        (chance.randbytes(4), chance.randrange(len(under_way)), chance.uniform(0.01, 0.1), backends[chance.randrange(servers)])
        for _ in range(INPUTS)
    ]

    def turn(row: tuple[bytes, int, float, Any]) -> Any:
        nonlocal now
        head.client_packed, slot, seconds, chosen = row
        if balancer is not None:
            chosen = balancer.choose(backends, record)
        chosen.acquire()
        done, under_way[slot] = under_way[slot], chosen
        if ended is not None:
            now += 0.0001
            ended(done, seconds, False, now)
        done.release()
        return chosen

    def is_right(chosen: Any) -> bool:
        return chosen in backends and sum(backend.in_flight for backend in backends) == _UNDER_WAY * servers

    return turn, given, is_right


def _piece(strategy: str, servers: int) -> Piece:
    return Piece(f"choose: {strategy}, {servers:,}", lambda: _choose(strategy, servers), lambda: _choose(None, servers))


BALANCE_PIECES = [_piece(strategy, servers) for strategy in _STRATEGIES for servers in (10, 1000)]
