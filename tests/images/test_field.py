"""Displacement fields in memory and on disk, tied to ANTs and SimpleITK on every kind of header.

The images end in a rim of zeros one voxel wide.  Outside an image regcore falls to zero over one voxel and
ITK stays at the edge value for half a voxel; with the rim the two agree everywhere, so that nothing has to
be left out of the comparison.
"""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from regcore.errors import InputError
from regcore.images.field import DisplacementField, read_field
from regcore.images.grid import transform_points
from regcore.images.volume import Grid, Volume, save_nifti

#: RAS → LPS and back.
LPS = np.array([-1.0, -1.0, 1.0])


def rotation(ndim: int, *degrees: float) -> np.ndarray:
    """A rotation about z in 2-D, about x, then y, then z in 3-D."""
    planes = [(0, 1)] if ndim == 2 else [(1, 2), (2, 0), (0, 1)]
    matrix = np.eye(ndim)
    for (a, b), angle in zip(planes, np.deg2rad(degrees), strict=True):
        turn = np.eye(ndim)
        turn[[a, b], [a, b]] = np.cos(angle)
        turn[b, a], turn[a, b] = np.sin(angle), -np.sin(angle)
        matrix = turn @ matrix
    return matrix


def centred_grid(shape, direction, spacing, centre) -> Grid:
    """A grid with ``centre`` (RAS mm) in its middle; columns of ``direction`` are where its axes point to."""
    matrix = np.asarray(direction, dtype=float) * spacing
    affine = np.eye(len(shape) + 1)
    affine[:-1, :-1] = matrix
    affine[:-1, -1] = centre - matrix @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


#: PIR: the first axis points to P, the second to I, the third to R.
PIR = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
#: The first axis points to P, the second to R.
PR = [[0, 1], [-1, 0]]
#: A centre that is far from zero on every axis, so that a lost sign moves the image away.
CENTRE = np.array([31.0, -17.0, 44.0])

FIXED = {
    "RAS": centred_grid((22, 19, 16), np.eye(3), (1, 1.25, 1.5), CENTRE),
    "LAS": centred_grid((22, 19, 16), np.diag([-1, 1, 1]), (1, 1.25, 1.5), CENTRE),
    "PIR": centred_grid((22, 19, 16), PIR, (1, 1.25, 1.5), CENTRE),
    "oblique": centred_grid((22, 19, 16), rotation(3, 25, -15, 35), (1, 1.25, 1.5), CENTRE),
    "1x1x3 mm": centred_grid((24, 22, 9), rotation(3, 10, 0, 0), (1, 1, 3), CENTRE),
    "2-D RA": centred_grid((26, 21), np.eye(2), (1, 1.25), CENTRE[:2]),
    "2-D LA": centred_grid((26, 21), np.diag([-1, 1]), (1, 1.25), CENTRE[:2]),
    "2-D PR": centred_grid((26, 21), PR, (1, 1.25), CENTRE[:2]),
    "2-D oblique": centred_grid((26, 21), rotation(2, 35), (1, 1.25), CENTRE[:2]),
    "2-D 1x3 mm": centred_grid((27, 10), rotation(2, -20), (1, 3), CENTRE[:2]),
}
#: Another shape, spacing, orientation and centre than any of the fixed grids.
MOVING = {
    3: centred_grid((17, 24, 20), np.array(PIR) @ rotation(3, -20, 15, 10), (1.4, 1.1, 1.2), (32, -19, 45.5)),
    2: centred_grid((19, 27), np.array(PR) @ rotation(2, 15), (1.5, 1.2), (32, -19)),
}
every_header = pytest.mark.parametrize("grid", FIXED.values(), ids=FIXED)
both_dimensions = pytest.mark.parametrize("grid", [FIXED["oblique"], FIXED["2-D oblique"]], ids=["3-D", "2-D"])


@pytest.fixture
def random_field(random_displacement):
    """``make(grid)``: a smooth random field of about 2 voxels that differs along every component and axis."""
    return lambda grid: DisplacementField(random_displacement(grid.shape, 1.5, 4.0).float(), grid)


@pytest.fixture
def textured(generator):
    """``make(grid)``: a smooth random image of range one, inside a rim of zeros."""

    def make(grid: Grid) -> Volume:
        image = gaussian_filter(generator.standard_normal(grid.shape), 1.2)
        image = (image - image.min()) / np.ptp(image)
        inner = np.zeros(grid.shape)
        inner[(slice(1, -1),) * grid.ndim] = 1
        return Volume((image * inner).astype(np.float32), grid)

    return make


