"""Sampling and warping against SciPy and torch's ``grid_sample``; resizing, padding and cropping."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import map_coordinates

from regcore.spatial import crop_to, identity, pad_to_multiple, resample, resample_displacement, sample, warp

SHAPES = [(7, 5), (6, 4, 5)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])
#: What SciPy calls our two borders: a rim of zeros that values fall to within one voxel, and the edge value.
SCIPY_MODES = {"zero": "grid-constant", "edge": "nearest"}


def random_image(shape, generator, batch=2, channels=3) -> torch.Tensor:
    return torch.from_numpy(generator.standard_normal((batch, channels, *shape)))


def random_points(shape, generator, batch=2, out=(9, 8, 7)) -> torch.Tensor:
    """Points (batch, D, *out) from three voxels outside the image to three voxels outside its other end."""
    axes = [generator.uniform(-3, n + 2, (batch, *out[: len(shape)])) for n in shape]
    return torch.from_numpy(np.stack(axes, axis=1))


def scipy_sample(image: torch.Tensor, points: torch.Tensor, order: int, mode: str) -> np.ndarray:
    return np.stack(
        [
            [map_coordinates(channel, where, order=order, mode=mode, cval=0) for channel in channels]
            for channels, where in zip(image.numpy(), points.numpy(), strict=True)
        ]
    )


@per_shape
@pytest.mark.parametrize("border", ["zero", "edge"])
def test_linear_sampling_agrees_with_scipy(shape, border, generator):
    image, points = random_image(shape, generator), random_points(shape, generator)
    expected = scipy_sample(image, points, 1, SCIPY_MODES[border])
    np.testing.assert_allclose(sample(image, points, border=border).numpy(), expected, atol=1e-12)


@per_shape
@pytest.mark.parametrize("border", ["zero", "edge"])
def test_nearest_sampling_agrees_with_scipy(shape, border, generator):
    image, points = random_image(shape, generator), random_points(shape, generator)
    expected = scipy_sample(image, points, 0, SCIPY_MODES[border])
    np.testing.assert_array_equal(sample(image, points, "nearest", border).numpy(), expected)


def test_nearest_sampling_keeps_the_type_and_rounds_halves_to_even():
    labels = torch.tensor([[[10, 2**31 - 1, 30, 40]] * 2], dtype=torch.int32)[None]
    along = torch.tensor([0.5, 1.5, 2.5, -0.5, 3.5, -0.51, 3.49])
    points = torch.stack([torch.zeros(7), along])[None, :, None]
    found = sample(labels, points, "nearest")
    assert found.dtype == torch.int32
    assert found.flatten().tolist() == [10, 30, 30, 10, 0, 0, 40]


@per_shape
@pytest.mark.parametrize("border", ["zeros", "border"])
def test_linear_sampling_agrees_with_grid_sample(shape, border, generator):
    image, points = random_image(shape, generator), random_points(shape, generator)
    size = torch.tensor(shape, dtype=torch.float64).view(1, -1, *[1] * len(shape))
    normalised = (2 * points / (size - 1) - 1).movedim(1, -1).flip(-1)  # grid_sample wants x, y, z
    expected = F.grid_sample(image, normalised, mode="bilinear", padding_mode=border, align_corners=True)
    found = sample(image, points, border={"zeros": "zero", "border": "edge"}[border])
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@per_shape
def test_points_far_outside_give_zero_or_the_corner(shape, generator):
    image = random_image(shape, generator).float()
    far = torch.full((1, len(shape), *[2] * len(shape)), 1e30)
    assert not sample(image, far).any()
    assert not sample(image, -far).any()
    last = image[(..., *[-1] * len(shape))]
    edge = sample(image, far, border="edge")
    torch.testing.assert_close(edge, last.view(2, 3, *[1] * len(shape)).expand_as(edge), atol=0, rtol=0)


@per_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("border", ["zero", "edge"])
def test_a_zero_displacement_returns_the_image_bit_for_bit(shape, dtype, border, generator):
    image = random_image(shape, generator).to(dtype)
    image[image > 1] *= 1e30
    image[image < -1] = 0
    still = torch.zeros(1, len(shape), *shape, dtype=dtype)
    assert torch.equal(warp(image, still, border=border), image)
    assert torch.equal(warp(image, still, mode="nearest", border=border), image)


@per_shape
def test_a_whole_number_displacement_is_a_shift(shape, generator):
    """A pull: with u = (+1, -2, …) voxel p shows the value at p + u; what comes from outside is zero."""
    image = random_image(shape, generator)
    shift = (1, -2, 1)[: len(shape)]
    column = torch.tensor(shift, dtype=torch.float64).view(1, -1, *[1] * len(shape))
    displacement = column.expand(1, len(shape), *shape)
    expected = torch.zeros_like(image)
    here = (slice(None, -1), slice(2, None), slice(None, -1))[: len(shape)]
    there = (slice(1, None), slice(None, -2), slice(1, None))[: len(shape)]
    expected[(..., *here)] = image[(..., *there)]
    assert torch.equal(warp(image, displacement), expected)


@per_shape
def test_a_displacement_may_have_another_shape_than_the_image(shape, generator):
    image = random_image(shape, generator)
    out = tuple(n + 2 for n in reversed(shape))
    displacement = torch.from_numpy(generator.uniform(-2, 2, (2, len(shape), *out)))
    points = displacement.numpy() + np.stack(np.meshgrid(*map(np.arange, out), indexing="ij"))
    expected = scipy_sample(image, torch.from_numpy(points), 1, "grid-constant")
    np.testing.assert_allclose(warp(image, displacement).numpy(), expected, atol=1e-12)


@per_shape
def test_identity_holds_the_voxel_indices(shape):
    grid = identity(shape, torch.empty(0, dtype=torch.float64))
    assert grid.dtype == torch.float64
    np.testing.assert_array_equal(grid[0].numpy(), np.indices(shape))


@per_shape
@pytest.mark.parametrize("border", ["zero", "edge"])
def test_gradients_with_respect_to_image_and_points(shape, border, generator):
    """Points keep 0.05 from whole numbers, where linear interpolation has no derivative; many are outside."""
    image = random_image(shape, generator, channels=1).requires_grad_()
    out = (3, 4, 2)[: len(shape)]
    whole = generator.integers(-2, np.array(shape) + 1, (2, *out, len(shape)))
    points = torch.from_numpy(np.moveaxis(whole + generator.uniform(0.05, 0.95, whole.shape), -1, 1)).requires_grad_()
    torch.autograd.gradcheck(lambda i, p: sample(i, p, border=border), (image, points))


def test_unknown_modes_are_refused():
    image, points = torch.zeros(1, 1, 3, 3), torch.zeros(1, 2, 3, 3)
    with pytest.raises(ValueError, match="cubic"):
        sample(image, points, mode="cubic")
    with pytest.raises(ValueError, match="reflect"):
        sample(image, points, border="reflect")


def linear_displacement(shape, matrix: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    points = identity(shape, matrix)
    return torch.einsum("ij,bj...->bi...", matrix, points) + offset.view(1, -1, *[1] * len(shape))


@per_shape
@pytest.mark.parametrize("factor", [0.5, 2, 2.7])
def test_resizing_keeps_a_linear_displacement_exact(shape, factor, generator):
    """In the new grid's voxels q = S p the map u(p) = A p + b reads S A S⁻¹ q + S b."""
    ndim = len(shape)
    matrix = torch.from_numpy(generator.standard_normal((ndim, ndim)))
    offset = torch.from_numpy(generator.standard_normal(ndim))
    new = [max(2, round(n * factor) + axis) for axis, n in enumerate(shape)]
    scale = torch.tensor([(b - 1) / (a - 1) for a, b in zip(shape, new, strict=True)], dtype=torch.float64)
    resized = resample_displacement(linear_displacement(shape, matrix, offset), new)
    expected = linear_displacement(new, scale[:, None] * matrix / scale, scale * offset)
    torch.testing.assert_close(resized, expected, atol=1e-12, rtol=0)


