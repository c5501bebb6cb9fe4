"""
Tests of `errors`.
"""

import os
from urllib.parse import quote

import attrs
from twisted.internet.defer import fail
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IDestination, IResponseHook, IRetirable
from a3sgw.loading import load_string
from a3sgw.message import RequestHead, ResponseHead
from a3sgw.middleware import errors
from a3sgw.middleware.catalog import Catalog
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, MiddlewareCase, request, response
from a3sgw.proxy.exchange import Exchange
from a3sgw.proxy.forwarding import Forwarding
from a3sgw.proxy.test.dialogues import config
from a3sgw.proxy.test.probes import Probes
from a3sgw.testing import middleware_contract

PAGES = 'services "pages" {\n  load_balancer {\n    servers = [{ url = "http://192.0.2.100" }]\n  }\n}'
NOT_FOUND = response("404 Not Found", "Content-Type: text/plain", "Content-Length: 4", body=b"gone")
PAGE = b"<h1>Sorry</h1>"


def written(*lines, status='"400-599"', body="<h1>Sorry</h1>"):
    """
    Return the attributes of pages that are written in the configuration.
    """
    return "\n".join(['type = "errors"', f"status = [{status}]", f'body = "{body}"', *lines])


def fetched(*lines, status='"400-599"'):
    """
    Return the attributes of pages that a service has.
    """
    return "\n".join(['type = "errors"', f"status = [{status}]", 'service = "pages"', *lines])


def fields_of(heard):
    """
    Return the header lines of a response.
    """
    return heard.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]


def change_path(head, path):
    """
    Ask the backend for another path than the client did.
    """
    head.target = head.path = path


class ErrorsContract(middleware_contract(errors.factory, 'status = ["404"]\nbody = "x"')):
    """
    `errors` is a middleware.
    """

    def test_phases(self):
        """It looks at responses, and gives up the way to its service."""
        built = errors.Errors(self.config(), still_surroundings("x"))
        verifyObject(IResponseHook, built)
        verifyObject(IRetirable, built)


class ServiceContract(middleware_contract(errors.factory, 'status = ["400-599"]\nservice = "app"')):
    """
    With a service it is one too.
    """


