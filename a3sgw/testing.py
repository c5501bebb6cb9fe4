"""
Fakes and contracts for tests, ours and those of plugin authors.

`MemoryReactor` is a clock with descriptors: sockets are `MemorySocket` pairs, events happen only in `settle`, time passes only by
`advance`. `Dialogue` puts a whole gateway on it, so a test reads like the conversation it is about. The fakes pass the contracts of the
interfaces they stand in for; the `…_contract` functions build those as test cases.

Long because it is the one page where authors of plugins find what they test with.
"""

# trial's assertions are not annotated.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from a3sgw.assembly_parts import Crew
from a3sgw.carrier import Carrier
from a3sgw.config.model import FrozenMap, GatewayConfig
from a3sgw.config.setting import settings_of
from a3sgw.errors import Outcome
from a3sgw.interfaces import (
    IAttemptHook,
    IBackendHook,
    IBalancer,
    IBodyFilterSource,
    ICompletionHook,
    IConfigSink,
    IConnectionGate,
    IControl,
    IMiddlewareFactory,
    IProvider,
    IProviderFactory,
    IReceiver,
    IRequestBodyHook,
    IRequestFilterSource,
    IRequestHook,
    IResponseHook,
)
from a3sgw.listen.door import Door
from a3sgw.loading import load_string
from a3sgw.message import LocalResponse, RequestHead, make_field
from a3sgw.middleware.catalog import Catalog, find_catalog
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.net.datagram import DatagramLink
from a3sgw.net.reactor import FlushQueue
from a3sgw.observe.logsink import MemorySink
from a3sgw.observe.record import Record
from a3sgw.service.backend import Backend, BackendAddress
from a3sgw.service.strategies import Strategies
from a3sgw.wire.frame import FrameReader, encode_frame

__all__ = [
    "Dialogue",
    "FakeControl",
    "MemoryDatagrams",
    "MemoryFrames",
    "MemoryReactor",
    "MemorySocket",
    "RecordingSink",
    "balancer_contract",
    "middleware_contract",
    "provider_contract",
    "receiver_contract",
]

MIDDLEWARE_PHASES = (
    IAttemptHook,
    IBackendHook,
    IBodyFilterSource,
    ICompletionHook,
    IConnectionGate,
    IRequestBodyHook,
    IRequestFilterSource,
    IRequestHook,
    IResponseHook,
)


class MemorySocket:
    """
    One end of a connection that exists only here.

    `room` bounds how many bytes may wait unread at the peer, as a kernel's buffer does. `was_reset` says that the peer broke off.
    """

    def __init__(self, descriptor: int, room: int = 1 << 20) -> None:
        self._descriptor = descriptor
        self.peer: MemorySocket | None = None
        self.room = room
        self.arrived = bytearray()
        self.has_ended = False
        self.was_reset = False
        self.is_closed = False
        self._resets = False
        self._sending_ended = False
        self.accepting: list[tuple[MemorySocket, tuple[str, int]]] = []

    @classmethod
    def pair(cls, descriptor: int) -> tuple[MemorySocket, MemorySocket]:
        """
        Return two connected ends with the descriptors `descriptor` and the next.
        """
        one, other = cls(descriptor), cls(descriptor + 1)
        one.peer, other.peer = other, one
        return one, other

    # -- as a socket

    def fileno(self) -> int:
        return -1 if self.is_closed else self._descriptor

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if option == socket.SO_LINGER:
            self._resets = True

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 8080)

    def setblocking(self, flag: bool) -> None:
        assert not flag, "nothing here may block"

    def recv(self, size: int, flags: int = 0) -> bytes:
        if self.arrived:
            data = bytes(self.arrived[:size])
            if not flags & socket.MSG_PEEK:
                del self.arrived[:size]
            return data
        if self.was_reset:
            # After what had arrived before, as on Linux.
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        if self.has_ended:
            return b""
        raise BlockingIOError

    def send(self, data: bytes) -> int:
        peer = self.peer
        assert peer is not None
        assert not self._sending_ended, "sending on an ended socket"
        if self.was_reset:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        if peer.is_closed:
            self.was_reset = True
            raise BrokenPipeError(errno.EPIPE, "closed")
        taken = min(len(data), max(peer.room - len(peer.arrived), 0))
        if not taken:
            raise BlockingIOError
        peer.arrived += data[:taken]
        return taken

    def sendmsg(self, pieces: Sequence[bytes]) -> int:
        return self.send(b"".join(pieces))

    def accept(self) -> tuple[MemorySocket, tuple[str, int]]:
        if not self.accepting:
            raise BlockingIOError
        return self.accepting.pop(0)

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        self._sending_ended = True
        if self.peer is not None:
            self.peer.has_ended = True

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        peer = self.peer
        if peer is not None and not peer.is_closed:
            if self._resets or self.arrived:
                # What the kernel does with unread data.
                peer.was_reset = True
            else:
                peer.has_ended = True

    # -- for the reactor and for tests

    def is_readable(self) -> bool:
        """
        Say whether `recv` or `accept` would give something.
        """
        return bool(self.arrived or self.accepting) or self.has_ended or self.was_reset

    def is_writable(self) -> bool:
        """
        Say whether `send` would take something.
        """
        peer = self.peer
        return self.was_reset or peer is None or peer.is_closed or peer.room > len(peer.arrived)

    def take(self) -> bytes:
        """
        Return, as a test, everything that has arrived.
        """
        data = bytes(self.arrived)
        self.arrived.clear()
        return data

    def __repr__(self) -> str:
        return f"<MemorySocket {self._descriptor} {len(self.arrived)} bytes arrived>"


