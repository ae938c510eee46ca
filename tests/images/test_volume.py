"""Grids, and reading and writing images: what is kept exactly, and which files are refused with what words."""

import gzip
import re

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from regcore.errors import InputError
from regcore.images.volume import Grid, Volume, read_grid, read_labels, read_volume, save_nifti

#: Rows of the direction matrix are permuted, flipped and rotated, spacings differ: nothing is symmetric.
OBLIQUE = np.array([[0.0, -1.2, 0.9, 11], [-2.0, 0.0, 0.0, -7], [0.0, 1.6, 0.675, 40], [0, 0, 0, 1]])
IN_PLANE = np.array([[-0.6, 2.4, 5], [0.8, 1.8, -9], [0, 0, 1]])
GRIDS = [Grid((7, 6, 5), OBLIQUE), Grid((8, 6), IN_PLANE)]
per_grid = pytest.mark.parametrize("grid", GRIDS, ids=["3-D", "2-D"])


def random_volume(grid: Grid, generator: np.random.Generator) -> Volume:
    return Volume(generator.standard_normal(grid.shape).astype(np.float32), grid)


@per_grid
def test_to_world_follows_the_affine_and_to_voxels_undoes_it(grid, generator):
    voxels = generator.uniform(-3, 9, (4, 5, grid.ndim))
    homogeneous = np.concatenate([voxels, np.ones((4, 5, 1))], axis=-1)
    expected = np.einsum("ij,abj->abi", grid.affine, homogeneous)[..., :-1]
    np.testing.assert_allclose(grid.to_world(voxels), expected, atol=1e-12)
    np.testing.assert_allclose(grid.to_voxels(expected), voxels, atol=1e-12)


def test_spacing_is_the_length_of_a_step_along_each_array_axis():
    np.testing.assert_allclose(GRIDS[0].spacing, [2, 2, 1.125], atol=1e-12)
    np.testing.assert_allclose(GRIDS[1].spacing, [1, 3], atol=1e-12)


def test_spacing_agrees_with_nibabel(generator, tmp_path):
    random_volume(GRIDS[0], generator).save(tmp_path / "a.nii.gz")
    zooms = nib.load(tmp_path / "a.nii.gz").header.get_zooms()
    np.testing.assert_allclose(GRIDS[0].spacing, zooms, rtol=1e-6)  # zooms are float32


@per_grid
def test_same_as_tolerates_less_than_a_micrometre_and_no_more(grid):
    def shifted(mm: float) -> Grid:
        affine = grid.affine.copy()
        affine[0, -1] += mm
        return Grid(grid.shape, affine)

    assert grid.same_as(shifted(0.9e-3))
    assert not grid.same_as(shifted(1.1e-3))
    assert grid.same_as(shifted(0.5), tolerance_mm=0.6)


@per_grid
def test_same_as_sees_shape_flip_and_a_rotation_that_keeps_the_origin(grid):
    taller = Grid((grid.shape[0] + 1, *grid.shape[1:]), grid.affine)
    flipped = grid.affine.copy()
    flipped[:, 0] *= -1
    swapped = grid.affine.copy()
    swapped[:, [0, 1]] = swapped[:, [1, 0]]
    assert not grid.same_as(taller)
    assert not grid.same_as(Grid(grid.shape, flipped))
    assert not grid.same_as(Grid(grid.shape, swapped))


def test_same_as_sees_another_number_of_voxels_between_the_same_corners():
    coarse, fine = Grid.centred((6, 5), (2, 1), (0, 0)), Grid.centred((11, 5), (1, 1), (0, 0))
    np.testing.assert_array_equal(coarse.corners(), fine.corners())
    assert not coarse.same_as(fine)


def test_same_as_sees_a_spacing_error_that_only_adds_up_at_the_far_corner():
    a = Grid.centred((201, 3), (1, 1), (0, 0))
    affine = a.affine.copy()
    affine[0, 0] += 1e-5  # 2 micrometres at voxel 200
    assert not a.same_as(Grid(a.shape, affine))


def test_overlaps_compares_world_boxes():
    here = Grid.centred((11, 11), (1, 1), (0, 0))  # covers -5 … 5
    assert here.overlaps(Grid.centred((3, 3), (1, 1), (5.9, 0)))
    assert not here.overlaps(Grid.centred((3, 3), (1, 1), (6.1, 0)))
    assert not here.overlaps(Grid.centred((3, 3), (1, 1), (0, -6.1)))
    mirrored = Grid((11, 11), np.array([[-1, 0, 15], [0, 1, -5], [0, 0, 1]]))  # covers x 5 … 15
    assert here.overlaps(mirrored)


