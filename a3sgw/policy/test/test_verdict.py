"""
Tests for `a3sgw.policy.verdict`.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.ejection import Ejection, EjectionSettings
from a3sgw.policy.verdict import Change, ProbeVerdict, Transition, Verdicts, counted, is_panic, usable_of


def probe_all(verdict, results):
    """
    Feed `+` for a success and `-` for a failure; return the word of each change, and an empty one where there is none.
    """
    changes = [verdict.succeeded() if result == "+" else verdict.failed("refused") for result in results]
    return [change.change.value if change else "" for change in changes]


def unhealthy():
    """
    Return the verdict on a backend whose last probe failed.
    """
    verdict = ProbeVerdict(1, 1)
    verdict.failed("refused")
    return verdict


def ejected(until=30.0):
    """
    Return the verdict on a backend whose last request failed.
    """
    ejection = Ejection(EjectionSettings(consecutive_errors=1, base=until))
    ejection.failed(ejection.begin(), 0.0, "503")
    return ejection


class ProbeVerdictTests(SynchronousTestCase):
    """
    `ProbeVerdict` counts probes in a row.
    """

    def test_changes(self):
        """A backend is unhealthy after so many failures in a row, healthy after so many successes in a row, and healthy at first."""
        cases = [
            (3, 1, "--", ["", ""]),
            (3, 1, "---", ["", "", "unhealthy"]),
            (3, 1, "--+--", [""] * 5),
            (3, 1, "--+---", ["", "", "", "", "", "unhealthy"]),
            (1, 1, "-+-", ["unhealthy", "healthy", "unhealthy"]),
            (1, 3, "-++", ["unhealthy", "", ""]),
            (1, 3, "-+++", ["unhealthy", "", "", "healthy"]),
            (1, 3, "-++-++", ["unhealthy", "", "", "", "", ""]),
            (1, 3, "-++-+++", ["unhealthy", "", "", "", "", "", "healthy"]),
            (2, 2, "----", ["", "unhealthy", "", ""]),
            (2, 2, "--+++", ["", "unhealthy", "", "healthy", ""]),
        ]
        for bad, good, results, changes in cases:
            verdict = ProbeVerdict(bad, good)
            self.assertTrue(verdict.is_healthy)
            self.assertEqual(probe_all(verdict, results), changes, (bad, good, results))

    @settings(deadline=None, max_examples=100, derandomize=True)
    @given(st.integers(1, 4), st.integers(1, 4), st.text("+-", max_size=40))
    def test_last_run_decides(self, bad, good, results):
        """The verdict is that of the last run of equal results that was long enough."""
        verdict = ProbeVerdict(bad, good)
        probe_all(verdict, results)
        last_bad = results.rfind("-" * bad)
        last_good = results.rfind("+" * good)
        # The ends of the runs are compared, because of two runs the later one counts.
        expected = last_bad < 0 or (last_good >= 0 and last_good + good > last_bad + bad)
        self.assertEqual(verdict.is_healthy, expected)

    def test_reasons(self):
        """A change tells how many probes decided, and what was wrong with the last of them."""
        verdict = ProbeVerdict(2, 1)
        verdict.failed("timeout")
        self.assertEqual(verdict.failed("status 500"), Transition(Change.UNHEALTHY, "2 probes in a row failed, at last: status 500"))
        self.assertEqual(repr(verdict), "<ProbeVerdict unhealthy, 0 against>")
        self.assertEqual(verdict.succeeded(), Transition(Change.HEALTHY, "1 probe in a row succeeded"))
        verdict.failed("timeout")
        self.assertEqual(repr(verdict), "<ProbeVerdict healthy, 1 against>")

    def test_thresholds(self):
        """A threshold below 1 is refused."""
        for thresholds in [(0, 1), (1, 0), (-1, 1)]:
            self.assertRaises(ValueError, ProbeVerdict, *thresholds)

    def test_counted(self):
        """One is singular."""
        self.assertEqual([counted(number, "probe") for number in range(3)], ["0 probes", "1 probe", "2 probes"])


class VerdictsTests(SynchronousTestCase):
    """
    `Verdicts` keeps the verdicts on one backend apart.
    """

    def test_usable(self):
        """A backend is usable while neither probes, nor requests, nor the operator object, and says who does."""
        for is_well, is_in_service, is_draining, words in [
            (True, True, False, "usable"),
            (False, True, False, "unhealthy"),
            (True, False, False, "ejected"),
            (False, False, False, "unhealthy, ejected"),
            (True, True, True, "draining"),
            (False, False, True, "draining, unhealthy, ejected"),
        ]:
            verdicts = Verdicts(ProbeVerdict() if is_well else unhealthy(), Ejection(EjectionSettings()) if is_in_service else ejected())
            verdicts.is_draining = is_draining
            self.assertEqual((verdicts.is_usable, verdicts.is_sound), (words == "usable", words == "usable"), words)
            self.assertEqual(verdicts.words, words)
            self.assertEqual(repr(verdicts), f"<Verdicts {words}>")

    def test_nobody_judges(self):
        """Without probes and without passive judgement a backend is usable."""
        self.assertTrue(Verdicts().is_usable)
        self.assertTrue(Verdicts().is_sound)

    def test_recoveries_do_not_hide_each_other(self):
        """A backend that its requests found bad stays out when a probe finds it well, and the other way round."""
        verdicts = Verdicts(unhealthy(), ejected(until=30.0))
        verdicts.probe.succeeded()
        self.assertFalse(verdicts.is_usable)
        verdicts = Verdicts(unhealthy(), ejected(until=30.0))
        verdicts.ejection.wake(30.0)
        verdicts.ejection.succeeded(verdicts.ejection.begin(), 31.0)
        self.assertEqual(verdicts.words, "unhealthy")

    def test_half_open(self):
        """A half-open backend is usable while a trial is to spare, but it is not sound."""
        verdicts = Verdicts(None, ejected(until=30.0))
        verdicts.ejection.wake(30.0)
        self.assertEqual((verdicts.is_usable, verdicts.is_sound, verdicts.words), (True, False, "half-open"))
        verdicts.ejection.begin()
        self.assertFalse(verdicts.is_usable)


class PanicTests(SynchronousTestCase):
    """
    Tests for `is_panic` and `usable_of`.
    """

    def test_threshold(self):
        """There is a panic when the share of sound backends is below the threshold, never at 0, and never without backends."""
        for sound, total, threshold, expected in [
            (0, 4, 0, False),
            (0, 4, 1, True),
            (1, 4, 25, False),
            (1, 4, 25.1, True),
            (1, 4, 50, True),
            (2, 4, 50, False),
            (3, 4, 100, True),
            (4, 4, 100, False),
            (0, 0, 100, False),
        ]:
            self.assertIs(is_panic(sound, total, threshold), expected, (sound, total, threshold))

    def test_usable(self):
        """The usable backends are used; in a panic all are, except those that drain."""
        draining = Verdicts()
        draining.is_draining = True
        backends = {"a": Verdicts(unhealthy()), "b": Verdicts(), "c": Verdicts(None, ejected()), "d": draining}
        self.assertEqual(usable_of(backends), ["b"])
        self.assertEqual(usable_of(backends, 33.0), ["b"])
        self.assertEqual(usable_of(backends, 34.0), ["a", "b", "c"])

    def test_none(self):
        """Where nobody is usable and panic is off, nobody is used."""
        self.assertEqual(usable_of({"a": Verdicts(unhealthy())}), [])
        self.assertEqual(usable_of({}, 50.0), [])

    def test_half_open(self):
        """A half-open backend gets its trial beside the sound ones, and does not count as sound."""
        ejection = ejected(until=30.0)
        ejection.wake(30.0)
        backends = {"a": Verdicts(None, ejection), "b": Verdicts()}
        self.assertEqual(usable_of(backends, 50.0), ["a", "b"])
        ejection.begin()
        self.assertEqual(usable_of(backends, 50.0), ["b"])
        self.assertEqual(usable_of(backends, 51.0), ["a", "b"])
