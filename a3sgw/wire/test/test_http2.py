"""
Tests of HTTP/2 sessions, in both roles, against a peer that shares no code with them.
"""

import random

import h2.events
import h2.exceptions
from h2.errors import ErrorCodes
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.wire.http2 import PREFACE, ErrorCode, Session, SessionLimits
from a3sgw.wire.test.http2_peer import ACK, GET, GOAWAY, OK, PING, POST, SETTINGS, Pair, Recorder, frame, frames

CANCEL = int(ErrorCode.CANCEL)
CALM = int(ErrorCode.ENHANCE_YOUR_CALM)


class ServerTests(SynchronousTestCase):
    """
    A session as the server, `h2` as the client.
    """

    def setUp(self):
        self.pair = Pair(is_server=True, limits=SessionLimits(stream_window=65536))
        self.session = self.pair.session
        self.client = self.pair.peer

    def ask(self, fields=GET, ended=True):
        """
        Send a request; return its stream.
        """
        stream_id = self.client.get_next_available_stream_id()
        self.client.send_headers(stream_id, fields, end_stream=ended)
        return stream_id

    def test_request_without_body(self):
        """
        A request without a body is heard once, whole.
        """
        self.ask()
        self.assertEqual(self.pair.heard(), [("head", 1, GET, True)])

    def test_request_byte_by_byte(self):
        """
        It does not matter how the network cuts the bytes.
        """
        self.ask(POST, ended=False)
        self.client.send_data(1, b"hello", end_stream=True)
        happened = [self.session.feed(bytes([byte]), 0.0) for byte in self.client.data_to_send()]
        self.assertEqual(self.pair.heard(), [("head", 1, POST, False), ("data", 1, b"hello", True)])
        self.assertEqual(sum(happened), 2)

    def test_request_with_trailers(self):
        """
        Trailers end a request's body.
        """
        self.ask(POST, ended=False)
        self.client.send_data(1, b"hello")
        self.client.send_headers(1, [(b"x-sum", b"5")], end_stream=True)
        self.assertEqual(
            self.pair.heard(), [("head", 1, POST, False), ("data", 1, b"hello", False), ("trailers", 1, [(b"x-sum", b"5")])]
        )

    def test_response(self):
        """
        A response has interim heads, a head, a body and trailers, and ends its stream.
        """
        self.ask()
        self.pair.heard()
        self.session.send_interim(1, [(b":status", b"103"), (b"link", b"</a>")])
        self.session.send_head(1, [*OK, (b"x-a", b"b")], False)
        self.session.send_data(1, b"hello", False)
        self.session.send_trailers(1, [(b"x-sum", b"5")])
        self.assertEqual(self.pair.heard(), [("closed", 1, 0)])
        self.assertEqual(
            [type(event).__name__ for event in self.pair.events],
            ["InformationalResponseReceived", "ResponseReceived", "DataReceived", "TrailersReceived", "StreamEnded"],
        )
        self.assertEqual(self.session.stream_count, 0)

    def test_response_without_body(self):
        """
        A response may end with its head.
        """
        self.ask()
        self.pair.heard()
        self.session.send_head(1, [(b":status", b"204")], True)
        self.assertEqual(len(self.pair.seen(h2.events.StreamEnded)), 1)

    def test_body_is_credited_when_it_is_taken(self):
        """
        A client cannot send more than the window until somebody takes what it sent.
        """
        self.pair.recorder.takes = False
        self.ask(POST, ended=False)
        self.pair.pump()
        for _ in range(4):
            self.client.send_data(1, bytes(16384))
        self.pair.pump()
        self.assertEqual(self.client.local_flow_control_window(1), 0)
        self.session.credit(1, 40000)
        self.pair.pump()
        self.assertEqual(self.client.local_flow_control_window(1), 40000)

    def test_nothing_is_credited_twice(self):
        """
        Crediting more than was received credits what was received.
        """
        self.pair.recorder.takes = False
        self.ask(POST, ended=False)
        for _ in range(3):
            self.client.send_data(1, bytes(16384))
        self.pair.pump()
        self.session.credit(1, 1 << 20)
        self.session.credit(1, 1 << 20)
        self.pair.pump()
        self.assertEqual(self.client.local_flow_control_window(1), 65536)

    def test_window_of_the_connection_survives_streams(self):
        """
        What nobody took of a body that was broken off does not narrow the connection for ever.
        """
        self.pair.recorder.takes = False
        for _ in range(60):
            stream_id = self.ask(POST, ended=False)
            for _ in range(4):
                self.client.send_data(stream_id, bytes(16384))
            self.client.reset_stream(stream_id, ErrorCodes.CANCEL)
            self.pair.pump()
        self.assertGreater(self.client.outbound_flow_control_window, 1 << 19)

    def test_slow_client(self):
        """
        The sender of a large body is told to stop when the client's window is closed, and to go on when most of it is sent.
        """
        self.ask()
        self.pair.heard()
        self.session.send_head(1, OK, False)
        self.session.send_data(1, bytes(200000), False)
        self.assertEqual(self.pair.heard(), [("congested", 1)])
        self.assertEqual(self.session.queued_on(1), 200000 - 65535)
        self.client.increment_flow_control_window(100000, 1)
        self.client.increment_flow_control_window(100000)
        self.assertEqual(self.pair.heard(), [])
        self.client.increment_flow_control_window(10000, 1)
        self.client.increment_flow_control_window(10000)
        self.assertEqual(self.pair.heard(), [("drained", 1)])

    def test_client_resets(self):
        """
        A reset by the client closes the stream, and what is sent on it afterwards goes nowhere.
        """
        self.ask()
        self.pair.heard()
        self.client.reset_stream(1, ErrorCodes.CANCEL)
        self.assertEqual(self.pair.heard(), [("closed", 1, CANCEL)])
        self.session.send_interim(1, [(b":status", b"103")])
        self.session.send_head(1, OK, False)
        self.session.send_data(1, b"x", False)
        self.session.send_trailers(1, [])
        self.session.reset(1, CANCEL)
        self.session.credit(1, 5)
        self.assertEqual(self.pair.heard(), [])

    def test_session_resets(self):
        """
        A reset by the session reaches the client, and is nobody's fault.
        """
        self.ask()
        self.pair.heard()
        self.session.reset(1, ErrorCode.INTERNAL_ERROR)
        self.assertEqual(self.pair.heard(), [("closed", 1, 2)])
        self.assertEqual([event.error_code for event in self.pair.seen(h2.events.StreamReset)], [2])

    def test_answer_before_the_request_has_ended(self):
        """
        The whole answer leaves before the stream is reset, however narrow the client's window.
        """
        self.ask(POST, ended=False)
        self.pair.heard()
        self.session.send_head(1, [(b":status", b"413")], False)
        self.session.send_data(1, bytes(70000), True)
        self.session.reset_when_sent(1, ErrorCode.NO_ERROR)
        self.assertEqual(self.pair.heard(), [])
        self.assertEqual(self.pair.seen(h2.events.StreamReset), [])
        self.client.increment_flow_control_window(10000, 1)
        self.client.increment_flow_control_window(10000)
        self.assertEqual(self.pair.heard(), [("closed", 1, 0)])
        self.assertEqual([type(event).__name__ for event in self.pair.events[-2:]], ["StreamEnded", "StreamReset"])

    def test_goodbye_in_two_steps(self):
        """
        A client that is told of the end may go on until it knows, and is told the last stream then.
        """
        self.ask()
        self.pair.heard()
        self.session.announce_end()
        notice, ping = frames(self.session.collect())
        self.assertEqual(notice, (GOAWAY, 0, 0, b"\x7f\xff\xff\xff" + bytes(4)))
        self.ask()
        answered = self.pair.say(self.client.data_to_send() + frame(PING, ACK, 0, ping[3]))
        self.assertEqual((answered, self.pair.recorder.take()), ([], [("head", 3, GET, True), ("pong",)]))
        self.session.go_away()
        self.assertEqual(frames(self.session.collect()), [(GOAWAY, 0, 0, (3).to_bytes(4, "big") + bytes(4))])
        self.session.send_head(1, [(b":status", b"204")], True)
        self.session.collect()
        self.assertEqual(self.pair.recorder.take(), [("closed", 1, 0)])
        self.assertFalse(self.session.is_over)
        self.session.send_head(3, [(b":status", b"204")], True)
        self.session.collect()
        self.assertEqual(self.pair.recorder.take(), [("closed", 3, 0), ("over", 0)])
        self.assertTrue(self.session.is_over)

    def test_client_leaves(self):
        """
        A client that goes away has its streams answered.
        """
        self.ask()
        self.client.close_connection()
        self.assertEqual(self.pair.heard(), [("head", 1, GET, True), ("going away", 0, 0)])
        self.assertTrue(self.session.has_peer_left)

    def test_terminate(self):
        """
        A session that is terminated says why, and hears nothing more.
        """
        self.ask()
        self.pair.heard()
        self.session.terminate(ErrorCode.INTERNAL_ERROR)
        self.assertEqual(self.pair.heard(), [("over", 2)])
        self.assertEqual([event.error_code for event in self.pair.seen(h2.events.ConnectionTerminated)], [2])
        self.assertFalse(self.session.feed(frame(PING, 0, 0, bytes(8)), 0.0))
        self.assertEqual(self.session.collect(), b"")

    def test_forget(self):
        """
        A session whose connection is gone tells nobody anything, whatever is asked of it.
        """
        self.ask()
        self.pair.heard()
        self.session.forget()
        self.session.send_head(1, OK, True)
        self.session.terminate(0)
        self.assertEqual(self.pair.heard(), [])
        self.assertEqual(self.session.queued, 0)

    def test_more_streams_than_allowed(self):
        """
        A client that opens more streams than it may is sent away.
        """
        pair = Pair(is_server=True, limits=SessionLimits(max_concurrent_streams=2))
        pair.peer.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 100
        pair.peer.remote_settings.acknowledge()
        for stream_id in (1, 3, 5):
            pair.peer.send_headers(stream_id, GET, end_stream=True)
        self.assertEqual([event[0] for event in pair.heard()], ["head", "head", "fault", "over"])

    def test_extended_connect(self):
        """
        RFC 8441 is refused unless allowed.
        """
        connect = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:]]
        self.client.config.validate_outbound_headers = False
        self.ask(connect, ended=False)
        self.assertEqual(self.pair.heard(), [("fault", 1, False)])
        pair = Pair(is_server=True, limits=SessionLimits(allows_extended_connect=True))
        pair.peer.config.validate_outbound_headers = False
        pair.peer.send_headers(1, connect)
        self.assertEqual(pair.heard(), [("head", 1, connect, False)])


