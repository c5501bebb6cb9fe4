"""
Tests of `a3sgw.proxy.tcp_connection`, by way of a carrier with a tcp entrypoint.
"""

import collections
import json
import random
import ssl

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.errors import AssemblyError, Outcome
from a3sgw.interfaces import IConnection, IReceiver
from a3sgw.net.caller import Caller
from a3sgw.proxy.entrypoint import Observers
from a3sgw.proxy.tcp_connection import TcpConnection
from a3sgw.proxy.tcp_entrypoint import TcpEntrypoint
from a3sgw.route.table import build_tcp_table
from a3sgw.testing import Dialogue, receiver_contract
from a3sgw.wire.postgres import SSL_REQUEST
from a3sgw.wire.proxyprotocol import endpoint_of, read_proxy_header


def client_hello(name=None, protocols=()):
    """
    Return what OpenSSL says first.
    """
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context.check_hostname = False
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def routers(*rules):
    return "\n".join(
        f'routers "r{number}" {{\n rule = {json.dumps(rule)}\n service = "{service}"\n}}' for number, (rule, service) in enumerate(rules)
    )


def service(name, *urls, more="", balancing=""):
    servers = ", ".join(f'{{ url = "{url}" }}' for url in urls)
    return f'services "{name}" {{\n load_balancer {{\n servers = [{servers}]\n {balancing}\n }}\n {more}\n}}\n'


def config(rules=(("HostSNI(`*`)", "db"),), services="", entrypoint="", more=""):
    return (
        f'entrypoints "pg" {{\n address = ":5432"\n protocol = "tcp"\n {entrypoint}\n}}\n'
        + routers(*rules)
        + "\n"
        + (services or service("db", "tcp://10.0.0.1:5432", "tcp://10.0.0.2:5432"))
        + more
    )


class _Nobody:
    def connection_ended(self, connection):
        pass

    def count_refused(self, outcome):
        pass


def _lone_connection():
    """
    Return a connection without a route.
    """
    stream = type("S", (), {"close": lambda self: None, "deadline": 0.0, "now": lambda self: 0.0})()
    entrypoint = TcpEntrypoint("pg", build_tcp_table(()), Observers())
    return TcpConnection(stream, _Nobody(), entrypoint, Caller(b"192.0.2.1", bytes(4), b"5432"))


class ContractTests(receiver_contract(_lone_connection)):
    """
    A connection receives as everybody does.
    """

    def test_interfaces(self):
        """A door keeps it like any other."""
        self.assertTrue(verifyObject(IConnection, _lone_connection()))
        self.assertTrue(verifyObject(IReceiver, _lone_connection()))


class TcpTestCase(SynchronousTestCase):
    def begin(self, text="", **options):
        self.dialogue = Dialogue(text or config(), **options)
        return self.dialogue

    def tearDown(self):
        self.dialogue.assert_clean(self)

    def ways(self):
        """
        Return router, service and outcome of each connection that ended, from the metrics.
        """
        snapshots = []
        self.dialogue.carrier.snapshot().addCallback(snapshots.append)
        return [tuple(row[1:4]) for row in snapshots[0]["tcp"] for _ in range(row[4])]

    def end(self, *ends):
        for end in ends:
            end.close()
        self.dialogue.reactor.settle()

    def in_flight(self):
        generation = self.dialogue.carrier.generation()
        return [backend.in_flight for name in sorted(generation.services) for backend in generation.services[name].backends]

    def leased(self):
        generation = self.dialogue.carrier.generation()
        return [backend.pool.leased for name in sorted(generation.services) for backend in generation.services[name].backends]


