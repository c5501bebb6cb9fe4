"""
Tests of streams that end in one direction only.
"""

import socket

from a3sgw.net.test.receivers import CONGESTED, DEADLINE, EOF, LOST
from a3sgw.net.test.test_stream import StreamCase


class HalfCloseTests(StreamCase):
    """
    A stream may end its own direction and go on with the other.
    """

    def test_end_behind_the_data(self):
        """The end comes behind everything that was written, and what the peer says still arrives."""
        self.stream.write(b"all of it")
        self.stream.end_writing()
        self.settle()
        self.assertEqual(self.peer.take(), b"all of it")
        self.assertTrue(self.peer.has_ended)
        self.peer.send(b"an answer")
        self.peer.shutdown(socket.SHUT_WR)
        self.settle()
        self.assertEqual(self.notes.events, [("data", b"an answer"), EOF])
        self.assertTrue(self.stream.is_open)
        self.stream.close()
        self.settle()
        self.assertEqual(self.notes.events[-1], LOST)
        self.assert_gone(self.stream, self.peer)

    def test_end_at_once(self):
        """With nothing to send the end is told at once, and only once."""
        self.stream.end_writing()
        self.assertTrue(self.peer.has_ended)
        self.stream.end_writing()
        self.stream.write(b"too late")
        self.settle()
        self.assertEqual(self.peer.take(), b"")
        self.assertEqual(self.notes.events, [])

    def test_end_behind_a_slow_peer(self):
        """While the peer is slow the end waits behind what it has yet to take, and its time is the receiver's matter."""
        self.peer.room = 4
        self.stream.write(b"12345678")
        self.stream.end_writing()
        self.settle()
        self.assertEqual(self.stream.unsent, 4)
        self.stream.deadline = 1.0
        self.assertEqual(self.peer.take(), b"1234")
        self.peer.room = 2
        self.settle()
        self.assertFalse(self.peer.has_ended)
        self.reactor.advance(1)
        self.assertEqual(self.notes.events, [CONGESTED, DEADLINE])
        self.peer.room = 100
        self.settle()
        self.assertEqual(self.peer.take(), b"5678")
        self.assertTrue(self.peer.has_ended)
        self.assertEqual(self.stream.unsent, 0)
        self.assertEqual(self.notes.events, [CONGESTED, DEADLINE])

    def test_close_while_ending(self):
        """A close that follows before the end was sent closes behind it, within the time for last words."""
        self.peer.room = 4
        self.stream.write(b"12345678")
        self.stream.end_writing()
        self.settle()
        self.stream.close()
        self.assertEqual(self.peer.take(), b"1234")
        self.settle()
        self.assertEqual(self.peer.take(), b"5678")
        self.assert_gone(self.stream, self.peer)
        stream, notes, peer = self.make()
        peer.room = 1
        stream.write(b"ab")
        stream.end_writing()
        stream.close()
        self.reactor.advance(stream.LAST_WORDS_SECONDS + 1)
        self.assertEqual(notes.events, [CONGESTED, LOST])
        self.assert_gone(stream, peer)

    def test_lingering_close_afterwards(self):
        """A lingering close after the end drops what still comes, until the peer ends too."""
        self.stream.end_writing()
        self.stream.close(linger=True)
        self.peer.send(b"late")
        self.settle()
        self.assertEqual(self.notes.events, [LOST])
        self.assertTrue(self.stream.is_open)
        self.peer.shutdown(socket.SHUT_WR)
        self.settle()
        self.assert_gone(self.stream, self.peer)

    def test_end_of_a_broken_connection(self):
        """Ending a connection that the kernel knows to be broken is its loss; a closed one has no end to tell."""

        def refuse(how):
            raise OSError("not connected")

        self.peer.peer.shutdown = refuse
        self.stream.end_writing()
        self.assertEqual(self.notes.events, [("lost", OSError)])
        self.stream.end_writing()
        self.stream.close()
        self.assertEqual(self.notes.events, [("lost", OSError)])
