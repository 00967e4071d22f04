"""An identity encoder for the procedural faces, trained on identities of its own and shipped.

A small residual network whose unit-norm features were trained with a cosine-margin softmax (Wang et
al., *CosFace*, CVPR 2018). Its training identities are drawn with a seed of their own: they are
neither private, nor decoys, nor behind any prior. The command that retrains it is
``python -m mia_bench_plugins.encoders.synth_encoder_training``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mia_bench import Encoder, hookimpl
from mia_bench.errors import MiaBenchError
from mia_bench.hookspecs import Register
from mia_bench_plugins.shipped import shipped_hash

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mia_bench.api.encoder import Embed

FILE = Path(__file__).with_name("synth_encoder.safetensors")
WIDTHS = (32, 64, 128)
RESOLUTION = 32


class SynthEncoder(Encoder):
    """Embeddings of 128 dimensions from the shipped weights."""

    summary: ClassVar[str] = "identity encoder for the procedural faces, shipped (32×32)"
    paper: ClassVar[str] = "Wang et al., CosFace, CVPR 2018, arXiv 1801.09414"
    version: ClassVar[str] = "1"
    terms: str = "made by this package from rendered faces"

    def fingerprint(self, weights: Path | None) -> str:
        """SHA-256 of the shipped file."""
        return shipped_hash(FILE)

    def load(self, weights: Path | None, *, device: torch.device) -> Embed:
        """The network on the device."""
        import torch
        from safetensors.torch import load_file
        from torch.nn import functional as F

        from mia_bench_plugins.models.networks import residual_network

        network = residual_network(WIDTHS, num_classes=1)
        network.head = torch.nn.Identity()
        state = {name: tensor.float() for name, tensor in load_file(FILE).items()}
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
    """Register ``synth-encoder``."""
    register("synth-encoder", SynthEncoder)
