"""
Tests for `a3sgw.admin.api`.
"""

import base64
import gc
import json
import weakref
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from a3sgw.admin.api import AdminApi, IGatewayView
from a3sgw.config.values import Secret
from a3sgw.message import LocalResponse, RequestHead, get_all_fields, get_field, make_field

PREFIX = "/api/gateway"

ENDPOINTS = (b"health", b"metrics", b"config", b"routes", b"services", b"backends", b"middlewares", b"version", b"explain")


@implementer(IGatewayView)
class FakeGatewayView:
    """
    A gateway that stands still. `explained` keeps what was asked, `explanation` is what is answered.
    """

    def __init__(self):
        self.state = "Running"
        self.secret: Any = "«secret»"
        self.explained: list[tuple[Any, ...]] = []
        self.explanation: dict[str, Any] | None = {"route": "shop"}

    def health(self):
        """
        Return the fields of the original gateway and the last reload.
        """
        return {"state": self.state, "uptime_secs": 60, "active_connections": 2, "total_requests": 9, "reload": None}

    def metrics_page(self):
        """
        Give a page of one line.
        """
        return succeed(b"gateway_requests_total 9\n")

    def config_json(self):
        """
        Return a configuration with one secret.
        """
        return {"middlewares": {"login": {"username": "anna", "password": self.secret}}}

    def routes(self):
        """
        Return three routes, highest priority first.
        """
        return [{"name": name, "rule": "Host(`shop.test`)", "service": "carts"} for name in ("shop", "default/café", "a b")]

    def services(self):
        """
        Give two services.
        """
        backend = {"url": "http://a", "weight": 1, "healthy": False, "state": "draining", "reason": "", "active_connections": 3}
        return succeed(
            [
                {"name": "carts", "strategy": "least-connections", "backends_total": 1, "backends_healthy": 1, "backends": [backend]},
                {"name": "empty", "strategy": "round-robin", "backends_total": 0, "backends_healthy": 0, "backends": []},
            ]
        )

    def middlewares(self):
        """
        Give two middlewares.
        """
        state = {"router": "shop", "entrypoint": None, "state": {"circuit": "open"}}
        counts = {"invocations": 5, "answers": {"503": 2}, "waits": 0, "wait_seconds": 0.0}
        return succeed([{"name": name, "type": "circuit-breaker", **counts, "states": [state]} for name in ("trip", "a/b c")])

    def version(self):
        """
        Return a version.
        """
        return "1.2.3"

    def explain(self, method, url, client, headers):
        """
        Remember what was asked.
        """
        self.explained.append((method, url, client, headers))
        return self.explanation


class ApiTestCase(SynchronousTestCase):
    """
    A view and an API without credentials.
    """

    def setUp(self):
        self.view = FakeGatewayView()
        self.api = AdminApi(self.view, PREFIX)

    def ask(self, path, method=b"GET", query=b"", fields=(), api=None):
        head = RequestHead(method, path)
        head.client = b"192.0.2.1"
        head.fields = [make_field(name, value) for name, value in fields]
        answer = (api or self.api).answer(method, path, query, head)
        if isinstance(answer, Deferred):
            answer = self.successResultOf(answer)
        self.assertIsInstance(answer, LocalResponse)
        return answer

    def ask_json(self, path, **options):
        answer = self.ask(path, **options)
        self.assertEqual(get_field(answer.fields, b"content-type"), b"application/json")
        return answer.status, json.loads(answer.body)


