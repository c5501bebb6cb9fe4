"""
Dialogues between clients over HTTP/1.1 and backends over HTTP/2.
"""

from zope.interface.verify import verifyObject

from a3sgw.interfaces import IReceiver, IUpstream
from a3sgw.proxy.http2_client import Http2Client, Http2Upstream
from a3sgw.proxy.test.dialogues import DialogueCase, request
from a3sgw.proxy.test.http2_peers import Http2Backend

PLAIN = request()


class Http2Case(DialogueCase):
    """
    A dialogue with backends that speak HTTP/2.
    """

    scheme = "h2c"

    def converse(self, **settings):
        answers = settings.pop("peer", {})
        super().converse(scheme=self.scheme, **settings)
        self.answers = answers
        self.peers = []
        return self.dialogue

    def peer(self, number=-1):
        """
        Return a backend by number, by default the newest, after it has listened.
        """
        self.dialogue.reactor.settle()
        while len(self.peers) < len(self.dialogue.backends):
            self.peers.append(Http2Backend(self.dialogue.backends[len(self.peers)], self.dialogue.reactor, **self.answers))
        for each in self.peers:
            each.listen()
        return self.peers[number]

    def call(self, data=PLAIN, client=None):
        """
        Send a request; return the backend it went to and the number of the newest stream there.
        """
        self.say(client or self.client, data)
        peer = self.peer()
        return peer, max(peer.requests, default=0)

    def told(self, client=None):
        """
        Return what the client heard.
        """
        for each in self.peers:
            each.listen()
        return self.hear(client or self.client)

    def pool(self):
        """
        Return the only backend's pool.
        """
        (service,) = self.dialogue.carrier.generation().services.values()
        return service.backends[0].grpc_pool


class Exhausted:
    """
    A session whose numbers of streams are used up.
    """

    def __init__(self, session, opened):
        self._session = session
        self._opened = opened

    def __getattr__(self, name):
        return getattr(self._session, name)

    def open_stream(self, fields, ended):
        self._opened.append(fields)
        return 0


