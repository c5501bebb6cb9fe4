"""
Tests for what `contrib.bench` reads, reckons and refuses. Nothing is started here.
"""

import contextlib
import io
import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.loading import load
from a3sgw.service.balance import STRATEGIES
from contrib.bench import procfs, report
from contrib.bench.__main__ import choose, parse_arguments
from contrib.bench.candidates import Caddy, Gateway, HAProxy, Nginx, Plan, candidates
from contrib.bench.cases import CASES, LARGE_BODY, SMALL_BODY, route_host
from contrib.bench.check import Answer, parse_answer
from contrib.bench.clients import doubt_memory, measure_clients
from contrib.bench.h2load import parse_h2load
from contrib.bench.load import Load
from contrib.bench.measure import Sample, doubt, parse_load
from contrib.bench.micro import PIECES, Piece, time_piece
from contrib.bench.middlewares import choose_variations, middleware_cases
from contrib.bench.prober import percentile
from contrib.bench.processes import BenchError, Cores, VoidRunError
from contrib.bench.tls import make_certificate
from contrib.bench.variations import ALL, REFUSED
from contrib.bench.workers import capacities, share_evenness

COUNTED = {
    "duration_us": 2000000,
    "requests": 50000,
    "bytes": 16500000,
    "connect": 0,
    "read": 0,
    "write": 0,
    "timeout": 0,
    "status": 0,
    "p50_us": 1250,
    "p99_us": 9500,
}


def wrk_output(**changes):
    return (
        "Running 2s test @ http://127.0.0.1:9000\n  1 threads and 64 connections\n"
        f"  50000 requests in 2.00s, 16.00MB read\n\nbench {json.dumps({**COUNTED, **changes})}\n"
    )


def sample(cpu=1.0, requests=50000, foreign=0.0, kernel=0.5, p50=0.001):
    return Sample(Load(2.0, requests, requests * 330, p50, 0.009), cpu, kernel if cpu is not None else None, 0.5, foreign, 500)


