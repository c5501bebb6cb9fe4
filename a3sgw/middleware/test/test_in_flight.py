"""
Tests of `in-flight`.
"""

import json

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import ICompletionHook, IRequestHook, IStateSource
from a3sgw.loading import load_string
from a3sgw.middleware import in_flight
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, MiddlewareCase, request, response
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import Dialogue, middleware_contract


def limit(amount, *lines):
    """
    Return the attributes of a limit.
    """
    return "\n".join(['type = "in-flight"', f"amount = {amount}", *lines])


def queue(amount, size, milliseconds=1000):
    return limit(amount, f"queue_size = {size}", f"queue_timeout_ms = {milliseconds}")


class InFlightContract(middleware_contract(in_flight.factory, "amount = 2")):
    """
    `in-flight` is a middleware.
    """

    def test_phases(self):
        """It looks at requests, hears of their ends, and tells how it stands."""
        built = in_flight.InFlight(self.config(), still_surroundings("x"))
        verifyObject(IRequestHook, built)
        verifyObject(ICompletionHook, built)
        verifyObject(IStateSource, built)
        self.assertEqual(repr(built), "<InFlight it of 2 by router, {'in_flight': 0, 'queued': 0}>")


class QueueContract(middleware_contract(in_flight.factory, 'amount = 1\nqueue_size = 1\nsource = "client-ip"')):
    """
    With a queue it is one too.
    """


class Crowd:
    """
    Many clients and the backend's ends of what they asked for, by the path of each.
    """

    def __init__(self, dialogue):
        self.dialogue = dialogue
        self.clients = {}
        self.served = {}

    def come(self, target, *lines, peer="192.0.2.1", method="GET"):
        """
        Let a client of its own ask for `target`.
        """
        self.clients[target] = client = self.dialogue.connect(peer)
        self.dialogue.say(client, request(method, target, *lines))
        self.look()
        return client

    def look(self):
        """
        See what has reached the backend.
        """
        for backend in self.dialogue.backends:
            heard = self.dialogue.hear(backend)
            if heard:
                self.served[heard.split(b" ")[1].decode()] = backend

    def answer(self, target, data=OK):
        """
        Answer what was asked for `target`; return what the client heard.
        """
        self.dialogue.say(self.served.pop(target), data)
        self.look()
        return self.dialogue.hear(self.clients[target])

    def leave(self, target):
        """
        Let the client of `target` go.
        """
        self.clients.pop(target).close()
        self.served.pop(target, None)
        self.dialogue.reactor.settle()
        self.look()

    def pass_time(self, seconds):
        self.dialogue.reactor.advance(seconds)
        self.look()

    def heard(self, target):
        return self.dialogue.hear(self.clients[target])

    def state(self):
        """
        Return how many are under way and how many wait, of each limit.
        """
        told = []
        self.dialogue.carrier.snapshot().addCallback(told.append)
        return [(row["state"]["in_flight"], row["state"]["queued"]) for row in told[0]["gauges"]["middlewares"]]


class InFlightCase(MiddlewareCase):
    """
    A crowd before a limit.
    """

    def begin(self, *middlewares, **settings):
        self.crowd = Crowd(self.pass_through(*middlewares, **settings))
        return self.crowd

    def tearDown(self):
        crowd = getattr(self, "crowd", None)
        if crowd is not None:
            for target in list(crowd.clients):
                crowd.leave(target)
            self.assertEqual(crowd.state(), [(0, 0)] * len(crowd.state()))
        super().tearDown()

    def assert_served(self, *targets):
        """
        Fail unless these have reached the backend and wait for its answer.
        """
        self.assertEqual(sorted(self.crowd.served), sorted(targets))

    def assert_turned_away(self, target):
        heard = self.crowd.heard(target)
        self.assertTrue(heard.startswith(b"HTTP/1.1 429 "), (target, heard))
        self.assertIn(b"\r\nRetry-After: 1\r\n", heard)


