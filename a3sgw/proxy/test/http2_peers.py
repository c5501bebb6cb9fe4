"""
A backend that speaks HTTP/2, made of somebody else's library.
"""

from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings


class Http2Backend:
    """
    The backend's end of an HTTP/2 connection. `requests` are the header lists by stream, `bodies` and `trailers` what came after, `ended`
    and `resets` what became of the streams.
    """

    def __init__(self, end: Any, reactor: Any, *, max_streams: int = 100, window: int = 65535, credits: bool = True) -> None:
        self.end = end
        self.reactor = reactor
        self.credits = credits
        self.requests: dict[int, list[tuple[bytes, bytes]]] = {}
        self.bodies: dict[int, bytes] = {}
        self.trailers: dict[int, list[tuple[bytes, bytes]]] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.pings = 0
        self.goodbye: int | None = None
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self.h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: max_streams,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window,
            },
        )
        self.h2.initiate_connection()

    def flush(self) -> None:
        """
        Send what there is to send, and let things happen.
        """
        data = self.h2.data_to_send()
        if data and not self.end.is_closed and not self.end.was_reset:
            self.end.send(data)
        self.reactor.settle()

    def listen(self) -> None:
        """
        Read what has arrived, answer it where the protocol does, and so on until nothing more comes.
        """
        self.flush()
        while data := self.end.take():
            for event in self.h2.receive_data(data):
                self.take(event)
            self.flush()

    def take(self, event: Any) -> None:
        """
        Note one event.
        """
        if isinstance(event, h2.events.RequestReceived):
            self.requests[event.stream_id] = [tuple(each) for each in event.headers]
            self.bodies[event.stream_id] = b""
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            if self.credits and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers[event.stream_id] = [tuple(each) for each in event.headers]
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.add(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.resets[event.stream_id] = int(event.error_code or 0)
        elif isinstance(event, h2.events.PingReceived):
            self.pings += 1
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goodbye = int(event.error_code or 0)

    def head(self, stream_id: int, *fields: tuple[str, str], status: int = 200, ended: bool = False) -> None:
        """
        Begin to answer.
        """
        self.h2.send_headers(stream_id, [(":status", str(status)), *fields], end_stream=ended)
        self.flush()

    def data(self, stream_id: int, piece: bytes, *, ended: bool = False) -> None:
        """
        Go on answering, as far as the window allows.
        """
        self.h2.send_data(stream_id, piece, end_stream=ended)
        self.flush()

    def end_with(self, stream_id: int, *fields: tuple[str, str]) -> None:
        """
        End an answer with trailers.
        """
        self.h2.send_headers(stream_id, list(fields), end_stream=True)
        self.flush()

    def answer(self, stream_id: int, body: bytes = b"ok", *fields: tuple[str, str], status: int = 200) -> None:
        """
        Answer as a whole.
        """
        self.head(stream_id, *fields, status=status, ended=not body)
        if body:
            self.data(stream_id, body, ended=True)

    def reset(self, stream_id: int, code: int) -> None:
        """
        Break a stream off.
        """
        self.h2.reset_stream(stream_id, code)
        self.flush()

    def leave(self, last_stream_id: int, code: int = 0) -> None:
        """
        Say that no further streams are taken.
        """
        from hyperframe.frame import GoAwayFrame

        frame = GoAwayFrame(0)
        frame.last_stream_id = last_stream_id
        frame.error_code = code
        self.end.send(frame.serialize())
        self.reactor.settle()
