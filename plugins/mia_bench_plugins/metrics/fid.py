"""Fréchet distance of reconstructions to real images in the features of Inception-v3.

Heusel et al., NIPS 2017 (arXiv 1706.08500), between all reconstructions and the training images of the
attacked classes, as Struppek et al. report it (ICML 2022). The network is torchvision's, with ImageNet's
weights, on images resized to 299 pixels: numbers are not comparable with those of the TensorFlow network
that many papers take. With fewer images than the 2,048 features the distance is dominated by its bias, so
compare only cells with equally many images; on small tracks ``kid`` takes its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from mia_bench import AttackMetric, Measurement, Quantity, Register, hookimpl, lazy_imports
from mia_bench.api.component import Published
from mia_bench.api.metric import Array, AttackEvidence
from mia_bench.fetch import check_hash, find
from mia_bench.frechet import frechet_distance
from mia_bench.memory import in_batches, upload

with lazy_imports():
    import torch
    import torchvision
    from torch import Tensor, nn
    from torch.nn import functional as F

    from mia_bench.api import images as pixels

FILE = "inception_v3_google-0cc3c7bd.pth"
SIZE = 299
BATCH = 64


def inception(path: Path, device: torch.device) -> nn.Module:
    """From images ``(N, 3, 299, 299)`` in [-1, 1] to pooled features ``(N, 2048)``."""
    network: nn.Module = torchvision.models.inception_v3(
        weights=None, init_weights=False, transform_input=False
    )
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.fc = nn.Identity()
    return network.to(device).eval().requires_grad_(False)


def inception_features(network: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """Features ``(N, 2048)`` of uint8 images, on the CPU."""

    def compute(batch: Tensor) -> Tensor:
        large = F.interpolate(
            pixels.to_float(upload(batch, device)), (SIZE, SIZE), mode="bilinear", antialias=True
        )
        found: Tensor = network(2 * large - 1).float().cpu()
        return found

    with torch.no_grad():
        return in_batches(compute, images, BATCH)


def distance_of_rows(rows: Array) -> float:
    """Fréchet distance of rows whose first column is 1 in the first set, 0 in the second."""
    chosen, features = torch.from_numpy(rows[:, 0] == 1), torch.from_numpy(rows[:, 1:])
    return frechet_distance(features[chosen], features[~chosen])


class FrechetDistance(AttackMetric):
    """Fréchet distance to the training images of the attacked classes."""

    summary = "Fréchet distance of reconstructions to real images (FID), by torchvision's Inception-v3"
    paper = "Heusel et al., NIPS 2017, arXiv 1706.08500"
    version = "1"
    quantities: ClassVar[dict[str, Quantity]] = {
        "fid": Quantity(
            "Fréchet distance to the attacked classes' training images, in the features of torchvision's "
            "Inception-v3",
            better="higher",
            kind="distance",
            role="leakage",
            interval=False,
        )
    }

    def weight_files(self) -> tuple[Published, ...]:
        return (Published(FILE, f"https://download.pytorch.org/models/{FILE}", "0cc3c7bd"),)

    def compute(self, evidence: AttackEvidence) -> dict[str, Measurement | str]:
        """Features of both sets, if the weights are there."""
        (file,) = self.weight_files()
        if (path := find(FILE, evidence.weights)) is None:
            return {"fid": f"{FILE} was not found: put it into the folder that MIA_BENCH_WEIGHTS names"}
        train = evidence.splits.train
        attacked = torch.isin(train.labels, evidence.labels)
        if min(len(evidence.images), int(attacked.sum())) < 2:
            return {"fid": "it needs two reconstructions and two training images"}
        network = inception(check_hash(path, file), evidence.device)
        rows = [
            torch.cat(
                [torch.full((len(images), 1), flag), inception_features(network, images, evidence.device)], 1
            )
            for images, flag in ((evidence.images, 1.0), (train.images[attacked], 0.0))
        ]
        groups = torch.cat([evidence.labels, train.labels[attacked]])
        return {"fid": Measurement(torch.cat(rows).double().numpy(), groups.numpy(), distance_of_rows)}


@hookimpl
def mia_bench_register_metrics(register: Register) -> None:
    """Register ``fid``."""
    register("fid", FrechetDistance)
