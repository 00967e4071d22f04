"""The Ray executor, on clusters that are started here: the same records, whatever becomes of the nodes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mia_bench.config import RunConfig
from mia_bench.engine import cluster as cluster_module
from mia_bench.engine.progress import ProgressDisplay
from mia_bench.engine.run import execute, prepare
from mia_bench.errors import UsageError
from mia_bench.record import Record

ray = pytest.importorskip("ray", reason="Ray is not installed")

GRID = {"track": "toy", "defense": ["none", "pos-ls"], "attack": ["ppa", "prior-sample"], "device": "cpu"}


@pytest.fixture
def local(toy, tmp_path: Path) -> list[Record]:
    """The grid's records, computed in this process."""
    return execute(prepare(RunConfig(**GRID, jobs=1, store=tmp_path / "local")))


@pytest.fixture(autouse=True)
def no_nicer_than_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine Ray's workers would else hardly compute."""
    monkeypatch.setenv("RAY_worker_niceness", "0")


@pytest.fixture
def nodes(toy) -> Iterator[object]:
    """A cluster of three nodes with one core each; the driver is on the first."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(2):
            made.add_node(num_cpus=1)
        made.wait_for_nodes()
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def on_ray(folder: Path, **more) -> RunConfig:
    return RunConfig(**{**GRID, **more}, executor="ray", store=folder)


def assert_same(found: list[Record], expected: list[Record]) -> None:
    assert [record.key for record in found] == [record.key for record in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.status, one.reason) == (other.status, other.reason)
        assert one.metrics == other.metrics
        assert one.per_class == other.per_class
        assert one.notes == other.notes


class Told(ProgressDisplay):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.lines: list[str] = []

    def stage_begins(self, stage, seconds: float) -> None:
        self.begun.append(stage.label)

    def stage_ends(self, stage, seconds: float) -> None:
        self.ended.append(stage.label)

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.slow
def test_a_cluster_of_its_own(local: list[Record], tmp_path: Path) -> None:
    told, prepared = Told(), prepare(on_ray(tmp_path / "ray"))
    stages = len(prepared.pending[0])
    assert_same(execute(prepared, told), local)
    assert not ray.is_initialized()
    assert len(told.begun) == len(told.ended) == stages
    assert not told.lines


@pytest.mark.slow
def test_a_node_is_lost(local: list[Record], nodes, tmp_path: Path) -> None:
    told = Told()

    def lose_a_node() -> None:
        while len(told.ended) < 2:
            time.sleep(0.05)
        nodes.remove_node(nodes.list_all_nodes()[1], allow_graceful=False)

    losing = threading.Thread(target=lose_a_node)
    losing.start()
    found = execute(prepare(on_ray(tmp_path / "ray", address=nodes.address)), told)
    losing.join()
    assert_same(found, local)
    assert len(nodes.list_all_nodes()) == 2


@pytest.mark.slow
def test_a_store_that_is_not_shared(local: list[Record], nodes, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(cluster_module, "_token", lambda folder: _Nowhere())
    found = execute(prepare(on_ray(tmp_path / "ray", address=nodes.address)))
    assert_same(found, local)
    assert not list(Path(cluster_module.tempfile.gettempdir()).glob("mia-bench-*/artifacts"))


class _Nowhere:
    def __enter__(self) -> Path:
        return Path("/nowhere/token")

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"versions": (("mia-bench", "0.0.1"),)}, "it has mia-bench"),
        ({"plugins": frozenset({"other:plugin 1"})}, "it lacks plugin other:plugin 1"),
    ],
)
def test_nodes_that_differ_are_named(nodes, tmp_path: Path, monkeypatch, changed, message: str) -> None:
    here = cluster_module.node_report(tmp_path, None)
    differing = cluster_module.NodeReport(**{**vars(here), **changed})
    monkeypatch.setattr(cluster_module, "node_report", lambda token, data: differing)
    with pytest.raises(UsageError, match=rf"node 1[0-9.]+ of the Ray cluster: .*{message}"):
        execute(prepare(on_ray(tmp_path / "ray", address=nodes.address)))
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"address": "127.0.0.1:1"}, "--address 127.0.0.1:1: nobody answers"),
        ({"address": "somewhere"}, "--address somewhere is not HOST:PORT, nor auto"),
    ],
)
def test_an_address_where_nobody_answers(toy, tmp_path: Path, given, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(UsageError, match=message):
        execute(prepare(on_ray(tmp_path / "ray", **given)))
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"executor": "local", "address": "auto"}, "address is for executor ray"),
        ({"executor": "local", "gpus_per_stage": 0.5}, "gpus_per_stage is for executor ray"),
        ({"executor": "ray", "gpus_per_stage": 2}, "less than or equal to 1"),
        ({"executor": "dask"}, "Input should be 'local' or 'ray'"),
    ],
)
def test_wrong_configurations(given, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunConfig(**given)
