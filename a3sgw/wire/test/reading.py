"""
Feed messages to the readers whole, byte by byte, cut in two, and with another message behind them.

`RequestDialogue` drives `wire.http1` as a server connection does: it looks for the end of a head, has what is incomplete checked, and
gives the body to the reader that belongs to it. The functions below it feed one message in every way and insist that the answer is the
same each time.
"""

from a3sgw.errors import DownstreamError, UpstreamError
from a3sgw.wire.body import BodyReader
from a3sgw.wire.http1 import (
    UNTIL_CLOSE,
    RequestLimits,
    check_partial_request,
    read_request_head,
    read_response_head,
    request_body_reader,
    response_body_reader,
)

NEXT = b"GET /next HTTP/1.1\r\nHost: next.test\r\n\r\n"


class RequestDialogue:
    """
    One connection: `requests` are those that arrived whole, `refused` is the outcome that ended it, or `None`.
    """

    def __init__(self, limits=None):
        self.limits = limits or RequestLimits()
        self.requests = []
        self.refused = None
        self._buffer = b""
        self._checked = 0
        self._head = None
        self._body: BodyReader | None = None
        self._pieces = []

    def feed(self, data):
        """
        Take the next bytes, unless the connection has ended.
        """
        if self.refused is None:
            try:
                self._feed(data)
            except DownstreamError as error:
                self.refused = error.outcome

    def _feed(self, data):
        if self._body is not None:
            data = self._read_body(data)
        data = self._buffer + data
        while data and self._body is None:
            end = data.find(b"\r\n\r\n")
            if end > 0:
                self._checked = 0
                data = self._read_head(data, end)
            elif data.startswith(b"\r\n") and not self._checked:
                data = data[2:]
            else:
                if data != b"\r":
                    check_partial_request(data, self._checked, self.limits)
                    self._checked = len(data)
                break
        self._buffer = data

    def _read_head(self, data, end):
        self._head, self.forwarded = read_request_head(data, end, self.limits)
        self._pieces = []
        rest = data[end + 4 :]
        if not self._head.length:
            self.requests.append((self._head, b"", []))
            return rest
        self._body = request_body_reader(self._head.length, self._head.nominated)
        return self._read_body(rest) if rest else b""

    def _read_body(self, data):
        body = self._body
        assert body is not None
        self._pieces.append(body.feed(data))
        if not body.ended:
            return b""
        self._body = None
        self.requests.append((self._head, b"".join(self._pieces), body.trailers))
        return body.rest


def ways(data):
    """
    Give every way to cut `data` that the tests try: whole, in two at each place, and byte by byte.
    """
    yield [data]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]
    yield [data[at : at + 1] for at in range(len(data))]


def few_ways(data):
    """
    Give some ways to cut `data`, for what is long or generated.
    """
    yield [data]
    yield [data[: len(data) // 2], data[len(data) // 2 :]]
    yield [data[at : at + 7] for at in range(0, len(data), 7)]
    yield [data[at : at + 1] for at in range(len(data))]


def tell(head):
    """
    Return what a head says, as a dict that can be compared.
    """
    return {name: getattr(head, name) for name in type(head).__slots__}


def _ended(data, limits, cut):
    """
    Feed `data` in every way; return how the connection ended, which must be the same each time.
    """
    found = None
    for pieces in cut(data):
        dialogue = RequestDialogue(limits)
        for piece in pieces:
            dialogue.feed(piece)
        now = (dialogue.refused, [(tell(head), body, trailers) for head, body, trailers in dialogue.requests])
        assert found is None or found == now, f"cut as {pieces}: {now}, but whole: {found}"
        found = now
    return found


def refusal(data, limits=None, cut=ways):
    """
    Return the outcome with which the request `data` is refused, in whatever way it arrives and whatever follows.
    """
    outcome, requests = _ended(data, limits, cut)
    assert outcome is not None, f"not refused: {data!r}"
    assert not requests, f"refused after a request: {data!r}"
    followed, requests = _ended(data + NEXT, limits, few_ways)
    assert (followed, requests) == (outcome, []), f"{data!r} with a next request: {followed}, alone: {outcome}"
    return outcome


def reading(data, limits=None, cut=ways):
    """
    Return head, body and trailers of the one request that `data` is, in whatever way it arrives and whatever follows.
    """
    outcome, requests = _ended(data, limits, cut)
    assert outcome is None, f"refused: {data!r}: {outcome}"
    assert len(requests) == 1, f"not one request: {data!r}: {requests}"
    outcome, both = _ended(data + NEXT, limits, few_ways)
    assert outcome is None, f"{data!r} with a next request: {outcome}"
    assert len(both) == 2, f"{data!r} with a next request: {both}"
    assert both[0] == requests[0], f"{data!r} changed with a next request: {both[0]}"
    assert both[1][0]["target"] == b"/next", f"{data!r} changed the next request: {both[1]}"
    dialogue = RequestDialogue(limits)
    dialogue.feed(data)
    head, body, trailers = dialogue.requests[0]
    return head, body, trailers, dialogue.forwarded


def drain(make_reader, pieces):
    """
    Feed a body reader; return data, whether it ended, what is left over, the trailers, and the outcome if it refused.
    """
    reader = make_reader()
    data = []
    left = b""
    try:
        for piece in pieces:
            if reader.ended:
                left += piece
            else:
                data.append(reader.feed(piece))
    except (DownstreamError, UpstreamError) as error:
        return None, False, b"", [], error.outcome
    return b"".join(data), reader.ended, reader.rest + left, reader.trailers, None


def body_reading(make_reader, data, cut=ways):
    """
    Feed a body in every way; return what `drain` does, which must be the same each time.
    """
    found = None
    for pieces in cut(data):
        now = drain(make_reader, pieces)
        assert found is None or found == now, f"cut as {pieces}: {now}, but whole: {found}"
        found = now
    return found


def response(data, method=b"GET"):
    """
    Return head, body, trailers, and what is left of `data`, one response; a body until the connection's end is all that is there.
    """
    end = data.index(b"\r\n\r\n")
    head = read_response_head(data, end, method)
    rest = data[end + 4 :]
    if not head.length:
        return head, b"", [], rest
    body, ended, left, trailers, outcome = body_reading(lambda: response_body_reader(head.length, head.nominated), rest)
    if outcome is not None:
        raise UpstreamError(outcome)
    assert ended or head.length == UNTIL_CLOSE, f"not complete: {data!r}"
    return head, body, trailers, left
