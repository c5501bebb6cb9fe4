"""
Dialogues through middlewares: what each phase may do, and what becomes of an exchange that a middleware answers, delays or breaks.
"""

import gc

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import (
    IAttemptHook,
    IBackendHook,
    IBodyFilter,
    IBodyFilterSource,
    ICompletionHook,
    IIdentitySource,
    IRequestBodyHook,
    IRequestHook,
    IResponseHook,
    IRetirable,
    IStateSource,
)
from a3sgw.message import LocalResponse, make_field, set_field
from a3sgw.proxy.exchange import Exchange
from a3sgw.proxy.passage import Passage
from a3sgw.proxy.test.dialogues import OK, DialogueCase, config, request, response
from a3sgw.proxy.test.probes import Probe, Probes, Shouting
from a3sgw.refusal import refusal


def sends(**fields):
    """
    Return a response hook that sets header fields.
    """

    def hook(exchange, head):
        for name, value in fields.items():
            set_field(head.fields, name.encode(), value.encode())

    return hook


def breaks(*given):
    """
    Be a hook with a bug.
    """
    raise ZeroDivisionError


def _count(*types):
    """
    Return how many objects of these types there are, be they needed or not.
    """
    return sum(type(each) in types for each in gc.get_objects())


class PassageCase(DialogueCase):
    """
    A dialogue through `count` probes called `m1`, `m2` and so on.
    """

    def pass_probes(self, count=1, **settings):
        self.probes = Probes()
        self.converse(middlewares=['type = "probe"'] * count, catalog=self.probes.catalog, **settings)
        return [self.probes[f"m{number}"] for number in range(1, count + 1)]

    def told(self, *kinds):
        """
        Return what the probes were told, in the order of probes, of these kinds alone.
        """
        return [
            (name, *(what if isinstance(what, tuple) else (what,)))
            for name, probe in self.probes.made.items()
            for what in probe.told
            if (what[0] if isinstance(what, tuple) else what) in kinds
        ]

    def answer(self, data=OK):
        """
        Let the newest backend answer; return what the client heard.
        """
        backend = self.dialogue.backend()
        self.hear(backend)
        self.say(backend, data)
        return self.hear(self.client)

    def bugs(self):
        return len(self.flushLoggedErrors(ZeroDivisionError))


class InterfaceTests(PassageCase):
    """
    The probes are what they claim to be.
    """

    def test_interfaces(self):
        """Each phase has the shape its interface asks for."""
        probe = Probe("x")
        verifyObject(IAttemptHook, probe)
        verifyObject(IBackendHook, probe)
        verifyObject(IBodyFilterSource, probe)
        verifyObject(ICompletionHook, probe)
        verifyObject(IIdentitySource, probe)
        verifyObject(IRequestBodyHook, probe)
        verifyObject(IRequestHook, probe)
        verifyObject(IResponseHook, probe)
        verifyObject(IRetirable, probe)
        verifyObject(IStateSource, probe)
        verifyObject(IBodyFilter, Shouting())


