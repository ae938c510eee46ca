"""A NIfTI image with its geometry, in two or three dimensions.

Here: an image's values with their :class:`~regcore.images.grid.Grid`, and what is checked when they are read.  Not
here: the geometry of a header (``header``), files (``nifti``), resampling (``spatial``) and displacement fields
(``field``).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regcore.errors import InputError
from regcore.images.grid import Grid
from regcore.images.header import read_geometry
from regcore.images.nifti import load_values, open_nifti, save_nifti

#: Single precision ends at 3e38; sums of products of differences have to stay below.
LARGEST = 1e15

#: Rounding to single precision may change intensities by this share of their range.
ROUNDING = 1e-3


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
        The file is missing, truncated or not a NIfTI; is not one 2-D or 3-D image; contains NaN or infinite values,
        is constant, or has values that single precision cannot compute with or tell apart; its header gives no usable
        orientation (:func:`regcore.images.header.read_geometry`); or it does not fit into memory.

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
    return volume.with_data(_single_precision(volume.data, path))


def read_labels(path: str | Path) -> Volume:
    """Read a label map as int32, or as int64 if a label is above 2^31 - 1.

    Parameters
    ----------
    path : path
        A NIfTI file.

    Returns
    -------
    Volume
        With int32 or int64 values: every label as it is in the file.

    Raises
    ------
    InputError
        As :func:`read_volume` (except that a constant map is valid), or the values are not whole numbers from 0 on,
        or too large for their type.

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
    return volume.with_data(_whole_numbers(volume.data, path))


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
    return read_geometry(open_nifti(path), path)


def _read(path: str | Path) -> Volume:
    image = open_nifti(path)
    grid = read_geometry(image, path)
    return Volume(load_values(image, path).reshape(grid.shape), grid, Path(path))


def _single_precision(data: np.ndarray, path: str | Path) -> np.ndarray:
    """The values as float32; refused where they do not fit, or where rounding would blur their differences."""
    low, high = float(data.min()), float(data.max())
    largest = max(-low, high)
    if largest > LARGEST:
        raise InputError(
            f"{path}: intensities of up to {largest:.3g}, beyond the {LARGEST:.0g} that single precision can compute "
            f"with; scale them (divide by {largest:.0e}) and save it again"
        )
    rounded = data.astype(np.float32)
    if not np.can_cast(data.dtype, np.float32) and np.abs(rounded - data).max() > ROUNDING * (high - low):
        raise InputError(
            f"{path}: intensities from {low!r} to {high!r} differ too little for single precision; subtract "
            f"{low!r} or scale them, and save it again"
        )
    return rounded


def _whole_numbers(data: np.ndarray, path: str | Path) -> np.ndarray:
    """Labels as int32, or int64 if int32 is too narrow."""
    rounded = data
    if not np.issubdtype(data.dtype, np.integer):
        if not np.isfinite(data).all():
            raise InputError(f"{path}: the label map contains NaN or infinite values; save it with an integer type")
        rounded = np.rint(data)
    if rounded.min() < 0 or np.abs(data - rounded).max() > 1e-3:
        raise InputError(
            f"{path}: labels must be whole numbers >= 0; was the map resampled with linear interpolation? "
            "Use nearest neighbour"
        )
    highest = rounded.max()
    exact = 2**63 - 1 if rounded is data else 2 ** (np.finfo(data.dtype).nmant + 1)
    if int(highest) > exact:
        raise InputError(
            f"{path}: labels of up to {int(highest)} are not exact in {data.dtype}; number them anew, below 2^31"
        )
    return rounded.astype(np.int32 if highest <= np.iinfo(np.int32).max else np.int64)
