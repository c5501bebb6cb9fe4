"""
Tests of `a3sgw.proxy.agreement`. Whole connections are tested with `a3sgw.proxy.tcp_connection`.
"""

from zope.interface.verify import verifyObject

from a3sgw.interfaces import IReceiver
from a3sgw.proxy.agreement import Agreement
from a3sgw.testing import receiver_contract


class _Stream:
    deadline = 0.0
    receiver = None

    def now(self):
        return 0.0

    def write(self, data):
        pass


class AgreementContractTests(receiver_contract(lambda: Agreement(_Stream(), 5.0, lambda outcome: None))):
    """
    It receives as everybody does.
    """

    def test_interface_of_ours(self):
        """It listens to a stream."""
        self.assertTrue(verifyObject(IReceiver, Agreement(_Stream(), 5.0, lambda outcome: None)))
