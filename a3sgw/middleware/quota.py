"""
A rate limit in numbers, and what clients are told about it.

Clients are told in the three fields that most gateways send, after an early draft of the IETF's (draft-ietf-httpapi-ratelimit-headers-03):
how many requests may come at once, how many of them are left, and the seconds until all are. Who is refused also gets `Retry-After`, the
whole seconds after which one request will be admitted (RFC 9110 section 10.2.3).

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from math import ceil
from typing import Any, Final

from a3sgw.config.kinds import FLAG, Integer
from a3sgw.config.setting import setting
from a3sgw.errors import Outcome
from a3sgw.message import Field, LocalResponse, make_field
from a3sgw.refusal import refusal

__all__ = ["Quota", "burst_setting", "headers_setting", "period_setting", "rate_setting"]

_LIMIT: Final = b"ratelimit-limit"
_REMAINING: Final = b"ratelimit-remaining"
_RESET: Final = b"ratelimit-reset"
_NAMES: Final = frozenset([_LIMIT, _REMAINING, _RESET])
_NONE_LEFT: Final = make_field(b"RateLimit-Remaining", b"0")
_LONGEST_NUMBER: Final = 18

_AT_LEAST_ONE: Final = Integer(minimum=1, maximum=2**32 - 1)


def rate_setting() -> Any:
    """
    Declare `rate: int`.
    """
    return setting(_AT_LEAST_ONE, "Requests per second, or per `period_secs`.")


def period_setting() -> Any:
    """
    Declare `period_secs: int`.
    """
    return setting(
        Integer(minimum=1, maximum=366 * 86400, unit="seconds"),
        "What `rate` is per: `rate = 10` and `period_secs = 60` admit one request every 6 seconds.",
        default=1,
    )


def burst_setting() -> Any:
    """
    Declare `burst: int | None`.
    """
    return setting(_AT_LEAST_ONE, "How many may come at once; without it, as many as `rate`.", default=None)


def headers_setting() -> Any:
    """
    Declare `headers: bool`.
    """
    return setting(
        FLAG,
        "Tell clients how they stand, in `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` of every answer.",
        default=True,
    )


class Quota:
    """
    At most `burst` requests at once, and `per_second` in the long run.
    """

    __slots__ = ("_limit", "burst", "per_second")

    def __init__(self, rate: int, period: int, burst: int | None) -> None:
        self.per_second = rate / period
        self.burst = rate if burst is None else burst
        self._limit = make_field(b"RateLimit-Limit", b"%d" % self.burst)

    def __repr__(self) -> str:
        return f"<Quota {self.per_second:g}/s, burst {self.burst}>"

    def announce(self, fields: list[Field], remaining: int, reset: float) -> None:
        """
        Add to a response how its client stands: `remaining` requests could come at once, and after `reset` seconds all could.

        A response that tells of fewer already, because the server or a middleware behind this one has a limit of its own, is left as it is.
        """
        for field in fields:
            if field[0] in _NAMES:
                if not _replaces(fields, remaining):
                    return
                break
        left = b"%d" % remaining
        seconds = b"%d" % ceil(reset)
        fields += (
            self._limit,
            Field(_REMAINING, left, b"RateLimit-Remaining: " + left),
            Field(_RESET, seconds, b"RateLimit-Reset: " + seconds),
        )

    def refusal(self, request_id: bytes, wait: float, reset: float | None, message: str = "") -> LocalResponse:
        """
        Return the answer for a request that came too early by `wait` seconds, more than 0. Where `reset` is `None` clients are not told how
        they stand.
        """
        fields = [make_field(b"Retry-After", b"%d" % ceil(wait))]
        if reset is not None:
            fields += (self._limit, _NONE_LEFT, make_field(b"RateLimit-Reset", b"%d" % ceil(reset)))
        return refusal(Outcome.RATE_LIMITED, request_id, fields, message)


def _replaces(fields: list[Field], remaining: int) -> bool:
    """
    Take what is told already from `fields`, unless it leaves the client with no more than `remaining`.
    """
    for field in fields:
        if field[0] == _REMAINING and len(field[1]) <= _LONGEST_NUMBER and field[1].isdigit() and int(field[1]) <= remaining:
            return False
    fields[:] = [field for field in fields if field[0] not in _NAMES]
    return True
