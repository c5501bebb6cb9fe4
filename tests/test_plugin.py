"""
Plugins of other distributions: what `pip install` brings is found, validated, documented, run and proved.
"""

import functools
import json
import re
import shlex
import zipfile
from pathlib import Path

from tests.installation import Environment, InstalledCase, wheelhouse, without_paths
from tests.support import Process, RawServer, accepts, fetch, free_port, wait_until

CONFIG = """
entrypoints "web" {{ address = "127.0.0.1:{port}" }}
routers "all" {{
  rule        = "PathPrefix(`/`)"
  service     = "all"
  middlewares = ["closed"]
}}
services "all" {{
  load_balancer {{
    strategy = "example-bursts"
    servers  = [{{ url = "http://127.0.0.1:{backend}" }}]
  }}
}}
middlewares "closed" {{
  type = "example-maintenance"
  file = "{file}"
  {more}
}}
"""

PLUGIN = """
import attrs
from a3sgw.config.setting import label
from a3sgw.middleware.factory import MiddlewareFactory

@attrs.frozen(kw_only=True)
class Config:
    \"\"\"A type for tests.\"\"\"
    type = "{type}"
    name: str = label()

factory = MiddlewareFactory(Config, lambda config, surroundings: None)
"""

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@functools.cache
def with_example() -> Environment:
    """
    Return an environment with the gateway and the example in it.
    """
    return wheelhouse().new_environment("with-example", wheelhouse().gateway, wheelhouse().example)


@functools.cache
def in_place() -> Environment:
    """
    Return an environment where the gateway is used in place, as developers have it, and nothing else is there yet.
    """
    environment = wheelhouse().new_environment("in-place")
    environment.install("--editable", wheelhouse().gateway_source)
    return environment


class PluginCase(InstalledCase):
    """
    A test of a gateway with the example of a plugin.
    """

    def environment(self):
        return with_example()

    def write(self, *, port=1, backend=2, more=""):
        """
        Write a configuration that uses the example.
        """
        text = CONFIG.format(port=port, backend=backend, file=self.directory / "closed", more=more)
        (self.directory / "gateway.hcl").write_text(text, "utf-8")

    def run_line(self, line, **environ):
        """
        Return exit code, standard output and standard error of a command; no Python shows in them.
        """
        result = self.installed.run(*shlex.split(line), cwd=self.directory, **environ)
        self.assertNotIn("Traceback", result.stderr)
        return result.returncode, result.stdout, result.stderr

    def assert_listed(self):
        """
        The example is among the middlewares, with its distribution, and nothing is wrong.
        """
        code, out, err = self.run_line("a3s-gateway middlewares")
        self.assertEqual((code, err), (0, ""))
        [line] = [line for line in out.splitlines() if line.startswith("example-maintenance ")]
        self.assertIn(" Answer 503 with a page for people, as long as a file exists; some addresses may pass. ", line)
        self.assertTrue(line.endswith(" (a3s-gateway-example 1.0.0)"), line)
        self.assertIn("(built in)", out)