@pytest.fixture
def random_labels(generator):
    """``make(grid)``: blobs of three labels inside a rim of background."""

    def make(grid: Grid) -> Volume:
        labels = (gaussian_filter(generator.standard_normal((4, *grid.shape)), (0, *[2] * grid.ndim))).argmax(0)
        inner = np.zeros(grid.shape, dtype=np.int32)
        inner[(slice(1, -1),) * grid.ndim] = 1
        return Volume((labels * inner).astype(np.int32), grid)

    return make


def resample_with_sitk(folder, interpolator) -> np.ndarray:
    transform = sitk.DisplacementFieldTransform(sitk.ReadImage(folder / "field.nii.gz", sitk.sitkVectorFloat64))
    fixed, moving = sitk.ReadImage(folder / "fixed.nii.gz"), sitk.ReadImage(folder / "moving.nii.gz")
    return sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, interpolator, 0.0)).T


def resample_with_ants(folder, interpolator) -> np.ndarray:
    import ants  # takes seconds, so it is loaded where it is needed

    fixed, moving = ants.image_read(str(folder / "fixed.nii.gz")), ants.image_read(str(folder / "moving.nii.gz"))
    return ants.apply_transforms(fixed, moving, [str(folder / "field.nii.gz")], interpolator=interpolator).numpy()


def points_inside(grid: Grid, generator: np.random.Generator, count: int = 60) -> np.ndarray:
    return grid.to_world(generator.uniform(0, np.array(grid.shape) - 1, (count, grid.ndim)))


@every_header
def test_ants_and_simpleitk_warp_an_image_as_regcore_does(grid, random_field, textured, tmp_path):
    field, moving = random_field(grid), textured(MOVING[grid.ndim])
    field.save(tmp_path / "field.nii.gz")
    moving.save(tmp_path / "moving.nii.gz")
    Volume(np.zeros(grid.shape, np.float32), grid).save(tmp_path / "fixed.nii.gz")
    warped = field.warp(moving)

    # The image is in the picture and the field moves it: nothing is compared with zeros.
    unmoved = DisplacementField.identity(grid).warp(moving).data
    assert (unmoved > 0).mean() > 0.3
    assert np.abs(warped.data - unmoved).mean() > 0.03

    assert warped.data.dtype == np.float32
    for other in (resample_with_sitk(tmp_path, sitk.sitkLinear), resample_with_ants(tmp_path, "linear")):
        # The image's range is 1; what remains is float32 in the headers and the file, 2e-6 at the most.
        assert np.abs(warped.data - other).mean() < 1e-6
        assert np.abs(warped.data - other).max() < 1e-5


@every_header
def test_ants_and_simpleitk_warp_labels_as_regcore_does(grid, random_field, random_labels, tmp_path):
    field, moving = random_field(grid), random_labels(MOVING[grid.ndim])
    field.save(tmp_path / "field.nii.gz")
    moving.save(tmp_path / "moving.nii.gz")
    Volume(np.zeros(grid.shape, np.float32), grid).save(tmp_path / "fixed.nii.gz")
    warped = field.warp(moving, nearest=True)
    assert warped.data.dtype == moving.data.dtype
    assert set(np.unique(warped.data)) == {0, 1, 2, 3}
    for other in (
        resample_with_sitk(tmp_path, sitk.sitkNearestNeighbor),
        resample_with_ants(tmp_path, "nearestNeighbor"),
    ):
        # float32 can turn a point that is half-way between two voxels: one voxel of these grids at the most.
        assert (warped.data != other).mean() < 1e-3


@every_header
def test_simpleitk_moves_points_as_regcore_does(grid, random_field, generator, tmp_path):
    field = random_field(grid)
    field.save(tmp_path / "field.nii.gz")
    transform = sitk.DisplacementFieldTransform(sitk.ReadImage(tmp_path / "field.nii.gz", sitk.sitkVectorFloat64))
    points = points_inside(grid, generator)
    flip = LPS[: grid.ndim]
    expected = np.array([transform.TransformPoint(point.tolist()) for point in points * flip]) * flip
    assert np.linalg.norm(expected - points, axis=1).mean() > 1
    np.testing.assert_allclose(field.at(points), expected, atol=1e-4)  # mm; float32 coordinates of ±60 mm


