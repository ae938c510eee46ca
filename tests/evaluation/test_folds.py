"""Where a map folds: every count against closed forms, polygons and tetrahedra by hand, and other code."""

import importlib.util
import itertools
import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from support.paths import ROOT

from regcore.evaluation import (
    DigitalFolds,
    digital_folds,
    folds,
    non_diffeomorphic_points,
    non_diffeomorphic_volume,
    sd_log_jacobian,
)
from regcore.kernels import reference_only
from regcore.spatial import affine_displacement, corner_jacobian_determinants, jacobian_determinant

SHAPES = [(9, 8), (7, 8, 6)]
per_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2-D", "3-D"])
DTYPES = [torch.float32, torch.float64]
per_type = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])

spec = importlib.util.spec_from_file_location("peers_of_folds", ROOT / "benchmarks" / "peers.py")
peers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(peers)


@pytest.fixture(params=["kernel", "reference"], autouse=True)
def code(request):
    """Every test runs with the compiled kernels and with the plain form of the same operators."""
    if request.param == "kernel":
        yield
        return
    with reference_only():
        yield


def inner(shape) -> int:
    return math.prod(n - 2 for n in shape)


def simplices_per_voxel(shape) -> int:
    return {2: 4, 3: 10}[len(shape)]


def still(shape, dtype=torch.float64) -> torch.Tensor:
    return torch.zeros(1, len(shape), *shape, dtype=dtype)


def along(shape, axis: int, profile, dtype=torch.float64) -> torch.Tensor:
    """The displacement that is ``profile`` along ``axis`` and zero along the others."""
    displacement = still(shape, dtype)
    sizes = [1] * len(shape)
    sizes[axis] = -1
    displacement[0, axis] = torch.as_tensor(profile, dtype=dtype).view(sizes)
    return displacement


def affine(shape, matrix: np.ndarray) -> torch.Tensor:
    """φ(p) = A p + t with an arbitrary t."""
    whole = np.concatenate([matrix, np.arange(1.0, len(shape) + 1)[:, None]], axis=1)
    return affine_displacement(torch.from_numpy(whole)[None], shape)


def simplices(ndim: int) -> list[list[np.ndarray]]:
    """Offsets from a voxel to the other corners of each of its simplices, turned as the identity has them."""
    found = [[s * np.eye(ndim, dtype=int)[a] for a, s in enumerate(signs)] for signs in _signs(ndim)]
    if ndim == 3:
        steps = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]])
        found += [list(steps), list(-steps)]
    return [[c[1], c[0], *c[2:]] if np.linalg.det(np.array(c)) < 0 else c for c in found]


def _signs(ndim: int):
    return itertools.product((1, -1), repeat=ndim)


def shoelace(corners: np.ndarray) -> float:
    """Signed area of a polygon from its corners (n, 2)."""
    x, y = corners.T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def tetrahedron(corners: np.ndarray) -> float:
    """Signed volume from four corners: the determinant of the homogeneous coordinates, over 3!."""
    return float(np.linalg.det(np.concatenate([np.ones((4, 1)), corners], axis=1))) / 6


def counted_one_by_one(displacement: torch.Tensor, mask: np.ndarray) -> DigitalFolds:
    """The definition, a voxel and a simplex at a time, from positions; every simplex counts half."""
    u = displacement[0].double().numpy()
    shape, ndim = u.shape[1:], len(u)
    position = np.moveaxis(u + np.indices(shape), 0, -1)
    measure = shoelace if ndim == 2 else tetrahedron
    voxels = central = corners = shares = 0
    volume = 0.0
    for p in itertools.product(*[range(1, n - 1) for n in shape]):
        if not mask[p]:
            continue
        voxels += 1
        steps = np.eye(ndim, dtype=int)
        rows = [(position[tuple(np.add(p, e))] - position[tuple(np.subtract(p, e))]) / 2 for e in steps]
        central += np.linalg.det(rows) <= 0
        sizes = [
            measure(np.array([position[p], *(position[tuple(np.add(p, o))] for o in offsets)]))
            for offsets in simplices(ndim)
        ]
        corners += min(sizes) <= 0
        shares += sum(size <= 0 for size in sizes)
        volume += sum(0.5 * max(-size, 0) for size in sizes)
    return DigitalFolds(voxels, int(central), int(corners), shares / simplices_per_voxel(shape), volume)


