"""
Ask middlewares whether a client may come in, and tell those that let it in when it is gone.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from a3sgw.errors import Outcome
from a3sgw.interfaces import IConnectionGate

__all__ = ["Admission"]


class Admission:
    """
    The way of one client past the middlewares. `packed` is its address.
    """

    __slots__ = ("_let_in", "_packed")

    _log = Logger()

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._let_in: list[IConnectionGate] = []

    def ask(self, hooks: Sequence[IConnectionGate]) -> Outcome | None:
        """
        Return why one of `hooks` does not let the client in, or `None`. Then, and otherwise too, `end` must follow.
        """
        for hook in hooks:
            try:
                outcome: Outcome | None = hook.admit(self._packed)
            except Exception:
                # Who fails to judge has let nobody in.
                self._log.failure("bug in {hook!r}", hook=hook)
                outcome = Outcome.INTERNAL_ERROR
            if outcome is not None:
                return outcome
            self._let_in.append(hook)
        return None

    def end(self) -> None:
        """
        The client is gone.
        """
        let_in, self._let_in = self._let_in, []
        for hook in let_in:
            try:
                hook.connection_ended(self._packed)
            except Exception:
                self._log.failure("bug in {hook!r}", hook=hook)