class ExampleTests(PluginCase):
    """
    The example in contrib, installed from its wheel beside the gateway.
    """

    def test_wheel(self):
        """
        Its wheel puts one module into the gateway's package of plugins, and no `__init__.py`, which would hide the gateway's own.
        """
        with zipfile.ZipFile(wheelhouse().example) as archive:
            names = set(archive.namelist())
        self.assertEqual({name for name in names if name.startswith("a3sgw/")}, {"a3sgw/plugins/a3sgw_example.py"})
        self.assertEqual({name.split("/")[0] for name in names}, {"a3sgw", "a3sgw_example", "a3s_gateway_example-1.0.0.dist-info"})

    def test_listed(self):
        """
        Its type stands in the list.
        """
        self.assert_listed()

    def test_documented(self):
        """
        Its attributes are explained like those of any other type.
        """
        code, out, err = self.run_line("a3s-gateway middlewares example-maintenance")
        self.assertEqual((code, err), (0, ""))
        self.assertTrue(out.startswith('### `middlewares "NAME" { type = "example-maintenance" }`\n'), out)
        for part in ("| `file` | string | **required** |", "| `check_interval_ms` | integer | `1000` |", '```hcl\nmiddlewares "closed" {'):
            self.assertIn(part, out)

    def test_validated(self):
        """
        A misspelt attribute, and a value out of bounds, are refused with their places; a good configuration is valid.
        """
        self.write(more="alowed_ips = []")
        code, out, err = self.run_line("a3s-gateway validate")
        self.assertEqual((code, out), (1, ""))
        self.assertIn('gateway.hcl:17:3: unknown attribute "alowed_ips" in middleware "closed"; did you mean "allowed_ips"?\n', err)
        self.write(more="retry_after_secs = 0")
        self.assertIn("gateway.hcl:17:22: middlewares.closed.retry_after_secs is 0", self.run_line("a3s-gateway validate")[2])
        self.write()
        code, out, err = self.run_line("a3s-gateway validate")
        self.assertEqual((code, err), (0, ""))
        self.assertIn("closed (type: example-maintenance)", out)

    def test_unknown(self):
        """
        A type that is nearly the example's is guessed.
        """
        self.write()
        path = self.directory / "gateway.hcl"
        path.write_text(path.read_text().replace("example-maintenance", "example-maintenence"))
        self.assertIn('; did you mean "example-maintenance"?', self.run_line("a3s-gateway validate")[2])
        self.assertIn('; did you mean "example-maintenance"?', self.run_line("a3s-gateway middlewares example-maintenence")[2])

    def test_request(self):
        """
        Requests go through it, and it closes the site while its file exists; the gateway's API and metrics tell of it.
        """
        port = free_port()
        closed = self.directory / "closed"
        with RawServer.answering(ANSWER) as backend:
            self.write(port=port, backend=backend.port, more="check_interval_ms = 100")
            with Process([self.installed.bin / "a3s-gateway"], environ=without_paths(), directory=self.directory) as gateway:
                wait_until(lambda: accepts(port) or not gateway.is_running(), "the gateway listens")
                self.assertTrue(gateway.is_running(), gateway.stderr())
                self.assertEqual(fetch(port).body, b"hello")
                closed.touch()
                wait_until(lambda: fetch(port).status == 503, "the site is closed")
                answer = fetch(port)
                self.assertEqual((answer.headers["retry-after"], answer.headers["content-type"]), ("300", "text/html; charset=utf-8"))
                self.assertIn(b"Back soon", answer.body)
                shown = json.loads(fetch(port, "/api/gateway/middlewares/closed").body)
                self.assertEqual((shown["type"], shown["routers"]), ("example-maintenance", ["all"]))
                self.assertEqual(shown["states"], [{"router": "all", "entrypoint": None, "service": None, "state": {"site": "closed"}}])
                metrics = fetch(port, "/api/gateway/metrics").body
                self.assertIn(b'gateway_middleware_answers_total{middleware="closed",status="503"}', metrics)
                closed.unlink()
                wait_until(lambda: fetch(port).status == 200, "the site is open")
                self.assertNotIn("Traceback", gateway.stderr())

    def test_provider(self):
        """
        Its provider is run: what it offers is served within moments, and what it can no longer tell goes on; the API tells of it.
        """
        port = free_port()
        inventory = self.directory / "inventory.json"
        with RawServer.answering(ANSWER) as backend:
            inventory.write_text(json.dumps({"carts": [f"http://127.0.0.1:{backend.port}"], "bad name": ["::"]}))
            self.write(port=port, backend=backend.port)
            path = self.directory / "gateway.hcl"
            block = f'plugin "shop" {{\n    type = "example-inventory"\n    file = "{inventory}"\n    interval_secs = 1\n  }}'
            text = path.read_text().replace("PathPrefix(`/`)", "Path(`/`)") + f"providers {{\n  {block}\n}}\n"
            path.write_text(text + "dashboard {\n  enabled = true\n}\n", "utf-8")
            self.assertIn("example-inventory (name: shop)", self.run_line("a3s-gateway validate")[1])
            with Process([self.installed.bin / "a3s-gateway"], environ=without_paths(), directory=self.directory) as gateway:
                wait_until(lambda: accepts(port) or not gateway.is_running(), "the gateway listens")
                self.assertTrue(gateway.is_running(), gateway.stderr())
                wait_until(lambda: fetch(port, "/carts").status == 200, "what is offered is served")
                health = json.loads(fetch(port, "/api/gateway/health").body)
                self.assertEqual([(row["name"], row["objects"], row["error"]) for row in health["providers"]], [("shop", 4, None)])
                self.assertTrue(health["left_out"][0].startswith('provider "shop": '), health)
                inventory.unlink()
                wait_until(lambda: json.loads(fetch(port, "/api/gateway/health").body)["providers"][0]["error"], "the failure is shown")
                self.assertEqual(fetch(port, "/carts").status, 200)
                inventory.write_text("{}")
                wait_until(lambda: fetch(port, "/carts").status == 404, "what is gone is served no more")
                self.assertNotIn("Traceback", gateway.stderr())

    def test_own_tests(self):
        """
        The tests that it brings, with the gateway's contracts among them, pass where it is installed.
        """
        result = self.installed.trial("a3sgw_example", self.directory)
        self.assertEqual(result.returncode, 0, result.stdout[-3000:] + result.stderr)
        self.assertRegex(result.stdout, re.compile(r"^PASSED \(successes=[0-9]{2,}\)", re.MULTILINE))
        self.assertIn("test_hostile_fields", result.stdout)

    def test_nothing_is_written(self):
        """
        Looking for plugins leaves nothing in the environment, which most gateways may not write to.
        """
        self.run_line("a3s-gateway middlewares")
        self.assertEqual(list(self.installed.packages.glob("a3sgw/plugins/dropin.cache")), [])

    def test_twisted_finds_it(self):
        """
        Twisted's own `getPlugins` finds what the gateway finds.
        """
        script = (
            "from twisted.plugin import getPlugins; from a3sgw import plugins; from a3sgw.interfaces import *;"
            "print([each.type_name for each in getPlugins(IMiddlewareFactory, plugins)]);"
            "print([each.strategy for each in getPlugins(IBalancerFactory, plugins)])"
        )
        # It writes its cache, so not where it is installed.
        self.addCleanup(lambda: [path.unlink() for path in self.installed.packages.glob("a3sgw/plugins/dropin.cache")])
        result = self.installed.run("python", "-c", script, cwd=self.directory)
        self.assertEqual(result.stdout, "['example-maintenance']\n['example-bursts']\n", result.stderr)