class EndpointTests(ApiTestCase):
    """
    Tests for what each path answers.
    """

    def test_fake(self):
        """
        The fake view is a view.
        """
        verifyObject(IGatewayView, self.view)

    def test_json(self):
        """
        Each path answers its part of the gateway.
        """
        [carts, empty] = self.successResultOf(self.view.services())
        [trip, other] = self.successResultOf(self.view.middlewares())
        cases = [
            (b"/health", self.view.health()),
            (b"/config", self.view.config_json()),
            (b"/routes", self.view.routes()),
            (b"/routes/shop", self.view.routes()[0]),
            (b"/routes/a%20b", self.view.routes()[2]),
            (b"/routes/default/caf%C3%A9", self.view.routes()[1]),
            (b"/services", [carts, empty]),
            (b"/services/empty", empty),
            (b"/backends", [{"service": "carts", **carts["backends"][0]}]),
            (b"/middlewares", [trip, other]),
            (b"/middlewares/trip", trip),
            (b"/middlewares/a/b%20c", other),
            (b"/version", {"name": "a3s-gateway", "version": "1.2.3"}),
        ]
        for path, expected in cases:
            for slash in (b"", b"/"):
                self.assertEqual(self.ask_json(PREFIX.encode() + path + slash), (200, expected), path)

    def test_metrics(self):
        """
        The metrics page is Prometheus' text format.
        """
        answer = self.ask(b"/api/gateway/metrics")
        self.assertEqual((answer.status, answer.body), (200, b"gateway_requests_total 9\n"))
        self.assertEqual(get_field(answer.fields, b"content-type"), b"text/plain; version=0.0.4; charset=utf-8")

    def test_health_as_a_probe(self):
        """
        A probe sees 503 as soon as the gateway should get no more requests.
        """
        for state, status in (("Running", 200), ("Reloading", 200), ("Stopping", 503), ("Stopped", 503), ("Created", 503)):
            self.view.state = state
            answer = self.ask_json(b"/api/gateway/health")
            self.assertEqual((answer[0], answer[1]["state"]), (status, state))

    def test_not_found(self):
        """
        What does not exist is not found, and nothing outside the prefix is ours.
        """
        cases = [
            (b"/api/gateway", "Not found"),
            (b"/api/gateway/", "Not found"),
            (b"/api/gateway//", "Not found"),
            (b"/api/gateway/nothing", "Not found"),
            (b"/api/gateway/healthx", "Not found"),
            (b"/api/gateway/health/x", "Not found"),
            (b"/api/gateway/health//", "Not found"),
            (b"/api/gateway/Health", "Not found"),
            (b"/api/gatewayx/health", "Not found"),
            (b"/health", "Not found"),
            (b"/api/gateway/routes/nothing", "Route not found"),
            (b"/api/gateway/routes/%FF", "Route not found"),
            (b"/api/gateway/services/nothing", "Service not found"),
            (b"/api/gateway/backends/http:", "Not found"),
            (b"/api/gateway/middlewares/nothing", "Middleware not found"),
            (b"/api/gateway/middlewares/Trip", "Middleware not found"),
        ]
        for path, text in cases:
            self.assertEqual(self.ask_json(path), (404, {"error": text}), path)

    def test_other_prefix(self):
        """
        The prefix is configurable, down to none at all for a listener of its own.
        """
        for prefix, path in (("/ops", b"/ops/version"), ("/ops/", b"/ops/version"), ("/", b"/version"), ("", b"/version")):
            self.assertEqual(self.ask(path, api=AdminApi(self.view, prefix)).status, 200, prefix)
        self.assertEqual(self.ask(b"/api/gateway/version", api=AdminApi(self.view, "/ops")).status, 404)

    def test_methods(self):
        """
        Only GET and HEAD are answered; a HEAD answer is that of GET.
        """
        for endpoint in ENDPOINTS:
            path = b"/api/gateway/" + endpoint
            for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"get"):
                answer = self.ask(path, method=method)
                self.assertEqual((answer.status, get_field(answer.fields, b"allow")), (405, b"GET, HEAD"), path)
        get, head = self.ask(b"/api/gateway/config"), self.ask(b"/api/gateway/config", method=b"HEAD")
        self.assertEqual((get.status, get.fields, get.body), (head.status, head.fields, head.body))
        self.assertEqual(self.ask(b"/api/gateway/nothing", method=b"POST").status, 404)

    def test_never_stored(self):
        """
        No cache keeps an answer, and no browser guesses its type.
        """
        for path in (*ENDPOINTS, b"nothing", b"routes/nothing"):
            answer = self.ask(b"/api/gateway/" + path)
            self.assertEqual(get_field(answer.fields, b"cache-control"), b"no-store", path)
            self.assertEqual(get_field(answer.fields, b"x-content-type-options"), b"nosniff", path)

    def test_readable(self):
        """
        JSON is indented and keeps what is not ASCII as it is.
        """
        body = self.ask(b"/api/gateway/config").body
        self.assertIn(b'\n  "middlewares": {\n    "login": {', body)
        self.assertIn("«secret»".encode(), body)
        self.assertTrue(body.endswith(b"}\n"))

    def test_surrogates(self):
        """
        A text that UTF-8 cannot carry still makes valid JSON.
        """
        self.view.secret = "a\udc80b"
        self.assertEqual(self.ask_json(b"/api/gateway/config")[1], self.view.config_json())

    def test_failures(self):
        """
        A gateway that cannot be read is an error for the one who passed the request on, not an empty answer.
        """

        class Broken(FakeGatewayView):
            def services(self):
                return fail(RuntimeError("worker 2 does not answer"))

            def middlewares(self):
                return fail(RuntimeError("worker 2 does not answer"))

        api = AdminApi(Broken(), PREFIX)
        for page in ("services", "services/carts", "backends", "middlewares", "middlewares/trip"):
            path = f"/api/gateway/{page}".encode()
            self.failureResultOf(api.answer(b"GET", path, b"", RequestHead(b"GET", path)), RuntimeError)

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.lists(st.sampled_from([b"/", b"%2F", b"%", b"..", b"\xff", *sorted({*ENDPOINTS} - {b"metrics"})])), st.binary())
    def test_any_path(self, parts, query):
        """
        No path and no query makes the API fail.
        """
        answer = self.ask(b"/api/gateway/" + b"".join(parts), query=query)
        self.assertIn(answer.status, (200, 400, 404))
        json.loads(answer.body)


