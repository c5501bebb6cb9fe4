"""
Tests of rosters and of what is built for them.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.service.roster import Standing, Turn, make_roster
from a3sgw.service.test.servers import Clock, servers


class RosterTests(SynchronousTestCase):
    """
    `make_roster` says who may be chosen, and with which weights.
    """

    def test_weights(self):
        """A server of weight 0 is left out, unless all are; then all have the same weight."""
        for weights, places, found in (
            ((1, 2, 3), (0, 1, 2), (1, 2, 3)),
            ((0, 2, 0), (1,), (2,)),
            ((0, 0), (0, 1), (1, 1)),
        ):
            everybody = servers(*weights)
            roster = make_roster(everybody, 0.0, 0.0)
            self.assertEqual(list(roster.members), [everybody[place] for place in places])
            self.assertEqual(tuple(roster.weights), found)
            self.assertEqual(list(roster.factors), [])

    def test_no_weights(self):
        """A strategy that does not know weights sees all servers alike, but slow start."""
        everybody = servers(5, 0, 1)
        everybody[2].usable_since = 95.0
        roster = make_roster(everybody, 10.0, 100.0, heeds_weights=False)
        self.assertEqual(list(roster.members), everybody)
        self.assertEqual(list(roster.weights), [1.0, 1.0, 0.5])

    def test_slow_start(self):
        """A server that became usable a short time ago has a part of its weight."""
        everybody = servers(4, 4, 4)
        everybody[1].usable_since = 95.0
        everybody[2].usable_since = 99.9
        roster = make_roster(everybody, 10.0, 100.0)
        self.assertEqual([round(weight, 6) for weight in roster.weights], [4.0, 2.0, 0.4])
        self.assertEqual([round(factor, 6) for factor in roster.factors], [1.0, 0.5, 0.1])
        self.assertEqual(make_roster(everybody, 10.0, 110.0).factors, [])
        self.assertEqual(make_roster(everybody, 0.0, 100.0).weights, [4, 4, 4])


class StandingTests(SynchronousTestCase):
    """
    `Standing` keeps what was built for the candidates in force.
    """

    def make(self, slow_start=0.0):
        self.clock = Clock()
        self.rosters = []

        def build(roster):
            self.rosters.append(roster)
            return len(self.rosters)

        return Standing(build, slow_start, self.clock, lambda roster: list(roster.members))

    def test_kept(self):
        """Nothing is built again as long as the candidates are the same."""
        standing = self.make()
        candidates = tuple(servers(1, 1))
        self.assertEqual([standing.get(candidates) for _ in range(3)], [1, 1, 1])
        self.clock.now += 1e6
        self.assertEqual(standing.get(candidates), 1)
        self.assertEqual(standing.get(candidates[:1]), 2)
        self.assertEqual(standing.get(candidates), 3)

    def test_once(self):
        """A list is for one choice, and does not disturb what is in force."""
        standing = self.make()
        candidates = tuple(servers(1, 1))
        standing.get(candidates)
        self.assertEqual(standing.get(list(candidates[1:])), [candidates[1]])
        self.assertEqual(standing.get(candidates), 1)

    def test_built_the_same_way(self):
        """A strategy that builds the same for one choice need not say so."""
        standing = Standing(lambda roster: list(roster.weights), 0.0, Clock())
        self.assertEqual(standing.get(servers(3)), [3])

    def test_warming_up(self):
        """While a server warms up, weights are looked at again from time to time, and not any more when it is warm."""
        standing = self.make(slow_start=32.0)
        candidates = tuple(servers(1, 1))
        candidates[0].usable_since = self.clock.now
        for passed, built in ((0.0, 1), (0.9, 1), (0.2, 2), (0.5, 2), (0.6, 3), (40.0, 4), (1.0, 4), (1e6, 4)):
            self.clock.now += passed
            self.assertEqual(standing.get(candidates), built)
        self.assertEqual(self.rosters[-1].factors, [])


class TurnTests(SynchronousTestCase):
    """
    `Turn` says whose turn it is.
    """

    def test_turn(self):
        """The turn goes to the next behind the last one, also if that one is gone, and from the end to the beginning."""
        one, two, three, four = everybody = servers(1, 1, 1, 1)
        turn = Turn(everybody)
        self.assertEqual(turn.begin(everybody), 0)
        turn.took(two)
        self.assertEqual(turn.begin(everybody), 2)
        self.assertEqual(turn.begin([one, two, four]), 2)
        self.assertEqual(turn.begin([one, four]), 1)
        self.assertEqual(turn.begin([one, two]), 0)
        turn.took(four)
        self.assertEqual(turn.begin([two, three]), 0)
