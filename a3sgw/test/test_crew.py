"""
Tests of several carriers that carry for one gateway: what one knows the other goes by.
"""

import os

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.assembly_parts import Crew
from a3sgw.policy.arena import Arena
from a3sgw.proxy.test.dialogues import OK, config, request, response
from a3sgw.testing import Dialogue

FAILURE = response("503 Service Unavailable", "Content-Length: 0")


class CrewCase(SynchronousTestCase):
    """
    Two workers with the same configuration.
    """

    def begin(self, *, balancing="", **settings):
        arena = Arena.create(2)
        self.addCleanup(arena.close)
        arenas = [arena, Arena(os.dup(arena.descriptor), 1, 2)]
        self.addCleanup(arenas[1].close)
        self.arenas = arenas
        self.text = config(**settings).replace("load_balancer {", f"load_balancer {{\n{balancing}")
        self.workers = [Dialogue(self.text, crew=Crew(b"k" * 32, arenas[who], lambda who=who: self.announce(who))) for who in range(2)]

    def announce(self, who):
        self.workers[1 - who].carrier.judged_elsewhere()

    def advance(self, seconds):
        """
        Let time pass for both.
        """
        while seconds > 0:
            for worker in self.workers:
                worker.reactor.advance(min(seconds, 0.01))
            seconds -= 0.01

    def ask(self, who):
        """
        Have a client of its own ask a worker; return its end.
        """
        client = self.workers[who].connect()
        self.workers[who].say(client, request())
        return client

    def answer(self, who, data=OK):
        """
        Answer all that a worker has asked its backends; return how many that were.
        """
        worker = self.workers[who]
        worker.reactor.settle()
        asked = [backend for backend in worker.backends if worker.hear(backend)]
        for backend in asked:
            worker.say(backend, data)
        return len(asked)

    def status(self, who, client):
        heard = self.workers[who].hear(client)
        return int(heard.split(b" ", 2)[1]) if heard else None

    def exchange(self, who, data=OK):
        client = self.ask(who)
        self.answer(who, data)
        return self.status(who, client)

    def middleware_states(self, who):
        return [row["state"] for row in self.successResultOf(self.workers[who].carrier.snapshot())["gauges"]["middlewares"]]