@every_header
def test_the_file_is_what_itk_calls_a_displacement_field(grid, random_field, tmp_path):
    field = random_field(grid)
    field.save(tmp_path / "field.nii.gz")
    image = nib.load(tmp_path / "field.nii.gz")
    assert image.shape == ((*grid.shape, 1, 3) if grid.ndim == 3 else (*grid.shape, 1, 1, 2))
    assert image.header["intent_code"] == 1007
    assert image.get_data_dtype() == np.float32
    assert image.header["qform_code"] == image.header["sform_code"] == 1
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-5)  # the quaternion is float32

    # LPS millimetres, from the affine alone: columns are voxel axes, rows are R, A, S.
    voxel = (5, 7, 3)[: grid.ndim]
    ras = grid.affine[:-1, :-1] @ field.displacement[(0, slice(None), *voxel)].double().numpy()
    np.testing.assert_allclose(np.asarray(image.dataobj)[voxel].ravel(), ras * LPS[: grid.ndim], atol=1e-5)


@every_header
def test_a_field_survives_the_disk(grid, random_field, tmp_path):
    field = random_field(grid)
    field.save(tmp_path / "field.nii.gz")
    again = read_field(tmp_path / "field.nii.gz")
    assert again.grid.same_as(grid)
    assert again.displacement.shape == field.displacement.shape
    torch.testing.assert_close(again.displacement, field.displacement, atol=1e-5, rtol=0)  # voxels, by float32


@every_header
def test_a_field_composed_by_ants_is_read(grid, random_field, textured, tmp_path):
    """ANTs composes the field with a shift of 2, -3 (and 1) LPS millimetres that comes after it."""
    import ants

    field = random_field(grid)
    field.save(tmp_path / "field.nii.gz")
    textured(grid).save(tmp_path / "fixed.nii.gz")
    image = ants.image_read(str(tmp_path / "fixed.nii.gz"))
    shift = ants.create_ants_transform(
        transform_type="AffineTransform", dimension=grid.ndim, translation=[2.0, -3.0, 1.0][: grid.ndim]
    )
    ants.write_transform(shift, str(tmp_path / "shift.mat"))
    transforms = [str(tmp_path / "field.nii.gz"), str(tmp_path / "shift.mat")]  # points pass from left to right
    composed = read_field(ants.apply_transforms(image, image, transforms, compose=str(tmp_path / "both_")))
    assert composed.grid.same_as(grid)
    expected = field.targets() + np.array([-2.0, 3.0, 1.0])[: grid.ndim]
    np.testing.assert_allclose(composed.targets(), expected, atol=1e-4)  # mm; float32 coordinates of ±60 mm


@every_header
def test_targets_and_from_world_are_inverse(grid, random_field):
    field = random_field(grid)
    again = DisplacementField.from_world(field.targets(), grid)
    torch.testing.assert_close(again.displacement, field.displacement, atol=1e-5, rtol=0)
    assert again.displacement.dtype == torch.float32


@every_header
def test_one_voxel_along_an_axis_moves_by_the_column_of_the_affine(grid):
    for axis in range(grid.ndim):
        displacement = torch.zeros(1, grid.ndim, *grid.shape)
        displacement[:, axis] = 1
        field = DisplacementField(displacement, grid)
        start = DisplacementField.identity(grid).targets()
        np.testing.assert_allclose(field.targets() - start, np.broadcast_to(grid.affine[:-1, axis], start.shape))


@every_header
def test_a_field_pulls(grid, textured):
    """Moving by one voxel along the first axis, a voxel shows what its neighbour after it holds."""
    image = textured(grid)
    displacement = torch.zeros(1, grid.ndim, *grid.shape)
    displacement[:, 0] = 1
    warped = DisplacementField(displacement, grid).warp(image).data
    np.testing.assert_allclose(warped[:-1], image.data[1:], atol=1e-6)
    np.testing.assert_allclose(warped[-1], 0, atol=1e-6)


@both_dimensions
def test_at_interpolates_linearly_and_holds_the_edge_outside(grid, random_field, generator):
    field = random_field(grid)
    voxels = generator.uniform(-4, np.array(grid.shape) + 3, (80, grid.ndim))
    u = field.displacement[0].double().numpy()
    moved = np.stack([map_coordinates(component, voxels.T, order=1, mode="nearest") for component in u], axis=-1)
    np.testing.assert_allclose(field.at(grid.to_world(voxels)), grid.to_world(voxels + moved), atol=1e-9)


