"""
Tests of `a3sgw.policy.bucket`.
"""

from fractions import Fraction
from ipaddress import ip_network
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.address import pack_address
from a3sgw.policy.bucket import Buckets, prefix_key

# Eighths of seconds and powers of two as rates: floats count them without rounding, so machine and model must agree to the last bit.
EXACT_STEPS = st.lists(st.tuples(st.integers(0, 40).map(lambda eighths: eighths / 8), st.sampled_from("abcd")), max_size=60)
EXACT_RATES = st.integers(-4, 4).map(lambda power: 2.0**power)
ANY_STEPS = st.lists(st.tuples(st.floats(0, 5), st.sampled_from("ab")), max_size=60)


class Model:
    """
    The bucket as everybody explains it: a level that rises with time up to the brim, for one key, in exact numbers.
    """

    def __init__(self, rate, burst):
        self.rate, self.burst = Fraction(rate), burst
        self.level, self.seen = Fraction(burst), Fraction(0)

    def tokens(self, now):
        """
        Return the level now.
        """
        self.level = min(Fraction(self.burst), self.level + (Fraction(now) - self.seen) * self.rate)
        self.seen = Fraction(now)
        return self.level

    def wait(self, now):
        """
        Return the seconds until there is a whole token.
        """
        return max(Fraction(0), (1 - self.tokens(now)) / self.rate)


class Models(dict[str, Model]):
    """
    A model per key, made when first asked for.
    """

    def __init__(self, rate, burst):
        super().__init__()
        self.make = lambda: Model(rate, burst)

    def __missing__(self, key):
        self[key] = made = self.make()
        return made


class BucketTests(SynchronousTestCase):
    def test_burst(self):
        """
        A whole burst is admitted at once, however large the clock is; the next one must wait for a token to be refilled.
        """
        for rate, burst, now in [(10, 5, 0.0), (0.1, 1, 3.0), (3, 7, 12345678.9), (1000, 1000, 0.1), (1e6, 3, 1e7 / 3)]:
            buckets = Buckets(rate, burst, 10)
            self.assertEqual([buckets.take("k", now) for _ in range(burst)], [0.0] * burst, (rate, burst, now))
            self.assertAlmostEqual(buckets.take("k", now) * rate, 1.0, 2)

    def test_refill(self):
        """
        Tokens come one by one, evenly in time, and no more than the burst are saved up.
        """
        buckets = Buckets(2, 3, 10)
        admitted = []
        for quarter in range(40):
            # Nobody comes from second 3 until second 8.
            if not 12 <= quarter < 32 and not buckets.take("k", quarter / 4):
                admitted.append(quarter / 4)
        self.assertEqual(admitted, [0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 8.0, 8.25, 8.5, 8.75, 9.0, 9.5])

    def test_refused_pays_nothing(self):
        """
        Who keeps knocking while refused is admitted no later than who waits.
        """
        buckets = Buckets(1, 1, 10)
        buckets.take("k", 0.0)
        waits = [buckets.take("k", tenth / 10) for tenth in range(1, 10)]
        self.assertTrue(all(waits), waits)
        self.assertAlmostEqual(waits[4], 0.5)
        self.assertEqual(buckets.take("k", 1.0), 0.0)

    def test_standing(self):
        """
        What remains, and when the bucket is full, can be told at any time, and telling it takes nothing.
        """
        buckets = Buckets(2, 4, 10)
        self.assertEqual((buckets.remaining("k", 10.0), buckets.reset("k", 10.0)), (4, 0.0))
        for _ in range(4):
            buckets.take("k", 10.0)
        for now, remaining, reset in [(10.0, 0, 2.0), (10.25, 0, 1.75), (10.5, 1, 1.5), (11.75, 3, 0.25), (12.0, 4, 0.0), (99.0, 4, 0.0)]:
            self.assertEqual((buckets.remaining("k", now), buckets.reset("k", now)), (remaining, reset), now)
        self.assertEqual(len(buckets), 1)

    def test_keys_are_apart(self):
        """
        One key's use is no other's.
        """
        buckets = Buckets(1, 1, 10)
        self.assertEqual([buckets.take(key, 0.0) > 0 for key in "aabbc"], [False, True, False, True, False])

    def test_clock_that_stands_or_steps_back(self):
        """
        A clock that stands or steps back gives no tokens and raises nothing.
        """
        buckets = Buckets(1, 2, 10)
        self.assertEqual([buckets.take("k", now) for now in (5.0, 5.0, 5.0, 4.0)], [0.0, 0.0, 1.0, 2.0])

    def test_refused_limits(self):
        """
        A limit that admits nobody, or is no number, is refused with what to give instead.
        """
        for rate, burst, max_keys, part in [
            (0, 1, 1, "number above 0"),
            (-1.5, 1, 1, "-1.5 tokens"),
            (float("nan"), 1, 1, "number above 0"),
            (float("inf"), 1, 1, "number above 0"),
            (1, 0, 1, "at least 1"),
            (1, 1, 0, "room for 0 keys"),
        ]:
            error = self.assertRaises(ValueError, Buckets, rate, burst, max_keys)
            self.assertIn(part, str(error))

    def test_repr(self):
        """
        Buckets show their limit and how many keys they know.
        """
        buckets = Buckets(0.5, 3, 10)
        buckets.take("k", 0.0)
        self.assertEqual(repr(buckets), "<Buckets 0.5/s, burst 3, 1 of 10 keys>")

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(EXACT_RATES, st.integers(1, 6), EXACT_STEPS)
    def test_is_the_model(self, rate, burst, steps):
        """
        Whatever comes when, each key is admitted, told to wait and shown what remains exactly as by a bucket of its own.
        """
        buckets, models, now = Buckets(rate, burst, 4), Models(rate, burst), 1000.0
        for pause, key in steps:
            now += pause
            model = models[key]
            wait = model.wait(now)
            self.assertEqual(buckets.take(key, now), wait)
            if not wait:
                model.level -= 1
            for other, expected in models.items():
                tokens = expected.tokens(now)
                self.assertEqual(buckets.remaining(other, now), int(tokens))
                self.assertEqual(buckets.reset(other, now), (burst - tokens) / expected.rate)

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.floats(0.001, 1000), st.integers(1, 6), st.floats(0, 1e6), ANY_STEPS)
    def test_is_the_model_but_for_rounding(self, rate, burst, now, steps):
        """
        For any rate and any times the verdict is the model's, unless a whole token is there or missing by less than rounding can tell.
        """
        buckets, models = Buckets(rate, burst, 2), Models(rate, burst)
        for pause, key in steps:
            now += pause
            model = models[key]
            tokens = model.tokens(now)
            is_admitted = not buckets.take(key, now)
            if abs(tokens - 1) > 1e-5:
                self.assertEqual(is_admitted, tokens > 1, (now, float(tokens)))
            if is_admitted:
                model.level -= 1

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.floats(0.001, 1000), st.integers(1, 6), st.floats(0, 1e6))
    def test_wait_is_enough_and_not_too_much(self, rate, burst, now):
        """
        Who waits as long as told is admitted; a hundredth less is too early.
        """
        buckets = Buckets(rate, burst, 2)
        for _ in range(burst):
            buckets.take("k", now)
        wait = buckets.take("k", now)
        self.assertGreater(buckets.take("k", now + wait * 0.99), 0.0)
        self.assertEqual(buckets.take("k", now + wait), 0.0)


