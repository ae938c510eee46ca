"""From two scans, whatever their grids, to one field between them.

A method sees images on one grid; here the scans are brought there and its field is brought back.
"""

import time
from dataclasses import dataclass, field

import numpy as np

from regcore.methods.base import Method, Registration
from regcore.preprocess import Prepared
from regcore.volume import Grid


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
    found = method.register(fixed.image, moving.image)
    return Registration(
        found.field.between_scans(fixed.native, fixed.to_native, moving.to_native),
        found.inverse and found.inverse.between_scans(moving.native, moving.to_native, fixed.to_native),
        found.commands,
    )


def on_own_grid(image, to_native: np.ndarray | None = None, native: Grid | None = None) -> Prepared:
    """A scan whose own grid is the common one."""
    return Prepared(image, np.eye(image.grid.ndim + 1) if to_native is None else to_native, native or image.grid)


def _as_scanned(scan: Prepared) -> Prepared:
    return Prepared(scan.image, np.eye(scan.native.ndim + 1), scan.native)
