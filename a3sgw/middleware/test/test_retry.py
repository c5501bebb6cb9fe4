"""
Tests of `retry`.
"""

from zope.interface.verify import verifyObject

from a3sgw.interfaces import IAttemptHook, IRequestHook, IStateSource
from a3sgw.middleware import retry
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, request, response
from a3sgw.middleware.test.outages import FAILURES, OutageCase, break_off, refuse, say_nonsense
from a3sgw.middleware.test.refusals import RefusalCase
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import middleware_contract

REDIRECTION = response("302 There", "Location: /there", "Content-Length: 0")


def retrying(*lines):
    """
    Return the attributes of a middleware that does not pause.
    """
    return "\n".join(['type = "retry"', "retry_interval_ms = 0", *lines])


class RetryContract(middleware_contract(retry.factory, "max_retries = 2\nper_try_timeout_ms = 500")):
    """
    `retry` is a middleware.
    """

    def test_phases(self):
        """It counts requests, is asked about failed attempts, and tells how it stands."""
        built = retry.Retry(self.config(), still_surroundings("x"))
        verifyObject(IRequestHook, built)
        verifyObject(IAttemptHook, built)
        verifyObject(IStateSource, built)
        self.assertTrue(repr(built).startswith("<Retry up to 2 times, <RetryBudget 20 percent and 10/s: "), repr(built))


class ConfigTests(RefusalCase):
    """
    What may be configured.
    """

    type_name = "retry"

    def test_accepted(self):
        """Everything has a default; statuses are numbers or ranges."""
        self.assert_accepted(
            "",
            'status_codes = [429, "500-504", "520"]',
            "status_codes = []",
            "retry_interval_ms = 0",
            "retry_interval_ms = 100\nmax_interval_ms = 100",
            "budget_percent = 0",
            "budget_min_per_sec = 0",
            "max_retries = 100\nbudget_percent = 10000",
        )

    def test_refused(self):
        """What makes no sense is refused, and why."""
        self.assert_refused(
            [
                ("max_retries = 0", "gw.hcl:13:15: middlewares.m1.max_retries is 0, which is not from 1 to 100"),
                ("status_codes = [200]", "gw.hcl:13:17: middlewares.m1.status_codes[0] is 200, which is not from 400 to 599"),
                ('status_codes = ["301-503"]', 'gw.hcl:13:17: middlewares.m1.status_codes[0] is "301-503", which is not within 400 to'),
                ('status_codes = ["5xx"]', 'gw.hcl:13:17: middlewares.m1.status_codes[0] is "5xx", which is neither a status like'),
                ("status_codes = [true]", "gw.hcl:13:17: middlewares.m1.status_codes[0] is true, expected a status like 503 or a range"),
                ("max_interval_ms = 99", 'gw.hcl:13:19: middleware "m1" has a max_interval_ms of 99, which is shorter than'),
                ("per_try_timeout_ms = 0", "gw.hcl:13:22: middlewares.m1.per_try_timeout_ms is 0, which is not from 1 to 3600000"),
                ("budget_percent = 0\nbudget_min_per_sec = 0", 'gw.hcl:13:18: middleware "m1" has a budget that allows no retry at all'),
            ]
        )


IN_TWO_SECONDS = "per_try_timeout_ms = 2000"