class LimitTests(CrewCase):
    """
    Limits hold for both together.
    """

    def test_rate(self):
        """A token is taken by whoever comes first."""
        self.begin(middlewares=['type = "rate-limit"\nrate = 1\nburst = 3'])
        self.assertEqual([self.exchange(who) for who in (0, 1, 0, 1, 0)], [200, 200, 200, 429, 429])
        self.advance(1.01)
        self.assertEqual([self.exchange(who) for who in (1, 0)], [200, 429])
        self.assertEqual([self.middleware_states(who)[0]["clients"] for who in (0, 1)], [1, 1])

    def test_rate_after_another_worker(self):
        """A worker that comes in the place of another, and one that reloads, find the buckets as they were."""
        self.begin(middlewares=['type = "rate-limit"\nrate = 1\nburst = 2'])
        self.assertEqual([self.exchange(0) for _ in range(3)], [200, 200, 429])
        self.workers[1] = Dialogue(self.text, crew=Crew(b"k" * 32, self.arenas[1]))
        self.assertEqual(self.exchange(1), 429)
        self.workers[0].reload(self.text)
        self.assertEqual(self.exchange(0), 429)

    def test_in_flight(self):
        """A place that comes free in one is found by who waits in the other."""
        self.begin(middlewares=['type = "in-flight"\namount = 1\nqueue_size = 1\nqueue_timeout_ms = 5000'])
        first, second = self.ask(0), self.ask(1)
        self.assertEqual((self.answer(1), self.status(1, second)), (0, None))
        self.assertEqual([self.status(who, self.ask(who)) for who in (0, 1)], [429, 429], "the queue has one place, for both")
        self.answer(0)
        self.assertEqual(self.status(0, first), 200)
        self.advance(0.02)
        self.assertEqual((self.answer(1), self.status(1, second)), (1, 200))
        self.advance(0.02)
        self.assertEqual([row for who in (0, 1) for row in self.middleware_states(who)], [{"in_flight": 0, "queued": 0}] * 2)

    def test_in_flight_of_each_source(self):
        """So with a number for each source; who leaves the queue, or waits too long, leaves its place to others."""
        limit = 'type = "in-flight"\namount = 1\nsource = "client-ip"\nqueue_size = 1\nqueue_timeout_ms = 200'
        self.begin(middlewares=[limit])
        first, second = self.ask(0), self.ask(1)
        self.assertEqual(self.status(0, self.ask(0)), 429)
        second.close()
        self.workers[1].reactor.settle()
        third = self.ask(1)
        self.advance(0.3)
        self.assertEqual(self.status(1, third), 429)
        fourth = self.ask(1)
        self.answer(0)
        self.assertEqual(self.status(0, first), 200)
        self.advance(0.02)
        self.assertEqual((self.answer(1), self.status(1, fourth)), (1, 200))

    def test_worker_gone(self):
        """The requests of a worker that is gone hold no place."""
        self.begin(middlewares=['type = "in-flight"\namount = 1'])
        self.ask(0)
        self.assertEqual(self.status(1, self.ask(1)), 429)
        self.arenas[1].clear(0)
        self.assertEqual(self.exchange(1), 200)

    def test_waiting_room(self):
        """A server's places are those of both, and so is the queue before them."""
        scaling = "scaling {\n container_concurrency = 1\n buffer_enabled = true\n buffer_size = 1\n buffer_timeout_secs = 5\n}"
        self.begin(service=scaling)
        first, second = self.ask(0), self.ask(1)
        self.assertEqual(self.answer(1), 0)
        self.assertEqual([self.status(who, self.ask(who)) for who in (0, 1)], [503, 503])
        (backend,) = self.workers[1].carrier.generation().services["app"].backends
        self.assertTrue(backend.is_full(1))
        self.answer(0)
        self.assertEqual(self.status(0, first), 200)
        self.advance(0.02)
        self.assertEqual((self.answer(1), self.status(1, second)), (1, 200))
        self.assertFalse(backend.is_full(1))

    def test_circuit(self):
        """A circuit that one opens is open for the other, and closed for both after a good trial."""
        for scope in ("router", "backend"):
            self.begin(middlewares=[f'type = "circuit-breaker"\nscope = "{scope}"\nfailure_threshold = 2\ncooldown_secs = 5'])
            self.assertEqual([self.exchange(who, FAILURE) for who in (0, 1)], [503, 503])
            asked = [len(worker.backends) for worker in self.workers]
            clients = [self.ask(who) for who in (0, 1)]
            self.assertEqual([self.answer(who) for who in (0, 1)], [0, 0], scope)
            self.assertEqual([self.status(who, client) for who, client in enumerate(clients)], [503, 503])
            self.assertEqual([len(worker.backends) for worker in self.workers], asked)
            self.advance(5.1)
            self.assertEqual(self.exchange(1), 200)
            self.assertEqual([self.exchange(who) for who in (0, 1, 0)], [200] * 3)
            self.assertEqual([self.middleware_states(who)[0]["circuit"] for who in (0, 1)], ["closed", "closed"])
            self.assertEqual(sum(self.middleware_states(who)[0]["opened"] for who in (0, 1)), 1)

    def test_ejection(self):
        """A server that fails both is set aside by both, tried again by one, and taken back by both."""
        passive = "passive_health {\n consecutive_errors = 2\n recovery_secs = 3\n}"
        self.begin(servers=2, balancing=passive)

        def usable(who):
            return [backend.url for backend in self.workers[who].carrier.generation().services["app"].usable]

        def serve(who):
            # The first server fails, the other does not.
            first, _ = self.workers[who].carrier.generation().services["app"].backends
            client = self.ask(who)
            self.answer(who, FAILURE if first.in_flight else OK)
            client.close()
            self.workers[who].reactor.settle()

        for _ in range(4):
            for who in (0, 1):
                serve(who)
        self.assertEqual([len(usable(who)) for who in (0, 1)], [1, 1])
        self.assertEqual(usable(0), usable(1))
        self.advance(3.1)
        self.assertEqual([len(usable(who)) for who in (0, 1)], [2, 2])
        for _ in range(2):
            self.exchange(0)
        states = [
            row["state"]
            for who in (0, 1)
            for row in self.successResultOf(self.workers[who].carrier.snapshot())["gauges"]["backends"]
        ]
        self.assertEqual(states, ["usable"] * 4)


    def test_divided(self):
        """Where nobody counts for all, each has its part, rounded up."""
        shadow = 'services "shadow" {\n load_balancer {\n servers = [{ url = "http://192.0.2.9" }]\n}\n}'
        pooling = "connection_pool {\n max_connections = 5\n}"
        self.begin(service=pooling + '\nmirror {\n service = "shadow"\n max_in_flight = 7\n}', more=shadow)
        for worker in self.workers:
            app = worker.carrier.generation().services["app"]
            self.assertEqual(app.traits.mirror.max_in_flight, 4)
            self.assertEqual({pool.settings.max_connections for pool in app.backends[0].pools}, {3})


class SharedKeyTests(CrewCase):
    """
    Cookies are good in all workers.
    """

    def test_sticky(self):
        """A client whose cookie one worker has set goes to the same server by the other."""
        self.begin(servers=3, balancing='sticky {\n cookie = "s"\n}')
        client = self.ask(0)
        self.answer(0)
        heard = self.workers[0].hear(client)
        cookie = heard.split(b"Set-Cookie: ")[1].split(b";")[0].decode()
        self.workers[0].reactor.advance(1)
        (bound,) = [b.url for b in self.workers[0].carrier.generation().services["app"].backends if b.series.requests]
        for _ in range(4):
            other = self.workers[1].connect()
            self.workers[1].say(other, request("GET", "/", f"Cookie: {cookie}"))
            self.answer(1)
            other.close()
        self.workers[1].reactor.advance(1)
        counts = {b.url: b.series.requests for b in self.workers[1].carrier.generation().services["app"].backends}
        self.assertEqual(counts, {url: 4 if url == bound else 0 for url in counts})
