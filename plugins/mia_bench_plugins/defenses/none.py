"""No defense: the undefended target, first row of every board.

With ``norm=group`` it has the architecture that private training needs (see ``dp_sgd``), so that a
board shows how much of that defense's effect is the architecture's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from mia_bench import BuildContext, Defense, hookimpl
from mia_bench.hookspecs import Register

if TYPE_CHECKING:
    from mia_bench.api.classifier import Classifier


class NoDefense(Defense):
    """Plain training with cross-entropy, by the track's recipe."""

    summary: ClassVar[str] = "plain training with cross-entropy (baseline)"
    version: ClassVar[str] = "1"
    baseline: ClassVar[bool] = True

    class Options(Defense.Options):
        """Options of ``none``."""

        norm: Literal["batch", "group"] = Field(
            "batch", description="batch: the track's network; group: GroupNorm for BatchNorm"
        )
        groups: int = Field(8, ge=1, description="most groups of a GroupNorm; norm=group only")

    options: Options

    def build_model(self, build: Callable[[], Classifier], context: BuildContext) -> Classifier:
        """The track's network, its batch normalisation replaced where that is asked for."""
        network = build()
        if self.options.norm == "batch":
            return network
        from mia_bench_plugins.models.norms import replace_batch_norm

        return replace_batch_norm(network, self.options.groups)


@hookimpl
def mia_bench_register_defenses(register: Register) -> None:
    """Register ``none``."""
    register("none", NoDefense)
