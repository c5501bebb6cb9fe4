"""
A gRPC server that answers each unary call with what it was sent: `python -m contrib.bench.grpc_server PORT`.

Every answer ends with the number of calls so far among its trailers.
"""

from __future__ import annotations

import itertools
import sys
from concurrent import futures
from typing import Any

import grpc

__all__ = ["METHOD", "main"]

METHOD = "/bench.Echo/Say"

_calls = itertools.count(1)


def _say(request: bytes, context: Any) -> bytes:
    context.set_trailing_metadata([("x-calls", str(next(_calls)))])
    return request


def main() -> None:
    """
    Serve for ever.
    """
    _, service, method = METHOD.split("/")
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)])
    handler = grpc.method_handlers_generic_handler(service, {method: grpc.unary_unary_rpc_method_handler(_say)})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
