"""
Tests for `a3sgw.policy.ejection`.
"""

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.ejection import Ejection, EjectionGroup, EjectionSettings, EjectionState
from a3sgw.policy.verdict import Change, ProbeVerdict, Transition

SETTINGS = EjectionSettings(consecutive_errors=3, error_threshold=0, base=10.0, maximum=80.0)


def fail(ejection, now, times=1):
    """
    Send that many requests, all of which fail; return the last transition.
    """
    transition = None
    for _ in range(times):
        transition = ejection.failed(ejection.begin(), now, "503")
    return transition


def succeed(ejection, now):
    """
    Send a request that goes well.
    """
    return ejection.succeeded(ejection.begin(), now)


def change(transition):
    """
    Return what changed, if anything did.
    """
    return transition and transition.change


def seconds_out(ejection, now):
    """
    Return for how long a backend in service is ejected when it fails now.
    """
    fail(ejection, now, 3)
    return ejection.until - now


def restore(ejection):
    """
    Bring an ejected backend back as soon as may be; return when that was.
    """
    now = ejection.until
    ejection.wake(now)
    succeed(ejection, now)
    return now


class EjectTests(SynchronousTestCase):
    """
    What sets a backend aside.
    """

    def test_failures_in_a_row(self):
        """So many failures in a row eject a backend, however far apart they are, and the reason tells the last of them."""
        ejection = Ejection(SETTINGS)
        self.assertIsNone(fail(ejection, 0.0))
        self.assertIsNone(fail(ejection, 5000.0))
        self.assertEqual(fail(ejection, 9000.0), Transition(Change.EJECTED, "for 10 s: 3 requests in a row failed, at last: 503"))
        self.assertEqual((ejection.state, ejection.until, ejection.may_choose), (EjectionState.EJECTED, 9010.0, False))

    def test_success_between(self):
        """A success between them begins the count of failures in a row anew."""
        ejection = Ejection(SETTINGS)
        fail(ejection, 0.0, 2)
        self.assertIsNone(succeed(ejection, 0.0))
        self.assertIsNone(fail(ejection, 0.0, 2))
        self.assertEqual(change(fail(ejection, 0.0)), Change.EJECTED)

    def test_failures_within_window(self):
        """So many failures within the window eject a backend although others succeed; older ones do not count."""
        for times, expected in [
            ([0, 10, 30], Change.EJECTED),
            ([0, 10, 30.001], None),
            ([0, 10, 31, 39], Change.EJECTED),
            ([0, 20, 40, 60, 80], None),
            ([0, 0, 0], Change.EJECTED),
        ]:
            ejection = Ejection(EjectionSettings(consecutive_errors=0, error_threshold=3, window=30.0))
            for now in times:
                succeed(ejection, now)
                last = fail(ejection, now)
            self.assertEqual(change(last), expected, times)
        self.assertEqual(ejection.state, EjectionState.EJECTED)

    def test_reason_of_window(self):
        """The reason tells how many requests failed within which time."""
        ejection = Ejection(EjectionSettings(consecutive_errors=0, error_threshold=2, window=30.0, base=1.5))
        fail(ejection, 0.0)
        self.assertEqual(fail(ejection, 1.0).reason, "for 1.5 s: 2 requests failed within 30 s, at last: 503")

    def test_switched_off(self):
        """With both thresholds at 0 no failures eject."""
        ejection = Ejection(EjectionSettings(consecutive_errors=0, error_threshold=0))
        self.assertIsNone(fail(ejection, 0.0, 1000))

    def test_memory_is_bounded(self):
        """However many failures come in, few things are kept, and the count of the window is right within one part in 64."""
        ejection = Ejection(EjectionSettings(consecutive_errors=0, error_threshold=10**9, window=32.0))
        for number in range(100_000):
            ejection.failed(0, number / 1000, "503")
        self.assertLessEqual(len(ejection._failures._entries), 66)
        self.assertLess(abs(ejection._failures.add(100.0) - 32_000), 500)

    def test_settings(self):
        """Settings that make no sense are refused."""
        for wrong in [
            {"consecutive_errors": -1},
            {"error_threshold": -1},
            {"window": 0.0},
            {"base": 0.0},
            {"trials": 0},
        ]:
            self.assertRaises(ValueError, EjectionSettings, **wrong)


