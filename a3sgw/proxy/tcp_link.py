"""
A connection to a tcp server, as a pool lends it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["TcpLink"]


class TcpLink:
    """
    A fresh connection to a server, which a pool has made and counts.
    """

    __slots__ = ("_pool", "stream")

    was_used = False

    def __init__(self, stream: Any, pool: Any) -> None:
        self.stream = stream
        self._pool = pool

    def abort(self) -> None:
        """
        Break it off.
        """
        self.stream.abort()
        self.discard()

    def discard(self) -> None:
        """
        Let the pool count it no more: the stream is gone.
        """
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.discard(self)

    # -- what the stream reports before anybody else listens to it: nothing, because who leases it does so at once

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> None: ...

    def stream_lost(self, error: BaseException | None) -> None: ...

    def stream_congested(self) -> None: ...

    def stream_drained(self) -> None: ...

    def deadline_passed(self) -> None: ...
