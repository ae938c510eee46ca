"""Heat flow with a weight at each voxel: a Gaussian where the weight is 1, a wall where it is 0."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from regcore.losses import diffusion
from regcore.spatial import diffuse, squared_gradient

SHAPES = [(20, 17), (12, 11, 10)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])


def noise(shape, generator, channels=2) -> torch.Tensor:
    return torch.from_numpy(generator.standard_normal((2, channels, *shape)))


@per_shape
def test_squared_gradients_are_those_of_the_smoothness(shape, generator):
    field = noise(shape, generator, len(shape))
    found = squared_gradient(field)
    assert found.shape == (2, 1, *shape)
    by_hand = sum(
        np.square(np.diff(field.numpy(), axis=axis, append=np.take(field.numpy(), [-1], axis=axis))).sum(1)
        for axis in range(2, field.ndim)
    )
    np.testing.assert_allclose(found[:, 0], by_hand)
    assert not squared_gradient(torch.ones_like(field)).any()


@pytest.mark.parametrize("sigma", [0.8, 1.4, 2.5])
@per_shape
def test_with_a_weight_of_one_it_is_a_gaussian(shape, sigma, generator):
    """Of what is smooth enough for both to be exact on the grid."""
    values = np.stack([gaussian_filter(item, 2) for item in generator.standard_normal((1, *shape))])[None]
    values /= values.std()
    found = diffuse(torch.from_numpy(values), torch.ones(1, 1, *shape, dtype=torch.float64), sigma)
    expected = gaussian_filter(values[0, 0], sigma, mode="reflect", truncate=6)
    assert np.abs(found[0, 0] - expected).max() < 0.02 * np.abs(expected - values).max() + 0.01


@per_shape
def test_it_descends_the_weighted_smoothness(shape, generator):
    """For a short time: minus half the gradient of Σ w |∇v|²."""
    values = noise(shape, generator, len(shape)).requires_grad_()
    weight = torch.from_numpy(generator.random((2, 1, *shape)))
    (slope,) = torch.autograd.grad((weight * squared_gradient_for_autograd(values)).sum(), values)
    sigma = 0.01
    rate = (diffuse(values.detach(), weight, sigma) - values.detach()) / (sigma**2 / 2)
    torch.testing.assert_close(rate, -slope / 2, rtol=1e-6, atol=1e-8)


def squared_gradient_for_autograd(values):
    """As :func:`squared_gradient`, without writing in place."""
    total = 0
    for axis in range(2, values.ndim):
        last = values.narrow(axis, values.shape[axis] - 1, 1)
        total = total + values.diff(dim=axis, append=last).square().sum(1, keepdim=True)
    return total


@per_shape
def test_the_mean_stays_the_range_shrinks_and_the_field_is_smoother(shape, generator):
    values = noise(shape, generator, len(shape))
    weight = torch.from_numpy(generator.random((2, 1, *shape)))
    before, kept = diffusion(values), values.clone()
    found = diffuse(values, weight, 1.7)
    torch.testing.assert_close(found.flatten(2).mean(2), values.flatten(2).mean(2))
    assert values.min() <= found.min() and found.max() <= values.max()
    assert diffusion(found) < 0.3 * before
    assert torch.equal(values, kept)


@per_shape
def test_nothing_passes_a_wall(shape, generator):
    values = noise(shape, generator)
    values[:, :, 5:] += 100
    weight = torch.ones(2, 1, *shape, dtype=torch.float64)
    weight[:, :, 4] = 0
    found = diffuse(values, weight, 3)
    assert found[:, :, :4].max() < 5 and found[:, :, 5:].min() > 95
    torch.testing.assert_close(found[:, :, 5:].mean(), values[:, :, 5:].mean())


def test_no_smoothing_changes_nothing_and_wrong_arguments_are_explained(generator):
    values, weight = noise((6, 5), generator), torch.ones(2, 1, 6, 5, dtype=torch.float64)
    assert torch.equal(diffuse(values, weight, 0), values)
    for arguments, words in (
        ((values, weight[..., 1:], 1), "weight"),
        ((values, weight.expand(2, 2, 6, 5), 1), "one channel"),
        ((values, weight, -1), "sigma -1"),
        ((values.long(), weight, 1), "values"),
    ):
        with pytest.raises(ValueError, match=words):
            diffuse(*arguments)
