"""Compares the priors of a track by people they never saw: ``measure_priors.py [TRACK] [--store S]``.

First the Fréchet distance, in the features of the track's identity encoder, of 1,000 samples of each prior to
the decoys of the gallery, from whom no prior was made. Then how near a prior comes to a face it never saw:
latents are fitted to images of decoys by Adam, pixel by pixel, and the cosine of the results' embeddings and
the images' is given, with its 95 % interval over people. The last line is the distance of the public images
themselves.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from mia_bench.api.dataset import Splits
from mia_bench.api.encoder import Embed
from mia_bench.api.generative import GenerativeModel
from mia_bench.api.images import to_float
from mia_bench.api.metric import Measurement
from mia_bench.config import load_config
from mia_bench.device import choose_device
from mia_bench.engine.progress import terminal_progress
from mia_bench.engine.run import prior_stage, set_up
from mia_bench.frechet import frechet_distance
from mia_bench.models.inference import embed_images
from mia_bench.plugins import host
from mia_bench.seeds import generator
from mia_bench.statistics import estimate
from mia_bench.track import load_track

SAMPLES = 1000
IMAGES = 100
STEPS = 100
RATES = (0.01, 0.03, 0.1)
"""Learning rates of the fit, in units of the latents' spread; the result nearest in pixels counts."""


def fitted(model: GenerativeModel, images: Tensor, device: torch.device) -> Tensor:
    """The prior's images nearest to ``images`` in pixels that Adam finds, from the nearest samples on."""
    starts = model.sample(SAMPLES, generator(0, "starts"))
    pixels = model.render(starts, device=device).flatten(1)
    nearest = torch.cdist(images.flatten(1), pixels).argmin(1)
    found, error = torch.empty(0), torch.full((len(images),), torch.inf)
    for rate in RATES:
        latents = starts[nearest].to(device).requires_grad_(True)
        adam = torch.optim.Adam([latents], lr=rate * float(starts.std()))
        for _ in range(STEPS):
            adam.zero_grad(set_to_none=True)
            (model(latents) - images.to(device)).square().sum().backward()
            adam.step()
        made = model.render(latents.detach(), device=device)
        far = (made - images).square().mean((1, 2, 3))
        better = (far < error)[:, None, None, None]
        found = made if rate == RATES[0] else made.where(better, found)
        error = far.minimum(error)
    return found


def main() -> None:
    """Make the priors where they are not stored, compare them and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("track", nargs="?", default="synth-faces")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device, rows = choose_device(given.device), []
    config = load_config(vars(given))
    for name in load_track(host().registry, given.track).priors:
        setup = set_up(config)
        stage = prior_stage(setup, name)
        setup.make([stage], terminal_progress())
        workspace = setup.workspace()
        splits: Splits = workspace.load(stage.inputs["data"])
        embed: Embed = stage.parts["encoder"].make().load(setup.roots.weights, device=device)
        order = torch.randperm(len(splits.decoys), generator=generator(0, "decoys"))
        images, labels = splits.decoys.images[order], splits.decoys.labels[order]
        unseen = embed_images(embed, images[:SAMPLES], device)
        model: GenerativeModel = workspace.load(stage)
        drawn = model.render(model.sample(SAMPLES, generator(0, "samples")), device=device)
        distance = frechet_distance(unseen, embed_images(embed, drawn, device))
        near = fitted(model, to_float(images[:IMAGES]), device)
        alike = F.cosine_similarity(embed_images(embed, near, device), unseen[:IMAGES])
        off = (near - to_float(images[:IMAGES])).square().mean().sqrt()
        interval = estimate(Measurement(alike.numpy(), labels[:IMAGES].numpy()))
        rows.append(
            f"| {name} | {distance:.3f} | {interval.value:.3f} "
            f"[{interval.low:.3f}, {interval.high:.3f}] | {255 * off:.1f} |"
        )
    public = splits.public.images[
        torch.randperm(len(splits.public), generator=generator(0, "public"))[:SAMPLES]
    ]
    distance = frechet_distance(unseen, embed_images(embed, public, device))
    print("| prior | Fréchet distance | similarity of fitted faces | their error in pixels, of 255 |")
    print("| --- | --- | --- | --- |")
    print("\n".join(rows))
    print(f"| public images themselves | {distance:.3f} | – | – |")


if __name__ == "__main__":
    main()
