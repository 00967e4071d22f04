"""The Ray executor, on clusters that are started here: the same records, whatever becomes of the nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from installing import on_path
from mia_bench.config import RunConfig
from mia_bench.engine import cluster as cluster_module
from mia_bench.engine.carried import Carried
from mia_bench.engine.cluster import Attempt, Needs, RayExecutor
from mia_bench.engine.progress import ProgressDisplay
from mia_bench.engine.run import execute, prepare
from mia_bench.engine.worker import WorkerSetup
from mia_bench.errors import UsageError
from mia_bench.paths import Roots
from mia_bench.record import Record
from mia_bench.store import Store
from mia_bench.track import Track

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


@pytest.fixture(scope="module")
def cluster(toy_site: Path) -> Iterator[Any]:
    """A cluster of three nodes with one core each, for all tests here; the driver is on the first."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        on_path(patch, toy_site)
        patch.setenv("RAY_worker_niceness", "0")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        for _ in range(2):
            made.add_node(num_cpus=1)
        made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.fixture
def nodes(toy, cluster: Any) -> Iterator[Any]:
    """The cluster of all tests; a node that a test takes away is put back."""
    count = len(cluster.list_all_nodes())
    yield cluster
    ray.shutdown()
    for _ in range(count - len(cluster.list_all_nodes())):
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()


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


@pytest.mark.thorough
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


@pytest.mark.thorough
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


# --- how much at once ----------------------------------------------------------------------------


def node(cores: int, gpus: float = 0) -> dict[str, object]:
    return {"Resources": {"CPU": cores, "GPU": gpus}}


@pytest.mark.parametrize(
    ("needs", "device", "nodes", "expected"),
    [
        (Needs(2), "auto", [node(5), node(1), node(4)], 4),
        (Needs(None), "cpu", [node(4), node(4, 2)], 2),  # all cores of a node
        (Needs(1, 0.5), "auto", [node(16, 2), node(16)], 4),  # only where there is a GPU
        (Needs(4, 0.3), "cuda", [node(8, 4)], 2),  # the cores are few
    ],
)
def test_nodes_have_room_for_stages(needs: Needs, device: str, nodes, expected: int) -> None:
    assert needs.on(nodes, device).room(nodes) == expected


