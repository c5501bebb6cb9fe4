"""
Tests of `a3sgw.lifetime`.
"""

import gc
import resource
import signal
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.decode import Positions
from a3sgw.config.load import BrokenFile, Loaded
from a3sgw.config.model import ConfigurationError, EntrypointConfig, FrozenMap, GatewayConfig
from a3sgw.config.tree import Position, Problem
from a3sgw.errors import AssemblyError
from a3sgw.lifetime import Lifetime, Signals, raise_descriptor_limit

CONFIG = GatewayConfig(entrypoints=FrozenMap({"web": EntrypointConfig(name="web", address="127.0.0.1:0")}))
PROBLEM = Problem(Position("gateway.hcl", 3, 5), "routers.api.service", 'router "api" names service "bakend"')


def loaded(config=CONFIG, problems=(), warnings=()):
    """
    Return what loading a file may give.
    """
    return Loaded(config, problems, warnings, Positions())


class FakeGateway:
    """
    A gateway that notes what it is asked for, and whose answers a test fires by hand.
    """

    def __init__(self):
        self.asked: list[str] = []
        self.started: Deferred[None] = Deferred()
        self.reloaded: Deferred[None] = Deferred()
        self.stopped: Deferred[None] = Deferred()

    def start(self):
        self.asked.append("start")
        return self.started

    def reload(self, config, *, is_checked=False):
        self.asked.append("reload")
        self.reloaded = Deferred()
        return self.reloaded

    def reload_refused(self, reason):
        self.asked.append(f"refused {reason}")

    def found_unchanged(self):
        self.asked.append("unchanged")

    def offers_left_out(self, left_out):
        if left_out:
            self.asked.append(f"left out {len(left_out)}")

    def show_providers(self, rows):
        self.rows = rows

    def files_broken(self, broken):
        if broken:
            self.asked.append(f"broken {[file.source for file in broken]}")

    def shutdown(self):
        self.asked.append("shutdown")
        return self.stopped

    def reopen_logs(self):
        self.asked.append("reopen_logs")

    def listening(self):
        return ["a socket"]

    def passed_on(self, sockets):
        self.asked.append(f"passed on {sockets}")

    def config(self):
        return CONFIG

    def ports(self):
        return {"web": 8080}


def fake_gateway() -> Any:
    """
    Return a `FakeGateway` that passes for a `Gateway`.
    """
    return FakeGateway()


class LifetimeCase(SynchronousTestCase):
    """
    A lifetime around a fake gateway, and the events it logs.
    """

    def setUp(self):
        gc_state = gc.get_threshold()
        self.addCleanup(gc.set_threshold, *gc_state)
        self.addCleanup(gc.unfreeze)
        self.gateway = fake_gateway()
        self.loads: list[Deferred[Any]] = []
        self.ends: list[int] = []
        self.lifetime = Lifetime(self.gateway, lambda: loaded(), self.run_aside, lambda: self.ends.append(self.lifetime.exit_code))
        self.events: list[Any] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def run_aside(self, load):
        """
        Keep what is to run aside until the test fires it.
        """
        loading: Deferred[Any] = Deferred()
        self.loads.append(loading)
        return loading

    def logged(self, level):
        """
        Return the texts of the events of `level`.
        """
        ours = [event for event in self.events if event["log_namespace"].startswith("a3sgw.")]
        return [event["log_format"].format(**event) for event in ours if event["log_level"] == level]

    def start(self):
        """
        Bring the gateway to run.
        """
        self.lifetime.start()
        self.gateway.started.callback(None)
        self.gateway.asked.clear()


