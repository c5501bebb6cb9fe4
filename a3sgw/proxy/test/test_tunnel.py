"""
Tests of tunnels, on sockets in memory.
"""

import socket

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IReceiver
from a3sgw.net.deadline import Deadlines
from a3sgw.net.stream import Stream
from a3sgw.net.tls_stream import TlsStream
from a3sgw.proxy.test.test_outbound_tls import TlsServer
from a3sgw.proxy.tunnel import Side, Tunnel
from a3sgw.testing import MemoryReactor, MemorySocket, receiver_contract


class Joined:
    """
    A tunnel between two ends that a test plays; `endings` is what it reported.
    """

    def __init__(self, *, starts=True, **options):
        self.reactor = MemoryReactor()
        self.deadlines = Deadlines(self.reactor, self.reactor.seconds)
        self.deadlines.start()
        self.client_stream, self.client = self.make(10)
        self.backend_stream, self.backend = self.make(12)
        self.endings = []
        self.tunnel = Tunnel(self.client_stream, self.backend_stream, self.ended, **options)
        if starts:
            self.tunnel.start()

    def make(self, descriptor):
        ours, theirs = MemorySocket.pair(descriptor)
        self.reactor.sockets[descriptor] = ours
        stream = Stream(ours, self.reactor, self.reactor.flushes, self.deadlines)
        stream.receiver = "whoever had it before"
        stream.start()
        return stream, theirs

    def ended(self, tunnel, outcome):
        assert tunnel is self.tunnel
        self.endings.append(outcome)

    def settle(self):
        self.reactor.settle()

    def assert_over(self, case, outcome):
        """
        Fail unless the end was told once and nothing is left.
        """
        self.settle()
        case.assertEqual(self.endings, [outcome])
        case.assertEqual((self.client_stream.is_open, self.backend_stream.is_open), (False, False))
        case.assertEqual(self.reactor.watched(), [])
        case.assertEqual(self.deadlines.watched(), [])


class SideContractTests(receiver_contract(lambda: Joined().tunnel.client)):
    """
    A side of a tunnel receives as everybody does.
    """


class PumpTests(SynchronousTestCase):
    """
    Bytes go through unchanged, both ways, and are counted.
    """

    def test_both_ways(self):
        """What one side says the other hears, and the count of each direction is kept."""
        joined = Joined()
        verifyObject(IReceiver, joined.tunnel.backend)
        joined.client.send(b"hello")
        joined.backend.send(b"hi, who is there")
        joined.settle()
        self.assertEqual((joined.backend.take(), joined.client.take()), (b"hello", b"hi, who is there"))
        self.assertEqual((joined.tunnel.bytes_received, joined.tunnel.bytes_sent), (5, 16))
        self.assertEqual(joined.endings, [])
        self.assertIn("<Tunnel 5 bytes from <Stream 10 open held by none", repr(joined.tunnel))

    def test_what_was_read_before(self):
        """What was read of either side before the tunnel began goes first, and counts."""
        joined = Joined(starts=False)
        joined.client.send(b"-two")
        joined.backend.send(b"-TWO")
        joined.tunnel.start(b"one", b"ONE")
        joined.settle()
        self.assertEqual((joined.backend.take(), joined.client.take()), (b"one-two", b"ONE-TWO"))
        self.assertEqual((joined.tunnel.bytes_received, joined.tunnel.bytes_sent), (7, 7))

    def test_slow_side_holds_the_other(self):
        """A side that does not keep up holds the other by name, and frees it when it has taken everything."""
        for slow, fast, stream, name in [
            ("backend", "client", "client_stream", "upstream-slow"),
            ("client", "backend", "backend_stream", "client-slow"),
        ]:
            joined = Joined()
            slow, fast, stream = getattr(joined, slow), getattr(joined, fast), getattr(joined, stream)
            slow.room = 10
            fast.room = 1 << 30
            sent = 0
            for _ in range(100):
                fast.send(bytes(10_000))
                sent += 10_000
                joined.settle()
            # What is on its way is bounded by one read, however much is sent.
            waiting = 10 + joined.client_stream.unsent + joined.backend_stream.unsent
            self.assertLessEqual(waiting, 131072 + 10)
            self.assertIn(f"held by {name}", repr(stream))
            slow.room = 1 << 30
            joined.settle()
            self.assertEqual(len(slow.take()), sent)
            self.assertIn("held by none", repr(stream))

    def test_slow_from_the_beginning(self):
        """A side that was slow before the tunnel began holds the other too."""
        joined = Joined(starts=False)
        joined.backend.room = 2
        joined.backend_stream.receiver = joined.tunnel.backend
        joined.backend_stream.write(b"handshake")
        joined.backend_stream.flush()
        joined.tunnel.start()
        joined.client.send(b"more")
        joined.settle()
        self.assertIn("held by upstream-slow", repr(joined.client_stream))
        joined.backend.room = 100
        joined.settle()
        self.assertEqual(joined.backend.take(), b"handshakemore")

    def test_a_side_that_looks(self):
        """A side of one's own sees what passes."""
        seen = []

        class Curious(Side):
            __slots__ = ()

            def data_received(self, data):
                seen.append(data)
                super().data_received(data)

        joined = Joined(side=Curious)
        joined.client.send(b"a")
        joined.settle()
        joined.backend.send(b"b")
        joined.settle()
        self.assertEqual(seen, [b"a", b"b"])
        self.assertEqual((joined.backend.take(), joined.client.take()), (b"a", b"b"))


