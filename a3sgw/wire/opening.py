"""
What a client says first on a connection of which nothing is known.

It may begin TLS, or ask like a client of PostgreSQL whether it may and then begin it, or speak something else.
"""

from __future__ import annotations

from a3sgw.wire.clienthello import ClientHelloError, read_client_hello
from a3sgw.wire.postgres import read_encryption_request

__all__ = ["Opening"]


class Opening:
    """
    Takes a client's first bytes until they tell which server it wants.

    `pending` is what has come and is for the server, `asked` says that the client has asked for TLS and was told yes: the server has
    yet to be asked in its turn.
    """

    __slots__ = ("asked", "pending")

    def __init__(self, *, asked: bool = False) -> None:
        self.pending = b""
        self.asked = asked

    def __repr__(self) -> str:
        return f"<Opening of {len(self.pending)} bytes{', asked for TLS' if self.asked else ''}>"

    def take(self, data: bytes) -> bytes:
        """
        Take the next bytes; return what the client is to be answered.
        """
        self.pending += data
        answers = b""
        while not self.asked:
            question = read_encryption_request(self.pending)
            if question is None or not question[1]:
                break
            answer, length = question
            self.pending = self.pending[length:]
            self.asked = answer == b"S"
            answers += answer
        return answers

    def read(self) -> tuple[bytes | None, tuple[bytes, ...]] | None:
        """
        Return the name of the server and the protocols that the client asks for; nobody and none if it speaks something else, or what
        cannot be understood; or `None` if more must come to tell.
        """
        if not self.asked and read_encryption_request(self.pending) is None:
            return None
        try:
            hello = read_client_hello(self.pending)
        except ClientHelloError:
            return None, ()
        return None if hello is None else (hello.server_name, hello.alpn)
