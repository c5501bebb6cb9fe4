"""
Whether routers, services and middlewares fit what is spoken at their entrypoints: requests, or connections that are passed on as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Any, Final

from a3sgw.assembly_router import kind_of, tcp_services
from a3sgw.config.address import parse_server_url
from a3sgw.config.check_chain import walk_out
from a3sgw.config.finding import Findings
from a3sgw.config.model import GatewayConfig, RouterConfig, ServiceConfig
from a3sgw.config.setting import settings_of
from a3sgw.config.tree import Position, Problem
from a3sgw.config.wording import item_path, quote

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
    over_tcp = tcp_services(config)
    for name, router in config.routers.items():
        _check_router(item_path("routers", name), router, config, findings)
    for name, service in config.services.items():
        path = item_path("services", name)
        if name in over_tcp:
            _check_tcp_service(path, service, findings)
        elif service.proxy_protocol is not None:
            place = f"{path}.proxy_protocol"
            findings.report(place, f"{place} is for services of tcp routers, and none leads to service {quote(name)}")
    requested = _requested_services(config)
    for name in requested:
        service = config.services[name]
        for place, url in _servers_of(item_path("services", name), service):
            if parse_server_url(url).scheme not in _FOR_REQUESTS:
                message = f"{place} is {findings.show(place, url)}, but requests are sent to service {quote(name)}; write http://…"
                findings.report(place, message)
        if name in over_tcp:
            message = f"service {quote(name)} is for requests and for tcp connections at once; declare it twice, under two names"
            findings.report(item_path("services", name), message)
    return findings.problems


def _check_router(path: str, router: RouterConfig, config: GatewayConfig, findings: Findings) -> None:
    if kind_of(config, router) == "http":
        if router.tls is not None:
            place = f"{path}.tls"
            findings.report(place, f"{place} is for tcp routers; TLS of http entrypoints stands at the entrypoint")
    elif router.timeouts is not None:
        for key in ("response_header", "idle", "total"):
            if getattr(router.timeouts, key) is not None:
                place = f"{path}.timeouts.{key}"
                findings.report(place, f"{place} is about requests, but router {quote(router.name)} is for tcp; only connect counts there")


def _servers_of(path: str, service: ServiceConfig) -> Iterator[tuple[str, str]]:
    for index, server in enumerate(service.load_balancer.servers):
        yield f"{path}.load_balancer.servers[{index}].url", server.url
    for number, revision in enumerate(service.revisions):
        for index, server in enumerate(revision.servers):
            yield f"{path}.revisions[{number}].servers[{index}].url", server.url


def _check_tcp_service(path: str, service: ServiceConfig, findings: Findings) -> None:
    name = quote(service.name)
    schemes = set()
    for place, url in _servers_of(path, service):
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
        if findings.is_written(place) or _is_given(service, key):
            findings.report(place, f"{place} is about requests, but tcp routers lead to service {name}; remove it")


def _is_given(value: Any, dotted: str) -> bool:
    """
    Tell whether what `dotted` leads to is there and is not the default.
    """
    key, _, rest = dotted.partition(".")
    declared = next(each for each in settings_of(value.__class__) if each.key == key)
    held = getattr(value, declared.attribute)
    if rest:
        return held is not None and _is_given(held, rest)
    return bool(held != declared.default)


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
        over_tcp = kind_of(config, router) == "tcp"
        for index, each in walk_out(router.middlewares, config.middlewares):
            kind = quote(getattr(config.middlewares.get(each), "type", ""))
            shown = _show_listed(f"{path}[{index}]", router.middlewares[index], each, findings)
            if each in gates and not over_tcp:
                message = f"router {quote(name)} lists {shown}, but {kind} decides about connections; list it on an entrypoint"
                findings.report(f"{path}[{index}]", message)
            elif each in others and over_tcp:
                message = f"router {quote(name)} is for tcp and lists {shown}, but {kind} needs requests; remove it"
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
