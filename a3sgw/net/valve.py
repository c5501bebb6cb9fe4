"""
Name the reasons for which a stream is not being read.

Back-pressure is a set of pausers per stream, one bit each: reading stops with the first and goes on when none is left. So two reasons
never undo each other, and a stalled stream can say who holds it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CLIENT_SLOW", "PIPELINE", "UPSTREAM_SLOW", "WAITING_ROOM", "pauser_names"]

CLIENT_SLOW: Final = 1
"""The client does not take the response as fast as the backend sends it."""

UPSTREAM_SLOW: Final = 2
"""The backend does not take the request body as fast as the client sends it."""

WAITING_ROOM: Final = 4
"""The exchange waits for a decision or a connection and has nowhere to send the body."""

PIPELINE: Final = 8
"""The client has sent enough further requests for now."""

_NAMES: Final = {CLIENT_SLOW: "client-slow", UPSTREAM_SLOW: "upstream-slow", WAITING_ROOM: "waiting-room", PIPELINE: "pipeline"}


def pauser_names(pausers: int) -> str:
    """
    Return the names of the bits in `pausers`, for `repr`.
    """
    return ",".join(name for bit, name in _NAMES.items() if pausers & bit) or "none"
