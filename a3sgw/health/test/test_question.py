"""
Tests of what servers are asked, and of what is made of their answers.
"""

from typing import ClassVar

from twisted.internet.defer import CancelledError

from a3sgw._version import __version__
from a3sgw.config.address import parse_server_url
from a3sgw.config.check import check
from a3sgw.config.model import GatewayConfig, HealthCheckConfig, LoadBalancerConfig, ServerConfig, ServiceConfig
from a3sgw.config.values import FrozenMap, Secret
from a3sgw.errors import Outcome
from a3sgw.health.question import ConnectQuestion, GrpcQuestion, HttpQuestion
from a3sgw.health.test.questions import NetworkCase
from a3sgw.proxy.outbound import Outbound
from a3sgw.proxy.pool import PoolSettings
from a3sgw.proxy.test.dialogues import OK, response
from a3sgw.proxy.test.http2_peers import Http2Backend
from a3sgw.proxy.test.leases import ADDRESS
from a3sgw.wire.fields import REQUEST_KINDS
from a3sgw.wire.grpc import frame


class QuestionCase(NetworkCase):
    """
    One question, whose answer will be the one element of `told`.
    """

    def ask(self):
        self.told = []
        self.asked = self.question.ask()
        self.asked.addBoth(self.told.append)
        self.reactor.settle()

    def assert_given_up(self):
        self.asked.cancel()
        (failure,) = self.told
        failure.trap(CancelledError)


