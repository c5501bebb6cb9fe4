"""
Tests of the names of requests.
"""

import uuid

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.wire.request_id import is_own, is_usable, new_request_id, ulid, uuid4, uuid7

FULL = (1 << 128) - 1


class OwnTests(SynchronousTestCase):
    """
    The gateway's own identifiers.
    """

    def test_never_twice(self):
        """They are hexadecimal, of one length, and none comes twice."""
        made = [new_request_id() for _ in range(100)]
        self.assertEqual(len(set(made)), 100)
        for each in made:
            self.assertEqual(len(each), 22)
            int(each, 16)
            self.assertTrue(is_usable(each))

    def test_own(self):
        """They are told from what others made."""
        self.assertTrue(is_own(new_request_id()))
        for other in (b"", b"r-1", b"0" * 22, uuid4(5)):
            self.assertFalse(is_own(other))

    def test_usable(self):
        """What a client sends is taken over if it is a token of reasonable length."""
        for good in (b"1", b"a.b_c-d~", b"x" * 128):
            self.assertTrue(is_usable(good), good)
        for bad in (b"", b"x" * 129, b"a b", b'a"b', b"a,b", b"a\tb", b"\xc3\xa9", b"a\r\nb"):
            self.assertFalse(is_usable(bad), bad)


class FormTests(SynchronousTestCase):
    """
    The forms that other tools know.
    """

    def test_known(self):
        """Each form is what its definition says, at both ends of its range."""
        for made, text in [
            (uuid4(0), b"00000000-0000-4000-8000-000000000000"),
            (uuid4(FULL), b"ffffffff-ffff-4fff-bfff-ffffffffffff"),
            # The example of RFC 9562 appendix A.6.
            (uuid7(0x017F22E279B0, 0xCC3 << 62 | 0x18C4DC0C0C07398F), b"017f22e2-79b0-7cc3-98c4-dc0c0c07398f"),
            (uuid7(0, 0), b"00000000-0000-7000-8000-000000000000"),
            (uuid7(FULL, FULL), b"ffffffff-ffff-7fff-bfff-ffffffffffff"),
            # The example of the ULID specification has this time.
            (ulid(1469918176385, 0), b"01ARYZ6S410000000000000000"),
            (ulid(0, 31), b"0000000000000000000000000Z"),
            (ulid(FULL, FULL), b"7ZZZZZZZZZZZZZZZZZZZZZZZZZ"),
        ]:
            self.assertEqual(made, text)

    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, (1 << 48) - 1), st.integers(0, (1 << 48) - 1), st.integers(0, FULL), st.integers(0, FULL))
    def test_order(self, one, other, chance, more_chance):
        """Those that bear a time sort by it, whatever chance adds."""
        for form in (uuid7, ulid):
            made = [form(one, chance), form(other, more_chance)]
            if one != other:
                self.assertEqual(made[0] < made[1], one < other)
        self.assertEqual((uuid.UUID(uuid7(one, chance).decode()).version, uuid.UUID(uuid4(chance).decode()).version), (7, 4))
