"""Opening, reading and writing of image files, with one message for everything that can go wrong."""

import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from regcore.errors import InputError
from regcore.images.grid import Grid
from regcore.process.files import atomic_write
from regcore.process.logs import warn_once
from regcore.process.memory import amount, free_memory

log = logging.getLogger(__name__)

#: What nibabel raises on files that are damaged, or are something else.
DAMAGED = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, OverflowError, KeyError, zlib.error)
#: So little (bytes) is not compared with the free memory: asking for it takes as long as reading a small image.
ALWAYS_FITS = 2**28
#: The remedy where memory is short.
SMALLER = "resample it to larger voxels, crop it, or use a machine with more memory"


def open_nifti(path: str | Path) -> nib.Nifti1Image:
    """Open an image file without reading its voxels.

    Parameters
    ----------
    path : path
        A NIfTI file.

    Returns
    -------
    Nifti1Image

    Raises
    ------
    InputError
        The file is missing, may not be read, or is damaged or something else.

    Examples
    --------
    >>> from regcore.errors import InputError
    >>> from regcore.images.nifti import open_nifti
    >>> try:
    ...     open_nifti("absent.nii")
    ... except InputError as error:
    ...     print(error)
    absent.nii: no such file; check the path (a table's paths are relative to the table)
    """
    try:
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file; check the path (a table's paths are relative to the table)")
        with _without_remarks():
            return cast(nib.Nifti1Image, nib.load(path))
    except PermissionError as error:
        raise InputError(f"{path}: may not be read ({error.strerror}); change its permissions") from error
    except DAMAGED as error:
        raise InputError(f"{path}: not a readable NIfTI file ({error}); convert or copy it again") from error


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Silence nibabel's remarks on headers, which do not name the file; those of regcore.images.header do."""
    remarks = nib.imageglobals.logger
    before, remarks.disabled = remarks.disabled, True
    try:
        yield
    finally:
        remarks.disabled = before


def stored_header(image: nib.Nifti1Image) -> nib.analyze.AnalyzeHeader:
    """The header as the file has it: nibabel replaces voxel sizes that are zero or negative while it loads an image.

    Parameters
    ----------
    image : Nifti1Image
        From :func:`open_nifti`.

    Returns
    -------
    AnalyzeHeader
        Of the image's own format.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.images.grid import Grid
    >>> from regcore.images.nifti import open_nifti, save_nifti, stored_header
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_nifti(Path(folder, "a.nii"), np.ones((4, 4)), Grid.centred((4, 4), (2, 2), (0, 0)))
    ...     stored_header(open_nifti(Path(folder, "a.nii")))["pixdim"][1].item()
    2.0
    """
    files = image.file_map
    with files["header" if "header" in files else "image"].get_prepare_fileobj("rb") as file:
        return type(image.header).from_fileobj(file, check=False)


def load_values(image: nib.Nifti1Image, path: str | Path) -> np.ndarray:
    """Read the voxels of an opened image.

    Parameters
    ----------
    image : Nifti1Image
        From :func:`open_nifti`.
    path : path
        For messages.

    Returns
    -------
    ndarray, shape of the image
        Scaled by the header's slope and intercept.

    Raises
    ------
    InputError
        The file is cut short or damaged, has colours or complex values, or does not fit into the free memory.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.images.grid import Grid
    >>> from regcore.images.nifti import load_values, open_nifti, save_nifti
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.nii")
    ...     save_nifti(path, np.ones((4, 4), np.float32), Grid.centred((4, 4), (1, 1), (0, 0)))
    ...     load_values(open_nifti(path), path).sum().item()
    16.0
    """
    _judge_scaling(image, path)
    require_memory(reading_bytes(image), f"{path}: reading an image of shape {image.shape}")
    try:
        data = np.asarray(image.dataobj)
    except MemoryError as error:
        raise InputError(f"{path}: an image of shape {image.shape} does not fit into memory; {SMALLER}") from error
    except DAMAGED as error:
        raise InputError(f"{path}: truncated or damaged image data ({error}); copy the file again") from error
    if data.dtype.fields is not None or np.iscomplexobj(data):
        raise InputError(f"{path}: colour or complex values; expected a grey-scale image")
    return data


def _judge_scaling(image: nib.Nifti1Image, path: str | Path) -> None:
    """Say where the intensities are not those that ITK reads: it adds an intercept also without a slope."""
    if not isinstance(image.header, nib.Nifti1Header):
        return
    header = stored_header(image)
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    ignored = not np.isfinite(slope) or slope == 0
    if ignored and np.isfinite(intercept) and intercept != 0:
        warn_once(
            log,
            f"{path}: scl_inter is {intercept:g}, but scl_slope is {slope:g}: intensities are read without scaling, as "
            "NIfTI says, while ITK adds the intercept; set scl_slope to 1, or scl_inter to 0",
        )


def reading_bytes(image: nib.Nifti1Image) -> int:
    """Memory (bytes) that reading an image takes: as stored, scaled in double precision, and as float32.

    Parameters
    ----------
    image : Nifti1Image
        Its voxels are not read.

    Returns
    -------
    int

    Examples
    --------
    >>> import nibabel as nib
    >>> import numpy as np
    >>> from regcore.images.nifti import reading_bytes
    >>> reading_bytes(nib.Nifti1Image(np.zeros((10, 10, 10), np.int16), np.eye(4)))
    14000
    """
    stored = image.get_data_dtype().itemsize
    return int(np.prod(image.shape, dtype=np.float64)) * (stored + 8 + 4)


def require_memory(needed: int, what: str) -> None:
    """Refuse work that cannot fit into the free memory.

    Parameters
    ----------
    needed : int
        Bytes.
    what : str
        Begins the message: the file, and what is done with it.

    Raises
    ------
    InputError
        Less is free.

    Examples
    --------
    >>> from regcore.images.nifti import require_memory
    >>> require_memory(1000, "a.nii: reading it")
    """
    if needed < ALWAYS_FITS:
        return
    free = free_memory()
    if needed > free:
        raise InputError(f"{what} takes about {amount(needed)} of memory, but {amount(free)} are free; {SMALLER}")


def save_nifti(path: str | Path, data: np.ndarray, grid: Grid, intent: str = "none") -> None:
    """Write a NIfTI-1 file with qform and sform both set to the same matrix, under a temporary name first.

    Parameters
    ----------
    path : path
        Ends in ``.nii`` or ``.nii.gz``.
    data : ndarray
        Its first axes are those of ``grid``.  Booleans are stored as uint8, int64 as the narrowest type from int32 on.
    grid : Grid
        The geometry; a 2-D image is placed along z by ``grid.level``.
    intent : str
        NIfTI's name of the intent.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.images.grid import Grid
    >>> from regcore.images.nifti import open_nifti, save_nifti
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_nifti(Path(folder, "a.nii"), np.array([[0, 2**31]]), Grid.centred((1, 2), (1, 1), (0, 0)))
    ...     str(open_nifti(Path(folder, "a.nii")).get_data_dtype())
    'uint32'
    """
    data = data.astype(_stored_type(data), copy=False)
    affine = np.eye(4)
    affine[: grid.ndim, : grid.ndim] = grid.affine[:-1, :-1]
    affine[: grid.ndim, 3] = grid.affine[:-1, -1]
    if grid.ndim == 2:
        affine[2, 3], affine[2, 2] = grid.level
    image = nib.Nifti1Image(data, affine, dtype=data.dtype)
    image.header.set_intent(intent)
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    with atomic_write(path) as temporary:
        nib.save(image, temporary)


def _stored_type(data: np.ndarray) -> np.dtype:
    """Few programs read integers of 64 bits, so these are stored as the first of int32, uint32 that holds them."""
    if data.dtype == bool:
        return np.dtype(np.uint8)
    if data.dtype not in (np.int64, np.uint64):
        return data.dtype
    low, high = (int(data.min()), int(data.max())) if data.size else (0, 0)
    for narrow in (np.int32, np.uint32):
        if np.iinfo(narrow).min <= low and high <= np.iinfo(narrow).max:
            return np.dtype(narrow)
    return data.dtype
