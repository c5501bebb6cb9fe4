"""
Dialogues through `compress`; bodies are decoded by those who did not make them.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IBodyFilter, IBodyFilterSource, IResponseHook
from a3sgw.loading import load_string
from a3sgw.middleware import compress
from a3sgw.middleware.compress import Compress, CompressConfig, _Encoding
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import MiddlewareCase, request, response
from a3sgw.testing import middleware_contract
from a3sgw.wire.encoding import ENCODINGS, make_encoder
from a3sgw.wire.test.test_encoding import decode, decode_so_far

BODY = b"to be or not to be, that is the question. " * 50


class CompressContract(middleware_contract(compress.factory)):
    """
    `compress` keeps the contract of middlewares.
    """


def unchunk(data):
    """
    Return the body in chunks, and the trailers.
    """
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return body, data
        body += data[:length]
        data = data[length + 2 :]


def parts(told):
    """
    Return the header lines of a response in lower case, and its body without framing.
    """
    head, _, body = told.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")[1:]
    if b"transfer-encoding: chunked" in lines:
        body, _ = unchunk(body)
    return lines, body


class CompressTests(MiddlewareCase):
    """
    Responses are encoded where that is wanted and harmless.
    """

    def through(self, settings=""):
        self.pass_through(f'type = "compress"\n{settings}')

    def get(self, accepted="gzip", *lines, status="200 OK", body=BODY, method="GET", types=("Content-Type: text/plain",)):
        """
        Ask for a response; return its header lines and its body.
        """
        accepts = [f"Accept-Encoding: {accepted}"] if accepted else []
        length = [] if any("Transfer-Encoding" in line for line in lines) else [f"Content-Length: {len(body)}"]
        sent = b"" if method == "HEAD" or status.startswith("304") else body
        _, told = self.exchange(request(method, "/", *accepts), response(status, *types, *length, *lines, body=sent))
        return parts(told)

    def assert_plain(self, *given, **settings):
        lines, body = self.get(*given, **settings)
        self.assertFalse([line for line in lines if line.startswith(b"content-encoding")], lines)
        self.assertEqual(body, settings.get("body", BODY))
        return lines

    def test_each_coding(self):
        """Every coding gives the same body again, with its name, its length and what it depends on."""
        self.through()
        for name in ENCODINGS:
            lines, body = self.get(name.decode())
            self.assertIn(b"content-encoding: " + name, lines)
            self.assertIn(b"content-length: %d" % len(body), lines)
            self.assertIn(b"vary: accept-encoding", lines)
            self.assertEqual(decode(name, body), BODY)
            self.assertLess(len(body), len(BODY) / 2)

    def test_preference(self):
        """The client's weights decide, then the configured order."""
        self.through('encodings = ["gzip", "br"]')
        for accepted, chosen in [("br, gzip", b"gzip"), ("br;q=1, gzip;q=0.5", b"br"), ("zstd, br", b"br"), ("gzip;q=0, *", b"br")]:
            self.assertIn(b"content-encoding: " + chosen, self.get(accepted)[0])

    def test_not_wanted(self):
        """Who accepts nothing gets the body as it is, and caches are told that others may get something else."""
        self.through()
        for accepted in ("", "identity", "gzip;q=0", "deflate;q=0, br;q=0"):
            self.assertIn(b"vary: accept-encoding", self.assert_plain(accepted))

    def test_left_alone(self):
        """What must not or need not be changed is not, and does not vary either."""
        self.through()
        for line in ("Cache-Control: public, no-transform", "Content-Range: bytes 0-9/10", "Content-Encoding: identity, br"):
            lines, body = self.get("gzip", line)
            self.assertEqual(body, BODY)
            self.assertNotIn(b"vary: accept-encoding", lines)
        for kind in ("image/png", "application/grpc", "application/grpc+json", "text/event-stream", "application/octet-stream"):
            self.assertNotIn(b"vary: accept-encoding", self.assert_plain(types=(f"Content-Type: {kind}",)))
        self.assertNotIn(b"vary: accept-encoding", self.assert_plain(types=()))
        self.assert_plain(status="206 Partial Content")
        self.assert_plain(body=b"x" * 1023)
        self.assertIn(b"content-encoding: gzip", self.get(body=b"x" * 1024)[0])

    def test_encoded_already(self):
        """A body that the backend has encoded passes byte for byte."""
        self.through()
        lines, body = self.get("gzip, br", "Content-Encoding: br", body=b"\x8b" * 2000)
        self.assertEqual([line for line in lines if line.startswith(b"content-encoding")], [b"content-encoding: br"])
        self.assertEqual(body, b"\x8b" * 2000)

    def test_head_of_the_body(self):
        """An entity tag becomes weak, digests and ranges of the plain body go, everything else stays."""
        self.through()
        given = ('ETag: "a"', "Accept-Ranges: bytes", "Content-MD5: x", "Repr-Digest: x", "Vary: Cookie", "X-A: 1")
        lines, _ = self.get("gzip", *given)
        for line in (b'etag: w/"a"', b"vary: cookie, accept-encoding", b"x-a: 1"):
            self.assertIn(line, lines)
        for gone in (b"accept-ranges", b"content-md5", b"repr-digest"):
            self.assertFalse([line for line in lines if line.startswith(gone)], gone)
        lines = self.assert_plain("", *given)
        for line in (b'etag: "a"', b"accept-ranges: bytes", b"content-md5: x"):
            self.assertIn(line, lines)

    def test_no_body(self):
        """HEAD says what GET would, without a length it cannot know; 304 names the weak tag; 204 is left alone."""
        self.through()
        lines, body = self.get("gzip", 'ETag: "a"', method="HEAD")
        self.assertEqual(body, b"")
        for line in (b"content-encoding: gzip", b'etag: w/"a"', b"vary: accept-encoding"):
            self.assertIn(line, lines)
        self.assertFalse([line for line in lines if line.startswith(b"content-length")], lines)
        lines, body = self.get("gzip", 'ETag: "a"', status="304 Not Modified")
        self.assertIn(b'etag: w/"a"', lines)
        self.assertNotIn(b"content-encoding: gzip", lines)
        lines, body = self.get("gzip", status="204 No Content", body=b"")
        self.assertEqual(body, b"")
        self.assertNotIn(b"content-encoding: gzip", lines)

    def test_stream(self):
        """A body that comes in pieces is encoded as it comes, and its trailers follow."""
        self.through()
        for name in ENCODINGS:
            client = self.dialogue.connect()
            self.say(client, request("GET", "/", f"Accept-Encoding: {name.decode()}", "TE: trailers"))
            backend = self.dialogue.backend()
            self.hear(backend)
            self.say(backend, response("200 OK", "Content-Type: text/css", "Transfer-Encoding: chunked"))
            for _ in range(3):
                self.say(backend, b"%x\r\n%b\r\n" % (len(BODY), BODY))
            self.say(backend, b"0\r\nX-Sum: 1\r\n\r\n")
            head, _, rest = self.hear(client).partition(b"\r\n\r\n")
            self.assertIn(b"Content-Encoding: " + name, head)
            body, trailers = unchunk(rest)
            self.assertEqual(decode(name, body), BODY * 3)
            self.assertEqual(trailers, b"X-Sum: 1\r\n\r\n")
            client.close()

    def test_event_stream(self):
        """An event stream that opted in is flushed with every piece: no event waits for the next."""
        self.through("event_streams = true")
        for name in ENCODINGS:
            client = self.dialogue.connect()
            self.say(client, request("GET", "/", f"Accept-Encoding: {name.decode()}"))
            backend = self.dialogue.backend()
            self.hear(backend)
            self.say(backend, response("200 OK", "Content-Type: text/event-stream; charset=utf-8", "Transfer-Encoding: chunked"))
            heard = self.hear(client).partition(b"\r\n\r\n")[2]
            for number in range(1, 4):
                self.say(backend, b"9\r\ndata: %d\n\n\r\n" % number)
                heard += self.hear(client)
                body, _ = unchunk(heard + b"0\r\n\r\n")
                self.assertEqual(decode_so_far(name, body).count(b"data"), number, name)
            client.close()
            self.dialogue.reactor.settle()

    def test_own_answers(self):
        """The gateway's own small answers are left as they are."""
        self.pass_through('type = "compress"\nmin_size_bytes = 0', answers_dials=False)
        self.say(self.client, request("GET", "/", "Accept-Encoding: gzip"))
        self.dialogue.attempts[0].fail()
        lines, body = parts(self.hear(self.client))
        self.assertIn(b"content-encoding: gzip", lines)
        self.assertIn(b"connect-refused", decode(b"gzip", body))

    def test_types(self):
        """Which types are encoded can be configured either way."""
        self.through('included_content_types = ["application/x-own"]')
        self.assertIn(b"content-encoding: gzip", self.get(types=("Content-Type: Application/X-Own; a=b",))[0])
        self.assert_plain()
        self.tearDown()
        self.through('excluded_content_types = ["text/plain"]')
        self.assert_plain()
        self.assertIn(b"content-encoding: gzip", self.get(types=("Content-Type: text/html",))[0])

    @settings(deadline=None, max_examples=40)
    @given(st.binary(min_size=1024, max_size=5000), st.sampled_from(ENCODINGS))
    def test_any_body(self, body, name):
        """Any body is the same again."""
        self.through()
        _, encoded = self.get(name.decode(), body=body)
        self.assertEqual(decode(name, encoded), body)
        self.tearDown()

    def tearDown(self):
        super().tearDown()
        self.dialogue = None


class ConfigTests(SynchronousTestCase):
    """
    What is refused at load.
    """

    def test_interfaces(self):
        """A filter and a middleware provide what they say."""
        middleware = Compress(CompressConfig(name="x"), still_surroundings("x"))
        verifyObject(IResponseHook, middleware)
        verifyObject(IBodyFilterSource, middleware)
        verifyObject(IBodyFilter, _Encoding(make_encoder(b"gzip", 6), False))

    def test_refused(self):
        """Unknown codings, levels and types are named with their place."""
        for attribute, part in [
            ('encodings = ["lzma"]', '"lzma", expected one of'),
            ("encodings = []", "empty list"),
            ("level = 10", "from 1 to 9"),
            ('included_content_types = ["json"]', "no media type"),
            ('included_content_types = ["a/b"]\nexcluded_content_types = ["c/d"]', "give one of them"),
        ]:
            text = f'entrypoints "web" {{ address = ":80" }}\nmiddlewares "m" {{\n type = "compress"\n {attribute}\n}}'
            (problem,) = load_string(text, "gw.hcl", {}).problems
            self.assertIn(part, str(problem))
            self.assertTrue(str(problem).startswith("gw.hcl:"), problem)
