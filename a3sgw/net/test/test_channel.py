"""
Tests of the channel between processes, over a real pair of sockets.
"""

import os
import select
import socket

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.net.channel import Channel


class PollReactor:
    """
    Calls descriptors when `turn` finds that they are ready.
    """

    def __init__(self):
        self.readers = set()
        self.writers = set()
        self.addReader, self.removeReader = self.readers.add, self.readers.discard
        self.addWriter, self.removeWriter = self.writers.add, self.writers.discard

    def turn(self):
        readable, writable, _ = select.select(list(self.readers), list(self.writers), [], 0)
        for each in readable:
            if each in self.readers:
                each.doRead()
        for each in writable:
            if each in self.writers:
                each.doWrite()
        return bool(readable or writable)

    def settle(self):
        while self.turn():
            pass


class ChannelTests(SynchronousTestCase):
    """
    Frames and descriptors arrive as they were sent.
    """

    def setUp(self):
        self.reactor = PollReactor()
        self.heard = []
        self.lost = []
        one, other = socket.socketpair()
        self.ours = Channel(one, self.reactor, lambda frame, descriptors: None, lambda: self.lost.append("ours"))
        self.theirs = Channel(other, self.reactor, lambda *heard: self.heard.append(heard), lambda: self.lost.append("theirs"))
        for channel in (self.ours, self.theirs):
            channel.start()
            self.addCleanup(channel.close)

    def test_large(self):
        """A frame that is larger than what the kernel takes arrives whole, and what comes after it, after it."""
        self.ours.send(["large"], b"x" * 3_000_000)
        self.ours.send(["small"])
        self.assertTrue(self.reactor.writers, "not all of it was taken at once")
        self.assertEqual(self.ours.backlog, 2)
        self.reactor.settle()
        self.assertEqual([(frame.message, len(frame.blob)) for frame, _ in self.heard], [(["large"], 3_000_000), (["small"], 0)])
        self.assertFalse(self.reactor.writers)
        self.assertEqual(self.ours.backlog, 0)

    def test_descriptors(self):
        """Descriptors come with the frame that they were sent with, also if it had to wait and the sender has closed its own."""
        self.ours.send(["large"], b"x" * 3_000_000)
        ends = []
        for text in (b"1", b"2", b"3"):
            end, other_end = os.pipe()
            os.write(other_end, text)
            os.close(other_end)
            ends.append(end)
        self.ours.send(["one"], descriptors=ends[:1])
        self.ours.send(["two"], descriptors=ends[1:])
        for end in ends:
            os.close(end)
        self.reactor.settle()
        found = []
        for frame, descriptors in self.heard[1:]:
            found.append((frame.message, [os.read(descriptor, 10) for descriptor in descriptors]))
            for descriptor in descriptors:
                os.close(descriptor)
        self.assertEqual(found, [(["one"], [b"1"]), (["two"], [b"2", b"3"])])

    def test_many_descriptors(self):
        """More descriptors than the kernel takes at once are no trouble."""
        end, other_end = os.pipe()
        self.addCleanup(os.close, end)
        self.addCleanup(os.close, other_end)
        self.ours.send(["many"], descriptors=[end] * 300)
        self.reactor.settle()
        ((frame, descriptors),) = self.heard
        for descriptor in descriptors:
            os.close(descriptor)
        self.assertEqual((frame.message, len(descriptors)), (["many"], 300))

    def test_close(self):
        """Both ends are told once that the channel is gone; what is sent then is nobody's."""
        self.ours.send(["last"])
        self.ours.close()
        self.ours.close()
        self.reactor.settle()
        self.assertEqual([frame.message for frame, _ in self.heard], [["last"]])
        self.assertEqual(self.lost, ["ours", "theirs"])
        self.theirs.send(["late"])
        self.assertEqual((self.reactor.readers, self.reactor.writers), (set(), set()))
        self.assertEqual(self.ours.fileno(), -1)

    def test_sending_to_nobody(self):
        """Whoever sends to an end that is gone is told so."""
        peer = self.theirs
        peer._socket.shutdown(socket.SHUT_RDWR)
        self.ours.send(["x"])
        self.assertEqual(self.lost, ["ours"])
