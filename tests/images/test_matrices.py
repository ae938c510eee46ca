"""Matrices in the files of other programs: against these programs' own reading, writing and resampling."""

import re
import struct

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from support.tools import skip_without

from regcore.alignment.resampling import resample
from regcore.errors import InputError
from regcore.images import ants as ants_bridge
from regcore.images.grid import transform_points
from regcore.images.itk_transforms import LINEAR
from regcore.images.matrices import MARK, read_matrix, save_matrix
from regcore.images.matrix_formats import FORMATS
from regcore.images.volume import Grid, Volume
from regcore.methods import make_method, requirements
from regcore.methods.classical.external import run_program
from regcore.methods.classical.greedy import call_greedy

#: Parameters, without the centre, of a transform of each type that ITK can make.
PARAMETERS = {
    sitk.AffineTransform: lambda ndim: [*_linear(ndim).ravel(), *range(1, ndim + 1)],
    sitk.TranslationTransform: lambda ndim: [3.5, -2, 1][:ndim],
    sitk.Euler2DTransform: lambda ndim: [0.4, 3, -2],
    sitk.Similarity2DTransform: lambda ndim: [1.2, 0.4, 3, -2],
    sitk.Euler3DTransform: lambda ndim: [0.1, -0.4, 0.7, 3, -2, 1],
    sitk.VersorRigid3DTransform: lambda ndim: [0.1, -0.4, 0.5, 3, -2, 1],
    sitk.Similarity3DTransform: lambda ndim: [0.1, -0.4, 0.5, 3, -2, 1, 0.8],
}
CASES = [
    (kind, ndim)
    for kind in PARAMETERS
    for ndim in (2, 3)
    if not re.search(r"\dD", kind.__name__) or f"{ndim}D" in kind.__name__
]


def _linear(ndim: int) -> np.ndarray:
    return np.array([[1.1, 0.2, -0.1], [-0.3, 0.9, 0.05], [0.15, -0.1, 1.2]])[:ndim, :ndim]


def itk_transform(kind, ndim: int) -> sitk.Transform:
    transform = kind(ndim) if kind in (sitk.AffineTransform, sitk.TranslationTransform) else kind()
    transform.SetParameters([float(value) for value in PARAMETERS[kind](ndim)])
    if kind is not sitk.TranslationTransform:
        transform.SetCenter((11.0, -7, 23)[:ndim])
    return transform


def mapped(transform: sitk.Transform, points: np.ndarray) -> np.ndarray:
    """Where SimpleITK puts points of the RAS world."""
    flip = np.array([-1, -1, 1])[: points.shape[1]]
    return np.array([transform.TransformPoint(tuple(point)) for point in points * flip]) * flip


def some_points(ndim: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-60, 60, (20, ndim))


def small_grid(ndim: int) -> Grid:
    return Grid.centred((8,) * ndim, (2,) * ndim, (0,) * ndim)


def require_same_map(path, transform: sitk.Transform, ndim: int, atol: float = 1e-9) -> None:
    grid, points = small_grid(ndim), some_points(ndim)
    found = read_matrix(path, grid, grid)
    np.testing.assert_allclose(transform_points(found, points), mapped(transform, points), atol=atol)


#: Marked, because ITK's HDF5 is read by antspyx, which takes seconds to load.
H5 = pytest.param("h5", marks=pytest.mark.slow)


@pytest.mark.parametrize("suffix", ["mat", "tfm", "txt", H5])
@pytest.mark.parametrize(("kind", "ndim"), CASES)
def test_each_type_of_itk_means_what_itk_means(kind, ndim, suffix, tmp_path):
    transform, path = itk_transform(kind, ndim), tmp_path / f"a.{suffix}"
    sitk.WriteTransform(transform, str(path))
    require_same_map(path, transform, ndim)


def test_every_type_that_is_read_is_checked_against_itk():
    checked = {kind.__name__ for kind in PARAMETERS}
    assert set(LINEAR) - checked == {"MatrixOffsetTransformBase", "IdentityTransform", "Rigid2DTransform"}


