"""Matrices that place one image in the world of another, from and to the files of registration programs.

In memory a matrix maps *fixed world → moving world in RAS mm*, (D + 1, D + 1): it pulls, like a displacement field.
Files differ in direction, in the signs of their axes and in what they count from:

| program | file | maps |
|---|---|---|
| regcore | text, marked by a comment | fixed → moving, RAS mm |
| ITK, ANTs, Slicer | ``.mat``, ``.tfm``, ``.txt``, ``.h5`` | fixed → moving, LPS mm |
| NiftyReg, greedy | text | fixed → moving, RAS mm |
| FSL flirt | text | moving → fixed, mm from a corner of each image, the first axis mirrored if the image is not |
| FreeSurfer | LTA | src → dst, which is moving → fixed, between voxels or in RAS mm |

Text of four rows of four numbers does not tell who wrote it, so a person has to.
"""

import re
from pathlib import Path

import numpy as np

from regcore.errors import InputError
from regcore.images.ants import read_itk_hdf5
from regcore.images.itk_transforms import TEXT_START, read_itk_matlab, read_itk_text, write_itk
from regcore.images.matrix_formats import BARE
from regcore.images.volume import Grid
from regcore.process.files import atomic_write

#: The comment in our text.  It is the last line, because NiftyReg reads the file too and stops after the numbers.
MARK = "# regcore: fixed world -> moving world, RAS millimetres"
#: First bytes of an HDF5 file.
HDF5_START = b"\x89HDF"
#: First bytes of files that a matrix is not in, and what they are.
OTHERS = {
    b"\x1f\x8b": "compressed, perhaps an image or a displacement field",
    b"MATLAB 5": "a MATLAB file of level 5; ITK's are of level 4",
}
#: Largest share of a voxel by which a geometry in an LTA differs from the image's header that it means.
ROUNDED = 0.05


def read_matrix(path: str | Path, fixed: Grid, moving: Grid, written_by: str = "auto") -> np.ndarray:
    """Read a matrix that another program or regcore wrote.

    Parameters
    ----------
    path : path
        The file.  Its content tells the format, whatever its name.
    fixed, moving : Grid
        Of the two images. FSL's matrices depend on them, and an LTA's direction.
    written_by : {"auto", "regcore", "itk", "niftyreg", "greedy", "fsl", "freesurfer"}
        Needed only for bare numbers.

    Returns
    -------
    ndarray, shape (D + 1, D + 1)
        Fixed world → moving world, RAS mm.

    Raises
    ------
    InputError
        The file is missing, damaged, of another format than ``written_by`` or of none that is known; bare numbers
        have no format; or the matrix is singular or does not fit the images' dimension.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.images.matrices import read_matrix
    >>> from regcore.images.volume import Grid
    >>> grid = Grid.centred((8, 8, 8), spacing=(2, 2, 2), centre=(0, 0, 0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.txt").write_text("1 0 0 0\\n0 1 0 5\\n0 0 1 0\\n0 0 0 1\\n")
    ...     read_matrix(Path(folder, "a.txt"), grid, grid, "niftyreg")[:3, 3].tolist()
    ...     read_matrix(Path(folder, "a.txt"), grid, grid, "fsl")[:3, 3].tolist()
    [0.0, 5.0, 0.0]
    [0.0, -5.0, 0.0]
    """
    if fixed.ndim != moving.ndim:
        raise InputError(f"{path}: the images differ in dimension ({fixed.ndim}-D and {moving.ndim}-D)")
    content = _content(path)
    found = _format(content, written_by, path)
    if found == "itk":
        matrix = _from_itk(content, path)
    elif found == "freesurfer":
        matrix = _from_lta(content.decode("utf-8", errors="replace"), fixed, moving, path)
    else:
        matrix = _numbers(content.decode("utf-8", errors="replace"), path)
        if found == "fsl":
            matrix = _from_fsl(matrix, fixed, moving, path)
    return _checked(matrix, fixed.ndim, path)


