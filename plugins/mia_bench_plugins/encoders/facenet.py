"""FaceNet: an Inception-ResNet-v1 trained on VGGFace2.

Schroff, Kalenichenko, Philbin, *FaceNet: A Unified Embedding for Face Recognition and Clustering*, CVPR
2015, in the version of facenet-pytorch: images of 160×160 pixels within ±1, unit-norm embeddings of 512
dimensions. VGGFace2 has people in common with FaceScrub and CelebA: the network is independent of the
targets, but not of their identities.
"""

from __future__ import annotations

from pathlib import Path

from mia_bench import Encoder, Register, hookimpl, lazy_imports
from mia_bench.api.component import Published
from mia_bench.api.encoder import Embed
from mia_bench.augment import resized
from mia_bench.errors import MiaBenchError, Unavailable
from mia_bench.fetch import file_hash, find

with lazy_imports():
    import facenet_pytorch
    import torch
    from torch import Tensor

FILE = Published(
    "20180402-114759-vggface2.pt",
    "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt",
)
SIZE = 160
PEOPLE = 8631
"""Number of classes of the unused head."""


class FaceNet(Encoder):
    """Embeddings of 512 dimensions by a network trained on VGGFace2."""

    summary = "FaceNet: Inception-ResNet-v1 trained on VGGFace2 (160×160)"
    paper = "Schroff et al., CVPR 2015; facenet-pytorch"
    version = "1"
    terms = "weights of facenet-pytorch (MIT), trained on VGGFace2"

    def weight_files(self) -> tuple[Published, ...]:
        return (FILE,)

    def fingerprint(self, weights: Path | None) -> str:
        return file_hash(self._path(weights))

    def _path(self, weights: Path | None) -> Path:
        if (path := find(FILE.name, weights)) is not None:
            return path
        # No path in the message: it becomes a part of keys and records.
        raise Unavailable(
            f"{FILE.name} was not found: download it from {FILE.url} into the folder that "
            "MIA_BENCH_WEIGHTS names"
        )

    def load(self, weights: Path | None, *, device: torch.device) -> Embed:
        path = self._path(weights)
        network = facenet_pytorch.InceptionResnetV1(pretrained=None, classify=False, num_classes=PEOPLE)
        try:
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # a damaged file can raise anything
            raise MiaBenchError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
        network = network.to(device).eval().requires_grad_(False)

        def embed(images: Tensor) -> Tensor:
            embeddings: Tensor = network(2 * resized(images.to(device), SIZE) - 1)
            return embeddings

        return embed


@hookimpl
def mia_bench_register_encoders(register: Register) -> None:
    register("facenet", FaceNet)
