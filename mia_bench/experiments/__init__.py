"""Experiments: questions that a grid of cells answers, and the pages with the answers."""
