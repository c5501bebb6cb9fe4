"""
Say how an exchange ended, and what the client is told about it.

`Outcome` is a closed list. Each member carries the one row of the table that everything else reads: the status the gateway answers
with, the word that stands in the access log, the metric label and the JSON body, the RFC 9209 `Proxy-Status` error, the sentence for
the client, and whether another backend may be tried. A test says the table is total, so a new way to fail cannot be forgotten.

Exceptions here are for a peer's crimes and for configuration; what the gateway decides (a denial, a missing route) is a value.
"""

from __future__ import annotations

import enum

__all__ = [
    "AssemblyError",
    "DownstreamError",
    "MiddlewareError",
    "Outcome",
    "ProtocolError",
    "UpstreamError",
]


class Outcome(enum.Enum):
    """
    How one exchange, or one attempt at a backend, ended.

    Members are declared as `(status, proxy_status, retryable, message)`. `status` is `None` where the gateway adds no answer of its own.
    `proxy_status` is the error type of RFC 9209 section 2.3, or `None` where no `Proxy-Status` is due. `retryable` says that another
    attempt may help; whether one is *allowed* depends on what was already sent. `word` is the member's name in kebab-case.
    """

    status: int | None
    proxy_status: str | None
    retryable: bool
    message: str
    word: str

    def __init__(self, status: int | None, proxy_status: str | None, retryable: bool, message: str) -> None:
        self.status = status
        self.proxy_status = proxy_status
        self.retryable = retryable
        self.message = message
        self.word = self.name.lower().replace("_", "-")

    @property
    def is_backend_fault(self) -> bool:
        """
        Whether an attempt that ended so speaks against the backend, and not against the client or the gateway's own bounds.
        """
        return self.word in _BACKEND_FAULTS

    @property
    def was_sent(self) -> bool:
        """
        Whether the request, or a part of it, may have reached a backend when an attempt ended so.
        """
        return self.word not in _BEFORE_SENDING

    # The exchange went through, or the gateway answered on purpose.
    COMPLETED = (None, None, False, "Completed")
    DASHBOARD = (None, None, False, "Answered by the gateway's own API")

    # The client's doing: it left, it stalled, or it sent what two servers could read two ways.
    CLIENT_CLOSED = (None, None, False, "Client closed the connection")
    CLIENT_STALLED = (None, None, False, "Client stopped reading the response")
    REQUEST_LINE_MALFORMED = (400, "http_request_error", False, "Malformed request line")
    VERSION_NOT_SUPPORTED = (505, "http_request_error", False, "HTTP version not supported")
    METHOD_NOT_SUPPORTED = (501, "http_request_error", False, "Method not supported")
    TARGET_MALFORMED = (400, "http_request_error", False, "Malformed request target")
    PATH_REFUSED = (400, "http_request_error", False, "Ambiguous or malformed path")
    HEADER_MALFORMED = (400, "http_request_error", False, "Malformed header field")
    HEADER_NAME_REFUSED = (400, "http_request_error", False, "Header name with an underscore refused")
    BARE_LINE_BREAK = (400, "http_request_error", False, "Bare CR or LF")
    FOLDED_HEADER = (400, "http_request_error", False, "Folded header line")
    HOST_MISSING = (400, "http_request_error", False, "Host header missing")
    HOST_MALFORMED = (400, "http_request_error", False, "Malformed or repeated Host header")
    LENGTH_MALFORMED = (400, "http_request_error", False, "Malformed or repeated Content-Length")
    FRAMING_AMBIGUOUS = (400, "http_request_error", False, "Content-Length together with Transfer-Encoding")
    TRANSFER_CODING_REFUSED = (400, "http_request_error", False, "Transfer coding other than a single chunked")
    CHUNK_MALFORMED = (400, "http_request_error", False, "Malformed chunk")
    TRAILER_REFUSED = (400, "http_request_error", False, "Malformed or forbidden trailer field")
    BODY_MALFORMED = (400, "http_request_error", False, "Malformed request body")
    REQUEST_TIMEOUT = (408, "http_request_error", False, "Request took too long to arrive")
    REQUEST_LINE_TOO_LONG = (414, "http_request_error", False, "Request line too long")
    EXPECTATION_FAILED = (417, "http_request_error", False, "Expectation not supported")
    MISDIRECTED = (421, "http_request_error", False, "Misdirected request")
    HEADERS_TOO_LARGE = (431, "http_request_error", False, "Request header fields too large")
    WEBSOCKET_HANDSHAKE_MALFORMED = (400, "http_request_error", False, "Malformed WebSocket handshake")
    WEBSOCKET_VERSION_REFUSED = (426, "http_request_error", False, "WebSocket version not supported")
    PLAIN_HTTP_ON_TLS = (400, "http_request_error", False, "Plain HTTP was sent to a port for HTTPS; use an https:// URL")
    BODY_TOO_LARGE = (413, "http_request_error", False, "Request body too large")

    # A middleware's decisions. Those without a status come with an answer of the middleware's own.
    ANSWERED = (None, None, False, "Answered by a middleware")
    REDIRECTED = (None, None, False, "Redirected")
    PREFLIGHT = (None, None, False, "CORS preflight answered")
    AUTH_SERVICE_DENIED = (None, None, False, "Denied by the authentication service")
    API_KEY_REFUSED = (401, "http_request_denied", False, "Invalid or missing API key")
    CREDENTIALS_REFUSED = (401, "http_request_denied", False, "Invalid or missing credentials")
    TOKEN_REFUSED = (401, "http_request_denied", False, "Invalid or missing token")
    ORIGIN_REFUSED = (403, "http_request_denied", False, "Origin not allowed")
    ACCESS_DENIED = (403, "http_request_denied", False, "Forbidden")
    RATE_LIMITED = (429, "http_request_denied", False, "Rate limit exceeded")
    RATE_LIMIT_UNAVAILABLE = (503, "destination_unavailable", False, "Rate limit cannot be checked")
    AUTH_SERVICE_FAILED = (502, "destination_unavailable", False, "Auth service unavailable")
    AUTH_SERVICE_TIMEOUT = (504, "http_response_timeout", False, "Auth service did not answer in time")
    KEYS_UNAVAILABLE = (503, "destination_unavailable", False, "Token keys cannot be fetched")
    CIRCUIT_OPEN = (503, "destination_unavailable", False, "Service unavailable (circuit breaker open)")
    IN_FLIGHT_LIMIT = (429, "http_request_denied", False, "Too many requests at a time")
    MIDDLEWARE_TIMEOUT = (504, "proxy_internal_error", False, "A middleware did not decide in time")

    # The gateway's own decisions.
    NO_ROUTE = (404, "destination_not_found", False, "No route matched")
    CONNECTION_LIMIT = (503, "connection_limit_reached", False, "Too many connections")
    SESSION_LIMIT = (None, None, False, "Too many clients of a udp entrypoint")
    ADDRESS_REFUSED = (403, "http_request_denied", False, "Address not allowed")
    PROXY_HEADER_MALFORMED = (None, None, False, "A trusted proxy sent no usable PROXY header")
    PROXY_HEADER_TIMEOUT = (None, None, False, "A trusted proxy took too long for its PROXY header")
    TLS_MALFORMED = (None, None, False, "Client sent what is no TLS handshake")
    TLS_TIMEOUT = (None, None, False, "TLS handshake took too long")
    TLS_CLOSED = (None, None, False, "Client left within the TLS handshake")
    TLS_VERSION_REFUSED = (None, None, False, "No version of TLS in common with the client")
    TLS_CIPHER_REFUSED = (None, None, False, "No TLS cipher in common with the client")
    TLS_PROTOCOL_REFUSED = (None, None, False, "Client speaks none of the protocols under TLS")
    TLS_NAME_REFUSED = (None, None, False, "No certificate for the name that the client asks for")
    TLS_CLIENT_CERTIFICATE_MISSING = (None, None, False, "Client showed no certificate")
    TLS_CLIENT_CERTIFICATE_REFUSED = (None, None, False, "Client's certificate is not from a trusted authority")
    TLS_REFUSED_BY_CLIENT = (None, None, False, "Client broke off the TLS handshake")
    SHUTTING_DOWN = (503, "destination_unavailable", False, "Gateway shutting down")
    INTERNAL_ERROR = (500, "proxy_internal_error", False, "Internal server error")

    # The backend's doing, or the way to it.
    CONCURRENCY_LIMIT = (503, "connection_limit_reached", False, "All backends serve as many requests as they may")
    BUFFER_FULL = (503, "connection_limit_reached", False, "Request buffer full")
    BUFFER_TIMEOUT = (504, "destination_unavailable", False, "Backend scale-up timed out")
    EXCHANGE_TIMEOUT = (504, "http_response_timeout", False, "The exchange took too long")
    DEADLINE_EXCEEDED = (504, "http_response_timeout", False, "The caller's deadline has passed")
    NO_BACKEND = (503, "destination_unavailable", False, "No healthy backends")
    POOL_EXHAUSTED = (503, "connection_limit_reached", True, "All connections to the backend are in use")
    CONNECT_REFUSED = (502, "connection_refused", True, "Backend refused the connection")
    CONNECT_FAILED = (502, "destination_ip_unroutable", True, "Backend cannot be reached")
    CONNECT_TIMEOUT = (504, "connection_timeout", True, "Connecting to the backend timed out")
    DNS_ERROR = (502, "dns_error", True, "Backend name cannot be resolved")
    STREAM_REFUSED = (503, "connection_limit_reached", True, "Backend refused the request without looking at it")
    BACKEND_CLOSED = (502, "connection_terminated", True, "Backend closed the connection")
    BACKEND_TLS_REFUSED = (502, "tls_protocol_error", False, "Backend does not agree to TLS")
    BACKEND_STALLED = (504, "connection_write_timeout", True, "Backend stopped reading the request")
    RESPONSE_TIMEOUT = (504, "http_response_timeout", True, "Backend did not answer in time")
    RESPONSE_MALFORMED = (502, "http_protocol_error", True, "Backend sent a malformed response")
    RESPONSE_HEADERS_TOO_LARGE = (502, "http_response_header_section_size", True, "Backend sent too large a response header")
    RESPONSE_UPGRADE_REFUSED = (502, "http_upgrade_failed", False, "Backend changed the protocol unasked")
    RESPONSE_INCOMPLETE = (502, "http_response_incomplete", False, "Backend broke off the response")
    RESPONSE_IDLE = (504, "connection_read_timeout", False, "Backend stalled within the response")

    # What ends a tunnel, besides its two sides. There is nobody left to answer.
    TUNNEL_IDLE = (None, None, False, "Nothing moved in the tunnel for too long")
    WEBSOCKET_BROKEN = (None, None, False, "Client broke the rules of WebSocket")
    TUNNEL_TIMEOUT = (None, None, False, "The tunnel lived for as long as it may")


