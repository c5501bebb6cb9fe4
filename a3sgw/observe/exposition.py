"""
Show counts as a Prometheus page, text format 0.0.4.

Everything here is a function of a snapshot, so it may run off the data path, in another thread or another process. Each family is derived
from the same cells, which is why totals, classes and histograms cannot disagree. Names, where the original gateway had one, are its names.

A status in a label is what the client was sent: `0` where it left before there was an answer. Why an exchange ended is told by
`gateway_exchanges_total{outcome}`, for every answer that the gateway made itself as well.

The lines are written here and not by prometheus_client, which takes 12 µs for each: a page of 5,000 histograms took 0.9 s, and takes a
tenth of that now. Its collectors still tell about the process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypedDict

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest

__all__ = ["CONTENT_TYPE", "ControlGauges", "render"]

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_CLASSES = ("2xx", "3xx", "4xx", "5xx")


class ControlGauges(TypedDict):
    """
    What the control side adds to the page: the gateway's version, reloads since start by result (`success`, `failure`), and when the last
    one succeeded (seconds of the epoch, `None` if none did yet); the files of the configuration that are broken; how much
    each provider offers and whether it can; and how much of that is left out.
    """

    version: str
    reloads: dict[str, int]
    last_reload: float | None
    broken_files: Sequence[str]
    providers: Mapping[str, tuple[int, bool]]
    left_out: int
    workers: Mapping[str, int] | None


def render(snapshot: Mapping[str, Any], extra: ControlGauges) -> bytes:
    """
    Return the page for `snapshot`, its series sorted by their labels.

    `process_*` and `python_info` describe the process that renders. Costs about 15 µs for each route, method and status seen together: with
    thousands of them, call it in a thread.
    """
    lines: list[str] = []
    for part in (_totals, _named, _histograms, _backends, _services, _middlewares, _doors, _tcp, _udp):
        lines.extend(part(snapshot))
    lines.extend(_gateway(snapshot, extra))
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return "".join(lines).encode("utf-8", "replace") + generate_latest(registry)


# -- families -------------------------------------------------------------------------------------------------------------------------


def _totals(snapshot: Mapping[str, Any]) -> Iterator[str]:
    cells = [cell for row in snapshot["series"] for cell in row["cells"]]
    text = "Requests, each counted once when it ended, whoever answered it."
    yield from _family("gateway_requests_total", text, (), {(): _requests(cells)})
    classes = {(name,): 0 for name in _CLASSES}
    for _, status, counts, _, _ in cells:
        if 200 <= status < 600:
            classes[(_CLASSES[status // 100 - 2],)] += sum(counts)
    yield from _family("gateway_responses_total", "Final responses sent, by class of their status.", ("status_class",), classes)
    sent = sum(cell[4] for cell in cells)
    yield from _family("gateway_response_bytes_total", "Bytes of response bodies sent to clients.", (), {(): sent})
    text = "Exchanges by how they ended: completed, or why not."
    yield from _family("gateway_exchanges_total", text, ("outcome",), _one_label(snapshot["outcomes"]))


def _named(snapshot: Mapping[str, Any]) -> Iterator[str]:
    for label in ("router", "service"):
        requests: dict[str, int] = {}
        errors: dict[str, int] = {}
        seconds: dict[str, float] = {}
        # Heirs too: their name is still in use, and its counts must not fall.
        for row in snapshot["series"]:
            name = row[label]
            if name:
                requests[name] = requests.get(name, 0) + _requests(row["cells"])
                errors[name] = errors.get(name, 0) + _requests(cell for cell in row["cells"] if cell[1] >= 400)
                seconds[name] = seconds.get(name, 0.0) + row["first_byte"][1]
        yield from _family(f"gateway_{label}_requests_total", f"Requests that ended, by {label}.", (label,), _one_label(requests))
        text = f"Requests answered with a status of 400 or more, by {label}."
        yield from _family(f"gateway_{label}_errors_total", text, (label,), _one_label(errors))
        if label == "router":
            latency = _one_label({name: int(value * 1e6) for name, value in seconds.items()})
            text = "Microseconds from requests to the first bytes of their answers, added up."
            yield from _family("gateway_router_latency_microseconds_total", text, (label,), latency)


def _histograms(snapshot: Mapping[str, Any]) -> Iterator[str]:
    durations: dict[tuple[str, ...], Sequence[Any]] = {}
    first_bytes: dict[tuple[str, ...], Sequence[Any]] = {}
    upstream: dict[tuple[str, ...], Sequence[Any]] = {}
    for row in snapshot["series"]:
        router, service = row["router"], row["service"]
        # Heirs of a router or service count for it, but the pair is gone. What had no route is one series for all entrypoints.
        if row["is_live"] or router == "":
            for method, status, counts, seconds, _ in row["cells"]:
                _add(durations, (router, service, method, str(status)), (counts, seconds))
        if router:
            _add(first_bytes, (router,), row["first_byte"])
        if service:
            _add(upstream, (service,), row["upstream"])
    bounds = [*map(repr, snapshot["buckets"]), "+Inf"]
    text = "Time from the start of a request to the end of its answer; router and service are empty where there was no route."
    yield from _histogram("gateway_request_duration_seconds", text, ("router", "service", "method", "status"), bounds, durations)
    text = "Time from the start of a request to the first byte of its answer."
    yield from _histogram("gateway_time_to_first_byte_seconds", text, ("router",), bounds, first_bytes)
    text = "Time from having a connection to the backend to the first byte of its answer."
    yield from _histogram("gateway_upstream_duration_seconds", text, ("service",), bounds, upstream)


def _backends(snapshot: Mapping[str, Any]) -> Iterator[str]:
    requests: dict[str, int] = {}
    ejections: dict[tuple[str, str], int] = {}
    for service, url, count, ejected in snapshot["backends"]:
        requests[url] = requests.get(url, 0) + count
        ejections[service, url] = ejected
    text = "Requests by the last backend chosen for them."
    yield from _family("gateway_backend_requests_total", text, ("backend",), _one_label(requests))
    labels = ("service", "backend")
    rows = _by_server(snapshot["gauges"]["backends"])
    up = {key: int(any(row["up"] for row in same)) for key, same in rows.items()}
    yield from _family("gateway_backend_up", "1 if the backend may be chosen.", labels, up, "gauge")
    verdicts = {
        (*key, word): int(all(row[verdict] is not False for row in same))
        for key, same in rows.items()
        for word, verdict in (("active", "healthy"), ("passive", "in_service"))
        if any(row[verdict] is not None for row in same)
    }
    text = "1 if the verdict of probes (active), or of real requests (passive), is in the backend's favour."
    yield from _family("gateway_backend_health", text, (*labels, "verdict"), verdicts, "gauge")
    judged = {key: ejections.get(key, 0) for key, same in rows.items() if any(row["in_service"] is not None for row in same)}
    yield from _family("gateway_backend_ejections_total", "How often real requests set the backend aside.", labels, judged)
    active = {key: sum(row["active"] for row in same) for key, same in rows.items()}
    yield from _family("gateway_backend_active", "Exchanges in flight to the backend.", labels, active, "gauge")
    states = {(*key, state): sum(row[state] for row in same) for key, same in rows.items() for state in ("idle", "leased")}
    yield from _family("gateway_backend_connections", "Connections to the backend, by use.", (*labels, "state"), states, "gauge")


def _by_server(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """
    Put the backends of a service that have the same URL together: in several revisions, or listed twice.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["service"], row["url"]), []).append(row)
    return groups


