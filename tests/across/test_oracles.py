"""Warping, composing, integrating and inverting against SimpleITK, MONAI, VoxelMorph's package and SciPy."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.ndimage import map_coordinates

from regcore.spatial import (
    affine_displacement,
    affine_matrix,
    compose,
    identity,
    integrate,
    invert,
    jacobian_determinant,
    resample_displacement,
    sample,
    warp,
)

SHAPES = [(19, 16), (13, 15, 11)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])


def to_itk(values: np.ndarray) -> sitk.Image:
    """An array as an ITK image with voxels of 1 at whole numbers: ITK's axes are the array's, reversed."""
    return sitk.GetImageFromArray(np.ascontiguousarray(values))


def vectors(displacement: torch.Tensor) -> sitk.Image:
    """A displacement (1, D, *space) as an ITK image of float64 vectors, components reversed with the axes."""
    components = np.moveaxis(displacement[0].numpy(), 0, -1)[..., ::-1]
    return sitk.GetImageFromArray(np.ascontiguousarray(components), isVector=True)


def from_vectors(image: sitk.Image) -> torch.Tensor:
    components = sitk.GetArrayFromImage(image)[..., ::-1]
    return torch.from_numpy(np.moveaxis(components, -1, 0).copy())[None]


def transform(displacement: torch.Tensor) -> sitk.DisplacementFieldTransform:
    return sitk.DisplacementFieldTransform(vectors(displacement))  # it takes the image's pixels away from it


def move(itk_transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """Send array coordinates (n, D) through an ITK transform of x, y, z."""
    return np.array([itk_transform.TransformPoint(point[::-1].tolist())[::-1] for point in points])


def at(displacement: torch.Tensor, points: np.ndarray) -> np.ndarray:
    """Where our sampling sends array coordinates (n, D)."""
    where = torch.from_numpy(points.T.copy()).view(1, points.shape[1], -1, *[1] * (points.shape[1] - 1))
    moved = where + sample(displacement, where, border="edge")
    return moved.reshape(points.shape[1], -1).T.numpy()


def targets(displacement: torch.Tensor) -> np.ndarray:
    """φ(p) = p + u(p), shape (D, *space)."""
    return displacement[0].numpy() + np.indices(displacement.shape[2:])


def lands_inside(displacement: torch.Tensor) -> np.ndarray:
    """Voxels that the map sends into the grid, (*space): beyond it packages differ by convention."""
    size = np.array(displacement.shape[2:]).reshape(-1, *[1] * (displacement.ndim - 2))
    return np.all((targets(displacement) >= 0) & (targets(displacement) <= size - 1), axis=0)


def interior(values: torch.Tensor, margin: int) -> torch.Tensor:
    return values[(..., *[slice(margin, -margin)] * (values.ndim - 2))]


def vanishing_at_the_border(displacement: torch.Tensor, rim: int = 3) -> torch.Tensor:
    """Times a window that is zero within ``rim`` voxels of the border and rises smoothly to one."""
    for axis, n in enumerate(displacement.shape[2:], start=2):
        depth = np.minimum(np.arange(n), np.arange(n)[::-1])
        along = torch.from_numpy(np.sin(np.clip((depth - rim + 1) / 3, 0, 1) * np.pi / 2) ** 2)
        displacement = displacement * along.view([-1 if a == axis else 1 for a in range(displacement.ndim)])
    return displacement


@per_shape
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_warping_is_resampling_through_a_displacement_field_of_simpleitk(shape, mode, random_displacement, generator):
    displacement = random_displacement(shape, 2.0, 2.0)
    values = generator.standard_normal(shape)
    interpolator = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor}[mode]
    expected = sitk.GetArrayFromImage(sitk.Resample(to_itk(values), transform(displacement), interpolator, 0.0))
    found = warp(torch.from_numpy(values)[None, None], displacement, mode)[0, 0].numpy()
    inside = lands_inside(displacement)
    assert 0.5 < inside.mean() < 1
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-10)
    size = np.array(shape).reshape(-1, *[1] * len(shape))
    far = np.any((targets(displacement) < -1) | (targets(displacement) > size), axis=0)
    assert far.any()
    assert not found[far].any() and not expected[far].any()


@per_shape
def test_an_affine_displacement_is_an_affine_transform_of_simpleitk(shape, generator):
    ndim = len(shape)
    matrix = np.eye(ndim) + generator.uniform(-0.1, 0.1, (ndim, ndim))
    offset = generator.uniform(-0.5, 0.5, ndim)
    whole = torch.from_numpy(np.concatenate([matrix, offset[:, None]], axis=1))[None]
    displacement = affine_displacement(whole, shape)
    itk_transform = sitk.AffineTransform(matrix[::-1, ::-1].ravel().tolist(), offset[::-1].tolist())
    values = generator.standard_normal(shape)
    expected = sitk.GetArrayFromImage(sitk.Resample(to_itk(values), itk_transform, sitk.sitkLinear, 0.0))
    found = warp(torch.from_numpy(values)[None, None], displacement)[0, 0].numpy()
    inside = lands_inside(displacement)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-9)


@per_shape
def test_sampled_displacements_move_random_points_as_simpleitk_does(shape, random_displacement, generator):
    displacement = random_displacement(shape, 2.0, 2.0)
    points = generator.uniform(0, np.array(shape) - 1, (200, len(shape)))
    np.testing.assert_allclose(at(displacement, points), move(transform(displacement), points), atol=1e-10)


@per_shape
def test_composition_is_the_composite_of_simpleitk(shape, random_displacement, generator):
    """At voxels exactly; between them to the error of interpolating once more, which the wrong order exceeds."""
    first, second = random_displacement(shape, 1.5, 3.0), random_displacement(shape, 1.5, 3.0)
    composite = sitk.CompositeTransform(len(shape))
    composite.AddTransform(transform(second))  # the one added last is applied first
    composite.AddTransform(transform(first))
    ours = compose(first, second)
    inside = lands_inside(first)
    voxels = np.argwhere(inside).astype(float)
    np.testing.assert_allclose(targets(ours)[:, inside].T, move(composite, voxels), atol=1e-10)

    points = generator.uniform(4, np.array(shape) - 5, (300, len(shape)))
    expected = move(composite, points)
    assert np.linalg.norm(at(ours, points) - expected, axis=1).mean() < 0.03
    assert np.linalg.norm(at(compose(second, first), points) - expected, axis=1).mean() > 0.1


@per_shape
def test_an_affine_and_a_displacement_compose_as_in_simpleitk(shape, random_displacement, generator):
    ndim = len(shape)
    matrix = np.eye(ndim) * 0.8 + generator.uniform(-0.05, 0.05, (ndim, ndim))
    centre = (np.array(shape) - 1) / 2
    whole = np.concatenate([matrix, (centre - matrix @ centre)[:, None]], axis=1)
    first, second = affine_displacement(torch.from_numpy(whole)[None], shape), random_displacement(shape, 1.0, 2.0)
    composite = sitk.CompositeTransform(ndim)
    composite.AddTransform(transform(second))
    composite.AddTransform(
        sitk.AffineTransform(matrix[::-1, ::-1].ravel().tolist(), [0.0] * ndim, centre[::-1].tolist())
    )
    voxels = np.argwhere(np.ones(shape)).astype(float)
    expected = move(composite, voxels)
    np.testing.assert_allclose(targets(compose(first, second)).reshape(ndim, -1).T, expected, atol=1e-9)


@per_shape
def test_inversion_agrees_with_simpleitk(shape, random_displacement):
    """Both are fixed points of the same equation; ITK's stops at its tolerance and holds the border still."""
    displacement = vanishing_at_the_border(random_displacement(shape, 0.8, 3.0))
    ours, residual = invert(displacement, 60)
    assert residual < 1e-6
    image = vectors(displacement)
    settings = {
        "maximumNumberOfIterations": 200,
        "maxErrorToleranceThreshold": 1e-5,
        "meanErrorToleranceThreshold": 1e-6,
    }
    theirs = from_vectors(sitk.InvertDisplacementField(image, **settings))
    assert (ours - theirs).norm(dim=1).max() < 0.01
    assert (displacement + theirs).norm(dim=1).max() > 0.05  # it is not simply -u
    # ITK's own composite of the map and our inverse leaves points where they are.
    composite = sitk.CompositeTransform(len(shape))
    composite.AddTransform(transform(displacement))
    composite.AddTransform(transform(ours))
    voxels = np.argwhere(lands_inside(ours)).astype(float)
    np.testing.assert_allclose(move(composite, voxels), voxels, atol=1e-5)


