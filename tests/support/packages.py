"""Packages that are there or not, whatever is installed: what Python says of them, with nothing imported."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pretend_absent(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let importing them fail, and `find_spec` find nothing."""
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def pretend_installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let `find_spec` find them; they are empty."""
    for name in names:
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
