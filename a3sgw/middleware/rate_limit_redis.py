"""
`rate-limit-redis`: the same limit as `rate-limit`, shared by several gateways through Redis.

What is asked of Redis is in `redis_bucket`, over which connection in `redis_link`.

A refused request changes nothing, so a bucket that has just refused will refuse until a token has come, whoever asks. That is remembered
here for up to a second: who insists costs Redis one question a second, and is refused at once otherwise.

When Redis does not answer within the time given, or is known not to, the request passes uncounted or is answered 503, as configured.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from a3sgw.config.kinds import FILE, FLAG, Integer, SecretText
from a3sgw.config.redis_url import parse_redis_url
from a3sgw.config.setting import label, setting
from a3sgw.config.values import Secret
from a3sgw.errors import Outcome
from a3sgw.interfaces import IRequestHook, IResponseHook, IRetirable, IStateSource
from a3sgw.message import LocalResponse, ResponseHead
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.quota import Quota, burst_setting, headers_setting, period_setting, rate_setting
from a3sgw.middleware.redis_bucket import RedisBuckets, read_verdict
from a3sgw.middleware.redis_endpoint import Opener, greeting_for, make_opener
from a3sgw.middleware.redis_link import RedisLink, Unanswered
from a3sgw.middleware.source import (
    ipv4_prefix_setting,
    ipv6_prefix_setting,
    key_reader,
    source_header_setting,
    source_problems,
    source_setting,
)
from a3sgw.middleware.surroundings import Surroundings
from a3sgw.refusal import refusal
from a3sgw.wire.resp import ErrorReply, Reply

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["RateLimitRedis", "RateLimitRedisConfig", "factory"]

_REFUSALS: Final = 10_000
_REMEMBERED_SECS: Final = 1.0
_QUIET_SECS: Final = 10.0
"""How long after an outage the log does not tell of another: a Redis that comes and goes must not fill it."""
_ELSEWHERE: Final = frozenset(["READONLY", "MASTERDOWN"])
"""Errors after which a new connection may lead to another server: this one is a replica now."""


def _check_redis_url(text: str) -> str:
    parse_redis_url(text)
    return text


@attrs.frozen(kw_only=True)
class RateLimitRedisConfig:
    """
    The same limit as `rate-limit`, shared by several gateways through Redis: all of them together admit no more than one would.

    The buckets of a router are found by its name and the middleware's; gateways whose `rate` or `burst` differ judge the same buckets, each
    by its own numbers. The clock is Redis's. It takes Redis 5 or later, or what speaks as it does, such as Valkey; the redirections of a
    Redis Cluster are not followed.

    A request waits for Redis at most `timeout_ms`. While Redis is known not to answer, requests do not wait at all: they pass uncounted or,
    with `fail_open = false`, are answered 503. The connection is made by the first request, and by itself after every outage.

    The keys in Redis hold client addresses and hosts as they are, but only hashes of header values, which may be secrets.
    """

    type: ClassVar[str] = "rate-limit-redis"
    example: ClassVar[str] = """
        middlewares "per-client" {
          type      = "rate-limit-redis"
          rate      = 100
          burst     = 200
          redis_url = "rediss://gateway:${REDIS_PASSWORD}@redis.internal:6380/0"
        }
        """

    name: str = label()
    rate: int = rate_setting()
    period_secs: int = period_setting()
    burst: int | None = burst_setting()
    redis_url: Secret = setting(
        SecretText("a URL that begins with redis://, rediss:// or unix://", _check_redis_url),
        "Where Redis is: `redis://[[user]:password@]host[:port][/db]`, the same with `rediss://` for TLS, or "
        "`unix://[[user]:password@]/path[?db=n]`; secret, as it may hold a password.",
    )
    redis_ca_file: str | None = setting(
        FILE, "PEM file of the authorities that may vouch for a `rediss://` server; without it, the system's.", default=None
    )
    redis_cert_file: str | None = setting(FILE, "PEM file of the gateway's own certificate, together with `redis_key_file`.", default=None)
    redis_key_file: str | None = setting(FILE, "PEM file of its key.", default=None)
    timeout_ms: int = setting(
        Integer(minimum=1, maximum=60_000, unit="milliseconds"), "How long a request waits for Redis at most.", default=100
    )
    fail_open: bool = setting(
        FLAG, "Whether requests pass, uncounted, while Redis does not answer; if not, they are answered 503.", default=True
    )
    source: str = source_setting()
    header: str | None = source_header_setting()
    ipv4_prefix: int = ipv4_prefix_setting()
    ipv6_prefix: int = ipv6_prefix_setting()
    headers: bool = headers_setting()

    def problems(self) -> Iterator[tuple[str, str]]:
        """
        Give what is wrong, by attribute.
        """
        yield from source_problems(self)
        if (self.redis_cert_file is None) is not (self.redis_key_file is None):
            given, lacking = ("cert", "key") if self.redis_key_file is None else ("key", "cert")
            yield f"redis_{given}_file", f"has redis_{given}_file without redis_{lacking}_file; give both"
        if not parse_redis_url(self.redis_url.reveal()).is_tls:
            for key in ("redis_ca_file", "redis_cert_file"):
                if getattr(self, key) is not None:
                    yield key, f"has {key}, but its redis_url asks for no TLS; write rediss://"


@attrs.frozen
class _Refusal:
    """
    What is known of a client that was refused, in times of our own clock: a token comes at `token_at`, and the last one at `full_at`.
    Redis is asked again at `ask_at`.
    """

    ask_at: float
    token_at: float
    full_at: float


@implementer(IRequestHook, IStateSource, IRetirable)
class RateLimitRedis:
    """
    The limit of one router or entrypoint, with a connection of its own. It provides `IResponseHook` if clients are to be told how they
    stand.

    `open_connection` stands in for the network.
    """

    _log = Logger()

    def __init__(self, config: RateLimitRedisConfig, surroundings: Surroundings, open_connection: Opener | None = None) -> None:
        address = parse_redis_url(config.redis_url.reveal())
        if open_connection is None:
            files = (config.redis_ca_file, config.redis_cert_file, config.redis_key_file)
            open_connection = make_opener(address, surroundings.reactor, *files)
        self._quota = quota = Quota(config.rate, config.period_secs, config.burst)
        self._key_of = key_reader(config)
        self._buckets = RedisBuckets(quota, surroundings.owner, config.name, config.source)
        self._link = RedisLink(
            str(address), open_connection, greeting_for(address), surroundings.reactor, surroundings.seconds, surroundings.chance
        )
        self._seconds = surroundings.seconds
        self._timeout = config.timeout_ms / 1000
        self._fail_open = config.fail_open
        self._tells = config.headers
        self._refusals: dict[bytes, _Refusal] = {}
        self._unchecked = 0
        self._owner = f"{config.name} of {surroundings.owner}"
        self._has_told = False
        self._quiet_until = 0.0
        if config.headers:
            alsoProvides(self, IResponseHook)

    def __repr__(self) -> str:
        return f"<RateLimitRedis {self._quota!r} by {self._link!r}>"

    # -- requests

    def on_request(self, exchange: Exchange) -> LocalResponse | Deferred[LocalResponse | None] | None:
        """
        Ask Redis for a token, unless it is known what it will say, or that it will say nothing.
        """
        head = exchange.head
        assert head is not None
        key = self._key_of(head)
        now = self._seconds()
        known = self._refusals.get(key)
        if known is not None:
            if now < known.ask_at:
                return self._refuse(exchange, known.token_at - now, known.full_at - now)
            del self._refusals[key]
        link = self._link
        if not link.is_available:
            return self._go_unchecked(exchange, link.trouble)
        answer: Deferred[Any] = link.ask(self._buckets.take_by_hash(key), now + self._timeout)
        answer.addCallback(self._answered_by_hash, exchange, key, now)
        answer.addErrback(self._unanswered, exchange)
        return answer

    def _answered_by_hash(self, reply: Reply, exchange: Exchange, key: bytes, asked: float) -> LocalResponse | Deferred[Any] | None:
        if isinstance(reply, ErrorReply) and reply.code == "NOSCRIPT" and self._link.is_available:
            # Redis was restarted, or its scripts were flushed. With the whole script it knows it again.
            answer: Deferred[Any] = self._link.ask(self._buckets.take_by_script(key), asked + self._timeout)
            return answer.addCallback(self._answered, exchange, key, asked)
        return self._answered(reply, exchange, key, asked)

    def _answered(self, reply: Reply, exchange: Exchange, key: bytes, asked: float) -> LocalResponse | None:
        if isinstance(reply, ErrorReply):
            if reply.code in _ELSEWHERE:
                self._link.give_up(f"answers {reply.text}")
            return self._go_unchecked(exchange, f"answers {reply.text}")
        verdict = read_verdict(reply)
        if verdict is None:
            return self._go_unchecked(exchange, "does not answer as the script does")
        if self._has_told:
            self._tell_of_end()
        is_admitted, tokens = verdict
        quota = self._quota
        reset = max(0.0, (quota.burst - tokens) / quota.per_second)
        if is_admitted:
            exchange.notes[self] = (int(tokens), reset)
            return None
        wait = (1.0 - tokens) / quota.per_second
        if len(self._refusals) >= _REFUSALS:
            self._refusals.clear()
        # From when we asked, which was before Redis looked at its clock: who is refused here would be refused there.
        self._refusals[key] = _Refusal(asked + min(wait, _REMEMBERED_SECS), asked + wait, asked + reset)
        return self._refuse(exchange, wait, reset)

    def _refuse(self, exchange: Exchange, wait: float, reset: float) -> LocalResponse:
        assert exchange.head is not None
        told = reset if self._tells else None
        return self._quota.refusal(exchange.head.request_id, wait, told, "Rate limit exceeded (distributed)")

    def on_response(self, exchange: Exchange, head: ResponseHead) -> None:
        """
        Tell the client how it stood when its request was admitted, if that is known.
        """
        known = exchange.notes.get(self)
        if known is not None:
            self._quota.announce(head.fields, *known)

    # -- without Redis

    def _unanswered(self, failure: Failure, exchange: Exchange) -> LocalResponse | None:
        # Cancelled: the client has left, and nobody is interested.
        if failure.trap(Unanswered, CancelledError) is CancelledError:
            return None
        return self._go_unchecked(exchange, str(failure.value))

    def _go_unchecked(self, exchange: Exchange, trouble: str) -> LocalResponse | None:
        self._unchecked += 1
        if not self._has_told and self._seconds() >= self._quiet_until:
            self._has_told = True
            self._log.warn(
                "rate limit {owner}: Redis at {where} {trouble}; requests {consequence} until it answers",
                owner=self._owner,
                where=self._link.where,
                trouble=trouble,
                consequence="pass uncounted" if self._fail_open else "are answered 503",
            )
        if self._fail_open:
            return None
        assert exchange.head is not None
        return refusal(Outcome.RATE_LIMIT_UNAVAILABLE, exchange.head.request_id)

    def _tell_of_end(self) -> None:
        self._has_told = False
        self._quiet_until = self._seconds() + _QUIET_SECS
        self._log.info("rate limit {owner}: Redis at {where} answers again", owner=self._owner, where=self._link.where)

    # -- for the chain's owner

    def describe(self) -> Mapping[str, str | int | float]:
        """
        Return the limit, how the connection stands, and how many requests could not be checked.
        """
        quota = self._quota
        return {"rate": quota.per_second, "burst": quota.burst, "redis": self._link.state, "unchecked": self._unchecked}

    def retire(self) -> None:
        """
        Close the connection as soon as all that was asked has been answered.
        """
        self._link.close()


factory = MiddlewareFactory(RateLimitRedisConfig, RateLimitRedis)
