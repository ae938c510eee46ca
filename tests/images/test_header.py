"""Headers are read as ITK reads them, over units, codes and orientations; what ITK would read otherwise is said."""

import itertools
import logging

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from support.images import refused

from regcore.images.field import DisplacementField, read_field
from regcore.images.grid import Grid
from regcore.images.volume import Volume, read_grid, read_labels, read_volume

both_readers = pytest.mark.parametrize("read", [read_volume, read_labels])

LPS = np.array([-1.0, -1.0, 1.0])


def turned(*degrees: float) -> np.ndarray:
    """A rotation about x, then y, then z."""
    matrix = np.eye(3)
    for (a, b), angle in zip([(1, 2), (2, 0), (0, 1)], np.deg2rad(degrees), strict=True):
        turn = np.eye(3)
        turn[[a, b], [a, b]] = np.cos(angle)
        turn[b, a], turn[a, b] = np.sin(angle), -np.sin(angle)
        matrix = turn @ matrix
    return matrix


#: Directions of the axes; those of slices leave the x-y plane to itself.
IN_SPACE = {
    "RAS": np.eye(3),
    "LPS": np.diag([-1, -1, 1]),
    "LAS": np.diag([-1, 1, 1]),
    "PIR": np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
    "oblique": turned(25, -15, 35),
    "oblique, left-handed": turned(25, -15, 35) @ np.diag([1, 1, -1]),
    "nearly half a turn": turned(0.01, 179.99, 0),
}
IN_PLANE = {
    "RA": np.eye(3),
    "LP": np.diag([-1, -1, 1]),
    "PR": np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]),
    "turned": turned(0, 0, 35),
    "mirrored": turned(0, 0, -20) @ np.diag([-1, 1, 1]),
    "from below": turned(0, 0, 35) @ np.diag([1, 1, -1]),
}
#: Axes of the file, and the directions that it may have.
SHAPES = {
    "3-D": ((5, 6, 7), IN_SPACE),
    "one volume of a series": ((5, 6, 7, 1), IN_SPACE),
    "2-D": ((5, 6), IN_PLANE),
    "one slice": ((5, 6, 1), IN_PLANE),
    "one slice of one volume": ((5, 6, 1, 1), IN_PLANE),
}
UNITS = ("mm", "micron", "meter", "unknown")
#: (qform_code, sform_code); the forms are the same.
CODES = ((1, 1), (1, 0), (0, 1), (2, 4), (1, 2), (0, 4), (0, 0))


