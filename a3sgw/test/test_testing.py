"""
Tests that verify the fakes: they do what the real things do.
"""

import select
import socket
import struct

from twisted.internet.interfaces import IReactorFDSet, IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IControl
from a3sgw.message import RequestHead
from a3sgw.net.deadline import Deadlines
from a3sgw.net.reactor import GatewayReactor
from a3sgw.net.stream import Stream
from a3sgw.net.test.receivers import Notes
from a3sgw.proxy.test.dialogues import OK, config, request
from a3sgw.testing import Dialogue, FakeControl, MemoryReactor, MemorySocket, balancer_contract, receiver_contract

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def memory_pair():
    """
    Return two ends in memory.
    """
    return MemorySocket.pair(10)


def unix_pair():
    """
    Return two ends of a Unix domain socket pair.
    """
    return socket.socketpair()


def tcp_pair():
    """
    Return two ends of a loopback TCP connection.
    """
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        one = socket.create_connection(listening.getsockname())
        other, _ = listening.accept()
    return one, other


class Ends:
    """
    Two connected ends `a` and `b`, whose steps are written down as outcomes that do not depend on what they are made of.
    """

    def __init__(self, make):
        self.ends = dict(zip("ab", make(), strict=True))
        for end in self.ends.values():
            end.setblocking(False)

    def run(self, script):
        """
        Do the steps of `script`, such as `"a send hello"`; return what came of each.
        """
        try:
            return [self.step(*line.split(" ", 2)) for line in script]
        finally:
            for end in self.ends.values():
                end.close()

    def step(self, name, verb, argument=""):
        end = self.ends[name]
        try:
            return getattr(self, verb)(end, argument)
        except BlockingIOError:
            return "again"
        except OSError:
            return "error"

    def wait(self, end):
        if isinstance(end, socket.socket):
            # Loopback takes a moment; what never comes is not waited for by any script.
            select.select([end], [], [], 5)

    def send(self, end, argument):
        return end.send(argument.encode())

    def sendmsg(self, end, argument):
        return end.sendmsg([piece.encode() for piece in argument.split()])

    def recv(self, end, argument):
        self.wait(end)
        return end.recv(int(argument or 1000)).decode()

    def recv_nothing(self, end, argument):
        return end.recv(1000).decode()

    def peek(self, end, argument):
        self.wait(end)
        return end.recv(1, socket.MSG_PEEK).decode()

    def close(self, end, argument):
        end.close()
        return end.fileno()

    def end(self, end, argument):
        end.shutdown(socket.SHUT_WR)

    def linger(self, end, argument):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

    def fill(self, end, argument):
        """
        Send until no more is taken.
        """
        for _ in range(10000):
            end.send(b"x" * 65536)
        return "never full"

    def send_in_vain(self, end, argument):
        """
        Send, at most twice, until it fails: over TCP the first one is still taken, and answered by a reset.
        """
        end.send(b"x")
        self.wait(end)
        end.send(b"x")

    def read_all(self, end, argument):
        """
        Read until there is nothing for the moment.
        """
        while end.recv(65536):
            pass


# Name of the case: steps and what comes of them, for each kind of pair unless it is listed as different.
SCRIPTS = {
    "data": ["a send hello", "b recv 3", "b recv", "b recv_nothing"],
    "both ways": ["a send ping", "b recv", "b send pong", "a recv"],
    "several pieces": ["a sendmsg one two three", "b recv"],
    "peeking": ["a send x", "b peek", "b peek", "b recv", "b recv_nothing"],
    "orderly end": ["a send bye", "a close", "b recv", "b recv", "b recv"],
    "end is peeked": ["a close", "b peek", "b peek"],
    "half close": ["a send question", "a end", "b recv", "b recv", "b send answer", "a recv", "b close", "a recv"],
    "both halves": ["a end", "b end", "a recv", "b recv"],
    "closed with unread data": ["b send unread", "a send last", "a close", "b recv 2", "b recv", "b recv"],
    "sending after a reset": ["b send unread", "a close", "b send_in_vain"],
    "peeking after a reset": ["b send unread", "a close", "b peek"],
    "sending after the end": ["a close", "b send_in_vain"],
    "reading after sending in vain": ["a send last", "a close", "b send_in_vain", "b recv"],
    "full": ["a fill", "a fill", "b read_all", "a send again", "b recv"],
    "closed twice": ["a close", "a close", "b recv"],
}
# A Unix socket pair knows no reset on demand.
TCP_SCRIPTS = {
    "reset": ["a send last", "a linger", "a close", "b recv", "b recv"],
    "reset is peeked": ["a linger", "a close", "b peek"],
}


