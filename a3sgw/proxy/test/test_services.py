"""
Dialogues with services that have more than one group of servers and a turn: cookies, revisions, places, verdicts, and who steps in.
"""

import re

from a3sgw.proxy.test.dialogues import OK, DialogueCase, config, request, response
from a3sgw.testing import Dialogue

UNAVAILABLE = response("503 No", "Content-Length: 0")


class ServiceCase(DialogueCase):
    """
    A dialogue in which requests come one after the other, each on a connection of its own.
    """

    def exchange(self, *lines, answer=OK, method="GET", body=b""):
        """
        Send a request and answer it; return the number of the server that was asked (0 for none) and what the client heard.
        """
        client = self.dialogue.connect()
        self.say(client, request(method, "/", *lines, body=body))
        asked = 0
        for backend in self.dialogue.backends:
            if self.hear(backend):
                asked = self.server_of(backend)
                self.say(backend, answer)
        heard = self.hear(client)
        client.close()
        self.dialogue.reactor.settle()
        return asked, heard

    def begin(self, *lines, method="GET"):
        """
        Send a request that stays unanswered; return the client's end and the number of the server asked.
        """
        client = self.dialogue.connect()
        self.say(client, request(method, "/", *lines))
        for backend in self.dialogue.backends:
            if self.hear(backend):
                return client, backend, self.server_of(backend)
        return client, None, 0

    def server_of(self, backend):
        for service in self.dialogue.carrier.generation().services.values():
            for each in service.backends:
                pool = each.pool
                for upstream in [*pool._idle, *self.upstreams(pool)]:
                    if upstream._stream._socket is backend.peer:
                        return int(each.url[-1])
        raise AssertionError("nobody's connection")

    def upstreams(self, pool):
        return [
            stream.receiver
            for stream in self.dialogue.reactor.watched()
            if getattr(getattr(stream, "receiver", None), "_pool", None) is pool
        ]

    def cookie(self, heard):
        """
        Return the cookie that a response sets, as a request sends it back.
        """
        (value,) = re.findall(rb"\r\nSet-Cookie: (server=[^;]+); Path=/; Max-Age=(?:\d+); HttpOnly; SameSite=Lax\r\n", heard)
        return f"Cookie: a=b; {value.decode()}"

    def states(self):
        result = []
        self.dialogue.carrier.snapshot().addCallback(result.append)
        return {int(row["url"][-1]): row["up"] for row in result[0]["gauges"]["backends"]}


def balanced(*settings, servers=3, service="", **more):
    """
    Return the configuration of a service with these lines in its `load_balancer`.
    """
    text = config(servers=servers, service=service, **more)
    return text.replace("    servers = [", "    " + "\n    ".join(settings) + "\n    servers = [", 1)


class BalancedCase(ServiceCase):
    """
    A dialogue with a service that has these lines in its `load_balancer`.
    """

    def balance(self, *settings, answers_dials=True, **more):
        self.talk(balanced(*settings, **more), answers_dials=answers_dials)

    def talk(self, text, *, answers_dials=True):
        self.text = text
        self.dialogue = Dialogue(self.text, answers_dials=answers_dials)
        self.client = self.dialogue.connect()
        self.say, self.hear = self.dialogue.say, self.dialogue.hear


