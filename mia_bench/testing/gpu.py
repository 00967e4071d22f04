"""What a device can do, as rows of a table: ``mia-bench doctor --gpu``.

Every function takes the device, so that all of it can be tried on a CPU.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from mia_bench import provenance
from mia_bench.api.architecture import NetworkTask
from mia_bench.api.attack import Attack, Setting
from mia_bench.api.classifier import Classifier
from mia_bench.api.defense import Defense
from mia_bench.api.generative import GenerativeModel
from mia_bench.api.images import to_float
from mia_bench.components import OptionValues, resolve, resolve_choice, track_options
from mia_bench.device import Precision, autocast, has_tf32
from mia_bench.errors import MiaBenchError
from mia_bench.fetch import find
from mia_bench.models.inference import move_model, predict_probabilities
from mia_bench.plugins import describe_error
from mia_bench.protocol.attack import Budget, run_attack
from mia_bench.protocol.context import Context
from mia_bench.protocol.prior import restore_prior
from mia_bench.protocol.target import Target, freeze, train_target
from mia_bench.registry import Entry, Registry
from mia_bench.seeds import seeded
from mia_bench.testing import world as toy
from mia_bench.testing.checks import CheckSkipped
from mia_bench.testing.conformance import Conformance
from mia_bench.track import Track, loadable_tracks

CPU = torch.device("cpu")

KINDS = ("defense", "attack", "prior", "model", "encoder", "metric")
"""Kinds of components that compute on the device."""

CLASSES = 1000
"""Of the networks that are timed."""

SECONDS = 5.0
"""How long a step is repeated while it is timed."""

PROBABILITY_TOLERANCE = 1e-3
"""How far one network's probabilities may differ between two devices in float32."""

PIXEL_TOLERANCE = 0.02
"""How far the reconstructions of two devices may differ on average; pixels are in [0, 1]."""

ACCURACY_TOLERANCE = 0.25
"""How far the accuracy of two trainings may differ on the toy world's 12 test images."""


@dataclass(frozen=True)
class Row:
    """A line of the table; ``fine`` is False where something is broken."""

    what: str
    result: str
    fine: bool = True


