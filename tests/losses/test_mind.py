"""Self-similarity descriptors against voxel-by-voxel NumPy and SciPy, their invariances and their gradient."""

import itertools
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from regcore.kernels import reference_only
from regcore.losses import mind_ssc, mind_ssc_descriptor, mind_ssc_difference

SHAPES = [(9, 8), (6, 7, 5)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])


@pytest.fixture(params=["kernel", "reference"], autouse=True)
def code(request):
    """Every test runs both."""
    with nullcontext() if request.param == "kernel" else reference_only():
        yield


per_setting = pytest.mark.parametrize("radius, dilation", [(2, 2), (1, 2), (0, 1), (2, 1)])


def random_image(generator, shape, batch=1) -> torch.Tensor:
    return torch.from_numpy(generator.standard_normal((batch, 1, *shape)))


def neighbour_pairs(ndim: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of face neighbours whose squared distance is 2, in lexical order."""
    units = [sign * np.eye(ndim, dtype=int)[axis] for axis in range(ndim) for sign in (-1, 1)]
    return [(a, b) for a, b in itertools.combinations(units, 2) if ((a - b) ** 2).sum() == 2]


def naive_descriptor(image: np.ndarray, radius, dilation) -> np.ndarray:
    """One image (*space) to (pairs, *space): a voxel at a time for the differences, SciPy for the patches."""
    last = np.array(image.shape) - 1
    radius, dilation = (np.broadcast_to(number, image.ndim) for number in (radius, dilation))
    distances = []
    for a, b in neighbour_pairs(image.ndim):
        squared = np.empty_like(image)
        for p in np.ndindex(image.shape):
            first = image[tuple(np.clip(np.array(p) + dilation * a, 0, last))]
            second = image[tuple(np.clip(np.array(p) + dilation * b, 0, last))]
            squared[p] = (first - second) ** 2
        distances.append(uniform_filter(squared, 2 * radius + 1, mode="nearest"))
    distances = np.array(distances)
    distances -= distances.min(axis=0)
    variance = distances.mean(axis=0)
    return np.exp(-distances / np.clip(variance, 0.001 * variance.mean(), 1000 * variance.mean()))


@per_shape
@per_setting
def test_the_descriptor_is_that_of_the_definition(shape, radius, dilation, generator):
    images = random_image(generator, shape, batch=2)
    expected = np.stack([naive_descriptor(image[0], radius, dilation) for image in images.numpy()])
    descriptor = mind_ssc_descriptor(images, radius, dilation)
    assert descriptor.shape == (2, {2: 4, 3: 12}[len(shape)], *shape)
    np.testing.assert_allclose(descriptor.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "shape, radius, dilation",
    [((9, 8), (0, 3), (1, 2)), ((9, 8), [2, 1], 3), ((6, 7, 5), (2, 0, 1), (1, 3, 2)), ((6, 7, 5), 1, (2, 1, 9))],
)
def test_radius_and_dilation_may_be_others_along_each_axis(shape, radius, dilation, generator):
    """Also longer than the image, and no patch at all along an axis with thick slices."""
    fixed, warped = random_image(generator, shape), random_image(generator, shape)
    expected = [naive_descriptor(image[0, 0].numpy(), radius, dilation) for image in (fixed, warped)]
    found = mind_ssc_descriptor(fixed, radius, dilation)
    np.testing.assert_allclose(found[0].numpy(), expected[0], rtol=1e-9, atol=1e-12)
    loss = mind_ssc(fixed, warped, radius, dilation).item()
    assert loss == pytest.approx(np.mean((expected[0] - expected[1]) ** 2), rel=1e-9)


@per_shape
@per_setting
def test_a_known_descriptor_gives_the_loss_of_its_image(shape, radius, dilation, generator):
    """And the same gradients; that of the descriptor is of no image."""
    fixed, warped = (random_image(generator, shape, batch=2).requires_grad_() for _ in range(2))
    loss = mind_ssc(fixed, warped, radius, dilation)
    known = mind_ssc_descriptor(fixed, radius, dilation)
    found = mind_ssc_difference(known, warped, radius, dilation)
    assert found.item() == pytest.approx(loss.item(), rel=1e-12)
    expected = torch.autograd.grad(loss, (fixed, warped))
    of_descriptor, *gradients = torch.autograd.grad(found, (known, fixed, warped))
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    difference = known - mind_ssc_descriptor(warped, radius, dilation)
    torch.testing.assert_close(of_descriptor, 2 * difference / known.numel(), rtol=1e-9, atol=1e-12)


@per_shape
def test_the_loss_is_the_mean_squared_difference_of_descriptors(shape, generator):
    fixed, warped = random_image(generator, shape), random_image(generator, shape)
    expected = np.mean(
        (naive_descriptor(fixed[0, 0].numpy(), 2, 2) - naive_descriptor(warped[0, 0].numpy(), 2, 2)) ** 2
    )
    assert mind_ssc(fixed, warped).item() == pytest.approx(expected, rel=1e-9)
    assert mind_ssc(fixed, fixed).item() == 0


def test_a_clamped_variance_is_that_of_the_definition(generator):
    """A bright point in faint noise: the variance is clamped from below far from it, from above nowhere."""
    image = 1e-3 * random_image(generator, (12, 12))
    image[0, 0, 3, 3] = 10
    expected = naive_descriptor(image[0, 0].numpy(), 1, 1)
    np.testing.assert_allclose(mind_ssc_descriptor(image, 1, 1)[0].numpy(), expected, rtol=1e-8, atol=1e-12)
    assert expected[:, 9, 9].min() > 0.9  # flat, because of the clamp


@pytest.mark.parametrize("shape", [(64, 64)])
def test_a_variance_clamped_from_above_is_that_of_the_definition(shape):
    """A single corner point among 64² zeros has a variance above 1000 times the mean."""
    image = torch.zeros(1, 1, *shape, dtype=torch.float64)
    image[0, 0, 30, 30] = 1
    expected = naive_descriptor(image[0, 0].numpy(), 0, 1)
    np.testing.assert_allclose(mind_ssc_descriptor(image, 0, 1)[0].numpy(), expected, rtol=1e-9, atol=1e-12)


@per_shape
def test_the_descriptor_does_not_change_under_affine_intensities(shape, generator):
    image = random_image(generator, shape)
    expected = mind_ssc_descriptor(image)
    for scale, shift in [(250, 40), (-3, 0), (1e-6, 1e-5)]:
        torch.testing.assert_close(mind_ssc_descriptor(scale * image + shift), expected, rtol=1e-6, atol=1e-9)
    assert mind_ssc(image, 7 - 2 * image).item() == pytest.approx(0, abs=1e-12)


@per_shape
def test_turning_the_image_by_a_quarter_turns_the_loss_with_it(shape, generator):
    """The pairs as a set have no preferred axis or side."""
    fixed, warped = random_image(generator, shape), random_image(generator, shape)
    expected = mind_ssc(fixed, warped).item()
    for turn in (lambda image: image.flip(2), lambda image: image.transpose(-1, -2)):
        assert mind_ssc(turn(fixed), turn(warped)).item() == pytest.approx(expected, rel=1e-10)


@per_shape
def test_what_else_is_in_the_batch_does_not_matter(shape, generator):
    images = random_image(generator, shape, batch=3) * torch.tensor([1, 1e3, 1e-3]).view(3, *[1] * (1 + len(shape)))
    alone = torch.cat([mind_ssc_descriptor(image[None]) for image in images])
    torch.testing.assert_close(mind_ssc_descriptor(images), alone, rtol=1e-12, atol=0)
    torch.testing.assert_close(mind_ssc_descriptor(images.flip(0)), alone.flip(0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(5, 4), (4, 3, 4)], ids=["2-D", "3-D"])
def test_the_loss_has_the_right_gradient(shape, generator):
    fixed, warped = (
        random_image(generator, shape, 2).requires_grad_(),
        random_image(generator, shape, 2).requires_grad_(),
    )
    torch.autograd.gradcheck(lambda f, w: mind_ssc(f, w, radius=1, dilation=1), (fixed, warped))
    torch.autograd.gradcheck(mind_ssc, (fixed.detach(), warped))
    torch.autograd.gradcheck(mind_ssc, (fixed, warped.detach()))
    torch.autograd.gradcheck(mind_ssc_descriptor, fixed)


def test_the_gradient_is_right_where_the_variance_is_clamped(generator):
    image = 0.05 * random_image(generator, (9, 8))
    image[0, 0, 1, 1] = 10
    fixed = random_image(generator, (9, 8))
    torch.autograd.gradcheck(lambda w: mind_ssc(fixed, w, radius=0, dilation=1), image.requires_grad_())


@per_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_images_have_finite_descriptors_and_gradients(shape, dtype, generator):
    structured = random_image(generator, shape).to(dtype)
    for value in (0.0, 1e4):
        constant = torch.full((1, 1, *shape), value, dtype=dtype)
        assert torch.equal(mind_ssc_descriptor(constant).unique(), torch.ones(1, dtype=dtype))
        for first, second in [(constant, constant), (constant, structured), (structured, constant)]:
            fixed, warped = first.clone().requires_grad_(), second.clone().requires_grad_()
            loss = mind_ssc(fixed, warped)
            loss.backward()
            assert loss.isfinite() and fixed.grad.isfinite().all() and warped.grad.isfinite().all()


@per_shape
def test_autocast_leaves_the_loss_in_float32(shape, generator):
    fixed, warped = random_image(generator, shape).bfloat16(), random_image(generator, shape).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = mind_ssc(fixed, warped.requires_grad_())
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == mind_ssc(fixed.float(), warped.float()).item()
    assert warped.grad.isfinite().all() and warped.grad.abs().max() > 0


def test_images_smaller_than_a_patch_are_described(generator):
    image = random_image(generator, (1, 2, 3))
    expected = naive_descriptor(image[0, 0].numpy(), 3, 4)
    np.testing.assert_allclose(mind_ssc_descriptor(image, 3, 4)[0].numpy(), expected, rtol=1e-9, atol=1e-12)


def test_mind_refuses_what_it_cannot_describe():
    image = torch.rand(1, 1, 6, 5)
    with pytest.raises(ValueError, match=r"warped \(1, 1, 5, 6\).*fixed \(1, 1, 6, 5\)"):
        mind_ssc(image, torch.rand(1, 1, 5, 6))
    with pytest.raises(ValueError, match=r"image \(1, 2, 6, 5\) must have one channel"):
        mind_ssc_descriptor(torch.rand(1, 2, 6, 5))
    with pytest.raises(ValueError, match=r"fixed \(6, 5\)"):
        mind_ssc(image[0, 0], image[0, 0])
    with pytest.raises(ValueError, match="radius=-1"):
        mind_ssc(image, image, radius=-1)
    with pytest.raises(ValueError, match="dilation=0"):
        mind_ssc_descriptor(image, dilation=0)
    for wrong in ((1, 2, 3), [1], 1.5, (1, 2.0), "22", None):
        with pytest.raises(ValueError, match=r"radius=.* a whole number, or one for each of the 2 axes"):
            mind_ssc_descriptor(image, radius=wrong)
        with pytest.raises(ValueError, match=r"dilation=.* a whole number, or one for each of the 2 axes"):
            mind_ssc(image, image, dilation=wrong)
    with pytest.raises(ValueError, match=r"dilation=\(2, 0\)"):
        mind_ssc(image, image, radius=(0, 1), dilation=(2, 0))
    with pytest.raises(ValueError, match=r"descriptor \(1, 1, 6, 5\) must have 4 channels"):
        mind_ssc_difference(image, image)
    for bad in (math.nan, math.inf, -math.inf):
        broken = image.clone()
        broken[0, 0, 2, 2] = bad
        with pytest.raises(ValueError, match=r"warped .* holds 1 value"):
            mind_ssc(image, broken)
        with pytest.raises(ValueError, match=r"image .* holds 1 value"):
            mind_ssc_descriptor(broken)
