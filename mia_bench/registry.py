"""From names to components, loaded on first use; a name claimed twice is an error naming both."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mia_bench import interruption
from mia_bench.api.architecture import Architecture
from mia_bench.api.attack import Attack
from mia_bench.api.component import Component, component_version
from mia_bench.api.dataset import Dataset
from mia_bench.api.defense import Defense
from mia_bench.api.encoder import Encoder
from mia_bench.api.metric import Metric
from mia_bench.api.prior import Prior
from mia_bench.errors import MiaBenchError, UsageError, did_you_mean, summarize_error
from mia_bench.names import COMPONENT, STANDARD, VERSION

KINDS = {
    "defense": "defenses",
    "attack": "attacks",
    "prior": "priors",
    "dataset": "datasets",
    "model": "models",
    "encoder": "encoders",
    "metric": "metrics",
    "track": "tracks",
}
"""Kind to its plural, which names the hook ``mia_bench_register_<plural>``."""

BASES: dict[str, type[Component]] = {
    "defense": Defense,
    "attack": Attack,
    "prior": Prior,
    "dataset": Dataset,
    "model": Architecture,
    "encoder": Encoder,
    "metric": Metric,
}

_RESERVED = {"attack": (STANDARD,)}
"""Words that stand in place of names of a kind."""


@dataclass
class PluginInfo:
    """One entry point and what became of it: ``status`` is ``ok``, ``disabled`` or ``broken``."""

    name: str
    distribution: str
    version: str
    module: str
    status: str = "ok"
    error: str = ""

    @property
    def id(self) -> str:
        """``distribution:name``, unique."""
        return f"{self.distribution}:{self.name}"


@dataclass(frozen=True)
class Entry:
    """A registered name."""

    kind: str
    name: str
    component: type | str | Path
    plugin: PluginInfo
    given_summary: str

    @property
    def owner(self) -> str:
        """The component and its plugin, as error messages name them."""
        return f"{self.kind} {self.name!r} of plugin {self.plugin.id}"

    def load(self) -> type[Any]:
        """The component's class, imported now if it was registered as a string.

        Raises:
            MiaBenchError: the import fails or gives something else; the plugin is named.
        """
        component = self.component
        if isinstance(component, str):
            module, _, attribute = component.partition(":")
            try:
                component = getattr(importlib.import_module(module), attribute)
            except BaseException as error:  # a plugin's module may raise anything
                interruption.check(error)
                reason = summarize_error(error, {module.partition(".")[0]})
                raise MiaBenchError(f"{self.owner} can't be loaded: {reason}") from error
        base = BASES[self.kind]
        if not (isinstance(component, type) and issubclass(component, base)):
            raise MiaBenchError(f"{self.owner} is {component!r}, not a subclass of mia_bench.{base.__name__}")
        return component

    @property
    def summary(self) -> str:
        """The summary given at registration, else the class's own (a string is not imported for it)."""
        if self.given_summary or not isinstance(self.component, type):
            return self.given_summary
        return str(getattr(self.component, "summary", ""))

    def identity(self) -> dict[str, str]:
        """Name, distribution and version: what a cache key and a record say of the component.

        Raises:
            MiaBenchError: it can't be loaded, or its version has another form than :data:`VERSION`.
        """
        version = component_version(self.load())
        if not VERSION.matches(version):
            raise MiaBenchError(f"{self.owner}: {version!r} is not {VERSION.rule}")
        return {"name": self.name, "distribution": self.plugin.distribution, "version": version}


class Registry:
    """All registered names."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], list[Entry]] = {}
        self.disabled: list[str] = []
        """Ids of plugins that were left out when this was filled."""

    def add(
        self, kind: str, name: str, component: type | str | Path, summary: str, plugin: PluginInfo
    ) -> None:
        """Register a name; a ValueError or TypeError says what is wrong and marks the plugin broken."""
        if not isinstance(summary, str):
            raise TypeError(f"{kind} {name!r}: the summary {summary!r} is not a string")
        if not COMPONENT.matches(name):
            raise ValueError(f"{kind} name {name!r} is not {COMPONENT.rule}")
        if name in _RESERVED.get(kind, ()):
            raise ValueError(f"{kind} name {name!r} is reserved: it stands for a track's set of them")
        if kind == "track":
            if not isinstance(component, (str, Path)) or not Path(component).is_file():
                raise ValueError(f"track {name!r}: {component!r} is not the path of a TOML file")
            component = Path(component)
        elif isinstance(component, str):
            module, colon, attribute = component.partition(":")
            if not (module and colon and attribute):
                raise ValueError(f"{kind} {name!r}: {component!r} is not 'package.module:Class'")
        elif not (isinstance(component, type) and issubclass(component, BASES[kind])):
            raise TypeError(f"{kind} {name!r}: {component!r} is not a subclass of {BASES[kind].__name__}")
        entries = self._entries.setdefault((kind, name), [])
        entries.append(Entry(kind, name, component, plugin, summary))

    def discard(self, plugin_id: str) -> None:
        """Forget what a plugin registered."""
        for key, entries in list(self._entries.items()):
            self._entries[key] = [entry for entry in entries if entry.plugin.id != plugin_id]
            if not self._entries[key]:
                del self._entries[key]

    def conflicts(self, plugin: str = "") -> list[str]:
        """One line for each name that two plugins claim; of the names of one plugin, if one is given."""
        return [
            self._conflict(entries)
            for entries in self._entries.values()
            if len(entries) > 1
            and any(plugin in ("", e.plugin.name, e.plugin.distribution, e.plugin.id) for e in entries)
        ]

    @staticmethod
    def _conflict(entries: list[Entry]) -> str:
        title = f"{entries[0].kind} {entries[0].name!r}"
        owners = list(dict.fromkeys(entry.plugin.id for entry in entries))
        if len(owners) == 1:
            return f"{title} is registered twice by {owners[0]}"
        claimed = f"{title} is claimed by {' and '.join(owners)}"
        return f"{claimed}; give yours another name, or disable one with MIA_BENCH_DISABLE_PLUGINS"

    def get(self, kind: str, name: str) -> Entry:
        """The entry of that name.

        Raises:
            UsageError: unknown (with the nearest names), or claimed by two plugins.
        """
        entries = self._entries.get((kind, name))
        if not entries:
            known = [*self.names(kind), *_RESERVED.get(kind, ())]
            raise UsageError(f"unknown {kind} {name!r}; {self.hint(name, known)}")
        if len(entries) > 1:
            raise UsageError(self._conflict(entries))
        return entries[0]

    def hint(self, name: str, known: Iterable[str]) -> str:
        """As :func:`did_you_mean`, and which plugins are disabled."""
        disabled = f" (disabled: {', '.join(self.disabled)})" if self.disabled else ""
        return did_you_mean(name, known) + disabled

    def names(self, kind: str) -> list[str]:
        """The names of one kind, sorted."""
        return sorted(name for k, name in self._entries if k == kind)

    def entries(self, kind: str) -> list[Entry]:
        """One entry a name of one kind, sorted by name."""
        return [self._entries[kind, name][0] for name in self.names(kind)]

    def find(self, name: str) -> list[Entry]:
        """The entries of that name in every kind."""
        return [entries[0] for (_, known), entries in self._entries.items() if known == name]
