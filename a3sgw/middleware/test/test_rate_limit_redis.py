"""
Tests of `rate-limit-redis`, with a Redis that exists only here. What the real one does is in `tests.test_rate_limit_redis`.
"""

import json

from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IRequestHook, IResponseHook, IRetirable, IStateSource
from a3sgw.loading import load_string
from a3sgw.middleware import rate_limit_redis
from a3sgw.middleware.catalog import BUILT_IN, Catalog
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.rate_limit_redis import RateLimitRedis, RateLimitRedisConfig
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, MiddlewareCase, request
from a3sgw.middleware.test.fake_redis import FakeRedis
from a3sgw.observe.exposition import render
from a3sgw.observe.test.records import NOTHING_ELSE
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import middleware_contract

THREE = 'type = "rate-limit-redis"\nrate = 1\nburst = 3\nredis_url = "redis://redis.test"'
CLOSED = f"{THREE}\nfail_open = false"


def factory_for(redis):
    """
    Return the factory of limits that ask `redis`.
    """
    return MiddlewareFactory(RateLimitRedisConfig, lambda config, surroundings: RateLimitRedis(config, surroundings, redis.open))


def catalog_for(redis):
    """
    Return a catalog whose `rate-limit-redis` asks `redis`.
    """
    return Catalog.of([factory_for(redis), *(other for other in BUILT_IN if other.type_name != "rate-limit-redis")])


class RateLimitRedisContract(middleware_contract(rate_limit_redis.factory, 'rate = 1\nredis_url = "unix:///nowhere/redis.sock"')):
    """
    `rate-limit-redis` is a middleware, also where there is no Redis.
    """

    def test_phases(self):
        """It looks at requests, and at responses only if it has something to tell."""
        for headers in (True, False):
            settings = RateLimitRedisConfig(name="x", rate=1, redis_url=self.config().redis_url, headers=headers)
            limit = RateLimitRedis(settings, still_surroundings("x"))
            verifyObject(IRequestHook, limit)
            verifyObject(IStateSource, limit)
            verifyObject(IRetirable, limit)
            self.assertEqual(IResponseHook.providedBy(limit), headers)
        verifyObject(IResponseHook, RateLimitRedis(self.config(), still_surroundings("x")))


class RateLimitRedisCase(MiddlewareCase):
    """
    Clients of a gateway whose limit is in `redis`.
    """

    gateways = 1

    def begin(self, *middlewares, **settings):
        self.redis = FakeRedis()
        dialogue = self.pass_through(*(middlewares or (THREE,)), catalog=catalog_for(self.redis), **settings)
        self.redis.reactor = dialogue.reactor
        return dialogue

    def tearDown(self):
        super().tearDown()
        # Nobody was given two connections, and none is left by those who were retired.
        self.assertLessEqual(len(self.redis.open_connections), len(self.state()) * self.gateways)

    def ask_from(self, *lines, peer="192.0.2.1", method="GET"):
        """
        Send a request from `peer` on a connection of its own; return the client's end.
        """
        client = self.dialogue.connect(peer)
        self.say(client, request(method, "/", *lines))
        return client

    def arrive(self, *lines, **options):
        """
        Return how a request is answered: the status (0 if there is no answer yet), and the whole.
        """
        client = self.ask_from(*lines, **options)
        heard = self.answer_from(client)
        client.close()
        self.dialogue.reactor.settle()
        return heard

    def answer_from(self, client):
        """
        Have the servers answer what has reached them; return what `client` has heard, as `arrive` does.
        """
        self.dialogue.reactor.settle()
        for backend in self.dialogue.backends:
            if self.hear(backend):
                self.say(backend, OK)
        heard = self.hear(client)
        return int(heard[9:12] or b"0"), heard

    def statuses(self, count, *lines, **options):
        return [self.arrive(*lines, **options)[0] for _ in range(count)]

    def state(self):
        told = []
        self.dialogue.carrier.snapshot().addCallback(told.append)
        return [row["state"] for row in told[0]["gauges"]["middlewares"]]

    def limit(self):
        """
        Return the only limit.
        """
        (limit,) = (part for part in self.dialogue.carrier.generation().parts.values() if isinstance(part, RateLimitRedis))
        return limit

    def questions(self):
        """
        Return how often Redis was asked for a token since the last call.
        """
        return sum(word in ("EVAL", "EVALSHA") for word in self.redis.words())

    def catch_logs(self):
        """
        Return the list into which warnings and news of limits go from now on.
        """
        found = []

        def observe(event):
            if event["log_format"].startswith("rate limit"):
                found.append((event["log_level"], event["log_format"].format(**event)))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return found