class MemoryDatagrams:
    """
    A UDP socket that exists only here: `arrived` are datagrams with their senders, `sent` those it was made to send, with whom to.

    `error` is what the next system call meets, as the kernel tells a connected socket that nobody is there.
    """

    family = socket.AF_INET

    def __init__(self, descriptor: int, name: tuple[str, int] = ("127.0.0.1", 8080)) -> None:
        self._descriptor = descriptor
        self._name = name
        self.peer: Any = None
        self.arrived: list[tuple[bytes, Any]] = []
        self.sent: list[tuple[bytes, Any]] = []
        self.error = 0
        self.was_read = False
        self.is_closed = False

    def fileno(self) -> int:
        return -1 if self.is_closed else self._descriptor

    def getsockname(self) -> tuple[str, int]:
        return self._name

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        pass

    def getsockopt(self, level: int, option: int) -> int:
        error, self.error = self.error, 0
        return error

    def recvfrom_into(self, view: memoryview) -> tuple[int, Any]:
        self.was_read = True
        self._meet_error()
        if not self.arrived:
            raise BlockingIOError
        data, sender = self.arrived.pop(0)
        view[: len(data)] = data
        return len(data), sender

    def recv_into(self, view: memoryview) -> int:
        return self.recvfrom_into(view)[0]

    def sendto(self, data: Any, address: Any) -> int:
        self._meet_error()
        self.sent.append((bytes(data), address))
        return len(data)

    def send(self, data: Any) -> int:
        return self.sendto(data, self.peer)

    def _meet_error(self) -> None:
        error, self.error = self.error, 0
        if error:
            raise OSError(error, "as the test wants")

    def close(self) -> None:
        self.is_closed = True

    # -- for the reactor and for tests

    def is_readable(self) -> bool:
        """
        Say whether reading would give something.
        """
        return bool(self.arrived or self.error)

    def is_writable(self) -> bool:
        """
        Say whether sending would succeed.
        """
        return True

    def take(self) -> list[bytes]:
        """
        Return, as a test, every datagram that was sent.
        """
        sent, self.sent = self.sent, []
        return [data for data, _ in sent]

    def __repr__(self) -> str:
        return f"<MemoryDatagrams {self._descriptor} {len(self.arrived)} arrived>"


