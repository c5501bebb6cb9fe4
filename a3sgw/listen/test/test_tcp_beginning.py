"""
Tests of `a3sgw.listen.tcp_beginning`. What follows from a beginning is tested with `a3sgw.proxy.tcp_connection`.
"""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IBeginning
from a3sgw.listen.tcp_beginning import TcpBeginning


class TcpBeginningTests(SynchronousTestCase):
    """
    The step that takes connections to be passed on.
    """

    def test_interface(self):
        """It is a step as doors want it."""
        self.assertTrue(verifyObject(IBeginning, TcpBeginning(lambda call: None)))

    def test_goodbye(self):
        """Who is turned away is told nothing, because nobody knows what it speaks."""
        beginning = TcpBeginning(lambda call: None)
        self.assertEqual({beginning.goodbye(outcome) for outcome in Outcome}, {b""})
