"""
Tests of `rate-limit`.
"""

import json

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IRequestHook, IResponseHook, IStateSource
from a3sgw.loading import load_string
from a3sgw.middleware import rate_limit
from a3sgw.middleware.rate_limit import RateLimit, RateLimitConfig
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, MiddlewareCase, request, response
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import middleware_contract

THREE = 'type = "rate-limit"\nrate = 1\nburst = 3'
PER_TENANT = 'type = "rate-limit"\nrate = 1\nsource = "header"\nheader = "X-Tenant"'
TRUSTING = 'forwarded_headers { trusted_ips = ["10.0.0.0/8"] }'


class RateLimitContract(middleware_contract(rate_limit.factory, "rate = 1\nburst = 1000")):
    """
    `rate-limit` is a middleware.
    """

    def test_phases(self):
        """It looks at requests, and at responses only if it has something to tell."""
        for headers in (True, False):
            limit = RateLimit(RateLimitConfig(name="x", rate=1, headers=headers), still_surroundings("x"))
            verifyObject(IRequestHook, limit)
            verifyObject(IStateSource, limit)
            self.assertEqual(IResponseHook.providedBy(limit), headers)
        verifyObject(IResponseHook, RateLimit(RateLimitConfig(name="x", rate=1), still_surroundings("x")))

    def test_repr(self):
        """A limit shows how it stands."""
        limit = RateLimit(RateLimitConfig(name="x", rate=30, period_secs=60, burst=5), still_surroundings("x"))
        self.assertEqual(repr(limit), "<RateLimit <Buckets 0.5/s, burst 5, 0 of 100000 keys>>")


class RateLimitCase(MiddlewareCase):
    """
    Clients that come too often.
    """

    def arrive(self, *lines, peer="192.0.2.1", method="GET", answer=OK):
        """
        Return how a request from `peer` is answered: the status, and the whole.
        """
        client = self.dialogue.connect(peer)
        self.say(client, request(method, "/", *lines))
        for backend in self.dialogue.backends:
            if self.hear(backend):
                self.say(backend, answer)
        heard = self.hear(client)
        client.close()
        self.dialogue.reactor.settle()
        return int(heard[9:12]), heard

    def statuses(self, count, *lines, **options):
        return [self.arrive(*lines, **options)[0] for _ in range(count)]

    def wait(self, seconds):
        """
        Let time pass, which the dialogue's clock counts in steps that are no binary fractions.
        """
        self.dialogue.reactor.advance(seconds)

    def state(self):
        told = []
        self.dialogue.carrier.snapshot().addCallback(told.append)
        return [row["state"] for row in told[0]["gauges"]["middlewares"]]


