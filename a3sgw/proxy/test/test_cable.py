"""
Pull every cable at random: whatever clients, backends and time do, nothing leaks and nobody is told a lie.
"""

import json
import re
import socket

from hypothesis import event, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.load import load_text
from a3sgw.errors import Outcome
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import Dialogue

CONFIGS = {
    key: load_text(config(servers=key[0], service=f"connection_pool {{ max_connections = {key[1]} }}"), "test.hcl", {}).valid_config()
    for key in [(1, 0), (1, 1), (2, 1)]
}
RESET = b"\1\0\0\0\0\0\0\0"
HEAD = re.compile(rb"([A-Z]+) /([0-9]+) HTTP/1\.1\r\n")


def chunks(body, trailers=b""):
    """
    Return `body` in some ten chunks.
    """
    step = len(body) // 10 + 3
    pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[at : at + step] for at in range(0, len(body), step))]
    return b"".join(pieces) + b"0\r\n" + trailers + b"\r\n"


class Turn:
    """
    One request and its response as both ends mean them. `number` is its path and marks every byte of its bodies.
    """

    def __init__(self, number, asks, answers, size):
        self.number = number
        self.asks = asks
        self.answers = answers
        self.upload = b"<%d:%b>" % (number, b"u" * size) if asks in ("length", "chunked", "put") else b""
        self.method = {"head": b"HEAD", "length": b"POST", "chunked": b"POST", "put": b"PUT", "star": b"OPTIONS"}.get(asks, b"GET")
        self.body = b"" if answers == "204" else b"<%d:%b>" % (number, b"d" * size)

    def request(self):
        target = b"*" if self.asks == "star" else b"/%d" % self.number
        if self.asks == "http10":
            return b"GET %b HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n" % target
        start = b"%b %b HTTP/1.1\r\nHost: a.test\r\n" % (self.method, target)
        if self.asks == "chunked":
            return start + b"Transfer-Encoding: chunked\r\n\r\n" + chunks(self.upload, b"X-T: 1\r\n")
        if self.upload:
            return start + b"Content-Length: %d\r\n\r\n%b" % (len(self.upload), self.upload)
        return start + b"\r\n"

    def is_last(self):
        """
        Tell whether only the end of the connection can tell the client where the response ends.
        """
        return self.asks == "http10" and self.answers in ("chunked", "close")

    def response(self):
        """
        Return what the backend answers, and whether it ends with the connection.
        """
        start = b"HTTP/1.1 200 OK\r\nX-Number: %d\r\n" % self.number
        if self.answers == "204":
            return b"HTTP/1.1 204 No Content\r\nX-Number: %d\r\n\r\n" % self.number, False
        if self.answers == "hints":
            start = b"HTTP/1.1 103 Early Hints\r\n\r\n" + start
        if self.answers == "chunked":
            return start + b"Transfer-Encoding: chunked\r\n\r\n" + (b"" if self.method == b"HEAD" else chunks(self.body)), False
        if self.answers == "close":
            return (start + b"\r\n", False) if self.method == b"HEAD" else (start + b"\r\n" + self.body, True)
        return start + b"Content-Length: %d\r\n\r\n" % len(self.body) + (b"" if self.method == b"HEAD" else self.body), False


def read_body(data, fields, has_body):
    """
    Read a body leniently. Return what there is of it, whether it is whole (`None`: only the end of the connection can tell), and the rest.
    """
    length = re.search(rb"\r\nContent-Length: (\d+)", fields)
    if not has_body:
        return b"", True, data
    if length:
        size = int(length[1])
        return data[:size], len(data) >= size, data[size:]
    if b"\r\nTransfer-Encoding: chunked" not in fields:
        return data, None, b""
    body = b""
    while match := re.match(rb"([0-9a-f]+)\r\n", data):
        size = int(match[1], 16)
        data = data[match.end() :]
        if not size:
            end = data.find(b"\r\n\r\n") + 4 if not data.startswith(b"\r\n") else 2
            return body, end >= 4 or data.startswith(b"\r\n"), data[end:]
        body += data[:size]
        data = data[size + 2 :]
    return body, False, b""


