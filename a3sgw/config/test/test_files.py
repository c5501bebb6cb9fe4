"""
Tests of which files a configuration names.
"""

from twisted.trial.unittest import SynchronousTestCase

from a3sgw.config.files import named_files
from a3sgw.config.test.loading import load


class NamedFilesTests(SynchronousTestCase):
    """
    What is read counts, what is written does not.
    """

    def test_all(self):
        """Certificates, keys, lists of users and pages are named wherever they stand; logs and folders are not."""
        text = """
            entrypoints "web" {
              address = ":80"
              tls {
                cert_file = "/tls/cert"
                key_file  = "/tls/key"
              }
            }
            services "s" {
              load_balancer { servers = [{ url = "https://a" }] }
              upstream_tls { ca_file = "/tls/ca" }
            }
            middlewares "auth" {
              type       = "basic-auth"
              users_file = "/users"
            }
            middlewares "plain" { type = "compress" }
            observability {
              access_log { file = "/log" }
            }
            providers {
              file { directory = "/conf.d" }
            }
            """
        config = load(text).config
        self.assertEqual(sorted(named_files(config)), ["/tls/ca", "/tls/cert", "/tls/key", "/users"])
