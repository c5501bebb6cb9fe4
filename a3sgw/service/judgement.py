"""
What is thought of one backend, kept for as long as the rules for judging it are the same.
"""

from __future__ import annotations

from a3sgw.policy.ejection import EjectionGroup
from a3sgw.policy.verdict import ProbeVerdict, Verdicts

__all__ = ["Judgement"]


class Judgement:
    """
    The verdicts on one backend, which begin when they are first asked for: until then a configuration is only being prepared, and the
    others of the group must not notice.

    `ejections` are the passive verdicts of the whole service or revision, or `None`; `probe` is the active verdict, if somebody sends
    probes. It is given and not made here, because it stays what it is when only the other rules change. Other
    workers know the backend by its `name`.
    """

    __slots__ = ("_ejections", "_name", "_probe", "_verdicts")

    def __init__(self, ejections: EjectionGroup | None, probe: ProbeVerdict | None, name: object = None) -> None:
        self._name = name
        self._ejections = ejections
        self._probe = probe
        self._verdicts: Verdicts | None = None

    def __repr__(self) -> str:
        return f"<Judgement {self._verdicts!r}>"

    @property
    def verdicts(self) -> Verdicts:
        """
        The verdicts.
        """
        if self._verdicts is None:
            self._verdicts = Verdicts(self._probe) if self._ejections is None else self._ejections.add(self._probe, self._name)
        return self._verdicts

    def forget(self) -> None:
        """
        The backend is gone, or is judged by other rules from now on.
        """
        if self._verdicts is not None and self._ejections is not None:
            self._ejections.remove(self._verdicts)
        self._verdicts = None
