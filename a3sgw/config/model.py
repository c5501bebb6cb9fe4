"""
The configuration of a gateway, as frozen objects that compare by value.

Attributes are called as in HCL; durations are seconds as floats, lists are tuples, labelled blocks are `FrozenMap`s by label, secrets are
`Secret`s. An object made by hand is not checked; `check.check` looks at a whole `GatewayConfig`, and `load` at everything.

This module holds the top and names every configuration class of the other `model_…` modules. Middlewares have a class for each type,
which stands beside its code in `a3sgw.middleware`, or in a plugin.
"""

# `setting` declares an attribute as `attrs.field` does; ruff cannot know that.
# ruff: noqa: RUF009

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Union

import attrs

from a3sgw.config.kinds import FLAG, NAME, Duration, Integer, IntegerOrWord, Text
from a3sgw.config.model_entrypoint import (
    AcmeDnsConfig,
    CertificateConfig,
    EncodedCharactersConfig,
    EntrypointConfig,
    EntrypointTimeoutsConfig,
    ForwardedHeadersConfig,
    Http2Config,
    LimitsConfig,
    ProxyProtocolConfig,
    TlsConfig,
)
from a3sgw.config.model_observability import AccessLogConfig, DashboardConfig, MetricsConfig, ObservabilityConfig, TracingConfig
from a3sgw.config.model_provider import (
    DiscoveryProviderConfig,
    DnsProviderConfig,
    DockerProviderConfig,
    FileProviderConfig,
    KubernetesProviderConfig,
    ProvidersConfig,
    SeedConfig,
)
from a3sgw.config.model_service import (
    ConnectionPoolConfig,
    FailoverConfig,
    HashConfig,
    HealthCheckConfig,
    HedgingConfig,
    LoadBalancerConfig,
    MirrorConfig,
    PassiveHealthConfig,
    RevisionConfig,
    RolloutConfig,
    ScalingConfig,
    ServerConfig,
    ServiceConfig,
    ServiceTimeoutsConfig,
    StickyConfig,
    UpstreamTlsConfig,
)
from a3sgw.config.setting import ListKind, NamedKind, ObjectKind, label, setting, to_json
from a3sgw.config.tree import Problem
from a3sgw.config.values import FrozenMap, Secret

__all__ = [
    "AccessLogConfig",
    "AcmeDnsConfig",
    "CertificateConfig",
    "ConfigurationError",
    "ConnectionPoolConfig",
    "DashboardConfig",
    "DiscoveryProviderConfig",
    "DnsProviderConfig",
    "DockerProviderConfig",
    "EncodedCharactersConfig",
    "EntrypointConfig",
    "EntrypointTimeoutsConfig",
    "FailoverConfig",
    "FileProviderConfig",
    "ForwardedHeadersConfig",
    "FrozenMap",
    "GatewayConfig",
    "HashConfig",
    "HealthCheckConfig",
    "HedgingConfig",
    "Http2Config",
    "KubernetesProviderConfig",
    "LimitsConfig",
    "LoadBalancerConfig",
    "MetricsConfig",
    "MirrorConfig",
    "ObservabilityConfig",
    "PassiveHealthConfig",
    "ProvidersConfig",
    "ProxyProtocolConfig",
    "RevisionConfig",
    "RolloutConfig",
    "RouterConfig",
    "RouterTimeoutsConfig",
    "RouterTlsConfig",
    "ScalingConfig",
    "Secret",
    "SeedConfig",
    "ServerConfig",
    "ServiceConfig",
    "ServiceTimeoutsConfig",
    "StickyConfig",
    "TlsConfig",
    "TracingConfig",
    "UpstreamTlsConfig",
]


