"""Tracks: versioned protocols, one TOML file each."""

from mia_bench.tracks.track import Track, load_track

__all__ = ["Track", "load_track"]
