"""
Tests of workers together: they change as one, and those that end are replaced.
"""

import pickle

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.config.model import MetricsConfig
from a3sgw.errors import AssemblyError
from a3sgw.interfaces import ICarrier, IControl
from a3sgw.loading import load_string
from a3sgw.observe.metrics import Metrics
from a3sgw.observe.test.records import make_gauges
from a3sgw.testing import FakeControl, MemoryFrames, MemoryReactor, MemorySocket
from a3sgw.workers.fleet import Fleet, worker_count
from a3sgw.workers.link import Link, LinkError
from a3sgw.workers.worker import RemoteControl

TEXT = """
workers = {size}
entrypoints "web" {{
  address = "127.0.0.1:8080"
}}
routers "app" {{
  rule    = "PathPrefix(`{path}`)"
  service = "app"
}}
services "app" {{
  load_balancer {{
    servers = [{{ url = "http://192.0.2.1" }}]
  }}
}}
{extra}
"""


def config(path="/", size=2, extra=""):
    return load_string(TEXT.format(path=path, size=size, extra=extra), "test.hcl", {}).valid_config()


def path_of(config):
    return config.routers["app"].rule.split("`")[1]


class ScriptedWorker:
    """
    What a worker says, as a test wants it. `calls` is what it was told; `answers` holds Deferreds that it waits for before it answers.
    """

    def __init__(self, slot, link, reactor):
        self.slot = slot
        self.calls = []
        self.metrics = Metrics(MetricsConfig().buckets)
        self.answers = {}
        self.failure = None
        self.sockets = []
        self.runs = None
        self.prepared = None
        self.is_gone = False
        self.link = Link({name: self.note(name) for name in ("terms", "abandon", "verdict", "reopen", "totals", "letter")}, self.gone)
        self.link._answers.update(sockets=self.take_sockets, prepare=self.prepare, commit=self.commit, snapshot=self.tell, drain=self.drain)
        MemoryFrames.join(reactor, link, self.link)

    def gone(self):
        self.is_gone = True

    def note(self, name):
        return lambda asked: self.calls.append((name, *asked.arguments))

    def take_sockets(self, asked):
        self.sockets = [name for name, _, _ in asked.arguments[0]]

    def prepare(self, asked):
        self.prepared = path_of(pickle.loads(asked.blob))
        self.calls.append(("prepare", self.prepared))
        if self.failure is not None:
            raise self.failure
        return self.answers.get("prepare")

    def commit(self, asked):
        self.runs = self.prepared
        self.calls.append(("commit",))

    def drain(self, asked):
        self.calls.append(("drain", asked.arguments[0]))
        return self.answers.get("drain", 1)

    def tell(self, asked):
        gauges = make_gauges(active_connections=1)
        return self.answers.get("snapshot") or self.metrics.snapshot(gauges)

    def count(self, requests):
        self.metrics._outcomes["completed"] += requests
        self.link.tell("totals", 1, self.metrics.total_requests())

    def die(self):
        self.link.close()


class FleetCase(SynchronousTestCase):
    """
    A fleet of scripted workers.
    """

    def setUp(self):
        self.reactor = MemoryReactor()
        self.reactor.advance(1000)
        self.workers = []
        self.killed = []
        self.says_hello = True
        self.stops = 0
        self.next_failure = None
        self.next_answers = {}
        self.bound = []
        self.fleet = Fleet(self.reactor, FakeControl(), 2, self, self.bind, b"k" * 32)

    # -- processes

    def bear(self, slot, link):
        worker = ScriptedWorker(slot, link, self.reactor)
        if self.says_hello:
            worker.link.tell("hello", 100 + slot)
        worker.failure = self.next_failure
        worker.answers = dict(self.next_answers)
        self.workers.append(worker)

    def end(self, pid):
        self.killed.append(pid)

    def stop(self):
        self.stops += 1

    def bind(self, name, host, port):
        self.bound.append(MemorySocket(port))
        return self.bound[-1]

    # -- what tests do

    def settle(self):
        self.reactor.settle()

    def result_of(self, deferred):
        self.settle()
        return self.successResultOf(deferred)

    def take(self, *arguments, **named):
        self.result_of(self.fleet.prepare(config(*arguments, **named)))
        self.result_of(self.fleet.commit())

    def failure_of(self, deferred):
        self.settle()
        return str(self.failureResultOf(deferred, AssemblyError).value)

    def live(self):
        return [worker for worker in self.workers if not worker.is_gone]

    def runs(self):
        return [worker.runs for worker in self.live()]

    def completed(self):
        return self.result_of(self.fleet.snapshot())["outcomes"]["completed"]


