"""Running a plugin as the host does, and seeing what it leaves behind."""

from __future__ import annotations

import contextlib
import os
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
        seeded: global generators that it drew from or seeded, though the host seeds none of them for it.
        drew: what of it drew from torch's global generator, which the host has seeded.
        used_generator: whether it drew from the generator of its task.
        settings: torch's settings that it changed.
        read: files it read below the data root.
    """

    seeded: list[str] = field(default_factory=list)
    drew: set[str] = field(default_factory=set)
    used_generator: bool = False
    settings: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def drawing(self, method: str, generator: torch.Generator | None = None) -> Iterator[None]:
        """Note whether a method draws from torch's global generator, or from one it is given.

        Inside of the host's :func:`~mia_bench.seeds.seeded`, which restores the global one.
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
    """Torch seeded as in a stage, the other global generators too; all of them restored after."""
    traces = traces or Traces()
    python, settings = random.getstate(), torch_settings()
    numpy = np.random.get_state()  # noqa: NPY002
    with seeded(seed, "trial"), _private_files(traces), _seeding(traces):
        own = derive(seed, "trial") % 2**32  # none that a plugin would take
        random.seed(own)
        np.random.seed(own)  # noqa: NPY002
        start = random.getstate(), _numpy_state()
        try:
            with traces.drawing("it"):
                yield traces
        finally:
            if random.getstate() != start[0]:
                traces.seeded.append("random")
            if _numpy_state() != start[1]:
                traces.seeded.append("numpy")
            traces.settings = [name for name, value in torch_settings().items() if value != settings[name]]
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            restore_settings(settings)


@contextlib.contextmanager
def _seeding(traces: Traces) -> Iterator[None]:
    """Note whether anything but the host seeds torch's global generator."""
    original = torch.manual_seed

    def noted(seed: int) -> torch.Generator:
        if sys._getframe(1).f_globals.get("__name__") != seeded.__module__:
            traces.seeded.append("torch, which it seeds")
        return original(seed)

    torch.manual_seed = noted
    try:
        yield
    finally:
        torch.manual_seed = original


def _numpy_state() -> tuple[bytes, Any]:
    state = np.random.get_state(legacy=False)  # noqa: NPY002
    return state["state"]["key"].tobytes(), state["state"]["pos"]


@contextlib.contextmanager
def _private_files(traces: Traces) -> Iterator[None]:
    """A data root with a private photograph, and a watch on it."""
    _install_watch()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, {DATA_VARIABLE: folder}),
    ):
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
        TypeError: one is no tensor.
    """
    wrong = [name for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise TypeError(f"{wrong[0]!r} is no tensor")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        store.save("trial", "state", dict(tensors), {})
        return store.tensors("trial", "state")
