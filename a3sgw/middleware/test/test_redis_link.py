"""
Tests of `a3sgw.middleware.redis_link`.
"""

from random import Random

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.middleware.redis_link import RedisLink, Unanswered
from a3sgw.middleware.test.fake_redis import FakeRedis
from a3sgw.wire.resp import ErrorReply, encode_command

ECHO = encode_command(b"ECHO")
TIMEOUT = 0.125


class LinkCase(SynchronousTestCase):
    """
    A link to a Redis that answers every `ECHO` with `hello`.
    """

    def setUp(self):
        self.clock = Clock()
        self.redis = FakeRedis(self.clock)
        self.redis.replies["ECHO"] = b"hello"
        self.link = self.make_link()

    def make_link(self, greeting=()):
        return RedisLink("redis://a.test", self.redis.open, greeting, self.clock, self.clock.seconds, Random(1))

    def tearDown(self):
        """
        Whatever happened, a link that is given up leaves nothing behind.
        """
        self.redis.thaw()
        self.clock.pump([0.01] * 20)
        self.link.close()
        self.clock.pump([0.01] * 20)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.redis.open_connections, [])

    def ask(self):
        """
        Ask, let things happen, and return the Deferred.
        """
        result = self.link.ask(ECHO, self.clock.seconds() + TIMEOUT)
        self.settle()
        return result

    def settle(self):
        self.clock.pump([0] * 6)

    def assert_answered(self):
        self.assertTrue(self.link.is_available, self.link)
        self.assertEqual(self.successResultOf(self.ask()), b"hello")

    def assert_unanswered(self, result, reason):
        text = str(self.failureResultOf(result, Unanswered).value)
        self.assertTrue(text.startswith(reason), text)

    def become_ready(self):
        self.assert_answered()
        self.redis.commands.clear()


class ConnectingTests(LinkCase):
    """
    How a connection comes about.
    """

    def test_first_question(self):
        """Nothing is connected before somebody asks; then it is, once, and the question is answered behind the greeting."""
        self.assertEqual((self.redis.attempts, self.clock.getDelayedCalls(), self.link.state), (0, [], "idle"))
        results = [self.ask(), self.ask()]
        self.assertEqual([self.successResultOf(result) for result in results], [b"hello", b"hello"])
        self.assertEqual((self.redis.attempts, self.redis.words(), self.link.state), (1, ["PING", "ECHO", "ECHO"], "ready"))

    def test_greeting(self):
        """A password and a database are told first, in this order, and every connection anew."""
        self.redis.password = b"s3cret"
        self.link = self.make_link([(b"AUTH", b"s3cret"), (b"SELECT", b"3")])
        self.assert_answered()
        self.assertEqual(self.redis.commands[:3], [[b"AUTH", b"s3cret"], [b"SELECT", b"3"], [b"PING"]])
        self.redis.connections[0].close()
        self.redis.commands.clear()
        self.assert_answered()
        self.assertEqual(self.redis.words(), ["AUTH", "SELECT", "PING", "ECHO"])

    def test_wrong_password(self):
        """A refused password is not repeated in the reason; as soon as it is right everything is well."""
        self.link = self.make_link([(b"AUTH", b"s3cret")])
        self.redis.password = b"another"
        self.assert_unanswered(self.ask(), "refuses AUTH: WRONGPASS")
        self.assertNotIn("s3cret", self.link.trouble)
        self.assertFalse(self.link.is_available)
        self.redis.password = b"s3cret"
        self.clock.advance(0.1)
        self.settle()
        self.assert_answered()

    def test_loading(self):
        """A Redis that still reads its data is left alone for a while."""
        self.redis.replies["PING"] = "LOADING Redis is loading the dataset in memory"
        self.assert_unanswered(self.ask(), "refuses PING: LOADING Redis is loading")
        del self.redis.replies["PING"]
        self.clock.advance(0.1)
        self.settle()
        self.assert_answered()

    def test_refused(self):
        """Where nobody listens questions fail at once, and none needs to be asked until somebody does."""
        self.redis.is_up = False
        self.assert_unanswered(self.ask(), "cannot be reached: Connection was refused")
        self.assertEqual((self.link.is_available, self.link.state), (False, "down"))
        self.redis.is_up = True
        self.clock.advance(0.1)
        self.settle()
        self.assertEqual((self.redis.attempts, self.link.state), (2, "ready"))
        self.assert_answered()

    def test_pauses(self):
        """Attempts become rarer, but never rarer than every three seconds, and go on for ever without anybody asking."""
        self.redis.is_up = False
        self.ask().addErrback(lambda failure: None)
        self.clock.pump([0.01] * 100)
        early = self.redis.attempts
        self.assertTrue(4 <= early <= 8, early)
        self.clock.pump([0.5] * 240)
        late = self.redis.attempts - early
        self.assertTrue(40 <= late <= 80, late)
        self.redis.is_up = True
        self.clock.pump([0.5] * 7)
        self.settle()
        self.assert_answered()

    def test_stuck(self):
        """Where packets vanish a question waits no longer than it wants to, the next ones not at all, and the attempt ends in time."""
        self.redis.is_reachable = False
        result = self.ask()
        self.clock.advance(TIMEOUT - 0.01)
        self.assertNoResult(result)
        self.clock.advance(0.01)
        self.settle()
        self.assert_unanswered(result, "does not answer in time")
        self.assertEqual((self.link.is_available, self.link.state), (False, "silent"))
        self.clock.advance(5)
        self.assertEqual((self.link.state, self.link.trouble), ("down", "cannot be reached in time"))
        self.redis.is_reachable = True
        self.clock.advance(0.1)
        self.settle()
        self.assert_answered()

    def test_connected_too_late(self):
        """A connection that comes about when it was just given up is closed."""

        def open_late(factory, timeout):
            made = self.redis.open(factory, timeout).result
            return Deferred(lambda attempt: attempt.callback(made))

        self.link = RedisLink("x", open_late, (), self.clock, self.clock.seconds, Random(1))
        self.ask().addErrback(lambda failure: None)
        self.clock.advance(5)
        self.assertEqual((self.redis.open_connections, self.link.state), ([], "down"))

    def test_unable_to_connect(self):
        """An attempt that raises is one that failed."""
        self.link = RedisLink("x", lambda factory, timeout: 1 / 0, (), self.clock, self.clock.seconds, Random(1))
        self.assert_unanswered(self.ask(), "cannot be reached: division by zero")

    def test_not_a_redis(self):
        """Whoever speaks another language is given up."""
        self.redis.is_frozen = True
        result = self.ask()
        self.redis.connections[0].say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assert_unanswered(result, "does not speak as Redis does: it sent a reply that begins with b'HTTP/1.1 400")
        self.assertEqual(self.redis.open_connections, [])


