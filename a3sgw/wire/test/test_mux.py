"""
Tests of the words of `ws-mux`.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.wire.mux import Verb, is_channel, read_message, tell_channels


class WordTests(SynchronousTestCase):
    """
    What a message asks for.
    """

    def test_messages(self):
        """Each message is one of the commands, a publication, or nothing that is known."""
        for text, expected in [
            ("_sub:news", (Verb.SUBSCRIBE, "news", "")),
            ("_sub: news ", (Verb.SUBSCRIBE, "news", "")),
            ("_sub:", (Verb.SUBSCRIBE, "", "")),
            ("_sub:a:b", (Verb.SUBSCRIBE, "a:b", "")),
            ("_unsub:news", (Verb.UNSUBSCRIBE, "news", "")),
            ("_ping", (Verb.PING, "", "")),
            ("_list", (Verb.LIST, "", "")),
            ("news:hello", (Verb.PUBLISH, "news", "hello")),
            (" news : a:b ", (Verb.PUBLISH, "news", " a:b ")),
            ("news:", (Verb.PUBLISH, "news", "")),
            ("_ping:", (Verb.NOTHING, "", "")),
            ("_sub", (Verb.NOTHING, "", "")),
            ("_SUB:x", (Verb.NOTHING, "x", "")),
            ("_other:x", (Verb.NOTHING, "x", "")),
            ("hello", (Verb.NOTHING, "", "")),
            (":x", (Verb.NOTHING, "", "x")),
            ("", (Verb.NOTHING, "", "")),
        ]:
            self.assertEqual(read_message(text), expected, text)

    def test_channels(self):
        """A channel's name is 1 to 128 printable characters without a colon, and does not begin as commands do."""
        for name in ("a", "news.sport/1", "a b", "a_b", "Grüße", "x" * 128):
            self.assertTrue(is_channel(name), name)
        for name in ("", "_a", "a:b", "a\nb", "a\0", "x" * 129, "\u202e"):
            self.assertFalse(is_channel(name), name)

    def test_list(self):
        """Channels are told as a JSON array without blanks."""
        self.assertEqual(tell_channels([]), "_channels:[]")
        self.assertEqual(tell_channels(["a", 'b"', "ü"]), '_channels:["a","b\\"","ü"]')
