"""
Tests of the one event log.
"""

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from a3sgw.workers.events import EventDesk, EventTeller
from a3sgw.workers.link import Ask


class EventTests(SynchronousTestCase):
    """
    What workers log is in the gateway's log.
    """

    def setUp(self):
        self.clock = Clock()
        self.lines = []
        self.desk = EventDesk(self.clock.seconds, lambda *line: self.lines.append(line))

    def worker(self, slot):
        """
        Return the log of a worker.
        """
        teller = EventTeller(lambda *event: self.desk.take(slot, Ask(event)))
        verifyObject(ILogObserver, teller)
        return Logger(namespace="a3sgw.part", observer=LogPublisher(teller))

    def test_event(self):
        """An event arrives with its level, its namespace, and its text."""
        self.worker(0).warn("backend {url} is {state}", url="http://a", state="ill")
        self.assertEqual(self.lines, [("warn", "a3sgw.part", "backend http://a is ill")])

    def test_traceback(self):
        """A bug brings its traceback."""
        log = self.worker(0)
        try:
            raise ZeroDivisionError("bug")
        except ZeroDivisionError:
            log.failure("oh")
        ((level, _, text),) = self.lines
        self.assertEqual(level, "critical")
        self.assertTrue(text.startswith("oh\nTraceback"), text)
        self.assertIn("ZeroDivisionError: bug", text)

    def test_same_event(self):
        """What several workers notice at the same time is written once; what one says twice is written twice."""
        workers = [self.worker(slot) for slot in range(3)]
        for worker in workers:
            worker.warn("down")
        self.assertEqual(len(self.lines), 1)
        workers[0].warn("down")
        self.assertEqual(len(self.lines), 2)
        workers[1].error("down")
        self.assertEqual(len(self.lines), 3, "another level is another event")

    def test_same_text_later(self):
        """The same text some time later is another event."""
        self.worker(0).warn("down")
        self.clock.advance(2.5)
        self.worker(1).warn("down")
        self.assertEqual(len(self.lines), 2)

    def test_bounded(self):
        """However many different events there are, few are remembered."""
        log = self.worker(0)
        for number in range(2000):
            log.info("event {number}", number=number)
        self.assertEqual(len(self.lines), 2000)
        self.assertLessEqual(len(self.desk._recent), EventDesk.MOST)

    def test_default_goes_to_the_log(self):
        """In a gateway they go where its own events go."""
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        EventDesk(self.clock.seconds).take(0, Ask(["warn", "a3sgw.part", "it {is} so"]))
        found = [event for event in events if event.get("log_namespace") == "a3sgw.part"]
        self.assertEqual([(event["log_level"], formatEvent(event)) for event in found], [(LogLevel.warn, "it {is} so")])
