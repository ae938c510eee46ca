"""How regular a field is: folds, the volume they turn inside out, and the spread of local volume change."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from regcore.checks import describe, require_field, require_finite
from regcore.kernels import jacobian
from regcore.spatial import jacobian_determinant


@dataclass(frozen=True)
class DigitalFolds:
    """What fails to be a digital diffeomorphism (Liu et al., IJCV 2024), among the inner voxels of a mask.

    Parameters
    ----------
    voxels : int
        Looked at: in the mask, and not on the border of the grid.
    central : int
        Voxels whose determinant by central differences is ≤ 0, the paper's non-diffeomorphic points.
    corners : int
        Voxels with any of the determinants of their simplices ≤ 0.
    simplices : float
        Simplices with a determinant ≤ 0, as a share of all, in voxels: a voxel has ten in 3-D and four in 2-D.
    volume : float
        Non-diffeomorphic volume (area in 2-D): that of the simplices turned inside out, in voxels.
    """

    voxels: int
    central: int
    corners: int
    simplices: float
    volume: float


def digital_folds(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> DigitalFolds:
    """Count where φ(p) = p + u(p) folds, by all the determinants of Liu et al. (IJCV 2024), Section 4.

    Parameters
    ----------
    displacement : Tensor, shape (1, D, *space)
        In voxels, three or more along each axis.
    mask : array of bool, shape space, optional
        Where to look; everywhere without.

    Raises
    ------
    ValueError
        The displacement is no single field, not finite or too thin, or the mask is of another shape.
    """
    chosen = _mask(displacement, mask)
    if min(displacement.shape[2:]) < 3:
        raise ValueError(f"{describe('displacement', displacement)} must have 3 voxels or more along each axis")
    voxels, central, corners, simplices, volume = jacobian.digital_folds(displacement, chosen).tolist()
    per_voxel = 10 if displacement.shape[1] == 3 else 4
    return DigitalFolds(int(voxels), int(central), int(corners), simplices / per_voxel, volume)


def non_diffeomorphic_volume(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> float:
    """NDV of Liu et al. (IJCV 2024) in percent of the inner voxels of ``mask``; the NDA in 2-D.

    NaN where there is no inner voxel.  Parameters and errors are those of :func:`digital_folds`.
    """
    found = digital_folds(displacement, mask)
    return 100 * found.volume / found.voxels if found.voxels else float("nan")


def non_diffeomorphic_points(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> float:
    """Percent of the inner voxels of ``mask`` whose central determinant is ≤ 0 (NDP); see :func:`digital_folds`."""
    found = digital_folds(displacement, mask)
    return 100 * found.central / found.voxels if found.voxels else float("nan")


def folds(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> float:
    """Percentage of voxels where det ∇φ ≤ 0 by central differences (one-sided at the border of the grid).

    Parameters
    ----------
    displacement : Tensor, shape (1, D, *space)
        In voxels.
    mask : array of bool, shape space, optional
        Where to look; everywhere without.

    Returns
    -------
    float
        Between 0 and 100; NaN for an empty mask.

    Raises
    ------
    ValueError
        The displacement is no single field or not finite, or the mask is of another shape.
    """
    return float((_determinants(displacement, mask) <= 0).double().mean() * 100)


def sd_log_jacobian(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> float:
    """Standard deviation of log det ∇φ, determinants below 1e-9 counted as 1e-9; see :func:`folds`."""
    return float(_determinants(displacement, mask).clamp(min=1e-9).log().std())


def mean_jacobian(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> float:
    """Mean of det ∇φ, 1 where volume is kept on the whole; see :func:`folds`."""
    return float(_determinants(displacement, mask).mean())


def _determinants(displacement: Tensor, mask: np.ndarray | Tensor | None) -> Tensor:
    chosen = _mask(displacement, mask)
    return jacobian_determinant(displacement.double())[0][chosen]


def _mask(displacement: Tensor, mask: np.ndarray | Tensor | None) -> Tensor:
    require_field("displacement", displacement)
    require_finite("displacement", displacement)
    if len(displacement) != 1:
        raise ValueError(f"{describe('displacement', displacement)} must be one field, with a batch of 1")
    if mask is None:
        return torch.ones(displacement.shape[2:], dtype=torch.bool, device=displacement.device)
    mask = torch.as_tensor(mask, device=displacement.device)
    if mask.shape != displacement.shape[2:] or mask.dtype != torch.bool:
        raise ValueError(
            f"{describe('mask', mask)} of {mask.dtype} must be true or false for each voxel of "
            f"{describe('displacement', displacement)}"
        )
    return mask
