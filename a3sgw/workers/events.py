"""
What workers log, told to the deciding side, which writes one log for all.

Several of them may notice the same thing at the same time, because a backend fails all of them. That is written once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent
from zope.interface import implementer

from a3sgw.workers.link import Ask

__all__ = ["EventDesk", "EventTeller"]


@implementer(ILogObserver)
class EventTeller:
    """
    Passes every event of a worker to `tell`, as level, namespace and text.
    """

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell

    def __call__(self, event: LogEvent) -> None:
        """
        Take an event.
        """
        level = event.get("log_level", LogLevel.info).name
        text = formatEvent(event)
        failure = event.get("log_failure")
        if failure is not None:
            text = f"{text}\n{failure.getTraceback()}" if text else failure.getTraceback()
        self._tell(level, event.get("log_namespace", "-"), text.encode("utf-8", "replace").decode("utf-8"))


class EventDesk:
    """
    Writes what workers tell. The same text from another worker within `SAME_SECONDS` is the same event.

    `seconds` is the monotonic clock; `write` writes level, namespace and text.
    """

    SAME_SECONDS: Final = 2.0
    MOST: Final = 256

    def __init__(self, seconds: Callable[[], float], write: Callable[[str, str, str], object] | None = None) -> None:
        self._seconds = seconds
        self._write = write or _log_event
        # By what was told: who told it, and until when it is the same.
        self._recent: dict[tuple[str, str, str], tuple[set[int], float]] = {}

    def take(self, slot: int, asked: Ask) -> None:
        """
        Take an event of worker `slot`.
        """
        level, namespace, text = asked.arguments
        key = (level, namespace, text)
        now = self._seconds()
        slots, until = self._recent.get(key, (set(), 0.0))
        if now < until and slot not in slots:
            slots.add(slot)
            return
        if len(self._recent) >= self.MOST:
            self._recent.clear()
        self._recent[key] = ({slot}, now + self.SAME_SECONDS)
        self._write(level, namespace, text)


def _log_event(level: str, namespace: str, text: str) -> None:
    known: Any = LogLevel.levelWithName(level)
    Logger(namespace=namespace).emit(known, "{text}", text=text)
