"""Pickles of StyleGAN2: read without running them, within limits; and the authors' networks."""

import contextlib
import importlib.util
import io
import json
import os
import pickle
import random
import re
import sys
import time
import tracemalloc
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import packaging.version
import pytest
import torch

from mia_bench.errors import DataError, MiaBenchError
from mia_bench_plugins.priors.adversarial import with_prefix
from mia_bench_plugins.priors.stylegan2_model import build
from mia_bench_plugins.priors.stylegan2_networks import Discriminator, Generator, Shape
from mia_bench_plugins.priors.stylegan2_pickle import read_pickle
from stylegan2_files import TINY, Persistent, content, pretend_authors, randomised, tiny_networks, written

authors = pytest.fixture(pretend_authors)


CLAMPED = Shape(8, 4, 4, 1, 32, 4, clamp=256.0, group=8)


@pytest.mark.parametrize("by_stylegan3", [False, True])
@pytest.mark.parametrize("shape", [TINY, CLAMPED])
def test_a_published_file_is_read_without_running_it(
    authors, tmp_path: Path, shape: Shape, by_stylegan3: bool
) -> None:
    path = written(tmp_path / "faces.pkl", content(authors.EasyDict, shape, by_stylegan3=by_stylegan3))
    found, expected = read_pickle(path), tiny_networks(shape)
    assert Shape.from_tensor(found["shape"]) == shape
    assert found.keys() == expected.keys()
    del expected["shape"]
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


class _Command:
    def __init__(self, function, *arguments) -> None:
        self.what = function, arguments

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "system"), (eval, "builtins.eval"), (getattr, "getattr"), (open, "open")],
)
def test_foreign_names_are_refused_and_not_called(authors, tmp_path: Path, function, name: str) -> None:
    told = tmp_path / "it-ran"
    command = {os.system: f"touch {told}", eval: f"open({str(told)!r}, 'w')"}.get(function, told)
    arguments = (command, "w") if function is open else (command,)
    inside = content(authors.EasyDict) | {"augment_pipe": _Command(function, *arguments)}
    path = written(tmp_path / "evil.pkl", inside)
    with pytest.raises(DataError, match=rf"evil\.pkl is refused: it asks for .*{name}"):
        read_pickle(path)
    assert not told.exists()


def test_code_inside_a_tensor_is_refused(authors, tmp_path: Path) -> None:
    told = tmp_path / "it-ran"

    class Storage:
        def __reduce__(self):
            return torch.storage._load_from_bytes, (pickle.dumps(_Command(os.system, f"touch {told}")),)

    path = written(tmp_path / "evil.pkl", {"G_ema": Storage()})
    with pytest.raises(DataError, match=r"evil\.pkl"):
        read_pickle(path)
    assert not told.exists()


def test_a_tensorflow_file_says_what_to_do(authors, tmp_path: Path, monkeypatch) -> None:
    module = types.ModuleType("dnnlib.tflib.network")
    module.Network = type("Network", (), {"__module__": "dnnlib.tflib.network"})
    monkeypatch.setitem(sys.modules, "dnnlib.tflib", types.ModuleType("dnnlib.tflib"))
    monkeypatch.setitem(sys.modules, "dnnlib.tflib.network", module)
    path = written(tmp_path / "old.pkl", (module.Network(),) * 3)
    with pytest.raises(DataError, match=r"dnnlib\.tflib\.network\.Network.*legacy\.py"):
        read_pickle(path)


@pytest.mark.parametrize("kept", [0, 1, 500, -200])
def test_a_truncated_file_is_refused(authors, tmp_path: Path, kept: int) -> None:
    path = written(tmp_path / "short.pkl", content(authors.EasyDict))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"short\.pkl is truncated"):
        read_pickle(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c_dim": 10}, "c_dim=10; supported is 0"),
        ({"img_channels": 1}, "img_channels=1; supported is 3"),
        ({"synthesis_kwargs": {"architecture": "resnet"}}, "architecture='resnet'"),
        ({"synthesis_kwargs": {"sharpen": 2}}, "sharpen=2, which is not known"),
        ({"mapping_kwargs": {"num_layers": 2, "lr_multiplier": 0.1}}, "lr_multiplier=0.1"),
        ({"synthesis_kwargs": {"channel_base": 128, "channel_max": 8}}, "channel_base"),
        ({"mapping_kwargs": {"num_layers": 3}}, r"lacks mapping\.fc2"),
        ({"w_dim": 7}, r"has the shape \(.*\), not \("),
    ],
)
def test_networks_of_another_make_are_refused(authors, tmp_path: Path, changes: dict, message: str) -> None:
    path = written(tmp_path / "other.pkl", content(authors.EasyDict, **changes))
    with pytest.raises(DataError, match=rf"other\.pkl is refused: .*{message}"):
        read_pickle(path)


