"""
Tests of tokens, made by another library and by hand.
"""

import base64
import datetime
import hmac
import json

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.token import Key, TokenRefused, TokenRules, TokenVerifier, claim_text, public_key, read_bearer, read_jwks, secret_key

NOW = 1_900_000_000.0
SECRET = b"a secret that is long enough for everybody, even for HS512 which wants 64"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEYS = {"ES256": ec.generate_private_key(ec.SECP256R1()), "ES384": ec.generate_private_key(ec.SECP384R1())}
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def make(claims=None, key=SECRET, algorithm="HS256", **headers):
    """
    Return a token for these claims, good for an hour.
    """
    return jwt.encode({"exp": NOW + 3600, **(claims or {})}, key, algorithm, headers=headers).encode()


def by_hand(header, payload, secret=SECRET):
    """
    Return a token with exactly these parts, signed with HS256.
    """
    parts = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload))
    return parts + b"." + base64.urlsafe_b64encode(hmac.digest(secret, parts, "sha256")).rstrip(b"=")


class VerifyTests(SynchronousTestCase):
    """
    `TokenVerifier` takes good tokens and says what is wrong with others.
    """

    def verifier(self, *keys, **rules):
        return TokenVerifier(keys or [secret_key(SECRET)], TokenRules(**rules))

    def test_every_algorithm(self):
        """Each kind of key verifies what it signed, by every algorithm it may be used for."""
        cases = [(SECRET, secret_key(SECRET), algorithm) for algorithm in ("HS256", "HS384", "HS512")]
        cases += [(RSA_KEY, public_key(pem(RSA_KEY)), algorithm) for algorithm in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")]
        cases += [(key, public_key(pem(key)), algorithm) for algorithm, key in EC_KEYS.items()]
        cases.append((ED_KEY, public_key(pem(ED_KEY)), "EdDSA"))
        for private, key, algorithm in cases:
            found = self.verifier(key).verify(make({"sub": "anna"}, private, algorithm), NOW)
            self.assertEqual(found, {"exp": NOW + 3600, "sub": "anna"}, algorithm)

    def test_confusion(self):
        """A token cannot pass a public key off as a secret, another algorithm as its own, or do without a signature."""
        key = public_key(pem(RSA_KEY))
        forged = by_hand(b'{"alg":"HS256"}', json.dumps({"exp": NOW + 9}).encode(), pem(RSA_KEY))
        self.assertIs(self.verifier(key).verify(forged, NOW), TokenRefused.KEY_UNKNOWN)
        for algorithm in ("none", "None", "NONE", "nOnE", ""):
            header = json.dumps({"alg": algorithm}).encode()
            parts = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, b'{"exp": 2000000000}'))
            for signature in (b"", b"AAAA"):
                self.assertIsInstance(self.verifier().verify(parts + b"." + signature, NOW), TokenRefused, algorithm)
        self.assertIs(self.verifier(algorithms=frozenset(["HS512"])).verify(make(), NOW), TokenRefused.KEY_UNKNOWN)
        other = self.verifier(public_key(pem(EC_KEYS["ES384"])))
        self.assertIs(other.verify(make(key=EC_KEYS["ES256"], algorithm="ES256"), NOW), TokenRefused.KEY_UNKNOWN)

    def test_signature(self):
        """One bit of another signature, payload or secret is enough."""
        good = make({"sub": "anna"})
        head, payload, signature = good.split(b".")
        other = base64.urlsafe_b64encode(b'{"exp": 2000000000, "sub": "root"}').rstrip(b"=")
        for token in (b".".join([head, other, signature]), b".".join([head, payload, signature[:-2] + b"AA"]), make(key=SECRET[:-1])):
            self.assertIs(self.verifier().verify(token, NOW), TokenRefused.SIGNATURE)

    def test_times(self):
        """Times count with a leeway, fractions included; a token without an end is good only if that is allowed."""
        for claims, expected in [
            ({"exp": NOW - 59.5}, None),
            ({"exp": NOW - 60.5}, TokenRefused.EXPIRED),
            ({"exp": 0}, TokenRefused.EXPIRED),
            ({"exp": None}, TokenRefused.CLAIM_MISSING),
            ({"nbf": NOW + 59}, None),
            ({"nbf": NOW + 61}, TokenRefused.NOT_YET_VALID),
            ({"iat": NOW + 61}, TokenRefused.NOT_YET_VALID),
            ({"exp": "2000000000"}, TokenRefused.MALFORMED),
            ({"exp": True}, TokenRefused.MALFORMED),
            ({"nbf": [1]}, TokenRefused.MALFORMED),
        ]:
            payload = {"exp": NOW + 3600, **claims}
            if payload["exp"] is None:
                del payload["exp"]
            found = self.verifier().verify(by_hand(b'{"alg":"HS256"}', json.dumps(payload).encode()), NOW)
            self.assertEqual(found, payload if expected is None else expected, claims)
        lasting = by_hand(b'{"alg":"HS256"}', b'{"sub":"x"}')
        self.assertEqual(self.verifier(requires_expiry=False).verify(lasting, NOW), {"sub": "x"})

    def test_parties(self):
        """Issuer and audience are those expected; the audience may be one or a list."""
        rules = {"issuers": frozenset(["https://id.test", "other"]), "audiences": frozenset(["api"])}
        for claims, expected in [
            ({"iss": "https://id.test", "aud": "api"}, None),
            ({"iss": "other", "aud": ["web", "api"]}, None),
            ({"iss": "https://id.test/", "aud": "api"}, TokenRefused.ISSUER),
            ({"aud": "api"}, TokenRefused.ISSUER),
            ({"iss": "other"}, TokenRefused.AUDIENCE),
            ({"iss": "other", "aud": ["web"]}, TokenRefused.AUDIENCE),
            ({"iss": "other", "aud": {"api": 1}}, TokenRefused.AUDIENCE),
            ({"iss": "other", "aud": [["api"]]}, TokenRefused.AUDIENCE),
        ]:
            found = self.verifier(**rules).verify(by_hand(b'{"alg":"HS256"}', json.dumps({"exp": NOW + 9, **claims}).encode()), NOW)
            self.assertEqual(found if isinstance(found, TokenRefused) else None, expected, claims)
        # Without rules, nobody asks.
        self.assertIsInstance(self.verifier().verify(make({"iss": "anybody", "aud": ["x"]}), NOW), dict)

    def test_required_claims(self):
        """A token has the claims that are asked for."""
        verifier = self.verifier(required_claims=("scope",))
        self.assertIs(verifier.verify(make(), NOW), TokenRefused.CLAIM_MISSING)
        self.assertIsInstance(verifier.verify(make({"scope": "read"}), NOW), dict)

    def test_key_ids(self):
        """A token that names its key is verified by that key; one that does not, by those that fit."""
        one, two = (public_key(pem(key))._replace(kid=name) for key, name in ((RSA_KEY, "one"), (EC_KEYS["ES256"], "two")))
        verifier = self.verifier(one, two)
        self.assertIsInstance(verifier.verify(make(key=RSA_KEY, algorithm="RS256", kid="one"), NOW), dict)
        self.assertIsInstance(verifier.verify(make(key=EC_KEYS["ES256"], algorithm="ES256"), NOW), dict)
        self.assertIs(verifier.verify(make(key=RSA_KEY, algorithm="RS256", kid="two"), NOW), TokenRefused.KEY_UNKNOWN)
        self.assertIs(verifier.verify(make(key=RSA_KEY, algorithm="RS256", kid="three"), NOW), TokenRefused.KEY_UNKNOWN)

    def test_hostile(self):
        """What is no token is refused with a reason, whatever it is."""
        good = make()
        deep = b"[" * 5000 + b"]" * 5000
        for token in [
            b"",
            b".",
            b"..",
            b"a.b.c",
            good + b".x",
            good[:-1] + b"=",
            good.replace(b".", b" "),
            b"A" * 100_000,
            good + b"A" * 20_000,
            by_hand(b"[]", b"{}"),
            by_hand(b'{"alg":["HS256"]}', b"{}"),
            by_hand(b'{"alg":"HS256","crit":["x"],"x":1}', b'{"exp":2000000000}'),
            by_hand(b'{"alg":"HS256","b64":false,"crit":["b64"]}', b'{"exp":2000000000}'),
            by_hand(b'{"alg":"HS256"}', b"[]"),
            by_hand(b'{"alg":"HS256"}', b'"text"'),
            by_hand(b'{"alg":"HS256"}', b"\xff\xfe"),
            by_hand(b'{"alg":"HS256"}', deep),
            by_hand(b'{"alg":"HS256"}', b'{"exp":NaN}'),
            by_hand(b'{"alg":"HS256"}', b'{"exp":Infinity}'),
            by_hand(b'{"alg":"HS256"}', b'{"exp":1e400}'),
            by_hand(b'{"alg":"HS256"}', b'{"exp":1' + b"0" * 400 + b"}"),
            by_hand(b'{"alg":"HS256"}', b'{"exp":2000000000,"sub":7}'),
            by_hand(b'{"alg":"HS256"}', b'{"exp":1,"exp":2000000000}'),
            by_hand(b'{"alg":"HS256"}', b'{"exp":2000000000,"iss":["a"]}'),
        ]:
            self.assertIsInstance(self.verifier().verify(token, NOW), TokenRefused, token[:80])

    @settings(deadline=None, max_examples=150)
    @given(st.one_of(st.binary(max_size=100), st.text("abcAZ09-_.", max_size=60).map(str.encode)))
    def test_any_bytes(self, token):
        """Any bytes are refused without an exception."""
        self.assertIsInstance(self.verifier().verify(token, NOW), TokenRefused)

    def test_memory(self):
        """A token that was good is known until it expires, but not by other keys."""
        verifier = self.verifier()
        token = make()
        first = verifier.verify(token, NOW)
        self.assertIs(verifier.verify(token, NOW + 10), first)
        self.assertIs(verifier.verify(token, NOW + 3661), TokenRefused.EXPIRED)
        verifier.verify(token, NOW)
        verifier.replace_keys([secret_key(b"another secret that is long enough for HS256")])
        self.assertIs(verifier.verify(token, NOW), TokenRefused.SIGNATURE)


