"""
Tests for `a3sgw.policy.split`.
"""

import math
from collections import Counter
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.split import Sampler, Split

CASES = settings(deadline=None, max_examples=100, derandomize=True)


@st.composite
def percents(draw):
    """
    Draw shares that add up to 100.
    """
    cuts = sorted(draw(st.lists(st.integers(0, 100), max_size=6)))
    return [end - start for start, end in zip([0, *cuts], [*cuts, 100], strict=True)]


def split_of(*shares):
    """
    Return a split among `a`, `b` and so on.
    """
    return Split(list(zip("abcdefgh", shares, strict=False)))


class SplitTests(SynchronousTestCase):
    """
    `Split` gives turns by percent.
    """

    def test_order(self):
        """Turns are spread evenly: the small share is never two in a row."""
        for shares, turns in [
            ((100,), "aaaa"),
            ((50, 50), "abab"),
            ((0, 100), "bbbb"),
            ((75, 25), "aaabaaab"),
            ((25, 75), "bbabbbab"),
            ((90, 10), "aaaaaaaaabaaaaaaaaab"),
            ((60, 20, 20), "aabacaabac"),
            ((50, 30, 20), "abacababacabacababac"),
        ]:
            split = split_of(*shares)
            self.assertEqual("".join(split.choose() for _ in turns), turns, shares)

    @CASES
    @given(percents(), st.integers(0, 250))
    def test_exact(self, shares, start):
        """Of any hundred choices in a row each item gets exactly its percentage."""
        split = Split(list(enumerate(shares)))
        for _ in range(start):
            split.choose()
        counts = Counter(split.choose() for _ in range(100))
        self.assertEqual(counts, Counter({item: share for item, share in enumerate(shares) if share}))

    @CASES
    @given(percents())
    def test_even(self, shares):
        """After any number of choices each item has had its exact share, rounded up or down."""
        split = Split(list(enumerate(shares)))
        counts = Counter()
        for made in range(1, 201):
            counts[split.choose()] += 1
            for item, share in enumerate(shares):
                self.assertLessEqual(made * share // 100, counts[item])
                self.assertLessEqual(counts[item], -(-made * share // 100))

    @CASES
    @given(percents(), st.data())
    def test_passed_over(self, shares, data):
        """When some cannot be chosen the others share in proportion; those without a share never get anything."""
        split = Split(list(enumerate(shares)))
        allowed = data.draw(st.sets(st.integers(0, len(shares) - 1)))
        sharing = {item: shares[item] for item in allowed if shares[item]}
        counts = Counter(split.choose(allowed.__contains__) for _ in range(sum(sharing.values())))
        self.assertEqual(counts, Counter(sharing))
        if not sharing:
            self.assertIsNone(split.choose(allowed.__contains__))

    def test_nobody(self):
        """When nobody with a share can be chosen there is no choice, and the turn waits."""
        split = split_of(50, 50, 0)
        self.assertEqual(split.choose(), "a")
        self.assertIsNone(split.choose("c".__contains__))
        self.assertEqual(split.choose(), "b")

    def test_shares(self):
        """Shares that do not add up to 100 are refused."""
        for shares in [(), (50,), (60, 60), (150, -50)]:
            self.assertRaises(ValueError, split_of, *shares)

    def test_repr(self):
        """It shows the shares."""
        self.assertEqual(repr(split_of(90, 10)), "<Split a 90%, b 10%>")


class SamplerTests(SynchronousTestCase):
    """
    `Sampler` takes a percentage.
    """

    def test_taken(self):
        """The requests taken are evenly spread, and the first is in the middle of its distance."""
        for percent, taken in [
            (0, []),
            (0.0, []),
            (100, list(range(1, 21))),
            (50, [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]),
            (25, [2, 6, 10, 14, 18]),
            (10, [5, 15]),
            (37.5, [2, 4, 7, 10, 12, 15, 18, 20]),
            (5, [10]),
        ]:
            sampler = Sampler(percent)
            self.assertEqual([number for number in range(1, 21) if sampler.take()], taken, percent)

    @CASES
    @given(st.floats(0, 100) | st.integers(0, 100) | st.sampled_from([0.1, 33.3, 66.7, 99.9]), st.integers(0, 300), st.integers(0, 300))
    def test_exact(self, percent, start, length):
        """Of any requests in a row the percentage is taken, rounded up or down."""
        sampler = Sampler(percent)
        for _ in range(start):
            sampler.take()
        share = Fraction(str(percent)) * length / 100
        self.assertIn(sum(sampler.take() for _ in range(length)), (math.floor(share), math.ceil(share)))

    def test_long_run(self):
        """A percentage with decimals is kept to the request over a long time."""
        sampler = Sampler(0.1)
        self.assertEqual([sum(sampler.take() for _ in range(10_000)) for _ in range(3)], [10, 10, 10])

    def test_percent(self):
        """A percentage that is none is refused."""
        for percent in (-0.1, 100.1, float("nan"), float("inf")):
            self.assertRaises(ValueError, Sampler, percent)

    def test_repr(self):
        """It shows the percentage."""
        self.assertEqual(repr(Sampler(12.5)), "<Sampler 12.5%>")
