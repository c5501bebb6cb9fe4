"""
Tests of the certificates of an entrypoint.
"""

import os
import tempfile
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import PrivateFormat
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.model_entrypoint import CIPHER_SUITES
from a3sgw.listen.certificates import CertificateFiles, Certificates, ServerTerms
from a3sgw.net.pem import PemError
from a3sgw.proxy.test.certificates import Authority
from a3sgw.wire.clienthello import TLS12, TLS13, ClientHello

AUTHORITY = Authority()
RSA_KEY = rsa.generate_private_key(65537, 2048)
OLD = ClientHello(None, (), (TLS12,), (0xC02F, 0xC030), (0x0401, 0x0804))
NEW = ClientHello(None, (), (TLS13, TLS12), (0x1301, 0xC02B), (0x0403, 0x0804, 0x0807))


class CertificatesCase(SynchronousTestCase):
    """
    Certificates in a folder of their own.
    """

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="a3sgw-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.now = 0.0
        self.wall = 1e9
        self.files = []

    def write(self, name, identity, form=PrivateFormat.PKCS8):
        """
        Write a certificate and its key; return where.
        """
        files = CertificateFiles(str(self.folder / f"{name}.crt"), str(self.folder / f"{name}.key"))
        Path(files.cert_file).write_bytes(identity.certificate_pem())
        Path(files.key_file).write_bytes(identity.key_pem(form))
        return files

    def make(self, *identities, **terms):
        """
        Return the certificates of an entrypoint with these, each in files called by their number.
        """
        self.files = [self.write(str(number), identity) for number, identity in enumerate(identities)]
        return Certificates("web", ServerTerms(tuple(self.files), **terms), lambda: self.now, lambda: self.wall)

    def shown(self, certificates, name, hello=NEW):
        """
        Return the names on what a client sees that asks for `name`.
        """
        credential = certificates.choose(hello._replace(server_name=name))
        return None if credential is None else credential.title


