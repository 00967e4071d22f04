"""Plugins that do what they must not: they are named in one line, and the rest of the grid finishes."""

import re
from pathlib import Path
from textwrap import dedent

import pytest

from mia_bench.errors import LONGEST
from mia_bench.plugins import host

pytestmark = pytest.mark.slow

SHARED = ("data", "prior", "evaluator", "gallery")
TRAINED = (*SHARED, "train", "assess")

HEAD = """
from pathlib import Path

import torch

from mia_bench import (
    Attack, AttackMetric, Dataset, Defense, Measurement, Prior, Quantity, Reconstructions, hookimpl
)
from mia_bench.api.generative import GenerativeModel
from mia_bench_plugins.datasets.synth_faces import SynthFaces


def samples(task):
    count = len(task.classes) * task.images_per_class
    latents = task.prior.sample(count, task.generator)
    images = task.prior.pictures(latents, device=task.device)
    shape = (len(task.classes), task.images_per_class)
    return Reconstructions(images.unflatten(0, shape), latents.unflatten(0, shape))
"""

TRACK = """
extends = "toy"
name = "hostile"
version = 1
summary = "the toy track with what is hostile"

[target]
recipe = { epochs = 1 }

[evaluation]
recipe = { epochs = 1 }
"""


SMALL = """
[data.dataset]
name = "{}"
[data.dataset.options]
identities = 6
train = 4
validation = 2
test = 2
public_identities = 8
public_images = 2
decoys = 4
decoy_images = 2
"""


@pytest.fixture
def hostile(sites, toy_site: Path, tmp_path: Path, forget_hostile):
    """Installs the plugin ``hostile`` beside the toy track: classes, named ``hostile`` or ``hostile-N``."""

    def install(kind: str, *bodies: str, track: str = "") -> list[str]:
        site = tmp_path / "hostile-site"
        folder = site / "hostile-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text("[mia_bench]\nhostile = hostile_plugin\n")
        hook = {"metric": "metrics"}.get(kind, f"{kind}s")
        names = [f"hostile-{n}" for n in range(len(bodies))] if len(bodies) > 1 else ["hostile"]
        lines = [HEAD, "KNOWN = {}"]
        for name, body in zip(names, bodies, strict=True):
            lines += [dedent(body), f"KNOWN['{name}'] = Hostile"]
        lines += ["@hookimpl", f"def mia_bench_register_{hook}(register):"]
        lines += ["    for name, known in KNOWN.items(): register(name, known)"]
        if track:
            (site / "hostile.toml").write_text(TRACK.replace("\n[target]", f"\n{dedent(track)}\n[target]", 1))
            lines += ["@hookimpl", "def mia_bench_register_priors(register):"]
            lines += ["    register('quick', 'mia_bench.testing.world:ToyPrior', summary='quick')"]
            lines += ["@hookimpl", "def mia_bench_register_tracks(register):"]
            lines += ["    register('hostile', Path(__file__).with_name('hostile.toml'))"]
        (site / "hostile_plugin.py").write_text("\n".join(lines) + "\n")
        sites(toy_site, site)
        (info,) = [one for one in host().plugins if one.distribution == "hostile"]
        assert info.status == "ok", info.error
        return names

    return install


@pytest.fixture
def forget_hostile():
    import sys

    yield
    sys.modules.pop("hostile_plugin", None)


def attack(work: str) -> str:
    return f"""
    class Hostile(Attack):
        summary = "hostile"

        def invert(self, task):
            result = samples(task)
            {work}
            return result
    """


