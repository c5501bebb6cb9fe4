"""
Tests of what `a3sgw.loading_udp` adds to the checks of a configuration.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.assembly_router import kind_of, kinds_of_services, routers_of
from a3sgw.loading import load_string

WEB = 'entrypoints "web" { address = ":80" }\n'
PG = 'entrypoints "pg" {\n address = ":5432"\n protocol = "tcp"\n}\n'
DNS = 'entrypoints "dns" {\n address = ":53"\n protocol = "udp"\n}\n'


def router(rule="HostSNI(`*`)", service="ns", more="", name="r"):
    return f'routers "{name}" {{\n rule = "{rule}"\n service = "{service}"\n {more}\n}}\n'


def service(url="udp://ns:53", name="ns", more="", balancing=""):
    return f'services "{name}" {{\n load_balancer {{\n servers = [{{ url = "{url}" }}]\n {balancing}\n }}\n {more}\n}}\n'


def load(text):
    return load_string(text, "gw.hcl", {})


def problems(text):
    return [str(problem).partition(": ")[2] for problem in load(text).problems]


class FitTests(SynchronousTestCase):
    """
    What fits a udp entrypoint.
    """

    def test_sound(self):
        """Addresses, the wildcard, bare servers, failover, passive health and the bounds of sessions are all well."""
        for rule in ("HostSNI(`*`)", "ClientIP(`10.0.0.0/8`)", "!ClientIP(`10.0.0.0/8`) && HostSNI(`*`) || ClientIP(`::1`)"):
            self.assertEqual(problems(DNS + router(rule) + service()), [], rule)
        self.assertEqual(problems(DNS + router() + service("10.0.0.1:53")), [])
        spare = service(more='failover {\n service = "spare"\n }') + service("udp://spare:1", "spare")
        self.assertEqual(problems(DNS + router() + spare), [])
        well = "passive_health {\n window_secs = 5\n }\n hash {\n max_load_percent = 200\n }\n slow_start = 5"
        self.assertEqual(problems(DNS + router() + service(more="timeouts {\n connect = 1\n }", balancing=well)), [])
        bounds = DNS.replace("}", ' udp_max_sessions = 5\n udp_session_timeout_secs = 5\n allowed_ips = ["::1"]\n}')
        self.assertEqual(problems(bounds + router() + service()), [])

    def test_matchers(self):
        """C18: rules about requests, and about names that no datagram tells, are not for udp."""
        for rule, name in (
            ("HostSNI(`a.test`)", "HostSNI"),
            ("HostSNI(`*`) && ALPN(`h2`)", "ALPN"),
            ("!HostSNIRegexp(`a`)", "HostSNIRegexp"),
        ):
            (problem,) = problems(DNS + router(rule) + service())
            self.assertIn(f"{name} asks for what no datagram tells; a rule for udp has ClientIP(…) and HostSNI(`*`)", problem)
        (problem,) = problems(DNS + router("PathPrefix(`/`)") + service())
        self.assertIn("PathPrefix is a matcher for routers of http entrypoints", problem)
        problem, *_ = problems(DNS + PG + router(more='entrypoints = ["dns", "pg"]') + service())
        self.assertIn("its entrypoints speak tcp and udp, but a rule is for one protocol; split the router", problem)

    def test_which(self):
        """Without entrypoints, a router whose service has udp:// servers is for udp, and any other is not, if there is a choice."""
        db = router(service="db", name="db") + service("tcp://db:1", "db")
        app = router("PathPrefix(`/`)", "app", name="app") + service("http://app", "app")
        config = load(WEB + PG + DNS + router() + service() + db + app).valid_config()
        kinds = {name: kind_of(config, each) for name, each in config.routers.items()}
        self.assertEqual(kinds, {"r": "udp", "db": "tcp", "app": "http"})
        self.assertEqual(kinds_of_services(config), {"ns": "udp", "db": "tcp"})
        self.assertEqual([each.name for each in routers_of(config, "dns", "udp")], ["r"])

    def test_servers(self):
        """Servers of udp routers are udp://, and those of others are not."""
        (problem,) = problems(DNS + router() + service("http://ns"))
        self.assertIn('is "http://ns", but udp routers lead to service "ns"; write udp://host:port', problem)
        (problem,) = problems(WEB + router("PathPrefix(`/`)") + service())
        self.assertIn('is "udp://ns:53", but requests are sent to service "ns"', problem)
        (problem,) = problems(PG + router() + service())
        self.assertIn('is "udp://ns:53", but tcp routers lead to service "ns"', problem)

    def test_in_vain(self):
        """What means nothing to datagrams is refused."""
        words = 'means nothing to datagrams, but udp routers lead to service "ns"; remove it'
        for more, balancing in (
            ("pass_host_header = false", ""),
            ("scaling {\n container_concurrency = 5\n }", ""),
            ('mirror {\n service = "ns"\n }', ""),
            ("timeouts {\n idle = 5\n }", ""),
            ("connection_pool {\n max_connections = 5\n }", ""),
            ('proxy_protocol = "v1"', ""),
            ("", 'sticky {\n cookie = "c"\n }'),
        ):
            found = problems(DNS + router() + service(more=more, balancing=balancing))
            self.assertTrue(any(words in each for each in found), more + balancing)
        (problem,) = problems(DNS + router(more="timeouts {\n connect = 5\n }") + service())
        self.assertIn('means nothing to datagrams, but router "r" is for udp; remove it', problem)

    def test_health_check(self):
        """Nobody can connect to a udp server, so probes are refused, whoever uses it."""
        check = 'health_check {\n protocol = "tcp"\n }'
        for text in (DNS + router() + service(balancing=check), WEB + service(balancing=check)):
            (problem,) = problems(text)
            self.assertIn("health_check connects to servers, and nobody can connect to udp://", problem)
        (problem,) = problems(DNS + router() + service("ns:53", balancing=check))
        self.assertIn('health_check connects to servers, but udp routers lead to service "ns"; use passive_health', problem)

    def test_workers(self):
        """Several workers cannot share a port that nobody has chosen."""
        for workers, count in (("1", 0), ("2", 1), ('"auto"', 1)):
            found = problems(f"workers = {workers}\n" + DNS.replace(":53", ":0") + router() + service())
            self.assertEqual(len(found), count)
            self.assertTrue(all("leaves the port to the system, which would give each worker another" in each for each in found))

    def test_twice(self):
        """One service cannot be for datagrams and for anything else."""
        found = problems(
            DNS + PG + router(more='entrypoints = ["dns"]') + router(name="s", more='entrypoints = ["pg"]') + service("ns:53")
        )
        self.assertEqual(len(found), 1)
        self.assertIn('router "s" is for tcp, but service "ns" is for udp already; declare it twice, under two names', found[0])
        found = problems(WEB + DNS + router(more='entrypoints = ["dns"]') + router("Path(`/`)", name="s") + service())
        self.assertTrue(any("is for requests and for datagrams at once" in each for each in found), found)

    def test_middlewares(self):
        """Middlewares that need requests are refused on udp routers and entrypoints; those that decide about connections are not."""
        more = 'middlewares "in" {\n type = "ip-allow"\n allowed_ips = ["::1"]\n}\n'
        more += 'middlewares "few" {\n type = "tcp-filter"\n max_connections = 1\n}\n'
        (problem,) = problems(DNS + router(more='middlewares = ["in", "few"]') + service() + more)
        self.assertIn('router "r" is for udp and lists "in", but "ip-allow" needs requests; remove it', problem)
        listed = DNS.replace('"udp"', '"udp"\n middlewares = ["in", "few"]')
        (problem,) = problems(listed + router() + service() + more)
        self.assertIn('entrypoint "dns" speaks udp and lists "in", but "ip-allow" needs requests; remove it', problem)

    def test_unrouted(self):
        """An entrypoint without a router is a warning, and no problem."""
        other = DNS.replace("dns", "log").replace(":53", ":54") + router(more='entrypoints = ["log"]') + service()
        for text, hint in (
            (DNS + service(), "; there are none at all"),
            (WEB + DNS + router("Path(`/`)", "app") + service("http://app", "app"), ""),
            (DNS + other, "; those for udp name other entrypoints"),
        ):
            loaded = load(text)
            self.assertEqual(loaded.problems, ())
            (warning,) = loaded.warnings
            self.assertIn(f'entrypoint "dns" has no router, so every datagram that comes in there is dropped{hint}', str(warning))
        self.assertEqual(load(DNS + router() + service()).warnings, ())
