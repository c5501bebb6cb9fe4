"""
Tests for `a3sgw.observe.accesslog`.
"""

import json
import re
from datetime import datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IObserver
from a3sgw.observe.accesslog import FORMATS, AccessLog
from a3sgw.observe.logsink import MemorySink
from a3sgw.observe.test.records import Backend, Entrypoint, Route, make_head, make_record

NOW = datetime.fromisoformat("2030-03-09T07:21:44.120331+00:00").timestamp()


def log_lines(*records, format="json", redact_query=False, times=()):
    """
    Return what an access log writes for `records`, as lines. `times` are what the wall clock says when they end.
    """
    sink = MemorySink(1 << 20)
    wall = NOW
    # Records end at 1000.25. A little later, because most moments cannot be written as a float.
    log = AccessLog(sink, format, redact_query, lambda: wall + 4e-7, lambda: 1000.25)
    for position, record in enumerate(records):
        if times:
            wall = times[position]
            log.flush()
        log.exchange_ended(record)
    log.flush()
    assert sink.data.endswith(b"\n")
    return sink.data[:-1].split(b"\n")


def log_json(record, **options):
    [line] = log_lines(record, **options)
    return json.loads(line)


def text_of(value):
    """
    Return what a byte string means in the log.
    """
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


class AccessLogTests(SynchronousTestCase):
    """
    Tests for collecting lines.
    """

    def setUp(self):
        self.sink = MemorySink(1 << 20)
        self.log = AccessLog(self.sink, "json", False, lambda: NOW)

    def test_interface(self):
        """
        The access log observes exchanges.
        """
        verifyObject(IObserver, self.log)

    def test_flush(self):
        """
        Lines wait for the timer, and are written once.
        """
        self.log.exchange_ended(make_record())
        self.assertEqual(self.sink.data, b"")
        self.log.flush()
        self.log.flush()
        self.assertEqual(self.sink.data.count(b"\n"), 1)

    def test_many_lines(self):
        """
        When 64 KiB wait, they are written without waiting for the timer.
        """
        size = len(log_lines(make_record())[0]) + 1
        for _ in range(64 * 1024 // size):
            self.log.exchange_ended(make_record())
        self.assertEqual(self.sink.data, b"")
        self.log.exchange_ended(make_record())
        self.assertEqual(self.sink.data.count(b"\n"), 64 * 1024 // size + 1)

    def test_unknown_format(self):
        """
        An unknown format is refused, and the known ones are named.
        """
        error = self.assertRaises(ValueError, AccessLog, self.sink, "xml", False, lambda: NOW)
        self.assertEqual(str(error), "access log format 'xml': expected one of json, common, combined")


class JSONTests(SynchronousTestCase):
    """
    Tests for the format `json`.
    """

    def test_usual(self):
        """
        A line has the original gateway's fields in its order, then ours.
        """
        record = make_record(
            head=make_head(b"PUT", b"/cart/7?item=3"),
            status=204,
            upstream_status=204,
            bytes_received=12,
            attempts=1,
            route=Route("shop", "carts"),
            backend=Backend("http://127.0.0.1:9101"),
        )
        [line] = log_lines(record)
        self.assertEqual(
            line,
            b'{"timestamp":"2030-03-09T07:21:44.120331+00:00","client_ip":"192.0.2.44","method":"PUT","path":"/cart/7","host":"shop.test",'
            b'"status":204,"response_bytes":0,"duration_ms":250,"backend":"http://127.0.0.1:9101","router":"shop","entrypoint":"public",'
            b'"user_agent":"demo/1","query":"item=3","request_id":"00ff","scheme":"https","protocol":"HTTP/1.1",'
            b'"referer":"http://shop.test/","request_bytes":12,"service":"carts","revision":null,"upstream_status":204,"upstream_ms":203.125,'
            b'"attempts":1,"outcome":"completed","peer":"198.51.100.9"}',
        )
        json.loads(line)

    def test_no_head(self):
        """
        A request refused before its head could be read is logged too, with the peer for its client.
        """
        line = log_json(make_record(head=None, status=400, outcome=Outcome.REQUEST_LINE_MALFORMED, leased=0.0, first_byte=0.0))
        nulls = {name for name, value in line.items() if value is None}
        self.assertEqual(
            nulls,
            {"method", "path", "host", "backend", "router", "user_agent", "query", "request_id", "referer", "service"}
            | {"revision", "upstream_status", "upstream_ms"},
        )
        self.assertEqual(
            (line["client_ip"], line["status"], line["outcome"]), ("198.51.100.9", 400, "request-line-malformed")
        )

    def test_revision(self):
        """
        The revision that served is told.
        """
        for revision in ("v1", "v2", "v1", None, 'a "b"'):
            self.assertEqual(log_json(make_record(route=Route("shop", "carts"), revision=revision))["revision"], revision)

    def test_nothing_sent(self):
        """
        A client that left before its answer has status 0.
        """
        self.assertEqual(log_json(make_record(status=0, outcome=Outcome.CLIENT_CLOSED))["status"], 0)

    def test_absent_fields(self):
        """
        What a request did not say is null, not an empty text.
        """
        line = log_json(make_record(head=make_head(authority=b"", user_agent=b"", referer=b"", request_id=b"")))
        for name in ("host", "user_agent", "referer", "request_id"):
            self.assertIsNone(line[name], name)

    def test_targets(self):
        """
        The path and the query are as received, whatever form the target has.
        """
        cases = [
            (b"/a/%2e/b", "/a/%2e/b", None),
            (b"/", "/", None),
            (b"/a?", "/a", None),
            (b"/a?b?c", "/a", "b?c"),
            (b"/a?next=http://other/x", "/a", "next=http://other/x"),
            (b"/see/http://other/x", "/see/http://other/x", None),
            (b"http://shop.test/a/b?c=d", "/a/b", "c=d"),
            (b"http://shop.test", "/", None),
            (b"http://shop.test?c=/d", "/", "c=/d"),
            (b"*", "*", None),
            (b"shop.test:443", "shop.test:443", None),
            (b"//double//slash", "//double//slash", None),
            (b"/caf\xc3\xa9?\xc3\xa9", "/café", "é"),
            (b"/caf\xe9?x", "/caf\xe9", "x"),
            (b'/"\\\n?"', '/"\\\n', '"'),
        ]
        for target, path, query in cases:
            line = log_json(make_record(head=make_head(b"GET", target)))
            self.assertEqual((line["path"], line["query"]), (path, query), target)

    def test_redaction(self):
        """
        A redacted query says that there was one and nothing more.
        """
        cases = [
            (b"/a?token=secret", "[redacted]"),
            (b"http://shop.test/?token=secret", "[redacted]"),
            (b"/\xff?secret", "[redacted]"),
            (b"/\xff", None),
            (b"/a", None),
        ]
        for target, query in cases:
            [line] = log_lines(make_record(head=make_head(b"GET", target)), redact_query=True)
            self.assertEqual(json.loads(line)["query"], query, target)
            self.assertNotIn(b"secret", line)

    def test_upstream_time(self):
        """
        Without a first byte from a backend there is no upstream time.
        """
        for slots, expected in (({}, 203.125), ({"leased": 0.0}, None), ({"first_byte": 0.0}, None)):
            self.assertEqual(log_json(make_record(**slots))["upstream_ms"], expected, slots)

    def test_grpc(self):
        """
        A gRPC request has the status that its client was told, or none, and no other request has.
        """
        self.assertNotIn("grpc_status", log_json(make_record()))
        record = make_record(head=make_head(grpc=b"application/grpc"))
        self.assertIsNone(log_json(record)["grpc_status"])
        record.grpc_status = b"14"
        self.assertEqual(log_json(record)["grpc_status"], 14)

    def test_clock(self):
        """
        The timestamp is the moment the exchange ended, by a wall clock that may be set: across seconds, days and backwards.
        """
        moments = ["2030-03-09T23:59:59.999999", "2030-03-10T00:00:00.000001", "2030-03-10T00:00:00.500000", "2029-12-31T12:00:00.000000"]
        times = [datetime.fromisoformat(f"{moment}+00:00").timestamp() for moment in moments]
        lines = log_lines(*[make_record() for _ in times], times=times)
        self.assertEqual([json.loads(line)["timestamp"] for line in lines], [f"{moment}+00:00" for moment in moments])

    def test_every_outcome(self):
        """
        Every way to end has its word in the log.
        """
        for outcome in Outcome:
            self.assertEqual(log_json(make_record(outcome=outcome))["outcome"], outcome.word)

    def test_memory_is_bounded(self):
        """
        Clients that never send the same thing twice do not fill the memory, and their lines stay right.
        """
        sink = MemorySink(1 << 30)
        log = AccessLog(sink, "json", False, lambda: NOW)
        for number in range(20000):
            agent = b'agent "%d"' % number
            log.exchange_ended(make_record(head=make_head(user_agent=agent, client=b"10.0.%d.%d" % divmod(number, 256))))
        log.flush()
        agents = [json.loads(line)["user_agent"] for line in sink.data.splitlines()]
        self.assertEqual(agents, [f'agent "{number}"' for number in range(20000)])
        writer: Any = log._line
        memos = [value for value in vars(writer.__self__).values() if isinstance(value, dict)]
        # More was seen than either may keep, and something is kept.
        self.assertLess(max(map(len, memos)), 16385)
        self.assertLess(len(writer.__self__._addresses), 1025)
        self.assertTrue(any(len(memo) > 500 for memo in memos))


class ApacheTests(SynchronousTestCase):
    """
    Tests for the formats `common` and `combined`.
    """

    def test_usual(self):
        """
        Lines are what tools for Apache's logs expect.
        """
        record = make_record(head=make_head(b"PUT", b"/cart/7?item=3"), bytes_sent=99)
        common = b'192.0.2.44 - - [09/Mar/2030:07:21:44 +0000] "PUT /cart/7?item=3 HTTP/1.1" 200 99'
        self.assertEqual(log_lines(record, format="common"), [common])
        self.assertEqual(log_lines(record, format="combined"), [common + b' "http://shop.test/" "demo/1"'])

    def test_absent_fields(self):
        """
        What is not known is a dash, and a status always has three digits.
        """
        record = make_record(head=None, status=0)
        common = b'198.51.100.9 - - [09/Mar/2030:07:21:44 +0000] "-" 000 -'
        self.assertEqual(log_lines(record, format="common"), [common])
        self.assertEqual(log_lines(record, format="combined"), [common + b' "-" "-"'])
        [line] = log_lines(make_record(head=make_head(user_agent=b"", referer=b"")), format="combined")
        self.assertTrue(line.endswith(b' "-" "-"'), line)

    def test_escapes(self):
        """
        Quotes, backslashes and bytes that are not printable ASCII are escaped.
        """
        head = make_head(b"GET", b'/a"b', user_agent=b'x" "y\\\r\n\xe9\x7f', client=b"x - y")
        [line] = log_lines(make_record(head=head), format="combined")
        self.assertTrue(line.startswith(b"x\\x20-\\x20y - - ["), line)
        self.assertIn(b'"GET /a\\"b HTTP/1.1"', line)
        self.assertTrue(line.endswith(b' "x\\" \\"y\\\\\\x0d\\x0a\\xe9\\x7f"'), line)

    def test_redaction(self):
        """
        A redacted query says that there was one and nothing more.
        """
        for format in ("common", "combined"):
            for target, expected in ((b"/a?token=secret", b'"GET /a?[redacted] HTTP/1.1"'), (b"/a", b'"GET /a HTTP/1.1"')):
                [line] = log_lines(make_record(head=make_head(b"GET", target)), format=format, redact_query=True)
                self.assertIn(expected, line)
                self.assertNotIn(b"secret", line)


ANY_BYTES = st.one_of(st.binary(), st.text().map(lambda text: text.encode("utf-8", "surrogatepass")), st.just(b'"\n{}\\'))

COMBINED = re.compile(
    rb'[!-~]+ - - \[09/Mar/2030:07:21:44 \+0000\] "(?:[^"\\]|\\.)*" \d{3} (?:\d+|-) "(?:[^"\\]|\\.)*" "(?:[^"\\]|\\.)*"'
)


class AnyBytesTests(SynchronousTestCase):
    """
    Tests with whatever a client may send.
    """

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(*[ANY_BYTES] * 8)
    def test_json(self, method, target, host, agent, referer, request_id, client, peer):
        """
        Any bytes in any field make one line of valid JSON, which means the same text.
        """
        head = make_head(method, target, authority=host, user_agent=agent, referer=referer, request_id=request_id, client=client)
        line = log_json(make_record(head=head, peer=peer))
        sent = {
            "method": method,
            "host": host,
            "user_agent": agent,
            "referer": referer,
            "request_id": request_id,
            "client_ip": client or peer,
            "peer": peer,
        }
        self.assertEqual({name: line[name] for name in sent}, {name: text_of(value) or None for name, value in sent.items()})
        if target.startswith(b"/"):
            path, _, query = target.partition(b"?")
            self.assertEqual((line["path"], line["query"]), (text_of(path), text_of(query) or None))

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.text(), st.text(), st.text())
    def test_names(self, router, service, url):
        """
        Any configured name makes valid JSON.
        """
        line = log_json(make_record(route=Route(router, service), backend=Backend(url), entrypoint=Entrypoint(router)))
        self.assertEqual((line["router"], line["service"], line["backend"], line["entrypoint"]), (router, service, url, router))

    @settings(deadline=None, max_examples=200, derandomize=True)
    @given(st.lists(ANY_BYTES, min_size=7, max_size=7), st.booleans())
    def test_apache(self, values, redact_query):
        """
        Any bytes in any field make one line of the right shape, in printable ASCII.
        """
        method, target, agent, referer, client, peer, protocol = values
        head = make_head(method, target, user_agent=agent, referer=referer, client=client)
        for format in FORMATS:
            lines = log_lines(make_record(head=head, peer=peer, protocol=protocol), format=format, redact_query=redact_query)
            self.assertEqual(len(lines), 1)
            self.assertRegex(lines[0], rb"\A[ -~]+\Z")
        [line] = log_lines(make_record(head=head, peer=peer, protocol=protocol), format="combined", redact_query=redact_query)
        self.assertIsNotNone(COMBINED.fullmatch(line), line)