class TogetherTests(FleetCase):
    """
    All or none.
    """

    def test_interfaces(self):
        """A fleet is a carrier; what a worker asks is a deciding side."""
        verifyObject(ICarrier, self.fleet)
        verifyObject(IControl, RemoteControl(Link({}, lambda: None)))

    def test_count(self):
        """A number is that many; `auto` is at least one."""
        self.assertEqual(worker_count(3), 3)
        self.assertGreaterEqual(worker_count("auto"), 1)

    def test_start(self):
        """Every worker is told which one it is, has the sockets, and runs the configuration."""
        self.take("/a")
        self.assertEqual(self.runs(), ["/a", "/a"])
        self.assertEqual([worker.sockets for worker in self.workers], [["web"], ["web"]])
        self.assertEqual([worker.calls[0] for worker in self.workers], [("terms", n, 2, (b"k" * 32).hex()) for n in range(2)])
        self.assertEqual([row["pid"] for row in self.fleet.workers()], [100, 101])

    def test_listening(self):
        """Its listening sockets can be handed over, but not if there are others, which are the workers' own."""
        self.assertEqual(self.fleet.listening(), [])
        self.take()
        self.assertEqual(self.fleet.listening(), self.bound)
        self.fleet.passed_on(self.bound)
        self.assertFalse(self.bound[0].is_closed)
        self.take(extra='entrypoints "dns" {\n address = "127.0.0.1:53"\n protocol = "udp"\n}')
        error = self.assertRaises(AssemblyError, self.fleet.listening)
        self.assertIn('entrypoint "dns" is udp, and the sockets that each of the 2 workers has for it cannot be handed over', str(error))

    def test_start_fails(self):
        """If one cannot start none does, and nothing is left."""
        self.next_failure = AssemblyError("no such file")
        self.assertEqual(self.failure_of(self.fleet.prepare(config())), "no such file")
        self.settle()
        self.assertEqual((self.live(), self.stops), ([], 1))
        self.assertTrue(self.bound[0].is_closed)

    def test_start_of_one_that_dies(self):
        """A worker that ends while it starts says that workers cannot be started."""
        self.next_answers = {"prepare": Deferred()}
        prepared = self.fleet.prepare(config())
        self.settle()
        self.workers[0].die()
        self.settle()
        self.workers[1].answers["prepare"].callback(None)
        self.assertIn("a worker could not be started", self.failure_of(prepared))

    def test_swap_waits_for_all(self):
        """Nobody runs the new configuration before everybody can."""
        self.take("/a")
        self.workers[1].answers["prepare"] = waited = Deferred()
        prepared = self.fleet.prepare(config("/b"))
        self.settle()
        self.assertNoResult(prepared)
        self.assertEqual(self.runs(), ["/a", "/a"])
        waited.callback(None)
        self.result_of(prepared)
        self.result_of(self.fleet.commit())
        self.assertEqual(self.runs(), ["/b", "/b"])

    def test_one_refuses(self):
        """If one refuses, the others drop what they have prepared, and the old configuration runs on."""
        self.take("/a")
        self.workers[1].failure = AssemblyError("disk full")
        self.assertEqual(self.failure_of(self.fleet.prepare(config("/b"))), "disk full")
        self.assertEqual([worker.calls[-1] for worker in self.workers], [("abandon",)] * 2)
        self.workers[1].failure = None
        self.take("/c")
        self.assertEqual(self.runs(), ["/c", "/c"])

    def test_other_number(self):
        """The number of workers cannot change while they run."""
        self.take()
        self.assertIn("cannot change from 2 to 3", self.failure_of(self.fleet.prepare(config(size=3))))
        self.assertEqual(self.runs(), ["/", "/"])

    def test_verdicts(self):
        """Verdicts reach everybody."""
        self.take()
        self.fleet.set_verdict("app", None, "http://a", False, "ill")
        self.settle()
        self.assertEqual([worker.calls[-1] for worker in self.workers], [("verdict", "app", None, "http://a", False, "ill")] * 2)

    def test_letters(self):
        """What one worker's middlewares say reaches those of all others, and not its own."""
        self.take()
        self.workers[0].link.mention("letter", "topic", blob=b"x")
        self.settle()
        self.assertEqual([("letter", "topic") in worker.calls for worker in self.workers], [False, True])

    def test_reopen_logs(self):
        """So does the wish for new log files."""
        self.take()
        self.fleet.reopen_logs()
        self.settle()
        self.assertEqual([worker.calls[-1] for worker in self.workers], [("reopen",)] * 2)

    def test_drain(self):
        """All are drained; what they broke off is added up; then they are let go."""
        self.take()
        self.workers[0].answers["drain"] = waited = Deferred()
        drained = self.fleet.drain(7.0)
        self.settle()
        self.assertTrue(self.bound[0].is_closed)
        self.assertNoResult(drained)
        waited.callback(2)
        self.assertEqual(self.result_of(drained), 3)
        self.assertEqual([worker.calls[-1] for worker in self.workers], [("drain", 7.0)] * 2)
        self.assertEqual((self.live(), self.stops), ([], 1))
        self.reactor.advance(60)
        self.assertEqual(len(self.workers), 2, "nobody is replaced at the end")


