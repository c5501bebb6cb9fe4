"""
`rate-limit`: limit how many requests of each client pass, by a bucket that is refilled continuously.

What is decided and what is forgotten when there are too many clients is in `a3sgw.policy.bucket`, who counts as one client in `source`, and
what clients are told in `quota`.

Costs under CPython 3.11: 0.7 µs for a request that is admitted and 1.0 µs for telling its client how it stands, 0.2 µs in all without
that; 3.5 µs for one that is refused, a twentieth of what proxying it would cost; 130 bytes a client.

Hot path: see docs/hot-path.md.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import attrs
from zope.interface import alsoProvides, implementer

from a3sgw.config.kinds import Integer
from a3sgw.config.setting import label, setting
from a3sgw.interfaces import IRequestHook, IResponseHook, IStateSource
from a3sgw.message import LocalResponse, ResponseHead
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.quota import Quota, burst_setting, headers_setting, period_setting, rate_setting
from a3sgw.middleware.source import (
    ipv4_prefix_setting,
    ipv6_prefix_setting,
    key_reader,
    source_header_setting,
    source_problems,
    source_setting,
)
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.policy.bucket import Buckets
from a3sgw.policy.shared_bucket import SharedBuckets

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["RateLimit", "RateLimitConfig", "factory"]


@attrs.frozen(kw_only=True)
class RateLimitConfig:
    """
    Limit how many requests of each client pass, by a bucket that is refilled continuously; others are answered 429.

    Each client may send `burst` requests at once and `rate` per second in the long run. Who is refused learns in `Retry-After` when the
    next request will pass; being refused costs nothing. A client is the address that trusted proxies vouch for.

    To limit each user, or each holder of an API key, list the middleware that checks them before this one and name the header that it sets:
    what clients themselves send under that name is removed, so nobody can borrow another's limit or invent new ones. Of a header that no
    middleware sets, clients can send any value, and have a new limit with each.

    Each router and entrypoint that lists it counts for itself, and anew when one of these attributes is changed. Where several gateways
    share the traffic use `rate-limit-redis`.
    """

    type: ClassVar[str] = "rate-limit"
    example: ClassVar[str] = """
        middlewares "per-user" {
          type        = "rate-limit"
          rate        = 600
          period_secs = 60
          burst       = 50
          source      = "header"
          header      = "X-Jwt-Subject"
        }
        """

    name: str = label()
    rate: int = rate_setting()
    period_secs: int = period_setting()
    burst: int | None = burst_setting()
    source: str = source_setting()
    header: str | None = source_header_setting()
    ipv4_prefix: int = ipv4_prefix_setting()
    ipv6_prefix: int = ipv6_prefix_setting()
    max_clients: int = setting(
        Integer(minimum=1, maximum=100_000_000),
        "How many clients are remembered, at 130 bytes each. If more come before the first are forgotten in their turn, those that have "
        "asked for least are forgotten early, and may ask for more.",
        default=100_000,
    )
    headers: bool = headers_setting()

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Give what is wrong, by attribute.
        """
        return source_problems(self)


@implementer(IRequestHook, IStateSource)
class RateLimit:
    """
    The buckets of one router or entrypoint. It provides `IResponseHook` if clients are to be told how they stand.
    """

    def __init__(self, config: RateLimitConfig, surroundings: Surroundings) -> None:
        self._quota = quota = Quota(config.rate, config.period_secs, config.burst)
        self._buckets: Buckets | SharedBuckets
        if surroundings.arena is None:
            self._buckets = Buckets(quota.per_second, quota.burst, config.max_clients, surroundings.chance)
        else:
            name = ("rate-limit", surroundings.owner, config)
            self._buckets = SharedBuckets(quota.per_second, quota.burst, config.max_clients, surroundings.arena, name)
        self._key_of = key_reader(config)
        self._seconds = surroundings.seconds
        self._tells = config.headers
        if config.headers:
            alsoProvides(self, IResponseHook)

    def __repr__(self) -> str:
        return f"<RateLimit {self._buckets!r}>"

    def on_request(self, exchange: Exchange) -> LocalResponse | None:
        """
        Take a token, or refuse.
        """
        head = exchange.head
        assert head is not None
        key = self._key_of(head)
        now = self._seconds()
        buckets = self._buckets
        wait = buckets.take(key, now)
        if not self._tells:
            return self._quota.refusal(head.request_id, wait, None) if wait else None
        if wait:
            return self._quota.refusal(head.request_id, wait, buckets.reset(key, now))
        exchange.notes[self] = (buckets.remaining(key, now), buckets.reset(key, now))
        return None

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        """
        Tell the client how it stood when its request was admitted.
        """
        self._quota.announce(head.fields, *exchange.notes[self])

    def describe(self) -> Mapping[str, str | int | float]:
        """
        Return the limit, and how many clients are remembered.
        """
        buckets = self._buckets
        return {"rate": buckets.rate, "burst": buckets.burst, "clients": len(buckets), "max_clients": buckets.max_keys}


factory = MiddlewareFactory(RateLimitConfig, RateLimit)