class LeftoverTests(ApiTestCase):
    """
    A reload makes another API, and the old one is gone.
    """

    def test_nothing_stays(self):
        """It does not wait for the garbage collector, which does not look at what lived long."""
        gc.disable()
        self.addCleanup(gc.enable)
        api = weakref.ref(self.api)
        self.ask(b"/api/gateway/version")
        del self.api
        self.assertIsNone(api())


class SecretTests(ApiTestCase):
    """
    Tests for what must not be seen.
    """

    def test_mask_stays(self):
        """
        A masked secret is shown as its mask.
        """
        _, config = self.ask_json(b"/api/gateway/config")
        self.assertEqual(config["middlewares"]["login"]["password"], "«secret»")

    def test_forgotten_mask(self):
        """
        A secret that reached the API unmasked by mistake makes it fail, and its text is in neither answer nor error.
        """
        self.view.secret = Secret("hunter2-hunter2")
        error = self.assertRaises(TypeError, self.ask, b"/api/gateway/config")
        self.assertNotIn("hunter2", str(error))


class AuthenticationTests(ApiTestCase):
    """
    Tests for credentials.
    """

    def basic(self, text):
        return (b"Authorization", b"Basic " + base64.b64encode(text.encode()))

    def test_credentials(self):
        """
        The right name and password or one of the keys let in, and nothing else does.
        """
        login: dict[str, Any] = {"username": "anna", "password": "pass:wörd"}
        keys: dict[str, Any] = {"keys": ["key-one", "key-two"]}
        right = self.basic("anna:pass:wörd")
        encoded = right[1].partition(b" ")[2]
        cases: list[tuple[dict[str, Any], list[tuple[bytes, bytes]], bool]] = [
            (login, [], False),
            (login, [right], True),
            (login, [(b"authorization", b"bAsIc  " + encoded)], True),
            (login, [(b"Authorization", encoded)], False),
            (login, [(b"Authorization", b"Basic")], False),
            (login, [(b"Authorization", b"Basic !" + encoded)], False),
            (login, [(b"Authorization", b"Bearer " + encoded)], False),
            (login, [self.basic("anna:wrong")], False),
            (login, [self.basic("anna:")], False),
            (login, [self.basic("Anna:pass:wörd")], False),
            (login, [self.basic("anna")], False),
            (login, [right, right], False),
            (login, [self.basic("anna:wrong"), right], False),
            (login, [(b"X-API-Key", b"key-one")], False),
            (keys, [], False),
            (keys, [(b"X-API-Key", b"key-one")], True),
            (keys, [(b"x-api-key", b"key-two")], True),
            (keys, [(b"Authorization", b"Bearer key-two")], True),
            (keys, [(b"Authorization", b"BEARER key-two")], True),
            (keys, [(b"Authorization", b"key-two")], False),
            (keys, [(b"X-API-Key", b"key-three")], False),
            (keys, [(b"X-API-Key", b"")], False),
            (keys, [(b"X-API-Key", b"key-one, key-two")], False),
            (keys, [right], False),
            ({**login, **keys}, [right], True),
            ({**login, **keys}, [(b"X-API-Key", b"key-one")], True),
            ({**login, **keys}, [self.basic("anna:wrong"), (b"X-API-Key", b"key-one")], True),
            ({**login, **keys}, [], False),
        ]
        for options, fields, is_let_in in cases:
            api = AdminApi(self.view, PREFIX, **options)
            for endpoint in (b"health", b"config"):
                answer = self.ask(b"/api/gateway/" + endpoint, fields=fields, api=api)
                self.assertEqual(answer.status, 200 if is_let_in else 401, (options, fields))

    def test_challenge(self):
        """
        Who is not let in learns how to ask, and nothing of what there is.
        """
        cases: list[tuple[dict[str, Any], list[bytes]]] = [
            ({"username": "a", "password": "b"}, [b'Basic realm="a3s-gateway", charset="UTF-8"']),
            ({"keys": ["k"]}, [b'Bearer realm="a3s-gateway"']),
            (
                {"username": "a", "password": "b", "keys": ["k"]},
                [b'Basic realm="a3s-gateway", charset="UTF-8"', b'Bearer realm="a3s-gateway"'],
            ),
        ]
        for options, challenges in cases:
            api = AdminApi(self.view, PREFIX, **options)
            for method, path in ((b"GET", b"config"), (b"POST", b"config"), (b"GET", b"nothing")):
                answer = self.ask(b"/api/gateway/" + path, method=method, api=api)
                self.assertEqual((answer.status, answer.body), (401, b'{\n  "error": "Unauthorized"\n}\n'))
                self.assertEqual(get_all_fields(answer.fields, b"www-authenticate"), challenges)

    def test_useless_credentials(self):
        """
        Credentials that would protect nothing are refused instead of ignored, without showing them.
        """
        cases: list[tuple[dict[str, Any], str]] = [
            ({"username": "anna"}, "only one is given"),
            ({"password": "hunter2"}, "only one is given"),
            ({"username": "", "password": "hunter2"}, "protects nothing"),
            ({"username": "anna", "password": ""}, "protects nothing"),
            ({"keys": ["hunter2", ""]}, "protects nothing"),
            ({"username": "an:na", "password": "hunter2"}, "contains a colon"),
        ]
        for options, text in cases:
            error = self.assertRaises(ValueError, AdminApi, self.view, PREFIX, **options)
            self.assertIn(text, str(error))
            self.assertNotIn("hunter2", str(error))


