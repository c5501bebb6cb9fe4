"""
Dialogues through `jwt`.
"""

import json
import time

import jwt as pyjwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.config.values import Secret
from a3sgw.interfaces import IIdentitySource, IRequestHook, IRetirable
from a3sgw.loading import load_string
from a3sgw.middleware import jwt
from a3sgw.middleware.jwks import KeySet
from a3sgw.middleware.jwt import Jwt, JwtConfig
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, MiddlewareCase, request, response
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import middleware_contract

SECRET = "a secret that is long enough for HS256"
PLAIN = f'type = "jwt"\nvalue = "{SECRET}"\n'
KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("one", "two")}


class JwtContract(middleware_contract(jwt.factory, f'value = "{SECRET}"')):
    """
    `jwt` keeps the contract of middlewares.
    """


def token(key=SECRET, algorithm="HS256", kid=None, **claims):
    """
    Return a token that is good for an hour of real time.
    """
    payload = {"exp": time.time() + 3600, **claims}
    return pyjwt.encode(payload, key, algorithm, headers=None if kid is None else {"kid": kid})


def key_set(*names):
    """
    Return the response of a JWKS URL with these keys.
    """
    entries = [{**json.loads(pyjwt.get_algorithm_by_name("ES256").to_jwk(KEYS[name].public_key())), "kid": name} for name in names]
    body = json.dumps({"keys": entries}).encode()
    return response("200 OK", "Content-Type: application/json", f"Content-Length: {len(body)}", body=body)


