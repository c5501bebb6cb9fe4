"""
Tests of the ring of servers.
"""

from bisect import bisect_right
from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.service.hash_ring import build_ring, hash_key
from a3sgw.service.test.servers import moved

KEYS = [hash_key(b"%d" % number) for number in range(4000)]


def place(urls, weights=None):
    """
    Return the server of each key.
    """
    points, owners = build_ring(urls, weights or [1] * len(urls))
    return [urls[owners[bisect_right(points, key) % len(points)]] for key in KEYS]


def names(count):
    """
    Return that many URLs.
    """
    return [f"http://10.0.0.{number}:8080" for number in range(count)]


class RingTests(SynchronousTestCase):
    """
    `build_ring` says where keys belong.
    """

    def test_key(self):
        """Keys lie in the same place in every process and on every machine."""
        self.assertEqual(hash_key(b"a"), 0x40F89E395B66422F)
        self.assertEqual(len(set(KEYS)), len(KEYS))

    def test_balance(self):
        """The parts of the ring that belong to each server are about the same."""
        for count in (2, 10, 100):
            points, owners = build_ring(names(count), [1] * count)
            shares = Counter()
            for point, owner, before in zip(points, owners, [points[-1] - 2**64, *points], strict=False):
                shares[owner] += (point - before) / 2**64
            self.assertApproximates(sum(shares.values()), 1, 1e-9)
            for share in shares.values():
                self.assertApproximates(share, 1 / count, 0.35 / count)

    def test_leaving(self):
        """When a server leaves, its keys go to several others and no other key moves."""
        urls = names(10)
        gone = urls[3]
        left, found = moved(place(urls), place([url for url in urls if url != gone]))
        self.assertEqual(set(left), {gone})
        self.assertEqual(len(found), 9)
        self.assertLess(left[gone], 1.4 * 4000 / 10)

    def test_coming(self):
        """When a server comes, it takes keys from several others and no other key moves."""
        left, found = moved(place(names(10)), place(names(11)))
        self.assertEqual(set(found), {names(11)[10]})
        self.assertEqual(len(left), 10)

    def test_order(self):
        """The order in the configuration does not matter."""
        urls = names(10)
        self.assertEqual(moved(place(urls), place(urls[::-1])), (Counter(), Counter()))

    def test_weights(self):
        """Servers have keys in proportion to their weights, whatever the unit; those of weight 0 have none."""
        urls = names(4)
        for unit in (1, 10, 250_000):
            shares = Counter(place(urls, [unit, 2 * unit, 0, 4 * unit]))
            self.assertEqual(shares[urls[2]], 0)
            for url, part in ((urls[0], 1 / 7), (urls[1], 2 / 7), (urls[3], 4 / 7)):
                self.assertApproximates(shares[url], 4000 * part, 4000 * 0.08, f"{unit} {url}")

    def test_changed_weight(self):
        """When a server's weight changes, keys move to it or from it only."""
        urls = names(10)
        before = place(urls)
        for weight, is_more in ((2, True), (0, False)):
            self.assertEqual(set(moved(before, place(urls, [1, 1, weight, *[1] * 7]))[is_more]), {urls[2]})

    def test_size(self):
        """The ring is not much larger for large weights, and nobody is left out."""
        for weights in ([1] * 20, [100] * 20, [1_000_000, *[1] * 19], list(range(1, 21))):
            points, owners = build_ring(names(20), weights)
            self.assertLessEqual(len(points), 20 * 257)
            self.assertEqual(set(owners), set(range(20)))
            self.assertEqual(list(points), sorted(points))

    def test_listed_twice(self):
        """A URL that is listed twice stands for two servers, and has twice the keys."""
        urls = names(3)
        _points, owners = build_ring([*urls, urls[0]], [1] * 4)
        self.assertEqual(Counter(owners), dict.fromkeys(range(4), 128))
        shares = Counter(place([*urls, urls[0]]))
        self.assertApproximates(shares[urls[0]], 2000, 400)
