"""
Whether services fit routers for udp, and what a udp entrypoint that nobody routes is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from a3sgw.assembly_router import kind_of, routers_of
from a3sgw.config.address import parse_listen_address, parse_server_url
from a3sgw.config.finding import Findings
from a3sgw.config.model import EntrypointConfig, GatewayConfig, RouterConfig, ServiceConfig
from a3sgw.config.tree import Position, Problem
from a3sgw.config.wording import item_path, quote
from a3sgw.loading_fit import is_given, servers_of

__all__ = ["check_udp_entrypoint", "check_udp_router", "check_udp_service", "udp_warnings"]

_OVER_UDP: Final = frozenset(["udp", ""])

_NOT_FOR_DATAGRAMS: Final = (
    "pass_host_header",
    "max_replay_bytes",
    "upstream_tls",
    "proxy_protocol",
    "mirror",
    "hedging",
    "scaling",
    "revision_header",
    "revision_cookie",
    "timeouts.response_header",
    "timeouts.idle",
    "timeouts.total",
    "timeouts.tunnel_idle",
    "connection_pool.max_connections",
    "connection_pool.max_idle_connections",
    "connection_pool.idle_timeout",
    "failover.status_codes",
    "load_balancer.sticky",
    "load_balancer.hash.source",
    "load_balancer.hash.name",
    "load_balancer.passive_health.status_codes",
)
"""What services may have that means nothing to those of udp routers."""


def check_udp_router(path: str, router: RouterConfig, findings: Findings) -> None:
    """
    Report what the router at `path`, which is for udp, has in vain.
    """
    for key, given in (("tls", router.tls), ("timeouts", router.timeouts)):
        if given is not None:
            place = f"{path}.{key}"
            findings.report(place, f"{place} means nothing to datagrams, but router {quote(router.name)} is for udp; remove it")


def check_udp_service(path: str, service: ServiceConfig, findings: Findings) -> None:
    """
    Report what of the service at `path` does not fit the udp routers that lead to it.
    """
    name = quote(service.name)
    for place, url in servers_of(path, service):
        if parse_server_url(url).scheme not in _OVER_UDP:
            message = f"{place} is {findings.show(place, url)}, but udp routers lead to service {name}; write udp://host:port"
            findings.report(place, message)
    if service.load_balancer.health_check is not None and all(not parse_server_url(url).scheme for _, url in servers_of(path, service)):
        # Where there are udp:// servers, it is refused whoever uses them.
        place = f"{path}.load_balancer.health_check"
        findings.report(place, f"{place} connects to servers, but udp routers lead to service {name}; use passive_health instead")
    for key in _NOT_FOR_DATAGRAMS:
        place = f"{path}.{key}"
        if findings.is_written(place) or is_given(service, key):
            findings.report(place, f"{place} means nothing to datagrams, but udp routers lead to service {name}; remove it")


def check_udp_entrypoint(entrypoint: EntrypointConfig, config: GatewayConfig, findings: Findings) -> None:
    """
    Report a port that workers could not share.
    """
    if entrypoint.protocol == "udp" and config.workers != 1 and parse_listen_address(entrypoint.address)[1] == 0:
        path = f"{item_path('entrypoints', entrypoint.name)}.address"
        message = f"{path} leaves the port to the system, which would give each worker another; choose one, or write workers = 1"
        findings.report(path, message, ["workers"])


def udp_warnings(config: GatewayConfig, positions: Mapping[str, Position]) -> list[Problem]:
    """
    Return a warning for each udp entrypoint for which there is no router.
    """
    findings = Findings(positions)
    for name, entrypoint in config.entrypoints.items():
        if entrypoint.protocol == "udp" and not routers_of(config, name, "udp"):
            path = item_path("entrypoints", name)
            hint = "" if config.routers else "; there are none at all"
            if any(kind_of(config, router) == "udp" for router in config.routers.values()):
                hint = "; those for udp name other entrypoints"
            message = f"entrypoint {quote(name)} has no router, so every datagram that comes in there is dropped{hint}"
            findings.report(path, message)
    return findings.problems