class RequestTests(PassageCase):
    """
    What request hooks may do.
    """

    def test_order(self):
        """Requests pass in the listed order, responses in reverse, and everybody hears of the end once."""
        order = []
        one, two = self.pass_probes(2)
        for probe in (one, two):
            probe.request = lambda exchange, name=probe.name: order.append(f"request {name}")
            probe.response = lambda exchange, head, name=probe.name: order.append(f"response {name}")
            probe.complete = lambda exchange, name=probe.name: order.append(f"complete {name}")
        self.ask()
        self.answer()
        self.assertEqual(order, ["request m1", "request m2", "response m2", "response m1", "complete m1", "complete m2"])

    def test_change(self):
        """A hook may change what the backend is asked for."""
        (probe,) = self.pass_probes()

        def change(exchange):
            exchange.head.target = exchange.head.path = b"/changed"
            exchange.head.fields.append(make_field(b"X-New", b"1"))

        probe.request = change
        backend = self.ask()
        heard = self.hear(backend)
        self.assertTrue(heard.startswith(b"GET /changed HTTP/1.1\r\n"), heard)
        self.assertIn(b"\r\nX-New: 1\r\n", heard)
        self.say(backend, OK)

    def test_answer(self):
        """A hook may answer; nobody behind it, and no backend, hears of the request, and those before it see the response."""
        one, two, three = self.pass_probes(3)
        two.request = lambda exchange: refusal(Outcome.RATE_LIMITED, exchange.head.request_id, [make_field(b"Retry-After", b"7")])
        one.response = sends(X_Outer="1")
        two.response = three.response = breaks
        self.say(self.client, request())
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 429 "), heard)
        self.assertIn(b"\r\nRetry-After: 7\r\n", heard)
        self.assertIn(b"\r\nX_Outer: 1\r\n", heard)
        self.assertIn(b'"reason": "rate-limited"', heard)
        self.assertEqual(self.dialogue.backends, [])
        self.assertEqual(three.told, [])
        self.assertEqual(self.told("complete"), [("m1", "complete", "rate-limited", 429)])
        self.assertEqual(self.dialogue.outcomes(), ["rate-limited"])

    def test_answer_without_reason(self):
        """An answer that does not say why says that a middleware made it, and names the reason like all of the gateway's own."""
        (probe,) = self.pass_probes()
        probe.request = LocalResponse(203, [make_field(b"X-A", b"1")], b"mine")
        self.say(self.client, request())
        heard = self.hear(self.client)
        self.assertIn(b'\r\nProxy-Status: a3s-gateway; details="answered"\r\n', heard)
        self.assertTrue(heard.endswith(b"\r\n\r\nmine"), heard)
        self.assertEqual(self.dialogue.outcomes(), ["answered"])

    def test_head_and_no_content(self):
        """An answer to HEAD has a length and no body, one with 204 has neither."""
        (probe,) = self.pass_probes()
        for method, status, length in (("HEAD", 200, True), ("GET", 204, False), ("GET", 304, False)):
            probe.request = lambda exchange, status=status: LocalResponse(status, (), b"mine")
            self.say(self.client, request(method))
            heard = self.hear(self.client)
            self.assertTrue(heard.endswith(b"\r\n\r\n"), heard)
            self.assertEqual(b"Content-Length: 4" in heard, length)
            self.assertNotIn(b"Content-Length: 0", heard)

    def test_date(self):
        """An answer that brings its own date has no second one."""
        (probe,) = self.pass_probes()
        probe.request = LocalResponse(200, [make_field(b"Date", b"D")], b"mine")
        self.say(self.client, request())
        self.assertEqual(self.hear(self.client).count(b"Date: "), 1)

    def test_waiting(self):
        """A hook may make a request wait; then it goes on where it was."""
        one, two = self.pass_probes(2)
        one.request = waiting = Deferred()
        self.say(self.client, request("POST", "/", "Content-Length: 3", body=b"ab"))
        self.assertEqual((two.told, self.dialogue.backends), ([], []))
        self.say(self.client, b"c")
        waiting.callback(None)
        backend = self.dialogue.backend()
        self.assertTrue(self.hear(backend).endswith(b"\r\n\r\nabc"))
        self.assertIn(("m2", "body", b"abc", True), self.told("body"))
        self.say(backend, OK)
        self.assertTrue(self.hear(self.client).endswith(b"ok"))
        self.assertEqual(one.told.count("request"), 1)

    def test_waiting_for_an_answer(self):
        """The wait may end in an answer."""
        (probe,) = self.pass_probes()
        probe.request = waiting = Deferred()
        self.say(self.client, request())
        waiting.callback(LocalResponse(403, (), b"no"))
        self.assertTrue(self.hear(self.client).startswith(b"HTTP/1.1 403 "))
        self.assertEqual(self.dialogue.backends, [])

    def test_waiting_in_vain(self):
        """A hook that fails in the end is answered 500, one that never decides 504."""
        (probe,) = self.pass_probes()
        probe.request = waiting = Deferred()
        self.say(self.client, request())
        waiting.errback(ZeroDivisionError())
        self.assert_refused(500, "internal-error")
        self.assertEqual(self.bugs(), 1)
        probe.request = cancelled = Deferred()
        self.say(self.client, request())
        self.dialogue.reactor.advance(Passage.LONGEST_WAIT + 1)
        self.assertTrue(self.hear(self.client).startswith(b"HTTP/1.1 504 "))
        self.assertTrue(cancelled.called)
        self.assertEqual(sorted(self.dialogue.outcomes()), ["internal-error", "middleware-timeout"])

    def test_client_leaves_while_waiting(self):
        """A client that leaves cancels what its request waits for, and a middleware that had not let it pass hears no end."""
        _one, two = self.pass_probes(2)
        two.request = waiting = Deferred()
        self.say(self.client, request())
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertTrue(waiting.called)
        self.assertEqual(self.told("complete"), [("m1", "complete", "client-closed", 0)])
        self.assertEqual(self.dialogue.outcomes(), ["client-closed"])

    def test_bug(self):
        """A hook with a bug costs its request 500, is reported with its name, and the connection serves the next one."""
        _one, two = self.pass_probes(2)
        two.request = breaks
        self.say(self.client, request())
        self.assert_refused(500, "internal-error")
        self.assertEqual(self.bugs(), 1)
        self.assertEqual(self.told("complete"), [("m1", "complete", "internal-error", 500)])
        two.request = None
        self.ask()
        self.assertTrue(self.answer().endswith(b"ok"))

    def test_identity(self):
        """What only a middleware may say is not believed from a client, under whatever spelling, nor in trailers."""
        self.probes = Probes()
        self.converse(middlewares=['type = "probe"'], catalog=self.probes.catalog, entrypoint="allow_underscores_in_headers = true")
        lines = ("X-User: evil", "x_user: evil", "X-USER: evil", "X-Users: fine", "TE: trailers", "Transfer-Encoding: chunked")
        backend = self.ask(request("POST", "/", *lines, body=b"1\r\na\r\n0\r\nX-User: evil\r\nX-Sum: 1\r\n\r\n"))
        heard = self.hear(backend)
        self.assertNotIn(b"evil", heard)
        self.assertIn(b"\r\nX-Users: fine\r\n", heard)
        self.assertTrue(heard.endswith(b"0\r\nX-Sum: 1\r\n\r\n"), heard)
        self.say(backend, OK)