def test_a_discriminator_of_another_make_is_refused(authors, tmp_path: Path) -> None:
    for changes, message in (
        ({"architecture": "skip"}, "discriminator was made with architecture='skip'"),
        ({"conv_clamp": 256}, "conv_clamp=256; supported is None"),
        ({"epilogue_kwargs": {"mbstd_group_size": None}}, "compares whole batches"),
    ):
        inside = content(authors.EasyDict)
        inside["D"].meta["state"]["_init_kwargs"].update(changes)
        with pytest.raises(DataError, match=message):
            read_pickle(written(tmp_path / "other.pkl", inside))


def test_another_filter_or_an_unknown_tensor_is_refused(authors, tmp_path: Path) -> None:
    inside = content(authors.EasyDict)
    block = inside["G_ema"].meta["state"]["_modules"]["synthesis"].meta["state"]["_modules"]["b16"]
    buffers = block.meta["state"]["_buffers"]
    buffers["resample_filter"] = torch.ones(4, 4) / 16
    with pytest.raises(DataError, match=r"b16\.resample_filter is not the filter"):
        read_pickle(written(tmp_path / "a.pkl", inside))
    del buffers["resample_filter"]
    buffers["extra"] = torch.zeros(1)
    with pytest.raises(DataError, match=r"unknown tensor synthesis\.b16\.extra"):
        read_pickle(written(tmp_path / "b.pkl", inside))


@pytest.mark.parametrize("what", [{}, {"G_ema": 3}, [1, 2], "text"])
def test_other_pickles_are_refused(tmp_path: Path, what: object) -> None:
    with pytest.raises(DataError, match="holds no G_ema of the class Generator"):
        read_pickle(written(tmp_path / "other.pkl", what))


# --- which StyleGAN it is ------------------------------------------------------------------------


def part_of(inside: dict, *names: str) -> dict:
    """The state of a module in the content of a file."""
    state = inside[names[0]].meta["state"]
    for name in names[1:]:
        state = state["_modules"][name].meta["state"]
    return state


@pytest.mark.parametrize(("by_stylegan3", "author"), [(False, "stylegan2-ada-pytorch"), (True, "stylegan3")])
def test_whose_code_wrote_the_networks_is_said(
    authors, tmp_path: Path, by_stylegan3: bool, author: str
) -> None:
    inside = content(authors.EasyDict, CLAMPED, by_stylegan3=by_stylegan3, c_dim=10)
    with pytest.raises(DataError, match=rf"c_dim=10.*\(StyleGAN2 networks, written by {author}\)$"):
        read_pickle(written(tmp_path / "other.pkl", inside))


def test_a_layer_that_clamps_at_another_value_is_refused(authors, tmp_path: Path) -> None:
    inside = content(authors.EasyDict, CLAMPED)
    part_of(inside, "G_ema", "synthesis", "b8", "conv1")["conv_clamp"] = 100
    with pytest.raises(DataError, match=r"synthesis\.b8\.conv1 has conv_clamp=100, not 256\.0"):
        read_pickle(written(tmp_path / "other.pkl", inside))


@pytest.mark.parametrize(("config", "arguments"), [("t", {}), ("r", {"conv_kernel": 1})])
def test_networks_of_stylegan3_are_refused_by_name(
    authors, tmp_path: Path, config: str, arguments: dict
) -> None:
    inside = content(authors.EasyDict, by_stylegan3=True, **arguments)
    size = np.broadcast_to(np.asarray(36), [2])  # its layers keep sizes as arrays
    layer = Persistent("SynthesisInput", {"size": size, "use_fp16": np.bool_(True)})
    part_of(inside, "G_ema", "synthesis")["_modules"]["input"] = layer
    with pytest.raises(DataError, match=rf"new\.pkl is refused: .* StyleGAN3 \(config {config}\)"):
        read_pickle(written(tmp_path / "new.pkl", inside))


# --- limits --------------------------------------------------------------------------------------


