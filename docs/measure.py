"""Measures the figures of docs/performance.md: ``python docs/measure.py [--cold]``.

Prints a Markdown table. Ratios are taken within one run, since machines are noisy. ``--cold`` adds the
default run from an empty store, then cached, and a cell of lfw where ``MIA_BENCH_DATA`` is set.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from mia_bench.api.access import open_access
from mia_bench.api.attack import AttackTask
from mia_bench.api.classifier import answers
from mia_bench.api.dataset import ImageSet
from mia_bench.api.defense import Defense
from mia_bench.models.inference import move_model
from mia_bench.plugins import host
from mia_bench.track import Recipe, load_track
from mia_bench.training import train_classifier
from mia_bench_plugins.attacks.ppa import PlugAndPlay
from mia_bench_plugins.datasets.face_renderer import render, sample_identities, sample_nuisances
from mia_bench_plugins.defenses.bottleneck import Bottleneck
from mia_bench_plugins.models.networks import residual_network
from mia_bench_plugins.priors.linear_model import LinearModel

CPU = torch.device("cpu")
CLASSES = 60


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds of ``work`` after one warm-up."""
    work()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def faces() -> ImageSet:
    """840 faces, as many as the default track trains on."""
    draws = torch.Generator().manual_seed(0)
    count = 14 * CLASSES
    images = render(sample_identities(count, draws), sample_nuisances(count, draws))
    return ImageSet((images * 255).to(torch.uint8), torch.arange(count) % CLASSES)


def rendering() -> float:
    """Faces a second at 32 pixels."""
    draws = torch.Generator().manual_seed(0)
    people, nuisances = sample_identities(4096, draws), sample_nuisances(4096, draws)
    return 4096 / seconds(lambda: render(people, nuisances))


Work = Callable[[], object]


def training(train: ImageSet) -> tuple[Work, Work]:
    """A training run of three epochs, and the bare forward and backward passes in it."""
    recipe = Recipe(epochs=3, batch_size=64, shift=2)
    network = move_model(residual_network((32, 64, 128), CLASSES), CPU)
    images = train.images[:64].float() / 255

    def whole() -> None:
        train_classifier(network, train, recipe, Defense(), seed=0, device=CPU, progress=lambda *_: None)

    def bare() -> None:
        network.train()
        for _ in range(recipe.epochs):
            left = len(train)
            while left > 0:
                rows = min(64, left)
                logits = network(images[:rows])
                nn.functional.cross_entropy(logits, train.labels[:rows]).backward()
                left -= rows

    return whole, bare


def attack() -> tuple[Work, Work]:
    """Six steps of PPA's optimisation, and the bare passes through prior and target in it."""
    network = move_model(residual_network((32, 64, 128), CLASSES), CPU).eval()
    prior = LinearModel(torch.full((3072,), 0.5), 0.01 * torch.randn(192, 3072), 32)
    prior.requires_grad_(False)
    method = PlugAndPlay(PlugAndPlay.Options(search=300, candidates=8, steps=6, views=1))
    access = open_access("white-box", network, CLASSES)  # freezes the network
    task = AttackTask(
        access=access,
        prior=prior,
        public=ImageSet(torch.zeros(1, 3, 32, 32), torch.zeros(1)),
        classes=torch.arange(CLASSES),
        images_per_class=4,
        generator=torch.Generator().manual_seed(0),
        device=CPU,
        batch_size=256,
        progress=lambda *_: None,
    )
    latents = torch.randn(8 * CLASSES, 192)
    labels = torch.arange(CLASSES).repeat_interleave(8)

    def bare() -> None:
        for start in latents.split(256):
            w = start.clone().requires_grad_(True)
            for _ in range(method.options.steps):
                network(prior(w)).sum().backward()

    return lambda: method._optimise(task, latents, labels), bare


def layouts() -> float:
    """A training step with channels-last weights, as a share of one with contiguous weights."""
    images, labels = torch.rand(64, 3, 32, 32), torch.arange(64) % CLASSES
    taken = []
    for prepare in (lambda n: move_model(n, CPU), lambda n: n):
        network = prepare(residual_network((32, 64, 128), CLASSES)).train()
        step = lambda n=network: nn.functional.cross_entropy(n(images), labels).backward()  # noqa: E731
        taken.append(seconds(lambda step=step: [step() for _ in range(10)]))
    return taken[0] / taken[1]


