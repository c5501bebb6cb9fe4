"""
Tests of the carrier: reloads between two events, and the end.
"""

import gc
import json
import weakref

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.assembly import STEP
from a3sgw.errors import AssemblyError
from a3sgw.interfaces import ICarrier
from a3sgw.loading import load_string
from a3sgw.observe.logsink import MemorySink
from a3sgw.proxy.test.dialogues import OK, request, response
from a3sgw.testing import Dialogue


def describe(*, ports=(8080,), servers=(1,), rules=("PathPrefix(`/`)",), extra=""):
    """
    Return a configuration with entrypoints at `ports`, one service with `servers`, and one router for each of `rules`.
    """
    listed = ", ".join(f'{{ url = "http://192.0.2.{server}" }}' for server in servers)
    return "\n".join(
        [
            *[f'entrypoints "web{port}" {{\n address = "127.0.0.1:{port}"\n}}' for port in ports],
            *[f'routers "r{number}" {{\n rule = "{rule}"\n service = "app"\n}}' for number, rule in enumerate(rules)],
            f'services "app" {{\n load_balancer {{ servers = [{listed}] }}\n}}',
            extra,
        ]
    )


class CarrierCase(SynchronousTestCase):
    """
    A carrier in a dialogue.
    """

    def begin(self, **settings):
        self.dialogue = Dialogue(describe(**settings))
        self.carrier = self.dialogue.carrier
        self.client = self.dialogue.connect()
        return self.carrier

    def connect(self, port=8080):
        return self.dialogue.connect(address=("127.0.0.1", port))

    def reload(self, **settings):
        self.dialogue.reload(describe(**settings))

    def prepare(self, **settings):
        """
        Prepare a configuration; return what came of it: an empty list, or the failure.
        """
        failures = []
        self.carrier.prepare(load_string(describe(**settings), "test.hcl", {}).valid_config()).addErrback(failures.append)
        return failures

    def ask(self, client=None, target="/"):
        self.dialogue.say(client or self.client, request("GET", target))
        (backend,) = [backend for backend in self.dialogue.backends if self.dialogue.hear(backend)]
        return backend

    def exchange(self, client=None, target="/"):
        """
        Let a whole exchange happen; return what the client heard.
        """
        backend = self.ask(client, target)
        self.dialogue.say(backend, OK)
        heard = self.dialogue.hear(client or self.client)
        self.assertTrue(heard.endswith(b"ok"), heard)
        return heard

    def assert_refused(self, client, word):
        heard = self.dialogue.hear(client)
        self.assertIn(b'"reason": "%b"' % word.encode(), heard)

    def snapshot(self):
        return self.successResultOf(self.carrier.snapshot())

    def log(self):
        """
        Return the outcomes in the access log.
        """
        self.dialogue.reactor.advance(1)
        return [json.loads(line)["outcome"] for line in self.dialogue.sink.data.splitlines()]


