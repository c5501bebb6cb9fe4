"""
Tests of streams, on sockets in memory.
"""

import errno
import socket

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IReceiver
from a3sgw.net.deadline import NEVER, Deadlines
from a3sgw.net.stream import Stream
from a3sgw.net.test.receivers import CONGESTED, DEADLINE, DRAINED, EOF, LOST, Notes, bug
from a3sgw.net.valve import CLIENT_SLOW, PIPELINE, WAITING_ROOM
from a3sgw.testing import MemoryReactor, MemorySocket


class CountingSocket(MemorySocket):
    """
    A socket that writes down what each call sent.
    """

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.calls = []

    def send(self, data):
        self.calls.append(("send", len(data)))
        return super().send(data)

    def sendmsg(self, pieces):
        self.calls.append(("sendmsg", *map(len, pieces)))
        return super().send(b"".join(pieces))


class StreamCase(SynchronousTestCase):
    """
    A stream on one end of a connection in memory; `peer` is the other.
    """

    def setUp(self):
        self.reactor = MemoryReactor()
        self.deadlines = Deadlines(self.reactor, self.reactor.seconds)
        self.deadlines.start()
        self.stream, self.notes, self.peer = self.make()

    def make(self, **on):
        ours, theirs = CountingSocket.pair(10 + 2 * len(self.reactor.sockets))
        self.reactor.sockets[ours.fileno()] = ours
        stream = Stream(ours, self.reactor, self.reactor.flushes, self.deadlines)
        notes = stream.receiver = Notes(**on)
        stream.start()
        return stream, notes, theirs

    def settle(self):
        self.reactor.settle()

    def calls(self, peer=None):
        return (peer or self.peer).peer.calls

    def assert_gone(self, stream, peer):
        self.assertFalse(stream.is_open)
        self.assertEqual(stream.fileno(), -1)
        self.assertTrue(peer.peer.is_closed)
        self.assertNotIn(stream, self.reactor.watched())
        self.assertNotIn(stream, self.deadlines.watched())