def random_answers(count: int = 8) -> float:
    """Several answers of a ``mid`` target and their gradient, as a share of as many passes."""
    target = move_model(Bottleneck(residual_network((32, 64, 128), CLASSES), lambda f: f // 2, CLASSES,
                               sample=True), CPU).eval().requires_grad_(False)  # fmt: skip
    images = torch.rand(256, 3, 32, 32, requires_grad=True)
    at_once = seconds(lambda: answers(target, images, count).sum().backward())
    apart = seconds(lambda: [target(images).sum().backward() for _ in range(count)])
    return at_once / apart


def profile(work: Work, rows: int = 8) -> str:
    """The functions with most time of their own, as shares of all."""
    profiler = cProfile.Profile()
    profiler.runcall(work)
    spent: dict[str, float] = defaultdict(float)
    for (_, _, name), (_, _, own, _, _) in pstats.Stats(profiler).stats.items():
        spent[re.sub(r"<(?:built-in method|method) '?([\w.]+)'?.*>", r"\1", name)] += own
    total = sum(spent.values())
    top = sorted(spent.items(), key=lambda item: -item[1])[:rows]
    return ", ".join(f"{name} {own / total:.0%}" for name, own in top)


CLICK = ("-c", "import click; click.Group('x', help='x').main(['--help'], standalone_mode=False)")
"""Arguments of Python for the least that a command of click does."""


def command(*arguments: str, store: str, **more: str) -> tuple[float, float]:
    """Wall seconds of a command in a process of its own, and the seconds that processors worked for it.

    ``more`` are further variables of its environment.
    """
    return started("-c", "from mia_bench.cli import main; main()", *arguments, store=store, **more)


def started(*arguments: str, store: str, **more: str) -> tuple[float, float]:
    """The same of Python with these arguments."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "MIA_BENCH_STORE": store, **more},
    )
    taken, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def start_up(*arguments: str, store: str) -> str:
    """Median seconds of a command, anew and answered again, and in units of Python with click; in turns."""
    nowhere = {"MIA_BENCH_CACHE": os.devnull}  # where no answer can be kept
    for _ in range(2):  # which keeps an answer
        command(*arguments, store=store)
    taken = [
        (
            command(*arguments, store=store, **nowhere)[1],
            command(*arguments, store=store)[1],
            started(*CLICK, store=store)[1],
        )
        for _ in range(15)
    ]
    anew, again, least = (statistics.median(column) for column in zip(*taken, strict=True))
    return (
        f"{anew:.2f} s of a core, {anew / least:.1f} times Python with click; answered again {again:.3f} s, "
        f"{again / least:.2f} times (medians of 15)"
    )


def peak_memory(store: str) -> float:
    """Largest memory in MiB of the process over the stages that made a store."""
    metas = (json.loads(path.read_text()) for path in Path(store).glob("artifacts/*/*/meta.json"))
    return max(meta["info"]["run"]["peak_memory"] for meta in metas) / 2**20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cold", action="store_true")
    cold = parser.parse_args().cold
    track = load_track(host().registry, "synth-faces")
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
          f"track synth-faces version {track.version}\n")  # fmt: skip
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("--help", "list"):
            rows.append((f"`mia-bench {name}`", start_up(name, store=f"{folder}/s")))
        if cold:
            default = ("run", "--defense", "neg-ls", "--attack", "ppa")
            taken, worked = command(*default, store=f"{folder}/s")
            memory = peak_memory(f"{folder}/s")
            measured = f"{taken:.0f} s, {worked:.0f} s of a core, peak of a stage {memory:.0f} MiB"
            rows.append(("default run, empty store", measured))
            rows.append(("default run, all cached", start_up(*default, store=f"{folder}/s")))
            if os.environ.get("MIA_BENCH_DATA"):
                cell = ("run", "--track", "lfw", "--defense", "none", "--attack", "ppa")
                taken, worked = command(*cell, store=f"{folder}/s")
                rows.append(("one cell of lfw, empty store", f"{taken:.0f} s, {worked:.0f} s of a core"))
    rows.append(("rendering at 32×32", f"{rendering():.0f} faces a second"))
    for name, (whole, bare) in (("training", training(faces())), ("attack", attack())):
        share = seconds(bare) / seconds(whole)
        rows.append((f"{name}: share of the bare passes", f"{share:.0%}"))
        rows.append((f"{name}: profile", profile(whole)))
    rows.append(("training step, channels-last to contiguous", f"{layouts():.0%}"))
    rows.append(("8 answers of a mid target, to 8 passes", f"{random_answers():.0%}"))
    print("| what | measured |\n|---|---|")
    for what, measured in rows:
        print(f"| {what} | {measured} |")


if __name__ == "__main__":
    main()
