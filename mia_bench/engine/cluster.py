"""The Ray executor: stages are tasks of a Ray cluster, one on this machine or one given by its address.

Where the nodes see the store's folder, tasks read and write it. Elsewhere artifacts travel through Ray's
object store: a node keeps those that it needs in a store of its own, and what it computes comes back to the
driver's.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from etils.epy import lazy_imports

from mia_bench.engine.executor import Outcome
from mia_bench.engine.jobs import usable_cores
from mia_bench.engine.plan import Stage
from mia_bench.engine.progress import ProgressDisplay
from mia_bench.engine.relay import Message, Sender, sending_warnings, show
from mia_bench.engine.worker import StageFailed, Worker, WorkerSetup, failure
from mia_bench.errors import CorruptArtifact, MiaBenchError, StoreError, UsageError
from mia_bench.interruption import held_back, interrupted
from mia_bench.plugins import host
from mia_bench.provenance import HOST, git_commit, package_version, python_version
from mia_bench.store import Store
from mia_bench.text import one_line, shortened

with lazy_imports():
    import ray
    from ray.util import scheduling_strategies as strategies

ATTEMPTS = 4
"""How often a stage is begun whose node is lost, or whose process dies, before it has failed."""

ANSWER_SECONDS = 10.0
"""How long an address may take to answer."""

VISIBLE_SECONDS = 60.0
"""How long it may take until a node sees in a shared folder what another one wrote."""

_OWN_CLUSTER = {"include_dashboard": False, "object_store_memory": 10**8}
"""How a cluster is started on this machine; artifacts are read from the store."""

_LOOK = 0.5
"""Seconds between two looks for messages."""

_NODES = 5.0
"""Seconds between two looks for nodes that joined or left."""


@dataclass(frozen=True)
class Needs:
    """What a stage takes of a cluster.

    Attributes:
        cores: of a node; None: all of them.
        gpus: a share of one, where the cluster has any.
    """

    cores: int | None = 1
    gpus: float = 1.0


class RayExecutor:
    """Computes stages as tasks of Ray, as many at once as the cluster has room for.

    A stage whose node is lost is begun on another.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        display: ProgressDisplay,
        *,
        address: str | None,
        needs: Needs,
        most: int | None = None,
        time_limit: float | None = None,
        todo: Collection[Stage] = (),
    ) -> None:
        """Connect to the cluster, or start one on this machine.

        Args:
            setup: store, device and roots.
            display: shows the progress.
            address: ``HOST:PORT`` of a cluster, or ``auto`` for the one of this machine; None: start one.
            needs: of each stage.
            most: the largest number of stages at once.
            time_limit: seconds after which a stage fails.
            todo: what is to be computed.

        Raises:
            UsageError: Ray is not installed, nobody answers, or a node can't compute the stages.
        """
        self._display, self._store, self._most, self._limit = display, setup.store, most, time_limit
        self._tasks: dict[Any, _Task] = {}
        self._numbers = itertools.count()
        self._room, self._looked, self._had_room = 0, -math.inf, time.monotonic()
        self._carried: dict[tuple[str, str], Any] = {}
        self._run = ""
        started = _connect(address)
        try:
            self._on_gpus = setup.device != "cpu" and any(_count(n, "GPU") for n in _nodes())
            self._needs = self._fitting(needs, setup.device)
            self._shared = started or self._check_nodes(setup, todo)
            self._run = "" if self._shared else f"mia-bench-{uuid.uuid4().hex}"
            here = strategies.NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            )
            lasting = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
            self._mailbox = lasting(_Mailbox).remote()
            self._given = ray.put((setup, self._run, self._mailbox, node_report(setup.store.root, None)))
            self._compute = ray.remote(
                num_cpus=self._needs.cores,
                num_gpus=self._needs.gpus if self._on_gpus else 0,
                max_retries=ATTEMPTS - 1,
            )(_compute)
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        """As many stages as the nodes have room for that are there now."""
        if time.monotonic() - self._looked > _NODES:
            self._looked = time.monotonic()
            self._room = sum(map(self._room_of, _nodes()))
        return max(1, min(self._room, self._most or self._room))

    @property
    def running(self) -> list[Stage]:
        """The stages that were given to Ray."""
        return [task.stage for task in self._tasks.values()]

    def begin(self, stage: Stage, *, renew: bool, seconds: float) -> None:
        """Give a stage to Ray."""
        inputs = None if self._shared else self._carry_inputs(stage)
        number = next(self._numbers)
        try:
            ref = self._compute.remote(self._given, number, stage, renew, seconds, inputs)
        except TypeError as error:
            reason = shortened(one_line(str(error)), 200)
            raise UsageError(f"--executor ray: {stage.label} can't be sent to a node: {reason}") from error
        self._tasks[ref] = _Task(stage, number)

    def wait(self) -> Outcome:
        """Show what the tasks tell until one is done."""
        while True:
            if interrupted():  # the KeyboardInterrupt was lost, in a __del__ say
                raise KeyboardInterrupt
            ready, _ = ray.wait(list(self._tasks), timeout=_LOOK)
            self._relay()
            if ready:
                return self._finish(ready[0])
            self._require_room()
            for ref, task in list(self._tasks.items()):
                if self._limit and task.began and time.monotonic() - task.began > self._limit:
                    ray.cancel(ref, force=True)
                    return self._fail(ref, f"it took longer than the time limit of {self._limit:g} s")

    def close(self) -> None:
        """Cancel what is running; end the cluster if it was started here."""
        with contextlib.suppress(Exception):  # whatever became of the cluster, the run is over
            for ref in self._tasks:
                ray.cancel(ref, force=True)
            if self._run:
                cleared = [_on_node(node, _clear).remote(self._run) for node in _nodes()]
                ray.wait(cleared, num_returns=len(cleared), timeout=ANSWER_SECONDS)
        self._tasks.clear()
        # The run is over; what is being raised, Interrupted perhaps, must stay.
        with contextlib.suppress(KeyboardInterrupt), held_back():
            ray.shutdown()

    # --- nodes -------------------------------------------------------------------------------

    def _require_room(self) -> None:
        """Give up where for long no node is there that can take a stage.

        Raises:
            MiaBenchError: there is none.
        """
        if time.monotonic() - self._looked > _NODES:
            _ = self.slots
            if self._room:
                self._had_room = time.monotonic()
            elif time.monotonic() - self._had_room > VISIBLE_SECONDS:
                raise MiaBenchError("no node is left in the Ray cluster that can take a stage")

    def _fitting(self, needs: Needs, device: str) -> Needs:
        """The needs as numbers that some node can meet.

        Raises:
            UsageError: none can.
        """
        nodes = _nodes()
        if not self._on_gpus and device not in ("auto", "cpu"):
            raise UsageError(f"--device {device}: no node of the Ray cluster has a GPU")
        most = max((int(_count(node, "CPU")) for node in nodes), default=0)
        if needs.cores is None:
            needs = replace(needs, cores=1 if self._on_gpus else max(1, most))
        self._needs = needs
        if not any(map(self._room_of, nodes)):
            gpus = f" and {needs.gpus:g} GPUs" if self._on_gpus else ""
            raise UsageError(
                f"a stage of this track takes {needs.cores} cores{gpus}; no node of the Ray cluster has them"
            )
        return needs

    def _room_of(self, node: dict[str, Any]) -> int:
        room = _count(node, "CPU") // (self._needs.cores or 1)
        if self._on_gpus:
            room = min(room, int(_count(node, "GPU")) * int(1 / self._needs.gpus))
        return int(room)

    def _check_nodes(self, setup: WorkerSetup, todo: Collection[Stage]) -> bool:
        """Whether all nodes see the store's folder.

        Raises:
            UsageError: one has no mia-bench, or another one, or lacks the data.
        """
        reads = any(s.name == "data" and s.parts["dataset"].component.needs_root for s in todo)
        data = setup.roots.data if reads else None
        with _token(setup.store.root) as token:
            here = node_report(token, data)
            nodes = [node for node in _nodes() if self._room_of(node)]
            asked = {_on_node(node, _reporter()).remote(token, data): node for node in nodes}
            answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=6 * ANSWER_SECONDS)
            found = {asked[ref]["NodeManagerAddress"]: _answer(ref) for ref in answered}
        for ref in silent:
            found[asked[ref]["NodeManagerAddress"]] = NodeReport(missing="it does not answer")
        for name, report in found.items():
            if reason := here.differs(report):
                raise UsageError(f"node {name} of the Ray cluster: {reason}")
        return all(report.sees_store for report in found.values())

    def _carry_inputs(self, stage: Stage) -> list[tuple[tuple[str, str], Any]]:
        """Objects with what is stored of a stage's upstream; a node makes again what is missing."""
        carried: dict[tuple[str, str], Any] = {}
        for needed in {one.id for one in stage.upstream() if one is not stage}:
            try:
                if needed not in self._carried and self._store.has(*needed):
                    self._carried[needed] = ray.put(self._store.packed(*needed))
            except CorruptArtifact as error:
                self._store.set_aside(error)
            if needed in self._carried:
                carried[needed] = self._carried[needed]
        return list(carried.items())

    # --- what tasks tell ---------------------------------------------------------------------

    def _relay(self) -> None:
        """Show what tasks have told."""
        tasks = {task.number: task for task in self._tasks.values()}
        try:
            messages = ray.get(self._mailbox.take.remote())
        except ray.exceptions.RayError:  # its process died; another takes its place
            return
        for number, attempt, message in messages:
            task = tasks.get(number)
            if task is None or message[0] == "say":
                if message[0] == "say":
                    show(self._display, None, message)
                continue
            if message[0] == "begins":
                if task.attempt:
                    self._display.stage_fails(task.stage)
                    self._display.say(f"a node or process was lost; begun again: {task.stage.label}")
                task.attempt, task.began = attempt, time.monotonic()
            if task.attempt == attempt:
                task.ended |= message[0] == "ends"
                show(self._display, task.stage, message)

    def _finish(self, ref: Any) -> Outcome:
        """What became of a task."""
        try:
            kind, value, began, artifact = ray.get(ref)
        except ray.exceptions.RayError as error:
            reason = shortened(one_line(str(error)), 200)
            return self._fail(ref, f"Ray gave it up after {ATTEMPTS} attempts, or sooner: {reason}")
        task = self._tasks.pop(ref)
        if kind == "stopped":
            raise value
        if kind == "failed":
            if task.attempt:
                self._display.stage_fails(task.stage)
            return Outcome(task.stage, value)
        if artifact is not None:
            self._store.adopt(*task.stage.id, *artifact)
        _await(self._store, [task.stage])
        if began and not task.attempt:  # its messages are still under way
            self._display.stage_begins(task.stage, value)
        if began and not task.ended:
            self._display.stage_ends(task.stage, value)
        return Outcome(task.stage)

    def _fail(self, ref: Any, reason: str) -> Outcome:
        task = self._tasks.pop(ref)
        if task.attempt:
            self._display.stage_fails(task.stage)
        return Outcome(task.stage, failure(task.stage, MiaBenchError(reason)))


