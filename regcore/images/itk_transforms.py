"""ITK's files of linear transforms: text (``.tfm``, ``.txt``) and MATLAB level 4 (``.mat``), in 2-D and 3-D.

ITK's world is LPS; matrices here are RAS, as everywhere.  Not here: displacement fields (``field``), other programs'
files (``matrices``), HDF5 (``ants``).
"""

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regcore.errors import InputError
from regcore.process.files import atomic_write

TEXT_START = "#Insight Transform File"
#: A transform's name in a file, for instance ``AffineTransform_double_3_3``.
NAME = re.compile(r"(\w+?)_(double|float)_(\d+)_(\d+)")
COMPOSITE = "CompositeTransform"


@dataclass(frozen=True, eq=False)
class _Stored:
    """A transform as a file holds it: its type, dimension and numbers."""

    kind: str
    ndim: int
    parameters: np.ndarray
    fixed: np.ndarray


def read_itk_text(text: str, path: str | Path) -> np.ndarray:
    """Read a transform from the text of an ITK file.

    Parameters
    ----------
    text : str
        One linear transform, or a composite of some.
    path : path
        Where the text comes from, for messages.

    Returns
    -------
    ndarray, shape (D + 1, D + 1)
        The map of points that ITK applies, fixed world → moving world, in RAS mm.

    Raises
    ------
    InputError
        The text is damaged, or has a transform that is not linear, or several that are no composite.

    Examples
    --------
    >>> from regcore.images.itk_transforms import read_itk_text
    >>> shift = '''#Insight Transform File V1.0
    ... #Transform 0
    ... Transform: TranslationTransform_double_2_2
    ... Parameters: 3 -1
    ... FixedParameters:
    ... '''
    >>> read_itk_text(shift, "shift.tfm").tolist()
    [[1.0, 0.0, -3.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
    """
    stored = []
    for part in re.split(r"^\s*Transform:", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        numbers = {"Parameters": "", "FixedParameters": ""}
        for line in lines[1:]:
            key, colon, value = line.partition(":")
            if colon and key.strip() in numbers:
                numbers[key.strip()] = value
        try:
            given = [np.array(numbers[key].split(), dtype=float) for key in ("Parameters", "FixedParameters")]
        except ValueError as error:
            raise InputError(f"{path}: damaged: {error}; write the transform again") from error
        stored.append(_stored(lines[0].strip(), given[0], given[1], path))
    return _as_matrix(stored, path)


def read_itk_matlab(content: bytes, path: str | Path) -> np.ndarray:
    """Read a transform from the bytes of a MATLAB file, level 4, as ITK and ANTs write it.

    Parameters
    ----------
    content : bytes
        The whole file.
    path : path
        Where the bytes come from, for messages.

    Returns
    -------
    ndarray, shape (D + 1, D + 1)
        Fixed world → moving world, RAS mm.

    Raises
    ------
    InputError
        The file is damaged or does not hold exactly one linear transform.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.images.itk_transforms import read_itk_matlab, write_itk
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_itk(Path(folder, "a.mat"), np.diag([2.0, 2.0, 1.0]))
    ...     read_itk_matlab(Path(folder, "a.mat").read_bytes(), "a.mat").tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]]
    """
    variables = list(_matlab_variables(content, path))
    if len(variables) % 2 or any(name != "fixed" for name, _ in variables[1::2]):
        raise InputError(f"{path}: not an ITK transform (variables {', '.join(name for name, _ in variables)})")
    stored = [
        _stored(name, numbers, fixed, path)
        for (name, numbers), (_, fixed) in zip(variables[::2], variables[1::2], strict=True)
    ]
    if any(transform.kind == COMPOSITE for transform in stored):
        raise InputError(f"{path}: a .mat file does not keep the parts of a composite; save it as .tfm")
    return _as_matrix(stored, path)


def write_itk(path: str | Path, matrix: np.ndarray) -> None:
    """Write a matrix as an ``AffineTransform_double`` in a ``.mat`` file, which every ITK program applies.

    Parameters
    ----------
    path : path
        Ends in ``.mat``.
    matrix : ndarray, shape (D + 1, D + 1)
        Fixed world → moving world, RAS mm.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.images.itk_transforms import write_itk
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_itk(Path(folder, "a.mat"), np.eye(4))
    ...     Path(folder, "a.mat").read_bytes()[20:46]
    b'AffineTransform_double_3_3'
    """
    from scipy.io import savemat  # here: it takes a second to load, and few write a matrix

    ndim = len(matrix) - 1
    lps = between_lps_and_ras(matrix)
    column = np.concatenate([lps[:-1, :-1].ravel(), lps[:-1, -1]])[:, None]
    variables = {f"AffineTransform_double_{ndim}_{ndim}": column, "fixed": np.zeros((ndim, 1))}
    with atomic_write(path) as temporary:
        savemat(temporary, variables, appendmat=False, format="4")


def between_lps_and_ras(matrix: np.ndarray) -> np.ndarray:
    """A matrix on RAS points as one on LPS points, or the other way round.

    Parameters
    ----------
    matrix : ndarray, shape (D + 1, D + 1)
        In 2-D both axes change their sign.

    Returns
    -------
    ndarray, shape (D + 1, D + 1)

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.itk_transforms import between_lps_and_ras
    >>> between_lps_and_ras(np.array([[1.0, 0, 5], [0, 1, 0], [0, 0, 1]]))[:, 2].tolist()
    [-5.0, 0.0, 1.0]
    """
    flip = np.ones(len(matrix))
    flip[:2] = -1
    return flip[:, None] * matrix * flip + 0.0  # no negative zeros


def _stored(name: str, parameters: np.ndarray, fixed: np.ndarray, path: str | Path) -> _Stored:
    known = NAME.fullmatch(name)
    if known is None:
        raise InputError(f"{path}: '{name[:60]}' is not the name of an ITK transform; write the transform again")
    kind, ndim = known[1], int(known[3])
    if kind != COMPOSITE and kind not in LINEAR:
        raise InputError(
            f"{path}: {kind} is not a linear transform that can be read here ({', '.join(LINEAR)}); "
            "convert it to an AffineTransform, for instance with antsApplyTransforms -o Linear[out.mat]"
        )
    if ndim not in (2, 3) or not (np.isfinite(parameters).all() and np.isfinite(fixed).all()):
        raise InputError(f"{path}: damaged ({name}); write the transform again")
    return _Stored(kind, ndim, parameters, fixed)


def _as_matrix(stored: list[_Stored], path: str | Path) -> np.ndarray:
    composite, parts = bool(stored) and stored[0].kind == COMPOSITE, stored[1:]
    if not composite:
        parts = stored
    if not parts or any(part.kind == COMPOSITE for part in parts):
        raise InputError(f"{path}: no transform, or a composite inside another; write it again as one AffineTransform")
    if len(parts) > 1 and not composite:
        raise InputError(
            f"{path}: {len(parts)} transforms, and the file does not say in which order they apply; save one of them, "
            "or a CompositeTransform"
        )
    if len({part.ndim for part in parts}) > 1:
        raise InputError(f"{path}: its transforms differ in dimension; write it again")
    total = np.eye(parts[0].ndim + 1)
    for part in parts:  # ITK applies the last one to a point first
        total = total @ _lps_matrix(part, path)
    return between_lps_and_ras(total)


def _lps_matrix(stored: _Stored, path: str | Path) -> np.ndarray:
    """y = A (x − c) + c + t, or x + t without a centre c."""
    ndim = stored.ndim
    try:
        linear, shift = LINEAR[stored.kind](stored)
    except ValueError as error:
        raise InputError(
            f"{path}: damaged: {stored.parameters.size} parameters and {stored.fixed.size} fixed ones do not make a "
            f"{stored.kind} in {ndim}-D; write the transform again"
        ) from error
    centre = stored.fixed[:ndim] if stored.fixed.size else np.zeros(ndim)
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = linear
    matrix[:-1, -1] = shift + centre - linear @ centre
    return matrix


def _parts(stored: _Stored, *sizes: int) -> list[np.ndarray]:
    """The parameters in blocks of these sizes; raises ValueError if there are more or fewer, or half a centre."""
    if stored.parameters.size != sum(sizes) or 0 < stored.fixed.size < stored.ndim:
        raise ValueError
    return np.split(stored.parameters, np.cumsum(sizes)[:-1])


def _turn(axis: int, angle: float) -> np.ndarray:
    """Right-handed rotation about an axis of 3-D space."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[second, first], matrix[first, second] = np.sin(angle), -np.sin(angle)
    return matrix


def _versor(right: np.ndarray) -> np.ndarray:
    """Rotation of a unit quaternion given by its vector part, whose scalar part is not negative."""
    x, y, z = right
    squared = 1 - right @ right
    if squared < -1e-6:
        raise ValueError
    w = np.sqrt(max(squared, 0))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


_Linear = tuple[np.ndarray, np.ndarray]


def _affine(stored: _Stored) -> _Linear:
    linear, shift = _parts(stored, stored.ndim**2, stored.ndim)
    return linear.reshape(stored.ndim, stored.ndim), shift


def _translation(stored: _Stored) -> _Linear:
    (shift,) = _parts(stored, stored.ndim)
    return np.eye(stored.ndim), shift


def _identity(stored: _Stored) -> _Linear:
    return np.eye(stored.ndim), np.zeros(stored.ndim)


def _euler_2d(stored: _Stored) -> _Linear:
    (angle,), shift = _parts(stored, 1, 2)
    return _turn(2, angle)[:2, :2], shift


def _similarity_2d(stored: _Stored) -> _Linear:
    (scale,), (angle,), shift = _parts(stored, 1, 1, 2)
    return scale * _turn(2, angle)[:2, :2], shift


def _euler_3d(stored: _Stored) -> _Linear:
    angles, shift = _parts(stored, 3, 3)
    x, y, z = (_turn(axis, angle) for axis, angle in enumerate(angles))
    zyx = stored.fixed.size > 3 and stored.fixed[3] != 0  # ITK's flag ComputeZYX
    return z @ y @ x if zyx else z @ x @ y, shift


def _versor_rigid(stored: _Stored) -> _Linear:
    right, shift = _parts(stored, 3, 3)
    return _versor(right), shift


def _similarity_3d(stored: _Stored) -> _Linear:
    right, shift, (scale,) = _parts(stored, 3, 3, 1)
    return scale * _versor(right), shift


#: Types of ITK's linear transforms → linear part and translation of their parameters.
LINEAR: dict[str, Callable[[_Stored], _Linear]] = {
    "AffineTransform": _affine,
    "MatrixOffsetTransformBase": _affine,
    "TranslationTransform": _translation,
    "IdentityTransform": _identity,
    "Euler2DTransform": _euler_2d,
    "Rigid2DTransform": _euler_2d,
    "Similarity2DTransform": _similarity_2d,
    "Euler3DTransform": _euler_3d,
    "VersorRigid3DTransform": _versor_rigid,
    "Similarity3DTransform": _similarity_3d,
}


def _matlab_variables(content: bytes, path: str | Path) -> Iterator[tuple[str, np.ndarray]]:
    """Names and numbers of the variables, in the file's order.

    Each has a header of five int32: type MOPT, rows, columns, whether there is an imaginary part, length of the name.
    M is 0 for little endian and 1 for big, P is 0 for float64 and 1 for float32; the others are 0.
    """
    place = 0
    while place < len(content):
        try:
            order = "<" if struct.unpack_from("<i", content, place)[0] in (0, 10) else ">"
            kind, rows, columns, imaginary, length = struct.unpack_from(f"{order}5i", content, place)
            dtype = np.dtype({0: f"{order}f8", 10: f"{order}f4"}[kind % 1000])
            start = place + 20 + length
            name = content[place + 20 : start].rstrip(b"\0").decode("ascii")
            if imaginary or length < 1 or rows < 0 or columns < 0 or start > len(content):
                raise ValueError
            numbers = np.frombuffer(content, dtype, rows * columns, start)
        except (struct.error, ValueError, KeyError) as error:
            raise InputError(
                f"{path}: not a MATLAB file of level 4 with an ITK transform, or damaged; write the transform again"
            ) from error
        yield name, numbers.astype(float)
        place = start + numbers.nbytes
