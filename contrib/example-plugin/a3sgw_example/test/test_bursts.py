"""
Tests of `example-bursts`.
"""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IBalancerFactory
from a3sgw.observe.record import Record
from a3sgw.testing import Dialogue, balancer_contract
from a3sgw_example.bursts import Bursts, factory

CONFIG = """
entrypoints "web" { address = "127.0.0.1:8080" }
routers "shop" {
  rule    = "PathPrefix(`/`)"
  service = "shop"
}
services "shop" {
  load_balancer {
    strategy = "example-bursts"
    servers  = [{ url = "http://192.0.2.10" }, { url = "http://192.0.2.11" }]
  }
}
"""


class BurstsContract(balancer_contract(lambda backends: Bursts())):
    """
    What every balancer promises.
    """


class BurstsTests(SynchronousTestCase):
    """
    Servers take turns of sixteen requests.
    """

    def test_factory(self):
        """The factory is one."""
        verifyObject(IBalancerFactory, factory)

    def test_turns(self):
        """A server keeps its turn while it is there, and the next one follows it."""
        balancer = Bursts()
        chosen = "".join(balancer.choose(["a", "b", "c"], Record()) for _ in range(64))
        self.assertEqual(chosen, "a" * 16 + "b" * 16 + "c" * 16 + "a" * 16)
        self.assertEqual([balancer.choose(list(candidates), Record()) for candidates in ("abc", "ac", "c", "abc")], ["b", "a", "c", "c"])

    def test_configured(self):
        """A gateway knows the strategy by its name."""
        dialogue = Dialogue(CONFIG)
        client = dialogue.connect()
        for _ in range(17):
            dialogue.say(client, b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            [asked] = [backend for backend in dialogue.backends if dialogue.hear(backend)]
            dialogue.say(asked, b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertEqual(len(dialogue.backends), 2)
        self.assertIs(asked, dialogue.backends[1])
        client.close()
        dialogue.reactor.settle()
        dialogue.assert_clean(self)
