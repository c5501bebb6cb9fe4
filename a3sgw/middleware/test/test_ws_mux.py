"""
Dialogues through `ws-mux`.
"""

from random import Random

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side
from zope.interface.verify import verifyObject

from a3sgw.interfaces import IReceiver, IRequestHook, IRetirable, IStateSource
from a3sgw.middleware import mux_connection, ws_mux
from a3sgw.middleware.mux_hub import Hub, MuxTally
from a3sgw.middleware.surroundings import still_surroundings
from a3sgw.middleware.test.dialogues import OK, MiddlewareCase, request
from a3sgw.net.valve import CLIENT_SLOW
from a3sgw.proxy.test.dialogues import config
from a3sgw.proxy.test.test_upgrade import WISHES
from a3sgw.testing import middleware_contract

HANDSHAKE = request("GET", "/events", *WISHES)
MUX = 'type = "ws-mux"\n'


class WsMuxContract(middleware_contract(ws_mux.factory)):
    """
    `ws-mux` keeps the contract of middlewares.
    """

    def test_phases(self):
        """It answers handshakes, shows how it stands, and can be given up; a connection receives."""
        mux = ws_mux.WsMux(self.config(), still_surroundings("x"))
        verifyObject(IRequestHook, mux)
        verifyObject(IStateSource, mux)
        verifyObject(IRetirable, mux)
        bounds = mux_connection.Bounds(
            max_channels=1, buffer_messages=1, buffer_bytes=1, closes_slow=False, max_message_bytes=1, ping_interval=1.0, echo=False
        )
        verifyObject(IReceiver, mux_connection.MuxConnection(None, Hub("x"), bounds, MuxTally(), lambda *told: None))

    def test_the_same_name_upstairs(self):
        """A client that is slow holds its stream for the reason that streams know."""
        self.assertEqual(mux_connection._CLIENT_SLOW, CLIENT_SLOW)


class Speaker:
    """
    A client that speaks in text messages.
    """

    def __init__(self, case, *, handshake=HANDSHAKE, address=None):
        self.case = case
        self.end = case.dialogue.connect(address=address)
        self.protocol = Protocol(Side.CLIENT)
        case.say(self.end, handshake)
        head, _, rest = case.hear(self.end).partition(b"\r\n\r\n")
        self.head = head + b"\r\n"
        case.assertTrue(head.startswith(b"HTTP/1.1 101 "), head)
        self.protocol.receive_data(rest)

    def say(self, *texts):
        """
        Say these, all at once; return what is heard then.
        """
        for text in texts:
            self.protocol.send_text(text.encode())
        self.flush()
        return self.hear()

    def flush(self):
        self.case.say(self.end, b"".join(self.protocol.data_to_send()))

    def frames(self):
        """
        Return the frames that have arrived.
        """
        data = self.case.hear(self.end)
        if data:
            self.protocol.receive_data(data)
        return [event for event in self.protocol.events_received() if isinstance(event, Frame)]

    def hear(self):
        """
        Return the texts that have arrived.
        """
        return [bytes(frame.data).decode() for frame in self.frames() if frame.opcode is Opcode.TEXT]

    def closing(self):
        """
        Return the code and the reason of the close frame that has arrived.
        """
        self.frames()
        closed = self.protocol.close_rcvd
        return None if closed is None else (int(closed.code), closed.reason)

    def leave(self):
        self.end.close()
        self.case.dialogue.reactor.settle()


class MuxCase(MiddlewareCase):
    """
    A conversation with a hub.
    """

    def mux(self, attributes="", **settings):
        self.pass_through(MUX + attributes, **settings)

    def state(self):
        result = []
        self.dialogue.carrier.snapshot().addCallback(result.append)
        (row,) = result[0]["gauges"]["middlewares"]
        return row["state"]