class ReloadTests(CarrierCase):
    """
    The next request is served by the new configuration, and nothing that runs is disturbed.
    """

    def test_interface(self):
        """A carrier is what the deciding side expects."""
        verifyObject(ICarrier, self.begin())

    def test_objects_are_kept(self):
        """Without a change everything is kept, doors and their sockets too."""
        carrier = self.begin()
        self.exchange()
        before, doors = carrier.generation(), carrier.doors()
        self.reload()
        after = carrier.generation()
        self.assertIsNot(after, before)
        self.assertEqual(carrier.doors(), doors)
        self.assertIs(after.services["app"], before.services["app"])
        self.assertIs(after.doors["web8080"].entrypoint.table, before.doors["web8080"].entrypoint.table)
        self.exchange()
        self.assertEqual(len(self.dialogue.backends), 1, "the idle connection was kept")

    def test_next_request_on_an_open_connection(self):
        """A connection that is kept alive is served by the new table from its next request on."""
        self.begin()
        self.exchange(target="/a")
        self.reload(rules=["Path(`/b`)"])
        self.dialogue.say(self.client, request("GET", "/a"))
        self.assert_refused(self.client, "no-route")
        self.exchange(target="/b")

    def test_in_flight(self):
        """An exchange that began under the old configuration ends under it, even if nothing of it is left."""
        self.begin()
        backend = self.ask()
        self.reload(servers=[2], rules=["Path(`/b`)"])
        self.assertFalse(backend.has_ended)
        self.dialogue.say(backend, OK)
        self.assertTrue(self.dialogue.hear(self.client).endswith(b"ok"))
        self.assertTrue(backend.has_ended, "the connection of a removed server is not kept")
        self.exchange(target="/b")
        self.dialogue.assert_clean(self)

    def test_request_ahead(self):
        """A request that was sent ahead under the old configuration is served by the new one."""
        self.begin()
        self.dialogue.say(self.client, request() + request("GET", "/a"))
        backend = self.dialogue.backend()
        self.reload(rules=["Path(`/b`)"])
        self.dialogue.say(backend, OK)
        self.assert_refused(self.client, "no-route")

    def test_upload(self):
        """An upload goes on while its configuration is replaced."""
        self.begin()
        self.dialogue.say(self.client, request("POST", "/", "Content-Length: 6", body=b"abc"))
        backend = self.dialogue.backend()
        self.reload(servers=[2])
        self.dialogue.say(self.client, b"def")
        self.assertTrue(self.dialogue.hear(backend).endswith(b"\r\n\r\nabcdef"))
        self.dialogue.say(backend, OK)
        self.assertTrue(self.dialogue.hear(self.client).endswith(b"ok"))

    def test_queue_of_a_removed_server(self):
        """Who waits for a connection to a removed server still gets it."""
        self.begin(extra='routers "limited" {\n rule = "Path(`/limited`)"\n service = "limited"\n}\n' + self.LIMITED)
        second = self.connect()
        backend = self.ask(target="/limited")
        self.dialogue.say(second, request("GET", "/limited"))
        self.reload()
        self.dialogue.say(backend, OK)
        self.assertIn(b"GET /limited ", self.dialogue.hear(backend))
        self.dialogue.say(backend, OK)
        self.assertTrue(self.dialogue.hear(second).endswith(b"ok"))
        self.assertTrue(backend.has_ended)

    LIMITED = """
    services "limited" {
      load_balancer { servers = [{ url = "http://192.0.2.9" }] }
      connection_pool { max_connections = 1 }
    }
    """

    def test_idle_connections_of_a_removed_server(self):
        """Idle connections to a removed server are closed, those to the others stay."""
        self.begin(servers=[1, 2])
        self.exchange()
        self.exchange()
        first, second = self.dialogue.backends
        self.reload(servers=[2])
        self.dialogue.reactor.settle()
        self.assertEqual((first.has_ended, second.has_ended), (True, False))

    def test_new_door(self):
        """A new entrypoint is opened with the swap, and not before."""
        self.begin()
        self.assertEqual(self.prepare(ports=[8080, 9090]), [])
        client = self.connect(9090)
        self.dialogue.say(client, request())
        self.assertEqual(self.dialogue.backends, [])
        self.carrier.commit()
        self.dialogue.reactor.settle()
        self.assertIn(b"GET / ", self.dialogue.hear(self.dialogue.backend()))
        self.assertEqual(sorted(self.carrier.ports()), ["web8080", "web9090"])

    def test_removed_door(self):
        """A removed entrypoint lets nobody in, ends its idle connections, and lets what is in flight end."""
        self.begin(ports=[8080, 9090])
        idle, busy = self.connect(9090), self.connect(9090)
        backend = self.ask(busy)
        self.reload(ports=[8080])
        self.assertRaises(AssertionError, self.connect, 9090)
        self.dialogue.reactor.advance(1.6)
        self.assertEqual((idle.has_ended, busy.has_ended), (True, False))
        self.assertEqual(self.snapshot()["gauges"]["active_connections"], 2)
        self.dialogue.say(backend, OK)
        heard = self.dialogue.hear(busy)
        self.assertTrue(heard.endswith(b"ok"), heard)
        self.assertIn(b"\r\nConnection: close\r\n", heard)
        busy.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.snapshot()["gauges"]["active_connections"], 1)
        self.exchange()

    def test_door_that_comes_back(self):
        """An entrypoint that comes back while its old door still drains has a door of its own."""
        self.begin(ports=[8080, 9090])
        busy = self.connect(9090)
        backend = self.ask(busy)
        self.reload(ports=[8080])
        self.reload(ports=[8080, 9090])
        self.exchange(self.connect(9090))
        self.dialogue.say(backend, OK)
        self.assertTrue(self.dialogue.hear(busy).endswith(b"ok"))

    def test_renamed_door(self):
        """An entrypoint with another name at the same address keeps its socket and its connections."""
        self.begin()
        (door,) = self.carrier.doors()
        self.dialogue.reload(describe().replace("web8080", "edge"))
        self.assertEqual((self.carrier.doors(), self.carrier.ports()), ([door], {"edge": 8080}))
        self.exchange()
        self.assertEqual(door.entrypoint.name, "edge")

    def test_swapped_doors(self):
        """Two entrypoints that swap their addresses keep both sockets."""
        self.begin(ports=[8080, 9090])
        doors = self.carrier.doors()
        text = describe(ports=[8080, 9090])
        self.dialogue.reload(text.replace(":8080", ":x").replace(":9090", ":8080").replace(":x", ":9090"))
        self.assertEqual(set(self.carrier.doors()), set(doors))
        self.assertEqual({door.entrypoint.name: door.address[1] for door in doors}, {"web8080": 9090, "web9090": 8080})
        self.exchange()

    def test_gates_and_timeouts_change(self):
        """Other terms of an entrypoint count from the next connection, or request, on."""
        self.begin()
        text = describe()
        self.dialogue.reload(text.replace(':8080"', ':8080"\n max_connections = 1\n timeouts { request_header = "2s" }'))
        self.assert_refused(self.connect(), "connection-limit")
        self.dialogue.say(self.client, b"GET / HT")
        self.dialogue.reactor.advance(3)
        self.assert_refused(self.client, "request-timeout")