ATTACKS = {
    "torch.set_grad_enabled(False)": "it changes torch's gradient mode for the whole process",
    "torch.set_default_dtype(torch.float64)": "it changes torch's default dtype",
    "task.access.model.register_forward_hook(lambda m, i, o: o * 0)": "the attack changed hooks or",
    "task.access.model.forward = lambda images: torch.zeros(len(images), 6)": "the attack changed",
    "result = Reconstructions(result.images, result.latents[0, 0])": "returned latents (24,)",
    "result = Reconstructions(result.images, result.latents * torch.nan)": "latents with NaN",
    "result = Reconstructions(result.images, None, {'x': torch.zeros(2)})": "diagnostics 'x' (2,), expected",
    "result = Reconstructions(result.images, None, [1])": "AttributeError",
    "result = Reconstructions(result.images.long())": "returned images of torch.int64",
    "raise SystemExit(3)": "SystemExit: 3 (hostile_plugin.py:",
    "raise ValueError('x' * 10000)": "ValueError: xxx",
    "task.prior.pictures(torch.ones(2, 3, 4), device=task.device)": "RuntimeError: ",
    "task.reconstructions(torch.zeros(6, 24))": "images, dimensions), not of shape (6, 24) (hostile",
    "task.progress(float('nan'), 2, 'x')": "ValueError: cannot convert float NaN to integer",
    "task.progress(1, 2, '[/x]\\x1b[31m' * 99); print('[]' * 9); result = None": "NoneType",
}
RAISED = {
    "KeyboardInterrupt()": "KeyboardInterrupt: no message (hostile_plugin.py:",
    "SystemExit('[/x]\\n')": "SystemExit: [/x] (hostile_plugin.py:",
    "GeneratorExit('odd')": "GeneratorExit: odd (hostile_plugin.py:",
    "type('Odd', (BaseException,), {})('odd')": "Odd: odd (hostile_plugin.py:",
    "mia_bench.errors.UsageError('odd \\x1b[2J')": ": odd \ufffd[2J",
    "mia_bench.errors.StoreError('odd')": ": odd",
    "click.UsageError('odd')": "UsageError: odd (hostile_plugin.py:",
    "click.exceptions.Exit(0)": "Exit: 0 (hostile_plugin.py:",
    "click.Abort()": "Abort: no message (hostile_plugin.py:",
    "BrokenPipeError(32, 'odd')": "BrokenPipeError: [Errno 32] odd (hostile_plugin.py:",
}
"""What would end a command, or interrupt it, if it were not a plugin that raised it."""


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_what_an_attack_raises_fails_its_cell(cli, hostile, store, jobs: int) -> None:
    raised = RAISED if jobs == 1 else dict(list(RAISED.items())[:6])
    errors = ", ".join(f"lambda: {one}" for one in raised)
    hostile(
        "attack",
        f"""
        import click, mia_bench.errors
        from pydantic import Field

        class Hostile(Attack):
            summary = "hostile"

            class Options(Attack.Options):
                number: int = Field(0, ge=0, description="which error")

            def invert(self, task):
                raise [{errors}][self.options.number]()
        """,
    )
    store(*TRAINED)
    options = [word for number in range(len(raised)) for word in ("-o", f"hostile.number={number}")]
    outcome = cli("run", "--track", "toy", "--defense", "none", "--attack", "hostile", *options,
                  "--attack", "prior-sample", "--device", "cpu", "--jobs", jobs,
                  "--format", "json")  # fmt: skip
    assert outcome.code == 1, outcome.err
    records = {record["attack"]["options"].get("number"): record for record in outcome.records}
    assert records.pop(None)["status"] == "done"
    for number, told in enumerate(raised.values()):
        record = records[number]
        assert record["status"] == "failed"
        assert record["reason"].startswith("invert of plugin hostile:hostile: ")
        assert told in record["reason"]
        assert record["reason"].isprintable()
    assert "Traceback" not in outcome.err


def test_what_plugins_print_is_not_among_the_results(cli, hostile, store) -> None:
    hostile("attack", attack("print('[odd]')"))
    store(*TRAINED)
    outcome = cli("run", "--track", "toy", "--defense", "none", "--attack", "hostile", "--device", "cpu",
                  "--format", "json")  # fmt: skip
    assert [record["status"] for record in outcome.records] == ["done"]
    assert "[odd]" in outcome.err


def test_what_a_defense_raises_while_a_run_is_planned_leaves_it_out(cli, hostile, store) -> None:
    bodies = [
        "import click, mia_bench.errors\n\nclass Hostile(Defense):\n    summary = 'hostile'\n"
        f"    def __init__(self, options=None): raise {one}\n"
        for one in RAISED
    ]
    names = hostile("defense", *bodies)
    store(*TRAINED)
    asked = [word for name in [*names, "none"] for word in ("--defense", name)]
    outcome = cli("run", "--track", "toy", *asked, "--attack", "prior-sample", "--dry-run")
    assert outcome.code == 0, outcome.err
    left_out = [line for line in outcome.err.splitlines() if "is left out" in line]
    assert len(left_out) == len(names) == outcome.err.count("\n")
    assert "none × prior-sample" in outcome.out


