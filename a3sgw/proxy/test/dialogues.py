"""
What the dialogues of this room have in common.
"""

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.testing import Dialogue

CONFIG = """
entrypoints "web" {{
  address = "127.0.0.1:8080"
  {entrypoint}
}}
routers "app" {{
  rule        = "PathPrefix(`/`)"
  service     = "app"
  middlewares = [{listed}]
}}
{middlewares}
services "app" {{
  load_balancer {{
    servers = [{servers}]
  }}
  {service}
}}
"""


def config(
    *,
    entrypoint: str = "",
    service: str = "",
    servers: int = 1,
    middlewares: Sequence[str] = (),
    more: str = "",
    scheme: str = "http",
) -> str:
    """
    Return a configuration with one catch-all router to `servers` servers.

    `middlewares` are the attributes of middlewares called `m1`, `m2` and so on, which the router lists; `more` are further blocks.
    """
    urls = ", ".join(f'{{ url = "{scheme}://192.0.2.{number}" }}' for number in range(1, servers + 1))
    names = [f"m{number}" for number in range(1, len(middlewares) + 1)]
    blocks = "\n".join(f'middlewares "{name}" {{\n{body}\n}}' for name, body in zip(names, middlewares, strict=True))
    return CONFIG.format(
        entrypoint=entrypoint,
        service=service,
        servers=urls,
        listed=", ".join(f'"{name}"' for name in names),
        middlewares=f"{blocks}\n{more}",
    )


def request(method: str = "GET", target: str = "/", *lines: str, body: bytes = b"") -> bytes:
    """
    Return a request to host `a.test` with these header lines.
    """
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a.test", *lines, "", ""]).encode("latin-1") + body


def response(status: str = "200 OK", *lines: str, body: bytes = b"") -> bytes:
    """
    Return a response with these header lines and a date that never changes.
    """
    return "\r\n".join([f"HTTP/1.1 {status}", "Date: D", *lines, "", ""]).encode("latin-1") + body


OK = response("200 OK", "Content-Length: 2", body=b"ok")


class DialogueCase(SynchronousTestCase):
    """
    A test case with one dialogue, which must be clean in the end.
    """

    def converse(self, *, answers_dials: bool = True, catalog=None, **settings):
        self.dialogue = Dialogue(config(**settings), answers_dials=answers_dials, catalog=catalog)
        self.client = self.dialogue.connect()
        self.say = self.dialogue.say
        self.hear = self.dialogue.hear
        return self.dialogue

    def tearDown(self):
        dialogue = getattr(self, "dialogue", None)
        if dialogue is not None:
            self.client.close()
            dialogue.reactor.advance(200)
            dialogue.assert_clean(self)
            self.assertEqual([len(door.connections) for door in dialogue.carrier.doors()], [0])

    def ask(self, data: bytes = request()):
        """
        Send a request from the client; return the backend's end of the connection it went to.
        """
        self.say(self.client, data)
        return self.dialogue.backend()

    def assert_refused(self, status, word):
        """
        Fail unless the client was answered `status` for the reason `word`.
        """
        heard = self.hear(self.client)
        self.assertTrue(heard.startswith(b"HTTP/1.1 %d " % status), heard)
        self.assertIn(b'details="%b"' % word.encode(), heard)
        self.assertIn(b'"reason": "%b"' % word.encode(), heard)
        self.assertEqual(self.dialogue.outcomes()[-1:], [word])
