"""
Tests of how HTTP/2 begins; `proxy.test.test_http2_server` has it serve.
"""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IBeginning, IReceiver
from a3sgw.listen.beginning import Http1Beginning
from a3sgw.listen.http2_beginning import FirstBytesOfHttp, Http2Beginning, HttpBeginning
from a3sgw.proxy.http1_server import Http1Server
from a3sgw.proxy.http2_server import Http2Server
from a3sgw.proxy.test.dialogues import config
from a3sgw.testing import Dialogue, receiver_contract
from a3sgw.wire.http2 import PREFACE


def make_beginning():
    """
    Return the receiver of a connection that has just been accepted.
    """
    dialogue = Dialogue(config())
    dialogue.connect()
    (connection,) = dialogue.door().connections
    return connection._stream.receiver


class FirstBytesOfHttpContractTests(receiver_contract(make_beginning)):
    """
    What looks at the first bytes is a receiver like others.
    """

    def test_made(self):
        """It is what an entrypoint begins with."""
        self.assertIsInstance(make_beginning(), FirstBytesOfHttp)
        verifyObject(IReceiver, make_beginning())


class Http2BeginningTests(SynchronousTestCase):
    """
    The last steps of a door where HTTP/2 is spoken.
    """

    def test_interfaces(self):
        """Both are steps like others; only who may speak HTTP/1 is told in words why it is turned away."""
        for beginning in (Http2Beginning(), HttpBeginning()):
            verifyObject(IBeginning, beginning)
        self.assertEqual(Http2Beginning().goodbye(Outcome.CONNECTION_LIMIT), b"")
        self.assertEqual(HttpBeginning().goodbye(Outcome.CONNECTION_LIMIT), Http1Beginning().goodbye(Outcome.CONNECTION_LIMIT))

    def test_who_serves(self):
        """After the first bytes nothing stands between the stream and the server of the version."""
        for data, served in ((b"GET", Http1Server), (b"PUT", Http1Server), (PREFACE, Http2Server)):
            dialogue = Dialogue(config())
            client = dialogue.connect()
            dialogue.say(client, data)
            (connection,) = dialogue.door().connections
            self.assertIsInstance(connection, served)
            self.assertIs(connection._stream.receiver, connection)
            client.close()
            dialogue.reactor.settle()
            self.assertEqual(dialogue.door().connections, set())

    def test_client_leaves_early(self):
        """A client that leaves before it has said anything, or enough, leaves nothing behind."""
        for data in (b"", b"PRI"):
            dialogue = Dialogue(config())
            client = dialogue.connect()
            if data:
                dialogue.say(client, data)
            client.close()
            dialogue.reactor.settle()
            self.assertEqual(dialogue.door().connections, set())
