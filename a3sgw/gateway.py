"""
The gateway as one object: the deciding side.

`Gateway` checks configurations, tells the carrying side what to run, and answers questions about it. It is a Twisted service, so it lives
as well in a `.tac` file or another application's service tree.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from a3sgw.assembly_parts import digest_of_files
from a3sgw.assembly_service import upstream_terms
from a3sgw.carrier import Carrier
from a3sgw.config.check import check, unsupported
from a3sgw.config.load import BrokenFile
from a3sgw.config.model import ConfigurationError, GatewayConfig
from a3sgw.config.tree import Problem
from a3sgw.health.prober import Prober
from a3sgw.interfaces import IControl
from a3sgw.listen.door import bind
from a3sgw.listen.udp_doors import BindDatagrams
from a3sgw.loading import rule_problems
from a3sgw.message import LocalResponse, RequestHead
from a3sgw.net.connect import Dialer
from a3sgw.net.datagram import bind_datagrams
from a3sgw.net.deadline import Deadlines
from a3sgw.net.reactor import flush_queue
from a3sgw.policy.arena import Arena
from a3sgw.view import GatewayView, make_api
from a3sgw.workers.events import EventDesk
from a3sgw.workers.fleet import Fleet, refuse_other_size, worker_count
from a3sgw.workers.nursery import Nursery

__all__ = ["Gateway"]


def _refuse_problems(config: GatewayConfig) -> None:
    problems = [*check(config, {}), *unsupported(config, {}), *rule_problems(config, {})]
    if problems:
        raise ConfigurationError(problems)


@implementer(IControl)
class Gateway(MultiService):
    """
    A reverse proxy that runs one configuration at a time. `bind` and `bind_datagrams` give its listening sockets.

    Raises `ConfigurationError` if `config` has problems. `reactor` is the global one unless another is given. States are `created`,
    `starting`, `running`, `reloading`, `stopping` and `stopped`.
    """

    ADMIN_SECONDS = 10.0
    _log = Logger()

    def __init__(
        self,
        config: GatewayConfig,
        reactor: Any = None,
        bind: Callable[[str, str, int], socket.socket] = bind,
        bind_datagrams: BindDatagrams = bind_datagrams,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        _refuse_problems(config)
        if reactor is None:
            from twisted.internet import reactor
        self._reactor = reactor
        self._config = config
        self._carrier = self._make_carrier(config, bind, bind_datagrams)
        self._prober = Prober(
            reactor,
            Dialer(reactor, flush_queue(reactor), Deadlines(reactor, time.monotonic)),
            self._carrier.set_verdict,
            upstream_terms,
            digest_of_files,
            random.Random(),
        )
        self._view = GatewayView(self, self._carrier)
        self._api = make_api(self._view, config)
        self._state = "created"
        self._created = time.monotonic()
        self._reloads = {"success": 0, "failure": 0}
        self._last_reload: float | None = None
        self._last_result: dict[str, Any] | None = None
        self._broken_files: tuple[BrokenFile, ...] = ()
        self._provider_rows: Callable[[], list[dict[str, Any]]] = list
        self._left_out: tuple[Problem, ...] = ()
        self._starting: Deferred[None] | None = None
        self._stopping: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []

    def _make_carrier(
        self, config: GatewayConfig, bind: Callable[[str, str, int], socket.socket], bind_datagrams: BindDatagrams
    ) -> Carrier | Fleet:
        size = worker_count(config.workers)
        if size == 1:
            return Carrier(self._reactor, self, bind=bind, bind_datagrams=bind_datagrams)
        desk = EventDesk(time.monotonic)
        return Fleet(self._reactor, self, size, Nursery(self._reactor), bind, os.urandom(32), Arena.create(size), desk.take)

    # -- life

    def start(self) -> Deferred[None]:
        """
        Listen and proxy. The Deferred fails with `AssemblyError` if that is not possible, and the gateway is stopped then.
        """
        if self._state != "created":
            raise RuntimeError(f"a gateway starts once, and this one is {self._state}")
        self._state = "starting"
        self.running = True
        return self._start()

    @inlineCallbacks
    def _start(self) -> Any:
        try:
            probes = self._prober.prepare(self._config)
            yield self._carrier.prepare(self._config)
        except BaseException:
            self._state = "stopped"
            self._release_waiting()
            raise
        if self._state != "starting":
            # A shutdown came first.
            self._carrier.abandon()
            return
        committed = self._carrier.commit()
        self._prober.take(probes)
        self._state = "running"
        yield committed

    def shutdown(self) -> Deferred[None]:
        """
        Stop accepting, let what is in flight end within `shutdown_timeout_secs`, and stop. May be called again; all calls end together.
        """
        done: Deferred[None] = Deferred()
        if self._state == "stopped":
            done.callback(None)
            return done
        self._waiting.append(done)
        if self._state != "stopping":
            was_running = self._state in ("running", "reloading")
            self._state = "stopping"
            self.running = False
            self._prober.stop()
            ending: Deferred[Any] = self._carrier.drain(float(self._config.shutdown_timeout_secs)) if was_running else succeed(0)
            ending.addBoth(self._stopped)
        return done

    def _stopped(self, result: Any) -> None:
        if isinstance(result, Failure):
            self._log.failure("the gateway did not stop cleanly", failure=result)
        elif result:
            self._log.warn("{count} exchanges were broken off after the time for draining", count=result)
        self._state = "stopped"
        self._release_waiting()

    def _release_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def wait_for_shutdown(self) -> Deferred[None]:
        """
        Wait for SIGINT or SIGTERM and shut down, or for a shutdown that somebody else asked for.

        Takes the two signals over; leave it alone where something else handles them.
        """
        done: Deferred[None] = Deferred()
        if self._state == "stopped":
            done.callback(None)
            return done
        self._waiting.append(done)

        def received(number: int, frame: object) -> None:
            self._reactor.callFromThread(self.shutdown)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, received)
        return done

    def startService(self) -> None:
        """
        Start as part of a service tree. A failure is logged and stops the reactor: a gateway that does not listen must not look alive.
        """
        super().startService()  # type: ignore[no-untyped-call]
        if self._state == "created":

            def failed(failure: Failure) -> None:
                self._log.critical("the gateway could not be started: {reason}", reason=failure.getErrorMessage())
                self._reactor.callWhenRunning(self._reactor.stop)

            self.start().addErrback(failed)

    def stopService(self) -> Deferred[Any]:
        """
        Stop as part of a service tree, draining.
        """
        done: Deferred[Any] = maybeDeferred(super().stopService)
        done.addCallback(lambda _: self.shutdown())
        return done

    @inlineCallbacks
    def reload(self, new_config: GatewayConfig, *, is_checked: bool = False) -> Any:
        """
        Run `new_config` from the next request on. Whatever it does not change keeps its state, and no connection is lost. `is_checked` says
        that it was checked where that holds up nobody, as `loading.load` does.

        Fails with `ConfigurationError` or `AssemblyError`, and then the old configuration has never stopped running.
        """
        if self._state != "running":
            raise RuntimeError(f"only a running gateway can be reloaded, and this one is {self._state}")
        self._state = "reloading"
        try:
            if not is_checked:
                _refuse_problems(new_config)
            refuse_other_size(worker_count(self._config.workers), new_config)
            api = make_api(self._view, new_config)
            probes = self._prober.prepare(new_config)
            yield self._carrier.prepare(new_config)
        except BaseException as error:
            self._reload_ended("failure", str(error))
            raise
        if self._state != "reloading":
            # A shutdown came first.
            self._carrier.abandon()
            raise RuntimeError(f"the gateway is {self._state}")
        self._config = new_config
        self._api = api
        committed = self._carrier.commit()
        self._prober.take(probes)
        yield committed
        self._last_reload = time.time()
        self._reload_ended("success", None)

    def reload_refused(self, reason: str) -> None:
        """
        Count a reload that came to nothing because there was no valid configuration; `reason` is shown by `health`.
        """
        self._reloads["failure"] += 1
        self._last_result = {"result": "failure", "error": reason, "at": time.time()}

    def found_unchanged(self) -> None:
        """
        Take note that the configuration as it now stands is the one that runs: `health` no longer shows what was refused before.
        """
        if self._last_result is not None and self._last_result["result"] == "failure":
            self._last_result = {"result": "unchanged", "error": None, "at": time.time()}

    def files_broken(self, broken: Sequence[BrokenFile]) -> None:
        """
        Show that these files of the configuration are not in force as they stand; all others are.
        """
        self._broken_files = tuple(broken)

    def show_providers(self, rows: Callable[[], list[dict[str, Any]]]) -> None:
        """
        Show what `rows` returns, how each provider of configuration stands; see `provider.aggregate.Aggregator.rows`.
        """
        self._provider_rows = rows

    def offers_left_out(self, left_out: Sequence[Problem]) -> None:
        """
        Show what providers offer and is not used.
        """
        self._left_out = tuple(left_out)

    def providers(self) -> tuple[list[dict[str, Any]], tuple[Problem, ...]]:
        """
        Return how each provider stands, and what is not used of what they offer.
        """
        return self._provider_rows(), self._left_out

    def broken_files(self) -> tuple[BrokenFile, ...]:
        """
        Return the files of the configuration that are not in force as they stand.
        """
        return self._broken_files

    def _reload_ended(self, result: str, error: str | None) -> None:
        self._reloads[result] += 1
        self._last_result = {"result": result, "error": error, "at": time.time()}
        if self._state == "reloading":
            self._state = "running"

    def reopen_logs(self) -> None:
        """
        Open log files anew by name, because they were rotated.
        """
        self._carrier.reopen_logs()

    # -- questions

    def state(self) -> str:
        """
        Return the state.
        """
        return self._state

    def is_running(self) -> bool:
        """
        Say whether requests are served.
        """
        return self._state in ("running", "reloading")

    def is_shutdown(self) -> bool:
        """
        Say whether the gateway has stopped.
        """
        return self._state == "stopped"

    def config(self) -> GatewayConfig:
        """
        Return the running configuration.
        """
        return self._config

    def listening(self) -> list[socket.socket]:
        """
        Return the sockets on which connections are accepted and datagrams heard. Raises `AssemblyError` if there are some that nobody but
        their worker can have.
        """
        return self._carrier.listening()

    def passed_on(self, sockets: Collection[socket.socket]) -> None:
        """
        Another process serves on these `sockets` as well now, and this one will be shut down.
        """
        self._carrier.passed_on(sockets)

    def ports(self) -> dict[str, int]:
        """
        Return the port each entrypoint listens on.
        """
        return self._carrier.ports()

    def health(self) -> dict[str, Any]:
        """
        Return `state`, `uptime_secs`, `active_connections`, `total_requests`, the result of the last `reload`, the `broken_files`,
        and the `workers`: how many are wanted and how many serve, and how often one was replaced; `None` in one process.
        """
        connections, requests = self._carrier.totals()
        return {
            "state": self._state.capitalize(),
            "uptime_secs": int(time.monotonic() - self._created),
            "active_connections": connections,
            "total_requests": requests,
            "reload": self._last_result,
            "workers": self.workers(),
            "broken_files": [
                {"file": file.source, "kept": file.is_kept, "problems": [str(problem) for problem in file.problems]}
                for file in self._broken_files
            ],
            "providers": self._provider_rows(),
            "left_out": [str(problem) for problem in self._left_out],
        }

    def workers(self) -> dict[str, int] | None:
        """
        Return how many workers are `wanted`, how many are `serving`, and how many were `replaced`; `None` in one process.
        """
        return self._carrier.standing() if isinstance(self._carrier, Fleet) else None

    def metrics(self) -> Deferred[str]:
        """
        Give the metrics as the Prometheus text page.
        """
        return self._view.metrics_page().addCallback(bytes.decode)

    def reloads(self) -> tuple[dict[str, int], float | None]:
        """
        Return how many reloads there were since the start by result, and when the last one succeeded (seconds of the epoch).
        """
        return dict(self._reloads), self._last_reload

    # -- what the carrier asks

    def admin_request(self, head: RequestHead) -> LocalResponse | Deferred[LocalResponse]:
        """
        Answer a request to the gateway's own API.
        """
        answer = self._api.answer(head.method, head.path, head.query, head)
        if isinstance(answer, Deferred):
            answer.addTimeout(self.ADMIN_SECONDS, self._reactor)
        return answer