class WrittenTests(MiddlewareCase):
    """
    A page that is written in the configuration.
    """

    def answered(self, answer, data=None):
        return self.exchange(data, answer)[1]

    def test_replaced(self):
        """An error keeps its status, and the page takes the place of what described it."""
        self.pass_through(written())
        heard = self.answered(
            response(
                "404 Nothing Here",
                "Content-Type: text/plain",
                "ETag: x",
                "Last-Modified: y",
                "Content-Encoding: gzip",
                "Content-Language: fr",
                "Accept-Ranges: bytes",
                "Content-Length: 4",
                "X-Own: 1",
                body=b"gone",
            )
        )
        self.assertTrue(heard.startswith(b"HTTP/1.1 404 Not Found\r\n"), heard)
        self.assertTrue(heard.endswith(b"\r\n\r\n" + PAGE), heard)
        lines = fields_of(heard)
        self.assertEqual(
            [line for line in lines if not line.startswith(b"Date: ")],
            [b"X-Own: 1", b"Content-Type: text/html; charset=utf-8", b"Content-Length: %d" % len(PAGE)],
        )
        self.assertEqual(len([line for line in lines if line.startswith(b"Date: ")]), 1)

    def test_left_alone(self):
        """Other statuses, and what is no error, are passed on as they are."""
        self.pass_through(written(status='"404", "500-502"'))
        for status, is_replaced in [
            ("200 OK", False),
            ("302 Found", False),
            ("400 Bad Request", False),
            ("404 Not Found", True),
            ("405 Method Not Allowed", False),
            ("500 Internal Server Error", True),
            ("502 Bad Gateway", True),
            ("503 Service Unavailable", False),
        ]:
            answer = response(status, "Content-Length: 4", body=b"mine")
            self.assertEqual(self.answered(answer).endswith(PAGE), is_replaced, status)
        self.assertEqual(self.answered(OK), OK)

    def test_fields_about_the_error(self):
        """What a client needs in order to go on is kept, and so is what other middlewares and the gateway say."""
        self.pass_through(written())
        kept = ["WWW-Authenticate: Basic", "Retry-After: 7", "Set-Cookie: a=b", "Set-Cookie: c=d", "Allow: GET", "Vary: Origin"]
        heard = self.answered(response("401 Unauthorized", *kept, "Content-Length: 0"))
        for line in kept:
            self.assertIn(line.encode(), fields_of(heard))

    def test_filled_in(self):
        """The status and the request's id are filled in; other braces stay as they are."""
        self.pass_through(written(body="{status} of {request_id} {status} {} {x} body { margin: 0 }"))
        heard = self.answered(NOT_FOUND, request("GET", "/", "X-Request-Id: r-1"))
        self.assertTrue(heard.endswith(b"\r\n\r\n404 of r-1 404 {} {x} body { margin: 0 }"), heard)
        self.assertIn(b"Content-Length: 40", fields_of(heard))

    def test_content_type(self):
        """The type can be said."""
        self.pass_through(written('content_type = "application/problem+json"', body="{}"))
        self.assertIn(b"Content-Type: application/problem+json", fields_of(self.answered(NOT_FOUND)))

    def test_not_ascii(self):
        """A page may be in any language."""
        self.pass_through(written(body="Fehler ä"))
        self.assertTrue(self.answered(NOT_FOUND).endswith("\r\n\r\nFehler ä".encode()))

    def test_head(self):
        """The answer to HEAD says how long the page is, and leaves it out."""
        self.pass_through(written())
        heard = self.answered(response("404 Not Found", "Content-Length: 4"), request("HEAD"))
        self.assertTrue(heard.endswith(b"\r\n\r\n"), heard)
        self.assertIn(b"Content-Length: %d" % len(PAGE), fields_of(heard))

    def test_error_with_a_long_body(self):
        """An error whose body is still coming is not waited for."""
        self.pass_through(written())
        backend = self.ask()
        self.say(backend, response("500 Internal Server Error", "Content-Length: 100000", body=b"begin"))
        self.assertTrue(self.hear(self.client).endswith(PAGE))
        self.assertTrue(backend.was_reset)
        self.assertEqual(self.dialogue.outcomes(), ["completed"])

    def test_chunked_error(self):
        """A chunked error becomes a page of known length, and its trailers go with it."""
        self.pass_through(written())
        heard = self.answered(
            response("500 Internal Server Error", "Trailer: X-T", "Transfer-Encoding: chunked", body=b"1\r\nx\r\n0\r\nX-T: 1\r\n\r\n")
        )
        self.assertTrue(heard.endswith(b"\r\n\r\n" + PAGE), heard)
        self.assertNotIn(b"X-T", heard)


