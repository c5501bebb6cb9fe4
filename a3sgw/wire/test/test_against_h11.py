"""
Compare the readers of `a3sgw.wire.http1` with `h11`, an independent implementation.

Messages are drawn from a small grammar in which any part may be slightly wrong, one or two at a time. Whatever we accept, h11 must
accept too, and see the same method, target or status, and the same body, trailers and end. What we refuse is our own affair: we are
meant to be the stricter of the two.
"""

import h11
from hypothesis import event, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import DownstreamError, UpstreamError
from a3sgw.wire.fields import FORBIDDEN_TRAILERS
from a3sgw.wire.http1 import UNTIL_CLOSE, RequestLimits, read_request_head, read_response_head, request_body_reader, response_body_reader

CASES = settings(deadline=None, max_examples=600, derandomize=True)


def words(text):
    """
    Return the blank-separated words of a text as bytes: escapes are Python's, `~` is a blank, `-` nothing.
    """
    unescaped = [word.encode("ascii").decode("unicode_escape").encode("latin-1") for word in text.split()]
    return [b"" if word == b"-" else word.replace(b"~", b" ") for word in unescaped]


def flawed(slots, most_flaws=2):
    """
    Return messages out of `slots`, each a pair of good and of bad words, with a bad one in at most so many places.
    """
    choices = [(st.sampled_from(words(good)), st.sampled_from(words(bad))) for good, bad in slots]

    @st.composite
    def choose(draw):
        flaws = draw(st.sets(st.integers(0, len(choices) - 1), max_size=most_flaws))
        return b"".join([draw(pair[at in flaws]) for at, pair in enumerate(choices)])

    return choose()


BREAK = (r"\r\n", r"\n \r \r\n~ \r\r\n \n\r\n \r\n\t - ~\r\n \r\n\r\n")
BLANK = ("~", r"~~ \t - \x0b ~\t \r")
VERSION = ("HTTP/1.1", r"HTTP/1.0 HTTP/1.2 HTTP/2.0 HTTP/0.9 http/1.1 HTTP/1.1~ - HTTP/1.10 HTTP/11 HTTP/1.1\x00")
COLON = (r":~ : :\t", r"~:~ - :: :\x0b :~\r\n~ :\x00 \t: :\n :\xa0")
PLAIN_LINE = [
    ("A Cookie X-B", r"A~B ~A A\x00 A\xe9 Expect Connection Trailer \x0bA"),
    COLON,
    (r"b close - \xe9 a\tb", r"b\x00 b\x7f 100-continue a~b"),
    BREAK,
]
HOST_LINE = [("Host", r"host Host~ A \tHost"), COLON, ("a.test", "b.test a,~b a@b a~b a.test:99999 - a.test/"), BREAK]
LENGTH_LINE = [
    ("Content-Length content-length", r"Content-Length~ ~Content-Length Content-Length\x00 Content_Length Content-Lengt\xe8 A"),
    COLON,
    ("5 3 05", r"+5 -5 5,~5 5,3 0x5 5~5 - 5\x00 5; 99999999999999999999 5\n \x335 0 5.0 5_0 \xb25"),
    BREAK,
]
CODING_LINE = [
    (
        "Transfer-Encoding transfer-encoding",
        r"Transfer-Encoding~ ~Transfer-Encoding Transfer_Encoding \x0bTransfer-Encoding Transfer\xad-Encoding A",
    ),
    COLON,
    (
        "chunked Chunked",
        r"xchunked chunked,~identity identity identity,~chunked chunked\x0b \"chunked\" chunked;a ~chunked~ chunked,chunked - \xffchunked",
    ),
    BREAK,
]
SIZE = (
    "5 05 5;a=b 000000000000005",
    r"0x5 +5 ~5 5~ 5; 5;a 5;a=\"b\" 5;a=\"\r\nhello 5;a=\n 5\t 5;a\rb 5\x00 5~;a 5;\xe9=\xe9 4 6 -1 - A 00000000000000005 ffffffffffffffff",
)
CHUNK = [SIZE, BREAK, ("hello world", r"hello! hell - 0\r\n\r\n"), BREAK]
LAST_CHUNK = [("0 00 0;a", r"0x0 - 0~ ~0 0;\n"), BREAK, (r"- X-A:~b\r\n", r"A~:~b\r\n Content-Length:~5\r\n ~a\r\n A\r\n A:~b\n"), BREAK]
TAIL = ("- - GET~/next~HTTP/1.1", r"\n x")