class Client:
    """
    A client that says what its turns say, in order.
    """

    def __init__(self, dialogue, turns):
        self.end = dialogue.connect()
        self.turns = turns
        self.left = b"".join(turn.request() for turn in turns)
        self.heard = b""
        self.has_left = False
        self.is_silent = False

    def say(self, size):
        if self.has_left or self.is_silent or not self.left:
            return
        try:
            self.left = self.left[self.end.send(self.left[:size]) :]
        except OSError:
            pass

    def hear(self):
        self.heard += self.end.take()

    def stop_sending(self):
        if not (self.has_left or self.is_silent):
            self.is_silent = True
            self.end.shutdown(socket.SHUT_WR)

    def leave(self, *, resets=False):
        if not self.has_left:
            self.has_left = True
            if resets:
                self.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.end.close()

    def check(self, case):
        """
        Fail unless what was heard is a true beginning of the answers to what was asked.
        """
        data = self.heard
        for turn in self.turns:
            while data.startswith(b"HTTP/1.1 103"):
                case.assertNotEqual(turn.asks, "http10")
                data = data.partition(b"\r\n\r\n")[2]
            head, blank, rest = data.partition(b"\r\n\r\n")
            if not blank:
                break
            fields = b"\r\n" + head.partition(b"\r\n")[2]
            has_body = turn.method != b"HEAD" and not head.startswith(b"HTTP/1.1 204")
            body, is_whole, data = read_body(rest, fields, has_body)
            if is_whole is None:
                is_whole = self.end.has_ended and not (self.end.was_reset or self.has_left)
            if b"\r\nProxy-Status: " in fields:
                case.assertTrue(not has_body or not is_whole or b'"reason"' in body, body)
                if not has_body and head.startswith(b"HTTP/1.1 408"):
                    # Too little of the request has come to tell that it wants no body.
                    case.assertTrue(not data or b'"reason"' in data, data)
                    data = b""
                event("refused " + head[9:12].decode())
                continue
            case.assertIn(b"\r\nX-Number: %d\r\n" % turn.number, fields + b"\r\n")
            if has_body:
                case.assertTrue(turn.body.startswith(body), body)
                if is_whole:
                    case.assertEqual(body, turn.body)
            if not is_whole:
                case.assertEqual(data, b"")
                event("broken off")
                break
            event("answered")
        else:
            case.assertEqual(data, b"")


class BackendEnd:
    """
    A backend's end of one connection: it answers each request as that request's turn says.
    """

    def __init__(self, end, turns):
        self.end = end
        self.turns = turns
        self.heard = b""
        self.seen = 0
        self.left = b""
        self.closes = False
        self.has_left = False

    def hear(self):
        if self.has_left:
            return
        self.heard += self.end.take()
        while match := HEAD.search(self.heard, self.seen):
            if b"\r\n\r\n" not in self.heard[match.start() :]:
                break
            self.seen = match.end()
            answer, closes = self.turns[int(match[2])].response()
            if not self.closes:
                self.left += answer
                self.closes = closes

    def say(self, size):
        self.hear()
        if self.has_left:
            return
        try:
            if self.left and size:
                self.left = self.left[self.end.send(self.left[:size]) :]
        except BlockingIOError:
            pass
        except OSError:
            self.leave()
        if self.closes and not self.left:
            self.leave()

    def leave(self, *, resets=False):
        if not self.has_left:
            self.has_left = True
            if resets:
                self.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.end.close()

    def check(self, case):
        """
        Fail unless every request that looks whole is.
        """
        data = self.heard
        while match := HEAD.match(data):
            head, blank, data = data.partition(b"\r\n\r\n")
            if not blank:
                return
            turn = self.turns[int(match[2])]
            has_body = b"\r\nContent-Length: " in head or b"\r\nTransfer-Encoding: " in head
            body, is_whole, data = read_body(data, head, has_body)
            case.assertEqual((match[1], has_body), (turn.method, bool(turn.upload)))
            case.assertTrue(turn.upload.startswith(body), body)
            if is_whole:
                case.assertEqual(body, turn.upload)
        case.assertEqual(data if is_readable(data) else b"", b"")


def is_readable(data):
    """
    Tell whether `data` is more than the beginning of a request line.
    """
    return b"\r\n" in data


FAILURES = [Outcome.CONNECT_REFUSED, Outcome.CONNECT_TIMEOUT, Outcome.DNS_ERROR]
WHO = st.integers(0, 1)
SIZE = st.sampled_from([1, 5, 30, 200, 1000, 100_000])
PROGRESS = [
    st.tuples(st.just("ask"), WHO, SIZE),
    st.tuples(st.just("go"), WHO, SIZE),
    st.tuples(st.just("answer"), WHO, SIZE),
    st.tuples(st.just("hear"), WHO),
    st.tuples(st.just("room"), WHO, st.sampled_from([0, 10, 1 << 20])),
    st.tuples(st.just("space"), WHO, st.sampled_from([0, 10, 1 << 20])),
]
ACCIDENTS = [
    st.tuples(st.just("dial"), st.booleans()),
    st.tuples(st.just("time"), st.sampled_from([1, 9, 31, 61])),
    st.tuples(st.sampled_from(["backend leaves", "backend resets", "leave", "reset", "silence", "drain"]), WHO),
]
ANYTHING = st.lists(st.one_of(*PROGRESS * 3, *ACCIDENTS), min_size=10, max_size=50)
TURNS = st.lists(
    st.tuples(
        st.sampled_from(["get", "head", "length", "chunked", "put", "http10", "star"]),
        st.sampled_from(["length", "chunked", "204", "hints", "close"]),
        st.sampled_from([0, 3, 40, 3000, 70_000]),
    ),
    min_size=1,
    max_size=4,
)


