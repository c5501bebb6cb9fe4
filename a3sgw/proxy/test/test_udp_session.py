"""
Tests of what becomes of datagrams between clients and servers.
"""

import errno
import json

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import Outcome
from a3sgw.proxy.admission import Admission
from a3sgw.proxy.test.leases import FakeDialer
from a3sgw.proxy.test.udp_dialogues import ADA, BOB, TWO, UdpCase, configure
from a3sgw.proxy.udp_pool import UdpPool
from a3sgw.proxy.udp_waiting import MAX_KEPT_DATAGRAMS, Waiting
from a3sgw.service.backend import Backend, BackendAddress
from a3sgw.testing import MemoryReactor


class RelayTests(UdpCase):
    """
    Both ways, for each client on its own.
    """

    def test_both_ways(self):
        """What a client sends reaches a server, and what the server answers reaches that client, empty datagrams too."""
        self.begin()
        for data in (b"question", b"", bytes(65507)):
            self.say(data)
            self.reply(b"re:" + data[:4])
            self.assertEqual(self.link().take(), [data])
            self.assertEqual(self.socket.sent.pop(), (b"re:" + data[:4], ADA))
        self.assertEqual(self.servers(), [1])

    def test_clients_are_apart(self):
        """Each client has a socket of its own towards its server, and hears only its own answers; another port is another client."""
        self.begin()
        others = [BOB, (ADA[0], 5001)]
        for client in (ADA, *others):
            self.say(b"hello", client)
        for number, client in enumerate((ADA, *others)):
            self.reply(b"%d" % number, number)
            self.assertEqual(self.socket.sent.pop(), (b"%d" % number, client))
        self.assertEqual(self.sessions(), 3)

    def test_many_at_once(self):
        """A burst in one event is passed on whole and in order."""
        self.begin()
        self.socket.arrived.extend((b"%d" % number, ADA) for number in range(1000))
        self.reactor.settle()
        self.assertEqual(self.link().take(), [b"%d" % number for number in range(1000)])
        self.link().arrived.extend((b"%d" % number, None) for number in range(1000))
        self.reactor.settle()
        self.assertEqual(self.socket.take(), [b"%d" % number for number in range(1000)])

    def test_turns(self):
        """Clients are spread over the servers by the service's strategy, and each stays with its own."""
        self.begin(*TWO)
        for client in (ADA, BOB, ("192.0.2.30", 1), ADA, BOB):
            self.say(b"x", client)
        self.assertEqual(self.servers(), [1, 2, 1])
        self.assertEqual(self.active(), {1: 2, 2: 1})

    def test_least_connections(self):
        """What counts for `least-connections` are sessions."""
        self.begin(*TWO, balancing='strategy = "least-connections"')
        for port in range(4):
            self.say(b"x", (ADA[0], port))
        self.reactor.advance(20)
        self.say(b"x", (ADA[0], 1))
        self.say(b"x", (ADA[0], 3))
        self.reactor.advance(15)
        # Those at the first server were silent for too long.
        self.assertEqual(self.active(), {1: 0, 2: 2})
        for port in (10, 11):
            self.say(b"x", (ADA[0], port))
        self.assertEqual(self.servers()[4:], [1, 1])

    def test_hash(self):
        """By `consistent-hash` a client's address decides, whichever port it sends from."""
        self.begin(*TWO, balancing='strategy = "consistent-hash"\n hash {\n max_load_percent = 10000\n}')
        for port in range(5):
            self.say(b"x", (ADA[0], port))
        self.assertEqual(len(set(self.servers())), 1)

    def test_congested(self):
        """What a socket does not take at once is dropped and counted, as networks do; the session goes on."""
        self.begin()
        self.say(b"first")
        for code, reason in ((errno.EAGAIN, "upstream-congested"), (errno.ENOBUFS, "upstream-congested"), (errno.EMSGSIZE, "too-large")):
            before = self.dropped().get(reason, 0)
            self.link().error = code
            self.session().take(memoryview(b"lost"))
            self.assertEqual(self.dropped()[reason], before + 1)
        self.say(b"last")
        self.assertEqual(self.link().take(), [b"first", b"last"])

    def test_client_unreachable(self):
        """An answer that cannot be sent to its client is dropped and counted."""
        self.begin()
        self.say(b"x")
        for code, reason in ((errno.EAGAIN, "client-congested"), (errno.EPERM, "client-unreachable")):
            self.socket.error = code
            # Straight to it: here the reactor would see the error first.
            self.session()._answered(memoryview(b"lost"))
            self.assertEqual(self.dropped()[reason], 1)
        self.assertEqual(self.socket.take(), [])


