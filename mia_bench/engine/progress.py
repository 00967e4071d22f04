"""How a run tells people what it does: bars with time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mia_bench.engine.plan import Stage
from mia_bench.interruption import interrupt
from mia_bench.streams import unread
from mia_bench.terminal import say
from mia_bench.text import unbroken


class ProgressDisplay:
    """What a scheduler and its executor call; several stages may be under way at once. Shows nothing."""

    def begin(self, stages: int, seconds: float) -> None:
        """A run of ``stages`` stages begins; ``seconds`` is the estimate."""

    def remaining(self, seconds: float) -> None:
        """The rest of the run takes about so long."""

    def stage_begins(self, stage: Stage, seconds: float) -> None:
        """A stage begins; ``seconds`` is its estimate."""

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        """A stage has done ``done`` of ``total`` units."""

    def stage_ends(self, stage: Stage, seconds: float) -> None:
        """A stage is finished and stored."""

    def stage_fails(self, stage: Stage) -> None:
        """A stage failed; the reason is in the records of the cells that needed it."""

    def say(self, line: str) -> None:
        """One line for the user."""

    def end(self) -> None:
        """The run is over."""


@dataclass
class _Spoken:
    """The lines printed about a stage: its label, the time of the last one, and the first progress."""

    label: str
    last: float
    first: tuple[float, int] | None = None


class PlainProgress(ProgressDisplay):
    """One line a stage, and a line now and then within long ones; for logs and pipes."""

    def __init__(self, every: float = 15.0) -> None:
        self._every = every
        self._stages = self._number = 0
        self._left = ""
        self._running: dict[tuple[str, str], _Spoken] = {}

    def begin(self, stages: int, seconds: float) -> None:
        """Say how much there is to do."""
        self._stages, self._number, self._left = stages, 0, ""
        if stages:
            self.say(f"{counted(stages, 'stage')} to compute, about {duration(seconds)}")

    def remaining(self, seconds: float) -> None:
        """Keep it for the next line."""
        self._left = f"; {duration(seconds)} left in all"

    def stage_begins(self, stage: Stage, seconds: float) -> None:
        """Name the stage."""
        self._number += 1
        label = f"[{self._number}/{max(self._stages, self._number)}] {stage.label}"
        self._running[stage.id] = _Spoken(label, time.monotonic())
        self.say(f"{label} (about {duration(seconds)}{self._left})")

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        """Say where the stage stands, every few seconds."""
        now = time.monotonic()
        spoken = self._running[stage.id]
        if spoken.first is None or done < spoken.first[1]:
            # A stage that goes on after it was stopped begins with much done in no time.
            spoken.first = now, done
        began, first = spoken.first
        if now - spoken.last >= self._every and first < done < total:
            spoken.last = now
            left = (now - began) * (total - done) / (done - first)
            self.say(f"{spoken.label}: {unit} {done} of {total}, {duration(left)} left")

    def stage_ends(self, stage: Stage, seconds: float) -> None:
        """Say how long it took."""
        self.say(f"{self._running.pop(stage.id).label}: done in {duration(seconds)}")

    def stage_fails(self, stage: Stage) -> None:
        """Forget it."""
        self._running.pop(stage.id, None)

    def say(self, line: str) -> None:
        """Print to standard error; the run is interrupted, as by SIGPIPE, where nobody reads it any more."""
        say(line, err=True)
        if unread():
            interrupt()


class _TimeLeft(TimeRemainingColumn):
    """The time left that a task was given, of the whole run; else by the pace of the task."""

    def render(self, task: Task) -> Text:
        """Write it."""
        left = task.fields.get("left")
        return super().render(task) if left is None else Text(duration(left), style="progress.remaining")


class ProgressBars(ProgressDisplay):
    """Bars on a terminal: the stages of the whole run, and each stage under way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            _TimeLeft(),
            console=console,
            transient=True,
        )
        self._run: TaskID | None = None
        self._running: dict[tuple[str, str], TaskID] = {}

    def begin(self, stages: int, seconds: float) -> None:
        """Show the run's bar."""
        if stages:
            with suppress(OSError):
                self._bars.start()
            if self._run is not None:  # a run of two parts
                self._bars.remove_task(self._run)
            self._run = self._bars.add_task("whole run", total=stages, unit="stages", left=seconds)

    def remaining(self, seconds: float) -> None:
        """Show it beside the run's bar."""
        if self._run is not None:
            self._bars.update(self._run, left=seconds)

    def stage_begins(self, stage: Stage, seconds: float) -> None:
        """Show the stage's bar."""
        self._running[stage.id] = self._bars.add_task(unbroken(stage.label), total=None, unit="")

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        """Move the stage's bar."""
        self._bars.update(self._running[stage.id], completed=done, total=total, unit=f"{unit}s")

    def stage_ends(self, stage: Stage, seconds: float) -> None:
        """Leave a line behind and move the run's bar."""
        self.stage_fails(stage)
        took = (f" ({duration(seconds)})", "dim")
        self._print(Text.assemble(("✓", "green"), f" {unbroken(stage.label)}", took))
        if self._run is not None:
            self._bars.advance(self._run)

    def stage_fails(self, stage: Stage) -> None:
        """Remove the stage's bar."""
        if stage.id in self._running:
            self._bars.remove_task(self._running.pop(stage.id))

    def say(self, line: str) -> None:
        """Print above the bars."""
        self._print(Text(unbroken(line)))

    def end(self) -> None:
        """Remove the bars."""
        with suppress(OSError):
            self._bars.stop()

    def _print(self, text: Text) -> None:
        with suppress(OSError):  # the terminal is gone; that it ends the run is for a signal to say
            self._console.print(text)


def terminal_progress() -> ProgressDisplay:
    """Bars if standard error is a terminal that can show them, plain lines otherwise."""
    console = Console(stderr=True, highlight=False, emoji=False)
    return ProgressBars(console) if console.is_interactive else PlainProgress()


@contextmanager
def reporting(display: ProgressDisplay, stages: int, seconds: float) -> Iterator[None]:
    """Call ``begin`` and, whatever happens, ``end``."""
    display.begin(stages, seconds)
    try:
        yield
    finally:
        display.end()


def duration(seconds: float) -> str:
    """Seconds in words: ``0.4 s``, ``42 s``, ``3 min 10 s``, ``2 h 5 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: float) -> str:
    """Bytes in words: ``0.3 MB``, ``45 MB``, ``5.7 GB``."""
    unit, name = (1e9, "GB") if count >= 1e9 else (1e6, "MB")
    value = count / unit
    return f"{value:.1f} {name}" if value < 10 else f"{value:.0f} {name}"


def counted(count: int, noun: str) -> str:
    """``1 stage``, ``2 stages``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
