"""
Tests of what `a3sgw.loading` adds to the checks of a configuration: what plugins have to do with it.
"""

import attrs
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.dropins import Fault
from a3sgw.loading import load_string
from a3sgw.middleware.catalog import BUILT_IN, Catalog

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