class ReturnTests(SynchronousTestCase):
    """
    How a backend comes back.
    """

    def half_open(self, **changed):
        """
        Return the verdict on a backend that has just become half-open, at 10 seconds.
        """
        ejection = Ejection(attrs.evolve(SETTINGS, **changed))
        fail(ejection, 0.0, 3)
        ejection.wake(10.0)
        return ejection

    def test_half_open_in_time(self):
        """An ejected backend becomes half-open when its time is over, not before, and once."""
        ejection = Ejection(SETTINGS)
        self.assertIsNone(ejection.wake(0.0))
        fail(ejection, 0.0, 3)
        self.assertIsNone(ejection.wake(9.999))
        self.assertEqual(ejection.wake(10.0), Transition(Change.HALF_OPEN, "the time of its ejection is over"))
        self.assertEqual((ejection.state, ejection.until), (EjectionState.HALF_OPEN, None))
        self.assertIsNone(ejection.wake(11.0))

    def test_trials_are_bounded(self):
        """A half-open backend is chosen for so many requests at a time; one that says nothing gives its trial back."""
        for trials in (1, 3):
            ejection = self.half_open(trials=trials)
            tickets = []
            while ejection.may_choose:
                tickets.append(ejection.begin())
            self.assertEqual(len(tickets), trials)
            ejection.abandoned(tickets.pop())
            self.assertTrue(ejection.may_choose)
            ejection.begin()
            self.assertFalse(ejection.may_choose)

    def test_success_restores(self):
        """The first trial that succeeds restores the backend; failures count from nothing."""
        ejection = self.half_open(trials=2)
        first, second = ejection.begin(), ejection.begin()
        self.assertEqual(ejection.succeeded(second, 11.0), Transition(Change.RESTORED, "a trial request succeeded"))
        self.assertTrue(ejection.is_in_service)
        self.assertIsNone(ejection.failed(first, 11.0, "503"))
        self.assertIsNone(fail(ejection, 11.0, 2))
        self.assertEqual(change(fail(ejection, 11.0)), Change.EJECTED)

    def test_failure_ejects_again(self):
        """A trial that fails ejects the backend again at once, for twice the time."""
        ejection = self.half_open(trials=2)
        first, second = ejection.begin(), ejection.begin()
        self.assertEqual(
            ejection.failed(first, 11.0, "connection refused"),
            Transition(Change.EJECTED, "for 20 s: a trial request failed: connection refused"),
        )
        self.assertEqual(ejection.until, 31.0)
        self.assertIsNone(ejection.succeeded(second, 12.0))
        self.assertEqual(ejection.state, EjectionState.EJECTED)

    def test_late_answers(self):
        """Answers to requests from before the ejection neither restore the backend, nor eject it again, nor use up its trials."""
        ejection = Ejection(SETTINGS)
        early = [ejection.begin() for _ in range(4)]
        fail(ejection, 0.0, 3)
        self.assertIsNone(ejection.succeeded(early[0], 1.0))
        self.assertIsNone(ejection.failed(early[1], 1.0, "503"))
        ejection.wake(10.0)
        self.assertIsNone(ejection.succeeded(early[2], 11.0))
        self.assertIsNone(ejection.failed(early[3], 11.0, "503"))
        ejection.abandoned(early[3])
        self.assertEqual(ejection.state, EjectionState.HALF_OPEN)
        ejection.begin()
        self.assertFalse(ejection.may_choose)

    def test_requests_of_a_panic(self):
        """What an ejected backend answers in a panic is no trial."""
        ejection = Ejection(SETTINGS)
        fail(ejection, 0.0, 3)
        self.assertIsNone(succeed(ejection, 1.0))
        self.assertIsNone(fail(ejection, 1.0, 10))
        self.assertEqual((ejection.state, ejection.until), (EjectionState.EJECTED, 10.0))


