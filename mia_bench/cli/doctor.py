"""``mia-bench doctor``."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

import click
from etils.epy import lazy_imports

from mia_bench.api.component import Published
from mia_bench.cli.shared import data_option, store_option
from mia_bench.device import choose_device
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.fetch import check_hash, find
from mia_bench.paths import data_roots, default_store
from mia_bench.plugins import attribute_errors, host
from mia_bench.provenance import git_commit, package_version, platform_name, python_version
from mia_bench.registry import Entry
from mia_bench.store import Store
from mia_bench.terminal import say, say_lines, table
from mia_bench.text import prose
from mia_bench.track import load_track, loadable_tracks
from mia_bench.weights import missing_line, needed_by, weight_files

with lazy_imports():
    import torch

    from mia_bench.testing import gpu as gpu_report

Finding = tuple[Literal["ok", "BROKEN", "note"], str]
"""Whether something works, and the line that says so; a note is worth knowing."""


@click.command("doctor")
@click.option("--gpu", is_flag=True, help="Try and measure a GPU instead, and print a table for an issue.")
@click.option("--device", metavar="DEVICE", help="Device for --gpu.  [default: cuda]")
@click.option("--track", metavar="NAME", help="Track whose networks --gpu measures.")
@store_option
@data_option
def command(gpu: bool, device: str | None, track: str | None, store: Path | None, data: Path | None) -> None:
    """Check the installation, the devices, the plugins, the data and the store.

    With --gpu: run every component on the GPU, compare a small cell with the CPU, and measure the steps of a
    track's networks in each precision. Exit code 1 if something is broken.
    """
    if gpu:
        _examine_gpu(device, track, data)
        return
    if device or track:
        raise UsageError("--device and --track go with --gpu")
    found = [*packages(), *devices(), *plugins(), *places(store, data)]
    for state, line in found:
        say(f"{state:<7}{line}")
    if any(state == "BROKEN" for state, _ in found):
        sys.exit(1)


def _examine_gpu(device: str | None, track: str | None, data: Path | None) -> None:
    """Print the table of a device; without a GPU, what would be in it."""
    if device is None and not torch.cuda.is_available():
        say_lines(gpu_report.PLAN)
        return
    registry = host().registry
    measured = load_track(registry, track) if track else gpu_report.default_track(registry)
    chosen = choose_device(device or "cuda")
    rows = []
    for row in gpu_report.examine_device(chosen, registry, measured, data_roots(data).weights):
        say(f"{row.what}: {row.result}", err=True)
        rows.append(row)
    lines = [(row.what, row.result if row.fine else f"BROKEN: {row.result}") for row in rows]
    say_lines(table([[prose(cell) for cell in line] for line in lines], ["what", "result"], "github"))
    if not all(row.fine for row in rows):
        sys.exit(1)


def packages() -> Iterator[Finding]:
    """Versions of mia-bench, Python and the libraries that results depend on."""
    commit = f", commit {git_commit()}" if git_commit() else ""
    version = package_version("mia-bench")
    yield "ok", f"mia-bench {version}{commit}, Python {python_version()}, {platform_name()}"
    for name in ("torch", "torchvision", "opacus", "facenet-pytorch"):
        found = package_version(name)
        yield ("ok", f"{name} {found}") if found else ("BROKEN", f"{name} is not installed")
    if onnx := package_version("onnxruntime"):
        yield "ok", f"onnxruntime {onnx}"
    else:
        yield "note", "onnxruntime is not installed: pip install 'mia-bench[onnx]' for ONNX encoders"


def devices() -> Iterator[Finding]:
    """What torch can compute on."""
    try:
        import torch  # here, so that a broken installation is reported
    except ImportError as error:
        yield "BROKEN", f"torch can't be imported: {error}"
        return
    yield "ok", f"CPU with {torch.get_num_threads()} threads"
    for index in range(torch.cuda.device_count()):
        yield "ok", f"cuda:{index} {torch.cuda.get_device_name(index)}"
    if not torch.cuda.is_available():
        yield "note", "no CUDA GPU: everything runs on the CPU"


def plugins() -> Iterator[Finding]:
    """Broken and conflicting plugins."""
    loaded = host()
    working = sum(info.status == "ok" for info in loaded.plugins)
    yield "ok", f"{working} of {len(loaded.plugins)} plugins work"
    for line in loaded.problems():
        yield "BROKEN", line
    for line in loaded.remarks:
        yield "note", line


def places(store: Path | None, data: Path | None) -> Iterator[Finding]:
    """The store, the data root, the data sets and the weight files."""
    try:
        opened = Store(store or default_store())
        opened.check_writable()
        yield "ok", f"store {opened.root}: {len(opened.records())} records"
    except MiaBenchError as error:
        yield "BROKEN", str(error)
    try:
        roots = data_roots(data)
    except MiaBenchError as error:
        yield "BROKEN", str(error)
        return
    if roots.data is None:
        yield "note", "no data root: tracks with photographs need --data or MIA_BENCH_DATA"
    for entry in host().registry.entries("dataset"):
        yield from _files(entry, roots.data)
    yield from _weights(roots.weights)


def _weights(folder: Path | None) -> Iterator[Finding]:
    """The weight files that tracks and encoders need, each once, and whether other encoders can be used."""
    registry = host().registry
    files = weight_files(needed_by(registry, loadable_tracks(registry)))
    yield from (_weight_file(file, users, folder) for file, users in files.items())
    missing = {file.name for file in files if find(file.name, folder) is None}
    for entry in registry.entries("encoder"):
        yield from _files(entry, folder, named=missing)


def _weight_file(file: Published, users: list[str], folder: Path | None) -> Finding:
    """Whether a weight file is there and whole."""
    path = find(file.name, folder)
    if path is None:
        return "note", missing_line(file, users, folder)
    try:
        check_hash(path, file)
    except MiaBenchError as error:
        return "BROKEN", str(error)
    return "ok", f"weight file {file.name}: found"


def _files(entry: Entry, root: Path | None, named: Collection[str] = ()) -> Iterator[Finding]:
    """Whether the files of a data set or an encoder are there.

    Nothing of one that needs none, or a weight file that was ``named``.
    """
    what = f"{'data set' if entry.kind == 'dataset' else entry.kind} {entry.name}"
    try:
        with attribute_errors(entry.owner):
            component = entry.load()()
            if any(file.name in named for file in component.weight_files()):
                return
            needed = entry.kind == "encoder" or (root is not None and component.needs_root)
    except MiaBenchError as error:
        yield "BROKEN", str(error)
        return
    if not needed:
        return
    try:
        with attribute_errors(entry.owner):
            fingerprint = component.fingerprint(root)
    except MiaBenchError as error:
        yield "note", f"{what}: {str(error).removeprefix(f'{entry.name}: ')}"
    else:
        yield "ok", f"{what}: found" + (f", fingerprint {fingerprint}" if fingerprint else "")
