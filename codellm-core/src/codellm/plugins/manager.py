"""The plugin manager: every plugin is loaded, and asked, by itself, inside a guard.

One that raises, or returns what it must not, is blocked and remembered; everything else goes on without it.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, TypeVar

import attrs
import pluggy

from codellm.errors import PluginError, message
from codellm.plugins import entry_points
from codellm.plugins.attempt import attempt
from codellm.plugins.deprecation import HookDeprecationWarning
from codellm.plugins.entry_points import DISABLE, Entry, Remark
from codellm.plugins.watch import tell_vanished

SPEC = "codellm.hookspec"
DEFAULTS = "codellm.plugins.defaults"
"""What plugins implement, and core's own plugin: known by name, as every plugin is, since both speak of models and
backends, which themselves call hooks."""

SLOW = 1.0
"""Seconds that loading a plugin may take before its user is told."""

T = TypeVar("T")

_log = logging.getLogger("codellm")


@attrs.frozen(kw_only=True)
class Plugin:
    """An installed plugin, and what came of loading it: `problem` says why it is not used, `error` is what it raised.

    `seconds` and `printed` are of its import, its registration and the collection of what it brings.
    """

    entry: Entry
    problem: Remark | None = None
    error: BaseException | None = None
    seconds: float = 0.0
    printed: str = ""
    deprecated: tuple[HookDeprecationWarning, ...] = ()

    @property
    def name(self) -> str:
        """The name of its entry point."""
        return self.entry.name

    @property
    def distribution(self) -> str:
        """The distribution that installed it."""
        return self.entry.distribution

    @property
    def version(self) -> str:
        """The distribution's version."""
        return self.entry.version

    @property
    def brief(self) -> str:
        """How a list names it: by what one installs and uninstalls, and by its own name where that is another."""
        return self.name if self.name == self.distribution else f"{self.name} of {self.distribution}"

    def __str__(self) -> str:
        return str(self.entry)

    def raise_problem(self) -> None:
        """Say why it is not used, where it was asked for by name.

        Raises:
            PluginError: it is broken or turned off; chained from its own error.
        """
        if self.problem is not None:
            state = self.problem.what if self.entry.off else f"broken ({self.problem.what})"
            raise PluginError(f"{self} is {state}; {self.problem.remedy}") from self.error

    def remarks(self) -> tuple[Remark, ...]:
        """Everything its user should know of it."""
        found = [self.problem] if self.problem is not None else []
        if self.printed.strip():
            line = self.printed.strip().splitlines()[0]
            found.append(Remark(f"prints at import: {line}", f"harmless; tell the author of {self.distribution}"))
        if self.seconds > SLOW:
            found.append(slow(self))
        for warning in self.deprecated:
            remedy = f"`pip install --upgrade {self.distribution}`, or ask its author to {warning.instead}"
            found.append(Remark(f"implements {warning}", remedy))
        return tuple(found)


