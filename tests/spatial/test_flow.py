"""Composing, integrating and inverting maps, and their Jacobian, against closed forms and ``scipy.linalg``."""

import itertools

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from regcore.spatial import compose, identity, integrate, invert, jacobian_determinant, sample

SHAPES = [(21, 18), (15, 17, 13)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])


def constant(shape, vector) -> torch.Tensor:
    column = torch.tensor(vector, dtype=torch.float64).view(1, -1, *[1] * len(shape))
    return column.expand(1, len(shape), *shape).clone()


def linear(shape, matrix: np.ndarray) -> torch.Tensor:
    """u(p) = A (p - c) about the middle c of the grid."""
    centre = constant(shape, [(n - 1) / 2 for n in shape])
    points = identity(shape, centre) - centre
    return torch.einsum("ij,bj...->bi...", torch.as_tensor(matrix, dtype=torch.float64), points)


def interior(values: torch.Tensor, margin: int) -> torch.Tensor:
    return values[(..., *[slice(margin, -margin)] * (values.ndim - 2))]


@per_shape
def test_composed_translations_add_up(shape):
    a, b = (1.25, -2.5, 0.75)[: len(shape)], (-0.5, 4.0, 3.0)[: len(shape)]
    total = compose(constant(shape, a), constant(shape, b))
    torch.testing.assert_close(total, constant(shape, np.add(a, b)), atol=1e-14, rtol=0)


@per_shape
def test_compose_applies_the_first_map_first(shape, generator):
    """x → x + t, then x → x + A (x - c), is p → p + t + A (p + t - c); the other way round it is not."""
    matrix = generator.uniform(-0.2, 0.2, (len(shape),) * 2)
    shift = (2.0, -1.0, 1.5)[: len(shape)]
    found = compose(constant(shape, shift), linear(shape, matrix))
    expected = linear(shape, matrix) + constant(shape, shift + matrix @ shift)
    torch.testing.assert_close(interior(found, 3), interior(expected, 3), atol=1e-12, rtol=0)
    assert np.abs(matrix @ shift).max() > 0.1


@per_shape
def test_compose_agrees_with_mapping_points_twice(shape, random_displacement):
    first, second = random_displacement(shape, 1.0, 3.0), random_displacement(shape, 1.0, 3.0)
    there = identity(shape, first) + first
    expected = there + sample(second, there, border="edge") - identity(shape, first)
    torch.testing.assert_close(compose(first, second), expected, atol=1e-12, rtol=0)


@per_shape
def test_the_exponential_of_a_constant_velocity_is_that_translation(shape):
    velocity = constant(shape, (1.7, -3.2, 0.4)[: len(shape)])
    torch.testing.assert_close(integrate(velocity), velocity, atol=1e-12, rtol=0)


@per_shape
def test_the_exponential_of_a_linear_velocity_is_the_matrix_exponential(shape, generator):
    """The map contracts, so that no path leaves the grid and the comparison needs no margin."""
    ndim = len(shape)
    matrix = generator.uniform(-0.04, 0.04, (ndim, ndim)) - 0.2 * np.eye(ndim)
    found = integrate(linear(shape, matrix), steps=7)

    # Linear interpolation is exact on linear maps: this is (I + A / 2⁷)^(2⁷) and nothing else.
    squared = np.linalg.matrix_power(np.eye(ndim) + matrix / 2**7, 2**7) - np.eye(ndim)
    torch.testing.assert_close(found, linear(shape, squared), atol=1e-12, rtol=0)

    # Against exp(A) the error is that of Euler's first step, ≤ ‖A‖² e^‖A‖ / 2⁸ times the distance to the centre.
    size, radius = np.linalg.norm(matrix, 2), np.linalg.norm(np.array(shape) / 2)
    bound = size**2 * np.exp(size) / 2**8 * radius
    exact = linear(shape, expm(matrix) - np.eye(ndim))
    assert bound < 0.01 < 0.1 * (exact - linear(shape, matrix)).abs().max()
    torch.testing.assert_close(found, exact, atol=bound, rtol=0)


@per_shape
def test_no_squaring_leaves_the_velocity(shape, random_displacement):
    velocity = random_displacement(shape, 1.0, 3.0)
    assert torch.equal(integrate(velocity, steps=0), velocity)


@per_shape
def test_the_exponentials_of_v_and_minus_v_are_inverse(shape, random_displacement):
    """Four voxels away from the border no path leaves the grid: velocities are shorter than that.

    Interpolation leaves 0.005 to 0.02 voxels (eight seeds), while -u in place of the inverse leaves 0.05.
    """
    velocity = random_displacement(shape, 0.4, 3.0)
    assert 1 < velocity.norm(dim=1).max() < 4
    forward, backward = integrate(velocity), integrate(-velocity)
    for there_and_back in (compose(forward, backward), compose(backward, forward)):
        assert interior(there_and_back, 4).abs().max() < 0.03
    assert interior(compose(forward, -forward), 4).abs().max() > 0.05


