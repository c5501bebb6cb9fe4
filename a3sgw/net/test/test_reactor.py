"""
Tests of the reactor and the flush queue.
"""

import os
import socket

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from a3sgw.net.connect import Connecting
from a3sgw.net.reactor import FlushQueue, flush_queue
from a3sgw.net.stream import Stream
from a3sgw.net.test.loops import LoopCase
from a3sgw.net.test.receivers import Notes
from a3sgw.testing import MemoryReactor


@implementer(IReadWriteDescriptor)
class Descriptor:
    """
    A descriptor that tells `story` what the reactor does with it; `on_read` is what it does about that.
    """

    def __init__(self, name, sock, story, on_read=lambda: None):
        self.name = name
        self.sock = sock
        self.story = story
        self.on_read = on_read
        self.reason = None

    def doRead(self):
        self.story.append(f"{self.name} read")
        self.sock.recv(1000)
        return self.on_read()

    def doWrite(self):
        self.story.append(f"{self.name} write")

    def connectionLost(self, reason):
        self.story.append(f"{self.name} lost")
        self.reason = reason

    def fileno(self):
        return self.sock.fileno()

    def logPrefix(self):
        return self.name


class Flushable:
    """
    Something that tells `story` when it is flushed, and does `then`.
    """

    def __init__(self, name, story, then=lambda: None):
        self.name = name
        self.story = story
        self.then = then

    def flush(self):
        self.story.append(f"{self.name} flushed")
        self.then()


def fail():
    """
    Fail as only a bug does.
    """
    raise ZeroDivisionError("a bug")