class StickyTests(BalancedCase):
    """
    A cookie keeps a client on its server.
    """

    def test_bound(self):
        """The first answer sets a cookie, and who brings it back is served by the same server, without another cookie."""
        self.balance('sticky { cookie = "server" }')
        for _ in range(3):
            first, heard = self.exchange()
            cookie = self.cookie(heard)
            for _ in range(4):
                again, heard = self.exchange(cookie)
                self.assertEqual(again, first)
                self.assertNotIn(b"Set-Cookie", heard)

    def test_first_pick_by_strategy(self):
        """Clients without a cookie are spread as the strategy has it."""
        self.balance('sticky { cookie = "server" }')
        self.assertEqual([self.exchange()[0] for _ in range(6)], [1, 2, 3, 1, 2, 3])

    def test_nothing_shows(self):
        """The cookie tells nobody which server it names, and two services have different ones for the same server."""
        self.balance('sticky { cookie = "server" }')
        _, heard = self.exchange()
        self.assertNotIn(b"192.0.2.", heard)

    def test_forged(self):
        """A cookie that was made up, cut off, or is somebody else's rebalances."""
        self.balance('sticky { cookie = "server" }')
        _, heard = self.exchange()
        good = self.cookie(heard)
        for bad in ("Cookie: server=", "Cookie: server=192.0.2.1", good[:-1], good + "x", good[:-2] + "zz", "Cookie: server=" + "A" * 48):
            _, heard = self.exchange(bad)
            self.assertIn(b"\r\nSet-Cookie: server=", heard, bad)

    def test_reload(self):
        """Bindings survive a reload, even of the service itself; when the server is gone they rebalance."""
        self.balance('sticky { cookie = "server" }')
        self.exchange()
        second, heard = self.exchange()
        cookie = self.cookie(heard)
        self.dialogue.reload(balanced('sticky { cookie = "server" }', servers=2, service='timeouts { idle = "5s" }'))
        self.assertEqual(self.exchange(cookie)[0], second)
        self.dialogue.reload(balanced('sticky { cookie = "server" }', servers=1))
        asked, heard = self.exchange(cookie)
        self.assertEqual(asked, 1)
        self.cookie(heard)

    def test_shared_keys(self):
        """Two gateways with a key in common agree; without, they do not."""
        shared = 'sticky {\n cookie = "server"\n keys = ["a key of many letters"]\n }'
        self.balance(shared)
        self.exchange()
        second, heard = self.exchange()
        cookie = self.cookie(heard)
        self.tearDown()
        self.balance(shared)
        self.assertEqual(self.exchange(cookie)[0], second)
        self.tearDown()
        self.balance(shared.replace("many", "other"))
        self.assertIn(b"Set-Cookie", self.exchange(cookie)[1])

    def test_renewed(self):
        """A cookie is renewed while the client comes back, and worthless when its time is over."""
        self.balance('sticky {\n cookie = "server"\n ttl_secs = 100\n }')
        _, heard = self.exchange()
        self.assertIn(b"Max-Age=100;", heard)

    def test_drain(self):
        """A server that drains gets no new clients, and keeps those it has; its connections are kept too."""
        self.balance('sticky { cookie = "server" }')
        self.exchange()
        second, heard = self.exchange()
        cookie = self.cookie(heard)
        kept = self.dialogue.backends[-1]
        text = self.text.replace('url = "http://192.0.2.2"', 'url = "http://192.0.2.2", state = "drain"')
        self.assertNotEqual(text, self.text)
        self.dialogue.reload(text)
        self.assertEqual({self.exchange()[0] for _ in range(6)}, {1, 3})
        self.assertEqual(self.exchange(cookie)[0], second)
        self.assertIs(self.dialogue.backends[1], kept)
        self.assertEqual(self.states(), {1: True, 2: False, 3: True})

    def test_retry(self):
        """A bound client whose server cannot be reached is served by another, and bound to that."""
        self.balance('sticky { cookie = "server" }', answers_dials=False, servers=2)
        self.say(self.client, request())
        self.dialogue.attempts[0].fail()
        backend = self.dialogue.attempts[0].succeed()
        self.dialogue.reactor.settle()
        self.hear(backend)
        self.say(backend, OK)
        cookie = self.cookie(self.hear(self.client))
        self.say(self.client, request("GET", "/", cookie))
        self.assertTrue(self.hear(backend).startswith(b"GET / "))
        self.say(backend, OK)
        self.assertNotIn(b"Set-Cookie", self.hear(self.client))


