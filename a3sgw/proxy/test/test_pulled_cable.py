"""
The cable is pulled at each byte of a recorded exchange with a service that has everything: what the client sees, and what is left.
"""

from a3sgw.proxy.test.dialogues import OK, DialogueCase, request, response

ANSWER = response("200 OK", "Content-Type: text/plain", "Content-Length: 12", body=b"hello, world")
CHUNKED = response("200 OK", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n")
RETRY = 'type = "retry"\nmax_retries = 3\nretry_interval_ms = 1'
SERVICE = """
  scaling {
    container_concurrency = 4
    buffer_enabled        = true
  }
  failover { service = "spare" }
"""
SPARE = 'services "spare" {\n load_balancer {\n servers = [{ url = "http://192.0.2.9" }]\n }\n}'
GARBAGE = (
    b"\0" * 20,
    b"x",
    b"x" * 70_000,
    b"\r\n\r\n\r\n",
    b"HTTP/1.1 999 Odd\r\n\r\n",
    b"HTTP/2.0 200\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
)


class CableCase(DialogueCase):
    """
    A dialogue with two servers behind `retry`, limits, stickiness, passive health and failover.
    """

    def begin(self, data=None):
        self.converse(servers=2, middlewares=[RETRY], service=SERVICE, more=SPARE)
        service = self.dialogue.carrier.generation().services["app"]
        self.room = service.traits.room
        return self.ask(request() if data is None else data)

    def end(self):
        """
        Nothing is left: no place, no lease, no count.
        """
        self.client.close()
        self.dialogue.reactor.advance(5)
        self.assertEqual((self.room.in_use, self.room.waiting), (0, 0))
        self.dialogue.reactor.advance(200)
        self.dialogue.assert_clean(self)
        self.dialogue = None

    def answer_elsewhere(self, first):
        """
        Let whichever server is asked next answer well; return what the client heard.
        """
        self.dialogue.reactor.advance(1)
        second = self.dialogue.backend()
        self.assertIsNot(second, first)
        self.assertTrue(self.hear(second))
        self.say(second, OK)
        return self.hear(self.client)


class ResponseTests(CableCase):
    """
    The server's cable.
    """

    def test_each_byte(self):
        """
        Cut before the client has seen anything, another server answers; cut later, the client's connection is reset; whole is whole.
        """
        for answer in (ANSWER, CHUNKED):
            for end in range(len(answer) + 1):
                first = self.begin()
                self.hear(first)
                if end:
                    self.say(first, answer[:end])
                first.close()
                self.dialogue.reactor.settle()
                heard = self.hear(self.client)
                if end == len(answer):
                    self.assertIn(b"world", heard)
                elif heard:
                    self.assertTrue(self.client.was_reset, (end, heard))
                else:
                    self.assertTrue(self.answer_elsewhere(first).endswith(b"ok"), end)
                self.end()

    def test_each_byte_reset(self):
        """
        A reset is as good as a close.
        """
        for end in range(0, len(ANSWER), 7):
            first = self.begin()
            self.hear(first)
            if end:
                self.say(first, ANSWER[:end])
            first.setsockopt(0, 13, 0)
            first._resets = True
            first.close()
            self.dialogue.reactor.settle()
            heard = self.hear(self.client)
            if heard:
                self.assertTrue(self.client.was_reset, (end, heard))
            else:
                self.assertTrue(self.answer_elsewhere(first).endswith(b"ok"), end)
            self.end()

    def test_each_byte_stalled(self):
        """
        A server that goes silent is given up after its time, and another one answers if nothing was seen of it.
        """
        for end in range(0, len(ANSWER), 9):
            first = self.begin()
            self.hear(first)
            if end:
                self.say(first, ANSWER[:end])
            self.dialogue.reactor.advance(70)
            heard = self.hear(self.client)
            if heard:
                self.assertTrue(self.client.was_reset, (end, heard))
            else:
                self.assertTrue(self.answer_elsewhere(first).endswith(b"ok"), end)
            self.end()

    def test_garbage(self):
        """
        A server that answers what is no answer is not asked again, and another one is.
        """
        for garbage in GARBAGE:
            first = self.begin()
            self.hear(first)
            self.say(first, garbage)
            self.assertEqual(self.hear(self.client), b"", garbage[:30])
            self.assertTrue(self.answer_elsewhere(first).endswith(b"ok"), garbage[:30])
            self.end()

    def test_lies_about_lengths(self):
        """
        More than was announced is cut off and the connection not used again; less is an incomplete answer.
        """
        first = self.begin()
        self.hear(first)
        self.say(first, ANSWER + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        heard = self.hear(self.client)
        self.assertTrue(heard.endswith(b"hello, world"), heard)
        self.say(self.client, request())
        self.assertIsNot(self.dialogue.backend(), first)
        self.hear(self.dialogue.backend())
        self.say(self.dialogue.backend(), OK)
        self.assertTrue(self.hear(self.client).endswith(b"ok"))
        self.end()

    def test_nobody_left(self):
        """
        When every server and the one that steps in break off, the client is told 502 with the reason.
        """
        self.begin()
        for _ in range(4):
            backend = self.dialogue.backend()
            self.hear(backend)
            backend.close()
            self.dialogue.reactor.advance(2)
        self.dialogue.reactor.settle()
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 502 "), heard)
        self.assertIn(b'"reason": "backend-closed"', heard)
        self.end()

    def test_post_is_not_repeated(self):
        """
        What must not be sent twice is not, wherever the cable is cut.
        """
        for end in range(0, len(ANSWER), 11):
            first = self.begin(request("POST", "/", "Content-Length: 3", body=b"abc"))
            self.hear(first)
            if end:
                self.say(first, ANSWER[:end])
            first.close()
            self.dialogue.reactor.advance(2)
            heard = self.hear(self.client)
            self.assertTrue(heard.startswith(b"HTTP/1.1 502 ") or self.client.was_reset, (end, heard))
            self.assertEqual(len(self.dialogue.backends), 1)
            self.end()


class RequestTests(CableCase):
    """
    The client's cable.
    """

    def test_each_byte(self):
        """
        A client that leaves at any byte of its request leaves nothing behind.
        """
        whole = request("PUT", "/", "Content-Length: 6", body=b"abcdef")
        for end in range(1, len(whole)):
            self.converse(servers=2, middlewares=[RETRY], service=SERVICE, more=SPARE)
            self.room = self.dialogue.carrier.generation().services["app"].traits.room
            self.say(self.client, whole[:end])
            self.end()

    def test_while_answered(self):
        """
        A client that leaves at any byte of its answer gives the server's connection up, or back.
        """
        for end in range(len(ANSWER)):
            first = self.begin()
            self.hear(first)
            if end:
                self.say(first, ANSWER[:end])
            self.end()
