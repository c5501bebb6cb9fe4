"""
Tests of TLS of entrypoints from one generation to the next.
"""

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.assembly_tls import server_terms, tls_problems
from a3sgw.config.model_entrypoint import TlsConfig
from a3sgw.listen.tls import TlsBeginning
from a3sgw.proxy.test.certificates import Authority
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import Dialogue

AUTHORITY = Authority()


class AssemblyTlsTests(SynchronousTestCase):
    """
    What becomes of certificates.
    """

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="a3sgw-")
        self.addCleanup(folder.cleanup)
        identity = AUTHORITY.issue("a.test")
        self.cert, self.key = (Path(folder.name) / name for name in ("a.crt", "a.key"))
        self.cert.write_bytes(identity.certificate_pem())
        self.key.write_bytes(identity.key_pem())

    def text(self, more="", service=""):
        return config(entrypoint=f'tls {{\ncert_file = "{self.cert}"\nkey_file = "{self.key}"\n{more}\n}}', service=service)

    def test_reload(self):
        """A reload that does not touch the terms keeps the certificates, and with them the sessions; other terms make others."""
        dialogue = Dialogue(self.text())
        first = dialogue.door().beginning
        self.assertIsInstance(first, TlsBeginning)
        dialogue.reload(self.text(service="max_replay_bytes = 4096"))
        self.assertIs(dialogue.door().beginning.certificates, first.certificates)
        dialogue.reload(self.text('handshake_timeout = "3s"'))
        self.assertIs(dialogue.door().beginning.certificates, first.certificates)
        self.assertEqual(dialogue.door().beginning.timeout, 3.0)
        dialogue.reload(self.text('min_version = "1.3"'))
        self.assertIsNot(dialogue.door().beginning.certificates, first.certificates)
        dialogue.assert_clean(self)

    def test_terms(self):
        """The pair of its own comes first; authorities for clients count only where clients are asked."""
        tls = TlsConfig(cert_file="c", key_file="k", client_ca_file="a", client_auth="optional", cipher_suites=("X",), strict_sni=True)
        terms = server_terms(tls, (b"h2",))
        self.assertEqual([files.paths for files in terms.files], [("c", "k")])
        self.assertEqual((terms.client_ca_file, terms.needs_client, terms.is_strict, terms.protocols), ("a", False, True, (b"h2",)))
        self.assertTrue(server_terms(TlsConfig(client_ca_file="a", client_auth="require")).needs_client)

    def test_problems(self):
        """Every file that cannot be used is a problem of its own."""
        tls = TlsConfig(cert_file="/nowhere/c", key_file="/nowhere/k", client_ca_file="/nowhere/a", client_auth="require")
        self.assertEqual([error.attribute for error in tls_problems(tls)], ["client_ca_file", "cert_file"])