@per_shape
def test_integration_is_differentiable(shape, random_displacement):
    small = tuple(n // 4 for n in shape)
    velocity = random_displacement(small, 0.6, 1.0).requires_grad_()
    torch.autograd.gradcheck(lambda v: integrate(v, steps=2), velocity)


@per_shape
def test_the_inverse_of_a_translation_is_exact(shape):
    vector = np.array((2.5, -1.25, 0.75)[: len(shape)])
    inverse, residual = invert(constant(shape, vector))
    torch.testing.assert_close(inverse, constant(shape, -vector), atol=1e-12, rtol=0)
    assert residual < 1e-12


@per_shape
def test_the_inverse_of_a_linear_map_is_the_inverse_matrix(shape, generator):
    ndim = len(shape)
    matrix = generator.uniform(-0.12, 0.12, (ndim, ndim))
    inverse, _ = invert(linear(shape, matrix), iterations=60)
    expected = linear(shape, np.linalg.inv(np.eye(ndim) + matrix) - np.eye(ndim))
    torch.testing.assert_close(interior(inverse, 4), interior(expected, 4), atol=1e-9, rtol=0)


@per_shape
def test_a_contraction_is_inverted_everywhere(shape, random_displacement):
    """With ‖∇u‖ ≤ 1/2 every iteration halves the error: 2⁻⁵⁰ of a voxel is left, beyond the border too."""
    displacement = random_displacement(shape, 1.0, 3.0)
    steepest = [
        displacement.diff(dim=axis).abs().amax(dim=tuple(range(2, displacement.ndim)))
        for axis in range(2, displacement.ndim)
    ]
    displacement *= 0.5 / torch.stack(steepest).norm()
    inverse, residual = invert(displacement, iterations=50)
    assert residual < 1e-12
    assert residual == compose(inverse, displacement).norm(dim=1).max().item()
    assert (inverse + displacement).abs().max() > 0.1  # it is not simply -u


def test_the_residual_tells_that_the_inverse_was_not_found():
    """φ(x) = 3x about the middle: ‖∇u‖ = 2, and the fixed point runs away from the inverse, -2x/3."""
    _, residual = invert(linear((16, 16), np.diag([2.0, 0.0])))
    assert residual > 1


@per_shape
def test_the_jacobian_of_an_affine_map_is_its_determinant_everywhere(shape, generator):
    for _ in range(5):
        matrix = generator.uniform(-0.5, 0.5, (len(shape),) * 2)
        found = jacobian_determinant(linear(shape, matrix))
        assert found.shape == (1, *shape)
        expected = np.linalg.det(np.eye(len(shape)) + matrix)
        np.testing.assert_allclose(found.numpy(), np.full_like(found, expected), atol=1e-12)


@per_shape
def test_the_jacobian_of_a_fold_is_negative_and_of_the_identity_one(shape):
    mirror = np.zeros((len(shape),) * 2)
    mirror[1, 1] = -2
    np.testing.assert_allclose(jacobian_determinant(linear(shape, mirror)), -1, atol=1e-12)
    assert torch.equal(jacobian_determinant(constant(shape, [0] * len(shape))), torch.ones(1, *shape).double())


@per_shape
def test_the_jacobian_of_a_smooth_map_agrees_with_its_closed_form(shape):
    """u_a = α_a sin(k_a · p): ∂u_a/∂p_b = α_a k_ab cos(k_a · p), with different waves for every component."""
    ndim = len(shape)
    amplitude = np.array([1.1, -0.8, 0.9])[:ndim]
    waves = np.array([[0.20, -0.15, 0.10], [0.12, 0.25, -0.2], [-0.1, 0.18, 0.22]])[:ndim, :ndim]
    points = np.indices(shape).astype(float)
    phase = np.tensordot(waves, points, axes=1)
    amplitudes = amplitude.reshape(-1, *[1] * ndim)
    found = jacobian_determinant(torch.from_numpy(amplitudes * np.sin(phase))[None])[0]
    gradient = (amplitudes * np.cos(phase))[:, None] * waves.reshape(ndim, ndim, *[1] * ndim)
    gradient = gradient + np.eye(ndim).reshape(ndim, ndim, *[1] * ndim)
    expected = np.linalg.det(np.moveaxis(gradient, (0, 1), (-2, -1)))

    # A central difference of sin(kx) errs by less than |α| k³ / 6; to first order the determinant errs by
    # the sum over entries of that times the entry's cofactor, and a cofactor here is below 1.5.
    tolerance = 1.5 * (np.abs(amplitude)[:, None] * np.abs(waves) ** 3 / 6).sum()
    assert tolerance < 0.03 < np.ptp(expected) / 10
    inside = (slice(1, -1),) * ndim
    np.testing.assert_allclose(found.numpy()[inside], expected[inside], atol=tolerance)


@per_shape
def test_the_jacobian_predicts_the_volume_of_a_mapped_cell(shape, random_displacement):
    """A geometric check: the parallelepiped that a voxel's neighbours ±1 span after the map, over 2^D."""
    displacement = random_displacement(shape, 1.0, 3.0)
    mapped = (identity(shape, displacement) + displacement)[0].numpy()
    found = jacobian_determinant(displacement)[0].numpy()
    for voxel in itertools.product(*[(3, 8) for _ in shape]):
        edges = [
            mapped[(slice(None), *np.add(voxel, step))] - mapped[(slice(None), *np.subtract(voxel, step))]
            for step in np.eye(len(shape), dtype=int)
        ]
        np.testing.assert_allclose(found[voxel], np.linalg.det(edges) / 2 ** len(shape), atol=1e-12)
