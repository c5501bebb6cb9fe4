"""
Tests of the backend's side of HTTP/1: what is sent, and whether a connection may be used again.
"""

from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IUpstream
from a3sgw.message import RequestHead
from a3sgw.proxy.http1_client import Http1Client
from a3sgw.proxy.test.dialogues import OK, DialogueCase, request, response
from a3sgw.proxy.test.leases import PoolCase
from a3sgw.service.service import ServiceSettings
from a3sgw.testing import receiver_contract


class LeasedCase(PoolCase):
    """
    A connection lent by a pool; `peer` is the backend's end.
    """

    def lend(self, **settings):
        self.make(**settings)
        self.upstream, self.peer = self.take()
        return self.upstream

    def say(self, data):
        self.peer.send(data)
        self.reactor.settle()


def make_client():
    """
    Return a connection to a backend that has just been made.
    """
    return LeasedCase().lend()


class Http1ClientContractTests(receiver_contract(make_client)):
    """
    `Http1Client` is a receiver and an upstream.
    """

    def test_upstream(self):
        """A connection is the backend's side of its exchanges."""
        connection = make_client()
        self.assertIsInstance(connection, Http1Client)
        verifyObject(IUpstream, connection)

    def test_repr(self):
        """A connection says where it leads."""
        self.assertRegex(repr(make_client()), r"<Http1Client to http://app\.test for None on <Stream \d+ open held by none, 0 bytes")


class FailingExchange:
    """
    An exchange with a bug: it fails when the method `fails_in` is called. `told` is what it heard.
    """

    def __init__(self, fails_in=""):
        self.told = []
        self.fails_in = fails_in
        self.settings = ServiceSettings()
        self.connect_timeout = 5.0
        self.head = RequestHead(b"GET", b"/")
        self.response_header_timeout = 30.0

    def request_lines(self, address):
        return [b"GET / HTTP/1.1\r\nHost: %b" % address.authority]

    def _hear(self, name):
        self.told.append(name)
        if name == self.fails_in:
            raise ZeroDivisionError

    def interim_received(self, head):
        self._hear("interim")

    def head_received(self, head, piece, ended):
        self._hear("head")

    def response_body_received(self, piece, ended, trailers):
        self._hear("body")

    def upstream_failed(self, outcome, *, is_stale, detail):
        self.told.append(outcome)

    # -- as a lessee

    def upstream_leased(self, upstream):
        self.told.append("leased")
        upstream.send_request(self, b"", True)

    def lease_failed(self, outcome):
        self.told.append(outcome)


class BugTests(LeasedCase):
    """
    What a bug in an exchange costs.
    """

    def test_bug_before_the_end(self):
        """A bug within a response gives up the connection, and the exchange is told."""
        whole = b"HTTP/1.1 103 Hints\r\n\r\n" + response("200 OK", "Content-Length: 10", body=b"half")
        for fails_in in ("interim", "head", "body"):
            exchange = FailingExchange(fails_in)
            self.lend().send_request(exchange, b"", True)
            self.say(whole)
            if fails_in == "body":
                self.say(b"more")
            self.assertEqual(exchange.told[-2:], [fails_in, Outcome.INTERNAL_ERROR])
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assertTrue(self.peer.was_reset)
            self.assertEqual(self.counts(), (0, 0, 0))

    def test_bug_at_the_end(self):
        """A bug at the end of a response does not reach the exchange that has the connection next."""
        for answer, fails_in in [(OK, "head"), (response("200 OK", "Transfer-Encoding: chunked", body=b"1\r\nx\r\n"), "body")]:
            first, second = FailingExchange(fails_in), FailingExchange()
            self.lend(max_connections=1).send_request(first, b"", True)
            self.assertIsNone(self.pool.lease(second))
            self.say(answer)
            if fails_in == "body":
                self.say(b"0\r\n\r\n")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assertEqual(second.told, ["leased"])
            self.say(OK)
            self.assertEqual(second.told, ["leased", "head"])
            self.assertEqual(self.counts(), (0, 1, 0))


