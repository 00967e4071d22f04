"""mia-bench: compare defenses against model inversion attacks.

Importing the package imports nothing else; each name is imported when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etils.epy import lazy_imports

    from mia_bench.api.architecture import Architecture, NetworkTask
    from mia_bench.api.attack import Attack, AttackTask, Reconstructions, Setting
    from mia_bench.api.component import Component
    from mia_bench.api.dataset import Dataset, ImageSet, Splits
    from mia_bench.api.defense import BuildContext, Defense, TrainingSetup, TrainingStep
    from mia_bench.api.encoder import Encoder
    from mia_bench.api.metric import AttackMetric, Measurement, Metric, Quantity, TargetMetric
    from mia_bench.api.options import Options
    from mia_bench.api.prior import Prior, PriorTask
    from mia_bench.engine.evaluate import evaluate
    from mia_bench.engine.run import load_data, run
    from mia_bench.hookspecs import Register, hookimpl
    from mia_bench.results import load_results

    __version__: str

_LAZY = {
    "Architecture": "mia_bench.api.architecture",
    "Attack": "mia_bench.api.attack",
    "AttackMetric": "mia_bench.api.metric",
    "AttackTask": "mia_bench.api.attack",
    "BuildContext": "mia_bench.api.defense",
    "Component": "mia_bench.api.component",
    "Dataset": "mia_bench.api.dataset",
    "Defense": "mia_bench.api.defense",
    "Encoder": "mia_bench.api.encoder",
    "ImageSet": "mia_bench.api.dataset",
    "Measurement": "mia_bench.api.metric",
    "Metric": "mia_bench.api.metric",
    "NetworkTask": "mia_bench.api.architecture",
    "Options": "mia_bench.api.options",
    "Prior": "mia_bench.api.prior",
    "PriorTask": "mia_bench.api.prior",
    "Quantity": "mia_bench.api.metric",
    "Reconstructions": "mia_bench.api.attack",
    "Register": "mia_bench.hookspecs",
    "Setting": "mia_bench.api.attack",
    "Splits": "mia_bench.api.dataset",
    "TargetMetric": "mia_bench.api.metric",
    "TrainingSetup": "mia_bench.api.defense",
    "TrainingStep": "mia_bench.api.defense",
    "evaluate": "mia_bench.engine.evaluate",
    "hookimpl": "mia_bench.hookspecs",
    "lazy_imports": "etils.epy",
    "load_data": "mia_bench.engine.run",
    "load_results": "mia_bench.results",
    "run": "mia_bench.engine.run",
}

__all__ = [
    "Architecture",
    "Attack",
    "AttackMetric",
    "AttackTask",
    "BuildContext",
    "Component",
    "Dataset",
    "Defense",
    "Encoder",
    "ImageSet",
    "Measurement",
    "Metric",
    "NetworkTask",
    "Options",
    "Prior",
    "PriorTask",
    "Quantity",
    "Reconstructions",
    "Register",
    "Setting",
    "Splits",
    "TargetMetric",
    "TrainingSetup",
    "TrainingStep",
    "__version__",
    "evaluate",
    "hookimpl",
    "lazy_imports",
    "load_data",
    "load_results",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("mia-bench")
    raise AttributeError(f"module 'mia_bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