def _services(snapshot: Mapping[str, Any]) -> Iterator[str]:
    rows = snapshot["gauges"]["services"]
    for key, name, text, kind in (
        ("retries", "gateway_retries_total", "Further attempts after a failed one.", "counter"),
        ("failovers", "gateway_failovers_total", "Requests passed on to the service that steps in.", "counter"),
        ("waiting", "gateway_buffer_queue_depth", "Requests that wait for a server.", "gauge"),
    ):
        values = _one_label({row["service"]: row[key] for row in rows if row[key] is not None})
        yield from _family(name, text, ("service",), values, kind)
    for key, name, text in (
        ("copies", "gateway_mirror_requests_total", "Requests to copy for a shadow service, by what became of the copy."),
        ("hedges", "gateway_hedges_total", "Second attempts at slow requests, by whether they took the place of the first."),
    ):
        results = {(row["service"], result): count for row in rows for result, count in row[key].items()}
        yield from _family(name, text, ("service", "result"), results)
    revisions = {(service, revision): count for service, revision, count in snapshot["revisions"]}
    text = "Requests by the last revision chosen for them."
    yield from _family("gateway_revision_requests_total", text, ("service", "revision"), revisions)


_CIRCUITS = {"closed": 0, "half-open": 1, "open": 2}


def _middlewares(snapshot: Mapping[str, Any]) -> Iterator[str]:
    rows = snapshot["middlewares"]
    invocations = {(row[0],): row[1] for row in rows}
    yield from _family("gateway_middleware_invocations_total", "Requests that came to the middleware.", ("middleware",), invocations)
    answers = {(row[0], str(status)): count for row in rows for status, count in row[2]}
    text = "Requests that the middleware answered itself, by status."
    yield from _family("gateway_middleware_answers_total", text, ("middleware", "status"), answers)
    text = "Requests that the middleware made wait: how many, and how long."
    waits = {(row[0],): (row[3], row[4]) for row in rows if row[3]}
    if waits:
        yield _heading("gateway_middleware_wait_seconds", text, "summary")
        for where, (count, seconds) in sorted(waits.items()):
            names = _labels(("middleware",), where)
            yield f"gateway_middleware_wait_seconds_count{{{names}}} {count}\ngateway_middleware_wait_seconds_sum{{{names}}} {seconds!r}\n"
    labels = ("router", "entrypoint", "service", "middleware")
    states = [
        ((row["router"], row["entrypoint"], row["service"], row["name"]), row["state"]) for row in snapshot["gauges"]["middlewares"]
    ]
    for key, name, text in (
        ("circuit", "gateway_circuit_state", "State of the circuit breaker: 0 closed, 1 half-open, 2 open."),
        ("clients", "gateway_rate_limit_clients", "Clients whose rate limit is not fully recovered."),
        ("unchecked", "gateway_rate_limit_unchecked_total", "Requests that a shared rate limit could not check."),
        ("refused_by_budget", "gateway_retries_over_budget_total", "Attempts that the retry budget did not allow."),
        ("in_flight", "gateway_in_flight", "Requests that a limit of concurrency counts now."),
        ("queued", "gateway_in_flight_queued", "Requests that wait for a limit of concurrency."),
        ("connections", "gateway_ws_mux_connections", "WebSockets that end at the gateway."),
        ("channels", "gateway_ws_mux_channels", "Channels that somebody is subscribed to."),
        ("messages_received", "gateway_ws_mux_messages_received_total", "Messages from clients of a ws-mux."),
        ("messages_sent", "gateway_ws_mux_messages_sent_total", "Messages of channels sent to subscribers."),
        ("messages_dropped", "gateway_ws_mux_messages_dropped_total", "Messages dropped because a subscriber did not keep up."),
    ):
        values = {where: level for where, state in states if (level := _level(state.get(key))) is not None}
        yield from _family(name, text, labels, values, "counter" if name.endswith("_total") else "gauge")


