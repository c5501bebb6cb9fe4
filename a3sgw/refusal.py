"""
The gateway's own words for an outcome.

Whoever refuses a request, a middleware or the exchange itself, answers in the same form: JSON with the reason, and the same reason in
`Proxy-Status` (RFC 9209).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final

from a3sgw.errors import Outcome
from a3sgw.message import Field, LocalResponse, make_field

__all__ = ["proxy_status", "refusal"]

_JSON: Final = make_field(b"Content-Type", b"application/json")
_RETRY_AFTER: Final = make_field(b"Retry-After", b"1")
# RFC 9110 section 15.5.22 and RFC 6455 section 4.2.2: what would be accepted.
_UPGRADE: Final = (make_field(b"Upgrade", b"websocket"), make_field(b"Connection", b"Upgrade"), make_field(b"Sec-WebSocket-Version", b"13"))


def _status_field(outcome: Outcome) -> Field:
    error = "" if outcome.proxy_status is None else f" error={outcome.proxy_status};"
    return make_field(b"Proxy-Status", f'a3s-gateway;{error} details="{outcome.word}"'.encode("ascii"))


_STATUS_FIELDS: Final = {outcome.word: _status_field(outcome) for outcome in Outcome}


def proxy_status(outcome: Outcome) -> Field:
    """
    Return the `Proxy-Status` field that names `outcome`.
    """
    return _STATUS_FIELDS[outcome.word]


def refusal(
    outcome: Outcome,
    request_id: bytes,
    fields: Iterable[Field] = (),
    message: str = "",
    members: Mapping[str, object] | None = None,
) -> LocalResponse:
    """
    Return the answer for `outcome`, which must have a status.

    `fields` are added to the usual ones; a 503 without `Retry-After` gets one of a second. `message` stands in for the outcome's own
    sentence, `members` are further members of the JSON object.
    """
    assert outcome.status is not None
    own = [_JSON, proxy_status(outcome), *fields]
    if outcome is Outcome.WEBSOCKET_VERSION_REFUSED:
        own += _UPGRADE
    if outcome.status == 503 and not any(field[0] == b"retry-after" for field in own):
        own.append(_RETRY_AFTER)
    body = {"error": message or outcome.message, "reason": outcome.word, **(members or {}), "request_id": request_id.decode("latin-1")}
    return LocalResponse(outcome.status, own, json.dumps(body).encode("ascii") + b"\n", outcome)
