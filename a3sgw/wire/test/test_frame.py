"""
Tests of the frames between processes.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.wire.frame import Frame, FrameReader, encode_frame

MESSAGES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FRAMES = st.lists(st.builds(Frame, MESSAGES, st.binary(max_size=40), st.integers(0, 5)), max_size=5)


class FrameTests(SynchronousTestCase):
    """
    What was said is heard.
    """

    @given(FRAMES, st.integers(1, 50))
    def test_any_pieces(self, frames, size):
        """Frames arrive as they were sent, however they were cut."""
        wire = b"".join(encode_frame(*frame) for frame in frames)
        reader = FrameReader()
        heard = [frame for start in range(0, len(wire), size) for frame in reader.feed(wire[start : start + size])]
        self.assertEqual(heard, frames)

    def test_all_at_once(self):
        """Several frames in one piece come out together, and what is not whole waits."""
        one, other = encode_frame(["a"]), encode_frame(["b", {"x": 1.5}], b"\0" * 100_000, 3)
        reader = FrameReader()
        self.assertEqual(reader.feed(one + other[:-1]), [Frame(["a"], b"", 0)])
        self.assertEqual(reader.feed(other[-1:]), [Frame(["b", {"x": 1.5}], b"\0" * 100_000, 3)])

    def test_plain_values_only(self):
        """What is no JSON is refused by the sender."""
        self.assertRaises(TypeError, encode_frame, [b"bytes"])
