"""
Tests of the one field that says what a response depends on.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.message import Field, get_all_fields, make_field
from a3sgw.wire.vary import add_vary

CASES = settings(deadline=None, max_examples=100, derandomize=True)

BEFORE = make_field(b"X-A", b"1")
BEHIND = make_field(b"X-B", b"2")


def members(fields):
    """
    Return every name in `Vary`, in lower case, as RFC 9110 section 5.6.1 has a recipient read a list.
    """
    joined = b",".join(get_all_fields(fields, b"vary"))
    return [member.strip(b" \t").lower() for member in joined.split(b",") if member.strip(b" \t")]


class VaryTests(SynchronousTestCase):
    """
    `add_vary` adds one name.
    """

    def test_table(self):
        """A name is added once, to the last field there is, and never beside a star."""
        for before, after in [
            ([b""], [b"Origin"]),
            ([b","], [b"Origin"]),
            ([b"Accept"], [b"Accept, Origin"]),
            ([b"Accept,"], [b"Accept, Origin"]),
            ([b"Accept ,\t,"], [b"Accept, Origin"]),
            ([b"Accept", b"Cookie"], [b"Accept", b"Cookie, Origin"]),
            ([b"origin"], [b"origin"]),
            ([b"Accept , ORIGIN"], [b"Accept , ORIGIN"]),
            ([b"Origin", b"Cookie"], [b"Origin", b"Cookie"]),
            ([b"*"], [b"*"]),
            ([b"Accept, *"], [b"Accept, *"]),
            ([b"*", b"Accept"], [b"*", b"Accept"]),
            ([b"Origins"], [b"Origins, Origin"]),
            ([b"X-Origin, Origin-X"], [b"X-Origin, Origin-X, Origin"]),
        ]:
            fields = [BEFORE, *(make_field(b"Vary", value) for value in before), BEHIND]
            add_vary(fields, b"Origin")
            self.assertEqual(fields, [BEFORE, *(make_field(b"Vary", value) for value in after), BEHIND], before)

    def test_none(self):
        """A response that depended on nothing gets a new field."""
        fields = [BEFORE, BEHIND]
        add_vary(fields, b"Accept-Encoding")
        self.assertEqual(fields, [BEFORE, BEHIND, Field(b"vary", b"Accept-Encoding", b"Vary: Accept-Encoding")])

    def test_untouched(self):
        """Where nothing is to be added the line stays as the backend wrote it."""
        fields = [Field(b"vary", b"origin", b"vArY:origin")]
        add_vary(fields, b"Origin")
        self.assertEqual(fields, [Field(b"vary", b"origin", b"vArY:origin")])

    @CASES
    @given(
        st.lists(st.text(" ,\t*aBc-", max_size=12).map(lambda text: text.strip().encode()), max_size=3),
        st.lists(st.sampled_from([b"a", b"B", b"aB"])),
    )
    def test_any(self, before, tokens):
        """Whatever was there stays, in its order, and each name is there in the end, once if it was not before."""
        fields = [make_field(b"vary", value) for value in before]
        expected = members(fields)
        for token in tokens:
            add_vary(fields, token)
            if token.lower() not in expected and b"*" not in expected:
                expected.append(token.lower())
        self.assertEqual(members(fields), expected)