class LimitTests(RateLimitRedisCase):
    """
    How many pass.
    """

    def test_burst(self):
        """As many as the burst pass at once, then one each time a token has come."""
        self.begin()
        self.assertEqual(self.statuses(5), [200, 200, 200, 429, 429])
        self.dialogue.reactor.advance(1)
        self.assertEqual(self.statuses(2), [200, 429])
        self.dialogue.reactor.advance(100)
        self.assertEqual(self.statuses(4), [200, 200, 200, 429])

    def test_nothing_before_the_first_request(self):
        """A gateway that nobody asks does not ask Redis either."""
        self.begin()
        self.dialogue.reactor.advance(10)
        self.assertEqual((self.redis.attempts, self.state()[0]["redis"]), (0, "idle"))
        self.statuses(1)
        self.assertEqual((self.redis.attempts, self.state()[0]["redis"]), (1, "ready"))

    def test_script(self):
        """The script is sent once; afterwards, and after Redis has forgotten it, no request is the worse for it."""
        self.begin()
        self.assertEqual(self.statuses(2), [200, 200])
        self.assertEqual(self.redis.words(), ["PING", "EVALSHA", "EVAL", "EVALSHA"])
        self.redis.knows_script = False
        self.assertEqual(self.statuses(2), [200, 429])
        self.assertEqual(self.redis.words(), ["EVALSHA", "EVAL", "EVALSHA"])

    def test_numbers(self):
        """Redis is told the key, the rate per second, the burst, and how long a bucket must be kept."""
        self.begin('type = "rate-limit-redis"\nrate = 30\nperiod_secs = 60\nburst = 5\nredis_url = "redis://redis.test"')
        self.statuses(1)
        self.assertEqual(self.redis.commands[-1][2:], [b"1", b"a3s:ratelimit:app:m1:192.0.2.1", b"0.5", b"5", b"20"])

    def test_two_gateways(self):
        """What one gateway admitted another one does not admit again."""
        self.gateways = 2
        self.begin()
        self.statuses(2)
        here, mine = self.dialogue, self.client
        there = self.converse(middlewares=[THREE], catalog=catalog_for(self.redis))
        self.redis.reactor = there.reactor
        self.assertEqual(self.statuses(3), [200, 429, 429])
        self.client.close()
        there.reactor.settle()
        self.redis.reactor = here.reactor
        self.dialogue, self.client, self.say, self.hear = here, mine, here.say, here.hear
        self.assertEqual(self.statuses(1), [429])

    def test_many_at_once(self):
        """Requests that wait together are decided each for itself, over one connection."""
        self.begin()
        self.redis.is_frozen = True
        clients = [self.ask_from() for _ in range(6)]
        self.redis.thaw()
        answers = sorted(self.answer_from(client)[0] for client in clients)
        self.assertEqual((answers, len(self.redis.connections)), ([200] * 3 + [429] * 3, 1))
        for client in clients:
            client.close()

    def test_insisting(self):
        """Who insists is refused without Redis being asked more than once a second, and is admitted when his time has come."""
        self.begin('type = "rate-limit-redis"\nrate = 1\nperiod_secs = 4\nredis_url = "redis://redis.test"')
        self.assertEqual(self.statuses(2), [200, 429])
        self.questions()
        self.assertEqual((set(self.statuses(20)), self.questions()), ({429}, 0))
        self.assertEqual((self.statuses(1, peer="192.0.2.2"), self.questions()), ([200], 1))
        for _ in range(3):
            self.dialogue.reactor.advance(1)
            self.assertEqual((set(self.statuses(20)), self.questions()), ({429}, 1))
        self.dialogue.reactor.advance(1)
        self.assertEqual((self.statuses(1), self.questions()), ([200], 1))
        self.assertEqual(self.limit()._refusals, {})

    def test_answer(self):
        """The refusal says why, and when to come back."""
        self.begin()
        self.statuses(3)
        for _ in range(2):
            status, heard = self.arrive("X-Request-Id: r-1")
            head, _, body = heard.partition(b"\r\n\r\n")
            for line in (b"Content-Type: application/json", b"Retry-After: 1", b"RateLimit-Remaining: 0", b"RateLimit-Reset: 3"):
                self.assertIn(b"\r\n" + line + b"\r\n", head)
            told = {"error": "Rate limit exceeded (distributed)", "reason": "rate-limited", "request_id": "r-1"}
            self.assertEqual((status, json.loads(body)), (429, told))

    def test_remembered_answer(self):
        """A refusal from memory counts the time down as Redis would."""
        self.begin('type = "rate-limit-redis"\nrate = 1\nperiod_secs = 10\nburst = 2\nredis_url = "redis://redis.test"')
        self.statuses(3)
        self.dialogue.reactor.advance(0.5)
        self.questions()
        _, heard = self.arrive()
        self.assertEqual(self.questions(), 0)
        self.assertIn(b"\r\nRetry-After: 10\r\n", heard)
        self.assertIn(b"\r\nRateLimit-Reset: 20\r\n", heard)
        self.dialogue.reactor.advance(0.5)
        _, heard = self.arrive()
        self.assertIn(b"\r\nRetry-After: 9\r\n", heard)
        self.assertIn(b"\r\nRateLimit-Reset: 19\r\n", heard)

    def test_many_refusals(self):
        """However many clients are refused, not all of them are remembered."""
        self.begin('type = "rate-limit-redis"\nrate = 1\nsource = "header"\nheader = "X-Who"\nredis_url = "redis://redis.test"')
        limit = self.limit()
        for number in range(rate_limit_redis._REFUSALS + 5):
            limit._refusals[b"%d" % number] = None
        self.statuses(2, "X-Who: me")
        self.assertEqual(len(limit._refusals), 1)

    def test_headers(self):
        """Who is admitted is told how he stands, unless that is switched off."""
        self.begin()
        for left, reset in [(2, 1), (1, 2), (0, 3)]:
            _, heard = self.arrive()
            self.assertIn(f"RateLimit-Limit: 3\r\nRateLimit-Remaining: {left}\r\nRateLimit-Reset: {reset}\r\n".encode(), heard)
        self.begin(f"{THREE}\nheaders = false")
        self.assertEqual(self.arrive(), (200, OK))
        self.statuses(2)
        self.assertNotIn(b"RateLimit", self.arrive()[1])

    def test_head(self):
        """The answer to HEAD has no body."""
        self.begin()
        self.statuses(3)
        status, heard = self.arrive(method="HEAD")
        self.assertEqual((status, heard.endswith(b"\r\n\r\n")), (429, True))

    def test_client_leaves(self):
        """A client that leaves while Redis is asked disturbs nobody."""
        self.begin()
        self.redis.is_frozen = True
        leaver, stayer = self.ask_from(), self.ask_from(peer="192.0.2.2")
        leaver.close()
        self.dialogue.reactor.settle()
        self.redis.thaw()
        self.assertEqual(self.answer_from(stayer)[0], 200)
        stayer.close()
        self.assertEqual((self.dialogue.outcomes(), self.state()[0]["unchecked"]), (["client-closed", "completed"], 0))

    def test_uploads(self):
        """The body of a request that waits is kept for the server."""
        self.begin()
        self.redis.is_frozen = True
        self.say(self.client, request("POST", "/", "Content-Length: 6", body=b"hel"))
        self.say(self.client, b"lo!")
        self.assertEqual(self.dialogue.backends, [])
        self.redis.thaw()
        self.assertTrue(self.hear(self.dialogue.backend()).endswith(b"\r\n\r\nhello!"))
        self.say(self.dialogue.backend(), OK)


