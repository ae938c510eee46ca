"""Regularity of a field: folds, non-diffeomorphic volume, and the spread of local volume change."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from regcore.checks import describe, require_field, require_finite
from regcore.kernels import jacobian
from regcore.spatial import jacobian_determinant


@dataclass(frozen=True)
class DigitalFolds:
    """Violations of a digital diffeomorphism (Liu et al., IJCV 2024) among the inner voxels of a mask.

    Parameters
    ----------
    voxels : int
        Number of voxels considered: in the mask, and not on the border of the grid.
    central : int
        Voxels whose determinant by central differences is ≤ 0, the paper's non-diffeomorphic points.
    corners : int
        Voxels with any of the determinants of their simplices ≤ 0.
    simplices : float
        Simplices with a determinant ≤ 0, in units of voxels: a voxel has ten simplices in 3-D and four in 2-D.
    volume : float
        Non-diffeomorphic volume (area in 2-D): that of the simplices turned inside out, in voxels.
    """

    voxels: int
    central: int
    corners: int
    simplices: float
    volume: float


def digital_folds(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> DigitalFolds:
    """Count folds of φ(p) = p + u(p) by all the determinants of Liu et al. (IJCV 2024), Section 4.

    Parameters
    ----------
    displacement : Tensor, shape (1, D, *space)
        In voxels, three or more along each axis.
    mask : array of bool, shape space, optional
        Voxels to consider; default: all.

    Raises
    ------
    ValueError
        The displacement is not a single field, not finite or too thin, or the mask has another shape.
    """
    chosen = _mask(displacement, mask)
    if min(displacement.shape[2:]) < 3:
        raise ValueError(f"{describe('displacement', displacement)} must have 3 voxels or more along each axis")
    voxels, central, corners, simplices, volume = jacobian.digital_folds(displacement, chosen).tolist()
    per_voxel = 10 if displacement.shape[1] == 3 else 4
    return DigitalFolds(int(voxels), int(central), int(corners), simplices / per_voxel, volume)


def non_diffeomorphic_volume(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> float:
    """NDV of Liu et al. (IJCV 2024) in percent of the inner voxels of ``mask``; the NDA in 2-D.

    NaN if there is no inner voxel.  Parameters and errors as for :func:`digital_folds`.
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
        Voxels to consider; default: all.

    Returns
    -------
    float
        Between 0 and 100; NaN for an empty mask.

    Raises
    ------
    ValueError
        The displacement is not a single field or not finite, or the mask has another shape.
    """
    return float((_determinants(displacement, mask) <= 0).double().mean() * 100)


def sd_log_jacobian(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> float:
    """Standard deviation of log det ∇φ, with determinants below 1e-9 set to 1e-9; see :func:`folds`."""
    return float(_determinants(displacement, mask).clamp(min=1e-9).log().std())


def mean_jacobian(displacement: Tensor, mask: np.ndarray | Tensor | None = None) -> float:
    """Mean of det ∇φ, 1 if the total volume is preserved; see :func:`folds`."""
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
