"""
Dialogues with a service whose requests are copied for another one: what is copied, and that nobody but the shadow ever notices.
"""

import socket
from itertools import pairwise

from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import ILessee
from a3sgw.proxy.mirror import Copy
from a3sgw.proxy.test.dialogues import OK, DialogueCase, config, request, response
from a3sgw.testing import Dialogue

RESET = b"\1\0\0\0\0\0\0\0"
CHUNKED = response("200 OK", "Transfer-Encoding: chunked", body=b"2\r\nok\r\n0\r\nX-T: 1\r\n\r\n")
UPLOAD = request("POST", "/up?a=b", "X-Request-Id: one", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n")
REST = b"2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n"


def shadow(service="", urls=("http://192.0.2.9",), balancing=""):
    """
    Return the block of a service called `shadow`.
    """
    servers = ", ".join(f'{{ url = "{url}" }}' for url in urls)
    return f'services "shadow" {{\n load_balancer {{\n servers = [{servers}]\n {balancing}\n }}\n {service}\n}}\n'


def mirrored(mirror="", *, service="", more=None, **settings):
    """
    Return a configuration whose service is copied to `shadow`, on these terms.
    """
    block = f'mirror {{\n service = "shadow"\n {mirror}\n }}\n {service}'
    return config(service=block, more=shadow() if more is None else more, **settings)


class MirrorCase(DialogueCase):
    """
    A dialogue with a service that has a shadow. The dialogue's end must find every copy at its end.
    """

    def talk(self, text=None, *, answers_dials=True):
        self.dialogue = Dialogue(mirrored() if text is None else text, answers_dials=answers_dials)
        self.client = self.dialogue.connect()
        self.say, self.hear = self.dialogue.say, self.dialogue.hear

    def tearDown(self):
        dialogue = getattr(self, "dialogue", None)
        if dialogue is not None:
            super().tearDown()
            for service in dialogue.carrier.generation().services.values():
                if service.traits.mirror is not None:
                    self.assertEqual(service.traits.mirror._copies, set())
            watched = dialogue.dialer_deadlines.watched()
            self.assertEqual([each for each in watched if isinstance(each, Copy)], [])

    def mirror(self):
        return self.dialogue.carrier.generation().services["app"].traits.mirror

    def copies(self):
        """
        Return how many copies are under way.
        """
        return len(self.mirror()._copies)

    def told(self):
        """
        Return what became of requests to copy, without what became of none.
        """
        result = []
        self.dialogue.carrier.snapshot().addCallback(result.append)
        (counts,) = [row["copies"] for row in result[0]["gauges"]["services"] if row["service"] == "app"]
        return {name: count for name, count in counts.items() if count}

    def both(self):
        """
        Let connections be made, to the server first, then to its shadow; return their ends.
        """
        ends = {}
        while self.dialogue.attempts:
            address = self.dialled()[0]
            ends[address] = self.dialogue.attempts[0].succeed()
            self.dialogue.reactor.settle()
        return ends.get("192.0.2.1"), ends.get("192.0.2.9")

    def dialled(self):
        """
        Return the addresses of everybody who is being connected to.
        """
        return [attempt.addresses[0][1][0] for attempt in self.dialogue.attempts]

    def connect_server(self):
        """
        Let the server be connected to, so that there is a copy, whose connection waits.
        """
        server = self.dialogue.attempts[0].succeed()
        self.dialogue.reactor.settle()
        return server

    def begin(self, data=None, text=None):
        """
        Send a request; return the ends of the connections it and its copy went to.
        """
        self.talk(text, answers_dials=False)
        self.say(self.client, request() if data is None else data)
        return self.both()

    def leave(self, end, *, resets=False):
        end.take()
        if resets:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        end.close()
        self.dialogue.reactor.settle()


class CopyTests(MirrorCase):
    """
    What is copied.
    """

    def test_interface(self):
        """A copy is a lessee of connections."""
        self.begin()
        (copy,) = self.mirror()._copies
        verifyObject(ILessee, copy)
        self.assertRegex(repr(copy), r"^<Copy <RequestHead b'GET' b'a\.test' b'/'> to <Backend shadow http://192\.0\.2\.9 .*, attempt 1>$")
        self.assertRegex(repr(self.mirror()), r"^<Mirror to shadow, <Sampler 100%>, 1 under way>$")

    def test_whole_request(self):
        """A copy is what the server gets, after all middlewares, with the same id, and marked; the answer is the server's."""
        middleware = 'type = "headers"\nrequest_headers = { X-Added = "yes" }'
        data = request("PUT", "/a%20b?c", "X-Shadow: mine", "x-shadow: again", "X-One: 1", "Content-Length: 3", body=b"abc")
        server, copied = self.begin(data, mirrored(middlewares=[middleware]))
        lines = self.hear(server).split(b"\r\n")
        self.assertIn(b"X-Added: yes", lines)
        kept = [line for line in lines if not line.lower().startswith(b"x-shadow")]
        told = self.hear(copied).split(b"\r\n")
        self.assertEqual([line for line in told if line != b"X-Shadow: true"], kept)
        self.assertEqual(told.count(b"X-Shadow: true"), 1)
        self.assertTrue(any(line.startswith(b"X-Request-Id: ") for line in told))
        self.say(copied, response("500 Oops", "Content-Length: 4", body=b"oops"))
        self.say(server, OK)
        self.assertTrue(self.hear(self.client).endswith(b"ok"))
        self.assertEqual(self.told(), {"sent": 1})

    def test_host(self):
        """The host and the path before the request's are those of the shadow's settings."""
        for extra, host in (("", b"a.test"), ("pass_host_header = false", b"192.0.2.9:81")):
            _, copied = self.begin(text=mirrored(more=shadow(extra, ["http://192.0.2.9:81/base"])))
            self.assertTrue(self.hear(copied).startswith(b"GET /base/ HTTP/1.1\r\nHost: %b\r\n" % host))
            self.tearDown()

    def test_body_as_it_comes(self):
        """A copy follows the body piece by piece, with its trailers."""
        server, copied = self.begin(UPLOAD)
        for end in (server, copied):
            self.assertTrue(self.hear(end).endswith(b"\r\n\r\n3\r\nabc\r\n"))
        for piece in (REST[:7], REST[7:]):
            self.say(self.client, piece)
            self.assertEqual(self.hear(copied), self.hear(server) or b"never")
        self.say(server, OK)
        self.assertTrue(self.hear(self.client).endswith(b"ok"))
        self.say(copied, OK)
        self.assertEqual(self.told(), {"sent": 1})

    def test_body_before_connection(self):
        """What comes while the shadow is being connected to is not lost."""
        self.talk(answers_dials=False)
        self.say(self.client, UPLOAD)
        self.connect_server()
        self.say(self.client, REST)
        _, copied = self.both()
        self.assertTrue(self.hear(copied).endswith(b"\r\n\r\n5\r\nabcde\r\n0\r\nX-Sum: 1\r\n\r\n"))

    def percentage(self, percent, requests):
        """
        Return for each request whether it was copied.
        """
        self.talk(mirrored(f"percentage = {percent}"))
        copied = []
        for _ in range(requests):
            self.say(self.client, request())
            heard = [(end, self.hear(end)) for end in self.dialogue.backends]
            copied.append(any(b"X-Shadow: true" in data for _, data in heard))
            for end, data in heard:
                if data:
                    self.say(end, OK)
            self.assertTrue(self.hear(self.client).endswith(b"ok"))
        return copied

    def test_percentage(self):
        """Exactly as many requests are copied as was asked for, at even distances."""
        copied = self.percentage(12.5, 1000)
        self.assertEqual(copied.count(True), 125)
        places = [at for at, each in enumerate(copied) if each]
        self.assertEqual({after - before for before, after in pairwise(places)}, {8})
        self.assertEqual(self.told(), {"sent": 125})

    def test_uneven_percentages(self):
        """Percentages with decimals are exact too."""
        for percent, requests, expected in ((0, 20, 0), (0.5, 200, 1), (33.3, 100, 33), (100, 20, 20)):
            self.assertEqual(self.percentage(percent, requests).count(True), expected, percent)
            self.tearDown()

    def test_pipelining(self):
        """Requests sent ahead are copied one after the other, and connections are kept for the next."""
        self.talk()
        self.say(self.client, b"".join(request("GET", f"/{number}") for number in range(3)))
        server, copied = self.dialogue.backends
        for number in range(3):
            for end in (copied, server):
                self.assertTrue(self.hear(end).startswith(b"GET /%d HTTP/1.1\r\n" % number))
                self.say(end, OK)
        self.assertEqual(self.hear(self.client).count(b"\r\n\r\nok"), 3)
        self.assertEqual((len(self.dialogue.backends), self.told()), (2, {"sent": 3}))

    def test_copies_do_not_wait_for_each_other(self):
        """A copy that is not answered yet does not keep the next one waiting."""
        self.talk()
        for number in range(3):
            self.say(self.client, request("GET", f"/{number}"))
            self.hear(self.dialogue.backends[0])
            self.say(self.dialogue.backends[0], OK)
        self.assertEqual([self.hear(end)[:6] for end in self.dialogue.backends[1:]], [b"GET /0", b"GET /1", b"GET /2"])
        self.assertEqual(self.copies(), 3)

    def test_no_answer_is_waited_for(self):
        """The answer is sent as it comes, with the shadow still silent; and its own ends nowhere."""
        server, copied = self.begin()
        self.say(server, OK)
        heard = self.hear(self.client)
        self.assertTrue(heard.endswith(b"ok"))
        self.say(copied, response("103 Hints", "Link: x") + response("500 Oops", "Set-Cookie: x=y", "Content-Length: 3", body=b"bad"))
        self.assertEqual(self.hear(self.client), b"")

    def test_after_the_request_itself(self):
        """Nothing is done for a copy before the request has left."""
        self.talk()
        self.say(self.client, request())
        for end in self.dialogue.backends:
            self.hear(end)
            self.say(end, OK)
        server, copied = self.dialogue.backends
        self.client.send(request())
        (connection,) = self.dialogue.door().connections
        connection._stream.doRead()
        self.dialogue.reactor.flushes.run()
        self.assertTrue(server.take())
        self.assertEqual(copied.take(), b"")
        self.assertTrue(self.hear(copied))

    def test_first_server_refuses(self):
        """A request whose first server cannot be reached is copied when the next one gets it, and only once."""
        self.talk(mirrored(servers=2), answers_dials=False)
        self.say(self.client, request())
        self.dialogue.attempts[0].fail()
        self.assertEqual(self.dialled(), ["192.0.2.2"])
        self.connect_server()
        self.assertEqual(self.dialled(), ["192.0.2.9"])

    def test_repeated(self):
        """A request that is sent again is copied once, with all of its body."""
        retry = 'type = "retry"\nmax_retries = 3\nretry_interval_ms = 1000'
        server, copied = self.begin(request("PUT", "/", "Content-Length: 6", body=b"ab"), mirrored(middlewares=[retry]))
        self.leave(server)
        self.say(self.client, b"cd")
        self.dialogue.reactor.advance(2)
        server, _ = self.both()
        self.say(self.client, b"ef")
        self.assertTrue(self.hear(server).endswith(b"\r\n\r\nabcdef"))
        self.assertTrue(self.hear(copied).endswith(b"\r\n\r\nabcdef"))
        self.assertEqual(self.dialogue.attempts, [])
        self.say(server, OK)
        self.say(copied, OK)
        self.assertEqual(self.told(), {"sent": 1})

    def test_other_servers(self):
        """A shadow may have several servers; the next is asked when one cannot be reached."""
        self.talk(mirrored(more=shadow(urls=["http://192.0.2.8", "http://192.0.2.9"])), answers_dials=False)
        self.say(self.client, request())
        self.connect_server()
        self.assertEqual(self.dialled(), ["192.0.2.8"])
        self.dialogue.attempts[0].fail()
        _, copied = self.both()
        self.assertIn(b"X-Shadow: true", self.hear(copied))

    def test_kept_connection_is_gone(self):
        """A kept connection that the shadow has closed a moment ago is not taken for a copy."""
        self.talk()
        self.say(self.client, request("POST"))
        server, copied = self.dialogue.backends
        for end in (server, copied):
            self.hear(end)
            self.say(end, OK)
        self.client.send(request())
        (connection,) = self.dialogue.door().connections
        connection._stream.doRead()
        copied.close()
        self.dialogue.reactor.settle()
        self.assertIn(b"X-Shadow: true", self.hear(self.dialogue.backends[2]))

    def test_own_mirror(self):
        """The shadow's own mirror copies no copies."""
        first = shadow('mirror { service = "third" }')
        third = shadow(urls=["http://192.0.2.7"]).replace('"shadow"', '"third"')
        self.talk(mirrored(more=first + third))
        self.say(self.client, request())
        self.assertEqual(len(self.dialogue.backends), 2)


class AccidentTests(MirrorCase):
    """
    Whatever the shadow does, the server and the client hear what they hear without one.
    """

    GARBAGE = (
        b"\0" * 20,
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX-Large: " + b"x" * 70_000,
        b"HTTP/1.1 103 Hints\r\n\r\n" * 1000,
        OK + OK,
    )
    FLOODS = (
        response("200 OK", body=b"x" * 500_000),
        response("200 OK", "Transfer-Encoding: chunked", body=b"10000\r\n%b\r\n" % (b"x" * 65536) * 8),
        response("200 OK", "Content-Length: 9999999", body=b"x" * 500_000),
    )

    def converse_beside(self, text, accident=None, at=0):
        """
        Upload, be answered, and ask once more, while the shadow is struck by an `accident` at one of six moments; return everything that
        server and client heard. The accident is given the shadow's end, or the attempt to reach it.
        """
        self.talk(text, answers_dials=False)
        self.copied = server = None
        said = [(0, UPLOAD), (0, REST), (1, CHUNKED[:70]), (1, CHUNKED[70:]), (0, request("GET", "/", "X-Request-Id: two")), (1, OK)]
        heard = []
        for moment, (who, data) in enumerate(said):
            self.say(server if who else self.client, data)
            if server is None:
                server = self.dialogue.attempts[0].succeed()
                self.dialogue.reactor.settle()
            if accident is not None and moment == at:
                accident(self)
            heard.append((self.hear(server), self.hear(self.client)))
        return heard

    def connected(self):
        """
        Return the shadow's end, which is connected to if it was not yet.
        """
        if self.copied is None and self.dialogue.attempts:
            self.copied = self.dialogue.attempts[0].succeed()
            self.dialogue.reactor.settle()
        return self.copied

    def check(self, accident, moments=range(6), mirror="", told=None):
        self.plain = getattr(self, "plain", None) or self.converse_beside(config())
        for at in moments:
            self.tearDown()
            heard = self.converse_beside(mirrored(mirror), accident, at)
            self.assertEqual(heard, self.plain, at)
            self.client.close()
            self.dialogue.reactor.advance(200)
            self.assertEqual(sum(self.told().values()), 2, self.told())
            if told is not None:
                self.assertEqual(self.told(), told)

    def test_well_behaved(self):
        """The shadow answers as it should."""

        def answer(case):
            case.hear(case.connected())
            case.say(case.copied, CHUNKED)

        self.check(answer, [1, 2, 3])

    def test_refuses(self):
        """The shadow cannot be connected to."""
        for outcome in (Outcome.CONNECT_REFUSED, Outcome.CONNECT_TIMEOUT, Outcome.DNS_ERROR):
            self.check(lambda case, outcome=outcome: case.dialogue.attempts[0].fail(outcome), told={"failed": 2})

    def test_silence(self):
        """The shadow does not answer, or does not even read."""

        def be_silent(case):
            case.connected().room = 0

        self.check(lambda case: None, [0], told={"failed": 2})
        self.check(AccidentTests.connected, told={"failed": 2})
        self.check(be_silent, told={"failed": 2})

    def test_breaks_off(self):
        """The shadow breaks off at any byte of its answer, in order or not."""
        for answer in (OK, CHUNKED):
            for cut in range(len(answer)):
                for resets in (False, True):

                    def break_off(case, answer=answer, cut=cut, resets=resets):
                        case.hear(case.connected())
                        if cut:
                            case.say(case.copied, answer[:cut])
                        case.leave(case.copied, resets=resets)

                    self.check(break_off, [(1, 0, 3)[cut % 3]], told={"failed": 2})

    def test_garbage(self):
        """The shadow answers with what is no answer, or more than one."""
        for garbage in self.GARBAGE:

            def talk_nonsense(case, garbage=garbage):
                case.hear(case.connected())
                case.say(case.copied, garbage)

            self.check(talk_nonsense, [0, 1, 5])

    def test_floods(self):
        """The shadow sends more than anybody wants to read, for as long as the copy may take."""
        for flood in self.FLOODS:

            def pour(case, flood=flood):
                case.hear(case.connected())
                case.say(case.copied, flood)

            self.check(pour, [0, 1, 3], told={"failed": 2})

    def test_answers_early(self):
        """The shadow answers before it has had the whole request."""

        def answer(case):
            case.hear(case.connected())
            case.say(case.copied, OK)

        self.check(answer, [0])

    def test_smallest_terms(self):
        """Copies that may hardly be made at all."""
        for terms, told in (
            ("max_in_flight = 1", {"failed": 1, "skipped": 1}),
            ("max_body_bytes = 0", {"dropped": 1, "failed": 1}),
            ('timeout = "1ms"', {"failed": 2}),
            ("percentage = 50", {"failed": 1}),
        ):
            self.plain = self.converse_beside(config())
            self.tearDown()
            self.assertEqual(self.converse_beside(mirrored(terms)), self.plain, terms)
            self.dialogue.reactor.advance(200)
            self.assertEqual(self.told(), told, terms)
            self.tearDown()


class BoundTests(MirrorCase):
    """
    What copies may cost.
    """

    def upload(self, terms, *, room, size=200_000, step=20_000, patience=0):
        """
        Upload `size` bytes in steps to a shadow that takes `room` bytes at a time, `patience` times in each step; return what the shadow
        heard of the body.
        """
        server, copied = self.begin(request("POST", "/", f"Content-Length: {size}"), mirrored(terms))
        heads = [self.hear(end) for end in (server, copied)]
        copied.room = room
        uploaded = heard = b""
        (copy,) = self.mirror()._copies
        for at in range(0, size, step):
            self.say(self.client, b"%06d" % at + b"x" * (step - 6))
            uploaded += self.hear(server)
            for _ in range(patience):
                heard += self.hear(copied)
            self.assertLessEqual(len(copy._behind), self.mirror().max_body_bytes)
        self.assertEqual(len(uploaded), size)
        self.assertTrue(heads[1].endswith(b"Content-Length: %d\r\n\r\n" % size))
        self.say(server, OK)
        self.assertTrue(self.hear(self.client).endswith(b"ok"))
        while self.copies() and (piece := self.hear(copied)):
            heard += piece
        self.assertIn(self.told(), ({}, {"dropped": 1}))
        self.assertTrue(uploaded.startswith(heard))
        self.copied = copied
        return heard

    def test_slow_shadow(self):
        """A shadow may take the body more slowly than it comes, as long as what waits is within bounds."""
        heard = self.upload("max_body_bytes = 200000", room=10_000)
        self.assertEqual(len(heard), 200_000)
        self.say(self.copied, OK)
        self.assertEqual(self.told(), {"sent": 1})

    def test_shadow_that_keeps_up(self):
        """A body may be larger than what may wait of it."""
        self.assertEqual(len(self.upload("max_body_bytes = 30000", room=20_000, patience=2)), 200_000)

    def test_too_slow(self):
        """A copy that lags too far behind is given up, and the shadow can tell."""
        heard = self.upload("max_body_bytes = 50000", room=10_000)
        self.assertLess(len(heard), 200_000)
        self.assertEqual(self.told(), {"dropped": 1})
        self.assertTrue(self.copied.was_reset)

    def test_not_connected_in_time(self):
        """The same holds while the shadow is still being connected to."""
        self.talk(mirrored("max_body_bytes = 1000"), answers_dials=False)
        self.say(self.client, request("POST", "/", "Content-Length: 2000", body=b"x" * 1000))
        server = self.connect_server()
        self.assertEqual(self.dialled(), ["192.0.2.9"])
        self.say(self.client, b"x")
        self.assertEqual((self.dialled(), self.told()), ([], {"dropped": 1}))
        self.say(self.client, b"x" * 999)
        self.assertTrue(self.hear(server).endswith(b"x" * 2000))

    def test_many_small_pieces(self):
        """A body of many tiny pieces needs no more memory than one of a few large ones."""
        _, copied = self.begin(request("POST", "/", "Transfer-Encoding: chunked"), mirrored("max_body_bytes = 300"))
        copied.room = 0
        self.hear(copied)
        for _ in range(200):
            self.say(self.client, b"1\r\nx\r\n")
        (copy,) = self.mirror()._copies
        self.assertLess(copy._behind.__sizeof__(), 1000)
        copied.room = 1 << 20
        self.assertEqual(self.hear(copied).count(b"x"), 200)

    def test_in_flight(self):
        """So many copies are under way at a time; others are left out, and count as such."""
        self.talk(mirrored("max_in_flight = 2"))
        server = None
        for _ in range(4):
            self.say(self.client, request())
            server = server or self.dialogue.backends[0]
            self.hear(server)
            self.say(server, OK)
        self.assertEqual((self.copies(), self.told()), (2, {"skipped": 2}))
        for end in self.dialogue.backends[1:]:
            self.hear(end)
        self.say(self.dialogue.backends[1], OK)
        self.say(self.client, request())
        self.assertEqual((self.copies(), self.told()), (2, {"skipped": 2, "sent": 1}))
        self.assertIn(b"X-Shadow: true", self.hear(self.dialogue.backends[1]))

    def test_time(self):
        """A copy that takes too long is given up, whatever it is at."""
        server, copied = self.begin(text=mirrored('timeout = "5s"'))
        self.say(server, OK)
        self.dialogue.reactor.advance(4)
        self.assertEqual(self.copies(), 1)
        self.say(copied, response("200 OK", "Content-Length: 100", body=b"x"))
        self.dialogue.reactor.advance(1.5)
        self.assertEqual((self.copies(), self.told()), (0, {"failed": 1}))
        self.assertTrue(copied.was_reset)


class EndTests(MirrorCase):
    """
    When copies end with their exchange, and when they go on.
    """

    def test_client_leaves_in_time(self):
        """A request that breaks off takes its copy with it."""
        _, copied = self.begin(UPLOAD)
        self.hear(copied)
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertTrue(copied.was_reset)
        self.assertEqual((self.copies(), self.told()), (0, {"aborted": 1}))

    def test_client_leaves_early(self):
        """A request that breaks off before the shadow is connected to leaves nothing behind."""
        self.talk(answers_dials=False)
        self.say(self.client, UPLOAD)
        self.connect_server()
        self.assertEqual(self.dialled(), ["192.0.2.9"])
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertEqual((self.dialled(), self.told()), ([], {"aborted": 1}))

    def test_client_leaves_afterwards(self):
        """A request that was whole is copied, even if the client does not wait for its answer."""
        server, copied = self.begin()
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertTrue(server.was_reset)
        self.hear(copied)
        self.say(copied, OK)
        self.assertEqual(self.told(), {"sent": 1})

    def test_answered_early(self):
        """A request that is answered before it is whole takes its copy with it."""
        server, copied = self.begin(UPLOAD)
        self.say(server, OK)
        self.assertTrue(copied.was_reset)
        self.assertEqual(self.told(), {"aborted": 1})

    def test_refused_late(self):
        """A request whose last piece a middleware does not let pass takes its copy with it."""
        limit = 'type = "body-limit"\nmax_body_bytes = 4'
        _, copied = self.begin(UPLOAD, mirrored(middlewares=[limit]))
        self.say(self.client, REST)
        self.assertIn(b"HTTP/1.1 413 ", self.hear(self.client))
        self.assertTrue(copied.was_reset)
        self.assertEqual(self.told(), {"aborted": 1})

    def test_server_fails(self):
        """A request that fails is copied all the same."""
        server, copied = self.begin(request("POST"))
        self.leave(server)
        self.assert_refused(502, "backend-closed")
        self.hear(copied)
        self.say(copied, OK)
        self.assertEqual(self.told(), {"sent": 1})

    def test_slow_client(self):
        """A client that does not take its answer keeps no copy, and the copy's answer waits for nobody."""
        server, copied = self.begin()
        self.client.room = 0
        self.say(copied, response("200 OK", "Content-Length: 100000", body=b"x" * 100_000))
        self.assertEqual(self.told(), {"sent": 1})
        self.say(server, response("200 OK", "Content-Length: 100000", body=b"x" * 100_000))
        self.client.room = 1 << 20
        self.assertTrue(self.hear(self.client).endswith(b"x" * 100_000))

    def test_slow_server(self):
        """A client that is held back for the server is held back for its copy no more than that."""
        server, copied = self.begin(request("POST", "/", "Content-Length: 400000"))
        self.hear(server)
        server.room = 1000
        heard = self.hear(copied).partition(b"\r\n\r\n")[2]
        left = b"x" * 400_000
        self.client.peer.room = 100_000
        for _ in range(1000):
            try:
                left = left[self.client.send(left) if left else 0 :]
            except BlockingIOError:
                pass
            heard += self.hear(copied)
            self.hear(server)
        self.assertEqual((len(left), len(heard)), (0, 400_000))


class VerdictTests(MirrorCase):
    """
    What the shadow's servers are thought of.
    """

    RULES = "passive_health { consecutive_errors = 1 }"

    def watch(self, terms=""):
        return mirrored(terms, more=shadow(urls=["http://192.0.2.9", "http://192.0.2.8"], balancing=self.RULES))

    def is_used(self):
        return self.dialogue.carrier.generation().services["shadow"].backends[0].is_usable

    def test_fails(self):
        """A server that fails copies is set aside like any other."""
        for accident in (
            lambda copied: self.say(copied, response("503 No", "Content-Length: 0")),
            self.leave,
            lambda copied: self.dialogue.reactor.advance(3),
        ):
            _, copied = self.begin(text=self.watch('timeout = "2s"'))
            self.hear(copied)
            self.assertTrue(self.is_used())
            accident(copied)
            self.assertFalse(self.is_used())
            self.tearDown()

    def test_not_its_fault(self):
        """What the client, or the gateway's own bounds, cut short says nothing about the server."""
        for terms, accident in (
            ('timeout = "2s"', lambda copied: self.dialogue.reactor.advance(3)),
            ("", lambda copied: self.client.close()),
            ("max_body_bytes = 3", lambda copied: self.say(self.client, REST)),
        ):
            _, copied = self.begin(UPLOAD, self.watch(terms))
            copied.room = 0
            accident(copied)
            self.dialogue.reactor.settle()
            self.assertTrue(self.is_used())
            self.tearDown()


class ReloadTests(MirrorCase):
    """
    What a reload does to copies.
    """

    def test_something_else(self):
        """Copies and their counts survive a reload that leaves the mirror alone."""
        _, copied = self.begin(UPLOAD)
        self.dialogue.reload(mirrored(service='timeouts { idle = "7s" }'))
        self.say(self.client, REST)
        self.assertTrue(self.hear(copied).endswith(b"0\r\nX-Sum: 1\r\n\r\n"))
        self.say(copied, OK)
        self.assertEqual((self.copies(), self.told()), (0, {"sent": 1}))

    def test_other_terms(self):
        """Copies made on other terms are given up, and what was counted stays."""
        server, copied = self.begin(UPLOAD)
        self.dialogue.reload(mirrored("percentage = 50"))
        self.assertTrue(copied.was_reset)
        self.say(self.client, REST)
        self.hear(server)
        self.say(server, OK)
        self.assertTrue(self.hear(self.client).endswith(b"ok"))
        self.assertEqual((self.copies(), self.told()), (0, {"aborted": 1}))

    def test_no_mirror_any_more(self):
        """Requests under way go on without their copies, and none that waits for its server is copied later."""
        self.talk(answers_dials=False)
        self.say(self.client, request())
        self.dialogue.reload(config(more=shadow()))
        server, copied = self.both()
        self.assertIsNone(copied)
        self.say(server, OK)
        self.assertTrue(self.hear(self.client).endswith(b"ok"))

    def test_other_shadow(self):
        """A shadow with other servers gets the copies from now on."""
        server, _ = self.begin()
        self.hear(server)
        self.say(server, OK)
        self.dialogue.reload(mirrored(more=shadow(urls=["http://192.0.2.7"])))
        self.say(self.client, request())
        self.assertEqual(self.dialled(), ["192.0.2.7"])
        self.dialogue.attempts[0].fail()

    def test_stop(self):
        """A gateway that stops leaves no copy behind."""
        server, _ = self.begin()
        self.say(server, OK)
        self.client.close()
        done = []
        self.dialogue.carrier.drain(5).addCallback(done.append)
        self.dialogue.reactor.advance(1)
        self.assertEqual((done, self.copies(), self.dialogue.dialer_deadlines.watched()), ([0], 0, []))
        self.dialogue = None


class Broken:
    """
    A balancer, or a watch, that raises at everything it is asked.
    """

    def choose(self, candidates, record):
        raise ZeroDivisionError

    begin = end = choose


class Forgetful:
    """
    A watch that raises when an attempt ends.
    """

    def begin(self):
        return 0

    def end(self, ticket, outcome, status, seconds):
        raise ZeroDivisionError


class BugTests(MirrorCase):
    """
    A bug costs the copy, and nobody else.
    """

    def check(self, breaking):
        self.talk()
        breaking(self.dialogue.carrier.generation().services["shadow"])
        self.say(self.client, UPLOAD)
        self.say(self.client, REST)
        for end in list(self.dialogue.backends):
            self.hear(end)
            self.say(end, OK)
        self.assertTrue(self.hear(self.client).endswith(b"ok"))
        self.assertTrue(self.flushLoggedErrors())
        self.assertEqual(self.copies(), 0)
        self.dialogue.assert_clean(self)

    def test_balancer(self):
        """A balancer that raises is reported."""

        def breaking(service):
            service.groups[0]._balancer = Broken()

        self.check(breaking)

    def test_watch(self):
        """So is a watch on a server."""
        for watch in (Broken(), Forgetful()):

            def breaking(service, watch=watch):
                service.backends[0].watch = watch

            self.check(breaking)
            self.tearDown()
            self.dialogue = None