class KeyTests(RateLimitRedisCase):
    """
    B37: what buckets are called in Redis.
    """

    def keys(self):
        return sorted(key.decode() for key in self.redis.buckets)

    def test_addresses(self):
        """By client address as people write it, IPv6 by its network."""
        self.begin()
        for peer in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2"):
            self.statuses(1, peer=peer)
        self.assertEqual(self.keys(), ["a3s:ratelimit:app:m1:192.0.2.1", "a3s:ratelimit:app:m1:2001:db8::"])

    def test_header(self):
        """By a hash of the header, which may be a secret; by address where there is none."""
        self.begin(f'{THREE}\nsource = "header"\nheader = "X-Api-Key"')
        self.assertEqual(self.statuses(4, "X-Api-Key: hunter2"), [200, 200, 200, 429])
        self.assertEqual(self.statuses(1, "X-Api-Key: hunter3") + self.statuses(1), [200, 200])
        address, *values = self.keys()
        self.assertEqual(address, "a3s:ratelimit:app:m1:192.0.2.1")
        self.assertEqual(len(values), 2)
        for value in values:
            self.assertRegex(value, r"\Aa3s:ratelimit:app:m1:=[0-9a-f]{32}\Z")

    def test_host_and_router(self):
        """By host, or by nothing but the router."""
        self.begin(f'{THREE}\nsource = "host"', f'{THREE}\nsource = "router"')
        self.statuses(1)
        self.assertEqual(self.keys(), ["a3s:ratelimit:app:m1:a.test", "a3s:ratelimit:app:m2"])

    def test_owners(self):
        """Routers and entrypoints of the same name have buckets of their own, and a colon in a name means nothing."""
        router = 'routers "{}" {{\n  rule = "PathPrefix(`/`) && Header(`X-Other`, `1`)"\n  service = "app"\n  middlewares = ["m1"]\n}}'
        self.begin(THREE, more=router.format("a:b%"), entrypoint='middlewares = ["m1"]')
        self.statuses(1)
        self.statuses(1, "X-Other: 1")
        self.assertEqual(
            self.keys(),
            [
                "a3s:ratelimit:a%3Ab%25:m1:192.0.2.1",
                "a3s:ratelimit:app:m1:192.0.2.1",
                "a3s:ratelimit:entrypoint:web:m1:192.0.2.1",
            ],
        )


