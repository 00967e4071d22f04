"""MobileFaceNet as an ONNX file: an independent face recogniser trained on MS-Celeb-1M.

Chen et al., *MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile
Devices*, CCBR 2018. The file takes RGB images of 112×112 pixels, normalised by ImageNet's mean and
standard deviation, one at a time; an embedding is the unit-norm sum over the image and its mirror
image. Whether people of LFW are in its training data is not known; it is independent of our targets
all the same.
"""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mia_bench import Encoder, hookimpl
from mia_bench.errors import Unavailable
from mia_bench.fetch import file_hash
from mia_bench.hookspecs import Register

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mia_bench.api.encoder import Embed

FILE = "mobilefacenet.onnx"
SIZE = 112
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class MobileFaceNet(Encoder):
    """Embeddings of 128 or more dimensions from ``<weights>/mobilefacenet.onnx``."""

    summary: ClassVar[str] = "MobileFaceNet from an ONNX file (112×112 RGB)"
    paper: ClassVar[str] = "Chen et al., CCBR 2018, arXiv 1804.07573"
    version: ClassVar[str] = "1"
    terms: str = "Apache-2.0 weights, trained on MS-Celeb-1M"

    def fingerprint(self, weights: Path | None) -> str:
        """SHA-256 of the file."""
        path = (weights or Path()) / FILE
        if weights is None or not path.is_file():
            # No path in it: the reason becomes a part of keys and records.
            raise Unavailable(
                f"{FILE} was not found: put it into the folder that MIA_BENCH_WEIGHTS names, or into "
                "'weights' beside the data root"
            )
        if importlib.util.find_spec("onnxruntime") is None:
            raise Unavailable("onnxruntime is not installed: pip install 'mia-bench[onnx]'")
        return file_hash(path)

    def load(self, weights: Path | None, *, device: torch.device) -> Embed:
        """A CPU session, asked by as many threads as this process may use.

        The network is small: one thread an image is faster than several on one, and does not make the
        threads of two libraries wait for each other.
        """
        import numpy as np
        import onnxruntime
        import torch
        from torch.nn import functional as F

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            (weights or Path()) / FILE, options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))

        def embed(images: Tensor) -> Tensor:
            large = F.interpolate(
                images.detach().cpu().float(),
                size=(SIZE, SIZE),
                mode="bicubic",
                align_corners=False,
                antialias=True,
            ).clamp(0, 1)
            normal = (large - mean) / std
            views = torch.cat([normal, normal.flip(3)])[:, None].numpy()
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                answers = list(pool.map(lambda view: session.run(None, {name: view})[0], views))
            one, mirrored = torch.from_numpy(np.stack(answers)).flatten(1).chunk(2)
            return F.normalize(one + mirrored, dim=1)

        return embed


@hookimpl
def mia_bench_register_encoders(register: Register) -> None:
    """Register ``mobilefacenet``."""
    register("mobilefacenet", MobileFaceNet)
