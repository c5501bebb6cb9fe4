"""
What is known of one exchange when it ends.

`proxy.exchange.Exchange` is a `Record`: the slots are filled on the way, nothing is formatted or copied, and the observers read them once
at the end.

Hot path: see docs/hot-path.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from a3sgw.errors import Outcome
    from a3sgw.message import RequestHead
    from a3sgw.service.backend import Backend

__all__ = ["Record"]


class Record:
    """
    The account of one exchange.

    `head` is `None` when the request was refused before a head could be read. `route` is the matched `service.route.Route` (which names its
    router and service and holds their metric series), or `None`. `backend` is the last one chosen. `status` is what the client was sent
    (0 if nothing), `upstream_status` what the backend sent (0 if nothing). `attempts` counts backends tried. `passed` says how many
    middlewares of the route's chain let the request pass, `answered_by` which one answered instead of a backend. Byte counts are of bodies
    without framing. Moments are seconds of `time.monotonic`; 0.0 means that it did not come to that.
    """

    __slots__ = (
        "answered_by",
        "attempts",
        "backend",
        "bytes_received",
        "bytes_sent",
        "ended",
        "entrypoint",
        "first_byte",
        "grpc_status",
        "head",
        "leased",
        "outcome",
        "passed",
        "peer",
        "protocol",
        "revision",
        "route",
        "scheme",
        "started",
        "status",
        "upstream_status",
    )

    entrypoint: Any
    """The `listen.entrypoint.EntrypointRuntime`-like object: has `.name` (str) and `.series`."""
    peer: bytes
    """The socket peer's address as text; the resolved client address is `head.client`."""
    protocol: bytes
    """`HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`."""
    scheme: bytes
    head: RequestHead | None
    route: Any
    backend: Backend | None
    answered_by: str | None
    attempts: int
    passed: int
    status: int
    upstream_status: int
    bytes_received: int
    bytes_sent: int
    started: float
    leased: float
    first_byte: float
    grpc_status: bytes
    """The status that a gRPC client was told, as digits. Set only where there is one."""
    ended: float
    outcome: Outcome | None
    revision: str | None
    """The revision of the service that was chosen, if it has any."""
