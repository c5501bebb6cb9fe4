"""
Tests of the names of pausers.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.net import valve
from a3sgw.net.valve import CLIENT_SLOW, PIPELINE, UPSTREAM_SLOW, WAITING_ROOM, pauser_names


class PauserNamesTests(SynchronousTestCase):
    """
    `pauser_names` says who holds a stream.
    """

    def test_names(self):
        """Each pauser has a name, several are listed, and nobody is called none."""
        for pausers, names in [
            (0, "none"),
            (CLIENT_SLOW, "client-slow"),
            (UPSTREAM_SLOW, "upstream-slow"),
            (WAITING_ROOM, "waiting-room"),
            (PIPELINE, "pipeline"),
            (CLIENT_SLOW | PIPELINE, "client-slow,pipeline"),
            (WAITING_ROOM | UPSTREAM_SLOW, "upstream-slow,waiting-room"),
        ]:
            self.assertEqual(pauser_names(pausers), names)

    def test_distinct(self):
        """No two pausers share a bit, so none can withdraw another."""
        bits = [getattr(valve, name) for name in valve.__all__ if name.isupper()]
        self.assertEqual(len(bits), 4)
        for bit in bits:
            self.assertEqual(bit.bit_count(), 1)
        self.assertEqual(len(set(bits)), len(bits))
