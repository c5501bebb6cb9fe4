"""
Ask middlewares that decide about connections, and tell them of the end of those that they let in.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from a3sgw.errors import Outcome
from a3sgw.interfaces import IConnectionGate

__all__ = ["ask_gates", "tell_gates"]

_log = Logger()


def ask_gates(gates: Sequence[IConnectionGate], packed: bytes) -> Outcome | None:
    """
    Return why one of `gates` does not let in a client at the address `packed`, or `None` if all have.
    """
    for number, gate in enumerate(gates):
        try:
            outcome = gate.admit(packed)
        except Exception:
            # Who fails to judge has let nobody in.
            _log.failure("bug in {gate!r}", gate=gate)
            outcome = Outcome.INTERNAL_ERROR
        if outcome is not None:
            tell_gates(gates[:number], packed)
            return outcome
    return None


def tell_gates(gates: Sequence[IConnectionGate], packed: bytes) -> None:
    """
    Tell `gates` that a connection which they let in is gone.
    """
    for gate in gates:
        try:
            gate.connection_ended(packed)
        except Exception:
            _log.failure("bug in {gate!r}", gate=gate)
