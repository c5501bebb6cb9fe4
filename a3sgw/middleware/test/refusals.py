"""
What tests of configurations that are refused have in common.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.loading import load_string
from a3sgw.proxy.test.dialogues import config

__all__ = ["RefusalCase"]


class RefusalCase(SynchronousTestCase):
    """
    A test case about one type of middleware: `type_name`.
    """

    type_name = ""

    def load(self, attributes, environ=None):
        """
        Return what comes of a middleware `m1` with these attributes; the first of them stands in line 13.
        """
        return load_string(config(middlewares=[f'type = "{self.type_name}"\n{attributes}']), "gw.hcl", environ or {})

    def problems(self, attributes, environ=None):
        """
        Return the problems of a middleware with these attributes, as they are printed.
        """
        return [str(problem) for problem in self.load(attributes, environ).problems]

    def assert_accepted(self, *all_attributes):
        """
        Fail unless a middleware can be built with each of these attributes.
        """
        for attributes in all_attributes:
            self.assertEqual(self.problems(attributes), [], attributes)

    def assert_refused(self, table, environ=None):
        """
        Fail unless each of these attributes has exactly one problem, which begins so.
        """
        for attributes, text in table:
            problems = self.problems(attributes, environ)
            self.assertEqual(len(problems), 1, (attributes, problems))
            self.assertTrue(problems[0].startswith(text), (attributes, problems[0]))

    def advice(self, attributes):
        """
        Return what is allowed but unwise in these attributes.
        """
        return [str(problem) for problem in self.load(attributes).warnings]
