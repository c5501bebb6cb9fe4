"""
Tests of `circuit-breaker`.
"""

import gc
import json
from weakref import ref

from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IBackendHook, ICompletionHook, IRequestHook, IResponseHook, IStateSource
from a3sgw.loading import load_string
from a3sgw.middleware import circuit_breaker
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, request, response
from a3sgw.middleware.test.outages import FAILURES, UNAVAILABLE, OutageCase, break_off, refuse, say_nonsense
from a3sgw.middleware.test.refusals import RefusalCase
from a3sgw.observe.exposition import render
from a3sgw.observe.test.records import NOTHING_ELSE
from a3sgw.proxy.exchange import Exchange
from a3sgw.proxy.test.dialogues import config
from a3sgw.service.backend import Backend, BackendAddress
from a3sgw.testing import middleware_contract


def breaker(*lines, threshold=2, cooldown=10):
    """
    Return the attributes of a circuit breaker.
    """
    return "\n".join(['type = "circuit-breaker"', f"failure_threshold = {threshold}", f"cooldown_secs = {cooldown}", *lines])


def by_backend(*lines, **settings):
    return breaker('scope = "backend"', *lines, **settings)


class RouterContract(middleware_contract(circuit_breaker.factory)):
    """
    `circuit-breaker` is a middleware.
    """

    def test_phases(self):
        """It decides about requests and hears how they end."""
        built = circuit_breaker.CircuitBreaker(self.config(), still_surroundings('router "x"'))
        verifyObject(IRequestHook, built)
        verifyObject(IResponseHook, built)
        verifyObject(ICompletionHook, built)
        verifyObject(IStateSource, built)
        self.assertEqual(
            repr(built),
            '<CircuitBreaker <Circuit circuit breaker "it" of router "x": <Breaker closed, 0 of 5 failures>>, 0 refused>',
        )


class BackendContract(middleware_contract(circuit_breaker.factory, 'scope = "backend"')):
    """
    For each server it is one too.
    """

    def test_phases(self):
        """It decides about servers and hears how attempts end."""
        built = circuit_breaker.BackendCircuitBreaker(self.config(), still_surroundings('router "x"'))
        verifyObject(IBackendHook, built)
        verifyObject(IResponseHook, built)
        verifyObject(IStateSource, built)
        self.assertTrue(repr(built).startswith('<BackendCircuitBreaker it of router "x", {\'circuit\': \'closed\', '), repr(built))


class ConfigTests(RefusalCase):
    """
    What may be configured.
    """

    type_name = "circuit-breaker"

    def test_accepted(self):
        """Everything has a default."""
        self.assert_accepted(
            "",
            "failure_threshold = 1\ncooldown_secs = 1\nsuccess_threshold = 1",
            "failure_ratio = 1",
            "failure_ratio = 0.01\nwindow_secs = 60\nmin_requests = 1",
            'status_codes = [429, "500-504"]',
            "status_codes = []",
            'scope = "backend"',
        )

    def test_refused(self):
        """What makes no sense is refused, and why."""
        self.assert_refused(
            [
                ("failure_threshold = 0", "gw.hcl:13:21: middlewares.m1.failure_threshold is 0, which is not from 1 to"),
                ("cooldown_secs = 0", "gw.hcl:13:17: middlewares.m1.cooldown_secs is 0, which is not from 1 to"),
                ("success_threshold = 0", "gw.hcl:13:21: middlewares.m1.success_threshold is 0, which is not from 1 to"),
                ("failure_ratio = 0", "gw.hcl:13:17: middlewares.m1.failure_ratio is 0, which is not greater than 0 and at most 1"),
                ("failure_ratio = 1.5", "gw.hcl:13:17: middlewares.m1.failure_ratio is 1.5, which is not greater than 0 and at most 1"),
                ("window_secs = 5", 'gw.hcl:13:15: middleware "m1" has window_secs but no failure_ratio'),
                ("min_requests = 5", 'gw.hcl:13:16: middleware "m1" has min_requests but no failure_ratio'),
                ("status_codes = [304]", "gw.hcl:13:17: middlewares.m1.status_codes[0] is 304, which is not from 400 to 599"),
                ('scope = "world"', 'gw.hcl:13:9: middlewares.m1.scope is "world", expected one of "service", "router", "backend"'),
            ]
        )


