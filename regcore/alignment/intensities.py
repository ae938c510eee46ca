"""Intensities of any image, brought to one range."""

from collections.abc import Sequence

import numpy as np


def normalise(
    data: np.ndarray, percentiles: Sequence[float] = (0.5, 99.5), mask: np.ndarray | None = None
) -> np.ndarray:
    """Scale intensities so that two percentiles become 0 and 1, and clip beyond.

    If at least a tenth of the image has the lowest value, that value is background: it becomes 0, and the upper
    percentile is taken over the rest, so that the size of the field of view does not matter.

    Parameters
    ----------
    data : ndarray
        Intensities of an image of any shape.
    percentiles : (float, float)
        Become 0 and 1.
    mask : ndarray, same shape, optional
        The upper percentile is taken where it is not zero, so that a bright implant outside of it does not darken the
        rest.  The lower one is the whole image's: background is often outside.

    Returns
    -------
    ndarray of float32, same shape
        Between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.alignment.intensities import normalise
    >>> normalise(np.array([0, 0, 0, 5, 10]), percentiles=(0, 100)).tolist()
    [0.0, 0.0, 0.0, 0.5, 1.0]
    """
    lowest = data.min()
    heeded = data if mask is None or not np.any(mask) else data[np.asarray(mask) != 0]
    content = heeded[heeded > lowest]
    if (data > lowest).mean() <= 0.9 and content.size:
        low, high = lowest, np.percentile(content, percentiles[1])
    else:
        low, high = np.percentile(data, percentiles[0]), np.percentile(heeded, percentiles[1])
    return np.clip((data - low) / max(high - low, 1e-12), 0, 1).astype(np.float32)