def refused(path: Path, what: object, message: str) -> None:
    """A file is refused in one line, soon, and without taking memory for what it claims."""
    path.write_bytes(what if isinstance(what, bytes) else pickle.dumps(what))
    start = time.process_time()
    with pytest.raises(DataError, match=rf"^{re.escape(path.name)} .*{message}") as caught:
        read_pickle(path)
    assert time.process_time() - start < 2
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            read_pickle(path)
        assert tracemalloc.get_traced_memory()[1] < 1e8
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert len(text) < 500
    assert text.isprintable()


HEAD = b"\x80\x04}(X\x05\x00\x00\x00G_ema"
"""Protocol 4, a dict, a mark and a key."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (b"Nr\x00\x00\x00\x10u.", "numbers an object 268,435,456"),
        (b"Nj\x00\x00\x00\x10u.", "refers to an object that it does not hold"),
        (b"\x8e" + (1 << 60).to_bytes(8, "little") + b"u.", "ends too early"),
        (b"B\xff\xff\xff\xffu.", "ends too early"),
        (b"\x8d" + (1 << 40).to_bytes(8, "little") + b"u.", "a text or number of 1,099,511,627,776 bytes"),
        (
            b"X" + (2_000_000).to_bytes(4, "little") + 2_000_000 * b"a" + b"u.",
            "a text or number of 2,000,000",
        ),
        (b"\x8b" + (1 << 30).to_bytes(4, "little") + b"u.", "a text or number of 1,073,741,824"),
        (b"I" + 10_000 * b"9" + b"\nu.", "truncated or not a pickle"),
        (b"\x95" + (1 << 62).to_bytes(8, "little") + b"u.", "truncated or not a pickle"),
        (b"]" + 1_000_000 * b"N" + b".", "more than 300,000 instructions"),
        (1_000_000 * b"(", "more than 300,000 instructions"),
        (b"N" + 100_000 * b"\x85" + b"u.", "64 deep"),
        (b"}N" + 100_000 * b"\x85" + b"Nsu.", "uses tuple as str"),  # a key: its hash would recurse
        (b"]\x94h\x00au.", "an object that contains itself"),
        (b"\x96" + (1 << 60).to_bytes(8, "little") + b"u.", "a text or number"),
        (b"N2u.", "the instruction DUP"),
        (b"ccollections\nOrderedDict\n(cbuiltins\nset\ntRu.", "makes a dict of another"),
        (b"c\x1b[31mos\n" + 5000 * b"x" + b"\n.", "not a name"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_instructions_are_bounded(tmp_path: Path, tail: bytes, message: str) -> None:
    refused(tmp_path / "bomb.pkl", HEAD + tail, message)


def test_a_list_that_doubles_in_every_layer_costs_nothing(authors, tmp_path: Path) -> None:
    value: object = ["x"]
    for _ in range(40):
        value = [value, value]
    inside = content(authors.EasyDict, CLAMPED, c_dim=value)
    refused(tmp_path / "a.pkl", inside, "c_dim=")
    inside = content(authors.EasyDict, CLAMPED) | {"training_set_kwargs": {"x": value}}
    assert read_pickle(written(tmp_path / "b.pkl", inside))
    inside["G_ema"].meta["class_name"] = value
    refused(tmp_path / "c.pkl", inside, "no G_ema of the class Generator")


def test_modules_that_are_shared_are_refused(authors, tmp_path: Path) -> None:
    """A chain of modules that hold the next one twice has 2³⁰ paths."""
    module = Persistent("Link", {"_modules": {}})
    for _ in range(15):
        module = Persistent("Link", {"_modules": {"a": module, "b": module}})
    inside = content(authors.EasyDict)
    part_of(inside, "G_ema")["_modules"]["chain"] = module
    refused(tmp_path / "chain.pkl", inside, "Generator shares modules")


@pytest.mark.slow
def test_many_modules_and_long_names_are_refused(authors, tmp_path: Path) -> None:
    inside = content(authors.EasyDict)
    modules = part_of(inside, "G_ema")["_modules"]
    modules |= {str(number): Persistent("Link", {}) for number in range(10_000)}
    refused(tmp_path / "many.pkl", inside, "too many modules or tensors")
    inside = content(authors.EasyDict)
    part_of(inside, "D")["_buffers"][5000 * "long"] = torch.zeros(1)
    refused(tmp_path / "long.pkl", inside, "a very long name")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mapping_kwargs": {"num_layers": 10**6}}, "layers from 1 to 64, not 1000000"),
        ({"z_dim": 10**9}, "latent from 1 to"),
        ({"img_resolution": 2**40}, "resolution from 1 to 4096"),
        ({"img_resolution": -16}, "resolution from 1 to 4096"),
        ({"w_dim": 5.0}, r"style from 1 to 16384, not 5\.0"),
        ({"w_dim": None}, "style from 1 to 16384, not None"),
        ({"synthesis_kwargs": {"channel_base": 10**300}}, "channel_base from"),
        ({"synthesis_kwargs": {"conv_clamp": float("nan")}}, "positive clamp"),
        ({"synthesis_kwargs": {"conv_clamp": 1000 * "\x1b[2J"}}, "positive clamp"),
    ],
)
def test_sizes_are_bounded(authors, tmp_path: Path, changes: dict, message: str) -> None:
    refused(tmp_path / "large.pkl", content(authors.EasyDict, **changes), message)


class Rebuilt:
    """A tensor as a hostile file may describe it."""

    def __init__(self, storage: object, offset: object, size: object, stride: object) -> None:
        self.arguments = (storage, offset, size, stride, False, OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


class Loaded:
    """A storage with these bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.data,)


