"""
The tcp entrypoints of a generation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from a3sgw.assembly_middleware import Middlewares
from a3sgw.assembly_parts import Kit, Parts
from a3sgw.assembly_router import routers_of, settings_for
from a3sgw.config.model import EntrypointConfig, GatewayConfig
from a3sgw.interfaces import IBeginning, IConnectionGate
from a3sgw.listen.passthrough_beginning import PassthroughBeginning
from a3sgw.listen.tcp_beginning import TcpBeginning
from a3sgw.middleware.chain import Link
from a3sgw.proxy.tcp_entrypoint import TcpEntrypoint, TcpRoute
from a3sgw.route.table import RouteSpec, build_tcp_table
from a3sgw.service.service import Service

__all__ = ["assemble_tcp_entrypoint", "gates_of", "tcp_beginning"]


def gates_of(links: Iterable[Link]) -> tuple[IConnectionGate, ...]:
    """
    Return the middlewares among `links` that decide about connections.
    """
    return tuple(link.middleware for link in links if IConnectionGate.providedBy(link.middleware))


def assemble_tcp_entrypoint(
    config: GatewayConfig, entrypoint: EntrypointConfig, services: Mapping[str, Service], middlewares: Middlewares, parts: Parts, kit: Kit
) -> TcpEntrypoint:
    """
    Return what connections over `entrypoint` need. Raises `RuleError` if a rule cannot be read, which `loading` would have found.
    """
    specs = []
    for router in routers_of(config, entrypoint.name, "tcp"):
        service = services[router.service]
        route = TcpRoute(
            router.name,
            service,
            settings_for(router, service.settings),
            gates_of(middlewares.links("router", router.name, router.middlewares)),
            router.tls is not None and router.tls.passthrough,
        )
        specs.append(RouteSpec(router.name, router.rule, router.priority, route))
    # Routes compare by what they hold, and services by identity; the order in which they are written makes no difference.
    specs.sort(key=lambda spec: spec.name)
    key = ("tcp table", tuple((spec.name, spec.rule, spec.priority, spec.target) for spec in specs))
    return TcpEntrypoint(
        entrypoint.name,
        parts.take(key, partial(build_tcp_table, specs)),
        kit.connection_observers,
        entrypoint.tcp_hello_timeout,
        entrypoint.tcp_idle_timeout,
    )


def tcp_beginning(entrypoint: EntrypointConfig, parts: Parts, kit: Kit) -> IBeginning:
    """
    Return how connections over `entrypoint` begin. Raises `AssemblyError` if its certificates cannot be used.
    """
    passing = TcpBeginning(kit.dialer.later)
    if entrypoint.tls is None:
        return passing
    # Only here, so that whoever has no TLS runs without OpenSSL.
    from a3sgw.assembly_tls import assemble_tls

    return PassthroughBeginning(passing, assemble_tls(entrypoint, {b"": passing}, parts, kit))
