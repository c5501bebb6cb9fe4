"""
Tests of the pool alone: who gets a connection, when, and in which order.
"""

import socket

from a3sgw.errors import Outcome
from a3sgw.proxy.pool import Pool
from a3sgw.proxy.test.leases import ADDRESS, Lessee, PoolCase


class LeaseTests(PoolCase):
    """
    Connections are made, lent, taken back and lent again.
    """

    def test_new_connection(self):
        """The first lessee waits for a connection to be made, and then has it."""
        self.make()
        lessee = self.ask()
        self.assertEqual(self.counts(), (0, 0, 1))
        self.assertEqual(repr(self.pool), "<Pool http://app.test: 0 leased, 0 idle, 1 connecting, 0 waiting>")
        self.dialer.answer(ADDRESS)
        (attempt,) = self.dialer.attempts
        self.assertEqual(attempt.addresses, [ADDRESS])
        self.assertEqual(lessee.told, [])
        attempt.succeed()
        self.assertEqual(len(lessee.told), 1)
        self.assertFalse(lessee.told[0].was_used)
        self.assertEqual(self.counts(), (1, 0, 0))

    def test_newest_first(self):
        """Of several idle connections the one that came back last is lent first."""
        self.make()
        upstreams = [self.take()[0] for _ in range(3)]
        for upstream in upstreams:
            self.pool.release(upstream)
        self.assertEqual(self.counts(), (0, 3, 0))
        self.assertEqual([self.pool.lease(Lessee()) for _ in range(3)], upstreams[::-1])
        self.assertEqual(self.counts(), (3, 0, 0))

    def test_fresh(self):
        """Who wants a fresh connection gets one, though others are idle."""
        self.make()
        upstream, _ = self.take()
        self.pool.release(upstream)
        lessee = self.ask(fresh=True)
        self.dialer.attempts[-1].succeed()
        self.assertIsNot(lessee.told[0], upstream)
        self.assertEqual(self.counts(), (1, 1, 0))

    def test_fresh_at_the_limit(self):
        """At the limit, the oldest idle connection makes room for a fresh one."""
        self.make(max_connections=2)
        (old, old_peer), (new, new_peer) = self.take(), self.take()
        self.pool.release(old)
        self.pool.release(new)
        self.ask(fresh=True)
        self.assertEqual(self.counts(), (0, 1, 1))
        self.assertEqual((old_peer.has_ended, new_peer.has_ended), (True, False))

    def test_discard(self):
        """A connection that cannot be used again is struck off."""
        self.make()
        upstream, _ = self.take()
        self.pool.discard(upstream)
        self.assertEqual(self.counts(), (0, 0, 0))

    def test_idle_limit(self):
        """A connection that comes back when enough are idle is closed."""
        self.make(max_idle_connections=1)
        (kept, kept_peer), (other, other_peer) = self.take(), self.take()
        self.pool.release(kept)
        self.pool.release(other)
        self.assertEqual(self.counts(), (0, 1, 0))
        self.assertEqual((kept_peer.has_ended, other_peer.has_ended), (False, True))

    def test_idle_timeout(self):
        """A connection that is idle for long is closed; the time counts from its last use."""
        self.make(idle_timeout=10.0)
        upstream, peer = self.take()
        for _ in range(3):
            self.pool.release(upstream)
            self.reactor.advance(9)
            self.assertIs(self.pool.lease(Lessee()), upstream)
        self.pool.release(upstream)
        self.reactor.advance(11)
        self.assertTrue(peer.has_ended)
        self.assertEqual(self.counts(), (0, 0, 0))

    def test_idle_connection_ends(self):
        """An idle connection that the backend closes, breaks or talks on is not lent any more."""
        for ending in (
            lambda peer: peer.close(),
            lambda peer: (peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b""), peer.close()),
            lambda peer: peer.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n"),
        ):
            self.make()
            upstream, peer = self.take()
            self.pool.release(upstream)
            ending(peer)
            self.reactor.settle()
            self.assertEqual(self.counts(), (0, 0, 0))
            self.ask()