class ClientTests(SynchronousTestCase):
    """
    A session as the client, `h2` as the server.
    """

    def setUp(self):
        self.pair = Pair(is_server=False, limits=SessionLimits(stream_window=65536))
        self.session = self.pair.session
        self.server = self.pair.peer

    def test_exchange(self):
        """
        A request with body and trailers is answered by interim heads, a head, a body and trailers.
        """
        stream_id = self.session.open_stream(POST, False)
        self.session.send_data(stream_id, b"hello", False)
        self.session.send_trailers(stream_id, [(b"x-sum", b"5")])
        self.pair.pump()
        self.assertEqual(
            [type(event).__name__ for event in self.pair.events], ["RequestReceived", "DataReceived", "TrailersReceived", "StreamEnded"]
        )
        self.server.send_headers(1, [(b":status", b"103")])
        self.server.send_headers(1, OK)
        self.server.send_data(1, b"world")
        self.server.send_headers(1, [(b"grpc-status", b"0")], end_stream=True)
        self.assertEqual(
            self.pair.heard(),
            [
                ("interim", 1, [(b":status", b"103")]),
                ("head", 1, OK, False),
                ("data", 1, b"world", False),
                ("trailers", 1, [(b"grpc-status", b"0")]),
                ("closed", 1, 0),
            ],
        )

    def test_as_many_streams_as_the_server_allows(self):
        """
        No stream is opened beyond the server's limit, and there is room again when one has closed.
        """
        self.server.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        self.pair.pump()
        self.assertEqual(self.session.peer_max_streams, 1)
        self.assertTrue(self.session.can_open)
        self.session.open_stream(GET, True)
        self.assertFalse(self.session.can_open)
        self.pair.pump()
        self.server.send_headers(1, OK, end_stream=True)
        self.pair.pump()
        self.assertTrue(self.session.can_open)

    def test_server_goes_away(self):
        """
        When the server goes away, streams that it has not seen are refused, and none can be opened.
        """
        self.session.open_stream(GET, True)
        self.pair.pump()
        second = self.session.open_stream(GET, True)
        self.server.close_connection(last_stream_id=1)
        self.assertEqual(self.pair.heard(), [("going away", 1, 0), ("closed", second, int(ErrorCode.REFUSED_STREAM))])
        self.assertFalse(self.session.can_open)
        self.assertEqual(self.session.open_stream(GET, True), 0)

    def test_cancel(self):
        """
        A request can be given up.
        """
        self.session.open_stream(GET, True)
        self.pair.pump()
        self.session.reset(1, ErrorCode.CANCEL)
        self.assertEqual(self.pair.heard(), [("closed", 1, CANCEL)])
        self.assertEqual([event.error_code for event in self.pair.seen(h2.events.StreamReset)], [CANCEL])

    def test_server_resets(self):
        """
        A reset by the server closes the stream and is no fault.
        """
        self.session.open_stream(GET, True)
        self.pair.pump()
        self.server.reset_stream(1, ErrorCodes.INTERNAL_ERROR)
        self.assertEqual(self.pair.heard(), [("closed", 1, 2)])

    def test_slow_server(self):
        """
        The sender of a large request body is told to stop, and to go on.
        """
        self.session.open_stream(POST, False)
        self.session.send_data(1, bytes(200000), False)
        self.assertEqual(self.pair.heard(), [("congested", 1)])
        self.server.increment_flow_control_window(140000, 1)
        self.server.increment_flow_control_window(140000)
        self.assertEqual(self.pair.heard(), [("drained", 1)])

    def test_response_is_credited_when_it_is_taken(self):
        """
        A server cannot send more than the window until somebody takes what it sent.
        """
        self.pair.recorder.takes = False
        self.session.open_stream(GET, True)
        self.pair.pump()
        self.server.send_headers(1, OK)
        for _ in range(4):
            self.server.send_data(1, bytes(16384))
        self.pair.pump()
        self.assertEqual(self.server.local_flow_control_window(1), 0)
        self.session.credit(1, 65536)
        self.pair.pump()
        self.assertEqual(self.server.local_flow_control_window(1), 65536)

    def test_push_is_refused(self):
        """
        A server that pushes was told not to, and is left.
        """
        self.session.open_stream(GET, True)
        self.pair.pump()
        self.pair.say(frame(5, 4, 1, (2).to_bytes(4, "big") + b"\x82\x84\x86"))
        self.assertEqual([event[0] for event in self.pair.recorder.take()], ["fault", "over"])


