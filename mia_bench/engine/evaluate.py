"""Evaluate a model of the user's: ``mia_bench.evaluate``."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etils.epy import lazy_imports

from mia_bench.components import baseline
from mia_bench.config import DEFAULT_TRACK, OF_TARGETS, load_config
from mia_bench.engine.plan import CELL_STAGES
from mia_bench.engine.progress import ProgressDisplay
from mia_bench.engine.run import prepare
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.plugins import host

with lazy_imports():
    from torch import nn

    from mia_bench.api import classifier
    from mia_bench.engine import stages
    from mia_bench.protocol import attack as attacks
    from mia_bench.protocol import evaluate as protocol
    from mia_bench.protocol import target as targets
    from mia_bench.protocol.context import Context
    from mia_bench.protocol.evaluate import Evaluation
    from mia_bench.protocol.target import Target

log = logging.getLogger(__name__)


def evaluate(
    model: nn.Module | str | Path,
    *,
    attack: str,
    track: str = DEFAULT_TRACK,
    defense: str | None = None,
    architecture: str | None = None,
    target_key: str | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    prior: str | None = None,
    seed: int = 0,
    stochastic: bool = False,
    options: Mapping[str, Any] | Sequence[str] | None = None,
    device: str = "auto",
    store: str | Path | None = None,
    data: str | Path | None = None,
    weights: str | Path | None = None,
    allow_partial: bool = False,
    display: ProgressDisplay | None = None,
) -> Evaluation:
    """Attack a model of yours and measure what the attack recovers, by the protocol of a track.

    Data, priors and evaluation models are the track's: they are taken from the store, or made and kept there.
    The model itself is neither trained nor stored, and its numbers go on no board.

    Args:
        model: a module from images ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C)`` of the track's classes, in
            their order; or the file of a checkpoint, safetensors or what ``torch.save`` wrote, as
            ``mia-bench run --target`` takes it.
        attack: name of the attack.
        track: name of the protocol.
        defense: name of the defense as which a checkpoint is built and answers; what its file says, or the
            baseline, unless given. A module is deployed as it is.
        architecture: of a checkpoint; what its file says, or that of the track, unless given.
        target_key: where the weights are in a checkpoint: keys joined by dots.
        mean, std: of each channel, or one for all, by which a checkpoint's network normalises images; its
            architecture's own unless given. A module normalises them itself.
        prior: name of the attacker's image model; the attack's default on the track unless given.
        seed: of the attack.
        stochastic: whether a module's answers are random; of a checkpoint the defense says so.
        options, device, store, data, weights, allow_partial: as of :func:`mia_bench.run`.
        display: shows the progress; silent unless given.

    Raises:
        UsageError: a name, option, path or device is wrong, or the checkpoint does not fit.
        MiaBenchError: the attack can't run in this setting, or fails.
    """
    given = {**locals(), "jobs": 1}
    for own in ("model", "stochastic", "display"):
        del given[own]
    if isinstance(model, (str, Path)):
        given |= {"target": {"own-model": model}, "target_defense": given.pop("defense")}
    else:
        if wrong := [name for name in OF_TARGETS if given.get(name) is not None]:
            raise UsageError(f"{wrong[0]} is for the file of a checkpoint: a module answers by itself")
        given["defense"] = defense or baseline(host().registry)
    prepared = prepare(load_config(given))
    if len(prepared.cells) != 1:
        raise UsageError("evaluate takes one value of each option")
    for line in prepared.warnings:
        log.warning("%s", line)
    (planned,) = prepared.cells
    if planned.skip is not None:
        raise MiaBenchError(f"{attack} can't run here: {planned.skip}")
    setup, measure = prepared.setup, planned.measure
    invert = measure.inputs["invert"]
    inputs = {**measure.inputs, "prior": invert.attacks[0].inputs["prior"]}
    shared = {role: stage for role, stage in inputs.items() if stage.name not in CELL_STAGES}
    setup.make(list(shared.values()), display)
    workspace = setup.workspace()
    with setup.store.in_use(), stages.computing(setup.track):
        if isinstance(model, (str, Path)):
            load, splits = measure.inputs["train"], workspace.load(shared["data"])
            target = stages.restored(load, splits, stages.read_own_model(load, workspace), workspace)
        else:
            classes = workspace.load(shared["data"]).num_classes
            target = _module(model, classes, workspace.context(invert), stochastic=stochastic)
        metrics = {**stages.metrics_of(measure.inputs["assess"]), **stages.metrics_of(measure)}
        return protocol.evaluate_target(
            target,
            workspace.load(shared["data"]),
            planned.cell.attack.make(),
            workspace.load(shared["prior"]),
            attacks.Budget.of(setup.track),
            stages.load_instruments(measure, workspace),
            metrics,
            attack_context=workspace.context(invert),
            measure_context=workspace.context(measure),
        )


def _module(model: nn.Module, classes: int, context: Context, *, stochastic: bool) -> Target:
    """The module as a target on the device; the user's own object stays as it is.

    Raises:
        UsageError: it does not answer with a logit for each class of the track.
    """
    deployed = targets.freeze(copy.deepcopy(model), context.device)
    network = deployed if isinstance(deployed, classifier.Classifier) else None
    target = targets.Target(network, deployed, stochastic)
    if wrong := targets.wrong_answers(target, classes, context):
        raise UsageError(f"the model {wrong}")
    return target
