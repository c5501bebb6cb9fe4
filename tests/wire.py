"""
Speak HTTP/1 byte by byte, on both sides of a gateway.

`Client` is a client that does what a test says and reads answers strictly. `Stage` is a backend whose behaviour a test sets per path.
Nothing here waits without a limit.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tests.support import PATIENCE, Conversation, RawServer

__all__ = [
    "Answer",
    "Client",
    "FullBacklog",
    "Scene",
    "Stage",
    "head_fields",
    "read_body",
    "read_chunked",
    "request",
]

# -- the client's side ----------------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """
    One response as it stood on the wire. Field names are in lower case; `interim` holds the 1xx answers that came before it.
    """

    line: str
    status: int
    fields: list[tuple[str, str]]
    body: bytes
    trailers: list[tuple[str, str]]
    interim: list[Any]

    def get(self, name: str) -> str | None:
        """
        Return the only value of a field, or `None`; a repeated one is an error.
        """
        values = self.get_all(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def get_all(self, name: str) -> list[str]:
        """
        Return every value of a field.
        """
        return [value for known, value in self.fields if known == name]


def _read_fields(lines: Iterable[bytes]) -> list[tuple[str, str]]:
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        assert colon, f"malformed header line {line!r}"
        assert name == name.strip(), f"malformed header line {line!r}"
        fields.append((name.decode("ascii").lower(), value.strip().decode("latin-1")))
    return fields


class Client:
    """
    One connection to a loopback port. A context manager; leaving it closes the connection.
    """

    def __init__(self, port: int, *, timeout: float = PATIENCE, receive_buffer: int | None = None, source: str | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source is not None:
            self.socket.bind((source, 0))
        try:
            self.socket.connect(("127.0.0.1", port))
        except BaseException:
            self.socket.close()
            raise
        self._unread = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.close()

    def close(self) -> None:
        """
        Close the connection in order.
        """
        self.socket.close()

    def reset(self) -> None:
        """
        Break the connection off with a RST.
        """
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.socket.close()

    def send(self, data: bytes) -> None:
        """
        Send all of `data`.
        """
        self.socket.sendall(data)

    def send_aside(self, data: bytes) -> threading.Thread:
        """
        Send `data` from a thread, because the peer may not take it all soon. A peer that closes ends it.
        """

        def send() -> None:
            with contextlib.suppress(OSError):
                self.socket.sendall(data)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        return thread

    def ask(self, target: str = "/", *lines: str, method: str = "GET", body: bytes = b"") -> None:
        """
        Send one HTTP/1.1 request for the host `test`, with further header lines and a body of known length.
        """
        self.send(request(target, *lines, method=method, body=body))

    def fetch(self, target: str = "/", *lines: str, method: str = "GET", body: bytes = b"") -> Answer:
        """
        Send one request as `ask` does and return its answer.
        """
        self.ask(target, *lines, method=method, body=body)
        return self.read_answer(method)

    def read_head(self) -> tuple[str, list[tuple[str, str]]]:
        """
        Read one response head: its status line and fields.
        """
        while b"\r\n\r\n" not in self._unread:
            assert self._more(), f"the connection ended within a response head, after {self._unread[:200]!r}"
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0].startswith(b"HTTP/1.1 "), f"no HTTP/1.1 status line: {lines[0][:100]!r}"
        return lines[0].decode("latin-1"), _read_fields(lines[1:])

    def read_answer(self, method: str = "GET") -> Answer:
        """
        Read one response to a request by `method`, and the 1xx responses before it.
        """
        interim = []
        while True:
            line, fields = self.read_head()
            status = int(line.split(" ")[1])
            if status >= 200:
                break
            interim.append((status, fields))
        trailers: list[tuple[str, str]] = []
        names = [name for name, _ in fields]
        assert not ("content-length" in names and "transfer-encoding" in names), f"framed twice: {fields}"
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif ("transfer-encoding", "chunked") in fields:
            body, trailers = read_chunked(self.read_line, self.read)
        elif "content-length" in names:
            length = int(dict(fields)["content-length"])
            body = self.read(length)
            assert len(body) == length, f"the connection ended after {len(body)} of {length} bytes"
        else:
            body = self.read_to_end()
        return Answer(line, status, fields, body, trailers, interim)

    def read_line(self) -> bytes:
        """
        Read one line and return it without its CRLF.
        """
        while b"\r\n" not in self._unread:
            assert self._more(), f"the connection ended within a line, after {self._unread[:200]!r}"
        line, _, self._unread = self._unread.partition(b"\r\n")
        return line

    def read(self, size: int) -> bytes:
        """
        Read `size` bytes, fewer only if the connection ended.
        """
        pieces = [self._unread]
        have = len(self._unread)
        while have < size:
            data = self.socket.recv(65536)
            if not data:
                break
            pieces.append(data)
            have += len(data)
        everything = b"".join(pieces)
        self._unread = everything[size:]
        return everything[:size]

    def take(self) -> bytes:
        """
        Return what has been received and not been read, so that the rest can be had from the socket.
        """
        data, self._unread = self._unread, b""
        return data

    def read_to_end(self) -> bytes:
        """
        Read everything until the connection ends in order.
        """
        while self._more():
            pass
        data, self._unread = self._unread, b""
        return data

    def ending(self, within: float = PATIENCE) -> str:
        """
        Wait for the end of the connection: `closed`, `reset`, or `open` if there is none in time. What comes before is dropped.
        """
        end = time.monotonic() + within
        while True:
            left = end - time.monotonic()
            if left <= 0:
                return "open"
            self.socket.settimeout(left)
            try:
                if not self.socket.recv(65536):
                    return "closed"
            except ConnectionError:
                return "reset"
            except TimeoutError:
                return "open"

    def is_silent(self, seconds: float) -> bool:
        """
        Tell whether nothing at all arrives for a while.
        """
        if self._unread:
            return False
        before = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            self._unread = self.socket.recv(65536)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(before)
        return False

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self._unread += data
        return bool(data)


def request(target: str = "/", *lines: str, method: str = "GET", body: bytes = b"") -> bytes:
    """
    Return an HTTP/1.1 request for the host `test`.
    """
    head = [f"{method} {target} HTTP/1.1", "Host: test", *lines]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def read_chunked(read_line: Callable[[], bytes], read: Callable[[int], bytes]) -> tuple[bytes, list[tuple[str, str]]]:
    """
    Read a chunked body and its trailers, strictly.
    """
    pieces = []
    while True:
        line = read_line()
        size = int(line, 16)
        if not size:
            break
        pieces.append(read(size))
        assert len(pieces[-1]) == size, "the connection ended within a chunk"
        assert read(2) == b"\r\n", "a chunk without its end"
    trailers = []
    while line := read_line():
        trailers.append(line)
    return b"".join(pieces), _read_fields(trailers)


# -- the backend's side ---------------------------------------------------------------------------------------------------------------


class Scene(Conversation):
    """
    A conversation that keeps nothing of what was read, so that gigabytes may pass.
    """

    def take(self) -> bytes:
        """
        Return what has been received and not been read, so that the rest can be had from the socket.
        """
        data, self._unread = self._unread, b""
        return data

    def _more(self) -> bool:
        data = self.socket.recv(65536)
        self._unread += data
        return bool(data)


class Stage:
    """
    A backend that plays, for each path, what the test that owns the path says.

    A play is called with the conversation and the request head just read, in the connection's thread, and reads the body itself if there
    is one; the connection is kept unless it returns true. Paths without a play are answered `200 ok`, after their body. `heads` are the
    request heads in the order of their arrival, `connections` counts those accepted, `ended` those that are over.
    """

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.ended = 0
        self._plays: dict[str, Callable[[Scene, bytes], object]] = {}
        self._server = RawServer(self._play)
        self.port = self._server.port

    @property
    def connections(self) -> int:
        """
        How many connections were accepted so far.
        """
        return len(self._server.received)

    def on(self, path: str, play: Callable[[Scene, bytes], object] | bytes) -> None:
        """
        Set what happens on `path`: a play, or simply the bytes of a response.
        """
        if isinstance(play, bytes):
            response = play

            def answer(conversation: Scene, head: bytes) -> None:
                read_body(conversation, head)
                conversation.send(response)

            self._plays[path] = answer
        else:
            self._plays[path] = play

    def count(self, path: str) -> int:
        """
        Tell how many requests have come for `path`.
        """
        return sum(_path(head) == path for head in self.heads)

    def head_for(self, path: str) -> bytes:
        """
        Return the last request head for `path`.
        """
        return next(head for head in reversed(self.heads) if _path(head) == path)

    def stop(self) -> None:
        """
        Stop, and raise what went wrong in a play.
        """
        self._server.stop()

    def _play(self, accepted: Conversation) -> None:
        try:
            self._converse(Scene(accepted.socket, bytearray()))
        finally:
            self.ended += 1

    def _converse(self, conversation: Scene) -> None:
        while True:
            # A pooled connection may rest for longer than anything else may take.
            conversation.socket.settimeout(600)
            head = conversation.read_until(b"\r\n\r\n")
            conversation.socket.settimeout(PATIENCE)
            if not head.endswith(b"\r\n\r\n"):
                return
            self.heads.append(head)
            play = self._plays.get(_path(head), _answer_ok)
            if play(conversation, head):
                return


def _path(head: bytes) -> str:
    return head.split(b" ", 2)[1].partition(b"?")[0].decode("latin-1")


def _answer_ok(conversation: Scene, head: bytes) -> None:
    read_body(conversation, head)
    conversation.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def read_body(conversation: Scene, head: bytes) -> tuple[bytes, list[tuple[str, str]]]:
    """
    Read the body that follows a request head, and its trailers.
    """
    fields = dict(head_fields(head))
    if fields.get("transfer-encoding") == "chunked":
        return read_chunked(lambda: conversation.read_until(b"\r\n").removesuffix(b"\r\n"), conversation.read)
    return conversation.read(int(fields.get("content-length", "0"))), []


def head_fields(head: bytes) -> list[tuple[str, str]]:
    """
    Return the fields of a request head as a backend got it, names in lower case.
    """
    return _read_fields(line for line in head.split(b"\r\n")[1:] if line)


class FullBacklog:
    """
    A loopback port on which connecting never ends: somebody listens, but nobody accepts and no more fit into the queue.
    """

    def __init__(self) -> None:
        self._door = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port: int = self._door.getsockname()[1]
        self._queued: list[socket.socket] = []
        while len(self._queued) < 16:
            filler = socket.socket()
            filler.settimeout(0.2)
            self._queued.append(filler)
            try:
                filler.connect(("127.0.0.1", self.port))
            except TimeoutError:
                return
        raise AssertionError("the backlog does not fill")

    def stop(self) -> None:
        """
        Close everything.
        """
        for each in (self._door, *self._queued):
            each.close()
