"""Where the header of an image file places its voxels, read as ITK reads it.

ITK (ANTs, SimpleITK, ITK-SNAP, 3D Slicer) takes voxel sizes from ``pixdim``, axes and position from the sform or the
qform, and scales all of them by the unit.  A file with neither form has its first voxel at 0 and LPS axes.  Programs
that look at one of these fields only may read a header otherwise.  Here ITK's reading counts; how far another one is
from it decides whether it is taken silently, with a warning, or not at all.

References
----------
The NIfTI-1 header, nifti1.h (nifti.nimh.nih.gov); ITK 5.4, ``itkNiftiImageIO.cxx`` and nifti_clib.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.analyze import AnalyzeHeader

from regcore.errors import InputError
from regcore.images.grid import Grid
from regcore.images.nifti import stored_header
from regcore.process.logs import warn_once

log = logging.getLogger(__name__)

#: Two readings that differ by less than this share of a voxel are one; by more than the second, no reading is safe.
SAME_VOXELS, UNSAFE_VOXELS = 0.1, 0.5
#: ITK takes axes for right-angled if no element of R·Rᵀ is further from the identity's.
ITK_ORTHONORMAL = 1e-4
#: Millimetres in a unit of length, by its code; other codes are read as mm.
MM = {1: 1e3, 2: 1.0, 3: 1e-3}


class _Stored(NamedTuple):
    """What a header says; matrices are voxel → RAS mm, None where their code is 0."""

    sizes: np.ndarray
    unit: float
    sform: np.ndarray | None
    qform: np.ndarray | None
    sform_code: int


def read_geometry(image: nib.Nifti1Image, path: str | Path) -> Grid:
    """Read the grid of an image file; axes of one voxel are dropped.

    A volume with a fourth axis of length 1 is 3-D, as in ITK.  One slice of a volume is 2-D if it lies in the x-y
    plane, as the images lie that ITK reads as 2-D; its place along z is kept.

    Parameters
    ----------
    image : Nifti1Image
        From :func:`regcore.images.nifti.open_nifti`.
    path : path
        For messages.

    Returns
    -------
    Grid
        Of two or three axes, in the order of the file's.

    Raises
    ------
    InputError
        The file has several volumes, an empty axis or only one axis; its matrix is singular; programs read its header
        differently by more than half a voxel; or a slice does not lie in the x-y plane.

    Examples
    --------
    >>> import nibabel as nib
    >>> import numpy as np
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.images.header import read_geometry
    >>> slice_in_volume = nib.Nifti1Image(np.zeros((4, 5, 1), np.float32), np.diag([2, 2, 3, 1]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nib.save(slice_in_volume, Path(folder, "slice.nii"))
    ...     read_geometry(nib.load(Path(folder, "slice.nii")), "slice.nii").shape
    (4, 5)
    """
    shape = image.shape
    if len(shape) < 2 or any(n != 1 for n in shape[3:]):
        raise InputError(
            f"{path}: {len(shape)}-D image of shape {shape}; expected one 2-D or 3-D image: "
            "split a series or pick one volume of it"
        )
    if min(shape) < 1:
        raise InputError(f"{path}: an empty image of shape {shape}; convert or copy it again")
    axes = [axis for axis, n in enumerate(shape[:3]) if n > 1]
    if len(axes) < 2:
        raise InputError(f"{path}: an image of shape {shape} has fewer than two axes to register; give a whole image")
    return grid_of(image, axes, path)


def grid_of(image: nib.Nifti1Image, axes: Sequence[int], path: str | Path) -> Grid:
    """Read the grid of some of the first three axes of an image file.

    Parameters
    ----------
    image : Nifti1Image
        From :func:`regcore.images.nifti.open_nifti`.
    axes : sequence of int
        Two or three of 0, 1, 2; with two, the grid is 2-D.
    path : path
        For messages.

    Returns
    -------
    Grid

    Raises
    ------
    InputError
        As :func:`read_geometry`, for the geometry.

    Examples
    --------
    >>> import nibabel as nib
    >>> import numpy as np
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.images.header import grid_of
    >>> image = nib.Nifti1Image(np.zeros((4, 5, 1, 1, 2), np.float32), np.diag([2, 2, 3, 1]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nib.save(image, Path(folder, "field.nii"))
    ...     grid_of(nib.load(Path(folder, "field.nii")), [0, 1], "field.nii").spacing.tolist()
    [2.0, 2.0]
    """
    axes = list(axes)
    stored = _stored(image)
    taken = _taken(stored, image, axes, path)
    shape = tuple(image.shape[axis] for axis in axes)
    if len(axes) == 3:
        return Grid(shape, taken)
    return _plane(taken, shape, axes, image, path)


def _taken(stored: _Stored, image: nib.Nifti1Image, axes: list[int], path: str | Path) -> np.ndarray:
    """ITK's reading, 4x4 voxel → RAS mm; the nearest one with right angles where ITK refuses the axes."""
    forms = {"sform": stored.sform, "qform": stored.qform}
    read = {name: form for name, form in forms.items() if form is not None}
    if not read:
        _say_that_it_has_no_place(stored, image, path)
    for matrix in read.values():
        _require_span(matrix, axes, path)
    itk = _itk_affine(stored)
    if itk is None:
        assert stored.sform is not None  # otherwise ITK would take the qform, or no form at all
        taken = _right_angled(stored.sform, axes)
        _judge_shear(stored.sform, taken, image.shape, axes, path)
        return taken
    for name, matrix in read.items():
        _judge_other_reading(name, matrix, itk, stored, image.shape, axes, path)
    return itk


# ---- what a header says


def _stored(image: nib.Nifti1Image) -> _Stored:
    if not isinstance(image.header, AnalyzeHeader):  # MGH, MINC, …: one matrix in mm
        affine = np.asarray(image.affine, dtype=np.float64)
        return _Stored(np.linalg.norm(affine[:3, :3], axis=0), 1.0, affine, None, 1)
    header = stored_header(image)
    sizes = np.array(header["pixdim"][1:4], dtype=np.float64)
    sizes[~np.isfinite(sizes) | (sizes == 0)] = 1
    if not isinstance(header, nib.Nifti1Header):
        return _Stored(sizes, 1.0, None, None, 0)
    unit = MM.get(int(header["xyzt_units"]) & 7, 1.0)
    sform = _in_mm(np.array([header["srow_x"], header["srow_y"], header["srow_z"]], dtype=np.float64), unit)
    qform = _in_mm(_quaternion_form(header, sizes), unit)
    code = int(header["sform_code"])
    return _Stored(sizes, unit, sform if code > 0 else None, qform if header["qform_code"] > 0 else None, code)


def _in_mm(rows: np.ndarray, unit: float) -> np.ndarray:
    return np.vstack([unit * rows, [0, 0, 0, 1]])


def _quaternion_form(header: nib.Nifti1Header, sizes: np.ndarray) -> np.ndarray:
    """The qform, (3, 4), by method 2 of nifti1.h; voxel sizes that are not positive count as 1, as in nifti_clib."""
    stored = [header[name] for name in ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")]
    b, c, d, *offset = np.nan_to_num(np.array(stored, dtype=np.float64), posinf=0, neginf=0)
    rest = 1 - (b * b + c * c + d * d)
    if rest < 1e-7:  # half a turn, or rounding: without a real part
        length = np.sqrt(b * b + c * c + d * d)
        a, b, c, d = 0.0, b / length, c / length, d / length
    else:
        a = np.sqrt(rest)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    steps = np.where(sizes > 0, sizes, 1) * [1, 1, -1 if header["pixdim"][0] < 0 else 1]
    return np.column_stack([rotation * steps, offset])


# ---- ITK's reading


def _itk_affine(stored: _Stored) -> np.ndarray | None:
    """The 4x4 matrix voxel → RAS mm of ITK's reading; None where ITK refuses the header."""
    if stored.sform is None and stored.qform is None:
        form: np.ndarray | None = np.diag([-1.0, -1.0, 1.0, 1.0])
    else:
        form = _form_of_itk(stored)
    if form is None:
        return None
    affine = form.copy()
    affine[:3, :3] = _directions(form) * stored.sizes * stored.unit
    return affine


def _form_of_itk(stored: _Stored) -> np.ndarray | None:
    sform, qform = stored.sform, stored.qform
    if sform is None or qform is None:
        return qform if sform is None else (sform if _orthonormal(sform) else None)
    if _orthonormal(sform) and (stored.sform_code == 1 or _alike(sform, qform)):
        return sform
    return qform


def _directions(form: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(form[:3, :3], axis=0)
    return form[:3, :3] / np.where(lengths > 0, lengths, 1)


def _orthonormal(form: np.ndarray) -> bool:
    directions = _directions(form)
    return bool(np.abs(directions @ directions.T - np.eye(3)).max() <= ITK_ORTHONORMAL)


def _alike(sform: np.ndarray, qform: np.ndarray) -> bool:
    """Whether both forms have the same voxel sizes, axes and position to 1e-4."""
    lengths = [np.linalg.norm(form[:3, :3], axis=0) for form in (sform, qform)]
    between = _directions(sform) @ _directions(qform).T
    differences = (lengths[0] - lengths[1], between - np.eye(3), sform[:3, 3] - qform[:3, 3])
    return all(np.abs(difference).max() <= 1e-4 for difference in differences)


def _right_angled(form: np.ndarray, axes: list[int]) -> np.ndarray:
    """The form with the nearest axes at right angles (the polar factor), of the same lengths and first voxel."""
    columns = form[:3, axes]
    lengths = np.linalg.norm(columns, axis=0)
    left, _, right = np.linalg.svd(columns / lengths, full_matrices=False)
    affine = form.copy()
    affine[:3, axes] = left @ right * lengths
    return affine


def _plane(
    taken: np.ndarray, shape: tuple[int, ...], axes: list[int], image: nib.Nifti1Image, path: str | Path
) -> Grid:
    """The 2-D grid of a slice: the first two world axes, as in ITK, with the place of the slice along the third."""
    columns = taken[:3, axes]
    spacing = np.linalg.norm(columns, axis=0)
    tilt = float(np.abs(columns[2]) @ (np.array(shape) - 1))
    if tilt > UNSAFE_VOXELS * spacing.min():
        raise InputError(
            f"{path}: the header (of an image of shape {image.shape}) tilts the slice out of the x-y plane, by "
            f"{tilt:.3g} mm over its length, which ITK cannot represent in 2-D: save it without the axis of one voxel "
            "and set the sform and qform to a matrix in the plane, or give the whole volume"
        )
    affine = np.eye(3)
    affine[:2, :2] = columns[:2] / np.linalg.norm(columns[:2], axis=0) * spacing
    affine[:2, 2] = taken[:2, 3]
    other = ({0, 1, 2} - set(axes)).pop()
    step = float(taken[2, other])
    return Grid(shape, affine, level=(float(taken[2, 3]), step if np.isfinite(step) and step else 1.0))


# ---- what is said about it


def _say_that_it_has_no_place(stored: _Stored, image: nib.Nifti1Image, path: str | Path) -> None:
    nifti = isinstance(image.header, nib.Nifti1Header)
    what = "neither its qform nor its sform is set" if nifti else "an Analyze 7.5 file, without a position in space"
    warn_once(
        log,
        f"{path}: {what}, so programs place it differently; read as ITK reads it: first voxel at 0, axes to "
        f"L, P and S, voxels of {' x '.join(f'{size:.4g}' for size in stored.sizes * stored.unit)} mm. If that is "
        "wrong, save it as NIfTI with its sform and qform set (nibabel: set_sform, set_qform with code 1)",
    )


def _require_span(matrix: np.ndarray, axes: list[int], path: str | Path) -> None:
    columns = matrix[:3, axes]
    lengths = np.linalg.norm(columns, axis=0)
    usable = bool(np.isfinite(matrix).all() and lengths.min() > 0)
    if not usable or np.linalg.svd(columns / lengths, compute_uv=False).min() < 1e-3:
        raise InputError(
            f"{path}: the header's orientation matrix does not span the image's {len(axes)} axes: "
            "set the sform and qform to a valid matrix"
        )


def _apart(a: np.ndarray, b: np.ndarray, shape: Sequence[int], axes: list[int]) -> tuple[float, float]:
    """Largest distance of a voxel in two readings: in mm, and in voxels of the smaller size."""
    ends = np.zeros((2 ** len(axes), 3))
    ends[:, axes] = np.array(np.meshgrid(*[(0, shape[k] - 1) for k in axes], indexing="ij")).reshape(len(axes), -1).T
    rows = 3 if len(axes) == 3 else 2  # in 2-D, the place along z does not matter
    differences = ends @ (a - b)[:rows, :3].T + (a - b)[:rows, 3]
    mm = float(np.linalg.norm(differences, axis=1).max())
    return mm, mm / float(np.linalg.norm(b[:3, axes], axis=0).min())


def _judge_shear(sform: np.ndarray, taken: np.ndarray, shape: Sequence[int], axes: list[int], path: str | Path) -> None:
    mm, voxels = _apart(sform, taken, shape, axes)
    found = f"{path}: the header's axes are sheared (not at right angles), by {mm:.3g} mm at the far corner"
    if voxels > UNSAFE_VOXELS:
        raise InputError(
            f"{found} ({voxels:.2g} voxels), which ITK cannot represent: resample the image onto a rectangular grid"
        )
    if len(axes) == 3:  # the third column of a 2-D file is often empty
        warn_once(
            log,
            f"{found} ({voxels:.2g} voxels); read with the nearest right angles. ITK programs refuse the file itself: "
            "set its sform to a right-angled matrix",
        )


def _judge_other_reading(
    name: str,
    matrix: np.ndarray,
    itk: np.ndarray,
    stored: _Stored,
    shape: Sequence[int],
    axes: list[int],
    path: str | Path,
) -> None:
    mm, voxels = _apart(matrix, itk, shape, axes)
    if voxels <= SAME_VOXELS:
        return
    lengths = np.linalg.norm(matrix[:3, axes], axis=0)
    sizes = (stored.sizes * stored.unit)[axes]
    if np.any(sizes < 0):
        what = "the header has a negative voxel size (pixdim), which flips the image in ITK only"
    elif np.abs(lengths - sizes).max() > 1e-3 * np.abs(sizes).max():
        what = (
            f"the {name} gives voxels of {' x '.join(f'{n:.4g}' for n in lengths)} mm, but pixdim "
            f"{' x '.join(f'{n:.4g}' for n in sizes)}"
        )
    else:
        what = "qform and sform give two different positions"
    found = f"{path}: {what}: {mm:.3g} mm ({voxels:.2g} voxels) at the far corner; programs disagree about which to use"
    remedy = "set both to the correct matrix (nibabel: set_qform, set_sform)"
    if voxels > UNSAFE_VOXELS:
        raise InputError(f"{found}: {remedy}")
    warn_once(log, f"{found}; read as ITK reads it. To be sure, {remedy}")
