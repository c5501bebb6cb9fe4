"""
The services of a generation: their backends, what is thought of them, and how one of them is chosen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import ref

import attrs

from a3sgw.assembly_parts import Kit, Parts, digest_of_files
from a3sgw.assembly_router import Protocol
from a3sgw.config.address import http_url, parse_server_url
from a3sgw.config.model import LoadBalancerConfig, PassiveHealthConfig, ServerConfig, ServiceConfig, StickyConfig
from a3sgw.interfaces import IBalancer
from a3sgw.policy.arena import Arena
from a3sgw.policy.budget import RetryBudget
from a3sgw.policy.ejection import EjectionGroup, EjectionSettings
from a3sgw.policy.shared_ejection import SharedEjection
from a3sgw.policy.shared_machine import Lock
from a3sgw.policy.shared_slots import Counter, SharedCount, Uncounted
from a3sgw.policy.split import Sampler, Split
from a3sgw.policy.sticky import name_server
from a3sgw.policy.verdict import ProbeVerdict
from a3sgw.proxy.hedge import HedgeTally, Hedging
from a3sgw.proxy.http2_pool import equip
from a3sgw.proxy.mirror import Mirror, MirrorTally
from a3sgw.proxy.pool import Pool, PoolSettings
from a3sgw.proxy.tcp_link import TcpLink
from a3sgw.proxy.udp_pool import UdpPool
from a3sgw.service.backend import Backend, BackendAddress, Elsewhere
from a3sgw.service.group import Group
from a3sgw.service.judgement import Judgement
from a3sgw.service.roster import BalancerSettings
from a3sgw.service.service import Judged, Service, ServiceSettings, Traits
from a3sgw.service.sticky import CookieSettings, Stickiness
from a3sgw.service.waiting import WaitingRoom
from a3sgw.service.watch import AttemptListener, Watch

__all__ = ["assemble_service", "upstream_terms"]


@attrs.frozen
class _Members:
    """
    The backends that share one balancer, before they have one: those of the service (`revision` is `None`) or of a revision.
    """

    revision: str | None
    strategy: str
    servers: tuple[ServerConfig, ...]


def assemble_service(config: ServiceConfig, parts: Parts, kit: Kit, *, kind: Protocol = "http") -> Service:
    """
    Return the service for `config`: that of the previous generation if nothing about it changed. `kind` says what is passed to
    it: requests, whole connections, or datagrams.

    What it is made of is taken over even if the service itself is not: backends with their pools, verdicts, and who waits. Long because
    everything about a service comes together here.
    """
    balancing = config.load_balancer
    members = [_Members(each.name, each.strategy, each.servers) for each in config.revisions] or [
        _Members(None, balancing.strategy, balancing.servers)
    ]
    backends = [_backends(config, each, parts, kit, kind) for each in members]
    judgements = [_judgements(config, each, parts, kit) for each in members]
    traits = _traits(config, parts, kit)
    if kit.arena is not None and traits.room is not None and traits.room.per_backend:
        for each in backends:
            _count_elsewhere(each, kit.arena)

    balancers = [_balancer(config, each, servers, parts, kit) for each, servers in zip(members, backends, strict=True)]

    def make() -> Service:
        groups = []
        judged = []
        for each, servers, opinions, balancer in zip(members, backends, judgements, balancers, strict=True):
            group = Group(
                servers,
                balancer,
                strategy=each.strategy,
                revision=each.revision,
                panic_threshold=balancing.panic_threshold_percent,
            )
            groups.append(group)
            listeners = [balancer] if hasattr(balancer, "attempt_ended") else []
            judged += [
                Judged(backend, opinion, _watch(balancing, backend, listeners, kit), server.state == "drain")
                for backend, opinion, server in zip(servers, opinions, each.servers, strict=True)
            ]
        shares = [(group, revision.traffic_percent) for group, revision in zip(groups, config.revisions, strict=False)]
        return Service(
            config.name,
            balancing.strategy,
            groups,
            _settings(config),
            kit.dialer.deadlines.seconds,
            kit.reactor.callLater,
            traits,
            Split(shares) if shares else None,
            judged,
            kit.announce,
        )

    return parts.take(("service", config, kind), make)


def _balancer(config: ServiceConfig, members: _Members, servers: Sequence[Backend], parts: Parts, kit: Kit) -> IBalancer:
    balancing = config.load_balancer
    settings = BalancerSettings(
        slow_start=balancing.slow_start or 0.0,
        hash_source=balancing.hash.source,
        hash_name=balancing.hash.name or "",
        max_load=balancing.hash.max_load_percent / 100,
    )
    key = ("balancer", config.name, members.revision, members.strategy, settings, tuple(servers))
    return parts.take(key, lambda: kit.strategies.by_name[members.strategy].build(servers, settings))


def _settings(config: ServiceConfig) -> ServiceSettings:
    return ServiceSettings(
        connect_timeout=config.timeouts.connect,
        response_header_timeout=config.timeouts.response_header,
        idle_timeout=config.timeouts.idle,
        total_timeout=config.timeouts.total,
        tunnel_idle_timeout=config.timeouts.tunnel_idle,
        pass_host_header=config.pass_host_header,
        max_replay_bytes=config.max_replay_bytes,
        proxy_protocol=config.proxy_protocol,
    )


def _traits(config: ServiceConfig, parts: Parts, kit: Kit) -> Traits:
    failover = config.failover
    sticky = config.load_balancer.sticky
    return Traits(
        sticky=None if sticky is None else _stickiness(config.name, sticky, kit),
        room=_room(config, parts, kit),
        mirror=_mirror(config, parts, kit),
        hedging=_hedging(config, parts, kit),
        failover=None if failover is None else failover.service,
        failover_statuses=frozenset() if failover is None else frozenset(failover.status_codes),
        revision_header=(config.revision_header or "").lower().encode("ascii"),
        revision_cookie=(config.revision_cookie or "").encode("ascii"),
    )


def _stickiness(name: str, sticky: StickyConfig, kit: Kit) -> Stickiness:
    # Hashed, so that a key may be any text.
    keys = [hashlib.blake2b(key.reveal().encode("utf-8", "surrogatepass")).digest() for key in sticky.keys]
    cookie = CookieSettings(
        name=sticky.cookie.encode("ascii"),
        ttl=sticky.ttl_secs,
        secure=sticky.secure,
        http_only=sticky.http_only,
        same_site=sticky.same_site,
        domain=None if sticky.domain is None else sticky.domain.encode("ascii"),
    )
    return Stickiness(name, cookie, keys or [kit.sticky_key], kit.wall_clock)


def _room(config: ServiceConfig, parts: Parts, kit: Kit) -> WaitingRoom | None:
    scaling = config.scaling
    if scaling is None or not (scaling.container_concurrency or scaling.buffer_enabled):
        return None
    waiting = scaling.buffer_size if scaling.buffer_enabled else 0
    bounds = (scaling.container_concurrency, waiting, float(scaling.buffer_timeout_secs))
    key = ("room", config.name, bounds)

    def make() -> WaitingRoom:
        arena = kit.arena
        counters: tuple[Counter, Counter] | None = None
        if arena is not None:
            counters = (SharedCount(arena, key) if scaling.container_concurrency else Uncounted(), SharedCount(arena, ("queue", key)))
        return WaitingRoom(*bounds, kit.dialer.deadlines.seconds, kit.reactor.callLater, counters)

    return parts.take(key, make)


def _count_elsewhere(backends: Sequence[Backend], arena: Arena) -> None:
    """
    Have the workers know of each other how busy they keep `backends`.
    """
    for turn, backend in enumerate(backends):
        if backend.elsewhere is None:
            count = SharedCount(arena, ("backend", backend.service_name, backend.revision, backend.url, turn))
            count.set(backend.in_flight)
            backend.elsewhere = Elsewhere(count)
            backend.followers += (ref(backend.elsewhere),)


def _mirror(config: ServiceConfig, parts: Parts, kit: Kit) -> Mirror | None:
    mirror = config.mirror
    if mirror is None:
        return None
    # What it has counted outlives it.
    tally = parts.take(("mirror tally", config.name), MirrorTally)

    def make() -> Mirror:
        return Mirror(
            mirror.service,
            Sampler(mirror.percentage),
            tally,
            kit.dialer.deadlines,
            kit.reactor.callLater,
            max_in_flight=kit.part_of(mirror.max_in_flight),
            max_body_bytes=mirror.max_body_bytes,
            timeout=mirror.timeout,
        )

    return parts.take(("mirror", config.name, mirror), make)


def _hedging(config: ServiceConfig, parts: Parts, kit: Kit) -> Hedging | None:
    hedging = config.hedging
    if hedging is None:
        return None
    tally = parts.take(("hedge tally", config.name), HedgeTally)

    def make() -> Hedging:
        return Hedging(
            hedging.quantile,
            hedging.min_delay_ms / 1000,
            RetryBudget(hedging.budget_percent, 0.0),
            tally,
            kit.dialer.deadlines.seconds,
            kit.reactor.callLater,
        )

    return parts.take(("hedging", config.name, hedging), make)


# -- backends -------------------------------------------------------------------------------------------------------------------------


def _turns(servers: Sequence[ServerConfig]) -> list[tuple[ServerConfig, int]]:
    """
    Return each server with its turn among those of the same URL: each listing is a backend of its own.
    """
    seen: dict[str, int] = {}
    found = []
    for server in servers:
        seen[server.url] = turn = seen.get(server.url, 0) + 1
        found.append((server, turn))
    return found


def _backends(config: ServiceConfig, members: _Members, parts: Parts, kit: Kit, kind: Protocol) -> list[Backend]:
    digest = digest_of_files(config.upstream_tls) if config.upstream_tls is not None else b""
    return [_backend(config, members.revision, server, turn, digest, parts, kit, kind) for server, turn in _turns(members.servers)]


def _backend(
    config: ServiceConfig, revision: str | None, server: ServerConfig, turn: int, digest: bytes, parts: Parts, kit: Kit, kind: Protocol
) -> Backend:
    pooling = config.connection_pool
    settings = PoolSettings(
        max_connections=kit.part_of(pooling.max_connections),
        max_idle_connections=pooling.max_idle_connections,
        idle_timeout=pooling.idle_timeout,
    )

    def make() -> Backend:
        backend = Backend(config.name, server.url, _backend_address(server.url, kind), server.weight, revision)
        backend.sticky_name = name_server(config.name, f"{revision or ''} {server.url} {turn}")
        _equip(backend, settings, config, kit, kind)
        backend.series = kit.metrics.backend_series(config.name, server.url)
        # Slow start is for servers that come later than the gateway.
        backend.usable_since = kit.dialer.deadlines.seconds() if parts.has_previous else float("-inf")
        return backend

    # Whether a server drains is for the service to know, and no reason to lose its connections.
    patience = config.timeouts.connect if kind == "udp" else None
    key = ("backend", config.name, revision, server.url, server.weight, turn, settings, config.upstream_tls, digest, kind, patience)
    return parts.take(key, make)


def _equip(backend: Backend, settings: PoolSettings, config: ServiceConfig, kit: Kit, kind: Protocol) -> None:
    """
    Give `backend` its pools.
    """
    if kind == "udp":
        # There are no connections, but a name to look up.
        backend.pool = backend.grpc_pool = UdpPool(backend, kit.dialer, config.timeouts.connect)
        backend.pools = (backend.pool,)
        return

    def tls_dialer(protocols: Sequence[bytes]) -> Any:
        # Only here, so that whoever asks nobody over TLS runs without OpenSSL.
        from a3sgw.proxy.outbound_tls import TlsDialer

        return TlsDialer(kit.dialer, backend.address.host, upstream_terms(config), protocols)

    if kind == "tcp":
        dialer = kit.dialer if config.upstream_tls is None else tls_dialer(())
        backend.pool = backend.grpc_pool = Pool(backend, settings, dialer, TcpLink)
        backend.pools = (backend.pool,)
    else:
        equip(backend, settings, kit.dialer, tls_dialer)


def upstream_terms(config: ServiceConfig) -> Any:
    """
    Return how `config` wants `https` servers to be met. Raises `PemError` if a file cannot be used.
    """
    from a3sgw.proxy.outbound_tls import Terms, read_terms

    tls = config.upstream_tls
    if tls is None:
        return Terms()
    return read_terms(tls.ca_file, tls.cert_file, tls.key_file, tls.server_name, is_trusting=tls.insecure_skip_verify)


def _backend_address(url: str, kind: Protocol) -> BackendAddress:
    address = parse_server_url(http_url(url))
    if address.scheme == "unix":
        return BackendAddress("tcp" if kind == "tcp" else "http", "", 0, address.path, b"", b"localhost")
    if address.scheme in ("", "tcp", "udp"):
        return BackendAddress(address.scheme or kind, address.host, address.port, "", b"", b"")
    host = f"[{address.host}]" if ":" in address.host else address.host
    authority = host if address.port == (443 if address.scheme == "https" else 80) else f"{host}:{address.port}"
    return BackendAddress(address.scheme, address.host, address.port, "", address.path.encode("ascii"), authority.encode("ascii"))


def _judgements(config: ServiceConfig, members: _Members, parts: Parts, kit: Kit) -> list[Judgement]:
    balancing = config.load_balancer
    passive = balancing.passive_health
    ejections: EjectionGroup | None = None
    if passive is not None:
        settings = EjectionSettings(
            consecutive_errors=passive.consecutive_errors,
            error_threshold=passive.error_threshold,
            window=float(passive.window_secs),
            base=float(passive.recovery_secs),
            maximum=float(max(passive.recovery_secs, passive.max_recovery_secs)),
            trials=passive.trial_requests,
        )
        key = ("ejections", config.name, members.revision, passive)
        make = _make_shared_ejection(kit, key)
        percent = passive.max_ejection_percent
        ejections = parts.take(key, lambda: EjectionGroup(settings, max_ejection_percent=percent, **make))
    check = balancing.health_check
    judgements = []
    for server, turn in _turns(members.servers):
        who = (config.name, members.revision, server.url, turn)
        probe = None if check is None else parts.take(("probed", *who, check), ProbeVerdict)
        if ejections is not None and kit.arena is not None:
            # The verdict itself begins with the swap, which must not fail because there is no room for it.
            parts.take(("shared verdict", *who, passive), partial(ejections.make, ejections.settings, str, who))
        judgements.append(parts.take(("judgement", *who, passive, check), partial(Judgement, ejections, probe, who)))
    return judgements


def _make_shared_ejection(kit: Kit, key: object) -> dict[str, Any]:
    """
    Return how a group of verdicts makes those that several workers share; nothing if there is only one.
    """
    if kit.arena is None:
        return {}
    lock = Lock(kit.arena.take(("lock", key), 8))
    seconds = kit.dialer.deadlines.seconds
    return {
        "make": lambda settings, refusal, name: SharedEjection(
            settings, refusal, (key, name), arena=kit.arena, lock=lock, seconds=seconds
        )
    }


def _watch(balancing: LoadBalancerConfig, backend: Backend, listeners: Sequence[Any], kit: Kit) -> Watch | None:
    passive: PassiveHealthConfig | None = balancing.passive_health
    if passive is None and not listeners:
        return None
    statuses = frozenset() if passive is None else frozenset(passive.status_codes)
    heard: Sequence[AttemptListener] = listeners
    return Watch(backend, statuses, heard, kit.dialer.deadlines.seconds, lambda backend, change: None)