class StartTests(LifetimeCase):
    """
    The start.
    """

    def test_started(self):
        """
        The line that says the gateway runs names its entrypoints, and comes when they are open, not before.
        """
        self.lifetime.start()
        self.assertEqual(self.logged(LogLevel.info), [])
        self.gateway.started.callback(None)
        self.assertEqual(self.logged(LogLevel.info), ["gateway running: web 127.0.0.1:8080 (http)"])
        self.assertEqual(self.ends, [])

    def test_expected_failure(self):
        """
        A start that fails for a known reason is logged as that sentence, without a traceback, and ends with code 1.
        """
        self.lifetime.start()
        self.gateway.started.errback(AssemblyError("entrypoint web: 127.0.0.1:8080 is in use"))
        self.assertEqual(self.logged(LogLevel.error), ["the gateway could not be started: entrypoint web: 127.0.0.1:8080 is in use"])
        self.assertEqual(self.ends, [1])

    def test_configuration_failure(self):
        """
        A configuration that turns out faulty only at the start is logged problem by problem.
        """
        self.lifetime.start()
        self.gateway.started.errback(ConfigurationError([PROBLEM]))
        self.assertEqual(self.logged(LogLevel.error), [str(PROBLEM), "the gateway could not be started; problems: 1"])
        self.assertEqual(self.ends, [1])

    def test_bug(self):
        """
        A start that fails for an unknown reason is logged with its traceback and ends with code 1.
        """
        self.gateway.start = lambda: 1 / 0
        self.lifetime.start()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.ends, [1])


