"""Checks adversarial robustness by another implementation: ``python docs/check_robustness.py STORE``.

The experiment on side effects finds that targets of ``lfw`` with negative label smoothing keep more accuracy
under projected gradient descent than undefended ones. Here APGD with the DLR loss (Croce and Hein, ICML 2020)
of torchattacks, which is to be installed beside, attacks the test images that such targets in STORE classify
correctly. Writes ``docs/results/robustness-apgd.json``: of each target the accuracy, and what is left of it
for each largest change of a value.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
import torchattacks

import mia_bench
from mia_bench.api.images import to_float
from mia_bench.config import load_config
from mia_bench.engine.export import export_target
from mia_bench.engine.run import prior_stage, set_up
from mia_bench.record import Record
from mia_bench.store import Store

CHANGES = (1, 2)
"""Largest changes of a value, of 255."""

STEPS, BATCH = 20, 256
OUTPUT = Path(__file__).parent / "results" / "robustness-apgd.json"
TARGETS: dict[str, dict[str, Any]] = {
    "none": {"epochs": 1.0, "images": 1.0, "norm": "batch"},
    "neg-ls": {"alpha": -1.0, "schedule": "ramp"},
}


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
def main(store: Path) -> None:
    """Attack the targets in STORE."""
    opened = Store(store)
    setup = set_up(load_config({"track": "lfw", "store": store, "device": "cpu"}))
    test = setup.workspace().input(prior_stage(setup, "eigenfaces"), "data").test
    rows = []
    for (name, seed), record in sorted(cells(opened).items()):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "target.safetensors"
            export_target(record, opened, {"store": store}, file)
            target = mia_bench.load_target(file).eval()
        row = {"defense": name, "seed": seed, **measured(target, to_float(test.images), test.labels, seed)}
        click.echo(json.dumps(row))
        rows.append(row)
    made = {"torchattacks": torchattacks.__version__, "steps": STEPS, "loss": "dlr", "targets": rows}
    OUTPUT.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def cells(store: Store) -> dict[tuple[str, int], Record]:
    """One cell of each target."""
    found = {}
    for record in store.records():
        wanted = TARGETS.get(record.defense.name)
        usual = record.track.name == "lfw" and record.track.variant in ("", "metrics: embedding")
        if wanted and usual and record.status == "done" and wanted.items() <= record.defense.options.items():
            found.setdefault((record.defense.name, record.seed), record)
    return found


def measured(
    target: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, seed: int
) -> dict[str, float]:
    """Shares of all test images."""
    right = (answers(target, images) == labels).nonzero().squeeze(1)
    shares = {"accuracy": len(right) / len(labels)}
    for change in CHANGES:
        attack = torchattacks.APGD(target, eps=change / 255, steps=STEPS, loss="dlr", seed=seed)
        changed = torch.cat([attack(images[part], labels[part]) for part in right.split(BATCH)])
        shares[f"robust_{change}"] = float((answers(target, changed) == labels[right]).sum()) / len(labels)
    return shares


def answers(target: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The classes that the target gives."""
    with torch.no_grad():
        return torch.cat([target(part).argmax(1) for part in images.split(BATCH)])


if __name__ == "__main__":
    main()