class OwnErrorTests(MiddlewareCase):
    """
    The gateway's own errors get pages too.
    """

    def test_backend_fails(self):
        """The gateway's 502 and 504 have pages, and are still called what they are."""
        self.pass_through(written(), service='timeouts { response_header = "1s" }', answers_dials=False)
        self.say(self.client, request())
        self.dialogue.attempts[0].fail(Outcome.CONNECT_REFUSED)
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 502 "), heard)
        self.assertTrue(heard.endswith(PAGE), heard)
        self.assertIn(b'Proxy-Status: a3s-gateway; error=connection_refused; details="connect-refused"', fields_of(heard))
        self.assertNotIn(b"application/json", heard)
        self.say(self.client, request())
        self.dialogue.backends.append(self.dialogue.attempts[0].succeed())
        self.dialogue.reactor.advance(2)
        self.assertTrue(self.hear(self.client).startswith(b"HTTP/1.1 504 "))
        self.assertEqual(self.dialogue.outcomes(), ["connect-refused", "response-timeout"])

    def test_inner_middlewares(self):
        """What a middleware behind it refuses has a page; what one before it refuses does not."""
        nobody = 'type = "ip-allow"\nallowed_ips = ["::1"]'
        for order, has_page in (((written(), nobody), True), ((nobody, written()), False)):
            self.pass_through(*order)
            heard = self.exchange()[1]
            self.assertTrue(heard.startswith(b"HTTP/1.1 403 "), heard)
            self.assertEqual(heard.endswith(PAGE), has_page)
            self.assertEqual(self.dialogue.outcomes(), ["access-denied"])

    def test_body_too_large(self):
        """A request refused in the middle of its body has a page, and its connection is closed as it would be without one."""
        self.pass_through(written(), 'type = "body-limit"\nmax_body_bytes = 5')
        self.say(self.client, request("POST", "/", "Transfer-Encoding: chunked", body=b"6\r\nabcdef\r\n"))
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 413 "), heard)
        self.assertTrue(heard.endswith(PAGE), heard)
        self.assertIn(b"Connection: close", fields_of(heard))

    def test_on_an_entrypoint(self):
        """On an entrypoint it is there for all its routers."""
        self.converse(entrypoint='middlewares = ["pages"]', more=f'middlewares "pages" {{\n{written()}\n}}')
        self.assertTrue(self.exchange(answer=NOT_FOUND)[1].endswith(PAGE))

    def test_two(self):
        """The inner one decides, and the outer one sees an error again."""
        self.pass_through(written(status='"404"', body="outer"), written(status='"404-405"', body="inner"))
        for status, page in (("404 Not Found", b"outer"), ("405 No", b"inner")):
            heard = self.exchange(answer=response(status, "Content-Length: 0"))[1]
            self.assertTrue(heard.endswith(b"\r\n\r\n" + page), heard)


class FileTests(MiddlewareCase):
    """
    A page in a file.
    """

    def make_file(self, name, text=PAGE):
        folder = self.mktemp()
        os.makedirs(folder)
        path = os.path.join(folder, name)
        self.write(path, text)
        return path

    def write(self, path, text):
        with open(path, "wb") as stream:
            stream.write(text)

    def attributes(self, path, *lines):
        return "\n".join(['type = "errors"', 'status = ["404"]', f'file = "{path}"', *lines])

    def test_page(self):
        """The file is the page, byte for byte, and the end of its name says what it is."""
        for name, kind in [
            ("404.html", b"text/html; charset=utf-8"),
            ("404.HTM", b"text/html; charset=utf-8"),
            ("404.txt", b"text/plain; charset=utf-8"),
            ("404.json", b"application/json"),
            ("404.JSON", b"application/json"),
            ("404", b"text/html; charset=utf-8"),
        ]:
            self.pass_through(self.attributes(self.make_file(name, b"\xff{status}\r\n")))
            heard = self.exchange(answer=NOT_FOUND)[1]
            self.assertTrue(heard.endswith(b"\r\n\r\n\xff404\r\n"), heard)
            self.assertIn(b"Content-Type: " + kind, fields_of(heard))

    def test_content_type(self):
        """What the configuration says of it counts more than its name."""
        self.pass_through(self.attributes(self.make_file("404.json"), 'content_type = "text/css"'))
        self.assertIn(b"Content-Type: text/css", fields_of(self.exchange(answer=NOT_FOUND)[1]))

    def test_reload(self):
        """A reload takes up what has changed in the file, and nothing else does."""
        path = self.make_file("404.html", b"old")
        self.pass_through(self.attributes(path))
        self.write(path, b"new")
        self.assertTrue(self.exchange(answer=NOT_FOUND)[1].endswith(b"\r\n\r\nold"))
        self.dialogue.reload(config(middlewares=[self.attributes(path)]))
        self.assertTrue(self.exchange(answer=NOT_FOUND)[1].endswith(b"\r\n\r\nnew"))

    def test_empty(self):
        """An empty file is an empty page."""
        self.pass_through(self.attributes(self.make_file("404.html", b"")))
        heard = self.exchange(answer=NOT_FOUND)[1]
        self.assertIn(b"Content-Length: 0", fields_of(heard))

    def problems(self, path, *lines):
        return [str(each) for each in load_string(config(middlewares=[self.attributes(path, *lines)]), "gw.hcl", {}).problems]

    def test_refusals(self):
        """A file that cannot be read, or is larger than a page may be, is found when the configuration is loaded."""
        path = self.make_file("404.html", b"12345")
        self.assertEqual(self.problems(path, "max_page_bytes = 5"), [])
        (problem,) = self.problems(path, "max_page_bytes = 4")
        self.assertEqual(problem, "gw.hcl:14:8: middlewares.m1.file holds more than 4 bytes; make the page smaller or give max_page_bytes")
        (problem,) = self.problems(path + "x")
        self.assertEqual(problem, "gw.hcl:14:8: middlewares.m1.file cannot be read: No such file or directory")
        (problem,) = self.problems(os.path.dirname(path))
        self.assertEqual(problem, "gw.hcl:14:8: middlewares.m1.file cannot be read: Is a directory")


