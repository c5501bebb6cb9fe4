"""
Tests of tokens, made by another library and by hand.
"""

import base64
import datetime
import hmac
import json
from urllib.parse import unquote

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.policy.token import Key, TokenRefused, TokenRules, TokenVerifier, claim_text, public_key, read_bearer, read_jwks, secret_key
from a3sgw.policy.token_key import ALGORITHMS

NOW = 1_900_000_000.0
SECRET = b"a secret that is long enough for everybody, even for HS512 which wants 64"
RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
EC_KEYS = {name: ec.generate_private_key(curve) for name, curve in CURVES.items()}
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def named(key, kid):
    """
    Return the public key by the name it has in a set.
    """
    return public_key(pem(key))._replace(kid=kid)


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


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["a", 0, NOW, 10**400, -(10**400)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


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
        cases += [(key, public_key(pem(key)), "EdDSA") for key in (ED_KEY, ed448.Ed448PrivateKey.generate())]
        self.assertEqual({algorithm for _, _, algorithm in cases}, set(ALGORITHMS))
        for private, key, algorithm in cases:
            found = self.verifier(key).verify(make({"sub": "anna"}, private, algorithm), NOW)
            self.assertEqual(found, {"exp": NOW + 3600, "sub": "anna"}, algorithm)

    def test_rfc_examples(self):
        """The examples of RFC 7515, appendices A.1 and A.3, verify."""
        payload = b".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
        secret = base64.urlsafe_b64decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow==")
        curve = {
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }
        for key, header, signature in [
            (secret_key(secret), b"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", b"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            (
                read_jwks(json.dumps({"keys": [curve]}).encode())[0],
                b"eyJhbGciOiJFUzI1NiJ9",
                b"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
        ]:
            token = header + payload + signature
            claims = self.verifier(key).verify(token, 1_300_819_379.0)
            self.assertEqual(claims, {"iss": "joe", "exp": 1300819380, "http://example.com/is_root": True})
            self.assertEqual(claim_text(claims, "http://example.com/is_root"), b"true")
            self.assertIs(self.verifier(key).verify(token, NOW), TokenRefused.EXPIRED)

    def test_confusion(self):
        """A token cannot pass a public key off as a secret, another algorithm as its own, or do without a signature."""
        key = public_key(pem(RSA_KEY))
        forged = by_hand(b'{"alg":"HS256"}', json.dumps({"exp": NOW + 9}).encode(), pem(RSA_KEY))
        self.assertIs(self.verifier(key).verify(forged, NOW), TokenRefused.KEY_UNKNOWN)
        for algorithm in ("none", "None", "NONE", "nOnE", ""):
            header = json.dumps({"alg": algorithm}).encode()
            parts = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, b'{"exp": 2000000000}'))
            self.assertIs(self.verifier().verify(parts + b".", NOW), TokenRefused.MALFORMED, algorithm)
            for verifier in (self.verifier(), self.verifier(key), self.verifier(algorithms=frozenset(["none", "HS256"]))):
                self.assertIsInstance(verifier.verify(parts + b".AAAA", NOW), TokenRefused, algorithm)
        self.assertIs(self.verifier().verify(parts + b".AAAA", NOW), TokenRefused.ALGORITHM)
        self.assertIs(self.verifier(algorithms=frozenset(["HS512"])).verify(make(), NOW), TokenRefused.ALGORITHM)
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
            ({"exp": ...}, TokenRefused.CLAIM_MISSING),
            ({"exp": None}, TokenRefused.MALFORMED),
            ({"nbf": None}, TokenRefused.MALFORMED),
            ({"exp": 2**63 - 1}, None),
            ({"exp": NOW - 60}, TokenRefused.EXPIRED),
            ({"exp": -1e299}, TokenRefused.EXPIRED),
            ({"iat": NOW + 60}, None),
            ({"nbf": NOW + 59}, None),
            ({"nbf": NOW + 61}, TokenRefused.NOT_YET_VALID),
            ({"iat": NOW + 61}, TokenRefused.NOT_YET_VALID),
            ({"exp": "2000000000"}, TokenRefused.MALFORMED),
            ({"exp": True}, TokenRefused.MALFORMED),
            ({"nbf": [1]}, TokenRefused.MALFORMED),
        ]:
            payload = {"exp": NOW + 3600, **claims}
            if payload["exp"] is ...:
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
        self.assertIs(verifier.verify(make({"scope": None}), NOW), TokenRefused.CLAIM_MISSING)
        self.assertIsInstance(verifier.verify(make({"scope": "read"}), NOW), dict)
        nested = self.verifier(required_claims=("realm.roles",))
        self.assertIs(nested.verify(make({"realm": "roles"}), NOW), TokenRefused.CLAIM_MISSING)
        self.assertIsInstance(nested.verify(make({"realm": {"roles": []}}), NOW), dict)

    def test_key_ids(self):
        """A token that names its key is verified by that key; one that does not, by those that fit."""
        one, two = (public_key(pem(key))._replace(kid=name) for key, name in ((RSA_KEY, "one"), (EC_KEYS["ES256"], "two")))
        verifier = self.verifier(one, two)
        self.assertIsInstance(verifier.verify(make(key=RSA_KEY, algorithm="RS256", kid="one"), NOW), dict)
        self.assertIsInstance(verifier.verify(make(key=EC_KEYS["ES256"], algorithm="ES256"), NOW), dict)
        self.assertIs(verifier.verify(make(key=RSA_KEY, algorithm="RS256", kid="two"), NOW), TokenRefused.KEY_UNKNOWN)
        self.assertIs(verifier.verify(make(key=RSA_KEY, algorithm="RS256", kid="three"), NOW), TokenRefused.KEY_UNKNOWN)
        # Of two that fit, a token says which, and no other is tried.
        verifier = self.verifier(named(RSA_KEY, "one"), named(OTHER_RSA_KEY, "two"))
        self.assertIs(verifier.verify(make(key=RSA_KEY, algorithm="RS256"), NOW), TokenRefused.KEY_UNKNOWN)
        self.assertIs(verifier.verify(make(key=RSA_KEY, algorithm="RS256", kid="two"), NOW), TokenRefused.SIGNATURE)
        self.assertIsInstance(verifier.verify(make(key=OTHER_RSA_KEY, algorithm="RS256", kid="two"), NOW), dict)

    def test_keys_without_names(self):
        """Keys without a name are tried in turn, whatever a token calls its own, but only so many."""
        keys = [named(OTHER_RSA_KEY, None)] * (TokenVerifier.MOST_TRIED - 1)
        for headers in ({}, {"kid": "any"}):
            token = make(key=RSA_KEY, algorithm="RS256", **headers)
            self.assertIsInstance(self.verifier(*keys, named(RSA_KEY, None)).verify(token, NOW), dict)
            more = [*keys, keys[0], named(RSA_KEY, None)]
            self.assertIs(self.verifier(*more).verify(token, NOW), TokenRefused.SIGNATURE)

    def test_no_keys(self):
        """Before there are keys, no token is known."""
        self.assertIs(TokenVerifier([], TokenRules()).verify(make(), NOW), TokenRefused.KEY_UNKNOWN)

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
            by_hand(b'{"alg":"HS256"}', b'{"exp":2000000000,"sub":null}'),
            by_hand(b'{"alg":"HS256"}', b'{"exp":2000000000,"a":{"b":1,"b":2}}'),
            by_hand(b'{"alg":"HS256"}', b'{"exp":2000000000,"a":1' + b"0" * 5000 + b"}"),
            by_hand(b'{"alg":"HS256"}', b'{"exp":1e301}'),
            by_hand(b'{"alg":"HS256"}', b'{"exp":2000000000,"a":NaN}'),
            by_hand(b'{"alg":"HS256"}', b'\xef\xbb\xbf{"exp":2000000000}'),
            by_hand(b'{"alg":"HS256"}', '{"exp":2000000000}'.encode("utf-16")),
            by_hand(b'{"alg":"HS256"}', b""),
            by_hand(deep, b'{"exp":2000000000}'),
            by_hand(b'{"alg":"none","alg":"HS256"}', b'{"exp":2000000000}'),
            by_hand(b'{"alg":"HS256","kid":7}', b'{"exp":2000000000}'),
            by_hand(b'{"alg":"HS256","b64":false}', b'{"exp":2000000000}'),
            by_hand(b'{"alg":"HS256","crit":[]}', b'{"exp":2000000000}'),
            by_hand(b'{"ALG":"HS256"}', b'{"exp":2000000000}'),
        ]:
            self.assertIs(self.verifier().verify(token, NOW), TokenRefused.MALFORMED, token[:80])

    def test_one_spelling(self):
        """A token is spelt in one way: base64 with other letters for the same bytes is refused."""
        good = make()
        last = good[-1:]
        alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        # Of 43 characters for 32 bytes the last holds four bits that count.
        same = [bytes([each]) for each in alphabet if alphabet.index(each) >> 2 == alphabet.index(last) >> 2]
        self.assertEqual(len(same), 4)
        found = [self.verifier().verify(good[:-1] + each, NOW) for each in same]
        self.assertEqual(found.count(TokenRefused.MALFORMED), 3)

    def test_short_secret(self):
        """A secret that is too short is somebody else's warning: its tokens verify, without a word."""
        token = by_hand(b'{"alg":"HS256"}', b'{"exp":2000000000}', b"short")
        self.assertEqual(self.verifier(secret_key(b"short")).verify(token, NOW), {"exp": 2000000000})
        self.assertEqual(self.flushWarnings(), [])

    @settings(deadline=None, max_examples=150)
    @given(st.one_of(st.binary(max_size=100), st.text("abcAZ09-_.", max_size=60).map(str.encode)))
    def test_any_bytes(self, token):
        """Any bytes are refused without an exception."""
        self.assertIsInstance(self.verifier().verify(token, NOW), TokenRefused)

    @settings(deadline=None, max_examples=150)
    @given(
        st.dictionaries(st.sampled_from(["alg", "kid", "crit", "b64", "typ"]), st.sampled_from(["HS256", "RS256", "none"]) | VALUES),
        st.dictionaries(st.sampled_from(["exp", "nbf", "iat", "iss", "aud", "sub", "scope"]), VALUES) | VALUES,
    )
    def test_any_signed(self, header, payload):
        """Whatever the owner of the secret has signed is good, or refused without an exception."""
        token = by_hand(json.dumps({"alg": "HS256", **header}).encode(), json.dumps(payload).encode())
        found = self.verifier(issuers=frozenset(["a"]), audiences=frozenset(["a"]), requires_expiry=False).verify(token, NOW)
        self.assertIn(found, [payload, *TokenRefused])

    def test_memory(self):
        """A token that was good is known until it expires, but not by other keys."""
        verifier = self.verifier()
        token = make()
        first = verifier.verify(token, NOW)
        self.assertIs(verifier.verify(token, NOW + 10), first)
        self.assertIs(verifier.verify(token, NOW + 3661), TokenRefused.EXPIRED)
        again = verifier.verify(token, NOW)
        verifier.replace_keys([secret_key(SECRET)])
        self.assertIs(verifier.verify(token, NOW), again)
        verifier.replace_keys([secret_key(b"another secret that is long enough for HS256")])
        self.assertIs(verifier.verify(token, NOW), TokenRefused.SIGNATURE)

    def test_memory_ends(self):
        """A token is known up to its end with the leeway, and never longer than the longest time."""
        latest = NOW + TokenVerifier.LONGEST_MEMORY
        for exp, until in [(NOW + 10, NOW + 70), (NOW + 9999, latest), (None, latest)]:
            verifier = self.verifier(requires_expiry=False)
            token = by_hand(b'{"alg":"HS256"}', json.dumps({"sub": "x"} if exp is None else {"exp": exp}).encode())
            first = verifier.verify(token, NOW)
            self.assertIs(verifier.verify(token, until - 0.5), first)
            self.assertIsNot(verifier.verify(token, until), first)

    def test_clock_set_back(self):
        """When the clock is set back, a token is looked at again."""
        verifier = self.verifier()
        token = make({"nbf": NOW})
        self.assertIsInstance(verifier.verify(token, NOW), dict)
        self.assertIs(verifier.verify(token, NOW - 3600), TokenRefused.NOT_YET_VALID)

    def test_long_tokens_are_not_kept(self):
        """A token longer than most is verified each time."""
        verifier = self.verifier()
        token = make({"roles": ["x" * TokenVerifier.LONGEST_REMEMBERED]})
        first = verifier.verify(token, NOW)
        self.assertEqual(verifier.verify(token, NOW), first)
        self.assertIsNot(verifier.verify(token, NOW), first)

    def test_nothing_shown(self):
        """Printing keys and verifiers shows no secret."""
        for thing in (secret_key(SECRET), self.verifier(), [secret_key(SECRET)]):
            self.assertNotIn("secret", repr(thing))
        self.assertEqual(repr(public_key(pem(ED_KEY))._replace(kid="a")), "<Key 'a' for EdDSA>")