def form(directions: np.ndarray, sizes=(2.0, 1.25, 3.0), offset=(31.0, -17.5, 44.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(sizes)
    affine[:3, 3] = offset
    return affine


def save(path, data: np.ndarray, affine: np.ndarray, codes=(1, 1), unit="mm", sizes=None, qform=None) -> None:
    """Write a header field by field, as other programs may."""
    image = nib.Nifti1Image(data, None)
    image.header.set_qform(affine if qform is None else qform, code=1)
    image.header.set_sform(affine, code=1)
    image.header["qform_code"], image.header["sform_code"] = codes
    image.header.set_xyzt_units(unit)
    if sizes is not None:
        image.header["pixdim"][1 : 1 + len(sizes)] = sizes
    nib.save(image, path)


def require_same_place(grid: Grid, image: sitk.Image) -> None:
    """Every corner of a grid is where SimpleITK puts it, to a thousandth of a voxel."""
    assert grid.shape == image.GetSize()[: grid.ndim]
    for corner in itertools.product(*[(0, n - 1) for n in grid.shape]):
        index = corner + (0,) * (image.GetDimension() - grid.ndim)
        itk = LPS[: grid.ndim] * np.array(image.TransformIndexToPhysicalPoint(index))[: grid.ndim]
        apart = np.linalg.norm(grid.to_world(np.array(corner)) - itk) / grid.spacing.min()
        assert apart < 2e-3, f"{apart} voxels apart at {corner}"


CASES = [(kind, name) for kind, (_, directions) in SHAPES.items() for name in directions]


every_case = pytest.mark.parametrize(("kind", "orientation"), CASES, ids=[" ".join(case) for case in CASES])


@pytest.mark.slow
@every_case
def test_a_header_is_read_as_simpleitk_reads_it(kind, orientation, generator, tmp_path):
    shape, directions = SHAPES[kind]
    data = generator.integers(1, 99, shape).astype(np.int16)
    for number, (unit, codes) in enumerate(itertools.product(UNITS, CODES)):
        path = tmp_path / f"{number}.nii"
        save(path, data, form(directions[orientation]), codes, unit)
        scan, itk = read_volume(path), sitk.ReadImage(path)
        require_same_place(scan.grid, itk)
        np.testing.assert_array_equal(scan.data, sitk.GetArrayFromImage(itk).T.reshape(scan.grid.shape))


@every_case
def test_what_is_written_is_read_by_simpleitk_as_meant(kind, orientation, generator, tmp_path):
    shape, directions = SHAPES[kind]
    data = generator.integers(1, 99, shape).astype(np.int16)
    for unit, codes in (("mm", (1, 1)), ("micron", (0, 1)), ("meter", (1, 0)), ("unknown", (0, 0))):
        save(tmp_path / f"{unit}.nii", data, form(directions[orientation]), codes, unit)
        scan = read_volume(tmp_path / f"{unit}.nii")
        scan.save(tmp_path / "again.nii")
        require_same_place(scan.grid, sitk.ReadImage(tmp_path / "again.nii"))

        one_voxel_on = DisplacementField(torch.ones(1, scan.grid.ndim, *scan.grid.shape), scan.grid)
        one_voxel_on.save(tmp_path / "field.nii")
        vectors = sitk.ReadImage(tmp_path / "field.nii")
        require_same_place(scan.grid, vectors)
        step = vectors.TransformIndexToPhysicalPoint((1,) * scan.grid.ndim)
        moved = np.array(vectors.GetOrigin()) + np.array(vectors.GetPixel((0,) * scan.grid.ndim))
        np.testing.assert_allclose(moved, step, atol=2e-3 * scan.grid.spacing.min())
        assert read_field(tmp_path / "field.nii").grid.same_as(scan.grid, voxels=2e-3)


@pytest.mark.parametrize("unit", ["mm", "micron"])
@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (1, 5, 6), (5, 1, 6), (5, 6, 1, 1)])
def test_what_is_written_for_a_slice_lies_on_it_in_three_dimensions(shape, unit, generator, tmp_path):
    """Viewers that show a slice in 3-D go by all four columns of the matrix."""
    affine = form(turned(0, 0, 35) @ np.diag([1, 1, -1]))
    absent = shape.index(1) if 1 in shape else 2
    affine[:3, [absent, 2]] = affine[:3, [2, absent]]  # the axis of one voxel points along z
    save(tmp_path / "slice.nii", generator.integers(1, 99, shape).astype(np.int16), affine, unit=unit)
    scan = read_volume(tmp_path / "slice.nii")
    scan.save(tmp_path / "warped.nii")
    DisplacementField.identity(scan.grid).save(tmp_path / "field.nii")
    read_field(tmp_path / "field.nii").warp(scan).save(tmp_path / "applied.nii")
    kept = [axis for axis in range(3) if axis != absent]
    for name in ("warped", "field", "applied"):
        written = nib.load(tmp_path / f"{name}.nii").affine
        scale = 1e-3 if unit == "micron" else 1.0
        np.testing.assert_allclose(
            written[:3, [0, 1, 2, 3]], scale * affine[:3, [*kept, absent, 3]], rtol=1e-5, atol=1e-6
        )


def test_a_slice_and_its_squeezed_copy_are_the_same_image(generator, tmp_path):
    data = generator.integers(1, 99, (5, 6)).astype(np.int16)
    save(tmp_path / "volume.nii", data[:, None, :, None], form(np.eye(3)[:, [0, 2, 1]], sizes=(2, 3, 1.25)))
    save(tmp_path / "slice.nii", data, form(np.eye(3)))
    one, other = read_volume(tmp_path / "volume.nii"), read_volume(tmp_path / "slice.nii")
    assert one.grid.same_as(other.grid)
    np.testing.assert_array_equal(one.data, other.data)


@pytest.mark.parametrize("orientation", ["PIR", "oblique"])
def test_a_slice_out_of_the_plane_is_refused_with_its_tilt(orientation, generator, tmp_path):
    save(tmp_path / "a.nii", generator.integers(1, 99, (5, 6, 1)).astype(np.int16), form(IN_SPACE[orientation]))
    refused(read_volume, tmp_path / "a.nii", r"out of the x-y plane, by [0-9.]+ mm .*save it without the axis")


def test_a_header_without_codes_is_said_once_by_its_file_name(caplog, generator, tmp_path):
    path = tmp_path / "codeless.nii"
    save(path, generator.integers(1, 99, (5, 6, 7)).astype(np.int16), form(np.eye(3)), codes=(0, 0))
    with caplog.at_level(logging.WARNING):
        read_grid(path)
        read_volume(path)
    assert len(caplog.records) == 1
    said = caplog.text
    assert str(path) in said and "neither its qform nor its sform is set" in said
    assert "voxels of 2 x 1.25 x 3 mm" in said and "set_sform" in said


