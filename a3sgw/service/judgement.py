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

    `ejections` are the passive verdicts of the whole service or revision, or `None`; `is_probed` says that somebody sends probes.
    """

    __slots__ = ("_ejections", "_is_probed", "_verdicts")

    def __init__(self, ejections: EjectionGroup | None, *, is_probed: bool) -> None:
        self._ejections = ejections
        self._is_probed = is_probed
        self._verdicts: Verdicts | None = None

    def __repr__(self) -> str:
        return f"<Judgement {self._verdicts!r}>"

    @property
    def verdicts(self) -> Verdicts:
        """
        The verdicts.
        """
        if self._verdicts is None:
            probe = ProbeVerdict() if self._is_probed else None
            self._verdicts = Verdicts(probe) if self._ejections is None else self._ejections.add(probe)
        return self._verdicts

    def forget(self) -> None:
        """
        The backend is gone, or is judged by other rules from now on.
        """
        if self._verdicts is not None and self._ejections is not None:
            self._ejections.remove(self._verdicts)
        self._verdicts = None
