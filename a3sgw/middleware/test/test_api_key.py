"""
Dialogues through `api-key`.
"""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IRequestHook
from a3sgw.loading import load_string
from a3sgw.middleware import api_key
from a3sgw.middleware.api_key import ApiKey, ApiKeyConfig
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import MiddlewareCase, request
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import middleware_contract


class ApiKeyContract(middleware_contract(api_key.factory, 'keys = ["k"]')):
    """
    `api-key` keeps the contract of middlewares.
    """


class ApiKeyTests(MiddlewareCase):
    """
    Only who bears a key passes.
    """

    KEYS = 'type = "api-key"\nkeys = ["one", "zwö"]\n'

    def passes(self, *lines, target="/"):
        """
        Say whether a request passes; return what the backend heard, or nothing.
        """
        asked, told = self.exchange(request("GET", target, *lines))
        if not asked:
            self.assertTrue(told.startswith(b"HTTP/1.1 401 "), told)
            self.assertIn(b'{"error": "Invalid or missing API key", "reason": "api-key-refused"', told)
        return asked

    def test_header(self):
        """One of the keys in the header lets in; anything else, two of them included, does not."""
        self.pass_through(self.KEYS)
        self.assertTrue(self.passes("X-API-Key: one"))
        self.assertTrue(self.passes("x-api-key:  zw\xc3\xb6"))
        for value in ("", "Onw", "one,one", "one one", "\xff"):
            self.assertFalse(self.passes(f"X-API-Key: {value}"), value)
        for lines in ([], ["X-API-Key: one"] * 2, ["X-Key: one"]):
            self.assertFalse(self.passes(*lines), lines)

    def test_other_places(self):
        """A cookie or a query parameter may bear the key where that is configured, the header first."""
        self.pass_through(self.KEYS + 'header = "X-Own"\ncookie = "key"\nquery = "api key"')
        for lines, target in (
            (["X-Own: one"], "/"),
            (["Cookie: a=b; key=one"], "/"),
            ([], "/?api+key=one"),
            ([], "/?a=b&api%20key=%6fne&c"),
        ):
            self.assertTrue(self.passes(*lines, target=target), (lines, target))
        for lines, target in (
            (["X-API-Key: one"], "/"),
            (["X-Own: no", "Cookie: key=one"], "/"),
            ([], "/?api+key=one&api+key=one"),
            ([], "/?apikey=one"),
        ):
            self.assertFalse(self.passes(*lines, target=target), (lines, target))

    def test_not_elsewhere(self):
        """Where it is not configured, a key in a cookie or a query is none."""
        self.pass_through(self.KEYS)
        self.assertFalse(self.passes("Cookie: key=one; X-API-Key=one", target="/?X-API-Key=one&key=one"))

    def test_removed(self):
        """The key is kept from servers on request, and everything else reaches them as it was."""
        self.pass_through(self.KEYS + 'cookie = "key"\nquery = "key"\nremove_key = true')
        heard = self.passes("X-API-Key: one", "Cookie: a=b; key=two; c=d", target="/p?x=%20&key=three&y")
        self.assertNotIn(b"one", heard)
        self.assertNotIn(b"two", heard)
        self.assertTrue(heard.startswith(b"GET /p?x=%20&y HTTP/1.1\r\n"), heard)
        self.assertIn(b"a=b", heard)
        self.assertIn(b"c=d", heard)
        self.assertTrue(self.passes(target="/p?key=one").startswith(b"GET /p HTTP/1.1\r\n"))

    def test_file(self):
        """Keys may stand in a file, which a reload reads again."""
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as stream:
            stream.write("# Partners\n\nfirst\n second \n")
        settings = f'type = "api-key"\nkeys_file = "{path}"'
        self.pass_through(settings)
        self.assertTrue(self.passes("X-API-Key: second"))
        self.assertFalse(self.passes("X-API-Key: third"))
        with open(path, "w", encoding="utf-8") as stream:
            stream.write("third\n")
        self.assertFalse(self.passes("X-API-Key: third"))
        self.dialogue.reload(config(middlewares=[settings]))
        self.assertTrue(self.passes("X-API-Key: third"))
        self.assertFalse(self.passes("X-API-Key: second"))


class ConfigTests(SynchronousTestCase):
    """
    What is refused at load.
    """

    def test_interface(self):
        """A middleware provides its phase."""
        verifyObject(IRequestHook, ApiKey(ApiKeyConfig(name="x"), still_surroundings("x")))

    def test_refused(self):
        """Keys that are not there are named with their place."""
        empty = self.mktemp()
        with open(empty, "w", encoding="utf-8") as stream:
            stream.write("# nothing\n\n")
        for attribute, part in [
            ("", "requires keys or keys_file"),
            ("keys = []", "empty list"),
            ('keys = [""]', "a secret must not be"),
            ('keys = ["a"]\nkeys_file = "b"', "give one of them"),
            ('keys_file = "/nowhere/at/all"', "middlewares.m.keys_file cannot be read: No such file"),
            (f'keys_file = "{empty}"', "middlewares.m.keys_file has no key in it"),
            ('keys = ["a"]\nusername = "b"', 'belongs to "basic-auth"'),
        ]:
            text = f'entrypoints "web" {{ address = ":80" }}\nmiddlewares "m" {{\n type = "api-key"\n {attribute}\n}}'
            (problem,) = load_string(text, "gw.hcl", {}).problems
            self.assertIn(part, str(problem))
            self.assertTrue(str(problem).startswith("gw.hcl:"), problem)