def require_equal(found: DigitalFolds, expected: DigitalFolds) -> None:
    assert (found.voxels, found.central, found.corners) == (expected.voxels, expected.central, expected.corners)
    assert found.simplices == pytest.approx(expected.simplices, abs=1e-12)
    assert found.volume == pytest.approx(expected.volume, rel=1e-6, abs=1e-12)


@per_shape
def test_the_simplices_of_the_identity_dissect_a_voxel(shape):
    """What the counting by hand below rests on: all turn the right way, and half of their sum is one voxel."""
    measure = shoelace if len(shape) == 2 else tetrahedron
    sizes = [measure(np.array([np.zeros(len(shape)), *corners])) for corners in simplices(len(shape))]
    assert len(sizes) == simplices_per_voxel(shape)
    assert min(sizes) > 0
    assert sum(sizes) / 2 == pytest.approx(1, abs=1e-12)


@per_shape
@per_type
def test_the_identity_has_no_folds_of_any_kind(shape, dtype):
    displacement = still(shape, dtype)
    require_equal(digital_folds(displacement), DigitalFolds(inner(shape), 0, 0, 0.0, 0.0))
    assert folds(displacement) == non_diffeomorphic_points(displacement) == non_diffeomorphic_volume(displacement) == 0
    assert sd_log_jacobian(displacement) == 0
    corners = corner_jacobian_determinants(displacement)
    assert torch.equal(corners, torch.ones(1, 2 ** len(shape), *[n - 2 for n in shape], dtype=dtype))


@per_shape
def test_every_determinant_of_an_affine_map_is_that_of_its_matrix(shape, generator):
    ndim = len(shape)
    signs = set()
    for _ in range(10):
        matrix = generator.uniform(-1, 1, (ndim, ndim)) + 0.3 * np.eye(ndim)
        determinant = np.linalg.det(matrix)
        signs.add(determinant > 0)
        displacement = affine(shape, matrix)
        np.testing.assert_allclose(jacobian_determinant(displacement).numpy(), determinant, atol=1e-11)
        corners = corner_jacobian_determinants(displacement)
        assert corners.shape == (1, 2**ndim, *[n - 2 for n in shape])
        np.testing.assert_allclose(corners.numpy(), determinant, atol=1e-11)
        folded = determinant < 0
        whole = inner(shape) * folded
        require_equal(
            digital_folds(displacement),
            DigitalFolds(inner(shape), whole, whole, float(whole), whole * max(-determinant, 0)),
        )
        assert non_diffeomorphic_volume(displacement) == pytest.approx(100 * max(-determinant, 0), rel=1e-9)
    assert signs == {True, False}


def test_corner_determinants_are_in_the_order_of_the_sides():
    """φ(x, y) = (f(x), g(y)) has the slope of the side on each axis; forward first, as ``product((1, -1))``."""
    f, g = np.array([0.0, 2, 5, 9]), np.array([0.0, 0.5, 3, 3.25])
    displacement = along((4, 4), 0, f - np.arange(4)) + along((4, 4), 1, g - np.arange(4))
    found = corner_jacobian_determinants(displacement)[0]
    forward_f, forward_g = np.diff(f)[1:], np.diff(g)[1:]
    backward_f, backward_g = np.diff(f)[:-1], np.diff(g)[:-1]
    expected = [
        np.outer(forward_f, forward_g),
        np.outer(forward_f, backward_g),
        np.outer(backward_f, forward_g),
        np.outer(backward_f, backward_g),
    ]
    np.testing.assert_allclose(found.numpy(), np.array(expected), atol=1e-12)
    three = torch.stack([displacement[0, 0], displacement[0, 1], torch.zeros(4, 4).double()])[None]
    three = three[..., None].expand(1, 3, 4, 4, 3)  # the same in every plane of a third axis
    found = corner_jacobian_determinants(three)[0, ..., 0]
    np.testing.assert_allclose(found.numpy(), np.repeat(expected, 2, axis=0), atol=1e-12)


@pytest.mark.parametrize("shape, axis", [(s, a) for s in SHAPES for a in range(len(s))])
@per_type
def test_a_mirrored_axis_is_all_folds(shape, axis, dtype):
    displacement = along(shape, axis, -2.0 * np.arange(shape[axis]), dtype)
    whole = inner(shape)
    require_equal(digital_folds(displacement), DigitalFolds(whole, whole, whole, float(whole), float(whole)))
    assert folds(displacement) == non_diffeomorphic_points(displacement) == 100
    assert non_diffeomorphic_volume(displacement) == pytest.approx(100, rel=1e-6)