class MemorySocketTests(SynchronousTestCase):
    """
    `MemorySocket` does what the kernel's sockets do.
    """

    def test_scripts(self):
        """The same steps lead to the same results in memory, on a socket pair and over TCP."""
        for scripts, kinds in [(SCRIPTS, [unix_pair, tcp_pair]), (TCP_SCRIPTS, [tcp_pair])]:
            for name, script in scripts.items():
                expected = Ends(memory_pair).run(script)
                for kind in kinds:
                    self.assertEqual(Ends(kind).run(script), expected, f"{name} differs from {kind.__name__}")

    def test_results(self):
        """And these are the results where they matter most."""
        for name, results in [
            ("orderly end", [3, -1, "bye", "", ""]),
            ("closed with unread data", [6, 4, -1, "la", "st", "error"]),
            ("full", ["again", "again", "again", 5, "again"]),
            ("sending after the end", [-1, "error"]),
        ]:
            self.assertEqual(Ends(memory_pair).run(SCRIPTS[name]), results, name)

    def test_for_tests(self):
        """What tests ask of an end is true: readable, writable, taken."""
        one, other = memory_pair()
        self.assertEqual((one.is_readable(), one.is_writable()), (False, True))
        other.room = 3
        one.send(b"abcd")
        self.assertEqual((other.is_readable(), one.is_writable()), (True, False))
        self.assertIn("3 bytes arrived", repr(other))
        self.assertEqual(other.take(), b"abc")
        self.assertTrue(one.is_writable())
        other.close()
        self.assertEqual((one.is_readable(), one.has_ended), (True, True))


class Idler:
    """
    A descriptor that never reads what is there.
    """

    def __init__(self, sock):
        self.fileno = sock.fileno

    def doRead(self):
        pass


class ReactorTests(SynchronousTestCase):
    """
    `MemoryReactor` does what `GatewayReactor` does with the same streams.
    """

    def memory(self):
        reactor = MemoryReactor()
        one, other = MemorySocket.pair(10)
        reactor.sockets[10] = one
        return reactor, one, other, reactor.settle

    def real(self):
        reactor = GatewayReactor()
        one, other = socket.socketpair()
        for end in (one, other):
            end.setblocking(False)
            self.addCleanup(end.close)

        def settle():
            for _ in range(5):
                reactor.runUntilCurrent()
                reactor.doIteration(0.01)

        def dispose():
            reactor.removeAll()
            for internal in list(reactor._internalReaders):
                internal.connectionLost(None)
            reactor._poller.close()

        self.addCleanup(dispose)
        return reactor, one, other, settle

    def story(self, make):
        """
        Return what a stream's receiver and its peer hear of a short life.
        """
        reactor, one, other, settle = make()
        clock = Clock()
        stream = Stream(one, reactor, reactor.flushes, Deadlines(clock, clock.seconds))
        heard = []
        notes = stream.receiver = Notes(data=lambda: (stream.write(b"re:"), stream.write(notes.events[-1][1])))
        stream.start()
        other.send(b"one")
        settle()
        heard.append(other.recv(100))
        reactor.callLater(0, stream.write, b"timed")
        settle()
        heard.append(other.recv(100))
        stream.hold(1)
        other.send(b"two")
        settle()
        stream.free(1)
        settle()
        heard.append(other.recv(100))
        other.shutdown(socket.SHUT_WR)
        settle()
        stream.write(b"last")
        stream.close()
        settle()
        heard += [other.recv(100), other.recv(100)]
        return notes.events, heard

    def test_same_story(self):
        """A stream lives the same life on both."""
        events, heard = self.story(self.memory)
        self.assertEqual(heard, [b"re:one", b"timed", b"re:onetwo", b"last", b""])
        self.assertEqual(self.story(self.real), (events, heard))

    def test_interfaces(self):
        """Both are reactors as far as the data path cares."""
        reactor, *_ = self.real()
        for each in (reactor, MemoryReactor()):
            verifyObject(IReactorTime, each)
            for name in ("addReader", "removeReader", "addWriter", "removeWriter"):
                self.assertTrue(callable(getattr(each, name)), name)
        self.assertTrue(IReactorFDSet.providedBy(reactor))

    def test_time(self):
        """Time passes only in `advance`, in steps small enough for the sweep, and what is due happens in `settle`."""
        reactor = MemoryReactor()
        moments = []
        for moment in (0, 0.7, 3):
            reactor.callLater(moment, lambda: moments.append(reactor.seconds()))
        reactor.settle()
        self.assertEqual(moments, [0])
        reactor.advance(2)
        self.assertEqual(moments, [0, 1.0])
        self.assertEqual(reactor.seconds(), 2)
        reactor.callFromThread(moments.append, "thread")
        reactor.settle()
        self.assertEqual(moments, [0, 1.0, "thread"])

    def test_restless(self):
        """A reactor that never comes to rest is reported instead of hanging the test."""
        reactor, one, other, settle = self.memory()
        reactor.addReader(Idler(one))
        other.send(b"never read")
        self.assertRaises(AssertionError, settle)