def legacy(numbers: int, claimed: int | None = None, inner: int | None = None) -> bytes:
    """A storage as torch writes it in pickles, with other numbers of elements in its two places."""
    file = io.BytesIO()
    tensor = torch.zeros(numbers).untyped_storage()
    storage = torch.storage.TypedStorage(wrap_storage=tensor, dtype=torch.float32, _internal=True)
    torch.save(storage, file, _use_new_zipfile_serialization=False)
    data = file.getvalue()
    raw = 4 * numbers
    if inner is not None:
        data = data[: -raw - 8] + inner.to_bytes(8, "little") + data[-raw:]
    if claimed is not None:
        short = b"K" + bytes([numbers])
        assert data.count(short) == 1
        data = data.replace(short, b"J" + claimed.to_bytes(4, "little"))
    return data


def zipped(size: int) -> bytes:
    """A torch file of zeros, compressed as torch never does."""
    file, bomb = io.BytesIO(), io.BytesIO()
    torch.save(torch.zeros(4).untyped_storage(), file)
    with (
        zipfile.ZipFile(file) as source,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, bytes(size) if "/data/" in name else source.read(name))
    return bomb.getvalue()


FIVE = legacy(5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Rebuilt(Loaded(FIVE), 0, (5,), (0,)), "overlap or lie apart"),
        (Rebuilt(Loaded(FIVE), 0, (1 << 30,), (0,)), "overlap or lie apart"),
        (Rebuilt(Loaded(FIVE), 0, (2, 3), (1, 1)), "overlap or lie apart"),
        (Rebuilt(Loaded(FIVE), 0, (3,), (2,)), "overlap or lie apart"),
        (Rebuilt(Loaded(FIVE), 0, 9 * (1,), 9 * (1,)), "with strides"),
        (Rebuilt(Loaded(FIVE), 0, (-5,), (1,)), r"the size \(-5,\)"),
        (Rebuilt(Loaded(FIVE), -1, (5,), (1,)), r"the size \(5,\)"),
        (Rebuilt(Loaded(FIVE), 0, (True,), (1,)), r"the size \(True,\)"),
        (Rebuilt(Loaded(FIVE), 0, (1 << 200,), (1,)), "the size"),
        (Rebuilt(Loaded(FIVE), 0, [5], [1]), "without a storage"),
        (Rebuilt(Loaded(FIVE), 0, (5, 1), (1,)), "with strides"),
        (Rebuilt(Loaded(FIVE), 0, (6,), (1,)), r"has the shape \(6,\), not \(5,\)"),
        (Rebuilt(Loaded(FIVE), 1, (5,), (1,)), "in a storage of 5 numbers"),
        (Rebuilt(Loaded(legacy(4)), 0, (5,), (1,)), "in a storage of 4 numbers"),
        (Rebuilt(Loaded(legacy(5, claimed=2**31 - 1)), 0, (5,), (1,)), "in a storage of 5 numbers"),
        (Rebuilt(Loaded(legacy(5, inner=1 << 40)), 0, (5,), (1,)), "ends too early"),
        (Rebuilt(Loaded(FIVE[:-8]), 0, (5,), (1,)), "ends too early"),
        (Rebuilt(Loaded(zipped(200_000_000)), 0, (5,), (1,)), "truncated or not a pickle"),
        (Rebuilt(Loaded(5 * b"\x80\x02N."), 0, (5,), (1,)), "a storage that torch did not write"),
        (Rebuilt(Loaded(1000 * b"N"), 0, (5,), (1,)), "more than 200 instructions"),
        (Rebuilt(Loaded(b"cos\nsystem\n."), 0, (5,), (1,)), r"a storage asks for os\.system"),
        (Rebuilt("text", 0, (5,), (1,)), "without a storage"),
        ("text", "is no tensor"),
    ],
)
def test_tensors_are_bounded(authors, tmp_path: Path, tensor: object, message: str) -> None:
    inside = content(authors.EasyDict)
    part_of(inside, "G_ema", "mapping")["_buffers"]["w_avg"] = tensor
    refused(tmp_path / "tensor.pkl", inside, message)


