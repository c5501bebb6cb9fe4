"""
What backends are told about where a request came from, and what does not travel further than one hop.
"""

from __future__ import annotations

import json
import re

from tests.setting import GatewayCase, TrustingCase, service
from tests.wire import Client, Stage, head_fields, request

FORGED = (
    "X-Forwarded-For: 203.0.113.1, 198.51.100.2",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil.test",
    "X-Forwarded-Port: 4444",
    "X-Forwarded-Server: evil",
    "X-Forwarded-Prefix: /evil",
    "X-Real-Ip: 203.0.113.1",
    "Forwarded: for=203.0.113.1;proto=https;host=evil.test",
)


class ClientAddressTests(TrustingCase):
    """
    Nobody but a trusted proxy can say for whom it speaks.
    """

    def test_what_backends_are_told(self):
        """
        A backend learns the client's address, scheme, host and port, who passed the request on, and its id.
        """
        got = self.forwarded(self.port, source="127.0.0.9")
        self.assertEqual(got["x-forwarded-for"], ["127.0.0.9"])
        self.assertEqual(got["x-real-ip"], ["127.0.0.9"])
        self.assertEqual(got["x-forwarded-proto"], ["http"])
        self.assertEqual(got["x-forwarded-host"], ["test"])
        self.assertEqual(got["x-forwarded-port"], [str(self.port)])
        self.assertEqual(len(got["x-forwarded-server"]), 1)
        self.assertEqual(got["via"], ["1.1 a3s-gateway"])
        self.assertEqual(len(got["x-request-id"]), 1)
        self.assertNotIn("forwarded", got)
        self.assertNotIn("connection", got)

    def test_forged_by_a_stranger(self):
        """
        What a stranger claims about itself is dropped, all of it.
        """
        got = self.forwarded(self.port, *FORGED)
        self.assertEqual(got, self.forwarded(self.port) | {"x-request-id": got["x-request-id"]})
        self.assertEqual(self.client_of(self.port, *FORGED), "127.0.0.1")

    def test_forged_in_odd_spelling(self):
        """
        Other letter cases and repetitions make no difference, and look-alikes with underscores are refused.
        """
        got = self.forwarded(self.port, "x-FORWARDED-for: 203.0.113.1", "X-Forwarded-For: 203.0.113.2", "x-real-IP: 203.0.113.3")
        self.assertEqual((got["x-forwarded-for"], got["x-real-ip"]), (["127.0.0.1"], ["127.0.0.1"]))
        with Client(self.port) as client:
            self.assertEqual(client.fetch("/", "X_Forwarded_For: 203.0.113.1").status, 400)

    def test_told_by_a_trusted_proxy(self):
        """
        What a trusted proxy says is believed and passed on, with the proxy's own address behind it.
        """
        got = self.forwarded(self.behind, *FORGED[:4])
        self.assertEqual(got["x-forwarded-for"], ["198.51.100.2, 127.0.0.1"])
        self.assertEqual(got["x-real-ip"], ["198.51.100.2"])
        self.assertEqual(got["x-forwarded-proto"], ["https"])
        self.assertEqual(got["x-forwarded-host"], ["evil.test"])
        self.assertEqual(got["x-forwarded-port"], ["4444"])
        self.assertEqual(self.client_of(self.behind, *FORGED[:4]), "198.51.100.2")

    def test_a_stranger_at_the_trusting_entrypoint(self):
        """
        An address that is not trusted is a stranger there too.
        """
        got = self.forwarded(self.behind, *FORGED, source="127.0.0.2")
        self.assertEqual((got["x-forwarded-for"], got["x-forwarded-proto"]), (["127.0.0.2"], ["http"]))

    def test_chains(self):
        """
        The client is the nearest address that is no trusted proxy; what stands before it may be forged and is not believed.
        """
        for lines, client, chain in (
            (("X-Forwarded-For: 203.0.113.7",), "203.0.113.7", "203.0.113.7, 127.0.0.1"),
            (("X-Forwarded-For: 1.1.1.1, 203.0.113.7",), "203.0.113.7", "203.0.113.7, 127.0.0.1"),
            (("X-Forwarded-For: 1.1.1.1, 203.0.113.7, 10.1.2.3",), "203.0.113.7", "203.0.113.7, 10.1.2.3, 127.0.0.1"),
            (("X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 203.0.113.7, 10.1.2.3"), "203.0.113.7", "203.0.113.7, 10.1.2.3, 127.0.0.1"),
            (("X-Forwarded-For: 10.9.9.9, 10.1.2.3",), "10.9.9.9", "10.9.9.9, 10.1.2.3, 127.0.0.1"),
            (("X-Forwarded-For:  203.0.113.7 ,, ,",), "203.0.113.7", "203.0.113.7, 127.0.0.1"),
            (("X-Forwarded-For: 203.0.113.7:5555",), "203.0.113.7", "203.0.113.7, 127.0.0.1"),
            (("X-Forwarded-For: 2001:db8::7",), "2001:db8::7", "2001:db8::7, 127.0.0.1"),
            (("X-Forwarded-For: [2001:db8::7]:5555",), "2001:db8::7", "2001:db8::7, 127.0.0.1"),
            (("X-Forwarded-For: ::ffff:203.0.113.7",), "203.0.113.7", "203.0.113.7, 127.0.0.1"),
            (("X-Forwarded-For: ::ffff:203.0.113.7, ::ffff:10.0.0.1",), "203.0.113.7", "203.0.113.7, 10.0.0.1, 127.0.0.1"),
            (("Forwarded: for=203.0.113.7;proto=https",), "203.0.113.7", "203.0.113.7, 127.0.0.1"),
            (('Forwarded: For="[2001:db8::7]:80", for=10.1.2.3',), "2001:db8::7", "2001:db8::7, 10.1.2.3, 127.0.0.1"),
            (("Forwarded: for=1.1.1.1", "Forwarded: for=203.0.113.7"), "203.0.113.7", "203.0.113.7, 127.0.0.1"),
            (("X-Forwarded-For: 203.0.113.7", "Forwarded: for=1.1.1.1"), "203.0.113.7", "203.0.113.7, 127.0.0.1"),
        ):
            got = self.forwarded(self.behind, *lines)
            self.assertEqual((got["x-real-ip"], got["x-forwarded-for"]), ([client], [chain]), lines)
            self.assertNotIn("forwarded", got)

    def test_garbage_in_chains(self):
        """
        An element that is no address ends the chain: nothing beyond it is believed, and nothing of it is passed on.
        """
        for line, client, chain in (
            ("X-Forwarded-For: 1.1.1.1, unknown", "127.0.0.1", "127.0.0.1"),
            ("X-Forwarded-For: 1.1.1.1, unknown, 10.1.2.3", "10.1.2.3", "10.1.2.3, 127.0.0.1"),
            ("X-Forwarded-For: unknown", "127.0.0.1", "127.0.0.1"),
            ("X-Forwarded-For: 999.1.1.1", "127.0.0.1", "127.0.0.1"),
            ("X-Forwarded-For: 0x7f.1", "127.0.0.1", "127.0.0.1"),
            ("X-Forwarded-For: 127.1", "127.0.0.1", "127.0.0.1"),
            ("X-Forwarded-For: <script>", "127.0.0.1", "127.0.0.1"),
            ("X-Forwarded-For: \xe9", "127.0.0.1", "127.0.0.1"),
            ("X-Forwarded-For: [::1", "127.0.0.1", "127.0.0.1"),
            ("Forwarded: for=_hidden", "127.0.0.1", "127.0.0.1"),
            ("Forwarded: for=unknown;proto=https", "127.0.0.1", "127.0.0.1"),
            ('Forwarded: for="', "127.0.0.1", "127.0.0.1"),
        ):
            got = self.forwarded(self.behind, line)
            if line != "X-Forwarded-For: [::1":
                self.assertEqual((got["x-real-ip"], got["x-forwarded-for"]), ([client], [chain]), line)
            else:
                self.assertIn(got["x-real-ip"], (["127.0.0.1"], ["::1"]))

    def test_forwarded_parameter_inside_another(self):
        """
        Text that looks like `for=` inside a quoted value of `Forwarded` is no address.
        """
        got = self.forwarded(self.behind, 'Forwarded: for=203.0.113.7;host="a, for=1.1.1.1"')
        self.assertEqual(got["x-real-ip"], ["203.0.113.7"])

    def test_odd_scheme_host_and_port(self):
        """
        A scheme, host or port from a trusted proxy that cannot be one is replaced by what the gateway knows.
        """
        got = self.forwarded(
            self.behind, "X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: gopher", "X-Forwarded-Host: a b", "X-Forwarded-Port: 80a"
        )
        self.assertEqual(got["x-forwarded-proto"], ["http"])
        self.assertEqual(got["x-forwarded-host"], ["test"])
        self.assertEqual(got["x-forwarded-port"], [str(self.behind)])

    def test_hop_by_hop_cannot_take_the_address_away(self):
        """
        A client cannot have the proxy's word about it dropped by calling it hop-by-hop in `Connection`.
        """
        lines = ("X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.test")
        got = self.forwarded(self.behind, *lines, "Connection: close, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Real-Ip")
        self.assertEqual(got["x-real-ip"], ["203.0.113.7"])
        self.assertEqual((got["x-forwarded-proto"], got["x-forwarded-host"]), (["https"], ["shop.test"]))