class RevisionTests(BalancedCase):
    """
    Revisions share the traffic.
    """

    def revise(self, one=90, two=10, **more):
        revisions = "".join(
            f' revisions {{\n name = "v{number}"\n traffic_percent = {percent}\n servers = [{{ url = "http://192.0.2.{number}" }}]\n }}\n'
            for number, percent in ((1, one), (2, two))
        )
        service = revisions + more.pop("extra", "")
        self.talk(config(servers=0, service=service).replace("servers = []", more.pop("balancer", ""), 1))

    def test_shares(self):
        """Any hundred requests are divided exactly, without bursts, and the log and the metrics say which revision it was."""
        self.revise()
        asked = [self.exchange()[0] for _ in range(100)]
        self.assertEqual((asked.count(1), asked.count(2)), (90, 10))
        self.assertNotIn([2, 2], [asked[at : at + 2] for at in range(99)])

    def test_asked_for(self):
        """A header or a cookie chooses a revision; a name that does not exist chooses nothing."""
        self.revise(100, 0, extra='revision_header = "X-Revision"\n revision_cookie = "revision"')
        self.assertEqual(self.exchange()[0], 1)
        self.assertEqual(self.exchange("X-Revision: v2")[0], 2)
        self.assertEqual(self.exchange("Cookie: revision=v2")[0], 2)
        self.assertEqual(self.exchange("X-Revision: v3")[0], 1)
        self.assertEqual(self.exchange("X-Revision: v1", "Cookie: revision=v2")[0], 1)

    def test_sticky(self):
        """A client stays with the revision that its cookie names, also on another server of it."""
        self.revise(50, 50, balancer='sticky { cookie = "server" }')
        for _ in range(2):
            first, heard = self.exchange()
            cookie = self.cookie(heard)
            self.assertEqual({self.exchange(cookie)[0] for _ in range(4)}, {first})

    def test_unusable(self):
        """A revision without a usable server leaves its requests to the others."""
        self.revise(50, 50, balancer="passive_health {\n consecutive_errors = 1\n max_ejection_percent = 100\n }")
        service = self.dialogue.carrier.generation().services["app"]
        service.groups[1].backends[0].verdicts.is_draining = True
        service.refresh()
        self.assertEqual({self.exchange()[0] for _ in range(4)}, {1})


class PlaceTests(BalancedCase):
    """
    Servers serve so many requests at a time, and others wait.
    """

    def limit(self, scaling, **more):
        self.balance(service=f"scaling {{\n {scaling}\n }}", **more)

    def test_limit(self):
        """A server never has more requests than it may; who finds none free is told to come again."""
        self.limit("container_concurrency = 1", servers=2)
        busy = [self.begin() for _ in range(2)]
        self.assertEqual({row[2] for row in busy}, {1, 2})
        asked, heard = self.exchange()
        self.assertEqual(asked, 0)
        self.assertIn(b"HTTP/1.1 503 ", heard)
        self.assertIn(b"\r\nRetry-After: 1\r\n", heard)
        self.assertIn(b'"reason": "concurrency-limit"', heard)
        self.say(busy[0][1], OK)
        self.assertEqual(self.exchange()[0], busy[0][2])
        self.say(busy[1][1], OK)

    def test_queue(self):
        """Who may wait is served in turn, one for each place that comes free."""
        self.limit("container_concurrency = 1\n buffer_enabled = true", servers=1)
        _, backend, _ = self.begin()
        waiting = [self.begin(f"X-Number: {number}")[0] for number in range(3)]
        for number in range(3):
            self.say(backend, OK)
            self.assertIn(b"X-Number: %d\r\n" % number, self.hear(backend))
        self.say(backend, OK)
        for client in waiting:
            self.assertTrue(self.hear(client).endswith(b"ok"))
            client.close()
        self.assertEqual(len(self.dialogue.backends), 1)

    def test_full_and_late(self):
        """Who finds the queue full is told at once, who has waited long enough is told then."""
        self.limit("container_concurrency = 1\n buffer_enabled = true\n buffer_size = 1\n buffer_timeout_secs = 5", servers=1)
        _, backend, _ = self.begin()
        waiting = self.begin()[0]
        _, heard = self.exchange()
        self.assertIn(b'"reason": "buffer-full"', heard)
        self.dialogue.reactor.advance(5)
        heard = self.hear(waiting)
        self.assertIn(b"HTTP/1.1 504 ", heard)
        self.assertIn(b'"reason": "buffer-timeout"', heard)
        self.say(backend, OK)
        self.assertEqual(self.exchange()[0], 1)

    def test_client_leaves_the_queue(self):
        """A client that leaves while it waits takes nobody's place."""
        self.limit("container_concurrency = 1\n buffer_enabled = true", servers=1)
        _, backend, _ = self.begin()
        gone, stays = self.begin("X-A: gone")[0], self.begin("X-A: stays")[0]
        gone.close()
        self.dialogue.reactor.settle()
        self.say(backend, OK)
        self.assertIn(b"X-A: stays\r\n", self.hear(backend))
        self.say(backend, OK)
        self.assertTrue(self.hear(stays).endswith(b"ok"))

    def test_places_come_back(self):
        """However an exchange ends, its place comes back."""
        self.limit("container_concurrency = 1", servers=1)
        client, _, _ = self.begin()
        client.close()
        self.dialogue.reactor.settle()
        _, backend, _ = self.begin()
        backend.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.exchange()[0], 1)
        self.assertEqual(self.dialogue.carrier.generation().services["app"].traits.room.in_use, 0)

    def test_buffer_without_limit(self):
        """Requests wait for a server that can be used at all, and go on as soon as there is one."""
        self.limit("buffer_enabled = true", servers=1)
        service = self.dialogue.carrier.generation().services["app"]
        service.backends[0].verdicts.is_draining = True
        service.refresh()
        client, _, asked = self.begin()
        self.assertEqual(asked, 0)
        service.backends[0].verdicts.is_draining = False
        service.refresh()
        backend = self.dialogue.backend()
        self.hear(backend)
        self.say(backend, OK)
        self.assertTrue(self.hear(client).endswith(b"ok"))

    def test_reload(self):
        """Who waits is served by what a reload brings, and sent away if the service is gone."""
        scaling = "container_concurrency = 1\n buffer_enabled = true"
        self.limit(scaling, servers=1)
        _, backend, _ = self.begin()
        client = self.begin()[0]
        self.dialogue.reload(balanced(servers=2, service=f"scaling {{\n {scaling}\n }}"))
        second = self.dialogue.backend()
        self.assertIsNot(second, backend)
        self.hear(second)
        self.say(second, OK)
        self.assertTrue(self.hear(client).endswith(b"ok"))
        self.say(backend, OK)
        room = self.dialogue.carrier.generation().services["app"].traits.room
        self.assertEqual(room.in_use, 0)
        busy = [self.begin() for _ in range(2)]
        client = self.begin()[0]
        self.dialogue.reload(config(servers=1).replace('services "app"', 'services "new"').replace('"app"\n  middle', '"new"\n  middle'))
        self.assertIn(b'"reason": "no-backend"', self.hear(client))
        for _, backend, _ in busy:
            self.say(backend, OK)


