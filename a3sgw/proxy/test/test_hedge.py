"""
Dialogues with a service that asks a second server when the first takes unusually long.
"""

import gc
import json
import socket
from itertools import count

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import ILessee
from a3sgw.policy.budget import RetryBudget
from a3sgw.proxy.exchange import Exchange
from a3sgw.proxy.hedge import Hedge, HedgeTally, Hedging
from a3sgw.proxy.test.dialogues import OK, DialogueCase, config, request, response
from a3sgw.proxy.test.probes import Probes
from a3sgw.testing import Dialogue

RESET = b"\1\0\0\0\0\0\0\0"
SECOND = response("200 OK", "Content-Length: 6", body=b"second")
CHUNKED = response("200 OK", "Transfer-Encoding: chunked", body=b"3\r\nsec\r\n3\r\nond\r\n0\r\nX-T: 1\r\n\r\n")
UNAVAILABLE = response("503 No", "Content-Length: 0")
RETRY = 'type = "retry"\nmax_retries = 1\nretry_interval_ms = 1000'
PASSIVE = "passive_health { consecutive_errors = 1 }"
DELAY = 2.0


def hedged(terms="", *, balancing="", service="", servers=2, **settings):
    """
    Return a configuration whose service asks a second server after `DELAY` seconds, on these further terms.
    """
    budget = "" if "budget_percent" in terms else "budget_percent = 100"
    block = f"hedging {{\n quantile = 0.5\n min_delay_ms = {DELAY * 1000:.0f}\n {budget}\n {terms}\n }}\n {service}"
    return config(servers=servers, service=block, **settings).replace("    servers = [", f"    {balancing}\n    servers = [", 1)


def unframed(message):
    """
    Return a message without what says how its body was cut into chunks.
    """
    head, _, body = message.partition(b"\r\n\r\n")
    if b"\r\nTransfer-Encoding: chunked" not in head:
        return message
    lines = body.split(b"\r\n")
    end = lines.index(b"0")
    return b" ".join([head, b"".join(lines[1:end:2]), *lines[end:]])


class HedgeCase(DialogueCase):
    """
    A dialogue with a service that knows how long its answers usually take.
    """

    def talk(self, text=None, *, answers_dials=True, learns=True, catalog=None):
        self.dialogue = Dialogue(hedged() if text is None else text, answers_dials=answers_dials, catalog=catalog)
        self.client = self.dialogue.connect()
        self.say, self.hear = self.dialogue.say, self.dialogue.hear
        if learns:
            hedging = self.hedging()
            for _ in range(60):
                hedging.budget.request(self.dialogue.reactor.seconds())
                hedging.observe(self.dialogue.reactor.seconds())

    def tearDown(self):
        if getattr(self, "dialogue", None) is not None:
            super().tearDown()
            # All that is left is the sweep, and the flushing of the log.
            self.assertEqual(len(self.dialogue.reactor.getDelayedCalls()), 2)

    def service(self):
        return self.dialogue.carrier.generation().services["app"]

    def hedging(self):
        return self.service().traits.hedging

    def told(self):
        """
        Return what became of second attempts.
        """
        result = []
        self.dialogue.carrier.snapshot().addCallback(result.append)
        (counts,) = [row["hedges"] for row in result[0]["gauges"]["services"] if row["service"] == "app"]
        return {name: count for name, count in counts.items() if count}

    def pass_time(self, seconds=DELAY):
        self.dialogue.reactor.advance(seconds)

    def race(self, data=None, text=None, **how):
        """
        Send a request and let the time pass; return the ends of both servers.
        """
        self.talk(text, **how)
        self.say(self.client, request() if data is None else data)
        self.pass_time()
        self.assertEqual(len(self.dialogue.backends), 2)
        return self.dialogue.backends

    def assert_no_race(self, data=None, text=None, **how):
        """
        Fail if a second server is asked, however long the first one takes.
        """
        self.talk(text, **how)
        self.say(self.client, request() if data is None else data)
        self.pass_time(10)
        self.assertEqual((len(self.dialogue.backends), self.told()), (1, {}))

    def listen(self):
        """
        Return the servers' ends which something arrived at.
        """
        return [end for end in self.dialogue.backends if self.hear(end)]

    def assert_answered(self, body=b"second"):
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 200 OK\r\n"), heard)
        self.assertTrue(heard.endswith(b"\r\n\r\n" + body), heard)

    def leave(self, end, *, resets=False):
        end.take()
        if resets:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        end.close()
        self.dialogue.reactor.settle()

    def line(self):
        """
        Return what the access log says of the last exchange.
        """
        self.dialogue.reactor.advance(1)
        return json.loads(self.dialogue.sink.data.splitlines()[-1])


