"""
Agree with a PostgreSQL server on TLS, on behalf of a client that has been told already that it may begin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from a3sgw.errors import Outcome
from a3sgw.interfaces import IReceiver
from a3sgw.net.deadline import NEVER
from a3sgw.wire.postgres import SSL_REQUEST

__all__ = ["Agreement"]


@implementer(IReceiver)
class Agreement:
    """
    Asks the server at the other end of `stream`, and waits for its answer for `timeout` seconds.

    Calls `done` once: with `None` if the server agrees, else with the outcome; unless `cancel` came first.
    """

    __slots__ = ("_done", "_stream")

    def __init__(self, stream: Any, timeout: float, done: Callable[[Outcome | None], None]) -> None:
        self._stream = stream
        self._done: Callable[[Outcome | None], None] | None = done
        stream.receiver = self
        stream.deadline = stream.now() + timeout
        stream.write(SSL_REQUEST)

    def cancel(self) -> None:
        """
        Nobody wants to know any more.
        """
        self._done = None

    def _report(self, outcome: Outcome | None) -> None:
        done, self._done = self._done, None
        self._stream.deadline = NEVER
        if done is not None:
            done(outcome)

    def data_received(self, data: bytes) -> None:
        """
        The answer is a single byte. Who says more before TLS has begun may not be the server (CVE-2021-23222).
        """
        self._report(None if data == b"S" else Outcome.BACKEND_TLS_REFUSED)

    def eof_received(self) -> None:
        """
        The server does not want to talk.
        """
        self._report(Outcome.BACKEND_CLOSED)

    def stream_lost(self, error: BaseException | None) -> None:
        """
        The server is gone.
        """
        self._report(Outcome.BACKEND_CLOSED)

    def stream_congested(self) -> None:
        """
        Eight bytes congest nothing.
        """

    def stream_drained(self) -> None:
        """
        Eight bytes congest nothing.
        """

    def deadline_passed(self) -> None:
        """
        The server has had its time.
        """
        self._report(Outcome.CONNECT_TIMEOUT)