class FailoverTests(BalancedCase):
    """
    Another service steps in.
    """

    SPARE = 'services "spare" {\n load_balancer {\n servers = [{ url = "http://192.0.2.9" }]\n }\n}\n'

    def fail_over(self, failover='failover { service = "spare" }', **more):
        service = more.pop("service", "")
        self.balance(service=f"{failover}\n{service}", more=self.SPARE, **more)

    def test_nobody_usable(self):
        """When no server can be used, the other service is asked, and no longer than that."""
        self.fail_over(servers=1)
        service = self.dialogue.carrier.generation().services["app"]
        service.backends[0].verdicts.is_draining = True
        service.refresh()
        self.assertEqual(self.exchange()[0], 9)
        service.backends[0].verdicts.is_draining = False
        service.refresh()
        self.assertEqual(self.exchange()[0], 1)

    def test_nobody_answers_the_door(self):
        """When no server can be connected to, the other service is asked, whatever the method."""
        self.fail_over(servers=2, answers_dials=False)
        self.say(self.client, request("POST", "/", "Content-Length: 2", body=b"ab"))
        for _ in range(2):
            self.dialogue.attempts[0].fail()
        backend = self.dialogue.attempts[0].succeed()
        self.dialogue.reactor.settle()
        self.assertEqual(self.server_of(backend), 9)
        self.assertTrue(self.hear(backend).endswith(b"\r\n\r\nab"))
        self.say(backend, OK)
        self.assertTrue(self.hear(self.client).endswith(b"ok"))

    def test_statuses(self):
        """After an answer that is configured so, a request that may be repeated goes to the other service."""
        self.fail_over('failover {\n service = "spare"\n status_codes = [503]\n }', servers=1)
        self.say(self.client, request())
        backend = self.dialogue.backend()
        self.hear(backend)
        self.say(backend, UNAVAILABLE)
        spare = self.dialogue.backend()
        self.assertEqual(self.server_of(spare), 9)
        self.hear(spare)
        self.say(spare, OK)
        self.assertTrue(self.hear(self.client).endswith(b"ok"))
        asked, heard = self.exchange(answer=UNAVAILABLE, method="POST")
        self.assertTrue(heard.startswith(b"HTTP/1.1 503 No"), heard)
        self.assertEqual(asked, 1)

    def test_before_waiting(self):
        """Nobody waits for a place as long as another service has one."""
        self.fail_over(servers=1, service="scaling {\n container_concurrency = 1\n buffer_enabled = true\n }")
        _, backend, _ = self.begin()
        self.assertEqual(self.exchange()[0], 9)
        self.say(backend, OK)
        self.assertEqual(self.exchange()[0], 1)

    def test_both_fail(self):
        """When the other service fails too, the client is told so."""
        self.fail_over(servers=1, answers_dials=False)
        self.say(self.client, request())
        for _ in range(2):
            self.dialogue.attempts[0].fail()
        self.assert_refused(502, "connect-refused")


