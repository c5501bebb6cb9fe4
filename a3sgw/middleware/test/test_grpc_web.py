"""
Tests of `grpc-web`: what a browser says and hears, and what a gRPC server does.
"""

import base64

from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IBodyFilter, IBodyFilterSource, IRequestFilterSource, IRequestHook, IResponseHook, ITrailerFilter
from a3sgw.middleware import grpc_web
from a3sgw.middleware.grpc_web import GrpcWeb, GrpcWebConfig, _FromText, _ToWeb
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.test_compress import unchunk
from a3sgw.proxy.test.dialogues import request
from a3sgw.proxy.test.test_http2_client import Http2Case
from a3sgw.testing import middleware_contract
from a3sgw.wire.grpc import FrameReader, frame, read_trailers

ASKED = frame(b"\x0a\x05hello")
ANSWER = frame(b"\x0a\x05world")
BINARY = "application/grpc-web+proto"
TEXT = "application/grpc-web-text+proto"


class GrpcWebContract(middleware_contract(grpc_web.factory)):
    """
    `grpc-web` is a middleware.
    """

    def test_phases(self):
        """It works on heads and bodies of either direction."""
        middleware = GrpcWeb(GrpcWebConfig(name="web"), still_surroundings(""))
        self.assertIsInstance(middleware, GrpcWeb)
        verifyObject(IRequestHook, middleware)
        verifyObject(IRequestFilterSource, middleware)
        verifyObject(IResponseHook, middleware)
        verifyObject(IBodyFilterSource, middleware)
        verifyObject(IBodyFilter, _FromText())
        verifyObject(ITrailerFilter, _ToWeb(is_text=False))


