"""An identity encoder that a third party might write."""

from mia_bench import lazy_imports
from mia_bench_plugins.encoders.synth_encoder import SynthEncoder

with lazy_imports():
    from torch.nn import functional as F


class ToyEncoder(SynthEncoder):
    """The built-in encoder of procedural faces, on images of half its size."""

    summary = "the encoder of procedural faces for small images"

    def load(self, weights, *, device):
        embed = super().load(weights, device=device)
        return lambda images: embed(F.interpolate(images, scale_factor=2, mode="bilinear"))
