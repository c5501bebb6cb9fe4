"""
What the tests of this room share: short ways from a piece of HCL to what came of it.
"""

from a3sgw.config.check import check, unsupported
from a3sgw.config.decode import decode
from a3sgw.config.hcl import parse
from a3sgw.config.load import load_text
from a3sgw.middleware.catalog import BUILT_IN, Catalog

MIDDLEWARE_TYPES = Catalog.of(BUILT_IN).config_classes
ENTRYPOINT = 'entrypoints "web" { address = ":8080" }\n'


def no_files(path):
    raise FileNotFoundError(2, "No such file or directory", path)


def load(text, environ=None, **options):
    """
    Load `text`, called `gw.hcl`, leaving out what this version does not run unless asked to.
    """
    options.setdefault("include_unsupported", False)
    return load_text(text, "gw.hcl", environ or {}, no_files, middleware_types=MIDDLEWARE_TYPES, **options)


def decoded(text, environ=None):
    return decode(parse(text, "gw.hcl", environ=environ or {}), middleware_types=MIDDLEWARE_TYPES)


def valid(text, environ=None):
    """
    Return the configuration that `text` makes, which must have no problem except that it may not run.
    """
    loaded = load(text, environ)
    if loaded.problems:
        raise AssertionError("\n".join(map(str, loaded.problems)))
    return loaded.config


def decode_problems(text, environ=None):
    return [str(problem) for problem in decoded(text, environ).problems]


def check_problems(text, environ=None):
    """
    Return the problems of the checks alone; a broken value must not hide in them.
    """
    result = decoded(text, environ)
    return [str(problem) for problem in check(result.config, result.positions)]


def unsupported_problems(text, environ=None):
    result = decoded(text, environ)
    return [str(problem) for problem in unsupported(result.config, result.positions)]