class WordTests(MuxCase):
    """
    What is said is answered as it is written.
    """

    def test_every_word(self):
        """Subscribing, listing and the rest are answered in these words."""
        self.mux("max_channels = 2")
        client = Speaker(self)
        for text, expected in [
            ("_list", ["_channels:[]"]),
            ("_sub:news", ["_ok:subscribed to news"]),
            ("_sub: news ", ["_ok:already subscribed to news"]),
            ("_sub:b", ["_ok:subscribed to b"]),
            ("_sub:c", ["_error:max channels (2) reached"]),
            ("_list", ['_channels:["news","b"]']),
            ("_unsub:b", ["_ok:unsubscribed from b"]),
            ("_unsub:b", ["_ok:not subscribed to b"]),
            ("_ping", ["_pong"]),
            ("_sub:", ["_error:invalid channel name"]),
            ("_sub:_x", ["_error:invalid channel name"]),
            ("_sub:a:b", ["_error:invalid channel name"]),
            ("_unsub:", ["_error:invalid channel name"]),
            ("nonsense", ["_error:invalid message format"]),
            ("_other:x", ["_error:invalid message format"]),
            (":x", ["_error:invalid message format"]),
            ("unknown:x", []),
            ("b:x", []),
            ("news:x", ["news:x"]),
        ]:
            self.assertEqual(client.say(text), expected, text)
        client.leave()

    def test_sixty_four(self):
        """Without being told otherwise, a connection may have 64 channels."""
        self.mux()
        client = Speaker(self)
        self.assertEqual(len(client.say(*[f"_sub:{number}" for number in range(64)])), 64)
        self.assertEqual(client.say("_sub:64"), ["_error:max channels (64) reached"])
        client.leave()

    def test_handshake(self):
        """The key is answered, a sub-protocol only if one is configured, and other middlewares see the 101."""
        self.pass_through('type = "headers"\nresponse_headers = { X-Out = "1" }', MUX + 'subprotocol = "chat"')
        client = Speaker(self)
        accepted = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        for line in (accepted, "Sec-WebSocket-Protocol: chat", "X-Out: 1", "Upgrade: websocket"):
            self.assertIn(f"\r\n{line}\r\n".encode(), client.head)
        self.assertNotIn(b"Sec-WebSocket-Extensions", client.head)
        client.leave()
        self.mux()
        self.client = self.dialogue.connect()
        client = Speaker(self)
        self.assertNotIn(b"Sec-WebSocket-Protocol", client.head)
        client.leave()

    def test_other_requests(self):
        """A request that is no WebSocket goes on to the service."""
        self.mux()
        asked, told = self.exchange()
        self.assertTrue(asked.startswith(b"GET / HTTP/1.1\r\n"))
        self.assertEqual(told, OK)

    def test_who_may_come(self):
        """Middlewares listed before it decide who may connect."""
        self.pass_through('type = "api-key"\nkeys = ["one"]', MUX)
        _, told = self.exchange(HANDSHAKE)
        self.assertTrue(told.startswith(b"HTTP/1.1 401 "), told)
        client = Speaker(self, handshake=request("GET", "/", *WISHES, "X-API-Key: one"))
        self.assertEqual(client.say("_ping"), ["_pong"])
        client.leave()

    def test_said_with_the_handshake(self):
        """What a client sends together with its handshake is heard."""
        self.mux()
        speaker = Protocol(Side.CLIENT)
        speaker.send_text(b"_ping")
        client = Speaker(self, handshake=HANDSHAKE + b"".join(speaker.data_to_send()))
        self.assertEqual(client.hear(), ["_pong"])
        client.leave()


