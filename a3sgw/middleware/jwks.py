"""
Keep the keys of a JWKS URL at hand.

Nothing is asked before the first request needs a key. Then the set is fetched again from time to time in the background, so a request only
waits while there are no keys at all. A URL that fails leaves the last good set in use, and is asked again after a pause that grows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from a3sgw.errors import UpstreamError
from a3sgw.message import LocalResponse, make_field
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.policy.token import Key, read_jwks

__all__ = ["KeySet"]


class KeySet:
    """
    The keys of one URL. `changed` is called with each new set.

    `refresh` is how long a set is used before it is fetched again, in seconds; `timeout` bounds each fetch.
    """

    MAX_BYTES: Final = 1 << 20
    FIRST_PAUSE: Final = 1.0
    LONGEST_PAUSE: Final = 60.0
    UNKNOWN_KEY_PAUSE: Final = 30.0
    """How often at most an unknown key makes us look for new ones: whoever makes tokens up must not make us ask."""

    _log = Logger()

    def __init__(
        self, url: str, surroundings: Surroundings, refresh: float, timeout: float, changed: Callable[[list[Key]], None]
    ) -> None:
        parts = urlsplit(url)
        self._url = url
        self._target = (parts.path or "/").encode("ascii") + (b"?" + parts.query.encode("ascii") if parts.query else b"")
        self._destination = surroundings.outbound.open(url)
        self._seconds = surroundings.seconds
        self._reactor = surroundings.reactor
        self._refresh = refresh
        self._timeout = timeout
        self._changed = changed
        self._waiting: list[Deferred[None]] = []
        self._fetching: Deferred[Any] | None = None
        self._timer: Any = None
        self._pause = self.FIRST_PAUSE
        self._asked = float("-inf")
        self._is_closed = False
        self.has_keys = False

    def __repr__(self) -> str:
        return f"<KeySet of {self._url}>"

    def wait(self) -> Deferred[None]:
        """
        Return what fires when there are keys, or when the next attempt to get some has failed.
        """
        result: Deferred[None] = Deferred(self._forget)
        self._waiting.append(result)
        # After a failure the pause is kept, and whoever comes in it is told at once.
        if self._fetching is None:
            if self._timer is None:
                self._fetch()
            else:
                self._tell()
        return result

    def begin(self) -> None:
        """
        See to it that keys are being fetched, or have been.
        """
        if self._fetching is None and self._timer is None:
            self._fetch()

    def key_unknown(self) -> bool:
        """
        A token names a key that is not known: fetch the set anew, unless that was done lately. Returns whether there is hope.
        """
        if self._fetching is None and self._seconds() - self._asked >= self.UNKNOWN_KEY_PAUSE:
            self._fetch()
        return self._fetching is not None

    def wait_for_fetch(self) -> Deferred[None]:
        """
        Return what fires when the fetch under way has ended.
        """
        result: Deferred[None] = Deferred(self._forget)
        self._waiting.append(result)
        return result

    def close(self) -> None:
        """
        Fetch no more.
        """
        self._is_closed = True
        self._stop_timer()
        fetching, self._fetching = self._fetching, None
        if fetching is not None:
            fetching.cancel()
        self._tell()
        self._destination.close()

    def _forget(self, result: Deferred[None]) -> None:
        if result in self._waiting:
            self._waiting.remove(result)

    def _fetch(self) -> None:
        if self._is_closed:
            self._tell()
            return
        self._stop_timer()
        self._asked = self._seconds()
        fields = [make_field(b"Accept", b"application/jwk-set+json, application/json"), make_field(b"User-Agent", b"a3s-gateway")]
        fetching = self._destination.fetch(b"GET", self._target, fields, body=b"", timeout=self._timeout, max_body_bytes=self.MAX_BYTES)
        self._fetching = fetching
        fetching.addCallback(self._read).addErrback(self._failed)

    def _read(self, response: LocalResponse) -> None:
        if response.status != 200:
            raise ValueError(f"the answer has status {response.status}")
        keys = read_jwks(response.body)
        self._fetching = None
        self.has_keys = True
        self._pause = self.FIRST_PAUSE
        self._changed(keys)
        self._again_in(self._refresh)
        self._tell()

    def _failed(self, failure: Failure) -> None:
        if self._is_closed:
            return
        self._fetching = None
        failure.trap(ValueError, UpstreamError)
        self._log.warn(
            "the keys at {url} cannot be fetched, asking again in {pause:g} s: {reason}",
            url=self._url,
            pause=self._pause,
            reason=failure.getErrorMessage(),
        )
        self._again_in(self._pause)
        self._pause = min(self._pause * 2, self.LONGEST_PAUSE)
        self._tell()

    def _again_in(self, seconds: float) -> None:
        if not self._is_closed:
            self._timer = self._reactor.callLater(seconds, self._time_has_come)

    def _time_has_come(self) -> None:
        self._timer = None
        self._fetch()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for result in waiting:
            if not result.called:
                result.callback(None)
