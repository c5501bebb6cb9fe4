"""
Check services: that there are servers, that mirrors and failovers lead somewhere and not in circles, and that numbers agree.
"""

from __future__ import annotations

from collections.abc import Callable

from a3sgw.config.address import parse_server_url
from a3sgw.config.finding import Findings
from a3sgw.config.model import FailoverConfig, GatewayConfig, MirrorConfig, ServerConfig, ServiceConfig
from a3sgw.config.wording import item_path, quote

__all__ = ["check_services"]

_SHORTEST_STICKY_KEY = 16

_SET_BY_PROBES = frozenset(
    [
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    ]
)
"""Header names, in lower case, that a health check does not take from the configuration."""

_SET_BY_CALLS = frozenset(["content-type", "grpc-timeout"])
"""And these if it is a call of gRPC."""


def check_services(config: GatewayConfig, findings: Findings, knows_service: Callable[[str], bool]) -> None:
    """
    Report what is wrong with the services, taken one by one and together. `knows_service` tells whether a name is declared.
    """
    resolved = config.providers.dns if config.providers is not None else {}
    for name, service in config.services.items():
        path = item_path("services", name)
        place = f"service {quote(name)}"
        if not service.load_balancer.servers and not service.revisions and name not in resolved:
            sources = [f"{path}.load_balancer", f"{path}.revisions"]
            findings.report(path, f'{place} has no servers configured; add load_balancer {{ servers = [{{ url = "http://…" }}] }}', sources)
        if service.scaling is not None and service.scaling.min_replicas > service.scaling.max_replicas:
            low, high = service.scaling.min_replicas, service.scaling.max_replicas
            message = f"{path}.scaling.min_replicas is {low}, more than max_replicas, {high}"
            findings.report(f"{path}.scaling.min_replicas", message, [f"{path}.scaling.max_replicas"])
        if service.upstream_tls is not None and (service.upstream_tls.cert_file is None) != (service.upstream_tls.key_file is None):
            keys = [f"{path}.upstream_tls.cert_file", f"{path}.upstream_tls.key_file"]
            findings.report(f"{path}.upstream_tls", f"{path}.upstream_tls has only one of cert_file and key_file; they go together", keys)
        _check_balancing(f"{path}.load_balancer", service, findings)
        if service.revisions:
            _check_revisions(path, place, service, findings)
        if service.rollout is not None:
            _check_rollout(path, place, service, findings)
        for word, target in (("mirror", service.mirror), ("failover", service.failover)):
            if target is not None and not knows_service(target.service):
                target_path = f"{path}.{word}.service"
                hint = findings.hint(target_path, target.service, config.services) or ", which does not exist"
                findings.report(target_path, f"{word} of {place} names service {findings.show(target_path, target.service)}{hint}")
    _check_circles(config, "mirror", lambda service: service.mirror, findings)
    _check_circles(config, "failover", lambda service: service.failover, findings)


def _check_balancing(path: str, service: ServiceConfig, findings: Findings) -> None:
    balancing = service.load_balancer
    check = balancing.health_check
    if check is not None and check.path is None and check.protocol == "http" and _has_http_servers(service):
        place = f"{path}.health_check"
        findings.report(place, f'{place} lacks "path", which is required to ask over HTTP', [f"{place}.path", f"{place}.protocol"])
    if check is not None and check.grpc_service and check.protocol != "grpc":
        place = f"{path}.health_check.grpc_service"
        findings.report(place, f'{place} is for protocol = "grpc"', [place, f"{path}.health_check.protocol"])
    if check is not None and any(parse_server_url(server.url).scheme == "udp" for server in _all_servers(service)):
        place = f"{path}.health_check"
        message = f"{place} connects to servers, and nobody can connect to udp://; leave it out, and use passive_health"
        findings.report(place, f"{message}, which hears of servers that refuse datagrams")
    for name in () if check is None else check.headers:
        # A server may read `_` as `-`.
        plain = name.lower().replace("_", "-")
        if plain in _SET_BY_PROBES or (check is not None and check.protocol == "grpc" and plain in _SET_BY_CALLS):
            place = item_path(f"{path}.health_check.headers", name)
            remedy = 'write host = "…" beside headers' if name.lower() == "host" else "leave it out"
            findings.report(place, f"{place} is for the gateway to set; {remedy}")
    source = balancing.hash.source
    if source in ("header", "cookie", "query") and balancing.hash.name is None:
        place = f"{path}.hash"
        findings.report(place, f'{place} lacks "name": the name of the {source} to look at', [f"{place}.name", f"{place}.source"])
    if balancing.sticky is not None:
        for index, key in enumerate(balancing.sticky.keys):
            if len(key.reveal()) < _SHORTEST_STICKY_KEY:
                place = f"{path}.sticky.keys[{index}]"
                findings.report(place, f"{place} has fewer than {_SHORTEST_STICKY_KEY} characters; a longer one cannot be guessed")


