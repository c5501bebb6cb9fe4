"""
Tests of entrypoints that send everybody on to HTTPS.
"""

from a3sgw.proxy.test.dialogues import DialogueCase, request


class HttpsRedirectTests(DialogueCase):
    """
    `redirect_to`.
    """

    def redirect(self, data, target=":443", more=""):
        """
        Return the first line and the location of the answer.
        """
        self.converse(entrypoint=f'redirect_to = "{target}"', more=more)
        self.say(self.client, data)
        heard = self.hear(self.client)
        lines = heard.split(b"\r\n")
        return lines[0].decode(), next((line[10:].decode() for line in lines if line.startswith(b"Location: ")), None)

    def test_get(self):
        """What is read may be remembered, with its path and query as they were written."""
        self.assertEqual(
            self.redirect(request("GET", "/a%7Eb//c?d=%20")), ("HTTP/1.1 301 Moved Permanently", "https://a.test/a%7Eb//c?d=%20")
        )
        self.assertEqual(self.dialogue.outcomes(), ["redirected"])
        self.assertEqual(self.dialogue.backends, [])

    def test_post(self):
        """A POST stays one."""
        data = request("POST", "/", "Content-Length: 2", body=b"ab")
        self.assertEqual(self.redirect(data), ("HTTP/1.1 308 Permanent Redirect", "https://a.test/"))

    def test_port(self):
        """Another port than the usual is named; one that the client named counts for nothing."""
        data = b"GET / HTTP/1.1\r\nHost: A.test:8080\r\n\r\n"
        self.assertEqual(self.redirect(data, ":8443")[1], "https://a.test:8443/")

    def test_other_forms(self):
        """A request for no path is sent to the root."""
        self.assertEqual(self.redirect(request("OPTIONS", "*"))[1], "https://a.test/")
        self.assertEqual(self.redirect(request("GET", "http://a.test/b"))[1], "https://a.test/b")

    def test_no_host(self):
        """Without a host there is nowhere to go."""
        self.assertEqual(self.redirect(b"GET / HTTP/1.0\r\n\r\n"), ("HTTP/1.1 400 Bad Request", None))
