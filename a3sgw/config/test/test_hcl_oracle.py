"""
Tests of the HCL parser against other people's: HashiCorp's own by way of `pygohcl`, and `python-hcl2`.

Both bindings have habits that are not the language's, and the texts here go around them. `pygohcl` shows calls, parentheses and keys that
are expressions as their source, and `${X}` as "X" (so the environment used here says that X is "X"). `python-hcl2` shows numbers with a
sign or an exponent as source, leaves `$${` as it is and drops a heredoc's last newline.
"""

import string

import hcl2
import pygohcl
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from a3sgw.config.hcl import HclError, parse
from a3sgw.config.test import test_hcl, test_hcl_refusals
from a3sgw.config.test.hcl_documents import documents, value_of, values, values_of, write

GATEWAY = """
# A small gateway.
shutdown_timeout_secs = 20
entrypoints "web" { address = "0.0.0.0:80" }
entrypoints "secure" {
  address = "[::]:443"
  tls {
    cert_file   = "/srv/tls/site.pem"
    key_file    = "/srv/tls/site.key" // PEM
    min_version = "1.3"
  }
}

routers "shop" {
  rule        = "Host(`shop.test`) && PathPrefix(`/cart`)"
  service     = "cart"
  entrypoints = ["web", "secure"]
  middlewares = [
    "auth",
    "limit", # both of them
  ]
  priority = 10
}

services "cart" {
  load_balancer {
    strategy = "least-connections"
    servers  = [{ url = "http://127.0.0.1:9101" }, { url = "http://127.0.0.1:9102", weight = 3 }]
    health_check {
      path                = "/ready"
      interval            = "4s"
      unhealthy_threshold = 2
    }
    sticky { cookie = "node" }
  }
  scaling {
    target_utilization = 0.7
    buffer_enabled     = true
    executor           = null
  }
}

/* Middlewares
   of two types. */
middlewares "auth" {
  type            = "headers"
  request_headers = {
    "X-Forwarded-By" = "a3s"
    X-Plain          : "\\"quoted\\"\\ttabbed"
  }
}
middlewares "limit" {
  type  = "rate-limit"
  rate  = 100
  empty = []
}
providers {}
"""


class Echo(dict[str, str]):
    """
    An environment in which every variable says its own name.
    """

    def get(self, key, default=None):
        """
        Return the name.
        """
        return key


def read(text):
    """
    Parse with our parser.
    """
    return parse(text, "gw.hcl", environ=Echo())


class HashicorpTests(unittest.SynchronousTestCase):
    """
    What HashiCorp's parser accepts and means.
    """

    OURS_ALONE = (
        "is not supported here",
        "are not supported here",
        "a bare word is not a value",
        "a minus sign stands before a number only",
        "has no place within a string",
        'the NAME of ${NAME} has letters, digits and "_" only',
        "the key of an object is a name, a string or a number",
        "the control character",
        "a number too large to be held",
        "a number of more than 100 characters",
        "a carriage return without a line feed",
    )

    def is_refused(self, text):
        """
        Does HashiCorp's parser refuse this?
        """
        try:
            pygohcl.loads(text)
        except pygohcl.HCLParseError:
            return True
        except pygohcl.HCLInternalError:
            # The binding cannot show every value that the parser accepts.
            return False
        return False

    def test_gateway(self):
        """
        A configuration means the same to both.
        """
        self.assertEqual(values_of(read(GATEWAY)), pygohcl.loads(GATEWAY))

    def test_what_we_accept(self):
        """
        Every text in our own tables that the binding can show means the same there.
        """
        tables = test_hcl.LiteralTests.VALUES + test_hcl.LiteralTests.HEREDOCS
        texts = [f"a = {text}\n" for text, _ in tables if "(" not in text and "null =" not in text and ":-" not in text]
        texts += [text for text, _ in test_hcl.BodyTests.BODIES]
        self.assertGreater(len(texts), 90)
        for text in texts:
            self.assertEqual(values_of(read(text)), pygohcl.loads(text), text)

    def test_what_we_refuse(self):
        """
        What HashiCorp's parser accepts and we refuse is what our subset leaves out, and the message says so.
        """
        alone = [
            problem
            for text, problem in test_hcl_refusals.RefusalTests.TEXTS
            if text.isascii() and not self.is_refused(text)
        ]
        self.assertGreater(len(alone), 20)
        for problem in alone:
            self.assertTrue(any(phrase in problem for phrase in self.OURS_ALONE), problem)

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(documents(), st.randoms(use_true_random=False))
    def test_generated(self, document, random):
        """
        Whatever is written means the same to both.
        """
        text = write(document, random)
        self.assertEqual(values_of(read(text)), pygohcl.loads(text))

    PIECES = st.sampled_from(
        [
            *"{}[]=:,.+-*/<>!?&#\"'\\$% \n\n\n\u00a0",
            *("a", "é", '"x"', "${X}", '"${"q"}"', "$${", "%{", "${", "1", "2.5", "1e9", "-1", "true", "for", "\r\n"),
            *("//", "/*", "*/", "/* x\n */", "# x\n", "<<E\n", "\nE\n", "<<-E\n  ", "b {\n", "c = 1\n", "d { e = 1 }\n"),
        ]
    )

    @settings(deadline=None, max_examples=400, derandomize=True)
    @given(documents(), st.randoms(use_true_random=False), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), PIECES), max_size=3))
    def test_damaged(self, document, random, edits):
        """
        Of a text with pieces lost and pieces put in, we accept nothing that HashiCorp's parser refuses, and read nothing else from it.
        """
        text = write(document, random)
        for share, lost, piece in edits:
            place = int(share * len(text))
            text = text[:place] + piece + text[place + lost :]
        try:
            meaning = values_of(read(text))
        except HclError:
            return
        try:
            theirs = pygohcl.loads(text)
        except pygohcl.HCLInternalError:
            return
        if "(" not in text:
            self.assertEqual(meaning, theirs)