class RelayTests(TcpTestCase):
    """
    Bytes both ways.
    """

    def test_both_ways(self):
        """What either says reaches the other, and the end of each as well; then it is counted once."""
        talk = self.begin()
        client = talk.connect()
        server = talk.backend()
        talk.say(client, b"ping")
        self.assertEqual(talk.hear(server), b"ping")
        talk.say(server, b"pong")
        self.assertEqual(talk.hear(client), b"pong")
        self.assertEqual(self.in_flight(), [1, 0])
        client.close()
        talk.reactor.settle()
        server.close()
        talk.reactor.settle()
        self.assertEqual(self.ways(), [("r0", "db", "completed")])
        self.assertEqual((self.in_flight(), self.leased()), ([0, 0], [0, 0]))

    def test_server_speaks_first(self):
        """Where no rule needs the client's first bytes, nobody waits for them."""
        talk = self.begin()
        client = talk.connect()
        server = talk.backend()
        talk.say(server, b"220 mail.test ESMTP\r\n")
        self.assertEqual(talk.hear(client), b"220 mail.test ESMTP\r\n")
        client.close()
        server.close()
        talk.reactor.settle()

    def test_said_while_connecting(self):
        """What a client says before there is a server is kept for it, up to a bound, and its end too."""
        talk = self.begin(answers_dials=False)
        client = talk.connect()
        talk.say(client, b"a" * 50_000)
        talk.say(client, b"b" * 50_000)
        talk.say(client, b"c")
        (attempt,) = talk.attempts
        held = next(iter(talk.door().connections))
        self.assertIn("waiting-room", repr(held._stream))
        client.shutdown(1)
        server = attempt.succeed()
        self.assertEqual(talk.hear(server), b"a" * 50_000 + b"b" * 50_000 + b"c")
        self.assertTrue(server.is_readable)
        talk.say(server, b"answer")
        self.assertEqual(talk.hear(client), b"answer")
        server.close()
        talk.reactor.settle()
        self.assertEqual(self.ways(), [("r0", "db", "completed")])

    def test_half_close(self):
        """B53: a client that ends its sending still gets its answer."""
        talk = self.begin()
        client = talk.connect()
        server = talk.backend()
        talk.say(client, b"question")
        client.shutdown(1)
        self.assertEqual(talk.hear(server), b"question")
        self.assertEqual(server.recv(1), b"")
        talk.say(server, b"answer")
        self.assertEqual(talk.hear(client), b"answer")
        self.assertEqual(self.in_flight(), [1, 0])
        server.close()
        talk.reactor.settle()
        self.assertEqual(client.recv(1), b"")
        self.assertEqual(self.ways(), [("r0", "db", "completed")])

    def test_log(self):
        """Each connection leaves one line: who, whither, how much, how long, and how it ended."""
        talk = self.begin(config(more="observability {\n access_log { file = \"x\" }\n}"))
        client = talk.connect("192.0.2.9")
        server = talk.backend()
        talk.say(client, b"ping")
        talk.say(server, b"pong!")
        talk.hear(client)
        talk.hear(server)
        client.close()
        server.close()
        talk.reactor.settle()
        talk.carrier.reopen_logs()
        (line,) = map(json.loads, talk.sink.data.splitlines())
        self.assertEqual(
            {key: line[key] for key in ("client_ip", "protocol", "method", "entrypoint", "router", "service", "backend", "outcome")},
            {
                "client_ip": "192.0.2.9",
                "protocol": "TCP",
                "method": "TCP",
                "entrypoint": "pg",
                "router": "r0",
                "service": "db",
                "backend": "tcp://10.0.0.1:5432",
                "outcome": "completed",
            },
        )
        self.assertEqual((line["request_bytes"], line["response_bytes"]), (4, 5))


BY_NAME = config(
    rules=(("HostSNI(`a.test`)", "a"), ("HostSNI(`*.b.test`)", "b"), ("ALPN(`postgresql`)", "b"), ("HostSNI(`*`)", "rest")),
    services=service("a", "tcp://a:1") + service("b", "tcp://b:1") + service("rest", "tcp://rest:1"),
)
ONLY_NAMES = config(rules=(("HostSNI(`a.test`)", "a"),), services=service("a", "tcp://a:1"))


