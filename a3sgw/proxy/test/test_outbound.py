"""
Tests of the way out: what is sent, to whom, and over which connections.
"""

from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IDestination, IOutbound
from a3sgw.message import Field, LocalResponse, make_field
from a3sgw.proxy.outbound import Destination, Outbound
from a3sgw.proxy.pool import Pool, PoolSettings
from a3sgw.proxy.test.dialogues import OK, response
from a3sgw.proxy.test.errands import OutboundCase, make_service
from a3sgw.service.backend import Backend, BackendAddress
from a3sgw.service.service import Traits
from a3sgw.service.sticky import CookieSettings, Stickiness


class InterfaceTests(OutboundCase):
    """
    What is promised to middlewares, and to pools.
    """

    def test_interfaces(self):
        """The way out and its destinations provide their interfaces."""
        self.assertIsInstance(self.outbound, Outbound)
        verifyObject(IOutbound, self.outbound)
        for destination in (self.open(), self.open("unix:/run/auth.sock"), self.outbound.open_service(make_service())):
            self.assertIsInstance(destination, Destination)
            verifyObject(IDestination, destination)

    def test_no_server(self):
        """A URL that names no HTTP server is refused."""
        for url in ("auth.test", "tcp://auth.test:1", "http://", "unix:auth.sock"):
            with self.assertRaises(ValueError):
                self.outbound.open(url)


