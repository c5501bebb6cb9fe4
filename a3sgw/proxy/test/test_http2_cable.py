"""
Pull cables at random under HTTP/2: whatever client, backends and time do to the streams of a connection, nothing leaks.
"""

import random

import h2.exceptions

from a3sgw.proxy.test.dialogues import DialogueCase, config, response
from a3sgw.proxy.test.http2_dialogues import Http2Case, fields
from a3sgw.wire.http2 import PREFACE
from a3sgw.wire.test.http2_peer import ACK, DATA, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame

STEPS = 60


class Chaos:
    """
    One connection, its requests, and what happens to them.
    """

    def __init__(self, case, seed):
        self.case = case
        self.chance = random.Random(seed)
        self.open = []
        self.asked = 0
        self.waiting = []
        self.heard = {}
        self.is_gone = False

    def step(self):
        """
        Let one thing happen.
        """
        deeds = [self.ask, self.ask, self.upload, self.cancel, self.answer, self.answer, self.break_off, self.wait, self.widen, self.reload]
        deed = self.chance.choice(deeds)
        if self.chance.random() < 0.005:
            deed = self.leave
        if not self.is_gone or deed in (self.answer, self.break_off, self.wait):
            try:
                deed()
                if not self.is_gone:
                    self.case.carry()
            except h2.exceptions.NoSuchStreamError:
                # A stream that has ended in between.
                self.open = [stream_id for stream_id in self.open if self.case.answers.get(stream_id) is None]
            except h2.exceptions.ProtocolError:
                # The client has been told of the end, and may not go on.
                self.is_gone = True
            except (ConnectionError, BrokenPipeError):
                self.is_gone = True

    def ask(self):
        """
        Send a request, perhaps with a body that goes on.
        """
        ended = self.chance.random() < 0.5
        stream_id = self.case.request(fields("GET" if ended else "POST", f"/{self.asked}"), ended=ended)
        self.asked += 1
        if not ended:
            self.open.append(stream_id)

    def upload(self):
        """
        Go on with a body.
        """
        if self.open:
            stream_id = self.chance.choice(self.open)
            room = min(self.case.peer.local_flow_control_window(stream_id), 16384)
            ended = self.chance.random() < 0.4
            self.case.peer.send_data(stream_id, bytes(self.chance.randrange(room + 1)), end_stream=ended)
            if ended:
                self.open.remove(stream_id)

    def cancel(self):
        """
        Reset a stream.
        """
        if self.case.answers:
            stream_id = self.chance.choice(list(self.case.answers))
            if not self.case.answers[stream_id].ended:
                self.case.peer.reset_stream(stream_id)
            if stream_id in self.open:
                self.open.remove(stream_id)

    def backend(self):
        """
        Return a backend's end that is still there, or `None`.
        """
        ends = [end for end in self.case.dialogue.backends if not (end.is_closed or end.was_reset or end.has_ended)]
        return self.chance.choice(ends) if ends else None

    def answer(self):
        """
        Answer on some connection, in one of many ways.
        """
        end = self.backend()
        if end is not None:
            end.take()
            self.case.say(
                end,
                self.chance.choice(
                    [
                        response("200 OK", "Content-Length: 2", body=b"ok"),
                        response("200 OK", "Content-Length: 200000", body=bytes(200_000)),
                        response("200 OK", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n"),
                        b"0\r\nX-Sum: 5\r\n\r\n",
                        response("103 Early Hints", "Link: </a>"),
                        response("204 No Content"),
                        response("200 OK", "Connection: close", body=b"as long as it takes"),
                        b"nonsense\r\n\r\n",
                    ]
                ),
            )

    def break_off(self):
        """
        Close a backend's connection.
        """
        end = self.backend()
        if end is not None:
            end.close()
            self.case.dialogue.reactor.settle()

    def wait(self):
        """
        Let time pass.
        """
        self.case.dialogue.reactor.advance(self.chance.choice([0.1, 5, 31]))

    def widen(self):
        """
        Begin or cease to open windows; stop reading for a while.
        """
        self.case.takes = not self.case.takes
        self.case.client.room = self.chance.choice([1000, 1 << 24])

    def reload(self):
        """
        Swap generations.
        """
        if self.chance.random() < 0.2:
            self.case.dialogue.reload(config(servers=self.chance.choice([1, 2])))

    def leave(self):
        """
        Go away.
        """
        self.is_gone = True
        self.case.client.close()
        self.case.dialogue.reactor.settle()


class CableTests(Http2Case):
    """
    What is left when everybody has gone.
    """

    def test_nothing_leaks(self):
        """Every request ends exactly once, and nothing is in flight, leased, held or watched afterwards."""
        words = set()
        for seed in range(60):
            self.takes = True
            self.converse(servers=2)
            chaos = Chaos(self, seed)
            for _ in range(STEPS):
                chaos.step()
            super().tearDown()
            ended = self.dialogue.outcomes()
            self.assertLessEqual(len(ended), chaos.asked, seed)
            self.assertGreaterEqual(len(ended), chaos.asked - 1, seed)
            self.assertEqual(self.flushLoggedErrors(), [])
            words.update(ended)
        self.assertLessEqual({"completed", "client-closed", "response-malformed", "backend-closed"}, words)

    def test_garbage(self):
        """Whatever bytes come, nobody meets a bug, and nothing is left when the client has gone."""
        chance = random.Random(11)
        block = b"\x83\x86\x84\x41\x06a.test"
        said = PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0)
        for stream_id in (1, 3, 5, 7):
            said += frame(HEADERS, 4, stream_id, block) + frame(DATA, 8, stream_id, b"\x03hello" + bytes(3))
        said += frame(DATA, 1, 1, b"x") + frame(HEADERS, 5, 3, b"\0\x01a\x01b") + frame(RST_STREAM, 0, 5, bytes(3) + b"\x08")
        said += frame(WINDOW_UPDATE, 0, 0, bytes(3) + b"\x09") + frame(PING, 0, 0, bytes(8)) + frame(GOAWAY, 0, 0, bytes(8))
        for _ in range(300):
            DialogueCase.converse(self)
            mutated = bytearray(said)
            for _ in range(chance.randrange(1, 5)):
                mutated[chance.randrange(24, len(mutated))] = chance.randrange(256)
            cut = chance.randrange(len(mutated))
            for piece in (mutated[:cut], mutated[cut:]):
                if piece and not (self.client.has_ended or self.client.was_reset):
                    self.say(self.client, bytes(piece))
            for backend in self.dialogue.backends:
                if not (backend.is_closed or backend.was_reset or backend.has_ended):
                    self.say(backend, response("200 OK", "Content-Length: 2", body=b"ok"))
            super().tearDown()
            self.assertEqual(self.flushLoggedErrors(), [])

    def tearDown(self):
        """
        Each round has had its own.
        """
