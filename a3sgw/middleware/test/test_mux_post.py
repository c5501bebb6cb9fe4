"""
Tests of the bus among the workers of one gateway.
"""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IMuxBus
from a3sgw.middleware.mux_hub import Hub
from a3sgw.middleware.mux_post import PostBus
from a3sgw.middleware.post import Post
from a3sgw.middleware.test.test_mux_redis import Ears


class PostBusTests(SynchronousTestCase):
    """
    Two workers with a hub of the same name each, and a third without.
    """

    def setUp(self):
        self.is_stuck = False
        self.posts = [Post(lambda topic, letter, number=number: self.carry(number, topic, letter)) for number in range(3)]
        self.hubs = [Hub("news", PostBus("news", post)) for post in self.posts[:2]]

    def carry(self, sender, topic, letter):
        if self.is_stuck:
            return False
        for number, post in enumerate(self.posts):
            if number != sender:
                post.arrived(topic, letter)
        return True

    def test_across(self):
        """What is published in one worker is heard in the others by those who are subscribed, once."""
        verifyObject(IMuxBus, self.hubs[0].bus)
        one, two, other = Ears(self.hubs[0], "a"), Ears(self.hubs[1], "a"), Ears(self.hubs[1], "b")
        self.hubs[0].publish("a", "ü:1", None)
        self.hubs[1].publish("a", "2", None)
        self.assertEqual((one.heard, two.heard, other.heard), (["a:ü:1", "a:2"], ["a:ü:1", "a:2"], []))
        self.hubs[1].leave(two, ["a"])
        self.hubs[0].publish("a", "3", None)
        self.assertEqual(two.heard, ["a:ü:1", "a:2"])

    def test_lost(self):
        """What the others could not be told is counted, and heard here all the same."""
        one = Ears(self.hubs[0], "a")
        self.is_stuck = True
        self.hubs[0].publish("a", "1", None)
        self.assertEqual(one.heard, ["a:1"])
        self.assertEqual(self.hubs[0].bus.describe(), {"messages_unshared": 1})

    def test_given_up(self):
        """A hub that was given up hears nothing more, and is not used again."""
        ears = Ears(self.hubs[0], "a")
        self.assertEqual(repr(self.posts[0]), "<Post about ['ws-mux news']>")
        self.hubs[0].give_up(self)
        self.hubs[1].publish("a", "1", None)
        self.assertEqual(ears.heard, ["dismissed"])
        self.assertTrue(self.hubs[0].is_closed)
        self.assertEqual(repr(self.posts[0]), "<Post about []>")