class WinnerTests(HedgeCase):
    """
    Whoever answers first is listened to.
    """

    def test_interface(self):
        """A hedge is a lessee of connections."""
        _, second = self.race()
        (stream,) = [each for each in self.dialogue.reactor.watched() if getattr(each, "_socket", None) is second.peer]
        hedge = stream.receiver.exchange
        self.assertIsInstance(hedge, Hedge)
        verifyObject(ILessee, hedge)
        self.assertRegex(repr(hedge), r"^<Hedge racing of <Exchange .*>>$")
        self.assertRegex(repr(self.hedging()), r"^<Hedging after 2\.0 s, <RetryBudget .*>>$")

    def test_second(self):
        """The second server gets the same request, and its answer is the answer; the first one's is not waited for any more."""
        first, second = self.race(request("GET", "/a?b", "X-One: 1"))
        self.assertEqual(self.hear(first), self.hear(second))
        self.say(second, SECOND)
        self.assert_answered()
        self.assertTrue(first.was_reset)
        self.assertEqual((self.told(), self.dialogue.outcomes()), ({"won": 1}, ["completed"]))
        line = self.line()
        self.assertEqual((line["backend"], line["attempts"]), ("http://192.0.2.2", 2))

    def test_first(self):
        """When the first one answers after all, the second is given up."""
        first, second = self.race()
        self.hear(first)
        self.say(first, OK)
        self.assert_answered(b"ok")
        self.assertTrue(second.was_reset)
        self.assertEqual((self.told(), self.dialogue.outcomes()), ({"lost": 1}, ["completed"]))
        self.assertEqual(self.line()["backend"], "http://192.0.2.1")

    def test_in_time(self):
        """Nobody else is asked when the answer comes in time, or begins to."""
        self.talk()
        self.say(self.client, request())
        self.pass_time(DELAY - 0.1)
        (first,) = self.dialogue.backends
        self.hear(first)
        self.say(first, response("200 OK", "Content-Length: 2", body=b"o"))
        self.pass_time()
        self.say(first, b"k")
        self.assert_answered(b"ok")
        self.assertEqual((len(self.dialogue.backends), self.told()), (1, {}))

    def test_any_answer(self):
        """The second one's answer may be of any kind, and come in pieces of any size."""
        for answer, ends in ((SECOND, False), (CHUNKED, False), (response("200 OK", body=b"second"), True)):
            heard = set()
            # The first server's answer, in time, is what the others are compared with.
            for pieces, races in (([answer], False), ([answer], True), ([answer[at : at + 1] for at in range(len(answer))], True)):
                if races:
                    _, end = self.race()
                else:
                    self.talk()
                    end = self.ask()
                self.hear(end)
                for piece in pieces:
                    self.say(end, piece)
                if ends:
                    self.leave(end)
                heard.add(unframed(self.hear(self.client)))
                self.assertEqual(self.told(), {"won": 1} if races else {})
                self.tearDown()
            self.assertEqual(len(heard), 1, heard)

    def test_hints(self):
        """Informational answers decide nothing: those of the first are passed on, those of the second are not unless it has won."""
        first, second = self.race()
        self.hear(second)
        self.say(second, b"HTTP/1.1 103 Hints\r\nLink: second\r\n\r\n")
        self.assertEqual((self.hear(self.client), self.told()), (b"", {}))
        self.say(first, b"HTTP/1.1 103 Hints\r\nLink: first\r\n\r\n")
        self.assertIn(b"Link: first", self.hear(self.client))
        self.say(second, SECOND)
        self.assert_answered()

    def test_connections_are_kept(self):
        """The winner's connection, and the client's, serve the next request too."""
        _, second = self.race()
        self.hear(second)
        self.say(second, SECOND)
        self.assert_answered()
        for _ in range(2):
            self.say(self.client, request())
            for end in self.dialogue.backends[1:]:
                if self.hear(end):
                    self.say(end, OK)
            self.assert_answered(b"ok")
        self.assertEqual(len(self.dialogue.backends), 3)

    def test_pipelining(self):
        """Requests sent ahead are answered in order, whoever answers each."""
        first, second = self.race(request("GET", "/1") + request("GET", "/2"))
        self.assertTrue(self.hear(second).startswith(b"GET /1 "))
        self.say(second, SECOND)
        self.assert_answered()
        for end in self.dialogue.backends[1:]:
            heard = self.hear(end)
            if heard:
                self.assertTrue(heard.startswith(b"GET /2 "))
                self.say(end, OK)
        self.assert_answered(b"ok")
        self.assertTrue(first.was_reset)

    def test_body(self):
        """A body that is whole goes to the second server too, in one piece, with its trailers."""
        fixed = request("PUT", "/", "Content-Length: 5", body=b"abc")
        chunked = request("PUT", "/", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n")
        for head, rest, expected in (
            (fixed, b"de", b"Content-Length: 5\r\n\r\nabcde"),
            (chunked, b"2\r\nde\r\n0\r\n\r\n", b"chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"),
            (chunked, b"2\r\nde\r\n0\r\nX-T: 1\r\n\r\n", b"chunked\r\n\r\n5\r\nabcde\r\n0\r\nX-T: 1\r\n\r\n"),
        ):
            self.talk()
            self.say(self.client, head)
            self.say(self.client, rest)
            self.pass_time()
            self.assertTrue(self.hear(self.dialogue.backend()).endswith(expected))
            self.say(self.dialogue.backend(), SECOND)
            self.assert_answered()
            self.tearDown()

    def test_held_client(self):
        """A client that was held for the first server is not held any longer when that has lost."""
        self.talk(hedged(service="max_replay_bytes = 1000000"))
        self.say(self.client, request("PUT", "/", "Content-Length: 300000", body=b"x" * 1000))
        (first,) = self.dialogue.backends
        first.room = 1000
        self.client.send(b"x" * 299_000)
        for connection in list(self.dialogue.door().connections):
            while connection._stream.is_open and connection.exchange is not None and not connection.exchange.request_ended:
                connection._stream.doRead()
        self.dialogue.reactor.settle()
        self.pass_time()
        second = self.dialogue.backend()
        self.assertIsNot(first, second)
        self.assertEqual(len(self.hear(second).partition(b"\r\n\r\n")[2]), 300_000)
        self.say(second, SECOND)
        self.assert_answered()
        self.say(self.client, request())
        self.assertTrue(any(self.hear(end).startswith(b"GET / ") for end in self.dialogue.backends[1:]))

    def test_worse_answer(self):
        """An error of the second server is no answer while the first may yet give a better one."""
        for status in ("500 Oops", "503 No", "429 Slowly"):
            for answer in (response(status, "Content-Length: 0"), response(status, "Content-Length: 9", body=b"x")):
                first, second = self.race()
                self.hear(first)
                self.hear(second)
                self.say(second, answer)
                self.assertEqual((self.hear(self.client), self.told()), (b"", {"lost": 1}))
                self.say(first, OK)
                self.assert_answered(b"ok")
                self.tearDown()

    def test_error_of_the_first(self):
        """An error of the first server is the answer it would have been without a second."""
        first, second = self.race()
        self.hear(first)
        self.say(first, UNAVAILABLE)
        self.assertTrue(self.hear(self.client).startswith(b"HTTP/1.1 503 No"))
        self.assertTrue(second.was_reset)


class FailureTests(HedgeCase):
    """
    One of the two fails, or both.
    """

    def test_first_fails(self):
        """When the first one fails, the second goes on in its place, whether it is connected yet or not."""
        for resets in (False, True):
            first, second = self.race()
            self.leave(first, resets=resets)
            self.assertEqual((self.hear(self.client), self.told()), (b"", {"won": 1}))
            self.hear(second)
            self.say(second, SECOND)
            self.assert_answered()
            self.tearDown()

    def test_first_fails_before_connection(self):
        """The same while the second is still being connected to."""
        for succeeds in (True, False):
            self.talk(answers_dials=False)
            self.say(self.client, request())
            first = self.dialogue.attempts[0].succeed()
            self.pass_time()
            (attempt,) = self.dialogue.attempts
            self.leave(first)
            if succeeds:
                second = attempt.succeed()
                self.assertTrue(self.hear(second).startswith(b"GET / "))
                self.say(second, SECOND)
                self.assert_answered()
            else:
                attempt.fail()
                self.assert_refused(502, "connect-refused")
            self.assertEqual(self.told(), {"won": 1})
            self.tearDown()

    def test_both_fail(self):
        """When both fail the client is told so; the order does not matter."""
        for order in ((0, 1), (1, 0)):
            ends = self.race()
            for at in order:
                self.assertEqual(self.hear(self.client), b"")
                self.leave(ends[at])
            self.assert_refused(502, "backend-closed")
            self.tearDown()

    def test_second_fails_at_any_byte(self):
        """Wherever the second one breaks off before its head is whole, the first one's answer is the answer; later, the client can tell."""
        whole = SECOND.index(b"\r\n\r\n") + 4
        for cut in range(len(SECOND)):
            first, second = self.race()
            self.hear(first)
            self.hear(second)
            if cut:
                self.say(second, SECOND[:cut])
            self.leave(second, resets=cut % 2 == 0)
            if cut < whole:
                self.say(first, OK)
                self.assert_answered(b"ok")
            else:
                self.assertTrue(self.client.was_reset)
            self.assertEqual(self.told(), {"lost": 1} if cut < whole else {"won": 1})
            self.tearDown()

    def test_first_fails_at_any_byte(self):
        """Wherever the first one breaks off before its head is whole, the second one's answer is the answer."""
        for cut in range(SECOND.index(b"\r\n\r\n") + 4):
            first, second = self.race()
            self.hear(first)
            if cut:
                self.say(first, SECOND[:cut])
            self.leave(first)
            self.hear(second)
            self.say(second, SECOND)
            self.assert_answered()
            self.tearDown()

    def test_second_refuses(self):
        """When the second one cannot be connected to, the first goes on alone."""
        self.talk(answers_dials=False)
        self.say(self.client, request())
        first = self.dialogue.attempts[0].succeed()
        self.pass_time()
        self.dialogue.attempts[0].fail()
        self.assertEqual(self.told(), {"lost": 1})
        self.hear(first)
        self.say(first, OK)
        self.assert_answered(b"ok")

    def test_first_answers_before_connection(self):
        """When the first one answers, a connection to the second is not waited for any more."""
        self.talk(answers_dials=False)
        self.say(self.client, request())
        first = self.dialogue.attempts[0].succeed()
        self.pass_time()
        self.hear(first)
        self.say(first, OK)
        self.assert_answered(b"ok")
        self.assertEqual((self.dialogue.attempts, self.told()), ([], {"lost": 1}))

    def kept(self, text=None):
        """
        Let both servers have a kept connection.
        """
        self.talk(text)
        for _ in range(2):
            self.say(self.client, request())
            self.hear(self.dialogue.backends[-1])
            self.say(self.dialogue.backends[-1], OK)
            self.hear(self.client)
        return self.dialogue.backends

    def test_kept_connection_of_the_first(self):
        """A kept connection that the first server has closed is replaced, and the second one goes on meanwhile."""
        first, second = self.kept()[:2]
        self.say(self.client, request())
        self.pass_time()
        self.assertTrue(self.hear(first))
        self.leave(first)
        self.assertTrue(self.hear(second))
        self.say(second, SECOND)
        self.assert_answered()

    def test_kept_connection_of_the_second(self):
        """A kept connection that the second server has just closed is not tried."""
        self.kept()
        self.say(self.client, request())
        second = self.dialogue.backends[1]
        self.dialogue.reactor.callLater(DELAY - 0.0001, second.close)
        self.pass_time()
        self.assertEqual(len(self.dialogue.backends), 3)
        self.hear(self.dialogue.backends[2])
        self.say(self.dialogue.backends[2], SECOND)
        self.assert_answered()

    def test_client_leaves(self):
        """A client that leaves takes both attempts with it, at whatever moment."""
        first, second = self.race()
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertTrue(first.was_reset and second.was_reset)
        self.assertEqual((self.told(), self.dialogue.outcomes()), ({"lost": 1}, ["client-closed"]))
        self.tearDown()
        self.talk()
        self.say(self.client, request())
        self.client.close()
        self.pass_time()
        self.assertEqual((len(self.dialogue.backends), self.told()), (1, {}))
        self.tearDown()
        first, second = self.race()
        self.leave(first)
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertTrue(second.was_reset)
        self.tearDown()
        self.talk(answers_dials=False)
        self.say(self.client, request())
        first = self.dialogue.attempts[0].succeed()
        self.pass_time()
        self.leave(first)
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.dialogue.attempts, [])

    def test_total_timeout(self):
        """The time for the whole exchange ends both attempts."""
        first, second = self.race(text=hedged(service='timeouts { total = "5s" }'))
        self.pass_time(4)
        self.assert_refused(504, "exchange-timeout")
        self.assertTrue(first.was_reset and second.was_reset)

    def test_response_timeout(self):
        """Each attempt has its own time for the head of the answer."""
        _, second = self.race(text=hedged(service='timeouts { response_header = "5s" }'))
        self.pass_time(4)
        self.assertEqual((self.hear(self.client), self.told()), (b"", {"won": 1}))
        self.hear(second)
        self.say(second, SECOND)
        self.assert_answered()
        self.tearDown()
        self.race(text=hedged(service='timeouts { response_header = "5s" }'))
        self.pass_time(8)
        self.assert_refused(504, "response-timeout")

    def test_retry(self):
        """When both have failed a middleware may try again, once more and without another race."""
        ends = self.race(text=hedged(middlewares=[RETRY.replace("1\n", "3\n")], servers=3))
        for end in list(ends):
            self.leave(end)
        self.pass_time(1.5)
        self.assertEqual(len(self.dialogue.backends), 3)
        self.pass_time(10)
        self.assertEqual(len(self.dialogue.backends), 3)
        self.hear(self.dialogue.backend())
        self.say(self.dialogue.backend(), OK)
        self.assert_answered(b"ok")

    def test_retry_before_the_time(self):
        """An attempt that repeats a failed one is not raced."""
        self.talk(hedged(middlewares=[RETRY]))
        self.say(self.client, request())
        self.leave(self.dialogue.backend())
        self.pass_time(10)
        self.assertEqual((len(self.dialogue.backends), self.told()), (2, {}))

    def test_failover(self):
        """When both have failed to connect, the service that steps in is asked."""
        spare = 'services "spare" {\n load_balancer {\n servers = [{ url = "http://192.0.2.9" }]\n }\n}\n'
        failover = 'failover {\n service = "spare"\n status_codes = [503]\n }'
        first, second = self.race(text=hedged(service=failover, more=spare))
        self.hear(first)
        self.say(first, UNAVAILABLE)
        third = self.dialogue.backend()
        self.assertTrue(second.was_reset)
        self.hear(third)
        self.say(third, SECOND)
        self.assert_answered()