class QueueTests(PoolCase):
    """
    With all connections in use, lessees wait in line.
    """

    def test_limit(self):
        """No more connections are made than allowed, those being made included."""
        self.make(max_connections=2)
        self.take()
        self.ask()
        waiting = self.ask()
        self.assertEqual(self.counts(), (1, 0, 1))
        self.assertEqual(repr(self.pool), "<Pool http://app.test: 1 leased, 0 idle, 1 connecting, 1 waiting>")
        self.assertEqual(waiting.told, [])

    def test_first_come_first_served(self):
        """A connection that comes back goes to whoever has waited longest."""
        self.make(max_connections=1)
        upstream, _ = self.take()
        waiting = [self.ask() for _ in range(3)]
        for position in range(3):
            self.pool.release(upstream)
            self.assertEqual([len(lessee.told) for lessee in waiting], [1] * (position + 1) + [0] * (2 - position))
            self.assertEqual(self.counts(), (1, 0, 0))
        self.pool.release(upstream)
        self.assertEqual(self.counts(), (0, 1, 0))

    def test_broken_connection_makes_room(self):
        """In place of a connection that is gone the next in line gets a new one."""
        self.make(max_connections=1)
        upstream, _ = self.take()
        first, second = self.ask(), self.ask()
        self.pool.discard(upstream)
        self.assertEqual(self.counts(), (0, 0, 1))
        self.dialer.attempts[-1].succeed()
        self.assertEqual((len(first.told), second.told), (1, []))

    def test_failed_attempt_makes_room(self):
        """When an attempt fails, the next in line gets its own, before the failure is told."""
        self.make(max_connections=1)
        first, second = self.ask(), self.ask()
        self.dialer.answer(ADDRESS)
        self.dialer.attempts[0].fail()
        self.assertEqual(first.told, [Outcome.CONNECT_REFUSED])
        self.assertEqual(self.counts(), (0, 0, 1))
        self.dialer.answer(ADDRESS)
        self.dialer.attempts[0].succeed()
        self.assertEqual(len(second.told), 1)

    def test_wait_is_bounded(self):
        """Who waits too long is told so, and no connection goes to it afterwards."""
        self.make(max_connections=1)
        upstream, _ = self.take()
        first = self.ask()
        self.reactor.advance(3)
        second = self.ask()
        self.reactor.advance(3)
        self.assertEqual((first.told, second.told), ([Outcome.POOL_EXHAUSTED], []))
        self.pool.release(upstream)
        self.assertEqual((first.told, second.told), ([Outcome.POOL_EXHAUSTED], [upstream]))
        self.reactor.advance(20)
        self.assertEqual(second.told, [upstream])

    def test_leaving_the_line(self):
        """Who leaves the line hears nothing any more, and those behind it move up."""
        self.make(max_connections=1)
        upstream, _ = self.take()
        first, second = self.ask(), self.ask()
        self.pool.cancel(first)
        self.pool.cancel(first)
        self.pool.cancel(Lessee())
        self.pool.release(upstream)
        self.reactor.advance(20)
        self.assertEqual((first.told, second.told), ([], [upstream]))

    def test_cancelled_attempt_makes_room(self):
        """Who leaves while its connection is made gives up the attempt, and the next in line begins one."""
        self.make(max_connections=1)
        first = self.ask()
        self.dialer.answer(ADDRESS)
        second = self.ask()
        self.pool.cancel(first)
        self.assertEqual(self.counts(), (0, 0, 1))
        (attempt,) = self.dialer.attempts
        attempt.succeed()
        self.assertEqual((first.told, len(second.told)), ([], 1))

    def test_released_at_once(self):
        """Lessees who give their connection back within the call do not upset the line."""
        self.make(max_connections=1)
        upstream, _ = self.take()
        quick = [self.ask(self.pool.release), self.ask(self.pool.discard)]
        waiting = self.ask()
        self.pool.release(upstream)
        self.assertEqual([lessee.told for lessee in quick], [[upstream], [upstream]])
        self.assertEqual(self.counts(), (0, 0, 1))
        self.dialer.attempts[-1].succeed()
        self.assertEqual(len(waiting.told), 1)
        self.assertEqual(self.counts(), (1, 0, 0))

    def test_lease_again_within_the_call(self):
        """A lessee who is refused may ask again at once, and goes to the end of the line."""
        self.make(max_connections=1)
        again = Lessee()
        again.lease_failed = lambda outcome: (again.told.append(outcome), self.pool.lease(again))
        self.assertIsNone(self.pool.lease(again))
        self.dialer.answer(ADDRESS)
        second = self.ask()
        self.dialer.attempts[0].fail()
        self.dialer.answer(ADDRESS)
        self.dialer.attempts[0].succeed()
        self.assertEqual((again.told, len(second.told)), ([Outcome.CONNECT_REFUSED], 1))
        self.pool.release(second.told[0])
        self.assertEqual(again.told, [Outcome.CONNECT_REFUSED, second.told[0]])


