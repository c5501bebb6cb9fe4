"""
What the dialogues of this room have in common.
"""

from a3sgw.proxy.test.dialogues import OK, DialogueCase, request, response

__all__ = ["OK", "MiddlewareCase", "request", "response"]


class MiddlewareCase(DialogueCase):
    """
    A dialogue through middlewares: `pass_through` configures them, then `ask`, `say` and `hear` are as in `DialogueCase`.
    """

    def pass_through(self, *middlewares, **settings):
        """
        Begin a dialogue whose router lists middlewares with these attributes, called `m1`, `m2` and so on.
        """
        return self.converse(middlewares=middlewares, **settings)

    def exchange(self, data=None, answer=OK):
        """
        Send one request on a connection of its own, answer it as the backend does; return what the backend heard (nothing if it was not
        asked) and what the client heard.
        """
        client = self.dialogue.connect()
        self.say(client, request() if data is None else data)
        asked = b""
        for backend in self.dialogue.backends:
            heard = self.hear(backend)
            if heard:
                asked += heard
                self.say(backend, answer)
        told = self.hear(client)
        client.close()
        self.dialogue.reactor.settle()
        return asked, told