class LimitTests(RateLimitCase):
    """
    B25: how many pass.
    """

    def test_burst(self):
        """As many as the burst pass at once, then one each time a token has come, and never more than the burst after a rest."""
        self.pass_through(THREE)
        self.assertEqual(self.statuses(5), [200, 200, 200, 429, 429])
        self.wait(0.75)
        self.assertEqual(self.statuses(1), [429])
        self.wait(0.25)
        self.assertEqual(self.statuses(2), [200, 429])
        self.wait(100)
        self.assertEqual(self.statuses(4), [200, 200, 200, 429])

    def test_burst_by_default(self):
        """Without a burst, as many as the rate pass at once."""
        self.pass_through('type = "rate-limit"\nrate = 2')
        self.assertEqual(self.statuses(3), [200, 200, 429])
        self.wait(0.5)
        self.assertEqual(self.statuses(2), [200, 429])

    def test_period(self):
        """Ten a minute are one every six seconds."""
        self.pass_through('type = "rate-limit"\nrate = 10\nperiod_secs = 60\nburst = 1')
        self.assertEqual(self.statuses(2), [200, 429])
        self.wait(5.5)
        self.assertEqual(self.statuses(1), [429])
        self.wait(0.5)
        self.assertEqual(self.statuses(2), [200, 429])

    def test_refused_requests_cost_nothing(self):
        """Who insists is not punished for it."""
        self.pass_through(THREE)
        self.statuses(3)
        self.assertEqual(set(self.statuses(20)), {429})
        self.wait(1)
        self.assertEqual(self.statuses(2), [200, 429])

    def test_retry_after(self):
        """Who comes back when told is admitted."""
        self.pass_through('type = "rate-limit"\nrate = 10\nperiod_secs = 27\nburst = 1')
        self.statuses(1)
        for _ in range(3):
            status, heard = self.arrive()
            self.assertEqual((status, b"\r\nRetry-After: 3\r\n" in heard), (429, True), heard)
            self.wait(3)
            self.assertEqual(self.statuses(1), [200])

    def test_answer(self):
        """The refusal says why, and the server is not bothered."""
        self.pass_through(THREE)
        self.statuses(3)
        backends = len(self.dialogue.backends)
        _, heard = self.arrive("X-Request-Id: r-1")
        head, _, body = heard.partition(b"\r\n\r\n")
        self.assertIn(b"\r\nContent-Type: application/json\r\n", head)
        self.assertIn(b'Proxy-Status: a3s-gateway; error=http_request_denied; details="rate-limited"\r\n', head)
        self.assertEqual(json.loads(body), {"error": "Rate limit exceeded", "reason": "rate-limited", "request_id": "r-1"})
        self.assertEqual(len(self.dialogue.backends), backends)
        self.assertEqual(self.dialogue.outcomes(), ["completed"] * 3 + ["rate-limited"])

    def test_head(self):
        """The answer to HEAD has no body."""
        self.pass_through(THREE)
        self.statuses(3)
        status, heard = self.arrive(method="HEAD")
        self.assertEqual((status, heard.endswith(b"\r\n\r\n")), (429, True))

    def test_connection_goes_on(self):
        """A client that was refused keeps its connection, and its next request passes when its time has come."""
        self.pass_through(THREE)
        self.statuses(3)
        self.say(self.client, request())
        self.assertTrue(self.hear(self.client).startswith(b"HTTP/1.1 429 "))
        self.wait(1)
        backend = self.ask()
        self.hear(backend)
        self.say(backend, OK)
        self.assertTrue(self.hear(self.client).startswith(b"HTTP/1.1 200 "))

    def test_on_an_entrypoint(self):
        """The limit of an entrypoint holds for all its routers together."""
        other = (
            'routers "other" {\n  rule = "PathPrefix(`/`) && Header(`X-Other`, `1`)"\n  service = "app"\n}\n'
            f'middlewares "three" {{\n{THREE}\n}}'
        )
        self.converse(entrypoint='middlewares = ["three"]', more=other)
        self.assertEqual(self.statuses(2) + self.statuses(2, "X-Other: 1"), [200, 200, 200, 429])

    def test_every_router_counts_for_itself(self):
        """Two routers that list the same limit have one each."""
        other = 'routers "other" {\n  rule = "PathPrefix(`/`) && Header(`X-Other`, `1`)"\n  service = "app"\n  middlewares = ["m1"]\n}'
        self.pass_through(THREE, more=other)
        self.assertEqual(self.statuses(4) + self.statuses(4, "X-Other: 1"), [200, 200, 200, 429] * 2)

    def test_several(self):
        """Of several limits each must admit."""
        self.pass_through(THREE, 'type = "rate-limit"\nrate = 1\nsource = "router"\nburst = 4')
        self.assertEqual(self.statuses(4), [200, 200, 200, 429])
        self.assertEqual(self.statuses(2, peer="192.0.2.2"), [200, 429])