class PlainTests(Http2Case):
    """
    The common exchanges.
    """

    def test_request_and_response(self):
        """A request reaches the backend with its fields, and the response comes back with its own."""
        self.converse()
        peer, stream = self.call(request("GET", "/a?b=%20c", "X-One: 1", "x-One: 2", "Connection: close"))
        fields = peer.requests[stream]
        self.assertEqual(fields[:4], [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.test"), (b":path", b"/a?b=%20c")])
        self.assertEqual([value for name, value in fields if name == b"x-one"], [b"1", b"2"])
        given = dict(fields)
        self.assertEqual(given[b"x-forwarded-for"], b"192.0.2.1")
        self.assertEqual(given[b"x-forwarded-host"], b"a.test")
        self.assertEqual(given[b"via"], b"1.1 a3s-gateway")
        self.assertNotIn(b"connection", given)
        self.assertIn(stream, peer.ended)
        peer.answer(stream, b"hello", ("date", "D"), ("x-b", "1"), ("content-length", "5"))
        self.assertEqual(
            self.told(), b"HTTP/1.1 200 OK\r\ndate: D\r\nx-b: 1\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
        )
        self.assertEqual(self.dialogue.outcomes(), ["completed"])

    def test_interface(self):
        """A connection is a receiver, and a stream the backend's side of an exchange."""
        self.converse()
        peer, stream = self.call()
        (connection,) = self.pool()._connections
        self.assertIsInstance(connection, Http2Client)
        verifyObject(IReceiver, connection)
        (upstream,) = connection.streams.values()
        self.assertIsInstance(upstream, Http2Upstream)
        verifyObject(IUpstream, upstream)
        self.assertIn("<Http2Client to h2c://192.0.2.1, 1 streams, open, on <Stream", repr(connection))
        self.assertIn("<Http2Upstream 1 for <Exchange", repr(upstream))
        self.assertEqual(
            repr(self.pool()), "<Http2Pool h2c://192.0.2.1: 1 streams of 1 connections, 0 connecting, 0 waiting>"
        )
        peer.answer(stream)

    def test_streams_share_a_connection(self):
        """Exchanges of several clients share one connection, and are answered in any order."""
        self.converse()
        clients = [self.client, *(self.dialogue.connect() for _ in range(4))]
        for number, client in enumerate(clients):
            peer, _ = self.call(request("GET", f"/{number}"), client)
        self.assertEqual(len(self.peers), 1)
        for number in (3, 1, 4, 0, 2):
            stream = 2 * number + 1
            self.assertEqual(dict(peer.requests[stream])[b":path"], b"/%d" % number)
            peer.answer(stream, b"%d" % number)
            self.assertTrue(self.told(clients[number]).endswith(b"\r\n\r\n1\r\n%d\r\n0\r\n\r\n" % number))
        self.assertEqual(self.pool().leased, 0)
        self.assertEqual(self.pool().idle, 1)

    def test_bodies_and_trailers(self):
        """Bodies are streamed both ways, with their trailers."""
        self.converse()
        peer, stream = self.call(request("POST", "/", "Transfer-Encoding: chunked", "TE: trailers", body=b"3\r\nabc\r\n"))
        self.assertEqual((peer.bodies[stream], peer.ended), (b"abc", set()))
        self.assertIn((b"te", b"trailers"), peer.requests[stream])
        self.assertNotIn(b"transfer-encoding", dict(peer.requests[stream]))
        self.say(self.client, b"2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n")
        self.assertIs(self.peer(), peer)
        peer.head(stream, ("date", "D"))
        self.assertEqual(self.told(), b"HTTP/1.1 200 OK\r\ndate: D\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.assertEqual((peer.bodies[stream], peer.trailers[stream]), (b"abcde", [(b"x-sum", b"1")]))
        peer.data(stream, b"1")
        self.assertEqual(self.told(), b"1\r\n1\r\n")
        peer.data(stream, b"23")
        self.assertEqual(self.told(), b"2\r\n23\r\n")
        peer.end_with(stream, ("x-end", "2"))
        self.assertEqual(self.told(), b"0\r\nx-end: 2\r\n\r\n")

    def test_a_body_of_known_length(self):
        """A body that has a length keeps it."""
        self.converse()
        peer, stream = self.call(request("PUT", "/", "Content-Length: 3", body=b"abc"))
        self.assertEqual(dict(peer.requests[stream])[b"content-length"], b"3")
        self.assertEqual((peer.bodies[stream], stream in peer.ended), (b"abc", True))
        peer.answer(stream, b"", ("date", "D"))
        self.assertEqual(self.told(), b"HTTP/1.1 200 OK\r\ndate: D\r\nContent-Length: 0\r\n\r\n")

    def test_without_a_body(self):
        """Answers that have no body say nothing about one, or how long it would be."""
        self.converse()
        for method, status, fields, expected in (
            ("HEAD", 200, [("content-length", "7")], b"HTTP/1.1 200 OK\r\ndate: D\r\nContent-Length: 7\r\n\r\n"),
            ("HEAD", 200, [], b"HTTP/1.1 200 OK\r\ndate: D\r\n\r\n"),
            ("GET", 204, [], b"HTTP/1.1 204 No Content\r\ndate: D\r\n\r\n"),
            ("GET", 304, [("content-length", "7")], b"HTTP/1.1 304 Not Modified\r\ndate: D\r\nContent-Length: 7\r\n\r\n"),
        ):
            peer, stream = self.call(request(method))
            peer.head(stream, ("date", "D"), *fields, status=status, ended=True)
            self.assertEqual(self.told(), expected)

    def test_interim(self):
        """What a backend says before its answer is passed on."""
        self.converse()
        peer, stream = self.call()
        peer.head(stream, ("link", "</a>"), status=103)
        self.assertEqual(self.told(), b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        peer.answer(stream)
        self.assertTrue(self.told().startswith(b"HTTP/1.1 200 OK\r\n"))


class FlowTests(Http2Case):
    """
    Nothing is taken that cannot be passed on.
    """

    def test_slow_backend(self):
        """A client that sends faster than the backend takes is held back, and freed."""
        self.converse(peer={"credits": False})
        self.say(self.client, request("POST", "/", "Content-Length: 1000000", body=b"x" * 65536))
        peer = self.peer()
        sent = 65536
        while sent < 1000000 and not self.client.peer.arrived:
            piece = b"x" * min(65536, 1000000 - sent)
            self.say(self.client, piece)
            sent += len(piece)
            peer.listen()
        self.assertEqual(len(peer.bodies[1]), 65535)
        self.assertLess(sent, 400000)
        peer.credits = True
        peer.h2.acknowledge_received_data(65535, 1)
        while sent < 1000000:
            peer.listen()
            piece = b"x" * min(65536, 1000000 - sent)
            self.say(self.client, piece)
            sent += len(piece)
        peer.listen()
        self.assertEqual((len(peer.bodies[1]), peer.ended), (1000000, {1}))
        peer.answer(1)
        self.assertTrue(self.told().startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_slow_client(self):
        """A backend that answers faster than one client reads is held back for it, and for nobody else."""
        self.converse()
        slow, other = self.dialogue.connect(), self.client
        slow.room = 1000
        peer, stream = self.call(client=slow)
        peer.head(stream)
        sent = 0
        while peer.h2.local_flow_control_window(stream) >= 16384:
            peer.data(stream, b"y" * 16384)
            sent += 16384
            peer.listen()
            self.assertLess(sent, 1000000)
        self.assertLessEqual(sent, 262144 + 16384)
        for _ in range(3):
            peer, second = self.call(client=other)
            peer.answer(second, b"z" * 10000)
            self.assertIn(b"z" * 10000, self.told(other))
        heard = b""
        while not heard.endswith(b"0\r\n\r\n"):
            heard += self.told(slow)
            window = min(16384, peer.h2.local_flow_control_window(stream)) if stream else 0
            if window:
                ended = sent > 1000000
                peer.data(stream, b"y" * window, ended=ended)
                sent += window
                stream = 0 if ended else stream
        self.assertEqual(heard.count(b"y"), sent)


class EndingTests(Http2Case):
    """
    Whoever breaks off, the other side hears of it and nothing is left.
    """

    def test_client_leaves(self):
        """A client that leaves takes its stream with it, and no other."""
        self.converse()
        other = self.dialogue.connect()
        peer, stream = self.call(client=other)
        peer, second = self.call()
        other.close()
        self.peer()
        self.assertEqual((peer.resets, self.pool().leased), ({stream: 8}, 1))
        peer.answer(second)
        self.assertTrue(self.told().startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_reset(self):
        """A stream that the backend breaks off is a bad gateway, or an incomplete answer."""
        self.converse()
        peer, stream = self.call()
        peer.reset(stream, 2)
        self.assert_told(502, "backend-closed")
        peer, stream = self.call()
        peer.head(stream)
        self.told()
        peer.data(stream, b"a")
        peer.reset(stream, 0)
        self.told()
        self.assertTrue(self.client.was_reset)
        self.assertEqual(self.dialogue.outcomes()[-1:], ["response-incomplete"])
        self.assertEqual(len(self.peers), 1)

    def assert_told(self, status, word):
        heard = self.told()
        self.assertTrue(heard.startswith(b"HTTP/1.1 %d " % status), heard)
        self.assertIn(b'details="%b"' % word.encode(), heard)
        self.assertIn(word, self.dialogue.outcomes())

    def test_early_answer(self):
        """A backend that answers before it has read the request need not read it."""
        self.converse()
        peer, stream = self.call(request("POST", "/", "Content-Length: 10", body=b"abc"))
        peer.answer(stream, status=403)
        self.assertTrue(self.told().startswith(b"HTTP/1.1 403 "))
        self.peer()
        self.assertEqual((peer.resets, self.pool().leased), ({stream: 8}, 0))

    def test_timeouts(self):
        """A backend that does not answer, or stalls, costs the exchange; its connection must show that it is alive."""
        self.converse(service='timeouts {\n    response_header = "5s"\n    idle = "10s"\n  }')
        peer, stream = self.call()
        self.dialogue.reactor.advance(6)
        self.assert_told(504, "response-timeout")
        self.assertEqual(peer.resets, {stream: 8})
        self.assertEqual(peer.pings, 1)
        self.peer()
        peer, stream = self.call()
        self.assertEqual(len(self.peers), 1)
        peer.head(stream)
        self.told()
        self.dialogue.reactor.advance(11)
        self.told()
        self.assertTrue(self.client.was_reset)
        self.assertEqual(self.dialogue.outcomes()[-1:], ["response-timeout"])
        self.assertIn("response-idle", self.dialogue.outcomes())

    def test_answered_while_asked(self):
        """A backend that has begun its answer may be silent as long as it is being told something."""
        self.converse(service='timeouts {\n    idle = "10s"\n  }')
        peer, stream = self.call(request("POST", "/", "Transfer-Encoding: chunked"))
        peer.head(stream)
        self.assertTrue(self.told().startswith(b"HTTP/1.1 200 OK\r\n"))
        for _ in range(4):
            self.dialogue.reactor.advance(6)
            self.say(self.client, b"1\r\nx\r\n")
        self.peer()
        self.assertEqual((peer.bodies[stream], peer.resets), (b"xxxx", {}))
        self.dialogue.reactor.advance(11)
        self.peer()
        self.assertEqual(self.dialogue.outcomes(), ["response-idle"])

    def test_no_more_streams(self):
        """A connection that can have no further streams is replaced."""
        self.converse()
        peer, stream = self.call()
        peer.answer(stream)
        self.told()
        (connection,) = self.pool()._connections
        opened = []
        connection.session = Exhausted(connection.session, opened)
        self.say(self.client, request("POST", "/", "Content-Length: 0"))
        second = self.peer()
        self.assertIsNot(second, peer)
        second.answer(1)
        self.assertTrue(self.told().startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertEqual((len(opened), self.pool().leased), (1, 0))

    def test_dead_connection(self):
        """A connection that gives no sign of life after a timeout is not used again, and closed."""
        self.converse(service='timeouts {\n    response_header = "5s"\n  }')
        _peer, _ = self.call()
        self.dialogue.reactor.advance(6)
        self.assertIn(b"504", self.hear(self.client))
        self.say(self.client, request())
        self.dialogue.reactor.settle()
        self.assertEqual(len(self.dialogue.backends), 2)
        self.peers.append(Http2Backend(self.dialogue.backends[1], self.dialogue.reactor))
        second = self.peers[1]
        second.listen()
        second.answer(1)
        self.dialogue.reactor.advance(11)
        self.assertTrue(self.dialogue.backends[0].was_reset or self.dialogue.backends[0].has_ended)
        self.assertEqual(len(self.pool()._connections), 1)

    def test_garbage(self):
        """A backend that does not speak HTTP/2 is a bad gateway."""
        self.converse()
        self.say(self.client, request())
        end = self.dialogue.backend()
        self.say(end, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        self.assert_told(502, "response-malformed")
        self.assertEqual(self.pool()._connections, [])

    def test_lying_length(self):
        """A body that is not as long as it says is no answer."""
        self.converse()
        peer, stream = self.call()
        peer.head(stream, ("content-length", "5"))
        peer.h2.streams[stream]._expected_content_length = None
        peer.data(stream, b"abc", ended=True)
        self.told()
        self.assertTrue(self.client.was_reset)
        self.assertEqual(self.dialogue.outcomes(), ["response-incomplete"])
        self.assertEqual(self.pool().leased, 0)

    def test_idle_timeout(self):
        """An idle connection is closed in the end, with a word of farewell."""
        self.converse(service='connection_pool {\n    idle_timeout = "10s"\n  }')
        peer, stream = self.call()
        peer.answer(stream)
        self.told()
        self.assertEqual(self.pool().idle, 1)
        self.dialogue.reactor.advance(11)
        peer.listen()
        self.assertEqual((peer.goodbye, self.pool().idle), (0, 0))


class RefusedTests(Http2Case):
    """
    What nobody has looked at is sent again, whatever it is.
    """

    def test_refused_stream(self):
        """A refused request is sent again, even if it may not be repeated; refused twice, it is unavailable."""
        self.converse()
        peer, stream = self.call(request("POST", "/", "Content-Length: 3", body=b"abc"))
        peer.reset(stream, 7)
        self.peer()
        self.assertEqual(peer.bodies, {1: b"abc", 3: b"abc"})
        peer.answer(3)
        self.assertTrue(self.told().startswith(b"HTTP/1.1 200 OK\r\n"))
        peer, stream = self.call(request("POST", "/", "Content-Length: 0"))
        for _ in range(2):
            peer.reset(max(peer.requests), 7)
            self.peer()
        heard = self.told()
        self.assertTrue(heard.startswith(b"HTTP/1.1 503 "), heard)
        self.assertIn(b'"stream-refused"', heard)

    def test_refused_elsewhere_accepted(self):
        """A server that refuses twice is passed over."""
        self.converse(servers=2)
        peer, _stream = self.call(request("POST", "/", "Content-Length: 0"))
        for _ in range(2):
            peer.reset(max(peer.requests), 7)
            other = self.peer()
        self.assertIsNot(other, peer)
        other.answer(1)
        self.assertTrue(self.told().startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_goaway(self):
        """A backend that leaves finishes what it has begun; what it has not seen is sent on a new connection."""
        self.converse()
        other = self.dialogue.connect()
        peer, first = self.call(client=other)
        self.call(request("POST", "/", "Content-Length: 0"))
        peer.leave(first)
        newer = self.peer()
        self.assertIsNot(newer, peer)
        newer.answer(1, b"new")
        self.assertIn(b"new", self.told())
        peer.answer(first, b"old")
        self.assertIn(b"old", self.told(other))
        self.assertTrue(self.dialogue.backends[0].has_ended)
        self.assertEqual((self.pool().leased, self.pool().idle), (0, 1))

    def test_stale_connection(self):
        """A kept connection that is lost before the answer costs a repeatable request nothing."""
        self.converse()
        peer, stream = self.call()
        peer.answer(stream)
        self.told()
        self.call()
        self.dialogue.backends[0].close()
        peer = self.peer()
        self.assertEqual(len(self.peers), 2)
        peer.answer(1)
        self.assertTrue(self.told().startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_closed_while_idle(self):
        """Before a request that may not be repeated is sent on an idle connection, its end is looked for."""
        self.converse()
        peer, stream = self.call()
        peer.answer(stream)
        self.told()
        self.dialogue.backends[0].close()
        peer, stream = self.call(request("POST", "/", "Content-Length: 0"))
        self.assertEqual(len(self.peers), 2)
        peer.answer(stream)
        self.assertTrue(self.told().startswith(b"HTTP/1.1 200 OK\r\n"))
