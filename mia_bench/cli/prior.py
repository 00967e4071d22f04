"""``mia-bench prior``: train, list and show image priors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from etils.epy import lazy_imports

from mia_bench.api.prior import Prior
from mia_bench.cli.shared import (
    PathType,
    complete_key,
    config_options,
    open_store,
    output_option,
    store_option,
    writing,
)
from mia_bench.components import resolve
from mia_bench.config import load_config
from mia_bench.engine.progress import terminal_progress
from mia_bench.engine.run import prior_stage, set_up
from mia_bench.errors import CorruptArtifact, MiaBenchError, UsageError, did_you_mean
from mia_bench.fetch import obtain
from mia_bench.paths import data_roots
from mia_bench.pictures import save_sheet, sheets_folder
from mia_bench.plugins import host
from mia_bench.recorded_options import options_text
from mia_bench.seeds import generator
from mia_bench.store import ARTIFACTS, Store
from mia_bench.terminal import say, say_lines, table, warn
from mia_bench.track import load_track

with lazy_imports():
    import numpy as np
    import torch
    from torch import Tensor


@click.group("prior")
def command() -> None:
    """Train, list and show image priors, the attackers' models of public images.

    A run makes the priors it needs by itself; here they are made ahead of it.
    """


@command.command()
@click.option("--prior", "name", default="", metavar="NAME", help="Prior; the track's default unless given.")
@config_options("track", "options", "device", "store", "data", "weights")
def train(name: str, **options: Any) -> None:
    """Train a prior, or resume a training that was stopped.

    While it trains, sheets of samples are written and its Fréchet distance to the public images is measured.
    """
    setup = set_up(load_config(options))
    stage = prior_stage(setup, name)
    setup.make([stage], terminal_progress())
    info = setup.store.info(*stage.id)
    say_lines(table([_row(stage.key, info)]))
    for look in info["watched"]:
        say(f"step {look['step']}: {_distance(look)}")
    sheets = sheets_folder(setup.store.root, stage.key)
    if sheets.is_dir():
        say(f"sample sheets: {sheets}")


@command.command("list")
@store_option
def list_(store: Path | None) -> None:
    """List the priors of a store."""
    opened = open_store(store)
    found = []
    for key in _keys(opened):
        try:
            found.append(_row(key, opened.info("prior", key)))
        except CorruptArtifact as error:
            warn([error])
    if found:
        say_lines(table(found))
    else:
        say("no priors yet; 'mia-bench prior train' makes one", err=True)


def _keys(store: Store) -> list[str]:
    return sorted(path.parent.name for path in (store.root / ARTIFACTS / "prior").glob("*/meta.json"))


@command.command()
@click.argument("prior")
@output_option("PNG file.  [default: PRIOR.png]")
@click.option(
    "--count", type=click.IntRange(1, 1024), metavar="N", default=64, show_default=True, help="Samples."
)
@click.option("--seed", type=click.IntRange(0), metavar="N", default=0, show_default=True, help="Their seed.")
@store_option
def show(prior: str, output: Path | None, count: int, seed: int, store: Path | None) -> None:
    """Write a sheet of samples of PRIOR.

    PRIOR is the beginning of its key, as the list shows it.
    """
    opened = open_store(store)
    key = complete_key(prior, _keys(opened), "prior", "mia-bench prior list")
    path = output or Path(f"{key[:8]}.png")
    with writing(path, remake="mia-bench prior train"):
        save_sheet(_samples(opened, key, count, seed), path)
    say(path)


@command.command()
@click.argument("file", type=PathType(exists=True, dir_okay=False))
@click.option(
    "--prior", "name", default="", metavar="NAME", help="Prior that the file is of, if several are."
)
@output_option("Safetensors file.  [default: FILE with the ending .safetensors]")
def convert(file: Path, name: str, output: Path | None) -> None:
    """Convert a published FILE of weights to safetensors.

    Nothing in the file is executed.
    """
    able = [prior for prior in _priors(name) if file.suffix in prior.converts]
    if len(able) != 1:
        count = f"{len(able)} priors convert" if able else "no prior converts"
        among = f"the prior {name!r} does not convert" if name else count
        raise UsageError(f"{among} files that end in {file.suffix!r}")
    target = output or file.with_suffix(".safetensors")
    with writing(target):
        able[0].convert(file, target)
    say(f"{target}, {target.stat().st_size / 2**20:.1f} MiB")


@command.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Download NAME, a published file of weights.

    A download that was stopped is resumed. The file goes into the folder of weights, which is that of
    MIA_BENCH_WEIGHTS, or weights beside that of MIA_BENCH_DATA; without either, into a cache.
    """
    published = {file.name: file for prior in _priors() for file in prior.published}
    if name not in published:
        raise UsageError(f"no prior publishes {name!r}; {did_you_mean(name, published)}")
    with click.progressbar(length=1, label=name, file=sys.stderr) as bar:

        def progress(done: int, total: int, unit: str) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        path = obtain(published[name], data_roots().weights, progress)
    say(path)


def _priors(name: str = "") -> Iterator[type[Prior]]:
    """The priors that can be loaded, or the one of that name: a broken one must not hide the others.

    Raises:
        MiaBenchError: the one that was named can't be loaded.
    """
    for entry in host().registry.entries("prior"):
        try:
            if name in ("", entry.name):
                yield entry.load()
        except MiaBenchError:
            if name:
                raise


def _row(key: str, info: dict[str, Any]) -> dict[str, str]:
    trained_on, looks = info["public_images"], info["watched"]
    return {
        "prior": key[:8],
        "track": info["run"]["track"],
        "name": info["prior"]["name"],
        "options": options_text(info["prior"]["options"]),
        "trained on": "elsewhere" if trained_on is None else f"{trained_on} public images",
        "Fréchet distance": _distance(looks[-1]) if looks else "–",
        "made": info["run"]["finished"][:10],
    }


def _distance(look: dict[str, Any]) -> str:
    if look["frechet_distance"] is None:
        return "– (no public images)"
    return f"{look['frechet_distance']:.4g} ({look['features']})"


def _samples(store: Store, key: str, count: int, seed: int) -> np.ndarray:
    """Draw images of a stored prior, ``(count, 3, H, W)`` uint8."""
    registry, info, state = host().registry, store.info("prior", key), store.tensors("prior", key)
    prior = resolve(registry, "prior", info["prior"]["name"], {}, info["prior"]["options"]).make()
    track = load_track(registry, info["run"]["track"])
    state.pop("trained_on", None)
    model = prior.build(state, resolution=track.data.resolution).eval().requires_grad_(False)
    latents = model.sample(count, generator(seed, "sheet"))
    cpu, batch_size = torch.device("cpu"), track.attack_batch_size
    images: Tensor = model.pictures(latents, device=cpu, batch_size=batch_size)
    return images.numpy()