class WhenTests(OutageCase):
    """
    What is tried again.
    """

    def test_every_failure(self):
        """However a server fails, another one is asked, and the client sees only its answer."""
        for fail in FAILURES:
            for servers in (1, 2):
                self.pass_through(retrying(IN_TWO_SECONDS), servers=servers)
                fail(self, self.begin())
                self.assert_served()
                self.assertEqual((self.retries(), self.dialogue.outcomes()), (1, ["completed"]), fail)
                self.tearDown()

    def test_another_server(self):
        """A server that failed is not asked again while there are others."""
        self.pass_through(retrying("max_retries = 5"), servers=3)
        end = self.begin()
        asked = [self.number_of[end]]
        for fail in (refuse, break_off, say_nonsense):
            fail(self, end)
            end = self.asked()
            asked.append(self.number_of[end])
        self.assertEqual(sorted(asked[:3]), [1, 2, 3])
        self.say(end, OK)
        self.assert_heard(b"200", b"ok")

    def test_methods(self):
        """What a server may have seen is repeated only if that does no harm."""
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"):
            for fail in FAILURES:
                self.pass_through(retrying(IN_TWO_SECONDS))
                fail(self, self.begin(request(method)))
                self.assertIsNotNone(self.asked(), (method, fail))
                self.tearDown()
        for method in ("POST", "PATCH", "get", "BREW"):
            for fail in FAILURES:
                self.pass_through(retrying(IN_TWO_SECONDS))
                fail(self, self.begin(request(method, "/", "Content-Length: 1", body=b"x")))
                self.assertIsNone(self.asked(), (method, fail))
                self.assertRegex(self.hear(self.client), rb"\AHTTP/1\.1 50[234] ")
                self.assertEqual(self.retries(), 0)
                self.tearDown()

    def test_every_method(self):
        """If that is wanted, POST is repeated too, with its body."""
        for fail in FAILURES:
            self.pass_through(retrying(IN_TWO_SECONDS, "retry_non_idempotent = true"))
            fail(self, self.begin(request("POST", "/", "Content-Length: 4", body=b"body")))
            end = self.asked()
            self.assertTrue(self.heard.startswith(b"POST / ") and self.heard.endswith(b"\r\n\r\nbody"), self.heard)
            self.say(end, OK)
            self.assert_heard(b"200", b"ok")
            self.tearDown()

    def test_statuses(self):
        """Only answers with the given statuses are tried again."""
        self.pass_through(retrying('status_codes = [429, "500-503"]'))
        for status in ("429 x", "500 x", "503 x"):
            self.say(self.begin(), response(status, "Content-Length: 0"))
            self.assert_served()
        for status in ("400 x", "404 x", "504 x", "599 x"):
            self.say(self.begin(), response(status, "Content-Length: 0"))
            self.assert_heard(status[:3].encode(), b"\r\n\r\n")
        self.say(self.begin(), REDIRECTION)
        self.assert_heard(b"302", b"\r\n\r\n")
        self.assertEqual(self.retries(), 3)

    def test_no_statuses(self):
        """Without statuses only missing answers are tried again."""
        self.pass_through(retrying("status_codes = []"))
        refuse(self, self.begin())
        self.assert_heard(b"503", b"no\n")
        break_off(self, self.begin())
        # On the connection that was kept from before this is no failure yet.
        break_off(self, self.asked())
        self.assert_served()

    def test_what_does_not_help(self):
        """A server that changes the protocol unasked will do so again."""
        self.pass_through(retrying())
        self.say(self.begin(), b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
        self.assert_refused(502, "response-upgrade-refused")

    def test_answer_under_way(self):
        """A response of which the client has seen a part is never begun again."""
        for head in (response("200 OK", "Content-Length: 5", body=b"he"), response("503 No", "Content-Length: 5", body=b"he")):
            self.pass_through(retrying("status_codes = [500]"))
            end = self.begin()
            self.say(end, head)
            end.close()
            self.dialogue.reactor.advance(5)
            self.assertIsNone(self.asked())
            self.assertTrue(self.client.was_reset)
            self.assertEqual((self.retries(), self.dialogue.outcomes()), (0, ["response-incomplete"]))

    def test_answer_of_which_a_part_arrived(self):
        """An answer that is not wanted is not waited for; nothing of it reaches the client."""
        self.pass_through(retrying())
        end = self.begin()
        self.say(end, response("503 No", "Content-Length: 1000000", body=b"a part"))
        self.assertTrue(end.was_reset)
        self.assert_served()

    def test_kept_connection(self):
        """A kept connection that the server had closed does not count."""
        self.pass_through(retrying("max_retries = 1"))
        self.say(self.begin(), OK)
        self.hear(self.client)
        break_off(self, self.begin())
        refuse(self, self.asked())
        self.assert_served()
        self.assertEqual(self.state(), {"retries": 1, "refused_by_budget": 0})



class ConnectionTests(OutageCase):
    """
    Servers that cannot be connected to.
    """

    def test_every_request(self):
        """What was not sent is tried again whatever it is, as often as is allowed."""
        for method in ("GET", "POST"):
            self.pass_through(retrying("max_retries = 3"))
            self.down = {1}
            self.begin(request(method, "/", "Content-Length: 4", body=b"body"))
            self.dialogue.reactor.advance(0)
            for _ in range(5):
                self.assertIsNone(self.asked())
            self.assertEqual((self.dialled, self.retries()), ([1] * 4, 3))
            self.assert_refused(502, "connect-refused")
            self.tearDown()

    def test_until_it_comes_up(self):
        """A server that comes up in time is given the whole request."""
        self.pass_through("type = \"retry\"")
        self.down = {1}
        self.begin(request("POST", "/", "Content-Length: 4", body=b"bo"))
        self.say(self.client, b"dy")
        self.down = set()
        self.dialogue.reactor.advance(0.1)
        end = self.asked()
        self.assertTrue(self.heard.endswith(b"\r\n\r\nbody"), self.heard)
        self.say(end, OK)
        self.assert_heard(b"200", b"ok")

    def test_all_servers(self):
        """All servers are tried at once before there is a pause, and these attempts count."""
        for most, dialled in ((1, 3), (2, 3), (3, 6), (5, 6), (6, 9)):
            self.pass_through(retrying(f"max_retries = {most}"), servers=3)
            self.down = {1, 2, 3}
            self.begin()
            for _ in range(10):
                self.assertIsNone(self.asked())
            self.assertEqual(len(self.dialled), dialled, most)
            for start in range(0, dialled, 3):
                self.assertEqual(sorted(self.dialled[start : start + 3]), [1, 2, 3])
            self.assert_refused(502, "connect-refused")
            self.tearDown()

    def test_mixed(self):
        """Failures of every kind count together."""
        self.pass_through(retrying("max_retries = 4"), servers=2)
        self.down = {2}
        end = self.begin()
        for fail in (break_off, say_nonsense):
            fail(self, end)
            end = self.asked()
        refuse(self, end)
        self.assert_heard(b"503", b"no\n")
        self.assertEqual((self.dialled, self.retries()), ([1, 2, 1, 2, 1], 4))


class PauseTests(OutageCase):
    """
    How long it is waited before the next attempt.
    """

    def pauses(self, *lines):
        """
        Return, in milliseconds and to within 10, how long the pauses were until there was no further attempt.
        """
        self.pass_through("\n".join(['type = "retry"', *lines]))
        found = []
        end = self.begin()
        while True:
            break_off(self, end)
            waited = 0
            while not self.hear(self.client):
                end = self.asked()
                if end is not None:
                    break
                waited += 10
                self.dialogue.reactor.advance(0.01)
            else:
                self.tearDown()
                return found
            found.append(waited)

    def test_they_grow(self):
        """Each is twice as long as the one before, up to a bound; up to a half of each is left to chance."""
        for lines, longest in (
            ((), [100, 200, 400]),
            (("max_retries = 6", "retry_interval_ms = 40"), [40, 80, 160, 320, 400, 400]),
            (("max_retries = 4", "retry_interval_ms = 100", "max_interval_ms = 300"), [100, 200, 300, 300]),
            (("max_retries = 2", "retry_interval_ms = 200", "max_interval_ms = 200"), [200, 200]),
            (("retry_interval_ms = 0",), [0, 0, 0]),
        ):
            pauses = self.pauses(*lines)
            self.assertEqual(len(pauses), len(longest), lines)
            for pause, top in zip(pauses, longest, strict=True):
                self.assertTrue(top / 2 <= pause <= top + 10, (lines, pauses))

    def test_they_differ(self):
        """Requests that failed together do not come back together."""
        self.assertGreater(len({self.pauses("max_retries = 1", "retry_interval_ms = 1000")[0] for _ in range(8)}), 2)

    def test_client_leaves(self):
        """A client that leaves in a pause is not retried for."""
        self.pass_through('type = "retry"')
        refuse(self, self.begin())
        self.client.close()
        self.dialogue.reactor.advance(5)
        self.assertIsNone(self.asked())
        self.assertEqual((self.retries(), self.dialogue.outcomes()), (0, ["client-closed"]))

    def test_body_meanwhile(self):
        """What comes of the body in a pause is sent with what came before; reading stops when enough is waiting."""
        self.pass_through('type = "retry"')
        size = 1_000_000
        end = self.begin(request("PUT", "/", f"Content-Length: {size}", body=b"x" * 10))
        refuse(self, end)
        for start in range(10, size, 10_000):
            self.say(self.client, b"x" * min(10_000, size - start))
        self.assertGreater(len(self.client.peer.arrived), 500_000)
        self.dialogue.reactor.advance(0.2)
        end = self.asked()
        received = len(self.heard.partition(b"\r\n\r\n")[2])
        while received < size:
            piece = self.hear(end)
            self.assertTrue(piece)
            received += len(piece)
        self.say(end, OK)
        self.assert_heard(b"200", b"ok")

    def test_total_time(self):
        """The time that the service allows for the whole includes the pauses."""
        self.pass_through('type = "retry"\nretry_interval_ms = 60000', service='timeouts { total = "5s" }')
        refuse(self, self.begin())
        self.dialogue.reactor.advance(5.5)
        self.assert_refused(504, "exchange-timeout")
        self.dialogue.reactor.advance(100)
        self.assertIsNone(self.asked())

    def test_reload(self):
        """A request in a pause is tried again though a reload has removed the middleware."""
        self.pass_through('type = "retry"')
        refuse(self, self.begin())
        self.dialogue.reload(config())
        self.dialogue.reactor.advance(0.2)
        self.assert_served()


class LimitTests(OutageCase):
    """
    How often is tried again.
    """

    def test_last_answer(self):
        """After the last attempt the client gets what came of it."""
        for most in (1, 3, 7):
            for fail, status, word in ((break_off, 502, "backend-closed"), (say_nonsense, 502, "response-malformed")):
                self.pass_through(retrying(f"max_retries = {most}"))
                end = self.begin()
                for _ in range(most):
                    fail(self, end)
                    end = self.asked()
                fail(self, end)
                self.assertIsNone(self.asked())
                self.assert_refused(status, word)
                self.assertEqual(self.retries(), most)
                self.tearDown()
        self.pass_through(retrying("max_retries = 1"))
        refuse(self, self.begin())
        refuse(self, self.asked())
        self.assert_heard(b"503", b"no\n")
        self.assertEqual(self.dialogue.outcomes(), ["completed"])

    def test_of_each_request(self):
        """Each request has its own."""
        self.pass_through(retrying("max_retries = 1"))
        for _ in range(3):
            refuse(self, self.begin())
            self.assert_served()

    def test_body_too_large(self):
        """A body that is too large to be kept is not sent twice."""
        for size, is_kept in ((100, True), (101, False)):
            self.pass_through(retrying(), service="max_replay_bytes = 100")
            refuse(self, self.begin(request("PUT", "/", f"Content-Length: {size}", body=b"x" * size)))
            self.assertEqual(self.asked() is not None, is_kept)
            self.tearDown()

    def test_two(self):
        """Of two in a chain each counts all attempts; what the first does not want, the second may."""
        self.pass_through(retrying("max_retries = 3"), retrying("max_retries = 2", "status_codes = [500]"))
        end = self.begin()
        for status in ("500 x", "503 x", "500 x"):
            self.say(end, response(status, "Content-Length: 0"))
            end = self.asked()
        # Three have failed: too many for the second.
        self.assertIsNone(end)
        self.assert_heard(b"500", b"\r\n\r\n")

    def test_time_of_each(self):
        """Each attempt has its own time, if that is shorter than what the service allows."""
        for milliseconds, allowed, seconds in ((1000, 30, 1), (5000, 30, 5), (60_000, 3, 3)):
            attributes = retrying("max_retries = 1", f"per_try_timeout_ms = {milliseconds}")
            self.pass_through(attributes, service=f'timeouts {{ response_header = "{allowed}s" }}')
            self.begin()
            for _ in range(2):
                self.dialogue.reactor.advance(seconds - 0.5)
                self.assertEqual((self.asked(), self.hear(self.client)), (None, b""))
                self.dialogue.reactor.advance(1)
                self.asked()
            self.assert_refused(504, "response-timeout")
            self.tearDown()

    def test_time_of_the_body(self):
        """An answer that has begun in time may take longer."""
        self.pass_through(retrying("per_try_timeout_ms = 1000"))
        end = self.begin()
        self.say(end, response("200 OK", "Content-Length: 2", body=b"o"))
        self.dialogue.reactor.advance(30)
        self.say(end, b"k")
        self.assert_heard(b"200", b"ok")


class BudgetTests(OutageCase):
    """
    An outage is not made worse.
    """

    def outage(self, requests, *lines, seconds=0.0):
        """
        Let every attempt fail while so many requests come, one after the other; return how many attempts there were.
        """
        self.pass_through(retrying(*lines))
        attempts = 0
        for _ in range(requests):
            end = self.begin()
            while end is not None:
                attempts += 1
                refuse(self, end)
                end = self.asked()
            self.assert_heard(b"503", b"no\n")
            self.dialogue.reactor.advance(seconds)
        return attempts

    def test_outage(self):
        """When everything fails, a fifth of the requests is repeated, and 10 a second; not everything, three times."""
        # The window of 10 seconds begins with 100 to be spent.
        self.assertEqual(self.outage(100), 100 + 20 + 100)
        self.assertEqual((self.retries(), self.state()["retries"]), (120, 120))
        self.assertGreater(self.state()["refused_by_budget"], 50)

    def test_share(self):
        """The share is what it is configured to be."""
        for percent, attempts in ((20, 120), (0.5, 100), (150, 250), (300, 400)):
            self.assertEqual(self.outage(100, f"budget_percent = {percent}", "budget_min_per_sec = 0"), attempts, percent)
            self.tearDown()

    def test_floor(self):
        """With few requests there are retries nevertheless, and old ones are forgotten."""
        retries = self.outage(100, "budget_percent = 0", "budget_min_per_sec = 0.5", seconds=2.0) - 100
        # In 200 seconds, by windows that hold up to 11 seconds for 10.
        self.assertTrue(80 <= retries <= 105, retries)

    def test_good_times(self):
        """The few failures of good times are all tried again."""
        self.pass_through(retrying("budget_min_per_sec = 0"))
        for _ in range(10):
            for _ in range(5):
                self.say(self.begin(), OK)
                self.hear(self.client)
            refuse(self, self.begin())
            self.assert_served()
        self.assertEqual(self.state(), {"retries": 10, "refused_by_budget": 0})

    def test_reload(self):
        """A reload that does not touch the middleware gives it no new budget; one that does, does."""
        attributes = retrying("budget_percent = 0", "budget_min_per_sec = 0.1")
        self.pass_through(attributes)
        refuse(self, self.begin())
        self.assert_served()
        for servers, text, is_retried in ((2, attributes, False), (2, attributes + "\nmax_retries = 2", True)):
            self.dialogue.reload(config(middlewares=[text], servers=servers))
            refuse(self, self.begin())
            self.assertEqual(self.asked() is not None, is_retried)
            self.hear(self.client)
