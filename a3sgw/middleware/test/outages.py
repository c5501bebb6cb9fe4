"""
What dialogues with servers that fail have in common.
"""

from a3sgw.middleware.test.dialogues import OK, MiddlewareCase, request, response

__all__ = ["FAILURES", "UNAVAILABLE", "OutageCase", "break_off", "break_off_in_the_head", "refuse", "say_nonsense", "say_nothing"]

UNAVAILABLE = response("503 No", "Content-Length: 3", body=b"no\n")


def refuse(case, end):
    case.say(end, UNAVAILABLE)


def break_off(case, end):
    end.close()


def say_nonsense(case, end):
    case.say(end, b"SSH-2.0-OpenSSH\r\n\r\n")


def break_off_in_the_head(case, end):
    case.say(end, b"HTTP/1.1 200 OK\r\nContent-Le")
    end.close()


def say_nothing(case, end):
    case.dialogue.reactor.advance(2.5)


FAILURES = [refuse, break_off, say_nonsense, break_off_in_the_head, say_nothing]
"""Ways to fail a request that the server has seen."""


class OutageCase(MiddlewareCase):
    """
    Dialogues in which servers fail. Those with a number in `down` cannot be connected to; `dialled` says to whom that was tried, and
    `number_of` which server has which end.
    """

    def pass_through(self, *middlewares, **settings):
        self.down = set()
        self.dialled = []
        self.number_of = {}
        return super().pass_through(*middlewares, answers_dials=False, **settings)

    def answer_dials(self):
        """
        Let connections be made, or fail to be.
        """
        self.dialogue.reactor.settle()
        while self.dialogue.attempts:
            attempt = self.dialogue.attempts[0]
            number = int(attempt.addresses[0][1][0].split(".")[3])
            self.dialled.append(number)
            if number in self.down:
                attempt.fail()
            else:
                end = attempt.succeed()
                self.number_of[end] = number
            self.dialogue.reactor.settle()

    def asked(self):
        """
        Return the end of the server that was asked since, or `None`. What it heard is in `heard`.
        """
        self.answer_dials()
        found = None
        for end in self.number_of:
            heard = self.hear(end)
            if heard:
                assert found is None, "two servers were asked"
                found, self.heard = end, heard
        return found

    def begin(self, data=None):
        """
        Send a request from the client; return the end of the server that was asked.
        """
        self.say(self.client, request() if data is None else data)
        return self.asked()

    def assert_served(self):
        """
        Fail unless a server is asked now, whose answer the client gets.
        """
        self.say(self.asked(), OK)
        self.assert_heard(b"200", b"ok")

    def assert_heard(self, status, end):
        """
        Fail unless the client was told this, and nothing else.
        """
        self.assertIsNone(self.asked())
        heard = self.hear(self.client)
        self.assertEqual((heard[:12], heard[-len(end) :]), (b"HTTP/1.1 " + status, end), heard)
        self.assertEqual(heard.count(b"HTTP/1.1 "), 1)

    def snapshot(self):
        told = []
        self.dialogue.carrier.snapshot().addCallback(told.append)
        return told[0]["gauges"]

    def retries(self):
        """
        Return how many retries the metrics know of.
        """
        (app,) = [row for row in self.snapshot()["services"] if row["service"] == "app"]
        return app["retries"]

    def state(self):
        (row,) = self.snapshot()["middlewares"]
        return row["state"]
