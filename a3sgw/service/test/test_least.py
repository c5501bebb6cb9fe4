"""
Tests of finding the least of changing loads.
"""

import gc
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.service.least import FEW, LoadIndex, Scan, make_field
from a3sgw.service.roster import Turn
from a3sgw.service.test.servers import servers


class Counted:
    """
    A contender that is loaded by what it has in flight.
    """

    def __init__(self, backend):
        self.backend = backend

    def load(self, more):
        return (self.backend.in_flight + more) / self.backend.weight


def field_of(kind, everybody):
    """
    Return a field of that class.
    """
    return kind([Counted(server) for server in everybody], Turn(everybody))


class FieldTests(SynchronousTestCase):
    """
    `Scan` and `LoadIndex` find the least loaded.
    """

    def load(self, server):
        return (server.in_flight + 1) / server.weight

    @settings(deadline=None, max_examples=60, derandomize=True)
    @given(st.sampled_from((Scan, LoadIndex)), st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(0, 2**32))
    def test_least(self, kind, weights, seed):
        """Whoever is chosen has the least load of all, however exchanges begin and end."""
        everybody = servers(*weights)
        chance = Random(seed)
        busy = []
        for server in everybody:
            server.in_flight = chance.randrange(4)
            busy += [server] * server.in_flight
        field = field_of(kind, everybody)
        for _ in range(150):
            if chance.random() < 0.5:
                chosen = field.choose()
                self.assertEqual(self.load(chosen), min(map(self.load, everybody)))
                chosen.acquire()
                busy.append(chosen)
            elif busy and chance.random() < 0.9:
                busy.pop(chance.randrange(len(busy))).release()
            else:
                # Bound by a cookie, say.
                server = chance.choice(everybody)
                server.acquire()
                busy.append(server)

    def test_equals_take_turns(self):
        """Equals take turns in configured order, whether exchanges last or not, and go on behind the last one chosen."""
        for kind in (Scan, LoadIndex):
            for lasts in (False, True):
                everybody = servers(1, 1, 1, 1)
                turn = Turn(everybody)
                turn.took(everybody[1])
                field = kind([Counted(server) for server in everybody], turn)
                chosen = []
                for _ in range(8):
                    chosen.append(field.choose())
                    if lasts:
                        chosen[-1].acquire()
                self.assertEqual([everybody.index(server) for server in chosen], [2, 3, 0, 1, 2, 3, 0, 1], f"{kind} {lasts}")
                self.assertEqual(turn.begin(everybody), 2)

    def test_short_exchanges(self):
        """When each exchange ends before the next begins, all equals are chosen equally often."""
        for kind in (Scan, LoadIndex):
            everybody = servers(*[1] * 7)
            field = field_of(kind, everybody)
            chosen = []
            for _ in range(70):
                server = field.choose()
                server.acquire()
                server.release()
                chosen.append(server)
            self.assertEqual({chosen.count(server) for server in everybody}, {10})

    def test_size(self):
        """A few are looked at one by one, many are kept in an index."""
        few = servers(*[1] * FEW)
        self.assertIsInstance(make_field([Counted(server) for server in few], Turn(few)), Scan)
        many = servers(*[1] * (FEW + 1))
        self.assertIsInstance(make_field([Counted(server) for server in many], Turn(many)), LoadIndex)


class LoadIndexTests(SynchronousTestCase):
    """
    `LoadIndex` keeps many contenders.
    """

    def test_bounded(self):
        """The index does not grow with the number of exchanges."""
        everybody = servers(*[1] * 10)
        field = field_of(LoadIndex, everybody)
        for _ in range(30):
            field.choose().acquire()
        for turn in range(2000):
            everybody[turn % 10].release()
            everybody[turn % 10].acquire()
            everybody[turn % 10].release()
            field.choose().acquire()
        self.assertLessEqual(len(field._heap), 41)
        self.assertEqual({server.in_flight for server in everybody}, {3})

    def test_not_told(self):
        """If an exchange ends and nobody says so, its server is still chosen when its turn comes, and all is well from then on."""
        everybody = servers(1, 1, 1)
        field = field_of(LoadIndex, everybody)
        for _ in range(9):
            field.choose().acquire()
        everybody[0].in_flight = 0
        for _ in range(9):
            field.choose().acquire()
        self.assertEqual({server.in_flight for server in everybody}, {5})

    def test_not_begun(self):
        """If an exchange does not begin after all, its server is still chosen when its turn comes."""
        everybody = servers(1, 1, 1)
        field = field_of(LoadIndex, everybody)
        self.assertEqual([field.choose() for _ in range(7)], [*everybody, *everybody, everybody[0]])

    def test_two(self):
        """Two indexes of the same servers, of an old generation and a new one, do not disturb each other."""
        everybody = servers(1, 1, 1)
        old = field_of(LoadIndex, everybody)
        new = field_of(LoadIndex, everybody[1:])
        for _ in range(4):
            old.choose().acquire()
        self.assertEqual([server.in_flight for server in everybody], [2, 1, 1])
        self.assertIs(new.choose(), everybody[1])
        everybody[1].acquire()
        everybody[2].release()
        self.assertIs(old.choose(), everybody[2])
        self.assertIs(new.choose(), everybody[2])

    def test_dropped(self):
        """An index that is not used any more costs its servers nothing."""
        everybody = servers(1, 1, 1)
        field = field_of(LoadIndex, everybody)
        self.assertEqual([len(server.followers) for server in everybody], [1, 1, 1])
        del field
        gc.collect()
        self.assertEqual([server.followers for server in everybody], [(), (), ()])
