"""What tests of StyleGAN2 share: tiny networks, and pickles as the authors' code writes them."""

import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mia_bench_plugins.priors.adversarial import with_prefix
from mia_bench_plugins.priors.stylegan2_networks import Discriminator, Generator, Shape

TINY = Shape(resolution=16, latent=6, style=5, layers=2, channel_base=64, channel_max=8)
TAPS = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Biases and noise strengths begin at zero: give them values, so that a test sees them."""
    draws = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if name.endswith(("bias", "noise_strength")):
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=draws)
    return network.requires_grad_(False)


def tiny_networks(shape: Shape = TINY) -> dict[str, Tensor]:
    torch.manual_seed(3)
    generator = randomised(Generator(shape))
    generator.mapping.w_avg.normal_()
    networks = {"generator": generator, "discriminator": randomised(Discriminator(shape))}
    weights = {f"{n}.{k}": t for n, network in networks.items() for k, t in network.state_dict().items()}
    return {"shape": shape.as_tensor(), **weights}


class Persistent:
    """An object that pickles as the authors' persistent classes do."""

    def __init__(self, class_name: str, state: dict, source: str = "") -> None:
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": source,
            "class_name": class_name,
            "state": state,
        }

    def __reduce__(self):
        module = sys.modules["torch_utils.persistence"]
        return module._reconstruct_persistent_obj, (self.meta,)


def pretend_authors(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The names of the authors' code that their pickles refer to."""
    persistence = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("the authors' loader was called")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    util = types.ModuleType("dnnlib.util")
    util.EasyDict = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    for name in ("torch_utils", "dnnlib"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", persistence)
    monkeypatch.setitem(sys.modules, "dnnlib.util", util)
    return util


def persistent(
    module: nn.Module, class_name: str, easy: type, arguments: dict, **state: object
) -> Persistent:
    """A module as the authors' pickles hold it, with a filter in every block; ``state`` is of all modules."""
    attributes = {
        "training": False,
        "_parameters": OrderedDict(module._parameters),
        "_buffers": OrderedDict(module._buffers),
        "_modules": OrderedDict(
            (name, persistent(child, type(child).__name__, easy, {}, **state))
            for name, child in module.named_children()
            if child.state_dict()  # a constant filter is no module of theirs
        ),
        "_non_persistent_buffers_set": set(),
        "weight_gain": np.float64(0.5),
        "_init_args": (),
        "_init_kwargs": easy(arguments),
        **state,
    }
    if class_name in ("Synthesis", "Convolution", "ToImage"):
        attributes["conv_clamp"] = module.clamp
    if class_name in ("Synthesis", "Convolution"):
        attributes["_buffers"]["resample_filter"] = torch.tensor(TAPS, dtype=torch.float32)
    return Persistent(class_name, attributes, source="raise AssertionError('this was run')")


def content(easy: type, shape: Shape = TINY, *, by_stylegan3: bool = False, **changes) -> dict:
    """A file's content: ``changes`` are arguments the generator was made with.

    With ``by_stylegan3``, as that repository's code writes it: arguments of the synthesis network are the
    generator's own, and those with their default value are not there.
    """
    given = tiny_networks(shape)
    generator, judge = Generator(shape), Discriminator(shape)
    generator.load_state_dict(with_prefix(given, "generator"))
    judge.load_state_dict(with_prefix(given, "discriminator"))
    common = {"c_dim": 0, "img_resolution": shape.resolution, "img_channels": 3}
    sizes = easy(channel_base=shape.channel_base, channel_max=shape.channel_max)
    if not by_stylegan3 or shape.clamp != 256:
        sizes["conv_clamp"] = shape.clamp
    arguments = {
        "z_dim": shape.latent,
        "w_dim": shape.style,
        "mapping_kwargs": easy(num_layers=shape.layers),
        **common,
    }
    if by_stylegan3:
        arguments |= {**sizes, "fused_modconv_default": "inference_only"}
    else:
        arguments["synthesis_kwargs"] = easy(sizes, num_fp16_res=4)
    end = easy(mbstd_group_size=shape.group)
    state = {"num_fp16_res": 4} if by_stylegan3 else {}
    return {
        "G": None,
        "D": persistent(
            judge,
            "Discriminator",
            easy,
            {
                **common,
                **sizes,
                "block_kwargs": easy(activation="lrelu", freeze_layers=0),
                # Of a conditional discriminator only; the authors' converter writes it all the same.
                "mapping_kwargs": easy(num_layers=0, lr_multiplier=0.1),
                "epilogue_kwargs": end,
            },
            **state,
        ),
        "G_ema": persistent(generator, "Generator", easy, {**arguments, **changes}, **state),
        "training_set_kwargs": easy(path="elsewhere"),
    }


def written(path: Path, what: object) -> Path:
    path.write_bytes(pickle.dumps(what))
    return path
