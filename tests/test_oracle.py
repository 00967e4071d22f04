"""The prior oracle: imitations of test images against brute force, and its stage in a run."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mia_bench.api.dataset import ImageSet
from mia_bench.api.images import to_float
from mia_bench.api.metric import Imitations
from mia_bench.config import load_config
from mia_bench.engine import run
from mia_bench.engine.measure import measure, plan_measurement
from mia_bench.engine.run import execute, prepare
from mia_bench.errors import Diverged
from mia_bench.protocol import oracle
from mia_bench.protocol.gallery import build_gallery
from mia_bench.protocol.oracle import first_of_each, imitate
from mia_bench.testing import world as toy
from mia_bench.track import load_track
from mia_bench_plugins.metrics.identification import identify
from mia_bench_plugins.metrics.prior_oracle import PriorOracle
from mia_bench_plugins.priors.eigenfaces import principal_components
from mia_bench_plugins.priors.linear_model import LinearModel

CPU = torch.device("cpu")


def undifferentiable(images: Tensor) -> Tensor:
    return toy.embed(images.detach())


def linear(components: int) -> LinearModel:
    state = principal_components(toy.world().splits.public.images, components, mirror=True, device=CPU)
    return LinearModel(state["mean"], state["basis"], toy.RESOLUTION).eval()


def test_the_projection_is_the_nearest_image_of_the_linear_model() -> None:
    """By least squares; with noise of a fixed seed no other latents come nearer."""
    model, images = linear(20), to_float(toy.world().splits.test.images)
    found = model.project(images)
    flat = images.flatten(1) - model.mean
    expected = torch.linalg.lstsq(model.basis.T.double(), flat.T.double()).solution.T
    np.testing.assert_allclose(found.double(), expected, atol=1e-3)
    again = model.project((model.mean + found @ model.basis).view_as(images))
    np.testing.assert_allclose(again, found, atol=1e-3)


def test_axes_without_variance_are_left_alone() -> None:
    model = LinearModel(torch.zeros(12), torch.eye(12)[:2] * torch.tensor([[2.0], [0.0]]), 2)
    assert model.project(torch.ones(1, 3, 2, 2)).tolist() == [[0.5, 0.0]]


def test_at_most_so_many_images_of_each_attacked_class() -> None:
    labels = torch.tensor([2, 0, 0, 0, 0, 0, 1, 2])
    images = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 3, 2, 2)
    chosen = first_of_each(ImageSet(images, labels), 2)
    assert chosen.images[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 6]
    assert chosen.labels.tolist() == [0, 0, 0, 0, 1]
    assert len(first_of_each(ImageSet(images, labels), None)) == 7
    later = ImageSet(images, labels + 1)  # no image is of the first class
    assert first_of_each(later, 2).labels.tolist() == [1] * 4
    assert len(first_of_each(later, 1)) == 0


def test_an_encoder_that_answers_with_nan_identifies_nobody() -> None:
    def broken(images: Tensor) -> Tensor:
        return toy.embed(images) * math.nan

    with pytest.raises(Diverged, match="NaN or infinity"):
        build_gallery(toy.world().splits, broken, toy.context())


@pytest.mark.parametrize("embed", [toy.embed, undifferentiable])
def test_imitations_are_at_least_as_alike_as_samples_and_projections(embed) -> None:
    model, splits = linear(12), toy.world().splits
    images, context = splits.test.images, toy.context()
    wanted = embed(to_float(images))
    made, embeddings = imitate(model, images, embed, context, batch_size=5)
    assert (made.dtype, made.shape) == (torch.uint8, images.shape)
    torch.testing.assert_close(embeddings, embed(to_float(made)))
    alike = F.cosine_similarity(embeddings, wanted)
    samples = model.sample(oracle.SAMPLES, oracle.generator(context.seed, "oracle"))
    sampled = (wanted @ embed(to_float(model.pictures(samples, device=CPU))).T).max(1).values
    projected = embed(to_float(model.pictures(model.project(to_float(images)), device=CPU)))
    least = sampled.maximum(F.cosine_similarity(projected, wanted))
    assert (alike >= least - 1e-5).all()
    if embed is toy.embed:
        assert alike.mean() > least.mean() + 0.01  # fitted further
    again, _ = imitate(model, images, embed, context, batch_size=64)
    assert (again.int() - made.int()).abs().max() <= 1  # batches do not matter


def test_without_closed_form_and_gradient_pixels_are_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = toy.world().prior(CPU), toy.world().splits.test.images
    assert model.project(to_float(images)) is None
    fits = []

    def fit(*given):
        fits.append(given[3])
        return _fit(*given)

    _fit = oracle._fit
    monkeypatch.setattr(oracle, "_fit", fit)
    imitate(model, images, undifferentiable, toy.context(), batch_size=64)
    assert fits == [oracle._pixel_loss]
    imitate(model, images, toy.embed, toy.context(), batch_size=64)
    assert len(fits) == 2
    assert fits[1] is not oracle._pixel_loss
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_metric_identifies_imitations() -> None:
    splits = toy.world().splits
    gallery = build_gallery(splits, toy.embed, toy.context())
    seen = toy.world().attack_evidence(CPU)
    chosen = first_of_each(splits.test, None)
    imitations = Imitations(chosen.images, toy.embed(to_float(chosen.images)), chosen.labels)
    given = type(seen)(**{**vars(seen), "gallery": gallery, "oracle": imitations})
    found = PriorOracle().compute(given)
    expected = identify(imitations.embeddings, chosen.labels, gallery)
    for name in ("id_bits", "id_acc1"):
        assert found[f"{name}_oracle"].values.tolist() == expected[name].values.tolist()
    missing = type(seen)(**{**vars(seen), "oracle": None})
    assert set(PriorOracle().compute(missing).values()) == {"no imitations of test images were made"}
    nobody = type(seen)(**{**vars(seen), "gallery": None, "missing": {"gallery": "no encoder"}})
    assert set(PriorOracle().compute(nobody).values()) == {"no encoder"}


@pytest.mark.slow
def test_a_track_that_names_it_measures_it_with_the_rest(toy, store, monkeypatch, tmp_path: Path) -> None:
    def named(registry, name):
        track = load_track(registry, name)
        return track.model_copy(update={"metrics": [*track.metrics, "prior-oracle"]})

    place = store("data", "gallery", "evaluator", "prior", "train", "assess", "invert")
    given = {"track": "toy", "defense": ["none", "neg-ls"], "attack": "ppa", "device": "cpu", "store": place}
    usual = [cell.measure for cell in prepare(load_config(given)).cells]
    monkeypatch.setattr(run, "load_track", named)
    prepared = prepare(load_config(given))
    measured = [cell.measure for cell in prepared.cells]
    assert [stage.name for stage in prepared.pending[0]] == ["oracle", "measure", "measure"]
    assert measured[0].inputs["oracle"] is measured[1].inputs["oracle"]
    for before, after in zip(usual, measured, strict=True):
        assert "oracle" not in before.inputs
        assert before.key != after.key
        assert before.inputs["invert"].key == after.inputs["invert"].key
    one, other = execute(prepared)
    assert one.metrics["id_bits_oracle"] == other.metrics["id_bits_oracle"] is not None
    assert (one.status, other.status) == ("done", "done")


def test_the_stage_is_one_for_all_cells_of_a_prior(toy, store, undisturbed, tmp_path: Path) -> None:
    place = store("data", "gallery", "evaluator", "prior", "train", "invert", "prepare")
    given = {"track": "toy", "defense": ["none", "neg-ls"], "attack": "ppa", "device": "cpu", "store": place}
    planned = plan_measurement(load_config(given), ["prior-oracle"])
    names = [stage.name for stage in planned.pending[0]]
    assert names == ["oracle", "metric", "metric"]
    one, other = measure(planned)
    assert one.values == other.values
    assert one.values["id_bits_oracle"].n == 24
    ceiling = next(iter(undisturbed.records.values()))["metrics"]["id_bits_ceiling"]["value"]
    assert 0.5 * ceiling < one.values["id_bits_oracle"].value <= ceiling + 0.5
    assert plan_measurement(load_config(given), ["prior-oracle"]).pending[0] == []