@pytest.mark.parametrize("shape, axis", [(s, a) for s in SHAPES for a in range(len(s))])
def test_a_collapsed_axis_is_all_folds_but_turns_no_volume_inside_out(shape, axis):
    """Determinants are exactly 0, which is no diffeomorphism, and no volume either."""
    displacement = along(shape, axis, -1.0 * np.arange(shape[axis]))
    whole = inner(shape)
    require_equal(digital_folds(displacement), DigitalFolds(whole, whole, whole, float(whole), 0.0))
    assert folds(displacement) == 100
    assert non_diffeomorphic_volume(displacement) == 0


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "pushed, central, corners, simplices, area",
    [
        (0.9, 0, 0, 0, 0),  # all triangles have 1 - 0.9 or more
        (1.0, 0, 2, 1.0, 0),  # four triangles of 0
        (1.5, 0, 2, 1.0, 4 * 0.5 / 4),  # four of -1/2: central differences see nothing, 1 - 1.5 / 2
        (2.0, 1, 2, 1.0, 4 * 1.0 / 4),  # the voxel behind has a central determinant of 1 - 2 / 2
        (2.5, 1, 2, 1.0, 4 * 1.5 / 4),
    ],
)
def test_one_voxel_pushed_past_its_neighbour_in_a_plane(axis, pushed, central, corners, simplices, area):
    """Triangles of the pushed voxel ahead, and of the one it passes behind, have 1 - t; two each, one per side."""
    shape = (9, 8)
    displacement = still(shape)
    displacement[0, axis, 4, 3] = pushed
    require_equal(digital_folds(displacement), DigitalFolds(inner(shape), central, corners, simplices, area))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    "pushed, central, corners, simplices, volume",
    [
        (0.9, 0, 0, 0, 0),
        (1.5, 0, 2, 8 / 10, 8 * 0.5 / 12),  # 1 - t: four ahead of the voxel and four behind the one it passes
        # Of the diagonal ones those with 2 - t fold too: of the voxel itself, of the one that has it across the
        # other two axes, and of the two that have it across this axis and another.
        (2.5, 1, 5, (8 + 4) / 10, (8 * 1.5 + 4 * 0.5) / 12),
    ],
)
def test_one_voxel_pushed_past_its_neighbour_in_space(axis, pushed, central, corners, simplices, volume):
    shape = (9, 8, 9)
    displacement = still(shape)
    displacement[0, axis, 4, 4, 4] = pushed
    require_equal(digital_folds(displacement), DigitalFolds(inner(shape), central, corners, simplices, volume))


@pytest.mark.parametrize("shape, axis", [(s, a) for s in SHAPES for a in range(len(s))])
@pytest.mark.parametrize("pushed, central", [(1.5, 0), (2.5, 1)])
def test_a_plane_pushed_through_the_next_one_turns_the_space_between_inside_out(shape, axis, pushed, central):
    """In every column the interval of one voxel has the length 1 - t: that is the volume, half seen from each end."""
    profile = np.zeros(shape[axis])
    profile[3] = pushed
    columns = inner(shape) // (shape[axis] - 2)
    expected = DigitalFolds(inner(shape), central * columns, 2 * columns, float(columns), (pushed - 1) * columns)
    found = digital_folds(along(shape, axis, profile))
    require_equal(found, expected)
    # Where the next plane is the border, only the end that is an inner voxel is looked at.
    profile = np.zeros(shape[axis])
    profile[-2] = pushed
    border = digital_folds(along(shape, axis, profile))
    require_equal(border, DigitalFolds(inner(shape), 0, columns, columns / 2, (pushed - 1) / 2 * columns))


def checkerboard(shape, axis: int, size: float, dtype=torch.float64) -> torch.Tensor:
    displacement = still(shape, dtype)
    parity = np.indices(shape).sum(0) % 2
    displacement[0, axis] = torch.from_numpy(size * (1 - 2 * parity))
    return displacement


