"""
Tests of `a3sgw.summary`.
"""

import json

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.decode import Positions
from a3sgw.config.load import Loaded
from a3sgw.config.model import (
    DiscoveryProviderConfig,
    DnsProviderConfig,
    DockerProviderConfig,
    EntrypointConfig,
    FileProviderConfig,
    FrozenMap,
    GatewayConfig,
    KubernetesProviderConfig,
    LoadBalancerConfig,
    ProvidersConfig,
    RevisionConfig,
    RouterConfig,
    Secret,
    SeedConfig,
    ServerConfig,
    ServiceConfig,
)
from a3sgw.config.tree import Position, Problem
from a3sgw.middleware.api_key import ApiKeyConfig
from a3sgw.summary import as_json, complaints, report


def by_name(*items):
    """
    Return the map that a labelled block becomes.
    """
    return FrozenMap({item.name: item for item in items})


SERVERS = (ServerConfig(url="http://127.0.0.1:9101"), ServerConfig(url="http://127.0.0.1:9102"))

CONFIG = GatewayConfig(
    entrypoints=by_name(
        EntrypointConfig(name="web", address="0.0.0.0:8080"), EntrypointConfig(name="db", address="127.0.0.1:5432", protocol="tcp")
    ),
    routers=by_name(
        RouterConfig(name="shop", rule="PathPrefix(`/shop`)", service="shop"),
        RouterConfig(name="api", rule="Host(`api.test`)", service="api", middlewares=("key",), priority=7),
    ),
    services=by_name(
        ServiceConfig(name="shop", load_balancer=LoadBalancerConfig(servers=SERVERS)),
        ServiceConfig(name="api", load_balancer=LoadBalancerConfig(servers=SERVERS[:1], strategy="random")),
        ServiceConfig(
            name="canary",
            revisions=(
                RevisionConfig(name="v1", traffic_percent=90, servers=SERVERS[:1]),
                RevisionConfig(name="v2", traffic_percent=10, servers=SERVERS[1:]),
            ),
        ),
    ),
    middlewares=by_name(ApiKeyConfig(name="key", keys=(Secret("open sesame"),))),
    providers=ProvidersConfig(
        file=FileProviderConfig(directory="/etc/a3s-gateway/conf.d"),
        discovery=DiscoveryProviderConfig(seeds=(SeedConfig(url="http://seed.test"),)),
        kubernetes=KubernetesProviderConfig(),
        docker=DockerProviderConfig(),
        dns=by_name(DnsProviderConfig(name="shop", hostname="shop.test")),
    ),
)

PROBLEMS = (
    Problem(Position("gateway.hcl", 12, 3), "routers.api.service", 'router "api" names service "bakend"; did you mean "backend"?'),
    Problem(Position("gateway.hcl", 2, 1), "entrypoints.web", "no address"),
    Problem(None, "entrypoints", "no entrypoint"),
)

REPORT = """\
✓ gateway.hcl parsed
✓ configuration is valid

Entrypoints: 2
  db → 127.0.0.1:5432 (tcp)
  web → 0.0.0.0:8080 (http)
Routers: 2
  api → service:api rule:Host(`api.test`)
  shop → service:shop rule:PathPrefix(`/shop`)
Services: 3
  api (1 backend, strategy: random)
  canary (2 revisions: v1 90 %, v2 10 %)
  shop (2 backends, strategy: round-robin)
Middlewares: 1
  key (type: api-key)
Providers: 5
  discovery (seeds: 1)
  dns (name: shop, hostname: shop.test)
  docker (host: /var/run/docker.sock)
  file (watch: true, directory: /etc/a3s-gateway/conf.d)
  kubernetes
"""


def loaded(config=CONFIG, problems=(), warnings=()):
    """
    Return what loading a file may give.
    """
    return Loaded(config, problems, warnings, Positions())


