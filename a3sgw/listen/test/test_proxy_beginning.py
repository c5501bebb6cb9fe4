"""
Tests of `a3sgw.listen.proxy_beginning`.
"""

import random

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.address import AddressSet
from a3sgw.errors import Outcome
from a3sgw.interfaces import IBeginning
from a3sgw.listen.beginning import Http1Beginning
from a3sgw.listen.proxy_beginning import ProxyBeginning
from a3sgw.testing import Dialogue
from a3sgw.wire.proxyprotocol import encode_v1, encode_v2, endpoint_of

CLIENT = (endpoint_of("203.0.113.5", 4711), endpoint_of("203.0.113.80", 443))
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PROXY, STRANGER = "10.0.0.9", "192.0.2.1"

WEB = """
entrypoints "web" {{
  address = ":8080"
  proxy_protocol {{
    trusted_ips = ["10.0.0.0/8"]
  }}
  {more}
}}
routers "app" {{
  rule    = "PathPrefix(`/`)"
  service = "app"
}}
services "app" {{
  load_balancer {{
    servers = [{{ url = "http://app:1" }}]
  }}
}}
{rest}
"""
PG = """
entrypoints "pg" {
  address  = ":5432"
  protocol = "tcp"
  proxy_protocol {
    trusted_ips = ["10.0.0.0/8"]
    timeout     = "2s"
  }
}
routers "app" {
  rule    = "ClientIP(`203.0.113.0/24`)"
  service = "app"
}
services "app" {
  proxy_protocol = "v1"
  load_balancer {
    servers = [{ url = "tcp://app:1" }]
  }
}
"""


class InterfaceTests(SynchronousTestCase):
    """
    The seams.
    """

    def test_interface(self):
        """It is a step like others."""
        beginning = ProxyBeginning(AddressSet(["10.0.0.0/8"]), 5.0, Http1Beginning())
        self.assertTrue(verifyObject(IBeginning, beginning))
        self.assertEqual(beginning.goodbye(Outcome.CONNECTION_LIMIT), Http1Beginning().goodbye(Outcome.CONNECTION_LIMIT))


class HeaderCase(SynchronousTestCase):
    def begin(self, text="", more="", rest=""):
        self.dialogue = Dialogue(text or WEB.format(more=more, rest=rest))
        return self.dialogue

    def tearDown(self):
        self.dialogue.assert_clean(self)

    def refused(self):
        snapshots = []
        self.dialogue.carrier.snapshot().addCallback(snapshots.append)
        return {row[1]: row[2] for row in snapshots[0]["gauges"]["refused"]}

    def end(self, *ends):
        for end in ends:
            end.close()
        self.dialogue.reactor.settle()