@pytest.mark.parametrize("kind", [nib.AnalyzeImage, nib.Spm99AnalyzeImage, nib.Spm2AnalyzeImage])
@pytest.mark.parametrize("sizes", [(2, 1.25, 3), (-2, 1.25, 3), (0, 1.25, 3)], ids=["sound", "flipped", "zero"])
def test_an_analyze_file_is_read_as_simpleitk_reads_it_and_said(kind, sizes, caplog, generator, tmp_path):
    path = tmp_path / "old.img"
    nib.save(kind(generator.integers(1, 99, (5, 6, 7)).astype(np.int16), np.diag([-2, 1.25, 3, 1])), path)
    header = bytearray(path.with_suffix(".hdr").read_bytes())
    header[80:92] = np.array(sizes, dtype="<f4").tobytes()
    path.with_suffix(".hdr").write_bytes(header)
    with caplog.at_level(logging.WARNING):
        scan = read_volume(path)
    require_same_place(scan.grid, sitk.ReadImage(path))
    assert f"{path}: an Analyze 7.5 file" in caplog.text


def test_a_pair_of_nifti_files_is_read_as_simpleitk_reads_it(generator, tmp_path):
    nib.save(nib.Nifti1Pair(generator.random((5, 6, 7)), form(turned(10, 20, 30))), tmp_path / "pair.img")
    require_same_place(read_grid(tmp_path / "pair.img"), sitk.ReadImage(tmp_path / "pair.img"))


def test_nifti_2_is_read_by_its_fields(generator, tmp_path):
    """ITK 5.4 cannot read NIfTI-2; the same fields of NIfTI-1 give the answer."""
    for kind, name in ((nib.Nifti1Image, "one.nii"), (nib.Nifti2Image, "two.nii")):
        image = kind(generator.random((5, 6, 7)).astype(np.float32), form(turned(10, 20, 30)))
        image.header.set_xyzt_units("micron")
        nib.save(image, tmp_path / name)
    assert read_grid(tmp_path / "two.nii").same_as(read_grid(tmp_path / "one.nii"))
    read_volume(tmp_path / "two.nii").save(tmp_path / "again.nii")
    require_same_place(read_grid(tmp_path / "two.nii"), sitk.ReadImage(tmp_path / "again.nii"))


@pytest.mark.parametrize(
    ("codes", "sizes", "words"),
    [
        ((0, 1), (0, 1.25, 3), "the sform gives voxels of 2 x 1.25 x 3 mm, but pixdim 1 x 1.25 x 3"),
        ((0, 1), (4, 4, 4), "but pixdim 4 x 4 x 4"),
        ((0, 1), (np.nan, 1.25, 3), "but pixdim 1 x 1.25 x 3"),
        ((0, 1), (-2, 1.25, 3), "negative voxel size"),
        ((1, 0), (-2, 1.25, 3), "negative voxel size"),
        ((1, 1), (2, 1.25, 3.5), "but pixdim 2 x 1.25 x 3.5"),
    ],
)
def test_voxel_sizes_that_contradict_the_matrix_are_refused(codes, sizes, words, generator, tmp_path):
    path = tmp_path / "sizes.nii"
    save(path, generator.integers(1, 99, (5, 6, 7)).astype(np.int16), form(turned(5, 5, 5)), codes, sizes=sizes)
    refused(read_volume, path, words + r".*mm \([0-9.]+ voxels\) at the far corner.*set_qform, set_sform")


def test_a_zero_voxel_size_counts_as_one_where_no_matrix_contradicts_it(generator, tmp_path):
    path = tmp_path / "zero.nii"
    save(path, generator.integers(1, 99, (5, 6, 7)).astype(np.int16), form(np.eye(3)), (1, 0), sizes=(0, 1.25, 3))
    require_same_place(read_grid(path), sitk.ReadImage(path))
    assert read_grid(path).spacing[0] == 1


@pytest.mark.parametrize(("moved", "verdict"), [(0.05, "silent"), (0.3, "said"), (0.8, "refused")])
@pytest.mark.parametrize("scale", [0.01, 1, 10])
@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (2, 4)])
def test_two_positions_are_judged_by_the_voxel_and_read_as_itk_reads_them(
    moved, verdict, scale, codes, caplog, generator, tmp_path
):
    path = tmp_path / "two_places.nii"
    affine = form(np.eye(3), sizes=np.array([1.25, 2, 2]) * scale)
    qform = affine.copy()
    qform[1, 3] += moved * 1.25 * scale
    save(path, generator.integers(1, 99, (5, 6, 7)).astype(np.int16), affine, codes, qform=qform)
    if verdict == "refused":
        refused(read_volume, path, f"two different positions: {scale:.3g} mm \\({moved:.2g} voxels\\)")
        return
    with caplog.at_level(logging.WARNING):
        grid = read_grid(path)
    require_same_place(grid, sitk.ReadImage(path))
    assert (f"{0.375 * scale:.3g} mm (0.3 voxels)" in caplog.text) == (verdict == "said")


