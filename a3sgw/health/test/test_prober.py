"""
Tests of all probes of a configuration.
"""

import random

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from a3sgw.config.model import UpstreamTlsConfig
from a3sgw.health.prober import Prober
from a3sgw.health.test.questions import FixedChance, NetworkCase
from a3sgw.loading import load_string
from a3sgw.proxy.outbound_tls import Terms
from a3sgw.proxy.test.certificates import Authority
from a3sgw.proxy.test.dialogues import OK, response
from a3sgw.proxy.test.http2_peers import Http2Backend
from a3sgw.proxy.test.leases import ADDRESS
from a3sgw.proxy.test.test_outbound_tls import TlsServer

AUTHORITY = Authority()

DOWN = response("503 x", "Content-Length: 0")
CHECK = 'path = "/ready"\n interval = "10s"\n timeout = "2s"\n unhealthy_threshold = 2'


def service(name, *urls, check=CHECK, extra=""):
    servers = ", ".join(f'{{ url = "{url}" }}' for url in urls)
    checked = f"health_check {{\n {check}\n }}" if check else ""
    return f'services "{name}" {{\n load_balancer {{\n servers = [{servers}]\n {checked}\n }}\n {extra}\n}}\n'


def load(*services):
    text = 'entrypoints "web" {\n address = ":80"\n}\n' + "".join(services)
    return load_string(text, "test.hcl", {}).valid_config()


class ProberCase(NetworkCase):
    """
    A prober, and what it has told.
    """

    def setUp(self):
        super().setUp()
        self.told = []
        self.chance = FixedChance(0.5)
        self.files = b"1"
        self.terms_read = []
        self.terms = Terms([AUTHORITY.certificate])
        self.prober = Prober(
            self.reactor, self.dialer, lambda *told: self.told.append(told), self.terms_of, lambda _: self.files, self.chance
        )

    def terms_of(self, service):
        self.terms_read.append(service.name)
        return self.terms

    def tearDown(self):
        self.prober.stop()
        super().tearDown()

    def take(self, *services):
        self.prober.take(self.prober.prepare(load(*services)))
        self.reactor.settle()

    def asked(self):
        """
        Let all connection attempts succeed; return the server's ends of the questions under way, by what is asked.
        """
        while self.dialer.questions:
            self.dialer.answer(ADDRESS)
        peers = {}
        while self.dialer.attempts:
            peer = self.dialer.attempts[0].succeed()
            self.reactor.settle()
            line, host = peer.take().split(b"\r\n")[:2]
            peers[f"{host.decode()[6:]} {line.decode()[4:-9]}"] = peer
        return peers

    def next_asked(self):
        """
        Let time pass until the next questions; return the server's ends of them.
        """
        for _ in range(24):
            self.reactor.advance(0.5)
            asked = self.asked()
            if asked:
                return asked
        return {}

    def round(self, **answers):
        """
        Answer the next questions: `OK`, or by server as `answers` say. Return what was asked.
        """
        asked = self.next_asked()
        for question, peer in asked.items():
            self.say(peer, answers.get(question.partition(".")[0], OK))
        return sorted(asked)


class TargetTests(ProberCase):
    """
    Who is probed, and how.
    """

    def test_every_server(self):
        """Each server of each service with a health check is probed, beside all others, and others are not."""
        self.take(
            service("one", "http://a.test", "http://b.test/v1", check='path = "/ready"'),
            service("two", "http://a.test", check='path = "/other"'),
            service("three", "http://c.test", check=None),
        )
        self.reactor.advance(1)
        self.assertEqual(sorted(self.asked()), ["a.test /other", "a.test /ready", "b.test /v1/ready"])

    def test_revisions(self):
        """So is each server of each revision, and what is told says which."""
        revisions = "".join(
            f'revisions {{\n name = "{name}"\n traffic_percent = 50\n servers = [{{ url = "http://{url}" }}]\n }}\n'
            for name, url in (("v1", "a.test"), ("v2", "b.test"))
        )
        self.take(service("app", extra=revisions))
        for _ in range(2):
            self.assertEqual(self.round(b=DOWN), ["a.test /ready", "b.test /ready"])
        self.assertEqual(self.told, [("app", "v2", "http://b.test", False, "2 probes in a row failed, at last: status 503")])

    def test_listed_twice(self):
        """A server that is listed twice is asked once."""
        self.take(service("app", "http://a.test", "http://a.test"))
        self.assertEqual(self.round(), ["a.test /ready"])

    def test_drains(self):
        """A server that drains is probed too."""
        self.take(service("app", "http://a.test").replace('a.test"', 'a.test", state = "drain"'))
        self.assertEqual(self.round(), ["a.test /ready"])

    def test_connect_only(self):
        """With `protocol = "tcp"` the server is connected to and asked nothing."""
        self.take(service("app", "http://a.test", check='protocol = "tcp"'))
        self.reactor.advance(1)
        peer = self.accept()
        self.assertEqual((peer.take(), peer.has_ended), (b"", True))

    def test_grpc(self):
        """With `protocol = "grpc"` the server's health service is called."""
        self.take(service("app", "h2c://a.test", check='protocol = "grpc"'))
        self.reactor.advance(1)
        peer = Http2Backend(self.accept(), self.reactor)
        peer.listen()
        self.assertIn((b":path", b"/grpc.health.v1.Health/Check"), peer.requests[1])
        peer.head(1, ("grpc-status", "12"), ended=True)
        self.reactor.advance(20)
        self.assertEqual(len(self.dialer.attempts) + len(self.dialer.questions), 1)
        self.prober.take({})

    def test_thresholds(self):
        """How many answers in a row change the verdict is as configured."""
        self.take(service("app", "http://a.test", check=f"{CHECK}\n healthy_threshold = 3"))
        for answer, count in [(DOWN, 0), (DOWN, 1), (OK, 1), (OK, 1), (OK, 2)]:
            self.round(a=answer)
            self.assertEqual(len(self.told), count)
        self.assertEqual([told[3] for told in self.told], [False, True])


