"""An identity encoder for the procedural faces, shipped with its weights.

A small residual network whose unit-norm features were trained with a cosine-margin softmax (Wang et
al., *CosFace*, CVPR 2018). Its training identities have a seed of their own: none is private, public or a
decoy. ``python docs/train_shipped.py encoder`` retrains it.
"""

from __future__ import annotations

from pathlib import Path

from mia_bench import Encoder, Register, hookimpl, lazy_imports
from mia_bench.api.encoder import Embed
from mia_bench.errors import MiaBenchError
from mia_bench_plugins.shipped import shipped_hash

with lazy_imports():
    import safetensors.torch
    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from mia_bench_plugins.models import networks

FILE = Path(__file__).with_name("synth_encoder.safetensors")
WIDTHS = (32, 64, 128)
RESOLUTION = 32


class SynthEncoder(Encoder):
    """Embeddings of 128 dimensions from the shipped weights."""

    summary = "identity encoder for the procedural faces, shipped (32×32)"
    paper = "Wang et al., CosFace, CVPR 2018, arXiv 1801.09414"
    version = "1"
    terms = "made by this package from rendered faces"

    def fingerprint(self, weights: Path | None) -> str:
        return shipped_hash(FILE)

    def load(self, weights: Path | None, *, device: torch.device) -> Embed:
        network = networks.residual_network(WIDTHS, num_classes=1)
        network.head = torch.nn.Identity()
        state = {n: tensor.float() for n, tensor in safetensors.torch.load_file(FILE).items()}
        network.load_state_dict(state, strict=False)
        network = network.to(device).eval().requires_grad_(False)

        def embed(images: Tensor) -> Tensor:
            if images.shape[2:] != (RESOLUTION, RESOLUTION):
                raise MiaBenchError(f"synth-encoder takes {RESOLUTION}×{RESOLUTION} pixels")
            both = network.features(images) + network.features(images.flip(3))
            return F.normalize(both, dim=1)

        return embed


@hookimpl
def mia_bench_register_encoders(register: Register) -> None:
    register("synth-encoder", SynthEncoder)
