"""Eigenfaces against scikit-learn's PCA."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from mia_bench.api.dataset import ImageSet
from mia_bench.api.prior import PriorTask
from mia_bench.errors import DataError
from mia_bench.store import Store, StoredCheckpoint
from mia_bench_plugins.priors.eigenfaces import Eigenfaces, principal_components


def faces(count: int = 120, size: int = 6) -> torch.Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), generator=draws, dtype=torch.uint8)


def fit(images: torch.Tensor, components: int, *, mirror: bool = False) -> dict[str, torch.Tensor]:
    return principal_components(images, components, mirror=mirror, device=torch.device("cpu"))


def test_equals_scikit_learn() -> None:
    images = faces()
    state = fit(images, 10)
    pca = PCA(10, svd_solver="full").fit(images.flatten(1).numpy() / 255.0)
    np.testing.assert_allclose(state["mean"], pca.mean_, atol=1e-6)
    expected = pca.components_ * np.sqrt(pca.explained_variance_)[:, None]
    signs = np.sign((state["basis"].numpy() * expected).sum(1, keepdims=True))
    np.testing.assert_allclose(state["basis"].numpy() * signs, expected, atol=1e-5)


def test_mirror_fits_the_mirrored_images_too() -> None:
    images = faces()
    state = fit(images, 8, mirror=True)
    both = fit(torch.cat([images, images.flip(3)]), 8)
    torch.testing.assert_close(state["mean"], both["mean"])
    torch.testing.assert_close(state["basis"].norm(dim=1), both["basis"].norm(dim=1))


def test_more_components_than_images_are_cut() -> None:
    assert fit(faces(5), 50)["basis"].shape[0] == 4


def test_samples_have_the_covariance_of_the_data() -> None:
    """Before clipping: mean and standard deviation of the pixels."""
    images = faces(400)
    prior = Eigenfaces(Eigenfaces.Options(components=108, mirror=False))
    state = fit(images, 108)
    model = prior.build(state, resolution=6)
    latents = model.sample(20000, torch.Generator().manual_seed(1))
    flat = state["mean"] + latents @ state["basis"]
    pixels = images.flatten(1).float() / 255
    torch.testing.assert_close(flat.mean(0), pixels.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(flat.std(0), pixels.std(0), atol=0.02, rtol=0)
    assert model(latents[:3]).shape == (3, 3, 6, 6)
    assert 0 <= model(latents).min() <= model(latents).max() <= 1


def test_truncation_scales_towards_the_mean() -> None:
    model = Eigenfaces().build(fit(faces(), 5), resolution=6)
    full = model.sample(4, torch.Generator().manual_seed(3))
    half = model.sample(4, torch.Generator().manual_seed(3), truncation=0.5)
    torch.testing.assert_close(half, full / 2)
    mean = model(model.sample(1, torch.Generator(), truncation=0.0))
    torch.testing.assert_close(mean.flatten(), model.mean)


def test_wrong_resolution_is_refused() -> None:
    with pytest.raises(DataError, match="8×8"):
        Eigenfaces().build(fit(faces(), 5), resolution=8)


def test_fit_through_the_contract(tmp_path: Path) -> None:
    public = ImageSet(faces(), torch.zeros(120).long())
    task = PriorTask(
        public=public,
        source="test",
        resolution=6,
        generator=torch.Generator(),
        device=torch.device("cpu"),
        progress=lambda done, total, unit: None,
        checkpoint=StoredCheckpoint(Store(tmp_path), tmp_path / "checkpoint"),
        weights=None,
        watch=lambda model, step: None,
    )
    state = Eigenfaces(Eigenfaces.Options(components=7)).fit(task)
    assert state["basis"].shape == (7, 108)
