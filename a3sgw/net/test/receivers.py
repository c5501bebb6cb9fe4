"""
Receivers and descriptors that only take notes.
"""

from zope.interface import implementer

from a3sgw.interfaces import IReceiver


@implementer(IReceiver)
class Notes:
    """
    A receiver that writes down what it is told, in `events`; what arrives is joined. `on` maps an event to what is done about it.
    """

    def __init__(self, **on):
        self.events = []
        self.on = on

    def _note(self, name, *event):
        self.events.append((name, *event))
        self.on.get(name, lambda: None)()

    def data_received(self, data):
        if self.events and self.events[-1][0] == "data":
            data = self.events.pop()[1] + data
        self._note("data", data)

    def eof_received(self):
        self._note("eof")

    def stream_lost(self, error):
        self._note("lost", type(error))

    def stream_congested(self):
        self._note("congested")

    def stream_drained(self):
        self._note("drained")

    def deadline_passed(self):
        self._note("deadline")


LOST = ("lost", type(None))
EOF = ("eof",)
CONGESTED = ("congested",)
DRAINED = ("drained",)
DEADLINE = ("deadline",)


def bug():
    """
    Fail as only a bug does.
    """
    raise ZeroDivisionError("a bug")