class BoundTests(SynchronousTestCase):
    def test_bound(self):
        """
        However many keys come, no more than the bound are remembered, and each newcomer is admitted and remembered.
        """
        buckets = Buckets(1, 2, 100, Random(1))
        for number in range(5000):
            self.assertEqual(buckets.take(number, 0.0), 0.0)
            self.assertEqual(buckets.remaining(number, 0.0), 1)
            self.assertLessEqual(len(buckets), 100)
        self.assertEqual(len(buckets), 100)

    def test_one_key(self):
        """
        With room for one key the last one is remembered.
        """
        buckets = Buckets(1, 1, 1)
        self.assertEqual([buckets.take(key, 0.0) for key in "aabb"], [0.0, 1.0, 0.0, 1.0])
        self.assertEqual(len(buckets), 1)

    def test_flood_frees_nobody(self):
        """
        A flood of new keys, 50 times what is remembered, does not refill the bucket of one who is refused.
        """
        buckets = Buckets(0.001, 3, 100, Random(2))
        for _ in range(3):
            buckets.take("guesser", 0.0)
        for number in range(5000):
            buckets.take(number, number / 1000)
            self.assertGreater(buckets.take("guesser", number / 1000), 0.0, number)

    def test_flood_beside_lower_keys(self):
        """
        Even if half of what is remembered is kept lower than one key, a flood of new ones refills that key's bucket only now and then.
        """
        buckets = Buckets(0.001, 3, 100, Random(3))
        refilled = 0
        for number in range(5000):
            if buckets.remaining("guesser", 0.0) > 1:
                refilled += 1
                self.assertEqual([buckets.take("guesser", 0.0) for _ in range(2)], [0.0, 0.0])
            for companion in range(50):
                while not buckets.take(("companion", companion), 0.0):
                    pass
            buckets.take(number, 0.0)
        # It was full to begin with. Then, by the formula of the module, at most 8 / 100 * 0.5**7 * 5000 = 3.1 times on average.
        self.assertGreater(refilled, 1)
        self.assertLess(refilled, 10)

    def test_fullest_goes_first(self):
        """
        Beyond the bound those are forgotten who took least.
        """
        buckets = Buckets(0.001, 10, 200, Random(4))
        for number in range(200):
            for _ in range(1 + number % 2 * 8):
                buckets.take(number, 0.0)
        for number in range(1000, 1060):
            buckets.take(number, 0.0)
        kept = [number for number in range(200) if buckets.remaining(number, 0.0) < 10]
        self.assertEqual([number for number in range(1, 200, 2) if number not in kept], [])
        self.assertGreaterEqual(len(kept), 140)

    def test_full_ones_are_forgotten(self):
        """
        Keys that have been quiet until their buckets were full are forgotten bit by bit while others come.
        """
        buckets = Buckets(1, 2, 10_000)
        for number in range(1000):
            buckets.take(number, 0.0)
        self.assertEqual(len(buckets), 1000)
        sizes = []
        for number in range(1000):
            buckets.take(("late", number), 10.0 + number)
            sizes.append(len(buckets))
        self.assertGreaterEqual(min(after - before for before, after in zip([1000, *sizes], sizes, strict=False)), -1)
        self.assertLessEqual(sizes[-1], 3)

    def test_active_ones_are_not_forgotten(self):
        """
        Below the bound nobody is forgotten whose bucket is not full.
        """
        buckets = Buckets(1, 2, 10_000)
        for number in range(3000):
            buckets.take(number, number / 1000)
        self.assertEqual({buckets.remaining(number, 3.0) for number in range(2001, 3000)}, {1})
        self.assertLess(len(buckets), 2000)

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(EXACT_RATES, st.integers(1, 6), st.integers(1, 3), st.randoms(use_true_random=False), EXACT_STEPS)
    def test_errors_favour_the_client(self, rate, burst, max_keys, chance, steps):
        """
        However little is remembered, nobody is refused or told to wait longer than by a bucket of its own.
        """
        buckets, models, now = Buckets(rate, burst, max_keys, chance), Models(rate, burst), 1000.0
        for pause, key in steps:
            now += pause
            model = models[key]
            wait = buckets.take(key, now)
            self.assertLessEqual(wait, model.wait(now))
            if not wait:
                model.level = max(Fraction(0), model.level - 1)
            self.assertLessEqual(len(buckets), max_keys)


