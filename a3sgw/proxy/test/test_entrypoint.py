"""
Tests of the gate to the gateway's own API, and of the observers.
"""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from a3sgw.address import AddressSet, pack_address
from a3sgw.interfaces import IObserver
from a3sgw.message import LocalResponse, RequestHead
from a3sgw.observe.record import Record
from a3sgw.proxy.entrypoint import AdminGate, Observers
from a3sgw.proxy.test.dialogues import OK, DialogueCase, request

LOOPBACK = AddressSet(["127.0.0.0/8", "::1"])


class AdminGateTests(SynchronousTestCase):
    """
    `AdminGate` lets few in, and for everybody else it is as if it were not there.
    """

    def admits(self, path, client, *, is_forwarded=False, allowed=LOOPBACK):
        gate = AdminGate(b"/api/gateway", allowed, lambda head: LocalResponse(200))
        head = RequestHead(b"GET", path)
        head.client_packed = pack_address(client)
        return gate.admits(head, is_forwarded=is_forwarded)

    def test_paths(self):
        """The API is what lies under the prefix, segment by segment."""
        for path, is_admitted in [
            (b"/api/gateway", True),
            (b"/api/gateway/", True),
            (b"/api/gateway/health", True),
            (b"/api/gatewayx", False),
            (b"/api/gateway-health", False),
            (b"/api/gateway%2Fhealth", False),
        ]:
            self.assertIs(self.admits(path, "127.0.0.1"), is_admitted, path)

    def test_addresses(self):
        """Only allowed addresses are let in."""
        for client, is_admitted in [
            ("127.0.0.1", True),
            ("127.8.8.8", True),
            ("::1", True),
            ("::ffff:127.0.0.1", True),
            ("192.0.2.1", False),
            ("2001:db8::1", False),
        ]:
            self.assertIs(self.admits(b"/api/gateway/health", client), is_admitted, client)

    def test_unknown_client(self):
        """A client without an address is not let in."""
        gate = AdminGate(b"/api/gateway", AddressSet(["0.0.0.0/0", "::/0"]), lambda head: LocalResponse(200))
        self.assertFalse(gate.admits(RequestHead(b"GET", b"/api/gateway"), is_forwarded=False))

    def test_through_a_proxy(self):
        """A request that came through a proxy is judged by its client, and is never from this machine."""
        everybody = AddressSet(["0.0.0.0/0", "::/0"])
        for client, allowed, is_admitted in [
            ("127.0.0.1", LOOPBACK, False),
            ("::1", LOOPBACK, False),
            ("127.0.0.1", everybody, False),
            ("10.0.0.1", AddressSet(["10.0.0.0/8"]), True),
            ("192.0.2.1", AddressSet(["10.0.0.0/8"]), False),
        ]:
            self.assertIs(self.admits(b"/api/gateway/x", client, is_forwarded=True, allowed=allowed), is_admitted, client)