class PassiveTests(BalancedCase):
    """
    Servers that fail real requests are set aside for a while.
    """

    RULES = "passive_health {\n consecutive_errors = 2\n recovery_secs = 10\n }"

    def fail_twice(self):
        """
        Let server 1 fail two requests in a row, and the others answer.
        """
        failed = 0
        for _ in range(6):
            client, backend, asked = self.begin()
            failed += asked == 1
            self.say(backend, UNAVAILABLE if asked == 1 else OK)
            self.hear(client)
            client.close()
            if failed == 2:
                return
        raise AssertionError("server 1 was not asked twice")

    def test_set_aside(self):
        """After too many failures in a row nobody is sent there, and everybody can see why."""
        self.balance(self.RULES)
        self.fail_twice()
        self.assertEqual(self.states(), {1: False, 2: True, 3: True})
        self.assertEqual({self.exchange()[0] for _ in range(6)}, {2, 3})
        backend = self.dialogue.carrier.generation().services["app"].backends[0]
        self.assertEqual(backend.verdicts.reason, "ejected: for 10 s: 2 requests in a row failed, at last: status 503")

    def test_comes_back(self):
        """After its time a single request tries it; if that goes well, it is used again."""
        self.balance(self.RULES)
        self.fail_twice()
        self.dialogue.reactor.advance(10.5)
        for _ in range(3):
            client, backend, asked = self.begin()
            if asked == 1:
                break
            self.say(backend, OK)
            client.close()
        self.assertEqual(asked, 1)
        self.assertEqual({self.exchange()[0] for _ in range(4)}, {2, 3})
        self.say(backend, OK)
        self.assertIn(1, {self.exchange()[0] for _ in range(4)})
        self.assertEqual(self.states(), {1: True, 2: True, 3: True})

    def test_fails_again(self):
        """A server that fails its trial is set aside for longer."""
        self.balance(self.RULES)
        self.fail_twice()
        self.dialogue.reactor.advance(10.5)
        self.assertIn(1, [self.exchange(answer=UNAVAILABLE)[0] for _ in range(3)])
        self.assertFalse(self.states()[1])
        self.dialogue.reactor.advance(10.5)
        self.assertFalse(self.states()[1])
        self.dialogue.reactor.advance(10)
        self.assertTrue(self.states()[1])

    def test_never_the_last(self):
        """A service never loses its last server to this."""
        self.balance(self.RULES, servers=1)
        for _ in range(10):
            self.assertEqual(self.exchange(answer=UNAVAILABLE)[0], 1)

    def test_connection_failures(self):
        """A server that refuses connections is set aside too, and clients notice nothing."""
        self.balance(self.RULES, servers=2, answers_dials=False)
        for _ in range(3):
            client = self.dialogue.connect()
            self.say(client, request("GET", "/", "Connection: close"))
            for attempt in list(self.dialogue.attempts):
                if attempt.addresses[0][1][0] == "192.0.2.1":
                    attempt.fail()
            backend = self.dialogue.attempts[0].succeed() if self.dialogue.attempts else self.dialogue.backends[-1]
            self.dialogue.reactor.settle()
            self.hear(backend)
            self.say(backend, response("200 OK", "Connection: close", "Content-Length: 2", body=b"ok"))
            self.assertTrue(self.hear(client).endswith(b"ok"))

    def test_kept_connections_closed(self):
        """A server that closes connections which nobody used is no failing server."""
        self.balance(self.RULES, servers=2)
        clients = []
        for _ in range(6):
            client, backend, asked = self.begin()
            clients.append((client, backend, asked))
        for _client, backend, _asked in clients:
            self.say(backend, OK)
        kept = [(client, backend) for client, backend, asked in clients if asked == 1]
        for client, _backend in kept:
            client.send(request())
        for connection in list(self.dialogue.door().connections):
            connection._stream.doRead()
        self.dialogue.reactor.flushes.run()
        self.assertGreater(len([backend for _client, backend in kept if backend.take()]), 1)
        for _client, backend in kept:
            backend.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.states(), {1: True, 2: True})
        for client, _backend in kept:
            client.close()

    def test_reload(self):
        """Verdicts survive a reload that leaves their rules alone, with the time they have yet to run."""
        self.balance(self.RULES)
        self.fail_twice()
        self.dialogue.reload(balanced(self.RULES, service='timeouts { idle = "7s" }'))
        self.assertEqual(self.states(), {1: False, 2: True, 3: True})
        self.dialogue.reactor.advance(10.5)
        self.assertEqual(self.states(), {1: True, 2: True, 3: True})

    def test_other_rules(self):
        """By other rules everybody begins anew."""
        self.balance(self.RULES)
        self.fail_twice()
        self.dialogue.reload(balanced(self.RULES.replace("10", "20")))
        self.assertEqual(self.states(), {1: True, 2: True, 3: True})
        self.dialogue.reactor.advance(30)
        self.assertEqual(self.states(), {1: True, 2: True, 3: True})