class DeliveryTests(MuxCase):
    """
    What is published reaches everybody who is subscribed.
    """

    def test_to_all(self):
        """A message reaches every subscriber, its sender too, and nobody else; in order."""
        self.mux()
        one, two, other = Speaker(self), Speaker(self), Speaker(self)
        one.say("_sub:news")
        two.say("_sub:news", "_sub:more")
        other.say("_sub:more")
        self.assertEqual(one.say("news:1", "news:ü 2:3"), ["news:1", "news:ü 2:3"])
        self.assertEqual(two.hear(), ["news:1", "news:ü 2:3"])
        self.assertEqual(other.hear(), [])
        self.assertEqual(other.say("news:not subscribed"), [])
        self.assertEqual(one.hear(), [])
        one.say("_unsub:news")
        self.assertEqual(two.say("news:4"), ["news:4"])
        self.assertEqual(one.hear(), [])
        self.assertEqual(
            self.state(),
            {
                "hub": "m1", "connections": 3, "channels": 2, "messages_received": 9, "messages_sent": 5, "messages_dropped": 0,
            },
        )
        for client in (one, two, other):
            client.leave()
        self.assertEqual((self.state()["connections"], self.state()["channels"]), (0, 0))

    def test_without_the_sender(self):
        """With `echo = false` the sender does not get its own message."""
        self.mux("echo = false")
        one, two = Speaker(self), Speaker(self)
        one.say("_sub:a")
        two.say("_sub:a")
        self.assertEqual(one.say("a:1"), [])
        self.assertEqual(two.hear(), ["a:1"])
        one.leave()
        two.leave()

    def test_hubs(self):
        """Routers that lead to the same hub share its channels; others do not."""
        more = (
            'routers "b" {\n rule = "PathPrefix(`/b`)"\n service = "app"\n middlewares = ["m1"]\n}\n'
            'routers "c" {\n rule = "PathPrefix(`/c`)"\n service = "app"\n middlewares = ["other"]\n}\n'
            'routers "d" {\n rule = "PathPrefix(`/d`)"\n service = "app"\n middlewares = ["apart"]\n}\n'
            f'middlewares "other" {{\n{MUX}hub = "m1"\necho = false\n}}\nmiddlewares "apart" {{\n{MUX}}}\n'
        )
        self.mux(more=more)
        clients = [Speaker(self, handshake=request("GET", path, *WISHES)) for path in ("/a", "/b", "/c", "/d")]
        for client in clients:
            client.say("_sub:x")
        clients[0].say("x:1")
        self.assertEqual([client.hear() for client in clients[1:]], [["x:1"], ["x:1"], []])
        for client in clients:
            client.leave()

    def test_ends_of_subscribers(self):
        """A subscriber that breaks off is forgotten, and the others are served."""
        self.mux()
        one, two = Speaker(self), Speaker(self)
        one.say("_sub:a")
        two.say("_sub:a")
        one.leave()
        self.assertEqual(two.say("a:1"), ["a:1"])
        two.leave()
        self.assertEqual(self.dialogue.outcomes(), ["client-closed", "client-closed"])


class SlowTests(MuxCase):
    """
    A client that does not keep up is kept within bounds, and holds nobody.
    """

    def fall_behind(self, attributes):
        self.mux(attributes)
        slow, fast = Speaker(self), Speaker(self)
        slow.say("_sub:a", "_sub:b")
        fast.say("_sub:a", "_sub:b")
        slow.end.room = 1
        fast.say("a:first")
        return slow, fast

    def test_oldest_dropped(self):
        """Of each channel the newest messages are kept, and come in the order in which they were published."""
        slow, fast = self.fall_behind("echo = false\nbuffer_messages = 3")
        fast.say("b:0")
        for number in range(1, 6):
            fast.say(f"a:{number}")
        slow.end.room = 1 << 20
        self.assertEqual(slow.hear(), ["a:first", "b:0", "a:3", "a:4", "a:5"])
        self.assertEqual(self.state()["messages_dropped"], 2)
        fast.say("a:6")
        self.assertEqual(slow.hear(), ["a:6"])
        slow.leave()
        fast.leave()

    def test_default_bound(self):
        """Without being told otherwise, 256 messages of each channel are kept."""
        slow, fast = self.fall_behind("echo = false")
        fast.say(*[f"a:{number}" for number in range(300)])
        slow.end.room = 1 << 20
        self.assertEqual(slow.hear(), ["a:first", *[f"a:{number}" for number in range(44, 300)]])
        slow.leave()
        fast.leave()

    def test_bytes(self):
        """All that is kept is bounded by its size too; the oldest goes first, of whatever channel."""
        slow, fast = self.fall_behind("echo = false\nbuffer_bytes = 1024")
        text = "x" * 400
        fast.say(f"b:0{text}", f"a:1{text}", f"a:2{text}", f"b:3{text}")
        slow.end.room = 1 << 20
        self.assertEqual(slow.hear(), ["a:first", f"a:2{text}", f"b:3{text}"])
        # What was taken counts no more.
        slow.end.room = 1
        fast.say("a:4", f"a:5{text}", f"a:6{text}")
        slow.end.room = 1 << 20
        self.assertEqual(slow.hear(), ["a:4", f"a:5{text}", f"a:6{text}"])
        slow.leave()
        fast.leave()

    def test_closed(self):
        """With `overflow = "close"` the connection is closed when there is too much for it."""
        slow, fast = self.fall_behind('echo = false\nbuffer_messages = 2\noverflow = "close"')
        fast.say("a:1", "a:2", "a:3")
        slow.end.room = 1 << 20
        self.assertEqual(slow.hear(), ["a:first"])
        self.assertEqual(slow.closing(), (1013, "too slow"))
        self.assertEqual(self.dialogue.outcomes(), ["client-stalled"])
        slow.leave()
        fast.leave()

    def test_unsubscribed_meanwhile(self):
        """What was kept of a channel is not sent once the client has left it, which is heard when it can be read again."""
        slow, fast = self.fall_behind("")
        slow.protocol.send_text(b"_unsub:a")
        slow.end.send(b"".join(slow.protocol.data_to_send()))
        fast.say("a:1", "b:1")
        slow.end.room = 1 << 20
        self.assertEqual(slow.hear(), ["a:first", "a:1", "b:1", "_ok:unsubscribed from a"])
        slow.leave()
        fast.leave()

    def test_answers_do_not_pile_up(self):
        """A client that asks and does not read is not read either."""
        self.mux()
        client = Speaker(self)
        client.end.room = 10
        for _ in range(50):
            client.protocol.send_text(b"_list")
            client.end.send(b"".join(client.protocol.data_to_send()))
            self.dialogue.reactor.settle()
        stream = next(each for each in self.dialogue.carrier._deadlines.watched() if "client-slow" in repr(each))
        self.assertLess(stream.unsent, 100)
        client.end.room = 1 << 20
        self.assertEqual(len(client.hear()), 50)
        client.leave()

    def test_stalled(self):
        """A client that takes nothing at all is given up."""
        slow, fast = self.fall_behind('ping_interval = "5s"')
        for _ in range(3):
            self.dialogue.reactor.advance(5)
            fast.frames()
            fast.flush()
        self.assertEqual(self.dialogue.outcomes(), ["client-stalled"])
        self.assertTrue(slow.end.was_reset)
        fast.leave()