class AdminDialogueTests(DialogueCase):
    """
    The gate in front of a running gateway.
    """

    def converse_from(self, peer, **settings):
        dialogue = self.converse(**settings)
        self.client.close()
        self.client = dialogue.connect(peer)
        return dialogue

    def assert_admitted(self, *lines):
        self.say(self.client, request("GET", "/api/gateway/health", *lines))
        self.assertTrue(self.hear(self.client).endswith(b"\r\n\r\n/api/gateway/health"))
        self.assertEqual(self.dialogue.outcomes()[-1:], ["dashboard"])

    def assert_routed(self, *lines):
        backend = self.ask(request("GET", "/api/gateway/health", *lines))
        self.assertIn(b"GET /api/gateway/health ", self.hear(backend))
        self.say(backend, OK)
        self.assertTrue(self.hear(self.client).endswith(b"ok"))

    def test_local_client(self):
        """A client on this machine is answered by the gateway, on a connection that stays."""
        self.converse_from("127.0.0.1")
        self.assert_admitted()
        self.assert_admitted()
        self.assertFalse(self.client.has_ended)

    def test_remote_client(self):
        """For any other client the path is like every other."""
        self.converse_from("192.0.2.1")
        self.assert_routed()

    def test_local_proxy(self):
        """A proxy on this machine does not lend its address to its clients, whether it is trusted or not."""
        for trusted in ("", 'forwarded_headers { trusted_ips = ["127.0.0.1"] }'):
            self.converse_from("127.0.0.1", entrypoint=trusted)
            self.assert_routed("X-Forwarded-For: 203.0.113.7")
            self.assert_routed("X-Forwarded-For: 127.0.0.1")
            self.assert_routed("Forwarded: for=127.0.0.1")
            self.assert_routed("Forwarded: proto=https")
            self.assert_routed("X-Forwarded-For:")
            self.assert_admitted("X-Forwarded-Proto: https")

    def test_spoofed_address(self):
        """A client cannot say that it is somebody who is allowed."""
        self.converse_from("192.0.2.1")
        self.assert_routed("X-Forwarded-For: 127.0.0.1", "X-Real-Ip: 127.0.0.1")


@implementer(IObserver)
class Watcher:
    """
    An observer that counts, and fails at the record with number `fails_at`.
    """

    def __init__(self, fails_at=0):
        self.seen = 0
        self.fails_at = fails_at

    def exchange_ended(self, record):
        self.seen += 1
        if self.seen == self.fails_at:
            raise ZeroDivisionError


class ObserversTests(SynchronousTestCase):
    """
    `Observers` shows each record to everybody who works.
    """

    def test_failing_observer(self):
        """An observer that raises is reported once and dropped; the others see that record and every later one."""
        watchers = [Watcher(), Watcher(fails_at=2), Watcher()]
        verifyObject(IObserver, watchers[0])
        observers = Observers(watchers)
        for _ in range(4):
            observers.exchange_ended(Record())
            observers.drain()
        self.assertEqual([watcher.seen for watcher in watchers], [4, 2, 4])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failing_within_a_batch(self):
        """What an observer that raises was shown together with others is shown to the others whole."""
        watchers = [Watcher(), Watcher(fails_at=2), Watcher()]
        observers = Observers(watchers)
        for _ in range(Observers.BATCH):
            self.assertEqual([watcher.seen for watcher in watchers], [0, 0, 0])
            observers.exchange_ended(Record())
        self.assertEqual([watcher.seen for watcher in watchers], [Observers.BATCH, 2, Observers.BATCH])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_replaced(self):
        """Who is replaced has seen everything that ended before, and nothing that ends after."""
        first, second = Watcher(), Watcher()
        observers = Observers([first])
        observers.exchange_ended(Record())
        observers.replace([second])
        observers.exchange_ended(Record())
        observers.drain()
        self.assertEqual((first.seen, second.seen), (1, 1))

    def test_two_fail(self):
        """Two observers that fail at once are both dropped."""
        watchers = [Watcher(fails_at=1), Watcher(fails_at=1), Watcher()]
        observers = Observers(watchers)
        for _ in range(2):
            observers.exchange_ended(Record())
            observers.drain()
        self.assertEqual([watcher.seen for watcher in watchers], [1, 1, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


class FailingObserverTests(DialogueCase):
    """
    A failing observer in a running gateway.
    """

    def test_exchange_goes_on(self):
        """A client does not notice that an observer failed at its exchange."""
        dialogue = self.converse()
        watchers = [Watcher(fails_at=1), Watcher()]
        dialogue.door().entrypoint.observers = Observers(watchers)
        for _ in range(2):
            backend = self.ask()
            self.hear(backend)
            self.say(backend, OK)
            self.assertTrue(self.hear(self.client).endswith(b"ok"))
        dialogue.door().entrypoint.observers.drain()
        self.assertEqual([watcher.seen for watcher in watchers], [1, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
