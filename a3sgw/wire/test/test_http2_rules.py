"""
Tests that a session refuses what RFC 9113 and RFC 7541 say a server must refuse, with the error that they name.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.wire.http2 import PREFACE, Session, SessionLimits
from a3sgw.wire.test.http2_peer import ACK, GOAWAY, RST_STREAM, SETTINGS, Recorder, frame, frames
from a3sgw.wire.test.http2_rules import CONNECTION, FINE, RULES, STREAM


class Conversation:
    """
    A client that says what a rule is about, whole or byte by byte. Requests are taken and not answered.
    """

    def __init__(self, rule, *, is_whole):
        self.recorder = Recorder()
        self.recorder.takes = False
        self.session = Session(
            self.recorder, is_server=True, limits=SessionLimits(max_concurrent_streams=3, stream_window=65536), now=0.0
        )
        self.recorder.session = self.session
        self.sent = b""
        if not rule.is_beginning:
            self.say(PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0))
            self.recorder.take()
            self.sent = b""
        for piece in [rule.data] if is_whole else [bytes([byte]) for byte in rule.data]:
            self.say(piece)

    def say(self, data):
        self.session.feed(data, 0.0)
        self.sent += self.session.collect() + self.session.collect()

    def outcome(self):
        """
        Return what it cost, and the error that was told to the client.
        """
        kinds = {GOAWAY: CONNECTION, RST_STREAM: STREAM}
        for kind, _, _, payload in frames(self.sent):
            if kind in kinds:
                return kinds[kind], int.from_bytes(payload[4:8] if kind == GOAWAY else payload[:4], "big")
        return FINE, None


class RulesTests(SynchronousTestCase):
    """
    One requirement after the other.
    """

    def test_rules(self):
        """Each costs what it says and nothing else, whatever the network does with the bytes, and is told to whoever counts."""
        for rule in RULES:
            with self.subTest(section=rule.section, about=rule.about):
                for is_whole in (True, False) if len(rule.data) < 5000 else (True,):
                    conversation = Conversation(rule, is_whole=is_whole)
                    scope, code = conversation.outcome()
                    self.assertEqual(scope, rule.scope)
                    self.assertIn(code, rule.codes or (None,))
                    faults = [event for event in conversation.recorder.heard if event[0] == "fault"]
                    expected = [] if scope == FINE else [("fault", code, scope == CONNECTION)]
                    self.assertEqual(faults, expected)
                    self.assertEqual(conversation.session.is_over, scope == CONNECTION)
                    if conversation.session.is_over:
                        self.assertEqual(conversation.session.stream_count, 0)

    def test_there_are_many(self):
        """No section was forgotten."""
        sections = {rule.section for rule in RULES}
        self.assertGreater(len(RULES), 120)
        self.assertGreater(len(sections), 30)