class StopTests(LifetimeCase):
    """
    The stop.
    """

    def test_drains(self):
        """
        A stop ends with code 0, once the gateway has drained.
        """
        self.start()
        self.lifetime.stop("SIGTERM")
        self.assertEqual((self.gateway.asked, self.ends), (["shutdown"], []))
        self.gateway.stopped.callback(None)
        self.assertEqual(self.ends, [0])

    def test_asked_twice(self):
        """
        To ask again changes nothing, neither while it drains nor afterwards.
        """
        self.start()
        self.lifetime.stop("SIGTERM")
        self.lifetime.stop("SIGTERM")
        self.gateway.stopped.callback(None)
        self.lifetime.stop("SIGTERM")
        self.assertEqual((self.gateway.asked, self.ends), (["shutdown"], [0]))

    def test_during_start(self):
        """
        A stop asked for during the start drains as soon as the start is over.
        """
        self.lifetime.start()
        self.lifetime.stop("SIGINT")
        self.assertEqual(self.gateway.asked, ["start"])
        self.gateway.started.callback(None)
        self.assertEqual(self.gateway.asked, ["start", "shutdown"])

    def test_during_start_that_fails(self):
        """
        A start that fails after a stop was asked for ends once, with code 1.
        """
        self.lifetime.start()
        self.lifetime.stop("SIGINT")
        self.gateway.started.errback(AssemblyError("in use"))
        self.assertEqual((self.gateway.asked, self.ends), (["start"], [1]))

    def test_failure(self):
        """
        A gateway that cannot stop in order ends with code 1.
        """
        self.start()
        self.lifetime.stop("SIGTERM")
        self.gateway.stopped.errback(ValueError("stuck"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.ends, [1])


class ReloadTests(LifetimeCase):
    """
    The reload.
    """

    def test_reload(self):
        """
        A reload opens the logs anew, reads the configuration aside and hands it to the gateway.
        """
        self.start()
        self.lifetime.reload("SIGHUP")
        self.assertEqual(self.gateway.asked, ["reopen_logs"])
        self.loads[0].callback(loaded())
        self.assertEqual(self.gateway.asked, ["reopen_logs", "reload"])
        self.gateway.reloaded.callback(None)
        self.assertEqual(self.logged(LogLevel.info)[-1], "configuration reloaded: web 127.0.0.1:8080 (http)")

    def test_problems(self):
        """
        A faulty configuration is logged problem by problem; the gateway only hears that there was one.
        """
        self.start()
        self.lifetime.reload("SIGHUP")
        self.loads[0].callback(loaded(problems=(PROBLEM, PROBLEM)))
        self.assertEqual(self.gateway.asked, ["reopen_logs", f"refused {PROBLEM}\n{PROBLEM}"])
        refused = "reload refused, problems: 2; the configuration that was running goes on"
        self.assertEqual(self.logged(LogLevel.error), [str(PROBLEM), str(PROBLEM), refused])

    def test_mended(self):
        """
        Files that say again what runs, after they did not, are no reload; the gateway hears that nothing is wrong any more, once it is so.
        """
        self.start()
        broken = BrokenFile("b.hcl", (PROBLEM,), False)
        for number, (found, told) in enumerate([((broken,), ["broken ['b.hcl']", f"refused {PROBLEM}"]), ((), ["unchanged"])]):
            self.lifetime.look()
            self.loads[number].callback(evolve(loaded(), broken=found))
            self.assertEqual(self.gateway.asked, told)
            self.gateway.asked.clear()

    def test_still_broken(self):
        """
        As long as one file is broken, what was refused is not forgotten, whatever remark is changed in another.
        """
        self.start()
        for _ in range(2):
            self.lifetime.look()
            self.loads[-1].callback(evolve(loaded(), broken=(BrokenFile("b.hcl", (PROBLEM,), False),)))
        self.assertNotIn("unchanged", self.gateway.asked)

    def test_warnings(self):
        """
        Warnings are logged and keep nothing from being reloaded.
        """
        self.start()
        self.lifetime.reload("SIGHUP")
        self.loads[0].callback(loaded(warnings=(PROBLEM,)))
        self.assertEqual(self.logged(LogLevel.warn), [str(PROBLEM)])
        self.assertIn("reload", self.gateway.asked)

    def test_refused_by_the_gateway(self):
        """
        A configuration that the gateway refuses is logged with its reason, and the next one can be reloaded.
        """
        self.start()
        self.lifetime.reload("SIGHUP")
        self.loads[0].callback(loaded())
        self.gateway.reloaded.errback(AssemblyError("entrypoint web: 127.0.0.1:8080 is in use"))
        self.assertEqual(
            self.logged(LogLevel.error),
            ["reload refused; the configuration that was running goes on: entrypoint web: 127.0.0.1:8080 is in use"],
        )
        self.lifetime.reload("SIGHUP")
        self.loads[1].callback(loaded())
        self.assertEqual(self.gateway.asked.count("reload"), 2)
        self.assertEqual(self.ends, [])

    def test_bug(self):
        """
        A load that raises costs the reload, not the gateway.
        """
        self.start()
        self.lifetime.reload("SIGHUP")
        self.loads[0].errback(KeyError("x"))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.lifetime.reload("SIGHUP")
        self.assertEqual((len(self.loads), self.ends), (2, []))

    def test_many_at_once(self):
        """
        However often a reload is asked for while one is under way, one more follows.
        """
        self.start()
        for _ in range(4):
            self.lifetime.reload("SIGHUP")
        self.assertEqual(len(self.loads), 1)
        self.loads[0].callback(loaded())
        self.gateway.reloaded.callback(None)
        self.assertEqual(len(self.loads), 2)
        self.loads[1].callback(loaded())
        self.gateway.reloaded.callback(None)
        self.assertEqual(len(self.loads), 2)

    def test_during_start(self):
        """
        A reload asked for during the start follows it.
        """
        self.lifetime.start()
        self.lifetime.reload("SIGHUP")
        self.assertEqual(self.loads, [])
        self.gateway.started.callback(None)
        self.assertEqual(len(self.loads), 1)

    def test_overtaken_by_a_stop(self):
        """
        A reload that the gateway gives up because it stops is no error.
        """
        self.start()
        self.lifetime.reload("SIGHUP")
        self.loads[0].callback(loaded())
        self.lifetime.stop("SIGTERM")
        self.gateway.reloaded.errback(RuntimeError("the gateway is stopping"))
        self.gateway.stopped.callback(None)
        self.assertEqual((self.logged(LogLevel.error), self.ends), ([], [0]))

    def test_while_stopping(self):
        """
        A gateway that stops takes no new configuration, not even one that was already being read.
        """
        self.start()
        self.lifetime.reload("SIGHUP")
        self.lifetime.stop("SIGTERM")
        self.loads[0].callback(loaded())
        self.lifetime.reload("SIGHUP")
        self.assertNotIn("reload", self.gateway.asked)
        self.assertEqual(len(self.loads), 1)

    def test_nothing_to_reload(self):
        """
        Without a configuration file a reload says so and opens the logs anew.
        """
        self.lifetime = Lifetime(self.gateway, None, self.run_aside, lambda: None)
        self.start()
        self.lifetime.reload("SIGHUP")
        self.assertEqual(self.gateway.asked, ["reopen_logs"])
        self.assertIn("there is none to reload", self.logged(LogLevel.warn)[0])

    def test_log_file_vanished(self):
        """
        A log that cannot be opened anew is reported, and the reload goes on.
        """
        self.gateway.reopen_logs = lambda: 1 / 0
        self.start()
        self.lifetime.reload("SIGHUP")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.loads), 1)


