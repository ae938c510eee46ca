"""A pair of images on one grid after the common affine start, and what is known of the map between them."""

from dataclasses import dataclass, field

import numpy as np

from regcore.images.volume import Volume

#: Points at which a known map is compared.
POINTS = 2000


@dataclass(frozen=True, eq=False)
class Pair:
    """What contestants get, and what they are scored with; everything is on the grid of ``fixed``.

    Parameters
    ----------
    name : str
        ``row-number``.
    fixed_name, moving_name : str
        The scans, or what was made.
    fixed, moving : Volume
        float32, 0 to 1.
    fixed_labels, moving_labels : Volume
        int16; 0 is not scored.
    moving_mask : Volume or None
        uint8: what the moving scan's field of view shows, where that leaves out a part of the fixed scan.
    points, targets : ndarray, shape (n, D)
        World positions in mm, and where the true map brings them; empty where it is not known.
    """

    name: str
    fixed_name: str
    moving_name: str
    fixed: Volume
    moving: Volume
    fixed_labels: Volume
    moving_labels: Volume
    moving_mask: Volume | None = None
    points: np.ndarray = field(default_factory=lambda: np.empty((0, 3)))
    targets: np.ndarray = field(default_factory=lambda: np.empty((0, 3)))
