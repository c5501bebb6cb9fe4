"""
Tests of `replace-path`.
"""

from zope.interface.verify import verifyObject

from a3sgw.interfaces import IIdentitySource, IRequestHook
from a3sgw.middleware import replace_path
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import MiddlewareCase, request
from a3sgw.middleware.test.refusals import RefusalCase
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import middleware_contract

FIXED = 'type = "replace-path"\npath = "/index.html"'


def by_regex(regex, replacement):
    """
    Return the attributes that replace what matches `regex`, written as in HCL.
    """
    return f'type = "replace-path"\nregex = "{regex}"\nreplacement = "{replacement}"'


class ReplacePathContract(middleware_contract(replace_path.factory, 'regex = "(.)"\nreplacement = "$1$1"')):
    """
    `replace-path` is a middleware.
    """

    def test_phases(self):
        """It looks at heads and has a header of its own."""
        built = replace_path.ReplacePath(self.config(), still_surroundings("x"))
        verifyObject(IRequestHook, built)
        verifyObject(IIdentitySource, built)


class ReplaceCase(MiddlewareCase):
    """
    Requests whose path is replaced.
    """

    def assert_asked(self, target, line, former=None, *lines, method="GET"):
        """
        Fail unless the server is asked `line` for `target`, and told that the path was `former`.
        """
        heard = self.exchange(request(method, target, *lines))[0].decode("latin-1").split("\r\n")
        self.assertEqual(heard[0], f"{method} {line} HTTP/1.1", target)
        told = [each for each in heard if each.lower().startswith("x-replaced-path")]
        self.assertEqual(told, [] if former is None else [f"X-Replaced-Path: {former}"], target)


class FixedTests(ReplaceCase):
    """
    Every request asks for one path.
    """

    def test_targets(self):
        """The query stays; the former path is told in its canonical form."""
        self.pass_through(FIXED)
        self.assert_asked("/", "/index.html", "/")
        self.assert_asked("/app/users?id=7", "/index.html?id=7", "/app/users")
        self.assert_asked("/x?", "/index.html?", "/x")
        self.assert_asked("/a/../b%7e", "/index.html", "/b~")
        self.assert_asked("/x", "/index.html", "/x", method="POST")

    def test_same(self):
        """What asks for that path already is not changed."""
        self.pass_through(FIXED)
        self.assert_asked("/index.html?a", "/index.html?a")

    def test_no_path(self):
        """`OPTIONS *` asks about the server, not about a path."""
        self.converse()
        self.dialogue.reload(config(middlewares=[FIXED]).replace("PathPrefix(`/`)", "Host(`a.test`)"))
        self.assert_asked("*", "*", method="OPTIONS")

    def test_spoofed(self):
        """Nobody else can say what was replaced, whatever the spelling."""
        self.pass_through(FIXED, entrypoint="allow_underscores_in_headers = true")
        for line in ("X-Replaced-Path: /admin", "x-replaced-path: /admin"):
            self.assert_asked("/x", "/index.html", "/x", line)
            self.assert_asked("/index.html", "/index.html", None, line)
        asked, _ = self.exchange(request("GET", "/x", "X_Replaced_Path: /admin"))
        self.assertNotIn(b"/admin", asked)

    def test_twice(self):
        """If the path is replaced twice, the server is told the first."""
        self.pass_through(by_regex("^/a/", "/b/"), by_regex("^/b/", "/c/"))
        self.assert_asked("/a/x", "/c/x", "/a/x")
        self.assert_asked("/b/x", "/c/x", "/b/x")


