"""
Tests of how plugins are found, with packages of plugins in a directory of their own.
"""

import importlib
import itertools
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from twisted.plugin import IPlugin, getPlugins, pluginPackagePaths
from twisted.trial.unittest import SynchronousTestCase

import a3sgw
from a3sgw import plugins
from a3sgw.dropins import distribution_of, find_dropins
from a3sgw.interfaces import IMiddlewareFactory

GOOD = '''
import attrs
from a3sgw.config.setting import label
from a3sgw.middleware.factory import MiddlewareFactory

@attrs.frozen(kw_only=True)
class {name}Config:
    """A type for tests. It does nothing."""
    type = "{type}"
    name: str = label()

factory = MiddlewareFactory({name}Config, lambda config, surroundings: None)
'''

_numbers = itertools.count()


class DropinCase(SynchronousTestCase):
    """
    A package in which a test puts plugin modules.
    """

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        # Each test has another name, because Python remembers what it has imported.
        self.name = f"a3sgw_test_plugins_{next(_numbers)}"
        (self.root / self.name).mkdir()
        sys.path.insert(0, directory.name)
        self.addCleanup(sys.path.remove, directory.name)
        self.write("__init__", "")
        self.package = importlib.import_module(self.name)
        self.addCleanup(self._forget)

    def _forget(self):
        for name in [name for name in sys.modules if name.split(".")[0] == self.name]:
            del sys.modules[name]

    def write(self, module, text):
        """
        Put a module into the package.
        """
        path = self.root / self.name / f"{module}.py"
        path.write_text(text, "utf-8")
        return str(path)

    def find(self):
        """
        Return what is found now.
        """
        importlib.invalidate_caches()
        return find_dropins(self.package)


class FindTests(DropinCase):
    """
    Modules are found and imported, whatever is wrong with their neighbours.
    """

    def test_found(self):
        """Each object that provides the interface is found once, by module, with the module and the file it came from."""
        paths = [self.write(name, GOOD.format(name="Test", type=name)) for name in ("b", "a")]
        self.write("c", f"from {self.name}.a import factory as other\nother = again = other\nunrelated = 1\n")
        found, faults = self.find().providing(IMiddlewareFactory)
        self.assertEqual([plugin.provider.type_name for plugin in found], ["a", "b"])
        self.assertEqual([(plugin.module, plugin.path) for plugin in found], [(f"{self.name}.a", paths[1]), (f"{self.name}.b", paths[0])])
        self.assertEqual(faults, [])

    def test_as_twisted_finds(self):
        """Twisted's own `getPlugins` finds the same."""
        for name in "ab":
            self.write(name, GOOD.format(name="Test", type=name))
        found, _ = self.find().providing(IMiddlewareFactory)
        self.assertEqual([plugin.provider for plugin in found], list(getPlugins(IMiddlewareFactory, self.package)))

    def test_faults(self):
        """A module that cannot be imported, for whatever reason, is told with its file, the reason and the line; the others are found."""
        self.write("good", GOOD.format(name="Test", type="good"))
        cases = {
            "absent": ("import a3sgw_is_not_there\n", "ModuleNotFoundError: No module named 'a3sgw_is_not_there'"),
            "gone": ("from a3sgw.errors import Nothing\n", "ImportError: cannot import name 'Nothing'"),
            "leaves": ("raise SystemExit('no licence')\n", "SystemExit: no licence"),
            "slip": ("def f(:\n", "SyntaxError: invalid syntax"),
            "within": ("def f():\n    return {}['x']\n\n\nf()\n", "KeyError: 'x' (line 2 of "),
        }
        paths = {name: self.write(name, text) for name, (text, _) in cases.items()}
        dropins = self.find()
        self.assertEqual([fault.module for fault in dropins.faults], [f"{self.name}.{name}" for name in cases])
        for fault, (name, (_, reason)) in zip(dropins.faults, cases.items(), strict=True):
            self.assertTrue(str(fault).startswith(f"the plugin module {self.name}.{name} ({paths[name]}) cannot be imported: "), fault)
            self.assertIn(reason, str(fault))
            self.assertNotIn("\n", str(fault))
        self.assertEqual([plugin.provider.type_name for plugin in dropins.providing(IMiddlewareFactory)[0]], ["good"])

    def test_no_plugin(self):
        """A factory that forgot to be an `IPlugin` is told of, because `twisted.plugin` would pass over it."""
        text = (
            "from zope.interface import implementer\nfrom a3sgw.interfaces import IMiddlewareFactory\n"
            "@implementer(IMiddlewareFactory)\nclass Factory:\n    type_name = 'x'\nfactory = Factory()\n"
        )
        path = self.write("half", text)
        found, [fault] = self.find().providing(IMiddlewareFactory)
        self.assertEqual(found, [])
        self.assertEqual(list(getPlugins(IMiddlewareFactory, self.package)), [])
        self.assertIn(f"{self.name}.half ({path}) has factory, which provides IMiddlewareFactory but not ", str(fault))

    def test_nothing_is_written(self):
        """Looking for plugins leaves nothing beside them."""
        self.write("a", GOOD.format(name="Test", type="a"))
        self.find()
        self.assertEqual({path.name for path in (self.root / self.name).iterdir()} - {"__pycache__"}, {"__init__.py", "a.py"})


class PackageTests(SynchronousTestCase):
    """
    `a3sgw.plugins` is a package of plugins as Twisted has them.
    """

    def test_paths(self):
        """It extends to every folder on the path, there or not yet, so that plugins are found beside an editable install too."""
        self.assertTrue(set(pluginPackagePaths("a3sgw.plugins")) <= {*plugins.__path__})
        self.assertEqual(next(iter(plugins.__path__)), str(Path(a3sgw.__file__).parent / "plugins"))


class DistributionTests(SynchronousTestCase):
    """
    Where a file comes from.
    """

    def test_of(self):
        """The distribution that installed a file is named with its version; for a file of nobody's there is none."""
        path = sys.modules[IPlugin.__module__].__file__
        self.assertEqual(distribution_of(path).lower(), f"twisted {version('twisted')}")
        with tempfile.NamedTemporaryFile() as other:
            self.assertEqual(distribution_of(other.name), "")
