"""
Tests of the bus over Redis: messages cross between hubs, and an outage costs only those of its time.
"""

from random import Random

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.config.redis_url import parse_redis_url
from a3sgw.interfaces import IMuxBus
from a3sgw.middleware.mux_hub import Hub
from a3sgw.middleware.mux_redis import RedisBus
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.fake_redis import FakeRedis, encode_reply


class PubSubRedis(FakeRedis):
    """
    A Redis that also publishes.
    """

    def __init__(self, reactor):
        super().__init__(reactor)
        self.subscribers = {}

    def reply_to(self, words, connection):
        name = words[0]
        if name == b"SUBSCRIBE":
            for channel in words[1:]:
                self.subscribers.setdefault(channel, []).append(connection)
            return [b"subscribe", words[-1], len(words) - 1]
        if name == b"UNSUBSCRIBE":
            for channel in words[1:]:
                self.subscribers[channel].remove(connection)
            return [b"unsubscribe", words[-1], 0]
        if name == b"PUBLISH":
            listening = [each for each in self.subscribers.get(words[1], []) if each.is_open]
            for each in listening:
                each.say(encode_reply([b"message", words[1], words[2]]))
            return len(listening)
        return super().reply_to(words, connection)


class Ears:
    """
    A member of a hub that writes down what it hears.
    """

    def __init__(self, hub, *channels):
        self.heard = []
        hub.enter(self)
        for channel in channels:
            hub.subscribe(self, channel)

    def deliver(self, channel, frame):
        self.heard.append(frame[2:].decode())

    def dismiss(self):
        self.heard.append("dismissed")