class DurationTests(SynchronousTestCase):
    """
    How long ejections last.
    """

    def test_growth(self):
        """Each ejection lasts twice as long as the one before, up to the maximum."""
        ejection = Ejection(SETTINGS)
        lasted = []
        now = 0.0
        fail(ejection, now, 3)
        for _ in range(6):
            lasted.append(ejection.until - now)
            now = ejection.until
            ejection.wake(now)
            fail(ejection, now)
        self.assertEqual(lasted, [10.0, 20.0, 40.0, 80.0, 80.0, 80.0])

    def test_growth_over_restorations(self):
        """It grows also when the backend is restored in between and soon fails again."""
        ejection = Ejection(SETTINGS)
        lasted = []
        now = 0.0
        for _ in range(4):
            lasted.append(seconds_out(ejection, now))
            now = restore(ejection) + 1.0
        self.assertEqual(lasted, [10.0, 20.0, 40.0, 80.0])

    def test_forgiven(self):
        """Each time a backend has served as long as its last ejection lasted, the next one is a step shorter."""
        for served, expected in [(0.0, 40.0), (19.0, 40.0), (20.0, 20.0), (29.0, 20.0), (30.0, 10.0), (1e9, 10.0)]:
            ejection = Ejection(SETTINGS)
            fail(ejection, 0.0, 3)
            ejection.wake(10.0)
            fail(ejection, 10.0)
            self.assertEqual(ejection.until, 30.0)
            now = restore(ejection) + served
            self.assertEqual(seconds_out(ejection, now), expected, served)

    def test_maximum_below_base(self):
        """A maximum below the base does not shorten the first ejection."""
        ejection = Ejection(attrs.evolve(SETTINGS, maximum=5.0))
        self.assertEqual(seconds_out(ejection, 0.0), 10.0)
        self.assertEqual(seconds_out(ejection, restore(ejection)), 10.0)

    def test_endless_failures(self):
        """A backend that fails for ever is ejected for the maximum each time."""
        ejection = Ejection(attrs.evolve(SETTINGS, maximum=75.0))
        now = 0.0
        fail(ejection, now, 3)
        for _ in range(2000):
            now = ejection.until
            ejection.wake(now)
            fail(ejection, now)
        self.assertEqual(ejection.until - now, 75.0)

    def test_repr(self):
        """It shows where the backend stands."""
        ejection = Ejection(SETTINGS)
        fail(ejection, 0.0, 2)
        self.assertEqual(repr(ejection), "<Ejection in service, level 0, 2 failures in a row>")
        fail(ejection, 0.0)
        self.assertEqual(repr(ejection), "<Ejection ejected, level 1, 0 failures in a row>")


def group_of(count, percent=50, **changed):
    """
    Return a group and the verdicts on that many backends, each of which is ejected by one failure.
    """
    group = EjectionGroup(attrs.evolve(SETTINGS, consecutive_errors=1, **changed), max_ejection_percent=percent)
    return group, [group.add(ProbeVerdict(1)) for _ in range(count)]


class GroupTests(SynchronousTestCase):
    """
    `EjectionGroup` bounds how many backends are out.
    """

    def test_how_many(self):
        """When all fail, so many are ejected: the percentage, but at least one, and never the last."""
        for count, percent, expected in [
            (1, 50, 0),
            (1, 100, 0),
            (2, 50, 1),
            (2, 100, 1),
            (3, 50, 1),
            (3, 67, 2),
            (3, 100, 2),
            (4, 50, 2),
            (5, 50, 2),
            (5, 1, 1),
            (5, 0, 0),
            (10, 50, 5),
            (10, 30, 3),
            (10, 100, 9),
        ]:
            _, members = group_of(count, percent)
            changes = [change(fail(member.ejection, 0.0)) for member in members]
            self.assertEqual(changes, [Change.EJECTED] * expected + [Change.EJECTION_REFUSED] * (count - expected), (count, percent))

    def test_reasons_of_refusal(self):
        """A refusal says what was wrong and why nothing was done about it."""
        (alone,) = group_of(1)[1]
        self.assertEqual(
            fail(alone.ejection, 0.0),
            Transition(Change.EJECTION_REFUSED, "1 request in a row failed, at last: 503; not ejected, because no other backend is sound"),
        )
        _, (first, second, _) = group_of(3)
        fail(first.ejection, 0.0)
        self.assertIn("because 1 of 3 backends ejected already and max_ejection_percent is 50", fail(second.ejection, 0.0).reason)
        first = group_of(2, percent=0)[1][0]
        self.assertIn("because max_ejection_percent is 0", fail(first.ejection, 0.0).reason)

    def test_refusal_is_told_now_and_then(self):
        """A backend that goes on failing is reported again, but not with every failure."""
        (alone,) = group_of(1)[1]
        told = [now for now in range(30) if fail(alone.ejection, float(now))]
        self.assertEqual(told, [0, 10, 20])

    def test_room_again(self):
        """A backend that was not ejected for want of room is when there is some, even if the refusal is not told again."""
        _, (first, second) = group_of(2)
        fail(first.ejection, 0.0)
        self.assertEqual(change(fail(second.ejection, 9.0)), Change.EJECTION_REFUSED)
        restore(first.ejection)
        self.assertEqual(change(fail(second.ejection, 10.0)), Change.EJECTED)

    def test_half_open_is_out(self):
        """A half-open backend takes up its place: no other goes out meanwhile, and it can always be ejected again itself."""
        _, (first, second) = group_of(2)
        fail(first.ejection, 0.0)
        first.ejection.wake(10.0)
        self.assertEqual(change(fail(second.ejection, 10.0)), Change.EJECTION_REFUSED)
        self.assertEqual(change(fail(first.ejection, 10.0)), Change.EJECTED)

    def test_last_sound(self):
        """A backend is not ejected when probes have found all others unhealthy."""
        _, (first, second, third) = group_of(3, percent=100)
        second.probe.failed("timeout")
        third.probe.failed("timeout")
        self.assertEqual(change(fail(first.ejection, 0.0)), Change.EJECTION_REFUSED)
        third.probe.succeeded()
        self.assertEqual(change(fail(first.ejection, 0.0)), Change.EJECTED)

    def test_draining_does_not_count(self):
        """A draining backend is no reserve, and no part of the whole."""
        _, members = group_of(4)
        members[3].is_draining = True
        self.assertEqual([change(fail(member.ejection, 0.0)) for member in members[:2]], [Change.EJECTED, Change.EJECTION_REFUSED])
        _, (first, second) = group_of(2)
        second.is_draining = True
        self.assertEqual(change(fail(first.ejection, 0.0)), Change.EJECTION_REFUSED)

    def test_removed(self):
        """A backend that was removed takes up no place."""
        group, (first, second, third) = group_of(3)
        fail(first.ejection, 0.0)
        group.remove(first)
        self.assertEqual(change(fail(second.ejection, 0.0)), Change.EJECTED)
        self.assertEqual(repr(group), "<EjectionGroup [<Verdicts ejected>, <Verdicts usable>]>")
        self.assertTrue(third.is_usable)

    def test_percent(self):
        """A percentage that is none is refused."""
        for percent in (-1, 101):
            self.assertRaises(ValueError, EjectionGroup, SETTINGS, max_ejection_percent=percent)


