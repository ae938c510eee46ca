"""Masks that say where an image counts: read, and made from lesions."""

from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

from regcore.errors import InputError
from regcore.images.volume import Volume, read_labels

#: A lesion is grown by so many of its largest voxels, if no margin is given: what it changes reaches beyond it.
MARGIN_VOXELS = 2.0


def read_mask(
    image: Volume, path: Path | None = None, lesion: Path | None = None, margin_mm: float | None = None
) -> Volume | None:
    """Read where an image counts: inside a mask, and away from a lesion (cost-function masking [1]_).

    Parameters
    ----------
    image : Volume
        The image that the files belong to.
    path : Path, optional
        A mask, zero where the image is ignored.
    lesion : Path, optional
        A label map of what is ignored: a lesion, an implant, a resection.
    margin_mm : float, optional
        How far around the lesion the image is ignored too; by default two of the largest voxels.

    Returns
    -------
    Volume or None
        On the image's grid, 1 where the image counts and 0 elsewhere; None without any file.

    Raises
    ------
    InputError
        A file is not a label map on the image's grid, or nothing of the image is left.

    References
    ----------
    .. [1] Brett, Leff, Rorden and Ashburner, "Spatial normalization of brain images with focal lesions using cost
       function masking", NeuroImage 14:486, 2001.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from regcore.images.masks import read_mask
    >>> from regcore.images.volume import Grid, Volume
    >>> image = Volume(np.ones((9, 9)), Grid.centred((9, 9), spacing=(2, 2), centre=(0, 0)))
    >>> lesion = np.zeros((9, 9), dtype=np.int16)
    >>> lesion[4, 4] = 1
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image.with_data(lesion).save(Path(folder, "lesion.nii"))
    ...     mask = read_mask(image, lesion=Path(folder, "lesion.nii"), margin_mm=2)
    >>> mask.data[4].tolist()
    [1, 1, 1, 0, 0, 0, 1, 1, 1]
    """
    if path is None and lesion is None:
        return None
    counts = np.ones(image.grid.shape, dtype=bool)
    if path is not None:
        counts &= _on_grid_of(image, path, "mask") > 0
    if lesion is not None:
        counts &= ~_grown(_on_grid_of(image, lesion, "lesion") > 0, image, margin_mm)
        if not counts.any():
            raise InputError(f"{lesion}: the lesion and its margin cover all that counts of {image.path}")
    return image.with_data(counts.astype(np.uint8))


def _on_grid_of(image: Volume, path: Path, what: str) -> np.ndarray:
    labels = read_labels(path)
    if not labels.grid.same_as(image.grid, voxels=0.01):
        raise InputError(f"{path}: the {what} is not on the grid of its image {image.path}; resample it onto that grid")
    if not labels.data.any():
        raise InputError(f"{path}: the {what} is empty (all zero)")
    return labels.data


def _grown(lesion: np.ndarray, image: Volume, margin_mm: float | None) -> np.ndarray:
    margin = MARGIN_VOXELS * float(image.grid.spacing.max()) if margin_mm is None else margin_mm
    return distance_transform_edt(~lesion, sampling=image.grid.spacing) <= margin * (1 + 1e-6)