@pytest.mark.parametrize(
    ("needs", "device", "message"),
    [
        (Needs(8), "auto", "takes 8 cores; no node of the Ray cluster has them"),
        (Needs(1), "cuda", "--device cuda: no node of the Ray cluster has a GPU"),
    ],
)
def test_needs_that_no_node_can_meet(needs: Needs, device: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        needs.on([node(4)], device)


def test_a_dry_run_counts_on_what_ray_would_have_here(cli, toy, monkeypatch) -> None:
    monkeypatch.setattr(cluster_module, "usable_cores", lambda: 6)
    validate = Track.model_validate
    monkeypatch.setattr(Track, "model_validate", lambda found: validate({**found, "threads": 2}))
    arguments = ("run", "--track", "toy", "--device", "cpu", "--dry-run", "--executor", "ray")
    assert ", 3 at once; store " in cli(*arguments).out
    assert ", 2 at once; store " in cli(*arguments, "--jobs", 2).out
    assert not ray.is_initialized()
    nobody = cli(*arguments, "--address", "127.0.0.1:1")
    assert (nobody.code, "nobody answers" in nobody.err) == (2, True)


def test_the_machine_that_runs_it_needs_no_gpu(toy, tmp_path: Path) -> None:
    workspace = prepare(on_ray(tmp_path, device="cuda")).setup.workspace()
    assert workspace.device.type in ("cuda", "cpu")


@pytest.mark.slow
def test_a_dry_run_asks_the_cluster(cli, nodes) -> None:
    asked = cli("run", "--track", "toy", "--dry-run", "--executor", "ray", "--address", nodes.address)
    assert ", 3 at once; store " in asked.out
    assert not ray.is_initialized()


# --- what becomes of stages ----------------------------------------------------------------------


def test_artifacts_are_carried_as_long_as_a_stage_is_left_that_reads_them(toy, undisturbed) -> None:
    class Object:
        pass

    config = RunConfig(track="toy", defense=["none", "neg-ls"], attack=["ppa"], store=undisturbed.store)
    todo, _ = prepare(config.model_copy(update={"rerun": "always"})).pending
    alive: weakref.WeakSet[Object] = weakref.WeakSet()

    def put(packed: object) -> Object:
        alive.add(made := Object())
        return made

    carried = Carried(Store(undisturbed.store), put, todo)
    targets = [stage for stage in todo if stage.name == "train"]
    first, second = ([stage for stage in todo if target in stage.upstream()] for target in targets)
    given = carried.for_stage(first[0])
    assert [one for one, _ in given] == [first[0].inputs["data"].id]
    assert carried.for_stage(second[0]) == given  # put once
    del given
    for stage in first:
        carried.for_stage(stage)
        carried.settled(stage, failed=False)
    left = carried.for_stage(second[-1])
    assert len(alive) == len(left)  # nothing that the first alone read
    del left
    carried.settled(second[0], failed=True)  # and so do all that need it
    assert not alive


def test_the_time_limit_counts_computing_alone(monkeypatch) -> None:
    """A process that is gone computes nothing, nor does a node: the wait to be begun again is not counted."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    def unreachable() -> bool:
        raise ray.exceptions.TaskUnschedulableError("the node is gone")

    def on_node(name: str, function) -> SimpleNamespace:
        return SimpleNamespace(
            remote=lambda process: partial(function, process) if name == "there" else unreachable
        )

    monkeypatch.setattr(cluster_module, "_on_node", on_node)
    monkeypatch.setattr(ray, "wait", lambda refs, timeout: (refs, []))
    monkeypatch.setattr(ray, "get", lambda ref: ref())
    executor = object.__new__(RayExecutor)
    executor._limit = 5.0

    def is_overdue(name: str, process: int, seconds: float) -> bool:
        attempt = Attempt(name, process, "first")
        task = cluster_module._Task(None, 0, attempt, time.monotonic() - seconds)
        found = executor._is_overdue(task)
        assert executor._is_overdue(task) is found
        return found

    assert is_overdue("there", os.getpid(), 6)
    assert not is_overdue("there", os.getpid(), 4)
    assert not is_overdue("there", ended.pid, 6)
    assert not is_overdue("elsewhere", os.getpid(), 6)
    assert not executor._is_overdue(cluster_module._Task(None, 0))  # it waits


def test_a_process_that_is_told_to_end_does(monkeypatch, tmp_path: Path) -> None:
    """Ray's handler raises SystemExit, which would be the stage's failure."""
    handlers = []

    class Idle(SimpleNamespace):
        def show_on(self, sender) -> None:
            pass

        def compute(self, stage, **_) -> None:
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=str))
        monkeypatch.setattr(cluster_module, "Worker", lambda setup, sender: Idle())
        here = cluster_module.node_report(tmp_path, None)
        given = (WorkerSetup(Store(tmp_path), "cpu", Roots()), "", None, here)
        stage = SimpleNamespace(inputs={})
        assert cluster_module._compute(given, 0, stage, renew=False, seconds=1.0, inputs=None)[0] == "done"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert handlers == [signal.SIG_DFL]


@pytest.mark.slow
@pytest.mark.parametrize(
    "when", ["while Ray starts", pytest.param("after its end", marks=pytest.mark.thorough)]
)
def test_a_signal_interrupts_also_where_ray_has_set_its_handler(when: str) -> None:
    code = """
        import os, signal, sys
        import ray
        from mia_bench.engine import cluster
        from mia_bench.interruption import interruptible

        def start(*arguments, **options):
            started(*arguments, **options)
            os.kill(os.getpid(), signal.SIGTERM)

        started = ray.init
        try:
            with interruptible():
                if sys.argv[1] == "while Ray starts":
                    ray.init = start
                cluster._connect(None)
                cluster._disconnect()
                os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            print("interrupted")
    """
    command = [sys.executable, "-c", textwrap.dedent(code), when]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_why_ray_gives_no_result_is_said_in_words() -> None:
    lost = cluster_module._given_up(ray.exceptions.WorkerCrashedError())
    assert lost.startswith("its process died, or its node was lost, 4 times")
    raised = ray.exceptions.RayTaskError("f", "Traceback\n  File", ImportError("no module"))
    assert cluster_module._given_up(raised) == "Ray gave it up: ImportError: no module"
    other = cluster_module._given_up(ray.exceptions.RaySystemError("out of\norder"))
    assert other.startswith("Ray gave it up: ")
    assert "\n" not in other