class BodyTests(PassageCase):
    """
    What hooks may do to bodies.
    """

    def test_pieces(self):
        """Each piece of a request's body is shown before it is sent."""
        (_probe,) = self.pass_probes()
        backend = self.ask(request("POST", "/", "Content-Length: 4", body=b"ab"))
        self.say(self.client, b"cd")
        self.assertEqual(self.told("body"), [("m1", "body", b"ab", False), ("m1", "body", b"cd", True)])
        self.say(backend, OK)
        self.hear(self.client)
        self.ask()
        self.answer()
        self.assertEqual(len(self.told("body")), 2)

    def test_refused_before_sending(self):
        """A first piece that is refused never reaches a backend."""
        (probe,) = self.pass_probes()
        probe.body = lambda exchange, piece, ended: refusal(Outcome.BODY_TOO_LARGE, exchange.head.request_id)
        self.say(self.client, request("POST", "/", "Content-Length: 4", body=b"ab"))
        self.assert_refused(413, "body-too-large")
        self.assertEqual(self.dialogue.backends, [])

    def test_refused_while_sending(self):
        """A later piece that is refused takes the request back from its backend."""
        (probe,) = self.pass_probes()
        backend = self.ask(request("POST", "/", "Content-Length: 4", body=b"ab"))
        probe.body = lambda exchange, piece, ended: refusal(Outcome.BODY_TOO_LARGE, exchange.head.request_id)
        self.say(self.client, b"c")
        self.assert_refused(413, "body-too-large")
        self.assertTrue(backend.was_reset)
        self.assertEqual(self.told("ended"), [("m1", "ended", "http://192.0.2.1", "body-too-large", 0)])

    def test_refused_after_the_answer(self):
        """A piece that is refused after the response began breaks the connection off."""
        (probe,) = self.pass_probes()
        backend = self.ask(request("POST", "/", "Content-Length: 4", body=b"ab"))
        self.say(backend, response("200 OK", "Content-Length: 5", body=b"he"))
        self.hear(self.client)
        probe.body = lambda exchange, piece, ended: refusal(Outcome.BODY_TOO_LARGE, exchange.head.request_id)
        self.say(self.client, b"c")
        self.assertTrue(self.client.was_reset)
        self.assertEqual(self.dialogue.outcomes(), ["body-too-large"])

    def test_filter_of_a_whole_body(self):
        """A body that is here at once is filtered and keeps a length."""
        one, two = self.pass_probes(2)
        one.filter = two.filter = lambda exchange, head: Shouting()
        self.ask()
        heard = self.answer()
        self.assertTrue(heard.endswith(b"\r\nContent-Length: 4\r\n\r\nOK!!"), heard)

    def test_filter_of_a_stream(self):
        """A body that comes in pieces is filtered as it comes, in chunks, with its trailers."""
        (probe,) = self.pass_probes()
        probe.filter = lambda exchange, head: Shouting()
        backend = self.ask()
        self.say(backend, response("200 OK", "Transfer-Encoding: chunked", body=b"2\r\nab\r\n"))
        self.assertTrue(self.hear(self.client).endswith(b"Transfer-Encoding: chunked\r\n\r\n2\r\nAB\r\n"))
        self.say(backend, b"1\r\nc\r\n")
        self.assertEqual(self.hear(self.client), b"1\r\nC\r\n")
        self.say(backend, b"0\r\nX-Sum: 1\r\n\r\n")
        self.assertEqual(self.hear(self.client), b"1\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n")

    def test_filter_of_known_length(self):
        """What becomes of a length nobody knows any more: chunks, or the end of the connection for HTTP/1.0."""
        (probe,) = self.pass_probes()
        probe.filter = lambda exchange, head: Shouting()
        for version, end in ((b"1.1", b"1\r\nA\r\n2\r\nB!\r\n0\r\n\r\n"), (b"1.0", b"\r\n\r\nAB!")):
            client = self.dialogue.connect()
            self.say(client, request().replace(b"HTTP/1.1", b"HTTP/" + version))
            backend = self.dialogue.backend()
            self.hear(backend)
            self.say(backend, response("200 OK", "Content-Length: 2", body=b"a"))
            self.say(backend, b"b")
            heard = self.hear(client)
            self.assertNotIn(b"Content-Length", heard)
            self.assertTrue(heard.endswith(end), heard)
            client.close()

    def test_filter_is_not_asked(self):
        """Nobody is asked to filter a response without a body."""
        (probe,) = self.pass_probes()
        probe.filter = breaks
        for method, status in (("HEAD", "200 OK"), ("GET", "304 Not Modified"), ("GET", "204 No Content")):
            self.ask(request(method))
            self.answer(response(status))
        self.assertNotIn("filter", probe.told)

    def test_filter_with_a_bug(self):
        """A filter that fails at the start is answered 500; one that fails later breaks the response off."""

        class Failing(Shouting):
            def feed(self, piece):
                raise ZeroDivisionError

        (probe,) = self.pass_probes()
        probe.filter = breaks
        self.ask()
        self.assertTrue(self.answer().startswith(b"HTTP/1.1 500 "))
        probe.filter = lambda exchange, head: Failing()
        backend = self.ask()
        self.say(backend, response("200 OK", "Content-Length: 2"))
        self.hear(self.client)
        self.say(backend, b"ab")
        self.assertTrue(self.client.was_reset)
        self.assertEqual(self.bugs(), 2)
        self.assertEqual(self.dialogue.outcomes(), ["internal-error"] * 2)


