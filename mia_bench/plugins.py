"""Discovery: every plugin comes in through the entry-point group ``mia_bench``, built-ins too.

A broken plugin is kept with its error and left out; pluggy's own loader stops at the first failing import.

Plugins are code, and nothing keeps one from harm that intends it. What is guarded against are mistakes: a
plugin that raises anything, ends the process, prints, or takes too long while it is imported. Not guarded
against is an import that never returns to Python, in a loop of C code say, or on Windows.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pluggy

from mia_bench import hookspecs, interruption
from mia_bench.discovery import GROUP, distribution_name, find_plugins, folder_name
from mia_bench.errors import MiaBenchError, StoreError, UsageError, did_you_mean, summarize_error
from mia_bench.names import DISTRIBUTION, PLUGIN, RELEASE
from mia_bench.registry import KINDS, PluginInfo, Registry
from mia_bench.text import one_line, shortened

DISABLE_VARIABLE = "MIA_BENCH_DISABLE_PLUGINS"
STRICT_VARIABLE = "MIA_BENCH_STRICT"

SLOW_SECONDS = 20.0
"""A plugin whose import takes longer is named."""

LONGEST_SECONDS = 300.0
"""A plugin whose import takes longer is broken."""


class Host:
    """The plugins that were found and the registry they filled.

    Attributes:
        remarks: one line on each plugin that works but does what it must not.
    """

    def __init__(
        self,
        found: Iterable[EntryPoint],
        disabled: frozenset[str] = frozenset(),
        unreadable: Iterable[str] = (),
    ) -> None:
        self.disabled = disabled
        self.unreadable = list(unreadable)
        self.remarks: list[str] = []
        self.manager = pluggy.PluginManager(GROUP)
        self.manager.add_hookspecs(hookspecs)
        self.registry = Registry()
        self.plugins: list[PluginInfo] = []
        described = [(_describe(entry), entry) for entry in found]
        for info, entry in sorted(described, key=lambda pair: (pair[0].distribution, pair[0].name)):
            self._add(info, entry)

    def _add(self, info: PluginInfo, entry: EntryPoint) -> None:
        same = next((known for known in self.plugins if known.id == info.id), None)
        if same is not None:
            if same.module != info.module:
                self.remarks.append(f"plugin {info.id} is named twice; {info.module} is left out")
            return  # one distribution visible through two paths (an editable install, say)
        self.plugins.append(info)
        if self.disabled & {info.name, info.distribution, info.id}:
            info.status = "disabled"
            self.registry.disabled.append(info.id)
            return
        if info.status == "broken":
            return
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed), _time_limit(info.id):
                plugin = entry.load()
                self._check_hooks(plugin)
                self.manager.register(plugin, name=info.id)
                if not self.manager.get_hookcallers(plugin):
                    raise TypeError("it implements no hook: is the decorator @hookimpl missing?")
                self._collect(plugin, info)
        except BaseException as error:  # a plugin's import must not end the host
            interruption.check(error)
            info.status, info.error = "broken", summarize_error(error, self.packages)
            self.registry.discard(info.id)
            if self.manager.has_plugin(info.id):
                self.manager.unregister(name=info.id)
        else:
            if printed.getvalue():
                words = shortened(one_line(printed.getvalue()), 80)
                self.remarks.append(f"plugin {info.id} prints while it is imported: {words}")

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

    def call(
        self, hook: str, only: PluginInfo | None = None, **arguments: Any
    ) -> list[tuple[str, BaseException]]:
        """Call ``hook`` of each plugin by itself, or only of one; (plugin id, error) for each that raised."""
        errors: list[tuple[str, BaseException]] = []
        for plugin in self.manager.get_plugins():
            if only and self.manager.get_name(plugin) != only.id:
                continue
            others = [other for other in self.manager.get_plugins() if other is not plugin]
            try:
                with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
                    self.manager.subset_hook_caller(hook, others)(**arguments)
            except BaseException as error:  # it must not keep the others from their turn
                interruption.check(error)
                errors.append((str(self.manager.get_name(plugin)), error))
        return errors

    def implementing(self, hook: str) -> list[tuple[PluginInfo, ModuleType]]:
        """The plugins with that hook, and their modules."""
        plugins = [(info, self.manager.get_plugin(info.id)) for info in self.plugins]
        found: list[tuple[PluginInfo, ModuleType]] = []
        for info, module in plugins:
            with contextlib.suppress(Exception):  # of a module's own __getattr__
                found += [(info, module)] if module is not None and hasattr(module, hook) else []
        return found

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
        lines = list(self.unreadable)
        lines += [f"plugin {info.id} is broken: {info.error}" for info in self.broken]
        known = {word for info in self.plugins for word in (info.name, info.distribution, info.id)}
        lines += [
            f"{DISABLE_VARIABLE} names {name!r}, which is no plugin; {did_you_mean(name, known)}"
            for name in sorted(self.disabled - known)
        ]
        return lines + self.registry.conflicts()


def _describe(entry: EntryPoint) -> PluginInfo:
    """What an entry point says of itself; broken where a name or version is none."""
    info = PluginInfo(name=entry.name, distribution="unknown", version="", module=entry.value)
    if entry.dist is not None:
        info.distribution, info.version = _identity(entry.dist)
    if not PLUGIN.matches(info.name):
        info.error = f"{shortened(ascii(info.name), 80)} is not {PLUGIN.rule}"
    elif entry.dist is not None and info.distribution == folder_name(entry.dist):
        info.error = "its distribution has no name: METADATA is missing or damaged; install it again"
    elif not DISTRIBUTION.matches(info.distribution):
        info.error = f"{shortened(ascii(info.distribution), 80)} is not {DISTRIBUTION.rule}"
    elif entry.dist is not None and not RELEASE.matches(info.version):
        info.error = f"{shortened(ascii(info.version), 80)} is not {RELEASE.rule}"
    if info.error:
        info.status = "broken"
        info.name, info.distribution = shortened(one_line(info.name), 80), one_line(info.distribution)
    return info


@lru_cache(maxsize=4)  # reading its metadata takes longer than importing most plugins
def _identity(distribution: Distribution) -> tuple[str, str]:
    """Name and version of a distribution; the version is empty where it can't be read."""
    version = ""
    with contextlib.suppress(Exception):
        version = str(distribution.version)
    return distribution_name(distribution), version