class LeftoverTests(CarrierCase):
    """
    What a reload replaces goes by itself, because the garbage collector no longer looks at what lived long.
    """

    def test_nothing_stays(self):
        """Nothing of ours waits for the collector after a reload, the old generation least of all."""
        extra = "dashboard {\n enabled = true\n}"
        self.begin(rules=["Path(`/a`)"] * (2 * STEP), extra=extra)
        self.exchange(target="/a")
        config = load_string(describe(rules=["Path(`/b`)"] * (2 * STEP), extra=extra), "test.hcl", {}).valid_config()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        old = weakref.ref(self.carrier.generation())
        self.dialogue.reload(config)
        self.assertIsNone(old())
        self.addCleanup(gc.set_debug, 0)
        self.addCleanup(gc.garbage.clear)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        self.assertEqual([each for each in gc.garbage if type(each).__module__.startswith("a3sgw.")], [])


class PrepareTests(CarrierCase):
    """
    What fails before the swap leaves everything as it was.
    """

    def untouched(self):
        snapshot = self.snapshot()
        snapshot["series"] = [row for row in snapshot["series"] if row["is_live"]]
        return self.carrier.generation(), self.carrier.doors(), self.dialogue.reactor.watched(), snapshot

    def test_bind_failure(self):
        """If one of several new doors cannot be bound, the others are closed again and the old ones never noticed."""
        carrier = self.begin()
        bound = []

        def bind(name, host, port):
            if port == 9091:
                raise AssemblyError("in use")
            bound.append(self.dialogue._bind(name, host, port))
            return bound[-1]

        carrier._bind_socket = bind
        before = self.untouched()
        (failure,) = self.prepare(ports=[8080, 9090, 9091], servers=[1, 2])
        failure.trap(AssemblyError)
        self.assertEqual(len(bound), 1)
        self.assertTrue(bound[0].is_closed)
        self.assertEqual(self.untouched(), before)
        self.exchange()
        self.assertEqual(self.prepare(), [], "another one can be prepared")

    def test_log_failure(self):
        """If the access log cannot be opened the reason says which."""
        carrier = self.begin()

        def refuse(config):
            raise PermissionError(13, "Permission denied")

        carrier._open_sink = refuse
        before = self.untouched()
        (failure,) = self.prepare(extra='observability {\n access_log { file = "/var/log/x" }\n}')
        self.assertEqual(str(failure.value), "access log /var/log/x cannot be opened: Permission denied")
        self.assertEqual(self.untouched(), before)

    def many(self):
        """
        Return a configuration with more services and routers than are assembled at a time.
        """
        rows = [f'services "s{n}" {{\n load_balancer {{ servers = [{{ url = "http://192.0.2.7" }}] }}\n}}\n' for n in range(2 * STEP)]
        rows += [f'routers "many{n}" {{\n rule = "Path(`/{n}`)"\n service = "s{n}"\n}}\n' for n in range(2 * STEP)]
        return load_string(describe(servers=[3]) + "".join(rows), "test.hcl", {}).valid_config()

    def test_in_steps(self):
        """A large configuration is prepared in steps, between which requests are served, and none can be prepared beside it."""
        carrier = self.begin()
        before = carrier.generation()
        done = carrier.prepare(self.many())
        self.assertNoResult(done)
        self.exchange()
        (failure,) = self.prepare()
        self.assertEqual(str(failure.value), "another configuration is being prepared")
        self.dialogue.reactor.advance(0)
        self.successResultOf(done)
        self.assertIs(carrier.generation(), before)
        self.successResultOf(carrier.commit())
        self.assertEqual(len(carrier.generation().config.routers), 2 * STEP + 1)

    def test_abandoned_in_between(self):
        """What is being prepared and is no longer wanted leaves no trace either, and whoever waits for it is told."""
        carrier = self.begin()
        before = self.untouched()
        done = carrier.prepare(self.many())
        carrier.abandon()
        self.failureResultOf(done, AssemblyError)
        self.assertEqual(self.untouched(), before)
        self.assertEqual(self.prepare(), [], "another one can be prepared")

    def test_abandoned_at_each_step(self):
        """However far it has come, nothing is left of it."""
        carrier = self.begin()
        before = self.untouched()
        for steps in range(20):
            done = carrier.prepare(self.many())
            for _ in range(steps):
                (step,) = [call for call in self.dialogue.reactor.getDelayedCalls() if call.func == carrier._go_on]
                step.cancel()
                carrier._go_on(carrier._preparing)
                if carrier._preparing is None:
                    break
            is_prepared = carrier._preparing is None
            carrier.abandon()
            (self.successResultOf if is_prepared else self.failureResultOf)(done)
            self.assertEqual(self.untouched(), before)
            if is_prepared:
                break
        self.assertTrue(is_prepared and steps > 6, steps)
        self.assertEqual(self.prepare(), [], "another one can be prepared")

    def test_abandoned(self):
        """What was prepared and is not wanted is closed, and leaves no trace."""
        self.begin()
        before = self.untouched()
        opened = []
        self.carrier._open_sink = lambda config: opened.append(MemorySink(1000)) or opened[-1]
        other_log = 'observability {\n access_log { format = "common" }\n}'
        self.assertEqual(self.prepare(ports=[8080, 9090], servers=[1, 2], extra=other_log), [])
        self.carrier.abandon()
        self.carrier.abandon()
        self.assertTrue(opened[0].is_closed)
        self.assertFalse(self.dialogue.sink.is_closed)
        self.assertRaises(AssertionError, self.connect, 9090)
        self.assertEqual(self.untouched(), before)
        self.exchange()
        self.assertEqual(self.log(), ["completed"])

    def test_one_at_a_time(self):
        """Only one configuration can be prepared at a time."""
        self.begin()
        self.assertEqual(self.prepare(), [])
        (failure,) = self.prepare()
        failure.trap(AssemblyError)
        self.carrier.commit()
        self.assertEqual(self.prepare(), [])

    def test_same_port_elsewhere(self):
        """A port that this gateway itself holds at another address cannot be bound before the swap: that is said."""
        self.begin()
        failures = []
        config = load_string(describe().replace("127.0.0.1:8080", ":8080"), "test.hcl", {}).valid_config()
        self.carrier.prepare(config).addErrback(failures.append)
        self.assertIn('entrypoint "web8080" cannot listen on port 8080: this gateway itself does', failures[0].getErrorMessage())
        self.exchange()


