"""
Tests of doors: who comes in, who is turned away, and what happens when accepting fails.
"""

import errno
import os
import socket

from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from a3sgw.address import AddressSet
from a3sgw.errors import AssemblyError, Outcome
from a3sgw.interfaces import IConnectionGate
from a3sgw.listen.beginning import Http1Beginning
from a3sgw.listen.door import Door, DoorTally, Gates, bind
from a3sgw.net.deadline import Deadlines
from a3sgw.policy.arena import Arena
from a3sgw.policy.shared_slots import SharedCount
from a3sgw.proxy.entrypoint import Entrypoint, EntrypointTimeouts, Observers
from a3sgw.route.table import build_http_table
from a3sgw.testing import MemoryReactor, MemorySocket
from a3sgw.wire.http1 import RequestLimits

REQUEST = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"


class Listening(MemorySocket):
    """
    A listening socket; `errors` are raised by `accept`, one at a time, before anybody is let in.
    """

    def __init__(self, descriptor):
        super().__init__(descriptor)
        self.errors = []
        self.asked = 0

    def accept(self):
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return super().accept()


def entrypoint(name="web"):
    """
    Return an entrypoint without routes.
    """
    return Entrypoint(
        name=name,
        table=build_http_table(()),
        limits=RequestLimits(),
        timeouts=EntrypointTimeouts(),
        trusted=None,
        admin=None,
        observers=Observers(()),
        series=None,
        later=None,
    )


class DoorCase(SynchronousTestCase):
    """
    A door in memory.
    """

    def make(self, **gates):
        self.reactor = MemoryReactor()
        self.deadlines = Deadlines(self.reactor, self.reactor.seconds)
        self.deadlines.start()
        self.listening = Listening(5)
        self.reactor.sockets[5] = self.listening
        self.tally = DoorTally()
        self.door = Door(
            self.listening,
            ("127.0.0.1", 8080),
            entrypoint(),
            Gates(**gates),
            Http1Beginning(),
            self.tally,
            self.reactor,
            self.reactor.flushes,
            self.deadlines,
        )
        self.door.open()
        self.logged = []
        observer = self.logged.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        return self.door

    def arrive(self, peer="192.0.2.1", *rest):
        """
        Let a client arrive; return its end.
        """
        ours, theirs = MemorySocket.pair(10 + 2 * len(self.reactor.sockets))
        self.reactor.sockets[ours.fileno()] = ours
        self.listening.accepting.append((ours, (peer, 50000, *rest)))
        return theirs

    def connect(self, *peer):
        theirs = self.arrive(*peer)
        self.reactor.settle()
        return theirs

    def levels(self):
        """
        Return the levels of everything that was logged above debug.
        """
        return [event["log_level"] for event in self.logged if event["log_level"] > LogLevel.info]

    def assert_admitted(self, end):
        end.send(REQUEST)
        self.reactor.settle()
        self.assertTrue(end.take().startswith(b"HTTP/1.1 404 "))

    def assert_turned_away(self, end, status, word):
        heard = end.take()
        self.assertTrue(heard.startswith(b"HTTP/1.1 %d " % status), heard)
        self.assertIn(b"\r\nConnection: close\r\n", heard)
        head, _, body = heard.partition(b"\r\n\r\n")
        self.assertIn(b"\r\nContent-Length: %d\r\n" % len(body), head + b"\r\n")
        self.assertIn(b'"reason": "%b"' % word.encode(), body)
        self.assertTrue(end.has_ended)


