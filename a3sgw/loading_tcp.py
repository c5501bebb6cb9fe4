"""
Whether routers, services and middlewares fit what is spoken at their entrypoints: requests, or connections that are passed on as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Final

from a3sgw.assembly_router import Protocol, kind_of, kinds_of_services
from a3sgw.config.address import parse_server_url
from a3sgw.config.check_chain import walk_out
from a3sgw.config.finding import Findings
from a3sgw.config.model import GatewayConfig, RouterConfig, ServiceConfig
from a3sgw.config.tree import Position, Problem
from a3sgw.config.wording import item_path, quote
from a3sgw.loading_fit import is_given, servers_of
from a3sgw.loading_udp import check_udp_entrypoint, check_udp_router, check_udp_service

__all__ = ["fit_problems", "report_misplaced"]

_OVER_TCP: Final = frozenset(["tcp", "", "unix"])
_FOR_REQUESTS: Final = frozenset(["http", "https", "ws", "wss", "h2c", "unix"])

_ABOUT_REQUESTS: Final = (
    "pass_host_header",
    "max_replay_bytes",
    "mirror",
    "hedging",
    "revision_header",
    "revision_cookie",
    "timeouts.response_header",
    "timeouts.idle",
    "timeouts.total",
    "connection_pool.max_idle_connections",
    "connection_pool.idle_timeout",
    "failover.status_codes",
    "load_balancer.sticky",
    "load_balancer.hash.source",
    "load_balancer.hash.name",
    "load_balancer.passive_health.status_codes",
)
"""What services may have that means nothing to those of tcp routers."""

_ABOUT_QUESTIONS: Final = tuple(f"load_balancer.health_check.{key}" for key in ("path", "method", "status_codes", "host", "headers"))
"""What means something only to servers that are asked over HTTP whether they are well."""


def fit_problems(config: GatewayConfig, positions: Mapping[str, Position]) -> list[Problem]:
    """
    Return a problem for each thing about routers and services that does not fit the protocol.
    """
    findings = Findings(positions)
    kinds = kinds_of_services(config)
    for entrypoint in config.entrypoints.values():
        check_udp_entrypoint(entrypoint, config, findings)
    for name, router in config.routers.items():
        _check_router(item_path("routers", name), router, config, findings)
    for name, service in config.services.items():
        path = item_path("services", name)
        kind = kinds.get(name)
        if kind == "tcp":
            _check_tcp_service(path, service, findings)
        elif kind == "udp":
            check_udp_service(path, service, findings)
        elif service.proxy_protocol is not None:
            place = f"{path}.proxy_protocol"
            findings.report(place, f"{place} is for services of tcp routers, and none leads to service {quote(name)}")
    requested = _requested_services(config)
    for name in requested:
        service = config.services[name]
        for place, url in servers_of(item_path("services", name), service):
            if parse_server_url(url).scheme not in _FOR_REQUESTS:
                message = f"{place} is {findings.show(place, url)}, but requests are sent to service {quote(name)}; write http://…"
                findings.report(place, message)
        if name in kinds:
            what = "tcp connections" if kinds[name] == "tcp" else "datagrams"
            message = f"service {quote(name)} is for requests and for {what} at once; declare it twice, under two names"
            findings.report(item_path("services", name), message)
    _check_both(config, kinds, findings)
    return findings.problems


def _check_both(config: GatewayConfig, kinds: Mapping[str, Protocol], findings: Findings) -> None:
    """
    Report services that routers for tcp and for udp lead to, which have connections to servers, or none.
    """
    for name, router in config.routers.items():
        kind = kind_of(config, router)
        service: str | None = router.service
        seen: set[str] = set()
        while kind != "http" and service is not None and service not in seen and service in config.services:
            seen.add(service)
            if kinds.get(service, kind) != kind:
                path = f"{item_path('routers', name)}.service"
                message = f"router {quote(name)} is for {kind}, but service {quote(service)} is for {kinds[service]} already"
                findings.report(path, f"{message}; declare it twice, under two names")
            failover = config.services[service].failover
            service = None if failover is None else failover.service


def _check_router(path: str, router: RouterConfig, config: GatewayConfig, findings: Findings) -> None:
    kind = kind_of(config, router)
    if kind == "udp":
        check_udp_router(path, router, findings)
    elif kind == "http":
        if router.tls is not None:
            place = f"{path}.tls"
            findings.report(place, f"{place} is for tcp routers; TLS of http entrypoints stands at the entrypoint")
    elif router.timeouts is not None:
        for key in ("response_header", "idle", "total"):
            if getattr(router.timeouts, key) is not None:
                place = f"{path}.timeouts.{key}"
                findings.report(place, f"{place} is about requests, but router {quote(router.name)} is for tcp; only connect counts there")


def _check_tcp_service(path: str, service: ServiceConfig, findings: Findings) -> None:
    name = quote(service.name)
    schemes = set()
    for place, url in servers_of(path, service):
        scheme = parse_server_url(url).scheme
        schemes.add(scheme)
        if scheme not in _OVER_TCP:
            message = f"{place} is {findings.show(place, url)}, but tcp routers lead to service {name}; write tcp://host:port"
            findings.report(place, message)
    tls = service.upstream_tls
    if tls is not None:
        place = f"{path}.upstream_tls"
        if service.proxy_protocol is not None:
            why = "the PROXY header would have to come before TLS; give one of them"
            findings.report(place, f"{path} has both proxy_protocol and upstream_tls, but {why}", [f"{path}.proxy_protocol"])
        if tls.server_name is None and "unix" in schemes:
            findings.report(place, f"{place} lacks server_name, which is required with unix: servers", [f"{place}.server_name"])
    check = service.load_balancer.health_check
    asks = check is not None and check.protocol == "http" and "unix" in schemes
    for key in _ABOUT_REQUESTS if asks else (*_ABOUT_REQUESTS, *_ABOUT_QUESTIONS):
        place = f"{path}.{key}"
        if findings.is_written(place) or is_given(service, key):
            findings.report(place, f"{place} is about requests, but tcp routers lead to service {name}; remove it")


def _requested_services(config: GatewayConfig) -> Set[str]:
    """
    Return the services to which requests are sent: by routers, as copies, in place of others, or by middlewares.
    """
    pending = [router.service for router in config.routers.values() if kind_of(config, router) == "http"]
    for middleware in config.middlewares.values():
        pending += [getattr(middleware, key) for key, noun in getattr(middleware, "names", {}).items() if noun == "service"]
    found: dict[str, None] = {}
    while pending:
        name = pending.pop()
        service = config.services.get(name)
        if service is not None and name not in found:
            found[name] = None
            pending += [target.service for target in (service.failover, service.mirror) if target is not None]
    return found.keys()


def report_misplaced(config: GatewayConfig, gates: Set[str], others: Set[str], findings: Findings) -> None:
    """
    Report middlewares that stand where they have nothing to do: `gates`, which decide about connections, on routers for requests, and
    `others`, which see requests, where there are none.
    """
    for name, router in config.routers.items():
        path = f"{item_path('routers', name)}.middlewares"
        spoken = kind_of(config, router)
        for index, each in walk_out(router.middlewares, config.middlewares):
            kind = quote(getattr(config.middlewares.get(each), "type", ""))
            shown = _show_listed(f"{path}[{index}]", router.middlewares[index], each, findings)
            if each in gates and spoken == "http":
                message = f"router {quote(name)} lists {shown}, but {kind} decides about connections; list it on an entrypoint"
                findings.report(f"{path}[{index}]", message)
            elif each in others and spoken != "http":
                message = f"router {quote(name)} is for {spoken} and lists {shown}, but {kind} needs requests; remove it"
                findings.report(f"{path}[{index}]", message)
    for name, entrypoint in config.entrypoints.items():
        path = f"{item_path('entrypoints', name)}.middlewares"
        if entrypoint.protocol != "http":
            for index, each in walk_out(entrypoint.middlewares, config.middlewares):
                if each in others:
                    kind = quote(config.middlewares[each].type)
                    shown = _show_listed(f"{path}[{index}]", entrypoint.middlewares[index], each, findings)
                    who = f"entrypoint {quote(name)} speaks {entrypoint.protocol}"
                    findings.report(f"{path}[{index}]", f"{who} and lists {shown}, but {kind} needs requests; remove it")


def _show_listed(path: str, listed: str, each: str, findings: Findings) -> str:
    shown = findings.show(path, listed)
    return shown if listed == each else f"{shown} with {quote(each)} in it"
