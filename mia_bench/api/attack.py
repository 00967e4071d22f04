"""The contract of an attack: access, prior, classes, budget and a generator in; images out."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, get_args

from etils.epy import lazy_imports

from mia_bench.api.access import Access, AccessLevel
from mia_bench.api.component import Component
from mia_bench.api.dataset import ImageSet
from mia_bench.api.defense import Defense
from mia_bench.api.prior import Prior
from mia_bench.api.progress import Progress

with lazy_imports():
    import torch
    from torch import Tensor

    from mia_bench.api.generative import GenerativeModel


@dataclass(frozen=True)
class AttackTask:
    """The input of an attack.

    Attributes:
        access: the target as the threat model shows it (see :mod:`mia_bench.api.access`).
        prior: the image model; latents ``(N, D)`` to images ``(N, 3, H, W)`` in [0, 1].
        public: the public images behind the prior.
        classes: ``(K,)`` int64, the classes to invert; in ``prepare`` all that will be.
        images_per_class: number of reconstructions to return for each class, ``M``.
        generator: seeded CPU generator; draw everything random from it.
        device: where to compute.
        batch_size: images per forward pass.
        progress: call with (done, total, unit) now and then.
        state: tensors that ``prepare`` returned.
        undefended: an undefended target of the same seed, for probes that ``needs_undefended``; None for
            attacks, as no attacker has it.
    """

    access: Access
    prior: GenerativeModel
    public: ImageSet
    classes: Tensor
    images_per_class: int
    generator: torch.Generator
    device: torch.device
    batch_size: int
    progress: Progress
    state: dict[str, Tensor] = field(default_factory=dict)
    undefended: Access | None = None

    def rows(self, classes: Tensor) -> Tensor:
        """Positions ``(K,)`` of the task's classes in ``classes`` ``(P,)``, which ``prepare`` had.

        Raises:
            ValueError: one is not among them.
        """
        found = classes == self.classes[:, None]
        if not found.any(1).all():
            raise ValueError(f"of the classes {self.classes.tolist()} only {classes.tolist()} were prepared")
        return found.int().argmax(1)

    def reconstructions(self, latents: Tensor) -> Reconstructions:
        """Reconstructions from latents ``(K, M, D)``, best first, as uint8 images of the prior.

        Raises:
            ValueError: the latents have another number of dimensions.
        """
        if latents.ndim != 3:
            raise ValueError(
                f"latents are (classes, images, dimensions), not of shape {tuple(latents.shape)}"
            )
        images = self.prior.pictures(latents.flatten(0, 1), device=self.device, batch_size=self.batch_size)
        return Reconstructions(images.unflatten(0, latents.shape[:2]), latents.float().cpu())


@dataclass(frozen=True)
class Reconstructions:
    """What an attack returns.

    Attributes:
        images: ``(K, M, 3, H, W)`` uint8, or float in [0, 1]; best first.
        latents: ``(K, M, D)``; None if the attack has none.
        diagnostics: optional numbers by name, ``(K, T)`` each, the mean over a class's candidates at each of
            ``T`` steps: the loss, the norm of the gradient. They are stored and tell nothing of leakage.
    """

    images: Tensor
    latents: Tensor | None = None
    diagnostics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """What a cell would run an attack with; known before anything is computed.

    Attributes:
        prior, defense: the components with their options.
        images_per_class: number of reconstructions the track asks for in each class.
    """

    prior: Prior
    defense: Defense
    images_per_class: int


class Attack(Component):
    """How images of the private classes are made from the target.

    Attributes:
        access: what it sees of the target: ``white-box``, ``black-box`` or ``label-only``.
        reference: kind of reference that boards show beside other rows, such as ``floor``; empty for a
            real attack.
        by_name: whether it is run only where it is named, and not where no attack is.
        needs_undefended: whether it is given an undefended target of the same seed beside the one that it is
            run on. No attacker has that: it is for probes, which ask what a defense does to an attack.
        by_class: whether the classes of a task are attacked independently of each other, so that the
            classes of a track may be shared out to several tasks. False where what is found of one class is
            used for another.
    """

    access: ClassVar[AccessLevel] = "white-box"
    reference: ClassVar[str] = ""
    by_name: ClassVar[bool] = False
    needs_undefended: ClassVar[bool] = False
    by_class: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        """Raise TypeError unless ``access`` is an access level, and what no attacker has is a probe's."""
        super().__init_subclass__()
        if cls.access not in get_args(AccessLevel):
            levels = ", ".join(get_args(AccessLevel))
            raise TypeError(f"{cls.__name__}: there is no access {cls.access!r}, only {levels}")
        if cls.needs_undefended and not cls.reference:
            raise TypeError(f"{cls.__name__}: what needs an undefended target is no attack; set a reference")

    def skip(self, setting: Setting) -> str | None:
        """Return why this attack can't run in ``setting``, or None; must be cheap."""
        return None

    def prepare(self, task: AttackTask) -> dict[str, Tensor]:
        """Optional cached step before ``invert``, such as training a surrogate or a first selection.

        It is done once, for all classes; ``invert`` may be called for parts of them, each in a process of its
        own. For every part the generators go on where ``prepare`` left them.

        Returns:
            Tensors by name, which ``invert`` finds in ``task.state``.
        """
        return {}

    @abstractmethod
    def invert(self, task: AttackTask) -> Reconstructions:
        """Reconstruct ``task.images_per_class`` images of each of ``task.classes``."""