class OutageTests(RateLimitRedisCase):
    """
    B37: when Redis does not answer.
    """

    def test_refused_open(self):
        """Where nobody listens requests pass at once, uncounted, without being told how they stand."""
        self.begin()
        self.redis.is_up = False
        self.assertEqual([self.arrive() for _ in range(5)], [(200, OK)] * 5)
        state = self.state()[0]
        self.assertEqual((state["redis"], state["unchecked"]), ("down", 5))

    def test_metrics(self):
        """How many that were can be seen from outside."""
        self.begin()
        self.redis.is_up = False
        self.statuses(3)
        told = []
        self.dialogue.carrier.snapshot().addCallback(told.append)
        page = render(told[0], NOTHING_ELSE).decode()
        self.assertIn('gateway_rate_limit_unchecked_total{router="app",entrypoint="",service="",middleware="m1"} 3\n', page)

    def test_refused_closed(self):
        """Or are answered 503, if so configured."""
        self.begin(CLOSED)
        self.redis.is_up = False
        for _ in range(3):
            status, heard = self.arrive("X-Request-Id: r-1")
            self.assertEqual(status, 503)
            self.assertIn(b"\r\nRetry-After: 1\r\n", heard)
            told = {"error": "Rate limit cannot be checked", "reason": "rate-limit-unavailable", "request_id": "r-1"}
            self.assertEqual(json.loads(heard.partition(b"\r\n\r\n")[2]), told)
        self.assertEqual(self.dialogue.outcomes(), ["rate-limit-unavailable"] * 3)

    def test_frozen(self):
        """A request waits for a frozen Redis no longer than `timeout_ms`, and further ones not at all."""
        for middleware, status in ((THREE, 200), (CLOSED, 503)):
            self.begin(f"{middleware}\ntimeout_ms = 250")
            self.redis.is_frozen = True
            client = self.ask_from()
            self.dialogue.reactor.advance(0.24)
            self.assertEqual(self.answer_from(client)[0], 0)
            self.dialogue.reactor.advance(0.01)
            self.assertEqual(self.answer_from(client)[0], status)
            client.close()
            self.assertEqual(self.statuses(3), [status] * 3)

    def test_frozen_later(self):
        """That is so also when the connection was there before, and everything is counted again as soon as Redis goes on."""
        self.begin(CLOSED)
        self.statuses(1)
        self.redis.is_frozen = True
        client = self.ask_from()
        self.dialogue.reactor.advance(0.1)
        self.assertEqual(self.answer_from(client)[0], 503)
        client.close()
        self.assertEqual(self.statuses(3), [503] * 3)
        self.redis.thaw()
        # The one that was answered 503 had taken its token nevertheless.
        self.assertEqual(self.statuses(2), [200, 429])

    def test_restarted(self):
        """After a restart it is asked again by itself, the script included."""
        self.begin(CLOSED)
        self.assertEqual(self.statuses(1), [200])
        self.redis.is_frozen = True
        client = self.ask_from()
        self.redis.stop()
        self.assertEqual(self.answer_from(client)[0], 503)
        client.close()
        self.assertEqual(self.statuses(2), [503, 503])
        self.redis.is_up = True
        self.dialogue.reactor.advance(5)
        self.assertEqual(self.statuses(4), [200, 200, 200, 429])

    def test_replica(self):
        """A server that has become a replica is left, to find the new master under the same name."""
        self.begin(CLOSED)
        self.statuses(1)
        self.redis.replies["EVALSHA"] = "READONLY You can't write against a read only replica."
        self.assertEqual(self.statuses(1), [503])
        self.assertEqual(self.redis.open_connections, [])
        del self.redis.replies["EVALSHA"]
        self.dialogue.reactor.advance(1)
        self.assertEqual(self.statuses(1), [200])

    def test_errors(self):
        """Other errors cost the request that meets them, and nothing else."""
        self.begin(CLOSED)
        self.statuses(1)
        for reply in ("OOM command not allowed", "WRONGTYPE", [], [1], [1, 2], [b"1", b"2"], [1, b"x"], [1, b"nan"], None, 7, b"x"):
            self.redis.replies["EVALSHA"] = reply
            self.assertEqual(self.statuses(1), [503], reply)
        del self.redis.replies["EVALSHA"]
        self.assertEqual((self.statuses(1), len(self.redis.connections)), ([200], 1))

    def test_forgetful(self):
        """A Redis that never learns the script is asked twice for each request, and no more."""
        self.begin(CLOSED)
        self.redis.replies["EVAL"] = self.redis.replies["EVALSHA"] = "NOPERM no scripts for you"
        self.assertEqual((self.statuses(1), self.questions()), ([503], 1))
        self.redis.replies["EVALSHA"] = "NOSCRIPT"
        self.assertEqual((self.statuses(1), self.questions()), ([503], 2))
        self.redis.replies["EVAL"] = "NOSCRIPT"
        self.assertEqual((self.statuses(1), self.questions()), ([503], 2))

    def test_log(self):
        """The log tells once of an outage and once of its end, without the password."""
        logged = self.catch_logs()
        self.begin(THREE.replace("redis://", "redis://:hunter2@"))
        self.redis.password = b"hunter2"
        self.statuses(2)
        self.assertEqual(logged, [])
        self.redis.stop()
        self.statuses(5)
        (warning,) = logged
        self.assertEqual(warning[0], LogLevel.warn)
        self.assertEqual(
            warning[1],
            'rate limit m1 of router "app": Redis at redis://redis.test:6379 cannot be reached: Connection was refused by other side.; '
            "requests pass uncounted until it answers",
        )
        self.redis.is_up = True
        self.dialogue.reactor.advance(5)
        self.statuses(5)
        self.assertEqual(logged[1:], [(LogLevel.info, 'rate limit m1 of router "app": Redis at redis://redis.test:6379 answers again')])

    def test_log_of_a_restless_redis(self):
        """A Redis that comes and goes does not fill the log, but a long outage is always told."""
        logged = self.catch_logs()
        self.begin(CLOSED)
        for _ in range(5):
            self.redis.stop()
            self.statuses(2)
            self.redis.is_up = True
            self.dialogue.reactor.advance(1)
            self.statuses(1)
        self.assertEqual(len(logged), 2)
        self.redis.stop()
        self.statuses(2)
        self.dialogue.reactor.advance(10)
        self.statuses(2)
        self.assertEqual(len(logged), 3)
        self.assertTrue(logged[2][1].endswith("; requests are answered 503 until it answers"), logged[2])


