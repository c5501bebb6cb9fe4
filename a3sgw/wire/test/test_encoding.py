"""
Tests of content codings, decoded by those who did not make them.
"""

import gzip
import zlib

import brotli
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.wire.encoding import ENCODINGS, choose_encoding, is_compressible, make_encoder, weaken_etag


def decode(name, data):
    """
    Decode a whole body; fail if it is not complete.
    """
    if name == b"gzip":
        return gzip.decompress(data)
    if name == b"deflate":
        return zlib.decompress(data)
    if name == b"br":
        return brotli.decompress(data)
    reader = zstandard.ZstdDecompressor().decompressobj()
    found = reader.decompress(data)
    assert reader.eof, "the frame is not complete"
    return found


def decode_so_far(name, data):
    """
    Decode as much as can be decoded of a body that goes on.
    """
    if name in (b"gzip", b"deflate"):
        return zlib.decompressobj(47).decompress(data)
    if name == b"br":
        return brotli.Decompressor().process(data)
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


class EncoderTests(SynchronousTestCase):
    """
    What goes in comes out.
    """

    @settings(deadline=None, max_examples=60)
    @given(st.sampled_from(ENCODINGS), st.integers(1, 9), st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=8))
    def test_round_trip(self, name, level, pieces):
        """A body is the same again however it was cut and flushed, at every level."""
        encoder = make_encoder(name, level)
        made = b"".join([encoder.feed(piece, flush) for piece, flush in pieces if piece]) + encoder.end()
        self.assertEqual(decode(name, made), b"".join(piece for piece, _ in pieces))

    def test_large(self):
        """A large body gets much smaller."""
        body = b"".join(b'{"number": %d, "text": "some words that come again"}\n' % number for number in range(20_000))
        for name in ENCODINGS:
            encoder = make_encoder(name, 6)
            made = b"".join([encoder.feed(body[at : at + 16384]) for at in range(0, len(body), 16384)]) + encoder.end()
            self.assertEqual(decode(name, made), body)
            self.assertLess(len(made), len(body) / 5, name)

    def test_flush(self):
        """After a flush everything that was fed can be read, although the body goes on."""
        for name in ENCODINGS:
            encoder = make_encoder(name, 6)
            made = b""
            for number in range(1, 5):
                made += encoder.feed(b"data: %d\n\n" % number, flush=True)
                self.assertEqual(decode_so_far(name, made), b"".join(b"data: %d\n\n" % each for each in range(1, number + 1)), name)
            self.assertEqual(decode(name, made + encoder.end()).count(b"data"), 4)

    def test_same_bytes(self):
        """The same body gives the same bytes, whatever the time is."""
        for name in ENCODINGS:
            one, other = (make_encoder(name, 5) for _ in range(2))
            self.assertEqual(one.feed(b"a" * 99) + one.end(), other.feed(b"a" * 99) + other.end())


class ChooseTests(SynchronousTestCase):
    """
    `choose_encoding` reads what clients accept.
    """

    def test_table(self):
        """Weights decide, then our order; what is excluded or unknown is not used."""
        for accepted, chosen in [
            (None, None),
            (b"", None),
            (b"identity", None),
            (b"gzip", b"gzip"),
            (b"GZip", b"gzip"),
            (b"x-gzip", b"gzip"),
            (b"gzip, br", b"br"),
            (b"gzip, deflate, br, zstd", b"br"),
            (b"gzip;q=1.0, br;q=0.9", b"gzip"),
            (b"gzip ; q=0.5 , deflate", b"deflate"),
            (b"br;q=0, gzip", b"gzip"),
            (b"br;q=0.0, gzip;q=0.000", None),
            (b"*", b"br"),
            (b"*;q=0", None),
            (b"*;q=0, gzip", b"gzip"),
            (b"br;q=0, *", b"zstd"),
            (b"gzip;q=0.5, *;q=0.2", b"gzip"),
            (b"identity, gzip;q=0.5", None),
            (b"identity;q=0.5, gzip", b"gzip"),
            (b"gzip;q=1.001", None),
            (b"gzip;q=2", None),
            (b"gzip;q=-1", None),
            (b"gzip;q=0.1234", None),
            (b"gzip;q=", None),
            (b"gzip;x=1", None),
            (b"gzip deflate", None),
            (b",,gzip,,", b"gzip"),
            (b"gzip;q=0, gzip", None),
            (b"compress, pack200-gzip", None),
            (b"br\x00, gzip", b"gzip"),
        ]:
            self.assertEqual(choose_encoding(accepted, ENCODINGS), chosen, accepted)

    def test_offered(self):
        """Nothing is chosen but what is offered, in the order offered."""
        self.assertEqual(choose_encoding(b"br, gzip, zstd", (b"gzip", b"br")), b"gzip")
        self.assertIsNone(choose_encoding(b"br", (b"gzip",)))
        self.assertIsNone(choose_encoding(b"*", ()))

    def test_hostile(self):
        """A header of ten thousand members is read like any other."""
        self.assertEqual(choose_encoding(b"a;q=0.1," * 10_000 + b"gzip", ENCODINGS), b"gzip")
        self.assertIsNone(choose_encoding(b";q=" * 20_000, ENCODINGS))

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=60))
    def test_any_bytes(self, value):
        """Whatever a client sends, the answer is one of those offered, or none, and the same each time."""
        chosen = choose_encoding(value, ENCODINGS)
        self.assertIn(chosen, (None, *ENCODINGS))
        self.assertEqual(choose_encoding(value, ENCODINGS), chosen)


class TypeTests(SynchronousTestCase):
    """
    Types and tags.
    """

    def test_types(self):
        """Text in all its forms is worth encoding; pictures, sound and archives are not."""
        texts = (b"text/plain", b"TEXT/HTML; charset=x", b"application/json", b"application/ld+json", b"image/svg+xml", b"application/wasm")
        for value in texts:
            self.assertTrue(is_compressible(value), value)
        for value in (b"", b"image/png", b"video/mp4", b"application/octet-stream", b"application/zip", b"font/woff2; x=json"):
            self.assertFalse(is_compressible(value), value)

    def test_tags(self):
        """A strong tag becomes weak, everything else stays."""
        for before, after in [(b'"a"', b'W/"a"'), (b'W/"a"', b'W/"a"'), (b"odd", b"odd"), (b"", b"")]:
            self.assertEqual(weaken_etag(before), after)
