"""
One server of a service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

import attrs

from a3sgw.policy.verdict import Verdicts
from a3sgw.wire.grpc import GRPC

if TYPE_CHECKING:
    from a3sgw.message import RequestHead
    from a3sgw.policy.shared_slots import SharedCount
    from a3sgw.service.follow import Follower

__all__ = ["Backend", "BackendAddress", "Elsewhere"]


@attrs.frozen(slots=True)
class BackendAddress:
    """
    What the `url` of a server says.

    `scheme` is `http`, `https`, `h2c` or `tcp`; either `host` and `port` are set or `path` is (a Unix domain socket). `prefix` is the URL's
    own path without a trailing slash, put before every request's. `authority` is what `Host` says when the client's is not passed on.
    """

    scheme: str
    host: str
    port: int
    path: str
    prefix: bytes
    authority: bytes


class Elsewhere:
    """
    Keeps the workers' counts of exchanges with one backend.
    """

    def __init__(self, count: SharedCount) -> None:
        self.count = count

    def load_changed(self, backend: Backend) -> None:
        """
        Say how many this worker has.
        """
        self.count.set(backend.in_flight)


class Backend:
    """
    One server of a service, as balancers see it.

    `in_flight` counts exchanges that have chosen this backend and not let go of it. `is_usable` says whether it may be chosen for the next
    new client, as its service last decided from the `verdicts`; `usable_since` is when it last became usable (seconds of the monotonic
    clock). `followers` hear whenever `in_flight` changes. `watch` is told of attempts, if anybody cares.
    `elsewhere` says how many exchanges it serves by other workers, where that matters.
    `sticky_name` is what cookies call it. `pool` holds its connections, `grpc_pool` those for gRPC, which is the same where HTTP/2 is
    spoken anyway; `pools` are all there are, each once. `series` holds its metrics. These are set by assembly.
    """

    __slots__ = (
        "__weakref__",
        "address",
        "elsewhere",
        "followers",
        "grpc_pool",
        "in_flight",
        "is_usable",
        "pool",
        "pools",
        "revision",
        "series",
        "service_name",
        "sticky_name",
        "url",
        "usable_since",
        "verdicts",
        "watch",
        "weight",
    )

    def __init__(self, service_name: str, url: str, address: BackendAddress, weight: int, revision: str | None = None) -> None:
        self.service_name = service_name
        self.url = url
        self.address = address
        self.weight = weight
        self.revision = revision
        self.in_flight = 0
        self.elsewhere: Elsewhere | None = None
        self.followers: tuple[ref[Follower], ...] = ()
        self.is_usable = True
        self.usable_since = float("-inf")
        self.verdicts = Verdicts()
        self.sticky_name = b""
        self.watch: Any = None
        self.pool: Any = None
        self.grpc_pool: Any = None
        self.pools: tuple[Any, ...] = ()
        self.series: Any = None

    def pool_for(self, head: RequestHead | None) -> Any:
        """
        Return the pool whose connections can carry a request.
        """
        return self.grpc_pool if head is not None and head.grpc == GRPC else self.pool

    def acquire(self) -> None:
        """
        Count an exchange that has chosen this backend.
        """
        self.in_flight += 1
        if self.followers:
            self.load_changed()

    def release(self) -> None:
        """
        Count an exchange that has let go of it.
        """
        self.in_flight -= 1
        if self.followers:
            self.load_changed()

    def is_full(self, limit: int) -> bool:
        """
        Tell whether it serves as many exchanges as it may.
        """
        elsewhere = self.elsewhere
        return self.in_flight + (0 if elsewhere is None else elsewhere.count.others) >= limit

    def load_changed(self) -> None:
        """
        Tell the followers that the backend is more or less busy, or slower or faster, than before.
        """
        for reference in self.followers:
            follower = reference()
            if follower is not None:
                follower.load_changed(self)

    def __repr__(self) -> str:
        state = "usable" if self.is_usable else "unusable"
        return f"<Backend {self.service_name} {self.url} {state}, {self.in_flight} in flight>"
