"""
Which routers serve which entrypoint, and how they would have their services.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal

import attrs

from a3sgw.config.address import parse_server_url
from a3sgw.config.model import GatewayConfig, RouterConfig
from a3sgw.route.rule import Matcher, Not, Rule, RuleError, parse_rule
from a3sgw.service.service import ServiceSettings

__all__ = ["KINDS", "Protocol", "kind_of", "kinds_of_services", "read_rule", "routers_of", "settings_for"]

Protocol = Literal["http", "tcp", "udp"]

KINDS: Final[tuple[Protocol, ...]] = ("http", "tcp", "udp")


def read_rule(text: str, kind: Protocol) -> Rule:
    """
    Return the rule for entrypoints of `kind`. Raises `RuleError`.

    Of a datagram nothing is known but where it comes from, so a rule for udp is one for tcp that asks for nothing else.
    """
    rule = parse_rule(text, "http" if kind == "http" else "tcp")
    if kind == "udp":
        _refuse_names(rule, text)
    return rule


def _refuse_names(rule: Rule, text: str) -> None:
    if isinstance(rule, Matcher):
        if rule.name != "ClientIP" and not (rule.name == "HostSNI" and set(rule.arguments) == {"*"}):
            column = text.lower().find(rule.name.lower()) + 1
            raise RuleError(f"{rule.name} asks for what no datagram tells; a rule for udp has ClientIP(…) and HostSNI(`*`)", column)
        return
    for operand in (rule.operand,) if isinstance(rule, Not) else rule.operands:
        _refuse_names(operand, text)


def kind_of(config: GatewayConfig, router: RouterConfig) -> Protocol:
    """
    Return the protocol that the rule of `router` is for: that of its entrypoints. Without any, it is the first one for which there is an
    entrypoint and in which the rule can be read, so that rules about requests never catch bare connections, and the other way round. Where
    the service has `udp://` servers, it is udp.
    """
    named = [config.entrypoints[name] for name in router.entrypoints if name in config.entrypoints]
    protocols = {entrypoint.protocol for entrypoint in (named or config.entrypoints.values())}
    served = [kind for kind in KINDS if kind in protocols] or ["http"]
    if len(served) > 1 and _leads_to_udp(config, router):
        # Asked first then, and otherwise last.
        served.sort(key=lambda kind: kind != "udp")
    return next((kind for kind in served if len(served) == 1 or _can_read(router.rule, kind)), served[0])


# A configuration asks for the same rule again and again while it is checked and built.
@lru_cache(maxsize=16384)
def _can_read(text: str, kind: Protocol) -> bool:
    try:
        read_rule(text, kind)
    except RuleError:
        return False
    return True


def _leads_to_udp(config: GatewayConfig, router: RouterConfig) -> bool:
    service = config.services.get(router.service)
    if service is None:
        return False
    servers = [*service.load_balancer.servers, *(server for revision in service.revisions for server in revision.servers)]
    return any(parse_server_url(server.url).scheme == "udp" for server in servers)


def routers_of(config: GatewayConfig, entrypoint: str, kind: Protocol) -> list[RouterConfig]:
    """
    Return the routers that serve the entrypoint called `entrypoint`, which speaks `kind`, in no order.
    """
    return [
        router
        for router in config.routers.values()
        if (entrypoint in router.entrypoints if router.entrypoints else kind_of(config, router) == kind)
    ]


def kinds_of_services(config: GatewayConfig) -> dict[str, Protocol]:
    """
    Return the services to which tcp and udp routers lead, and those that step in for them, by name. All others are for requests.
    """
    found: dict[str, Protocol] = {}
    if all(entrypoint.protocol == "http" for entrypoint in config.entrypoints.values()):
        return found
    for router in config.routers.values():
        kind = kind_of(config, router)
        name: str | None = router.service if kind != "http" else None
        while name is not None and name not in found and name in config.services:
            found[name] = kind
            failover = config.services[name].failover
            name = None if failover is None else failover.service
    return found


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
