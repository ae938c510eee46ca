"""Losses against their equations, and their gradients."""

import numpy as np
import pytest
import torch

from regcore.losses.similarity import mean_squared_error
from regcore.losses.smoothness import diffusion
from regcore.spatial.warp import identity

SHAPES = [(6, 5), (5, 4, 6)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])


def random_tensor(generator, *shape) -> torch.Tensor:
    return torch.from_numpy(generator.standard_normal(shape))


@per_shape
def test_mean_squared_error_is_the_mean_of_squares(shape, generator):
    fixed, warped = random_tensor(generator, 2, 1, *shape), random_tensor(generator, 2, 1, *shape)
    expected = ((fixed.numpy() - warped.numpy()) ** 2).sum() / fixed.numel()
    assert mean_squared_error(fixed, warped).item() == pytest.approx(expected, rel=1e-12)
    assert mean_squared_error(fixed, fixed + 3).item() == pytest.approx(9, rel=1e-12)
    assert mean_squared_error(fixed, fixed).item() == 0


@per_shape
def test_mean_squared_error_has_the_right_gradient(shape, generator):
    fixed, warped = random_tensor(generator, 1, 1, *shape), random_tensor(generator, 1, 1, *shape).requires_grad_()
    mean_squared_error(fixed, warped).backward()
    torch.testing.assert_close(warped.grad, 2 * (warped.detach() - fixed) / fixed.numel(), atol=1e-15, rtol=0)
    torch.autograd.gradcheck(lambda w: mean_squared_error(fixed, w), warped)


@per_shape
def test_diffusion_of_a_linear_field_is_its_mean_squared_slope(shape, generator):
    """u(p) = G p + b has the same difference between any two neighbours: the mean of G² over its entries."""
    ndim = len(shape)
    slopes = random_tensor(generator, ndim, ndim)
    field = torch.einsum("ij,bj...->bi...", slopes, identity(shape, slopes)) + 7
    assert diffusion(field).item() == pytest.approx(slopes.square().mean().item(), rel=1e-12)


@per_shape
def test_diffusion_of_a_translation_is_zero(shape):
    assert diffusion(torch.full((1, len(shape), *shape), 4.2)).item() == 0


@per_shape
def test_diffusion_averages_over_batch_components_voxels_and_axes(shape, generator):
    field = random_tensor(generator, 2, len(shape), *shape)
    expected = np.mean([np.mean(np.diff(field.numpy(), axis=axis) ** 2) for axis in range(2, field.ndim)])
    assert diffusion(field).item() == pytest.approx(expected, rel=1e-12)


def test_diffusion_of_one_bump_by_hand():
    """One value 1 in a 3 x 3 grid of two components: two differences along each axis, of 2 · 6 = 12."""
    field = torch.zeros(1, 2, 3, 3)
    field[0, 1, 1, 1] = 1
    assert diffusion(field).item() == pytest.approx(2 / 12)


@per_shape
def test_diffusion_has_the_right_gradient(shape, generator):
    torch.autograd.gradcheck(diffusion, random_tensor(generator, 1, len(shape), *shape).requires_grad_())