@per_shape
def test_resizing_to_the_same_shape_changes_nothing(shape, generator):
    values = random_image(shape, generator, channels=len(shape))
    assert torch.equal(resample_displacement(values, shape), values)


@per_shape
def test_resize_puts_corner_voxels_on_corner_voxels(shape, generator):
    image = random_image(shape, generator)
    new = tuple(2 * n + 1 for n in shape)
    points = [np.linspace(0, a - 1, b) for a, b in zip(shape, new, strict=True)]
    where = torch.from_numpy(np.stack(np.meshgrid(*points, indexing="ij")))[None].expand(2, *[-1] * (len(shape) + 1))
    expected = scipy_sample(image, where, 1, "nearest")
    np.testing.assert_allclose(resample(image, new).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(16, 33), (17, 32, 1)])
def test_padding_appends_zeros_and_cropping_undoes_it(shape, generator):
    values = random_image(shape, generator)
    padded = pad_to_multiple(values, 16)
    assert padded.shape[2:] == tuple(-(-n // 16) * 16 for n in shape)
    assert torch.equal(crop_to(padded, shape), values)
    assert padded.count_nonzero() == values.count_nonzero()


def test_padding_to_a_multiple_already_reached_adds_nothing():
    assert pad_to_multiple(torch.zeros(1, 1, 16, 32), 16).shape == (1, 1, 16, 32)


def test_the_nearest_voxel_far_outside_is_that_of_the_edge():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    far = torch.tensor([[1e30, -1e30, 1e30], [1e30, -1e30, 0.0]]).view(1, 2, 3, 1)
    assert sample(image, far, mode="nearest", border="edge").flatten().tolist() == [15.0, 0.0, 12.0]
    assert sample(image, far, mode="nearest", border="zero").flatten().tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_displacement_that_is_not_a_number_is_refused_by_name(mode, value):
    image = torch.ones(1, 1, 4, 4)
    displacement = torch.zeros(1, 2, 4, 4)
    displacement[0, 0, 1, 1] = value
    with pytest.raises(ValueError, match=r"displacement \(1, 2, 4, 4\) holds 1 values that are NaN or infinite"):
        warp(image, displacement, mode)