class SourceTests(RateLimitCase):
    """
    B25: whose requests are counted together.
    """

    def test_addresses(self):
        """Each address has a limit of its own; those of one /64 share one."""
        self.pass_through(THREE)
        self.statuses(3)
        for peer in ("192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"):
            self.assertEqual(self.statuses(4, peer=peer), [200, 200, 200, 429], peer)
        for peer in ("192.0.2.1", "::ffff:192.0.2.2", "2001:db8::2"):
            self.assertEqual(self.statuses(1, peer=peer), [429], peer)

    def test_trusted_proxy(self):
        """Behind a trusted proxy the client's own address counts; nobody else gets another limit by naming an address."""
        self.pass_through(THREE, entrypoint=TRUSTING)
        self.assertEqual(self.statuses(4, "X-Forwarded-For: 192.0.2.7", peer="10.0.0.1"), [200, 200, 200, 429])
        self.assertEqual(self.statuses(1, "X-Forwarded-For: 192.0.2.8", peer="10.0.0.1"), [200])
        self.assertEqual(self.statuses(1, peer="192.0.2.7"), [429])
        answers = [self.arrive(f"X-Forwarded-For: 192.0.2.{number}", peer="198.51.100.1")[0] for number in range(4)]
        self.assertEqual(answers, [200, 200, 200, 429])

    def test_prefixes(self):
        """Networks can be given one limit."""
        self.pass_through(f"{THREE}\nipv4_prefix = 24\nipv6_prefix = 48")
        answers = [self.arrive(peer=f"192.0.2.{number}")[0] for number in range(1, 5)]
        self.assertEqual(answers, [200, 200, 200, 429])
        answers = [self.arrive(peer=f"2001:db8:0:{number}::1")[0] for number in range(1, 5)]
        self.assertEqual(answers, [200, 200, 200, 429])

    def test_header(self):
        """With a header each value has a limit of its own, wherever it comes from, and those without one are told apart by address."""
        self.pass_through(PER_TENANT)
        self.assertEqual(self.statuses(2, "X-Tenant: a"), [200, 429])
        self.assertEqual(self.statuses(1, "x-tenant: a", peer="192.0.2.2"), [429])
        self.assertEqual(self.statuses(2, "X-Tenant: b"), [200, 429])
        self.assertEqual(self.statuses(2), [200, 429])
        self.assertEqual(self.statuses(1, peer="192.0.2.2"), [200])

    def test_host_and_router(self):
        """The host can be what counts, or nothing at all."""
        self.pass_through('type = "rate-limit"\nrate = 1\nsource = "host"')
        self.assertEqual(self.statuses(1) + self.statuses(1, peer="192.0.2.2"), [200, 429])
        client = self.dialogue.connect()
        self.say(client, b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n")
        backend = self.dialogue.backends[-1]
        self.hear(backend)
        self.say(backend, OK)
        self.assertTrue(self.hear(client).startswith(b"HTTP/1.1 200 "))
        client.close()
        self.dialogue.reload(config(middlewares=['type = "rate-limit"\nrate = 1\nsource = "router"']))
        self.assertEqual(self.statuses(1) + self.statuses(1, peer="192.0.2.2"), [200, 429])

    def test_bounded(self):
        """However many clients come, no more than `max_clients` are remembered, and none is locked out by the others."""
        self.pass_through('type = "rate-limit"\nrate = 1\nperiod_secs = 3600\nburst = 2\nmax_clients = 10')
        answers = [self.arrive(peer=f"192.0.2.{number}")[0] for number in range(30)]
        self.assertEqual(answers, [200] * 30)
        self.assertEqual(self.state(), [{"rate": 2 / 7200, "burst": 2, "clients": 10, "max_clients": 10}])

    def test_forgotten(self):
        """Clients that have recovered are forgotten as others come."""
        self.pass_through(THREE)
        for number in range(20):
            self.arrive(peer=f"192.0.2.{number}")
        self.wait(3)
        for number in range(20):
            self.arrive(peer=f"198.51.100.{number}")
        self.assertEqual(self.state()[0]["clients"], 20)


class HeaderTests(RateLimitCase):
    """
    B25: what clients are told.
    """

    def told(self, heard):
        found = [line.split(b": ") for line in heard.split(b"\r\n") if line.lower().startswith(b"ratelimit-")]
        return [(name, int(value)) for name, value in found]

    def test_admitted(self):
        """Every answer tells how its client stood when its request was admitted."""
        self.pass_through(THREE)
        for left, reset in [(2, 1), (1, 2), (0, 3), (0, 3)]:
            self.assertEqual(
                self.told(self.arrive()[1]),
                [(b"RateLimit-Limit", 3), (b"RateLimit-Remaining", left), (b"RateLimit-Reset", reset)],
            )

    def test_slow_answer(self):
        """It does not matter how long the server takes, nor who comes meanwhile."""
        self.pass_through(THREE)
        backend = self.ask()
        self.hear(backend)
        self.arrive()
        self.wait(10)
        self.say(backend, OK)
        self.assertIn((b"RateLimit-Remaining", 2), self.told(self.hear(self.client)))

    def test_answers_of_others(self):
        """An answer that another middleware gives behind it tells so too, and one before it is not counted."""
        forbidding = 'type = "ip-allow"\nallowed_ips = ["198.51.100.1"]'
        self.pass_through(THREE, forbidding)
        status, heard = self.arrive()
        self.assertEqual((status, self.told(heard)[1]), (403, (b"RateLimit-Remaining", 2)))
        self.pass_through(forbidding, THREE)
        status, heard = self.arrive()
        self.assertEqual((status, self.told(heard)), (403, []))
        self.assertIn((b"RateLimit-Remaining", 2), self.told(self.arrive(peer="198.51.100.1")[1]))

    def test_several(self):
        """Of several limits the one that leaves the fewest requests is told, once."""
        wide = 'type = "rate-limit"\nrate = 1\nsource = "router"\nburst = 100'
        for order in ((THREE, wide), (wide, THREE)):
            self.pass_through(*order)
            told = self.told(self.arrive()[1])
            self.assertEqual(told, [(b"RateLimit-Limit", 3), (b"RateLimit-Remaining", 2), (b"RateLimit-Reset", 1)])

    def test_server_with_a_limit(self):
        """A server that leaves fewer requests is believed."""
        self.pass_through(THREE)
        own = response("200 OK", "RateLimit-Limit: 2", "RateLimit-Remaining: 1", "RateLimit-Reset: 60", "Content-Length: 0")
        self.assertEqual(self.arrive(answer=own)[1], own)

    def test_switched_off(self):
        """Without `headers` nothing is told but when to come back."""
        self.pass_through(f"{THREE}\nheaders = false")
        self.assertEqual(self.arrive()[1], OK)
        self.statuses(2)
        status, heard = self.arrive()
        self.assertEqual((status, self.told(heard), b"\r\nRetry-After: 1\r\n" in heard), (429, [], True))


class ReloadTests(RateLimitCase):
    """
    What a reload does to the counts.
    """

    def test_untouched(self):
        """A reload that does not touch the limit does not give anybody a new one."""
        self.pass_through(THREE)
        self.statuses(3)
        self.dialogue.reload(config(middlewares=[THREE, 'type = "ip-allow"\nallowed_ips = ["0.0.0.0/0"]']))
        self.assertEqual(self.statuses(1), [429])

    def test_changed(self):
        """A changed limit counts anew, and an answer under way is told by the old one."""
        self.pass_through(THREE)
        backend = self.ask()
        self.hear(backend)
        self.dialogue.reload(config(middlewares=[THREE.replace("burst = 3", "burst = 2")]))
        self.assertEqual(self.statuses(3), [200, 200, 429])
        self.say(backend, OK)
        self.assertIn(b"\r\nRateLimit-Limit: 3\r\n", self.hear(self.client))


class ConfigTests(SynchronousTestCase):
    """
    What is refused when the configuration is loaded.
    """

    def problems(self, attributes):
        text = config(middlewares=[f'type = "rate-limit"\n{attributes}'])
        return [str(problem) for problem in load_string(text, "gw.hcl", {}).problems]

    def test_good(self):
        """A rate is enough."""
        self.assertEqual(self.problems("rate = 1"), [])
        self.assertEqual(self.problems('rate = 4294967295\nburst = 1\nsource = "header"\nheader = "X-A"\nmax_clients = 1'), [])

    def test_refusals(self):
        """C30: numbers that would admit nobody, and sources that cannot be, are refused where they stand."""
        for attributes, text in [
            ("", 'gw.hcl:11:1: middleware "m1" lacks "rate"'),
            ("rate = 0", "gw.hcl:13:8: middlewares.m1.rate is 0, which is not from 1 to 4294967295"),
            ("rate = 1\nburst = 0", "gw.hcl:14:9: middlewares.m1.burst is 0"),
            ("rate = 0.5", "gw.hcl:13:8: middlewares.m1.rate is 0.5"),
            ("rate = 1\nperiod_secs = 0", "gw.hcl:14:15: middlewares.m1.period_secs is 0"),
            ("rate = 1\nmax_clients = 0", "gw.hcl:14:15: middlewares.m1.max_clients is 0"),
            ("rate = 1\nipv4_prefix = 33", "gw.hcl:14:15: middlewares.m1.ipv4_prefix is 33, which is not from 0 to 32"),
            ("rate = 1\nipv6_prefix = 129", "gw.hcl:14:15: middlewares.m1.ipv6_prefix is 129, which is not from 0 to 128"),
            ('rate = 1\nsource = "ip"', 'gw.hcl:14:10: middlewares.m1.source is "ip"'),
            ('rate = 1\nsource = "header"', 'gw.hcl:14:10: middleware "m1" has source = "header" but names none'),
            ('rate = 1\nheader = "X-A"', 'gw.hcl:14:10: middleware "m1" has a header but its source is "client-ip"'),
        ]:
            (problem,) = self.problems(attributes)
            self.assertTrue(problem.startswith(text), problem)