class KeyTests(SynchronousTestCase):
    """
    Keys come from files and from sets.
    """

    def certificate(self):
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "id.test")])
        begin = datetime.datetime(2020, 1, 1)
        builder = x509.CertificateBuilder(name, name, RSA_KEY.public_key(), 1, begin, begin.replace(year=2040))
        return builder.sign(RSA_KEY, hashes.SHA256()).public_bytes(Encoding.PEM)

    def test_certificate(self):
        """A certificate is as good as the key in it."""
        self.assertEqual(public_key(self.certificate()).key.public_numbers(), RSA_KEY.public_key().public_numbers())

    def test_refused(self):
        """A file with something else, or with too short a key, is refused with a reason."""
        private = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for text, part in [
            (b"", "neither a public key nor a certificate"),
            (b"hello", "neither a public key"),
            (private, "neither a public key"),
            (pem(RSA_KEY)[:-60], "neither a public key"),
            (pem(rsa.generate_private_key(65537, 1024)), "RSA key of 1024 bits"),
            (pem(ec.generate_private_key(ec.SECP256K1())), "of a kind that no token is signed with"),
        ]:
            self.assertIn(part, str(self.assertRaises(ValueError, public_key, text)))

    def test_sets(self):
        """A set gives its signing keys, and passes over what is for something else or unknown."""
        def entry(key, algorithm, **more):
            return {**json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key())), **more}

        document = {
            "keys": [
                entry(RSA_KEY, "RS256", kid="r", use="sig"),
                entry(EC_KEYS["ES256"], "ES256", kid="e", alg="ES256"),
                entry(RSA_KEY, "RS256", kid="enc", use="enc"),
                entry(RSA_KEY, "RS256", kid="odd", alg="RSA-OAEP"),
                {"kty": "oct", "k": "AAAA", "kid": "secret"},
                {"kty": "PQ", "kid": "unknown"},
                {"kty": "RSA", "kid": "broken"},
                "text",
            ]
        }
        keys = read_jwks(json.dumps(document).encode())
        self.assertEqual([key.kid for key in keys], ["r", "e"])
        self.assertEqual(keys[1].algorithms, {"ES256"})
        self.assertIsInstance(TokenVerifier(keys, TokenRules()).verify(make(key=RSA_KEY, algorithm="PS256", kid="r"), NOW), dict)

    def test_sets_refused(self):
        """What is no set is refused with a reason."""
        for text in (b"", b"<html>", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b"[" * 100_000):
            self.assertRaises(ValueError, read_jwks, text)

    def test_keys_without_use(self):
        """A key that no allowed algorithm fits verifies nothing."""
        verifier = TokenVerifier([Key(SECRET, frozenset(["HS256"]))], TokenRules(algorithms=frozenset(["RS256"])))
        self.assertEqual(verifier.keys, [])


