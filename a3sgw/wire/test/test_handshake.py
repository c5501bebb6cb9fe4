"""
Tests of what a request may change its connection to, and of how a WebSocket begins.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import Outcome
from a3sgw.message import HopByHop, RequestHead
from a3sgw.wire.handshake import protocols
from a3sgw.wire.http1 import upgrade_fields
from a3sgw.wire.test.reading import reading, refusal

KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
VERSION = b"Sec-WebSocket-Version: 13"
CONNECTION = b"Connection: keep-alive, Upgrade"
UPGRADE = b"Upgrade: WebSocket"
ASKED = (CONNECTION, UPGRADE, KEY, VERSION)


def get(*lines, line=b"GET /chat HTTP/1.1", body=b""):
    return b"\r\n".join([line, b"Host: a.test", *lines, b"", b""]) + body


class ProtocolTests(SynchronousTestCase):
    """
    Which protocols are passed on.
    """

    def test_names(self):
        """Names are compared in lower case; what would be HTTP past the gateway is left out, and so is what is no name."""
        for value, expected in [
            (b"websocket", [b"websocket"]),
            (b"WebSocket , foo/1.0", [b"websocket", b"foo/1.0"]),
            (b"h2c", []),
            (b"H2C, irc/6.9", [b"irc/6.9"]),
            (b"HTTP/2.0, TLS/1.2, h2", []),
            (b"", []),
            (b"a b, c/d/e, \xe9, ok", [b"ok"]),
        ]:
            self.assertEqual(protocols(value), expected, value)

    def test_any_protocol(self):
        """A request may ask for any protocol that is not HTTP, if `Connection` says so and it has no body."""
        for lines, line, expected in [
            ((CONNECTION, b"Upgrade: foo/1, h2c, Bar"), b"GET / HTTP/1.1", b"foo/1, bar"),
            ((CONNECTION, b"Upgrade: foo", b"Upgrade: bar"), b"GET / HTTP/1.1", b"foo, bar"),
            ((b"Upgrade: foo", b"Connection: upgrade"), b"POST / HTTP/1.1", b"foo"),
            ((b"Upgrade: foo",), b"GET / HTTP/1.1", b""),
            ((b"Upgrade: foo", b"Connection: keep-alive"), b"GET / HTTP/1.1", b""),
            ((CONNECTION, b"Upgrade: h2c"), b"GET / HTTP/1.1", b""),
            ((CONNECTION,), b"GET / HTTP/1.1", b""),
            ((CONNECTION, b"Upgrade: foo"), b"GET / HTTP/1.0", b""),
            ((CONNECTION, UPGRADE), b"GET / HTTP/1.0", b""),
            ((CONNECTION, b"Upgrade: foo", b"Content-Length: 0"), b"GET / HTTP/1.1", b""),
        ]:
            head, *_ = reading(get(*lines, line=line))
            self.assertEqual(head.upgrade, expected, lines)
            self.assertEqual([field for field in head.fields if field.name in (b"upgrade", b"connection")], [])
        head, *_ = reading(get(CONNECTION, b"Upgrade: foo", b"Content-Length: 2", body=b"ab"))
        self.assertEqual(head.upgrade, b"")

    def test_said_anew(self):
        """What is asked of each next server is said in the gateway's own name."""
        head = RequestHead(b"GET", b"/")
        self.assertEqual((head.hop, head.accepts_trailers, head.upgrade), (None, False, b""))
        head.upgrade = b"websocket"
        self.assertEqual(head.hop.lines, b"Upgrade: websocket\r\nConnection: Upgrade")
        head.accepts_trailers = True
        self.assertEqual(head.hop, HopByHop(True, b"websocket", b"TE: trailers\r\nUpgrade: websocket\r\nConnection: TE, Upgrade"))
        head.upgrade = b""
        self.assertEqual(head.hop.lines, b"TE: trailers\r\nConnection: TE")
        head.accepts_trailers = False
        self.assertIsNone(head.hop)

    def test_what_a_response_changes_to(self):
        """The protocol that a 101 names is found, however often it is named."""
        data = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nupgrade: x"
        self.assertEqual([field.value for field in upgrade_fields(data, len(data))], [b"websocket", b"x"])


class WebSocketTests(SynchronousTestCase):
    """
    What a WebSocket must say first (RFC 6455 section 4.2.1).
    """

    def test_good(self):
        """A good handshake is noted, its own fields stay, and other protocols beside it are not asked for."""
        for lines in [
            ASKED,
            (VERSION, b"Upgrade: foo, websocket", KEY, b"connection:upgrade"),
            (UPGRADE, b"TE: trailers", *ASKED[2:], CONNECTION),
        ]:
            head, *_ = reading(get(*lines))
            self.assertEqual(head.upgrade, b"websocket")
            self.assertEqual({field.line for field in head.fields}, {KEY, VERSION})

    def test_malformed(self):
        """A handshake that every server must refuse is refused, and no backend sees it."""
        for lines in [
            (CONNECTION, UPGRADE, VERSION),
            (CONNECTION, UPGRADE, VERSION, KEY, KEY),
            (CONNECTION, UPGRADE, KEY),
            (CONNECTION, UPGRADE, KEY, VERSION, VERSION),
            (UPGRADE, KEY, VERSION),
            (b"Connection: close", UPGRADE, KEY, VERSION),
            (*ASKED, b"Content-Length: 0"),
            (CONNECTION, UPGRADE, VERSION, b"Sec-WebSocket-Key: "),
            (CONNECTION, UPGRADE, VERSION, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"),
            (CONNECTION, UPGRADE, VERSION, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQA="),
            (CONNECTION, UPGRADE, VERSION, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="),
        ]:
            self.assertIs(refusal(get(*lines)), Outcome.WEBSOCKET_HANDSHAKE_MALFORMED, lines)
        self.assertIs(refusal(get(*ASKED, line=b"POST /chat HTTP/1.1")), Outcome.WEBSOCKET_HANDSHAKE_MALFORMED)
        self.assertIs(refusal(get(*ASKED, b"Transfer-Encoding: chunked")), Outcome.WEBSOCKET_HANDSHAKE_MALFORMED)

    def test_version(self):
        """Another version is refused in a way that names the one there is."""
        for version in (b"12", b"14", b"013", b"x"):
            lines = (CONNECTION, UPGRADE, KEY, b"Sec-WebSocket-Version: " + version)
            self.assertIs(refusal(get(*lines)), Outcome.WEBSOCKET_VERSION_REFUSED)
