"""
What a server must refuse: a case for each requirement of RFC 9113 and RFC 7541, in the order of their sections.

Each begins after both sides have exchanged their settings, unless it says how a connection begins. `OPEN` is a request on stream 1 whose
body is still to come, `ASKED` one without.
"""

from __future__ import annotations

import attrs

from a3sgw.wire.http2 import PREFACE, ErrorCode
from a3sgw.wire.test.http2_peer import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)

__all__ = ["RULES", "Rule", "block"]

COMPRESSION = ErrorCode.COMPRESSION_ERROR
FLOW = ErrorCode.FLOW_CONTROL_ERROR
PROTOCOL = ErrorCode.PROTOCOL_ERROR
REFUSED = ErrorCode.REFUSED_STREAM
SIZE = ErrorCode.FRAME_SIZE_ERROR
CLOSED = ErrorCode.STREAM_CLOSED

CONNECTION = "connection"
STREAM = "stream"
FINE = "fine"


def block(*fields):
    """
    Return a header block of literals that leave nothing in the table.
    """
    return b"".join(b"\0%c%b%c%b" % (len(name), name, len(value), value) for name, value in fields)


METHOD, SCHEME, AUTHORITY, PATH = (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a.test"), (b":path", b"/")
POST = (METHOD, SCHEME, AUTHORITY, PATH)
HEAD = block(*POST)


def ask(*fields, stream=1, ended=True):
    """
    Return a request with exactly these fields.
    """
    return frame(HEADERS, END_HEADERS | (END_STREAM if ended else 0), stream, block(*fields))


def more(*fields):
    """
    Return a request with these fields behind the usual ones.
    """
    return ask(*POST, *fields)


OPEN = frame(HEADERS, END_HEADERS, 1, HEAD)
ASKED = frame(HEADERS, END_HEADERS | END_STREAM, 1, HEAD)
RESET = frame(RST_STREAM, 0, 1, (8).to_bytes(4, "big"))


def setting(number, value):
    """
    Return a SETTINGS frame with one setting.
    """
    return frame(SETTINGS, 0, 0, number.to_bytes(2, "big") + value.to_bytes(4, "big"))


def window(stream, increment):
    """
    Return a WINDOW_UPDATE frame.
    """
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def hpack(data):
    """
    Return a request whose header block ends with `data`.
    """
    return frame(HEADERS, END_HEADERS | END_STREAM, 1, HEAD + data)


@attrs.frozen
class Rule:
    """
    `data` breaks the requirement `about` of `section`, and costs the `scope`, with one of `codes`. With `is_beginning` it is the first that
    the client says.
    """

    section: str
    about: str
    data: bytes
    scope: str
    codes: tuple[ErrorCode, ...] = ()
    is_beginning: bool = False


def _rules(section, scope, codes, *cases):
    codes = codes if isinstance(codes, tuple) else (codes,)
    return [Rule(section, about, data, scope, codes) for about, data in cases]


RULES = [
    Rule("9113 3.4", "a wrong preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r!", CONNECTION, (PROTOCOL,), True),
    Rule("9113 3.4", "no SETTINGS first", PREFACE + frame(PING, 0, 0, bytes(8)), CONNECTION, (PROTOCOL,), True),
    Rule("9113 3.4", "SETTINGS that acknowledge first", PREFACE + frame(SETTINGS, ACK, 0), CONNECTION, (PROTOCOL,), True),
    *_rules(
        "9113 4.1",
        FINE,
        (),
        ("an unknown frame is ignored", frame(0xAB, 0, 0, b"abc") + frame(0xAB, 0, 1, b"abc")),
        ("unknown flags are ignored", frame(PING, 0xFE, 0, bytes(8))),
        ("the reserved bit is ignored", frame(PING, 0, 1 << 31, bytes(8))),
    ),
    *_rules(
        "9113 4.2",
        CONNECTION,
        SIZE,
        ("too large HEADERS", frame(HEADERS, END_HEADERS | END_STREAM, 1, bytes(16385))),
        ("too large SETTINGS", frame(SETTINGS, 0, 0, bytes(16386))),
        ("too large DATA", OPEN + frame(DATA, 0, 1, bytes(16385))),
        ("too large unknown frame", frame(0xAB, 0, 0, bytes(16385))),
    ),
    *_rules(
        "9113 4.3",
        CONNECTION,
        COMPRESSION,
        ("a header block that means nothing", frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff")),
        ("a header block that breaks off", frame(HEADERS, END_HEADERS | END_STREAM, 1, HEAD[:-1])),
    ),
    *_rules(
        "9113 4.3",
        CONNECTION,
        PROTOCOL,
        ("another frame within a header block", frame(HEADERS, END_STREAM, 1, HEAD) + frame(PRIORITY, 0, 1, bytes(5))),
        ("another stream within a header block", frame(HEADERS, END_STREAM, 1, HEAD) + ask(*POST, stream=3)),
        ("another stream's CONTINUATION", frame(HEADERS, END_STREAM, 1, HEAD) + frame(CONTINUATION, END_HEADERS, 3, HEAD)),
        ("an unknown frame within a header block", frame(HEADERS, END_STREAM, 1, HEAD) + frame(0xAB, 0, 1, b"")),
    ),
    *_rules(
        "9113 5.1",
        CONNECTION,
        PROTOCOL,
        ("DATA on an idle stream", frame(DATA, END_STREAM, 1, b"a")),
        ("RST_STREAM on an idle stream", RESET),
        ("WINDOW_UPDATE on an idle stream", window(1, 1)),
        ("CONTINUATION on an idle stream", frame(CONTINUATION, END_HEADERS, 1, HEAD)),
    ),
    *_rules(
        "9113 5.1",
        CONNECTION,
        CLOSED,
        ("DATA on a half-closed stream", ASKED + frame(DATA, END_STREAM, 1, b"a")),
        ("HEADERS on a half-closed stream", ASKED + ASKED),
    ),
    *_rules(
        "9113 5.1",
        FINE,
        (),
        ("PRIORITY on an idle stream", frame(PRIORITY, 0, 7, bytes(4) + b"\x10")),
        ("WINDOW_UPDATE on a half-closed stream", ASKED + window(1, 1)),
        ("RST_STREAM on a closed stream", ASKED + RESET + RESET),
        ("WINDOW_UPDATE on a closed stream", ASKED + RESET + window(1, 1)),
    ),
    *_rules(
        "9113 5.1.1",
        CONNECTION,
        PROTOCOL,
        ("a stream with an even number", ask(*POST, stream=2)),
    ),
    *_rules(
        "9113 5.1.1",
        CONNECTION,
        (PROTOCOL, CLOSED),
        ("a stream with a smaller number", ask(*POST, stream=5) + ask(*POST, stream=3)),
    ),
    *_rules(
        "9113 5.1.2",
        CONNECTION,
        (PROTOCOL, REFUSED),
        ("more streams than allowed", b"".join(ask(*POST, stream=2 * number + 1, ended=False) for number in range(4))),
    ),
    *_rules(
        "9113 6.1",
        CONNECTION,
        PROTOCOL,
        ("DATA on stream 0", OPEN + frame(DATA, 0, 0, b"a")),
        ("padding longer than DATA", OPEN + frame(DATA, PADDED, 1, b"\x05abcd")),
    ),
    *_rules("9113 6.1", CONNECTION, (SIZE, PROTOCOL), ("DATA without the length of its padding", OPEN + frame(DATA, PADDED, 1, b""))),
    *_rules(
        "9113 6.2",
        CONNECTION,
        PROTOCOL,
        ("HEADERS on stream 0", ask(*POST, stream=0)),
        ("padding longer than HEADERS", frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, b"\xff" + HEAD)),
    ),
    *_rules("9113 6.2", CONNECTION, (SIZE, PROTOCOL), ("HEADERS without room for a priority", frame(HEADERS, 0x25, 1, bytes(4)))),
    *_rules("9113 6.3", CONNECTION, PROTOCOL, ("PRIORITY on stream 0", frame(PRIORITY, 0, 0, bytes(5)))),
    *_rules("9113 6.3", CONNECTION, SIZE, ("PRIORITY of a wrong length", OPEN + frame(PRIORITY, 0, 1, bytes(4)))),
    *_rules("9113 6.4", CONNECTION, PROTOCOL, ("RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, bytes(4)))),
    *_rules("9113 6.4", CONNECTION, SIZE, ("RST_STREAM of a wrong length", OPEN + frame(RST_STREAM, 0, 1, bytes(3)))),
    *_rules(
        "9113 6.5",
        CONNECTION,
        SIZE,
        ("SETTINGS that acknowledge and set", frame(SETTINGS, ACK, 0, bytes(6))),
        ("SETTINGS of a wrong length", frame(SETTINGS, 0, 0, bytes(3))),
    ),
    *_rules("9113 6.5", CONNECTION, PROTOCOL, ("SETTINGS on a stream", OPEN + frame(SETTINGS, 0, 1))),
    *_rules(
        "9113 6.5.2",
        CONNECTION,
        PROTOCOL,
        ("ENABLE_PUSH of 2", setting(2, 2)),
        ("MAX_FRAME_SIZE below 16384", setting(5, 16383)),
        ("MAX_FRAME_SIZE above 16777215", setting(5, 1 << 24)),
    ),
    *_rules("9113 6.5.2", CONNECTION, FLOW, ("INITIAL_WINDOW_SIZE above 2147483647", setting(4, 1 << 31))),
    *_rules("9113 6.5.2", FINE, (), ("an unknown setting is ignored", setting(0xABCD, 7))),
    *_rules(
        "9113 6.6",
        CONNECTION,
        PROTOCOL,
        ("PUSH_PROMISE by a client", OPEN + frame(PUSH_PROMISE, END_HEADERS, 1, (2).to_bytes(4, "big") + HEAD)),
    ),
    *_rules("9113 6.7", CONNECTION, PROTOCOL, ("PING on a stream", OPEN + frame(PING, 0, 1, bytes(8)))),
    *_rules("9113 6.7", CONNECTION, SIZE, ("PING of a wrong length", frame(PING, 0, 0, bytes(6)))),
    *_rules("9113 6.7", FINE, (), ("an answer to no PING is ignored", frame(PING, ACK, 0, bytes(8)))),
    *_rules("9113 6.8", CONNECTION, PROTOCOL, ("GOAWAY on a stream", OPEN + frame(GOAWAY, 0, 1, bytes(8)))),
    *_rules("9113 6.8", CONNECTION, SIZE, ("GOAWAY of a wrong length", frame(GOAWAY, 0, 0, bytes(7)))),
    *_rules("9113 6.9", CONNECTION, PROTOCOL, ("a WINDOW_UPDATE of 0 for the connection", window(0, 0))),
    *_rules("9113 6.9", CONNECTION, SIZE, ("WINDOW_UPDATE of a wrong length", frame(WINDOW_UPDATE, 0, 0, bytes(3)))),
    # Errors of a stream, which may be made errors of the connection (section 5.4.1): who provokes them has nothing good in mind.
    *_rules("9113 6.9", CONNECTION, PROTOCOL, ("a WINDOW_UPDATE of 0 for a stream", OPEN + window(1, 0))),
    *_rules("9113 6.9.1", CONNECTION, FLOW, ("a window of the connection beyond 2147483647", window(0, (1 << 31) - 1))),
    *_rules("9113 6.9.1", CONNECTION, FLOW, ("a window of a stream beyond 2147483647", OPEN + window(1, (1 << 31) - 1))),
    *_rules(
        "9113 6.9.1",
        CONNECTION,
        FLOW,
        ("more DATA than the window of a stream", OPEN + frame(DATA, 0, 1, bytes(16384)) * 20),
        ("more DATA than the window of the connection", OPEN + (frame(DATA, 0, 1, bytes(16384)) * 4) * 20),
    ),
    *_rules(
        "9113 6.9.2",
        CONNECTION,
        FLOW,
        ("a setting that makes a window too large", OPEN + window(1, 1 << 30) + setting(4, (1 << 31) - 1)),
    ),
    *_rules(
        "9113 6.10",
        CONNECTION,
        PROTOCOL,
        ("CONTINUATION on stream 0", frame(HEADERS, END_STREAM, 1, HEAD) + frame(CONTINUATION, END_HEADERS, 0)),
        ("CONTINUATION behind a whole header block", ASKED + frame(CONTINUATION, END_HEADERS, 1, HEAD)),
        ("CONTINUATION behind DATA", OPEN + frame(DATA, 0, 1, b"a") + frame(CONTINUATION, END_HEADERS, 1, HEAD)),
    ),
    *_rules(
        "9113 7",
        FINE,
        (),
        ("RST_STREAM with an unknown error", OPEN + frame(RST_STREAM, 0, 1, b"\xff\xff\xff\xff")),
        ("GOAWAY with an unknown error", OPEN + frame(GOAWAY, 0, 0, bytes(4) + b"\xff\xff\xff\xff")),
    ),
    *_rules(
        "9113 8.1",
        STREAM,
        PROTOCOL,
        ("trailers that do not end the request", OPEN + frame(HEADERS, END_HEADERS, 1, block((b"x", b"y")))),
    ),
    *_rules(
        "9113 8.1.1",
        STREAM,
        PROTOCOL,
        ("less than its Content-Length", ask(*POST, (b"content-length", b"2"), ended=False) + frame(DATA, END_STREAM, 1, b"a")),
        ("more than its Content-Length", ask(*POST, (b"content-length", b"1"), ended=False) + frame(DATA, END_STREAM, 1, b"ab")),
        (
            "a Content-Length that the parts do not add up to",
            ask(*POST, (b"content-length", b"3"), ended=False) + frame(DATA, 0, 1, b"a") + frame(DATA, END_STREAM, 1, b"b"),
        ),
        ("a Content-Length without a body", more((b"content-length", b"1"))),
        (
            "a Content-Length and only trailers",
            ask(*POST, (b"content-length", b"1"), ended=False) + frame(HEADERS, END_HEADERS | END_STREAM, 1, block((b"x", b"y"))),
        ),
        ("a Content-Length that is no number", more((b"content-length", b"+1"))),
        ("two that differ", more((b"content-length", b"0"), (b"content-length", b"1"))),
    ),
    *_rules(
        "9113 8.2.1",
        STREAM,
        PROTOCOL,
        ("a name in upper case", more((b"X-A", b"b"))),
        ("an empty name", more((b"", b"b"))),
        ("a name with a blank", more((b"x a", b"b"))),
        ("a name with a colon", more((b"x:a", b"b"))),
        ("a name with DEL", more((b"x\x7f", b"b"))),
        ("a name with obs-text", more((b"x\xe4", b"b"))),
        ("a value with NUL", more((b"x-a", b"b\0c"))),
        ("a value with CR", more((b"x-a", b"b\rc"))),
        ("a value with LF", more((b"x-a", b"b\nc"))),
        ("a value with a line break", more((b"x-a", b"b\r\nX-B: c"))),
        ("a value that begins with a blank", more((b"x-a", b" b"))),
        ("a value that ends with a tab", more((b"x-a", b"b\t"))),
    ),
    *_rules(
        "9113 8.2.2",
        STREAM,
        PROTOCOL,
        ("Connection", more((b"connection", b"keep-alive"))),
        ("Keep-Alive", more((b"keep-alive", b"timeout=5"))),
        ("Proxy-Connection", more((b"proxy-connection", b"keep-alive"))),
        ("Transfer-Encoding", more((b"transfer-encoding", b"chunked"))),
        ("Upgrade", more((b"upgrade", b"websocket"))),
        ("TE with anything but trailers", more((b"te", b"trailers, deflate"))),
    ),
    *_rules(
        "9113 8.3",
        STREAM,
        PROTOCOL,
        ("an unknown pseudo-header field", ask(*POST, (b":test", b"ok"))),
        ("a pseudo-header field of responses", ask(*POST, (b":status", b"200"))),
        ("a pseudo-header field behind others", ask(*POST[:3], (b"x-a", b"b"), PATH)),
        ("a pseudo-header field in trailers", OPEN + frame(HEADERS, END_HEADERS | END_STREAM, 1, block(METHOD))),
    ),
    *_rules(
        "9113 8.3.1",
        STREAM,
        PROTOCOL,
        ("no :method", ask(SCHEME, AUTHORITY, PATH)),
        ("no :scheme", ask(METHOD, AUTHORITY, PATH)),
        ("no :path", ask(METHOD, SCHEME, AUTHORITY)),
        ("no :authority and no Host", ask(METHOD, SCHEME, PATH)),
        ("two :method", ask(METHOD, *POST)),
        ("two :scheme", ask(SCHEME, *POST)),
        ("two :path", ask(PATH, *POST)),
        ("two :authority", ask(AUTHORITY, *POST)),
        ("an empty :path", ask(METHOD, SCHEME, AUTHORITY, (b":path", b""))),
        ("an empty :method", ask((b":method", b""), SCHEME, AUTHORITY, PATH)),
        ("an empty :authority", ask(METHOD, SCHEME, (b":authority", b""), PATH)),
        ("a :path that does not begin with a slash", ask(METHOD, SCHEME, AUTHORITY, (b":path", b"a"))),
        ("a :path of * for anything but OPTIONS", ask(METHOD, SCHEME, AUTHORITY, (b":path", b"*"))),
        ("a :path with a blank", ask(METHOD, SCHEME, AUTHORITY, (b":path", b"/a b"))),
        ("a :path with a line break", ask(METHOD, SCHEME, AUTHORITY, (b":path", b"/a\r\nb"))),
        ("an :authority with a blank", ask(METHOD, SCHEME, (b":authority", b"a b"), PATH)),
        ("an :authority with a user", ask(METHOD, SCHEME, (b":authority", b"u@a.test"), PATH)),
        ("a :method with a blank", ask((b":method", b"GET /"), SCHEME, AUTHORITY, PATH)),
        ("two Host", ask(METHOD, SCHEME, PATH, (b"host", b"a"), (b"host", b"a"))),
    ),
    *_rules(
        "9113 8.5",
        STREAM,
        PROTOCOL,
        ("CONNECT with :path", ask((b":method", b"CONNECT"), SCHEME, AUTHORITY, PATH)),
        ("CONNECT without :authority", ask((b":method", b"CONNECT"))),
    ),
    *_rules(
        "8441 3",
        STREAM,
        PROTOCOL,
        (":protocol that was not allowed", ask((b":method", b"CONNECT"), (b":protocol", b"websocket"), *POST[1:])),
    ),
    *_rules(
        "7541 2.3.3",
        CONNECTION,
        COMPRESSION,
        ("an index of nothing", hpack(b"\xc6")),
        ("a name by an index of nothing", hpack(b"\x7e\x01a")),
        ("an index beyond all numbers", hpack(b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f")),
    ),
    *_rules(
        "7541 4.2",
        CONNECTION,
        COMPRESSION,
        ("a size update at the end", hpack(b"\x20")),
        ("a size update in the middle", hpack(b"\x20\x82")),
    ),
    *_rules(
        "7541 5.2",
        CONNECTION,
        COMPRESSION,
        ("padding of Huffman codes longer than 7 bits", hpack(b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff")),
        ("padding of Huffman codes with zeros", hpack(b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90")),
        ("Huffman codes with EOS", hpack(b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f")),
        ("a string longer than the block", hpack(b"\x00\x01a\x7f\x05b")),
    ),
    *_rules("7541 6.1", CONNECTION, COMPRESSION, ("index 0", hpack(b"\x80"))),
    *_rules(
        "7541 6.3",
        CONNECTION,
        COMPRESSION,
        ("a size update beyond the limit", frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x3f\xe2\x1f" + HEAD)),
    ),
    *_rules(
        "9113",
        FINE,
        (),
        ("a request without body", ASKED),
        ("a padded request", frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, b"\x03" + HEAD + bytes(3))),
        ("a request with a priority", frame(HEADERS, END_HEADERS | END_STREAM | PRIORITISED, 1, bytes(4) + b"\x10" + HEAD)),
        ("a request in pieces", frame(HEADERS, END_STREAM, 1, HEAD[:9]) + frame(CONTINUATION, END_HEADERS, 1, HEAD[9:])),
        ("a size update at the beginning", frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x20" + HEAD)),
        ("TE with trailers", more((b"te", b"trailers"))),
        ("OPTIONS *", ask((b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*"))),
    ),
]
