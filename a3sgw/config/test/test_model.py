"""
Tests of the model as a whole.
"""

import json
import time

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.check import check, unsupported
from a3sgw.config.decode import decode
from a3sgw.config.hcl import parse
from a3sgw.config.test.loading import ENTRYPOINT, valid

_WHOLE = """
entrypoints "web" {
  address = ":80"
  tls {
    acme              = true
    acme_email        = "a@b.test"
    acme_eab_kid      = "kid"
    acme_eab_hmac_key = "hunter2"
    acme_challenge    = "dns-01"
    acme_dns {
      provider  = "cloudflare"
      api_token = "hunter2"
    }
  }
}
services "s" {
  load_balancer { servers = [{ url = "http://a" }] }
  scaling { executor_token = "hunter2" }
  revisions = [{ name = "v1", servers = [{ url = "http://a" }] }, { name = "v2", traffic_percent = 0, servers = [{ url = "http://b" }] }]
  rollout {
    from = "v1"
    to   = "v2"
  }
}
routers "r" {
  rule    = "Host(`a.test`)"
  service = "s"
}
middlewares "keys" {
  type = "api-key"
  keys = ["hunter2", "${V}"]
}
middlewares "user" {
  type     = "basic-auth"
  username = "u"
  password = "hunter2"
}
middlewares "token" {
  type  = "jwt"
  value = "${V}"
}
middlewares "redis" {
  type      = "rate-limit-redis"
  rate      = 5
  redis_url = "redis://:hunter2@redis"
}
middlewares "head" {
  type            = "headers"
  request_headers = { "Authorization" = "Bearer ${V}", "X-A" = "b" }
}
dashboard {
  username = "u"
  password = "hunter2"
  keys     = ["hunter2"]
}
"""


class JsonTests(SynchronousTestCase):
    """
    `to_json` shows a configuration as the dashboard does.
    """

    def test_names(self):
        """
        Everything is under its HCL name; what is unset is null or an empty list.
        """
        plain = valid(_WHOLE, {"V": "hunter2"}).to_json()
        kinds = ["entrypoints", "routers", "services", "middlewares"]
        self.assertEqual(list(plain), [*kinds, "providers", "dashboard", "observability", "shutdown_timeout_secs", "workers"])
        self.assertEqual(
            plain["routers"],
            {
                "r": {
                    "rule": "Host(`a.test`)",
                    "service": "s",
                    "entrypoints": [],
                    "middlewares": [],
                    "priority": 0,
                    "tls": None,
                    "timeouts": None,
                }
            },
        )
        self.assertIsNone(plain["providers"])
        service = plain["services"]["s"]
        self.assertEqual(service["rollout"]["from"], "v1")
        self.assertEqual(service["load_balancer"]["servers"], [{"url": "http://a", "weight": 1, "state": "ready"}])
        self.assertEqual(
            {key: plain["middlewares"]["keys"][key] for key in ("type", "header", "keys", "keys_file")},
            {"type": "api-key", "header": "X-API-Key", "keys": ["«secret»"] * 2, "keys_file": None},
        )
        self.assertEqual(plain["middlewares"]["head"]["request_headers"], {"Authorization": "«secret»", "X-A": "b"})

    def test_secrets(self):
        """
        No secret is in the JSON or in the representation of a configuration.
        """
        config = valid(_WHOLE, {"V": "hunter2"})
        self.assertNotIn("hunter2", json.dumps(config.to_json()))
        self.assertNotIn("hunter2", repr(config))
        self.assertEqual(config.middlewares["keys"].keys[0].reveal(), "hunter2")

    def test_secrets_count(self):
        """
        Configurations that differ in a secret only are different, so that a reload takes the new one.
        """
        one, other = valid(_WHOLE, {"V": "a" * 32}), valid(_WHOLE, {"V": "b" * 32})
        self.assertNotEqual(one, other)
        self.assertEqual(one.middlewares["user"], other.middlewares["user"])
        self.assertEqual(one, valid(_WHOLE, {"V": "a" * 32}))
        self.assertEqual(hash(one), hash(valid(_WHOLE, {"V": "a" * 32})))


class SpeedTests(SynchronousTestCase):
    """
    Large configurations load in reasonable time.
    """

    def test_thousand(self):
        """
        A thousand routers and services are decoded and checked in less than a second, wrong names included.
        """
        text = ENTRYPOINT + "".join(
            f'routers "r{index}" {{\n rule = "Host(`h{index}.test`)"\n service = "s{index}x"\n entrypoints = ["web"]\n}}\n'
            f'services "s{index}" {{\n load_balancer {{ servers = [{{ url = "http://10.0.0.1:80" }}] }}\n}}\n'
            for index in range(1000)
        )
        tree = parse(text, "gw.hcl", environ={})
        # Processor time, and far from the 0.15 s it takes, so that a busy machine does not matter but a quadratic step does.
        started = time.process_time()
        result = decode(tree)
        problems = [*check(result.config, result.positions), *unsupported(result.config, result.positions)]
        self.assertLess(time.process_time() - started, 1.0)
        self.assertEqual(len(problems), 1000)
