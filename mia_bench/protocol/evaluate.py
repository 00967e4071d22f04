"""Evaluate one target: measure it, attack it, measure what the attack returned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mia_bench.api.attack import Attack
from mia_bench.api.dataset import Splits
from mia_bench.api.generative import GenerativeModel
from mia_bench.api.images import to_uint8
from mia_bench.api.metric import AttackMetric, TargetMetric
from mia_bench.memory import noting_halvings
from mia_bench.protocol.attack import Budget, check_reconstructions, joined_notes, run_attack
from mia_bench.protocol.context import Context
from mia_bench.protocol.measurement import (
    Instruments,
    attack_evidence,
    measure_reconstructions,
    measure_target,
)
from mia_bench.protocol.target import Target
from mia_bench.statistics import Estimate


@dataclass(frozen=True)
class Evaluation:
    """What one attack recovers from one target, and what the target is worth.

    Attributes:
        metrics: each quantity by its name with its 95 % interval, None where it could not be computed.
        notes: by quantity, the reason why it is None; what the attack had to say.
        per_class: class means of the quantities that are compared class by class.
        reconstructions: ``(K, M, 3, H, W)`` uint8, best first.
        queries: images that the target answered to the attack.
    """

    metrics: dict[str, Estimate | None]
    notes: dict[str, str]
    per_class: dict[str, list[float]]
    reconstructions: Tensor
    queries: int


def evaluate_target(
    target: Target,
    splits: Splits,
    attack: Attack,
    prior: GenerativeModel,
    budget: Budget,
    instruments: Instruments,
    metrics: Mapping[str, TargetMetric | AttackMetric],
    *,
    attack_context: Context,
    measure_context: Context,
) -> Evaluation:
    """Measure the target's utility, attack it, and measure the leakage.

    Args:
        instruments: what reconstructions are measured with.
        metrics: by the words that name each in errors.
        attack_context: seed of the cell.
        measure_context: seed of the track.

    Raises:
        MiaBenchError: the attack or a metric fails.
    """
    utility = {name: m for name, m in metrics.items() if isinstance(m, TargetMetric)}
    leakage = {name: m for name, m in metrics.items() if isinstance(m, AttackMetric)}
    with noting_halvings() as halved:
        measured = measure_target(utility, target, splits, measure_context)
        attacked = (target, prior, splits, budget, attack_context)
        prepared = run_attack(attack, *attacked, step="prepare")
        runs = [
            run_attack(attack, *attacked, step="invert", prepared=prepared.result, classes=classes)
            for classes in budget.parts(attack, splits.num_classes)
            if len(classes)
        ]
        for run in runs:
            check_reconstructions(run.result, run.task, attack_context.resolution)
        images = torch.cat([to_uint8(run.result.images) for run in runs])
        said = {
            name: torch.cat([run.result.diagnostics[name].float().cpu() for run in runs])
            for name in runs[0].result.diagnostics
            if all(name in run.result.diagnostics for run in runs)
        }
        evidence = attack_evidence(images, target, splits, instruments, measure_context.device, said)
        measure_reconstructions(leakage, evidence, measured, seed=measure_context.seed)
    memory = {"measure": "; ".join(halved.values())} if halved else {}
    return Evaluation(
        metrics=measured.values,
        notes={**measured.notes, **prepared.notes, **joined_notes(run.notes for run in runs), **memory},
        per_class=measured.per_class,
        reconstructions=images,
        queries=prepared.queries + sum(run.queries for run in runs),
    )