class NeverTests(HedgeCase):
    """
    Requests for which nobody else is asked.
    """

    def test_methods(self):
        """Methods that may not be repeated have one attempt, the others may have two."""
        for method in ("POST", "PATCH", "CONNECTED"):
            self.assert_no_race(request(method))
            self.tearDown()
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
            self.race(request(method))
            self.tearDown()

    def test_single_server(self):
        """A service with one server has nobody else to ask."""
        self.assert_no_race(text=hedged(servers=1))

    def test_nobody_else_usable(self):
        """A server that may not be used is not asked."""
        self.talk()
        self.service().backends[1].verdicts.is_draining = True
        self.service().refresh()
        self.say(self.client, request())
        self.pass_time()
        self.assertEqual((len(self.dialogue.backends), self.told()), (1, {}))

    def test_no_budget(self):
        """No more second attempts are made than the budget has room for."""
        self.assert_no_race(text=hedged("budget_percent = 0"))
        self.tearDown()
        self.talk(hedged("budget_percent = 10"))
        clients = [self.dialogue.connect() for _ in range(20)]
        for client in clients:
            self.say(client, request())
        self.pass_time()
        self.assertEqual(len(self.dialogue.backends), 28)
        for client in clients:
            client.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.told(), {"lost": 8})

    def test_little_known(self):
        """As long as it is not known how long answers take, nobody else is asked."""
        self.assert_no_race(learns=False)

    def test_incomplete(self):
        """A request whose body has yet to come is not sent to anybody else, nor one whose body is not kept."""
        self.assert_no_race(request("PUT", "/", "Content-Length: 5", body=b"abc"))
        self.tearDown()
        self.assert_no_race(request("PUT", "/", "Content-Length: 5", body=b"abcde"), hedged(service="max_replay_bytes = 4"))

    def test_bound_client(self):
        """A client that is bound to a server by a cookie is not sent to another."""
        text = hedged(balancing='sticky { cookie = "server" }')
        _, second = self.race(text=text)
        self.hear(second)
        self.say(second, SECOND)
        heard = self.hear(self.client)
        cookie = heard.partition(b"Set-Cookie: ")[2].partition(b";")[0].decode()
        self.assertTrue(cookie.startswith("server="))
        before = len(self.dialogue.backends)
        self.say(self.client, request("GET", "/", f"Cookie: {cookie}"))
        self.assertTrue(self.hear(second))
        self.pass_time(10)
        self.assertEqual(len(self.dialogue.backends), before)
        self.say(second, OK)
        self.assert_answered(b"ok")

    def test_other_revision(self):
        """A server of another revision is not asked, and the request stays with its revision."""
        revisions = "".join(
            f' revisions {{\n name = "v{number}"\n traffic_percent = 50\n servers = [{urls}]\n }}\n'
            for number, urls in ((1, '{ url = "http://192.0.2.1" }'), (2, '{ url = "http://192.0.2.2" }, { url = "http://192.0.2.3" }'))
        )
        text = hedged(servers=0, service=revisions).replace("servers = []", "", 1)
        self.assert_no_race(text=text)
        self.say(self.dialogue.backend(), OK)
        self.hear(self.client)
        self.say(self.client, request())
        self.pass_time()
        self.hear(self.dialogue.backend())
        self.say(self.dialogue.backend(), SECOND)
        self.assert_answered()
        self.assertEqual((self.line()["revision"], self.told()), ("v2", {"won": 1}))

    def test_slow_client(self):
        """When the client has yet to take the answer before, it is not the server that lets it wait."""
        self.talk()
        self.client.room = 10
        self.say(self.client, request("GET", "/1") + request("GET", "/2"))
        first = self.dialogue.backend()
        self.hear(first)
        self.say(first, response("200 OK", "Content-Length: 50000", body=b"x" * 50_000))
        self.pass_time(10)
        self.assertEqual(self.told(), {})


