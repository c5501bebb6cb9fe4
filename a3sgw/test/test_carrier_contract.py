"""
What the deciding side may rely on, whether the carrier is an object beside it or in another process.
"""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from a3sgw.errors import AssemblyError
from a3sgw.interfaces import ICarrier, IControl
from a3sgw.loading import load_string
from a3sgw.observe.snapshot import merge_snapshots
from a3sgw.proxy.test.dialogues import OK, request
from a3sgw.test.test_carrier import describe
from a3sgw.testing import Dialogue, FakeControl, MemoryFrames, MemorySocket
from a3sgw.workers.fleet import Fleet
from a3sgw.workers.link import Link, LinkError
from a3sgw.workers.remote import RemoteCarrier, answer_control
from a3sgw.workers.worker import Worker

CHECKED = 'health_check {\n path = "/"\n}'


@implementer(IControl)
class Relay:
    """
    A deciding side that passes on to another, which may come later.
    """

    other = FakeControl()

    def admin_request(self, head):
        return self.other.admin_request(head)


class CarrierContract:
    """
    One carrier in a dialogue, told what to do through `ICarrier` alone.
    """

    def setUp(self):
        self.relay = Relay()
        self.dialogue = Dialogue(describe(), control=self.relay)
        self.carrier = self.decide(self.dialogue)
        self.client = self.dialogue.connect()

    def decide(self, dialogue):
        """
        Return the carrier of `dialogue` as the deciding side sees it.
        """
        raise NotImplementedError

    def result_of(self, deferred):
        self.dialogue.reactor.settle()
        return self.successResultOf(deferred)

    def config(self, **settings):
        return load_string(describe(**settings), "test.hcl", {}).valid_config()

    def take(self, config):
        self.assertIsNone(self.result_of(self.carrier.prepare(config)))
        self.assertIsNone(self.result_of(self.carrier.commit()))

    def fail_to_prepare(self, config):
        prepared = self.carrier.prepare(config)
        self.dialogue.reactor.settle()
        return str(self.failureResultOf(prepared, AssemblyError).value)

    def ask(self, target="/"):
        self.dialogue.say(self.client, request("GET", target))
        (backend,) = [backend for backend in self.dialogue.backends if self.dialogue.hear(backend)]
        return backend

    def exchange(self, target="/"):
        self.dialogue.say(self.ask(target), OK)
        self.assertTrue(self.dialogue.hear(self.client).endswith(b"ok"))

    def snapshot(self):
        snapshot = self.result_of(self.carrier.snapshot())
        snapshot["series"] = [row for row in snapshot["series"] if row["is_live"]]
        return snapshot

    def test_interface(self):
        """It is a carrier."""
        verifyObject(ICarrier, self.carrier)

    def test_swap(self):
        """What was prepared serves nothing until it is committed, and everything from then on."""
        self.result_of(self.carrier.prepare(self.config(rules=["Path(`/b`)"])))
        self.exchange("/a")
        self.result_of(self.carrier.commit())
        self.dialogue.say(self.client, request("GET", "/a"))
        self.assertIn(b'"reason": "no-route"', self.dialogue.hear(self.client))
        self.exchange("/b")

    def test_failure(self):
        """What cannot be prepared says why, changes nothing, and is not in the way of the next."""
        before = self.snapshot()

        def refuse(name, host, port):
            raise AssemblyError(f"{name} cannot listen on {port}")

        self.dialogue.carrier._bind_socket = refuse
        self.assertEqual(self.fail_to_prepare(self.config(ports=[8080, 9090])), "web9090 cannot listen on 9090")
        self.assertEqual(self.snapshot(), before)
        self.exchange()
        self.take(self.config(servers=[2]))
        self.exchange()

    def test_one_at_a_time(self):
        """Only one can be prepared at a time; one that is abandoned makes room."""
        self.result_of(self.carrier.prepare(self.config()))
        self.assertEqual(self.fail_to_prepare(self.config()), "another configuration is being prepared")
        self.carrier.abandon()
        self.take(self.config(rules=["Path(`/b`)"]))
        self.exchange("/b")

    def test_abandon_nothing(self):
        """Abandoning without having prepared does nothing."""
        self.carrier.abandon()
        self.exchange()

    def test_abandon_while_it_is_prepared(self):
        """What is not wanted any more while it is being prepared comes to nothing, and is not in the way of the next."""
        prepared = self.carrier.prepare(self.config(rules=[f"Path(`/{number}`)" for number in range(400)]))
        self.carrier.abandon()
        self.dialogue.reactor.settle()
        self.failureResultOf(prepared, AssemblyError)
        self.exchange()
        self.take(self.config(rules=["Path(`/b`)"]))
        self.exchange("/b")

    def test_verdicts(self):
        """Verdicts of probes hold at once, and only where there is somebody to judge."""
        text = describe(servers=[1, 2]).replace("load_balancer {", f"load_balancer {{\n {CHECKED}\n").replace("}] }", "}]\n}")
        self.take(load_string(text, "test.hcl", {}).valid_config())
        self.carrier.set_verdict("app", None, "http://192.0.2.1", False, "it is ill")
        self.carrier.set_verdict("gone", None, "http://192.0.2.1", False, "it is ill")
        self.dialogue.reactor.settle()
        states = {row["url"]: (row["state"], row["reason"]) for row in self.snapshot()["gauges"]["backends"]}
        self.assertEqual(states, {"http://192.0.2.1": ("unhealthy", "unhealthy: it is ill"), "http://192.0.2.2": ("usable", "")})
        self.carrier.set_verdict("app", None, "http://192.0.2.1", True, "it is well")
        self.assertEqual([row["up"] for row in self.snapshot()["gauges"]["backends"]], [True, True])

    def test_snapshot(self):
        """Counts can be added up."""
        self.exchange()
        snapshot = self.snapshot()
        both = merge_snapshots([snapshot, snapshot])
        self.assertEqual((snapshot["outcomes"]["completed"], both["outcomes"]["completed"]), (1, 2))

    def test_reopen_logs(self):
        """Log files are opened anew."""
        self.carrier.reopen_logs()
        self.dialogue.reactor.settle()
        self.assertEqual(self.dialogue.sink.reopened, 1)

    def test_drain(self):
        """What is in flight may end, and then everything is closed."""
        backend = self.ask()
        drained = self.carrier.drain(10.0)
        self.dialogue.reactor.settle()
        self.assertNoResult(drained)
        self.assertRaises(AssertionError, self.dialogue.connect)
        self.dialogue.say(backend, OK)
        self.assertEqual(self.result_of(drained), 0)
        self.assertTrue(self.dialogue.hear(self.client).endswith(b"ok"))

    def test_drain_in_vain(self):
        """What does not end in time is broken off and counted."""
        self.ask()
        drained = self.carrier.drain(10.0)
        self.dialogue.reactor.advance(10.5)
        self.assertEqual(self.successResultOf(drained), 1)

    def test_admin(self):
        """Requests to the gateway's own API are answered by the deciding side."""
        text = describe(extra="dashboard {\n enabled = true\n allowed_ips = [\"192.0.2.1\"]\n}")
        self.take(load_string(text, "test.hcl", {}).valid_config())
        self.dialogue.say(self.client, request("GET", "/api/gateway/version"))
        heard = self.dialogue.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 200 "), heard)
        self.assertTrue(heard.endswith(b"\r\n\r\n/api/gateway/version"), heard)


