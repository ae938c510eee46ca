"""Affine maps against SciPy's rotations, SimpleITK's transforms and torch's own ``affine_grid``."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from regcore.images.grid import transform_points
from regcore.images.volume import Grid
from regcore.spatial import (
    affine_between_grids,
    affine_displacement,
    affine_matrix,
    fit_affine,
    fit_affine_to_displacement,
    identity,
    jacobian_determinant,
    warp,
)

SHAPES = [(7, 6), (5, 7, 6)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])
#: Array axes point to P, S and L, voxels of 1 x 2 x 3 mm; and another grid, in another order.
FIXED = Grid((12, 10, 8), np.array([[0, 0, -3, 20], [-1, 0, 0, 5], [0, 2, 0, -30], [0, 0, 0, 1.0]]))
MOVING = Grid((12, 15, 10), np.array([[1.5, 0, 0, -2], [0, 0, -2.5, 9], [0, 1, 0, -28], [0, 0, 0, 1.0]]))


def parameters(ndim: int, generator, batch: int = 3) -> dict[str, torch.Tensor]:
    turns = {2: 1, 3: 3}[ndim]
    sizes = {"translation": ndim, "rotation": turns, "scaling": ndim, "shear": turns, "centre": ndim}
    drawn = {name: torch.from_numpy(generator.uniform(-0.6, 0.6, (batch, size))) for name, size in sizes.items()}
    return drawn | {"scaling": 1 + drawn["scaling"] / 2, "centre": 5 * drawn["centre"]}


def apply(matrix: torch.Tensor, points: np.ndarray) -> np.ndarray:
    return transform_points(matrix[0].numpy(), points)


def mapped(displacement: torch.Tensor) -> torch.Tensor:
    return identity(displacement.shape[2:], displacement) + displacement


def test_rotations_are_intrinsic_euler_angles_about_axes_0_1_and_2(generator):
    angles = generator.uniform(-3, 3, (5, 3))
    found = affine_matrix(torch.zeros(5, 3, dtype=torch.float64), torch.from_numpy(angles))
    expected = Rotation.from_euler("XYZ", angles).as_matrix()
    np.testing.assert_allclose(found[:, :3, :3].numpy(), expected, atol=1e-14)
    np.testing.assert_array_equal(found[:, 3].numpy(), [[0, 0, 0, 1]] * 5)


def test_a_rotation_in_2d_leads_from_axis_0_to_axis_1():
    quarter = affine_matrix(torch.zeros(1, 2).double(), [np.pi / 2])
    np.testing.assert_allclose(apply(quarter, np.array([[1, 0], [0, 1]])), [[0, 1], [-1, 0]], atol=1e-15)


def test_a_rotation_about_a_centre_agrees_with_simpleitk(generator):
    """ITK's Euler transform turns about z, y, x in the other order: it is the inverse of ours with -angles."""
    angles, centre, shift = generator.uniform(-1, 1, (3, 3)) * np.array([[1], [20], [9]])
    matrix = affine_matrix(torch.from_numpy(shift[None]), torch.from_numpy(angles), centre=centre.tolist())
    euler = sitk.Euler3DTransform()
    euler.SetComputeZYX(True)
    euler.SetCenter(centre)
    euler.SetRotation(*(-angles))
    turn = euler.GetInverse()
    points = generator.uniform(-30, 30, (20, 3))
    expected = [np.add(turn.TransformPoint(point), shift) for point in points]
    np.testing.assert_allclose(apply(matrix, points), expected, atol=1e-12)


@per_shape
def test_parameters_are_composed_as_simpleitk_composes_them(shape, generator):
    """Shear, then scale, then turn, all about the centre, then move: ITK's transforms one after the other."""
    ndim = len(shape)
    drawn = parameters(ndim, generator, batch=1)
    values = {name: value[0].numpy() for name, value in drawn.items()}

    def linear(matrix: np.ndarray) -> sitk.Transform:
        transform = sitk.AffineTransform(ndim)
        transform.SetCenter(values["centre"])
        transform.SetMatrix(matrix.ravel())
        return transform

    shear = np.eye(ndim)
    shear[np.triu_indices(ndim, 1)] = values["shear"]
    turn = Rotation.from_euler("XYZ", values["rotation"]) if ndim == 3 else Rotation.from_euler("Z", values["rotation"])
    steps = [shear, np.diag(values["scaling"]), turn.as_matrix().reshape(3, 3)[:ndim, :ndim]]
    points = generator.uniform(-20, 20, (20, ndim))
    expected = points
    for step in [*map(linear, steps), sitk.TranslationTransform(ndim, values["translation"])]:
        expected = np.array([step.TransformPoint(point) for point in expected])
    np.testing.assert_allclose(apply(affine_matrix(**drawn), points), expected, atol=1e-12)