class FlushQueueTests(SynchronousTestCase):
    """
    `FlushQueue` flushes what was written to, once.
    """

    def setUp(self):
        self.queue = FlushQueue()
        self.story = []

    def add(self, name, then=lambda: None):
        self.queue.append(Flushable(name, self.story, then))

    def test_order(self):
        """Streams are flushed in the order in which they were written to, and then forgotten."""
        self.add("one")
        self.add("two")
        self.queue.run()
        self.queue.run()
        self.assertEqual(self.story, ["one flushed", "two flushed"])

    def test_more_while_flushing(self):
        """What is written while others are flushed is flushed in the same run."""
        self.add("one", lambda: self.add("three", lambda: self.add("four")))
        self.add("two")
        self.queue.run()
        self.assertEqual(self.story, ["one flushed", "two flushed", "three flushed", "four flushed"])
        self.assertEqual(self.queue, [])

    def test_nested_run(self):
        """A run within a run flushes what is left, nothing twice for all that matters, and nothing is lost."""
        self.add("one", self.queue.run)
        self.add("two")
        self.queue[0].then = lambda: (self.queue.pop(0), self.queue.run())
        self.queue.run()
        self.assertEqual(set(self.story), {"one flushed", "two flushed"})
        self.assertEqual(self.queue, [])

    def test_bug(self):
        """One that fails is reported, and its neighbours are flushed."""
        self.add("one")
        self.add("two", fail)
        self.add("three")
        self.queue.run()
        self.assertEqual(self.story, ["one flushed", "two flushed", "three flushed"])
        self.assertEqual(self.queue, [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class OtherReactorTests(SynchronousTestCase):
    """
    `flush_queue` serves reactors that know nothing of flushing.
    """

    def setUp(self):
        self.reactor = Clock()
        self.queue = flush_queue(self.reactor)
        self.story = []

    def test_one_queue(self):
        """A reactor has one queue, and one that brings its own keeps it."""
        self.assertIs(flush_queue(self.reactor), self.queue)
        reactor = MemoryReactor()
        self.assertIs(flush_queue(reactor), reactor.flushes)

    def test_next_turn(self):
        """What was written is flushed in the reactor's next turn, in one call for all."""
        self.queue.append(Flushable("one", self.story))
        self.queue.append(Flushable("two", self.story))
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.assertEqual(self.story, [])
        self.reactor.advance(0)
        self.assertEqual(self.story, ["one flushed", "two flushed"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_more_while_flushing(self):
        """What is written while others are flushed is flushed too, and so is what comes after."""
        self.queue.append(Flushable("one", self.story, lambda: self.queue.append(Flushable("two", self.story))))
        self.reactor.advance(0)
        self.queue.append(Flushable("three", self.story))
        self.reactor.advance(0)
        self.assertEqual(self.story, ["one flushed", "two flushed", "three flushed"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class GatewayReactorTests(LoopCase):
    """
    `GatewayReactor` dispatches events, and flushes after each.
    """

    def setUp(self):
        super().setUp()
        self.story = []

    def readable(self, name, on_read=lambda: None):
        ours, theirs = self.pair()
        descriptor = Descriptor(name, ours, self.story, on_read)
        verifyObject(IReadWriteDescriptor, descriptor)
        self.reactor.addReader(descriptor)
        self.addCleanup(self.reactor.removeReader, descriptor)
        theirs.send(b"x")
        return descriptor, theirs

    def flush(self, name):
        self.reactor.flushes.append(Flushable(name, self.story))

    def test_read(self):
        """A descriptor with something to read is told so, once for each arrival."""
        _, peer = self.readable("a")
        self.turn()
        self.turn()
        self.assertEqual(self.story, ["a read"])
        peer.send(b"y")
        self.turn()
        self.assertEqual(self.story, ["a read"] * 2)

    def test_write(self):
        """A descriptor that waits for room is told of it."""
        ours, _ = self.pair()
        descriptor = Descriptor("a", ours, self.story)
        self.reactor.addWriter(descriptor)
        self.turn()
        self.reactor.removeWriter(descriptor)
        self.turn()
        self.assertEqual(self.story, ["a write"])

    def test_read_and_write(self):
        """One that waits for both is told of both."""
        descriptor, _ = self.readable("a")
        self.reactor.addWriter(descriptor)
        self.turn()
        self.reactor.removeWriter(descriptor)
        self.assertEqual(self.story, ["a read", "a write"])

    def test_flush_after_the_events(self):
        """What the events of a turn wrote is sent when all of them have been dealt with."""
        self.readable("a", lambda: self.flush("a"))
        self.readable("b", lambda: self.flush("b"))
        self.turn()
        self.assertEqual(self.story, ["a read", "b read", "a flushed", "b flushed"])

    def test_streams_are_received_first(self):
        """Of streams, everything is received before any of it is dealt with; one closed in between is not told."""
        pairs = [self.pair() for _ in range(2)]
        streams = [Stream(ours, self.reactor, self.reactor.flushes, self.deadlines) for ours, _ in pairs]
        notes = [Notes(), Notes()]
        for stream, receiver, (_, theirs) in zip(streams, notes, pairs, strict=True):
            stream.receiver = receiver
            stream.start()
            theirs.send(b"x")
        # Whoever comes first closes the other.
        for position, receiver in enumerate(notes):
            receiver.data_received = lambda data, position=position: (self.story.append(position), streams[1 - position].abort())
        self.turn()
        self.turn()
        self.assertEqual(len(self.story), 1)
        self.assertEqual(notes[1 - self.story[0]].events, [("lost", type(None))])
        streams[self.story[0]].abort()

    def test_flush_before_waiting(self):
        """What a timed call wrote is sent before the reactor waits for events."""
        self.reactor.callLater(0, self.flush, "timed")
        self.turn()
        self.assertEqual(self.story, ["timed flushed"])

    def test_bug(self):
        """A descriptor that fails is disconnected with its error, which is reported; the others are served in the same turn."""
        failing, peer = self.readable("a", fail)
        self.readable("b")
        self.turn()
        self.assertEqual(self.story, ["a read", "a lost", "b read"])
        failing.reason.trap(ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        peer.send(b"y")
        self.turn()
        self.assertEqual(self.story, ["a read", "a lost", "b read"])

    def test_bug_while_writing(self):
        """One that fails when there is room is disconnected too."""
        ours, _ = self.pair()
        descriptor = Descriptor("a", ours, self.story)
        descriptor.doWrite = fail
        self.reactor.addWriter(descriptor)
        self.readable("b")
        self.turn()
        self.assertEqual(sorted(self.story), ["a lost", "b read"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_disconnected_by_its_answer(self):
        """A descriptor that answers a read with a reason is disconnected for that reason."""
        descriptor, _ = self.readable("a", lambda: CONNECTION_DONE)
        self.turn()
        self.assertEqual(self.story, ["a read", "a lost"])
        descriptor.reason.trap(ConnectionDone)

    def test_removed_within_the_turn(self):
        """A descriptor that another one's event has removed is not called any more."""
        self.readable("a", lambda: self.reactor.removeReader(second))
        second, _ = self.readable("b")
        self.turn()
        self.turn()
        self.assertEqual(self.story, ["a read"])

    def test_reset_of_a_stream(self):
        """A stream whose peer has broken off is lost, with its error."""
        listening, address = self.listen()
        peer = socket.create_connection(address)
        ours, _ = listening.accept()
        ours.setblocking(False)
        stream = Stream(ours, self.reactor, self.reactor.flushes, self.deadlines)
        stream.receiver = notes = Notes()
        stream.start()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        self.turn_until(lambda: notes.events)
        self.assertEqual(notes.events, [("lost", ConnectionResetError)])

    def test_stream_on_real_sockets(self):
        """A stream on the real reactor does what the one in memory does: joins, spills, drains and ends."""
        ours, theirs = self.pair()
        stream = Stream(ours, self.reactor, self.reactor.flushes, self.deadlines)
        stream.receiver = notes = Notes()
        stream.start()
        stream.write(b"a")
        stream.write(b"b")
        self.turn()
        self.assertEqual(theirs.recv(100), b"ab")
        stream.write(b"x" * 4_000_000)
        self.turn()
        self.assertEqual(notes.events, [("congested",)])
        received = 0
        while received < 4_000_000:
            self.turn()
            received += len(theirs.recv(1 << 20))
        self.turn_until(lambda: len(notes.events) == 2)
        theirs.send(b"bye")
        theirs.shutdown(socket.SHUT_WR)
        self.turn_until(lambda: len(notes.events) == 4)
        self.assertEqual(notes.events, [("congested",), ("drained",), ("data", b"bye"), ("eof",)])
        stream.close()
        self.assertEqual(theirs.recv(100), b"")

    def test_descriptor_number_used_again(self):
        """An event for a socket that was closed in the same turn does not hit the connection attempt that got its number."""
        spare = []
        done = []
        listening, address = self.listen()

        def close_and_connect():
            number = second.fileno()
            self.reactor.removeReader(second)
            second.sock.close()
            attempt = Connecting(
                [(socket.AF_INET, address)], 100.0, self.reactor, self.deadlines, lambda *result: done.append(result)
            )
            attempt.start()
            self.assertEqual(attempt.fileno(), number)

        self.readable("a", close_and_connect)
        second, _peer = self.readable("b")
        # The new socket gets the lowest free number: leave none below.
        while not spare or spare[-1] < second.fileno():
            spare.append(os.dup(listening.fileno()))
        for number in spare:
            self.addCleanup(os.close, number)
        self.turn()
        self.turn_until(lambda: done)
        ((sock, outcome),) = done
        self.assertIsNone(outcome)
        sock.close()
        self.assertEqual(self.story, ["a read"])