@contextlib.contextmanager
def _time_limit(plugin: str) -> Iterator[None]:
    """Name a plugin whose import is slow, and end one that takes too long (in the main thread of POSIX)."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    began, named = time.monotonic(), False

    def late(number: int, frame: FrameType | None) -> None:
        nonlocal named
        seconds = time.monotonic() - began
        if seconds >= LONGEST_SECONDS:
            raise TimeoutError(f"its import took longer than {LONGEST_SECONDS:g} s")
        if not named:
            named = True
            with contextlib.suppress(Exception):
                words = f"plugin {plugin} takes long to import; {DISABLE_VARIABLE}={plugin} leaves it out"
                print(f"warning: {words}", file=sys.stderr, flush=True)

    handler = signal.signal(signal.SIGALRM, late)
    before, interval = signal.setitimer(signal.ITIMER_REAL, SLOW_SECONDS, SLOW_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if before:  # somebody else's alarm goes on
            left = max(before - (time.monotonic() - began), 0.001)
            signal.setitimer(signal.ITIMER_REAL, left, interval)


@cache
def host() -> Host:
    """The host of this process.

    Raises:
        UsageError: ``MIA_BENCH_STRICT`` is set and a plugin is broken or a name claimed twice.
    """
    names = os.environ.get(DISABLE_VARIABLE, "").split(",")
    found, unreadable = find_plugins()
    loaded = Host(found, frozenset(n.strip() for n in names if n.strip()), unreadable)
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


def raised_by_host(error: BaseException) -> bool:
    """Whether the host raised an error, perhaps in a call from a plugin, and not the plugin itself."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__", "")).partition(".")[0] == __package__


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
    except BaseException as error:  # a plugin may raise anything
        interruption.check(error)
        if isinstance(error, StoreError) and raised_by_host(error):
            raise
        if isinstance(error, MiaBenchError) and not all_errors:
            raise
        raise MiaBenchError(f"{owner}: {describe_error(error)}") from error
