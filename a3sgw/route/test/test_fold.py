"""
Tests of `a3sgw.route.fold`.
"""

from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.route.fold import HostKey, PathKey, given_host, given_path, required_hosts, required_paths, rule_size, specialise
from a3sgw.route.match import compile_http
from a3sgw.route.rule import parse_rule
from a3sgw.route.test.strategies import HEADS, HTTP_RULES


def has_host(key, head):
    return head.host.partition(b".")[2] == key.name if key.is_parent else head.host == key.name


def has_path(key, head):
    return head.path.startswith(key.value) if key.is_prefix else head.path == key.value


class RequiredTests(SynchronousTestCase):
    def test_hosts(self):
        """
        `&&` needs the hosts of one side, `||` those of both, `!` none.
        """
        a, b = HostKey(b"a", False), HostKey(b"b", False)
        for text, expected in [
            ("Host(`a`)", {a}),
            ("Host(`a`, `b:80`)", {a, b}),
            ("Host(`*.a`)", {HostKey(b"a", True)}),
            ("Path(`/`)", None),
            ("!Host(`a`)", None),
            ("HostRegexp(`a`)", None),
            ("Host(`a`) && Path(`/`)", {a}),
            ("Host(`a`, `b`) && Host(`b`)", {b}),
            ("Host(`a`) || Host(`b`)", {a, b}),
            ("Host(`a`) || Path(`/`)", None),
            ("(Host(`a`) && Path(`/`)) || (Host(`b`) && Method(`GET`))", {a, b}),
            ("!(Host(`a`) || Path(`/`)) && Host(`b`)", {b}),
        ]:
            self.assertEqual(required_hosts(parse_rule(text, "http")), expected, text)
        self.assertIsNone(required_hosts(parse_rule("HostSNI(`a`, `*`)", "tcp")))
        self.assertEqual(required_hosts(parse_rule("HostSNI(`a`, `*.b`)", "tcp")), {a, HostKey(b"b", True)})

    def test_paths(self):
        """
        Of several required paths the most telling are taken.
        """
        for text, expected in [
            ("Path(`/a`, `/b`)", {PathKey(b"/a", False), PathKey(b"/b", False)}),
            ("PathPrefix(`/a`)", {PathKey(b"/a", True)}),
            ("PathSegments(`/a`)", {PathKey(b"/a", False), PathKey(b"/a/", True)}),
            ("PathSegments(`/`)", {PathKey(b"/", True)}),
            ("PathRegexp(`^/a`)", None),
            ("!Path(`/a`)", None),
            ("PathPrefix(`/`) && PathPrefix(`/api`) && Method(`GET`)", {PathKey(b"/api", True)}),
            ("PathPrefix(`/a`) || Method(`GET`)", None),
        ]:
            self.assertEqual(required_paths(parse_rule(text, "http")), expected, text)

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(HTTP_RULES, HEADS)
    def test_sound(self, text, head):
        """
        Whatever a rule matches has one of its required hosts and one of its required paths.
        """
        rule = parse_rule(text, "http")
        if compile_http(rule)(head):
            for keys, has in [(required_hosts(rule), has_host), (required_paths(rule), has_path)]:
                self.assertTrue(keys is None or any(has(key, head) for key in keys), keys)