class RequestTests(OutboundCase):
    """
    The request as the server sees it.
    """

    def heard(self, url, *arguments, **options):
        self.open(url)
        asked = self.fetch(*arguments, **options)
        heard = self.accept().take()
        asked.cancel()
        return heard

    def test_request(self):
        """The request line, the URL's host, the given fields, the framing, and nothing else; the URL's path plays no part."""
        fields = [make_field(b"X-Name", b"1"), Field(b"accept", b"*/*", b"accept:*/*"), make_field(b"X-Name", b"2")]
        for url, method, target, given, body, lines in [
            ("http://auth.test", b"GET", b"/a?b=c", [], b"", [b"GET /a?b=c HTTP/1.1", b"Host: auth.test"]),
            ("http://auth.test:80/x", b"GET", b"/", [], b"", [b"GET / HTTP/1.1", b"Host: auth.test"]),
            ("http://auth.test:81/x?y", b"GET", b"/?", [], b"", [b"GET /? HTTP/1.1", b"Host: auth.test:81"]),
            ("http://[::1]:81", b"OPTIONS", b"*", [], b"", [b"OPTIONS * HTTP/1.1", b"Host: [::1]:81"]),
            ("unix:/run/auth.sock", b"HEAD", b"/", [], b"", [b"HEAD / HTTP/1.1", b"Host: localhost"]),
            ("http://a", b"GET", b"/", fields, b"", [b"GET / HTTP/1.1", b"Host: a", b"X-Name: 1", b"accept:*/*", b"X-Name: 2"]),
            ("http://a", b"POST", b"/", [], b"abc", [b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 3"]),
            ("http://a", b"POST", b"/", [], b"", [b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 0"]),
            ("http://a", b"DELETE", b"/", [], b"x", [b"DELETE / HTTP/1.1", b"Host: a", b"Content-Length: 1"]),
        ]:
            heard = self.heard(url, method, target, given, body=body)
            self.assertEqual(heard, b"\r\n".join([*lines, b"", body]))

    def test_fields_that_are_not_for_the_caller(self):
        """Fields that frame the message, name the host or concern the connection are not taken from the caller."""
        for name in (
            b"Host",
            b"Content-Length",
            b"Transfer-Encoding",
            b"Connection",
            b"Keep-Alive",
            b"TE",
            b"Upgrade",
            b"Expect",
            b"Proxy-Connection",
            b"Content_Length",
        ):
            value = {b"Content-Length": b"5", b"Transfer-Encoding": b"chunked", b"Expect": b"100-continue"}.get(name, b"x")
            heard = self.heard("http://a", b"POST", b"/", [make_field(name, value), make_field(b"X-Kept", b"1")], body=b"abc")
            self.assertEqual(heard, b"POST / HTTP/1.1\r\nHost: a\r\nX-Kept: 1\r\nContent-Length: 3\r\n\r\nabc", name)

    def test_forwarding_fields(self):
        """What middlewares say of a client is sent as they say it."""
        fields = [make_field(name, b"192.0.2.1") for name in (b"X-Forwarded-For", b"X-Forwarded-Uri", b"X-Real-Ip", b"X-Request-Id")]
        heard = self.heard("http://a", b"GET", b"/", fields)
        self.assertEqual(heard, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(field.line + b"\r\n" for field in fields) + b"\r\n")

    def test_request_that_would_be_two(self):
        """A method, target or field that would not stay what it is on the wire is refused, and nobody is asked."""
        self.open()
        for method, target, line in [
            (b"GET /x HTTP/1.1\r\nX:", b"/", b"X: 1"),
            (b"", b"/", b"X: 1"),
            (b"GET", b"/ HTTP/1.1\r\nX: ", b"X: 1"),
            (b"GET", b"/a b", b"X: 1"),
            (b"GET", b"/\xc3\xa4", b"X: 1"),
            (b"GET", b"", b"X: 1"),
            (b"GET", b"/", b"X: 1\r\nY: 2"),
            (b"GET", b"/", b"X: 1\n"),
            (b"GET", b"/", b"X: a\0b"),
            (b"GET", b"/", b"X Y: 1"),
            (b"GET", b"/", b" X: 1"),
        ]:
            with self.assertRaises(ValueError, msg=(method, target, line)):
                self.fetch(method, target, [Field(b"x", b"1", line)])
        self.assertEqual(self.dialer.questions, [])

    def test_large_body(self):
        """A request body that the server takes slowly is sent to its end."""
        self.open()
        body = b"x" * 50_000
        self.fetch(b"PUT", b"/", body=body)
        peer = self.accept(room=1000)
        heard = b""
        while not heard.endswith(body):
            self.assertEqual(self.told, [])
            self.reactor.settle()
            heard += peer.take()
        self.say(peer, OK)
        self.assert_answered()


class StatusTests(OutboundCase):
    """
    A server that is asked for nothing but a status.
    """

    def make_outbound(self):
        return Outbound(self.dialer, self.reactor, pooling=PoolSettings(max_idle_connections=0))

    def ask(self, method=b"GET", *, timeout=5.0):
        self.told = []
        self.asked = self.destination.ask(method, b"/ready", [make_field(b"X-A", b"1")], timeout=timeout, max_body_bytes=1000)
        self.asked.addBoth(self.told.append)
        self.reactor.settle()

    def test_request(self):
        """The request says the host that it should, and has no body."""
        for url, host, said in [
            ("http://app.test:81", None, b"app.test:81"),
            ("http://app.test:81", b"other.test", b"other.test"),
            ("unix:/run/app.sock", b"other.test", b"other.test"),
        ]:
            self.opened.append(self.outbound.open(url, host))
            self.destination = self.opened[-1]
            self.ask()
            self.assertEqual(self.accept().take(), b"GET /ready HTTP/1.1\r\nHost: " + said + b"\r\nX-A: 1\r\n\r\n")
            self.asked.cancel()

    def test_no_connection_is_kept(self):
        """With room for no idle connection, each question has one of its own, which is closed after the answer."""
        self.open()
        for status in (200, 204, 301, 500):
            self.ask()
            peer = self.accept()
            self.say(peer, response(f"{status} x", "Content-Length: 0"))
            self.assertEqual(self.told, [status])
            self.assertEqual((peer.has_ended, peer.was_reset), (True, False))

    def test_body_is_dropped(self):
        """A body is waited for, but not for more of it than is allowed."""
        self.open()
        for method, head, body, is_reset in [
            (b"GET", "Content-Length: 1000", b"x" * 1000, False),
            (b"GET", "Transfer-Encoding: chunked", b"3e8\r\n%b\r\n0\r\n\r\n" % (b"x" * 1000), False),
            (b"GET", "Content-Length: 1001", b"", True),
            (b"GET", "Transfer-Encoding: chunked", b"3e9\r\n%b" % (b"x" * 1001), True),
            (b"HEAD", "Content-Length: 99999", b"", False),
        ]:
            self.ask(method)
            peer = self.accept()
            self.say(peer, response("200 OK", head, body=body))
            self.assertEqual(self.told, [200], head)
            self.assertEqual(peer.was_reset, is_reset, head)

    def test_time_limit(self):
        """The whole time may go into the connection; a body that does not end is no answer."""
        self.open()
        self.ask(timeout=20.0)
        self.reactor.advance(19)
        self.say(self.accept(), OK)
        self.assertEqual(self.told, [200])
        self.ask(timeout=20.0)
        self.reactor.advance(20)
        self.assert_failed(Outcome.CONNECT_TIMEOUT, "no connection within 20 s")
        self.ask(timeout=20.0)
        self.say(self.accept(), response("200 OK", "Content-Length: 5", body=b"abc"))
        self.reactor.advance(20)
        self.assert_failed(Outcome.RESPONSE_TIMEOUT, "no whole response within 20 s")


class FakeWatch:
    """
    Hears of attempts: the tickets of those `under_way`, and what was said when they `ended`.
    """

    def __init__(self):
        self.under_way = set()
        self.ended = []
        self._tickets = 0

    def begin(self):
        self._tickets += 1
        self.under_way.add(self._tickets)
        return self._tickets

    def end(self, ticket, outcome, status, seconds):
        self.under_way.remove(ticket)
        self.ended.append((outcome, status, seconds > 0))


class ServiceTests(OutboundCase):
    """
    A service is asked like a server.
    """

    def serve(self, count, traits=Traits(), *, connect_timeout=5.0, **settings):  # noqa: B008
        backends = []
        for number in range(1, count + 1):
            address = BackendAddress("http", "", 0, f"/run/{number}.sock", b"/prefix", b"app%d.test" % number)
            backends.append(Backend("app", f"unix:/run/{number}.sock", address, 1))
            backends[-1].pool = Pool(backends[-1], PoolSettings(**settings), self.dialer)
        self.service = make_service(backends, traits, connect_timeout=connect_timeout)
        self.destination = self.outbound.open_service(self.service)
        self.opened.append(self.destination)
        return backends

    def assert_clean(self):
        for backend in self.service.backends:
            self.assertEqual((backend.in_flight, backend.pool.leased, backend.pool.connecting), (0, 0, 0))
            backend.pool.retire()
        super().assert_clean()

    def test_request(self):
        """The server's own prefix and host are in the request."""
        self.serve(1)
        for method, target, line in [(b"GET", b"/a?b", b"GET /prefix/a?b HTTP/1.1"), (b"OPTIONS", b"*", b"OPTIONS * HTTP/1.1")]:
            self.fetch(method, target)
            peer = self.accept()
            self.assertEqual(peer.take(), line + b"\r\nHost: app1.test\r\n\r\n")
            self.leave(peer)

    def test_each_in_turn(self):
        """Each request goes to a server that is chosen for it, which counts it as long as it lasts."""
        one, two = self.serve(2)
        for backend in (one, two):
            self.fetch()
            self.assertEqual(backend.in_flight, 1)
            self.say(self.accept(), OK)
            self.assert_answered()
            self.assertEqual((backend.in_flight, backend.pool.idle), (0, 1))
        self.assertEqual(self.service.retries, 0)

    def test_next_server(self):
        """If no connection can be made the next server is asked, whatever the request is."""
        one, two, three = self.serve(3)
        self.fetch(b"POST", body=b"pay")
        self.dialer.attempts[-1].fail()
        self.dialer.attempts[-1].fail(Outcome.CONNECT_TIMEOUT)
        self.assertEqual([backend.in_flight for backend in (one, two, three)], [0, 0, 1])
        peer = self.accept()
        self.assertEqual(peer.take().count(b"pay"), 1)
        self.say(peer, OK)
        self.assert_answered()
        self.assertEqual(self.service.retries, 2)

    def test_no_server_left(self):
        """If none can be reached, it is told why the last one could not."""
        self.serve(2)
        self.fetch()
        self.dialer.attempts[-1].fail(Outcome.CONNECT_FAILED)
        self.assertEqual(self.told, [])
        self.dialer.attempts[-1].fail(Outcome.CONNECT_REFUSED)
        self.assert_failed(Outcome.CONNECT_REFUSED)

    def test_no_server_at_all(self):
        """A service without a usable server is told apart."""
        self.serve(0)
        self.fetch()
        self.assert_failed(Outcome.NO_BACKEND)

    def test_failed_server_is_not_replaced(self):
        """What a server has seen is not sent to another."""
        self.serve(2)
        self.fetch()
        self.leave(self.accept())
        self.assert_failed(Outcome.BACKEND_CLOSED)
        self.assertEqual(self.dialer.attempts, [])

    def test_bug_in_the_balancer(self):
        """A balancer that fails costs the errand, at once and later, and nothing else."""
        self.serve(2)
        balancer = self.service.groups[0]._balancer
        balancer.is_broken = True
        self.fetch()
        self.assert_failed(Outcome.INTERNAL_ERROR)
        balancer.is_broken = False
        self.fetch()
        balancer.is_broken = True
        self.dialer.attempts[-1].fail()
        self.assert_failed(Outcome.INTERNAL_ERROR)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_waiting_in_line(self):
        """Errands wait their turn for a busy server; one that is given up leaves the line, and the others move up."""
        (one,) = self.serve(1, max_connections=1)
        waiting = []
        for number in range(4):
            waiting.append((self.fetch(target=b"/%d" % number), self.told))
        peer = self.accept()
        self.assertEqual(one.in_flight, 4)
        waiting[1][0].cancel()
        self.assertEqual(one.in_flight, 3)
        self.say(peer, OK)
        self.assertIn(b"GET /prefix/2 ", peer.take())
        waiting[2][0].cancel()
        self.reactor.settle()
        other = self.accept()
        self.assertIn(b"GET /prefix/3 ", other.take())
        self.say(other, OK)
        self.assertEqual([told[0].__class__ for _, told in waiting], [LocalResponse, Failure, Failure, LocalResponse])

    def test_waiting_in_vain(self):
        """A server that stays busy is told apart from one that cannot be reached."""
        self.serve(1, max_connections=1, connect_timeout=3.0)
        first = self.fetch()
        peer = self.accept()
        self.fetch()
        self.reactor.advance(3.5)
        self.assert_failed(Outcome.POOL_EXHAUSTED)
        first.cancel()
        self.assertTrue(peer.was_reset)

    def test_sticky_service(self):
        """The gateway itself is bound to no server of a service that binds its clients."""
        self.serve(2, Traits(sticky=Stickiness("app", CookieSettings(b"bound"), [b"k" * 32], self.reactor.seconds)))
        peers = []
        for number in (1, 2, 1, 2):
            self.fetch()
            peers.append(self.accept() if number > len(peers) else peers[number - 1])
            self.assertIn(b"Host: app%d.test" % number, peers[-1].take())
            self.say(peers[-1], OK)
            self.assertEqual([field.name for field in self.assert_answered().fields], [b"date"])

    def test_stale_twice(self):
        """Who had to wait in line for a second connection and finds it closed too does not try a third."""
        self.serve(1, max_connections=2)
        self.fetch()
        first = self.accept()
        self.fetch()
        other = self.accept()
        for peer in (first, other):
            self.say(peer, OK)
            peer.take()
        self.fetch(target=b"/busy")
        self.fetch(target=b"/unlucky")
        unlucky = self.told
        self.fetch(target=b"/waiting")
        self.assertIn(b"/busy", other.take())
        # Whoever waits takes the place of the first connection that is lost.
        self.leave(first)
        self.say(other, OK)
        self.assertIn(b"/unlucky", other.take())
        self.leave(other)
        self.assertEqual([failure.value.outcome for failure in unlucky], [Outcome.BACKEND_CLOSED])
        third = self.accept()
        self.assertIn(b"/waiting", third.take())
        self.say(third, OK)
        self.assert_answered()

    def test_too_large_at_once(self):
        """A connection whose answer is too large, but whole, is still good."""
        (one,) = self.serve(1)
        self.fetch()
        self.say(self.accept(), response("200 OK", "Content-Length: 1001", body=b"x" * 1001))
        self.assert_failed(Outcome.RESPONSE_MALFORMED)
        self.assertEqual((one.pool.leased, one.pool.idle), (0, 1))

    def test_watched(self):
        """Whoever watches a server hears of each attempt once: how it ended, what was answered, and whether there was a connection."""
        (one,) = self.serve(1)
        one.watch = watch = FakeWatch()

        def refuse():
            self.dialer.attempts[-1].fail()

        def answer(status):
            self.say(self.accept(), response(f"{status} x", "Content-Length: 5", body=b"x"))
            self.asked.cancel()

        for end, expected in [
            (refuse, (Outcome.CONNECT_REFUSED, 0, False)),
            (lambda: self.leave(self.accept()), (Outcome.BACKEND_CLOSED, 0, True)),
            (lambda: answer(200), (Outcome.COMPLETED, 200, True)),
            (lambda: answer(503), (Outcome.COMPLETED, 503, True)),
            (lambda: self.asked.cancel(), (Outcome.CLIENT_CLOSED, 0, False)),
            (lambda: self.reactor.advance(5), (Outcome.CONNECT_TIMEOUT, 0, False)),
        ]:
            self.fetch()
            self.assertEqual(len(watch.under_way), 1)
            end()
            self.assertEqual((watch.under_way, watch.ended), (set(), [expected]))
            watch.ended.clear()

    def test_watched_twice(self):
        """A second attempt is one of its own to whoever watches the server."""
        (one,) = self.serve(1)
        self.fetch()
        peer = self.accept()
        self.say(peer, OK)
        one.watch = watch = FakeWatch()
        self.close(peer)
        self.fetch()
        self.dialer.attempts[-1].fail()
        self.assertEqual(watch.ended, [(Outcome.BACKEND_CLOSED, 0, True), (Outcome.CONNECT_REFUSED, 0, False)])

    def test_closing(self):
        """Closing the destination closes nothing of the service's."""
        (one,) = self.serve(1)
        self.fetch()
        self.say(self.accept(), OK)
        self.destination.close()
        self.reactor.settle()
        self.assertEqual(one.pool.idle, 1)
