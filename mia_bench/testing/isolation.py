"""Running a plugin as the host does, and seeing what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mia_bench.device import restore_settings, torch_settings
from mia_bench.models.snapshot import Snapshot, equal
from mia_bench.seeds import derive, seeded
from mia_bench.store import Store
from mia_bench.testing.findings import Attempt, NotMade, Problem, Trial

DATA_VARIABLE = "MIA_BENCH_DATA"

_READING = ("open", "os.listdir", "os.scandir")


@dataclass
class Traces:
    """What a run left behind.

    Attributes:
        seeded: global generators that it drew from or seeded, though the host seeds none of them for it.
        drew: whether it drew from torch's global generator, which the host has seeded.
        settings: torch's settings that it changed.
        read: files it read below the data root.
    """

    seeded: list[str] = field(default_factory=list)
    drew: bool = False
    settings: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)

    def problems(self, *, draws: bool) -> Iterator[Problem]:
        """What it must not have touched; ``draws``: torch's global generator is among it."""
        for name in dict.fromkeys(self.seeded):
            yield (
                f"it uses the global generator of {name}",
                "Draw from the generator that the task brings",
            )
        if draws and self.drew:
            yield (
                "it draws from torch's global generator",
                "Pass generator= to torch's functions; wrap what can't take one, such as the "
                "initialisation of layers, in mia_bench.seeds.seeded",
            )
        for name in self.settings:
            yield f"it changes {name} for the whole process", "Put it back, or leave it alone"


class TracedTrial(Trial):
    """A trial that keeps what its first run, ``base``, left behind: later ones may find it done already."""

    _first: Traces | None = None

    @property
    def base(self) -> Attempt[Any]:
        """The first run; the kinds' trials make it once."""
        raise NotImplementedError

    @property
    def traces(self) -> Traces:
        """What :attr:`base` left behind; nothing where it did not get that far."""
        _ = self.base
        return self._first or Traces()

    @contextlib.contextmanager
    def traced(self, seed: int) -> Iterator[None]:
        """As :func:`isolated`."""
        with isolated(seed) as traces:
            self._first = self._first or traces
            yield


@contextlib.contextmanager
def isolated(seed: int) -> Iterator[Traces]:
    """Torch seeded as in a stage, the other global generators too; all of them restored after."""
    before, traces = _numpy_state(), Traces()
    python, settings = random.getstate(), torch_settings()
    legacy = np.random.get_state()  # noqa: NPY002
    with seeded(seed, "trial"), _private_files(traces), _seeding(traces):
        own = derive(seed, "trial") % 2**32  # none that a plugin would take
        random.seed(own)
        np.random.seed(own)  # noqa: NPY002
        start = random.getstate(), _numpy_state(), torch.get_rng_state()
        try:
            yield traces
        finally:
            if random.getstate() != start[0]:
                traces.seeded.append("random")
            if _numpy_state() != start[1]:
                traces.seeded.append("numpy")
            traces.drew = not torch.equal(torch.get_rng_state(), start[2])
            traces.settings = [
                name for name, value in torch_settings().items() if value != settings[name]
            ]
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002
            restore_settings(settings)
    assert _numpy_state() == before


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


class _Watch:
    """Notes what is read below a folder; an audit hook can't be taken away again, only left idle."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.traces = Traces()
        self.installed = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None or event not in _READING or not arguments:
            return
        if isinstance(path := arguments[0], (str, bytes, os.PathLike)):
            name = os.fsdecode(path)
            if name.startswith(self.folder):
                self.traces.read.append(name.removeprefix(self.folder) or "its root")


_watch = _Watch()


@contextlib.contextmanager
def _private_files(traces: Traces) -> Iterator[None]:
    """A data root with a private photograph, and a watch on it."""
    if not _watch.installed:
        sys.addaudithook(_watch)
        _watch.installed = True
    old = os.environ.get(DATA_VARIABLE)
    with tempfile.TemporaryDirectory() as folder:
        private = Path(folder) / "private" / "person" / "1.jpg"
        private.parent.mkdir(parents=True)
        private.write_bytes(b"private")
        os.environ[DATA_VARIABLE] = folder
        _watch.folder, _watch.traces = folder, traces
        try:
            yield
        finally:
            _watch.folder = None
            os.environ.pop(DATA_VARIABLE)
            if old is not None:
                os.environ[DATA_VARIABLE] = old


def private_files(traces: Traces) -> Iterator[Problem]:
    """The problem of a run that read below the data root."""
    if traces.read:
        yield (
            f"it reads files below {DATA_VARIABLE}: {traces.read[0]}",
            "Private data are no part of the threat model: use what the task brings",
        )


def reloaded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they come back from the store.

    Raises:
        TypeError: it is no mapping of names to tensors.
    """
    wrong = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if wrong:
        raise TypeError(f"{wrong[0]!r} is no tensor")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        store.save("trial", "state", dict(tensors), {})
        return store.tensors("trial", "state")


def changes(before: Snapshot, model: nn.Module, what: str) -> Iterator[Problem]:
    """What has changed of a network since."""
    if changed := before.changed(model):
        yield (
            f"it changes {what}: {', '.join(changed[:3])}",
            "Work on a copy (copy.deepcopy), or keep to forward passes in eval mode",
        )
    if before.mode_changed(model):
        yield f"it leaves {what} in another mode", "Leave train() and eval() alone"


def gpu_device() -> torch.device:
    """The first GPU.

    Raises:
        NotMade: there is none.
    """
    if not torch.cuda.is_available():
        raise NotMade("no CUDA GPU is here")
    return torch.device("cuda")


def same_tensors(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Same names, and :func:`equal` tensors."""
    return first.keys() == second.keys() and all(
        equal(tensor, second[name]) for name, tensor in first.items()
    )


def image_problems(images: Tensor, shape: tuple[int, ...], what: str) -> Iterator[Problem]:
    """Whether images have a shape, and are uint8 or finite numbers in [0, 1]."""
    if tuple(images.shape) != shape:
        yield f"{what} are {tuple(images.shape)}, not {shape}", "Return that shape"
    elif images.dtype == torch.uint8:
        return
    elif not images.is_floating_point():
        yield f"{what} are {images.dtype}", "Return uint8, or floats in [0, 1]"
    elif not bool(torch.isfinite(images).all()):
        yield f"{what} hold NaN or infinity", "Keep losses and steps finite"
    elif float(images.min()) < 0 or float(images.max()) > 1:
        low, high = float(images.min()), float(images.max())
        yield f"{what} run from {low:.3g} to {high:.3g}", "Keep them in [0, 1], by clamp(0, 1) say"