def about(device: torch.device) -> Iterator[Row]:
    """Versions, and what the device is."""
    names = ("mia-bench", "torch", "torchvision")
    versions = [f"{name} {provenance.package_version(name)}" for name in names]
    commit = provenance.git_commit()
    yield Row("versions", ", ".join([*versions, f"Python {provenance.python_version()}"]))
    yield Row("commit, platform", f"{commit or 'a release'}, {provenance.platform_name()}")
    yield Row("device", provenance.device_name(device))
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        yield Row(
            "its memory, generation",
            f"{properties.total_memory / 2**30:.0f} GiB, compute capability "
            f"{properties.major}.{properties.minor}, {properties.multi_processor_count} processors",
        )
        yield Row("CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
    yield Row("TF32", "yes" if has_tf32(device) else "no: --precision tf32 computes in float32 here")


# --- components ----------------------------------------------------------------------------------


def components(registry: Registry) -> list[Entry]:
    """All components that compute on a device."""
    return [entry for kind in KINDS for entry in registry.entries(kind)]


def conforms(device: torch.device, entries: Sequence[Entry], weights: Path | None) -> Iterator[Row]:
    """Run every component on the device, in the conformance kit's toy world."""
    for entry in entries:
        what, began = f"{entry.kind} {entry.name}", time.monotonic()
        try:
            kit = Conformance(entry.load(), device=str(device), weights=weights)
            findings = kit.check("runs")
        except CheckSkipped as reason:
            yield Row(what, f"skipped: {reason}")
        except MiaBenchError as error:
            yield Row(what, str(error), fine=False)
        else:
            told = "; ".join(map(str, findings)) or f"works ({time.monotonic() - began:.1f} s)"
            yield Row(what, told, fine=not findings)


# --- agreement -----------------------------------------------------------------------------------


def agreement(device: torch.device, attacks: Sequence[Entry]) -> Iterator[Row]:
    """A small cell on the device and on the CPU: the same network, two trainings, the same attacks."""
    splits = toy.world().splits
    recipe = toy.RECIPE.model_copy(update={"epochs": 12, "learning_rate": 0.01})
    trained = {
        place: train_target(Defense(), toy.ToyArchitecture(), splits, recipe, toy.context(place))
        for place in dict.fromkeys([CPU, device])
    }
    network = trained[CPU].training.model
    images, labels = splits.test.images, splits.test.labels

    def answers(place: torch.device, model: nn.Module) -> Tensor:
        return predict_probabilities(freeze(copy.deepcopy(model), place), images, device=place)

    difference = float((answers(CPU, network) - answers(device, network)).abs().max())
    yield Row(
        "one network, device and CPU",
        _verdict(difference, PROBABILITY_TOLERANCE) + f"probabilities differ by up to {difference:.1e}",
        fine=difference <= PROBABILITY_TOLERANCE,
    )
    right = {place: answers(place, t.training.model).argmax(1) == labels for place, t in trained.items()}
    accuracy = {place: float(correct.float().mean()) for place, correct in right.items()}
    apart = abs(accuracy[device] - accuracy[CPU])
    yield Row(
        "a training, device and CPU",
        _verdict(apart, ACCURACY_TOLERANCE)
        + f"test accuracy {accuracy[device]:.2f} and {accuracy[CPU]:.2f} on {len(labels)} images",
        fine=apart <= ACCURACY_TOLERANCE,
    )
    for entry in attacks:
        yield _attacked(entry, network, device)


def _attacked(entry: Entry, network: Classifier, device: torch.device) -> Row:
    """Whether an attack reconstructs the same on the device and on the CPU, from the same target."""
    what = f"attack {entry.name}, device and CPU"
    try:
        found = [_reconstructions(entry, network, place) for place in (CPU, device)]
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        return Row(what, describe_error(error), fine=False)
    first, second = (to_float(images) for images in found)
    difference = float((first - second).abs().mean())
    told = f"reconstructions differ by {255 * difference:.2f} of 255 on average"
    return Row(what, _verdict(difference, PIXEL_TOLERANCE) + told, fine=difference <= PIXEL_TOLERANCE)


def _reconstructions(entry: Entry, network: Classifier, place: torch.device) -> Tensor:
    world, attack = toy.world(), _small(entry)
    target = freeze(copy.deepcopy(network), place)
    given = (Target(target, target, False), world.prior(place), world.splits, Budget(2), toy.context(place))
    prepared = run_attack(attack, *given, step="prepare")
    images: Tensor = run_attack(attack, *given, step="invert", prepared=prepared.result).result.images
    return images


def _small(entry: Entry) -> Attack:
    cls = entry.load()
    attack: Attack = cls(cls.Options(**cls.trial_options))
    return attack


def comparable(registry: Registry) -> list[Entry]:
    """Attacks that optimise images with what every target and the toy prior offer."""
    setting = Setting(toy.ToyPrior(), Defense(), 2)
    found = []
    for entry in registry.entries("attack"):
        try:
            attack = _small(entry)
            if attack.access == "white-box" and not attack.reference and attack.skip(setting) is None:
                found.append(entry)
        except (Exception, SystemExit):  # it is named among the components
            continue
    return found


def _verdict(difference: float, tolerance: float) -> str:
    return "they agree: " if difference <= tolerance else "they DIFFER: "


# --- speed and memory ----------------------------------------------------------------------------


def speed(device: torch.device, registry: Registry, track: Track, weights: Path | None) -> Iterator[Row]:
    """Seconds and memory of a step of training and of a step of attacking, in every precision.

    The networks are those of a track, with random weights; the prior's are from its file, if that is here.
    """
    training, attacking = track.target.recipe.batch_size, track.attack_batch_size
    target = resolve_choice(registry, "model", track.target.architecture, OptionValues())
    task = NetworkTask(CLASSES, track.data.resolution, restoring=True, weights=weights)

    def network() -> Classifier:
        with seeded(0, "speed"):
            model: Classifier = target.make().build(task)
        return model

    prior, missing = _prior(device, registry, track, weights)
    yield Row(
        f"networks of {track.name}",
        f"{target.name} at {track.data.resolution} pixels, random weights; "
        + (f"without the prior: {missing}" if prior is None else "with its prior"),
    )
    for precision in get_args(Precision):
        if precision == "tf32" and not has_tf32(device):
            yield Row("steps, tf32", "the device has no TF32: as in float32")
            continue
        work = _training_step(network(), track, device, precision)
        what, counted = f"training step, batch {training}, {precision}", track.gpu_megabytes.get("train")
        yield _timed(what, work, training, device, counted)
        work = _attack_step(network(), prior, track, device, precision)
        what, counted = f"attack step, batch {attacking}, {precision}", track.gpu_megabytes.get("invert")
        yield _timed(what, work, attacking, device, counted)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _prior(
    device: torch.device, registry: Registry, track: Track, weights: Path | None
) -> tuple[GenerativeModel | None, str]:
    """The track's default prior, if it is read from a file; else None and the reason."""
    name = track.default_prior
    chosen = resolve(registry, "prior", name, track_options(track, "prior", name), {})
    files = chosen.make().weight_files()
    if missing := [file.name for file in files if not find(file.name, weights)]:
        return None, f"{missing[0]} is missing"
    if not files:
        return None, f"{name} is trained here"
    context = Context(track.data.resolution, 0, device, weights=weights)
    splits = toy.world().splits
    fitted = toy.fit(chosen.make(), splits.public, context)
    return restore_prior(chosen.make(), fitted.state, splits, context, name=name), ""


def _training_step(
    network: Classifier, track: Track, device: torch.device, precision: Precision
) -> Callable[[], None]:
    model = move_model(network, device).train()
    optimizer = torch.optim.Adam(model.parameters())
    images, labels = _batch(track.target.recipe.batch_size, track.data.resolution, device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, device):
            loss = nn.functional.cross_entropy(model(images).float(), labels)
        loss.backward()
        optimizer.step()

    return step


def _attack_step(
    network: Classifier,
    prior: GenerativeModel | None,
    track: Track,
    device: torch.device,
    precision: Precision,
) -> Callable[[], None]:
    model, size = freeze(network, device), track.attack_batch_size
    images, labels = _batch(size, track.data.resolution, device)
    latents = images if prior is None else prior.sample(size, torch.Generator().manual_seed(0)).to(device)
    latents.requires_grad_(True)

    def step() -> None:
        with autocast(precision, device):
            shown = latents if prior is None else prior(latents)
            loss = nn.functional.cross_entropy(model(shown).float(), labels)
            torch.autograd.grad(loss, latents)

    return step


def _batch(size: int, resolution: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(size, 3, resolution, resolution, generator=generator)
    return images.to(device), torch.randint(CLASSES, (size,), generator=generator).to(device)


def _timed(
    what: str, step: Callable[[], None], images: int, device: torch.device, counted: float | None
) -> Row:
    """Repeat a step; ``counted``: its memory as the track estimates it, in megabytes."""
    provenance.reset_peak_memory(device)
    try:
        step()  # algorithms are chosen and memory is reserved
        _wait(device)
        began, steps = time.perf_counter(), 0
        while not steps or (time.perf_counter() - began < SECONDS and steps < 20):
            step()
            _wait(device)
            steps += 1
    except torch.OutOfMemoryError:
        return Row(what, "does not fit into memory; a run would halve the batch")
    seconds = (time.perf_counter() - began) / steps
    memory = provenance.peak_memory(device)
    expected = f" ({counted / 1000:.3g} expected)" if counted and device.type == "cuda" else ""
    told = f"{seconds:.3g} s, {images / seconds:.4g} images a second, {memory / 1e9:.3g} GB{expected}"
    return Row(what, told)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


# --- all of it -----------------------------------------------------------------------------------

PLAN = """\
Without a CUDA GPU there is nothing to measure. On a machine with one, mia-bench doctor --gpu takes about five
minutes and prints one table to paste into an issue:
  - versions, device, memory, whether it has TF32
  - every defense, attack, prior, architecture, encoder and metric, run on the device in a toy world
  - a small cell on the device and on the CPU: answers, a training, reconstructions; whether they agree
  - seconds and memory of steps of training and of attacking with the networks of a track, in each precision,
    beside the memory that estimates expect
With --device it tries another device: mia-bench doctor --gpu --device cpu"""


def default_track(registry: Registry) -> Track:
    """The first track that says how much memory it takes of a GPU, else the first that can be loaded.

    Raises:
        MiaBenchError: no track can be loaded.
    """
    found = list(loadable_tracks(registry))
    if not found:
        raise MiaBenchError("no track can be loaded")
    return next((track for track in found if track.gpu_megabytes), found[0])


def examine_device(
    device: torch.device, registry: Registry, track: Track, weights: Path | None
) -> Iterator[Row]:
    """All rows, as they are found; a part that fails is a row."""
    parts: dict[str, Iterator[Row]] = {
        "device": about(device),
        "components": conforms(device, components(registry), weights),
        "agreement": agreement(device, comparable(registry)),
        "speed": speed(device, registry, track, weights),
    }
    for name, rows in parts.items():
        try:
            yield from rows
        except Exception as error:  # of torch or a plugin: the other parts still say something
            yield Row(name, describe_error(error), fine=False)
        if device.type == "cuda":
            torch.cuda.empty_cache()
