"""Inference and snapshots of networks."""
