"""Interruptions: Ctrl-C, a termination signal, a terminal that is closed.

A KeyboardInterrupt that no signal caused is a plugin's, which may raise anything.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

_MASKS = hasattr(signal, "pthread_sigmask")

_came = False
"""Whether one of the signals came."""

_held = False
"""Whether KeyboardInterrupt waits until :func:`held_back` ends."""


def interrupted() -> bool:
    """Whether the run was interrupted, even if a library swallowed the KeyboardInterrupt."""
    return _came


def check(error: BaseException) -> None:
    """Raise KeyboardInterrupt if an interruption, and not a plugin, is behind what was raised."""
    unseen = isinstance(error, KeyboardInterrupt) and not _caught_here()
    if _came or unseen:
        raise KeyboardInterrupt from error


def _caught_here() -> bool:
    """Whether an interruption would have been seen by :func:`interrupted`, or can't come here."""
    if threading.current_thread() is not threading.main_thread():
        return True
    return signal.getsignal(signal.SIGINT) in (_interrupt, signal.SIG_IGN)


def interrupt() -> None:
    """Interrupt as a signal would, where signals are caught."""
    if _caught_here():
        _interrupt(signal.SIGTERM, None)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt when SIGINT, SIGTERM or SIGHUP comes.

    After the first, SIGTERM and SIGHUP are ignored, so that the run ends in order: a terminal that is closed
    sends several. Ctrl-C ends the ending, too. Signals that were ignored stay so (``nohup``).
    """
    global _came
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    caught = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    _came = False
    for number in caught:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        _came = False
        for number in caught:
            signal.signal(number, before[number])


@contextmanager
def held_back() -> Iterator[None]:
    """Raise KeyboardInterrupt not within, but at the end; Ctrl-C doesn't reach processes started within."""
    global _held
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if _MASKS else None
    _held = True
    try:
        yield
    finally:
        _held = False
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if _came:
            raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _came
    if _came and number != signal.SIGINT:
        return
    _came = True
    if not _held:
        raise KeyboardInterrupt