class ReloadTests(RateLimitRedisCase):
    """
    What a reload does to the connection.
    """

    def test_untouched(self):
        """A reload that does not touch the limit keeps its connection."""
        self.begin()
        self.statuses(1)
        self.dialogue.reload(config(middlewares=[THREE, 'type = "ip-allow"\nallowed_ips = ["0.0.0.0/0"]']))
        self.statuses(1)
        self.assertEqual(len(self.redis.connections), 1)

    def test_changed(self):
        """A changed limit has a connection of its own, and the buckets are still there; who waits on the old one is answered."""
        self.begin(CLOSED)
        self.assertEqual(self.statuses(2), [200, 200])
        self.redis.is_frozen = True
        client = self.ask_from()
        self.dialogue.reload(config(middlewares=[CLOSED + "\ntimeout_ms = 200"]))
        self.assertEqual(len(self.redis.open_connections), 1)
        self.redis.thaw()
        self.assertEqual(self.answer_from(client)[0], 200)
        client.close()
        self.assertEqual(self.redis.open_connections, [])
        self.assertEqual(self.statuses(1), [429])
        self.assertEqual(len(self.redis.open_connections), 1)

    def test_removed(self):
        """With the limit its connection goes, and no attempt is made any more."""
        self.begin()
        self.statuses(1)
        self.dialogue.reload(config())
        self.assertEqual(self.redis.open_connections, [])
        self.begin()
        self.redis.is_up = False
        self.statuses(1)
        self.dialogue.reload(config())
        attempts = self.redis.attempts
        self.dialogue.reactor.advance(60)
        self.assertEqual(self.redis.attempts, attempts)


