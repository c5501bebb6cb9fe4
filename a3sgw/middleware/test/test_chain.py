"""
Tests of chains: what is compiled from which phases, and who hears of a request that passed a part of the way.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer, provider

from a3sgw.interfaces import (
    IAttemptHook,
    IBackendHook,
    IBodyFilterSource,
    ICompletionHook,
    IConnectionGate,
    IIdentitySource,
    IRequestBodyHook,
    IRequestHook,
    IResponseHook,
)
from a3sgw.message import make_field
from a3sgw.middleware.chain import Chain, Link, without_identity
from a3sgw.proxy.test.probes import Probe


@implementer(IRequestHook)
class Asking:
    """
    Looks at requests and nothing else.
    """

    def on_request(self, exchange):
        return None


@implementer(IResponseHook, ICompletionHook)
class Listening:
    """
    Hears of responses and ends.
    """

    def on_response(self, exchange, head):
        return None

    def on_complete(self, exchange):
        pass


@implementer(IConnectionGate)
class Gate:
    """
    Decides about connections, which are no business of a chain.
    """

    def admit(self, peer_packed):
        return None

    def connection_ended(self, peer_packed):
        pass


class Naming:
    """
    Sets some fields.
    """

    def __init__(self, *names):
        self.identity_fields = frozenset(names)


implementer(IIdentitySource)(Naming)


def chain(*middlewares):
    """
    Return a chain of `middlewares` called `m0`, `m1` and so on, with `s0`, `s1` and so on for their series.
    """
    return Chain([Link(f"m{number}", type(each).__name__, each, f"s{number}") for number, each in enumerate(middlewares)])


class PhaseTests(SynchronousTestCase):
    """
    A chain asks each middleware once which phases it has.
    """

    def test_empty(self):
        """A chain of nothing has one row of nothing for each later phase."""
        empty = chain()
        self.assertEqual((empty.length, empty.links, empty.requests, empty.bodies, empty.attempts, empty.backends), (0, (), (), (), (), ()))
        self.assertEqual((empty.responses, empty.filters, empty.completions, empty.series), (((),), ((),), ((),), ((),)))
        self.assertEqual(empty.identity, frozenset())

    def test_every_phase(self):
        """Who has every phase is asked in every phase."""
        probe = Probe("x")
        compiled = chain(probe)
        self.assertEqual(compiled.requests, ((0, probe.on_request),))
        self.assertEqual(compiled.bodies, (probe.on_request_body,))
        self.assertEqual(compiled.attempts, (probe.on_attempt_failed,))
        self.assertEqual(compiled.backends, (probe,))
        self.assertEqual(compiled.responses[1], (probe.on_response,))
        self.assertEqual(compiled.filters[1], (probe.body_filter,))
        self.assertEqual(compiled.completions[1], (probe.on_complete,))
        for phase in (IAttemptHook, IBackendHook, IBodyFilterSource, ICompletionHook, IRequestBodyHook, IRequestHook, IResponseHook):
            self.assertTrue(phase.providedBy(probe))

    def test_only_what_is_provided(self):
        """A phase that a middleware does not provide costs nothing, even if it has a method of that name."""
        asking, listening, gate = Asking(), Listening(), Gate()
        asking.on_complete = asking.on_response = lambda *given: None
        compiled = chain(asking, listening, gate)
        self.assertEqual(compiled.requests, ((0, asking.on_request),))
        self.assertEqual((compiled.bodies, compiled.attempts, compiled.backends), ((), (), ()))
        self.assertEqual(compiled.responses[-1], (listening.on_response,))
        self.assertEqual(compiled.completions[-1], (listening.on_complete,))
        self.assertEqual(compiled.filters, ((),) * 4)

    def test_provided_by_an_object(self):
        """What counts is the object: a module or a class may be a middleware too."""

        @provider(IRequestHook)
        class Module:
            @staticmethod
            def on_request(exchange):
                return None

        self.assertEqual(chain(Module).requests, ((0, Module.on_request),))

    def test_positions(self):
        """A request hook stands with the number of middlewares before it, with and without such hooks of their own."""
        asking = [Asking(), Asking()]
        compiled = chain(Listening(), asking[0], Listening(), Listening(), asking[1])
        self.assertEqual(compiled.requests, ((1, asking[0].on_request), (4, asking[1].on_request)))


class OrderTests(SynchronousTestCase):
    """
    Requests pass in the listed order, responses in reverse; who let a request pass hears of it, and nobody else.
    """

    def test_orders(self):
        """The table of phases and their orders."""
        one, two, three = probes = [Probe(name) for name in "123"]
        compiled = chain(*probes)
        self.assertEqual(compiled.requests, tuple(enumerate([one.on_request, two.on_request, three.on_request])))
        self.assertEqual(compiled.bodies, (one.on_request_body, two.on_request_body, three.on_request_body))
        self.assertEqual(compiled.attempts, (one.on_attempt_failed, two.on_attempt_failed, three.on_attempt_failed))
        self.assertEqual(compiled.backends, (one, two, three))
        self.assertEqual(compiled.responses[3], (three.on_response, two.on_response, one.on_response))
        self.assertEqual(compiled.filters[3], (three.body_filter, two.body_filter, one.body_filter))
        self.assertEqual(compiled.completions[3], (one.on_complete, two.on_complete, three.on_complete))

    def test_passed_a_part(self):
        """Of a request that was answered on the way only those before the answer hear again."""
        one, two, three = probes = [Probe(name) for name in "123"]
        compiled = chain(*probes)
        self.assertEqual(compiled.responses, ((), (one.on_response,), (two.on_response, one.on_response), compiled.responses[3]))
        self.assertEqual(compiled.filters[:3], ((), (one.body_filter,), (two.body_filter, one.body_filter)))
        self.assertEqual(compiled.completions[:3], ((), (one.on_complete,), (one.on_complete, two.on_complete)))
        self.assertEqual(compiled.completions[3][-1], three.on_complete)

    def test_series(self):
        """Whoever answers was invoked too; those behind were not."""
        self.assertEqual(chain(Asking(), Asking()).series, (("s0",), ("s0", "s1"), ("s0", "s1")))

    @settings(max_examples=40)
    @given(st.lists(st.sampled_from([Asking, Listening, Probe]), max_size=6))
    def test_any_chain(self, kinds):
        """However a chain is made, there is one row for each number of middlewares passed, and each row has what it should."""
        middlewares = [kind("x") if kind is Probe else kind() for kind in kinds]
        compiled = chain(*middlewares)
        for rows in (compiled.responses, compiled.filters, compiled.completions, compiled.series):
            self.assertEqual(len(rows), len(kinds) + 1)
        for passed in range(len(kinds) + 1):
            hearing = [each for each in middlewares[:passed] if ICompletionHook.providedBy(each)]
            self.assertEqual([hook.__self__ for hook in compiled.completions[passed]], hearing)
            self.assertEqual([hook.__self__ for hook in compiled.responses[passed]], hearing[::-1])

    def test_repr(self):
        """Chains and links show their names in order."""
        self.assertEqual(repr(chain(Asking(), Listening())), "<Chain m0 → m1>")
        self.assertEqual(repr(chain()), "<Chain of nothing>")
        self.assertEqual(repr(chain(Asking()).links[0]), "<Link m0 of type Asking>")


class IdentityTests(SynchronousTestCase):
    """
    Names that only middlewares may use are collected, and what clients send under them is left out.
    """

    def test_collected(self):
        """The names of all middlewares are taken together, in lower case and with hyphens."""
        self.assertEqual(chain(Naming(b"X-User", b"x_role"), Asking(), Naming(b"x-user")).identity, {b"x-user", b"x-role"})

    def test_left_out(self):
        """What is called so, or so but for underscores, is left out; everything else stays in its order."""
        fields = [make_field(name, b"v") for name in (b"A", b"X-User", b"x_user", b"X_User-Id", b"X-USER", b"x-user-name", b"A")]
        kept = without_identity(fields, frozenset([b"x-user", b"x-user-id"]))
        self.assertEqual([field.line for field in kept], [b"A: v", b"x-user-name: v", b"A: v"])
        self.assertEqual(len(fields), 7)
