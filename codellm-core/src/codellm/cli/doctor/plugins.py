"""Plugins: the broken ones, and what the others find."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from codellm.cli.doctor.section import Section
from codellm.finding import Finding
from codellm.plugins import describe, manager
from codellm.registry import registry


def plugins() -> Section:
    """Every plugin that is broken, and the answers of `codellm_doctor`."""
    registry()  # collecting what the plugins bring shows which ones misbehave
    broken = {plugin: plugin.error for plugin in manager().plugins if plugin.error is not None}
    faults = [
        Finding(
            topic=plugin.name,
            value=f"broken: {describe(error)}",
            ok=False,
            remedy=f"see `codellm plugins`; repair it, or `pip uninstall {plugin.distribution}`",
        )
        for plugin, error in broken.items()
    ]
    rows = [
        {"name": plugin.name, "distribution": plugin.distribution, "error": describe(error)}
        for plugin, error in broken.items()
    ]
    return Section(title="Plugins", findings=(*faults, *_told()), facts={"broken_plugins": rows})


def _told() -> Iterator[Finding]:
    """What each plugin's hook returns: one that fails is a finding, and silences no other."""
    for implementation in manager().hook.codellm_doctor.get_hookimpls():
        try:
            answer: Any = implementation.function()
            found = list(answer)
            wrong = next((one for one in found if not isinstance(one, Finding)), None)
            if wrong is not None:
                raise TypeError(f"it returned {type(wrong).__name__}, not Finding")
        except (Exception, SystemExit) as error:
            yield Finding(
                topic=implementation.plugin_name,
                value=f"its codellm_doctor failed: {describe(error)}",
                ok=False,
                remedy="report it to the author of this plugin",
            )
        else:
            yield from found
