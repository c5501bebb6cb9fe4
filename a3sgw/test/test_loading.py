"""
Tests of what `a3sgw.loading` adds to the checks of a configuration: what plugins have to do with it.
"""

from types import ModuleType

import attrs
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from a3sgw.config.kinds import Integer
from a3sgw.config.setting import label, setting
from a3sgw.dropins import NO_DROPINS, CatalogError, Dropins, Fault
from a3sgw.interfaces import IBalancerFactory
from a3sgw.loading import load_string
from a3sgw.middleware.catalog import BUILT_IN, Catalog
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.service.balance import RoundRobinFactory
from a3sgw.service.strategies import strategies_of
from a3sgw.testing import Dialogue

CONFIG = """
entrypoints "web" {{ address = ":8080" }}
middlewares "closed" {{
  type = "{type}"
}}
"""

REASON = "cannot be imported: ModuleNotFoundError: No module named 'jinja2'"
FAULT = Fault("a3sgw.plugins.shop", "/site/a3sgw/plugins/shop.py", REASON)
TOLD = f"the plugin module a3sgw.plugins.shop (/site/a3sgw/plugins/shop.py) {REASON}"


class PluginFaultTests(SynchronousTestCase):
    """
    A plugin that cannot be used is no secret.
    """

    def load(self, type_name, *faults):
        """
        Load a configuration with a middleware of that type, where plugins have `faults`.
        """
        whole = Catalog.of(BUILT_IN)
        catalog = Catalog(whole.by_name, whole.plugins, faults)
        return load_string(CONFIG.format(type=type_name), "gw.hcl", {}, catalog)

    def test_missing_type(self):
        """A type that is not known may be that of the plugin, and the problem says so, with the reason."""
        [problem] = self.load("shop-closed", FAULT).problems
        self.assertTrue(str(problem).startswith('gw.hcl:4:10: middlewares.closed.type is "shop-closed", which is not a type of middleware'))
        self.assertTrue(str(problem).endswith(f"; it may be that of a plugin: {TOLD}"), problem)
        [problem] = self.load("shop-closed").problems
        self.assertNotIn("plugin", str(problem))

    def test_warning(self):
        """A configuration that does not need the plugin is valid, and there is a warning."""
        loaded = self.load("compress", FAULT, attrs.evolve(FAULT, module="a3sgw.plugins.other"))
        self.assertEqual(loaded.problems, ())
        self.assertIn(TOLD, [str(warning) for warning in loaded.warnings])
        self.assertEqual(len(loaded.warnings), 2)
        self.assertEqual(self.load("compress").warnings, ())


SERVICE = """
entrypoints "web" {{ address = ":8080" }}
routers "app" {{
  rule = "PathPrefix(`/`)"
  service = "app"
}}
services "app" {{
  load_balancer {{
    strategy = "{strategy}"
    servers = [{{ url = "http://192.0.2.1:80" }}, {{ url = "http://192.0.2.2:80" }}]
  }}
}}
"""


class Last:
    """
    A balancer that likes the last best.
    """

    def choose(self, candidates, record):
        return candidates[-1]


@implementer(IPlugin, IBalancerFactory)
class LastFactory:
    """
    Builds the strategy of a plugin.
    """

    def __init__(self, strategy="last"):
        self.strategy = strategy

    def build(self, backends, settings):
        return Last()


def dropins_with(factory):
    """
    Return what is found where one module provides `factory`.
    """
    module = ModuleType("a3sgw.plugins.last")
    module.factory = factory
    return Dropins(((module, "/site/a3sgw/plugins/last.py"),))


class StrategyTests(SynchronousTestCase):
    """
    Strategies are the gateway's own, or those of plugins.
    """

    def test_unknown(self):
        """A strategy that nobody has is a problem at its place, with a guess."""
        [problem] = load_string(SERVICE.format(strategy="wieghted"), "gw.hcl", {}, None, strategies_of(NO_DROPINS)).problems
        self.assertTrue(str(problem).startswith('gw.hcl:9:16: services.app.load_balancer.strategy is "wieghted", expected one of "round-'))
        self.assertTrue(str(problem).endswith('; did you mean "weighted"?'), problem)

    def test_fault(self):
        """It may be that of a plugin which cannot be used."""
        found = strategies_of(Dropins((), (FAULT,)))
        [problem] = load_string(SERVICE.format(strategy="last"), "gw.hcl", {}, None, found).problems
        self.assertTrue(str(problem).endswith(f"; it may be that of a plugin: {TOLD}"), problem)

    def test_twice(self):
        """Two of one name are an error that names both."""
        error = self.assertRaises(CatalogError, strategies_of, dropins_with(LastFactory(RoundRobinFactory.strategy)))
        self.assertIn('two factories provide the strategy "round-robin"', str(error))
        self.assertIn("a3sgw.plugins.last (/site/a3sgw/plugins/last.py)", str(error))

    def test_chosen(self):
        """The strategy of a plugin is loaded, and chooses the server a request goes to."""
        found = strategies_of(dropins_with(LastFactory()))
        text = SERVICE.format(strategy="last")
        loaded = load_string(text, "gw.hcl", {}, None, found)
        self.assertEqual(loaded.problems, ())
        dialogue = Dialogue(loaded.config, answers_dials=False, strategies=found)
        for _ in range(2):
            dialogue.say(dialogue.connect(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertEqual([attempt.addresses[0][1][0] for attempt in dialogue.attempts], ["192.0.2.2", "192.0.2.2"])


@attrs.frozen(kw_only=True)
class ClumsyConfig:
    """
    A type of a plugin that has bugs.
    """

    type = "clumsy"
    name: str = label()
    size: int = setting(Integer(), "How clumsy.", default=0)

    def problems(self):
        """
        Find one problem, and fall over the next.
        """
        yield "size", "is too clumsy"
        raise KeyError("depth")

    def advice(self):
        """
        Return something that is no advice.
        """
        return 1


class PluginBugTests(SynchronousTestCase):
    """
    A plugin with bugs costs its middlewares, and nobody is shown Python.
    """

    def test_checks(self):
        """What its class finds before it falls over is told, and so is that it did, with the place of the block."""
        catalog = Catalog.of([*BUILT_IN, MiddlewareFactory(ClumsyConfig, lambda config, surroundings: None)])
        loaded = load_string(CONFIG.format(type="clumsy"), "gw.hcl", {}, catalog)
        self.assertEqual(
            [str(problem) for problem in loaded.problems],
            [
                'gw.hcl:3:1: middleware "closed" is too clumsy',
                "gw.hcl:3:1: middleware \"closed\" of type \"clumsy\" cannot be checked: KeyError: 'depth'",
            ],
        )
        [warning] = loaded.warnings
        self.assertIn('middleware "closed" of type "clumsy" cannot be given advice: TypeError: ', str(warning))
