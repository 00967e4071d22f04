"""The procedural data set and its encoder, whose people are known numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mia_bench.api.dataset import Splits
from mia_bench.api.images import to_float
from mia_bench.config import load_config
from mia_bench.engine.run import set_up
from mia_bench.errors import MiaBenchError
from mia_bench.experiments.definition import load_experiment
from mia_bench.protocol.gallery import verify_pairs
from mia_bench_plugins.datasets.synth_faces import SynthFaces
from mia_bench_plugins.encoders.synth_encoder import SynthEncoder
from mia_bench_plugins.priors import shipped_priors
from mia_bench_plugins.priors.stylegan2 import StyleGAN2Prior
from mia_bench_plugins.priors.wgan_gp import WassersteinGAN

CPU = torch.device("cpu")
SMALL = {"identities": 6, "train": 4, "validation": 2, "test": 3, "public_identities": 20,
         "public_images": 2, "decoys": 150, "decoy_images": 4}  # fmt: skip


def load(seed: int = 1, **options: float) -> Splits:
    dataset = SynthFaces(SynthFaces.Options(**{**SMALL, **options}))
    return dataset.load(None, resolution=32, seed=seed, progress=lambda *_: None, scratch=Path("unused"))


@pytest.fixture(scope="module")
def splits() -> Splits:
    return load()


def test_parts_have_the_sizes_asked_and_uint8_images(splits: Splits) -> None:
    sizes = {"train": 24, "validation": 12, "test": 18, "public": 40, "decoys": 600}
    for name, size in sizes.items():
        part = getattr(splits, name)
        assert part.images.shape == (size, 3, 32, 32)
        assert part.images.dtype == torch.uint8
        counts = part.labels.bincount()
        assert bool((counts == counts[0]).all())
    assert splits.num_classes == 6


def test_a_seed_fixes_the_images_and_another_gives_other_people(splits: Splits) -> None:
    assert torch.equal(load().train.images, splits.train.images)
    assert not torch.equal(load(2).train.images, splits.train.images)


def test_parts_of_one_person_are_other_photographs(splits: Splits) -> None:
    train = {tuple(image.flatten().tolist()) for image in splits.train.images}
    others = torch.cat([splits.validation.images, splits.test.images])
    assert train.isdisjoint(tuple(image.flatten().tolist()) for image in others)


def test_private_people_stand_closer_together() -> None:
    dataset = SynthFaces()
    private = dataset.identities(1, "private", 400, 0.5)
    public = dataset.identities(1, "public", 400, 1.0)
    assert float(private.std(0).mean() / public.std(0).mean()) == pytest.approx(0.5, abs=0.05)


def test_more_decoys_leave_the_private_images_as_they_are(splits: Splits) -> None:
    assert torch.equal(load(decoys=10).test.images, splits.test.images)


@pytest.mark.slow
def test_encoder_tells_unseen_people_apart(splits: Splits) -> None:
    embed = SynthEncoder().load(None, device=CPU)
    embeddings = embed(to_float(splits.decoys.images))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(600))
    right = verify_pairs(embeddings, splits.decoys.labels, torch.Generator().manual_seed(0))
    assert float(right.mean()) > 0.97
    # The private people of the track look alike: it must tell them apart as well.
    close = load(identities=60, train=4, test=3)
    train, test = (embed(to_float(p.images)) for p in (close.train, close.test))
    centroids = torch.nn.functional.normalize(train.view(60, 4, -1).mean(1), dim=1)
    found = (test @ centroids.T).argmax(1)
    assert float((found == close.test.labels).float().mean()) > 0.9


def test_encoder_sees_the_person_not_the_photograph(splits: Splits) -> None:
    embed = SynthEncoder().load(None, device=CPU)
    images = to_float(splits.test.images)
    torch.testing.assert_close(embed(images), embed(images.flip(3)), rtol=1e-3, atol=1e-3)


def test_encoder_refuses_another_size() -> None:
    embed = SynthEncoder().load(None, device=CPU)
    with pytest.raises(MiaBenchError, match="32×32"):
        embed(torch.rand(1, 3, 64, 64))


def unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows, dim=1)


def test_verification_of_a_perfect_a_blind_and_a_noisy_encoder() -> None:
    labels = torch.arange(300).repeat_interleave(4)
    draws = torch.Generator().manual_seed(0)
    people = unit(torch.randn(300, 64, generator=draws))
    perfect = verify_pairs(people[labels], labels, torch.Generator().manual_seed(1))
    assert float(perfect.mean()) == 1
    blind = unit(torch.randn(1200, 64, generator=draws))
    chance = verify_pairs(blind, labels, torch.Generator().manual_seed(1))
    assert 0.45 < float(chance.mean()) < 0.56
    noisy = unit(people[labels] + 0.15 * torch.randn(1200, 64, generator=draws))
    between = verify_pairs(noisy, labels, torch.Generator().manual_seed(1))
    assert 0.6 < float(between.mean()) < 1
    # The pairs judged are half of all, as many of one person as of two.
    assert len(perfect) == pytest.approx(900, abs=20)


def test_verification_needs_pairs() -> None:
    embeddings = unit(torch.randn(10, 4, generator=torch.Generator().manual_seed(0)))
    assert len(verify_pairs(embeddings, torch.arange(10), torch.Generator())) == 0


def test_a_variant_with_more_training_images_has_the_public_images_of_its_track(tmp_path: Path) -> None:
    """So that the priors that come with the package are used for it."""
    setup = set_up(load_config({"track": "synth-faces", "device": "cpu", "store": tmp_path}))
    (variation,) = (one for one in load_experiment("little-data").variations_on("synth-faces") if one.dataset)
    tracks = setup.track, variation.of(setup.track)
    ours, source = (replace(setup, track=track).track_plan().data.key for track in tracks)
    assert {source: ours} == shipped_priors.SAME_PUBLIC
    for name, prior in (("stylegan2", StyleGAN2Prior), ("wgan-gp", WassersteinGAN)):
        options = prior.Options(**setup.track.priors[name])
        assert shipped_priors.find(name, source, options) == shipped_priors.find(name, ours, options)
        assert shipped_priors.find(name, ours, options)
    few, many = (load(2024, **{**track.data.dataset.options, "public_identities": 600}) for track in tracks)
    assert torch.bincount(many.train.labels).tolist() == [60] * 60
    assert (few.public.images == many.public.images).all()
    assert (few.test.images == many.test.images).all()
