"""Measures what ``stylegan2.partial`` does to PPA: ``python docs/measure_partial.py [--store STORE]``.

With it, an attack optimises an image of as many pixels as the target needs, the sum of the first layers'
images, instead of the whole one, resized. Here the shipped generator of 32 pixels attacks undefended targets
of 16, trained on ``synth-faces``; what is returned is made by all layers either way. Prints success by seed
(the evaluation model's: the identity encoder needs 32 pixels), the paired difference with its 95 % interval,
and the attack's time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import mia_bench
from mia_bench.engine.progress import terminal_progress
from mia_bench.leaderboard.compare import paired
from mia_bench.record import read_record
from mia_bench_plugins.priors import shipped_priors

TRACK = """
name = "measure-partial"
version = 1
summary = "synth-faces at 16 pixels"
images_per_class = 4
metrics = ["utility", "evaluation-classifier", "target-confidence"]
default_prior = "stylegan2"
[data]
resolution = 16
split_seed = 2024
dataset = { name = "synth-faces", options = { identities = 60, train = 14 } }
[target]
architecture = { name = "resnet-small" }
recipe = { epochs = 40, shift = 1 }
[evaluation]
architecture = { name = "convnet-small" }
recipe = { epochs = 40, shift = 1 }
[attacks.ppa]
prior = "stylegan2"
options = { search = 1000, candidates = 8, steps = 60, learning_rate = 0.02, views = 20 }
"""

PLUGIN = """
from pathlib import Path
from mia_bench import hookimpl
@hookimpl
def mia_bench_register_tracks(register):
    register("measure-partial", Path(__file__).with_name("track.toml"))
"""

METRICS = ("attack_acc1", "delta_eval", "target_confidence")


def install(folder: Path) -> None:
    """A plugin with the track, as pip would lay it out."""
    (folder / "track.toml").write_text(TRACK, encoding="utf-8")
    (folder / "measure_partial_plugin.py").write_text(PLUGIN, encoding="utf-8")
    described = folder / "measure_partial_plugin-1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Name: measure-partial-plugin\nVersion: 1\n", "utf-8")
    (described / "entry_points.txt").write_text(
        "[mia_bench]\nmeasure-partial = measure_partial_plugin\n", encoding="utf-8"
    )
    sys.path.insert(0, str(folder))


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    shipped = shipped_priors.FOLDER / shipped_priors.file_name("stylegan2", "synth-faces")
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder))
        records = mia_bench.run(
            track="measure-partial",
            defense="none",
            attack="ppa",
            seeds=given.seeds,
            options={
                "stylegan2.file": str(shipped),
                "stylegan2.trained_on": "public images of synth-faces",
                "stylegan2.partial": ["false", "true"],
            },
            device=given.device,
            store=given.store,
            display=terminal_progress(),
        )
    sides = {
        partial: {r["seed"]: r for r in records if r["prior"]["options"]["partial"] is partial}
        for partial in (False, True)
    }
    print("| partial | " + " | ".join(METRICS) + " | seconds |")
    print("| --- |" + " --- |" * (len(METRICS) + 1))
    for partial, by_seed in sides.items():
        found = [
            ", ".join(f"{r['metrics'][name]['value']:.3f}" for r in by_seed.values()) for name in METRICS
        ]
        taken = ", ".join(f"{r['cost']['invert_seconds']:.0f}" for r in by_seed.values())
        print(f"| {str(partial).lower()} | " + " | ".join(found) + f" | {taken} |")
    without, with_it = (
        [read_record(record) for record in sides[partial].values()] for partial in (False, True)
    )
    differences = paired("attack_acc1", with_it, without)
    assert differences is not None
    print(
        f"attack_acc1, with less without: {differences.mean:+.3f} "
        f"[{differences.low:+.3f}, {differences.high:+.3f}]"
    )


if __name__ == "__main__":
    main()