@pytest.mark.parametrize("shape", [(10, 7), (10, 7, 4)])
def test_centred_is_axis_aligned_around_its_centre(shape):
    spacing, centre = (1.0, 2.5, 4.0)[: len(shape)], (3.0, -8.0, 20.0)[: len(shape)]
    grid = Grid.centred(shape, spacing, centre)
    np.testing.assert_array_equal(grid.affine[:-1, :-1], np.diag(spacing))
    np.testing.assert_allclose(grid.centre, centre, atol=1e-12)
    np.testing.assert_allclose(grid.corners().mean(axis=0), centre, atol=1e-12)
    np.testing.assert_allclose(np.ptp(grid.corners(), axis=0), np.multiply(spacing, np.array(shape) - 1), atol=1e-12)


def test_a_grid_needs_an_affine_of_its_dimension_and_keeps_its_own_copy():
    with pytest.raises(ValueError, match="3x3"):
        Grid((4, 5), np.eye(4))
    affine = np.eye(3)
    grid = Grid((4, 5), affine)
    affine[0, 0] = 9
    assert grid.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 9


@per_grid
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_an_image_survives_the_disk(grid, suffix, generator, tmp_path):
    volume = random_volume(grid, generator)
    path = tmp_path / f"image{suffix}"
    volume.save(path)
    again = read_volume(path)
    np.testing.assert_array_equal(again.data, volume.data)
    assert again.data.dtype == np.float32
    np.testing.assert_allclose(again.grid.affine, grid.affine, rtol=1e-6, atol=1e-6)  # headers are float32
    assert again.grid.shape == grid.shape
    assert again.path == path
    assert read_grid(path).same_as(again.grid, 0)


@per_grid
def test_qform_and_sform_are_both_set_and_equal(grid, generator, tmp_path):
    random_volume(grid, generator).save(tmp_path / "image.nii.gz")
    header = nib.load(tmp_path / "image.nii.gz").header
    qform, qcode = header.get_qform(coded=True)
    sform, scode = header.get_sform(coded=True)
    assert qcode == scode == 1
    np.testing.assert_allclose(qform, sform, atol=1e-5)  # the quaternion is float32
    assert header.get_xyzt_units()[0] == "mm"


@per_grid
def test_a_label_map_survives_the_disk_as_integers(grid, generator, tmp_path):
    labels = generator.integers(0, 3000, grid.shape).astype(np.int32)
    Volume(labels, grid).save(tmp_path / "labels.nii.gz")
    again = read_labels(tmp_path / "labels.nii.gz")
    assert again.data.dtype == np.int32
    np.testing.assert_array_equal(again.data, labels)


