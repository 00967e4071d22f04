"""Plug & Play with some of its steps on an undefended target: a probe, not an attack.

Struppek, Hintersdorf and Kersting (*Be Careful What You Smooth For*, ICLR 2024, arXiv 2310.06549) exchange
the target in single steps of the attack, to see which of them a defense acts on. Here each of the three steps
of ``ppa`` (the initial selection, the optimisation, the final selection) is made on the target, or on an
undefended one that was trained with the same seed. With all three on the target it is ``ppa``.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from pydantic import Field

from mia_bench import AttackTask, Register, hookimpl
from mia_bench_plugins.attacks.ppa import PlugAndPlay, Step

On = Literal["target", "undefended"]


class PlugAndPlaySteps(PlugAndPlay):
    """Each step of ``ppa`` on the target or on an undefended one."""

    summary = "a probe: each step of Plug & Play on the target or on an undefended one"
    paper = "Struppek et al., ICLR 2024, arXiv 2310.06549"
    version = "1"
    reference = "probe"
    by_name = True
    needs_undefended = True

    class Options(PlugAndPlay.Options):
        """Options of ``ppa-steps``: those of ``ppa``, and what each step is made on."""

        selection: On = Field("target", description="target of the initial selection")
        optimisation: On = Field("target", description="target of the optimisation")
        final_selection: On = Field("target", description="target of the final selection")

    options: Options

    def _on(self, task: AttackTask, step: Step) -> AttackTask:
        on: On = getattr(self.options, step)
        assert task.undefended is not None
        return task if on == "target" else dataclasses.replace(task, access=task.undefended)


@hookimpl
def mia_bench_register_attacks(register: Register) -> None:
    register("ppa-steps", PlugAndPlaySteps)
