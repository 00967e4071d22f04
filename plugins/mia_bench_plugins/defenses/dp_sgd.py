r"""Differentially private training (DP-SGD), with Opacus.

Abadi et al., *Deep Learning with Differential Privacy*, CCS 2016 (arXiv 1607.00133), algorithm 1: each
step draws a batch that holds every image with probability :math:`q = L/n` (``L`` the recipe's batch size),
clips each image's gradient to norm ``C`` and adds Gaussian noise,

.. math:: \tilde g = \frac1L \Big(\sum_i g_i \min\big(1, \tfrac{C}{\lVert g_i \rVert}\big)
          + \mathcal N(0, \sigma^2 C^2 I)\Big),

before the step of the recipe's optimiser. The (ε, δ) spent is computed by Rényi accounting of the subsampled
Gaussian (Mironov, Talwar, Zhang, 2019, arXiv 1908.10530) from the steps taken, for data sets that differ in
the presence of one image. ``epsilon`` is a target: the noise multiplier σ is the smallest that stays below
it. Orders from 1 + 10⁻⁶ to 1024 are tried; where the best is the first or the last, ε would be overstated and
training is refused. Batch normalisation mixes the images of a batch, which voids the accounting: it is
replaced by GroupNorm, and other layers that mix images are refused.

Defaults: C = 1 and δ = 1/(10 n) are common choices. ε = 50 is a loose budget that promises little; 8 and 1
are meaningful. With the noise multiplier .01 of published inversion papers, ε is in the millions.
Random numbers come from seeded generators, for reproducibility; a deployment needs secret ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, cast

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mia_bench import (
    BuildContext,
    Defense,
    Quantity,
    Register,
    TrainingSetup,
    TrainingStep,
    hookimpl,
    lazy_imports,
)
from mia_bench.errors import MiaBenchError
from mia_bench_plugins.models.norms import replace_batch_norm

with lazy_imports():
    import torch
    from torch import Tensor

    from mia_bench.api.classifier import Classifier
    from mia_bench_plugins.defenses import private_steps


class DPSGD(Defense):
    """Per-image gradient clipping and Gaussian noise, for a target epsilon or a given noise."""

    summary = "training with clipped and noised gradients (Opacus); a guarantee at small epsilon only"
    paper = "Abadi et al., CCS 2016, arXiv 1607.00133"
    version = "2"
    matched: ClassVar[tuple[str, dict[str, Any]]] = ("none", {"norm": "group"})
    strengths: ClassVar[dict[str, tuple[float, ...]]] = {
        "epsilon": (5000.0, 500.0, 50.0, 8.0),
        "learning_rate": (0.001, 0.004),
    }
    reports: ClassVar[dict[str, Quantity]] = {
        "epsilon": Quantity("epsilon spent by the training, at the delta beside it", kind="amount"),
        "delta": Quantity("delta at which epsilon holds", kind="amount"),
        "noise_multiplier": Quantity(
            "standard deviation of the noise, in units of the clipping norm", kind="amount"
        ),
    }

    class Options(Defense.Options):
        """Options of ``dp-sgd``: ``epsilon`` or ``noise_multiplier``, the other is null."""

        epsilon: float | None = Field(
            50.0, gt=0, le=1e6, description="privacy budget; null when noise_multiplier is given"
        )
        noise_multiplier: float | None = Field(
            None, gt=0, description="noise over clipping norm, instead of a budget"
        )
        delta: float | None = Field(None, gt=0, lt=1, description="null: 1 / (10 × training images)")
        max_grad_norm: float = Field(1.0, gt=0, description="clipping norm of an image's gradient")
        groups: int = Field(8, ge=1, description="most groups of a GroupNorm")
        accountant: Literal["rdp"] = Field("rdp", description="rdp: Rényi differential privacy")
        physical_batch_size: int = Field(
            64, ge=1, description="most images in memory at once; larger batches are taken in parts"
        )
        learning_rate: float | None = Field(None, gt=0, description="null: the recipe's")

        @model_validator(mode="before")
        @classmethod
        def _drop_default_epsilon_if_noise_is_given(cls, values: Any) -> Any:
            if isinstance(values, dict) and values.get("noise_multiplier") is not None:
                return {"epsilon": None, **values}
            return values

        @field_validator("noise_multiplier")
        @classmethod
        def _require_exactly_one(cls, value: float | None, info: ValidationInfo) -> float | None:
            if "epsilon" in info.data and (value is None) == (info.data["epsilon"] is None):
                too = "is null" if value is None else f"{info.data['epsilon']:g} is given"
                raise ValueError(f"epsilon {too} too; give one of the two")
            return value

    options: Options
    _steps: private_steps.PrivateSteps | None = None

    def build_model(self, build: Callable[[], Classifier], context: BuildContext) -> Classifier:
        return replace_batch_norm(build(), self.options.groups)

    def prepare_training(self, setup: TrainingSetup) -> TrainingSetup:
        """Replace optimiser and sampler by private ones; the recipe's schedule still applies.

        Raises:
            MiaBenchError: the network voids the accounting, or epsilon can't be reached or accounted for.
        """
        options = self.options
        network = cast("Classifier", setup.model)
        # Opacus's per-sample gradients of channels-last convolutions are wrong.
        network.to(memory_format=torch.contiguous_format)
        private_steps.check_network(network, setup.resolution, setup.seed)
        if options.learning_rate is not None:
            _set_learning_rate(setup, options.learning_rate)
        noise = options.noise_multiplier
        rate, steps = private_steps.poisson_schedule(setup)
        steps *= setup.epochs
        if noise is None:
            assert options.epsilon is not None  # by the options' validators
            noise = private_steps.find_noise_multiplier(options.epsilon, self._delta(setup), rate, steps)
        else:  # raise now rather than after the training
            private_steps.epsilon_spent([(noise, rate, steps)], self._delta(setup))
        self._steps = private_steps.PrivateSteps(
            setup,
            noise_multiplier=noise,
            max_grad_norm=options.max_grad_norm,
            physical_batch_size=options.physical_batch_size,
        )
        return dataclasses.replace(
            setup,
            optimizer=self._steps.optimizer,
            batches=self._steps.batches,
            memory_advice="lower dp-sgd.physical_batch_size",
        )

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Require gradients of the images, which the hook of the first layer needs."""
        return images.requires_grad_()

    def loss(self, step: TrainingStep) -> Tensor:
        """Cross-entropy; raise MiaBenchError if the batch does not come from the Poisson sampler."""
        if self._steps is None or not self._steps.confirm_batch(len(step.labels)):
            raise MiaBenchError(
                "dp-sgd: a batch did not come from its Poisson sampler; epsilon would mean nothing"
            )
        return super().loss(step)

    def state_dict(self) -> dict[str, Any]:
        return self._steps.state_dict() if self._steps else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._steps:
            self._steps.load_state_dict(state)

    def report(self, setup: TrainingSetup) -> dict[str, Any]:
        """The privacy spent and the noise; raise MiaBenchError if another optimiser trained the network."""
        steps = self._steps
        if steps is None or setup.optimizer is not steps.optimizer:
            raise MiaBenchError("dp-sgd: another optimiser was used; epsilon would mean nothing")
        delta = self._delta(setup)
        return {"epsilon": steps.epsilon(delta), "delta": delta, "noise_multiplier": steps.noise_multiplier}

    def _delta(self, setup: TrainingSetup) -> float:
        return 1 / (10 * setup.train_size) if self.options.delta is None else self.options.delta


def _set_learning_rate(setup: TrainingSetup, learning_rate: float) -> None:
    """Rescale the optimiser and its schedule to start from ``learning_rate``."""
    for group in setup.optimizer.param_groups:
        group["lr"] *= learning_rate / group["initial_lr"]
        group["initial_lr"] = learning_rate
    setup.scheduler.base_lrs = [learning_rate for _ in setup.scheduler.base_lrs]


@hookimpl
def mia_bench_register_defenses(register: Register) -> None:
    register("dp-sgd", DPSGD)
