"""A NIfTI image with its geometry, in two or three dimensions.

Here: reading and writing image files, and :class:`Grid`, which holds shape, spacing, origin and direction.  Not
here: resampling (``spatial``) and displacement fields (``field``).

World coordinates are RAS millimetres, as in NIfTI.  A 2-D image has a world of two axes, the first two
of its NIfTI affine, as in ITK.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from regcore.errors import InputError
from regcore.process.files import atomic_write
from regcore.process.memory import free_memory

#: Single precision ends at 3e38; sums of products of differences have to stay below.
LARGEST = 1e15
#: Bytes of a voxel once it is read, besides those on disk: its value, or the copy to which a slope is applied.
BYTES_AS_READ = 4


@dataclass(frozen=True, eq=False)
class Grid:
    """The geometry of an image: its shape and its voxel → world (RAS mm) matrix.

    Parameters
    ----------
    shape : tuple of int
        Voxels along each array axis, two or three of them.
    affine : ndarray, shape (D + 1, D + 1)
        Maps homogeneous voxel indices to RAS millimetres.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid
    >>> grid = Grid((4, 6), np.diag([2.0, 1.0, 1.0]))
    >>> grid.spacing.tolist(), grid.centre.tolist()
    ([2.0, 1.0], [3.0, 2.5])
    >>> grid.to_world(np.array([[1, 1]])).tolist()
    [[2.0, 1.0]]
    """

    shape: tuple[int, ...]
    affine: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        affine = np.array(self.affine, dtype=np.float64)
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        if affine.shape != (self.ndim + 1, self.ndim + 1):
            raise ValueError(f"a {self.ndim}-D grid needs a {self.ndim + 1}x{self.ndim + 1} affine, got {affine.shape}")

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size in mm along each array axis, shape (D,)."""
        return np.linalg.norm(self.affine[:-1, :-1], axis=0)

    @property
    def centre(self) -> np.ndarray:
        """World position (RAS mm) of the centre of the grid, shape (D,)."""
        return self.to_world((np.array(self.shape) - 1) / 2)

    @cached_property
    def inverse(self) -> np.ndarray:
        """World → voxel matrix, shape (D + 1, D + 1)."""
        return np.linalg.inv(self.affine)

    def to_world(self, voxels: np.ndarray) -> np.ndarray:
        """Map voxel coordinates, shape (..., D), to RAS mm."""
        return transform_points(self.affine, voxels)

    def to_voxels(self, world: np.ndarray) -> np.ndarray:
        """Map RAS mm, shape (..., D), to voxel coordinates."""
        return transform_points(self.inverse, world)

    def same_as(self, other: "Grid", tolerance_mm: float = 1e-3) -> bool:
        """Whether every voxel has the same position in both grids, to within ``tolerance_mm``."""
        return self.shape == other.shape and bool(np.abs(self.corners() - other.corners()).max() <= tolerance_mm)

    def corners(self) -> np.ndarray:
        """World positions of the corner voxels, shape (2 ** D, D)."""
        ends = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij"))
        return self.to_world(ends.reshape(self.ndim, -1).T)

    def overlaps(self, other: "Grid") -> bool:
        """Whether the world bounding boxes of the two grids overlap."""
        mine, theirs = self.corners(), other.corners()
        return bool(np.all(mine.max(0) >= theirs.min(0)) and np.all(theirs.max(0) >= mine.min(0)))

    @classmethod
    def centred(cls, shape: Sequence[int] | np.ndarray, spacing: npt.ArrayLike, centre: npt.ArrayLike) -> "Grid":
        """Make an axis-aligned RAS grid of ``shape`` and ``spacing`` (mm) around ``centre`` (RAS mm)."""
        sizes = np.asarray(spacing, dtype=float)
        affine = np.diag([*sizes, 1.0])
        affine[:-1, -1] = np.asarray(centre) - sizes * (np.array(shape) - 1) / 2
        return cls(tuple(shape), affine)


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a homogeneous matrix to points.

    Parameters
    ----------
    matrix : ndarray, shape (D + 1, D + 1)
        Acts on columns of homogeneous coordinates.
    points : ndarray, shape (..., D)
        In the units that the matrix takes.

    Returns
    -------
    ndarray, shape (..., D)

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import transform_points
    >>> transform_points(np.array([[2, 0, 5], [0, 2, 0], [0, 0, 1]]), np.array([[1, 1]])).tolist()
    [[7.0, 2.0]]
    """
    return np.asarray(points, dtype=np.float64) @ matrix[:-1, :-1].T + matrix[:-1, -1]


@dataclass(frozen=True, eq=False)
class Volume:
    """An image: its values, its grid, and the file it came from.

    Parameters
    ----------
    data : ndarray, shape (*grid.shape)
        The values.
    grid : Grid
        The geometry.
    path : Path, optional
        The file, for messages.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume
    >>> volume = Volume(np.zeros((4, 6)), Grid.centred((4, 6), spacing=(2, 2), centre=(0, 0)))
    >>> volume.with_data(volume.data + 1).data.sum().item()
    24.0
    """

    data: np.ndarray
    grid: Grid
    path: Path | None = None

    def with_data(self, data: np.ndarray) -> "Volume":
        """Return other values on the same grid."""
        return Volume(data, self.grid, self.path)

    def save(self, path: str | Path) -> None:
        """Write a NIfTI-1 file with qform and sform both set to the same matrix."""
        save_nifti(path, self.data, self.grid)


def read_volume(path: str | Path) -> Volume:
    """Read an image and check everything that would make a registration fail later.

    Parameters
    ----------
    path : path
        A NIfTI file.

    Returns
    -------
    Volume
        With float32 values.

    Raises
    ------
    InputError
        The file is missing, truncated or not a NIfTI; does not have 2 or 3 axes, or has a single slice; contains
        NaN, infinite or enormous values, or is constant; needs more memory than is free; or its header gives no usable
        orientation.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume, read_volume
    >>> volume = Volume(np.arange(24.0).reshape(4, 6), Grid.centred((4, 6), spacing=(2, 2), centre=(0, 0)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     volume.save(Path(folder, "scan.nii.gz"))
    ...     scan = read_volume(Path(folder, "scan.nii.gz"))
    >>> scan.grid.shape, scan.grid.spacing.tolist(), scan.data.max().item()
    ((4, 6), [2.0, 2.0], 23.0)
    """
    volume = _read(path)
    if not np.isfinite(volume.data).all():
        count = int((~np.isfinite(volume.data)).sum())
        raise InputError(
            f"{path}: {count} voxel(s) are NaN or infinite; replace them (numpy.nan_to_num) and save it again"
        )
    if volume.data.min() == volume.data.max():
        raise InputError(
            f"{path}: every voxel has the value {volume.data.flat[0]:g}; there is nothing to register, "
            "check how the file was made"
        )
    with np.errstate(over="ignore"):
        values = volume.data.astype(np.float32)
    if np.abs(values).max() > LARGEST:
        raise InputError(
            f"{path}: values up to {np.abs(volume.data).max():.3g}, beyond the {LARGEST:.0g} that single precision can "
            "compute with; divide the image by a constant"
        )
    return volume.with_data(values)


def read_labels(path: str | Path) -> Volume:
    """Read a label map as int32.

    Parameters
    ----------
    path : path
        A NIfTI file.

    Returns
    -------
    Volume
        With int32 values.

    Raises
    ------
    InputError
        As :func:`read_volume` (except that a constant map is valid), or the values are not whole numbers ≥ 0.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume, read_labels
    >>> labels = Volume(np.eye(4), Grid.centred((4, 4), spacing=(2, 2), centre=(0, 0)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     labels.save(Path(folder, "labels.nii.gz"))
    ...     np.unique(read_labels(Path(folder, "labels.nii.gz")).data).tolist()
    [0, 1]
    """
    volume = _read(path)
    if not np.isfinite(volume.data).all():
        raise InputError(f"{path}: the label map contains NaN or infinite values; save it with an integer type")
    rounded = np.rint(volume.data)
    if np.abs(volume.data - rounded).max() > 1e-3 or rounded.min() < 0:
        raise InputError(
            f"{path}: labels must be whole numbers >= 0; was the map resampled with linear interpolation? "
            "Use nearest neighbour"
        )
    return volume.with_data(rounded.astype(np.int32))


def read_grid(path: str | Path) -> Grid:
    """Read only the geometry, not the voxels.

    Parameters
    ----------
    path : path
        A NIfTI file.

    Returns
    -------
    Grid
        Of two or three axes.

    Raises
    ------
    InputError
        As :func:`read_volume`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.images.volume import Grid, Volume, read_grid
    >>> volume = Volume(np.zeros((4, 6)), Grid.centred((4, 6), spacing=(2, 2), centre=(0, 0)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     volume.save(Path(folder, "scan.nii.gz"))
    ...     read_grid(Path(folder, "scan.nii.gz")).same_as(volume.grid)
    True
    """
    return _image_grid(open_nifti(path), path)


def save_nifti(path: str | Path, data: np.ndarray, grid: Grid, intent: str = "none") -> None:
    """Write ``data`` (first axes: those of ``grid``), under a temporary name first."""
    if data.dtype == bool:
        data = data.astype(np.uint8)
    elif data.dtype == np.int64:
        data = data.astype(np.int32)
    affine = np.eye(4)
    affine[: grid.ndim, : grid.ndim] = grid.affine[:-1, :-1]
    affine[: grid.ndim, 3] = grid.affine[:-1, -1]
    image = nib.Nifti1Image(data, affine)
    image.header.set_intent(intent)
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    with atomic_write(path) as temporary:
        nib.save(image, temporary)


def open_nifti(path: str | Path) -> nib.Nifti1Image:
    """Open a NIfTI file without reading its voxels; raises :class:`InputError` if that fails."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; check the path (a table's paths are relative to the table)")
    try:
        return cast(nib.Nifti1Image, nib.load(path))
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: not a readable NIfTI file ({error}); convert or copy it again") from error


def load_values(image: nib.Nifti1Image, path: str | Path) -> np.ndarray:
    """Read the voxels of an opened image; raises :class:`InputError` if the file is damaged or memory too small."""
    need, free = math.prod(image.shape) * (image.dataobj.dtype.itemsize + BYTES_AS_READ), free_memory()
    if free is not None and need > free:
        raise InputError(
            f"{path}: an image of shape {image.shape} needs {need / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are "
            "free: crop it, resample it coarser, or use a larger machine"
        )
    try:
        data = np.asarray(image.dataobj)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        raise InputError(f"{path}: truncated or damaged image data ({error}); copy the file again") from error
    if data.dtype.fields is not None or np.iscomplexobj(data):
        raise InputError(f"{path}: colour or complex values; expected a grey-scale image")
    return data


def grid_of(image: nib.Nifti1Image, shape: Sequence[int], path: str | Path) -> Grid:
    """Make the grid of ``shape`` (2-D or 3-D) described by the header of ``image``.

    Raises
    ------
    InputError
        The header's matrix is singular or sheared, or tilts a 2-D image out of its own plane; or qform and sform
        give different positions, of which nibabel and ITK would use different ones.
    """
    ndim = len(shape)
    columns = image.affine[:3, :ndim]
    affine = np.eye(ndim + 1)
    affine[:ndim, :ndim] = columns[:ndim]
    affine[:ndim, ndim] = image.affine[:ndim, 3]
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:ndim, :ndim])) < 1e-8:
        plane = "; a 2-D image must lie in its own x-y plane, as ITK requires" if ndim == 2 else ""
        raise InputError(
            f"{path}: the header's orientation matrix does not span the image's {ndim} axes{plane}: "
            "set the sform and qform to a valid matrix"
        )
    if ndim == 2 and np.abs(columns[2]).max() > 1e-3 * np.abs(columns).max():
        raise InputError(
            f"{path}: the header tilts the 2-D image out of its own x-y plane, which ITK cannot represent: "
            "set the sform and qform to a matrix in the plane"
        )
    grid = Grid(tuple(shape), affine)
    directions = affine[:ndim, :ndim] / grid.spacing
    if np.abs(directions.T @ directions - np.eye(ndim)).max() > 1e-3:
        raise InputError(
            f"{path}: the header's axes are sheared (not at right angles), which ITK cannot represent: "
            "resample the image onto a rectangular grid"
        )
    if isinstance(image, nib.Nifti1Image) and image.header["qform_code"] > 0 and image.header["sform_code"] > 0:
        qform = Grid(
            tuple(shape), np.block([[image.get_qform()[:ndim, :ndim], image.get_qform()[:ndim, 3:]], [affine[-1:]]])
        )
        if not grid.same_as(qform, tolerance_mm=0.1):
            raise InputError(
                f"{path}: qform and sform give two different positions, and programs disagree about which "
                "to use: set both to the correct matrix (nibabel: set_qform, set_sform)"
            )
    return grid


def _image_grid(image: nib.Nifti1Image, path: str | Path) -> Grid:
    shape = image.shape
    if len(shape) not in (2, 3):
        raise InputError(
            f"{path}: {len(shape)}-D image of shape {shape}; expected one 2-D or 3-D image: "
            "split a series or pick one volume of it"
        )
    if min(shape) < 1:
        raise InputError(f"{path}: an empty image of shape {shape}; convert or copy it again")
    if 1 in shape:
        raise InputError(
            f"{path}: a one-slice volume of shape {shape}; save the slice as a 2-D image (squeeze the axis) "
            "to register it in 2-D, or give the whole volume"
        )
    return grid_of(image, shape, path)


def _read(path: str | Path) -> Volume:
    image = open_nifti(path)
    grid = _image_grid(image, path)
    return Volume(load_values(image, path), grid, Path(path))
