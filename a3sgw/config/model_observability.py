"""
Seeing the gateway: its dashboard, access log, metrics and traces.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

import re

import attrs

from a3sgw.config.kinds import ADDRESS, FLAG, HTTP_URL, NAME, NETWORK, OUTPUT_FILE, SECRET, USER_NAME, Integer, Number, Text, Word
from a3sgw.config.setting import ListKind, ObjectKind, setting
from a3sgw.config.values import Secret

__all__ = ["AccessLogConfig", "DashboardConfig", "MetricsConfig", "ObservabilityConfig", "TracingConfig"]

_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+", re.ASCII).fullmatch


def _check_prefix(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError('which does not begin with "/"')
    if text.endswith("/"):
        raise ValueError('which ends with "/"; leave the last slash out')
    if _PREFIX(text) is None:
        raise ValueError("which is not made of letters, digits and . _ ~ - between single slashes")
    return text


@attrs.frozen(kw_only=True)
class DashboardConfig:
    """
    The gateway's own API: health, metrics, configuration, routes and services. It answers only the addresses allowed here; for everybody
    else it does not exist. A request that came through a proxy is judged by its resolved client address and never counts as local.
    """

    enabled: bool = setting(FLAG, "Whether there is one.", default=True)
    address: str | None = setting(ADDRESS, "A listener of its own; see [addresses](#addresses).", default=None)
    entrypoints: tuple[str, ...] = setting(ListKind(NAME), "Which http entrypoints answer it; empty means all.", default=())
    path_prefix: str = setting(Text('a path like "/api/gateway"', _check_prefix), "What its paths begin with.", default="/api/gateway")
    allowed_ips: tuple[str, ...] = setting(ListKind(NETWORK, min_items=1), "Who may ask.", default=("127.0.0.0/8", "::1"))
    username: str | None = setting(USER_NAME, "The user's name, together with `password`.", default=None)
    password: Secret | None = setting(SECRET, "The password to ask for.", default=None)
    keys: tuple[Secret, ...] = setting(
        ListKind(SECRET), "Keys, one of which must come in the header `X-API-Key`; either these or name and password let in.", default=()
    )


@attrs.frozen(kw_only=True)
class AccessLogConfig:
    """
    One line for each request.
    """

    enabled: bool = setting(FLAG, "Whether there is one.", default=True)
    format: str = setting(Word(("json", "common", "combined")), "What a line looks like.", default="json")
    file: str | None = setting(OUTPUT_FILE, "Where it is written; without it, to the standard output.", default=None)
    buffer_bytes: int = setting(
        Integer(minimum=4096, maximum=2**30, unit="bytes"),
        "How much may wait to be written; lines beyond are dropped and counted.",
        default=8388608,
    )
    redact_query: bool = setting(FLAG, "Whether query strings are left out.", default=False)


@attrs.frozen(kw_only=True)
class MetricsConfig:
    """
    What is counted.
    """

    buckets: tuple[float, ...] = setting(
        ListKind(Number(minimum=0.0, excludes_minimum=True, unit="seconds"), min_items=1),
        "Upper bounds of the buckets of durations, rising.",
        default=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    )


@attrs.frozen(kw_only=True)
class TracingConfig:
    """
    Spans of requests, sent to a collector.
    """

    otlp_endpoint: str | None = setting(HTTP_URL, "The collector; without it spans are not sent.", default=None)
    propagation: str = setting(Word(("w3c", "b3", "zipkin")), "Which headers servers get; `zipkin` means `b3`.", default="w3c")
    sample_rate: float = setting(Number(minimum=0.0, maximum=1.0), "The part of requests that is recorded.", default=1.0)
    service_name: str = setting(NAME, "What the gateway is called there.", default="a3s-gateway")


@attrs.frozen(kw_only=True)
class ObservabilityConfig:
    """
    What the gateway tells about its work.
    """

    access_log: AccessLogConfig = setting(ObjectKind(AccessLogConfig), "The access log.", default=AccessLogConfig())
    metrics: MetricsConfig = setting(ObjectKind(MetricsConfig), "Metrics, shown by the dashboard's `/metrics`.", default=MetricsConfig())
    tracing: TracingConfig | None = setting(ObjectKind(TracingConfig), "Traces.", default=None, runs=False)
