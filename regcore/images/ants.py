"""Conversion of volumes, matrices and fields to antspyx and back; nothing else imports antspyx.

ITK reads its number of threads when it is loaded, so the environment variable must be set first; ``load`` does
that.  antspyx finds its results by a glob on a prefix, so every call gets a fresh folder.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

from regcore.images.itk_transforms import read_itk_matlab, write_itk
from regcore.images.volume import Volume

THREADS_VARIABLE = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"


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