@dataclass
class _Task:
    """A stage that was given to Ray.

    Attributes:
        number: its messages carry it.
        attempt: the one that told of itself last.
        began: when that began to compute.
        ended: whether the display knows that it did.
    """

    stage: Stage
    number: int
    attempt: str = ""
    began: float = 0.0
    ended: bool = False


def _connect(address: str | None) -> bool:
    """Connect to the cluster; whether it was started here, because no address was given.

    Raises:
        UsageError: Ray is not installed, nobody answers, or the cluster's versions differ.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning
    os.environ.setdefault("RAY_worker_niceness", "0")  # else processes of a cluster started here have 15
    try:
        _ = ray.__version__
    except ImportError as error:
        raise UsageError("--executor ray needs Ray: pip install 'mia-bench[ray]'") from error
    if address is not None:
        _require_answer(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    quiet = {"logging_level": "error", "log_to_driver": False, "configure_logging": True}
    started = {} if address else _OWN_CLUSTER | {"num_cpus": usable_cores()}
    try:
        ray.init(address=address or "local", namespace=f"mia-bench-{uuid.uuid4().hex}", **quiet, **started)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = shortened(one_line(str(error)), 200)
        where = f"--address {address}" if address else "--executor ray"
        raise UsageError(f"{where}: no Ray cluster to be used: {reason}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # Ray replaces them
                signal.signal(number, handler)
    return address is None


def _require_answer(address: str) -> None:
    """Find out soon that nobody listens; Ray tries for long.

    Raises:
        UsageError: nobody does.
    """
    if address == "auto":
        return
    name, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        if not port.isdigit():
            raise UsageError(f"--address {address} is not HOST:PORT, nor auto")
        socket.create_connection((name.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--address {address}: nobody answers ({getattr(error, 'strerror', None) or error}); start the "
            "head node with: ray start --head"
        ) from error


def _nodes() -> list[dict[str, Any]]:
    """The nodes that are there."""
    return [node for node in ray.nodes() if node["Alive"]]


def _count(node: dict[str, Any], resource: str) -> float:
    return float(node["Resources"].get(resource, 0))


def _on_node(node: dict[str, Any], function: Callable[..., Any]) -> Any:
    """A function that Ray calls on that node."""
    there = strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(function)


@contextlib.contextmanager
def _token(folder: Path) -> Iterator[Path]:
    """A file in the folder, by which nodes tell whether they see it."""
    token = folder / f".tmp-{uuid.uuid4().hex}"
    token.write_text("seen by this node?\n")
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


@dataclass(frozen=True)
class NodeReport:
    """What a node says of itself.

    Attributes:
        missing: why it can't be used at all.
        versions: of what results depend on.
        plugins: those that work, with versions.
        sees_store: whether it sees the store's folder.
        sees_data: whether it has the data root, if that is needed.
    """

    missing: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    plugins: frozenset[str] = frozenset()
    sees_store: bool = False
    sees_data: bool = True

    def differs(self, node: NodeReport) -> str:
        """Why a node can't compute for this one; empty if it can."""
        if node.missing:
            return node.missing
        ours = dict(self.versions)
        for name, version in node.versions:
            if version != ours.get(name, version):
                return f"it has {name} {version}, this machine {ours[name]}: results would differ"
        if lacking := sorted(self.plugins - node.plugins):
            return f"it lacks plugin {lacking[0]}" + (f" and {len(lacking) - 1} more" * (len(lacking) > 1))
        return "" if node.sees_data else "it has no data root in the same place; mount it there"