@pytest.mark.slow
@per_shape
@pytest.mark.parametrize("border, theirs", [("zero", "zeros"), ("edge", "border")])
def test_warping_is_that_of_monai(shape, border, theirs, random_displacement, generator):
    blocks = pytest.importorskip("monai.networks.blocks", reason="MONAI's warp is checked only where it is installed")
    displacement = random_displacement(shape, 2.0, 2.0)
    values = torch.from_numpy(generator.standard_normal((1, 2, *shape)))
    for mode, name in (("linear", "bilinear"), ("nearest", "nearest")):
        expected = blocks.Warp(name, theirs)(values, displacement)
        torch.testing.assert_close(warp(values, displacement, mode, border), expected, atol=1e-10, rtol=0)


@per_shape
@pytest.mark.parametrize("steps", [1, 4, 7])
def test_scaling_and_squaring_is_that_of_monai(shape, steps, random_displacement):
    """With the border held the same forms agree everywhere; with zeros outside where nothing comes from there."""
    blocks = pytest.importorskip(
        "monai.networks.blocks", reason="MONAI's squaring is checked only where it is installed"
    )
    velocity = random_displacement(shape, 1.5, 3.0)
    found = integrate(velocity, steps)
    torch.testing.assert_close(blocks.DVF2DDF(steps, padding_mode="border")(velocity), found, atol=1e-10, rtol=0)
    enclosed = vanishing_at_the_border(velocity)
    torch.testing.assert_close(blocks.DVF2DDF(steps)(enclosed), integrate(enclosed, steps), atol=1e-10, rtol=0)
    assert (found - velocity).abs().max() > 0.05