class LimitTests(InFlightCase):
    """
    Without a queue.
    """

    def test_limit(self):
        """At the limit the next request is answered 429; one that ends makes room for one."""
        crowd = self.begin(limit(2))
        for target in ("/1", "/2", "/3"):
            crowd.come(target)
        self.assert_served("/1", "/2")
        self.assert_turned_away("/3")
        self.assertEqual(crowd.state(), [(2, 0)])
        self.assertEqual(crowd.answer("/1"), OK)
        crowd.come("/4")
        crowd.come("/5")
        self.assert_served("/2", "/4")
        self.assert_turned_away("/5")

    def test_answer(self):
        """Who is turned away is told why, in JSON, and when to come back; the connection goes on."""
        crowd = self.begin(limit(1))
        crowd.come("/1")
        client = crowd.come("/2", "X-Request-Id: r-2")
        head, _, body = crowd.heard("/2").partition(b"\r\n\r\n")
        self.assertIn(b"\r\nContent-Type: application/json\r\n", head)
        self.assertEqual(json.loads(body), {"error": "Too many requests at a time", "reason": "in-flight-limit", "request_id": "r-2"})
        crowd.answer("/1")
        self.say(client, request("GET", "/3"))
        crowd.look()
        self.assert_served("/3")

    def test_head(self):
        """The answer to HEAD has no body."""
        crowd = self.begin(limit(1))
        crowd.come("/1")
        crowd.come("/2", method="HEAD")
        heard = crowd.heard("/2")
        self.assertTrue(heard.startswith(b"HTTP/1.1 429 "), heard)
        self.assertTrue(heard.endswith(b"\r\n\r\n"), heard)

    def test_until_the_response_has_been_sent(self):
        """A place is held until the last byte of the response, not the first."""
        crowd = self.begin(limit(1))
        crowd.come("/1")
        backend = crowd.served["/1"]
        self.say(backend, response("200 OK", "Content-Length: 6", body=b"half"))
        crowd.come("/2")
        self.assert_turned_away("/2")
        self.say(backend, b"ed")
        self.assertEqual(crowd.state(), [(0, 0)])

    def test_every_end(self):
        """However an exchange ends, its place is free again."""
        crowd = self.begin(limit(10), service='timeouts { response_header = "2s" }', answers_dials=False)
        for target in "abcdefg":
            crowd.come(f"/{target}")
        self.assertEqual(crowd.state(), [(7, 0)])
        attempts = list(self.dialogue.attempts)
        crowd.leave("/a")  # while the connection is being made
        attempts[1].fail(Outcome.CONNECT_REFUSED)
        self.dialogue.reactor.settle()
        self.assertEqual(crowd.state(), [(5, 0)])
        ends = [attempt.succeed() for attempt in attempts[2:]]
        self.dialogue.backends.extend(ends)
        crowd.look()
        crowd.answer("/c", response("502 Bad Gateway", "Content-Length: 0"))
        crowd.answer("/d", b"nonsense\r\n\r\n")
        crowd.served.pop("/e").close()
        crowd.leave("/f")
        crowd.pass_time(3)
        self.assertTrue(crowd.heard("/g").startswith(b"HTTP/1.1 504 "))
        self.assertEqual(crowd.state(), [(0, 0)])

    def test_answered_behind_it(self):
        """A request that another middleware answers behind it gives its place back; one answered before it never had one."""
        nobody = 'type = "ip-allow"\nallowed_ips = ["::1"]'
        for order in ((limit(1), nobody), (nobody, limit(1))):
            crowd = self.begin(*order)
            for number in range(3):
                crowd.come(f"/{number}")
                self.assertTrue(crowd.heard(f"/{number}").startswith(b"HTTP/1.1 403 "))
            self.assertEqual(crowd.state(), [(0, 0)])

    def test_two_limits(self):
        """Of two limits the second one's refusal gives the first one's place back."""
        crowd = self.begin(limit(2), limit(1))
        crowd.come("/1")
        crowd.come("/2")
        self.assert_turned_away("/2")
        self.assertEqual(crowd.state(), [(1, 0), (1, 0)])


