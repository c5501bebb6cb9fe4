"""
Pull cables at random while requests are retried and circuits open and close.
"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from a3sgw.loading import load_string
from a3sgw.proxy.test import test_cable as cable
from a3sgw.proxy.test.dialogues import config

RETRY = 'type = "retry"\nmax_retries = 3\nretry_interval_ms = {pause}\nper_try_timeout_ms = 5000\nretry_non_idempotent = {repeats_all}'
CIRCUIT = 'type = "circuit-breaker"\nfailure_threshold = 2\ncooldown_secs = 5\nsuccess_threshold = {successes}\nscope = "{scope}"'
PLACES = "scaling {\n container_concurrency = 1\n buffer_enabled = true\n buffer_timeout_secs = 8\n }"
MIDDLEWARES = [
    (CIRCUIT.format(successes=1, scope="router"), RETRY.format(pause=0, repeats_all="false")),
    (RETRY.format(pause=700, repeats_all="true"), CIRCUIT.format(successes=2, scope="backend")),
    (
        CIRCUIT.format(successes=2, scope="router"),
        CIRCUIT.format(successes=1, scope="backend"),
        RETRY.format(pause=0, repeats_all="true"),
    ),
]


def make_config(servers, connections, middlewares, scaling):
    service = f"max_replay_bytes = 5000\nconnection_pool {{ max_connections = {connections} }}\n{scaling}"
    return load_string(config(servers=servers, middlewares=middlewares, service=service), "test.hcl", {}).valid_config()


CONFIGS = [
    make_config(servers, connections, middlewares, scaling)
    for servers, connections in ((1, 0), (1, 1), (2, 1))
    for middlewares in MIDDLEWARES
    for scaling in ("", PLACES)
]
TURNS = st.lists(
    st.tuples(
        st.sampled_from(["get", "length", "chunked", "put"]),
        st.sampled_from(["length", "chunked", "hints"]),
        st.sampled_from([0, 40, 3000, 70_000]),
    ),
    min_size=1,
    max_size=4,
)


class FailingTurn(cable.Turn):
    """
    A request that is answered 503 every other time.
    """

    asked = 0

    def response(self):
        answer, closes = super().response()
        self.asked += 1
        return (answer.replace(b"HTTP/1.1 200 OK", b"HTTP/1.1 503 No") if (self.number + self.asked) % 2 else answer), closes


class OutagePlay(cable.Play):
    """
    A play in which the gateway may be reloaded.
    """

    configs: Any = CONFIGS
    turn = FailingTurn

    def step(self, kind, *how):
        if kind == "reload":
            self.dialogue.reload(CONFIGS[how[0]])
        else:
            super().step(kind, *how)

    def circuits(self):
        told = []
        self.dialogue.carrier.snapshot().addCallback(told.append)
        return [row["state"]["circuit"] for row in told[0]["gauges"]["middlewares"] if "circuit" in row["state"]]


ANYTHING = st.lists(
    st.one_of(
        *cable.PROGRESS * 3,
        *cable.ACCIDENTS,
        st.tuples(st.just("time"), st.sampled_from([1, 3, 6])),
        st.tuples(st.just("reload"), st.integers(0, len(CONFIGS) - 1)),
    ),
    min_size=10,
    max_size=50,
)


class OutageTests(cable.CableCase):
    """
    Random conversations with random accidents, through middlewares that do something about them.
    """

    @settings(deadline=None, max_examples=150, derandomize=True)
    @given(st.integers(0, len(CONFIGS) - 1), st.tuples(TURNS, TURNS), ANYTHING, st.booleans())
    def test_any_accident(self, key, conversations, steps, kindly):
        """Whatever happens, nothing fails or leaks, no message lies about its end, and no circuit stays open for ever."""
        play = OutagePlay(key, conversations)
        for step in steps:
            play.step(*step)
        play.finish(kindly=kindly)
        self.check(play)
        self.assertNotIn("open", play.circuits())
        self.assert_serves(play.dialogue)

    def assert_serves(self, dialogue):
        """
        Fail unless the next requests are answered: no trial holds its place.
        """
        if dialogue.door().is_draining:
            return
        for _ in range(2):
            client = dialogue.connect()
            dialogue.say(client, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            while dialogue.attempts:
                end = dialogue.attempts[0].succeed()
                dialogue.reactor.settle()
                end.take()
                dialogue.say(end, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.assertTrue(dialogue.hear(client).startswith(b"HTTP/1.1 200 "))
            client.close()
        dialogue.reactor.advance(200)
        dialogue.assert_clean(self)
