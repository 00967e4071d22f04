"""Progress and warnings of a stage that another process computes, sent to the driver and shown there."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mia_bench.engine.plan import Stage
from mia_bench.engine.progress import ProgressDisplay

INTERVAL = 0.2
"""Seconds between two messages about the progress of a stage."""

Message: TypeAlias = tuple[Any, ...]
"""A word that says what it is of, and what the display's method for that takes after the stage."""


def show(display: ProgressDisplay, stage: Stage | None, message: Message) -> bool:
    """Show what a :class:`Sender` sent; False if the message is none of its own.

    ``stage``: the one that it was given; None where it has none, and can only say something.
    """
    kind, *values = message
    if kind == "say":
        display.say(*values)
    elif stage and kind == "begins":
        display.stage_begins(stage, *values)
    elif stage and kind == "progress":
        display.progress(stage, *values)
    elif stage and kind == "ends":
        display.stage_ends(stage, *values)
    else:
        return False
    return True


@dataclass
class Sender(ProgressDisplay):
    """Sends the progress of the stage that was given out to the driver; of others that it needs, lines only.

    Attributes:
        deliver: sends a message.
        stage: the one that was given out.
    """

    deliver: Callable[[Message], object]
    stage: Stage | None = None
    _sent: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, *message: object) -> None:
        """Send a message whole; threads of a plugin may warn meanwhile."""
        with self._lock:
            self.deliver(message)

    def stage_begins(self, stage: Stage, seconds: float) -> None:
        """Send it."""
        if stage is self.stage:
            self.send("begins", seconds)

    def progress(self, stage: Stage, done: int, total: int, unit: str) -> None:
        """Send it, at most every :data:`INTERVAL` seconds."""
        now = time.monotonic()
        if stage is self.stage and (now - self._sent >= INTERVAL or done == total):
            self._sent = now
            self.send("progress", done, total, unit)

    def stage_ends(self, stage: Stage, seconds: float) -> None:
        """Send it."""
        if stage is self.stage:
            self.send("ends", seconds)

    def say(self, line: str) -> None:
        """Send it."""
        self.send("say", line)


@contextlib.contextmanager
def sending_warnings(sender: Sender) -> Iterator[None]:
    """Send what is logged as a warning within the block, too."""
    log, handler = logging.getLogger("mia_bench"), _WarningSender(sender)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _WarningSender(logging.Handler):
    """Sends warnings to the driver."""

    def __init__(self, sender: Sender) -> None:
        super().__init__(logging.WARNING)
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        self._sender.say(f"warning: {record.getMessage()}")
