"""
The udp entrypoints of a generation.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from a3sgw.address import AddressSet
from a3sgw.assembly_middleware import Middlewares
from a3sgw.assembly_parts import Kit, Parts
from a3sgw.assembly_router import routers_of
from a3sgw.assembly_tcp import gates_of
from a3sgw.config.address import parse_listen_address
from a3sgw.config.model import EntrypointConfig, GatewayConfig
from a3sgw.listen.udp_doors import UdpPlan
from a3sgw.proxy.udp_entrypoint import UdpEntrypoint, UdpRoute
from a3sgw.route.table import RouteSpec, build_tcp_table
from a3sgw.service.service import Service

__all__ = ["assemble_udp_plans"]


def assemble_udp_plans(
    config: GatewayConfig, services: Mapping[str, Service], middlewares: Middlewares, parts: Parts, kit: Kit
) -> dict[str, UdpPlan]:
    """
    Return the udp doors that `config` wants. Raises `RuleError` if a rule cannot be read, which `loading` would have found.
    """
    return {
        name: UdpPlan(
            parse_listen_address(entrypoint.address), _assemble_entrypoint(config, entrypoint, services, middlewares, parts, kit)
        )
        for name, entrypoint in config.entrypoints.items()
        if entrypoint.protocol == "udp"
    }


def _assemble_entrypoint(
    config: GatewayConfig, entrypoint: EntrypointConfig, services: Mapping[str, Service], middlewares: Middlewares, parts: Parts, kit: Kit
) -> UdpEntrypoint:
    specs = []
    for router in routers_of(config, entrypoint.name, "udp"):
        hooks = gates_of(middlewares.links("router", router.name, router.middlewares))
        specs.append(RouteSpec(router.name, router.rule, router.priority, UdpRoute(router.name, services[router.service], hooks)))
    # The rules are those of connections, as far as they make sense.
    key = ("udp table", tuple((spec.name, spec.rule, spec.priority, spec.target) for spec in specs))
    return UdpEntrypoint(
        entrypoint.name,
        parts.take(key, partial(build_tcp_table, specs)),
        kit.session_observers,
        AddressSet(entrypoint.tcp_allowed_ips) if entrypoint.tcp_allowed_ips else None,
        gates_of(middlewares.links("entrypoint", entrypoint.name, entrypoint.middlewares)),
        float(entrypoint.udp_session_timeout_secs),
        entrypoint.udp_max_sessions,
    )
