"""
Tests of the pool of HTTP/2 connections: who gets a stream, on which connection, and what becomes of both.
"""

import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import Outcome
from a3sgw.message import HopByHop, RequestHead
from a3sgw.proxy.http1_client import Http1Client
from a3sgw.proxy.http2_client import Http2Upstream
from a3sgw.proxy.http2_pool import equip
from a3sgw.proxy.outbound_tls import Terms, TlsDialer
from a3sgw.proxy.pool import PoolSettings
from a3sgw.proxy.test.http2_peers import Http2Backend
from a3sgw.proxy.test.leases import ADDRESS, FakeDialer, Lessee
from a3sgw.proxy.test.test_http1_client import FailingExchange
from a3sgw.proxy.test.test_outbound_tls import TlsServer
from a3sgw.service.backend import Backend, BackendAddress
from a3sgw.testing import MemoryReactor


class Caller(FailingExchange):
    """
    A lessee that sends a request as soon as it has a stream, and hears what comes of it.
    """

    def __init__(self, method=b"GET", upgrade=b""):
        super().__init__()
        self.head = RequestHead(method, b"/")
        self.head.hop = HopByHop.of(upgrade=upgrade)
        self.upstream: Any = None

    def request_fields(self, address):
        return [(b":method", self.head.method), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/")]

    def upstream_leased(self, upstream):
        self.upstream = upstream
        upstream.send_request(self, b"", True)

    def lease_failed(self, outcome):
        self.told.append(outcome)


class Http2PoolCase(SynchronousTestCase):
    """
    The pools of one backend, with a fake dialer.
    """

    scheme = "h2c"

    def make(self, **settings):
        self.reactor = MemoryReactor()
        self.dialer = FakeDialer(self.reactor)
        self.backend = Backend("app", f"{self.scheme}://app.test", BackendAddress(self.scheme, "app.test", 80, "", b"", b"app.test"), 1)
        equip(self.backend, PoolSettings(**settings), self.dialer, self.tls_dialer)
        self.pool = self.backend.pool
        self.peers = []
        return self.pool

    def tls_dialer(self, protocols):
        return TlsDialer(self.dialer, "app.test", Terms(is_trusting=True), protocols)

    def call(self, **options):
        """
        Ask for a stream, and send a request when it is there.
        """
        fresh = options.pop("fresh", False)
        caller = Caller(**options)
        upstream = self.pool.lease(caller, fresh=fresh)
        if upstream is not None:
            caller.upstream_leased(upstream)
        return caller

    def connect(self, **settings):
        """
        Let the oldest connection be made; return the backend.
        """
        while self.dialer.questions:
            self.dialer.answer(ADDRESS)
        end = self.dialer.attempts[0].succeed()
        peer = Http2Backend(end, self.reactor, **settings)
        self.peers.append(peer)
        self.listen()
        return peer

    def listen(self):
        for _ in range(2):
            for peer in self.peers:
                peer.listen()

    def counts(self):
        return self.pool.leased, self.pool.idle, self.pool.connecting, len(self.pool._connections)


class LeaseTests(Http2PoolCase):
    """
    Streams are lent as long as there is room.
    """

    def test_one_connection_for_all(self):
        """Whoever comes while the first connection is being made waits for it."""
        self.make()
        callers = [self.call() for _ in range(5)]
        self.assertEqual(self.counts(), (0, 0, 1, 0))
        peer = self.connect()
        self.assertEqual(self.counts(), (5, 0, 0, 1))
        self.assertEqual(sorted(peer.requests), [1, 3, 5, 7, 9])
        self.assertTrue(all(isinstance(caller.upstream, Http2Upstream) for caller in callers))
        for stream in (9, 1, 5, 3, 7):
            peer.answer(stream)
        self.assertEqual([caller.told for caller in callers], [["head", "body"]] * 5)
        self.assertEqual(self.counts(), (0, 1, 0, 1))

    def test_full(self):
        """When the backend allows no more streams on a connection, another is made."""
        self.make()
        self.call()
        self.connect(max_streams=2)
        others = [self.call() for _ in range(4)]
        self.assertEqual(self.counts(), (2, 0, 2, 1))
        for _ in range(2):
            self.connect(max_streams=2)
        self.assertEqual(self.counts()[0], 5)
        self.assertEqual([len(peer.requests) for peer in self.peers], [2, 2, 1])
        self.assertTrue(all(caller.upstream for caller in others))

    def test_limit(self):
        """At the limit callers wait in line until a stream ends, or their time is over."""
        self.make(max_connections=1)
        self.call()
        peer = self.connect(max_streams=1)
        second, third = self.call(), self.call()
        third.connect_timeout = 5.0
        self.assertEqual(self.counts(), (1, 0, 0, 1))
        peer.answer(1)
        self.listen()
        self.assertIsNotNone(second.upstream)
        self.assertIsNone(third.upstream)
        self.reactor.advance(6)
        self.assertEqual(third.told, [Outcome.POOL_EXHAUSTED])
        self.assertEqual(self.counts(), (1, 0, 0, 1))

    def test_cancel(self):
        """A caller that leaves the line is forgotten, and what was made for it alone too."""
        self.make()
        first, second = self.call(), self.call()
        self.dialer.answer(ADDRESS)
        self.pool.cancel(first)
        self.assertEqual(self.counts(), (0, 0, 1, 0))
        self.pool.cancel(second)
        self.assertEqual(self.counts(), (0, 0, 0, 0))
        self.assertEqual(self.dialer.attempts, [])
        self.reactor.advance(10)
        self.assertEqual((first.told, second.told), ([], []))

    def test_cannot_connect(self):
        """If no connection can be made, all who wait hear why."""
        self.make()
        callers = [self.call() for _ in range(3)]
        self.dialer.answer(ADDRESS)
        self.dialer.attempts[0].fail()
        self.assertEqual([caller.told for caller in callers], [[Outcome.CONNECT_REFUSED]] * 3)
        self.assertEqual(self.counts(), (0, 0, 0, 0))

    def test_no_address(self):
        """A name that cannot be resolved in time is a timeout."""
        self.make()
        caller = self.call()
        self.reactor.advance(6)
        self.assertEqual(caller.told, [Outcome.CONNECT_TIMEOUT])
        self.assertEqual(self.counts(), (0, 0, 0, 0))

    def test_fresh(self):
        """Who wants a fresh connection gets a new one."""
        self.make()
        self.call()
        self.connect()
        caller = self.call(fresh=True)
        self.assertEqual(self.counts(), (1, 0, 1, 1))
        self.connect()
        self.assertEqual(len(self.peers[1].requests), 1)
        self.assertIsNotNone(caller.upstream)

    def test_fresh_at_the_limit(self):
        """At the limit, an idle connection makes room for a fresh one."""
        self.make(max_connections=1)
        self.call()
        self.connect().answer(1)
        self.call(fresh=True)
        self.assertEqual(self.counts(), (0, 0, 1, 0))
        self.listen()
        self.assertTrue(self.peers[0].end.has_ended)

    def test_idle_limit(self):
        """No more connections than allowed are kept without a stream."""
        self.make(max_idle_connections=1)
        for _ in range(4):
            self.call()
        self.connect(max_streams=2)
        self.connect()
        for peer in self.peers:
            for stream in peer.requests:
                peer.answer(stream)
        self.assertEqual(self.counts(), (0, 1, 0, 1))

    def test_retired(self):
        """The connections of a backend that is gone are closed with their last stream."""
        self.make()
        self.call()
        peer = self.connect()
        for pool in self.backend.pools:
            pool.retire()
        self.assertEqual(self.counts(), (1, 0, 0, 1))
        peer.answer(1)
        self.assertEqual(self.counts(), (0, 0, 0, 0))
        self.assertTrue(peer.end.has_ended)

    def test_change_of_protocol(self):
        """A request to change the protocol goes over HTTP/1.1."""
        self.make()
        caller = self.call(upgrade=b"websocket")
        self.dialer.answer(ADDRESS)
        peer = self.dialer.attempts[0].succeed()
        self.assertIsInstance(caller.upstream, Http1Client)
        self.reactor.settle()
        self.assertTrue(peer.take().startswith(b"GET / HTTP/1.1\r\n"))
        self.assertEqual([pool.leased for pool in self.backend.pools], [1, 0])


class LossTests(Http2PoolCase):
    """
    Connections end.
    """

    def test_lost(self):
        """Each stream of a connection that is lost hears of it once, and nothing is left."""
        for ending in (
            lambda end: end.close(),
            lambda end: (end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b""), end.close()),
        ):
            self.make()
            callers = [self.call() for _ in range(3)]
            peer = self.connect()
            peer.head(3)
            ending(peer.end)
            self.reactor.settle()
            self.assertEqual(
                [caller.told for caller in callers],
                [[Outcome.BACKEND_CLOSED], ["head", Outcome.RESPONSE_INCOMPLETE], [Outcome.BACKEND_CLOSED]],
            )
            self.assertEqual(self.counts(), (0, 0, 0, 0))

    def test_leaving(self):
        """A backend that leaves gets no new streams, and its connection ends with the last."""
        self.make()
        self.call()
        peer = self.connect()
        peer.leave(1)
        second = self.call()
        self.assertEqual(self.counts(), (1, 0, 1, 1))
        peer.answer(1)
        self.assertEqual(self.counts(), (0, 0, 1, 0))
        self.connect().answer(1)
        self.assertEqual(second.told, ["head", "body"])

    def test_leaving_while_idle(self):
        """A backend that leaves an idle connection is let go."""
        self.make()
        self.call()
        peer = self.connect()
        peer.answer(1)
        peer.leave(1)
        self.assertEqual(self.counts(), (0, 0, 0, 0))
        self.assertTrue(peer.end.has_ended)