class ReadingTests(StreamCase):
    """
    What arrives reaches the receiver, unless somebody holds the stream.
    """

    def test_receiver(self):
        """The receiver that these tests use is one."""
        verifyObject(IReceiver, self.notes)

    def test_data_and_end(self):
        """Data arrives, then the end, which is told once and closes nothing."""
        self.peer.send(b"one")
        self.settle()
        self.peer.send(b"two")
        self.peer.shutdown(socket.SHUT_WR)
        self.settle()
        self.settle()
        self.assertEqual(self.notes.events, [("data", b"onetwo"), EOF])
        self.assertTrue(self.stream.is_open)
        self.stream.write(b"answer")
        self.settle()
        self.assertEqual(self.peer.take(), b"answer")

    def test_named_pausers(self):
        """Reading stops with the first pauser and goes on when none is left, and the stream says who holds it."""
        self.assertIn("held by none", repr(self.stream))
        self.stream.hold(CLIENT_SLOW)
        self.stream.hold(PIPELINE)
        self.stream.hold(PIPELINE)
        self.assertIn("open held by client-slow,pipeline, 0 bytes waiting", repr(self.stream))
        self.peer.send(b"x")
        self.settle()
        self.stream.free(PIPELINE)
        self.stream.free(WAITING_ROOM)
        self.settle()
        self.assertEqual(self.notes.events, [])
        self.stream.free(CLIENT_SLOW)
        self.settle()
        self.assertEqual(self.notes.events, [("data", b"x")])

    def test_not_before_start(self):
        """A stream reads nothing before it is started, and not at all if it was held before that."""
        ours, theirs = MemorySocket.pair(90)
        self.reactor.sockets[90] = ours
        stream = Stream(ours, self.reactor, self.reactor.flushes, self.deadlines)
        stream.receiver = notes = Notes()
        theirs.send(b"x")
        self.settle()
        self.assertEqual(notes.events, [])
        stream.hold(WAITING_ROOM)
        stream.start()
        self.settle()
        self.assertEqual(notes.events, [])
        stream.free(WAITING_ROOM)
        self.settle()
        self.assertEqual(notes.events, [("data", b"x")])

    def test_pauser_after_the_end(self):
        """Freeing a stream whose peer has ended does not tell the end again."""
        self.peer.shutdown(socket.SHUT_WR)
        self.settle()
        self.stream.hold(CLIENT_SLOW)
        self.stream.free(CLIENT_SLOW)
        self.settle()
        self.assertEqual(self.notes.events, [EOF])

    def test_receiver_may_be_replaced(self):
        """Whoever is the receiver gets the next data."""
        second = Notes()
        self.peer.send(b"a")
        self.settle()
        self.stream.receiver = second
        self.peer.send(b"b")
        self.settle()
        self.assertEqual((self.notes.events, second.events), ([("data", b"a")], [("data", b"b")]))

    def test_reset(self):
        """A reset by the peer is an error, told once."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"")
        self.peer.close()
        self.settle()
        self.assertEqual(self.notes.events, [("lost", ConnectionResetError)])
        self.assert_gone(self.stream, self.peer)

    def test_nothing_there(self):
        """A reactor that was wrong about readability does no harm."""
        self.stream.doRead()
        self.assertEqual(self.notes.events, [])

    def test_poll(self):
        """What has arrived can be asked for before the reactor says so, unless the stream is held or gone."""
        self.peer.send(b"x")
        self.stream.hold(PIPELINE)
        self.stream.poll()
        self.assertEqual(self.notes.events, [])
        self.stream.free(PIPELINE)
        self.stream.poll()
        self.assertEqual(self.notes.events, [("data", b"x")])
        self.stream.abort()
        self.stream.poll()
        self.assertEqual(self.notes.events, [("data", b"x"), LOST])

    def test_stale(self):
        """A connection is stale if the peer has closed it, broken it or said something; asking takes nothing away."""
        self.assertFalse(self.stream.is_stale())
        self.peer.send(b"x")
        self.assertTrue(self.stream.is_stale())
        self.settle()
        self.assertEqual(self.notes.events, [("data", b"x")])
        self.assertFalse(self.stream.is_stale())
        self.peer.close()
        self.assertTrue(self.stream.is_stale())
        other, _, peer = self.make()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"")
        peer.close()
        self.assertTrue(other.is_stale())

    def test_stale_between_receiving_and_delivering(self):
        """A connection on which something was received is stale, though the kernel has nothing more to tell, until it is delivered."""
        self.assertIsNone(self.stream.receive())
        self.assertFalse(self.stream.has_arrived or self.stream.is_stale())
        self.peer.send(b"x")
        data = self.stream.receive()
        self.assertTrue(self.stream.has_arrived and self.stream.is_stale())
        self.stream.deliver(data)
        self.assertFalse(self.stream.has_arrived or self.stream.is_stale())
        self.assertEqual(self.notes.events, [("data", b"x")])


class WritingTests(StreamCase):
    """
    What is written leaves at the end of the event, and congestion is told.
    """

    def test_joined(self):
        """Everything written during one event leaves in one call at its end."""
        for piece in (b"a", b"bc", b"def"):
            self.stream.write(piece)
        self.assertEqual(self.calls(), [])
        self.settle()
        self.assertEqual(self.calls(), [("send", 6)])
        self.assertEqual(self.peer.take(), b"abcdef")
        self.assertEqual(self.notes.events, [])
        self.stream.write(b"g")
        self.settle()
        self.assertEqual(self.calls(), [("send", 6), ("send", 1)])

    def test_head_and_large_piece(self):
        """A head and a large piece leave in one call without being copied together."""
        self.stream.write(b"head")
        self.stream.write(b"x" * 20000)
        self.settle()
        self.assertEqual(self.calls(), [("sendmsg", 4, 20000)])
        self.assertEqual(self.peer.take(), b"head" + b"x" * 20000)

    def test_spill(self):
        """What the kernel does not take waits, is sent as room comes, and both moments are told once."""
        for pieces in ([b"0123456789"], [b"01234", b"56789"], [b"0", b"1" * 20000], [b"0123456789" * 3000]):
            stream, notes, peer = self.make()
            peer.room = 4
            for piece in pieces:
                stream.write(piece)
            self.settle()
            self.assertEqual(notes.events, [CONGESTED])
            self.assertTrue(stream.is_congested)
            whole = b"".join(pieces)
            self.assertIn(f"{len(whole) - 4} bytes waiting", repr(stream))
            heard = peer.take()
            for _ in range(2):
                self.settle()
                heard += peer.take()
                self.assertTrue(whole.startswith(heard))
            peer.room = 1 << 20
            self.settle()
            self.assertEqual(heard + peer.take(), whole)
            self.assertEqual(notes.events, [CONGESTED, DRAINED])
            self.assertFalse(stream.is_congested)
            self.assertEqual([each for each in self.reactor.watched() if each is stream], [stream], "it is only being read again")

    def test_writes_while_congested(self):
        """What is written while the kernel takes no more follows in order, without another warning."""
        self.peer.room = 2
        self.stream.write(b"abc")
        self.settle()
        self.stream.write(b"def")
        self.settle()
        self.stream.write(b"g")
        self.settle()
        self.assertEqual(self.notes.events, [CONGESTED])
        heard = self.peer.take()
        self.peer.room = 100
        self.settle()
        self.assertEqual(heard + self.peer.take(), b"abcdefg")
        self.assertEqual(self.notes.events, [CONGESTED, DRAINED])
        self.stream.write(b"h")
        self.settle()
        self.assertEqual(self.peer.take(), b"h")

    def test_no_room_at_all(self):
        """A kernel that takes nothing at all makes congestion, not a loss."""
        self.peer.room = 0
        self.stream.write(b"abc")
        self.settle()
        self.stream.doWrite()
        self.assertEqual(self.notes.events, [CONGESTED])
        self.peer.room = 10
        self.settle()
        self.assertEqual(self.peer.take(), b"abc")
        self.assertEqual(self.notes.events, [CONGESTED, DRAINED])

    def test_writing_from_callbacks(self):
        """A receiver may write when it is told of room, and again."""
        pieces = [b"b" * 10, b"c" * 10]
        stream, notes, peer = self.make(drained=lambda: pieces and stream.write(pieces.pop(0)))
        peer.room = 4
        stream.write(b"a" * 10)
        heard = b""
        for _ in range(20):
            self.settle()
            heard += peer.take()
        self.assertEqual(heard, b"a" * 10 + b"b" * 10 + b"c" * 10)
        self.assertEqual(notes.events, [CONGESTED, DRAINED] * 3)

    def test_peer_gone(self):
        """A write that cannot arrive loses the stream with its error, at once or while the rest waits."""
        self.peer.close()
        self.stream.hold(CLIENT_SLOW)
        self.stream.write(b"x")
        self.settle()
        self.assertEqual(self.notes.events, [("lost", BrokenPipeError)])
        self.assert_gone(self.stream, self.peer)
        stream, notes, peer = self.make()
        peer.room = 1
        stream.hold(CLIENT_SLOW)
        stream.write(b"xx")
        self.settle()
        peer.close()
        self.settle()
        self.assertEqual([event[0] for event in notes.events], ["congested", "lost"])
        self.assert_gone(stream, peer)

    def test_write_after_the_end(self):
        """What is written to a closing or closed stream goes nowhere and harms nobody."""
        self.stream.write(b"last")
        self.stream.close()
        self.stream.write(b"too late")
        self.settle()
        self.stream.write(b"much too late")
        self.settle()
        self.assertEqual(self.peer.take(), b"last")
        self.assertEqual(self.notes.events, [LOST])


class ClosingTests(StreamCase):
    """
    The several ways to end.
    """

    def test_close(self):
        """A close without anything to send is done at once, and told once."""
        self.stream.close()
        self.stream.close()
        self.stream.abort()
        self.settle()
        self.assertEqual(self.notes.events, [LOST])
        self.assertTrue(self.peer.has_ended)
        self.assertFalse(self.peer.was_reset)
        self.assertIn("closed", repr(self.stream))
        self.assert_gone(self.stream, self.peer)

    def test_close_sends_first(self):
        """What was written before a close arrives, whole, before the end."""
        self.stream.write(b"last words")
        self.stream.close()
        self.assertEqual(self.notes.events, [])
        self.settle()
        self.assertEqual(self.peer.take(), b"last words")
        self.assertTrue(self.peer.has_ended)
        self.assertEqual(self.notes.events, [LOST])
        stream, notes, peer = self.make()
        peer.room = 4
        stream.write(b"last words")
        stream.close()
        self.settle()
        self.assertFalse(peer.has_ended)
        heard = b""
        for _ in range(3):
            heard += peer.take()
            self.settle()
        self.assertEqual(heard, b"last words")
        self.assertTrue(peer.has_ended)
        self.assertEqual(notes.events, [CONGESTED, LOST])
        self.assert_gone(stream, peer)

    def test_closing_reads_no_more(self):
        """While the last words wait to be sent, nothing more is read."""
        self.peer.room = 4
        self.stream.write(b"last words")
        self.stream.close()
        self.peer.send(b"more")
        self.settle()
        self.assertEqual(self.notes.events, [CONGESTED])

    def test_last_words_have_a_limit(self):
        """A peer that does not take the last words has a minute, which begins anew whenever it takes some."""
        self.peer.room = 4
        self.stream.write(b"last words")
        self.stream.close()
        self.settle()
        self.reactor.advance(50)
        self.assertEqual(self.peer.take(), b"last")
        self.reactor.advance(50)
        self.assertTrue(self.stream.is_open)
        self.reactor.advance(11)
        self.assertEqual(self.notes.events, [CONGESTED, LOST])
        self.assert_gone(self.stream, self.peer)

    def test_abort(self):
        """An abort drops what waits and resets the connection, so that the peer notices."""
        self.stream.write(b"half of it")
        self.stream.abort()
        self.stream.abort()
        self.settle()
        self.assertTrue(self.peer.was_reset)
        self.assertEqual(self.peer.take(), b"")
        self.assertEqual(self.notes.events, [LOST])
        self.assert_gone(self.stream, self.peer)

    def test_linger(self):
        """A lingering close sends, ends its side, drops what still comes, and closes when the peer does."""
        self.stream.write(b"no")
        self.stream.close(linger=True)
        self.settle()
        self.assertEqual(self.notes.events, [LOST])
        self.assertEqual(self.peer.take(), b"no")
        self.assertTrue(self.peer.has_ended)
        for _ in range(5):
            self.peer.send(b"x" * 10000)
            self.settle()
        self.assertFalse(self.peer.was_reset)
        self.assertTrue(self.stream.is_open)
        self.peer.close()
        self.settle()
        self.assertEqual(self.notes.events, [LOST])
        self.assert_gone(self.stream, self.peer)

    def test_linger_when_held(self):
        """A lingering close reads even if somebody held the stream, because nobody is left to free it."""
        self.stream.hold(WAITING_ROOM)
        self.peer.send(b"body")
        self.stream.write(b"no")
        self.stream.close(linger=True)
        self.settle()
        self.assertFalse(self.peer.peer.arrived)
        self.assertEqual(self.notes.events, [LOST])

    def test_linger_after_the_peers_end(self):
        """A lingering close of a connection whose peer has ended already is over at once."""
        self.peer.shutdown(socket.SHUT_WR)
        self.settle()
        self.stream.write(b"no")
        self.stream.close(linger=True)
        self.settle()
        self.assertEqual(self.notes.events, [EOF, LOST])
        self.assert_gone(self.stream, self.peer)
        self.assertFalse(self.peer.was_reset)

    def test_linger_is_bounded(self):
        """A peer that never stops sending, and one that never closes, do not keep the connection."""
        self.stream.close(linger=True)
        sent = 0
        while self.stream.is_open and sent < 1 << 22:
            sent += self.peer.send(b"x" * 65536)
            self.settle()
        self.assertLess(sent, 1 << 21)
        self.assert_gone(self.stream, self.peer)
        stream, notes, peer = self.make()
        stream.close(linger=True)
        self.reactor.advance(Stream.LINGER_SECONDS - 1)
        self.assertTrue(stream.is_open)
        self.reactor.advance(2)
        self.assert_gone(stream, peer)
        self.assertEqual(notes.events, [LOST])

    def test_linger_on_a_dead_connection(self):
        """A connection that cannot be shut down in an orderly way is dropped."""

        class Unconnected(CountingSocket):
            def shutdown(self, how):
                raise OSError(errno.ENOTCONN, "not connected")

        ours, theirs = Unconnected.pair(90)
        self.reactor.sockets[90] = ours
        stream = Stream(ours, self.reactor, self.reactor.flushes, self.deadlines)
        stream.receiver = notes = Notes()
        stream.start()
        stream.close(linger=True)
        self.assert_gone(stream, theirs)
        self.assertEqual(notes.events, [LOST])

    def test_closed_by_its_receiver(self):
        """A receiver may close the stream from within any call."""
        for name, cause in [
            ("data", lambda peer: peer.send(b"x")),
            ("eof", lambda peer: peer.shutdown(socket.SHUT_WR)),
            ("congested", lambda peer: None),
        ]:
            for ending in ("close", "abort"):
                stream, notes, peer = self.make(**{name: lambda ending=ending: getattr(stream, ending)()})  # noqa: B023 (called in this round only)
                if name == "congested":
                    peer.room = 2
                    stream.write(b"abc")
                    self.settle()
                    peer.room = 10
                cause(peer)
                self.settle()
                self.assertEqual([event[0] for event in notes.events], [name, "lost"], ending)
                self.assert_gone(stream, peer)

    def test_lost_by_the_reactor(self):
        """A descriptor that the reactor gives up is lost, whichever way it says so."""
        for method in ("connectionLost", "readConnectionLost"):
            stream, notes, peer = self.make()
            getattr(stream, method)(None)
            getattr(stream, method)(None)
            self.assertEqual(notes.events, [LOST])
            self.assert_gone(stream, peer)


class DeadlineTests(StreamCase):
    """
    The stamp on a stream.
    """

    def test_deadline(self):
        """A deadline that passes is told to the receiver, once, and the stream goes on."""
        self.assertEqual(self.stream.deadline, NEVER)
        self.stream.deadline = self.stream.now() + 3
        self.reactor.advance(2.5)
        self.assertEqual(self.notes.events, [])
        self.reactor.advance(10)
        self.assertEqual(self.notes.events, [DEADLINE])
        self.assertTrue(self.stream.is_open)

    def test_closed_stream_has_none(self):
        """A stream that is gone is not told of its deadline any more."""
        self.stream.deadline = self.stream.now() + 3
        self.stream.abort()
        self.reactor.advance(10)
        self.assertEqual(self.notes.events, [LOST])


class BugTests(StreamCase):
    """
    What a bug in a receiver costs.
    """

    def assert_neighbour_unharmed(self):
        self.peer.send(b"x")
        self.stream.write(b"y")
        self.settle()
        self.assertEqual(self.notes.events, [("data", b"x")])
        self.assertEqual(self.peer.take(), b"y")

    def test_bug_while_reading(self):
        """A receiver that fails loses its own stream, is reported once, and nobody else notices."""
        for name, cause in [("data", lambda peer: peer.send(b"x")), ("eof", lambda peer: peer.shutdown(socket.SHUT_WR))]:
            stream, notes, peer = self.make(**{name: bug})
            cause(peer)
            self.settle()
            self.assertEqual(notes.events[-1], ("lost", ZeroDivisionError))
            self.assert_gone(stream, peer)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_neighbour_unharmed()

    def test_bug_while_flushing(self):
        """A receiver that fails when it is told of congestion or of a loss does not keep its neighbours from being sent."""
        for name, cause in [("congested", lambda peer: setattr(peer, "room", 2)), ("lost", lambda peer: peer.close())]:
            stream, _, peer = self.make(**{name: bug})
            stream.hold(CLIENT_SLOW)
            cause(peer)
            stream.write(b"abc")
            neighbour, _, other = self.make()
            neighbour.write(b"abc")
            self.settle()
            self.assertEqual(other.take(), b"abc")
            neighbour.write(b"def")
            self.settle()
            self.assertEqual(other.take(), b"def")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            stream.receiver = None
            stream.abort()

    def test_bug_at_the_deadline(self):
        """A receiver that fails at its deadline is reported, and the others are told of theirs."""
        stream, _, _ = self.make(deadline=bug)
        stream.deadline = self.stream.deadline = 1.0
        self.reactor.advance(3)
        self.assertEqual(self.notes.events, [DEADLINE])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