@per_shape
def test_no_parameters_are_no_displacement_bit_for_bit(shape):
    nothing = affine_displacement(affine_matrix(torch.zeros(2, len(shape))), shape)
    assert nothing.shape == (2, len(shape), *shape) and nothing.dtype == torch.float32
    assert torch.equal(nothing, torch.zeros_like(nothing))


@per_shape
def test_displacements_lead_to_where_the_matrix_does(shape, generator):
    matrix = affine_matrix(**parameters(len(shape), generator))
    found = mapped(affine_displacement(matrix, shape))
    points = np.moveaxis(np.indices(shape), 0, -1)
    for one, where in zip(matrix, found, strict=True):
        np.testing.assert_allclose(np.moveaxis(where.numpy(), 0, -1), transform_points(one.numpy(), points), atol=1e-12)
    assert torch.equal(affine_displacement(matrix[:, :-1], shape), affine_displacement(matrix, shape))


@per_shape
def test_displacements_agree_with_affine_grid(shape, generator):
    """torch's grid is in [-1, 1] from corner to corner, last axis first."""
    ndim = len(shape)
    matrix = affine_matrix(**parameters(ndim, generator))
    half = (torch.tensor(shape).double() - 1) / 2
    scale = torch.eye(ndim + 1, dtype=torch.float64)
    scale[:ndim, :ndim], scale[:ndim, ndim] = torch.diag(half), half  # [-1, 1] → voxels
    theta = torch.linalg.inv(scale) @ matrix @ scale
    order = [*reversed(range(ndim)), ndim]
    theta = theta[:, order][:, :, order][:, :ndim]
    grid = torch.nn.functional.affine_grid(theta, [3, 1, *shape], align_corners=True)
    expected = (grid.flip(-1) * half + half).movedim(-1, 1)
    torch.testing.assert_close(mapped(affine_displacement(matrix, shape)), expected, atol=1e-12, rtol=0)


@per_shape
def test_the_jacobian_is_the_product_of_the_scalings(shape, generator):
    drawn = parameters(len(shape), generator)
    found = jacobian_determinant(affine_displacement(affine_matrix(**drawn), shape))
    expected = drawn["scaling"].prod(1).view(-1, *[1] * len(shape)).expand_as(found)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@per_shape
def test_building_and_applying_are_differentiable(shape, generator):
    small = shape[:2] if len(shape) == 2 else (3, 2, 4)
    drawn = {name: value.requires_grad_() for name, value in parameters(len(shape), generator, batch=2).items()}

    def displacement(*values: torch.Tensor) -> torch.Tensor:
        return affine_displacement(affine_matrix(**dict(zip(drawn, values, strict=True))), small)

    assert torch.autograd.gradcheck(displacement, tuple(drawn.values()))


@per_shape
def test_fitting_a_displacement_recovers_its_matrix(shape, generator):
    matrix = affine_matrix(**parameters(len(shape), generator))
    displacement = affine_displacement(matrix, shape)
    torch.testing.assert_close(fit_affine_to_displacement(displacement), matrix, atol=1e-9, rtol=0)
    single = fit_affine_to_displacement(displacement.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), matrix, atol=1e-5, rtol=0)


@per_shape
def test_fitting_rigidly_recovers_a_rotation_and_never_mirrors(shape, generator):
    ndim = len(shape)
    drawn = parameters(ndim, generator)
    matrix = affine_matrix(drawn["translation"], drawn["rotation"], centre=drawn["centre"])
    found = fit_affine_to_displacement(affine_displacement(matrix, shape), kind="rigid")
    torch.testing.assert_close(found, matrix, atol=1e-9, rtol=0)
    mirror = [-1.0] + [1.0] * (ndim - 1)
    noisy = affine_displacement(affine_matrix(**drawn | {"scaling": mirror}), shape)
    rotation = fit_affine_to_displacement(noisy, kind="rigid")[:, :ndim, :ndim]
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(3).double())
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(ndim).double().expand(3, -1, -1))


