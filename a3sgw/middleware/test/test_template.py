"""
Tests of values that are filled in.
"""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.values import Secret
from a3sgw.message import RequestHead
from a3sgw.middleware.template import PLACEHOLDERS, Template, template_faults


def an_exchange():
    """
    Return what placeholders are filled in from.
    """
    head = RequestHead(b"PUT", b"/x?y=1")
    head.path, head.query = b"/x", b"y=1"
    head.client, head.host, head.request_id = b"192.0.2.1", b"a.test", b"r-1"
    return SimpleNamespace(
        head=head,
        route=SimpleNamespace(name="röuter"),
        entrypoint=SimpleNamespace(name="web"),
        forwarding=SimpleNamespace(scheme=b"https"),
    )


class TemplateTests(SynchronousTestCase):
    """
    What is written, and what becomes of it.
    """

    def test_fill(self):
        """Placeholders are filled in from the request; braces are written twice."""
        for text, value in [
            ("{client_ip}", "192.0.2.1"),
            ("{method} {scheme}://{host}{path}?{query}", "PUT https://a.test/x?y=1"),
            ("{router}/{entrypoint}/{request_id}", "röuter/web/r-1"),
            ("{{{host}}}", "{a.test}"),
            ("{{host}} {host} 100% %s %b %%", "{host} a.test 100% %s %b %%"),
            (" \t{host} ", "a.test"),
        ]:
            template = Template(text)
            self.assertIsNone(template.constant)
            self.assertEqual(template.fill(an_exchange()), value.encode())
            self.assertEqual(list(template_faults(text)), [])

    def test_constant(self):
        """A value without placeholders is known before there is a request."""
        for text, value in [("", b""), (" a ", b"a"), ("100%", b"100%"), ("%b%%", b"%b%%"), ("{{}}", b"{}"), ("ä", "ä".encode())]:
            template = Template(text)
            self.assertEqual((template.constant, template.fill(None)), (value, value))

    def test_secret(self):
        """A value from the environment is taken as it is."""
        for text in ("{{", "}", "{client}", "p%s{"):
            self.assertEqual(Template(Secret(text)).constant, text.encode())
            self.assertEqual(list(template_faults(Secret(text))), [])
        (fault,) = template_faults(Secret("hunter2 {host}"))
        self.assertTrue(fault.startswith("holds {host} and something from the environment"))
        self.assertNotIn("hunter2", fault)

    def test_faults(self):
        """What is no placeholder is found, every one of them."""
        for text, starts in [
            ("{hots}", ['holds "{hots}", which is no placeholder; there are {client_ip}, ']),
            ("{}", ['holds "{}", which']),
            ("{Host}", ['holds "{Host}", which']),
            ("{host", ['has a single "{"; write "{{" if it is meant to be there']),
            ("host}", ['has a single "}"; write "}}" if it is meant to be there']),
            ("{a} }", ['holds "{a}", which', 'has a single "}"']),
        ]:
            faults = list(template_faults(text))
            self.assertEqual(len(faults), len(starts), faults)
            for fault, start in zip(faults, starts, strict=True):
                self.assertTrue(fault.startswith(start), fault)

    @given(st.text(st.sampled_from("{}%bs host"), max_size=12))
    def test_any_text(self, text):
        """Whatever has no fault can be filled in, and braces written twice come out once."""
        if not list(template_faults(text)):
            value = Template(text).fill(an_exchange()).decode()
            if not any(f"{{{name}}}" in text for name in PLACEHOLDERS):
                self.assertEqual(value, text.replace("{{", "{").replace("}}", "}").strip(" \t"))
