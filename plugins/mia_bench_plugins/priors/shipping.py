"""Trains the weights that are shipped: ``python -m mia_bench_plugins.priors.shipping PRIOR``.

The result is what the prior makes of the default track's public images with the track's options, in half
precision. A stopped training goes on when the command is given again with the same store.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import click
import torch
from safetensors.torch import save_file

from mia_bench.config import DEFAULT_TRACK, load_config
from mia_bench.engine.progress import reporting, terminal_progress
from mia_bench.engine.run import prior_stage, set_up
from mia_bench.engine.stages import fit_prior_stage
from mia_bench_plugins.priors import shipped_priors
from mia_bench_plugins.shipped import write_hash


@click.command()
@click.argument("prior", type=click.Choice(["wgan-gp", "stylegan2"]))
@click.option("--device", default="auto", show_default=True)
@click.option("--store", type=click.Path(path_type=Path), help="Keeps the checkpoint.")
@click.option("--output", type=click.Path(path_type=Path), help="File; none means the shipped one.")
def main(prior: str, device: str, store: Path | None, output: Path | None) -> None:
    """Train PRIOR and write its weights as float16 safetensors."""
    output = output or shipped_priors.FOLDER / shipped_priors.file_name(prior, DEFAULT_TRACK)
    config = load_config({"track": DEFAULT_TRACK, "store": store, "device": device})
    setup = set_up(config)
    stage = prior_stage(setup, prior)
    reporter = terminal_progress()
    setup.make([stage.inputs["data"]], reporter)
    progress = partial(reporter.progress, stage)
    workspace = setup.workspace(progress)
    made = stage.parts["prior"].make()
    with reporting(reporter, 1, 0.0):
        reporter.stage_begins(stage, 0.0)
        state, info = fit_prior_stage(stage, workspace, made.train)
    half = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in state.items()
    }
    metadata = {
        "format": prior,
        "source": stage.inputs["data"].key,
        "options": json.dumps(made.options.model_dump(mode="json")),
        "watched": json.dumps(info["watched"]),
        "torch": torch.__version__,
    }
    save_file(half, output, metadata)
    write_hash(output)
    click.echo(f"wrote {output.name}, {output.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
