"""Running a plugin as the host does, and seeing what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from etils.epy import lazy_imports

from mia_bench.device import restore_settings, torch_settings
from mia_bench.seeds import derive, seeded
from mia_bench.store import Store

with lazy_imports():
    import numpy as np
    import torch
    from torch import Tensor

DATA_VARIABLE = "MIA_BENCH_DATA"

_READING = ("open", "os.listdir", "os.scandir")


@dataclass
class Traces:
    """What a run left behind.

    Attributes:
        seeded: global generators that it drew from or seeded, though the host does not seed them for it.
        drew: methods that drew from torch's global generator, which the host has seeded.
        used_generator: whether it drew from the generator of its task.
        settings: torch's settings that it changed.
        read: files that it read below the data root.
    """

    seeded: list[str] = field(default_factory=list)
    drew: set[str] = field(default_factory=set)
    used_generator: bool = False
    settings: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def drawing(self, method: str, generator: torch.Generator | None = None) -> Iterator[None]:
        """Note whether a method draws from torch's global generator, or from one it is given.

        To be entered within :func:`~mia_bench.seeds.seeded`, which restores the global generator.
        """
        before = torch.get_rng_state()
        own = None if generator is None else generator.get_state()
        try:
            yield
        finally:
            if not torch.equal(before, torch.get_rng_state()):
                self.drew.add(method)
            if generator is not None and own is not None:
                self.used_generator |= not torch.equal(own, generator.get_state())


@contextlib.contextmanager
def isolated(seed: int, traces: Traces | None = None) -> Iterator[Traces]:
    """Seed torch as in a stage, and the other global generators; restore all of them afterwards."""
    traces = traces or Traces()
    before, settings = _generator_states(), torch_settings()
    with seeded(seed, "trial"), _private_files(traces), _noted_seeding(traces):
        own = derive(seed, "trial") % 2**32  # a seed that no plugin would choose
        random.seed(own)
        np.random.seed(own)  # noqa: NPY002
        start = _generator_states()
        try:
            with traces.drawing("it"):
                yield traces
        finally:
            traces.seeded += [name for name, state in _generator_states().items() if state != start[name]]
            traces.settings = [name for name, value in torch_settings().items() if value != settings[name]]
            random.setstate(before["random"])
            np.random.set_state(pickle.loads(before["numpy"]))  # noqa: NPY002
            restore_settings(settings)


def _generator_states() -> dict[str, Any]:
    """The states of the global generators of Python and NumPy, in a form that can be compared."""
    return {"random": random.getstate(), "numpy": pickle.dumps(np.random.get_state())}  # noqa: NPY002


def _noted_seeding(traces: Traces) -> contextlib.AbstractContextManager[object]:
    """Note whether anything but the host seeds torch's global generator."""
    original = torch.manual_seed

    def noted(seed: int) -> torch.Generator:
        if sys._getframe(1).f_globals.get("__name__") != seeded.__module__:
            traces.seeded.append("torch, which it seeds")
        return original(seed)

    return mock.patch.object(torch, "manual_seed", noted)


@contextlib.contextmanager
def _private_files(traces: Traces) -> Iterator[None]:
    """A data root with a private photograph, and a watch on it."""
    _install_watch()
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {DATA_VARIABLE: folder}):
        private = Path(folder) / "private" / "person" / "1.jpg"
        private.parent.mkdir(parents=True)
        private.write_bytes(b"private")
        _watched.append((folder, traces))
        try:
            yield
        finally:
            _watched.pop()


_watched: list[tuple[str, Traces]] = []
"""Folders, the innermost last, and where to note what is read below them."""


@cache
def _install_watch() -> None:
    sys.addaudithook(_note_reading)  # can't be taken away again


def _note_reading(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched or event not in _READING or not arguments:
        return
    if isinstance(path := arguments[0], (str, bytes, os.PathLike)):
        folder, traces = _watched[-1]
        name = os.fsdecode(path)
        if name.startswith(folder):
            traces.read.append(name.removeprefix(folder) or "its root")


def reloaded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they come back from the store.

    Raises:
        TypeError: one is not a tensor.
    """
    wrong = [name for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise TypeError(f"{wrong[0]!r} is not a tensor")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        store.save("trial", "state", dict(tensors), {})
        return store.tensors("trial", "state")