class HttpTests(HeaderCase):
    """
    Before HTTP.
    """

    def forwarded(self, *pieces, peer=PROXY, **options):
        """
        Return the request that the server gets for these pieces.
        """
        talk = self.begin(**options)
        client = talk.connect(peer)
        for piece in pieces:
            talk.say(client, piece)
        heard = talk.hear(talk.backend()) if talk.backends else b""
        self.heard_by_client = talk.hear(client)
        self.end(client)
        return heard

    def test_believed(self):
        """A trusted proxy's word on the client's address counts, in both versions and any pieces."""
        for encode in (encode_v1, encode_v2):
            data = encode(*CLIENT) + REQUEST
            for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
                self.assertIn(b"X-Real-Ip: 203.0.113.5\r\n", self.forwarded(*pieces))

    def test_nobody(self):
        """A proxy that names no client speaks for itself."""
        for encode in (encode_v1, encode_v2):
            self.assertIn(b"X-Real-Ip: 10.0.0.9\r\n", self.forwarded(encode(None, None) + REQUEST))

    def test_required(self):
        """A trusted proxy must send a header; without one the connection is closed, and counted."""
        self.assertEqual(self.forwarded(REQUEST), b"")
        self.assertEqual(self.refused(), {"proxy-header-malformed": 1})
        self.assertEqual(self.heard_by_client, b"")

    def test_not_believed(self):
        """Nobody else may say who it is: to HTTP the header is a malformed request."""
        self.assertEqual(self.forwarded(encode_v1(*CLIENT) + REQUEST, peer=STRANGER), b"")
        self.assertIn(b" 400 ", self.heard_by_client)
        self.assertIn(b"X-Real-Ip: 192.0.2.1\r\n", self.forwarded(REQUEST, peer=STRANGER))

    def test_limits(self):
        """Address lists judge the client for whom the proxy speaks, and who is not let in is told."""
        more = 'tcp_allowed_ips = ["203.0.113.0/24"]'
        self.assertIn(b"X-Real-Ip", self.forwarded(encode_v1(*CLIENT) + REQUEST, more=more))
        other = (endpoint_of("198.51.100.1", 1), CLIENT[1])
        self.assertEqual(self.forwarded(encode_v1(*other) + REQUEST, more=more), b"")
        self.assertIn(b" 403 ", self.heard_by_client)
        self.assertEqual(self.refused(), {"address-refused": 1})
        self.assertEqual(self.forwarded(peer=STRANGER, more=more), b"")
        self.assertIn(b" 403 ", self.heard_by_client)

    def test_middlewares(self):
        """Middlewares that count connections count the client, and hear of its end."""
        rest = 'middlewares "few" {\n type = "tcp-filter"\n max_connections = 1\n allowed_ips = ["203.0.113.0/24"]\n}'
        talk = self.begin(more='middlewares = ["few"]', rest=rest)
        first = talk.connect(PROXY)
        talk.say(first, encode_v1(*CLIENT))
        second = talk.connect(PROXY)
        talk.say(second, encode_v1(*CLIENT))
        self.assertIn(b" 503 ", talk.hear(second))
        self.end(first, second)
        third = talk.connect(PROXY)
        talk.say(third, encode_v1(*CLIENT))
        self.assertEqual((talk.hear(third), third.has_ended), (b"", False))
        self.end(third)
        self.assertEqual(self.refused(), {"connection-limit": 1})

    def test_only_asking(self):
        """A proxy that connects and closes, as health checks do, is no trouble; nor is one that breaks off."""
        talk = self.begin()
        for data in (b"", b"PROXY TC"):
            client = talk.connect(PROXY)
            talk.say(client, data) if data else None
            self.end(client)
        self.assertEqual((self.refused(), len(talk.door().connections)), ({}, 0))

    def test_mutations(self):
        """Whatever a proxy sends, the connection ends or goes on; nothing is left over."""
        chance = random.Random(3)
        talk = self.begin()
        for _ in range(300):
            data = bytearray(chance.choice((encode_v1(*CLIENT), encode_v2(*CLIENT))) + REQUEST)
            for _ in range(chance.randrange(1, 5)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            client = talk.connect(PROXY)
            talk.say(client, bytes(data))
            self.end(client)
            talk.reactor.advance(1.0)
        self.assertEqual(len(talk.door().connections), 0)


class TcpTests(HeaderCase):
    """
    Before a connection that is passed on.
    """

    def test_through(self):
        """The client's address decides the route, and is passed on to the server, in the version that it wants."""
        talk = self.begin(PG)
        client = talk.connect(PROXY)
        self.assertEqual(talk.backends, [])
        talk.say(client, encode_v2(*CLIENT) + b"hello")
        self.assertEqual(talk.hear(talk.backend()), encode_v1(*CLIENT) + b"hello")
        self.end(client, talk.backend())
        # The proxy itself is not in the network of the rule.
        client = talk.connect(PROXY)
        talk.say(client, encode_v1(None, None))
        self.assertTrue(client.has_ended)
        self.end(client)

    def test_late(self):
        """A header that does not come in time is not waited for."""
        talk = self.begin(PG)
        client = talk.connect(PROXY)
        talk.say(client, b"PROXY ")
        talk.reactor.advance(1.0)
        self.assertFalse(client.has_ended)
        talk.reactor.advance(2.0)
        talk.reactor.settle()
        self.assertTrue(client.has_ended)
        self.assertEqual(self.refused(), {"proxy-header-timeout": 1})

    def test_drain(self):
        """A stop waits a moment for a header, and no longer."""
        talk = self.begin(PG)
        client = talk.connect(PROXY)
        done = []
        talk.carrier.drain(30.0).addCallback(done.append)
        talk.reactor.advance(2.0)
        talk.reactor.settle()
        self.assertEqual((done, client.has_ended), ([0], True))