class RetirementTests(PoolCase):
    """
    The pool of a backend that was removed from the configuration.
    """

    def test_idle_connections_close(self):
        """What is idle is closed at once, what is in use when it comes back."""
        self.make()
        (idle, idle_peer), (used, used_peer) = self.take(), self.take()
        self.pool.release(idle)
        self.pool.retire()
        self.assertEqual((idle_peer.has_ended, used_peer.has_ended), (True, False))
        self.assertEqual(self.counts(), (1, 0, 0))
        self.pool.release(used)
        self.assertTrue(used_peer.has_ended)
        self.assertEqual(self.counts(), (0, 0, 0))
        self.pool.retire()

    def test_those_in_line_are_served(self):
        """Who was in line is served all the same, and its connection is closed after the last."""
        self.make(max_connections=1)
        upstream, peer = self.take()
        first, second = self.ask(), self.ask()
        self.pool.retire()
        self.pool.release(upstream)
        self.assertEqual((first.told, second.told), ([upstream], []))
        self.pool.release(upstream)
        self.assertEqual(second.told, [upstream])
        self.assertFalse(peer.has_ended)
        self.pool.release(upstream)
        self.assertTrue(peer.has_ended)
        self.assertEqual(self.counts(), (0, 0, 0))

    def test_attempts_go_on(self):
        """Who waited for a connection gets it; it is closed when it comes back."""
        self.make()
        lessee = self.ask()
        self.dialer.answer(ADDRESS)
        self.pool.retire()
        peer = self.dialer.attempts[0].succeed()
        self.pool.release(lessee.told[0])
        self.assertTrue(peer.has_ended)


class AddressTests(PoolCase):
    """
    Names are resolved when they must be.
    """

    def test_addresses_are_kept(self):
        """A name is not resolved again for each connection, but after a while it is."""
        self.make()
        self.take()
        self.take()
        self.assertEqual(self.dialer.questions, [])
        self.reactor.advance(Pool.ADDRESSES_KEPT_SECONDS)
        self.ask()
        self.assertEqual([question[:2] for question in self.dialer.questions], [("app.test", 80)])

    def test_addresses_are_forgotten(self):
        """After a failure the name is resolved anew: it may have moved."""
        self.make()
        self.take()
        lessee = self.ask()
        self.dialer.attempts[0].fail(Outcome.CONNECT_TIMEOUT)
        self.assertEqual(lessee.told, [Outcome.CONNECT_TIMEOUT])
        self.ask()
        self.assertEqual(len(self.dialer.questions), 1)

    def test_unknown_name(self):
        """A name without addresses fails the lease, but not before `lease` has returned."""
        self.make()
        lessee = self.ask()
        self.dialer.answer()
        self.assertEqual(lessee.told, [])
        self.reactor.settle()
        self.assertEqual(lessee.told, [Outcome.DNS_ERROR])
        self.assertEqual(self.counts(), (0, 0, 0))

    def test_slow_resolver(self):
        """The time for connecting includes the time for the name, and an answer that comes later is still of use to others."""
        self.make()
        lessee = self.ask()
        self.reactor.advance(6)
        self.assertEqual(lessee.told, [Outcome.CONNECT_TIMEOUT])
        self.assertEqual(self.counts(), (0, 0, 0))
        self.dialer.answer(ADDRESS)
        self.assertEqual(self.dialer.attempts, [])
        self.reactor.advance(6)
        self.assertEqual(lessee.told, [Outcome.CONNECT_TIMEOUT])

    def test_time_limit(self):
        """What the name has taken is not given to the connection once more."""
        self.make()
        self.ask()
        self.reactor.advance(2)
        self.dialer.answer(ADDRESS)
        (attempt,) = self.dialer.attempts
        self.assertEqual(attempt.deadline, 5.0)

    def test_leaving_while_resolving(self):
        """Nothing is connected for somebody who left while the name was being resolved, whatever the answer."""
        for answer in ((ADDRESS,), ()):
            self.make()
            lessee = self.ask()
            self.pool.cancel(lessee)
            self.assertEqual(self.counts(), (0, 0, 0))
            self.dialer.answer(*answer)
            self.reactor.advance(10)
            self.assertEqual((self.dialer.attempts, lessee.told), ([], []))
            self.assertEqual(self.counts(), (0, 0, 0))

    def test_leaving_after_a_failed_resolution(self):
        """Who leaves between the failure and its report is not told."""
        self.make()
        lessee = self.ask()
        self.dialer.answer()
        self.pool.cancel(lessee)
        self.reactor.advance(10)
        self.assertEqual(lessee.told, [])
        self.assertEqual(self.counts(), (0, 0, 0))

    def test_unix_socket(self):
        """A Unix domain socket needs no resolver."""
        self.make(path="/run/app.sock")
        self.ask()
        self.assertEqual(self.dialer.questions, [])
        self.assertEqual(self.dialer.attempts[0].addresses, [(socket.AF_UNIX, "/run/app.sock")])
