"""The published boards: records are checked, combined over seeds and written as Markdown pages."""

from mia_bench.leaderboard.board import Board, build_board
from mia_bench.leaderboard.records import build, check, load
from mia_bench.leaderboard.submission import submit

__all__ = ["Board", "build", "build_board", "check", "load", "submit"]
