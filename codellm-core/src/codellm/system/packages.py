"""Versions of installed packages, without importing them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

OWN = ("codellm-core", "codellm-cpu", "codellm-gpu", "codellm-eval")
"""The packages of this project, which share one version number."""


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those of `names` that are installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