@pytest.mark.parametrize("shape, axis", [(s, a) for s in SHAPES for a in range(len(s))])
@per_type
def test_a_checkerboard_folds_everywhere_and_central_differences_see_nothing(shape, axis, dtype):
    """The example that the one-sided determinants were introduced for.

    Neighbours two apart move alike, so that every central determinant is 1; the determinants with a step
    ahead or behind are 1 ± 2 s, half of each, and the diagonal ones, to neighbours of one colour, stay 2.
    """
    size = 0.75
    displacement = checkerboard(shape, axis, size, dtype)
    inside = (..., *[slice(1, -1)] * len(shape))
    assert torch.equal(jacobian_determinant(displacement)[inside], torch.ones(1, *[n - 2 for n in shape], dtype=dtype))
    assert non_diffeomorphic_points(displacement) == 0
    whole = inner(shape)
    half = 2 ** (len(shape) - 1)
    share, volume = half / simplices_per_voxel(shape), half * (2 * size - 1) / 2 / math.factorial(len(shape))
    require_equal(digital_folds(displacement), DigitalFolds(whole, 0, whole, share * whole, volume * whole))
    assert non_diffeomorphic_volume(displacement) == pytest.approx(100 * volume, rel=1e-6)
    values = corner_jacobian_determinants(displacement).unique()
    assert values.tolist() == [1 - 2 * size, 1 + 2 * size]
    assert digital_folds(checkerboard(shape, axis, 0.25, dtype)).corners == 0  # 1 - 1/2 is still upright


@per_shape
@per_type
def test_random_folds_are_those_counted_one_by_one(shape, dtype, generator):
    """Polygons by the shoelace formula, tetrahedra by homogeneous coordinates, in a loop over voxels."""
    for scale in (0.3, 0.6, 1.0):
        displacement = torch.from_numpy(scale * generator.standard_normal((1, len(shape), *shape))).to(dtype)
        for mask in (generator.random(shape) < 0.4, np.ones(shape, dtype=bool)):
            expected = counted_one_by_one(displacement, mask)
            require_equal(digital_folds(displacement, mask), expected)
            percent = 100 / expected.voxels
            assert non_diffeomorphic_volume(displacement, mask) == pytest.approx(percent * expected.volume, rel=1e-6)
            assert non_diffeomorphic_points(displacement, mask) == pytest.approx(percent * expected.central)
        if scale == 0.6:
            assert 0 < expected.central < expected.corners  # of the whole grid: the two kinds are told apart


@per_type
def test_the_volume_is_that_of_the_authors_form(dtype, generator):
    shape = SHAPES[1]
    for scale in (0.2, 0.5, 2.0):
        displacement = torch.from_numpy(scale * generator.standard_normal((1, 3, *shape))).to(dtype)
        mask = generator.random(shape) < 0.5
        expected = peers.non_diffeomorphic_volume_scipy(displacement, mask)
        assert expected > 0
        assert non_diffeomorphic_volume(displacement, mask) == pytest.approx(expected, rel=1e-6)


@per_shape
def test_the_corner_determinants_are_those_of_the_authors_form(shape, generator):
    if len(shape) == 2:
        shape = (*shape, 5)
    displacement = torch.from_numpy(generator.standard_normal((1, 3, *shape)))
    position = displacement[0].numpy() + np.indices(shape)
    expected = peers.ten_determinants(position)[:8]
    np.testing.assert_allclose(corner_jacobian_determinants(displacement)[0].numpy(), np.array(expected), atol=1e-10)


@per_shape
def test_central_determinants_are_those_of_simpleitk(shape, random_displacement):
    """On a grid without direction, where ITK's filter is right; at the border the two take other differences."""
    displacement = random_displacement(shape, 1.5, 1.0)
    # ITK's axes and components are x, y, z: the array's, reversed.
    vectors = np.ascontiguousarray(np.moveaxis(displacement[0].numpy(), 0, -1)[..., ::-1])
    image = sitk.GetImageFromArray(vectors, isVector=True)
    expected = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image))
    inside = (slice(1, -1),) * len(shape)
    found = jacobian_determinant(displacement)[0].numpy()
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-6)
    assert (expected[inside] <= 0).sum() == digital_folds(displacement).central > 0


@per_shape
def test_the_middle_of_the_one_sided_slopes_is_the_central_one(shape, random_displacement):
    """Where a map bends along one axis alone, the central determinant is the mean of the two one-sided ones."""
    profile = random_displacement(shape, 2.0, 0.7)[0, 0][(slice(None), *[2] * (len(shape) - 1))]
    displacement = along(shape, 0, profile)
    inside = (..., *[slice(1, -1)] * len(shape))
    mean = corner_jacobian_determinants(displacement).mean(1)
    torch.testing.assert_close(mean, jacobian_determinant(displacement)[inside], atol=1e-12, rtol=0)


