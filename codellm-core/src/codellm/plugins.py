"""The plugin manager: every entry point is loaded by itself, inside a guard.

A plugin that raises on import or registration is blocked and remembered; everything else goes on without it.
"""

from __future__ import annotations

import functools
import importlib.metadata
from typing import Any

import attrs
import pluggy

from codellm import defaults, hookspec
from codellm.errors import PluginError

GROUP = "codellm"
COMMANDS = "codellm.commands"


@attrs.frozen(kw_only=True)
class Plugin:
    """An installed entry point, and what came of loading it."""

    name: str
    distribution: str
    version: str
    value: str
    error: BaseException | None = None


class PluginManager(pluggy.PluginManager):
    """pluggy's manager, with discovery that no plugin can break."""

    def __init__(self) -> None:
        super().__init__("codellm")
        self.add_hookspecs(hookspec)
        self.register(defaults, name="codellm-core")
        self.plugins: list[Plugin] = []

    def discover(self) -> None:
        """Load every entry point of the group `codellm`."""
        entries = sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: entry.name)
        for entry in entries:
            self.plugins.append(self._load(entry))

    def _load(self, entry: importlib.metadata.EntryPoint) -> Plugin:
        dist = entry.dist
        plugin = Plugin(
            name=entry.name,
            distribution=dist.name if dist else "?",
            version=dist.version if dist else "?",
            value=entry.value,
        )
        try:
            module = entry.load()
            self.register(module, name=entry.name)
            self.check_pending()
        except (Exception, SystemExit) as error:
            # pluggy leaves half of a plugin registered when registration fails
            self.set_blocked(entry.name)
            return attrs.evolve(plugin, error=error)
        return plugin

    def block(self, name: str, error: Exception) -> None:
        """Take a registered plugin out again, because of what its hooks returned."""
        self.set_blocked(name)
        self.plugins = [attrs.evolve(plugin, error=error) if plugin.name == name else plugin for plugin in self.plugins]

    def raise_blocked(self, name: str) -> None:
        """Raise what broke the plugin `name`, where it was asked for by name.

        Raises:
            PluginError: the plugin is broken; chained from its own error.
        """
        for plugin in self.plugins:
            if plugin.name == name and plugin.error is not None:
                raise PluginError(
                    f"plugin {plugin.name!r} of {plugin.distribution} {plugin.version} is broken "
                    f"({describe(plugin.error)}); repair it, or remove it with `pip uninstall {plugin.distribution}`"
                ) from plugin.error


def describe(error: BaseException) -> str:
    """An error as one line: its type and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


@functools.cache
def manager() -> PluginManager:
    """The process's plugin manager, with everything discovered."""
    built = PluginManager()
    built.discover()
    return built


def hook() -> Any:
    """The hooks, to be called."""
    return manager().hook