class GateTests(DoorCase):
    """
    Who may come in.
    """

    def test_admitted(self):
        """Without gates everybody comes in, and is counted."""
        door = self.make()
        self.assertEqual(repr(door), "<Door web on port 8080, 0 connections>")
        clients = [self.connect() for _ in range(3)]
        for client in clients:
            self.assert_admitted(client)
        self.assertEqual((len(door.connections), self.tally.accepted, self.tally.refused), (3, {"web": 3}, {}))
        for client in clients:
            client.close()
        self.reactor.settle()
        self.assertEqual(len(door.connections), 0)

    def test_allowed_addresses(self):
        """Who is not allowed is told so and counted; IPv4 in IPv6 clothes is IPv4, and a zone does not matter."""
        self.make(allowed=AddressSet(["192.0.2.0/24", "2001:db8::/32", "fe80::/10"]))
        for peer in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "fe80::1%eth0"):
            self.assert_admitted(self.connect(peer))
        for peer in ("198.51.100.1", "::ffff:198.51.100.1", "2001:db9::1"):
            self.assert_turned_away(self.connect(peer), 403, "address-refused")
        self.assertEqual((self.tally.accepted, self.tally.refused), ({"web": 7}, {("web", "address-refused"): 3}))

    def test_nobody_allowed(self):
        """An empty list of addresses lets nobody in, which is not the same as no list."""
        self.make(allowed=AddressSet([]))
        self.assert_turned_away(self.connect(), 403, "address-refused")

    def test_mapped_peer(self):
        """A client with an IPv4 address is known by it, though the socket is an IPv6 one."""
        door = self.make()
        self.connect("::ffff:192.0.2.1", 0, 0)
        (connection,) = door.connections
        self.assertIn("<Http1Server 192.0.2.1 ", repr(connection))

    def test_connection_limit(self):
        """At the limit the next one is turned away; whoever leaves makes room."""
        self.make(max_connections=2)
        first, second = self.connect(), self.connect()
        self.assert_turned_away(self.connect(), 503, "connection-limit")
        self.assert_admitted(second)
        first.close()
        self.reactor.settle()
        third = self.connect()
        self.assert_admitted(third)
        self.assert_turned_away(self.connect(), 503, "connection-limit")
        self.assertEqual(self.tally.refused, {("web", "connection-limit"): 2})

    def test_no_connections(self):
        """A limit of 0 lets nobody in."""
        self.make(max_connections=0)
        self.assert_turned_away(self.connect(), 503, "connection-limit")

    def test_gates_change(self):
        """Other gates count from the next connection on; who is inside stays."""
        door = self.make()
        inside = self.connect()
        door.gates = Gates(allowed=AddressSet(["198.51.100.1"]))
        self.assert_admitted(inside)
        self.assert_turned_away(self.connect(), 403, "address-refused")
        self.assert_admitted(self.connect("198.51.100.1"))

    def test_turned_away_and_gone(self):
        """Somebody who is gone before being turned away does no harm."""
        self.make(allowed=AddressSet([]))
        self.arrive().close()
        self.reactor.settle()
        self.assertEqual(self.tally.refused, {("web", "address-refused"): 1})
        self.assertEqual(self.levels(), [])

    def test_many_at_once(self):
        """Hundreds who arrive at the same moment are all let in."""
        door = self.make()
        for _ in range(300):
            self.arrive()
        self.reactor.settle()
        self.assertEqual(len(door.connections), 300)


@implementer(IConnectionGate)
class Gate:
    """
    A middleware that answers `outcome`, or raises it, and keeps count of who is inside.
    """

    def __init__(self, outcome=None):
        self.outcome = outcome
        self.inside = []

    def admit(self, peer_packed):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if self.outcome is None:
            self.inside.append(peer_packed)
        return self.outcome

    def connection_ended(self, peer_packed):
        self.inside.remove(peer_packed)


class ForgetfulGate(Gate):
    """
    A middleware that fails when it is told of an end.
    """

    def connection_ended(self, peer_packed):
        raise ValueError("forgotten")


