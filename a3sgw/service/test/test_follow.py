"""
Tests of following backends.
"""

import gc

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.service.follow import follow
from a3sgw.service.test.servers import servers


class Note:
    """
    Keeps what it is told.
    """

    def __init__(self):
        self.told = []

    def load_changed(self, backend):
        self.told.append((backend, backend.in_flight))


class FollowTests(SynchronousTestCase):
    """
    `follow` lets somebody know how busy backends are.
    """

    def test_told(self):
        """All followers of a backend are told of each change, when it has happened."""
        one, two = servers(1, 1)
        first, second = Note(), Note()
        follow([one, two], first)
        follow([two], second)
        one.acquire()
        two.acquire()
        two.release()
        self.assertEqual(first.told, [(one, 1), (two, 1), (two, 0)])
        self.assertEqual(second.told, [(two, 1), (two, 0)])

    def test_forgotten(self):
        """A follower that nobody else holds is forgotten by its backends, and others are not."""
        everybody = servers(1, 1)
        first, second = Note(), Note()
        follow(everybody, first)
        follow(everybody, second)
        del first
        gc.collect()
        self.assertEqual([len(server.followers) for server in everybody], [1, 1])
        everybody[0].acquire()
        self.assertEqual(second.told, [(everybody[0], 1)])
