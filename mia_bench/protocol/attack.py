"""The attack: run within its threat model, its budget and the device's memory, and checked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mia_bench.api.access import Access, open_access
from mia_bench.api.attack import Attack, AttackTask, Reconstructions
from mia_bench.api.dataset import Splits
from mia_bench.api.generative import GenerativeModel
from mia_bench.device import Precision, autocast, precision_notes
from mia_bench.errors import MiaBenchError, Modified, UsageError
from mia_bench.memory import halving, noting_halvings
from mia_bench.models.snapshot import Snapshot
from mia_bench.protocol.context import Context
from mia_bench.protocol.target import Target
from mia_bench.seeds import generator, random_states, seeded, set_random_states
from mia_bench.track import Track

Step = Literal["prepare", "invert"]

_STREAM = "invert"
"""The name of an attack's stream of random numbers."""


@dataclass(frozen=True)
class Budget:
    """What a track grants every attack.

    Attributes:
        images_per_class: reconstructions of each class.
        attacked_classes: how many classes, the first ones; None for all.
        batch_size: images a forward pass.
        precision: of the networks.
        shards: in how many parts the classes are dealt out, where an attack takes each class by itself.
    """

    images_per_class: int
    attacked_classes: int | None = None
    batch_size: int = 256
    precision: Precision = "float32"
    shards: int = 1

    @classmethod
    def of(cls, track: Track) -> Budget:
        """The budget of a track."""
        return cls(
            images_per_class=track.images_per_class,
            attacked_classes=track.attacked_classes,
            batch_size=track.attack_batch_size,
            precision=track.attack_precision,
            shards=track.shards,
        )

    def parts(self, attack: Attack, num_classes: int) -> list[Tensor]:
        """The classes that the attack inverts at once: contiguous parts, as even as can be, some empty."""
        attacked = torch.arange(num_classes)[: self.attacked_classes]
        return list(torch.tensor_split(attacked, self.shards if attack.by_class else 1))


@dataclass(frozen=True)
class Preparation:
    """What ``prepare`` left behind.

    Attributes:
        state: the tensors that it returned.
        random: the states of the generators when it ended.
    """

    state: Mapping[str, Tensor]
    random: Mapping[str, Tensor]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Preparation:
        """From :meth:`tensors`."""
        parts: dict[str, dict[str, Tensor]] = {"state": {}, "random": {}}
        for name, values in tensors.items():
            part, _, own = name.partition(".")
            parts[part][own] = values
        return cls(**parts)

    def tensors(self) -> dict[str, Tensor]:
        """All of it by unique names, as the store takes it."""
        state = {f"state.{name}": tensor for name, tensor in self.state.items()}
        return state | {f"random.{name}": tensor for name, tensor in self.random.items()}


@dataclass(frozen=True)
class AttackRun:
    """What a step of an attack returned, the task it was given, and notes for the record.

    ``result`` is :class:`Preparation` or :class:`Reconstructions`.
    """

    result: Any
    task: AttackTask
    notes: dict[str, str]

    @property
    def queries(self) -> int:
        """Images that the target answered."""
        return self.task.access.queries