def _level(told: Any) -> float | int | None:
    """
    Return what a middleware tells as a number; `None` if it is none, because a plugin may tell anything.
    """
    if isinstance(told, str):
        return _CIRCUITS.get(told)
    return int(told) if isinstance(told, bool) else told if isinstance(told, (int, float)) else None


def _doors(snapshot: Mapping[str, Any]) -> Iterator[str]:
    gauges = snapshot["gauges"]
    active = {(): gauges["active_connections"]}
    yield from _family("gateway_active_connections", "Open client connections on http entrypoints.", (), active, "gauge")
    text = "Open client connections."
    yield from _family("gateway_entrypoint_connections", text, ("entrypoint",), _one_label(gauges["open"]), "gauge")
    accepted = _one_label(gauges["accepted"])
    yield from _family("gateway_connections_accepted_total", "Client connections accepted.", ("entrypoint",), accepted)
    refused = {(entrypoint, reason): count for entrypoint, reason, count in gauges["refused"]}
    yield from _family("gateway_connections_refused_total", "Client connections turned away.", ("entrypoint", "reason"), refused)
    faults = {tuple(labels): count for *labels, count in gauges["http2_faults"]}
    text = "Errors of HTTP/2 clients, by what they cost: a stream or the connection."
    yield from _family("gateway_http2_errors_total", text, ("entrypoint", "scope", "error"), faults)
    ends: dict[tuple[str, str], float] = {}
    for entrypoint, names, end in gauges["certificates"]:
        ends[entrypoint, names] = min(end, ends.get((entrypoint, names), end))
    text = "When a certificate of an entrypoint ends, in seconds since 1970; of several for the same names, the first."
    yield from _family("gateway_certificate_expiry_timestamp_seconds", text, ("entrypoint", "names"), ends, "gauge")
    unrouted = {(row["entrypoint"],): _requests(row["cells"]) for row in snapshot["series"] if row["entrypoint"] is not None}
    text = "Requests that no route took: nothing matched, or they were refused or answered before."
    yield from _family("gateway_unrouted_requests_total", text, ("entrypoint",), unrouted)