class ProcfsTests(SynchronousTestCase):
    """
    Tests for `contrib.bench.procfs`.
    """

    def test_stat(self):
        """
        A process whose name holds blanks and parentheses is read like any other.
        """
        line = "4711 (nginx: (a) b) S 4700 4711 4700 0 -1 4194560 5 6 7 8 210 305 11 22 20 0 1 0 12345 0 0\n"
        stat = procfs.parse_stat(line)
        self.assertEqual(stat, procfs.ProcessStat(pid=4711, parent=4700, user=210, system=305, reaped=33))
        self.assertEqual(stat.ticks, 548)

    def test_tree(self):
        """
        The tree holds children and their children, in whatever order the processes are listed, and no stranger.
        """
        parents = {30: 20, 20: 10, 10: 1, 40: 1, 21: 10, 41: 40}
        stats = [procfs.ProcessStat(pid, parent, 0, 0, 0) for pid, parent in parents.items()]
        self.assertEqual({stat.pid for stat in procfs.tree_of(10, stats)}, {10, 20, 21, 30})
        self.assertEqual(procfs.tree_of(99, stats), [])

    def test_core_times(self):
        """
        A core was busy with all but idling and waiting for a disk; what the hypervisor took is told apart.
        """
        text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 4 100 200 8 16 32 0 0\ncpu10 1 0 0 5 0 0 0 0 0 0\nintr 5 0\n"
        self.assertEqual(procfs.parse_core_times(text), {0: procfs.CoreTime(31, 32), 10: procfs.CoreTime(1, 0)})

    def test_kibibytes(self):
        """
        Memory is read in bytes; a process that is ending has no such line and no memory.
        """
        self.assertEqual(procfs.parse_kibibytes("VmHWM:\t 9 kB\nVmRSS:\t    41 kB\n", "VmRSS"), 41984)
        self.assertEqual(procfs.parse_kibibytes("State:\tZ (zombie)\n", "VmRSS"), 0)

    def test_cpu_model(self):
        """
        The first model name counts, and a machine without one is no error.
        """
        self.assertEqual(procfs.parse_cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 2: 3\nmodel name\t: Other\n"), "Some CPU @ 2: 3")
        self.assertEqual(procfs.parse_cpu_model("processor : 0\n"), "unknown")


class LoadTests(SynchronousTestCase):
    """
    Tests for reading what the load generator says.
    """

    def test_good(self):
        """
        The summary of our script is found among what wrk prints by itself.
        """
        self.assertEqual(parse_load(wrk_output()), Load(2.0, 50000, 16500000, 0.00125, 0.0095))

    def test_faults(self):
        """
        Any failed request voids the run, and the message says which kind and how many.
        """
        for fault, words in [
            ("connect", "3 failed connects"),
            ("read", "3 failed reads"),
            ("write", "3 failed writes"),
            ("timeout", "3 timeouts"),
            ("status", "3 responses with status"),
        ]:
            error = self.assertRaises(VoidRunError, parse_load, wrk_output(**{fault: 3}))
            self.assertIn(words, str(error))

    def test_nothing(self):
        """
        A run without a request or without a summary is void; in the second case what wrk said is shown.
        """
        self.assertIn("no request", str(self.assertRaises(VoidRunError, parse_load, wrk_output(requests=0))))
        self.assertIn("unable to connect", str(self.assertRaises(VoidRunError, parse_load, "unable to connect to 127.0.0.1\n")))

    def test_doubt(self):
        """
        Counts that do not fit together are doubted: answers the upstream never gave, requests sent twice, bodies of another size.
        """
        load = Load(2.0, 1000, 330000, 0.001, 0.002)
        self.assertIsNone(doubt(load, size=330, asked=1000, connections=64))
        self.assertIsNone(doubt(load, size=330, asked=1064, connections=64))
        self.assertIn("saw only 999", doubt(load, size=330, asked=999, connections=64) or "")
        self.assertIn("saw 1300", doubt(load, size=330, asked=1300, connections=64) or "")
        self.assertIn("do not make", doubt(load, size=210, asked=1000, connections=64) or "")

    def test_refused(self):
        """
        Where everything is to be refused, a single request that passes voids the run, and so does one that got to the upstream.
        """
        self.assertEqual(parse_load(wrk_output(status=50000), is_refusal=True), parse_load(wrk_output()))
        self.assertIn("1 of 50000", str(self.assertRaises(VoidRunError, parse_load, wrk_output(status=49999), is_refusal=True)))
        load = Load(2.0, 1000, 330000, 0.001, 0.002)
        self.assertIsNone(doubt(load, size=330, asked=0, connections=64, is_refusal=True))
        self.assertIn("saw 1", doubt(load, size=330, asked=1, connections=64, is_refusal=True) or "")

    def test_percentile(self):
        """
        A percentile is a value that was measured.
        """
        values = [float(number) for number in range(1, 101)]
        self.assertEqual([percentile(values, percent) for percent in (1, 50, 99, 100)], [1.0, 50.0, 99.0, 100.0])
        self.assertEqual(percentile([7.0], 50), 7.0)


H2LOAD = """
starting benchmark...
Application protocol: h2

finished in 2.01s, 22.00 req/s, 6.3KB/s
requests: 44 total, 44 started, 44 done, 44 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 44 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 12.6KB (12880) total, 900B (900) headers (space savings 93.10%), 5.16KB (5280) data
"""


class Http2LoadTests(SynchronousTestCase):
    """
    Tests for reading what `h2load` reports.
    """

    def test_good(self):
        """
        The summary and the times of single requests become one load.
        """
        load = parse_h2load(H2LOAD, "".join(f"1700000000000000\t200\t{1000 + number}\n" for number in range(44)), 2.0)
        self.assertEqual((load.requests, load.bytes, load.p50, load.p99), (44, 12880, 0.001021, 0.001043))

    def test_faults(self):
        """
        A failed request, another status or protocol, and a missing summary void the run.
        """
        for old, new, words in [
            ("0 failed", "1 failed", "1 failed"),
            ("0 errored", "2 errored", "2 errored"),
            ("0 timeout", "3 timeout", "3 timed out"),
            ("44 2xx, 0 3xx, 0 4xx, 0 5xx", "40 2xx, 0 3xx, 0 4xx, 4 5xx", "4 had another status"),
            ("protocol: h2", "protocol: http/1.1", "spoke http/1.1"),
            ("traffic:", "traffic of", "without its summary"),
        ]:
            self.assertIn(words, str(self.assertRaises(VoidRunError, parse_h2load, H2LOAD.replace(old, new), "1\t200\t5\n", 2.0)))
        self.assertIn("no times", str(self.assertRaises(VoidRunError, parse_h2load, H2LOAD, "", 2.0)))


class AnswerTests(SynchronousTestCase):
    """
    Tests for the checks' own reading of a response.
    """

    WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Response-ID:  abc \r\n\r\nbody"

    def test_pieces(self):
        """
        A response is waited for until it is whole, wherever it is cut.
        """
        for cut in range(len(self.WHOLE)):
            missing = parse_answer(self.WHOLE[:cut])
            assert isinstance(missing, int)
            self.assertLessEqual(missing, len(self.WHOLE) - cut)
        answer = parse_answer(self.WHOLE)
        assert isinstance(answer, Answer)
        self.assertEqual((answer.status, answer.body, answer.size), (200, b"body", len(self.WHOLE)))
        self.assertEqual(answer.headers["x-response-id"], "abc")

    def test_refused(self):
        """
        What is no response of the upstream's kind is refused with the reason.
        """
        for raw, words in [
            (self.WHOLE + b"x", "1 bytes follow"),
            (b"SSH-2.0-OpenSSH\r\n\r\n", "status line"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "no Content-Length"),
        ]:
            self.assertIn(words, str(self.assertRaises(ValueError, parse_answer, raw)))


class CaseTests(SynchronousTestCase):
    """
    Tests for the cases.
    """

    def test_bodies(self):
        """
        The answers have the sizes that the cases promise.
        """
        self.assertEqual((len(SMALL_BODY), len(LARGE_BODY)), (120, 65536))
        self.assertEqual(len(CASES["post10k"].make(0).body), 10240)

    def test_varied(self):
        """
        Varied requests differ in path, query and cookie.
        """
        first, second = (CASES["varied"].make(number) for number in (1, 2))
        for one, other in zip(first.target.split("?"), second.target.split("?"), strict=True):
            self.assertNotEqual(one, other)
        self.assertNotEqual(first.headers["Cookie"], second.headers["Cookie"])

    def test_script(self):
        """
        The load sends the headers that the checks send.
        """
        for case in CASES.values():
            for name, value in case.make(0).headers.items():
                self.assertIn(name, case.script)
                if name != "Cookie":
                    self.assertIn(value, case.script)

    def test_routes(self):
        """
        Requests to many routes go to different hosts, all of which are routed.
        """
        routed = {route_host(number) for number in range(1000)}
        asked = {CASES["routes1000"].make(number).host for number in range(200)}
        self.assertEqual(len(asked), 200)
        self.assertLessEqual(asked, routed)

    def test_encoding(self):
        """
        A checked request is a whole HTTP message and bears the mark by which the upstream's account knows it.
        """
        head, _, body = CASES["post10k"].make(0).encode(X_Verify="v1").partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"POST /post HTTP/1.1\r\nHost: bench.test\r\n"))
        self.assertIn(b"\r\nX-Verify: v1\r\n", head)
        self.assertTrue(head.endswith(b"\r\nContent-Length: 10240"))
        self.assertEqual(len(body), 10240)


