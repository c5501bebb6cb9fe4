"""
Dialogues through `basic-auth`.
"""

import base64

import attrs
import bcrypt
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.config.values import Secret
from a3sgw.interfaces import IIdentitySource, IRequestHook
from a3sgw.loading import load_string
from a3sgw.middleware import basic_auth
from a3sgw.middleware.basic_auth import BasicAuth, BasicAuthConfig, _Bench
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, MiddlewareCase, request
from a3sgw.policy.password import Credentials, PlainPassword
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import middleware_contract

PLAIN = 'type = "basic-auth"\nusername = "anna"\npassword = "s3:cret"\n'
SLOW = bcrypt.hashpw(b"pass", bcrypt.gensalt(4)).decode()


class BasicAuthContract(middleware_contract(basic_auth.factory, 'username = "a"\npassword = "b"')):
    """
    `basic-auth` keeps the contract of middlewares.
    """


class SlowBasicAuthContract(middleware_contract(basic_auth.factory, f'users = ["anna:{SLOW}"]')):
    """
    So it does with hashes that are checked in a thread.
    """


def basic(pair):
    """
    Return the header line for `name:password`.
    """
    return "Authorization: Basic " + base64.b64encode(pair if isinstance(pair, bytes) else pair.encode()).decode()


class BasicAuthTests(MiddlewareCase):
    """
    Only known users pass.
    """

    def passes(self, *lines):
        asked, told = self.exchange(request("GET", "/", *lines))
        if not asked:
            # What ran in a thread comes a turn later.
            self.assertTrue(told.startswith(b"HTTP/1.1 401 "), told)
            self.assertIn(b'"reason": "credentials-refused"', told)
            self.assertIn(b'\r\nWWW-Authenticate: Basic realm="', told)
        return asked

    def test_one_user(self):
        """The user passes; whoever else comes is asked for a name and a password."""
        self.pass_through(PLAIN)
        self.assertIn(b"\r\nAuthorization: Basic ", self.passes(basic("anna:s3:cret")))
        for lines in ([], [basic("anna:s3")], [basic("Anna:s3:cret")], [basic("anna")], [basic(":")], ["Authorization: Basic"]):
            self.assertFalse(self.passes(*lines), lines)
        self.assertFalse(self.passes(basic("anna:s3:cret"), basic("anna:s3:cret")))
        self.assertFalse(self.passes("Authorization: Bearer abc"))
        self.assertFalse(self.passes(basic(b"\xff\xfe:\0\r\n")))

    def test_words(self):
        """The answer says what is missing, as the original does, and HEAD gets no body."""
        self.pass_through(PLAIN + 'realm = "The house"')
        _, told = self.exchange(request())
        self.assertIn(b'"error": "Missing Authorization header"', told)
        self.assertIn(b'\r\nWWW-Authenticate: Basic realm="The house", charset="UTF-8"\r\n', told)
        _, told = self.exchange(request("GET", "/", basic("anna:x")))
        self.assertIn(b'"error": "Invalid credentials"', told)
        _, told = self.exchange(request("HEAD"))
        self.assertTrue(told.endswith(b"\r\n\r\n"), told)

    def test_servers(self):
        """Servers are kept from seeing the credentials, and told the name, which nobody else can tell them."""
        self.pass_through(PLAIN + 'remove_header = true\nheader_field = "X-User"')
        heard = self.passes(basic("anna:s3:cret"), "X-User: root", "X-USER: root")
        self.assertNotIn(b"Authorization", heard)
        self.assertIn(b"\r\nX-User: anna\r\n", heard)
        self.assertNotIn(b"root", heard)

    def ask_slowly(self, *lines):
        """
        Ask as a new client; return its end.
        """
        client = self.dialogue.connect()
        self.say(client, request("GET", "/", *lines))
        return client

    def test_slow_hashes(self):
        """Hashes are checked in a thread, once for each good pair while it is remembered, and every time for a bad one."""
        self.pass_through(f'type = "basic-auth"\nusers = ["anna:{SLOW}", "bert:{{SHA}}2kuSN7rMzfGcB2DKt67EqDWQELA="]')
        for _ in range(2):
            client = self.ask_slowly(basic("anna:pass"))
            self.dialogue.reactor.advance(1)
            backend = self.dialogue.backend()
            self.assertTrue(self.hear(backend))
            self.say(backend, OK)
            self.assertTrue(self.hear(client).endswith(b"ok"))
            client.close()
        for pair in ("anna:wrong", "nobody:pass", "anna:" + "x" * 100):
            client = self.ask_slowly(basic(pair))
            self.dialogue.reactor.advance(1)
            self.assertTrue(self.hear(client).startswith(b"HTTP/1.1 401 "), pair)
            client.close()

    def test_file(self):
        """Users may stand in a file of htpasswd, which a reload reads again."""
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as stream:
            stream.write("# Team\nbert:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=\n")
        settings = f'type = "basic-auth"\nusers_file = "{path}"'
        self.pass_through(settings)
        self.assertTrue(self.passes(basic("bert:myPassword")))
        with open(path, "w", encoding="utf-8") as stream:
            stream.write("carl:{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=\n")
        self.dialogue.reload(config(middlewares=[settings]))
        self.assertFalse(self.passes(basic("bert:myPassword")))
        self.assertTrue(self.passes(basic("carl:myPassword")))


