"""Trains the weights that come with the package: ``train_shipped.py encoder`` or ``prior NAME``.

``train_shipped.py adopt NAME`` keeps a prior for a new version of the track with the same public images.
Weights are written as float16 safetensors, and their SHA-256 into ``SHA256SUMS`` beside them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import click
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mia_bench import augment
from mia_bench.api.images import to_float
from mia_bench.config import DEFAULT_TRACK, load_config
from mia_bench.engine.plan import Stage
from mia_bench.engine.progress import reporting, terminal_progress
from mia_bench.engine.run import prior_stage, set_up
from mia_bench.engine.stages import Workspace, fit_prior_stage
from mia_bench.fetch import file_hash
from mia_bench.seeds import derive, generator, seeded
from mia_bench_plugins.datasets.synth_faces import SynthFaces
from mia_bench_plugins.encoders.synth_encoder import FILE, RESOLUTION, WIDTHS
from mia_bench_plugins.models.networks import residual_network
from mia_bench_plugins.priors import shipped_priors
from mia_bench_plugins.shipped import SUMS, read_sums

SEED = derive(20240601, "synth-encoder")
SCALE = 16.0
MARGIN = 0.2


@click.group()
def main() -> None:
    """Train weights that come with the package."""


@main.command()
@click.argument("name", type=click.Choice(["wgan-gp", "stylegan2"]))
@click.option("--device", default="auto", show_default=True)
@click.option("--store", type=click.Path(path_type=Path), help="Keeps the checkpoint.")
@click.option("--output", type=click.Path(path_type=Path), help="File; none means the shipped one.")
def prior(name: str, device: str, store: Path | None, output: Path | None) -> None:
    """Fit the prior NAME to the default track's public images, with the track's options.

    A stopped training goes on when the command is given again with the same store.
    """
    config = load_config({"track": DEFAULT_TRACK, "store": store, "device": device})
    setup = set_up(config)
    stage = prior_stage(setup, name)
    reporter = terminal_progress()
    setup.make([stage.inputs["data"]], reporter)
    workspace = setup.workspace(partial(reporter.progress, stage))
    made = stage.parts["prior"].make()
    with reporting(reporter, 1, 0.0):
        reporter.stage_begins(stage, 0.0)
        workspace.checkpoint(stage)  # so that it is kept
        state, info = fit_prior_stage(stage, workspace, made.train)
    metadata = {
        "format": name,
        "source": stage.inputs["data"].key,
        "public": public_hash(stage, workspace),
        "options": json.dumps(made.options.model_dump(mode="json")),
        "watched": json.dumps(info["watched"]),
        "torch": torch.__version__,
    }
    ship(state, output or shipped_priors.FOLDER / shipped_priors.file_name(name, DEFAULT_TRACK), metadata)


@main.command()
@click.argument("name", type=click.Choice(["wgan-gp", "stylegan2"]))
@click.option("--store", type=click.Path(path_type=Path))
def adopt(name: str, store: Path | None) -> None:
    """Keep the shipped prior NAME for the default track as it is now, if its public images are the same."""
    setup = set_up(load_config({"track": DEFAULT_TRACK, "store": store}))
    stage = prior_stage(setup, name)
    setup.make([stage.inputs["data"]], terminal_progress())
    path = shipped_priors.FOLDER / shipped_priors.file_name(name, DEFAULT_TRACK)
    with safe_open(path, "pt") as file:
        metadata, state = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if metadata["public"] != public_hash(stage, setup.workspace()):
        raise click.ClickException(f"{path.name} was trained on other public images: train it again")
    ship(state, path, {**metadata, "source": stage.inputs["data"].key})


def public_hash(stage: Stage, workspace: Workspace) -> str:
    """SHA-256 of the public images of a prior's stage."""
    public = workspace.input(stage, "data").public
    return hashlib.sha256(public.images.numpy().tobytes() + public.labels.numpy().tobytes()).hexdigest()


def training_faces(identities: int, each: int) -> tuple[Tensor, Tensor]:
    """Faces of identities of the encoder's own, half of them similar to each other like private ones."""
    source = SynthFaces(SynthFaces.Options(noise=0.04))
    people = torch.cat(
        [
            source.identities(SEED, "encoder-wide", identities // 2, 1.0),
            source.identities(SEED, "encoder-close", identities - identities // 2, 0.5),
        ]
    )
    photographs = source.photograph(people, each, RESOLUTION, SEED, "encoder")
    return photographs.images, photographs.labels


def margin_loss(features: Tensor, centres: Tensor, labels: Tensor) -> Tensor:
    """CosFace: cross-entropy of scaled cosines, the true class's lowered by the margin."""
    cosine = F.normalize(features, dim=1) @ F.normalize(centres, dim=1).T
    margins = F.one_hot(labels, len(centres)) * MARGIN
    return F.cross_entropy(SCALE * (cosine - margins), labels)


@main.command()
@click.option("--identities", default=2000, show_default=True)
@click.option("--images", default=10, show_default=True, help="Images of each identity.")
@click.option("--epochs", default=16, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=FILE, show_default=True)
def encoder(identities: int, images: int, epochs: int, output: Path) -> None:
    """Train ``synth-encoder``."""
    faces, labels = training_faces(identities, images)
    batch_size = 128
    with seeded(SEED):
        network = residual_network(WIDTHS, 1)
        network.head = nn.Identity()
        centres = nn.Parameter(torch.randn(identities, WIDTHS[-1]) * 0.1)
    optimizer = torch.optim.Adam([*network.parameters(), centres], lr=2e-3)
    steps = epochs * math.ceil(len(faces) / batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    rng = generator(SEED, "augment")
    for epoch in range(epochs):
        total = torch.zeros(())
        batches = torch.randperm(len(faces), generator=rng).split(batch_size)
        for index in batches:
            batch = augment.shift(augment.flip(to_float(faces[index]), rng), 2, rng)
            loss = margin_loss(network.features(batch), centres, labels[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        click.echo(f"epoch {epoch + 1} of {epochs}: loss {float(total) / len(batches):.3f}")
    ship(network.state_dict(), output, None)


def ship(state: Mapping[str, Tensor], output: Path, metadata: dict[str, str] | None) -> None:
    """Write weights in half precision, and add their SHA-256 to ``SHA256SUMS``."""
    half = {name: (t.half() if t.is_floating_point() else t).contiguous() for name, t in state.items()}
    save_file(half, output, metadata)
    sums = {**read_sums(output.parent), output.name: file_hash(output)}
    text = "".join(f"{value}  {name}\n" for name, value in sorted(sums.items()))
    (output.parent / SUMS).write_text(text, encoding="utf-8")
    click.echo(f"wrote {output.name}, {output.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