class MemoryReactor(Clock):
    """
    A clock with descriptors. Nothing happens but in `settle` and `advance`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flushes = FlushQueue()
        self.sockets: dict[int, Any] = {}
        self._readers: dict[Any, None] = {}
        self._writers: dict[Any, None] = {}

    def addReader(self, reader: Any) -> None:
        self._readers[reader] = None

    def removeReader(self, reader: Any) -> None:
        self._readers.pop(reader, None)

    def addWriter(self, writer: Any) -> None:
        self._writers[writer] = None

    def removeWriter(self, writer: Any) -> None:
        self._writers.pop(writer, None)

    def callFromThread(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.callLater(0, call, *arguments)

    def advance(self, amount: float) -> None:
        """
        Let time pass in steps of the sweep, and events happen after each.
        """
        self.settle()
        while amount > 0:
            step = min(amount, 0.5)
            super().advance(step)
            amount -= step
            self.settle()

    def settle(self) -> None:
        """
        Let everything happen that can happen without time passing.
        """
        for _ in range(100_000):
            if not self._turn():
                return
        raise AssertionError(f"the reactor does not come to rest: {list(self._readers)} {list(self._writers)}")

    def _turn(self) -> bool:
        moved = False
        super().advance(0)
        if self.flushes:
            self.flushes.run()
            moved = True
        # In the phases of `GatewayReactor`: receive from all streams, then decide, then send.
        readable = [descriptor for descriptor in self._readers if self._socket_of(descriptor).is_readable()]
        arrived = [(descriptor, descriptor.receive()) for descriptor in readable if hasattr(descriptor, "receive")]
        for stream, data in arrived:
            if data is not None:
                stream.deliver(data)
                moved = True
        for descriptor in readable:
            sock = self.sockets.get(descriptor.fileno())
            if isinstance(sock, MemoryDatagrams) and sock.was_read:
                # Dealt with while it was received.
                sock.was_read = False
                moved = True
        for descriptor in readable:
            if not hasattr(descriptor, "receive") and descriptor in self._readers:
                descriptor.doRead()
                moved = True
        for descriptor in list(self._writers):
            if descriptor in self._writers and self._socket_of(descriptor).is_writable():
                descriptor.doWrite()
                moved = True
        self.flushes.run()
        return moved or any(call.getTime() <= self.seconds() for call in self.calls)

    def _socket_of(self, descriptor: Any) -> Any:
        return self.sockets[descriptor.fileno()]

    def watched(self) -> list[Any]:
        """
        Return every descriptor that is registered, for tests that say nothing is left.
        """
        return [*self._readers, *self._writers]


@implementer(IControl)
class FakeControl:
    """
    A deciding side that answers every request to the API with the path asked for.
    """

    def admin_request(self, head: RequestHead) -> LocalResponse:
        return LocalResponse(200, [make_field(b"Content-Type", b"text/plain")], head.path)


class MemoryFrames:
    """
    One end of a channel between two links that are both here. Descriptors are numbers that are passed on as they are.
    """

    def __init__(self, reactor: MemoryReactor) -> None:
        self.peer: MemoryFrames | None = None
        self.link: Any = None
        self.is_stuck = False
        self._reactor = reactor
        self._is_closed = False

    @classmethod
    def join(cls, reactor: MemoryReactor, one: Any, other: Any) -> None:
        """
        Connect two `workers.link.Link`s. What is said arrives in a later turn of `reactor`, as bytes.
        """
        ends = cls(reactor), cls(reactor)
        for end, peer, link in zip(ends, reversed(ends), (one, other), strict=True):
            end.peer = peer
            end.link = link
            link.connect(end)

    @property
    def backlog(self) -> int:
        """
        How many frames wait. A test may say so by `is_stuck`.
        """
        return 1 << 20 if self.is_stuck else 0

    def send(self, message: Any, blob: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        if not self._is_closed:
            data = encode_frame(message, blob, len(descriptors))
            self._reactor.callLater(0, self._arrive, data, list(descriptors))

    def _arrive(self, data: bytes, descriptors: list[int]) -> None:
        assert self.peer is not None
        if not self.peer._is_closed:
            for frame in FrameReader().feed(data):
                self.peer.link.received(frame, descriptors)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            assert self.peer is not None
            self._reactor.callLater(0, self.peer.close)
            self.link.frames_lost()


class _MemoryConnecting:
    """
    A connection attempt that waits for the test's word.
    """

    def __init__(self, dialogue: Dialogue, addresses: Sequence[Any], deadline: float, done: Callable[[Any, Outcome | None], None]) -> None:
        self.addresses = list(addresses)
        self.deadline = deadline
        self._dialogue = dialogue
        self._done: Callable[[Any, Outcome | None], None] | None = done

    def succeed(self) -> MemorySocket:
        """
        Connect; return the backend's end.
        """
        ours, theirs = self._dialogue.make_pair()
        self._report(ours, None)
        return theirs

    def fail(self, outcome: Outcome = Outcome.CONNECT_REFUSED) -> None:
        """
        Do not connect.
        """
        self._report(None, outcome)

    def deadline_passed(self) -> None:
        self._report(None, Outcome.CONNECT_TIMEOUT)

    def cancel(self) -> None:
        self._done = None
        self._dialogue.dialer_deadlines.discard(self)
        self._dialogue.attempts.remove(self)

    def _report(self, sock: Any, outcome: Outcome | None) -> None:
        self._dialogue.attempts.remove(self)
        self._dialogue.dialer_deadlines.discard(self)
        done, self._done = self._done, None
        if done is not None:
            done(sock, outcome)


class Dialogue:
    """
    A carrier between clients and backends that a test plays itself.

    `connect` opens a client connection. Connection attempts to backends stand in `attempts` until the test lets them succeed or fail;
    with `answers_dials` they succeed at once and the backend's ends stand in `backends`. `datagrams` are the sockets of udp entrypoints,
    `links` those towards servers, which cannot be made while there is a `link_error`. A `resolver` is given whoever wants addresses;
    without one every name is its own. `lines` is what the access log says.
    """

    def __init__(
        self,
        config: GatewayConfig | str,
        *,
        answers_dials: bool = True,
        catalog: Catalog | None = None,
        strategies: Strategies | None = None,
        control: IControl | None = None,
        crew: Crew | None = None,
    ) -> None:
        self.catalog = catalog or find_catalog()
        self.reactor = MemoryReactor()
        self.control = FakeControl() if control is None else control
        self.sink = MemorySink(1 << 24)
        self.attempts: list[_MemoryConnecting] = []
        self.backends: list[MemorySocket] = []
        self.answers_dials = answers_dials
        self._descriptors = 10
        self._listening: dict[tuple[str, int], MemorySocket] = {}
        self.datagrams: dict[str, MemoryDatagrams] = {}
        self.links: list[MemoryDatagrams] = []
        self.resolver: Callable[[Callable[[list[Any]], None]], None] | None = None
        self.link_error = 0
        self.carrier = Carrier(
            self.reactor,
            self.control,
            self.reactor.seconds,
            open_sink=lambda _: self.sink,
            dialer=self._make_dialer,
            bind=self._bind,
            catalog=self.catalog,
            strategies=strategies,
            in_thread=self._in_thread,
            crew=crew,
            bind_datagrams=self._bind_datagrams,
        )
        self.reload(config)

    def reload(self, config: GatewayConfig | str) -> None:
        """
        Make the carrier run `config`.
        """
        if isinstance(config, str):
            config = load_string(config, "test.hcl", {}, self.catalog).valid_config()
        failures: list[Any] = []
        self.carrier.prepare(config).addErrback(failures.append)
        # A large one is prepared in steps.
        self.reactor.advance(0)
        if failures:
            failures[0].raiseException()
        self.carrier.commit()
        self.reactor.settle()

    # -- what the carrier is built with

    def make_pair(self) -> tuple[MemorySocket, MemorySocket]:
        """
        Return two connected ends that the reactor knows.
        """
        one, other = MemorySocket.pair(self._descriptors)
        self._descriptors += 2
        self.reactor.sockets[one.fileno()] = one
        return one, other

    def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        # The next turn of the reactor, as a thread's result would come.
        result: Deferred[Any] = Deferred()
        self.reactor.callLater(0, lambda: execute(call, *arguments).chainDeferred(result))
        return result

    def _bind(self, name: str, host: str, port: int) -> Any:
        sock = MemorySocket(self._descriptors)
        self._descriptors += 1
        self.reactor.sockets[sock.fileno()] = sock
        self._listening[host, port] = sock
        return sock

    def _bind_datagrams(self, name: str, host: str, port: int) -> Any:
        sock = MemoryDatagrams(self._descriptors, (host, port))
        self._descriptors += 1
        self.reactor.sockets[sock.fileno()] = sock
        self.datagrams[name] = sock
        return sock

    def make_link(self, address: Any) -> MemoryDatagrams:
        """
        Return a UDP socket connected to `address`, which stands in `links` from now on.
        """
        sock = MemoryDatagrams(self._descriptors)
        self._descriptors += 1
        sock.peer = address
        self.reactor.sockets[sock.fileno()] = sock
        self.links.append(sock)
        return sock

    def _make_dialer(self, deadlines: Any) -> Any:
        self.dialer_deadlines = deadlines
        return _MemoryDialer(self, deadlines)

    # -- what a test does

    def connect(self, peer: str = "192.0.2.1", address: tuple[str, int] | None = None) -> MemorySocket:
        """
        Open a client connection and return the client's end.
        """
        ours, theirs = self.make_pair()
        listening = next(iter(self._listening.values())) if address is None else self._listening[address]
        assert not listening.is_closed, "connection refused: nobody listens"
        listening.accepting.append((ours, (peer, 50000)))
        self.reactor.settle()
        return theirs

    def say(self, end: MemorySocket, data: bytes) -> None:
        """
        Send `data` from an end that the test holds, and let things happen.
        """
        assert end.peer is not None
        end.send(data)
        self.reactor.settle()

    def hear(self, end: MemorySocket) -> bytes:
        """
        Return what has arrived at an end that the test holds.
        """
        self.reactor.settle()
        return end.take()

    def backend(self) -> MemorySocket:
        """
        Return the backend's end of the newest connection.
        """
        self.reactor.settle()
        return self.backends[-1]

    def door(self) -> Door:
        """
        Return the only door.
        """
        (door,) = self.carrier.doors()
        return door

    def outcomes(self) -> list[str]:
        """
        Return the outcomes of all finished exchanges, from the metrics.
        """
        result: list[Mapping[str, Any]] = []
        self.carrier.snapshot().addCallback(result.append)
        return sorted(word for word, count in result[0]["outcomes"].items() for _ in range(count))

    def assert_clean(self, case: SynchronousTestCase) -> None:
        """
        Fail unless nothing is in flight, leased or held.
        """
        result: list[Mapping[str, Any]] = []
        self.carrier.snapshot().addCallback(result.append)
        for backend in result[0]["gauges"]["backends"]:
            case.assertEqual((backend["active"], backend["leased"]), (0, 0), f"{backend['url']} is still in use")
        case.assertEqual(self.attempts, [])


class _MemoryDialer:
    """
    Stands in for `net.connect.Dialer`.
    """

    def __init__(self, dialogue: Dialogue, deadlines: Any) -> None:
        self._dialogue = dialogue
        self.deadlines = deadlines

    def resolve(self, host: str, port: int, done: Callable[[list[Any]], None]) -> None:
        if self._dialogue.resolver is not None:
            self._dialogue.resolver(done)
        else:
            done([(socket.AF_INET, (host, port))])

    def unix_address(self, path: str) -> Any:
        return (socket.AF_UNIX, path)

    def connect(self, addresses: Sequence[Any], deadline: float, done: Callable[[Any, Outcome | None], None]) -> _MemoryConnecting:
        dialogue = self._dialogue
        attempt = _MemoryConnecting(dialogue, addresses, deadline, done)
        dialogue.attempts.append(attempt)
        self.deadlines.add(attempt)
        if dialogue.answers_dials:
            dialogue.reactor.callLater(0, self._succeed, attempt)
        return attempt

    def _succeed(self, attempt: _MemoryConnecting) -> None:
        if attempt in self._dialogue.attempts:
            self._dialogue.backends.append(attempt.succeed())

    def link(self, addresses: Sequence[Any], received: Callable[[memoryview], None], failed: Callable[[int], None]) -> DatagramLink:
        if self._dialogue.link_error:
            raise OSError(self._dialogue.link_error, "as the test wants")
        sock: Any = self._dialogue.make_link(addresses[0][1])
        return DatagramLink(sock, self._dialogue.reactor, received, failed)

    def stream(self, sock: Any) -> Any:
        from a3sgw.net.stream import Stream

        return Stream(sock, self._dialogue.reactor, self._dialogue.reactor.flushes, self.deadlines)

    def later(self, call: Callable[..., None], *arguments: object) -> None:
        self._dialogue.reactor.callLater(0, call, *arguments)


# -- contracts ------------------------------------------------------------------------------------------------------------------------


def _backends(count: int) -> list[Backend]:
    return [
        Backend("service", f"http://192.0.2.{number}", BackendAddress("http", f"192.0.2.{number}", 80, "", b"", b"test"), 1)
        for number in range(1, count + 1)
    ]


def balancer_contract(make: Callable[[Sequence[Backend]], IBalancer]) -> type[SynchronousTestCase]:
    """
    Return the test case that every `IBalancer` has to pass; `make` builds one for the given backends.
    """

    class BalancerContract(SynchronousTestCase):
        def test_interface(self) -> None:
            """A balancer provides its interface."""
            verifyObject(IBalancer, make(_backends(1)))

        def test_only_candidates(self) -> None:
            """A balancer chooses nobody but a candidate, however few there are."""
            backends = _backends(5)
            balancer = make(backends)
            for count in range(1, 6):
                for start in range(5):
                    candidates = (backends[start:] + backends[:start])[:count]
                    candidates.sort(key=backends.index)
                    chosen = balancer.choose(candidates, Record())
                    self.assertTrue(chosen is None or chosen in candidates)

        def test_candidates_untouched(self) -> None:
            """A balancer does not change the candidates it is given."""
            backends = _backends(4)
            candidates = list(backends)
            balancer = make(backends)
            for _ in range(10):
                balancer.choose(candidates, Record())
            self.assertEqual(candidates, backends)

        def test_everybody_in_the_end(self) -> None:
            """A balancer leaves nobody out for ever."""
            backends = _backends(3)
            balancer = make(backends)
            self.assertEqual({balancer.choose(backends, Record()) for _ in range(1000)} - {None}, set(backends))

    return BalancerContract


_HOSTILE_LINES = (
    "Authorization: Basic !!!!",
    "Authorization: Bearer ..",
    "Authorization: " + "A" * 4000,
    "Cookie: =;;=\x80;a=b; a=",
    "Origin: null",
    "Origin: http://[::",
    "Accept-Encoding: gzip;q=x, *;q=, ;;;",
    "Range: bytes=-",
    "X-Api-Key: \xff",
    "Content-Type: ;",
)


def middleware_contract(factory: Any, attributes: str = "") -> type[SynchronousTestCase]:
    """
    Return the test case that every middleware has to pass.

    `factory` provides `IMiddlewareFactory`; `attributes` is the HCL of one of its blocks, all but `type`. Long because the test case is
    a class within.
    """
    catalog = Catalog.of([factory, *(other for other in find_catalog().factories.values() if other.type_name != factory.type_name)])
    text = (
        # Where those that decide about requests and those that decide about connections may both stand.
        'entrypoints "web" {\n  address = "127.0.0.1:8080"\n  middlewares = ["it"]\n}\n'
        'routers "app" {\n  rule = "PathPrefix(`/`)"\n  service = "app"\n}\n'
        f'middlewares "it" {{\n  type = "{factory.type_name}"\n{attributes}\n}}\n'
        'services "app" {\n  load_balancer {\n    servers = [{ url = "http://192.0.2.1" }]\n  }\n}\n'
    )

    class MiddlewareContract(SynchronousTestCase):
        def config(self) -> Any:
            return load_string(text, "contract.hcl", {}, catalog).valid_config().middlewares["it"]

        def test_interface(self) -> None:
            """A factory provides its interface, and its class is a documented configuration."""
            verifyObject(IMiddlewareFactory, factory)
            self.assertEqual(factory.type_name, factory.config_class.type)
            self.assertTrue((factory.config_class.__doc__ or "").strip())
            for declared in settings_of(factory.config_class):
                self.assertTrue(declared.doc.strip(), declared.key)

        def test_configuration_is_a_value(self) -> None:
            """The same text is the same configuration, so that a reload keeps the middleware."""
            self.assertEqual(self.config(), self.config())
            self.assertEqual(hash(self.config()), hash(self.config()))

        def test_building_does_nothing(self) -> None:
            """Building, which `validate` does too, starts nothing; what is built provides at least one phase, and all of each."""
            surroundings = still_surroundings("a contract")
            built = factory.build(self.config(), surroundings)
            self.assertEqual(surroundings.reactor.getDelayedCalls(), [])
            phases = [phase for phase in MIDDLEWARE_PHASES if phase.providedBy(built)]
            self.assertTrue(phases, f"{built!r} has no phase")
            for phase in phases:
                verifyObject(phase, built)
            self.assertIsNot(factory.build(self.config(), still_surroundings("another")), built)

        def test_hostile_fields(self) -> None:
            """Whatever a client sends, it is never the gateway's fault, nothing is left behind, and the next request is served."""
            dialogue = Dialogue(text, catalog=catalog)
            for line in ("X-Plain: 1", *_HOSTILE_LINES, "X-Plain: 2"):
                client = dialogue.connect()
                dialogue.say(client, f"GET /a?b=c HTTP/1.1\r\nHost: a.test\r\n{line}\r\n\r\n".encode("latin-1"))
                for _ in range(3):
                    for backend in dialogue.backends:
                        if dialogue.hear(backend):
                            dialogue.say(backend, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")
                    dialogue.reactor.advance(1)
                heard = dialogue.hear(client)
                self.assertTrue(heard.startswith(b"HTTP/1.1 "), (line, heard))
                self.assertFalse(heard.startswith(b"HTTP/1.1 500"), (line, heard))
                client.close()
            dialogue.reactor.advance(200)
            dialogue.assert_clean(self)

    return MiddlewareContract


@implementer(IConfigSink)
class RecordingSink:
    """
    A sink that notes what a provider leaves in it.
    """

    def __init__(self) -> None:
        self.offers: list[GatewayConfig] = []
        self.failures: list[str] = []

    def offer(self, config: GatewayConfig) -> None:
        """
        Note an offer.
        """
        self.offers.append(config)

    def failed(self, reason: str) -> None:
        """
        Note a failure.
        """
        self.failures.append(reason)


def provider_contract(factory: Any, make_config: Callable[[], Any], seconds: float = 60.0) -> type[SynchronousTestCase]:
    """
    Return the test case that every provider has to pass.

    `factory` provides `IProviderFactory`; `make_config` returns one of its configurations with which there is something to offer, or to
    fail, within `seconds` of a clock. Long because the test case is a class within.
    """

    class ProviderContract(SynchronousTestCase):
        def test_interface(self) -> None:
            """A factory and what it makes provide their interfaces, and its class is a documented configuration."""
            verifyObject(IProviderFactory, factory)
            self.assertEqual(factory.type_name, factory.config_class.type)
            self.assertTrue((factory.config_class.__doc__ or "").strip())
            for declared in settings_of(factory.config_class):
                self.assertTrue(declared.doc.strip(), declared.key)
            verifyObject(IProvider, factory.build(make_config(), Clock()))

        def test_configuration_is_a_value(self) -> None:
            """Equal configurations are equal, so that a reload keeps the provider."""
            self.assertEqual(make_config(), make_config())
            self.assertEqual(hash(make_config()), hash(make_config()))

        def test_building_does_nothing(self) -> None:
            """Building starts nothing."""
            clock = Clock()
            factory.build(make_config(), clock)
            self.assertEqual(clock.getDelayedCalls(), [])

        def test_offers(self) -> None:
            """A provider that was started offers routers, services and middlewares and nothing else, or says why it cannot."""
            clock, sink = Clock(), RecordingSink()
            provider = factory.build(make_config(), clock)
            provider.start(sink)
            self._pass(clock)
            provider.stop()
            self.assertTrue(sink.offers or sink.failures, "neither an offer nor a failure")
            for offer in sink.offers:
                rest = attrs.evolve(offer, routers=FrozenMap(), services=FrozenMap(), middlewares=FrozenMap())
                self.assertEqual(rest, GatewayConfig(), "something that is not for a provider to say")
            self.assertTrue(all(reason.strip() for reason in sink.failures))

        def test_stopped(self) -> None:
            """A provider that was stopped says nothing more and leaves nothing behind, at once or later."""
            for started_for in (0.0, seconds / 2, seconds):
                clock, sink = Clock(), RecordingSink()
                provider = factory.build(make_config(), clock)
                provider.start(sink)
                clock.advance(started_for)
                provider.stop()
                said = (len(sink.offers), len(sink.failures))
                self.assertEqual(clock.getDelayedCalls(), [])
                self._pass(clock)
                self.assertEqual((len(sink.offers), len(sink.failures)), said)

        def _pass(self, clock: Clock) -> None:
            for _ in range(60):
                clock.advance(seconds / 60)

    return ProviderContract


def receiver_contract(make: Callable[[], Any]) -> type[SynchronousTestCase]:
    """
    Return the test case that every `IReceiver` has to pass; `make` builds one on an open stream.
    """

    class ReceiverContract(SynchronousTestCase):
        def test_interface(self) -> None:
            """A receiver provides its interface."""
            verifyObject(IReceiver, make())

        def test_loss_is_final(self) -> None:
            """A receiver that is told of the loss of its stream takes it quietly, whatever the error."""
            for error in (None, ConnectionResetError("reset")):
                receiver = make()
                receiver.stream_lost(error)

    return ReceiverContract
