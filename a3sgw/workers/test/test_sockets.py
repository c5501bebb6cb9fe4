"""
Tests of the sockets that workers share.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.errors import AssemblyError
from a3sgw.testing import MemorySocket
from a3sgw.workers.sockets import Sockets
from a3sgw.workers.worker import Inherited

A, B, C = ("127.0.0.1", 81), ("127.0.0.1", 82), ("", 83)


class SocketsTests(SynchronousTestCase):
    """
    Sockets over changes of the configuration.
    """

    def setUp(self):
        self.bound = {}
        self.sockets = Sockets(self.bind)

    def bind(self, name, host, port):
        if port == 99:
            raise AssemblyError("in use")
        self.bound[host, port] = sock = MemorySocket(port)
        return sock

    def take(self, **places):
        self.sockets.prepare(places)
        new = [name for name, _, _ in self.sockets.new()]
        self.sockets.commit()
        return new

    def test_kept(self):
        """What stays keeps its socket, under another name too; what goes is closed; what comes is bound."""
        self.assertEqual(self.take(a=A, b=B), ["a", "b"])
        self.assertEqual(self.take(x=A, c=C), ["c"])
        self.assertEqual([self.bound[place].is_closed for place in (A, B, C)], [False, True, False])
        self.assertEqual({name: place for name, place, _ in self.sockets.all()}, {"x": A, "c": C})
        self.assertEqual(set(self.sockets.ports()), {"x", "c"})

    def test_failure(self):
        """If one cannot be bound the others that were are closed, and nothing has changed."""
        self.take(a=A)
        self.assertRaises(AssemblyError, self.sockets.prepare, {"b": B, "c": ("", 99)})
        self.assertTrue(self.bound[B].is_closed)
        self.assertFalse(self.bound[A].is_closed)
        self.assertEqual([name for name, _, _ in self.sockets.all()], ["a"])

    def test_overlap(self):
        """A port that is held for one address cannot be had for all."""
        self.take(a=A)
        error = self.assertRaises(AssemblyError, self.sockets.prepare, {"b": ("", 81)})
        self.assertIn('this gateway itself does, for entrypoint "a"', str(error))

    def test_abandon(self):
        """What is not wanted after all is closed."""
        self.take(a=A)
        self.sockets.prepare({"b": B})
        self.sockets.abandon()
        self.assertEqual((self.bound[A].is_closed, self.bound[B].is_closed), (False, True))

    def test_close(self):
        """In the end everything is closed."""
        self.take(a=A)
        self.sockets.prepare({"a": A, "b": B})
        self.sockets.close()
        self.assertTrue(all(sock.is_closed for sock in self.bound.values()))


class InheritedTests(SynchronousTestCase):
    """
    Sockets in a worker.
    """

    def test_take(self):
        """A door takes the socket that was bound for it; the others are closed when nobody comes for them."""
        inherited = Inherited()
        one, other = MemorySocket(1), MemorySocket(2)
        inherited.add("a", A, one)
        inherited.add("b", B, other)
        self.assertIs(inherited.take("a", *A), one)
        self.assertRaises(AssemblyError, inherited.take, "a", *A)
        inherited.drop()
        self.assertEqual((one.is_closed, other.is_closed), (False, True))