class EditableTests(PluginCase):
    """
    The gateway, or the plugin, is used in place.
    """

    def environment(self):
        return in_place()

    def test_plugin_beside_editable_gateway(self):
        """
        A plugin that is installed from its wheel is found by a gateway that is not; so is one that is itself used in place.
        """
        for what in ((wheelhouse().example,), ("--editable", wheelhouse().example_source)):
            self.installed.install(*what)
            where = self.installed.run("python", "-c", "import a3sgw; print(a3sgw.__file__)", cwd=self.directory).stdout
            self.assertEqual(Path(where.strip()).parent.parent, wheelhouse().gateway_source)
            self.assert_listed()


class BrokenTests(PluginCase):
    """
    Plugins with faults: modules in a folder of plugins on the path.
    """

    def setUp(self):
        super().setUp()
        self.folder = self.directory / "more"
        (self.folder / "a3sgw" / "plugins").mkdir(parents=True)

    def add(self, name, text):
        """
        Put a plugin module into the folder; return its path.
        """
        path = self.folder / "a3sgw" / "plugins" / f"{name}.py"
        path.write_text(text, "utf-8")
        return path

    def run_line(self, line, **environ):
        return super().run_line(line, PYTHONPATH=str(self.folder), **environ)

    def test_cannot_be_imported(self):
        """
        A module that cannot be imported is told by every command, with its reason, and where its type is missed; other plugins work.
        """
        path = self.add("shop", "import absent\n")
        told = f"the plugin module a3sgw.plugins.shop ({path}) cannot be imported: ModuleNotFoundError: No module named 'absent'"
        code, out, err = self.run_line("a3s-gateway middlewares")
        self.assertEqual((code, "example-maintenance" in out), (0, True))
        self.assertTrue(err.startswith(f"a3s-gateway: warning: {told}"), err)
        self.write()
        code, out, err = self.run_line("a3s-gateway validate")
        self.assertEqual(code, 0)
        self.assertIn(f"warning: {told}", err)
        (self.directory / "gateway.hcl").write_text(
            'entrypoints "web" { address = ":1" }\nmiddlewares "menu" {\n  type = "shop-menu"\n}\n', "utf-8"
        )
        for line in ("a3s-gateway validate", "a3s-gateway"):
            code, out, err = self.run_line(line)
            self.assertEqual((code, out), (1, ""))
            self.assertRegex(err, r'gateway.hcl:3:10: middlewares.menu.type is "shop-menu", which is not a type of middleware')
            self.assertIn(f"; it may be that of a plugin: {told}", err)

    def test_taken_name(self):
        """
        Two plugins with the same type keep everything from starting; both are named.
        """
        path = self.add("shop", PLUGIN.format(type="example-maintenance"))
        self.write()
        for line in (
            "a3s-gateway",
            "a3s-gateway demo",
            "a3s-gateway validate",
            "a3s-gateway middlewares",
            "python -c 'from twisted.scripts.twistd import run; run()' -n --pidfile= a3s-gateway",
            "a3s-gateway --listen 127.0.0.1:1",
        ):
            if "--listen" in line:
                (self.directory / "gateway.hcl").unlink()
            code, out, err = self.run_line(line)
            self.assertEqual((code, out), (1, ""), line)
            self.assertIn('two factories provide the middleware type "example-maintenance": ', err)
            self.assertIn(str(path), err)
            self.assertIn("of a3s-gateway-example 1.0.0, ", err)
