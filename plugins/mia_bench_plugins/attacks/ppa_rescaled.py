"""Plug & Play with the target's logits divided by a temperature that the attacker chooses.

An adaptive attacker of targets whose logits are large, as negative label smoothing makes them: softmax is
saturated, and the gradient of the cross-entropy vanishes. The temperature is that at which the entropy of
the probabilities, averaged over samples of the prior, is ``entropy`` of its largest value, the logarithm of
the number of classes. It is found by bisection on the answers to ``calibration`` samples. All three steps of
``ppa`` see the divided logits. Poincaré distance, logit and margin do not depend on their scale; their
selections do.
"""

from __future__ import annotations

import dataclasses
import math

from pydantic import Field

from mia_bench import AttackTask, Register, hookimpl, lazy_imports
from mia_bench.memory import upload
from mia_bench_plugins.attacks.ppa import PlugAndPlay, Step

with lazy_imports():
    import torch
    from torch import Tensor

    from mia_bench.api.access import Access

_HALVINGS = 50
_WIDEST = 32.0


class RescaledPlugAndPlay(PlugAndPlay):
    """``ppa`` on logits that are divided by a temperature."""

    summary = "Plug & Play with the target's logits divided by a temperature"
    paper = "Struppek et al., ICML 2022, arXiv 2201.12179"
    version = "1"
    by_name = True

    class Options(PlugAndPlay.Options):
        """Options of ``ppa-rescaled``: those of ``ppa``, and how the temperature is found."""

        calibration: int = Field(256, ge=1, description="samples of the prior that set the temperature")
        entropy: float = Field(
            0.5, gt=0, lt=1, description="share of the largest entropy that their probabilities get"
        )

    options: Options

    def prepare(self, task: AttackTask) -> dict[str, Tensor]:
        latents = task.prior.sample(
            self.options.calibration, task.generator, truncation=self.options.truncation
        )
        logits = []
        with torch.no_grad():
            for chunk in latents.split(task.batch_size):
                images = task.prior(upload(chunk, task.device))
                logits.append(task.access.answers(images, draws=self.options.eot).mean(0).cpu())
        temperature = fitted_temperature(torch.cat(logits), self.options.entropy)
        state = {"temperature": torch.tensor(temperature)}
        return {**super().prepare(dataclasses.replace(task, state=state)), **state}

    def _on(self, task: AttackTask, step: Step) -> AttackTask:
        access = _Rescaled(task.access, float(task.state["temperature"]))
        return dataclasses.replace(task, access=access)  # type: ignore[arg-type]


def fitted_temperature(logits: Tensor, share: float) -> float:
    """The temperature at which logits ``(N, C)`` have ``share`` of the largest mean entropy.

    It is sought within factors of 2^±32; the nearer end where there is none.
    """
    logits = logits.double()
    wanted = share * math.log(logits.shape[1])
    low, high = -_WIDEST, _WIDEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        logs = (logits / 2**middle).log_softmax(1)
        entropy = -(logs.exp() * logs).sum(1).mean()
        low, high = (middle, high) if entropy < wanted else (low, middle)
    return float(2 ** ((low + high) / 2))


class _Rescaled:
    """Access to a target whose logits are divided by a temperature."""

    def __init__(self, access: Access, temperature: float) -> None:
        self._access, self._temperature = access, temperature

    def answers(self, images: Tensor, *, draws: int = 1) -> Tensor:
        """Logits ``(D, N, C)``, differentiable in ``images``."""
        return self._access.answers(images, draws=draws) / self._temperature

    def probabilities(self, images: Tensor, *, draws: int = 1) -> Tensor:
        """Softmax probabilities ``(N, C)``, averaged over ``draws`` answers if stochastic."""
        with torch.no_grad():
            return self.answers(images, draws=draws).softmax(2).mean(0)


@hookimpl
def mia_bench_register_attacks(register: Register) -> None:
    register("ppa-rescaled", RescaledPlugAndPlay)