class FetchedCase(MiddlewareCase):
    """
    Pages of a service, which is played by the test too.
    """

    def begin(self, *lines, status='"400-599"', more="", **settings):
        self.pass_through(fetched(*lines, status=status), more=PAGES + more, **settings)

    def listener(self):
        """
        Return whichever server has heard something, and what.
        """
        self.dialogue.reactor.settle()
        for end in self.dialogue.backends:
            heard = self.hear(end)
            if heard:
                return end, heard
        return None, b""

    def break_down(self, data=None, answer=NOT_FOUND):
        """
        Ask, and let the backend answer with an error; return the page service's end and what it was asked for.
        """
        self.say(self.client, data or request())
        self.backend, _ = self.listener()
        self.say(self.backend, answer)
        return self.listener()

    def page(self, *lines, body=PAGE, status="200 OK"):
        return response(status, *lines, f"Content-Length: {len(body)}", body=body)


class FetchedTests(FetchedCase):
    """
    What is asked for, and what becomes of it.
    """

    def test_replaced(self):
        """The page of the service, and what it says of it, takes the place of the error, whose status and other fields stay."""
        self.begin()
        answer = response("404 Not Found", "Content-Type: text/plain", "ETag: x", "X-Own: 1", "Content-Length: 4", body=b"gone")
        pages, _ = self.break_down(answer=answer)
        self.assertEqual(self.hear(self.client), b"")
        self.say(
            pages,
            self.page(
                "Content-Type: text/html", "Content-Language: de", "Vary: Accept-Language", "Set-Cookie: p=1", "ETag: y", "X-Page: 1"
            ),
        )
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 404 Not Found\r\n"), heard)
        self.assertTrue(heard.endswith(b"\r\n\r\n" + PAGE), heard)
        self.assertEqual(
            [line for line in fields_of(heard) if not line.startswith(b"Date: ")],
            [
                b"X-Own: 1",
                b"Content-Type: text/html",
                b"Content-Language: de",
                b"Vary: Accept-Language",
                b"Content-Length: %d" % len(PAGE),
            ],
        )

    def test_other_statuses(self):
        """For what is no error no page is asked for."""
        self.begin(status='"500-599"')
        self.assertEqual(self.break_down(), (None, b""))
        self.assertEqual(self.hear(self.client), NOT_FOUND)

    def test_what_is_asked_for(self):
        """The service is asked for the status's page, in what the client can read, and told where the client thinks it is."""
        self.begin()
        pages, asked = self.break_down(
            request(
                "POST",
                "/a?b",
                "Accept: text/html",
                "Accept-Language: de",
                "Cookie: secret",
                "X-Request-Id: r-1",
                "Content-Length: 1",
                body=b"x",
            )
        )
        first, *lines = asked.partition(b"\r\n\r\n")[0].split(b"\r\n")
        self.assertEqual(first, b"GET /404.html HTTP/1.1")
        self.assertEqual(
            sorted(lines),
            [
                b"Accept-Encoding: identity",
                b"Accept-Language: de",
                b"Accept: text/html",
                b"Host: 192.0.2.100",
                b"X-Forwarded-Host: a.test",
                b"X-Forwarded-Proto: http",
                b"X-Request-Id: r-1",
            ],
        )
        self.say(pages, self.page())

    def test_query(self):
        """Where the page is can be said, with the status and the URL that the client asked for."""
        for query, data, expected in [
            ("/", request(), "/"),
            ("/{status}", request(), "/404"),
            ("/{status}/{status}?x=%7B", request(), "/404/404?x=%7B"),
            ("/?u={url}", request("GET", "/a%20b?c=d&e={f}"), f"/?u={quote('http://a.test/a%20b?c=d&e={f}', safe='')}"),
            ("/?u={url}&s={status}", request("GET", "/{status}"), f"/?u={quote('http://a.test/{status}', safe='')}&s=404"),
            ("/?u={url}", request("GET", "http://a.test/whole?x"), f"/?u={quote('http://a.test/whole?x', safe='')}"),
        ]:
            self.begin(f'query = "{query}"')
            pages, asked = self.break_down(data)
            self.assertEqual(asked.split(b" ")[1].decode(), expected, query)
            self.say(pages, self.page())
            self.client.close()

    def test_behind_a_proxy(self):
        """The URL and the host are those that the client asked a trusted proxy for."""
        self.begin('query = "/{url}"', entrypoint='forwarded_headers { trusted_ips = ["192.0.2.1"] }')
        pages, asked = self.break_down(request("GET", "/x", "X-Forwarded-Proto: https", "X-Forwarded-Host: b.test"))
        self.assertTrue(asked.startswith(b"GET /https%3A%2F%2Fb.test%2Fx "), asked)
        self.assertIn(b"\r\nX-Forwarded-Host: b.test", asked)
        self.assertIn(b"\r\nX-Forwarded-Proto: https", asked)
        self.say(pages, self.page())

    def test_old_client(self):
        """A client that names no host is none to name."""
        self.begin('query = "/{url}"')
        pages, asked = self.break_down(b"GET /x HTTP/1.0\r\n\r\n")
        self.assertTrue(asked.startswith(b"GET /http%3A%2F%2F%2Fx "), asked)
        self.assertNotIn(b"X-Forwarded-Host", asked)
        self.say(pages, self.page())

    def test_changed_path(self):
        """The URL is the one that was asked for, whatever the backend was asked for."""
        probes = Probes()
        catalog = Catalog.of([*probes.catalog.factories.values(), errors.factory])
        self.converse(middlewares=[fetched('query = "/{url}"'), 'type = "probe"'], more=PAGES, catalog=catalog)
        probes["m2"].request = lambda exchange: change_path(exchange.head, b"/x")
        pages, asked = self.break_down(request("GET", "/api/x"))
        self.assertTrue(asked.startswith(b"GET /http%3A%2F%2Fa.test%2Fapi%2Fx "), asked)
        self.say(pages, self.page())

    def test_own_errors(self):
        """The gateway's own errors have pages of the service, and are still called what they are."""
        self.begin(answers_dials=False)
        self.say(self.client, request())
        self.dialogue.attempts[0].fail(Outcome.CONNECT_REFUSED)
        self.dialogue.reactor.settle()
        pages = self.dialogue.attempts[0].succeed()
        self.assertTrue(self.hear(pages).startswith(b"GET /502.html "))
        self.say(pages, self.page("Content-Type: text/html"))
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 502 "), heard)
        self.assertTrue(heard.endswith(PAGE), heard)
        self.assertIn(b'Proxy-Status: a3s-gateway; error=connection_refused; details="connect-refused"', fields_of(heard))
        self.assertEqual(self.dialogue.outcomes(), ["connect-refused"])

    def test_head(self):
        """For HEAD the page is fetched too, because its length is to be said."""
        self.begin()
        pages, asked = self.break_down(request("HEAD"), response("404 Not Found", "Content-Length: 4"))
        self.assertTrue(asked.startswith(b"GET /404.html "), asked)
        self.say(pages, self.page())
        heard = self.hear(self.client)
        self.assertTrue(heard.endswith(b"\r\n\r\n"), heard)
        self.assertIn(b"Content-Length: %d" % len(PAGE), fields_of(heard))

    def test_page_that_says_the_error_itself(self):
        """A service that answers with the error's own status has answered."""
        self.begin()
        pages, _ = self.break_down()
        self.say(pages, self.page(status="404 Not Found"))
        self.assertTrue(self.hear(self.client).endswith(PAGE))

    def test_connection_is_kept(self):
        """The next page comes over the same connection."""
        self.begin()
        ends = []
        for _ in range(3):
            pages, _ = self.break_down()
            ends.append(pages)
            self.say(pages, self.page())
            self.assertTrue(self.hear(self.client).endswith(PAGE))
        self.assertEqual(len(set(ends)), 1)