class ResponseTests(PassageCase):
    """
    What response hooks may do.
    """

    def test_own_answers_too(self):
        """The gateway's own answers pass the hooks like all others."""
        (probe,) = self.pass_probes(answers_dials=False)
        probe.response = sends(X_Seen="1")
        self.say(self.client, request())
        self.dialogue.attempts[0].fail()
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 502 "), heard)
        self.assertIn(b"\r\nX_Seen: 1\r\n", heard)
        self.assertEqual(self.told("response"), [("m1", "response", 502)])

    def test_in_its_place(self):
        """A hook may put another response in the place of one that is still coming; those further out see the new one."""
        _one, two = self.pass_probes(2)
        two.response = LocalResponse(203, [make_field(b"X-Mine", b"1")], b"mine")
        backend = self.ask()
        self.hear(backend)
        self.say(backend, response("200 OK", "Content-Length: 5", body=b"he"))
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 203 "), heard)
        self.assertTrue(heard.endswith(b"\r\n\r\nmine"), heard)
        self.assertTrue(backend.was_reset)
        self.assertEqual(self.told("response"), [("m1", "response", 203), ("m2", "response", 200)])
        self.assertEqual(self.dialogue.outcomes(), ["completed"])

    def test_waiting(self):
        """A hook may make a response wait, whole or not, with its trailers; the backend is not read meanwhile."""
        chunked = response("200 OK", "Transfer-Encoding: chunked", body=b"2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n")
        for answer, end in ((OK, b"ok"), (chunked, b"2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n")):
            (probe,) = self.pass_probes()
            probe.response = waiting = Deferred()
            self.ask()
            self.assertEqual(self.answer(answer), b"")
            waiting.callback(None)
            heard = self.hear(self.client)
            self.assertTrue(heard.endswith(b"\r\n\r\n" + end), heard)
            self.tearDown()
        (probe,) = self.pass_probes()
        probe.response = waiting = Deferred()
        backend = self.ask()
        self.hear(backend)
        self.say(backend, response("200 OK", "Content-Length: 4", body=b"ab"))
        self.say(backend, b"cd")
        self.assertEqual(self.hear(self.client), b"")
        waiting.callback(None)
        self.assertTrue(self.hear(self.client).endswith(b"\r\n\r\nabcd"))

    def test_replaced_after_waiting(self):
        """The wait may end in another response."""
        (probe,) = self.pass_probes()
        probe.response = waiting = Deferred()
        self.ask()
        self.answer(response("500 Oh", "Content-Length: 100", body=b"half"))
        waiting.callback(LocalResponse(500, (), b"page"))
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 500 "), heard)
        self.assertTrue(heard.endswith(b"\r\n\r\npage"), heard)

    def test_backend_lost_while_waiting(self):
        """A backend that breaks off while its response waits is a failure like any other."""
        (probe,) = self.pass_probes()
        waiting = Deferred()
        probe.response = lambda exchange, head: waiting if head.status == 200 else None
        backend = self.ask()
        self.hear(backend)
        self.say(backend, response("200 OK", "Content-Length: 4", body=b"ab"))
        backend.close()
        self.dialogue.reactor.advance(200)
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 50"), heard)
        self.assertEqual(len(self.dialogue.outcomes()), 1)

    def test_client_leaves_while_waiting(self):
        """A client that leaves while its response waits gives the backend's connection up."""
        (probe,) = self.pass_probes()
        probe.response = waiting = Deferred()
        backend = self.ask()
        self.hear(backend)
        self.say(backend, response("200 OK", "Content-Length: 4", body=b"ab"))
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertTrue(waiting.called)
        self.assertTrue(backend.was_reset)
        self.assertEqual(self.told("complete"), [("m1", "complete", "client-closed", 0)])

    def test_bug(self):
        """A response hook with a bug is answered 500, once."""
        _one, two = self.pass_probes(2)
        two.response = breaks
        self.ask()
        heard = self.answer()
        self.assertTrue(heard.startswith(b"HTTP/1.1 500 "), heard)
        self.assertEqual(heard.count(b"HTTP/1.1"), 1)
        self.assertEqual(self.bugs(), 1)
        self.assertEqual(self.told("response"), [("m1", "response", 500), ("m2", "response", 200)])

    def test_bug_at_the_end(self):
        """A completion hook with a bug is reported and harms nobody."""
        one, _two = self.pass_probes(2)
        one.complete = breaks
        self.ask()
        self.assertTrue(self.answer().endswith(b"ok"))
        self.assertEqual(self.bugs(), 1)
        self.assertEqual(self.told("complete"), [("m1", "complete", "completed", 200), ("m2", "complete", "completed", 200)])