class NegotiatedTests(Http2PoolCase):
    """
    Backends that choose the protocol.
    """

    scheme = "https"

    def secure(self, *protocols):
        """
        Let the oldest connection be made with a server that speaks `protocols`; return its end.
        """
        while self.dialer.questions:
            self.dialer.answer(ADDRESS)
        server = TlsServer(self.dialer.attempts[0].succeed(), self.reactor, protocols=protocols)
        server.work()
        self.offered = server.offered
        return server

    def test_http2(self):
        """A server that prefers HTTP/2 is spoken to in it."""
        self.make()
        callers = [self.call() for _ in range(2)]
        server = self.secure(b"h2", b"http/1.1")
        self.assertEqual(self.offered, [b"h2", b"http/1.1"])
        self.assertIsInstance(callers[0].upstream, Http2Upstream)
        self.assertIsNone(callers[1].upstream)
        server.work()
        self.assertTrue(bytes(server.heard).startswith(b"PRI * HTTP/2.0"))
        # How many streams it takes, it has yet to say.
        self.assertEqual(self.counts(), (1, 0, 0, 1))
        server._connection.sendall(b"\0\0\0\4\0\0\0\0\0")
        server.flush()
        self.reactor.settle()
        self.assertEqual(self.counts(), (2, 0, 0, 1))

    def test_http1(self):
        """With a server that prefers HTTP/1.1 each caller has a connection of its own, which is remembered, but not for ever."""
        self.make()
        callers = [self.call() for _ in range(2)]
        server = self.secure(b"http/1.1")
        self.assertIsInstance(callers[0].upstream, Http1Client)
        server.work()
        self.assertTrue(bytes(server.heard).startswith(b"GET / HTTP/1.1\r\n"))
        self.secure(b"h2", b"http/1.1")
        self.assertEqual(self.offered, [b"http/1.1"])
        self.assertIsInstance(callers[1].upstream, Http1Client)
        self.assertEqual([(pool.leased, pool.connecting) for pool in self.backend.pools], [(2, 0), (0, 0)])
        self.reactor.advance(601)
        self.call()
        self.secure(b"h2", b"http/1.1")
        self.assertEqual(self.offered, [b"h2", b"http/1.1"])

    def test_no_choice(self):
        """A server that does not negotiate speaks HTTP/1.1."""
        self.make()
        caller = self.call()
        while self.dialer.questions:
            self.dialer.answer(ADDRESS)
        TlsServer(self.dialer.attempts[0].succeed(), self.reactor).work()
        self.assertIsInstance(caller.upstream, Http1Client)

    def test_nobody_waits(self):
        """A connection that is agreed on when nobody wants it any more is not made."""
        self.make()
        caller = self.call()
        self.dialer.answer(ADDRESS)
        end = self.dialer.attempts[0].succeed()
        self.pool.cancel(caller)
        self.reactor.settle()
        self.assertTrue(end.has_ended or end.was_reset)
        self.assertEqual([(pool.leased, pool.connecting, pool.idle) for pool in self.backend.pools], [(0, 0, 0)] * 2)


class PlainSchemeTests(Http2PoolCase):
    """
    Servers that speak HTTP/1.1 unless it is gRPC.
    """

    scheme = "http"

    def test_two_pools(self):
        """The kind of a request decides which pool it is for."""
        self.make()
        head = RequestHead(b"POST", b"/")
        self.assertIs(self.backend.pool_for(head), self.backend.pool)
        head.grpc = b"application/grpc-web"
        self.assertIs(self.backend.pool_for(head), self.backend.pool)
        head.grpc = b"application/grpc"
        self.assertIs(self.backend.pool_for(head), self.backend.grpc_pool)
        self.assertIsNot(self.backend.pool, self.backend.grpc_pool)
        self.assertIsNone(self.backend.grpc_pool.lease(Lessee2()))


class Lessee2(Lessee):
    """
    A lessee with a request.
    """

    head = RequestHead(b"POST", b"/")