def test_a_storage_serves_one_tensor(authors, tmp_path: Path) -> None:
    """Otherwise a small file makes networks of any size."""
    inside = content(authors.EasyDict)
    buffers = part_of(inside, "G_ema", "mapping", "fc0")["_parameters"]
    buffers["bias"] = part_of(inside, "G_ema", "mapping")["_buffers"]["w_avg"]
    refused(tmp_path / "shared.pkl", inside, "tensors share their numbers")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_and_orders_of_weights_are_read(authors, tmp_path: Path, dtype: torch.dtype) -> None:
    inside, expected = content(authors.EasyDict), tiny_networks()
    parameters = part_of(inside, "D", "b16", "conv0")["_parameters"]
    parameters["weight"] = parameters["weight"].to(dtype, memory_format=torch.channels_last)
    found = read_pickle(written(tmp_path / "mixed.pkl", inside))["discriminator.b16.conv0.weight"]
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected["discriminator.b16.conv0.weight"].to(dtype).float())


def test_whole_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "zip.pkl", zipped(200_000_000), "a zip file")
    sparse = tmp_path / "sparse.pkl"
    with sparse.open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(DataError, match=r"5,368,709,120 bytes; the limit is"):
        read_pickle(sparse)
    os.mkfifo(tmp_path / "pipe.pkl")
    with pytest.raises(DataError, match=r"pipe\.pkl is refused: it is no regular file"):
        read_pickle(tmp_path / "pipe.pkl")
    with pytest.raises(DataError, match=r"none\.pkl can't be read: No such file"):
        read_pickle(tmp_path / "none.pkl")


@pytest.mark.slow
def test_changed_bytes_never_do_harm(authors, tmp_path: Path) -> None:
    data = bytearray(pickle.dumps(content(authors.EasyDict, CLAMPED)))
    draws = random.Random(0)
    path = tmp_path / "changed.pkl"
    for _ in range(200):
        changed = bytearray(data)
        for _ in range(draws.choice([1, 3, 30])):
            changed[draws.randrange(len(changed))] = draws.randrange(256)
        path.write_bytes(changed)
        with contextlib.suppress(DataError):  # a weight's value may have changed
            read_pickle(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": 10**6}, "layers from 1 to 64"),
        ({"channel_max": 10**9}, "channel_max from"),
        ({"channel_base": 1 << 20, "channel_max": 1 << 14, "resolution": 1024}, "do not fit the sizes"),
        ({"more": 1}, "no sizes of stylegan2"),
    ],
)
def test_sizes_in_safetensors_are_bounded_too(changes: dict, message: str) -> None:
    state = tiny_networks()
    text = json.dumps(json.loads(bytes(state["shape"].tolist())) | changes)
    state["shape"] = torch.frombuffer(bytearray(text, "ascii"), dtype=torch.uint8)
    with pytest.raises(MiaBenchError, match=message):
        build(state, 16, crop=None, partial=False)
    for wrong in (torch.zeros(5), torch.zeros(5, dtype=torch.uint8), torch.zeros((), dtype=torch.uint8)):
        with pytest.raises(DataError, match="no sizes of stylegan2"):
            build({**state, "shape": wrong}, 16, crop=None, partial=False)


# --- the authors' code ---------------------------------------------------------------------------