def _all_servers(service: ServiceConfig) -> list[ServerConfig]:
    return [*service.load_balancer.servers, *(server for revision in service.revisions for server in revision.servers)]


def _has_http_servers(service: ServiceConfig) -> bool:
    """
    Tell whether any server can be asked over HTTP whether it is well; the others are only connected to.
    """
    servers = _all_servers(service)
    return not servers or any(parse_server_url(server.url).scheme not in ("tcp", "udp", "") for server in servers)


def _check_revisions(path: str, place: str, service: ServiceConfig, findings: Findings) -> None:
    places: dict[str, str] = {}
    for index, revision in enumerate(service.revisions):
        where = f"{path}.revisions[{index}]"
        if revision.name in places:
            findings.report(f"{where}.name", f"{place} has two revisions called {findings.show(f'{where}.name', revision.name)}")
        places[revision.name] = where
        if not revision.servers:
            message = f"revision {findings.show(f'{where}.name', revision.name)} of {place} has no servers"
            findings.report(where, message, [f"{where}.servers"])
    total = sum(revision.traffic_percent for revision in service.revisions)
    if total != 100:
        findings.report(f"{path}.revisions", f"the traffic_percent of the revisions of {place} sum to {total}, not 100")


def _check_rollout(path: str, place: str, service: ServiceConfig, findings: Findings) -> None:
    rollout = service.rollout
    assert rollout is not None
    where = f"{path}.rollout"
    if not service.revisions:
        findings.report(where, f"rollout of {place} requires at least one revision", [f"{path}.revisions"])
        return
    names = [revision.name for revision in service.revisions]
    for key, name in (("from", rollout.from_), ("to", rollout.to)):
        if name not in names:
            key_path = f"{where}.{key}"
            hint = findings.hint(key_path, name, names)
            shown = findings.show(key_path, name)
            findings.report(key_path, f"rollout of {place}: '{key}' revision {shown} not found{hint}", [f"{path}.revisions"])
    if rollout.from_ == rollout.to:
        message = f"rollout of {place} goes from {findings.show(f'{where}.from', rollout.from_)} to itself"
        findings.report(f"{where}.to", message, [f"{where}.from"])


def _check_circles(
    config: GatewayConfig, word: str, edge: Callable[[ServiceConfig], MirrorConfig | FailoverConfig | None], findings: Findings
) -> None:
    """
    Report each circle of mirrors or failovers once, at the service that comes first in the file.
    """
    done: set[str] = set()
    for start in config.services:
        trail: dict[str, None] = {}
        name = start
        while name in config.services and name not in done and name not in trail:
            trail[name] = None
            target = edge(config.services[name])
            if target is None:
                break
            name = target.service
        else:
            if name in trail:
                circle = list(trail)[list(trail).index(name) :]
                path = f"{item_path('services', name)}.{word}"
                if len(circle) == 1:
                    findings.report(path, f"service {quote(name)} is its own {word}")
                else:
                    around = " → ".join(quote(each) for each in (*circle, name))
                    findings.report(path, f"the {word}s of services go round in a circle: {around}")
        done.update(trail)
