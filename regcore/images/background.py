"""The value that an image has where there is nothing: air, or the constant that it was padded with."""

import numpy as np

from regcore.images.volume import Volume

#: A value that so large a share of the outline has is a padding constant, not one of many intensities.
CONSTANT_SHARE = 0.25
#: Half of the outline within this share of the image's range of intensities is background with noise.
NARROW = 0.1
#: Percentile of an outline that shows several things: air is the darkest of them in CT, MRI and PET.
DARK = 5.0


def background(volume: Volume) -> float:
    """Estimate the value outside the imaged object, which is what an image continues with beyond its border.

    Looked at is the outline: the border of a 2-D image; in 3-D the edges of the box, because faces cut through the
    object where a scan covers a part of it.

    Parameters
    ----------
    volume : Volume
        With finite values of any real type.

    Returns
    -------
    float
        The most frequent value of the outline if a quarter of the outline has it (padding, air of a CT); otherwise
        the middle of the densest half if that half is narrow (noisy air, also bright air); otherwise a low percentile.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.background import background
    >>> from regcore.images.volume import Grid, Volume
    >>> scan = np.full((8, 8), -1000.0)
    >>> scan[2:6, 2:6] = 40
    >>> background(Volume(scan, Grid.centred((8, 8), spacing=(1, 1), centre=(0, 0))))
    -1000.0
    """
    values = np.sort(outline(volume.data).astype(np.float64))
    found, counts = np.unique(values, return_counts=True)
    if counts.max() >= CONSTANT_SHARE * values.size:
        return float(found[counts.argmax()])
    half = (values.size + 1) // 2
    widths = values[half - 1 :] - values[: values.size - half + 1]
    first = int(widths.argmin())
    low, high = np.percentile(volume.data, (0.5, 99.5))
    if widths[first] <= NARROW * (high - low):
        return float(np.median(values[first : first + half]))
    return float(np.percentile(values, DARK))


def outline(data: np.ndarray) -> np.ndarray:
    """Values of the voxels that are first or last along two axes at least, or along one axis of a 2-D image.

    Parameters
    ----------
    data : ndarray
        Of two or three axes.

    Returns
    -------
    ndarray, shape (n,)
        Each voxel once, in the array's own type.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.background import outline
    >>> outline(np.arange(9).reshape(3, 3)).tolist()
    [0, 1, 2, 3, 5, 6, 7, 8]
    >>> outline(np.zeros((4, 5, 6))).size
    44
    """
    ends = []
    for axis, length in enumerate(data.shape):
        shape = [1] * data.ndim
        shape[axis] = length
        end = np.zeros(length, dtype=np.int8)
        end[[0, -1]] = 1
        ends.append(end.reshape(shape))
    return data[sum(ends) >= data.ndim - 1]