class EndTests(MuxCase):
    """
    How connections end.
    """

    def test_closed_by_the_client(self):
        """A client's farewell is answered with its own code."""
        self.mux()
        client = Speaker(self)
        client.protocol.send_close(4000, "done")
        client.flush()
        self.assertEqual(client.closing(), (4000, "done"))
        self.assertTrue(client.end.has_ended)
        self.assertEqual(self.dialogue.outcomes(), ["completed"])
        client.leave()

    def test_broken_rules(self):
        """What is against the rules of WebSocket is answered with the code for it."""
        for data, code in [
            (b"\x81\x05hello", 1002),
            (b"\x82\x81abcd\x00", 1003),
            (b"\x81\x82\0\0\0\0\xff\xff", 1007),
            (b"\xf1\x80\0\0\0\0", 1002),
            (b"\x80\x80\0\0\0\0", 1002),
            (b"\x81\xff" + (1 << 20).to_bytes(8, "big") + b"\0\0\0\0", 1009),
        ]:
            self.mux()
            client = Speaker(self)
            self.say(client.end, data)
            # What still comes is dropped, and does not destroy the farewell.
            self.say(client.end, b"more of it")
            self.assertFalse(client.end.was_reset)
            closing = client.closing()
            self.assertEqual(closing and closing[0], code, data)
            client.leave()
            self.assertEqual(self.dialogue.outcomes(), ["websocket-broken"])

    def test_two_wrongs(self):
        """Two things against the rules in one piece, or one together with a farewell, are answered once."""
        for data, codes in [
            (b"\x82\x81abcd\x00" + b"\x81\x05hello", (1002, 1003)),
            (b"\x82\x81abcd\x00" + b"\x88\x82\0\0\0\0\x03\xe8", (1000, 1003)),
            (b"\x81\x82\0\0\0\0\xff\xff" * 2, (1007,)),
        ]:
            self.mux()
            client = Speaker(self)
            self.say(client.end, data)
            closing = client.closing()
            self.assertIn(closing and closing[0], codes)
            self.assertTrue(client.end.has_ended)
            client.leave()
            self.assertEqual(self.dialogue.outcomes(), ["websocket-broken"])

    def test_fragments(self):
        """A message may come in fragments, with a ping between them, and byte by byte."""
        self.mux()
        client = Speaker(self)
        protocol = client.protocol
        protocol.send_text(b"_pi", fin=False)
        protocol.send_ping(b"x")
        protocol.send_continuation(b"ng", fin=True)
        for byte in b"".join(protocol.data_to_send()):
            self.say(client.end, bytes([byte]))
        frames = client.frames()
        self.assertEqual([(frame.opcode, bytes(frame.data)) for frame in frames], [(Opcode.PONG, b"x"), (Opcode.TEXT, b"_pong")])
        client.leave()

    def test_a_message_too_large(self):
        """Fragments count together."""
        self.mux("max_message_bytes = 20")
        client = Speaker(self)
        client.protocol.send_text(b"x" * 15, fin=False)
        client.protocol.send_continuation(b"x" * 15, fin=True)
        client.flush()
        closing = client.closing()
        self.assertEqual(closing and closing[0], 1009)
        client.leave()

    def test_signs_of_life(self):
        """A client is asked for a sign of life, and stays while it gives one."""
        self.mux('ping_interval = "10s"')
        client = Speaker(self)
        for _ in range(5):
            self.dialogue.reactor.advance(10.5)
            self.assertEqual([frame.opcode for frame in client.frames()], [Opcode.PING])
            client.flush()
        self.assertEqual(self.dialogue.outcomes(), [])
        self.dialogue.reactor.advance(25)
        self.assertEqual(self.dialogue.outcomes(), ["tunnel-idle"])
        self.assertTrue(client.end.was_reset)

    def test_drain(self):
        """When the gateway stops, clients are told 1001 at the end of the time for draining."""
        self.mux()
        client = Speaker(self)
        aborted = []
        self.dialogue.carrier.drain(5).addCallback(aborted.append)
        self.dialogue.reactor.advance(4)
        self.assertEqual(client.say("_ping"), ["_pong"])
        self.dialogue.reactor.advance(2)
        self.assertEqual(client.closing(), (1001, ""))
        self.assertEqual(aborted, [1])
        self.assertEqual(self.dialogue.outcomes(), ["shutting-down"])
        self.dialogue = None

    def test_reload(self):
        """A reload that changes how the middleware is configured keeps its hub; one that takes it away closes with 1012."""
        self.mux()
        one = Speaker(self)
        one.say("_sub:a")
        self.dialogue.reload(config(middlewares=[MUX + "echo = false"]))
        two = Speaker(self)
        two.say("_sub:a")
        self.assertEqual(two.say("a:1"), [])
        self.assertEqual(one.hear(), ["a:1"])
        self.dialogue.reload(config())
        self.assertEqual((one.closing(), two.closing()), ((1012, ""), (1012, "")))
        one.leave()
        two.leave()
        self.assertEqual(self.dialogue.outcomes(), ["shutting-down", "shutting-down"])