@pytest.mark.parametrize(
    "content",
    [
        "Transform: MatrixOffsetTransformBase_double_2_2\nParameters: 1.1 0.2 -0.3 0.9 4 5\nFixedParameters: 3 2",
        "Transform: IdentityTransform_double_3_3\nParameters:\nFixedParameters:",
        "Transform: Rigid2DTransform_double_2_2\nParameters: 0.3 4 5\nFixedParameters: 3 2",
        "Transform: Euler3DTransform_double_3_3\nParameters: 0.1 -0.4 0.7 3 -2 1\nFixedParameters: 5 6 7 1",
        "Transform: AffineTransform_float_3_3\nParameters: 1 0.2 0 0 1 0 0.1 0 1 4 5 6\nFixedParameters: 3 2 1",
    ],
)
def test_text_that_simpleitk_reads_but_does_not_write(content, tmp_path):
    path = tmp_path / "a.tfm"
    path.write_text(f"#Insight Transform File V1.0\n#Transform 0\n{content}\n")
    transform = sitk.ReadTransform(str(path))
    require_same_map(path, transform, transform.GetDimension())


@pytest.mark.parametrize("suffix", ["tfm", H5])
def test_a_composite_applies_its_last_transform_first(suffix, tmp_path):
    parts = [itk_transform(kind, 3) for kind in (sitk.Euler3DTransform, sitk.AffineTransform)]
    composite, path = sitk.CompositeTransform(parts), tmp_path / f"a.{suffix}"
    sitk.WriteTransform(composite, str(path))
    require_same_map(path, composite, 3)


def displacement_field() -> sitk.Transform:
    return sitk.DisplacementFieldTransform(sitk.Image([5, 5, 5], sitk.sitkVectorFloat64))


@pytest.mark.parametrize("before", [[], [sitk.AffineTransform(3)]])
def test_an_hdf5_file_with_a_displacement_field_is_no_matrix(before, tmp_path):
    sitk.WriteTransform(sitk.CompositeTransform([*before, displacement_field()]), str(tmp_path / "warp.h5"))
    with pytest.raises(InputError, match=r"warp\.h5: holds a DisplacementFieldTransform.*linear part alone"):
        read_matrix(tmp_path / "warp.h5", small_grid(3), small_grid(3))


def test_a_cut_hdf5_file_is_refused(tmp_path):
    sitk.WriteTransform(sitk.AffineTransform(3), str(tmp_path / "whole.h5"))
    whole = (tmp_path / "whole.h5").read_bytes()
    for size in (5, 30, 100, len(whole) - 1):
        (tmp_path / "cut.h5").write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"cut\.h5: damaged: the end of the HDF5 file is missing"):
            read_matrix(tmp_path / "cut.h5", small_grid(3), small_grid(3))


@pytest.mark.slow  # loading antspyx
def test_an_hdf5_file_that_itk_did_not_write_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py, which comes with nitransforms, is not installed")
    for version in ("earliest", "latest"):
        for note, words in (
            ("a table", "without a transform of ITK"),
            ("AffineTransform_double_3_3", "no file of ITK"),
        ):
            with h5py.File(tmp_path / "a.h5", "w", libver=version) as file:
                file["note"] = note
            with pytest.raises(InputError, match=rf"a\.h5: .*{words}"):
                read_matrix(tmp_path / "a.h5", small_grid(3), small_grid(3))


def test_two_transforms_that_are_no_composite_are_refused(tmp_path):
    sitk.WriteTransform(
        sitk.CompositeTransform([sitk.Euler3DTransform(), sitk.AffineTransform(3)]), str(tmp_path / "a.h5")
    )
    content = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(content.replace(b"CompositeTransform_double_3_3", b"no composite, of equal length"))
    with pytest.raises(InputError, match=r"a\.h5: 2 transforms.*which order"):
        read_matrix(tmp_path / "a.h5", small_grid(3), small_grid(3))


