"""
Tests of the checks of services.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.test.loading import ENTRYPOINT, check_problems


def _service(name, body="", servers='load_balancer { servers = [{ url = "http://a" }] }'):
    return f'services "{name}" {{\n {servers}\n {body}\n}}\n'


class ServiceTests(SynchronousTestCase):
    """
    Services have servers, and what they name exists.
    """

    def check(self, text, *expected):
        problems = check_problems(ENTRYPOINT + text)
        self.assertEqual(len(problems), len(expected), problems)
        for problem, part in zip(problems, expected, strict=True):
            self.assertIn(part, problem)

    def test_servers(self):
        """
        A service has servers, or C20: revisions, or the DNS to ask.
        """
        self.check(_service("s"))
        self.check(_service("s", servers=""), 'service "s" has no servers configured')
        self.check(_service("s", servers="load_balancer { servers = [] }"), 'service "s" has no servers configured')
        self.check(_service("s", 'revisions { \n name = "v1"\n servers { url = "http://a" }\n }', servers=""))
        self.check(_service("s", servers="") + 'providers {\n dns "s" { hostname = "a" }\n}')

    def test_consequences(self):
        """
        A service whose only server is broken is not said to have none.
        """
        self.check(_service("s", servers='load_balancer { servers = [{ url = "ftp://a" }] }'))
        self.check(_service("s", servers="load_balancer { servers = 5 }"))

    def test_targets(self):
        """
        C23: mirror and failover name services that exist.
        """
        self.check(
            _service("a", 'mirror { service = "bb" }\n failover { service = "zzz" }') + _service("bbb"),
            'gw.hcl:4:21: mirror of service "a" names service "bb"; did you mean "bbb"?',
            'gw.hcl:5:23: failover of service "a" names service "zzz", which does not exist',
        )
        self.check(_service("a", 'mirror { service = "b" }\n failover { service = "b" }') + _service("b"))

    def test_circles(self):
        """
        C23: no service is its own backup, whether at once or by way of others. Each circle is reported once.
        """
        self.check(_service("a", 'failover { service = "a" }'), 'service "a" is its own failover')
        self.check(_service("a", 'mirror { service = "a" }'), 'service "a" is its own mirror')
        self.check(
            _service("x", 'failover { service = "b" }')
            + _service("a", 'failover { service = "b" }')
            + _service("b", 'failover { service = "c" }')
            + _service("c", 'failover { service = "a" }')
            + _service("y", 'failover { service = "x" }'),
            'the failovers of services go round in a circle: "b" → "c" → "a" → "b"',
        )
        self.check(_service("a", 'failover { service = "b" }') + _service("b", 'mirror { service = "a" }'))
        chain = "".join(_service(f"s{index}", f'failover {{ service = "s{index + 1}" }}') for index in range(50)) + _service("s50")
        self.check(chain)

    def test_scaling(self):
        """
        There are no more replicas at least than at most.
        """
        self.check(_service("s", "scaling { min_replicas = 11 }"), "services.s.scaling.min_replicas is 11, more than max_replicas, 10")
        self.check(_service("s", "scaling { min_replicas = 10 }"))
        self.check(_service("s", "scaling {\n min_replicas = 11\n max_replicas = 0\n}"))

    def test_revisions(self):
        """
        C25: revisions share exactly everything, have different names, and servers.
        """
        revision = 'revisions {\n name = "%s"\n traffic_percent = %d\n %s\n }\n'
        server = 'servers { url = "http://a" }'
        self.check(_service("s", revision % ("v1", 90, server) + revision % ("v2", 10, server)))
        self.check(
            _service("s", revision % ("v1", 90, server) + revision % ("v2", 20, server)),
            'the traffic_percent of the revisions of service "s" sum to 110, not 100',
        )
        self.check(
            _service("s", revision % ("v1", 99, server)), 'the traffic_percent of the revisions of service "s" sum to 99, not 100'
        )
        self.check(
            _service("s", revision % ("v1", 90, server) + revision % ("v1", 10, server)), 'service "s" has two revisions called "v1"'
        )
        self.check(_service("s", revision % ("v1", 100, "")), 'revision "v1" of service "s" has no servers')
        self.check(_service("s", revision % ("v1", 500, server)))

    def test_rollout(self):
        """
        C26: a rollout goes from one existing revision to another.
        """
        server = 'servers = [{ url = "http://a" }]'
        revisions = f'revisions = [{{ name = "v1", traffic_percent = 50, {server} }}, {{ name = "v2", traffic_percent = 50, {server} }}]\n'
        rollout = 'rollout {\n from = "%s"\n to = "%s"\n }'
        self.check(_service("s", revisions + rollout % ("v1", "v2")))
        self.check(_service("s", rollout % ("v1", "v2")), 'rollout of service "s" requires at least one revision')
        self.check(_service("s", revisions + rollout % ("v1", "v9")), "'to' revision \"v9\" not found")
        self.check(_service("s", revisions + rollout % ("v2", "v2")), 'rollout of service "s" goes from "v2" to itself')

    def test_health_check(self):
        """
        A health check over HTTP has a path, and no headers that it could not send.
        """
        whole = 'load_balancer {\n servers = [{ url = "http://a" }]\n health_check {\n %s\n }\n }'
        self.check(_service("s", servers=whole % 'path = "/"\n headers = { Authorization = "x", X-Host = "y" }'))
        self.check(_service("s", servers=whole % 'protocol = "tcp"'))
        self.check(_service("s", servers=whole % 'protocol = "grpc"\n      grpc_service = "shop.v1.Cart"'))
        self.check(
            _service("s", servers=whole % 'protocol = "grpc"\n headers = { Content-Type = "a" }'),
            "services.s.load_balancer.health_check.headers.Content-Type is for the gateway to set; leave it out",
        )
        self.check(
            _service("s", servers=whole % 'path = "/"\n grpc_service = "a"'),
            'services.s.load_balancer.health_check.grpc_service is for protocol = "grpc"',
        )
        self.check(_service("s", servers=whole % ""), 'services.s.load_balancer.health_check lacks "path"')
        self.check(
            _service("s", servers=whole % 'path = "/"\n headers = { Host = "a", content_length = "1" }'),
            'gw.hcl:7:21: services.s.load_balancer.health_check.headers.Host is for the gateway to set; write host = "…" beside headers',
            "services.s.load_balancer.health_check.headers.content_length is for the gateway to set; leave it out",
        )

    def test_upstream_tls(self):
        """
        A certificate for servers comes with its key.
        """
        self.check(_service("s", 'upstream_tls { cert_file = "c" }'), "has only one of cert_file and key_file")
        self.check(_service("s", 'upstream_tls {\n cert_file = "c"\n key_file = "k"\n}'))