class ConfigTests(SynchronousTestCase):
    """
    What is refused when the configuration is loaded.
    """

    def problems(self, attributes):
        text = config(middlewares=[f'type = "rate-limit-redis"\nrate = 1\n{attributes}'])
        return [str(problem) for problem in load_string(text, "gw.hcl", {}).problems]

    def test_good(self):
        """A URL is enough."""
        for url in ("redis://a.test", "rediss://me:s3cret@a.test:7000/1", "unix:///run/redis.sock?db=2"):
            self.assertEqual(self.problems(f'redis_url = "{url}"'), [])

    def test_refusals(self):
        """What cannot be meant is refused where it stands, and the URL is never shown."""
        for attributes, text in [
            ("", 'gw.hcl:11:1: middleware "m1" lacks "redis_url"'),
            ('redis_url = "http://hunter2"', "gw.hcl:14:13: middlewares.m1.redis_url is a hidden value, which does not begin with redis://"),
            ('redis_url = "redis://hunter2@a.test"', "gw.hcl:14:13: middlewares.m1.redis_url is a hidden value, which names a user"),
            ('redis_url = "redis://a.test"\ntimeout_ms = 0', "gw.hcl:15:14: middlewares.m1.timeout_ms is 0"),
            ('redis_url = "redis://a.test"\nsource = "header"', 'gw.hcl:15:10: middleware "m1" has source = "header" but names none'),
            (
                'redis_url = "rediss://a.test"\nredis_cert_file = "x"',
                'gw.hcl:15:19: middleware "m1" has redis_cert_file without redis_key_file; give both',
            ),
            (
                'redis_url = "rediss://a.test"\nredis_key_file = "x"',
                'gw.hcl:15:18: middleware "m1" has redis_key_file without redis_cert_file; give both',
            ),
            (
                'redis_url = "redis://a.test"\nredis_ca_file = "x"',
                'gw.hcl:15:17: middleware "m1" has redis_ca_file, but its redis_url asks for no TLS; write rediss://',
            ),
        ]:
            (problem,) = self.problems(attributes)
            self.assertTrue(problem.startswith(text), problem)
            self.assertNotIn("hunter2", problem)
