"""The geometry of an image: shape, spacing, origin and direction, and its coordinates.

World coordinates are RAS millimetres, as in NIfTI.  A 2-D image has a world of two axes, the first two
of its NIfTI affine, as in ITK.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Grid:
    """The geometry of an image: its shape and its voxel → world (RAS mm) matrix.

    Parameters
    ----------
    shape : tuple of int
        Voxels along each array axis, two or three of them.
    affine : ndarray, shape (D + 1, D + 1)
        Maps homogeneous voxel indices to RAS millimetres.
    level : (float, float)
        Of a 2-D grid: position and thickness (mm) of the slice along the third world axis, for programs that show it
        in 3-D.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.grid import Grid
    >>> grid = Grid((4, 6), np.diag([2.0, 1.0, 1.0]))
    >>> grid.spacing.tolist(), grid.centre.tolist()
    ([2.0, 1.0], [3.0, 2.5])
    >>> grid.to_world(np.array([[1, 1]])).tolist()
    [[2.0, 1.0]]
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    level: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        affine = np.array(self.affine, dtype=np.float64)
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        if affine.shape != (self.ndim + 1, self.ndim + 1):
            raise ValueError(f"a {self.ndim}-D grid needs a {self.ndim + 1}x{self.ndim + 1} affine, got {affine.shape}")

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size in mm along each array axis, shape (D,)."""
        return np.linalg.norm(self.affine[:-1, :-1], axis=0)

    @property
    def centre(self) -> np.ndarray:
        """World position (RAS mm) of the centre of the grid, shape (D,)."""
        return self.to_world((np.array(self.shape) - 1) / 2)

    @cached_property
    def inverse(self) -> np.ndarray:
        """World → voxel matrix, shape (D + 1, D + 1)."""
        return np.linalg.inv(self.affine)

    def to_world(self, voxels: np.ndarray) -> np.ndarray:
        """Map voxel coordinates, shape (..., D), to RAS mm."""
        return transform_points(self.affine, voxels)

    def to_voxels(self, world: np.ndarray) -> np.ndarray:
        """Map RAS mm, shape (..., D), to voxel coordinates."""
        return transform_points(self.inverse, world)

    def same_as(self, other: "Grid", voxels: float = 1e-3) -> bool:
        """Whether every voxel has the same position in both grids, to within ``voxels`` of the smallest size."""
        if self.shape != other.shape:
            return False
        apart = np.linalg.norm(self.corners() - other.corners(), axis=1).max()
        return bool(apart <= voxels * self.spacing.min())

    def corners(self) -> np.ndarray:
        """World positions of the corner voxels, shape (2 ** D, D)."""
        ends = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij"))
        return self.to_world(ends.reshape(self.ndim, -1).T)

    def overlaps(self, other: "Grid") -> bool:
        """Whether the world bounding boxes of the two grids overlap."""
        mine, theirs = self.corners(), other.corners()
        return bool(np.all(mine.max(0) >= theirs.min(0)) and np.all(theirs.max(0) >= mine.min(0)))

    @classmethod
    def centred(cls, shape: Sequence[int] | np.ndarray, spacing: npt.ArrayLike, centre: npt.ArrayLike) -> "Grid":
        """Make an axis-aligned RAS grid of ``shape`` and ``spacing`` (mm) around ``centre`` (RAS mm)."""
        sizes = np.asarray(spacing, dtype=float)
        affine = np.diag([*sizes, 1.0])
        affine[:-1, -1] = np.asarray(centre) - sizes * (np.array(shape) - 1) / 2
        return cls(tuple(shape), affine)


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a homogeneous matrix to points.

    Parameters
    ----------
    matrix : ndarray, shape (D + 1, D + 1)
        Acts on columns of homogeneous coordinates.
    points : ndarray, shape (..., D)
        In the units that the matrix takes.

    Returns
    -------
    ndarray, shape (..., D)

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.grid import transform_points
    >>> transform_points(np.array([[2, 0, 5], [0, 2, 0], [0, 0, 1]]), np.array([[1, 1]])).tolist()
    [[7.0, 2.0]]
    """
    return np.asarray(points, dtype=np.float64) @ matrix[:-1, :-1].T + matrix[:-1, -1]