@both_dimensions
@pytest.mark.parametrize("fill", [None, 55.5])
def test_outside_is_the_moving_images_background_or_what_is_given(fill, grid, random_field, textured, tmp_path):
    field, image = random_field(grid), textured(MOVING[grid.ndim])
    ct = image.with_data(np.round(1100 * image.data) - 1000)  # its rim is air
    border = np.ones(ct.data.shape, dtype=bool)
    border[(slice(2, -2),) * grid.ndim] = False
    outside = -1000 if fill is None else fill
    if fill is not None:  # so that the image ends in what it is continued with, as SimpleITK needs for comparison
        ct.data[border] = fill
    field.save(tmp_path / "field.nii.gz")
    ct.save(tmp_path / "moving.nii.gz")
    Volume(np.zeros(grid.shape, np.float32), grid).save(tmp_path / "fixed.nii.gz")
    warped = field.warp(ct, fill=fill).data
    transform = sitk.DisplacementFieldTransform(sitk.ReadImage(tmp_path / "field.nii.gz", sitk.sitkVectorFloat64))
    fixed, moving = (sitk.ReadImage(tmp_path / f"{name}.nii.gz") for name in ("fixed", "moving"))
    itk = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, outside)).T
    assert 0.1 < (warped == outside).mean() < 0.95
    np.testing.assert_allclose(warped, itk, atol=2e-2)  # HU, of 1100; float32 headers


def test_labels_are_zero_outside_whatever_their_border_is():
    labels = Volume(np.full((4, 4), 7, dtype=np.int32), Grid.centred((4, 4), (1, 1), (0, 0)))
    away = DisplacementField(torch.full((1, 2, 4, 4), 2.0), labels.grid)
    np.testing.assert_array_equal(away.warp(labels, nearest=True).data[2:], 0)


@pytest.mark.parametrize("direction", [np.eye(3), np.diag([-1, 1, 1]), PIR, np.eye(2), PR], ids=len)
@pytest.mark.parametrize("spacing", [1.0, 0.5, 2.0])
def test_the_identity_returns_the_image_bit_for_bit(direction, spacing, generator):
    """Where world coordinates are exact: axis-aligned, voxels of a power of two; other headers are below."""
    ndim = len(direction)
    grid = centred_grid((9, 8, 7)[:ndim], direction, spacing, CENTRE[:ndim])
    data = generator.standard_normal(grid.shape).astype(np.float32)
    data[data < 0] = 0
    np.testing.assert_array_equal(DisplacementField.identity(grid).warp(Volume(data, grid)).data, data)


@every_header
def test_the_identity_returns_the_image_to_rounding_on_any_header(grid, generator):
    data = generator.standard_normal(grid.shape).astype(np.float32)
    warped = DisplacementField.identity(grid).warp(Volume(data, grid)).data
    np.testing.assert_allclose(warped, data, atol=1e-12)  # voxel coordinates in float64 are off by 1e-14


@every_header
def test_the_identity_returns_every_label(grid, generator):
    labels = generator.integers(0, 2**31 - 1, grid.shape).astype(np.int32)  # float32 could not hold these
    warped = DisplacementField.identity(grid).warp(Volume(labels, grid), nearest=True)
    assert warped.data.dtype == np.int32
    np.testing.assert_array_equal(warped.data, labels)


@both_dimensions
def test_warping_onto_a_grid_that_misses_the_image_gives_zeros(grid, textured):
    far = grid.affine.copy()
    far[0, -1] += 500
    warped = DisplacementField.identity(Grid(grid.shape, far)).warp(textured(grid))
    assert not warped.data.any()


def affine_about(centre: np.ndarray, linear: np.ndarray, shift: np.ndarray) -> np.ndarray:
    matrix = np.eye(len(centre) + 1)
    matrix[:-1, :-1] = linear
    matrix[:-1, -1] = centre - linear @ centre + shift
    return matrix