class FloodTests(SynchronousTestCase):
    """
    Clients that make work and no progress.
    """

    def setUp(self):
        self.pair = Pair(is_server=True)

    def assert_sent_away(self, answered):
        """
        Insist on the error for floods, and that nothing goes on.
        """
        self.assertEqual([payload[4:8] for kind, _, _, payload in answered if kind == GOAWAY], [CALM.to_bytes(4, "big")])
        self.assertTrue(self.pair.session.is_over)
        heard = self.pair.recorder.take()
        self.assertEqual(heard[-2:], [("fault", CALM, True), ("over", CALM)])
        self.assertEqual(self.pair.session.collect(), b"")

    def test_idle_frames(self):
        """
        Frames that bring nothing forward are answered up to a number, and then the client is sent away.
        """
        floods = {
            "ping": frame(PING, 0, 0, bytes(8)),
            "ping acknowledged": frame(PING, 1, 0, bytes(8)),
            "settings": frame(SETTINGS, 0, 0),
            "settings that change": frame(SETTINGS, 0, 0, b"\x00\x04\x00\x00\xff\xff"),
            "priority": frame(2, 0, 1, bytes(4) + b"\x10"),
            "unknown": frame(0xAB, 0, 1, b"abc"),
            "window": frame(8, 0, 0, b"\x00\x00\x00\x01"),
            "empty data": frame(0, 0, 1),
            "priority update": frame(16, 0, 0, (1).to_bytes(4, "big") + b"u=1"),
        }
        for name, flood in floods.items():
            with self.subTest(name):
                self.setUp()
                self.pair.peer.send_headers(1, POST)
                self.pair.pump()
                self.pair.session.send_head(1, OK, False)
                self.pair.pump()
                self.pair.recorder.take()
                answered = []
                for _ in range(30):
                    answered += self.pair.say(flood * 50)
                self.assert_sent_away(answered)

    def test_idle_frames_over_time(self):
        """
        A connection that is kept alive by a ping now and then lives.
        """
        for second in range(3000):
            self.pair.now = float(second)
            self.assertEqual(len(self.pair.say(frame(PING, 0, 0, bytes(8)))), 1)
        self.assertFalse(self.pair.session.is_over)

    def test_rapid_reset(self):
        """
        A client that opens streams only to reset them is sent away.
        """
        answered = []
        for number in range(300):
            if not self.pair.session.is_over:
                stream_id = 2 * number + 1
                self.pair.peer.send_headers(stream_id, GET, end_stream=True)
                self.pair.peer.reset_stream(stream_id)
                answered += self.pair.say(self.pair.peer.data_to_send())
        self.assert_sent_away(answered)

    def test_reset_provoked(self):
        """
        A client that makes the gateway reset its streams is sent away as well.
        """
        answered = []
        for number in range(300):
            if not self.pair.session.is_over:
                stream_id = 2 * number + 1
                self.pair.peer.send_headers(stream_id, GET, end_stream=True)
                answered += self.pair.say(self.pair.peer.data_to_send() + frame(8, 0, stream_id, bytes(4)))
        self.assertEqual(self.pair.recorder.take()[-1][0], "over")

    def test_cancelling_among_others(self):
        """
        A client that gives up every other request lives.
        """
        for number in range(1000):
            stream_id = 2 * number + 1
            self.pair.peer.send_headers(stream_id, GET, end_stream=True)
            if number % 2:
                self.pair.peer.reset_stream(stream_id)
            self.pair.pump()
            self.pair.session.send_head(stream_id, [(b":status", b"204")], True)
            self.pair.pump()
        self.assertFalse(self.pair.session.is_over)

    def test_continuation(self):
        """
        A header block without end is cut off.
        """
        block = frame(1, 0, 1, b"\x82\x84\x86")
        answered = self.pair.say(block + frame(9, 0, 1, b"\x40\x01a\x01b") * 20)
        self.assert_sent_away(answered)

    def test_header_bomb(self):
        """
        Fields that are small on the wire and large in memory are cut off.
        """
        self.pair.peer.send_headers(1, [*GET, (b"x-a", b"a" * 3900)], end_stream=True)
        self.pair.pump()
        self.pair.recorder.take()
        # Forty references to the entry that the first request has left in the table.
        answered = self.pair.say(frame(1, 5, 3, b"\x82\x84\x86\x41\x01a" + b"\xbf" * 100))
        self.assert_sent_away(answered)

    def test_too_many_settings(self):
        """
        A frame with more settings than there are is refused.
        """
        answered = self.pair.say(frame(SETTINGS, 0, 0, b"\x00\x04\x00\x00\xff\xff" * 100))
        self.assert_sent_away(answered)

    def test_acknowledgements_that_nobody_fetches(self):
        """
        A client that has its pings answered and does not read is sent away.
        """
        self.pair.session.feed(frame(PING, 0, 0, bytes(8)) * 2000, 0.0)
        self.assertTrue(self.pair.recorder.take()[0][2])

    def test_server_that_floods(self):
        """
        A server is not put up with either.
        """
        pair = Pair(is_server=False)
        for _ in range(30):
            pair.say(frame(PING, 0, 0, bytes(8)) * 50)
        self.assertEqual(pair.recorder.take(), [("fault", CALM, True), ("over", CALM)])