class SpecialiseTests(SynchronousTestCase):
    def test_host(self):
        """
        A known host answers for the matchers of hosts, as far as it can.
        """
        for text, key, expected in [
            ("Host(`a.b`)", HostKey(b"a.b", False), "True"),
            ("Host(`c.b`)", HostKey(b"a.b", False), "False"),
            ("Host(`*.b`)", HostKey(b"a.b", False), "True"),
            ("Host(`a.b:80`)", HostKey(b"a.b", False), "Host(`a.b:80`)"),
            ("Host(`a.b:80`, `*.b`)", HostKey(b"a.b", False), "True"),
            ("Host(`*.b`)", HostKey(b"b", True), "True"),
            ("Host(`a.b`)", HostKey(b"b", True), "Host(`a.b`)"),
            ("Host(`b`)", HostKey(b"b", True), "False"),
            ("Host(`*.a.b`)", HostKey(b"b", True), "False"),
            ("Host(`*.b:80`)", HostKey(b"b", True), "Host(`*.b:80`)"),
            ("HostRegexp(`^a`)", HostKey(b"a.b", False), "True"),
            ("HostRegexp(`^c`)", HostKey(b"a.b", False), "False"),
            ("HostRegexp(`^c`)", HostKey(b"b", True), "HostRegexp(`^c`)"),
            ("Host(`a.b`) && Path(`/`)", HostKey(b"a.b", False), "Path(`/`)"),
            ("Host(`a.b`) || Path(`/`)", HostKey(b"a.b", False), "True"),
            ("(Host(`a.b`) && Path(`/`)) || (Host(`c.b`) && Path(`/c`))", HostKey(b"c.b", False), "Path(`/c`)"),
            ("!Host(`a.b`) && Path(`/`)", HostKey(b"a.b", False), "False"),
            ("!Host(`a.b`) && Path(`/`)", HostKey(b"c.b", False), "Path(`/`)"),
            ("!(Host(`a.b`) && Path(`/`))", HostKey(b"a.b", False), "!Path(`/`)"),
        ]:
            self.assertEqual(str(specialise(parse_rule(text, "http"), given_host(key))), expected, (text, key))

    def test_path(self):
        """
        A known path or prefix answers for the matchers of paths, as far as it can.
        """
        for text, key, expected in [
            ("PathPrefix(`/a`)", PathKey(b"/a", True), "True"),
            ("PathPrefix(`/a`)", PathKey(b"/a/b", True), "True"),
            ("PathPrefix(`/a/b`)", PathKey(b"/a", True), "PathPrefix(`/a/b`)"),
            ("PathPrefix(`/b`)", PathKey(b"/a", True), "False"),
            ("Path(`/a`)", PathKey(b"/a", True), "Path(`/a`)"),
            ("Path(`/a`)", PathKey(b"/a/", True), "False"),
            ("Path(`/a`)", PathKey(b"/a", False), "True"),
            ("PathPrefix(`/a`)", PathKey(b"/ab", False), "True"),
            ("PathSegments(`/a`)", PathKey(b"/a/", True), "True"),
            ("PathSegments(`/a`)", PathKey(b"/a", True), "PathSegments(`/a`)"),
            ("PathSegments(`/a`)", PathKey(b"/ab", True), "False"),
            ("PathSegments(`/a`)", PathKey(b"/a", False), "True"),
            ("PathRegexp(`b$`)", PathKey(b"/ab", False), "True"),
            ("PathRegexp(`b$`)", PathKey(b"/ab", True), "PathRegexp(`b$`)"),
            ("Method(`GET`)", PathKey(b"/a", False), "Method(`GET`)"),
        ]:
            self.assertEqual(str(specialise(parse_rule(text, "http"), given_path(key))), expected, (text, key))

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(HTTP_RULES, HEADS)
    def test_same_answer(self, text, head):
        """
        Under a key that a request has, what is left of a rule says what the rule says.
        """
        rule = parse_rule(text, "http")
        expected = compile_http(rule)(head)
        known = [given_host(HostKey(head.host, False)), given_path(PathKey(head.path, False))]
        known += [given_path(PathKey(head.path[:length], True)) for length in range(1, len(head.path) + 1)]
        label, _, parent = head.host.partition(b".")
        if label:
            known.append(given_host(HostKey(parent, True)))
        for decide in known:
            residue = specialise(rule, decide)
            self.assertEqual(residue if isinstance(residue, bool) else compile_http(residue)(head), expected, residue)

    def test_size(self):
        """
        The size of a rule counts its operators, matchers and arguments.
        """
        self.assertEqual(rule_size(parse_rule("!(Host(`a`, `b`) && Path(`/`))", "http")), 7)
