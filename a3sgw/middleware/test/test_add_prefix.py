"""
Tests of `add-prefix`.
"""

from zope.interface.verify import verifyObject

from a3sgw.interfaces import IRequestHook
from a3sgw.middleware import add_prefix
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import MiddlewareCase, request
from a3sgw.middleware.test.refusals import RefusalCase
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import middleware_contract

APP = 'type = "add-prefix"\nprefix = "/app"'


class AddPrefixContract(middleware_contract(add_prefix.factory, 'prefix = "/a"')):
    """
    `add-prefix` is a middleware.
    """

    def test_phases(self):
        """It looks at heads."""
        verifyObject(IRequestHook, add_prefix.AddPrefix(self.config(), still_surroundings("x")))


class AddTests(MiddlewareCase):
    """
    The server is asked for a path below the prefix.
    """

    def line(self, target, method="GET"):
        return self.exchange(request(method, target))[0].decode("latin-1").split("\r\n")[0]

    def test_targets(self):
        """The prefix stands before the path; the query stays as it is, an empty one too."""
        self.pass_through(APP)
        for target, longer in [
            ("/", "/app/"),
            ("/x", "/app/x"),
            ("/x?", "/app/x?"),
            ("/x?a=/b", "/app/x?a=/b"),
            ("/?a", "/app/?a"),
            ("/app/x", "/app/app/x"),
            ("/../x", "/app/x"),
            ("http://a.test/x", "/app/x"),
        ]:
            self.assertEqual(self.line(target), f"GET {longer} HTTP/1.1", target)

    def test_no_path(self):
        """`OPTIONS *` asks about the server, not about a path."""
        self.converse()
        self.dialogue.reload(config(middlewares=[APP]).replace("PathPrefix(`/`)", "Host(`a.test`)"))
        self.assertEqual(self.line("*", "OPTIONS"), "OPTIONS * HTTP/1.1")

    def test_with_others(self):
        """A prefix is exchanged by cutting one off and adding another; a slash at its end makes no difference."""
        self.pass_through('type = "strip-prefix"\nprefixes = ["/api"]', 'type = "add-prefix"\nprefix = "/v2/"')
        self.assertEqual(self.line("/api/x?y"), "GET /v2/x?y HTTP/1.1")

    def test_reload(self):
        """Another prefix counts from the next request on."""
        self.pass_through(APP)
        self.assertEqual(self.line("/x"), "GET /app/x HTTP/1.1")
        self.dialogue.reload(config(middlewares=[APP.replace("app", "new")]))
        self.assertEqual(self.line("/x"), "GET /new/x HTTP/1.1")


class ConfigTests(RefusalCase):
    """
    What is refused when the configuration is loaded.
    """

    type_name = "add-prefix"

    def test_refusals(self):
        """The prefix is there, is a path, and adds something."""
        self.assert_accepted('prefix = "/a/b/"')
        self.assert_refused(
            [
                ("", 'gw.hcl:11:1: middleware "m1" lacks "prefix", which is required'),
                ('prefix = ""', "gw.hcl:13:10: middlewares.m1.prefix is"),
                ('prefix = "a"', 'gw.hcl:13:10: middlewares.m1.prefix is "a", which does not begin with "/"'),
                ('prefix = "/"', 'gw.hcl:13:10: middleware "m1" has the prefix "/", and nothing would be added'),
                ('prefix = "/a/./b"', 'gw.hcl:13:10: middlewares.m1.prefix is "/a/./b", which is not canonical'),
            ]
        )
