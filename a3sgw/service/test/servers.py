"""
Servers and balancers for the tests of strategies.
"""

from collections import Counter
from random import Random

from zope.interface import implementer

from a3sgw.interfaces import IBalancer
from a3sgw.message import RequestHead
from a3sgw.observe.record import Record
from a3sgw.service.backend import Backend, BackendAddress
from a3sgw.service.roster import BalancerSettings, Clockwork

ADDRESS = BackendAddress("http", "192.0.2.1", 80, "", b"", b"test")


class Server(Backend):
    """
    A backend with a number.
    """

    __slots__ = ()

    def __init__(self, number, weight=1):
        super().__init__("app", f"http://192.0.2.{number}", ADDRESS, weight)


class Clock:
    """
    A clock that stands until it is told otherwise.
    """

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@implementer(IBalancer)
class InForce:
    """
    A balancer that is given its candidates as a service gives them: the same tuple for as long as they are the same.
    """

    def __init__(self, balancer):
        self.balancer = balancer
        self.candidates = ()

    def choose(self, candidates, record):
        if tuple(candidates) != self.candidates:
            self.candidates = tuple(candidates)
        return self.balancer.choose(self.candidates, record)


def servers(*weights):
    """
    Return a server of each weight.
    """
    return [Server(number, weight) for number, weight in enumerate(weights)]


def make(strategy, backends, clock=None, seed=1, **settings):
    """
    Return a balancer of the class `strategy`.
    """
    return strategy(backends, BalancerSettings(**settings), Clockwork(clock or Clock(), Random(seed)))


def choose(balancer, candidates, times):
    """
    Return what a balancer chooses, so many times.
    """
    return [balancer.choose(candidates, Record()) for _ in range(times)]


def record(client=b"", fields=(), path=b"/", query=b""):
    """
    Return the record of a request.
    """
    found = Record()
    found.head = head = RequestHead(b"GET", path)
    head.client_packed = client
    head.fields = list(fields)
    head.query = query
    return found


def moved(before, after):
    """
    Return the servers that keys have left and those they have come to, each with its number of keys.
    """
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    return Counter(old for old, _new in pairs), Counter(new for _old, new in pairs)
