"""
The other end of HTTP/2 connections in tests: `h2`, which shares nothing with what it talks to.
"""

import h2.config
import h2.connection
import h2.events

from a3sgw.wire.http2 import PREFACE, Session, SessionLimits

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.test"), (b":path", b"/")]
POST = [(b":method", b"POST"), *GET[1:]]
OK = [(b":status", b"200")]

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS = 4
PADDED = 8
PRIORITISED = 32


def frame(kind, flags, stream_id, payload=b""):
    """
    Return one frame.
    """
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def frames(data):
    """
    Return the frames in `data`: kind, flags, stream and payload of each.
    """
    found = []
    data = data.removeprefix(PREFACE)
    while data:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


class Recorder:
    """
    A listener that writes down what it hears, as tuples whose first member says what.
    """

    def __init__(self):
        self.heard = []
        self.session = None
        self.takes = True

    def head_received(self, stream_id, fields, ended):
        """
        Write it down.
        """
        self.heard.append(("head", stream_id, list(fields), ended))

    def interim_received(self, stream_id, fields):
        """
        Write it down.
        """
        self.heard.append(("interim", stream_id, list(fields)))

    def data_received(self, stream_id, piece, ended):
        """
        Write it down, and take it if that is what this listener does.
        """
        self.heard.append(("data", stream_id, piece, ended))
        if self.takes:
            self.session.credit(stream_id, len(piece))

    def trailers_received(self, stream_id, fields):
        """
        Write it down.
        """
        self.heard.append(("trailers", stream_id, list(fields)))

    def stream_closed(self, stream_id, code):
        """
        Write it down.
        """
        self.heard.append(("closed", stream_id, int(code)))

    def stream_congested(self, stream_id):
        """
        Write it down.
        """
        self.heard.append(("congested", stream_id))

    def stream_drained(self, stream_id):
        """
        Write it down.
        """
        self.heard.append(("drained", stream_id))

    def settings_received(self):
        """
        Write it down.
        """
        self.heard.append(("settings",))

    def going_away(self, last_stream_id, code):
        """
        Write it down.
        """
        self.heard.append(("going away", last_stream_id, int(code)))

    def pong_received(self):
        """
        Write it down.
        """
        self.heard.append(("pong",))

    def fault_found(self, code, reason, *, is_fatal):
        """
        Write it down, without the reason, which is the library's.
        """
        self.heard.append(("fault", int(code), is_fatal))

    def session_closed(self, code):
        """
        Write it down.
        """
        self.heard.append(("over", int(code)))

    def take(self):
        """
        Return what was heard since the last time, but for settings.
        """
        heard, self.heard = self.heard, []
        return [event for event in heard if event[0] != "settings"]


class Pair:
    """
    A session and an `h2` connection, which exchange bytes when told to.

    `now` is what the session is told the time is. `events` are those of the peer.
    """

    def __init__(self, *, is_server, limits=None):
        self.recorder = Recorder()
        self.now = 0.0
        self.session = Session(self.recorder, is_server=is_server, limits=limits or SessionLimits(), now=0.0)
        self.recorder.session = self.session
        self.peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=is_server, header_encoding=None))
        self.peer.initiate_connection()
        self.events = []
        self.pump()
        self.recorder.take()
        self.events.clear()

    def pump(self):
        """
        Carry bytes to and fro until neither has anything to say.
        """
        while True:
            sent = self.peer.data_to_send()
            if sent:
                self.session.feed(sent, self.now)
            received = self.session.collect()
            if received:
                self.events += self.peer.receive_data(received)
            if not sent and not received:
                return

    def say(self, data):
        """
        Give the session bytes that the peer would never send; return the frames that it answers with.
        """
        self.session.feed(data, self.now)
        return frames(self.session.collect() + self.session.collect())

    def heard(self):
        """
        Carry bytes, and return what the session's listener heard.
        """
        self.pump()
        return self.recorder.take()

    def seen(self, kind):
        """
        Carry bytes, and return the peer's events of one kind since the last time.
        """
        self.pump()
        found = [event for event in self.events if isinstance(event, kind)]
        self.events.clear()
        return found
