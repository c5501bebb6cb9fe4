"""
Tests of requests and answers as plain values.
"""

import json

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import Outcome
from a3sgw.message import LocalResponse, RequestHead, make_field
from a3sgw.workers.crossing import pack_head, pack_response, unpack_head, unpack_response


def crossed(value):
    return json.loads(json.dumps(value))


class CrossingTests(SynchronousTestCase):
    """
    Nothing is lost on the way.
    """

    def test_head(self):
        """Everything that a head says is said on the other side, whatever bytes there are."""
        head = RequestHead(b"GET", b"/a?b=\xff")
        values = {bytes: b"\xe9\0text", bool: True, int: 42}
        for name in RequestHead.__slots__:
            setattr(head, name, values.get(getattr(head, name).__class__))
        head.fields = [make_field(b"X-One", b"\xff"), make_field(b"x-one", b"2")]
        head.forwarded = (make_field(b"Forwarded", b"for=x"),)
        head.nominated = frozenset([b"te", b"x-hop"])
        got = unpack_head(crossed(pack_head(head)))
        for name in RequestHead.__slots__:
            expected = getattr(head, name)
            self.assertEqual(getattr(got, name), list(expected) if name == "forwarded" else expected, name)
        self.assertEqual(got.fields[0].name, b"x-one")

    def test_response(self):
        """So for answers, with and without an outcome."""
        for outcome in (None, Outcome.NO_ROUTE):
            response = LocalResponse(404, [make_field(b"A", b"\xff")], b"\0body", outcome)
            got = unpack_response(crossed(pack_response(response)), response.body)
            self.assertEqual((got.status, got.fields, got.body, got.outcome), (404, response.fields, b"\0body", outcome))
