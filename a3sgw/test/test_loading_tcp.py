"""
Tests of what `a3sgw.loading_tcp` adds to the checks of a configuration.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.assembly_router import kind_of, kinds_of_services, routers_of
from a3sgw.loading import load_string

BOTH = """
entrypoints "web" { address = ":80" }
entrypoints "pg" {
  address  = ":5432"
  protocol = "tcp"
}
"""
WEB, PG = BOTH.split('entrypoints "pg"')[0], 'entrypoints "pg"' + BOTH.split('entrypoints "pg"')[1]


def router(rule="HostSNI(`*`)", service="db", more="", name="r"):
    return f'routers "{name}" {{\n rule = "{rule}"\n service = "{service}"\n {more}\n}}\n'


def service(url="tcp://db:5432", name="db", more="", balancing=""):
    return f'services "{name}" {{\n load_balancer {{\n servers = [{{ url = "{url}" }}]\n {balancing}\n }}\n {more}\n}}\n'


def problems(text):
    return [str(problem).partition(": ")[2] for problem in load_string(text, "gw.hcl", {}).problems]


class FitTests(SynchronousTestCase):
    """
    What fits a tcp entrypoint.
    """

    def test_sound(self):
        """Names, addresses, wildcards, failover and a bare address are all well."""
        for rule in ("HostSNI(`*`)", "HostSNI(`a.test`) && !ClientIP(`10.0.0.0/8`)", "HostSNIRegexp(`.+`) || ALPN(`h2`)"):
            self.assertEqual(problems(PG + router(rule) + service()), [], rule)
        self.assertEqual(problems(PG + router() + service("10.0.0.1:5432")), [])
        self.assertEqual(problems(PG + router() + service("unix:/run/pg.sock")), [])
        spare = service(more='failover {\n service = "spare"\n }') + service("tcp://spare:1", "spare")
        self.assertEqual(problems(PG + router() + spare), [])
        well = 'proxy_protocol = "v2"\n timeouts {\n connect = "1s"\n }\n connection_pool {\n max_connections = 5\n }'
        check = "health_check {\n interval = 5\n }\n passive_health {\n window_secs = 5\n }\n hash {\n max_load_percent = 200\n }"
        self.assertEqual(problems(PG + router(more="tls {\n passthrough = true\n }") + service(more=well, balancing=check)), [])

    def test_matchers(self):
        """C18: rules about requests are for http entrypoints only, those about connections for tcp only."""
        (problem,) = problems(PG + router("PathPrefix(`/`)") + service())
        self.assertIn("PathPrefix is a matcher for routers of http entrypoints and this rule is for tcp; use ClientIP, HostSNI", problem)
        (problem,) = problems(WEB + router() + service("http://a"))
        self.assertIn("HostSNI is a matcher for routers of tcp entrypoints and this rule is for http", problem)
        (problem,) = problems(BOTH + router("Host(`a`) && HostSNI(`a`)") + service("http://a"))
        self.assertIn("HostSNI is a matcher for routers of tcp entrypoints", problem)
        (problem,) = problems(BOTH + router(more='entrypoints = ["web", "pg"]') + service())
        self.assertIn("its entrypoints speak http and tcp, but a rule is for one protocol; split the router", problem)

    def test_servers(self):
        """A service has servers for what it is sent."""
        self.assertEqual(
            problems(PG + router() + service("http://db")),
            ['services.db.load_balancer.servers[0].url is "http://db", but tcp routers lead to service "db"; write tcp://host:port'],
        )
        self.assertEqual(
            problems(WEB + router("Path(`/`)") + service()),
            ['services.db.load_balancer.servers[0].url is "tcp://db:5432", but requests are sent to service "db"; write http://…'],
        )
        spare = service(more='failover {\n service = "spare"\n }') + service("http://spare:1", "spare")
        self.assertIn('tcp routers lead to service "spare"', problems(PG + router() + spare)[0])
        (problem,) = problems(BOTH + router() + router("Path(`/`)", name="s") + service("unix:/x"))
        self.assertEqual(problem, 'service "db" is for requests and for tcp connections at once; declare it twice, under two names')

    def test_about_requests(self):
        """What means nothing to connections is refused where a tcp router leads, and the other way round."""
        for more in (
            "pass_host_header = false",
            'hedging {\n quantile = 0.9\n }',
            'revision_header = "X-A"',
            'timeouts {\n idle = "5s"\n }',
            'mirror {\n service = "shadow"\n }',
            "max_replay_bytes = 5",
        ):
            found = problems(PG + router() + service(more=more) + service("http://a", "shadow"))
            self.assertEqual(len([each for each in found if "about requests, but tcp routers lead" in each]), 1, (more, found))
        for balancing in (
            'sticky {\n cookie = "a"\n }',
            'hash {\n source = "path"\n }',
            'health_check {\n path = "/health"\n }',
            "passive_health {\n status_codes = [500]\n }",
        ):
            (problem,) = problems(PG + router() + service(balancing=balancing))
            self.assertIn("is about requests, but tcp routers lead to service", problem)
        (problem,) = problems(WEB + service("http://a", more='proxy_protocol = "v1"'))
        self.assertIn("services.db.proxy_protocol is for services of tcp routers", problem)
        (problem,) = problems(WEB + router("Path(`/`)", more="tls {\n passthrough = true\n }") + service("http://a"))
        self.assertIn("routers.r.tls is for tcp routers", problem)
        (problem,) = problems(PG + router(more='timeouts {\n idle = "5s"\n connect = "5s"\n }') + service())
        self.assertIn("routers.r.timeouts.idle is about requests", problem)

    def test_tls_towards_servers(self):
        """TLS towards the servers of tcp routers needs a name to verify, and no PROXY header before it."""
        tls = 'upstream_tls {\n server_name = "db.test"\n }'
        self.assertEqual(problems(PG + router() + service(more=tls)), [])
        self.assertEqual(problems(PG + router() + service("unix:/x", more=tls)), [])
        (problem,) = problems(PG + router() + service("unix:/x", more="upstream_tls {\n insecure_skip_verify = true\n }"))
        self.assertEqual(problem, "services.db.upstream_tls lacks server_name, which is required with unix: servers")
        (problem,) = problems(PG + router() + service(more=f'proxy_protocol = "v1"\n {tls}'))
        self.assertIn("has both proxy_protocol and upstream_tls", problem)

    def test_certificates(self):
        """What tells servers about a client's certificate is a header, so it is for http entrypoints."""
        tls = 'tls {\n cert_file = "/x"\n key_file = "/x"\n client_ca_file = "/x"\n client_auth = "require"\n %s\n }'
        listing = PG.replace('"tcp"', '"tcp"\n ' + tls % 'client_subject_header = "X-Client"')
        found = [each for each in problems(listing + router() + service()) if "cannot be read" not in each]
        self.assertEqual(
            found, ["entrypoints.pg.tls.client_subject_header is for http entrypoints, and this one speaks tcp; remove it"]
        )

    def test_middlewares(self):
        """Of middlewares, only those that decide about connections stand where there are no requests."""
        limit = 'middlewares "few" {\n type = "tcp-filter"\n max_connections = 5\n}\n'
        key = 'middlewares "key" {\n type = "api-key"\n keys = ["0123456789abcdef"]\n}\n'
        self.assertEqual(problems(PG + limit + router(more='middlewares = ["few"]') + service()), [])
        self.assertEqual(
            problems(PG + key + router(more='middlewares = ["key"]') + service()),
            ['router "r" is for tcp and lists "key", but "api-key" needs requests; remove it'],
        )
        listing = PG.replace('"tcp"', '"tcp"\n middlewares = ["key"]')
        (problem,) = problems(listing + key + router() + service())
        self.assertEqual(problem, 'entrypoint "pg" speaks tcp and lists "key", but "api-key" needs requests; remove it')
        (problem,) = problems(BOTH + limit + router("Path(`/`)", more='middlewares = ["few"]') + service("http://a"))
        self.assertIn("decides about connections; list it on an entrypoint", problem)


class KindTests(SynchronousTestCase):
    """
    Which routers are for tcp.
    """

    def test_kinds(self):
        """A router without entrypoints is for what its rule is about; if that is not clear, for requests if there are any."""
        rules = {"a": "Host(`a`)", "b": "HostSNI(`a`)", "c": "ClientIP(`::1`)"}
        routers = "".join(router(rule, "w" if name != "b" else "db", name=name) for name, rule in rules.items())
        config = load_string(BOTH + routers + service() + service("http://a", "w"), "gw.hcl", {}).valid_config()
        self.assertEqual({name: kind_of(config, each) for name, each in config.routers.items()}, {"a": "http", "b": "tcp", "c": "http"})
        self.assertEqual({each.name for each in routers_of(config, "web", "http")}, {"a", "c"})
        self.assertEqual({each.name for each in routers_of(config, "pg", "tcp")}, {"b"})
        self.assertEqual(kinds_of_services(config), {"db": "tcp"})
        config = load_string(PG + router("ClientIP(`::1`)") + service(), "gw.hcl", {}).valid_config()
        self.assertEqual(kind_of(config, config.routers["r"]), "tcp")