class RegexTests(ReplaceCase):
    """
    The new path is made of the old one.
    """

    def test_groups(self):
        """Groups are named by number or by name; a path without a match stays."""
        self.pass_through(by_regex("^/users/(?P<id>[0-9]+)(/.*)?$", "/accounts/$${id}$2"))
        self.assert_asked("/users/7", "/accounts/7", "/users/7")
        self.assert_asked("/users/7/posts?page=2", "/accounts/7/posts?page=2", "/users/7/posts")
        self.assert_asked("/users/x", "/users/x")
        self.assert_asked("/?/users/7", "/?/users/7")

    def test_not_anchored(self):
        """A pattern may match anywhere, and each match is replaced."""
        self.pass_through(by_regex("-", "_"))
        self.assert_asked("/a-b/c-d", "/a_b/c_d", "/a-b/c-d")

    def test_result_is_canonical(self):
        """Whatever comes out is brought into the form of all paths."""
        for regex, replacement, target, line in [
            ("^/api/(.*)$", "$1", "/api/x", "/x"),
            ("^/api(/.*)$", "/$1", "/api/x", "/x"),
            ("^/x/(.*)/y$", "/$1/../z", "/x/a/b/y", "/a/z"),
            ("!", ".", "/a/!!/b", "/b"),
            ("^/a", "", "/a", "/"),
            ("q", "%61", "/q", "/a"),
            ("q", "%2e%2e", "/b/q/c", "/c"),
        ]:
            self.pass_through(by_regex(regex, replacement))
            self.assert_asked(target, line, target)

    def test_result_is_refused(self):
        """What the entrypoint would not take from a client it does not send to a server: 400."""
        for regex, replacement, target in [
            ("x", "%", "/x"),
            ("25", "", "/a%25b"),
            ("x", "%2f", "/x"),
            ("!", ";", "/..!/admin"),
            ("x", "%00", "/x"),
        ]:
            self.pass_through(by_regex(regex, replacement))
            self.say(self.client, request("GET", target))
            self.assert_refused(400, "path-refused")
            self.assertEqual(self.dialogue.backends, [])

    def test_relaxed(self):
        """What the entrypoint allows in paths is allowed in the result."""
        self.pass_through(by_regex("x", "%2f"), entrypoint="encoded_characters { allow_encoded_slash = true }")
        self.assert_asked("/x", "/%2F", "/x")

    def test_too_long(self):
        """A result that no server would take is refused with 414, and takes neither time nor memory."""
        self.pass_through(by_regex(".", "$0" * 400))
        self.say(self.client, request("GET", "/" + "a" * 8000))
        self.assert_refused(414, "request-line-too-long")
        self.assert_asked("/", "/", None)

    def test_dollar(self):
        """A dollar sign is written twice."""
        self.pass_through(by_regex("x", "$$1"))
        self.assert_asked("/x", "/$1", "/x")


class ConfigTests(RefusalCase):
    """
    What is refused when the configuration is loaded.
    """

    type_name = "replace-path"

    def test_refusals(self):
        """There is a path, or a pattern that can be read with a replacement that fits it."""
        self.assert_accepted('path = "/a"', 'regex = "a"\nreplacement = ""', 'regex = "(?P<n>a)(b)?"\nreplacement = "$0$${1}$n$${n}x$2$$"')
        self.assert_refused(
            [
                ("", 'gw.hcl:11:1: middleware "m1" of type "replace-path" requires path or regex'),
                ('path = "/a"\nregex = "a"\nreplacement = "b"', 'gw.hcl:14:9: middleware "m1" has both path and regex; give one of them'),
                ('path = "a"', 'gw.hcl:13:8: middlewares.m1.path is "a", which does not begin with "/"'),
                ('path = "/a?b"', 'gw.hcl:13:8: middlewares.m1.path is "/a?b", which holds "?"; a path ends before it'),
                ('regex = "a"', 'gw.hcl:13:9: middleware "m1" has a "regex" but no "replacement"; give both'),
                ('path = "/a"\nreplacement = "b"', 'gw.hcl:14:15: middleware "m1" has a "replacement" but no "regex"; give both'),
                ('regex = "a"\nreplacement = "/b?c"', 'gw.hcl:14:15: middleware "m1" has a replacement with "?" or "#"'),
                ('regex = "a"\nreplacement = "b c"', 'gw.hcl:14:15: middlewares.m1.replacement is "b c", which holds a blank'),
                ('regex = "("\nreplacement = "b"', 'gw.hcl:13:9: middlewares.m1.regex is "(", which is not an RE2 pattern: missing )'),
                ('regex = "a"\nreplacement = "$1"', "gw.hcl:14:15: middlewares.m1.replacement names the group 1, but the pattern has none"),
            ]
        )