class EndTests(SynchronousTestCase):
    """
    A tunnel ends once, with a reason, and leaves nothing behind.
    """

    def test_half_close(self):
        """The end of one direction is passed on while the other goes on, in either order; then all is over."""
        for first, second in [("client", "backend"), ("backend", "client")]:
            joined = Joined()
            one, other = getattr(joined, first), getattr(joined, second)
            one.send(b"the last question")
            one.shutdown(socket.SHUT_WR)
            joined.settle()
            self.assertEqual(other.take(), b"the last question")
            self.assertTrue(other.has_ended)
            self.assertFalse(one.has_ended)
            other.send(b"an answer")
            joined.settle()
            self.assertEqual(one.take(), b"an answer")
            other.send(b", and another")
            other.shutdown(socket.SHUT_WR)
            joined.assert_over(self, Outcome.COMPLETED)
            self.assertEqual(one.take(), b", and another")
            self.assertTrue(one.has_ended)

    def test_end_behind_a_slow_side(self):
        """The end waits behind what a slow side has yet to take, and the tunnel's end with it."""
        joined = Joined()
        joined.backend.room = 10
        joined.client.send(bytes(100_000))
        joined.client.shutdown(socket.SHUT_WR)
        joined.settle()
        self.assertFalse(joined.backend.has_ended)
        joined.backend.shutdown(socket.SHUT_WR)
        joined.settle()
        self.assertEqual(joined.endings, [])
        joined.backend.room = 1 << 20
        joined.settle()
        self.assertEqual(len(joined.backend.take()), 100_000)
        self.assertTrue(joined.backend.has_ended)
        joined.assert_over(self, Outcome.COMPLETED)

    def test_one_side_breaks_off(self):
        """A side that breaks off breaks the other off, and is named."""
        for breaks, hears, outcome in [
            ("client", "backend", Outcome.CLIENT_CLOSED),
            ("backend", "client", Outcome.BACKEND_CLOSED),
        ]:
            joined = Joined()
            breaker = getattr(joined, breaks)
            breaker.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"")
            breaker.close()
            joined.assert_over(self, outcome)
            self.assertTrue(getattr(joined, hears).was_reset)

    def test_break_after_half_close(self):
        """A side that breaks off after the other has ended is still the one that broke off."""
        joined = Joined()
        joined.client.shutdown(socket.SHUT_WR)
        joined.settle()
        joined.backend.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"")
        joined.backend.close()
        joined.assert_over(self, Outcome.BACKEND_CLOSED)

    def test_break_while_the_last_bytes_are_taken(self):
        """A side that breaks off before it has taken the last bytes did not see a complete tunnel."""
        joined = Joined()
        joined.backend.room = 10
        joined.client.send(bytes(100))
        joined.settle()
        joined.client.shutdown(socket.SHUT_WR)
        joined.backend.shutdown(socket.SHUT_WR)
        joined.settle()
        self.assertEqual(joined.endings, [])
        joined.backend.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"")
        joined.backend.close()
        joined.assert_over(self, Outcome.BACKEND_CLOSED)

    def test_abort(self):
        """An abort breaks both off for the reason given; what follows changes nothing."""
        joined = Joined()
        joined.tunnel.abort(Outcome.SHUTTING_DOWN)
        joined.tunnel.abort(Outcome.INTERNAL_ERROR)
        joined.tunnel.close(Outcome.INTERNAL_ERROR)
        joined.assert_over(self, Outcome.SHUTTING_DOWN)
        self.assertEqual((joined.client.was_reset, joined.backend.was_reset), (True, True))

    def test_last_words(self):
        """A close says last words to each side; what still comes from one that was told something does not destroy them."""
        joined = Joined()
        joined.tunnel.close(Outcome.SHUTTING_DOWN, b"bye client", b"")
        joined.client.send(b"unheard")
        joined.settle()
        self.assertEqual(joined.endings, [Outcome.SHUTTING_DOWN])
        self.assertEqual(joined.client.take(), b"bye client")
        self.assertFalse(joined.client.was_reset)
        self.assertTrue(joined.backend.has_ended)
        joined.client.close()
        joined.tunnel.abort(Outcome.INTERNAL_ERROR)
        joined.assert_over(self, Outcome.SHUTTING_DOWN)

    def test_close_waits_for_a_slow_side(self):
        """A side that has not taken everything when the tunnel is closed gets its time to."""
        joined = Joined()
        joined.client.room = 4
        joined.backend.send(b"12345678")
        joined.settle()
        joined.tunnel.close(Outcome.SHUTTING_DOWN)
        joined.settle()
        self.assertEqual((joined.endings, joined.client.take()), ([], b"1234"))
        joined.settle()
        self.assertEqual(joined.client.take(), b"5678")
        joined.assert_over(self, Outcome.SHUTTING_DOWN)

    def test_bug_of_a_side(self):
        """A side with a bug costs its tunnel, is reported, and is not blamed on the other."""

        class Broken(Side):
            __slots__ = ()

            def data_received(self, data):
                raise ZeroDivisionError("a bug")

        joined = Joined(side=Broken)
        joined.client.send(b"a")
        joined.assert_over(self, Outcome.CLIENT_CLOSED)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class TimeTests(SynchronousTestCase):
    """
    A tunnel in which nothing moves ends, and one may be bounded altogether.
    """

    def test_idle(self):
        """Bytes in either direction keep a tunnel; without any it is broken off in time."""
        for speaker in ("client", "backend"):
            joined = Joined(idle_timeout=10)
            for _ in range(5):
                joined.reactor.advance(9)
                getattr(joined, speaker).send(b"x")
                joined.settle()
            joined.reactor.advance(9)
            self.assertEqual(joined.endings, [])
            joined.reactor.advance(1.5)
            joined.assert_over(self, Outcome.TUNNEL_IDLE)

    def test_slow_is_not_idle(self):
        """A peer that takes what waits for it bit by bit keeps its tunnel; one that takes nothing loses it."""
        joined = Joined(idle_timeout=10)
        joined.client.room = 10
        joined.backend.send(bytes(50))
        joined.settle()
        for _ in range(4):
            joined.reactor.advance(9)
            joined.client.take()
        self.assertEqual(joined.endings, [])
        joined.reactor.advance(25)
        joined.assert_over(self, Outcome.TUNNEL_IDLE)
        joined = Joined(idle_timeout=10)
        joined.client.room = 10
        joined.backend.send(bytes(50))
        joined.reactor.advance(11)
        joined.assert_over(self, Outcome.TUNNEL_IDLE)

    def test_half_closed(self):
        """A tunnel of which one side has ended may be idle for less long."""
        joined = Joined(idle_timeout=100, half_closed_timeout=10)
        joined.reactor.advance(50)
        joined.client.shutdown(socket.SHUT_WR)
        joined.settle()
        joined.reactor.advance(9)
        joined.backend.send(b"x")
        joined.reactor.advance(9)
        self.assertEqual(joined.endings, [])
        joined.reactor.advance(2)
        joined.assert_over(self, Outcome.TUNNEL_IDLE)

    def test_total(self):
        """A tunnel that is busy ends too, when its time is up."""
        joined = Joined(idle_timeout=10, total_timeout=30)
        for _ in range(29):
            joined.client.send(b"x")
            joined.reactor.advance(1)
        self.assertEqual(joined.endings, [])
        joined.reactor.advance(1.5)
        joined.assert_over(self, Outcome.TUNNEL_TIMEOUT)

    def test_no_bound(self):
        """Without timeouts a tunnel stays for as long as its sides do."""
        joined = Joined()
        joined.reactor.advance(1000)
        self.assertEqual(joined.endings, [])