class FieldTests(TrustingCase):
    """
    What is for one hop stays on it; everything else goes through.
    """

    def test_request_id(self):
        """
        A request id is passed on if it is one, and made if there is none; no two are the same, and the access log has it.
        """
        self.assertEqual(self.forwarded(self.port, "X-Request-Id: my-id.1", target="/id/1")["x-request-id"], ["my-id.1"])
        self.assertEqual(self.wait_for_record("/id/1")["request_id"], "my-id.1")
        made = set()
        for number, lines in enumerate(
            ((), (), ("X-Request-Id: a b",), ('X-Request-Id: a"b',), ("X-Request-Id:",), ("X-Request-Id: " + "x" * 200,))
        ):
            target = f"/id/made/{number}"
            (value,) = self.forwarded(self.port, *lines, target=target)["x-request-id"]
            self.assertEqual(self.wait_for_record(target)["request_id"], value)
            self.assertRegex(value, re.compile(r"[0-9A-Za-z-]{16,}\Z"))
            made.add(value)
        self.assertEqual(len(made), 6)

    def test_request_id_of_a_refusal(self):
        """
        The gateway's own answers tell the id under which they are logged.
        """
        for target, lines, status in (("/nowhere/1", (), 404), ("/nowhere/2", ("X-Request-Id: mine",), 404)):
            with Client(self.port) as client:
                answer = client.fetch(target, *lines)
                self.assertEqual(answer.status, status)
                told = json.loads(answer.body)["request_id"]
            self.assertEqual(told, self.wait_for_record(target)["request_id"])
            self.assertTrue(told)
            self.assertTrue(not lines or told == "mine")

    def test_via(self):
        """
        The gateway adds itself to the way a request came.
        """
        got = self.forwarded(self.port, "Via: 1.0 first, 1.1 second")
        self.assertEqual(", ".join(got["via"]), "1.0 first, 1.1 second, 1.1 a3s-gateway")

    def test_hop_by_hop_request_fields(self):
        """
        Fields for one hop, and those that `Connection` names, do not reach the backend.
        """
        got = self.forwarded(
            self.port,
            "Connection: close, X-Mine",
            "Connection: x-also, Keep-Alive",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: Basic c2VjcmV0OnNlY3JldA==",
            "Proxy-Authenticate: Basic",
            "TE: gzip",
            "Upgrade: h2c",
            "X-Mine: 1",
            "X-Also: 2",
            "X-Other: 3",
            "X-Gateway-Internal: 4",
        )
        self.assertEqual(got["x-other"], ["3"])
        one_hop = {"connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "te", "upgrade"}
        self.assertEqual(got.keys() & (one_hop | {"x-mine", "x-also", "x-gateway-internal"}), set())

    def test_ordinary_credentials(self):
        """
        Credentials for the backend reach it.
        """
        got = self.forwarded(self.port, "Authorization: Bearer abc", "Cookie: a=1; b=2")
        self.assertEqual((got["authorization"], got["cookie"]), (["Bearer abc"], ["a=1; b=2"]))

    def test_connection_cannot_take_framing_away(self):
        """
        Naming the fields that frame and route a request in `Connection` does not remove them.
        """
        with Client(self.port) as client:
            lines = ("Connection: Content-Length, Host, X-Request-Id", "X-Request-Id: mine")
            answer = client.fetch("/framed", *lines, method="POST", body=b"12345")
            self.assertEqual(answer.status, 200)
        got = dict(head_fields(self.stage.head_for("/framed")))
        self.assertEqual((got["content-length"], got["host"], got["x-request-id"]), ("5", "test", "mine"))

    def test_hop_by_hop_response_fields(self):
        """
        Fields for one hop, and those that `Connection` names, do not reach the client either.
        """
        self.stage.on(
            "/hops",
            b"HTTP/1.1 200 OK\r\nConnection: X-Mine\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nProxy-Connection: x\r\n"
            b"Upgrade: h2c\r\nX-Mine: 1\r\nX-Other: 2\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: s\r\nContent-Length: 2\r\n\r\nok",
        )
        with Client(self.port) as client:
            answer = client.fetch("/hops")
        self.assertEqual(
            sorted(name for name, _ in answer.fields), ["content-length", "date", "server", "x-other"]
        )
        self.assertEqual(answer.get("date"), "Thu, 01 Jan 1970 00:00:00 GMT")

    def test_nothing_of_the_kind_is_told_to_clients(self):
        """
        Clients learn nothing about the way behind the gateway.
        """
        with Client(self.port) as client:
            answer = client.fetch("/plain")
        self.assertEqual(sorted(name for name, _ in answer.fields), ["content-length", "date"])

    def test_canonical_path(self):
        """
        The path that the backend gets is the one that was matched, in its canonical spelling; the query is untouched.
        """
        for asked, got in (
            ("//admin", "/admin"),
            ("///admin//x", "/admin/x"),
            ("/x/../admin", "/admin"),
            ("/x/./../admin/.", "/admin/"),
            ("/../../admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("/%2e%2e/admin", "/admin"),
            ("/x/%2E%2E/admin", "/admin"),
            ("/x/.%2e/%61dmin", "/admin"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/a;b=c/d", "/a;b=c/d"),
            ("/admin?x=//y/../%61", "/admin?x=//y/../%61"),
            ("/x/../admin?", "/admin?"),
            ("http://test//admin/%61", "/admin/a"),
            ("http://test", "/"),
            ("http://test?q", "/?q"),
        ):
            with Client(self.port) as client:
                client.send(request(asked))
                self.assertEqual(client.read_answer().status, 200, asked)
            self.assertEqual(self.stage.heads[-1].split(b" ")[1].decode(), got)


class GuardedPathTests(GatewayCase):
    """
    A rule for a path holds for every spelling of it.
    """

    inner: Stage

    @classmethod
    def parts(cls) -> list[str]:
        cls.inner = cls.enter(Stage())
        return [service("admin", [cls.inner.port])]

    def test_every_spelling_is_matched(self):
        """
        What the backend would read as `/admin` goes where `/admin` goes, or is refused.
        """
        with Client(self.port) as client:
            for target in (
                "/admin", "//admin", "/x/../admin", "/%61dmin", "/./admin", "/x/%2e%2e/admin", "/%61%64%6d%69%6e", "/admin/../admin",
                "http://test/admin", "http://test//admin",
            ):  # fmt: skip
                before = len(self.inner.heads)
                self.assertEqual(client.fetch(target).status, 200, target)
                self.assertEqual(len(self.inner.heads), before + 1, target)
                self.assertTrue(self.inner.heads[-1].startswith(b"GET /admin HTTP/1.1\r\n"), target)
        self.assertEqual(self.stage.heads, [])
