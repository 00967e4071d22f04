"""MobileFaceNet as an ONNX file: an independent face recogniser trained on MS-Celeb-1M.

Chen et al., *MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile
Devices*, CCBR 2018. The file takes RGB images of 112×112 pixels, normalised by ImageNet's mean and
standard deviation, one at a time; an embedding is the normalised sum over the image and its mirror image.
It is independent of the targets; whether its training data show people of LFW is not known.
"""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mia_bench import Encoder, Register, hookimpl, lazy_imports
from mia_bench.api.component import Published
from mia_bench.api.encoder import Embed
from mia_bench.errors import Unavailable
from mia_bench.fetch import file_hash, find

with lazy_imports():
    import numpy as np
    import onnxruntime  # optional: fingerprint() says how to install it
    import torch
    from torch import Tensor
    from torch.nn import functional as F

FILE = "mobilefacenet.onnx"
SIZE = 112
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class MobileFaceNet(Encoder):
    """Embeddings of 128 or more dimensions from ``<weights>/mobilefacenet.onnx``."""

    summary = "MobileFaceNet from an ONNX file (112×112 RGB)"
    paper = "Chen et al., CCBR 2018, arXiv 1804.07573"
    version = "1"
    terms = "Apache-2.0 weights, trained on MS-Celeb-1M"

    def weight_files(self) -> tuple[Published, ...]:
        return (Published(FILE, url=""),)

    def fingerprint(self, weights: Path | None) -> str:
        if (path := find(FILE, weights)) is None:
            # No path in the message: it becomes a part of keys and records.
            raise Unavailable(
                f"{FILE} was not found: put it into the folder that MIA_BENCH_WEIGHTS names, or into "
                "'weights' beside the data root"
            )
        if importlib.util.find_spec("onnxruntime") is None:
            raise Unavailable("onnxruntime is not installed: pip install 'mia-bench[onnx]'")
        return file_hash(path)

    def load(self, weights: Path | None, *, device: torch.device) -> Embed:
        """A session on the CPU, called by as many threads as torch uses.

        The network is small: a thread per image is faster than several threads for each, and avoids
        contention between the thread pools of two libraries.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            find(FILE, weights) or FILE, options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))

        def embed(images: Tensor) -> Tensor:
            pixels, size = images.detach().cpu().float(), (SIZE, SIZE)
            large = F.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True)
            normal = (large.clamp(0, 1) - mean) / std
            views = torch.cat([normal, normal.flip(3)])[:, None].numpy()
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                answers = list(pool.map(lambda view: session.run(None, {name: view})[0], views))
            one, mirrored = torch.from_numpy(np.stack(answers)).flatten(1).chunk(2)
            return F.normalize(one + mirrored, dim=1)

        return embed


@hookimpl
def mia_bench_register_encoders(register: Register) -> None:
    register("mobilefacenet", MobileFaceNet)