class TimeTests(UdpCase):
    """
    How long a client is known.
    """

    def test_silence(self):
        """A session ends when nothing has moved for the time configured; it is counted and logged, and its server let go of."""
        self.begin(entrypoint="udp_session_timeout_secs = 10")
        self.say(b"abc")
        self.reply(b"defgh")
        self.reactor.advance(9)
        self.assertEqual(self.sessions(), 1)
        self.reactor.advance(2)
        self.assertEqual((self.sessions(), self.active()), (0, {1: 0}))
        self.assertEqual(self.ended(), [("completed", 1, 1, 1)])
        self.assertTrue(self.link().is_closed)
        (line,) = [json.loads(line) for line in self.dialogue.sink.data.splitlines()]
        told = {key: line[key] for key in ("client_ip", "entrypoint", "router", "service", "backend", "outcome", "scheme", "method")}
        self.assertEqual(
            told,
            {
                "client_ip": "192.0.2.10",
                "entrypoint": "dns",
                "router": "dns",
                "service": "resolvers",
                "backend": "udp://192.0.2.1:53",
                "outcome": "completed",
                "scheme": "udp",
                "method": "UDP",
            },
        )
        self.assertEqual((line["request_bytes"], line["response_bytes"], line["request_datagrams"]), (3, 5, 1))

    def test_either_direction(self):
        """B55: a client that only sends stays known, and so does one that only hears."""
        self.begin(entrypoint="udp_session_timeout_secs = 10")
        self.say(b"x")
        for _ in range(5):
            self.reactor.advance(6)
            self.say(b"x")
        for _ in range(5):
            self.reactor.advance(6)
            self.reply(b"y")
        self.assertEqual((self.sessions(), len(self.dialogue.links)), (1, 1))
        self.reactor.advance(11)
        self.assertEqual(self.ended(), [("completed", 1, 6, 5)])

    def test_many(self):
        """At the bound, datagrams of new clients are dropped and counted, and those of known ones are not."""
        self.begin(entrypoint="udp_max_sessions = 2")
        for port in range(5):
            self.say(b"x", (ADA[0], port))
        self.assertEqual((self.sessions(), self.dropped()), (2, {"session-limit": 3}))
        self.say(b"y", (ADA[0], 0))
        self.assertEqual(self.link(0).take(), [b"x", b"y"])

    def test_expired_make_room(self):
        """At the bound, whoever was silent for too long makes room at once, before the sweep has come by."""
        self.begin(entrypoint="udp_max_sessions = 2\n udp_session_timeout_secs = 1")
        self.say(b"x", ADA)
        self.reactor.advance(0.4)
        self.say(b"x", BOB)
        self.reactor.rightNow += 0.7
        self.say(b"new", ("192.0.2.30", 1))
        self.assertEqual((self.sessions(), self.dropped()), (2, {}))
        self.assertEqual(self.link().take(), [b"new"])


