"""Conversion of volumes, matrices and fields to antspyx and back; nothing else imports antspyx.

Also HDF5 files of transforms: regcore needs antspyx anyway, whose ITK reads them, and no other package that does.

ITK reads its number of threads when it is loaded, so the environment variable must be set first; ``load`` does
that.  antspyx finds its results by a glob on a prefix, so every call gets a fresh folder.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

from regcore.errors import InputError
from regcore.images.itk_transforms import COMPOSITE, LINEAR, read_itk_matlab, read_itk_text, write_itk
from regcore.images.volume import Volume

THREADS_VARIABLE = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
#: A transform's name among the bytes of an HDF5 file, which stores it as it is.
HDF5_NAME = re.compile(rb"(\w{1,80})_(?:double|float)_\d_\d")
#: Version of an HDF5 file's first block → where in it the file's length is.
HDF5_LENGTH = {0: 40, 1: 44, 2: 28, 3: 28}


def load() -> ModuleType:
    """Import antspyx with a fixed number of threads: one, unless the environment sets another.

    Returns
    -------
    module
    """
    os.environ.setdefault(THREADS_VARIABLE, "1")
    import ants

    return ants


@contextmanager
def fresh_prefix() -> Iterator[str]:
    """Yield an output prefix in a temporary folder, which is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="regcore-ants-") as folder:
        yield str(Path(folder) / "pair_")


def to_ants(volume: Volume):
    """Convert a volume to an ANTsImage: the same voxels, geometry in LPS.

    Parameters
    ----------
    volume : Volume
        In RAS, as everywhere here.

    Returns
    -------
    ANTsImage
    """
    ants = load()
    lps = np.array([-1, -1, 1])[: volume.grid.ndim, None] * volume.grid.affine[:-1]
    spacing = volume.grid.spacing
    return ants.from_numpy(
        np.asarray(volume.data, dtype=np.float32),
        origin=list(lps[:, -1]),
        spacing=list(spacing),
        direction=lps[:, :-1] / spacing,
    )


def estimate_affine(
    fixed: Volume,
    moving: Volume,
    seed: int,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Align ``moving`` to ``fixed`` with ANTs: mutual information, multi-resolution.

    Parameters
    ----------
    fixed, moving : Volume
        Intensities 0 to 1.
    seed : int
        Seed of the metric's random sampling; the result is reproducible.
    fixed_mask, moving_mask : Volume, optional
        Zero where an image is ignored; may be on other grids than the images.
    start : ndarray, shape (D + 1, D + 1), optional
        As the result; by default the centres of both images' intensities are aligned.

    Returns
    -------
    ndarray, shape (D + 1, D + 1)
        Fixed world → moving world, RAS mm.
    """
    ants = load()
    ants.config.set_ants_deterministic(True, seed + 1)
    options = {}
    with fresh_prefix() as prefix:
        if start is not None:
            write_itk(f"{prefix}start.mat", start)
            options = {"initial_transform": [f"{prefix}start.mat"]}
        result = ants.registration(
            to_ants(fixed),
            to_ants(moving),
            type_of_transform="Affine",
            outprefix=f"{prefix}found_",
            mask=None if fixed_mask is None else to_ants(fixed_mask),
            moving_mask=None if moving_mask is None else to_ants(moving_mask),
            mask_all_stages=True,
            **options,
        )
        (path,) = result["fwdtransforms"]  # ANTs joins a linear start and what it found
        return read_itk_matlab(Path(path).read_bytes(), path)


def read_itk_hdf5(content: bytes, path: str | Path) -> np.ndarray:
    """Read a transform from an HDF5 file (``.h5``) that ITK wrote.

    Parameters
    ----------
    content : bytes
        The whole file: one linear transform, or a composite of some.
    path : path
        The file.

    Returns
    -------
    ndarray, shape (D + 1, D + 1)
        Fixed world → moving world, RAS mm.

    Raises
    ------
    InputError
        The file is damaged, holds no transform or several that are no composite, or one that is not linear, such as a
        displacement field.

    Notes
    -----
    ITK converts the file to its text format, whose reader makes the matrix.  What is not linear is told by its name
    before, because a field would make a huge text.
    """
    _require_linear_hdf5(content, path)
    ants = load()
    with fresh_prefix() as prefix:
        text = Path(f"{prefix}transform.tfm")
        try:
            ants.write_transform(ants.read_transform(str(Path(path).absolute()), "double"), str(text))
        except RuntimeError as error:
            raise InputError(f"{path}: damaged, or no file of ITK; write the transform again") from error
        return read_itk_text(text.read_text(), path)


def _require_linear_hdf5(content: bytes, path: str | Path) -> None:
    """Raise InputError for a file that is cut or does not hold one linear transform."""
    place = HDF5_LENGTH.get(content[8] if len(content) > 8 else -1)
    if place is None or len(content) < int.from_bytes(content[place : place + 8], "little"):
        raise InputError(f"{path}: damaged: the end of the HDF5 file is missing; copy it or write it again")
    kinds = [name.decode() for name in HDF5_NAME.findall(content)]
    if not kinds:
        raise InputError(f"{path}: an HDF5 file without a transform of ITK; give the file of a matrix")
    for kind in kinds:
        if kind != COMPOSITE and kind not in LINEAR:
            raise InputError(
                f"{path}: holds a {kind}, so it is no matrix; give its linear part alone, or convert the whole to a "
                "displacement, which regcore apply takes: antsApplyTransforms -t <this file> -r <fixed image> -o "
                "[displacement.nii.gz,1]"
            )
    if len(kinds) > 1 and COMPOSITE not in kinds:
        raise InputError(
            f"{path}: {len(kinds)} transforms, and the file does not say in which order they apply; save one of them, "
            "or a CompositeTransform"
        )
