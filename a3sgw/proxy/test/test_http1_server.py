"""
Tests of the client's side of HTTP/1: what a connection does beside carrying one exchange.
"""

import json

from zope.interface.verify import verifyObject

from a3sgw.interfaces import IConnection, IDownstream
from a3sgw.proxy.http1_server import Http1Server
from a3sgw.proxy.test.dialogues import OK, DialogueCase, config, request, response
from a3sgw.service.group import Group
from a3sgw.service.service import Route, Service, ServiceSettings
from a3sgw.testing import Dialogue, receiver_contract


def make_server():
    """
    Return a connection that has just been accepted.
    """
    dialogue = Dialogue(config())
    dialogue.connect()
    (connection,) = dialogue.door().connections
    return connection


class Http1ServerContractTests(receiver_contract(make_server)):
    """
    `Http1Server` is a receiver and a downstream.
    """

    def test_downstream(self):
        """A connection is the client's side of its exchanges."""
        connection = make_server()
        self.assertIsInstance(connection, Http1Server)
        verifyObject(IDownstream, connection)
        verifyObject(IConnection, connection)

    def test_repr(self):
        """A connection says whose it is."""
        self.assertRegex(repr(make_server()), r"<Http1Server 192\.0\.2\.1 with None on <Stream \d+ open held by none, 0 bytes waiting>>")


class LocalCase(DialogueCase):
    """
    Exchanges that the gateway itself answers.
    """

    LOCAL = request("GET", "/api/gateway/x")

    def converse(self, **settings):
        dialogue = super().converse(**settings)
        self.client.close()
        self.client = dialogue.connect("127.0.0.1")
        return dialogue

    def lines(self):
        """
        Return the lines of the access log.
        """
        self.dialogue.reactor.advance(1)
        return [json.loads(line) for line in self.dialogue.sink.data.splitlines()]