@pytest.mark.parametrize(("share", "read"), [(0.3, True), (0.8, False)])
@pytest.mark.parametrize(("n", "size"), [(5, 1.0), (200, 1.0), (200, 0.01), (60, 5.0)])
def test_a_shear_is_judged_by_the_millimetres_at_the_far_corner(share, read, n, size, caplog, generator, tmp_path):
    """A shear s moves the far corner of n voxels by s·n voxels; half of it remains after the axes are righted."""
    path = tmp_path / "sheared.nii"
    affine = form(np.eye(3), sizes=(size, size, size))
    affine[0, 1] = 2 * share / (n - 1) * size / np.sqrt(2)
    save(path, generator.integers(1, 99, (n, n, 5)).astype(np.int16), affine, codes=(0, 1))
    with pytest.raises(RuntimeError, match="orthonormal direction cosines"):
        sitk.ReadImage(path)
    if not read:
        refused(
            read_volume, path, r"sheared .*by [0-9.]+ mm at the far corner \(0.[78][0-9]* voxels\).*resample the image"
        )
        return
    with caplog.at_level(logging.WARNING):
        grid = read_grid(path)
    directions = grid.affine[:3, :3] / grid.spacing
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-9)
    far = np.array([n - 1, n - 1, 0])
    apart = np.linalg.norm(grid.to_world(far) - (affine[:3, :3] @ far + affine[:3, 3])) / size
    assert apart == pytest.approx(share, rel=0.1)
    assert f"by {apart * size:.3g} mm at the far corner ({apart:.2g} voxels)" in caplog.text
    assert "set its sform to a right-angled matrix" in caplog.text
    Volume(generator.random(grid.shape), grid).save(tmp_path / "righted.nii")
    require_same_place(grid, sitk.ReadImage(tmp_path / "righted.nii"))


def test_noise_that_itk_tolerates_is_kept_in_silence(caplog, generator, tmp_path):
    path = tmp_path / "noisy.nii"
    noisy = turned(25, -15, 35) + generator.uniform(-2e-5, 2e-5, (3, 3))
    save(
        path, generator.integers(1, 99, (5, 6, 7)).astype(np.int16), form(noisy / np.linalg.norm(noisy, axis=0)), (0, 1)
    )
    with caplog.at_level(logging.WARNING):
        require_same_place(read_grid(path), sitk.ReadImage(path))
    assert not caplog.records


def test_a_sheared_sform_beside_a_qform_is_read_as_the_qform(generator, tmp_path):
    path = tmp_path / "sheared.nii"
    affine = form(turned(5, 5, 5), sizes=(1, 1, 1))
    sheared = affine.copy()
    sheared[:3, 0] += 5e-4 * affine[:3, 1]
    save(path, generator.integers(1, 99, (5, 6, 7)).astype(np.int16), sheared, (1, 1), qform=affine)
    require_same_place(read_grid(path), sitk.ReadImage(path))
    np.testing.assert_allclose(read_grid(path).affine, affine, atol=1e-5)


@pytest.mark.parametrize("orientation", IN_SPACE)
def test_the_numbers_of_a_study_in_micrometres_are_those_of_its_copy_in_millimetres(orientation, generator, tmp_path):
    data = generator.integers(1, 99, (5, 6, 7)).astype(np.int16)
    save(tmp_path / "um.nii", data, form(IN_SPACE[orientation]), unit="micron")
    small = form(IN_SPACE[orientation], sizes=(2e-3, 1.25e-3, 3e-3), offset=(0.031, -0.0175, 0.044))
    save(tmp_path / "mm.nii", data, small)
    assert read_grid(tmp_path / "um.nii").same_as(read_grid(tmp_path / "mm.nii"))


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


@both_readers
def test_a_series_is_refused(read, generator, tmp_path):
    nib.save(nib.Nifti1Image(generator.random((4, 5, 6, 2)), np.eye(4)), tmp_path / "series.nii.gz")
    refused(read, tmp_path / "series.nii.gz", "split a series or pick one volume")


@both_readers
@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 5), (1, 1, 6, 1)])
def test_an_image_of_one_axis_is_refused(read, shape, generator, tmp_path):
    nib.save(nib.Nifti1Image(generator.integers(0, 5, shape).astype(np.int16), np.eye(4)), tmp_path / "line.nii.gz")
    refused(read, tmp_path / "line.nii.gz", "fewer than two axes.*give a whole image")


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
    affine[0, 1] = 0.2
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((5, 6, 7)).astype("f4"), affine), path)
    refused(read_volume, path, "sheared.*resample")