def test_a_rigid_fit_of_noisy_points_agrees_with_scipy(generator):
    """The least-squares rotation is neither the true one nor the affine one."""
    x = generator.standard_normal((3, 40))
    turn = Rotation.from_euler("XYZ", [0.5, -0.3, 0.8])
    y = turn.as_matrix() @ x + generator.normal(0, 0.3, x.shape) + [[3], [-2], [1]]
    weights = generator.uniform(0, 1, 40)
    tensors = [torch.from_numpy(values)[None] for values in (x, y, weights[None])]
    found = fit_affine(*tensors, kind="rigid")[0].numpy()
    x_mean, y_mean = (np.average(values, axis=1, weights=weights) for values in (x, y))
    expected, _ = Rotation.align_vectors(y.T - y_mean, x.T - x_mean, weights)
    np.testing.assert_allclose(found[:3, :3], expected.as_matrix(), atol=1e-12)
    np.testing.assert_allclose(found[:3, 3], y_mean - expected.apply(x_mean), atol=1e-12)
    assert np.abs(found[:3, :3] - turn.as_matrix()).max() > 1e-3


@per_shape
def test_an_affine_fit_of_noisy_points_agrees_with_least_squares(shape, generator):
    ndim = len(shape)
    x, y = generator.standard_normal((2, ndim, 30)) + 100
    weights = generator.uniform(0, 1, 30)
    found = fit_affine(*[torch.from_numpy(values)[None] for values in (x, y, weights[None])])[0].numpy()
    design = np.vstack([x, np.ones(30)]).T * np.sqrt(weights)[:, None]
    expected = np.linalg.lstsq(design, y.T * np.sqrt(weights)[:, None], rcond=None)[0].T
    np.testing.assert_allclose(found[:ndim], expected, atol=1e-9)


def test_a_mask_says_where_a_displacement_is_fitted(generator):
    shape = (9, 8, 7)
    matrix = affine_matrix(**parameters(3, generator, batch=1))
    displacement = affine_displacement(matrix, shape)
    displacement[:, :, 5:] = 17.0
    mask = torch.zeros(1, 1, *shape)
    mask[:, :, :5] = 1
    torch.testing.assert_close(fit_affine_to_displacement(displacement, mask), matrix, atol=1e-9, rtol=0)
    assert (fit_affine_to_displacement(displacement) - matrix).abs().max() > 0.1


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.integers(0, 10**6), st.sampled_from([2, 3]), st.integers(5, 30))
def test_fit_undoes_apply_on_any_points(seed, ndim, count):
    generator = np.random.default_rng(seed)
    matrix = affine_matrix(**parameters(ndim, generator))
    x = torch.from_numpy(generator.uniform(-50, 50, (3, ndim, count)))
    y = matrix[:, :ndim, :ndim] @ x + matrix[:, :ndim, ndim:]
    torch.testing.assert_close(fit_affine(x, y), matrix, atol=1e-9, rtol=0)


def test_a_matrix_between_grids_leads_where_the_world_does(generator):
    world = affine_matrix(**parameters(3, generator, batch=1))[0].numpy()
    found = affine_between_grids(world, FIXED.affine, MOVING.affine)
    voxels = generator.uniform(0, 8, (20, 3))
    expected = MOVING.to_voxels(transform_points(world, FIXED.to_world(voxels)))
    assert found.dtype == torch.float64 and found.shape == (1, 4, 4)
    np.testing.assert_allclose(apply(found, voxels), expected, atol=1e-12)
    assert torch.equal(found[:, -1], torch.tensor([[0, 0, 0, 1.0]]).double())
    back = affine_between_grids(found, FIXED.inverse, MOVING.inverse)
    np.testing.assert_allclose(back[0].numpy(), world, atol=1e-12)
    assert affine_between_grids(torch.eye(4), FIXED.affine, FIXED.affine).dtype == torch.float32
    single = affine_between_grids(torch.eye(4).repeat(2, 1, 1), FIXED.affine, FIXED.affine)
    torch.testing.assert_close(single, torch.eye(4).expand(2, 4, 4))