class TlsTests(SynchronousTestCase):
    """
    A side may speak TLS.
    """

    def setUp(self):
        self.joined = joined = Joined(starts=False)
        secured = []
        self.tls = TlsStream(
            joined.backend_stream,
            SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None),
            lambda connection: None,
            lambda: secured.append(True),
        )
        self.tls._connection.set_connect_state()
        self.tls.receiver = None
        self.tls.shake_hands()
        self.server = TlsServer(joined.backend, joined.reactor)
        self.server.work()
        self.assertEqual(secured, [True])
        joined.tunnel = Tunnel(joined.client_stream, self.tls, joined.ended, idle_timeout=10)
        joined.tunnel.start()

    def test_both_ways(self):
        """What goes through is the same on both sides, and the end is said under TLS while the other direction goes on."""
        self.joined.client.send(b"hello")
        self.assertEqual(self.server.take(), b"hello")
        self.joined.client.shutdown(socket.SHUT_WR)
        self.server.work()
        self.assertTrue(self.server.has_ended)
        self.server.send(b"still here")
        self.joined.settle()
        self.assertEqual(self.joined.client.take(), b"still here")
        self.server._connection.shutdown()
        self.server.flush()
        self.joined.assert_over(self, Outcome.COMPLETED)
        self.assertTrue(self.joined.client.has_ended)

    def test_farewell_of_the_tls_side(self):
        """A farewell under TLS is the end of its direction."""
        self.server.send(b"all")
        self.server._connection.shutdown()
        self.server.flush()
        self.joined.settle()
        self.assertEqual(self.joined.client.take(), b"all")
        self.assertTrue(self.joined.client.has_ended)
        self.joined.client.send(b"goodbye")
        self.joined.client.shutdown(socket.SHUT_WR)
        self.joined.settle()
        self.assertEqual(self.server.take(), b"goodbye")
        self.joined.assert_over(self, Outcome.COMPLETED)

    def test_cut(self):
        """A TLS side that ends without a farewell was cut off, which the other notices."""
        self.joined.backend.close()
        self.joined.assert_over(self, Outcome.BACKEND_CLOSED)
        self.assertTrue(self.joined.client.was_reset)

    def test_slow(self):
        """A TLS side that is slow holds the other, and is not idle while it takes something."""
        self.joined.backend.room = 10
        self.joined.client.send(bytes(50_000))
        self.joined.settle()
        self.assertIn("held by upstream-slow", repr(self.joined.client_stream))
        self.assertTrue(self.tls.unsent)
        self.joined.backend.room = 1 << 20
        self.joined.settle()
        self.assertEqual(len(self.server.take()), 50_000)
        self.assertEqual(self.tls.unsent, 0)


