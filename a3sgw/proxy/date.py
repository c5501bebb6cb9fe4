"""
The `Date` field for backends that send none (RFC 9110 section 6.6.1).

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from time import time

__all__ = ["date_line"]


class _Date:
    """
    The field as an HTTP/1 line, formatted once a second.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._second = 0
        self._line = b""

    def line(self) -> bytes:
        second = int(self._seconds())
        if second != self._second:
            self._second = second
            self._line = b"Date: " + formatdate(second, usegmt=True).encode("ascii")
        return self._line


date_line = _Date(time).line
