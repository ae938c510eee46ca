"""The map that ``regcore apply`` warps an image with."""

from pathlib import Path

import numpy as np

from regcore.errors import InputError
from regcore.images.field import DisplacementField, read_field
from regcore.images.matrices import read_matrix
from regcore.images.volume import read_grid


def read_transform(path: Path, moving: Path, fixed: Path | None, matrix_format: str) -> DisplacementField:
    """Read a displacement field, or a matrix as a field on the grid of the fixed image.

    Parameters
    ----------
    path : Path
        A NIfTI file of a displacement, or a matrix as for :func:`regcore.images.matrices.read_matrix`.
    moving : Path
        The image to warp.
    fixed : Path or None
        The image whose grid the result gets; only for a matrix.
    matrix_format : str
        As for ``read_matrix``.

    Returns
    -------
    DisplacementField
        On the grid of the fixed image.

    Raises
    ------
    InputError
        The file cannot be read, the images differ in dimension, a matrix lacks its fixed image, or a displacement has
        one.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.commands.apply import read_transform
    >>> from regcore.images.matrices import save_matrix
    >>> from regcore.images.volume import Grid, Volume
    >>> image = Volume(np.ones((8, 8), np.float32), Grid.centred((8, 8), spacing=(2, 2), centre=(0, 0)))
    >>> shift = np.array([[1.0, 0, 6], [0, 1, 0], [0, 0, 1]])  # mm
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image.save(Path(folder, "scan.nii"))
    ...     save_matrix(shift, Path(folder, "affine"))
    ...     paths = [Path(folder, name) for name in ("affine.mat", "scan.nii", "scan.nii")]
    ...     field = read_transform(*paths, matrix_format="auto")
    >>> field.displacement[0, :, 0, 0].tolist()  # voxels
    [3.0, 0.0]
    """
    is_field = path.name.endswith((".nii", ".nii.gz"))
    if is_field and fixed is not None:
        raise InputError(f"--fixed: the displacement {path} has a grid of its own; leave the option out")
    if not is_field and fixed is None:
        raise InputError(f"{path}: a matrix has no grid; give the fixed image with --fixed")
    scan = read_grid(moving)
    field = read_field(path) if is_field else DisplacementField.identity(read_grid(fixed or path))
    if field.grid.ndim != scan.ndim:
        raise InputError(
            f"{path if fixed is None else fixed} is {field.grid.ndim}-D and {moving} is {scan.ndim}-D; both must have "
            "the same number of dimensions"
        )
    if is_field:
        return field
    matrix = read_matrix(path, field.grid, scan, matrix_format)
    return field.between_scans(field.grid, np.eye(scan.ndim + 1), matrix)
