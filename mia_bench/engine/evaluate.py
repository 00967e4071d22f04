"""Evaluate a model of the user's: ``mia_bench.evaluate``."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etils.epy import lazy_imports

from mia_bench.config import DEFAULT_TRACK, load_config
from mia_bench.engine.plan import CELL_STAGES, PlannedCell
from mia_bench.engine.progress import ProgressDisplay
from mia_bench.engine.run import prepare
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.plugins import host

with lazy_imports():
    import safetensors.torch
    import torch
    from torch import Tensor, nn

    from mia_bench.api import classifier, images
    from mia_bench.api.dataset import Splits
    from mia_bench.engine import stages
    from mia_bench.protocol import attack as attacks
    from mia_bench.protocol import evaluate as protocol
    from mia_bench.protocol import target as targets
    from mia_bench.protocol.evaluate import Evaluation
    from mia_bench.protocol.target import Target


def evaluate(
    model: nn.Module | str | Path,
    *,
    attack: str,
    track: str = DEFAULT_TRACK,
    defense: str | None = None,
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
            their order; or the file of a checkpoint: weights of the track's architecture as the defense
            builds it, safetensors or what ``torch.save`` wrote of a state dict.
        attack: name of the attack.
        track: name of the protocol.
        defense: name of the defense that a checkpoint was trained under, the baseline unless given; a module
            is deployed as it is.
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
    given["defense"] = defense or _baseline()
    prepared = prepare(load_config(given))
    if len(prepared.cells) != 1:
        raise UsageError("evaluate takes one value of each option")
    (planned,) = prepared.cells
    if planned.skip is not None:
        raise MiaBenchError(f"{attack} can't run here: {planned.skip}")
    setup, measure = prepared.setup, planned.measure
    invert = measure.inputs["invert"]
    inputs = {**measure.inputs, "prior": invert.attacks[0].inputs["prior"]}
    shared = {role: stage for role, stage in inputs.items() if stage.name not in CELL_STAGES}
    setup.make(list(shared.values()), display)
    workspace = setup.workspace()
    target = _target(model, planned, workspace, stochastic=stochastic)
    _check_answers(target, workspace.load(shared["data"]), workspace.device)
    metrics = {**stages.metrics_of(measure.inputs["assess"]), **stages.metrics_of(measure)}
    with stages.computing(setup.track):
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


def _baseline() -> str:
    """The name of the defense that boards compare others with."""
    return next(entry.name for entry in host().registry.entries("defense") if entry.load().baseline)


def _target(
    model: nn.Module | str | Path, planned: PlannedCell, workspace: stages.Workspace, *, stochastic: bool
) -> Target:
    """The model as a target on the device; the user's own object stays as it is."""
    if isinstance(model, (str, Path)):
        train, state = planned.measure.inputs["train"], read_checkpoint(Path(model))
        defense, architecture = train.parts["defense"], train.parts["architecture"]
        splits, context = workspace.input(train, "data"), workspace.context(train)
        try:
            return targets.restore_target(defense.make(), architecture.make(), splits, state, context)
        except RuntimeError as error:  # of load_state_dict
            built, reason = f"{architecture.name} under {defense.name}", " ".join(str(error).split())[:300]
            raise UsageError(f"{model} does not fit {built}: {reason}") from error
    deployed = targets.freeze(copy.deepcopy(model), workspace.device)
    network = deployed if isinstance(deployed, classifier.Classifier) else None
    return targets.Target(network, deployed, stochastic)


def _check_answers(target: Target, splits: Splits, device: torch.device) -> None:
    """Raise UsageError unless the target answers with a logit for each class of the track."""
    image = images.to_float(splits.test.images[:1]).to(device)
    with torch.no_grad():
        found = tuple(classifier.answers(target.deployed, image, 1)[0].shape)
    if found != (expected := (1, splits.num_classes)):
        raise UsageError(f"the model answers one image with {found}, not with logits {expected}")


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict in a file: safetensors, or what ``torch.save`` wrote; nothing of it is run.

    Raises:
        UsageError: the file is missing, can't be read, or holds no tensors by name.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, safetensors: each raises its own
        raise UsageError(
            f"the checkpoint {path} can't be read: {' '.join(str(error).split())[:300]}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise UsageError(f"the checkpoint {path} holds no tensors by name")
    return found