class PipelineTests(LocalCase):
    """
    Requests sent ahead of their turn.
    """

    def send_all(self, data):
        """
        Send as much of `data` as is taken; return the rest.
        """
        while data and self.client.is_writable():
            data = data[self.client.send(data[:65536]) :]
            self.dialogue.reactor.settle()
        return data

    def test_flood_is_held(self):
        """Of a megabyte sent ahead only a bounded part is taken in before its turn, and all of it is answered in the end."""
        self.converse()
        requests = [request("GET", f"/{number}", "X-Padding: " + "x" * 8000) for number in range(150)]
        backend = self.ask(requests[0])
        ours = self.client.peer
        rest = b"".join(requests[1:])
        taken = len(rest)
        rest = self.send_all(rest)
        taken -= len(rest) + len(ours.arrived)
        self.assertLess(taken, 200_000)
        (connection,) = self.dialogue.door().connections
        self.assertIn("held by pipeline", repr(connection))
        for number in range(150):
            heard = self.hear(backend)
            self.assertEqual((heard.count(b"GET /"), heard.count(b"GET /%d " % number)), (1, 1))
            self.say(backend, response("200 OK", "Content-Length: 3", body=b"%03d" % number))
            self.assertTrue(self.hear(self.client).endswith(b"\r\n\r\n%03d" % number))
            rest = self.send_all(rest)
        self.assertIn("held by none", repr(connection))

    def test_flood_of_local_answers(self):
        """Thousands of requests at once that the gateway answers itself are all answered, in order, on the same connection."""
        self.converse()
        self.client.room = 1 << 24
        numbers = range(5000)
        self.say(self.client, b"".join(request("GET", f"/api/gateway/{number}") for number in numbers))
        heard = self.hear(self.client)
        self.assertEqual(heard.count(b"HTTP/1.1 200 OK\r\n"), 5000)
        bodies = [piece.rpartition(b"\r\n\r\n")[2] for piece in heard.split(b"HTTP/1.1 200 OK\r\n")[1:]]
        self.assertEqual(bodies, [b"/api/gateway/%d" % number for number in numbers])
        self.assertFalse(self.client.has_ended)

    def test_flood_behind_an_exchange(self):
        """Thousands of them behind a request that takes its time are answered too."""
        self.converse()
        self.client.room = 1 << 24
        backend = self.ask(request() + self.LOCAL * 3000)
        self.say(backend, OK)
        heard = self.hear(self.client)
        self.assertEqual(heard.count(b"HTTP/1.1 200 OK\r\n"), 3001)
        self.assertEqual(self.dialogue.outcomes().count("dashboard"), 3000)

    def test_flood_to_a_client_that_does_not_read(self):
        """A client that sends requests and reads no answer is not read from without end either."""
        self.converse()
        self.client.room = 1000
        data = self.LOCAL * 20000
        rest = self.send_all(data)
        taken = len(data) - len(rest) - len(self.client.peer.arrived)
        self.assertLess(taken, 300_000)
        self.client.room = 1 << 24
        answers = 0
        while answers < 20000:
            rest = self.send_all(rest)
            answered = self.hear(self.client).count(b"HTTP/1.1 200 OK\r\n")
            self.assertTrue(answered)
            answers += answered
        self.assertEqual(answers, 20000)

    def test_upload_sent_ahead(self):
        """A large upload sent behind another request is read when its turn has come."""
        self.converse()
        backend = self.ask()
        rest = self.send_all(request("POST", "/up", "Content-Length: 2000000", body=b"x" * 2_000_000))
        self.hear(backend)
        self.say(backend, OK)
        received = len(self.hear(backend).partition(b"\r\n\r\n")[2])
        while rest or received < 2_000_000:
            rest = self.send_all(rest)
            self.assertTrue(piece := self.hear(backend))
            received += len(piece)
        self.say(backend, OK)
        self.assertEqual(self.dialogue.outcomes(), ["completed", "completed"])

    def test_large_head_sent_ahead(self):
        """A head larger than what is read ahead is read to its end when its turn has come."""
        self.converse(entrypoint="limits { max_header_bytes = 1000000 }")
        backend = self.ask()
        rest = self.send_all(request("GET", "/large", *[f"X-{number}: {'x' * 2000}" for number in range(100)]))
        self.hear(backend)
        self.say(backend, OK)
        self.send_all(rest)
        self.assertIn(b"GET /large ", self.hear(backend))
        self.say(backend, OK)
        self.assertEqual(self.dialogue.outcomes(), ["completed", "completed"])

    def test_client_leaves_with_requests_ahead(self):
        """What a client sent ahead is forgotten when it leaves."""
        self.converse()
        backend = self.ask(request() + request("GET", "/second"))
        self.hear(backend)
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.dialogue.outcomes(), ["client-closed"])
        self.assertEqual(len(self.dialogue.backends), 1)

    def test_slow_client_before_the_next_connection(self):
        """A client that is slow to take one response holds back the next, though its backend had yet to be connected to."""
        dialogue = self.converse()
        backend = self.ask(request() + request("GET", "/second"))
        self.client.room = 1000
        self.hear(backend)
        self.say(backend, response("200 OK", "Content-Length: 50000", "Connection: close", body=b"x" * 50000))
        # The first exchange is over and the second begun, with most of the first response still to be taken.
        second = dialogue.backend()
        self.assertIsNot(second, backend)
        self.assertIn(b"GET /second ", self.hear(second))
        self.say(second, response("200 OK", "Content-Length: 10000000"))
        sent = 0
        while second.is_writable() and sent < 5_000_000:
            sent += second.send(b"x" * 65536)
            dialogue.reactor.settle()
        self.assertLess(sent, 2_000_000)
        heard = len(self.hear(self.client))
        while heard < 10_050_000:
            if sent < 10_000_000 and second.is_writable():
                sent += second.send(b"x" * min(65536, 10_000_000 - sent))
            self.assertTrue(piece := self.hear(self.client))
            heard += len(piece)
        self.assertEqual(dialogue.outcomes(), ["completed", "completed"])


