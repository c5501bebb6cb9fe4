"""
Tests of `a3sgw.tap`. That `twistd` finds and runs it is shown in `tests/test_install.py`.
"""

import signal
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from twisted.application.service import IService, IServiceMaker
from twisted.internet.defer import Deferred
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw import tap
from a3sgw._version import __version__
from a3sgw.errors import AssemblyError
from a3sgw.tap import GatewayService, Options, makeService
from a3sgw.test.test_lifetime import FakeReactor, fake_gateway, loaded
from a3sgw.test.test_source import DirectoryCase


class OptionsTests(SynchronousTestCase):
    """
    What may be written behind `twistd a3s-gateway`.
    """

    def test_accepted(self):
        """
        The configuration and the address can be given, and neither must be.
        """
        for line, expected in [("", (None, None)), ("--config a.hcl", ("a.hcl", None)), ("-c a.hcl -l :80", ("a.hcl", ":80"))]:
            options = Options()
            options.parseOptions(line.split())
            self.assertEqual((options["config"], options["listen"]), expected)

    def test_refused(self):
        """
        Anything else is a usage error.
        """
        for line in ("--log-level debug", "gateway.hcl", "--config"):
            self.assertRaises(UsageError, Options().parseOptions, line.split())

    def test_version(self):
        """
        `--version` is the gateway's, not Twisted's.
        """
        out = StringIO()
        with redirect_stdout(out):
            self.assertRaises(SystemExit, Options().parseOptions, ["--version"])
        self.assertEqual(out.getvalue(), f"a3s-gateway {__version__}\n")


class MakeServiceTests(DirectoryCase):
    """
    From the command line to a service.
    """

    def test_missing_file(self):
        """
        A file that is not there ends the program with its name.
        """
        options = Options()
        options.parseOptions(["--config", "nowhere.hcl"])
        self.assertIn("nowhere.hcl", str(self.assertRaises(SystemExit, makeService, options)))

    def test_faulty_file(self):
        """
        A faulty configuration ends the program with every problem and its place.
        """
        self.write('nonsense = 1\nrouters "api" { rule = 5 }\n')
        options = Options()
        options.parseOptions([])
        text = str(self.assertRaises(SystemExit, makeService, options))
        self.assertIn("gateway.hcl:1:1: ", text)
        self.assertIn("gateway.hcl:2:", text)

    def test_plugin(self):
        """
        `twistd` finds the service maker under its name, and it leads here.
        """
        import twisted.plugins

        makers: list[Any] = [maker for maker in getPlugins(IServiceMaker, twisted.plugins) if maker.tapname == "a3s-gateway"]
        self.assertEqual([maker.module for maker in makers], ["a3sgw.tap"])
        self.assertEqual((makers[0].options, makers[0].makeService), (tap.Options, tap.makeService))


class ServiceTests(SynchronousTestCase):
    """
    The service's life.
    """

    def setUp(self):
        for number in (signal.SIGHUP, signal.SIGUSR1):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.gateway = fake_gateway()
        self.reactor = FakeReactor()
        self.given_up: list[int] = []
        self.service = GatewayService(self.gateway, loaded, None, self.reactor, self.given_up.append)

    def test_interface(self):
        """
        It is a service like any other.
        """
        verifyObject(IService, self.service)

    def test_start_and_stop(self):
        """
        The gateway starts with the service; the service has stopped when the gateway has drained.
        """
        self.service.startService()
        self.assertEqual(self.gateway.asked, ["start"])
        # A start that is over would tidy the memory of the whole test run; a failed one does not.
        self.gateway.started.errback(AssemblyError("in use"))
        stopping = self.service.stopService()
        self.assertEqual(self.gateway.asked, ["start", "shutdown"])
        self.assertNoResult(stopping)
        self.gateway.stopped.callback(None)
        self.successResultOf(stopping)

    def test_stop_during_start(self):
        """
        A stop that comes during the start waits for its end, then drains.
        """
        self.service.startService()
        stopping = self.service.stopService()
        self.assertEqual(self.gateway.asked, ["start"])
        self.gateway.started.errback(AssemblyError("in use"))
        self.assertEqual(self.gateway.asked, ["start", "shutdown"])
        self.gateway.stopped.callback(None)
        self.successResultOf(stopping)

    def test_failed_start(self):
        """
        A gateway that cannot start gives the process up with code 1.
        """
        self.service.startService()
        self.assertEqual(self.given_up, [])
        self.gateway.started.errback(AssemblyError("in use"))
        self.assertEqual(self.given_up, [1])

    def test_signals(self):
        """
        HUP reloads and USR1 opens the logs anew, on the reactor's thread, after which whoever had the signal before gets it too.
        """
        before: list[int] = []
        signal.signal(signal.SIGUSR1, lambda number, frame: before.append(number))
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self.service.startService()
        for number in (signal.SIGHUP, signal.SIGUSR1):
            handler: Any = signal.getsignal(number)
            handler(number, None)
        self.assertEqual(self.reactor.calls, [("reload", "SIGHUP"), ("reopen_logs", "SIGUSR1")])
        self.assertEqual(before, [signal.SIGUSR1])


class LeaveTests(SynchronousTestCase):
    """
    The end of a process whose gateway did not start.
    """

    def test_never_started(self):
        """
        A service that was never started stops as well.
        """
        gateway = fake_gateway()
        service = GatewayService(gateway, None, None, FakeReactor(), lambda code: None)
        gateway.stopped.callback(None)
        done: Deferred[None] = service.stopService()
        self.successResultOf(done)