class NoPageTests(FetchedCase):
    """
    If there is no page the error is passed on as it is.
    """

    def assert_passed_on(self):
        self.assertEqual(self.hear(self.client), NOT_FOUND)
        self.assertEqual(self.dialogue.outcomes()[-1:], ["completed"])

    def test_refused(self):
        """A service that cannot be reached has no pages."""
        self.begin(answers_dials=False)
        self.say(self.client, request())
        backend = self.dialogue.attempts[0].succeed()
        self.dialogue.reactor.settle()
        self.say(backend, NOT_FOUND)
        self.dialogue.attempts[0].fail(Outcome.CONNECT_REFUSED)
        self.assert_passed_on()

    def test_bad_answers(self):
        """Another error, a redirection, nonsense or an end instead of a page is none."""
        for answer in (
            self.page(status="500 Internal Server Error"),
            self.page(status="302 Found"),
            self.page(status="403 Forbidden"),
            b"nonsense\r\n\r\n",
            b"",
            response("200 OK", "Content-Length: 100", body=b"part"),
        ):
            self.begin()
            pages, _ = self.break_down()
            if answer:
                self.say(pages, answer)
            pages.close()
            self.dialogue.reactor.settle()
            self.assert_passed_on()
            self.client.close()

    def test_too_slow(self):
        """A page that does not come in time is not waited for, however much of it has come."""
        for said in (b"", response("200 OK", "Content-Length: 100", body=b"part")):
            self.begin("timeout_ms = 2000")
            pages, _ = self.break_down()
            if said:
                self.say(pages, said)
            self.dialogue.reactor.advance(1.5)
            self.assertEqual(self.hear(self.client), b"")
            self.dialogue.reactor.advance(1)
            self.assert_passed_on()
            self.assertTrue(pages.was_reset)
            self.client.close()

    def test_patience_by_default(self):
        """Without a time of its own a page is waited for five seconds."""
        self.begin()
        self.break_down()
        self.dialogue.reactor.advance(4.5)
        self.assertEqual(self.hear(self.client), b"")
        self.dialogue.reactor.advance(1)
        self.assert_passed_on()

    def test_too_large(self):
        """A page larger than allowed is none, whether it says so or not."""
        for lines, body in (("Content-Length: 11", b""), ("Transfer-Encoding: chunked", b"b\r\n12345678901\r\n")):
            self.begin("max_page_bytes = 10")
            pages, _ = self.break_down()
            self.say(pages, response("200 OK", lines, body=body))
            self.assert_passed_on()
            self.client.close()
        self.begin("max_page_bytes = 10")
        pages, _ = self.break_down()
        self.say(pages, self.page(body=b"1234567890"))
        self.assertTrue(self.hear(self.client).endswith(b"\r\n\r\n1234567890"))

    def test_error_with_a_long_body(self):
        """While the page is waited for the error's own body is held back, and then passed on whole."""
        self.begin()
        pages, _ = self.break_down(answer=response("404 Not Found", "Content-Length: 8", body=b"long"))
        self.say(self.backend, b"body")
        self.assertEqual(self.hear(self.client), b"")
        self.say(pages, self.page(status="500 No"))
        self.assertTrue(self.hear(self.client).endswith(b"\r\n\r\nlongbody"))

    def test_client_leaves(self):
        """If the client leaves while the page is waited for, neither is waited for any longer."""
        self.begin()
        pages, _ = self.break_down()
        self.client.close()
        self.dialogue.reactor.settle()
        self.assertTrue(pages.was_reset)
        self.assertEqual(self.dialogue.outcomes(), ["client-closed"])

    def test_reload_meanwhile(self):
        """A page that is waited for comes, though a reload has removed the pages."""
        self.begin()
        pages, _ = self.break_down()
        self.dialogue.reload(config())
        self.say(pages, self.page())
        self.assertTrue(self.hear(self.client).endswith(PAGE))
        self.assertEqual(self.break_down(), (None, b""))
        self.assertEqual(self.hear(self.client), NOT_FOUND)


