"""
All probes of a configuration.

Probing belongs to the deciding side: one process asks, however many carry the traffic, and tells them what it thinks. Each server of each
service, and of each of its revisions, is probed beside all others, whether it drains or not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from a3sgw.config.address import http_url, parse_server_url
from a3sgw.config.model import GatewayConfig, HealthCheckConfig, ServiceConfig, UpstreamTlsConfig
from a3sgw.health.probe import Probe
from a3sgw.health.question import ConnectQuestion, GrpcQuestion, HttpQuestion, Question
from a3sgw.net.connect import Dialer
from a3sgw.policy.verdict import ProbeVerdict
from a3sgw.proxy.outbound import Outbound
from a3sgw.proxy.pool import PoolSettings

if TYPE_CHECKING:
    from a3sgw.proxy.outbound_tls import Terms

__all__ = ["Plan", "Prober", "Target"]

_ASKED_OVER_HTTP: Final = frozenset(["http", "https", "h2c", "unix"])
"""The schemes of servers that are asked something; others are only connected to."""


@attrs.frozen(slots=True)
class Target:
    """
    What is probed, and how. As long as nothing of it changes, its probe goes on.
    """

    service: str
    revision: str | None
    url: str
    check: HealthCheckConfig


@attrs.frozen(slots=True, eq=False)
class Plan:
    """
    What a target is asked. With the same `terms` the question is the same.
    """

    question: Question
    terms: Hashable


def _targets_of(service: ServiceConfig) -> Iterator[Target]:
    """
    Give every server that is to be probed; one that is listed twice comes twice.
    """
    check = service.load_balancer.health_check
    if check is not None:
        for revision in service.revisions:
            for server in revision.servers:
                yield Target(service.name, revision.name, server.url, check)
        if not service.revisions:
            for server in service.load_balancer.servers:
                yield Target(service.name, None, server.url, check)


class Prober:
    """
    Probes the servers of one configuration at a time.

    `dialer` must be the prober's own. `tell` is called with service, revision, URL, whether the server is healthy, and why, whenever that
    has changed, and again for each unhealthy server after a reload. `terms_of` returns how the `https` servers of a service are to be met,
    and `digest_of` a digest of the files that this takes; both may raise, and only `prepare` calls them.
    """

    SPREAD_SECONDS: Final = 1.0
    """The first questions come at once, but spread over so long a time, or over the interval if that is shorter."""

    def __init__(
        self,
        reactor: Any,
        dialer: Dialer,
        tell: Callable[[str, str | None, str, bool, str], None],
        terms_of: Callable[[ServiceConfig], Terms],
        digest_of: Callable[[UpstreamTlsConfig], bytes],
        chance: random.Random,
    ) -> None:
        self._reactor = reactor
        self._dialer = dialer
        self._tell = tell
        self._terms_of = terms_of
        self._digest_of = digest_of
        self._chance = chance
        self._outbound = Outbound(dialer, reactor, pooling=PoolSettings(max_idle_connections=0))
        self._plans: Mapping[Target, Plan] = {}
        self._probes: dict[Target, Probe] = {}
        self._is_sweeping = False

    def __repr__(self) -> str:
        unhealthy = sum(not probe.verdict.is_healthy for probe in self._probes.values())
        return f"<Prober {len(self._probes)} servers, {unhealthy} unhealthy>"

    def prepare(self, config: GatewayConfig) -> Mapping[Target, Plan]:
        """
        Return what `config` wants to be asked. Nothing else happens.
        """
        plans = {}
        for service in config.services.values():
            tls = service.upstream_tls
            terms = None if tls is None else (tls, self._digest_of(tls))
            # Read once, and only if there is a server for them.
            terms_of = cache(partial(self._terms_of, service))
            for target in _targets_of(service):
                known = self._plans.get(target)
                plans[target] = known if known is not None and known.terms == terms else Plan(self._question(target, terms_of), terms)
        return plans

    def take(self, plans: Mapping[Target, Plan]) -> None:
        """
        Probe from now on what `prepare` has planned, and nothing else. Cannot fail.
        """
        old, self._probes = self._probes, {}
        self._plans = plans
        if plans and not self._is_sweeping:
            self._is_sweeping = True
            self._dialer.deadlines.start()
        for target, probe in old.items():
            if target not in plans:
                probe.stop()
        for target, plan in plans.items():
            self._probes[target] = probe = old.get(target) or self._start(target, plan)
            probe.question = plan.question
            if not probe.verdict.is_healthy:
                # Whoever judges the server by new rules since the reload does not know yet.
                self._changed(target, probe)
        if not plans and self._is_sweeping:
            self._is_sweeping = False
            self._dialer.deadlines.close()

    def stop(self) -> None:
        """
        Stop all probes.
        """
        self.take({})

    def _start(self, target: Target, plan: Plan) -> Probe:
        check = target.check
        verdict = ProbeVerdict(check.unhealthy_threshold, check.healthy_threshold)
        changed = partial(self._changed, target)
        probe = Probe(plan.question, check.interval, verdict, changed, self._reactor.callLater, self._chance)
        probe.start(self._chance.random() * min(self.SPREAD_SECONDS, check.interval))
        return probe

    def _question(self, target: Target, terms_of: Callable[[], Terms]) -> Question:
        check = target.check
        url = http_url(target.url)
        address = parse_server_url(url)
        if check.protocol == "tcp" or address.scheme not in _ASKED_OVER_HTTP:
            return ConnectQuestion(self._dialer, address, check.timeout, self._reactor.callLater)
        asks: type[HttpQuestion] | type[GrpcQuestion] = GrpcQuestion if check.protocol == "grpc" else HttpQuestion
        return asks(self._outbound, url, check, terms_of() if address.scheme == "https" else None)

    def _changed(self, target: Target, probe: Probe) -> None:
        self._tell(target.service, target.revision, target.url, probe.verdict.is_healthy, probe.reason)