class TextTests(SynchronousTestCase):
    """
    What tokens say in headers, and where they stand in them.
    """

    def test_claims(self):
        """A claim becomes one safe line, or nothing."""
        claims = {
            "sub": "anna",
            "n": 7,
            "f": 1.5,
            "b": True,
            "list": ["a", "b,c", 3],
            "realm": {"role": ["x"], "empty": []},
            "https://a.test/role": "r",
            "evil": "a\r\nX-Admin: 1",
            "böse": "ä %",
            "null": None,
            "mixed": ["a", {}],
        }
        for path, text in [
            ("sub", b"anna"),
            ("n", b"7"),
            ("f", b"1.5"),
            ("b", b"true"),
            ("list", b"a,b%2Cc,3"),
            ("realm.role", b"x"),
            ("https://a.test/role", b"r"),
            ("evil", b"a%0D%0AX-Admin: 1"),
            ("böse", b"%C3%A4 %25"),
            ("realm", None),
            ("realm.empty", None),
            ("realm.role.x", None),
            ("null", None),
            ("mixed", None),
            ("nothing", None),
        ]:
            self.assertEqual(claim_text(claims, path), text, path)

    def test_bearer(self):
        """The token follows the scheme in any letter case, or stands alone."""
        for value, token in [
            (b"Bearer abc", b"abc"),
            (b"bearer  abc ", b"abc"),
            (b"abc", b"abc"),
            (b"Bearer", None),
            (b"Bearer ", None),
            (b"", None),
            (b"Basic abc", None),
            (b"Basic", None),
        ]:
            self.assertEqual(read_bearer(value), token, value)
