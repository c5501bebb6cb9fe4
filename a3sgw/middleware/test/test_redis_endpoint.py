"""
Tests of `a3sgw.middleware.redis_endpoint`. That it connects, and to whom it does not, is in `tests.test_rate_limit_redis`.
"""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.redis_url import parse_redis_url
from a3sgw.errors import MiddlewareError
from a3sgw.middleware.redis_endpoint import make_opener


def make_certificate():
    """
    Return a certificate that vouches for itself, and its key, in PEM form.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.test")])
    now = datetime.datetime(2026, 1, 1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=3650))
    certificate = builder.sign(key, hashes.SHA256())
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), secret


class OpenerTests(SynchronousTestCase):
    """
    What is read when a middleware is built.
    """

    def setUp(self):
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.certificate, self.key = make_certificate()

    def file(self, name, content):
        path = self.directory / name
        path.write_bytes(content)
        return str(path)

    def make(self, url="rediss://a.test", ca=None, cert=None, key=None):
        clock = Clock()
        self.assertTrue(callable(make_opener(parse_redis_url(url), clock, ca, cert, key)))
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_good(self):
        """Every way to a Redis can be taken, and making it ready does nothing yet."""
        ca, key = self.file("ca", b"Subject: me\n" + self.certificate + self.certificate), self.file("key", self.key)
        for url in ("redis://a.test", "unix:///run/redis.sock", "rediss://a.test", "rediss://127.0.0.1", "rediss://[::1]"):
            self.make(url)
        self.make(ca=ca)
        self.make(ca=ca, cert=self.file("cert", self.certificate), key=key)

    def test_bad_files(self):
        """A file that cannot be used is named with the reason."""
        empty, broken = self.file("empty", b""), self.file("broken", self.certificate.replace(b"\nM", b"\nA", 1))
        cert, key, other = self.file("cert", self.certificate), self.file("key", self.key), self.file("other", make_certificate()[1])
        missing = str(self.directory / "missing")
        for files, attribute, reason in [
            ({"ca": missing}, "redis_ca_file", f'names "{missing}", which cannot be read: No such file or directory'),
            ({"ca": empty}, "redis_ca_file", f'names "{empty}", which holds no certificate in PEM form'),
            ({"ca": key}, "redis_ca_file", f'names "{key}", which holds no certificate in PEM form'),
            ({"ca": broken}, "redis_ca_file", f'names "{broken}", which holds a broken certificate'),
            ({"cert": missing, "key": key}, "redis_cert_file", f'names "{missing}", which cannot be read: No such file or directory'),
            ({"cert": cert, "key": missing}, "redis_key_file", f'names "{missing}", which cannot be read: No such file or directory'),
            ({"cert": empty, "key": key}, "redis_cert_file", "and redis_key_file hold no certificate and its key in PEM form"),
            ({"cert": cert, "key": empty}, "redis_cert_file", "and redis_key_file hold no certificate and its key in PEM form"),
            ({"cert": cert, "key": other}, "redis_cert_file", "and redis_key_file hold no certificate and its key in PEM form"),
        ]:
            error = self.assertRaises(MiddlewareError, self.make, **files)
            self.assertEqual((error.attribute, error.reason), (attribute, reason))