def save_matrix(matrix: np.ndarray, stem: str | Path) -> None:
    """Write a matrix as ``stem.mat``, for ITK programs, and as ``stem.txt``, for people and other programs.

    Parameters
    ----------
    matrix : ndarray, shape (D + 1, D + 1)
        Fixed world → moving world, RAS mm.
    stem : path
        Folder, and the files' name without its end.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.images.matrices import save_matrix
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_matrix(np.eye(3), Path(folder, "affine"))
    ...     print(Path(folder, "affine.txt").read_text(), end="")
    1 0 0
    0 1 0
    0 0 1
    # regcore: fixed world -> moving world, RAS millimetres
    """
    stem = Path(stem)
    write_itk(stem.with_name(f"{stem.name}.mat"), matrix)
    with atomic_write(stem.with_name(f"{stem.name}.txt")) as path:
        np.savetxt(path, matrix, fmt="%.17g", footer=MARK, comments="", encoding="ascii")


def _content(path: str | Path) -> bytes:
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    for start, what in OTHERS.items():
        if content.startswith(start):
            raise InputError(f"{path}: not a file of a matrix but {what}")
    return content


def _format(content: bytes, written_by: str, path: str | Path) -> str:
    """The format that the content shows, or else the one that is given."""
    text = content.decode("utf-8", errors="replace")
    if content.startswith(HDF5_START) or text.lstrip().startswith(TEXT_START) or b"\0" in content[:20]:
        shown = "itk"
    elif re.search(r"^\s*nxforms\s*=", text, flags=re.MULTILINE):
        shown = "freesurfer"
    elif MARK in text:
        shown = "regcore"
    elif written_by in BARE:
        return written_by
    else:
        _numbers(text, path)
        raise InputError(
            f"{path}: bare numbers, which programs mean differently; say who wrote them: --matrix-format "
            f"{', '.join(BARE[:-1])} or {BARE[-1]} (fixed to moving, RAS mm)"
        )
    if written_by not in ("auto", shown):
        raise InputError(f"{path}: --matrix-format {written_by}, but the file is of the format {shown}")
    return shown


def _from_itk(content: bytes, path: str | Path) -> np.ndarray:
    """One of ITK's three formats, told by its first bytes."""
    if content.startswith(HDF5_START):
        return read_itk_hdf5(content, path)
    text = content.decode("ascii", errors="replace")
    return read_itk_text(text, path) if text.lstrip().startswith(TEXT_START) else read_itk_matlab(content, path)


def _numbers(text: str, path: str | Path) -> np.ndarray:
    """A square matrix from rows of numbers."""
    rows = [line.split() for line in (line.partition("#")[0] for line in text.splitlines()) if line.strip()]
    try:
        matrix = np.array(rows, dtype=float)
    except ValueError:
        matrix = np.empty(0)
    if matrix.shape not in ((3, 3), (4, 4)):
        raise InputError(
            f"{path}: not the file of a matrix: no ITK transform, no LTA, and no rows of 3 x 3 or 4 x 4 numbers"
        )
    return matrix


def _checked(matrix: np.ndarray, ndim: int, path: str | Path) -> np.ndarray:
    """The matrix for images of ``ndim`` dimensions; raises InputError if it is no affine map of theirs."""
    if not np.isfinite(matrix).all() or np.abs(matrix[-1] - np.eye(len(matrix))[-1]).max() > 1e-6:
        raise InputError(f"{path}: not an affine map: the last row must be 0 ... 0 1, and all numbers finite")
    if len(matrix) == 4 and ndim == 2:
        within = [0, 1, 3]
        if np.abs(matrix[2, :2]).max() > 1e-6 or np.abs(matrix[:2, 2]).max() > 1e-6:
            raise InputError(f"{path}: the matrix moves 2-D images out of their plane")
        matrix = matrix[np.ix_(within, within)]
    if len(matrix) != ndim + 1:
        raise InputError(f"{path}: a matrix of {len(matrix) - 1}-D images, but these are {ndim}-D")
    scales = np.linalg.svd(matrix[:-1, :-1], compute_uv=False)
    if scales.min() < 1e-6 * scales.max() or scales.max() == 0:
        raise InputError(f"{path}: the matrix is singular: it flattens the image; write it again")
    return np.vstack([matrix[:-1], np.eye(ndim + 1)[-1]])


