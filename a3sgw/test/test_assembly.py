"""
Tests of assembly: what a generation is made of, and what it takes over from the one before.
"""

import random
from typing import Any

from twisted.internet.defer import execute
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.assembly import DASHBOARD_ENTRYPOINT, Generation, Kit, assemble, begin_services
from a3sgw.assembly_router import routers_of
from a3sgw.config.load import load_text
from a3sgw.loading import check_build, rule_problems
from a3sgw.message import LocalResponse, RequestHead
from a3sgw.middleware.catalog import find_catalog
from a3sgw.middleware.surroundings import Nowhere
from a3sgw.observe.metrics import Metrics
from a3sgw.proxy.entrypoint import Observers
from a3sgw.proxy.test.leases import FakeDialer
from a3sgw.service.strategies import find_strategies
from a3sgw.testing import MemoryReactor

TWO_OF_EACH = """
entrypoints "web" {
  address = "127.0.0.1:8080"
}
entrypoints "alt" {
  address = "127.0.0.1:8081"
}
routers "api" {
  rule    = "PathPrefix(`/api`)"
  service = "api"
}
routers "app" {
  rule    = "PathPrefix(`/`)"
  service = "app"
}
services "api" {
  load_balancer { servers = [{ url = "http://192.0.2.1" }] }
}
services "app" {
  load_balancer { servers = [{ url = "http://192.0.2.2" }, { url = "http://192.0.2.3" }] }
}
"""


def load(text):
    """
    Return the valid configuration in a text.
    """
    return load_text(text, "test.hcl", {}).valid_config()


class AssemblyCase(SynchronousTestCase):
    """
    `assemble` makes one generation after the other.
    """

    def setUp(self):
        metrics = Metrics([1.0])
        reactor = MemoryReactor()
        self.kit = Kit(
            reactor=reactor,
            dialer=FakeDialer(reactor),
            metrics=metrics,
            observers=Observers([metrics]),
            connection_observers=Observers([metrics.connections]),
            session_observers=Observers([metrics.sessions]),
            ask=lambda head: LocalResponse(200),
            outbound=Nowhere(),
            catalog=find_catalog(),
            strategies=find_strategies(),
            wall_clock=reactor.seconds,
            in_thread=execute,
            chance=random.Random(1),
            sticky_key=bytes(32),
        )

    def assemble(self, text, previous=None):
        return assemble(load(text), previous, self.kit)

    def change(self, *replacements):
        """
        Return the generations of the two-of-each configuration and of the same after some replacements.
        """
        text = TWO_OF_EACH
        for old, new in replacements:
            self.assertIn(old, text)
            text = text.replace(old, new)
        before = self.assemble(TWO_OF_EACH)
        return before, self.assemble(text, before)


