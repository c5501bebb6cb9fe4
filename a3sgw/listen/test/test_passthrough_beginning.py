"""
Tests of `a3sgw.listen.passthrough_beginning` and `a3sgw.listen.first_bytes`.
"""

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from a3sgw.errors import Outcome
from a3sgw.interfaces import IBeginning, IConnection, IReceiver
from a3sgw.listen.first_bytes import FirstBytes
from a3sgw.listen.passthrough_beginning import PassthroughBeginning
from a3sgw.net.caller import Caller
from a3sgw.proxy.entrypoint import Observers
from a3sgw.proxy.tcp_entrypoint import TcpEntrypoint
from a3sgw.proxy.test.test_tcp_connection import client_hello
from a3sgw.route.table import RouteSpec, build_tcp_table
from a3sgw.testing import receiver_contract
from a3sgw.wire.postgres import SSL_REQUEST

CALLER = Caller(b"192.0.2.1", bytes((192, 0, 2, 1)), b"5432")


class FakeStream:
    def __init__(self):
        self.deadline = 0.0
        self.receiver = None
        self.is_closed = False
        self.written = b""

    def write(self, data):
        self.written += data

    def now(self):
        return 100.0

    def close(self, *, linger=False):
        self.is_closed = True


@implementer(IBeginning)
class Step:
    def __init__(self, name):
        self.name = name

    def begin(self, door, stream, caller):
        return self.name

    def goodbye(self, outcome):
        return self.name.encode()


class Route:
    def __init__(self, name, is_passthrough):
        self.name = name
        self.is_passthrough = is_passthrough


class FakeDoor:
    GRACE_SECONDS = 1.0

    def __init__(self, *routers):
        specs = [RouteSpec(f"r{number}", rule, 0, Route(rule, passes)) for number, (rule, passes) in enumerate(routers)]
        self.entrypoint = TcpEntrypoint("pg", build_tcp_table(specs), Observers())
        self.handed = []
        self.ended = 0

    def hand_over(self, connection, beginning, stream, caller, data):
        self.handed.append((beginning.name, data))
        self.caller = caller

    def connection_ended(self, connection):
        self.ended += 1


BEGINNING = PassthroughBeginning(Step("passing"), Step("secured"))
MIXED = (("HostSNI(`a.test`)", True), ("HostSNI(`b.test`)", False), ("HostSNI(`*`)", True))
NAMED = (("HostSNI(`a.test`)", True), ("HostSNI(`b.test`)", False))


class FirstBytesContractTests(receiver_contract(lambda: FirstBytes(FakeDoor(), FakeStream(), CALLER, 1.0))):
    """
    It receives as everybody does.
    """


class PassthroughTests(SynchronousTestCase):
    """
    Whose TLS is passed on.
    """

    def test_interfaces(self):
        """It is a step like others, and what it makes a connection like others."""
        self.assertTrue(verifyObject(IBeginning, BEGINNING))
        self.assertEqual(BEGINNING.goodbye(Outcome.CONNECTION_LIMIT), b"secured")
        reader = BEGINNING.begin(FakeDoor(*MIXED), FakeStream(), CALLER)
        self.assertTrue(verifyObject(IConnection, reader))
        self.assertTrue(verifyObject(IReceiver, reader))
        self.assertEqual((reader.exchange_count(), reader.stream.receiver, reader.stream.deadline), (0, reader, 105.0))

    def taken(self, routers, *pieces):
        door = FakeDoor(*routers)
        reader = BEGINNING.begin(door, FakeStream(), CALLER)
        for piece in pieces:
            self.assertEqual(door.handed, [])
            reader.data_received(piece)
        return door.handed

    def test_names(self):
        """The router of the name decides, whatever the pieces, and nothing that was read is lost."""
        for name, expected in (("a.test", "passing"), ("b.test", "secured"), ("c.test", "passing"), (None, "passing")):
            hello = client_hello(name)
            self.assertEqual(self.taken(MIXED, hello), [(expected, hello)], name)
            self.assertEqual(self.taken(MIXED, *(hello[at : at + 1] for at in range(len(hello)))), [(expected, hello)], name)
        self.assertEqual(self.taken(NAMED, client_hello("c.test"))[0][0], "secured")

    def test_no_name(self):
        """Who speaks something else, or nothing for a while, names no server."""
        self.assertEqual(self.taken(MIXED, b"SELECT"), [("passing", b"SELECT")])
        self.assertEqual(self.taken(NAMED, b"SELECT"), [("secured", b"SELECT")])
        for routers, expected in ((MIXED, "passing"), (NAMED, "secured")):
            door = FakeDoor(*routers)
            BEGINNING.begin(door, FakeStream(), CALLER).deadline_passed()
            self.assertEqual(door.handed, [(expected, b"")])

    def test_early(self):
        """Where the client need not say anything, the next step begins at once."""
        self.assertEqual(BEGINNING.begin(FakeDoor(("HostSNI(`*`)", True)), FakeStream(), CALLER), "passing")
        self.assertEqual(self.taken((("HostSNI(`*`)", False),), client_hello())[0][0], "secured")
        self.assertEqual(self.taken((), client_hello())[0][0], "secured")

    def test_asking(self):
        """Clients of PostgreSQL are told that they may begin, and whoever comes next knows of it."""
        for name, expected in (("a.test", "passing"), ("b.test", "secured")):
            door, stream, hello = FakeDoor(*MIXED), FakeStream(), client_hello(name)
            reader = BEGINNING.begin(door, stream, CALLER)
            reader.data_received(SSL_REQUEST)
            self.assertEqual((stream.written, door.handed), (b"S", []))
            reader.data_received(hello)
            self.assertEqual(door.handed, [(expected, hello)])
            self.assertTrue(door.caller.has_asked_for_tls)

    def test_ends(self):
        """A client that leaves is let go, and the door hears of it; a door that closes waits a moment and no longer."""
        door, stream = FakeDoor(*MIXED), FakeStream()
        reader = BEGINNING.begin(door, stream, CALLER)
        reader.drain()
        self.assertEqual(stream.deadline, 101.0)
        reader.eof_received()
        self.assertTrue(stream.is_closed)
        reader.stream_lost(None)
        self.assertEqual((door.ended, door.handed), (1, []))
