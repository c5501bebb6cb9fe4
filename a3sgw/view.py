"""
What the gateway shows of itself: the deciding side's answers to its own API.

A view reads; it changes nothing. It is not the `Gateway` itself because that is a Twisted service, which has `services` of another kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

import attrs
from twisted.internet.defer import Deferred
from zope.interface import implementer

from a3sgw._version import __version__
from a3sgw.address import pack_address
from a3sgw.admin.api import AdminApi, IGatewayView
from a3sgw.assembly import places_of
from a3sgw.assembly_router import routers_of
from a3sgw.carrier import Carrier
from a3sgw.config.check_chain import walk_out
from a3sgw.config.model import GatewayConfig, ServiceConfig
from a3sgw.message import RequestHead, make_field
from a3sgw.observe.exposition import render
from a3sgw.route.explain import explain_table
from a3sgw.route.match import ConnectionFacts
from a3sgw.route.table import HttpTable, RouteSpec, TcpTable, build_http_table, build_tcp_table
from a3sgw.workers.fleet import Fleet

if TYPE_CHECKING:
    from a3sgw.gateway import Gateway

__all__ = ["GatewayView", "make_api"]


@implementer(IGatewayView)
class GatewayView:
    """
    One gateway and its carrier, to be looked at.
    """

    EXPLAINED_ROUTERS: Final = 100

    def __init__(self, gateway: Gateway, carrier: Carrier | Fleet) -> None:
        self._gateway = gateway
        self._carrier = carrier
        self._built: tuple[GatewayConfig, dict[str, HttpTable[Any] | TcpTable[Any]]] | None = None

    def health(self) -> dict[str, Any]:
        """
        Return the gateway's own account.
        """
        return self._gateway.health()

    def metrics_page(self) -> Deferred[bytes]:
        """
        Give the Prometheus text page of all carriers together.
        """

        def draw(snapshot: Mapping[str, Any]) -> bytes:
            reloads, last_reload = self._gateway.reloads()
            providers, left_out = self._gateway.providers()
            return render(
                dict(snapshot),
                {
                    "version": __version__,
                    "reloads": reloads,
                    "last_reload": last_reload,
                    "broken_files": [file.source for file in self._gateway.broken_files()],
                    "providers": {row["name"]: (row["objects"] or 0, row["error"] is None) for row in providers},
                    "left_out": len(left_out),
                    "workers": self._gateway.workers(),
                },
            )

        return self._carrier.snapshot().addCallback(draw)

    def config_json(self) -> dict[str, Any]:
        """
        Return the running configuration by its HCL names, with every secret masked.
        """
        return self._gateway.config().to_json()

    def routes(self) -> list[dict[str, Any]]:
        """
        Return the routers in the order in which they are asked.
        """
        rows = [
            {
                "name": router.name,
                "rule": router.rule,
                "service": router.service,
                "entrypoints": list(router.entrypoints),
                "middlewares": list(router.middlewares),
                "priority": router.priority or len(router.rule),
            }
            for router in self._gateway.config().routers.values()
        ]
        return sorted(rows, key=lambda row: (-row["priority"], row["name"]))

    def services(self) -> Deferred[list[dict[str, Any]]]:
        """
        Give the services with their backends as they stand.
        """

        def describe(snapshot: Mapping[str, Any]) -> list[dict[str, Any]]:
            gauges = snapshot["gauges"]
            backends: dict[str, list[dict[str, Any]]] = {}
            for gauge in gauges["backends"]:
                backends.setdefault(gauge["service"], []).append(_backend_row(gauge))
            counts = {gauge["service"]: gauge for gauge in gauges["services"]}
            services = self._gateway.config().services
            return [_service_row(service, backends.get(name, []), counts.get(name, {})) for name, service in sorted(services.items())]

        return self._carrier.snapshot().addCallback(describe)

    def middlewares(self) -> Deferred[list[dict[str, Any]]]:
        """
        Give the configured middlewares with what they did, and how they stand wherever they are listed.
        """

        def describe(snapshot: Mapping[str, Any]) -> list[dict[str, Any]]:
            config = self._gateway.config()
            counts = {row[0]: row[1:] for row in snapshot["middlewares"]}
            states: dict[str, list[dict[str, Any]]] = {}
            for gauge in snapshot["gauges"]["middlewares"]:
                where = {noun: gauge[noun] or None for noun in ("router", "entrypoint", "service")}
                states.setdefault(gauge["name"], []).append({**where, "state": gauge["state"]})
            routers, entrypoints = _who_lists(config, config.routers), _who_lists(config, config.entrypoints)
            return [
                {
                    "name": name,
                    "type": middleware.type,
                    "routers": routers.get(name, []),
                    "entrypoints": entrypoints.get(name, []),
                    **_middleware_counts(*counts.get(name, (0, (), 0, 0.0))),
                    "states": states.get(name, []),
                }
                for name, middleware in sorted(config.middlewares.items())
            ]

        return self._carrier.snapshot().addCallback(describe)

    def version(self) -> str:
        """
        Return the gateway's version.
        """
        return __version__

    def explain(self, method: str, url: str, client: str, headers: list[tuple[str, str]]) -> dict[str, Any] | None:
        """
        Tell which router each entrypoint of the protocol would choose for a request or a connection, and why.
        """
        parts = urlsplit(url)
        over_tcp = parts.scheme == "tcp"
        what = _facts(parts.hostname, client, headers) if over_tcp else _head(method, parts, client, headers)
        answers = {}
        for name, table in sorted(self._tables().items()):
            if isinstance(table, TcpTable) == over_tcp:
                verdicts = explain_table(table, what)
                shown = [each for each in verdicts if each.rule.matched] + [each for each in verdicts if not each.rule.matched]
                answers[name] = {
                    "router": next((each.name for each in verdicts if each.is_winner), None),
                    "routers": [attrs.asdict(each) for each in shown[: self.EXPLAINED_ROUTERS]],
                    "not_shown": max(len(shown) - self.EXPLAINED_ROUTERS, 0),
                }
        return answers or None

    def _tables(self) -> Mapping[str, HttpTable[Any] | TcpTable[Any]]:
        """
        Return the tables of the entrypoints. Where they run in other processes, tables like them are built when first asked for.
        """
        config = self._gateway.config()
        generation = self._carrier.generation()
        if generation is not None:
            return {name: door.entrypoint.table for name, door in generation.doors.items() if name in config.entrypoints}
        if not self._gateway.is_running():
            return {}
        if self._built is None or self._built[0] is not config:
            names = [name for name in places_of(config) if name in config.entrypoints]
            self._built = (config, {name: _table(config, name) for name in names})
        return self._built[1]


def _table(config: GatewayConfig, name: str) -> HttpTable[Any] | TcpTable[Any]:
    over_tcp = config.entrypoints[name].protocol == "tcp"
    routers = routers_of(config, name, "tcp" if over_tcp else "http")
    specs = [RouteSpec(each.name, each.rule, each.priority, each) for each in routers]
    return build_tcp_table(specs) if over_tcp else build_http_table(specs)


def _facts(name: str | None, client: str, headers: Iterable[tuple[str, str]]) -> ConnectionFacts:
    protocols = [value.strip() for field, text in headers if field.lower() == "alpn" for value in text.split(",")]
    return ConnectionFacts(
        name.encode("ascii", "replace") if name else None,
        tuple(value.encode("latin-1", "replace") for value in protocols),
        pack_address(client),
    )


def _head(method: str, parts: SplitResult, client: str, headers: Iterable[tuple[str, str]]) -> RequestHead:
    head = RequestHead(method.encode("ascii", "replace"), (parts.path or "/").encode("ascii", "replace"))
    head.query = parts.query.encode("ascii", "replace")
    head.authority = parts.netloc.encode("ascii", "replace")
    head.host = (parts.hostname or "").rstrip(".").encode("ascii", "replace")
    head.client = client.encode("ascii", "replace")
    head.client_packed = pack_address(client)
    head.fields = [make_field(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in headers]
    return head


def _service_row(service: ServiceConfig, backends: list[dict[str, Any]], counts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": service.name,
        "strategy": service.load_balancer.strategy,
        "backends_total": len(backends),
        "backends_healthy": sum(backend["healthy"] for backend in backends),
        "waiting": counts.get("waiting"),
        "in_use": counts.get("in_use"),
        "failovers": counts.get("failovers", 0),
        "retries": counts.get("retries", 0),
        "revisions": [
            {"name": revision.name, "traffic_percent": revision.traffic_percent, "strategy": revision.strategy}
            for revision in service.revisions
        ],
        "backends": backends,
    }


def _backend_row(gauge: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "url": gauge["url"],
        "revision": gauge["revision"],
        "weight": gauge["weight"],
        "healthy": gauge["up"],
        "state": gauge["state"],
        "reason": gauge["reason"],
        "active_connections": gauge["active"],
    }


def _who_lists(config: GatewayConfig, owners: Mapping[str, Any]) -> dict[str, list[str]]:
    """
    Return which of `owners`, routers or entrypoints, list a middleware, by itself or in a chain: by its name.
    """
    found: dict[str, list[str]] = {}
    for name, owner in sorted(owners.items()):
        for each in {each for _, each in walk_out(owner.middlewares, config.middlewares)}:
            found.setdefault(each, []).append(name)
    return found


def _middleware_counts(invocations: int, answers: Iterable[tuple[int, int]], waits: int, wait_seconds: float) -> dict[str, Any]:
    return {
        "invocations": invocations,
        "answers": {str(status): count for status, count in answers},
        "waits": waits,
        "wait_seconds": round(wait_seconds, 6),
    }


def make_api(view: IGatewayView, config: GatewayConfig) -> AdminApi:
    """
    Return the API that shows `view` to whom the dashboard of `config` lets in.
    """
    dashboard = config.dashboard
    return AdminApi(
        view,
        path_prefix=dashboard.path_prefix,
        username=dashboard.username,
        password=None if dashboard.password is None else dashboard.password.reveal(),
        keys=[key.reveal() for key in dashboard.keys],
    )