class GroupMachine(RuleBasedStateMachine):
    """
    Requests, time, and servers that come and go, in any order.
    """

    def __init__(self):
        super().__init__()
        self.group, self.members = group_of(3, trials=2)
        self.open = []
        self.now = 0.0

    @rule(position=st.integers(0, 9))
    def send(self, position):
        usable = [member for member in self.members if member.is_usable]
        chosen = usable[position % len(usable)]
        self.open.append((chosen, chosen.ejection.begin()))

    @precondition(lambda self: self.open)
    @rule(position=st.integers(0, 9), result=st.sampled_from(["succeeded", "failed", "failed", "abandoned"]))
    def end(self, position, result):
        member, ticket = self.open.pop(position % len(self.open))
        if result == "succeeded":
            member.ejection.succeeded(ticket, self.now)
        elif result == "failed":
            member.ejection.failed(ticket, self.now, "503")
        else:
            member.ejection.abandoned(ticket)

    @rule(seconds=st.sampled_from([1.0, 10.0, 40.0]))
    def wait(self, seconds):
        self.now += seconds
        for member in self.members:
            member.ejection.wake(self.now)

    @precondition(lambda self: len(self.members) < 5)
    @rule()
    def come(self):
        self.members.append(self.group.add())

    @precondition(lambda self: sum(member.is_sound for member in self.members) > 1)
    @rule(position=st.integers(0, 9))
    def go(self, position):
        sound = [member for member in self.members if member.is_sound]
        gone = sound[position % len(sound)]
        self.members.remove(gone)
        self.group.remove(gone)

    @invariant()
    def somebody_serves(self):
        assert any(member.is_sound for member in self.members)

    @invariant()
    def trials_are_bounded(self):
        for member in self.members:
            assert 0 <= member.ejection._on_trial <= 2

    @invariant()
    def trials_are_those_open(self):
        for member in self.members:
            if member.ejection.state is EjectionState.HALF_OPEN:
                mine = [ticket for other, ticket in self.open if other is member and ticket == member.ejection._ticket]
                assert member.ejection._on_trial == len(mine)

    @invariant()
    def ejected_have_an_end(self):
        for member in self.members:
            assert (member.ejection.until is not None) is (member.ejection.state is EjectionState.EJECTED)


class GroupMachineTests(SynchronousTestCase):
    """
    `EjectionGroup` in any order of things.
    """

    def test_somebody_serves(self):
        """Whatever happens, passive judgement leaves somebody in service, and trials are bounded."""
        run_state_machine_as_test(
            GroupMachine, settings=settings(deadline=None, max_examples=60, stateful_step_count=40, derandomize=True, database=None)
        )