CHECKOUTS = {"stylegan2-ada-pytorch": "MIA_BENCH_STYLEGAN2_REF", "stylegan3": "MIA_BENCH_STYLEGAN3_REF"}


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``checkout(name)`` makes the modules of a repository of the authors importable."""

    def use(name: str) -> None:
        given = os.environ.get(CHECKOUTS[name])
        if not given:
            pytest.skip(f"{CHECKOUTS[name]} names no checkout of {name}")
        monkeypatch.syspath_prepend(given)
        for module in list(sys.modules):
            if module.partition(".")[0] in ("dnnlib", "torch_utils", "training"):
                monkeypatch.delitem(sys.modules, module)
        if importlib.util.find_spec("pkg_resources") is None:  # stylegan3 takes one function from it
            versions = types.SimpleNamespace(parse_version=packaging.version.parse)
            monkeypatch.setitem(sys.modules, "pkg_resources", versions)

    return use


@pytest.mark.parametrize("author", CHECKOUTS)
@pytest.mark.parametrize(
    ("resolution", "base", "clamp"), [(64, 4096, None), (64, 16384, 256.0), (256, 4096, 256.0)]
)
def test_networks_answer_as_the_authors_do(
    checkout, tmp_path: Path, author: str, resolution: int, base: int, clamp: float | None
) -> None:
    """Random weights, written by the authors' code, read by ours: at most 1e-4 apart."""
    checkout(author)
    import dnnlib
    from training import augment

    theirs = importlib.import_module(
        "training.networks" if author != "stylegan3" else "training.networks_stylegan2"
    )
    torch.manual_seed(resolution)
    sizes = {"channel_base": base, "num_fp16_res": 4}
    if author != "stylegan3" or clamp is None:  # stylegan3's default is 256
        sizes["conv_clamp"] = clamp
    common = {"c_dim": 0, "img_resolution": resolution, "img_channels": 3}
    synthesis = sizes if author == "stylegan3" else {"synthesis_kwargs": sizes}
    their_generator = randomised(theirs.Generator(z_dim=512, w_dim=512, **synthesis, **common).eval())
    their_generator.mapping.w_avg.normal_().mul_(0.1)
    their_judge = randomised(
        theirs.Discriminator(epilogue_kwargs={"mbstd_group_size": 4}, **sizes, **common).eval()
    )
    inside = {
        "G": None,
        "D": their_judge,
        "G_ema": their_generator,
        "augment_pipe": augment.AugmentPipe(xflip=1, imgfilter=1),
        "training_set_kwargs": dnnlib.EasyDict(),
    }
    path = written(tmp_path / "random.pkl", inside)
    given = read_pickle(path)
    shape = Shape.from_tensor(given["shape"])
    assert shape.clamp == clamp
    generator, judge = Generator(shape), Discriminator(shape)
    generator.load_state_dict(with_prefix(given, "generator"))
    judge.load_state_dict(with_prefix(given, "discriminator"))
    z = torch.randn(4, 512)
    depth = generator.synthesis.depth
    with torch.no_grad():
        w = generator.mapping(z)
        for truncation, cutoff in ((1.0, None), (0.5, None), (0.5, 8)):
            expected = their_generator(
                z,
                None,
                truncation_psi=truncation,
                truncation_cutoff=cutoff,
                noise_mode="const",
                force_fp32=True,
            )
            short = generator.mapping.truncate(w, truncation)
            styles = torch.stack(
                [short if cutoff is None or layer < cutoff else w for layer in range(depth)], 1
            )
            images = generator.synthesis(styles, lambda constant: constant)
            assert float(expected.std()) > 0.1
            assert float((images - expected).abs().max()) <= 1e-4
        images = torch.randn(8, 3, resolution, resolution)
        expected = their_judge(images, None, force_fp32=True).squeeze(1)
        assert float(expected.std()) > 1e-4
        assert float((judge(images) - expected).abs().max()) <= 1e-4


@pytest.mark.parametrize(
    ("config", "arguments"),
    [("t", {}), ("r", {"conv_kernel": 1, "use_radial_filters": True})],
)
def test_the_authors_networks_of_stylegan3_are_refused(
    checkout, tmp_path: Path, config: str, arguments: dict
) -> None:
    checkout("stylegan3")
    from training import networks_stylegan2, networks_stylegan3

    common = {"c_dim": 0, "img_resolution": 32, "img_channels": 3, "channel_base": 512}
    inside = {
        "G_ema": networks_stylegan3.Generator(z_dim=64, w_dim=64, **common, **arguments),
        "D": networks_stylegan2.Discriminator(**common),
    }
    with pytest.raises(DataError, match=rf"StyleGAN3 \(config {config}\)"):
        read_pickle(written(tmp_path / "new.pkl", inside))
