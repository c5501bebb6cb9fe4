"""
Say which packages belong to the distribution; everything else about it stands in pyproject.toml.

`twisted.plugins` is listed although it has no `__init__.py` here: its one module is installed beside Twisted's own plugins, which is how
`twistd` finds `a3s-gateway`. `package_dir` makes an editable install put the checkout itself on the path, so that the plugin is found
there as well.
"""

from setuptools import find_packages, setup

setup(
    package_dir={"": "."},
    packages=[*find_packages(include=["a3sgw", "a3sgw.*"]), "twisted.plugins"],
    package_data={"a3sgw": ["py.typed"], "a3sgw.admin": ["dashboard/*"]},
)