def test_attacks_are_named_and_the_others_are_as_without_them(cli, hostile, store, undisturbed) -> None:
    names = hostile("attack", *map(attack, ATTACKS))
    store(*TRAINED)
    asked = [word for name in [*names, "ppa"] for word in ("--attack", name)]
    outcome = cli("run", "--track", "toy", "--defense", "none", *asked, "--device", "cpu",
                  "--format", "json")  # fmt: skip
    assert outcome.code == 1
    *failed, done = outcome.records
    for name, record, told in zip(names, failed, ATTACKS.values(), strict=True):
        assert record["reason"].startswith(f"invert of plugin hostile:{name}")
        assert told in record["reason"]
        assert len(record["reason"]) < LONGEST + 200
        assert "\n" not in record["reason"]
    assert done["metrics"] == undisturbed.records[done["key"]]["metrics"]
    assert "Traceback" not in outcome.err


DEFENSES = {
    "def __init__(self, options=None): raise RuntimeError('init no')": "RuntimeError: init no",
    "class Options(Defense.Options):\n        x: int = Field(default_factory=lambda: 1 / 0)": (
        "ZeroDivisionError"
    ),
    "class Options(Defense.Options):\n        x: int": (
        "hostile-2.x has no default: give one with -o hostile-2.x=VALUE"
    ),
    "def deploy(self, model): raise RuntimeError('deploy no')": "RuntimeError: deploy no",
    "def deploy(self, model): return None": "deploy returned NoneType, not a module",
    "def deploy(self, model): return torch.nn.Flatten()": (
        "the model that deploy returned answers one image with (1, 768), not with logits (1, 6)"
    ),
    "def deploy(self, model): return torch.nn.Linear(7, 6)": "RuntimeError: mat1 and mat2",
    "def build_model(self, build, context): return torch.nn.Flatten()": (
        "TypeError: build_model returned Flatten, not a mia_bench.Classifier"
    ),
    "def loss(self, step): return 1.0": "TypeError: loss returned float, not a tensor",
    "def loss(self, step): return step.outputs.logits.sum(1)": (
        "TypeError: loss returned a tensor of shape (16,), not a single number"
    ),
    "@property\n    def stochastic(self): raise RuntimeError('draws no')": "RuntimeError: draws no",
    "def report(self, setup): return {3: 1.0}": "its report has the name 3",
    "def loss(self, step): raise SystemExit('no more')": "SystemExit: no more",
}


def test_an_option_without_default_can_be_given(cli, hostile) -> None:
    (name,) = hostile(
        "defense", "class Hostile(Defense):\n    class Options(Defense.Options):\n        x: int\n"
    )
    words = ("run", "--track", "toy", "--attack", "ppa", "--dry-run", "--defense", name)
    assert "no default" in cli(*words).err
    given = cli(*words, "-o", f"{name}.x=3")
    assert given.code == 0, given.err
    assert f"{name} (x=3)" in given.out
    assert "none: required" in cli("describe", name).out


def test_defenses_are_named_and_the_others_finish(cli, hostile, store) -> None:
    head = "import torch\nfrom pydantic import Field\n\nclass Hostile(Defense):\n"
    bodies = [f"{head}    {body}\n" for body in DEFENSES]
    names = hostile("defense", *bodies)
    store(*TRAINED)
    asked = [word for name in [*names, "none"] for word in ("--defense", name)]
    outcome = cli("run", "--track", "toy", *asked, "--attack", "prior-sample", "--device", "cpu",
                  "--format", "json")  # fmt: skip
    assert outcome.code == 1
    *failed, done = outcome.records
    assert (done["defense"]["name"], done["status"]) == ("none", "done")
    told = [record["reason"] for record in failed]
    told += [line for line in outcome.err.splitlines() if "is left out" in line]
    assert len(told) == len(names)
    for name, reason in zip(names, DEFENSES.values(), strict=True):
        assert [line for line in told if re.search(rf"{name}\b", line) and reason in line], told
    assert "Traceback" not in outcome.err


def prior(forward: str) -> str:
    return f"""
    class Hostile(Prior):
        summary = "hostile"

        def fit(self, task):
            return {{}}

        def build(self, state, *, resolution):
            class Model(GenerativeModel):
                latent_dim, resolution = 4, 16

                def sample(self, count, generator, *, truncation=1.0):
                    return torch.randn(count, 4, generator=generator)

                def forward(self, latents):
                    return {forward}

            return Model()
    """


PRIORS = {
    "torch.full((len(latents), 3, 16, 16), 1.5)": "the prior makes images from 1.5 to 1.5",
    "torch.full((len(latents), 3, 16, 16), torch.nan)": "the prior makes images with NaN",
    "1 / 0": "in plugin hostile:hostile: ZeroDivisionError",
}


