"""
Tests of what middlewares do with paths and URLs.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.message import RequestHead
from a3sgw.middleware.target import change_path


class ChangeTests(SynchronousTestCase):
    """
    A path changes, and nothing else.
    """

    def test_change_path(self):
        """Path and target stay of one mind; the query, the host and what the log shows are not touched."""
        for target, path, query, result in [
            (b"/a/b", b"/a/b", b"", b"/x"),
            (b"/a?", b"/a", b"", b"/x?"),
            (b"/a?b=/a?c", b"/a", b"b=/a?c", b"/x?b=/a?c"),
        ]:
            head = RequestHead(b"GET", target)
            head.path, head.query = path, query
            change_path(head, b"/x")
            self.assertEqual((head.path, head.query, head.target, head.raw_path), (b"/x", query, result, target))
