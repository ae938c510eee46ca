"""Fields that a tool has found, brought onto the grid and into the units of this package."""

import numpy as np
import torch

from regcore.images.field import DisplacementField
from regcore.images.volume import Grid
from regcore.methods.classical.external import ToolError


def on_grid(field: DisplacementField, grid: Grid) -> DisplacementField:
    """The same field with ``grid`` as its grid, whose numbers the tool may have rounded.

    Parameters
    ----------
    field : DisplacementField
        As the tool wrote it.
    grid : Grid
        Of the fixed image; for an inverse, of the moving image.

    Returns
    -------
    DisplacementField
        With the same displacements in voxels.

    Raises
    ------
    ToolError
        The field is on another grid.

    Examples
    --------
    >>> from regcore.images.field import DisplacementField
    >>> from regcore.images.volume import Grid
    >>> from regcore.methods.classical.fields import on_grid
    >>> grid = Grid.centred((8, 8), (1, 1), (0, 0))
    >>> rounded = DisplacementField.identity(Grid.centred((8, 8), (1, 1), (0.001, 0)))
    >>> on_grid(rounded, grid).grid is grid
    True
    """
    if not field.grid.same_as(grid, voxels=0.05):
        raise ToolError(f"the tool's field is not on the grid of the fixed image ({field.grid.shape}, {grid.shape})")
    return DisplacementField(field.displacement, grid)


def from_voxels(displacement: np.ndarray, grid: Grid) -> DisplacementField:
    """A field from displacements in voxels.

    Parameters
    ----------
    displacement : ndarray, shape (*space, D)
        Components in the order of the array axes.
    grid : Grid
        The grid of the displacements.

    Returns
    -------
    DisplacementField

    Raises
    ------
    ToolError
        The shape does not fit the grid.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid
    >>> from regcore.methods.classical.fields import from_voxels
    >>> displacement = np.zeros((8, 6, 2))
    >>> displacement[..., 1] = 3  # to the right along the second axis
    >>> field = from_voxels(displacement, Grid.centred((8, 6), (2, 2), (0, 0)))
    >>> tuple(field.displacement.shape), field.displacement[0, :, 0, 0].tolist()
    ((1, 2, 8, 6), [0.0, 3.0])
    """
    _check_shape(displacement, grid)
    return DisplacementField(torch.from_numpy(np.moveaxis(displacement, -1, 0)[None].astype(np.float32)), grid)


def from_ras(displacement: np.ndarray, grid: Grid) -> DisplacementField:
    """A field from displacements in mm along the axes of the RAS world.

    Parameters
    ----------
    displacement : ndarray, shape (*space, D)
        Components x, y, z.
    grid : Grid
        The grid of the displacements.

    Returns
    -------
    DisplacementField

    Raises
    ------
    ToolError
        The shape does not fit the grid.

    Examples
    --------
    >>> import numpy as np
    >>> from regcore.images.volume import Grid
    >>> from regcore.methods.classical.fields import from_ras
    >>> displacement = np.zeros((8, 6, 2))
    >>> displacement[..., 0] = 3  # 3 mm to the right
    >>> field = from_ras(displacement, Grid.centred((8, 6), (2, 2), (0, 0)))
    >>> field.displacement[0, :, 0, 0].tolist()  # in voxels of 2 mm
    [1.5, 0.0]
    """
    _check_shape(displacement, grid)
    return DisplacementField.from_world(DisplacementField.identity(grid).targets() + displacement, grid)


def _check_shape(displacement: np.ndarray, grid: Grid) -> None:
    if displacement.shape != (*grid.shape, grid.ndim):
        raise ToolError(f"the tool's field has the shape {displacement.shape}, the image has {grid.shape}")