def test_priors_are_named_and_the_others_finish(cli, hostile, store) -> None:
    names = hostile("prior", *map(prior, PRIORS))
    store(*TRAINED)
    asked = [word for name in [*names, "eigenfaces"] for word in ("--prior", name)]
    outcome = cli("run", "--track", "toy", "--defense", "none", "--attack", "prior-sample", *asked,
                  "--device", "cpu", "--format", "json")  # fmt: skip
    assert outcome.code == 1
    *failed, done = outcome.records
    for record, told in zip(failed, PRIORS.values(), strict=True):
        assert told in record["reason"]
    assert done["status"] == "done"


METRICS_OF_TRACK = 'metrics = ["utility", "evaluation-classifier", "hostile"]' + SMALL.format("synth-faces")


def metric(work: str) -> str:
    return f"""
    class Hostile(AttackMetric):
        summary = "hostile"
        quantities = {{"hostile_share": Quantity("hostile", "lower", "share")}}

        def compute(self, evidence):
            import numpy as np
            groups = evidence.labels.numpy()
            found = {{"hostile_share": Measurement(np.ones(len(groups)), groups)}}
            {work}
            return found
    """


METRICS = {
    "raise RuntimeError('metric no')": "RuntimeError: metric no (hostile_plugin.py:",
    "found = {'attack_acc1': found['hostile_share']}": "it gives 'attack_acc1', which is not among",
    "evidence.images.zero_()": "it changes images",
    "[p.zero_() for p in evidence.target.parameters()]": "of the target",
    "evidence.target.register_forward_hook(lambda m, i, o: o * 0)": "hooks or forward of",
}


@pytest.mark.slow
@pytest.mark.parametrize("work", METRICS)
def test_a_metric_is_named_and_spoils_no_other_cell(cli, hostile, store, work: str) -> None:
    hostile("metric", metric(work), track=METRICS_OF_TRACK)
    outcome = cli("run", "--track", "hostile", "--defense", "none", "--attack", "prior-sample",
                  "--prior", "quick",
                  "--device", "cpu", "--format", "json")  # fmt: skip
    assert outcome.code == 1
    (failed,) = outcome.records
    assert failed["reason"].startswith("measure: metric 'hostile' of plugin hostile: ")
    assert METRICS[work] in failed["reason"]


def test_a_metric_that_gives_too_little_is_null_with_the_reason(cli, hostile, store) -> None:
    hostile(
        "metric",
        metric("found = {}"),
        track='metrics = ["utility", "hostile"]' + SMALL.format("synth-faces"),
    )
    (record,) = cli("run", "--track", "hostile", "--defense", "none", "--attack", "prior-sample",
                  "--prior", "quick",
                    "--device", "cpu", "--format", "json").records  # fmt: skip
    assert record["metrics"]["hostile_share"] is None
    assert record["notes"]["hostile_share"] == "the metric did not give it"


DATASETS = {
    "splits.train.images.float()": "train images are torch.float32",
    "splits.train.images[:, :1]": "train images are torch.uint8",
    "splits.train.images[:-1]": "train images are torch.uint8",
}


@pytest.mark.parametrize("images", DATASETS)
def test_a_data_set_is_named(cli, hostile, images: str) -> None:
    body = f"""
    class Hostile(SynthFaces):
        def load(self, root, *, scratch, **more):
            import dataclasses
            splits = super().load(root, scratch=scratch, **more)
            train = dataclasses.replace(splits.train, images={images})
            return dataclasses.replace(splits, train=train)
    """
    hostile("dataset", body, track=SMALL.format("hostile"))
    outcome = cli("run", "--track", "hostile", "--defense", "none", "--attack", "prior-sample",
                  "--prior", "quick",
                  "--device", "cpu", "--format", "json")  # fmt: skip
    (record,) = outcome.records
    assert record["reason"].startswith("data of plugin hostile:hostile: ")
    assert DATASETS[images] in record["reason"]


def test_commands_survive_a_component_that_raises(cli, hostile) -> None:
    hostile(
        "dataset",
        """
        class Hostile(SynthFaces):
            summary = "hostile"

            def __init__(self, options=None):
                raise RuntimeError("init no")
        """,
    )
    doctor = cli("doctor")
    assert re.search("BROKEN dataset 'hostile' of plugin hostile:hostile: RuntimeError: init no", doctor.out)
    for words in (("list",), ("data", "list"), ("describe", "hostile"), ("plugins",)):
        outcome = cli(*words)
        assert outcome.code == 0
        assert "hostile" in outcome.out
