"""
Connections and the requests on them: what ends when a client leaves, and what is used again when it stays.
"""

from __future__ import annotations

import os
import threading

from tests.setting import GatewayCase, metric, service
from tests.support import PATIENCE, wait_until
from tests.wire import Client, FullBacklog, Scene, Stage, read_body, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class DisconnectTests(GatewayCase):
    """
    Who goes away takes with him what was done for him, and nothing else.
    """

    @classmethod
    def parts(cls) -> list[str]:
        return [
            service("unreachable", [cls.enter(FullBacklog()).port], "timeouts {\n  connect = \"30s\"\n}"),
        ]

    def test_client_leaves_while_the_backend_thinks(self):
        """
        When the client leaves, the backend sees its own connection end within a second.
        """
        for leave in (Client.close, Client.reset):
            ended = self._watch("/thinking", b"")
            client = self.connect()
            before = self.stage.count("/thinking")
            client.ask("/thinking")
            self._wait_for_more("/thinking", before)
            self.assertEqual(self.active(), 1)
            leave(client)
            self.assertTrue(ended.wait(1.0), "the backend did not see the end")
            wait_until(lambda: self.active() == 0, "nothing is in flight", 1.0)
            record = self.wait_for_record("/thinking")
            self.assertEqual((record["outcome"], record["status"]), ("client-closed", 0))
        self.check_unharmed()

    def test_client_leaves_within_the_answer(self):
        """
        When the client leaves in the middle of an answer, the backend is not listened to any longer.
        """
        ended = self._watch("/half", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhalf")
        client = self.connect()
        client.ask("/half")
        client.read_head()
        self.assertEqual(client.read(4), b"half")
        client.close()
        self.assertTrue(ended.wait(1.0), "the backend did not see the end")
        record = self.wait_for_record("/half")
        self.assertEqual((record["outcome"], record["status"], record["response_bytes"]), ("client-closed", 200, 4))
        self.check_unharmed()

    def test_client_leaves_within_the_upload(self):
        """
        When the client leaves in the middle of its upload, the backend sees a broken connection and no complete request.
        """
        seen = []
        ended = threading.Event()

        def play(conversation: Scene, head: bytes) -> bool:
            try:
                seen.append(conversation.read_to_end())
            except ConnectionError:
                seen.append(b"reset")
            ended.set()
            return True

        self.stage.on("/leaving", play)
        for framing, body in (("Content-Length: 1000", b"part"), ("Transfer-Encoding: chunked", b"4\r\npart\r\n")):
            ended.clear()
            seen.clear()
            client = self.connect()
            before = self.stage.count("/leaving")
            client.send(request("/leaving", framing, method="POST") + body)
            self._wait_for_more("/leaving", before)
            client.close()
            self.assertTrue(ended.wait(1.0), "the backend did not see the end")
            self.assertNotIn(b"0\r\n\r\n", seen[0])
        self.check_unharmed()

    def test_client_leaves_before_the_backend_is_reached(self):
        """
        When the client leaves while the connection to the backend is still being made, the attempt is given up.
        """
        for target, method, body in (("/unreachable/get", "GET", b""), ("/unreachable/post", "POST", b"body")):
            client = self.connect()
            client.ask(target, method=method, body=body)
            wait_until(lambda: self.active("unreachable") == 1, "the request waits")
            client.close()
            wait_until(lambda: self.active("unreachable") == 0, "nothing waits any longer", 2.0)
            self.assertEqual(self.wait_for_record(target)["outcome"], "client-closed")
        self.check_unharmed()

    def test_uploading_client_leaves_before_the_backend_is_reached(self):
        """
        The same holds for a client whose upload has only just begun.
        """
        client = self.connect()
        client.send(request("/unreachable/upload", "Content-Length: 1000000", method="POST") + b"part")
        wait_until(lambda: self.active("unreachable") == 1, "the request waits")
        client.close()
        wait_until(lambda: self.active("unreachable") == 0, "nothing waits any longer", 5.0)

    def test_client_leaves_with_requests_ahead(self):
        """
        What a client had sent ahead is not begun after it has left.
        """
        ended = self._watch("/first-of-many", b"")
        client = self.connect()
        client.send(request("/first-of-many") + request("/never-asked") * 5)
        wait_until(lambda: self.stage.count("/first-of-many"), "the request has arrived")
        client.close()
        self.assertTrue(ended.wait(1.0), "the backend did not see the end")
        self.check_unharmed()
        self.assertEqual(self.stage.count("/never-asked"), 0)

    def test_many_clients_leave_at_once(self):
        """
        Two hundred clients that leave at the same time leave nothing behind.
        """
        go = threading.Event()
        self.addCleanup(go.set)

        def play(conversation: Scene, head: bytes) -> bool:
            go.wait(PATIENCE)
            return True

        self.stage.on("/crowd", play)
        clients = [self.connect() for _ in range(200)]
        for client in clients:
            client.ask("/crowd")
        wait_until(lambda: self.active() == 200, "all requests are in flight")
        for client in clients:
            client.close()
        wait_until(lambda: self.active() == 0, "nothing is in flight", 3.0)
        go.set()
        self.check_unharmed()

    def _wait_for_more(self, path: str, before: int) -> None:
        wait_until(lambda: self.stage.count(path) > before, "the request has arrived")

    def _watch(self, path: str, first: bytes) -> threading.Event:
        """
        Have `path` answered with `first` and nothing more; return what is set when the backend sees the end of its connection.
        """
        ended = threading.Event()

        def play(conversation: Scene, head: bytes) -> bool:
            conversation.send(first)
            try:
                conversation.read_to_end()
            finally:
                ended.set()
            return True

        self.stage.on(path, play)
        return ended


class PoolTests(GatewayCase):
    """
    Connections to backends are used again, and never at the price of a request.
    """

    app = "max_replay_bytes = 16777216"

    narrow_stage: Stage

    @classmethod
    def parts(cls) -> list[str]:
        cls.narrow_stage = cls.enter(Stage())
        narrow = 'connection_pool {\n  max_connections = 2\n}\ntimeouts {\n  connect = "1s"\n}'
        return [service("narrow", [cls.narrow_stage.port], narrow)]

    def test_stale_connection_and_a_request_without_effect(self):
        """
        A GET that meets a connection which the backend has just given up is asked again on a new one.
        """
        self._close_on_second("/stale-get")
        client = self.connect()
        before = metric(self.port, 'gateway_retries_total{service="app"}')
        self.assertEqual([client.fetch("/stale-get").status for _ in range(2)], [200, 200])
        self.assertEqual(self.stage.count("/stale-get"), 3)
        self.assertEqual(metric(self.port, 'gateway_retries_total{service="app"}'), before + 1)
        self.assertEqual(self.wait_for_record("/stale-get")["attempts"], 2)

    def test_stale_connection_is_tried_again_only_once(self):
        """
        A backend that gives up the new connection too is not asked a third time.
        """
        answered: list[int] = []

        def play(conversation: Scene, head: bytes) -> bool:
            if answered:
                return True
            answered.append(1)
            conversation.send(OK)
            return False

        self.stage.on("/stale-twice", play)
        client = self.connect()
        self.assertEqual([client.fetch("/stale-twice").status for _ in range(2)], [200, 502])
        self.assertEqual(self.stage.count("/stale-twice"), 3)

    def test_stale_connection_and_a_request_with_effect(self):
        """
        A POST that meets such a connection is not sent twice: its client is told that the backend closed.
        """
        self._close_on_second("/stale-post")
        client = self.connect()
        self.assertEqual(client.fetch("/stale-post", method="POST", body=b"one").status, 200)
        answer = client.fetch("/stale-post", method="POST", body=b"two")
        self.assertEqual(answer.status, 502)
        self.assertEqual(answer.get("proxy-status"), 'a3s-gateway; error=connection_terminated; details="backend-closed"')
        self.assertEqual(self.stage.count("/stale-post"), 2)

    def test_stale_connection_and_an_upload_kept_for_that(self):
        """
        An upload that may be repeated is sent again whole, though the backend had stopped reading it.
        """
        bodies = []
        used = set()

        def play(conversation: Scene, head: bytes) -> bool:
            if conversation not in used:
                used.add(conversation)
                bodies.append(read_body(conversation, head)[0])
                conversation.send(OK)
                return False
            # Let the gateway fill every buffer on the way, then break off without a word.
            threading.Event().wait(0.5)
            conversation.reset()
            return True

        self.stage.on("/stale-put", play)
        client = self.connect()
        self.assertEqual(client.fetch("/stale-put", method="PUT", body=b"small").status, 200)
        body = os.urandom(12 << 20)
        sending = client.send_aside(request("/stale-put", method="PUT", body=body))
        self.assertEqual(client.read_answer("PUT").status, 200)
        sending.join(PATIENCE)
        self.assertEqual([len(each) for each in bodies], [5, len(body)])
        self.assertEqual(bodies[1], body)

    def test_connection_closed_while_it_rested(self):
        """
        No request of any method is lost on a connection which the backend closed after its last answer.
        """

        def play(conversation: Scene, head: bytes) -> bool:
            read_body(conversation, head)
            conversation.send(OK)
            return True

        self.stage.on("/closes-afterwards", play)
        client = self.connect()
        for number in range(30):
            self.assertEqual(client.fetch("/closes-afterwards", method="POST", body=b"x").status, 200, number)
            # The backend's end needs a moment to arrive; what comes within that moment is the test above.
            threading.Event().wait(0.01)

    def test_backend_that_talks_unasked(self):
        """
        What a backend sends unasked never becomes the answer to somebody else's request.
        """
        for case, extra in enumerate((b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"evil")):
            for delay in (0.0, 0.05):
                path = f"/unasked/{case}/{delay}"

                def play(conversation: Scene, head: bytes, delay: float = delay, extra: bytes = extra) -> None:
                    if delay:
                        conversation.send(OK)
                        threading.Event().wait(delay)
                        conversation.send(extra)
                    else:
                        conversation.send(OK + extra)

                self.stage.on(path, play)
                client = self.connect()
                self.assertEqual(client.fetch(path).body, b"ok")
                threading.Event().wait(0.1)
                self.assertEqual(client.fetch("/next").body, b"ok")

    def test_bounded_connections(self):
        """
        No more connections than allowed are made to a backend; further requests wait for their turn.
        """
        lock = threading.Lock()
        state = {"now": 0, "most": 0}

        def play(conversation: Scene, head: bytes) -> None:
            with lock:
                state["now"] += 1
                state["most"] = max(state["most"], state["now"])
            threading.Event().wait(0.1)
            with lock:
                state["now"] -= 1
            conversation.send(OK)

        self.narrow_stage.on("/narrow/turns", play)
        clients = [self.connect() for _ in range(10)]
        for client in clients:
            client.ask("/narrow/turns")
        self.assertEqual([client.read_answer().status for client in clients], [200] * 10)
        self.assertEqual(state, {"now": 0, "most": 2})
        self.assertEqual(self.narrow_stage.connections, 2)

    def test_queue_that_does_not_move(self):
        """
        Who waits for a connection longer than connecting may take is told that all are in use; who leaves the queue is forgotten.
        """
        go = threading.Event()
        self.addCleanup(go.set)

        def play(conversation: Scene, head: bytes) -> None:
            go.wait(PATIENCE)
            conversation.send(OK)

        self.narrow_stage.on("/narrow/stuck", play)
        holders = [self.connect() for _ in range(2)]
        for client in holders:
            client.ask("/narrow/stuck")
        wait_until(lambda: self.narrow_stage.count("/narrow/stuck") == 2, "both connections are in use")
        leaver, waiter = self.connect(), self.connect()
        leaver.ask("/narrow/left")
        waiter.ask("/narrow/late")
        wait_until(lambda: self.active("narrow") == 4, "two wait")
        leaver.close()
        wait_until(lambda: self.active("narrow") == 3, "one has left", 1.0)
        answer = waiter.read_answer()
        self.assertEqual((answer.status, answer.get("retry-after")), (503, "1"))
        self.assertEqual(answer.get("proxy-status"), 'a3s-gateway; error=connection_limit_reached; details="pool-exhausted"')
        go.set()
        self.assertEqual([client.read_answer().status for client in holders], [200, 200])
        self.assertEqual(waiter.fetch("/narrow/again").status, 200)
        self.assertEqual(self.narrow_stage.count("/narrow/left") + self.narrow_stage.count("/narrow/late"), 0)

    def _close_on_second(self, path: str) -> None:
        """
        Have every connection answered once on `path` and closed when it is asked again.
        """
        used = set()

        def play(conversation: Scene, head: bytes) -> bool:
            if conversation in used:
                return True
            used.add(conversation)
            read_body(conversation, head)
            conversation.send(OK)
            return False

        self.stage.on(path, play)
