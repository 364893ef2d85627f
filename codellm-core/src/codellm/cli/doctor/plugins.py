"""Plugins: the broken ones, and what the others find."""

from __future__ import annotations

from collections.abc import Iterator

from codellm.cli.doctor.section import Section
from codellm.finding import Finding
from codellm.plugins import validate
from codellm.plugins.attempt import attempt
from codellm.plugins.manager import Plugin, describe, manager
from codellm.plugins.registry import registry


def plugins() -> Section:
    """Every plugin that is not used, and what those that are answer to `codellm_doctor`."""
    registry()  # collecting what the plugins bring shows which ones misbehave
    findings: list[Finding] = []
    broken = []
    for plugin in manager().plugins:
        if plugin.problem is None:
            findings.extend(_told(plugin))
        elif plugin.entry.off:
            findings.append(Finding(topic=plugin.name, value=plugin.problem.what))
        else:
            value = f"broken ({plugin.problem.what}); see `codellm plugins`"
            findings.append(Finding(topic=plugin.name, value=value, ok=False, remedy=plugin.problem.remedy))
            broken.append({"name": plugin.name, "distribution": plugin.distribution, "error": plugin.problem.what})
    return Section(title="Plugins", findings=tuple(findings), facts={"broken_plugins": broken})


def _told(plugin: Plugin) -> Iterator[Finding]:
    """What the hook of one plugin returns: one that fails is a finding itself, and silences no other."""
    tried = attempt(lambda: validate.findings(manager().ask(plugin, "codellm_doctor")), plugin.entry)
    if tried.error is not None:
        value = f"its codellm_doctor failed ({describe(tried.error)})"
        yield Finding(topic=plugin.name, value=value, ok=False, remedy=plugin.entry.repair())
    yield from tried.value or ()
