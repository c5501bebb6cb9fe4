"""
A Redis that exists only here, and does as a test says.
"""

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from a3sgw.wire.resp import ReplyReader


def encode_reply(reply):
    """
    Return a reply as it goes on the wire; a str is an error.
    """
    if isinstance(reply, str):
        return f"-{reply}\r\n".encode()
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, list):
        return b"*%d\r\n%b" % (len(reply), b"".join(map(encode_reply, reply)))
    return b"$%d\r\n%b\r\n" % (len(reply), reply)


class FakeConnection(StringTransport):
    """
    The server's end of one connection. `asked` holds the commands that it has not answered.
    """

    def __init__(self, server, protocol):
        super().__init__()
        self.asked = []
        self.is_open = True
        self.protocol = protocol
        self._server = server
        self._reader = ReplyReader(1 << 20)

    def write(self, data):
        assert self.is_open, "written to after the end"
        for words in self._reader.feed(data):
            self.asked.append(words)
            self._server.commands.append(words)
        self._server.reactor.callLater(0, self.answer)

    def answer(self):
        """
        Answer all that was asked, unless the server is frozen or gone.
        """
        while self.asked and self.is_open and not self._server.is_frozen:
            words = self.asked.pop(0)
            self.say(encode_reply(self._server.reply_to(words, self)))

    def say(self, data):
        """
        Send bytes, asked or not.
        """
        if self.is_open:
            self.protocol.dataReceived(data)

    def abortConnection(self):
        self.is_open = False

    def close(self, reason=None):
        """
        Close the connection from the server's side.
        """
        if self.is_open:
            self.is_open = False
            self.protocol.connectionLost(Failure(reason or ConnectionDone()))


class FakeRedis:
    """
    A server with the one script that it knows by heart, on the clock of `reactor`.

    `commands` is everything it was ever asked. Set `is_up` to false to have connections refused, `is_reachable` to have them get stuck,
    `is_frozen` to have it accept and say nothing, `password` to be asked for one, and `replies` to have a word answered differently.
    """

    def __init__(self, reactor=None):
        self.reactor = reactor
        self.is_up = self.is_reachable = True
        self.is_frozen = False
        self.password = None
        self.replies = {}
        self.commands = []
        self.connections = []
        self.attempts = 0
        self.buckets = {}
        self.knows_script = False

    def open(self, factory, timeout):
        """
        Stand in for `redis_endpoint`.
        """
        self.attempts += 1
        if not self.is_reachable:
            return Deferred()
        if not self.is_up:
            return fail(ConnectionRefusedError())
        protocol = factory.buildProtocol(None)
        connection = FakeConnection(self, protocol)
        protocol.makeConnection(connection)
        self.connections.append(connection)
        return succeed(protocol)

    @property
    def open_connections(self):
        """
        The connections that have not been closed.
        """
        return [connection for connection in self.connections if connection.is_open]

    def words(self):
        """
        Return the first word of every command, and forget them.
        """
        found = [words[0].decode() for words in self.commands]
        self.commands.clear()
        return found

    def stop(self):
        """
        Die: connections break, new ones are refused, and everything is forgotten.
        """
        self.is_up = False
        self.is_frozen = False
        self.buckets.clear()
        self.knows_script = False
        for connection in self.open_connections:
            connection.close()

    def thaw(self):
        """
        Go on after having been frozen.
        """
        self.is_frozen = False
        for connection in self.open_connections:
            connection.answer()

    def reply_to(self, words, connection):
        """
        Return the answer to one command.
        """
        name = words[0].decode()
        if name in self.replies:
            return self.replies[name]
        if name == "AUTH":
            return b"OK" if words[-1] == self.password else f"WRONGPASS {words[-1].decode()} is wrong"
        if name == "EVALSHA" and not self.knows_script:
            return "NOSCRIPT No matching script."
        if name in ("EVAL", "EVALSHA"):
            self.knows_script = True
            return self._take(words[3], float(words[4]), int(words[5]))
        return b"PONG" if name == "PING" else b"OK"

    def _take(self, key, rate, burst):
        now = self.reactor.seconds()
        tokens, last = self.buckets.get(key, (burst, now))
        tokens = min(burst, tokens + (now - last) * rate)
        if tokens < 1:
            return [0, b"%.17g" % tokens]
        self.buckets[key] = (tokens - 1, now)
        return [1, b"%.17g" % (tokens - 1)]