class HttpTests(QuestionCase):
    """
    Servers that are asked for a path.
    """

    AGENT = f"User-Agent: a3s-gateway/{__version__} (health check)".encode()

    def make(self, url="http://app.test", **settings):
        settings.setdefault("path", "/ready")
        outbound = Outbound(self.dialer, self.reactor, pooling=PoolSettings(max_idle_connections=0))
        self.question = HttpQuestion(outbound, url, HealthCheckConfig(**settings))

    def test_request(self):
        """The request is what is configured, behind the URL's own path, and says who asks."""
        headers = FrozenMap({"X-Key": Secret("s3cret"), "X-Name": "Zoë"})
        for url, settings, lines in [
            ("http://app.test", {}, [b"GET /ready HTTP/1.1", b"Host: app.test", self.AGENT]),
            ("http://app.test:81/v1/", {}, [b"GET /v1/ready HTTP/1.1", b"Host: app.test:81", self.AGENT]),
            ("http://app.test", {"path": "/r?a=b"}, [b"GET /r?a=b HTTP/1.1", b"Host: app.test", self.AGENT]),
            ("http://app.test:81", {"host": "a.b"}, [b"GET /ready HTTP/1.1", b"Host: a.b", self.AGENT]),
            ("http://app.test", {"method": "HEAD"}, [b"HEAD /ready HTTP/1.1", b"Host: app.test", self.AGENT]),
            ("http://app.test", {"method": "POST"}, [b"POST /ready HTTP/1.1", b"Host: app.test", self.AGENT, b"Content-Length: 0"]),
            ("unix:/run/app.sock", {}, [b"GET /ready HTTP/1.1", b"Host: localhost", self.AGENT]),
            (
                "http://app.test",
                {"headers": headers},
                [b"GET /ready HTTP/1.1", b"Host: app.test", b"X-Key: s3cret", b"X-Name: Zo\xc3\xab", self.AGENT],
            ),
            (
                "http://app.test",
                {"headers": FrozenMap({"user-agent": "me"})},
                [b"GET /ready HTTP/1.1", b"Host: app.test", b"user-agent: me"],
            ),
        ]:
            self.make(url, **settings)
            self.ask()
            self.assertEqual(self.accept().take(), b"\r\n".join([*lines, b"", b""]))
            self.assert_given_up()

    def test_headers_that_are_ours(self):
        """Headers that would not be sent are refused in the configuration, and no others are."""
        for name in [*map(bytes.decode, REQUEST_KINDS), "Content_Length", "X-Any"]:
            value = {"content-length": "0", "expect": "100-continue", "transfer-encoding": "chunked"}.get(name, "x")
            balancing = LoadBalancerConfig(
                servers=(ServerConfig(url="http://a"),), health_check=HealthCheckConfig(path="/", headers=FrozenMap({name: value}))
            )
            config = GatewayConfig(services=FrozenMap({"s": ServiceConfig(name="s", load_balancer=balancing)}))
            is_refused = any("is for the gateway to set" in problem.message for problem in check(config, {}))
            self.make(headers=balancing.health_check.headers)
            self.ask()
            heard = self.accept().take()
            self.assert_given_up()
            self.assertEqual(f"\r\n{name}: {value}\r\n".encode() not in heard, is_refused, name)

    ANSWERS: ClassVar = [
        (("200-299",), [(200, ""), (299, ""), (300, "status 300"), (404, "status 404"), (503, "status 503")]),
        (("200", "404", "500-502"), [(200, ""), (201, "status 201"), (404, ""), (501, ""), (503, "status 503")]),
    ]

    def test_statuses(self):
        """Statuses that are configured as good are good, and others are told."""
        for good, cases in self.ANSWERS:
            self.make(status_codes=good)
            for status, objection in cases:
                self.ask()
                self.say(self.accept(), response(f"{status} x", "Content-Length: 0"))
                self.assertEqual(self.told, [objection])

    def test_own_connection(self):
        """Each question has a connection of its own, which is closed in order when it is answered."""
        self.make()
        for _ in range(3):
            self.ask()
            peer = self.accept()
            self.say(peer, OK)
            self.assertEqual((self.told, peer.has_ended, peer.was_reset), ([""], True, False))

    def test_large_body(self):
        """Of a body that does not end, so much is read and no more; the status counts."""
        self.make()
        self.ask()
        peer = self.accept()
        self.say(peer, response("200 OK", "Transfer-Encoding: chunked"))
        for _ in range(HttpQuestion.MAX_BODY_BYTES // 4096):
            self.assertEqual(self.told, [])
            self.say(peer, b"1000\r\n%b\r\n" % (b"x" * 4096))
        self.say(peer, b"1\r\nx\r\n")
        self.assertEqual((self.told, peer.was_reset), ([""], True))

    def test_failures(self):
        """Whatever goes wrong is told by the words of the access log, with what more is known."""
        self.make(timeout=2.0)
        for happen, objection in [
            (self.refuse, "connect-refused"),
            (lambda: self.dialer.answer(), "dns-error"),
            (lambda: self.reactor.advance(2), "connect-timeout (no connection within 2 s)"),
            (self._freeze, "response-timeout (no whole response within 2 s)"),
            (lambda: self.say(self.accept(), b"SSH-2.0\r\n\r\n"), "response-malformed (Backend sent a malformed response"),
            (self._leave, "backend-closed (end of stream)"),
        ]:
            self.dialer.questions.clear()
            self.ask()
            happen()
            self.reactor.settle()
            (told,) = self.told
            self.assertTrue(told.startswith(objection), told)

    def _freeze(self):
        self.accept()
        self.reactor.advance(2)

    def _leave(self):
        peer = self.accept()
        peer.take()
        peer.close()

    def test_given_up(self):
        """A question that is given up leaves nothing behind, however far it has come."""
        for steps in range(4):
            self.dialer.questions.clear()
            self.make()
            self.ask()
            if steps == 1:
                self.dialer.answer(ADDRESS)
            elif steps > 1:
                peer = self.accept()
            if steps > 2:
                self.say(peer, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
            self.assert_given_up()
            self.tearDown()

    def test_repr(self):
        """A question says what it asks whom."""
        self.make("http://app.test/v1", method="HEAD")
        self.assertEqual(repr(self.question), "<HttpQuestion HEAD /v1/ready of http://app.test/v1>")


class ConnectTests(QuestionCase):
    """
    Servers that are only connected to.
    """

    def make(self, url="tcp://app.test:81"):
        self.question = ConnectQuestion(self.dialer, parse_server_url(url), 2.0, self.reactor.callLater)

    def test_connects(self):
        """A server that accepts a connection is well; nothing is said to it."""
        for url, asked in [("tcp://app.test:81", ("app.test", 81)), ("http://app.test/x", ("app.test", 80)), ("a.test:5", ("a.test", 5))]:
            self.make(url)
            self.ask()
            self.assertEqual(self.dialer.questions[0][:2], asked)
            peer = self.accept()
            self.assertEqual((self.told, peer.take(), peer.has_ended, peer.was_reset), ([""], b"", True, False))

    def test_socket(self):
        """So is one behind a socket of the machine."""
        self.make("unix:/run/app.sock")
        self.ask()
        self.assertEqual(self.dialer.attempts[0].addresses[0][1], "/run/app.sock")
        self.accept()
        self.assertEqual(self.told, [""])

    def test_failures(self):
        """Why there is no connection is told, at the latest when the time is over."""
        for happen, objection in [
            (self.refuse, "connect-refused"),
            (lambda: self._fail(Outcome.CONNECT_FAILED), "connect-failed"),
            (lambda: self.dialer.answer(), "dns-error"),
            (self._wait, "connect-timeout (no connection within 2 s)"),
            (lambda: self.reactor.advance(2), "connect-timeout (no connection within 2 s)"),
        ]:
            self.make()
            self.ask()
            happen()
            self.assertEqual(self.told, [objection])

    def _fail(self, outcome):
        self.dialer.answer(ADDRESS)
        self.dialer.attempts[0].fail(outcome)

    def _wait(self):
        self.dialer.answer(ADDRESS)
        self.reactor.advance(2)

    def test_late_name(self):
        """A name that is found when nobody waits for it any more connects nobody."""
        self.make()
        self.ask()
        self.assert_given_up()
        self.dialer.answer(ADDRESS)
        self.assertEqual(self.dialer.attempts, [])

    def test_given_up(self):
        """A question that is given up while it connects leaves nothing behind."""
        self.make()
        self.ask()
        self.dialer.answer(ADDRESS)
        self.assertEqual(len(self.dialer.attempts), 1)
        self.assert_given_up()

    def test_repr(self):
        """A question says whom it asks."""
        self.make()
        self.assertIn("app.test", repr(self.question))


class Http2QuestionTests(QuestionCase):
    """
    Servers that are asked over HTTP/2.
    """

    def make(self, url="h2c://app.test", kind=GrpcQuestion, **settings):
        outbound = Outbound(self.dialer, self.reactor, pooling=PoolSettings(max_idle_connections=0))
        self.question = kind(outbound, url, HealthCheckConfig(**settings))

    def ask(self):
        super().ask()
        self.peer = Http2Backend(self.accept(), self.reactor)
        self.peer.listen()

    def test_path(self):
        """An `h2c` server can be asked for a path like any other."""
        self.make("h2c://app.test:81/v1", HttpQuestion, path="/ready")
        for status, objection in ((200, ""), (503, "status 503")):
            self.ask()
            fields = self.peer.requests[1]
            self.assertEqual(
                fields[:4], [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"app.test:81"), (b":path", b"/v1/ready")]
            )
            self.peer.answer(1, status=status)
            self.assertEqual(self.told, [objection])
            self.assertTrue(self.peer.end.has_ended)

    def test_call(self):
        """The health service of a gRPC server is called, whatever the scheme."""
        for url, prefix in (("h2c://app.test", b""), ("http://app.test/v1", b"/v1"), ("unix:/run/app.sock", b"")):
            self.make(url, grpc_service="shop.Cart", timeout=2.5, headers=FrozenMap({"x-key": "k"}))
            self.ask()
            given = dict(self.peer.requests[1])
            self.assertEqual((given[b":method"], given[b":path"]), (b"POST", prefix + b"/grpc.health.v1.Health/Check"))
            self.assertEqual(
                [given[name] for name in (b"content-type", b"te", b"grpc-timeout", b"x-key")],
                [b"application/grpc", b"trailers", b"2500m", b"k"],
            )
            self.assertEqual(self.peer.bodies[1], frame(b"\x0a\x09shop.Cart"))
            self.answer(b"\x08\x01")
            self.assertEqual(self.told, [""])
            self.assertTrue(self.peer.end.has_ended)

    def answer(self, message, *trailers):
        self.peer.head(1, ("content-type", "application/grpc"))
        self.peer.data(1, frame(message))
        self.peer.end_with(1, *(trailers or [("grpc-status", "0")]))

    def test_states(self):
        """Only a server that says it is serving is well."""
        self.make()
        for message, objection in (
            (b"", "UNKNOWN"),
            (b"\x08\x02", "NOT_SERVING"),
            (b"\x08\x03", "SERVICE_UNKNOWN"),
            (b"\x08\x09", "state 9"),
            (b"\x08", "no health response: a number that does not end"),
        ):
            self.ask()
            self.answer(message)
            self.assertEqual(self.told, [objection])

    def test_errors(self):
        """A call that fails says how."""
        self.make()
        for status, fields, objection in (
            (200, [("grpc-status", "12")], "gRPC status 12 UNIMPLEMENTED"),
            (200, [("grpc-status", "x")], "gRPC status -1 of no meaning"),
            (404, [], "status 404"),
            (200, [], "no health response: not exactly one message that is not compressed"),
        ):
            self.ask()
            self.peer.head(1, *fields, status=status, ended=True)
            self.assertEqual(self.told, [objection])
        self.ask()
        self.answer(b"\x08\x01", ("grpc-status", "14"))
        self.assertEqual(self.told, ["gRPC status 14 UNAVAILABLE"])
        self.assertEqual(repr(self.question), "<GrpcQuestion for the server of h2c://app.test>")

    def test_time_over(self):
        """A server that does not answer in time is not well, and is let go of."""
        self.make(timeout=1.0)
        self.ask()
        self.reactor.advance(1.1)
        self.assertEqual(self.told, ["response-timeout (no whole response within 1 s)"])
        self.peer.listen()
        self.assertTrue(self.peer.end.has_ended)

    def test_given_up(self):
        """A question that nobody wants answered any more leaves nothing behind."""
        self.make()
        self.ask()
        self.assert_given_up()
        self.peer.listen()
        self.assertTrue(self.peer.end.has_ended)