class SurroundingsTests(HedgeCase):
    """
    Everybody who counts attempts counts both.
    """

    PROBED = hedged(middlewares=['type = "probe"'])

    def test_hooks(self):
        """Middlewares hear of both attempts, and how each ended."""
        one, two = "http://192.0.2.1", "http://192.0.2.2"
        begun = [("begun", one), ("begun", two)]
        for act, ended in (
            (lambda ends: self.say(ends[1], SECOND), [("ended", one, "client-closed", 0), ("ended", two, "completed", 200)]),
            (lambda ends: self.say(ends[0], OK), [("ended", two, "client-closed", 0), ("ended", one, "completed", 200)]),
            (lambda ends: self.say(ends[1], UNAVAILABLE), [("ended", two, "completed", 503)]),
            (lambda ends: self.leave(ends[1]), [("ended", two, "backend-closed", 0)]),
            (lambda ends: self.leave(ends[0]), [("ended", one, "backend-closed", 0)]),
            (lambda ends: self.client.close(), [("ended", two, "client-closed", 0), ("ended", one, "client-closed", 0)]),
        ):
            probes = Probes()
            ends = self.race(text=self.PROBED, catalog=probes.catalog)
            for end in ends:
                self.hear(end)
            act(ends)
            self.dialogue.reactor.settle()
            told = [each for each in probes["m1"].told if each[0] in ("begun", "ended")]
            self.assertEqual(told, begun + ended)
            self.tearDown()
            told = [each for each in probes["m1"].told if each[0] in ("begun", "ended")]
            self.assertEqual(sorted(each[1] for each in told), [one, one, two, two])

    def test_kept_out(self):
        """A server that a middleware keeps out is not asked."""
        probes = Probes()
        self.talk(self.PROBED, catalog=probes.catalog)
        probes["m1"].use = lambda backend: backend.url.endswith("1")
        self.say(self.client, request())
        self.pass_time()
        self.assertEqual((len(self.dialogue.backends), self.told()), (1, {}))

    def test_circuits(self):
        """Circuits of single servers judge each attempt by its own server."""
        breaker = 'type = "circuit-breaker"\nscope = "backend"\nfailure_threshold = 1\ncooldown_secs = 5'
        text = hedged(middlewares=[breaker])
        first, second = self.race(text=text)
        self.leave(first)
        self.hear(second)
        self.say(second, SECOND)
        self.assert_answered()
        self.assertEqual(self.circuits(), {"open_backends": 1, "half_open_backends": 0})
        # When the first server is tried again and loses, that closes nothing and opens nothing.
        self.pass_time(5.5)
        self.say(self.client, request())
        self.assertNotEqual(self.listen(), [second])
        self.pass_time()
        self.assertEqual(self.listen(), [second])
        self.say(second, SECOND)
        self.assert_answered()
        self.assertEqual((len(self.dialogue.backends), self.told()), (3, {"won": 2}))
        self.assertEqual(self.circuits(), {"open_backends": 0, "half_open_backends": 1})

    def circuits(self):
        result = []
        self.dialogue.carrier.snapshot().addCallback(result.append)
        (row,) = result[0]["gauges"]["middlewares"]
        return {key: row["state"][key] for key in ("open_backends", "half_open_backends")}

    def test_verdicts(self):
        """Whoever fails is set aside; whoever was merely slower is not."""
        for act, usable in (
            (lambda ends: self.say(ends[1], SECOND), [True, True]),
            (lambda ends: self.say(ends[0], OK), [True, True]),
            (lambda ends: self.say(ends[1], UNAVAILABLE), [True, False]),
            (lambda ends: self.leave(ends[1]), [True, False]),
            (lambda ends: self.leave(ends[0]), [False, True]),
        ):
            ends = self.race(text=hedged(balancing=PASSIVE))
            for end in ends:
                self.hear(end)
            act(ends)
            self.assertEqual([backend.is_usable for backend in self.service().backends], usable)
            self.tearDown()

    SCALING = "scaling {\n container_concurrency = 1\n buffer_enabled = true\n }"

    def room(self):
        return self.service().traits.room

    def test_places(self):
        """A second attempt needs a place of its own, and gives it back when one of the two is over."""
        for act in (
            lambda ends: self.say(ends[1], response("200 OK", "Content-Length: 9", body=b"x")),
            lambda ends: self.say(ends[0], response("200 OK", "Content-Length: 9", body=b"x")),
            lambda ends: self.leave(ends[0]),
            lambda ends: self.leave(ends[1]),
        ):
            ends = self.race(text=hedged(service=self.SCALING))
            self.assertEqual(self.room().in_use, 2)
            for end in ends:
                self.hear(end)
            act(ends)
            self.assertEqual(self.room().in_use, 1)
            self.client.close()
            self.dialogue.reactor.settle()
            self.assertEqual(self.room().in_use, 0)
            self.tearDown()

    def test_no_place(self):
        """Nobody waits, or is turned away, because of a second attempt; without a place there is none."""
        self.talk(hedged(service=self.SCALING))
        others = [self.dialogue.connect() for _ in range(2)]
        for client in (self.client, *others):
            self.say(client, request())
        self.pass_time()
        self.assertEqual((len(self.dialogue.backends), self.told(), self.room().waiting), (2, {}, 1))
        for client in others:
            client.close()

    def test_place_for_who_waits(self):
        """Whoever came while two attempts were under way is served as soon as one is over."""
        first, second = self.race(text=hedged(service=self.SCALING))
        other = self.dialogue.connect()
        self.say(other, request("GET", "/other"))
        self.assertEqual(self.room().waiting, 1)
        self.hear(first)
        self.say(second, SECOND)
        self.assert_answered()
        third = self.dialogue.backend()
        self.assertTrue(any(self.hear(end).startswith(b"GET /other") for end in (second, third)))
        other.close()

    def test_mirror(self):
        """A request that is sent twice is copied once."""
        shadow = 'services "shadow" {\n load_balancer {\n servers = [{ url = "http://192.0.2.9" }]\n }\n}\n'
        self.talk(hedged(service='mirror { service = "shadow" }', more=shadow))
        self.say(self.client, request())
        self.pass_time()
        heard = [self.hear(end) for end in self.dialogue.backends]
        self.assertEqual([b"X-Shadow: true" in each for each in heard], [False, True, False])

    def test_reload(self):
        """A race goes on over a reload, and what was counted and learnt stays."""
        first, second = self.race()
        hedging = self.hedging()
        self.dialogue.reload(hedged(service='timeouts { idle = "7s" }'))
        self.assertIs(self.hedging(), hedging)
        self.hear(second)
        self.say(second, SECOND)
        self.assert_answered()
        self.assertTrue(first.was_reset)
        self.dialogue.reload(hedged("budget_percent = 7"))
        self.assertIsNot(self.hedging(), hedging)
        self.assertEqual(self.told(), {"won": 1})

    def test_server_is_gone(self):
        """A reload that takes servers away, or hedging, ends no race."""
        _, second = self.race()
        self.dialogue.reload(config())
        self.hear(second)
        self.say(second, SECOND)
        self.assert_answered()
        self.assertTrue(second.has_ended)


