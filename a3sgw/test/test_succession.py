"""
Tests of how a new process takes the place of an old one.
"""

import socket

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from a3sgw.errors import AssemblyError
from a3sgw.lifetime import Lifetime
from a3sgw.listen.inherited import Inherited
from a3sgw.loading import load_string
from a3sgw.succession import Successor, refuse_udp_among_workers
from a3sgw.test.test_lifetime import LifetimeCase
from a3sgw.testing import MemoryReactor


class HandOverTests(LifetimeCase):
    """
    When the old process lets go.
    """

    def setUp(self):
        super().setUp()
        self.given = []
        self.serves = Deferred()

        def succeed(sockets):
            self.given.append(sockets)
            return self.serves

        self.lifetime = Lifetime(self.gateway, lambda: None, self.run_aside, lambda: self.ends.append(0), None, succeed)
        self.lifetime.start()
        self.gateway.started.callback(None)
        self.gateway.asked.clear()

    def test_serves(self):
        """Only when the new process serves are its sockets left to it, and then this one drains."""
        self.lifetime.hand_over("USR2")
        self.assertEqual((self.given, self.gateway.asked), ([["a socket"]], []))
        self.serves.callback(77)
        self.assertEqual(self.gateway.asked, ["passed on ['a socket']", "shutdown"])
        self.gateway.stopped.callback(None)
        self.assertEqual(self.ends, [0])

    def test_does_not_serve(self):
        """If it never serves nothing has changed, and it may be tried again."""
        for _ in range(2):
            self.serves = Deferred()
            self.lifetime.hand_over("USR2")
            self.serves.errback(AssemblyError("it ended before it served"))
        self.assertEqual((len(self.given), self.gateway.asked), (2, []))

    def test_cannot_be_handed_over(self):
        """What cannot be handed over is said, and nothing is begun."""

        def listening():
            raise AssemblyError("they are the workers'")

        self.gateway.listening = listening
        self.lifetime.hand_over("USR2")
        self.assertEqual((self.given, self.gateway.asked), ([], []))
        reason = next(event["reason"] for event in self.events if "no successor" in event.get("text", ""))
        self.assertEqual(reason, "they are the workers'")


class FakeTransport:
    """
    A process that was started.
    """

    pid = 77

    def __init__(self):
        self.signals = []

    def signalProcess(self, name):
        self.signals.append(name)


class SuccessorTests(LifetimeCase):
    """
    What the new process is given, and how long it may take.
    """

    def setUp(self):
        super().setUp()
        self.reactor = MemoryReactor()
        self.transport = FakeTransport()
        self.successor = Successor(self.reactor, self.spawn)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.sock.close)
        self.successor.start(["python", "-m", "a3sgw.cli"], [self.sock], {"PATH": "/bin"})

    def spawn(self, protocol, program, argv, **named):
        self.spawned = (program, argv, named)
        return self.transport

    def test_given(self):
        """It has the sockets as descriptors that the environment tells it, after the one to report to."""
        program, argv, named = self.spawned
        self.assertEqual((program, argv), ("python", ["python", "-m", "a3sgw.cli"]))
        self.assertEqual(named["childFDs"], {0: 0, 1: 1, 2: 2, 3: "r", 4: self.sock.fileno()})
        self.assertEqual(named["env"], {"PATH": "/bin", "A3S_HANDOVER": "3,4"})

    def test_serves(self):
        """When it reports its number is known, and that it ends some day is no matter."""
        self.successor.childDataReceived(3, b"ready\n")
        self.successor.processEnded(Failure(ValueError("gone")))
        self.assertEqual(self.successResultOf(self.successor.serves), 77)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_ends(self):
        """If it ends first there is none, and no reason to wait."""
        self.successor.processEnded(Failure(ValueError("exit code 1")))
        failure = self.failureResultOf(self.successor.serves, AssemblyError)
        self.assertEqual(str(failure.value), "it ended before it served: exit code 1")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_late(self):
        """If it does not report in time it is killed."""
        self.reactor.advance(61)
        failure = self.failureResultOf(self.successor.serves, AssemblyError)
        self.assertEqual((str(failure.value), self.transport.signals), ("it did not serve within 60 s", ["KILL"]))
        self.successor.processEnded(Failure(ValueError("killed")))


class WorkersTests(LifetimeCase):
    """
    UDP sockets among several workers.
    """

    def test_refused(self):
        """A UDP socket that was handed over is for one process only."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(sock.close)
        sock.bind(("127.0.0.1", 0))
        inherited = Inherited([("", sock)])
        web = 'entrypoints "web" {\n address = ":8080"\n}\n'
        text = web + 'entrypoints "dns" {\n address = ":53"\n protocol = "udp"\n}\n'
        one, two = (load_string(f"workers = {count}\n{text}", "t", {}).valid_config() for count in (1, 2))
        refuse_udp_among_workers(inherited, one)
        # Nobody wants it there, which is told later.
        refuse_udp_among_workers(inherited, load_string(f"workers = 2\n{web}", "t", {}).valid_config())
        refuse_udp_among_workers(Inherited(), two)
        error = self.assertRaises(AssemblyError, refuse_udp_among_workers, inherited, two)
        self.assertIn(f"the UDP socket at 127.0.0.1:{sock.getsockname()[1]}/udp was handed over", str(error))