class TlsTests(ProberCase):
    """
    Servers that are asked over TLS.
    """

    def setUp(self):
        super().setUp()
        self.config = load(service("app", "https://a.test", "https://b.test"), service("other", "http://a.test", check=None))

    def with_tls(self, server_name):
        """
        Return the configuration with other terms for TLS.
        """
        services = self.config.services
        changed = attrs.evolve(services["app"], upstream_tls=UpstreamTlsConfig(server_name=server_name))
        return attrs.evolve(self.config, services=services.updated({"app": changed}))

    def take_config(self, config):
        self.prober.take(self.prober.prepare(config))

    def converse(self, answer, host="a.test"):
        """
        Let both servers be asked; return whether the one at `host` was trusted with a question, which it answers.
        """
        for _ in range(24):
            self.reactor.advance(0.5)
            if self.dialer.questions:
                break
        heard = []
        for asked, *_ in list(self.dialer.questions):
            self.dialer.answer(ADDRESS)
            peer = TlsServer(self.dialer.attempts[0].succeed(), self.reactor, AUTHORITY.issue(host))
            heard.append((asked, peer.take()))
            if heard[-1][1]:
                peer.send(answer)
                peer.work()
        return [host for host, said in heard if said.startswith(b"GET /ready ")]

    def test_terms(self):
        """A server that proves who it is, as its service wants it, is asked; another is not well."""
        self.take_config(self.config)
        for _ in range(2):
            self.assertEqual(self.converse(OK), ["a.test"])
        self.assertEqual(self.told, [("app", None, "https://b.test", False, "2 probes in a row failed, at last: connect-failed")])
        self.assertEqual(self.terms_read, ["app"])

    def test_other_terms(self):
        """After a reload the new terms hold, and what was thought of the servers is not forgotten."""
        self.take_config(self.config)
        for _ in range(2):
            self.converse(OK)
        self.terms = Terms([AUTHORITY.certificate], server_name="a.test")
        self.take_config(self.with_tls("a.test"))
        self.assertEqual(self.converse(OK), ["a.test", "b.test"])
        self.assertEqual([told[3] for told in self.told], [False, False, True])

    def test_files(self):
        """Files are read again after a reload if they have changed, and only then."""
        for files, count in [(b"1", 1), (b"1", 1), (b"2", 2)]:
            self.files = files
            self.take_config(self.with_tls("a.test"))
            self.assertEqual(len(self.terms_read), count)

    def test_terms_that_cannot_be(self):
        """If the terms cannot be read, nothing of what runs has changed."""
        self.take_config(self.config)
        self.prober._terms_of = lambda service: 1 // 0
        self.assertRaises(ZeroDivisionError, self.prober.prepare, self.with_tls("a.test"))
        self.assertEqual(self.converse(OK), ["a.test"])