class GarbageTests(SynchronousTestCase):
    """
    Bytes that are not HTTP/2, or not quite.
    """

    def conversation(self):
        """
        Return what a client says in an eventful life.
        """
        pair = Pair(is_server=True)
        said = []

        def say():
            data = pair.peer.data_to_send()
            said.append(data)
            pair.session.feed(data, 0.0)
            pair.events += pair.peer.receive_data(pair.session.collect())

        for stream_id in (1, 3, 5):
            pair.peer.send_headers(stream_id, [*POST, (b"x-a", b"b" * stream_id)])
            pair.peer.send_data(stream_id, bytes(1000), pad_length=7)
            say()
        pair.peer.send_headers(1, [(b"x-sum", b"5")], end_stream=True)
        pair.peer.increment_flow_control_window(5, 3)
        pair.peer.ping(b"12345678")
        say()
        pair.peer.reset_stream(3)
        pair.peer.end_stream(5)
        pair.peer.close_connection()
        say()
        return PREFACE + frame(SETTINGS, 0, 0) + b"".join(said)

    def test_truncated(self):
        """
        A conversation that stops anywhere is no reason to raise.
        """
        data = self.conversation()
        for size in range(0, len(data), 7):
            session = Session(Recorder(), is_server=True, limits=SessionLimits(), now=0.0)
            session._listener.session = session
            session.feed(data[:size] or b"P", 0.0)
            session.collect()

    def test_mutated(self):
        """
        A conversation with wrong bytes in it raises nothing, in either role, and ends in a way that can be told.
        """
        chance = random.Random(7)
        data = self.conversation()
        ends = set()
        for number in range(1500):
            mutated = bytearray(data if number % 2 else data[len(PREFACE) :])
            for _ in range(chance.randrange(1, 6)):
                # Mostly where frames begin: far fewer mutations of bodies mean anything.
                at = chance.randrange(len(mutated)) if chance.random() < 0.5 else chance.randrange(120)
                mutated[at] = chance.randrange(256)
            recorder = Recorder()
            session = Session(recorder, is_server=bool(number % 2), limits=SessionLimits(), now=0.0)
            recorder.session = session
            session.feed(bytes(mutated), 0.0)
            sent = session.collect() + session.collect()
            frames(sent)
            for event in recorder.heard:
                if event[0] == "head":
                    session.send_head(event[1], OK, True)
            session.collect()
            ends.add(next((event[1] for event in recorder.heard if event[0] == "fault"), 0))
        self.assertGreater(len(ends), 3)

    def test_not_http2(self):
        """
        A client that does not begin with the preface is told so.
        """
        session = Session(recorder := Recorder(), is_server=True, limits=SessionLimits(), now=0.0)
        session.collect()
        session.feed(b"GET / HTTP/1.1\r\n\r\n", 0.0)
        self.assertEqual(recorder.take(), [("fault", 1, True), ("over", 1)])
        self.assertEqual([kind for kind, *_ in frames(session.collect())], [GOAWAY])
