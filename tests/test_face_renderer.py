from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mia_bench_plugins.datasets.face_renderer import (
    IDENTITY_FACTORS,
    NUISANCE_FACTORS,
    add_noise,
    render,
    sample_identities,
    sample_nuisances,
)

K = len(IDENTITY_FACTORS)
M = len(NUISANCE_FACTORS)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def people(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = seeded(seed)
    return sample_identities(count, generator), sample_nuisances(count, generator)


def swept(latents: Tensor, factor: int, value: float) -> Tensor:
    changed = latents.clone()
    changed[:, factor] = value
    return changed


def mean_distance(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().mean().item()


def test_factor_names_are_distinct() -> None:
    names = IDENTITY_FACTORS + NUISANCE_FACTORS
    assert len(set(names)) == len(names)


def test_samples_have_the_asked_shape_and_spread() -> None:
    identities = sample_identities(4000, seeded(1), spread=0.5)
    nuisances = sample_nuisances(4000, seeded(2), strength=2.0)
    assert identities.shape == (4000, K)
    assert nuisances.shape == (4000, M)
    assert identities.dtype == nuisances.dtype == torch.float32
    assert identities.mean(dim=0).abs().max() < 0.05
    assert torch.allclose(identities.std(dim=0), torch.full((K,), 0.5), atol=0.03)
    assert torch.allclose(nuisances.std(dim=0), torch.full((M,), 2.0), atol=0.12)


def test_zero_spread_is_the_average_person() -> None:
    assert not sample_identities(3, seeded(0), spread=0.0).any()
    assert not sample_nuisances(3, seeded(0), strength=0.0).any()


@pytest.mark.parametrize("size", [24, 32, 64, 128])
def test_pictures_have_the_asked_size_and_lie_in_range(size: int) -> None:
    images = render(*people(5), size=size)
    assert images.shape == (5, 3, size, size)
    assert images.dtype == torch.float32
    assert images.min() >= 0.0
    assert images.max() <= 1.0
    assert images.flatten(1).std(dim=1).min() > 0.05


def test_no_one_gives_no_pictures() -> None:
    assert render(torch.zeros(0, K), torch.zeros(0, M)).shape == (0, 3, 32, 32)


def test_far_out_latents_still_give_a_picture() -> None:
    identities, nuisances = people(64, seed=3)
    for factor in (10.0, 1000.0):
        images = render(identities * factor, nuisances * factor)
        assert torch.isfinite(images).all()
        assert images.flatten(1).std(dim=1).min() > 0.02


def test_a_seed_fixes_the_picture() -> None:
    first, second = render(*people(6, seed=4)), render(*people(6, seed=4))
    assert torch.equal(first, second)
    assert not torch.equal(first, render(*people(6, seed=5)))


def test_rendering_leaves_its_arguments_alone() -> None:
    identities, nuisances = people(3, seed=6)
    before = identities.clone(), nuisances.clone()
    render(identities, nuisances)
    assert torch.equal(identities, before[0])
    assert torch.equal(nuisances, before[1])


@pytest.mark.parametrize(("count", "size"), [(300, 32), (40, 128)])
def test_a_row_does_not_depend_on_the_others(count: int, size: int) -> None:
    # Both counts span more than one internal chunk.
    identities, nuisances = people(count, seed=7)
    together = render(identities, nuisances, size)
    for row in (0, 1, count // 2, count - 1):
        alone = render(identities[row : row + 1], nuisances[row : row + 1], size)
        assert torch.allclose(together[row], alone[0], atol=1e-4)
    order = torch.randperm(count, generator=seeded(8))
    shuffled = render(identities[order], nuisances[order], size)
    assert torch.allclose(together[order], shuffled, atol=1e-4)


def test_sizes_show_the_same_face() -> None:
    identities, nuisances = people(32, seed=9)
    small = render(identities, nuisances, 32)
    large = torch.nn.functional.avg_pool2d(render(identities, nuisances, 128), 4)
    assert mean_distance(small, large) < 0.015


@pytest.mark.parametrize("name", IDENTITY_FACTORS)
def test_every_identity_factor_shows(name: str) -> None:
    identities, _ = people(24, seed=10)
    scene = torch.zeros(24, M)
    factor = IDENTITY_FACTORS.index(name)
    low = render(swept(identities, factor, -1.5), scene)
    high = render(swept(identities, factor, 1.5), scene)
    change = (low - high).abs()
    assert change.mean() > 5e-4
    # Small as it may be in the whole, it is plain to see where it acts, on most people.
    assert change.flatten(1).amax(dim=1).median() > 0.05


@pytest.mark.parametrize("name", NUISANCE_FACTORS)
def test_every_nuisance_factor_shows(name: str) -> None:
    identities, nuisances = people(24, seed=11)
    factor = NUISANCE_FACTORS.index(name)
    low = render(identities, swept(nuisances, factor, -1.5))
    high = render(identities, swept(nuisances, factor, 1.5))
    change = (low - high).abs()
    assert change.mean() > 1e-3
    assert change.flatten(1).amax(dim=1).median() > 0.08


def test_identity_factors_leave_the_background_alone() -> None:
    identities, _ = people(16, seed=12)
    corners = render(identities, torch.zeros(16, M))[:, :, :2, :2]
    assert (corners - corners[:1]).abs().max() < 0.02


def test_no_single_factor_carries_the_identity() -> None:
    identities, _ = people(64, seed=13)
    scene = torch.zeros(64, M)
    other = identities.roll(1, dims=0)
    whole = mean_distance(render(identities, scene), render(other, scene))
    for factor in range(K):
        mixed = identities.clone()
        mixed[:, factor] = other[:, factor]
        assert mean_distance(render(identities, scene), render(mixed, scene)) < 0.75 * whole


def test_people_differ_more_than_two_pictures_of_one_person() -> None:
    identities, _ = people(64, seed=14)
    still = torch.zeros(64, M)
    images = render(identities, still)
    assert mean_distance(images, render(identities.clone(), still)) == 0.0
    assert mean_distance(images, images.roll(1, dims=0)) > 0.02
    # The same under a slightly varying scene; and even the two people most alike differ.
    varied = render(identities, sample_nuisances(64, seeded(15), strength=0.1))
    assert mean_distance(images, varied) < 0.5 * mean_distance(images, images.roll(1, dims=0))
    assert torch.pdist(images.flatten(1), p=1).min() / images[0].numel() > 0.02


def test_nuisances_move_the_picture_of_one_person() -> None:
    identity = sample_identities(1, seeded(16)).expand(32, -1)
    images = render(identity, sample_nuisances(32, seeded(17)))
    assert mean_distance(images, images.roll(1, dims=0)) > 0.05


def test_turning_the_head_moves_the_features_that_way() -> None:
    identity, scene = torch.zeros(1, K), torch.zeros(1, M)
    yaw = NUISANCE_FACTORS.index("yaw")
    left = render(identity, swept(scene, yaw, -1.0), 64)
    right = render(identity, swept(scene, yaw, 1.0), 64)
    # The average scene is symmetric, but for the highlights, the parting's strands and the waves.
    assert mean_distance(left, right.flip(-1)) < 0.5 * mean_distance(left, right)


def test_noise_is_seeded_clamped_and_as_strong_as_asked() -> None:
    grey = torch.full((4, 3, 32, 32), 0.5)
    noisy = add_noise(grey, seeded(18), 0.05)
    assert torch.equal(noisy, add_noise(grey, seeded(18), 0.05))
    assert (noisy - grey).std().item() == pytest.approx(0.05, rel=0.05)
    assert torch.equal(grey, torch.full_like(grey, 0.5))
    assert torch.equal(add_noise(grey, seeded(18), 0.0), grey)
    wild = add_noise(grey, seeded(19), 3.0)
    assert wild.min() == 0.0
    assert wild.max() == 1.0


@pytest.mark.parametrize(
    ("identities", "nuisances", "size"),
    [
        (torch.zeros(2, K + 1), torch.zeros(2, M), 32),
        (torch.zeros(2, K), torch.zeros(2, M - 1), 32),
        (torch.zeros(2, K), torch.zeros(3, M), 32),
        (torch.zeros(K), torch.zeros(M), 32),
        (torch.zeros(2, K), torch.zeros(2, M), 0),
    ],
)
def test_wrong_shapes_are_refused(identities: Tensor, nuisances: Tensor, size: int) -> None:
    with pytest.raises(ValueError, match="got"):
        render(identities, nuisances, size)


def test_all_work_stays_on_the_device_of_the_latents() -> None:
    # The meta device refuses to mix with any other, and computes nothing.
    images = render(torch.zeros(2, K, device="meta"), torch.zeros(2, M, device="meta"))
    assert images.is_meta
    assert images.shape == (2, 3, 32, 32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_same_pictures() -> None:
    identities, nuisances = people(16, seed=20)
    there = render(identities.cuda(), nuisances.cuda())
    assert there.is_cuda
    assert torch.allclose(there.cpu(), render(identities, nuisances), atol=2e-3)
