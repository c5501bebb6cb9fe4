"""
Tests of HTTP/2 on both sides of the gateway; `test_http2_client` and `test_http2_server` have it on one.
"""

from a3sgw.proxy.test.http2_dialogues import Http2Case, fields
from a3sgw.proxy.test.http2_peers import Http2Backend
from a3sgw.wire.http2 import ErrorCode


class PairTests(Http2Case):
    """
    A client and a server that both speak HTTP/2.
    """

    def setUp(self):
        self.converse(scheme="h2c")

    def backend(self, **settings):
        """
        Return the server at the other end of the newest connection, which has heard what was sent so far.
        """
        backend = Http2Backend(self.dialogue.backend(), self.dialogue.reactor, **settings)
        backend.listen()
        return backend

    def settle(self, backend):
        """
        Let both ends hear each other until nothing moves.
        """
        for _ in range(8):
            self.carry()
            backend.listen()

    def test_exchange(self):
        """Fields, body and trailers arrive both ways, and streams share a connection on either side."""
        first = self.request(fields("POST", "/a?b", ("te", "trailers"), ("x-a", "b")), b"hello", ended=False)
        backend = self.backend()
        self.peer.send_headers(first, [(b"x-sum", b"5")], end_stream=True)
        second = self.request(fields("GET", "/2"))
        self.settle(backend)
        request = dict(backend.requests[1])
        self.assertEqual((request[b":method"], request[b":path"], request[b":authority"]), (b"POST", b"/a?b", b"a.test"))
        self.assertEqual((request[b"te"], request[b"x-a"], request[b"via"]), (b"trailers", b"b", b"2.0 a3s-gateway"))
        self.assertEqual((backend.bodies[1], backend.trailers[1]), (b"hello", [(b"x-sum", b"5")]))
        self.assertEqual(dict(backend.requests[3])[b":path"], b"/2")
        backend.answer(3, b"two")
        backend.head(1, ("x-c", "d"))
        backend.data(1, b"one")
        backend.end_with(1, ("grpc-status", "0"))
        self.settle(backend)
        self.assertEqual((self.answer(second).body, self.answer(first).body), (b"two", b"one"))
        self.assertEqual((self.answer(first).fields[b"x-c"], self.answer(first).trailers), (b"d", [(b"grpc-status", b"0")]))
        self.assertEqual(self.dialogue.outcomes(), ["completed"] * 2)

    def test_interim(self):
        """Interim answers pass."""
        stream = self.request(fields("POST", "/", ("expect", "100-continue")), ended=False)
        backend = self.backend()
        backend.h2.send_headers(1, [(":status", "100")])
        self.settle(backend)
        self.assertEqual(self.answer(stream).interim, [{b":status": b"100"}])
        self.peer.send_data(stream, b"x", end_stream=True)
        self.settle(backend)
        backend.answer(1)
        self.assertEqual(self.answer(stream).status, 200)

    def test_cancelled(self):
        """A request that the client cancels is cancelled at the server, and the connections live."""
        stream = self.request()
        backend = self.backend()
        self.peer.reset_stream(stream, ErrorCode.CANCEL)
        self.settle(backend)
        self.assertEqual(backend.resets, {1: int(ErrorCode.CANCEL)})
        other = self.request()
        self.settle(backend)
        backend.answer(3)
        self.assertEqual(self.answer(other).status, 200)

    def test_broken_off(self):
        """An answer that the server breaks off is broken off at the client."""
        stream = self.request()
        backend = self.backend()
        backend.head(1)
        backend.data(1, b"part")
        backend.reset(1, int(ErrorCode.INTERNAL_ERROR))
        self.assertEqual((self.answer(stream).body, self.answer(stream).ended), (b"part", False))
        self.assertEqual(self.answer(stream).reset, int(ErrorCode.INTERNAL_ERROR))

    def test_slow_client(self):
        """A window that the client does not open closes the server's, of that stream alone."""
        self.takes = False
        self.peer.increment_flow_control_window(1 << 20)
        stuck = self.request()
        backend = self.backend()
        backend.head(1)
        sent = 0
        while (room := min(backend.h2.local_flow_control_window(1), 16384)) > 0:
            backend.data(1, bytes(room))
            sent += room
            self.settle(backend)
        self.assertLess(sent, 1 << 20)
        other = self.request()
        self.settle(backend)
        backend.answer(3)
        self.assertEqual(self.answer(other).status, 200)
        self.takes = True
        self.peer.acknowledge_received_data(len(self.answer(stuck).body), stuck)
        self.settle(backend)
        self.assertEqual(len(self.answer(stuck).body), sent)
        backend.data(1, b"", ended=True)
        self.assertTrue(self.answer(stuck).ended)

    def test_slow_server(self):
        """A window that the server does not open closes the client's."""
        stream = self.request(fields("POST"), ended=False)
        backend = self.backend(credits=False)
        sent = 0
        while (room := min(self.peer.local_flow_control_window(stream), 16384)) > 0:
            self.peer.send_data(stream, bytes(room))
            sent += room
            self.settle(backend)
        self.assertLess(sent, 1 << 20)
        self.assertEqual(len(backend.bodies[1]), 65535)
        backend.credits = True
        backend.h2.acknowledge_received_data(65535, 1)
        self.settle(backend)
        self.assertEqual(len(backend.bodies[1]), sent)
        self.peer.end_stream(stream)
        self.settle(backend)
        backend.answer(1)
        self.assertEqual(self.answer(stream).status, 200)