def _from_fsl(matrix: np.ndarray, fixed: Grid, moving: Grid, path: str | Path) -> np.ndarray:
    """Flirt's map from the moving to the fixed image, as FSL counts."""
    if fixed.ndim != 3 or matrix.shape != (4, 4):
        raise InputError(f"{path}: FSL's matrices are 4 x 4, of 3-D images")
    _require_invertible(matrix, path)
    world_to_fixed = _fsl_coordinates(fixed) @ fixed.inverse
    return moving.affine @ np.linalg.inv(_fsl_coordinates(moving)) @ np.linalg.inv(matrix) @ world_to_fixed


def _fsl_coordinates(grid: Grid) -> np.ndarray:
    """Voxels → FSL's mm, counted from the first voxel, or along the first of right-handed axes from the last one."""
    scaled = np.diag([*grid.spacing, 1.0])
    if np.linalg.det(grid.affine) > 0:
        scaled[0, 0] *= -1
        scaled[0, 3] = (grid.shape[0] - 1) * grid.spacing[0]
    return scaled


def _from_lta(text: str, fixed: Grid, moving: Grid, path: str | Path) -> np.ndarray:
    """FreeSurfer's map from the image src to the image dst.

    By its convention src is the moving image, so the map is inverted, unless src has the fixed image's geometry and dst
    the moving one's.
    """
    if fixed.ndim != 3:
        raise InputError(f"{path}: FreeSurfer's matrices are of 3-D images")
    lines = [line.strip() for line in (line.partition("#")[0] for line in text.splitlines()) if line.strip()]
    try:
        kind, count = (int(_value(lines, key)) for key in ("type", "nxforms"))
        start = lines.index("1 4 4") + 1
        matrix = np.array([line.split() for line in lines[start : start + 4]], dtype=float).reshape(4, 4)
        source, target = (_geometry(lines[lines.index(f"{name} volume info") + 1 :]) for name in ("src", "dst"))
    except ValueError as error:
        raise InputError(f"{path}: a damaged LTA ({error}); write it again") from error
    if kind not in (0, 1) or count != 1:
        raise InputError(
            f"{path}: an LTA of type {kind} with {count} transforms; convert it with lta_convert to one of type 1 "
            "(RAS to RAS)"
        )
    _require_invertible(matrix, path)
    if kind == 0:
        if source is None or target is None:
            raise InputError(f"{path}: an LTA between voxels without the images' geometry; convert it to type 1")
        matrix = target.affine @ matrix @ source.inverse
    forwards = _fits(source, fixed) and _fits(target, moving) and not (_fits(source, moving) and _fits(target, fixed))
    return matrix if forwards else np.linalg.inv(matrix)


def _value(lines: list[str], key: str) -> str:
    """The text behind the first ``key =``; raises ValueError if there is none."""
    for line in lines:
        name, equals, value = line.partition("=")
        if equals and name.strip() == key:
            return value.strip()
    raise ValueError(f"no '{key}'")


def _geometry(lines: list[str]) -> Grid | None:
    """An image's geometry in an LTA; None where the file calls it invalid."""
    if int(_value(lines, "valid").split()[0]) != 1:
        return None
    shape, spacing, *columns, centre = (
        np.array(_value(lines, key).split(), dtype=float)
        for key in ("volume", "voxelsize", "xras", "yras", "zras", "cras")
    )
    affine = np.eye(4)
    affine[:3, :3] = np.stack(columns, axis=1) * spacing
    affine[:3, 3] = centre - affine[:3, :3] @ (shape / 2)  # FreeSurfer's centre is voxel n / 2
    if shape.shape != (3,) or shape.min() < 1 or abs(np.linalg.det(affine)) < 1e-12:
        raise ValueError("a geometry without extent")
    return Grid(tuple(shape), affine)


def _fits(geometry: Grid | None, image: Grid) -> bool:
    return geometry is not None and geometry.same_as(image, ROUNDED)


def _require_invertible(matrix: np.ndarray, path: str | Path) -> None:
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise InputError(f"{path}: the matrix is singular or not finite; write it again")