def run_attack(
    attack: Attack,
    target: Target,
    prior: GenerativeModel,
    splits: Splits,
    budget: Budget,
    context: Context,
    *,
    step: Step,
    prepared: Preparation | None = None,
    classes: Tensor | None = None,
    undefended: Target | None = None,
) -> AttackRun:
    """Run ``attack.prepare`` or ``attack.invert``; out of memory, run it again with half the batch.

    Random numbers depend on nothing of the defense, nor on the classes: every defense, and every part of the
    classes, meets the same candidates. ``invert`` goes on in the stream of random numbers where ``prepare``
    ended, so that an attack may move a step of its own from the one to the other and stay the same attack.

    Args:
        target, prior: as restored; the attack may use them and must not modify them.
        splits: the data; the attack sees the public images only.
        context: seed of the cell, device, progress.
        step: the method to run.
        prepared: what ``prepare`` left behind.
        classes: one of the budget's parts; all attacked classes unless given.
        undefended: an undefended target of the same seed, where the attack needs it.

    Raises:
        Modified: the attack modified the target or the prior.
        UsageError: it needs an undefended target, and there is none.
        MiaBenchError: ``prepare`` returned no tensors by name.
    """
    seed, device = context.seed, context.device
    if classes is None:
        classes = torch.arange(splits.num_classes)[: budget.attacked_classes]
    if attack.needs_undefended and undefended is None:
        raise UsageError("this probe compares a target with an undefended one, and none is given")

    def opened(one: Target) -> Access:
        return open_access(
            attack.access,
            one.deployed,
            splits.num_classes,
            network=one.network,
            stochastic=one.stochastic,
        )

    used = [one for one in (target, undefended) if one]

    def run(batch_size: int) -> tuple[Any, AttackTask]:
        task = AttackTask(
            access=opened(target),
            prior=prior,
            public=splits.public,
            classes=classes,
            images_per_class=budget.images_per_class,
            generator=generator(seed, _STREAM, "attack"),
            device=device,
            batch_size=batch_size,
            progress=context.progress,
            state=dict(prepared.state) if prepared else {},
            undefended=opened(undefended) if undefended else None,
        )
        with seeded(seed, _STREAM), autocast(budget.precision, device), assert_unmodified(used, prior):
            if prepared:
                set_random_states(prepared.random, task.generator, device)
            result = getattr(attack, step)(task)
            if step == "prepare":
                if not isinstance(result, Mapping):
                    raise MiaBenchError(f"prepare returned {type(result).__name__}, not tensors by name")
                result = Preparation(result, random_states(task.generator, device))
            return result, task

    with noting_halvings() as halved:
        result, task = halving(run, budget.batch_size)
    notes = precision_notes(budget.precision, device)
    return AttackRun(result, task, notes | ({step: "; ".join(halved.values())} if halved else {}))


def joined_notes(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The notes of all parts of an attack by name, the same words once."""
    found: dict[str, dict[str, None]] = {}
    for notes in parts:
        for name, note in notes.items():
            found.setdefault(name, {})[note] = None
    return {name: "; ".join(notes) for name, notes in found.items()}


@contextlib.contextmanager
def assert_unmodified(targets: Iterable[Target], prior: GenerativeModel) -> Iterator[None]:
    """Check that weights, buffers, hooks and modes are the same afterwards.

    Raises:
        Modified: names the first that is not.
    """
    models: dict[str, nn.Module] = {"prior": prior}
    for target, whose in zip(targets, ("target", "undefended target"), strict=False):
        models[whose] = target.deployed
        if target.network is not None and target.network is not target.deployed:
            models[f"{whose}'s network"] = target.network
    before = {name: Snapshot.of(model) for name, model in models.items()}
    yield
    for name, model in models.items():
        if changed := before[name].changed(model):
            raise Modified(f"the attack changed {changed[0]} of the {name}; it may only use it")


def check_reconstructions(result: Reconstructions, task: AttackTask, resolution: int) -> None:
    """Check type, shape and range of what an attack returned.

    Raises:
        MiaBenchError: says what was returned and what was expected.
    """
    if not isinstance(result, Reconstructions):
        raise MiaBenchError(f"it returned {type(result).__name__}, not Reconstructions")
    expected = (len(task.classes), task.images_per_class, 3, resolution, resolution)
    images, latents = result.images, result.latents
    for name, values in result.diagnostics.items():
        if values.ndim != 2 or len(values) != len(task.classes):
            shape = tuple(values.shape)
            raise MiaBenchError(
                f"it returned diagnostics {name!r} {shape}, expected ({len(task.classes)}, steps)"
            )
    if tuple(images.shape) != expected:
        raise MiaBenchError(f"it returned images {tuple(images.shape)}, expected {expected}")
    if latents is not None:
        if latents.shape[:2] != images.shape[:2]:
            raise MiaBenchError(f"it returned latents {tuple(latents.shape)}, expected {expected[:2]} first")
        if not bool(torch.isfinite(latents).all()):
            raise MiaBenchError("it returned latents with NaN or infinity")
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise MiaBenchError(f"it returned images of {images.dtype}")
    if not bool(torch.isfinite(images).all()):
        raise MiaBenchError("it returned images with NaN or infinity")
    if float(images.min()) < 0 or float(images.max()) > 1:
        raise MiaBenchError("it returned images outside [0, 1]")