class ChoiceTests(CertificatesCase):
    """
    Which certificate a client sees.
    """

    def test_by_name(self):
        """The name decides: an exact one, then a wildcard of one label, then the first certificate."""
        certificates = self.make(
            AUTHORITY.issue("main.test"),
            AUTHORITY.issue("Shop.Test", "*.shop.test"),
            AUTHORITY.issue("exact.shop.test"),
            AUTHORITY.issue("192.0.2.1", common_name="common.test"),
        )
        for name, shown in (
            (b"main.test", "main.test"),
            (b"shop.test", "*.shop.test, shop.test"),
            (b"a.shop.test", "*.shop.test, shop.test"),
            (b"exact.shop.test", "exact.shop.test"),
            (b"b.a.shop.test", "main.test"),
            (b"common.test", "common.test"),
            (b"other.test", "main.test"),
            (b"test", "main.test"),
            (b"192.0.2.7", "main.test"),
            (None, "main.test"),
        ):
            self.assertEqual(self.shown(certificates, name), shown, name)

    def test_strict(self):
        """With strict names, one that is on no certificate is refused; who asks for nobody sees the first."""
        certificates = self.make(AUTHORITY.issue("main.test"), is_strict=True)
        self.assertIsNone(self.shown(certificates, b"other.test"))
        self.assertEqual(self.shown(certificates, b"main.test"), "main.test")
        self.assertEqual(self.shown(certificates, None), "main.test")

    def test_kinds_of_keys(self):
        """Of two certificates for a name, a client that knows elliptic curves sees that one, and others the one with RSA."""
        for identities in (
            [AUTHORITY.issue("a.test", key=RSA_KEY), AUTHORITY.issue("a.test")],
            [AUTHORITY.issue("a.test"), AUTHORITY.issue("a.test", key=RSA_KEY)],
        ):
            certificates = self.make(*identities)
            for name in (b"a.test", b"other.test"):
                for hello, scheme in (
                    (NEW, 0x0403),
                    (OLD, 0),
                    (NEW._replace(versions=(TLS12,)), 0x0403),
                    (NEW._replace(versions=(TLS12,), cipher_suites=(0xC02F,)), 0),
                    (NEW._replace(signature_schemes=(0x0804,)), 0),
                ):
                    self.assertEqual(certificates.choose(hello._replace(server_name=name)).scheme, scheme, hello)

    def test_other_keys(self):
        """Keys of other curves and Ed25519 keys are used for whom they suit; where there is nothing else, for all."""
        for key, scheme in ((ed25519.Ed25519PrivateKey.generate(), 0x0807), (ec.generate_private_key(ec.SECP384R1()), 0x0503)):
            certificates = self.make(AUTHORITY.issue("a.test", key=RSA_KEY), AUTHORITY.issue("a.test", key=key))
            hello = NEW._replace(signature_schemes=(scheme,))
            self.assertEqual(certificates.choose(hello).scheme, scheme)
            self.assertEqual(certificates.choose(OLD).scheme, 0)
            self.assertEqual(self.make(AUTHORITY.issue("a.test", key=key)).choose(OLD).scheme, scheme)

    def test_expiries(self):
        """Everybody can be told when the certificates end."""
        identity = AUTHORITY.issue("a.test", lasts=timedelta(hours=5))
        certificates = self.make(identity)
        self.assertEqual(certificates.expiries(), [("a.test", identity.certificate.not_valid_after_utc.timestamp())])
        self.assertEqual(repr(certificates), "<Certificates of web: a.test>")

    def test_expired(self):
        """A certificate that has expired is shown, because somebody may know, and the log says so."""
        identity = AUTHORITY.issue("a.test", lasts=timedelta(hours=-1))
        self.wall = identity.certificate.not_valid_after_utc.timestamp() + 1
        with capturedLogs() as logged:
            certificates = self.make(identity)
        self.assertEqual(self.shown(certificates, b"a.test"), "a.test")
        self.assertEqual([event["log_level"] for event in logged], [LogLevel.error])

    def test_all_suites(self):
        """OpenSSL knows every cipher suite by the name that is made from ours."""
        for suite in CIPHER_SUITES:
            self.make(AUTHORITY.issue("a.test"), cipher_suites=(suite,))


class ReadingTests(CertificatesCase):
    """
    Files.
    """

    def test_forms(self):
        """A key may be in any of the usual forms."""
        for key, form in (
            (RSA_KEY, PrivateFormat.PKCS8),
            (RSA_KEY, PrivateFormat.TraditionalOpenSSL),
            (ec.generate_private_key(ec.SECP256R1()), PrivateFormat.TraditionalOpenSSL),
        ):
            files = self.write("one", AUTHORITY.issue("a.test", key=key), form)
            Certificates("web", ServerTerms((files,)), lambda: 0, lambda: 0)

    def test_faults(self):
        """What is wrong with a file is said, with the attribute that names it, and nothing of what is in it."""
        good, other = AUTHORITY.issue("a.test"), AUTHORITY.issue("b.test")
        weak = AUTHORITY.issue("a.test", key=rsa.generate_private_key(65537, 1024))
        for cert, key, attribute, reason in (
            (b"", good.key_pem(), "cert_file", "is empty"),
            (b"nothing", good.key_pem(), "cert_file", "holds no certificate in PEM"),
            (good.key_pem(), good.key_pem(), "cert_file", "holds no certificate in PEM"),
            (good.certificate_pem(), b" \n", "key_file", "is empty"),
            (good.certificate_pem(), b"nothing", "key_file", "is no private key in PEM without a passphrase"),
            (good.certificate_pem(), other.key_pem(), "key_file", "is not the key of the certificate in cert_file"),
            (other.certificate_pem() + good.certificate_pem(), good.key_pem(), "key_file", "the server's own comes first"),
            (weak.certificate_pem(), weak.key_pem(), "cert_file", "cannot be used: ee key too small"),
        ):
            files = self.write("one", good)
            Path(files.cert_file).write_bytes(cert)
            Path(files.key_file).write_bytes(key)
            with self.subTest(reason):
                error = self.assertRaises(PemError, Certificates, "web", ServerTerms((files,)), lambda: 0, lambda: 0)
                self.assertEqual(error.attribute, attribute)
                self.assertIn(reason, error.reason)
        files = CertificateFiles(str(self.folder / "nowhere"), str(self.folder / "nowhere"), "certificates[1].")
        error = self.assertRaises(PemError, Certificates, "web", ServerTerms((files,)), lambda: 0, lambda: 0)
        self.assertEqual((error.attribute, error.reason), ("certificates[1].cert_file", "cannot be read: No such file or directory"))