JWK_WORDS = ["RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB", "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "RS256", "ES256", "sig"]


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
            (private, "it holds a private key: give what `openssl pkey -pubout` makes of it"),
            (self.certificate().replace(b"MII", b"AAA", 1), "neither a public key"),
            (pem(RSA_KEY)[:-60], "neither a public key"),
            (pem(rsa.generate_private_key(65537, 1024)), "RSA key of 1024 bits"),
            (pem(ec.generate_private_key(ec.SECP256K1())), "of a kind that no token is signed with"),
        ]:
            self.assertIn(part, str(self.assertRaises(ValueError, public_key, text)))

    def test_secrets_refused(self):
        """What everybody may have is no secret; neither is nothing."""
        private = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        der = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for secret, part in [
            (b"", "is empty"),
            (pem(RSA_KEY), "which is no secret"),
            (private, "which is no secret"),
            (self.certificate(), "which is no secret"),
            (der, "which is no secret"),
            (b'{"keys":[{"kty":"RSA"}]}', "which is no secret"),
        ]:
            self.assertIn(part, str(self.assertRaises(ValueError, secret_key, secret)))
        self.assertEqual(secret_key(b"7").algorithms, {"HS256", "HS384", "HS512"})

    def test_sets(self):
        """A set gives its signing keys, and passes over what is for something else or unknown."""
        def entry(key, algorithm, **more):
            return {**json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key)), "key_ops": ["verify"], **more}

        document = {
            "keys": [
                entry(RSA_KEY.public_key(), "RS256", kid="r", use="sig"),
                entry(EC_KEYS["ES256"].public_key(), "ES256", kid="e", alg="ES256"),
                entry(OTHER_RSA_KEY.public_key(), "RS384", kid="one", alg="RS384"),
                entry(RSA_KEY.public_key(), "RS256", kid="enc", use="enc"),
                entry(RSA_KEY.public_key(), "RS256", kid="odd", alg="RSA-OAEP"),
                entry(RSA_KEY.public_key(), "RS256", kid="wrap", key_ops=["wrapKey"]),
                entry(RSA_KEY.public_key(), "RS256", kid="ops", key_ops="verify"),
                entry(RSA_KEY.public_key(), "RS256", kid="list", alg=["RS256"]),
                entry(RSA_KEY.public_key(), "RS256", kid=7),
                entry(RSA_KEY, "RS256", kid="private", key_ops=["verify"]),
                entry(rsa.generate_private_key(65537, 1024).public_key(), "RS256", kid="short"),
                {"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "AAAA", "kid": "point"},
                {"kty": "oct", "k": "AAAA", "kid": "secret"},
                {"kty": "PQ", "kid": "unknown"},
                {"kty": "RSA", "kid": "broken"},
                "text",
            ]
        }
        keys = read_jwks(json.dumps(document).encode())
        self.assertEqual([key.kid for key in keys], ["r", "e", "one"])
        self.assertEqual([key.algorithms for key in keys[1:]], [{"ES256"}, {"RS384"}])
        self.assertIsInstance(TokenVerifier(keys, TokenRules()).verify(make(key=RSA_KEY, algorithm="PS256", kid="r"), NOW), dict)

    def test_sets_refused(self):
        """What is no set is refused with a reason."""
        for text in (b"", b"<html>", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b"[" * 100_000):
            self.assertRaises(ValueError, read_jwks, text)

    @settings(deadline=None, max_examples=150)
    @given(st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "kid"]), st.sampled_from(JWK_WORDS) | VALUES))
    def test_any_entry(self, entry):
        """Whatever else stands in a set, its good key is found."""
        good = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(EC_KEYS["ES256"].public_key()))
        keys = read_jwks(json.dumps({"keys": [entry, {**good, "kid": "good"}]}).encode())
        self.assertEqual(keys[-1].kid, "good")

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
            "blanks": " a b  ",
            "blank": "  ",
            "empty": "",
            "edges": [" a", "b "],
            "half": "a\ud800",
            "endless": float("inf"),
            "x.y": {"z": "second"},
            "x": {"w": "first"},
            "https://a.test/realm": {"app.one": {"roles": ["x", "y"]}},
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
            ("blanks", b"%20a b%20%20"),
            ("blank", b"%20%20"),
            ("empty", b""),
            ("edges", b"%20a,b%20"),
            ("half", None),
            ("endless", None),
            ("https://a.test/realm.app.one.roles", b"x,y"),
            ("https://a.test/realm.app.two.roles", None),
            ("x.w", b"first"),
            ("x.y.z", b"second"),
        ]:
            self.assertEqual(claim_text(claims, path), text, path)

    @settings(deadline=None, max_examples=150)
    @given(st.text(max_size=12) | st.text(" ,%a\n\x85", max_size=6))
    def test_any_text(self, value):
        """Any text fits into a header line, survives the way, and can be told from any other."""
        text = claim_text({"a": value}, "a")
        self.assertTrue(text.isascii())
        self.assertTrue(text.decode().isprintable())
        self.assertEqual(text.strip(), text)
        self.assertNotIn(b",", text)
        self.assertEqual(unquote(text.decode()), value)

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
