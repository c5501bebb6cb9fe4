"""
The gateway under `twistd`: `twistd -n a3s-gateway --config gateway.hcl`.

`twistd` owns the process: its log, its pid file, its user, and the signals TERM and INT, upon which it stops the service, which drains.
HUP and USR1 are ours, as in the `a3s-gateway` command; if `twistd` took USR1 to rotate its own log, that still happens. `twistd` writes
its log to standard output with `-n`, where the access log goes as well, so give one of them a file.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.python.usage import Options as BaseOptions

from a3sgw._version import __version__
from a3sgw.lifetime import Lifetime, raise_descriptor_limit
from a3sgw.settled import SettledMemory

if TYPE_CHECKING:
    from a3sgw.gateway import Gateway
    from a3sgw.supply import Supply

__all__ = ["GatewayService", "Options", "makeService"]


class Options(BaseOptions):
    """
    The options of `twistd a3s-gateway`.
    """

    synopsis = "[options]"
    longdesc = "Runs an API gateway and reverse proxy, configured in HCL. `a3s-gateway validate` checks a configuration."
    optParameters = [
        ["config", "c", None, "The configuration file (default: gateway.hcl)."],
        ["listen", "l", None, "The address of the entrypoint web, whatever the configuration says."],
    ]

    def opt_version(self) -> None:
        """
        Display the version and exit.
        """
        print(f"a3s-gateway {__version__}")
        raise SystemExit(0)


class GatewayService(Service):
    """
    A gateway as a service that ends the process if it cannot start.

    `load`, `run_aside` and `supply` are those of `Lifetime`. `give_up` is called with the exit code when the gateway cannot be started.
    """

    def __init__(
        self,
        gateway: Gateway,
        load: Any,
        run_aside: Any,
        reactor: Any,
        give_up: Callable[[int], object],
        supply: Supply | None = None,
    ) -> None:
        self.lifetime = Lifetime(gateway, load, run_aside, self._ended, supply, memory=SettledMemory(partial(reactor.callLater, 0)))
        self._supply = supply
        self._gateway = gateway
        self._reactor = reactor
        self._give_up = give_up
        self._started: Deferred[None] = succeed(None)

    def startService(self) -> None:
        """
        Take HUP and USR1, and start the gateway.
        """
        super().startService()  # type: ignore[no-untyped-call]
        for number in (signal.SIGHUP, signal.SIGUSR1):
            _chain(number, self._received)
        self._started = self.lifetime.start()

    def stopService(self) -> Deferred[None]:
        """
        Drain the gateway, once its start is over.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        if self._supply is not None:
            self._supply.stop()
        return self._started.addCallback(lambda ignored: self._gateway.shutdown())

    def _received(self, number: int) -> None:
        ask = self.lifetime.reload if number == signal.SIGHUP else self.lifetime.reopen_logs
        self._reactor.callFromThread(ask, signal.Signals(number).name)

    def _ended(self) -> None:
        if self.lifetime.exit_code:
            self._give_up(self.lifetime.exit_code)


def makeService(options: Options) -> GatewayService:
    """
    Return the service for what the command line asks.

    Raises `SystemExit` with what is wrong with the configuration: `twistd` would show a traceback for any other error, and its whole help
    for a usage error.
    """
    # Here, because what they import must not be loaded just to list the plugins.
    from twisted.internet import reactor
    from twisted.internet.threads import deferToThread

    from a3sgw.config.model import ConfigurationError
    from a3sgw.errors import AssemblyError
    from a3sgw.gateway import Gateway
    from a3sgw.source import SourceError, find_source
    from a3sgw.summary import complaints
    from a3sgw.supply import Supply

    try:
        source = find_source(options["config"], options["listen"], os.environ)
    except SourceError as error:
        raise SystemExit(f"a3s-gateway: {error}") from None
    loaded = source.load()
    if loaded.problems or loaded.config is None:
        raise SystemExit(complaints(source.path or "", loaded).rstrip())
    for warning in loaded.warnings:
        Lifetime.log.warn("{problem}", problem=str(warning))
    raise_descriptor_limit()
    try:
        gateway = Gateway(loaded.config, reactor)
    except (AssemblyError, ConfigurationError) as error:
        raise SystemExit(f"a3s-gateway: {error}") from None
    supply = Supply(source, reactor, deferToThread)
    load = None if source.path is None else supply.load
    service = GatewayService(gateway, load, deferToThread, reactor, lambda code: _leave(reactor, code), supply)
    service.lifetime.begin_with(loaded)
    return service


def _chain(number: int, receive: Callable[[int], object]) -> None:
    """
    Call `receive` upon the signal, and then whoever was called before.
    """
    previous = signal.getsignal(number)

    def received(number: int, frame: FrameType | None) -> None:
        receive(number)
        if callable(previous):
            previous(number, frame)

    signal.signal(number, received)


def _leave(reactor: Any, code: int) -> None:
    """
    Stop the reactor and make the process exit with `code`.
    """
    # twistd has no way to be told an exit code, and service supervisors need one. Its pid file is gone and its log closed by then.
    atexit.register(os._exit, code)
    reactor.callWhenRunning(reactor.stop)
