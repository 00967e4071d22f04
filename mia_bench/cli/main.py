"""The start of ``mia-bench``: streams, interruptions, exit codes, and what was answered before.

Imports little: a command that is answered again imports nothing else.
"""

from __future__ import annotations

import sys

from mia_bench.cli.answers import Question
from mia_bench.interruption import interruptible
from mia_bench.streams import prepare_streams, put, silence, unread

PIPE_CLOSED = 128 + 13
"""The exit code of a tool that SIGPIPE ends."""


def main(args: list[str] | None = None) -> None:
    """Run the command line, with the arguments of the process where none are given.

    Exit code 0: done; 1: something failed; 2: wrong usage; 141: nobody reads any more what it prints, as a
    tool has it that SIGPIPE ends.
    """
    prepare_streams()
    with interruptible():
        code = _finish(args)
    if code:
        sys.exit(code)


def _finish(args: list[str] | None) -> int:
    """Run the command line, flush what it printed, and return the exit code."""
    try:
        code = _answer() if args is None else _run(args)
        if code and unread():
            code = PIPE_CLOSED
        sys.stdout.flush()
    except BrokenPipeError:
        code = PIPE_CLOSED
    except KeyboardInterrupt:  # while an answer is looked for or kept
        put("error: interrupted\n", err=True)
        code = 1
    except OSError as error:  # nothing else is left to raise one
        put(f"error: standard output can't be written: {error.strerror}\n", err=True)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            silence(stream)
    return code


def _answer() -> int:
    """Run the command line with the arguments of the process, or print what it printed before."""
    args = sys.argv[1:]
    question = Question(args)
    if question.answer_again():
        return 0
    with question.watching():
        code = _run(args)
    if code == 0:
        question.keep()
    return code


def _run(args: list[str]) -> int:
    from mia_bench.cli import group  # imports click and looks for plugins

    return group.run(args)
