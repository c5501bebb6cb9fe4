"""
A service: servers that do the same work, and everything said about the choice among them.

The common service has one group of servers and nothing more to think about, so `choose` goes straight to its balancer. Others look at the
client's cookie, divide the traffic among revisions, and leave out servers that are busy enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
from twisted.logger import Logger

from a3sgw.message import RequestHead, get_field
from a3sgw.policy.split import Split
from a3sgw.policy.sticky import Binding, name_revision
from a3sgw.policy.verdict import Change, Transition
from a3sgw.service.backend import Backend
from a3sgw.service.group import Group
from a3sgw.service.judgement import Judgement
from a3sgw.service.sticky import Stickiness
from a3sgw.service.waiting import WaitingRoom
from a3sgw.service.watch import Watch
from a3sgw.wire.cookie import read_cookie

if TYPE_CHECKING:
    from a3sgw.proxy.exchange import Exchange

__all__ = ["Judged", "Route", "Service", "ServiceSettings", "Traits"]


@attrs.frozen(slots=True)
class ServiceSettings:
    """
    What exchanges and connections to a service need to know; the names are those of its configuration. Times in seconds, sizes in bytes.
    """

    connect_timeout: float = 5.0
    response_header_timeout: float = 30.0
    idle_timeout: float = 60.0
    total_timeout: float | None = None
    tunnel_idle_timeout: float = 3600.0
    pass_host_header: bool = True
    max_replay_bytes: int = 65536
    proxy_protocol: str | None = None


@attrs.frozen(slots=True, eq=False)
class Traits:
    """
    What only some services have.

    `sticky` binds clients to servers, `room` is where exchanges wait, `failover` names the service that steps in and `failover_statuses`
    are the answers after which it does, `mirror` copies requests, `hedging` sends slow ones twice. `revision_header` (lower case) and
    `revision_cookie` let a client choose the revision.
    """

    sticky: Stickiness | None = None
    room: WaitingRoom | None = None
    failover: str | None = None
    failover_statuses: frozenset[int] = frozenset()
    mirror: Any = None
    hedging: Any = None
    revision_header: bytes = b""
    revision_cookie: bytes = b""


_PLAIN: Final = Traits()


@attrs.frozen(slots=True, eq=False)
class Judged:
    """
    A backend and what is thought of it under this service's configuration.
    """

    backend: Backend
    judgement: Judgement
    watch: Watch | None = None
    is_draining: bool = False


class Service:
    """
    One group of backends, or several between which `split` divides the traffic.

    Making one touches nothing that runs: it takes over its backends in `begin`, together with what is thought of them (`judged`).
    `seconds` is the monotonic clock and `later` begins a timed call, both for the verdicts on backends. `announce` is called when
    other workers should look at those again.
    """

    _log = Logger()

    __slots__ = (
        "_announce",
        "_bound",
        "_by_revision",
        "_is_retired",
        "_judged",
        "_later",
        "_limit",
        "_only",
        "_seconds",
        "_split",
        "_timers",
        "backends",
        "failover",
        "failovers",
        "groups",
        "name",
        "retries",
        "settings",
        "strategy",
        "traits",
    )

    def __init__(
        self,
        name: str,
        strategy: str,
        groups: Sequence[Group],
        settings: ServiceSettings,
        seconds: Callable[[], float],
        later: Callable[..., Any],
        traits: Traits = _PLAIN,
        split: Split[Group] | None = None,
        judged: Sequence[Judged] = (),
        announce: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.strategy = strategy
        self.groups = tuple(groups)
        self.backends = tuple(backend for group in groups for backend in group.backends)
        self.settings = settings
        self.traits = traits
        self.retries = 0
        self.failover: Service | None = None
        self.failovers = 0
        self._announce = announce
        self._is_retired = False
        self._judged = tuple(judged)
        self._seconds = seconds
        self._later = later
        self._timers: dict[Backend, Any] = {}
        self._split = split
        self._limit = 0 if traits.room is None else traits.room.per_backend
        self._by_revision = {group.revision: group for group in groups}
        self._bound = {backend.sticky_name: (backend, group) for group in groups for backend in group.backends}
        is_plain = len(groups) == 1 and traits.sticky is None and not self._limit
        self._only = groups[0] if is_plain else None

    def __repr__(self) -> str:
        return f"<Service {self.name} {len(self.usable)}/{len(self.backends)} usable>"

    @property
    def usable(self) -> Sequence[Backend]:
        """
        The backends that may be chosen, in configured order.
        """
        if self._only is not None:
            return self._only.usable
        return [backend for group in self.groups for backend in group.usable]

    @property
    def can_serve(self) -> bool:
        """
        Whether any backend may be chosen.
        """
        return any(group.usable for group in self.groups)

    def next_to_serve(self) -> Service | None:
        """
        Return the service that steps in for this one now: the first in the chain of failovers that can serve.
        """
        other = self.failover
        while other is not None and not other.can_serve:
            other = other.failover
        return other

    # -- choosing

    def choose(self, exchange: Exchange, tried: Sequence[Backend]) -> Backend | None:
        """
        Return the backend for the next attempt, or `None` if none is left. Those in `tried` are not chosen again.
        """
        only = self._only
        if only is not None:
            # Most common case first.
            return only.choose(exchange, tried)
        binding = self._binding_of(exchange)
        if binding is not None:
            found = self._bound.get(binding.server)
            if found is not None and found[0] not in tried and self._may_continue(*found):
                exchange.revision = found[0].revision
                return found[0]
        group = self._group_for(exchange, binding, tried)
        if group is None:
            return None
        exchange.revision = group.revision
        return group.choose(exchange, tried, self._limit)

    def _may_continue(self, backend: Backend, group: Group) -> bool:
        """
        Tell whether `backend` may go on serving a client that is bound to it: also while it drains.
        """
        if self._limit and backend.is_full(self._limit):
            return False
        return backend in group.usable or (backend.verdicts.is_draining and backend.verdicts.may_continue)

    def _binding_of(self, exchange: Exchange) -> Binding | None:
        sticky = self.traits.sticky
        head = exchange.head
        if sticky is None or head is None:
            return None
        if exchange.bound_service is not self:
            exchange.bound_service = self
            exchange.binding = sticky.binding_of(head)
        return exchange.binding

    def _group_for(self, exchange: Exchange, binding: Binding | None, tried: Sequence[Backend]) -> Group | None:
        """
        Return the revision for an exchange: the one it had before, that the client asks for, or is bound to; else its turn decides.

        A revision that cannot serve leaves its clients to the others.
        """
        split = self._split
        if split is None:
            return self.groups[0]
        group = self._by_revision.get(exchange.revision) if exchange.revision is not None else None
        if group is None and exchange.head is not None:
            group = self._asked_for(exchange.head)
        if group is None and binding is not None:
            group = next((each for each in self.groups if each.revision and self._revision_name(each) == binding.revision), None)
        if group is not None and group.can_serve(tried, self._limit):
            return group
        return split.choose(lambda each: each.can_serve(tried, self._limit))

    def _asked_for(self, head: RequestHead) -> Group | None:
        traits = self.traits
        value = get_field(head.fields, traits.revision_header) if traits.revision_header else None
        if value is None and traits.revision_cookie:
            value = next(iter(read_cookie(head.fields, traits.revision_cookie)), None)
        return None if value is None else self._by_revision.get(value.decode("latin-1"))

    def _revision_name(self, group: Group) -> bytes:
        return name_revision(self.name, group.revision or "")

    # -- verdicts

    def watched(self, backend: Backend, change: Transition | None) -> None:
        """
        The passive verdict on a backend changed, or a trial of it began or ended.
        """
        if change is not None:
            if change.change is Change.EJECTED and backend.series is not None:
                backend.series.ejections += 1
            self._tell(backend, change)
        self._set_timer(backend)
        self.refresh()
        if self._announce is not None:
            self._announce()

    def probed(self, revision: str | None, url: str, is_healthy: bool, reason: str) -> None:
        """
        Whoever probes the servers with this URL has changed its mind, or says once more what it thinks.
        """
        change = Transition(Change.HEALTHY if is_healthy else Change.UNHEALTHY, reason)
        for backend in self.backends:
            probe = backend.verdicts.probe
            if probe is None or backend.url != url or backend.revision != revision:
                continue
            if probe.is_healthy == is_healthy:
                # Known already, but a reload that changed the other rules has lost the reason.
                backend.verdicts.reason = backend.verdicts.reason or str(change)
            else:
                probe.is_healthy = is_healthy
                self._tell(backend, change)
        self.refresh()

    def judged_elsewhere(self) -> None:
        """
        Another worker has changed what all of them think.
        """
        for backend in self.backends:
            self._set_timer(backend)
        self.refresh()

    def refresh(self) -> None:
        """
        Let the verdicts on all backends take effect.
        """
        now = self._seconds()
        changed = [group for group in self.groups if group.refresh(now)]
        room = self.traits.room
        if changed and room is not None:
            room.fit(sum(len(group.usable) for group in self.groups))

    def _tell(self, backend: Backend, change: Transition) -> None:
        backend.verdicts.reason = str(change)
        log = self._log.info if change.change in (Change.HEALTHY, Change.RESTORED, Change.HALF_OPEN) else self._log.warn
        log("backend {url} of service {name} is {change}", url=backend.url, name=self.name, change=backend.verdicts.reason)

    def _set_timer(self, backend: Backend) -> None:
        timer = self._timers.pop(backend, None)
        if timer is not None and timer.active():
            timer.cancel()
        ejection = backend.verdicts.ejection
        if ejection is not None and ejection.until is not None and not self._is_retired:
            # A moment later, so that rounding never wakes too early.
            self._timers[backend] = self._later(max(ejection.until - self._seconds(), 0.0) + 0.001, self._wake, backend)

    def _wake(self, backend: Backend) -> None:
        ejection = backend.verdicts.ejection
        change = None if ejection is None else ejection.wake(self._seconds())
        if change is None:
            self._set_timer(backend)
            self.refresh()
        else:
            self.watched(backend, change)

    # -- reload

    @property
    def has_partners(self) -> bool:
        """
        Whether it sends anything to another service, which a reload may have replaced.
        """
        return self.traits.failover is not None or self.traits.mirror is not None

    def begin(self, services: Mapping[str, Service]) -> None:
        """
        Take over the backends, from the service of the name before a reload if there was one. Called after each reload that has brought
        this service, or may have brought another partner.
        """
        self.failover = services.get(self.traits.failover) if self.traits.failover is not None else None
        if self.traits.mirror is not None:
            self.traits.mirror.begin(services)
        for judged in self._judged:
            backend = judged.backend
            backend.verdicts = judged.judgement.verdicts
            backend.verdicts.is_draining = judged.is_draining
            backend.watch = judged.watch
            if judged.watch is not None:
                judged.watch.changed = self.watched
            self._set_timer(backend)
        room = self.traits.room
        if room is not None:
            room.hand_over(self)
        self.refresh()
        if room is not None:
            room.fit(sum(len(group.usable) for group in self.groups))

    def retire(self) -> None:
        """
        Leave the backends to another service, or to nobody.
        """
        self._is_retired = True
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self._timers.clear()


class Route:
    """
    Where a matched request goes: a router's name, its service, and the middlewares on the way (`None` if there are none). `settings` are
    those of the service as the router would have them, `series` its metrics.
    """

    __slots__ = ("chain", "name", "series", "service", "service_name", "settings")

    def __init__(self, name: str, service: Service, series: Any, chain: Any = None, settings: ServiceSettings | None = None) -> None:
        self.name = name
        self.chain = chain
        self.service = service
        self.service_name = service.name
        self.settings = service.settings if settings is None else settings
        self.series = series

    def __repr__(self) -> str:
        return f"<Route {self.name} to {self.service_name}>"
