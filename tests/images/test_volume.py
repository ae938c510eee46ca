"""Reading images and label maps: what is kept exactly, and which values are refused with what words."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from support.images import GRIDS, per_grid, random_volume, refused

from regcore.images.grid import Grid
from regcore.images.volume import Volume, read_grid, read_labels, read_volume


def test_spacing_agrees_with_nibabel(generator, tmp_path):
    random_volume(GRIDS[0], generator).save(tmp_path / "a.nii.gz")
    zooms = nib.load(tmp_path / "a.nii.gz").header.get_zooms()
    np.testing.assert_allclose(GRIDS[0].spacing, zooms, rtol=1e-6)  # zooms are float32


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_voxel_that_is_not_finite_is_counted_and_refused(value, generator, tmp_path):
    volume = random_volume(GRIDS[0], generator)
    volume.data[2, 3, 1] = volume.data[4, 0, 2] = value
    volume.save(tmp_path / "bad.nii.gz")
    refused(read_volume, tmp_path / "bad.nii.gz", r"2 voxel\(s\) are NaN or infinite; .*nan_to_num")
    refused(read_labels, tmp_path / "bad.nii.gz", "integer type")


def test_a_constant_image_is_refused_with_its_value(tmp_path):
    Volume(np.full((4, 5), 7, np.int16), Grid((4, 5), np.eye(3))).save(tmp_path / "flat.nii.gz")
    refused(read_volume, tmp_path / "flat.nii.gz", "value 7; .*check how the file was made")


@pytest.mark.parametrize("value", [1.5, 2.01, -1, -1000])
def test_labels_that_are_no_whole_numbers_from_zero_are_refused(value, tmp_path):
    stored = np.zeros((4, 5), np.float32)
    stored[1, 2] = value
    Volume(stored, Grid((4, 5), np.eye(3))).save(tmp_path / "labels.nii.gz")
    refused(read_labels, tmp_path / "labels.nii.gz", "Use nearest neighbour")


#: Labels of several stores: the highest is above 2^24, 2^31, 2^32, or 2^53.
WIDE = {
    "uint16": 65_535,
    "float32": 2**24,
    "uint32": 4_000_000_001,
    "int64": 2**40 + 1,
    "uint64": 2**62 + 1,
    "float64": 2**52 + 1,
}


@pytest.mark.parametrize(("stored", "highest"), WIDE.items(), ids=WIDE)
def test_labels_are_what_the_file_has_whatever_its_type(stored, highest, tmp_path):
    codes = np.array([[0, 1, 2], [7, highest - 1, highest]]).astype(stored)
    grid = Grid.centred((2, 3), (1, 1), (0, 0))
    nib.save(nib.Nifti1Image(codes, None, dtype=stored), tmp_path / "labels.nii.gz")
    labels = read_labels(tmp_path / "labels.nii.gz")
    assert labels.data.tolist() == codes.astype(np.uint64).tolist()
    Volume(labels.data, grid).save(tmp_path / "again.nii.gz")
    assert read_labels(tmp_path / "again.nii.gz").data.tolist() == codes.astype(np.uint64).tolist()
    itk = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "again.nii.gz"))
    assert itk.T.tolist() == codes.astype(np.uint64).tolist()


@pytest.mark.parametrize(("stored", "label"), [("uint64", 2**63), ("float64", 2.0**53 + 2), ("float32", 2.0**25)])
def test_labels_beyond_what_their_type_holds_exactly_are_refused(stored, label, tmp_path):
    nib.save(nib.Nifti1Image(np.array([[0, label], [1, 2]]).astype(stored), None, dtype=stored), tmp_path / "a.nii")
    refused(read_labels, tmp_path / "a.nii", "not exact in .*number them anew")


def test_negative_whole_numbers_of_an_integer_map_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.array([[0, -1], [1, 2]], dtype=np.int16), None), tmp_path / "a.nii")
    refused(read_labels, tmp_path / "a.nii", "Use nearest neighbour")


@pytest.mark.parametrize("largest", [1e39, -1e39])
def test_values_beyond_single_precision_are_refused(largest, tmp_path):
    nib.save(nib.Nifti1Image(np.array([[0, 1], [2, largest]]), None), tmp_path / "huge.nii")
    refused(read_volume, tmp_path / "huge.nii", r"1e\+39, beyond the 1e\+15 .* single precision .*; scale them")


def test_values_that_single_precision_cannot_tell_apart_are_refused(generator, tmp_path):
    counts = 10**9 + generator.integers(0, 100, (5, 6))
    nib.save(nib.Nifti1Image(counts.astype(np.int32), None), tmp_path / "counts.nii")
    refused(read_volume, tmp_path / "counts.nii", "differ too little for single precision; subtract 1000000")
    nib.save(nib.Nifti1Image(np.full((5, 6), 1e-60) * np.arange(6), None), tmp_path / "tiny.nii")
    refused(read_volume, tmp_path / "tiny.nii", "single precision.* or scale them")


def test_an_offset_of_any_usual_size_is_no_reason_to_refuse(generator, tmp_path):
    data = 10_000 + generator.random((5, 6)) * 100
    nib.save(nib.Nifti1Image(data, None), tmp_path / "a.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii").data, data, rtol=1e-6)