class HookTests(DoorCase):
    """
    Middlewares that decide about connections hear of each end exactly once.
    """

    PEER = b"\xc0\x00\x02\x01"

    def test_interface(self):
        """The fake is what it stands for."""
        verifyObject(IConnectionGate, Gate())

    def test_admitted(self):
        """Who is let in by all of them comes in, and all of them hear of the end."""
        one, other = Gate(), Gate()
        self.make(hooks=(one, other))
        client = self.connect()
        self.connect("2001:db8::1")
        self.assert_admitted(client)
        self.assertEqual([len(one.inside), len(other.inside)], [2, 2])
        client.close()
        self.reactor.settle()
        self.assertEqual((len(one.inside), other.inside), (1, one.inside))
        self.door.abort()
        self.assertEqual((one.inside, other.inside), ([], []))

    def test_turned_away(self):
        """Whoever is turned away by one is out for all, is told why, and is counted."""
        for outcome, status in ((Outcome.ADDRESS_REFUSED, 403), (Outcome.CONNECTION_LIMIT, 503)):
            one, last = Gate(), Gate()
            self.make(hooks=(one, Gate(outcome), last))
            self.assert_turned_away(self.connect(), status, outcome.word)
            self.assertEqual((one.inside, last.inside, self.tally.refused), ([], [], {("web", outcome.word): 1}))

    def test_own_gates_first(self):
        """Whom the entrypoint itself turns away no middleware is asked about."""
        gate = Gate()
        self.make(hooks=(gate,), max_connections=1)
        self.connect()
        self.assert_turned_away(self.connect(), 503, "connection-limit")
        self.assertEqual(gate.inside, [self.PEER])

    def test_gates_change(self):
        """Who let a connection in hears of its end, though a reload has put others in its place, who do not."""
        old, new = Gate(), Gate()
        door = self.make(hooks=(old,))
        client = self.connect()
        door.gates = Gates(hooks=(new,))
        other = self.connect()
        client.close()
        self.reactor.settle()
        self.assertEqual((old.inside, new.inside), ([], [self.PEER]))
        other.close()
        self.reactor.settle()
        self.assertEqual(new.inside, [])

    def test_gates_come_and_go(self):
        """Connections from before there was a middleware end without it, and those it let in end with it when it is configured no more."""
        gate = Gate()
        door = self.make()
        early = self.connect()
        door.gates = Gates(hooks=(gate,))
        late = self.connect()
        door.gates = Gates()
        early.close()
        self.reactor.settle()
        self.assertEqual(gate.inside, [self.PEER])
        late.close()
        self.reactor.settle()
        self.assertEqual(gate.inside, [])

    def test_drained(self):
        """A door that drains tells them of the ends too."""
        gate = Gate()
        door = self.make(hooks=(gate,))
        self.connect()
        door.drain()
        self.reactor.advance(1.6)
        self.assertEqual((gate.inside, len(door.connections)), ([], 0))

    def test_a_gate_fails(self):
        """A middleware that fails lets nobody in, the others do not count the connection, and the next one is judged anew."""
        one, broken = Gate(), Gate(ValueError("broken"))
        self.make(hooks=(one, broken))
        self.assert_turned_away(self.connect(), 500, "internal-error")
        self.assertEqual(one.inside, [])
        broken.outcome = None
        self.assert_admitted(self.connect())
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_gate_fails_at_the_end(self):
        """A middleware that fails when it is told of an end keeps nobody else from hearing of it."""
        gate = Gate()
        door = self.make(hooks=(ForgetfulGate(), gate))
        told = []
        door.idle = lambda: told.append(True)
        self.connect()
        door.drain()
        self.reactor.advance(1.6)
        self.assertEqual((gate.inside, told), ([], [True]))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_an_outcome_without_an_answer(self):
        """An outcome that comes without an answer ends the connection without one."""
        self.make(hooks=(Gate(Outcome.ANSWERED),))
        client = self.connect()
        self.assertEqual((client.take(), client.has_ended), (b"", True))
        self.assertEqual(self.tally.refused, {("web", "answered"): 1})

    def test_connection_that_cannot_be_taken(self):
        """A connection that fails after it was let in is not counted for ever."""
        gate = Gate()
        self.make(hooks=(gate,))
        strange = self.arrive()
        strange.peer.setsockopt = self.fail_to_set
        self.reactor.settle()
        self.assertEqual((gate.inside, strange.has_ended), ([], True))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def fail_to_set(self, *arguments):
        raise OSError(errno.EINVAL, "invalid")


