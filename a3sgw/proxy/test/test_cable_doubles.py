"""
Pull every cable at random where requests are sent twice: copied for a shadow, or to a second server because the first is slow.
"""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from a3sgw.loading import load_string
from a3sgw.middleware.catalog import find_catalog
from a3sgw.proxy.test.dialogues import config
from a3sgw.proxy.test.test_cable import ANYTHING, CableCase, Play

SHADOW = """
services "shadow" {
  load_balancer {
    servers = [{ url = "http://192.0.2.9" }]
  }
  scaling { container_concurrency = 2 }
}
"""
MIRROR = """
mirror {
  service        = "shadow"
  max_in_flight  = 1
  max_body_bytes = 50000
  timeout        = "20s"
}
"""
HEDGING = """
hedging {
  quantile       = 0.5
  min_delay_ms   = 700
  budget_percent = 100
}
"""
ROOM = """
scaling {
  container_concurrency = 1
  buffer_enabled        = true
}
"""
RETRY = 'type = "retry"\nmax_retries = 2\nretry_interval_ms = 100'
TEXTS = {
    "mirror": config(service=MIRROR, more=SHADOW),
    "hedging": config(service=HEDGING, servers=2),
    "hedging, places and retries": config(service=HEDGING + ROOM, servers=2, middlewares=[RETRY]),
    "everything": config(service=MIRROR + HEDGING, servers=3, middlewares=[RETRY], more=SHADOW),
}
# Where an answer ends is always said.
TURNS = st.lists(
    st.tuples(
        st.sampled_from(["get", "length", "chunked", "put"]),
        st.sampled_from(["length", "chunked", "hints"]),
        st.sampled_from([0, 40, 3000, 70_000]),
    ),
    min_size=1,
    max_size=3,
)


class DoublePlay(Play):
    """
    A play whose gateway knows already how long answers usually take.
    """

    configs = {key: load_string(text, "test.hcl", {}, find_catalog()).valid_config() for key, text in TEXTS.items()}

    def __init__(self, key, conversations):
        super().__init__(key, conversations)
        self.traits = self.dialogue.carrier.generation().services["app"].traits
        if self.traits.hedging is not None:
            for _ in range(200):
                self.traits.hedging.budget.request(0.0)
                self.traits.hedging.observe(0.0)

    def doubles(self):
        """
        Return what became of everything that was sent twice.
        """
        (row,) = [row for row in self.gauges() if row["service"] == "app"]
        return Counter({**row["copies"], **row["hedges"]})

    def gauges(self):
        result = []
        self.dialogue.carrier.snapshot().addCallback(result.append)
        return result[0]["gauges"]["services"]


class DoubleCableTests(CableCase):
    """
    Random conversations with random accidents.
    """

    def test_any_accident(self):
        """Whatever happens, nothing fails, nothing leaks, and no message lies; and it does happen."""
        total = Counter()

        @settings(deadline=None, max_examples=400, derandomize=True)
        @given(st.sampled_from(sorted(TEXTS)), st.tuples(TURNS, TURNS), ANYTHING, st.booleans())
        def play_it(key, conversations, steps, kindly):
            play = DoublePlay(key, conversations)
            for step in steps:
                play.step(*step)
            play.finish(kindly=kindly)
            self.check(play)
            if play.traits.mirror is not None:
                self.assertEqual(play.traits.mirror._copies, set())
            if play.traits.room is not None:
                self.assertEqual((play.traits.room.in_use, play.traits.room.waiting), (0, 0))
            total.update(play.doubles())

        play_it()
        self.assertEqual({name for name, count in total.items() if not count}, set(), total)
