"""
The carrying side: listeners, exchanges and pools of one process.

A configuration is taken in two steps. `prepare` builds the next generation beside the running one and binds what is new; all that can fail
fails there. `commit` swaps, between two events of the reactor, and cannot fail; then what the new generation did not take over is retired.

Long because a swap concerns doors, generations, logs and counts alike, and all of them at once.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from a3sgw.assembly import STEP, Generation, Kit, assembling, begin_services, retire_parts
from a3sgw.assembly_parts import Crew
from a3sgw.config.model import AccessLogConfig, GatewayConfig, MetricsConfig
from a3sgw.errors import AssemblyError
from a3sgw.gauges import PastCounts, backend_gauges, certificate_gauges, middleware_gauges, retain_series, service_gauges
from a3sgw.interfaces import ICarrier, IControl, ILogSink
from a3sgw.listen.door import Door, DoorTally, bind
from a3sgw.listen.places import Place, find_place, refuse_overlap
from a3sgw.listen.udp_door import UdpDoor
from a3sgw.listen.udp_doors import BindDatagrams, UdpDoors
from a3sgw.middleware.catalog import Catalog, find_catalog
from a3sgw.net.connect import Dialer
from a3sgw.net.datagram import bind_datagrams
from a3sgw.net.deadline import Deadlines
from a3sgw.net.reactor import flush_queue
from a3sgw.observe.accesslog import AccessLog
from a3sgw.observe.logsink import FileSink
from a3sgw.observe.metrics import Metrics
from a3sgw.observe.sessions import SessionLog
from a3sgw.observe.snapshot import Gauges
from a3sgw.proxy.entrypoint import Observers
from a3sgw.proxy.outbound import Outbound
from a3sgw.proxy.tcp_entrypoint import TcpEntrypoint
from a3sgw.service.strategies import Strategies, find_strategies

__all__ = ["Carrier"]


class _Log:
    """
    An access log with the configuration it was made for.
    """

    def __init__(self, config: AccessLogConfig, sink: ILogSink) -> None:
        self.config = config
        self.sink = sink
        self.access_log = AccessLog(sink, config.format, config.redact_query, time.time)

    def close(self) -> None:
        self.access_log.flush()
        self.sink.close()


class _Prepared:
    """
    A generation that could run now, and what was opened for it.
    """

    def __init__(self, generation: Generation, log: _Log | None, new_doors: dict[str, Door]) -> None:
        self.generation = generation
        self.log = log
        self.new_doors = new_doors


class _Preparing:
    """
    A generation that is being prepared, step by step; `next` is the call of the next one.
    """

    def __init__(self, steps: Generator[None, None, _Prepared], done: Deferred[None]) -> None:
        self.steps = steps
        self.done = done
        self.next: Any = None


@implementer(ICarrier)
class Carrier:
    """
    Carries the traffic of one configuration at a time.

    `control` answers what is not for this side to decide. `seconds` is the clock of all deadlines. The other arguments are for tests: what
    opens an access log, what reaches backends, what binds a listening socket, which types of middlewares there are, and what calls a slow
    function in a thread. `crew` is for one that is not alone.
    """

    FLUSH_SECONDS: Final = 0.5
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        control: IControl,
        seconds: Callable[[], float] = time.monotonic,
        open_sink: Callable[[AccessLogConfig], ILogSink] | None = None,
        dialer: Callable[[Deadlines], Dialer] | None = None,
        bind: Callable[[str, str, int], socket.socket] = bind,
        catalog: Catalog | None = None,
        strategies: Strategies | None = None,
        in_thread: Callable[..., Deferred[Any]] | None = None,
        crew: Crew | None = None,
        bind_datagrams: BindDatagrams = bind_datagrams,
    ) -> None:
        """
        Long because whatever lives as long as the carrier is made here.
        """
        self._reactor = reactor
        self._control = control
        self._open_sink = self._open_file if open_sink is None else open_sink
        self._deadlines = Deadlines(reactor, seconds)
        self._flushes = flush_queue(reactor)
        self._bind_socket = bind
        self._metrics = Metrics(MetricsConfig().buckets)
        self._observers = Observers((self._metrics,))
        self._connection_observers = Observers((self._metrics.connections,))
        self._session_observers = Observers((self._metrics.sessions,))
        self._kit = self._make_kit(
            Dialer(reactor, self._flushes, self._deadlines) if dialer is None else dialer(self._deadlines),
            catalog or find_catalog(),
            strategies or find_strategies(),
            in_thread or self._call_in_thread,
            Crew(os.urandom(32)) if crew is None else crew,
        )
        self._access: _Log | None = None
        self._tally = DoorTally()
        self._past = PastCounts()
        self._udp = UdpDoors(reactor, self._deadlines, bind_datagrams)
        self._doors: dict[str, Door] = {}
        self._leaving: set[Door] = set()
        self._generation: Generation | None = None
        self._prepared: _Prepared | None = None
        self._preparing: _Preparing | None = None
        self._flush_call: Any = None
        self._dropped_before = 0

    def _make_kit(
        self,
        dialer: Dialer,
        catalog: Catalog,
        strategies: Strategies,
        in_thread: Callable[..., Deferred[Any]],
        crew: Crew,
    ) -> Kit:
        return Kit(
            reactor=self._reactor,
            dialer=dialer,
            metrics=self._metrics,
            observers=self._observers,
            connection_observers=self._connection_observers,
            session_observers=self._session_observers,
            ask=self._control.admin_request,
            outbound=Outbound(dialer, self._reactor),
            catalog=catalog,
            strategies=strategies,
            wall_clock=time.time,
            in_thread=in_thread,
            chance=random.Random(),
            sticky_key=crew.sticky_key,
            arena=crew.arena,
            announce=crew.announce,
            post=crew.post,
        )

    # -- taking a configuration

    def prepare(self, config: GatewayConfig) -> Deferred[None]:
        """
        Build and bind the next generation beside the running one.
        """
        if self._prepared is not None or self._preparing is not None:
            return fail(AssemblyError("another configuration is being prepared"))
        done: Deferred[None] = Deferred()
        self._preparing = _Preparing(self._prepare(config), done)
        self._go_on(self._preparing)
        return done

    def _go_on(self, preparing: _Preparing) -> None:
        """
        Prepare another step, and the next one after whoever has been waiting meanwhile.
        """
        preparing.next = None
        try:
            next(preparing.steps)
        except StopIteration as end:
            self._preparing = None
            self._prepared = end.value
            preparing.done.callback(None)
        except Exception:
            self._preparing = None
            preparing.done.errback()
        else:
            preparing.next = self._reactor.callLater(0, self._go_on, preparing)

    def _prepare(self, config: GatewayConfig) -> Generator[None, None, _Prepared]:
        log = self._prepare_log(config.observability.access_log)
        new_doors: dict[str, Door] = {}
        try:
            generation = yield from assembling(config, self._generation, self._kit)
            for name, plan in generation.doors.items():
                door = self._door_at(plan.address, name)
                if door is None:
                    new_doors[name] = self._bind(name, plan)
                elif door.is_tcp != isinstance(plan.entrypoint, TcpEntrypoint):
                    raise AssemblyError(
                        f'entrypoint "{name}" changes its protocol, but connections of the old one may be open on port {door.port}; such a '
                        "change needs another port, or a restart"
                    )
            self._udp.prepare(generation.udp_doors)
            if len(generation.services) >= STEP:
                # The commit, which follows at once, is a step of its own.
                yield
        except BaseException:
            self._close_new(new_doors, log)
            raise
        return _Prepared(generation, log, new_doors)

    def _prepare_log(self, config: AccessLogConfig) -> _Log | None:
        if not config.enabled:
            return None
        if self._access is not None and self._access.config == config:
            return self._access
        try:
            return _Log(config, self._open_sink(config))
        except OSError as error:
            raise AssemblyError(f"access log {config.file} cannot be opened: {error.strerror}") from error

    def _open_file(self, config: AccessLogConfig) -> ILogSink:
        return FileSink(config.file, config.buffer_bytes, self._report_from_thread)

    def _call_in_thread(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), call, *arguments)

    def _report_from_thread(self, text: str) -> None:
        # The sink's own thread calls this.
        self._reactor.callFromThread(self._log.warn, "{text}", text=text)

    def _door_at(self, address: tuple[str, int], name: str) -> Door | None:
        """
        Return the open door that listens on `address` already. Port 0 stands for a port of the entrypoint's own.
        """
        holder = find_place(self._places(), address, name)
        return None if holder is None else self._doors[holder]

    def _places(self) -> dict[str, Place]:
        return {name: door.address for name, door in self._doors.items()}

    def _bind(self, name: str, plan: Any) -> Door:
        host, port = plan.address
        refuse_overlap(self._places(), plan.address, name)
        sock = self._bind_socket(name, host, port)
        return Door(
            sock, plan.address, plan.entrypoint, plan.gates, plan.beginning, self._tally, self._reactor, self._flushes, self._deadlines
        )

    def abandon(self) -> None:
        """
        Drop the generation that is prepared, or being prepared: its Deferred fails then.
        """
        prepared, preparing = self._prepared, self._preparing
        self._prepared = self._preparing = None
        if prepared is not None:
            self._close_new(prepared.new_doors, prepared.log)
        if preparing is not None:
            preparing.next.cancel()
            preparing.steps.close()
            preparing.done.errback(AssemblyError("the configuration is not wanted any more"))

    def _close_new(self, doors: Mapping[str, Door], log: _Log | None) -> None:
        for door in doors.values():
            door.close()
        self._udp.abandon()
        if log is not None and log is not self._access:
            log.close()
        if self._generation is not None:
            # What was assembled in vain has left its names in the metrics.
            retain_series(self._metrics, self._generation)

    def commit(self) -> Deferred[None]:
        """
        Make the prepared generation the running one, and retire what it did not take over.
        """
        prepared = self._prepared
        assert prepared is not None, "commit without prepare"
        self._prepared = None
        old, new = self._generation, prepared.generation
        old_doors, old_log = self._doors, self._access
        doors = {}
        for name, plan in new.doors.items():
            door = prepared.new_doors.get(name) or self._door_at(plan.address, name)
            assert door is not None
            door.entrypoint = plan.entrypoint
            door.gates = plan.gates
            door.beginning = plan.beginning
            door.count_shared()
            doors[name] = door
        self._doors = doors
        self._generation = new
        self._access = prepared.log
        self._metrics.rebucket(new.config.observability.metrics.buckets)
        if old is None:
            self._deadlines.start()
            self._flush_call = self._reactor.callLater(self.FLUSH_SECONDS, self._flush_log)
        # From here on the new generation runs.
        begin_services(old, new)
        for door in doors.values():
            door.open()
        self._udp.commit(new.udp_doors)
        if old is not None:
            self._retire(old, new, set(old_doors.values()) - set(doors.values()))
        if old_log is not prepared.log:
            # Exchanges that began before and end after this are told to the new log.
            logs = () if prepared.log is None else (prepared.log.access_log,)
            self._observers.replace((self._metrics, *logs))
            self._connection_observers.replace((self._metrics.connections, *logs))
            self._session_observers.replace((self._metrics.sessions, *(SessionLog(log.write) for log in logs)))
            if old_log is not None:
                old_log.close()
                self._dropped_before += getattr(old_log.sink, "dropped_lines", 0)
        return succeed(None)

    def _retire(self, old: Generation, new: Generation, doors: set[Door]) -> None:
        for door in doors:
            self._leaving.add(door)
            door.idle = lambda door=door: self._leaving.discard(door)
            door.drain()
            if not door.connections:
                self._leaving.discard(door)
        self._past.add_replaced(old.services, new.services)
        retire_parts(old, new.parts)
        retain_series(self._metrics, new)

    def set_verdict(self, service: str, revision: str | None, url: str, is_healthy: bool, reason: str) -> None:
        """
        Let the verdict of probes on a server take effect.
        """
        if self._generation is not None and service in self._generation.services:
            self._generation.services[service].probed(revision, url, is_healthy, reason)

    def judged_elsewhere(self) -> None:
        """
        Another worker has changed verdicts that all of them share.
        """
        if self._generation is not None:
            for service in self._generation.services.values():
                service.judged_elsewhere()

    # -- observation

    def snapshot(self) -> Deferred[Mapping[str, Any]]:
        """
        Give what was counted, and how things stand; see `observe.metrics.Metrics.snapshot`.
        """
        self._drain_observers()
        return succeed(self._metrics.snapshot(self._gauges()))

    def _gauges(self) -> Gauges:
        generation = self._generation
        services = {} if generation is None else generation.services
        dropped = self._dropped_before
        if self._access is not None:
            dropped += getattr(self._access.sink, "dropped_lines", 0)
        return {
            "active_connections": sum(len(door.connections) for door in self._all_doors() if not door.is_tcp),
            "open": {name: len(door.connections) for name, door in self._doors.items()},
            "backends": backend_gauges(services.values()),
            "services": service_gauges(services.values(), self._past),
            "middlewares": [] if generation is None else middleware_gauges(generation.parts),
            "accepted": dict(self._tally.accepted),
            "refused": [[*key, value] for key, value in self._tally.refused.items()],
            "http2_faults": [[*key, value] for key, value in self._tally.faults.items()],
            "certificates": [] if generation is None else certificate_gauges(generation.parts),
            "udp_sessions": {name: len(door.sessions) for name, door in self._udp.doors().items()},
            "udp_begun": dict(self._udp.tally.begun),
            "udp_dropped": [[*key, count] for key, count in self._udp.tally.dropped.items()],
            "access_log_dropped": dropped,
        }

    def _drain_observers(self) -> None:
        self._observers.drain()
        self._connection_observers.drain()
        self._session_observers.drain()

    def totals(self) -> tuple[int, int]:
        """
        Return how many client connections are open and how many requests have ended since the start.
        """
        self._drain_observers()
        return self._connection_count(), self._metrics.total_requests()

    def _connection_count(self) -> int:
        return sum(len(door.connections) for door in self._all_doors())

    def _all_doors(self) -> list[Door]:
        return [*self._doors.values(), *self._leaving]

    def ports(self) -> dict[str, int]:
        """
        Return the ports of the open doors by entrypoint, which matter where the configuration says port 0.
        """
        ports = {name: door.port for name, door in self._doors.items()}
        return ports | {name: door.port for name, door in self._udp.doors().items()}

    def listening(self) -> list[socket.socket]:
        """
        Return the sockets on which connections are accepted, and those on which datagrams are heard.
        """
        accepting = [door.listening for door in self._doors.values() if door.listening is not None]
        return accepting + self._udp.listening()

    def passed_on(self, sockets: Collection[socket.socket]) -> None:
        """
        Another process serves on these `sockets` as well now, and this one is about to drain: leave it the datagrams. Connections are
        accepted by either until then.
        """
        self._udp.passed_on(sockets)

    def doors(self) -> list[Door]:
        """
        Return the open doors.
        """
        return list(self._doors.values())

    def udp_doors(self) -> dict[str, UdpDoor]:
        """
        Return the open udp doors by entrypoint.
        """
        return self._udp.doors()

    def generation(self) -> Generation | None:
        """
        Return what runs now.
        """
        return self._generation

    def reopen_logs(self) -> None:
        """
        Open the access log anew by name.
        """
        self._drain_observers()
        if self._access is not None:
            self._access.access_log.flush()
            self._access.sink.reopen()

    def _flush_log(self) -> None:
        self._flush_call = self._reactor.callLater(self.FLUSH_SECONDS, self._flush_log)
        self._drain_observers()
        if self._access is not None:
            self._access.access_log.flush()

    # -- the end

    def drain(self, timeout: float) -> Deferred[int]:
        """
        Stop accepting, end what is idle, wait for what is in flight, at most `timeout` seconds; then close everything.
        """
        self.abandon()
        done: Deferred[int] = Deferred()
        waiting: set[Any] = {*self._doors.values(), *self._leaving, *self._udp.all()}
        late: Any = None

        def finish(aborted: int) -> None:
            nonlocal late
            if late is not None and late.active():
                late.cancel()
            late = None
            waiting.clear()
            self._close()
            done.callback(aborted)

        def door_idle(door: Any) -> None:
            waiting.discard(door)
            if not waiting and late is not None:
                finish(0)

        def time_over() -> None:
            left = list(waiting)
            for door in left:
                door.idle = None
            finish(sum(door.abort() for door in left))

        for door in list(waiting):
            door.idle = lambda door=door: door_idle(door)
            door.drain()
            if not door.connections:
                waiting.discard(door)
        late = self._reactor.callLater(timeout if waiting else 0, time_over)
        return done

    def _close(self) -> None:
        if self._flush_call is not None:
            self._flush_call.cancel()
            self._flush_call = None
        if self._generation is not None:
            retire_parts(self._generation, {})
        self._flushes.run()
        self._deadlines.close()
        self._doors = {}
        self._leaving = set()
        self._udp.clear()
        self._drain_observers()
        if self._access is not None:
            self._access.close()
            self._access = None
