"""
Tests of what servers are told about clients' certificates.
"""

from types import SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IIdentitySource, IRequestHook
from a3sgw.message import RequestHead
from a3sgw.net.caller import Caller, TlsFacts
from a3sgw.proxy.client_subject import ClientSubject


class ClientSubjectTests(SynchronousTestCase):
    """
    The header with a certificate's subject.
    """

    def added(self, tls):
        """
        Return the header lines that servers get of a client with these facts.
        """
        exchange = SimpleNamespace(head=RequestHead(b"GET", b"/"), caller=Caller(b"192.0.2.1", b"\xc0\0\2\1", b"443", b"https", tls=tls))
        self.assertIsNone(ClientSubject("X-Client").on_request(exchange))
        return [field.line for field in exchange.head.fields]

    def test_interface(self):
        """It is a request hook, and nobody else may set its header."""
        hook = ClientSubject("X-Client")
        verifyObject(IRequestHook, hook)
        verifyObject(IIdentitySource, hook)
        self.assertEqual(hook.identity_fields, {b"x-client"})

    def test_header(self):
        """A client with a certificate is named; one without, or without TLS, is not."""
        self.assertEqual(self.added(TlsFacts(None, (), b"", b"CN=alice")), [b"X-Client: CN=alice"])
        self.assertEqual(self.added(TlsFacts(None, (), b"")), [])
        self.assertEqual(self.added(None), [])