class ConfigurationError(Exception):
    """
    A configuration has `problems`; the text lists them all, one on each line.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "Configuration error: " + "\n".join(str(problem) for problem in self.problems)


@attrs.frozen(kw_only=True)
class RouterTimeoutsConfig:
    """
    How long the gateway waits for servers when a request came by this router; what is not given is as the service has it.
    """

    connect: float | None = setting(Duration(), "For a connection to be made.", default=None)
    response_header: float | None = setting(Duration(), "From the end of the request to the head of the response.", default=None)
    idle: float | None = setting(Duration(), "For the next piece of a response.", default=None)
    total: float | None = setting(Duration(), "For a whole exchange, from the request's head to the response's end.", default=None)
    tunnel_idle: float | None = setting(Duration(), "For the next byte, in either direction, of a WebSocket.", default=None)


@attrs.frozen(kw_only=True)
class RouterTlsConfig:
    """
    What a tcp router does with TLS.
    """

    passthrough: bool = setting(
        FLAG,
        "Whether servers get the client's TLS as it is, although the entrypoint has certificates. Where it has none, they always do.",
        default=False,
    )


@attrs.frozen(kw_only=True)
class RouterConfig:
    """
    Which requests go to which service.
    """

    name: str = label()
    rule: str = setting(Text("a rule like \"PathPrefix(`/api`)\""), "Which requests are meant, in Traefik's rule language.")
    service: str = setting(NAME, "Where they go.")
    entrypoints: tuple[str, ...] = setting(
        ListKind(NAME), "Through which entrypoints they come; empty means through any whose protocol fits the rule.", default=()
    )
    middlewares: tuple[str, ...] = setting(ListKind(NAME), "What they pass on the way, in this order.", default=())
    priority: int = setting(
        Integer(minimum=-(2**31), maximum=2**31 - 1),
        "Routers with a higher number are asked first; 0 stands for the length of the rule's text. Among equals the name decides.",
        default=0,
    )
    tls: RouterTlsConfig | None = setting(ObjectKind(RouterTlsConfig), "TLS of tcp routers.", default=None)
    timeouts: RouterTimeoutsConfig | None = setting(
        ObjectKind(RouterTimeoutsConfig), "Other timeouts than those of the service.", default=None
    )


@attrs.frozen(kw_only=True)
class GatewayConfig:
    """
    What may stand outside of any block.
    """

    entrypoints: FrozenMap[str, EntrypointConfig] = setting(
        NamedKind("entrypoint", EntrypointConfig), "Where the gateway listens; at least one.", default=FrozenMap()
    )
    routers: FrozenMap[str, RouterConfig] = setting(NamedKind("router", RouterConfig), "Which requests go where.", default=FrozenMap())
    services: FrozenMap[str, ServiceConfig] = setting(NamedKind("service", ServiceConfig), "Sets of servers.", default=FrozenMap())
    middlewares: FrozenMap[str, Any] = setting(
        NamedKind("middleware", is_typed=True), "What happens to requests on the way.", default=FrozenMap()
    )
    providers: ProvidersConfig | None = setting(ObjectKind(ProvidersConfig), "Other sources of configuration.", default=None)
    dashboard: DashboardConfig = setting(ObjectKind(DashboardConfig), "The gateway's own API.", default=DashboardConfig())
    observability: ObservabilityConfig = setting(
        ObjectKind(ObservabilityConfig), "Access log, metrics and traces.", default=ObservabilityConfig()
    )
    shutdown_timeout_secs: int = setting(
        Integer(maximum=86400, unit="seconds"), "How long a stop waits for requests in flight; 0 means not at all.", default=30
    )
    workers: Union[int, str] = setting(
        IntegerOrWord(Integer(minimum=1, maximum=1024), "auto"),
        "How many processes carry requests; `\"auto\"` is one for each core. Changed by a restart or `USR2`, not by a reload.",
        default=1,
    )

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> GatewayConfig:
        """
        Return the configuration in a file, with variables from this process's environment.

        Raises `ConfigurationError` with every problem found.
        """
        # `load` builds what stands here, so it cannot be imported before.
        from a3sgw.loading import load

        return load(os.fspath(path), os.environ).valid_config()

    @classmethod
    def from_hcl(cls, text: str, source: str = "<string>") -> GatewayConfig:
        """
        Return the configuration in a text, which problems call `source`.

        Raises `ConfigurationError` with every problem found.
        """
        from a3sgw.loading import load_string

        return load_string(text, source, os.environ).valid_config()

    def to_json(self) -> dict[str, Any]:
        """
        Return everything under its HCL names as plain dicts, lists and scalars; secrets are masked, what is unset is `None` or `[]`.
        """
        plain: dict[str, Any] = to_json(self)
        return plain
