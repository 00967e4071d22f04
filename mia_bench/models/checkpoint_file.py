"""Checkpoints of models that were trained elsewhere: read without executing anything, fitted to a network.

A checkpoint is a state dict, or dictionaries around one. The names of its weights may have the prefixes that
wrappers put before them: ``module.`` (DataParallel), ``_orig_mod.`` (torch.compile), ``_module.`` (Opacus).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etils.epy import lazy_imports

from mia_bench.errors import UsageError, did_you_mean
from mia_bench.tensorfile import read_tensors
from mia_bench.text import one_line, shortened

with lazy_imports():
    import safetensors
    import torch
    from torch import Tensor, nn

PREFIXES = ("module", "_orig_mod", "_module")
"""What wrappers put before the names of weights."""

DEEPEST = 4
"""How many dictionaries around a state dict are looked through."""

NAMED = 3
"""How many weights a message names of each kind."""

SAVE = "save the weights alone, torch.save(model.state_dict(), FILE)"

Translate = Callable[[Mapping[str, "Tensor"]], dict[str, "Tensor"]]


def read_checkpoint(path: Path) -> Any:
    """What a file holds: tensors by name, or dictionaries with them. Nothing in it is executed.

    Raises:
        UsageError: it can't be read, or holds Python objects; the line says what to do.
    """
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from error
    except Exception as error:  # zip, pickle, safetensors: each raises its own
        raise UsageError(f"{path} {_why_unreadable(error)}") from error


def _why_unreadable(error: Exception) -> str:
    text = one_line(str(error))
    found = re.search(r"GLOBAL ([\w.]+)", text)
    if found or "pickle protocol" in text:
        what = f" ({shortened(found[1], 80)})" if found else ""
        return f"holds pickled Python objects{what}, which are not loaded, as that could run code: {SAVE}"
    if "TorchScript" in text:
        return f"is a TorchScript archive, which is not loaded: {SAVE}"
    if isinstance(error, safetensors.SafetensorError) or "zip archive" in text or isinstance(error, EOFError):
        return f"is no checkpoint, or was cut off: {shortened(text, 120)}"
    return f"is no checkpoint that can be read safely ({shortened(text, 120)}): {SAVE}, or use safetensors"


@dataclass
class Misfit:
    """How weights differ from those of a network; it is false where they fit."""

    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    classes: int | None = None

    def __bool__(self) -> bool:
        return bool(self.missing or self.unknown or self.shapes)

    def __len__(self) -> int:
        return len(self.missing) + len(self.unknown) + len(self.shapes)

    def __str__(self) -> str:
        words = [
            f"{len(names)} {what} ({_some(names)})"
            for what, names in (
                ("of other shapes", self.shapes),
                ("missing", self.missing),
                ("unknown", self.unknown),
            )
            if names
        ]
        return "; ".join(words)


def fit(
    checkpoint: Any, network: nn.Module, *, key: str = "", translate: Translate = dict
) -> dict[str, Tensor]:
    """The weights in a checkpoint for a network, by the network's names and in its types.

    Without a key the only dictionary whose weights fit is taken. Missing counters of BatchNorm, which only
    matter in training, are those of the network.

    Args:
        checkpoint: as :func:`read_checkpoint` returns it.
        network: with the classes of the track.
        key: where the weights are: keys joined by dots.
        translate: other names of weights to those of the network.

    Raises:
        UsageError: none fit, or several do; a weight is not a finite number. The message follows the name of
            the file.
    """
    expected = network.state_dict()
    found = {key: _at(checkpoint, key)} if key else dict(_candidates(checkpoint))
    if not found:
        keys = _some(map(str, checkpoint), 10) if isinstance(checkpoint, Mapping) else ""
        held = f"its keys are {keys}" if keys else f"it is a {type(checkpoint).__name__}"
        raise UsageError(f"holds no weights by name ({held}): {SAVE}")
    fitted = {place: _nearest(state, expected, translate) for place, state in found.items()}
    right = [place for place, (_, misfit) in fitted.items() if not misfit]
    if len(right) > 1:
        raise UsageError(f"has weights that fit under {_some(right)}: choose by --target-key")
    if not right:
        misfit = min((misfit for _, misfit in fitted.values()), key=len)
        others = (
            f"; it has weights under {_some(found, 10)}: --target-key names one" if len(found) > 1 else ""
        )
        raise UsageError(f"{_misfit_words(misfit, expected)}{others}")
    state, _ = fitted[right[0]]
    whole = {name: state.get(name, tensor).to(tensor.dtype) for name, tensor in expected.items()}
    if wrong := [name for name, tensor in whole.items() if not bool(torch.isfinite(tensor).all())]:
        raise UsageError(f"has weights that are not finite, {len(wrong)} of {len(whole)}: {_some(wrong)}")
    return {name: tensor.contiguous() for name, tensor in whole.items()}


def _misfit_words(misfit: Misfit, expected: Mapping[str, Tensor]) -> str:
    if misfit.classes:
        return f"is a model of {misfit.classes} classes, another number than the track's: {misfit}"
    return f"does not fit: of {len(expected)} weights {misfit}"


def _candidates(checkpoint: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dictionary that holds tensors by name, with the keys that lead to it."""
    if not isinstance(checkpoint, Mapping):
        return
    tensors = _tensors(checkpoint)
    if tensors:
        yield ".".join(place), tensors
    for key, value in checkpoint.items():
        if isinstance(key, str) and len(place) < DEEPEST:
            yield from _candidates(value, (*place, key))