def test_labels_stored_as_floats_are_rounded_not_cut(tmp_path):
    stored = np.array([[0, 0.9996], [2.0004, 41.9999]], dtype=np.float32)
    Volume(stored, Grid((2, 2), np.eye(3))).save(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.nii.gz").data, [[0, 1], [2, 42]])


def test_an_empty_label_map_is_read(tmp_path):
    Volume(np.zeros((4, 5), np.uint8), Grid((4, 5), np.eye(3))).save(tmp_path / "labels.nii.gz")
    assert not read_labels(tmp_path / "labels.nii.gz").data.any()


def test_a_mask_of_booleans_can_be_saved(tmp_path):
    mask = np.arange(20).reshape(4, 5) % 3 == 0
    Volume(mask, Grid((4, 5), np.eye(3))).save(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.nii.gz").data, mask)


def test_intensity_scaling_of_the_header_is_applied(tmp_path):
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / "scaled.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "scaled.nii.gz").data.ravel(), np.arange(60) * 0.5 - 3)


REAL = ["brain-slices/T_template0.nii.gz", "avg152/avg152T1.nii", "oasis-brains/1000_SS.nii.gz"]


@pytest.mark.parametrize("name", [*REAL, "hippocampus/images/hippocampus_001.nii.gz"])
def test_real_scans_lie_where_itk_puts_them(name, shared_data):
    if not (shared_data / name).is_file():
        pytest.skip(f"no {shared_data / name}")
    grid = read_grid(shared_data / name)
    image = sitk.ReadImage(shared_data / name)
    assert image.GetSize() == grid.shape
    flip = np.array([-1, -1, 1])[: grid.ndim]
    for voxel in [(0,) * grid.ndim, (3, 20, 11)[: grid.ndim], tuple(n - 1 for n in grid.shape)]:
        itk = flip * image.TransformIndexToPhysicalPoint(voxel)
        np.testing.assert_allclose(grid.to_world(voxel), itk, atol=1e-3)  # mm; float32 quaternions


def refused(read, path, remedy: str) -> None:
    """``read`` raises an error that names the file and the remedy."""
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert re.search(remedy, str(caught.value)), f"no '{remedy}' in: {caught.value}"


both_readers = pytest.mark.parametrize("read", [read_volume, read_labels])


@pytest.mark.parametrize("read", [read_volume, read_labels, read_grid])
def test_a_missing_file_is_named(read, tmp_path):
    refused(read, tmp_path / "absent.nii.gz", "check the path")
    refused(read, tmp_path, "check the path")  # a folder is no file either


@both_readers
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0, 100, 0.5, -1], ids=["nothing", "part of the header", "half", "all but a byte"])
def test_a_truncated_file_is_refused(read, suffix, kept, generator, tmp_path):
    path = tmp_path / f"cut{suffix}"
    Volume(generator.integers(1, 99, GRIDS[0].shape).astype(np.int16), GRIDS[0]).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept == 0.5 else kept])
    refused(read, path, "copy (it|the file) again")


@both_readers
def test_a_file_whose_compressed_bytes_are_damaged_is_refused(read, generator, tmp_path):
    path = tmp_path / "damaged.nii.gz"
    Volume(generator.integers(1, 99, (20, 20, 20)).astype(np.int16), Grid((20, 20, 20), np.eye(4))).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    refused(read, path, "copy (it|the file) again")


@both_readers
@pytest.mark.parametrize("name", ["notes.txt", "notes.nii", "notes.nii.gz", "packed.nii.gz"])
def test_something_else_is_no_nifti(read, name, tmp_path):
    text = b"subject\tage\n01\t63\n" * 40
    (tmp_path / name).write_bytes(gzip.compress(text) if name.startswith("packed") else text)
    refused(read, tmp_path / name, "convert or copy it again")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_voxel_that_is_not_finite_is_counted_and_refused(value, generator, tmp_path):
    volume = random_volume(GRIDS[0], generator)
    volume.data[2, 3, 1] = volume.data[4, 0, 2] = value
    volume.save(tmp_path / "bad.nii.gz")
    refused(read_volume, tmp_path / "bad.nii.gz", r"2 voxel\(s\) are NaN or infinite; .*nan_to_num")
    refused(read_labels, tmp_path / "bad.nii.gz", "integer type")


@both_readers
def test_a_series_is_refused(read, generator, tmp_path):
    nib.save(nib.Nifti1Image(generator.random((4, 5, 6, 2)), np.eye(4)), tmp_path / "series.nii.gz")
    refused(read, tmp_path / "series.nii.gz", "split a series or pick one volume")


@both_readers
@pytest.mark.parametrize("shape", [(6, 5, 1), (1, 6, 5), (6, 1, 5), (1, 5)])
def test_a_volume_of_one_slice_is_refused(read, shape, generator, tmp_path):
    data = generator.integers(0, 5, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "slice.nii.gz")
    refused(read, tmp_path / "slice.nii.gz", "save the slice as a 2-D image")


def test_a_constant_image_is_refused_with_its_value(tmp_path):
    Volume(np.full((4, 5), 7, np.int16), Grid((4, 5), np.eye(3))).save(tmp_path / "flat.nii.gz")
    refused(read_volume, tmp_path / "flat.nii.gz", "value 7; .*check how the file was made")


@pytest.mark.parametrize("value", [1.5, 2.01, -1, -1000])
def test_labels_that_are_no_whole_numbers_from_zero_are_refused(value, tmp_path):
    stored = np.zeros((4, 5), np.float32)
    stored[1, 2] = value
    Volume(stored, Grid((4, 5), np.eye(3))).save(tmp_path / "labels.nii.gz")
    refused(read_labels, tmp_path / "labels.nii.gz", "Use nearest neighbour")


