"""
Tests of `a3sgw.gauges`: what middlewares tell of themselves.
"""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from a3sgw.assembly_middleware import _Terms
from a3sgw.gauges import middleware_gauges
from a3sgw.interfaces import IStateSource
from a3sgw.middleware.compress import CompressConfig


@implementer(IStateSource)
class Teller:
    """
    A middleware that tells what it was given, or raises it.
    """

    def __init__(self, told):
        self.told = told

    def describe(self):
        """
        Tell it.
        """
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


class MiddlewareGaugesTests(SynchronousTestCase):
    """
    Middlewares that are listed somewhere are shown.
    """

    def gauges(self, *told):
        """
        Return the rows of middlewares that tell this, the first of a router, the others of entrypoints.
        """
        config = _Terms(CompressConfig(name="it"), None)
        parts = {
            ("middleware", config, "entrypoint" if index else "router", f"place {index}", b"", ()): teller
            for index, teller in enumerate(map(Teller, told))
        }
        return middleware_gauges({**parts, ("middleware", config, "router", "silent", b"", ()): object(), ("chain", ()): Teller({})})

    def test_rows(self):
        """Each has a row for each router and entrypoint that lists it, if it has something to tell."""
        self.assertEqual(
            self.gauges({"clients": 1}, {"circuit": "open"}),
            [
                {"name": "it", "type": "compress", "router": "place 0", "entrypoint": "", "service": "", "state": {"clients": 1}},
                {"name": "it", "type": "compress", "router": "", "entrypoint": "place 1", "service": "", "state": {"circuit": "open"}},
            ],
        )

    def test_bugs(self):
        """One that raises, or tells what cannot be shown, loses its own row's state and nobody else's; a bug is reported."""
        rows = self.gauges(ZeroDivisionError("no requests"), {"clients": b"3", "queued": 1, "by": None}, None, {"clients": 2})
        self.assertEqual([row["state"] for row in rows], [{}, {"queued": 1}, {}, {"clients": 2}])
        self.assertEqual([type(error.value) for error in self.flushLoggedErrors()], [ZeroDivisionError, AttributeError])