class SourceTests(InFlightCase):
    """
    Whom a limit is for.
    """

    def test_client(self):
        """Each client has its own places; a whole IPv6 /64 is one client, and an IPv4 address in IPv6 form is that address."""
        crowd = self.begin(limit(1, 'source = "client-ip"'))
        for number, (peer, passes) in enumerate(
            [
                ("192.0.2.1", True),
                ("::ffff:192.0.2.1", False),
                ("192.0.2.2", True),
                ("2001:db8::1", True),
                ("2001:db8::2", False),
                ("2001:db8:0:1::1", True),
            ]
        ):
            crowd.come(f"/{number}", peer=peer)
            self.assertEqual(f"/{number}" in crowd.served, passes, peer)
        self.assertEqual(crowd.state(), [(4, 0)])

    def test_resolved_client(self):
        """Behind a trusted proxy the clients are told apart, and the proxy does not count."""
        crowd = self.begin(limit(1, 'source = "client-ip"'), entrypoint='forwarded_headers { trusted_ips = ["10.0.0.1"] }')
        crowd.come("/1", "X-Forwarded-For: 192.0.2.1", peer="10.0.0.1")
        crowd.come("/2", "X-Forwarded-For: 192.0.2.2", peer="10.0.0.1")
        crowd.come("/3", "X-Forwarded-For: 192.0.2.1", peer="10.0.0.1")
        self.assert_served("/1", "/2")
        self.assert_turned_away("/3")

    def test_header(self):
        """Each value of a header has its own places; requests without it are told apart by client."""
        crowd = self.begin(limit(1, 'source = "header"', 'header = "X-Tenant"'))
        crowd.come("/1", "X-Tenant: a")
        crowd.come("/2", "x-tenant: b")
        crowd.come("/3", "X-Tenant: a", peer="192.0.2.9")
        crowd.come("/4")
        crowd.come("/5", peer="192.0.2.9")
        crowd.come("/6")
        self.assert_served("/1", "/2", "/4", "/5")
        self.assert_turned_away("/3")
        self.assert_turned_away("/6")

    def test_header_that_is_removed_later(self):
        """A place goes back to where it came from, whatever became of the request's header meanwhile."""
        crowd = self.begin(
            limit(1, 'source = "header"', 'header = "X-Tenant"'),
            limit(1, 'source = "host"'),
        )
        crowd.come("/1", "X-Tenant: a")
        (exchange,) = [connection.exchange for connection in self.dialogue.door().connections if connection.exchange]
        exchange.head.fields.clear()
        exchange.head.host = b"b.test"
        crowd.answer("/1")
        self.assertEqual(crowd.state(), [(0, 0), (0, 0)])

    def test_host(self):
        """Each host has its own places."""
        crowd = self.begin(limit(1, 'source = "host"'))
        crowd.come("/1")
        crowd.clients["/2"] = self.dialogue.connect()
        self.say(crowd.clients["/2"], b"GET /2 HTTP/1.1\r\nHost: B.test:80\r\n\r\n")
        crowd.look()
        crowd.come("/3")
        self.assert_served("/1", "/2")
        self.assert_turned_away("/3")

    def test_bounded(self):
        """A source is forgotten as soon as nothing of it is under way."""
        self.begin(limit(1, 'source = "header"', 'header = "X-Tenant"', "queue_size = 1"))
        (middleware,) = [part for key, part in self.dialogue.carrier.generation().parts.items() if key[0] == "middleware"]
        for number in range(50):
            self.exchange(request("GET", "/", f"X-Tenant: {number}"))
        self.assertEqual(middleware._sources, {})