class InheritanceTests(AssemblyCase):
    """
    What a change does not touch is taken over, object by object.
    """

    def kept(self, before, after):
        """
        Return the names of services, backends and tables that `after` has from `before`.
        """
        kept = {name for name, service in after.services.items() if before.services.get(name) is service}
        backends = {backend for service in before.services.values() for backend in service.backends}
        kept |= {backend.url[-1] for service in after.services.values() for backend in service.backends if backend in backends}
        tables = [plan.entrypoint.table for plan in before.doors.values()]
        return kept | {f"{name} table" for name, plan in after.doors.items() if plan.entrypoint.table in tables}

    def test_kept(self):
        """The table of changes and of what survives each."""
        everything = {"api", "app", "1", "2", "3", "web table", "alt table"}
        backends = {"1", "2", "3"}
        for name, replacements, kept in [
            ("nothing", [], everything),
            ("a comment", [('entrypoints "alt"', '# Hello\nentrypoints "alt"')], everything),
            ("an entrypoint's timeouts", [('8080"', '8080"\n timeouts { idle = "1s" }')], everything),
            ("an entrypoint's address", [("8080", "9090")], everything),
            ("an entrypoint's name", [('"alt"', '"new"')], (everything - {"alt table"}) | {"new table"}),
            ("the shutdown timeout", [('routers "api"', 'shutdown_timeout_secs = 5\nrouters "api"')], everything),
            ("a rule", [("PathPrefix(`/api`)", "PathPrefix(`/v1`)")], {"api", "app", *backends}),
            ("a priority", [('service = "api"', 'service = "api"\n priority = 7')], {"api", "app", *backends}),
            ("a router's service", [('service = "api"', 'service = "app"')], {"api", "app", *backends}),
            (
                "a router's entrypoints",
                [('service = "api"', 'service = "api"\n entrypoints = ["web"]')],
                {"api", "app", "web table", *backends},
            ),
            ("a server", [("192.0.2.3", "192.0.2.4")], {"api", "1", "2"}),
            ("one server more", [('.3" }', '.3" }, { url = "http://192.0.2.4" }')], {"api", *backends}),
            ("the order of servers", [(".2.2", ".2.x"), (".2.3", ".2.2"), (".2.x", ".2.3")], {"api", *backends}),
            ("a timeout of the service", [('services "app" {', 'services "app" {\n timeouts { idle = "1s" }')], {"api", *backends}),
            ("the connect timeout", [('services "app" {', 'services "app" {\n timeouts { connect = "1s" }')], {"api", *backends}),
            ("the pool", [('services "app" {', 'services "app" {\n connection_pool { max_connections = 1 }')], {"api", "1"}),
            ("the service's name", [('services "app"', 'services "new"'), ('service = "app"', 'service = "new"')], {"api", "1"}),
        ]:
            before, after = self.change(*replacements)
            self.assertEqual(self.kept(before, after), kept, name)

    def test_pools_go_with_backends(self):
        """A backend that is taken over has its pool and its count of exchanges with it; a new one has its own."""
        before, after = self.change(("192.0.2.3", "192.0.2.4"))
        (kept, gone), (same, new) = before.services["app"].backends, after.services["app"].backends
        self.assertIs(same, kept)
        self.assertIs(same.pool, kept.pool)
        self.assertIs(same.series, kept.series)
        self.assertIsNot(new.pool, gone.pool)
        self.assertIs(new.pool.backend, new)
        self.assertEqual((new.pool.settings, new.service_name), (gone.pool.settings, "app"))

    def test_one_table_for_two_entrypoints(self):
        """Entrypoints that serve the same routers share one table; those that do not have their own."""
        generation = self.assemble(TWO_OF_EACH)
        self.assertIs(generation.doors["web"].entrypoint.table, generation.doors["alt"].entrypoint.table)
        generation = self.assemble(TWO_OF_EACH.replace('service = "api"', 'service = "api"\n entrypoints = ["web"]', 1))
        self.assertIsNot(generation.doors["web"].entrypoint.table, generation.doors["alt"].entrypoint.table)

    def test_gone_and_back(self):
        """What was taken out comes back as something new: its state is not kept for ever."""
        before, between = self.change(("192.0.2.3", "192.0.2.4"))
        after = self.assemble(TWO_OF_EACH, between)
        self.assertIsNot(after.services["app"], before.services["app"])
        self.assertIsNot(after.services["app"].backends[1], before.services["app"].backends[1])
        self.assertIs(after.services["app"].backends[0], before.services["app"].backends[0])

    def test_nothing_is_shared_without_a_previous_one(self):
        """Two generations that do not know of each other share nothing but the series of the metrics."""
        one, other = self.assemble(TWO_OF_EACH), self.assemble(TWO_OF_EACH)
        self.assertEqual(self.kept(one, other), set())
        self.assertIs(one.services["api"].backends[0].series, other.services["api"].backends[0].series)

    def test_the_turn_goes_on(self):
        """The turn of a balancer survives a reload that does not touch its service."""
        before, _ = self.change()
        service = before.services["app"]
        service.begin(before.services)
        chosen = [service.choose(None, ())]
        after = self.assemble(TWO_OF_EACH.replace("192.0.2.1", "192.0.2.9"), before)
        chosen.append(after.services["app"].choose(None, ()))
        self.assertEqual(chosen, list(service.backends))

    def test_observers(self):
        """Every generation tells the same observers."""
        before, after = self.change(("8080", "9090"))
        for generation in (before, after):
            for plan in generation.doors.values():
                self.assertIs(plan.entrypoint.observers, self.kit.observers)

    def test_same_server_twice(self):
        """A server that is listed twice is two backends, and both are kept."""
        text = TWO_OF_EACH.replace("192.0.2.3", "192.0.2.2")
        before = self.assemble(text)
        one, other = before.services["app"].backends
        self.assertIsNot(one, other)
        self.assertEqual(self.assemble(text, before).services["app"].backends, (one, other))