class Fickle:
    """
    A balancer that chooses once, and raises after that.
    """

    def __init__(self):
        self.chosen = False

    def choose(self, candidates, record):
        if self.chosen:
            raise ZeroDivisionError
        self.chosen = True
        return candidates[0]


class BugTests(HedgeCase):
    """
    A bug costs the second attempt.
    """

    def check(self, breaking):
        self.talk()
        breaking(self.service())
        self.say(self.client, request())
        self.pass_time()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        (first,) = self.dialogue.backends
        self.hear(first)
        self.say(first, OK)
        self.assert_answered(b"ok")

    def test_balancer(self):
        """A balancer that raises is reported, and the first attempt goes on."""

        def breaking(service):
            service.groups[0]._balancer = Fickle()

        self.check(breaking)

    def test_watch(self):
        """So is a watch that does."""

        class Watch:
            def begin(self):
                raise ZeroDivisionError

        def breaking(service):
            service.backends[1].watch = Watch()

        self.check(breaking)


class MemoryTests(HedgeCase):
    """
    What is over is freed.
    """

    def count(self):
        return sum(type(each) in (Exchange, Hedge) for each in gc.get_objects())

    def test_freed_at_once(self):
        """Exchanges and hedges that are over are not left to the garbage collector, however the race ended."""
        gc.collect()
        before = self.count()
        gc.disable()
        self.addCleanup(gc.enable)
        for winner in (None, 0, 1):
            self.talk()
            self.say(self.client, request())
            if winner is not None:
                self.pass_time()
            end = self.dialogue.backends[winner or 0]
            self.hear(end)
            self.say(end, SECOND)
            self.assert_answered()
            # Those who observe are shown it only now.
            self.dialogue.outcomes()
            self.assertEqual(self.count(), before, winner)
            self.tearDown()