class FakeReactor:
    """
    What `Signals` and whoever puts something off need of a reactor.
    """

    def __init__(self):
        self.calls: list[Any] = []
        self.put_off: list[Any] = []

    def callLater(self, seconds, function, *arguments):
        self.put_off.append(partial(function, *arguments))

    def callFromThread(self, function, *arguments):
        self.calls.append((function.__name__, *arguments))


class SignalsTests(SynchronousTestCase):
    """
    From signals to the gateway.
    """

    def setUp(self):
        self.exits: list[int] = []
        self.reactor = FakeReactor()
        self.signals = Signals(self.exits.append)
        gateway = fake_gateway()
        self.lifetime = Lifetime(gateway, None, lambda load: succeed(load()), lambda: None)

    def test_each_signal(self):
        """
        Each signal is passed to the reactor's thread with its name.
        """
        self.signals.attach(self.lifetime, self.reactor)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
            self.signals.received(number)
        self.assertEqual(self.reactor.calls, [("reload", "SIGHUP"), ("reopen_logs", "SIGUSR1"), ("stop", "SIGTERM")])
        self.assertEqual(self.exits, [])

    def test_second_stop(self):
        """
        The second TERM or INT exits at once with 128 and its number, without asking the reactor.
        """
        term, interrupt = signal.SIGTERM, signal.SIGINT
        for first, second, code in [(term, term, 143), (term, interrupt, 130), (interrupt, interrupt, 130), (interrupt, term, 143)]:
            self.setUp()
            self.signals.attach(self.lifetime, self.reactor)
            self.signals.received(first)
            self.signals.received(second)
            self.assertEqual((self.exits, len(self.reactor.calls)), ([code], 1))

    def test_stop_before_the_gateway(self):
        """
        TERM or INT before there is a gateway exits with 0.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self.setUp()
            self.signals.received(number)
            self.assertEqual(self.exits, [0])

    def test_reload_before_the_gateway(self):
        """
        HUP before there is a gateway does not end the process but is passed on when there is one.
        """
        self.signals.received(signal.SIGHUP)
        self.assertEqual(self.exits, [])
        self.signals.attach(self.lifetime, self.reactor)
        self.assertEqual(self.reactor.calls, [("reload", "SIGHUP")])

    def test_install(self):
        """
        All four signals are taken over.
        """
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
        for number in numbers:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.signals.install()
        self.assertEqual([signal.getsignal(number) for number in numbers], [self.signals.received] * 4)


class ProcessTests(SynchronousTestCase):
    """
    What is set once for the whole process.
    """

    def test_descriptors(self):
        """
        The limit of open descriptors is as high as the system allows.
        """
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        soft = max(256, before[0] // 2)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
        self.assertEqual(raise_descriptor_limit(), (soft, before[1]))
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE)[0], before[1])


class AttemptTests(SynchronousTestCase):
    """
    The parts fit Deferreds that have already fired.
    """

    def test_all_at_once(self):
        """
        A gateway that answers everything immediately starts, reloads and stops.
        """
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)
        gateway = fake_gateway()
        gateway.started.callback(None)
        gateway.stopped.callback(None)
        gateway.reload = lambda config, is_checked: fail(AssemblyError("no"))
        ends: list[str] = []
        lifetime = Lifetime(gateway, loaded, lambda load: succeed(load()), lambda: ends.append("end"))
        self.successResultOf(lifetime.start())
        lifetime.reload("SIGHUP")
        lifetime.reload("SIGHUP")
        lifetime.stop("SIGTERM")
        self.assertEqual((gateway.asked, ends), (["start", "reopen_logs", "reopen_logs", "shutdown"], ["end"]))
