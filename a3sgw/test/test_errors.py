"""
Tests of the one table of outcomes.
"""

import re
from http import HTTPStatus

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import AssemblyError, DownstreamError, Outcome, ProtocolError, UpstreamError
from a3sgw.message import get_field
from a3sgw.refusal import refusal

# The error types of RFC 9209 section 2.3.
PROXY_STATUS_ERRORS = {
    "dns_timeout",
    "dns_error",
    "destination_not_found",
    "destination_unavailable",
    "destination_ip_prohibited",
    "destination_ip_unroutable",
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "connection_read_timeout",
    "connection_write_timeout",
    "connection_limit_reached",
    "tls_protocol_error",
    "tls_certificate_error",
    "tls_alert_received",
    "http_request_error",
    "http_request_denied",
    "http_response_incomplete",
    "http_response_header_section_size",
    "http_response_header_size",
    "http_response_body_size",
    "http_response_trailer_section_size",
    "http_response_trailer_size",
    "http_response_transfer_coding",
    "http_response_content_coding",
    "http_response_timeout",
    "http_upgrade_failed",
    "http_protocol_error",
    "proxy_internal_response",
    "proxy_internal_error",
    "proxy_configuration_error",
    "proxy_loop_detected",
}
# Those to which the gateway adds no answer of its own, or a middleware brings one.
SILENT = {
    Outcome.COMPLETED,
    Outcome.DASHBOARD,
    Outcome.CLIENT_CLOSED,
    Outcome.CLIENT_STALLED,
    Outcome.ANSWERED,
    Outcome.REDIRECTED,
    Outcome.PREFLIGHT,
    Outcome.AUTH_SERVICE_DENIED,
    Outcome.PROXY_HEADER_MALFORMED,
    Outcome.PROXY_HEADER_TIMEOUT,
    Outcome.TLS_MALFORMED,
    Outcome.TLS_TIMEOUT,
    Outcome.TLS_CLOSED,
    Outcome.TLS_VERSION_REFUSED,
    Outcome.TLS_CIPHER_REFUSED,
    Outcome.TLS_PROTOCOL_REFUSED,
    Outcome.TLS_NAME_REFUSED,
    Outcome.TLS_CLIENT_CERTIFICATE_MISSING,
    Outcome.TLS_CLIENT_CERTIFICATE_REFUSED,
    Outcome.TLS_REFUSED_BY_CLIENT,
    Outcome.SESSION_LIMIT,
    Outcome.TUNNEL_IDLE,
    Outcome.TUNNEL_TIMEOUT,
    Outcome.WEBSOCKET_BROKEN,
}


class OutcomeTests(SynchronousTestCase):
    """
    `Outcome` is a closed list, and its table has no holes.
    """

    def test_total(self):
        """Every outcome has a status and an error type of RFC 9209, or neither where the gateway answers nothing."""
        for outcome in Outcome:
            if outcome in SILENT:
                self.assertEqual((outcome.status, outcome.proxy_status), (None, None), outcome)
            else:
                assert outcome.status is not None
                self.assertIn(outcome.proxy_status, PROXY_STATUS_ERRORS, outcome)
                self.assertIn(HTTPStatus(outcome.status), range(400, 600), outcome)

    def test_unique(self):
        """No two outcomes are written alike, in the log or to the client. Equal rows would make one member an alias of the other."""
        self.assertEqual(len(Outcome.__members__), len(Outcome))
        self.assertEqual(len({outcome.word for outcome in Outcome}), len(Outcome))
        self.assertEqual(len({outcome.message for outcome in Outcome}), len(Outcome))

    def test_words(self):
        """A word is in kebab-case, and a message is one line that ends without a period."""
        for outcome in Outcome:
            self.assertRegex(outcome.word, r"\A[a-z]+[0-9]*(-[a-z0-9]+)*\Z")
            self.assertEqual(outcome.word.replace("-", "_").upper(), outcome.name)
            self.assertRegex(outcome.message, r"\A[A-Z][ -~]*[^.\s]\Z")

    def test_blame(self):
        """What the client did is its own error, and no other backend could do better; what a backend did is the gateway's to answer."""
        for outcome in Outcome:
            if outcome.proxy_status == "http_request_error":
                self.assertTrue(outcome.status in range(400, 500) or outcome.status in (501, 505), outcome)
                self.assertFalse(outcome.retryable, outcome)
            if outcome.retryable:
                self.assertIn(outcome.status, (502, 503, 504), outcome)
            if outcome.proxy_status and "timeout" in outcome.proxy_status:
                self.assertEqual(outcome.status, 504, outcome)

    def test_refusal(self):
        """Every refusal can be said to a client: status, JSON with reason, and `Proxy-Status` with the same reason."""
        for outcome in set(Outcome) - SILENT:
            response = refusal(outcome, b"id-1")
            self.assertEqual(response.status, outcome.status)
            self.assertEqual(
                get_field(response.fields, b"proxy-status"), f'a3s-gateway; error={outcome.proxy_status}; details="{outcome.word}"'.encode()
            )
            self.assertEqual(get_field(response.fields, b"content-type"), b"application/json")
            self.assertEqual(get_field(response.fields, b"retry-after"), b"1" if outcome.status == 503 else None)
            said = f'{{"error": "{outcome.message}", "reason": "{outcome.word}", "request_id": "id-1"}}\n'
            self.assertEqual(response.body, said.encode())


class ErrorTests(SynchronousTestCase):
    """
    The exceptions say what is wrong.
    """

    def test_protocol_error(self):
        """A protocol error tells its outcome and, for the log, the detail."""
        for kind in (ProtocolError, DownstreamError, UpstreamError):
            self.assertEqual(str(kind(Outcome.CHUNK_MALFORMED)), "Malformed chunk")
            error = kind(Outcome.CHUNK_MALFORMED, "size 'x'")
            self.assertEqual(str(error), "Malformed chunk: size 'x'")
            self.assertEqual((error.outcome, error.detail), (Outcome.CHUNK_MALFORMED, "size 'x'"))
            self.assertIsInstance(error, ProtocolError)

    def test_blame(self):
        """A client's crime is never taken for a backend's."""
        self.assertFalse(issubclass(DownstreamError, UpstreamError) or issubclass(UpstreamError, DownstreamError))
        self.assertFalse(issubclass(AssemblyError, ProtocolError))

    def test_detail_is_not_for_the_peer(self):
        """What an error names for the log is not in the answer."""
        self.assertIsNone(re.search(b"detail[^s]", refusal(Outcome.CHUNK_MALFORMED, b"").body))
