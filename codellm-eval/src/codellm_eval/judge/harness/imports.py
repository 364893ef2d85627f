"""The import of modules where folders may not be listed."""

from __future__ import annotations

import sys
from importlib.machinery import FileFinder, PathFinder


def keep_listings() -> None:
    """Import from what the folders of `sys.path` hold now, for ever.

    Landlock gives rights to all below a folder: one who may list the standard library's may list its site-packages.
    """
    PathFinder.find_spec("a module that makes the import system list each of them")
    for folder in sys.path:
        finder = sys.path_importer_cache.get(folder)
        if isinstance(finder, FileFinder):
            setattr(finder, "_fill_cache", lambda: None)  # noqa: B010 - not known to the type checker