class NobodyThereTests(UdpCase):
    """
    Servers that are not there.
    """

    def test_next_datagram_goes_elsewhere(self):
        """When the kernel tells that a server's port is closed, the client's next datagram goes to another server."""
        self.begin(*TWO)
        self.say(b"lost")
        self.refuse()
        self.assertEqual((self.active(), self.sessions()), ({1: 0, 2: 0}, 1))
        self.say(b"found")
        self.reply(b"answer")
        self.assertEqual(self.servers(), [1, 2])
        self.assertEqual((self.link().take(), self.socket.sent), ([b"found"], [(b"answer", ADA)]))

    def test_told_while_sending(self):
        """The error may come with the attempt to send the next datagram; then that one goes to another server already."""
        self.begin(*TWO)
        self.say(b"lost")
        self.link().error = errno.ECONNREFUSED
        self.session().take(memoryview(b"found"))
        self.assertEqual((self.servers(), self.link().take()), ([1, 2], [b"found"]))

    def test_all_in_turn(self):
        """When all have refused, the client's next datagram begins anew with any: servers come back."""
        self.begin(*TWO)
        for number in range(5):
            self.say(b"%d" % number)
            self.refuse()
        self.assertEqual(self.servers(), [1, 2, 1, 2, 1])
        self.reactor.advance(40)
        self.assertEqual(self.ended(), [("connect-refused", 1, 5, 0)])

    def test_no_way(self):
        """A server to which nothing can be sent at all costs one attempt for each server, and no endless round."""
        self.begin(*TWO)
        self.dialogue.link_error = errno.ENETUNREACH
        self.say(b"x")
        self.assertEqual(self.dialogue.links, [])
        self.assertEqual(self.dropped(), {"connect-failed": 1})
        self.dialogue.link_error = 0
        self.say(b"y")
        self.assertEqual(self.link().take(), [b"y"])

    def test_no_descriptor(self):
        """That this process is out of descriptors does not speak against a server; it costs one datagram, which is counted."""
        passive = "passive_health {\n consecutive_errors = 1\n error_threshold = 1\n}"
        self.begin(*TWO, balancing=passive)
        self.dialogue.link_error = errno.EMFILE
        self.say(b"x")
        self.assertEqual((self.dropped(), self.active()), ({"out-of-descriptors": 1}, {1: 0, 2: 0}))
        self.assertTrue(all(row["up"] for row in self.gauge("backends")))
        self.dialogue.link_error = 0
        self.say(b"y")
        self.assertEqual(self.link().take(), [b"y"])

    def test_bug(self):
        """A bug on the way to a server costs one datagram; nobody is counted for ever, and it is reported."""
        self.begin()

        def fail(done):
            raise ValueError("bug")

        self.dialogue.resolver = fail
        self.say(b"x")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual((self.sessions(), self.active()), (0, {1: 0}))

    def test_passive_verdict(self):
        """Refusals speak against a server: it is set aside, and new clients go to others; an answer speaks for it."""
        self.begin(*TWO, balancing="passive_health {\n consecutive_errors = 2\n error_threshold = 2\n}")
        for port in (1, 2, 3):
            self.say(b"x", (ADA[0], port))
            self.say(b"x", (BOB[0], port))
        for number in (0, 2):
            self.refuse(number)
        up = {row["url"][-4]: row["up"] for row in self.gauge("backends")}
        self.assertEqual(up, {"1": False, "2": True})
        for port in (10, 11, 12):
            self.say(b"x", (ADA[0], port))
        self.assertEqual(self.servers()[6:], [2, 2, 2])
        # After its time a trial, which the answer decides.
        self.reactor.advance(29)
        for port in (20, 21):
            self.reactor.advance(0.9)
            self.say(b"x", (ADA[0], port))
        trial = self.servers().index(1, 6)
        self.reply(b"y", trial)
        self.assertTrue(all(row["up"] for row in self.gauge("backends")))

    def test_failover(self):
        """The service that steps in gets the clients whose own servers have all refused, or are all set aside."""
        spare = 'services "spare" {\n load_balancer {\n servers = [{ url = "udp://192.0.2.9:53" }]\n}\n}'
        passive = "passive_health {\n consecutive_errors = 1\n max_ejection_percent = 100\n}"
        self.begin(service='failover {\n service = "spare"\n}', more=spare, balancing=passive)
        self.say(b"a")
        self.refuse()
        self.say(b"b")
        self.say(b"c", BOB)
        self.assertEqual(self.servers()[:2], [1, 9])
        self.assertEqual(self.link(1).take(), [b"b"])

    def test_no_backend(self):
        """B55: without a server that may be used, datagrams are dropped and counted, and nobody is remembered for it."""
        self.begin()
        self.dialogue.reload(configure().replace('53" }', '53", state = "drain" }'))
        self.say(b"x")
        self.say(b"y", BOB)
        self.assertEqual((self.dropped(), self.sessions(), self.ended()), ({"no-backend": 2}, 0, []))