class ReportTests(SynchronousTestCase):
    """
    What `validate` prints on standard output.
    """

    def test_valid(self):
        """
        Everything is listed, in order of the names, with counts.
        """
        self.assertEqual(report("gateway.hcl", loaded()), REPORT)
        self.assertEqual(complaints("gateway.hcl", loaded()), "")

    def test_warnings_are_counted(self):
        """
        A valid file with warnings says how many there are.
        """
        self.assertIn("\n1 warning, see above\n", report("gateway.hcl", loaded(warnings=PROBLEMS[:1])))
        self.assertIn("\n2 warnings, see above\n", report("gateway.hcl", loaded(warnings=PROBLEMS[:2])))

    def test_invalid(self):
        """
        A faulty file gets no report, whether or not it could be parsed.
        """
        self.assertEqual(report("gateway.hcl", loaded(problems=PROBLEMS)), "")
        self.assertEqual(report("gateway.hcl", loaded(None, PROBLEMS)), "")


class ComplaintTests(SynchronousTestCase):
    """
    What `validate` prints on standard error.
    """

    def test_problems(self):
        """
        Each problem is one line with its place, in the order of the file; a last line counts them.
        """
        self.assertEqual(
            complaints("gateway.hcl", loaded(problems=PROBLEMS)).splitlines(),
            [
                "gateway.hcl: no entrypoint",
                "gateway.hcl:2:1: no address",
                'gateway.hcl:12:3: router "api" names service "bakend"; did you mean "backend"?',
                "✗ gateway.hcl: 3 problems",
            ],
        )

    def test_warnings(self):
        """
        Warnings are marked as such and do not make a file faulty.
        """
        self.assertEqual(complaints("gateway.hcl", loaded(warnings=PROBLEMS[1:2])), "gateway.hcl:2:1: warning: no address\n")

    def test_unreadable_file(self):
        """
        A problem that names the file itself does not name it twice.
        """
        problem = Problem(None, "", "Failed to read config file gateway.hcl: No such file or directory")
        self.assertEqual(
            complaints("gateway.hcl", loaded(None, (problem,))).splitlines(), [problem.message, "✗ gateway.hcl: 1 problem"]
        )


class JsonTests(SynchronousTestCase):
    """
    What `validate --format json` prints.
    """

    def test_valid(self):
        """
        A valid file's answer lists names, addresses, rules and backends.
        """
        answer = json.loads(as_json("gateway.hcl", loaded()))
        self.assertEqual((answer["valid"], answer["file"], answer["problems"], answer["warnings"]), (True, "gateway.hcl", [], []))
        summary = answer["summary"]
        self.assertEqual([item["name"] for item in summary["entrypoints"]], ["db", "web"])
        self.assertEqual(
            summary["routers"][0],
            {"name": "api", "rule": "Host(`api.test`)", "service": "api", "entrypoints": [], "middlewares": ["key"], "priority": 7},
        )
        self.assertEqual(summary["services"][2]["backends"], ["http://127.0.0.1:9101", "http://127.0.0.1:9102"])
        self.assertEqual([item["traffic_percent"] for item in summary["services"][1]["revisions"]], [90, 10])
        self.assertEqual([item["kind"] for item in summary["providers"]], ["discovery", "dns", "docker", "file", "kubernetes"])

    def test_problems(self):
        """
        Problems come with file, line, column, path and message; what has no place has nulls there.
        """
        answer = json.loads(as_json("gateway.hcl", loaded(None, PROBLEMS, PROBLEMS[1:2])))
        self.assertEqual((answer["valid"], answer["summary"]), (False, None))
        self.assertEqual(
            answer["problems"][:2],
            [
                {"file": None, "line": None, "column": None, "path": "entrypoints", "message": "no entrypoint"},
                {"file": "gateway.hcl", "line": 2, "column": 1, "path": "entrypoints.web", "message": "no address"},
            ],
        )
        self.assertEqual(len(answer["warnings"]), 1)

    def test_no_secret(self):
        """
        No secret gets into any of it.
        """
        for text in (report("gateway.hcl", loaded()), as_json("gateway.hcl", loaded())):
            self.assertNotIn("sesame", text)
