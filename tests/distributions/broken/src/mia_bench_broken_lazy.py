"""Registers well-formed names behind which nothing is."""

from pathlib import Path

from mia_bench import hookimpl


@hookimpl
def mia_bench_register_metrics(register):
    register("lazy-metric", "mia_bench_broken_nowhere:Metric", summary="its module is missing")


@hookimpl
def mia_bench_register_datasets(register):
    register("lazy-dataset", "mia_bench_broken_nowhere:Dataset", summary="its module is missing")


@hookimpl
def mia_bench_register_encoders(register):
    register("lazy-encoder", "pathlib:Path", summary="it is no encoder")


@hookimpl
def mia_bench_register_tracks(register):
    register("lazy-track", Path(__file__))
