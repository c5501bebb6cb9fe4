"""
Clients and servers of gRPC, of the gRPC project's own making.

Messages are bytes: what is said in them is nobody's business here, so there is nothing to generate.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

__all__ = ["LARGEST", "GrpcServer", "connect", "method"]

LARGEST = 80 << 20
"""Bytes that a message may have, at either end."""

_OPTIONS = [("grpc.max_receive_message_length", LARGEST), ("grpc.max_send_message_length", LARGEST)]


def connect(port: int, *, secure: bytes = b"") -> grpc.Channel:
    """
    Return a channel to a loopback port, with TLS if `secure` is the certificate to trust. Each has connections of its own.
    """
    options = [*_OPTIONS, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    if secure:
        return grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(secure), options=options)
    return grpc.insecure_channel(f"127.0.0.1:{port}", options=options)


class GrpcServer:
    """
    A server on a free port. `calls` are the metadata of those that came; `cancelled` is set when a client gave one up.

    Its methods, of the service `test.Echo`: `Once` answers what it is asked, `Many` with each byte of it, `Gather` with all it is told,
    `Talk` with each thing it is told. `Fail` ends with a status and details, `Wait` with nothing more, for ever. It has a health service
    too, which answers `state`.
    """

    def __init__(self, name: str = "one", *, port: int = 0, credentials: Any = None) -> None:
        self.name = name
        self.calls: list[dict[str, Any]] = []
        self.cancelled = threading.Event()
        self.state = b"\x08\x01"
        self._server = grpc.server(ThreadPoolExecutor(16), options=_OPTIONS)
        echo = {
            "Once": grpc.unary_unary_rpc_method_handler(self._once),
            "Many": grpc.unary_stream_rpc_method_handler(self._many),
            "Gather": grpc.stream_unary_rpc_method_handler(self._gather),
            "Talk": grpc.stream_stream_rpc_method_handler(self._talk),
            "Fail": grpc.unary_unary_rpc_method_handler(self._fail),
            "Wait": grpc.unary_stream_rpc_method_handler(self._wait),
        }
        health = {"Check": grpc.unary_unary_rpc_method_handler(lambda request, context: self.state)}
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("test.Echo", echo), grpc.method_handlers_generic_handler("grpc.health.v1.Health", health)]
        )
        address = f"127.0.0.1:{port}"
        self.port: int = (
            self._server.add_insecure_port(address) if credentials is None else self._server.add_secure_port(address, credentials)
        )
        self._server.start()

    def stop(self) -> None:
        """
        Break off whatever is under way.
        """
        self._server.stop(None).wait(10)

    def _note(self, context: grpc.ServicerContext) -> None:
        self.calls.append(dict(context.invocation_metadata()))
        context.send_initial_metadata([("x-server", self.name), ("x-both-bin", b"\x00\xff")])
        context.set_trailing_metadata([("x-late", "1"), ("x-late-bin", b"\xfe\x00")])

    def _once(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._note(context)
        return request

    def _many(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._note(context)
        for byte in request:
            yield bytes([byte])

    def _gather(self, requests: Iterable[bytes], context: grpc.ServicerContext) -> bytes:
        self._note(context)
        return b"".join(requests)

    def _talk(self, requests: Iterable[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._note(context)
        yield from requests

    def _fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._note(context)
        context.set_trailing_metadata([("grpc-status-details-bin", b"\x08\x05\x12\x02no"), ("x-late", "2")])
        context.abort(grpc.StatusCode(_CODES[int(request)]), "no such thing: größe")
        raise AssertionError

    def _wait(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._note(context)
        context.add_callback(self.cancelled.set)
        yield b"begun"
        self.cancelled.wait(30)


_CODES = {code.value[0]: code.value for code in grpc.StatusCode}


def method(channel: grpc.Channel, name: str) -> Any:
    """
    Return a method of `test.Echo`, to be called.
    """
    kinds = {"Once": channel.unary_unary, "Fail": channel.unary_unary, "Gather": channel.stream_unary, "Talk": channel.stream_stream}
    return kinds.get(name, channel.unary_stream)(f"/test.Echo/{name}")
