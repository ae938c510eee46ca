"""From two scans, whatever their grids, to one field between them.

A method sees images on one grid; here the scans are brought there and its field is brought back.
"""

import time
from dataclasses import dataclass, field, replace

import numpy as np

from regcore.methods.base import Method, Registration
from regcore.preprocess import Prepared


@dataclass
class Stopwatch:
    """Seconds by stage: ``with watch("load"): …``."""

    seconds: dict[str, float] = field(default_factory=dict)

    def __call__(self, stage: str) -> "_Lap":
        return _Lap(self, stage)


@dataclass
class _Lap:
    watch: Stopwatch
    stage: str
    started: float = 0.0

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *_) -> None:
        elapsed = time.perf_counter() - self.started
        self.watch.seconds[self.stage] = self.watch.seconds.get(self.stage, 0.0) + elapsed


def register_scans(method: Method, fixed: Prepared, moving: Prepared) -> Registration:
    """Register two prepared scans.

    Returns
    -------
    Registration
        Between the native scans: the field on the native fixed grid, the inverse on the native moving
        grid.  Without the affine alignment for a method that does not start from it.
    """
    if not method.aligned:
        fixed, moving = _as_scanned(fixed), _as_scanned(moving)
    masks = {"fixed_mask": fixed.mask, "moving_mask": moving.mask} if method.uses_masks else {}
    found = method.register(fixed.image, moving.image, **masks)
    return Registration(
        found.field.between_scans(fixed.native, fixed.to_native, moving.to_native),
        found.inverse and found.inverse.between_scans(moving.native, moving.to_native, fixed.to_native),
        found.commands,
    )


def _as_scanned(scan: Prepared) -> Prepared:
    return replace(scan, to_native=np.eye(scan.native.ndim + 1))