class PrefixKeyTests(SynchronousTestCase):
    def test_networks(self):
        """
        Addresses of one network have one key, and the two families never share one.
        """
        for address, bits4, bits6, network in [
            ("192.0.2.77", 32, 64, "192.0.2.77"),
            ("192.0.2.77", 24, 64, "192.0.2.0"),
            ("192.0.2.77", 26, 64, "192.0.2.64"),
            ("192.0.2.77", 0, 64, "0.0.0.0"),
            ("2001:db8:1:2:3:4:5:6", 32, 64, "2001:db8:1:2::"),
            ("2001:db8:1:2:3:4:5:6", 32, 128, "2001:db8:1:2:3:4:5:6"),
            ("2001:db8:1:2:3:4:5:6", 32, 48, "2001:db8:1::"),
            ("2001:db8:1:2:3:4:5:6", 32, 62, "2001:db8:1::"),
            ("2001:db8:1:2:3:4:5:6", 32, 0, "::"),
        ]:
            self.assertEqual(prefix_key(pack_address(address), bits4, bits6), pack_address(network), (address, bits4, bits6))
        self.assertNotEqual(prefix_key(bytes(4), 0, 0), prefix_key(bytes(16), 0, 0))

    def test_mapped(self):
        """
        An IPv4 client on a dual-stack socket has the key of its IPv4 address, not one with all the others.
        """
        mapped = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 77])
        self.assertEqual(prefix_key(mapped, 32, 64), bytes([192, 0, 2, 77]))
        self.assertEqual(prefix_key(mapped, 24, 64), bytes([192, 0, 2, 0]))

    def test_unknown_client(self):
        """
        Clients without an address have one key in common.
        """
        self.assertEqual(prefix_key(b"", 24, 64), b"")

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.ip_addresses(), st.integers(0, 32), st.integers(0, 128))
    def test_agrees_with_the_standard_library(self, address, bits4, bits6):
        """
        The key is what `ipaddress` calls the network's address.
        """
        address = getattr(address, "ipv4_mapped", None) or address
        bits = bits4 if address.version == 4 else bits6
        self.assertEqual(prefix_key(address.packed, bits4, bits6), ip_network((address, bits), strict=False).network_address.packed)