class AskingTests(LinkCase):
    """
    Questions on a connection that is there.
    """

    def test_pipelined(self):
        """Questions do not wait for each other, and each gets its own answer."""
        self.become_ready()
        self.redis.is_frozen = True
        results = []
        for number in range(5):
            self.redis.replies[f"GET{number}"] = number
            results.append(self.link.ask(encode_command(b"GET%d" % number), 1.0))
        self.assertEqual(len(self.redis.connections[0].asked), 5)
        self.redis.thaw()
        self.assertEqual([self.successResultOf(result) for result in results], [0, 1, 2, 3, 4])

    def test_error(self):
        """An error is a reply like others, and says nothing against the connection."""
        self.become_ready()
        self.redis.replies["ECHO"] = "NOSCRIPT No matching script."
        self.assertEqual(self.successResultOf(self.ask()), ErrorReply("NOSCRIPT", "NOSCRIPT No matching script."))
        self.assertTrue(self.link.is_available)

    def test_cancelled(self):
        """The answer to a question that nobody is interested in any more goes to nobody else."""
        self.become_ready()
        self.redis.is_frozen = True
        self.redis.replies["OTHER"] = b"other"
        left = self.ask()
        other = self.link.ask(encode_command(b"OTHER"), self.clock.seconds() + TIMEOUT)
        left.cancel()
        self.failureResultOf(left, CancelledError)
        self.redis.thaw()
        self.assertEqual(self.successResultOf(other), b"other")

    def test_cancelled_and_frozen(self):
        """A question that was given up is not what makes a Redis silent."""
        self.become_ready()
        self.redis.is_frozen = True
        self.ask().addErrback(lambda failure: None).cancel()
        self.clock.pump([0.05] * 10)
        self.assertTrue(self.link.is_available)

    def test_asked_from_an_answer(self):
        """Who gets an answer may ask again at once, for what is left of the time."""
        self.become_ready()
        found = []
        first = self.link.ask(ECHO, 0.5)
        first.addCallback(lambda reply: self.link.ask(ECHO, 0.5).addCallback(found.append))
        self.settle()
        self.assertEqual(found, [b"hello"])

    def test_asked_again_with_less_time(self):
        """Whoever has the least time left is told first, whatever the order of asking."""
        self.become_ready()
        self.clock.advance(TIMEOUT)
        self.settle()
        self.redis.is_frozen = True
        now = self.clock.seconds()
        late, early = self.link.ask(ECHO, now + 1.0), self.link.ask(ECHO, now + 0.5)
        self.clock.advance(0.5)
        self.settle()
        self.assert_unanswered(early, "does not answer in time")
        self.assertNoResult(late)
        self.clock.advance(0.5)
        self.settle()
        self.assert_unanswered(late, "does not answer in time")

    def test_late_gateway(self):
        """When the gateway itself was busy, an answer that has arrived meanwhile counts, though its time is over."""
        self.become_ready()
        self.redis.is_frozen = True
        result = self.ask()
        self.redis.is_frozen = False
        # In the turn after the one in which its time was over.
        self.clock.callLater(TIMEOUT, self.redis.connections[0].answer)
        self.clock.advance(TIMEOUT)
        self.assertEqual(self.successResultOf(result), b"hello")
        self.assertTrue(self.link.is_available)


