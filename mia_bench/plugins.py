"""Discovery: every plugin comes in through the entry-point group ``mia_bench``, built-ins too.

The host iterates the entry points itself: pluggy's own loader stops at the first failing import and
silently skips a repeated name. A broken plugin is kept with its error and left out.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import traceback
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from mia_bench import hookspecs
from mia_bench.errors import MiaBenchError, StoreError, UsageError, did_you_mean, summarize_error
from mia_bench.registry import KINDS, PluginInfo, Registry

GROUP = "mia_bench"
DISABLE_VARIABLE = "MIA_BENCH_DISABLE_PLUGINS"
STRICT_VARIABLE = "MIA_BENCH_STRICT"


class Host:
    """The plugins that were found and the registry they filled."""

    def __init__(self, found: Iterable[EntryPoint], disabled: frozenset[str] = frozenset()) -> None:
        self.disabled = disabled
        self.manager = pluggy.PluginManager(GROUP)
        self.manager.add_hookspecs(hookspecs)
        self.registry = Registry()
        self.plugins: list[PluginInfo] = []
        for entry in sorted(found, key=lambda e: (e.dist.name if e.dist else "", e.name)):
            self._add(entry, disabled)

    def _add(self, entry: EntryPoint, disabled: frozenset[str]) -> None:
        info = PluginInfo(
            name=entry.name,
            distribution=entry.dist.name if entry.dist else "unknown",
            version=entry.dist.version if entry.dist else "",
            module=entry.value,
        )
        if any(known.id == info.id for known in self.plugins):
            return  # one distribution visible through two paths (an editable install, say)
        self.plugins.append(info)
        if disabled & {info.name, info.distribution, info.id}:
            info.status = "disabled"
            self.registry.disabled.append(info.id)
            return
        try:
            plugin = entry.load()
            self._check_hooks(plugin)
            self.manager.register(plugin, name=info.id)
            if not self.manager.get_hookcallers(plugin):
                raise TypeError("it implements no hook: is the decorator @hookimpl missing?")
            self._collect(plugin, info)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin's import must not end the host
            info.status, info.error = "broken", summarize_error(error, self.packages)
            self.registry.discard(info.id)
            if self.manager.has_plugin(info.id):
                self.manager.unregister(name=info.id)

    def _check_hooks(self, plugin: ModuleType) -> None:
        """Raises ``TypeError`` where a hook is implemented that isn't one, or with other arguments."""
        calls = vars(self.manager.hook)
        for attribute in dir(plugin):
            options = self.manager.parse_hookimpl_opts(plugin, attribute)
            if options is None or options["optionalhook"]:
                continue
            name = options["specname"] or attribute
            if name not in calls:
                raise TypeError(f"no hook is called {name!r}; {did_you_mean(name, calls)}")
            spec = calls[name].spec
            for argument in inspect.signature(getattr(plugin, attribute)).parameters:
                if argument not in spec.argnames:
                    expected = ", ".join(spec.argnames)
                    raise TypeError(f"{name} gets ({expected}), it has no argument {argument!r}")

    def _collect(self, plugin: ModuleType, info: PluginInfo) -> None:
        others = [other for other in self.manager.get_plugins() if other is not plugin]
        for kind, hook in KINDS.items():
            call = self.manager.subset_hook_caller(f"mia_bench_register_{hook}", others)

            def register(
                name: str, component: type | str | Path, summary: str = "", kind: str = kind
            ) -> None:
                self.registry.add(kind, name, component, summary, info)

            call(register=register)

    def call(self, hook: str, **arguments: Any) -> list[tuple[str, BaseException]]:
        """Call ``hook`` of each plugin on its own; (plugin id, error) for each that raised."""
        errors: list[tuple[str, BaseException]] = []
        for plugin in self.manager.get_plugins():
            others = [other for other in self.manager.get_plugins() if other is not plugin]
            try:
                self.manager.subset_hook_caller(hook, others)(**arguments)
            except (Exception, SystemExit) as error:  # it must not keep the others from their turn
                errors.append((str(self.manager.get_name(plugin)), error))
        return errors

    def implementing(self, hook: str) -> list[tuple[PluginInfo, ModuleType]]:
        """The plugins with that hook, and their modules."""
        found = [(info, self.manager.get_plugin(info.id)) for info in self.plugins]
        return [(info, module) for info, module in found if module is not None and hasattr(module, hook)]

    @property
    def packages(self) -> frozenset[str]:
        """Top-level names of the plugins' modules."""
        return frozenset(re.split("[.:]", info.module)[0] for info in self.plugins)

    @property
    def broken(self) -> list[PluginInfo]:
        """Plugins that failed to load."""
        return [info for info in self.plugins if info.status == "broken"]

    def problems(self) -> list[str]:
        """One line for each broken plugin, wrong name to disable and name claimed twice."""
        lines = [f"plugin {info.id} is broken: {info.error}" for info in self.broken]
        known = {word for info in self.plugins for word in (info.name, info.distribution, info.id)}
        lines += [
            f"{DISABLE_VARIABLE} names {name!r}, which is no plugin; {did_you_mean(name, known)}"
            for name in sorted(self.disabled - known)
        ]
        return lines + self.registry.conflicts()


@cache
def host() -> Host:
    """The host of this process.

    Raises:
        UsageError: ``MIA_BENCH_STRICT`` is set and a plugin is broken or a name claimed twice.
    """
    names = os.environ.get(DISABLE_VARIABLE, "").split(",")
    loaded = Host(entry_points(group=GROUP), frozenset(n.strip() for n in names if n.strip()))
    if os.environ.get(STRICT_VARIABLE, "0") not in ("", "0") and (lines := loaded.problems()):
        raise UsageError(f"{STRICT_VARIABLE} is set and " + "; ".join(lines))
    return loaded


def plugin_behind(error: BaseException) -> str:
    """The plugin whose code an error came from: the last one that was entered; empty if none was."""
    modules = {info.module.partition(":")[0]: info.id for info in host().plugins}
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        name = str(frame.f_globals.get("__name__", ""))
        if name in modules:
            return modules[name]
        # Of several plugins of one package only the module tells which it is.
        package = name.partition(".")[0]
        of_package = [plugin for module, plugin in modules.items() if module.partition(".")[0] == package]
        if len(of_package) == 1:
            return of_package[0]
    return ""


def describe_error(error: BaseException) -> str:
    """What a plugin of this process raised, in one line, with the plugin's line."""
    return summarize_error(error, host().packages)


@contextlib.contextmanager
def attribute_errors(owner: str, *, all_errors: bool = False) -> Iterator[None]:
    """Turn what a plugin's code raises into one line that names its owner.

    Args:
        owner: the component and its plugin in words.
        all_errors: name the owner also in errors that are one clear line already.

    Raises:
        MiaBenchError: in place of what was raised; errors of the store pass.
    """
    try:
        yield
    except StoreError:
        raise
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        if isinstance(error, MiaBenchError) and not all_errors:
            raise
        raise MiaBenchError(f"{owner}: {describe_error(error)}") from error