class ObservationTests(CarrierCase):
    """
    Counts and logs over reloads.
    """

    def totals(self):
        snapshot = self.snapshot()
        requests = sum(sum(counts) for row in snapshot["series"] for _, _, counts, _, _ in row["cells"])
        return requests, sum(snapshot["outcomes"].values()), self.carrier.totals()[1]

    def test_totals_never_fall(self):
        """Whatever a reload takes away stays counted."""
        self.begin(servers=[1, 2])
        expected = 0
        for change in ({}, {"servers": [2]}, {"rules": ["Path(`/`)"]}, {"ports": [8080, 9090]}, {}, {"servers": [3]}):
            self.exchange()
            backend = self.ask()
            self.reload(**change)
            self.dialogue.say(backend, OK)
            self.dialogue.hear(self.client)
            expected += 2
            self.assertEqual(self.totals(), (expected,) * 3)

    def test_removed_names_disappear(self):
        """What is not in the configuration any more is not in the metrics either, except in the totals."""
        self.begin(servers=[1, 2], rules=["Path(`/a`)", "Path(`/b`)"])
        self.exchange(target="/b")
        self.reload(servers=[2], rules=["Path(`/a`)"])
        snapshot = self.snapshot()
        self.assertEqual({row["router"] for row in snapshot["series"] if row["is_live"]}, {"", "r0"})
        self.assertEqual([url for _, url, *_ in snapshot["backends"]], ["http://192.0.2.2"])
        self.assertEqual(self.totals(), (1,) * 3)

    def test_retries(self):
        """Retries, and requests passed on to another service, stay counted when their service is replaced."""
        failover = 'services "spare" {\n load_balancer { servers = [{ url = "http://192.0.2.9" }] }\n}'
        self.begin(servers=[1, 2])
        self.dialogue.reload(self.failing_over(failover))
        self.dialogue.answers_dials = False
        self.dialogue.say(self.client, request())
        for _ in range(3):
            self.dialogue.attempts[0].fail()
        self.assertEqual(self.counted(), [("app", 1, 1), ("spare", 0, 0)])
        self.dialogue.reload(self.failing_over(failover).replace("192.0.2.2", "192.0.2.3"))
        self.assertEqual(self.counted(), [("app", 1, 1), ("spare", 0, 0)])

    def test_other_spare(self):
        """Whoever fails over to a service does so to the one there is now, although it is itself the same as before."""
        text = self.failing_over('services "spare" {\n load_balancer { servers = [{ url = "http://192.0.2.9" }] }\n}')
        self.begin()
        self.dialogue.reload(text)
        before = self.carrier.generation().services
        self.dialogue.reload(text.replace("192.0.2.9", "192.0.2.8"))
        services = self.carrier.generation().services
        self.assertIsNot(services["spare"], before["spare"])
        self.assertIs(services["app"], before["app"])
        self.assertIs(services["app"].failover, services["spare"])

    def failing_over(self, extra):
        return describe(servers=[1, 2], extra=extra).replace("load_balancer", 'failover { service = "spare" }\n load_balancer', 1)

    def counted(self):
        return [(row["service"], row["failovers"], row["retries"]) for row in self.snapshot()["gauges"]["services"]]

    def test_connections_are_counted(self):
        """Who came in and who was turned away is counted over reloads."""
        self.begin()
        self.dialogue.reload(describe().replace(':8080"', ':8080"\n max_connections = 1'))
        self.connect()
        gauges = self.snapshot()["gauges"]
        self.assertEqual((gauges["accepted"], gauges["refused"]), ({"web8080": 2}, [["web8080", "connection-limit", 1]]))
        self.assertEqual(self.carrier.totals(), (1, 0))

    def test_other_buckets(self):
        """Other buckets count from the swap on, and nothing is lost."""
        self.begin()
        self.exchange()
        self.reload(extra="observability {\n metrics { buckets = [0.5] }\n}")
        self.exchange()
        self.assertEqual(self.snapshot()["buckets"], [0.5])
        self.assertEqual(self.totals(), (2,) * 3)

    def test_access_log_is_replaced(self):
        """With another log the old one is complete and closed, and what began before and ends after stands in the new one."""
        self.begin()
        self.exchange()
        backend = self.ask()
        old = self.dialogue.sink
        new = self.dialogue.sink = MemorySink(100_000)
        self.reload(extra='observability {\n access_log { file = "/other" }\n}')
        self.assertTrue(old.is_closed)
        self.assertEqual(old.data.count(b"\n"), 1)
        self.dialogue.say(backend, OK)
        self.dialogue.hear(self.client)
        self.exchange()
        self.assertEqual(self.log(), ["completed"] * 2)
        self.reload()
        self.assertTrue(new.is_closed)

    def test_access_log_is_switched_off(self):
        """Without a log everything goes on, and counts."""
        self.begin()
        self.reload(extra="observability {\n access_log { enabled = false }\n}")
        self.assertTrue(self.dialogue.sink.is_closed)
        self.exchange()
        self.assertEqual(self.totals(), (1,) * 3)
        self.carrier.reopen_logs()

    def test_log_is_kept(self):
        """A reload that does not touch the log keeps it open; a rotation writes out what waits first."""
        self.begin()
        self.exchange()
        self.reload(servers=[2])
        self.assertFalse(self.dialogue.sink.is_closed)
        self.carrier.reopen_logs()
        self.assertEqual((self.dialogue.sink.reopened, self.dialogue.sink.data.count(b"\n")), (1, 1))

    def test_dropped_lines_stay_counted(self):
        """Lines that one log could not take stay counted when another takes over."""
        self.begin()
        self.dialogue.sink.dropped_lines = 3
        self.dialogue.sink = MemorySink(1000)
        self.reload(extra='observability {\n access_log { file = "/other" }\n}')
        self.assertEqual(self.snapshot()["gauges"]["access_log_dropped"], 3)

    def test_before_the_start(self):
        """A carrier that runs nothing yet has nothing to show, and says so without failing."""
        dialogue = Dialogue(describe())
        carrier = type(dialogue.carrier)(dialogue.reactor, dialogue.control, dialer=dialogue._make_dialer)
        self.assertEqual((carrier.totals(), carrier.ports(), carrier.doors(), carrier.generation()), ((0, 0), {}, [], None))
        self.assertEqual(self.successResultOf(carrier.snapshot())["gauges"]["backends"], [])


