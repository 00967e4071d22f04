"""Both steps of an attack, on all classes."""

from dataclasses import replace

from mia_bench.api.attack import Attack, AttackTask, Reconstructions


def attacked(attack: Attack, task: AttackTask) -> Reconstructions:
    """What an attack makes, after it prepared."""
    return attack.invert(replace(task, state=attack.prepare(task)))
