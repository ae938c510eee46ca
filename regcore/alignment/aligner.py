"""Alignment of two images of any kind."""

from dataclasses import dataclass

import numpy as np

from regcore.alignment.intensities import normalise
from regcore.images.ants import estimate_affine
from regcore.images.volume import Volume

_ANTS = {
    "auto": "Affine",
    "affine": "Affine",
    "similarity": "Similarity",
    "rigid": "Rigid",
    "translation": "Translation",
}


@dataclass(frozen=True, eq=False)
class Aligned:
    """A map between the worlds of two images.

    Parameters
    ----------
    matrix : ndarray, shape (D + 1, D + 1)
        Fixed world → moving world, RAS mm.
    kind : str
        The kind of map that the data carried.
    notes : tuple of str
        What a user should be told.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.aligner import Aligned
    >>> Aligned(np.eye(4), "rigid").notes
    ()
    """

    matrix: np.ndarray
    kind: str
    notes: tuple[str, ...] = ()


def align_images(
    fixed: Volume,
    moving: Volume,
    kind: str = "auto",
    *,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    start: np.ndarray | None = None,
) -> Aligned:
    """Align two images, given with their own intensities.

    Parameters
    ----------
    fixed, moving : Volume
        On any grids.
    kind : str
        The kind of map: "auto", "affine", "similarity", "rigid" or "translation".
    fixed_mask, moving_mask : Volume, optional
        Zero where an image is ignored.
    start : ndarray, shape (D + 1, D + 1), optional
        Fixed world → moving world, RAS mm.

    Returns
    -------
    Aligned
    """
    pair = [volume.with_data(normalise(volume.data)) for volume in (fixed, moving)]
    found = estimate_affine(pair[0], pair[1], 0, fixed_mask, moving_mask, start, _ANTS[kind])
    return Aligned(found, "affine" if kind == "auto" else kind)
