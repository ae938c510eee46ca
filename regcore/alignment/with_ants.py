"""Alignment of two images by ANTs, checked for plausibility."""

import numpy as np

from regcore.alignment.resampling import coarsened
from regcore.errors import InputError
from regcore.images.ants import estimate_affine
from regcore.images.volume import Volume

#: Volumes with more voxels than this are coarsened to the spacing: twelve parameters do not need every voxel, and
#: ANTs takes ten times as long at 1 mm.  Small volumes are used as they are.
ALIGNMENT_VOXELS, ALIGNMENT_SPACING_MM = 2_000_000, 2.0
#: An alignment that stretches or shrinks by more than this has failed.
CREDIBLE_SCALES, ATTEMPTS = (0.5, 2.0), 3


def align_with_ants(
    fixed: Volume,
    moving: Volume,
    seed: int,
    fixed_mask: Volume | None = None,
    moving_mask: Volume | None = None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Align ``moving`` to ``fixed`` by an affine map with ANTs' mutual information.

    Parameters
    ----------
    fixed, moving : Volume
        Intensities 0 to 1.
    seed : int
        Of ANTs' random samples.
    fixed_mask, moving_mask : Volume, optional
        On the grids of their images; zero where an image is ignored.
    start : ndarray, shape (D + 1, D + 1), optional
        Fixed world → moving world, RAS mm; by default the centres of both images' intensities are aligned.

    Returns
    -------
    ndarray, shape (D + 1, D + 1)
        Fixed world → moving world, RAS mm.

    Raises
    ------
    InputError
        ANTs found no plausible alignment.
    """
    pair = [_no_finer_than_needed(volume) for volume in (fixed, moving)]
    for attempt in range(ATTEMPTS):  # each with different random samples of the metric
        matrix = estimate_affine(pair[0], pair[1], seed + 1000 * attempt, fixed_mask, moving_mask, start)
        scales = np.linalg.svd(matrix[:-1, :-1], compute_uv=False)
        if CREDIBLE_SCALES[0] < scales.min() and scales.max() < CREDIBLE_SCALES[1]:
            return matrix
    raise InputError(
        f"{moving.path}: could not be aligned to {fixed.path} (scales {np.round(scales, 2).tolist()}); check that "
        "both show the same anatomy, or align with 'auto', 'centre' or 'none'"
    )


def _no_finer_than_needed(volume: Volume) -> Volume:
    return coarsened(volume, ALIGNMENT_SPACING_MM) if volume.data.size > ALIGNMENT_VOXELS else volume
