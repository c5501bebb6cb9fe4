"""
Tests of what backends are told about where a request came from.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.address import AddressSet, pack_address
from a3sgw.message import make_field
from a3sgw.proxy.forwarding import Forwarding, forwarded_addresses, resolve_forwarding
from a3sgw.proxy.test.dialogues import OK, DialogueCase, request

FIELD_VALUE = bytes([9, *range(32, 127), *range(128, 256)])
TRUSTED = AddressSet(["10.0.0.0/8", "2001:db8:1::/48", "127.0.0.1"])
NAMES = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server", "X-Real-Ip"]


def resolve(*lines, peer="10.0.0.9"):
    """
    Return the forwarding for a request that bears these lines and comes from a trusted `peer` over plain HTTP on port 8080.
    """
    fields = [make_field(name.encode(), value.encode("latin-1")) for name, _, value in (line.partition(": ") for line in lines)]
    return resolve_forwarding(peer.encode(), pack_address(peer), b"http", b"8080", TRUSTED, fields)


def told(forwarding):
    """
    Return what the block of a forwarding says, by name.
    """
    lines = forwarding.block.decode("latin-1").split("\r\n")
    return dict(line.split(": ", 1) for line in lines)


class ChainTests(SynchronousTestCase):
    """
    Who the client is.
    """

    def test_chain(self):
        """The client is the nearest address that is no trusted proxy, however the chain is written."""
        for lines, client, chain in [
            ([], "10.0.0.9", "10.0.0.9"),
            (["X-Forwarded-For: 192.0.2.1"], "192.0.2.1", "192.0.2.1, 10.0.0.9"),
            (["X-Forwarded-For: 192.0.2.1, 10.0.0.8"], "192.0.2.1", "192.0.2.1, 10.0.0.8, 10.0.0.9"),
            (["X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 10.0.0.8"], "192.0.2.1", "192.0.2.1, 10.0.0.8, 10.0.0.9"),
            # What the client itself wrote before the first untrusted address is not believed.
            (["X-Forwarded-For: 203.0.113.7, 192.0.2.1, 10.0.0.8"], "192.0.2.1", "192.0.2.1, 10.0.0.8, 10.0.0.9"),
            (["X-Forwarded-For: 10.0.0.7, 10.0.0.8"], "10.0.0.7", "10.0.0.7, 10.0.0.8, 10.0.0.9"),
            # Nothing beyond an element that is no address can be believed.
            (["X-Forwarded-For: 192.0.2.1, unknown, 10.0.0.8"], "10.0.0.8", "10.0.0.8, 10.0.0.9"),
            (["X-Forwarded-For: 192.0.2.1, garbage"], "10.0.0.9", "10.0.0.9"),
            (["X-Forwarded-For: 192.0.2.1, 10.0.0.300"], "10.0.0.9", "10.0.0.9"),
            (["X-Forwarded-For: 0x7f.1"], "10.0.0.9", "10.0.0.9"),
            (["X-Forwarded-For: \xff\xfe"], "10.0.0.9", "10.0.0.9"),
            # Empty elements are none.
            (["X-Forwarded-For: , 192.0.2.1 ,, "], "192.0.2.1", "192.0.2.1, 10.0.0.9"),
            (["X-Forwarded-For: "], "10.0.0.9", "10.0.0.9"),
            # Ports and brackets are left out, and one address has one spelling.
            (["X-Forwarded-For: 192.0.2.1:4711"], "192.0.2.1", "192.0.2.1, 10.0.0.9"),
            (["X-Forwarded-For: [2001:DB8::0001]:4711"], "2001:db8::1", "2001:db8::1, 10.0.0.9"),
            (["X-Forwarded-For: [2001:db8::1]"], "2001:db8::1", "2001:db8::1, 10.0.0.9"),
            (["X-Forwarded-For: 2001:db8::1, 2001:db8:1::7"], "2001:db8::1", "2001:db8::1, 2001:db8:1::7, 10.0.0.9"),
            (["X-Forwarded-For: ::ffff:192.0.2.1"], "192.0.2.1", "192.0.2.1, 10.0.0.9"),
            # RFC 7239.
            (["Forwarded: for=192.0.2.1;proto=https, for=10.0.0.8"], "192.0.2.1", "192.0.2.1, 10.0.0.8, 10.0.0.9"),
            (['Forwarded: proto=http;For="[2001:db8::1]:4711"'], "2001:db8::1", "2001:db8::1, 10.0.0.9"),
            (["Forwarded: for=192.0.2.1, for=_hidden"], "10.0.0.9", "10.0.0.9"),
            (["Forwarded: for=192.0.2.1, for=unknown"], "10.0.0.9", "10.0.0.9"),
            (["Forwarded: by=192.0.2.1; before=192.0.2.2"], "10.0.0.9", "10.0.0.9"),
            # The older header is what proxies maintain.
            (["Forwarded: for=192.0.2.7", "X-Forwarded-For: 192.0.2.1"], "192.0.2.1", "192.0.2.1, 10.0.0.9"),
        ]:
            forwarding = resolve(*lines)
            self.assertEqual(forwarding.client.decode(), client, lines)
            self.assertEqual(forwarding.client_packed, pack_address(client), lines)
            self.assertEqual(told(forwarding)["X-Forwarded-For"], chain, lines)
            self.assertEqual(told(forwarding)["X-Real-Ip"], client, lines)

    def test_addresses(self):
        """The reported addresses are listed nearest last."""
        fields = [make_field(b"X-Forwarded-For", b"a, b"), make_field(b"X-Real-Ip", b"x"), make_field(b"X-Forwarded-For", b"c")]
        self.assertEqual(forwarded_addresses(fields), [b"a", b"b", b"c"])

    def test_is_forwarded(self):
        """A request that bears a chain came through a proxy, even if the chain says nothing."""
        for lines, is_forwarded in [
            ([], False),
            (["X-Forwarded-Proto: https"], False),
            (["X-Forwarded-For: 127.0.0.1"], True),
            (["X-Forwarded-For: garbage"], True),
            (["X-Forwarded-For: "], True),
            (["Forwarded: for=127.0.0.1"], True),
            (["Forwarded: proto=https"], True),
        ]:
            self.assertIs(resolve(*lines, peer="127.0.0.1").is_forwarded, is_forwarded, lines)


class OtherFieldsTests(SynchronousTestCase):
    """
    What else a trusted proxy may say.
    """

    def test_proto_and_port(self):
        """Scheme and port are passed on if they are what they should be; otherwise the gateway's own are told."""
        for line, name, value in [
            ("X-Forwarded-Proto: https", "X-Forwarded-Proto", "https"),
            ("X-Forwarded-Proto: wss", "X-Forwarded-Proto", "wss"),
            ("X-Forwarded-Proto: https, http", "X-Forwarded-Proto", "http"),
            ("X-Forwarded-Proto: HTTPS", "X-Forwarded-Proto", "http"),
            ("X-Forwarded-Proto: gopher", "X-Forwarded-Proto", "http"),
            ("X-Forwarded-Proto: ", "X-Forwarded-Proto", "http"),
            ("X-Forwarded-Port: 443", "X-Forwarded-Port", "443"),
            ("X-Forwarded-Port: 65535", "X-Forwarded-Port", "65535"),
            ("X-Forwarded-Port: 65536", "X-Forwarded-Port", "8080"),
            ("X-Forwarded-Port: 0", "X-Forwarded-Port", "8080"),
            ("X-Forwarded-Port: 443x", "X-Forwarded-Port", "8080"),
            ("X-Forwarded-Port: -1", "X-Forwarded-Port", "8080"),
            ("X-Forwarded-Port: 000000443", "X-Forwarded-Port", "8080"),
            ("X-Forwarded-Port: ", "X-Forwarded-Port", "8080"),
        ]:
            self.assertEqual(told(resolve(line))[name], value, line)

    def test_host(self):
        """The host that the client asked the proxy for is passed on if it looks like one."""
        for value, host in [
            ("shop.test", b"shop.test"),
            ("shop.test:8443", b"shop.test:8443"),
            ("[2001:db8::1]:80", b"[2001:db8::1]:80"),
            ("shop.test, other.test", None),
            ("shop.test/admin", None),
            ("shop test", None),
            ("", None),
            ("x" * 256, None),
        ]:
            self.assertEqual(resolve(f"X-Forwarded-Host: {value}").host, host, value)

    def test_prefix(self):
        """The prefix that the proxy has stripped is passed on, once."""
        self.assertEqual(told(resolve("X-Forwarded-Prefix: /shop", "X-Forwarded-Prefix: /other"))["X-Forwarded-Prefix"], "/shop")
        self.assertNotIn("X-Forwarded-Prefix", told(resolve()))

    def test_order(self):
        """The block is always the same lines in the same order, with one `Via`."""
        for forwarding in (
            resolve("X-Forwarded-Server: evil", "X-Real-Ip: 203.0.113.7"),
            Forwarding(b"192.0.2.1", b"\xc0\0\2\1", b"192.0.2.1", b"http", b"80"),
        ):
            self.assertEqual(list(told(forwarding)), [*NAMES, "Via"])
            self.assertEqual(told(forwarding)["Via"], "1.1 a3s-gateway")
            self.assertNotIn(b"evil", forwarding.block)
            self.assertNotIn(b"203.0.113.7", forwarding.block)

    values = st.lists(st.sampled_from(FIELD_VALUE), max_size=40).map(bytes)
    hostile = st.sampled_from([b"10.0.0.1, 192.0.2.1", b"for=192.0.2.1", b'for="192.0.2.1\\"', b"https", b"443", b"a.test", b"[::1", b"]"])
    names = st.sampled_from(["X-Forwarded-For", "Forwarded", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Host", "X-Real-Ip"])

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.lists(st.tuples(names, values | hostile), max_size=6))
    def test_nothing_is_smuggled(self, lines):
        """Whatever a proxy's fields hold, backends are told the same lines, each with a value of its kind."""
        fields = [make_field(name.encode(), value) for name, value in lines]
        forwarding = resolve_forwarding(b"10.0.0.9", pack_address("10.0.0.9"), b"http", b"8080", TRUSTED, fields)
        said = told(forwarding)
        self.assertEqual(list(said), [*NAMES, "Via"])
        *believed, last = said["X-Forwarded-For"].split(", ")
        self.assertEqual(last, "10.0.0.9")
        for address in believed:
            pack_address(address)
        for address in believed[1:]:
            self.assertTrue(TRUSTED.contains(pack_address(address)))
        self.assertEqual(pack_address(said["X-Real-Ip"]), forwarding.client_packed)
        self.assertIn(said["X-Forwarded-Proto"], ("http", "https", "ws", "wss"))
        self.assertIn(int(said["X-Forwarded-Port"]), range(1, 65536))


class VariantTests(SynchronousTestCase):
    """
    What is said instead, because a middleware wants it.
    """

    def test_scheme(self):
        """The scheme is the one that the client used, for WebSockets too."""
        for line, scheme in [
            ("X-Forwarded-Proto: https", b"https"),
            ("X-Forwarded-Proto: wss", b"https"),
            ("X-Forwarded-Proto: ws", b"http"),
            ("X-Forwarded-Proto: gopher", b"http"),
        ]:
            self.assertEqual(resolve(line).scheme, scheme, line)

    def test_replaced(self):
        """What is replaced is said once, in the letter case asked for; all else is as it was, and `Via` comes last."""
        plain = resolve("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Prefix: /shop")
        variant = plain.replaced(((b"X-FORWARDED-PROTO", b"https"), (b"X-Real-Ip", b""), (b"X-Forwarded-Prefix", b"/other")))
        said = told(variant)
        self.assertEqual(said["X-FORWARDED-PROTO"], "https")
        self.assertEqual(said["X-Forwarded-Prefix"], "/other")
        self.assertNotIn("X-Real-Ip", said)
        self.assertNotIn("X-Forwarded-Proto", said)
        self.assertEqual(said["X-Forwarded-For"], "192.0.2.1, 10.0.0.9")
        self.assertTrue(variant.block.endswith(b"\r\nVia: 1.1 a3s-gateway"))
        self.assertTrue(variant.block_for_http10().endswith(b"\r\nVia: 1.0 a3s-gateway"))
        self.assertEqual((variant.scheme, variant.prefix, variant.host), (b"https", b"/other", None))
        self.assertEqual((variant.client, variant.client_packed), (plain.client, plain.client_packed))
        self.assertTrue(variant.is_forwarded)
        # The one it was made of is for other requests too.
        self.assertEqual((plain.scheme, told(plain)["X-Forwarded-Proto"]), (b"http", "http"))

    def test_host(self):
        """The host is kept apart, because it may be the request's own."""
        variant = resolve().replaced(((b"X-Forwarded-Host", b"shop.test"),))
        self.assertEqual((variant.host, variant.block), (b"shop.test", resolve().block))

    def test_prefixed(self):
        """Prefixes add up, with those that a proxy cut off."""
        for lines, prefix in [([], "/a/b"), (["X-Forwarded-Prefix: /shop"], "/shop/a/b"), (["X-Forwarded-Prefix: /"], "/a/b")]:
            variant = resolve(*lines).prefixed(b"/a").prefixed(b"/b")
            self.assertEqual(told(variant)["X-Forwarded-Prefix"], prefix)
            self.assertEqual(variant.prefix.decode(), prefix)

    def test_remembered(self):
        """The same changes give the same object, and those that never repeat are not hoarded."""
        plain = resolve()
        self.assertIs(plain.prefixed(b"/a"), plain.prefixed(b"/a"))
        self.assertIsNot(plain.prefixed(b"/a"), plain.prefixed(b"/b"))
        for number in range(1000):
            plain.replaced(((b"X-Forwarded-Server", b"%d" % number),))
        self.assertLess(len(plain._variants), 20)


class UntrustedTests(DialogueCase):
    """
    What anybody else says is not passed on.
    """

    LINES = [
        "X-Forwarded-For: 203.0.113.7",
        "Forwarded: for=203.0.113.7",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil.test",
        "X-Forwarded-Port: 443",
        "X-Forwarded-Prefix: /evil",
        "X-Forwarded-Server: evil",
        "X-Real-Ip: 203.0.113.7",
    ]

    def forward(self, *lines):
        heard = self.hear(self.ask(request("GET", "/", *lines)))
        self.say(self.dialogue.backend(), OK)
        self.hear(self.client)
        return heard

    def test_untrusted(self):
        """Forwarding fields of an untrusted client are dropped, whatever their case, and replaced by the truth."""
        self.converse()
        plain = self.forward("X-Request-Id: 1")
        for lines in (self.LINES, [line.lower() for line in self.LINES], [line.upper() for line in self.LINES]):
            self.assertEqual(self.forward(*lines, "X-Request-Id: 1"), plain)
        for line in (
            b"X-Forwarded-For: 192.0.2.1",
            b"X-Forwarded-Proto: http",
            b"X-Forwarded-Host: a.test",
            b"X-Forwarded-Port: 8080",
            b"X-Real-Ip: 192.0.2.1",
            b"Via: 1.1 a3s-gateway",
        ):
            self.assertIn(b"\r\n" + line + b"\r\n", plain)

    def test_trusted(self):
        """Those of a trusted proxy are believed."""
        self.converse(entrypoint='forwarded_headers { trusted_ips = ["192.0.2.0/28"] }')
        heard = self.forward(*self.LINES, "Via: 1.1 edge")
        for line in (
            b"X-Forwarded-For: 203.0.113.7, 192.0.2.1",
            b"X-Forwarded-Proto: https",
            b"X-Forwarded-Host: evil.test",
            b"X-Forwarded-Port: 443",
            b"X-Forwarded-Prefix: /evil",
            b"X-Real-Ip: 203.0.113.7",
            b"Via: 1.1 edge",
            b"Via: 1.1 a3s-gateway",
        ):
            self.assertIn(b"\r\n" + line + b"\r\n", heard)
        self.assertNotIn(b"Server: evil", heard)

    def test_each_request_by_itself(self):
        """On one connection of a trusted proxy, each request is told of as its own fields say."""
        self.converse(entrypoint='forwarded_headers { trusted_ips = ["192.0.2.1"] }')
        for client in (b"203.0.113.7", b"203.0.113.8"):
            self.assertIn(b"X-Real-Ip: %b\r\n" % client, self.forward(f"X-Forwarded-For: {client.decode()}"))
        self.assertIn(b"X-Real-Ip: 192.0.2.1\r\n", self.forward())