class DialogueTests(SynchronousTestCase):
    """
    `Dialogue` is a gateway that a test can talk to.
    """

    def test_conversation(self):
        """A client's request reaches a backend the test plays, and the answer comes back."""
        dialogue = Dialogue(config())
        client = dialogue.connect()
        dialogue.say(client, request("GET", "/x"))
        self.assertIn(b"GET /x ", dialogue.hear(dialogue.backend()))
        dialogue.say(dialogue.backend(), OK)
        self.assertTrue(dialogue.hear(client).endswith(b"ok"))
        self.assertEqual(dialogue.outcomes(), ["completed"])
        dialogue.assert_clean(self)

    def test_dials(self):
        """Connection attempts wait for the test's word if it wants that, and know their time limit."""
        dialogue = Dialogue(config(), answers_dials=False)
        client = dialogue.connect()
        dialogue.say(client, request())
        (attempt,) = dialogue.attempts
        self.assertEqual((attempt.addresses, attempt.deadline), ([(socket.AF_INET, ("192.0.2.1", 80))], 5.0))
        attempt.fail(Outcome.DNS_ERROR)
        self.assertIn(b"dns-error", dialogue.hear(client))
        dialogue.say(client, request())
        dialogue.reactor.advance(6)
        self.assertIn(b"connect-timeout", dialogue.hear(client))

    def test_unclean(self):
        """What is still in flight is noticed."""
        dialogue = Dialogue(config())
        dialogue.say(dialogue.connect(), request())
        self.assertRaises(self.failureException, dialogue.assert_clean, self)

    def test_nobody_listens(self):
        """Nobody can connect to a door that is closed."""
        dialogue = Dialogue(config())
        dialogue.door().drain()
        self.assertRaises(AssertionError, dialogue.connect)

    def test_control(self):
        """The fake deciding side is one, and answers with the path."""
        control = FakeControl()
        verifyObject(IControl, control)
        self.assertEqual(control.admin_request(RequestHead(b"GET", b"/x")).body, b"/x")


class Greedy:
    """
    What is no balancer and no receiver.
    """

    def choose(self, candidates, record):
        candidates = list(candidates)
        return object() if len(candidates) < 3 else candidates[0]

    def stream_lost(self, error):
        if error is not None:
            raise error


class ContractTests(SynchronousTestCase):
    """
    The contracts find those who break them.
    """

    def failures(self, contract):
        result = self.defaultTestResult()
        for name in sorted(dir(contract)):
            if name.startswith("test_"):
                contract(name).run(result)
        return sorted(test._testMethodName for test, _ in [*result.failures, *result.errors])

    def test_contracts(self):
        """What chooses strangers, leaves somebody out or provides no interface does not pass; what takes losses badly neither."""
        self.assertEqual(
            self.failures(balancer_contract(lambda backends: Greedy())),
            ["test_everybody_in_the_end", "test_interface", "test_only_candidates"],
        )
        self.assertEqual(self.failures(receiver_contract(Greedy)), ["test_interface", "test_loss_is_final"])
