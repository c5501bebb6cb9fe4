"""
A pool's surroundings, played by the test.
"""

import socket

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import Outcome
from a3sgw.net.deadline import Deadlines
from a3sgw.net.stream import Stream
from a3sgw.proxy.pool import Pool, PoolSettings
from a3sgw.service.backend import Backend, BackendAddress
from a3sgw.testing import MemoryReactor, MemorySocket

ADDRESS = (socket.AF_INET, ("192.0.2.1", 80))


class Attempt:
    """
    A connection attempt that waits for the test's word.
    """

    def __init__(self, dialer, addresses, deadline, done):
        self.dialer = dialer
        self.addresses = addresses
        self.deadline = deadline
        self.done = done

    def succeed(self):
        self.dialer.attempts.remove(self)
        ours, theirs = MemorySocket.pair(10 + 2 * len(self.dialer.reactor.sockets))
        self.dialer.reactor.sockets[ours.fileno()] = ours
        self.done(ours, None)
        return theirs

    def fail(self, outcome=Outcome.CONNECT_REFUSED):
        self.dialer.attempts.remove(self)
        self.done(None, outcome)

    def cancel(self):
        self.dialer.attempts.remove(self)


class FakeDialer:
    """
    A dialer without a network: `attempts` and `questions` are what it was asked and has not answered.
    """

    def __init__(self, reactor):
        self.reactor = reactor
        self.deadlines = Deadlines(reactor, reactor.seconds)
        self.deadlines.start()
        self.attempts = []
        self.questions = []

    def resolve(self, host, port, done):
        self.questions.append((host, port, done))

    def answer(self, *addresses):
        _, _, done = self.questions.pop(0)
        done(list(addresses))

    def unix_address(self, path):
        return (socket.AF_UNIX, path)

    def connect(self, addresses, deadline, done):
        self.attempts.append(Attempt(self, list(addresses), deadline, done))
        return self.attempts[-1]

    def stream(self, sock):
        return Stream(sock, self.reactor, self.reactor.flushes, self.deadlines)

    def later(self, call, *arguments):
        self.reactor.callLater(0, call, *arguments)


class Lessee:
    """
    Somebody who wants a connection, with what it was told in `told`; `then` is what it does when it gets one.
    """

    def __init__(self, then=lambda upstream: None, connect_timeout=5.0):
        self.connect_timeout = connect_timeout
        self.told = []
        self.then = then

    def upstream_leased(self, upstream):
        self.told.append(upstream)
        self.then(upstream)

    def lease_failed(self, outcome):
        self.told.append(outcome)


class PoolCase(SynchronousTestCase):
    """
    A pool with a fake dialer.
    """

    def make(self, *, path="", host="app.test", **settings):
        self.reactor = MemoryReactor()
        self.dialer = FakeDialer(self.reactor)
        backend = Backend("app", "http://app.test", BackendAddress("http", host, 80, path, b"", b"app.test"), 1)
        self.pool = Pool(backend, PoolSettings(**settings), self.dialer)
        return self.pool

    def ask(self, then=lambda upstream: None, **options):
        """
        Ask for a connection; return the lessee, who must have to wait.
        """
        lessee = Lessee(then)
        self.assertIsNone(self.pool.lease(lessee, **options))
        return lessee

    def take(self):
        """
        Lease a connection that has to be made; return it and the backend's end.
        """
        lessee = self.ask()
        if self.dialer.questions:
            self.dialer.answer(ADDRESS)
        peer = self.dialer.attempts[-1].succeed()
        (upstream,) = lessee.told
        return upstream, peer

    def counts(self):
        return self.pool.leased, self.pool.idle, self.pool.connecting
