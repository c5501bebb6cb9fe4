"""
Records of exchanges, as the data path would have filled them.
"""

from __future__ import annotations

from typing import Any

import attrs

from a3sgw.errors import Outcome
from a3sgw.message import RequestHead
from a3sgw.observe.record import Record
from a3sgw.observe.snapshot import BackendGauge, Gauges, MiddlewareGauge, ServiceGauge


@attrs.define
class Entrypoint:
    """
    What observers read of an entrypoint.
    """

    name: str
    series: Any = None


@attrs.define
class Route:
    """
    What observers read of a route.
    """

    name: str
    service_name: str
    series: Any = None
    chain: Any = None


@attrs.define
class Backend:
    """
    What observers read of a backend.
    """

    url: str
    series: Any = None
    service_name: str = "carts"


def make_head(method: bytes = b"GET", raw_path: bytes = b"/cart/7", **slots: bytes) -> RequestHead:
    """
    Return the head of a usual request; `slots` override its parts.
    """
    head = RequestHead(method, raw_path)
    head.authority = b"shop.test"
    head.client = b"192.0.2.44"
    head.user_agent = b"demo/1"
    head.referer = b"http://shop.test/"
    head.request_id = b"00ff"
    for name, value in slots.items():
        setattr(head, name, value)
    return head


def make_record(**slots: Any) -> Record:
    """
    Return the record of a request that took 250 ms, 200 of them at its backend, and went well; `slots` override its parts.
    """
    record = Record()
    record.entrypoint = Entrypoint("public")
    record.grpc_status = b""
    record.peer = b"198.51.100.9"
    record.protocol = b"HTTP/1.1"
    record.scheme = b"https"
    record.head = make_head()
    record.route = None
    record.backend = None
    record.attempts = 0
    record.passed = 0
    record.answered_by = None
    record.revision = None
    record.status = 200
    record.upstream_status = 0
    record.bytes_received = 0
    record.bytes_sent = 0
    record.started = 1000.0
    record.leased = 1000.015625
    record.first_byte = 1000.21875
    record.ended = 1000.25
    record.outcome = Outcome.COMPLETED
    for name, value in slots.items():
        setattr(record, name, value)
    return record


def make_gauges(**levels: Any) -> Gauges:
    """
    Return the gauges of a carrier where nothing is; `levels` override its parts.
    """
    gauges: Any = {
        "active_connections": 0,
        "backends": [],
        "services": [],
        "middlewares": [],
        "open": {},
        "udp_sessions": {},
        "udp_begun": {},
        "udp_dropped": [],
        "accepted": {},
        "refused": [],
        "http2_faults": [],
        "certificates": [],
        "access_log_dropped": 0,
        **levels,
    }
    return gauges  # type: ignore[no-any-return]


def make_backend(**levels: Any) -> BackendGauge:
    """
    Return the gauge of a backend that is fine, and that nobody judges; `levels` override its parts.
    """
    gauge: Any = {
        "service": "carts",
        "revision": None,
        "url": "http://a",
        "turn": 1,
        "weight": 1,
        "up": True,
        "healthy": None,
        "in_service": None,
        "state": "usable",
        "reason": "",
        "active": 0,
        "idle": 0,
        "leased": 0,
        **levels,
    }
    return gauge  # type: ignore[no-any-return]


def make_service(**levels: Any) -> ServiceGauge:
    """
    Return the gauge of a service without a waiting room; `levels` override its parts.
    """
    gauge: Any = {"service": "carts", "waiting": None, "in_use": None, "failovers": 0, "retries": 0}
    gauge.update({"copies": {}, "hedges": {}, **levels})
    return gauge  # type: ignore[no-any-return]


def make_middleware(**levels: Any) -> MiddlewareGauge:
    """
    Return the gauge of a router's middleware that has nothing to tell; `levels` override its parts.
    """
    gauge: Any = {"name": "limit", "type": "rate-limit", "router": "shop", "entrypoint": "", "service": "", "state": {}, **levels}
    return gauge  # type: ignore[no-any-return]


NOTHING_ELSE: dict[str, Any] = {
    "version": "1",
    "reloads": {},
    "last_reload": None,
    "broken_files": (),
    "workers": None,
    "providers": {},
    "left_out": 0,
}
"""What a page of metrics tells besides a snapshot, when there is nothing to tell."""
