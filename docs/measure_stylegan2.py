"""Measures a step of PPA with StyleGAN2: ``measure_stylegan2.py [--device cuda] [--batch 8] [--compile]``.

A generator of 256 pixels (channel base 16384) and a ResNet-18 at 224, random weights. Prints the step, in
float32, in bfloat16 and compiled, beside the bare passes through both networks, and beside the target and the
convolutions alone that the generator is made of, laid out channels-last and as PyTorch does by default.
Everything is measured in turns within one run, since machines are noisy.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mia_bench.api.access import open_access
from mia_bench.api.attack import AttackTask
from mia_bench.api.dataset import ImageSet
from mia_bench.device import Precision, autocast
from mia_bench.models.inference import move_model
from mia_bench_plugins.attacks.ppa import PlugAndPlay
from mia_bench_plugins.models.torchvision_networks import network
from mia_bench_plugins.priors.stylegan2_model import StyleGAN2
from mia_bench_plugins.priors.stylegan2_networks import Convolution, Shape, Synthesis, ToImage

CLASSES = 100
ROUNDS = 3
STEPS = 2
"""Steps of the attack in a round, so that what it does once weighs less."""


def convolution_inputs(model: StyleGAN2, latents: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """Every convolution of the generator with its input."""
    found: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        module.register_forward_pre_hook(lambda m, x: found.append((m, x[0].detach())))
        for module in model.generator.synthesis.modules()
        if isinstance(module, Synthesis | ToImage | Convolution)
    ]
    with torch.no_grad():
        model(latents)
    for hook in hooks:
        hook.remove()
    return found


def bare_convolutions(inputs: list[tuple[nn.Module, Tensor]]) -> None:
    """The convolutions alone, forward and backward, with the gradient of their inputs."""
    for module, x in inputs:
        x = x.requires_grad_(True)
        weight = module.weight
        if isinstance(module, Synthesis) and module.up:
            y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        else:
            y = F.conv2d(x, weight, padding=weight.shape[2] // 2)
        torch.autograd.grad(y, x, y.detach())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--compile", action="store_true", help="also compiled, which takes minutes")
    given = parser.parse_args()
    device, batch = torch.device(given.device), given.batch
    torch.manual_seed(0)
    prior = move_model(StyleGAN2(Shape(256, channel_base=16384), 224), device).eval()
    prior.requires_grad_(False)
    target = network("resnet18", CLASSES)
    target = move_model(target, device).eval()
    target.requires_grad_(False)
    method = PlugAndPlay(PlugAndPlay.Options(search=batch, candidates=batch, steps=STEPS, views=1))

    def task(prior: StyleGAN2, target: nn.Module) -> AttackTask:
        return AttackTask(
            access=open_access("white-box", target, CLASSES),
            prior=prior,
            public=ImageSet(torch.zeros(1, 3, 32, 32), torch.zeros(1)),
            classes=torch.arange(CLASSES),
            images_per_class=1,
            generator=torch.Generator().manual_seed(0),
            device=device,
            batch_size=batch,
            progress=lambda *_: None,
        )

    latents = prior.sample(batch, torch.Generator().manual_seed(1)).to(device)
    labels = torch.arange(batch) % CLASSES
    images = torch.rand(batch, 3, 224, 224, device=device)
    inputs = convolution_inputs(prior, latents)
    plain = copy.deepcopy(target).to(memory_format=torch.contiguous_format)
    plain_inputs = [
        (copy.deepcopy(module).to(memory_format=torch.contiguous_format), x.contiguous())
        for module, x in inputs
    ]

    def step(task: AttackTask, precision: Precision = "float32") -> None:
        with autocast(precision, device):
            method._optimise(task, latents, labels)

    def passes() -> None:
        for _ in range(STEPS):
            w = latents.clone().requires_grad_(True)
            target(prior(w)).sum().backward()

    def generator_alone() -> None:
        for _ in range(STEPS):
            w = latents.clone().requires_grad_(True)
            prior(w).sum().backward()

    def target_alone(target: nn.Module) -> None:
        for _ in range(STEPS):
            target(images.clone().requires_grad_(True)).sum().backward()

    def convolutions(inputs: list[tuple[nn.Module, Tensor]]) -> None:
        for _ in range(STEPS):
            bare_convolutions(inputs)

    usual = task(prior, target)
    works: dict[str, Callable[[], object]] = {
        "a step of ppa": lambda: step(usual),
        "a step of ppa, bfloat16": lambda: step(usual, "bfloat16"),
        "bare passes through both": passes,
        "generator alone": generator_alone,
        "its convolutions alone": lambda: convolutions(inputs),
        "its convolutions alone, default layout": lambda: convolutions(plain_inputs),
        "target alone": lambda: target_alone(target),
        "target alone, default layout": lambda: target_alone(plain),
    }
    if given.compile:
        quick = task(copy.deepcopy(prior), copy.deepcopy(target))
        quick.prior.compile()
        quick.access.model.compile()
        works["a step of ppa, compiled"] = lambda: step(quick)
        works["a step of ppa, compiled, bfloat16"] = lambda: step(quick, "bfloat16")
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(ROUNDS + 1):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:  # the first is the warm-up
                taken[name].append((time.perf_counter() - began) / STEPS)
    middle = {name: statistics.median(times) for name, times in taken.items()}
    print("| what | seconds |\n| --- | --- |")
    for name, value in middle.items():
        print(f"| {name} | {value:.2f} |")
    bare = middle["its convolutions alone"] + middle["target alone"]
    default = sum(value for name, value in middle.items() if name.endswith("default layout"))
    print("\n| step | / bare passes | / convolutions + target | / the same, default layout |")
    print("| --- | --- | --- | --- |")
    for name, value in middle.items():
        if name.startswith("a step"):
            ratios = (value / whole for whole in (middle["bare passes through both"], bare, default))
            print(f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")


if __name__ == "__main__":
    main()