class VerdictTests(CarrierCase):
    """
    What the deciding side thinks of servers.
    """

    CHECK = 'health_check { path = "/" }'

    def describe(self, *settings, servers=(1, 2), **more):
        """
        Return a configuration whose service has these lines in its `load_balancer`.
        """
        text = describe(servers=servers, **more)
        return text.replace("load_balancer { ", "\n".join(["load_balancer {", *settings, ""]), 1).replace("] }\n", "]\n}\n", 1)

    def talk(self, *settings, **more):
        self.begin()
        self.dialogue.reload(self.describe(*settings, **more))

    def tell(self, number, is_healthy, why="it said so", service="app", revision=None):
        self.carrier.set_verdict(service, revision, f"http://192.0.2.{number}", is_healthy, why)
        self.dialogue.reactor.settle()

    def states(self):
        return {int(row["url"][-1]): (row["up"], row["state"], row["reason"]) for row in self.snapshot()["gauges"]["backends"]}

    USABLE = (True, "usable", "")
    UNHEALTHY = (False, "unhealthy", "unhealthy: it said so")
    HEALTHY = (True, "usable", "healthy: it said so")

    def test_told(self):
        """A server is used until it is said to be unhealthy, and again when it is said to be healthy, each at once."""
        self.talk(self.CHECK)
        self.tell(1, False)
        self.assertEqual(self.states(), {1: self.UNHEALTHY, 2: self.USABLE})
        for _ in range(3):
            self.exchange()
        self.assertEqual(len(self.dialogue.backends), 1)
        self.tell(1, True)
        self.assertEqual(self.states(), {1: self.HEALTHY, 2: self.USABLE})
        for _ in range(2):
            self.exchange()
        self.assertEqual(len(self.dialogue.backends), 2)

    def test_nobody_there(self):
        """What is said of nobody, or of servers that are not probed, changes nothing; nor does it before there is a generation."""
        self.talk(self.CHECK, extra='services "free" {\n load_balancer { servers = [{ url = "http://192.0.2.9" }] }\n}')
        for told in [(3, "app", None), (1, "none", None), (1, "app", "v1"), (9, "free", None)]:
            number, service, revision = told
            self.tell(number, False, service=service, revision=revision)
        self.assertEqual(self.states(), dict.fromkeys((1, 2, 9), self.USABLE))
        carrier = type(self.carrier)(self.dialogue.reactor, self.dialogue.control, dialer=self.dialogue._make_dialer)
        carrier.set_verdict("app", None, "http://192.0.2.1", False, "")

    def test_revisions(self):
        """A server of one revision is not that of another."""
        revisions = "".join(
            f'revisions {{\n name = "{name}"\n traffic_percent = 50\n servers = [{{ url = "http://192.0.2.1" }}]\n }}\n'
            for name in ("v1", "v2")
        )
        self.begin()
        self.dialogue.reload(self.describe(self.CHECK, servers=()).replace("load_balancer", f"{revisions} load_balancer", 1))
        self.tell(1, False, revision="v2")
        rows = self.snapshot()["gauges"]["backends"]
        self.assertEqual([(row["revision"], row["up"]) for row in rows], [("v1", True), ("v2", False)])
        self.exchange()
        self.assertEqual(self.snapshot()["revisions"], [["app", "v1", 1]])

    def test_same_server_twice(self):
        """What is said of a server is said of all its listings."""
        self.talk(self.CHECK, servers=(1, 1, 2))
        self.tell(1, False)
        rows = self.snapshot()["gauges"]["backends"]
        self.assertEqual([(row["url"][-1], row["turn"], row["up"]) for row in rows], [("1", 1, False), ("1", 2, False), ("2", 1, True)])

    def test_two_verdicts(self):
        """What probes see and what real requests see do not overwrite each other: a server is used when both are content."""
        self.talk(self.CHECK, "passive_health {\n consecutive_errors = 1\n recovery_secs = 10\n }")
        failed = self.ask()
        self.dialogue.say(failed, response("503 x", "Content-Length: 0"))
        self.dialogue.hear(self.client)
        ejected = [number for number, state in self.states().items() if state[1] == "ejected"]
        self.assertEqual(len(ejected), 1)
        self.tell(ejected[0], False)
        self.assertEqual(self.states()[ejected[0]][:2], (False, "unhealthy, ejected"))
        self.tell(ejected[0], True)
        self.assertEqual(self.states()[ejected[0]][:2], (False, "ejected"))
        self.dialogue.reactor.advance(11)
        self.assertEqual(self.states()[ejected[0]][:2], (True, "half-open"))
        self.assertEqual([row[3] for row in self.snapshot()["backends"]].count(1), 1)

    def test_kept(self):
        """A verdict and its reason outlive a reload that changes anything but the health check."""
        self.talk(self.CHECK)
        self.tell(1, False)
        for text in [
            self.describe(self.CHECK),
            self.describe(self.CHECK, 'sticky { cookie = "a" }'),
            self.describe(self.CHECK).replace('192.0.2.1"', '192.0.2.1", weight = 5'),
            self.describe(self.CHECK, servers=(1, 2, 3)),
        ]:
            self.dialogue.reload(text)
            self.assertEqual(self.states()[1], self.UNHEALTHY)
        self.dialogue.reload(self.describe('health_check { path = "/other" }'))
        self.assertEqual(self.states()[1], self.USABLE)

    def test_told_again(self):
        """When the other rules of judging change, the verdict stays, and its reason comes back when it is said again."""
        self.talk(self.CHECK)
        self.tell(1, False)
        self.dialogue.reload(self.describe(self.CHECK, "passive_health {}"))
        self.assertEqual(self.states()[1], (False, "unhealthy", ""))
        self.tell(1, False)
        self.assertEqual(self.states()[1], self.UNHEALTHY)
        self.tell(1, False, "something else")
        self.assertEqual(self.states()[1], self.UNHEALTHY)

    def test_waiting(self):
        """Who waits for a server is served when one is healthy again, and never by an unhealthy one, not even during a reload."""
        scaling = "scaling { buffer_enabled = true }\n load_balancer"
        before, after = (
            self.describe(self.CHECK, *settings, servers=[1]).replace("load_balancer", scaling, 1)
            for settings in ((), ("passive_health {}",))
        )
        self.begin()
        self.dialogue.reload(before)
        self.tell(1, False)
        self.dialogue.say(self.client, request())
        (row,) = self.snapshot()["gauges"]["services"]
        self.assertEqual((row["waiting"], row["in_use"]), (1, 0))
        self.dialogue.reload(after)
        self.assertEqual(self.dialogue.backends, [])
        self.tell(1, True)
        backend = self.dialogue.backend()
        self.dialogue.hear(backend)
        self.dialogue.say(backend, OK)
        self.assertTrue(self.dialogue.hear(self.client).endswith(b"ok"))