def node_report(token: Path, data: Path | None) -> NodeReport:
    """What the node that this is called on says of itself."""
    versions = {
        HOST: f"{package_version(HOST)} ({git_commit() or 'no checkout'})",
        "torch": str(package_version("torch")),
        "Python": python_version(),
    }
    plugins = frozenset(f"{p.id} {p.version}" for p in host().plugins if p.status == "ok")
    return NodeReport("", tuple(versions.items()), plugins, token.exists(), data is None or data.is_dir())


def _reporter() -> Callable[[Path, Path | None], Any]:
    """:func:`node_report` as a function that Ray can call where mia-bench is not installed."""

    def report(token: Path, data: Path | None) -> Any:
        try:
            # Imported there: this function travels as it is, without its module.
            from dataclasses import asdict  # there

            from mia_bench.engine.cluster import node_report  # there
        except ImportError as error:
            return f"{error}; install mia-bench there"
        return asdict(node_report(token, data))

    return report


def _answer(ref: Any) -> NodeReport:
    try:
        found = ray.get(ref)
    except ray.exceptions.RayError as error:
        return NodeReport(missing=shortened(one_line(str(error)), 200))
    return NodeReport(missing=found) if isinstance(found, str) else NodeReport(**found)


# --- on the nodes --------------------------------------------------------------------------------