class ReplacementTests(FleetCase):
    """
    A worker that ends is followed by another.
    """

    def lose(self, slot=0, after=10):
        self.reactor.advance(after)
        (worker,) = [each for each in self.live() if each.slot == slot]
        worker.die()
        self.settle()
        return self.workers[-1]

    def test_replaced(self):
        """The next one has the sockets, the configuration and the verdicts, at once."""
        self.take("/a")
        self.take("/b")
        self.fleet.set_verdict("app", None, "http://a", False, "ill")
        self.fleet.set_verdict("app", None, "http://b", False, "ill too")
        self.fleet.set_verdict("app", None, "http://b", True, "well")
        successor = self.lose(1)
        self.assertEqual((successor.slot, successor.sockets, successor.runs), (1, ["web"], "/b"))
        self.assertEqual(successor.calls[1:], [("prepare", "/b"), ("commit",), ("verdict", "app", None, "http://a", False, "ill")])
        self.assertEqual([row["state"] for row in self.fleet.workers()], ["serving", "serving"])

    def test_pauses(self):
        """One that ends again and again is begun anew after longer and longer pauses, and the others serve meanwhile."""
        self.take()
        pauses = []
        self.lose(0)
        for _ in range(9):
            born = len(self.workers)
            self.live()[-1].die()
            self.settle()
            waited = 0.0
            while len(self.workers) == born:
                self.reactor.advance(0.05)
                waited += 0.05
            pauses.append(waited)
        for found, expected in zip(pauses, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0], strict=True):
            self.assertLess(abs(found - expected), 0.15)
        self.assertEqual(self.fleet.workers()[1]["state"], "serving")

    def test_while_another_configuration_is_prepared(self):
        """One that comes while others prepare the next configuration serves nothing old after them."""
        self.take("/a")
        self.workers[1].answers["prepare"] = waited = Deferred()
        prepared = self.fleet.prepare(config("/b"))
        self.settle()
        successor = self.lose(0)
        self.assertIsNone(successor.runs)
        waited.callback(None)
        self.result_of(prepared)
        self.result_of(self.fleet.commit())
        self.settle()
        self.assertEqual(self.runs(), ["/b", "/b"])

    def test_death_while_a_configuration_is_prepared(self):
        """If one ends while it prepares, the others are asked once more: it may have had other reasons."""
        self.take("/a")
        self.workers[0].answers["prepare"] = Deferred()
        prepared = self.fleet.prepare(config("/b"))
        self.settle()
        self.lose(0)
        told = [call for call in self.workers[1].calls if call[0] in ("prepare", "abandon")]
        self.assertEqual(told, [("prepare", "/a"), ("prepare", "/b"), ("abandon",), ("prepare", "/b")])
        self.result_of(prepared)
        self.result_of(self.fleet.commit())
        self.settle()
        self.assertEqual(self.runs(), ["/b", "/b"])

    def test_while_another_configuration_fails(self):
        """And if that comes to nothing, it serves what the others do."""
        self.take("/a")
        self.workers[1].answers["prepare"] = waited = Deferred()
        prepared = self.fleet.prepare(config("/b"))
        self.settle()
        successor = self.lose(0)
        self.workers[1].failure = AssemblyError("no")
        waited.errback(AssemblyError("no"))
        self.assertEqual(self.failure_of(prepared), "no")
        self.settle()
        self.assertEqual((successor.runs, self.runs()), ("/a", ["/a", "/a"]))

    def test_deadly_configuration(self):
        """A configuration with which workers end is refused, when others were begun for it that ended too."""
        self.take("/a")
        first, second = self.workers
        first.answers["prepare"] = Deferred()
        second.answers["prepare"] = Deferred()
        prepared = self.fleet.prepare(config("/b"))
        self.settle()
        self.next_answers = {"prepare": Deferred()}
        first.die()
        second.die()
        self.settle()
        self.assertNoResult(prepared)
        self.next_answers = {}
        for worker in self.live():
            worker.die()
        self.assertIn("workers end when they take this configuration", self.failure_of(prepared))
        self.reactor.advance(1)
        self.assertEqual(self.runs(), ["/a", "/a"])

    def test_cure(self):
        """If what runs ends every worker, another configuration is prepared by new ones, and taken over."""
        self.take("/a")
        for worker in self.live():
            worker.die()
        self.settle()
        prepared = self.fleet.prepare(config("/b"))
        self.result_of(prepared)
        self.result_of(self.fleet.commit())
        self.assertEqual((self.runs(), [worker.sockets for worker in self.live()]), (["/b", "/b"], [["web"], ["web"]]))
        self.reactor.advance(30)
        self.assertEqual(len(self.workers), 4, "nobody comes in addition")

    def test_no_cure(self):
        """If they refuse it, the old one is what the next workers take."""
        self.take("/a")
        for worker in self.live():
            worker.die()
        self.settle()
        self.next_failure = AssemblyError("no such file")
        self.assertEqual(self.failure_of(self.fleet.prepare(config("/b"))), "no such file")
        self.next_failure = None
        self.reactor.advance(1)
        self.assertEqual(self.runs(), ["/a", "/a"])

    def test_cannot_take_what_runs(self):
        """One that cannot take what the others run is ended, and tried again later."""
        self.take()
        self.next_failure = AssemblyError("file is gone")
        born = len(self.workers)
        self.lose()
        self.next_failure = None
        self.reactor.advance(1)
        self.assertEqual(len(self.workers), born + 2)
        self.assertEqual(self.runs(), ["/", "/"])

    def test_silent_worker(self):
        """One that does not answer is killed."""
        self.take("/a")
        self.workers[0].answers["prepare"] = Deferred()
        prepared = self.fleet.prepare(config("/b"))
        prepared.addErrback(lambda failure: None)
        self.reactor.advance(61)
        self.assertEqual(self.killed, [100])


    def test_hanging_worker(self):
        """One that says nothing for a minute is killed, whether it is asked anything or not; one that says something is not."""
        self.take()
        for _ in range(80):
            self.reactor.advance(1)
            self.workers[1].link.tell("totals", 0, 0)
        self.assertEqual(set(self.killed), {100})


    def test_unborn_worker(self):
        """One that never came to life, so that there is nobody to kill, is followed by another all the same."""
        self.take()
        self.says_hello = False
        self.lose(0)
        unborn = self.workers[-1]
        unborn.answers["prepare"] = Deferred()
        self.says_hello = True
        self.reactor.advance(75)
        self.assertTrue(unborn.is_gone)
        self.assertEqual([row["state"] for row in self.fleet.workers()], ["serving", "serving"])


