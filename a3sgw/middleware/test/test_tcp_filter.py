"""
Tests of `tcp-filter`.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.address import pack_address
from a3sgw.errors import Outcome
from a3sgw.interfaces import IConnectionGate, IStateSource
from a3sgw.loading import load_string
from a3sgw.middleware import tcp_filter
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.tcp_filter import TcpFilter, TcpFilterConfig
from a3sgw.middleware.test.dialogues import OK, request
from a3sgw.proxy.test.dialogues import DialogueCase, config
from a3sgw.testing import middleware_contract

TWO = "max_connections = 2"
INSIDE = 'allowed_ips = ["192.0.2.0/24", "2001:db8::/32"]'


def make(**attributes):
    """
    Return a filter.
    """
    return TcpFilter(TcpFilterConfig(name="f", **attributes), still_surroundings('entrypoint "web"'))


class FilterMachine(RuleBasedStateMachine):
    """
    Connections come and go beside a plain count of them.
    """

    PEERS = (pack_address("192.0.2.1"), pack_address("198.51.100.1"))

    def __init__(self):
        super().__init__()
        self.gate = make(max_connections=3, allowed_ips=("192.0.2.0/24",))
        self.inside = []

    @rule(peer=st.sampled_from(PEERS))
    def come(self, peer):
        expected = Outcome.ADDRESS_REFUSED if peer == self.PEERS[1] else Outcome.CONNECTION_LIMIT if len(self.inside) == 3 else None
        assert self.gate.admit(peer) is expected
        if expected is None:
            self.inside.append(peer)

    @rule()
    def go(self):
        if self.inside:
            self.gate.connection_ended(self.inside.pop())

    @invariant()
    def counts(self):
        assert self.gate.describe() == {"connections": len(self.inside)}


class TcpFilterContract(middleware_contract(tcp_filter.factory, "max_connections = 2")):
    """
    `tcp-filter` is a middleware.
    """


class TcpFilterTests(SynchronousTestCase):
    """
    The filter itself.
    """

    def test_interfaces(self):
        """A filter decides about connections, and tells how many there are."""
        verifyObject(IConnectionGate, make(max_connections=1))
        verifyObject(IStateSource, make(max_connections=1))

    def test_addresses(self):
        """Only who is allowed may connect; an IPv4 address in IPv6 form is one."""
        gate = make(allowed_ips=("192.0.2.0/24", "2001:db8::/32"))
        for peer in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"):
            self.assertIsNone(gate.admit(pack_address(peer)), peer)
        for peer in ("198.51.100.1", "::ffff:198.51.100.1", "::1"):
            self.assertIs(gate.admit(pack_address(peer)), Outcome.ADDRESS_REFUSED, peer)
        self.assertEqual(gate.describe(), {"connections": 3})

    def test_unknown_peer(self):
        """Somebody without an address is on no list, and is counted like everybody where there is none."""
        self.assertIs(make(allowed_ips=("0.0.0.0/0", "::/0")).admit(b""), Outcome.ADDRESS_REFUSED)
        self.assertIsNone(make(max_connections=1).admit(b""))

    def test_limit(self):
        """At the limit nobody comes in until somebody leaves; 0 lets nobody in at all."""
        gate = make(max_connections=1)
        self.assertEqual([gate.admit(b"1234"), gate.admit(b"1234")], [None, Outcome.CONNECTION_LIMIT])
        gate.connection_ended(b"1234")
        self.assertEqual([gate.admit(b"5678"), gate.admit(b"5678")], [None, Outcome.CONNECTION_LIMIT])
        self.assertIs(make(max_connections=0).admit(b"1234"), Outcome.CONNECTION_LIMIT)

    def test_strangers_take_no_place(self):
        """Who is not allowed is told so even when it is full, and does not fill it."""
        gate = make(max_connections=1, allowed_ips=("192.0.2.1",))
        for _ in range(3):
            self.assertIs(gate.admit(pack_address("192.0.2.2")), Outcome.ADDRESS_REFUSED)
        self.assertIsNone(gate.admit(pack_address("192.0.2.1")))
        self.assertIs(gate.admit(pack_address("192.0.2.2")), Outcome.ADDRESS_REFUSED)

    def test_repr(self):
        """A filter shows how it stands."""
        self.assertEqual(repr(make(max_connections=2)), "<TcpFilter 0 open, at most 2, for None>")

    def test_any_order(self):
        """The count is right whatever the order of events."""
        run_state_machine_as_test(FilterMachine, settings=settings(max_examples=20, stateful_step_count=20, deadline=None))


class EntrypointTests(DialogueCase):
    """
    On an entrypoint.
    """

    def begin(self, *attributes, more="", entrypoint=""):
        """
        Begin a dialogue at an entrypoint that lists filters with these attributes.
        """
        return self.converse(**self.settings(*attributes, more=more, entrypoint=entrypoint))

    def settings(self, *attributes, more="", entrypoint=""):
        names = [f"f{number}" for number in range(1, len(attributes) + 1)]
        blocks = [f'middlewares "{name}" {{\ntype = "tcp-filter"\n{text}\n}}' for name, text in zip(names, attributes, strict=True)]
        listed = ", ".join(f'"{name}"' for name in names)
        return {"entrypoint": f"middlewares = [{listed}]\n{entrypoint}", "more": "\n".join([*blocks, more])}

    def state(self):
        """
        Return what each filter tells of itself.
        """
        told = []
        self.dialogue.carrier.snapshot().addCallback(told.append)
        return [row["state"]["connections"] for row in told[0]["gauges"]["middlewares"]]

    def refused(self):
        told = []
        self.dialogue.carrier.snapshot().addCallback(told.append)
        return {reason: count for _, reason, count in told[0]["gauges"]["refused"]}

    def assert_served(self, client):
        self.say(client, request())
        self.say(self.dialogue.backend(), OK)
        self.dialogue.backend().take()
        self.assertEqual(self.hear(client), OK)

    def test_limit(self):
        """One connection more than the limit is answered 503 and counted; one that ends makes room."""
        self.begin(TWO)
        other = self.dialogue.connect()
        third = self.dialogue.connect()
        heard = self.hear(third)
        self.assertTrue(heard.startswith(b"HTTP/1.1 503 "), heard)
        self.assertIn(b'"reason": "connection-limit"', heard)
        self.assertTrue(third.has_ended)
        self.assert_served(other)
        self.assertEqual((self.state(), self.refused()), ([2], {"connection-limit": 1}))
        other.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.state(), [1])
        last = self.dialogue.connect()
        self.assert_served(last)
        last.close()

    def test_addresses(self):
        """A stranger's connection is answered 403 and counted."""
        self.begin(INSIDE)
        heard = self.hear(self.dialogue.connect("198.51.100.1"))
        self.assertTrue(heard.startswith(b"HTTP/1.1 403 "), heard)
        self.assertEqual(self.refused(), {"address-refused": 1})
        self.assert_served(self.client)

    def test_forwarded_addresses(self):
        """What a peer says of others does not count."""
        self.begin(INSIDE, entrypoint='forwarded_headers { trusted_ips = ["192.0.2.0/24"] }')
        self.say(self.client, request("GET", "/", "X-Forwarded-For: 198.51.100.1"))
        self.say(self.dialogue.backend(), OK)
        self.assertEqual(self.hear(self.client), OK)

    def test_not_a_part_of_chains(self):
        """Requests do not pass it: its work is done when they come."""
        self.begin(TWO)
        (plan,) = self.dialogue.carrier.generation().doors.values()
        route = self.dialogue.carrier.generation().parts
        self.assertEqual(len(plan.gates.hooks), 1)
        self.assertEqual([key for key in route if key[0] == "chain"], [])

    def test_several(self):
        """Of several filters each is asked; who is turned away by one takes no place in another."""
        self.begin(TWO, INSIDE)
        for _ in range(5):
            self.assertTrue(self.hear(self.dialogue.connect("198.51.100.1")).startswith(b"HTTP/1.1 403 "))
        self.assertEqual(self.state(), [1, 1])

    def test_reload(self):
        """A reload that does not touch it keeps its count; who was inside makes room when they leave."""
        self.begin(TWO)
        other = self.dialogue.connect()
        self.dialogue.reload(config(**self.settings(TWO, more='middlewares "x" {\ntype = "ip-allow"\nallowed_ips = ["::1"]\n}')))
        self.assertEqual(self.state(), [2])
        self.assertTrue(self.hear(self.dialogue.connect()).startswith(b"HTTP/1.1 503 "))
        other.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.state(), [1])

    def test_changed(self):
        """A changed limit counts from the connections that come after it, and those from before do not disturb it when they end."""
        self.begin(TWO)
        other = self.dialogue.connect()
        self.dialogue.reload(config(**self.settings("max_connections = 1")))
        self.assertEqual(self.state(), [0])
        new = self.dialogue.connect()
        self.assert_served(new)
        self.assertTrue(self.hear(self.dialogue.connect()).startswith(b"HTTP/1.1 503 "))
        other.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.state(), [1])
        new.close()
        self.dialogue.reactor.settle()
        self.assertEqual(self.state(), [0])

    def test_every_end(self):
        """However connections end, none is counted afterwards."""
        self.begin("max_connections = 10")
        ends = [self.dialogue.connect() for _ in range(4)]
        self.assertEqual(self.state(), [5])
        ends[0].close()
        self.say(ends[1], b"nonsense\r\n\r\n")
        ends[1].close()
        self.say(ends[2], request("GET", "/", "Connection: close"))
        self.say(self.dialogue.backend(), OK)
        ends[2].close()
        self.say(ends[3], b"GET / HT")
        self.dialogue.reactor.advance(200)
        self.assertEqual((self.state(), len(self.dialogue.door().connections)), ([0], 0))


