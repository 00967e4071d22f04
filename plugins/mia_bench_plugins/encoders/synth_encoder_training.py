"""Retrain the shipped encoder: ``python -m mia_bench_plugins.encoders.synth_encoder_training``."""

from __future__ import annotations

import math
from pathlib import Path

import click
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mia_bench import augment
from mia_bench.api.images import to_float
from mia_bench.seeds import derive, generator, seeded
from mia_bench_plugins.datasets.synth_faces import SynthFaces
from mia_bench_plugins.encoders.synth_encoder import FILE, RESOLUTION, WIDTHS
from mia_bench_plugins.models.networks import residual_network
from mia_bench_plugins.shipped import write_hash

SEED = derive(20240601, "synth-encoder")
SCALE = 16.0
MARGIN = 0.2


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


@click.command()
@click.option("--identities", default=2000, show_default=True)
@click.option("--images", default=10, show_default=True, help="Images of each identity.")
@click.option("--epochs", default=16, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=FILE, show_default=True)
def main(identities: int, images: int, epochs: int, output: Path) -> None:
    """Train the encoder and write its weights as float16 safetensors."""
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
    state = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in network.state_dict().items()
    }
    save_file(state, output)
    write_hash(output)
    click.echo(f"wrote {output.name}, {output.stat().st_size / 2**10:.0f} KiB")


if __name__ == "__main__":
    main()