class DrainTests(CarrierCase):
    """
    The end of a carrier.
    """

    def assert_over(self):
        self.assertEqual(self.dialogue.reactor.watched(), [])
        self.assertEqual(self.dialogue.reactor.getDelayedCalls(), [])
        self.assertTrue(self.dialogue.sink.is_closed)
        self.assertEqual(self.carrier.doors(), [])

    def test_idle(self):
        """Without anything in flight it is over at once: doors, idle connections on both sides, timers and the log are closed."""
        self.begin()
        self.exchange()
        done = self.carrier.drain(30)
        self.dialogue.reactor.settle()
        self.assertEqual(self.successResultOf(done), 0)
        self.assertTrue(self.client.has_ended)
        self.assertTrue(self.dialogue.backends[0].has_ended)
        self.assert_over()
        self.assertEqual(self.dialogue.sink.data.count(b"\n"), 1)

    def test_in_flight(self):
        """What is in flight may end, and then it is over, without waiting for the time limit."""
        self.begin()
        backend = self.ask()
        done = self.carrier.drain(30)
        self.dialogue.reactor.advance(10)
        self.assertNoResult(done)
        self.assertRaises(AssertionError, self.connect)
        self.dialogue.say(backend, OK)
        self.assertTrue(self.dialogue.hear(self.client).endswith(b"ok"))
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.successResultOf(done), 0)
        self.assert_over()

    def test_time_limit(self):
        """What is not over in time is broken off and counted; those without an answer are told."""
        self.begin()
        others = [self.connect(), self.connect()]
        for client in others:
            self.ask(client)
        self.dialogue.say(self.dialogue.backends[1], response("200 OK", "Content-Length: 10", body=b"half"))
        done = self.carrier.drain(5)
        self.dialogue.reactor.advance(4)
        self.assertNoResult(done)
        self.dialogue.reactor.advance(2)
        self.assertEqual(self.successResultOf(done), 2)
        self.assert_refused(others[0], "shutting-down")
        self.assertTrue(others[1].was_reset)
        self.assert_over()
        self.assertEqual(self.dialogue.sink.data.count(b'"outcome":"shutting-down"'), 2)

    def test_no_time(self):
        """With no time at all everything is broken off at once."""
        self.begin()
        self.ask()
        done = self.carrier.drain(0)
        self.dialogue.reactor.settle()
        self.assertEqual(self.successResultOf(done), 1)
        self.assert_over()

    def test_doors_that_are_leaving(self):
        """What is in flight on an entrypoint that was removed before is waited for too."""
        self.begin(ports=[8080, 9090])
        busy = self.connect(9090)
        backend = self.ask(busy)
        self.reload(ports=[8080])
        done = self.carrier.drain(30)
        self.dialogue.reactor.settle()
        self.assertNoResult(done)
        self.dialogue.say(backend, OK)
        self.assertTrue(self.dialogue.hear(busy).endswith(b"ok"))
        busy.close()
        self.dialogue.reactor.advance(1.6)
        self.assertEqual(self.successResultOf(done), 0)
        self.assert_over()

    def test_waiting_for_a_connection(self):
        """Who waits for a connection to be made when the time is over is told, and the attempt is given up."""
        self.begin()
        self.dialogue.answers_dials = False
        self.dialogue.say(self.client, request())
        done = self.carrier.drain(1)
        self.dialogue.reactor.advance(2)
        self.assertEqual(self.successResultOf(done), 1)
        self.assert_refused(self.client, "shutting-down")
        self.assertEqual(self.dialogue.attempts, [])
        self.assert_over()