class CandidateTests(SynchronousTestCase):
    """
    Tests for the configurations of the candidates.
    """

    def make_plan(self, routes=0, tls=False):
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        return Plan(directory, 8080, 9090, 64, routes, make_certificate(directory) if tls else None)

    def test_tls(self):
        """
        Each candidate that speaks TLS is given the certificate, and only then.
        """
        for candidate in (Gateway(), Nginx(), HAProxy(), Caddy()):
            for tls in (False, True):
                plan = self.make_plan(tls=tls)
                candidate.launch(plan)
                written = "".join(path.read_text() for path in plan.directory.iterdir() if not path.name.startswith("bench."))
                self.assertEqual(f"{plan.directory}/bench." in written, tls, candidate.name)

    def test_routes(self):
        """
        Each candidate that routes by host is given every host.
        """
        for candidate in (Gateway(), Nginx(), HAProxy()):
            plan = self.make_plan(routes=20)
            candidate.launch(plan)
            written = "".join(path.read_text() for path in plan.directory.iterdir())
            for number in range(20):
                self.assertIn(route_host(number), written)

    def test_command(self):
        """
        Another gateway's command gets the configuration at its end, or whatever it asks for by name, and keeps a log in the first case.
        """
        plan = self.make_plan()
        plain = Gateway("before", "/old/bin/a3s-gateway --log-level error").launch(plan)
        assert plain is not None
        self.assertEqual(plain.argv, ["/old/bin/a3s-gateway", "--log-level", "error", "--config", str(plan.directory / "before.hcl")])
        self.assertEqual(plain.access_log, plan.directory / "before.access")
        named = Gateway("sketch", "python sketch.py --to=127.0.0.1:{upstream} {port}").launch(plan)
        assert named is not None
        self.assertEqual(named.argv, ["python", "sketch.py", "--to=127.0.0.1:9090", "8080"])
        self.assertIsNone(named.access_log)

    def test_middlewares(self):
        """
        The gateway finds nothing wrong with any of the middlewares that are measured, and each is on the router.
        """
        for variation in (*ALL, REFUSED):
            plan = self.make_plan()
            Gateway(variation.name, variation=variation).launch(plan)
            result = load(str(plan.directory / f"{variation.name}.hcl"), {})
            self.assertEqual([str(problem) for problem in result.problems], [], variation.name)
            (router,) = result.valid_config().routers.values()
            self.assertEqual(len(router.middlewares), len(variation.blocks))

    def test_credentials(self):
        """
        Requests of the middlewares' case bear whatever any of them looks for, in the checks and in the load.
        """
        full, limited = middleware_cases()
        for variation in ALL:
            for name in variation.headers:
                self.assertIn(full.make(0).headers[name], full.script)
        self.assertTrue(limited.paced)
        self.assertEqual([variation.name for variation in choose_variations(["cors", "retry"])], ["cors", "retry"])
        self.assertIn("there is no corse", str(self.assertRaises(BenchError, choose_variations, ["corse"])))

    def test_cores(self):
        """
        The proxy shares its core only if there is no second, the load generator its own only if there is no third.
        """
        self.assertEqual(Cores.allot([3]), Cores(3, 3, 3))
        self.assertEqual(Cores.allot([5, 2]), Cores(2, 5, 5))
        self.assertEqual(Cores.allot([4, 0, 2, 6]), Cores(0, 2, 4))