def test_an_image_is_resampled_between_grids_as_simpleitk_does(generator):
    """A rotation in mm, on grids of other spacing and axis order."""
    turn = affine_matrix(torch.tensor([[1.0, -2, 3]]).double(), [0.1, -0.15, 0.2], centre=FIXED.centre.tolist())
    matrix = affine_between_grids(turn, FIXED.affine, MOVING.affine)
    image = generator.standard_normal(MOVING.shape)
    found = warp(torch.from_numpy(image)[None, None], affine_displacement(matrix, FIXED.shape), border="edge")[0, 0]

    def placed(values: np.ndarray, grid: Grid) -> sitk.Image:
        image = sitk.GetImageFromArray(values.T)
        image.SetSpacing(grid.spacing)
        image.SetOrigin(grid.affine[:3, 3])
        image.SetDirection((grid.affine[:3, :3] / grid.spacing).ravel())
        return image

    transform = sitk.AffineTransform(turn[0, :3, :3].numpy().ravel(), turn[0, :3, 3].numpy())
    empty = placed(np.zeros(FIXED.shape), FIXED)
    there = sitk.GetArrayFromImage(sitk.Resample(placed(image, MOVING), empty, transform, sitk.sitkLinear, np.nan)).T
    inside = np.isfinite(there)
    assert inside.sum() > 50
    np.testing.assert_allclose(found.numpy()[inside], there[inside], atol=1e-9)


def test_wrong_arguments_are_refused_by_name_and_shape():
    zero = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"translation \(3,\) must be \(batch, 2\) or \(batch, 3\)"):
        affine_matrix(torch.zeros(3))
    with pytest.raises(ValueError, match=r"rotation \(2,\) must be \(3,\) or \(2, 3\) for translation \(2, 3\)"):
        affine_matrix(zero, rotation=torch.zeros(2))
    with pytest.raises(ValueError, match=r"scaling \(4, 3\) must be \(3,\) or \(2, 3\) for translation \(2, 3\)"):
        affine_matrix(zero, scaling=torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"shear \(3,\) holds 1 values that are NaN"):
        affine_matrix(zero, shear=[0, np.nan, 0])
    with pytest.raises(ValueError, match=r"translation \(1, 2\) holds 2 values that are NaN"):
        affine_matrix(torch.full((1, 2), torch.inf))
    with pytest.raises(ValueError, match=r"matrix \(1, 3, 4\) must be \(batch, 2, 3\) .* for a grid of \(5, 5\)"):
        affine_displacement(torch.zeros(1, 3, 4), (5, 5))
    with pytest.raises(ValueError, match=r"matrix \(1, 3, 3\) must have the last row 0 ... 0 1"):
        affine_displacement(affine_matrix(torch.ones(1, 2)).mT, (5, 5))
    with pytest.raises(ValueError, match=r"moving \(1, 3, 3\) must be as large as matrix \(1, 4, 4\)"):
        affine_between_grids(np.eye(4), np.eye(4), np.eye(3))
    with pytest.raises(ValueError, match=r"fixed \(3, 4\) must be 3x3 or 4x4"):
        affine_between_grids(np.eye(4), np.eye(4)[:3], np.eye(4))


def test_points_that_determine_no_map_are_refused(generator):
    points = torch.from_numpy(generator.standard_normal((1, 3, 10)))
    with pytest.raises(ValueError, match=r"targets \(1, 3, 9\) must have the shape of points \(1, 3, 10\)"):
        fit_affine(points, points[..., :9])
    with pytest.raises(ValueError, match=r"kind 'similarity'"):
        fit_affine(points, points, kind="similarity")
    with pytest.raises(ValueError, match=r"weights \(1, 10\) must be \(1, 1, 10\) for points \(1, 3, 10\)"):
        fit_affine(points, points, torch.ones(1, 10))
    for weights in (-torch.ones(1, 1, 10), torch.zeros(1, 1, 10)):
        with pytest.raises(ValueError, match=r"weights \(1, 1, 10\) must not be negative, and not all zero"):
            fit_affine(points, points, weights)
    broken = torch.zeros(1, 2, 4, 4)
    broken[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"displacement \(1, 2, 4, 4\) holds 1 values"):
        fit_affine_to_displacement(broken)
    plane = points.clone()
    plane[:, 2] = plane[:, 0] - plane[:, 1]
    with pytest.raises(ValueError, match="do not determine the affine map"):
        fit_affine(plane, plane)
    torch.testing.assert_close(fit_affine(plane, plane + 1, kind="rigid")[0, :3, 3], torch.ones(3).double())
    line = points[:, :1].expand(-1, 3, -1)
    with pytest.raises(ValueError, match="do not determine the rigid map"):
        fit_affine(line, line, kind="rigid")
