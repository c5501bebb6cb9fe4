"""
Tests of `body-limit`.
"""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IRequestBodyHook, IRequestHook
from a3sgw.loading import load_string
from a3sgw.middleware import body_limit
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, MiddlewareCase, request, response
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import Dialogue, middleware_contract

TEN = 'type = "body-limit"\nmax_body_bytes = 10'


def chunked(*pieces, end=b"0\r\n\r\n"):
    """
    Return `pieces` as chunks.
    """
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


class BodyLimitContract(middleware_contract(body_limit.factory, "max_body_bytes = 10")):
    """
    `body-limit` is a middleware.
    """

    def test_phases(self):
        """It looks at heads and at bodies."""
        built = body_limit.BodyLimit(self.config(), still_surroundings("x"))
        verifyObject(IRequestHook, built)
        verifyObject(IRequestBodyHook, built)


class DeclaredTests(MiddlewareCase):
    """
    B24: a body of declared length is judged before it is read.
    """

    def test_within(self):
        """A body up to the limit passes."""
        self.pass_through(TEN)
        for length in (0, 1, 10):
            asked, told = self.exchange(request("POST", "/", f"Content-Length: {length}", body=b"x" * length))
            self.assertTrue(asked.endswith(b"\r\n\r\n" + b"x" * length))
            self.assertEqual(told, OK)

    def test_no_body(self):
        """A request without a body is none of its business."""
        self.pass_through(TEN)
        self.assertEqual(self.exchange()[1], OK)

    def test_beyond(self):
        """A longer one is refused at once, with the limit, and no server is asked."""
        self.pass_through(TEN)
        self.say(self.client, request("POST", "/", "Content-Length: 11", "X-Request-Id: r-1"))
        heard = self.hear(self.client)
        head, _, body = heard.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 413 "), head)
        self.assertIn(b"\r\nContent-Type: application/json\r\n", head)
        self.assertIn(b"\r\nConnection: close", head)
        self.assertEqual(
            json.loads(body), {"error": "Request body too large", "reason": "body-too-large", "max_bytes": 10, "request_id": "r-1"}
        )
        self.assertEqual((self.dialogue.backends, self.dialogue.outcomes()), ([], ["body-too-large"]))

    def test_the_answer_survives_the_body(self):
        """A client that sends all of it before it reads still gets the answer, and what it sent is not taken for another request."""
        self.pass_through(TEN)
        self.say(self.client, request("POST", "/", "Content-Length: 5000", body=b"x" * 2000))
        self.say(self.client, b"x" * 3000 + request())
        heard = self.hear(self.client)
        self.assertEqual((heard.count(b"HTTP/1.1 "), self.client.was_reset, self.client.has_ended), (1, False, True))
        self.assertTrue(heard.startswith(b"HTTP/1.1 413 "), heard)
        self.assertEqual(self.dialogue.backends, [])

    def test_whole_body_arrived(self):
        """If the whole body came with the head, the connection serves the next request."""
        self.pass_through(TEN)
        self.say(self.client, request("POST", "/", "Content-Length: 11", body=b"x" * 11) + request())
        self.assertIn(b"GET / HTTP/1.1", self.hear(self.dialogue.backend()))
        self.say(self.dialogue.backend(), OK)
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 413 "), heard)
        self.assertTrue(heard.endswith(OK), heard)

    def test_expect_continue(self):
        """A client that asks before it sends is told 413 and not to continue."""
        self.pass_through(TEN)
        self.say(self.client, request("PUT", "/", "Content-Length: 11", "Expect: 100-continue"))
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 413 "), heard)
        self.assertEqual(self.dialogue.backends, [])

    def test_head(self):
        """The answer to HEAD has no body."""
        self.pass_through(TEN)
        self.say(self.client, request("HEAD", "/", "Content-Length: 11"))
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 413 "), heard)
        self.assertTrue(heard.endswith(b"\r\n\r\n"), heard)

    def test_absurd_length(self):
        """A length of many digits is refused, however many."""
        self.pass_through(TEN)
        for digits in (15, 18, 19, 25, 400):
            _, told = self.exchange(request("POST", "/", f"Content-Length: {'9' * digits}"))
            self.assertIn(told[:13], (b"HTTP/1.1 413 ", b"HTTP/1.1 400 "))
        self.assertEqual(self.dialogue.backends, [])