class PythonHcl2Tests(unittest.SynchronousTestCase):
    """
    What `python-hcl2` makes of the same text.
    """

    OPTIONS = hcl2.SerializationOptions(
        with_comments=False, strip_string_quotes=True, preserve_heredocs=False, explicit_blocks=False, preserve_scientific_notation=False
    )
    WORDS = st.text(string.ascii_letters + string.digits + " _./:-", max_size=8)
    KEYS = st.text("abcdexyz", min_size=1, max_size=6)
    SCALARS = st.none() | st.booleans() | st.integers(0, 10**9) | st.sampled_from([0.5, 2.25, 1234.125]) | WORDS

    def theirs(self, text):
        """
        Read with `python-hcl2`; `None` if it cannot.
        """
        try:
            return hcl2.loads(text, serialization_options=self.OPTIONS)
        except Exception:
            return None

    def ours(self, body):
        """
        Read with ours, in the form of `python-hcl2`: every block type is a list, every label a dictionary.
        """
        found = {attribute.name: value_of(attribute.value) for attribute in body.attributes}
        for block in body.blocks:
            content = self.ours(block.body)
            for label in reversed(block.labels):
                content = {label: content}
            found.setdefault(block.type, []).append(content)
        return found

    def test_gateway(self):
        """
        A configuration means the same to both.
        """
        theirs = self.theirs(GATEWAY)
        plain = {key.strip('"'): value for key, value in theirs["middlewares"][0]["auth"]["request_headers"].items()}
        theirs["middlewares"][0]["auth"]["request_headers"] = plain
        self.assertEqual(self.ours(read(GATEWAY)), theirs)

    def test_strings(self):
        """
        So do escapes and heredocs, but for a heredoc's last newline.
        """
        text = 'a = "\\t\\"q\\" \\\\ \\u00e9"\nb = <<E\nx\n  y\nE\nc = <<-E\n   x\n  y\n  E\n'
        ours, theirs = self.ours(read(text)), self.theirs(text)
        self.assertEqual(ours, {name: value + ("\n" if name != "a" else "") for name, value in theirs.items()})

    @settings(deadline=None, max_examples=40, derandomize=True)
    @given(documents(values(SCALARS, KEYS), WORDS), st.randoms(use_true_random=False))
    def test_generated(self, document, random):
        """
        So does what is generated, where `python-hcl2` can read it.
        """
        text = write(document, random)
        theirs = self.theirs(text)
        assume(theirs is not None)
        self.assertEqual(self.ours(read(text)), unquoted(theirs))


def unquoted(value):
    """
    Take the quotes off the keys of objects, which `python-hcl2` keeps.
    """
    if isinstance(value, dict):
        return {key.strip('"'): unquoted(item) for key, item in value.items()}
    return [unquoted(item) for item in value] if isinstance(value, list) else value