_BEFORE_SENDING = frozenset(
    outcome.word
    for outcome in (
        Outcome.NO_BACKEND,
        Outcome.POOL_EXHAUSTED,
        Outcome.CONNECT_REFUSED,
        Outcome.CONNECT_FAILED,
        Outcome.CONNECT_TIMEOUT,
        Outcome.DNS_ERROR,
        Outcome.STREAM_REFUSED,
    )
)


_BACKEND_FAULTS = frozenset(
    outcome.word
    for outcome in (
        Outcome.CONNECT_REFUSED,
        Outcome.CONNECT_FAILED,
        Outcome.CONNECT_TIMEOUT,
        Outcome.DNS_ERROR,
        Outcome.BACKEND_CLOSED,
        Outcome.BACKEND_STALLED,
        Outcome.RESPONSE_TIMEOUT,
        Outcome.RESPONSE_MALFORMED,
        Outcome.RESPONSE_HEADERS_TOO_LARGE,
        Outcome.RESPONSE_UPGRADE_REFUSED,
        Outcome.RESPONSE_INCOMPLETE,
        Outcome.RESPONSE_IDLE,
    )
)


class ProtocolError(Exception):
    """
    A peer broke the protocol; `outcome` says how, `detail` names the offending part for the log, never for the peer.
    """

    def __init__(self, outcome: Outcome, detail: str = "") -> None:
        super().__init__(outcome, detail)
        self.outcome = outcome
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.outcome.message}: {self.detail}" if self.detail else self.outcome.message


class DownstreamError(ProtocolError):
    """
    A client sent what is refused.
    """


class UpstreamError(ProtocolError):
    """
    A backend sent what is refused.
    """


class AssemblyError(Exception):
    """
    A checked configuration could not be made to run: an address in use, a file that vanished. The text says which and what to do.
    """


class MiddlewareError(Exception):
    """
    A middleware cannot be built as it is configured.

    `attribute` is the HCL key at fault (empty for the whole block), `reason` continues a sentence that begins with the attribute and must
    not repeat a secret: "is no PEM file", "names the group 3, but the pattern has only 2".
    """

    def __init__(self, attribute: str, reason: str) -> None:
        super().__init__(attribute, reason)
        self.attribute = attribute
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.attribute} {self.reason}" if self.attribute else self.reason
