"""What a cell is, as functions of objects: data, target, prior, gallery, evaluation, attack, measurement.

Nothing here knows stages, a store or a plan. The engine calls these functions and stores what they return;
the conformance kit and :func:`mia_bench.evaluate` call the same ones. Importing the submodules imports torch.
"""
