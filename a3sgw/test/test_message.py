"""
Tests of the parts of a message.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.message import (
    Field,
    LocalResponse,
    RequestHead,
    ResponseHead,
    get_all_fields,
    get_field,
    make_field,
    remove_fields,
    set_field,
)


class FieldTests(SynchronousTestCase):
    """
    Header sections are lists of fields.
    """

    def setUp(self):
        self.fields = [make_field(b"Accept", b"a"), make_field(b"X-One", b"1"), make_field(b"aCCEPT", b"b")]

    def test_make(self):
        """A field keeps its letter case on the wire, and is known by its name in lower case."""
        self.assertEqual(make_field(b"X-Real-Ip", b"192.0.2.1"), Field(b"x-real-ip", b"192.0.2.1", b"X-Real-Ip: 192.0.2.1"))

    def test_get(self):
        """The first value is given, or all in wire order, whatever the letter case was."""
        self.assertEqual(get_field(self.fields, b"accept"), b"a")
        self.assertEqual(get_all_fields(self.fields, b"accept"), [b"a", b"b"])
        self.assertIsNone(get_field(self.fields, b"host"))
        self.assertEqual(get_all_fields(self.fields, b"host"), [])

    def test_set(self):
        """Setting a field replaces all of its name, in the same list, and leaves the others in their order."""
        same = self.fields
        set_field(self.fields, b"ACCEPT", b"c")
        set_field(self.fields, b"X-Two", b"2")
        self.assertIs(self.fields, same)
        self.assertEqual([field.line for field in self.fields], [b"X-One: 1", b"ACCEPT: c", b"X-Two: 2"])

    def test_remove(self):
        """Removing a field removes all of its name, in the same list; a name that is not there is no mistake."""
        same = self.fields
        remove_fields(self.fields, b"accept")
        remove_fields(self.fields, b"accept")
        self.assertIs(self.fields, same)
        self.assertEqual([field.line for field in self.fields], [b"X-One: 1"])


class HeadTests(SynchronousTestCase):
    """
    Heads begin with what is so if nothing else is said.
    """

    def test_request(self):
        """A new request head asks for its target, has no body and keeps its connection."""
        head = RequestHead(b"GET", b"/a?b")
        self.assertEqual((head.method, head.target, head.path, head.query), (b"GET", b"/a?b", b"/a?b", b""))
        self.assertEqual((head.length, head.has_length, head.keep_alive, head.wants_close, head.fields), (0, False, True, False, []))
        for name in RequestHead.__slots__:
            getattr(head, name)
        self.assertEqual(repr(head), "<RequestHead b'GET' b'' b'/a?b'>")

    def test_fields_are_not_shared(self):
        """Each head has its own list of fields."""
        for make in (lambda: RequestHead(b"GET", b"/"), lambda: ResponseHead(200, b""), lambda: LocalResponse(200)):
            self.assertIsNot(make().fields, make().fields)
        given = [make_field(b"A", b"1")]
        self.assertIsNot(LocalResponse(200, given).fields, given)

    def test_response(self):
        """A new response head declares no length."""
        head = ResponseHead(200, b"HTTP/1.1 200 OK")
        self.assertEqual((head.length, head.declared_length, head.has_date), (0, -3, False))
        for name in ResponseHead.__slots__:
            getattr(head, name)
        self.assertEqual(repr(head), "<ResponseHead b'HTTP/1.1 200 OK'>")
        self.assertEqual(repr(LocalResponse(200, (), b"abc")), "<LocalResponse 200 3 bytes>")
