"""Python, packages and backends."""

from __future__ import annotations

import platform

from codellm._version import __version__
from codellm.backend import Availability
from codellm.cli.doctor.section import Section
from codellm.finding import Finding
from codellm.plugins.registry import availability, registry
from codellm.system import packages

PACKAGES = (
    "llama-cpp-python",
    "gguf",
    "torch",
    "transformers",
    "tokenizers",
    "huggingface-hub",
    "numpy",
    "bitsandbytes",
    "flash-attn",
    "gptqmodel",
    "pluggy",
)
"""What others made and a figure or a fault depends on."""


def software() -> Section:
    """Versions; one of our packages whose version is not core's is a fault."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    versions = packages.installed_versions((*packages.OWN, *PACKAGES))
    return Section(
        title="Software",
        findings=(
            Finding(topic="Python", value=python),
            Finding(topic="platform", value=platform.platform()),
            *(_package(name, version) for name, version in versions.items()),
        ),
        facts={"python": python, "platform": platform.platform(), "packages": versions},
    )


def _package(name: str, version: str) -> Finding:
    if name in packages.OWN and version != __version__:
        return Finding(
            topic=name,
            value=f"{version}, which does not fit the codellm-core {__version__} that runs",
            ok=False,
            remedy=f"pip install {name}=={__version__}",
        )
    return Finding(topic=name, value=version)


def _backend(name: str, state: Availability) -> Finding:
    if state.ok:
        return Finding(topic=name, value="available")
    said = "optional, not available" if state.optional else "not available"
    return Finding(topic=name, value=f"{said}: {state.reason}", ok=state.optional, remedy=state.remedy)


def backends() -> Section:
    """Every backend, and whether it can run here."""
    found = registry()
    states = {name: availability(backend) for name, backend in found.backends.items()}
    for name, owners in found.conflicts.items():
        states[name] = Availability(False, f"claimed by {', '.join(owners)}", "uninstall all but one of these plugins")
    findings = [_backend(name, state) for name, state in sorted(states.items())]
    if not findings:
        findings = [Finding(topic="none", value="no backend is installed", ok=False, remedy="pip install codellm-cpu")]
    rows = [
        {"name": name, "available": state.ok, "reason": state.reason, "remedy": state.remedy}
        for name, state in sorted(states.items())
    ]
    return Section(title="Backends", findings=tuple(findings), facts={"backends": rows})
