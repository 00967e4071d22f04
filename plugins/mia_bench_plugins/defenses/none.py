"""No defense: the undefended target, first row of every board.

``norm=group`` replaces BatchNorm by GroupNorm as ``dp-sgd`` does, to separate the effect of private training
from the effect of its architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from mia_bench import BuildContext, Defense, Register, hookimpl, lazy_imports
from mia_bench_plugins.models.norms import replace_batch_norm

with lazy_imports():
    from mia_bench.api.classifier import Classifier


class NoDefense(Defense):
    """Plain training with cross-entropy, by the track's recipe."""

    summary = "plain training with cross-entropy (baseline)"
    version = "1"
    baseline = True

    class Options(Defense.Options):
        norm: Literal["batch", "group"] = Field(
            "batch", description="batch: the track's network; group: GroupNorm for BatchNorm"
        )
        groups: int = Field(8, ge=1, description="most groups of a GroupNorm; norm=group only")

    options: Options

    def build_model(self, build: Callable[[], Classifier], context: BuildContext) -> Classifier:
        network = build()
        if self.options.norm == "group":
            replace_batch_norm(network, self.options.groups)
        return network


@hookimpl
def mia_bench_register_defenses(register: Register) -> None:
    register("none", NoDefense)