def _tcp(snapshot: Mapping[str, Any]) -> Iterator[str]:
    connections = {}
    amounts: dict[tuple[str, str, str], list[float]] = {}
    for entrypoint, router, service, outcome, count, *rest in snapshot["tcp"]:
        connections[entrypoint, router, service, outcome] = count
        way = (entrypoint, router, service)
        amounts[way] = [left + right for left, right in zip(amounts.get(way, (0, 0, 0.0)), rest, strict=True)]
    labels = ("entrypoint", "router", "service")
    text = "Connections over tcp entrypoints that ended, by how; router and service are empty where there was no route."
    yield from _family("gateway_tcp_connections_total", text, (*labels, "outcome"), connections)
    for column, name, text in (
        (0, "gateway_tcp_received_bytes_total", "Bytes from clients, of connections that ended."),
        (1, "gateway_tcp_sent_bytes_total", "Bytes to clients, of connections that ended."),
        (2, "gateway_tcp_connection_seconds_total", "How long connections lasted that ended, added up."),
    ):
        yield from _family(name, text, labels, {way: amount[column] for way, amount in amounts.items()})


def _udp(snapshot: Mapping[str, Any]) -> Iterator[str]:
    gauges = snapshot["gauges"]
    text = "Clients of the udp entrypoint that are known now."
    yield from _family("gateway_udp_sessions", text, ("entrypoint",), _one_label(gauges["udp_sessions"]), "gauge")
    begun = _one_label(gauges["udp_begun"])
    yield from _family("gateway_udp_sessions_begun_total", "Clients of the udp entrypoint so far.", ("entrypoint",), begun)
    dropped = {(entrypoint, reason): count for entrypoint, reason, count in gauges["udp_dropped"]}
    yield from _family("gateway_udp_datagrams_dropped_total", "Datagrams that went nowhere.", ("entrypoint", "reason"), dropped)
    labels = ("entrypoint", "router", "service")
    ended = {tuple(row[:4]): row[4] for row in snapshot["udp"]}
    text = "Sessions of udp entrypoints that ended, by how."
    yield from _family("gateway_udp_sessions_ended_total", text, (*labels, "outcome"), ended)
    amounts: dict[tuple[str, ...], list[float]] = {}
    for row in snapshot["udp"]:
        way = tuple(row[:3])
        amounts[way] = [left + right for left, right in zip(amounts.get(way, [0, 0, 0, 0, 0.0]), row[5:], strict=True)]
    for column, name, text in (
        (0, "gateway_udp_received_datagrams_total", "Datagrams from clients, of sessions that ended."),
        (1, "gateway_udp_sent_datagrams_total", "Datagrams to clients, of sessions that ended."),
        (2, "gateway_udp_received_bytes_total", "Bytes from clients, of sessions that ended."),
        (3, "gateway_udp_sent_bytes_total", "Bytes to clients, of sessions that ended."),
        (4, "gateway_udp_session_seconds_total", "How long sessions lasted that ended, added up."),
    ):
        yield from _family(name, text, labels, {way: amount[column] for way, amount in amounts.items()})


