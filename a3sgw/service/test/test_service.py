"""
Tests of services and routes.
"""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IBalancer
from a3sgw.observe.record import Record
from a3sgw.service.group import Group
from a3sgw.service.service import Route, Service, ServiceSettings
from a3sgw.service.test.test_balance import backends


@implementer(IBalancer)
class Last:
    """
    A balancer that takes the last candidate, and keeps what it was asked.
    """

    def __init__(self):
        self.asked = []

    def choose(self, candidates, record):
        self.asked.append((list(candidates), record))
        return candidates[-1]


class ServiceTests(SynchronousTestCase):
    """
    `Service` lets its balancer choose among those that can be used.
    """

    def make(self, everybody):
        self.balancer = Last()
        verifyObject(IBalancer, self.balancer)
        clock = Clock()
        service = Service("app", "last", [Group(everybody, self.balancer)], ServiceSettings(), clock.seconds, clock.callLater)
        service.begin({})
        return service

    def test_choose(self):
        """The balancer is given all usable backends in configured order, and the record of the exchange."""
        everybody = backends(3)
        everybody[1].verdicts.is_draining = True
        service = self.make(everybody)
        record = Record()
        self.assertIs(service.choose(record, []), everybody[2])
        self.assertEqual(self.balancer.asked, [([everybody[0], everybody[2]], record)])

    def test_tried(self):
        """Backends that were tried already are not offered again."""
        everybody = backends(3)
        service = self.make(everybody)
        self.assertIs(service.choose(Record(), [everybody[2]]), everybody[1])
        self.assertIs(service.choose(Record(), everybody[1:]), everybody[0])

    def test_nobody_left(self):
        """When nobody is usable, or everybody was tried, there is no choice and the balancer is not asked."""
        everybody = backends(2)
        self.assertIsNone(self.make(everybody).choose(Record(), everybody))
        for backend in everybody:
            backend.verdicts.is_draining = True
        self.assertIsNone(self.make(everybody).choose(Record(), []))
        self.assertIsNone(self.make([]).choose(Record(), []))
        self.assertEqual(self.balancer.asked, [])

    def test_repr(self):
        """A service and a route say who they are."""
        everybody = backends(2)
        everybody[0].verdicts.is_draining = True
        service = self.make(everybody)
        self.assertEqual(repr(service), "<Service app 1/2 usable>")
        route = Route("main", service, None)
        self.assertEqual(repr(route), "<Route main to app>")
        self.assertEqual((route.name, route.service_name, route.service), ("main", "app", service))
