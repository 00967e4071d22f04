"""Counts what the tracks of paper scale cost: ``python docs/measure_costs.py``.

Nothing is computed: networks and images are tensors that know their sizes only. Prints the rough figures of
each track's ``[seconds]``, ``[gpu_megabytes]`` and ``[megabytes]``, by which ``--dry-run`` estimates before
anything was run. They follow from the floating-point operations and the bytes kept for the backward pass of a
training step and of a step of PPA.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from mia_bench.api.classifier import Classifier
from mia_bench.plugins import host
from mia_bench.protocol.measurement import EXAMPLES
from mia_bench.track import ClassifierSpec, Track, load_track
from mia_bench_plugins.models.torchvision_networks import network
from mia_bench_plugins.priors.stylegan2_model import StyleGAN2
from mia_bench_plugins.priors.stylegan2_networks import Shape

SPEED = 10e12
"""Floating-point operations a second that a GPU is assumed to sustain in float32 without TensorFloat-32."""

SIZES = {
    "facescrub": (530, 37_878, 1024),
    "facescrub-metfaces": (530, 37_878, 1024),
    "facescrub-small": (20, 1_430, 1024),
    "celeba": (1000, 30_038, 1024),
    "stanford-dogs": (120, 20_580, 512),
}
"""Classes, images, and pixels of the published generator."""

GENERATOR_BYTES = 360e6
"""Of a published generator and its discriminator of 1,024 pixels, in float32."""


@dataclass(frozen=True)
class Cost:
    """Floating-point operations, and bytes kept for the backward pass."""

    operations: float
    kept: float


def counted(work: Callable[[], Tensor], *, backward: bool) -> Cost:
    """The cost of ``work``, and of the gradient of its sum."""
    storages: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages[id(tensor.untyped_storage())] = tensor
        return tensor

    counter = FlopCounterMode(display=False)
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        counter,
        saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        result = work()
        if backward:
            result.sum().backward()
    kept = sum(tensor.untyped_storage().nbytes() for tensor in storages.values())
    return Cost(float(counter.get_total_flops()), float(kept))


def built(spec: ClassifierSpec, classes: int) -> Classifier:
    """A track's classifier, without weights."""
    options = spec.architecture.options
    return network(str(options["network"]), classes, size=options.get("size"))


def size(model: torch.nn.Module) -> float:
    """Bytes of its parameters."""
    return float(sum(p.numel() * p.element_size() for p in model.parameters()))


def main() -> None:
    """Count and print."""
    registry = host().registry
    for name, (classes, images, resolution) in SIZES.items():
        print(figures(load_track(registry, name), classes, images, resolution))


def figures(track: Track, classes: int, images: int, resolution: int) -> str:
    """A track's figures, as its file has them."""
    pixels = track.data.resolution
    training = {}
    for role, spec in (("train", track.target), ("evaluator", track.evaluation)):
        model = built(spec, classes).train()
        shape = (spec.recipe.batch_size, 3, pixels, pixels)
        step = counted(lambda model=model, shape=shape: model(torch.rand(shape)), backward=True)
        steps = spec.recipe.epochs * math.ceil(0.9 * images / spec.recipe.batch_size)
        # Weights, gradients and Adam's two moments.
        training[role] = (steps * step.operations / SPEED, step.kept + 4 * size(model), size(model))
    options = track.attacks["ppa"].options
    each, batch_size = options["candidates"], track.attack_batch_size
    prior = StyleGAN2(Shape(resolution), pixels, crop=track.priors["stylegan2"].get("crop"))
    prior.eval().requires_grad_(False)
    target = built(track.target, classes).eval().requires_grad_(False)

    def latents(**more: bool) -> Tensor:
        return torch.randn(batch_size, prior.latent_dim, **more)

    def views() -> Tensor:
        return torch.rand(batch_size, 3, pixels, pixels)

    both = counted(lambda: target(prior(latents(requires_grad=True))), backward=True)
    drawn = counted(lambda: prior(latents()), backward=False).operations / batch_size
    asked = counted(lambda: target(views()), backward=False).operations / batch_size
    candidates = classes * each
    operations = (
        options["search"] * (drawn + 2 * asked)
        + candidates * options["steps"] * both.operations / batch_size
        + candidates * (drawn + options["views"] * asked)
        + classes * track.images_per_class * drawn
    )
    pictures = classes * track.images_per_class * 3 * pixels**2
    attack_bytes = both.kept + GENERATOR_BYTES + size(target)
    seconds = {
        "evaluator": training["evaluator"][0],
        "train": training["train"][0],
        "invert": operations / SPEED,
    }
    memory = {
        "evaluator": training["evaluator"][1],
        "train": training["train"][1],
        "invert": attack_bytes,
    }
    disk = {
        "data": images * 3 * pixels**2,
        "prior": GENERATOR_BYTES,
        "evaluator": training["evaluator"][2],
        "train": training["train"][2],
        "invert": pictures,
        "measure": classes * EXAMPLES * 3 * pixels**2,
    }
    lines = [f"# {track.name}", "[seconds]"]
    lines += [f"{stage} = {rounded(value)}" for stage, value in seconds.items()]
    for table, found in (("gpu_megabytes", memory), ("megabytes", disk)):
        lines += ["", f"[{table}]"]
        lines += [f"{stage} = {rounded(value / 1e6)}" for stage, value in found.items()]
    return "\n".join(lines) + "\n"


def rounded(value: float) -> int:
    """To two digits."""
    return int(float(f"{value:.2g}"))


if __name__ == "__main__":
    main()
