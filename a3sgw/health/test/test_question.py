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
from a3sgw.health.question import ConnectQuestion, HttpQuestion
from a3sgw.health.test.questions import NetworkCase
from a3sgw.proxy.outbound import Outbound
from a3sgw.proxy.pool import PoolSettings
from a3sgw.proxy.test.dialogues import OK, response
from a3sgw.proxy.test.leases import ADDRESS
from a3sgw.wire.fields import REQUEST_KINDS


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
