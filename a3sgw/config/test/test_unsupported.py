"""
Tests of the complaint about what this version does not run.
"""

from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config import model
from a3sgw.config.setting import settings_of
from a3sgw.config.test.loading import ENTRYPOINT, unsupported_problems
from a3sgw.config.unsupported import unsupported


def _service(body, servers='servers = [{ url = "http://a" }]'):
    return f'{ENTRYPOINT}services "s" {{\n load_balancer {{\n {servers}\n {body}\n}}\n}}'


class UnsupportedTests(SynchronousTestCase):
    """
    Nothing is accepted and ignored.
    """

    def check(self, text, *expected, environ=None):
        self.assertEqual(unsupported_problems(text, environ), [f"gw.hcl:{line}" for line in expected])

    def test_runs(self):
        """
        What does run is not complained about.
        """
        self.check(
            """
            entrypoints "web" {
              address = ":80"
              protocol = "http"
              max_connections = 5
              allowed_ips = ["::1"]
              timeouts { idle = "5s" }
              limits { max_header_count = 5 }
              middlewares = []
              forwarded_headers { trusted_ips = ["::1"] }
              encoded_characters { allow_encoded_slash = true }
            }
            services "s" {
              load_balancer {
                strategy = "round-robin"
                servers = [{ url = "http://a", weight = 3 }, { url = "unix:/run/a" }]
                health_check { path = "/" }
              }
              timeouts { connect = "1s" }
              connection_pool { max_connections = 5 }
              pass_host_header = false
              max_replay_bytes = 0
              mirror { service = "t" }
              failover { service = "t" }
              hedging { quantile = 0.9 }
            }
            routers "r" {
              rule = "x"
              service = "s"
              priority = 5
            }
            dashboard {
              address = ":81"
              username = "u"
              password = "p"
            }
            observability {
              access_log { format = "common" }
              metrics { buckets = [1] }
            }
            workers = 2
            shutdown_timeout_secs = 5
            providers {}
            """
        )

    def test_blocks(self):
        """
        Blocks and attributes that do nothing yet are named; what lies within them is not repeated.
        """
        self.check(
            'entrypoints "e" {\n  address = ":1"\n  tls {\n    acme = true\n  }\n}',
            "4:12: this version does not run acme yet; remove entrypoints.e.tls.acme",
        )
        self.check(
            ENTRYPOINT + 'services "s" {\n scaling {\n  min_replicas = 2\n  container_concurrency = 2\n }\n}',
            "4:18: this version does not run min_replicas yet; remove services.s.scaling.min_replicas",
        )
        self.check(
            ENTRYPOINT + "observability {\n tracing { }\n}\nproviders {\n docker { }\n}",
            "6:2: this version does not run docker yet; remove providers.docker",
            "3:2: this version does not run tracing yet; remove observability.tracing",
        )

    def test_every_declaration_counts(self):
        """
        Every service and entrypoint attribute that does not run is complained about as soon as it is used.
        """
        cases: list[tuple[str, Any]] = [("services", model.ServiceConfig), ("entrypoints", model.EntrypointConfig)]
        for kind, cls in cases:
            for declared in settings_of(cls):
                if declared.runs:
                    continue
                sample = 5 if isinstance(declared.default, int) else (("m",) if declared.default == () else self.made(declared))
                given: dict[str, Any] = {"name": "x", declared.attribute: sample}
                if kind == "entrypoints":
                    given["address"] = ":80"
                whole: dict[str, Any] = {kind: {"x": cls(**given)}}
                problems = unsupported(model.GatewayConfig(**whole), {})
                self.assertEqual([problem.path for problem in problems], [f"{kind}.x.{declared.key}"])

    def made(self, declared):
        cls = declared.kind.cls
        return cls(**{field.name: "x" for field in attrs.fields(cls) if field.default is attrs.NOTHING})

    def test_providers(self):
        """
        No provider but files runs yet, and every one says so.
        """
        text = """
            providers {
              file {}
              discovery { seeds = [{ url = "http://a" }] }
              kubernetes {}
              docker {}
              dns "s" { hostname = "a" }
            }
            """
        found = unsupported_problems(ENTRYPOINT + text)
        self.assertEqual(len(found), 4)
        for name in ("discovery", "kubernetes", "docker", "dns"):
            self.assertTrue(any(f"remove providers.{name}" in problem for problem in found), name)