class SilenceTests(LinkCase):
    """
    A Redis that does not answer.
    """

    def freeze(self):
        """
        Become silent while two wait.
        """
        self.become_ready()
        self.redis.is_frozen = True
        results = [self.ask(), self.ask()]
        self.clock.advance(TIMEOUT - 0.01)
        for result in results:
            self.assertNoResult(result)
        self.clock.advance(0.01)
        self.settle()
        for result in results:
            self.assert_unanswered(result, "does not answer in time")

    def test_short(self):
        """After a short silence the same connection goes on, as soon as there is any answer, and late answers go to nobody."""
        self.freeze()
        self.assertEqual((self.link.is_available, self.link.state), (False, "silent"))
        self.clock.advance(0.5)
        self.redis.thaw()
        self.assertEqual((self.link.is_available, self.link.state), (True, "ready"))
        self.redis.replies["ECHO"] = b"new"
        self.assertEqual(self.successResultOf(self.ask()), b"new")
        self.assertEqual(self.redis.attempts, 1)
        self.clock.advance(10)
        self.assertTrue(self.link.is_available)

    def test_long(self):
        """After a longer one the connection is given up; a new one is ready only when the greeting is answered."""
        self.freeze()
        self.clock.advance(1)
        self.assertEqual((self.redis.open_connections, self.link.state), ([], "down"))
        self.clock.advance(0.1)
        self.settle()
        self.assertEqual((len(self.redis.open_connections), self.link.is_available), (1, False))
        self.redis.thaw()
        self.assertTrue(self.link.is_available)
        self.assert_answered()

    def test_very_long(self):
        """Attempts at a frozen Redis do not pile up."""
        self.freeze()
        for _ in range(200):
            self.clock.advance(0.5)
            self.settle()
            self.assertLessEqual(len(self.redis.open_connections), 1)
            self.assertFalse(self.link.is_available)
        self.assertTrue(10 < self.redis.attempts < 30, self.redis.attempts)


