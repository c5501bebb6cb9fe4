"""
Divide traffic in exact shares, evenly spread.

Shares of requests are kept by counting and not by chance: ten percent are ten of any hundred requests in a row, and they do not come in
bursts. `Split` divides among several, `Sampler` picks some.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Generic, TypeVar

__all__ = ["Sampler", "Split"]

_Item = TypeVar("_Item")


class Split(Generic[_Item]):
    """
    Turns among items (the revisions of a service) by percent.

    Of any hundred choices in a row each item gets exactly its percentage. From the first choice on, after any number of them, it has had
    its exact share rounded up or down. The order of turns is worked out once; a choice is a look-up.
    """

    __slots__ = ("_next", "_turns", "shares")

    def __init__(self, shares: Sequence[tuple[_Item, int]]) -> None:
        percents = [percent for _, percent in shares]
        if sum(percents) != 100 or min(percents) < 0:
            raise ValueError(f"shares must be from 0 to 100 percent and add up to 100, but are {percents}")
        self.shares = tuple(shares)
        self._turns = tuple(shares[position][0] for position in _spread(percents))
        self._next = 0

    def __repr__(self) -> str:
        return f"<Split {', '.join(f'{item} {percent}%' for item, percent in self.shares)}>"

    def choose(self, may_choose: Callable[[_Item], bool] | None = None) -> _Item | None:
        """
        Return the item whose turn it is.

        With `may_choose`, items it is false for are passed over, and the others share what is theirs in proportion. `None` means that there
        is nobody else with a share: an item of 0 percent gets nothing, not even then, because whoever gave it none may have had a reason.
        """
        turns = self._turns
        at = self._next
        for _ in turns:
            item = turns[at]
            at += 1
            if at == len(turns):
                at = 0
            if may_choose is None or may_choose(item):
                self._next = at
                return item
        return None


def _spread(weights: Sequence[int]) -> list[int]:
    """
    Return the order of turns, as positions in `weights`, in which each is as regular as whole turns allow.

    The `n`-th turn of an item with the share `w` of the whole may not come before `(n - 1) / w` and must come by `n / w`, both widened to
    whole turns. Among those that may, the one that must soonest goes first. On one line this meets every bound (S. Baruah et al.,
    "Proportionate progress: a notion of fairness in resource allocation", 1996); smooth weighted round robin, as nginx has it, can be a
    whole turn off.
    """
    divisor = math.gcd(*weights)
    shares = [weight // divisor for weight in weights]
    total = sum(shares)
    had = [0] * len(shares)
    turns = []
    for turn in range(total):
        ready = [position for position, share in enumerate(shares) if share and had[position] * total // share <= turn]
        chosen = min(ready, key=lambda position: -(-(had[position] + 1) * total // shares[position]))
        had[chosen] += 1
        turns.append(chosen)
    return turns


class Sampler:
    """
    Takes `percent` of all requests, any number from 0 to 100 with decimals.

    Of any `n` requests in a row, `n * percent / 100` are taken, rounded up or down, at even distances. The first one taken is in the middle
    of the first distance, so that many samplers which live for a few requests take their share too.
    """

    __slots__ = ("_part", "_sum", "_whole", "percent")

    def __init__(self, percent: float) -> None:
        if not 0 <= percent <= 100:
            raise ValueError(f"a percentage is from 0 to 100, not {percent}")
        self.percent = percent
        # What was written, and not its binary neighbour, which has large terms.
        share = Fraction(str(percent)) / 100
        self._part, self._whole = share.as_integer_ratio()
        self._sum = self._whole // 2

    def __repr__(self) -> str:
        return f"<Sampler {self.percent:g}%>"

    def take(self) -> bool:
        """
        Tell whether to take the request at hand.
        """
        self._sum += self._part
        if self._sum < self._whole:
            return False
        self._sum -= self._whole
        return True