class GrpcWebTests(Http2Case):
    """
    Calls of browsers, over HTTP/1.1 as well.
    """

    scheme = "http"

    def setUp(self):
        self.converse(middlewares=['type = "grpc-web"'])

    def ask_in(self, kind, body, *lines):
        """
        Send a call; return the server and the stream it came on.
        """
        return self.call(request("POST", "/a.B/C", f"Content-Type: {kind}", *lines, f"Content-Length: {len(body)}", body=body))

    def read(self, told, *, is_text=False):
        """
        Return the header lines, the messages and the trailers of a response.
        """
        head, _, body = told.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        if b"transfer-encoding: chunked" in lines:
            body, rest = unchunk(body)
            self.assertEqual(rest, b"\r\n")
        if is_text:
            # As browsers do: each text ends with its padding.
            body = b"".join(base64.b64decode(body[at : at + 4]) for at in range(0, len(body), 4))
        *messages, (flags, last) = FrameReader(1000).feed(body)
        trailers = read_trailers(flags, last)
        return lines, [message for _, message in messages], [(field.name, field.value) for field in trailers]

    def test_binary(self):
        """Messages pass as they are, and the trailers come behind them."""
        peer, stream = self.ask_in(BINARY, ASKED, "X-Grpc-Web: 1")
        given = dict(peer.requests[stream])
        self.assertEqual((given[b"content-type"], given[b"te"]), (b"application/grpc+proto", b"trailers"))
        self.assertEqual(peer.bodies[stream], ASKED)
        peer.head(stream, ("content-type", "application/grpc+proto"), ("x-a", "1"))
        peer.data(stream, ANSWER)
        peer.data(stream, ANSWER)
        peer.end_with(stream, ("grpc-status", "0"), ("x-b", "2"))
        lines, messages, trailers = self.read(self.told())
        self.assertIn(b"content-type: application/grpc-web+proto", lines)
        self.assertIn(b"x-a: 1", lines)
        self.assertEqual(messages, [b"\x0a\x05world"] * 2)
        self.assertEqual(trailers, [(b"grpc-status", b"0"), (b"x-b", b"2")])

    def test_text(self):
        """What comes in base64 is decoded, and answered in base64, piece by piece."""
        for cut in (3, 8, 11):
            sent = base64.b64encode(ASKED[:cut]) + base64.b64encode(ASKED[cut:])
            peer, stream = self.ask_in(TEXT, sent, f"Accept: {TEXT}")
            self.assertEqual((peer.bodies[stream], stream in peer.ended), (ASKED, True))
            self.assertNotIn(b"content-length", dict(peer.requests[stream]))
            peer.head(stream, ("content-type", "application/grpc"))
            peer.data(stream, ANSWER[:4])
            peer.data(stream, ANSWER[4:])
            peer.end_with(stream, ("grpc-status", "0"))
            lines, messages, trailers = self.read(self.told(), is_text=True)
            self.assertIn(b"content-type: application/grpc-web-text", lines)
            self.assertEqual((messages, trailers), ([b"\x0a\x05world"], [(b"grpc-status", b"0")]))

    def test_mixed(self):
        """A browser may ask in bytes and want its answer in text."""
        peer, stream = self.ask_in(BINARY, ASKED, f"Accept: {TEXT}")
        self.assertEqual(peer.bodies[stream], ASKED)
        peer.head(stream, ("content-type", "application/grpc"), ("grpc-status", "5"), ("grpc-message", "no"), ended=True)
        lines, messages, trailers = self.read(self.told(), is_text=True)
        self.assertIn(b"content-type: application/grpc-web-text", lines)
        self.assertEqual((messages, trailers), ([], [(b"grpc-status", b"5"), (b"grpc-message", b"no")]))

    def test_status_only(self):
        """A status without a message comes in the body, where browsers look for it."""
        peer, stream = self.ask_in(BINARY, ASKED)
        peer.head(stream, ("content-type", "application/grpc"), ("x-a", "1"), ("grpc-status", "16"), ended=True)
        lines, messages, trailers = self.read(self.told())
        self.assertEqual((messages, trailers), ([], [(b"grpc-status", b"16")]))
        self.assertIn(b"x-a: 1", lines)
        self.assertNotIn(b"grpc-status: 16", lines)

    def test_bad_text(self):
        """A body that is no base64 is refused, in gRPC-Web too, and the server is spared it."""
        for body in (b"****", b"AAA"):
            self.say(self.client, request("POST", "/", f"Content-Type: {TEXT}", f"Content-Length: {len(body)}", body=body))
            trailers = self.read(self.told(), is_text=True)[2]
            self.assertEqual(trailers[0], (b"grpc-status", b"13"))
            self.assertEqual(self.dialogue.backends, [])
            self.assertEqual(self.dialogue.outcomes()[-1:], ["body-malformed"])
            self.client = self.dialogue.connect()

    def test_refusal(self):
        """What the gateway answers itself has the same form."""
        self.say(self.client, request("POST", "/", f"Content-Type: {BINARY}", "grpc-timeout: 1S", "Content-Length: 0"))
        self.peer()
        self.dialogue.reactor.advance(1.5)
        lines, _messages, trailers = self.read(self.told())
        self.assertIn(b"content-type: application/grpc-web", lines)
        self.assertEqual(trailers[0], (b"grpc-status", b"4"))
        self.assertEqual(self.dialogue.outcomes(), ["deadline-exceeded"])

    def test_broken_off(self):
        """An answer that breaks off ends with a status that says so."""
        peer, stream = self.ask_in(BINARY, ASKED)
        peer.head(stream, ("content-type", "application/grpc"))
        peer.data(stream, ANSWER)
        peer.reset(stream, 2)
        _, messages, trailers = self.read(self.told())
        self.assertEqual(messages, [b"\x0a\x05world"])
        self.assertEqual(trailers, [(b"grpc-status", b"14"), (b"grpc-message", Outcome.RESPONSE_INCOMPLETE.message.encode())])

    def test_no_status(self):
        """A server that forgets the status has not done well."""
        peer, stream = self.ask_in(BINARY, ASKED)
        peer.head(stream, ("content-type", "application/grpc"))
        peer.data(stream, ANSWER, ended=True)
        _, _, trailers = self.read(self.told())
        self.assertEqual(trailers[0], (b"grpc-status", b"2"))

    def test_others(self):
        """Other requests, and answers that are no gRPC, pass untouched."""
        self.say(self.client, request("GET", "/"))
        end = self.dialogue.backend()
        self.assertIn(b"GET / HTTP/1.1", self.hear(end))
        self.say(end, b"HTTP/1.1 200 OK\r\nDate: D\r\nContent-Length: 2\r\n\r\nok")
        self.assertEqual(self.hear(self.client), b"HTTP/1.1 200 OK\r\nDate: D\r\nContent-Length: 2\r\n\r\nok")
        end.close()
        self.dialogue.reactor.settle()
        self.dialogue.backends.clear()
        peer, stream = self.ask_in(BINARY, ASKED)
        peer.answer(stream, b"<html>", ("content-type", "text/html"), ("content-length", "6"), status=502)
        self.assertTrue(self.told().endswith(b"\r\n\r\n<html>"))
