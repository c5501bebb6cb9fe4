"""
Where plugins of third parties are found: a distribution puts a module into `a3sgw/plugins`, without an `__init__.py` of its own.
"""

from twisted.plugin import pluginPackagePaths

# So that plugins are found beside an editable install too.
__path__.extend(pluginPackagePaths(__name__))
