"""Random label maps and the images made from them, against independent tools and the paper's distributions."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from regcore.spatial import integrate, resample_displacement, smooth
from regcore.synthesis import intensities
from regcore.synthesis.intensities import (
    ImageRanges,
    WarpRanges,
    draw_image,
    draw_pair,
    label_intensities,
    log_bias_field,
)
from regcore.synthesis.noise import Draws, coarse_shape, normal, number, random_velocity, smooth_noise
from regcore.synthesis.shapes import random_shapes

DRAWS = 200
PLAIN = ImageRanges(b_K=0, b_B=0, sigma_gamma=0, empty_background=0)


def seeded(seed=0):
    return Draws(seed)


def blocks(shape=(48, 64), labels=4):
    """A map of vertical stripes 0 ... labels - 1."""
    stripes = torch.arange(shape[-1]) * labels // shape[-1]
    return stripes.expand(shape).to(torch.uint8)[None, None].contiguous()


def is_uniform(values, low, high):
    """Kolmogorov and Smirnov do not object to U(low, high)."""
    return stats.kstest(np.asarray(values), "uniform", (low, high - low)).pvalue > 0.01


# ---- noise


def test_relative_resolutions_are_rounded_up_as_in_table_1():
    assert coarse_shape((160, 160, 192), 40) == [4, 4, 5]
    assert coarse_shape((10, 64), 32) == [2, 2], "one voxel could not be interpolated between"


def test_smooth_noise_is_linear_between_the_drawn_voxels():
    image = smooth_noise((41, 61), 10, seeded())[0, 0].numpy()
    drawn = normal((1, 1, 5, 7), seeded())[0, 0].numpy()
    at = np.meshgrid(np.linspace(0, 4, 41), np.linspace(0, 6, 61), indexing="ij")
    np.testing.assert_allclose(image, ndimage.map_coordinates(drawn, at, order=1), atol=1e-5)


def test_the_spread_of_velocities_is_uniform_at_each_resolution():
    found = []
    for seed in range(DRAWS):
        velocity = random_velocity((505, 505), [4], 3, seeded(seed))
        assert velocity.shape == (1, 2, 253, 253)
        found.append(float(velocity[:, :, ::2, ::2].std()))  # the drawn voxels; noise between them is fainter
    assert is_uniform(found, 0, 3)


def test_velocities_of_several_resolutions_add_up():
    draws = seeded()
    parts = [random_velocity((64, 48), [r], 3, draws) for r in (8, 16, 32)]
    torch.testing.assert_close(random_velocity((64, 48), [8, 16, 32], 3, seeded()), sum(parts))


# ---- shapes


def test_a_map_is_the_brightest_of_as_many_noise_images():
    found = random_shapes((40, 56), seeded(), labels=6, resolution=8, warp_sd=0)
    draws, images = seeded(), []
    for _ in range(6):
        drawn = normal((1, 1, 5, 7), draws)
        number(0, 1, draws), normal((1, 2, 5, 7), draws)
        at = np.meshgrid(np.linspace(0, 4, 40), np.linspace(0, 6, 56), indexing="ij")
        images.append(ndimage.map_coordinates(drawn[0, 0].numpy(), at, order=1))
    assert (found[0, 0].numpy() == np.argmax(images, 0)).mean() > 0.999, "up to ties"


def test_noise_images_are_warped_by_the_integral_of_a_velocity():
    found = random_shapes((40, 56), seeded(), labels=3, resolution=8, warp_sd=20)
    draws, images = seeded(), []
    for _ in range(3):
        drawn = normal((1, 1, 5, 7), draws)
        sd = 20 * number(0, 1, draws)
        scale = torch.tensor([4 / 39, 6 / 55]).view(1, 2, 1, 1)
        coarse = integrate(sd * scale * normal((1, 2, 5, 7), draws), 5)
        moved = resample_displacement(coarse, (40, 56))[0].numpy()
        here = np.stack(np.meshgrid(np.arange(40), np.arange(56), indexing="ij"))
        at = (here + moved) * scale[0].numpy()
        images.append(ndimage.map_coordinates(drawn[0, 0].numpy(), at, order=1, mode="nearest"))
    assert (found[0, 0].numpy() == np.argmax(images, 0)).mean() > 0.99, "up to ties, and rounding at the border"


@pytest.mark.parametrize("shape", [(32, 40), (16, 24, 20)])
def test_maps_follow_the_seed(shape):
    first, again, other = (random_shapes(shape, seeded(seed), labels=5) for seed in (3, 3, 4))
    assert first.shape == (1, 1, *shape) and first.dtype == torch.uint8 and int(first.max()) < 5
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_shapes_have_all_sizes():
    sizes = np.concatenate([np.bincount(random_shapes((160, 192), seeded(n)).flatten()) for n in range(5)])
    assert sizes.max() > 20 * np.median(sizes[sizes > 0]) / 5 and np.sum(sizes > 0) > 5 * 20


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [((8, 8), 0, "1 to 256 labels"), ((8, 8), 257, "1 to 256 labels"), ((8,), 3, "two or three"), ((1, 8), 3, "2 vox")],
)
def test_what_is_no_map(shape, labels, message):
    with pytest.raises(ValueError, match=message):
        random_shapes(shape, seeded(), labels=labels)


# ---- images


def test_means_and_spreads_of_labels_are_those_of_table_1():
    means, spreads = [], []
    for seed in range(DRAWS):
        image = label_intensities(blocks(labels=2), PLAIN, seeded(seed))[0, 0, :, :32]
        means.append(float(image.mean())), spreads.append(float(image.std()))
    assert is_uniform(means, 25, 225) and is_uniform(spreads, 5, 25)


def test_every_label_has_its_own_intensities_which_are_normal():
    image = label_intensities(blocks((256, 256)), PLAIN, seeded())[0, 0].view(256, 4, 64)
    parts = [part.flatten().numpy() for part in image.unbind(1)]
    assert min(abs(a.mean() - b.mean()) for a, b in itertools.pairwise(parts)) > 1
    for part in parts:
        assert stats.kstest((part - part.mean()) / part.std(), "norm").pvalue > 0.01


def test_the_background_is_empty_in_one_image_of_five():
    ranges = ImageRanges(empty_background=0.2)
    empty = [not label_intensities(blocks(labels=2), ranges, seeded(n))[..., :32].any() for n in range(DRAWS)]
    assert stats.binomtest(sum(empty), DRAWS, 0.2).pvalue > 0.01


def test_the_logarithm_of_the_bias_field_has_a_spread_up_to_its_bound():
    drawn = [log_bias_field((761, 761), ImageRanges(r_B=40), seeded(seed)) for seed in range(DRAWS)]
    assert drawn[0].shape == (1, 1, 20, 20)
    found = [float(field.std()) for field in drawn]
    assert is_uniform(found, 0, 0.3)


def test_images_span_0_to_1_and_are_raised_to_a_power_near_1():
    ranges = replace(PLAIN, sigma_gamma=0.25)
    exponents = []
    for seed in range(DRAWS):
        plain, raised = (draw_image(blocks(), r, seeded(seed)) for r in (PLAIN, ranges))
        assert float(raised.min()) == 0 and float(raised.max()) == 1
        inside = (plain > 0.1) & (plain < 0.9)
        exponents.append(float((raised[inside].log() / plain[inside].log()).median()))
    assert stats.kstest(np.log(exponents), "norm", (0, 0.25)).pvalue > 0.01


def test_the_blur_of_each_axis_is_drawn_apart(monkeypatch):
    drawn = []
    monkeypatch.setattr(intensities, "smooth", lambda image, widths: drawn.append(widths) or smooth(image, widths))
    for seed in range(DRAWS):
        draw_image(blocks((8, 8)), ImageRanges(b_K=2), seeded(seed))
    first, second = np.transpose(drawn)
    assert is_uniform(first, 0, 2) and is_uniform(second, 0, 2)
    assert stats.pearsonr(first, second).pvalue > 0.01


def test_images_follow_the_seed():
    first, again, other = (draw_image(blocks(), ImageRanges(), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_map_of_one_label_makes_an_image():
    image = draw_image(torch.zeros(1, 1, 16, 16, dtype=torch.int16), ImageRanges(), seeded())
    assert torch.isfinite(image).all() and image.max() <= 1


def test_an_empty_image_is_zero():
    ranges = ImageRanges(empty_background=1)
    assert not draw_image(torch.zeros(1, 1, 16, 16, dtype=torch.uint8), ranges, seeded()).any()


def test_thick_slices_lie_along_one_axis():
    ranges = replace(PLAIN, thickest=8)
    rough = []
    for seed in range(20):
        image = draw_image(torch.zeros(1, 1, 64, 64, dtype=torch.uint8), ranges, seeded(seed))[0, 0]
        rough.append(sorted(float(image.diff(dim=axis).abs().mean()) for axis in (0, 1)))
    rough = np.array(rough)
    assert np.median(rough[:, 0] / rough[:, 1]) < 0.6


def test_a_smaller_field_of_view_is_zero_beyond():
    ranges = ImageRanges(a_mu=100, b_B=0, largest_crop=0.2)
    shares = []
    for seed in range(50):
        inside = draw_image(torch.ones(1, 1, 64, 64, dtype=torch.uint8), ranges, seeded(seed))[0, 0] > 0
        kept = [float(inside.any(dim=axis).float().mean()) for axis in (0, 1)]
        shares += kept
    assert min(shares) >= 0.79 and max(shares) == 1 and 0.85 < np.mean(shares) < 0.95


# ---- pairs


def test_a_pair_is_two_deformations_of_its_maps():
    warps = WarpRanges(r_v=(16,), b_v=3, flips=False)
    labels = random_shapes((48, 64), seeded(), labels=8)
    pair = draw_pair(labels, labels, ImageRanges(), warps, seeded(1))
    for seen, velocity in ((pair.moving_labels, pair.velocities[0]), (pair.fixed_labels, pair.velocities[1])):
        moved = resample_displacement(integrate(velocity, 5), (48, 64))[0].numpy()
        here = np.stack(np.meshgrid(np.arange(48), np.arange(64), indexing="ij"))
        at = np.rint(here + moved).astype(int)
        inside = ((at >= 0) & (at < np.array([48, 64])[:, None, None])).all(0)
        expected = np.where(
            inside, labels[0, 0].numpy()[tuple(np.clip(a, 0, n - 1) for a, n in zip(at, (48, 64), strict=True))], 0
        )
        assert (seen[0, 0].numpy() == expected).all()
    assert not torch.equal(pair.moving_labels, pair.fixed_labels) and not torch.equal(pair.moving, pair.fixed)


def test_both_maps_of_a_pair_are_flipped_alike():
    labels = random_shapes((32, 40), seeded(), labels=8)
    still = WarpRanges(b_v=0)
    seen = set()
    for seed in range(40):
        pair = draw_pair(labels, labels, ImageRanges(), still, seeded(seed))
        assert torch.equal(pair.moving_labels, pair.fixed_labels)
        flips = [axes for axes in ((), (2,), (3,), (2, 3)) if torch.equal(labels.flip(axes), pair.moving_labels)]
        seen.update(flips)
    assert seen == {(), (2,), (3,), (2, 3)}


@pytest.mark.parametrize(
    ("moving", "fixed", "message"),
    [
        (torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "moving .* integers"),
        (blocks((8, 8)), torch.full((1, 1, 8, 8), -1), "fixed .* 0 or more"),
        (blocks((8, 8)), blocks((8, 12)), "do not make a pair"),
        (blocks((8, 8)), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "fixed .* integers"),
    ],
)
def test_what_is_no_pair(moving, fixed, message):
    with pytest.raises(ValueError, match=message):
        draw_pair(moving, fixed, ImageRanges(), WarpRanges(), seeded())