class ReportTests(SynchronousTestCase):
    """
    Tests for the tables.
    """

    def test_summary(self):
        """
        A candidate is told by the median of its rounds and how far they lie apart.
        """
        summary = report.summarise([sample(cpu=1.0), sample(cpu=3.0, foreign=0.2), sample(cpu=1.5)])
        self.assertEqual((summary.cpu, summary.cpu_least, summary.cpu_greatest), (3e-5, 2e-5, 6e-5))
        self.assertEqual((summary.rate, summary.foreign), (25000, 0.2))

    def test_ratio(self):
        """
        The ratio is that of the medians; without a process, or without the reference, there is none.
        """
        twice, once, direct = (report.summarise([sample(cpu=cpu)]) for cpu in (2.0, 1.0, None))
        self.assertEqual(report.ratio(twice, once), 2.0)
        self.assertIsNone(report.ratio(direct, once))
        self.assertIsNone(report.ratio(twice, direct))
        self.assertIsNone(report.ratio(twice, None))

    def test_table(self):
        """
        The table has a line for each candidate, the ratio to nginx in it, and no figure where there is none.
        """
        summaries = {name: report.summarise([sample(cpu=cpu)]) for name, cpu in [("a3sgw", 1.75), ("nginx", 1.0), ("direct", None)]}
        _, gateway, nginx, direct, _ = report.case_table(summaries).splitlines()
        self.assertEqual(gateway.split(), ["a3sgw", "35.0", "35.0-35.0", "1.75", "10.0", "25,000", "50%", "1.00", "9.00", "1%"])
        self.assertEqual(nginx.split()[:4], ["nginx", "20.0", "20.0-20.0", "1.00"])
        self.assertEqual(direct.split()[:5], ["direct", "-", "-", "-", "-"])

    def test_reference(self):
        """
        The candidates can be compared with another one than nginx.
        """
        summaries = {name: report.summarise([sample(cpu=cpu)]) for name, cpu in [("a3sgw", 2.0), ("cors", 2.2)]}
        head, plain, cors, _ = report.case_table(summaries, reference="a3sgw").splitlines()
        self.assertIn("x a3sgw", head)
        self.assertEqual((plain.split()[3], cors.split()[3]), ("1.00", "1.10"))
        self.assertEqual(report.case_json({"a3sgw": [sample()], "cors": [sample()]}, reference="a3sgw")["cors"]["ratio_to_a3sgw"], 1.0)

    def test_json(self):
        """
        The JSON form has the same figures, and each round's.
        """
        told = report.case_json({"a3sgw": [sample(cpu=3.0), sample(cpu=1.0), sample(cpu=2.0)], "nginx": [sample(cpu=1.0)]})
        self.assertEqual(told["a3sgw"]["cpu_us_per_request"], 40.0)
        self.assertEqual(told["a3sgw"]["ratio_to_nginx"], 2.0)
        self.assertEqual([of_round["cpu_us_per_request"] for of_round in told["a3sgw"]["rounds"]], [60.0, 20.0, 40.0])
        json.dumps(told)

    def test_noise(self):
        """
        Who was measured on a busy core is named; a quiet run gets no warning, and nobody is measured in a direct connection.
        """
        quiet, loud = report.summarise([sample(foreign=0.02)]), report.summarise([sample(foreign=0.4)])
        self.assertIsNone(report.noise_note({"a3sgw": quiet, "direct": report.summarise([sample(cpu=None, foreign=0.9)])}))
        self.assertIn("nginx 40%", report.noise_note({"a3sgw": quiet, "nginx": loud}) or "")


