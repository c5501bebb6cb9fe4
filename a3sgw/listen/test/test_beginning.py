"""
Tests of how connections begin.
"""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IBeginning, IConnection, IReceiver
from a3sgw.listen.beginning import Http1Beginning
from a3sgw.listen.test.test_door import REQUEST, DoorCase, Gate


@implementer(IConnection, IReceiver)
class Password:
    """
    Waits for a line before anything else, as a step does.
    """

    def __init__(self, door, stream, caller, following):
        self.door, self.stream, self.caller, self.following = door, stream, caller, following
        self.buffer = b""

    def data_received(self, data):
        line, end, rest = (self.buffer + data).partition(b"\n")
        if not end:
            self.buffer = line
        elif line == b"mellon":
            self.door.hand_over(self, self.following, self.stream, self.caller, rest)
        else:
            self.stream.close()

    def eof_received(self):
        self.stream.close()

    def stream_lost(self, error):
        self.door.connection_ended(self)

    def stream_congested(self):
        pass

    def stream_drained(self):
        pass

    def deadline_passed(self):
        self.stream.close()

    def exchange_count(self):
        return 0

    def drain(self):
        pass

    def stop(self):
        self.stream.close()


@implementer(IBeginning)
class PasswordBeginning:
    """
    The step that makes these.
    """

    def begin(self, door, stream, caller):
        stream.receiver = connection = Password(door, stream, caller, Http1Beginning())
        stream.deadline = stream.now() + 10
        return connection

    def goodbye(self, outcome):
        return b"no\n"


class InterfaceTests(SynchronousTestCase):
    """
    The seams.
    """

    def test_http1(self):
        """HTTP/1 is a step, and has an answer for whoever is turned away."""
        beginning = Http1Beginning()
        verifyObject(IBeginning, beginning)
        self.assertIn(b'"reason": "address-refused"', beginning.goodbye(Outcome.ADDRESS_REFUSED))
        self.assertEqual(beginning.goodbye(Outcome.COMPLETED), b"")

    def test_fakes(self):
        """The fakes are what they stand for."""
        verifyObject(IBeginning, PasswordBeginning())
        verifyObject(IConnection, Password(None, None, None, None))
        verifyObject(IReceiver, Password(None, None, None, None))


class HandOverTests(DoorCase):
    """
    A connection with a step before HTTP.
    """

    def begin(self, **gates):
        door = self.make(**gates)
        door.beginning = PasswordBeginning()
        return door

    def test_handed_over(self):
        """What follows the step is served, whether it came together or later, and the connection counts as one all the time."""
        for pieces in ([b"mellon\n" + REQUEST], [b"mel", b"lon\n", REQUEST], [b"mellon\nGET / HTT", REQUEST[9:]]):
            door = self.begin()
            client = self.connect()
            for piece in pieces:
                self.assertEqual(len(door.connections), 1)
                client.send(piece)
                self.reactor.settle()
            self.assertTrue(client.take().startswith(b"HTTP/1.1 404 "))
            (connection,) = door.connections
            verifyObject(IConnection, connection)
            self.assertIn("<Http1Server 192.0.2.1 ", repr(connection))
            client.close()
            self.reactor.settle()
            self.assertEqual(door.connections, set())

    def test_refused(self):
        """A connection that does not get past the step is gone like any other."""
        gate = Gate()
        door = self.begin(hooks=(gate,))
        client = self.connect()
        client.send(b"friend\n")
        self.reactor.settle()
        self.assertTrue(client.has_ended)
        self.assertEqual((door.connections, gate.inside), (set(), []))

    def test_gates(self):
        """A middleware that let the connection in hears of its end, once, though it is another object by then."""
        gate = Gate()
        door = self.begin(hooks=(gate,), max_connections=1)
        client = self.connect()
        client.send(b"mellon\n" + REQUEST)
        self.reactor.settle()
        self.assertEqual(len(gate.inside), 1)
        self.assertEqual(self.connect().take(), b"no\n")
        client.close()
        self.reactor.settle()
        self.assertEqual((gate.inside, door.connections), ([], set()))

    def test_ended_while_handed_over(self):
        """A connection that ends with the bytes handed over is forgotten."""
        gate = Gate()
        door = self.begin(hooks=(gate,))
        client = self.connect()
        client.send(b"mellon\n" + b"\0\r\n\r\n")
        self.reactor.settle()
        self.assertTrue(client.take().startswith(b"HTTP/1.1 400 "))
        client.close()
        self.reactor.settle()
        self.assertEqual((door.connections, gate.inside), (set(), []))

    def test_stopped(self):
        """Who has not got past the step when the time is over is broken off, and no exchange is counted for it."""
        door = self.begin()
        client = self.connect()
        self.assertEqual(door.abort(), 0)
        self.reactor.settle()
        self.assertTrue(client.has_ended)
        self.assertEqual(door.connections, set())

    def test_drained(self):
        """Who gets past the step when the door is closed already has a moment for a request, which is answered, or is let go."""
        for request in (REQUEST, b""):
            door = self.begin()
            client = self.connect()
            door.drain()
            client.send(b"mellon\n")
            self.reactor.settle()
            self.assertFalse(client.has_ended)
            if request:
                client.send(request)
            self.reactor.settle()
            self.reactor.advance(door.GRACE_SECONDS + 1)
            self.reactor.settle()
            self.assertEqual(client.take()[:12], b"HTTP/1.1 404" if request else b"")
            self.assertTrue(client.has_ended)
