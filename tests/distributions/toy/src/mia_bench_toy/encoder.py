"""An identity encoder that a third party might write."""

from torch.nn import functional as F

from mia_bench_plugins.encoders.synth_encoder import SynthEncoder


class ToyEncoder(SynthEncoder):
    """The built-in encoder of procedural faces, on images of half its size."""

    summary = "the encoder of procedural faces for small images"

    def load(self, weights, *, device):
        embed = super().load(weights, device=device)
        return lambda images: embed(F.interpolate(images, scale_factor=2, mode="bilinear"))
