"""
Tests of the way from the tree to the model.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config import model
from a3sgw.config.decode import decode
from a3sgw.config.test.loading import ENTRYPOINT, decode_problems, decoded, valid
from a3sgw.config.tree import Attribute, Block, Body, ListValue, ObjectEntry, ObjectValue, Position, Scalar
from a3sgw.config.values import FrozenMap, Secret
from a3sgw.middleware.api_key import ApiKeyConfig
from a3sgw.middleware.compress import CompressConfig


class ShapeTests(SynchronousTestCase):
    """
    The ways to write one thing mean one thing.
    """

    def test_minimal(self):
        """
        The smallest useful file is read, and everything it leaves out has its default.
        """
        config = valid(
            """
            entrypoints "web" { address = "0.0.0.0:8080" }
            routers "api" {
              rule    = "PathPrefix(`/api`)"
              service = "backend"
            }
            services "backend" {
              load_balancer {
                strategy = "round-robin"
                servers  = [{ url = "http://127.0.0.1:8001" }]
              }
            }
            """
        )
        server = model.ServerConfig(url="http://127.0.0.1:8001")
        expected = model.GatewayConfig(
            entrypoints=FrozenMap({"web": model.EntrypointConfig(name="web", address="0.0.0.0:8080")}),
            routers=FrozenMap({"api": model.RouterConfig(name="api", rule="PathPrefix(`/api`)", service="backend")}),
            services=FrozenMap({"backend": model.ServiceConfig(name="backend", load_balancer=model.LoadBalancerConfig(servers=(server,)))}),
        )
        self.assertEqual(config, expected)
        self.assertEqual(config.services["backend"].timeouts.response_header, 30.0)
        self.assertEqual(config.dashboard.path_prefix, "/api/gateway")

    def test_block_is_object(self):
        """
        A block and an attribute that holds an object are the same, with labels and without.
        """
        blocks = """
            entrypoints "web" {
              address = ":80"
              timeouts { idle = "5s" }
            }
            services "s" {
              load_balancer { servers = [{ url = "http://a" }] }
            }
            """
        objects = """
            entrypoints = { web = { address = ":80", timeouts = { idle = "5s" } } }
            services = { s = { load_balancer = { servers = [{ url = "http://a" }] } } }
            """
        mixed = """
            entrypoints "web" {
              address = ":80"
              timeouts = { idle = "5s" }
            }
            services = { "s" = { load_balancer = { servers = { url = "http://a" } } } }
            """
        self.assertEqual(valid(blocks), valid(objects))
        self.assertEqual(valid(blocks), valid(mixed))

    def test_one_or_many_blocks(self):
        """
        C3: one block is as good as two where a list is meant, and as a list.
        """
        head = ENTRYPOINT + 'services "s" {\n load_balancer {\n'
        one = head + 'servers { url = "http://a" }\n}\n}'
        two = head + 'servers { url = "http://a" }\nservers {\n url = "http://b"\n weight = 2\n}\n}\n}'
        listed = head + 'servers = [{ url = "http://a" }, { url = "http://b", weight = 2 }]\n}\n}'
        a, b = model.ServerConfig(url="http://a"), model.ServerConfig(url="http://b", weight=2)
        self.assertEqual(valid(one).services["s"].load_balancer.servers, (a,))
        self.assertEqual(valid(two).services["s"].load_balancer.servers, (a, b))
        self.assertEqual(valid(two), valid(listed))
        seeds = valid(ENTRYPOINT + 'providers {\n discovery {\n seeds { url = "http://a" }\n }\n}').providers.discovery.seeds
        self.assertEqual(seeds, (model.SeedConfig(url="http://a"),))
        revisions = 'services "s" {\n revisions {\n name = "v1"\n servers { url = "http://a" }\n }\n}'
        self.assertEqual(valid(ENTRYPOINT + revisions).services["s"].revisions[0].name, "v1")

    def test_null(self):
        """
        null is the same as leaving the attribute out.
        """
        text = 'entrypoints "web" {\n address = ":80"\n max_connections = null\n tls = null\n timeouts = null\n}'
        self.assertEqual(valid(text), valid('entrypoints "web" { address = ":80" }'))
        problems = decode_problems('entrypoints "web" { address = null }')
        self.assertEqual(problems, ['gw.hcl:1:1: entrypoint "web" lacks "address", which is required'])

    def test_synonym(self):
        """
        `allowed_ips` of an entrypoint is `tcp_allowed_ips`.
        """
        for key in ("allowed_ips", "tcp_allowed_ips"):
            text = f'entrypoints "web" {{\n address = ":80"\n {key} = ["10.0.0.0/8", " ::1 "]\n}}'
            self.assertEqual(valid(text).entrypoints["web"].allowed_ips, ("10.0.0.0/8", "::1"))

    def test_middlewares(self):
        """
        The type decides the class.
        """
        config = valid(
            ENTRYPOINT + 'middlewares "k" {\n type = "api-key"\n keys = ["a", "b"]\n}\nmiddlewares "c" { type = "compress" }'
        )
        written_as_object = valid(
            ENTRYPOINT + 'middlewares = { k = { keys = ["a", "b"], type = "api-key" }, c = { type = "compress" } }'
        )
        self.assertEqual(config, written_as_object)
        self.assertEqual(config.middlewares["k"], ApiKeyConfig(name="k", keys=(Secret("a"), Secret("b"))))
        self.assertEqual(config.middlewares["c"], CompressConfig(name="c"))

    def test_maps(self):
        """
        Headers may be an object or a block; what came from the environment is a secret there.
        """
        text = """
            middlewares "h" {
              type = "headers"
              request_headers = { "X-A" = "1", "Authorization" = "Bearer ${TOKEN}" }
              response_headers { X-B = "" }
            }
            """
        found = valid(ENTRYPOINT + text, {"TOKEN": "t0p"}).middlewares["h"]
        self.assertEqual(found.request_headers, FrozenMap({"X-A": "1", "Authorization": Secret("Bearer t0p")}))
        self.assertEqual(found.response_headers, FrozenMap({"X-B": ""}))

    def test_environment(self):
        """
        C1: what comes from the environment is converted where a number or a bool is expected, and a secret where one is.
        """
        text = """
            entrypoints "web" {
              address         = "127.0.0.1:${PORT}"
              max_connections = "${MOST}"
              merge_slashes   = env("MERGE")
            }
            dashboard {
              username = "u"
              password = "${PASSWORD}"
            }
            """
        config = valid(text, {"PORT": "81", "MOST": "7", "MERGE": "false", "PASSWORD": "hunter2"})
        web = config.entrypoints["web"]
        self.assertEqual((web.address, web.max_connections, web.merge_slashes), ("127.0.0.1:81", 7, False))
        self.assertEqual(config.dashboard.password, Secret("hunter2"))


class ProblemTests(SynchronousTestCase):
    """
    Every mistake is named, with its place, its value and what to do.
    """

    def check(self, text, *expected, environ=None):
        self.assertEqual(decode_problems(text, environ), [f"gw.hcl:{line}" for line in expected])

    def test_unknown(self):
        """
        C2: an unknown key is named with its place and the nearest known one.
        """
        self.check(
            'routers "api" {\n  rule = "x"\n  service = "s"\n  middleware = ["auth"]\n}',
            '4:3: unknown attribute "middleware" in router "api"; did you mean "middlewares"?',
        )
        self.check('router "api" {}', '1:1: unknown block "router" in the configuration; did you mean "routers"?')
        self.check(
            'services "s" {\n  timeouts { conect = "5s" }\n}',
            '2:14: unknown attribute "conect" in services.s.timeouts; did you mean "connect"?',
        )
        self.check(
            'services "s" {\n  timeouts { xyz = "5s" }\n}',
            '2:14: unknown attribute "xyz" in services.s.timeouts; known are "connect", "response_header", "idle", "total", "tunnel_idle"',
        )

    def test_foreign_to_the_type(self):
        """
        C5: a middleware takes the attributes of its type only.
        """
        self.check(
            'middlewares "m" {\n  type = "jwt"\n  value = "x"\n  keys = ["a"]\n}',
            '4:3: middleware "m" is of type "jwt" and has no "keys", which belongs to "api-key"',
        )
        self.check(
            'middlewares "m" {\n  type = "compress"\n  xyz = 5\n}',
            '3:3: unknown attribute "xyz" in middleware "m"; known are "encodings", "level", "min_size_bytes", "included_content_types", '
            '"excluded_content_types", "event_streams"',
        )

    def test_middleware_type(self):
        """
        C28: the type is one of fifteen, tcp-filter among them.
        """
        self.check(
            'middlewares "m" { type = "api-keys" }',
            '1:26: middlewares.m.type is "api-keys", which is not a type of middleware; did you mean "api-key"?',
        )
        self.check('middlewares "m" { header = "X" }', '1:1: middleware "m" lacks "type", which is required')
        self.check('middlewares "m" { type = 5 }', "1:26: middlewares.m.type is 5, expected a string")
        self.assertEqual(decode_problems('middlewares "m" {\n type = "tcp-filter"\n max_connections = 5\n}'), [])
        found = decode_problems('middlewares "m" { type = "${KIND}" }', {"KIND": "s3cret"})[0]
        self.assertNotIn("s3cret", found)

    def test_values(self):
        """
        A value of the wrong type, out of bounds or not among the words is named with what was expected.
        """
        router = 'routers "api" {\n rule = "x"\n service = "s"\n '
        self.check(router + 'priority = "high"\n}', '4:13: routers.api.priority is "high", expected an integer')
        self.check(
            router + "priority = 5000000000\n}",
            "4:13: routers.api.priority is 5000000000, which is not from -2147483648 to 2147483647",
        )
        self.check(router + "priority {}\n}", "4:2: routers.api.priority is a block, expected an integer")
        self.check(router + 'entrypoints = "web"\n}', '4:16: routers.api.entrypoints is "web", expected a list, each item a name')
        self.check(router + 'entrypoints = ["web", 5]\n}', "4:24: routers.api.entrypoints[1] is 5, expected a name")
        self.check(
            'entrypoints "web" {\n address = ":80"\n protocol = "htp"\n}',
            '3:13: entrypoints.web.protocol is "htp", expected one of "http", "tcp", "udp"; did you mean "http"?',
        )
        self.check('entrypoints "web" {\n address = ":80"\n tls = true\n}', "3:8: entrypoints.web.tls is true, expected a block")
        self.check("workers = 0", "1:11: workers is 0, which is not from 1 to 1024")
        self.check('workers = "many"', '1:11: workers is "many", expected an integer or "auto"')
        self.check("routers = 5", "1:11: routers is 5, expected blocks with one label each")
        self.check("routers = { api = 5 }", "1:13: routers.api is 5, expected an object")
        self.check(
            'services "s" {\n load_balancer { servers = ["http://a"] }\n}',
            '2:29: services.s.load_balancer.servers[0] is "http://a", expected an object',
        )
        self.check(
            "providers {\n discovery { seeds = [] }\n}",
            "2:22: providers.discovery.seeds is an empty list, expected at least one object",
        )
        self.check("dashboard { allowed_ips = [] }", "1:27: dashboard.allowed_ips is an empty list, expected at least one item")

    def test_addresses_and_urls(self):
        """
        C8, C19: addresses, networks and URLs are checked when the file is read.
        """
        self.check(
            'entrypoints "web" { address = "8080" }',
            '1:31: entrypoints.web.address is "8080", which names no port; write host:port, as in ":8080"',
        )
        self.check(
            'entrypoints "web" {\n address = ":80"\n tcp_allowed_ips = ["10.0.0.0/8", "x"]\n}',
            '3:35: entrypoints.web.tcp_allowed_ips[1] is "x", which is neither an IP address nor a network in CIDR form',
        )
        self.check(
            'services "s" {\n load_balancer { servers = [{ url = "ftp://a" }] }\n}',
            '2:37: services.s.load_balancer.servers[0].url is "ftp://a", whose scheme is none of http, https, h2c, tcp, udp and "unix:"',
        )

    def test_durations(self):
        """
        C21: bad and zero durations are refused.
        """
        text = 'services "s" {\n timeouts { connect = %s }\n}'
        where = "2:23: services.s.timeouts.connect is"
        self.check(text % '"soon"', f'{where} "soon", expected a duration like "10s", "1m30s" or "250ms"')
        self.check(text % '"0s"', f'{where} "0s", which is no time at all; give a long duration to wait long')
        self.check(text % "0", f"{where} 0, which is no time at all; give a long duration to wait long")
        self.check(text % "true", f'{where} true, expected a duration like "10s", "1m30s" or "250ms"')
        self.check(text % '"1m30s"')

    def test_bounds(self):
        """
        Numbers that would have surprising effects are refused: C14, C23, C24, C26, C30, C33 and the bounds of scaling.
        """
        cases = [
            ('entrypoints "e" {\n address = ":1"\n tls { min_version = "1.1" }\n}', "min_version", '"1.1"'),
            ('services "s" {\n mirror {\n service = "t"\n percentage = 101\n }\n}', "percentage", "from 0 to 100"),
            ('services "s" {\n scaling { executor = "docker" }\n}', "executor", '"box", "k8s"'),
            ('services "s" {\n scaling { target_utilization = 0 }\n}', "target_utilization", "greater than 0 and at most 1"),
            ('services "s" {\n scaling { target_utilization = 1.5 }\n}', "target_utilization", "greater than 0 and at most 1"),
            ('services "s" {\n rollout {\n from = "a"\n to = "b"\n step_percent = 0\n }\n}', "step_percent", "from 1 to 100"),
            ('services "s" {\n rollout {\n from = "a"\n to = "b"\n step_percent = 101\n }\n}', "step_percent", "from 1 to 100"),
            ('services "s" {\n rollout {\n from = "a"\n to = "b"\n error_rate_threshold = 2\n }\n}', "error_rate_threshold", "from 0 to 1"),
            ('services "s" {\n rollout {\n from = "a"\n to = "b"\n step_interval_secs = 0\n }\n}', "step_interval_secs", "from 1"),
            ('middlewares "m" {\n type = "rate-limit"\n rate = 0\n}', "rate", "from 1"),
            ('middlewares "m" {\n type = "rate-limit"\n rate = 1\n burst = 0\n}', "burst", "from 1"),
            ('middlewares "m" {\n type = "circuit-breaker"\n failure_threshold = 0\n}', "failure_threshold", "from 1"),
            ('middlewares "m" {\n type = "circuit-breaker"\n success_threshold = 0\n}', "success_threshold", "from 1"),
            ('middlewares "m" {\n type = "body-limit"\n max_body_bytes = 0\n}', "max_body_bytes", "1 or more"),
            ('middlewares "m" {\n type = "retry"\n max_retries = 0\n}', "max_retries", "from 1"),
            ('providers {\n docker { poll_interval_secs = 0 }\n}', "poll_interval_secs", "from 1"),
            ('providers {\n kubernetes { watch_interval_secs = 0 }\n}', "watch_interval_secs", "from 1"),
            ('providers {\n discovery {\n seeds { url = "http://a" }\n poll_interval_secs = 0\n }\n}', "poll_interval_secs", "from 1"),
            ('providers {\n dns "s" {\n hostname = "a"\n refresh_interval_secs = 0\n }\n}', "refresh_interval_secs", "from 1"),
        ]
        for text, key, expected in cases:
            problems = decode_problems(text)
            self.assertEqual(len(problems), 1, problems)
            self.assertIn(f".{key} is", problems[0])
            self.assertIn(expected, problems[0])

    def test_required(self):
        """
        C27: what a middleware needs, and what anything else needs, is asked for.
        """
        cases = [
            ('routers "r" { rule = "x" }', 'router "r" lacks "service"'),
            ('routers "r" { service = "x" }', 'router "r" lacks "rule"'),
            ('entrypoints "e" { }', 'entrypoint "e" lacks "address"'),
            ('services "s" {\n load_balancer { servers = [{ weight = 1 }] }\n}', 'services.s.load_balancer.servers[0] lacks "url"'),
            ('services "s" {\n load_balancer {\n sticky { secure = true }\n }\n}', 'load_balancer.sticky lacks "cookie"'),
            ('services "s" {\n mirror { percentage = 5 }\n}', 'services.s.mirror lacks "service"'),
            ('services "s" {\n failover { }\n}', 'services.s.failover lacks "service"'),
            ('services "s" {\n rollout { to = "b" }\n}', 'services.s.rollout lacks "from"'),
            ('middlewares "m" { type = "rate-limit" }', 'middleware "m" lacks "rate"'),
            ('middlewares "m" {\n type = "rate-limit-redis"\n rate = 5\n}', 'middleware "m" lacks "redis_url"'),
            ('middlewares "m" { type = "forward-auth" }', 'middleware "m" lacks "forward_auth_url"'),
            ('middlewares "m" { type = "body-limit" }', 'middleware "m" lacks "max_body_bytes"'),
            ('middlewares "m" { type = "ip-allow" }', 'middleware "m" lacks "allowed_ips"'),
            ('providers {\n dns "s" { port = 5 }\n}', 'dns provider "s" lacks "hostname"'),
        ]
        for text, expected in cases:
            problems = decode_problems(text)
            self.assertEqual(len(problems), 1, problems)
            self.assertIn(f"{expected}, which is required", problems[0])

    def test_labels(self):
        """
        Labels are there where they belong, once, and can be read.
        """
        self.check("routers {}", '1:1: routers takes one label, as in routers "name" { … }, not 0')
        self.check('routers "a" "b" {}', '1:1: routers takes one label, as in routers "name" { … }, not 2')
        self.check('dashboard "x" {}', '1:11: dashboard takes no label, but has "x"')
        self.check('routers "" {}', '1:9: router "" needs a name without control characters that is not empty')

    def test_twice(self):
        """
        The same name or block twice is refused, naming both places.
        """
        self.check(
            'entrypoints "a" { address = ":80" }\nentrypoints "a" { address = ":81" }',
            '2:13: entrypoint "a" is defined twice; first at gw.hcl:1:1',
        )
        self.check("dashboard {}\ndashboard {}", "2:1: dashboard is given twice; first at gw.hcl:1:1")
        self.check(
            'entrypoints "a" {\n address = ":80"\n allowed_ips = []\n tcp_allowed_ips = []\n}',
            '4:2: entrypoints.a.tcp_allowed_ips is given twice; first at gw.hcl:3:2 (as "allowed_ips", which means the same)',
        )
        self.check(
            'middlewares "h" {\n type = "headers"\n request_headers = { "X-A" = "1", "x-a" = "2" }\n}',
            "3:35: middlewares.h.request_headers.x-a is given twice; first at gw.hcl:3:22 (letter case makes no difference)",
        )

    def test_headers(self):
        """
        Header names and values that no message can carry are refused instead of skipped.
        """
        text = 'middlewares "h" {\n type = "headers"\n request_headers = { %s }\n}'
        self.check(text % '"X A" = "1"', '3:22: middlewares.h.request_headers has the key "X A", which is not a valid header name')
        self.check(text % '"X-A" = "a\\nb"', '3:30: middlewares.h.request_headers.X-A is "a\\nb", which holds a control character')
        self.check(text % '"X-A" = 1', "3:30: middlewares.h.request_headers.X-A is 1, expected a string")

    def test_all_at_once(self):
        """
        Every problem of a file is reported in one go, in the order of the file.
        """
        self.check(
            'workers = "x"\n'
            'routers "a" {\n  rule = 5\n  servise = "s"\n}\n'
            'entrypoints "web" {\n  address = ":99999"\n  timeouts { idle = "0s" }\n}\n'
            "mirror {}\n",
            '1:11: workers is "x", expected an integer or "auto"',
            '2:1: router "a" lacks "service", which is required',
            "3:10: routers.a.rule is 5, expected a rule like \"PathPrefix(`/api`)\"",
            '4:3: unknown attribute "servise" in router "a"; did you mean "service"?',
            '7:13: entrypoints.web.address is ":99999", whose port is not a number from 0 to 65535',
            '8:21: entrypoints.web.timeouts.idle is "0s", which is no time at all; give a long duration to wait long',
            '10:1: unknown block "mirror" in the configuration',
        )

    def test_hidden(self):
        """
        Neither secrets nor what came from the environment is printed.
        """
        environ = {"V": "hunter2"}
        texts = [
            'routers "a" {\n rule = "x"\n service = "s"\n priority = "${V}"\n}',
            'entrypoints "a" { address = "${V}" }',
            'entrypoints "a" { address = ":80${V}" }',
            'entrypoints "a" {\n address = ":1"\n protocol = "${V}"\n}',
            'entrypoints "a" {\n address = ":1"\n tls = "${V}"\n}',
            'entrypoints "a" {\n address = ":1"\n merge_slashes = "${V}"\n}',
            'services "a" {\n timeouts { idle = "${V}" }\n}',
            'services "a" {\n load_balancer { servers = [{ url = "${V}" }] }\n}',
            'middlewares "a" {\n type = "rate-limit-redis"\n rate = 1\n redis_url = "hunter2"\n}',
            'middlewares "a" {\n type = "api-key"\n keys = "hunter2"\n}',
            'middlewares "a" {\n type = "headers"\n request_headers = { A = "${V}\\n" }\n}',
            'middlewares "a" {\n type = "headers"\n request_headers = "${V}"\n}',
            'dashboard { path_prefix = "${V}" }',
        ]
        for text in texts:
            problems = decode_problems(text, environ)
            self.assertEqual(len(problems), 1, f"{text}\n{problems}")
            self.assertNotIn("hunter2", problems[0])

    def test_empty_secret(self):
        """
        An empty secret is refused, wherever it came from.
        """
        where = "3:10: middlewares.m.value is a hidden value, which is empty; a secret must not be"
        self.check('middlewares "m" {\n type = "jwt"\n value = ""\n}', where)
        self.check('middlewares "m" {\n type = "jwt"\n value = "${V}"\n}', where, environ={"V": ""})


class LeftoverTests(SynchronousTestCase):
    """
    What is good in a bad file is still decoded, so that further checks can say more.
    """

    def test_default_for_the_broken(self):
        """
        A broken attribute that may be absent gets its default, and is remembered as broken.
        """
        result = decoded('entrypoints "web" {\n address = ":80"\n max_connections = "x"\n nonsense = 1\n}')
        self.assertEqual(result.config.entrypoints["web"], model.EntrypointConfig(name="web", address=":80"))
        self.assertEqual(result.positions.broken, {"entrypoints.web.max_connections"})

    def test_left_out(self):
        """
        An object without something it must have is left out whole; its neighbours stay.
        """
        result = decoded('entrypoints "a" { address = "x" }\nentrypoints "b" { address = ":80" }')
        self.assertEqual(list(result.config.entrypoints), ["b"])
        self.assertEqual(len(result.problems), 1)
        self.assertEqual(result.positions.broken, {"entrypoints.a", "entrypoints.a.address"})

    def test_positions(self):
        """
        Every part can be found again: attributes by their value, blocks by their first word.
        """
        places = decoded(
            'entrypoints "web" {\n  address = ":80"\n  timeouts { idle = "5s" }\n}\n'
            'services "api" {\n  load_balancer {\n    servers = [{ url = "http://a" }]\n  }\n}\n'
            'routers "a.b" {\n  rule = "x"\n  service = "api"\n  middlewares = ["m", "n"]\n}\n'
            'middlewares "m" { type = "compress" }\n'
            'services "two" {\n  load_balancer {\n    servers { url = "http://a" }\n    servers { url = "http://b" }\n  }\n}\n'
        ).positions
        expected = {
            "": "1:1",
            "entrypoints.web": "1:1",
            "entrypoints.web.address": "2:13",
            "entrypoints.web.timeouts": "3:3",
            "entrypoints.web.timeouts.idle": "3:21",
            "services.api": "5:1",
            "services.api.load_balancer.servers": "7:15",
            "services.api.load_balancer.servers[0]": "7:16",
            "services.api.load_balancer.servers[0].url": "7:24",
            'routers["a.b"].rule': "11:10",
            'routers["a.b"].middlewares[1]': "13:23",
            "middlewares.m.type": "15:26",
            "services.two.load_balancer.servers[1].url": "19:21",
        }
        self.assertEqual({path: str(places[path]) for path in expected}, {path: f"gw.hcl:{place}" for path, place in expected.items()})

    def test_foreign(self):
        """
        Where a value came from the environment is remembered, so that later problems do not print it either.
        """
        result = decoded('routers "a" {\n rule = "${R}"\n service = "s"\n entrypoints = ["${E}"]\n}', {"R": "x", "E": "y"})
        self.assertEqual(result.positions.foreign, {"routers.a.rule", "routers.a.entrypoints[0]"})


def _trees():
    place = Position("gw.hcl", 1, 1)
    keys = st.sampled_from(
        [
            "entrypoints", "routers", "services", "middlewares", "providers", "dns", "tls", "servers", "load_balancer", "type", "url",
            "rule", "request_headers", "keys", "value", "timeouts", "workers", "a", "revisions", "mirror", "dashboard", "observability",
            "buckets",
        ]
    )
    words = st.sampled_from(["http", "jwt", "headers", "api-key", ":80", "http://a", "10s", "x", "", "a\n"])
    scalars = st.builds(
        Scalar, st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), words), st.just(place), st.booleans()
    ).filter(lambda scalar: not scalar.is_foreign or isinstance(scalar.value, str))

    def entries(values):
        return st.lists(st.builds(ObjectEntry, keys, values, st.just(place)), max_size=4, unique_by=lambda entry: entry.key).map(tuple)

    values = st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.builds(ListValue, st.lists(inner, max_size=3).map(tuple), st.just(place)),
            st.builds(ObjectValue, entries(inner), st.just(place)),
        ),
        max_leaves=8,
    )
    attributes = st.lists(st.builds(Attribute, keys, values, st.just(place)), max_size=4, unique_by=lambda each: each.name).map(tuple)
    leaves = st.builds(Body, attributes, st.just(()), st.just(place))

    def with_blocks(bodies):
        labels = st.lists(st.sampled_from(["a", "b", ""]), max_size=2).map(tuple)
        blocks = st.builds(
            lambda kind, names, body: Block(kind, names, (place,) * len(names), body, place), keys, labels, bodies
        )
        return st.builds(Body, attributes, st.lists(blocks, max_size=4).map(tuple), st.just(place))

    return st.recursive(leaves, with_blocks, max_leaves=6)


class AnyTreeTests(SynchronousTestCase):
    """
    Whatever the tree, decoding ends with a model and a list of problems.
    """

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(_trees())
    def test_any_tree(self, tree):
        """
        No tree makes the decoder raise, and what it makes can be hashed.
        """
        result = decode(tree)
        hash(result.config)
        for problem in result.problems:
            self.assertIsNotNone(problem.position)
            self.assertTrue(problem.message)