class AcceptTests(DoorCase):
    """
    What happens when accepting fails.
    """

    def test_out_of_descriptors(self):
        """Without free descriptors the door pauses for a moment instead of spinning, says so, and goes on."""
        for number in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            door = self.make()
            self.listening.errors = [OSError(number, "too many")]
            client = self.connect()
            self.assertEqual((self.listening.asked, self.levels()), (1, [LogLevel.error]))
            self.assertNotIn(door, self.reactor.watched())
            self.reactor.advance(Door.RETRY_SECONDS + 0.1)
            self.assert_admitted(client)

    def test_out_of_descriptors_for_long(self):
        """While there are none the door tries again and again, and no more often than that."""
        self.make()
        self.listening.errors = [OSError(errno.EMFILE, "too many")] * 10
        client = self.connect()
        self.reactor.advance(2)
        self.assertLessEqual(self.listening.asked, 5)
        self.reactor.advance(10)
        self.assert_admitted(client)

    def test_closed_while_pausing(self):
        """A door that is closed while it pauses stays closed."""
        door = self.make()
        self.listening.errors = [OSError(errno.EMFILE, "too many")]
        self.connect()
        door.close()
        door.close()
        self.reactor.advance(2)
        self.assertEqual((door.fileno(), self.listening.asked), (-1, 1))
        self.assertEqual([call for call in self.reactor.getDelayedCalls() if call.func == door._resume], [])

    def test_drained_without_descriptors(self):
        """A door that drains while there are no descriptors does not try in vain again and again, and leaves nothing behind."""
        door = self.make()
        calls = len(self.reactor.getDelayedCalls())
        self.listening.errors = [OSError(errno.EMFILE, "too many")] * 100
        self.arrive()
        door.drain()
        self.assertEqual(len(self.reactor.getDelayedCalls()), calls)
        self.assertLessEqual(len(self.levels()), 1)

    def test_connection_gone_before_it_was_accepted(self):
        """A connection that was broken off in the queue is none of our business."""
        self.make()
        self.listening.errors = [ConnectionAbortedError(errno.ECONNABORTED, "aborted")]
        self.assert_admitted(self.connect())
        self.assertEqual(self.levels(), [])

    def test_other_errors(self):
        """Any other error is reported, and the door stays open."""
        self.make()
        self.listening.errors = [OSError(errno.EPERM, "not permitted")]
        self.assert_admitted(self.connect())
        self.assertEqual(self.levels(), [LogLevel.warn])

    def test_strange_connection(self):
        """A connection that cannot be taken is closed and reported, and the next one is."""
        door = self.make()
        strange = self.arrive("not an address")
        client = self.connect()
        self.assertTrue(strange.has_ended)
        self.assert_admitted(client)
        self.assertEqual(len(door.connections), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class EndTests(DoorCase):
    """
    How a door closes.
    """

    def test_close(self):
        """A closed door lets nobody in, and who is inside stays."""
        door = self.make()
        client = self.connect()
        door.close()
        self.assertTrue(self.listening.is_closed)
        self.assertNotIn(door, self.reactor.watched())
        self.assert_admitted(client)
        door.open()
        self.assertNotIn(door, self.reactor.watched())

    def test_drain(self):
        """A draining door says when the last connection has ended."""
        door = self.make()
        told = []
        door.idle = lambda: told.append(len(door.connections))
        self.connect()
        door.drain()
        self.assertEqual(told, [])
        self.reactor.advance(1.6)
        self.assertEqual((told, len(door.connections)), ([0], 0))

    def test_drain_takes_who_has_arrived(self):
        """Who was accepted by the kernel before the door drains is served."""
        door = self.make()
        client = self.arrive()
        client.send(REQUEST)
        door.drain()
        self.reactor.settle()
        heard = client.take()
        self.assertTrue(heard.startswith(b"HTTP/1.1 404 "), heard)
        self.assertIn(b"\r\nConnection: close\r\n", heard)

    def test_abort_of_idle_connections(self):
        """Breaking off connections without an exchange costs none."""
        door = self.make()
        client = self.connect()
        self.assertEqual(door.abort(), 0)
        self.assertTrue(client.has_ended)
        self.assertEqual(len(door.connections), 0)

    def test_given_up_by_the_reactor(self):
        """A door whose descriptor the reactor gives up is closed."""
        door = self.make()
        door.connectionLost(None)
        self.assertTrue(self.listening.is_closed)
        self.assertEqual(door.logPrefix(), "door")


class BindTests(SynchronousTestCase):
    """
    `bind` opens real sockets, or says what is in the way.
    """

    def bind(self, host, port=0):
        sock = bind("web", host, port)
        self.addCleanup(sock.close)
        return sock

    def refusal(self, host, port):
        error = self.assertRaises(AssemblyError, self.bind, host, port)
        self.assertIsNotNone(error)
        return str(error)

    def test_listening(self):
        """A bound socket listens, without blocking, and is closed on exec."""
        sock = self.bind("127.0.0.1")
        self.assertFalse(sock.getblocking())
        self.assertFalse(sock.get_inheritable())
        socket.create_connection(sock.getsockname()).close()

    def test_everywhere(self):
        """Without a host both IPv4 and IPv6 are served where there are both."""
        port = self.bind("").getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        if socket.has_dualstack_ipv6():
            socket.create_connection(("::1", port)).close()

    def test_localhost(self):
        """A name with addresses of both kinds stands for its IPv4 one."""
        self.assertEqual(self.bind("localhost").family, socket.AF_INET)

    def test_in_use(self):
        """An address in use is named, with the entrypoint and what to do."""
        port = self.bind("127.0.0.1").getsockname()[1]
        self.assertEqual(
            self.refusal("127.0.0.1", port),
            f'entrypoint "web" cannot listen on 127.0.0.1:{port}: Address already in use; '
            "stop the process that uses it, or choose another port",
        )

    def test_not_here(self):
        """An address of another machine is refused with the reason, an IPv6 one in brackets."""
        self.assertEqual(
            self.refusal("192.0.2.1", 8080), 'entrypoint "web" cannot listen on 192.0.2.1:8080: Cannot assign requested address'
        )
        self.assertTrue(self.refusal("2001:db8::1", 8080).startswith('entrypoint "web" cannot listen on [2001:db8::1]:8080: '))

    def test_unknown_name(self):
        """A name that cannot be resolved is refused with the reason."""
        self.assertTrue(self.refusal("no-such-host.invalid", 80).startswith('entrypoint "web" cannot listen on no-such-host.invalid:80: '))


class WorkersTests(DoorCase):
    """
    A door that another worker has too.
    """

    def make_shared(self, theirs, **gates):
        arena = Arena.create(2)
        other = Arena(os.dup(arena.descriptor), 1, 2)
        self.addCleanup(arena.close)
        self.addCleanup(other.close)
        self.others = SharedCount(other, "x")
        self.others.set(theirs)
        return self.make(shared=SharedCount(arena, "x"), **gates)

    def test_left_to_others(self):
        """Whoever has more connections than its share leaves the next to others for a moment; what they leave it takes."""
        door = self.make_shared(0)
        clients = [self.arrive() for _ in range(8)]
        for _ in range(20):
            self.reactor.advance(Door.TURN_SECONDS)
        self.assertEqual((len(door.connections), self.others.others), (8, 8))
        late = self.arrive()
        self.reactor.settle()
        self.assertEqual(len(door.connections), 8)
        self.reactor.advance(Door.TURN_SECONDS)
        self.assert_admitted(late)
        for client in [*clients, late]:
            client.close()
        self.reactor.settle()
        self.assertEqual(self.others.others, 0)

    def test_share(self):
        """Whoever has its share, or less, lets everybody in at once."""
        door = self.make_shared(6)
        for _ in range(6):
            self.connect()
        self.assertEqual(len(door.connections), 6)

    def test_limit(self):
        """The connections of all workers count."""
        self.make_shared(3, max_connections=4)
        client = self.connect()
        self.assert_turned_away(self.connect(), 503, "connection-limit")
        self.assertEqual(self.others.others, 1)
        client.close()
        self.reactor.settle()
        self.assert_admitted(self.connect())

    def test_refused_by_another_gate(self):
        """Who is turned away for another reason takes no place."""
        self.make_shared(0, max_connections=4, allowed=AddressSet(["198.51.100.1"]))
        self.connect()
        self.assertEqual(self.others.others, 0)

    def test_drain_takes_all(self):
        """At the end what has come is let in, whoever has more."""
        door = self.make_shared(0)
        for _ in range(20):
            self.arrive()
        door.drain()
        self.assertEqual(self.listening.accepting, [])
