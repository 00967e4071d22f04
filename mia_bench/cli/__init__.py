"""The command line; each command is imported when it is used, so that ``--help`` stays fast."""

from mia_bench.cli.main import main

__all__ = ["main"]
