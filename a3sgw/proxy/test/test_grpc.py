"""
Dialogues in gRPC: what the gateway says itself, and how long it lets a caller wait.
"""

import base64

from a3sgw.errors import Outcome
from a3sgw.message import LocalResponse, make_field
from a3sgw.proxy.grpc import code_for, grpc_answer
from a3sgw.proxy.test.dialogues import DialogueCase, request, response
from a3sgw.wire.grpc import GRPC, GRPC_WEB, GRPC_WEB_TEXT, FrameReader, read_trailers


def call(*lines, kind="application/grpc"):
    """
    Return a call without a message.
    """
    return request("POST", "/a.B/C", f"Content-Type: {kind}", *lines, "Content-Length: 0")


class AnswerTests(DialogueCase):
    """
    Single answers.
    """

    def test_codes(self):
        """Whatever keeps a call from being answered has the code that tells a client what to do."""
        cases = {
            Outcome.NO_BACKEND: 14,
            Outcome.CONNECT_REFUSED: 14,
            Outcome.CONNECT_TIMEOUT: 14,
            Outcome.BUFFER_TIMEOUT: 14,
            Outcome.CIRCUIT_OPEN: 14,
            Outcome.SHUTTING_DOWN: 14,
            Outcome.RESPONSE_TIMEOUT: 4,
            Outcome.EXCHANGE_TIMEOUT: 4,
            Outcome.DEADLINE_EXCEEDED: 4,
            Outcome.NO_ROUTE: 12,
            Outcome.TOKEN_REFUSED: 16,
            Outcome.ACCESS_DENIED: 7,
            Outcome.ADDRESS_REFUSED: 7,
            Outcome.RATE_LIMITED: 8,
            Outcome.BODY_TOO_LARGE: 8,
            Outcome.INTERNAL_ERROR: 13,
        }
        self.assertEqual({outcome: code_for(outcome, outcome.status) for outcome in cases}, cases)

    def test_every_refusal_has_a_code(self):
        """There is no way to be refused that looks like success."""
        for outcome in Outcome:
            if outcome.status is not None:
                self.assertIn(code_for(outcome, outcome.status), range(1, 17), outcome)

    def test_grpc(self):
        """The answer is a head only, and keeps the fields that are about more than its body."""
        fields = [make_field(b"Content-Type", b"text/html"), make_field(b"WWW-Authenticate", b"Bearer")]
        answer = grpc_answer(GRPC, LocalResponse(401, fields, b"<html>", Outcome.TOKEN_REFUSED))
        self.assertEqual((answer.status, answer.body, answer.outcome), (200, b"", Outcome.TOKEN_REFUSED))
        self.assertEqual(
            [field.line for field in answer.fields],
            [
                b"WWW-Authenticate: Bearer",
                b"Content-Type: application/grpc",
                b"grpc-status: 16",
                b"grpc-message: Invalid or missing token",
            ],
        )

    def test_web(self):
        """A browser finds the status in the body, as text if it asked in text."""
        for kind in (GRPC_WEB, GRPC_WEB_TEXT):
            answer = grpc_answer(kind, LocalResponse(503, [], b"{}", Outcome.NO_BACKEND))
            body = base64.b64decode(answer.body) if kind == GRPC_WEB_TEXT else answer.body
            ((flags, message),) = FrameReader(1000).feed(body)
            trailers = read_trailers(flags, message)
            self.assertEqual(
                [field.line for field in trailers], [b"grpc-status: 14", b"grpc-message: " + Outcome.NO_BACKEND.message.encode()]
            )
            self.assertEqual([field.line for field in answer.fields], [b"Content-Type: " + kind])


class RefusalTests(DialogueCase):
    """
    What a caller is told over HTTP/1.1.
    """

    def assert_status(self, code, outcome):
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 200 OK\r\n"), heard)
        head, _, body = heard.partition(b"\r\n\r\n")
        self.assertEqual(body, b"")
        self.assertIn(b"\r\ngrpc-status: %d\r\ngrpc-message: %b\r\n" % (code, outcome.message.encode()), head)
        self.assertIn(b'details="%b"' % outcome.word.encode(), head)
        self.assertEqual(self.dialogue.outcomes()[-1:], [outcome.word])

    def test_no_route(self):
        """A call that no route is for is not implemented."""
        self.converse()
        self.dialogue.reload(
            'entrypoints "web" { address = "127.0.0.1:8080" }\n'
            'routers "r" {\n  rule = "Path(`/x`)"\n  service = "s"\n}\n'
            'services "s" {\n  load_balancer {\n    servers = [{ url = "http://192.0.2.1" }]\n  }\n}'
        )
        self.say(self.client, call())
        self.assert_status(12, Outcome.NO_ROUTE)

    def test_middleware(self):
        """A middleware's refusal is a status too."""
        self.converse(middlewares=['type = "ip-allow"\nallowed_ips = ["198.51.100.1"]'])
        self.say(self.client, call())
        self.assert_status(7, Outcome.ACCESS_DENIED)

    def test_others_are_told_as_ever(self):
        """A request that is no gRPC is answered in HTTP."""
        self.converse(middlewares=['type = "ip-allow"\nallowed_ips = ["198.51.100.1"]'])
        self.say(self.client, call(kind="application/grpcish"))
        self.assert_refused(403, "access-denied")


class DeadlineTests(DialogueCase):
    """
    A caller's deadline.
    """

    def test_passes(self):
        """When the caller's time is up, it is told so and the backend is let go of."""
        self.converse()
        self.say(self.client, call("grpc-timeout: 250m", kind="application/grpc-web"))
        backend = self.dialogue.backend()
        self.assertIn(b"\r\ngrpc-timeout: 250m\r\n", self.hear(backend))
        self.dialogue.reactor.advance(0.2)
        self.assertEqual(self.hear(self.client), b"")
        self.dialogue.reactor.advance(0.1)
        self.assertIn(b"grpc-status: 4\r\n", self.hear(self.client))
        self.assertTrue(backend.was_reset)
        self.assertEqual(self.dialogue.outcomes(), ["deadline-exceeded"])

    def test_the_shorter_one(self):
        """The time that the configuration gives is an upper bound."""
        self.converse(service='timeouts { total = "2s" }')
        for timeout, outcome in (("1S", "deadline-exceeded"), ("3S", "exchange-timeout"), ("1X", "exchange-timeout")):
            self.say(self.client, call(f"grpc-timeout: {timeout}", kind="application/grpc-web"))
            self.dialogue.reactor.advance(2.5)
            self.assertIn(b"grpc-status: 4\r\n", self.hear(self.client))
            self.assertEqual(self.dialogue.outcomes()[-1:], [outcome])

    def test_answered_in_time(self):
        """A call that is answered leaves nothing behind."""
        self.converse()
        for _ in range(2):
            self.say(self.client, call("grpc-timeout: 99999999S", "grpc-timeout: 1S", kind="application/grpc-web"))
            backend = self.dialogue.backend()
            self.hear(backend)
            self.say(backend, response("200 OK", "Content-Length: 0"))
            self.assertTrue(self.hear(self.client).startswith(b"HTTP/1.1 200 OK\r\n"))
