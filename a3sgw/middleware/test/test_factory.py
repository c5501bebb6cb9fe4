"""
Tests of the plain factory, of what middlewares are built with, and of the catalog.
"""

import types

import attrs
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.config.kinds import NAME
from a3sgw.config.setting import label, setting
from a3sgw.dropins import Dropins, Fault
from a3sgw.errors import AssemblyError
from a3sgw.interfaces import IDestination, IMiddlewareFactory, IOutbound
from a3sgw.middleware.catalog import BUILT_IN, Catalog, CatalogError, find_catalog
from a3sgw.middleware.factory import MiddlewareFactory
from a3sgw.middleware.surroundings import Nowhere, still_surroundings


@attrs.frozen
class PlainConfig:
    """
    A configuration without attributes.
    """

    type = "plain"
    name: str = "x"


def factory_of(cls):
    """
    Return a factory that builds nothing.
    """
    return MiddlewareFactory(cls, lambda config, surroundings: None)


class FactoryTests(SynchronousTestCase):
    """
    `MiddlewareFactory` is what most types need.
    """

    def test_interface(self):
        """A factory provides its interface, and so does every built-in one."""
        for factory in (MiddlewareFactory(PlainConfig, lambda config, surroundings: None), *BUILT_IN):
            verifyObject(IMiddlewareFactory, factory)
            verifyObject(IPlugin, factory)
            self.assertEqual(factory.type_name, factory.config_class.type)

    def test_build(self):
        """The middleware gets its configuration and its surroundings."""
        surroundings = still_surroundings('router "x"')
        config = PlainConfig()
        self.assertEqual(MiddlewareFactory(PlainConfig, lambda *given: given).build(config, surroundings), (config, surroundings))

    def test_still_surroundings(self):
        """What is built only to be checked can reach nothing."""
        nowhere = still_surroundings("x").outbound
        verifyObject(IOutbound, nowhere)
        verifyObject(IDestination, nowhere)
        self.assertIsInstance(nowhere, Nowhere)
        self.assertRaises(AssertionError, nowhere.fetch, b"GET", b"/", (), body=b"", timeout=1.0, max_body_bytes=1)


class CatalogTests(SynchronousTestCase):
    """
    A catalog knows each type once.
    """

    def test_found(self):
        """Every built-in type is found by its name."""
        found = find_catalog()
        for factory in BUILT_IN:
            self.assertIs(found.factories[factory.type_name], factory)
        self.assertEqual(list(found.config_classes)[: len(BUILT_IN)], [factory.type_name for factory in BUILT_IN])

    def test_twice(self):
        """Two factories for one type are refused by name."""
        plain = [MiddlewareFactory(PlainConfig, lambda config, surroundings: None) for _ in range(2)]
        error = self.assertRaises(CatalogError, Catalog.of, plain)
        self.assertIn('"plain"', str(error))
        self.assertEqual(list(Catalog.of([plain[0], plain[0]]).factories), ["plain"])

    def test_odd_class(self):
        """A configuration class that cannot be decoded is refused, with the reason."""

        class Odd:
            type = "odd"

        @attrs.frozen
        class Renamed:
            type = "renamed"
            name: str = label()

        @attrs.frozen
        class Nameless:
            type = "nameless"

        @attrs.frozen
        class Labelled:
            type = "labelled"
            name: str = setting(NAME, "A name of its own.")

        @attrs.frozen
        class Undeclared:
            type = "undeclared"
            name: str = label()
            size: int
            colour: str = "red"

        renamed = MiddlewareFactory(Renamed, lambda config, surroundings: None)
        renamed.type_name = "other"
        for factory, reason in (
            (factory_of(Odd), "is no attrs class"),
            (renamed, "has the type 'renamed'; both must say the same"),
            (factory_of(Nameless), "has no `name: str = label()`"),
            (factory_of(Labelled), "has no `name: str = label()`"),
            (factory_of(Undeclared), "has attributes that are not declared with `setting`: size:"),
        ):
            error = self.assertRaises(CatalogError, Catalog.of, [factory])
            self.assertIn(f'the config_class of the middleware type "{factory.type_name}" {reason}', str(error))

    def test_start_error(self):
        """Whoever starts a gateway takes a faulty catalog as any other reason not to start."""
        self.assertTrue(issubclass(CatalogError, AssemblyError))


class PluginTests(SynchronousTestCase):
    """
    Plugins bring further types.
    """

    def dropins(self, *factories, faults=()):
        """
        Return the plugin module `a3sgw.plugins.shop` with these factories.
        """
        module = types.ModuleType("a3sgw.plugins.shop")
        module.__dict__.update({f"factory{number}": factory for number, factory in enumerate(factories)})
        return Dropins(((module, "/site/a3sgw/plugins/shop.py"),), faults)

    def test_added(self):
        """A plugin's type stands behind those that are built in, and it is known where each comes from."""
        catalog = Catalog.of(BUILT_IN, self.dropins(factory_of(PlainConfig)))
        self.assertEqual(list(catalog.factories), [*(factory.type_name for factory in BUILT_IN), "plain"])
        self.assertIs(catalog.config_classes["plain"], PlainConfig)
        self.assertEqual((catalog.origin("cors"), catalog.origin("plain")), ("built in", "/site/a3sgw/plugins/shop.py"))

    def test_taken_name(self):
        """A plugin whose type is built in is refused with its module and its file; one that shows a built-in factory again is not."""
        again = factory_of(attrs.make_class("Again", {"name": label()}, class_body={"type": "cors"}))
        error = self.assertRaises(CatalogError, Catalog.of, BUILT_IN, self.dropins(again))
        for word in ('the middleware type "cors"', "of the gateway itself", "a3sgw.plugins.shop", "/site/a3sgw/plugins/shop.py"):
            self.assertIn(word, str(error))
        catalog = Catalog.of(BUILT_IN, self.dropins(*BUILT_IN[:2]))
        self.assertEqual((len(catalog.factories), catalog.origin(BUILT_IN[0].type_name)), (len(BUILT_IN), "built in"))

    def test_faults(self):
        """What could not be imported is kept, to be said whenever a type is missed."""
        fault = Fault("a3sgw.plugins.lost", "/site/a3sgw/plugins/lost.py", "cannot be imported: ImportError: no")
        catalog = Catalog.of(BUILT_IN, self.dropins(faults=(fault,)))
        self.assertEqual(catalog.faults, (fault,))
        self.assertIn("the plugin module a3sgw.plugins.lost (/site/a3sgw/plugins/lost.py) cannot be imported", catalog.explain_missing())
        self.assertEqual(Catalog.of(BUILT_IN).explain_missing(), "")