def save_with_affine(path, data: np.ndarray, affine: np.ndarray) -> None:
    """Write a file whose sform is ``affine``, valid or not."""
    image = nib.Nifti1Image(data, None)
    image.header.set_sform(affine, code=1)
    nib.save(image, path)


@both_readers
@pytest.mark.filterwarnings("ignore:invalid value encountered in det")
@pytest.mark.parametrize("column", [[0, 0, 0], [2, 0, 0], [np.nan, 0, 1]], ids=["zero", "parallel", "NaN"])
def test_an_orientation_that_does_not_span_space_is_refused(read, column, generator, tmp_path):
    affine = np.eye(4)
    affine[:3, 2] = column
    save_with_affine(tmp_path / "singular.nii.gz", generator.integers(0, 5, (4, 5, 6)).astype(np.int16), affine)
    refused(read, tmp_path / "singular.nii.gz", "set the sform and qform")


@both_readers
def test_a_flat_image_tilted_out_of_its_plane_is_refused(read, generator, tmp_path):
    angle = np.deg2rad(10)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    save_with_affine(tmp_path / "tilted.nii.gz", generator.integers(0, 5, (4, 5)).astype(np.int16), affine)
    refused(read, tmp_path / "tilted.nii.gz", "x-y plane.*set the sform and qform")


def test_colours_are_refused(tmp_path):
    rgb = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), tmp_path / "colour.nii.gz")
    refused(read_volume, tmp_path / "colour.nii.gz", "expected a grey-scale image")


@pytest.mark.parametrize("existed", [False, True])
def test_a_failed_write_leaves_no_trace(existed, monkeypatch, tmp_path):
    path = tmp_path / "out" / "image.nii.gz"
    if existed:
        path.parent.mkdir()
        path.write_bytes(b"what was there before")

    def disk_full(image, name):
        name.write_bytes(b"half an im")
        raise OSError("no space left on device")

    monkeypatch.setattr(nib, "save", disk_full)
    with pytest.raises(OSError, match="no space"):
        save_nifti(path, np.zeros((4, 5), np.float32), Grid((4, 5), np.eye(3)))
    assert sorted(path.parent.iterdir()) == ([path] if existed else [])
    assert not existed or path.read_bytes() == b"what was there before"


def test_a_successful_write_leaves_the_file_alone(tmp_path):
    save_nifti(tmp_path / "new" / "image.nii.gz", np.zeros((4, 5), np.float32), Grid((4, 5), np.eye(3)))
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["image.nii.gz"]


def test_a_qform_that_contradicts_the_sform_is_refused(tmp_path):
    path = tmp_path / "two_places.nii.gz"
    image = nib.Nifti1Image(np.random.default_rng(0).random((5, 6, 7)).astype("f4"), np.eye(4))
    shifted = np.eye(4)
    shifted[0, 3] = 6
    image.set_qform(np.eye(4), code=1)
    image.set_sform(shifted, code=4)
    nib.save(image, path)
    refused(read_volume, path, "qform and sform.*set both")


def test_a_sheared_header_is_refused(tmp_path):
    path = tmp_path / "sheared.nii.gz"
    affine = np.eye(4)
    affine[0, 1] = 0.1
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((5, 6, 7)).astype("f4"), affine), path)
    refused(read_volume, path, "sheared.*resample")


@pytest.mark.parametrize(
    ("where", "value"),
    [(70, b"\x00\x10"), (42, b"\xff\xff"), (42, b"\x00\x00")],
    ids=["unknown type", "negative length", "empty axis"],
)
def test_a_damaged_header_is_refused(tmp_path, where, value):
    path = tmp_path / "damaged.nii"
    save_nifti(path, np.random.default_rng(0).random((5, 6, 7)).astype("f4"), Grid((5, 6, 7), np.eye(4)))
    content = bytearray(path.read_bytes())
    content[where : where + 2] = value
    path.write_bytes(content)
    refused(read_volume, path, "copy|convert")


def test_wide_integers_are_stored_as_what_programs_read(tmp_path):
    grid = Grid((3, 4, 5), np.eye(4))
    Volume(np.arange(60).reshape(3, 4, 5), grid).save(tmp_path / "labels.nii.gz")
    assert nib.load(tmp_path / "labels.nii.gz").get_data_dtype() == np.int32
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.nii.gz").data, np.arange(60).reshape(3, 4, 5))