class ExplainTests(ApiTestCase):
    """
    Tests for `explain`.
    """

    def test_arguments(self):
        """
        The view is asked about the request described, by default a GET from whoever asks.
        """
        url = "http://shop.test/cart?id=7"
        cases: list[tuple[bytes, tuple[Any, ...]]] = [
            (b"url=http://shop.test/cart?id=7", ("GET", url, "192.0.2.1", [])),
            (b"url=http%3A%2F%2Fshop.test%2Fcart%3Fid%3D7&method=PUT&client=2001:db8::1", ("PUT", url, "2001:db8::1", [])),
            (
                b"url=https://shop.test&header=X-Canary:+1&header=Cookie:a%3Db",
                ("GET", "https://shop.test", "192.0.2.1", [("X-Canary", "1"), ("Cookie", "a=b")]),
            ),
        ]
        for query, asked in cases:
            self.assertEqual(self.ask_json(b"/api/gateway/explain", query=query), (200, {"route": "shop"}))
            self.assertEqual(self.view.explained.pop(), asked)

    def test_nothing_to_explain(self):
        """
        A request that no entrypoint would take is not found.
        """
        self.view.explanation = None
        answer = self.ask_json(b"/api/gateway/explain", query=b"url=http://shop.test/")
        self.assertEqual(answer, (404, {"error": "No entrypoint takes such a request"}))

    def test_mistakes(self):
        """
        Each mistake in the question is answered with what was expected.
        """
        cases = [
            (b"", "url '': expected an absolute http or https URL"),
            (b"url=/cart", "url '/cart': expected"),
            (b"url=ftp://shop.test/", "url 'ftp://shop.test/': expected"),
            (b"url=http://", "url 'http://': expected"),
            (b"url=http://a:b/", "url 'http://a:b/': expected"),
            (b"url=http://[::1/", "url 'http://[::1/': expected"),
            (b"url=http://a/&url=http://b/", "parameter 'url' is given twice"),
            (b"url=http://a/&uri=x", "unknown parameter 'uri': expected method, url, client, header"),
            (b"url=http://a/&method=G%20T", "method 'G T': expected an HTTP method"),
            (b"url=http://a/&method=", "method '': expected an HTTP method"),
            (b"url=http://a/&client=shop.test", "client 'shop.test': expected an IP address"),
            (b"url=http://a/&header=X-Canary", "header 'X-Canary': expected a name, a colon and a value"),
            (b"url=http://a/&header=:1", "header ':1': expected"),
            (b"url=%FF", "the query is not readable"),
            (b"url=\xff", "the query is not readable"),
            (b"url=http://a/" + b"&header=a:b" * 100, "the query is not readable"),
        ]
        for query, text in cases:
            status, answer = self.ask_json(b"/api/gateway/explain", query=query)
            self.assertEqual(status, 400, query)
            self.assertIn(text, answer["error"])
        self.assertEqual(self.view.explained, [])
