"""
Tests for a3sgw.wire.grpc.
"""

from __future__ import annotations

import base64

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.message import make_field
from a3sgw.wire.grpc import (
    GRPC,
    GRPC_WEB,
    GRPC_WEB_TEXT,
    HEALTH_STATES,
    SERVING,
    STATUS_NAMES,
    Base64Reader,
    FrameReader,
    code_for_status,
    encode_health_request,
    encode_message,
    frame,
    grpc_kind,
    parse_timeout,
    read_health_response,
    read_message,
    read_trailers,
    trailers_frame,
)


class WordsTests(SynchronousTestCase):
    """
    Content types, codes, messages and deadlines.
    """

    def test_kinds(self) -> None:
        """A content type says whether a request is gRPC, gRPC-Web, or neither."""
        cases = {
            b"application/grpc": GRPC,
            b"application/grpc+proto": GRPC,
            b"Application/gRPC; charset=x": GRPC,
            b"application/grpc-web": GRPC_WEB,
            b"application/grpc-web+proto": GRPC_WEB,
            b"application/grpc-web-text": GRPC_WEB_TEXT,
            b"application/grpc-web-text+proto": GRPC_WEB_TEXT,
            b"application/grpcish": b"",
            b"application/grpc-webby": b"",
            b"application/json": b"",
            b"": b"",
        }
        self.assertEqual({text: grpc_kind(text) for text in cases}, cases)

    def test_codes(self) -> None:
        """Each status that a gateway gives has the code that a gRPC client expects."""
        cases = {401: 16, 403: 7, 404: 12, 429: 8, 413: 8, 500: 13, 502: 14, 503: 14, 504: 4, 302: 2, 418: 2}
        self.assertEqual({status: code_for_status(status) for status in cases}, cases)
        self.assertEqual((STATUS_NAMES[4], STATUS_NAMES[14], STATUS_NAMES[16]), ("DEADLINE_EXCEEDED", "UNAVAILABLE", "UNAUTHENTICATED"))

    def test_timeouts(self) -> None:
        """A deadline is at most eight digits and a unit; anything else is none."""
        cases = {b"1H": 3600.0, b"2M": 120.0, b"3S": 3.0, b"250m": 0.25, b"5u": 5e-6, b"7n": 7e-9, b"99999999S": 99999999.0, b"0m": 0.0}
        self.assertEqual({text: parse_timeout(text) for text in cases}, cases)
        for text in (b"", b"S", b"1", b"1s", b"123456789S", b"-1S", b"1.5S", b" 1S", b"1S\n"):
            self.assertIsNone(parse_timeout(text), text)

    def test_messages(self) -> None:
        """A status message may be any text."""
        self.assertEqual(encode_message("50% of größe\n"), b"50%25 of gr%C3%B6%C3%9Fe%0A")
        for text in ("plain", "", "ä%\x00\r\n~", "日本"):
            self.assertEqual(read_message(encode_message(text)), text)
        self.assertEqual(read_message(b"100% %zz"), "100% %zz")


class FrameTests(SynchronousTestCase):
    """
    Messages with their lengths.
    """

    @given(st.lists(st.binary(max_size=20), max_size=4), st.integers(min_value=1, max_value=7))
    @settings(max_examples=50, deadline=None)
    def test_however_it_is_cut(self, messages: list[bytes], step: int) -> None:
        """Messages come out as they went in, whatever pieces they arrive in."""
        data = b"".join(frame(message, index & 1) for index, message in enumerate(messages))
        reader = FrameReader(100)
        found = [each for start in range(0, len(data), step) for each in reader.feed(data[start : start + step])]
        self.assertEqual(found, [(index & 1, message) for index, message in enumerate(messages)])
        self.assertTrue(reader.is_between_messages)

    def test_too_large(self) -> None:
        """A message that says it is too large is not waited for."""
        self.assertRaises(ValueError, FrameReader(10).feed, b"\0\0\0\0\x0b")
        reader = FrameReader(10)
        self.assertEqual(reader.feed(b"\0\0\0\0\x0a1"), [])
        self.assertFalse(reader.is_between_messages)


class HealthTests(SynchronousTestCase):
    """
    The health protocol.
    """

    def test_request(self) -> None:
        """The question is about a named service, or about the server as a whole."""
        self.assertEqual(encode_health_request(""), b"\0\0\0\0\0")
        self.assertEqual(encode_health_request("a.B"), b"\0\0\0\0\x05\x0a\x03a.B")
        self.assertEqual(encode_health_request("x" * 200)[5:9], b"\x0a\xc8\x01x")

    def test_response(self) -> None:
        """The answer is the state of the service; fields of later versions are passed over."""
        cases = {
            b"": 0,
            b"\x08\x01": SERVING,
            b"\x08\x02": 2,
            b"\x12\x02ab\x08\x01": SERVING,
            b"\x19" + bytes(8) + b"\x1d" + bytes(4) + b"\x08\x01": SERVING,
        }
        self.assertEqual({text: read_health_response(frame(text)) for text in cases}, cases)
        self.assertEqual(HEALTH_STATES[SERVING], "SERVING")

    def test_garbage(self) -> None:
        """What is no answer is told apart from one."""
        for data in (
            b"",
            b"\0\0\0\0",
            frame(b"\x08"),
            frame(b"\x08" + b"\xff" * 20),
            frame(b"\x12\x09a"),
            frame(b"\x0b"),
            frame(b"\x08\x01", 1),
            frame(b"\x08\x01") * 2,
        ):
            self.assertRaises(ValueError, read_health_response, data)


class WebTests(SynchronousTestCase):
    """
    gRPC-Web.
    """

    def test_trailers(self) -> None:
        """Trailers are the last message of the body, with lower-case names."""
        data = trailers_frame([make_field(b"Grpc-Status", b"5"), make_field(b"grpc-message", b"a: b")])
        self.assertEqual(data, b"\x80\0\0\0\x24grpc-status: 5\r\ngrpc-message: a: b\r\n")
        ((flags, message),) = FrameReader(100).feed(data)
        trailers = read_trailers(flags, message)
        assert trailers is not None
        self.assertEqual([(field.name, field.value) for field in trailers], [(b"grpc-status", b"5"), (b"grpc-message", b"a: b")])
        self.assertIsNone(read_trailers(1, b"message"))

    @given(st.lists(st.binary(max_size=10), max_size=4), st.integers(min_value=1, max_value=9))
    @settings(max_examples=50, deadline=None)
    def test_text(self, parts: list[bytes], step: int) -> None:
        """A text body may be several, each with its padding, in whatever pieces."""
        data = b"".join(base64.b64encode(part) for part in parts)
        reader = Base64Reader()
        found = b"".join(reader.feed(data[start : start + step]) for start in range(0, len(data), step))
        reader.end()
        self.assertEqual(found, b"".join(parts))

    def test_no_base64(self) -> None:
        """A text body that is no base64, or ends too early, is refused."""
        for data in (b"A===", b"AA=A", b"****", b"A\n=="):
            self.assertRaises(ValueError, Base64Reader().feed, data)
        reader = Base64Reader()
        self.assertEqual(reader.feed(b"AAA"), b"")
        self.assertRaises(ValueError, reader.end)
