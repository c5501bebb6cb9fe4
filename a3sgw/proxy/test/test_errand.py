"""
Tests of single errands: what is made of answers, and that nothing is left behind however they end.
"""

from twisted.python.failure import Failure
from zope.interface.verify import verifyClass, verifyObject

from a3sgw.errors import Outcome, UpstreamError
from a3sgw.interfaces import ILessee
from a3sgw.message import RequestHead
from a3sgw.proxy.errand import Errand
from a3sgw.proxy.exchange import Exchange
from a3sgw.proxy.test.dialogues import OK, response
from a3sgw.proxy.test.errands import OutboundCase, make_service
from a3sgw.proxy.test.leases import ADDRESS

TOO_LARGE = r"larger than the 1000 bytes"

RESPONSES = [
    # The method, what the server says, the status, the fields and the body of the answer, and whether the connection is kept.
    (b"GET", response("200 OK", "Content-Length: 2", body=b"ok"), 200, [], b"ok", True),
    (b"GET", response("200 OK", "Transfer-Encoding: chunked", body=b"1\r\no\r\n1;x=y\r\nk\r\n0\r\nX-T: 1\r\n\r\n"), 200, [], b"ok", True),
    (b"GET", response("200 OK", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 200, [], b"", True),
    (b"GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK, 200, [], b"ok", True),
    (b"GET", response("204 No Content", "X-A: 1"), 204, [b"X-A: 1"], b"", True),
    (b"GET", response("304 Not Modified", "Content-Length: 9", "ETag: x"), 304, [b"ETag: x"], b"", True),
    (b"HEAD", response("200 OK", "Content-Length: 9999999", "X-A: 1"), 200, [b"X-A: 1"], b"", True),
    (b"HEAD", response("200 OK", "Transfer-Encoding: chunked"), 200, [], b"", True),
    (b"GET", response("302 Found", "Location: /login", "Content-Length: 0"), 302, [b"Location: /login"], b"", True),
    (b"POST", response("500 Oops", "Content-Length: 1", body=b"x"), 500, [], b"x", True),
    (b"GET", response("200 OK", "Connection: close", "Content-Length: 2", body=b"ok"), 200, [], b"ok", False),
    (
        b"GET",
        response(
            "401 No",
            "Set-Cookie: a=1",
            "WWW-Authenticate: x",
            "set-cookie: b=2; Path=/",
            "X-UPPER:  y ",
            "Content-Length: 0",
            "Set-Cookie: a=1",
        ),
        401,
        [b"Set-Cookie: a=1", b"WWW-Authenticate: x", b"set-cookie: b=2; Path=/", b"X-UPPER:  y ", b"Set-Cookie: a=1"],
        b"",
        True,
    ),
    (
        b"GET",
        response("200 OK", "Connection: X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "X-A: 1", "Content-Length: 0"),
        200,
        [b"X-A: 1"],
        b"",
        True,
    ),
]
UNTIL_CLOSE = response("200 OK", "X-A: 1", body=b"to the end")


class InterfaceTests(OutboundCase):
    """
    What is promised to pools and connections.
    """

    def test_interfaces(self):
        """An errand is a lessee, and an exchange could take its place."""
        verifyObject(ILessee, Errand(make_service(), RequestHead(b"GET", b"/"), b"", 0))
        verifyClass(ILessee, Exchange, tentative=True)

    def test_repr(self):
        """An errand says what it is about."""
        errand = Errand(make_service(), RequestHead(b"GET", b"/keys"), b"", 0)
        self.assertEqual(repr(errand), "<Errand <RequestHead b'GET' b'' b'/keys'> to None, attempt 0>")


class ResponseTests(OutboundCase):
    """
    What is made of answers.
    """

    def check(self, method, said, status, lines, body, is_kept, steps):
        self.open()
        self.fetch(method, body=b"")
        peer = self.accept()
        for piece in steps(said):
            self.assertEqual(self.told, [], "answered too early")
            self.say(peer, piece)
        answer = self.assert_answered(body, status)
        self.assertEqual([field.line for field in answer.fields], [b"Date: D", *lines])
        self.assertIsNone(answer.outcome)
        self.assertIs(peer.has_ended, not is_kept)

    def test_responses(self):
        """Every answer is understood, whatever its status, with its end-to-end fields as they were sent and in their order."""
        for case in RESPONSES:
            self.check(*case, steps=lambda said: [said])

    def test_byte_by_byte(self):
        """However the network cuts an answer, it is the same."""
        for case in RESPONSES:
            self.check(*case, steps=lambda said: [said[at : at + 1] for at in range(len(said))])

    def test_trailing_bytes(self):
        """What a server says after its answer is nobody's, and its connection is not used again."""
        for *case, _ in RESPONSES:
            self.check(*case, False, steps=lambda said: [said + b"HTTP/1.1 200 OK\r\n"])

    def test_until_close(self):
        """An answer whose end is that of its connection is whole when that ends in order."""
        self.open()
        self.fetch()
        peer = self.accept()
        self.say(peer, UNTIL_CLOSE)
        self.assertEqual(self.told, [])
        self.leave(peer)
        self.assert_answered(b"to the end")

    def test_redirects(self):
        """A redirect is an answer: nobody else is asked."""
        self.open()
        self.fetch()
        self.say(self.accept(), response("301 Moved", "Location: http://other.test/", "Content-Length: 0"))
        self.assertEqual(self.assert_answered(b"", 301).fields[1].value, b"http://other.test/")
        self.assertEqual((self.dialer.questions, self.dialer.attempts), ([], []))

    def test_cookies(self):
        """What one answer sets is not sent with the next request."""
        self.open()
        self.fetch()
        peer = self.accept()
        self.say(peer, response("200 OK", "Set-Cookie: a=1", "Content-Length: 0"))
        peer.take()
        self.fetch()
        self.assertEqual(peer.take(), b"GET / HTTP/1.1\r\nHost: auth.test\r\n\r\n")
        self.say(peer, OK)

    def test_body_size(self):
        """A body may have the size that is allowed and not one byte more; then the connection is given up."""
        just, more = b"x" * 1000, b"x" * 1001
        chunked = "Transfer-Encoding: chunked"
        for said, size in [
            ([response("200 OK", "Content-Length: 1000", body=just)], 1000),
            ([response("200 OK", chunked, body=b"3e8\r\n%b\r\n0\r\n\r\n" % just)], 1000),
            ([response("200 OK", chunked), b"3e8\r\n%b\r\n0\r\n\r\n" % just], 1000),
            # Not one byte of it is waited for.
            ([response("200 OK", "Content-Length: 1001")], None),
            ([response("200 OK", "Content-Length: 1001", body=more)], None),
            ([response("200 OK", chunked, body=b"3e9\r\n%b" % more)], None),
            ([response("200 OK", chunked, body=b"3e9\r\n%b\r\n0\r\n\r\n" % more)], None),
            ([response("200 OK", chunked), b"3e8\r\n%b\r\n" % just, b"1\r\nx"], None),
            ([response("200 OK"), just, b"x"], None),
        ]:
            self.open()
            self.fetch()
            peer = self.accept()
            for piece in said:
                self.say(peer, piece)
            if size is None:
                self.assert_failed(Outcome.RESPONSE_MALFORMED, TOO_LARGE)
            else:
                self.assert_answered(just)

    def test_no_body_wanted(self):
        """With no room for a body, an answer without one is still taken."""
        self.open()
        self.fetch(max_body_bytes=0)
        self.say(self.accept(), response("200 OK", "Content-Length: 0"))
        self.assert_answered(b"")


class FailureTests(OutboundCase):
    """
    Every way to fail has its outcome.
    """

    def test_no_connection(self):
        """It is told why no connection was found."""
        for outcome in (Outcome.CONNECT_REFUSED, Outcome.CONNECT_TIMEOUT, Outcome.CONNECT_FAILED):
            self.open("unix:/run/auth.sock")
            self.fetch(b"POST", body=b"x")
            self.dialer.attempts[-1].fail(outcome)
            self.assert_failed(outcome)

    def test_unknown_name(self):
        """A name without an address is told apart."""
        self.open()
        self.fetch()
        self.dialer.answer()
        self.reactor.settle()
        self.assert_failed(Outcome.DNS_ERROR)

    def test_bad_answers(self):
        """What is no proper answer is refused, as from any backend."""
        for said, outcome in [
            (b"SSH-2.0-OpenSSH\r\n\r\n", Outcome.RESPONSE_MALFORMED),
            (b"HTTP/1.1 200 OK\nX: 1\n\n", Outcome.RESPONSE_MALFORMED),
            (response("200 OK", "X : 1"), Outcome.RESPONSE_MALFORMED),
            (response("200 OK", "Content-Length: 1", "Content-Length: 1"), Outcome.RESPONSE_MALFORMED),
            (response("200 OK", "Content-Length: 1", "Transfer-Encoding: chunked"), Outcome.RESPONSE_MALFORMED),
            (response("200 OK", "Transfer-Encoding: chunked", body=b"x\r\n"), Outcome.RESPONSE_MALFORMED),
            (response("200 OK", "Transfer-Encoding: chunked") + b"x\r\n", Outcome.RESPONSE_MALFORMED),
            (response("101 Switching Protocols", "Upgrade: x"), Outcome.RESPONSE_UPGRADE_REFUSED),
            (response("200 OK", "X: " + "x" * 70_000), Outcome.RESPONSE_HEADERS_TOO_LARGE),
        ]:
            self.open()
            self.fetch()
            peer = self.accept()
            self.say(peer, said)
            self.assert_failed(outcome)
            self.assertTrue(peer.was_reset or peer.has_ended)

    def test_no_answer(self):
        """A server that closes a new connection instead of answering is not asked again."""
        for resets in (False, True):
            self.open()
            self.fetch()
            self.leave(self.accept(), resets=resets)
            self.assert_failed(Outcome.BACKEND_CLOSED)
            self.assertEqual(self.dialer.attempts, [])

    def test_cable_pulled_at_each_byte(self):
        """Wherever an answer breaks off, that is told, and never taken for the whole; a whole one counts, whatever comes after it."""
        for method, said, status, _, body, _ in RESPONSES:
            for at in self.cuts(said):
                for resets in (False, True):
                    self.open()
                    self.fetch(method)
                    peer = self.accept()
                    self.say(peer, said[:at])
                    self.leave(peer, resets=resets)
                    if at == len(said):
                        self.assert_answered(body, status)
                    else:
                        self.assertIsInstance(self.told[0], Failure, repr(said[:at]))
                        self.assertIn(
                            self.told[0].value.outcome,
                            (Outcome.BACKEND_CLOSED, Outcome.RESPONSE_MALFORMED, Outcome.RESPONSE_INCOMPLETE),
                        )
                    self.assert_clean()

    def test_cable_pulled_before_the_close(self):
        """An answer that only the end of its connection ends is not whole if the connection is broken."""
        for at in self.cuts(UNTIL_CLOSE):
            self.open()
            self.fetch()
            peer = self.accept()
            self.say(peer, UNTIL_CLOSE[:at])
            self.leave(peer, resets=True)
            self.assertIsInstance(self.told[0].value, UpstreamError)
            self.assert_clean()


class StaleTests(OutboundCase):
    """
    Connections are kept, and may have been closed by the server when they are wanted.
    """

    def keep(self):
        """
        Ask once, so that a connection is kept; return the server's end.
        """
        self.open()
        self.fetch()
        peer = self.accept()
        self.say(peer, OK)
        self.assert_answered()
        peer.take()
        return peer

    def test_kept(self):
        """One connection serves requests that come one after another."""
        peer = self.keep()
        for method, body in [(b"GET", b""), (b"POST", b"abc"), (b"GET", b"")]:
            self.fetch(method, body=body)
            self.assertTrue(peer.take().startswith(method))
            self.say(peer, OK)
            self.assert_answered()

    def test_asked_again_at_once(self):
        """Whoever asks again when the answer comes has the same connection."""
        peer = self.keep()
        self.fetch(target=b"/1").addCallback(lambda _: self.fetch(target=b"/2"))
        self.assertIn(b"GET /1 ", peer.take())
        self.say(peer, OK)
        self.assertIn(b"GET /2 ", peer.take())
        self.assertEqual(self.told, [])
        self.say(peer, OK)
        self.assert_answered()

    def test_several_at_a_time(self):
        """Who asks while another waits has a connection of his own; both are kept."""
        peer = self.keep()
        self.fetch()
        first = self.told
        self.fetch()
        other = self.accept()
        self.say(other, OK)
        self.assert_answered()
        self.assertEqual(first, [])
        self.say(peer, OK)
        self.assertEqual(first[0].body, b"ok")

    def test_closed_while_idle(self):
        """A kept connection that the server closed is replaced."""
        peer = self.keep()
        self.leave(peer)
        self.fetch()
        self.say(self.accept(), OK)
        self.assert_answered()

    def test_idle_for_long(self):
        """A connection is not kept for ever."""
        peer = self.keep()
        self.reactor.advance(89)
        self.assertFalse(peer.has_ended)
        self.reactor.advance(2)
        self.assertTrue(peer.has_ended)

    def test_stale(self):
        """A request that crosses the end of a kept connection is sent once more, on a new one, if doing it twice does no harm."""
        for method, resets in [(b"GET", False), (b"GET", True), (b"PUT", False), (b"HEAD", False)]:
            peer = self.keep()
            self.close(peer, resets=resets)
            self.fetch(method, body=b"x" if method == b"PUT" else b"")
            other = self.accept()
            self.assertTrue(other.take().startswith(method))
            self.say(other, response("204 No Content"))
            self.assert_answered(b"", 204)

    def test_all_stale(self):
        """If the server has closed all kept connections, the new one is tried at once."""
        one = self.keep()
        self.fetch()
        self.fetch()
        two = self.accept()
        for peer in (one, two):
            self.say(peer, OK)
        for peer in (one, two):
            self.close(peer)
        self.fetch()
        self.say(self.accept(), OK)
        self.assert_answered()

    def test_stale_once(self):
        """If the new connection is closed too, that is the server's answer."""
        peer = self.keep()
        peer.close()
        self.fetch()
        self.leave(self.accept())
        self.assert_failed(Outcome.BACKEND_CLOSED)
        self.assertEqual(self.dialer.attempts, [])

    def test_stale_and_refused(self):
        """If there is no new connection, that is told."""
        self.keep().close()
        self.fetch()
        self.dialer.attempts[-1].fail()
        self.assert_failed(Outcome.CONNECT_REFUSED)

    def test_stale_is_noticed_before_a_post(self):
        """A request that must not be sent twice is not sent on a connection that has ended."""
        peer = self.keep()
        peer.close()
        self.fetch(b"POST", body=b"pay")
        other = self.accept()
        self.assertIn(b"pay", other.take())
        self.say(other, OK)
        self.assert_answered()
        self.assertEqual(peer.arrived, b"")

    def test_post_is_sent_once(self):
        """A request that must not be sent twice fails if its connection ends without an answer, kept or not."""
        peer = self.keep()
        self.fetch(b"POST", body=b"pay")
        self.leave(peer)
        self.assert_failed(Outcome.BACKEND_CLOSED)
        self.assertEqual(self.dialer.attempts, [])

    def test_begun_answer_is_final(self):
        """A kept connection that breaks within an answer was not stale."""
        peer = self.keep()
        self.fetch()
        self.say(peer, OK[:-1])
        self.leave(peer)
        self.assert_failed(Outcome.RESPONSE_INCOMPLETE)

    def test_closed(self):
        """Closing a destination closes what is idle at once, and what is under way when it is done."""
        peer = self.keep()
        self.fetch()
        first = self.told
        self.fetch()
        other = self.accept()
        self.say(other, OK)
        self.destination.close()
        self.reactor.settle()
        self.assertTrue(other.has_ended)
        self.assertFalse(peer.has_ended)
        self.say(peer, OK)
        self.assertEqual(first[0].body, b"ok")
        self.assertTrue(peer.has_ended)


class EndingTests(OutboundCase):
    """
    An errand can end at any moment: by its time limit, or because nobody wants to know any more.
    """

    def stages(self):
        """
        Bring an errand to each stage in turn; give what its time limit is called there.
        """
        self.open()
        self.fetch()
        yield "resolving", Outcome.CONNECT_TIMEOUT
        if self.dialer.questions:
            # An answer that nobody waits for any more.
            self.dialer.answer(ADDRESS)
        self.open()
        self.fetch()
        self.dialer.answer(ADDRESS)
        yield "connecting", Outcome.CONNECT_TIMEOUT
        for said in (b"", OK[:20], response("200 OK", "Content-Length: 5", body=b"half"), UNTIL_CLOSE):
            self.open()
            self.fetch()
            peer = self.accept()
            self.say(peer, said)
            yield said, Outcome.RESPONSE_TIMEOUT
            self.assertTrue(peer.was_reset)
            self.leave(peer)

    def test_time_limit(self):
        """The time limit is one for everything, and exact."""
        for stage, outcome in self.stages():
            self.reactor.advance(4.9)
            self.assertEqual(self.told, [], stage)
            self.reactor.advance(0.1)
            self.assert_failed(outcome, "within 5 s")

    def test_time_limit_is_not_stretched(self):
        """A server that sends a byte now and then gains no time by it."""
        self.open()
        self.fetch()
        peer = self.accept()
        self.say(peer, response("200 OK", "Content-Length: 900"))
        for _ in range(4):
            self.reactor.advance(1)
            self.say(peer, b"x")
        self.reactor.advance(1)
        self.assert_failed(Outcome.RESPONSE_TIMEOUT)

    def test_long_time_limit(self):
        """A long time limit is not cut short by what holds for other requests."""
        self.open()
        self.fetch(timeout=300.0)
        peer = self.accept()
        self.reactor.advance(250)
        self.say(peer, OK)
        self.assert_answered()

    def test_cancelled(self):
        """Cancelling gives the request up at any stage."""
        for stage, _ in self.stages():
            self.assertEqual(self.told, [], stage)
            self.asked.cancel()
            self.reactor.settle()
            self.assert_cancelled()

    def test_cancelled_at_each_byte(self):
        """Cancelling amidst an answer leaves nothing behind; after it, it does nothing."""
        for method, said, status, _, body, _ in RESPONSES:
            for at in self.cuts(said):
                self.open()
                self.fetch(method)
                peer = self.accept()
                self.say(peer, said[:at])
                self.asked.cancel()
                self.reactor.settle()
                if at == len(said):
                    self.assert_answered(body, status)
                else:
                    self.assert_cancelled()
                    self.assertTrue(peer.was_reset)
                self.assert_clean()

    def test_cancelled_on_a_stale_retry(self):
        """Cancelling gives up the second attempt as well as the first."""
        self.open()
        self.fetch()
        peer = self.accept()
        self.say(peer, OK)
        peer.close()
        self.fetch()
        self.assertEqual(len(self.dialer.attempts), 1)
        self.asked.cancel()
        self.assert_cancelled()
        self.assertEqual(self.dialer.attempts, [])
