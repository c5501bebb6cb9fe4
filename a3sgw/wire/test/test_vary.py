"""
Tests of the one field that says what a response depends on.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.message import get_all_fields, make_field
from a3sgw.wire.vary import add_vary


class VaryTests(SynchronousTestCase):
    """
    `add_vary` adds one name.
    """

    def test_table(self):
        """A name is added once, to the last field there is, and never beside a star."""
        for before, after in [
            ([], [b"Origin"]),
            ([b""], [b"Origin"]),
            ([b"Accept"], [b"Accept, Origin"]),
            ([b"Accept,"], [b"Accept, Origin"]),
            ([b"Accept", b"Cookie"], [b"Accept", b"Cookie, Origin"]),
            ([b"origin"], [b"origin"]),
            ([b"Accept , ORIGIN"], [b"Accept , ORIGIN"]),
            ([b"Origin", b"Cookie"], [b"Origin", b"Cookie"]),
            ([b"*"], [b"*"]),
            ([b"Accept, *"], [b"Accept, *"]),
            ([b"Origins"], [b"Origins, Origin"]),
        ]:
            fields = [make_field(b"X-A", b"1"), *(make_field(b"vary", value) for value in before), make_field(b"X-B", b"2")]
            add_vary(fields, b"Origin")
            self.assertEqual(get_all_fields(fields, b"vary"), after, before)
            self.assertEqual({field.name for field in fields}, {b"x-a", b"x-b", b"vary"})
