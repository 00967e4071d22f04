"""Trained targets as files: weights with a model card, which ``run --target`` and ``load_target`` read."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils.epy import lazy_imports

from mia_bench import jsonfile
from mia_bench.components import ConfiguredComponent, resolve
from mia_bench.device import choose_device
from mia_bench.engine.plan import PlannedCell
from mia_bench.engine.rerun import OTHER, prepare_again
from mia_bench.errors import CorruptArtifact, MiaBenchError, UsageError
from mia_bench.origin import Origin
from mia_bench.own_models import CARD, ModelCard, Part, other_versions, read_card
from mia_bench.paths import default_weights, expand_path
from mia_bench.plugins import host
from mia_bench.provenance import package_version
from mia_bench.record import Record
from mia_bench.recorded_options import options_text
from mia_bench.store import Store, write_whole
from mia_bench.text import prose
from mia_bench.track import fold_of, load_track

with lazy_imports():
    import safetensors.torch
    import torch
    from torch import nn

    from mia_bench.api import dataset
    from mia_bench.models import checkpoint_file
    from mia_bench.protocol import context as contexts
    from mia_bench.protocol import target as targets

log = logging.getLogger(__name__)

_MEASURED = "trained by mia-bench to measure how much such a model gives away about its training data"
"""What every model card says."""


def export_target(record: Record, store: Store, where: Mapping[str, Any], path: Path) -> list[Path]:
    """Write the target of a cell as safetensors, and its model card as Markdown beside it.

    Args:
        record: of the cell.
        store: where its target is.
        where: keys of :class:`mia_bench.config.RunConfig` that say where: store, data, weights.
        path: of the safetensors file; that of the card has the suffix ``.md``.

    Returns:
        both files.

    Raises:
        UsageError: a page that is no model card is in the place of the card.
        MiaBenchError: the cell's target is not stored, or the cell is another one now.
        OSError: a file can't be written.
    """
    page = path.with_suffix(".md")
    _require_free(page)
    if record.defense.about.own_model:
        raise UsageError(
            f"the target of cell {record.key[:8]} is a model of your own, which is a file already"
        )
    if fold_of(record.track.variant):
        raise UsageError(
            f"the target of cell {record.key[:8]} is of a further fold, trained on the track's validation "
            "images, which its file would not say"
        )
    planned = _planned(record, store, where)
    train = planned.measure.inputs["train"]
    if not store.has(*train.id):
        raise MiaBenchError(f"the target of cell {record.key[:8]} is not in the store any more: run it again")
    card = _card(record, planned, len(store.info("data", train.inputs["data"].key)["class_names"]))
    weights = safetensors.torch.save(store.tensors(*train.id), {CARD: card.model_dump_json()})
    write_whole(path, weights)
    write_whole(page, _markdown(card, record, path.name).encode())
    return [path, page]


def _require_free(page: Path) -> None:
    """Refuse to replace what the user did not name, unless it is an earlier model card.

    Raises:
        UsageError: it is something else.
    """
    if not os.path.lexists(page):
        return
    try:
        known = _MEASURED.encode() in jsonfile.read_file(page)
    except (OSError, ValueError):
        known = False
    if not known:
        raise UsageError(f"the model card would replace {page}, which is another page: give another FILE")


def _planned(record: Record, store: Store, where: Mapping[str, Any]) -> PlannedCell:
    """The cell as it would be run today, if its target would be the same; its attack may be another one."""
    known = store.info("measure", record.key) if store.has("measure", record.key) else {}
    try:
        origin = Origin.noted("measure", known)
    except ValueError as error:
        raise CorruptArtifact("measure", record.key, str(error)) from error
    for planned in prepare_again(record, where).cells:
        spec, train = planned.cell.defense.spec(), planned.measure.inputs["train"]
        now = planned.cell.track.version, planned.data_fingerprint, spec["version"], spec["options"]
        then = record.track.version, record.track.data, record.defense.version, record.defense.options
        if now == then and (origin is None or origin.inputs["train"] == train.id):
            return planned
    raise MiaBenchError(f"cell {record.key[:8]} can't be exported: {OTHER}")


def _card(record: Record, planned: PlannedCell, classes: int) -> ModelCard:
    train, assess = (planned.measure.inputs[role] for role in ("train", "assess"))
    defense: ConfiguredComponent = train.parts["defense"]
    names = [name for metric in assess.parts["metrics"] for name in metric.component.quantities]
    values = {name: record.metrics.get(name) for name in (*names, *defense.component.reports)}
    return ModelCard(
        cell=record.key,
        track=record.track.name,
        track_version=record.track.version,
        data=record.track.data,
        classes=classes,
        resolution=train.track.data.resolution,
        architecture=Part(**train.parts["architecture"].spec()),
        defense=Part(**defense.spec()),
        seed=record.seed,
        metrics={name: metric.value for name, metric in values.items() if metric},
        made_with={"mia-bench": package_version("mia-bench"), "torch": record.provenance.torch or "unknown"},
    )


def _markdown(card: ModelCard, record: Record, file: str) -> str:
    return "\n".join(_lines(card, record, file)) + "\n"


def _lines(card: ModelCard, record: Record, file: str) -> Iterator[str]:
    def built(part: Part) -> str:
        options = options_text(part.options)
        said = f"`{part.name}` of {part.distribution}, version {part.version}"
        return said + (f" ({prose(options)})" if options else "")

    yield from (f"# {prose(file)}", "")
    yield (
        f"A classifier of {card.classes} private classes, for images of {card.resolution}×{card.resolution} "
        f"pixels, {_MEASURED}."
    )
    if record.track.data and card.metrics:
        yield ""
    for name, value in card.metrics.items():
        yield f"- {name}: {value:.4g}"
    yield from (
        "",
        f"- track: `{card.track}`, version {card.track_version}, data `{card.data}`",
        f"- architecture: {built(card.architecture)}",
        f"- defense: {built(card.defense)}",
        f"- seed: {card.seed}",
        f"- cell: `{card.cell}`",
        f"- made with: {', '.join(f'{name} {version}' for name, version in card.made_with.items())}",
        f"- device: {prose(record.provenance.device or 'unknown')}",
        "",
        "Whoever has these weights can attack them and may rebuild what the private classes look like: share",
        "them as you would share the images.",
        "",
        "## Use",
        "",
        "```python",
        "import torch",
        "import mia_bench",
        "",
        f"model = mia_bench.load_target({file!r})  # torch.nn.Module, in eval mode",
        f"splits = mia_bench.load_data(track={card.track!r})  # the classes are splits.class_names, in order",
        "images = splits.test.images[:256].float() / 255  # (N, 3, H, W) in [0, 1]",
        "with torch.no_grad():",
        "    logits = model(images)",
        "accuracy = (logits.argmax(1) == splits.test.labels[:256]).float().mean()",
        "```",
        "",
        f"`mia-bench run --track {card.track} --target {file}` attacks it.",
    )


def load_target(file: str | Path, *, device: str = "cpu") -> nn.Module:
    """A target from a file that ``mia-bench export`` wrote, as it was deployed.

    A warning says so where another version of its track, architecture or defense is installed than it was
    made with.

    Args:
        file: safetensors with a model card.
        device: ``auto``, ``cpu``, ``cuda[:i]`` or ``mps``.

    Returns:
        a module from images ``(N, 3, H, W)`` in [0, 1] to logits ``(N, C)``, in eval mode.

    Raises:
        UsageError: the file can't be read, has no model card or does not fit it.
    """
    path = expand_path(file)
    card = read_card(path)
    if card is None:
        raise UsageError(f"{path} has no model card of mia-bench: 'mia-bench export' writes files with one")
    registry = host().registry
    built = resolve(registry, "model", card.architecture.name, card.architecture.options, {})
    deployed = resolve(registry, "defense", card.defense.name, card.defense.options, {})
    for line in (*_other_track(path, card), *other_versions(path, card, built, deployed)):
        log.warning("%s", line)
    architecture, defense = built.make(), deployed.make()
    none = dataset.ImageSet(
        torch.empty(0, 3, card.resolution, card.resolution, dtype=torch.uint8),
        torch.empty(0, dtype=torch.long),
    )
    splits = dataset.Splits(none, none, none, none, none, tuple(map(str, range(card.classes))))
    context = contexts.Context(card.resolution, card.seed, choose_device(device), weights=default_weights())
    network = targets.build_target(defense, architecture, splits, context, restoring=True)
    try:
        state = checkpoint_file.fit(checkpoint_file.read_checkpoint(path), network)
    except UsageError as error:
        raise UsageError(f"{path} {error}") from error
    return targets.restore_target(defense, architecture, splits, state, context).deployed


def _other_track(path: Path, card: ModelCard) -> Iterator[str]:
    """A line where the track that is installed has another version than the one that a target is of."""
    with contextlib.suppress(MiaBenchError):  # a model can be loaded without its track
        track = load_track(host().registry, card.track)
        if track.version != card.track_version:
            yield (
                f"{path} was trained by version {card.track_version} of the track {card.track!r}, version "
                f"{track.version} is installed: its images may be others"
            )
