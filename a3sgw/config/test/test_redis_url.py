"""
Tests of `a3sgw.config.redis_url`.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.redis_url import parse_redis_url


class RedisUrlTests(SynchronousTestCase):
    """
    Where a Redis is, and who we are there.
    """

    def parts(self, text):
        address = parse_redis_url(text)
        return (address.host, address.port, address.path, address.is_tls, address.db, address.user, address.password)

    def test_forms(self):
        """Every usual form is read."""
        for text, expected in [
            ("redis://a.test", ("a.test", 6379, "", False, 0, b"", b"")),
            ("REDIS://a.test/", ("a.test", 6379, "", False, 0, b"", b"")),
            ("redis://a.test:7000/3", ("a.test", 7000, "", False, 3, b"", b"")),
            ("redis://a.test?db=3", ("a.test", 6379, "", False, 3, b"", b"")),
            ("redis://a.test/?db=3\n", ("a.test", 6379, "", False, 3, b"", b"")),
            ("redis://127.0.0.1:7000", ("127.0.0.1", 7000, "", False, 0, b"", b"")),
            ("redis://[::1]", ("::1", 6379, "", False, 0, b"", b"")),
            ("rediss://:s3cret@[2001:db8::1]:7000/1", ("2001:db8::1", 7000, "", True, 1, b"", b"s3cret")),
            ("redis://me:s3cret@a.test", ("a.test", 6379, "", False, 0, b"me", b"s3cret")),
            ("redis://m%65:%2F%40%3A%C3%A9:@a.test", ("a.test", 6379, "", False, 0, b"me", "/@:é:".encode())),
            ("redis://:a%23b%3fc%25@a.test", ("a.test", 6379, "", False, 0, b"", b"a#b?c%")),
            ("unix:///run/redis.sock", ("", 0, "/run/redis.sock", False, 0, b"", b"")),
            ("unix://me:s3cret@/run/redis.sock?db=12", ("", 0, "/run/redis.sock", False, 12, b"me", b"s3cret")),
        ]:
            self.assertEqual(self.parts(text), expected, text)

    def test_shown(self):
        """An address can be shown: it says where, and keeps who to itself."""
        for text, shown in [
            ("redis://me:s3cret@a.test/3", "redis://a.test:6379"),
            ("rediss://:s3cret@[::1]:7000", "rediss://[::1]:7000"),
            ("unix://me:s3cret@/run/redis.sock", "unix:///run/redis.sock"),
        ]:
            self.assertEqual(str(parse_redis_url(text)), shown)
            self.assertNotIn("s3cret", repr(parse_redis_url(text)))
            self.assertNotIn("me", repr(parse_redis_url(text)))

    def test_refused(self):
        """What is no such URL is refused, with a reason that does not repeat it."""
        for text, reason in [
            ("hunter2", "which does not begin with redis://, rediss:// or unix://"),
            ("http://hunter2.test", "which does not begin with"),
            ("redis://", "which names no host"),
            ("redis:///3", "which names no host"),
            ("redis://hunter2 x", "whose host is not a valid name"),
            ("redis://hunter2:x", "whose port is not a number from 1 to 65535"),
            ("redis://hunter2:", "whose port is not a number"),
            ("redis://hunter2:65536", "whose port is not a number"),
            ("redis://::1", "which holds several colons"),
            ("redis://[::1", "whose bracket is not closed"),
            ("redis://a.test/hunter2", "whose database is no number"),
            ("redis://a.test/-1", "whose database is no number"),
            ("redis://a.test/1/2", "whose database is no number"),
            ("redis://a.test/1?db=2", "which names a database twice"),
            ("redis://a.test?timeout=hunter2", "whose query is something other than ?db=number"),
            ("redis://a.test?db=hunter2", "whose database is no number"),
            ("redis://hunter2@a.test", "which names a user without a password"),
            ("redis://hunter2:@a.test", "which names a user without a password"),
            ("redis://:hunt/er2@a.test", 'whose password holds "/" or "@"'),
            ("redis://:hunt@er2@a.test", 'whose password holds "/" or "@"'),
            ("redis://:hunt%er2@a.test", 'whose password holds "%"'),
            ("redis://:hunt#er2@a.test", 'which holds "#"'),
            ("unix://run/hunter2.sock", "which names no absolute socket path"),
            ("unix:///" + "hunter2" * 20, "whose socket path is longer than 107 bytes"),
        ]:
            error = self.assertRaises(ValueError, parse_redis_url, text)
            self.assertTrue(str(error).startswith(reason), (text, str(error)))
            self.assertNotIn("hunter2", str(error))

    @given(st.text(alphabet=":/?#@%[]ab1.", max_size=20), st.sampled_from(["redis://", "rediss://:", "unix://", ""]))
    @settings(max_examples=200, deadline=None)
    def test_any_text(self, text, scheme):
        """Whatever is written, it is either read or refused."""
        try:
            address = parse_redis_url(scheme + text)
        except ValueError as error:
            self.assertTrue(str(error).startswith("wh"), str(error))
        else:
            self.assertTrue(bool(address.host) is not bool(address.path))
