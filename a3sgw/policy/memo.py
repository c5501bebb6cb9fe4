"""
Remember a bounded number of costly answers, each for a span of time.

When it is full the oldest goes, whether it was asked for or not: what may enter is what has been proved, so no stranger can empty it, and
a plain queue is the cheapest that is bounded.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["Memo"]

Answer = TypeVar("Answer")


class Memo(Generic[Answer]):
    """
    At most `capacity` answers by key. Keys should be digests, so that no secret is kept. Use it from one thread.
    """

    __slots__ = ("_answers", "_capacity")

    def __init__(self, capacity: int) -> None:
        self._answers: OrderedDict[bytes, tuple[float, float, Answer]] = OrderedDict()
        self._capacity = capacity

    def __len__(self) -> int:
        return len(self._answers)

    def __repr__(self) -> str:
        return f"<Memo {len(self._answers)} of {self._capacity}>"

    def get(self, key: bytes, now: float) -> Answer | None:
        """
        Return the answer, unless there is none or `now` is outside its span.

        It is also forgotten when `now` lies before the span: a clock that was set back must not lengthen a life.
        """
        entry = self._answers.get(key)
        if entry is None:
            return None
        since, until, answer = entry
        if since <= now < until:
            return answer
        del self._answers[key]
        return None

    def put(self, key: bytes, answer: Answer, since: float, until: float) -> None:
        """
        Remember an answer that holds from `since` until just before `until`.
        """
        if since >= until or self._capacity <= 0:
            return
        self._answers.pop(key, None)
        if len(self._answers) >= self._capacity:
            self._answers.popitem(last=False)
        self._answers[key] = (since, until, answer)

    def clear(self) -> None:
        """
        Forget everything.
        """
        self._answers.clear()