class InProcessTests(CarrierContract, SynchronousTestCase):
    """
    A carrier beside the deciding side.
    """

    def decide(self, dialogue):
        return dialogue.carrier


class LinkedCase(CarrierContract):
    """
    The same carrier at the other end of a link.
    """

    def make_worker(self, dialogue):
        self.ended = []
        self.settled = []

        def make_carrier(terms, control, bind):
            verifyObject(IControl, control)
            self.terms = terms
            # The dialogue has made it already.
            self.relay.other = control
            return dialogue.carrier

        return Worker(
            dialogue.reactor,
            make_carrier,
            lambda: self.settled.append(True),
            lambda: self.ended.append(True),
            lambda descriptor: MemorySocket(descriptor),
        )


class OverALinkTests(LinkedCase, SynchronousTestCase):
    """
    A carrier in another process, but for the process.
    """

    def decide(self, dialogue):
        self.worker = self.make_worker(dialogue)
        self.lost = []
        self.silences = []
        self.totals = []
        self.link = Link({**answer_control(FakeControl()), "totals": self.totals.append}, lambda: self.lost.append(True))
        MemoryFrames.join(dialogue.reactor, self.link, self.worker.link)
        self.link.tell("terms", 0, 2, "00" * 32)
        return RemoteCarrier(self.link, dialogue.reactor, self.silences.append)

    def test_terms(self):
        """The worker knows which one it is, and the key they all sign with."""
        self.dialogue.reactor.settle()
        self.assertEqual((self.terms.slot, self.terms.size, self.terms.sticky_key), (0, 2, bytes(32)))

    def test_other_side_gone(self):
        """Whoever asks a process that is gone is told so, also if it was asked before."""
        self.dialogue.reactor.settle()
        before = self.carrier.snapshot()
        self.worker.link.close()
        self.dialogue.reactor.settle()
        self.failureResultOf(before, LinkError)
        self.failureResultOf(self.carrier.prepare(self.config()), LinkError)
        self.assertIsNone(self.successResultOf(self.carrier.commit()))
        self.assertEqual(self.lost, [True])

    def test_deciding_side_gone(self):
        """A worker whose deciding side is gone lets nobody in, serves what is in flight, and ends."""
        self.take(self.config())
        backend = self.ask()
        self.link.close()
        self.dialogue.reactor.settle()
        self.assertRaises(AssertionError, self.dialogue.connect)
        self.assertEqual(self.ended, [])
        self.dialogue.say(backend, OK)
        self.assertTrue(self.dialogue.hear(self.client).endswith(b"ok"))
        self.assertEqual(self.ended, [True])

    def test_end(self):
        """A worker that has drained ends when the link does."""
        self.take(self.config())
        done = self.carrier.drain(1.0)
        self.dialogue.reactor.advance(1.6)
        self.result_of(done)
        self.assertEqual(self.ended, [])
        self.link.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.ended, [True])

    def test_silence(self):
        """Whoever does not answer is reported."""
        self.dialogue.reactor.settle()
        self.worker.carrier.prepare = lambda config: Deferred()
        prepared = self.carrier.prepare(self.config())
        self.dialogue.reactor.advance(61)
        self.assertIn("longer than 60 seconds to take a configuration", str(self.failureResultOf(prepared, LinkError).value))
        self.assertEqual(self.silences, ["took longer than 60 seconds to take a configuration"])

    def test_commit_fails(self):
        """Whoever cannot run what it had prepared, which cannot be, is reported."""
        self.result_of(self.carrier.prepare(self.config()))

        def stumble():
            raise ZeroDivisionError("bug")

        self.worker.carrier.commit = stumble
        self.assertIsNone(self.result_of(self.carrier.commit()))
        self.assertEqual(self.silences, ["cannot run a configuration that it had prepared: bug"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_sign_of_life(self):
        """A worker with nothing to do is heard of all the same."""
        self.dialogue.reactor.advance(30)
        self.assertGreaterEqual(len(self.totals), 3)

    def test_settled(self):
        """What a configuration has brought is settled each time one runs."""
        self.take(self.config())
        self.take(self.config())
        self.assertEqual(self.settled, [True, True])


class FleetOfOneTests(LinkedCase, SynchronousTestCase):
    """
    A fleet is a carrier too.
    """

    def decide(self, dialogue):
        case = self

        class OneProcess:
            def bear(self, slot, link):
                worker = case.make_worker(dialogue)
                MemoryFrames.join(dialogue.reactor, link, worker.link)

            def end(self, pid):
                raise AssertionError("nobody is to be killed")

            def stop(self):
                pass

        def bind(name, host, port):
            if dialogue.carrier._bind_socket.__name__ == "refuse":
                dialogue.carrier._bind_socket(name, host, port)
            return MemorySocket(1)

        config = load_string(describe(), "test.hcl", {}).valid_config()
        fleet = Fleet(dialogue.reactor, FakeControl(), 1, OneProcess(), bind, bytes(32))
        prepared = fleet.prepare(config)
        dialogue.reactor.settle()
        self.successResultOf(prepared)
        fleet.commit()
        dialogue.reactor.settle()
        return fleet
