"""
Tests of `a3sgw.eventlog`.
"""

from io import StringIO

from twisted.logger import Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.eventlog import LEVELS, make_observer, make_predicate, start_logging, to_line

MOMENT = 1_900_000_000.25


def written(log_filter, emit):
    """
    Return what is written when `emit` is given a function that makes a logger for a namespace.
    """
    stream = StringIO()
    publisher = LogPublisher(make_observer(stream, log_filter))
    emit(lambda namespace: Logger(namespace, observer=publisher))
    return stream.getvalue()


class FilterTests(SynchronousTestCase):
    """
    What a filter lets through.
    """

    def test_levels(self):
        """
        Each level lets itself and the graver ones through; Twisted's own chatter needs `trace`.
        """

        def emit(logger):
            ours, theirs = logger("a3sgw.x"), logger("twisted.internet")
            for level in (LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical):
                ours.emit(level, "ours")
                theirs.emit(level, "theirs")

        counts = {level: (text.count("ours"), text.count("theirs")) for level in LEVELS for text in [written(level, emit)]}
        self.assertEqual(counts, {"trace": (5, 5), "debug": (5, 3), "info": (4, 3), "warn": (3, 3), "error": (2, 2)})

    def test_namespaces(self):
        """
        A filter may set a level for one part of the gateway, and one for the rest.
        """

        def emit(logger):
            logger("a3sgw.proxy.pool").debug("pool")
            logger("a3sgw.gateway").info("gateway")

        self.assertEqual([word in written("warn, a3sgw.proxy=debug", emit) for word in ("pool", "gateway")], [True, False])
        self.assertEqual([word in written("a3sgw.gateway=error", emit) for word in ("pool", "gateway")], [False, False])

    def test_default_is_info(self):
        """
        A filter that names only namespaces leaves the rest at info.
        """
        self.assertEqual(written("a3sgw.proxy=debug", lambda logger: logger("a3sgw.x").debug("hidden")), "")
        self.assertIn("shown", written("a3sgw.proxy=debug", lambda logger: logger("a3sgw.x").info("shown")))

    def test_bad_filters(self):
        """
        A filter that makes no sense is refused, and the text says which part is wrong and what levels there are.
        """
        cases = [("loud", "loud"), ("a3sgw=loud", "a3sgw=loud"), ("info,=debug", "=debug"), ("INFO", "INFO"), ("a=b=info,x", "x")]
        for text, part in cases:
            error = self.assertRaises(ValueError, make_predicate, text)
            self.assertIn(f'"{part}" is neither', str(error))
            self.assertIn("trace, debug, info, warn, error", str(error))

    def test_environment_refused(self):
        """
        A faulty A3S_LOG is refused before logging begins.
        """
        self.assertRaises(ValueError, start_logging, StringIO(), "info", {"A3S_LOG": "shout"})


class LineTests(SynchronousTestCase):
    """
    What a line looks like.
    """

    def event(self, text, **more):
        """
        Return an event.
        """
        return {"log_time": MOMENT, "log_level": LogLevel.info, "log_namespace": "a3sgw.x", "log_format": text, **more}

    def test_line(self):
        """
        A line tells when, how grave, where and what.
        """
        self.assertEqual(to_line(self.event("door {name} failed", name="web")), "2030-03-17T17:46:40.250Z info  a3sgw.x: door web failed\n")

    def test_no_forged_lines(self):
        """
        What a peer sent cannot begin a line of its own or move a terminal's cursor.
        """
        line = to_line(self.event("header {value}", value="a\r\n2030 info fake\x1b[2J\x9b\x85\0"))
        self.assertEqual(line.count("\n"), 2)
        self.assertTrue(line.splitlines()[1].startswith("    2030 info fake"))
        self.assertTrue(line.replace("\n", "").isprintable())

    def test_traceback(self):
        """
        A failure comes with its traceback, indented below its line.
        """
        try:
            raise RuntimeError("broken")
        except RuntimeError:
            lines = to_line(self.event("it failed", log_failure=Failure())).splitlines()
        self.assertTrue(lines[0].endswith("it failed"))
        self.assertTrue(all(line.startswith("    ") for line in lines[1:]))
        self.assertIn("builtins.RuntimeError: broken", lines[-1])

    def test_event_without_anything(self):
        """
        An event that lacks everything is still a line.
        """
        self.assertEqual(to_line({}), "1970-01-01T00:00:00.000Z info  -: \n")