class PluginManager(pluggy.PluginManager):
    """pluggy's manager, with discovery and calls that no plugin can break."""

    def __init__(self, spec: ModuleType | type | None = None) -> None:
        super().__init__("codellm")
        self.add_hookspecs(spec or importlib.import_module(SPEC))
        self.register(importlib.import_module(DEFAULTS), name=entry_points.CORE)
        self.plugins: list[Plugin] = []
        self.origins: dict[str, Plugin] = {}
        """The plugins that bring the backends, by the backend's name, once they were asked."""
        self._warned: set[str] = set()

    def discover(self) -> None:
        """Load every plugin that is installed."""
        tell_vanished()
        for entry in entry_points.entries(entry_points.PLUGINS):
            self.plugins.append(self._load(entry))

    def working(self) -> list[Plugin]:
        """The plugins that are used."""
        return [plugin for plugin in self.plugins if plugin.problem is None]

    def _load(self, entry: Entry) -> Plugin:
        plugin, _ = load(entry, lambda: self._register(entry))
        return (
            attrs.evolve(plugin, deprecated=tuple(self._deprecated(entry.name))) if plugin.problem is None else plugin
        )

    def _register(self, entry: Entry) -> None:
        loaded = entry.load()
        try:
            if self.register(loaded, name=entry.name) is None:
                raise TypeError(f"{entry.value} is {loaded!r}, which has no hooks")
            self.check_pending()
        except BaseException:
            # pluggy leaves half of a plugin registered when registration fails
            self.set_blocked(entry.name)
            raise

    def _deprecated(self, name: str) -> Iterable[HookDeprecationWarning]:
        """The deprecated hooks, and arguments of hooks, that a registered plugin implements."""
        for caller in vars(self.hook).values():
            for implementation in caller.get_hookimpls() if caller.has_spec() else ():
                if implementation.plugin_name == name:
                    taken = (*implementation.argnames, *implementation.kwargnames)
                    of_arguments = caller.spec.warn_on_impl_args or {}
                    for warning in (caller.spec.warn_on_impl, *(of_arguments.get(each) for each in taken)):
                        if isinstance(warning, HookDeprecationWarning):
                            yield warning

    def collect(self, plugin: Plugin, gather: Callable[[], T]) -> T | None:
        """What `gather` takes from the hooks of `plugin`; None, and the plugin blocked, where it raises."""
        tried = attempt(gather, plugin.entry)
        index = next(index for index, each in enumerate(self.plugins) if each.entry is plugin.entry)
        plugin = attrs.evolve(plugin, seconds=plugin.seconds + tried.seconds, printed=plugin.printed + tried.printed)
        if tried.error is not None:
            self.set_blocked(plugin.name)
            plugin = _blocked(plugin, tried.error)
        self.plugins[index] = plugin
        return tried.value

    def ask(self, plugin: Plugin, hook: str, **arguments: Any) -> list[Any]:
        """What the implementations of `hook` in this one plugin return, but None. Raises whatever they raise.

        Raises:
            TypeError: it wraps the hook, which is asked of each plugin by itself.
        """
        found = []
        for implementation in getattr(self.hook, hook).get_hookimpls():
            if implementation.plugin_name == plugin.name:
                if implementation.wrapper or implementation.hookwrapper:
                    raise TypeError(f"{hook} cannot be wrapped: each plugin is asked by itself")
                found.append(implementation.function(*(arguments[name] for name in implementation.argnames)))
        return [value for value in found if value is not None]

    def notify(self, hook: str, **arguments: Any) -> None:
        """Tell every plugin that implements `hook`. One that raises is told of in a warning, once, and hurts nobody."""
        names = {implementation.plugin_name for implementation in getattr(self.hook, hook).get_hookimpls()}
        for plugin in self.working() if names else ():
            try:
                self.ask(plugin, hook, **arguments)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                told = f"{plugin}: {hook} failed ({describe(error)}); {plugin.entry.repair()}"
                self.warn(told, once=f"{plugin}: {hook}")

    def warn(self, text: str, *, once: str = "") -> None:
        """Write a warning to the logger `codellm`, once in this process for all of the same text, or of one `once`."""
        if (once or text) not in self._warned:
            self._warned.add(once or text)
            _log.warning("%s", text)

    def implementers(self, hook: str) -> str:
        """The plugins that implement `hook`, for a message; empty where only core does."""
        names = {implementation.plugin_name for implementation in getattr(self.hook, hook).get_hookimpls()}
        found = ", ".join(str(plugin) for plugin in self.working() if plugin.name in names)
        return f"{hook} is implemented by {found}" if found else ""

    def raise_blocked(self, name: str) -> None:
        """See `Plugin.raise_problem`, for the plugins called `name`."""
        for plugin in self.plugins:
            if plugin.name == name:
                plugin.raise_problem()


def load(entry: Entry, work: Callable[[], T]) -> tuple[Plugin, T | None]:
    """Do `work`, which imports `entry`, unless something speaks against it; None where it was not done or failed."""
    refusal = entry.refusal()
    if refusal is not None:
        return Plugin(entry=entry, problem=refusal, error=None if entry.off else PluginError(refusal.what)), None
    tried = attempt(work, entry)
    plugin = Plugin(entry=entry, seconds=tried.seconds, printed=tried.printed)
    return (plugin if tried.error is None else _blocked(plugin, tried.error)), tried.value


def _blocked(plugin: Plugin, error: BaseException) -> Plugin:
    name = plugin.distribution
    if isinstance(error, ModuleNotFoundError):
        remedy = f"install what it misses, or remove it with `pip uninstall {name}`"
    elif isinstance(error, pluggy.PluginValidationError):
        remedy = f"it was written for other hooks: `pip install --upgrade {name}`, or `pip uninstall {name}`"
    else:
        remedy = plugin.entry.repair()
    return attrs.evolve(plugin, problem=Remark(describe(error), remedy), error=error)


def slow(plugin: Plugin) -> Remark:
    """What to say of a plugin that takes long to load."""
    return Remark(
        f"takes {plugin.seconds:.1f} s to load, at every command that loads plugins",
        f"tell the author of {plugin.distribution}; until then {DISABLE}={plugin.name} turns it off",
    )


def describe(error: BaseException) -> str:
    """An error as one printable line: its type and the first line of its message; all where pluggy needs several."""
    name = type(error).__name__
    text = message(error, lines=None if isinstance(error, pluggy.PluginValidationError) else 1)[:400]
    return text if text == name or isinstance(error, PluginError) else f"{name}: {text}"


@functools.cache
def manager() -> PluginManager:
    """The process's plugin manager, with everything discovered."""
    built = PluginManager()
    built.discover()
    return built


def loaded() -> list[Plugin]:
    """The plugins, where this process has loaded them."""
    return manager().plugins if manager.cache_info().currsize else []