class QueueTests(InFlightCase):
    """
    With a queue.
    """

    def test_first_come_first_served(self):
        """Who waits is let in by whoever ends, in the order they came; who finds the queue full is turned away."""
        crowd = self.begin(queue(1, 3))
        for number in range(6):
            crowd.come(f"/{number}")
        self.assert_served("/0")
        self.assert_turned_away("/4")
        self.assert_turned_away("/5")
        self.assertEqual(crowd.state(), [(1, 3)])
        for number in range(4):
            self.assert_served(f"/{number}")
            self.assertEqual(crowd.answer(f"/{number}"), OK)

    def test_nobody_overtakes(self):
        """Who comes later than somebody who waits does not get in before."""
        crowd = self.begin(queue(1, 5))
        crowd.come("/1")
        crowd.come("/2")
        crowd.answer("/1")
        crowd.come("/3")
        self.assert_served("/2")

    def test_time_over(self):
        """Who has waited long enough is turned away, each after its own time."""
        crowd = self.begin(queue(1, 5, 2000))
        crowd.come("/1")
        crowd.come("/2")
        crowd.pass_time(1.5)
        crowd.come("/3")
        self.assertEqual((crowd.heard("/2"), crowd.state()), (b"", [(1, 2)]))
        crowd.pass_time(0.5)
        self.assert_turned_away("/2")
        self.assertEqual(crowd.heard("/3"), b"")
        crowd.answer("/1")
        self.assert_served("/3")
        crowd.pass_time(10)
        self.assertEqual(crowd.answer("/3"), OK)

    def test_patience_by_default(self):
        """Without a time of its own a queue lets wait for a second."""
        crowd = self.begin(limit(1, "queue_size = 1"))
        crowd.come("/1")
        crowd.come("/2")
        crowd.pass_time(0.9)
        self.assertEqual(crowd.heard("/2"), b"")
        crowd.pass_time(0.2)
        self.assert_turned_away("/2")

    def test_client_leaves_the_queue(self):
        """A client that leaves while it waits makes room in the queue, and is not sent to a backend."""
        crowd = self.begin(queue(1, 2))
        for target in ("/1", "/2", "/3"):
            crowd.come(target)
        crowd.leave("/2")
        self.assertEqual(crowd.state(), [(1, 1)])
        crowd.come("/4")
        crowd.answer("/1")
        self.assert_served("/3")
        crowd.answer("/3")
        self.assert_served("/4")

    def test_leaves_as_it_is_let_in(self):
        """A client that leaves in the very moment in which it is given a place passes it on."""
        crowd = self.begin(queue(1, 2))
        for target in ("/1", "/2", "/3"):
            crowd.come(target)
        # Both are noticed in one turn of the reactor: the place is given on, and then the client is found gone.
        crowd.served.pop("/1").send(OK)
        crowd.clients.pop("/2").close()
        self.dialogue.reactor.settle()
        crowd.look()
        self.assert_served("/3")
        self.assertEqual(crowd.state(), [(1, 0)])

    def test_many_refused_in_a_row(self):
        """However many in the queue fail at once, each is answered, one after the other."""
        crowd = self.begin(queue(1, 2000, 60_000), answers_dials=False)
        crowd.come("/0")
        clients = [self.dialogue.connect() for _ in range(100)]
        for client in clients:
            client.send(request())
        self.dialogue.reactor.settle()
        self.assertEqual(crowd.state(), [(1, 100)])
        for _ in range(101):
            self.dialogue.attempts[0].fail(Outcome.CONNECT_REFUSED)
            self.dialogue.reactor.settle()
        self.assertEqual({self.hear(client)[:13] for client in clients}, {b"HTTP/1.1 502 "})
        for client in clients:
            client.close()

    def test_answered_behind_it_in_a_row(self):
        """If nobody gets past the next middleware, the whole queue is answered without a call within a call."""
        crowd = self.begin(queue(1, 2000, 60_000), 'type = "ip-allow"\nallowed_ips = ["198.51.100.1"]')
        crowd.come("/0", peer="198.51.100.1")
        clients = [self.dialogue.connect() for _ in range(400)]
        for client in clients:
            client.send(request())
        self.dialogue.reactor.settle()
        self.assertEqual(crowd.state(), [(1, 400)])
        crowd.answer("/0")
        self.assertEqual({self.hear(client)[:13] for client in clients}, {b"HTTP/1.1 403 "})
        for client in clients:
            client.close()

    def test_body_waits(self):
        """The body of a request that waits is kept and sent on when it is let in."""
        crowd = self.begin(queue(1, 2))
        crowd.come("/1")
        client = crowd.clients["/2"] = self.dialogue.connect()
        self.say(client, request("POST", "/2", "Content-Length: 6", body=b"abc"))
        self.say(client, b"def")
        self.dialogue.say(crowd.served.pop("/1"), OK)
        heard = b"".join(self.hear(backend) for backend in self.dialogue.backends)
        self.assertTrue(heard.startswith(b"POST /2 "), heard)
        self.assertTrue(heard.endswith(b"\r\n\r\nabcdef"), heard)

    def test_each_source_has_its_queue(self):
        """Who waits for a place of one client does not wait for another's."""
        crowd = self.begin(limit(1, "queue_size = 1", 'source = "client-ip"'))
        for number, peer in enumerate(("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.1")):
            crowd.come(f"/{number}", peer=peer)
        self.assert_served("/0", "/2")
        self.assertEqual(crowd.state(), [(2, 2)])
        self.assert_turned_away("/4")
        crowd.answer("/2")
        self.assert_served("/0", "/3")

    def test_shutting_down(self):
        """Who waits when the gateway stops is answered, and no timed call is left behind."""
        crowd = self.begin(queue(1, 5, 60_000))
        crowd.come("/1")
        crowd.come("/2")
        done = []
        self.dialogue.carrier.drain(1).addCallback(done.append)
        self.dialogue.reactor.advance(2)
        self.assertEqual(done, [2])
        self.assertTrue(crowd.heard("/2").startswith(b"HTTP/1.1 503 "))
        self.assertEqual([call for call in self.dialogue.reactor.getDelayedCalls() if call.getTime() > 50], [])
        for client in crowd.clients.values():
            client.close()
        del self.crowd, self.dialogue