class Play:
    """
    One gateway, two clients and all the backends they reach.
    """

    configs = CONFIGS
    turn = Turn

    def __init__(self, key, conversations):
        self.dialogue = Dialogue(self.configs[key], answers_dials=False)
        self.turns = []
        self.clients = []
        for conversation in conversations:
            turns = [self.turn(len(self.turns) + position, *turn) for position, turn in enumerate(conversation)]
            self.turns += turns
            self.clients.append(Client(self.dialogue, turns))
        self.backends = []

    def backend(self, who):
        """
        Return the newest backend that is still there, or the one before.
        """
        there = [backend for backend in self.backends if not backend.has_left]
        return there[-1 - who % len(there)] if there else None

    def step(self, kind, *how):
        dialogue = self.dialogue
        if kind == "dial":
            if dialogue.attempts:
                if how[0]:
                    self.backends.append(BackendEnd(dialogue.attempts[0].succeed(), self.turns))
                else:
                    dialogue.attempts[0].fail(FAILURES[len(self.backends) % len(FAILURES)])
        elif kind == "time":
            dialogue.reactor.advance(how[0])
        elif kind == "drain":
            dialogue.door().drain()
        elif kind in ("ask", "go"):
            # A client asks and is connected through, as it mostly happens.
            self.clients[how[0]].say(how[1] if kind == "ask" else 1 << 20)
            dialogue.reactor.settle()
            self.step("dial", True)
            for backend in self.backends:
                backend.say(how[1] if kind == "go" else 0)
        else:
            self.act(kind, self.clients[how[0]], self.backend(how[0]), *how[1:])
        dialogue.reactor.settle()

    def act(self, kind, client, backend, size=0):
        if kind == "hear":
            client.hear()
        elif kind == "room":
            client.end.room = size
        elif kind == "silence":
            client.stop_sending()
        elif kind in ("leave", "reset"):
            client.hear()
            client.leave(resets=kind == "reset")
        elif backend is None:
            pass
        elif kind == "answer":
            backend.say(size)
        elif kind == "space":
            backend.end.room = size
        else:
            backend.hear()
            backend.leave(resets=kind == "backend resets")

    def finish(self, *, kindly):
        """
        Bring everything to its end. Kindly means that everybody does what is expected of him first.
        """
        reactor = self.dialogue.reactor
        if kindly:
            for _ in range(30):
                for client in self.clients:
                    client.end.room = 1 << 20
                    client.say(1 << 20)
                    client.hear()
                while self.dialogue.attempts:
                    self.step("dial", True)
                for backend in self.backends:
                    backend.end.room = 1 << 20
                    backend.say(1 << 20)
                reactor.settle()
        for each in [*self.clients, *self.backends]:
            each.hear()
            each.leave()
        reactor.advance(200)


class CableCase(SynchronousTestCase):
    """
    A test case of plays, and what is true of each when it has ended.
    """

    def check(self, play):
        dialogue = play.dialogue
        self.assertEqual(self.flushLoggedErrors(), [])
        dialogue.assert_clean(self)
        self.assertEqual(len(dialogue.door().connections), 0)
        self.assertEqual(dialogue.dialer_deadlines.watched(), [])
        self.assertLessEqual(set(dialogue.reactor.watched()), {dialogue.door()})
        outcomes = dialogue.outcomes()
        lines = [json.loads(line)["outcome"] for line in dialogue.sink.data.splitlines()]
        self.assertEqual(sorted(lines), outcomes)
        self.assertNotIn("internal-error", outcomes)
        for each in [*play.clients, *play.backends]:
            each.check(self)


class CableTests(CableCase):
    """
    Random conversations with random accidents.
    """

    @settings(deadline=None, max_examples=400, derandomize=True)
    @given(st.sampled_from(sorted(CONFIGS)), st.tuples(TURNS, TURNS), ANYTHING, st.booleans())
    def test_any_accident(self, key, conversations, steps, kindly):
        """Whatever happens, nothing fails, nothing leaks, each exchange is counted once, and no message lies about its end."""
        play = Play(key, conversations)
        for step in steps:
            play.step(*step)
        play.finish(kindly=kindly)
        self.check(play)

    @settings(deadline=None, max_examples=100, derandomize=True)
    @given(st.sampled_from(sorted(CONFIGS)), st.tuples(TURNS, TURNS), st.lists(st.one_of(*PROGRESS), max_size=40))
    def test_no_accident(self, key, conversations, steps):
        """If everybody does his part, if slowly and in any order, everything is answered that was asked."""
        play = Play(key, conversations)
        for step in steps:
            play.step(*step)
        play.finish(kindly=True)
        self.check(play)
        self.assertLessEqual(set(play.dialogue.outcomes()), {"completed", "no-route"})
        for client in play.clients:
            # A backend that answers before the end of an upload ends the connection.
            if not any(turn.upload for turn in client.turns):
                turns = [turn.is_last() for turn in client.turns]
                expected = turns.index(True) + 1 if True in turns else len(turns)
                self.assertEqual(len(re.findall(rb"HTTP/1\.1 (?:200|204|404)", client.heard)), expected)
