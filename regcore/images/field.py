"""A displacement field, in memory and on disk; the only place that converts between conventions.

**In memory** a displacement ``u`` is a tensor ``(1, D, *space)`` in *voxels of the fixed grid*, component
order = array axis order; voxel centres are integer coordinates.  The map is φ(p) = p + u(p) and it *pulls*:
``warped(p) = moving(φ(p))``.

**On disk** it has the format that other programs read: NIfTI-1, 5-D ``(x, y, z, 1, 3)`` (2-D: ``(x, y, 1, 1, 2)``),
intent 1007 (vector), float32, LPS millimetres, on the fixed image's grid.  ``antsApplyTransforms``,
SimpleITK, ITK-SNAP and 3D Slicer apply such a file directly.

**World** coordinates are RAS millimetres, as in NIfTI; LPS is RAS with its first two axes negated.
"""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from regcore.errors import InputError
from regcore.images.background import background
from regcore.images.grid import Grid, transform_points
from regcore.images.header import grid_of
from regcore.images.nifti import load_values, open_nifti, save_nifti
from regcore.images.volume import Volume
from regcore.spatial import identity, sample


@dataclass(frozen=True, eq=False)
class DisplacementField:
    """A map from the fixed image's world to the moving image's, given on the fixed grid.

    Parameters
    ----------
    displacement : Tensor, shape (1, D, *grid.shape)
        In voxels of ``grid``.
    grid : Grid
        Grid of the fixed image.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid, Volume
    >>> grid = Grid.centred((8, 8), spacing=(2, 2), centre=(0, 0))
    >>> field = DisplacementField(torch.ones(1, 2, 8, 8), grid)
    >>> field.at(np.zeros((1, 2))).tolist()
    [[2.0, 2.0]]
    >>> field.warp(Volume(np.ones((8, 8), dtype=np.float32), grid), fill=0).data.sum().item()
    49.0
    """

    displacement: Tensor
    grid: Grid

    @classmethod
    def identity(cls, grid: Grid) -> "DisplacementField":
        return cls(torch.zeros(1, grid.ndim, *grid.shape), grid)

    @classmethod
    def from_world(cls, targets: np.ndarray, grid: Grid) -> "DisplacementField":
        """Make the field that maps every voxel of ``grid`` to ``targets``, (*grid.shape, D) in RAS mm."""
        voxels = grid.to_voxels(targets) - _indices(grid)
        return cls(torch.from_numpy(np.moveaxis(voxels, -1, 0)[None]).float(), grid)

    def targets(self) -> np.ndarray:
        """World position (RAS mm) that each voxel is mapped to, shape (*grid.shape, D), float64."""
        displacement = np.moveaxis(self.displacement[0].double().numpy(), 0, -1)
        return self.grid.to_world(_indices(self.grid) + displacement)

    def at(self, points: np.ndarray) -> np.ndarray:
        """Map world points (n, D) of the fixed image to the moving image; outside the grid the nearest
        displacement is used."""
        voxels = torch.from_numpy(self.grid.to_voxels(points).T.copy())[None]
        where = voxels.reshape(1, self.grid.ndim, -1, *[1] * (self.grid.ndim - 1))
        moved = sample(self.displacement.double(), where, border="edge") + where
        return self.grid.to_world(moved.reshape(self.grid.ndim, -1).T.numpy())

    def warp(self, moving: Volume, nearest: bool = False, fill: float | None = None) -> Volume:
        """Warp ``moving``, which may be on any grid, onto the fixed grid.

        Parameters
        ----------
        moving : Volume
            An image, or labels.
        nearest : bool
            For labels: keeps their type, and the outside is 0.
        fill : float, optional
            Value outside ``moving``; by default its :func:`~regcore.images.background.background`.
        """
        points = identity(self.grid.shape, self.displacement.double()) + self.displacement.double()
        if not moving.grid.same_as(self.grid, voxels=0):
            points = torch.from_numpy(np.moveaxis(moving.grid.to_voxels(self.targets()), -1, 0)[None].copy())
        data = torch.from_numpy(np.ascontiguousarray(moving.data))[None, None]
        if nearest:
            return Volume(sample(data, points, mode="nearest")[0, 0].numpy(), self.grid)
        outside = background(moving) if fill is None else fill
        warped = sample(data.double() - outside, points) + outside
        return Volume(warped[0, 0].numpy().astype(np.float32), self.grid)

    def between_scans(self, fixed: Grid, to_fixed: np.ndarray, to_moving: np.ndarray) -> "DisplacementField":
        """Compose this map, given on a common grid, with the affines between that grid and the scans.

        Parameters
        ----------
        fixed : Grid
            Native grid of the fixed scan, which is the grid of the result.
        to_fixed, to_moving : ndarray, shape (D + 1, D + 1)
            World of the common grid → world of the native fixed and moving scan.
        """
        common = transform_points(np.linalg.inv(to_fixed), fixed.to_world(_indices(fixed)))
        moved = self.at(common.reshape(-1, fixed.ndim))
        return DisplacementField.from_world(transform_points(to_moving, moved).reshape(*fixed.shape, fixed.ndim), fixed)

    def save(self, path: str | Path) -> None:
        """Write the ITK vector NIfTI described above."""
        vectors = self.targets() - self.grid.to_world(_indices(self.grid))
        vectors[..., :2] *= -1
        trailing = (1,) * (4 - self.grid.ndim)
        data = vectors.reshape(*self.grid.shape, *trailing, self.grid.ndim)
        save_nifti(path, data.astype(np.float32), self.grid, intent="vector")