@implementer(IDestination)
class FakeDestination:
    """
    Gives what the test puts in `result`.
    """

    def __init__(self):
        self.result = None
        self.closed = 0

    def fetch(self, method, target, fields, *, body, timeout, max_body_bytes):
        return self.result

    def close(self):
        self.closed += 1


class DestinationTests(SynchronousTestCase):
    """
    What becomes of the way to the service.
    """

    def setUp(self):
        self.destination = FakeDestination()
        self.named = []

    def make(self, **attributes):
        surroundings = attrs.evolve(still_surroundings("x"), destination_of=self.find)
        return errors.Errors(errors.ErrorsConfig(name="m1", status=["404"], **attributes), surroundings)

    def find(self, name):
        self.named.append(name)
        return self.destination

    def test_interface(self):
        """The fake is what it stands for."""
        verifyObject(IDestination, self.destination)

    def test_retired(self):
        """The way is given up once; a page of one's own has none."""
        self.make(service="pages").retire()
        self.assertEqual((self.named, self.destination.closed), (["pages"], 1))
        self.make(body="x").retire()
        self.assertEqual((self.named, self.destination.closed), (["pages"], 1))

    def test_bug(self):
        """A bug on the way is not taken for a page that is missing."""
        self.destination.result = fail(ZeroDivisionError())
        exchange = Exchange(None, None, b"192.0.2.1", b"http", 0.0)
        exchange.head = RequestHead(b"GET", b"/")
        exchange.forwarding = Forwarding(b"192.0.2.1", b"", b"", b"http", b"80")
        waiting = self.make(service="pages").on_response(exchange, ResponseHead(404, b"HTTP/1.1 404 Not Found"))
        self.failureResultOf(waiting, ZeroDivisionError)


