"""
Time single pieces of the data path, without sockets: `python -m contrib.bench.micro`.

How a piece is timed is in `piece`, those of middlewares are in `micro_middleware`. A piece that cannot be set up in this checkout is
reported and left out, so that the command also serves older and younger ones.

The figures are for comparing two states of the same piece on the same machine; what a whole request costs, only the bench itself tells.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from . import report
from .cases import CASES, SMALL_BODY
from .micro_balance import BALANCE_PIECES
from .micro_middleware import MIDDLEWARE_PIECES
from .piece import INPUTS, Piece, Prepared, time_piece

__all__ = ["PIECES", "Piece", "main", "time_piece"]


def _request_head(host: str, path: str) -> Any:
    from a3sgw.message import RequestHead

    head = RequestHead(b"GET", path.encode())
    head.authority = head.host = host.encode()
    return head


def _table(rules: Sequence[str]) -> Any:
    from a3sgw.route.table import RouteSpec, build_http_table

    return build_http_table([RouteSpec(f"r{number}", rule, None, number) for number, rule in enumerate(rules)])


def _match_hosts(count: int) -> Prepared:
    chance = random.Random(count)
    table = _table([f"Host(`h{number}.bench.test`)" for number in range(count)])
    heads = [_request_head(f"h{chance.randrange(count)}.bench.test", f"/item/{turn}") for turn in range(INPUTS)]
    return table.match, heads, lambda found: found is not None


def _match_prefixes(count: int) -> Prepared:
    chance = random.Random(count)
    table = _table([f"PathPrefix(`/app{number}/`)" for number in range(count)])
    heads = [_request_head("bench.test", f"/app{chance.randrange(count)}/item/{turn}") for turn in range(INPUTS)]
    return table.match, heads, lambda found: found is not None


def _match_nothing(count: int) -> Prepared:
    table = _table([f"Host(`h{number}.bench.test`) && PathPrefix(`/app`)" for number in range(count)])
    heads = [_request_head(f"h{turn % count}.other.test", f"/item/{turn}") for turn in range(INPUTS)]
    return table.match, heads, lambda found: found is None


def _read_request() -> Prepared:
    from a3sgw.wire.http1 import RequestLimits, read_request_head

    limits = RequestLimits()
    make = CASES["varied"].make
    inputs = [make(number).encode() for number in range(INPUTS)]

    def read(data: bytes) -> Any:
        return read_request_head(data, len(data) - 4, limits)

    return read, inputs, lambda result: result[0].host == b"bench.test" and result[0].method == b"GET"


def _read_response() -> Prepared:
    from a3sgw.wire.http1 import read_response_head

    inputs = [
        b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 01 Jan 2035 00:00:00 GMT\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nConnection: keep-alive\r\nX-Response-Id: %032x\r\n\r\n" % (len(SMALL_BODY), number * 7919**7)
        for number in range(INPUTS)
    ]

    def read(data: bytes) -> Any:
        return read_response_head(data, len(data) - 4, b"GET")

    return read, inputs, lambda head: head.status == 200 and head.length == len(SMALL_BODY)


def _canonical_path() -> Prepared:
    from a3sgw.wire.path import PathPolicy, canonical_path

    policy = PathPolicy()

    def canonical(path: bytes) -> Any:
        return canonical_path(path, policy)

    return canonical, [b"/shop/caf%%c3%%a9/./%d/../item" % number for number in range(INPUTS)], lambda path: path == b"/shop/caf%C3%A9/item"


def _records(metrics: Any) -> Iterator[Any]:
    """
    Yield records of finished exchanges, as the observers get them.
    """
    from a3sgw.errors import Outcome
    from a3sgw.observe.record import Record
    from a3sgw.service.backend import Backend

    chance = random.Random(1)
    backend = Backend("shop", "http://127.0.0.1:9001", None, 1)  # type: ignore[arg-type]
    backend.series = metrics.backend_series("shop", backend.url)
    route = SimpleNamespace(name="shop", service_name="shop", series=metrics.route_series("shop", "shop"), chain=None)
    entrypoint = SimpleNamespace(name="web", series=metrics.entrypoint_series("web"))
    for number in range(INPUTS):
        head = _request_head("bench.test", f"/shop/item/{number}?page=1")
        head.request_id = b"%032x" % chance.getrandbits(128)
        head.user_agent = b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
        record = Record()
        record.head, record.route, record.backend, record.entrypoint = head, route, backend, entrypoint
        record.peer, record.protocol, record.scheme = b"127.0.0.1", b"HTTP/1.1", b"http"
        record.status = record.upstream_status = 200
        record.passed, record.answered_by, record.revision = 0, None, None
        record.attempts, record.bytes_received, record.bytes_sent = 1, 0, len(SMALL_BODY)
        record.started = number * 0.001
        record.leased = record.started + 0.0001
        record.first_byte = record.leased + chance.random() * 0.02
        record.ended = record.first_byte + 0.0001
        record.outcome = Outcome.COMPLETED
        yield record


def _metrics() -> Any:
    from a3sgw.observe.metrics import Metrics

    return Metrics((0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0))


def _count_metrics() -> Prepared:
    metrics = _metrics()
    return metrics.exchange_ended, list(_records(metrics)), lambda _: metrics.total_requests() > 0


def _write_log(format: str) -> Prepared:
    from a3sgw.observe.accesslog import AccessLog

    batches: list[bytes] = []
    # What is measured is the making of lines; the sink keeps the last batch only.
    log: Any = AccessLog(SimpleNamespace(write=lambda data: batches.__setitem__(slice(None), [data])), format, False, time.time)  # type: ignore[arg-type]

    def is_right(_: None) -> bool:
        log.flush()
        return b"/shop/item/" in batches[0]

    return log.exchange_ended, list(_records(_metrics())), is_right


PIECES = [
    Piece("route: 10 hosts", lambda: _match_hosts(10)),
    Piece("route: 1,000 hosts", lambda: _match_hosts(1000)),
    Piece("route: 10,000 hosts", lambda: _match_hosts(10000)),
    Piece("route: 10,000 path prefixes", lambda: _match_prefixes(10000)),
    Piece("route: 10,000 hosts, none of them", lambda: _match_nothing(10000)),
    Piece("http1: request head", _read_request),
    Piece("http1: response head", _read_response),
    Piece("http1: canonical path", _canonical_path),
    Piece("observe: metrics", _count_metrics),
    Piece("observe: JSON access log line", lambda: _write_log("json")),
    Piece("observe: combined access log line", lambda: _write_log("combined")),
    *BALANCE_PIECES,
    *MIDDLEWARE_PIECES,
]


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Time the pieces and print them. Returns 1 if one gave a wrong result or none could be set up.
    """
    parser = argparse.ArgumentParser(prog="python -m contrib.bench.micro", description="Time single pieces of the data path.")
    parser.add_argument("--only", default="", metavar="TEXT", help="only pieces whose name contains TEXT")
    parser.add_argument("--repeat", type=int, default=7, help="repetitions of each (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(arguments)
    if options.repeat < 1:
        parser.error("--repeat: at least 1")
    found: dict[str, Any] = {}
    failed = False
    print(f"{'':40}{'µs a call':>10}{'median':>10}")
    for piece in PIECES:
        if options.only not in piece.name:
            continue
        try:
            times = time_piece(piece, options.repeat)
        except AssertionError as error:
            failed = True
            print(f"{piece.name:40}{'wrong':>10}  {error}")
            continue
        except (ImportError, AttributeError, TypeError) as error:
            print(f"{piece.name:40}{'-':>10}  cannot be set up here: {error}")
            continue
        best, median = times[0] * 1e6, times[len(times) // 2] * 1e6
        found[piece.name] = {"best_us": round(best, 4), "median_us": round(median, 4)}
        print(f"{piece.name:40}{best:10.2f}{median:10.2f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": report.machine(), "pieces": found}, indent=2) + "\n")
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