class ReloadTests(InFlightCase):
    """
    What a reload does to those under way.
    """

    def test_untouched(self):
        """A reload that does not touch the limit keeps its count and its queue."""
        crowd = self.begin(queue(1, 2, 60_000))
        crowd.come("/1")
        crowd.come("/2")
        self.dialogue.reload(
            config(middlewares=[queue(1, 2, 60_000)], more='middlewares "x" {\ntype = "tcp-filter"\nmax_connections = 9\n}')
        )
        self.assertEqual(crowd.state(), [(1, 1)])
        crowd.come("/3")
        crowd.answer("/1")
        self.assert_served("/2")
        crowd.answer("/2")
        self.assert_served("/3")

    def test_changed(self):
        """A changed limit begins anew; those under way and in the old queue end as they began."""
        crowd = self.begin(queue(1, 2, 60_000))
        crowd.come("/1")
        crowd.come("/2")
        crowd.come("/3")
        self.dialogue.reload(config(middlewares=[limit(1)]))
        self.assertEqual(crowd.state(), [(0, 0)])
        crowd.come("/4")
        crowd.come("/5")
        self.assert_turned_away("/5")
        self.assert_served("/1", "/4")
        self.assertEqual(crowd.answer("/1"), OK)
        self.assert_served("/2", "/4")
        self.assertEqual(crowd.answer("/2"), OK)
        self.assertEqual(crowd.answer("/3"), OK)
        self.assertEqual(crowd.state(), [(1, 0)])

    def test_removed(self):
        """Who waits for a limit that is configured no more still gets its turn, or its refusal."""
        crowd = self.begin(queue(1, 2, 5000))
        for target in ("/1", "/2", "/3"):
            crowd.come(target)
        self.dialogue.reload(config())
        crowd.answer("/1")
        self.assert_served("/2")
        crowd.pass_time(6)
        self.assert_turned_away("/3")


