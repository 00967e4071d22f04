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
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from etils.epy import lazy_imports

from mia_bench.engine.carried import Carried
from mia_bench.engine.executor import Outcome
from mia_bench.engine.guard import POSIX
from mia_bench.engine.jobs import cuda_count, usable_cores
from mia_bench.engine.plan import Stage
from mia_bench.engine.progress import ProgressDisplay
from mia_bench.engine.relay import Message, Sender, sending_warnings, show
from mia_bench.engine.worker import StageFailed, Worker, WorkerSetup, failure
from mia_bench.errors import MiaBenchError, StoreError, UsageError, summarize_error
from mia_bench.interruption import held_back, interrupt, interrupted
from mia_bench.plugins import host
from mia_bench.provenance import HOST, git_commit, package_version, python_version
from mia_bench.store import TEMPORARY, Store
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

Node: TypeAlias = dict[str, Any]
"""What Ray says of a node."""

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
        gpus: a share of one; 0 where none is used.
    """

    cores: int | None = 1
    gpus: float = 1.0

    def on(self, nodes: Collection[Node], device: str) -> Needs:
        """The needs as numbers that some node can meet; ``device`` as of a run.

        Raises:
            UsageError: none can.
        """
        on_gpus = device != "cpu" and any(_count(node, "GPU") for node in nodes)
        if not on_gpus and device not in ("auto", "cpu"):
            raise UsageError(f"--device {device}: no node of the Ray cluster has a GPU")
        most = max((int(_count(node, "CPU")) for node in nodes), default=0)
        cores = self.cores or (1 if on_gpus else max(1, most))
        needs = Needs(cores, self.gpus if on_gpus else 0.0)
        if not needs.room(nodes):
            gpus = f" and {needs.gpus:g} GPUs" if on_gpus else ""
            raise UsageError(
                f"a stage of this track takes {cores} cores{gpus}; no node of the Ray cluster has them"
            )
        return needs

    def room(self, nodes: Iterable[Node]) -> int:
        """How many stages the nodes have room for, of needs that are numbers."""
        return sum(map(self._room_of, nodes))

    def _room_of(self, node: Node) -> int:
        room = _count(node, "CPU") // (self.cores or 1)
        if self.gpus:
            room = min(room, int(_count(node, "GPU")) * int(1 / self.gpus))
        return int(room)


def room(address: str | None, needs: Needs, device: str, most: int | None = None) -> int:
    """How many stages at once a :class:`RayExecutor` with these arguments would compute.

    A cluster is asked. One that would be started is not: it has what this machine has.

    Raises:
        UsageError: Ray is not installed, nobody answers, or no node can compute the stages.
    """
    if address is None:
        _require_ray()
        nodes: list[Node] = [{"Resources": {"CPU": usable_cores(), "GPU": cuda_count("auto")}}]
    else:
        _connect(address)
        try:
            nodes = _nodes()
        finally:
            _disconnect()
    found = needs.on(nodes, device).room(nodes)
    return min(found, most or found)


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
        self._carried: Carried | None = None
        self._run = ""
        started = _connect(address)
        try:
            self._needs = needs.on(_nodes(), setup.device)
            if not (started or self._check_nodes(setup, todo)):
                self._run = f"mia-bench-{uuid.uuid4().hex}"
                self._carried = Carried(setup.store, ray.put, todo)
            here = strategies.NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            )
            lasting = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)
            self._mailbox = lasting(_Mailbox).remote()
            self._given = ray.put((setup, self._run, self._mailbox, node_report(setup.store.root, None)))
            self._compute = ray.remote(
                num_cpus=self._needs.cores,
                num_gpus=self._needs.gpus,
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
            self._room = self._needs.room(_nodes())
        return max(1, min(self._room, self._most or self._room))

    @property
    def running(self) -> list[Stage]:
        """The stages that were given to Ray."""
        return [task.stage for task in self._tasks.values()]

    def begin(self, stage: Stage, *, renew: bool, seconds: float) -> None:
        """Give a stage to Ray."""
        inputs = self._carried.for_stage(stage) if self._carried else None
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
                if self._is_overdue(task):
                    ray.cancel(ref, force=True)
                    return self._fail(ref, f"it took longer than the time limit of {self._limit:g} s")

    def close(self) -> None:
        """Cancel what is running; end the cluster if it was started here."""
        with contextlib.suppress(Exception):  # whatever became of the cluster, the run is over
            for ref in self._tasks:
                ray.cancel(ref, force=True)
            if self._run:
                cleared = [_on_node(node["NodeID"], _clear).remote(self._run) for node in _nodes()]
                ray.wait(cleared, num_returns=len(cleared), timeout=ANSWER_SECONDS)
        self._tasks.clear()
        _disconnect()

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

    def _check_nodes(self, setup: WorkerSetup, todo: Collection[Stage]) -> bool:
        """Whether all nodes see the store's folder.

        Raises:
            UsageError: one has no mia-bench, or another one, or lacks the data.
        """
        reads = any(s.name == "data" and s.parts["dataset"].component.needs_root for s in todo)
        data = setup.roots.data if reads else None
        with _token(setup.store.root) as token:
            here = node_report(token, data)
            nodes = [node for node in _nodes() if self._needs.room([node])]
            asked = {_on_node(node["NodeID"], _reporter()).remote(token, data): node for node in nodes}
            answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=6 * ANSWER_SECONDS)
            found = {asked[ref]["NodeManagerAddress"]: _answer(ref) for ref in answered}
        for ref in silent:
            found[asked[ref]["NodeManagerAddress"]] = NodeReport(missing="it does not answer")
        for name, report in found.items():
            if reason := here.differs(report):
                raise UsageError(f"node {name} of the Ray cluster: {reason}")
        return all(report.sees_store for report in found.values())

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
                task.attempt, task.began, task.asked = attempt, time.monotonic(), None
            if task.attempt == attempt:
                task.ended |= message[0] == "ends"
                show(self._display, task.stage, message)

    def _is_overdue(self, task: _Task) -> bool:
        """Whether a stage has been computed for longer than the limit.

        Where the time is up the node is asked: a process that was lost computes nothing, and its stage waits
        until it is begun again.
        """
        if not (self._limit and task.attempt and time.monotonic() - task.began > self._limit):
            return False
        if task.asked is None:
            task.asked = _on_node(task.attempt.node, _is_running).remote(task.attempt.process)
        if not ray.wait([task.asked], timeout=0)[0]:
            return False
        asked, task.asked = task.asked, None
        try:
            if ray.get(asked):
                return True
        except ray.exceptions.RayError:
            pass  # the node is gone
        task.began = math.inf
        return False

    def _finish(self, ref: Any) -> Outcome:
        """What became of a task."""
        try:
            kind, value, began, artifact = ray.get(ref)
        except ray.exceptions.RayError as error:
            return self._fail(ref, _given_up(error))
        task = self._tasks[ref]
        if kind == "stopped":
            raise value
        if kind == "failed":
            return self._settle(ref, value)
        if artifact is not None:
            self._store.adopt(*task.stage.id, *artifact)
        _await(self._store, [task.stage])
        if began and not task.attempt:  # its messages are still under way
            self._display.stage_begins(task.stage, value)
        if began and not task.ended:
            self._display.stage_ends(task.stage, value)
        return self._settle(ref)

    def _fail(self, ref: Any, reason: str) -> Outcome:
        return self._settle(ref, failure(self._tasks[ref].stage, MiaBenchError(reason)))

    def _settle(self, ref: Any, reason: str | None = None) -> Outcome:
        """A task is done, or failed for a reason."""
        task = self._tasks.pop(ref)
        if reason is not None and task.attempt:
            self._display.stage_fails(task.stage)
        if self._carried:
            self._carried.settled(task.stage, failed=reason is not None)
        return Outcome(task.stage, reason)


@dataclass(frozen=True)
class Attempt:
    """A process that computes a stage.

    Attributes:
        node: Ray's name of the node.
        process: number of the process there.
        name: tells it from others.
    """

    node: str
    process: int
    name: str


@dataclass
class _Task:
    """A stage that was given to Ray.

    Attributes:
        number: its messages carry it.
        attempt: the one that told of itself last.
        began: when that began to compute; infinity once it is lost.
        asked: what will say whether it is lost.
        ended: whether the display knows that it did.
    """

    stage: Stage
    number: int
    attempt: Attempt | None = None
    began: float = math.inf
    asked: Any = None
    ended: bool = False


def _given_up(error: Exception) -> str:
    """Why Ray gives no result of a task, in words."""
    if isinstance(error, (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError)):
        return f"its process died, or its node was lost, {ATTEMPTS} times; the logs of Ray may say why"
    cause = getattr(error, "cause", None)  # what the task raised
    reason = summarize_error(cause) if cause else shortened(one_line(str(error)), 200)
    return f"Ray gave it up: {reason}"


def _require_ray() -> None:
    """Import Ray.

    Raises:
        UsageError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning
    os.environ.setdefault("RAY_worker_niceness", "0")  # else processes of a cluster started here have 15
    try:
        _ = ray.__version__
    except ImportError as error:
        raise UsageError("--executor ray needs Ray: pip install 'mia-bench[ray]'") from error