def message(first_line, *, has_host):
    """
    Return messages that begin with the slots of `first_line`.
    """
    lines = [*first_line, *(HOST_LINE if has_host else []), *PLAIN_LINE]
    end = [(r"\r\n", r"\n \r ~\r\n")]
    return st.one_of(
        flawed([*lines, *end, TAIL]),
        flawed([*lines, *LENGTH_LINE, *end, ("hello helloGET helloHTTP/1.1", "hell - hel"), TAIL]),
        flawed([*lines, *CODING_LINE, *end, *CHUNK, *LAST_CHUNK, TAIL], 1),
        flawed([*lines, *CODING_LINE, *end, *CHUNK, *CHUNK, *LAST_CHUNK, TAIL]),
        # Two lines of framing are always one too many; one of them may be hidden.
        flawed([*lines, *LENGTH_LINE, *CODING_LINE, *end, *CHUNK, *LAST_CHUNK, TAIL]),
        flawed([*lines, *CODING_LINE, *CODING_LINE, *end, *CHUNK, *LAST_CHUNK, TAIL]),
        flawed([*lines, *LENGTH_LINE, *LENGTH_LINE, *end, ("hello", "hel"), TAIL]),
    )


REQUESTS = message(
    [
        ("GET POST get OPTIONS", r"G@T - CONNECT HEAD P\x00ST \r\nGET \nGET \xe9"),
        BLANK,
        ("/ /a/../b?c=d /%2e%2e/a //a", r"* http://a.test/ http://b.test/x /a~b /\x00 /\xe9 /#a - a.test:80 /a\x7f /%2f /\t"),
        BLANK,
        VERSION,
        BREAK,
    ],
    has_host=True,
)
RESPONSES = message(
    [VERSION, BLANK, ("200 404 200 204 304", r"99 600 abc 2000 - ~200 +20 100 103 2\x00"), ("~OK - ~", r"OK \tOK ~\xe9 ~a\x00"), BREAK],
    has_host=False,
)


def read_body(reader, rest):
    """
    Return body, names of the trailers and what is left, or `None` if the body is not complete.
    """
    body = reader.feed(rest) if rest else b""
    return (body, [field.name for field in reader.trailers], reader.rest) if reader.ended else None


def our_request(data):
    """
    Return what we make of a request, or `None` if we refuse it or miss a part of it.
    """
    end = data.find(b"\r\n\r\n")
    if end <= 0:
        return None
    try:
        head, _ = read_request_head(data, end, RequestLimits())
        rest = data[end + 4 :]
        found = read_body(request_body_reader(head.length), rest) if head.length else (b"", [], rest)
    except DownstreamError:
        return None
    return found and (head.method, head.raw_path, *found)


def our_response(data, method):
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    found: tuple[bytes, list[bytes], bytes] | None
    try:
        head = read_response_head(data, end, method)
        rest = data[end + 4 :]
        if head.length == UNTIL_CLOSE:
            found = rest, [], b""
        else:
            found = read_body(response_body_reader(head.length), rest) if head.length else (b"", [], rest)
    except UpstreamError:
        return None
    return found and (head.status, *found)


def h11_message(connection, data, *, until_close=False):
    """
    Return the first event, body, names of the trailers and what is left, as h11 sees them. Raises what h11 raises.
    """
    connection.receive_data(data)
    first, body = None, b""
    ended = False
    while True:
        found = connection.next_event()
        if isinstance(found, (h11.Request, h11.Response, h11.InformationalResponse)) and first is None:
            first = found
            if isinstance(found, h11.InformationalResponse):
                return first, b"", [], connection.trailing_data[0]
        elif isinstance(found, h11.Data):
            body += bytes(found.data)
        elif isinstance(found, h11.EndOfMessage):
            return first, body, [name for name, _ in found.headers], connection.trailing_data[0]
        elif until_close and not ended:
            ended = True
            connection.receive_data(b"")
        else:
            raise AssertionError(f"h11 waits for more: {found!r}")


class DifferentialTests(SynchronousTestCase):
    """
    We are never laxer than h11.
    """

    @CASES
    @given(REQUESTS)
    def test_requests(self, data):
        """
        A request that we accept is accepted by h11, with the same method, target, body, trailers and end.
        """
        ours = our_request(data)
        event("accepted" if ours else "refused")
        if ours is None:
            return
        # An empty line before a request is ours to ignore (RFC 9112 section 2.2); h11 leaves that to its caller.
        request, *others = h11_message(h11.Connection(h11.SERVER), data.removeprefix(b"\r\n"))
        self.assertEqual((request.method, request.target, *others), ours)

    @CASES
    @given(RESPONSES, st.sampled_from([b"GET", b"GET", b"HEAD"]))
    def test_responses(self, data, method):
        """
        A response that we accept is accepted by h11, with the same status, body, trailers and end.
        """
        ours = our_response(data, method)
        event("accepted" if ours else "refused")
        if ours is None:
            return
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
        connection.send(h11.EndOfMessage())
        answer, body, trailers, left = h11_message(connection, data, until_close=True)
        # What may not stand in a trailer is dropped from a response.
        self.assertEqual((answer.status_code, body, [name for name in trailers if name not in FORBIDDEN_TRAILERS], left), ours)
