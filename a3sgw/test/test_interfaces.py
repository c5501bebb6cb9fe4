"""
Tests that every class has what its interface asks for.
"""

from twisted.internet.interfaces import IResolutionReceiver
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass

from a3sgw.admin.api import IGatewayView
from a3sgw.carrier import Carrier
from a3sgw.gateway import Gateway
from a3sgw.interfaces import IBalancer, IBalancerFactory, ICarrier, IControl, IDownstream, IReceiver, IUpstream
from a3sgw.net.connect import _Addresses
from a3sgw.net.stream import _Lingerer
from a3sgw.proxy.http1_client import Http1Client
from a3sgw.proxy.http1_server import Http1Server
from a3sgw.service.balance import RoundRobin, RoundRobinFactory
from a3sgw.testing import FakeControl
from a3sgw.view import GatewayView


class InterfaceTests(SynchronousTestCase):
    """
    Signatures; what the methods do is said by the contracts and the dialogues.
    """

    def test_classes(self):
        """Each class has the methods of its interfaces, with the arguments they are called with."""
        verifyClass(IBalancer, RoundRobin)
        verifyClass(IBalancerFactory, RoundRobinFactory)
        verifyClass(ICarrier, Carrier)
        verifyClass(IControl, FakeControl)
        verifyClass(IControl, Gateway)
        verifyClass(IDownstream, Http1Server)
        verifyClass(IGatewayView, GatewayView)
        verifyClass(IReceiver, Http1Client)
        verifyClass(IReceiver, Http1Server)
        verifyClass(IReceiver, _Lingerer)
        verifyClass(IResolutionReceiver, _Addresses)
        verifyClass(IUpstream, Http1Client)