@per_shape
def test_warping_integrating_and_resizing_are_those_of_the_voxelmorph_package(shape, random_displacement, generator):
    modules = pytest.importorskip("voxelmorph.nn.modules", reason="VoxelMorph is checked only where it is installed")
    displacement = random_displacement(shape, 1.5, 2.0).float()
    values = torch.from_numpy(generator.standard_normal((1, 1, *shape))).float()
    expected = modules.SpatialTransformer()(values, displacement)
    torch.testing.assert_close(warp(values, displacement), expected, atol=2e-5, rtol=0)
    velocity = vanishing_at_the_border(random_displacement(shape, 1.5, 3.0)).float()
    expected = modules.IntegrateVelocityField(steps=7)(velocity)
    torch.testing.assert_close(integrate(velocity, 7), expected, atol=2e-5, rtol=0)
    # Corners on corners there too, but lengths are multiplied by 2 where the grid's voxels are (2 n - 1) / (n - 1).
    resized = modules.ResizeDisplacementField(scale_factor=2)(displacement)
    ours = resample_displacement(displacement, [2 * n for n in shape])
    factors = torch.tensor([(2 * n - 1) / (n - 1) / 2 for n in shape]).view(1, -1, *[1] * len(shape))
    torch.testing.assert_close(ours, resized * factors, atol=1e-5, rtol=0)


@per_shape
def test_integration_follows_the_paths_of_the_differential_equation(shape, random_displacement):
    """dx/dt = v(x) from 0 to 1, solved by Runge-Kutta of order 8 in the same piecewise linear velocity."""
    velocity = random_displacement(shape, 1.5, 3.0)
    components = velocity[0].numpy()
    ndim = len(shape)

    def speed(_, flat):
        where = flat.reshape(ndim, -1)
        return np.stack([map_coordinates(c, where, order=1, mode="nearest") for c in components]).ravel()

    start = np.indices(shape).astype(float).reshape(ndim, -1)
    solved = solve_ivp(speed, (0, 1), start.ravel(), method="DOP853", rtol=1e-5, atol=1e-5).y[:, -1]
    expected = torch.from_numpy((solved.reshape(ndim, -1) - start).reshape(1, ndim, *shape))
    difference = interior(integrate(velocity, 7) - expected, 3).norm(dim=1)
    assert difference.max() < 0.1
    assert difference.mean() < 0.02
    plain = interior(velocity - expected, 3).norm(dim=1)
    assert plain.mean() > 5 * difference.mean()


@per_shape
def test_the_exponential_of_an_affine_velocity_is_that_of_the_matrix(shape, generator):
    """exp of [L t; 0 0], where the map contracts about a point of the grid; more steps, less error, by halves."""
    ndim = len(shape)
    linear = generator.uniform(-0.05, 0.05, (ndim, ndim)) - 0.3 * np.eye(ndim)
    point = np.array(shape) / 2 + generator.uniform(-1, 1, ndim)
    generator_matrix = np.zeros((ndim + 1, ndim + 1))
    generator_matrix[:-1, :-1], generator_matrix[:-1, -1] = linear, -linear @ point
    velocity = affine_displacement(torch.from_numpy(np.eye(ndim + 1) + generator_matrix)[None], shape)
    exact = affine_displacement(torch.from_numpy(expm(generator_matrix)[:-1])[None], shape)
    errors = [(integrate(velocity, steps) - exact).abs().max().item() for steps in (6, 7, 8, 12)]
    assert errors[0] < 0.05
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.02)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.02)
    assert errors[3] < 1e-3
    expected = np.exp(np.trace(linear))  # det exp L, to the error of the steps
    np.testing.assert_allclose(jacobian_determinant(integrate(velocity, 12)).numpy(), expected, rtol=1e-3)


def test_a_rotation_is_integrated_from_its_velocity():
    """A turn by 20 degrees about the middle of the grid is the exponential of the cross product with the axis."""
    shape, angle = (17, 17), np.deg2rad(20)
    centre = [8.0, 8.0]
    turn = affine_matrix(torch.zeros(1, 2).double(), rotation=torch.tensor([[angle]]).double(), centre=centre)
    spin = torch.eye(3).double()
    spin[0, 1], spin[1, 0] = -angle, angle
    spin[:2, 2] = -(spin[:2, :2] - torch.eye(2).double()) @ torch.tensor(centre).double()
    found = integrate(affine_displacement(spin[None], shape), 12)
    radius = (identity(shape, found) - 8).norm(dim=1)
    error = (found - affine_displacement(turn, shape)).norm(dim=1)
    assert error[radius < 7].max() < 1e-3