def _gateway(snapshot: Mapping[str, Any], extra: ControlGauges) -> Iterator[str]:
    dropped = {(): snapshot["gauges"]["access_log_dropped"]}
    yield from _family("gateway_access_log_dropped_lines_total", "Access log lines that were not written.", (), dropped)
    reloads = _one_label({"success": 0, "failure": 0, **extra["reloads"]})
    yield from _family("gateway_config_reloads_total", "Reloads of the configuration.", ("result",), reloads)
    if extra["last_reload"] is not None:
        text = "When a reload last succeeded, in seconds since 1970."
        yield from _family("gateway_config_last_reload_timestamp_seconds", text, (), {(): extra["last_reload"]}, "gauge")
    text = "Always 1; the label tells a file of the configuration that is not in force as it stands."
    broken = {(name,): 1 for name in extra["broken_files"]}
    yield from _family("gateway_config_file_broken", text, ("file",), broken, "gauge")
    yield from _providers(extra)
    workers = extra["workers"]
    if workers is not None:
        states = {("serving",): workers["serving"], ("starting",): workers["wanted"] - workers["serving"]}
        yield from _family("gateway_workers", "Processes that carry traffic.", ("state",), states, "gauge")
        text = "Workers that ended unexpectedly and were replaced."
        yield from _family("gateway_worker_replacements_total", text, (), {(): workers["replaced"]})
    yield from _family("gateway_build_info", "Always 1; the label tells the version.", ("version",), {(extra["version"],): 1}, "gauge")


def _providers(extra: ControlGauges) -> Iterator[str]:
    objects = {(name,): count for name, (count, _) in extra["providers"].items()}
    text = "Routers, services and middlewares that the provider of configuration offers."
    yield from _family("gateway_provider_objects", text, ("provider",), objects, "gauge")
    is_up = {(name,): int(up) for name, (_, up) in extra["providers"].items()}
    yield from _family("gateway_provider_up", "1 if the provider can tell what there is.", ("provider",), is_up, "gauge")
    if extra["providers"]:
        text = "What providers offer and is not used, because it is wrong or its name is taken."
        yield from _family("gateway_provider_left_out_objects", text, (), {(): extra["left_out"]}, "gauge")


# -- arithmetic -----------------------------------------------------------------------------------------------------------------------


def _requests(cells: Iterable[Sequence[Any]]) -> int:
    return sum(sum(cell[2]) for cell in cells)


def _one_label(values: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    return {(name,): value for name, value in values.items()}


def _add(spreads: dict[tuple[str, ...], Sequence[Any]], key: tuple[str, ...], spread: Sequence[Any]) -> None:
    """
    Add `spread`, counts and seconds, to the one under `key`.
    """
    mine = spreads.get(key)
    if mine is not None:
        spread = ([left + right for left, right in zip(mine[0], spread[0], strict=True)], mine[1] + spread[1])
    spreads[key] = spread


# -- lines ----------------------------------------------------------------------------------------------------------------------------


def _family(name: str, text: str, labels: Sequence[str], values: Mapping[Any, Any], kind: str = "counter") -> Iterator[str]:
    """
    Write a counter or gauge from numbers by label values; nothing at all if there are none.
    """
    if values:
        yield _heading(name, text, kind)
        for key in sorted(values):
            yield f"{name}{{{_labels(labels, key)}}} {values[key]!r}\n" if key else f"{name} {values[key]!r}\n"


def _histogram(
    name: str, text: str, labels: Sequence[str], bounds: Sequence[str], spreads: dict[tuple[str, ...], Sequence[Any]]
) -> Iterator[str]:
    if spreads:
        yield _heading(name, text, "histogram")
        for key in sorted(spreads):
            counts, seconds = spreads[key]
            names = _labels(labels, key)
            reached = 0
            for bound, reached in zip(bounds, accumulate(counts), strict=True):
                yield f'{name}_bucket{{{names},le="{bound}"}} {reached}\n'
            yield f"{name}_count{{{names}}} {reached}\n{name}_sum{{{names}}} {seconds!r}\n"


def _heading(name: str, text: str, kind: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
