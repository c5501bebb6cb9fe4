"""
Tests of where the frames of a WebSocket end.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.wire.websocket import FrameBounds, accept_key, going_away, text_frame


def frame(payload, opcode=2, mask=b""):
    """
    Return a frame, masked if there is a mask, whose payload is not.
    """
    size = len(payload)
    bit = 0x80 if mask else 0
    if size < 126:
        length = bytes([bit | size])
    elif size < 65536:
        length = bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([bit | 127]) + size.to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + mask + payload


class GoingAwayTests(SynchronousTestCase):
    """
    What the gateway itself says when it ends.
    """

    def test_frames(self):
        """The close frame carries 1001, to a backend masked."""
        self.assertEqual(going_away(), b"\x88\x02\x03\xe9")
        self.assertEqual(going_away(b"\x01\x02\x03\x04"), b"\x88\x82\x01\x02\x03\x04\x02\xeb")


class ServerTests(SynchronousTestCase):
    """
    What a server says.
    """

    def test_accept(self):
        """The key of RFC 6455 section 1.3 is accepted as there."""
        self.assertEqual(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")

    def test_text(self):
        """A text message is one frame of its size, not masked."""
        for size in (0, 1, 125, 126, 65535, 65536):
            self.assertEqual(text_frame(b"x" * size), frame(b"x" * size, 1))


class BoundsTests(SynchronousTestCase):
    """
    Where frames end.
    """

    def test_sizes(self):
        """Every way to write a length is understood, masked and not, and every cut through a frame is in its middle."""
        for size in (0, 1, 125, 126, 127, 65535, 65536):
            for mask in (b"", b"abcd"):
                data = frame(bytes(size), mask=mask)
                for cut in {1, 2, 3, 5, 9, 11, 13, 15, len(data) // 2, len(data) - 1} & set(range(1, len(data))):
                    bounds = FrameBounds()
                    bounds.feed(data[:cut])
                    self.assertFalse(bounds.is_between, (size, mask, cut))
                    bounds.feed(data[cut:])
                    self.assertTrue(bounds.is_between, (size, mask, cut))

    def test_close(self):
        """Behind a close frame nothing may follow."""
        bounds = FrameBounds()
        self.assertTrue(bounds.is_between)
        bounds.feed(frame(b"x") + frame(b"\x03\xe8", 8))
        self.assertFalse(bounds.is_between)
        self.assertTrue(bounds.has_closed)
        bounds.feed(frame(b"more"))
        self.assertFalse(bounds.is_between)

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from([0, 1, 100, 125, 126, 300, 70_000]), st.booleans()), max_size=6),
        st.lists(st.integers(1, 40_000), max_size=30),
    )
    def test_any_cut(self, sizes, cuts):
        """However the network cuts the bytes, the bounds are found where the frames end."""
        frames = [frame(bytes(size), mask=b"abcd" if masked else b"") for size, masked in sizes]
        ends = {0}
        for each in frames:
            ends.add(max(ends) + len(each))
        data = b"".join(frames)
        bounds = FrameBounds()
        position = 0
        for cut in [*cuts, len(data) + 1]:
            piece = data[position : position + cut]
            bounds.feed(piece)
            position += len(piece)
            self.assertEqual(bounds.is_between, position in ends, (position, ends))