class ChunkedTests(MiddlewareCase):
    """
    B24: a body of unknown length is counted as it comes.
    """

    HEAD = request("POST", "/", "Transfer-Encoding: chunked")

    def test_within(self):
        """Data up to the limit passes, however it is cut; framing does not count."""
        self.pass_through(TEN)
        for pieces in ([], [b"x" * 10], [b"x"] * 10):
            asked, told = self.exchange(self.HEAD + chunked(*pieces))
            self.assertEqual((asked.count(b"x"), told), (sum(map(len, pieces)), OK))

    def test_beyond_at_once(self):
        """If too much has come with the head, no server is asked."""
        self.pass_through(TEN)
        self.say(self.client, self.HEAD + chunked(b"x" * 11))
        self.assert_refused(413, "body-too-large")
        self.assertEqual(self.dialogue.backends, [])

    def test_beyond_later(self):
        """The piece that goes beyond the limit is not sent on, and the server's connection is given up."""
        self.pass_through(TEN)
        backend = self.ask(self.HEAD + chunked(b"x" * 6, end=b""))
        self.assertTrue(self.hear(backend).endswith(b"\r\n\r\n6\r\nxxxxxx\r\n"))
        self.say(self.client, chunked(b"y" * 5, end=b""))
        self.assertEqual(self.hear(backend), b"")
        self.assertTrue(backend.was_reset)
        self.assert_refused(413, "body-too-large")
        self.say(self.client, chunked(b"z" * 100))
        self.assertTrue(self.client.has_ended)

    def test_beyond_after_the_answer_began(self):
        """If the server has begun to answer, the exchange is broken off so that nobody takes it for complete."""
        self.pass_through(TEN)
        backend = self.ask(self.HEAD + chunked(b"x", end=b""))
        self.say(backend, response("200 OK", "Content-Length: 100", body=b"part"))
        self.say(self.client, chunked(b"y" * 10, end=b""))
        self.hear(self.client)
        self.assertTrue(self.client.was_reset)
        self.assertTrue(backend.was_reset)
        self.assertEqual(self.dialogue.outcomes(), ["body-too-large"])

    def test_while_connecting(self):
        """The limit holds while the connection to the server is still being made."""
        self.pass_through(TEN, answers_dials=False)
        self.say(self.client, self.HEAD + chunked(b"x" * 6, end=b""))
        self.assertEqual(len(self.dialogue.attempts), 1)
        self.say(self.client, chunked(b"x" * 6, end=b""))
        self.assert_refused(413, "body-too-large")
        self.assertEqual(self.dialogue.attempts, [])

    def test_next_request(self):
        """Each request has the whole limit."""
        self.pass_through(TEN)
        for _ in range(3):
            backend = self.ask(self.HEAD + chunked(b"x" * 10))
            self.say(backend, OK)
            self.assertEqual(self.hear(self.client), OK)

    def test_smallest_limit_counts(self):
        """Of two limits the smaller one counts, whichever comes first."""
        for order in ((TEN, TEN.replace("10", "5")), (TEN.replace("10", "5"), TEN)):
            self.pass_through(*order)
            self.say(self.client, self.HEAD + chunked(b"x" * 6))
            heard = self.hear(self.client)
            self.assertIn(b'"max_bytes": 5', heard)
            self.client.close()

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(1, 8), min_size=1, max_size=6))
    def test_any_cut(self, sizes):
        """Whatever the chunks, exactly what fits is sent on."""
        dialogue = Dialogue(config(middlewares=[TEN]))
        client = dialogue.connect()
        dialogue.say(client, self.HEAD)
        for size in sizes:
            dialogue.say(client, chunked(b"x" * size, end=b""))
        seen = fitting = 0
        for size in sizes:
            seen += size
            fitting = seen if seen <= 10 else fitting
        self.assertEqual(dialogue.hear(dialogue.backend()).partition(b"\r\n\r\n")[2].count(b"x"), fitting)
        self.assertEqual(dialogue.hear(client).startswith(b"HTTP/1.1 413 "), seen > 10)
        client.close()
        dialogue.reactor.settle()
        dialogue.assert_clean(self)


class ConfigTests(SynchronousTestCase):
    """
    What is refused when the configuration is loaded.
    """

    def problems(self, attributes):
        text = config(middlewares=[f'type = "body-limit"\n{attributes}'])
        return [str(problem) for problem in load_string(text, "gw.hcl", {}).problems]

    def test_refusals(self):
        """The limit is there and above zero."""
        self.assertEqual(self.problems("max_body_bytes = 1"), [])
        for attributes, text in [
            ("", 'gw.hcl:11:1: middleware "m1" lacks "max_body_bytes", which is required'),
            ("max_body_bytes = 0", "gw.hcl:13:18: middlewares.m1.max_body_bytes is 0, which is not 1 or more"),
            ('max_body_bytes = "1M"', "gw.hcl:13:18: middlewares.m1.max_body_bytes "),
        ]:
            (problem,) = self.problems(attributes)
            self.assertTrue(problem.startswith(text), problem)
