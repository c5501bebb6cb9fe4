"""
Middlewares: one class per type, and the table that finds it.

An attribute that a class does not declare cannot be written for its type. `one_of` names attributes of which exactly one must be written;
`runs` says whether this version runs the type.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

from typing import ClassVar, Union

import attrs

from a3sgw.config.kinds import (
    FILE,
    HEADER_MAP,
    HEADER_NAME,
    HTTP_URL,
    METHOD,
    NETWORK,
    PATH,
    SECRET,
    USER_NAME,
    Integer,
    SecretText,
    Text,
)
from a3sgw.config.setting import ListKind, label, setting
from a3sgw.config.values import FrozenMap, Secret

__all__ = [
    "MIDDLEWARE_TYPES",
    "ApiKeyConfig",
    "BasicAuthConfig",
    "BodyLimitConfig",
    "CircuitBreakerConfig",
    "CompressConfig",
    "CorsConfig",
    "ForwardAuthConfig",
    "HeadersConfig",
    "IpAllowConfig",
    "JwtConfig",
    "MiddlewareConfig",
    "RateLimitConfig",
    "RateLimitRedisConfig",
    "RetryConfig",
    "StripPrefixConfig",
    "TcpFilterConfig",
]

_AT_LEAST_ONE = Integer(minimum=1, maximum=2**32 - 1)
_SECONDS_AT_LEAST_ONE = Integer(minimum=1, maximum=366 * 86400, unit="seconds")


def _check_redis_url(text: str) -> str:
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("which does not begin with redis://, rediss:// or unix://")
    return text


def _check_origin(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if text not in ("*", "null") and (not separator or not scheme or not rest or "/" in rest or not text.isprintable() or " " in text):
        raise ValueError('which is neither "*" nor an origin like "https://app.example.com"')
    return text


def _check_star_or_header(text: str) -> str:
    return text if text == "*" else str(HEADER_NAME.read(text, False))


_ORIGIN = Text('an origin like "https://app.example.com", or "*"', _check_origin)
_HEADER_OR_STAR = Text('a header name, or "*"', _check_star_or_header)


@attrs.frozen(kw_only=True)
class ApiKeyConfig:
    """
    Let through only requests that bear one of some keys in a header. Give `keys` or `keys_file`.
    """

    type: ClassVar[str] = "api-key"
    runs: ClassVar[bool] = False
    one_of: ClassVar[tuple[str, ...]] = ("keys", "keys_file")

    name: str = label()
    header: str = setting(HEADER_NAME, "The header that bears the key.", default="X-API-Key")
    keys: tuple[Secret, ...] = setting(ListKind(SECRET, min_items=1), "The keys.", default=())
    keys_file: str | None = setting(FILE, "A file with one key on each line.", default=None)


@attrs.frozen(kw_only=True)
class BasicAuthConfig:
    """
    Ask for a user's name and password. Give `password` or `password_file`.
    """

    type: ClassVar[str] = "basic-auth"
    runs: ClassVar[bool] = False
    one_of: ClassVar[tuple[str, ...]] = ("password", "password_file")

    name: str = label()
    username: str = setting(USER_NAME, "The user's name.")
    password: Secret | None = setting(SECRET, "The password.", default=None)
    password_file: str | None = setting(FILE, "A file that holds the password.", default=None)


@attrs.frozen(kw_only=True)
class JwtConfig:
    """
    Let through only requests with a valid JSON Web Token. Give `value` or `value_file`.
    """

    type: ClassVar[str] = "jwt"
    runs: ClassVar[bool] = False
    one_of: ClassVar[tuple[str, ...]] = ("value", "value_file")

    name: str = label()
    header: str = setting(HEADER_NAME, "The header that bears the token.", default="Authorization")
    value: Secret | None = setting(SECRET, "The HS256 secret; fewer than 32 bytes are worth a warning.", default=None)
    value_file: str | None = setting(FILE, "A file that holds the secret.", default=None)


@attrs.frozen(kw_only=True)
class ForwardAuthConfig:
    """
    Ask another service whether a request may pass.
    """

    type: ClassVar[str] = "forward-auth"
    runs: ClassVar[bool] = False

    name: str = label()
    forward_auth_url: str = setting(HTTP_URL, "Whom to ask; an answer in the 200s means yes, any other goes to the client.")
    forward_auth_response_headers: tuple[str, ...] = setting(
        ListKind(HEADER_NAME), "Headers of that answer which replace the request's.", default=()
    )


@attrs.frozen(kw_only=True)
class RateLimitConfig:
    """
    Limit how many requests pass, by a bucket that is refilled continuously.
    """

    type: ClassVar[str] = "rate-limit"
    runs: ClassVar[bool] = False

    name: str = label()
    rate: int = setting(_AT_LEAST_ONE, "Requests per second.")
    burst: int | None = setting(_AT_LEAST_ONE, "How many may come at once; without it, as many as `rate`.", default=None)


@attrs.frozen(kw_only=True)
class RateLimitRedisConfig:
    """
    The same limit, shared by several gateways through Redis.
    """

    type: ClassVar[str] = "rate-limit-redis"
    runs: ClassVar[bool] = False

    name: str = label()
    rate: int = setting(_AT_LEAST_ONE, "Requests per second.")
    burst: int | None = setting(_AT_LEAST_ONE, "How many may come at once; without it, as many as `rate`.", default=None)
    redis_url: Secret = setting(
        SecretText("a URL that begins with redis:// or rediss://", _check_redis_url), "Where Redis is; secret, as it may hold a password."
    )


@attrs.frozen(kw_only=True)
class CorsConfig:
    """
    Tell browsers which other sites may use these resources.
    """

    type: ClassVar[str] = "cors"
    runs: ClassVar[bool] = False

    name: str = label()
    allowed_origins: tuple[str, ...] = setting(ListKind(_ORIGIN), "The sites; `*` is every site.", default=("*",))
    allowed_methods: tuple[str, ...] = setting(
        ListKind(METHOD), "What they may do.", default=("GET", "POST", "PUT", "DELETE", "OPTIONS")
    )
    allowed_headers: tuple[str, ...] = setting(
        ListKind(_HEADER_OR_STAR), "Which headers they may send.", default=("Content-Type", "Authorization")
    )
    max_age: int = setting(Integer(maximum=366 * 86400, unit="seconds"), "How long browsers may remember this.", default=86400)


@attrs.frozen(kw_only=True)
class HeadersConfig:
    """
    Set headers of requests and responses; an empty value removes the header. Values that come from the environment are kept secret.
    """

    type: ClassVar[str] = "headers"
    runs: ClassVar[bool] = False

    name: str = label()
    request_headers: FrozenMap[str, Union[str, Secret]] = setting(HEADER_MAP, "What servers get.", default=FrozenMap())
    response_headers: FrozenMap[str, Union[str, Secret]] = setting(HEADER_MAP, "What clients get.", default=FrozenMap())


@attrs.frozen(kw_only=True)
class StripPrefixConfig:
    """
    Cut a prefix off the path before the server sees it.
    """

    type: ClassVar[str] = "strip-prefix"
    runs: ClassVar[bool] = False

    name: str = label()
    prefixes: tuple[str, ...] = setting(ListKind(PATH), "The prefixes; the longest that fits is cut.", default=())


@attrs.frozen(kw_only=True)
class BodyLimitConfig:
    """
    Refuse requests whose body is too large, with 413.
    """

    type: ClassVar[str] = "body-limit"
    runs: ClassVar[bool] = False

    name: str = label()
    max_body_bytes: int = setting(Integer(minimum=1, unit="bytes"), "The largest body.")


@attrs.frozen(kw_only=True)
class RetryConfig:
    """
    Try again, on another server if there is one, when a server fails.
    """

    type: ClassVar[str] = "retry"
    runs: ClassVar[bool] = False

    name: str = label()
    max_retries: int = setting(Integer(minimum=1, maximum=100), "How many more attempts.", default=3)
    retry_interval_ms: int = setting(Integer(maximum=3_600_000, unit="milliseconds"), "The pause before each.", default=100)


@attrs.frozen(kw_only=True)
class CircuitBreakerConfig:
    """
    Stop asking a service that keeps failing, and try again after a while.
    """

    type: ClassVar[str] = "circuit-breaker"
    runs: ClassVar[bool] = False

    name: str = label()
    failure_threshold: int = setting(_AT_LEAST_ONE, "How many failures in a row open the circuit.", default=5)
    cooldown_secs: int = setting(_SECONDS_AT_LEAST_ONE, "How long it stays open.", default=30)
    success_threshold: int = setting(_AT_LEAST_ONE, "How many successes close it again.", default=1)


@attrs.frozen(kw_only=True)
class IpAllowConfig:
    """
    Let through only some addresses; others are answered 403.
    """

    type: ClassVar[str] = "ip-allow"
    runs: ClassVar[bool] = False

    name: str = label()
    allowed_ips: tuple[str, ...] = setting(ListKind(NETWORK, min_items=1), "Who may pass.")


@attrs.frozen(kw_only=True)
class CompressConfig:
    """
    Compress responses with brotli, gzip or deflate, whichever the client prefers. There is nothing to set.
    """

    type: ClassVar[str] = "compress"
    runs: ClassVar[bool] = False

    name: str = label()


@attrs.frozen(kw_only=True)
class TcpFilterConfig:
    """
    Limit who connects to routers of tcp entrypoints, and how many at a time. Give at least one attribute.
    """

    type: ClassVar[str] = "tcp-filter"
    runs: ClassVar[bool] = False

    name: str = label()
    max_connections: int | None = setting(
        Integer(maximum=2**32 - 1), "How many connections at a time; without it there is no bound.", default=None
    )
    allowed_ips: tuple[str, ...] = setting(ListKind(NETWORK, min_items=1), "Who may connect; without it everybody.", default=())


MiddlewareConfig = Union[
    ApiKeyConfig,
    BasicAuthConfig,
    JwtConfig,
    ForwardAuthConfig,
    RateLimitConfig,
    RateLimitRedisConfig,
    CorsConfig,
    HeadersConfig,
    StripPrefixConfig,
    BodyLimitConfig,
    RetryConfig,
    CircuitBreakerConfig,
    IpAllowConfig,
    CompressConfig,
    TcpFilterConfig,
]

MIDDLEWARE_TYPES: dict[str, type] = {
    cls.type: cls
    for cls in (
        ApiKeyConfig,
        BasicAuthConfig,
        JwtConfig,
        ForwardAuthConfig,
        RateLimitConfig,
        RateLimitRedisConfig,
        CorsConfig,
        HeadersConfig,
        StripPrefixConfig,
        BodyLimitConfig,
        RetryConfig,
        CircuitBreakerConfig,
        IpAllowConfig,
        CompressConfig,
        TcpFilterConfig,
    )
}
"""The configuration class of each `type`, in the order of the reference."""