class JwtTests(MiddlewareCase):
    """
    Only who bears a good token passes.
    """

    def passes(self, *lines, target="/"):
        asked, told = self.exchange(request("GET", target, *lines))
        if not asked:
            self.assertTrue(told.startswith(b"HTTP/1.1 401 "), told)
            self.assertIn(b'"reason": "token-refused"', told)
            self.told = told
        return asked

    def test_good_token(self):
        """A good token passes, with or without its scheme, and the server hears whose it is."""
        self.pass_through(PLAIN)
        for value in (f"Bearer {token(sub='anna')}", f"bearer {token(sub='anna')}", token(sub="anna")):
            heard = self.passes(f"Authorization: {value}")
            self.assertIn(b"\r\nX-Jwt-Subject: anna\r\n", heard)
            self.assertIn(b"\r\nAuthorization: ", heard)

    def test_bad_tokens(self):
        """Everything else is answered 401 with a challenge that says why, in words that tell nothing."""
        self.pass_through(PLAIN)
        self.assertFalse(self.passes())
        self.assertIn(b"\r\nWWW-Authenticate: Bearer\r\n", self.told)
        for value, reason in [
            ("Bearer a.b.c", b"cannot be read"),
            (f"Bearer {token('another secret that is long enough')}", b"signature"),
            (f"Bearer {token(exp=1)}", b"expired"),
            (f"Bearer {token(nbf=time.time() + 999)}", b"not valid yet"),
            ("Bearer " + "A" * 7000, b"cannot be read"),
        ]:
            self.assertFalse(self.passes(f"Authorization: {value}"), value)
            self.assertIn(b'\r\nWWW-Authenticate: Bearer error="invalid_token", error_description="', self.told)
            self.assertIn(reason, self.told)
        self.assertFalse(self.passes("Authorization: Basic YTpi"))
        self.assertFalse(self.passes(f"Authorization: Bearer {token()}", f"Authorization: Bearer {token()}"))

    def test_identity(self):
        """Nobody but the token says who it is, whether it does or not."""
        self.pass_through(PLAIN + 'forward_claims = { "X-Roles" = "realm.roles", "X-Tenant" = "tenant" }')
        forged = ("X-Jwt-Subject: root", "x-jwt-subject: root", "X-Roles: admin", "X-Tenant: all")
        heard = self.passes(f"Authorization: Bearer {token()}", *forged)
        for part in (b"root", b"admin", b"all", b"X-Jwt-Subject"):
            self.assertNotIn(part, heard)
        heard = self.passes(f"Authorization: Bearer {token(sub='anna', realm={'roles': ['a', 'b']}, tenant=7)}", *forged)
        for part in (b"\r\nX-Jwt-Subject: anna\r\n", b"\r\nX-Roles: a,b\r\n", b"\r\nX-Tenant: 7\r\n"):
            self.assertIn(part, heard)
        self.assertNotIn(b"root", heard)

    def test_places(self):
        """A cookie or a query parameter may bear the token where that is configured, and the server need not see it."""
        self.pass_through(PLAIN + 'header = "X-Token"\ncookie = "token"\nquery = "token"\nremove_token = true')
        good = token(sub="anna")
        for lines, target in (([f"X-Token: {good}"], "/"), ([f"Cookie: a=b; token={good}"], "/"), ([], f"/p?a=b&token={good}")):
            heard = self.passes(*lines, target=target)
            self.assertIn(b"\r\nX-Jwt-Subject: anna\r\n", heard)
            self.assertNotIn(good.encode(), heard)
        self.assertFalse(self.passes(f"Authorization: Bearer {good}"))
        self.assertFalse(self.passes("X-Token: a.b.c", f"Cookie: token={good}"))

    def test_rules(self):
        """Issuer, audience, claims and algorithms are those configured."""
        self.pass_through(PLAIN + 'issuers = ["id"]\naudiences = ["api", "web"]\nrequired_claims = ["scope"]\nalgorithms = ["HS512"]')
        good = {"iss": "id", "aud": ["x", "web"], "scope": "read"}
        self.assertTrue(self.passes(f"Authorization: Bearer {token(algorithm='HS512', **good)}"))
        self.assertFalse(self.passes(f"Authorization: Bearer {token(**good)}"))
        for change in ({"iss": "other"}, {"aud": "x"}, {"scope": None}):
            self.assertFalse(self.passes(f"Authorization: Bearer {token(algorithm='HS512', **{**good, **change})}"), change)

    def test_public_key(self):
        """A public key in a file verifies, and a changed file is read at the next reload."""
        path = self.mktemp()
        settings = f'type = "jwt"\npublic_key_file = "{path}"'

        def write(name):
            with open(path, "wb") as stream:
                stream.write(KEYS[name].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

        write("one")
        self.pass_through(settings)
        self.assertTrue(self.passes(f"Authorization: Bearer {token(KEYS['one'], 'ES256')}"))
        self.assertFalse(self.passes(f"Authorization: Bearer {token(KEYS['two'], 'ES256')}"))
        write("two")
        self.dialogue.reload(config(middlewares=[settings]))
        self.assertTrue(self.passes(f"Authorization: Bearer {token(KEYS['two'], 'ES256')}"))


class KeySetTests(MiddlewareCase):
    """
    Keys that are fetched.
    """

    SETTINGS = 'type = "jwt"\njwks_url = "http://198.51.100.7/keys?x=1"\njwks_refresh_secs = 100'

    def begin(self, name="one", **claims):
        """
        Ask with a token signed by a key; return the client's end.
        """
        client = self.dialogue.connect()
        signed = token(KEYS[name], "ES256", kid=name, **claims)
        self.say(client, request("GET", "/", f"Authorization: Bearer {signed}"))
        return client

    def issuer(self):
        """
        Return the newest connection on which keys are asked for.
        """
        for backend in reversed(self.dialogue.backends):
            if bytes(backend.arrived).startswith(b"GET /keys?x=1 HTTP/1.1\r\nHost: 198.51.100.7\r\n"):
                backend.take()
                return backend
        return None

    def assert_passes(self, client):
        for backend in self.dialogue.backends:
            if bytes(backend.arrived).startswith(b"GET / "):
                self.hear(backend)
                self.say(backend, OK)
        self.assertTrue(self.hear(client).endswith(b"ok"))
        client.close()

    def assert_told(self, client, status):
        heard = self.hear(client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 %d " % status), heard)
        client.close()

    def test_first_requests_wait(self):
        """Nothing is fetched before the first request; all that come meanwhile wait for one fetch."""
        self.pass_through(self.SETTINGS)
        self.assertIsNone(self.issuer())
        clients = [self.begin() for _ in range(3)]
        issuer = self.issuer()
        self.assertIsNone(self.issuer())
        self.say(issuer, key_set("one"))
        for client in clients:
            self.assert_passes(client)
        self.assert_passes(self.begin())
        self.assertIsNone(self.issuer())

    def test_refresh(self):
        """Keys are fetched again in the background; nobody waits for that, and a failure changes nothing."""
        self.pass_through(self.SETTINGS)
        client = self.begin()
        self.say(self.issuer(), key_set("one"))
        self.assert_passes(client)
        self.dialogue.reactor.advance(100.5)
        issuer = self.issuer()
        self.assert_passes(self.begin())
        self.say(issuer, response("500 No", "Content-Length: 0"))
        self.assert_passes(self.begin())
        self.dialogue.reactor.advance(KeySet.FIRST_PAUSE + 0.5)
        self.say(self.issuer(), key_set("two"))
        self.assert_told(self.begin("one"), 401)
        self.assert_passes(self.begin("two"))

    def test_unknown_key(self):
        """A token by a key that is not known makes the set be fetched anew, but not again and again."""
        self.pass_through(self.SETTINGS)
        client = self.begin()
        self.say(self.issuer(), key_set("one"))
        self.assert_passes(client)
        self.assert_told(self.begin("two"), 401)
        self.assertIsNone(self.issuer())
        self.dialogue.reactor.advance(KeySet.UNKNOWN_KEY_PAUSE)
        client = self.begin("two")
        self.say(self.issuer(), key_set("one", "two"))
        self.assert_passes(client)
        self.assert_passes(self.begin("two"))

    def test_never_fetched(self):
        """Without any keys requests are answered 503, at once while the pause lasts, and pass when there are some."""
        self.pass_through(self.SETTINGS)
        client = self.begin()
        self.say(self.issuer(), response("200 OK", "Content-Length: 2", body=b"{}"))
        self.assert_told(client, 503)
        self.assert_told(self.begin(), 503)
        self.dialogue.reactor.advance(KeySet.FIRST_PAUSE + 0.5)
        self.say(self.issuer(), key_set("one"))
        self.assert_passes(self.begin())

    def test_slow_issuer(self):
        """An issuer that does not answer costs no request more than the time limit."""
        self.pass_through(self.SETTINGS + "\njwks_timeout_ms = 2000")
        client = self.begin()
        self.assertIsNotNone(self.issuer())
        self.dialogue.reactor.advance(2.5)
        self.assert_told(client, 503)

    def test_client_leaves(self):
        """A client that leaves while it waits harms nobody, and the keys are there for the next."""
        self.pass_through(self.SETTINGS)
        self.begin().close()
        client = self.begin()
        self.say(self.issuer(), key_set("one"))
        self.assert_passes(client)

    def test_retired(self):
        """A reload that removes the middleware stops the fetching."""
        self.pass_through(self.SETTINGS)
        client = self.begin()
        self.say(self.issuer(), key_set("one"))
        self.assert_passes(client)
        self.dialogue.reload(config())
        self.dialogue.reactor.advance(300)
        self.assertIsNone(self.issuer())


class ConfigTests(SynchronousTestCase):
    """
    What is refused at load.
    """

    def test_interfaces(self):
        """A middleware provides its phases."""
        middleware = Jwt(JwtConfig(name="x", value=Secret(SECRET)), still_surroundings("x"))
        verifyObject(IRequestHook, middleware)
        verifyObject(IIdentitySource, middleware)
        verifyObject(IRetirable, middleware)

    def test_refused(self):
        """Keys and rules that cannot work are named with their place; no secret is shown."""
        broken = self.mktemp()
        with open(broken, "w", encoding="utf-8") as stream:
            stream.write("no key\n")
        no_secret = "-----BEGIN PUBLIC KEY-----\\nMIIB\\n-----END PUBLIC KEY-----"
        for attribute, part in [
            ("", "requires value or value_file or public_key_file or jwks_url"),
            ('value = ""', "a secret must not be"),
            ('value = "x"\njwks_url = "http://a"', "give one of them"),
            ('value_file = "/nowhere"', "middlewares.m.value_file cannot be read"),
            (f'value = "{no_secret}"', "middlewares.m.value is a key, a certificate or a key set"),
            (f'public_key_file = "{broken}"', "middlewares.m.public_key_file is neither a public key nor a certificate"),
            (f'value = "{SECRET}"\nalgorithms = ["RS256"]', "middlewares.m.algorithms names none that the key is for"),
            (f'value = "{SECRET}"\nalgorithms = ["none"]', "expected one of"),
            ('jwks_url = "ftp://a"', "jwks_url is"),
            (f'value = "{SECRET}"\nforward_claims = {{ "X Y" = "a" }}', "not a valid header name"),
        ]:
            text = f'entrypoints "web" {{ address = ":80" }}\nmiddlewares "m" {{\n type = "jwt"\n {attribute}\n}}'
            (problem,) = load_string(text, "gw.hcl", {}).problems
            self.assertIn(part, str(problem))
            self.assertNotIn(SECRET, str(problem))