class AttemptTests(PassageCase):
    """
    What is asked between attempts.
    """

    def test_no_opinion(self):
        """Without anybody who wants another attempt there is none, and everybody has been asked."""
        _one, _two = self.pass_probes(2)
        self.ask()
        heard = self.answer(response("503 No", "Content-Length: 0"))
        self.assertTrue(heard.startswith(b"HTTP/1.1 503 No\r\n"), heard)
        self.assertEqual(self.told("failed"), [("m1", "failed", "completed", 503), ("m2", "failed", "completed", 503)])

    def test_status(self):
        """A response of 400 and above may be thrown away for another attempt, after a pause, at another server."""
        (probe,) = self.pass_probes(servers=2)
        probe.attempt = lambda exchange, outcome, status: 3.0 if exchange.attempts < 2 else None
        self.ask()
        self.assertEqual(self.answer(response("503 No", "Content-Length: 0")), b"")
        self.dialogue.reactor.advance(2.5)
        self.assertEqual(len(self.dialogue.backends), 1)
        self.dialogue.reactor.advance(1)
        self.assertEqual(len(self.dialogue.backends), 2)
        self.assertTrue(self.answer().endswith(b"ok"))
        self.assertEqual(
            self.told("begun", "ended"),
            [
                ("m1", "begun", "http://192.0.2.1"),
                ("m1", "ended", "http://192.0.2.1", "completed", 503),
                ("m1", "begun", "http://192.0.2.2"),
                ("m1", "ended", "http://192.0.2.2", "completed", 200),
            ],
        )

    def test_success_is_not_asked_about(self):
        """Nobody is asked about an attempt that went well."""
        (probe,) = self.pass_probes()
        probe.attempt = breaks
        self.ask()
        self.answer()
        self.assertEqual(self.told("failed"), [])

    def test_body_is_sent_again(self):
        """The next attempt gets the whole body, also what came in the meantime."""
        (probe,) = self.pass_probes(servers=2)
        probe.attempt = lambda exchange, outcome, status: 1.0 if exchange.attempts < 2 else None
        backend = self.ask(request("PUT", "/", "Content-Length: 6", body=b"ab"))
        self.hear(backend)
        self.say(backend, response("503 No", "Content-Length: 0"))
        self.say(self.client, b"cd")
        self.dialogue.reactor.advance(1.5)
        second = self.dialogue.backend()
        self.assertIsNot(second, backend)
        self.assertTrue(self.hear(second).endswith(b"\r\n\r\nabcd"))
        self.say(self.client, b"ef")
        self.assertEqual(self.hear(second), b"ef")
        self.say(second, OK)
        self.assertTrue(self.hear(self.client).endswith(b"ok"))

    def test_body_too_large_to_keep(self):
        """Nobody is asked when the body is not whole any more."""
        (probe,) = self.pass_probes(service="max_replay_bytes = 3")
        probe.attempt = 1.0
        backend = self.ask(request("PUT", "/", "Content-Length: 4", body=b"abcd"))
        self.hear(backend)
        self.say(backend, response("503 No", "Content-Length: 0"))
        self.assertTrue(self.hear(self.client).startswith(b"HTTP/1.1 503 No\r\n"))
        self.assertEqual(self.told("failed"), [])

    def test_nothing_after_the_answer_began(self):
        """Nobody is asked when the client has seen a part of the response."""
        (probe,) = self.pass_probes()
        probe.attempt = 1.0
        backend = self.ask()
        self.say(backend, response("200 OK", "Content-Length: 5", body=b"he"))
        backend.close()
        self.dialogue.reactor.settle()
        self.assertTrue(self.client.was_reset)
        self.assertEqual(self.told("failed"), [])

    def test_nothing_while_the_answer_waits(self):
        """Nobody is asked when a response is lost that hooks have begun to look at."""
        (probe,) = self.pass_probes()
        probe.attempt = 1.0
        waiting = Deferred()
        probe.response = lambda exchange, head: waiting if head.status == 200 else None
        backend = self.ask(request("PUT", "/", "Content-Length: 4", body=b"ab"))
        self.hear(backend)
        self.say(backend, response("200 OK", "Content-Length: 4", body=b"ab"))
        backend.close()
        # The server is not read meanwhile, but it cannot be written to either.
        self.say(self.client, b"cd")
        self.assert_refused(502, "response-incomplete")
        self.assertTrue(waiting.called)
        self.dialogue.reactor.advance(5)
        self.assertEqual(self.told("failed"), [])
        self.assertEqual(len(self.dialogue.backends), 1)

    def test_kept_connection_closed(self):
        """A kept connection that proves to be closed is not the end of an attempt."""
        (_probe,) = self.pass_probes()
        self.ask()
        self.answer()
        backend = self.dialogue.backend()
        # The backend closes when the second request has just been sent.
        self.client.send(request())
        self.dialogue.door().connections.copy().pop()._stream.doRead()
        self.dialogue.reactor.flushes.run()
        self.assertTrue(backend.take())
        backend.close()
        self.assertIsNot(self.dialogue.backend(), backend)
        self.assertTrue(self.answer().endswith(b"ok"))
        whole = [("m1", "begun", "http://192.0.2.1"), ("m1", "ended", "http://192.0.2.1", "completed", 200)]
        self.assertEqual(self.told("begun", "ended", "failed"), whole * 2)

    def test_connection_failures(self):
        """Every server is tried once without asking; then somebody may want another round."""
        (probe,) = self.pass_probes(servers=2, answers_dials=False)
        probe.attempt = lambda exchange, outcome, status: 1.0 if exchange.attempts < 4 else None
        self.say(self.client, request())
        for _ in range(2):
            self.dialogue.attempts[0].fail()
        self.assertEqual(self.told("failed"), [("m1", "failed", "connect-refused", 0)])
        self.dialogue.reactor.advance(1.5)
        self.dialogue.attempts[0].fail()
        backend = self.dialogue.attempts[0].succeed()
        self.dialogue.reactor.settle()
        self.hear(backend)
        self.say(backend, OK)
        self.assertTrue(self.hear(self.client).endswith(b"ok"))

    def test_client_leaves_in_the_pause(self):
        """A client that leaves between two attempts ends the matter."""
        (probe,) = self.pass_probes()
        probe.attempt = 5.0
        self.ask()
        self.answer(response("503 No", "Content-Length: 0"))
        self.client.close()
        self.dialogue.reactor.advance(10)
        self.assertEqual(self.told("begun"), [("m1", "begun", "http://192.0.2.1")])
        self.assertEqual(self.dialogue.outcomes(), ["client-closed"])

    def test_servers_kept_out(self):
        """A server that a middleware keeps out is not chosen; if none is left, the middleware says what that is called."""
        (probe,) = self.pass_probes(servers=2)
        probe.use = lambda backend: backend.url.endswith("2")
        for _ in range(3):
            self.ask()
            self.answer()
        self.assertEqual({row[2] for row in self.told("begun")}, {"http://192.0.2.2"})
        probe.use = False
        self.say(self.client, request())
        self.assertIn(b'"reason": "circuit-open"', self.hear(self.client))
        self.assertIn("circuit-open", self.dialogue.outcomes())

    def test_bug(self):
        """An attempt hook with a bug has no opinion."""
        one, two = self.pass_probes(2)
        one.attempt = breaks
        two.attempt = lambda exchange, outcome, status: 0.0 if exchange.attempts < 2 else None
        self.ask()
        self.answer(response("503 No", "Content-Length: 0"))
        self.assertEqual(self.bugs(), 1)
        self.assertTrue(self.answer().endswith(b"ok"))