SIDES = ("client", "backend")
STEP = st.one_of(
    st.tuples(st.just("send"), st.sampled_from(SIDES), st.integers(1, 300_000)),
    st.tuples(st.just("take"), st.sampled_from(SIDES), st.just(0)),
    st.tuples(st.just("room"), st.sampled_from(SIDES), st.sampled_from([1, 100, 70_000, 1 << 20])),
    st.tuples(st.just("end"), st.sampled_from(SIDES), st.just(0)),
    st.tuples(st.just("wait"), st.just("client"), st.sampled_from([0, 1])),
)


class ScheduleTests(SynchronousTestCase):
    """
    Whatever happens in whatever order, nothing is lost, added or held for ever.
    """

    @settings(max_examples=60, deadline=None)
    @given(st.lists(STEP, max_size=25))
    def test_bytes_in_are_bytes_out(self, steps):
        """What goes in comes out, each end behind its last byte, for all mixtures of sending, stalling and ending."""
        joined = Joined(idle_timeout=1000)
        sent = {side: bytearray() for side in SIDES}
        heard = {side: bytearray() for side in SIDES}
        ended = set()
        pattern = bytes(range(251))
        for name, side, number in [*steps, ("room", "client", 1 << 30), ("room", "backend", 1 << 30)]:
            end = getattr(joined, side)
            if name == "send" and side not in ended:
                data = (pattern * (number // 251 + 1))[:number]
                end.peer.room = 1 << 30
                sent[side] += data[: end.send(data)]
            elif name == "take":
                heard[side] += end.take()
            elif name == "room":
                end.room = number
            elif name == "end" and side not in ended:
                ended.add(side)
                end.shutdown(socket.SHUT_WR)
            elif name == "wait":
                joined.reactor.advance(number)
            joined.settle()
        for side in SIDES:
            if side not in ended:
                getattr(joined, side).shutdown(socket.SHUT_WR)
            joined.settle()
        for side in SIDES:
            heard[side] += getattr(joined, side).take()
            self.assertTrue(getattr(joined, side).has_ended)
        self.assertEqual(heard["backend"], sent["client"])
        self.assertEqual(heard["client"], sent["backend"])
        self.assertEqual((joined.tunnel.bytes_received, joined.tunnel.bytes_sent), (len(sent["client"]), len(sent["backend"])))
        joined.assert_over(self, Outcome.COMPLETED)
