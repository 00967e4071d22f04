"""Whole runs on the pretend device: nothing mixes devices, draws by a wrong generator or reads its memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import mia_bench
from mia_bench.plugins import host
from mia_bench.protocol import oracle
from mia_bench.registry import PluginInfo

TINY = """
extends = "synth-faces"
name = "tiny"
version = 1
images_per_class = 2
attack_batch_size = 64
default_prior = "eigenfaces"

[data]
fingerprint = ""
dataset = { options = { identities = 3, train = 6, validation = 2, test = 3, public_identities = 8, \
public_images = 2, decoys = 12, decoy_images = 3 } }

[target]
architecture = { options = { widths = [8, 8] } }
recipe = { epochs = 2, batch_size = 8, crop = [0.8, 1.0], jitter = 0.1, colour = { hue = 0.1 } }

[evaluation]
architecture = { options = { widths = [8, 8] } }
recipe = { epochs = 1, batch_size = 8 }

[priors]
eigenfaces = { components = 6 }
wgan-gp = { latent = 4, width = 2, steps = 2, batch_size = 4, critic_steps = 2 }

[priors.stylegan2]
latent = 4
style = 4
layers = 1
channel_base = 64
channel_max = 4
steps = 2
batch_size = 4
path_length = 2.0
path_every = 1
r1_every = 1
augment = true

[defenses]
dp-sgd = { epsilon = 50.0, physical_batch_size = 4 }

[attacks.ppa]
prior = "stylegan2"
options = { search = 6, candidates = 2, steps = 2, views = 2 }

[attacks.ppa-steps]
like = "ppa"

[attacks.ppa-rescaled]
like = "ppa"
options = { calibration = 4 }

[attacks.ppa-distilled]
like = "ppa"
options = { samples = 4, public = 4, student_steps = 2, student_batch = 2, student_widths = [4] }

[attacks.mirror]
options = { search = 20, population = 6, generations = 3 }

[attacks.brep-mi]
options = { search = 1000, points = 4, steps = 20 }

[attacks.gmi]
prior = "wgan-gp"
options = { steps = 2, restarts = 2 }
"""

FLOOR = "prior-sample"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A track whose cells take seconds, with every built-in prior."""
    monkeypatch.setattr(oracle, "SAMPLES", 20)
    monkeypatch.setattr(oracle, "STEPS", 2)
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    host.cache_clear()
    owner = PluginInfo("made", "made-dist", "1", "made")
    host().registry.add("track", "tiny", path, "", owner)
    yield "tiny"
    host.cache_clear()


@pytest.mark.slow
def test_every_built_in_defense_attack_and_prior_runs(tiny, on_pretend, tmp_path) -> None:
    registry = host().registry
    defenses, attacks = (registry.names(kind) for kind in ("defense", "attack"))
    records = mia_bench.run(
        track=tiny,
        defense=defenses,
        attack="ppa",
        options={"bido.measure": ["hsic", "coco"]},
        store=tmp_path / "store",
    )
    assert len(records) == len(defenses) + 1
    records += mia_bench.run(track=tiny, defense="mid", attack=attacks, store=tmp_path / "store")
    assert {record.attack.name for record in records} == set(attacks)
    assert {record.prior.name for record in records if record.prior} == set(registry.names("prior"))
    failed = [record.reason for record in records if record.status != "done"]
    assert not failed
    for record in records:
        assert record.provenance.device == "pretend:0"
        assert record.metrics["attack_acc1"] is not None