def _connect(address: str | None) -> bool:
    """Connect to the cluster; whether it was started here, because no address was given.

    Raises:
        UsageError: Ray is not installed, nobody answers, or the cluster's versions differ.
    """
    _require_ray()
    if address is not None:
        _require_answer(address)
    quiet = {"logging_level": "error", "log_to_driver": False, "configure_logging": True}
    started = {} if address else _OWN_CLUSTER | {"num_cpus": usable_cores()}
    try:
        with _our_handlers():
            ray.init(
                address=address or "local", namespace=f"mia-bench-{uuid.uuid4().hex}", **quiet, **started
            )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = shortened(one_line(str(error)), 200)
        where = f"--address {address}" if address else "--executor ray"
        raise UsageError(f"{where}: no Ray cluster to be used: {reason}") from error
    except SystemExit:  # of Ray's handler of SIGTERM
        interrupt()
        raise
    return address is None


@contextlib.contextmanager
def _our_handlers() -> Iterator[None]:
    """Set the handlers of signals again that Ray replaces when it starts, and takes away when it ends."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _disconnect() -> None:
    """Leave the cluster; end it if it was started here."""
    # The run is over; what is being raised, Interrupted perhaps, must stay.
    with contextlib.suppress(KeyboardInterrupt), held_back(), _our_handlers():
        ray.shutdown()


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


def _nodes() -> list[Node]:
    """The nodes that are there."""
    return [node for node in ray.nodes() if node["Alive"]]


def _count(node: Node, resource: str) -> float:
    return float(node["Resources"].get(resource, 0))


def _on_node(node: str, function: Callable[..., Any]) -> Any:
    """A function that Ray calls on the node of that name."""
    there = strategies.NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(function)


@contextlib.contextmanager
def _token(folder: Path) -> Iterator[Path]:
    """A file in the folder, by which nodes tell whether they see it."""
    token = folder / f"{TEMPORARY}{uuid.uuid4().hex}"
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
        self._messages: deque[tuple[int, Attempt, Message]] = deque()

    def put(self, number: int, attempt: Attempt, message: Message) -> None:
        """Keep a message."""
        self._messages.append((number, attempt, message))

    def take(self) -> list[tuple[int, Attempt, Message]]:
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
    # Ray's handler raises SystemExit, as a plugin may, whose stage fails; a process that ends is replaced.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    setup, run, mailbox, driver = given
    if differs := driver.differs(node_report(setup.store.root, None)):  # of a node that joined later
        return "stopped", UsageError(f"a node of the Ray cluster: {differs}"), False, None
    attempt = Attempt(ray.get_runtime_context().get_node_id(), os.getpid(), uuid.uuid4().hex)
    told = []

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


def _is_running(process: int) -> bool:
    """Whether a process of ours is there; on Windows that is not found out."""
    if POSIX:
        try:
            os.kill(process, 0)
        except OSError:
            return False
    return True


def _clear(run: str) -> None:
    """Remove a node's own store."""
    shutil.rmtree(_own_folder(run), ignore_errors=True)
