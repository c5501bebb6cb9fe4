"""
Say in the words of gRPC what the gateway says in those of HTTP.

A gRPC client reads `grpc-status`, and takes any status of HTTP but 200 for a broken proxy. So an answer of the gateway's own to a gRPC
request, whoever made it, becomes a 200 that holds nothing but a status: in the head for gRPC ("Trailers-Only"), in the body for gRPC-Web,
whose clients cannot always read heads. Why the gateway answers still stands in `Proxy-Status`.
"""

from __future__ import annotations

import base64
from typing import Final

from a3sgw.errors import Outcome
from a3sgw.message import Field, LocalResponse, make_field
from a3sgw.wire.grpc import GRPC, GRPC_WEB_TEXT, code_for_status, encode_message, trailers_frame

__all__ = ["code_for", "grpc_answer", "status_fields"]

_UNAVAILABLE: Final = 14

# Where the status of HTTP does not say it: time was up before anything was sent, so that trying again is safe.
_CODES: Final = dict.fromkeys((Outcome.CONNECT_TIMEOUT, Outcome.BUFFER_TIMEOUT, Outcome.AUTH_SERVICE_TIMEOUT), _UNAVAILABLE)
_ABOUT_THE_BODY: Final = frozenset([b"content-type", b"content-length", b"content-encoding"])


def code_for(outcome: Outcome | None, status: int) -> int:
    """
    Return the gRPC code for an answer of the gateway's own.
    """
    code = None if outcome is None else _CODES.get(outcome)
    return code_for_status(status) if code is None else code


def status_fields(code: int, message: str) -> list[Field]:
    """
    Return a status of gRPC as fields.
    """
    return [make_field(b"grpc-status", b"%d" % code), make_field(b"grpc-message", encode_message(message))]


def grpc_answer(kind: bytes, response: LocalResponse) -> LocalResponse:
    """
    Return the answer that a client of `kind` (see `wire.grpc.grpc_kind`) understands instead of `response`.
    """
    outcome = response.outcome
    said = status_fields(code_for(outcome, response.status), "Refused" if outcome is None else outcome.message)
    fields = [field for field in response.fields if field[0] not in _ABOUT_THE_BODY]
    fields.append(make_field(b"Content-Type", kind))
    if kind == GRPC:
        return LocalResponse(200, fields + said, b"", outcome)
    body = trailers_frame(said)
    return LocalResponse(200, fields, base64.b64encode(body) if kind == GRPC_WEB_TEXT else body, outcome)
