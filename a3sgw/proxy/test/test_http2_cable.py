"""
The cable is pulled, or bent, at each byte of a recorded answer over HTTP/2: what the client sees, and what is left.
"""

import random

from a3sgw.proxy.test.dialogues import request
from a3sgw.proxy.test.http2_peers import Http2Backend
from a3sgw.proxy.test.test_http2_client import Http2Case

CALL = request("POST", "/a.B/C", "Content-Type: application/grpc", "Transfer-Encoding: chunked", body=b"5\r\n\0\0\0\0\0\r\n0\r\n\r\n")
KNOWN = {"completed", "backend-closed", "response-incomplete", "response-malformed", "stream-refused"}


class Http2CableCase(Http2Case):
    """
    Answers that were recorded: bytes from the preface to the last, with and without a body and trailers.
    """

    def record(self, play):
        """
        Return what a backend says when it answers a call as `play` does.
        """
        self.converse()
        said = bytearray()
        self.say(self.client, CALL)
        peer = self.peer()
        end = self.dialogue.backends[0]
        said += self.preface
        send = end.send

        def keep(data):
            said.extend(data)
            return send(data)

        end.send = keep
        play(peer)
        peer.listen()
        self.told()
        self.close()
        return bytes(said)

    @property
    def preface(self):
        """
        What the backend said before anybody listened: its settings, and that it has taken ours.
        """
        return Http2Backend(None, None).h2.data_to_send() + b"\0\0\0\4\1\0\0\0\0"

    def close(self):
        """
        End the dialogue; fail unless nothing is left of it.
        """
        self.client.close()
        self.dialogue.reactor.advance(1)
        self.dialogue.assert_clean(self)
        self.assertEqual([(pool.leased, pool.connecting) for pool in self.backends()], [(0, 0), (0, 0)])
        self.dialogue = None

    def backends(self):
        (service,) = self.dialogue.carrier.generation().services.values()
        return service.backends[0].pools

    def begin(self):
        """
        Send the call; return the backend's end.
        """
        self.converse()
        self.say(self.client, CALL)
        return self.dialogue.backend()

    def outcome(self):
        """
        Return how the call ended, once the client has had its time.
        """
        self.dialogue.reactor.advance(1)
        (word,) = self.dialogue.outcomes()
        return word


def whole(peer):
    """
    Answer with everything there is.
    """
    peer.head(1, ("x-hint", "1"), status=103)
    peer.head(1, ("content-type", "application/grpc"), ("date", "D"))
    peer.data(1, b"\0\0\0\0\3abc")
    peer.data(1, b"\0\0\0\0\3def")
    peer.end_with(1, ("grpc-status", "0"))


def brief(peer):
    """
    Answer with a head alone.
    """
    peer.head(1, ("content-type", "application/grpc"), ("grpc-status", "5"), ended=True)


class PulledTests(Http2CableCase):
    """
    A connection that ends.
    """

    def test_each_byte(self):
        """An answer is whole, or the client is told that it is not, and nothing is left either way."""
        for play in (whole, brief):
            said = self.record(play)
            seen = []
            for cut in range(len(said) + 1):
                for resets in (False, True):
                    end = self.begin()
                    self.say(end, said[:cut]) if cut else None
                    if resets:
                        end._resets = True
                    end.close()
                    self.dialogue.reactor.settle()
                    heard = self.hear(self.client)
                    word = self.outcome()
                    if word == "backend-closed":
                        self.assertIn(b"\r\ngrpc-status: 14\r\n", heard)
                    elif word == "response-incomplete":
                        self.assertFalse(heard.endswith(b"0\r\n\r\n"), heard)
                        self.assertTrue(self.client.was_reset)
                    else:
                        self.assertEqual(word, "completed")
                        self.assertEqual(cut, len(said))
                    seen.append(word)
                    self.close()
            self.assertEqual(seen[-2:], ["completed"] * 2)
            self.assertEqual(seen[0], "backend-closed")

    def test_byte_by_byte(self):
        """It is all the same in whatever pieces an answer comes."""
        said = self.record(whole)
        end = self.begin()
        for byte in said:
            self.say(end, bytes([byte]))
        heard = self.hear(self.client)
        self.assertTrue(heard.endswith(b"8\r\n\0\0\0\0\3abc\r\n8\r\n\0\0\0\0\3def\r\n0\r\ngrpc-status: 0\r\n\r\n"), heard)
        self.assertEqual(self.outcome(), "completed")
        self.close()

    def test_each_byte_of_the_request(self):
        """A client that leaves within its request, or its answer, leaves nothing behind."""
        said = self.record(whole)
        for cut in range(0, len(CALL) + 1, 3):
            self.converse()
            self.say(self.client, CALL[:cut]) if cut else None
            if self.dialogue.backends:
                self.say(self.dialogue.backends[0], said[: len(said) // 2])
            self.client.close()
            self.dialogue.reactor.settle()
            self.close()


class BentTests(Http2CableCase):
    """
    Bytes that are not what they were.
    """

    def test_bent(self):
        """Whatever a backend says, the call has an end, the next one is answered, and nothing raises."""
        chance = random.Random(9113)
        said = self.record(whole)
        for _ in range(400):
            bent = bytearray(said)
            for _ in range(chance.choice((1, 1, 2, 8))):
                bent[chance.randrange(len(bent))] = chance.randrange(256)
            end = self.begin()
            self.say(end, bytes(bent))
            if not end.is_closed:
                end.close()
            self.assertIn(self.outcome(), KNOWN)
            self.close()
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_garbage(self):
        """So do bytes that were never an answer."""
        chance = random.Random(7541)
        preface = self.preface
        for _ in range(200):
            end = self.begin()
            self.say(end, preface + chance.randbytes(chance.randrange(1, 60)))
            end.close()
            self.assertIn(self.outcome(), KNOWN)
            self.close()