class LogTests(FetchedCase):
    """
    What the operator hears.
    """

    def setUp(self):
        self.logged = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def told(self):
        """
        Return the reasons and levels of what was logged of pages.
        """
        return [(event["log_level"].name, event.get("reason")) for event in self.logged if event["log_format"].find("error page") >= 0]

    def test_once(self):
        """That pages cannot be fetched is said once, and that they can again once too."""
        self.begin()
        for status in ("500 No", "500 No", "200 OK", "200 OK", "302 Found"):
            pages, _ = self.break_down()
            self.say(pages, self.page(status=status))
            self.hear(self.client)
        self.assertEqual(self.told(), [("warn", "the answer was 500"), ("info", None), ("warn", "the answer was 302")])

    def test_reason(self):
        """The reason is that of the service, and says nothing of the client."""
        self.begin("timeout_ms = 1000")
        self.break_down(request("GET", "/secret"))
        self.dialogue.reactor.advance(2)
        self.hear(self.client)
        ((level, reason),) = self.told()
        self.assertEqual(level, "warn")
        self.assertIn("in time", reason)
        self.assertNotIn("secret", str(self.logged))


class ConfigTests(SynchronousTestCase):
    """
    What is refused when the configuration is loaded.
    """

    def problems(self, *lines):
        text = config(middlewares=["\n".join(['type = "errors"', *lines])], more=PAGES)
        return [str(problem) for problem in load_string(text, "gw.hcl", {}).problems]

    def test_accepted(self):
        """One status or many, and every attribute where it means something."""
        for lines in (
            ['status = ["404"]', 'body = "x"'],
            ['status = ["400-599", "404"]', 'body = "x"', 'content_type = "text/plain"'],
            ['status = ["404"]', 'service = "pages"', 'query = "/{status}?u={url}"', "timeout_ms = 1", "max_page_bytes = 1"],
        ):
            self.assertEqual(self.problems(*lines), [])

    def test_refusals(self):
        """There are errors and exactly one place for their pages, and nothing is said in vain."""
        status = 'status = ["404"]'
        for lines, text in [
            (['body = "x"'], 'gw.hcl:11:1: middleware "m1" lacks "status", which is required'),
            (["status = []", 'body = "x"'], "gw.hcl:13:10: middlewares.m1.status is an empty list"),
            (['status = ["404", "4xx"]', 'body = "x"'], 'gw.hcl:13:18: middlewares.m1.status[1] is "4xx", '),
            (['status = ["599-500"]', 'body = "x"'], 'gw.hcl:13:11: middlewares.m1.status[0] is "599-500", '),
            (['status = ["200-404"]', 'body = "x"'], 'gw.hcl:13:10: middleware "m1" replaces what is no error'),
            (['status = ["404", "399-400"]', 'body = "x"'], 'gw.hcl:13:10: middleware "m1" replaces what is no error'),
            ([status], 'gw.hcl:11:1: middleware "m1" of type "errors" requires service or file or body'),
            ([status, 'body = "x"', 'service = "pages"'], 'gw.hcl:14:8: middleware "m1" has both service and body; give one of them'),
            ([status, 'service = "page"'], 'gw.hcl:14:11: middleware "m1" names service "page"; did you mean "pages"?'),
            ([status, 'service = "pages"', 'query = "404"'], 'gw.hcl:15:9: middlewares.m1.query is "404", which does not begin with "/"'),
            ([status, 'service = "pages"', 'query = "/#a"'], 'gw.hcl:15:9: middlewares.m1.query is "/#a", which does not begin with "/"'),
            ([status, 'service = "pages"', 'query = "/{code}"'], 'gw.hcl:15:9: middlewares.m1.query is "/{code}", which has a brace that '),
            (
                [status, 'service = "pages"', 'query = "/{status"'],
                'gw.hcl:15:9: middlewares.m1.query is "/{status", which has a brace that ',
            ),
            ([status, 'body = "x"', 'query = "/"'], 'gw.hcl:15:9: middleware "m1" has query but no service to ask; remove it'),
            ([status, 'body = "x"', "timeout_ms = 1"], 'gw.hcl:15:14: middleware "m1" has timeout_ms but no service to ask; remove it'),
            ([status, 'body = "x"', "max_page_bytes = 1"], 'gw.hcl:15:18: middleware "m1" has max_page_bytes, but '),
            ([status, 'service = "pages"', 'content_type = "a/b"'], 'gw.hcl:15:16: middleware "m1" has a content_type, but its service '),
            ([status, 'body = "x"', 'content_type = "html"'], 'gw.hcl:15:16: middlewares.m1.content_type is "html", which is none; '),
            ([status, 'body = "x"', 'content_type = "a/b\\r\\nX: y"'], "gw.hcl:15:16: middlewares.m1.content_type is "),
        ]:
            problems = self.problems(*lines)
            self.assertEqual(len(problems), 1, (lines, problems))
            self.assertTrue(problems[0].startswith(text), problems)