class CrowdMachine(RuleBasedStateMachine):
    """
    A crowd before two places and a queue of two, beside a plain account of who should be where.
    """

    def __init__(self):
        super().__init__()
        self.crowd = Crowd(Dialogue(config(middlewares=[queue(2, 2, 3000)])))
        self.inside = []
        self.waiting = []
        self.number = 0
        self.now = 0.0

    def _let_in(self):
        while self.waiting and len(self.inside) < 2:
            self.inside.append(self.waiting.pop(0)[0])

    @rule()
    def come(self):
        self.number += 1
        target = f"/{self.number}"
        self.crowd.come(target)
        if len(self.inside) < 2:
            self.inside.append(target)
        elif len(self.waiting) < 2:
            self.waiting.append((target, self.now + 3))
        else:
            assert self.crowd.heard(target).startswith(b"HTTP/1.1 429 ")
            self.crowd.leave(target)

    @precondition(lambda self: self.inside)
    @rule(which=st.integers(0, 1), ends=st.sampled_from(["answer", "leave", "break"]))
    def end(self, which, ends):
        target = self.inside.pop(which % len(self.inside))
        if ends == "answer":
            assert self.crowd.answer(target) == OK
        elif ends == "break":
            backend = self.crowd.served[target]
            assert self.crowd.answer(target, response("200 OK", "Content-Length: 9", body=b"part")).endswith(b"part")
            backend.close()
            self.crowd.dialogue.reactor.settle()
            assert self.crowd.clients[target].was_reset
        self.crowd.leave(target)
        self._let_in()

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 1))
    def lose_patience(self, which):
        target, _ = self.waiting.pop(which % len(self.waiting))
        self.crowd.leave(target)

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.5]))
    def pass_time(self, seconds):
        self.crowd.pass_time(seconds)
        self.now += seconds
        late = [target for target, deadline in self.waiting if deadline <= self.now]
        self.waiting = [wait for wait in self.waiting if wait[0] not in late]
        for target in late:
            assert self.crowd.heard(target).startswith(b"HTTP/1.1 429 ")
            self.crowd.leave(target)

    @invariant()
    def agrees(self):
        assert sorted(self.crowd.served) == sorted(self.inside)
        assert self.crowd.state() == [(len(self.inside), len(self.waiting))]

    def teardown(self):
        for target in list(self.crowd.clients):
            self.crowd.leave(target)
        assert self.crowd.state() == [(0, 0)]


class MachineTests(SynchronousTestCase):
    """
    Whatever happens in whatever order.
    """

    def test_any_order(self):
        """No place is lost, none is given twice, and nobody overtakes."""
        run_state_machine_as_test(CrowdMachine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))


class ConfigTests(SynchronousTestCase):
    """
    What is refused when the configuration is loaded.
    """

    def problems(self, *lines):
        text = config(middlewares=["\n".join(['type = "in-flight"', *lines])])
        return [str(problem) for problem in load_string(text, "gw.hcl", {}).problems]

    def test_refusals(self):
        """There is at least one place, a header where one is told apart by it, and a queue where one waits."""
        self.assertEqual(self.problems("amount = 1"), [])
        self.assertEqual(self.problems("amount = 1", 'source = "header"', 'header = "X-A"'), [])
        for lines, text in [
            ([], 'gw.hcl:11:1: middleware "m1" lacks "amount", which is required'),
            (["amount = 0"], "gw.hcl:13:10: middlewares.m1.amount is 0, which is not from 1 to 4294967295"),
            (["amount = 1", 'source = "ip"'], 'gw.hcl:14:10: middlewares.m1.source is "ip", expected one of '),
            (["amount = 1", 'source = "header"'], 'gw.hcl:14:10: middleware "m1" has source = "header" but names none'),
            (["amount = 1", 'header = "X-A"'], 'gw.hcl:14:10: middleware "m1" has a header but its source is "router"'),
            (["amount = 1", "queue_size = 1", "queue_timeout_ms = 60001"], "gw.hcl:15:20: middlewares.m1.queue_timeout_ms is 60001"),
            (
                ["amount = 1", "queue_timeout_ms = 5"],
                'gw.hcl:14:20: middleware "m1" has queue_timeout_ms but no queue; give queue_size too',
            ),
        ]:
            (problem,) = self.problems(*lines)
            self.assertTrue(problem.startswith(text), problem)