class BenchTests(SynchronousTestCase):
    """
    Slow checks take turns.
    """

    def test_turns(self):
        """Only so many run at a time, in the order in which they came; who has left is passed over, and too many are sent away."""
        begun = []

        def in_thread(call, name, password):
            begun.append((name, Deferred()))
            return begun[-1][1]

        credentials = Credentials({"anna": PlainPassword(b"x")})
        bench = _Bench(attrs.evolve(still_surroundings("x"), in_thread=in_thread), credentials)
        results = [bench.verify(b"%d" % number, b"") for number in range(_Bench.AT_A_TIME + 3)]
        self.assertEqual(len(begun), _Bench.AT_A_TIME)
        heard = []
        for result in results:
            result.addBoth(heard.append)
        results[_Bench.AT_A_TIME].cancel()
        begun[0][1].callback(True)
        self.assertEqual(begun[-1][0], b"%d" % (_Bench.AT_A_TIME + 1))
        while len(bench._queue) < _Bench.WAITING:
            bench.verify(b"more", b"").addErrback(lambda failure: None)
        self.assertIsNone(bench.verify(b"one too many", b""))
        self.assertIn(True, heard)


class ConfigTests(SynchronousTestCase):
    """
    What is refused at load.
    """

    def test_interfaces(self):
        """A middleware provides its phases."""
        middleware = BasicAuth(BasicAuthConfig(name="x", username="a", password=Secret("b"), header_field="X-U"), still_surroundings("x"))
        verifyObject(IRequestHook, middleware)
        verifyObject(IIdentitySource, middleware)
        self.assertEqual(middleware.identity_fields, frozenset([b"x-u"]))

    def test_refused(self):
        """Ways that do not go together, and files that cannot be used, are named with their place; no secret is shown."""
        bad = self.mktemp()
        with open(bad, "w", encoding="utf-8") as stream:
            stream.write("anna:in-the-clear\n")
        for attribute, part in [
            ("", "has no users"),
            ('username = "a"', "requires password or password_file"),
            ('username = "a"\npassword = "b"\npassword_file = "c"', "give one of them"),
            ('username = "a"\npassword = ""', "a secret must not be"),
            ('username = "a:b"\npassword = "c"', "holds a colon"),
            ('users = ["anna"]', 'middlewares.m.users cannot be used: line 1 is not "name:hash"'),
            ('users = ["a:b"]\nusers_file = "c"', "give one of them"),
            (f'users_file = "{bad}"\npassword = "x"', "without username"),
            (f'users_file = "{bad}"', 'line 1: user "anna" has a password which is not hashed in a way known here'),
            ('users_file = "/nowhere"', "middlewares.m.users_file cannot be read"),
            ('username = "a"\npassword = "b"\nrealm = "x\\"y"', "holds a quote"),
        ]:
            text = f'entrypoints "web" {{ address = ":80" }}\nmiddlewares "m" {{\n type = "basic-auth"\n {attribute}\n}}'
            (problem,) = load_string(text, "gw.hcl", {}).problems
            self.assertIn(part, str(problem))
            self.assertNotIn("in-the-clear", str(problem))