class BusTests(SynchronousTestCase):
    """
    Hubs of one name, each in a process of its own.
    """

    def setUp(self):
        self.clock = Clock()
        self.redis = PubSubRedis(self.clock)
        self.redis.password = b"secret"
        self.hubs = [self.make_hub(), self.make_hub()]

    def tearDown(self):
        for hub in self.hubs:
            hub.give_up(self)
        self.redis.thaw()
        self.settle()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.redis.open_connections, [])

    def make_hub(self, name="news", url="redis://me:secret@r.test/2"):
        surroundings = attrs.evolve(still_surroundings("x"), reactor=self.clock, seconds=self.clock.seconds, chance=Random(1))
        return Hub(name, RedisBus(name, parse_redis_url(url), (None, None, None), surroundings, self.redis.open))

    def settle(self):
        self.clock.pump([0] * 8)

    def subscribed(self):
        """
        Return the channels that Redis knows somebody to listen to.
        """
        self.settle()
        names = [name for name, ears in self.redis.subscribers.items() if ears]
        return sorted(name.removeprefix(b"a3s-gateway:ws-mux:news:").decode() for name in names)

    def test_interface(self):
        """It is a bus, and connects to nobody before somebody subscribes."""
        verifyObject(IMuxBus, self.hubs[0].bus)
        self.assertEqual((self.redis.attempts, self.hubs[0].bus.state), (0, "idle"))
        self.assertIn("<RedisBus hub news: Redis at redis://", repr(self.hubs[0].bus))
        self.assertNotIn("secret", repr(self.hubs[0].bus))

    def test_across(self):
        """What is published in one process is heard in all, once, also by the publisher's own neighbours."""
        here, there = self.hubs
        one, two, other = Ears(here, "a", "b"), Ears(there, "a"), Ears(there, "c")
        self.settle()
        self.assertEqual((here.bus.state, there.bus.state), ("ready", "ready"))
        here.publish("a", "1", None)
        there.publish("a", "ü:2", None)
        here.publish("b", "3", None)
        self.settle()
        self.assertEqual((one.heard, two.heard, other.heard), (["a:1", "b:3", "a:ü:2"], ["a:ü:2", "a:1"], []))
        self.assertEqual(here.bus.describe(), {"redis": "ready", "messages_unshared": 0})

    def test_another_name(self):
        """Hubs of other names do not hear it."""
        self.hubs.append(self.make_hub("other"))
        ears = Ears(self.hubs[2], "a")
        self.settle()
        self.hubs[0].publish("a", "1", None)
        self.settle()
        self.assertEqual(ears.heard, [])

    def test_only_what_is_wanted(self):
        """Channels are subscribed to when the first comes and given up when the last goes."""
        hub = self.hubs[0]
        one, two = Ears(hub, "a"), Ears(hub, "a")
        self.settle()
        Ears(hub, "b")
        hub.unsubscribe(one, "a")
        self.assertEqual(self.subscribed(), ["a", "b"])
        hub.leave(two, ["a"])
        self.assertEqual(self.subscribed(), ["b"])
        self.assertEqual(hub.channel_names, ["b"])

    def test_outage(self):
        """While Redis is gone those in one process hear each other; when it is back, everybody hears everybody again."""
        here, there = self.hubs
        one, two = Ears(here, "a"), Ears(there, "a")
        self.settle()
        here.publish("a", "0", None)
        self.settle()
        self.redis.stop()
        self.settle()
        self.redis.subscribers.clear()
        here.publish("a", "1", None)
        self.settle()
        self.assertEqual(here.bus.state, "down")
        self.assertEqual((one.heard, two.heard), (["a:0", "a:1"], ["a:0"]))
        self.assertEqual(here.bus.describe()["messages_unshared"], 1)
        self.redis.is_up = True
        self.clock.pump([0.5] * 20)
        self.assertEqual((here.bus.state, there.bus.state), ("ready", "ready"))
        here.publish("a", "2", None)
        self.clock.pump([0.5] * 20)
        self.assertEqual(two.heard, ["a:0", "a:2"])

    def test_silence(self):
        """A Redis that gives no sign of life is given up, and asked again."""
        Ears(self.hubs[0], "a")
        self.settle()
        for _ in range(5):
            self.clock.advance(10)
            self.settle()
        self.assertEqual(self.hubs[0].bus.state, "ready")
        self.redis.is_frozen = True
        self.clock.advance(10)
        self.settle()
        self.clock.advance(10)
        self.assertEqual(self.hubs[0].bus.state, "down")
        self.redis.thaw()
        self.clock.pump([0.5] * 20)
        self.assertEqual(self.hubs[0].bus.state, "ready")

    def test_refused(self):
        """A wrong password is refused, and never logged; what does not speak as Redis does is given up."""
        self.redis.password = b"another"
        Ears(self.hubs[0], "a")
        self.settle()
        self.assertEqual(self.hubs[0].bus.state, "down")
        self.redis.password = b"secret"
        self.clock.pump([0.5] * 10)
        self.assertEqual(self.hubs[0].bus.state, "ready")
        self.redis.open_connections[-1].say(b"HTTP/1.1 400 no\r\n\r\n")
        self.assertEqual(self.hubs[0].bus.state, "down")

    def test_given_up(self):
        """When no middleware leads to a hub any more, its members are dismissed and both connections closed."""
        ears = Ears(self.hubs[0], "a")
        self.settle()
        self.hubs[0].publish("a", "1", None)
        self.settle()
        self.hubs[0].give_up(self)
        self.settle()
        self.assertEqual(ears.heard, ["a:1", "dismissed"])
        self.assertEqual(self.redis.open_connections, [])

    def test_nobody_there(self):
        """A Redis that refuses connections is tried again until it is there."""
        self.redis.is_up = False
        ears = Ears(self.hubs[0], "a")
        self.settle()
        self.assertEqual(self.hubs[0].bus.state, "down")
        self.clock.pump([0.5] * 4)
        self.redis.is_up = True
        self.clock.pump([0.5] * 20)
        self.assertEqual(self.hubs[0].bus.state, "ready")
        Ears(self.hubs[1], "a")
        self.settle()
        self.hubs[1].publish("a", "1", None)
        self.settle()
        self.assertEqual(ears.heard, ["a:1"])

    def test_never_reached(self):
        """A Redis that cannot be reached in time is tried again, and closing ends that."""
        self.redis.is_reachable = False
        Ears(self.hubs[0], "a")
        self.clock.advance(5)
        self.assertEqual(self.hubs[0].bus.state, "down")
        self.clock.pump([0.5] * 4)
        self.assertGreater(self.redis.attempts, 1)
