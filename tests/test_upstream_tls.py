"""
Services whose servers are reached over TLS, by the real gateway: whom it believes, and who it says it is.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from a3sgw.proxy.test.certificates import Authority, Identity
from tests.setting import OwnGatewayCase, configure, service_at
from tests.support import GatewayProcess, Response, fetch, free_port, run_command
from tests.test_outbound_tls import LARGE, TlsServer

AUTHORITY = Authority()
LOCALHOST = AUTHORITY.issue("localhost", "127.0.0.1")


class UpstreamTlsTests(OwnGatewayCase):
    """
    `https://` servers and `upstream_tls`.
    """

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="a3sgw-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "ca.pem").write_bytes(AUTHORITY.certificate.public_bytes(Encoding.PEM))
        (self.folder / "other.pem").write_bytes(Authority("another").certificate.public_bytes(Encoding.PEM))
        self.gateway: GatewayProcess | None = None

    def ask(
        self,
        identity: Identity = LOCALHOST,
        tls: str = 'ca_file = "{folder}/ca.pem"',
        host: str = "localhost",
        client_authority: Path | None = None,
    ) -> tuple[Response, TlsServer]:
        """
        Return what the gateway answers when its only server is a TLS server of `identity`, called `host`.
        """
        if self.gateway is not None:
            self.stop(self.gateway)
        server = TlsServer(identity, client_authority)
        self.addCleanup(server.stop)
        self.port = free_port()
        self.gateway = self.start(self.text([f"https://{host}:{server.port}"], tls))
        return fetch(self.port, "/small"), server

    def text(self, urls: list[str], tls: str) -> str:
        block = f"  upstream_tls {{\n    {tls.format(folder=self.folder)}\n  }}" if tls else ""
        return configure(self.port, service_at("app", urls, block))

    def test_trusted(self) -> None:
        """A server whose certificate leads to the configured authority is asked, over one connection that is kept."""
        response, server = self.ask()
        self.assertEqual((response.status, response.body), (200, b"ok"))
        for path in ("/small", "/chunked", "/large", "/login"):
            response = fetch(self.port, path)
            self.assertEqual(response.status, 302 if path == "/login" else 200)
        self.assertEqual(len(server.connections), 1)
        self.assertIn(b"X-Forwarded-Proto: http\r\n", server.requests[0])
        self.assertEqual(fetch(self.port, "/large").body, LARGE)

    def test_not_trusted(self) -> None:
        """A server that cannot prove who it is gets no request: another authority's, another name's, or the system knows it not."""
        for identity, tls, host in (
            (LOCALHOST, 'ca_file = "{folder}/other.pem"', "localhost"),
            (LOCALHOST, "", "localhost"),
            (AUTHORITY.issue("other.test"), 'ca_file = "{folder}/ca.pem"', "localhost"),
            (AUTHORITY.issue("localhost"), 'ca_file = "{folder}/ca.pem"', "127.0.0.1"),
            (LOCALHOST, 'ca_file = "{folder}/ca.pem"\n server_name = "other.test"', "localhost"),
        ):
            response, server = self.ask(identity, tls, host)
            self.assertEqual(response.status, 502, (tls, host))
            self.assertIn(b'"reason": "connect-failed"', response.body)
            self.assertEqual(server.requests, [])

    def test_other_name(self) -> None:
        """Another name than the URL's may be expected, and anything may be believed where that is asked for."""
        for tls in (
            'ca_file = "{folder}/ca.pem"\n    server_name = "inner.test"',
            "insecure_skip_verify = true",
        ):
            response, _ = self.ask(AUTHORITY.issue("inner.test"), tls)
            self.assertEqual(response.status, 200, tls)

    def test_own_certificate(self) -> None:
        """A server that asks for the gateway's certificate gets the configured one, and answers nobody without."""
        own = AUTHORITY.issue("gateway.test").pem()
        (self.folder / "own.pem").write_bytes(own)
        tls = 'ca_file = "{folder}/ca.pem"\n    cert_file = "{folder}/own.pem"\n    key_file = "{folder}/own.pem"'
        response, server = self.ask(tls=tls, client_authority=self.folder / "ca.pem")
        self.assertEqual(response.status, 200)
        self.assertIn("gateway.test", str(server.connections[0].getpeercert()))
        response, _ = self.ask(client_authority=self.folder / "ca.pem")
        self.assertEqual(response.status, 502)

    def test_bad_files(self) -> None:
        """Files that cannot be what they should are found by `validate`, with their place."""
        (self.folder / "own.pem").write_bytes(AUTHORITY.issue("gateway.test").pem())
        (self.folder / "second.pem").write_bytes(AUTHORITY.issue("gateway.test").pem())
        (self.folder / "text.pem").write_text("nothing\n")
        for tls, complaint in (
            ('ca_file = "{folder}/nowhere.pem"', "upstream_tls.ca_file cannot be read"),
            ('ca_file = "{folder}/text.pem"', "upstream_tls.ca_file holds no certificate"),
            ('cert_file = "{folder}/own.pem"', "they go together"),
            ('cert_file = "{folder}/own.pem"\n key_file = "{folder}/text.pem"', "upstream_tls.key_file is no private key"),
            ('cert_file = "{folder}/own.pem"\n key_file = "{folder}/second.pem"', "is not the key of the certificate"),
        ):
            path = self.folder / "gateway.hcl"
            path.write_text(self.text(["https://localhost:1"], tls))
            result = run_command([sys.executable, "-m", "a3sgw.cli", "validate", "--config", path])
            self.assertEqual(result.returncode, 1)
            self.assertIn(complaint, result.stderr + result.stdout)
