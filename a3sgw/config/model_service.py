"""
Services: where requests go, and everything said about choosing, probing, scaling and replacing servers.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

import attrs

from a3sgw.config.address import parse_server_url
from a3sgw.config.kinds import (
    COOKIE_NAME,
    DOMAIN,
    FILE,
    FLAG,
    HOST,
    HTTP_URL,
    NAME,
    PATH,
    SECRET,
    SERVER_URL,
    Duration,
    Integer,
    Number,
    Word,
)
from a3sgw.config.setting import ListKind, ObjectKind, ObjectListKind, label, setting
from a3sgw.config.values import Secret

__all__ = [
    "ConnectionPoolConfig",
    "FailoverConfig",
    "HealthCheckConfig",
    "LoadBalancerConfig",
    "MirrorConfig",
    "PassiveHealthConfig",
    "RevisionConfig",
    "RolloutConfig",
    "ScalingConfig",
    "ServerConfig",
    "ServiceConfig",
    "ServiceTimeoutsConfig",
    "StickyConfig",
    "UpstreamTlsConfig",
]

_COUNT = Integer(maximum=2**32 - 1)
_AT_LEAST_ONE = Integer(minimum=1, maximum=2**32 - 1)
_SECONDS = Integer(maximum=366 * 86400, unit="seconds")
_SECONDS_AT_LEAST_ONE = Integer(minimum=1, maximum=366 * 86400, unit="seconds")
_PERCENT = Integer(maximum=100, unit="percent")
_STRATEGY = Word(("round-robin", "weighted", "least-connections", "random"))

RUNNING_SCHEMES = ("http", "unix")
"""The schemes of server URLs that this version can talk to."""


def _runs_strategy(strategy: str) -> bool:
    return strategy == "round-robin"


def _runs_scheme(url: str) -> bool:
    return parse_server_url(url).scheme in RUNNING_SCHEMES


@attrs.frozen(kw_only=True)
class ServerConfig:
    """
    One server of a service.
    """

    url: str = setting(
        SERVER_URL,
        "Where the server is: `http://`, `https://`, `h2c://`, `tcp://`, `udp://`, or `unix:` and the whole path of a socket. A path in "
        "the URL is put before the path of every request.",
        runs_when=_runs_scheme,
        runs_note="`http://` and `unix:`",
    )
    weight: int = setting(
        Integer(maximum=1_000_000), "The server's share among the others, for strategies that know weights; 0 takes it out.", default=1
    )


@attrs.frozen(kw_only=True)
class HealthCheckConfig:
    """
    Probe the servers from time to time and use only those that answer.
    """

    path: str = setting(PATH, "What is asked for; it is put behind the server's URL.")
    interval: float = setting(Duration(), "The pause between two rounds of probes.", default=10.0)
    timeout: float = setting(Duration(), "How long one probe may take.", default=5.0)
    unhealthy_threshold: int = setting(_AT_LEAST_ONE, "How many failures in a row make a server unhealthy.", default=3)
    healthy_threshold: int = setting(_AT_LEAST_ONE, "How many successes in a row make it healthy again.", default=1)


@attrs.frozen(kw_only=True)
class StickyConfig:
    """
    Keep a client on the server that answered it first, by a cookie.
    """

    cookie: str = setting(COOKIE_NAME, "The cookie's name.")
    ttl_secs: int = setting(_SECONDS_AT_LEAST_ONE, "How long the client stays bound after its last request.", default=3600)
    secure: bool | None = setting(FLAG, "Whether the cookie is for TLS only; without it, it is on connections with TLS.", default=None)
    http_only: bool = setting(FLAG, "Whether the cookie is hidden from scripts.", default=True)
    same_site: str = setting(
        Word(("lax", "strict", "none")), "When browsers send the cookie with requests from other sites.", default="lax"
    )
    domain: str | None = setting(DOMAIN, "The domain the cookie is for; without it, the host of the request.", default=None)


@attrs.frozen(kw_only=True)
class PassiveHealthConfig:
    """
    Set a server aside for a while when too many real requests to it fail.
    """

    error_threshold: int = setting(_AT_LEAST_ONE, "How many errors within the window set the server aside.", default=5)
    window_secs: int = setting(_SECONDS_AT_LEAST_ONE, "How far back errors count.", default=30)
    recovery_secs: int = setting(_SECONDS_AT_LEAST_ONE, "How long until the server is tried again.", default=30)
    status_codes: tuple[int, ...] = setting(
        ListKind(Integer(minimum=400, maximum=599)),
        "Which answers count as errors, besides failed connections.",
        default=(502, 503, 504),
    )


@attrs.frozen(kw_only=True)
class LoadBalancerConfig:
    """
    The servers of a service and how one of them is chosen.
    """

    strategy: str = setting(
        _STRATEGY, "How a server is chosen.", default="round-robin", runs_when=_runs_strategy, runs_note='`"round-robin"`'
    )
    servers: tuple[ServerConfig, ...] = setting(
        ObjectListKind(ServerConfig), "The servers; at least one, unless the service has revisions.", default=()
    )
    health_check: HealthCheckConfig | None = setting(
        ObjectKind(HealthCheckConfig), "Active probes; without the block there are none.", default=None, runs=False
    )
    sticky: StickyConfig | None = setting(ObjectKind(StickyConfig), "Binding of clients to servers.", default=None, runs=False)
    passive_health: PassiveHealthConfig | None = setting(
        ObjectKind(PassiveHealthConfig), "Judging servers by the requests they fail.", default=None, runs=False
    )


@attrs.frozen(kw_only=True)
class MirrorConfig:
    """
    Send a copy of some requests to another service and throw its answers away.
    """

    service: str = setting(NAME, "The service that gets the copies.")
    percentage: int = setting(_PERCENT, "How many of a hundred requests are copied.", default=100)


@attrs.frozen(kw_only=True)
class FailoverConfig:
    """
    Use another service when no server of this one can be used.
    """

    service: str = setting(NAME, "The service that steps in. It may have a failover of its own, but no circle may come of it.")


@attrs.frozen(kw_only=True)
class ScalingConfig:
    """
    Ask an executor for more or fewer replicas of the service as its load changes.
    """

    min_replicas: int = setting(_COUNT, "Never fewer than this; at most `max_replicas`.", default=0)
    max_replicas: int = setting(_AT_LEAST_ONE, "Never more than this.", default=10)
    container_concurrency: int = setting(
        _COUNT, "How many requests one replica serves at a time; 0 means any number and switches scaling off.", default=0
    )
    target_utilization: float = setting(
        Number(minimum=0.0, maximum=1.0, excludes_minimum=True), "The part of `container_concurrency` to aim for.", default=0.7
    )
    scale_down_delay_secs: int = setting(_SECONDS, "How long load must be low before replicas are taken away.", default=300)
    buffer_enabled: bool = setting(FLAG, "Whether requests wait when no replica can take them.", default=False)
    buffer_timeout_secs: int = setting(_SECONDS_AT_LEAST_ONE, "How long a request waits.", default=30)
    buffer_size: int = setting(_COUNT, "How many requests may wait; 0 means none.", default=100)
    executor: str = setting(Word(("box", "k8s")), "Who starts and stops replicas.", default="box")
    executor_url: str | None = setting(
        HTTP_URL,
        "Where the executor is; without it `http://localhost:9090` for `box`, and the cluster the gateway runs in for `k8s`.",
        default=None,
    )
    executor_token: Secret | None = setting(SECRET, "The bearer token for the executor.", default=None)
    executor_namespace: str | None = setting(NAME, "The Kubernetes namespace; without it the gateway's own.", default=None)
    executor_target: str | None = setting(NAME, "What the executor calls the service; without it, its name here.", default=None)


@attrs.frozen(kw_only=True)
class RevisionConfig:
    """
    One revision of a service and its share of the traffic.
    """

    name: str = setting(NAME, "The revision's name, once per service.")
    traffic_percent: int = setting(_PERCENT, "Its share; the shares of all revisions add up to 100.", default=100)
    servers: tuple[ServerConfig, ...] = setting(ObjectListKind(ServerConfig), "The revision's servers, at least one.", default=())
    strategy: str = setting(
        _STRATEGY, "How one of them is chosen.", default="round-robin", runs_when=_runs_strategy, runs_note='`"round-robin"`'
    )


@attrs.frozen(kw_only=True)
class RolloutConfig:
    """
    Move the traffic from one revision to another step by step, and back if the new one fails.
    """

    from_: str = setting(NAME, "The revision that loses traffic.", key="from")
    to: str = setting(NAME, "The revision that gains it.")
    step_percent: int = setting(Integer(minimum=1, maximum=100, unit="percent"), "How much moves with each step.", default=10)
    step_interval_secs: int = setting(_SECONDS_AT_LEAST_ONE, "How long each step is watched.", default=60)
    error_rate_threshold: float = setting(
        Number(minimum=0.0, maximum=1.0), "Above this part of failed requests everything goes back.", default=0.05
    )
    latency_threshold_ms: int = setting(
        Integer(minimum=1, maximum=86_400_000, unit="milliseconds"), "Above this 99th percentile everything goes back.", default=5000
    )


@attrs.frozen(kw_only=True)
class ServiceTimeoutsConfig:
    """
    How long the gateway waits for servers. There is no bound on a whole exchange: a stream may go on for days while it moves.
    """

    connect: float = setting(Duration(), "For a connection to be made.", default=5.0)
    response_header: float = setting(Duration(), "From the end of the request to the head of the response.", default=30.0)
    idle: float = setting(Duration(), "For the next piece of a response.", default=60.0)


@attrs.frozen(kw_only=True)
class ConnectionPoolConfig:
    """
    The connections kept to each server.
    """

    max_connections: int = setting(_COUNT, "How many to each server at a time; 0 means any number.", default=0)
    max_idle_connections: int = setting(_COUNT, "How many idle ones are kept for each server.", default=100)
    idle_timeout: float = setting(Duration(), "How long an idle one is kept.", default=90.0)


@attrs.frozen(kw_only=True)
class UpstreamTlsConfig:
    """
    TLS towards `https://` servers.
    """

    ca_file: str | None = setting(FILE, "PEM file of the authorities that may vouch for servers; without it, the system's.", default=None)
    cert_file: str | None = setting(FILE, "PEM file of the gateway's own certificate, together with `key_file`.", default=None)
    key_file: str | None = setting(FILE, "PEM file of its key.", default=None)
    server_name: str | None = setting(HOST, "The name to ask for and to verify; without it, the URL's host.", default=None)
    insecure_skip_verify: bool = setting(FLAG, "Whether any certificate is accepted.", default=False)


@attrs.frozen(kw_only=True)
class ServiceConfig:
    """
    A set of servers that do the same work, named by routers.
    """

    name: str = label()
    load_balancer: LoadBalancerConfig = setting(
        ObjectKind(LoadBalancerConfig), "The servers. Needed unless there are revisions.", default=LoadBalancerConfig()
    )
    timeouts: ServiceTimeoutsConfig = setting(
        ObjectKind(ServiceTimeoutsConfig), "How long to wait for servers.", default=ServiceTimeoutsConfig()
    )
    connection_pool: ConnectionPoolConfig = setting(
        ObjectKind(ConnectionPoolConfig), "The connections kept to servers.", default=ConnectionPoolConfig()
    )
    pass_host_header: bool = setting(
        FLAG, "Whether servers get the `Host` of the client; otherwise they get the host of their own URL.", default=True
    )
    max_replay_bytes: int = setting(
        Integer(maximum=2**30, unit="bytes"), "How much of a request's body is kept in case another server must be tried.", default=65536
    )
    upstream_tls: UpstreamTlsConfig | None = setting(
        ObjectKind(UpstreamTlsConfig), "TLS towards servers.", default=None, runs=False
    )
    mirror: MirrorConfig | None = setting(ObjectKind(MirrorConfig), "Copies of requests for another service.", default=None, runs=False)
    failover: FailoverConfig | None = setting(ObjectKind(FailoverConfig), "The service that steps in.", default=None, runs=False)
    scaling: ScalingConfig | None = setting(ObjectKind(ScalingConfig), "Automatic scaling.", default=None, runs=False)
    revisions: tuple[RevisionConfig, ...] = setting(
        ObjectListKind(RevisionConfig),
        "Several revisions that share the traffic, instead of `load_balancer.servers`.",
        default=(),
        runs=False,
    )
    rollout: RolloutConfig | None = setting(
        ObjectKind(RolloutConfig), "The gradual change from one revision to another.", default=None, runs=False
    )
