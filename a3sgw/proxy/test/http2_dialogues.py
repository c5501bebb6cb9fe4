"""
What dialogues over HTTP/2 have in common: a client that is `h2`, at the end of a connection in memory.
"""

import json

import attrs
import h2.config
import h2.connection
import h2.events
import h2.settings

from a3sgw.proxy.test.dialogues import DialogueCase
from a3sgw.wire.test.http2_peer import GET, frames

__all__ = ["GET", "Answer", "Http2Case", "fields", "frames"]


def fields(method="GET", path="/", *more, authority="a.test"):
    """
    Return the header fields of a request.
    """
    pseudo = {":method": method, ":scheme": "http", ":authority": authority, ":path": path}
    return [(name.encode(), value.encode("latin-1")) for name, value in [*pseudo.items(), *more]]


@attrs.define
class Answer:
    """
    What has arrived on one stream: interim responses and the final one. `reset` is the code of a reset, if there was one.
    """

    interim: list[dict[bytes, bytes]] = attrs.field(factory=list)
    status: int = 0
    fields: dict[bytes, bytes] = attrs.field(factory=dict)
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] | None = None
    ended: bool = False
    reset: int | None = None


class Http2Case(DialogueCase):
    """
    A dialogue with a client that speaks HTTP/2, from its first byte. With `takes` it opens its windows again for whatever it gets.
    """

    takes = True

    def converse(self, **settings):
        dialogue = super().converse(**settings)
        self.client.room = 1 << 24
        self.begin()
        return dialogue

    def begin(self):
        """
        Begin to speak HTTP/2 on the client's connection.
        """
        self.peer = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None, validate_outbound_headers=False))
        self.peer.config.normalize_outbound_headers = False
        self.peer.initiate_connection()
        self.answers = {}
        self.farewells = []
        self.carry()

    def carry(self):
        """
        Carry bytes to and fro until the client has nothing to say.
        """
        while True:
            sent = self.peer.data_to_send()
            if sent:
                self.say(self.client, sent)
            received = self.hear(self.client)
            if received:
                for event in self.peer.receive_data(received):
                    self.take(event)
            if not sent and not received:
                return

    def take(self, event):
        """
        Note what happened.
        """
        if isinstance(event, h2.events.ConnectionTerminated):
            self.farewells.append((event.last_stream_id, int(event.error_code)))
        stream_id = getattr(event, "stream_id", None)
        if not stream_id:
            return
        answer = self.answers.setdefault(stream_id, Answer())
        if isinstance(event, h2.events.ResponseReceived):
            found = dict(event.headers)
            answer.status = int(found.pop(b":status"))
            answer.fields = found
        elif isinstance(event, h2.events.InformationalResponseReceived):
            answer.interim.append(dict(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            if self.takes and event.flow_controlled_length:
                self.peer.acknowledge_received_data(event.flow_controlled_length, stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = list(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = int(event.error_code)

    def request(self, head=GET, body=b"", *, ended=True):
        """
        Send a request; return its stream.
        """
        stream_id = self.peer.get_next_available_stream_id()
        self.peer.send_headers(stream_id, head, end_stream=ended and not body)
        if body:
            self.peer.send_data(stream_id, body, end_stream=ended)
        self.carry()
        return stream_id

    def answer(self, stream_id):
        """
        Return what has arrived on a stream.
        """
        self.carry()
        return self.answers.get(stream_id, Answer())

    def lines(self):
        """
        Return the lines of the access log.
        """
        self.dialogue.reactor.advance(1)
        return [json.loads(line) for line in self.dialogue.sink.data.splitlines()]

    def faults(self):
        """
        Return what clients were told to have done wrong, by scope and error.
        """
        found = []
        self.dialogue.carrier.snapshot().addCallback(found.append)
        return {(scope, error): count for _, scope, error, count in found[0]["gauges"]["http2_faults"]}