class LocalAnswerTests(LocalCase):
    """
    Single answers of the gateway itself.
    """

    def test_head(self):
        """A HEAD request to the gateway's own API states the length and sends no body, and the connection stays."""
        self.converse()
        self.say(self.client, request("HEAD", "/api/gateway/x"))
        heard = self.hear(self.client)
        self.assertIn(b"\r\nContent-Length: 14\r\n", heard)
        self.assertTrue(heard.endswith(b"\r\n\r\n"), heard)
        self.say(self.client, self.LOCAL)
        self.assertTrue(self.hear(self.client).endswith(b"\r\n\r\n/api/gateway/x"))

    def test_upload_that_nobody_wants(self):
        """An answer before the end of an upload ends the connection, after the client could read it."""
        self.converse()
        self.say(self.client, request("POST", "/api/gateway/x", "Content-Length: 100000", body=b"x" * 1000))
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 200 OK"), heard)
        self.assertIn(b"\r\nConnection: close\r\n", heard)
        self.say(self.client, b"x" * 50000)
        self.assertEqual((self.client.has_ended, self.client.was_reset), (True, False))

    def test_upload_that_is_here_already(self):
        """An answer to a request whose body has arrived leaves the connection open, and the body is not taken for a request."""
        self.converse()
        for body in (b"Content-Length: 5\r\n\r\nGET /", b"Transfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\nX-T: 1\r\n\r\n"):
            self.say(self.client, b"POST /api/gateway/x HTTP/1.1\r\nHost: a\r\n" + body + self.LOCAL)
            self.assertEqual(self.hear(self.client).count(b"HTTP/1.1 200 OK"), 2)
        self.assertFalse(self.client.has_ended)

    def test_no_route(self):
        """A request that no router wants is answered 404, to HEAD without a body, and the connection stays."""
        self.converse()
        for _ in range(2):
            self.say(self.client, request("OPTIONS", "*"))
            self.assert_refused(404, "no-route")
        self.assertFalse(self.client.has_ended)

    def test_absolute_form(self):
        """A target that names this server in full is served like its path; one for another scheme or host is refused."""
        self.converse()
        backend = self.ask(request("GET", "http://A.test/x?y"))
        self.assertTrue(self.hear(backend).startswith(b"GET /x?y HTTP/1.1\r\nHost: A.test\r\n"))
        self.say(backend, OK)
        self.hear(self.client)
        self.say(self.client, request("GET", "https://a.test/x"))
        self.assert_refused(421, "misdirected")
        self.assertTrue(self.client.has_ended)

    def test_refused_head_without_body(self):
        """A refused HEAD request gets no body if its method could be read."""
        self.converse()
        self.say(self.client, request("HEAD", "https://a.test/x"))
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 421 "), heard)
        self.assertTrue(heard.endswith(b"\r\n\r\n"), heard)

    def test_refusal_records(self):
        """Every refused request has its line in the log, with the reason, and the connection ends."""
        for data, status, word in [
            (b"GET /\r\n\r\n", 400, "request-line-malformed"),
            (b"\x16\x03\x01", 400, "request-line-malformed"),
            (b"GET / HTTP/2.0\r\n\r\n", 505, "version-not-supported"),
            (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501, "method-not-supported"),
            (b"GET / HTTP/1.1\r\n\r\n", 400, "host-missing"),
            (b"GET /%2f HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path-refused"),
            (b"GET /" + b"x" * 9000, 414, "request-line-too-long"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 66000, 431, "headers-too-large"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX_Y: 1\r\n\r\n", 400, "header-name-refused"),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, "length-malformed"),
            (request("POST", "/", "Transfer-Encoding: chunked", body=b"x\r\n"), 400, "chunk-malformed"),
            (request("GET", "https://a.test/"), 421, "misdirected"),
        ]:
            self.converse()
            self.say(self.client, data)
            self.assert_refused(status, word)
            self.assertTrue(self.client.has_ended)
            (line,) = self.lines()
            self.assertEqual((line["status"], line["outcome"], line["client_ip"]), (status, word, "127.0.0.1"))
            self.assertEqual(self.dialogue.backends, [])


class BrokenTable:
    """
    A table of routes with a bug: it fails for paths that begin with `/bug`.
    """

    def __init__(self, table):
        self.table = table

    def match(self, head):
        if head.path.startswith(b"/bug"):
            raise ZeroDivisionError
        return self.table.match(head)


class BrokenBalancer:
    """
    A balancer with a bug: it fails when it is asked for the `turn`-th time.
    """

    def __init__(self, turn):
        self.turn = turn

    def choose(self, candidates, record):
        self.turn -= 1
        if not self.turn:
            raise ZeroDivisionError
        return candidates[0]


class OneRoute:
    """
    A table that sends everything to one service.
    """

    def __init__(self, service, series):
        self.route = Route("app", service, series)

    def match(self, head):
        return self.route


class BugTests(LocalCase):
    """
    What a bug within an exchange costs.
    """

    def break_table(self):
        entrypoint = self.dialogue.door().entrypoint
        entrypoint.table = BrokenTable(entrypoint.table)

    def break_balancer(self, turn):
        entrypoint = self.dialogue.door().entrypoint
        old = self.dialogue.carrier.generation().services["app"]
        reactor = self.dialogue.reactor
        group = Group(old.backends, BrokenBalancer(turn))
        service = Service("app", "broken", [group], ServiceSettings(), reactor.seconds, reactor.callLater)
        service.begin({})
        entrypoint.table = OneRoute(service, entrypoint.series)

    def assert_logged_once(self):
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_bug(self):
        """The exchange is answered 500 and reported once; its neighbours and the next connection notice nothing."""
        dialogue = self.converse()
        self.break_table()
        neighbour = dialogue.connect()
        self.say(neighbour, request())
        backend = dialogue.backend()
        self.say(self.client, request("GET", "/bug"))
        self.assert_refused(500, "internal-error")
        self.assert_logged_once()
        self.assertTrue(self.client.has_ended)
        self.say(backend, OK)
        self.assertTrue(self.hear(neighbour).endswith(b"ok"))
        self.assertEqual(dialogue.outcomes(), ["completed", "internal-error"])
        neighbour.close()

    def test_bug_behind_another_exchange(self):
        """A bug in a request sent ahead costs neither the exchange before it nor that one's connection to the backend."""
        dialogue = self.converse()
        self.break_table()
        backend = self.ask(request() + request("GET", "/bug"))
        self.hear(backend)
        self.say(backend, OK)
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 200 OK\r\n"), heard)
        self.assertIn(b"\r\n\r\nokHTTP/1.1 500 ", heard)
        self.assert_logged_once()
        self.assertEqual(dialogue.outcomes(), ["completed", "internal-error"])
        self.assertFalse(backend.was_reset)
        self.assertTrue(self.client.has_ended)

    def test_bug_behind_congestion(self):
        """The same when the request before it had to wait until the client had taken its response."""
        dialogue = self.converse()
        self.break_table()
        backend = self.ask(request() + request("GET", "/bug"))
        self.hear(backend)
        self.client.room = 1000
        self.say(backend, response("200 OK", "Content-Length: 10000", body=b"x" * 10000))
        heard = b""
        for _ in range(20):
            heard += self.hear(self.client)
        self.assertTrue(b"xHTTP/1.1 500 " in heard)
        self.assert_logged_once()
        self.assertEqual(dialogue.outcomes(), ["completed", "internal-error"])

    def test_bug_in_a_balancer(self):
        """A balancer that fails costs the exchange, whether at the first choice or at the next."""
        for turn in (1, 2):
            dialogue = self.converse(answers_dials=False, servers=2)
            self.break_balancer(turn)
            self.say(self.client, request())
            for attempt in list(dialogue.attempts):
                attempt.fail()
            self.assert_refused(500, "internal-error")
            self.assert_logged_once()
            dialogue.assert_clean(self)


class DrainTests(LocalCase):
    """
    The end of a connection whose door is closing.
    """

    def drain(self):
        self.dialogue.door().drain()

    def assert_over(self):
        self.assertEqual((self.client.has_ended, self.client.was_reset), (True, False))
        self.assertEqual(self.hear(self.client), b"")

    def assert_last_answer(self):
        self.say(self.dialogue.backend(), OK)
        heard = self.hear(self.client)
        self.assertTrue(heard.endswith(b"ok"), heard)
        self.assertIn(b"\r\nConnection: close\r\n", heard)
        self.assertTrue(self.client.has_ended)

    def test_idle(self):
        """An idle connection is closed at once, whether it has asked before or not."""
        for asks in (False, True):
            self.converse()
            if asks:
                self.say(self.ask(), OK)
                self.hear(self.client)
            else:
                self.dialogue.reactor.advance(1)
            self.drain()
            self.dialogue.reactor.settle()
            self.assert_over()

    def test_just_come(self):
        """Who came a moment ago may ask once, and is let go when the moment is over."""
        self.converse()
        other = self.dialogue.connect()
        self.dialogue.reactor.advance(0.4)
        self.drain()
        self.dialogue.reactor.advance(0.4)
        self.assertFalse(self.client.has_ended or other.has_ended)
        self.say(other, request())
        self.client, self.silent = other, self.client
        self.assert_last_answer()
        self.assertFalse(self.silent.has_ended)
        self.dialogue.reactor.advance(0.8)
        self.client = self.silent
        self.assert_over()

    def test_half_a_head(self):
        """Who has begun to ask may end it, in the time there is for a head."""
        whole = request()
        self.converse()
        self.say(self.client, whole[:20])
        self.dialogue.reactor.advance(2)
        self.drain()
        self.dialogue.reactor.advance(2)
        self.assertFalse(self.client.has_ended)
        self.say(self.client, whole[20:])
        self.assert_last_answer()

    def test_half_a_head_for_too_long(self):
        """Who has begun to ask and does not end it is told when its time is over, and the log has what came."""
        self.converse()
        self.say(self.client, b"HEAD /half HTTP/1.1\r\nHo")
        self.drain()
        self.dialogue.reactor.advance(60)
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 408 "), heard)
        self.assertTrue(heard.endswith(b"\r\n\r\n"), heard)
        self.assertTrue(self.client.has_ended)
        self.assertEqual(self.dialogue.outcomes(), ["request-timeout"])

    def test_busy(self):
        """A connection in use gets its response, which says that it is the last."""
        self.converse()
        backend = self.ask()
        self.hear(backend)
        self.drain()
        self.dialogue.reactor.settle()
        self.assertFalse(self.client.has_ended)
        self.say(backend, OK)
        heard = self.hear(self.client)
        self.assertTrue(heard.endswith(b"ok"), heard)
        self.assertIn(b"\r\nConnection: close\r\n", heard)
        self.assertTrue(self.client.has_ended)

    def test_amid_a_response(self):
        """A connection whose response had begun already ends with it."""
        self.converse()
        backend = self.ask()
        self.say(backend, response("200 OK", "Content-Length: 10", body=b"half"))
        self.drain()
        self.dialogue.reactor.settle()
        self.assertFalse(self.client.has_ended)
        self.say(backend, b" other")
        self.assertTrue(self.hear(self.client).endswith(b"half other"))
        self.assertTrue(self.client.has_ended)

    def test_request_just_arrived(self):
        """A request that arrived but was not read yet is served."""
        self.converse()
        self.client.send(request("GET", "/last"))
        self.drain()
        backend = self.dialogue.backend()
        self.assertIn(b"GET /last ", self.hear(backend))
        self.say(backend, OK)
        heard = self.hear(self.client)
        self.assertIn(b"\r\nConnection: close\r\n", heard)
        self.assertTrue(heard.endswith(b"ok"))

    def test_stop(self):
        """When the time is over, a request without an answer is answered 503 and a response in progress broken off."""
        for answer in (b"", response("200 OK", "Content-Length: 10", body=b"half")):
            self.converse()
            backend = self.ask()
            self.hear(backend)
            if answer:
                self.say(backend, answer)
            self.drain()
            self.assertEqual(self.dialogue.door().abort(), 1)
            if answer:
                self.dialogue.reactor.settle()
                self.assertTrue(self.client.was_reset)
                self.assertEqual(self.dialogue.outcomes(), ["shutting-down"])
            else:
                self.assert_refused(503, "shutting-down")
            self.assertTrue(backend.was_reset)