class NameTests(UdpCase):
    """
    Servers that have names.
    """

    def begin_with_name(self, **parts):
        self.begin("udp://dns.test:53", **parts)
        self.questions = []
        self.dialogue.resolver = self.questions.append

    def answer(self, *addresses):
        self.questions.pop(0)([(2, (address, 53)) for address in addresses])
        self.reactor.settle()

    def test_waits(self):
        """What a client sends while a name is looked up follows in order; a crowd asks once, and for a while nobody asks again."""
        self.begin_with_name()
        self.say(b"1")
        self.say(b"2")
        self.say(b"3", BOB)
        self.assertEqual((len(self.questions), self.dialogue.links), (1, []))
        self.answer("192.0.2.7")
        self.assertEqual([link.take() for link in self.dialogue.links], [[b"1", b"2"], [b"3"]])
        self.say(b"4", ("192.0.2.30", 1))
        self.assertEqual((self.questions, self.servers()), ([], [7, 7, 7]))
        self.reactor.advance(11)
        self.say(b"5", ("192.0.2.30", 2))
        self.assertEqual(len(self.questions), 1)

    def test_bound(self):
        """No more of a client waits than the bound; the rest is dropped and counted."""
        self.begin_with_name()
        for number in range(MAX_KEPT_DATAGRAMS + 3):
            self.say(b"%d" % number)
        self.assertEqual(self.dropped(), {"buffer-full": 3})
        self.answer("192.0.2.7")
        self.assertEqual(len(self.link().take()), MAX_KEPT_DATAGRAMS)

    def test_unknown(self):
        """A name that has no address is as a server that is not there."""
        self.begin_with_name()
        self.say(b"x")
        self.answer()
        self.assertEqual((self.dropped(), self.active_total()), ({"dns-error": 1}, 0))
        self.say(b"y")
        self.answer("192.0.2.7")
        self.assertEqual(self.link().take(), [b"y"])

    def test_no_answer(self):
        """A question that nobody answers is given up after the time for connections."""
        self.begin_with_name(service="timeouts {\n connect = 2\n}")
        self.say(b"x")
        self.reactor.advance(3)
        self.assertEqual(self.dropped(), {"dns-error": 1})
        self.answer("192.0.2.7")
        self.assertEqual(self.dialogue.links, [])

    def test_ended_while_asking(self):
        """A session that ends while its server's name is looked up leaves nothing behind."""
        self.begin_with_name(entrypoint="udp_session_timeout_secs = 1", service="timeouts {\n connect = 60\n}")
        self.say(b"x")
        self.reactor.advance(2)
        self.answer("192.0.2.7")
        self.assertEqual((self.dialogue.links, self.active_total(), self.dropped()), ([], 0, {"completed": 1}))

    def active_total(self):
        return sum(row["active"] for row in self.gauge("backends"))


class PoolTests(SynchronousTestCase):
    """
    Where a server is.
    """

    def test_doubt(self):
        """A server that was not where it should be is looked up again."""
        reactor = MemoryReactor()
        dialer = FakeDialer(reactor)
        pool = UdpPool(Backend("s", "udp://a:1", BackendAddress("udp", "a", 1, "", b"", b""), 1), dialer, 5.0)
        told: list[object] = []
        pool.find(told.append)
        dialer.answer((2, ("192.0.2.1", 1)))
        pool.find(told.append)
        self.assertEqual((len(told), dialer.questions), (2, []))
        pool.doubt()
        pool.find(told.append)
        self.assertEqual(len(dialer.questions), 1)
        self.assertIn("1 asking", repr(pool))


class FullKeeper:
    """
    A door that lets so many bytes wait.
    """

    def __init__(self, room):
        self.room = room

    def may_keep(self, size):
        if size > self.room:
            return False
        self.room -= size
        return True

    def kept_no_more(self, size):
        self.room += size


class WaitingTests(SynchronousTestCase):
    """
    What waits of one client.
    """

    def test_bounds(self):
        """There is a bound on the datagrams and bytes of each client, and on those of all; what is taken makes room."""
        for size, count, room in ((1, 16, 1 << 20), (65507, 2, 1 << 20), (10, 5, 50)):
            keeper = FullKeeper(room)
            waiting = Waiting(keeper)
            self.assertEqual(sum(waiting.add(bytes(size)) for _ in range(20)), count)
            self.assertEqual((len(waiting.take()), waiting.take(), keeper.room), (count, [], room))


class Gate:
    """
    A middleware that decides about clients.
    """

    def __init__(self, verdict=None):
        self.verdict = verdict
        self.inside: list[bytes] = []

    def admit(self, packed):
        if isinstance(self.verdict, Exception):
            raise self.verdict
        if self.verdict is None:
            self.inside.append(packed)
        return self.verdict

    def connection_ended(self, packed):
        self.inside.remove(packed)
        if isinstance(self.verdict, Exception):
            raise self.verdict


class AdmissionTests(SynchronousTestCase):
    """
    Past the middlewares.
    """

    def test_all_or_none(self):
        """Who is turned away by one is gone for those before it; a bug turns away, and keeps nobody from hearing of the end."""
        for verdict, expected in ((None, None), (Outcome.ADDRESS_REFUSED, Outcome.ADDRESS_REFUSED), (ValueError(), Outcome.INTERNAL_ERROR)):
            first, second = Gate(), Gate(verdict)
            admission = Admission(b"1234")
            self.assertIs(admission.ask([first, second]), expected)
            self.assertEqual(first.inside, [b"1234"])
            admission.end()
            admission.end()
            self.assertEqual((first.inside, second.inside), ([], []))
        self.flushLoggedErrors(ValueError)
        gate = Gate()
        admission = Admission(b"1234")
        admission.ask([gate])
        gate.verdict = ValueError()
        admission.end()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