class ReuseTests(DialogueCase):
    """
    A connection is used again only if both messages ended where they said.
    """

    GET = request("GET", "/")

    def test_reuse(self):
        """The table of what leaves a connection usable."""
        chunked = "Transfer-Encoding: chunked"
        for asked, answered, is_reused in [
            (self.GET, OK, True),
            (self.GET, response("200 OK", chunked, body=b"1\r\nx\r\n0\r\n\r\n"), True),
            (self.GET, response("200 OK", chunked, body=b"1\r\nx\r\n0\r\nX-T: 1\r\n\r\n"), True),
            (self.GET, response("204 No Content"), True),
            (self.GET, response("304 Not Modified", "Content-Length: 10"), True),
            (request("HEAD"), response("200 OK", "Content-Length: 10"), True),
            (self.GET, b"HTTP/1.1 100 Continue\r\n\r\n" + OK, True),
            (self.GET, b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx", True),
            (request("POST", "/", "Content-Length: 3", body=b"abc"), OK, True),
            # Either side says that it is the last.
            (self.GET, response("200 OK", "Connection: close", "Content-Length: 1", body=b"x"), False),
            (self.GET, response("200 OK", "Connection: x, Close", chunked, body=b"0\r\n\r\n"), False),
            (self.GET, b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", False),
            # What comes after the end belongs to nobody.
            (self.GET, OK + b"HTTP/1.1 200 OK\r\n", False),
            (self.GET, response("204 No Content", body=b"surprise"), False),
            (request("HEAD"), response("200 OK", "Content-Length: 2", body=b"ok"), False),
            (self.GET, response("200 OK", chunked, body=b"1\r\nx\r\n0\r\n\r\nmore"), False),
            # The request was not read to its end.
            (request("POST", "/", "Content-Length: 3", body=b"ab"), OK, False),
            (request("POST", "/", chunked, body=b"1\r\na\r\n"), OK, False),
        ]:
            self.converse()
            backend = self.ask(asked)
            self.hear(backend)
            self.say(backend, answered)
            self.assertEqual(self.dialogue.outcomes(), ["completed"], answered)
            self.hear(self.client)
            self.assertIs(not (backend.has_ended or backend.was_reset), is_reused, answered)
            other = self.dialogue.connect()
            self.say(other, self.GET)
            self.assertIs(self.dialogue.backend() is backend, is_reused, answered)
            other.close()
            self.client.close()
            self.dialogue.reactor.settle()
            self.dialogue.assert_clean(self)


    def test_unasked_response_at_the_same_moment(self):
        """What a backend says on an idle connection in the very moment when that is needed is no answer to the request."""
        for asked in (self.GET, request("POST", "/pay", "Content-Length: 1", body=b"x")):
            self.converse()
            backend = self.ask(self.GET)
            self.hear(backend)
            self.say(backend, OK)
            self.hear(self.client)
            self.client.send(asked)
            self.say(backend, response("200 OK", "Content-Length: 6", body=b"poison"))
            other = self.dialogue.backend()
            self.assertIsNot(other, backend)
            self.assertTrue(backend.has_ended or backend.was_reset)
            self.say(other, OK)
            self.assertTrue(self.hear(self.client).endswith(b"\r\n\r\nok"))
            self.assertEqual(self.dialogue.outcomes(), ["completed", "completed"])


class RequestTests(DialogueCase):
    """
    The request as the backend sees it.
    """

    def heard(self, asked=None):
        return self.hear(self.ask(request("GET", "/x?y") if asked is None else asked))

    def test_host(self):
        """The backend is asked for the client's host, or for its own where that is configured or the client named none."""
        self.converse()
        self.assertIn(b"\r\nHost: a.test\r\n", self.heard())
        self.converse(service="pass_host_header = false")
        heard = self.heard()
        self.assertIn(b"\r\nHost: 192.0.2.1\r\n", heard)
        self.assertIn(b"\r\nX-Forwarded-Host: a.test\r\n", heard)
        self.assertEqual(heard.count(b"Host: "), 2)
        self.converse()
        self.assertIn(b"\r\nHost: 192.0.2.1\r\n", self.heard(b"GET / HTTP/1.0\r\n\r\n"))

    def test_request_id(self):
        """A request id is passed on if it is safe, else one is made up; each request has its own."""
        self.converse()
        self.assertIn(b"\r\nX-Request-Id: abc-1\r\n", self.heard(request("GET", "/", "X-Request-Id: abc-1")))
        seen = set()
        for lines in ([], ["X-Request-Id: a b"], ["X-Request-Id: " + "x" * 200]):
            self.converse()
            heard = self.heard(request("GET", "/", *lines))
            self.assertEqual(heard.count(b"X-Request-Id: "), 1)
            seen.add(heard.partition(b"X-Request-Id: ")[2].partition(b"\r\n")[0])
        self.assertEqual(len(seen), 3)

    def test_hop_by_hop_fields(self):
        """What concerns only the client's connection stays there."""
        self.converse()
        heard = self.heard(request("GET", "/", "Connection: keep-alive, X-Private", "X-Private: 1", "Keep-Alive: timeout=5", "Upgrade: x"))
        for name in (b"X-Private", b"Keep-Alive", b"Upgrade", b"Connection"):
            self.assertNotIn(name, heard)

    def test_congestion_after_the_request(self):
        """A connection that has not taken the whole request is not used again, however complete its response."""
        self.converse()
        backend = self.ask(request("PUT", "/", "Content-Length: 5000"))
        self.hear(backend)
        backend.room = 10
        self.say(self.client, b"x" * 5000)
        self.say(backend, OK)
        self.assertTrue(self.hear(self.client).endswith(b"ok"))
        self.assertIsNot(self.ask(), backend)
