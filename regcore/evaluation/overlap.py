"""Overlap of labels."""

from collections.abc import Iterable
from operator import index

import numpy as np

from regcore.checks import require_same_shape


def dice(a: np.ndarray, b: np.ndarray, labels: Iterable[int]) -> np.ndarray:
    """Dice overlap of each label, from voxel counts (Eq. 8 of VoxelMorph [1]_).

    Symmetric in ``a`` and ``b``.  Any integer is a valid label code, including negative and very large ones: time and
    memory depend on the number of labels, not on their values.

    Parameters
    ----------
    a, b : ndarray of int or bool, same shape
        Label maps; bool counts as 0 and 1.
    labels : iterable of int
        Codes to score, in any order.

    Returns
    -------
    ndarray of float64, shape (len(labels),)
        2 |A ∩ B| / (|A| + |B|), in the order of ``labels``.  A label absent from one image scores 0.  A label absent
        from both is NaN, and means ignore it.

    Raises
    ------
    ValueError
        The shapes differ, a map is not of integers, or a label is not an integer.

    References
    ----------
    .. [1] Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, "VoxelMorph: A learning framework for deformable medical image
       registration", IEEE TMI 2019, Eq. 8.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.evaluation import dice
    >>> a, b = np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2])
    >>> dice(a, b, [1, 2, 7]).round(3).tolist()
    [0.667, 0.667, nan]
    """
    a, b = label_maps(a, b)
    codes, asked = sorted_codes(labels)
    in_a, in_b = positions(a, codes), positions(b, codes)
    sizes = np.bincount(in_a.ravel(), minlength=len(codes) + 1) + np.bincount(in_b.ravel(), minlength=len(codes) + 1)
    both = np.bincount(in_a[in_a == in_b], minlength=len(codes) + 1)
    with np.errstate(invalid="ignore"):
        return 2 * both[asked] / sizes[asked]


def label_maps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two label maps as integer arrays; raise ValueError if they are not, or differ in shape."""
    maps = []
    for name, values in (("a", np.asarray(a)), ("b", np.asarray(b))):
        if values.dtype == bool:
            values = values.view(np.uint8)
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"{name} {values.shape} of {values.dtype} must be a label map of integers")
        maps.append(values)
    require_same_shape("a", maps[0], "b", maps[1])
    return maps[0], maps[1]


def sorted_codes(labels: Iterable[int]) -> tuple[list[int], np.ndarray]:
    """Return the distinct codes in ascending order and, for each of ``labels``, its :func:`positions` number."""
    try:
        asked = [index(label) for label in labels]
    except TypeError as error:
        raise ValueError(f"labels must be integers ({error})") from error
    codes = sorted(set(asked))
    number = {code: place for place, code in enumerate(codes, start=1)}
    return codes, np.array([number[code] for code in asked], dtype=np.intp)


def positions(image: np.ndarray, codes: list[int]) -> np.ndarray:
    """Renumber a label map: i where it has ``codes[i - 1]`` (ascending), 0 where it has none of them."""
    # Codes are compared in the image's own type: a common type of uint64 and int64 would be float64.
    limits = np.iinfo(image.dtype)
    below = sum(code < limits.min for code in codes)
    known = np.array([code for code in codes if limits.min <= code <= limits.max], dtype=image.dtype)
    if not len(known):
        return np.zeros(image.shape, dtype=np.intp)
    nearest = np.minimum(np.searchsorted(known, image), len(known) - 1)
    return np.where(known[nearest] == image, nearest + (below + 1), 0)
