"""
Tests of backends.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.service.backend import Backend, BackendAddress


class BackendTests(SynchronousTestCase):
    """
    `Backend` is one server.
    """

    def test_new(self):
        """A new backend is usable and has nothing in flight."""
        backend = Backend("app", "http://192.0.2.1", BackendAddress("http", "192.0.2.1", 80, "", b"", b"192.0.2.1"), 3)
        self.assertEqual((backend.in_flight, backend.is_usable, backend.weight), (0, True, 3))
        self.assertEqual(repr(backend), "<Backend app http://192.0.2.1 usable, 0 in flight>")
        backend.is_usable = False
        backend.in_flight = 2
        self.assertEqual(repr(backend), "<Backend app http://192.0.2.1 unusable, 2 in flight>")

    def test_identity(self):
        """Two listings of the same server are two backends, though their addresses are equal."""
        one, other = (Backend("app", "http://a", BackendAddress("http", "a", 80, "", b"", b"a"), 1) for _ in range(2))
        self.assertNotEqual(one, other)
        self.assertEqual(one.address, other.address)
        self.assertEqual(len({one, other}), 2)