class TimeoutTests(BalancedCase):
    """
    Exchanges have bounds, of the service or of the router.
    """

    def test_total(self):
        """An exchange that takes too long as a whole is answered 504, or broken off if it has begun."""
        self.balance(service='timeouts { total = "5s" }', servers=1)
        backend = self.ask()
        self.dialogue.reactor.advance(5.5)
        self.assert_refused(504, "exchange-timeout")
        self.assertTrue(backend.was_reset)
        backend = self.ask()
        self.say(backend, response("200 OK", "Content-Length: 9", body=b"be"))
        self.hear(self.client)
        self.dialogue.reactor.advance(5.5)
        self.assertTrue(self.client.was_reset)

    def test_router(self):
        """A router may have other bounds than the service."""
        text = config(servers=1, service='timeouts { response_header = "60s" }')
        self.talk(text.replace("rule        =", 'timeouts { response_header = "2s" }\n  rule ='))
        self.ask()
        self.dialogue.reactor.advance(3)
        self.assert_refused(504, "response-timeout")


class StrategyTests(BalancedCase):
    """
    Every strategy that can be configured chooses, and lets go.
    """

    def test_each(self):
        """Each strategy sends requests to servers, and every count is back at zero in the end."""
        for strategy in ("round-robin", "weighted", "least-connections", "random", "p2c", "least-time", "consistent-hash"):
            self.balance(f'strategy = "{strategy}"', 'slow_start = "5s"')
            asked = {self.exchange()[0] for _ in range(30)}
            # All of them are one client's.
            self.assertEqual(len(asked), 1 if strategy == "consistent-hash" else 3, strategy)
            self.tearDown()
            self.dialogue = None

    def test_least_connections(self):
        """Requests go where the fewest are under way."""
        self.balance('strategy = "least-connections"')
        busy = [self.begin() for _ in range(3)]
        self.assertEqual({row[2] for row in busy}, {1, 2, 3})
        self.say(busy[1][1], OK)
        self.assertEqual(self.begin()[2], busy[1][2])
        for client, backend, _ in busy:
            self.say(backend, OK)
            client.close()

    def test_hash(self):
        """The same header leads to the same server, and many to all."""
        self.balance('strategy = "consistent-hash"', 'hash {\n source = "header"\n name = "X-User"\n }')
        chosen = {number: self.exchange(f"X-User: {number}")[0] for number in range(40)}
        self.assertEqual(set(chosen.values()), {1, 2, 3})
        for number, server in chosen.items():
            self.assertEqual(self.exchange(f"X-User: {number}")[0], server)
