"""
Tests of keeping what providers offer.
"""

from twisted.internet.task import Clock
from twisted.plugin import IPlugin
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from a3sgw.config.model import GatewayConfig, RouterConfig
from a3sgw.interfaces import IConfigSink, IProvider, IProviderFactory
from a3sgw.provider.aggregate import Aggregator, Wanted, _Slot
from a3sgw.provider.catalog import ProviderFactory
from a3sgw.testing import RecordingSink


def offer(*names):
    """
    Return an offer of some routers.
    """
    return GatewayConfig(routers={name: RouterConfig(name=name, rule="Path(`/`)", service="s") for name in names})


@implementer(IProvider)
class FakeProvider:
    """
    A provider that says what the test says.
    """

    def __init__(self):
        self.sink = None
        self.stops = 0

    def start(self, sink):
        self.sink = sink

    def stop(self):
        self.stops += 1


class AggregatorTests(SynchronousTestCase):
    """
    Who is wanted runs, and the last word of each counts.
    """

    def setUp(self):
        self.clock = Clock()
        self.changes = []
        self.made = []
        self.aggregator = Aggregator(self.clock, lambda: self.changes.append(self.clock.seconds()))

    def tearDown(self):
        self.aggregator.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def wanted(self, rank=1, config="c"):
        def build(reactor):
            self.made.append(FakeProvider())
            return self.made[-1]

        return Wanted(rank, config, build)

    def follow(self, **wanted):
        self.aggregator.follow(wanted)

    def offers(self):
        return [(each.source, list(each.config.routers)) for each in self.aggregator.offers]

    def test_interfaces(self):
        """What plugins meet provides its interfaces."""
        self.follow(a=self.wanted())
        slot = self.made[0].sink
        self.assertIsInstance(slot, _Slot)
        verifyObject(IConfigSink, slot)
        verifyObject(IConfigSink, RecordingSink())
        verifyObject(IProvider, self.made[0])

        class Config:
            type = "x"

        factory = ProviderFactory(Config, lambda config, reactor: None)
        verifyObject(IProviderFactory, factory)
        verifyObject(IPlugin, factory)

    def test_order(self):
        """Offers stand in the order of their ranks, those of one rank by name."""
        self.follow(b=self.wanted(2), a=self.wanted(2), z=self.wanted(1))
        for provider, name in zip(self.made, "baz", strict=True):
            provider.sink.offer(offer(name))
        self.assertEqual(self.offers(), [("z", ["z"]), ("a", ["a"]), ("b", ["b"])])

    def test_quiet(self):
        """Many offers are told once, a second after the last, and after five seconds at the latest; an equal one is none."""
        self.follow(a=self.wanted())
        sink = self.made[0].sink
        for number in range(20):
            sink.offer(offer(str(number)))
            self.clock.advance(0.5)
        self.assertEqual(len(self.changes), 2)
        self.clock.advance(10)
        told = len(self.changes)
        sink.offer(offer("19"))
        self.clock.advance(10)
        self.assertEqual(len(self.changes), told)

    def test_failure_keeps_the_last_offer(self):
        """Who fails keeps what was offered last, and the row says why and until when."""
        self.follow(a=self.wanted())
        sink = self.made[0].sink
        [row] = self.aggregator.rows()
        self.assertEqual((row["name"], row["objects"], row["error"]), ("a", None, None))
        sink.offer(offer("x", "y"))
        sink.failed("no answer")
        [row] = self.aggregator.rows()
        self.assertEqual((row["objects"], row["error"]), (2, "no answer"))
        self.assertEqual(self.offers(), [("a", ["x", "y"])])
        sink.offer(offer("x", "y"))
        self.assertIsNone(self.aggregator.rows()[0]["error"])

    def test_follow(self):
        """An unchanged provider goes on; one with another configuration is replaced; one that is gone takes its offer along."""
        self.follow(a=self.wanted(), b=self.wanted())
        first, second = self.made
        first.sink.offer(offer("x"))
        second.sink.offer(offer("y"))
        self.follow(a=self.wanted(), b=self.wanted(config="other"))
        self.assertEqual((first.stops, second.stops, len(self.made)), (0, 1, 3))
        self.assertEqual(self.offers(), [("a", ["x"])])
        second.sink.offer(offer("late"))
        second.sink.failed("late")
        self.assertEqual(self.offers(), [("a", ["x"])])
        self.follow()
        self.assertEqual((first.stops, self.made[2].stops, self.offers()), (1, 1, []))

    def test_bugs(self):
        """A provider that cannot be made, started or stopped costs only itself."""

        def fail(reactor):
            raise ZeroDivisionError

        class Stubborn(FakeProvider):
            def stop(self):
                raise ZeroDivisionError

        self.follow(a=Wanted(1, 1, fail), b=Wanted(1, 1, lambda reactor: Stubborn()), c=self.wanted())
        self.assertEqual(self.aggregator.rows()[0]["error"], "ZeroDivisionError: ")
        self.follow(c=self.wanted())
        self.assertEqual([row["name"] for row in self.aggregator.rows()], ["c"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