class CommandTests(SynchronousTestCase):
    """
    Tests for the command line.
    """

    def test_refused(self):
        """
        Bad arguments end the command with status 2 and a message that names what is wrong.
        """
        for arguments, words in [
            (["--cases", "same,fast"], "no case 'fast'"),
            (["--seconds", "0"], "'0' is not a positive whole number"),
            (["--also", "before"], "'before' is not NAME=COMMAND"),
            (["--idle", "10", "--soak", "10"], "not allowed with"),
        ]:
            errors = io.StringIO()
            with contextlib.redirect_stderr(errors):
                self.assertEqual(self.assertRaises(SystemExit, parse_arguments, arguments).code, 2)
            self.assertIn(words, errors.getvalue())

    def test_candidates(self):
        """
        The candidates take turns in a fixed order, further gateways right after this one.
        """
        names = list(candidates(["before=/old/bin/a3s-gateway"]))
        self.assertEqual(names, ["a3sgw", "before", "nginx", "haproxy", "caddy", "twisted.web", "direct"])

    def test_choose(self):
        """
        Only those asked for are measured; an unknown name is refused, and one that cannot be found is left out with the reason.
        """
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            chosen, left_out = choose(parse_arguments(["--only", "direct,before", "--also", "before=/no/such/gateway"]))
            self.assertRaises(BenchError, choose, parse_arguments(["--only", "apache"]))
            strict = ["--only", "direct,before", "--also", "before=/no/such/gateway", "--require-all"]
            self.assertRaises(BenchError, choose, parse_arguments(strict))
        self.assertEqual([candidate.name for candidate in chosen], ["direct"])
        self.assertEqual(left_out, {"before": "/no/such/gateway not found"})
        self.assertIn("before: /no/such/gateway not found, skipped", output.getvalue())


