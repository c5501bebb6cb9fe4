"""
Services: where requests go, and everything said about choosing, probing, scaling and replacing servers.

Long because it is a list of declarations.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

import re
from typing import Union

import attrs

from a3sgw.config.kinds import (
    COOKIE_NAME,
    DOMAIN,
    FILE,
    FLAG,
    HEADER_MAP,
    HEADER_NAME,
    HOST,
    HTTP_URL,
    METHOD,
    NAME,
    PATH,
    SECRET,
    SERVER_URL,
    STATUS_RANGE,
    Duration,
    Integer,
    Number,
    OpenWord,
    Text,
    Word,
)
from a3sgw.config.setting import ListKind, ObjectKind, ObjectListKind, label, setting
from a3sgw.config.values import FrozenMap, Secret

__all__ = [
    "ConnectionPoolConfig",
    "FailoverConfig",
    "HashConfig",
    "HealthCheckConfig",
    "HedgingConfig",
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
_STRATEGY = OpenWord(
    ("round-robin", "weighted", "least-connections", "random", "p2c", "least-time", "consistent-hash"), others="that of a plugin"
)
_STATUSES = ListKind(Integer(minimum=400, maximum=599))

_GRPC_SERVICE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,255}", re.ASCII).fullmatch


def _check_grpc_service(text: str) -> str:
    if text and _GRPC_SERVICE(text) is None:
        raise ValueError("which is no name of a service: letters, digits, dots, dashes and underscores")
    return text


@attrs.frozen(kw_only=True)
class ServerConfig:
    """
    One server of a service.
    """

    url: str = setting(
        SERVER_URL,
        "Where the server is: `http://`, `https://`, `h2c://`, `tcp://`, `udp://`, or `unix:` and the whole path of a socket. `ws://` and "
        "`wss://` mean `http://` and `https://`. `h2c://` is HTTP/2 without TLS; `https://` servers choose HTTP/2 or HTTP/1.1; "
        "gRPC is HTTP/2 in any case. A path in the URL is put before the path of every request. `host:port` alone is for "
        "services of tcp and udp routers.",
    )
    weight: int = setting(
        Integer(maximum=1_000_000), "The server's share among the others, for strategies that know weights; 0 takes it out.", default=1
    )
    state: str = setting(
        Word(("ready", "drain")),
        "`drain` takes no new clients: only requests that a sticky cookie binds to the server still go there.",
        default="ready",
    )


@attrs.frozen(kw_only=True)
class HealthCheckConfig:
    """
    Probe the servers from time to time and use only those that answer.
    """

    path: str | None = setting(
        PATH, "What is asked for; it is put behind the server's URL. Required, unless `protocol` is not `http`, or all "
        "servers are `tcp://`. Servers that are `udp://` cannot be probed.", default=None
    )
    protocol: str = setting(
        Word(("http", "tcp", "grpc")),
        "`http` asks for `path`, `grpc` calls the method `Check` of `grpc.health.v1.Health`; `tcp` only sees whether the server accepts a "
        "connection, as is always done with `tcp://` servers.",
        default="http",
    )
    grpc_service: str = setting(
        Text('the name of a gRPC service, like "shop.v1.Cart"', _check_grpc_service, may_be_empty=True),
        "With `grpc`, the service that is asked about; without it, the server as a whole.",
        default="",
    )
    method: str = setting(METHOD, "The method of the request.", default="GET")
    status_codes: tuple[str, ...] = setting(
        ListKind(STATUS_RANGE), "Which answers are good.", default=("200-299",)
    )
    host: str | None = setting(HOST, "What the request says in `Host`; without it, the server's own host.", default=None)
    headers: FrozenMap[str, Union[str, Secret]] = setting(HEADER_MAP, "Further headers of the request.", default=FrozenMap())
    interval: float = setting(
        Duration(),
        "The pause between two probes of a server; each is up to a tenth shorter or longer, so that they do not come together.",
        default=10.0,
    )
    timeout: float = setting(Duration(), "How long one probe may take.", default=5.0)
    unhealthy_threshold: int = setting(_AT_LEAST_ONE, "How many failures in a row make a server unhealthy.", default=3)
    healthy_threshold: int = setting(_AT_LEAST_ONE, "How many successes in a row make it healthy again.", default=1)


@attrs.frozen(kw_only=True)
class StickyConfig:
    """
    Keep a client on the server that answered it first, by a cookie.

    The cookie names the server in a form that nobody can read or forge without the key. Without `keys` the gateway makes one when it
    starts, so bindings survive a reload, but neither a restart nor a change to another gateway.
    """

    cookie: str = setting(COOKIE_NAME, "The cookie's name.")
    ttl_secs: int = setting(_SECONDS_AT_LEAST_ONE, "How long the client stays bound after its last request.", default=3600)
    secure: bool | None = setting(FLAG, "Whether the cookie is for TLS only; without it, it is on connections with TLS.", default=None)
    http_only: bool = setting(FLAG, "Whether the cookie is hidden from scripts.", default=True)
    same_site: str = setting(
        Word(("lax", "strict", "none")), "When browsers send the cookie with requests from other sites.", default="lax"
    )
    domain: str | None = setting(DOMAIN, "The domain the cookie is for; without it, the host of the request.", default=None)
    keys: tuple[Secret, ...] = setting(
        ListKind(SECRET, min_items=1),
        "Keys shared by all gateways of the service; the first signs, all are accepted, so that keys can be changed one after the other.",
        default=(),
    )


@attrs.frozen(kw_only=True)
class PassiveHealthConfig:
    """
    Set a server aside for a while when too many real requests to it fail.
    """

    consecutive_errors: int = setting(_COUNT, "How many errors in a row set the server aside; 0 means that they never do.", default=5)
    error_threshold: int = setting(
        _COUNT, "How many errors within the window set the server aside; 0 means that they never do.", default=5
    )
    window_secs: int = setting(_SECONDS_AT_LEAST_ONE, "How far back errors count.", default=30)
    recovery_secs: int = setting(
        _SECONDS_AT_LEAST_ONE, "How long until the server is tried again, the first time; twice as long each further time.", default=30
    )
    max_recovery_secs: int = setting(_SECONDS_AT_LEAST_ONE, "The longest such time.", default=300)
    trial_requests: int = setting(_AT_LEAST_ONE, "How many requests may try the server again at a time.", default=1)
    max_ejection_percent: int = setting(
        _PERCENT,
        "At most this part of the servers is set aside at a time, but always one if there are two or more, and never the last.",
        default=50,
    )
    status_codes: tuple[int, ...] = setting(
        _STATUSES, "Which answers count as errors, besides failed connections.", default=(502, 503, 504)
    )


@attrs.frozen(kw_only=True)
class HashConfig:
    """
    What the strategy `consistent-hash` looks at. A request that lacks it goes to any server.
    """

    source: str = setting(
        Word(("client-ip", "header", "cookie", "query", "path")), "What of a request decides.", default="client-ip"
    )
    name: str | None = setting(NAME, "The name of the header, cookie or query parameter.", default=None)
    max_load_percent: int = setting(
        Integer(minimum=100, maximum=10_000, unit="percent"),
        "A server with more than this part of the average load passes its requests to the next one.",
        default=125,
    )


@attrs.frozen(kw_only=True)
class LoadBalancerConfig:
    """
    The servers of a service and how one of them is chosen.
    """

    strategy: str = setting(
        _STRATEGY,
        "How a server is chosen: in turn (`round-robin`), in turn by weight and without bursts (`weighted`), the one with the fewest "
        "requests in flight for its weight (`least-connections`), by chance (`random`), the less busy of two drawn by chance (`p2c`), the "
        "one that has answered soonest for what it has in flight (`least-time`), or always the same for the same request "
        "(`consistent-hash`).",
        default="round-robin",
    )
    servers: tuple[ServerConfig, ...] = setting(
        ObjectListKind(ServerConfig), "The servers; at least one, unless the service has revisions.", default=()
    )
    hash: HashConfig = setting(ObjectKind(HashConfig), "What `consistent-hash` looks at.", default=HashConfig())
    slow_start: float | None = setting(
        Duration(), "How long a new or recovered server's share grows from a tenth to the whole; without it, no time at all.", default=None
    )
    health_check: HealthCheckConfig | None = setting(
        ObjectKind(HealthCheckConfig), "Active probes; without the block there are none.", default=None
    )
    sticky: StickyConfig | None = setting(ObjectKind(StickyConfig), "Binding of clients to servers.", default=None)
    passive_health: PassiveHealthConfig | None = setting(
        ObjectKind(PassiveHealthConfig), "Judging servers by the requests they fail; without the block they are not.", default=None
    )
    panic_threshold_percent: int = setting(
        _PERCENT, "If fewer than this part of the servers are healthy, all are used, healthy or not; 0 means never.", default=0
    )


@attrs.frozen(kw_only=True)
class MirrorConfig:
    """
    Send a copy of some requests to another service and throw its answers away.

    A copy is what a server gets, after all middlewares, marked with `X-Shadow: true`; its `Host` is that of the other service's settings.
    It follows the body as it comes. Clients never wait for a copy, and nothing that becomes of one changes what they are answered. Of the
    other service, `mirror`, `failover` and `scaling.buffer_enabled` do not concern copies.
    """

    service: str = setting(NAME, "The service that gets the copies.")
    percentage: float = setting(
        Number(minimum=0.0, maximum=100.0, unit="percent"), "How many of a hundred requests are copied, evenly spread.", default=100.0
    )
    max_in_flight: int = setting(_AT_LEAST_ONE, "How many copies may be under way at a time; further ones are left out.", default=100)
    max_body_bytes: int = setting(
        Integer(maximum=2**30, unit="bytes"),
        "How much of a request's body may wait for the service; a copy that lags further behind is given up.",
        default=262_144,
    )
    timeout: float = setting(Duration(), "How long a copy may take.", default=30.0)


@attrs.frozen(kw_only=True)
class FailoverConfig:
    """
    Use another service when no server of this one can be used, or connected to.
    """

    service: str = setting(NAME, "The service that steps in. It may have a failover of its own, but no circle may come of it.")
    status_codes: tuple[int, ...] = setting(
        _STATUSES,
        "Answers after which the other service is asked too, for methods that may be repeated, while the body is whole.",
        default=(),
    )


@attrs.frozen(kw_only=True)
class HedgingConfig:
    """
    Ask a second server when the first takes unusually long, and use the answer that comes first. For methods that may be repeated only.

    How long is unusual is learnt from the service's own answers of the last minute or so; while there are too few of them (fifty, or more
    for a high quantile), there is no second attempt. Nor is there one for a request whose body is not whole in memory
    (`max_replay_bytes`), or whose client is bound to a server by a cookie. A second server that answers with 5xx or 429 is not listened to
    while the first may yet answer.
    """

    quantile: float = setting(
        Number(minimum=0.5, maximum=0.999), "Which part of the requests is answered before a second server is asked.", default=0.95
    )
    min_delay_ms: int = setting(
        Integer(minimum=1, maximum=3_600_000, unit="milliseconds"), "The second server is never asked sooner.", default=10
    )
    budget_percent: int = setting(
        _PERCENT, "At most this part of the requests of the last ten seconds is sent twice.", default=5
    )


@attrs.frozen(kw_only=True)
class ScalingConfig:
    """
    Ask an executor for more or fewer replicas of the service as its load changes.
    """

    min_replicas: int = setting(_COUNT, "Never fewer than this; at most `max_replicas`.", default=0, runs=False)
    max_replicas: int = setting(_AT_LEAST_ONE, "Never more than this.", default=10, runs=False)
    container_concurrency: int = setting(
        _COUNT, "How many requests one server serves at a time; 0 means any number and switches scaling off.", default=0
    )
    target_utilization: float = setting(
        Number(minimum=0.0, maximum=1.0, excludes_minimum=True),
        "The part of `container_concurrency` to aim for.",
        default=0.7,
        runs=False,
    )
    scale_down_delay_secs: int = setting(_SECONDS, "How long load must be low before replicas are taken away.", default=300, runs=False)
    buffer_enabled: bool = setting(FLAG, "Whether requests wait, first come, first served, when no server can take them.", default=False)
    buffer_timeout_secs: int = setting(_SECONDS_AT_LEAST_ONE, "How long a request waits.", default=30)
    buffer_size: int = setting(_COUNT, "How many requests may wait; 0 means none.", default=100)
    executor: str = setting(Word(("box", "k8s")), "Who starts and stops replicas.", default="box", runs=False)
    executor_url: str | None = setting(
        HTTP_URL,
        "Where the executor is; without it `http://localhost:9090` for `box`, and the cluster the gateway runs in for `k8s`.",
        default=None,
        runs=False,
    )
    executor_token: Secret | None = setting(SECRET, "The bearer token for the executor.", default=None, runs=False)
    executor_namespace: str | None = setting(NAME, "The Kubernetes namespace; without it the gateway's own.", default=None, runs=False)
    executor_target: str | None = setting(NAME, "What the executor calls the service; without it, its name here.", default=None, runs=False)


@attrs.frozen(kw_only=True)
class RevisionConfig:
    """
    One revision of a service and its share of the traffic.
    """

    name: str = setting(NAME, "The revision's name, once per service.")
    traffic_percent: int = setting(_PERCENT, "Its share; the shares of all revisions add up to 100.", default=100)
    servers: tuple[ServerConfig, ...] = setting(ObjectListKind(ServerConfig), "The revision's servers, at least one.", default=())
    strategy: str = setting(_STRATEGY, "How one of them is chosen.", default="round-robin")


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
    How long the gateway waits for servers. There is no bound on a whole exchange unless `total` sets one: a stream may go on for days while
    it moves.
    """

    connect: float = setting(Duration(), "For a connection to be made.", default=5.0)
    response_header: float = setting(Duration(), "From the end of the request to the head of the response.", default=30.0)
    idle: float = setting(Duration(), "For the next piece of a response.", default=60.0)
    total: float | None = setting(
        Duration(), "For a whole exchange, from the request's head to the response's end; without it there is no bound.", default=None
    )
    tunnel_idle: float = setting(
        Duration(),
        "For the next byte, in either direction, of a WebSocket or whatever else a connection was changed to. `total` does not bound it.",
        default=3600.0,
    )


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
    TLS towards `https://` servers, and towards the servers of tcp routers, where this block alone says that they speak it.
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
        ObjectKind(UpstreamTlsConfig), "TLS towards servers.", default=None
    )
    proxy_protocol: str | None = setting(
        Word(("v1", "v2")),
        "In which version of the PROXY protocol servers are told who the client is, before its first byte; for services of tcp routers.",
        default=None,
    )
    mirror: MirrorConfig | None = setting(ObjectKind(MirrorConfig), "Copies of requests for another service.", default=None)
    failover: FailoverConfig | None = setting(ObjectKind(FailoverConfig), "The service that steps in.", default=None)
    hedging: HedgingConfig | None = setting(ObjectKind(HedgingConfig), "Second attempts at slow requests.", default=None)
    scaling: ScalingConfig | None = setting(
        ObjectKind(ScalingConfig), "Limits of concurrency, waiting, and automatic scaling.", default=None
    )
    revisions: tuple[RevisionConfig, ...] = setting(
        ObjectListKind(RevisionConfig),
        "Several revisions that share the traffic, instead of `load_balancer.servers`.",
        default=(),
    )
    revision_header: str | None = setting(
        HEADER_NAME, "A request header by which testers choose a revision by its name.", default=None
    )
    revision_cookie: str | None = setting(COOKIE_NAME, "A cookie that does the same.", default=None)
    rollout: RolloutConfig | None = setting(
        ObjectKind(RolloutConfig), "The gradual change from one revision to another.", default=None, runs=False
    )