class WatchTests(CertificatesCase):
    """
    Files that change.
    """

    def replace(self, number, identity):
        """
        Put other files in the place of those with this number.
        """
        files = self.files[number]
        for path, text in ((files.cert_file, identity.certificate_pem()), (files.key_file, identity.key_pem())):
            Path(f"{path}.new").write_bytes(text)
            os.replace(f"{path}.new", path)

    def test_swap(self):
        """Another certificate in the files is shown soon; the others keep their settings, and with them the sessions of their clients."""
        certificates = self.make(AUTHORITY.issue("a.test"), AUTHORITY.issue("b.test"))
        other = certificates.choose(NEW._replace(server_name=b"b.test"))
        self.replace(0, AUTHORITY.issue("c.test"))
        self.assertEqual(self.shown(certificates, b"c.test"), "a.test")
        self.now += Certificates.LOOK_SECONDS
        self.assertEqual(self.shown(certificates, b"c.test"), "c.test")
        self.assertEqual(self.shown(certificates, b"a.test"), "c.test")
        self.assertIs(certificates.choose(NEW._replace(server_name=b"b.test")), other)

    def test_nothing_new(self):
        """Files that are the same are not read again."""
        certificates = self.make(AUTHORITY.issue("a.test"))
        before = certificates.choose(NEW)
        self.now += 100
        self.assertIs(certificates.choose(NEW), before)

    def test_useless(self):
        """What became useless changes nothing but the log, once, and what is repaired is taken up."""
        certificates = self.make(AUTHORITY.issue("a.test"))
        identity = AUTHORITY.issue("b.test")
        Path(self.files[0].cert_file).write_bytes(identity.certificate_pem())
        with capturedLogs() as logged:
            for _ in range(3):
                self.now += 10
                self.assertEqual(self.shown(certificates, None), "a.test")
        self.assertEqual([event["log_level"] for event in logged], [LogLevel.error])
        self.assertEqual(logged[0]["attribute"], "key_file")
        os.remove(self.files[0].cert_file)
        with capturedLogs() as logged:
            self.now += 10
            self.assertEqual(certificates.expiries()[0][0], "a.test")
        self.assertEqual(logged[0]["reason"], "cannot be read: No such file or directory")
        self.replace(0, identity)
        self.now += 10
        self.assertEqual(self.shown(certificates, None), "b.test")

    def test_authorities(self):
        """Other authorities for clients are taken up for all certificates; useless ones are not."""
        path = self.folder / "ca.pem"
        path.write_bytes(AUTHORITY.issue("ca.test").certificate_pem())
        certificates = self.make(AUTHORITY.issue("a.test"), AUTHORITY.issue("b.test"), client_ca_file=str(path))
        names = (b"a.test", b"b.test")
        before = [certificates.choose(NEW._replace(server_name=name)) for name in names]
        path.write_bytes(b"nothing")
        self.now += 10
        with capturedLogs() as logged:
            self.assertEqual([certificates.choose(NEW._replace(server_name=name)) for name in names], before)
        self.assertEqual([event["attribute"] for event in logged], ["client_ca_file"])
        path.write_bytes(AUTHORITY.issue("other-ca.test").certificate_pem())
        self.now += 10
        after = [certificates.choose(NEW._replace(server_name=name)) for name in names]
        self.assertFalse(set(before) & set(after))
