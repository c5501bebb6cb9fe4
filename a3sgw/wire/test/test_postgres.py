"""
Tests of `a3sgw.wire.postgres`.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.wire.postgres import SSL_REQUEST, read_encryption_request

GSS_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x30"


class QuestionTests(SynchronousTestCase):
    """
    What clients of PostgreSQL ask first.
    """

    def test_questions(self):
        """Each question has its answer, whole, byte by byte, and with what follows."""
        self.assertEqual(SSL_REQUEST, b"\0\0\0\x08\x04\xd2\x16\x2f")
        for question, answer in ((SSL_REQUEST, b"S"), (GSS_REQUEST, b"N")):
            self.assertEqual(read_encryption_request(question), (answer, 8))
            self.assertEqual(read_encryption_request(question + b"\x16\x03"), (answer, 8))
            for length in range(8):
                self.assertIsNone(read_encryption_request(question[:length]))

    def test_something_else(self):
        """TLS itself, a plain start of a session and a request to cancel are no questions, from the first byte that differs."""
        for data in (
            b"\x16\x03\x01",
            b"G",
            b"\0\0\0\x09",
            b"\0\0\0\x08\x04\xd2\x16\x2e",
            b"\0\0\0\x10\x04\xd2\x16\x2e",
            b"\0\0\0\x54\0\x03\0\0user",
        ):
            self.assertEqual(read_encryption_request(data), (b"", 0), data)