class FakeService:
    """
    What `begin_services` needs of a service.
    """

    def __init__(self, has_partners=False):
        self.has_partners = has_partners
        self.begun: list[Any] = []

    def begin(self, services):
        self.begun.append(services)


class BeginTests(SynchronousTestCase):
    """
    Which services begin at a swap.
    """

    def generation(self, **services: Any):
        return Generation(load(TWO_OF_EACH), {}, services, {})

    def test_who_begins(self):
        """
        New ones do, and those that send anything to others, which may be new; the rest runs on as it is.
        """
        kept, partner, new, moved = FakeService(), FakeService(True), FakeService(), FakeService()
        old = self.generation(kept=kept, partner=partner, moved=FakeService())
        after = self.generation(kept=kept, partner=partner, moved=moved, new=new)
        begin_services(old, after)
        self.assertEqual([len(service.begun) for service in (kept, partner, moved, new)], [0, 1, 1, 1])
        self.assertIs(partner.begun[0], after.services)

    def test_first(self):
        """
        At the start all begin.
        """
        first = FakeService()
        begin_services(None, self.generation(first=first))
        self.assertEqual(len(first.begun), 1)


class PartsTests(AssemblyCase):
    """
    What configuration becomes.
    """

    def entrypoint(self, inside=""):
        text = TWO_OF_EACH.replace('8080"', f'8080"\n{inside}')
        return self.assemble(text).doors["web"]

    def test_defaults(self):
        """What is not configured has the defaults that the data path documents."""
        plan = self.entrypoint()
        self.assertEqual((plan.address, plan.gates.allowed, plan.gates.max_connections), (("127.0.0.1", 8080), None, None))
        entrypoint = plan.entrypoint
        self.assertEqual((entrypoint.name, entrypoint.trusted), ("web", None))
        self.assertEqual(entrypoint.limits.max_header_bytes, 65536)
        settings = self.assemble(TWO_OF_EACH).services["api"].settings
        self.assertEqual((settings.response_header_timeout, settings.idle_timeout, settings.pass_host_header), (30.0, 60.0, True))

    def test_entrypoint(self):
        """Everything configured at an entrypoint arrives where it is used."""
        plan = self.entrypoint(
            """
            max_connections = 7
            tcp_allowed_ips = ["192.0.2.0/24"]
            allow_underscores_in_headers = true
            merge_slashes = false
            timeouts {
              request_header = "1s"
              request_body = "2s"
              idle = "3s"
              write = "4s"
            }
            limits {
              max_header_bytes = 1000
              max_header_count = 10
              max_request_line_bytes = 100
            }
            encoded_characters {
              allow_encoded_slash = true
              allow_malformed_escapes = true
            }
            forwarded_headers { trusted_ips = ["10.0.0.0/8"] }
            """
        )
        self.assertEqual(plan.gates.max_connections, 7)
        self.assertTrue(plan.gates.allowed.contains(b"\xc0\x00\x02\x01"))
        entrypoint = plan.entrypoint
        limits, paths, timeouts = entrypoint.limits, entrypoint.limits.paths, entrypoint.timeouts
        self.assertEqual((timeouts.request_header, timeouts.request_body, timeouts.idle, timeouts.write), (1.0, 2.0, 3.0, 4.0))
        self.assertEqual((limits.max_header_bytes, limits.max_header_count, limits.max_request_line_bytes), (1000, 10, 100))
        self.assertTrue(limits.allow_underscores_in_headers)
        self.assertEqual((paths.merge_slashes, paths.allow_encoded_slash, paths.allow_malformed_escapes), (False, True, True))
        self.assertEqual((paths.allow_encoded_backslash, paths.allow_encoded_null_character), (False, False))
        self.assertTrue(entrypoint.trusted.contains(b"\x0a\0\0\1"))

    def test_service(self):
        """Everything configured at a service arrives where it is used."""
        text = TWO_OF_EACH.replace(
            'services "api" {',
            """services "api" {
            pass_host_header = false
            max_replay_bytes = 10
            timeouts {
              connect = "1s"
              response_header = "2s"
              idle = "3s"
            }
            connection_pool {
              max_connections = 4
              max_idle_connections = 5
              idle_timeout = "6s"
            }
            """,
        )
        service = self.assemble(text).services["api"]
        self.assertEqual((service.name, service.strategy), ("api", "round-robin"))
        settings, pool = service.settings, service.backends[0].pool.settings
        self.assertEqual((settings.connect_timeout, settings.response_header_timeout, settings.idle_timeout), (1.0, 2.0, 3.0))
        self.assertEqual((settings.pass_host_header, settings.max_replay_bytes), (False, 10))
        self.assertEqual((pool.max_connections, pool.max_idle_connections, pool.idle_timeout), (4, 5, 6.0))

    def test_addresses(self):
        """The URL of a server becomes an address to connect to, a prefix, and what `Host` says."""
        for url, expected in [
            ("http://a.test", ("a.test", 80, "", b"", b"a.test")),
            ("http://a.test:8080/base/", ("a.test", 8080, "", b"/base", b"a.test:8080")),
            ("http://[2001:db8::1]:81", ("2001:db8::1", 81, "", b"", b"[2001:db8::1]:81")),
            ("unix:/run/app.sock", ("", 0, "/run/app.sock", b"", b"localhost")),
        ]:
            generation = self.assemble(TWO_OF_EACH.replace("http://192.0.2.1", url))
            address = generation.services["api"].backends[0].address
            self.assertEqual((address.host, address.port, address.path, address.prefix, address.authority), expected)

    def test_dashboard(self):
        """The gate to the gateway's own API stands at every entrypoint, at those named, at its own, or nowhere."""
        for block, gates in [
            ("", {"web", "alt"}),
            ("dashboard { enabled = false }", set()),
            ('dashboard { entrypoints = ["alt"] }', {"alt"}),
            ('dashboard { address = "127.0.0.1:9000" }', {DASHBOARD_ENTRYPOINT}),
            ('dashboard {\n address = "127.0.0.1:9000"\n entrypoints = ["web"]\n}', {DASHBOARD_ENTRYPOINT, "web"}),
            ('dashboard {\n enabled = false\n address = "127.0.0.1:9000"\n}', set()),
        ]:
            generation = self.assemble(TWO_OF_EACH + block)
            self.assertEqual({name for name, plan in generation.doors.items() if plan.entrypoint.admin is not None}, gates, block)
            self.assertEqual(DASHBOARD_ENTRYPOINT in generation.doors, DASHBOARD_ENTRYPOINT in gates)

    def test_dashboard_listener(self):
        """The listener of the dashboard serves nothing else."""
        plan = self.assemble(TWO_OF_EACH + 'dashboard { address = "127.0.0.1:9000" }').doors[DASHBOARD_ENTRYPOINT]
        self.assertEqual(plan.address, ("127.0.0.1", 9000))
        self.assertIsNone(plan.entrypoint.table.match(RequestHead(b"GET", b"/")))

    def test_routers_of(self):
        """A router without entrypoints serves all of them."""
        config = load(TWO_OF_EACH.replace('service = "api"', 'service = "api"\n entrypoints = ["web"]', 1))
        self.assertEqual({router.name for router in routers_of(config, "web", "http")}, {"api", "app"})
        self.assertEqual({router.name for router in routers_of(config, "alt", "http")}, {"app"})


class RuleProblemTests(SynchronousTestCase):
    """
    Rules are checked with everything else.
    """

    def test_problems(self):
        """A rule that cannot be read is a problem with its place, its router and the reason."""
        loaded = load_text(TWO_OF_EACH.replace("PathPrefix(`/api`)", "PathPrefox(`/api`)"), "test.hcl", {})
        checked = check_build(loaded, find_catalog())
        (problem,) = checked.problems
        self.assertIn('router "api"', str(problem))
        self.assertTrue(str(problem).startswith("test.hcl:9:"), str(problem))
        self.assertEqual(list(rule_problems(loaded.config, loaded.positions)), [problem])

    def test_nothing_wrong(self):
        """A good configuration, and one that could not be parsed at all, are left as they are."""
        for text in (TWO_OF_EACH, "entrypoints {"):
            loaded = load_text(text, "test.hcl", {})
            self.assertIs(check_build(loaded, find_catalog()), loaded)
