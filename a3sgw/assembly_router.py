"""
Which routers serve which entrypoint, and how they would have their services.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import attrs

from a3sgw.config.model import GatewayConfig, RouterConfig
from a3sgw.route.rule import Kind, RuleError, parse_rule
from a3sgw.service.service import ServiceSettings

KINDS: Final[tuple[Kind, ...]] = ("http", "tcp")

__all__ = ["kind_of", "routers_of", "settings_for", "tcp_services"]


def kind_of(config: GatewayConfig, router: RouterConfig) -> Kind:
    """
    Return the protocol that the rule of `router` is for: that of its entrypoints. Without any, it is the first one for which there is an
    entrypoint and in which the rule can be read, so that rules about requests never catch bare connections, and the other way round.
    """
    named = [config.entrypoints[name] for name in router.entrypoints if name in config.entrypoints]
    protocols = {entrypoint.protocol for entrypoint in (named or config.entrypoints.values())}
    if "tcp" not in protocols:
        return "http"
    if "http" not in protocols:
        return "tcp"
    return _kind_of_rule(router.rule)


# A configuration asks for the same rule again and again while it is checked and built.
@lru_cache(maxsize=16384)
def _kind_of_rule(rule: str) -> Kind:
    for kind in KINDS:
        try:
            parse_rule(rule, kind)
        except RuleError:
            continue
        return kind
    return "http"


def routers_of(config: GatewayConfig, entrypoint: str, kind: Kind) -> list[RouterConfig]:
    """
    Return the routers that serve the entrypoint called `entrypoint`, which speaks `kind`, in no order.
    """
    return [
        router
        for router in config.routers.values()
        if (entrypoint in router.entrypoints if router.entrypoints else kind_of(config, router) == kind)
    ]


def tcp_services(config: GatewayConfig) -> frozenset[str]:
    """
    Return the services to which tcp routers lead, and those that step in for them.
    """
    found: set[str] = set()
    if any(entrypoint.protocol == "tcp" for entrypoint in config.entrypoints.values()):
        for router in config.routers.values():
            name: str | None = router.service if kind_of(config, router) == "tcp" else None
            while name is not None and name not in found and name in config.services:
                found.add(name)
                failover = config.services[name].failover
                name = None if failover is None else failover.service
    return frozenset(found)


def settings_for(router: RouterConfig, settings: ServiceSettings) -> ServiceSettings:
    """
    Return the settings of a service as the router would have them.
    """
    timeouts = router.timeouts
    if timeouts is None:
        return settings
    return attrs.evolve(
        settings,
        connect_timeout=timeouts.connect or settings.connect_timeout,
        response_header_timeout=timeouts.response_header or settings.response_header_timeout,
        idle_timeout=timeouts.idle or settings.idle_timeout,
        total_timeout=timeouts.total or settings.total_timeout,
        tunnel_idle_timeout=timeouts.tunnel_idle or settings.tunnel_idle_timeout,
    )
