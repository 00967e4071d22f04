"""Unoptimised samples of the prior, the floor for all attacks."""

from __future__ import annotations

from pydantic import Field

from mia_bench import Attack, AttackTask, Reconstructions, Register, hookimpl


class PriorSample(Attack):
    """Images sampled from the prior without a query to the target."""

    summary = "unoptimised samples of the prior (floor)"
    version = "1"
    reference = "floor"
    access = "label-only"

    class Options(Attack.Options):
        truncation: float = Field(1.0, ge=0, le=1, description="pull towards the mean latent")

    options: Options

    def invert(self, task: AttackTask) -> Reconstructions:
        shape = (len(task.classes), task.images_per_class)
        latents = task.prior.sample(shape[0] * shape[1], task.generator, truncation=self.options.truncation)
        return task.reconstructions(latents.unflatten(0, shape))


@hookimpl
def mia_bench_register_attacks(register: Register) -> None:
    register("prior-sample", PriorSample)