class TimeTests(ProberCase):
    """
    When servers are probed.
    """

    def test_first_round(self):
        """The first questions come at once, spread over a second, or over the interval if that is shorter."""
        for interval, chance, delay in [("10s", 0.0, 0.0), ("10s", 0.5, 0.5), ("10s", 0.999, 0.999), ("200ms", 0.5, 0.1)]:
            self.chance.value = chance
            self.take(service("app", "http://a.test", check=f'path = "/"\n interval = "{interval}"'))
            (call,) = [call for call in self.reactor.getDelayedCalls() if call.func.__name__ == "_ask"] or [None]
            begun = 0.0 if call is None else call.getTime() - self.reactor.seconds()
            self.assertAlmostEqual(begun, delay)
            self.prober.stop()
            self.dialer.questions.clear()

    def test_nobody_waits_for_another(self):
        """A server that does not answer delays no other, and is asked again when its own time is over."""
        self.take(service("app", "http://a.test", "http://b.test", check='path = "/"\n interval = "1s"\n timeout = "5s"'))
        self.reactor.advance(1)
        slow = self.asked()
        self.assertEqual(sorted(slow), ["a.test /", "b.test /"])
        self.say(slow["b.test /"], OK)
        for _ in range(3):
            self.reactor.advance(1.2)
            asked = self.asked()
            self.assertEqual(sorted(asked), ["b.test /"])
            self.say(asked["b.test /"], OK)
        self.reactor.advance(2.5)
        self.assertEqual(sorted(self.asked()), ["a.test /", "b.test /"])
        self.assertTrue(slow["a.test /"].was_reset)

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(st.integers(0, 2**32), st.integers(1, 600))
    def test_spread(self, seed, interval):
        """No question comes sooner or later than a tenth of the interval off, whatever chance says."""
        self.setUp()
        self.prober._chance = random.Random(seed)
        self.take(service("app", "http://a.test", check=f'protocol = "tcp"\n interval = "{interval}s"'))
        self.reactor.advance(1.1)
        self.refuse()
        before = self.reactor.seconds()
        (call,) = [call for call in self.reactor.getDelayedCalls() if call.func.__name__ == "_ask"]
        self.assertTrue(0.9 * interval - 1e-6 <= call.getTime() - before <= 1.1 * interval + 1e-6)
        self.prober.stop()


class ReloadTests(ProberCase):
    """
    One configuration after another.
    """

    def test_unchanged(self):
        """A probe that nothing has changed about goes on with what it has seen, also while it waits for an answer."""
        self.take(service("app", "http://a.test", "http://b.test"))
        self.round(a=DOWN)
        self.take(service("app", "http://a.test", "http://c.test"))
        self.assertEqual(self.round(), ["c.test /ready"], "only the new one is asked at once")
        self.assertEqual((self.round(a=DOWN), len(self.told)), (["a.test /ready"], 1))
        self.assertEqual(self.told, [("app", None, "http://a.test", False, "2 probes in a row failed, at last: status 503")])
        self.take(service("app", "http://a.test"))
        asked = self.next_asked()
        self.take(service("app", "http://a.test"), service("new", "http://b.test"))
        self.say(asked["a.test /ready"], OK)
        self.assertEqual(self.told[-1], ("app", None, "http://a.test", True, "1 probe in a row succeeded"))

    def test_told_again(self):
        """After a reload everybody hears again of each server that is unhealthy, and of no other."""
        self.take(service("app", "http://a.test", "http://b.test"))
        for _ in range(2):
            self.round(a=DOWN)
        before, self.told[:] = list(self.told), []
        self.take(service("app", "http://a.test", "http://b.test"), service("new", "http://a.test"))
        self.assertEqual(self.told, before)
        self.assertEqual(len(before), 1)

    def test_other_check(self):
        """With another health check a server is healthy until the new probes say something else."""
        self.take(service("app", "http://a.test"))
        for _ in range(2):
            self.round(a=DOWN)
        self.told.clear()
        self.take(service("app", "http://a.test", check=CHECK.replace("10s", "9s")))
        for _ in range(2):
            self.assertEqual(self.told, [])
            self.round(a=DOWN)
        self.assertEqual(len(self.told), 1)

    def test_removed(self):
        """A probe that is not wanted any more ends at once, in a pause or in the middle of a question."""
        self.take(service("app", "http://a.test", "http://b.test"))
        self.reactor.advance(1)
        asked = self.asked()
        self.say(asked["b.test /ready"], OK)
        self.take(service("app", "http://c.test", check=None))
        self.assertTrue(asked["a.test /ready"].was_reset)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.take(service("app", "http://a.test"))
        self.assertEqual(self.round(), ["a.test /ready"])

    def test_prepared_in_vain(self):
        """What is prepared and not taken has no effect."""
        self.take(service("app", "http://a.test"))
        self.prober.prepare(load(service("app", "http://b.test")))
        self.assertEqual(self.round(), ["a.test /ready"])

    def test_stop(self):
        """In the end nothing is left, however far the questions have come, and ending twice does no harm."""
        self.take(*(service(f"s{number}", f"http://s{number}.test") for number in range(3)))
        self.reactor.advance(1)
        self.dialer.answer(ADDRESS)
        peer = self.dialer.attempts[0].succeed()
        self.dialer.answer(ADDRESS)
        self.reactor.settle()
        self.prober.stop()
        self.assertTrue(peer.was_reset)
        self.prober.stop()

    def test_repr(self):
        """A prober says how many servers it probes, and how many of them are unhealthy."""
        self.assertEqual(repr(self.prober), "<Prober 0 servers, 0 unhealthy>")
        self.take(service("app", "http://a.test", "http://b.test"))
        for _ in range(2):
            self.round(a=DOWN)
        self.assertEqual(repr(self.prober), "<Prober 2 servers, 1 unhealthy>")
