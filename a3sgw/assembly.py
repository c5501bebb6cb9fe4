"""
Make a running generation out of a configuration.

This is the only module that knows every room. It builds everything a configuration describes beside what runs already, and takes over each
object of the previous generation whose own configuration is unchanged, so that pools, turns and counters survive a reload that did not
touch them. Building has no side effect: nothing is bound, connected, resolved or written, so a generation that is not wanted is simply
dropped.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import attrs

from a3sgw.address import AddressSet
from a3sgw.assembly_middleware import Middlewares
from a3sgw.assembly_parts import Kit, Parts
from a3sgw.assembly_router import kinds_of_services, routers_of, settings_for
from a3sgw.assembly_service import assemble_service
from a3sgw.assembly_tcp import assemble_tcp_entrypoint, gates_of, tcp_beginning
from a3sgw.assembly_udp import assemble_udp_plans
from a3sgw.config.address import parse_listen_address
from a3sgw.config.model import EntrypointConfig, GatewayConfig
from a3sgw.config.model_entrypoint import Http2Config, LimitsConfig
from a3sgw.interfaces import IBeginning, IConnectionGate, IRetirable
from a3sgw.listen.beginning import Http1Beginning
from a3sgw.listen.door import Gates
from a3sgw.listen.http2_beginning import Http2Beginning, HttpBeginning
from a3sgw.listen.places import Place
from a3sgw.listen.proxy_beginning import ProxyBeginning
from a3sgw.listen.udp_doors import UdpPlan
from a3sgw.middleware.chain import Link
from a3sgw.policy.shared_slots import SharedCount
from a3sgw.proxy.client_subject import ClientSubject
from a3sgw.proxy.entrypoint import AdminGate, Entrypoint, EntrypointTimeouts
from a3sgw.proxy.https_redirect import HttpsRedirect
from a3sgw.proxy.tcp_entrypoint import TcpEntrypoint
from a3sgw.route.table import HttpTable, RouteSpec, build_http_table, building_http_table
from a3sgw.service.service import Route, Service
from a3sgw.steps import finish
from a3sgw.wire.http1 import RequestLimits
from a3sgw.wire.http2 import SessionLimits
from a3sgw.wire.path import PathPolicy

__all__ = [
    "DASHBOARD_ENTRYPOINT",
    "STEP",
    "DoorPlan",
    "Generation",
    "Kit",
    "assemble",
    "assembling",
    "begin_services",
    "places_of",
    "retire_parts",
]

DASHBOARD_ENTRYPOINT: Final = "dashboard"
"""What the listener of `dashboard.address` is called in logs and metrics."""

STEP: Final = 100
"""How many services or routers are assembled at a time: 3 ms on the machine of docs/hot-path.md."""


@attrs.frozen(slots=True, eq=False)
class DoorPlan:
    """
    A door that a generation wants: where, who may come in, how connections begin, and what is served.
    """

    address: tuple[str, int]
    gates: Gates
    beginning: IBeginning
    entrypoint: Entrypoint | TcpEntrypoint


@attrs.frozen(slots=True, eq=False)
class Generation:
    """
    Everything one configuration needs to run. `parts` are its runtime objects by kind, name and own configuration.
    """

    config: GatewayConfig
    doors: Mapping[str, DoorPlan]
    services: Mapping[str, Service]
    parts: Mapping[Hashable, Any]
    udp_doors: Mapping[str, UdpPlan] = attrs.field(factory=dict)


def assemble(config: GatewayConfig, previous: Generation | None, kit: Kit) -> Generation:
    """
    Build the generation for a checked `config`.

    Raises `RuleError` if a rule cannot be read and `MiddlewareError` if a middleware cannot be built, which `loading` would have found.
    """
    return finish(assembling(config, previous, kit))


def assembling(config: GatewayConfig, previous: Generation | None, kit: Kit) -> Generator[None, None, Generation]:
    """
    Like `assemble`, in steps of `STEP` services or routers: between two of them whoever has connections to serve may do so, as long as
    `previous` is what runs. Long because it names every room.
    """
    parts = Parts({} if previous is None else previous.parts)
    kinds = kinds_of_services(config)
    services: dict[str, Service] = {}
    for name, service in config.services.items():
        services[name] = assemble_service(service, parts, kit, kind=kinds.get(name, "http"))
        if not len(services) % STEP:
            yield
    middlewares = Middlewares(config, services, parts, kit)
    doors = {}
    for name, entrypoint in config.entrypoints.items():
        links = middlewares.links("entrypoint", name, entrypoint.middlewares)
        beginning: IBeginning
        if entrypoint.protocol == "http":
            beginning = _http_beginning(entrypoint, parts, kit)
            table = yield from _table(config, name, services, middlewares, links, parts, kit)
            served: Entrypoint | TcpEntrypoint = _entrypoint(config, entrypoint, table, kit)
        elif entrypoint.protocol == "tcp":
            beginning = tcp_beginning(entrypoint, parts, kit)
            served = assemble_tcp_entrypoint(config, entrypoint, services, middlewares, parts, kit)
        else:
            continue
        speakers = None
        if entrypoint.proxy_protocol is not None:
            speakers = AddressSet(entrypoint.proxy_protocol.trusted_ips)
            beginning = ProxyBeginning(speakers, entrypoint.proxy_protocol.timeout, beginning)
        allowed = AddressSet(entrypoint.tcp_allowed_ips) if entrypoint.tcp_allowed_ips else None
        shared = None
        if kit.arena is not None:
            shared = SharedCount(kit.arena, ("connections", name, entrypoint.address))
        gates = Gates(allowed, entrypoint.max_connections, gates_of(links), speakers, shared)
        doors[name] = DoorPlan(parse_listen_address(entrypoint.address), gates, beginning, served)
    if config.dashboard.enabled and config.dashboard.address is not None:
        doors[DASHBOARD_ENTRYPOINT] = DoorPlan(
            parse_listen_address(config.dashboard.address), Gates(), Http1Beginning(), _dashboard_entrypoint(config, kit)
        )
    udp_doors = assemble_udp_plans(config, services, middlewares, parts, kit)
    return Generation(config, doors, services, parts.made, udp_doors)


def places_of(config: GatewayConfig) -> dict[str, Place]:
    """
    Return where a generation for `config` listens, by entrypoint.
    """
    places = {
        name: parse_listen_address(entrypoint.address)
        for name, entrypoint in config.entrypoints.items()
        if entrypoint.protocol in ("http", "tcp")
    }
    if config.dashboard.enabled and config.dashboard.address is not None:
        places[DASHBOARD_ENTRYPOINT] = parse_listen_address(config.dashboard.address)
    return places


def begin_services(old: Generation | None, new: Generation) -> None:
    """
    Begin each service of `new` that `old` does not hold, and those whose partners may be others now.
    """
    before = {} if old is None else old.services
    for name, service in new.services.items():
        if service.has_partners or before.get(name) is not service:
            service.begin(new.services)


def retire_parts(old: Generation, kept: Mapping[Hashable, Any]) -> None:
    """
    Give up what `old` holds and `kept` has not taken over.
    """
    # By identity: to look thousands of keys up means to hash as many configurations.
    living = set(map(id, kept.values()))
    for key, part in old.parts.items():
        if isinstance(key, tuple) and id(part) not in living:
            if key[0] == "backend":
                for pool in part.pools:
                    pool.retire()
            elif key[0] in ("service", "mirror"):
                part.retire()
            elif key[0] == "judgement":
                part.forget()
            elif key[0] == "room":
                part.close()
            elif key[0] == "middleware" and IRetirable.providedBy(part):
                part.retire()


# -- entrypoints ----------------------------------------------------------------------------------------------------------------------


def _http_beginning(entrypoint: EntrypointConfig, parts: Parts, kit: Kit) -> IBeginning:
    """
    Return the first step of a connection over which HTTP is spoken, in whatever version.
    """
    with_http2 = entrypoint.http2.enabled
    if entrypoint.tls is None:
        return HttpBeginning() if with_http2 else Http1Beginning()
    # Only here, so that whoever has no TLS runs without OpenSSL.
    from a3sgw.assembly_tls import assemble_tls

    following: dict[bytes, IBeginning] = {b"http/1.1": Http1Beginning(), b"": Http1Beginning()}
    if with_http2:
        # The best first.
        following = {b"h2": Http2Beginning(), **following}
    return assemble_tls(entrypoint, following, parts, kit)


def _entrypoint(config: GatewayConfig, entrypoint: EntrypointConfig, table: HttpTable[Route], kit: Kit) -> Entrypoint:
    limits = entrypoint.limits
    relaxed = entrypoint.encoded_characters
    timeouts = entrypoint.timeouts
    trusted = entrypoint.forwarded_headers.trusted_ips
    return Entrypoint(
        name=entrypoint.name,
        table=table,
        limits=RequestLimits(
            max_header_bytes=limits.max_header_bytes,
            max_header_count=limits.max_header_count,
            max_request_line_bytes=limits.max_request_line_bytes,
            allow_underscores_in_headers=entrypoint.allow_underscores_in_headers,
            paths=PathPolicy(
                merge_slashes=entrypoint.merge_slashes,
                allow_encoded_slash=relaxed.allow_encoded_slash,
                allow_encoded_backslash=relaxed.allow_encoded_backslash,
                allow_encoded_null_character=relaxed.allow_encoded_null_character,
                allow_malformed_escapes=relaxed.allow_malformed_escapes,
            ),
        ),
        timeouts=EntrypointTimeouts(
            request_header=timeouts.request_header, request_body=timeouts.request_body, idle=timeouts.idle, write=timeouts.write
        ),
        trusted=AddressSet(trusted) if trusted else None,
        admin=_admin_gate(config, entrypoint.name, kit),
        observers=kit.observers,
        series=kit.metrics.entrypoint_series(entrypoint.name),
        later=kit.reactor.callLater,
        http2=_http2(entrypoint.http2, limits),
    )


def _http2(terms: Http2Config, limits: LimitsConfig) -> SessionLimits:
    """
    Return the terms of HTTP/2 connections. A head that is larger than the limits is answered, as it is over HTTP/1; only far beyond them it
    costs the connection. Each field counts 32 bytes more than it has (RFC 9113 section 6.5.2), and a cookie may come in many.
    """
    bytes_at_most = limits.max_header_bytes + limits.max_request_line_bytes + 32 * limits.max_header_count
    return SessionLimits(
        max_concurrent_streams=terms.max_concurrent_streams,
        stream_window=terms.stream_window_bytes,
        connection_window=terms.connection_window_bytes,
        max_header_bytes=2 * bytes_at_most,
        max_header_count=2 * limits.max_header_count + 512,
        advertised_header_bytes=bytes_at_most,
        # Whoever leaves a page gives up everything that is under way for it, and may leave the next one at once.
        resets=max(terms.max_concurrent_streams, SessionLimits().resets),
        allows_extended_connect=True,
    )


def _client_subject(entrypoint: EntrypointConfig, parts: Parts, kit: Kit) -> list[Link]:
    """
    Return what comes before all middlewares of an entrypoint that tells servers about certificates of clients.
    """
    header = None if entrypoint.tls is None else entrypoint.tls.client_subject_header
    if header is None:
        return []
    hook = parts.take(("client-subject", header), partial(ClientSubject, header))
    return [Link("tls", "client-subject", hook, kit.metrics.middleware_series("tls"))]


def _admin_gate(config: GatewayConfig, name: str, kit: Kit) -> AdminGate | HttpsRedirect | None:
    gate = _own_gate(config, name, kit)
    target = None if name == DASHBOARD_ENTRYPOINT else config.entrypoints[name].redirect_to
    if target is None:
        return gate
    address = target if target.startswith(":") else config.entrypoints[target].address
    return HttpsRedirect(parse_listen_address(address)[1], gate)


def _own_gate(config: GatewayConfig, name: str, kit: Kit) -> AdminGate | None:
    dashboard = config.dashboard
    if not dashboard.enabled:
        return None
    if name != DASHBOARD_ENTRYPOINT and name not in dashboard.entrypoints and (dashboard.entrypoints or dashboard.address is not None):
        return None
    return AdminGate(dashboard.path_prefix.encode("ascii"), AddressSet(dashboard.allowed_ips), kit.ask)


def _dashboard_entrypoint(config: GatewayConfig, kit: Kit) -> Entrypoint:
    return Entrypoint(
        name=DASHBOARD_ENTRYPOINT,
        table=build_http_table(()),
        limits=RequestLimits(),
        timeouts=EntrypointTimeouts(),
        trusted=None,
        admin=_admin_gate(config, DASHBOARD_ENTRYPOINT, kit),
        observers=kit.observers,
        series=kit.metrics.entrypoint_series(DASHBOARD_ENTRYPOINT),
        later=kit.reactor.callLater,
    )


def _table(
    config: GatewayConfig,
    name: str,
    services: Mapping[str, Service],
    middlewares: Middlewares,
    links: Sequence[Link],
    parts: Parts,
    kit: Kit,
) -> Generator[None, None, HttpTable[Route]]:
    specs: list[RouteSpec[Route]] = []
    names = config.entrypoints[name].middlewares
    first = _client_subject(config.entrypoints[name], parts, kit)
    differs = middlewares.differ_by_service(names)
    for router in routers_of(config, name, "http"):
        service = services[router.service]
        series = kit.metrics.route_series(router.name, router.service)
        if differs:
            links = middlewares.links("entrypoint", name, names, router.service)
        # What works on connections has done its work when there is a request.
        chain = middlewares.chain(
            [
                link
                for link in (*first, *links, *middlewares.links("router", router.name, router.middlewares, router.service))
                if not IConnectionGate.providedBy(link.middleware)
            ]
        )
        settings = settings_for(router, service.settings)
        route_key = ("route", router.name, service, series, chain, settings)
        route = parts.take(route_key, partial(Route, router.name, service, series, chain, settings))
        specs.append(RouteSpec(router.name, router.rule, router.priority, route))
        if not len(specs) % STEP:
            yield
    # Entrypoints that serve the same routers share one table, and so do generations, in whatever order they are written.
    specs.sort(key=lambda spec: spec.name)
    key = ("table", tuple((spec.name, spec.rule, spec.priority, spec.target) for spec in specs))
    table: HttpTable[Route] | None = parts.held(key)
    if table is None:
        table = yield from building_http_table(specs, STEP)
    return parts.take(key, lambda: table)
