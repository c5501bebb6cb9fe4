"""
Tests of the plain factory, of what middlewares are built with, and of the catalog.
"""

import attrs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

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


class FactoryTests(SynchronousTestCase):
    """
    `MiddlewareFactory` is what most types need.
    """

    def test_interface(self):
        """A factory provides its interface, and so does every built-in one."""
        for factory in (MiddlewareFactory(PlainConfig, lambda config, surroundings: None), *BUILT_IN):
            verifyObject(IMiddlewareFactory, factory)
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
        """A configuration class that cannot be decoded is refused."""

        class Odd:
            type = "odd"

        error = self.assertRaises(CatalogError, Catalog.of, [MiddlewareFactory(Odd, lambda config, surroundings: None)])
        self.assertIn("attrs", str(error))