class CountTests(FleetCase):
    """
    What is counted is counted for the gateway.
    """

    def test_sum(self):
        """Counts are added up."""
        self.take()
        self.workers[0].count(3)
        self.workers[1].count(4)
        self.assertEqual(self.completed(), 7)
        self.assertEqual(self.fleet.totals(), (2, 7))

    def test_nothing_falls(self):
        """What was ever shown stays counted when a worker ends, and through reloads after that."""
        self.take()
        self.workers[0].count(3)
        self.workers[1].count(4)
        self.completed()
        self.workers[0].die()
        self.settle()
        self.assertEqual((self.completed(), self.fleet.totals()), (7, (1, 7)))
        self.reactor.advance(1)
        self.workers[2].count(1)
        self.take("/b")
        self.assertEqual((self.completed(), self.fleet.totals()), (8, (2, 8)))
        self.workers[2].die()
        self.settle()
        self.assertEqual(self.completed(), 8)

    def test_one_that_does_not_answer(self):
        """A worker that is busy is shown as it was last seen."""
        self.take()
        self.workers[0].count(3)
        self.completed()
        self.workers[0].count(5)
        self.workers[0].answers["snapshot"] = Deferred()
        found = self.fleet.snapshot()
        self.reactor.advance(6)
        self.assertEqual(self.successResultOf(found)["outcomes"]["completed"], 3)

    def test_different_buckets(self):
        """While a change of buckets is on its way the workers are asked again."""
        self.take()
        self.workers[0].metrics.rebucket([2.0])
        found = self.fleet.snapshot()
        self.settle()
        self.assertNoResult(found)
        self.workers[1].metrics.rebucket([2.0])
        self.reactor.advance(0.1)
        self.assertEqual(self.successResultOf(found)["buckets"], [2.0])

    def test_nobody_left(self):
        """If there is nobody to ask, that is said."""
        self.take()
        for worker in self.workers:
            worker.die()
        self.settle()
        self.failureResultOf(self.fleet.snapshot(), LinkError)
