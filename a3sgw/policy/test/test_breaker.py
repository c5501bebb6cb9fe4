"""
Tests of `a3sgw.policy.breaker`.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.breaker import Breaker, BreakerState

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


class BreakerTestCase(SynchronousTestCase):
    """
    Sends requests through `self.breaker` at `self.now`.
    """

    now = 1000.0

    def send(self, *outcomes):
        """
        Send one request after the other, which end well ("+") or badly ("-"); return whether each changed the state.
        """
        return [self.breaker.report(self.breaker.admit(self.now), outcome == "-", self.now) for outcome in outcomes]

    def assert_state(self, expected):
        """
        Fail unless the breaker is in that state.
        """
        self.assertIs(self.breaker.state(self.now), expected)


class ConsecutiveTests(BreakerTestCase):
    def setUp(self):
        self.breaker = Breaker(3, 30.0, 2)

    def test_opens(self):
        """
        Failures in a row open the circuit; a success between them begins the count anew.
        """
        self.assertEqual(self.send(*"--+--+--"), [False] * 8)
        self.assert_state(CLOSED)
        self.assertEqual(self.send("-"), [True])
        self.assert_state(OPEN)
        self.assertIs(self.breaker.admit(self.now), None)

    def test_cooldown(self):
        """
        An open circuit refuses for the whole cooldown, says how long that is, and then lets probes through.
        """
        self.send(*"---")
        for passed, wait in [(0.0, 30.0), (10.0, 20.0), (29.5, 0.5)]:
            self.assertIs(self.breaker.admit(self.now + passed), None)
            self.assertEqual(self.breaker.retry_after(self.now + passed), wait)
        self.now += 30.0
        self.assertEqual(self.breaker.retry_after(self.now), 0.0)
        self.assertIsNot(self.breaker.admit(self.now), None)
        self.assert_state(HALF_OPEN)

    def test_few_probes_at_a_time(self):
        """
        A half-open circuit has no more probes under way than it takes to close it; each that ends makes room for one.
        """
        self.send(*"---")
        self.now += 30.0
        tickets = [self.breaker.admit(self.now) for _ in range(4)]
        self.assertEqual([ticket is None for ticket in tickets], [False, False, True, True])
        self.assertEqual(self.breaker.retry_after(self.now), 1.0)
        self.assertEqual(self.breaker.report(tickets[0], False, self.now), False)
        self.assertEqual(self.breaker.retry_after(self.now), 0.0)
        self.assertEqual([self.breaker.admit(self.now) is None for _ in range(2)], [False, True])

    def test_withdrawn_probe_makes_room(self):
        """
        A probe whose client left counts for nothing and gives its place to the next, any number of times.
        """
        self.send(*"---")
        self.now += 30.0
        for _ in range(100):
            tickets = [self.breaker.admit(self.now) for _ in range(2)]
            self.assertNotIn(None, tickets)
            for ticket in tickets:
                self.breaker.withdraw(ticket)
        self.assert_state(HALF_OPEN)
        self.assertEqual(self.send(*"++"), [False, True])
        self.assert_state(CLOSED)

    def test_closes(self):
        """
        Enough successful probes close the circuit, which then counts failures from none.
        """
        self.send(*"---")
        self.now += 30.0
        self.assertEqual(self.send(*"++"), [False, True])
        self.assert_state(CLOSED)
        self.assertEqual(self.send(*"--"), [False, False])
        self.assert_state(CLOSED)
        self.assertEqual(self.breaker.retry_after(self.now), 0.0)

    def test_failed_probe(self):
        """
        One failed probe opens the circuit for a whole cooldown again, and earlier successes are forgotten.
        """
        self.send(*"---")
        self.now += 31.0
        self.assertEqual(self.send(*"+-"), [False, True])
        self.assertEqual(self.breaker.retry_after(self.now), 30.0)
        self.now += 30.0
        self.assertEqual(self.send(*"+"), [False])
        self.assert_state(HALF_OPEN)
        self.assertEqual(self.send(*"+"), [True])

    def test_late_answers(self):
        """
        Answers to requests from before a change count for nothing after it, good or bad, and free no probe's place.
        """
        late = [self.breaker.admit(self.now) for _ in range(8)]
        self.send(*"---")
        self.assertEqual([self.breaker.report(late.pop(), outcome, self.now + 5) for outcome in (True, False)], [False, False])
        self.assertEqual(self.breaker.retry_after(self.now), 30.0)
        self.now += 30.0
        probes = [self.breaker.admit(self.now) for _ in range(2)]
        self.assertEqual([self.breaker.report(late.pop(), outcome, self.now) for outcome in (True, False, False)], [False] * 3)
        self.breaker.withdraw(late.pop())
        self.assert_state(HALF_OPEN)
        self.assertIs(self.breaker.admit(self.now), None)
        self.assertEqual([self.breaker.report(probe, False, self.now) for probe in probes], [False, True])
        self.assertEqual([self.breaker.report(late.pop(), True, self.now) for _ in range(2)], [False, False])
        self.send(*"--")
        self.assert_state(CLOSED)

    def test_late_probe(self):
        """
        A probe that outlives its turn neither closes the circuit in the next one nor frees a place there.
        """
        self.send(*"---")
        self.now += 30.0
        slow, quick = self.breaker.admit(self.now), self.breaker.admit(self.now)
        self.breaker.report(quick, True, self.now)
        self.now += 30.0
        probes = [self.breaker.admit(self.now) for _ in range(2)]
        self.assertNotIn(None, probes)
        self.assertEqual(self.breaker.report(slow, False, self.now), False)
        self.assertIs(self.breaker.admit(self.now), None)
        self.assertEqual(self.breaker.report(probes[0], False, self.now), False)
        self.assertEqual(self.breaker.report(probes[1], False, self.now), True)

    def test_withdrawn_while_closed(self):
        """
        A request without a verdict neither counts as a failure nor interrupts a row of them.
        """
        self.send(*"--")
        self.breaker.withdraw(self.breaker.admit(self.now))
        self.assert_state(CLOSED)
        self.assertEqual(self.send("-"), [True])

    def test_epoch(self):
        """
        The epoch moves with every change of state and with nothing else.
        """
        epochs = [self.breaker.epoch]
        self.send(*"--+---")
        epochs.append(self.breaker.epoch)
        self.breaker.admit(self.now)
        self.assertEqual(self.breaker.epoch, epochs[-1])
        self.now += 30.0
        self.breaker.state(self.now)
        epochs.append(self.breaker.epoch)
        self.send(*"++")
        epochs.append(self.breaker.epoch)
        self.assertEqual(epochs, [0, 1, 2, 3])

    def test_refused_settings(self):
        """
        Settings with which it could never open, or never close, are refused.
        """
        for positional, named, part in [
            ((0, 30.0), {}, "thresholds of 0"),
            ((5, 30.0, 0), {}, "0 successes"),
            ((5, 0.0), {}, "cooldown of 0.0"),
            ((5, float("inf")), {}, "cooldown of inf"),
            ((5, 30.0), {"failure_ratio": 0.0}, "failure ratio of 0.0"),
            ((5, 30.0), {"failure_ratio": 50}, "1 at most"),
            ((5, 30.0), {"failure_ratio": 0.5, "min_requests": 0}, "at least 0 requests"),
            ((5, 30.0), {"failure_ratio": 0.5, "window": 0.0}, "window of 0.0"),
        ]:
            self.assertIn(part, str(self.assertRaises(ValueError, Breaker, *positional, **named)))

    def test_repr(self):
        """
        A breaker shows its state and how far it is from the next.
        """
        self.send(*"--")
        self.assertEqual(repr(self.breaker), "<Breaker closed, 2 of 3 failures>")
        self.send("-")
        self.assertEqual(repr(self.breaker), "<Breaker open>")
        self.now += 30.0
        self.send("+")
        self.breaker.admit(self.now)
        self.assertEqual(repr(self.breaker), "<Breaker half-open, 1 probing, 1 of 2 successes>")
        self.assertEqual(repr(Breaker(1, 1.0, failure_ratio=0.5)), "<Breaker closed>")


class RatioTests(BreakerTestCase):
    def make(self, ratio, min_requests):
        self.breaker = Breaker(1, 30.0, 1, failure_ratio=ratio, window=10.0, min_requests=min_requests)

    def test_opens(self):
        """
        The circuit opens once enough requests have ended and the given part of them failed, in whatever order.
        """
        for ratio, min_requests, outcomes in [
            (0.5, 4, "-+-+"),
            (0.5, 4, "++--"),
            (0.5, 4, "----"),
            (0.5, 1, "-"),
            (0.5, 2, "++++----"),
            (1.0, 3, "---"),
            (0.1, 30, "---" + 27 * "+"),
            (0.07, 100, 93 * "+" + 7 * "-"),
        ]:
            self.make(ratio, min_requests)
            changes = self.send(*outcomes)
            self.assertEqual(changes, [False] * (len(outcomes) - 1) + [True], (ratio, outcomes))
            self.assert_state(OPEN)

    def test_stays_closed(self):
        """
        Below the ratio, or with too few requests, it stays closed however many fail in a row.
        """
        for ratio, min_requests, outcomes in [(0.5, 4, "---"), (0.5, 4, "+++--"), (1.0, 2, "+-----"), (0.3, 10, 8 * "+" + "---")]:
            self.make(ratio, min_requests)
            self.send(*outcomes)
            self.assert_state(CLOSED)

    def test_window(self):
        """
        What is older than the window counts no longer, neither failures nor the requests that they are a part of.
        """
        self.make(0.5, 4)
        self.send(*"---")
        self.now += 11.0
        self.assertEqual(self.send(*"++++---"), [False] * 7)
        self.make(0.5, 4)
        self.send(*"++++++")
        self.now += 11.0
        self.assertEqual(self.send(*"----"), [False, False, False, True])

    def test_begins_anew(self):
        """
        After the circuit has closed again, requests from before it opened are forgotten.
        """
        self.make(0.5, 4)
        self.breaker.cooldown = 1.0
        self.send(*"----")
        self.now += 1.0
        self.assertEqual(self.send("+"), [True])
        self.assertEqual(self.send(*"---"), [False] * 3)
        self.assertEqual(self.send("-"), [True])


class BreakerModel(RuleBasedStateMachine):
    """
    A breaker beside its own description, with requests that are under way for as long as they like.
    """

    @initialize(failures=st.integers(1, 3), successes=st.integers(1, 3))
    def begin(self, failures, successes):
        self.failures, self.successes = failures, successes
        self.breaker = Breaker(failures, 10.0, successes)
        self.now = 0.0
        # Tickets under way, each with the turn in which it was admitted.
        self.under_way = []
        self.turn, self.state, self.opened, self.history = 0, CLOSED, 0.0, []

    def enter(self, state):
        self.turn, self.state, self.history = self.turn + 1, state, []
        if state is OPEN:
            self.opened = self.now

    def look(self):
        if self.state is OPEN and self.now >= self.opened + 10.0:
            self.enter(HALF_OPEN)

    def probes(self):
        """
        Return how many probes of the present turn are under way.
        """
        return sum(turn == self.turn for _, turn in self.under_way) if self.state is HALF_OPEN else 0

    @rule(seconds=st.sampled_from([0.5, 5.0, 10.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def admit(self):
        self.look()
        expected = self.state is CLOSED or (self.state is HALF_OPEN and self.probes() < self.successes)
        ticket = self.breaker.admit(self.now)
        assert (ticket is not None) == expected, (ticket, self.state)
        if ticket is not None:
            self.under_way.append((ticket, self.turn))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), is_failure=st.booleans())
    def report(self, data, is_failure):
        ticket, turn = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        before = self.turn
        if turn == self.turn:
            self.history.append(is_failure)
            # In a turn of probes any failure is the last thing that happens.
            row = 1 if self.state is HALF_OPEN else self.failures
            if len(self.history) >= row and all(self.history[-row:]):
                self.enter(OPEN)
            elif self.state is HALF_OPEN and len(self.history) >= self.successes:
                self.enter(CLOSED)
        assert self.breaker.report(ticket, is_failure, self.now) == (self.turn != before)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def withdraw(self, data):
        ticket, _ = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.breaker.withdraw(ticket)

    @invariant()
    def agrees(self):
        if hasattr(self, "breaker"):
            self.look()
            assert self.breaker.state(self.now) is self.state
            assert self.probes() <= self.successes
            may_come = self.state is CLOSED or (self.state is HALF_OPEN and self.probes() < self.successes)
            assert (self.breaker.retry_after(self.now) == 0.0) == may_come

    def teardown(self):
        """
        Whatever has happened, once all requests have ended the circuit can be closed.
        """
        if not hasattr(self, "breaker"):
            return
        for ticket, _ in self.under_way:
            self.breaker.withdraw(ticket)
        self.now += 10.0
        for _ in range(self.successes):
            ticket = self.breaker.admit(self.now)
            assert ticket is not None
            self.breaker.report(ticket, False, self.now)
        assert self.breaker.state(self.now) is CLOSED


class ModelTests(SynchronousTestCase):
    def test_is_the_model(self):
        """
        However requests come, last and end, the breaker does what its description says, never has too many probes, and can always recover.
        """
        run_state_machine_as_test(
            BreakerModel, settings=settings(deadline=None, max_examples=150, stateful_step_count=40, derandomize=True, database=None)
        )