class LearningTests(HedgeCase):
    """
    How long answers usually take.
    """

    def test_first_attempts(self):
        """Answers teach when to ask somebody else, up to the quantile that was asked for."""
        self.talk(hedged("budget_percent = 0").replace("min_delay_ms = 2000", "min_delay_ms = 1"), learns=False)
        turns = count()
        for _ in range(60):
            self.say(self.client, request())
            for end in list(self.dialogue.backends):
                if self.hear(end):
                    self.pass_time(0.2 if next(turns) % 3 else 0.05)
                    self.say(end, OK)
            self.assert_answered(b"ok")
        self.dialogue.reactor.advance(1.5)
        delay = self.hedging().delay(self.dialogue.reactor.seconds())
        self.assertTrue(0.18 < delay < 0.22, delay)

    def test_no_sinking(self):
        """A first attempt that lost counts with the time it had, so that quick second ones do not make everybody look slow."""
        self.talk(hedged().replace("min_delay_ms = 2000", "min_delay_ms = 1"), learns=False)
        hedging = self.hedging()
        for _ in range(60):
            hedging.budget.request(0.0)
            hedging.observe(-0.5)
        for _ in range(100):
            self.say(self.client, request())
            self.listen()
            self.pass_time(0.6)
            for second in self.listen():
                self.say(second, SECOND)
                self.assert_answered()
            hedging.budget.request(self.dialogue.reactor.seconds())
        self.assertGreater(self.told()["won"], 90)
        self.assertGreater(hedging.delay(self.dialogue.reactor.seconds()), 0.45)

    def test_error_is_no_answer(self):
        """Errors, which come quickly, teach nothing."""
        self.talk(learns=False)
        for _ in range(60):
            self.say(self.client, request())
            for end in list(self.dialogue.backends):
                if self.hear(end):
                    self.say(end, UNAVAILABLE)
            self.hear(self.client)
        self.dialogue.reactor.advance(1.5)
        self.assertIsNone(self.hedging().delay(self.dialogue.reactor.seconds()))


class QuantileTests(SynchronousTestCase):
    """
    `Hedging` alone, without a network.
    """

    def test_delay(self):
        """The delay is the quantile, but never less than the least, and it is worked out once in a while."""
        clock = Clock()
        hedging = Hedging(0.9, 0.05, RetryBudget(5, 0.0), HedgeTally(), clock.seconds, clock.callLater)
        self.assertIsNone(hedging.delay(clock.seconds()))
        for number in range(100):
            hedging.observe(clock.seconds() - (1.0 if number % 5 == 0 else 0.01))
        self.assertIsNone(hedging.delay(clock.seconds()))
        clock.advance(Hedging.FRESH_SECONDS)
        delay = hedging.delay(clock.seconds())
        self.assertTrue(0.95 < delay < 1.05, delay)
        clock.advance(1)
        for _ in range(2000):
            hedging.observe(clock.seconds() - 0.001)
        self.assertEqual(hedging.delay(clock.seconds()), 0.05)