@pytest.mark.slow  # loading antspyx
@pytest.mark.parametrize("suffix", ["mat", "h5"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_binary_file_that_ants_wrote(ndim, suffix, tmp_path):
    ants = ants_bridge.load()
    numbers = {"matrix": _linear(ndim), "translation": [4.0, 5, 6][:ndim], "center": [3.0, 2, 1][:ndim]}
    transform = ants.create_ants_transform(transform_type="AffineTransform", dimension=ndim, **numbers)
    path = tmp_path / f"a.{suffix}"
    ants.write_transform(transform, str(path))
    points = some_points(ndim)
    flip = np.array([-1, -1, 1])[:ndim]
    theirs = np.array([transform.apply_to_point(tuple(point)) for point in points * flip]) * flip
    ours = transform_points(read_matrix(path, small_grid(ndim), small_grid(ndim)), points)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("precision", ["float", "double"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_matlab_file_of_either_precision_and_byte_order(order, precision, tmp_path):
    kind = {"<": 0, ">": 1000}[order] + {"double": 0, "float": 10}[precision]
    content = b""
    for name, values in ((f"AffineTransform_{precision}_2_2", (1, 0.5, 0, 1, 3, 4)), ("fixed", (0, 2))):
        content += struct.pack(f"{order}5i", kind, len(values), 1, 0, len(name) + 1) + name.encode() + b"\0"
        content += struct.pack(f"{order}{len(values)}{precision[0]}", *values)
    (tmp_path / "a.mat").write_bytes(content)
    require_same_map(tmp_path / "a.mat", sitk.ReadTransform(str(tmp_path / "a.mat")), 2)


def pair_on_unlike_grids(hands: tuple[int, int] = (1, -1)) -> tuple[Volume, Volume, np.ndarray]:
    """Two images on oblique grids of different shape, spacing and handedness, and a matrix between their worlds."""
    random = np.random.default_rng(3)
    grids = []
    for shape, spacing, angles, flip in (
        ((26, 30, 24), (2.0, 1.5, 1.8), (10, -20, 30), hands[0]),
        ((28, 24, 32), (1.4, 2.1, 1.6), (-15, 25, 5), hands[1]),
    ):
        affine = np.eye(4)
        affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
        affine[:3, 0] *= flip
        affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2 + random.uniform(-3, 3, 3)
        grids.append(Grid(shape, affine))
    images = [Volume(blobs(grid.shape, random), grid) for grid in grids]
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (12, -8, 17), degrees=True).as_matrix() * (1.1, 0.95, 1.05)
    matrix[:3, 3] = (3, -2, 4)
    return images[0], images[1], matrix


def blobs(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Smooth values that vanish at the border, about which programs differ."""
    values = np.pad(random.standard_normal([n - 8 for n in shape]), 4)
    smooth = gaussian_filter(values, 1.5, truncate=2)
    assert not smooth[0].any() and not smooth[:, :, -1].any()
    return (smooth / smooth.std()).astype(np.float32)


def saved_pair(folder, hands: tuple[int, int] = (1, -1)) -> tuple[Volume, Volume, np.ndarray]:
    fixed, moving, matrix = pair_on_unlike_grids(hands)
    fixed.save(folder / "fixed.nii.gz")
    moving.save(folder / "moving.nii.gz")
    return fixed, moving, matrix


def require_same_image(found: np.ndarray, wanted: np.ndarray) -> None:
    """Equal but for the rounding of float32."""
    assert wanted.std() > 0.3
    np.testing.assert_allclose(found, wanted, atol=2e-4)


@pytest.mark.slow  # loading antspyx
def test_simpleitk_and_ants_apply_the_written_matrix_alike(tmp_path):
    fixed, moving, matrix = saved_pair(tmp_path)
    save_matrix(matrix, tmp_path / "affine")
    wanted = resample(moving, fixed.grid, matrix).data
    images = [sitk.ReadImage(str(tmp_path / f"{name}.nii.gz")) for name in ("fixed", "moving")]
    by_itk = sitk.Resample(images[1], images[0], sitk.ReadTransform(str(tmp_path / "affine.mat")), sitk.sitkLinear, 0.0)
    require_same_image(sitk.GetArrayFromImage(by_itk).T, wanted)
    ants = ants_bridge.load()
    first, second = ants_bridge.to_ants(fixed), ants_bridge.to_ants(moving)
    by_ants = ants.apply_transforms(first, second, [str(tmp_path / "affine.mat")])
    require_same_image(by_ants.numpy(), wanted)


def test_greedy_applies_the_written_text_alike(tmp_path):
    skip_without("greedy")
    fixed, moving, matrix = saved_pair(tmp_path)
    save_matrix(matrix, tmp_path / "affine")
    call_greedy(3, "-d 3 -threads 1 -rf fixed.nii.gz -rm moving.nii.gz own.nii.gz -r affine.txt", tmp_path)
    require_same_image(nib.load(tmp_path / "own.nii.gz").get_fdata(), resample(moving, fixed.grid, matrix).data)


def run_niftyreg(*arguments: str, folder) -> None:
    place = requirements.niftyreg_folder(None)
    if place is None:
        pytest.skip(f"niftyreg: {make_method('niftyreg').settings.missing()}")
    run_program([str(place / arguments[0]), *arguments[1:]], folder, 1)


def by_niftyreg(name: str, folder) -> np.ndarray:
    """The moving image as NiftyReg resamples it through a matrix of its own format."""
    images = ("-ref", "fixed.nii.gz", "-flo", "moving.nii.gz")
    run_niftyreg("reg_resample", *images, "-trans", name, "-res", "own.nii.gz", "-inter", "1", "-voff", folder=folder)
    return nib.load(folder / "own.nii.gz").get_fdata()


def test_niftyreg_applies_the_written_text_alike(tmp_path):
    fixed, moving, matrix = saved_pair(tmp_path)
    save_matrix(matrix, tmp_path / "affine")
    require_same_image(by_niftyreg("affine.txt", tmp_path), resample(moving, fixed.grid, matrix).data)


def bare(matrix: np.ndarray, path) -> None:
    np.savetxt(path, matrix, fmt="%.12f")


def test_niftyreg_understands_fsl_as_we_do(tmp_path):
    # NiftyReg's converter does not mirror the first axis of right-handed images, as FSL does.
    fixed, moving, matrix = saved_pair(tmp_path, hands=(-1, -1))
    bare(np.linalg.inv(matrix), tmp_path / "flirt.mat")
    images = ("fixed.nii.gz", "moving.nii.gz")
    run_niftyreg("reg_transform", "-flirtAff2NR", "flirt.mat", *images, "nr.txt", folder=tmp_path)
    ours = read_matrix(tmp_path / "flirt.mat", fixed.grid, moving.grid, "fsl")
    theirs = read_matrix(tmp_path / "nr.txt", fixed.grid, moving.grid, "niftyreg")
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)
    require_same_image(by_niftyreg("nr.txt", tmp_path), resample(moving, fixed.grid, ours).data)


@pytest.mark.parametrize("hands", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
@pytest.mark.parametrize(("form", "known"), [("itk", "auto"), ("fsl", "fsl")])
def test_a_matrix_that_nitransforms_wrote_is_read_as_it_meant(form, known, hands, tmp_path):
    linear = pytest.importorskip("nitransforms.linear", reason="nitransforms is not installed")
    fixed, moving, matrix = saved_pair(tmp_path, hands)
    images = [nib.load(tmp_path / f"{name}.nii.gz") for name in ("fixed", "moving")]
    linear.Affine(matrix, reference=images[0]).to_filename(tmp_path / "a.txt", fmt=form, moving=images[1])
    found = read_matrix(tmp_path / "a.txt", fixed.grid, moving.grid, known)
    np.testing.assert_allclose(found, matrix, rtol=1e-4, atol=1e-4)


def volume_info(grid: Grid) -> str:
    """The geometry of an image as FreeSurfer writes it."""
    direction = grid.affine[:3, :3] / grid.spacing
    centre = grid.to_world(np.array(grid.shape) / 2)
    rows = [("xras", direction[:, 0]), ("yras", direction[:, 1]), ("zras", direction[:, 2]), ("cras", centre)]
    lines = [
        "valid = 1  # volume info valid",
        "filename = somewhere.mgz",
        "volume = {} {} {}".format(*grid.shape),
        "voxelsize = {:.15e} {:.15e} {:.15e}".format(*grid.spacing),
        *(f"{name}   = " + " ".join(f"{value:.15e}" for value in values) for name, values in rows),
    ]
    return "\n".join(lines)


def lta(matrix: np.ndarray, kind: int, source: str, target: str) -> str:
    rows = "\n".join(" ".join(f"{value:.15e}" for value in row) for row in matrix)
    return (
        f"# transform file /data/a.lta\n# created by somebody\ntype      = {kind} # LINEAR\nnxforms   = 1\n"
        f"mean      = 0.0000 0.0000 0.0000\nsigma     = 1.0000\n1 4 4\n{rows}\n"
        f"src volume info\n{source}\ndst volume info\n{target}\nsubject fsaverage\nfscale 0.150000\n"
    )


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("kind", [0, 1])
def test_an_lta_between_voxels_or_worlds_in_either_direction(kind, swapped, tmp_path):
    fixed, moving, matrix = pair_on_unlike_grids()
    source, target, world = fixed.grid, moving.grid, matrix
    if not swapped:
        source, target, world = moving.grid, fixed.grid, np.linalg.inv(matrix)
    stored = target.inverse @ world @ source.affine if kind == 0 else world
    (tmp_path / "a.lta").write_text(lta(stored, kind, volume_info(source), volume_info(target)))
    np.testing.assert_allclose(read_matrix(tmp_path / "a.lta", fixed.grid, moving.grid), matrix, atol=1e-9)


@pytest.mark.parametrize("kind", [0, 1])
def test_nitransforms_reads_an_lta_as_we_do(kind, tmp_path):
    linear = pytest.importorskip("nitransforms.linear", reason="nitransforms is not installed")
    fixed, moving, matrix = pair_on_unlike_grids()
    stored = np.linalg.inv(matrix)
    if kind == 0:
        stored = fixed.grid.inverse @ stored @ moving.grid.affine
    (tmp_path / "a.lta").write_text(lta(stored, kind, volume_info(moving.grid), volume_info(fixed.grid)))
    theirs = linear.Affine.from_filename(tmp_path / "a.lta", fmt="fs").matrix
    np.testing.assert_allclose(theirs, read_matrix(tmp_path / "a.lta", fixed.grid, moving.grid), rtol=1e-5, atol=1e-5)


def test_an_lta_without_geometry_maps_the_moving_world(tmp_path):
    fixed, moving, matrix = pair_on_unlike_grids()
    nothing = "valid = 0  # volume info invalid\nfilename = "
    (tmp_path / "a.lta").write_text(lta(np.linalg.inv(matrix), 1, nothing, nothing))
    np.testing.assert_allclose(read_matrix(tmp_path / "a.lta", fixed.grid, moving.grid), matrix, atol=1e-9)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("suffix", ["mat", "txt"])
def test_what_is_written_is_read_again(ndim, suffix, tmp_path):
    matrix = np.eye(ndim + 1)
    matrix[:-1] = np.random.default_rng(1).standard_normal((ndim, ndim + 1))
    save_matrix(matrix, tmp_path / "affine.v1")
    found = read_matrix(tmp_path / f"affine.v1.{suffix}", small_grid(ndim), small_grid(ndim))
    np.testing.assert_array_equal(found, matrix)


@pytest.mark.parametrize("written_by", [name for name in FORMATS if name not in ("auto", "itk", "freesurfer", "fsl")])
def test_a_flat_matrix_in_space_serves_2d_images(written_by, tmp_path):
    bare(np.array([[0.8, -0.6, 0, 5], [0.6, 0.8, 0, 7], [0, 0, 1, 9], [0, 0, 0, 1]]), tmp_path / "a.txt")
    found = read_matrix(tmp_path / "a.txt", small_grid(2), small_grid(2), written_by)
    assert found.tolist() == [[0.8, -0.6, 5], [0.6, 0.8, 7], [0, 0, 1]]


EYE = "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
ITK = "#Insight Transform File V1.0\n#Transform 0\nTransform: {}\nParameters: {}\nFixedParameters: {}\n"
AFFINE = "1 0 0 0 1 0 0 0 1 0 0 0"


@pytest.mark.parametrize(
    ("content", "written_by", "words"),
    [
        (EYE, "auto", "--matrix-format fsl, greedy, niftyreg or regcore"),
        (EYE, "itk", "--matrix-format fsl"),
        ("1 0 0\n0 1\n", "fsl", "not the file of a matrix"),
        ("some words", "auto", "not the file of a matrix"),
        ("", "auto", "not the file of a matrix"),
        (EYE.replace("1 0 0 0", "0 0 0 0"), "niftyreg", "singular"),
        (EYE.replace("1 0 0 0", "0 0 0 0"), "fsl", "singular"),
        (EYE.replace("1 0 0 0", "nan 0 0 0"), "niftyreg", "finite"),
        (EYE.replace("0 0 0 1", "0 0 1 1"), "niftyreg", "last row"),
        ("1 0 5\n0 1 6\n0 0 1\n", "niftyreg", "2-D images"),
        ("1 0 5\n0 1 6\n0 0 1\n", "fsl", "4 x 4"),
        (EYE + MARK, "fsl", "of the format regcore"),
        (ITK.format("AffineTransform_double_3_3", AFFINE, "0 0 0"), "fsl", "of the format itk"),
        (ITK.format("AffineTransform_double_3_3", "1 2 3", "0 0 0"), "auto", "3 parameters"),
        (ITK.format("AffineTransform_double_3_3", AFFINE, "0"), "auto", "1 fixed"),
        (ITK.format("AffineTransform_double_3_3", "1 x", "0 0 0"), "auto", "damaged"),
        (ITK.format("AffineTransform_double_2_2", "1 0 0 1 0 0", "0 0"), "auto", "2-D images"),
        (ITK.format("VersorRigid3DTransform_double_3_3", "1 1 1 0 0 0", "0 0 0"), "auto", "do not make"),
        (ITK.format("BSplineTransform_double_3_3", "0", "0"), "auto", "BSplineTransform is not a linear"),
        (ITK.format("nonsense", "0", "0"), "auto", "not the name of an ITK transform"),
        ("#Insight Transform File V1.0\n", "auto", "no transform"),
        (
            ITK.format("AffineTransform_double_3_3", AFFINE, "0 0 0")
            + ITK.format("AffineTransform_double_3_3", AFFINE, "0 0 0").split("\n", 1)[1],
            "auto",
            "2 transforms",
        ),
        (lta(np.eye(4), 14, "valid = 0", "valid = 0"), "auto", "lta_convert"),
        (lta(np.eye(4), 0, "valid = 0", "valid = 0"), "auto", "without the images' geometry"),
        (lta(np.zeros((4, 4)), 1, "valid = 0", "valid = 0"), "auto", "singular"),
        ("type = 1\nnxforms = 1\n", "auto", "damaged LTA"),
        ("\x89HDF\r\n", "auto", "HDF5"),
        ("\x89HDF\r\n", "fsl", "of the format itk"),
        ("MATLAB 5.0 MAT-file", "auto", "level 5"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name_with_a_remedy(content, written_by, words, tmp_path):
    path = tmp_path / "start.mat"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"start\.mat") as error:
        read_matrix(path, small_grid(3), small_grid(3), written_by)
    assert words in str(error.value)


def test_a_cut_or_foreign_binary_file_is_refused(tmp_path):
    save_matrix(np.eye(4), tmp_path / "a")
    whole = (tmp_path / "a.mat").read_bytes()
    for size in range(1, len(whole), 5):
        (tmp_path / "cut.mat").write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"cut\.mat"):
            read_matrix(tmp_path / "cut.mat", small_grid(3), small_grid(3))
    composite = sitk.CompositeTransform([sitk.Euler3DTransform(), sitk.AffineTransform(3)])
    sitk.WriteTransform(composite, str(tmp_path / "composite.mat"))
    with pytest.raises(InputError, match=r"save it as \.tfm"):
        read_matrix(tmp_path / "composite.mat", small_grid(3), small_grid(3))


def test_a_matrix_out_of_the_plane_or_a_missing_file_is_refused(tmp_path):
    bare(np.array([[1, 0, 0.1, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), tmp_path / "a.txt")
    with pytest.raises(InputError, match="out of their plane"):
        read_matrix(tmp_path / "a.txt", small_grid(2), small_grid(2), "niftyreg")
    with pytest.raises(InputError, match="no such file"):
        read_matrix(tmp_path / "b.txt", small_grid(2), small_grid(2))
    with pytest.raises(InputError, match="cannot be read"):
        read_matrix(tmp_path, small_grid(2), small_grid(2))
    with pytest.raises(InputError, match="3-D images"):
        read_matrix(tmp_path / "a.txt", small_grid(2), small_grid(2), "fsl")