class LossTests(LinkCase):
    """
    Connections that break.
    """

    def test_idle(self):
        """Redis may close a connection that nobody uses; the next question does not notice."""
        self.become_ready()
        self.redis.connections[0].close()
        self.assertEqual((self.link.state, self.clock.getDelayedCalls()[1:]), ("idle", []))
        self.assert_answered()
        self.assertEqual(self.redis.attempts, 2)

    def test_in_use(self):
        """Whoever waits on a connection that breaks is told at once."""
        self.become_ready()
        self.redis.is_frozen = True
        results = [self.ask(), self.ask()]
        self.redis.stop()
        for result in results:
            self.assert_unanswered(result, "closed the connection: Connection was closed cleanly.")
        self.redis.is_up = True
        self.clock.advance(0.1)
        self.settle()
        self.assert_answered()

    def test_breaks_on_every_question(self):
        """A Redis that greets and breaks off whenever it is asked is asked more and more rarely."""
        self.become_ready()
        for _ in range(300):
            if self.link.is_available:
                self.redis.is_frozen = True
                result = self.link.ask(ECHO, self.clock.seconds() + TIMEOUT)
                self.redis.connections[-1].close()
                self.assert_unanswered(result, "closed the connection")
                self.redis.is_frozen = False
            self.clock.advance(0.1)
            self.settle()
        self.assertTrue(5 < self.redis.attempts < 25, self.redis.attempts)

    def test_gives_nothing_but_errors(self):
        """The same holds for one that greets and answers every question so that the asker gives it up."""
        self.become_ready()
        self.redis.replies["ECHO"] = "READONLY"
        for _ in range(300):
            if self.link.is_available:
                self.successResultOf(self.ask())
                self.link.give_up("leads to a replica")
            self.clock.advance(0.1)
            self.settle()
        self.assertTrue(5 < self.redis.attempts < 25, self.redis.attempts)
        del self.redis.replies["ECHO"]

    def test_forgiven(self):
        """After one good answer an outage is forgotten: a connection that is closed then was just not needed."""
        self.redis.is_up = False
        self.ask().addErrback(lambda failure: None)
        self.redis.is_up = True
        self.clock.advance(0.1)
        self.settle()
        self.assert_answered()
        self.redis.connections[-1].close()
        self.assertEqual(self.link.state, "idle")
        self.assert_answered()

    def test_lost_while_it_waits_for_the_first_question(self):
        """A connection that is made after an outage and lost before it was needed is made again."""
        self.redis.is_up = False
        self.ask().addErrback(lambda failure: None)
        self.redis.is_up = True
        self.clock.advance(0.1)
        self.settle()
        self.redis.connections[-1].close()
        self.assertFalse(self.link.is_available)
        self.clock.advance(0.2)
        self.settle()
        self.assert_answered()

    def test_unasked(self):
        """What Redis says unasked is nobody's answer, and ends the connection."""
        self.become_ready()
        self.redis.connections[0].say(b"+OK\r\n+OK\r\n")
        self.assertEqual((self.redis.open_connections, self.link.trouble), ([], "talks unasked"))

    def test_given_up(self):
        """The one who asks may find a connection useless and have another one made; answers behind it are not heard."""
        self.become_ready()
        self.redis.is_frozen = True
        first, second = self.ask(), self.ask()
        first.addCallback(lambda reply: self.link.give_up("leads to a replica"))
        self.redis.thaw()
        self.assert_unanswered(second, "leads to a replica")
        self.clock.advance(0.1)
        self.settle()
        self.assert_answered()


class CloseTests(LinkCase):
    """
    Giving a link up.
    """

    def test_idle(self):
        """A connection that nobody uses is closed at once, and nothing is asked any more."""
        self.become_ready()
        self.link.close()
        self.assertEqual((self.redis.open_connections, self.link.is_available), ([], False))

    def test_in_use(self):
        """What was asked is still answered."""
        self.become_ready()
        self.redis.is_frozen = True
        result = self.ask()
        self.link.close()
        self.assertFalse(self.link.is_available)
        self.redis.thaw()
        self.assertEqual(self.successResultOf(result), b"hello")
        self.assertEqual(self.redis.open_connections, [])

    def test_frozen(self):
        """Or is not, in time."""
        self.become_ready()
        self.redis.is_frozen = True
        result = self.ask()
        self.link.close()
        self.clock.advance(TIMEOUT)
        self.settle()
        self.assert_unanswered(result, "does not answer in time")
        self.assertEqual((self.redis.open_connections, self.clock.getDelayedCalls()), ([], []))

    def test_connecting(self):
        """Questions that wait for the connection are still answered."""
        self.redis.is_frozen = True
        result = self.ask()
        self.link.close()
        self.redis.thaw()
        self.settle()
        self.assertEqual(self.successResultOf(result), b"hello")
        self.assertEqual(self.redis.open_connections, [])

    def test_broken(self):
        """If the connection breaks before that, no other one is made."""
        self.become_ready()
        self.redis.is_frozen = True
        result = self.ask()
        self.link.close()
        self.redis.stop()
        self.assert_unanswered(result, "closed the connection")
        self.redis.is_up = True
        self.clock.advance(100)
        self.assertEqual(self.redis.attempts, 1)

    def test_down(self):
        """No attempt is made any more."""
        self.redis.is_up = False
        self.ask().addErrback(lambda failure: None)
        self.link.close()
        self.clock.advance(100)
        self.assertEqual(self.redis.attempts, 1)

    def test_repr(self):
        """A link shows how it stands, and no secret."""
        self.link = self.make_link([(b"AUTH", b"s3cret")])
        self.assertEqual(repr(self.link), "<RedisLink redis://a.test, idle, 0 questions>")