class GarbageTests(MuxCase):
    """
    Whatever a client sends, its connection ends once, in order, and nobody else is harmed.
    """

    def test_mutations(self):
        """Three hundred conversations with bytes changed, lost and doubled leave no bug, no connection and no channel behind."""
        chance = Random(7)
        self.mux("max_message_bytes = 1000")
        neighbour = Speaker(self)
        neighbour.say("_sub:a")
        for number in range(300):
            client = Protocol(Side.CLIENT)
            for text in ("_sub:a", "a:x", "_list", "b:y", "_ping"):
                client.send_text(text.encode())
            client.send_binary(b"x" * chance.randrange(3), fin=chance.random() < 0.5)
            data = bytearray(b"".join(client.data_to_send()))
            for _ in range(chance.randrange(1, 6)):
                at = chance.randrange(len(data))
                what = chance.randrange(3)
                if what == 0:
                    data[at] = chance.randrange(256)
                elif what == 1:
                    del data[at]
                else:
                    data[at:at] = data[max(0, at - chance.randrange(20)) : at]
            speaker = Speaker(self)
            cut = chance.randrange(len(data))
            self.say(speaker.end, bytes(data[:cut]) or b"\x81")
            if not speaker.end.peer.is_closed:
                self.say(speaker.end, bytes(data[cut:]))
            self.assertEqual(self.flushLoggedErrors(), [], (number, bytes(data)))
            speaker.leave()
            neighbour.frames()
        self.assertEqual(neighbour.say("_list"), ['_channels:["a"]'])
        self.assertEqual((self.state()["connections"], self.state()["channels"]), (1, 1))
        neighbour.leave()
        self.assertEqual(len(self.dialogue.outcomes()), 301)