@both_dimensions
def test_between_scans_is_the_chain_of_maps(grid, random_field, generator):
    """Native fixed → common grid → field → native moving, against the same three steps for single points."""
    ndim = grid.ndim
    field = random_field(grid)
    native = centred_grid((20, 17, 13)[:ndim], np.diag([-1, 1, 1])[:ndim, :ndim], (1.1, 0.9, 1.3)[:ndim], CENTRE[:ndim])
    linear = rotation(ndim, *(8, -5, 12)[: 1 if ndim == 2 else 3]) * (1.05, 0.97, 1.02)[:ndim]
    to_fixed = affine_about(CENTRE[:ndim], linear, np.array([1.5, -1, 2])[:ndim])
    to_moving = affine_about(CENTRE[:ndim], linear.T * 1.1, np.array([-20, 9, 4])[:ndim])
    between = field.between_scans(native, to_fixed, to_moving)
    assert between.grid is native

    voxels = generator.integers(0, native.shape, (40, ndim))  # at its voxels the result is not interpolated
    scan = native.to_world(voxels)
    common = np.linalg.solve(to_fixed[:-1, :-1], (scan - to_fixed[:-1, -1]).T).T
    expected = transform_points(to_moving, field.at(common))
    np.testing.assert_allclose(between.at(scan), expected, atol=1e-4)  # mm; the displacement is float32
    assert np.linalg.norm(field.at(common) - common, axis=1).mean() > 1


@both_dimensions
def test_between_scans_without_affines_keeps_the_field(grid, random_field):
    field = random_field(grid)
    again = field.between_scans(grid, np.eye(grid.ndim + 1), np.eye(grid.ndim + 1))
    torch.testing.assert_close(again.displacement, field.displacement, atol=1e-5, rtol=0)


@both_dimensions
def test_between_scans_of_the_identity_is_the_affine(grid, generator):
    ndim = grid.ndim
    matrix = affine_about(CENTRE[:ndim], rotation(ndim, *(10,) * (1 if ndim == 2 else 3)), np.arange(ndim) + 1.0)
    between = DisplacementField.identity(grid).between_scans(grid, np.eye(ndim + 1), matrix)
    points = points_inside(grid, generator)
    np.testing.assert_allclose(between.at(points), transform_points(matrix, points), atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 3), (5, 6, 7, 2, 3), (5, 6, 7, 1, 1), (5, 6, 7, 1, 2)])
def test_a_file_of_another_shape_is_no_field(shape, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), np.eye(4)), tmp_path / "image.nii.gz")
    with pytest.raises(InputError, match=r"image\.nii\.gz: not a displacement field .*\(x, y, z, 1, 3\)"):
        read_field(tmp_path / "image.nii.gz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_field_that_is_not_finite_is_refused(value, tmp_path):
    data = np.zeros((5, 6, 7, 1, 3), np.float32)
    data[2, 3, 4, 0, 1] = value
    save_nifti(tmp_path / "field.nii.gz", data, Grid((5, 6, 7), np.eye(4)), intent="vector")
    with pytest.raises(InputError, match=r"field\.nii\.gz: .*NaN or infinite.*register the pair again"):
        read_field(tmp_path / "field.nii.gz")


def test_a_missing_or_truncated_field_is_refused(random_field, tmp_path):
    path = tmp_path / "field.nii.gz"
    with pytest.raises(InputError, match=r"field\.nii\.gz: no such file"):
        read_field(path)
    random_field(FIXED["RAS"]).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"field\.nii\.gz: truncated"):
        read_field(path)


@pytest.mark.parametrize("intent", [("none", (), ""), ("vector", (), "NREG_TRANS")], ids=["no intent", "NiftyReg"])
def test_a_field_of_another_convention_is_refused(tmp_path, intent):
    path = tmp_path / "field.nii.gz"
    DisplacementField.identity(Grid.centred((5, 6, 7), (1, 1, 1), (0, 0, 0))).save(path)
    image = nib.load(path)
    image.header.set_intent(*intent)
    other = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), other)
    with pytest.raises(InputError, match=r"other\.nii\.gz.*LPS millimetres with intent 1007"):
        read_field(other)


def test_the_same_grid_gives_the_image_back_bit_for_bit_at_any_spacing():
    grid = Grid.centred((9, 8, 7), (1.25, 0.9, 1.1), (3.3, -2.7, 0.1))
    image = Volume(np.random.default_rng(0).random(grid.shape).astype("f4"), grid)
    np.testing.assert_array_equal(DisplacementField.identity(grid).warp(image).data, image.data)
