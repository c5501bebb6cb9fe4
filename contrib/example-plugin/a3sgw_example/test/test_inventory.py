"""
Tests of the provider.
"""

import tempfile
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.testing import RecordingSink, provider_contract
from a3sgw_example.inventory import InventoryConfig, factory


class InventoryContractTests(provider_contract(factory, lambda: InventoryConfig(name="shop", file="/nowhere/inventory.json"))):
    """
    It keeps what every provider promises.
    """


class InventoryTests(SynchronousTestCase):
    """
    What it offers.
    """

    def test_offers(self):
        """What the file says is offered, and again when it has changed; what is no inventory is a failure."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "inventory.json"
        clock, sink = Clock(), RecordingSink()
        provider = factory.build(InventoryConfig(name="shop", file=str(path)), clock)
        provider.start(sink)
        path.write_text('{"carts": ["http://192.0.2.1"]}')
        clock.advance(2)
        path.write_text("[")
        clock.advance(2)
        provider.stop()
        self.assertEqual(len(sink.failures), 2)
        [offer] = sink.offers
        self.assertEqual(offer.routers["carts"].service, "carts")
        self.assertEqual([server.url for server in offer.services["carts"].load_balancer.servers], ["http://192.0.2.1"])
