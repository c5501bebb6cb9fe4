"""
Tests of the way from a file to a checked configuration.
"""

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.load import load_file, load_text
from a3sgw.config.model import ConfigurationError, GatewayConfig
from a3sgw.config.test.loading import ENTRYPOINT, load
from a3sgw.config.values import Secret

_PIECES = ['entrypoints "a" ', "{", "}", "\n", "address", " = ", '":80"', "[", "]", "tls ", "5", "${X}", '"', ","]


class LoadTextTests(SynchronousTestCase):
    """
    `load_text` never raises for bad input.
    """

    def test_good(self):
        """
        A good text gives a configuration and positions.
        """
        loaded = load(ENTRYPOINT)
        self.assertEqual((loaded.problems, loaded.warnings), ((), ()))
        self.assertIs(loaded.valid_config(), loaded.config)
        self.assertEqual(str(loaded.positions["entrypoints.web.address"]), "gw.hcl:1:31")

    def test_not_hcl(self):
        """
        A text that is not HCL is one problem that says so.
        """
        loaded = load('entrypoints "web" {')
        self.assertIsNone(loaded.config)
        self.assertIn("parse HCL", str(loaded.problems[0]))
        self.assertTrue(str(loaded.problems[0]).startswith("gw.hcl:1:"))
        self.assertRaises(ConfigurationError, loaded.valid_config)

    def test_unset_variable(self):
        """
        C1: a variable that is not set is a problem that names it and the attribute, and nothing else is said of that value.
        """
        loaded = load('entrypoints "web" { address = "${ADDRESS}" }')
        (problem,) = loaded.problems
        self.assertIn('entrypoints.web.address: environment variable "ADDRESS" is not set', str(problem))
        self.assertRaises(ConfigurationError, loaded.valid_config)

    def test_unset_variable_hides_nothing(self):
        """
        C34: what else is wrong is reported in the same run.
        """
        loaded = load(
            ENTRYPOINT + 'routers "r" {\n  rule = "Path(`/`)"\n  service = "nope"\n}\n'
            'middlewares "m" {\n  type = "jwt"\n  value = "${SECRET}"\n  bogus = 1\n}\n'
        )
        self.assertEqual([(problem.position.line, problem.path) for problem in loaded.problems], [
            (4, "routers.r.service"), (8, "middlewares.m.value"), (9, "middlewares.m.bogus"),
        ])

    def test_order(self):
        """
        C34: the problems of all checks come together, in the order of the file.
        """
        loaded = load(
            'routers "r" {\n  rule = "x"\n  service = "nope"\n  priority = "x"\n}\n'
            'services "s" {\n  load_balancer {\n    strategy = "random"\n    servers = []\n  }\n'
            "  scaling { min_replicas = 2 }\n  bogus = 1\n}\n",
            include_unsupported=True,
        )
        self.assertEqual([problem.position.line for problem in loaded.problems], [1, 3, 4, 6, 11, 12])
        self.assertIsNotNone(loaded.config)

    def test_unsupported_is_optional(self):
        """
        What this version does not run is a problem unless left out on purpose.
        """
        text = ENTRYPOINT + "observability {\n tracing { }\n}\n"
        self.assertEqual(len(load(text, include_unsupported=True).problems), 1)
        self.assertEqual(len(load_text(text, "gw.hcl", {}).problems), 1)
        self.assertEqual(load(text).problems, ())

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.lists(st.sampled_from(_PIECES), max_size=25))
    def test_any_text(self, parts):
        """
        Whatever the text, there is a configuration or a problem.
        """
        loaded = load("".join(parts))
        self.assertTrue(loaded.problems or loaded.config.entrypoints)


class LoadFileTests(SynchronousTestCase):
    """
    `load_file` reads a file, and others beside it.
    """

    def setUp(self):
        self.folder = self.mktemp()
        os.mkdir(self.folder)

    def write(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as stream:
            stream.write(content if isinstance(content, bytes) else content.encode())
        return path

    def test_file_function(self):
        """
        `file()` counts relative paths from the configuration's folder, wherever the gateway was started.
        """
        self.write("password.txt", "hunter2\n")
        path = self.write("gw.hcl", ENTRYPOINT + 'dashboard {\n username = "u"\n password = file("password.txt")\n}')
        loaded = load_file(path, {})
        self.assertEqual(loaded.problems, ())
        self.assertEqual(loaded.valid_config().dashboard.password, Secret("hunter2"))

    def test_unreadable(self):
        """
        A file that cannot be read is a problem with its name and the reason.
        """
        for path, reason in (
            ("nowhere.hcl", "No such file"),
            (os.curdir, "directory"),
            (self.write("latin.hcl", b"# \xe9"), "not UTF-8 at byte 2"),
            ("a\0b", "null"),
        ):
            loaded = load_file(path, {})
            self.assertIsNone(loaded.config)
            (problem,) = loaded.problems
            self.assertIn("Failed to read config file", str(problem))
            self.assertIn(reason, str(problem))

    def test_line_ends(self):
        """
        Lines that end in CRLF are lines.
        """
        path = self.write("gw.hcl", 'entrypoints "web" {\r\n  address = ":80"\r\n  x = 1\r\n}\r\n')
        problems = [str(problem) for problem in load_file(path, {}).problems]
        self.assertEqual(problems, [f'{path}:3:3: unknown attribute "x" in entrypoint "web"'])


class GatewayConfigTests(SynchronousTestCase):
    """
    The loaders of `GatewayConfig`.
    """

    def test_from_hcl(self):
        """
        A text becomes a configuration, with variables from the environment.
        """
        self.patch(os, "environ", {"A3SGW_TEST_PORT": "8123"})
        config = GatewayConfig.from_hcl('entrypoints "web" { address = ":${A3SGW_TEST_PORT}" }')
        self.assertEqual(config.entrypoints["web"].address, ":8123")

    def test_from_file(self):
        """
        So does a file; a path object will do.
        """
        path = self.mktemp()
        with open(path, "w") as stream:
            stream.write(ENTRYPOINT)
        self.assertEqual(GatewayConfig.from_file(path), GatewayConfig.from_hcl(ENTRYPOINT))

    def test_error(self):
        """
        All problems are in the error, one on each line.
        """
        error = self.assertRaises(ConfigurationError, GatewayConfig.from_hcl, 'workers = 0\nentrypoints "web" {}\n', "gw.hcl")
        self.assertEqual(
            str(error),
            "Configuration error: gw.hcl:1:11: workers is 0, which is not from 1 to 1024\n"
            'gw.hcl:2:1: entrypoint "web" lacks "address", which is required',
        )
        self.assertEqual(len(error.problems), 2)
        error = self.assertRaises(ConfigurationError, GatewayConfig.from_file, "nowhere.hcl")
        self.assertIn("Failed to read config file nowhere.hcl", str(error))