class RouteTests(TcpTestCase):
    """
    Which server a connection comes to.
    """

    def where(self, *pieces, text=BY_NAME, ends=False, wait=0.0):
        """
        Return the services to which the backends' ends belong that a client sending these pieces gets, and what they hear.
        """
        talk = self.begin(text)
        client = talk.connect()
        for piece in pieces:
            talk.say(client, piece)
        if ends:
            client.shutdown(1)
            talk.reactor.settle()
        talk.reactor.advance(wait)
        talk.reactor.settle()
        heard = [talk.hear(server) for server in talk.backends]
        self.end(client, *talk.backends)
        return [way[1] for way in self.ways()], heard

    def test_names(self):
        """B11: the name in the ClientHello decides, and the server gets every byte of it."""
        for name, expected in (("a.test", "a"), ("A.test", "a"), ("x.b.test", "b"), ("b.test", "rest"), ("c.test", "rest"), (None, "rest")):
            hello = client_hello(name)
            self.assertEqual(self.where(hello + b"more"), ([expected], [hello + b"more"]), name)
        self.assertEqual(self.where(client_hello("c.test", ("postgresql",)))[0], ["b"])

    def test_pieces(self):
        """The ClientHello may come in any pieces, and over several records."""
        hello = client_hello("a.test")
        self.assertEqual(self.where(*(hello[at : at + 1] for at in range(len(hello)))), (["a"], [hello]))
        body = hello[5:]
        records = b"".join(b"\x16\x03\x01\0\x64" + body[at : at + 100] for at in range(0, len(body) // 100 * 100, 100))
        rest = body[len(body) // 100 * 100 :]
        records += b"\x16\x03\x01" + len(rest).to_bytes(2, "big") + rest if rest else b""
        self.assertEqual(self.where(records[:150], records[150:]), (["a"], [records]))

    def test_no_tls(self):
        """Who speaks something else names no server, and is known at the first byte."""
        self.assertEqual(self.where(b"SELECT 1"), (["rest"], [b"SELECT 1"]))
        self.assertEqual(self.where(b"SELECT 1", text=ONLY_NAMES), ([""], []))

    def test_silence(self):
        """Who says nothing for a while is routed as one that names no server; who has begun to speak, too."""
        self.assertEqual(self.where(wait=4.0), ([""], []))
        self.assertEqual(self.ways(), [("", "", "client-closed")])
        self.assertEqual(self.where(wait=6.0), (["rest"], [b""]))
        hello = client_hello("a.test")
        self.assertEqual(self.where(hello[:50], wait=6.0), (["rest"], [hello[:50]]))
        self.assertEqual(self.where(hello[:50], ends=True), (["rest"], [hello[:50]]))
        self.assertEqual(self.where(wait=6.0, text=ONLY_NAMES), ([""], []))
        shorter = BY_NAME.replace('protocol = "tcp"', 'protocol = "tcp"\n tcp_hello_timeout = "1s"')
        self.assertEqual(self.where(wait=2.0, text=shorter), (["rest"], [b""]))

    def test_malformed(self):
        """B12: a ClientHello whose lengths lie has no name, and nothing else happens."""
        hello = client_hello("a.test")
        at = hello.index(b"a.test") - 2
        for lie in (b"\xff\xff", b"\0\x07", b"\0\x05"):
            self.assertEqual(self.where(hello[:at] + lie + hello[at + 2 :])[0], ["rest"], lie)

    def test_addresses(self):
        """A rule about addresses alone waits for nothing."""
        text = config(
            rules=(("ClientIP(`10.0.0.0/8`)", "a"), ("HostSNI(`b.test`)", "b")),
            services=service("a", "tcp://a:1") + service("b", "tcp://b:1"),
        )
        talk = self.begin(text)
        inside, outside = talk.connect("10.1.2.3"), talk.connect("192.0.2.1")
        self.assertEqual(len(talk.backends), 1)
        talk.say(outside, client_hello("b.test"))
        self.assertEqual(len(talk.backends), 2)
        self.end(inside, outside, *talk.backends)
        self.assertEqual(sorted(way[1] for way in self.ways()), ["a", "b"])

    def test_flood(self):
        """A ClientHello that never ends is cut short by its size."""
        talk = self.begin(ONLY_NAMES)
        client = talk.connect()
        piece = b"\x16\x03\x01\x40\0" + b"\x01\0\xff\xff" + bytes(16380)
        talk.say(client, piece)
        for _ in range(4):
            if not client.has_ended and not client.was_reset:
                talk.say(client, b"\x16\x03\x01\x40\0" + bytes(16384))
        self.assertTrue(client.has_ended or client.was_reset)
        self.assertEqual(self.ways(), [("", "", "no-route")])


class PostgresTests(TcpTestCase):
    """
    Clients of PostgreSQL, which ask before they begin TLS.
    """

    def ask(self, name="a.test"):
        """
        Let a client ask and begin TLS; return its end, the server's, and the ClientHello.
        """
        talk = self.begin(BY_NAME)
        client = talk.connect()
        talk.say(client, SSL_REQUEST)
        self.assertEqual(talk.hear(client), b"S")
        hello = client_hello(name)
        talk.say(client, hello)
        server = talk.backend()
        self.assertEqual(talk.hear(server), SSL_REQUEST)
        return client, server, hello

    def test_agreed(self):
        """The client is told yes, its ClientHello leads to a server, which is asked in its turn; then TLS is between the two."""
        client, server, hello = self.ask()
        self.dialogue.say(server, b"S")
        self.assertEqual(self.dialogue.hear(server), hello)
        self.dialogue.say(server, b"hello")
        self.assertEqual(self.dialogue.hear(client), b"hello")
        self.end(client, server)
        self.assertEqual(self.ways(), [("r0", "a", "completed")])

    def test_not_agreed(self):
        """A server that has no TLS, or says more than it should, or nothing, costs the client its connection, and it is known why."""
        for data, outcome in ((b"N", "backend-tls-refused"), (b"Sx", "backend-tls-refused"), (b"", "connect-timeout")):
            client, server, _ = self.ask()
            if data:
                self.dialogue.say(server, data)
            self.dialogue.reactor.advance(6.0)
            self.dialogue.reactor.settle()
            self.assertTrue(client.has_ended or client.was_reset)
            self.assertTrue(server.was_reset)
            self.assertEqual(self.ways(), [("r0", "a", outcome)])
        client, server, _ = self.ask()
        self.end(server)
        self.assertEqual(self.ways(), [("r0", "a", "backend-closed")])

    def test_client_leaves(self):
        """A client that breaks off meanwhile leaves nothing over."""
        client, server, _ = self.ask()
        client._resets = True
        self.end(client)
        self.assertTrue(server.was_reset)
        self.assertEqual(self.ways(), [("r0", "a", "client-closed")])

    def test_untouched(self):
        """Where no rule asks for a name, the question is the server's to answer."""
        talk = self.begin()
        client = talk.connect()
        talk.say(client, SSL_REQUEST)
        self.assertEqual((talk.hear(client), talk.hear(talk.backend())), (b"", SSL_REQUEST))
        self.end(client, talk.backend())


class MutationTests(TcpTestCase):
    """
    ClientHellos that somebody has meddled with.
    """

    def test_mutations(self):
        """20,000 of them: each is routed, or sent away in time; nothing raises, hangs, or is left over."""
        chance = random.Random(11)
        seeds = [client_hello("a.test"), client_hello("x.b.test", ("h2", "postgresql")), client_hello()]
        talk = self.begin(BY_NAME)
        for turn in range(20_000):
            client = talk.connect()
            client.send(_mutated(chance, chance.choice(seeds)))
            self.kept.append(client)
            if turn % 100 == 99:
                talk.reactor.settle()
                talk.reactor.advance(6.0)
                talk.reactor.settle()
                self.end(*talk.backends, *self.clients(talk))
                talk.backends.clear()
        self.assertEqual(len(talk.door().connections), 0)
        ways = collections.Counter(way[1:] for way in self.ways())
        self.assertEqual(sum(ways.values()), 20_000)
        for service_name in ("a", "b", "rest"):
            self.assertGreater(sum(count for way, count in ways.items() if way[0] == service_name), 500)
        self.assertEqual(self.flushLoggedErrors(), [])

    def setUp(self):
        self.kept = []

    def clients(self, talk):
        kept, self.kept = self.kept, []
        return kept


def _mutated(chance, hello):
    data = bytearray(hello)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(data) or 1)
        kind = chance.randrange(4)
        if not data or kind == 2:
            data[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif kind == 0:
            data[at] = chance.randrange(256)
        elif kind == 1:
            del data[at : at + chance.randrange(1, 9)]
        else:
            del data[max(at, 1) :]
    return bytes(data) or b"\x16"


class FailureTests(TcpTestCase):
    """
    Servers that are not there.
    """

    def test_next_server(self):
        """B54: a server that refuses is passed over, and the client notices nothing."""
        talk = self.begin(answers_dials=False)
        client = talk.connect()
        talk.say(client, b"hello")
        talk.attempts[0].fail()
        talk.reactor.settle()
        server = talk.attempts[0].succeed()
        self.assertEqual(talk.hear(server), b"hello")
        self.assertEqual(self.in_flight(), [0, 1])
        self.end(client, server)
        self.assertEqual(self.ways(), [("r0", "db", "completed")])

    def test_nobody(self):
        """If no server can be reached the client is sent away, and why is known."""
        talk = self.begin(answers_dials=False)
        client = talk.connect()
        talk.attempts[0].fail()
        talk.reactor.settle()
        talk.attempts[0].fail(Outcome.CONNECT_TIMEOUT)
        talk.reactor.settle()
        self.assertTrue(client.has_ended or client.was_reset)
        self.assertEqual(self.ways(), [("r0", "db", "connect-timeout")])
        self.assertEqual(self.in_flight(), [0, 0])

    def test_time_to_connect(self):
        """B54: a server that does not answer for 5 s is passed over."""
        talk = self.begin(answers_dials=False)
        client = talk.connect()
        first = talk.attempts[0]
        self.assertEqual(first.deadline - talk.reactor.seconds(), 5.0)
        talk.reactor.advance(6.0)
        talk.reactor.settle()
        self.assertNotIn(first, talk.attempts)
        self.end(client, talk.attempts[0].succeed())
        self.assertEqual(self.ways(), [("r0", "db", "completed")])

    def test_failover(self):
        """B45: when no server of the service can be reached, that of the backup is."""
        text = config(services=service("db", "tcp://a:1", more='failover {\n service = "spare"\n }') + service("spare", "tcp://b:1"))
        talk = self.begin(text, answers_dials=False)
        client = talk.connect()
        talk.attempts[0].fail()
        talk.reactor.settle()
        server = talk.attempts[0].succeed()
        talk.reactor.settle()
        self.assertEqual(self.in_flight(), [0, 1])
        self.assertEqual(talk.carrier.generation().services["db"].failovers, 1)
        self.end(client, server)

    def test_ejection(self):
        """A server that refuses again and again is set aside, and comes back."""
        passive = 'passive_health {\n consecutive_errors = 2\n recovery_secs = 10\n }'
        talk = self.begin(config(services=service("db", "tcp://a:1", "tcp://b:1", balancing=passive)), answers_dials=False)
        while len(self.usable()) == 2:
            client = talk.connect()
            if talk.attempts[0].addresses[0][1] == ("a", 1):
                talk.attempts[0].fail()
                talk.reactor.settle()
            self.end(client, talk.attempts[0].succeed())
        self.assertEqual(len(self.usable()), 1)
        talk.reactor.advance(11.0)
        self.assertEqual(len(self.usable()), 2)

    def usable(self):
        return self.dialogue.carrier.generation().services["db"].usable

    def test_client_leaves(self):
        """A client that breaks off while a server is being reached takes the attempt with it."""
        talk = self.begin(answers_dials=False)
        client = talk.connect()
        client._resets = True
        self.end(client)
        self.assertEqual(talk.attempts, [])
        self.assertEqual(self.ways(), [("r0", "db", "client-closed")])

    def test_breaks(self):
        """Who breaks off breaks the other off, and is named."""
        for blamed in ("client", "backend"):
            talk = self.begin()
            client = talk.connect()
            server = talk.backend()
            breaker, other = (client, server) if blamed == "client" else (server, client)
            breaker._resets = True
            self.end(breaker)
            self.assertTrue(other.was_reset)
            self.assertEqual(self.ways(), [("r0", "db", f"{blamed}-closed")])

    def test_idle(self):
        """With `tcp_idle_timeout`, a connection on which nothing moves is closed; without, it lives on."""
        talk = self.begin(config(entrypoint='tcp_idle_timeout = "10s"'))
        client = talk.connect()
        talk.reactor.advance(8.0)
        talk.say(client, b"x")
        talk.reactor.advance(8.0)
        self.assertEqual(self.ways(), [])
        talk.reactor.advance(3.0)
        talk.reactor.settle()
        self.assertEqual(self.ways(), [("r0", "db", "tunnel-idle")])
        talk = self.begin()
        client = talk.connect()
        talk.reactor.advance(100_000.0)
        self.assertEqual(self.ways(), [])
        self.end(client, talk.backend())


class BoundTests(TcpTestCase):
    """
    Who comes in, and how many.
    """

    def test_entrypoint(self):
        """Who is not allowed, or one too many, is turned away without a word."""
        talk = self.begin(config(entrypoint='max_connections = 1\n tcp_allowed_ips = ["10.0.0.0/8"]'))
        stranger = talk.connect("192.0.2.1")
        first = talk.connect("10.0.0.1")
        second = talk.connect("10.0.0.2")
        self.assertEqual((talk.hear(stranger), stranger.has_ended), (b"", True))
        self.assertEqual((talk.hear(second), second.has_ended), (b"", True))
        self.assertEqual(len(talk.backends), 1)
        self.end(first, talk.backend())
        self.assertEqual(self.refused(), {"address-refused": 1, "connection-limit": 1})
        third = talk.connect("10.0.0.2")
        self.end(third, talk.backend())
        self.assertEqual(len(self.ways()), 2)

    def refused(self):
        snapshots = []
        self.dialogue.carrier.snapshot().addCallback(snapshots.append)
        return {row[1]: row[2] for row in snapshots[0]["gauges"]["refused"]}

    def test_router(self):
        """A `tcp-filter` of a router limits what comes to that router."""
        more = 'middlewares "few" {\n type = "tcp-filter"\n max_connections = 1\n}\n'
        text = config(more=more).replace('service = "db"', 'service = "db"\n middlewares = ["few"]')
        talk = self.begin(text)
        first, second = talk.connect(), talk.connect()
        self.assertTrue(second.has_ended)
        self.assertEqual(self.refused(), {"connection-limit": 1})
        self.end(first, talk.backend())
        third = talk.connect()
        self.end(third, talk.backend())
        self.assertEqual(sorted(self.ways()), [("r0", "db", "completed"), ("r0", "db", "completed"), ("r0", "db", "connection-limit")])

    def test_places(self):
        """A service with a limit for each server makes connections wait for a place, and gives it on."""
        scaling = "scaling {\n container_concurrency = 1\n buffer_enabled = true\n buffer_timeout_secs = 5\n }"
        talk = self.begin(config(services=service("db", "tcp://a:1", more=scaling)))
        first, second, third = talk.connect(), talk.connect(), talk.connect()
        self.assertEqual(len(talk.backends), 1)
        self.end(first, talk.backends[0])
        self.assertEqual(len(talk.backends), 2)
        talk.say(second, b"mine")
        self.assertEqual(talk.hear(talk.backends[1]), b"mine")
        talk.reactor.advance(6.0)
        talk.reactor.settle()
        self.assertTrue(third.has_ended or third.was_reset)
        self.end(second, talk.backends[1])
        self.assertEqual(sorted(way[2] for way in self.ways()), ["buffer-timeout", "completed", "completed"])

    def test_leaves_the_queue(self):
        """Who breaks off while waiting for a place leaves the queue."""
        scaling = "scaling {\n container_concurrency = 1\n buffer_enabled = true\n }"
        talk = self.begin(config(services=service("db", "tcp://a:1", more=scaling)))
        first, second = talk.connect(), talk.connect()
        second._resets = True
        self.end(second)
        self.assertEqual(talk.carrier.generation().services["db"].traits.room.waiting, 0)
        self.end(first, talk.backend())
        self.assertEqual(sorted(way[2] for way in self.ways()), ["client-closed", "completed"])


class CountTests(TcpTestCase):
    """
    What is told besides the end of each connection.
    """

    def test_open(self):
        """Open connections are told for each entrypoint; those over tcp are not among the active ones of http."""
        talk = self.begin(config(more='entrypoints "web" {\n address = ":80"\n}\n'))
        clients = [talk.connect(address=("", 5432)), talk.connect(address=("", 5432)), talk.connect(address=("", 80))]
        self.assertEqual(self.gauges()["open"], {"pg": 2, "web": 1})
        self.assertEqual((self.gauges()["active_connections"], talk.carrier.totals()[0]), (1, 3))
        self.end(*clients, *talk.backends)
        self.assertEqual(self.gauges()["open"], {"pg": 0, "web": 0})

    def gauges(self):
        snapshots = []
        self.dialogue.carrier.snapshot().addCallback(snapshots.append)
        return snapshots[0]["gauges"]

    def test_revisions(self):
        """Revisions of a service share connections as they share requests."""
        shares = "".join(
            f'revisions {{\n name = "{name}"\n traffic_percent = {share}\n servers = [{{ url = "tcp://{name}:1" }}]\n }}\n'
            for name, share in (("old", 75), ("new", 25))
        )
        talk = self.begin(config(services=f'services "db" {{\n {shares}}}\n'))
        clients = [talk.connect() for _ in range(8)]
        self.assertEqual(self.in_flight(), [6, 2])
        self.end(*clients, *talk.backends)
        snapshots = []
        talk.carrier.snapshot().addCallback(snapshots.append)
        self.assertEqual(snapshots[0]["revisions"], [["db", "old", 6], ["db", "new", 2]])

    def test_strategies(self):
        """Strategies that go by what is under way, or by the client, do so."""
        talk = self.begin(config(services=service("db", "tcp://a:1", "tcp://b:1", balancing='strategy = "least-connections"')))
        first = talk.connect()
        second = talk.connect()
        self.assertEqual(self.in_flight(), [1, 1])
        self.end(first, talk.backends[0])
        third = talk.connect()
        self.assertEqual(self.in_flight(), [1, 1])
        self.end(second, third, *talk.backends[1:])
        talk = self.begin(config(services=service("db", "tcp://a:1", "tcp://b:1", balancing='strategy = "consistent-hash"')))
        clients = [talk.connect("192.0.2.7") for _ in range(2)]
        self.assertEqual(sorted(self.in_flight()), [0, 2])
        self.end(*clients, *talk.backends)


class AnyOrderTests(TcpTestCase):
    """
    Whatever happens in whatever order, every connection ends once, and nothing is left over.
    """

    SERVICES = service(
        "db",
        "tcp://a:1",
        "tcp://b:1",
        more='scaling {\n container_concurrency = 1\n buffer_enabled = true\n buffer_size = 1\n buffer_timeout_secs = 4\n }\n'
        'failover {\n service = "spare"\n }\n proxy_protocol = "v2"',
        balancing="passive_health {\n consecutive_errors = 2\n recovery_secs = 5\n }",
    ) + service("spare", "tcp://c:1", more="scaling {\n container_concurrency = 1\n buffer_enabled = true\n buffer_size = 1\n }")
    TEXT = config(
        rules=(("HostSNI(`a.test`)", "db"), ("HostSNI(`*`) && !ClientIP(`192.0.2.66`)", "spare")),
        services=SERVICES,
        entrypoint='tcp_idle_timeout = "20s"\n max_connections = 6\n middlewares = ["some"]',
        more='middlewares "some" {\n type = "tcp-filter"\n max_connections = 4\n}\n',
    ).replace('service = "db"\n}', 'service = "db"\n middlewares = ["some"]\n}')
    HELLO = client_hello("a.test")
    ACTS = (
        *("connect", "connect", "connect", "hello", "hello", "say", "end", "reset"),
        *("succeed", "succeed", "fail", "time", "read", "reload"),
    )

    def test_any_order(self):
        """Clients, servers, time and reloads, in 60 random plays of 80 acts."""
        seen = set()
        for play in range(60):
            chance = random.Random(play)
            talk = self.begin(self.TEXT, answers_dials=False)
            self.ends = []
            for _ in range(80):
                self.act(talk, chance)
            for end in self.ends:
                end._resets = chance.random() < 0.5
            self.end(*self.ends)
            talk.reactor.advance(30.0)
            talk.reactor.settle()
            for attempt in list(talk.attempts):
                attempt.fail()
            talk.reactor.advance(30.0)
            talk.reactor.settle()
            self.assertEqual((talk.door().connections, talk.attempts), (set(), []), play)
            self.assertEqual((set(self.in_flight()), set(self.leased())), ({0}, {0}), play)
            snapshots = []
            talk.carrier.snapshot().addCallback(snapshots.append)
            gauges = snapshots[0]["gauges"]
            self.assertEqual([row["state"]["connections"] for row in gauges["middlewares"]], [0, 0], play)
            self.assertEqual({row["in_use"] or 0 for row in gauges["services"]}, {0}, play)
            turned_away = sum(row[2] for row in gauges["refused"]) - sum(way[2] == "connection-limit" for way in self.ways())
            self.assertEqual(gauges["accepted"].get("pg", 0), len(self.ways()) + turned_away, play)
            seen |= {way[2] for way in self.ways()}
        self.assertGreater(len(seen), 8, seen)
        self.assertEqual(self.flushLoggedErrors(), [])

    def act(self, talk, chance):
        kind = chance.choice(self.ACTS)
        if kind == "connect":
            self.ends.append(talk.connect(chance.choice(("192.0.2.1", "192.0.2.66"))))
        elif kind == "time":
            talk.reactor.advance(chance.choice((0.5, 3.0, 8.0)))
        elif kind == "reload":
            talk.reload(self.TEXT if chance.random() < 0.5 else self.TEXT.replace("tcp://b:1", "tcp://d:1"))
        elif kind in ("succeed", "fail"):
            if talk.attempts:
                attempt = chance.choice(talk.attempts)
                if kind == "succeed":
                    self.ends.append(attempt.succeed())
                else:
                    attempt.fail(chance.choice((Outcome.CONNECT_REFUSED, Outcome.CONNECT_TIMEOUT)))
        elif self.ends:
            self.move(chance.choice(self.ends), kind, chance)
        talk.reactor.settle()

    def move(self, end, kind, chance):
        if kind == "read":
            end.take()
        elif end.is_closed or end._sending_ended:
            pass
        elif kind == "end":
            end.shutdown(1)
        elif kind == "reset":
            end._resets = True
            end.close()
        else:
            try:
                end.send(self.HELLO if kind == "hello" else bytes(chance.randrange(1, 200_000)))
            except OSError:
                pass


class ProxyProtocolTests(TcpTestCase):
    """
    What servers are told.
    """

    def test_out(self):
        """With `proxy_protocol`, a server is told who the client is before anything else."""
        for version, number in (("v1", 1), ("v2", 2)):
            talk = self.begin(config(services=service("db", "tcp://a:1", more=f'proxy_protocol = "{version}"')))
            client = talk.connect("192.0.2.7")
            talk.say(client, b"ping")
            heard = talk.hear(talk.backend())
            header, length = read_proxy_header(heard)
            self.assertEqual(header, (number, endpoint_of("192.0.2.7", 50000), endpoint_of("127.0.0.1", 8080)))
            self.assertEqual(heard[length:], b"ping")
            self.end(client, talk.backend())
            self.assertEqual(self.ways(), [("r0", "db", "completed")])


class ChangeTests(TcpTestCase):
    """
    Reloads and the end.
    """

    def test_reload(self):
        """A connection keeps its server through a reload that takes the service away; the next one goes to the new one."""
        talk = self.begin()
        old = talk.connect()
        server = talk.backend()
        talk.reload(config(services=service("db", "tcp://new:1")))
        talk.say(old, b"still here")
        self.assertEqual(talk.hear(server), b"still here")
        new = talk.connect()
        self.assertEqual(self.in_flight(), [1])
        self.end(old, server, new, talk.backend())
        self.assertEqual(self.ways(), [("r0", "db", "completed")] * 2)

    def test_removed_door(self):
        """Connections over an entrypoint that a reload took away live on."""
        talk = self.begin()
        client = talk.connect()
        server = talk.backend()
        talk.reload(config().replace(":5432\"\n protocol", ":5433\"\n protocol"))
        talk.say(client, b"x")
        self.assertEqual(talk.hear(server), b"x")
        self.end(client, server)

    def test_protocol_changes(self):
        """An entrypoint cannot become another protocol's on the same port while it runs."""
        talk = self.begin()
        text = 'entrypoints "pg" {\n address = ":5432"\n}\n' + routers(("PathPrefix(`/`)", "db")) + "\n" + service("db", "http://a")
        failure = self.assertRaises(AssemblyError, talk.reload, text)
        self.assertIn('entrypoint "pg" changes its protocol', str(failure))

    def test_drain(self):
        """A stop waits for open connections, and breaks off those that are left at the end; who waits for a route is sent away at once."""
        talk = self.begin(BY_NAME)
        waiting, first, second = talk.connect(), talk.connect(), talk.connect()
        for client in (first, second):
            talk.say(client, client_hello("a.test"))
        done = []
        talk.carrier.drain(10.0).addCallback(done.append)
        talk.reactor.settle()
        self.assertTrue(waiting.has_ended)
        talk.say(first, b"x")
        talk.hear(talk.backends[0])
        self.end(first, talk.backends[0])
        self.assertEqual(done, [])
        talk.reactor.advance(11.0)
        talk.reactor.settle()
        self.assertEqual(done, [1])
        self.assertTrue(second.was_reset)
        self.assertTrue(talk.backends[1].was_reset)
        self.assertEqual(sorted(way[2] for way in self.ways()), ["completed", "shutting-down", "shutting-down"])
