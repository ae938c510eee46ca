"""Image files: what is refused with what words, what is written, and that nothing half-written stays."""

import gzip
import logging

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from support.images import GRIDS, per_grid, random_volume, refused

from regcore.errors import InputError
from regcore.images import nifti
from regcore.images.field import read_field
from regcore.images.grid import Grid
from regcore.images.nifti import save_nifti
from regcore.images.volume import Volume, read_grid, read_labels, read_volume

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


@per_grid
def test_qform_and_sform_are_both_set_and_equal(grid, generator, tmp_path):
    random_volume(grid, generator).save(tmp_path / "image.nii.gz")
    header = nib.load(tmp_path / "image.nii.gz").header
    qform, qcode = header.get_qform(coded=True)
    sform, scode = header.get_sform(coded=True)
    assert qcode == scode == 1
    np.testing.assert_allclose(qform, sform, atol=1e-5)  # the quaternion is float32
    assert header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("read", [read_volume, read_grid, read_field])
def test_a_file_that_may_not_be_read_is_named_with_the_remedy(read, monkeypatch, tmp_path):
    path = tmp_path / "private.nii"
    path.write_bytes(b"x" * 400)

    def denied(name):
        raise PermissionError(13, "Permission denied", str(name))

    monkeypatch.setattr(nib, "load", denied)
    refused(read, path, "may not be read .*change its permissions")


def test_a_path_that_no_system_accepts_is_named():
    with pytest.raises(InputError, match=r"aaaa.*convert or copy it again"):
        read_grid("a" * 5000 + ".nii")


@pytest.mark.slow
def test_whatever_byte_of_a_header_is_damaged_there_is_one_message(generator, tmp_path):
    path = tmp_path / "damaged.nii"
    save_nifti(path, generator.integers(0, 9, (5, 6, 7)).astype(np.int16), Grid((5, 6, 7), np.eye(4)))
    sound = path.read_bytes()
    failed = 0
    for _ in range(100):
        content = bytearray(sound)
        for where in generator.integers(0, 352, 3):
            content[where] = generator.integers(256)
        path.write_bytes(content)
        for read in (read_volume, read_labels, read_field):
            try:
                read(path)
            except InputError as error:
                failed += 1
                assert str(path) in str(error)
    assert failed > 130  # most of them; all that is asked is that nothing else was raised


@both_readers
def test_an_image_that_cannot_fit_is_refused_before_it_is_read(read, monkeypatch, tmp_path):
    path = tmp_path / "large.nii.gz"
    save_nifti(path, np.arange(6000, dtype=np.int16).reshape(20, 30, 10), Grid((20, 30, 10), np.eye(4)))
    monkeypatch.setattr(nifti, "ALWAYS_FITS", 80_000)
    monkeypatch.setattr(nifti, "free_memory", lambda: 83_999)  # 2 bytes stored, 8 scaled, 4 as float32
    monkeypatch.setattr(nib.arrayproxy.ArrayProxy, "__array__", lambda *_, **__: pytest.fail("the voxels were read"))
    refused(read, path, r"shape \(20, 30, 10\) takes about 0 MiB of memory, .* free; resample it to larger voxels")


def test_an_image_that_just_fits_is_read(monkeypatch, tmp_path):
    save_nifti(tmp_path / "a.nii", np.arange(6000, dtype=np.int16).reshape(20, 30, 10), Grid((20, 30, 10), np.eye(4)))
    monkeypatch.setattr(nifti, "ALWAYS_FITS", 80_000)
    monkeypatch.setattr(nifti, "free_memory", lambda: 84_000)
    assert read_volume(tmp_path / "a.nii").data.sum() == 5999 * 3000


def test_memory_that_runs_out_all_the_same_ends_in_a_message(monkeypatch, tmp_path):
    save_nifti(tmp_path / "a.nii", np.arange(6, dtype=np.int16).reshape(2, 3), Grid((2, 3), np.eye(3)))

    def exhausted(*_, **__):
        raise MemoryError

    monkeypatch.setattr(nib.arrayproxy.ArrayProxy, "__array__", exhausted)
    refused(read_volume, tmp_path / "a.nii", "does not fit into memory; resample it to larger voxels")


@pytest.mark.parametrize(
    ("slope", "intercept", "factor", "offset"),
    [(2, 1, 2, 1), (-1, 0, -1, 0), (0, 0, 1, 0), (np.nan, np.nan, 1, 0), (np.inf, 0, 1, 0), (1, 5, 1, 5)],
)
def test_intensities_are_scaled_as_itk_scales_them(slope, intercept, factor, offset, tmp_path):
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    save_scaled(tmp_path / "a.nii", data, slope, intercept)
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii").data, factor * data + offset)
    itk = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "a.nii"))
    np.testing.assert_allclose(itk.T, factor * data + offset)


def test_what_nibabel_remarks_without_a_file_name_is_not_printed(capfd, tmp_path):
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    nib.save(image, tmp_path / "zero.nii")
    content = bytearray((tmp_path / "zero.nii").read_bytes())
    content[80:84] = bytes(4)  # pixdim[1]
    (tmp_path / "zero.nii").write_bytes(content)
    read_grid(tmp_path / "zero.nii")
    assert "pixdim" not in capfd.readouterr().err


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_an_intercept_without_a_slope_is_left_out_and_said(slope, caplog, tmp_path):
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    save_scaled(tmp_path / "a.nii", data, slope, 5)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").data, data)
    assert f"{tmp_path / 'a.nii'}: scl_inter is 5" in caplog.text and "set scl_slope to 1" in caplog.text
    assert (data + 5 == sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "a.nii")).T).all()  # what it warns of


def save_scaled(path, data: np.ndarray, slope: float, intercept: float) -> None:
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, intercept], dtype="<f4").tobytes()
    path.write_bytes(content)


@pytest.mark.parametrize(("highest", "stored"), [(2**31 - 1, "int32"), (2**32 - 1, "uint32"), (2**32, "int64")])
def test_labels_are_stored_in_the_narrowest_type_that_holds_them(highest, stored, tmp_path):
    data = np.array([[0, 1], [2, highest]])
    save_nifti(tmp_path / "a.nii", data, Grid((2, 2), np.eye(3)))
    assert nib.load(tmp_path / "a.nii").get_data_dtype() == stored
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "a.nii").dataobj), data)