class ClientTests(SynchronousTestCase):
    """
    Tests for the memory of a rate limit.
    """

    def test_remembered(self):
        """
        Of more clients than may be remembered, no more are.
        """
        point = measure_clients(300, 100)
        self.assertEqual((point["clients"], point["remembered"]), (300, 100))
        self.assertIsNone(doubt_memory(point))

    def test_doubt(self):
        """
        A limit that remembers more than it may, or needs more memory for it than it should, voids the run.
        """
        point = {"max_clients": 100_000, "remembered": 100_000, "grown_bytes": 30 << 20}
        self.assertIsNone(doubt_memory(point))
        self.assertIn("100,001 clients", doubt_memory({**point, "remembered": 100_001}) or "")
        self.assertIn("memory grew by 41,943,040 bytes", doubt_memory({**point, "grown_bytes": 40 << 20}) or "")


class WorkersTests(SynchronousTestCase):
    """
    What workers carry.
    """

    def test_capacity(self):
        """
        Two carry twice what one does if a request costs the same and they share evenly; else less. A round is compared within itself.
        """
        self.assertEqual(capacities(2, [30.0], [30.0], share_evenness([5.0, 5.0])), [2.0])
        self.assertEqual(capacities(2, [30.0, 60.0], [40.0, 80.0], share_evenness([5.0, 5.0])), [1.5, 1.5])
        self.assertEqual(capacities(4, [30.0], [30.0], share_evenness([8.0, 0.0, 0.0, 0.0])), [1.0])

    def test_configuration(self):
        """
        Each number of workers is what the configuration asks for, and none is left to the default.
        """
        plan = Plan(Path(self.mktemp()), 8080, 8081, 64, 0, None)
        plan.directory.mkdir()
        for count, name in enumerate(("one", "two", "three"), 1):
            self.assertIsNotNone(Gateway(name, workers=count).launch(plan))
            loaded = load(str(plan.directory / f"{name}.hcl"), {})
            self.assertEqual((loaded.problems, loaded.valid_config().workers), ((), count))


class MicroTests(SynchronousTestCase):
    """
    Tests for the micro benchmarks.
    """

    def test_time(self):
        """
        The time of one call is the clock's divided by the calls between its readings.
        """
        calls: list[int] = []
        # Each reading of the clock is one second after the last, so the first trial is long enough.
        ticks = iter(range(100))
        piece = Piece("p", lambda: (calls.append, [1, 2, 3, 4], lambda result: result is None))
        self.assertEqual(time_piece(piece, 3, clock=lambda: next(ticks)), [0.25, 0.25, 0.25])
        self.assertEqual(len(calls), 4 * 5)

    def test_difference(self):
        """
        What a piece costs that cannot be called alone is the time with it, less the best time without it.
        """
        now = [0.0]

        def work(given):
            now[0] += given

        piece = Piece("p", lambda: (work, [1.0, 1.5], lambda _: True), lambda: (work, [0.75, 0.25], lambda _: True))
        self.assertEqual(time_piece(piece, 2, clock=lambda: now[0]), [0.75, 0.75])

    def test_wrong(self):
        """
        A piece that gives a wrong result is not timed.
        """
        piece = Piece("doubling", lambda: (lambda given: given * 2, [1, 2, 0], bool))
        self.assertIn("doubling", str(self.assertRaises(AssertionError, time_piece, piece, 1)))

    def test_strategies(self):
        """
        Every strategy is measured, among few servers and among many.
        """
        names = {piece.name for piece in PIECES}
        for strategy in STRATEGIES:
            self.assertLessEqual({f"choose: {strategy}, 10", f"choose: {strategy}, 1,000"}, names)

    def test_pieces(self):
        """
        Every piece of this checkout can be set up and gives right results.
        """
        for piece in PIECES:
            if "10,000" in piece.name:
                continue  # The same as with fewer, and slow to set up.
            self.assertEqual(len(time_piece(piece, 1, clock=iter(range(10)).__next__)), 1)
