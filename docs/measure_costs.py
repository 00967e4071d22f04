"""Counts what the tracks of paper scale cost: ``python docs/measure_costs.py``.

Nothing is computed: networks and images are tensors that know their sizes only. Prints the rough figures of
each track's ``[seconds]``, ``[gpu_megabytes]`` and ``[megabytes]``, by which ``--dry-run`` estimates before
anything was run. Times follow from the floating-point operations; the memory is the peak of each stage's own
code on the pretend device of ``tests/pretend``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import facenet_pytorch
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from mia_bench.api.classifier import Classifier
from mia_bench.plugins import host
from mia_bench.protocol.measurement import EXAMPLES
from mia_bench.track import ClassifierSpec, Track, load_track
from mia_bench_plugins.encoders import facenet
from mia_bench_plugins.models.torchvision_networks import network
from mia_bench_plugins.priors.stylegan2_model import StyleGAN2
from mia_bench_plugins.priors.stylegan2_networks import Shape

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "pretend"))

from paper_memory import PaperTrack

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


def operations(work: Callable[[], Tensor], *, backward: bool = False) -> float:
    """Floating-point operations of ``work``, and of the gradient of its sum."""
    counter = FlopCounterMode(display=False)
    with FakeTensorMode(allow_non_fake_inputs=True), counter:
        result = work()
        if backward:
            result.sum().backward()
    return float(counter.get_total_flops())


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
    trained, tested = math.ceil(0.9 * images), math.floor(0.1 * images)
    specs = {"train": track.target, "evaluator": track.evaluation}
    models = {role: built(spec, classes) for role, spec in specs.items()}
    work = {}
    for role, spec in specs.items():
        model, shape = models[role].train(), (spec.recipe.batch_size, 3, pixels, pixels)
        step = operations(lambda model=model, shape=shape: model(torch.rand(shape)), backward=True)
        work[role] = spec.recipe.epochs * math.ceil(trained / spec.recipe.batch_size) * step
        model.eval().requires_grad_(False)
    options = track.attacks["ppa"].options
    prior = StyleGAN2(Shape(resolution), pixels, crop=track.priors["stylegan2"].get("crop"))
    prior.eval().requires_grad_(False)
    encoder = facenet_pytorch.InceptionResnetV1(pretrained=None).eval().requires_grad_(False)

    def latent(**more: bool) -> Tensor:
        return torch.randn(1, prior.latent_dim, **more)

    def image(size: int = pixels) -> Tensor:
        return torch.rand(1, 3, size, size)

    drawn = operations(lambda: prior(latent()))
    asked = operations(lambda: models["train"](image()))
    judged = operations(lambda: models["evaluator"](image()))
    embedded = operations(lambda: encoder(image(facenet.SIZE))) if track.encoder else 0.0
    both = operations(lambda: models["train"](prior(latent(requires_grad=True))), backward=True)
    candidates, returned = classes * options["candidates"], classes * track.images_per_class
    work["assess"] = images * asked
    work["prepare"] = options["search"] * (drawn + 2 * asked)
    work["invert"] = (
        candidates * options["steps"] * both
        + candidates * (drawn + options["views"] * asked)
        + returned * drawn
    )
    work["invert.prior-sample"] = returned * drawn
    # Confidence and pictures; accuracy, features and pictures, features of real images; two metrics embed.
    work["measure"] = (
        returned * (2 * asked + 3 * judged + 2 * embedded) + trained * (judged + embedded) + tested * judged
    )
    if track.encoder:
        work["gallery"] = images * embedded
    pictures = returned * 3 * pixels**2
    disk = {
        "data": images * 3 * pixels**2,
        "prior": GENERATOR_BYTES,
        "evaluator": size(models["evaluator"]),
        "train": size(models["train"]),
        "invert": pictures,
        "measure": classes * EXAMPLES * 3 * pixels**2,
    }
    memory = PaperTrack(track, classes, images, resolution).stages()
    lines = [f"# {track.name}", "[seconds]"]
    lines += [entry(stage, count / SPEED) for stage, count in work.items()]
    for table, found in (("gpu_megabytes", memory), ("megabytes", disk)):
        lines += ["", f"[{table}]"]
        lines += [entry(stage, value / 1e6) for stage, value in found.items()]
    return "\n".join(lines) + "\n"


def entry(stage: str, value: float) -> str:
    """A line of a table, to two digits."""
    key = f'"{stage}"' if "." in stage else stage
    return f"{key} = {float(f'{value:.2g}'):g}" if value < 1e5 else f"{key} = {int(float(f'{value:.2g}'))}"


if __name__ == "__main__":
    main()