def read_field(path: str | Path) -> DisplacementField:
    """Read an ITK displacement field, written by regcore, ANTs or any ITK program.

    Parameters
    ----------
    path : path
        A 5-D vector NIfTI, in LPS mm, as ITK defines it.

    Returns
    -------
    DisplacementField
        In voxels of the file's own grid.

    Raises
    ------
    InputError
        The file is missing, damaged or not a 5-D vector NIfTI, or contains NaN or infinite values.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import torch
    >>> from regcore.images.field import DisplacementField, read_field
    >>> from regcore.images.volume import Grid
    >>> grid = Grid.centred((4, 4, 4), spacing=(2, 2, 2), centre=(0, 0, 0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     DisplacementField(torch.ones(1, 3, 4, 4, 4), grid).save(Path(folder, "field.nii.gz"))
    ...     read_field(Path(folder, "field.nii.gz")).displacement[0, :, 1, 1, 1].tolist()
    [1.0, 1.0, 1.0]
    """
    image = open_nifti(path)
    grid = _field_grid(image, path)
    data = load_values(image, path)
    if not np.isfinite(data).all():
        raise InputError(f"{path}: the displacement contains NaN or infinite values; register the pair again")
    vectors = data.reshape(*grid.shape, grid.ndim).astype(np.float64)
    vectors[..., :2] *= -1
    return DisplacementField.from_world(grid.to_world(_indices(grid)) + vectors, grid)


def read_field_grid(path: str | Path) -> Grid:
    """Read only the grid of an ITK displacement field, not its vectors.

    Parameters
    ----------
    path : path
        As for :func:`read_field`.

    Returns
    -------
    Grid

    Raises
    ------
    InputError
        The file is missing or, by its header, not a displacement field.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from regcore.images.field import DisplacementField, read_field_grid
    >>> from regcore.images.volume import Grid
    >>> grid = Grid.centred((4, 5), spacing=(2, 2), centre=(0, 0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     DisplacementField.identity(grid).save(Path(folder, "field.nii.gz"))
    ...     read_field_grid(Path(folder, "field.nii.gz")).shape
    (4, 5)
    """
    return _field_grid(open_nifti(path), path)


def _field_grid(image: nib.Nifti1Image, path: str | Path) -> Grid:
    shape, ndim = image.shape[:3], image.shape[-1]
    if (
        len(image.shape) != 5
        or image.shape[3] != 1
        or ndim not in (2, 3)
        or (ndim == 2 and shape[2] != 1)
        or min(shape[:ndim]) < 2
    ):
        raise InputError(
            f"{path}: not a displacement field (shape {image.shape}); expected a 5-D vector NIfTI of shape "
            "(x, y, z, 1, 3), or (x, y, 1, 1, 2) in 2-D"
        )
    kind, _, name = image.header.get_intent()
    if kind != "vector" or name.startswith("NREG"):
        raise InputError(
            f"{path}: the header does not mark an ITK displacement (intent '{kind}' {name!r} instead of 'vector'); "
            "convert the field to LPS millimetres with intent 1007 first"
        )
    return grid_of(image, range(ndim), path)


def read_voxel_field(path: str | Path, fixed: Grid, moving: Grid) -> DisplacementField:
    """Read a displacement field as the Learn2Reg challenges define it.

    A 4-D NIfTI ``(x, y, z, 3)`` (2-D: ``(x, y, 2)``) in voxels, components in the order of the array axes:
    ``warped[p] = moving[p + u(p)]``, both images indexed as arrays; the file's header is ignored.

    Parameters
    ----------
    path : path
        The NIfTI file.
    fixed, moving : Grid
        Grids of the two images.

    Returns
    -------
    DisplacementField
        On the fixed grid.

    Raises
    ------
    InputError
        The file is missing or damaged, its shape is not that of the fixed image, or it contains NaN or infinite
        values.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import nibabel as nib
    >>> import numpy as np
    >>> from regcore.images.field import read_voxel_field
    >>> from regcore.images.volume import Grid
    >>> grid = Grid.centred((4, 4, 4), spacing=(2, 2, 2), centre=(0, 0, 0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     nib.save(nib.Nifti1Image(np.ones((4, 4, 4, 3)), np.eye(4)), Path(folder, "field.nii.gz"))
    ...     field = read_voxel_field(Path(folder, "field.nii.gz"), grid, grid)
    >>> field.displacement[0, :, 1, 1, 1].tolist()
    [1.0, 1.0, 1.0]
    """
    image = open_nifti(path)
    wanted = (*fixed.shape, fixed.ndim)
    if image.shape != wanted:
        raise InputError(f"{path}: the fixed image {fixed.shape} needs a field of shape {wanted}, not {image.shape}")
    data = load_values(image, path).astype(np.float64)
    if not np.isfinite(data).all():
        raise InputError(f"{path}: the displacement contains NaN or infinite values; register the pair again")
    return DisplacementField.from_world(moving.to_world(_indices(fixed) + data), fixed)


def _indices(grid: Grid) -> np.ndarray:
    """Voxel coordinates of ``grid``, shape (*grid.shape, D), float64."""
    return np.moveaxis(identity(grid.shape, torch.empty(0, dtype=torch.float64))[0].numpy(), 0, -1)
