"""
Counts as plain data: their shape, and how those of several carriers are added up.

A snapshot is made of plain JSON values, so that it can cross a process border:

- `buckets`: upper bounds of the histograms, in seconds.
- `series`: rows of `{router, service, entrypoint, is_live, cells, first_byte, upstream}`. `cells` are rows `[method, status, counts,
  seconds, bytes]`, the last two `[counts, seconds]`; counts are per bucket and not cumulative, with one more item than there are bounds.
  What had no route has an empty router and service. A row that is not live counts what a reload took away, under the names still in use.
- `backends`: rows `[service, url, requests, ejections]`.
- `revisions`: rows `[service, revision, requests]`.
- `middlewares`: rows `[name, invocations, [[status, answers], …], waits, seconds waited]`.
- `outcomes`: `Outcome.word` → exchanges.
- `tcp`: rows `[entrypoint, router, service, outcome, connections, bytes received, bytes sent, seconds]` of connections that ended; router
  and service are empty where there was no route.
- `udp`: rows `[entrypoint, router, service, outcome, sessions, datagrams received, datagrams sent, bytes received, bytes sent, seconds]` of
  sessions that ended.
- `gauges`: `Gauges`.

All but the gauges' levels only ever grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from a3sgw.config.model import GatewayConfig

__all__ = ["BackendGauge", "Gauges", "MiddlewareGauge", "ServiceGauge", "merge_snapshots", "remainder_of"]

_KEY = ("router", "service", "entrypoint", "is_live")


class BackendGauge(TypedDict):
    """
    How one backend of one service stands now.

    `turn` tells apart those of the same URL, counted from 1. `up` says whether it may be chosen, `state` what speaks against that and
    `reason` why this last changed. The verdicts `healthy` (of probes) and `in_service` (of real requests) are `None` where nobody judges.
    Then exchanges in flight, and connections waiting and in use.
    """

    service: str
    revision: str | None
    url: str
    turn: int
    weight: int
    up: bool
    healthy: bool | None
    in_service: bool | None
    state: str
    reason: str
    active: int
    idle: int
    leased: int


class ServiceGauge(TypedDict):
    """
    How one service stands now: how many exchanges wait for a server and have one (`None` if it has no waiting room), and how many were
    passed on to the service that steps in, and attempts repeated, since start. `copies` says what became of the requests that were to be
    copied for a shadow service, and `hedges` of second attempts at slow ones; empty where there are none.
    """

    service: str
    waiting: int | None
    in_use: int | None
    failovers: int
    retries: int
    copies: dict[str, int]
    hedges: dict[str, int]


class MiddlewareGauge(TypedDict):
    """
    How one middleware of one router, entrypoint or service (the others are empty) stands: `state` is what it tells of itself.
    """

    name: str
    type: str
    router: str
    entrypoint: str
    service: str
    state: dict[str, Any]


class Gauges(TypedDict):
    """
    What the carrier knows besides exchanges, given to each `Metrics.snapshot`.

    `active_connections`: open client connections on http entrypoints. `open`: entrypoint → open client connections. `accepted`: entrypoint
    → connections since start. `refused`: rows of `[entrypoint, reason, connections since start]`, `http2_faults` of `[entrypoint, stream
    or connection, error, number since start]`, `certificates` of `[entrypoint, names, seconds since 1970 when it ends]`. `udp_sessions`:
    entrypoint → sessions now. `udp_begun`: entrypoint → sessions since start. `udp_dropped`: rows of `[entrypoint, reason, datagrams since
    start]`. `access_log_dropped`: lines since start. What counts "since start" must not go down.
    """

    active_connections: int
    open: dict[str, int]
    backends: list[BackendGauge]
    services: list[ServiceGauge]
    middlewares: list[MiddlewareGauge]
    accepted: dict[str, int]
    refused: list[list[Any]]
    http2_faults: list[list[Any]]
    certificates: list[list[Any]]
    udp_sessions: dict[str, int]
    udp_begun: dict[str, int]
    udp_dropped: list[list[Any]]
    access_log_dropped: int


def merge_snapshots(snapshots: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """
    Add up the snapshots of several carriers, at least one. A backend is up if any of them may use it, but what speaks against it is told
    if any of them thinks so. None of them is changed.

    Raises `ValueError` if they were counted by different buckets.
    """
    if not snapshots:
        raise ValueError("no snapshots to merge: expected one per carrier")
    buckets = snapshots[0]["buckets"]
    if any(snapshot["buckets"] != buckets for snapshot in snapshots):
        given = [snapshot["buckets"] for snapshot in snapshots]
        raise ValueError(f"carriers count by different buckets, {given!r}: ask again when all have taken the new configuration")
    series = _grouped((row for snapshot in snapshots for row in snapshot["series"]), _series_key)
    backends = _grouped((row for snapshot in snapshots for row in snapshot["backends"]), lambda row: tuple(row[:2]))
    revisions = _grouped((row for snapshot in snapshots for row in snapshot["revisions"]), lambda row: tuple(row[:2]))
    return {
        "buckets": list(buckets),
        "series": [_merged_series(rows) for rows in series.values()],
        "backends": [[*key, sum(row[2] for row in rows), sum(row[3] for row in rows)] for key, rows in backends.items()],
        "revisions": [[*key, sum(row[2] for row in rows)] for key, rows in revisions.items()],
        "middlewares": _merged_middlewares([row for snapshot in snapshots for row in snapshot["middlewares"]]),
        "outcomes": _summed(snapshot["outcomes"] for snapshot in snapshots),
        "tcp": _merged_ways([row for snapshot in snapshots for row in snapshot["tcp"]]),
        "udp": _merged_ways([row for snapshot in snapshots for row in snapshot["udp"]]),
        "gauges": _merged_gauges([snapshot["gauges"] for snapshot in snapshots]),
    }


def _series_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[part] for part in _KEY)


def _grouped(rows: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in counts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total


def _merged_spread(rows: Sequence[Sequence[Any]]) -> list[Any]:
    """
    Add up rows whose first two items are counts and seconds.
    """
    return [[sum(column) for column in zip(*(row[0] for row in rows), strict=True)], math.fsum(row[1] for row in rows)]


def _merged_series(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    cells = _grouped((cell for row in rows for cell in row["cells"]), lambda cell: (cell[0], cell[1]))
    return {
        **{part: rows[0][part] for part in _KEY},
        "cells": [
            [*pair, *_merged_spread([cell[2:] for cell in same]), sum(cell[4] for cell in same)] for pair, same in cells.items()
        ],
        "first_byte": _merged_spread([row["first_byte"] for row in rows]),
        "upstream": _merged_spread([row["upstream"] for row in rows]),
    }


def _merged_middlewares(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    merged = []
    for name, same in _grouped(rows, lambda row: row[0]).items():
        answers: dict[int, int] = {}
        for row in same:
            for status, count in row[2]:
                answers[status] = answers.get(status, 0) + count
        by_status = [[status, answers[status]] for status in sorted(answers)]
        merged.append([name, sum(row[1] for row in same), by_status, sum(row[3] for row in same), math.fsum(row[4] for row in same)])
    return merged


def _merged_ways(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """
    Add up rows of which four items are the key, the last is seconds, and the others between are counts.
    """
    return [
        [*key, *(sum(row[column] for row in same) for column in range(4, len(same[0]) - 1)), math.fsum(row[-1] for row in same)]
        for key, same in _grouped(rows, lambda row: tuple(row[:4])).items()
    ]


def _merged_states(rows: Sequence[MiddlewareGauge]) -> dict[str, Any]:
    """
    Add up the numbers, but for those that each carrier knows of all; of words, such as a circuit's state, the worst that any carrier sees.
    """
    state: dict[str, Any] = {}
    for row in rows:
        for key, value in row["state"].items():
            if key in _OF_ALL or (key == "clients" and "max_clients" in row["state"]):
                state[key] = max(state.get(key, value), value)
            elif isinstance(value, str):
                state[key] = max(state.get(key, value), value, key=lambda word: _BADNESS.get(word, 0))
            else:
                state[key] = state.get(key, 0) + value
    return state


_OF_ALL = frozenset(["burst", "half_open_backends", "max_clients", "open_backends", "rate"])
_BADNESS = {"closed": 0, "half-open": 1, "open": 2}


def _merged_backend(rows: Sequence[BackendGauge]) -> BackendGauge:
    # Whoever thinks worst of it, and can say why.
    worst = max(rows, key=lambda row: (not row["up"], row["state"] != "usable", row["state"] != "usable" and row["reason"] != ""))
    return {
        **worst,
        "up": any(row["up"] for row in rows),
        "healthy": _all_known(row["healthy"] for row in rows),
        "in_service": _all_known(row["in_service"] for row in rows),
        "active": sum(row["active"] for row in rows),
        "idle": sum(row["idle"] for row in rows),
        "leased": sum(row["leased"] for row in rows),
    }


def _merged_service(rows: Sequence[ServiceGauge]) -> ServiceGauge:
    return {
        "service": rows[0]["service"],
        "waiting": _sum_known(row["waiting"] for row in rows),
        "in_use": _sum_known(row["in_use"] for row in rows),
        "failovers": sum(row["failovers"] for row in rows),
        "retries": sum(row["retries"] for row in rows),
        "copies": _summed(row["copies"] for row in rows),
        "hedges": _summed(row["hedges"] for row in rows),
    }


def _all_known(verdicts: Iterable[bool | None]) -> bool | None:
    known = [verdict for verdict in verdicts if verdict is not None]
    return all(known) if known else None


def _sum_known(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _merged_gauges(parts: Sequence[Gauges]) -> Gauges:
    backends = _grouped(
        (row for part in parts for row in part["backends"]), lambda row: (row["service"], row["revision"], row["url"], row["turn"])
    )
    services = _grouped((row for part in parts for row in part["services"]), lambda row: row["service"])
    udp_dropped = _grouped((row for part in parts for row in part["udp_dropped"]), lambda row: tuple(row[:2]))
    refused = _grouped((row for part in parts for row in part["refused"]), lambda row: tuple(row[:2]))
    faults = _grouped((row for part in parts for row in part["http2_faults"]), lambda row: tuple(row[:3]))
    certificates = _grouped((row for part in parts for row in part["certificates"]), lambda row: tuple(row[:2]))
    return {
        "active_connections": sum(part["active_connections"] for part in parts),
        "backends": [_merged_backend(rows) for rows in backends.values()],
        "services": [_merged_service(rows) for rows in services.values()],
        "middlewares": [
            {
                "name": name,
                "type": rows[0]["type"],
                "router": router,
                "entrypoint": entrypoint,
                "service": service,
                "state": _merged_states(rows),
            }
            for (name, router, entrypoint, service), rows in _grouped(
                (row for part in parts for row in part["middlewares"]),
                lambda row: (row["name"], row["router"], row["entrypoint"], row["service"]),
            ).items()
        ],
        "open": _summed(part["open"] for part in parts),
        "accepted": _summed(part["accepted"] for part in parts),
        "refused": [[*key, sum(row[2] for row in rows)] for key, rows in refused.items()],
        "http2_faults": [[*key, sum(row[3] for row in rows)] for key, rows in faults.items()],
        # One of several for the same names, or a worker that has yet to see a new one: what ends first matters.
        "certificates": [[*key, min(row[2] for row in rows)] for key, rows in certificates.items()],
        "udp_sessions": _summed(part["udp_sessions"] for part in parts),
        "udp_begun": _summed(part["udp_begun"] for part in parts),
        "udp_dropped": [[*key, sum(row[2] for row in rows)] for key, rows in udp_dropped.items()],
        "access_log_dropped": sum(part["access_log_dropped"] for part in parts),
    }


def remainder_of(snapshot: Mapping[str, Any], config: GatewayConfig) -> dict[str, Any]:
    """
    Return what stays of the snapshot of a carrier that is gone, under `config`: its counts, and no levels.

    What `config` has no name for is counted without, as `Metrics.retain` does, so that no total falls.
    """
    buckets = list(config.observability.metrics.buckets)
    is_sorted = buckets == snapshot["buckets"]
    urls = _urls_of(config)
    rows = [_bequeathed(row, config) for row in snapshot["series"]]
    gauges = snapshot["gauges"]
    remainder = {
        "buckets": buckets,
        "series": rows if is_sorted else [_resorted(row, len(buckets)) for row in rows],
        "backends": [row for row in snapshot["backends"] if row[1] in urls],
        "revisions": [row for row in snapshot["revisions"] if _has_revision(config, row[0], row[1])],
        "middlewares": [row for row in snapshot["middlewares"] if row[0] in config.middlewares],
        "outcomes": snapshot["outcomes"],
        "tcp": [row for row in snapshot["tcp"] if row[0] in config.entrypoints and (not row[1] or _has_route(config, row[1], row[2]))],
        "udp": [row for row in snapshot["udp"] if row[0] in config.entrypoints and _has_route(config, row[1], row[2])],
        "gauges": {
            **gauges,
            "active_connections": 0,
            "open": {},
            "certificates": [],
            "udp_sessions": {},
            "backends": [],
            "services": [{**row, "waiting": None, "in_use": None} for row in gauges["services"] if row["service"] in config.services],
            "middlewares": [],
        },
    }
    # Rows that have lost their names may be the same now.
    return merge_snapshots([remainder])


def _has_route(config: GatewayConfig, router: str, service: str) -> bool:
    found = config.routers.get(router)
    return found is not None and found.service == service


def _urls_of(config: GatewayConfig) -> set[str]:
    servers = (
        server
        for service in config.services.values()
        for listed in (service.load_balancer.servers, *(revision.servers for revision in service.revisions))
        for server in listed
    )
    return {server.url for server in servers}


def _has_revision(config: GatewayConfig, service: str, revision: str) -> bool:
    found = config.services.get(service)
    return found is not None and any(each.name == revision for each in found.revisions)


def _bequeathed(row: Mapping[str, Any], config: GatewayConfig) -> Mapping[str, Any]:
    """
    Return a row of `series` under the names that `config` still has.
    """
    router = config.routers.get(row["router"]) if row["router"] else None
    if row["is_live"]:
        # The listener of the dashboard has a name that is not in the configuration, and always the same one.
        is_named = row["entrypoint"] in config.entrypoints or row["entrypoint"] == "dashboard"
        if is_named if row["entrypoint"] is not None else router is not None and router.service == row["service"]:
            return row
    services = {"", *(each.service for each in config.routers.values())}
    return {
        **row,
        "router": row["router"] if router is not None or row["router"] == "" else None,
        "service": row["service"] if row["service"] in services else None,
        "entrypoint": None,
        "is_live": False,
    }


def _resorted(row: Mapping[str, Any], size: int) -> dict[str, Any]:
    """
    Return a row for other buckets: everything lies above the last, and its number is not lost.
    """

    def moved(counts: Sequence[int]) -> list[int]:
        return [0] * size + [sum(counts)]

    return {
        **row,
        "cells": [[method, status, moved(counts), seconds, sent] for method, status, counts, seconds, sent in row["cells"]],
        "first_byte": [moved(row["first_byte"][0]), row["first_byte"][1]],
        "upstream": [moved(row["upstream"][0]), row["upstream"][1]],
    }