def _tensors(mapping: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in mapping.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }


def _at(checkpoint: Any, key: str) -> dict[str, Tensor]:
    """The tensors under keys joined by dots; a key may have dots itself."""
    left, here = key, checkpoint
    while left:
        keys = [one for one in here if isinstance(one, str)] if isinstance(here, Mapping) else []
        fitting = [one for one in keys if left == one or left.startswith(f"{one}.")]
        if not fitting:
            raise UsageError(f"has no key {key!r}; {did_you_mean(left, keys)}")
        chosen = max(fitting, key=len)
        here, left = here[chosen], left[len(chosen) + 1 :]
    tensors = _tensors(here) if isinstance(here, Mapping) else {}
    if not tensors:
        inside = f", with weights under {_some(found, 10)}" if (found := dict(_candidates(here))) else ""
        raise UsageError(f"has no weights by name under the key {key!r}{inside}")
    return tensors


def _nearest(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], translate: Translate
) -> tuple[dict[str, Tensor], Misfit]:
    """The weights under those of their possible names that fit, or come nearest, and how they differ."""
    plain = without_prefixes(state)
    inner = _without(plain, {name.partition(".")[0] for name in plain})
    readings = (dict(state), plain, translate(plain), inner, translate(inner))
    compared = ((reading, _compared(reading, expected)) for reading in readings)
    best: tuple[dict[str, Tensor], Misfit] | None = None
    for reading, misfit in compared:
        if best is None or len(misfit) < len(best[1]):
            best = reading, misfit
        if not misfit:
            break
    assert best is not None
    return best


def without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the names that they have without wrappers."""
    found = {
        ".".join(part for part in name.split(".") if part != "_orig_mod"): tensor
        for name, tensor in state.items()
    }
    while (shorter := _without(found, PREFIXES)).keys() != found.keys():
        found = shorter
    return found


def _without(state: Mapping[str, Tensor], prefixes: Iterable[str]) -> dict[str, Tensor]:
    """The weights without a prefix that all of their names have."""
    for prefix in prefixes:
        if all(name.startswith(f"{prefix}.") for name in state):
            return {name[len(prefix) + 1 :]: tensor for name, tensor in state.items()}
    return dict(state)


def _compared(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Misfit:
    misfit = Misfit(
        missing=[name for name in expected if name not in state and "num_batches_tracked" not in name],
        unknown=[name for name in state if name not in expected],
    )
    classes: set[tuple[int, int]] = set()
    others = False
    for name, tensor in expected.items():
        if name not in state or (state[name].shape == tensor.shape and _is_plain(state[name], tensor)):
            continue
        found, wanted = tuple(state[name].shape), tuple(tensor.shape)
        kind = "" if found != wanted else f" of {state[name].dtype}, {state[name].layout}"
        misfit.shapes.append(f"{name} is {found}{kind}, not {wanted}")
        if found and wanted and found[1:] == wanted[1:]:
            classes.add((found[0], wanted[0]))
        else:
            others = True
    if len(classes) == 1 and not others and not misfit.missing and not misfit.unknown:
        misfit.classes = classes.pop()[0]
    return misfit


def _is_plain(found: Tensor, wanted: Tensor) -> bool:
    """Whether the values of a tensor can be taken over: dense, and real numbers where such are wanted."""
    numbers = found.is_floating_point() == wanted.is_floating_point() and not found.is_complex()
    return numbers and found.layout == torch.strided and not found.is_quantized


def _some(names: Iterable[str], most: int = NAMED) -> str:
    """The first names, and how many more there are."""
    several = list(names)
    shown = ", ".join(shortened(name or "the file itself", 80) for name in itertools.islice(several, most))
    return shown + (f" and {len(several) - most} more" if len(several) > most else "")