class OwnerTests(PassageCase):
    """
    Who has which middleware, and for how long.
    """

    def test_entrypoint(self):
        """Middlewares of the entrypoint come before those of the router, and have a state of their own."""
        order = []
        self.probes = Probes()
        self.converse(
            middlewares=['type = "probe"'],
            more='middlewares "door" { type = "probe" }',
            entrypoint='middlewares = ["door"]',
            catalog=self.probes.catalog,
        )
        for name in ("m1", "door"):
            self.probes[name].request = lambda exchange, name=name: order.append(name)
        self.ask()
        self.answer()
        self.assertEqual(order, ["door", "m1"])

    def test_reload(self):
        """A reload that does not touch a middleware keeps it, with everything it knows; one that removes it retires it."""
        (probe,) = self.pass_probes(servers=2)
        self.dialogue.reload(config(middlewares=['type = "probe"'], servers=2, more='middlewares "other" { type = "probe" }'))
        self.assertIs(self.probes["m1"], probe)
        self.ask()
        self.answer()
        self.assertIn("request", probe.told)
        self.dialogue.reload(config(servers=2))
        self.assertEqual(probe.told[-1], "retired")

    def test_nothing_remains(self):
        """What an exchange has needed is given back when it is over, and not when the garbage collector comes."""
        self.converse(middlewares=['type = "in-flight"\namount = 1', 'type = "retry"'])
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        before = _count(Exchange, Passage)
        self.ask()
        self.assertEqual(_count(Exchange, Passage), before + 2)
        self.answer()
        self.assertEqual(self.dialogue.outcomes(), ["completed"])
        self.assertEqual(_count(Exchange, Passage), before)

    def test_metrics(self):
        """It is counted who was asked, who answered, and who made requests wait."""
        one, two = self.pass_probes(2)
        self.ask()
        self.answer()
        one.request = LocalResponse(403)
        self.say(self.client, request())
        self.hear(self.client)
        one.request = waiting = Deferred()
        self.say(self.client, request())
        waiting.callback(None)
        self.dialogue.reactor.settle()
        self.answer()
        result = []
        self.dialogue.carrier.snapshot().addCallback(result.append)
        rows = {row[0]: row[1:4] for row in result[0]["middlewares"]}
        self.assertEqual(rows, {"m1": [3, [[403, 1]], 1], "m2": [2, [], 0]})
        states = {row["name"]: (row["router"], row["state"]["asked"]) for row in result[0]["gauges"]["middlewares"]}
        self.assertEqual(states, {"m1": ("app", len(one.told)), "m2": ("app", len(two.told))})