@per_shape
def test_only_voxels_of_the_mask_count(shape):
    """A plane is pushed through the next; the mask decides whether either is looked at."""
    profile = np.zeros(shape[0])
    profile[3] = 2.5
    displacement = along(shape, 0, profile)
    for planes, central, corners in [((1, 2), 0, 0), ((3,), 0, 1), ((4,), 1, 1), ((3, 4, 5), 1, 2)]:
        mask = np.zeros(shape, dtype=bool)
        mask[list(planes)] = True
        columns = math.prod(n - 2 for n in shape[1:])
        found = digital_folds(displacement, mask)
        assert (found.voxels, found.central) == (columns * len(planes), columns * central)
        assert (found.corners, found.volume) == (columns * corners, pytest.approx(columns * corners * 0.75))
        assert digital_folds(displacement, torch.from_numpy(mask)) == found
        every = math.prod(shape[1:])  # `folds` looks at the border too: the map is the same there
        assert folds(displacement, mask) == pytest.approx(100 * central * every / mask.sum())


@per_shape
def test_voxels_on_the_border_of_the_grid_never_count(shape):
    """A mirror folds everywhere; a mask of the border alone holds nothing that can be looked at."""
    displacement = along(shape, 0, -2.0 * np.arange(shape[0]))
    mask = np.ones(shape, dtype=bool)
    mask[(slice(1, -1),) * len(shape)] = False
    assert digital_folds(displacement, mask) == DigitalFolds(0, 0, 0, 0.0, 0.0)
    assert math.isnan(non_diffeomorphic_volume(displacement, mask))
    assert math.isnan(non_diffeomorphic_points(displacement, mask))
    assert folds(displacement, mask) == 100  # by one-sided differences, which are there


@per_shape
def test_an_empty_mask_gives_no_number(shape):
    displacement, mask = still(shape), np.zeros(shape, dtype=bool)
    assert math.isnan(folds(displacement, mask))
    assert math.isnan(non_diffeomorphic_volume(displacement, mask))
    assert math.isnan(non_diffeomorphic_points(displacement, mask))
    assert digital_folds(displacement, mask).voxels == 0


@pytest.mark.parametrize("shape", [(3, 3), (3, 7), (3, 3, 3), (7, 3, 3), (3, 4, 9)])
def test_the_thinnest_grids_are_counted(shape, generator):
    displacement = torch.from_numpy(generator.standard_normal((1, len(shape), *shape)))
    require_equal(digital_folds(displacement), counted_one_by_one(displacement, np.ones(shape, dtype=bool)))


def test_folds_do_not_depend_on_the_order_of_the_axes(generator):
    """The same map with its array axes and components permuted or, in pairs, reversed."""
    displacement = torch.from_numpy(0.7 * generator.standard_normal((1, 3, 7, 8, 6)))
    expected = digital_folds(displacement)
    for order in itertools.permutations(range(3)):
        turned = displacement.permute(0, 1, *[2 + a for a in order])[:, list(order)]
        require_equal(digital_folds(turned), expected)
    reversed_ = displacement.flip(2) * torch.tensor([-1.0, 1, 1]).view(1, 3, 1, 1, 1)
    found = digital_folds(reversed_)  # reversed along one axis, other diagonals are taken, but the corners stay
    assert found.central == expected.central
    ahead, behind = corner_jacobian_determinants(displacement)[0].split(4)
    swapped = torch.cat([behind, ahead]).flip(1)
    torch.testing.assert_close(corner_jacobian_determinants(reversed_)[0], swapped, atol=1e-12, rtol=0)


def test_float32_counts_are_made_in_float64():
    """A voxel follows 2⁻²⁵ behind the one pushed onto it: upright, but 0 where the difference is float32."""
    shape = (7, 8, 6)
    profile = np.zeros(7, dtype=np.float32)
    profile[3], profile[4] = 1, 2**-25
    assert profile[4] - profile[3] == -1
    displacement = along(shape, 0, profile, torch.float32)
    assert digital_folds(displacement).corners == 0
    assert (corner_jacobian_determinants(displacement.double()) > 0).all()
