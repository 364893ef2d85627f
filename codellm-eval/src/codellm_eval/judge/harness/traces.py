"""Whether code can leave something behind in the process that runs it, for the next code to find.

What its own module holds goes with the module. Beyond it lie attributes of other modules and classes, and state of the
interpreter and of the library, such as random numbers. This looks for every way to them that a test takes which does
not hide what it does, and rather finds one too many: the process of such a test is not used again.
"""

from __future__ import annotations

import ast
import sys

_WITHOUT_STATE = {
    "__future__", "abc", "bisect", "cmath", "collections", "copy", "dataclasses", "datetime", "enum", "fractions",
    "functools", "hashlib", "heapq", "itertools", "math", "numbers", "operator", "re", "string", "typing",
}  # fmt: skip
"""Modules of which nothing changes by using them, but caches."""
_WITH_STATE = sys.stdlib_module_names - _WITHOUT_STATE
"""Modules that are not to be reached through others either: `typing.sys` for instance."""
_REACHING = {
    "breakpoint", "compile", "delattr", "eval", "exec", "getattr", "globals", "help", "input", "locals", "open",
    "setattr", "vars",
}  # fmt: skip
"""Builtins that reach attributes by their names, files, or code that is not here to be looked at."""
_CHANGING = {"attrgetter", "methodcaller", "purge", "register"}
"""Functions and methods of these modules that do, or that change what others see."""


def leaves_traces(tree: ast.AST) -> bool:
    """Whether a module of this syntax may change more than itself."""
    return any(_leaves_traces(node) for node in ast.walk(tree))


def _leaves_traces(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):  # a class that sets attributes of its own instances is one too many
        return not isinstance(node.ctx, ast.Load) or _reaches(node.attr)
    if isinstance(node, ast.Name):
        return node.id in _REACHING or (node.id.startswith("__") and node.id != "__name__")
    if isinstance(node, ast.Import):
        return not all(alias.name.partition(".")[0] in _WITHOUT_STATE for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        module = (node.module or "").partition(".")[0]
        return module not in _WITHOUT_STATE or any(_reaches(alias.name) for alias in node.names)
    return False


def _reaches(attribute: str) -> bool:
    return attribute.startswith("_") or attribute in _WITH_STATE or attribute in _CHANGING