class _Mailbox:
    """Keeps what tasks tell until the driver takes it."""

    def __init__(self) -> None:
        self._messages: deque[tuple[int, str, Message]] = deque()

    def put(self, number: int, attempt: str, message: Message) -> None:
        """Keep a message."""
        self._messages.append((number, attempt, message))

    def take(self) -> list[tuple[int, str, Message]]:
        """All messages since the last call."""
        taken = list(self._messages)
        self._messages.clear()
        return taken


_workers: dict[Path, Worker] = {}
"""That of this process, by the store's folder: it keeps loaded inputs from one stage to the next."""


def _compute(
    given: tuple[WorkerSetup, str, Any, NodeReport],
    number: int,
    stage: Stage,
    renew: bool,
    seconds: float,
    inputs: Sequence[tuple[tuple[str, str], Any]] | None,
) -> tuple[str, Any, bool, Any]:
    """Compute a stage in a process of a node.

    Args:
        given: what all tasks of the run get: the setup, a name for a store of the node's own, the mailbox,
            and what the driver says of itself.
        number: of the task.
        stage, renew, seconds: as of :meth:`RayExecutor.begin`.
        inputs: objects with the artifacts that it needs; None where the store is shared.

    Returns:
        ``done`` and the seconds it took, ``failed`` and the reason, or ``stopped`` and an error; whether it
        was computed; its artifact where the store is not shared.
    """
    setup, run, mailbox, driver = given
    if differs := driver.differs(node_report(setup.store.root, None)):  # of a node that joined later
        return "stopped", UsageError(f"a node of the Ray cluster: {differs}"), False, None
    attempt, told = uuid.uuid4().hex, []

    def deliver(message: Message) -> None:
        told.append(message[0])
        mailbox.put.remote(number, attempt, message)

    sender = Sender(deliver, stage)
    store = setup.store if inputs is None else Store(_own_folder(run))
    began, artifact = time.monotonic(), None
    try:
        with sending_warnings(sender):
            if inputs is None:
                _await(store, stage.inputs.values())
            else:
                for found, ref in inputs:
                    with store.lock(*found, lambda: None):  # another task of this node may need it, too
                        if not store.has(*found):
                            store.adopt(*found, *ray.get(ref))
            worker = _workers.setdefault(store.root, Worker(replace(setup, store=store), sender))
            worker.show_on(sender)
            worker.compute(stage, renew=renew, seconds=seconds)
        if inputs is not None:
            artifact = store.packed(*stage.id)
    except StageFailed as failed:
        return "failed", failed.reason, "begins" in told, None
    except (StoreError, UsageError) as error:
        return "stopped", error, "begins" in told, None
    return "done", time.monotonic() - began, "begins" in told, artifact


def _await(store: Store, stages: Collection[Stage]) -> None:
    """Wait until artifacts can be seen, which another node may have written a moment ago."""
    end = time.monotonic() + VISIBLE_SECONDS
    while not all(store.has(*stage.id) for stage in stages) and time.monotonic() < end:
        time.sleep(_LOOK)


def _own_folder(run: str) -> Path:
    """The store that a node keeps for a run."""
    return Path(tempfile.gettempdir()) / run


def _clear(run: str) -> None:
    """Remove a node's own store."""
    shutil.rmtree(_own_folder(run), ignore_errors=True)