class CircuitCase(OutageCase):
    """
    Dialogues with a circuit breaker, in which each request has a client of its own.
    """

    def setUp(self):
        self.logged = []
        observe = lambda event: self.logged.append(event) if "circuit breaker" in formatEvent(event) else None  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.clients = []

    def tearDown(self):
        for client in self.clients:
            client.close()
        super().tearDown()

    def come(self, data=None):
        """
        Let a client ask; return it and the end of the server that was asked, or `None`.
        """
        client = self.dialogue.connect()
        self.clients.append(client)
        self.say(client, request() if data is None else data)
        return client, self.asked()

    def get(self, answer=OK):
        """
        Let a client ask and a server answer, if one is asked; return the status.
        """
        client, end = self.come()
        if end is not None:
            self.say(end, answer)
        return self.status(client)

    def drop_connections(self):
        """
        Close all that servers keep.
        """
        for end in self.number_of:
            end.close()
        self.dialogue.reactor.settle()

    def status(self, client):
        heard = self.hear(client)
        return int(heard[9:12]) if heard else None

    def state(self):
        """
        Return what the first middleware of the router tells of itself.
        """
        return next(row["state"] for row in self.snapshot()["middlewares"] if row["name"] == "m1")

    def open_circuit(self, count=2):
        for _ in range(count):
            self.assertEqual(self.get(UNAVAILABLE), 503)
        self.assert_circuit("open")

    def assert_circuit(self, word):
        self.assertEqual(self.state()["circuit"], word)

    def assert_turned_away(self, seconds):
        """
        Fail unless a request is refused, and told to come again after so many seconds.
        """
        client, end = self.come()
        self.assertIsNone(end)
        heard = self.hear(client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 503 "), heard)
        self.assertEqual(heard.count(b"\r\nRetry-After: "), 1)
        self.assertIn(b"\r\nRetry-After: %d\r\n" % seconds, heard)
        self.assertIn(b'details="circuit-open"', heard)
        body = json.loads(heard.partition(b"\r\n\r\n")[2])
        self.assertEqual((body["error"], body["reason"]), ("Service unavailable (circuit breaker open)", "circuit-open"))

    def messages(self):
        return [(event["log_level"], formatEvent(event)) for event in self.logged]


class ScopeTests(CircuitCase):
    """
    Whose circuit it is.
    """

    OTHERS = """
routers "twin" {{
  rule        = "PathPrefix(`/twin`)"
  service     = "app"
  middlewares = ["m1"]
}}
routers "other" {{
  rule        = "PathPrefix(`/other`)"
  service     = "other"
  middlewares = ["m1"]
}}
services "other" {{
  load_balancer {{
    servers = [{{ url = "http://192.0.2.9" }}]
  }}
}}
middlewares "none" {{
  type        = "ip-allow"
  allowed_ips = ["127.0.0.0/8", "192.0.2.0/24", "198.51.100.0/24"]
}}
"""

    def statuses(self, scope, entrypoint=""):
        """
        Open the circuit that guards `/`; return what `/twin` of the same service and `/other` of another are answered.
        """
        attributes = f'type = "circuit-breaker"\nfailure_threshold = 1\nscope = "{scope}"'
        self.pass_through(attributes, more=self.OTHERS.format(), entrypoint=entrypoint)
        self.assertEqual(self.get(response("500 Oh", "Content-Length: 0")), 500)
        self.assertEqual(self.get(), 503)
        found = []
        for target in ("/twin", "/other"):
            client, end = self.come(request(target=target))
            if end is not None:
                self.say(end, OK)
            found.append(self.status(client))
        return found

    def test_service(self):
        """By default all routers that lead to a service share its circuit, and no other's."""
        self.assertEqual(self.statuses("service"), [503, 200])

    def test_entrypoint(self):
        """That holds for an entrypoint too, and one that lists what its routers list changes nothing."""
        self.assertEqual(self.statuses("service", entrypoint='middlewares = ["m1"]'), [503, 200])

    def test_router(self):
        """Each router may have one of its own."""
        self.assertEqual(self.statuses("router"), [200, 200])


class StateTests(CircuitCase):
    """
    The three states.
    """

    def test_opens(self):
        """After so many failures in a row nobody is let through, and everybody told when to come again."""
        self.pass_through(breaker(threshold=3))
        for answer in (UNAVAILABLE, UNAVAILABLE, OK, UNAVAILABLE, UNAVAILABLE):
            self.get(answer)
            self.assert_circuit("closed")
        self.get(UNAVAILABLE)
        self.assert_circuit("open")
        for seconds, passing in ((10, 3), (7, 4.5), (3, 2), (1, 0)):
            self.assert_turned_away(seconds)
            self.dialogue.reactor.advance(passing)
        self.assertEqual(self.state(), {"circuit": "open", "opened": 1, "refused": 4})

    def test_half_open(self):
        """After its time one request tries; the others are refused until it is known how that went."""
        self.pass_through(breaker())
        self.open_circuit()
        self.dialogue.reactor.advance(10)
        self.assert_circuit("half-open")
        client, end = self.come()
        self.assertIsNotNone(end)
        self.assert_turned_away(1)
        self.say(end, OK)
        self.assertEqual(self.status(client), 200)
        self.assert_circuit("closed")
        self.assertEqual([self.get() for _ in range(3)], [200] * 3)

    def test_fails_again(self):
        """One failure opens it again, for as long."""
        self.pass_through(breaker())
        self.open_circuit()
        self.dialogue.reactor.advance(10)
        self.assertEqual(self.get(UNAVAILABLE), 503)
        self.assert_circuit("open")
        self.assert_turned_away(10)

    def test_several_trials(self):
        """No more trials are under way than successes are needed, and all of these are needed."""
        self.pass_through(breaker("success_threshold = 3"))
        self.open_circuit()
        self.dialogue.reactor.advance(10)
        trials = [self.come() for _ in range(3)]
        self.assertTrue(all(end for _, end in trials))
        self.assert_turned_away(1)
        for number, (client, end) in enumerate(trials):
            self.assert_circuit("half-open")
            self.say(end, OK)
            self.assertEqual(self.status(client), 200, number)
        self.assert_circuit("closed")

    def test_late_answers(self):
        """What was asked before a change says nothing after it."""
        self.pass_through(breaker())
        early = [self.come() for _ in range(4)]
        self.open_circuit()
        # Neither do late failures make it last longer …
        self.dialogue.reactor.advance(5)
        self.say(early[0][1], UNAVAILABLE)
        self.say(early[1][1], OK)
        self.assert_circuit("open")
        self.dialogue.reactor.advance(5)
        self.assert_circuit("half-open")
        # … nor do late successes close it.
        self.say(early[2][1], OK)
        self.assert_circuit("half-open")
        self.say(early[3][1], UNAVAILABLE)
        self.assert_circuit("half-open")
        self.assertEqual([self.status(client) for client, _ in early], [503, 200, 200, 503])
        self.assertEqual(self.state()["opened"], 1)

    def test_ratio(self):
        """By the share of failures it opens when there were enough requests."""
        self.pass_through(breaker("failure_ratio = 0.5", "min_requests = 6", "window_secs = 10", threshold=1))
        for answer in (UNAVAILABLE, UNAVAILABLE, OK, OK, UNAVAILABLE):
            self.get(answer)
            self.assert_circuit("closed")
        self.get()
        self.assert_circuit("open")
        self.assert_turned_away(10)
        reason = "50% or more of those of the last 10 s failed"
        self.assertEqual(self.messages(), [(LogLevel.warn, f'circuit breaker "m1" of service "app" is open for 10 s: {reason}')])

    def test_log(self):
        """The log says what happened to which circuit, and why."""
        self.pass_through(breaker())
        self.open_circuit()
        self.dialogue.reactor.advance(10)
        fails(break_off)(self)
        self.dialogue.reactor.advance(10)
        self.get()
        circuit = 'circuit breaker "m1" of service "app" is '
        self.assertEqual(
            self.messages(),
            [
                (LogLevel.warn, f"{circuit}open for 10 s: 2 in a row failed (status 503)"),
                (LogLevel.info, f"{circuit}half-open; trials at a time: 1"),
                (LogLevel.warn, f"{circuit}open for 10 s: a trial failed (backend-closed)"),
                (LogLevel.info, f"{circuit}half-open; trials at a time: 1"),
                (LogLevel.info, f"{circuit}closed; trials that went well: 1"),
            ],
        )

    def test_metrics(self):
        """The state is a metric."""
        self.pass_through(breaker())
        self.open_circuit()
        for seconds, number in ((0, 2), (10, 1)):
            self.dialogue.reactor.advance(seconds)
            told = []
            self.dialogue.carrier.snapshot().addCallback(told.append)
            text = render(told[0], NOTHING_ELSE).decode()
            (line,) = [line for line in text.splitlines() if line.startswith("gateway_circuit_state{")]
            self.assertEqual(line, f'gateway_circuit_state{{router="",entrypoint="",service="app",middleware="m1"}} {number}')

    def test_reload(self):
        """A reload that leaves the middleware alone leaves the circuit as it is; one that changes it begins anew."""
        self.pass_through(breaker())
        self.open_circuit()
        self.dialogue.reload(config(middlewares=[breaker()], servers=2))
        self.assert_turned_away(10)
        self.dialogue.reload(config(middlewares=[breaker(cooldown=11)], servers=2))
        self.assert_circuit("closed")

    def test_two_owners(self):
        """An entrypoint's circuit is not its router's."""
        more = f'middlewares "door" {{\n{breaker(threshold=2)}\n}}'
        self.pass_through(breaker(threshold=1), entrypoint='middlewares = ["door"]', more=more)
        self.get(UNAVAILABLE)
        self.get(UNAVAILABLE)
        rows = {row["entrypoint"]: row["state"] for row in self.snapshot()["middlewares"]}
        self.assertEqual(rows[""], {"circuit": "open", "opened": 1, "refused": 1})
        # What the router's circuit refuses says nothing to the one before it.
        self.assertEqual(rows["web"], {"circuit": "closed", "opened": 0, "refused": 0})

    def test_head(self):
        """A refusal of HEAD has no body."""
        self.pass_through(breaker())
        self.open_circuit()
        client, _ = self.come(request("HEAD"))
        self.assertTrue(self.hear(client).endswith(b"\r\n\r\n"))


def answers(*lines, body=b""):
    """
    Return a play in which the server answers so.
    """
    return lambda case: case.get(response(*lines, body=body))


def fails(fail):
    """
    Return a play in which the server fails so, on a connection of its own.
    """

    def play(case):
        case.drop_connections()
        fail(case, case.come()[1])

    return play


def cannot_be_reached(case):
    case.drop_connections()
    case.down = {1}
    case.come()
    case.down = set()


def breaks_off_the_body(case):
    _client, end = case.come()
    case.say(end, response("200 OK", "Content-Length: 5", body=b"he"))
    end.close()
    case.dialogue.reactor.settle()


def takes_all_the_time(case):
    case.come()
    case.dialogue.reactor.advance(4)


def answers_in_part_all_the_time(case):
    _client, end = case.come()
    case.say(end, response("200 OK", "Content-Length: 5", body=b"he"))
    case.dialogue.reactor.advance(4)


def client_takes_all_the_time(case):
    _client, end = case.come(request("PUT", "/", "Content-Length: 4", body=b"he"))
    assert end is not None
    case.dialogue.reactor.advance(4)


def client_leaves(case):
    case.come()[0].close()


def client_leaves_the_stream(case):
    client, end = case.come()
    case.say(end, response("200 OK", "Content-Length: 5", body=b"he"))
    client.close()


def client_leaves_the_error(case):
    client, end = case.come()
    case.say(end, response("500 Oh", "Content-Length: 5", body=b"he"))
    client.close()


def no_server(case):
    service = case.dialogue.carrier.generation().services["app"]
    for is_draining in (True, False):
        service.backends[0].verdicts.is_draining = is_draining
        service.refresh()
        if is_draining:
            assert case.come()[1] is None


def body_is_too_large(case):
    client, end = case.come(request("PUT", "/", "Transfer-Encoding: chunked", body=b"2\r\nab\r\n"))
    case.say(client, b"3\r\ncde\r\n")
    assert case.status(client) == 413
    assert end.was_reset


def body_is_declared_too_large(case):
    assert case.come(request("PUT", "/", "Content-Length: 5"))[1] is None


class VerdictTests(CircuitCase):
    """
    What is a failure, what is a success, and what says nothing.
    """

    def verdicts(self, play, *lines, **settings):
        """
        Return how an exchange is taken while the circuit is closed, and how as a trial.
        """
        inner = 'type = "body-limit"\nmax_body_bytes = 4'
        service = 'timeouts {\n response_header = "2s"\n total = "3s"\n }'
        self.pass_through(breaker(*lines, threshold=3), inner, service=settings.get("service", service))
        failure = settings.get("failure", UNAVAILABLE)
        found = [self.verdict_when_closed(play, failure)]
        self.assert_circuit("open")
        self.dialogue.reactor.advance(10)
        play(self)
        self.dialogue.reactor.settle()
        found.append({"open": "failure", "closed": "success", "half-open": "nothing"}[self.state()["circuit"]])
        if found[-1] == "nothing":
            # The place of the trial is free again.
            self.assertEqual(self.get(), 200)
            self.assert_circuit("closed")
        self.tearDown()
        self.clients.clear()
        return tuple(found)

    def verdict_when_closed(self, play, failure):
        for _ in range(2):
            self.get(failure)
        play(self)
        self.dialogue.reactor.settle()
        if self.state()["circuit"] == "open":
            return "failure"
        # Is this the third in the row, or the first of another one?
        self.get(failure)
        found = "nothing" if self.state()["circuit"] == "open" else "success"
        for _ in range(2):
            self.get(failure)
        return found

    def test_failures(self):
        """An answer of 500 and above, or none, is a failure."""
        for play in (
            answers("500 Oh", "Content-Length: 0"),
            answers("599 Oh", "Content-Length: 2", body=b"oh"),
            *map(fails, FAILURES),
            cannot_be_reached,
            client_leaves_the_error,
        ):
            self.assertEqual(self.verdicts(play), ("failure", "failure"), play)

    def test_all_the_time(self):
        """A server that takes all the time there is has failed; if the client took it, it has not."""
        service = 'timeouts { total = "3s" }'
        self.assertEqual(self.verdicts(takes_all_the_time, service=service), ("failure", "failure"))
        self.assertEqual(self.verdicts(client_takes_all_the_time, service=service), ("nothing", "nothing"))
        self.assertEqual(self.verdicts(answers_in_part_all_the_time, service=service), ("success", "success"))

    def test_waiting_for_a_place(self):
        """A request that spends all the time on waiting for a place says nothing."""
        service = "scaling {\n container_concurrency = 1\n buffer_enabled = true\n buffer_timeout_secs = 60\n }"
        text = config(middlewares=[breaker(threshold=1)], service=service)
        patient = 'routers "patient" {\n rule = "Path(`/patient`)"\n service = "app"\n priority = 1000\n}\n'
        self.pass_through(breaker())
        self.dialogue.reload(patient + text.replace("rule        =", 'timeouts { total = "3s" }\n  rule ='))
        _busy, end = self.come(request("GET", "/patient"))
        self.assertIsNotNone(end)
        waiting = self.come()[0]
        self.dialogue.reactor.advance(4)
        self.assertIn(b'details="exchange-timeout"', self.hear(waiting))
        self.assert_circuit("closed")
        self.say(end, OK)

    def test_broken_off(self):
        """An answer that breaks off is a failure, but of a trial only the head is waited for."""
        self.assertEqual(self.verdicts(breaks_off_the_body), ("failure", "success"))

    def test_successes(self):
        """Every other answer is a success, also if the client did not want all of it."""
        for play in (
            answers("200 OK", "Content-Length: 2", body=b"ok"),
            answers("302 There", "Content-Length: 0"),
            answers("304 Same"),
            answers("404 No", "Content-Length: 0"),
            answers("429 Slow", "Content-Length: 0"),
            client_leaves_the_stream,
        ):
            self.assertEqual(self.verdicts(play), ("success", "success"), play)

    def test_nothing(self):
        """Who was not asked, or could not answer, is not judged."""
        for play in (client_leaves, no_server, body_is_too_large, body_is_declared_too_large):
            self.assertEqual(self.verdicts(play), ("nothing", "nothing"), play)

    def test_statuses(self):
        """Which answers are failures can be said; no answer always is one."""
        slow = response("429 Slow", "Content-Length: 0")
        for play, verdict in (
            (answers("429 Slow", "Content-Length: 0"), "failure"),
            (answers("500 Oh", "Content-Length: 0"), "success"),
            (answers("502 Oh", "Content-Length: 0"), "success"),
            (fails(break_off), "failure"),
            (cannot_be_reached, "failure"),
        ):
            self.assertEqual(self.verdicts(play, "status_codes = [429]", failure=slow), (verdict, verdict), play)

    def test_pages(self):
        """An error that is shown as a page is a failure nevertheless."""
        pages = 'type = "errors"\nstatus = ["500-599"]\nbody = "sorry"'
        for middlewares in ((pages, breaker()), (breaker(), pages)):
            self.pass_through(*middlewares)
            self.get(UNAVAILABLE)
            fails(say_nonsense)(self)
            client, end = self.come()
            self.assertIsNone(end)
            self.assertIn(b'details="circuit-open"', self.hear(client))
            self.tearDown()
            self.clients.clear()

    def test_retries(self):
        """Of a request that is tried again only the last attempt counts."""
        for middlewares in (
            (breaker(), 'type = "retry"\nretry_interval_ms = 0\nmax_retries = 2'),
            ('type = "retry"\nretry_interval_ms = 0\nmax_retries = 2', breaker()),
        ):
            self.pass_through(*middlewares)
            for expected in (200, 503, 503):
                client, end = self.come()
                for fail in (refuse, say_nonsense):
                    fail(self, end)
                    end = self.asked()
                self.say(end, OK if expected == 200 else UNAVAILABLE)
                self.assertEqual(self.status(client), expected)
            self.assertEqual(self.come()[1], None)
            self.tearDown()
            self.clients.clear()


class TrialTests(CircuitCase):
    """
    Requests that everybody waits for.
    """

    def begin_trial(self, *lines, data=None):
        self.pass_through(breaker(*lines))
        self.open_circuit()
        self.dialogue.reactor.advance(10)
        client, end = self.come(data)
        self.assertIsNotNone(end)
        return client, end

    def test_stream(self):
        """A stream is a success as soon as it begins, and once."""
        client, end = self.begin_trial("success_threshold = 2")
        self.say(end, response("200 OK", "Content-Type: text/event-stream", body=b"data: 1\n\n"))
        self.assert_circuit("half-open")
        self.assertEqual(self.get(), 200)
        self.assert_circuit("closed")
        end.close()
        self.assertIn(b"data: 1", self.hear(client))
        self.assert_circuit("closed")

    def test_one_stream_is_one_success(self):
        """A stream that ends is not counted a second time."""
        _client, end = self.begin_trial("success_threshold = 2")
        self.say(end, response("200 OK", "Content-Length: 2", body=b"o"))
        self.say(end, b"k")
        self.assert_circuit("half-open")
        self.assertEqual(self.get(), 200)
        self.assert_circuit("closed")

    def test_client_stalls(self):
        """A client that is slow with its request keeps the others out for no longer than the circuit would."""
        client, end = self.begin_trial(data=request("PUT", "/", "Content-Length: 3", body=b"a"))
        self.dialogue.reactor.advance(9)
        self.say(client, b"b")
        self.hear(end)
        self.assert_turned_away(1)
        self.dialogue.reactor.advance(1)
        other, second = self.come()
        self.assertIsNotNone(second)
        self.assert_turned_away(1)
        # Now nobody listens to the first.
        self.say(client, b"c")
        self.hear(end)
        self.say(end, UNAVAILABLE)
        self.assertEqual(self.status(client), 503)
        self.assert_circuit("half-open")
        self.say(second, OK)
        self.assertEqual(self.status(other), 200)
        self.assert_circuit("closed")

    def test_client_stalls_and_leaves(self):
        """A trial that was given up on gives back no place when it ends."""
        client, _end = self.begin_trial()
        self.dialogue.reactor.advance(10)
        self.come()
        client.close()
        self.dialogue.reactor.settle()
        self.assert_turned_away(1)

    def test_trials_of_before(self):
        """Trials that were under way when one failed take nobody's place the next time."""
        _client, end = self.begin_trial("success_threshold = 2")
        other, second = self.come()
        self.say(end, UNAVAILABLE)
        self.assert_circuit("open")
        self.dialogue.reactor.advance(10)
        for _ in range(2):
            self.assertIsNotNone(self.come()[1])
        self.assert_turned_away(1)
        self.say(second, OK)
        self.assertEqual(self.status(other), 200)
        self.assert_turned_away(1)

    def test_page_that_takes_its_time(self):
        """A trial whose answer breaks off while a hook keeps it has failed."""
        pages = 'type = "errors"\nstatus = ["404"]\nservice = "app"'
        self.pass_through(breaker(), pages)
        self.open_circuit()
        self.dialogue.reactor.advance(10)
        client, end = self.come(request("PUT", "/", "Content-Length: 4", body=b"ab"))
        self.say(end, response("404 No", "Content-Length: 4", body=b"no"))
        page = self.asked()
        self.assertIsNotNone(page)
        end.close()
        # The server is not read meanwhile, but it cannot be written to either.
        self.say(client, b"cd")
        self.assertEqual(self.status(client), 502)
        self.assert_circuit("open")


class BackendTests(CircuitCase):
    """
    One circuit for each server.
    """

    def serve(self, count, *failing):
        """
        Let requests come, which servers with a number in `failing` fail; return the numbers of the servers asked.
        """
        asked = []
        for _ in range(count):
            client, end = self.come()
            asked.append(self.number_of.get(end, 0))
            if end is not None:
                self.say(end, UNAVAILABLE if asked[-1] in failing else OK)
            self.hear(client)
        return asked

    def test_passed_over(self):
        """A server that fails is not asked, and nobody is refused."""
        self.pass_through(by_backend(), servers=3)
        self.assertEqual(self.serve(6, 2).count(2), 2)
        self.assertEqual(self.state(), {"circuit": "open", "open_backends": 1, "half_open_backends": 0, "opened": 1, "refused": 0})
        self.assertEqual(set(self.serve(6)), {1, 3})

    def test_comes_back(self):
        """After its time one request tries it, while the others go elsewhere."""
        self.pass_through(by_backend(), servers=2)
        self.serve(4, 2)
        self.dialogue.reactor.advance(10)
        self.assert_circuit("half-open")
        while True:
            _client, end = self.come()
            if self.number_of[end] == 2:
                break
            self.say(end, OK)
        self.assertEqual(set(self.serve(4)), {1})
        self.say(end, OK)
        self.assert_circuit("closed")
        self.assertEqual(set(self.serve(4)), {1, 2})

    def test_fails_again(self):
        """A trial that fails sets it aside for as long again."""
        self.pass_through(by_backend(), servers=2)
        self.serve(4, 2)
        self.dialogue.reactor.advance(10)
        self.assertEqual(sorted(self.serve(3, 2)), [1, 1, 2])
        self.assert_circuit("open")
        self.dialogue.reactor.advance(9)
        self.assertEqual(self.serve(3), [1, 1, 1])
        self.assertEqual(self.state()["opened"], 2)

    def test_nobody_left(self):
        """When every circuit is open requests are refused, and told when the first will be half-open."""
        self.pass_through(by_backend(), servers=2)
        self.serve(4, 1)
        self.dialogue.reactor.advance(3)
        self.serve(2, 2)
        self.assertEqual(self.state()["open_backends"], 2)
        self.assert_turned_away(7)
        self.dialogue.reactor.advance(6.5)
        self.assert_turned_away(1)
        self.assertEqual(self.state()["refused"], 2)
        self.dialogue.reactor.advance(0.5)
        trial, end = self.come()
        self.assertEqual(self.number_of[end], 1)
        self.assert_turned_away(1)
        self.say(end, OK)
        self.assertEqual(self.serve(2), [1, 1])
        self.assertEqual(self.status(trial), 200)

    def test_failover(self):
        """The service that steps in is asked before anybody is refused."""
        spare = 'services "spare" {\n load_balancer {\n servers = [{ url = "http://192.0.2.9" }]\n }\n}\n'
        self.pass_through(by_backend(), service='failover { service = "spare" }', more=spare)
        self.assertEqual(self.serve(2, 1), [1, 1])
        self.assertEqual(self.serve(2, 9), [9, 9])
        self.assert_turned_away(10)

    def test_every_attempt_counts(self):
        """Attempts that were made good by another are failures too."""
        self.pass_through(by_backend(), 'type = "retry"\nretry_interval_ms = 0', servers=2)
        self.down = {2}
        self.assertEqual(self.serve(4), [1, 1, 1, 1])
        self.assert_circuit("open")
        dials = self.dialled.count(2)
        self.assertEqual(dials, 2)
        self.serve(4)
        self.assertEqual(self.dialled.count(2), dials)

    def test_retry_finds_nobody(self):
        """A retry for which no circuit is left says so."""
        self.pass_through(by_backend(threshold=1), 'type = "retry"\nretry_interval_ms = 0')
        client, end = self.come()
        break_off(self, end)
        self.assertIsNone(self.asked())
        heard = self.hear(client)
        self.assertIn(b'details="circuit-open"', heard)
        self.assertIn(b"\r\nRetry-After: 10\r\n", heard)

    def test_every_way(self):
        """Failures are the same as those of a router's circuit."""
        for play in (*map(fails, FAILURES), cannot_be_reached, breaks_off_the_body):
            self.pass_through(by_backend(threshold=1), service='timeouts { response_header = "2s" }')
            play(self)
            self.dialogue.reactor.settle()
            self.assertEqual(self.state()["circuit"], "open", play)
            self.tearDown()
            self.clients.clear()
        for play in (client_leaves, client_leaves_the_stream, no_server, answers("404 No", "Content-Length: 0")):
            self.pass_through(by_backend(threshold=1))
            play(self)
            self.dialogue.reactor.settle()
            self.assertEqual(self.state()["circuit"], "closed", play)
            self.tearDown()
            self.clients.clear()

    def test_closed_connections(self):
        """A server that closes connections nobody uses has not failed."""
        self.pass_through(by_backend(threshold=1))
        self.get()
        client, end = self.come()
        break_off(self, end)
        self.say(self.asked(), OK)
        self.assertEqual(self.status(client), 200)
        self.assert_circuit("closed")

    def test_trials(self):
        """A trial is over when its answer begins, when its client leaves, or after its time."""
        self.pass_through(by_backend())
        self.serve(2, 1)
        self.dialogue.reactor.advance(10)
        client, end = self.come()
        self.assert_turned_away(1)
        client.close()
        self.dialogue.reactor.settle()
        client, end = self.come()
        self.assertIsNotNone(end)
        self.assert_turned_away(1)
        self.dialogue.reactor.advance(10)
        client, end = self.come()
        self.assertIsNotNone(end)
        self.say(end, response("200 OK", "Content-Length: 2", body=b"o"))
        self.assert_circuit("closed")
        self.say(end, b"k")
        self.assertTrue(self.hear(client).endswith(b"ok"))

    def test_unavailable_for_another_reason(self):
        """A 503 of a server is passed on as it is, whatever the circuits of others."""
        self.pass_through(by_backend(), servers=2)
        self.serve(4, 2)
        client, end = self.come()
        self.say(end, UNAVAILABLE)
        self.assertNotIn(b"Retry-After", self.hear(client))

    def drain(self, *numbers):
        """
        Let only the servers with these numbers be unusable.
        """
        service = self.dialogue.carrier.generation().services["app"]
        for number, backend in enumerate(service.backends, 1):
            backend.verdicts.is_draining = number in numbers
        service.refresh()

    def test_other_servers_missing(self):
        """What is said of circuits is said of servers that could be used otherwise, and only then."""
        self.pass_through(by_backend(), servers=2)
        self.serve(4, 2)
        self.drain(1)
        self.assert_turned_away(10)
        self.drain(1, 2)
        client, _ = self.come()
        self.assertIn(b'details="no-backend"', self.hear(client))
        self.assertEqual(self.state()["refused"], 1)

    def test_log(self):
        """The log names the server."""
        self.pass_through(by_backend())
        self.serve(2, 1)
        text = 'circuit breaker "m1" of router "app" for http://192.0.2.1 is open for 10 s: 2 in a row failed (status 503)'
        self.assertEqual(self.messages(), [(LogLevel.warn, text)])

    def test_reload(self):
        """Circuits survive a reload that leaves their servers alone, and go with them."""
        self.pass_through(by_backend(), servers=2)
        self.serve(4, 2)
        self.dialogue.reload(config(middlewares=[by_backend()], servers=3))
        self.assertEqual(self.state()["open_backends"], 1)
        self.assertEqual(set(self.serve(6)), {1, 3})
        self.dialogue.reload(config(middlewares=[by_backend()], servers=1))
        self.assertEqual(self.state(), {"circuit": "closed", "open_backends": 0, "half_open_backends": 0, "opened": 0, "refused": 0})
        self.dialogue.reload(config(middlewares=[by_backend()], servers=2))
        self.assertEqual(set(self.serve(2)), {1, 2})

    def test_memory(self):
        """What is known of a server that is gone is forgotten."""
        built = circuit_breaker.BackendCircuitBreaker(self.load('scope = "backend"'), still_surroundings("x"))
        exchange = Exchange(None, None, b"192.0.2.1", b"http", 0.0)
        exchange.notes = {}
        backend = Backend("app", "http://192.0.2.1", BackendAddress("http", "192.0.2.1", 80, "", b"", b"a"), 1)
        built.on_attempt_begun(exchange, backend)
        built.on_attempt_ended(exchange, backend, Outcome.BACKEND_CLOSED, 0)
        gone = ref(backend)
        backend = None
        gc.collect()
        self.assertIsNone(gone())

    def load(self, attributes):
        text = config(middlewares=[f'type = "circuit-breaker"\n{attributes}'])
        return load_string(text, "gw.hcl", {}).valid_config().middlewares["m1"]
