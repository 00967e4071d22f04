"""From a grid of cells to a plan of stages, and the executors that carry it out."""