EDITS = st.tuples(
    st.sampled_from(["servers a", "servers b", "rule a", "rule b", "port", "timeout a", "pool b", "nothing"]), st.integers(0, 2)
)


class AnyEditTests(SynchronousTestCase):
    """
    Random edits of a small configuration under way.
    """

    def render(self, state):
        return f"""
        entrypoints "web" {{
          address = "127.0.0.1:8080"
        }}
        entrypoints "alt" {{
          address = "127.0.0.1:{9000 + state["port"]}"
        }}
        routers "a" {{
          rule    = "PathPrefix(`/a`) || PathPrefix(`/{state["rule a"]}`)"
          service = "a"
        }}
        routers "b" {{
          rule    = "PathPrefix(`/b`) || PathPrefix(`/{state["rule b"]}`)"
          service = "b"
        }}
        services "a" {{
          load_balancer {{ servers = [{{ url = "http://192.0.2.1" }}, {{ url = "http://192.0.2.1{state["servers a"]}" }}] }}
          timeouts {{ idle = "{state["timeout a"] + 60}s" }}
        }}
        services "b" {{
          load_balancer {{ servers = [{{ url = "http://192.0.2.2" }}, {{ url = "http://192.0.2.2{state["servers b"]}" }}] }}
          connection_pool {{ max_connections = {state["pool b"] + 3} }}
        }}
        """

    def parts(self, generation, doors, state):
        """
        Return the runtime objects of a generation, each with all that it was configured with.
        """
        found = {}
        for name in "ab":
            service = generation.services[name]
            own = tuple(value for key, value in state.items() if key.endswith(name) and not key.startswith("rule"))
            pool = state["pool b"] if name == "b" else None
            found["service", name, own] = service
            for backend in service.backends:
                found["backend", name, backend.url, pool] = backend
                found["pool", name, backend.url, pool] = backend.pool
        everything = tuple(value for key, value in state.items() if key != "port")
        found["table", everything] = generation.doors["web"].entrypoint.table
        for door in doors:
            found["door", door.address] = door
        return found

    @settings(deadline=None, max_examples=100, derandomize=True)
    @given(st.lists(EDITS, min_size=1, max_size=6))
    def test_unchanged_parts_stay(self, edits):
        """After any edit what was not edited is the same object, what was is another, and what was in flight completes."""
        state = dict.fromkeys(["servers a", "servers b", "rule a", "rule b", "port", "timeout a", "pool b"], 0)
        dialogue = Dialogue(self.render(state))
        busy = []
        for what, value in edits:
            before = self.parts(dialogue.carrier.generation(), dialogue.carrier.doors(), state)
            for target in ("/a", "/b"):
                client = dialogue.connect(address=("127.0.0.1", 9000 + state["port"]))
                known = len(dialogue.backends)
                dialogue.say(client, request("GET", target))
                dialogue.reactor.settle()
                self.assertEqual(len(dialogue.backends), known + 1)
                busy.append((client, dialogue.backends[-1]))
            if what in state:
                state[what] = value
            dialogue.reload(self.render(state))
            after = self.parts(dialogue.carrier.generation(), dialogue.carrier.doors(), state)
            for key, part in after.items():
                if key in before:
                    self.assertIs(part, before[key], key)
                else:
                    self.assertNotIn(part, before.values(), key)
            # Leave some room in the pools.
            self.end(dialogue, *busy.pop(0))
        for client, backend in busy:
            self.end(dialogue, client, backend)
        dialogue.reactor.advance(100)
        dialogue.assert_clean(self)
        self.assertEqual(set(dialogue.outcomes()), {"completed"})
        self.assertEqual(len(dialogue.outcomes()), 2 * len(edits))

    def end(self, dialogue, client, backend):
        dialogue.say(backend, response("200 OK", "Content-Length: 2", "Connection: close", body=b"ok"))
        self.assertTrue(dialogue.hear(client).endswith(b"ok"))
        client.close()
        backend.close()
        dialogue.reactor.settle()
