"""
Tests of `a3sgw.demo`.
"""

import json

from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.demo import ADDRESS, NAMES, invitation, listen_backends, sample_text
from a3sgw.loading import load_string


class SampleTests(SynchronousTestCase):
    """
    The sample configuration.
    """

    def test_sample_is_valid(self):
        """
        The sample has no problems and no warnings, and listens where it was told to.
        """
        loaded = load_string(sample_text("127.0.0.1:7000", [7001, 7002]), "demo.hcl", {})
        self.assertEqual((loaded.problems, loaded.warnings), ((), ()))
        self.assertEqual(loaded.valid_config().entrypoints["web"].address, "127.0.0.1:7000")

    def test_sample_uses_both_backends(self):
        """
        The ports of both backends are in the sample.
        """
        config = load_string(sample_text(ADDRESS, [7001, 7002]), "demo.hcl", {}).valid_config()
        urls = [server.url for server in config.services["both"].load_balancer.servers]
        self.assertEqual(urls, ["http://127.0.0.1:7001", "http://127.0.0.1:7002"])

    def test_invitation(self):
        """
        What to try can be pasted into a shell, also if the gateway listens on all addresses.
        """
        cases = [("127.0.0.1:81", "127.0.0.1:81"), ("0.0.0.0:82", "127.0.0.1:82"), (":83", "127.0.0.1:83"), ("[::1]:84", "[::1]:84")]
        for address, here in cases:
            text = invitation(address)
            self.assertIn(f"curl http://{here}/api/gateway/health", text)
            self.assertEqual(text.count(f"http://{here}/"), text.count("curl"))


class BackendTests(SynchronousTestCase):
    """
    The two backends, without a network.
    """

    def setUp(self):
        self.reactor = MemoryReactor()
        listen_backends(self.reactor)

    def ask(self, number, request):
        """
        Return what backend `number` sends for `request`.
        """
        factory = self.reactor.tcpServers[number][1]
        factory.doStart()
        transport = StringTransport()
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(transport)
        protocol.dataReceived(request)
        protocol.connectionLost(None)
        factory.doStop()
        return transport.value()

    def test_loopback_only(self):
        """
        The backends cannot be reached from elsewhere.
        """
        self.assertEqual([server[3] for server in self.reactor.tcpServers], ["127.0.0.1"] * len(NAMES))

    def test_echo(self):
        """
        A backend says which one it is and repeats what reached it.
        """
        request = b"POST /tea?hot=1 HTTP/1.1\r\nHost: x.test\r\nX-Twice: a\r\nX-Twice: b\r\nContent-Length: 3\r\n\r\nabc"
        for number, name in enumerate(NAMES):
            head, _, body = self.ask(number, request).partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"HTTP/1.1 200 OK\r\n"), head)
            seen = json.loads(body)
            self.assertEqual((seen["backend"], seen["method"], seen["path"], seen["body_bytes"]), (name, "POST", "/tea?hot=1", 3))
            self.assertEqual(seen["headers"]["X-Twice"], "a, b")
