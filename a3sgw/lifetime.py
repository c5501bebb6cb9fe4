"""
Keep one gateway running in this process: start it, hear signals, reload it, drain it, and say with what code to exit.

| Signal | Effect |
|---|---|
| TERM, INT | stop accepting, let what is in flight end, exit with 0; a second one exits at once with 128 + its number |
| HUP | open the log files anew and read the configuration again |
| USR1 | open the log files anew |
| USR2 | start this program anew, and when the new process serves on the same sockets, stop as TERM does |

Signals are heard from the first line of the program on. Before the gateway runs there is nothing to drain, so TERM and INT exit at once
with 0, and HUP waits until the start is over. The second signal does not go through the reactor: it works when the reactor hangs.

Long because start, reload and stop wait for each other, in one class.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from a3sgw.config.model import ConfigurationError
from a3sgw.config.tree import Problem
from a3sgw.errors import AssemblyError
from a3sgw.settled import SettledMemory

if TYPE_CHECKING:
    from a3sgw.config.load import BrokenFile, Loaded
    from a3sgw.gateway import Gateway
    from a3sgw.supply import Supply

__all__ = ["Lifetime", "Signals", "raise_descriptor_limit"]

_STOP = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """
    The process's signals, from `install` until the process ends.

    `attach` gives them to a `Lifetime`; until then TERM and INT exit, and the others are remembered. `exit_now` is `os._exit`, an argument
    so that a test survives it.
    """

    log = Logger()

    def __init__(self, exit_now: Callable[[int], object] = os._exit) -> None:
        self._exit_now = exit_now
        self._lifetime: Lifetime | None = None
        self._reactor: Any = None
        self._early: list[int] = []
        self._stops = 0

    def install(self) -> None:
        """
        Take the signals over. Called again once the reactor runs, because its start takes TERM for itself.
        """
        for number in (*_STOP, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self.received)

    def attach(self, lifetime: Lifetime, reactor: Any) -> None:
        """
        Hand signals to `lifetime` on the reactor thread from now on, the remembered ones first.
        """
        self._lifetime = lifetime
        self._reactor = reactor
        early, self._early = self._early, []
        for number in early:
            self._pass_on(number)

    def received(self, number: int, frame: FrameType | None = None) -> None:
        """
        Take one signal; may be called between any two instructions of the main thread.
        """
        if number in _STOP:
            self._stops += 1
            if self._stops > 1:
                self._exit(128 + number, "a second {signal}: stopping at once", number)
                return
            if self._lifetime is None:
                self._exit(0, "{signal} before the gateway was started: nothing to drain", number)
                return
        if self._lifetime is None:
            self._early.append(number)
        else:
            self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        lifetime = self._lifetime
        assert lifetime is not None
        name = signal.Signals(number).name
        if number in _STOP:
            self._reactor.callFromThread(lifetime.stop, name)
        elif number == signal.SIGHUP:
            self._reactor.callFromThread(lifetime.reload, name)
        elif number == signal.SIGUSR2:
            self._reactor.callFromThread(lifetime.hand_over, name)
        else:
            self._reactor.callFromThread(lifetime.reopen_logs, name)

    def _exit(self, code: int, text: str, number: int) -> None:
        try:
            self.log.warn(text, signal=signal.Signals(number).name)
        finally:
            # Not sys.exit: that would have to travel up through whatever is hanging.
            self._exit_now(code)


class Lifetime:
    """
    One gateway from its start to its end.

    `load` reads the configuration again, or is `None` if there is none to read; `run_aside` runs it where it does not hold up traffic and
    gives a Deferred (`deferToThread`). `ended` is called once when nothing is left to do; `exit_code` is right from then on. At any moment
    at most one of start and reload is under way; a reload asked for meanwhile is done afterwards, once, however often it was asked for.

    `succeed` starts a successor with some listening sockets and gives its process number when it serves; without it there is none.

    With a `supply`, a configuration is also taken over when it says that there may be a new one, and only if there is. `memory` is settled
    whenever a configuration runs.
    """

    log = Logger()

    def __init__(
        self,
        gateway: Gateway,
        load: Callable[[], Loaded] | None,
        run_aside: Callable[..., Deferred[Any]],
        ended: Callable[[], object],
        supply: Supply | None = None,
        succeed: Callable[[Sequence[socket.socket]], Deferred[int]] | None = None,
        memory: SettledMemory | None = None,
    ) -> None:
        self.exit_code = 0
        self._gateway = gateway
        self._load = load
        self._run_aside = run_aside
        self._ended = ended
        self._is_starting = False
        self._is_reloading = False
        self._is_stopping = False
        self._has_ended = False
        self._wants_reload = False
        self._wants_look = False
        self._memory = SettledMemory() if memory is None else memory
        self._succeed = succeed
        self._is_handing_over = False
        self._supply = supply
        self._named: Mapping[str, bytes | None] = {}
        self._broken: tuple[BrokenFile, ...] = ()
        self._left_out: tuple[Problem, ...] = ()
        if supply is not None:
            supply.changed = self.look
            gateway.show_providers(supply.rows)

    def begin_with(self, loaded: Loaded) -> None:
        """
        Take note of what the gateway was made with. Called before the start.
        """
        self._named = loaded.named
        self._note_broken(loaded)
        if self._supply is not None:
            self._supply.follow(loaded)

    def start(self) -> Deferred[None]:
        """
        Start the gateway. The Deferred fires when it runs or has failed; it never fails itself.
        """
        self._is_starting = True
        started: Deferred[Any] = _attempt(self._gateway.start)
        return started.addCallbacks(self._started, self._start_failed)

    def stop(self, reason: str) -> None:
        """
        Drain and end. `reason` says who asked for it.
        """
        if self._is_stopping or self._has_ended:
            return
        self._is_stopping = True
        if self._supply is not None:
            self._supply.stop()
        self.log.info("{reason}: stopping; what is in flight may end, a second signal stops at once", reason=reason)
        if not self._is_starting:
            self._shut_down()

    def reload(self, reason: str) -> None:
        """
        Open the logs anew and take over the configuration as it now stands in its file. What fails is logged and changes nothing.
        """
        self.reopen_logs(reason)
        if self._is_stopping or self._has_ended:
            return
        if self._load is None:
            self.log.warn("{reason}: the gateway was started without a configuration file, so there is none to reload", reason=reason)
        elif self._is_starting or self._is_reloading:
            self._wants_reload = True
        else:
            self.log.info("{reason}: reloading the configuration", reason=reason)
            self._take_over(self._load, is_asked=True)

    def look(self) -> None:
        """
        Take over the configuration if it is another one now; nothing happens otherwise.
        """
        if self._is_stopping or self._has_ended or self._load is None:
            return
        if self._is_starting or self._is_reloading:
            self._wants_look = True
        else:
            self._take_over(self._load_if_changed, is_asked=False)

    def _load_if_changed(self) -> Loaded | None:
        assert self._load is not None
        return None if self._supply is not None and self._supply.is_up_to_date() else self._load()

    def _take_over(self, load: Callable[[], Loaded | None], *, is_asked: bool) -> None:
        self._is_reloading = True
        loading = _attempt(self._run_aside, partial(_politely, load))
        loading.addCallback(self._loaded, is_asked).addErrback(self._reload_failed).addBoth(self._reload_ended)

    def hand_over(self, reason: str) -> None:
        """
        Let a new process take over, and stop when it serves. If it does not, this one goes on.
        """
        if self._is_starting or self._is_stopping or self._has_ended or self._is_handing_over:
            self.log.warn("{reason}: this is no time to be succeeded; ask again later", reason=reason)
        elif self._succeed is None:
            self.log.warn("{reason}: a gateway that was started like this cannot be succeeded; restart it", reason=reason)
        else:
            self._is_handing_over = True
            self.log.info("{reason}: starting a successor", reason=reason)
            _attempt(self._begin_hand_over, self._succeed).addErrback(self._not_succeeded)

    def _begin_hand_over(self, succeed: Callable[[Sequence[socket.socket]], Deferred[int]]) -> Deferred[None]:
        sockets = self._gateway.listening()
        return succeed(sockets).addCallback(self._succeeded, sockets)

    def _succeeded(self, pid: int, sockets: Sequence[socket.socket]) -> None:
        self.log.info("process {pid} serves now", pid=pid)
        self._gateway.passed_on(sockets)
        self.stop("succeeded")

    def _not_succeeded(self, failure: Failure) -> None:
        self._is_handing_over = False
        _log_failure(self.log, "there is no successor, and this process goes on", failure)

    def reopen_logs(self, reason: str) -> None:
        """
        Open log files anew by name, because they were rotated.
        """
        try:
            self._gateway.reopen_logs()
        except Exception:
            self.log.failure("{reason}: the logs could not be opened anew", reason=reason)

    # -- what comes back ----------------------------------------------------------------------------------------------------------

    def _started(self, result: object) -> None:
        self._is_starting = False
        self._memory.settle()
        self.log.info("gateway running: {entrypoints}", entrypoints=describe_entrypoints(self._gateway))
        if self._is_stopping:
            self._shut_down()
        elif self._wants_reload:
            self._wants_reload = False
            self.reload("asked for during the start")
        elif self._wants_look:
            self._wants_look = False
            self.look()

    def _start_failed(self, failure: Failure) -> None:
        self._is_starting = False
        _log_failure(self.log, "the gateway could not be started", failure)
        self._end(1)

    def _loaded(self, loaded: Loaded | None, is_asked: bool) -> Deferred[None] | None:
        """
        Take over what was read. If nobody asked for it, only what is new is worth a word.
        """
        if self._is_stopping or loaded is None:
            return None
        if is_asked:
            self._warn(loaded)
        is_newly_broken = self._note_broken(loaded, is_asked)
        self._note_left_out(loaded)
        if loaded.problems or loaded.config is None:
            self._refuse(loaded.problems)
            return None
        if self._supply is not None:
            self._supply.follow(loaded)
        if loaded.named == self._named and loaded.config == self._gateway.config():
            if loaded.broken and (is_asked or is_newly_broken):
                self._refuse([problem for file in loaded.broken for problem in file.problems], are_told=True)
                return None
            if not is_asked:
                self.log.info("the configuration has changed, but not what it means")
                if not loaded.broken:
                    self._gateway.found_unchanged()
                return None
        if not is_asked:
            self._warn(loaded)
            self.log.info("the configuration has changed: reloading it")
        reloaded: Deferred[Any] = self._gateway.reload(loaded.config, is_checked=True)
        return reloaded.addCallback(self._reloaded, loaded)

    def _warn(self, loaded: Loaded) -> None:
        for warning in loaded.warnings:
            self.log.warn("{problem}", problem=str(warning))

    def _refuse(self, problems: Sequence[Problem], *, are_told: bool = False) -> None:
        if not are_told:
            for problem in problems:
                self.log.error("{problem}", problem=str(problem))
        self.log.error("reload refused, problems: {count}; the configuration that was running goes on", count=len(problems))
        self._gateway.reload_refused("\n".join(map(str, problems)))

    def _note_broken(self, loaded: Loaded, is_asked: bool = True) -> bool:
        """
        Tell which files are broken, and which no longer are. Returns whether any is that was not, or is in another way.
        """
        before = {file.source: file for file in self._broken}
        self._broken = loaded.broken
        self._gateway.files_broken(loaded.broken)
        news = [file for file in loaded.broken if before.get(file.source) != file]
        for file in loaded.broken if is_asked else news:
            for problem in file.problems:
                self.log.error("{problem}", problem=str(problem))
            kept = "what it said before goes on" if file.is_kept else "it is left out, and the rest runs"
            self.log.error("{file} is broken, problems: {count}; {kept}", file=file.source, count=len(file.problems), kept=kept)
        for source in before.keys() - {file.source for file in loaded.broken}:
            self.log.info("{file} is in order again", file=source)
        return bool(news)

    def _note_left_out(self, loaded: Loaded) -> None:
        for problem in loaded.left_out:
            if problem not in self._left_out:
                self.log.warn("{problem}", problem=str(problem))
        self._left_out = loaded.left_out
        self._gateway.offers_left_out(loaded.left_out)

    def _reloaded(self, result: object, loaded: Loaded) -> None:
        self._named = loaded.named
        self._memory.settle()
        self.log.info("configuration reloaded: {entrypoints}", entrypoints=describe_entrypoints(self._gateway))

    def _reload_failed(self, failure: Failure) -> None:
        if self._is_stopping:
            self.log.info("reload given up, because the gateway stops")
            return
        _log_failure(self.log, "reload refused; the configuration that was running goes on", failure)

    def _reload_ended(self, result: object) -> None:
        self._is_reloading = False
        if self._wants_reload:
            self._wants_reload = False
            self.reload("asked for during the last reload")
        elif self._wants_look:
            self._wants_look = False
            self.look()

    def _shut_down(self) -> None:
        _attempt(self._gateway.shutdown).addCallbacks(self._shut_down_done, self._shut_down_failed)

    def _shut_down_done(self, result: object) -> None:
        self.log.info("gateway stopped")
        self._end(0)

    def _shut_down_failed(self, failure: Failure) -> None:
        _log_failure(self.log, "the gateway did not stop cleanly", failure)
        self._end(1)

    def _end(self, code: int) -> None:
        if self._supply is not None:
            self._supply.stop()
        self._has_ended = True
        self.exit_code = code
        self._ended()


def describe_entrypoints(gateway: Gateway) -> str:
    """
    Return the doors of `gateway` as `web 127.0.0.1:8080 (http), …`, by name, with the ports that the system chose for 0.
    """
    config, ports = gateway.config(), gateway.ports()
    doors = [(name, entrypoint.address, entrypoint.protocol) for name, entrypoint in sorted(config.entrypoints.items())]
    if config.dashboard.enabled and config.dashboard.address is not None:
        doors.append(("dashboard", config.dashboard.address, "http"))
    shown = []
    for name, address, protocol in doors:
        host, _, port = address.rpartition(":")
        shown.append(f"{name} {host}:{ports.get(name, port)} ({protocol})")
    return ", ".join(shown)


def raise_descriptor_limit() -> tuple[int, int]:
    """
    Raise the soft limit of open descriptors to the hard one; return the soft limit before and after.

    Two descriptors serve one proxied request, and the usual soft limit of 1,024 is a default for programs that use `select`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft, soft
    return soft, hard


def _politely(load: Callable[[], Loaded | None]) -> Loaded | None:
    """
    Call `load` in a thread that gives way to the reactor's ten times as soon as threads do by default. A reactor that carries traffic waits
    for its turn after each system call.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 10)
    try:
        return load()
    finally:
        sys.setswitchinterval(usual)


def _attempt(function: Callable[..., Any], *arguments: object) -> Deferred[Any]:
    """
    Call `function`, and give what it returns or raises as a Deferred.
    """
    return maybeDeferred(function, *arguments)


def _log_failure(log: Logger, text: str, failure: Failure) -> None:
    """
    Log an expected error as its sentence, anything else with its traceback.
    """
    error = failure.value
    if isinstance(error, ConfigurationError):
        for problem in error.problems:
            log.error("{problem}", problem=str(problem))
        log.error("{text}; problems: {count}", text=text, count=len(error.problems))
    elif isinstance(error, AssemblyError):
        log.error("{text}: {reason}", text=text, reason=str(error))
    else:
        log.failure("{text}", failure, text=text)
