"""Every built-in passes the conformance kit."""

from mia_bench.plugins import host
from mia_bench.testing import Conformance

SMALL = {
    "dp-sgd": {"epsilon": None, "noise_multiplier": 1.0},
    "ppa": {"search": 24, "candidates": 3, "steps": 2, "views": 3},
    "gmi": {"steps": 3, "restarts": 2},
    "eigenfaces": {"components": 8},
    "wgan-gp": {"latent": 6, "width": 4, "steps": 4, "batch_size": 4},
    "stylegan2": {
        "latent": 8, "style": 8, "layers": 2, "channel_base": 128, "channel_max": 8, "steps": 4,
        "batch_size": 4,
    },
    "synth-faces": {
        "identities": 3, "train": 3, "validation": 1, "test": 2, "public_identities": 6,
        "public_images": 2, "decoys": 4, "decoy_images": 2,
    },
}  # fmt: skip

registry = host().registry
for _kind in ("defense", "attack", "prior", "metric", "dataset", "model", "encoder"):
    for _entry in registry.entries(_kind):
        if _entry.plugin.distribution == "mia-bench":
            globals()[f"test_{_kind}_{_entry.name}"] = Conformance(
                _entry.load(), SMALL.get(_entry.name, {})
            )