class RuleTests(SynchronousTestCase):
    """
    Where it may stand, and what it needs.
    """

    def problems(self, attributes="max_connections = 1", router="", more="", entrypoint=""):
        text = config(more=f'middlewares "f" {{\n type = "tcp-filter"\n {attributes}\n}}\n{more}', entrypoint=entrypoint)
        text = text.replace("middlewares = []", f"middlewares = [{router}]", 1)
        return [str(problem) for problem in load_string(text, "gw.hcl", {}).problems]

    def test_not_on_routers(self):
        """C28: on a router of an http entrypoint it would do nothing, so it is refused there."""
        self.assertEqual(self.problems(entrypoint='middlewares = ["f"]'), [])
        text = 'router "app" lists "f", but "tcp-filter" decides about connections; list it on an entrypoint'
        self.assertEqual(self.problems(router='"f"'), [f"gw.hcl:9:18: {text}"])

    def test_attributes(self):
        """It filters something, by numbers and addresses that can be."""
        for attributes, text in [
            ("", 'gw.hcl:12:1: middleware "f" filters nothing; give max_connections or allowed_ips'),
            ("max_connections = -1", "gw.hcl:14:20: middlewares.f.max_connections is -1, which is not from 0 to 4294967295"),
            ("allowed_ips = []", "gw.hcl:14:16: middlewares.f.allowed_ips is an empty list, expected at least one item"),
            ('allowed_ips = ["a.test"]', 'gw.hcl:14:17: middlewares.f.allowed_ips[0] is "a.test"'),
        ]:
            (problem,) = self.problems(attributes)
            self.assertTrue(problem.startswith(text), problem)
